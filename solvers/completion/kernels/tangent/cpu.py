r"""Numba kernels of the map J and its adjoint; `gpu.py` launches their CUDA twins.

At a matrix with column and row spaces U and V, ``J(A, B)`` holds the observed entries of
``A V^T + U B^T``. One product with ``J^T W J`` is `jac_rows`, which forms them and the first half
of the adjoint at one gather, followed by `jac_cols`.
"""

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import REDUCE, kernel
from ..strips import cuts


def jac_rows(ptr, idx, weight, U, V, A, B, y, gA):
    """Set ``y_p = w_p (A_i . V_j + U_i . B_j)`` for each entry, and ``gA_i = sum_p y_p V_j``.

    `weight` may be empty: all are one.
    """
    with threads.guard():
        _jac_rows(cuts(ptr, 3 * U.shape[1]), ptr, idx, weight, U, V, A, B, y, gA)


@kernel(parallel=True, fastmath=REDUCE)
def _jac_rows(where, ptr, idx, weight, U, V, A, B, y, gA):
    k = U.shape[1]
    for t in prange(where.size - 1):
        for i in range(where[t], where[t + 1]):
            a, u, g = A[i], U[i], gA[i]
            g[:] = 0.0
            p, end = ptr[i], ptr[i + 1]
            # Four entries at a time: g is read and written once, and sums need not wait.
            while p + 4 <= end:
                v0, v1, v2, v3 = V[idx[p]], V[idx[p + 1]], V[idx[p + 2]], V[idx[p + 3]]
                b0, b1, b2, b3 = B[idx[p]], B[idx[p + 1]], B[idx[p + 2]], B[idx[p + 3]]
                y0 = y1 = y2 = y3 = y.dtype.type(0.0)
                for q in range(k):
                    y0 += a[q] * v0[q] + u[q] * b0[q]
                    y1 += a[q] * v1[q] + u[q] * b1[q]
                    y2 += a[q] * v2[q] + u[q] * b2[q]
                    y3 += a[q] * v3[q] + u[q] * b3[q]
                if weight.size > 0:
                    y0 *= weight[p]
                    y1 *= weight[p + 1]
                    y2 *= weight[p + 2]
                    y3 *= weight[p + 3]
                y[p], y[p + 1], y[p + 2], y[p + 3] = y0, y1, y2, y3
                for q in range(k):
                    g[q] += y0 * v0[q] + y1 * v1[q] + y2 * v2[q] + y3 * v3[q]
                p += 4
            for last in range(p, end):
                v, b = V[idx[last]], B[idx[last]]
                total = y.dtype.type(0.0)
                for q in range(k):
                    total += a[q] * v[q] + u[q] * b[q]
                if weight.size > 0:
                    total *= weight[last]
                y[last] = total
                for q in range(k):
                    g[q] += total * v[q]


def jac_cols(ptr, idx, perm, y, U, gB):
    """Set ``gB_j = sum_p y_p U_i`` for entries by column whose `y` are in row order."""
    with threads.guard():
        _jac_cols(cuts(ptr, U.shape[1]), ptr, idx, perm, y, U, gB)


@kernel(parallel=True, fastmath=REDUCE)
def _jac_cols(where, ptr, idx, perm, y, U, gB):
    k = U.shape[1]
    for t in prange(where.size - 1):
        for j in range(where[t], where[t + 1]):
            gB[j] = 0.0
            for p in range(ptr[j], ptr[j + 1]):
                i, value = idx[p], y[perm[p]]
                for q in range(k):
                    gB[j, q] += value * U[i, q]


def block_inverse(ptr, idx, weight, V, shared, ridge, out):
    """Set ``out_i = (shared + sum_p w_p V_j V_j^T + diag(ridge_i))^-1``.

    `weight` and `shared` may be empty. Directions whose pivots drown in rounding get zero rows
    and columns, so `out` is always positive semi-definite and finite.
    """
    with threads.guard():
        where = cuts(ptr, V.shape[1] ** 2)
        _block_inverse(where, ptr, idx, weight, V, shared, ridge, out)


@kernel(parallel=True, fastmath=REDUCE)
def _block_inverse(where, ptr, idx, weight, V, shared, ridge, out):
    k = V.shape[1]
    for t in prange(where.size - 1):
        L = np.empty((k, k), out.dtype)
        for i in range(where[t], where[t + 1]):
            for q in range(k):
                for r in range(q + 1):
                    L[q, r] = shared[q, r] if shared.size > 0 else 0.0
                L[q, q] += ridge[i, q]
            for p in range(ptr[i], ptr[i + 1]):
                j = idx[p]
                w = weight[p] if weight.size > 0 else out.dtype.type(1.0)
                for q in range(k):
                    c = w * V[j, q]
                    for r in range(q + 1):
                        L[q, r] += c * V[j, r]
            _invert_triangle(L)
            for q in range(k):
                for r in range(q + 1):
                    total = out.dtype.type(0.0)
                    for c in range(q, k):
                        total += L[c, q] * L[c, r]
                    out[i, q, r] = total
                    out[i, r, q] = total


@kernel(fastmath=REDUCE)
def _invert_triangle(L):
    """Replace the lower half of a symmetric matrix by the inverse of its Cholesky factor."""
    k = L.shape[0]
    for q in range(k):
        floor = 4.0 * k * np.finfo(L.dtype).eps * L[q, q]
        for r in range(q):
            total = L[q, r]
            for c in range(r):
                total -= L[q, c] * L[r, c]
            # Diagonal entries hold the reciprocal of the factor's, or zero.
            L[q, r] = total * L[r, r]
        total = L[q, q]
        for c in range(q):
            total -= L[q, c] * L[q, c]
        L[q, q] = 1.0 / np.sqrt(total) if total > floor else 0.0
    for r in range(k):
        for q in range(r + 1, k):
            total = L.dtype.type(0.0)
            for c in range(r, q):
                total -= L[q, c] * L[c, r]
            L[q, r] = total * L[q, q]


def block_times(blocks, x, out):
    """Set ``out_i = blocks_i x_i``."""
    with threads.guard():
        strips = threads.strips(blocks.size)
        _block_times(strips, blocks, x, out)


@kernel(parallel=True, fastmath=REDUCE)
def _block_times(strips, blocks, x, out):
    m, k = x.shape
    for t in prange(strips):
        for i in range(m * t // strips, m * (t + 1) // strips):
            for q in range(k):
                total = out.dtype.type(0.0)
                for r in range(k):
                    total += blocks[i, q, r] * x[i, r]
                out[i, q] = total
