"""`solvers.ot`: time to a certified answer, work, memory and the first call."""

import itertools
import statistics
import time
import warnings
from importlib.util import find_spec

import numpy as np

from benchmarks import common as suite
from benchmarks.common import (
    marginal_error,
    plan_from_potentials,
    seconds_if_certified,
)
from benchmarks.peers import common
from benchmarks.peers import ot as comparison
from benchmarks.peers import ot_batch as batches
from benchmarks.peers import ot_kin as relatives
from solvers import datasets

CASES = {
    "digits l1": lambda: datasets.digits_transport(metric="cityblock"),
    "digits l2": datasets.digits_transport,
    "colours": lambda: datasets.color_transport(rng=0),
    "assignment": lambda: datasets.assignment(rng=0),
}
FIRST_CALL = """
import time
from solvers import datasets
problem = datasets.assignment(100, rng=0)
start = time.perf_counter()
from solvers.ot import sinkhorn_newton
sinkhorn_newton(*problem[:3])
first = time.perf_counter()
sinkhorn_newton(*problem[:3])
print(first - start, time.perf_counter() - first)
"""


class SinkhornNewton:
    """A thousand points a side, solved until the marginal error is below 1e-9."""

    params = (list(CASES), [1e-2, 1e-3, 1e-4])
    param_names = ("case", "reg")
    accuracy = 1e-9
    timeout = 300

    def setup(self, case, reg):
        from solvers.ot import sinkhorn_newton

        self.newton, self.problem, self.reg = sinkhorn_newton, CASES[case](), reg
        self.solve(maxiter=2)  # compiles outside the clock

    def solve(self, **options):
        a, b, C = self.problem[:3]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an answer that falls short is reported as NaN
            return self.newton(a, b, C, reg=self.reg, tol=self.accuracy, **options)

    def error(self, answer):
        P = plan_from_potentials(answer.f, answer.g, self.problem, self.reg)
        return marginal_error(P, self.problem.a, self.problem.b)

    def track_seconds_to_accuracy(self, case, reg):
        return seconds_if_certified(self.solve, self.error, self.accuracy)

    def track_passes(self, case, reg):
        return self.solve().nit

    def track_error(self, case, reg):
        return self.error(self.solve())

    def peakmem_solve(self, case, reg):
        self.solve()

    track_seconds_to_accuracy.unit = "seconds"
    track_passes.unit = "passes"
    track_error.unit = "L1"


class Batches:
    """Many small problems in one call, and how much longer a loop over some of them takes."""

    params = (["assignments", "clouds"], ["64x100", "1000x50"], [1e-1, 1e-2, 1e-3])
    param_names = ("case", "shape", "reg")
    accuracy = 1e-8
    timeout = 300

    def setup(self, case, shape, reg):
        from solvers.ot import certify, sinkhorn_newton

        self.newton, self.certify, self.reg = sinkhorn_newton, certify, reg
        self.problem = batches.CASES[case](*map(int, shape.split("x")))
        self.solve()  # compiles outside the clock
        self.loop(count=1)

    def solve(self):
        return self.newton(*self.problem, reg=self.reg, tol=self.accuracy)

    def loop(self, count=16):
        for one in itertools.islice(zip(*self.problem, strict=True), count):
            self.newton(*one, reg=self.reg, tol=self.accuracy)

    def error(self, answer):
        return self.certify(*self.problem, answer.f, answer.g, reg=self.reg).value

    def track_seconds_to_accuracy(self, case, shape, reg):
        return seconds_if_certified(self.solve, self.error, self.accuracy)

    def track_speedup_vs_loop(self, case, shape, reg):
        times = {self.solve: [], self.loop: []}
        for function in [*times] * 5:
            start = time.perf_counter()
            function()
            times[function].append(time.perf_counter() - start)
        batch, loop = (statistics.median(seconds) for seconds in times.values())
        return loop * len(self.problem.a) / 16 / batch

    track_seconds_to_accuracy.unit = "seconds"
    track_speedup_vs_loop.unit = "x"


class Relatives:
    """Unequal masses, barycentres and divergences, to the accuracy that `ot_kin` judges by."""

    params = (list(relatives.CASES), [1e-1, 1e-2, 1e-3])
    param_names = ("case", "reg")
    accuracy = 1e-7
    timeout = 300

    def setup(self, case, reg):
        problem = relatives.CASES[case](1000)
        self.ours = relatives.Ours(problem, reg * problem.C.max())
        self.solve(2)  # compiles outside the clock

    def solve(self, cap=1500):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an answer that falls short is reported as NaN
            return self.ours.run(self.accuracy, cap)

    def track_seconds_to_accuracy(self, case, reg):
        return seconds_if_certified(self.solve, self.ours.error, self.accuracy)

    def track_passes(self, case, reg):
        return self.ours.iterations(self.solve())

    track_seconds_to_accuracy.unit = "seconds"
    track_passes.unit = "passes"


class AgainstPot:
    """Seconds of POT divided by ours, interleaved, both tuned to the same certified accuracy."""

    params = (["digits l2", "colours", "assignment"], [1e-2, 1e-3])
    param_names = ("case", "reg")
    accuracy = 1e-6
    timeout = 300

    def setup(self, case, reg):
        if find_spec("ot") is None:
            raise NotImplementedError("POT is not installed")

    def track_speedup_vs_pot(self, case, reg):
        names = comparison.OURS, "POT sinkhorn"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            contenders = {name: comparison.CONTENDERS[name] for name in names}
            data = CASES[case](), reg
            entries = common.run_cell(contenders, data, self.accuracy, seconds=20)
        ours, peer = (entries[name] for name in names)
        certified = ours["certified"] and peer["certified"]
        return peer["seconds"] / ours["seconds"] if certified else np.nan

    track_speedup_vs_pot.unit = "x"


class FirstCall(suite.FirstCall):
    """Of this family."""

    code = FIRST_CALL
