"""Tiny problems of every face-wise quadratic penalty, solved by trying all faces."""

import numpy as np
import pytest

from solvers import bcd
from tests.bcd import oracles

MANY = 200


def problem(rng):
    n, p = int(rng.integers(2, 9)), int(rng.integers(1, 5))
    # Whole numbers make ties and dependent columns likely.
    X = rng.integers(-2, 3, size=(n, p)).astype(float) if rng.random() < 0.3 else None
    X = rng.normal(size=(n, p)) if X is None else X
    return X, rng.normal(size=n)


def weight(rng, X, y):
    return rng.uniform(0.01, 0.9) * (abs(X.T @ y).max() / len(y) or 1.0)


@pytest.mark.parametrize("method", ["auto", "lars"])
def test_lassos_are_the_best_of_all_sign_patterns(rng, method):
    for _ in range(MANY):
        X, y = problem(rng)
        alpha, s = weight(rng, X, y), rng.uniform(0.5, 2.0, size=len(y))
        res = bcd.lasso(X, y, alpha, sample_weight=s, method=method, tol=1e-11, history=False)
        best = oracles.enumerate_lasso(X, y, alpha, s / s.sum())[1]
        assert res.success
        assert abs(res.fun - best) <= 2e-11 * res.scale


@pytest.mark.parametrize("method", ["auto", "lars"])
def test_positive_lassos_are_the_best_of_all_supports(rng, method):
    for _ in range(MANY):
        X, y = problem(rng)
        alpha, n = weight(rng, X, y), len(y)
        res = bcd.lasso(X, y, alpha, positive=True, method=method, tol=1e-11, history=False)
        q, constant = X.T @ y / n, y @ y / (2 * n)
        best = oracles.enumerate_faces(X.T @ X / n, q, alpha, constant, positive=True)[1]
        assert res.success
        assert abs(res.fun - best) <= 2e-11 * res.scale
        assert res.x.min() >= 0


def test_elastic_nets_are_the_best_of_all_sign_patterns(rng):
    for _ in range(MANY):
        X, y = problem(rng)
        alpha, n, share = weight(rng, X, y), len(y), rng.uniform(0.1, 1.0)
        res = bcd.elastic_net(X, y, alpha, l1_ratio=share, tol=1e-11, history=False)
        H = X.T @ X / n + (1.0 - share) * alpha * np.eye(X.shape[1])
        best = oracles.enumerate_faces(H, X.T @ y / n, share * alpha, y @ y / (2 * n))[1]
        assert res.success
        assert abs(res.fun - best) <= 2e-11 * res.scale


def test_bounded_least_squares_are_the_best_of_all_faces(rng):
    for k in range(MANY):
        X, y = problem(rng)
        p = X.shape[1]
        lo, hi = (
            (0.0, np.inf) if k % 2 else (-rng.uniform(0, 1, size=p), rng.uniform(0, 1, size=p))
        )
        fit = bcd.nnls(X, y) if k % 2 else bcd.bvls(X, y, (lo, hi))
        best = oracles.enumerate_box(X.T @ X, X.T @ y, lo, hi)[1] + 0.5 * y @ y
        assert fit.success
        assert abs(fit.fun - best) <= 1e-9 * (y @ y)
