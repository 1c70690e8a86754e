r"""Numba kernels of matrix completion; `gpu.py` launches their CUDA twins.

Observed entries are compressed by rows, ``ptr`` and ``idx``; what is a row here may be a column
of the matrix (see `Side`). Factors are A, one row for each row of the entries, and B.

A public function here splits the rows into strips with about the same number of entries, one per
thread; each row's result is written by one thread alone, so it depends on nothing else.
"""

import numpy as np
from numba import prange

from ..._core import threads
from ..._core.kernels.jit import REDUCE, kernel


def group(keys, groups):
    """Return where each group of equal keys starts, and the stable order that sorts them."""
    place = np.int32 if keys.size <= np.iinfo(np.int32).max else np.int64
    ptr, order = np.zeros(groups + 1, np.int64), np.empty(keys.size, place)
    strips = threads.strips(keys.size)
    counts = np.zeros((strips, groups), np.int64)
    with threads.guard():
        _count(keys, counts)
        # A strip's entries of a group stand behind those of the strips before it.
        total = counts.sum(axis=0)
        np.cumsum(total, out=ptr[1:])
        starts = np.cumsum(counts, axis=0) - counts + ptr[:-1]
        _place(keys, starts, order)
    return ptr, order


@kernel(parallel=True)
def _count(keys, counts):
    strips = counts.shape[0]
    for t in prange(strips):
        for p in range(keys.size * t // strips, keys.size * (t + 1) // strips):
            counts[t, keys[p]] += 1


@kernel(parallel=True)
def _place(keys, starts, order):
    strips = starts.shape[0]
    for t in prange(strips):
        for p in range(keys.size * t // strips, keys.size * (t + 1) // strips):
            order[starts[t, keys[p]]] = p
            starts[t, keys[p]] += 1


def residual(ptr, idx, val, A, B, a, b, out):
    """Set ``out_p = A_i . B_j + a_i + b_j - val_p`` for each entry; `a`, `b` may be empty."""
    with threads.guard():
        _residual(cuts(ptr, A.shape[1]), ptr, idx, val, A, B, a, b, out)


@kernel(parallel=True, fastmath=REDUCE)
def _residual(cuts, ptr, idx, val, A, B, a, b, out):
    k = A.shape[1]
    for t in prange(cuts.size - 1):
        for i in range(cuts[t], cuts[t + 1]):
            for p in range(ptr[i], ptr[i + 1]):
                j = idx[p]
                total = out.dtype.type(0.0)
                for q in range(k):
                    total += A[i, q] * B[j, q]
                if a.size > 0:
                    total += a[i] + b[j]
                out[p] = total - val[p]


def times(ptr, idx, val, B, out):
    """Set ``out = S B`` for the sparse matrix S with these entries."""
    with threads.guard():
        _times(cuts(ptr, B.shape[1]), ptr, idx, val, B, out)


@kernel(parallel=True, fastmath=REDUCE)
def _times(cuts, ptr, idx, val, B, out):
    k = B.shape[1]
    for t in prange(cuts.size - 1):
        for i in range(cuts[t], cuts[t + 1]):
            out[i] = 0.0
            for p in range(ptr[i], ptr[i + 1]):
                j, value = idx[p], val[p]
                for q in range(k):
                    out[i, q] += value * B[j, q]


def cuts(ptr, work):
    """Return where to cut the rows into strips, for so many operations for each entry."""
    strips = threads.strips((ptr[-1] + ptr.size) * work)
    if strips == 1:
        return np.array([0, ptr.size - 1])
    # A row and its entries stand for their share of the work.
    done = ptr + np.arange(ptr.size)
    # Many small strips: threads that the system holds up leave theirs to the others.
    goals = np.linspace(0, done[-1], 8 * strips + 1)
    return np.searchsorted(done, goals)
