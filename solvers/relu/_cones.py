"""The cone of a gate: how long a vector is along it, and the nearest point inside.

Host arrays in float64, one gate at a time; rows of ``A = E X`` must not be negative.
"""

import numpy as np
from scipy.optimize import nnls


def multipliers(A, f):
    """Return the alpha >= 0 with the smallest ``||f + A^T alpha||``, as `nnls` finds it."""
    try:
        alpha, _ = nnls(A.T, -f, maxiter=10 * len(A))
    except RuntimeError:
        return np.zeros(len(A))
    # What it returns may be nonsense where the problem is degenerate.
    better = np.linalg.norm(f + A.T @ alpha) <= np.linalg.norm(f)
    return alpha if better else np.zeros(len(A))


def project(A, v, g=None):
    """Return a point of the cone near v: the projection, then inside by a trace of g."""
    u = v + A.T @ multipliers(A, v)
    short = A @ u
    if (short >= 0).all():
        return u
    if g is not None:
        room = A @ g
        if (room > 0).all():
            return u + max((-short / room).max(), 0.0) * g
    return u if short.min() >= -1e-12 * (1 + abs(u).max()) else np.zeros_like(v)
