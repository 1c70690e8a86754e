"""Wasserstein distances between two proven bounds."""

from dataclasses import replace

import numpy as np

from .._core import threads
from .._core.monitor import Monitor
from .._core.result import Result
from .._core.validation import (
    check_count,
    check_flag,
    check_memory,
    check_positive,
    check_threads,
    check_time_limit,
)
from ._certificate_linear import judge_linear
from ._cloud import Cloud
from ._emd import COLDEST, Search
from ._problem import Extent, check_transport

# What powers and roots round, several times over.
_ROUNDING = 2.0**-49


def wasserstein(
    a,
    b,
    C,
    *,
    p=1,
    gap=1e-4,
    maxiter=2000,
    time_limit=None,
    progress=False,
    n_threads=None,
):
    r"""Bracket the Wasserstein distance of two measures.

    That is :math:`W_p = \min_P \langle C^p, P \rangle^{1/p}` over plans :math:`P \ge 0` with row
    sums `a` and column sums `b`, for distances `C`.

    Parameters
    ----------
    a, b : array, shapes (n,) and (m,), or None
        Non-negative weights with equal sums; None for uniform ones.
    C : array, shape (n, m), or PointCloud
        Distances, non-negative; ``inf`` forbids an edge. Any cost of a `PointCloud` counts as a
        distance, but for "sqeuclidean", which stands for its square root.
    p : float, default 1
        Order of the distance, at least 1.
    gap : float, default 1e-4
        Largest difference of the bounds, relative to the upper one. If :math:`W_p^p` is below
        1e-8 times the range of :math:`C^p`, that decides in its place.
    maxiter : int, default 2000
        Largest number of passes over the cost.
    time_limit : float, optional
        Seconds after which the bounds reached are returned.
    progress : bool, default False
        Show a progress bar.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    value, lower, upper : float
        The distance lies between `lower` and `upper`, rounding included. `value` is that of a
        plan, ``upper``; infinite if there is no plan.

    Raises
    ------
    TypeError, ValueError
        As in `emd`, and for negative distances.

    Warns
    -----
    ConvergenceWarning
        If the bounds are further apart than `gap`.

    Notes
    -----
    Runs as `emd`, which see. For a `p` other than 1, and 2 with "sqeuclidean", the powers of a
    matrix are stored in float64.

    References
    ----------
    .. [1] C. Villani. Optimal transport: old and new. Springer, 2009.

    Examples
    --------
    >>> import solvers
    >>> value, lower, upper = solvers.ot.wasserstein(None, None, [[0.0, 3.0], [2.0, 1.0]], p=2)
    >>> lower <= 0.5**0.5 <= upper
    True
    """
    problem, io = check_transport(a, b, C)
    p, gap = check_positive(p, "p"), check_positive(gap, "gap")
    if p < 1.0:
        raise ValueError(f"`p` came as {p:g}; expected at least 1")
    limits = {
        "maxiter": check_count(maxiter, "maxiter", minimum=1),
        "time_limit": check_time_limit(time_limit),
        "progress": check_flag(progress, "progress"),
    }
    n_threads = check_threads(n_threads)
    # The bounds of the p-th powers have to be closer together, or at most 1.
    gap = -np.expm1(p * np.log1p(-min(gap, 1.0)))
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        if problem.extent.low < 0:
            raise ValueError(
                f"`C` has a negative entry ({problem.extent.low:g}); expected distances"
            )
        problem, unit = _powers(problem, p)
        run = Monitor("wasserstein", "lp_gap", be=io.be, tol=0.9 * gap, **limits)
        search = Search(problem, COLDEST * problem.spread or 1.0, run, io.out)
        answer = search.solve(None, polish=False)
        certificate = judge_linear(problem, answer.g, answer.plan(problem), gap)
    run.finish(Result, certificate, fun=certificate.details["primal"])
    lower, upper = (max(certificate.details[side], 0.0) for side in ("dual", "primal"))
    slack = 0.0 if p == 1.0 else _ROUNDING
    upper = (1.0 + slack) * unit * upper ** (1.0 / p)
    return upper, (1.0 - slack) * unit * lower ** (1.0 / p), upper


def _powers(problem, p):
    """Return the problem with powers of its distances as cost, and the unit they are taken in."""
    C, ends = problem.C, problem.extent
    if isinstance(C, Cloud) and C.cost == "sqeuclidean":
        if p == 2.0:
            return problem, 1.0
        C = replace(C, cost="euclidean", scale=C.scale**0.5)
        ends = Extent(0.0, ends.high**0.5, False)
    # In units of the largest distance, so that powers do not overflow.
    unit = 1.0 if p == 1.0 else ends.high or 1.0
    if p == 1.0:
        powers = C
    elif isinstance(C, Cloud):
        C = replace(C, scale=C.scale / unit)
        powers = replace(C, cost=lambda x, y: replace(C, x=x, y=y)[:] ** p, scale=1.0)
    else:
        check_memory(8 * C.size, "The powers of `C`", be=problem.be)
        powers = C.astype(np.float64)
        powers /= unit
        powers **= p
    powered = replace(problem, C=powers)
    low, high = ((end / unit) ** p for end in ends[:2])
    vars(powered)["extent"] = Extent(low, high, ends.forbidden)
    return powered, unit
