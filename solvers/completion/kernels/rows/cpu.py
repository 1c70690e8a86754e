"""Numba kernels that solve the small least-squares problems of alternating minimisation."""

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import REDUCE, kernel
from ..cpu import cuts


def solve_rows(ptr, idx, val, weight, B, ridge, shared, A):
    """Set each ``A_i`` to the minimiser of its row's part of the objective, given B.

    ``A_i = (shared + sum_p w_p B_j B_j^T + ridge_i I)^-1 sum_p w_p val_p B_j``; `shared` may be
    empty. Returns the norm of the gradient before, at the A given.
    """
    squares = np.zeros(A.shape[0])
    with threads.guard():
        where = cuts(ptr, B.shape[1] ** 2)
        _solve_rows(where, ptr, idx, val, weight, B, ridge, shared, A, squares)
    return np.sqrt(squares.sum())


@kernel(parallel=True)
def _solve_rows(where, ptr, idx, val, weight, B, ridge, shared, A, squares):
    k = B.shape[1]
    for t in prange(where.size - 1):
        G, h = np.empty((k, k), A.dtype), np.empty(k, A.dtype)
        for i in range(where[t], where[t + 1]):
            _system(ptr[i], ptr[i + 1], idx, val, weight, B, ridge[i], shared, G, h)
            squares[i] = _gap(G, h, A[i])
            _solve(G, h, A[i])


@kernel(fastmath=REDUCE)
def _system(first, last, idx, val, weight, B, ridge, shared, G, h):
    k = h.size
    h[:] = 0.0
    if shared.size > 0:
        G[:] = shared
    else:
        G[:] = 0.0
    for p in range(first, last):
        v = B[idx[p]]
        w = weight[p] if weight.size > 0 else v.dtype.type(1.0)
        t = w * val[p]
        for q in range(k):
            h[q] += t * v[q]
            c = w * v[q]
            for r in range(q + 1):
                G[q, r] += c * v[r]
    for q in range(k):
        G[q, q] += ridge


@kernel(fastmath=REDUCE)
def _gap(G, h, x):
    total = 0.0
    for q in range(h.size):
        y = -h[q]
        for r in range(h.size):
            y += (G[q, r] if r <= q else G[r, q]) * x[r]
        total += y * y
    return total


@kernel(fastmath=REDUCE)
def _solve(G, h, x):
    """Solve by Cholesky, in place; directions without any data keep the value 0."""
    k = h.size
    top = 0.0
    for q in range(k):
        top = max(top, G[q, q])
    floor = top * k * 4.0 * np.finfo(G.dtype).eps
    for q in range(k):
        for r in range(q):
            total = G[q, r]
            for c in range(r):
                total -= G[q, c] * G[r, c]
            G[q, r] = total / G[r, r] if G[r, r] > 0.0 else 0.0
        total = G[q, q]
        for c in range(q):
            total -= G[q, c] * G[q, c]
        G[q, q] = np.sqrt(total) if total > floor else 0.0
    for q in range(k):
        total = h[q]
        for c in range(q):
            total -= G[q, c] * x[c]
        x[q] = total / G[q, q] if G[q, q] > 0.0 else 0.0
    for q in range(k - 1, -1, -1):
        total = x[q]
        for c in range(q + 1, k):
            total -= G[c, q] * x[c]
        x[q] = total / G[q, q] if G[q, q] > 0.0 else 0.0
