"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

import numpy as np

from ..._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
_BLOCK, _WARPS = 256, 8


def group(keys, groups):
    """Return where each group of equal keys starts, and the stable order that sorts them."""
    xp = get_backend("cupy").xp
    place = np.int32 if keys.size <= np.iinfo(np.int32).max else np.int64
    ptr = xp.zeros(groups + 1, np.int64)
    ptr[1:] = xp.cumsum(xp.bincount(keys, minlength=groups))
    # The place breaks ties: CuPy's sort need not be stable.
    key = keys.astype(np.int64) * keys.size + xp.arange(keys.size)
    return ptr, xp.argsort(key).astype(place)


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
