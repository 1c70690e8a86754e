"""Numba kernels that two families or more use; `gpu.py` launches their CUDA twins.

Arrays are C-contiguous. A loop is cut into strips that write to disjoint parts of the output, so
the result does not depend on the number of threads.
"""

import numpy as np
from numba import prange

from .. import threads
from .jit import EXACT, kernel

# Rows and columns of a tile of `hadamard`: together they fit the second-level cache.
_TILE_ROWS, _TILE_COLUMNS = 512, 64
# Narrower column strips would read parts of cache lines and leave vector registers half empty.
_STRIP_COLUMNS = 16


def sparse_sign_plan(bits, ranges):
    """Return a sparse sign matrix S in the form that the products with it take.

    Parameters
    ----------
    bits : array of uint32, shape (n, nnz)
        Random bits. Entry k of column i is in the row of range k that ``bits[i, k] / 2^32``
        marks, and negative if the lowest bit is set.
    ranges : array of uint32, shape (nnz + 1,)
        Where the ranges of rows begin and the last one ends.
    """
    return bits, ranges


@kernel(inline=True)
def _row(bits, k, ranges):
    width = np.uint64(ranges[k + 1] - ranges[k])
    return np.uint64(ranges[k]) + (np.uint64(bits) * width >> np.uint64(32))


def sparse_sign(plan, scale, A, out):
    """Set ``out (s, d) = S A`` for a sparse sign matrix S with entries of size `scale`."""
    bits, ranges = plan
    d = A.shape[1]
    strips = min(threads.strips(A.size * bits.shape[1]), d // _STRIP_COLUMNS)
    out[...] = 0
    if strips <= 1:
        _scatter_columns(bits, ranges, scale, A, out, 0, d)
        return
    with threads.guard():
        _scatter_strips(bits, ranges, scale, A, out, strips)


@kernel(parallel=True)
def _scatter_strips(bits, ranges, scale, A, out, strips):
    d = A.shape[1]
    for t in prange(strips):
        _scatter_columns(bits, ranges, scale, A, out, d * t // strips, d * (t + 1) // strips)


@kernel(fastmath=EXACT)
def _scatter_columns(bits, ranges, scale, A, out, first, last):
    # Unsigned offsets into flat arrays: a signed index is tested for being negative, which costs
    # as much as the sum itself, and slices of a few dozen entries cost even more.
    d, width = np.uint64(A.shape[1]), np.uint64(last - first)
    flat_A, flat_out = A.reshape(-1), out.reshape(-1)
    for i in range(bits.shape[0]):
        source = np.uint64(i) * d + np.uint64(first)
        for k in range(bits.shape[1]):
            target = _row(bits[i, k], k, ranges) * d + np.uint64(first)
            value = -scale if bits[i, k] & 1 else scale
            for j in range(width):
                flat_out[target + j] += value * flat_A[source + j]


def sparse_sign_csr(plan, scale, A, out):
    """Set ``out (s, d) = S A`` for a matrix A in compressed rows."""
    out[...] = 0
    _scatter_entries(*plan, scale, A.indptr, A.indices, A.data, out)


@kernel(fastmath=EXACT)
def _scatter_entries(bits, ranges, scale, starts, columns, values, out):
    d, flat_out = np.uint64(out.shape[1]), out.reshape(-1)
    for i in range(bits.shape[0]):
        for k in range(bits.shape[1]):
            target = _row(bits[i, k], k, ranges) * d
            value = -scale if bits[i, k] & 1 else scale
            for p in range(starts[i], starts[i + 1]):
                flat_out[target + np.uint64(columns[p])] += value * values[p]


def sparse_sign_t(plan, scale, Y, out):
    """Set ``out (n, d) = S^T Y`` for a sparse sign matrix S with entries of size `scale`."""
    bits, ranges = plan
    strips = threads.strips(out.size * bits.shape[1])
    if strips == 1:
        _gather_rows(bits, ranges, scale, Y, out)
        return
    with threads.guard():
        _gather_strips(bits, ranges, scale, Y, out, strips)


@kernel(parallel=True)
def _gather_strips(bits, ranges, scale, Y, out, strips):
    n = out.shape[0]
    for t in prange(strips):
        rows = slice(n * t // strips, n * (t + 1) // strips)
        _gather_rows(bits[rows], ranges, scale, Y, out[rows])


@kernel(fastmath=EXACT)
def _gather_rows(bits, ranges, scale, Y, out):
    d = np.uint64(Y.shape[1])
    flat_Y, flat_out = Y.reshape(-1), out.reshape(-1)
    for i in range(bits.shape[0]):
        target = np.uint64(i) * d
        for j in range(d):
            flat_out[target + j] = 0
        for k in range(bits.shape[1]):
            source = _row(bits[i, k], k, ranges) * d
            value = -scale if bits[i, k] & 1 else scale
            for j in range(d):
                flat_out[target + j] += value * flat_Y[source + j]


def hadamard(X):
    """Multiply X (n, d) in place by the n x n Hadamard matrix of entries +-1; n is 2^p."""
    n, d = X.shape
    done = 1
    while done < n:
        # The matrix is a Kronecker product: each pass transforms one group of index bits.
        size = min(n // done, _TILE_ROWS)
        _hadamard_bits(X.reshape(-1, size, done * d))
        done *= size


def _hadamard_bits(X):
    """Multiply each X[h] (size, columns) by the Hadamard matrix of that size."""
    tiles = X.shape[0] * -(-X.shape[2] // _TILE_COLUMNS)
    strips = min(threads.strips(X.size), tiles)
    if strips == 1:
        _hadamard_tiles(X, 0, tiles)
        return
    with threads.guard():
        _hadamard_strips(X, tiles, strips)


@kernel(parallel=True)
def _hadamard_strips(X, tiles, strips):
    for t in prange(strips):
        _hadamard_tiles(X, tiles * t // strips, tiles * (t + 1) // strips)


@kernel(fastmath=EXACT)
def _hadamard_tiles(X, first, last):
    size, columns = X.shape[1], X.shape[2]
    across = -(-columns // _TILE_COLUMNS)
    # Rows of a tile lie far apart: the copy next to each other stays in the cache.
    copy = np.empty(size * _TILE_COLUMNS, X.dtype)
    for tile in range(first, last):
        h, j = tile // across, tile % across * _TILE_COLUMNS
        width = min(_TILE_COLUMNS, columns - j)
        for r in range(size):
            _copy(X[h, r, j : j + width], copy[r * width : (r + 1) * width])
        _butterflies(copy[: size * width], width)
        for r in range(size):
            _copy(copy[r * width : (r + 1) * width], X[h, r, j : j + width])


@kernel(fastmath=EXACT)
def _copy(source, target):
    for j in range(source.size):
        target[j] = source[j]


@kernel(fastmath=EXACT)
def _butterflies(x, width):
    """Transform a flat (size, width) array along its rows, two bits of the index at a time."""
    m = width
    while 4 * m <= x.size:
        for i in range(0, x.size, 4 * m):
            a, b = x[i : i + m], x[i + m : i + 2 * m]
            c, d = x[i + 2 * m : i + 3 * m], x[i + 3 * m : i + 4 * m]
            for j in range(m):
                ab, a_b, cd, c_d = a[j] + b[j], a[j] - b[j], c[j] + d[j], c[j] - d[j]
                a[j], b[j], c[j], d[j] = ab + cd, a_b + c_d, ab - cd, a_b - c_d
        m *= 4
    if 2 * m <= x.size:
        a, b = x[:m], x[m:]
        for j in range(m):
            a[j], b[j] = a[j] + b[j], a[j] - b[j]
