"""Ratings with a ridge against cmfrec, and held-out errors against cmfrec and Surprise.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.completion_ratings --threads 1

All minimise half the squared error on the known ratings, less their mean, plus half of `lam` times
the squared norm of both factors. The error is how far this objective, evaluated here from the
factors, lies above the lowest known, relative to it; or, on the rows "held out", how far the root
mean square error on a tenth of the ratings lies above the lowest known. Every contender gets the
smallest number of iterations that suffices.
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
from solvers import datasets

DISTRIBUTIONS = ("numpy", "scipy", "numba", "cmfrec", "scikit-surprise")
# Entries that are predicted at a time: so many rows of both factors stay in the cache.
_BATCH = 1 << 13

log = logging.getLogger(__name__)


class Ratings(NamedTuple):
    """A problem; `held` are entries kept out of `known`, none of them where the fit counts."""

    known: coo_array
    held: coo_array
    k: int
    lam: float
    biased: bool

    def fit(self, A, B):
        """Return the objective of ``mean + A B^T``, infinite where it is not finite."""
        r = self.known.data - self.known.data.mean() - products(A, B, *self.known.coords)
        value = 0.5 * (r @ r) + 0.5 * self.lam * (np.square(A).sum() + np.square(B).sum())
        return float(value) if np.isfinite(value) else math.inf

    def rmse(self, predicted):
        """Return the root mean square error on what was held out."""
        value = np.sqrt(np.square(predicted - self.held.data).mean())
        return float(value) if np.isfinite(value) else math.inf


def products(A, B, rows, cols):
    """Return the products of rows of A with rows of B, for all pairs."""
    out = np.empty(rows.size)
    for first in range(0, rows.size, _BATCH):
        part = slice(first, first + _BATCH)
        np.einsum("pk,pk->p", A[rows[part]], B[cols[part]], out=out[part])
    return out


@functools.lru_cache(maxsize=1)
def ratings(m, n, size):
    return datasets.ratings_like(m, n, size, rng=0)


def fitted(m, n, size, k):
    """All ratings, to be fitted."""
    known = ratings(m, n, size)
    return Ratings(known, known.tocsr()[:0].tocoo(), k, lam=5.0, biased=False)


def predicted(m, n, size, k):
    """Nine tenths of the ratings, to predict the others; with biases."""
    every = ratings(m, n, size)
    out = np.random.default_rng(1).random(every.nnz) < 0.1
    parts = (
        coo_array((every.data[part], tuple(x[part] for x in every.coords)), shape=every.shape)
        for part in (~out, out)
    )
    return Ratings(*parts, k, lam=10.0, biased=True)


SHAPES = {
    "300x200": (300, 200, 8000),
    "6000x3700": (6000, 3700, 800_000),
    "70000x10000": (70_000, 10_000, 10_000_000),
}
TASKS = {"fit": fitted, "held out": predicted}


class Contender:
    """One method on one problem; the answer has `A` and `B`, or predicts what was held out."""

    first = 4

    def __init__(self, problem, threads):
        self.problem, self.threads = problem, threads

    def prepare(self, count):
        """Do what a user does once and for all, outside the clock."""

    def error(self, answer):
        p = self.problem
        if p.held.nnz:
            return p.rmse(self.predict(answer)) / lowest(p) - 1.0
        return self.objective(answer) / lowest(p) - 1.0

    def objective(self, answer):
        return self.problem.fit(*self.factors(answer))


class Ours(Contender):
    def __init__(self, problem, threads, **options):
        super().__init__(problem, threads)
        from solvers.completion import alternating_minimization

        self.solve = functools.partial(
            alternating_minimization,
            problem.known,
            problem.k,
            lam=problem.lam,
            center=True,
            bias=problem.biased,
            tol=1e-5,
            rng=0,
            n_threads=threads,
            **options,
        )

    def prepare(self, count):
        self.solve(maxiter=1)  # compiles

    def run(self, _, count):
        return self.solve(maxiter=count)

    def factors(self, answer):
        return answer.factors()

    def predict(self, answer):
        return answer.predict(*self.problem.held.coords)

    def objective(self, answer):
        """Return ours, or what `certify` makes of the same answer if that is more."""
        from solvers.completion import certify

        p = self.problem
        verdict = certify(
            p.known,
            answer.U,
            answer.s,
            answer.V,
            lam=p.lam,
            mu=float(p.known.data.mean()),
            tol=1.0,
        )
        return max(super().objective(answer), verdict.details.get("primal", 0.0))


class Cmfrec(Contender):
    def __init__(self, problem, threads, use_cg):
        super().__init__(problem, threads)
        import cmfrec

        self.make = functools.partial(
            cmfrec.CMF,
            k=problem.k,
            method="als",
            lambda_=problem.lam,
            use_cg=use_cg,
            user_bias=problem.biased,
            item_bias=problem.biased,
            center=True,
            scale_lam=False,
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

    def predict(self, answer):
        return answer.predict(*self.problem.held.coords)


class Surprise(Contender):
    """Stochastic gradients, with its own defaults for rates and penalties."""

    first = 10

    def __init__(self, problem, threads):
        super().__init__(problem, threads)
        if not problem.held.nnz:
            raise ImportError("minimises another objective")
        import pandas as pd
        import surprise

        known = problem.known
        frame = pd.DataFrame(dict(zip("ij", known.coords, strict=True)) | {"r": known.data})
        reader = surprise.Reader(rating_scale=(0.5, 5.0))
        self.data = surprise.Dataset.load_from_df(frame, reader).build_full_trainset()
        self.make = functools.partial(surprise.SVD, n_factors=problem.k, random_state=0)

    def run(self, _, count):
        return self.make(n_epochs=count).fit(self.data)

    def predict(self, answer):
        data, (rows, cols) = self.data, self.problem.held.coords
        # It numbers users and items anew, in the order in which it met them.
        (U, b), (V, c) = (
            _in_order(places, factor, bias)
            for places, factor, bias in (
                (data.to_raw_uid, answer.pu, answer.bu),
                (data.to_raw_iid, answer.qi, answer.bi),
            )
        )
        return data.global_mean + b[rows] + c[cols] + products(U, V, rows, cols)


def _in_order(number, factor, bias):
    places = np.array([number(i) for i in range(len(bias))])
    wide = np.zeros((places.max() + 1, factor.shape[1])), np.zeros(places.max() + 1)
    wide[0][places], wide[1][places] = factor, bias
    return wide


_LOWEST = {}


def lowest(problem, value=math.inf):
    """Return the lowest objective or held-out error that is known, once `value` is."""
    key = id(problem.known), problem.k
    _LOWEST[key] = min(_LOWEST.get(key, math.inf), value)
    return _LOWEST[key]


def reference(problem, threads, count):
    """Let ours run for `count` iterations, set the lowest known value, and return its values."""
    if problem.held.nnz:
        ours = Ours(problem, threads, validation=(*problem.held.coords, problem.held.data))
        series = "rmse_val"
    else:
        ours, series = Ours(problem, threads), "objective"
    values = ours.solve(maxiter=count).history[series]
    lowest(problem, float(values.min()))
    return values


def first_below(values, tol):
    """Return the number of iterations after which a series is near its end."""
    return 1 + int(np.argmax(values <= values.min() * (1 + tol)))


CONTENDERS = {
    OURS: Ours,
    "our direct": functools.partial(Ours, method="altmin", inner="direct"),
    "cmfrec CG": functools.partial(Cmfrec, use_cg=True),
    "cmfrec Cholesky": functools.partial(Cmfrec, use_cg=False),
    "surprise": Surprise,
}
PACKAGES = {
    package: [name for name in CONTENDERS if name.startswith(package)]
    for package in ("cmfrec", "surprise")
}
VARIANTS = [name for name in CONTENDERS if name.startswith("our ")]


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    names = ["task", "matrix", "k", "tol", "threads"]
    store = common.Store(options.out.with_suffix(".json"), names)
    store.note_run("benchmarks.peers.completion_ratings", DISTRIBUTIONS)
    contenders = {
        name: functools.partial(CONTENDERS[name], threads=options.threads)
        for name in options.peers
    }
    limits = {"seconds": options.limit, "repeat": options.rounds, "tuner": common.tune_count}
    for shape, task, k in itertools.product(options.shapes, options.tasks, options.k):
        problem = TASKS[task](*SHAPES[shape], k)
        values = reference(problem, options.threads, options.reference)
        for tol in options.tol if task == "fit" else options.tol_held:
            keys = (task, shape, k, tol, options.threads)
            log.info("%s, load %.1f", keys, os.getloadavg()[0])
            Contender.first = max(first_below(values, tol), 4)
            # The same run shows that fewer are too few.
            Ours.low = Contender.first - 1
            store.add(keys, common.run_cell(contenders, (problem,), tol, **limits))
            page = common.report(store, "Ratings with a ridge", PACKAGES, OURS, VARIANTS)
            options.out.write_text(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["6000x3700"], choices=SHAPES)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--k", nargs="+", type=int, default=[10, 50])
    parser.add_argument("--tol", nargs="+", type=float, default=[1e-3, 1e-4])
    parser.add_argument("--tol-held", nargs="+", type=float, default=[1e-3], help="held out")
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--peers", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--limit", type=float, default=12.0, help="seconds for one run")
    parser.add_argument(
        "--reference", type=int, default=60, help="iterations that set the lowest objective"
    )
    parser.add_argument("--out", type=Path, default=common.RESULTS / "completion_ratings.md")
    common.main("benchmarks.peers.completion_ratings", parser, run)


if __name__ == "__main__":
    main()
