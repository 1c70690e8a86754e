r"""Levenberg-Marquardt steps on the violation, :math:`\|c\|^2 / 2`.

With the Jacobian :math:`G` a step solves

.. math:: (G^\top G + S + \mu D^{-2}) p = -G^\top c

written as a saddle-point system so that the inner solvers serve every kind of matrix. `D` is 1
for unknowns without bounds; near a bound it is the distance, so that steps bend away from it. `S`
is 0, or the second derivatives of the rows weighted by c, which make it Newton's method.
"""

import math

from ._matrices import Operator, add, is_operator
from .inner import Saddle

_FIRST, _LEAST, _MOST = 1e-3, 1e-12, 1e16
_GOOD, _POOR, _ACCEPTED = 0.75, 0.25, 1e-4
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

    def step(self, point):
        """Return the next point, of lower violation; None if no damping leads to one."""
        problem, be = self.problem, self.problem.be
        c, before = point.c, violation(point, be=be)
        S = self.bend(point) if self.bend else None
        while before > 0 and self.damping <= _MOST:
            p = self._direction(point, S, self.damping * before)
            if p is None:
                self.damping *= 10
                continue
            p = problem.longest(point.z, p) * p
            left = c + point.G @ p
            promised = 0.5 * be.host((c - left) @ (c + left) - (0 if S is None else p @ (S @ p)))
            new = problem.point(point.z + p)
            won = 0.5 * be.host((c - new.c) @ (c + new.c))
            # A comparison with NaN is False, which makes it a failed trial.
            ratio = won / promised if promised > 0 else -1.0
            if ratio > _GOOD:
                self.damping = max(self.damping / 10, _LEAST)
            elif not ratio > _POOR:
                self.damping *= 4
            if ratio > _ACCEPTED and won > 0:
                return new
            if abs(promised) <= _ROUNDING * before**2:
                # The violation cannot judge any more; its gradient can.
                return new if steepness(new, be=be) < steepness(point, be=be) else None
        return None

    def _direction(self, point, S, mu):
        """Solve for a step; None if the system is known not to be convex."""
        problem, be, xp = self.problem, self.problem.be, self.problem.xp
        B = diagonal(mu / _reach(problem, point.z) ** 2, point.G, be=be)
        saddle = Saddle(B if S is None else add(B, S, be=be), point.G, 1.0, be=be)
        if self.inner.factor(saddle) is False:
            return None
        r = xp.concatenate([-(point.G.T @ point.c), xp.zeros(problem.m)])
        return self.inner.solve(r, tol=_ACCURACY).d[: problem.n]


def violation(point, *, be):
    """Return the Euclidean length of c."""
    return math.sqrt(be.host(point.c @ point.c))


def steepness(point, *, be):
    """Return the largest entry of the gradient of ``||c||^2 / 2``."""
    return be.host(abs(point.G.T @ point.c).max())


def _reach(problem, z):
    """Return the distance to the nearer bound, at most 1."""
    xp = problem.xp
    if not problem.bounded:
        return xp.ones(problem.n)
    return xp.minimum(1.0, xp.minimum(z - problem.lo, problem.up - z))


def diagonal(d, like, *, be):
    """Return a diagonal matrix of the same kind as another matrix."""
    if is_operator(like):
        return Operator((len(d), len(d)), lambda v: d * v, lambda v: d * v)
    return be.sparse.diags(d).tocsr() if hasattr(like, "tocsr") else be.xp.diag(d)
