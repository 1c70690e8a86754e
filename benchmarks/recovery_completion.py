"""Exact recovery: how few entries, how wide a spectrum, how accurate, how fast, how often.

Run from the repository's root::

    python -m benchmarks.recovery_completion
    python -m benchmarks.recovery_completion --quick

Each answer is the outcome of one default call of `alternating_minimization`. Its distance from
the planted matrix is recomputed here from thin QR factorisations.
"""

import argparse
import logging
import statistics
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.peers import common
from solvers import completion

# Relative distance from the planted matrix at which it counts as found.
FOUND = 1e-8
log = logging.getLogger(__name__)
OUT = common.RESULTS / "recovery_completion.md"


class Case(NamedTuple):
    """A planted problem, square."""

    n: int
    rank: int
    oversampling: float
    cond: float = 1.0
    tol: float = 1e-12


SIZES = [
    Case(2000, 5, 2.0),
    Case(2000, 10, 2.0),
    Case(2000, 20, 2.0),
    Case(2000, 10, 1.5),
    Case(1000, 10, 2.0, 1e4, 1e-10),
    Case(2000, 10, 3.0, 1e4, 1e-10),
    Case(20_000, 10, 3.0, 1.0, 1e-10),
]
RATES = [
    *(Case(300, 5, ratio, cond, 1e-10) for cond in (1.0, 1e3) for ratio in (1.3, 1.5, 2.0, 2.5)),
    Case(1000, 10, 1.5, 1.0, 1e-10),
    Case(1000, 10, 1.5, 1e3, 1e-10),
]


class Outcome(NamedTuple):
    """What one call made of one problem."""

    seconds: float
    relres: float
    relerr: float
    nit: int
    steps: int
    stages: str


def distance(res, L, R):
    """Relative distance of the answer from ``L R^T``, accurate also where it is tiny."""
    left = np.linalg.qr(np.concatenate([res.U * res.s, -L], axis=1), mode="r")
    right = np.linalg.qr(np.concatenate([res.V, R], axis=1), mode="r")
    size = np.linalg.norm(np.linalg.qr(L, mode="r") @ np.linalg.qr(R, mode="r").T)
    return float(np.linalg.norm(left @ right.T) / size)


def solve(case, seed):
    """Plant a matrix and look for it."""
    n, rank, oversampling, cond, tol = case
    rows, cols, vals, L, R = completion.make_planted(
        n, n, rank, oversampling, cond=cond, min_degree=rank + 2, rng=seed
    )
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        res = completion.alternating_minimization(
            (rows, cols, vals), rank, shape=(n, n), tol=tol, rng=seed
        )
    seconds = time.perf_counter() - start
    stages = ", ".join(f"{name} {nit}" for name, nit, _ in res.stages)
    return Outcome(seconds, res.relres, distance(res, L, R), res.nit, res.n_inner, stages)


def size_row(case, repeat):
    """Solve one problem several times."""
    outcomes = [solve(case, 0) for _ in range(repeat)]
    last = outcomes[-1]
    return [
        *labels(case),
        common.significant(statistics.median(o.seconds for o in outcomes)),
        f"{last.relres:.1e}",
        f"{last.relerr:.1e}",
        last.stages,
        last.steps,
    ]


def rate_row(case, seeds):
    """Solve one problem for each seed."""
    outcomes = [solve(case, seed) for seed in range(seeds)]
    found = [o for o in outcomes if o.relerr <= FOUND]
    return [
        *labels(case),
        f"{len(found)} of {seeds}",
        common.significant(statistics.median(o.seconds for o in outcomes)),
        round(statistics.median(o.steps for o in outcomes)),
        f"{max((o.relerr for o in found), default=np.nan):.1e}",
    ]


def labels(case):
    return [f"{case.n} x {case.n}", case.rank, case.oversampling, f"{case.cond:g}"]


def page(sizes, rates, command):
    """The whole report."""
    header = ["matrix", "rank", "oversampling", "condition"]
    return "\n\n".join(
        [
            "# Exact recovery by default calls",
            "Planted matrices without noise; `oversampling` is the number of entries per degree "
            "of freedom, and each row and column has at least rank + 2. The error is the "
            "distance from the planted matrix, relative to it.",
            common.markdown(
                [*header, "seconds", "residual", "error", "iterations", "CG steps"], sizes
            ),
            f"How often the matrix is found, to {FOUND:g}, with one start:",
            common.markdown(
                [*header, "found", "median s", "median CG steps", "largest error found"], rates
            ),
            f"`{command}` ({common.machine()})\n",
        ]
    )


def run(options):
    """Fill both tables, rewriting the report as it grows."""
    command = common.command("benchmarks.recovery_completion")
    # Compiles what is timed.
    solve(Case(60, 2, 3.0), 0)
    sizes, rates = [], []
    last = 2 if options.quick else None
    jobs = [(sizes, size_row, case, options.repeat) for case in SIZES[:last]]
    jobs += [(rates, rate_row, case, options.seeds) for case in RATES[:last]]
    for table, make, case, count in jobs:
        table.append(make(case, count))
        log.info("%s", " | ".join(map(str, table[-1])))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(page(sizes, rates, command))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each large problem")
    parser.add_argument("--seeds", type=int, default=8, help="problems for each success rate")
    parser.add_argument("--threads", nargs="+", type=int, default=[2])
    parser.add_argument("--quick", action="store_true", help="two rows of each table only")
    parser.add_argument("--out", type=Path, default=OUT)
    common.main("benchmarks.recovery_completion", parser, run)


if __name__ == "__main__":
    main()
