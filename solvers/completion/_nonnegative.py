"""Alternating minimisation for non-negative factors, with Anderson's mixing.

Given B, each row of A is the minimiser of a non-negative least-squares problem, and the other way
round. One sweep maps B to a better one; mixing looks for its fixed point along the last changes.
"""

import numpy as np

from ._mixing import Mixing
from ._start import start


def nonnegative(problem, rank, watch, options):
    """Minimise over factors A, B >= 0; return `Factors`."""
    by_row, by_col = problem.obs.by_row, problem.obs.by_col
    A, B, a, b = state = start(problem, rank, options)
    swept, mixing, fun = (A, B), Mixing(problem.be), np.inf
    watch.begin("nonnegative")
    for _ in watch.run:
        _half_sweep(problem, by_row, A, B, problem.row_ridge)
        # A is the best for this B, so what follows is a function of B alone.
        misfit = problem.misfit(A, B, problem.residual(A, B, a, b))
        before, fun = fun, misfit + problem.penalty(A, B, a, b)
        if mixing.mixed and fun > before + 4.0 * np.finfo(problem.dtype).eps * abs(before):
            (A, B), fun = swept, before
            mixing.reject()
            continue
        state, image = (A, B, a, b), B.copy()
        violation = _half_sweep(problem, by_col, image, A, problem.col_ridge)
        violation, size = problem.be.host(violation, (A * A).sum() + (B * B).sum())
        if watch.record(
            lambda state=state: state,
            fun=fun,
            relres=problem.relres(misfit),
            # There is none in A.
            grad=float(np.sqrt(violation / (size or 1.0))),
            passes=3,
        ):
            break
        swept = problem.evened(A, image)
        A, B = swept[0].copy(), problem.xp.maximum(mixing(B, swept[1]), 0.0)
    return problem.balance(*state)


def _half_sweep(problem, side, A, B, ridge):
    """Minimise over A >= 0, in place; return the squared KKT residual at the A given."""
    kernels = problem.be.kernels("solvers.completion", "nonnegative")
    shared = B.T @ B if problem.implicit else problem.xp.empty((0, 0), B.dtype)
    return kernels.solve_nonnegative(*side[:4], B, ridge, shared, A)
