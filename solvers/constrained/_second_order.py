"""The smallest curvature of a Hessian on a tangent plane."""

import math

import numpy as np

from .._core.arrays import is_sparse
from .._core.backend import get_backend
from ._matrices import columns, is_operator
from ._multipliers import open_system

# Unknowns and rows up to which eigenvalues are those of a dense matrix.
_DENSE = 2000
# Rows count once if the singular values of their equilibrated form are smaller than this.
_RANK = 1e-10


def smallest_curvature(H, G, rows, free):
    """Return the smallest eigenvalue on the null space of rows, and the size of the Hessian.

    Parameters
    ----------
    H : matrix, shape (n, n)
    G : matrix, shape (m, n)
    rows : array of bool, shape (m,)
        Rows that are held.
    free : array of bool, shape (n,)
        Unknowns that are not.

    Returns
    -------
    least, size : float
        Infinite where no direction is left; NaN if the iteration did not converge.
    """
    be, n = get_backend("numpy"), len(free)
    if not free.all():
        kept = np.flatnonzero(free)
        G, H = columns(G, kept, be=be), columns(columns(H, kept, be=be).T, kept, be=be)
    A = G if rows.all() else columns(G.T, np.flatnonzero(rows), be=be).T
    if not A.shape[1]:
        return math.inf, 0.0
    if n + len(rows) > _DENSE or is_operator(H) or is_operator(A):
        return _by_lanczos(H, A)
    H, A = (M.toarray() if is_sparse(M) else M for M in (H, A))
    size = float(abs(H).sum(axis=1).max())
    if not np.isfinite(size):
        return math.nan, size
    Z = _null_space(A)
    if not Z.shape[1]:
        return math.inf, size
    R = Z.T @ H @ Z
    return float(np.linalg.eigvalsh((R + R.T) / 2)[0]), size


def _null_space(A):
    """Return an orthonormal basis of the vectors that all rows send to 0."""
    if not len(A):
        return np.eye(A.shape[1])
    long = np.linalg.norm(A, axis=1)
    A = A / np.where(long > 0, long, 1.0)[:, None]
    _, s, Vt = np.linalg.svd(A)
    return Vt[int((s > _RANK * s.max(initial=0.0)).sum()) :].T


def _by_lanczos(H, A):
    """Iterate with ``P (H - s I) P``, where P projects on the null space of A.

    The shift s, a bound of the spectrum, makes all eigenvalues on the null space negative, so
    that the zeros that P adds are never the smallest.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    n = A.shape[1]
    system = open_system(A) if A.shape[0] else None

    def projected(v):
        return v - A.T @ system.solve(v) if system else v

    v0 = projected(np.random.default_rng(0).standard_normal(n))
    if np.linalg.norm(v0) <= 1e-8 * math.sqrt(n):
        return math.inf, 0.0
    size = _bound(H, v0)
    shifted = LinearOperator(
        (n, n), matvec=lambda v: projected(H @ (u := projected(v)) - size * u), dtype=np.float64
    )
    try:
        least = eigsh(shifted, k=1, which="SA", v0=v0, tol=1e-10, return_eigenvectors=False)
    except ArpackError:
        return math.nan, size
    return float(least[0]) + size, size


def _bound(H, v):
    """Return a bound of the spectrum of a symmetric matrix, or a good guess of one."""
    if not is_operator(H):
        return float(abs(H).sum(axis=1).max())
    for _ in range(20):
        v = H @ (v / max(np.linalg.norm(v), 1e-300))
    return 2 * float(np.linalg.norm(v))
