"""From a call to a result: checks, gates, the run, certificate and report."""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._core import threads
from .._core.monitor import Monitor
from .._core.random import check_rng
from .._core.result import ConvergenceWarning, Status
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
from ._arrangements import arrangements
from ._certificate import Data, judge
from ._gates import SCHEMES, count_arrangements_bound, draw
from ._local import local_gates
from ._losses import LOSSES
from ._net import Net, neurons, objective
from ._problem import Programme, check_data, check_eps, check_gates, theirs
from ._refine import check_rounds, refined
from ._result import ReLUResult
from ._robust import EMPTY, RobustWatch, draw_robust
from ._start import Start, check_start
from ._watch import Watch


@dataclass(frozen=True)
class Options:
    """What a caller may ask of every solver, checked; `own` are those of one solver."""

    tol: float
    check_every: int
    keep_best: bool
    rng: np.random.Generator
    x0: Any
    own: Any


def train(
    name, X, y, engine, *, beta, loss="squared", n_gates=None, gates=None, scheme="gaussian",
    delta=1.35, logit_scale=1.0, loss_scale="sum", robust_eps=None, bias=False, refine=0,
    tol=1e-4, maxiter=5000, check_every=200, x0=None, keep_best=True, callback=None,
    time_limit=None, progress=False, history=True, n_threads=None, rng=None, max_cells=None,
    own=None,
):  # fmt: skip
    """Check the options of a call, run `engine` and return the result.

    Parameters
    ----------
    name : str
        The public function, for messages and `Result.method`.
    engine : callable
        ``engine(programme, watch, options)`` runs until ``watch`` says so.
    max_cells : int, optional
        Train over all gates, if they are not more.
    own : object
        Options of this solver alone, checked.
    """
    beta = check_positive(beta, "beta")
    io, X, Y, vector, parameters = check_data(
        X,
        y,
        loss,
        gates=gates,
        delta=delta,
        logit_scale=logit_scale,
        bias=check_flag(bias, "bias"),
    )
    eps = check_eps(robust_eps, loss, X.shape[1] - bias)
    # A column of ones does not move.
    eps = None if eps is None else np.append(eps, 0.0) if bias else eps
    check_choice(loss_scale, "loss_scale", ("sum", "mean"))
    rng, n = check_rng(rng), X.shape[0]
    unit = 1.0 / n if loss_scale == "mean" else 1.0
    check_choice(scheme, "scheme", SCHEMES)
    rounds = check_rounds(refine)
    if eps is not None and rounds:
        # New gates come from patterns of neurons, whose robust cones are mostly empty.
        if refine != "auto":
            raise NotImplementedError(f"`refine` came as {refine!r} with robust_eps; expected 0")
        rounds = check_rounds(0)
    n_gates = check_count(n_gates, "n_gates", minimum=1, allow_none=True)
    tol = check_positive(tol, "tol")
    run = Monitor(
        name,
        "gap",
        tol=tol,
        maxiter=check_count(maxiter, "maxiter"),
        time_limit=check_time_limit(time_limit),
        callback=check_callable(callback, "callback"),
        progress=check_flag(progress, "progress"),
        history=check_flag_or_stride(history, "history"),
    )
    if gates is None and n_gates is None and isinstance(x0, ReLUResult):
        gates = x0.gates
    with io.device, threads.limit(check_threads(n_threads)), np.errstate(all="ignore"):
        model = LOSSES[loss](Y, io.xp, **parameters)
        moves = None if eps is None else io.xp.asarray(eps)
        programme = Programme(io.be, X, Y, model, beta / unit, None, None, vector, moves)
        if max_cells is not None:
            gates = arrangements(io.be.host(X), max_cells)
        scheme = "local" if refine == "auto" else scheme
        gates, local = choose_gates(io, programme, gates, n_gates, scheme, rng, run)
        programme = programme.over(gates)
        data = Data(io.be.host(X), io.be.host(Y), loss, parameters, beta / unit, gates, eps)
        data.complete = max_cells is not None
        start = check_start(x0, io, gates, (len(Y), 2, len(gates), X.shape[1]))
        if start is None and local is not None:
            start = Start(local, None)
        options = Options(
            tol=tol,
            check_every=check_count(check_every, "check_every", minimum=1),
            keep_best=check_flag(keep_best, "keep_best"),
            rng=rng,
            x0=None if start is None else start.U,
            own=own,
        )
        watch = (Watch if eps is None else RobustWatch)(programme, data, run, options, io, unit)
        if start is not None:
            watch.judge(start.U, data.slope(io.be.host(start.U).astype(np.float64), start.z))
        if watch.infeasible:
            run.end(Status.INFEASIBLE, EMPTY)
        elif watch.gap <= tol and not rounds:
            watch.record(judged=True, iterations=0)
        else:
            refined(engine, rounds, local is not None)(programme, watch, options)
        return _finished(io, watch, bias)


def choose_gates(io, programme, gates, n_gates, scheme, rng, run):
    """Return the gates of a call, and the blocks of a local descent where they come from one."""
    if gates is not None:
        return check_gates(io, gates, len(programme.X)), None
    if programme.eps is not None:
        n = n_gates or _usual(programme.X)
        return draw_robust(io.be, programme.X, io.be.host(programme.eps), n, scheme, rng), None
    if scheme == "local":
        return local_gates(programme, n_gates or _usual(programme.X), rng, lambda: run.late)
    return _sampled(io.be.host(programme.X), n_gates, scheme, rng), None


def _usual(X):
    """Return how many gates to use where the caller does not say."""
    n, d = X.shape
    most = count_arrangements_bound(n, min(n, d))
    return min(most, max(64, 8 * int(np.ceil(np.sqrt(n)))))


def _sampled(X, n_gates, scheme, rng):
    if n_gates:
        return draw(X, n_gates, scheme, rng)
    with warnings.catch_warnings():
        # Nobody has asked for so many; rows that depend on each other have fewer.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return draw(X, _usual(X), scheme, rng)


def _finished(io, watch, bias):
    data, best, unit = watch.data, watch.best, watch.unit
    # The weights that are returned are judged, also in single precision.
    U = _rounded(best.U, io)
    slack = 1e-5 if io.dtype == np.float32 else 1e-8
    certificate = judge(data, U, tol=watch.options.tol, slack=slack, duals=(best.z, best.alpha))
    if watch.infeasible:
        # Zero is optimal among one candidate: that proves nothing of the network.
        certificate = replace(certificate, value=np.inf)
    details = _in_unit(certificate.details, unit)
    V, W = theirs(io.xp.asarray(U.astype(io.dtype)), watch.programme.vector)
    net_U = _rounded(best.network, io) if watch.options.keep_best else U
    pair = neurons(*theirs(net_U, watch.programme.vector), np, data.X)
    hidden, out = (_rounded(a, io) for a in pair)
    fun = objective(data.X, data.loss, data.beta, hidden, out) * unit
    if data.eps is not None:
        watch.fields["robust_fun"] = details["fun_convex"]
    return watch.run.finish(
        ReLUResult,
        replace(certificate, details={**details, "fun": fun}),
        V=io.out(V),
        W=io.out(W),
        gates=data.gates,
        net=Net(io.out(io.xp.asarray(hidden)), io.out(io.xp.asarray(out)), bias),
        fun=fun,
        fun_convex=details["fun_convex"],
        dual=details["dual"],
        dual_global=details["dual_global"],
        gap=certificate.value,
        gap_global=(fun - details["dual_global"]) / max(abs(fun), 1e-300),
        n_active=int((np.linalg.norm(U, axis=-1) > 0).sum()),
        z=io.out(io.xp.asarray(watch.z if watch.programme.vector else watch.z[0])),
        **{"rho": None, "sigma": None, "robust_fun": None, **watch.fields},
    )


def _rounded(U, io):
    """Return weights as the caller will have them, in float64."""
    return U.astype(io.dtype).astype(np.float64)


def _in_unit(details, unit):
    """Return a certificate's details with objectives and bounds in the unit of the loss."""
    scaled = ("fun_convex", "dual", "dual_global", "dual_global_est")
    return {k: v * unit if k in scaled else v for k, v in details.items()}
