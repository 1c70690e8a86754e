"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

import numpy as np

from ..._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
_BLOCK, _WARPS = 256, 8


def arrange(rows, cols, vals, weights, m):
    """Sort entries by row, then by column; see `cpu.arrange`."""
    xp = get_backend("cupy").xp
    # CuPy's sort is stable.
    order = xp.argsort(rows.astype(np.int64) * 2**32 + cols)
    ptr = _starts(xp, rows, m)
    weight = weights[order] if weights.size else weights
    return ptr, order.astype(_place(rows.size)), cols[order], vals[order], weight


def transpose(ptr, idx, val, weight, n):
    """Return entries that are sorted by row sorted by column; see `cpu.transpose`."""
    xp = get_backend("cupy").xp
    perm = xp.argsort(idx)
    row_of = (xp.searchsorted(ptr, perm, side="right") - 1).astype(np.int32)
    col_weight = weight[perm] if weight.size else weight
    return _starts(xp, idx, n), row_of, val[perm], col_weight, perm.astype(_place(idx.size))


def _starts(xp, keys, groups):
    ptr = xp.zeros(groups + 1, np.int64)
    ptr[1:] = xp.cumsum(xp.bincount(keys, minlength=groups))
    return ptr


def _place(size):
    return np.int32 if size <= np.iinfo(np.int32).max else np.int64


def residual(ptr, idx, val, A, B, a, b, out):
    """Set ``out_p = A_i . B_j + a_i + b_j - val_p`` for each entry; `a`, `b` may be empty."""
    m, k = A.shape
    args = (ptr, idx, val, A, B, a, b, a.size > 0, out, m, k)
    _cuda.launch("residual", A.dtype, blocks(m, _WARPS), _BLOCK, args)


def times(ptr, idx, val, B, out):
    """Set ``out = S B`` for the sparse matrix S with these entries."""
    m, k = out.shape
    args = (ptr, idx, val, B, out, m, k)
    _cuda.launch("times", B.dtype, blocks(m, _WARPS), _BLOCK, args)
