"""Throughput of the kernels that everything else stands on."""

import statistics
import time

import numpy as np

import benchmarks.common  # noqa: F401  (names the kernel cache before Numba is imported)


def entries_per_second(call, entries, repeat=9):
    """Median on one core over a few runs, the first of which compiles and is thrown away."""
    from solvers._core import threads

    seconds = []
    with threads.limit(1):
        for _ in range(repeat + 1):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return entries / statistics.median(seconds[1:])


class ElementFunctions:
    """Our vectorised `exp` and `log` against NumPy's, on numbers that fit the cache."""

    params = (["exp", "log"], ["float64", "float32"])
    param_names = ("function", "dtype")

    def setup(self, function, dtype):
        from solvers._core.kernels import jit, vmath

        vectorised = getattr(vmath, function)

        @jit.kernel(fastmath=jit.EXACT)
        def fill(x, out):
            for i in range(x.size):
                out[i] = vectorised(x[i])

        self.x = np.random.default_rng(0).uniform(0.5, 1.5, 10_000).astype(dtype)
        self.out = np.empty_like(self.x)
        self.ours = lambda: fill(self.x, self.out)
        self.numpy = lambda: getattr(np, function)(self.x, out=self.out)

    def track_entries_per_second(self, function, dtype):
        return entries_per_second(self.ours, self.x.size)

    def track_speedup_vs_numpy(self, function, dtype):
        theirs = entries_per_second(self.numpy, self.x.size)
        return entries_per_second(self.ours, self.x.size) / theirs

    track_entries_per_second.unit = "1/s"
    track_speedup_vs_numpy.unit = "x"


class TransportKernels:
    """The two kernels in which transport spends its time, against the obvious NumPy lines."""

    params = (["row_pass", "sweep"], ["float64", "float32"])
    param_names = ("kernel", "stored")
    n = 1000

    def setup(self, kernel, stored):
        from solvers.ot.kernels import cpu

        n, reg = self.n, 0.02
        C = np.random.default_rng(0).random((n, n))
        a, h, shift, rho = np.full(n, 1.0 / n), np.zeros(n), np.empty(n), np.empty(n)
        v = np.ones(n)
        K = np.exp(-C / reg).astype(stored)
        self.calls = {
            "row_pass": lambda: cpu.row_pass(C, h, a, reg, a, shift, K),
            "sweep": lambda: cpu.sweep(K, v, a, rho),
        }

        def numpy_row_pass():
            Z = (h - C) / reg
            top = Z.max(axis=1, keepdims=True)
            E = np.exp(Z - top)
            return (a / (E @ a)) @ E

        self.numpy = {
            "row_pass": numpy_row_pass,
            "sweep": lambda: (a / (K @ v.astype(K.dtype))).astype(K.dtype) @ K,
        }

    def track_entries_per_second(self, kernel, stored):
        return entries_per_second(self.calls[kernel], self.n**2)

    def track_speedup_vs_numpy(self, kernel, stored):
        theirs = entries_per_second(self.numpy[kernel], self.n**2)
        return entries_per_second(self.calls[kernel], self.n**2) / theirs

    track_entries_per_second.unit = "1/s"
    track_speedup_vs_numpy.unit = "x"
