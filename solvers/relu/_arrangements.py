"""All gates of samples of low rank."""

import numpy as np

from .._core.arrays import Ingest, to_numpy
from .._core.validation import check_array, check_count
from ._gates import Patterns, count_arrangements_bound

# Sines of angles below which two rows count as parallel.
_PARALLEL = 1e-12
_EPS = np.finfo(np.float64).eps


def enumerate_arrangements(X, *, max_cells=200_000):
    r"""Return every gate :math:`1[X u \ge 0]` whose cone has an interior.

    The hyperplanes :math:`x_k^T u = 0` cut space into cells; each is a gate. The closed cells
    cover space, so that training over them is training over all networks.

    Parameters
    ----------
    X : array, shape (n, d)
        The samples, of low rank: there are up to :math:`2 \sum_{k < r} \binom{n - 1}{k}` cells.
    max_cells : int, default 200_000
        Refuse to list more cells than that.

    Returns
    -------
    Gates
        With `vectors` well inside the cells. The gate that is closed for all samples is left
        out: its neurons do nothing.

    Raises
    ------
    TypeError
        If `X` is no dense array of real numbers.
    ValueError
        If the number of cells may exceed `max_cells`.

    Notes
    -----
    Every cell touches one of the hyperplanes in a cell of the arrangement that the others cut
    into that hyperplane. The cells are thus found from arrangements of one dimension less, and
    these, in the end, by sorting angles; no linear programme is solved.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> X = np.random.default_rng(0).standard_normal((9, 3))
    >>> len(relu.enumerate_arrangements(X)), relu.count_arrangements_bound(9, 3)
    (74, 74)
    """
    io = Ingest(sparse_hint={"X": "use X.toarray()"}, X=X)
    X = to_numpy(check_array(io, "X", ndim=2))
    return arrangements(X, check_count(max_cells, "max_cells", minimum=1))


def arrangements(X, max_cells=200_000):
    """Return the gates of host rows X, in a fixed order."""
    rows, basis = essential(X)
    most = count_arrangements_bound(max(len(rows), 1), max(rows.shape[1], 1))
    if most > max_cells:
        raise ValueError(
            f"`X` has {len(rows)} directions of rank {rows.shape[1]} and so up to {most:,} cells; "
            f"expected at most max_cells = {max_cells:,}"
        )
    found, points = Patterns(X), basis @ half_cells(rows)
    found.add(np.concatenate([points, -points], axis=1))
    return found.gates()


def essential(X):
    """Return the directions of rows of X in coordinates of their span, and a basis of it.

    Rows come back with length one, none zero and no two parallel; ``rows @ basis.T`` are
    directions in the space of X.
    """
    X = X.astype(np.float64)
    # Scaled to their largest entry first: squares of tiny rows would vanish.
    top = abs(X).max(axis=1, initial=0.0)
    return _in_span(X[top > 0] / top[top > 0, None])


def _in_span(rows):
    rows = _distinct(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    _, s, Vt = np.linalg.svd(rows, full_matrices=False)
    basis = Vt[s > max(rows.shape) * _EPS * s.max(initial=0.0)].T
    rows = rows @ basis
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), basis


def _distinct(rows):
    """Return rows of length one without those parallel to another one."""
    # Parallel rows are neighbours by a key that does not see their sign.
    key = abs(rows @ np.random.default_rng(0).standard_normal(rows.shape[1]))
    order = np.argsort(key, kind="stable")
    key, rows = key[order], rows[order]
    lag = 1
    while lag < len(rows) and (near := key[lag:] - key[:-lag] <= 10 * _PARALLEL).any():
        a, b = rows[:-lag], rows[lag:]
        sine = np.linalg.norm(b - (a * b).sum(axis=1, keepdims=True) * a, axis=1)
        new = np.r_[np.ones(lag, dtype=bool), ~(near & (sine <= _PARALLEL))]
        if new.all():
            lag += 1
        key, rows = key[new], rows[new]
    return rows


def half_cells(rows):
    """Return a point in every cell of a central arrangement, one of each pair of opposites.

    Parameters
    ----------
    rows : array, shape (n, r)
        Normals of length one and of rank r, no two parallel.

    Returns
    -------
    array, shape (r, P / 2)
    """
    r = rows.shape[1]
    if r < 2:
        return np.ones((r, 1))
    if r == 2:
        return _between_lines(rows)
    # Up to rank 3 every cell is found beside each of its facets. Above, that would repeat too
    # much: hyperplanes come one after the other, and each splits the cells that it meets.
    before = [np.arange(len(rows)) != k if r == 3 else slice(k) for k in range(len(rows))]
    beside = [_beside(rows, k, rows[others]) for k, others in enumerate(before)]
    points = np.concatenate(beside, axis=1)
    bits = np.concatenate([np.packbits(rows @ p > 0, axis=0).T for p in beside])
    keys = np.ascontiguousarray(bits).view(f"V{bits.shape[1]}")[:, 0]
    _, cell = np.unique(keys, return_inverse=True)
    # The mean of points near several facets is far from all of them.
    mean = np.stack([np.bincount(cell, weights=p) for p in points])
    return mean / np.linalg.norm(mean, axis=0)


def _between_lines(rows):
    angle = np.sort(np.arctan2(rows[:, 0], -rows[:, 1]) % np.pi)
    middle = angle + 0.5 * np.diff(angle, append=angle[0] + np.pi)
    return np.stack([np.cos(middle), np.sin(middle)])


def _beside(rows, k, others):
    """Return points on both sides of each cell into which others cut hyperplane k."""
    normal = rows[k]
    plane = np.linalg.qr(normal[:, None], mode="complete")[0][:, 1:]
    lines, basis = _in_span(others @ plane)
    facets = plane @ (basis @ half_cells(lines))
    # Half of the way to the first of the others.
    with np.errstate(divide="ignore"):
        room = abs(others @ facets) / abs(others @ normal)[:, None]
    step = np.minimum(0.5 * room.min(axis=0, initial=2.0), 1.0) * normal[:, None]
    points = np.concatenate([facets + step, facets - step], axis=1)
    # One of each pair of opposites: the one on the positive side of the first hyperplane.
    return points * (np.where(rows[0] @ points > 0, 1.0, -1.0) / np.linalg.norm(points, axis=0))
