"""Options, records and results of the models that are no `GLM`: graphs, clusters, factors."""

import numpy as np

from .._core.monitor import Monitor
from .._core.result import Status
from .._core.validation import (
    check_callable,
    check_count,
    check_flag,
    check_flag_or_stride,
    check_positive,
    check_time_limit,
)


class Books:
    """The run of a model, and what it counted.

    Attributes
    ----------
    run : Monitor
    tol : float
        The certificate's value that is wanted now; the run's own tolerance may be smaller.
    npass : float
        Passes over the data so far.
    n_blocks, n_newton : int
        Block updates and Newton steps so far.
    used : dict of str to str
        What "auto" chose.
    """

    def __init__(
        self, name, io, *, tol, maxiter, time_limit, callback, progress, history, stall=None
    ):
        tol = check_positive(tol, "tol", allow_none=True)
        if tol is None:
            tol = 1e-8 if io.dtype == np.float64 else 1e-6
        self.io, self.wanted, self.tol = io, tol, tol
        self.run = Monitor(
            name,
            "value",
            be=io.be,
            tol=tol,
            maxiter=check_count(maxiter, "maxiter"),
            time_limit=check_time_limit(time_limit),
            callback=check_callable(callback, "callback"),
            progress=check_flag(progress, "progress"),
            history=check_flag_or_stride(history, "history"),
            stall=stall,
        )
        self.npass, self.n_blocks, self.n_newton, self.used = 0.0, 0, 0, {}

    def record(self, value, *, state, **series):
        """Count an iteration; tell whether the run must end."""
        # A value that was not small enough for the certificate once is no end.
        judge = not self.tol < value <= self.wanted
        return self.run.record(value, judge=judge, state=state, **series)

    def solve(self, start, engine, judge, *, warm, retries=3):
        """Run an engine until the certificate holds, or the run is at its end.

        Parameters
        ----------
        start : object
            The first point.
        engine : callable
            ``engine(point)`` returns the point it reached.
        judge : callable
            ``judge(point)`` returns its certificate.
        warm : bool
            Whether the first point may be a solution.
        retries : int
            How often an engine whose own measure was too kind is sent on.

        Returns
        -------
        point, Certificate
        """
        point, certificate = start, None
        if warm or self.run.status is not None:
            certificate = judge(start)
            if self.run.status is None and certificate.holds:
                self.run.end(Status.CONVERGED)
        for _ in range(retries):
            if self.run.status is not None:
                break
            reached = engine(point)
            verdict = judge(reached)
            if not np.isfinite(verdict.value):
                self.run.end(Status.NUMERICAL)
                certificate = judge(point)
                break
            point, certificate = reached, verdict
            if certificate.holds or self.run.status is not Status.CONVERGED:
                break
            self.run.status, self.tol = None, 0.1 * self.tol
        else:
            self.run.end(Status.STALLED)
        return point, certificate

    def finish(self, kind, certificate, *, x, note=None, **fields):
        """Return the result; `x` is an array of the back end."""
        io, xp, details = self.io, self.io.xp, certificate.details
        nonzero = x != 0
        support = xp.flatnonzero(nonzero if x.ndim == 1 else nonzero.any(axis=1))
        common = {
            "x": io.out(x),
            "intercept": 0.0,
            "fun": details["primal"],
            "dual_fun": None,
            "gap": None,
            "kkt": details["kkt"],
            "scale": details["scale"],
            "npass": self.npass,
            "n_blocks": self.n_blocks,
            "n_newton": self.n_newton,
            "active_set": io.out(xp.arange(x.shape[0])),
            "support": io.out(support),
            "classes": None,
            "identified_at": self.run.nit,
            "used": self.used,
        }
        return self.run.finish(kind, certificate, note=note, **{**common, **fields})
