"""Numba kernels for small quadratics with a penalty; there are no CUDA twins.

A small quadratic is ``g d + d G d / 2`` plus a penalty of ``w + d``. Each of its steps depends on
the last one, so it is solved on the host wherever the data are. Rows and columns of G beyond the
length of w do not count: a matrix with room to grow is passed as it is, because a view of it
would need a second compilation. Everything is float64.
"""

from math import inf

import numpy as np

from ...._core.kernels.jit import REDUCE, kernel
from ...._core.kernels.rules import distance, prox


@kernel(fastmath=REDUCE)
def sweep(G, g, w, penalty, unit, count, tol):
    """Make up to `count` cyclic sweeps of exact steps, fewer once no violation is above `tol`.

    Violations are in multiples of `unit` (m,). `w` and its gradient `g` are updated. Returns the
    largest violation that is left.
    """
    m = w.size
    worst = 0.0
    for done in range(count + 1):
        worst = 0.0
        for j in range(m):
            worst = max(worst, distance(penalty, w[j], g[j], j) / unit[j])
        if done == count or worst <= tol:
            break
        for j in range(m):
            L = G[j, j]
            new = prox(penalty, w[j] - g[j] / L, 1.0 / L, j)
            d = new - w[j]
            if d != 0.0:
                w[j] = new
                row = G[j]
                for i in range(m):
                    g[i] += d * row[i]
    return worst


@kernel(fastmath=REDUCE)
def walk(G, g, w, penalty, face, d):
    """Move along d on a face, to the first minimum; what meets a bound on the way stays there.

    Parameters
    ----------
    G, g, w : array
        The quadratic; w and its gradient g are updated.
    penalty : ElasticBox
        For all of w.
    face : array of int, shape (k,)
        The coefficients that move: within their bounds, and not zero where that is a kink.
    d : array, shape (k,)
        Direction; entries that met a bound are set to zero.

    Returns
    -------
    int
        How many coefficients met a bound.
    """
    m, hits = w.size, 0
    q = np.zeros(m)
    for k in range(face.size):
        _add(q, d[k], G[face[k]])
    while True:
        slope = bend = end = 0.0
        room, first = inf, -1
        for k in range(face.size):
            if d[k] == 0.0:
                continue
            j = face[k]
            kink = penalty.alpha[j] > 0.0
            # Where two meet zero at once, the second still comes from where it was.
            side = w[j] if w[j] != 0.0 else -d[k]
            slope += d[k] * (g[j] + penalty.ridge[j] * w[j] + np.copysign(penalty.alpha[j], side))
            bend += d[k] * (q[j] + penalty.ridge[j] * d[k])
            bound = penalty.hi[j] if d[k] > 0.0 else penalty.lo[j]
            if kink and d[k] * side < 0.0:
                bound = max(bound, 0.0) if d[k] < 0.0 else min(bound, 0.0)
            reach = (bound - w[j]) / d[k]
            if reach < room:
                room, first, end = max(reach, 0.0), k, bound
        if not slope < 0.0:
            break
        t = min(-slope / bend if bend > 0.0 else inf, room)
        if t == inf:
            break
        for k in range(face.size):
            w[face[k]] += t * d[k]
        _add(g, t, q)
        if t < room:
            break
        w[face[first]] = end
        _add(q, -d[first], G[face[first]])
        d[first] = 0.0
        hits += 1
    return hits


@kernel(fastmath=REDUCE)
def part(G, face, ridge, jitter, out):
    """Set the upper triangle of ``out = G_FF + diag(ridge_F)``, its diagonal raised a little."""
    for a in range(face.size):
        row = G[face[a]]
        for b in range(a, face.size):
            out[a, b] = row[face[b]]
        out[a, a] = out[a, a] * (1.0 + jitter) + ridge[face[a]]


@kernel(fastmath=REDUCE, inline=True)
def _add(x, t, y):
    for i in range(x.size):
        x[i] += t * y[i]
