"""Run as ``python -m tests.core.launches``: parallel launches from many threads and a fork."""

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numba import prange

from solvers._core.kernels.jit import kernel
from solvers._core.threads import guard, limit, strips

ROWS, LENGTH = 64, 10_000


@kernel()
def _row_sum(row):
    total = 0.0
    for x in row:
        total += x * x
    return total


@kernel()
def _serial(A, out):
    for i in range(A.shape[0]):
        out[i] = _row_sum(A[i])


@kernel(parallel=True)
def _parallel(A, out):
    for i in prange(A.shape[0]):
        out[i] = _row_sum(A[i])


def row_sums(A):
    """Sum the squares of each row as every kernel of the library does."""
    out = np.empty(A.shape[0])
    if strips(A.size) == 1:
        _serial(A, out)
        return out
    with guard():
        _parallel(A, out)
    return out


def child_agrees(A, expected):
    """Tell whether a forked child, whose worker threads are gone, computes the same."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        right = strips(A.size) == 1 and np.array_equal(row_sums(A), expected)
        with limit(numba.get_num_threads()):
            right = right and np.array_equal(row_sums(A), expected)
        os._exit(0 if right else 3)
    return os.waitpid(pid, 0)[1] == 0


def main():
    A = np.random.default_rng(0).random((ROWS, LENGTH))
    expected = np.array([np.add.accumulate(row * row)[-1] for row in A])
    # Before the first launch a child may start threads of its own.
    if hasattr(os, "fork"):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            os._exit(0 if strips(A.size) == numba.get_num_threads() else 3)
        assert os.waitpid(pid, 0)[1] == 0, "a child of a quiet process lost its threads"
    np.testing.assert_allclose(row_sums(A), expected, rtol=1e-12)
    first = row_sums(A)
    assert numba.threading_layer() == numba.config.THREADING_LAYER

    def work(k):
        with limit(1) if k % 2 else contextlib.nullcontext():
            return all(np.array_equal(row_sums(A), first) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4))), "concurrent launches gave other numbers"
    if hasattr(os, "fork"):
        assert child_agrees(A, first), "a forked child failed"


if __name__ == "__main__":
    main()
