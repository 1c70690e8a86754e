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
from .strips import cuts

_LARGEST_PLACE = 2**31 - 1


def arrange(rows, cols, vals, weights, m):
    """Sort entries by row, then by column; equal places keep their order.

    Returns
    -------
    ptr : array of int64, shape (m + 1,)
        Where each row's entries start.
    order : array of int32 or int64, shape (N,)
        Where each entry stood.
    idx, val, weight : array
        Columns, values and weights (perhaps none), sorted.
    """
    ptr, order = np.zeros(m + 1, np.int64), np.empty(rows.size, _place_type(rows.size))
    idx, val, weight = (np.empty_like(x) for x in (cols, vals, weights))
    strips = threads.strips(rows.size)
    starts = np.zeros((strips, m), np.int64)
    with threads.guard():
        _count(np.linspace(0, rows.size, strips + 1).astype(np.int64), rows, starts)
        _accumulate(starts, ptr)
        _place(rows, starts, order)
        _sort_rows(cuts(ptr, 16), ptr, order, cols, vals, weights, idx, val, weight)
    return ptr, order, idx, val, weight


def transpose(ptr, idx, val, weight, n):
    """Return entries that are sorted by row sorted by column; rows ascend in each column.

    Returns
    -------
    col_ptr : array of int64, shape (n + 1,)
        Where each column's entries start.
    row_of, col_val, col_weight : array
        Rows, values and weights (perhaps none) of the entries.
    perm : array of int32 or int64, shape (N,)
        Where each entry stands by row.
    """
    col_ptr, perm = np.zeros(n + 1, np.int64), np.empty(idx.size, _place_type(idx.size))
    row_of, col_val, col_weight = (np.empty_like(x) for x in (idx, val, weight))
    strips = threads.strips(idx.size)
    # Strips of whole rows; each knows where its entries of a column go.
    where = np.searchsorted(ptr, np.linspace(0, idx.size, strips + 1))
    where[-1] = ptr.size - 1
    starts = np.zeros((strips, n), np.int64)
    with threads.guard():
        _count(ptr[where], idx, starts)
        _accumulate(starts, col_ptr)
        _scatter(where, ptr, idx, val, weight, starts, row_of, col_val, col_weight, perm)
    return col_ptr, row_of, col_val, col_weight, perm


def _place_type(size):
    return np.int32 if size <= _LARGEST_PLACE else np.int64


@kernel(parallel=True)
def _count(ends, keys, counts):
    for t in prange(counts.shape[0]):
        for p in range(ends[t], ends[t + 1]):
            counts[t, keys[p]] += 1


def _accumulate(counts, ptr):
    """Set `ptr` to where each group starts, and each strip's counts to where its part does."""
    np.cumsum(counts.sum(axis=0), out=ptr[1:])
    before = ptr[:-1].copy()
    for row in counts:
        row[:], before = before, before + row


@kernel(parallel=True)
def _place(keys, starts, order):
    strips = starts.shape[0]
    for t in prange(strips):
        for p in range(keys.size * t // strips, keys.size * (t + 1) // strips):
            order[starts[t, keys[p]]] = p
            starts[t, keys[p]] += 1


@kernel(parallel=True)
def _sort_rows(cuts, ptr, order, cols, vals, weights, idx, val, weight):
    for t in prange(cuts.size - 1):
        longest = 0
        for i in range(cuts[t], cuts[t + 1]):
            longest = max(longest, ptr[i + 1] - ptr[i])
        # A column and the place in the row, in one number.
        keys, places = np.empty((2, longest), np.int64), np.empty(longest, order.dtype)
        for i in range(cuts[t], cuts[t + 1]):
            first, size, ascending = ptr[i], ptr[i + 1] - ptr[i], True
            for p in range(size):
                keys[0, p] = (np.int64(cols[order[first + p]]) << 32) | p
                ascending = ascending and (p == 0 or keys[0, p - 1] < keys[0, p])
            if not ascending:
                places[:size] = order[first : first + size]
                side = _merge_sort(keys, size)
                for p in range(size):
                    keys[0, p] = keys[side, p]
                    order[first + p] = places[keys[0, p] & 0xFFFFFFFF]
            for p in range(size):
                place = order[first + p]
                idx[first + p] = keys[0, p] >> 32
                val[first + p] = vals[place]
                if weights.size > 0:
                    weight[first + p] = weights[place]


@kernel()
def _merge_sort(keys, size):
    """Sort the first row of `keys`, with the second to work in; return the row of the result."""
    source, run = 0, 16
    for start in range(0, size, run):
        for p in range(start + 1, min(start + run, size)):
            key, q = keys[0, p], p
            while q > start and keys[0, q - 1] > key:
                keys[0, q] = keys[0, q - 1]
                q -= 1
            keys[0, q] = key
    while run < size:
        a, b = keys[source], keys[1 - source]
        for start in range(0, size, 2 * run):
            middle, end = min(start + run, size), min(start + 2 * run, size)
            left, right = start, middle
            for p in range(start, end):
                if right == end or (left < middle and a[left] < a[right]):
                    b[p] = a[left]
                    left += 1
                else:
                    b[p] = a[right]
                    right += 1
        source, run = 1 - source, 2 * run
    return source


@kernel(parallel=True)
def _scatter(where, ptr, idx, val, weight, starts, row_of, col_val, col_weight, perm):
    for t in prange(where.size - 1):
        for i in range(where[t], where[t + 1]):
            for p in range(ptr[i], ptr[i + 1]):
                place = starts[t, idx[p]]
                starts[t, idx[p]] += 1
                perm[place], row_of[place], col_val[place] = p, i, val[p]
                if weight.size > 0:
                    col_weight[place] = weight[p]


def residual(ptr, idx, val, A, B, a, b, out):
    """Set ``out_p = A_i . B_j + a_i + b_j - val_p`` for each entry; `a`, `b` may be empty."""
    with threads.guard():
        _residual(cuts(ptr, A.shape[1]), ptr, idx, val, A, B, a, b, out)


@kernel(parallel=True, fastmath=REDUCE)
def _residual(cuts, ptr, idx, val, A, B, a, b, out):
    k = A.shape[1]
    for t in prange(cuts.size - 1):
        for i in range(cuts[t], cuts[t + 1]):
            row, p, end = A[i], ptr[i], ptr[i + 1]
            # Four entries at a time: their sums need not wait for each other.
            while p + 4 <= end:
                b0, b1, b2, b3 = B[idx[p]], B[idx[p + 1]], B[idx[p + 2]], B[idx[p + 3]]
                x0 = x1 = x2 = x3 = out.dtype.type(0.0)
                for q in range(k):
                    x0 += row[q] * b0[q]
                    x1 += row[q] * b1[q]
                    x2 += row[q] * b2[q]
                    x3 += row[q] * b3[q]
                out[p], out[p + 1], out[p + 2], out[p + 3] = x0, x1, x2, x3
                p += 4
            for last in range(p, end):
                column, x0 = B[idx[last]], out.dtype.type(0.0)
                for q in range(k):
                    x0 += row[q] * column[q]
                out[last] = x0
            for p in range(ptr[i], end):
                if a.size > 0:
                    out[p] += a[i] + b[idx[p]]
                out[p] -= val[p]


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
