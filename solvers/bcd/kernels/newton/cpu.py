"""Numba kernels for small quadratics with any penalty; there are no CUDA twins.

Steps of single coefficients depend on each other one by one, so they are made on the host wherever
the data are. Rows and columns of G beyond the length of w do not count.
"""

import numpy as np

from ...._core.kernels.jit import EXACT, kernel
from ...._core.kernels.rules import bend, distance, prox, slope


@kernel(fastmath=EXACT)
def descend(G, g, w, penalty, unit, count, tol):
    """Make up to `count` cyclic sweeps of proximal steps, fewer once no violation is above `tol`.

    A violation is the distance to the subdifferential, or the proximal step times ``G_jj`` where
    that is more: at a kink without an end (`Lq`) any gradient is in the subdifferential. It is
    taken before the coefficient moves, in multiples of `unit` (m,). `w` and its gradient `g` are
    updated. Returns the largest violation of the last sweep.
    """
    m = w.size
    worst = 0.0
    for _ in range(count):
        worst = 0.0
        for j in range(m):
            L = G[j, j]
            if L <= 0.0:
                continue
            new = prox(penalty, w[j] - g[j] / L, 1.0 / L, j)
            d = new - w[j]
            worst = max(worst, max(L * abs(d), distance(penalty, w[j], g[j], j)) / unit[j])
            if d != 0.0:
                w[j] = new
                for i in range(m):
                    g[i] += d * G[j, i]
        if worst <= tol:
            break
    return worst


@kernel(fastmath=EXACT)
def slopes_and_bends(penalty, w, first, second):
    """Set two arrays to the derivatives of a penalty; 0 where a coefficient is 0."""
    for j in range(w.size):
        first[j] = second[j] = 0.0
        if w[j] != 0.0:
            first[j] = slope(penalty, w[j], j)
            second[j] = bend(penalty, w[j], j)


@kernel(fastmath=EXACT)
def weighted_gram(ptr, idx, val, D, place, first, H):
    """Add ``X_A^T diag(D) X_B`` to H for columns A of a matrix in compressed rows.

    Parameters
    ----------
    ptr, idx, val : array
        The matrix.
    D : array, shape (n,)
        Weights of the rows.
    place : array of int
        The row of H that belongs to a column; -1 leaves it out.
    first : int
        B are the columns of A from this place on.
    H : array, shape (m, m)
        Rows and columns from `first` on are added to; both of them, by symmetry.
    """
    m = H.shape[0]
    places, values = np.empty(m, np.int64), np.empty(m)
    for i in range(ptr.size - 1):
        # Columns of B from the left, others of A from the right.
        new, old = 0, m
        for q in range(ptr[i], ptr[i + 1]):
            a = place[idx[q]]
            if a >= first:
                places[new], values[new] = a, val[q]
                new += 1
            elif a >= 0:
                old -= 1
                places[old], values[old] = a, val[q]
        for q in range(new):
            b, share = places[q], D[i] * values[q]
            for k in range(q + 1):
                a = places[k]
                H[min(a, b), max(a, b)] += share * values[k]
            for k in range(old, m):
                H[places[k], b] += share * values[k]
    for b in range(first, m):
        for a in range(b):
            H[b, a] = H[a, b]


@kernel(fastmath=EXACT)
def softmax_gram(ptr, idx, val, s, Q, place, H):
    """Add second derivatives of softmax losses to H, for a matrix in compressed rows.

    Parameters
    ----------
    ptr, idx, val : array
        The matrix (n, p).
    s : array, shape (n,)
        Weights of the rows.
    Q : array, shape (n, C)
        Probabilities of the classes.
    place : array of int, shape (p, C)
        The row of H that belongs to a column and a class; -1 leaves it out.
    H : array, shape (m, m)
        ``H_ab += sum_i s_i x_ia x_ib (Q_ik [k = l] - Q_ik Q_il)`` for a of class k, b of class l.
    """
    m, C = H.shape[0], Q.shape[1]
    places, values, shares = np.empty(m, np.int64), np.empty(m), np.empty(m)
    for i in range(ptr.size - 1):
        count = 0
        for k in range(C):
            first = count
            for q in range(ptr[i], ptr[i + 1]):
                a = place[idx[q], k]
                if a >= 0:
                    places[count], values[count] = a, val[q]
                    shares[count] = val[q] * Q[i, k]
                    b, both = a, s[i] * shares[count]
                    for f in range(first, count + 1):
                        H[b, places[f]] += both * values[f]
                    for f in range(count + 1):
                        H[b, places[f]] -= both * shares[f]
                    count += 1
    # Each pair was added to on one side of the diagonal or on the other.
    for b in range(m):
        for a in range(b):
            H[a, b] = H[b, a] = H[a, b] + H[b, a]
