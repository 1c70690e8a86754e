"""The condensed system ``B + gamma G^T G``, whose Cholesky factor is the test of curvature."""

import math

import numpy as np

from ..._core.linalg import pcg
from .._matrices import is_dense, is_operator, to_dense
from ._direct import Direct
from ._saddle import InnerSolve

# What G^T G weighs beside B.
_WEIGHT = 1e6
# Above so many entries of G^T G for each entry of B and G, long rows of G would fill the matrix.
_FILL = 20
# What is added to the small system, which may be singular, and its relative residual; by
# refinement, that of the whole.
_RIDGE, _ROUGH, _SHARP, _ROUNDS = 1e-6, 1e-7, 1e-12, 4


class Condensed:
    """Cholesky of ``B + gamma G^T G``, then conjugate gradients for the multipliers.

    The eigenvalues of ``G (B + gamma G^T G)^-1 G^T`` lie close to ``1 / gamma`` or are 0, so a
    few steps do, whatever the rank of G [1]_. `Direct` takes over where long rows of G would
    fill the matrix.

    References
    ----------
    .. [1] S. Regev et al. HyKKT: a hybrid direct-iterative method for solving KKT linear systems.
       Optim. Methods Softw. 38, 332-355, 2023.
    """

    singular = False

    def __init__(self, options=None):
        self.name, self._direct, self._patterns = "condensed", Direct(options), []

    def factor(self, saddle):
        """Factor; tell whether B is positive definite on the kernel of G."""
        B, G, be = saddle.B, saddle.G, saddle.be
        if is_operator(B) or is_operator(G) or _fills(B, G):
            self.name = "direct"
            convex = self._direct.factor(saddle)
            self.singular = self._direct.singular
            return convex
        self.name, self.singular, self._saddle = "condensed", False, saddle
        self._gamma = _WEIGHT * _largest(B, be) / _largest(G, be) ** 2
        if is_dense(B) or is_dense(G) or be.name != "numpy":
            return self._factor_dense(to_dense(B, be=be), to_dense(G, be=be))
        return self._factor_sparse(B, G)

    def _factor_dense(self, B, G):
        be = self._saddle.be
        try:
            L = be.cholesky(B + self._gamma * (G.T @ G))
        except np.linalg.LinAlgError:
            return False
        solve = be.linalg.solve_triangular
        self._inverse = lambda v: solve(L, solve(L, v, lower=True), trans=1, lower=True)
        return True

    def _factor_sparse(self, B, G):
        from ._sparse import definite_factors

        factors = definite_factors((B + self._gamma * (G.T @ G)).tocsr(), self._patterns)
        self._inverse = factors.solve
        return bool(factors.convex) and not factors.singular

    def solve(self, r, *, d0=None, tol=0.0):
        """Solve and refine."""
        if self.name == "direct":
            return self._direct.solve(r, d0=d0, tol=tol)
        saddle, be = self._saddle, self._saddle.be
        size = math.sqrt(be.host(r @ r))
        d, residual, left, steps = be.xp.zeros_like(r), -r, size, 0
        for _ in range(_ROUNDS):
            step, its = self._step(-residual)
            again, steps = d + step, steps + its
            what = saddle @ again - r
            less = math.sqrt(be.host(what @ what))
            if not less < left:
                break
            d, residual, left = again, what, less
            if left <= _SHARP * size:
                break
        return InnerSolve(d, residual, steps, "converged" if left < size else "breakdown")

    def _step(self, r):
        """Return what about solves the system, and the steps taken."""
        saddle, gamma, delta = self._saddle, self._gamma, self._saddle.delta
        G, n, xp = saddle.G, saddle.n, saddle.be.xp
        top = r[:n] + gamma * (G.T @ r[n:])
        if not saddle.m:
            return self._inverse(top), 0
        share = 1.0 - gamma * delta

        def small(v):
            # In units of 1 / gamma, near which its eigenvalues lie.
            shift = gamma * delta + _RIDGE
            return gamma * share * (G @ self._inverse(G.T @ v)) + shift * v

        right = gamma * (G @ self._inverse(top) - r[n:])
        found = pcg(small, right, be=saddle.be, tol=_ROUGH, maxiter=100)
        x = self._inverse(top - share * (G.T @ found.x))
        return xp.concatenate([x, found.x]), found.iterations


def _fills(B, G):
    if is_dense(B) or is_dense(G):
        return False
    lengths = G.indptr[1:] - G.indptr[:-1]
    return bool((lengths * lengths).sum() > _FILL * (B.nnz + G.nnz))


def _largest(A, be):
    """Return the largest entry in size, 1 if there is none above 0."""
    return float(be.host(abs(A).max())) or 1.0 if 0 not in A.shape else 1.0
