"""The best intercept for given coefficients: one number, or one for each class."""

import math

import numpy as np

_STEPS = 60


def fit_intercept(problem, z, slopes):
    """Return by how much the intercept must move from where predictions are z, or None.

    Parameters
    ----------
    problem : GLM
    z : array, shape (n,) or (n, C)
        Predictions.
    slopes : array of the same shape
        Weighted derivatives of the losses there.
    """
    xp, be = problem.xp, problem.be
    g = be.host(slopes.sum(axis=0, dtype=np.float64))
    size = be.host(abs(slopes).sum(axis=0, dtype=np.float64))
    # What rounding leaves of a sum of numbers that cancel.
    limit = 8 * np.finfo(problem.dtype).eps * np.max(size)
    if not np.max(np.abs(g)) > limit:
        return None
    if problem.multinomial:
        return xp.asarray(_many(problem, z, g, limit), problem.dtype)
    return xp.asarray(_one(problem, z, float(g), limit), problem.dtype)


def _one(problem, z, g, limit):
    """Find the root of the slope, which rises with the intercept, by safeguarded Newton steps."""
    be, lo, hi, t, width = problem.be, -math.inf, math.inf, 0.0, 1.0
    for _ in range(_STEPS):
        lo, hi = (lo, t) if g > 0 else (t, hi)
        h = float(be.host(problem.curvatures(z + z.dtype.type(t)).sum(dtype=np.float64)))
        new = t - g / h if h > 0 else math.inf
        if not lo < new < hi or abs(new - t) > width:
            bracketed = hi - lo < math.inf
            new = 0.5 * (lo + hi) if bracketed else t - math.copysign(width, g)
            width *= 2.0
        if new == t:
            break
        t = new
        g = float(be.host(problem.slopes(z + z.dtype.type(t)).sum(dtype=np.float64)))
        if not abs(g) > limit:
            break
    return t


def _many(problem, z, g, limit):
    """Newton steps for one number per class, shortened while they do not lower the slopes."""
    xp, be, C = problem.xp, problem.be, problem.n_classes
    t = np.zeros(C)
    for _ in range(_STEPS):
        q = problem.slopes(z + xp.asarray(t, z.dtype)).astype(np.float64)
        q[xp.arange(problem.y.size), problem.y] += problem.s
        H = np.diag(be.host(q.sum(axis=0))) - be.host(q.T @ (q / problem.s[:, None]))
        # Moving all classes alike changes nothing.
        H += np.trace(H) / C**2 + 1e-14 * np.eye(C)
        d = -np.linalg.solve(H, g)
        d *= min(1.0, 5.0 / max(np.abs(d).max(), 1e-300))
        for _ in range(30):
            shift = xp.asarray(t + d, z.dtype)
            new = be.host(problem.slopes(z + shift).sum(axis=0, dtype=np.float64))
            if np.linalg.norm(new) < np.linalg.norm(g):
                break
            d = 0.5 * d
        else:
            break
        t, g = t + d, new
        if not np.abs(g).max() > limit:
            break
    return t
