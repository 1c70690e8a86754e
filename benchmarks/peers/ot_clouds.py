"""Clouds of points against OTT-JAX and GeomLoss.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.ot_clouds --n 2000 10000 --threads 2

As in `benchmarks.peers.ot`, the clock of a contender starts with points in the form it likes best
and stops when its function returns; the marginal error of its potentials is recomputed here.
"""

import argparse
import functools
import itertools
import logging
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.peers import common
from benchmarks.peers.ot import OURS, Contender

log = logging.getLogger(__name__)
# The default of this package and of OTT-JAX, as a share of the largest cost.
DEFAULT = "default"


class Clouds(NamedTuple):
    """Equal weights on both sides."""

    x: np.ndarray
    y: np.ndarray


def cube(n, d):
    """Two samples of the uniform distribution."""
    rng = np.random.default_rng(n + d)
    return Clouds(rng.random((n, d)), rng.random((n, d)))


def groups(n, d):
    """A uniform sample, to be moved to two groups of different size."""
    rng = np.random.default_rng(n + d)
    spread = np.where(np.arange(n) < 0.4 * n, 0.1, 0.2)[:, None]
    centre = np.where(np.arange(n) < 0.4 * n, 0.0, 1.0)[:, None]
    return Clouds(rng.random((n, d)), centre + spread * rng.standard_normal((n, d)))


CASES = {
    f"{name} {d}-D": functools.partial(make, d=d)
    for name, make in (("cube", cube), ("groups", groups))
    for d in (2, 3)
}


class OfPoints(Contender):
    """A contender whose potentials belong to equal weights of sum one."""

    def potentials(self, answer):
        """Return potentials in the KL convention."""

    def error(self, answer):
        f, g = (np.asarray(v, np.float64) for v in self.potentials(answer))
        (x, y), row_error, cols = self.problem, 0.0, 0.0
        n, m = len(x), len(y)
        for k in range(0, n, 500):
            E = np.square(x[k : k + 500, None] - y).sum(axis=2)
            with np.errstate(all="ignore"):
                P = np.exp((f[k : k + 500, None] + g - E) / self.reg) / (n * m)
            row_error += np.abs(P.sum(axis=1) - 1 / n).sum()
            cols = cols + P.sum(axis=0)
        return float(row_error + np.abs(cols - 1 / m).sum())


class Ours(OfPoints):
    cap = 500

    def __init__(self, problem, reg):
        super().__init__(problem, reg)
        from solvers.ot import PointCloud, sinkhorn_newton

        self.solve, self.cloud = sinkhorn_newton, PointCloud(*problem)

    def threshold(self, tol):
        return tol

    def prepare(self, cap):
        self.run(1e-2, cap)  # compiles

    def run(self, threshold, cap=500):
        return self.solve(None, None, self.cloud, reg=self.reg, tol=threshold, maxiter=cap)

    def iterations(self, answer):
        return int(answer.nit)

    def potentials(self, answer):
        return answer.f, answer.g


class Ott(OfPoints):
    cap = 32

    def __init__(self, problem, reg, acceleration):
        super().__init__(problem, reg)
        import jax
        from ott.geometry import pointcloud
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import acceleration as accelerations
        from ott.solvers.linear import sinkhorn

        jax.config.update("jax_enable_x64", True)
        options = {
            "momentum": {"momentum": accelerations.Momentum(value=1.5)},
            "anderson": {"anderson": accelerations.AndersonAcceleration(memory=5)},
        }[acceleration]
        # With `batch_size` it would not hold the cost, but version 0.6 then fails on JAX 0.10.

        def solve(data, threshold, cap):
            solver = sinkhorn.Sinkhorn(threshold=threshold, max_iterations=cap, **options)
            cloud = pointcloud.PointCloud(*data, epsilon=reg)
            return solver(linear_problem.LinearProblem(cloud))

        self.wait = jax.block_until_ready
        self.solve = jax.jit(solve, static_argnames="cap")
        self.data = [jax.numpy.asarray(array) for array in problem]
        self.compiled = {}

    def threshold(self, tol):
        return 0.5 * tol

    def run(self, threshold, cap):
        return self.wait(self.compiled[cap](self.data, threshold))

    def prepare(self, cap):
        if cap not in self.compiled:
            self.compiled[cap] = self.solve.lower(self.data, 1e-6, cap=cap).compile()

    def iterations(self, answer):
        return int(answer.n_iters) + 9  # it counts in tens

    def potentials(self, answer):
        x, y = self.problem
        return (
            np.asarray(answer.f) + self.reg * math.log(len(x)),
            np.asarray(answer.g) + self.reg * math.log(len(y)),
        )


class GeomLoss(OfPoints):
    def __init__(self, problem, reg):
        super().__init__(problem, reg)
        import torch
        from geomloss import SamplesLoss

        self.loss = SamplesLoss
        self.data = [torch.from_numpy(points) for points in problem]

    def threshold(self, tol):
        return 0.1  # no tolerance, but steps from scale to scale, which may be small

    def run(self, threshold, cap):
        # Its cost is half the square, and its blur a length.
        loss = self.loss(
            "sinkhorn",
            p=2,
            blur=math.sqrt(self.reg / 2),
            scaling=1.0 - threshold,
            debias=False,
            potentials=True,
            backend="tensorized",
        )
        return loss(*self.data)

    def iterations(self, answer):
        return 0

    def potentials(self, answer):
        return [2.0 * v.detach().numpy().ravel() for v in answer]


CONTENDERS = {
    OURS: Ours,
    "ott momentum": functools.partial(Ott, acceleration="momentum"),
    "ott anderson": functools.partial(Ott, acceleration="anderson"),
    "geomloss": GeomLoss,
}
PACKAGES = {
    "ott": [name for name in CONTENDERS if name.startswith("ott")],
    "geomloss": ["geomloss"],
}
DISTRIBUTIONS = ("numpy", "scipy", "numba", "ott-jax", "jax", "geomloss", "torch")


def regularisation(clouds, share):
    """Return the entropic weight that is a share of the largest cost, or the default."""
    from solvers.ot import PointCloud
    from solvers.ot._problem import check_transport

    C = check_transport(None, None, PointCloud(*clouds))[0].C
    if share == DEFAULT:
        return 0.05 * C.moments()[1]
    return float(share) * max(C[rows].max() for rows in C.row_blocks())


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    path = options.out.with_suffix(".json")
    store = common.Store(path, ["case", "n", "reg / max C", "tol", "threads"])
    store.note_run("benchmarks.peers.ot_clouds", DISTRIBUTIONS)
    for n, case in itertools.product(options.n, options.cases):
        clouds = CASES[case](n)
        for share in options.reg:
            keys = (case, n, share, options.tol, options.threads)
            log.info("%s, load %.1f", keys, os.getloadavg()[0])
            reg = regularisation(clouds, share)
            limits = {"seconds": options.cell_seconds, "repeat": options.repeat}
            contenders = {name: CONTENDERS[name] for name in options.peers}
            entries = common.run_cell(contenders, (clouds, reg), options.tol, **limits)
            store.add(keys, entries)
            page = common.report(store, "Clouds of points", PACKAGES, OURS)
            options.out.write_text(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--n", nargs="+", type=int, default=[2000, 10000])
    parser.add_argument("--reg", nargs="+", default=[DEFAULT, "1e-2", "1e-3"])
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--threads", nargs="+", type=int, default=[2])
    parser.add_argument("--peers", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--repeat", type=int, default=3, help="timed rounds")
    parser.add_argument("--cell-seconds", type=float, default=10.0, help="limit for one run")
    parser.add_argument("--out", type=Path, default=common.RESULTS / "ot_clouds.md")
    common.main("benchmarks.peers.ot_clouds", parser, run)


if __name__ == "__main__":
    main()
