r"""The augmented Lagrangian of Powell, Hestenes and Rockafellar: a baseline.

For multipliers and a weight that stay fixed, trust-region Newton steps lower

.. math:: A(z) = f + \lambda^\top c + \frac{\mu}{2} \|c\|^2

Then :math:`\lambda` becomes :math:`\lambda + \mu c`. No system with the Jacobian is solved, so
that rows may depend on each other.
"""

import math

from .._core.result import Status
from ._matrices import is_dense, is_operator

# The gradient of A to begin with, and what it shrinks by from one problem to the next.
_TAU, _SHRINK = 0.1, 0.1
# The weight grows tenfold where the violation falls by less than a factor of four.
_HEAVIER, _ENOUGH, _WEIGHT_MAX, _LAM_MAX = 10.0, 0.25, 1e16, 1e12
# A violation above this means that A has no lower bound.
_ASTRAY = 1e4
_ACCEPTED, _GOOD, _POOR = 1e-4, 0.75, 0.25


class Lagrangian:
    """The augmented Lagrangian for fixed multipliers and weight."""

    def __init__(self, problem, lam, weight):
        self.problem, self.be, self.lam, self.weight = problem, problem.be, lam, weight

    def multipliers(self, point):
        """Return ``lam + mu c``, the estimate that a point gives."""
        return self.lam + self.weight * point.c

    def gradient(self, point):
        """Return the gradient of A."""
        return point.gradient(self.multipliers(point))

    def difference(self, point, new):
        """Return ``A(new) - A(point)``, term by term against cancellation."""
        c, c1 = point.c, new.c
        rows = self.lam @ (c1 - c) + 0.5 * self.weight * ((c1 - c) @ (c1 + c))
        return new.f - point.f + self.be.host(rows)

    def hessian(self, point):
        """Return the products with the Hessian of A and its diagonal, made positive."""
        B, G = self.problem.curvature(point, self.multipliers(point)).B, point.G
        weight, xp = self.weight, self.be.xp
        if is_operator(B) or is_operator(G):
            scale = xp.ones(len(point.z))
        else:
            squares = (G * G).sum(axis=0) if is_dense(G) else G.multiply(G).sum(axis=0)
            scale = abs(B.diagonal()) + weight * xp.asarray(squares).reshape(-1)
            scale = xp.maximum(scale, 1e-8 * xp.maximum(scale.max(), 1e-8))
        return (lambda v: B @ v + weight * (G.T @ (G @ v))), scale


def solve_auglag(problem, watch, options, start):
    """Minimise augmented Lagrangians for multipliers that improve; arguments as `solve_eal` has.

    Parameters
    ----------
    problem : Standard or what wraps it
    watch : Watch
    options : Options
    start : Answer

    Returns
    -------
    Answer
    """
    answer, trouble = descend(problem, watch, options, start)
    if trouble:
        watch.run.end(Status.STALLED, trouble)
    return answer


def descend(problem, watch, options, start):
    """Return where augmented Lagrangians led, and in what trouble, or None."""
    be, xp = problem.be, problem.xp
    watch.inner, watch.globalization = "cg", "trust region"
    point = home = problem.point(start.z)
    if watch.begin(problem, point, start):
        return start, None
    merit, region = Lagrangian(problem, start.lam, options.eta[0]), _Region(options)
    tau, least = _TAU, 0.1 * watch.tol * watch.standard.f_scale
    first = last = _largest(point.c, be)
    answer, moved = start, True
    for _ in watch.run:
        new, its = region.step(merit, point)
        if new is None and not moved and not merit.weight < _WEIGHT_MAX:
            trouble = "No step lowers the augmented Lagrangian."
            return answer, None if watch.ends.infeasible(point) else trouble
        moved = new is not None
        if moved and not _largest(new.c, be) <= _ASTRAY * max(1.0, first):
            # A has no lower bound: begin again from where it was last solved.
            new, region = home, _Region(options)
            merit = Lagrangian(problem, merit.lam, _HEAVIER * merit.weight)
        if moved:
            lam = merit.multipliers(new)
            problem.moved(point, merit.multipliers(point), new, lam, 1.0)
            point, answer = new, problem.answer(new, lam)
            series = {"inner_its": its, "eta1": merit.weight}
            if watch.record(problem, point, answer, **series):
                break
        if not moved or be.host(abs(merit.gradient(point)).max()) <= tau:
            now = _largest(point.c, be)
            enough = now <= _ENOUGH * last and moved
            weight = merit.weight * (1.0 if enough else _HEAVIER)
            lam = xp.clip(merit.multipliers(point), -_LAM_MAX, _LAM_MAX)
            merit = Lagrangian(problem, lam, min(weight, _WEIGHT_MAX))
            home, last, tau = point, now, max(_SHRINK * tau, least)
    return answer, None


def _largest(v, be):
    return be.host(abs(v).max()) if len(v) else 0.0


# ---------------------------------------------------------------- the trust region
class _Region:
    """Steps within a radius that follows how well the quadratic model predicts A."""

    def __init__(self, options):
        self._options, self._radius = options, None

    def step(self, merit, point):
        """Return the next point, None if there is none, and the steps of conjugate gradients."""
        problem, be = merit.problem, merit.be
        g, (product, scale) = merit.gradient(point), merit.hessian(point)
        size = math.sqrt(be.host(g @ (g / scale)))
        if self._radius is None:
            self._radius = 10.0 * size
        its = 0
        while size > 0 and self._radius > 1e-14 * size and not self._options.deadline():
            p, steps = _steihaug(product, g, scale, self._radius, min(0.1, math.sqrt(size)), be)
            p, its = problem.longest(point.z, p) * p, its + steps
            promised = -be.host(g @ p + 0.5 * (p @ product(p)))
            new = problem.point(point.z + p)
            change = merit.difference(point, new)
            ratio = -change / promised if promised > 0 else -1.0
            length = math.sqrt(be.host(p @ (scale * p)))
            if ratio > _GOOD:
                self._radius = max(self._radius, 2 * length)
            elif not ratio > _POOR:
                self._radius = 0.25 * length
            if ratio > _ACCEPTED or self._at_rounding(merit, point, new, change):
                return new, its
        return None, its

    def _at_rounding(self, merit, point, new, change):
        """Tell whether A cannot judge a step any more and its gradient shrinks."""
        if not abs(change) <= 1e-13 * (1 + abs(point.f)):
            return False
        before, after = (abs(merit.gradient(p)).max() for p in (point, new))
        return merit.be.host(after) <= 0.5 * merit.be.host(before)


def _steihaug(product, g, scale, radius, tol, be):
    """Minimise ``g @ p + p @ H p / 2`` within a radius by conjugate gradients.

    They end at the radius, or where the curvature is not positive, on the radius; lengths are
    those of ``sqrt(scale) p``.
    """
    xp = be.xp
    p, r = xp.zeros(len(g)), g
    y = r / scale
    s, ry = -y, be.host(r @ y)
    goal, norm2 = tol**2 * ry, 0.0
    for k in range(1, 2 * len(g) + 1):
        Hs = product(s)
        curved, ps, ss = be.host(s @ Hs, p @ (scale * s), s @ (scale * s))
        alpha = ry / curved if curved > 0 else math.inf
        if not norm2 + 2 * alpha * ps + alpha**2 * ss < radius**2:
            out = (math.sqrt(ps**2 + ss * (radius**2 - norm2)) - ps) / ss
            return p + out * s, k
        p, r = p + alpha * s, r + alpha * Hs
        norm2 = be.host(p @ (scale * p))
        y = r / scale
        last, ry = ry, be.host(r @ y)
        if ry <= goal:
            break
        s = (ry / last) * s - y
    return p, k
