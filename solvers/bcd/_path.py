"""One model for many penalty weights: data checked once, each answer the start of the next."""

import inspect
import math
from dataclasses import replace
from typing import Any

import numpy as np

from .. import penalties
from .._core.monitor import Monitor
from .._core.result import Status
from .._core.validation import (
    check_callable,
    check_count,
    check_flag,
    check_flag_or_stride,
    check_positive,
    check_time_limit,
    describe,
)
from ._certificate_threshold import threshold
from ._driver import posed, solve
from ._path_result import PathResult

# Fronts whose penalty is a multiple of `alpha`.
FRONTS = (
    "lasso",
    "elastic_net",
    "logistic",
    "huber",
    "sparse_regression",
    "multinomial",
    "group_lasso",
)
# What a penalty weight does not change, and is not computed anew.
_SHARED = ("moments", "lipschitz")


def path(fun, X, y, *, alphas=None, eps=1e-3, **kw):
    r"""Solve a model for a sequence of penalty weights, each answer certified.

    Parameters
    ----------
    fun : function
        `lasso`, `elastic_net`, `logistic`, `huber`, `sparse_regression`, `multinomial` or
        `group_lasso`.
    X, y : array
        Data, as in `fun`.
    alphas : int or sequence of float, optional
        Penalty weights, or how many, evenly spaced on a logarithmic scale from `alpha_max` down
        to ``eps * alpha_max``. Default: 100; with ``method="lars"`` every weight at which a
        coefficient becomes zero or stops being zero.
    eps : float, default 1e-3
        Smallest over largest weight, below 1; without effect where weights are given.
    **kw
        Options of `fun`. `callback`, `history`, `progress` and `time_limit` are those of the
        path: a callback gets ``alpha``, ``x`` and ``intercept`` after every weight.

    Returns
    -------
    PathResult
        With `alphas` in descending order, `coefs` and `intercepts`; its certificate is the worst
        of all.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    References
    ----------
    .. [1] J. Friedman, T. Hastie, R. Tibshirani. Regularization paths for generalized linear
       models via coordinate descent. Journal of Statistical Software 33(1), 2010.
    .. [2] B. Efron, T. Hastie, I. Johnstone, R. Tibshirani. Least angle regression. Annals of
       Statistics 32(2), 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bcd
    >>> res = bcd.path(bcd.lasso, np.eye(2), [4.0, 2.0], alphas=[1.0, 0.5])
    >>> res.coefs
    array([[2., 0.],
           [3., 1.]])
    """
    _check_front(fun, kw)
    eps = check_positive(eps, "eps")
    if not eps < 1:
        raise ValueError(f"`eps` came as {eps}; expected a number below 1")
    own = {
        "callback": check_callable(kw.pop("callback", None), "callback"),
        "history": check_flag_or_stride(kw.pop("history", True), "history"),
        "progress": check_flag(kw.pop("progress", False), "progress"),
        "time_limit": check_time_limit(kw.pop("time_limit", None)),
    }
    name, unit, options = posed(fun, X, y, 1.0, **kw)
    tol = check_positive(kw.get("tol"), "tol", allow_none=True)
    if tol is None:
        tol = 1e-8 if unit.io.dtype == np.float64 else 1e-6
    with unit.io.device, np.errstate(all="ignore"):
        alphas = _grid(unit, alphas, eps)
        run = Monitor("path", "value", tol=tol, maxiter=None, **own)
        points = _follow(unit, alphas, run, name, options, own["time_limit"])
        return _finished(unit, alphas, points, run)


def _follow(unit, alphas, run, name, options, limit):
    """Solve for one weight after the other; return the results of those there was time for."""
    points: list[Any] = []
    unit = replace(unit, memory={})
    start = options.pop("x0")
    for alpha in alphas:
        left = None if limit is None else max(limit - run.seconds, 1e-9)
        res = solve(
            name,
            at(unit, alpha),
            **{**options, "x0": start, "history": False, "time_limit": left},
            warn=False,
        )
        points.append(start := res)
        over = run.record(
            res.certificate.value,
            judge=False,
            state=lambda res=res, alpha=alpha: {
                "x": res.x,
                "intercept": res.intercept,
                "alpha": alpha,
            },
            alpha=alpha,
            fun=res.fun,
            gap=np.nan if res.gap is None else res.gap,
            nnz=len(res.support),
        )
        if over:
            break
    return points


def at(unit, alpha):
    """Return a problem whose penalty has an `alpha` of 1 for another one."""
    penalty = unit.penalty
    if isinstance(penalty, penalties.ElasticBox):
        penalty = penalty._replace(alpha=alpha * penalty.alpha, ridge=alpha * penalty.ridge)
    elif "alpha" in penalty._fields:
        penalty = penalty._replace(alpha=alpha)
    groups = unit.groups
    if groups is not None:
        groups = replace(groups, l1=alpha * groups.l1, l2=alpha * groups.l2)
    problem = replace(unit, penalty=penalty, groups=groups)
    for name in _SHARED:
        problem.__dict__[name] = getattr(unit, name)
    return problem


def _grid(unit, alphas, eps):
    """Return the weights in descending order, as floats."""
    number = 100 if alphas is None else alphas
    if isinstance(number, int | np.integer) and not isinstance(number, bool):
        count = check_count(number, "alphas", minimum=1)
        largest = threshold(unit)
        if not math.isfinite(largest):
            raise ValueError(
                f"`alphas` came as {alphas}; expected a list of weights: none makes all "
                "coefficients zero here"
            )
        return (largest * np.geomspace(1.0, eps, count)).tolist()
    try:
        given = np.array(alphas, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"`alphas` came as {describe(alphas)}; expected a number of weights or a list of them"
        ) from None
    if given.ndim != 1 or not given.size:
        raise ValueError(f"`alphas` came with shape {given.shape}; expected a list of weights")
    if not np.all(np.isfinite(given) & (given >= 0)):
        raise ValueError("`alphas` contains negative or infinite weights; expected numbers >= 0")
    return np.sort(given)[::-1].tolist()


def _check_front(fun, options):
    known = getattr(fun, "__module__", "").startswith(__package__)
    if not (callable(fun) and known and getattr(fun, "__name__", None) in FRONTS):
        raise TypeError(f"`fun` came as {fun!r}; expected one of solvers.bcd.{', '.join(FRONTS)}")
    legal = list(inspect.signature(fun).parameters)[3:]
    for name in options:
        if name not in legal:
            raise TypeError(
                f"`{name}` is no option of {fun.__name__}; expected one of {', '.join(legal)}"
            )


def _finished(unit, alphas, points, run):
    worst = max(points, key=lambda res: _badness(res.certificate.value))
    if run.status is None and not worst.success:
        run.end(Status(worst.status))
    rows = [_numpy(unit, res.x).ravel() for res in points]
    places = [np.flatnonzero(row) for row in rows]
    intercepts = np.array([_numpy(unit, res.intercept) for res in points], unit.dtype)
    done, asked = len(points), len(alphas)
    return run.finish(
        PathResult,
        worst.certificate,
        note=None if done == asked else f"The path ends after {done} of {asked} weights.",
        alphas=np.array(alphas[:done]),
        intercepts=unit.io.out(unit.xp.asarray(intercepts)),
        fun=np.array([res.fun for res in points]),
        gaps=np.array([np.nan if res.gap is None else res.gap for res in points]),
        values=np.array([res.certificate.value for res in points]),
        nits=np.array([res.nit for res in points]),
        classes=unit.classes,
        _shape=unit.shape,
        _out=unit.io.out,
        _backend=unit.be.name,
        _places=places,
        _numbers=[row[place] for row, place in zip(rows, places, strict=True)],
    )


def _numpy(unit, array):
    """Return an array of the caller's kind on the host."""
    return np.asarray(unit.be.host(unit.xp.asarray(array)))


def _badness(value):
    return math.inf if math.isnan(value) else value
