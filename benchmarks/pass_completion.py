"""How near one pass over the observed entries comes to what the machine can do.

``python -m benchmarks.pass_completion`` prints the nanoseconds per entry of the two passes that
solvers of matrix completion spend their time in, `residual` and the fused `jac_rows`, on one
thread, beside two floors: what their multiplications and the bytes that stream from memory take
at this machine's speed, measured here; and the same with the factors' rows, which each entry
gathers from the second-level cache.
"""

import argparse
import logging
import time
from functools import partial

import numpy as np
from numba import njit

from solvers import datasets
from solvers._core import threads
from solvers._core.backend import get_backend
from solvers.completion._observations import observe, read_entries

RANKS, REPEATS = (10, 16, 50, 100), 25

log = logging.getLogger(__name__)


def least(run):
    """Return the least seconds of a run."""
    run()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def speeds():
    """Return multiply-adds and streamed bytes per nanosecond."""
    A = np.random.default_rng(0).standard_normal((1000, 1000))
    x = np.ones(20_000_000)
    return 1000**3 / least(partial(np.dot, A, A)) / 1e9, x.nbytes / least(x.sum) / 1e9


@njit(fastmath=True, error_model="numpy")
def gather(idx, B, out):
    """Read the row of each entry, four at a time, and do next to nothing with it."""
    k = B.shape[1]
    for p in range(0, idx.size - 3, 4):
        b0, b1, b2, b3 = B[idx[p]], B[idx[p + 1]], B[idx[p + 2]], B[idx[p + 3]]
        for q in range(k):
            out[q] += (b0[q] + b1[q]) + (b2[q] + b3[q])


def main():
    """Print the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    argparse.ArgumentParser(description=__doc__).parse_args()
    be, rng = get_backend("numpy"), np.random.default_rng(0)
    plain = be.kernels("solvers.completion")
    tangent = be.kernels("solvers.completion", "tangent")
    ratings = datasets.ratings_like(6000, 3700, 800_000, rng=0)
    obs = observe(read_entries(ratings.tocoo()))
    side, (m, n), nothing = obs.by_row, obs.shape, np.empty(0)
    with threads.limit(1):
        flops, stream = speeds()
        log.info("%d entries of a %d x %d matrix, one thread", obs.size, m, n)
        log.info("%.1f multiply-adds and %.1f streamed bytes per ns\n", flops, stream)
        log.info("| pass | k | ns per entry | floor | times | with gathers | times |")
        log.info("|---|---|---|---|---|---|---|")
        for k in RANKS:
            U, A, G = (rng.standard_normal((m, k)) for _ in range(3))
            V, B = (rng.standard_normal((n, k)) for _ in range(2))
            y, row = np.empty(obs.size), np.empty(k)
            where = side.ptr, side.idx
            one = partial(plain.residual, *where, side.val, U, V, nothing, nothing, y)
            two = partial(tangent.jac_rows, *where, nothing, U, V, A, B, y, G)
            cases = {
                "residual": (one, max(k / flops, 20 / stream), 1),
                "jac_rows": (two, max(3 * k / flops, 12 / stream), 2),
            }
            reading = least(partial(gather, side.idx, V, row)) / obs.size * 1e9
            for name, (run, floor, rows) in cases.items():
                ns = least(run) / obs.size * 1e9
                high = max(floor, rows * reading)
                log.info(
                    f"| {name} | {k} | {ns:.2f} | {floor:.2f} | {ns / floor:.1f} | "
                    f"{high:.2f} | {ns / high:.1f} |"
                )


if __name__ == "__main__":
    main()
