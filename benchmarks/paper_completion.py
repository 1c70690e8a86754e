"""What the theory of robust alternating minimisation says about completion, measured.

Run from the repository's root::

    python -m benchmarks.paper_completion

Three questions. How long do inexact row solvers take to come as near to the rows' minimisers as
the next half sweep needs, against the direct one, for ranks from 8 to 512? Is it true that errors
of a tenth of the relative residual in every row cost nothing in the end? And how fast does the
method of the theory, with a sample of its own for each half sweep, contract the distance? Writes
``results/paper_completion.md`` and ``.json``, and the figure of the documentation.
"""

import argparse
import json
import logging
import statistics
import warnings
from pathlib import Path

import numpy as np

from benchmarks.peers import common
from solvers import completion
from solvers.completion._als import Inner, half_sweep
from solvers.completion._observations import read_entries
from solvers.completion._problem import pose

FIGURE = Path(__file__).parents[1] / "docs" / "_static" / "paper_completion.png"
# Rank, and entries of a row for each unknown.
RANKS = [(k, 10) for k in (8, 16, 32, 64, 128, 256, 512)]
RANKS += [(k, 40) for k in (8, 16, 32, 64, 128, 256)]
# Part of the distance to the minimiser that may remain, and what row solvers may be told.
REMAINS = 1e-1, 1e-3
STEPS = 1, 2, 3, 4, 6, 8, 12, 16
SETTINGS = {
    "cg": [(1e-15, steps) for steps in STEPS],
    "sketch": [(eta, 0) for eta in (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)],
    "subspace": [(1e-15, steps) for steps in STEPS],
}
# Injected errors of rows, relative to the row or to it times the relative residual.
ERRORS = 1e0, 3e-1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6
SWEEPS = 40
# Side, rank, observed part and tolerance of the problems for the theory.
THEORY = [(2000, 2, 0.3, 1e-3), (2000, 5, 0.5, 1e-2), (2000, 10, 0.8, 1e-2), (1000, 5, 0.3, 1e-3)]

log = logging.getLogger(__name__)


def posed(rows, cols, vals, shape):
    """Return the solvers' form of a problem without penalty."""
    off = dict.fromkeys(("weighted_lambda", "bias", "center", "implicit", "nonnegative"), False)
    numbers = {"lam": 0.0, "lam_bias": None, "alpha": 1.0, "nu": 0.0, "alpha0": 1.0}
    words = {"loss": "squared", "delta": None, "duplicates": "error"}
    return pose(read_entries((rows, cols, vals), shape), **off, **numbers, **words)


def solve_rows(problem, A, B, name, eta=0.0, steps=0, by_row=True):
    """Improve all rows of A, or of the other factor, in place."""
    nothing = np.empty(0)
    side, ridge = problem.obs.by_row, problem.row_ridge
    if not by_row:
        side, ridge = problem.obs.by_col, problem.col_ridge
    inner = Inner(name, eta, steps, np.random.default_rng(0))
    return half_sweep(problem, side, A, B, nothing, nothing, ridge, inner)


def row_problem(k, ratio, work):
    """Return rows of ``ratio * k`` noisy entries, the other factor, the minimisers and a start."""
    rng = np.random.default_rng(k)
    d, m = ratio * k, int(max(4, min(4000, work / (ratio * k**3))))
    n = 3 * d
    B = np.linalg.qr(rng.standard_normal((n, k)))[0]
    cols = np.concatenate([np.sort(rng.choice(n, d, replace=False)) for _ in range(m)])
    rows = np.repeat(np.arange(m), d)
    X = rng.standard_normal((m, k))
    vals = np.einsum("pk,pk->p", X[rows], B[cols]) * np.sqrt(n / k)
    problem = posed(rows, cols, vals + 0.1 * rng.standard_normal(vals.size), (m, n))
    exact = np.zeros((m, k))
    solve_rows(problem, exact, B, "direct")
    off = rng.standard_normal(exact.shape)
    return problem, B, exact, exact + 0.1 * off * np.linalg.norm(exact) / np.linalg.norm(off)


def setting(name, data, remains):
    """Return the mildest setting of a row solver that comes near enough, or None."""
    problem, B, exact, start = data
    for eta, steps in SETTINGS[name]:
        A = start.copy()
        count = solve_rows(problem, A, B, name, eta, steps).steps
        if np.linalg.norm(A - exact) <= remains * np.linalg.norm(start - exact):
            return eta, steps, count / len(A)
    return None


def time_ranks(options):
    """Return, for each rank, seconds of the direct solver and how often faster others are."""
    table = []
    for k, ratio in options.ranks:
        data = row_problem(k, ratio, options.work)
        problem, B, _, start = data
        found = {
            (name, remains): setting(name, data, remains)
            for remains in REMAINS
            for name in SETTINGS
        }
        calls = {"direct": (0.0, 0)} | {key: value[:2] for key, value in found.items() if value}

        def run(key, told):
            name = key if key == "direct" else key[0]
            return lambda: solve_rows(problem, start.copy(), B, name, *told)  # noqa: B023

        runs = {key: run(key, told) for key, told in calls.items()}
        times = common.interleave(runs, repeat=options.repeat, budget=options.seconds)
        median = {key: statistics.median(seconds) for key, seconds in times.items()}
        table.append(
            {
                "rank": k,
                "ratio": ratio,
                "rows": len(start),
                "direct": median["direct"] / len(start),
                "faster": {
                    f"{name} {remains:g}": median["direct"] / median[name, remains]
                    for name, remains in found
                    if (name, remains) in median
                },
                "steps": {
                    f"{name} {remains:g}": value[2]
                    for (name, remains), value in found.items()
                    if value
                },
            }
        )
        log.info(" | ".join(map(str, _rank_line(table[-1]))))
    return table


def sweeps_with_errors(data, error, *, relative):
    """Return the distances from a planted matrix while rows are solved with errors.

    `error` is relative to the length of a row; if `relative`, times the relative residual.
    """
    problem, X = data
    m, n = X.shape
    rng = np.random.default_rng(1)
    k, relres, distances = 5, 1.0, []
    A, B = rng.standard_normal((m, k)), np.linalg.qr(rng.standard_normal((n, k)))[0]

    def solved(A, B, by_row):
        solve_rows(problem, A, B, "direct", by_row=by_row)
        noise = rng.standard_normal(A.shape)
        size = error * (min(1.0, relres) if relative else 1.0)
        noise *= size * (np.linalg.norm(A, axis=1) / np.linalg.norm(noise, axis=1))[:, None]
        return A + noise

    for _ in range(SWEEPS):
        A = np.linalg.qr(solved(A, B, True))[0]
        B = solved(B, A, False)
        estimate = problem.scale * A @ B.T
        distances.append(float(np.linalg.norm(estimate - X) / np.linalg.norm(X)))
        nothing = np.empty(0)
        relres = problem.relres(problem.misfit(A, B, problem.residual(A, B, nothing, nothing)))
        B = np.linalg.qr(B)[0]
    return distances


def inject_errors(options):
    """Return the distances after each sweep, for each injected error and either kind."""
    rng = np.random.default_rng(0)
    side, k = options.side, 5
    X = rng.standard_normal((side, k)) @ rng.standard_normal((k, side))
    rows, cols = np.nonzero(rng.random(X.shape) < 7 * k * (2 * side - k) / side**2)
    data = posed(rows, cols, X[rows, cols], X.shape), X
    table = []
    for relative in (False, True):
        for error in (*ERRORS, 0.0):
            curve = sweeps_with_errors(data, error, relative=relative)
            table.append({"relative": relative, "error": error, "curve": curve})
            log.info(" | ".join(map(str, _error_line(table[-1]))))
    return table


def contract(options):
    """Return, for each problem, the distances after each sweep of both modes."""
    table = []
    for side, k, part, tol in options.theory:
        rng = np.random.default_rng(k)
        U, V = (np.linalg.qr(rng.standard_normal((side, k)))[0] for _ in range(2))
        rows, cols = np.nonzero(rng.random((side, side)) < part)
        vals = side * np.einsum("pk,pk->p", U[rows], V[cols])
        for mode in ("theory", "reuse"):
            distances = []

            def watch(seen, U=U, distances=distances):
                rest = U - seen.U @ (seen.U.T @ U)
                distances.append(float(np.linalg.norm(rest, 2)))

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the table says how a run ended
                res = completion.alternating_minimization(
                    (rows, cols, vals), k, shape=(side, side), method="altmin", mode=mode,
                    tol=tol, rng=0, callback=watch,
                )  # fmt: skip
            samples = 2 * (int(np.ceil(np.log2(1.0 / tol))) + 1) + 1 if mode == "theory" else 1
            table.append(
                {
                    "side": side,
                    "rank": k,
                    "tol": tol,
                    "mode": mode,
                    "oversampling": res.oversampling / samples,
                    "distances": distances,
                    "end": res.status.name,
                    "relres": float(res.relres),
                }
            )
            log.info(" | ".join(map(str, _theory_line(table[-1]))))
    return table


def page(found, command):
    """Return the report."""
    names = [f"{name} {remains:g}" for remains in REMAINS for name in SETTINGS]
    versions = ", ".join(f"{name} {common.version(name)}" for name in ("numpy", "scipy", "numba"))
    return "\n\n".join(
        [
            "# Robust alternating minimisation: what its theory says, measured",
            "## Row solvers against the direct one",
            "Rows of d = 10 k or 40 k noisy entries, from a start that is 10 % off. Each solver "
            "is told the least that leaves a tenth, or a thousandth, of the distance to the "
            "minimiser: how often faster than the direct solver it is then, and in brackets its "
            "steps per row. A dash: it never came so near.",
            common.markdown(["k", "d / k", "direct, ms per row", *names],
                            [_rank_line(row) for row in found["ranks"]]),
            "## Errors in the rows",
            f"Relative distance from a planted matrix of rank 5 after {SWEEPS} exact sweeps, with "
            "random errors added to every row: of a fixed size relative to the row, or of that "
            "size times the relative residual.",
            common.markdown(["error", "kind", "distance", "sweeps to 1e-10"],
                            [_error_line(row) for row in found["errors"]]),
            "## The method of the theory",
            "Distance of the column spaces, ``|(I - U U^T) U*|``, after each sweep: with a sample "
            "of its own for each half sweep, and with all entries in all of them. The "
            "oversampling is that of a half sweep.",
            common.markdown(["n", "k", "mode", "oversampling", "tol", "distance after each sweep",
                             "contraction, worst", "end"],
                            [_theory_line(row) for row in found["theory"]]),
            f"`{command}` ({common.machine()}; {versions})\n",
        ]
    )  # fmt: skip


def _rank_line(row):
    def cell(key):
        if key not in row["faster"]:
            return "-"
        return f"{row['faster'][key]:.2g} x ({row['steps'][key]:.3g})"

    cells = [cell(f"{name} {remains:g}") for remains in REMAINS for name in SETTINGS]
    return [row["rank"], row["ratio"], common.significant(1e3 * row["direct"]), *cells]


def _error_line(row):
    curve = np.array(row["curve"])
    near = curve <= 1e-10
    kind = "of relres" if row["relative"] else "fixed"
    first = int(np.argmax(near)) + 1 if near.any() else "-"
    return [f"{row['error']:g}", kind, f"{curve[-1]:.0e}", first]


def _theory_line(row):
    shown = ", ".join(f"{x:.0e}" for x in row["distances"][:8])
    more = ", ..." if len(row["distances"]) > 8 else ""
    factor = contraction(row["distances"])
    end = "certified" if row["end"] == "CONVERGED" else f"{row['end']} at {row['relres']:.0e}"
    place = [row["side"], row["rank"], row["mode"], f"{row['oversampling']:.2g}"]
    return [*place, f"{row['tol']:g}", shown + more, f"{factor:.2f}", end]


def contraction(distances):
    """Return the largest factor between the distances of two sweeps, above rounding."""
    x = np.array([d for d in distances if d > 1e-13])
    return float((x[1:] / x[:-1]).max()) if x.size > 1 else np.nan


def draw(found, path):
    """Draw the three answers side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    colours = dict(zip(SETTINGS, ("C0", "C1", "C2"), strict=True))
    for name, colour in colours.items():
        for ratio, line in ((10, "--"), (40, "-")):
            key = f"{name} {REMAINS[0]:g}"
            rows = [r for r in found["ranks"] if r["ratio"] == ratio and key in r["faster"]]
            left.loglog([r["rank"] for r in rows], [r["faster"][key] for r in rows], line,
                        color=colour, marker=".", label=f"{name}, d = {ratio} k")  # fmt: skip
    left.axhline(1.0, color="0.5", linewidth=1)
    left.set(xlabel="rank k", ylabel="speed against direct, to 0.1 of the distance")
    for relative, label in ((False, "fixed"), (True, "times the relative residual")):
        rows = [r for r in found["errors"] if r["relative"] == relative and r["error"] > 0]
        middle.loglog([r["error"] for r in rows], [max(r["curve"][-1], 1e-17) for r in rows],
                      marker=".", label=label)  # fmt: skip
    middle.set(xlabel="error in each row", ylabel=f"distance after {SWEEPS} sweeps")
    for number, row in enumerate(found["theory"]):
        # Both modes of a problem follow each other.
        label = f"n = {row['side']}, k = {row['rank']}, {row['mode']}"
        line = "-" if row["mode"] == "theory" else ":"
        sweeps = range(1, len(row["distances"]) + 1)
        right.semilogy(sweeps, row["distances"], line, marker=".", color=f"C{number // 2}",
                       label=label)  # fmt: skip
    right.set(xlabel="sweep", ylabel="distance of the column spaces")
    for ax in (left, middle, right):
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=90)
    plt.close(fig)


def run(options):
    """Answer the three questions; write the tables and the figure."""
    found = {
        "ranks": time_ranks(options),
        "errors": inject_errors(options),
        "theory": contract(options),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "paper_completion.md").write_text(page(found, options.command))
    (options.out / "paper_completion.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, options.figure)


def worker(options):
    """Run in a process whose number of threads is set."""
    options.command = common.command("benchmarks.paper_completion")
    options.ranks, options.theory = RANKS, THEORY
    run(options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="limit for one solver's runs")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each solver")
    parser.add_argument("--work", type=float, default=1e9, help="size of the row problems")
    parser.add_argument("--side", type=int, default=600, help="of the matrix with injected errors")
    parser.add_argument("--threads", nargs=1, type=int, default=[1])
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    common.main("benchmarks.paper_completion", parser, worker)


if __name__ == "__main__":
    main()
