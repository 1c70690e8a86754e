"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

from ...._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
_BLOCK, _WARPS, _TILE = 256, 8, 32
# At most so many blocks, and so many bytes for the parts of the gradient that they collect.
_BLOCKS, _PARTS = 528, 1 << 28


def dense_pass(X, rows, t, weights, kind, mode, k, W, losses, G):
    """Pass over rows of X (n, p) with the vectors in W (Q, p).

    Parameters
    ----------
    rows : array of int, shape (N,)
    t : array, shape (n,)
        Targets, signs, or classes as numbers.
    weights : array, shape (B, N) or (B, 0)
        Of the samples in the gradients, one row for each point, or none.
    losses : array, shape (L, N)
        Output.
    G : array, shape (O, p)
        Output: sums of the gradients, or products.
    """
    xp, (Q, p), N, out = get_backend("cupy").xp, W.shape, rows.size, G.shape[0]
    grid = min(blocks(N, _TILE), _BLOCKS, max(_PARTS // G.nbytes, 1))
    scratch = xp.empty((grid, Q, _TILE), X.dtype)
    parts = xp.zeros((grid, out, p), X.dtype)
    args = X, rows, t, weights, weights.shape[1] > 0, kind, mode, k, W, scratch, losses, parts
    _cuda.launch("dense_pass", X.dtype, grid, _BLOCK, (*args, N, p, Q, out, _TILE))
    xp.sum(parts, axis=0, out=G)


def block_pass(X, rows, t, weights, kind, mode, k, W, losses, G):
    """Pass over rows of I blocks, each with vectors of its own; see `cpu.block_pass`."""
    xp, (count, Q, p) = get_backend("cupy").xp, W.shape
    N, out = rows.shape[1], G.shape[1]
    grid = min(blocks(count), 4 * _BLOCKS)
    scratch = xp.empty((grid, Q, _TILE), X.dtype)
    G[:] = 0
    args = X, rows, t, weights, weights.size > 0, kind, mode, k, W, scratch, losses, G
    _cuda.launch("block_pass", X.dtype, grid, _BLOCK, (*args, count, N, p, Q, out, _TILE))


def csr_pass(indptr, indices, data, rows, t, weights, kind, mode, k, W, losses, G):
    """Pass over compressed rows with the vectors in W (p, Q); G is (p, O), the rest as above."""
    xp, Q, N = get_backend("cupy").xp, W.shape[1], rows.size
    grid = min(blocks(N, _WARPS), 16 * _BLOCKS)
    scratch = xp.empty((grid * _WARPS, Q), data.dtype)
    G[:] = 0
    args = indptr, indices, data, rows, t, weights, weights.shape[1] > 0
    args = *args, kind, mode, k, W, scratch, losses, G, N, Q, G.shape[1]
    index = "int" if indices.dtype.itemsize == 4 else "long long"
    _cuda.launch("csr_pass", (data.dtype, index), grid, _BLOCK, args)
