"""What a solver of blocks knows of its own accuracy: the duality gap at its gradient.

It costs no pass over the data, and decides when to stop looking; `certify` has the last word.
"""

import numpy as np

from .. import losses
from ._block_part import fit_intercept

_EPS = np.finfo(np.float64).eps


class Measure:
    """Measures points of one problem.

    Parameters
    ----------
    state : _State
        Any point.

    Attributes
    ----------
    scale : float
        What values are relative to, in the unit of the objective.
    """

    def __init__(self, state):
        problem, be, blocks = state.problem, state.be, state.blocks
        z = 0.0 * state.z
        if problem.fit_intercept:
            z, _ = fit_intercept(problem, z, 0.0 * state.c)
        self.scale = float(problem.loss_sum(z)) or 1.0
        r = problem.slopes(z)
        g = problem.design.rdot(r.astype(problem.design.dtype)).reshape(-1)[state.order]
        free = blocks.l1 + blocks.ridge + blocks.l2[blocks.owner] == 0.0
        self.dual = type(problem.loss) in _DUALS and not be.host(free.any())
        self.unit = be.host(abs(g).max()) or 1.0

    def take(self, state):
        """Return the certificate's value, the gap and the objective."""
        primal = state.objective()
        if not self.dual:
            return state.be.host(state.distance.max()) / self.unit + 4 * _EPS, np.nan, primal
        dual = self._dual(state)
        gap = max(primal - dual, 0.0)
        value = (gap + 4 * _EPS * (abs(primal) + abs(dual))) / self.scale
        return value, gap, primal

    def _dual(self, state):
        """Return a lower bound of the optimum."""
        be, xp, blocks, problem = state.be, state.xp, state.blocks, state.problem
        limits = xp.empty(blocks.number)
        be.kernels("solvers.bcd", "groups").block_scales(
            blocks.ptr, blocks.l1, blocks.l2, state.g, limits
        )
        soft = xp.bincount(blocks.owner, blocks.ridge, minlength=blocks.number) > 0.0
        limit = be.host(xp.where(soft, np.inf, limits).min())
        bounds = [_DUALS[type(problem.loss)](problem, state.z, state.r, limit)]
        factors = [bounds[0][0]]
        if be.host(soft.any()):
            # Without a scale that suits every block, the ridge pays for what is over.
            factors.append(min(limit, 1.0))
            factors.append(min(be.host(limits.min()), 1.0))
        best = -np.inf
        for k in factors:
            over = xp.maximum(abs(k * state.g) - blocks.l1, 0.0)
            ridge = xp.where(blocks.ridge > 0.0, blocks.ridge, 1.0)
            paid = xp.where(blocks.ridge > 0.0, over * over / (2.0 * ridge), 0.0).sum()
            value = _DUALS[type(problem.loss)](problem, state.z, state.r, limit, k)[1]
            best = max(best, value - be.host(paid))
        return best


def _squared(problem, z, r, limit, k=None):
    """Return the factor of the slopes that is best within the limit, and the dual there."""
    s = problem.s
    size, cross = problem.be.host((r * r / s).sum(), -(r * problem.y).sum())
    if k is None:
        k = min(max(cross / max(size, 1e-300), -limit), limit)
    return k, k * cross - 0.5 * k * k * size


def _logistic(problem, z, r, limit, k=None):
    k = min(limit, 1.0) if k is None else k
    v = -k * problem.y * r / problem.s
    return k, -problem.be.host((problem.s * (_xlogx(problem, v) + _xlogx(problem, 1 - v))).sum())


def _multinomial(problem, z, r, limit, k=None):
    k = min(limit, 1.0) if k is None else k
    q = k * r
    q[problem.xp.arange(problem.y.size), problem.y] += problem.s
    q = q / problem.s[:, None]
    return k, -problem.be.host((problem.s * _xlogx(problem, q).sum(axis=1)).sum())


def _bounded(problem, z, r, limit, k=None):
    """Huber's loss and the squared hinge: squares, on fewer slopes."""
    k = min(limit, 1.0) if k is None else k
    return k, _squared(problem, z, r, limit, k)[1]


def _xlogx(problem, v):
    xp = problem.xp
    return xp.where(v > 0.0, v * xp.log(xp.where(v > 0.0, v, 1.0)), 0.0)


_DUALS = {
    losses.Squared: _squared,
    losses.Logistic: _logistic,
    losses.Multinomial: _multinomial,
    losses.Huber: _bounded,
    losses.SquaredHinge: _bounded,
}
