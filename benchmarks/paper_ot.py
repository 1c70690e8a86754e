"""The three experiments of the Sinkhorn-Newton-Sparse paper, repeated.

Run from the repository's root::

    python -m benchmarks.paper_ot

Sinkhorn, plain and over-relaxed, the method as published (``method="sns-paper"``) and
`sinkhorn_newton` solve the same problems at three entropic weights: one run each, whose history
says when an error of 1e-6 and of 1e-10 was reached. The error at the end is recomputed here.
Writes ``results/paper_ot.md`` and ``.json``, and the figure of the documentation.

The images are the digits of scikit-learn, enlarged, in place of MNIST's, which would have to be
downloaded. What the paper's table says is second-hand, from a public digest of it.
"""

import argparse
import json
import logging
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import marginal_error, plan_from_potentials
from benchmarks.peers import common
from solvers import datasets, ot

FIGURE = Path(__file__).parents[1] / "docs" / "_static" / "paper_ot.png"
GOALS = 1e-6, 1e-10
# Largest cost divided by the entropic weight; the paper has 1200 only.
SHARPNESS = 200, 1200, 5000
PUBLISHED_SHARPNESS = 1200
PLAIN, RELAXED = "Sinkhorn", "over-relaxed Sinkhorn"
PUBLISHED, OURS = "SNS, as published", "sinkhorn_newton"
METHODS = PLAIN, RELAXED, PUBLISHED, OURS
# Points of a history that are kept, for the figure.
KEPT = 60

log = logging.getLogger(__name__)


class Experiment(NamedTuple):
    """A problem, and with which settings the paper's method is to solve it.

    `sweeps` and `neighbours` (kept entries of the Hessian, per row) are the paper's where it gives
    them. `published` holds its iterations for SNS and for Sinkhorn.
    """

    problem: Any
    sweeps: int
    neighbours: int
    published: tuple[int, int] | None


def experiments():
    """Return the paper's experiments by name."""
    digits = datasets.digits_transport(side=28)
    cityblock = datasets.digits_transport(side=28, metric="cityblock")
    grid = datasets.grid_transport(500)
    return {
        "assignment": Experiment(datasets.assignment(500, rng=0), 20, 2, (29, 56_199)),
        "digits, l2": Experiment(digits, 20, 15, (53, 2_041)),
        "digits, l1": Experiment(cityblock, 700, 15, (777, 5_748)),
        "densities, W2": Experiment(grid, 100, 40, None),
        "densities, W1": Experiment(grid._replace(C=np.sqrt(grid.C)), 100, 40, None),
    }


def solve(method, experiment, reg, seconds):
    """Run one method on one problem."""
    a, b, C = experiment.problem[:3]
    options = {"reg": reg, "tol": GOALS[-1], "time_limit": seconds, "maxiter": 10**6}
    if method == PUBLISHED:
        options["method"] = "sns-paper"
        options["n_sinkhorn"] = experiment.sweeps
        options["sparsity"] = min(1.0, experiment.neighbours / max(C.shape))
    elif method != OURS:
        options["method"] = "stabilized" if method == PLAIN else "overrelaxed"
    function = ot.sinkhorn_newton if method in (PUBLISHED, OURS) else ot.sinkhorn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table says what failed
        return function(a, b, C, **options)


def first_below(res, goal):
    """Return iterations and seconds until the error was that small, or None."""
    history = res.history
    small = history["marginal_error"] <= goal
    if "reg" in history:
        # Errors at other entropic weights are those of other problems.
        small &= history["reg"] == res.reg
    if not small.any():
        return None
    first = int(np.argmax(small))
    return int(history["nit"][first]), float(history["seconds"][first])


def measure(name, sharpness, method, experiment, seconds):
    """Solve one problem by one method; return what the tables and the figure need."""
    reg = float(experiment.problem.C.max()) / sharpness
    res = solve(method, experiment, reg, seconds)
    error = marginal_error(
        plan_from_potentials(res.f, res.g, experiment.problem, reg), *experiment.problem[:2]
    )
    history = res.history
    last = len(history["nit"]) - 1
    # Evenly on a logarithmic axis.
    kept = np.unique(np.geomspace(1, last + 1, KEPT).round().astype(int)) - 1
    return {
        "experiment": name,
        "sharpness": sharpness,
        "method": method,
        "reached": {f"{goal:g}": first_below(res, goal) for goal in GOALS},
        "error": error,
        "end": res.status.name,
        "seconds": res.seconds,
        "passes": res.nit,
        "sweeps": res.nsinkhorn,
        "newton": res.nnewton,
        "cg": res.ncg,
        "density": None if method in (PLAIN, RELAXED) else float(res.density),
        "gap": res.certificate.details["entropic_gap"],
        "curve": {
            key: [float(f"{x:.3g}") for x in history[key][kept]]
            for key in ("nit", "seconds", "marginal_error")
        },
    }


def page(rows, published, command):
    """Return the report."""
    header = [
        *("experiment", "max C / reg", "method", "it. to 1e-6", "s to 1e-6", "it. to 1e-10"),
        *("s to 1e-10", "sweeps", "Newton steps", "CG", "kept density", "gap", "end"),
    ]
    versions = ", ".join(f"{name} {common.version(name)}" for name in ("numpy", "scipy", "numba"))
    return "\n\n".join(
        [
            "# The experiments of the Sinkhorn-Newton-Sparse paper",
            "One run each. Iterations are sweeps of Sinkhorn, sweeps and Newton steps of SNS, and "
            "passes over the cost of `sinkhorn_newton`, which come on the way down from larger "
            "entropic weights too; its sweeps and Newton steps between two passes cost a fraction "
            "of one. The gap is that of the entropic problem, certified. An error in place of an "
            "end is what was left when the time was up or the method had stalled.",
            "## Iterations to 1e-10",
            "At a `reg` of 1/1200 of the largest cost, and what the paper reports for runs to "
            "machine accuracy. Its images are MNIST's and its assignment is another draw. A dash: "
            "not reached within the time limit.",
            common.markdown(
                ["experiment", "SNS, paper", "SNS, here", "Sinkhorn, paper", "Sinkhorn, here",
                 "sinkhorn_newton"],
                [_comparison(name, counts, rows) for name, counts in published.items()],
            ),
            "## All runs",
            common.markdown(header, [_line(row) for row in rows]),
            f"`{command}` ({common.machine()}; {versions})\n",
        ]
    )  # fmt: skip


def _comparison(name, counts, rows):
    here = {
        row["method"]: _reached(row, GOALS[-1])[0]
        for row in rows
        if row["experiment"] == name and row["sharpness"] == PUBLISHED_SHARPNESS
    }
    plain, sparse, ours = (here.get(method, "-") for method in (PLAIN, PUBLISHED, OURS))
    return [name, f"{counts[0]:,}", sparse, f"{counts[1]:,}", plain, ours]


def _line(row):
    reached = [text for goal in GOALS for text in _reached(row, goal)]
    density = "-" if row["density"] is None else f"{row['density']:.3f}"
    counts = [f"{row[key]:,}" for key in ("sweeps", "newton", "cg")]
    converged = row["error"] <= 1.01 * GOALS[-1]
    end = "certified" if converged else f"{row['end']} at {row['error']:.0e}"
    gap = f"{row['gap']:.0e}"
    place = [row["experiment"], row["sharpness"], row["method"]]
    return [*place, *reached, *counts, density, gap, end]


def _reached(row, goal):
    reached = row["reached"][f"{goal:g}"]
    if reached is None:
        return "-", "-"
    return f"{reached[0]:,}", common.significant(reached[1])


def draw(rows, path):
    """Draw error against iterations and seconds at the paper's entropic weight."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["sharpness"] == PUBLISHED_SHARPNESS]
    names = list(dict.fromkeys(row["experiment"] for row in rows))
    size = (2.5 * len(names) + 1, 5)
    fig, axes = plt.subplots(2, len(names), figsize=size, sharey=True, layout="constrained",
                             squeeze=False)  # fmt: skip
    styles = dict(zip(METHODS, ("C7", "C2", "C1", "C0"), strict=True))
    for row in rows:
        column = axes[:, names.index(row["experiment"])]
        curve = row["curve"]
        for ax, key in zip(column, ("nit", "seconds"), strict=True):
            ax.loglog(curve[key], curve["marginal_error"], styles[row["method"]], marker=".",
                      markersize=3, label=row["method"])  # fmt: skip
    for top, bottom, name in zip(*axes, names, strict=True):
        top.set(title=name, xlabel="iterations")
        bottom.set(xlabel="seconds")
    for ax in axes.flat:
        ax.grid(alpha=0.3)
        ax.set_ylim(1e-12, 5.0)
    for ax in axes[:, 0]:
        ax.set_ylabel("marginal error (L1)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=90)
    plt.close(fig)


def run(options, cases=None):
    """Solve everything; write the tables and the figure."""
    cases = cases or experiments()
    rows = []
    for experiment in cases.values():
        for method in METHODS:
            solve(method, experiment, 1.0, 1.0)  # compiles
        for sharpness in SHARPNESS:
            # Small weights need kernels that large ones do not.
            solve(OURS, experiment, float(experiment.problem.C.max()) / sharpness, 60.0)
    for name, experiment in cases.items():
        for sharpness in SHARPNESS:
            for method in METHODS:
                limit = options.seconds
                if method == PUBLISHED and sharpness == PUBLISHED_SHARPNESS:
                    # The run to compare with the paper's, whose sweeps alone take longer.
                    limit *= 8 if experiment.sweeps > 100 else 1
                row = measure(name, sharpness, method, experiment, limit)
                rows.append(row)
                log.info(" | ".join(map(str, _line(row))))
    published = {name: case.published for name, case in cases.items() if case.published}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "paper_ot.md").write_text(page(rows, published, options.command))
    (options.out / "paper_ot.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows, options.figure)


def worker(options):
    """Run in a process whose number of threads is set."""
    options.command = common.command("benchmarks.paper_ot")
    run(options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="limit for one run")
    parser.add_argument("--threads", nargs=1, type=int, default=[1])
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    common.main("benchmarks.paper_ot", parser, worker)


if __name__ == "__main__":
    main()
