"""Numba kernels of non-negative factors; `gpu.py` launches their CUDA twins."""

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import REDUCE, kernel

# A row is left when a sweep moves it by less than this part of the first.
_RELAXED = 0.05


def nonnegative_rows(G, R, l1, sweeps, X):
    """Move each row of X (n, k) towards the minimiser over ``x >= 0`` of its own problem.

    That is ``x^T G x / 2 - R_i x + l1 sum(x)``; `sweeps` is the largest number of turns over the
    row's unknowns.
    """
    strips = threads.strips(sweeps * X.size * X.shape[1])
    if strips == 1:
        _rows(0, X.shape[0], G, R, l1, sweeps, X)
        return
    where = np.linspace(0, X.shape[0], strips + 1).astype(np.int64)
    with threads.guard():
        _rows_in_strips(where, G, R, l1, sweeps, X)


@kernel(parallel=True)
def _rows_in_strips(where, G, R, l1, sweeps, X):
    for t in prange(where.size - 1):
        _rows(where[t], where[t + 1], G, R, l1, sweeps, X)


@kernel()
def _rows(first, last, G, R, l1, sweeps, X):
    k = X.shape[1]
    g = np.empty(k, X.dtype)
    for i in range(first, last):
        x = X[i]
        for q in range(k):
            g[q] = l1 - R[i, q]
        for q in range(k):
            if x[q] != 0.0:
                _add(x[q], G[q], g)
        start = 0.0
        for turn in range(sweeps):
            moved = _turn(G, x, g)
            if turn == 0:
                start = moved
            if moved <= _RELAXED * _RELAXED * start:
                break


@kernel()
def _turn(G, x, g):
    """Minimise over each unknown of a row in turn; return by how much the objective fell."""
    gain = 0.0
    for q in range(x.size):
        if G[q, q] > 0.0:
            d = max(-g[q] / G[q, q], -x[q])
            if d != 0.0:
                gain -= d * (g[q] + 0.5 * d * G[q, q])
                x[q] += d
                _add(d, G[q], g)
        elif g[q] > 0.0:
            # Only the penalty depends on it.
            gain += x[q] * g[q]
            x[q] = 0.0
    return gain


@kernel(fastmath=REDUCE)
def _add(factor, x, y):
    for q in range(x.size):
        y[q] += factor * x[q]
