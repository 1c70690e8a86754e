"""Numba kernels for small quadratics with a penalty; there are no CUDA twins.

A small quadratic is ``g d + d G d / 2`` plus a penalty of ``w + d``. Each of its steps depends on
the last one, so it is solved on the host wherever the data are. Rows and columns of G beyond the
length of w do not count: a matrix with room to grow is passed as it is, because a view of it
would need a second compilation. Everything is float64.
"""

from math import inf

from ...._core.kernels.jit import REDUCE, kernel
from ...._core.kernels.rules import distance, prox


@kernel(fastmath=REDUCE)
def _add(x, t, y):
    for i in range(x.size):
        x[i] += t * y[i]


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
                _add(g, d, G[j])
    return worst


@kernel(fastmath=REDUCE)
def walk(G, g, w, penalty, face, d, q):
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
    q : array, shape (m,)
        Work space; zeros.

    Returns
    -------
    int
        How many coefficients met a bound.
    """
    hits, first, step, end = 0, 0, 1.0, 0.0
    for k in range(face.size):
        _add(q, d[k], G[face[k]])
    while True:
        slope, bend, room = 0.0, 0.0, inf
        for k in range(face.size):
            if d[k] != 0.0:
                j = face[k]
                # Where two meet zero at once, the second still comes from where it was.
                up = w[j] > 0.0 or (w[j] == 0.0 and d[k] < 0.0)
                a, b = (0.0, penalty.hi[j]) if up else (penalty.lo[j], 0.0)
                if penalty.alpha[j] == 0.0 or a < penalty.lo[j]:
                    a = penalty.lo[j]
                if penalty.alpha[j] == 0.0 or b > penalty.hi[j]:
                    b = penalty.hi[j]
                kink = penalty.alpha[j] if up else -penalty.alpha[j]
                slope += d[k] * (g[j] + penalty.ridge[j] * w[j] + kink)
                bend += d[k] * (q[j] + penalty.ridge[j] * d[k])
                bound = b if d[k] > 0.0 else a
                reach = (bound - w[j]) / d[k]
                if reach < room:
                    room, first, end = max(reach, 0.0), k, bound
        if not slope < 0.0:
            return hits
        step = -slope / bend if bend > 0.0 else inf
        full = step < room
        step = min(step, room)
        if step == inf:
            return hits
        for k in range(face.size):
            w[face[k]] += step * d[k]
        _add(g, step, q)
        if full:
            return hits
        w[face[first]] = end
        _add(q, -d[first], G[face[first]])
        d[first] = 0.0
        hits += 1
