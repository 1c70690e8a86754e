"""The experiments of the papers on bilevel problems, measured.

Run from the repository's root::

    python -m benchmarks.paper_bilevel

E1 and E2: how fast the penalty's hyper-gradient comes close to the exact one as sigma falls, for
lower levels with one solution and with many. E3: one penalty for each feature, our methods and the
papers' loops against each other, and what it is worth on other data. E4: noisy labels, see
`paper_bilevel_samples`, with E7 for many blocks and E8 for an upper level of exponential growth.
E5 and E6: lower levels with constraints, see `paper_bilevel_constraints`. Writes
``results/paper_bilevel.md`` and ``.json``, and the figure of the documentation. `--quick` runs all
of it in small, `--only` some experiments, which take the place of earlier results.

An experiment is a function of the options that returns tables, see `paper`.
"""

import logging
import math

import numpy as np

from benchmarks.paper import Report, quiet
from benchmarks.paper_bilevel_constraints import costs, toys
from benchmarks.paper_bilevel_samples import blocks, cleaning, growth, loops
from benchmarks.peers import common
from benchmarks.peers.bilevel import BOX, autoregressive
from solvers import bilevel

log = logging.getLogger(__name__)


# ---- E1 and E2: the penalty's laws


class Planted:
    """A quadratic problem whose lower level may have a kernel; the hyper-gradient is exact."""

    def __init__(self, d, p, rank, kappa=10.0, dtype=float):
        rng = np.random.default_rng(0)
        Q, _ = np.linalg.qr(rng.standard_normal((p, p)))
        w = np.zeros(p)
        w[:rank] = np.geomspace(1.0, 1.0 / kappa, rank)
        inverse = np.divide(1.0, w, out=np.zeros(p), where=w > 0)
        A, pinv = (Q * w) @ Q.T, (Q * inverse) @ Q.T
        M = rng.standard_normal((p, p)) / math.sqrt(p)
        F, t = M @ M.T + 0.2 * np.eye(p), rng.standard_normal(p)
        B, c = A @ rng.standard_normal((p, d)), A @ rng.standard_normal(p)
        self.x, self.y0 = rng.standard_normal(d).astype(dtype), np.zeros(p, dtype)
        # Of all solutions of the lower level the best one, and the formula by a pseudo-inverse.
        x = self.x.astype(float)
        y, N = pinv @ (B @ x + c), Q[:, w == 0]
        y = y + N @ np.linalg.solve(N.T @ F @ N, N.T @ F @ (t - y))
        self.grad = B.T @ (pinv @ (F @ (y - t)))
        self.data = [a.astype(dtype) for a in (A, B, c, F, t)]

    def lower(self, x, y):
        A, B, c = self.data[:3]
        push = B @ x + c
        return 0.5 * y @ A @ y - y @ push, -B.T @ y, A @ y - push

    def upper(self, x, y):
        F, t = self.data[3:]
        e = F @ (y - t)
        return 0.5 * (y - t) @ e, 0 * x, e

    def error(self, sigma, order):
        """Return the relative error of a hyper-gradient and the estimate that came with it."""
        tol = 1e-13 if self.x.dtype == np.float64 else 1e-6
        found = quiet(
            bilevel.hypergradient, self.upper, self.lower, self.x, self.y0, sigma=sigma,
            order=order, tol=tol,
        )  # fmt: skip
        size = np.linalg.norm(self.grad)
        return np.linalg.norm(found.grad - self.grad) / size, found.err / size


def law(options):
    """E1: errors of the hyper-gradient by sigma, where the lower level has one solution."""
    d, p = options.quadratic
    return [_law("E1: the penalty's law", d, p, p, options.sigmas, "one solution")]


def law_of_many(options):
    """E2: the same where the lower level has many solutions."""
    d, p = options.quadratic
    rank = 3 * p // 4
    return [_law("E2: many lower solutions", d, p, rank, options.sigmas, f"rank {rank}")]


def _law(title, d, p, rank, sigmas, words):
    problems = {"double": Planted(d, p, rank), "single": Planted(d, p, rank, dtype=np.float32)}
    rows, errors = [], {(kind, order): [] for kind in problems for order in (1, 2)}
    for sigma in sigmas:
        cells = [f"{sigma:.0e}"]
        for kind, problem in problems.items():
            for order in (1, 2):
                error, estimate = problem.error(sigma, order)
                errors[kind, order].append(error)
                cells += [f"{error:.1e}", f"{estimate:.1e}"]
        rows.append(cells)
        log.info("%s %s", title[:2], cells)
    slopes = [_slope(sigmas, errors["double", order]) for order in (1, 2)]
    return {
        "title": f"{title}, d = {d}, p = {p}",
        "text": f"A quadratic lower level of condition 10, {words}; relative errors of d_sigma "
        "(order 1) and of the extrapolated R(sigma) (order 2) against the exact hyper-gradient, "
        "by a pseudo-inverse, and the estimates that come with them. Slopes of the error in "
        "double precision, over the decades between a large sigma and rounding: "
        f"{slopes[0]} and {slopes[1]}.",
        "header": ["sigma", *(f"{kind}, order {order}{what}" for kind in problems
                              for order in (1, 2) for what in ("", ": estimate"))],
        "rows": rows,
        "curves": [(f"{kind}, order {order}", list(sigmas), errors[kind, order])
                   for kind, order in errors],
        "axes": ["sigma", "relative error"], "scale": "loglog",
    }  # fmt: skip


def _slope(sigmas, errors):
    """Return the slope of errors over falling sigmas, from where they are small to rounding."""
    least = int(np.argmin(errors))
    # Where rounding has won, the smallest error is a mixture.
    end = len(errors) if least == len(errors) - 1 else least
    fits = np.array(errors[:end]) < 0.1
    if fits.sum() < 2:
        return "-"
    x, y = (np.log(np.array(values[:end])[fits]) for values in (sigmas, errors))
    return f"{np.polyfit(x, y, 1)[0]:.2f}"


# ---- E3: one penalty for each feature


def features(options):
    """E3: seconds and calls to a certified residual, and to a value near the lowest."""
    n, p = options.features
    data = autoregressive(n, p, "logistic")
    problem = data.ours()
    entries = {
        "penalty": ("penalty", {}),
        "implicit, cg": ("implicit", {"linear_solver": "cg"}),
        "implicit, shine": ("implicit", {"linear_solver": "shine"}),
        "implicit, minres": ("implicit", {"linear_solver": "minres"}),
        "implicit, neumann": ("implicit", {"linear_solver": "neumann"}),
        "unroll, 100 steps": ("unroll", {"steps": 100}),
        "single loop": ("penalty", {"method": "single-loop"}),
        "double loop": (
            "penalty", {"method": "double-loop", "maxiter_inner": options.inner}
        ),
        "V-PBGD": ("penalty", {"method": "vpbgd"}),
    }  # fmt: skip
    for name in ("penalty", "implicit"):
        # What is loaded and compiled on first use.
        quiet(getattr(bilevel, name), problem, X=bilevel.box(*BOX), maxiter=1)
    runs = {}
    for label, (name, own) in entries.items():
        trace = []

        def look(state, trace=trace):
            trace.append((state.seconds, state.x))

        # Loops take many short steps; the clock is what ends them.
        limits = {"maxiter": options.longest, "time_limit": options.patience}
        res = quiet(getattr(bilevel, name), problem, X=bilevel.box(*BOX), tol=1e-5,
                    callback=look, **limits, **own)  # fmt: skip
        runs[label] = res, _values(trace, data.psi, options.points)
        log.info("E3 %s: %s, %.1f s", label, res.status.name, res.seconds)
    lowest = min(values[:, 1].min() for _, values in runs.values())
    rows, curves = [], []
    for label, (res, values) in runs.items():
        over = np.maximum(values[:, 1] / lowest - 1.0, 1e-6)
        rows.append([label, *(common.significant(_first(values[:, 0], over, level))
                              for level in (1e-1, 1e-2, 1e-3)),
                     common.significant(res.seconds), res.nit, res.counts["n_g"],
                     res.counts["n_hvp"], f"{res.certificate.value:.1e}"])  # fmt: skip
        curves.append((label, values[:, 0].tolist(), over.tolist()))
    return [{
        "title": f"E3: one penalty per feature, n = {n}, p = {p}",
        "text": "Logistic regression, as many validation samples. Seconds until psi is within a "
        "part of the lowest value seen, recomputed by Newton's method; seconds, steps and calls "
        f"of the whole run, to a certificate of 1e-5 or for {options.patience} s, and the "
        "certificate. Measured beside jaxopt in `bilevel.md`.",
        "header": ["method", "to 10 %", "to 1 %", "to 0.1 %", "s", "steps", "gradients",
                   "products", "certificate"],
        "rows": rows, "curves": curves, "axes": ["seconds", "psi over lowest, less 1"],
        "scale": "loglog",
    }, _worth(data, problem, options)]  # fmt: skip


def _values(trace, psi, most):
    """Return seconds and psi of at most so many points of a trace, evenly by logarithm."""
    if not trace:
        return np.array([[0.0, math.inf]])
    picked = np.unique(np.geomspace(1, len(trace), most).astype(int)) - 1
    return np.array([(trace[k][0], psi(trace[k][1])) for k in picked])


def _first(seconds, values, level):
    """Return the first time at which values are within a level, or NaN."""
    within = values <= level
    return seconds[within.argmax()] if within.any() else math.nan


def _worth(data, problem, options):
    """Compare with one penalty for all, by the loss on samples that no one has seen."""
    from sklearn.linear_model import LogisticRegression

    n, p = data.X.shape
    fresh = _fresh(data, p)
    rows = []
    for label, penalty, count in (("best of 20 l2", "l2", 20), ("best of 12 l1", "l1", 12)):
        found = []
        for C in np.geomspace(1e-3, 1e2, count):
            own = {"solver": "liblinear"} if penalty == "l1" else {"max_iter": 2000}
            more = {"penalty": penalty} if penalty == "l1" else {}
            model = quiet(LogisticRegression(C=C, fit_intercept=False, **more, **own).fit,
                          data.X, data.t)  # fmt: skip
            w = model.coef_[0]
            found.append((_loss(w, data.Xv, data.tv), _loss(w, *fresh)))
        rows.append([label, *(f"{value:.3f}" for value in min(found))])
    for steps in (10, min(options.longest, 100)):
        res = quiet(bilevel.penalty, problem, X=bilevel.box(*BOX), maxiter=steps, tol=1e-6,
                    time_limit=options.patience)  # fmt: skip
        losses = _loss(res.y, data.Xv, data.tv), _loss(res.y, *fresh)
        rows.append([f"one per feature, {steps} steps", *(f"{value:.3f}" for value in losses)])
    return {
        "title": f"E3: what a penalty per feature is worth, n = {n}, p = {p}",
        "text": "Mean log-loss on the validation samples, by which penalties were chosen, and on "
        "3000 others. As many penalties as samples fit the validation set too well: estimators "
        "take folds and stop early.",
        "header": ["penalties", "validation", "test"], "rows": rows,
    }  # fmt: skip


def _fresh(data, p, n=3000):
    """Return samples of the same model as `autoregressive`'s."""
    rng = np.random.default_rng(0)
    w = np.zeros(p)
    w[rng.choice(p, 30, replace=False)] = rng.standard_normal(30)
    rng = np.random.default_rng(1)
    X = rng.standard_normal((n, p))
    for j in range(1, p):
        X[:, j] = 0.5 * X[:, j - 1] + math.sqrt(0.75) * X[:, j]
    return X, np.where(rng.random(n) < 1.0 / (1.0 + np.exp(-X @ w)), 1.0, -1.0)


def _loss(w, X, t):
    return float(np.logaddexp(0.0, -t * (X @ w)).mean())


EXPERIMENTS = (law, law_of_many, features, cleaning, loops, toys, costs, blocks, growth)


def settings(quick):
    """Return the sizes of the experiments."""
    if quick:
        return {"quadratic": (4, 8), "sigmas": [1e-2, 1e-3, 1e-4], "features": (60, 31),
                "patience": 60.0, "longest": 40, "inner": 10, "clean": [60], "noisy": 100,
                "epochs": 2, "flips": [0.5], "toy": 6, "weights": [1.0, 10.0], "svm": (60, 40),
                "steps": 30, "blocks": (10, 40, 5), "sampled": [(2, 8), (5, 8)], "passes": 4,
                "growth": 60, "points": 3}  # fmt: skip
    return {"quadratic": (50, 80), "sigmas": list(np.geomspace(1.0, 1e-9, 10)),
            "features": (1500, 500), "patience": 30.0, "longest": 100_000, "inner": 1000,
            "clean": [300, 100, 50], "noisy": 1000, "epochs": 40, "flips": [0.5, 0.8],
            "toy": 100, "weights": [1.0, 10.0, 100.0, 1e3, 1e4], "svm": (250, 150),
            "steps": 20_000, "blocks": (100, 200, 20),
            "sampled": [(5, 32), (10, 32), (20, 32), (10, 8), (10, 128)], "passes": 40,
            "growth": 2000, "points": 40}  # fmt: skip


REPORT = Report(
    "paper_bilevel",
    "Bilevel problems: the papers' experiments, measured",
    "Each run was made once: seconds tell orders of magnitude.",
    EXPERIMENTS,
    settings,
)

if __name__ == "__main__":
    REPORT.main(__doc__.splitlines()[0])
