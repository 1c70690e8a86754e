"""Symmetric block Gauss-Seidel on a graph: its blocks are forests or colours."""

import numpy as np

from .rules import _forest


class Smoother:
    """One symmetric sweep over blocks whose graphs are forests, from zero.

    The matrix is stored anew in the order of elimination, block by block: a sweep walks through
    memory. It reads entries between blocks once, and those within blocks not at all.

    Parameters
    ----------
    problem : Propagation
    blocks : array of int64, shape (m,)
        Block of each unknown.

    Attributes
    ----------
    order : array of int32, shape (m,)
        Unknowns in the order in which the matrix is stored.
    number : int
        How many blocks there are.
    """

    def __init__(self, problem, blocks):
        be, xp, A = problem.be, problem.xp, problem.A
        self._xp, self._kernels = xp, problem.graph.kernels
        trees = _forest.arrange(problem.graph, blocks)
        weight = _forest.edge_weights(trees, A)
        pivots, factors = problem.diagonal[trees.order].astype(np.float64), xp.empty(weight.size)
        ends, floors = be.host(trees.ptr, trees.floors)
        for b in range(ends.size - 1):
            nodes, levels = slice(*ends[b : b + 2]), slice(*floors[b : b + 2])
            self._kernels.factor_forest(
                trees.levels[levels], trees.up[nodes], weight[nodes], pivots[nodes], factors[nodes]
            )
        stored = A[trees.order][:, trees.order]
        stored.sort_indices()
        rows = stored.indptr.astype(np.int64)
        low, high = xp.empty_like(trees.up), xp.empty_like(trees.up)
        matrix = rows, stored.indices.astype(np.int32), stored.data
        self._kernels.split_rows(*matrix[:2], trees.ptr, low, high)
        self.number = ends.size - 1
        self.order, self._work = trees.order, xp.empty((0, 0))
        self._matrix = *matrix, low, high
        self._trees = trees.ptr, trees.levels, trees.floors, trees.up
        self._factors = pivots, factors

    def apply(self, r):
        """Return an approximation of ``A^-1 r``, symmetric and positive definite as a map."""
        if self._work.shape != r.shape:
            self._work = self._xp.empty_like(r)
        z = r[self.order]
        self._kernels.sweep_forests(*self._matrix, self._trees, self._factors, z, self._work)
        out = self._xp.empty_like(r)
        out[self.order] = z
        return out
