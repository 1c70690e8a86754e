"""Numba kernels that compute the costs of a cloud on the fly; `gpu.py` launches their CUDA twins.

The functions mean what those of the same name in `..cpu` mean for a stored cost. In up to four
dimensions costs are made inside the loops, from differences; otherwise, and for costs that are
functions, block by block.

Points are taken in blocks of rows and cells of columns, each with its bounding box. A cell is
left out of a block where the boxes prove that all of its entries lie below ``exp(-DROP)`` of
their rows: where the points are ordered so that neighbours stand together, a pass costs what the
plan's support costs.
"""

import math

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import EXACT, REDUCE, kernel
from ...._core.kernels.vmath import exp, vmax
from .. import cpu as stored
from . import blocks as by_blocks

# Rows in a block, columns in a cell.
BLOCK, CELL = 32, 64
# Entries below exp(-DROP) of their row's largest are nothing: 1e6 of them are below rounding.
DROP = 50.0
# Exponents stay finite this far above the one that they are taken relative to.
HEADROOM = 600.0
SQUARED, EUCLIDEAN, CITYBLOCK = 0, 1, 2


def row_pass(C, h, beta, reg, a, shift, K):
    """Make all row sums exact for given `h`: one pass over the pairs."""
    if C.packed is None:
        return by_blocks.row_pass(stored, _costs, C, h, beta, reg, a, shift, K)
    strips = threads.strips(C.size)
    sums = np.zeros((strips, C.shape[1]))
    args = *_prepared(C, h, beta, reg), a, shift, K
    with threads.guard():
        if strips == 1:
            _row_pass_strip(*args, sums[0])
        else:
            _row_pass_strips(*args, sums)
    return sums.sum(axis=0)


def sparse_row_pass(C, h, beta, reg, a, shift, cutoff, indices, values, starts, ends):
    """As `row_pass`, storing only the entries with ``K_ij beta_j > cutoff``.

    Row i's entries go to ``[starts[i], ends[i])`` of `indices` and `values`. Returns ``K^T a``
    and whether everything fitted; a strip that runs out of room goes on without storing.
    """
    n, m = C.shape
    if C.packed is None:
        args = C, h, beta, reg, a, shift, cutoff, indices, values, starts, ends
        return by_blocks.sparse_row_pass(stored, _costs, *args)
    strips = threads.strips(C.size)
    sums, fitted = np.zeros((strips, m)), np.ones(strips, np.bool_)
    args = *_prepared(C, h, beta, reg), a, shift, cutoff, indices, values, starts, ends
    with threads.guard():
        if strips == 1:
            fitted[0] = _sparse_row_pass_strip(*args, 0, n, 0, indices.size, sums[0])
        else:
            _sparse_row_pass_strips(*args, sums, fitted)
    return sums.sum(axis=0), bool(fitted.all())


def column_potential(C, shift, a, reg, columns, h):
    """Set ``h_j`` for the given columns so that their sums are exact: ``(K^T a)_j = 1``."""
    by_blocks.column_potential(stored, _costs, C, shift, a, reg, columns, h)


def _costs(C, rows):
    return C[rows]


def _prepared(C, h, beta, reg):
    """Return what the strips need to know about all columns."""
    kind, X, Y, factor = C.packed
    cells = -(-h.size // CELL)
    low, high, lift = np.empty((cells, 4)), np.empty((cells, 4)), np.empty(cells)
    log_beta, scale = np.log(beta), 1.0 / reg
    _survey(Y, h, log_beta, scale, low, high, lift)
    return kind, X, Y, factor, low, high, lift, log_beta.min(), h, log_beta, beta, scale


@kernel()
def _survey(Y, h, log_beta, scale, low, high, lift):
    """Find each cell's box, and the largest exponent that one of its columns has at cost 0."""
    for c in range(lift.size):
        cell = slice(c * CELL, min((c + 1) * CELL, h.size))
        for k in range(4):
            low[c, k], high[c, k] = Y[k, cell].min(), Y[k, cell].max()
        lift[c] = (h[cell] * scale + log_beta[cell]).max()


@kernel(inline=True, fastmath=EXACT)
def _cost(kind, x0, x1, x2, x3, y0, y1, y2, y3):
    u0, u1, u2, u3 = x0 - y0, x1 - y1, x2 - y2, x3 - y3
    if kind == CITYBLOCK:
        return abs(u0) + abs(u1) + abs(u2) + abs(u3)
    s = u0 * u0 + u1 * u1 + u2 * u2 + u3 * u3
    return math.sqrt(s) if kind == EUCLIDEAN else s


@kernel(parallel=True)
def _row_pass_strips(
    kind, X, Y, factor, low, high, lift, lightest, h, log_beta, beta, scale, a, shift, K, sums
):
    n, strips = X.shape[0], sums.shape[0]
    for t in prange(strips):
        lo, hi = n * t // strips, n * (t + 1) // strips
        store = slice(lo, hi) if K.shape[0] > 0 else slice(0, 0)
        _row_pass_strip(
            kind, X[lo:hi], Y, factor, low, high, lift, lightest, h, log_beta, beta, scale,
            a[lo:hi], shift[lo:hi], K[store], sums[t],
        )  # fmt: skip


@kernel()
def _row_pass_strip(
    kind, X, Y, factor, low, high, lift, lightest, h, log_beta, beta, scale, a, shift, K, sums
):
    n, m = X.shape[0], h.size
    rows, w = np.zeros((4, m)), np.zeros(4)
    active, tops = np.empty(lift.size, np.int64), np.empty(BLOCK)
    near, weights = np.empty((7, m)), np.empty(m)
    for block in range(0, n, BLOCK):
        last = min(block + BLOCK, n)
        count, exact = _choose(
            kind, X[block:last], Y, factor, low, high, lift, lightest, h, log_beta, scale,
            DROP, tops, active,
        )  # fmt: skip
        size = _gather(active[:count], Y, h, beta, log_beta, near)
        acc = weights[:size]
        acc[:] = 0.0
        for first in range(block, last, 4):
            for k in range(4):
                i = first + k
                w[k] = 0.0
                if i < last:
                    row = rows[k, :size]
                    top = tops[i - block]
                    if not exact:
                        top = _largest(kind, X[i], near, size, factor, scale)
                    total = _exponentials(kind, X[i], near, size, factor, scale, top, row)
                    shift[i] = top + np.log(total)
                    w[k] = a[i] / total
                    if K.shape[0] > 0:
                        _scatter_scaled(row, 1.0 / total, active[:count], K[i])
            stored._add_rows(
                rows[0, :size], rows[1, :size], rows[2, :size], rows[3, :size],
                w[0], w[1], w[2], w[3], acc,
            )  # fmt: skip
        _scatter_add(acc, active[:count], sums)


@kernel(parallel=True)
def _sparse_row_pass_strips(
    kind, X, Y, factor, low, high, lift, lightest, h, log_beta, beta, scale, a, shift, cutoff,
    indices, values, starts, ends, sums, fitted,
):  # fmt: skip
    n, room, strips = X.shape[0], indices.size, sums.shape[0]
    for t in prange(strips):
        lo, hi = n * t // strips, n * (t + 1) // strips
        first, last = room * t // strips, room * (t + 1) // strips
        fitted[t] = _sparse_row_pass_strip(
            kind, X, Y, factor, low, high, lift, lightest, h, log_beta, beta, scale, a, shift,
            cutoff, indices, values, starts, ends, lo, hi, first, last, sums[t],
        )  # fmt: skip


@kernel()
def _sparse_row_pass_strip(
    kind, X, Y, factor, low, high, lift, lightest, h, log_beta, beta, scale, a, shift, cutoff,
    indices, values, starts, ends, lo, hi, at, room, sums,
):  # fmt: skip
    m = h.size
    rows, w = np.zeros((4, m)), np.zeros(4)
    active, tops = np.empty(lift.size, np.int64), np.empty(BLOCK)
    near, weights = np.empty((7, m)), np.empty(m)
    drop = max(DROP, 1.0 - np.log(cutoff))
    for block in range(lo, hi, BLOCK):
        last = min(block + BLOCK, hi)
        count, exact = _choose(
            kind, X[block:last], Y, factor, low, high, lift, lightest, h, log_beta, scale,
            drop, tops, active,
        )  # fmt: skip
        size = _gather(active[:count], Y, h, beta, log_beta, near)
        acc = weights[:size]
        acc[:] = 0.0
        for first in range(block, last, 4):
            for k in range(4):
                i = first + k
                w[k] = 0.0
                if i < last:
                    row = rows[k, :size]
                    top = tops[i - block]
                    if not exact:
                        top = _largest(kind, X[i], near, size, factor, scale)
                    total = _exponentials(kind, X[i], near, size, factor, scale, top, row)
                    shift[i] = top + np.log(total)
                    w[k] = a[i] / total
                    starts[i] = at
                    # A row may take as many places, however few it will fill.
                    if at + size <= room:
                        end = stored._keep_above(
                            row, near[5, :size], cutoff * total, 1.0 / total, at, indices, values
                        )
                        _rename(active, indices[at:end])
                        at = end
                    else:
                        at = room + 1
                    ends[i] = at
            stored._add_rows(
                rows[0, :size], rows[1, :size], rows[2, :size], rows[3, :size],
                w[0], w[1], w[2], w[3], acc,
            )  # fmt: skip
        _scatter_add(acc, active[:count], sums)
    return at <= room


@kernel()
def _choose(kind, X, Y, factor, low, high, lift, lightest, h, log_beta, scale, drop, tops, active):
    """List the cells that matter to a block of rows.

    Sets `tops` to an exponent of each row that is not far from its largest one. Returns the
    number of cells, and whether exponents relative to `tops` cannot overflow.
    """
    bounds = np.empty(lift.size)
    lo, hi = np.empty(4), np.empty(4)
    for k in range(4):
        lo[k], hi[k] = X[:, k].min(), X[:, k].max()
    best = 0
    for c in range(lift.size):
        # The cost between the boxes' nearest points.
        u0 = max(low[c, 0] - hi[0], lo[0] - high[c, 0], 0.0)
        u1 = max(low[c, 1] - hi[1], lo[1] - high[c, 1], 0.0)
        u2 = max(low[c, 2] - hi[2], lo[2] - high[c, 2], 0.0)
        u3 = max(low[c, 3] - hi[3], lo[3] - high[c, 3], 0.0)
        least = factor * _cost(kind, u0, u1, u2, u3, 0.0, 0.0, 0.0, 0.0)
        bounds[c] = lift[c] - least * scale
        if bounds[c] > bounds[best]:
            best = c
    lowest, cell = np.inf, slice(best * CELL, min((best + 1) * CELL, h.size))
    for i in range(X.shape[0]):
        top = -np.inf
        for j in range(cell.start, cell.stop):
            c = factor * _cost(
                kind, X[i, 0], X[i, 1], X[i, 2], X[i, 3], Y[0, j], Y[1, j], Y[2, j], Y[3, j]
            )
            top = max(top, (h[j] - c) * scale + log_beta[j])
        tops[i] = top
        lowest = min(lowest, top)
    count = 0
    for c in range(lift.size):
        if bounds[c] >= lowest - drop:
            active[count] = c
            count += 1
    return count, bounds[best] - lowest - lightest < HEADROOM


@kernel()
def _gather(active, Y, h, beta, log_beta, near):
    """Copy coordinates, potentials and weights of some cells; return the number of columns."""
    at = 0
    for c in active:
        first, last = c * CELL, min((c + 1) * CELL, h.size)
        size = last - first
        for k in range(4):
            near[k, at : at + size] = Y[k, first:last]
        near[4, at : at + size] = h[first:last]
        near[5, at : at + size] = beta[first:last]
        near[6, at : at + size] = log_beta[first:last]
        at += size
    return at


@kernel()
def _scatter_add(acc, active, sums):
    at = 0
    for c in active:
        cell = sums[c * CELL : (c + 1) * CELL]
        for j in range(cell.size):
            cell[j] += acc[at + j]
        at += cell.size


@kernel()
def _scatter_scaled(row, factor, active, out):
    out[:] = 0.0
    at = 0
    for c in active:
        cell = out[c * CELL : (c + 1) * CELL]
        stored._copy_scaled(row[at : at + cell.size], factor, cell)
        at += cell.size


@kernel()
def _rename(active, indices):
    """Turn places among the gathered columns into columns; only the last cell may be short."""
    for k in range(indices.size):
        indices[k] = active[indices[k] // CELL] * CELL + indices[k] % CELL


@kernel(fastmath=REDUCE)
def _largest(kind, x, near, size, factor, scale):
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    y0, y1, y2, y3 = near[0, :size], near[1, :size], near[2, :size], near[3, :size]
    h, log_beta = near[4, :size], near[6, :size]
    top = -np.inf
    for j in range(size):
        c = factor * _cost(kind, x0, x1, x2, x3, y0[j], y1[j], y2[j], y3[j])
        top = vmax(top, (h[j] - c) * scale + log_beta[j])
    return top


@kernel(fastmath=REDUCE)
def _exponentials(kind, x, near, size, factor, scale, top, row):
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    y0, y1, y2, y3 = near[0, :size], near[1, :size], near[2, :size], near[3, :size]
    h, beta = near[4, :size], near[5, :size]
    total = 0.0
    for j in range(size):
        c = factor * _cost(kind, x0, x1, x2, x3, y0[j], y1[j], y2[j], y3[j])
        e = exp((h[j] - c) * scale - top)
        row[j] = e
        total += e * beta[j]
    return total
