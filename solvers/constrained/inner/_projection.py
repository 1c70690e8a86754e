"""Orthogonal projections onto the kernel of a matrix, whatever its form."""

import numpy as np

from ..._core.arrays import is_sparse
from .._lsqr import lsqr
from .._matrices import is_operator, scaled

# Rows are brought to length 1 first. Below _DEPENDENT a row may depend on the others; singular
# values below _RANK count as 0.
_DEPENDENT, _RANK, _QUASIDEFINITE = 1e-8, 1e-10, 1e-10
# Multipliers larger than this, of a point that solves nothing, mislead.
_LARGEST = 1e3
# How well, and in how many steps, sparse systems are solved for a start.
_ROUGH, _STEPS = 1e-3, 20


def multipliers(point, *, be, rough=False):
    """Return the multipliers that make the gradient of the Lagrangian shortest, or zeros.

    Zeros stand where there are more rows than unknowns, or nothing but large multipliers. Rough
    ones do for a start.
    """
    none = be.xp.zeros(len(point.c))
    if not 0 < len(none) <= len(point.z):
        return none
    if rough and is_sparse(point.G):
        lam = lsqr(point.Gt, -point.g, be=be, tol=_ROUGH, maxiter=_STEPS)
    else:
        lam = open_projection(point.G, be=be).rows(-point.g)
    # A comparison with NaN is False.
    return lam if be.host(abs(lam).max()) <= _LARGEST else none


def open_projection(A, *, be):
    """Return a projection onto the kernel of a matrix A of m rows and n columns.

    It has

    - ``kernel(v)``: v less its part in the row space of A;
    - ``normal(c)``: the shortest x with ``A x = c``, or closest to it;
    - ``rows(v)``: a y with the smallest ``||A^T y - v||``.
    """
    if is_operator(A) or (is_sparse(A) and be.name != "numpy"):
        return _ByProducts(A, be)
    return (_Sparse if is_sparse(A) else _Dense)(A, be)


class _Dense:
    """By an orthonormal basis Q of the row space; ``A^T T = Q``."""

    def __init__(self, A, be):
        xp = be.xp
        long = _nonzero(xp.sqrt((A * A).sum(axis=1)), xp)
        At = (A / long[:, None]).T
        self._Q, R = xp.linalg.qr(At)
        diagonal = abs(R.diagonal())
        if not len(diagonal) or be.host(diagonal.min()) > _DEPENDENT:
            # A triangular solve wakes all threads of the BLAS, even for three rows.
            T = xp.linalg.inv(R)
        else:
            U, s, Vt = xp.linalg.svd(At, full_matrices=False)
            kept = s > _RANK * s.max(initial=0.0)
            self._Q, T = U[:, kept], Vt[kept].T / s[kept]
        self._T = T / long[:, None]

    def kernel(self, v):
        # Twice: what rounding leaves of the first part is removed by the second.
        v = v - self._Q @ (self._Q.T @ v)
        return v - self._Q @ (self._Q.T @ v)

    def normal(self, c):
        return self._Q @ (self._T.T @ c)

    def rows(self, v):
        return self._T @ (self._Q.T @ v)


class _Sparse:
    """By a factorisation of ``[[I, A^T], [A, -delta I]]``, which exists for every A."""

    def __init__(self, A, be):
        from scipy.sparse.linalg import splu

        self._be, (self._m, self._n) = be, A.shape
        self._A = A
        self._long = _nonzero(np.sqrt(np.asarray(A.multiply(A).sum(axis=1)).reshape(-1)), np)
        E = scaled(A, 1 / self._long, be=be)
        K = be.sparse.block_array(
            [
                [be.sparse.eye_array(self._n), E.T],
                [E, -_QUASIDEFINITE * be.sparse.eye_array(self._m)],
            ],
            format="csc",
        )
        self._lu = splu(K, "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

    def _solve(self, v, c):
        d = self._lu.solve(np.concatenate([v, c / self._long]))
        return d[: self._n], d[self._n :] / self._long

    def kernel(self, v):
        none = np.zeros(self._m)
        return self._solve(self._solve(v, none)[0], none)[0]

    def normal(self, c):
        x, _ = self._solve(np.zeros(self._n), c)
        return x + self._solve(np.zeros(self._n), c - self._A @ x)[0]

    def rows(self, v):
        x, y = self._solve(v, np.zeros(self._m))
        return y + self._solve(x, np.zeros(self._m))[1]


class _ByProducts:
    """By least squares with products alone."""

    def __init__(self, A, be):
        self._A, self._be = A, be

    def rows(self, v):
        return lsqr(self._A.T, v, be=self._be)

    def kernel(self, v):
        v = v - self._A.T @ self.rows(v)
        return v - self._A.T @ self.rows(v)

    def normal(self, c):
        return lsqr(self._A, c, be=self._be)


def _nonzero(v, xp):
    return xp.where(v > 0, v, 1.0)
