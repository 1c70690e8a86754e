"""Numba kernels for penalties of groups; `gpu.py` launches their CUDA twins.

The penalty of group b, which holds the entries ``ptr[b]`` to ``ptr[b + 1]`` of all arrays, is
``l2[b] |w_b| + sum_j l1[j] |w_j| + ridge[j]/2 w_j^2``. Everything is float64.
"""

from math import copysign, inf, sqrt

import numpy as np

from ...._core.kernels.jit import EXACT, kernel

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
def block_scales(ptr, l1, l2, u, out):
    """Set `out` to the largest factor that keeps u among the subgradients at 0 of each block."""
    for b in range(l2.size):
        first, end = ptr[b], ptr[b + 1]
        largest, slack, square = 0.0, 0.0, 0.0
        for j in range(first, end):
            largest = max(largest, abs(u[j]))
            slack = max(slack, l1[j])
            square += u[j] * u[j]
        if largest == 0.0:
            out[b] = inf
            continue
        if slack == 0.0:
            out[b] = l2[b] / sqrt(square)
            continue
        low, high = 0.0, (slack + l2[b]) / largest
        for _ in range(60):
            middle, total = 0.5 * (low + high), 0.0
            for j in range(first, end):
                over = max(middle * abs(u[j]) - l1[j], 0.0)
                total += over * over
            if total <= l2[b] * l2[b]:
                low = middle
            else:
                high = middle
        out[b] = low


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


@kernel(fastmath=EXACT)
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
        Stop when no block's violation exceeds it.

    Returns
    -------
    float
        The largest violation that the last sweep met: length of a proximal step, times `bound`.
    """
    worst, widest = 0.0, 0
    for b in range(l2.size):
        widest = max(widest, ptr[b + 1] - ptr[b])
    slope, point, new = np.empty(widest), np.empty(widest), np.empty(widest)
    for _ in range(sweeps):
        worst = 0.0
        for b in range(l2.size):
            first, size = ptr[b], ptr[b + 1] - ptr[b]
            if bound[b] <= 0.0:
                continue
            t = 1.0 / bound[b]
            for i in range(size):
                point[i], slope[i] = w[first + i], g[first + i]
            start = 0.0
            for k in range(_INNER):
                square = 0.0
                for i in range(size):
                    v = point[i] - t * slope[i]
                    v = copysign(max(abs(v) - t * l1[first + i], 0.0), v)
                    new[i] = v
                    square += v * v
                scale = 1.0
                if l2[b] > 0.0:
                    scale = 1.0 - t * l2[b] / sqrt(square) if square > 0.0 else 0.0
                    scale = max(scale, 0.0)
                moved = 0.0
                for i in range(size):
                    new[i] = new[i] * scale / (1.0 + t * ridge[first + i]) - point[i]
                    moved += new[i] * new[i]
                moved = sqrt(moved) * bound[b]
                if k == 0:
                    start = moved
                    worst = max(worst, moved)
                if moved == 0.0:
                    break
                for i in range(size):
                    point[i] += new[i]
                    for j in range(size):
                        slope[j] += H[first + i, first + j] * new[i]
                if size == 1 or moved <= 0.1 * start:
                    break
            for i in range(size):
                d = point[i] - w[first + i]
                if d != 0.0:
                    w[first + i] = point[i]
                    for j in range(w.size):
                        g[j] += d * H[first + i, j]
        if worst <= tol:
            break
    return worst
