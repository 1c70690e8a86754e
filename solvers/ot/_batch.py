"""Batches: many small problems in one call, each with its own temperature and its own end.

All problems go through rounds together. A round is one pass over every cost and what follows on
the stored kernels, Sinkhorn sweeps and Newton steps, in one launch. Problems that need more than
a few rounds at a temperature, and large ones, are left to `Descent`, one by one: a batch is never
less robust than a loop.
"""

from functools import partial

import numpy as np

from .._core import threads
from .._core.monitor import Monitor
from .._core.result import Status
from .._core.validation import check_choice, check_count, check_flag, check_positive, check_threads
from ._batch_problem import Part, check_batch, check_regs, check_starts
from ._batch_result import finish
from ._newton import NewtonSteps
from ._problem import check_limits
from ._result import Answer

# The first temperature, relative to the spread of the costs, and the largest factor between two.
FIRST, FACTOR = 1 / 64, 4.0
# Marginal error, relative to the mass, at which all temperatures but the last are left.
ANNEALING_TOL = 1e-3
# Newton steps and blocks of sweeps in a round, and rounds at a temperature.
PATIENCE, MOST_ROUNDS = 40, 5
# Sweeps between two passes of plain Sinkhorn, and the option that makes the kernel stay with them.
SWEEPS, NO_NEWTON = 50, -1
# Passes without progress after which a problem on its own has stalled.
STALL = 20


def sinkhorn_newton_batch(
    descent,
    a,
    b,
    C,
    *,
    reg,
    reg_scale,
    reg_type,
    tol,
    tol_inner,
    maxiter,
    maxiter_inner,
    time_limit,
    method,
    x0,
    f0,
    g0,
    annealing,
    sparsity,
    n_sinkhorn,
    precond,
    store_plan,
    callback,
    progress,
    history,
    n_threads,
    **others,
):
    """As `sinkhorn_newton`, for a batch.

    `descent` is what solves a single problem; `others` are arguments for single problems only.
    """
    problem, io = check_batch(a, b, C)
    reg = check_regs(problem, reg, reg_scale)
    tol, limits = check_limits(io, tol, maxiter, time_limit, callback, progress, history)
    n_threads = check_threads(n_threads)
    check_choice(reg_type, "reg_type", ("kl", "entropy"))
    check_choice(method, "method", ("auto", "sns-paper", "splr"))
    n_sinkhorn = check_count(n_sinkhorn, "n_sinkhorn", minimum=1, allow_none=True) or 8
    tol_inner = check_positive(tol_inner, "tol_inner", allow_none=True)
    maxiter_inner = check_count(maxiter_inner, "maxiter_inner", minimum=1, allow_none=True)
    check_choice(precond, "precond", ("auto", "jacobi", "cholesky"))
    if store_plan != "auto":
        check_flag(store_plan, "store_plan")
    check_flag(annealing, "annealing")
    if method != "auto":
        raise ValueError(f"`method` came as {method!r} with a batch; expected 'auto'")
    for name, value in (("sparsity", sparsity), *others.items()):
        if value is not None and not (isinstance(value, tuple | list) and len(value) == 0):
            raise ValueError(f"`{name}` came with a batch; expected a single problem with it")
    start = check_starts(problem, reg, C, x0, f0, g0)
    maxiter = limits.pop("maxiter")
    # The monitor counts the passes of all problems, and none has more than `maxiter`.
    run = Monitor(
        "sinkhorn_newton", "marginal_error", be=io.be, tol=0.8 * tol, maxiter=None, **limits
    )
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        options = PATIENCE, n_sinkhorn, tol_inner or 0.0, maxiter_inner or 0
        # Large ones are left to `Descent` as they are.
        negligible = -1.0 if problem.large else max(1e-4 * tol, 1e-15)
        rounds = Rounds(problem, reg, tol, start, annealing, options, negligible, io.out)
        left = rounds.running if problem.large else rounds.go_on(run, maxiter)
        answer, ends = rounds.answer(), rounds.ends(run.status)
        newton = partial(
            NewtonSteps, precond=precond, tol=tol_inner, maxiter=maxiter_inner, sweeps=n_sinkhorn
        )
        descent = partial(descent, newton=newton, store_plan=store_plan, out=io.out)
        limits = maxiter, time_limit
        _one_by_one(descent, annealing, rounds, left, tol, start, answer, ends, run, limits)
        return finish(problem, io, reg, reg_type, tol, answer, ends, run, (a, b, C))


def sinkhorn_batch(
    a,
    b,
    C,
    *,
    reg,
    reg_scale,
    reg_type,
    method,
    tol,
    maxiter,
    time_limit,
    x0,
    f0,
    g0,
    callback,
    progress,
    history,
    n_threads,
):
    """As `sinkhorn`, for a batch."""
    problem, io = check_batch(a, b, C)
    reg = check_regs(problem, reg, reg_scale)
    tol, limits = check_limits(io, tol, maxiter, time_limit, callback, progress, history)
    n_threads = check_threads(n_threads)
    check_choice(reg_type, "reg_type", ("kl", "entropy"))
    check_choice(method, "method", ("auto", "stabilized"))
    start = check_starts(problem, reg, C, x0, f0, g0)
    run = Monitor("sinkhorn", "marginal_error", be=io.be, tol=0.8 * tol, **limits)
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        sweeps = Sweeps(problem, reg, tol, start, False, None, max(1e-4 * tol, 1e-15), io.out)
        sweeps.go_on(run)
        answer, ends = sweeps.answer(), sweeps.ends(run.status)
        return finish(problem, io, reg, reg_type, tol, answer, ends, run, (a, b, C))


class Rounds:
    """The state of all problems, and the rounds that they go through together.

    Parameters
    ----------
    problem : Batch
    reg : array, shape (B,)
        The last temperatures.
    tol : float
        Largest error there, relative to the mass.
    start : array, shape (B, m), or None
        Column potentials to start from.
    annealing : bool
    options : tuple
        As the kernel takes them.
    negligible : float
        Mass of the points that are left out.
    out : callable
        Turns an array into the caller's kind.

    Attributes
    ----------
    part : Part
        The problems without points of no weight.
    dual : array, shape (B,)
        The last dual values.
    running : array of bool, shape (B,)
        Which problems have not ended.
    """

    def __init__(self, problem, reg, tol, start, annealing, options, negligible, out):
        self.problem, self._be, self.out = problem, problem.be, out
        self.part = Part(problem, negligible)
        xp, part = self._be.xp, self.part
        (count, n), m = part.a.shape, part.b.shape[1]
        # A little below the tolerance, for the judge rounds differently.
        self.reg, self._tol, self._options = reg, 0.8 * tol, options
        top = xp.maximum(FIRST * problem.spread, reg) if annealing else reg
        self._top = xp.where(top < 2.0 * reg, reg, top)
        # Steps of equal ratio, as many as the factor takes, or nearly.
        ratio = self._top / reg
        steps = xp.maximum(xp.ceil(xp.log(ratio) / np.log(FACTOR) - 0.2), 1.0)
        self._factor = ratio ** (1.0 / steps)
        # A good start needs no higher temperature; `_advance` goes up if it was not good.
        self._warm = xp.full(count, start is not None)
        self._now = xp.where(self._warm, reg, self._top)
        if start is None:
            # The c-transform of zero: exact for reg = 0 if every row could choose freely.
            low = part.C.min(axis=1)
            self._h = xp.where(xp.isfinite(low), low, 0.0) + xp.zeros((count, 1))
        else:
            self._h = part.columns(start)
        self._old, self._old_reg = self._h, xp.full(count, np.inf)
        self._rounds, self._damping = xp.zeros(count, np.int64), xp.full(count, 1e-2)
        self._f, self._step = xp.zeros((count, n)), xp.zeros((count, m))
        self._error, self._left = xp.full((2, count), np.inf)
        self._counts = xp.zeros((count, 3), np.int64)
        self._best = xp.zeros((count, n)), xp.zeros((count, m))
        self._least, self.dual = xp.full(count, np.inf), xp.zeros(count)
        self.running = xp.ones(count, bool)
        self._levels = []

    def go_on(self, run, maxiter):
        """Make rounds until every problem has ended or turned out to be hard.

        Parameters
        ----------
        run : Monitor
        maxiter : int
            Most rounds.

        Returns
        -------
        array of bool, shape (B,)
            The hard ones.
        """
        xp, hard = self._be.xp, ~self.running
        run.stage("all together")
        while True:
            h, now = self._h, self._now
            self._levels.append(xp.where(self.running, now, np.nan))
            self._round(now)
            seen, last = self.running & xp.isfinite(self._error), now == self.reg
            self._keep(seen & last)
            self.dual = xp.where(seen, self._linear(), self.dual)
            worst, hottest = (xp.where(seen, x, 0.0).max() for x in (self._error, now))
            self.running &= ~(seen & last & (self._error <= self._tol))
            hard |= self._advance(last)
            self.running &= ~hard
            left, any_hard = self.running.sum(), hard.any()
            series = {"fun": self.dual.sum(), "reg": hottest, "running": left}
            run.record(worst, judge=False, state=partial(self._state, h, now), **series)
            left, any_hard = self._be.host(left, any_hard)
            if not (left or any_hard):
                run.end(Status.CONVERGED)
            elif left and run.status is None and run.nit >= maxiter:
                run.end(Status.MAXITER)
            if not left or run.status is not None:
                return hard

    def answer(self):
        """Return the best potentials, for all points, and what they took."""
        xp = self._be.xp
        unknown = self._least == np.inf
        if not self.problem.large and self._be.host(unknown.any()):
            # Something ended these above the last temperature: make their rows exact there.
            running, self.running = self.running, unknown
            self._options = (0, *self._options[1:])
            self._round(self.reg)
            self._keep(unknown & xp.isfinite(self._error))
            self.running = running
        f, g = self.part.potentials(*self._best, self.reg)
        counts = zip(("nsinkhorn", "nnewton", "ncg"), self._counts.sum(axis=0), strict=True)
        counts = {name: self._be.host(count) for name, count in counts}
        levels = list(self._be.host(xp.stack(self._levels))) if self._levels else []
        return Answer(f, g, levels, **counts)

    def ends(self, status):
        """Return how the run of each problem ended, where `status` is how that of all did."""
        running = self._be.host(self.running)
        return [Status.CONVERGED if status is None or not r else status for r in running]

    def _state(self, h, reg):
        """Return what a callback sees: the potentials of the last pass."""
        f, g = self.part.potentials(self._f, h, reg)
        return {"f": self.out(f), "g": self.out(g)}

    def _round(self, reg):
        part, args = self.part, (self._damping, self._f, self._step, self._error, self._left)
        self.problem.kernels.balance(
            part.C, part.a, part.b, part.sizes, reg, self._h, self._aim(reg), self.running,
            self._options, *args, self._counts,
        )  # fmt: skip

    def _aim(self, reg):
        return self._be.xp.where(reg == self.reg, self._tol, ANNEALING_TOL)

    def _keep(self, which):
        """Keep potentials of some problems if they are the best so far."""
        xp = self._be.xp
        better = which & (self._error < self._least)
        self._least = xp.where(better, self._error, self._least)
        f, g = self._best
        better = better[:, None]
        self._best = xp.where(better, self._f, f), xp.where(better, self._h, g)

    def _linear(self):
        """Return the dual values: exact rows leave only the linear part."""
        dual = (self.part.a * self._f).sum(axis=1) + (self.part.b * self._h).sum(axis=1)
        return self.problem.mass * dual

    def _advance(self, last):
        """Move all potentials, and those problems that are ready to their next temperatures.

        Returns those that have had their rounds at a temperature.
        """
        xp = self._be.xp
        now, active = self._now, self.running
        self._h = xp.where(active[:, None], self._h + now[:, None] * self._step, self._h)
        self._rounds = self._rounds + 1
        ready = active & ~last & (self._left <= ANNEALING_TOL)
        late = active & ~ready & ~((self._rounds < MOST_ROUNDS) & xp.isfinite(self._left))
        # A start that was not good enough: go up, and come down again.
        up = late & self._warm & (self._top > self.reg) & xp.isfinite(self._left)
        below = now / self._factor
        below = xp.where(below < 1.001 * self.reg, self.reg, below)
        # Potentials are smooth in the temperature, so two of them predict the next.
        slope = ((below - now) / (now - self._old_reg))[:, None]
        predicted = self._h + slope * (self._h - self._old)
        self._old = xp.where(ready[:, None], self._h, self._old)
        self._old_reg = xp.where(ready, now, self._old_reg)
        self._h = xp.where(ready[:, None], predicted, self._h)
        self._now = xp.where(ready, below, xp.where(up, self._top, now))
        self._warm = self._warm & ~up
        self._rounds = xp.where(ready | up, 0, self._rounds)
        return late & ~up


class Sweeps(Rounds):
    """Sinkhorn's sweeps alone; each pass moves their factors into the potentials."""

    def go_on(self, run):
        """Sweep until every problem has ended."""
        xp, host, made = self._be.xp, self._be.host, 1
        self.broken = ~self.running
        while True:
            h, before = self._h, self._counts[:, 0].copy()
            # Those of the last round belong to the pass that is recorded below.
            sweeps = min(SWEEPS, run.maxiter - run.nit - made)
            self._options = sweeps, 1, 0.0, NO_NEWTON
            self._levels.append(xp.where(self.running, self.reg, np.nan))
            self._round(self.reg)
            seen = self.running & xp.isfinite(self._error)
            self.broken |= self.running & ~seen
            self._keep(seen)
            self.dual = xp.where(seen, self._linear(), self.dual)
            worst = xp.where(seen, self._error, 0.0).max()
            self.running = seen & (self._error > self._tol)
            moved = self._h + self.reg[:, None] * self._step
            self._h = xp.where(self.running[:, None], moved, self._h)
            left, most = self.running.sum(), (self._counts[:, 0] - before).max()
            run.record(
                worst,
                judge=False,
                iterations=made,
                state=partial(self._state, h, self.reg),
                fun=self.dual.sum(),
                running=left,
            )
            left, most = host(left, most)
            if not left or run.status is not None:
                return
            made = max(most, 1)

    def ends(self, status):
        """Return how the run of each problem ended, where `status` is how that of all did."""
        broken = self._be.host(self.broken)
        ends = super().ends(status)
        return [Status.NUMERICAL if b else end for b, end in zip(broken, ends, strict=True)]


def _one_by_one(descent, annealing, rounds, which, tol, start, answer, ends, run, limits):
    """Solve some problems on their own; their potentials and ends go where those of all are."""
    problem, host, before = rounds.problem, rounds.problem.be.host, run.nit
    which, dual, (maxiter, time_limit) = np.flatnonzero(host(which)), rounds.dual, limits
    if which.size:
        run.stage("one by one")
    for place, k in enumerate(which):
        ended = Status.MAXITER if run.status is None and before >= maxiter else run.status
        if ended is not None and not problem.large:
            ends[k] = ended
            continue

        def report(seen, k=k, left=which.size - place):
            dual[k] = seen.fun
            run.record(
                seen.marginal_error,
                judge=False,
                iterations=max(before + seen.nit - run.nit, 0),
                state=lambda: {"f": rounds.out(answer.f), "g": rounds.out(answer.g)},
                fun=dual.sum(),
                reg=seen.reg,
                running=left,
            )
            return run.status is not None

        spent = run.seconds + run.compile_seconds
        inner = Monitor(
            run.method,
            run.kind,
            be=problem.be,
            tol=0.8 * tol,
            # A pass for exact rows is due even to those whose turn never came.
            maxiter=maxiter - before if ended is None else 1,
            time_limit=None if time_limit is None else time_limit - spent,
            callback=report if ended is None else None,
            history=False,
            stall=STALL,
        )
        own = descent(problem.one(k), host(rounds.reg[k]), tol, inner)
        own = own.solve(None if start is None else start[k], annealing)
        answer.f[k], answer.g[k] = own.f, own.g
        for name in ("nsinkhorn", "nnewton", "ncg", "nfactor"):
            setattr(answer, name, getattr(answer, name) + getattr(own, name))
        ends[k] = inner.status if run.status is None else run.status
