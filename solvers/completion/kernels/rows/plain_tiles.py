"""What `tiles` computes, in NumPy: for runs without the compiler, and for tests."""

import numpy as np

_ROWS = 8


def apart():
    """Do nothing: only compiled functions can be inlined."""


def add_products(V, first, last, row, col, stop, G):
    """Add ``V[first:last].T @ V[first:last]`` to G, in its block of rows from `row`."""
    G[row : row + _ROWS, col:stop] += _products(V[first:last], row, col, stop)


def subtract_products(V, first, last, row, col, stop, G):
    """Subtract the same."""
    G[row : row + _ROWS, col:stop] -= _products(V[first:last], row, col, stop)


def set_products(V, first, last, row, col, stop, G):
    """Replace that part of G by the same."""
    G[row : row + _ROWS, col:stop] = _products(V[first:last], row, col, stop)


def _products(V, row, col, stop):
    return V[:, row : row + _ROWS].T @ V[:, col:stop]


def residual_pass(V, rows, x, target, out):
    """Add ``V^T r`` to `out` for ``r = V x - target``; return ``r^T r``."""
    r = V[:rows] @ x - target[:rows]
    out += V[:rows].T @ r
    return np.float64(r @ r)


def normal_pass(V, rows, x, out):
    """Add ``V^T V x`` to `out`; return ``|V x|^2``."""
    return residual_pass(V, rows, x, np.zeros(rows, V.dtype), out)
