"""Implicit feedback against implicit and cmfrec.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.completion_implicit --threads 1

All minimise the objective of Hu, Koren and Volinsky: half the squared error at all places, with
weights 1 + count, and half of `lam` times the squared norm of both factors. The error is how far
it, evaluated here from the factors, lies above the lowest known, relative to it. Every contender
gets the smallest number of iterations that suffices.
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
from scipy.sparse import coo_array

from benchmarks.peers import common
from benchmarks.peers.completion import OURS
from benchmarks.peers.completion_ratings import first_below, lowest, products
from solvers import datasets

DISTRIBUTIONS = ("numpy", "scipy", "numba", "implicit", "cmfrec")
# Iterations of our own run that sets the lowest known objective, or that ends before.
_REFERENCE = 30

log = logging.getLogger(__name__)


class Counts(NamedTuple):
    """A problem."""

    known: coo_array
    k: int
    lam: float = 10.0
    alpha: float = 1.0

    def fit(self, A, B):
        """Return the objective, infinite where it is not finite."""
        x = products(A, B, *self.known.coords)
        there = (1.0 + self.alpha * self.known.data) * np.square(1.0 - x) - np.square(x)
        everywhere = ((A.T @ A) * (B.T @ B)).sum()
        ridge = self.lam * (np.square(A).sum() + np.square(B).sum())
        value = 0.5 * (everywhere + there.sum() + ridge)
        return float(value) if np.isfinite(value) else math.inf


@functools.lru_cache(maxsize=1)
def counts(m, n, size):
    return datasets.listening_counts(m, n, size, rng=0)


SHAPES = {
    "300x200": (300, 200, 8000),
    "7000x1000": (7000, 1000, 1_000_000),
    "70000x10000": (70_000, 10_000, 10_000_000),
}


class Contender:
    """One method on one problem."""

    first = 4

    def __init__(self, problem, threads):
        self.problem, self.threads = problem, threads

    def prepare(self, count):
        """Do what a user does once and for all, outside the clock."""

    def error(self, answer):
        return self.objective(answer) / lowest(self.problem) - 1.0

    def objective(self, answer):
        A, B = (np.asarray(F, dtype=np.float64) for F in self.factors(answer))
        return self.problem.fit(A, B)


class Ours(Contender):
    def __init__(self, problem, threads, inner):
        super().__init__(problem, threads)
        from solvers.completion import alternating_minimization

        self.solve = functools.partial(
            alternating_minimization,
            problem.known,
            problem.k,
            implicit=True,
            alpha=problem.alpha,
            lam=problem.lam,
            inner=inner,
            tol=1e-5,
            rng=0,
            n_threads=threads,
        )

    def prepare(self, count):
        self.solve(maxiter=1)  # compiles

    def run(self, _, count):
        return self.solve(maxiter=count)

    def factors(self, answer):
        return answer.factors()

    def objective(self, answer):
        """Return ours, or what `certify` makes of the same answer if that is more."""
        from solvers.completion import certify

        p, options = self.problem, {"implicit": True, "alpha": self.problem.alpha, "tol": 1.0}
        verdict = certify(p.known, answer.U, answer.s, answer.V, lam=p.lam, **options)
        return max(super().objective(answer), verdict.details.get("primal", 0.0))


class Implicit(Contender):
    def __init__(self, problem, threads, use_cg):
        super().__init__(problem, threads)
        from implicit.cpu.als import AlternatingLeastSquares

        # It takes the weights themselves, where others take what they exceed 1 by.
        weights = problem.known.tocsr()
        weights.data = 1.0 + problem.alpha * weights.data
        # The class wants the older kind of sparse matrix.
        from scipy.sparse import csr_matrix

        self.data = csr_matrix(weights, dtype=np.float32)
        self.make = functools.partial(
            AlternatingLeastSquares,
            factors=problem.k,
            regularization=problem.lam,
            alpha=1.0,
            dtype=np.float64,
            use_cg=use_cg,
            num_threads=threads,
            random_state=0,
        )

    def run(self, _, count):
        model = self.make(iterations=count)
        model.fit(self.data, show_progress=False)
        return model

    def factors(self, answer):
        return answer.user_factors, answer.item_factors


class Cmfrec(Contender):
    def __init__(self, problem, threads, use_cg):
        super().__init__(problem, threads)
        import cmfrec

        self.make = functools.partial(
            cmfrec.CMF_implicit,
            k=problem.k,
            lambda_=problem.lam,
            alpha=problem.alpha,
            use_cg=use_cg,
            nthreads=threads,
            use_float=False,
            precompute_for_predictions=False,
            produce_dicts=False,
            handle_interrupt=False,
        )

    def run(self, _, count):
        return self.make(niter=count).fit(self.problem.known)

    def factors(self, answer):
        return answer.A_, answer.B_


CONTENDERS = {
    OURS: functools.partial(Ours, inner="auto"),
    "our direct": functools.partial(Ours, inner="direct"),
    "implicit CG": functools.partial(Implicit, use_cg=True),
    "implicit Cholesky": functools.partial(Implicit, use_cg=False),
    "cmfrec CG": functools.partial(Cmfrec, use_cg=True),
    "cmfrec Cholesky": functools.partial(Cmfrec, use_cg=False),
}
PACKAGES = {
    package: [name for name in CONTENDERS if name.startswith(package)]
    for package in ("implicit", "cmfrec")
}
VARIANTS = [name for name in CONTENDERS if name.startswith("our ")]


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    store = common.Store(options.out.with_suffix(".json"), ["matrix", "k", "tol", "threads"])
    store.note_run("benchmarks.peers.completion_implicit", DISTRIBUTIONS)
    contenders = {
        name: functools.partial(CONTENDERS[name], threads=options.threads)
        for name in options.peers
    }
    limits = {"seconds": options.limit, "repeat": options.rounds, "tuner": common.tune_count}
    for shape, k in itertools.product(options.shapes, options.k):
        problem = Counts(counts(*SHAPES[shape]), k)
        ours = Ours(problem, options.threads, inner="auto")
        values = ours.solve(maxiter=_REFERENCE).history["objective"]
        lowest(problem, float(values.min()))
        for tol in options.tol:
            keys = (shape, k, tol, options.threads)
            log.info("%s, load %.1f", keys, os.getloadavg()[0])
            Contender.first = max(first_below(values, tol), 4)
            store.add(keys, common.run_cell(contenders, (problem,), tol, **limits))
            page = common.report(store, "Implicit feedback", PACKAGES, OURS, VARIANTS)
            options.out.write_text(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["7000x1000"], choices=SHAPES)
    parser.add_argument("--k", nargs="+", type=int, default=[64])
    parser.add_argument("--tol", nargs="+", type=float, default=[1e-3, 1e-4])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--peers", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--limit", type=float, default=12.0, help="seconds for one run")
    parser.add_argument("--out", type=Path, default=common.RESULTS / "completion_implicit.md")
    common.main("benchmarks.peers.completion_implicit", parser, run)


if __name__ == "__main__":
    main()
