"""One penalty for each of many words of text-like data: seconds and peak memory in all.

Run from the repository's root::

    python -m benchmarks.large_bilevel --n 1000000

There are as many words as documents, about `--entries` of them in each; `--informative` of them
decide the labels together with as much noise. Half as many documents validate. The peak, as the
operating system reports it, is that of interpreter, libraries, data, solve and certificate
together; the data are drawn by another process.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from solvers import bilevel, datasets


def draw(folder, n, options):
    """Write the documents and their labels to files."""
    X, t, _ = datasets.text_like(
        n + n // 2, n, density=options.entries / n, informative=options.informative, noise=1.0,
        classes=True, rng=0,
    )  # fmt: skip
    X = X.tocsr()
    sp.save_npz(folder / "train", X[:n], compressed=False)
    sp.save_npz(folder / "valid", X[n:], compressed=False)
    np.save(folder / "labels", t)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1_000_000, help="documents, and words")
    parser.add_argument("--entries", type=int, default=50, help="words of a document")
    parser.add_argument("--informative", type=int, default=5000)
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--time-limit", type=float, default=900.0)
    options = parser.parse_args()
    n = options.n
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child = multiprocessing.get_context("spawn").Process(
            target=draw, args=(folder, n, options)
        )
        child.start()
        child.join()
        A, Av = (sp.load_npz(folder / f"{part}.npz") for part in ("train", "valid"))
        t = np.load(folder / "labels.npy")
    problem = bilevel.problems.LogisticHPO(A, t[:n], Av, t[n:])
    # A penalty that weighs about as much as the documents of an average word: their entries have
    # squares of 1 / entries, in the mean over documents 1 / n for each word.
    x0 = np.full(n, -np.log(n))
    # Where the estimators look for penalties.
    X = bilevel.box(np.log(0.01 / n), np.log(1e3))

    def show(state):
        sys.stdout.write(f"{state.nit}: {state.fun:.6f}, {time.perf_counter() - start:.0f} s\n")
        sys.stdout.flush()

    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        res = bilevel.penalty(
            problem, x0=x0, X=X, tol=options.tol, time_limit=options.time_limit, callback=show,
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
