"""The loops of penalty descent as they were published, with full gradients.

All minimise ``f(x, y) + (g(x, y) - g(x, z)) / sigma`` over x and y, with z the minimiser of
``g(x, .)``; they differ in how far y and z follow x. Lower steps have the length ``1 / L``, of
which L doubles where a step does not descend, and steps in x that of [1]_: half of what the last
two gradients say, growing slowly.

    .. [1] Y. Malitsky, K. Mishchenko. Adaptive gradient descent without descent. ICML 2020.
"""

import math

from .._core.result import Status
from ._curvature import Curvature
from ._descent import residual
from ._envelope import Envelope, UnboundedError, errors, ladder, norm

# Gradient steps for one proximal point, or for one value of the lower level.
_STEPS = 10
# A stage may stop where the penalty's error is this many times the residual.
_KAPPA = 0.3
# Largest error of the gradient, relative to it, at which a single loop moves x: with 0.1 the
# steps' lengths, which come from gradients, were too long for a condition of 30.
_TRACKED = 0.03
# What a state holds of a loop.
_CARRIED = ("x", "y", "z", "sigma", "curvature")


def minimise(problem, watch, options):
    """Lower sigma in stages, each a loop until its gradient is small."""
    from ._penalty import entering, others

    own, run = options.own, watch.run
    env = Envelope(
        problem,
        late=lambda: run.late,
        maxiter=options.maxiter_inner,
        tol_inner=options.tol_inner,
        z0=entering(problem, own.z0),
        others=others(problem, own.multistart, options.rng),
    )
    try:
        _stages(watch, options, env, LOOPS[own.method](problem, env, lambda: run.late))
    except UnboundedError:
        run.end(Status.UNBOUNDED, "The lower level falls without end in y; bound it by `Y`.")


def _stages(watch, options, env, loop):
    own, run = options.own, watch.run
    order = 1 if own.order == 1 else 2
    S, eps = env.scales.sigma, env.problem.eps
    sigma = own.sigma or own.first or 0.1 * S
    # The loops descend along d_sigma, whatever the order that is reported.
    least = own.sigma_min or 10 * eps**0.5 * S
    half_done = watch.resumed
    for _ in run:
        if half_done is None:
            start, size = _judged(watch, env, loop.x, sigma, order)
            goal = max(watch.goal, _KAPPA * start.first / size)
            loop.begin(sigma)
        else:
            sigma, goal = half_done["sigma"], half_done["goal"]
            env.restore(half_done["env"])
            loop.restore(half_done["loop"])
            half_done = None
        for _ in run:
            stat, fun = loop.advance(goal)
            watch.answer(loop.x, loop.y)
            ended = watch.record(stat, fun=fun, sigma=sigma)
            state = {"env": env.state(), "loop": loop.state()}
            watch.keep({"sigma": sigma, "goal": goal, **state})
            if ended or stat <= goal:
                break
        # What the lower solves leave open must not pass for the penalty's error.
        env.accuracy = max(watch.goal, 0.1 * goal)
        _judged(watch, env.aside() if run.status is not None else env, loop.x, sigma, order)
        if run.status is not None or run.late:
            continue
        if watch.holds():
            run.end(Status.CONVERGED)
        elif own.sigma is not None or sigma / 10 < least:
            run.end(Status.STALLED, f"The penalty reached {sigma:.3g}.")
        sigma /= 10


class Pace:
    """Lengths of steps in x by the last two gradients."""

    def __init__(self, length=None, growth=math.inf, last=None):
        self.length, self._growth, self._last = length, growth, last

    def state(self):
        """Return what makes another one like this."""
        return self.length, self._growth, self._last

    def step(self, x, grad):
        """Return the length of the step from x."""
        if self._last is None:
            length = 1e-2 * max(1.0, float(abs(x).max())) / max(float(abs(grad).max()), 1e-300)
        else:
            moved, change = norm(x - self._last[0]), norm(grad - self._last[1])
            length = self.length * math.sqrt(1 + self._growth)
            if moved > 0 and change > 0:
                length = min(length, 0.5 * moved / change)
            self._growth = length / self.length
        self.length, self._last = length, (x, grad)
        return self.length


class Loop:
    """State of a loop: x, and the points y and z that follow it.

    Attributes
    ----------
    x, y, z : array
        Where it is.
    curvature : float
        L, the inverse of the length of lower steps.
    """

    def __init__(self, problem, env, late):
        self.problem, self.env, self.late = problem, env, late
        self.x, self.y, self.z = problem.x0, problem.y0, problem.y0

    def state(self):
        """Return all that later steps depend on, for `Watch.keep`."""
        plain = {name: getattr(self, name) for name in _CARRIED}
        return {**plain, "pace": self.pace.state()}

    def restore(self, state):
        """Go on from what `state` returned."""
        for name in _CARRIED:
            setattr(self, name, state[name])
        self.pace = Pace(*state["pace"])

    def begin(self, sigma):
        """Set out with another penalty."""
        self.sigma, self.pace = sigma, Pace()
        self.curvature = Curvature(self.problem, self.x, self.z, precondition=False).largest()

    def penalised(self, y, sigma):
        """Return value and gradient of ``sigma f + g`` in y."""
        g = self.problem.lower.look(self.x, y)
        if not sigma:
            return g.value, g.gy
        f = self.problem.upper.look(self.x, y)
        return sigma * f.value + g.value, sigma * f.gy + g.gy

    def walk(self, y, sigma, steps, tol=0.0, centre=None):
        """Take gradient steps on ``sigma f + g``, near a centre if there is one."""
        near = self.curvature if centre is not None else 0.0
        value, grad = self._near(y, sigma, near, centre)
        for _ in range(steps):
            if self.residual(y, grad) <= tol or self.late():
                break
            while True:
                L = self.curvature + near
                new = self.problem.Y.project(y - grad / L)
                move = new - y
                after, there = self._near(new, sigma, near, centre)
                noise = 8 * self.problem.eps * abs(value)
                bound = value + float(grad @ move) + 0.5 * L * float(move @ move) + noise
                if after <= bound or not L < 1e300:
                    break
                self.curvature *= 2
            y, value, grad = new, after, there
        return y

    def _near(self, y, sigma, near, centre):
        value, grad = self.penalised(y, sigma)
        if not near:
            return value, grad
        move = y - centre
        return value + 0.5 * near * float(move @ move), grad + near * move

    def residual(self, y, grad):
        return residual(y, grad, self.problem.Y, 1.0 / self.curvature)

    def off(self, y, sigma):
        """Return how far y is from the minimiser of ``sigma f + g``, as a residual."""
        return self.residual(y, self.penalised(y, sigma)[1])

    def gradient(self):
        """Return the value of f and the gradient of psi_sigma for y and z as they are."""
        f = self.problem.upper.look(self.x, self.y)
        at_y, at_z = (self.problem.lower.look(self.x, v) for v in (self.y, self.z))
        return f.value, f.gx + (at_y.gx - at_z.gx) / self.sigma

    def stat(self, grad):
        """Return the largest residual of all three points, in the upper level's unit."""
        stat = residual(self.x, grad, self.problem.X, 1.0) / max(1.0, float(abs(grad).max()))
        behind = max(self.off(self.y, self.sigma), self.off(self.z, 0.0))
        return max(stat, behind / (self.env.theta * self.sigma))

    def move(self, grad):
        """Step with x."""
        self.x = self.problem.X.project(self.x - self.pace.step(self.x, grad) * grad)


class DoubleLoop(Loop):
    """Algorithm 1 of Kwon et al.: proximal points in y and z until they have caught up with x."""

    def advance(self, goal):
        """Follow x with y and z, then step; return residual and f before the step."""
        tol = self.env.tolerance(self.sigma)
        for _ in range(self.env.maxiter):
            behind = [self.off(self.y, self.sigma), self.off(self.z, 0.0)]
            if max(behind) <= tol or self.late():
                break
            # rho = 1 / L and beta = 1.
            self.y = self.walk(self.y, self.sigma, _STEPS, 0.1 * behind[0], centre=self.y)
            self.z = self.walk(self.z, 0.0, _STEPS, 0.1 * behind[1], centre=self.z)
        fun, grad = self.gradient()
        stat = self.stat(grad)
        self.env.accuracy = min(max(0.3 * goal, stat), 2 * self.env.accuracy)
        if stat > goal:
            self.move(grad)
        return stat, fun


class SingleLoop(Loop):
    """Algorithm 2 of Kwon et al. with full gradients: one step of each, all the time."""

    def advance(self, goal):
        """Step with y and z, and with x unless it would leave them behind."""
        self.z = self.walk(self.z, 0.0, 1)
        self.y = self.walk(self.y, self.sigma, 1)
        fun, grad = self.gradient()
        stat = self.stat(grad)
        if stat > goal and self._lag() <= _TRACKED * norm(grad):
            self.move(grad)
        return stat, fun

    def _lag(self):
        """Estimate the error of the gradient that y and z cause: their common part cancels."""
        at_y, at_z = (self.problem.lower.look(self.x, v) for v in (self.y, self.z))
        steep = norm(at_y.gy - at_z.gy)
        mixed = norm(at_y.gx - at_z.gx) / steep if steep > 0 else 0.0
        behind = self._behind(self.y, self.sigma) - self._behind(self.z, 0.0)
        return mixed * norm(behind) / self.sigma

    def _behind(self, y, sigma):
        """Return the projected gradient of ``sigma f + g``."""
        L = self.curvature
        return L * (y - self.problem.Y.project(y - self.penalised(y, sigma)[1] / L))


class Joint(Loop):
    """V-PBGD of Shen and Chen: steps of x and y together, with z from a few steps of its own."""

    def advance(self, goal):
        """Step with z, then with x and y at once."""
        xp, d = self.problem.io.xp, len(self.x)
        self.z = self.walk(self.z, 0.0, _STEPS)
        fun, grad = self.gradient()
        stat = self.stat(grad)
        if stat > goal:
            both = xp.concatenate([self.x, self.y])
            slope = xp.concatenate([self.sigma * grad, self.penalised(self.y, self.sigma)[1]])
            both = both - self.pace.step(both, slope) * slope
            self.x, self.y = self.problem.X.project(both[:d]), self.problem.Y.project(both[d:])
        return stat, fun


LOOPS = {"double-loop": DoubleLoop, "single-loop": SingleLoop, "vpbgd": Joint}


def _judged(watch, env, x, sigma, order):
    """Make x the answer, with all that lower solves tell of it; return the errors and a size."""
    from ._penalty import _keep

    point = env.at(x, ladder(order, sigma))
    e = errors(point)
    _keep(env.problem, env, watch, point, e, order)
    return e, max(1.0, norm(e.extrapolated))
