"""Sparse logistic regression against liblinear, saga, celer and skglm.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.bcd_logistic --cases "AR 200x2000" --threads 1

The error is the duality gap relative to the objective at zero, log 2, computed here in float64,
and for ours by `solvers.bcd.certify` as well, whichever is larger.
"""

import functools
import itertools
import logging
import math
import os

import numpy as np

from benchmarks.peers import bcd, common
from solvers import datasets

log = logging.getLogger(__name__)

CASES = {
    "AR 200x2000": lambda: datasets.autoregressive(200, 2000, classes=True, rng=0),
    "AR 1000x10000": lambda: datasets.autoregressive(
        1000, 10000, informative=100, classes=True, rng=0
    ),
    "AR 5000x500": lambda: datasets.autoregressive(
        5000, 500, informative=100, noise=1.0, classes=True, rng=0
    ),
    "text 1000x10000": lambda: datasets.text_like(1000, 10000, classes=True, rng=0),
    "text 20000x100000": lambda: datasets.text_like(
        20000, 100000, informative=500, classes=True, rng=0
    ),
}


class Classes(bcd.Squares):
    """``mean(log(1 + exp(-y X w))) + alpha |w|_1``, y = -1 or 1."""

    @staticmethod
    def largest(X, y):
        """Return the least alpha at which all coefficients are zero."""
        return float(abs(X.T @ y).max()) / (2 * y.size)

    def error(self, w):
        """Return the duality gap over log 2."""
        X, y, alpha = self
        if not np.isfinite(w).all():
            return math.inf
        w = np.asarray(w, np.float64)
        z = y * (X @ w)
        with np.errstate(over="ignore"):
            share = 1.0 / (1.0 + np.exp(z))
        largest = max(float(abs(X.T @ (y * share)).max()), 1e-300)
        q = min(1.0, alpha * y.size / largest) * share
        entropy = np.where(q > 0, q * np.log(np.maximum(q, 1e-300)), 0.0)
        entropy += (1.0 - q) * np.log1p(-np.minimum(q, 1.0 - 1e-16))
        primal = np.logaddexp(0.0, -z).mean() + alpha * np.abs(w).sum()
        return float(max(primal + entropy.mean(), 0.0) / np.log(2.0))

    def certified(self, w):
        """Return the value of our certificate."""
        from solvers import bcd, penalties

        penalty = penalties.L1(self.alpha)
        return bcd.certify(
            bcd.Problem(self.X, self.y, datafit="logistic", penalty=penalty), w
        ).value


class Ours(bcd.Ours):
    def __init__(self, problem):
        super().__init__(problem)
        from solvers import bcd as family

        self.logistic = family.logistic

    def fit(self, problem, threshold, cap):
        return self.logistic(*problem, tol=threshold, maxiter=cap, history=False)


class ScikitLearn(bcd.Contender):
    cap = bcd.SWEEPS

    def __init__(self, problem, solver):
        super().__init__(problem)
        self.solver = solver

    def fit(self, problem, threshold, cap):
        from sklearn.linear_model import LogisticRegression

        X, y, alpha = problem
        return LogisticRegression(
            C=1.0 / (alpha * y.size),
            l1_ratio=1.0,
            solver=self.solver,
            fit_intercept=False,
            tol=threshold,
            max_iter=cap,
            random_state=0,
        ).fit(X, y)


class Celer(bcd.Contender):
    def fit(self, problem, threshold, cap):
        from celer import LogisticRegression

        X, y, alpha = problem
        model = LogisticRegression(C=1.0 / (alpha * y.size), tol=threshold, max_iter=cap)
        return model.fit(bcd.plain(X), y)


class Skglm(bcd.Contender):
    compiles = True

    def fit(self, problem, threshold, cap):
        from skglm import SparseLogisticRegression

        X, y, alpha = problem
        model = SparseLogisticRegression(alpha, fit_intercept=False, tol=threshold, max_iter=cap)
        return model.fit(bcd.plain(X), y)


CONTENDERS = {
    bcd.OURS: Ours,
    "scikit-learn liblinear": functools.partial(ScikitLearn, solver="liblinear"),
    "scikit-learn saga": functools.partial(ScikitLearn, solver="saga"),
    "celer": Celer,
    "skglm": Skglm,
}
PACKAGES = {
    package: [name for name in CONTENDERS if name.startswith(package)]
    for package in ("scikit-learn", "celer", "skglm")
}


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    names = ["case", "alpha / alpha_max", "tol", "threads"]
    store = common.Store(options.out.with_suffix(".json"), names)
    store.note_run("benchmarks.peers.bcd_logistic", bcd.DISTRIBUTIONS[:-1])
    for case in options.cases:
        X, y, _ = CASES[case]()
        for ratio, tol in itertools.product(options.ratios, options.tol):
            keys = (case, ratio, tol, options.threads)
            log.info("%s, load %.1f", keys, os.getloadavg()[0])
            problem = Classes(X, y, ratio * Classes.largest(X, y))
            contenders = {name: CONTENDERS[name] for name in options.peers}
            limits = {"seconds": options.limit, "repeat": options.rounds}
            store.add(keys, common.run_cell(contenders, (problem,), tol, **limits))
            options.out.write_text(
                common.report(store, "Sparse logistic regression", PACKAGES, bcd.OURS)
            )


def main():
    words = bcd.parser(
        __doc__.splitlines()[0], CASES, CONTENDERS, "bcd_logistic.md", ratios=(0.5, 0.1, 0.02)
    )
    common.main("benchmarks.peers.bcd_logistic", words, run)


if __name__ == "__main__":
    main()
