"""What all engines share in judging an iterate: when to stop, and what to record."""

import math

from .._core.result import Status

# A residual that falls below this fraction in an iteration is on its way to zero.
_FALLING = 0.98


class Watch:
    """Keeps the books of a run that may consist of several stages.

    Parameters
    ----------
    problem : Completion
        An engine that changes it, to state the `delta` it found, puts the new one here.
    run : Monitor
    out : callable
        Turns an array into the caller's kind.
    options : Options
        `tol`, `ftol`, `gtol` and `patience` are used.

    Attributes
    ----------
    tol : float
        Where stages end unless they say otherwise; the driver may change it.
    ended : Status or None
        Why the present stage has ended. The run may go on with another stage, unless
        ``run.status`` is set.
    reached : float
        Smallest judged value so far: relative residual or gradient where nothing is penalised,
        relative gradient elsewhere.
    rank_curve : dict of str to array, or None
        Ranks that were tried and their errors, if the run had to find one.
    """

    def __init__(self, problem, run, out, options):
        self.problem, self.run, self.rank_curve = problem, run, None
        self._out, self._options, self.tol = out, options, options.tol
        self._sound, self._early = None, False
        self._best, self._kept, self._best_nit = math.inf, None, 0
        self.ended, self.reason, self.reached = None, None, math.inf
        self._fun, self._exact, self._inner, self._passes = None, math.inf, 0, 0

    @property
    def passes(self):
        """Passes over the entries so far."""
        return self._passes

    @property
    def inner_steps(self):
        """Steps of inner solvers so far."""
        return self._inner

    def begin(self, stage, *, tol=None, maxiter=None):
        """Begin a stage.

        Parameters
        ----------
        stage : str
            Its name.
        tol : float, optional
            Where the stage may end, if not at the run's own tolerance.
        maxiter : int, optional
            Most iterations of this stage.
        """
        self.run.stage(stage)
        self.ended, self.reason, self._fun = None, None, None
        self._tol = self.tol if tol is None else tol
        self._last = math.inf if maxiter is None else self.run.nit + maxiter

    def done(self, relres, grad):
        """Tell whether what a stage starts from is good enough to end it at once."""
        if self.run.nit == 0:
            # Nothing is on its way yet: this is the caller's start.
            self._exact = relres
        value = self._judged(relres, grad)
        self.reached = min(self.reached, value)
        if value <= self._tol:
            self.ended = Status.CONVERGED
        return self.ended is not None

    def record(
        self, state, *, fun, relres, grad=math.nan, exact=None, inner=0, passes=0, judge=True
    ):
        """Count an iteration; tell whether the stage must end.

        Parameters
        ----------
        state : callable
            Returns (A, B, a, b), in the problem's unit, any gauge.
        fun, relres : float
            Objective in the problem's unit, and relative residual.
        grad : float
            Relative gradient norm of `state`, NaN where it is not known.
        exact : float, optional
            What shows an exact fit, if not `relres`.
        inner : int
            Steps of inner solvers in this iteration.
        passes : int
            Passes over the entries in this iteration.
        judge : bool
            Whether tolerances may end the stage here.
        """
        problem, options, run = self.problem, self._options, self.run
        self._inner += inner
        self._passes += passes
        series = {"objective": fun * problem.unit, "grad": grad, "inner_steps": inner}
        if problem.holdout is not None:
            series["rmse_val"] = problem.scale * problem.holdout_rmse(*state())
        over = run.record(relres, judge=False, state=lambda: self._shown(state), **series)
        exact = relres if exact is None else exact
        value = self._judged(exact, grad)
        self.reached = min(self.reached, value)
        if over:
            self.ended = run.status
        elif judge and value <= self._tol:
            self.ended = Status.CONVERGED
        elif problem.holdout is not None and self._worse(state):
            reason = f"The held-out error had not fallen for {options.patience} iterations."
            self._early = True
            self._end(Status.CALLBACK, reason)
        elif judge and 0 < options.gtol >= grad:
            self._end(Status.STALLED, "The gradient fell below `gtol`, which ended the run.")
        elif judge and self._settled(fun):
            self._end(Status.STALLED, "The objective changed by less than `ftol`: end of the run.")
        elif run.nit >= self._last:
            self.ended = Status.MAXITER
        self._fun, self._exact = fun, exact
        if math.isfinite(relres) and math.isfinite(fun):
            # Engines go on with their own arrays, in place.
            self._sound = tuple(part.copy() for part in state())
        return self.ended is not None

    def leave(self, status, reason):
        """End the stage, for a reason that an engine has found; the run may go on."""
        self.ended, self.reason = status, reason

    def best(self, answer):
        """Return `answer`, or the best iterate if the held-out error ended the run."""
        return self._kept if self._early else answer

    def sound(self, start):
        """Return the last recorded iterate without NaN or infinities, else `start`."""
        return self.problem.balance(*(start if self._sound is None else self._sound))

    def _judged(self, exact, grad):
        if self.problem.lam > 0 and self.problem.loss == "squared":
            values = [grad]
        elif exact < _FALLING * self._exact:
            # On the way to an exact fit the gradient is ahead of the residual.
            values = [exact]
        else:
            values = [exact, grad]
        return min((v for v in values if not math.isnan(v)), default=math.inf)

    def _settled(self, fun):
        before, ftol = self._fun, self._options.ftol
        return ftol > 0 and before is not None and abs(before - fun) < ftol * abs(before)

    def _worse(self, state):
        error = self.problem.holdout_error(*state())
        if error < self._best:
            self._best, self._best_nit = error, self.run.nit
            # Engines go on with their own arrays, balanced ones are new.
            self._kept = self.problem.balance(*state())
        return self.run.nit - self._best_nit >= self._options.patience

    def _end(self, status, reason):
        self.ended, self.reason = status, reason
        self.run.end(status, reason)

    def _shown(self, state):
        """Return what a callback sees: U, s, V in the caller's unit and kind."""
        x = self.problem.balance(*state())
        return {
            "U": self._out(x.U),
            "s": self._out(x.s * self.problem.scale),
            "V": self._out(x.V),
        }
