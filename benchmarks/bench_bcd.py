"""`solvers.bcd`: time to a certified answer, work, memory and the first call."""

import warnings

import numpy as np

from benchmarks import common as suite
from benchmarks.common import seconds_if_certified
from benchmarks.peers import bcd, bcd_kin, bcd_logistic, bcd_multinomial, bcd_path

FIRST_CALL = """
import time
from solvers import datasets
X, y, _ = datasets.autoregressive(200, 400, rng=0)
start = time.perf_counter()
from solvers import bcd
bcd.lasso(X, y, 0.1)
first = time.perf_counter()
bcd.lasso(X, y, 0.1)
print(first - start, time.perf_counter() - first)
"""


class _Solve:
    """What a case needs: `ours`, a contender of the comparison with peers, made by `setup`."""

    accuracy, timeout = 1e-8, 300

    def solve(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an answer that falls short is reported as NaN
            return self.ours.run(self.accuracy, self.ours.cap)

    def track_seconds_to_accuracy(self, *place):
        return seconds_if_certified(self.solve, self.ours.error, self.accuracy, repeat=3)

    def track_error(self, *place):
        return self.ours.error(self.solve())

    def peakmem_solve(self, *place):
        self.solve()

    track_seconds_to_accuracy.unit = "seconds"
    track_error.unit = "relative"


class _Passes(_Solve):
    def track_passes(self, *place):
        return self.solve().npass

    track_passes.unit = "passes"


class Squares(_Passes):
    """The lasso, at a share of the largest penalty."""

    params = (list(bcd.CASES), [0.5, 0.1, 0.02, 0.005])
    param_names = ("case", "ratio")

    def setup(self, case, ratio):
        X, y, _ = bcd.CASES[case]()
        self.ours = bcd.Ours(bcd.Squares(X, y, ratio * bcd.Squares.largest(X, y)))
        self.ours.prepare(self.ours.cap)  # compiles outside the clock


class Logistic(_Passes):
    """Sparse logistic regression, at a share of the largest penalty."""

    params = (list(bcd_logistic.CASES), [0.1, 0.02])
    param_names = ("case", "ratio")

    def setup(self, case, ratio):
        X, y, _ = bcd_logistic.CASES[case]()
        alpha = ratio * bcd_logistic.Classes.largest(X, y)
        self.ours = bcd_logistic.Ours(bcd_logistic.Classes(X, y, alpha))
        self.ours.prepare(self.ours.cap)


class Multinomial(_Passes):
    """Several classes, at a share of the largest penalty."""

    params = (list(bcd_multinomial.CASES), bcd_multinomial.PENALTIES, [0.1, 0.02])
    param_names = ("case", "penalty", "ratio")

    def setup(self, case, penalty, ratio):
        X, y = bcd_multinomial.CASES[case]()
        alpha = ratio * bcd_multinomial.largest(X, y, penalty)
        self.ours = bcd_multinomial.Ours(bcd_multinomial.Multi(X, y, alpha, penalty))
        self.ours.prepare(self.ours.cap)


class Path(_Solve):
    """One hundred penalties."""

    params = (list(bcd_path.EPS),)
    param_names = ("case",)

    def setup(self, case):
        X, y, _ = bcd.CASES[case]()
        alphas = bcd.Squares.largest(X, y) * np.geomspace(1.0, bcd_path.EPS[case], bcd_path.NUMBER)
        self.ours = bcd_path.Ours(bcd_path.Path(X, y, alphas))
        self.ours.prepare(self.ours.cap)


class Kin(_Solve):
    """Bounds, groups and graphs."""

    params = (list(bcd_kin.CASES),)
    param_names = ("case",)

    def setup(self, case):
        problem = bcd_kin.CASES[case]()
        self.ours = bcd_kin.KINDS[type(problem)][bcd.OURS](problem)
        self.ours.prepare(self.ours.cap)


class FirstCall(suite.FirstCall):
    """Of this family."""

    code = FIRST_CALL
