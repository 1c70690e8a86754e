"""From a call to a result: checks, the problem, the engines' pipeline, certificate and report."""

import math
import numbers
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

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
    check_memory,
    check_nonnegative,
    check_positive,
    check_threads,
    check_time_limit,
    describe,
)
from . import _losses
from ._certificate import check_certificate, check_dual, judge
from ._observations import check_duplicates, read_entries
from ._problem import LOSSES, Holdout, pose
from ._result import CompletionResult
from ._watch import Watch

INNERS = ("auto", "direct", "cg", "sketch", "subspace")
# How often engines that met their goal are sent on because the certificate does not hold yet.
_RETRIES = 3
# Factors with at most so many columns are too narrow for the threads of BLAS.
_NARROW = 64


@dataclass(frozen=True)
class Options:
    """What a caller may ask of the engines, checked; see `alternating_minimization`.

    `x0` is a start ``(A, B, a, b)`` in the problem's unit, or None.
    """

    inner: str
    init: str
    clip: str | None
    mode: str
    n_init: int
    tol: float
    tol_inner: float | None
    ftol: float
    gtol: float
    maxiter: int
    maxiter_inner: int | None
    patience: int
    certificate: tuple[str, ...]
    rng: np.random.Generator
    x0: Any


def complete(
    method,
    M,
    rank,
    pipeline,
    *,
    argument="M",
    shape=None,
    weights=None,
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
    nu=0.0,
    alpha0=1.0,
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
    """Check a call, run its engines and return the result.

    Parameters
    ----------
    method : str
        Name for messages and `Result.method`.
    M, rank : object
        Data and rank, as the caller passed them; a rank here is a number, or None for no limit.
    pipeline : callable
        ``pipeline(problem, rank, watch, options)`` returns `Factors` in the problem's unit.
    argument : str
        What the public function calls `M`.
    shape, ..., n_threads : object
        See `alternating_minimization`; `nu` and `alpha0`, see `als_implicit`.
    """
    entered = read_entries(M, shape, weights, check_dtype(dtype), name=argument)
    io = entered.io
    largest = min(entered.shape)
    _check_room(entered, 1 if rank is None else check_rank(rank, largest))
    rank = largest if rank is None else rank
    rng = check_rng(rng)
    model = _check_model(
        entered,
        lam,
        lam_bias,
        weighted_lambda,
        bias,
        center,
        implicit,
        alpha,
        nu,
        alpha0,
        nonnegative,
        loss,
        delta,
        duplicates,
    )
    limits = {
        "maxiter": check_count(maxiter, "maxiter"),
        "time_limit": check_time_limit(time_limit),
        "callback": check_callable(callback, "callback"),
        "progress": check_flag(progress, "progress"),
        "history": check_flag_or_stride(history, "history"),
    }
    options = Options(
        inner=check_choice(inner, "inner", INNERS),
        init=check_choice(init, "init", ("svd", "random")),
        clip=check_choice(clip, "clip", (None, "row", "entry")),
        mode=check_choice(mode, "mode", ("reuse", "theory")),
        n_init=check_count(n_init, "n_init", minimum=1),
        tol=check_positive(tol, "tol"),
        tol_inner=check_positive(tol_inner, "tol_inner", allow_none=True),
        ftol=check_nonnegative(ftol, "ftol"),
        gtol=check_nonnegative(gtol, "gtol"),
        maxiter=limits["maxiter"],
        maxiter_inner=check_count(maxiter_inner, "maxiter_inner", minimum=1, allow_none=True),
        patience=check_count(patience, "patience", minimum=1),
        certificate=check_certificate(certificate),
        rng=rng,
        x0=None,
    )
    check_dual(options.certificate, model)
    n_threads = check_threads(n_threads)
    holdout, without = _check_validation(entered, validation, rng)
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        problem = pose(entered, without=without, **model)
        if holdout is not None:
            vals = (holdout.vals - problem.mu) / problem.scale
            if problem.implicit:
                vals = (vals > 0).astype(io.dtype)
            problem = replace(problem, holdout=holdout._replace(vals=vals))
        options = replace(options, x0=_check_start(io, problem, x0, rank))
        run = Monitor(method, "relres", be=io.be, tol=options.tol, **limits)
        watch = Watch(problem, run, io.out, options)
        # Beyond rounding there is nothing to reach; the certificate does not ask for it either.
        floor = 8.0 * np.finfo(io.dtype).eps * math.sqrt(rank)
        goal = replace(options, tol=max(options.tol, floor))
        for attempt in range(_RETRIES):
            watch.tol = goal.tol
            x = _run(pipeline, problem, rank, watch, goal)
            problem = watch.problem
            answer, report = _judged(entered, problem, x, model, without, options)
            if report.certificate.holds or run.status is not None:
                break
            if watch.ended is not Status.CONVERGED or attempt == _RETRIES - 1:
                run.end(watch.ended or Status.STALLED, watch.reason)
                break
            # The engine met its goal, but its residual is not quite the certificate's.
            goal = replace(goal, tol=max(0.1 * goal.tol, floor / 8), x0=problem.start_of(x))
        return _finished(entered, problem, x, answer, report, watch, options, without, model)


def _check_room(entered, rank):
    """Raise where the sorted entries and the factors are bound not to fit."""
    (m, n), number = entered.shape, entered.io.dtype.itemsize
    entries = entered.vals.size * (16 + 3 * number)
    # Factors, their successors and what a step works in.
    factors = (m + n) * (8 + 4 * rank * number)
    what = f"completing {entered.vals.size} entries of a {m} x {n} matrix with rank {rank}"
    with entered.io.device:
        check_memory(entries + factors, what, "Use float32 or a smaller rank.", be=entered.io.be)


def _run(pipeline, problem, rank, watch, options):
    """Return the engines' answer; if they break down, the last that is sound."""
    be, xp = problem.be, problem.xp
    try:
        with threads.serial_blas() if rank <= _NARROW else nullcontext():
            x = watch.best(pipeline(problem, rank, watch, options))
        sound = all(be.host(*(xp.isfinite(part).all() for part in x)))
    except np.linalg.LinAlgError:
        sound = False
    if sound:
        return x
    watch.run.end(Status.NUMERICAL)
    m, n = problem.shape
    shapes = (m, rank), (n, rank), *((m, n) if problem.biased else (0, 0))
    return watch.sound([xp.zeros(shape, problem.dtype) for shape in shapes])


def check_dtype(dtype):
    """Return the precision to compute in, or None for the data's own."""
    if dtype is None:
        return None
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(
            f"`dtype` came as {describe(dtype)}; expected float32 or float64"
        ) from None
    if found not in (np.float32, np.float64):
        raise ValueError(f"`dtype` came as {found}; expected float32 or float64")
    return found


def check_rank(rank, largest, name="rank"):
    """Return a rank that the matrix can have."""
    if not isinstance(rank, numbers.Integral) or isinstance(rank, bool):
        raise TypeError(f"`{name}` came as {describe(rank)}; expected a whole number >= 1")
    if not 1 <= rank <= largest:
        raise ValueError(
            f"`{name}` came as {rank}; expected a whole number from 1 to {largest}, the matrix's "
            "smaller side"
        )
    return int(rank)


def _check_model(
    entered,
    lam,
    lam_bias,
    weighted_lambda,
    bias,
    center,
    implicit,
    alpha,
    nu,
    alpha0,
    nonnegative,
    loss,
    delta,
    duplicates,
):
    """Return the options that say which problem is solved, for `pose` and `judge`."""
    bias = check_flag(bias, "bias")
    implicit = check_flag(implicit, "implicit")
    nonnegative = check_flag(nonnegative, "nonnegative")
    center = bias if center is None else check_flag(center, "center")
    weighted_lambda = check_flag(weighted_lambda, "weighted_lambda")
    loss = check_choice(loss, "loss", LOSSES)
    if delta is not None and not (isinstance(delta, str) and delta == "auto"):
        delta = check_positive(delta, "delta")
    else:
        delta = None
    clashes = {
        "implicit": {
            "bias": bias,
            "center": center,
            "weights": entered.weights is not None,
            "weighted_lambda": weighted_lambda,
            "loss": loss != "squared",
        },
        "nonnegative": {"bias": bias, "center": center, "loss": loss != "squared"},
    }
    for name, on in (("implicit", implicit), ("nonnegative", nonnegative)):
        for other, given in clashes[name].items():
            if on and given:
                raise ValueError(
                    f"`{other}` came with {name}=True; expected its default there: that problem "
                    "has no such part"
                )
    return {
        "lam": check_nonnegative(lam, "lam"),
        "lam_bias": check_nonnegative(lam_bias, "lam_bias", allow_none=True),
        "weighted_lambda": weighted_lambda,
        "bias": bias,
        "center": center,
        "implicit": implicit,
        "alpha": check_positive(alpha, "alpha"),
        "nu": check_nonnegative(nu, "nu"),
        "alpha0": check_nonnegative(alpha0, "alpha0"),
        "nonnegative": nonnegative,
        "loss": loss,
        "delta": delta,
        "duplicates": check_duplicates(duplicates),
    }


def _check_validation(entered, validation, rng):
    """Return the entries to watch, and which of the caller's they are (None: others)."""
    if validation is None:
        return None, None
    io = entered.io
    if isinstance(validation, numbers.Real) and not isinstance(validation, bool):
        if not 0.0 < validation < 1.0:
            raise ValueError(
                f"`validation` came as {validation}; expected a fraction between 0 and 1"
            )
        weights = entered.weights
        known = None if weights is None else io.xp.flatnonzero(weights > 0)
        count = entered.vals.size if known is None else known.size
        size = min(max(round(float(validation) * count), 1), count - 1)
        if size < 1:
            raise ValueError("`validation` leaves no entries to fit; expected more data")
        where = io.xp.asarray(np.sort(rng.choice(count, size, replace=False)))
        where = where if known is None else known[where]
        holdout = Holdout(entered.rows[where], entered.cols[where], entered.vals[where])
        return holdout, where
    if isinstance(validation, tuple) and len(validation) == 3:
        try:
            held = read_entries(validation, entered.shape, None, io.dtype)
        except (TypeError, ValueError) as error:
            raise type(error)(f"`validation`: {error}") from error
        _check_place(io, held.io, "validation")
        return Holdout(held.rows, held.cols, held.vals), None
    raise TypeError(
        f"`validation` came as {describe(validation)}; expected a fraction or (rows, cols, vals)"
    )


def _check_place(io, given, name):
    """Raise unless arrays are where the data are."""
    if given.be is not io.be:
        raise TypeError(
            f"`{name}` came as a {given.kind} array; expected arrays where the data are: {io.kind}"
        )


def _check_start(io, problem, x0, rank):
    """Return a warm start (A, B, a, b) in the problem's unit, or None."""
    if x0 is None:
        return None
    xp, (m, n) = io.xp, problem.shape
    a, b = (xp.zeros(size if problem.biased else 0, io.dtype) for size in (m, n))
    if hasattr(x0, "U"):
        parts = (x0.U, x0.s, x0.V)
        if problem.biased and len(x0.row_bias):
            biases = Ingest(dtype=io.dtype, row_bias=x0.row_bias, col_bias=x0.col_bias)
            a, b = biases["row_bias"] / problem.scale, biases["col_bias"] / problem.scale
    elif isinstance(x0, tuple | list) and len(x0) in (2, 3):
        parts = (x0[0], None, x0[1]) if len(x0) == 2 else tuple(x0)
    else:
        raise TypeError(
            f"`x0` came as {describe(x0)}; expected a result, (U0, V0) or (U0, s0, V0)"
        )
    given = Ingest(dtype=io.dtype, **dict(zip(("U0", "s0", "V0"), parts, strict=True)))
    try:
        U = check_array(given, "U0", shape=(m, None))
        V = check_array(given, "V0", shape=(n, U.shape[1]))
        s = check_array(given, "s0", shape=(U.shape[1],), minimum=0.0)
    except ValueError as error:
        raise ValueError(f"`x0`: {error}") from error
    _check_place(io, given, "x0")
    if U.shape[1] > rank:
        raise ValueError(f"`x0` came with {U.shape[1]} columns; expected at most `rank` = {rank}")
    size = problem.scale if s is None else 1.0
    A, B = (U / np.sqrt(size), V / np.sqrt(size)) if s is None else (U, V)
    if s is not None:
        root = xp.sqrt(s / problem.scale)
        A, B = U * root, V * root
    return A, B, a, b


def _judged(entered, problem, x, model, without, options):
    """Return the answer in the caller's unit, and what the certificate says about it."""
    scale = problem.scale
    # The singular values carry the unit, so U and V may be judged as they are.
    answer = x._replace(s=x.s * scale, row_bias=x.row_bias * scale, col_bias=x.col_bias * scale)
    delta = problem.delta if problem.delta is None else problem.delta * scale
    report = judge(
        entered,
        answer,
        mu=problem.mu,
        without=without,
        certificate=options.certificate,
        tol=options.tol,
        **{**model, "delta": delta},
    )
    return answer, report


def _finished(entered, problem, x, answer, report, watch, options, without, model):
    io, run, details = entered.io, watch.run, report.certificate.details
    m, n = problem.shape
    k, delta = x.s.size, None if problem.delta is None else problem.delta * problem.scale
    A, B = problem.balanced(x)
    r = problem.residual(A, B, x.row_bias, x.col_bias)
    fun = problem.data_term(A, B, r) + problem.penalty(A, B, x.row_bias, x.col_bias)
    fields = {
        "U": io.out(answer.U),
        "s": io.out(answer.s),
        "V": io.out(answer.V),
        "mu": problem.mu,
        "row_bias": io.out(answer.row_bias if problem.biased else io.xp.zeros(m, io.dtype)),
        "col_bias": io.out(answer.col_bias if problem.biased else io.xp.zeros(n, io.dtype)),
        "fun": fun * problem.unit,
        "relres": details["relres"],
        "rmse": details.get("rmse"),
        "rmse_validation": _validation_rmse(problem, A, B, x),
        "grad_norm": details.get("grad_norm"),
        "duality_gap": details.get("duality_gap"),
        "spectral_ratio": details.get("spectral_ratio"),
        "holdout": io.out(without),
        "delta": delta,
        "exact_fit": details["relres"] <= report.certificate.tol,
        "n_inner": watch.inner_steps,
        "n_passes": watch.passes,
        "inner": options.inner,
        "rank": k,
        "rank_curve": watch.rank_curve,
        "oversampling": problem.size / (k * (m + n - k)),
        "unidentified_rows": report.unidentified_rows,
        "unidentified_cols": report.unidentified_cols,
        "components": report.components,
        "outlier_weights": io.out(_outlier_weights(problem, r)),
        "_model": {**model, "delta": delta},
        "_gauge": io.out(_gauge(problem, x, B)),
    }
    return run.finish(CompletionResult, report.certificate, note=report.note, **fields)


def _gauge(problem, x, B):
    """Return T such that ``V T`` are the column factors in the caller's unit; None for sqrt(s)."""
    if not problem.weighted:
        return None
    xp = problem.xp
    T = xp.diag(xp.linalg.norm(B, axis=0)) if problem.nonnegative else x.V.T @ B
    return T * problem.scale**0.5


def _outlier_weights(problem, r):
    """Return how much each of the caller's entries counts; NaN for those left out."""
    if problem.loss == "squared":
        return None
    shares = _losses.inlier_share(problem.xp, problem.loss, r, problem.delta)
    return problem.obs.in_callers_order(shares, np.nan)


def _validation_rmse(problem, A, B, x):
    if problem.holdout is None:
        return None
    return problem.scale * problem.holdout_rmse(A, B, x.row_bias, x.col_bias)


def is_rank_sequence(rank):
    """Tell whether `rank` is a list of ranks to choose from."""
    return isinstance(rank, Sequence | np.ndarray) and not isinstance(rank, str)
