"""One large transport problem: seconds, passes over the cost, and peak memory in all.

Run from the repository's root::

    python -m benchmarks.large_ot --n 20000 --reg 1e-3 --cases clouds assignment
    python -m benchmarks.large_ot --n 100000 --reg 1e-2 1e-3 --cases points --tol 1e-6

Every case has a process of its own, so that the peak, as the operating system reports it, is that
of interpreter, libraries, cost, solve and certificate together.
"""

import argparse
import itertools
import resource
import sys
import time

import numpy as np
from scipy.ndimage import zoom
from scipy.spatial.distance import cdist

from benchmarks.common import in_fresh_process
from solvers import datasets, ot, warmup

CASES = "clouds", "images", "assignment", "points"


def problem(case, n):
    """Weights and a cost with maximum 1, made without a second array of its size.

    The costs of "points", in 3-D, are never stored; their largest is 1 or a little less.
    """
    if case == "points":
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(2, n, 3)) * [[[1.0]], [[0.6]]]
        reach = np.maximum(x.max(axis=0) - y.min(axis=0), y.max(axis=0) - x.min(axis=0))
        return None, None, ot.PointCloud(x, y, scale=1.0 / (reach @ reach))
    if case == "assignment":
        return None, None, np.random.default_rng(0).random((n, n))
    if case == "clouds":
        sides = [datasets.gaussian_mixture_transport(n, 1, rng=seed) for seed in (0, 1)]
        (a, x), (b, y) = ((side.a, side.x) for side in sides)
        return a, b, unit_cost(x, y, "sqeuclidean")
    side = round(n**0.5)
    images = datasets.digits_transport(0, 1, side=8)
    a, b = (zoom(w.reshape(8, 8), side / 8, order=1).ravel() for w in (images.a, images.b))
    pixels = np.stack(np.divmod(np.arange(side * side), side), axis=1).astype(float)
    return a / a.sum(), b / b.sum(), unit_cost(pixels, pixels, "cityblock")


def unit_cost(x, y, metric):
    C = np.empty((len(x), len(y)))
    for first in range(0, len(x), 500):
        cdist(x[first : first + 500], y, metric, out=C[first : first + 500])
    C /= C.max()
    return C


def solve(case, n, reg, tol):
    """Write the figures of one case, from a process that does nothing else."""
    warmup("ot")
    a, b, C = problem(case, n)
    start = time.perf_counter()
    res = ot.sinkhorn_newton(a, b, C, reg=reg, tol=tol)
    seconds = time.perf_counter() - start
    # In KiB on Linux, in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = (
        seconds,
        res.nit,
        res.ncg,
        res.density,
        res.certificate.value,
        getattr(C, "nbytes", 0),
        peak,
    )
    sys.stdout.write(" ".join(map(str, figures)))


def row(case, n, reg, tol):
    code = f"from benchmarks.large_ot import solve; solve({case!r}, {n}, {reg}, {tol})"
    seconds, passes, cg, density, error, cost, peak = in_fresh_process(code)
    return (
        f"{case}, n = {n}, reg = {reg:g} max C: error {error:.1e} in {seconds:.1f} s, "
        f"{passes:.0f} passes, {cg:.0f} steps of CG, density {density:.3f}; "
        f"cost {cost / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[20_000])
    parser.add_argument("--reg", type=float, nargs="+", default=[1e-3], help="of the largest cost")
    parser.add_argument("--tol", type=float, default=1e-8)
    parser.add_argument("--cases", nargs="+", default=CASES[:1], choices=CASES)
    options = parser.parse_args()
    for case, n, reg in itertools.product(options.cases, options.n, options.reg):
        sys.stdout.write(row(case, n, reg, options.tol) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
