"""Direct solves where B is a diagonal and a matrix of low rank, as limited memory makes it."""

from ._saddle import InnerSolve, Saddle


class LowRankDirect:
    """A factorisation for the diagonal alone, and Woodbury's formula for the rest.

    Parameters
    ----------
    base : object
        The direct solver of sparse matrices.
    """

    name = "direct"

    def __init__(self, base):
        self._base = base

    @property
    def singular(self):
        return self._base.singular

    def factor(self, saddle):
        """Factor for the diagonal; B is positive definite wherever such models come from."""
        self._saddle, be = saddle, saddle.be
        B, sparse, xp = saddle.B, be.sparse, be.xp
        diagonal = sparse.diags(B.d).tocsr()
        plain = Saddle(diagonal, sparse.csr_matrix(saddle.G), saddle.delta, be=be)
        convex = self._base.factor(plain)
        self._U = xp.concatenate([B.U, xp.zeros((saddle.m, len(B.C)))])
        self._V = xp.zeros_like(self._U)
        for k, u in enumerate(self._U.T):
            self._V[:, k] = self._base.solve(u).d
        self._small = xp.eye(len(B.C)) + B.C @ (self._U.T @ self._V)
        return convex

    def solve(self, r, *, d0=None, tol=0.0):
        """Solve with one step of refinement."""
        xp = self._saddle.be.xp
        d = self._solve(r)
        d = d - self._solve(self._saddle @ d - r)
        finite = self._saddle.be.host(xp.isfinite(d).all())
        return InnerSolve(d, self._saddle @ d - r, 1, "converged" if finite else "breakdown")

    def _solve(self, r):
        d = self._base.solve(r).d
        inner = self._saddle.B.C @ (self._U.T @ d)
        return d - self._V @ self._saddle.be.xp.linalg.solve(self._small, inner)
