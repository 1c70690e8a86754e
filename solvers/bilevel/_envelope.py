"""The penalised value psi_sigma of the upper level, and its gradient, by lower solves."""

import copy
import math
from typing import Any, NamedTuple

from ._descent import Accelerated, Descent, Pairs, Proximal, Secants, forward, residual, together
from ._problem import Look

# Length of the steps that measure curvature, relative to the point.
_SECANT = 1e-3
# A lower solve that gets this far from where it began runs away.
_FAR = 1e10
# What a state holds beside pairs.
_CARRIED = ("accuracy", "theta", "gain", "_z", "_ways", "_family")
# Part of the way to z that a path may leave open if it ends in z.
_ARRIVED = 0.1
# Pairs in the lower level.
_MEMORY = 30


class UnboundedError(ArithmeticError):
    """The lower level, or its sum with a part of the upper, falls without end."""


class Side(NamedTuple):
    """What one penalty gives at x: psi_sigma, its gradient and the minimiser behind them.

    `slack` is the length of the lower solve's projected gradient, `reach` about how far the
    solution is, and `noise` the uncertainty of the value.
    """

    sigma: float
    y: Any
    f: Look
    g: Look
    value: float
    grad: Any
    slack: float
    reach: float
    noise: float


class Point(NamedTuple):
    """The lower level solved at x: its minimiser z, and one `Side` for each penalty.

    Of z there are the largest entry and the length of the projected gradient; `tilted` tells that
    the sides make up for it.
    """

    x: Any
    z: Any
    g: Look
    residual: float
    slack: float
    tilted: bool
    sides: tuple


class Scales(NamedTuple):
    """Curvatures of both levels in y; their ratio is the natural unit of sigma."""

    upper: float
    lower: float

    @property
    def sigma(self):
        """Return the penalty at which both levels weigh the same."""
        return self.lower / self.upper if self.upper > 0 else self.lower


class Envelope:
    """Lower solves with warm starts.

    Parameters
    ----------
    late : callable
        Whether there is no time left.
    maxiter : int
        Largest number of steps of one lower solve.
    tol_inner : float, optional
        Residual of lower solves, in units of the lower level's gradients.
    z0 : array, optional
        Where the first solve for z starts, in place of ``problem.y0``.
    others : sequence of arrays
        Further starts of every lower solve, for levels with several minima.

    Attributes
    ----------
    accuracy : float
        Residual of the upper level that is wanted; decides how well lower levels are solved.
    theta : float
        How much better, see `tolerance`.
    gain : float
        By how much residuals of lower solves are known to grow in the hyper-gradient.

    Notes
    -----
    What z is off by, a residual r, does not enter the hyper-gradient as r / sigma, because y is
    solved against the same tilt: z minimises ``g - r.z`` and y ``sigma f + g - r.y``, and both
    together belong to a lower level that is off by a linear term.
    """

    def __init__(
        self, problem, *, late=lambda: False, maxiter=1000, tol_inner=None, z0=None, others=()
    ):
        self.problem, self.late, self.maxiter, self.others = problem, late, maxiter, others
        self.accuracy, self.theta, self.tol_inner = 1e-2, 0.1, tol_inner
        self.gain = 1.0
        self.scales = scales(problem, problem.x0, problem.y0)
        self.unit = 1.0 / self.scales.lower
        prox = problem.lower.prox
        if prox is not None and not problem.Y.whole:
            raise ValueError("`Y` came beside `prox_y`; expected the set as a part of that term")
        self.region = problem.Y if prox is None else Proximal(prox)
        self._tilts = prox is None and (problem.Y.whole or problem.Y.lo is not None)
        self._z = problem.y0 if z0 is None else z0
        # Ways from z to the y: of the last solves, and of the last ones with several penalties.
        self._ways, self._family = {}, {}
        self._pairs = {}

    def tolerance(self, sigma):
        """Return the residual at which a lower solve may end, for a penalty sigma."""
        lower = self.scales.lower * max(1.0, float(abs(self._z).max()))
        if self.tol_inner is not None:
            return self.tol_inner * lower
        floor = 50 * self.problem.eps * lower
        wanted = self.theta * abs(sigma) * self.accuracy / self.gain
        return min(max(wanted, floor), max(1e-4 * lower, floor))

    def at(self, x, sigmas, *, strict=True):
        """Solve the lower level at x, alone and with each penalty.

        Parameters
        ----------
        sigmas : tuple of float
            Penalties; a negative one stands for ``g - |sigma| f``.
        strict : bool
            Whether z has to be as good as the y are; otherwise its residual counts as a tilt.
        """
        problem = self.problem
        precond = problem.lower.diagonal(x)
        exact = strict or not self._tilts
        tol = self.tolerance(min(map(abs, sigmas)) if exact else self.scales.sigma)
        (below,) = self._solve(x, [self._z], [tol], [0.0], precond)
        z, g = below.v, problem.lower.whole(x, below.v, below.note[1])
        tilt = self._tilt(z, g.gy)
        starts = [problem.Y.project(z + way) for way in self._guess(x, z, sigmas, precond)]
        tols = list(map(self.tolerance, sigmas))
        runs = self._solve(x, starts, tols, sigmas, precond, tilt)
        sides = tuple(
            self._side(x, sigma, run, z, g, tilt) for sigma, run in zip(sigmas, runs, strict=True)
        )
        if all(math.isfinite(side.value) for side in sides):
            self._z, self._ways = z, {side.sigma: side.y - z for side in sides}
            if len(sides) > 1:
                self._family = self._ways
        residual, slack = self.residual(z, g.gy), self._slack(z, g.gy)
        return Point(x, z, g, residual, slack, tilt is not None, sides)

    @property
    def start(self):
        """Return the last minimiser of the lower level."""
        return self._z

    def state(self):
        """Return all that later solves depend on, for `Watch.keep`."""
        pairs = {rank: own.state() for rank, own in self._pairs.items()}
        plain = {name: getattr(self, name) for name in _CARRIED}
        return {**plain, "pairs": pairs}

    def restore(self, state):
        """Go on from what `state` returned."""
        for name in _CARRIED:
            setattr(self, name, state[name])
        for rank, own in state["pairs"].items():
            self._own(rank).restore(own)

    def aside(self):
        """Return a twin whose solves leave no traces in this one."""
        twin = copy.copy(self)
        twin._pairs = {}
        twin.restore(self.state())
        return twin

    def lower_bound(self, point, side):
        """Return what psi at least is, by one side, less what its solves may have left open."""
        pairs = self._pairs.get(0)
        flat = min(pairs.curvatures()) / 4 if pairs else self.scales.lower / 4
        open_ = (side.slack + point.slack) ** 2 / (2 * max(flat, 1e-300) * side.sigma)
        return side.value - side.noise - open_

    def _tilt(self, z, grad):
        """Return the linear term without which z would be a minimiser, if there may be one."""
        if not self._tilts:
            return None
        Y = self.problem.Y
        if Y.whole:
            return grad
        return grad * ~(((z <= Y.lo) & (grad > 0)) | ((z >= Y.hi) & (grad < 0)))

    def _guess(self, x, z, sigmas, precond):
        """Yield where the minimisers with penalties lie from z, by what is known of their path."""
        for sigma in sigmas:
            if sigma in self._ways:
                yield self._ways[sigma]
            elif sigma in self._family:
                # As far as the one that was followed has moved, less what is proportional.
                (near, way), *_ = self._ways.items()
                old = self._family[near]
                share = norm(self._family[sigma]) / max(norm(old), 1e-300)
                yield self._family[sigma] + min(max(share, 0.0), 1.0) * (way - old)
            elif len(self._family) > 1:
                yield _extrapolate(self._family, sigma)
            else:
                # The first quasi-Newton step from z, by what its own solve has learnt.
                push = sigma * self.problem.upper.look(x, z, with_x=False).gy
                pairs = self._pairs.get(0)
                if pairs:
                    yield -pairs.times(push, precond)
                else:
                    yield -self.unit * push if precond is None else -push / precond

    def _side(self, x, sigma, run, z, at_z, tilt):
        y = run.v
        f = self.problem.upper.whole(x, y, run.note[0])
        g = self.problem.lower.whole(x, y, run.note[1])
        way = y - z
        rest = 0.0 if tilt is None else float(tilt @ way)
        value = f.value + (g.value - at_z.value - rest) / sigma
        noise = (abs(rest) + 8 * self.problem.eps * abs(g.value)) / abs(sigma)
        if self.region is not self.problem.Y:
            # The term without derivatives grows between as fast as its slopes at both ends.
            least, most = -float(at_z.gy @ way), -float(run.grad @ way)
            value += 0.5 * (least + most) / sigma
            noise += 0.5 * abs(most - least) / abs(sigma)
        grad = f.gx + (g.gx - at_z.gx) / sigma
        return Side(sigma, y, f, g, value, grad, self._slack(y, run.grad), self._reach(run), noise)

    def _reach(self, run):
        """Return the length of the quasi-Newton step that was not taken any more."""
        if not (self.problem.Y.whole and self._tilts and run.pairs):
            return 0.0
        return norm(run.pairs.times(run.grad, run.precond))

    def residual(self, y, grad):
        """Return the largest entry of the projected gradient of a lower level."""
        return residual(y, grad, self.region, self.unit)

    def _slack(self, y, grad):
        if not self.problem.Y.whole or self.region is not self.problem.Y:
            grad = (y - forward(y, grad, self.region, self.unit)) / self.unit
        return norm(grad)

    def _solve(self, x, starts, tols, sigmas, precond, tilt=None):
        """Minimise ``sigma f + g - tilt`` for every sigma side by side, over Y."""
        runs, owner = [], []
        for k, start in enumerate(starts):
            rank = k + 1 if sigmas[k] else 0
            own = self._remembered(rank, precond)
            for v in (start, *self.others):
                memory = own if v is start else _MEMORY
                runs.append(self._run(v, precond, memory))
                owner.append(k)
        searches = {j: self._descend(run, tols[owner[j]]) for j, run in enumerate(runs)}
        together(searches, self._looks(x, [sigmas[k] for k in owner], tilt))
        best = {}
        for k, run in zip(owner, runs, strict=True):
            if k not in best or run.value < best[k].value:
                best[k] = run
        return list(best.values())

    def _run(self, v, precond, memory=_MEMORY):
        if self.region is not self.problem.Y:
            return Accelerated(v, self.region, unit=self.unit)
        return Descent(None, v, self.region, unit=self.unit, precond=precond, memory=memory)

    def _remembered(self, rank, precond):
        """Return the pairs of the last solve of this rank, at another x."""
        pairs = self._own(rank)
        if precond is not None:
            pairs.bend(precond)
        return pairs

    def _own(self, rank):
        kind = Secants if self.problem.Y.whole else Pairs
        return self._pairs.setdefault(rank, kind(_MEMORY))

    def _descend(self, run, tol):
        """Take steps until the projected gradient is small; a search."""
        yield from run.begin()
        far = _FAR * max(1.0, float(abs(run.v).max()))
        failures = 0
        for _ in range(self.maxiter):
            if run.residual(self.unit) <= tol or self.late():
                return
            if not (yield from run.search()):
                failures += 1
                if failures == 3:
                    return
                run.restart()
            if float(abs(run.v).max()) > far:
                raise UnboundedError

    def _looks(self, x, sigmas, tilt):
        """Return what answers searches: in pairs, where two points cost less than twice one."""
        upper, lower = self.problem.upper, self.problem.lower

        def answer(points):
            keys = list(points)
            g = _all_looks(lower, x, points, keys)
            f = _all_looks(upper, x, points, [key for key in keys if sigmas[key]])
            return {
                key: self._sum(sigmas[key], f.get(key), g[key], points[key], tilt) for key in keys
            }

        return answer

    def _sum(self, sigma, f, g, y, tilt):
        value, grad, size = g.value, g.gy, abs(g.value)
        if f is not None:
            value, grad = value + sigma * f.value, grad + sigma * f.gy
            size += abs(sigma * f.value)
        if tilt is not None:
            value, grad = value - float(tilt @ y), grad - tilt
        return value, grad, self.problem.eps * size, (f, g)

    def settle(self, point):
        """Return a solution of the lower level near those with penalties.

        It is z where the path of the y leads there. Else plain steps, so that among several
        solutions it stays near the one that the upper level prefers; from where the path of the y
        ends, or from its last point if that is better.
        """
        x, lower = point.x, self.problem.lower
        last = min(point.sides, key=lambda side: abs(side.sigma))
        end = self.problem.Y.project(_extrapolate({s.sigma: s.y for s in point.sides}, 0.0))
        if norm(end - point.z) <= _ARRIVED * norm(last.y - point.z):
            return point.z
        tol = self.tolerance(last.sigma)
        there, here = (self.residual(y, lower.look(x, y, with_x=False).gy) for y in (end, last.y))
        start = end if there <= max(tol, here) else last.y
        return self.minimiser(x, start, tol, precondition=False)

    def minimiser(self, x, start, tol, *, precondition=True):
        """Minimise g alone over Y until the projected gradient is small."""
        run = self._run(start, self.problem.lower.diagonal(x) if precondition else None)
        together({0: self._descend(run, tol)}, self._looks(x, [0.0], None))
        return run.v


def _all_looks(level, x, points, keys):
    """Look at several points of y, two at a time."""
    looks = {}
    two = level.direct is not None
    while two and len(keys) > 1:
        (a, b), keys = keys[:2], keys[2:]
        pair = level.pair(x, points[a], points[b], with_x=False)
        looks[a], looks[b] = pair.first, pair.second
    looks.update((key, level.look(x, points[key], with_x=False)) for key in keys)
    return looks


def _extrapolate(ways, sigma):
    """Return the value at sigma of the polynomial through those that are known."""
    total = 0.0
    for s, way in ways.items():
        weight = math.prod((sigma - other) / (s - other) for other in ways if other != s)
        total = total + weight * way
    return total


def weights(order, sigma):
    """Return the weights of the psi, by penalty, whose sum is psi to a given order."""
    if order == 1:
        return {sigma: 1.0}
    return {sigma: -1.0, sigma / 2: 2.0} if order == 2 else {sigma / 2: 0.5, -sigma / 2: 0.5}


def ladder(order, sigma):
    """Return the penalties that `errors` needs."""
    if order == "central":
        return (sigma, sigma / 2, -sigma, -sigma / 2)
    return (sigma, sigma / 2, sigma / 4)


def combine(point, parts):
    """Return value, gradient and noise of a weighted sum of sides, and what to show of them."""
    sides = [(parts[side.sigma], side) for side in point.sides]
    value = sum(w * side.value for w, side in sides)
    grad = sum(w * side.grad for w, side in sides)
    return value, grad, sum(abs(w) * side.noise for w, side in sides), shown(point)


def shown(point):
    """Return what a result tells of a point that has not been measured, and psi about."""
    one = point.sides[0]
    fields = {
        "y_sigma": one.y,
        "z": point.z,
        "psi_lower": max(side.value for side in point.sides if side.sigma > 0),
        "g_z": point.g.value,
        "lower_residual": (point.residual, point.residual),
    }
    # The penalised value is below psi by about as much as it is above f.
    return fields, 2 * one.value - one.f.value


def scales(problem, x, z):
    """Return the curvatures of both levels near (x, z), from one pair of gradients each."""
    xp = problem.io.xp
    f, g = problem.upper.look(x, z), problem.lower.look(x, z, with_x=False)
    s = f.gy
    norm = math.sqrt(float(s @ s))
    if not norm > 0:
        s = xp.cos(xp.arange(len(z), dtype=z.dtype))
        norm = math.sqrt(float(s @ s))
    s = s * (-_SECANT * max(1.0, math.sqrt(float(z @ z))) / norm)
    step = math.sqrt(float(s @ s))
    moved = z + s
    change = [
        level.look(x, moved, with_x=False).gy - look.gy
        for level, look in ((problem.upper, f), (problem.lower, g))
    ]
    upper, lower = (math.sqrt(float(c @ c)) / step for c in change)
    return Scales(upper, lower if lower > 0 and math.isfinite(lower) else 1.0)


class Errors(NamedTuple):
    """How far a hyper-gradient can be off: `first` for one penalty, `second` extrapolated.

    `solves` is the part of lower solves, of which a residual r counts for ``gain r / sigma``.
    """

    first: float
    second: float
    grad: Any
    extrapolated: Any
    solves: float
    gain: float

    def of(self, order):
        """Return the hyper-gradient of an order, and its error."""
        return (self.grad, self.first) if order == 1 else (self.extrapolated, self.second)


def errors(point):
    """Estimate the errors of hyper-gradients from the sides of a `ladder`."""
    one, half, *others = point.sides
    sigma = one.sigma
    e1 = norm(half.grad - one.grad)
    # What unfinished lower solves and rounding add.
    steep = norm(one.g.gy - point.g.gy)
    mixed = norm(one.g.gx - point.g.gx)
    c_xy = mixed / steep if steep > 0 else 0.0
    # The quasi-Newton matrix knows better than c_xy how far residuals reach where g is flat.
    reach = mixed / max(norm(one.y - point.z), 1e-300)
    off = max(c_xy * one.slack, reach * one.reach)
    gain = off / one.slack if one.slack > 0 else 1.0
    solves = 3 * off / sigma
    if not point.tilted:
        solves += 3 * c_xy * point.slack / sigma
    elif steep > 0:
        # The step from z to y is a tilt as well, and moves the hyper-gradient by some 2 e1.
        solves += 6 * e1 * point.slack / steep
    eps = 2.0 ** (-52 if one.grad.dtype.itemsize == 8 else -23)
    rest = solves + 4 * eps * norm(one.g.gx) / sigma
    if len(others) == 2:
        # The two-sided differences, whose error is a quarter where the penalty is a half.
        far, near = (0.5 * (a.grad + b.grad) for a, b in zip((one, half), others, strict=True))
        best = near
        first, second = 4 * e1, 2 * norm(far - near)
    else:
        (quarter,) = others
        best, e2 = 2 * half.grad - one.grad, norm(quarter.grad - half.grad)
        q = e2 / e1 if e1 > 0 else 1.0
        first = 2 * e1 / max(0.1, 1 - q)
        # A ratio near 1/2 shows that the error is of the order that is extrapolated.
        regular = 0.45 <= q <= 0.55
        change = 2 * norm(best - (2 * quarter.grad - half.grad))
        second = change if regular else 4 * max(e1, e2) / max(0.1, 1 - q)
    if e1 <= rest:
        first = second = 0.0
    return Errors(first + rest, second + rest, one.grad, best, solves, gain)


def norm(v):
    """Return the length of a vector."""
    return math.sqrt(float(v @ v))
