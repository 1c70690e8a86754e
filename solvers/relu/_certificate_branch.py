r"""The longest neuron by branch and bound: ``max z^T (X u)_+`` over u of length 1.

A node is a simplicial cone, given by its rays. Samples whose rays are all on one side are linear
on it; of the others those with z > 0 are at most the chord between the rays, and those with z < 0,
which are concave, at most any of their tangents at zero.
"""

import itertools

import numpy as np

from ._cones import Problems

_EPS = np.finfo(np.float64).eps
# Nodes that are split together.
_TOGETHER = 256
# What counts as zero, for rows and rays of length 1.
_ZERO = 1e-13


def longest_neuron(X, z, found, *, work, accuracy=1e-9):
    """Return a bound of ``z^T (X u)_+`` over u of length 1.

    Parameters
    ----------
    X : array, shape (n, r)
        Samples of full rank r, a small one.
    z : array, shape (n,)
    found : float
        What some neuron gives: nodes that promise no more, up to `accuracy`, are done.
    work : float
        Products of samples and rays after which the search ends with what is proved by then.
    """
    n, r = X.shape
    goal = found * (1.0 + accuracy)
    start = np.array([np.diag(signs) for signs in itertools.product((1.0, -1.0), repeat=r)])
    rays, bound, cut = _open(X, z, start, np.inf, goal)
    for _ in range(int(work / (_TOGETHER * n * r))):
        # Samples that part a node's rays leave room for a better bound.
        parted = np.flatnonzero(cut[:, 0] >= 0)
        if not len(parted) or bound[parted].max() < bound.max():
            break
        first = parted[np.argsort(-bound[parted], kind="stable")[:_TOGETHER]]
        # Where halves are so thin that rounding spoils their bounds, the parent's is left.
        known = np.tile(bound[first], 2)
        children = _open(X, z, _split(X, rays[first], cut[first]), known, goal)
        rest = np.ones(len(bound), dtype=bool)
        rest[first] = False
        rays = np.concatenate([rays[rest], children[0]])
        bound = np.concatenate([bound[rest], children[1]])
        cut = np.concatenate([cut[rest], children[2]])
    lengths = float(abs(z) @ np.linalg.norm(X, axis=1))
    return float(max(bound.max(initial=0.0), goal)) + (4 * _ZERO + n * _EPS) * lengths


def _open(X, z, rays, known, goal):
    """Return the nodes that may hold a longer neuron, their bounds and next cuts."""
    bound, cut = _bounds(X, z, rays)
    bound = np.fmin(np.where(np.isnan(bound), np.inf, bound), known)
    left = bound > goal
    return rays[left], bound[left], cut[left]


def _split(X, rays, cut):
    """Return both halves of nodes, parted where the sample of `cut` changes its sign."""
    at = np.arange(len(rays))
    k, i, j = cut.T
    a = abs((X[k] * rays[at, i]).sum(axis=1))
    b = abs((X[k] * rays[at, j]).sum(axis=1))
    middle = b[:, None] * rays[at, i] + a[:, None] * rays[at, j]
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    halves = rays.copy(), rays.copy()
    halves[0][at, i], halves[1][at, j] = middle, middle
    return np.concatenate(halves)


def _bounds(X, z, rays):
    """Return the nodes' bounds, and for each the sample and two rays to be parted next."""
    T = rays @ X.T
    T[abs(T) <= _ZERO * np.linalg.norm(X, axis=1)] = 0.0
    mixed = (T.max(axis=1) > 0) & (T.min(axis=1) < 0)
    on = (T.min(axis=1) >= 0) & ~mixed
    convex, concave = mixed & (z > 0), mixed & (z < 0)
    # The chord of what is convex is linear in the coordinates along the rays.
    chord = (np.maximum(T, 0.0) * (convex * z)[:, None]).sum(axis=2)
    inverse = np.linalg.inv(rays)
    along = (inverse @ chord[..., None])[..., 0]
    # A tangent of what is concave: that of the node's middle.
    tangent = concave & (T.sum(axis=1) > 0)
    linear = ((on | tangent) * z) @ X + along
    walls = np.swapaxes(inverse, 1, 2)
    walls = walls / np.linalg.norm(walls, axis=2, keepdims=True)
    # Rounding: rays behind their walls, and a linear function that misses its values at rays.
    spread = abs(inverse).sum(axis=(1, 2))
    behind = np.maximum(-(walls @ np.swapaxes(rays, 1, 2)), 0.0).max(axis=(1, 2)) * spread
    missed = abs(chord - (rays @ along[..., None])[..., 0]).max(axis=1) * spread
    bound = _length(linear, walls, behind)
    kinked = _kinked(X, z, on, concave, along, walls, behind)
    return np.fmin(bound, kinked) + missed, _next(T, z, convex, concave)


def _length(linear, walls, behind):
    """Return bounds of vectors along cones with these walls."""
    nearest = _nearest(linear, walls)
    return np.linalg.norm(nearest.points(), axis=1) + nearest.alpha.sum(axis=1) * behind


def _nearest(linear, walls):
    size = np.linalg.norm(linear, axis=1)
    unit = np.where(size > 0, size, 1.0)
    problems = Problems(linear / unit[:, None], 0.0)
    problems.add(walls)
    problems.solve(np.zeros(len(linear)))
    problems.F, problems.alpha = problems.F * unit[:, None], problems.alpha * unit[:, None]
    return problems


def _kinked(X, z, on, concave, along, walls, behind):
    """Return bounds with the tangents of a maximum at the kinks of all concave samples.

    Where there are more kinks than a maximum has room for, the bound is infinite.
    """
    r = X.shape[1]
    bound = np.full(len(on), np.inf)
    few = np.flatnonzero((concave.sum(axis=1) > 0) & (concave.sum(axis=1) < r))
    if not len(few):
        return bound
    which = np.argsort(~concave[few], axis=1, kind="stable")[:, : r - 1]
    real = np.take_along_axis(concave[few], which, axis=1)
    rows = X[which] * real[..., None]
    length = np.linalg.norm(rows, axis=2, keepdims=True)
    rows = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    linear = (on[few] * z) @ X + along[few]
    problems = _nearest(linear, np.concatenate([rows, -rows, walls[few]], axis=1))
    # The multipliers of both sides of a kink tell its slope, which a tangent keeps within z.
    slope = problems.alpha[:, : r - 1] - problems.alpha[:, r - 1 : 2 * r - 2]
    slope = np.clip(slope, (z[which] * real) * length[..., 0], 0.0)
    linear = linear + (slope[:, None] @ rows)[:, 0]
    bound[few] = _length(linear, walls[few], behind[few])
    return bound


def _next(T, z, convex, concave):
    """Return the sample, and the rays on its two sides, whose chord costs most: (B, 3)."""
    high, low = T.argmax(axis=1), T.argmin(axis=1)
    a, b = T.max(axis=1), -T.min(axis=1)
    cost = np.divide(a * b, a + b, out=np.zeros_like(a), where=a + b > 0) * abs(z)
    # Convex samples first: with no more of them than kinks, bounds are exact.
    some = convex.any(axis=1, keepdims=True)
    cost = np.where(np.where(some, convex, concave), cost, -1.0)
    k = cost.argmax(axis=1)
    at = np.arange(len(T))
    cut = np.stack([k, high[at, k], low[at, k]], axis=1)
    cut[cost[at, k] <= 0] = -1
    return cut
