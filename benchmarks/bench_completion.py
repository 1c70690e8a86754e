"""`solvers.completion`: time to a certified answer, work, memory, the first call, and one pass."""

import warnings

import numpy as np

from benchmarks import common as suite
from benchmarks.common import seconds_if_certified
from benchmarks.peers import completion as recovery
from benchmarks.peers import completion_implicit as implicit
from benchmarks.peers import completion_ratings as ratings
from solvers import datasets

FIRST_CALL = """
import time
from solvers import datasets
rows, cols, vals, L, R = datasets.planted_matrix(200, 200, 5, 4.0, rng=0)
start = time.perf_counter()
from solvers.completion import alternating_minimization
alternating_minimization((rows, cols, vals), 5, shape=(200, 200))
first = time.perf_counter()
alternating_minimization((rows, cols, vals), 5, shape=(200, 200))
print(first - start, time.perf_counter() - first)
"""


class Planted:
    """Square matrices of rank 10, found to a relative error of 1e-10."""

    params = ([1000, 2000], [2.0, 3.0, 5.0], [1.0, 10.0, 1e4])
    param_names = ("n", "oversampling", "condition")
    accuracy = 1e-10
    timeout = 300

    def setup(self, n, oversampling, condition):
        data = datasets.planted_matrix(n, n, 10, oversampling, cond=condition, rng=0)
        self.ours = recovery.Ours(recovery.Planted(*data), method="auto")
        self.ours.prepare(1)  # compiles outside the clock

    def solve(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an answer that falls short is reported as NaN
            return self.ours.run(0.03 * self.accuracy, 500)

    def track_seconds_to_accuracy(self, n, oversampling, condition):
        return seconds_if_certified(self.solve, self.ours.error, self.accuracy, repeat=3)

    def track_error(self, n, oversampling, condition):
        return self.ours.error(self.solve())

    def track_passes(self, n, oversampling, condition):
        return self.solve().n_passes

    def peakmem_solve(self, n, oversampling, condition):
        self.solve()

    track_seconds_to_accuracy.unit = "seconds"
    track_error.unit = "relative"
    track_passes.unit = "passes"


class Large:
    """Sparse matrices that no dense method could hold, of rank 10."""

    params = (["20000x20000", "200000x50000"],)
    param_names = ("shape",)
    accuracy = 1e-8
    timeout = 900

    def setup(self, shape):
        data = datasets.planted_matrix(*map(int, shape.split("x")), 10, 3.0, rng=0)
        self.ours = recovery.Ours(recovery.Planted(*data), method="auto")
        self.ours.prepare(1)

    def track_seconds_to_accuracy(self, shape):
        def solve():
            return self.ours.run(0.1 * self.accuracy, 500)

        return seconds_if_certified(solve, self.ours.error, self.accuracy, repeat=1)

    track_seconds_to_accuracy.unit = "seconds"


class Ratings:
    """Ratings with a ridge: ten sweeps, the objective they reach, and the gradient left."""

    params = ([10, 50, 100, 200],)
    param_names = ("k",)
    timeout = 600

    def setup(self, k):
        self.ours = ratings.Ours(ratings.fitted(*ratings.SHAPES["6000x3700"], k), None)
        self.ours.prepare(1)

    def solve(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ten sweeps are not meant to be enough
            return self.ours.run(None, 10)

    def time_ten_sweeps(self, k):
        self.solve()

    def track_objective(self, k):
        return self.ours.objective(self.solve())

    def peakmem_solve(self, k):
        self.solve()

    track_objective.unit = "squared stars"


class Implicit:
    """Counts: five sweeps, and the objective they reach."""

    params = ([64, 128],)
    param_names = ("k",)
    timeout = 600

    def setup(self, k):
        problem = implicit.Counts(implicit.counts(*implicit.SHAPES["7000x1000"]), k)
        self.ours = implicit.Ours(problem, None, inner="auto")
        self.ours.prepare(1)

    def solve(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # see above
            return self.ours.run(None, 5)

    def time_five_sweeps(self, k):
        self.solve()

    def track_objective(self, k):
        return self.ours.objective(self.solve())


class Photograph:
    """A photograph as a matrix, until the duality gap is below a thousandth."""

    timeout = 300

    def setup(self):
        self.damaged, self.whole = datasets.damaged_photograph(rng=0)
        self.solve()

    def solve(self):
        from solvers.completion import alternating_minimization

        return alternating_minimization(
            self.damaged, 40, lam=5.0, center=True, certificate=("gap",), tol=1e-3, rng=0
        )

    def track_seconds_to_accuracy(self):
        return seconds_if_certified(self.solve, lambda res: res.certificate.value, 1e-3, repeat=3)

    def track_psnr(self):
        lost = np.isnan(self.damaged)
        error = (self.solve().todense() - self.whole)[lost]
        return -10.0 * np.log10(np.square(error).mean())

    track_seconds_to_accuracy.unit = "seconds"
    track_psnr.unit = "dB"


class Pass:
    """One pass over a million entries: estimate less value, in order of the rows."""

    params = ([10, 50], ["float32", "float64"])
    param_names = ("k", "dtype")

    def setup(self, k, dtype):
        from solvers._core.backend import get_backend

        be, rng = get_backend("numpy"), np.random.default_rng(0)
        known = datasets.ratings_like(7000, 5000, 1_000_000, rng=0).tocsr()
        data = known.indptr.astype(np.int64), known.indices, known.data.astype(dtype)
        A, B = (rng.random((side, k)).astype(dtype) for side in known.shape)
        none, out = np.empty(0, dtype), np.empty(known.nnz, dtype)
        kernel = be.kernels("solvers.completion").residual
        self.call = lambda: kernel(*data, A, B, none, none, out)
        self.call()

    def time_residual(self, k, dtype):
        self.call()


class FirstCall(suite.FirstCall):
    """Of this family."""

    code = FIRST_CALL
