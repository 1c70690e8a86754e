"""Weights of a gate as a difference of two vectors in the gate's cone.

Host arrays in float64, one gate at a time; rows of ``A = E X`` must not be negative on a cone.
"""

import numpy as np
from scipy.optimize import nnls

# Rounds in which both norms are bounded by parabolas, and the progress at which they end.
_ROUNDS, _PROGRESS = 200, 1e-10
# Rows that enter one least-distance problem at a time, at least.
_ROWS = 8


def interior(A):
    """Return the shortest g with ``A g >= 1``, or None where there is none."""
    return nearest(A, np.ones(len(A)), np.zeros(A.shape[1]))


def parts(A, u, g, how):
    """Return v and w in the cone of A with ``v - w = u``, or None where there are none.

    `g` is a point inside the cone, or None. "minimal" makes ``|v| + |w|`` as small as it gets,
    "shift" moves u along g until it is inside.
    """
    length = np.linalg.norm(A, axis=1)
    # Rows of zeros hold for every vector.
    A = A[length > 0] / length[length > 0, None]
    if (A @ u >= 0).all():
        return u, np.zeros_like(u)
    if (A @ -u >= 0).all():
        return np.zeros_like(u), -u
    if g is None or not (A @ g > 0).all():
        g = interior(A)
    shifted = None if g is None else (_step(A, u, g) * g)
    if how == "shift":
        return None if shifted is None else (u + shifted, shifted)
    w = _shortest(A, u, shifted)
    if w is None:
        return None
    # What rounding left outside goes inside together.
    if g is not None:
        w = w + max(_step(A, w, g), _step(A, u + w, g)) * g
    short = min((A @ w).min(), (A @ (u + w)).min())
    return (u + w, w) if short >= -1e-12 * abs(w).max() else None


def _step(A, u, g):
    """Return the least t >= 0 for which ``u + t g`` is in the cone."""
    return max(0.0, float((-(A @ u) / (A @ g)).max()))


def _shortest(A, u, w):
    """Return the w with the smallest ``|u + w| + |w|`` among those with both in the cone.

    A norm lies below ``(|x|^2 / s + s) / 2``, with equality at ``s = |x|``: the sum of two such
    parabolas has its minimum where a nearest point of a polyhedron is.
    """
    low = np.maximum(0.0, -(A @ u))
    w = nearest(A, low, -0.5 * u) if w is None else w
    if w is None:
        return None
    value = np.linalg.norm(u + w) + np.linalg.norm(w)
    rows = np.zeros(len(A), dtype=bool)
    for _ in range(_ROUNDS):
        a, b = (1.0 / max(np.linalg.norm(x), 1e-12 * value) for x in (u + w, w))
        new = nearest(A, low, -a / (a + b) * u, rows)
        if new is None:
            break
        before, value = value, np.linalg.norm(u + new) + np.linalg.norm(new)
        w = new
        if value >= (1.0 - _PROGRESS) * before:
            break
    return w


def nearest(A, low, x, rows=None):
    """Return the point with ``A y >= low`` nearest to x, or None where there is none.

    Rows of A have length 1. `rows` marks the constraints that count at first; those that are
    violated join, in place.
    """
    rows = np.zeros(len(A), dtype=bool) if rows is None else rows
    y = x
    for _ in range(len(A)):
        short = A @ y - low
        worst = short.min(initial=0.0)
        if worst >= -1e-13 * max(abs(low).max(), abs(y).max()):
            break
        outside = np.flatnonzero((short < 0.1 * worst) & ~rows)
        if not outside.size:
            break
        rows[outside[np.argsort(short[outside])[: max(_ROWS, A.shape[1])]]] = True
        y = _least_distance(A[rows], low[rows], x)
        if y is None:
            return None
    return y


def _least_distance(A, low, x):
    """Return the point with ``A y >= low`` nearest to x, by non-negative least squares."""
    need = low - A @ x
    scale = max(abs(need).max(), 1e-300)
    E = np.vstack([A.T, need / scale])
    goal = np.zeros(len(E))
    goal[-1] = 1.0
    try:
        r, _ = nnls(E, goal, maxiter=30 * len(need))
    except RuntimeError:
        return None
    rest = E @ r - goal
    # No residual: the rows contradict each other.
    if rest[-1] >= -1e-13:
        return None
    return x - scale * rest[:-1] / rest[-1]
