"""Numba kernels of the passes over gates and samples; `gpu.py` has their CUDA twins.

`mask` (P, n) holds the gates. Arrays with a row for each gate, (..., P, n), come as (rows, n):
row r belongs to gate ``r % P``. Its sign at a sample is 1 where the gate is open, -1 elsewhere.
"""

import math

import numpy as np
from numba import prange

from ..._core import threads
from ..._core.kernels.jit import REDUCE, kernel
from ..._core.kernels.vmath import exp, vmax

# Samples of a tile: what sums over gates are made in stays in the nearest cache.
_TILE = 2048


def masked_sum(G, mask, out):
    """Set ``out_k = sum_i mask_ik (G_0ik - G_1ik)``; G (c, sides, P, n), the second side optional.

    `out` is (c, n).
    """
    tiles = _tiles(G)
    with threads.guard():
        _masked_sum(tiles, G, mask, out)


@kernel(parallel=True, fastmath=REDUCE)
def _masked_sum(tiles, G, mask, out):
    c, sides, P, n = G.shape
    zero = G.dtype.type(0.0)
    for t in prange(tiles):
        first, last = n * t // tiles, n * (t + 1) // tiles
        for o in range(c):
            total = out[o, first:last]
            total[:] = zero
            for i in range(P):
                seen = mask[i, first:last]
                a, b = G[o, 0, i, first:last], G[o, sides - 1, i, first:last]
                if sides == 2:
                    for k in range(last - first):
                        total[k] += a[k] - b[k] if seen[k] else zero
                else:
                    for k in range(last - first):
                        total[k] += a[k] if seen[k] else zero


@kernel()
def spread(z, mask, out):
    """Set ``out_oik = mask_ik z_ok``; z (c, n), out (c, P, n)."""
    c, P, n = out.shape
    zero = z.dtype.type(0.0)
    for o in range(c):
        for i in range(P):
            row, seen, to = z[o], mask[i], out[o, i]
            for k in range(n):
                to[k] = row[k] if seen[k] else zero


def advance(G, T, mask, relax):
    """Move the cones' copies by ``relax (sign G - max(T, 0))``; leave ``sign |T|`` in G.

    Returns the sums of squares of what is left of the constraint, ``sign G - S`` with the new
    ``S = max(T, 0)``, of the change of S, and of ``sign G - S`` with the old one.
    """
    tiles = _tiles(T)
    sums = np.zeros((tiles, 3))
    with threads.guard():
        _advance(tiles, G, T, mask, T.dtype.type(relax), sums)
    return sums.sum(axis=0)


@kernel(parallel=True, fastmath=REDUCE)
def _advance(tiles, G, T, mask, relax, sums):
    (rows, n), P = T.shape, mask.shape[0]
    zero = T.dtype.type(0.0)
    for t in prange(tiles):
        first, last = n * t // tiles, n * (t + 1) // tiles
        left = changed = moved = 0.0
        for r in range(rows):
            seen, row, there = mask[r % P, first:last], T[r, first:last], G[r, first:last]
            a = b = c = zero
            for k in range(last - first):
                g = there[k] if seen[k] else -there[k]
                before = vmax(row[k], zero)
                new = row[k] + relax * (g - before)
                after = vmax(new, zero)
                row[k] = new
                there[k] = abs(new) if seen[k] else -abs(new)
                a += (g - after) * (g - after)
                b += (after - before) * (after - before)
                c += (g - before) * (g - before)
            left, changed, moved = left + a, changed + b, moved + c
        sums[t, 0], sums[t, 1], sums[t, 2] = left, changed, moved


def shrink(U, T, V, t, relax):
    """Move the blocks' copies T by ``relax (U - V)`` and set V to each moved by t towards zero.

    All are (rows, d). Returns sums of squares as `advance` does.
    """
    sums = np.zeros(3)
    _shrink(U, T, V, float(t), T.dtype.type(relax), sums)
    return sums


@kernel(fastmath=REDUCE)
def _shrink(U, T, V, t, relax, sums):
    rows, d = T.shape
    left = changed = moved = 0.0
    for r in range(rows):
        square = 0.0
        for j in range(d):
            T[r, j] += relax * (U[r, j] - V[r, j])
            square += T[r, j] * T[r, j]
        # Where the block ends at zero, t may exceed the norm by any factor.
        keep = 1.0 - t / math.sqrt(square) if square > t * t else 0.0
        for j in range(d):
            before, after = V[r, j], keep * T[r, j]
            V[r, j] = after
            left += (U[r, j] - after) ** 2
            changed += (after - before) ** 2
            moved += (U[r, j] - before) ** 2
    sums[0], sums[1], sums[2] = left, changed, moved


def logistic(a, scale, rho, out):
    """Set out to the m that minimise ``log(1 + exp(-scale m)) + rho / 2 (m - a)^2``.

    a, rho and out are flat and of one type: each sample has its own rho.
    """
    strips = threads.strips(50 * a.size)
    eps = float(np.finfo(a.dtype).eps)
    with threads.guard():
        _logistic(strips, a, float(scale), rho, eps, out)


@kernel(parallel=True)
def _logistic(strips, a, scale, rho, eps, out):
    for s in prange(strips):
        for k in range(a.size * s // strips, a.size * (s + 1) // strips):
            # Newton within a bracket of the root of g, which increases, and a bisection wherever
            # it leaves the bracket or goes to and fro.
            start, reach = float(a[k]), scale / rho[k]
            low, high, step = start, start + reach, reach
            m = start + 0.5 * reach
            for _ in range(100):
                e = exp(-abs(scale * m))
                chance = (e if m > 0.0 else 1.0) / (1.0 + e)
                g = m - start - reach * chance
                if g < 0.0:
                    low = m
                else:
                    high = m
                new = m - g / (1.0 + scale * reach * chance * (1.0 - chance))
                if abs(new - m) <= 4.0 * eps * (abs(start) + reach):
                    m = new
                    break
                if not (low < new < high and abs(new - m) <= 0.5 * step):
                    new = 0.5 * (low + high)
                m, step = new, abs(new - m)
            out[k] = m


def _tiles(a):
    """Into how many tiles of samples a pass over `a` is cut."""
    n = a.shape[-1]
    return max(1, min(threads.strips(a.size), n), -(-n // _TILE))
