"""From a posed problem to a result: checks of options, the run, certificate and report."""

import inspect
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .._core import threads
from .._core.arrays import Ingest
from .._core.monitor import Monitor
from .._core.random import check_rng
from .._core.result import Status
from .._core.validation import (
    check_array,
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_flag_or_stride,
    check_positive,
    check_threads,
    check_time_limit,
    describe,
)
from ._certificate import judge
from ._engines import ENGINES
from ._result import BlockResult
from ._watch import Watch
from .rules import check_rules, is_default

# How often a solver that met its goal is sent on because the certificate does not hold yet.
_RETRIES = 3
_MAXITER = {"auto": 100, "lars": 10000}


@dataclass(frozen=True)
class Options:
    """What a caller may ask of a solver, checked.

    `x0` is a start ``(x, c)``, or None.
    """

    method: str
    partition: Any
    block_size: int | None
    selection: str
    update: str
    norm: int
    working_set: bool
    tol: float
    maxiter: int
    check_every: int | None
    rng: np.random.Generator
    x0: Any


class Answer(NamedTuple):
    """What a solver returns: unknowns (N,) and intercept."""

    x: Any
    c: Any


class _Posed(Exception):  # noqa: N818 (no error: how a front is asked what it would solve)
    """Carries what a front passes to `solve` back to `posed`."""


_asking = ContextVar("asking", default=False)


def posed(front, *args, **options):
    """Return what a front would pass to `solve`: its name, the checked problem, and options."""
    token = _asking.set(True)
    try:
        front(*args, **options)
    except _Posed as answer:
        return answer.args
    finally:
        _asking.reset(token)
    raise TypeError(f"{front.__name__} solves nothing through `solve`")


def solve(name, problem, **options):
    """Check the options of a call, solve the problem and return the result; see `solve_now`."""
    if _asking.get():
        raise _Posed(name, problem, options)
    return solve_now(name, problem, **options)


def solve_now(
    name, problem, *, warn=True, kind=BlockResult, engines=ENGINES, judge=judge, **options
):
    """Check the options of a call, solve the problem and return the result.

    Parameters
    ----------
    name : str
        The public function, for messages and `Result.method`.
    problem : GLM or Quadratic
    warn : bool
        Whether to warn if the certificate does not hold.
    kind : type
        The result's class.
    engines : dict
        Solvers by method.
    judge : callable
        ``judge(problem, x, c, tol=)`` returns the certificate.
    **options : object
        Those of `read_options`; the rest are further fields of the result, of which a callable
        gets the answer.
    """
    io = problem.io
    fields = {key: options.pop(key) for key in options.keys() - _WORDS}
    options, run_options, n_threads = read_options(problem, **options)
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        options = replace(options, x0=_at_rest(problem, check_start(problem, options.x0)))
        watch = Watch(problem, Monitor(name, "value", be=io.be, **run_options), options)
        answer, certificate = certified(watch, options, engines[options.method], judge)
        return _finished(problem, answer, certificate, watch, warn, kind, fields)


def read_options(
    problem,
    *,
    methods=("auto", "bcd"),
    method="auto",
    partition="variable",
    block_size=None,
    selection="gsq",
    update="auto",
    norm=2,
    working_set=True,
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
    """Return checked `Options`, with x0 as it came, options of a `Monitor`, and threads.

    Parameters
    ----------
    problem : GLM or Quadratic
    methods : tuple of str
        Legal values of `method`.
    method, ..., n_threads : object
        See `lasso` and `minimize`.
    """
    tol = check_positive(tol, "tol", allow_none=True)
    if tol is None:
        tol = 1e-8 if problem.io.dtype == np.float64 else 1e-6
    method = check_choice(method, "method", methods)
    rng = check_rng(rng)
    asked = {
        "partition": partition,
        "block_size": block_size,
        "selection": selection,
        "update": update,
    }
    rules = check_rules(problem, **asked)
    norm = check_count(norm, "norm", minimum=1)
    if norm > 2:
        raise ValueError(f"`norm` came as {norm}; expected 1 or 2")
    if method == "auto" and not (working_set and is_default(**asked)):
        method = "bcd"
    maxiter = check_count(maxiter, "maxiter", allow_none=True)
    options = Options(
        method=method,
        **rules,
        norm=norm,
        working_set=check_flag(working_set, "working_set"),
        tol=tol,
        maxiter=_MAXITER.get(method, 10000) if maxiter is None else maxiter,
        check_every=check_count(check_every, "check_every", minimum=1, allow_none=True),
        rng=rng,
        x0=x0,
    )
    run_options = {
        "tol": options.tol,
        "maxiter": options.maxiter,
        "time_limit": check_time_limit(time_limit),
        "callback": check_callable(callback, "callback"),
        "progress": check_flag(progress, "progress"),
        "history": check_flag_or_stride(history, "history"),
    }
    return options, run_options, check_threads(n_threads)


_WORDS = inspect.signature(read_options).parameters.keys()


def certified(watch, options, engine, judge=judge):
    """Run a solver until its answer is certified or it can do no more: answer, certificate.

    Parameters
    ----------
    watch : Watch
    options : Options
    engine, judge : callable
        See `ENGINES` and `judge`.
    """
    problem, run = watch.problem, watch.run
    for attempt in range(_RETRIES):
        answer = engine(problem, watch, options)
        if not all(problem.be.host(*(problem.xp.isfinite(part).all() for part in answer))):
            run.end(Status.NUMERICAL)
            answer = watch.sound(Answer(*problem.zeros()))
        certificate = judge(problem, answer.x, answer.c, tol=options.tol)
        if certificate.holds or run.status not in (None, Status.CONVERGED):
            break
        if attempt == _RETRIES - 1:
            run.end(Status.STALLED)
            break
        # The solver's own measure met the goal, but not quite the certificate.
        run.status = None
        watch.tol = 0.1 * watch.tol
        options = replace(options, x0=answer)
    return answer, certificate


def check_start(problem, x0):
    """Return a warm start as an `Answer`, or None."""
    if x0 is None:
        return None
    io, xp = problem.io, problem.xp
    c = problem.no_intercept()
    if hasattr(x0, "x"):
        if getattr(x0, "intercept", None) is not None and problem.fit_intercept:
            given = Ingest(dtype=io.dtype, intercept=x0.intercept)["intercept"]
            c = given.reshape(c.shape).copy() if given.size == c.size else c
        x0 = x0.x
    given = Ingest(dtype=io.dtype, x0=x0)
    if given.be is not io.be:
        raise TypeError(
            f"`x0` came as {describe(x0)}; expected an array where the data are: {io.kind}"
        )
    x = check_array(given, "x0", shape=problem.shape).reshape(-1).copy()
    bound = problem.bound
    if bound is not None and "lo" in bound._fields:
        x = xp.clip(x, bound.lo, bound.hi)
    return Answer(x, c)


def _at_rest(problem, start):
    """Return a start in which unknowns of a quadratic without curvature are where they belong.

    A has a row of zeros there: they move on their own, and no step by curvature would move them.
    """
    if not problem.quadratic or problem.be.host((problem.lipschitz > 0).all()):
        return start
    xp, b, penalty = problem.xp, problem.b, problem.bound
    x, c = start or problem.zeros()
    best = xp.where(abs(b) > penalty.alpha, xp.where(b > 0, penalty.hi, penalty.lo), 0.0)
    best = xp.clip(best, penalty.lo, penalty.hi)
    settled = (problem.lipschitz == 0) & xp.isfinite(best)
    return Answer(xp.where(settled, best, x).astype(x.dtype), c)


def _finished(problem, answer, certificate, watch, warn, kind, fields):
    io, xp, details = problem.io, problem.xp, certificate.details
    x, c = answer
    X = x.reshape(problem.shape)
    nonzero = (X != 0).any(axis=1) if X.ndim == 2 else X != 0
    fields = {k: f(answer) if callable(f) else f for k, f in fields.items()}
    everything = xp.arange(problem.size)
    return watch.run.finish(
        kind,
        certificate,
        warn=warn,
        x=io.out(X),
        intercept=_number(io, c),
        fun=details["primal"],
        dual_fun=details.get("dual"),
        gap=details.get("gap"),
        kkt=details["kkt"],
        scale=details["scale"],
        npass=watch.npass,
        n_blocks=watch.n_blocks,
        n_newton=watch.n_newton,
        active_set=io.out(everything if watch.active_set is None else watch.active_set),
        support=io.out(xp.flatnonzero(nonzero)),
        classes=getattr(problem, "classes", None),
        identified_at=watch.identified_at,
        used=watch.used,
        **fields,
    )


def _number(io, c):
    """Return an intercept as a number, or as an array of the caller's kind."""
    return io.out(c) if c.ndim else float(io.be.host(c))
