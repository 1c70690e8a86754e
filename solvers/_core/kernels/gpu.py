"""Launchers of the CUDA twins of `cpu.py`."""

import numpy as np

from ..backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)

_THREADS = 256
# Entries and columns of a tile of `hadamard`: 32 KB in double precision, and whole sectors.
_TILE, _TILE_COLUMNS = 4096, 8


def sparse_sign_plan(bits, ranges):
    """Return, for S and for its transpose, where the entries of each row start, and the entries.

    A negative entry in column j is stored as ``~j``. Unlike the CPU, which adds each row of A to
    rows of ``S A``, a GPU gathers the rows of A that make up one row: nothing has to be atomic.
    """
    xp = get_backend("cupy").xp
    n, nnz = bits.shape
    s = int(ranges[-1])
    first, width = xp.asarray(ranges[:-1]), xp.asarray(np.diff(ranges))
    rows = (first + bits.astype("uint64") * width // 2**32).astype("int32").ravel()
    negative = (bits % 2 == 1).ravel()
    order = xp.argsort(rows)
    columns = (order // nnz).astype("int32")
    starts = xp.searchsorted(rows[order], xp.arange(s + 1))
    entries = xp.where(negative[order], -1 - columns, columns)
    starts_t = xp.arange(0, n * nnz + 1, nnz)
    return (starts, entries), (starts_t, xp.where(negative, -1 - rows, rows))


def sparse_sign(plan, scale, A, out):
    """Set ``out (s, d) = S A`` for a sparse sign matrix S with entries of size `scale`."""
    _signed_sums(*plan[0], scale, A, out)


def sparse_sign_t(plan, scale, Y, out):
    """Set ``out (n, d) = S^T Y`` for a sparse sign matrix S with entries of size `scale`."""
    _signed_sums(*plan[1], scale, Y, out)


def _signed_sums(starts, members, scale, A, out):
    rows, d = out.shape
    # A thread for each column, up to a warp; where there are fewer, more share the members.
    lanes = min(32, 1 << (d - 1).bit_length())
    grid = blocks(rows * -(-d // lanes))
    args = (starts, members, scale, A, out, rows, d, lanes)
    _cuda.launch("signed_sums", A.dtype, grid, _THREADS, args)


def sparse_sign_csr(plan, scale, A, out):
    """Set ``out (s, d) = S A`` for a matrix A in compressed rows."""
    xp = get_backend("cupy").xp
    starts, entries = plan[0]
    values = xp.where(entries < 0, -scale, scale).astype(A.dtype)
    columns = xp.where(entries < 0, -1 - entries, entries)
    S = type(A)((values, columns, starts.astype("int32")), shape=(out.shape[0], A.shape[0]))
    out[...] = (S @ A).toarray()


def hadamard(X):
    """Multiply X (n, d) in place by the n x n Hadamard matrix of entries +-1; n is 2^p."""
    n, d = X.shape
    done = 1
    while done < n:
        # As on the CPU, each pass transforms one group of index bits.
        columns = done * d
        log_width = min(columns, _TILE_COLUMNS).bit_length() - 1
        size = min(n // done, _TILE >> log_width)
        grid = blocks(n // (done * size) * -(-columns >> log_width))
        args = (X, n // (done * size), size, columns, log_width)
        shared = (size << log_width) * X.itemsize
        _cuda.launch("hadamard_tiles", X.dtype, grid, _THREADS, args, shared=shared)
        done *= size
