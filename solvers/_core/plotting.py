"""Pictures of how runs converged."""

from collections.abc import Mapping
from typing import Any

from solvers._core.result import Result

__all__ = ["plot_convergence"]

_LABELS = {"seconds": "seconds", "nit": "iterations"}


def plot_convergence(
    results: Result | Mapping[str, Result], *, x: str = "seconds", ax: Any = None
) -> Any:
    """Draw the residual of one or several runs against time or iterations.

    Parameters
    ----------
    results : Result or mapping of str to Result
        One run, or runs by the label to show.
    x : {"seconds", "nit"}
        The horizontal axis: time without compilation, or iterations.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, for labels and titles of your own.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If `x` is neither of its two words, or a run kept no history.

    Examples
    --------
    Compare two runs of the same problem:

    >>> solvers.plot_convergence({"ours": first, "theirs": second}, x="nit")  # doctest: +SKIP
    """
    if x not in _LABELS:
        raise ValueError(f"`x` came as {x!r}; expected one of {', '.join(map(repr, _LABELS))}")
    runs = {results.method: results} if isinstance(results, Result) else results
    for label, run in runs.items():
        if not run.history:
            raise ValueError(f"`{label}` came without a history; expected a run with history=True")
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            'Plots need matplotlib: pip install "array-solvers[plot]".', name="matplotlib"
        ) from error
    ax = plt.subplots()[1] if ax is None else ax
    for label, run in runs.items():
        kind = _residual_name(run)
        # A residual of exactly zero has no place on a logarithmic axis.
        shown = run.history[kind] > 0
        (line,) = ax.plot(
            run.history[x][shown], run.history[kind][shown], marker=".", label=f"{label}: {kind}"
        )
        ax.axhline(run.certificate.tol, color=line.get_color(), linestyle=":", linewidth=1)
    ax.set(xlabel=_LABELS[x], ylabel="residual (dotted: tolerance)", yscale="log")
    ax.legend()
    return ax


def _residual_name(result: Result) -> str:
    """Return the name of the residual, which the history holds behind its two clocks."""
    return next(name for name in result.history if name not in _LABELS)
