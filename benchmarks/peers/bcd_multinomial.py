"""Multinomial regression against scikit-learn and adelie.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.bcd_multinomial --cases "digits" --threads 1

The error is the duality gap relative to the objective at zero, the logarithm of the number of
classes, computed here in float64, and for ours by `solvers.bcd.certify` as well, whichever is
larger. No intercepts. The cases name the penalty: absolute values, norms of the rows, or half of
the squares; `saga` and `lbfgs` are scikit-learn's.
"""

import functools
import itertools
import logging
import math
import os
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from benchmarks.peers import bcd, common
from solvers import datasets

log = logging.getLogger(__name__)

PENALTIES = ("l1", "row", "l2")


class Multi(NamedTuple):
    """``mean(log(sum_k exp(z_k)) - z_y) + alpha R(W)``, ``z = X W``."""

    X: np.ndarray | sp.csc_array
    y: np.ndarray
    alpha: float
    penalty: str

    @property
    def classes(self):
        """The number of classes."""
        return int(self.y.max()) + 1

    def small(self):
        """Return a little of the problem: the same types, and work enough to compile all."""
        X = self.X[: bcd.SMALL, : bcd.SMALL]
        X = sp.csc_array(X) if sp.issparse(X) else np.asfortranarray(X)
        y = np.arange(X.shape[0]) % self.classes
        return Multi(X, y, 0.1 * largest(X, y, self.penalty), self.penalty)

    def error(self, W):
        """Return the duality gap over the objective at zero; W is (p, C)."""
        X, y, alpha, penalty = self
        if not np.isfinite(W).all():
            return math.inf
        W, n = np.asarray(W, np.float64), y.size
        z = X @ W
        z -= z.max(axis=1, keepdims=True)
        spread = np.log(np.exp(z).sum(axis=1))
        loss = (spread - z[np.arange(n), y]).mean()
        q = np.exp(z - spread[:, None])
        R = q.copy()
        R[np.arange(n), y] -= 1.0
        G = X.T @ R / n
        if penalty == "l2":
            conjugate = np.square(G).sum() / (2 * alpha)
            value, share = loss + 0.5 * alpha * np.square(W).sum(), 1.0
        else:
            value, conjugate = loss + alpha * _norm(W, penalty).sum(), 0.0
            share = min(1.0, alpha / max(_norm(G, penalty).max(), 1e-300))
        p = share * R
        p[np.arange(n), y] += 1.0
        entropy = (p * np.log(np.where(p > 0, p, 1.0))).sum() / n
        return float(max(value + entropy + conjugate, 0.0) / math.log(self.classes))

    def certified(self, W):
        """Return the value of our certificate."""
        from solvers import bcd, penalties

        kinds = {"l1": penalties.L1, "row": penalties.RowL2, "l2": penalties.L2}
        problem = bcd.Problem(
            self.X, self.y, datafit="multinomial", penalty=kinds[self.penalty](self.alpha)
        )
        return bcd.certify(problem, W).value


def _norm(W, penalty):
    return np.linalg.norm(W, axis=1) if penalty == "row" else np.abs(W)


def largest(X, y, penalty):
    """Return the least alpha at which all coefficients are zero; for squares, one like it."""
    R = np.full((y.size, y.max() + 1), 1.0 / (y.max() + 1))
    R[np.arange(y.size), y] -= 1.0
    return float(_norm(X.T @ R / y.size, penalty).max())


def planted(n, p, classes):
    """Return rows of a chain and the classes that ten of its columns and noise decide."""
    rng = np.random.default_rng(0)
    X, _, _ = datasets.autoregressive(n, p, rng=0)
    chosen = rng.choice(p, 10, replace=False)
    scores = X[:, chosen] @ rng.standard_normal((10, classes))
    return np.asfortranarray(X), (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


def digits():
    """Return the digits, each column divided by its largest entry."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return np.asfortranarray(X / np.maximum(X.max(axis=0), 1.0)), y


def text(n, p, classes):
    """Return rows like counts of words, and classes that a hundred words and noise decide."""
    rng = np.random.default_rng(0)
    X, _, _ = datasets.text_like(n, p, rng=0)
    common_words = np.argsort(-np.asarray((X != 0).sum(axis=0)).ravel())[:100]
    scores = X[:, common_words] @ rng.standard_normal((100, classes))
    return X, (3.0 * scores / scores.std() + rng.gumbel(size=scores.shape)).argmax(axis=1)


CASES = {
    "digits": digits,
    "AR 1000x2000, 5 classes": lambda: planted(1000, 2000, 5),
    "AR 5000x200, 10 classes": lambda: planted(5000, 200, 10),
    "text 2000x10000, 4 classes": lambda: text(2000, 10000, 4),
}


class Ours(bcd.Ours):
    def __init__(self, problem):
        super().__init__(problem)
        from solvers import bcd as family

        self.multinomial = family.multinomial

    def fit(self, problem, threshold, cap):
        X, y, alpha, penalty = problem
        return self.multinomial(
            X, y, alpha, penalty=penalty, tol=threshold, maxiter=cap, history=False
        )


class ScikitLearn(bcd.Contender):
    """Penalties that it has: absolute values by saga, squares by both."""

    cap = 20_000

    def __init__(self, problem, solver):
        super().__init__(problem)
        if problem.penalty == "row" or (problem.penalty == "l1" and solver == "lbfgs"):
            raise ImportError("no such penalty")
        self.solver = solver

    def fit(self, problem, threshold, cap):
        from sklearn.linear_model import LogisticRegression

        X, y, alpha, penalty = problem
        return LogisticRegression(
            C=1.0 / (alpha * y.size),
            l1_ratio=1.0 if penalty == "l1" else 0.0,
            solver=self.solver,
            fit_intercept=False,
            tol=threshold,
            max_iter=cap,
            random_state=0,
        ).fit(X, y)

    def coef(self, answer):
        return answer.coef_.T


class Adelie(bcd.Contender):
    """Rows as groups; its loss and penalty are ours times the number of classes and its root."""

    def __init__(self, problem):
        super().__init__(problem)
        if problem.penalty != "row" or sp.issparse(problem.X):
            raise ImportError("no such penalty")
        import adelie

        self.adelie = adelie

    def fit(self, problem, threshold, cap):
        adelie = self.adelie
        X, y, alpha, _ = problem
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        classes = problem.classes
        target = np.zeros((y.size, classes))
        target[np.arange(y.size), y] = 1.0
        answer = adelie.grpnet(
            X=adelie.matrix.dense(X, method="naive", n_threads=threads),
            glm=adelie.glm.multinomial(y=target),
            lmda_path=np.array([alpha / classes / math.sqrt(classes)]),
            intercept=False,
            tol=0.01 * threshold,
            irls_tol=0.01 * threshold,
            early_exit=False,
            progress_bar=False,
            n_threads=threads,
        )
        if len(answer.lmdas) == 0:
            # It ends without an answer where it is interrupted.
            raise common.OutOfTimeError
        return answer.betas[-1].toarray().ravel()

    def iterations(self, answer):
        return 0

    def coef(self, answer):
        return answer.reshape(self.problem.X.shape[1], -1)


CONTENDERS = {
    bcd.OURS: Ours,
    "scikit-learn saga": functools.partial(ScikitLearn, solver="saga"),
    "scikit-learn lbfgs": functools.partial(ScikitLearn, solver="lbfgs"),
    "adelie": Adelie,
}
PACKAGES = {
    package: [name for name in CONTENDERS if name.startswith(package)]
    for package in ("scikit-learn", "adelie")
}


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    names = ["case", "penalty", "alpha / alpha_max", "tol", "threads"]
    store = common.Store(options.out.with_suffix(".json"), names)
    store.note_run("benchmarks.peers.bcd_multinomial", bcd.DISTRIBUTIONS)
    for case in options.cases:
        X, y = CASES[case]()
        for penalty, ratio, tol in itertools.product(PENALTIES, options.ratios, options.tol):
            keys = (case, penalty, ratio, tol, options.threads)
            log.info("%s, load %.1f", keys, os.getloadavg()[0])
            problem = Multi(X, y, ratio * largest(X, y, penalty), penalty)
            contenders = {name: CONTENDERS[name] for name in options.peers}
            limits = {"seconds": options.limit, "repeat": options.rounds}
            store.add(keys, common.run_cell(contenders, (problem,), tol, **limits))
            options.out.write_text(
                common.report(store, "Multinomial regression", PACKAGES, bcd.OURS)
            )


def main():
    words = bcd.parser(
        __doc__.splitlines()[0], CASES, CONTENDERS, "bcd_multinomial.md", ratios=(0.1, 0.02)
    )
    common.main("benchmarks.peers.bcd_multinomial", words, run)


if __name__ == "__main__":
    main()
