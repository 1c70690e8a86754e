"""Blocks that are not read off the scores of single unknowns: ratios, pursuit, thresholding."""

import copy

import numpy as np

from . import _scores

# Rounds of hard thresholding.
_THRESHOLDINGS = 10


def top(state, scores, size):
    """Return the unknowns with the largest scores, ascending; of equal ones the lowest."""
    problem = state.problem
    if size == 1:
        return scores.argmax().reshape(1)
    out = problem.xp.empty(size, np.int64)
    problem.be.kernels("solvers.bcd", "select").top(_filled(state, scores), out)
    return out


def _filled(state, scores):
    """Prefer what has left zero among unknowns without any score.

    A block that is larger than the number of violations then holds the support as well, and a
    Newton step on it ends where nothing is violated.
    """
    return scores + np.finfo(np.float64).tiny * ((scores == 0) & (state.x != 0))


class Ratio:
    """GSL for any unknowns: the largest ``|g_b|^2`` over the largest L_i of the block.

    That times the block's size is a bound of L_b. So is the sum of the L_i, and a smaller one;
    but whatever is chosen by it are unknowns with next to no gradient and constants still smaller.
    """

    def __init__(self, state, size):
        xp = state.problem.xp
        self._state, self._size = state, size
        self._order = xp.argsort(state.lipschitz, kind="stable")

    def __call__(self):
        state, xp, L = self._state, self._state.problem.xp, self._state.lipschitz
        square = _scores.score_all(state, _scores.squared_distance, L)
        kernels = state.problem.be.kernels("solvers.bcd", "select")
        last = kernels.best_limit(square, L, self._order, xp.empty(self._size))
        limit = L[self._order[last]]
        self.scores = xp.where((limit >= L) & (L > 0), square, -np.inf)
        return None, top(state, self.scores, self._size)


class Pursuit:
    """GSQ for any unknowns: one after another from twice as many candidates.

    Candidates are those of GSD, whose block is returned where the search finds no better one.
    """

    def __init__(self, state, size):
        self._state, self._size = state, size
        self._diagonal = _scores.variable_diagonal(state, size)

    def __call__(self):
        state, xp, size = self._state, self._state.problem.xp, self._size
        kernels = state.problem.be.kernels("solvers.bcd", "select")
        g = _scores.gradient(state)
        self.scores = _scores.score_all(state, _scores.gain, self._diagonal)
        plain = top(state, self.scores, size)
        candidates = top(state, self.scores, min(2 * size, g.size))
        inside = xp.searchsorted(candidates, plain)
        H = _scores.smooth_bound(state, candidates)
        chosen, order = xp.empty(size, np.int64), xp.empty(size, np.int64)
        found = kernels.pursue(H, g[candidates], chosen)
        known = kernels.pursue(H[inside][:, inside], g[plain], order)
        found, known, all_chosen = state.problem.be.host(found, known, (chosen >= 0).all())
        if found > known and all_chosen:
            return None, xp.sort(candidates[chosen])
        return None, plain


class Thresholding:
    """GSQ for any unknowns by iterative hard thresholding.

    In units in which the diagonal of the Hessian is 1: else what is kept are the unknowns that
    move far, whether or not they gain anything.
    """

    def __init__(self, state, size):
        self._state, self._size, xp = state, size, state.problem.xp
        self._unit = xp.sqrt(_scores.inverse(xp, state.lipschitz + state.penalty.ridge))
        product = _scores.hessian_product(state)
        self._product = lambda v: (
            self._unit * (product(self._unit * v) + state.penalty.ridge * (self._unit * v))
        )
        self._step = 1.0 / _spectral_radius(state, self._product)

    def __call__(self):
        state = self._state
        g = self._unit * _scores.gradient(state)
        d = self._kept(-g)
        for _ in range(_THRESHOLDINGS):
            new = self._kept(d - self._step * (g + self._product(d)))
            change, length = state.problem.be.host(abs(new - d).max(), abs(new).max())
            d = new
            if change <= 1e-10 * length:
                break
        self.scores = abs(d)
        return None, top(state, self.scores, self._size)

    def _kept(self, d):
        out = self._state.problem.xp.zeros(d.size)
        block = top(self._state, abs(d), self._size)
        out[block] = d[block]
        return out


def _spectral_radius(state, product):
    """Return an estimate from above of the largest eigenvalue of a semi-definite matrix."""
    xp, host = state.problem.xp, state.problem.be.host
    # A start that no eigenvector is orthogonal to, for certain.
    v = xp.asarray(np.random.default_rng(0).standard_normal(state.x.size))
    value = 0.0
    for _ in range(50):
        v = v / xp.sqrt((v * v).sum())
        w = product(v)
        new = host(xp.sqrt((w * w).sum()))
        if not new > 0.0:
            return 1.0
        done, value, v = abs(new - value) <= 1e-3 * new, new, w
        if done:
            break
    return 1.05 * value


def improvement(state, block):
    """Return by how much the objective of a smooth problem can fall in a block."""
    trial = copy.copy(state)
    trial.x = state.x.copy()
    xp, host, total = state.problem.xp, state.problem.be.host, 0.0
    ridge = state.penalty.ridge[block].astype(np.float64)
    for _ in range(50):
        x = trial.x[block].astype(np.float64)
        g = trial.partial(block).astype(np.float64) + ridge * x
        H = trial.hessian(block).astype(np.float64) + xp.diag(ridge)
        # Of a singular matrix, and of one without any entry.
        little = 1e-12 * xp.trace(H) / block.size + np.finfo(np.float64).tiny
        d = -xp.linalg.solve(H + little * xp.eye(block.size), g)
        slope = host(g @ d)
        if not slope < -1e-12 * total:
            break
        line, t, change = trial.line(block, d), 1.0, 0.0
        while t > 1e-10:
            change = line.change(t) + host(t * (ridge * d) @ (x + 0.5 * t * d))
            if change <= 1e-4 * t * slope:
                break
            t *= 0.5
        if not change < 0.0:
            break
        trial.move(line, t)
        total -= change
    return total
