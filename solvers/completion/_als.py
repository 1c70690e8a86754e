"""Alternating minimisation: rows given columns, then columns given rows, until nothing changes."""

import numpy as np

from ._start import start


def als(problem, rank, watch, options, *, tol=None, maxiter=None):
    """Run alternating minimisation; return `Factors`."""
    xp, obs = problem.xp, problem.obs
    A, B, a, b = start(problem, rank, options)
    watch.begin("altmin", tol=tol, maxiter=maxiter)
    x = problem.balance(A, B, a, b)
    for _ in watch.run:
        half_sweep(problem, obs.by_row, A, B, problem.row_ridge)
        if not problem.lam:
            A = xp.linalg.qr(A)[0]
        half_sweep(problem, obs.by_col, B, A, problem.col_ridge)
        x = problem.balance(A, B, a, b)
        A, B = problem.balanced(x)
        r = problem.residual(A, B, a, b)
        misfit = problem.misfit(A, B, r)
        state = (A, B, a, b)
        if watch.record(
            lambda state=state: state,
            fun=misfit + problem.penalty(A, B, a, b),
            relres=problem.relres(misfit),
            grad=relative_gradient(problem, x, r),
        ):
            break
    return x


def half_sweep(problem, side, A, B, ridge):
    """Minimise over A, in place, for given B."""
    rows = problem.be.kernels("solvers.completion", "rows")
    shared = B.T @ B if problem.implicit else problem.xp.empty((0, 0), B.dtype)
    rows.solve_rows(side.ptr, side.idx, side.val, side.weight, B, ridge, shared, A)


def relative_gradient(problem, x, r):
    """Return the relative norm of the projected gradient, for equally counting rows."""
    xp, obs, times = problem.xp, problem.obs, problem.kernels.times
    by_row, by_col = obs.by_row, obs.by_col
    r = r * by_row.weight if by_row.weight.size else r
    left, right = xp.empty_like(x.U), xp.empty_like(x.V)
    times(by_row.ptr, by_row.idx, r, x.V, left)
    times(by_col.ptr, by_col.idx, r[by_col.perm], x.U, right)
    core = x.U.T @ left + problem.lam * xp.eye(x.s.size, dtype=x.U.dtype)
    left += problem.lam * x.U
    right += problem.lam * x.V
    square = (left**2).sum() + (right**2).sum() - (core**2).sum()
    return float(np.sqrt(max(problem.be.host(square), 0.0)) / problem.norm)
