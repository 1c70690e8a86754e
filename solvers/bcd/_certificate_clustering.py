"""The independent judge of clusters: what another update of everything would change."""

import numpy as np

from .._core.certificate import Certificate

FIXED_POINT = "fixed-point residual"


def judge_clustering(problem, Y, M, v, *, tol):
    """Return the certificate of assignments Y (N, k), prototypes M (k, d) and variances v (k,).

    Everything is computed in float64 and without the solver's shortcuts.
    """
    be, xp = problem.be, problem.xp
    X, Y, M, v = (array.astype(np.float64) for array in (problem.X, Y, M, v))
    D = xp.stack([((X - m) ** 2).sum(axis=1) for m in M], axis=1)
    mass = Y.sum(axis=0)
    alive = mass > 0
    spread = float(be.host(((X - X.mean(axis=0)) ** 2).mean())) ** 0.5 or 1.0
    means = (Y.T @ X) / xp.where(alive, mass, 1)[:, None]
    away = xp.where(alive[:, None], abs(means - M), 0.0).max() / spread
    if problem.gaussian:
        fitted = (Y * D).sum(axis=0) / (xp.where(alive, mass, 1) * X.shape[1])
        fitted = xp.maximum(fitted, problem.floor)
        away = xp.maximum(away, xp.where(alive, abs(fitted / v - 1.0), 0.0).max())
        D = 0.5 * D / v + 0.5 * X.shape[1] * xp.log(v)
    field = xp.zeros_like(Y)
    if problem.W is not None:
        W = problem.W.astype(np.float64)
        field = problem.lam * (W @ Y + (problem.shift or 0.0) * Y)
    z = (field - D) / problem.barrier
    e = xp.exp(z - z.max(axis=1, keepdims=True))
    open_rows = (problem.labels < 0)[:, None]
    move = xp.where(open_rows, abs(e / e.sum(axis=1, keepdims=True) - Y), 0.0)
    entropy = xp.where(Y > 0, Y * xp.log(xp.where(Y > 0, Y, 1.0)), 0.0)
    energy = (Y * (D - 0.5 * field)).sum() + problem.barrier * entropy.sum()
    off = abs(Y.sum(axis=1) - 1.0).max()
    moved, away, off, energy, at = be.host(move.max(), away, off, energy, move.argmax())
    details = {
        "primal": float(energy),
        "kkt": float(moved),
        "prototypes": float(away),
        "simplex": float(off),
        "scale": 1.0,
        "worst": int(at) // Y.shape[1],
    }
    return Certificate(FIXED_POINT, max(moved, away), tol, details)
