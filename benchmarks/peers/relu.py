"""The convex programme over one set of gates against pyscnn and conic solvers.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.relu --cases "cancer" --gates 20 100 --threads 1

All contenders get the same data, gates and beta; squared loss. The error is the relative duality
gap that `solvers.relu.certify` finds in float64 for the weights that they return, moved into
their cones where they are not, or the gap between the objective there, computed here, and the
dual bound, whichever is larger. Conic solvers are called through CVXPY; "built" counts the
seconds in which it translates the problem, too.
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

from benchmarks.peers import common

OURS = "solvers"
DISTRIBUTIONS = ("numpy", "scipy", "numba", "pyscnn", "torch", "cvxpy", "clarabel", "scs")

log = logging.getLogger(__name__)


class Training(NamedTuple):
    """Data, gates with the vectors that generate them, and beta."""

    X: np.ndarray
    y: np.ndarray
    G: np.ndarray
    beta: float

    @property
    def D(self):  # noqa: N802 (the name in the papers)
        """The gates."""
        return self.X @ self.G >= 0

    def objective(self, V, W):
        """Return loss plus penalty."""
        p = (self.D * (self.X @ (V - W))).sum(axis=1)
        norms = np.linalg.norm(V, axis=0).sum() + np.linalg.norm(W, axis=0).sum()
        return 0.5 * np.square(p - self.y).sum() + self.beta * norms

    def error(self, V, W, z=None):
        """Return the relative gap of weights (d, P), moved into their cones.

        Without a dual point z that of the weights is judged: the slopes of the loss there.
        """
        from solvers import relu

        if not (np.isfinite(V).all() and np.isfinite(W).all()):
            return math.inf
        gates = relu.Gates(self.D, self.G)
        verdict = relu.certify(
            self.X, self.y, beta=self.beta, loss="squared", V=V, W=W, gates=gates, z=z
        )
        gap = verdict.details["gap_projected"]
        if verdict.value == gap:
            value = self.objective(V, W)
            gap = max(gap, (value - verdict.details["dual"]) / abs(value))
        return float(gap)


def standard(X):
    """Return rows of mean square norm 1: centred, scaled columns and one of ones."""
    X = X - X.mean(axis=0)
    std = X.std(axis=0)
    X = np.c_[X / np.where(std < 1e-3, 1.0, std), np.ones(len(X))]
    return X / math.sqrt(X.shape[1])


def cancer():
    from sklearn.datasets import load_breast_cancer

    X, t = load_breast_cancer(return_X_y=True)
    return standard(X), np.where(t == 1, 1.0, -1.0)


def diabetes():
    from sklearn.datasets import load_diabetes

    X, t = load_diabetes(return_X_y=True)
    return standard(X), (t - t.mean()) / t.std()


def digits():
    from sklearn.datasets import load_digits

    X, t = load_digits(return_X_y=True)
    return standard(X), np.where(t % 2 == 0, 1.0, -1.0)


CASES = {"cancer": cancer, "diabetes": diabetes, "digits": digits}


def posed(case, count, beta):
    """Return a case with `count` distinct gates."""
    X, y = CASES[case]()
    G = np.random.default_rng(0).standard_normal((X.shape[1], 4 * count))
    D = X @ G >= 0
    first = np.sort(np.unique(np.packbits(D, axis=0), axis=1, return_index=True)[1])
    first = first[D[:, first].any(axis=0)][:count]
    return Training(X, y, np.ascontiguousarray(G[:, first]), beta)


class Contender:
    """One method on one problem; `fit(threshold, cap)` returns V and W."""

    cap = 100_000
    # Gap of its own over that which is asked for, at first.
    first = 1.0

    def __init__(self, problem):
        self.problem = problem

    def prepare(self, cap):
        """Compile, and load what is loaded on first use, outside the clock."""

    def threshold(self, tol):
        return self.first * tol

    def run(self, threshold, cap):
        return self.fit(threshold, cap)

    def iterations(self, answer):
        return 0

    def error(self, answer):
        return self.problem.error(*answer)


class Ours(Contender):
    def __init__(self, problem, name, **options):
        super().__init__(problem)
        from solvers import relu

        self.solve = functools.partial(
            getattr(relu, name), beta=problem.beta, rng=0, history=False, **options
        )
        self.gates = relu.Gates(problem.D, problem.G)

    def prepare(self, cap):
        from solvers import relu

        part = slice(0, 40)
        gates = relu.Gates(self.problem.D[part])
        self.solve(self.problem.X[part], self.problem.y[part], gates=gates, tol=1e-2, maxiter=60)

    def fit(self, threshold, cap):
        p = self.problem
        res = self.solve(p.X, p.y, gates=self.gates, tol=threshold, maxiter=cap)
        return res.V, res.W, res.z, res.nit

    def iterations(self, answer):
        return answer[3]

    def error(self, answer):
        return self.problem.error(*answer[:3])


class Scnn(Contender):
    """Its augmented Lagrangian; its own tolerances are norms of gradients and violations."""

    cap = 2000

    def __init__(self, problem):
        super().__init__(problem)
        import scnn.metrics
        import scnn.models
        import scnn.optimize
        import scnn.regularizers
        import scnn.solvers

        logging.getLogger("scnn").setLevel(logging.ERROR)
        self.scnn = scnn

    def fit(self, threshold, cap):
        p, scnn = self.problem, self.scnn
        model = scnn.models.ConvexReLU(p.G, c=1)
        solver = scnn.solvers.AL(
            model,
            max_primal_iters=cap,
            max_dual_iters=cap,
            tol=threshold,
            constraint_tol=threshold,
        )
        model, _ = scnn.optimize.optimize_model(
            model,
            solver,
            scnn.metrics.Metrics(),
            p.X,
            p.y[:, None],
            # Its loss is a mean.
            regularizer=scnn.regularizers.NeuronGL1(p.beta / p.y.size),
            return_convex=True,
            unitize_data=False,
            dtype="float64",
        )
        return *(np.ascontiguousarray(W[0].T) for W in model.parameters), model.G

    def error(self, answer):
        # It puts the gates in another order.
        V, W, G = answer
        own = {c.tobytes(): k for k, c in enumerate(self.problem.D.T.copy())}
        where = [own[c.tobytes()] for c in (self.problem.X @ G >= 0).T.copy()]
        moved = np.zeros((2, *self.problem.G.shape))
        moved[0][:, where], moved[1][:, where] = V, W
        return self.problem.error(*moved)


class Conic(Contender):
    """A solver behind CVXPY; `words` are its names for the tolerance."""

    def __init__(self, problem, solver, words, iterations):
        super().__init__(problem)
        import cvxpy

        self.cp, self.solver, self.words, self.count = cvxpy, solver, words, iterations

    def fit(self, threshold, cap):
        cp, (X, y, G, beta), D = self.cp, self.problem, self.problem.D
        V, W = cp.Variable(G.shape), cp.Variable(G.shape)
        p = cp.sum(cp.multiply(D.astype(float), X @ (V - W)), axis=1)
        norms = cp.sum(cp.norm(V, 2, axis=0)) + cp.sum(cp.norm(W, 2, axis=0))
        signs = 2.0 * D - 1.0
        cones = [cp.multiply(signs, X @ V) >= 0, cp.multiply(signs, X @ W) >= 0]
        programme = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(p - y) + beta * norms), cones)
        options = dict.fromkeys(self.words, threshold) | {self.count: min(cap, 20_000)}
        programme.solve(solver=self.solver, **options)
        return V.value, W.value


CONTENDERS = {
    OURS: functools.partial(Ours, name="admm"),
    "our interior point": functools.partial(Ours, name="interior_point"),
    "pyscnn": Scnn,
    "Clarabel": functools.partial(
        Conic,
        solver="CLARABEL",
        words=("tol_gap_abs", "tol_gap_rel", "tol_feas"),
        iterations="max_iter",
    ),
    "SCS": functools.partial(
        Conic, solver="SCS", words=("eps_abs", "eps_rel"), iterations="max_iters"
    ),
}
PACKAGES = {name: [name] for name in ("pyscnn", "Clarabel", "SCS")}


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    names = ["case", "gates", "beta", "tol", "threads"]
    store = common.Store(options.out.with_suffix(".json"), names)
    store.note_run("benchmarks.peers.relu", DISTRIBUTIONS)
    cells = itertools.product(options.cases, options.gates, options.beta, options.tol)
    for case, count, beta, tol in cells:
        keys = (case, count, beta, tol, options.threads)
        log.info("%s, load %.1f", keys, os.getloadavg()[0])
        problem = posed(case, count, beta)
        contenders = {name: CONTENDERS[name] for name in options.peers}
        limits = {"seconds": options.limit, "repeat": options.rounds}
        store.add(keys, common.run_cell(contenders, (problem,), tol, **limits))
        title = "Convex ReLU networks over one set of gates"
        options.out.write_text(common.report(store, title, PACKAGES, OURS, ["our interior point"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--gates", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--beta", nargs="+", type=float, default=[1.0])
    parser.add_argument("--tol", nargs="+", type=float, default=[1e-3])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--peers", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one run")
    parser.add_argument("--out", type=Path, default=common.RESULTS / "relu.md")
    common.main("benchmarks.peers.relu", parser, run)


if __name__ == "__main__":
    main()
