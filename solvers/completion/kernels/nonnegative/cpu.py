r"""Numba kernels that solve the small non-negative least-squares problems of alternating steps.

Row i of the entries asks for the minimiser over :math:`x \ge 0` of

.. math:: \tfrac{1}{2} \sum_p w_p (x \cdot B_j - val_p)^2 + \tfrac{1}{2} x^T S x
          + \tfrac{1}{2} \lambda_i |x|^2

where p runs over the row's entries, j is the column of p, S is `shared` (it may be empty), and
:math:`\lambda_i` is ``ridge[i]``.
"""

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import REDUCE, kernel
from ..cpu import cuts

# Each turn is a cycle of coordinate steps and a step on the support. One or two do where few
# unknowns change sides; where the support's system is singular it takes many cycles.
_TURNS = 60


def solve_nonnegative(ptr, idx, val, weight, B, ridge, shared, A):
    """Set each ``A_i >= 0`` to its row's minimiser, from the A that comes in.

    Returns
    -------
    float
        Sum of squares of ``A - max(A - gradient / diagonal, 0)`` at the A that came in, where
        `diagonal` is that of each row's second derivative: 0 where that A is the minimiser.
    """
    squares = np.zeros(A.shape[0])
    with threads.guard():
        where = cuts(ptr, B.shape[1] ** 2)
        _solve_rows(where, ptr, idx, val, weight, B, ridge, shared, A, squares)
    return squares.sum()


@kernel(parallel=True)
def _solve_rows(where, ptr, idx, val, weight, B, ridge, shared, A, squares):
    k = B.shape[1]
    for t in prange(where.size - 1):
        G, L = np.empty((k, k), A.dtype), np.empty((k, k), A.dtype)
        h, g, step = np.empty(k, A.dtype), np.empty(k, A.dtype), np.empty(k, A.dtype)
        free = np.empty(k, np.int64)
        for i in range(where[t], where[t + 1]):
            _system(ptr[i], ptr[i + 1], idx, val, weight, B, ridge[i], shared, G, h)
            _gradient(G, h, A[i], g)
            squares[i] = _violation(G, A[i], g)
            _solve(G, h, A[i], g, L, step, free)


@kernel(fastmath=REDUCE)
def _system(first, last, idx, val, weight, B, ridge, shared, G, h):
    """Set G and h so that the row minimises ``x^T G x / 2 - h^T x``."""
    k = h.size
    h[:] = 0.0
    for q in range(k):
        for c in range(q + 1):
            G[q, c] = shared[q, c] if shared.size > 0 else 0.0
        G[q, q] += ridge
    for p in range(first, last):
        v = B[idx[p]]
        w = weight[p] if weight.size > 0 else v.dtype.type(1.0)
        for q in range(k):
            wv = w * v[q]
            h[q] += val[p] * wv
            for c in range(q + 1):
                G[q, c] += wv * v[c]
    for q in range(k):
        for c in range(q):
            G[c, q] = G[q, c]


@kernel(fastmath=REDUCE)
def _gradient(G, h, x, g):
    for q in range(x.size):
        g[q] = -h[q]
        for c in range(x.size):
            g[q] += G[q, c] * x[c]


@kernel(fastmath=REDUCE)
def _violation(G, x, g):
    """Return the sum of squares of what one projected step would change each unknown by."""
    total = 0.0
    for q in range(x.size):
        if G[q, q] > 0.0:
            moved = min(x[q], g[q] / G[q, q])
            total += moved * moved
    return total


@kernel()
def _solve(G, h, x, g, L, step, free):
    """Minimise ``x^T G x / 2 - h^T x`` over x >= 0, in place; g is the gradient at x."""
    for _ in range(_TURNS):
        _cycle(G, x, g)
        _finish(G, h, x, g, L, step, free)
        if _solved(G, x, g):
            break


@kernel(fastmath=REDUCE)
def _solved(G, x, g):
    """Tell whether the gradient is zero to rounding, or positive where x is 0."""
    k = x.size
    exact = 4.0 * k * np.finfo(G.dtype).eps
    for q in range(k):
        terms = 0.0
        for c in range(k):
            terms += abs(G[q, c]) * x[c]
        if abs(min(G[q, q] * x[q], g[q])) > exact * terms:
            return False
    return True


@kernel(fastmath=REDUCE)
def _cycle(G, x, g):
    """Minimise over each unknown in turn."""
    for q in range(x.size):
        if G[q, q] > 0.0:
            d = max(-g[q] / G[q, q], -x[q])
            if d != 0.0:
                x[q] += d
                for c in range(x.size):
                    g[c] += d * G[q, c]


@kernel(fastmath=REDUCE)
def _finish(G, h, x, g, L, step, free):
    """Minimise over the unknowns that are not 0, or go towards this until one more is 0."""
    k, size, top = x.size, 0, 0.0
    for q in range(k):
        if x[q] > 0.0:
            free[size] = q
            size += 1
            top = max(top, G[q, q])
    floor = 4.0 * k * np.finfo(G.dtype).eps * top
    for r in range(size):
        q = free[r]
        total = -g[q]
        for c in range(r):
            other = G[q, free[c]]
            for e in range(c):
                other -= L[r, e] * L[c, e]
            L[r, c] = other / L[c, c]
            total -= L[r, c] * step[c]
        pivot = G[q, q]
        for c in range(r):
            pivot -= L[r, c] * L[r, c]
        if not pivot > floor:
            return
        L[r, r] = np.sqrt(pivot)
        step[r] = total / L[r, r]
    for r in range(size - 1, -1, -1):
        for c in range(r + 1, size):
            step[r] -= L[c, r] * step[c]
        step[r] /= L[r, r]
    length, last = 1.0, -1
    for r in range(size):
        if x[free[r]] + length * step[r] < 0.0:
            length, last = -x[free[r]] / step[r], r
    for r in range(size):
        q = free[r]
        x[q] = max(x[q] + G.dtype.type(length) * step[r], G.dtype.type(0.0))
    if last >= 0:
        x[free[last]] = 0.0
    _gradient(G, h, x, g)
