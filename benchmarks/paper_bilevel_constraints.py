"""E5 and E6 of `paper_bilevel`: lower levels with constraints that the upper variable moves."""

import logging

import numpy as np

from benchmarks.paper import quiet
from benchmarks.peers import common
from solvers import bilevel

log = logging.getLogger(__name__)


class Toy:
    """The toy of LV-HBA, with a lower level that is linear or quadratic in the second half of y.

    By symmetry all entries are equal, and two equations give them: x = -0.3, f = 0.05 n, or with
    the quadratic x = -0.25, f = 0.125 n.
    """

    def __init__(self, n, curved):
        self.n, self.curved = n, curved
        self.x, self.value = (-0.25, 0.125 * n) if curved else (-0.3, 0.05 * n)
        self.eq = bilevel.Affine(np.ones((1, n)), np.ones((1, 2 * n)), np.zeros(1))
        self.x0, self.y0 = np.full(n, 2.0), np.full(2 * n, 2.0)
        self.calls = 0

    def lower(self, x, y):
        self.calls += 1
        u, v = y[: self.n], y[self.n :]
        value = 0.5 * u @ u - x @ u + v.sum() + 0.5 * self.curved * v @ v
        return value, -u, np.r_[u - x, 1.0 + self.curved * v]

    def upper(self, x, y):
        u, v = y[: self.n] - 1, y[self.n :] - x
        return 0.5 * v @ v + 0.5 * u @ u, -v, np.r_[u, v]

    def solve(self, **options):
        """Return a result and its calls of the lower level, without those of the certificate."""
        start = None, self.x0, self.y0
        res = quiet(bilevel.lvhba, self.upper, self.lower, *start, eq=self.eq, **options)
        return res, res.counts["n_g"]

    def error(self, x):
        return float(np.linalg.norm(np.asarray(x) - self.x) / (abs(self.x) * np.sqrt(self.n)))


def toys(options):
    """E5: errors by the weight of the gap, and by steps of the paper's loop."""
    rows, curves = [], []
    for name, curved in (("LLC", False), ("strongly convex", True)):
        toy = Toy(options.toy, curved)
        for weight in options.weights:
            res, calls = toy.solve(c_max=weight, tol=1e-6, maxiter=2000)
            rows.append([name, f"robust, c to {weight:g}", calls, res.nit,
                         f"{toy.error(res.x):.1e}", f"{res.fun / toy.value - 1:.1e}",
                         f"{res.certificate.value:.1e}"])  # fmt: skip
            log.info("E5 %s", rows[-1])
        trace = []

        def look(state, trace=trace, toy=toy):
            trace.append((state.nit, toy.error(state.x)))

        res, calls = toy.solve(method="single-loop", maxiter=options.steps, callback=look)
        rows.append([name, "the paper's loop", calls, res.nit, f"{toy.error(res.x):.1e}",
                     f"{res.fun / toy.value - 1:.1e}",
                     f"{res.certificate.value:.1e}"])  # fmt: skip
        log.info("E5 %s", rows[-1])
        shown = trace[:: max(1, len(trace) // 200)]
        curves.append((f"{name}, the paper's loop", *map(list, zip(*shown, strict=True))))
        trace.clear()
        toy.solve(tol=1e-6, maxiter=2000, callback=look)
        curves.append((f"{name}, robust", *map(list, zip(*trace, strict=True))))
    return [{
        "title": f"E5: the toy of LV-HBA, n = {options.toy}",
        "text": "One equation couples x and y; the solution is known. Relative errors of x and "
        "of the upper value, by the largest weight of the gap that the robust form goes to before "
        "it extrapolates, and for the paper's single loop, its inner step such that it is stable. "
        "Calls of the lower level. LLC has a lower level that is linear in half of y; the other "
        "adds a quadratic there.",
        "header": ["problem", "method", "calls", "steps", "x", "f", "certificate"],
        "rows": rows, "curves": curves, "axes": ["step", "relative error of x"],
        "scale": "loglog",
    }]  # fmt: skip


# ---- E6: a support vector machine with a cost for each sample


class Costs:
    """Breast cancer data: the cost of each training sample's slack is the upper variable.

    The lower level is ``|w|^2 / 2 + sum exp(c_i) xi_i^2 / 2`` over ``y = (w, xi)`` with
    ``1 - xi_i - t_i w.a_i <= 0``; the last entry of every a_i is 1.
    """

    def __init__(self, n, m):
        from sklearn.datasets import load_breast_cancer

        X, t = load_breast_cancer(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(t))
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        X, t = np.c_[X, np.ones(len(X))][order], np.where(t[order] == 1, 1.0, -1.0)
        parts = slice(0, n), slice(n, n + m), slice(n + m, None)
        (self.X, self.V, self.T), (self.t, self.tv, self.tt) = (
            [a[part] for part in parts] for a in (X, t)
        )
        self.n, self.p = n, X.shape[1]
        M = self.t[:, None] * self.X
        self.ties = bilevel.Affine(np.zeros((n, n)), np.c_[-M, -np.eye(n)], -np.ones(n))
        self.x0, self.y0 = np.zeros(n), np.r_[np.zeros(self.p), np.ones(n)]

    def lower(self, c, y):
        w, xi, e = y[: self.p], y[self.p :], np.exp(c)
        return 0.5 * w @ w + 0.5 * e @ xi**2, 0.5 * e * xi**2, np.r_[w, e * xi]

    def upper(self, c, y):
        r = np.maximum(0.0, 1 - self.tv * (self.V @ y[: self.p]))
        grad = -(self.V.T @ (self.tv * r)) / len(r)
        return 0.5 * np.mean(r**2), 0 * c, np.r_[grad, 0 * y[self.p :]]

    def right(self, w):
        return f"{100 * np.mean(np.sign(self.T @ w) == self.tt):.1f} %"

    def conic(self):
        """Return the projection on the ties by cvxpy and Clarabel, compiled once."""
        import cvxpy as cp

        y = cp.Variable(self.p + self.n)
        goal = cp.Parameter(self.p + self.n)
        problem = cp.Problem(
            cp.Minimize(0.5 * cp.sum_squares(y - goal)), [self.ties.Ay @ y <= self.ties.b]
        )

        def project(x, v):
            goal.value = np.asarray(v)
            problem.solve(solver=cp.CLARABEL)
            return x, y.value

        return project


def costs(options):
    """E6: validation loss, certificate and time, with our projection and with a conic solver's."""
    svm = Costs(*options.svm)
    box = bilevel.box(-5.0, 5.0)
    ready = bilevel.problems.SvmHPO(svm.X, svm.t, svm.V, svm.tv)
    rows = []

    def add(label, res):
        seconds = res.seconds
        rows.append([label, f"{res.fun:.4f}", svm.right(np.asarray(res.y)[: svm.p]), res.nit,
                     common.significant(seconds), common.significant(1e3 * seconds / res.nit),
                     f"{res.certificate.value:.1e}"])  # fmt: skip
        log.info("E6 %s", rows[-1])

    tied = (svm.upper, svm.lower, svm.ties, svm.x0, svm.y0)
    short = min(options.steps, 30)
    entries = [
        ("lvhba", bilevel.lvhba, tied, {"maxiter": min(options.longest, 500), "tol": 1e-4}),
        (f"lvhba, {short} steps", bilevel.lvhba, tied, {"maxiter": short}),
        (f"the same, projection by cvxpy, {short} steps", bilevel.lvhba, tied,
         {"maxiter": short, "project": svm.conic}),
        ("the paper's loop", bilevel.lvhba, tied,
         {"method": "single-loop", "maxiter": min(options.steps, 2000), "steps": (0.01,) * 3}),
        ("penalty, without slacks", bilevel.penalty, (ready,), {"tol": 1e-4}),
    ]  # fmt: skip
    for label, solve, data, own in entries:
        if "project" in own:
            try:
                own["project"] = own["project"]()
            except ImportError:
                continue
        add(label, quiet(solve, *data, X=box, time_limit=options.patience, **own))
    return [{
        "title": f"E6: a cost for each sample of a support vector machine, n = {svm.n}",
        "text": f"Breast cancer data: {svm.n} samples to train, {len(svm.tv)} to validate, "
        f"{len(svm.tt)} others for the share that is right. The lower level with a constraint for "
        "each sample, at its own slack, or without slacks as a smooth function. Costs between "
        "e^-5 and e^5; seconds without compilation, and ms for each step, which count the "
        "certificate. The steps of the paper's loop are 0.01: with 0.1 it diverges here.",
        "header": ["method", "validation loss", "right", "steps", "s", "ms", "certificate"],
        "rows": rows,
    }]  # fmt: skip
