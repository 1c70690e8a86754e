"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

import numpy as np

from ...._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
_BLOCK, _WARPS = 256, 8
# Bits of a key that are looked at together.
_DIGIT = 8


def top(scores, out):
    """Set `out` to the indices of the largest scores, ascending; NaN counts as the smallest.

    The smallest of them is found digit by digit, from counts.
    """
    xp, n = get_backend("cupy").xp, scores.size
    # What is known of the key, and how many scores with it are still wanted.
    state = xp.array([0, out.size], np.int64)
    counts = xp.zeros(1 << _DIGIT, np.int32)
    for shift in range(64 - _DIGIT, -1, -_DIGIT):
        args = scores, state, counts, shift, n
        _cuda.launch("count_digits", scores.dtype, blocks(n, 4 * _BLOCK), _BLOCK, args)
        _cuda.launch("next_digit", scores.dtype, 1, 32, (state, counts, shift))
    place = xp.empty(n, np.int8)
    args = scores, state, place, n
    _cuda.launch("compare", scores.dtype, blocks(n, _BLOCK), _BLOCK, args)
    above = xp.flatnonzero(place > 0)
    ties = xp.flatnonzero(place == 0)[: out.size - above.size]
    out[...] = xp.sort(xp.concatenate([above, ties]))


def block_sums(scores, ptr, idx, out):
    """Set `out` to the sums of scores over blocks."""
    args = scores, ptr, idx, out, out.size
    _cuda.launch("block_sums", scores.dtype, blocks(out.size, _WARPS), _BLOCK, args)


def best_limit(square, L, order, heap):
    """Return where to stop adding unknowns in an order of ascending L; see `cpu.best_limit`."""
    where = get_backend("cupy").xp.empty(1, np.int64)
    args = square, L, order, heap, where, order.size, heap.size
    _cuda.launch("best_limit", square.dtype, 1, 32, args)
    return where[0]


def pursue(H, g, chosen):
    """Choose unknowns by which the quadratic model falls most; see `cpu.pursue`."""
    xp, c = get_backend("cupy").xp, g.size
    rest, pivot = g.astype(np.float64), H.diagonal().astype(np.float64)
    columns, total = xp.empty((chosen.size, c)), xp.zeros(1)
    args = xp.ascontiguousarray(H, np.float64), rest, pivot, columns, chosen, total
    _cuda.launch("pursue", np.float64, 1, _BLOCK, (*args, c, chosen.size))
    return total[0]
