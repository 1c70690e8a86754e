"""Times on a CUDA device, one line of JSON per case.

Run it from the root of the repository on a machine with the device::

    PYTHONPATH=. python benchmarks/gpu.py [CASE ...]

A kernel that streams its data is judged by `fraction`: its bytes per second over those of a copy
within the device, measured in the same run.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from solvers._core.backend import get_backend

CASES = {}
FLOATS = ("float32", "float64")


class Work(NamedTuple):
    """One call to time; `on` takes a back end and returns the call with its data in place."""

    on: Callable
    bytes_moved: int


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
                ms = on_device_ms(work.on(gpu))
                line = {
                    "case": make.__name__,
                    "device": name,
                    "dtype": dtype,
                    "size": size,
                    "ms": ms,
                    "gigabytes_per_second": work.bytes_moved / ms / 1e6,
                    "fraction": work.bytes_moved / ms / copy_rate,
                    "cpu_ms": on_host_ms(work.on(cpu)),
                }
                sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
