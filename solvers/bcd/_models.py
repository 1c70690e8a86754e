"""The models by name: each poses a `GLM` and solves it."""

from .. import penalties
from .._core.validation import check_flag, check_nonnegative
from ._driver import solve
from ._problem import pose

METHODS = ("auto", "bcd")


def lasso(
    X,
    y,
    alpha,
    *,
    positive=False,
    weights=None,
    sample_weight=None,
    fit_intercept=False,
    method="auto",
    partition="variable",
    block_size=None,
    selection="gsq",
    update="auto",
    tol=None,
    maxiter=None,
    x0=None,
    check_every=None,
    callback=None,
    rng=None,
    history=True,
    time_limit=None,
    progress=False,
    n_threads=None,
):
    """Least squares with an L1 penalty (docstring to come)."""
    alpha = check_nonnegative(alpha, "alpha", allow_inf=True)
    positive = check_flag(positive, "positive")
    penalty = penalties.PositiveL1(alpha) if positive else penalties.L1(alpha)
    problem = pose(
        X,
        y,
        "quadratic",
        penalty,
        sample_weight=sample_weight,
        weights=weights,
        fit_intercept=fit_intercept,
    )
    return solve(
        "lasso",
        problem,
        methods=METHODS,
        method=method,
        partition=partition,
        block_size=block_size,
        selection=selection,
        update=update,
        tol=tol,
        maxiter=maxiter,
        x0=x0,
        check_every=check_every,
        callback=callback,
        rng=rng,
        history=history,
        time_limit=time_limit,
        progress=progress,
        n_threads=n_threads,
    )
