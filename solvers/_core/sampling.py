"""Random places of a matrix, and its entries there: what makes matrices with holes."""

import numpy as np

# Entries that are computed at a time, times the rank.
_BATCH = 1 << 22


def uniform_places(rng, m, n):
    """Return a function that draws numbers ``i * n + j`` of places, all alike."""
    return lambda count: rng.integers(m * n, size=count)


def popular_places(rng, m, n):
    """Return a function that draws numbers of places whose rows and columns follow power laws."""
    row, col = power_law(rng, m, 5.0, 0.6), power_law(rng, n, 20.0, 0.9)
    return lambda count: row(count) * n + col(count)


def power_law(rng, size, shift, exponent):
    """Return a function that draws i below `size` in proportion to (i + shift)^-exponent."""
    share = np.cumsum((np.arange(size) + shift) ** -exponent)
    share /= share[-1]
    return lambda count: np.searchsorted(share, rng.random(count), side="right")


def distinct(rng, draw, size):
    """Return `size` different numbers, ascending, of those that come first from `draw`."""
    places = np.empty(0, np.int64)
    while places.size < size:
        more = draw(int(1.2 * (size - places.size)) + 100)
        places = np.unique(np.concatenate([places, more]))
    return places[some(rng, places.size, size)]


def distinct_uniform(rng, m, n, size):
    """Return the numbers of `size` different places, ascending, any choice as likely."""
    if 2 * size <= m * n:
        return distinct(rng, uniform_places(rng, m, n), size)
    # The last ones would be long in coming: draw those that are left out.
    kept = np.ones(m * n, bool)
    kept[distinct_uniform(rng, m, n, m * n - size)] = False
    return np.flatnonzero(kept)


def some(rng, total, size):
    """Return `size` different numbers below `total`, ascending."""
    return np.sort(rng.permutation(total)[:size])


def topped_up(rng, places, m, n, least, more):
    """Add `more` places to each row and column with fewer than `least`, until there is none."""
    rows, cols = np.divmod(places, n)
    for _ in ("rows", "columns"):
        while (poor := np.flatnonzero(np.bincount(rows, minlength=m) < least)).size:
            added = np.repeat(poor, more) * n + rng.integers(n, size=poor.size * more)
            rows, cols = np.divmod(np.union1d(rows * n + cols, added), n)
        rows, cols, m, n = cols, rows, n, m
    return np.sort(rows * n + cols)


def entries_of(L, R, rows, cols):
    """Return some entries of ``L @ R.T``."""
    out, step = np.empty(rows.size), max(_BATCH // L.shape[1], 1)
    for first in range(0, rows.size, step):
        part = slice(first, first + step)
        np.einsum("pk,pk->p", L[rows[part]], R[cols[part]], out=out[part])
    return out
