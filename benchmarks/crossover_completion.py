"""Where conjugate gradients overtake direct solves of rows.

``python -m benchmarks.crossover_completion`` prints, for ranks k and numbers of entries d of each
row, the time of a half sweep by direct solves, how much faster a few steps of conjugate gradients
are, and the part of the distance from the minimiser that these leave, from a start that is 10 %
off. The choice of ``inner="auto"`` in `solvers.completion` goes by this table. Time is that of the
process, on one thread.
"""

import argparse
import logging
import time

import numpy as np

from solvers._core import threads
from solvers._core.backend import get_backend

RANKS, RATIOS, STEPS = (10, 20, 50, 100, 200), (1, 3, 10, 40), (2, 4, 8)
# Multiplications and additions of a direct half sweep, which sets the number of rows.
WORK = 4e8
# How far the start is from the minimiser, and how often each time is taken.
OFF, REPEATS = 0.1, 3

log = logging.getLogger(__name__)


def systems(rng, k, d, ridge):
    """Return the arguments of a row kernel: random rows with d entries each, and their count."""
    m, n = max(int(WORK / (d * k * k + k**3 / 3)), 8), 4 * max(d, k)
    ptr = d * np.arange(m + 1)
    idx = np.concatenate([rng.choice(n, d, replace=False) for _ in range(m)]).astype(np.int32)
    B = np.linalg.qr(rng.standard_normal((n, k)))[0]
    nothing = np.empty(0)
    val, weights = rng.standard_normal(m * d), np.full(m, ridge * d / n)
    return (ptr, idx, val, nothing, B, nothing, weights, 0.0, np.empty((0, 0))), m


def timed(run, start):
    """Return the least time of a run that improves its argument, and where it led."""
    times = []
    for _ in range(REPEATS):
        A = start.copy()
        began = time.process_time()
        run(A)
        times.append(time.process_time() - began)
    return min(times), A


def row(rng, k, d, ridge):
    """Return the milliseconds of a direct half sweep, and (speed-up, error) of each `STEPS`."""
    rows = get_backend("numpy").kernels("solvers.completion", "rows")
    args, m = systems(rng, k, d, ridge)
    best, grad, left = (np.zeros((m, k)) for _ in range(3))
    rows.solve_rows(*args, best, grad)
    noise = rng.standard_normal((m, k))
    start = best + OFF * np.linalg.norm(best) / np.linalg.norm(noise) * noise
    direct, _ = timed(lambda A: rows.solve_rows(*args, A, grad), start)
    found = []
    for steps in STEPS:
        seconds, A = timed(
            lambda A, steps=steps: rows.cg_rows(*args, A, grad, left, 0.0, steps), start
        )
        error = np.linalg.norm(A - best) / np.linalg.norm(start - best)
        found.append((direct / seconds, error))
    return 1e3 * direct, found


def main():
    """Print the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ridge", type=float, default=1.0, help="over the rows' mean curvature")
    ridge, rng = parser.parse_args().ridge, np.random.default_rng(0)
    with threads.limit(1):
        log.info("| k | d / k | direct, ms |" + "".join(f" cg x {t} |" for t in STEPS))
        log.info("|---|---|---|" + "---|" * len(STEPS))
        for k in RANKS:
            for ratio in RATIOS:
                direct, found = row(rng, k, ratio * k, ridge)
                cells = "".join(f" {speed:.1f} ({error:.0e}) |" for speed, error in found)
                log.info(f"| {k} | {ratio} | {direct:.0f} |{cells}")


if __name__ == "__main__":
    main()
