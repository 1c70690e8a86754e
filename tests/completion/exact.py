"""Planted matrices and dense formulas for the tests of exact recovery; imports no library code."""

import numpy as np


def planted(m, n, rank, oversampling, seed, cond=1.0, noise=0.0):
    """Entries (rows, cols, vals) of a matrix with entries of size 1, and the matrix."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((size, rank)))[0] for size in (m, n))
    s = np.geomspace(cond, 1.0, rank)
    X = (U * (s * np.sqrt(m * n) / np.linalg.norm(s))) @ V.T
    seen = np.zeros(m * n, bool)
    size = min(m * n, int(oversampling * rank * (m + n - rank)))
    seen[rng.choice(m * n, size, replace=False)] = True
    seen = seen.reshape(m, n)
    # No row or column is left with too few entries to be determined.
    for i in np.flatnonzero(seen.sum(axis=1) < rank + 2):
        seen[i, rng.choice(n, min(2 * rank + 2, n), replace=False)] = True
    for j in np.flatnonzero(seen.sum(axis=0) < rank + 2):
        seen[rng.choice(m, min(2 * rank + 2, m), replace=False), j] = True
    rows, cols = np.nonzero(seen)
    return (rows, cols, X[rows, cols] + noise * rng.standard_normal(rows.size)), X


def dense(res):
    """The matrix without biases."""
    return (res.U * res.s) @ res.V.T


def error(X, Y):
    """Distance relative to Y."""
    return np.linalg.norm(X - Y) / np.linalg.norm(Y)


def least_squares(rows, cols, vals, weights, V):
    """Best U for given V, row by row, by `numpy.linalg.lstsq`."""
    U = np.zeros((rows.max() + 1, V.shape[1]))
    for i in range(U.shape[0]):
        here, root = rows == i, np.sqrt(weights[rows == i])
        U[i] = np.linalg.lstsq(root[:, None] * V[cols[here]], root * vals[here], rcond=None)[0]
    return U


def slope(res, rows, cols, vals, weights):
    """Norm of the weighted residual's projection on the tangent space, relative to the values."""
    R = np.zeros((res.U.shape[0], res.V.shape[0]))
    R[rows, cols] = weights * (dense(res)[rows, cols] - vals)
    left = res.U @ (res.U.T @ R)
    projected = left + (R - left) @ res.V @ res.V.T
    return np.linalg.norm(projected) / np.linalg.norm(weights * vals)
