r"""Numba kernels that solve the small least-squares problems of alternating minimisation.

Row i of the entries asks for the minimiser over x of

.. math:: \tfrac{1}{2} \sum_p w_p (x \cdot B_j + c_j - val_p)^2 + \tfrac{1}{2} x^T S x
          + \tfrac{1}{2} \sum_q D_{iq} x_q^2

where p runs over the row's entries, j is the column of p, c is `offset` and S is `shared` (both
may be empty), and D is ``ridge[i]``. With biases (`offset` not empty) the first column of B is
constant, and that unknown's ridge is `lam_bias`.
"""

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import REDUCE, kernel
from ..cpu import cuts


def solve_rows(ptr, idx, val, weight, B, offset, ridge, lam_bias, shared, A, grad):
    """Set each ``A_i`` to its row's minimiser, by Cholesky factorisation.

    Where it is not unique, the one of smallest norm is taken. `grad` receives the gradients at
    the A that came in.

    Returns
    -------
    square : float
        ``sum_p w_p (A_i . B_j + c_j - val_p)^2`` at the A that came in.
    steps : int
        Steps of an inner solver; 0.
    """
    systems = ptr, idx, val, weight, B, offset, ridge, lam_bias, shared
    return _solved(systems, A, grad, np.empty((0, 0), A.dtype), 0.0, 0)


def cg_rows(ptr, idx, val, weight, B, offset, ridge, lam_bias, shared, A, grad, left, eta, steps):
    """Improve each ``A_i`` by conjugate gradients; as `solve_rows` otherwise.

    A row stops when its gradient is `eta` times as long as with ``A_i = 0``, or after so many
    `steps`. Rows with few entries are solved directly. `left` receives the gradients at the end.
    Returns, beside the weighted square, the number of steps of all rows.
    """
    systems = ptr, idx, val, weight, B, offset, ridge, lam_bias, shared
    return _solved(systems, A, grad, left, eta, steps)


def _solved(systems, A, grad, left, eta, steps):
    ptr, B = systems[0], systems[4]
    squares, counts = np.zeros(A.shape[0]), np.zeros(A.shape[0], np.int64)
    with threads.guard():
        where = cuts(ptr, B.shape[1] * (4 * steps or B.shape[1]))
        _solve_rows(where, *systems, A, grad, left, eta, steps, squares, counts)
    return squares.sum(), int(counts.sum())


@kernel(parallel=True)
def _solve_rows(
    where, ptr, idx, val, weight, B, offset, ridge, lam_bias, shared, A, grad, left, eta, steps,
    squares, counts,
):  # fmt: skip
    k = B.shape[1]
    for t in prange(where.size - 1):
        G, diag = np.empty((k, k), A.dtype), np.empty(k, A.dtype)
        work = np.empty((4, k), A.dtype)
        for i in range(where[t], where[t + 1]):
            diag[:] = ridge[i]
            if offset.size > 0:
                diag[0] = lam_bias
            squares[i] = _system(
                ptr[i], ptr[i + 1], idx, val, weight, B, offset, diag, shared, A[i], G, grad[i]
            )
            if steps > 0 and ptr[i + 1] - ptr[i] >= 3 * k:
                counts[i] = _conjugate(G, A[i], grad[i], left[i], eta, steps, work)
                continue
            if not _correct(G, A[i], grad[i], work):
                # The minimiser of smallest norm is what conjugate gradients reach from zero.
                for q in range(k):
                    total = -grad[i, q]
                    for r in range(k):
                        total += G[q, r] * A[i, r]
                    work[3, q] = -total
                A[i] = 0.0
                _conjugate(G, A[i], work[3], work[3], 1e-15, 4 * k, work)
            if steps > 0:
                left[i] = 0.0


@kernel(fastmath=REDUCE)
def _system(first, last, idx, val, weight, B, offset, diag, shared, x, G, g):
    """Set the Hessian G and the gradient g at x; return the weighted sum of squares."""
    k = x.size
    square = 0.0
    for q in range(k):
        for r in range(k):
            G[q, r] = shared[q, r] if shared.size > 0 else 0.0
        G[q, q] += diag[q]
    for q in range(k):
        g[q] = 0.0
        for r in range(k):
            g[q] += G[q, r] * x[r]
    for p in range(first, last):
        v = B[idx[p]]
        w = weight[p] if weight.size > 0 else v.dtype.type(1.0)
        r = -val[p]
        if offset.size > 0:
            r += offset[idx[p]]
        for q in range(k):
            r += v[q] * x[q]
        square += w * r * r
        for q in range(k):
            g[q] += w * r * v[q]
            for c in range(k):
                G[q, c] += w * v[q] * v[c]
    return square


@kernel(fastmath=REDUCE)
def _correct(G, x, g, work):
    """Subtract ``G^-1 g`` from x; tell whether G had full rank. G keeps its upper half."""
    k = x.size
    diag, y = work[0], work[1]
    top = 0.0
    for q in range(k):
        diag[q] = G[q, q]
        top = max(top, G[q, q])
    floor = top * k * 4.0 * np.finfo(G.dtype).eps
    full = True
    for q in range(k):
        for r in range(q):
            total = G[r, q]
            for c in range(r):
                total -= G[q, c] * G[r, c]
            G[q, r] = total / y[r]
        total = diag[q]
        for c in range(q):
            total -= G[q, c] * G[q, c]
        if not total > floor:
            full = False
            break
        y[q] = np.sqrt(total)
    if not full:
        for q in range(k):
            for r in range(q):
                G[q, r] = G[r, q]
        return False
    d = work[2]
    for q in range(k):
        total = g[q]
        for c in range(q):
            total -= G[q, c] * d[c]
        d[q] = total / y[q]
    for q in range(k - 1, -1, -1):
        total = d[q]
        for c in range(q + 1, k):
            total -= G[c, q] * d[c]
        d[q] = total / y[q]
        x[q] -= d[q]
    return True


@kernel(fastmath=REDUCE)
def _conjugate(G, x, g, left, eta, steps, work):
    """Take CG steps from x, where the gradient is g; return how many."""
    k = x.size
    r, p, Gp = work[0], work[1], work[2]
    goal, rho = 0.0, 0.0
    for q in range(k):
        total = g[q]
        for c in range(k):
            total -= G[q, c] * x[c]
        goal += total * total
        r[q] = g[q]
        p[q] = -r[q]
        rho += r[q] * r[q]
    goal *= eta * eta
    step = 0
    while step < steps and rho > goal:
        curvature = 0.0
        for q in range(k):
            total = G.dtype.type(0.0)
            for c in range(k):
                total += G[q, c] * p[c]
            Gp[q] = total
            curvature += total * p[q]
        if not curvature > 0.0:
            break
        alpha = rho / curvature
        before, rho = rho, 0.0
        for q in range(k):
            x[q] += alpha * p[q]
            r[q] += alpha * Gp[q]
            rho += r[q] * r[q]
        for q in range(k):
            p[q] = rho / before * p[q] - r[q]
        step += 1
    left[:] = r
    return step
