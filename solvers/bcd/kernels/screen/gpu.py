"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

import numpy as np

from ...._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
_BLOCK = 256
# Threads that a device needs to be busy.
_THREADS = 1 << 17


def survey(penalty, w, g, L, unit, scores, violations, steepness):
    """Look at every coefficient once.

    Sets `scores` to what a proximal step gains at least (where it starts from a kink or a bound,
    the GS-q score), `violations` to the distances of -g from the subdifferential in multiples of
    `unit`, and `steepness` to how many units wide the dual constraint of a coefficient would have
    to be; 0 where it has none.
    """
    args = (*penalty, w, g, L, unit, scores, violations, steepness, w.size)
    _cuda.launch("survey", w.dtype, blocks(w.size, _BLOCK), _BLOCK, args)


def moments_rows(X, s, y, square, mean, cross):
    """Set the sums of ``s x^2``, ``s x`` and ``s x y`` over each column of contiguous rows.

    Sums are in float64. They are finite unless an entry is not, or its square overflows.
    """
    n, p = X.shape
    strips = min(max(_THREADS // p, 1), n)
    parts = get_backend("cupy").xp.empty((3, strips, p))
    args = (X, s, y, parts, n, p, strips)
    _cuda.launch("moments_rows", X.dtype, blocks(strips * p, _BLOCK), _BLOCK, args)
    square[...], mean[...], cross[...] = parts.sum(axis=1)


def moments_columns(X, s, y, square, mean, cross):
    """Do what `moments_rows` does for a matrix with contiguous columns, the rows of X here."""
    p, n = X.shape
    args = (X, s, y, square, mean, cross, n, p)
    _cuda.launch("moments_columns", X.dtype, blocks(32 * p, _BLOCK), _BLOCK, args)


def moments_csc(starts, rows, values, s, y, square, mean, cross):
    """Do what `moments_rows` does for compressed columns."""
    # CuPy's sparse matrices have 32-bit indices.
    places = (part.astype(np.int32, copy=False) for part in (starts, rows))
    args = (*places, values, s, y, square, mean, cross, square.size)
    _cuda.launch("moments_csc", values.dtype, blocks(32 * square.size, _BLOCK), _BLOCK, args)


def gather(X, where, root, out):
    """Set ``out[k, i] = root[i] X[i, where[k]]`` for a matrix X of contiguous rows."""
    out[...] = X[:, where].T * root


def dot_csc(starts, rows, values, where, w, out):
    """Set ``out = X[:, where] w`` for compressed columns."""
    out[...] = _transposed(starts, rows, values, out.size)[where].T @ w


def gram_csc(starts, rows, values, s, where, first, out):
    """Set ``out = X_F^T diag(s) X_N`` for columns F = where, and N = where[first:]."""
    X = _transposed(starts, rows, values.astype(np.float64), s.size)
    # One factor is dense, as the product is.
    out[...] = X[where] @ (X[where[first:]].toarray() * s).T


def _transposed(starts, rows, values, n):
    sparse = get_backend("cupy").sparse
    return sparse.csr_matrix((values, rows, starts), shape=(starts.size - 1, n))
