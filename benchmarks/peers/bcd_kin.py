"""Non-negative least squares, group lasso and label propagation against their peers.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.bcd_kin --cases "NNLS 1000x300" "lattice 50x50" --threads 1

Errors are computed here in float64. Non-negative least squares: the largest violation of the
optimality conditions over the largest entry of ``A^T b``. Group lasso: the duality gap over the
objective at zero. Label propagation: the relative residual of the linear system; peers get this
system, ours the graph and the labels.
"""

import functools
import logging
import math
import os
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from benchmarks.peers import bcd, common
from solvers import datasets

log = logging.getLogger(__name__)

DISTRIBUTIONS = (*bcd.DISTRIBUTIONS, "cvxopt", "pyamg")


class Nonnegative(NamedTuple):
    """``|A x - b|^2 / 2`` for x >= 0."""

    A: np.ndarray
    b: np.ndarray

    def small(self):
        """Return a little of the problem."""
        return Nonnegative(np.asfortranarray(self.A[: bcd.SMALL, :20]), self.b[: bcd.SMALL])

    def error(self, x):
        """Return the largest violation of the optimality conditions."""
        x = np.asarray(x, np.float64)
        if not np.isfinite(x).all():
            return math.inf
        g = self.A.T @ (self.A @ x - self.b)
        # A slope may point upwards only where x is zero.
        violation = np.where(x > 0, np.abs(g), np.maximum(-g, 0.0))
        below = np.maximum(-x, 0.0).max() / max(np.abs(x).max(), 1e-300)
        return float(max(violation.max() / np.abs(self.A.T @ self.b).max(), below))


class Grouped(NamedTuple):
    """``|y - X w|^2 / (2 n) + alpha sqrt(size) sum_g |w_g|``, groups of consecutive columns."""

    X: np.ndarray
    y: np.ndarray
    alpha: float
    size: int

    def small(self):
        """Return a little of the problem."""
        X = np.asfortranarray(self.X[: bcd.SMALL, : 6 * self.size])
        return Grouped(X, self.y[: bcd.SMALL], self.alpha, self.size)

    def norms(self, w):
        """Return the norm of each group."""
        return np.linalg.norm(np.reshape(w, (-1, self.size)), axis=1)

    def error(self, w):
        """Return the duality gap over the objective at zero."""
        X, y, alpha, size = self
        w = np.asarray(w, np.float64)
        if not np.isfinite(w).all():
            return math.inf
        r, n, a = y - X @ w, y.size, alpha * math.sqrt(size)
        limit = a * n / max(self.norms(X.T @ r).max(), 1e-300)
        scale = np.clip(r @ y / max(r @ r, 1e-300), -limit, limit)
        dual = (scale * (r @ y) - 0.5 * scale**2 * (r @ r)) / n
        primal = r @ r / (2 * n) + a * self.norms(w).sum()
        return float(max(primal - dual, 0.0) / (y @ y / (2 * n)))


class Harmonic(NamedTuple):
    """A graph with labels, and the system ``A x = b`` of its unlabelled nodes."""

    W: sp.csr_array
    labels: np.ndarray
    A: sp.csc_array
    b: np.ndarray

    def small(self):
        """Return another graph."""
        return harmonic(datasets.lattice_graph(8, labelled=5, rng=0))

    def error(self, x):
        """Return the relative residual."""
        if not np.isfinite(x).all():
            return math.inf
        return float(np.linalg.norm(self.A @ x - self.b) / np.linalg.norm(self.b))


def harmonic(graph):
    """Return the problem of a graph of which every part has a label."""
    W, labels = graph.W, np.asarray(graph.labels, np.float64)
    if graph.labels.dtype.kind == "i":
        labels[graph.labels < 0] = np.nan
    parts = sp.csgraph.connected_components(W)[1]
    reached = np.isin(parts, parts[~np.isnan(labels)])
    W, labels = sp.csr_array(W[reached][:, reached]), labels[reached]
    free = np.isnan(labels)
    degrees = sp.diags_array(W.sum(axis=1))
    A = sp.csc_array((degrees - W).tocsr()[free][:, free])
    return Harmonic(W, labels, A, W[free][:, ~free] @ labels[~free])


def nonnegative(n, p):
    """Return a problem of which about half of the unknowns are zero."""
    rng = np.random.default_rng(0)
    A = np.asfortranarray(rng.standard_normal((n, p)))
    return Nonnegative(A, A @ rng.standard_normal(p) + rng.standard_normal(n))


def grouped(n, p, size, ratio):
    """Return a problem at a share of the least penalty that leaves nothing."""
    X, y, _ = datasets.block_correlated(n, p, block=size, rho=0.5, rng=0)
    largest = np.linalg.norm((X.T @ y).reshape(-1, size), axis=1).max() / (n * math.sqrt(size))
    return Grouped(X, y, ratio * largest, size)


CASES = {
    "NNLS 1000x300": lambda: nonnegative(1000, 300),
    "groups 500x5000, 0.1": lambda: grouped(500, 5000, 10, 0.1),
    "groups 500x5000, 0.02": lambda: grouped(500, 5000, 10, 0.02),
    "lattice 50x50": lambda: harmonic(datasets.lattice_graph(50, rng=0)),
    "lattice 300x300": lambda: harmonic(datasets.lattice_graph(300, rng=0)),
    "lattice 1000x1000": lambda: harmonic(datasets.lattice_graph(1000, labelled=1000, rng=0)),
    "moons 2000": lambda: harmonic(datasets.moons_graph(2000, rng=0)),
    "moons 50000": lambda: harmonic(datasets.moons_graph(50000, neighbours=8, rng=0)),
    "moons 1000000": lambda: harmonic(datasets.moons_graph(1_000_000, neighbours=8, rng=0)),
}


class Ours(bcd.Contender):
    """One of our functions; `call(problem, **options)`."""

    compiles, cap = True, 100_000

    def __init__(self, problem, call):
        super().__init__(problem)
        self.call = call

    def fit(self, problem, threshold, cap):
        return self.call(problem, tol=threshold, maxiter=cap)

    def iterations(self, answer):
        return int(answer.nit)

    def coef(self, answer):
        return answer.x


class Propagation(Ours):
    def coef(self, answer):
        return answer.x[np.isnan(self.problem.labels)]


def our_nnls(problem, **options):
    from solvers.bcd import nnls

    return nnls(*problem, **options)


def our_groups(problem, **options):
    from solvers.bcd import group_lasso

    X, y, alpha, size = problem
    return group_lasso(X, y, alpha, np.arange(X.shape[1]) // size, **options)


def our_propagation(problem, method="auto", **options):
    from solvers.bcd import label_propagation

    return label_propagation(problem.W, problem.labels, method=method, **options)


class Peer(bcd.Contender):
    """A peer's function; `call(problem, threshold)` returns unknowns."""

    def __init__(self, problem, call, package, compiles=False):
        super().__init__(problem)
        __import__(package)
        self.call, self.compiles = call, compiles

    def fit(self, problem, threshold, cap):
        return self.call(problem, threshold)

    def iterations(self, answer):
        return 0

    def coef(self, answer):
        return answer


def scipy_nnls(problem, threshold):
    from scipy.optimize import nnls

    return nnls(*problem)[0]


def scipy_bvls(problem, threshold):
    from scipy.optimize import lsq_linear

    return lsq_linear(*problem, bounds=(0.0, np.inf), method="bvls", tol=threshold).x


def celer_groups(problem, threshold):
    from celer import GroupLasso

    X, y, alpha, size = problem
    model = GroupLasso(
        size, alpha * math.sqrt(size), tol=threshold, fit_intercept=False, max_iter=bcd.OUTER
    )
    return model.fit(X, y).coef_


def skglm_groups(problem, threshold):
    from skglm import GroupLasso

    X, y, alpha, size = problem
    weights = np.full(X.shape[1] // size, math.sqrt(size))
    model = GroupLasso(
        size, alpha, weights, tol=threshold, fit_intercept=False, max_iter=bcd.OUTER
    )
    return model.fit(X, y).coef_


def adelie_groups(problem, threshold):
    import adelie

    X, y, alpha, size = problem
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    answer = adelie.grpnet(
        X=adelie.matrix.dense(X, method="naive", n_threads=threads),
        glm=adelie.glm.gaussian(y=y),
        groups=np.arange(0, X.shape[1], size),
        lmda_path=np.array([alpha]),
        intercept=False,
        tol=0.01 * threshold,
        early_exit=False,
        progress_bar=False,
        n_threads=threads,
    )
    return answer.betas[-1].toarray().ravel()


def scipy_cg(problem, threshold):
    from scipy.sparse.linalg import LinearOperator, cg

    # By its diagonal, which costs nothing.
    d = problem.A.diagonal()
    M = LinearOperator(problem.A.shape, lambda v: np.ravel(v) / d)
    return cg(problem.A, problem.b, rtol=threshold, atol=0.0, maxiter=bcd.SWEEPS, M=M)[0]


def scipy_splu(problem, threshold):
    from scipy.sparse.linalg import splu

    return splu(problem.A, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(
        problem.b
    )


def cvxopt_cholmod(problem, threshold):
    from cvxopt import cholmod, matrix, spmatrix

    lower = sp.tril(problem.A, format="coo")
    A = spmatrix(lower.data, lower.row, lower.col, problem.A.shape)
    x = matrix(problem.b)
    cholmod.linsolve(A, x)
    return np.ravel(x)


def pyamg_cg(problem, threshold):
    from pyamg import ruge_stuben_solver

    solver = ruge_stuben_solver(sp.csr_matrix(problem.A))
    return solver.solve(problem.b, tol=threshold, accel="cg", maxiter=1000)


def _peer(call, package, *, compiles=False):
    return functools.partial(Peer, call=call, package=package, compiles=compiles)


NNLS = {
    bcd.OURS: functools.partial(Ours, call=our_nnls),
    "scipy nnls": _peer(scipy_nnls, "scipy"),
    "scipy lsq_linear": _peer(scipy_bvls, "scipy"),
}
GROUPS = {
    bcd.OURS: functools.partial(Ours, call=our_groups),
    "celer GroupLasso": _peer(celer_groups, "celer"),
    "skglm GroupLasso": _peer(skglm_groups, "skglm", compiles=True),
    "adelie": _peer(adelie_groups, "adelie"),
}
GRAPHS = {
    bcd.OURS: functools.partial(Propagation, call=our_propagation),
    "our tree": functools.partial(
        Propagation, call=functools.partial(our_propagation, method="tree")
    ),
    "scipy cg": _peer(scipy_cg, "scipy"),
    "scipy splu": _peer(scipy_splu, "scipy"),
    "cvxopt cholmod": _peer(cvxopt_cholmod, "cvxopt"),
    "pyamg": _peer(pyamg_cg, "pyamg"),
}
KINDS = {Nonnegative: NNLS, Grouped: GROUPS, Harmonic: GRAPHS}
CONTENDERS = list(dict.fromkeys(name for kind in KINDS.values() for name in kind))
PACKAGES = {
    package: [name for name in CONTENDERS if name.startswith(package)]
    for package in ("scipy", "celer", "skglm", "adelie", "cvxopt", "pyamg")
}


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    store = common.Store(options.out.with_suffix(".json"), ["case", "tol", "threads"])
    store.note_run("benchmarks.peers.bcd_kin", DISTRIBUTIONS)
    for case in options.cases:
        problem = CASES[case]()
        contenders = KINDS[type(problem)]
        for tol in options.tol:
            keys = (case, tol, options.threads)
            log.info("%s, load %.1f", keys, os.getloadavg()[0])
            asked = {name: contenders[name] for name in options.peers if name in contenders}
            limits = {"seconds": options.limit, "repeat": options.rounds}
            store.add(keys, common.run_cell(asked, (problem,), tol, **limits))
            page = common.report(
                store,
                "Bounds, groups and graphs",
                PACKAGES,
                bcd.OURS,
                variants=["our tree"],
            )
            options.out.write_text(page)


def main():
    words = bcd.parser(__doc__.splitlines()[0], CASES, CONTENDERS, "bcd_kin.md", ratios=())
    common.main("benchmarks.peers.bcd_kin", words, run)


if __name__ == "__main__":
    main()
