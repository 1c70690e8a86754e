"""One model for many penalty weights: data checked once, each answer the start of the next."""

import inspect
import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .. import penalties
from .._core import threads
from .._core.arrays import to_numpy
from .._core.certificate import Certificate
from .._core.monitor import Monitor
from .._core.result import Status
from .._core.validation import check_count, check_positive, describe
from ._certificate import judge, judge_together
from ._certificate_threshold import threshold
from ._driver import Answer, certified, check_start, posed, read_options
from ._engines import ENGINES
from ._lars import Homotopy
from ._path_result import PathResult
from ._watch import Watch

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
# Answers that are judged together, at most, and the numbers that their certificates may take.
_TOGETHER, _NUMBERS = 25, 10**7


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
    **kw : object
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
    name, unit, given = posed(fun, X, y, 1.0, **kw)
    engines = given.pop("engines", ENGINES)
    options, books, n_threads = read_options(unit, **given)
    engine = engines[options.method]
    with unit.io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        options = replace(options, x0=check_start(unit, options.x0))
        run = Monitor("path", "value", be=unit.be, **{**books, "maxiter": None})
        points: list[Point] = []
        if options.method == "lars":
            alphas, points = _by_breakpoints(unit, alphas, eps, run, options)
            engine = engines["auto"]
        else:
            alphas = _grid(unit, alphas, eps)
        if len(points) < len(alphas) and run.status is None:
            limits = {**books, "callback": None, "progress": False, "history": False}
            rest = alphas[len(points) :]
            # Whoever looks on wants to see each weight when it is done.
            watched = books["callback"] or books["progress"] or books["time_limit"]
            many = 1 if watched else _together(unit)
            points += _by_warm_starts(unit, rest, run, name, limits, options, engine, many)
        return _finished(unit, alphas, points, run)


class Point(NamedTuple):
    """An answer for one weight, its certificate, iterations, and how they ended."""

    x: Any
    c: Any
    certificate: Certificate
    nit: int
    status: Any


def _together(unit):
    """Return how many answers are judged at once."""
    size = sum(unit.design.shape) * unit.n_classes
    return max(1, min(_TOGETHER, _NUMBERS // size))


def _by_warm_starts(unit, alphas, run, name, limits, options, engine, many):
    """Solve for one weight after the other; return a `Point` for each there was time for.

    Answers are judged after every `many`.
    """
    points: list[Point] = []
    unit = replace(unit, memory={})
    for k in range(0, len(alphas), many):
        if limits["time_limit"] is not None:
            limits = {**limits, "time_limit": max(limits["time_limit"] - run.seconds, 1e-9)}
        found, options = _solved(unit, alphas[k : k + many], name, limits, options, engine)
        for alpha, point in zip(alphas[k:], found, strict=False):
            points.append(point)
            if _recorded(unit, run, alpha, point):
                return points
    return points


def _solved(unit, alphas, name, limits, options, engine):
    """Solve for some weights and judge the answers together; return points, and options.

    The options have the last answer as the start.
    """
    watches, answers = [], []
    for alpha in alphas:
        inner = Monitor(name, "value", be=unit.be, **limits)
        watches.append(Watch(at(unit, alpha), inner, options))
        answers.append(engine(watches[-1].problem, watches[-1], options))
        options = replace(options, x0=answers[-1])
    problems = [watch.problem for watch in watches]
    certificates = judge_together(problems, answers, tol=options.tol)
    points = []
    for watch, answer, certificate in zip(watches, answers, certificates, strict=True):
        best = answer, certificate
        if not certificate.holds and watch.run.status in (None, Status.CONVERGED):
            # The solver's own measure met the goal, but not quite the certificate.
            sound = all(unit.be.host(*(unit.xp.isfinite(part).all() for part in answer)))
            again = replace(options, x0=answer if sound else None)
            watch.run.status, watch.tol = None, 0.1 * watch.tol
            best = certified(watch, again, engine)
        points.append(Point(*best[0], best[1], watch.run.nit, watch.run.status))
    return points, replace(options, x0=Answer(points[-1].x, points[-1].c))


def _by_breakpoints(unit, alphas, eps, run, options):
    """Follow the exact path of a lasso; return weights, those of breakpoints by default.

    Points end where ties make the path turn in circles.
    """
    way = Homotopy(unit)
    exact = alphas is None
    alphas = [way.weight] if exact else _grid(unit, alphas, eps)
    least = eps * way.weight
    points: list[Point] = []
    while len(points) < len(alphas):
        alpha, turns = alphas[len(points)], way.turns
        while way.weight > alpha and not way.lost and way.turns - turns < options.maxiter:
            way.step(alpha)
        if way.lost:
            break
        answer = Answer(way.x, way.intercept())
        certificate = judge(at(unit, alpha), *answer, tol=options.tol)
        status = None if certificate.holds else Status.STALLED
        points.append(Point(*answer, certificate, way.turns - turns, status))
        if _recorded(unit, run, alpha, points[-1]):
            break
        if exact:
            # Several may join at one weight, the first at the largest.
            while way.weight == alpha > least and not way.lost:
                way.step(least)
            alphas += [way.weight] if way.weight < alpha else []
    return alphas, points


def _recorded(unit, run, alpha, point):
    """Record a weight; tell whether the path must end."""
    details = point.certificate.details
    return run.record(
        point.certificate.value,
        judge=False,
        state=lambda: {
            "x": unit.io.out(point.x.reshape(unit.shape).copy()),
            "intercept": unit.io.out(point.c),
        },
        alpha=alpha,
        fun=details["primal"],
        gap=details.get("gap", np.nan),
        nnz=(point.x != 0).sum(),
    )


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
    if np.ndim(100 if alphas is None else alphas) == 0:
        count = 100 if alphas is None else check_count(alphas, "alphas", minimum=1)
        largest = threshold(unit)
        if not math.isfinite(largest):
            raise ValueError(
                f"`alphas` came as {alphas}; expected a list of weights: none makes all "
                "coefficients zero here"
            )
        return (largest * np.geomspace(1.0, eps, count)).tolist()
    try:
        given = np.array(to_numpy(alphas), dtype=np.float64)
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
    worst = max(points, key=lambda point: _badness(point.certificate.value))
    if run.status is None and not worst.certificate.holds:
        run.end(Status.STALLED if worst.status is Status.CONVERGED else worst.status)
    rows = [unit.be.host(point.x) for point in points]
    places = [np.flatnonzero(row) for row in rows]
    details = [point.certificate.details for point in points]
    done, asked = len(points), len(alphas)
    return run.finish(
        PathResult,
        worst.certificate,
        note=None if done == asked else f"The path ends after {done} of {asked} weights.",
        alphas=np.array(alphas[:done]),
        intercepts=unit.io.out(unit.xp.stack([point.c for point in points])),
        fun=np.array([row["primal"] for row in details]),
        gaps=np.array([row.get("gap", np.nan) for row in details]),
        certified=np.array([point.certificate.value for point in points]),
        nits=np.array([point.nit for point in points]),
        classes=unit.classes,
        _shape=unit.shape,
        _out=unit.io.out,
        _backend=unit.be.name,
        _places=places,
        _numbers=[row[place] for row, place in zip(rows, places, strict=True)],
    )


def _badness(value):
    return math.inf if math.isnan(value) else value
