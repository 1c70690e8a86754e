"""Exact recovery of planted matrices against Pymanopt and fancyimpute.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.completion --threads 1

The error is that of the whole matrix, relative to the planted one, in the Frobenius norm and by QR
factorisations of the factors, or the relative residual that `solvers.completion.certify` finds,
whichever is larger.
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
from scipy.sparse.linalg import svds

from benchmarks.peers import common
from solvers import datasets

OURS = "solvers"
DISTRIBUTIONS = ("numpy", "scipy", "numba", "pymanopt", "fancyimpute")

log = logging.getLogger(__name__)


class Planted(NamedTuple):
    """Known entries, and the factors of the matrix behind them."""

    rows: np.ndarray
    cols: np.ndarray
    vals: np.ndarray
    L: np.ndarray
    R: np.ndarray

    @property
    def rank(self):
        return self.L.shape[1]

    @property
    def shape(self):
        return len(self.L), len(self.R)

    @property
    def sparse(self):
        return coo_array((self.vals, (self.rows, self.cols)), shape=self.shape)

    def error(self, U, s, V):
        """Return how far ``U diag(s) V^T`` is from the matrix, and from its known entries."""
        from solvers.completion import certify

        if not all(np.isfinite(x).all() for x in (U, s, V)):
            return math.inf
        # Never by differences of Gram matrices, which lose all that is below 1e-8.
        left = np.linalg.qr(np.hstack([U * s, -self.L]), mode="r")
        right = np.linalg.qr(np.hstack([V, self.R]), mode="r")
        error = np.linalg.norm(left @ right.T) / math.sqrt(math.prod(self.shape))
        verdict = certify(self.sparse, U, s, V, tol=1.0)
        return max(float(error), verdict.details["relres"])


class Contender:
    """One method on one problem."""

    cap = 100

    def __init__(self, problem):
        self.problem = problem

    def prepare(self, cap):
        """Do what a user does once and for all, outside the clock."""

    def threshold(self, tol):
        return 0.1 * tol

    def error(self, answer):
        return self.problem.error(*self.factors(answer))


class Ours(Contender):
    cap = 1000

    def __init__(self, problem, method):
        super().__init__(problem)
        from solvers.completion import alternating_minimization

        self.solve = functools.partial(alternating_minimization, method=method, rng=0)

    def prepare(self, cap):
        # Compiles, also what only the last digits need.
        small = datasets.planted_matrix(40, 40, 2, 3.0, rng=0)
        self.solve(small[:3], 2, shape=(40, 40), tol=1e-10)

    def run(self, threshold, cap):
        p = self.problem
        return self.solve(p[:3], p.rank, shape=p.shape, tol=threshold, maxiter=cap)

    def iterations(self, answer):
        return int(answer.nit)

    def factors(self, answer):
        return answer.U, answer.s, answer.V


class Pymanopt(Contender):
    """Least squares on the manifold of matrices of the rank, with sparse gradients."""

    def __init__(self, problem, optimizer):
        super().__init__(problem)
        import pymanopt
        from pymanopt import optimizers

        self.optimizer = getattr(optimizers, optimizer)
        manifold = pymanopt.manifolds.FixedRankEmbedded(*problem.shape, problem.rank)
        # Row by row, so that gathers run through the caches.
        pattern = problem.sparse.tocsr()
        rows, cols = pattern.nonzero()
        vals = pattern.data
        point = manifold.random_point()
        tangent = manifold.zero_vector(point)

        def sparse(data):
            return type(pattern)((data, pattern.indices, pattern.indptr), shape=problem.shape)

        def entries(A, B):
            return np.einsum("pk,pk->p", A[rows], B[cols])

        def projected(u, vt, left, right):
            """Return the tangent vector of a matrix Z from ``Z V`` and ``Z^T U``."""
            core = u.T @ left
            return type(tangent)(left - u @ core, core, right - vt.T @ core.T)

        @pymanopt.function.numpy(manifold)
        def cost(u, s, vt):
            return 0.5 * np.square(entries(u * s, vt.T) - vals).sum()

        @pymanopt.function.numpy(manifold)
        def gradient(u, s, vt):
            R = sparse(entries(u * s, vt.T) - vals)
            return projected(u, vt, R @ vt.T, R.T @ u)

        @pymanopt.function.numpy(manifold)
        def hessian(u, s, vt, Up, M, Vp):
            # As Vandereycken (2013) has it: the projected change, and the curvature of the set.
            R = sparse(entries(u * s, vt.T) - vals)
            Z = sparse(entries(u @ M + Up, vt.T) + entries(u, Vp))
            flat = projected(u, vt, Z @ vt.T, Z.T @ u)
            bent = R @ (Vp / s), R.T @ (Up / s)
            return type(tangent)(
                flat[0] + bent[0] - u @ (u.T @ bent[0]),
                flat[1],
                flat[2] + bent[1] - vt.T @ (vt @ bent[1]),
            )

        self.there = pymanopt.Problem(
            manifold, cost, riemannian_gradient=gradient, riemannian_hessian=hessian
        )

        def start():
            """The same kind of start as ours: leading singular triples of what is known."""
            density = vals.size / math.prod(problem.shape)
            u, s, vt = svds(pattern / density, k=problem.rank, rng=0)
            order = np.argsort(-s)
            return type(point)(u[:, order], s[order], vt[order])

        self.start = start

    def run(self, threshold, cap):
        options = {
            "max_iterations": cap,
            "max_time": 1e6,
            "min_gradient_norm": threshold * np.linalg.norm(self.problem.vals),
            "verbosity": 0,
        }
        return self.optimizer(**options).run(self.there, initial_point=self.start())

    def iterations(self, answer):
        return int(answer.iterations)

    def factors(self, answer):
        u, s, vt = answer.point
        return u, s, vt.T


class Fancyimpute(Contender):
    """Dense, so for small matrices."""

    def __init__(self, problem, method):
        super().__init__(problem)
        if max(problem.shape) > 1000:
            raise ImportError("too large for a dense method")
        import fancyimpute
        from sklearn.utils import check_array

        # It calls scikit-learn by a keyword that is gone.
        for module in (fancyimpute.solver, fancyimpute.soft_impute, fancyimpute.iterative_svd):
            module.check_array = lambda X, force_all_finite: check_array(
                X, ensure_all_finite=force_all_finite
            )
        self.data = np.full(problem.shape, np.nan)
        self.data[problem.rows, problem.cols] = problem.vals
        if method == "SoftImpute":
            shrinkage = 1e-3 * np.linalg.norm(np.nan_to_num(self.data), 2)
            self.make = functools.partial(
                fancyimpute.SoftImpute, shrinkage_value=shrinkage, max_rank=problem.rank
            )
        else:
            self.make = functools.partial(fancyimpute.IterativeSVD, rank=problem.rank)

    def run(self, threshold, cap):
        options = {"convergence_threshold": threshold, "max_iters": cap, "verbose": False}
        return self.make(**options).fit_transform(self.data), cap

    def iterations(self, answer):
        return answer[1]

    def factors(self, answer):
        # Known entries come back as they were: the matrix itself has full rank.
        U, s, Vt = np.linalg.svd(answer[0], full_matrices=False)
        k = self.problem.rank
        return U[:, :k], s[:k], Vt[:k].T


CONTENDERS = {
    OURS: functools.partial(Ours, method="auto"),
    "our altmin": functools.partial(Ours, method="altmin"),
    "pymanopt CG": functools.partial(Pymanopt, optimizer="ConjugateGradient"),
    "pymanopt trust regions": functools.partial(Pymanopt, optimizer="TrustRegions"),
    "fancyimpute SoftImpute": functools.partial(Fancyimpute, method="SoftImpute"),
    "fancyimpute IterativeSVD": functools.partial(Fancyimpute, method="IterativeSVD"),
}
PACKAGES = {
    package: [name for name in CONTENDERS if name.startswith(package)]
    for package in ("pymanopt", "fancyimpute")
}
VARIANTS = [name for name in CONTENDERS if name.startswith("our ")]


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    names = ["n", "rank", "oversampling", "condition", "tol", "threads"]
    store = common.Store(options.out.with_suffix(".json"), names)
    store.note_run("benchmarks.peers.completion", DISTRIBUTIONS)
    for n, oversampling, cond in itertools.product(
        options.n, options.oversampling, options.condition
    ):
        problem = Planted(
            *datasets.planted_matrix(n, n, options.rank, oversampling, cond=cond, rng=0)
        )
        for tol in sorted(options.tol, reverse=True):
            keys = (n, options.rank, oversampling, cond, tol, options.threads)
            log.info("%s, load %.1f", keys, os.getloadavg()[0])
            contenders = {name: CONTENDERS[name] for name in options.peers}
            limits = {"seconds": options.limit, "repeat": options.rounds}
            store.add(keys, common.run_cell(contenders, (problem,), tol, **limits))
            page = common.report(store, "Exact recovery", PACKAGES, OURS, VARIANTS)
            options.out.write_text(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", nargs="+", type=int, default=[1000, 2000])
    parser.add_argument("--rank", type=int, default=10)
    parser.add_argument("--oversampling", nargs="+", type=float, default=[2.0, 3.0, 5.0])
    parser.add_argument("--condition", nargs="+", type=float, default=[1.0, 10.0, 1e4])
    parser.add_argument("--tol", nargs="+", type=float, default=[1e-8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--peers", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds for one run")
    parser.add_argument("--out", type=Path, default=common.RESULTS / "completion.md")
    common.main("benchmarks.peers.completion", parser, run)


if __name__ == "__main__":
    main()
