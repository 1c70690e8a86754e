"""The independent judge of propagated labels: residuals from W and the labels themselves."""

import numpy as np

from .._core.certificate import Certificate

RESIDUAL, KKT = "relative residual", "relative KKT violation"


def judge_propagation(problem, x, *, tol):
    """Return the certificate of values x (n, C) on the whole graph.

    Parameters
    ----------
    problem : Propagation
        Only what the caller passed is used: W, labels, alpha, bounds and which nodes are unknown.
    x : array, shape (n, C)
        Values; those of nodes that are not unknown are taken from the labels.
    tol : float

    Returns
    -------
    Certificate
        Largest ``|A x - b| / |b|`` over columns, or the KKT violation where there are bounds.
    """
    be, xp, W = problem.be, problem.xp, _double(problem.W)
    unknown = problem.unknown
    Y = xp.where(problem.labelled[:, None], problem.Y.astype(np.float64), 0.0)
    X = x.astype(np.float64) if problem.alpha else Y.copy()
    X[unknown] = x[unknown].astype(np.float64)
    # Fields of rows that are no unknowns count for nothing, nor may they overflow.
    degree = W @ xp.ones(W.shape[0])
    anchor = problem.alpha * problem.labelled[:, None] if problem.alpha else 0.0

    def gradient(X):
        return (degree[:, None] * X - W @ X + anchor * (X - Y))[unknown]

    start = Y.copy()
    start[unknown] = 0.0
    if problem.alpha:
        start[...] = 0.0
    g, at_zero = gradient(X), gradient(start)
    if problem.bounds is not None:
        lo, hi = problem.bounds
        start[unknown] = xp.clip(0.0, lo, hi)
        g, at_zero = distance(xp, X[unknown], g, lo, hi), abs(gradient(start))
        value, scale, at = _largest(be, g, at_zero)
        floor, kind = 4 * np.finfo(np.float64).eps, KKT
    else:
        norm, unit = xp.sqrt((g * g).sum(axis=0)), xp.sqrt((at_zero * at_zero).sum(axis=0))
        value, scale, at = _largest(be, norm[:, None], unit[:, None], columns=True)
        floor, kind = 0.0, RESIDUAL
    details = {"primal": energy(problem, X), "kkt": value, "scale": scale, "worst": at}
    return Certificate(kind, value / scale + floor, tol, details)


def energy(problem, X):
    """Return the sum over edges of ``w (x_i - x_j)^2 / 2``, with what the anchors add, float64."""
    W, xp = _double(problem.W), problem.xp
    smooth = (X * ((W @ xp.ones(W.shape[0]))[:, None] * X - W @ X)).sum()
    if problem.alpha:
        off = xp.where(problem.labelled[:, None], X - problem.Y, 0.0)
        smooth = smooth + problem.alpha * (off * off).sum()
    return 0.5 * problem.unit_of_energy * float(problem.be.host(smooth))


def _double(W):
    return W if W.dtype == np.float64 else W.astype(np.float64)


def distance(xp, x, g, lo, hi):
    """Return how far -g is from the normal cone of the bounds."""
    low, high = x <= lo, x >= hi
    inner = xp.where(low, xp.maximum(-g, 0.0), xp.where(high, xp.maximum(g, 0.0), abs(g)))
    outside = xp.maximum(xp.maximum(lo - x, x - hi), 0.0)
    return xp.where(low & high, 0.0, inner) + xp.where(outside > 0, xp.inf, 0.0)


def _largest(be, values, units, *, columns=False):
    """Return value, unit and row of the worst entry; with `columns` each has its own unit."""
    if values.size == 0:
        return 0.0, 1.0, 0
    if not columns:
        value, unit, at = be.host(values.max(), units.max(), values.argmax())
        return float(value), float(unit) or 1.0, int(at) // values.shape[1]
    values, units = be.host(values[:, 0], units[:, 0])
    relative = values / np.where(units > 0, units, 1.0)
    at = int(np.argmax(relative))
    return float(values[at]), float(units[at]) or 1.0, at
