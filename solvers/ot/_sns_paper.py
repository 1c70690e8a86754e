"""Sinkhorn-Newton-Sparse as published: one temperature, a fixed fraction of the Hessian."""

from functools import partial

import numpy as np

from .._core.linalg import pcg
from .._core.result import Status
from ._problem import BestPotentials
from ._result import Answer

# Sufficient increase of the dual in the line search, and its shortest step.
ARMIJO, SHORTEST = 1e-4, 2.0**-40
ROUNDING = 1e-15


def sns_paper(problem, out, reg, tol, start, run, sparsity, n_sinkhorn, tol_inner, maxiter_inner):
    """Run the published method; unknowns are both potentials, in the counting convention.

    Maximises ``D(x, y) = <a, x> + <b, y> - reg * sum(P)`` with ``P = exp((x + y - C) / reg)``.
    A baseline: it forms the plan and picks its largest entries anew in every step.
    """
    best = BestPotentials(problem, reg, max(1e-4 * tol, 1e-15), out)
    part, be = best.part, best.part.be
    a, b, C, xp = part.a, part.b, part.C[:], be.xp
    n, m = C.shape
    sparsity = 2 / max(n, m) if sparsity is None else sparsity
    # Each kept entry stands twice in the Hessian.
    keep = min(int(np.ceil(sparsity * (n + m) ** 2 / 2)), n * m)
    maxiter_inner = maxiter_inner or 10 * (n + m)
    counts = {"nsinkhorn": 0, "nnewton": 0, "ncg": 0}
    if part.cut_off:
        run.end(Status.INFEASIBLE)
        return Answer(*best.potentials(), [])
    y = xp.zeros_like(b) if start is None else best.restrict(start) + reg * xp.log(b)

    def report(x, y, P):
        rows, cols = P.sum(axis=1), P.sum(axis=0)
        f, g = x - reg * xp.log(a), y - reg * xp.log(b)
        error = be.host(abs(rows - a).sum() + abs(cols - b).sum())
        best.offer(error, f, g)
        fun = a @ f + b @ g + reg * (1.0 - rows.sum())
        stop = run.record(error, state=partial(best.state, f, g, reg), fun=fun)
        return stop, (a - rows, b - cols)

    run.stage("sinkhorn")
    for _ in range(n_sinkhorn):
        x = -reg * _log_sum_exp(xp, (y - C) / reg, axis=1) + reg * xp.log(a)
        y = -reg * _log_sum_exp(xp, (x[:, None] - C) / reg, axis=0) + reg * xp.log(b)
        counts["nsinkhorn"] += 1
        P = plan(xp, x, y, C, reg)
        stop, gradient = report(x, y, P)
        if stop:
            break
    run.stage("newton")
    while run.status is None:
        step_x, step_y, iterations = _newton_direction(
            be, P, keep, gradient, reg, tol_inner, maxiter_inner
        )
        counts["ncg"] += iterations
        counts["nnewton"] += 1
        slope = gradient[0] @ step_x + gradient[1] @ step_y
        value, alpha = a @ x + b @ y - reg * P.sum(), 1.0
        while True:
            new = x + alpha * step_x, y + alpha * step_y
            P = plan(xp, *new, C, reg)
            gain = a @ new[0] + b @ new[1] - reg * P.sum() - value
            # Near the solution gains drop below the rounding of the value long before errors do.
            enough = gain >= ARMIJO * alpha * slope - ROUNDING * abs(value)
            if be.host(enough) or alpha < SHORTEST:
                break
            alpha *= 0.5
        if alpha < SHORTEST:
            run.end(Status.STALLED, "No step along the Newton direction raises the dual.")
            break
        x, y = new
        _, gradient = report(x, y, P)
    return Answer(*best.potentials(), [reg], density=keep / (n * m), **counts)


def _newton_direction(be, P, keep, gradient, reg, tol, maxiter):
    """Solve with the sparsified Hessian by conjugate gradients; its diagonal stays whole."""
    xp, n = be.xp, P.shape[0]
    kept, transposed = largest_entries(be, P, keep)
    rows, cols = P.sum(axis=1), P.sum(axis=0)

    def hessian(z):
        x, y = z[:n], z[n:]
        return xp.concatenate([rows * x + kept @ y, transposed @ x + cols * y]) / reg

    result = pcg(
        hessian,
        xp.concatenate(gradient),
        be=be,
        norm=lambda r: abs(r).sum(),
        tol=tol,
        maxiter=maxiter,
    )
    return result.x[:n], result.x[n:], result.iterations


def largest_entries(be, P, keep):
    """Return the matrix of the largest entries of `P`, and its transpose, compressed."""
    smallest = be.xp.partition(P.ravel(), P.size - keep)[P.size - keep]
    kept = be.sparse.csr_matrix(be.xp.where(smallest <= P, P, 0.0))
    return kept, kept.T.tocsr()


def plan(xp, x, y, C, reg):
    """Return ``exp((x_i + y_j - C_ij) / reg)``."""
    P = xp.subtract(y, C, dtype=np.float64)
    P += x[:, None]
    P /= reg
    with np.errstate(over="ignore"):
        return xp.exp(P, out=P)


def _log_sum_exp(xp, z, axis):
    top = z.max(axis=axis, keepdims=True)
    return xp.log(xp.exp(z - top).sum(axis=axis)) + top.squeeze(axis)
