"""The one place that counts, times, records, reports and ends the iterations of a solver."""

import itertools
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from solvers._core.certificate import Certificate
from solvers._core.result import ConvergenceWarning, Result, Status, explain

__all__ = ["Monitor"]

R = TypeVar("R", bound=Result)
State = Callable[[], Mapping[str, Any]]

_logger = logging.getLogger("solvers")
_PACKAGE = str(Path(__file__).parents[1]) + os.sep


class Monitor:
    """Keeps the books of one run and decides when it ends.

    Parameters
    ----------
    method : str
        Name of the solver, for messages and `Result.method`.
    kind : str
        The recorded residual, as a key of `Result.history`: ``"marginal_error"``.
    be : Backend, optional
        Where device scalars come from; None for values that are on the host already.
    tol : float
        The run converges when a judged residual is at most `tol`.
    maxiter : int or None
        Largest number of iterations.
    time_limit : float, optional
        Seconds of wall-clock time, compilation included.
    callback : callable, optional
        Called with a `Result` after every recorded iteration; ends the run by a true return
        value or StopIteration.
    progress : bool
        Whether to show progress on stderr.
    history : bool or int
        Whether, or every how many iterations, to keep a row; the last is always kept.
    stall : int, optional
        End the run when the judged residual has not fallen by 1 % in this many iterations.

    Notes
    -----
    A solver calls `record` after every iteration and `finish` once. Iterating over the monitor
    yields 0, 1, ... until the run ends. Times exclude compilation.
    """

    def __init__(
        self,
        method: str,
        kind: str,
        *,
        be: Any = None,
        tol: float,
        maxiter: int | None,
        time_limit: float | None = None,
        callback: Callable[[Result], Any] | None = None,
        progress: bool = False,
        history: bool | int = True,
        stall: int | None = None,
    ) -> None:
        self.method, self.kind, self.nit = method, kind, 0
        self.status: Status | None = None
        self._reason: str | None = None
        self._host = be.host if be else _as_they_are
        self.tol, self.maxiter = tol, math.inf if maxiter is None else maxiter
        self._time_limit = math.inf if time_limit is None else time_limit
        self._stall = math.inf if stall is None else stall
        self._callback = callback
        self._stride = int(history)
        self._rows: list[dict[str, float]] = []
        self._last_row: dict[str, float] = {}
        self._best, self._best_nit = math.inf, 0
        self._started, self._compiled_before = time.perf_counter(), _compile_seconds()
        self._stages: dict[str, tuple[int, float]] = {}
        self._stage, self._entered = method, (0, 0.0)
        self._bar = _progress_bar(method) if progress else None
        if maxiter == 0:
            self.end(Status.MAXITER)

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling kernels since the run began."""
        return _compile_seconds() - self._compiled_before

    @property
    def seconds(self) -> float:
        """Seconds since the run began, without compilation."""
        return time.perf_counter() - self._started - self.compile_seconds

    @property
    def late(self) -> bool:
        """Whether the time limit has passed; for long loops between two records."""
        return time.perf_counter() - self._started > self._time_limit

    def continue_from(self, nit: int) -> None:
        """Count on from an earlier run that took `nit` iterations."""
        self.nit, self._entered = nit, (nit, 0.0)
        if nit >= self.maxiter:
            self.end(Status.MAXITER)

    def stage(self, name: str) -> None:
        """Begin, or come back to, a named part of the run."""
        self._leave_stage()
        self._stage, self._entered = name, (self.nit, self.seconds)
        self._best, self._best_nit = math.inf, self.nit
        _logger.debug("%s: stage %s", self.method, name)

    def __iter__(self) -> Iterator[int]:
        """Yield 0, 1, 2, ... as long as the run goes on."""
        for turn in itertools.count():
            if self.status is None and self.late:
                self.end(Status.TIME_LIMIT)
            if self.status is not None:
                return
            yield turn

    def record(
        self,
        value: Any,
        /,
        *,
        judge: bool = True,
        iterations: int = 1,
        state: State | None = None,
        **series: Any,
    ) -> bool:
        """Count a finished iteration and tell whether the run must end.

        Parameters
        ----------
        value : scalar, on any device
            The residual.
        judge : bool
            Whether a value within the tolerance ends the run; False where the residual does not
            belong to the caller's problem, such as a smoothed one.
        iterations : int
            How many iterations finished since the last call.
        state : callable, optional
            Returns the current answer by field name; called only if there is a callback.
        **series : scalar, on any device
            Further columns of the history, such as ``fun``.

        Returns
        -------
        bool
            True if the run must end. Once it must, nothing is counted or reported any more.
        """
        if self.status is not None:
            return True
        self.nit += iterations
        values = self._host(value, *series.values())
        # A single value comes back bare.
        value, *others = map(float, values if series else [values])
        row = {"nit": self.nit, "seconds": self.seconds, self.kind: value}
        row.update(zip(series, others, strict=True))
        self._keep(row)
        if not math.isfinite(value):
            self.end(Status.NUMERICAL)
            return True
        asked_to_stop = self._call_back(row, state)
        if judge and value <= self.tol:
            self.end(Status.CONVERGED)
        elif asked_to_stop:
            self.end(Status.CALLBACK)
        elif self.nit >= self.maxiter:
            self.end(Status.MAXITER)
        elif self.late:
            self.end(Status.TIME_LIMIT)
        elif judge and self._no_progress(value):
            self.end(Status.STALLED, f"It fell by less than 1 % in {self._stall} iterations.")
        return self.status is not None

    def end(self, status: Status, reason: str | None = None) -> None:
        """End the run with a status and, where the status leaves it open, one more sentence."""
        self.status, self._reason = status, reason

    def finish(
        self,
        kind: type[R],
        certificate: Certificate,
        /,
        *,
        note: str | None = None,
        warn: bool = True,
        **fields: Any,
    ) -> R:
        """Build the result and warn if its certificate does not hold.

        Parameters
        ----------
        kind : type
            The family's result class.
        certificate : Certificate
            Computed from the caller's data at the returned point; it alone decides `success`.
        note : str, optional
            One more sentence for the message.
        warn : bool
            False for an inner run whose outer run warns.
        **fields
            The answer, by field name.

        Returns
        -------
        Result
            An instance of `kind`.
        """
        self._leave_stage()
        if self._bar is not None:
            self._bar.close()
        status, reason = self._verdict(certificate)
        result = kind(
            success=certificate.holds,
            status=status,
            message=" ".join(filter(None, [explain(status, certificate, self.nit, reason), note])),
            method=self.method,
            nit=self.nit,
            **fields,
            certificate=certificate,
            stages=[(name, nit, seconds) for name, (nit, seconds) in self._stages.items()],
            seconds=self.seconds,
            compile_seconds=self.compile_seconds,
            history=self._table(),
        )
        _logger.info("%s: %s", self.method, result.message)
        if warn and status not in (Status.CONVERGED, Status.CALLBACK):
            message = f"{self.method}: {result.message}"
            warnings.warn(message, ConvergenceWarning, stacklevel=_level_of_the_caller())
        return result

    def _verdict(self, certificate: Certificate) -> tuple[Status, str | None]:
        """Reconcile how the run ended with what the certificate says."""
        if self.status is Status.CALLBACK:
            return self.status, self._reason
        if certificate.holds:
            return Status.CONVERGED, None
        if self.status is Status.CONVERGED:
            return Status.STALLED, "The solver's own residual had reached the tolerance."
        # A loop that was left without a verdict had nothing more to do.
        return self.status or Status.STALLED, self._reason

    def _call_back(self, row: dict[str, float], state: State | None) -> bool:
        if self._callback is None:
            return False
        answer = {k: _read_only(v) for k, v in state().items()} if state else {}
        try:
            return bool(self._callback(Result(method=self.method, **row, **answer)))
        except StopIteration:
            return True

    def _no_progress(self, value: float) -> bool:
        if value < 0.99 * self._best:
            self._best, self._best_nit = value, self.nit
        return self.nit - self._best_nit >= self._stall

    def _keep(self, row: dict[str, float]) -> None:
        value = row[self.kind]
        _logger.debug("%s: iteration %d, %s %.6e", self.method, self.nit, self.kind, value)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.kind} {value:.2e}", refresh=False)
            self._bar.update(self.nit - self._bar.n)
        self._last_row = row
        if self._stride and (not self._rows or self.nit >= self._rows[-1]["nit"] + self._stride):
            self._rows.append(row)

    def _table(self) -> dict[str, np.ndarray]:
        """Return the history as columns; a series that a row lacks is NaN there.

        There are none where the caller wanted no history.
        """
        if not self._stride:
            return {}
        rows = self._rows
        if rows and rows[-1] is not self._last_row:
            rows.append(self._last_row)
        names = dict.fromkeys(itertools.chain(["nit", "seconds", self.kind], *rows))
        table = {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
        table["nit"] = table["nit"].astype(np.int64)
        return table

    def _leave_stage(self) -> None:
        nit, seconds = self._stages.get(self._stage, (0, 0.0))
        nit, seconds = nit + self.nit - self._entered[0], seconds + self.seconds - self._entered[1]
        # The unnamed stage before the first named one is no stage unless it iterated.
        if nit or self._stage != self.method:
            self._stages[self._stage] = nit, seconds


class _Lines:
    """A line of text once a second, where tqdm is not installed; same methods as its bar."""

    def __init__(self, method: str) -> None:
        self._method, self._text, self.n = method, "", 0
        self._shown = time.perf_counter()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self._text = text

    def update(self, iterations: int) -> None:
        self.n += iterations
        if time.perf_counter() - self._shown >= 1.0:
            self.close()
            self._shown = time.perf_counter()

    def close(self) -> None:
        sys.stderr.write(f"{self._method}: {self.n} iterations, {self._text}\n")


def _progress_bar(method: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return _Lines(method)
    # No total: `maxiter` is a limit, not an expectation.
    return tqdm(desc=method, unit="it", file=sys.stderr)


def _as_they_are(*values: Any) -> Any:
    return values if len(values) > 1 else values[0]


def _read_only(value: Any) -> Any:
    """Return a view that a callback cannot write to; other kinds of arrays have none."""
    if not isinstance(value, np.ndarray):
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def _compile_seconds() -> float:
    """Return the seconds this thread has spent compiling, without loading Numba to know it."""
    # Another thread may be half-way through importing the module, hence getattr.
    clock = getattr(sys.modules.get("solvers._core.kernels.jit"), "compile_seconds", None)
    return clock() if clock else 0.0


def _level_of_the_caller() -> int:
    """Return the stack level, seen from our caller, of the first frame outside the package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
