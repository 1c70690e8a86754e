"""The experiments of the papers on convex training of two-layer ReLU networks, measured.

Run from the repository's root::

    python -m benchmarks.paper_relu

E1: how fast the paper's iteration and ours converge, against an interior point. E2: the paper's
inner loop on random blocks against direct linear steps, on digits of the size of its images. E3
and E4: how many random neurons and gates are needed, see `paper_relu_samples`. E5: robust and
standard training under attack, see `paper_relu_robust`. E6: small sets of data to a certified
gap, and paths of penalty weights with warm starts. Writes ``results/paper_relu.md`` and
``.json``, and the figure of the documentation. `--quick` runs all of it in small, `--only` some
experiments, which take the place of earlier results.

An experiment is a function of the options that returns tables, see `paper`.
"""

import logging
import math

import numpy as np

from benchmarks.paper import Report
from benchmarks.paper_relu_robust import attacks
from benchmarks.paper_relu_samples import sampled_gates, sampled_neurons, trained
from benchmarks.peers import common
from solvers import relu

# As [Bai, Gautam, Sojoudi] have them: the metric of unit weights, a fixed penalty, no relaxation.
PAPER = {"split": "paper", "sigma": 1.0, "adapt_rho": False, "relax": 1.0, "accel": None}

log = logging.getLogger(__name__)


# ---- data


def standard(X):
    """Return rows of mean square norm 1: centred, scaled columns and one of ones."""
    X = X - X.mean(axis=0)
    std = X.std(axis=0)
    X = np.c_[X / np.where(std < 1e-3, 1.0, std), np.ones(len(X))]
    return X / math.sqrt(X.shape[1])


def planted(n, d, rng, neurons=4):
    """Return gaussian rows and what a network of a few neurons says of them, with noise."""
    X = rng.standard_normal((n, d))
    U = rng.standard_normal((d, neurons)) / math.sqrt(d)
    y = np.maximum(X @ U, 0.0) @ rng.choice([-1.0, 1.0], neurons)
    return X, y + 0.1 * rng.standard_normal(n)


def images(n, side, rng):
    """Return digits enlarged to `side` pixels with noise, even against odd: two halves."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    X, t = load_digits(return_X_y=True)
    picked = rng.choice(len(X), n, replace=n > len(X))
    large = np.array([zoom(x.reshape(8, 8), side / 8, order=1) for x in X[picked]])
    large = large.reshape(n, -1) / 16.0 + 0.1 * rng.standard_normal((n, side * side))
    return standard(large), np.where(t[picked] % 2 == 0, 1.0, -1.0)


def small_sets():
    """Return ten small sets of data by name."""
    from sklearn import datasets

    rng = np.random.default_rng(0)
    sets = {}
    for name in ("breast_cancer", "wine", "iris", "digits"):
        X, t = getattr(datasets, f"load_{name}")(return_X_y=True)
        if name == "digits":
            X, t = X[(t == 3) | (t == 8)], t[(t == 3) | (t == 8)]
        sets[name] = X, np.where(t == t[-1], 1.0, -1.0)
    X, t = datasets.load_diabetes(return_X_y=True)
    sets["diabetes"] = X, (t - t.mean()) / t.std()
    X, t = datasets.make_friedman1(200, 6, noise=0.5, random_state=0)
    sets["friedman"] = X, (t - t.mean()) / t.std()
    for name in ("moons", "circles"):
        X, t = getattr(datasets, f"make_{name}")(200, noise=0.1, random_state=0)
        sets[name] = X, 2.0 * t - 1.0
    X = rng.uniform(-1.0, 1.0, (150, 2))
    sets["exclusive or"] = X, np.sign(X[:, 0] * X[:, 1])
    sets["planted"] = planted(200, 8, rng)
    return {name: (standard(X), y) for name, (X, y) in sets.items()}


# ---- E1: convergence of the iteration


def convergence(options):
    """E1: distance from the optimum by iterations, the paper's iteration and ours."""
    tables = []
    for n, d, P in options.gaussian:
        X, y = planted(n, d, np.random.default_rng(0))
        gates = relu.sample_gates(X, P, rng=0)
        beta, iterations = 0.1, options.iterations
        best = relu.interior_point(X, y, beta=beta, gates=gates, tol=1e-9, maxiter=100)
        entries = {
            "paper, rho = 0.01": {**PAPER, "usolver": "dense", "rho": 0.01},
            "paper, rho = 0.1": {**PAPER, "usolver": "dense", "rho": 0.1},
            "paper's split, rho adapted": {"split": "paper", "usolver": "woodbury", "accel": None},
            "predictions split": {"split": "p", "accel": None},
            "rows split": {"split": "Q", "accel": None},
            "predictions split, accelerated": {"split": "p"},
        }
        rows, curves = [], []
        for label, own in entries.items():
            res = trained(relu.admm, X, y, beta=beta, gates=gates, maxiter=iterations, tol=1e-8,
                          check_every=10, polish=False, **own)  # fmt: skip
            above = res.history["fun_convex"] / best.dual - 1.0
            nit = res.history["nit"]
            rows.append([label, common.significant(1e3 * res.seconds / res.nit),
                         *(first(nit, above, t) for t in (1e-2, 1e-4, 1e-6)),
                         *(first(nit, res.history["r"], t) for t in (1e-2, 1e-4, 1e-6)),
                         decade(nit, res.history["r"]), f"{res.gap:.1e}"])  # fmt: skip
            curves.append((label, nit.tolist(), np.maximum(above, 1e-10).tolist()))
            log.info("E1 %s", rows[-1])
        tables.append({
            "title": f"E1: convergence, n = {n}, d = {d}, P = {P}",
            "text": "Squared loss of a planted network, beta = 0.1. Iterations until the best "
            "feasible objective is within a part of the optimum (an interior point with relative "
            f"gap {best.gap:.0e}), and until copies agree with the weights (relative); iterations "
            "for one more digit of that, by a line through the logarithms of the last half; ms "
            "count the checks, which come every ten iterations; the gap that was certified in "
            f"{iterations}.",
            "header": ["iteration", "ms", *(f"objective {t}" for t in ("1e-2", "1e-4", "1e-6")),
                       *(f"copies {t}" for t in ("1e-2", "1e-4", "1e-6")), "per digit",
                       "certified"],
            "rows": rows, "curves": curves,
            "axes": ["iteration", "objective over optimum, less 1"],
        })  # fmt: skip
    return tables


def decade(nit, values):
    """Return how many iterations a factor of ten takes, or a dash where there is none."""
    half = (nit >= nit[-1] / 2) & (values > 1e-9)
    if half.sum() < 3 or np.ptp(np.log10(values[half])) < 1e-3:
        return "-"
    slope = np.polyfit(nit[half], np.log10(values[half]), 1)[0]
    return "-" if slope >= 0 else f"{-1.0 / slope:.0f}"


# ---- E2: the inner loop on random blocks against direct linear steps


def linear_steps(options):
    """E2: the paper's inner loop and our linear steps after the paper's number of iterations."""
    n, side, P = options.images
    X, y = images(2 * n, side, np.random.default_rng(20220518))
    train, test = slice(0, n), slice(n, 2 * n)
    gates = relu.sample_gates(X[train], P, rng=0)
    task = {"beta": 1e-4, "loss": "logistic", "logit_scale": 2.0, "gates": gates}
    entries = {
        "random blocks (paper)": {**PAPER, "usolver": "rbcd", "rho": 0.02},
        "woodbury": {"usolver": "woodbury"},
        "conjugate gradients": {"usolver": "cg"},
        "sylvester": {"usolver": "sylvester"},
    }
    rows = []
    for label, own in entries.items():
        for iterations in (35, options.long):
            if "blocks" in label and iterations != 35:
                continue
            res = trained(relu.admm, X[train], y[train], maxiter=iterations, tol=1e-6,
                          check_every=iterations, **task, **own)  # fmt: skip
            right = np.mean(np.sign(res.net.predict(X[test])) == y[test])
            values = (f"{value:.4g}" for value in (res.fun, res.fun_convex, res.dual))
            cells = [res.nit, common.significant(res.seconds), *values, f"{100 * right:.1f} %"]
            rows.append([label, *cells])
            log.info("E2 %s", rows[-1])
    return [{
        "title": f"E2: linear steps, n = {n}, d = {side}^2 + 1, P = {P}",
        "text": "Digits, even against odd, enlarged with noise; logistic loss (scale 2), beta = "
        "1e-4 as in the paper. Objective of the best network seen, of the best feasible point and "
        "the certified lower bound; accuracy on as many other images. Long runs may end by Newton "
        "steps.",
        "header": ["linear step", "iterations", "s", "network", "feasible", "bound", "accuracy"],
        "rows": rows,
    }]  # fmt: skip


# ---- E6: small sets to a certified gap, and paths


def gaps(options):
    """E6: seconds to a certified gap on small sets of data."""
    rows = []
    for name, (X, y) in options.sets.items():
        gates = relu.sample_gates(X, options.gates, rng=0)
        cells = [name, X.shape[0], X.shape[1], len(gates)]
        for solve in (relu.admm, relu.interior_point):
            more = {"maxiter": 20_000, "polish": False} if solve is relu.admm else {}
            res = trained(solve, X, y, beta=options.beta, gates=gates, tol=1e-4, **more)
            for tol in (1e-2, 1e-3, 1e-4):
                reached = res.history["gap"] <= tol
                seconds = res.history["seconds"][reached.argmax()] if reached.any() else math.nan
                cells.append(common.significant(seconds))
        rows.append([*cells, *lagrangian(X, y, gates, options.beta)])
        log.info("E6 %s", rows[-1])
    tolerances = ("1e-2", "1e-3", "1e-4")
    return [{
        "title": "E6: small sets of data",
        "text": f"Seconds to a certified relative gap, squared loss, beta = {options.beta}; "
        "the gap that pyscnn's augmented Lagrangian reached, its own tolerances tightened until "
        "1e-3 is certified or a run takes five seconds, and the seconds of that run.",
        "header": ["set", "n", "d", "P", *(f"admm {t}" for t in tolerances),
                   *(f"interior point {t}" for t in tolerances), "pyscnn: gap", "s"],
        "rows": rows,
    }]  # fmt: skip


def lagrangian(X, y, gates, beta):
    """Return the gap that pyscnn reaches and its seconds, or dashes where it is not installed."""
    from benchmarks.peers.relu import Scnn, Training

    try:
        contender = Scnn(Training(X, y, np.asarray(gates.vectors, dtype=float), beta))
    except ImportError:
        return "-", "-"
    attempt = common.tune(contender, 1e-3, seconds=5.0, attempts=2).attempt
    return f"{attempt.error:.1e}", common.significant(attempt.seconds)


def paths(options):
    """E6: a path of penalty weights, warm starts against cold ones."""
    rows = []
    for name in options.paths:
        X, y = options.sets[name]
        gates = relu.sample_gates(X, options.gates, rng=0)
        most = max(np.linalg.norm(X.T @ (y * d)) for d in gates.D.T)
        betas = most * np.geomspace(1.0, 1e-2, options.betas + 1)[1:]
        task = {"gates": gates, "tol": 1e-3, "maxiter": 20_000, "rng": 0}
        before, warm, cold = None, [], []
        for beta in betas:
            before = trained(relu.admm, X, y, beta=beta, x0=before, **task)
            warm.append(before)
            cold.append(trained(relu.admm, X, y, beta=beta, **task))
        rows.append([name, len(betas), f"{betas[-1]:.2g}",
                     sum(r.nit for r in warm), common.significant(sum(r.seconds for r in warm)),
                     sum(r.nit for r in cold), common.significant(sum(r.seconds for r in cold)),
                     f"{max(r.gap for r in warm):.1e}"])  # fmt: skip
        log.info("E6 path %s", rows[-1])
    return [{
        "title": "E6: paths of penalty weights",
        "text": "Weights evenly spaced by logarithm down to a hundredth of one that is large "
        "enough for the zero network; every answer certified to 1e-3; a warm start is the result "
        "before.",
        "header": ["set", "weights", "smallest", "iterations, warm", "s, warm", "iterations, cold",
                   "s, cold", "largest gap"],
        "rows": rows,
    }]  # fmt: skip


EXPERIMENTS = (convergence, linear_steps, sampled_neurons, sampled_gates, gaps, paths, attacks)


def first(nit, values, limit):
    """Return the first iteration at which a series is within a limit, or a dash."""
    within = values <= limit
    return int(nit[within.argmax()]) if within.any() else "-"


def settings(quick):
    """Return the sizes of the experiments."""
    sets = small_sets()
    if quick:
        return {"gaussian": [(30, 3, 6)], "iterations": 100, "images": (60, 10, 6), "long": 60,
                "sets": {name: sets[name] for name in ("iris", "moons")}, "gates": 6, "beta": 1.0,
                "paths": ["iris"], "betas": 3, "robust": ["moons"], "samples": 40,
                "descent": 20, "neurons": (16, 64), "exact": [(15, 2)],
                "sampled": (8,)}  # fmt: skip
    return {"gaussian": [(60, 5, 20), (200, 10, 40)], "iterations": 2500, "images": (800, 14, 72),
            "long": 500, "sets": sets, "gates": 50, "beta": 0.5,
            "paths": ["iris", "diabetes", "breast_cancer"], "betas": 10,
            "robust": ["moons", "digits 3, 8", "digits 4, 9", "breast cancer"], "samples": 400,
            "descent": 400, "neurons": [2**k for k in range(4, 13)],
            "exact": [(40, 2), (200, 2), (40, 3), (100, 3)], "sampled": (8, 32, 128)}  # fmt: skip


REPORT = Report(
    "paper_relu",
    "Convex training of two-layer ReLU networks: the papers' experiments, measured",
    "Every bound is certified; each run was made once: seconds tell orders of magnitude.",
    EXPERIMENTS,
    settings,
)

if __name__ == "__main__":
    REPORT.main(__doc__.splitlines()[0])
