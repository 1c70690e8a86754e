"""Direct solves where B is a diagonal and a matrix of low rank, as limited memory makes it."""

from .._matrices import scaled, to_dense
from ._saddle import InnerSolve, Saddle

# Rows up to which the Schur complement is formed as a dense matrix.
_FEW_ROWS = 1000


class LowRankDirect:
    """A factorisation for the diagonal alone, and Woodbury's formula for the rest.

    Parameters
    ----------
    sparse : object
        A direct solver of sparse matrices, for many rows.

    Attributes
    ----------
    singular : bool
        Whether rows of G depend on each other.
    """

    name = "direct"

    def __init__(self, sparse):
        self._few, self._many = _DiagonalSchur(), _Columnwise(sparse)

    def factor(self, saddle):
        """Factor for the diagonal; B is positive definite wherever such models come from."""
        B, xp = saddle.B, saddle.be.xp
        self._saddle, self._base = saddle, self._few if saddle.m <= _FEW_ROWS else self._many
        convex = self._base.factor(saddle)
        self.singular = self._base.singular
        if convex:
            self._U = xp.concatenate([B.U, xp.zeros((saddle.m, len(B.C)))])
            self._V = self._base.solve(self._U)
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
        d = self._base.solve(r[:, None])[:, 0]
        inner = self._saddle.B.C @ (self._U.T @ d)
        return d - self._V @ self._saddle.be.xp.linalg.solve(self._small, inner)


class _DiagonalSchur:
    """Solves with a diagonal for B by the Schur complement ``G D^-1 G^T + delta I``."""

    def factor(self, saddle):
        """Factor; tell whether that is positive definite."""
        be, xp = saddle.be, saddle.be.xp
        self._be, self._n, self._d = be, saddle.n, saddle.B.d
        self._G, over = saddle.G, scaled(saddle.G.T, 1 / saddle.B.d, be=be)
        S = to_dense(saddle.G @ over, be=be) + saddle.delta * xp.eye(saddle.m)
        try:
            self._L = xp.linalg.cholesky(S)
        except xp.linalg.LinAlgError:
            self.singular = True
            return False
        pivots = xp.diagonal(self._L) / xp.sqrt(xp.diagonal(S))
        self.singular = bool(saddle.m) and not be.host(pivots.min()) > 1e-7
        return not self.singular

    def solve(self, R):
        """Solve for several right-hand sides, the columns of R."""
        n, G, d, xp = self._n, self._G, self._d[:, None], self._be.xp
        y = self._triangular(self._L, G @ (R[:n] / d) - R[n:], lower=True)
        y = self._triangular(self._L, y, lower=True, trans="T")
        return xp.concatenate([(R[:n] - G.T @ y) / d, y])

    def _triangular(self, L, R, **how):
        return self._be.linalg.solve_triangular(L, R, **how) if len(L) else R


class _Columnwise:
    """Solves with a diagonal for B by a sparse factorisation."""

    def __init__(self, sparse):
        self._sparse = sparse

    @property
    def singular(self):
        return self._sparse.singular

    def factor(self, saddle):
        """Factor; tell whether the matrix is that of a convex problem."""
        be = saddle.be
        self._xp, B = be.xp, be.sparse.diags(saddle.B.d).tocsr()
        G = be.sparse.csr_matrix(saddle.G)
        return self._sparse.factor(Saddle(B, G, saddle.delta, be=be))

    def solve(self, R):
        """Solve for several right-hand sides, the columns of R."""
        out = self._xp.empty_like(R)
        for k, r in enumerate(R.T):
            out[:, k] = self._sparse.solve(r).d
        return out
