"""From a posed program to a result: checks of options, the run, certificate and report."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core import threads
from .._core.monitor import Monitor
from .._core.random import check_rng
from .._core.result import Status
from .._core.validation import (
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_flag_or_stride,
    check_positive,
    check_threads,
    check_time_limit,
)
from ._barrier import Barrier, solve_barrier
from ._certificate import judge
from ._engines import ENGINES, engine
from ._problem import Standard
from ._program import check_shape, check_start
from ._result import ConstrainedResult
from ._watch import Watch
from .inner import INNERS
from .inner._projection import multipliers
from .sketches import SKETCHES

_GLOBALIZATIONS = ("auto", "eal", "filter")
_ACCURACIES = ("adaptive", "paper")
_SCALINGS = ("gradient", None)
# Unknowns up to which the curvature at the answer costs little.
_CURVATURE_LOOKED_AT = 200
_INEQUALITIES = ("barrier", "squared-slack", "error")


@dataclass(frozen=True)
class Options:
    """What a caller may ask of a solver, checked."""

    method: str
    inner: str
    sketch: str | None
    block_size: int | None
    globalization: str
    accuracy: str
    theta: float | str
    eta: tuple[float, float]
    inequalities: str
    least_squares: bool
    tol: float
    tol_inner: float | None
    maxiter_inner: int | None
    preconditioner: Any
    rng: np.random.Generator
    deadline: Any


def solve(
    name, program, x, *, method="eal-newton", inner="auto", sketch=None,
    block_size=None, globalization="auto", accuracy="adaptive", theta="superlinear", tol=1e-8,
    maxiter=500, tol_inner=None, maxiter_inner=None, time_limit=None, eta=(10.0, 1e-5),
    inequalities="barrier", least_squares=False, scaling="gradient", preconditioner=None,
    rng=None, callback=None, progress=False, history=True, n_threads=None,
):  # fmt: skip
    """Check the options of a call, solve the program and return the result."""
    tol = check_positive(tol, "tol")
    check_choice(method, "method", tuple(ENGINES))
    run_options = {
        "tol": tol,
        "maxiter": check_count(maxiter, "maxiter"),
        "time_limit": check_time_limit(time_limit),
        "callback": check_callable(callback, "callback"),
        "progress": check_flag(progress, "progress"),
        "history": check_flag_or_stride(history, "history"),
    }
    run = Monitor(name, "kkt", **run_options)
    options = Options(
        method=method,
        inner=check_choice(inner, "inner", tuple(INNERS)),
        sketch=check_choice(sketch, "sketch", (None, *SKETCHES)),
        block_size=check_count(block_size, "block_size", minimum=1, allow_none=True),
        globalization=check_choice(globalization, "globalization", _GLOBALIZATIONS),
        accuracy=check_choice(accuracy, "accuracy", _ACCURACIES),
        theta=_check_theta(theta),
        eta=_check_pair(eta, "eta"),
        inequalities=check_choice(inequalities, "inequalities", _INEQUALITIES),
        least_squares=check_flag(least_squares, "least_squares"),
        tol=tol,
        tol_inner=check_positive(tol_inner, "tol_inner", allow_none=True),
        maxiter_inner=check_count(maxiter_inner, "maxiter_inner", minimum=1, allow_none=True),
        preconditioner=check_callable(preconditioner, "preconditioner"),
        rng=check_rng(rng),
        deadline=lambda: run.late,
    )
    check_choice(scaling, "scaling", _SCALINGS)
    check_shape(program, options)
    io = program.io
    with io.device, threads.limit(check_threads(n_threads)), np.errstate(all="ignore"):
        standard = Standard(program, x, scaling)
        if fit := _overdetermined(standard):
            # Scaled rows would be another least-squares problem.
            standard = Standard(program, x, None)
        check_start(program, standard.x(standard.start(None)[0]))
        watch = Watch(standard, run, tol)
        problem = _without_bounds(standard, options)
        start = _start(problem, program.lam0)
        solver = engine(options, standard)
        run_engine = solve_barrier if problem.bounded else _run
        answer = run_engine(solver, problem, watch, options, start)
        if run.status not in (None, Status.CONVERGED) and watch.best is not None:
            answer = watch.ends.least if run.status is Status.INFEASIBLE else watch.best
        return _finished(program, problem, answer, watch, options, fit)


def _check_theta(theta):
    if isinstance(theta, str):
        return check_choice(theta, "theta", ("superlinear",))
    return check_positive(theta, "theta")


def _check_pair(values, name):
    if not isinstance(values, tuple | list | np.ndarray) or len(values) != 2:
        raise ValueError(f"`{name}` came as {values!r}; expected a pair of positive numbers")
    return tuple(check_positive(value, name) for value in values)


def _without_bounds(standard, options):
    """Return a problem of equalities only."""
    if not standard.bounded:
        return standard
    if options.inequalities == "squared-slack":
        from ._squared import Squared

        return Squared(standard)
    return Barrier(standard, options.tol)


def _run(solver, problem, watch, options, start):
    return solver(problem, watch, options, start)


def _start(problem, lam0):
    """Return the start, with least-squares multipliers where the caller has none."""
    z, lam = problem.start(lam0)
    point = problem.point(z)
    if lam is None:
        lam = multipliers(point, be=problem.be, rough=True)
    return problem.answer(point, lam)


def _overdetermined(standard):
    """Tell whether there are more equations than unknowns: to fit, not to solve."""
    m, n = standard.m - len(standard.slack), len(standard.free)
    if m > n and standard.bounded:
        raise ValueError(
            f"`constraints`: m={m} > n={n}: a least-squares fit of more equations than unknowns "
            "takes no bounds and no inequalities"
        )
    return m > n


def _finished(program, problem, answer, watch, options, fit):
    io = program.io
    x, lam, bound = problem.theirs(answer)
    # The point that is returned is the one that is judged, also in single precision.
    x = x.astype(io.dtype).astype(np.float64)
    verdict = judge(
        program,
        x,
        lam,
        bound,
        tol=options.tol,
        second_order=program.model is None and program.n <= _CURVATURE_LOOKED_AT,
        least_squares=fit,
    )
    certificate, (lam, bound) = verdict.certificate, map(program.xp.asarray, verdict[1:3])
    fun, jac, counts = program.fun(x), program.grad(x), program.counts
    seen = {k: v for k, v in vars(counts).items() if k != "seconds"}
    return watch.run.finish(
        ConstrainedResult,
        certificate,
        x=io.out(x),
        fun=fun,
        jac=io.out(jac),
        lam=io.out(lam),
        v=[io.out(lam[part]) for part in program.parts],
        bound_lam=io.out(bound),
        kkt=certificate.value,
        stationarity=certificate.details["stationarity"],
        constr_violation=certificate.details["violation"],
        complementarity=certificate.details["complementarity"],
        kkt_floor=certificate.details["kkt_floor"],
        **seen,
        callback_seconds=counts.seconds,
        ninner=watch.ninner,
        inner=watch.inner,
        globalization_used=watch.globalization_used,
        eta=watch.eta,
        infeasibility_certificate=watch.ends.certificate,
        second_order=verdict.second_order,
    )
