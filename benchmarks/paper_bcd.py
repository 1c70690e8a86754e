"""The experiments of Nutini, Laradji and Schmidt on block coordinate descent, measured.

Run from the repository's root::

    python -m benchmarks.paper_bcd

Five problems, generated as the authors generate theirs: least squares and non-negative lasso (A),
logistic (B) and multinomial (C) classification without a penalty, label propagation on a lattice
(D) and between two moons (E). For each experiment of the paper, the objective less its least
value, by block updates and by seconds, for the rules that it compares. Writes
``results/paper_bcd.md`` and ``.json``, and the figure of the documentation. `--quick` runs all of
it in small, `--only` some experiments, which take the place of earlier results.
"""

import argparse
import json
import logging
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

from benchmarks.peers import common
from solvers import bcd, penalties
from solvers.bcd.rules import SELECTIONS
from solvers.bcd.rules._graph import tree

FIGURE = Path(__file__).parents[1] / "docs" / "_static" / "paper_bcd.png"
# Of the penalised problem, for the sum of squares.
WEIGHT = 50000.0
# Rules that look at nothing are recorded now and then, lest the clock measure the recording.
STRIDE = 10
# Below this, relative to the start, differences of objectives are rounding.
FLOOR = 1e-13

log = logging.getLogger(__name__)


class Case(NamedTuple):
    """A problem with its least value, and what its objective is multiplied by."""

    problem: Any
    least: float
    scale: float = 1.0


# ---- the problems


def design(n, p):
    """Return the authors' matrix A, targets and the generator that made them."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((n, p)) + 1.0) * (10.0 * rng.standard_normal(p))
    X *= rng.random((n, p)) < 10.0 * np.log(n) / n
    w = rng.standard_normal(p) * (rng.random(p) < 0.1)
    return sp.csc_array(X), X @ w, rng


def least_squares(n, p):
    """Return problem A: with more columns than rows, the residual can vanish."""
    X, z, rng = design(n, p)
    return Case(bcd.Problem(X, z + rng.standard_normal(n)), 0.0, n)


def nonnegative_lasso(n, p):
    """Return problem A with bounds and a penalty; fewer rows get a lesser weight."""
    X, z, rng = design(n, p)
    y = z + rng.standard_normal(n)
    alpha = WEIGHT / n if n == 1000 else 0.2 * (X.T @ y).max() / n
    best = bcd.lasso(X, y, alpha, positive=True, tol=1e-13)
    problem = bcd.Problem(X, y, penalty=penalties.PositiveL1(alpha))
    return Case(problem, n * best.fun, n)


def logistic(n, p):
    """Return problem B: separable, so that the loss can vanish."""
    X, z, rng = design(n, p)
    y = np.where(z > 0, 1.0, -1.0) * np.where(rng.random(n) < 0.1, -1.0, 1.0)
    return Case(bcd.Problem(X, y, datafit="logistic"), 0.0)


def multinomial(n, p, classes=50):
    """Return problem C."""
    X, _, rng = design(n, p)
    W = rng.standard_normal((p, classes))
    y = np.argmax(X @ W + rng.standard_normal((n, classes)), axis=1)
    return Case(bcd.Problem(X, y, datafit="multinomial"), 0.0)


def lattice(side, labelled):
    """Return problem D: a lattice with heavy edges, some nodes of which have a value."""
    rng = np.random.default_rng(0)
    nodes = np.arange(side * side).reshape(side, side)
    one = np.concatenate([nodes[:, :-1].ravel(), nodes[:-1].ravel()])
    two = np.concatenate([nodes[:, 1:].ravel(), nodes[1:].ravel()])
    W = sp.coo_array((np.full(one.size, 1e5), (one, two)), shape=(side**2, side**2)).tocsr()
    known = rng.choice(side**2, labelled, replace=False)
    return propagation(W + W.T, known, 10.0 * rng.standard_normal(labelled))


def moons(points, labelled):
    """Return problem E: neighbours among points on two half circles."""
    rng = np.random.default_rng(0)
    angle, upper = np.pi * rng.random(points), rng.random(points) < 0.5
    P = np.where(upper, [np.cos(angle), np.sin(angle)], [1 - np.cos(angle), 0.5 - np.sin(angle)])
    P = P.T + 0.2 * rng.standard_normal((points, 2))
    _, near = cKDTree(P).query(P, k=6)
    rows, cols = np.repeat(np.arange(points), 5), near[:, 1:].ravel()
    W = sp.coo_array((np.ones(rows.size), (rows, cols)), shape=(points, points)).tocsr()
    known = rng.choice(points, labelled, replace=False)
    return propagation(W.maximum(W.T), known, np.where(upper[known], 1.0, 2.0))


def propagation(W, known, values):
    """Return the quadratic of the unlabelled nodes of a graph."""
    unknown = np.setdiff1d(np.arange(W.shape[0]), known)
    L = (sp.diags_array(np.asarray(W.sum(axis=1)).ravel()) - W).tocsr()
    A, b = L[unknown][:, unknown], -(L[unknown][:, known] @ values)
    x = spsolve(A.tocsc(), b)
    return Case(bcd.Problem.quadratic(A, b), -0.5 * float(b @ x))


# ---- a run


def trace(case, iterations, **rules):
    """Run some rules; return how far the objective was from its least value, and when."""
    stride = 1 if SELECTIONS[rules["selection"]].greedy else min(STRIDE, iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table says how a run ended
        res = bcd.minimize(
            case.problem, maxiter=iterations, tol=1e-14, check_every=stride, rng=0,
            working_set=False, **rules,
        )  # fmt: skip
    model = case.problem.model
    start = case.scale * model.objective(*model.zeros()) - case.least
    gaps = [start, *(case.scale * res.history["fun"] - case.least)]
    count = [0, *np.minimum(stride * np.arange(1, len(gaps)), max(res.nit, 1)).tolist()]
    # Enough for a curve.
    kept = [k for k in range(len(gaps)) if count[k] % STRIDE == 0 or k == len(gaps) - 1]
    seconds = [0.0, *res.history["seconds"]]
    return {
        "iteration": [count[k] for k in kept],
        "gap": [float(f"{max(gaps[k] / start, FLOOR):.4g}") for k in kept],
        "seconds": [float(f"{seconds[k]:.4g}") for k in kept],
        "certificate": f"{res.certificate.kind} {res.certificate.value:.1e}",
        "end": res.status.name,
    }


def compare(options, figure, what, case, entries, iterations=None):
    """Run the entries (label, rules) of an experiment on a problem."""
    runs = []
    for label, rules in entries:
        run = trace(case, iterations or options.iterations, **rules)
        runs.append({"label": label, "size": rules.get("block_size"), **run})
        log.info("%s %s %s: %.1e", figure, label, runs[-1]["size"], run["gap"][-1])
    return {"figure": figure, "what": what, "runs": runs}


def grid(sizes, update, rules):
    """Return entries for all sizes of block and all (partition, selection)."""
    return [
        (
            f"{partition} {selection}",
            {
                "partition": partition,
                "selection": selection,
                "update": update,
                "block_size": size,
            },
        )
        for size in sizes
        for partition, selection in rules
    ]


# ---- the experiments


def gradient_steps(options):
    """Figures 4 and 8: fixed against variable blocks, gradient steps."""
    rules = [("sort", name) for name in ("random", "cyclic", "lipschitz", "gs", "gsl")]
    rules += [("variable", name) for name in ("random", "gs", "gsl", "gsd")]
    entries = grid(options.sizes, "gradient", rules)
    what = "Gradient steps on A: fixed and variable blocks"
    return compare(options, "4/8", what, least_squares(options.n, options.p), entries)


def step_lengths(options):
    """Figure 9: curvatures found by trial against those computed."""
    rules = [("sort", "gs"), ("sort", "gsl"), ("variable", "gs"), ("variable", "gsd")]
    entries = []
    for update, word in (("gradient", "exact L"), ("lipschitz_ls", "approximate L")):
        made = grid(options.sizes[1:2], update, rules)
        entries += [(f"{label}, {word}", r) for label, r in made]
    what = "Gradient steps on A: L_b computed, and found by trial"
    return compare(options, "9", what, least_squares(options.n, options.p), entries)


def partitions(options):
    """Figure 10: how unknowns are put into fixed blocks."""
    rules = [(how, name) for how in ("sort", "order", "avg") for name in ("gs", "gsd", "gsl")]
    entries = grid(options.sizes[1:2], "gradient", rules)
    what = "Gradient steps on A: three partitions"
    return compare(options, "10", what, least_squares(options.n, options.p), entries)


def matrix_steps(options):
    """Figures 5 and 11: steps by a matrix, and the rule that knows it."""
    rules = [("sort", name) for name in ("random", "gs", "gsl", "gsq")]
    rules += [("variable", name) for name in ("random", "gs", "gsd", "gsq", "gsq-iht")]
    entries = grid(options.sizes, "matrix", rules)
    what = "Matrix steps on A"
    return compare(options, "5/11", what, least_squares(options.n, options.p), entries)


def newton_steps(options):
    """Figure 12: Newton steps with a line search on two classifications."""
    rules = [("sort", "random"), ("sort", "gs"), ("variable", "random"), ("variable", "gs")]
    cases = (
        ("12, B", "Newton steps on B, two classes", logistic(options.n, options.p)),
        ("12, C", "Newton steps on C, many classes", multinomial(options.n, options.n)),
    )
    entries = grid(options.sizes[:2], "newton", rules)
    return [compare(options, *case, entries, options.newton) for case in cases]


def forests(options):
    """Figures 6a and 6b: trees, colours and general blocks on two graphs."""
    cases = (
        ("6a", "Label propagation on a lattice", lattice(options.side, options.labelled)),
        ("6b", "Label propagation between moons", moons(options.points, options.labelled)),
    )
    entries = [
        ("greedy tree, gs", {"partition": "forest_variable", "selection": "gs", "update": "tree"}),
        (
            "random tree",
            {"partition": "forest_variable", "selection": "random", "update": "tree"},
        ),
        ("fixed trees, gs", {"partition": "tree", "selection": "gs", "update": "tree"}),
        ("fixed trees, cyclic", {"partition": "tree", "selection": "cyclic", "update": "tree"}),
        ("red-black, gs", {"partition": "redblack", "selection": "gs", "update": "tree"}),
        ("red-black, cyclic", {"partition": "redblack", "selection": "cyclic", "update": "tree"}),
    ]
    results = []
    for figure, what, case in cases:
        # What a general block of the cost of a tree can hold.
        size = max(round(case.problem.model.size ** (1 / 3)), 1)
        general = {"partition": "variable", "update": "exact", "block_size": size}
        more = [("general, gs", {**general, "selection": "gs"})]
        more += [("general, random", {**general, "selection": "random"})]
        # By default trees are filled by descending diagonal; as nodes come, it shows how much
        # that is worth. (Lattices are cut into two combs anyway.)
        natural = tree(case.problem.model, None, None, order="natural")
        parts = [natural[number].tolist() for number in range(natural.number)]
        plain = {"partition": parts, "selection": "gs", "update": "exact"}
        more += [("fixed trees in natural order, gs", plain)]
        results.append(compare(options, figure, what, case, entries + more))
    return results


def bounded(options):
    """Figures 7 and 13: proximal gradient, proximal Newton and two-metric steps."""
    entries = []
    for update, word in (("gradient", "PG"), ("prox_newton", "PN"), ("two_metric", "TMP")):
        for label, rules in grid(
            options.sizes, update, [("variable", "gsq"), ("variable", "random")]
        ):
            entries.append((f"{word}, {label.split()[1]}", rules))
    what = "Non-negative lasso on A"
    case = nonnegative_lasso(options.n, options.p)
    return compare(options, "7/13", what, case, entries)


def finite_termination(options):
    """Return after how many exact block updates nothing of the lasso is violated any more."""
    case = nonnegative_lasso(options.n, options.p)
    model = case.problem.model
    X, y, a = model.design.X, model.y, float(model.bound.alpha[0])
    table = []
    for size in sorted(options.sizes, reverse=True):
        for selection in ("gsq", "random"):
            violations = []

            def watch(seen, violations=violations):
                g = X.T @ (X @ seen.x - y) / y.size + a
                inside = np.where(seen.x > 0, abs(g), np.maximum(-g, 0.0))
                violations.append(float(inside.max() / a))
                return violations[-1] <= 1e-11

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                res = bcd.minimize(
                    case.problem, partition="variable", block_size=size, selection=selection,
                    update="exact", working_set=False, maxiter=options.exact, tol=1e-15,
                    check_every=1, callback=watch, rng=0,
                )  # fmt: skip
            table.append(
                {
                    "size": size,
                    "selection": selection,
                    "support": int(np.count_nonzero(res.x)),
                    "updates": len(violations),
                    "violation": violations[-1],
                    "fun": case.scale * res.fun,
                }
            )
            log.info(" | ".join(map(str, _count_line(table[-1]))))
    return table


EXPERIMENTS = (
    gradient_steps,
    step_lengths,
    partitions,
    matrix_steps,
    newton_steps,
    forests,
    bounded,
)


# ---- the report


def page(found, command):
    """Return the report."""
    versions = ", ".join(f"{name} {common.version(name)}" for name in ("numpy", "scipy", "numba"))
    parts = [
        "# Block coordinate descent with greedy rules: the paper's experiments, measured",
        "The objective less its least value, relative to that at the start, after a tenth and "
        "after all of the block updates and after the seconds in the header; what the last point "
        "is certified to. Each rule ran once: seconds tell orders of magnitude. Rules are named "
        "as in the documentation: a partition, then a selection.",
    ]
    for result in figures(found):
        limit = max(run["iteration"][-1] for run in result["runs"])
        clock = float(np.median([run["seconds"][-1] for run in result["runs"]]))
        header = ["rules", "size", f"after {max(limit // 10, 1)}", f"after {limit}",
                  f"after {common.significant(clock)} s", "ms per update",
                  "certificate"]  # fmt: skip
        rows = [_run_line(run, limit, clock) for run in result["runs"]]
        parts += [f"## Figure {result['figure']}: {result['what']}", common.markdown(header, rows)]
    parts += [
        "## Finite termination",
        "Non-negative lasso on A with exact block updates, until the largest violation of "
        "optimality is 1e-11 of the penalty's weight.",
        common.markdown(
            ["size", "selection", "block updates", "violation / weight", "support", "objective"],
            [_count_line(row) for row in found.get("finite_termination", [])],
        ),
        f"`{command}` ({common.machine()}; {versions})\n",
    ]
    return "\n\n".join(parts)


def at(run, series, limit):
    """Return the distance that a run had reached when a series passed a limit."""
    return run["gap"][int(np.searchsorted(run[series], limit, side="right")) - 1]


def _run_line(run, limit, clock):
    cells = [
        f"{at(run, 'iteration', max(limit // 10, 1)):.1e}",
        f"{run['gap'][-1]:.1e}",
        f"{at(run, 'seconds', clock):.1e}",
        common.significant(1e3 * run["seconds"][-1] / max(run["iteration"][-1], 1)),
    ]
    return [run["label"], run["size"] or "-", *cells, run["certificate"]]


def _count_line(row):
    updates = row["updates"] if row["violation"] <= 1e-11 else f"not in {row['updates']}"
    shown = f"{row['violation']:.1e}"
    return [row["size"], row["selection"], updates, shown, row["support"], f"{row['fun']:.3f}"]


def draw(found, path):
    """Draw each experiment at one size of block, by block updates."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(3, 3, figsize=(14, 11), layout="constrained")
    for ax, result in zip(axes.ravel(), figures(found), strict=False):
        sizes = [run["size"] for run in result["runs"]]
        shown = sorted({size for size in sizes if size})
        middle = shown[len(shown) // 2]
        runs = [run for run in result["runs"] if run["size"] in (middle, None)]
        title = f"{result['figure']}: {result['what']}"
        for number, run in enumerate(runs):
            blind = any(word in run["label"] for word in ("random", "cyclic", "lipschitz"))
            ax.semilogy(run["iteration"], run["gap"], ":" if blind else "-",
                        color=f"C{number}", label=run["label"])  # fmt: skip
        ax.set_title(title, fontsize=9)
        ax.set(xlabel="block updates", ylabel="objective less its least value")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=80)
    plt.close(fig)


def run(options):
    """Run the experiments that were asked for; write the tables and the figure."""
    options.out.mkdir(parents=True, exist_ok=True)
    store = options.out / "paper_bcd.json"
    found = json.loads(store.read_text()) if options.only and store.exists() else {}
    for experiment in (*EXPERIMENTS, finite_termination):
        if options.only and experiment.__name__ not in options.only:
            continue
        start = time.perf_counter()
        results = experiment(options)
        found[experiment.__name__] = results if isinstance(results, list) else [results]
        log.info("%s: %.0f s", experiment.__name__, time.perf_counter() - start)
        store.write_text(json.dumps(found) + "\n")
    (options.out / "paper_bcd.md").write_text(page(found, options.command))
    draw(found, options.figure)


def figures(found):
    """Return the results of all experiments that were run, in the order of the report."""
    return [result for step in EXPERIMENTS for result in found.get(step.__name__, [])]


def settings(quick):
    """Return the sizes of the experiments: those of the paper, or small ones."""
    if quick:
        return {"n": 120, "p": 400, "sizes": (3, 10, 30), "iterations": 120, "newton": 40,
                "side": 12, "labelled": 20, "points": 300, "exact": 300}  # fmt: skip
    return {"n": 1000, "p": 10000, "sizes": (5, 50, 100), "iterations": 500, "newton": 200,
            "side": 50, "labelled": 100, "points": 2000, "exact": 400}  # fmt: skip


def worker(options):
    """Run in a process whose number of threads is set."""
    options.command = "python -m benchmarks.paper_bcd" + " --quick" * options.quick
    vars(options).update(settings(options.quick))
    run(options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small problems, few updates")
    names = [step.__name__ for step in (*EXPERIMENTS, finite_termination)]
    parser.add_argument("--only", nargs="+", choices=names, default=[], metavar="EXPERIMENT")
    parser.add_argument("--threads", nargs=1, type=int, default=[1])
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    common.main("benchmarks.paper_bcd", parser, worker)


if __name__ == "__main__":
    main()
