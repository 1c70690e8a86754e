"""Compiling the kernels ahead of the first call that matters."""

import warnings

import numpy as np
import scipy.sparse as sp

from .. import bcd, penalties
from .._core.result import ConvergenceWarning


def warmup():
    """Solve problems that reach the kernels of every function, in both precisions."""
    rng = np.random.default_rng(0)
    X, noise = rng.standard_normal((40, 30)), rng.standard_normal(40)
    y = X[:, :3].sum(axis=1) + noise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for number in (np.float64, np.float32):
            rows, target = X.astype(number), y.astype(number)
            # Kernels differ for the three layouts.
            for A in (rows, np.asfortranarray(rows), sp.csc_array(rows)):
                _models(A, target)
            _quadratics(rows, target)
        _graphs(rng)


def _models(X, y):
    few = {"maxiter": 20}
    two, three = y > 0, np.digitize(y, [-1.0, 1.0])
    groups = np.arange(30) // 3
    for intercept in (False, True):
        bcd.lasso(X, y, 0.05, fit_intercept=intercept, **few)
        bcd.logistic(X, two, 0.02, fit_intercept=intercept, **few)
    bcd.huber(X, y, 0.05, **few)
    bcd.multinomial(X, three, 0.02, penalty="row", **few)
    bcd.group_lasso(X, y, 0.05, groups, **few)
    bcd.sparse_regression(X, y, 0.05, penalty="mcp", gamma=30.0, **few)
    bcd.nnls(X, y, **few)
    bcd.svm_dual(X, two, 1.0, **few)
    for method in ("cd", "anderson"):
        bcd.lasso(X, y, 0.05, method=method, **few)
    problem = bcd.Problem(X, y, penalty=penalties.L1(0.05))
    bcd.minimize(problem, working_set=False, maxiter=3)


def _quadratics(X, y):
    for A in (X.T @ X, sp.csr_array(X.T @ X)):
        bcd.quadratic(A, X.T @ y, bounds=(0.0, 1.0), maxiter=20)
    bcd.nmf(np.abs(X), 3, maxiter=5, rng=0)


def _graphs(rng):
    W = sp.random_array((60, 60), density=0.1, rng=rng)
    W = sp.csr_array(W + W.T)
    classes = np.where(rng.random(60) < 0.3, np.arange(60) % 2, -1)
    for method in ("auto", "cg", "cholesky", "tree", "redblack", "forest_variable"):
        bcd.label_propagation(W, classes, method=method, isolated="zero", maxiter=3)
