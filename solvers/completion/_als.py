"""Alternating minimisation: rows given columns, then columns given rows, until nothing changes.

For given B each row of A is the minimiser of a least-squares problem in k unknowns, and the other
way round. How well these are solved is the choice of an inner solver, see `ROW_SOLVERS`: the
theory of [1]_ allows errors that are a small part of the distance from the solution.

References
----------
.. [1] Y. Gu, Z. Song, J. Yin, L. Zhang. Low rank matrix completion via robust alternating
   minimization in nearly linear time. ICLR 2024. arXiv:2302.11068.
"""

from typing import Any, NamedTuple

import numpy as np

from ._large_rows import block_by_block, sketched
from ._start import start


class Inner(NamedTuple):
    """How rows are solved: a name in `ROW_SOLVERS`, a relative tolerance and a limit of steps."""

    name: str = "direct"
    eta: float = 0.0
    steps: int = 0
    rng: Any = None


class Half(NamedTuple):
    """What a half sweep tells about the point that it came from.

    Attributes
    ----------
    square : float
        Weighted sum of squared residuals there (over the observed entries).
    grad : array, shape (m, k) or (m, 1 + k)
        Gradient there with respect to A, after that for the biases if there are any.
    left : array, of the same shape
        Gradient at the point reached, as far as the inner solver has left one.
    steps : int
        Steps of the inner solver, in all rows.
    """

    square: float
    grad: Any
    left: Any
    steps: int


def als(problem, rank, watch, options, *, tol=None, maxiter=None):
    """Run alternating minimisation; return `Factors`."""
    xp, obs = problem.xp, problem.obs
    A, B, a, b = start(problem, rank, options)
    watch.begin("altmin", tol=tol, maxiter=maxiter)
    x = problem.balance(A, B, a, b)
    inner = Inner("direct" if options.inner == "auto" else options.inner, 0.1, 8, options.rng)
    for _ in watch.run:
        if not problem.lam:
            B, R = xp.linalg.qr(B)
            A = A @ R.T
        first = half_sweep(problem, obs.by_row, A, B, a, b, problem.row_ridge, inner)
        if not problem.lam:
            A, R = xp.linalg.qr(A)
            B = B @ R.T
        second = half_sweep(problem, obs.by_col, B, A, b, a, problem.col_ridge, inner)
        x = problem.balance(A, B, a, b)
        A, B = problem.balanced(x)
        r = problem.residual(A, B, a, b)
        misfit = problem.misfit(A, B, r)
        state = (A, B, a, b)
        grad = relative_gradient(problem, x, r)
        # Errors of the inner solver must be a small part of the distance from the solution.
        inner = inner._replace(eta=0.1 * min(1.0, problem.relres(misfit), grad))
        if watch.record(
            lambda state=state: state,
            fun=misfit + problem.penalty(A, B, a, b),
            relres=problem.relres(misfit),
            grad=grad,
            inner=first.steps + second.steps,
            passes=4,
        ):
            break
    return x


def half_sweep(problem, side, A, B, a, b, ridge, inner=Inner()):  # noqa: B008
    """Minimise over A and its biases a, in place, for given B and b.

    Parameters
    ----------
    problem : Completion
    side : Side
        The entries by the rows of A.
    A, B, a, b : array
        Factors and biases; `a` and `b` are empty where there are none.
    ridge : array
        Weight of ``|A_i|^2 / 2``, for each row.
    inner : Inner, optional
        By default rows are solved exactly.

    Returns
    -------
    Half
    """
    x = with_bias(problem, a, A)
    grad, left = problem.xp.empty_like(x), problem.xp.zeros_like(x)
    systems = row_systems(problem, side, B, b, ridge)
    square, steps = ROW_SOLVERS[inner.name](problem.be, systems, x, grad, left, inner)
    if problem.biased:
        a[:], A[:] = x[:, 0], x[:, 1:]
    return Half(square, grad, left, steps)


def row_systems(problem, side, B, b, ridge):
    """Return what every solver of rows takes first; see `kernels.rows.cpu`."""
    xp = problem.xp
    design = with_bias(problem, xp.ones_like(b), B)
    shared = B.T @ B if problem.implicit else xp.empty((0, 0), B.dtype)
    return *side[:4], design, b, ridge, float(problem.lam_bias or 0.0), shared


def with_bias(problem, a, A):
    """Return A, after a column `a` where there are biases."""
    return problem.xp.concatenate([a[:, None], A], axis=1) if problem.biased else A


def _direct(be, systems, x, grad, left, inner):
    rows = be.kernels("solvers.completion", "rows")
    return rows.solve_rows(*systems, x, grad)


def _cg(be, systems, x, grad, left, inner):
    rows = be.kernels("solvers.completion", "rows")
    return rows.cg_rows(*systems, x, grad, left, inner.eta, inner.steps)


# Each solves or improves all rows of x in place, writes the gradient at the point it comes from
# and, unless it is zero to rounding, the one that it leaves. It returns the weighted sum of
# squares at the point it comes from and the number of inner steps.
ROW_SOLVERS = {
    "direct": _direct,
    "cg": _cg,
    "sketch": sketched,
    "unit sketch": sketched,
    "subspace": block_by_block,
}


def relative_gradient(problem, x, r):
    """Return the relative norm of the projected gradient of `Factors`, with residual `r`.

    It does not depend on the gauge, counts the columns whose singular value is not zero to
    rounding, and adds the gradient of biases.
    """
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
