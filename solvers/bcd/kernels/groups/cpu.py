"""Numba kernels for penalties of groups; `gpu.py` launches their CUDA twins.

The penalty of group b, which holds the entries ``ptr[b]`` to ``ptr[b + 1]`` of all arrays, is
``l2[b] |w_b| + sum_j l1[j] |w_j| + ridge[j]/2 w_j^2``; next to a norm, `ridge` must not vary
within the block. Everything is float64.
"""

from math import copysign, sqrt

import numpy as np

from ...._core.kernels.jit import EXACT, REDUCE, kernel

# Proximal steps on a block before the next one has its turn.
_INNER = 10


@kernel(fastmath=EXACT)
def block_distances(ptr, l1, l2, ridge, w, g, out):
    """Set `out` to the distance of -g from the subdifferential, block by block."""
    for b in range(l2.size):
        first, end = ptr[b], ptr[b + 1]
        size = 0.0
        for j in range(first, end):
            size += w[j] * w[j]
        size = sqrt(size)
        total = 0.0
        for j in range(first, end):
            slope = g[j] + ridge[j] * w[j]
            if w[j] != 0.0:
                slope += copysign(l1[j], w[j]) + (l2[b] * (w[j] / size) if size > 0.0 else 0.0)
            else:
                slope = max(abs(slope) - l1[j], 0.0)
            total += slope * slope
        total = sqrt(total)
        out[b] = total if size > 0.0 else max(total - l2[b], 0.0)


@kernel(fastmath=EXACT)
def block_bounds(H, ptr, out):
    """Set `out` to upper bounds of the largest eigenvalue of each diagonal block."""
    for b in range(ptr.size - 1):
        first, end = ptr[b], ptr[b + 1]
        largest, square = 0.0, 0.0
        for i in range(first, end):
            total = 0.0
            for j in range(first, end):
                total += abs(H[i, j])
                square += H[i, j] * H[i, j]
            largest = max(largest, total)
        out[b] = min(largest, sqrt(square))


@kernel(inline=True)
def _move_block(first, l1, l2, ridge, bound, slope, w, step):
    """Set `step` to the proximal step of the block that begins at `first`; return its length."""
    t, square = 1.0 / bound, 0.0
    for i in range(step.size):
        v = w[i] - t * slope[i]
        step[i] = copysign(max(abs(v) - t * l1[first + i], 0.0), v)
        square += step[i] * step[i]
    scale = 1.0
    if l2 > 0.0:
        scale = max(1.0 - t * l2 / sqrt(square), 0.0) if square > 0.0 else 0.0
    square = 0.0
    for i in range(step.size):
        step[i] = step[i] * scale / (1.0 + t * ridge[first + i]) - w[i]
        square += step[i] * step[i]
    return sqrt(square)


@kernel()
def _widest(ptr):
    widest = 0
    for b in range(ptr.size - 1):
        widest = max(widest, ptr[b + 1] - ptr[b])
    return widest


@kernel(fastmath=REDUCE)
def block_sweeps(H, ptr, l1, l2, ridge, bound, w, g, sweeps, tol):
    """Cycle through the blocks of a quadratic model and move each to its minimiser, nearly.

    Parameters
    ----------
    H : array, shape (N, N)
        Second derivatives of the model, symmetric.
    bound : array, shape (blocks,)
        At least the largest eigenvalue of each diagonal block.
    w, g : array, shape (N,)
        Coefficients, and the model's gradient there; both are updated.
    sweeps : int
        How many sweeps.
    tol : float
        Stop when no block's violation exceeds it: the length of a proximal step, times `bound`.
    """
    widest = _widest(ptr)
    slope, point, step = np.empty(widest), np.empty(widest), np.empty(widest)
    for _ in range(sweeps):
        worst = 0.0
        for b in range(l2.size):
            first, size = ptr[b], ptr[b + 1] - ptr[b]
            if bound[b] <= 0.0:
                continue
            for i in range(size):
                point[i], slope[i] = w[first + i], g[first + i]
            start = 0.0
            for k in range(_INNER):
                moved = bound[b] * _move_block(
                    first, l1, l2[b], ridge, bound[b], slope, point, step[:size]
                )
                start = moved if k == 0 else start
                for i in range(size):
                    point[i] += step[i]
                    for j in range(size):
                        slope[j] += H[first + i, first + j] * step[i]
                if size == 1 or moved <= 0.1 * start:
                    break
            worst = max(worst, start)
            for i in range(size):
                d = point[i] - w[first + i]
                if d != 0.0:
                    w[first + i] = point[i]
                    for j in range(w.size):
                        g[j] += d * H[first + i, j]
        if worst <= tol:
            break


@kernel(fastmath=REDUCE)
def column_sweeps(A, D, Q, ptr, l1, l2, ridge, bound, w, R, sweeps, tol):
    """Cycle through the blocks of a quadratic model that is known by its columns.

    Parameters
    ----------
    A : array, shape (m, n)
        Columns of the features, one a row. Entry ``f * C + k`` of `w` is class k of feature f.
    D : array, shape (n,)
        Second derivatives of the losses, or the samples' weights if there are classes.
    Q : array, shape (C, n)
        Probabilities of the classes; of shape (0, n) if there are none.
    bound : array, shape (blocks,)
        At least the largest eigenvalue of each diagonal block.
    w : array, shape (m C,)
        Coefficients, updated.
    R : array, shape (max(C, 1), n)
        Slopes of the model, updated.
    sweeps, tol : int, float
        See `block_sweeps`.
    """
    C, n = R.shape
    widest = _widest(ptr)
    slope, step, mean = np.empty(widest), np.empty(widest), np.empty(n)
    for _ in range(sweeps):
        worst = 0.0
        for b in range(l2.size):
            first, size = ptr[b], ptr[b + 1] - ptr[b]
            if bound[b] <= 0.0:
                continue
            for j in range(size):
                f, k, total = (first + j) // C, j % C, 0.0
                for i in range(n):
                    total += A[f, i] * R[k, i]
                slope[j] = total
            moved = _move_block(
                first, l1, l2[b], ridge, bound[b], slope, w[first : first + size], step[:size]
            )
            worst = max(worst, bound[b] * moved)
            if moved == 0.0:
                continue
            for j in range(size):
                w[first + j] += step[j]
            for base in range(0, size, C):
                f = (first + base) // C
                mean[:] = 0.0
                for k in range(Q.shape[0]):
                    for i in range(n):
                        mean[i] += Q[k, i] * step[base + k]
                for k in range(C):
                    d = step[base + k]
                    if Q.shape[0] > 0:
                        for i in range(n):
                            R[k, i] += A[f, i] * D[i] * Q[k, i] * (d - mean[i])
                    elif d != 0.0:
                        for i in range(n):
                            R[k, i] += A[f, i] * D[i] * d
        if worst <= tol:
            break


@kernel(fastmath=REDUCE)
def sparse_column_sweeps(start, idx, val, D, Q, ptr, l1, l2, ridge, bound, w, R, sweeps, tol):
    """Do as `column_sweeps` with columns that are compressed.

    Column f has the values ``val[start[f] : start[f + 1]]`` in the rows ``idx[...]``.
    """
    C = R.shape[0]
    widest = _widest(ptr)
    slope, step = np.empty(widest), np.empty(widest)
    for _ in range(sweeps):
        worst = 0.0
        for b in range(l2.size):
            first, size = ptr[b], ptr[b + 1] - ptr[b]
            if bound[b] <= 0.0:
                continue
            for j in range(size):
                f, k, total = (first + j) // C, j % C, 0.0
                for p in range(start[f], start[f + 1]):
                    total += val[p] * R[k, idx[p]]
                slope[j] = total
            moved = _move_block(
                first, l1, l2[b], ridge, bound[b], slope, w[first : first + size], step[:size]
            )
            worst = max(worst, bound[b] * moved)
            if moved == 0.0:
                continue
            for j in range(size):
                w[first + j] += step[j]
            for base in range(0, size, C):
                f = (first + base) // C
                for p in range(start[f], start[f + 1]):
                    i, mean = idx[p], 0.0
                    for k in range(Q.shape[0]):
                        mean += Q[k, i] * step[base + k]
                    for k in range(C):
                        share = Q[k, i] if Q.shape[0] > 0 else 1.0
                        R[k, i] += val[p] * D[i] * share * (step[base + k] - mean)
        if worst <= tol:
            break
