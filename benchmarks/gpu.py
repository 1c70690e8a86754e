"""Times on a CUDA device, one line of JSON per case.

Run it from the root of the repository on a machine with the device::

    PYTHONPATH=. python benchmarks/gpu.py [CASE ...]

A kernel that streams its data is judged by `fraction`: its bytes per second over those of a copy
within the device, measured in the same run. Bytes are those of the cost model: what the algorithm
must read and write of its matrices, however often caches serve it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from solvers import completion, datasets, ot
from solvers._core.backend import get_backend

CASES = {}
FLOATS = ("float32", "float64")


class Work(NamedTuple):
    """One call to time.

    `on` takes a back end and returns the call with its data in place; `bytes_moved` is a number,
    or takes what the call returned.
    """

    on: Callable
    bytes_moved: int | Callable


def case(*sizes, dtypes=FLOATS):
    """Register a function of (size, dtype) that returns the `Work` of one case."""

    def register(make):
        CASES[make.__name__] = (make, sizes, dtypes)
        return make

    return register


@case(2**28, dtypes=("float32",))
def copy(n, dtype):
    def on(be):
        x = be.xp.ones(n, dtype)
        out = be.xp.empty_like(x)
        return lambda: be.xp.add(x, 0, out=out)

    return Work(on, 2 * n * np.dtype(dtype).itemsize)


@case(256)
def launch(n, dtype):
    def on(be):
        x = be.xp.ones(n, dtype)
        return lambda: be.xp.add(x, x, out=x)

    return Work(on, 3 * n * np.dtype(dtype).itemsize)


def transport(be, n, dtype):
    """Return weights and the cost between uniform points of a square, on a back end."""
    rng = np.random.default_rng(n)
    x, y = (be.xp.asarray(rng.random((n, 2)).astype(dtype)) for _ in range(2))
    C = (x[:, None, 0] - y[:, 0]) ** 2
    C += (x[:, None, 1] - y[:, 1]) ** 2
    w = be.xp.full(n, 1.0 / n)
    return w, w, C


def stored_plan(be, n, dtype):
    """Return a kernel, column factors, row sums, weights and peaks."""
    K = be.xp.asarray(np.random.default_rng(n).random((n, n), np.float32).astype(dtype))
    a, v, rho = be.xp.full(n, 1.0 / n), be.xp.ones(n), be.xp.empty(n)
    be.kernels("solvers.ot").sweep(K, v, a, rho)
    return K, v, rho, a, be.kernels("solvers.ot").row_peaks(K, v)


@case(4096, 16384)
def row_pass(n, dtype):
    def on(be):
        a, b, C = transport(be, n, dtype)
        h, shift, none = be.xp.zeros(n), be.xp.empty(n), be.xp.empty((0, n))
        run = be.kernels("solvers.ot").row_pass
        return lambda: run(C, h, b, 0.01, a, shift, none)

    return Work(on, 2 * n * n * np.dtype(dtype).itemsize)


@case(4096, 16384)
def sweep(n, dtype):
    def on(be):
        K, v, rho, a, _ = stored_plan(be, n, dtype)
        run = be.kernels("solvers.ot").sweep
        return lambda: run(K, v, a, rho)

    return Work(on, 2 * n * n * np.dtype(dtype).itemsize)


@case(4096, 16384)
def laplacian(n, dtype):
    def on(be):
        data = stored_plan(be, n, dtype)
        x = be.xp.asarray(np.random.default_rng(1).standard_normal(n))
        run = be.kernels("solvers.ot").laplacian
        return lambda: run(*data, x)

    return Work(on, 2 * n * n * np.dtype(dtype).itemsize)


@case(256, 1024, 8192)
def sinkhorn_newton(n, dtype):
    def on(be):
        data = [x.astype(dtype) for x in transport(be, n, dtype)]
        return lambda: ot.sinkhorn_newton(*data, reg=1e-3, history=False)

    def bytes_moved(res):
        # Two reads of the cost in a pass, two of the kernel in a product: four bytes an entry,
        # twelve where it is compressed.
        products = res.nsinkhorn + 2 * res.nnewton + res.ncg
        passes = res.nit + len(res.levels)
        entry = min(4.0, 12.0 * res.density)
        return 2 * n * n * (passes * np.dtype(dtype).itemsize + products * entry)

    return Work(on, bytes_moved)


def ratings(be, size, dtype):
    """Return entries as (ptr, idx, val) of a matrix as wide as high, ten in a hundred known."""
    side = int(np.sqrt(10 * size))
    known = datasets.ratings_like(side, side, size, rng=0).tocsr()
    ptr, idx = be.xp.asarray(known.indptr.astype(np.int64)), be.xp.asarray(known.indices)
    return ptr, idx, be.xp.asarray(known.data.astype(dtype)), side


@case(1_000_000, 10_000_000)
def completion_residual(size, dtype, k=32):
    def on(be):
        ptr, idx, val, side = ratings(be, size, dtype)
        A, B = (be.xp.ones((side, k), dtype) for _ in range(2))
        none, out = be.xp.empty(0, dtype), be.xp.empty(size, dtype)
        run = be.kernels("solvers.completion").residual
        return lambda: run(ptr, idx, val, A, B, none, none, out)

    # A column number, a value, a residual, and the factor of the column for each entry.
    return Work(on, size * (4 + (2 + k) * np.dtype(dtype).itemsize))


@case(1_000_000, 10_000_000)
def completion_times(size, dtype, k=32):
    def on(be):
        ptr, idx, val, side = ratings(be, size, dtype)
        B, out = be.xp.ones((side, k), dtype), be.xp.empty((side, k), dtype)
        run = be.kernels("solvers.completion").times
        return lambda: run(ptr, idx, val, B, out)

    return Work(on, size * (4 + (1 + k) * np.dtype(dtype).itemsize))


@case(1_000_000)
def alternating_minimization(size, dtype, k=32):
    def on(be):
        ptr, idx, val, side = ratings(be, size, dtype)
        rows = be.xp.repeat(be.xp.arange(side), np.diff(be.host(ptr)).tolist())
        options = {"shape": (side, side), "lam": 5.0, "tol": 1e-3, "rng": 0, "history": False}
        return lambda: completion.alternating_minimization(
            (rows, idx, val), k, bias=True, **options
        )

    def bytes_moved(res):
        return res.n_passes * size * (4 + (1 + k) * np.dtype(dtype).itemsize)

    return Work(on, bytes_moved)


def on_device_ms(call):
    from cupyx.profiler import benchmark

    return 1e3 * float(np.median(benchmark(call, n_repeat=20, n_warmup=3).gpu_times))


def on_host_ms(call):
    seconds = []
    call()
    for _ in range(5):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join(CASES)}")
    wanted = parser.parse_args().cases or list(CASES)
    gpu, cpu = get_backend("cupy"), get_backend("numpy")
    name = gpu.xp.cuda.runtime.getDeviceProperties(0)["name"].decode()
    yardstick = copy(2**28, "float32")
    copy_rate = yardstick.bytes_moved / on_device_ms(yardstick.on(gpu))
    for make, sizes, dtypes in (CASES[case] for case in wanted):
        for size in sizes:
            for dtype in dtypes:
                work = make(size, dtype)
                call = work.on(gpu)
                moved = (
                    work.bytes_moved(call()) if callable(work.bytes_moved) else work.bytes_moved
                )
                ms = on_device_ms(call)
                line = {
                    "case": make.__name__,
                    "device": name,
                    "dtype": dtype,
                    "size": size,
                    "ms": ms,
                    "gigabytes_per_second": moved / ms / 1e6,
                    "fraction": moved / ms / copy_rate,
                    "cpu_ms": on_host_ms(work.on(cpu)),
                }
                sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
