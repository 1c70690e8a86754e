"""The Karush-Kuhn-Tucker residual of non-negative factors."""

import numpy as np

from ._certificate_case import Slope

# Steps in search of a pair of columns that would do better than zeros.
_ASCENT = 30


def kkt_residual(fit):
    """Return how far a scaled gradient step, cut off at zero, moves the balanced factors."""
    case, model, (U, s, V) = fit.case, fit.model, fit.answer[:3]
    xp = case.be.xp
    rows, cols = (1.0 if scale is None else scale[:, None] for scale in (model.rows, model.cols))
    na, nb = (xp.sqrt((scale * F * F).sum(axis=0)) for scale, F in ((rows, U), (cols, V)))
    live = (na > 0) & (nb > 0)
    ratio = xp.sqrt(xp.where(live, nb, 0.0) / xp.where(live, na, 1.0))
    root = xp.sqrt(s)
    A, B = U * (root * ratio), V * (root / xp.where(live, ratio, xp.inf))
    slope = Slope(case.be, case.sparse(fit.pull), *((A, B) if case.implicit else ()))
    weights = Slope(case.be, case.sparse(case.weight + xp.zeros_like(fit.pull)))
    moved, size = 0.0, 0.0
    for F, G, times, gram, scale in (
        (A, B, slope.times, weights.times, rows),
        (B, A, slope.transposed_times, weights.transposed_times, cols),
    ):
        gradient = model.lam * scale * F - times(G)
        curvature = gram(G * G) + model.lam * scale
        if case.implicit:
            curvature = curvature + xp.square(G).sum(axis=0)
        step = xp.where(curvature > 0, gradient / xp.where(curvature > 0, curvature, 1.0), 0.0)
        moved += xp.square(F - xp.maximum(F - step, 0.0)).sum()
        size += xp.square(F).sum()
    moved, size, full = case.be.host(moved, size, live.all())
    value = np.sqrt(moved / size) if size else 0.0
    if full:
        return float(value)
    # A pair of columns that is zero is stationary, but perhaps not for long.
    spare = max(_nonnegative_norm(fit.slope) - model.lam, 0.0) / fit.unit
    return float(np.hypot(value, spare))


def _nonnegative_norm(slope):
    """Return a lower bound of ``u^T A v`` for the best non-negative unit vectors."""
    xp = slope.be.xp
    v = xp.ones((slope.shape[1], 1))
    value = 0.0
    for _ in range(_ASCENT):
        u = xp.maximum(slope.times(v / xp.linalg.norm(v)), 0.0)
        value = slope.be.host(xp.linalg.norm(u))
        if not value:
            break
        v = xp.maximum(slope.transposed_times(u / value), 0.0)
    return value
