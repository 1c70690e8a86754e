"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays.

Rows of a matrix must be contiguous. Nothing here waits for the device but `sparse_row_pass`,
which has to know whether its entries fit.
"""

import math

import numpy as np

from ..._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
# Threads in a block, and warps.
_BLOCK, _WARPS = 256, 8


def row_pass(C, h, beta, reg, a, shift, K):
    """Make all row sums exact for given `h`: two kernels, two reads of the cost.

    Sets ``shift_i = log sum_j beta_j exp((h_j - C_ij) / reg)``, stores ``K`` (unless it has no
    rows) and returns ``K^T a``, which is 1 where the column sum is ``beta_j``. All arithmetic is
    in float64, whatever the dtypes of `C` and `K`.
    """
    return _row_pass(C, h, beta, np.float64(1.0 / reg), a, shift, K)[0]


def _row_pass(C, h, beta, scale, a, shift, K):
    """Return the column sums, and largest exponents and factors of all rows."""
    n, m = C.shape
    top, factor = _xp().empty((2, n))
    args = (C, _ld(C), h, beta, scale, shift, top, factor, n, m)
    _cuda.launch("row_log_sums", C.dtype, blocks(n), _BLOCK, args)
    args = (C, _ld(C), h, scale, top, factor, a, K.shape[0] > 0, K, _ld(K))
    return _column_sums("row_pass_sums", (C.dtype, K.dtype), n, m, args), top, factor


def column_potential(C, shift, a, reg, columns, h):
    """Set ``h_j`` for the given columns so that their sums are exact: ``(K^T a)_j = 1``."""
    args = (C, _ld(C), shift, a, np.float64(reg), columns, h, C.shape[0], columns.size)
    _cuda.launch("column_potential", C.dtype, blocks(columns.size), _BLOCK, args)


def sweep(K, v, a, rho):
    """Set ``rho = K v`` and return ``K^T (a / rho)``: a full Sinkhorn sweep."""
    n, m = K.shape
    weight = _xp().empty(n, K.dtype)
    args = (K, _ld(K), _like(K, v), a, rho, weight, n, m)
    _cuda.launch("row_dots", K.dtype, blocks(n), _BLOCK, args)
    return _column_sums("sweep_sums", K.dtype, n, m, (K, _ld(K), weight))


def row_peaks(K, v):
    """Return the column of each row's largest ``K_ij v_j``."""
    n, m = K.shape
    peaks = _xp().empty(n, np.int64)
    args = (K, _ld(K), _like(K, v), peaks, n, m)
    _cuda.launch("row_peaks", K.dtype, blocks(n), _BLOCK, args)
    return peaks


def laplacian(K, v, rho, a, peaks, x):
    """Return ``v * K^T (a / rho * ((x - x_peak) - s))`` with ``s = K (v (x - x_peak)) / rho``.

    This is the Schur complement ``diag(c) - P^T diag(1/a) P`` applied to `x`, without
    cancellation; see `cpu.py`.
    """
    n, m = K.shape
    at_peak, weight, drift = _xp().empty((3, n), K.dtype)
    x = _like(K, x)
    args = (K, _ld(K), _like(K, v), rho, a, peaks, x, at_peak, weight, drift, n, m)
    _cuda.launch("row_means", K.dtype, blocks(n), _BLOCK, args)
    return v * _column_sums(
        "laplacian_sums", K.dtype, n, m, (K, _ld(K), x, at_peak, weight, drift)
    )


def laplacian_diagonal(K, v, rho, a, peaks):
    """Return the diagonal of the matrix that `laplacian` applies, without cancellation."""
    n, m = K.shape
    rest, weight = _xp().empty((2, n))
    args = (K, _ld(K), v, rho, a, peaks, rest, weight, n, m)
    _cuda.launch("rest_of_rows", K.dtype, blocks(n), _BLOCK, args)
    return _column_sums("diagonal_sums", K.dtype, n, m, (K, _ld(K), v, rho, peaks, rest, weight))


def sparse_row_pass(C, h, beta, reg, a, shift, cutoff, indices, values, starts, ends):
    """As `row_pass`, storing only the entries with ``K_ij beta_j > cutoff``.

    Row i's entries go to ``[starts[i], ends[i])`` of `indices` and `values`. Returns ``K^T a``
    and whether everything fitted; if not, nothing is stored. Reads the cost four times.
    """
    xp, (n, m) = _xp(), C.shape
    scale, log_cutoff = np.float64(1.0 / reg), np.float64(math.log(cutoff))
    sums, top, factor = _row_pass(C, h, beta, scale, a, shift, xp.empty((0, m)))
    which = (C, _ld(C), h, xp.log(beta), scale, shift, log_cutoff)
    counts = xp.empty(n, np.int64)
    _cuda.launch("count_above", C.dtype, blocks(n, _WARPS), _BLOCK, (*which, counts, n, m))
    xp.cumsum(counts, out=ends)
    xp.subtract(ends, counts, out=starts)
    if get_backend("cupy").host(ends[-1]) > indices.size:
        return sums, False
    args = (*which, top, factor, starts, indices, values, n, m)
    _cuda.launch("keep_above", C.dtype, blocks(n, _WARPS), _BLOCK, args)
    return sums, True


def csr_sweep(starts, ends, indices, values, v, a, rho):
    """As `sweep`, for a compressed kernel."""
    return _scattered("csr_sweep", (starts, ends, indices, values, v, a, rho), v.size)


def csr_row_peaks(starts, ends, indices, values, v):
    """As `row_peaks`, for a compressed kernel."""
    n = starts.size
    peaks = _xp().empty(n, np.int64)
    args = (starts, ends, indices, values, v, peaks, n)
    _cuda.launch("csr_row_peaks", values.dtype, blocks(n, _WARPS), _BLOCK, args)
    return peaks


def csr_laplacian(starts, ends, indices, values, v, rho, a, peaks, x):
    """As `laplacian`, for a compressed kernel."""
    args = (starts, ends, indices, values, v, rho, a, peaks, x)
    return v * _scattered("csr_laplacian", args, v.size)


def csr_laplacian_diagonal(starts, ends, indices, values, v, rho, a, peaks):
    """As `laplacian_diagonal`, for a compressed kernel."""
    args = (starts, ends, indices, values, v, rho, a, peaks)
    return _scattered("csr_laplacian_diagonal", args, v.size)


def csr_gram(starts, ends, indices, values, v, rho, a, W):
    """Set the lower triangle of `W` to ``P^T diag(1/a) P`` without its diagonal."""
    W.fill(0.0)
    n, m = starts.size, W.shape[0]
    args = (starts, ends, indices, values, v, rho, a, W, n, m)
    _cuda.launch("csr_gram", values.dtype, blocks(n, _WARPS), _BLOCK, args)


def _column_sums(name, types, n, m, args):
    """Launch a kernel that sums over strips of rows, and add up the strips."""
    # Enough threads to fill any device, but strips long enough to outweigh their sums.
    strips = max(1, min(-(-n // 16), (1 << 19) // m, 65535))
    sums = _xp().empty((strips, m))
    _cuda.launch(name, types, (blocks(m, _BLOCK), strips), _BLOCK, (*args, sums, n, m))
    return sums.sum(axis=0)


def _scattered(name, args, m):
    """Launch a kernel that adds compressed rows into `m` column sums, and return these."""
    sums, (starts, _, _, values, *_) = _xp().zeros(m), args
    grid = blocks(starts.size, _WARPS)
    _cuda.launch(name, values.dtype, grid, _BLOCK, (*args, sums, starts.size))
    return sums


def _xp():
    return get_backend("cupy").xp


def _ld(A):
    """Return the distance between two rows, in entries."""
    return A.strides[0] // A.itemsize


def _like(K, v):
    return v.astype(K.dtype, copy=False)
