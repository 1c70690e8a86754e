"""Exact optimal transport against POT's network simplex.

Run from the repository's root, in an environment that has the peer::

    python -m benchmarks.peers.ot_emd --n 1000 2000 4000

The clock of a contender stops when its function returns. The gap of its answer is then recomputed
here, in float64, from the plan and the column potentials that it returned.
"""

import argparse
import functools
import itertools
import logging
import os
from pathlib import Path

import numpy as np

from benchmarks.peers import common
from benchmarks.peers.ot import CASES

OURS = "solvers"
PACKAGES = {"POT": ["POT emd"]}
DISTRIBUTIONS = ("numpy", "scipy", "numba", "POT")

log = logging.getLogger(__name__)


def relative_gap(problem, P, g):
    """What the plan costs, or would cost if it were feasible, above what `g` proves."""
    a, b, C = problem[:3]
    upper = (P * C).sum()
    # Mass in the wrong place would have to be moved over the range of the cost at most.
    upper += 0.5 * (np.abs(P.sum(axis=1) - a).sum() + np.abs(P.sum(axis=0) - b).sum()) * np.ptp(C)
    heavy = b > 0
    lower = a @ (C[:, heavy] - g[heavy]).min(axis=1) + b[heavy] @ g[heavy]
    return float((upper - lower) / max(abs(upper), 1e-8 * np.ptp(C)))


class Contender:
    """One method on one problem, with the calls that `common.tune` makes."""

    cap = 10**9

    def __init__(self, problem):
        self.problem = problem

    def prepare(self, cap):
        """Nothing: all methods take the arrays as they are."""

    def threshold(self, tol):
        return tol

    def error(self, answer):
        P, f, g = self.parts(answer)
        from solvers.ot import certify

        verdict = certify(*self.problem[:3], f, g, reg=0, P=P, tol=1.0)
        return max(verdict.value, relative_gap(self.problem, P, g))


class Ours(Contender):
    def __init__(self, problem):
        super().__init__(problem)
        from solvers.ot import emd

        self.solve = emd

    def run(self, threshold, cap):
        return self.solve(*self.problem[:3], gap=threshold, maxiter=cap)

    def iterations(self, answer):
        return int(answer.nit)

    def parts(self, answer):
        return answer.plan, answer.f, answer.g


class Pot(Contender):
    def __init__(self, problem):
        super().__init__(problem)
        import ot

        self.solve = functools.partial(ot.emd, log=True)

    def run(self, threshold, cap):
        return self.solve(*self.problem[:3], numItermax=cap)

    def iterations(self, answer):
        return 0  # it does not tell, and never needs as many as it may use

    def parts(self, answer):
        return answer[0], answer[1]["u"], answer[1]["v"]


CONTENDERS = {OURS: Ours, "POT emd": Pot}


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    store = common.Store(options.out.with_suffix(".json"), ["case", "n", "gap", "threads"])
    store.note_run("benchmarks.peers.ot_emd", DISTRIBUTIONS)
    # Compile outside the clock.
    Ours(CASES["assignment"](1500)).run(1e-6, 2000)
    for n, case in itertools.product(options.n, options.cases):
        problem = CASES[case](n)
        keys = (case, len(problem.a), options.gap, options.threads)
        log.info("%s, load %.1f", keys, os.getloadavg()[0])
        limits = {"seconds": options.cell_seconds, "repeat": options.repeat}
        store.add(keys, common.run_cell(CONTENDERS, (problem,), options.gap, **limits))
        options.out.write_text(common.report(store, "Exact optimal transport", PACKAGES, OURS))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--n", nargs="+", type=int, default=[1000, 2000, 4000])
    parser.add_argument("--gap", type=float, default=1e-6)
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds")
    parser.add_argument("--cell-seconds", type=float, default=60.0, help="limit for one run")
    parser.add_argument("--out", type=Path, default=common.RESULTS / "ot_emd.md")
    common.main("benchmarks.peers.ot_emd", parser, run)


if __name__ == "__main__":
    main()
