"""A preconditioner for Laplacians whose labels are far apart: aggregation multigrid.

Nodes are merged in pairs of pairs, level by level, and each level is solved by two steps of
flexible conjugate gradients, the "K-cycle" of Y. Notay, An aggregation-based algebraic multigrid
method, Electronic Transactions on Numerical Analysis 37, 2010.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .rules import _forest

# Systems of this size are factorised.
_COARSEST = 500
# A residual that falls this far in the first inner step needs no second.
_GOOD = 0.25


@dataclass(frozen=True)
class Level:
    """A matrix, the order of its sweeps, and how its unknowns are merged for the next level."""

    graph: Any
    A: Any
    diagonal: Any
    forth: Any
    back: Any
    merge: Any


class Hierarchy:
    """Matrices for fewer and fewer unknowns.

    Parameters
    ----------
    problem : Propagation
    factorised : callable
        ``factorised(be, A)`` returns a direct solver.
    """

    def __init__(self, problem, factorised):
        self.be, self.xp, self.levels = problem.be, problem.xp, []
        A = problem.A
        while A.shape[0] > _COARSEST:
            level = self._level(A)
            coarse = (level.merge.T @ (A @ level.merge)).tocsr()
            coarse.sort_indices()
            if coarse.shape[0] > 0.8 * A.shape[0]:
                break
            self.levels.append(level)
            A = coarse
        self._solve = factorised(self.be, A)

    def apply(self, r):
        """Return an approximation of ``A^-1 r``: positive definite, but not quite linear."""
        return self._cycle(0, r)

    def _level(self, A):
        xp, graph = self.xp, _forest.graph_of(self.be, A)
        colours = _forest.colours(graph, xp.arange(graph.size))
        order = xp.argsort(colours, kind="stable").astype(np.int32)
        ends = xp.concatenate([xp.zeros(1, np.int64), xp.cumsum(xp.bincount(colours))])
        forth, back = (ends, order), (ends[-1] - ends[::-1], order[::-1].copy())
        pairs = self._pairs(graph, A)
        merge = pairs @ self._pairs(None, (pairs.T @ (A @ pairs)).tocsr())
        return Level(graph, A, A.diagonal(), forth, back, merge.tocsr())

    def _pairs(self, graph, A):
        """Return the matrix that spreads values of groups to their members."""
        graph = _forest.graph_of(self.be, A) if graph is None else graph
        xp, n = self.xp, A.shape[0]
        groups = xp.full(n, -1, np.int64)
        number = int(graph.kernels.pair_up(graph.ptr, graph.idx, A.data, groups))
        make, ones = type(A), xp.ones(n, A.dtype)
        return make((ones, groups.astype(np.int32), xp.arange(n + 1)), shape=(n, number))

    def _cycle(self, depth, r):
        if depth == len(self.levels):
            return self._solve(r)
        level, x = self.levels[depth], self.xp.zeros_like(r)
        self._sweep(level, level.forth, r, x)
        x += level.merge @ self._inner(depth + 1, level.merge.T @ (r - level.A @ x))
        self._sweep(level, level.back, r, x)
        return x

    def _inner(self, depth, r):
        """Solve a level roughly: one step, or two conjugate ones."""
        if depth == len(self.levels):
            return self._solve(r)
        xp, A = self.xp, self.levels[depth].A
        c = self._cycle(depth, r)
        v = A @ c
        rho, alpha = _dot(xp, c, v), _dot(xp, c, r)
        step = _over(xp, alpha, rho)
        left = r - step * v
        enough = _dot(xp, left, left) <= _GOOD**2 * _dot(xp, r, r)
        if self.be.host(enough.all()):
            return step * c
        d = self._cycle(depth, left)
        w = A @ d
        gamma = _dot(xp, d, v)
        length = _over(xp, _dot(xp, d, left), _dot(xp, d, w) - gamma * _over(xp, gamma, rho))
        return (step - length * _over(xp, gamma, rho)) * c + length * d

    def _sweep(self, level, way, r, x):
        graph = level.graph
        graph.kernels.projected_sweep(
            graph.ptr, graph.idx, level.A.data, level.diagonal, r, -np.inf, np.inf, *way, x
        )


def _dot(xp, x, y):
    return xp.einsum("ij,ij->j", x, y)


def _over(xp, x, y):
    return xp.where(y > 0, x / xp.where(y > 0, y, 1), 0)
