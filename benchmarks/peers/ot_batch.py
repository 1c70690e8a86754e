"""Batches of small transport problems against our own loop, POT and OTT-JAX.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.ot_batch --threads 1 2

As `benchmarks.peers.ot`, with the largest marginal error of all problems as the error. A loop
counts as a contender too, ours and POT's.
"""

import argparse
import functools
import itertools
import logging
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.common import marginal_error
from benchmarks.peers import common

OURS = "solvers"
DISTRIBUTIONS = ("numpy", "scipy", "numba", "POT", "ott-jax", "jax")

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Weights, shapes (B, n) and (B, m), and costs, shape (B, n, m), the largest of each 1."""

    a: np.ndarray
    b: np.ndarray
    C: np.ndarray


def assignments(count, n):
    """Independent random costs."""
    rng = np.random.default_rng(0)
    C = rng.random((count, n, n))
    return _batch(rng, C)


def clouds(count, n):
    """Squared distances of random points in the square."""
    rng = np.random.default_rng(0)
    x, y = rng.random((count, n, 1, 2)), rng.random((count, 1, n, 2))
    return _batch(rng, np.square(x - y).sum(axis=3))


def _batch(rng, C):
    count, n, m = C.shape
    a, b = rng.dirichlet(np.ones(n), count), rng.dirichlet(np.ones(m), count)
    return Batch(a, b, C / C.max(axis=(1, 2), keepdims=True))


CASES = {"assignments": assignments, "clouds": clouds}


class Contender:
    """One method on one batch; `plans(answer)` yields the plans, `reg` is one number."""

    cap = 100

    def __init__(self, problem, reg):
        self.problem, self.reg = problem, reg

    def prepare(self, cap):
        """Do what a user does once and for all, outside the clock."""

    def error(self, answer):
        with np.errstate(all="ignore"):
            errors = [
                marginal_error(np.asarray(P), a, b)
                for P, a, b in zip(self.plans(answer), *self.problem[:2], strict=True)
            ]
        return max(errors)

    def _from_potentials(self, f, g, weights=(1.0, 1.0)):
        exponent = (f[:, :, None] + g[:, None, :] - self.problem.C) / self.reg
        return weights[0] * weights[1] * np.exp(exponent)


class Ours(Contender):
    cap = 500

    def __init__(self, problem, reg, loop):
        super().__init__(problem, reg)
        from solvers.ot import certify, sinkhorn_newton

        self.solve, self.certify, self.loop = sinkhorn_newton, certify, loop

    def prepare(self, cap):
        self.run(1.0, 1)  # compiles

    def threshold(self, tol):
        return tol

    def run(self, threshold, cap):
        options = {"reg": self.reg, "tol": threshold, "maxiter": cap}
        if not self.loop:
            return self.solve(*self.problem, **options)
        return [self.solve(*one, **options) for one in zip(*self.problem, strict=True)]

    def iterations(self, answer):
        return max(res.nit for res in answer) if self.loop else answer.nit

    def potentials(self, answer):
        if not self.loop:
            return answer.f, answer.g
        return np.array([res.f for res in answer]), np.array([res.g for res in answer])

    def plans(self, answer):
        a, b, _ = self.problem
        return self._from_potentials(*self.potentials(answer), (a[:, :, None], b[:, None, :]))

    def error(self, answer):
        f, g = self.potentials(answer)
        verdict = self.certify(*self.problem, f, g, reg=self.reg, tol=1.0)
        return max(super().error(answer), verdict.value)


class PotLoop(Contender):
    def __init__(self, problem, reg):
        super().__init__(problem, reg)
        import ot

        self.solve = functools.partial(ot.sinkhorn, log=True)

    def threshold(self, tol):
        return 0.1 * tol  # its error is the L2 norm of one marginal

    def run(self, threshold, cap):
        return [
            self.solve(a, b, C, self.reg, stopThr=threshold, numItermax=cap)
            for a, b, C in zip(*self.problem, strict=True)
        ]

    def iterations(self, answer):
        # Counted from zero, and at the last check, which is up to 20 iterations old.
        return max(info.get("niter", 0) for _, info in answer) + 20

    def plans(self, answer):
        return [P for P, _ in answer]


class PotBatch(Contender):
    def __init__(self, problem, reg, method):
        super().__init__(problem, reg)
        from ot.batch import solve_batch

        self.solve = functools.partial(solve_batch, method=method, grad="detach")

    def threshold(self, tol):
        return 0.1 * tol

    def run(self, threshold, cap):
        a, b, C = self.problem
        return self.solve(C, self.reg, a, b, max_iter=cap, tol=threshold)

    def iterations(self, answer):
        return answer.log["n_iter"] + 1  # counted from zero

    def plans(self, answer):
        return answer.plan


class OttVmap(Contender):
    cap = 256

    def __init__(self, problem, reg):
        super().__init__(problem, reg)
        import jax
        from ott.geometry import geometry
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import sinkhorn

        jax.config.update("jax_enable_x64", True)

        def solve(a, b, C, threshold, cap):
            solver = sinkhorn.Sinkhorn(threshold=threshold, max_iterations=cap)
            cost = geometry.Geometry(cost_matrix=C, epsilon=reg)
            answer = solver(linear_problem.LinearProblem(cost, a, b))
            return answer.f, answer.g, answer.n_iters

        def solve_all(data, threshold, cap):
            one = functools.partial(solve, threshold=threshold, cap=cap)
            return jax.vmap(one)(*data)

        self.wait = jax.block_until_ready
        self.solve = jax.jit(solve_all, static_argnames="cap")
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
        return int(np.max(answer[2])) + 9  # it counts in tens

    def plans(self, answer):
        return self._from_potentials(np.asarray(answer[0]), np.asarray(answer[1]))


CONTENDERS = {
    OURS: functools.partial(Ours, loop=False),
    "our loop": functools.partial(Ours, loop=True),
    "POT loop": PotLoop,
    "POT batch sinkhorn": functools.partial(PotBatch, method="sinkhorn"),
    "POT batch log_sinkhorn": functools.partial(PotBatch, method="log_sinkhorn"),
    "ott vmap": OttVmap,
}
PACKAGES = {
    package: [name for name in CONTENDERS if name.startswith(package)]
    for package in ("our", "POT", "ott")
}


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    names = ["case", "problems", "n", "reg / max C", "tol", "threads"]
    store = common.Store(options.out.with_suffix(".json"), names)
    store.note_run("benchmarks.peers.ot_batch", DISTRIBUTIONS)
    for case, shape in itertools.product(options.cases, options.shapes):
        count, n = map(int, shape.split("x"))
        problem = CASES[case](count, n)
        for reg, tol in itertools.product(options.reg, options.tol):
            keys = (case, count, n, reg, tol, options.threads)
            log.info("%s, load %.1f", keys, os.getloadavg()[0])
            limits = {"seconds": options.cell_seconds, "repeat": options.repeat}
            contenders = {name: CONTENDERS[name] for name in options.peers}
            store.add(keys, common.run_cell(contenders, (problem, reg), tol, **limits))
            page = common.report(store, "Batches of transport problems", PACKAGES, OURS)
            options.out.write_text(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument(
        "--shapes", nargs="+", default=["64x100", "1000x50"], help="problems x points"
    )
    parser.add_argument("--reg", nargs="+", type=float, default=[1e-1, 1e-2, 1e-3])
    parser.add_argument("--tol", nargs="+", type=float, default=[1e-8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--peers", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds")
    parser.add_argument("--cell-seconds", type=float, default=30.0, help="limit for one run")
    parser.add_argument("--out", type=Path, default=common.RESULTS / "ot_batch.md")
    common.main("benchmarks.peers.ot_batch", parser, run)


if __name__ == "__main__":
    main()
