"""Sparse least squares against scikit-learn, celer, skglm and adelie.

Run from the repository's root, in an environment that has the peers, cell by cell if need be::

    python -m benchmarks.peers.bcd --cases "AR 200x2000" --ratios 0.1 --threads 1

The error is the duality gap relative to the objective at zero, computed here from the data in
float64 by the formulas of the lasso, and for ours by `solvers.bcd.certify` as well, whichever is
larger.
"""

import argparse
import functools
import itertools
import logging
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from benchmarks.peers import common
from solvers import datasets

OURS = "solvers"
DISTRIBUTIONS = ("numpy", "scipy", "numba", "scikit-learn", "celer", "skglm", "adelie")
# Outer iterations of working sets, and sweeps, that are enough for any peer.
OUTER, SWEEPS = 200, 100_000
# What peers compile for is seen by a problem of this size.
SMALL = 60

log = logging.getLogger(__name__)

CASES = {
    "AR 200x2000": lambda: datasets.autoregressive(200, 2000, rng=0),
    "AR 1000x10000": lambda: datasets.autoregressive(1000, 10000, informative=100, rng=0),
    "AR 5000x500": lambda: datasets.autoregressive(5000, 500, informative=100, rng=0),
    "AR 50000x500": lambda: datasets.autoregressive(50000, 500, informative=100, rng=0),
    "text 1000x10000": lambda: datasets.text_like(1000, 10000, rng=0),
    "text 20000x100000": lambda: datasets.text_like(20000, 100000, informative=500, rng=0),
}


class Squares(NamedTuple):
    """``|y - X w|^2 / (2 n) + alpha |w|_1``."""

    X: np.ndarray | sp.csc_array
    y: np.ndarray
    alpha: float

    def small(self):
        """Return a little of the problem: the same types, and work enough to compile all."""
        X = self.X[:SMALL, :SMALL]
        X = sp.csc_array(X) if sp.issparse(X) else np.asfortranarray(X)
        y = self.y[:SMALL]
        return type(self)(X, y, 0.1 * self.largest(X, y))

    @staticmethod
    def largest(X, y):
        """Return the least alpha at which all coefficients are zero."""
        return float(abs(X.T @ y).max()) / y.size

    def error(self, w):
        """Return the duality gap over the objective at zero."""
        X, y, alpha = self
        if not np.isfinite(w).all():
            return math.inf
        w = np.asarray(w, np.float64)
        r = y - X @ w
        primal = r @ r / (2 * y.size) + alpha * np.abs(w).sum()
        limit = alpha * y.size / max(float(abs(X.T @ r).max()), 1e-300)
        scale = np.clip(r @ y / max(r @ r, 1e-300), -limit, limit)
        dual = (scale * (r @ y) - 0.5 * scale**2 * (r @ r)) / y.size
        return float(max(primal - dual, 0.0) / (y @ y / (2 * y.size)))

    def certified(self, w):
        """Return the value of our certificate."""
        from solvers import bcd, penalties

        problem = bcd.Problem(self.X, self.y, penalty=penalties.L1(self.alpha))
        return bcd.certify(problem, w).value


class Contender:
    """One method on one problem; `fit(problem, threshold, cap)` returns its own answer."""

    cap = OUTER
    # Whether the first call compiles.
    compiles = False

    def __init__(self, problem):
        self.problem = problem

    def prepare(self, cap):
        """Compile, and load what is loaded on first use, outside the clock."""
        if self.compiles:
            self.fit(self.problem.small(), 1e-6, cap)

    def threshold(self, tol):
        return tol

    def run(self, threshold, cap):
        return self.fit(self.problem, threshold, cap)

    def iterations(self, answer):
        """Return iterations, 0 where nothing limits them."""
        return int(np.max(getattr(answer, "n_iter_", 0)))

    def coef(self, answer):
        return np.ravel(answer.coef_)

    def error(self, answer):
        return self.problem.error(self.coef(answer))


class Ours(Contender):
    compiles = True

    def __init__(self, problem, method="auto"):
        super().__init__(problem)
        from solvers import bcd

        self.lasso, self.method = bcd.lasso, method
        self.cap = OUTER if method == "auto" else SWEEPS

    def fit(self, problem, threshold, cap):
        X, y, alpha = problem
        return self.lasso(
            X, y, alpha, tol=threshold, maxiter=cap, method=self.method, history=False
        )

    def iterations(self, answer):
        return int(answer.nit)

    def coef(self, answer):
        return answer.x

    def error(self, answer):
        return max(self.problem.error(answer.x), self.problem.certified(answer.x))


class ScikitLearn(Contender):
    cap = SWEEPS

    def fit(self, problem, threshold, cap):
        from sklearn.linear_model import Lasso

        X, y, alpha = problem
        return Lasso(alpha, fit_intercept=False, tol=threshold, max_iter=cap).fit(X, y)


class Lars(Contender):
    def __init__(self, problem):
        super().__init__(problem)
        if sp.issparse(problem.X):
            raise ImportError("takes dense matrices only")

    def fit(self, problem, threshold, cap):
        from sklearn.linear_model import lars_path

        X, y, alpha = problem
        return lars_path(X, y, alpha_min=alpha, method="lasso")

    def coef(self, answer):
        return answer[2][:, -1]


class Celer(Contender):
    def fit(self, problem, threshold, cap):
        from celer import Lasso

        X, y, alpha = problem
        return Lasso(alpha, fit_intercept=False, tol=threshold, max_iter=cap).fit(plain(X), y)


class Skglm(Contender):
    compiles = True

    def fit(self, problem, threshold, cap):
        from skglm import Lasso

        X, y, alpha = problem
        return Lasso(alpha, fit_intercept=False, tol=threshold, max_iter=cap).fit(plain(X), y)


class Adelie(Contender):
    def __init__(self, problem):
        super().__init__(problem)
        import adelie

        self.adelie = adelie

    def threshold(self, tol):
        # Its tolerance is a change of the objective.
        return 0.01 * tol

    def fit(self, problem, threshold, cap):
        X, y, alpha = problem
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        matrix = self.adelie.matrix
        X = (
            matrix.sparse(plain(X), method="naive", n_threads=threads)
            if sp.issparse(X)
            else matrix.dense(X, method="naive", n_threads=threads)
        )
        return self.adelie.grpnet(
            X=X,
            glm=self.adelie.glm.gaussian(y=y),
            lmda_path=np.atleast_1d(alpha),
            intercept=False,
            tol=threshold,
            early_exit=False,
            progress_bar=False,
            n_threads=threads,
        )

    def coef(self, answer):
        # A run that was cut off may have no answer at all.
        rows = answer.betas.shape[0]
        return answer.betas[-1].toarray().ravel() if rows else np.zeros(self.problem.X.shape[1])


def plain(X):
    """Return a sparse array as the older kind of matrix, which some peers insist on."""
    return sp.csc_matrix(X) if sp.issparse(X) else X


CONTENDERS = {
    OURS: Ours,
    "our cd": functools.partial(Ours, method="cd"),
    "our anderson": functools.partial(Ours, method="anderson"),
    "scikit-learn Lasso": ScikitLearn,
    "scikit-learn lars_path": Lars,
    "celer": Celer,
    "skglm": Skglm,
    "adelie": Adelie,
}
PACKAGES = {
    package: [name for name in CONTENDERS if name.startswith(package)]
    for package in ("scikit-learn", "celer", "skglm", "adelie")
}
VARIANTS = [name for name in CONTENDERS if name.startswith("our ")]


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    names = ["case", "alpha / alpha_max", "tol", "threads"]
    store = common.Store(options.out.with_suffix(".json"), names)
    store.note_run("benchmarks.peers.bcd", DISTRIBUTIONS)
    for case in options.cases:
        X, y, _ = CASES[case]()
        for ratio, tol in itertools.product(options.ratios, options.tol):
            keys = (case, ratio, tol, options.threads)
            log.info("%s, load %.1f", keys, os.getloadavg()[0])
            problem = Squares(X, y, ratio * Squares.largest(X, y))
            contenders = {name: CONTENDERS[name] for name in options.peers}
            limits = {"seconds": options.limit, "repeat": options.rounds}
            store.add(keys, common.run_cell(contenders, (problem,), tol, **limits))
            options.out.write_text(
                common.report(store, "Sparse least squares", PACKAGES, OURS, VARIANTS)
            )


def parser(description, cases, contenders, out, *, ratios=(0.5, 0.1, 0.02, 0.005), tol=(1e-8,)):
    """Return the command line that the tables of the family share."""
    words = argparse.ArgumentParser(description=description)
    words.add_argument("--cases", nargs="+", default=list(cases), choices=cases)
    if ratios:
        words.add_argument("--ratios", nargs="+", type=float, default=list(ratios))
    words.add_argument("--tol", nargs="+", type=float, default=list(tol))
    words.add_argument("--threads", nargs="+", type=int, default=[1])
    words.add_argument("--peers", nargs="+", default=list(contenders), choices=contenders)
    words.add_argument("--rounds", type=int, default=5, help="timed rounds")
    words.add_argument("--limit", type=float, default=10.0, help="seconds for one run")
    words.add_argument("--out", type=Path, default=common.RESULTS / out)
    return words


def main():
    words = parser(__doc__.splitlines()[0], CASES, CONTENDERS, "bcd.md")
    common.main("benchmarks.peers.bcd", words, run)


if __name__ == "__main__":
    main()
