"""`alternating_minimization`, the front door of matrix completion."""

from .._core.validation import check_choice
from ._als import als
from ._altmin_paper import theory
from ._driver import complete

METHODS = ("auto", "altmin", "irls", "gn", "varpro", "scaled_gd", "lmafit")


def alternating_minimization(
    M,
    rank,
    *,
    shape=None,
    weights=None,
    method="auto",
    inner="auto",
    loss="squared",
    delta="auto",
    lam=0.0,
    lam_bias=None,
    weighted_lambda=False,
    bias=False,
    center=None,
    implicit=False,
    alpha=1.0,
    nonnegative=False,
    init="svd",
    clip=None,
    mode="reuse",
    x0=None,
    n_init=1,
    tol=1e-8,
    tol_inner=None,
    ftol=0.0,
    gtol=0.0,
    maxiter=500,
    maxiter_inner=None,
    time_limit=None,
    validation=None,
    patience=5,
    certificate=(),
    duplicates="error",
    dtype=None,
    progress=False,
    history=True,
    callback=None,
    rng=None,
    n_threads=None,
):
    """Complete a matrix of low rank from some of its entries."""
    options = dict(locals())
    for name in ("M", "rank", "method"):
        del options[name]
    method = check_choice(method, "method", METHODS)
    return complete("alternating_minimization", M, rank, _pipeline(method, mode), **options)


def _pipeline(method, mode):
    """Return the engines that `method` stands for."""
    if isinstance(mode, str) and mode == "theory":
        if method not in ("auto", "altmin"):
            raise ValueError(
                f"`mode` came as 'theory' with method={method!r}; expected method='altmin'"
            )
        return theory
    return als
