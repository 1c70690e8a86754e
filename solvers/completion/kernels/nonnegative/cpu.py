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
from ..rows.cpu import _BUFFER, _LONG, _WIDE, _system
from ..rows.tiles import BLOCK, GROUP, apart

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
    (m, k), dtype = A.shape, A.dtype
    if k > _WIDE or np.diff(ptr).max() > _LONG:
        dtype = np.dtype(np.float64)
    squares = np.zeros(m)
    systems = idx, val, weight, B, np.empty(0, A.dtype)
    where = cuts(ptr, k**2)
    with threads.guard():
        _solve_rows(where, ptr, systems, ridge, shared, A, np.empty(0, dtype), squares)
    return squares.sum()


@kernel(parallel=True)
def _solve_rows(where, ptr, systems, ridge, shared, A, kind, squares):
    for t in prange(where.size - 1):
        _solve_strip(where[t], where[t + 1], ptr, systems, ridge, shared, A, kind, squares)


@kernel()
def _solve_strip(first, last, ptr, systems, ridge, shared, A, kind, squares):
    """Solve the rows from `first` to `last`, in the precision of `kind`."""
    apart()
    idx, val, weight, B, offset = systems
    k, number = A.shape[1], kind.dtype
    width = -(-k // BLOCK) * BLOCK
    room = max(_BUFFER // width // GROUP, 1) * GROUP
    V, target = np.zeros((room, width), number), np.zeros(room, number)
    G, S = np.zeros((width, width), number), np.zeros((width, width), number)
    x, g, diag = np.zeros(width, number), np.zeros(width, number), np.zeros(width, number)
    L, h, step = np.zeros((k, k), number), np.zeros(k, number), np.zeros(k, number)
    free = np.zeros(k, np.int64)
    if shared.size > 0:
        for q in range(k):
            for c in range(k):
                S[q, c] = shared[q, c]
    for i in range(first, last):
        for q in range(k):
            x[q], diag[q] = A[i, q], ridge[i]
        entries = ptr[i], ptr[i + 1], idx, val, weight, B, offset
        _system(entries, V, target, S, diag, x, g, G, True)
        for q in range(k):
            for c in range(q):
                G[q, c] = G[c, q]
        squares[i] = _violation(G, x[:k], g)
        for q in range(k):
            h[q] = _dot(G[q], x) - g[q]
        _solve(G, h, x[:k], g, L, step, free)
        for q in range(k):
            A[i, q] = x[q]


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
    k = x.size
    for q in range(k):
        if G[q, q] > 0.0:
            d = max(-g[q] / G[q, q], -x[q])
            if d != 0.0:
                x[q] += d
                _subtract(-d, G[q, :k], g[:k])


@kernel()
def _finish(G, h, x, g, L, step, free):
    """Go towards the minimiser over the unknowns that are not 0, and stop those that become 0.

    All of them at once if that lowers the objective; otherwise all unknowns stop with the first.
    """
    size = _factor(G, x, g, L, step, free)
    for r in range(size - 1, -1, -1):
        step[r] /= L[r, r]
        _subtract(step[r], L[r, :r], step[:r])
    # Twice the objective is x . (g - h). The factor's first row has done its duty.
    before, old = _dot(x, g) - _dot(x, h), L[0]
    length, last = 1.0, -1
    for r in range(size):
        q = free[r]
        old[r] = x[q]
        if x[q] + length * step[r] < 0.0:
            length, last = -x[q] / step[r], r
        x[q] = max(x[q] + step[r], G.dtype.type(0.0))
    _set_gradient(G, h, x, g)
    if last >= 0 and not _dot(x, g) - _dot(x, h) < before:
        for r in range(size):
            x[free[r]] = max(old[r] + G.dtype.type(length) * step[r], G.dtype.type(0.0))
        x[free[last]] = 0.0
        _set_gradient(G, h, x, g)


@kernel()
def _set_gradient(G, h, x, g):
    for q in range(x.size):
        g[q] = _dot(G[q, : x.size], x) - h[q]


@kernel()
def _factor(G, x, g, L, step, free):
    """Factor ``L L^T`` the rows and columns of G where x is not 0, and solve ``L step = -g``.

    Returns how many those are, or 0 if G has not full rank there. `free` lists them.
    """
    size, top = 0, 0.0
    for q in range(x.size):
        if x[q] > 0.0:
            free[size] = q
            size += 1
            top = max(top, G[q, q])
    floor = 4.0 * x.size * np.finfo(G.dtype).eps * top
    for r in range(size):
        q = free[r]
        for c in range(r):
            L[r, c] = (G[q, free[c]] - _dot(L[r, :c], L[c, :c])) / L[c, c]
        pivot = G[q, q] - _dot(L[r, :r], L[r, :r])
        if not pivot > floor:
            return 0
        L[r, r] = np.sqrt(pivot)
        step[r] = (-g[q] - _dot(L[r, :r], step[:r])) / L[r, r]
    return size


# Loops over slices in functions of their own are turned into vector instructions.


@kernel(fastmath=REDUCE)
def _dot(x, y):
    total = x.dtype.type(0.0)
    for q in range(x.size):
        total += x[q] * y[q]
    return total


@kernel(fastmath=REDUCE)
def _subtract(factor, x, y):
    for q in range(x.size):
        y[q] -= factor * x[q]
