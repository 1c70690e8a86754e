"""Regularisation paths of the lasso against scikit-learn, celer, skglm and adelie.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.bcd_path --cases "AR 200x2000" --threads 1

One hundred penalties, spaced geometrically. The error is the worst duality gap along the path,
relative to the objective at zero, computed here in float64.
"""

import functools
import logging
import os

import numpy as np
import scipy.sparse as sp

from benchmarks.peers import bcd, common

log = logging.getLogger(__name__)

NUMBER = 100
# Smallest over largest penalty.
EPS = {"AR 200x2000": 1e-2, "AR 1000x10000": 3e-2, "AR 5000x500": 1e-3, "text 1000x10000": 1e-2}


class Path(bcd.Squares):
    """A lasso for each of the penalties in `alpha`; coefficients are the rows of a matrix."""

    def small(self):
        """Return a little of the problem."""
        X, y, alpha = super().small()
        return Path(X, y, alpha * np.geomspace(5.0, 1.0, 3))

    def error(self, coefs):
        """Return the worst gap."""
        coefs = coefs.toarray() if sp.issparse(coefs) else np.asarray(coefs)
        return max(
            bcd.Squares(self.X, self.y, alpha).error(w)
            for alpha, w in zip(self.alpha, coefs, strict=True)
        )


class Contender(bcd.Contender):
    def iterations(self, answer):
        return 0

    def coef(self, answer):
        return answer


class Ours(Contender):
    compiles = True

    def __init__(self, problem, method="auto"):
        super().__init__(problem)
        from solvers.bcd import lasso, path

        self.path, self.lasso, self.method = path, lasso, method

    def fit(self, problem, threshold, cap):
        X, y, alphas = problem
        return self.path(self.lasso, X, y, alphas=alphas, tol=threshold, method=self.method).coefs


class ScikitLearn(Contender):
    def fit(self, problem, threshold, cap):
        from sklearn.linear_model import lasso_path

        X, y, alphas = problem
        return lasso_path(X, y, alphas=alphas, tol=threshold, max_iter=bcd.SWEEPS)[1].T


class Lars(Contender):
    def __init__(self, problem):
        super().__init__(problem)
        if sp.issparse(problem.X):
            raise ImportError("takes dense matrices only")

    def fit(self, problem, threshold, cap):
        from sklearn.linear_model import lars_path

        X, y, alphas = problem
        kinks, _, coefs = lars_path(X, y, alpha_min=alphas[-1], method="lasso")
        # The path is linear between its kinks, which come in descending order.
        after = np.clip(np.searchsorted(-kinks, -alphas), 1, len(kinks) - 1)
        share = (kinks[after - 1] - alphas) / (kinks[after - 1] - kinks[after])
        return ((1 - share) * coefs[:, after - 1] + share * coefs[:, after]).T


class Celer(Contender):
    def fit(self, problem, threshold, cap):
        from celer import celer_path

        X, y, alphas = problem
        return celer_path(
            bcd.plain(X), y, "lasso", alphas=alphas, tol=threshold, max_iter=bcd.OUTER
        )[1].T


class Skglm(Contender):
    compiles = True

    def fit(self, problem, threshold, cap):
        from skglm import Lasso

        X, y, alphas = problem
        model = Lasso(fit_intercept=False, tol=threshold, max_iter=bcd.OUTER)
        return model.path(bcd.plain(X), y, alphas)[1].T


class Adelie(bcd.Adelie):
    def coef(self, answer):
        return answer.betas


CONTENDERS = {
    bcd.OURS: Ours,
    "our lars": functools.partial(Ours, method="lars"),
    "scikit-learn lasso_path": ScikitLearn,
    "scikit-learn lars_path": Lars,
    "celer": Celer,
    "skglm": Skglm,
    "adelie": Adelie,
}
PACKAGES = {
    package: [name for name in CONTENDERS if name.startswith(package)] for package in bcd.PACKAGES
}


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    names = ["case", "smallest / largest alpha", "tol", "threads"]
    store = common.Store(options.out.with_suffix(".json"), names)
    store.note_run("benchmarks.peers.bcd_path", bcd.DISTRIBUTIONS)
    for case in options.cases:
        X, y, _ = bcd.CASES[case]()
        alphas = bcd.Squares.largest(X, y) * np.geomspace(1.0, EPS[case], NUMBER)
        for tol in options.tol:
            keys = (case, EPS[case], tol, options.threads)
            log.info("%s, load %.1f", keys, os.getloadavg()[0])
            contenders = {name: CONTENDERS[name] for name in options.peers}
            limits = {"seconds": options.limit, "repeat": options.rounds}
            problem = Path(X, y, alphas)
            store.add(keys, common.run_cell(contenders, (problem,), tol, **limits))
            page = common.report(
                store, "Paths of 100 penalties", PACKAGES, bcd.OURS, variants=["our lars"]
            )
            options.out.write_text(page)


def main():
    words = bcd.parser(__doc__.splitlines()[0], EPS, CONTENDERS, "bcd_path.md", ratios=())
    common.main("benchmarks.peers.bcd_path", words, run)


if __name__ == "__main__":
    main()
