"""Passes over the cost that find edges by their reduced costs ``C_ij - f_i - g_j``."""

import numpy as np

from ._problem import row_blocks

# Up to this many costs every edge takes part at once.
SMALL = 10_000
# Edges for each point of the longer side: to begin with, and those that one pricing may add.
EDGES, MORE = 30, 20


def c_transform(be, C, g):
    """Return the largest row potentials that are feasible with `g`; 0 where there is no edge."""
    xp = be.xp
    f = xp.empty(C.shape[0])
    for rows in row_blocks(be, C):
        f[rows] = xp.subtract(C[rows], g, dtype=np.float64).min(axis=1)
    return xp.where(xp.isfinite(f), f, 0.0)


def column_transform(be, C, f):
    """Return the largest column potentials that are feasible with `f`; 0 where there is no edge.

    Rows with ``-inf`` bind nobody.
    """
    xp = be.xp
    g = xp.full(C.shape[1], np.inf)
    for rows in row_blocks(be, C):
        block = xp.subtract(C[rows], f[rows, None], dtype=np.float64)
        g = xp.minimum(g, block.min(axis=0))
    return xp.where(xp.isfinite(g), g, 0.0)


def support(be, C, f, g):
    """Collect the edges of smallest reduced cost, some `EDGES` for each point.

    Returns
    -------
    array
        Row minima of ``C - g``.
    tuple of numpy.ndarray
        The edges: tail, head, reduced cost.
    """
    xp, (n, m) = be.xp, C.shape
    wanted = min(1.0, EDGES / min(n, m)) if C.size > SMALL else 1.0
    limit = np.inf
    if wanted < 0.5:
        step = max(1, n // 64)
        sample = (xp.subtract(C[::step], g, dtype=np.float64) - f[::step, None]).ravel()
        at = int(wanted * sample.size)
        limit = be.host(xp.partition(sample, at)[at])
    low, found = xp.empty(n), []
    for rows in row_blocks(be, C):
        R = xp.subtract(C[rows], g, dtype=np.float64)
        low[rows] = R.min(axis=1)
        R -= f[rows, None]
        near = xp.flatnonzero((limit >= R) & (np.inf > R))
        if wanted < 0.5:
            # Of costs with ties far too many may be equally good.
            near = near[:: int(near.size / (8.0 * wanted * R.size)) + 1]
        found.append((rows.start + near // m, near % m, R.ravel()[near]))
    return low, _joined(be, found)


def violations(be, C, f, g, tol):
    """Collect edges whose reduced cost is negative, a few of the worst for each row.

    Returns
    -------
    array
        Row minima of ``C - g``.
    tuple of numpy.ndarray
        The edges: tail, head, cost.
    """
    xp = be.xp
    low, found = xp.empty(C.shape[0]), []
    for rows in row_blocks(be, C):
        block = C[rows]
        R = xp.subtract(block, g, dtype=np.float64)
        low[rows] = R.min(axis=1)
        worse = xp.flatnonzero(low[rows] < f[rows] - tol)
        if worse.size == 0:
            continue
        R = R[worse] - f[rows][worse, None]
        which, head = _worst(xp, R, tol)
        tail = worse[which]
        found.append((rows.start + tail, head, block[tail, head].astype(np.float64)))
    return low, _joined(be, found)


def _worst(xp, R, tol):
    """Return rows and columns of entries below -tol: all of them, or `MORE` in a row of many."""
    negative = xp.flatnonzero(-tol > R)
    if negative.size <= MORE * R.shape[0]:
        return negative // R.shape[1], negative % R.shape[1]
    # The smallest of each part of a row, for those of all the row would often be neighbours.
    every, width = xp.arange(R.shape[0]), -(-R.shape[1] // MORE)
    tail, head = [], []
    for first in range(0, R.shape[1], width):
        least = first + R[:, first : first + width].argmin(axis=1)
        some = xp.flatnonzero(R[every, least] < -tol)
        tail.append(some)
        head.append(least[some])
    return xp.concatenate(tail), xp.concatenate(head)


def _joined(be, found):
    """Return lists of edges as three arrays on the host."""
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    columns = (be.host(be.xp.concatenate(column)) for column in zip(*found, strict=True))
    return tuple(np.atleast_1d(column) for column in columns)
