"""Entropic optimal transport against POT, RegOT, OTT-JAX and MDOT-TNT.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.ot --n 1000 2000 --threads 1 2

The clock of a contender starts with the data in the form the contender likes best (Fortran order,
tensors, compiled functions) and stops when its function returns. Whether the answer is good enough
is then recomputed here, in float64, from the plan or the potentials that it returned.
"""

import argparse
import functools
import itertools
import logging
import math
import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.common import marginal_error, plan_from_potentials
from benchmarks.peers import common
from solvers import datasets

CASES = {
    "digits l2": lambda n: datasets.digits_transport(0, 1, _side(n), "sqeuclidean"),
    "digits l1": lambda n: datasets.digits_transport(0, 1, _side(n), "cityblock"),
    "grid1d": datasets.grid_transport,
    "colours": lambda n: datasets.color_transport(n, rng=0),
    "assignment": lambda n: datasets.assignment(n, rng=0),
    "gmm": lambda n: datasets.gaussian_mixture_transport(n, rng=0),
}
OURS = "solvers"

log = logging.getLogger(__name__)


def _side(n):
    return math.ceil(math.sqrt(n))


class Contender:
    """One method on one problem: prepared data, and the calls that `common.tune` makes."""

    cap = 100

    def __init__(self, problem, reg):
        self.problem, self.reg = problem, reg

    def prepare(self, cap):
        """Do what a user does once and for all, outside the clock."""

    def error(self, answer):
        """Marginal error (L1) of the plan in the answer, or made from its potentials."""
        with np.errstate(all="ignore"):
            return marginal_error(self.plan(answer), self.problem.a, self.problem.b)


class Ours(Contender):
    cap = 500

    def __init__(self, problem, reg):
        super().__init__(problem, reg)
        from solvers.ot import certify, sinkhorn_newton

        self.solve, self.certify = sinkhorn_newton, certify

    def threshold(self, tol):
        return tol

    def run(self, threshold, cap=500, **options):
        a, b, C = self.problem[:3]
        return self.solve(a, b, C, reg=self.reg, tol=threshold, maxiter=cap, **options)

    def iterations(self, answer):
        return int(answer.nit)

    def plan(self, answer):
        return plan_from_potentials(answer.f, answer.g, self.problem, self.reg)

    def error(self, answer):
        a, b, C = self.problem[:3]
        verdict = self.certify(a, b, C, answer.f, answer.g, reg=self.reg, tol=1.0)
        return max(super().error(answer), verdict.value)


class Pot(Contender):
    def __init__(self, problem, reg, method):
        super().__init__(problem, reg)
        import ot

        # With the default tau=1e3, `sinkhorn_stabilized` absorbs in every iteration once n > 1000,
        # and the plan it then returns is divided by n * m.
        options = {"tau": 1e20} if method == "sinkhorn_stabilized" else {}
        self.solve = functools.partial(ot.sinkhorn, method=method, log=True, **options)

    def threshold(self, tol):
        return 0.1 * tol  # its error is the L2 norm of one marginal

    def run(self, threshold, cap):
        a, b, C = self.problem[:3]
        return self.solve(a, b, C, self.reg, stopThr=threshold, numItermax=cap)

    def iterations(self, answer):
        # Counted from zero, and at the last check, which is up to 20 iterations old.
        return answer[1].get("niter", answer[1].get("n_iter", 0)) + 20

    def plan(self, answer):
        return answer[0]


class Regot(Contender):
    cap = 20

    def __init__(self, problem, reg, method):
        super().__init__(problem, reg)
        import regot

        self.solve = getattr(regot, method)
        self.C = np.asfortranarray(problem.C)

    def threshold(self, tol):
        return 0.1 * tol

    def run(self, threshold, cap):
        return self.solve(self.C, *self.problem[:2], self.reg, tol=threshold, max_iter=cap)

    def iterations(self, answer):
        return int(answer.niter)

    def plan(self, answer):
        return np.asarray(answer.plan)


class Ott(Contender):
    cap = 256

    def __init__(self, problem, reg, acceleration):
        super().__init__(problem, reg)
        import jax
        from ott.geometry import geometry
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import acceleration as accelerations
        from ott.solvers.linear import sinkhorn

        jax.config.update("jax_enable_x64", True)
        options = {
            "plain": {},
            "momentum": {"momentum": accelerations.Momentum(value=1.5)},
            "anderson": {"anderson": accelerations.AndersonAcceleration(memory=5)},
        }[acceleration]

        def solve(data, threshold, cap):
            a, b, C = data
            solver = sinkhorn.Sinkhorn(threshold=threshold, max_iterations=cap, **options)
            cost = geometry.Geometry(cost_matrix=C, epsilon=reg)
            return solver(linear_problem.LinearProblem(cost, a, b))

        self.wait = jax.block_until_ready
        self.solve = jax.jit(solve, static_argnames="cap")
        self.data = [jax.numpy.asarray(array) for array in problem[:3]]
        self.compiled = {}

    def threshold(self, tol):
        return 0.5 * tol

    def run(self, threshold, cap):
        return self.wait(self.compiled[cap](self.data, threshold))

    def prepare(self, cap):
        if cap not in self.compiled:
            lowered = self.solve.lower(self.data, 1e-6, cap=cap)
            self.compiled[cap] = lowered.compile()

    def iterations(self, answer):
        return int(answer.n_iters) + 9  # it counts in tens

    def plan(self, answer):
        f, g = np.asarray(answer.f), np.asarray(answer.g)
        return np.exp((f[:, None] + g - self.problem.C) / self.reg)


class Mdot(Contender):
    # No limit for its iterations: the alarm clock stops it.
    cap = sys.maxsize

    def __init__(self, problem, reg):
        super().__init__(problem, reg)
        import mdot_tnt
        import torch

        self.solve = mdot_tnt.mdot
        self.data = [torch.from_numpy(array) for array in problem[:3]]

    def threshold(self, tol):
        return tol

    def run(self, threshold, cap):
        # Its tolerance is about gamma ** -p.
        p = max(1.0, math.log(threshold) / math.log(self.reg))
        return self.solve(*self.data, gamma_f=1.0 / self.reg, p=p)

    def iterations(self, answer):
        return int(answer[3])

    def plan(self, answer):
        u, v, gamma = answer[0].numpy(), answer[1].numpy(), float(answer[2])
        return np.exp(u[:, None] + v - gamma * self.problem.C)


CONTENDERS = {
    OURS: Ours,
    "POT sinkhorn": functools.partial(Pot, method="sinkhorn"),
    "POT sinkhorn_log": functools.partial(Pot, method="sinkhorn_log"),
    "POT sinkhorn_stabilized": functools.partial(Pot, method="sinkhorn_stabilized"),
    "regot ssns": functools.partial(Regot, method="sinkhorn_ssns"),
    "regot splr": functools.partial(Regot, method="sinkhorn_splr"),
    "regot sparse_newton": functools.partial(Regot, method="sinkhorn_sparse_newton"),
    "regot newton": functools.partial(Regot, method="sinkhorn_newton"),
    "regot bcd": functools.partial(Regot, method="sinkhorn_bcd"),
    "ott plain": functools.partial(Ott, acceleration="plain"),
    "ott momentum": functools.partial(Ott, acceleration="momentum"),
    "ott anderson": functools.partial(Ott, acceleration="anderson"),
    "mdot-tnt": Mdot,
}


PACKAGES = {
    package: [name for name in CONTENDERS if name.startswith(package)]
    for package in ("POT", "regot", "ott", "mdot-tnt")
}
DISTRIBUTIONS = ("numpy", "scipy", "numba", "POT", "regot", "ott-jax", "jax", "mdot-tnt", "torch")


def contenders_worth_running(store, keys, names):
    """Leave out those that failed on the same problem with a larger tolerance."""
    *place, tol, threads = keys
    looser = [
        store.entries(other)
        for other in store.cells
        if other[:-2] == tuple(place) and other[-2] > tol and other[-1] == threads
    ]
    failed = {
        name
        for entries in looser
        for name, entry in entries.items()
        if not entry["certified"] and name != OURS
    }
    return [name for name in names if name not in failed]


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    store = common.Store(
        options.out.with_suffix(".json"), ["case", "n", "reg / max C", "tol", "threads"]
    )
    store.note_run("benchmarks.peers.ot", DISTRIBUTIONS)
    tolerances = sorted(options.tol, reverse=True)
    for case, n in itertools.product(options.cases, options.n):
        problem = CASES[case](n)
        for share, tol in itertools.product(options.reg, tolerances):
            keys = (case, len(problem.a), share, tol, options.threads)
            names = contenders_worth_running(store, keys, options.peers)
            log.info("%s, load %.1f", keys, os.getloadavg()[0])
            reg = share * problem.C.max()
            limits = {"seconds": options.cell_seconds, "repeat": options.repeat}
            contenders = {name: CONTENDERS[name] for name in names}
            store.add(keys, common.run_cell(contenders, (problem, reg), tol, **limits))
            page = common.report(store, "Entropic optimal transport", PACKAGES, OURS)
            options.out.write_text(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--n", nargs="+", type=int, default=[1000, 2000])
    parser.add_argument("--reg", nargs="+", type=float, default=[1e-2, 1e-3, 1e-4])
    parser.add_argument("--tol", nargs="+", type=float, default=[1e-6, 1e-9])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--peers", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds")
    parser.add_argument("--cell-seconds", type=float, default=30.0, help="limit for one run")
    parser.add_argument("--out", type=Path, default=common.RESULTS / "ot.md")
    common.main("benchmarks.peers.ot", parser, run)


if __name__ == "__main__":
    main()
