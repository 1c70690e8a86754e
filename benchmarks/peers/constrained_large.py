"""Large constrained problems, sparse or known by products, against Ipopt and trust-constr.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.constrained_large --threads 1

Seconds are net of the functions, which are the same vectorised NumPy for all, and total in
brackets. Ipopt (with MUMPS) gets exact sparse Hessians, or its limited-memory ones where only
products are known; SciPy's trust-constr gets Hessians or products. All ask for a KKT residual of
1e-8, which is computed here, with multipliers from the normal equations.
"""

import argparse
import contextlib
import io
import json
import logging
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize as so
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

from benchmarks.peers import common
from benchmarks.peers.constrained import DISTRIBUTIONS, OURS, Counted, Run, _cyipopt
from solvers import datasets

log = logging.getLogger(__name__)

TOL = 1e-8
CASES = {
    "chain 1e3": lambda: datasets.chained_rosenbrock(1000),
    "chain 2e4": lambda: datasets.chained_rosenbrock(20_000),
    "chain 1e5": lambda: datasets.chained_rosenbrock(100_000),
    "Poisson 32": lambda: datasets.poisson_control(32),
    "Poisson 64": lambda: datasets.poisson_control(64),
    "Poisson 128": lambda: datasets.poisson_control(128),
    "Poisson 256": lambda: datasets.poisson_control(256),
    "logistic 10000 x 400": lambda: datasets.constrained_logistic(10_000, 400, rng=0),
    "logistic 50000 x 2000": lambda: datasets.constrained_logistic(50_000, 2000, rng=0),
    "charges 100": lambda: datasets.thomson(100, rng=0),
    "frame 50 x 5": lambda: datasets.stiefel_procrustes(50, 5, noise=0.1, rng=0),
}


class Case(NamedTuple):
    """A problem as `Counted` takes it; `hessp` or None."""

    x0: np.ndarray
    fun: Any
    jac: Any
    hess: Any
    constraints: list
    bounds: Any
    hessp: Any


class Large(Counted):
    """A problem whose functions count and time themselves."""

    def __init__(self, case):
        super().__init__(case)
        self.counts["Hp"] = 0

    def hessp(self, x, p):
        return self._timed("Hp", self.case.hessp, x, np.ravel(p))


def load(name):
    """Return a `Case`."""
    given = CASES[name]()
    con = given.constraints
    if isinstance(con, so.LinearConstraint):
        A, side = con.A, np.broadcast_to(con.lb, con.A.shape[0])
        zero = sp.csr_array((A.shape[1],) * 2)
        con = so.NonlinearConstraint(
            lambda x: A @ x, side, side, jac=lambda x: A, hess=lambda x, v: zero
        )
    con = con[0] if isinstance(con, list) else con
    m = len(con.fun(given.x0))
    sides = (np.broadcast_to(np.asarray(side, float), (m,)) for side in (con.lb, con.ub))
    con = so.NonlinearConstraint(con.fun, *sides, jac=con.jac, hess=con.hess)
    # Where a Hessian is sparse or small it is given as such.
    hessp = given.hessp if name.startswith("logistic") else None
    return Case(given.x0, given.fun, given.jac, given.hess, [con], None, hessp)


def ours(problem):
    from solvers.constrained import minimize

    matrix_free = problem.case.hessp is not None
    second = {"hessp": problem.hessp} if matrix_free else {"hess": problem.hess}
    res = minimize(
        problem.fun, problem.case.x0, jac=problem.jac, constraints=problem.constraints, **second
    )
    return Run(res.x, res.success, res.nit)


def trust_constr(problem):
    matrix_free = problem.case.hessp is not None
    second = {"hessp": problem.hessp} if matrix_free else {"hess": problem.hess}
    res = so.minimize(
        problem.fun,
        problem.case.x0,
        jac=problem.jac,
        constraints=problem.constraints,
        method="trust-constr",
        # It goes on for long after what is asked for is reached, unless it is stopped.
        callback=lambda x, state: max(state.optimality, state.constr_violation) <= 0.5 * TOL,
        options={"gtol": 0.1 * TOL, "xtol": 1e-15, "maxiter": 1000},
        **second,
    )
    return Run(res.x, res.status in (1, 2, 3), res.nit)


def ipopt(problem):
    """Solve by Ipopt with MUMPS."""
    case, con = problem.case, problem.con
    exact = case.hessp is None
    rng = np.random.default_rng(0)
    sample = case.x0 + 0.1 * rng.normal(size=problem.n)
    J = sp.csr_array(con.jac(sample))
    rows, columns = J.nonzero()
    if exact:
        pattern = sp.csr_array(abs(sp.csr_array(case.hess(sample))))
        pattern = pattern + abs(sp.csr_array(con.hess(sample, rng.normal(size=problem.m))))
        lower = sp.tril(pattern).tocoo()

    class Callbacks:
        objective = staticmethod(problem.fun)
        gradient = staticmethod(problem.jac)
        constraints = staticmethod(problem.cons)
        iterations = 0

        def jacobianstructure(self):
            return rows, columns

        def jacobian(self, x):
            return _entries(problem, problem.cons_jac(x), rows, columns)

        def intermediate(self, *args):
            type(self).iterations = args[1]

        if exact:

            def hessianstructure(self):
                return lower.row, lower.col

            def hessian(self, x, lam, weight):
                H = problem.lagrangian_hess(x, lam, weight)
                return _entries(problem, H, lower.row, lower.col)

    free = np.full(problem.n, 1e20)
    nlp = _cyipopt().Problem(
        n=problem.n,
        m=problem.m,
        problem_obj=Callbacks(),
        lb=-free,
        ub=free,
        cl=con.lb,
        cu=con.ub,
    )
    options = {"tol": 0.1 * TOL, "print_level": 0, "sb": "yes", "linear_solver": "mumps"}
    if not exact:
        options["hessian_approximation"] = "limited-memory"
        options["max_iter"] = 10_000
    for key, value in options.items():
        nlp.add_option(key, value)
    x, info = nlp.solve(case.x0)
    return Run(x, info["status"] == 0, Callbacks.iterations)


def _entries(problem, A, rows, columns):
    """Return some entries of a matrix; what that takes counts as part of the functions."""
    began = time.perf_counter()
    values = np.asarray(A[rows, columns]).ravel()
    problem.seconds += time.perf_counter() - began
    return values


SOLVERS = {OURS: ours, "Ipopt": ipopt, "scipy trust-constr": trust_constr}


def residual(case, x):
    """Return the KKT residual of a point with the multipliers of least squares."""
    (con,) = case.constraints
    g, c, J = case.jac(x), con.fun(x) - con.lb, con.jac(x)
    if sp.issparse(J):
        J = sp.csc_array(J)
        normal = sp.csc_array(J @ J.T)
        lam = spsolve(normal, -(J @ g))
        lam += spsolve(normal, -(J @ (g + J.T @ lam)))
    else:
        lam = np.linalg.lstsq(J.T, -g, rcond=None)[0]
    return float(max(abs(g + J.T @ lam).max(), abs(c).max()))


def measure(solver, case, limit, rounds):
    """Return the entry of one solver for one problem: the median of a few runs."""
    entries = []
    for _ in range(rounds):
        problem, note, run = Large(case), "", Run(case.x0, False, 0)
        began = time.perf_counter()
        try:
            quiet = contextlib.redirect_stdout(io.StringIO())
            with quiet, np.errstate(all="ignore"), common.limit_seconds(limit):
                run = SOLVERS[solver](problem)
        except common.OutOfTimeError:
            note = "time"
        except ImportError:
            return None
        except Exception as failure:  # a solver may fail in any way, and the table shows it
            note = f"{type(failure).__name__}: {failure}"[:120]
        total = time.perf_counter() - began
        entries.append((total - problem.seconds, total, problem.counts, run, note))
        if total > 0.2 * limit or note:
            break
    # The first run imports and warms up, unless it was the only one.
    entries = sorted(entries[1:] or entries, key=lambda entry: entry[0])
    net, total, counts, run, note = entries[(len(entries) - 1) // 2]
    kkt = residual(case, run.x)
    return {
        "net": net,
        "total": total,
        "counts": counts,
        "iterations": int(run.iterations),
        "claims": bool(run.claims),
        "kkt": kkt,
        "solved": bool(kkt <= TOL),
        "fun": case.fun(run.x),
        "note": note,
    }


def run(options):
    """Run the cases asked for and write the table."""
    path = options.out.with_suffix(".json")
    old = json.loads(path.read_text()) if path.exists() else {"cells": {}}
    cells = old["cells"]
    store = common.Store(options.out.with_suffix(".runs.json"), ["case"])
    store.runs = old.get("runs", [])
    store.note_run("benchmarks.peers.constrained_large", DISTRIBUTIONS)
    for name in options.cases:
        case = load(name)
        for solver in options.peers:
            entry = measure(solver, case, options.limit, options.rounds)
            if entry is not None:
                cells.setdefault(name, {})[solver] = entry
                log.info("%s %s %s", name, solver, entry)
        path.write_text(json.dumps({"runs": store.runs, "cells": cells}) + "\n")
        options.out.write_text(report(cells, store))


def report(cells, store):
    """Return the page."""
    rows = []
    for name in CASES:
        if name in cells:
            mine = cells[name].get(OURS)
            rows.append([name, *(_text(cells[name].get(s), mine, s) for s in SOLVERS)])
    runs = "\n".join(map(common._run_line, store.runs))
    words = " ".join(__doc__.split("\n\n")[3].split())
    intro = f"{words} In a cell: net seconds (total), iterations; x: its net seconds over ours."
    table = common.markdown(["case", *SOLVERS], rows)
    return "\n\n".join(["# Large constrained problems", intro, table, "## Runs", runs]) + "\n"


def _text(entry, mine, solver):
    if entry is None:
        return ""
    if not entry["solved"]:
        return f"fails at {entry['kkt']:.0e} after {entry['total']:.3g}"
    text = f"{entry['net']:.3g} ({entry['total']:.3g}), {entry['iterations']}"
    if solver != OURS and mine and mine["solved"]:
        factor = entry["net"] / mine["net"]
        mark = "" if factor >= 1 else "**"
        text += f" {mark}x{factor:.2g}{mark}"
    return text


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    words.add_argument("--peers", nargs="+", default=list(SOLVERS), choices=SOLVERS)
    words.add_argument("--threads", nargs="+", type=int, default=[1])
    words.add_argument("--rounds", type=int, default=4, help="runs, the first not counted")
    words.add_argument("--limit", type=float, default=120.0, help="seconds for one run")
    words.add_argument("--out", type=Path, default=common.RESULTS / "constrained_large.md")
    warnings.simplefilter("ignore")
    common.main("benchmarks.peers.constrained_large", words, run)


if __name__ == "__main__":
    main()
