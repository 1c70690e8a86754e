r"""Levenberg-Marquardt steps on the violation, :math:`\|c\|^2 / 2`.

With the Jacobian :math:`G` a step solves :math:`(G^\top G + \mu D^{-2}) p = -G^\top c`, written as
a saddle-point system so that the inner solvers serve every kind of matrix. `D` is 1 for unknowns
without bounds; near a bound it is the distance, so that steps bend away from it.
"""

import math

from ._matrices import Operator, is_operator
from .inner import Saddle

_FIRST, _LEAST, _MOST = 1e-3, 1e-12, 1e16
_GOOD, _POOR, _ACCEPTED = 0.75, 0.25, 1e-4
# A relative gain in the squared violation that is lost in rounding.
_ROUNDING = 1e-14


class Levenberg:
    """Damped Gauss-Newton steps, the damping in proportion to the violation.

    Parameters
    ----------
    problem : Standard or what wraps it
    inner : inner solver
    """

    def __init__(self, problem, inner):
        self.problem, self.inner, self.damping = problem, inner, _FIRST
        self.iterations = 0

    def step(self, point):
        """Return the next point, of lower violation; None if no damping leads to one."""
        problem, be = self.problem, self.problem.be
        c, before = point.c, violation(point, be=be)
        while self.damping <= _MOST:
            p = self._direction(point, self.damping * before)
            p = problem.longest(point.z, p) * p
            left = c + point.G @ p
            promised = 0.5 * be.host((c - left) @ (c + left))
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
            if promised <= _ROUNDING * before**2:
                # The violation cannot judge any more; its gradient can.
                return new if _steep(new, be) <= 0.5 * _steep(point, be) else None
        return None

    def _direction(self, point, mu):
        problem, be, xp = self.problem, self.problem.be, self.problem.xp
        n = problem.n
        d = mu / _reach(problem, point.z) ** 2
        saddle = Saddle(diagonal(d, point.G, be=be), point.G, 1.0, be=be)
        self.inner.factor(saddle)
        solved = self.inner.solve(xp.concatenate([xp.zeros(n), -point.c]), tol=1e-6)
        self.iterations += solved.iterations
        return solved.d[:n]


def _steep(point, be):
    return be.host(abs(point.G.T @ point.c).max())


def violation(point, *, be):
    """Return the Euclidean length of c."""
    return math.sqrt(be.host(point.c @ point.c))


def _reach(problem, z):
    """Return the distance to the nearer bound, at most 1."""
    xp = problem.xp
    if not problem.bounded:
        return xp.ones(problem.n)
    return xp.minimum(1.0, xp.minimum(z - problem.lo, problem.up - z))


def diagonal(d, like, *, be):
    """Return a diagonal matrix of the same kind as another matrix."""
    shape = (len(d), len(d))
    if is_operator(like):
        return Operator(shape, lambda v: d * v, lambda v: d * v)
    if hasattr(like, "tocsr"):
        return be.sparse.diags(d).tocsr()
    return be.xp.diag(d)
