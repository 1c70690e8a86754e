r"""Levenberg-Marquardt steps on the violation, :math:`\|c\|^2 / 2`.

With the Jacobian :math:`G` a step solves

.. math:: (G^\top G + S + \mu I) p = -G^\top c

written as a saddle-point system so that the inner solvers serve every kind of matrix. `S` is 0, or
the second derivatives of the rows weighted by c, which make it Newton's method. Within bounds a
logarithmic barrier that fades is added: steps that only shy away from bounds end up next to them,
where the next ones are short.
"""

import math

from ._matrices import Operator, add, is_operator
from .inner import Saddle

_FIRST, _LEAST, _MOST = 1e-3, 1e-12, 1e16
_GOOD, _POOR, _ACCEPTED = 0.75, 0.25, 1e-4
# Weight of the barrier: its share of the squared violation, what is left after a good step,
# and the least of the share.
_SHARE, _FADING, _LEAST_SHARE = 1.0, 0.3, 1e-6
# A relative gain in the squared violation that is lost in rounding, and how accurately to solve.
_ROUNDING, _ACCURACY = 1e-14, 1e-6


class Levenberg:
    """Damped Gauss-Newton steps, the damping in proportion to the violation.

    Parameters
    ----------
    problem : Standard or what wraps it
    inner : inner solver

    Attributes
    ----------
    damping : float
    bend : callable or None
        Returns S at a point; None for 0.
    """

    def __init__(self, problem, inner):
        self.problem, self.inner, self.damping, self.bend = problem, inner, _FIRST, None
        self._weight = math.inf

    def step(self, point):
        """Return the next point, of lower violation; None if no damping leads to one."""
        problem, be = self.problem, self.problem.be
        c, before, pull = point.c, violation(point, be=be), self._pull(point)
        S = self.bend(point) if self.bend else None
        while before > 0 and self.damping <= _MOST:
            p = self._direction(point, S, self.damping * before, pull)
            if p is None:
                self.damping *= 10
                continue
            length = problem.longest(point.z, p)
            p = length * p
            left = c + point.G @ p
            promised = 0.5 * be.host((c - left) @ (c + left) - (0 if S is None else p @ (S @ p)))
            promised += pull.promised(p)
            new = problem.point(point.z + p)
            won = 0.5 * be.host((c - new.c) @ (c + new.c)) + pull.won(new)
            # A comparison with NaN is False, which makes it a failed trial.
            ratio = won / promised if promised > 0 else -1.0
            if ratio > _GOOD:
                self.damping = max(self.damping / 10, _LEAST)
            elif not ratio > _POOR:
                self.damping *= 4
            if ratio > _ACCEPTED and won > 0:
                if ratio > _GOOD and length == 1.0:
                    self._weight *= _FADING
                return new
            if abs(promised) <= _ROUNDING * before**2:
                # The violation cannot judge any more; its gradient can.
                return new if steepness(new, be=be) < steepness(point, be=be) else None
        return None

    def _pull(self, point):
        """Return what keeps steps away from bounds, less and less of it."""
        if not self.problem.bounded:
            return _NoPull()
        share = _SHARE * self.problem.be.host(point.c @ point.c) / len(self.problem.sides)
        self._weight = min(max(self._weight, _LEAST_SHARE * share), share)
        return _Pull(point, self.problem.sides, self._weight)

    def _direction(self, point, S, mu, pull):
        """Solve for a step; None if the system is known not to be convex."""
        problem, be, xp = self.problem, self.problem.be, self.problem.xp
        n = problem.n
        B = diagonal(mu + pull.bend(n, xp), point.G, be=be)
        saddle = Saddle(B if S is None else add(B, S, be=be), point.G, 1.0, be=be)
        if self.inner.factor(saddle) is False:
            return None
        r = xp.concatenate([pull.force(n, xp) - point.G.T @ point.c, xp.zeros(problem.m)])
        return self.inner.solve(r, tol=_ACCURACY).d[:n]


class _NoPull:
    """The pull of no bounds."""

    def bend(self, n, xp):
        return xp.zeros(n)

    force = bend

    def promised(self, p):
        return 0.0

    won = promised


class _Pull:
    """A logarithmic barrier, ``-weight log d`` summed over the sides of bounds."""

    def __init__(self, point, sides, weight):
        self._be, self._d, self._sides, self._weight = point.problem.be, point.d, sides, weight

    def bend(self, n, xp):
        """Return its second derivatives."""
        return self._sides.summed(self._weight / self._d**2)

    def force(self, n, xp):
        """Return its negative gradient."""
        return -self._sides.gathered(self._weight / self._d)

    def promised(self, p):
        """Return what its quadratic model falls by along a step."""
        rate = self._sides.changes(p) / self._d
        return self._weight * self._be.host((rate - 0.5 * rate**2).sum())

    def won(self, new):
        """Return what it falls by."""
        return self._weight * self._be.host(self._be.xp.log(new.d / self._d).sum())


def violation(point, *, be):
    """Return the Euclidean length of c."""
    return math.sqrt(be.host(point.c @ point.c))


def steepness(point, *, be):
    """Return the largest entry of the gradient of ``||c||^2 / 2``."""
    return be.host(abs(point.G.T @ point.c).max())


def diagonal(d, like, *, be):
    """Return a diagonal matrix of the same kind as another matrix."""
    if is_operator(like):
        return Operator((len(d), len(d)), lambda v: d * v, lambda v: d * v)
    return be.sparse.diags(d).tocsr() if hasattr(like, "tocsr") else be.xp.diag(d)
