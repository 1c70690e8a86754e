"""`solvers.bilevel`: time to a certified point, lower evaluations, memory and the first call."""

import warnings

import numpy as np

from benchmarks import common as suite
from benchmarks.common import seconds_if_certified
from solvers import bilevel, datasets

FIRST_CALL = """
import time, warnings
import numpy as np
from solvers import datasets
X, t, _ = datasets.autoregressive(80, 10, informative=5, rng=0)
start = time.perf_counter()
from solvers import bilevel
problem = bilevel.problems.RidgeHPO(X[:40], t[:40], X[40:], t[40:])
warnings.simplefilter("ignore")
bilevel.penalty(problem, tol=1e-3, maxiter=3)
first = time.perf_counter()
bilevel.penalty(problem, tol=1e-3, maxiter=3)
print(first - start, time.perf_counter() - first)
"""
BOX = bilevel.box(-10.0, 4.0)


def halves(n, p, make, *, classes=False):
    """Return a problem whose training and validation samples are n each, correlated like AR(1)."""
    X, t, _ = datasets.autoregressive(
        2 * n, p, rho=0.5, informative=min(30, p // 2), noise=0.5, classes=classes, rng=0
    )
    return make(X[:n], t[:n], X[n:], t[n:])


class _Solve:
    """What a case needs: `run`, made by `setup`, returns a result; `judge` its certificate."""

    accuracy, timeout = 1e-4, 900

    def solve(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an answer that falls short is reported as NaN
            return self.run()

    def over(self, problem, solver=bilevel.penalty, X=BOX, **options):
        """Solve a ready-made problem, and judge by `certify` alone."""
        options = {"tol": 0.9 * self.accuracy, "X": X, "maxiter": 1000} | options
        self.run = lambda: solver(problem, **options)
        self.judge = lambda res: (
            bilevel.certify(
                problem.upper, problem.lower, res.x, res.y, X=X, tol=self.accuracy
            ).value
        )
        self.solve()  # compiles outside the clock

    def track_seconds_to_accuracy(self, *place):
        return seconds_if_certified(self.solve, self.judge, self.accuracy, repeat=3)

    def track_certificate(self, *place):
        return self.judge(self.solve())

    def track_lower_gradients(self, *place):
        return self.solve().counts["n_gy"]

    def peakmem_solve(self, *place):
        self.solve()

    track_seconds_to_accuracy.unit = "seconds"
    track_certificate.unit = "relative"
    track_lower_gradients.unit = "gradients"


class PerFeature(_Solve):
    """A penalty for each feature, beside implicit gradients with products of the Hessian."""

    params = (["ridge", "logistic"], [100, 500], ["penalty", "implicit"])
    param_names = ("loss", "features", "solver")

    def setup(self, loss, features, solver):
        make = {"ridge": bilevel.problems.RidgeHPO, "logistic": bilevel.problems.LogisticHPO}[loss]
        problem = halves(3 * features, features, make, classes=loss == "logistic")
        self.over(problem, getattr(bilevel, solver))


class Labels(_Solve):
    """A weight for each of a thousand labels, half of them wrong."""

    params = ([0.5, 0.8],)
    param_names = ("wrong",)

    def setup(self, wrong):
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        rng = np.random.default_rng(0)
        trusted, labelled = np.split(rng.permutation(len(y))[:1050], [50])
        labels = (y[labelled] + (rng.random(1000) < wrong) * rng.integers(1, 10, 1000)) % 10
        problem = bilevel.problems.HyperCleaning(
            X[labelled] / 16, labels, X[trusted] / 16, y[trusted], l2=5e-3
        )
        self.over(problem, X=problem.X)


class Batches:
    """Batches of samples: how many a second, and how good the penalties are after ten epochs."""

    params = (["shared", "soba", "f2sa"],)
    param_names = ("method",)
    timeout = 600

    def setup(self, method):
        problem = halves(10_000, 200, bilevel.problems.LogisticHPO, classes=True)
        self.problem, self.method = problem, method
        self.run(1)

    def run(self, epochs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bilevel.penalty_sgd(
                self.problem, method=self.method, X=BOX, epochs=epochs, rng=0, how="penalty"
            )

    def track_samples_a_second(self, method):
        res = self.run(10)
        return res.counts["n_samples"] / res.seconds

    def track_upper_value(self, method):
        # That of the lower level's solution, not of the last iterate.
        res = self.run(10)
        return bilevel.hypergradient(
            self.problem.upper, self.problem.lower, res.x, res.y, tol=1e-4
        ).value

    track_samples_a_second.unit = "samples/s"
    track_upper_value.unit = "loss"


class Coupled(_Solve):
    """A price for the slack of each sample of a support vector machine, by its constraints."""

    accuracy = 1e-3

    params = ([50, 100],)
    param_names = ("samples",)

    def setup(self, samples):
        A, t, _ = datasets.autoregressive(2 * samples, 10, informative=5, classes=True, rng=0)
        (A, V), (t, tv) = (np.split(a, 2) for a in (A, t))
        n, p = A.shape

        def lower(x, y):
            w, slack, price = y[:p], y[p:], np.exp(x)
            value = 0.5 * w @ w + 0.5 * price @ slack**2
            return value, 0.5 * price * slack**2, np.r_[w, price * slack]

        def upper(x, y):
            missing = np.maximum(1 - tv * (V @ y[:p]), 0)
            gy = np.r_[-V.T @ (tv * missing) / n, np.zeros(n)]
            return 0.5 * missing @ missing / n, None, gy

        rows = bilevel.Affine(np.zeros((n, n)), np.c_[-t[:, None] * A, -np.eye(n)], -np.ones(n))
        x0, y0, X = np.zeros(n), np.r_[np.zeros(p), np.ones(n)], bilevel.box(-6.0, 3.0)
        self.run = lambda: bilevel.lvhba(upper, lower, rows, x0, y0, X=X, tol=0.9 * self.accuracy)
        self.judge = lambda res: (
            bilevel.certify(
                upper, lower, res.x, res.y, X=X, constraints=rows, tol=self.accuracy
            ).value
        )
        self.solve()


class FirstCall(suite.FirstCall):
    """Seconds of the first call in a fresh process, with and without kernels on disk."""

    code = FIRST_CALL
