"""Relatives of transport against POT and OTT-JAX: unequal masses, barycentres, divergences.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.ot_kin --n 1000 --threads 1

Every answer is judged by what it claims, outside the clock and in float64: potentials of
unbalanced plans by the optimality system; a barycentre by the row potentials of its plans to all
measures, which have to add up to zero; a divergence by its value, against one solved to 1e-11.
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
from scipy.spatial.distance import cdist

from benchmarks.peers import common
from solvers import datasets

OURS = "solvers"
DISTRIBUTIONS = ("numpy", "scipy", "numba", "POT", "ott-jax", "jax")

log = logging.getLogger(__name__)


class Unbalanced(NamedTuple):
    a: np.ndarray
    b: np.ndarray
    C: np.ndarray
    tau: float

    def error(self, f, g, reg):
        """L1 residual of the optimality system, relative to the plan's mass."""
        from solvers.ot import certify

        with np.errstate(all="ignore"):
            P = np.outer(self.a, self.b) * np.exp((f[:, None] + g - self.C) / reg)
            rows, cols = self.a * np.exp(-f / self.tau), self.b * np.exp(-g / self.tau)
            error = (np.abs(P.sum(1) - rows).sum() + np.abs(P.sum(0) - cols).sum()) / P.sum()
        verdict = certify(*self[:3], f, g, reg=reg, reg_m=self.tau, tol=1.0)
        return max(float(error), verdict.value) if np.isfinite(error) else math.inf


class Barycenter(NamedTuple):
    B: np.ndarray
    C: np.ndarray
    side: int

    def error(self, x, reg):
        """How far the row potentials of the plans from `x` are from adding up to zero."""
        from solvers.ot import sinkhorn_newton

        x = np.asarray(x, dtype=float).ravel()
        if not np.isfinite(x).all() or x.min() <= 0.0:
            return math.inf
        gap, total = abs(x.sum() - 1.0), 0.0
        for b in self.B:
            res = sinkhorn_newton(x / x.sum(), b, self.C, reg=reg, tol=1e-10)
            total = total + res.potentials_counting[0] / len(self.B)
        # Each potential is known up to a constant.
        return float(gap + x @ np.abs(total - x @ total / x.sum()) / reg)


class Divergence(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    C: np.ndarray

    def error(self, value, reg):
        return abs(value / _true_divergence(self.x.tobytes(), self.y.tobytes(), reg) - 1.0)


@functools.cache
def _true_divergence(x, y, reg):
    from solvers.ot import sinkhorn_divergence

    clouds = (np.frombuffer(v).reshape(-1, 2) for v in (x, y))
    res = sinkhorn_divergence(None, None, *clouds, reg=reg, tol=1e-11)
    assert res.success, res.message
    return res.value


def unbalanced(n, tau):
    p = datasets.gaussian_mixture_transport(n, rng=0)
    return Unbalanced(1.3 * p.a, 0.8 * p.b, p.C, tau)


def barycenter(n):
    side = math.ceil(math.sqrt(n))
    digits = [datasets.digits_transport(k, 1, side) for k in (0, 2, 3, 4)]
    grid = np.stack(np.meshgrid(*2 * [np.linspace(0, 1, side)], indexing="ij"), -1).reshape(-1, 2)
    # Not scaled, because a convolution takes the unit square as it is.
    return Barycenter(np.stack([d.a for d in digits]), cdist(grid, grid, "sqeuclidean"), side)


def divergence(n):
    rng = np.random.default_rng(0)
    x, y = rng.random((n, 2)), 0.5 * rng.random((n, 2)) + 0.4
    return Divergence(x, y, cdist(x, y, "sqeuclidean"))


CASES = {
    "unbalanced, tau 0.1": functools.partial(unbalanced, tau=0.1),
    "unbalanced, tau 10": functools.partial(unbalanced, tau=10.0),
    "barycentre of 4 digits": barycenter,
    "divergence": divergence,
}


class Contender:
    """One method on one problem; subclasses take on the problems they can."""

    cap = 100

    def __init__(self, problem, reg, kind):
        if not isinstance(problem, kind):
            raise ImportError("made for another problem")
        self.problem, self.reg = problem, reg

    def prepare(self, cap):
        """Do what a user does once and for all, outside the clock."""

    def threshold(self, tol):
        return 0.1 * tol


class Ours(Contender):
    cap = 1500

    def __init__(self, problem, reg):
        super().__init__(problem, reg, object)
        from solvers import ot

        self.ot = ot

    def threshold(self, tol):
        return tol

    def run(self, threshold, cap):
        p, options = self.problem, {"reg": self.reg, "tol": threshold, "maxiter": cap}
        if isinstance(p, Unbalanced):
            return self.ot.sinkhorn_unbalanced(*p[:3], reg_m=p.tau, **options)
        if isinstance(p, Barycenter):
            return self.ot.barycenter(p.B, p.C, **options)
        return self.ot.sinkhorn_divergence(None, None, p.x, p.y, **options)

    def iterations(self, answer):
        return int(answer.nit)

    def error(self, answer):
        if isinstance(self.problem, Unbalanced):
            return self.problem.error(answer.f, answer.g, self.reg)
        if isinstance(self.problem, Barycenter):
            return self.problem.error(answer.x, self.reg)
        return self.problem.error(answer.value, self.reg)


class PotUnbalanced(Contender):
    def __init__(self, problem, reg, method):
        super().__init__(problem, reg, Unbalanced)
        import ot

        self.solve = functools.partial(ot.unbalanced.sinkhorn_unbalanced, method=method, log=True)

    def run(self, threshold, cap):
        p = self.problem
        return self.solve(*p[:3], self.reg, p.tau, stopThr=threshold, numItermax=cap)[1]

    def iterations(self, answer):
        return len(answer["err"]) + 20

    def error(self, answer):
        return self.problem.error(*(self.reg * answer[k] for k in ("logu", "logv")), self.reg)


class PotBarycenter(Contender):
    def __init__(self, problem, reg, method):
        super().__init__(problem, reg, Barycenter)
        import ot

        if method == "convolutional":
            images = problem.B.reshape(-1, problem.side, problem.side)
            self.solve = functools.partial(ot.bregman.convolutional_barycenter2d, images)
        else:
            B = np.ascontiguousarray(problem.B.T)
            self.solve = functools.partial(ot.bregman.barycenter, B, problem.C, method=method)

    def run(self, threshold, cap):
        return self.solve(reg=self.reg, stopThr=threshold, numItermax=cap, log=True)

    def iterations(self, answer):
        return int(answer[1]["niter"]) + 20

    def error(self, answer):
        return self.problem.error(answer[0], self.reg)


class OttDivergence(Contender):
    cap = 256

    def __init__(self, problem, reg):
        super().__init__(problem, reg, Divergence)
        import jax
        from ott.geometry import pointcloud
        from ott.tools import sinkhorn_divergence

        jax.config.update("jax_enable_x64", True)

        def solve(x, y, threshold, cap):
            options = {"threshold": threshold, "max_iterations": cap}
            return sinkhorn_divergence.sinkhorn_divergence(
                pointcloud.PointCloud, x, y, epsilon=reg, solve_kwargs=options
            )

        self.wait = jax.block_until_ready
        self.solve = jax.jit(solve, static_argnames=("threshold", "cap"))
        self.data = [jax.numpy.asarray(v) for v in (problem.x, problem.y)]
        self.compiled = {}

    def run(self, threshold, cap):
        # Compiled for each setting, and outside the clock when the rounds are timed.
        if (threshold, cap) not in self.compiled:
            lowered = self.solve.lower(*self.data, threshold=threshold, cap=cap)
            self.compiled[threshold, cap] = lowered.compile()
        return self.wait(self.compiled[threshold, cap](*self.data))

    def iterations(self, answer):
        return max(int(n) for n in answer[1].n_iters)

    def error(self, answer):
        return self.problem.error(float(answer[0]), self.reg)


CONTENDERS = {
    OURS: Ours,
    "POT sinkhorn": functools.partial(PotUnbalanced, method="sinkhorn"),
    "POT stabilized": functools.partial(PotUnbalanced, method="sinkhorn_stabilized"),
    "POT translation invariant": functools.partial(
        PotUnbalanced, method="sinkhorn_translation_invariant"
    ),
    "POT barycenter": functools.partial(PotBarycenter, method="sinkhorn"),
    "POT barycenter log": functools.partial(PotBarycenter, method="sinkhorn_log"),
    "POT barycenter stabilized": functools.partial(PotBarycenter, method="sinkhorn_stabilized"),
    "POT convolutional": functools.partial(PotBarycenter, method="convolutional"),
    "ott": OttDivergence,
}
PACKAGES = {
    package: [name for name in CONTENDERS if name.startswith(package)]
    for package in ("POT", "ott")
}


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    store = common.Store(
        options.out.with_suffix(".json"), ["case", "n", "reg / max C", "tol", "threads"]
    )
    store.note_run("benchmarks.peers.ot_kin", DISTRIBUTIONS)
    for case, n, share, tol in itertools.product(
        options.cases, options.n, options.reg, sorted(options.tol, reverse=True)
    ):
        problem = CASES[case](n)
        keys = (case, len(problem.C), share, tol, options.threads)
        log.info("%s, load %.1f", keys, os.getloadavg()[0])
        limits = {"seconds": options.cell_seconds, "repeat": options.repeat}
        data = problem, share * problem.C.max()
        store.add(keys, common.run_cell(CONTENDERS, data, tol, **limits))
        page = common.report(store, "Relatives of optimal transport", PACKAGES, OURS)
        options.out.write_text(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--n", nargs="+", type=int, default=[1000])
    parser.add_argument("--reg", nargs="+", type=float, default=[1e-1, 1e-2, 1e-3])
    parser.add_argument("--tol", nargs="+", type=float, default=[1e-6])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds")
    parser.add_argument("--cell-seconds", type=float, default=30.0, help="limit for one run")
    parser.add_argument("--out", type=Path, default=common.RESULTS / "ot_kin.md")
    common.main("benchmarks.peers.ot_kin", parser, run)


if __name__ == "__main__":
    main()
