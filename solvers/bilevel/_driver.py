"""From a call to a result: checks of options, the run, certificate and report."""

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._core import threads
from .._core.monitor import Monitor
from .._core.random import check_rng
from .._core.validation import (
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_flag_or_stride,
    check_nonnegative,
    check_positive,
    check_threads,
    check_time_limit,
)
from ._certificate import HOWS, MOST_WEAK, check_how, default_tol, judge
from ._checkpoint import Keeper, State, carried, check_checkpoint, check_resume, check_sizes
from ._problem import pose
from ._result import BilevelResult


@dataclass(frozen=True)
class Options:
    """What a caller may ask of every solver, checked; `own` are those of one solver."""

    tol: float
    maxiter_inner: int
    tol_inner: float | None
    rng: np.random.Generator
    own: Any


class Watch:
    """Keeps the books of a run: the best answer so far, and when to stop.

    Attributes
    ----------
    fields : dict
        Fields of the result that an engine alone knows.
    resumed : dict or None
        What the engine of an earlier run gave to `keep`, if this one is to go on from there.
    goal : float
        Residual that an engine should reach: the tolerance, or less where that was not enough.
    """

    def __init__(self, problem, run, options, how, keeper, resumed=None):
        self.problem, self.run, self.options, self.how = problem, run, options, how
        self.x, self.y, self.fields = problem.x0, problem.y0, {}
        self.keeper, self.resumed, self._judged = keeper, None, None
        self.goal = options.tol
        if resumed is not None:
            self.goal = resumed.data["own_goal"]
            io = problem.io
            self.resumed = carried(resumed.data, lambda a: io.xp.array(a, order="C"))
            run.continue_from(resumed.nit)

    def answer(self, x, y, **fields):
        """Keep an answer, unless it is not finite: then the last one stays."""
        xp = self.problem.io.xp
        if bool(xp.isfinite(x).all() & xp.isfinite(y).all()):
            self.x, self.y = x, y
            self.fields.update(fields)

    def record(self, stat, *, iterations=1, **series):
        """Count iterations; tell whether the engine must end. It alone finds convergence."""
        counts = self.problem.counts
        return self.run.record(
            stat,
            judge=False,
            iterations=iterations,
            state=self._shown,
            n_g=counts["n_g"],
            **series,
        )

    def keep(self, data):
        """Take note of all that the next steps depend on, for `resume`.

        Parameters
        ----------
        data : dict
            Nested dictionaries, lists and tuples of arrays and plain values, which no one may
            change later.
        """
        name, nit, sizes = self.run.method, self.run.nit, _sizes(self.problem)
        host = self.problem.io.be.host
        data = {**data, "own_goal": self.goal}
        self.keeper.keep(lambda: State(name, nit, sizes, carried(data, lambda a: copy(host(a)))))

    def holds(self):
        """Tell whether the certificate holds; if x is what is off, ask more of it from now on.

        The certificate knows the unit of f, and engines do not.
        """
        certificate = self.certificate()
        excess = certificate.details["stationarity"] / certificate.tol
        if not certificate.holds and 1 < excess < np.inf:
            self.goal = 0.5 * min(self.goal, self.fields.get("optimality", np.inf)) / excess
        return certificate.holds

    def certificate(self):
        """Return the certificate of the answer, judged apart from the counts of the run."""
        if self._judged is None or self._judged[0] is not self.x or self._judged[1] is not self.y:
            bare = _uncounted(self.problem)
            verdict = judge(bare, self.x, self.y, how=self.how, tol=self.options.tol)
            self._judged = self.x, self.y, verdict
        return self._judged[2]

    def _shown(self):
        """Return what a callback sees beside the numbers of the history."""
        return {"x": self.problem.px.unpack(self.x), "y": self.problem.py.unpack(self.y)}


def _uncounted(problem):
    levels = {}
    for name in ("upper", "lower"):
        level = getattr(problem, name)
        levels[name] = type(level)(level.oracle, name, (problem.px, problem.py), problem.io)
    return replace(problem, **levels)


def solve(
    name, upper, lower, x0, y0, engine, *, X=None, Y=None, tol=None, tol_inner=None,
    maxiter=200, maxiter_inner=1000, time_limit=None, callback=None, progress=False,
    n_threads=None, rng=None, checkpoint=None, checkpoint_every=60, resume=None, history=True,
    how="auto", own=None, constraints=None, eq=None,
):  # fmt: skip
    """Check the options of a call, run `engine` and return the result.

    Parameters
    ----------
    name : str
        The public function, for messages and `Result.method`.
    engine : callable
        ``engine(problem, watch, options)`` runs until ``watch`` says so.
    own : object
        Options of this solver alone, checked.
    """
    tol = check_positive(tol, "tol", allow_none=True)
    check_choice(how, "how", HOWS)
    options = {
        "maxiter_inner": check_count(maxiter_inner, "maxiter_inner", minimum=1),
        "tol_inner": check_positive(tol_inner, "tol_inner", allow_none=True),
        "rng": check_rng(rng),
        "own": own,
    }
    run_options = {
        "maxiter": check_count(maxiter, "maxiter"),
        "time_limit": check_time_limit(time_limit),
        "callback": check_callable(callback, "callback"),
        "progress": check_flag(progress, "progress"),
        "history": check_flag_or_stride(history, "history"),
    }
    n_threads = check_threads(n_threads)
    every = check_nonnegative(checkpoint_every, "checkpoint_every")
    keeper = Keeper(check_checkpoint(checkpoint), every)
    resume = check_resume(resume, name)
    # Before the first look at the levels, whose kernels may have to be compiled.
    run = Monitor(name, "optimality", tol=tol or 0.0, **run_options)
    problem = pose(upper, lower, x0, y0, X, Y, constraints, eq)
    check_how(how, problem)
    run.tol = tol = default_tol(problem.io.dtype) if tol is None else tol
    with problem.io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        check_sizes(resume, _sizes(problem))
        watch = Watch(problem, run, Options(tol=tol, **options), how, keeper, resume)
        engine(problem, watch, watch.options)
        return _finished(problem, watch)


def _sizes(problem):
    """Return what a state must fit."""
    return len(problem.x0), len(problem.y0), problem.io.dtype.name


def _finished(problem, watch):
    certificate = watch.certificate()
    f, g = problem.upper.look(watch.x, watch.y), problem.lower.look(watch.x, watch.y)
    fields = {
        "y_sigma": watch.y, "z": watch.y, "psi_lower": -np.inf, "jac": f.gx, "jac_err": np.inf,
        "optimality": np.inf, "sigma": None, "multipliers": None, "state": watch.keeper.finish(),
        "lower_residual": (np.inf, np.inf), "g_z": g.value, **watch.fields,
    }  # fmt: skip
    py, px = problem.py, problem.px
    for key, packer in (("y_sigma", py), ("z", py), ("jac", px)):
        fields[key] = packer.unpack(fields[key])
    return watch.run.finish(
        BilevelResult,
        certificate,
        note=_why_unknown(certificate),
        x=px.unpack(watch.x),
        y=py.unpack(watch.y),
        fun=f.value,
        gap=f.value - fields["psi_lower"],
        lower_gap=g.value - fields.pop("g_z"),
        counts=problem.counts,
        **fields,
    )


def _why_unknown(certificate):
    """Return a sentence on a certificate that kinks made infinite, or None."""
    weak = certificate.details["weak_rows"]
    if weak <= MOST_WEAK:
        return None
    return f"{weak} constraints hold without a multiplier, too many to try all of their pieces."
