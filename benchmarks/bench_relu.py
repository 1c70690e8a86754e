"""`solvers.relu`: time to a certified gap, iterations, memory and the first call."""

import warnings

import numpy as np

from benchmarks import common as suite
from benchmarks.common import seconds_if_certified
from solvers import datasets, relu

FIRST_CALL = """
import time
from solvers import datasets
X, y = datasets.standard_table("iris")
start = time.perf_counter()
from solvers import relu
relu.admm(X, y, beta=0.5, n_gates=20, tol=1e-3, rng=0)
first = time.perf_counter()
relu.admm(X, y, beta=0.5, n_gates=20, tol=1e-3, rng=0)
print(first - start, time.perf_counter() - first)
"""


class _Train:
    """What a case needs: `train`, made by `setup`, returns a result; `judge` its gap."""

    accuracy, timeout = 1e-3, 600

    def solve(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an answer that falls short is reported as NaN
            return self.train()

    def track_seconds_to_accuracy(self, *place):
        return seconds_if_certified(self.solve, self.judge, self.accuracy, repeat=3)

    def track_gap(self, *place):
        return self.judge(self.solve())

    def track_iterations(self, *place):
        return self.solve().nit

    def peakmem_train(self, *place):
        self.solve()

    track_seconds_to_accuracy.unit = "seconds"
    track_gap.unit = "relative"
    track_iterations.unit = "iterations"

    def over(self, X, y, P, beta, *, solver=relu.admm, **options):
        """Train over P gates that do not change, and judge by `certify` alone."""
        loss = options.get("loss", "squared")
        gates = relu.sample_gates(X, P, rng=0)
        options |= {"beta": beta, "gates": gates, "tol": 0.9 * self.accuracy}
        self.train = lambda: solver(X, y, **options)
        self.judge = lambda res: (
            relu.certify(
                X, y, beta=beta, loss=loss, V=res.V, W=res.W, gates=gates, tol=self.accuracy,
                z=res.z,
            ).value
        )  # fmt: skip
        self.train()  # compiles outside the clock


class Tables(_Train):
    """Bundled tables by ADMM, least squares."""

    params = (["breast_cancer", "diabetes", "digits"], [20, 100, 500], [0.1, 1.0])
    param_names = ("table", "gates", "beta")

    def setup(self, table, gates, beta):
        self.over(*datasets.standard_table(table), gates, beta, maxiter=20000)


class Losses(_Train):
    """Every loss on one table."""

    params = (["squared", "logistic", "hinge", "squared_hinge", "huber"],)
    param_names = ("loss",)

    def setup(self, loss):
        self.over(*datasets.standard_table("breast_cancer"), 50, 1.0, loss=loss, maxiter=20000)


class Digits(_Train):
    """The same to many digits, by the interior point."""

    accuracy = 1e-6
    params = (["breast_cancer", "diabetes"], [20, 60])
    param_names = ("table", "gates")

    def setup(self, table, gates):
        X, y = datasets.standard_table(table)
        self.over(X, y, gates, 1.0, solver=relu.interior_point)


class LinearSteps(_Train):
    """Linear steps of ADMM on a planted network."""

    params = (["woodbury", "cg", "sylvester"], [2000, 5000])
    param_names = ("usolver", "samples")

    def setup(self, usolver, samples):
        X, y, *_ = datasets.planted_network(samples, 50, 20, rng=0)
        self.over(X, y, 200, 1.0, usolver=usolver)


class Adversaries(_Train):
    """Hinge loss under changes of every pixel, in the unit of standardised ones."""

    params = ([0.02, 0.05],)
    param_names = ("radius",)

    def setup(self, radius):
        X, y = datasets.standard_table("digits")
        X, y = X[:1000], y[:1000]
        eps = np.append(np.full(X.shape[1] - 1, radius / np.sqrt(X.shape[1])), 0.0)
        options = {"beta": 1.0, "loss": "hinge", "robust_eps": eps, "n_gates": 200, "rng": 0}
        self.train = lambda: relu.admm(X, y, tol=self.accuracy, **options)
        self.judge = lambda res: res.certificate.value
        self.train()


class FirstCall(suite.FirstCall):
    """Seconds of the first call in a fresh process, with and without kernels on disk."""

    code = FIRST_CALL
