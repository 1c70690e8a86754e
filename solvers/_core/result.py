"""What every solver returns: the answer, why the run ended, and how good it is."""

import reprlib
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import OptimizeResult

from solvers._core.certificate import Certificate

__all__ = ["ConvergenceWarning", "Result", "Status", "explain"]


class Status(IntEnum):
    """Why a run ended; the same numbers in every family.

    ``CONVERGED``: the certificate holds. ``MAXITER``, ``TIME_LIMIT``: a limit came first.
    ``STALLED``: rounding, or no progress, kept the certificate above its tolerance.
    ``NUMERICAL``: a value was not finite or a factorisation failed; the last finite iterate is
    returned. ``CALLBACK``: ended as the caller asked. ``INFEASIBLE``: no point satisfies the
    constraints. ``UNBOUNDED``: the objective has no lower bound.
    """

    CONVERGED = 0
    MAXITER = 1
    STALLED = 2
    NUMERICAL = 3
    CALLBACK = 4
    TIME_LIMIT = 5
    INFEASIBLE = 6
    UNBOUNDED = 7


# One sentence for each end; `{reached}` is the certificate's quantity with its value.
_SENTENCES = {
    Status.CONVERGED: "{reached} is within the tolerance {tol:.3g} after {iterations}.",
    Status.MAXITER: (
        "{reached} is above the tolerance {tol:.3g} after maxiter = {iterations}; "
        "raise `maxiter`, or start again from this result."
    ),
    Status.STALLED: (
        "{reached} is above the tolerance {tol:.3g} and stopped falling after {iterations}; "
        "loosen the tolerance, rescale the data, or use float64."
    ),
    Status.NUMERICAL: (
        "{reached} at the last finite iterate (tolerance {tol:.3g}), before a value that is not "
        "finite or a breakdown in iteration {nit}; rescale the data or regularise more."
    ),
    Status.CALLBACK: "{reached} (tolerance {tol:.3g}) when asked to stop after {iterations}.",
    Status.TIME_LIMIT: (
        "{reached} is above the tolerance {tol:.3g} at the time limit, after {iterations}; "
        "raise `time_limit`, or start again from this result."
    ),
    Status.INFEASIBLE: (
        "{reached} is above the tolerance {tol:.3g} after {iterations} because no point "
        "satisfies all constraints; relax them."
    ),
    Status.UNBOUNDED: (
        "{reached} is above the tolerance {tol:.3g} after {iterations} because the objective "
        "has no lower bound; add a bound or a penalty."
    ),
}


class ConvergenceWarning(RuntimeWarning):
    """A solver returned an answer whose certificate does not hold.

    ``warnings.simplefilter("error", solvers.ConvergenceWarning)`` turns it into an exception.
    """


def explain(status: Status, certificate: Certificate, nit: int, reason: str | None = None) -> str:
    """Say why a run ended: the value reached, the tolerance and what to do, then the reason."""
    reached = f"{certificate.kind} {certificate.value:.3g}"
    iterations = f"{nit} iteration" if nit == 1 else f"{nit} iterations"
    sentence = _SENTENCES[status].format(
        reached=reached, tol=certificate.tol, nit=nit, iterations=iterations
    )
    return f"{sentence} {reason}" if reason else sentence


_LIBRARY = """\
@software{array_solvers,
  title = {array-solvers: numerical solvers whose results carry certificates},
  author = {{The array-solvers developers}},
}"""


class Result(OptimizeResult):
    """Outcome of a solve: the answer, its certificate and how the run went.

    A dictionary whose keys are attributes too. Keys that start with an underscore are private:
    families keep there what their lazy properties need.

    Attributes
    ----------
    success : bool
        Whether the certificate holds.
    status : Status
        Why the run ended.
    message : str
        The same in a sentence, with the value reached, the tolerance and what to do.
    method : str
        The algorithm that ran.
    nit : int
        Iterations.
    fun : float
        The objective.
    certificate : Certificate
        How good the answer is, computed from the caller's data.
    stages : list of (str, int, float)
        Name, iterations and seconds of each part of the run.
    seconds, compile_seconds : float
        Time of the run without compilation, and of compilation.
    history : dict of str to 1-D numpy.ndarray
        Columns of equal length: ``nit``, ``seconds``, the residual, then the others.
    """

    success: bool
    status: Status
    message: str
    method: str
    nit: int
    fun: float
    certificate: Certificate
    stages: list[tuple[str, int, float]]
    seconds: float
    compile_seconds: float
    history: dict[str, np.ndarray]

    # A family's BibTeX entries by method.
    _bibtex: ClassVar[Mapping[str, str]] = {}

    def summary(self) -> str:
        """Return a few lines: why the run ended, which stages ran, how good the answer is.

        Returns
        -------
        str
            For printing.
        """
        lines = [f"{self.method}: {self.message}"]
        width = max((len(name) for name, _, _ in self.stages), default=0)
        lines += [
            f"  {name:<{width}}  {nit:>6d} iterations  {seconds:9.3f} s"
            for name, nit, seconds in self.stages
        ]
        if self.compile_seconds:
            lines.append(f"  compiling kernels (first call only): {self.compile_seconds:.3f} s")
        lines.append(f"  certificate: {self.certificate}")
        lines += [f"    {name}: {value:.6g}" for name, value in self.certificate.details.items()]
        return "\n".join(lines)

    def plot(self, *, x: str = "seconds", ax: Any = None) -> Any:
        """Draw the convergence of this run; see `solvers.plot_convergence`.

        Parameters
        ----------
        x : {"seconds", "nit"}
            What to draw it against.
        ax : matplotlib axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from solvers._core.plotting import plot_convergence

        return plot_convergence(self, x=x, ax=ax)

    def cite(self) -> str:
        """Return BibTeX for the method that ran, followed by the library's own entry.

        Returns
        -------
        str
            For a bibliography file.
        """
        own = self._bibtex.get(self.method)
        return f"{own.strip()}\n\n{_LIBRARY}" if own else _LIBRARY

    def __dir__(self) -> list[str]:
        # OptimizeResult lists only its keys, which hides methods and properties from completion.
        return sorted({*object.__dir__(self), *self._visible()})

    def __repr__(self) -> str:
        # OptimizeResult cannot print empty dictionaries, and prints long arrays at length.
        rows = {key: _show(value) for key, value in self._visible().items()}
        width = max(map(len, rows), default=0)
        lines = [f"{key:>{width}}: {text}" for key, text in rows.items()]
        return "\n".join([f"{type(self).__name__}:", *lines])

    def _visible(self) -> dict[str, Any]:
        return {key: value for key, value in self.items() if not key.startswith("_")}


def _show(value: Any) -> str:
    """Describe one field on one line."""
    if isinstance(value, Status):
        return f"{value.name} ({value.value})"
    if isinstance(value, Certificate | str):
        return str(value)
    if isinstance(value, Mapping):
        return f"{len(value)} entries: {', '.join(map(str, value))}" if value else "empty"
    if getattr(value, "ndim", 0):
        # Values of a device array would cost a transfer, so only NumPy shows some.
        values = f" [{_ends(value)}]" if isinstance(value, np.ndarray) and value.size else ""
        return f"{value.dtype} array of shape {tuple(value.shape)}{values}"
    if isinstance(value, float | np.floating):
        return f"{value:.8g}"
    return reprlib.repr(value)


def _ends(array: np.ndarray) -> str:
    """Return the first and last entries of an array of any shape."""
    if array.size <= 6:
        return ", ".join(map(_entry, array.flat))
    return ", ".join([*map(_entry, array.flat[:3]), "...", *map(_entry, array.flat[-2:])])


def _entry(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, np.floating) else str(value)
