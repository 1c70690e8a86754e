"""One penalty for each of many features of sparse data: seconds and peak memory in all.

Run from the repository's root::

    python -m benchmarks.large_bilevel --n 1000000

Every row has `--entries` features at random, the first ones more often; a tenth of the features
matter, and half as many samples validate. The peak, as the operating system reports it, is that of
interpreter, libraries, data, solve and certificate together.
"""

import argparse
import resource
import sys
import time
import warnings

import numpy as np
import scipy.sparse as sp

from solvers import bilevel


def samples(rng, n, p, entries, w):
    """Return compressed rows and their noisy signs."""
    cols = (p * rng.random((n, entries), dtype=np.float32) ** 2).astype(np.int32)
    cols = np.sort(cols.clip(0, p - 1), axis=1).ravel()
    values = rng.standard_normal(n * entries, dtype=np.float32).astype(float)
    X = sp.csr_array((values, cols, np.arange(0, n * entries + 1, entries)), shape=(n, p))
    return X, np.where(X @ w + 2.0 * rng.standard_normal(n) > 0, 1.0, -1.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1_000_000, help="samples, and features")
    parser.add_argument("--entries", type=int, default=50, help="features of a sample")
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--time-limit", type=float, default=900.0)
    options = parser.parse_args()
    rng, n = np.random.default_rng(0), options.n
    w = rng.standard_normal(n) * (rng.random(n) < 0.1)
    X, t = samples(rng, n, n, options.entries, w)
    Xv, tv = samples(rng, n // 2, n, options.entries, w)
    problem = bilevel.problems.LogisticHPO(X, t, Xv, tv)
    # A penalty that weighs as much as the samples of an average feature.
    x0 = np.full(n, np.log(options.entries / n))

    def show(state):
        sys.stdout.write(f"{state.nit}: {state.fun:.6f}, {time.perf_counter() - start:.0f} s\n")
        sys.stdout.flush()

    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        res = bilevel.penalty(
            problem, x0=x0, tol=options.tol, time_limit=options.time_limit, callback=show,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    # In KiB on Linux, in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(
        f"{res.status.name} after {res.nit} iterations, {seconds:.0f} s with the certificate "
        f"{res.certificate.value:.1e} ({options.tol:g} is asked for), psi {res.fun:.6f}, "
        f"peak {peak / 1e9:.2f} GB\n"
    )


if __name__ == "__main__":
    main()
