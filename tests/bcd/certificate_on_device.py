"""The judge of coefficients on CuPy arrays; runs where `cupy` is the stand-in."""

from itertools import product

import cupy
import numpy as np
import pytest

from solvers import bcd, penalties

LOSSES = ("quadratic", "logistic", "multinomial", "huber", "squared_hinge", "poisson")
GROUPS = [[0, 1, 2], [3, 4]]
PENALTIES = {
    "l1": penalties.L1(0.1),
    "elastic": penalties.ElasticNet(0.1),
    "positive": penalties.PositiveL1(0.1),
    "l1 in a box": penalties.ElasticBox(0.1, 0.0, -0.2, 0.1),
    "box": penalties.Box(-0.5, 0.5),
    "groups": penalties.GroupL2(0.1, GROUPS, 0.5),
    "rows": penalties.RowL2(0.1),
    "lq": penalties.Lq(0.1),
    "none": None,
}


def data(rng, loss):
    X = rng.normal(size=(12, 5)) * (rng.random((12, 5)) < 0.6)
    y = np.arange(12) % (3 if loss == "multinomial" else 2)
    return X, rng.normal(size=12) if loss in ("quadratic", "huber") else y.astype(float)


def agree(found, expected):
    assert found.kind == expected.kind
    assert found.details.keys() == expected.details.keys()
    for key, value in expected.details.items():
        assert type(found.details[key]) in (int, float)
        assert found.details[key] == pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("loss", "name"), [pair for pair in product(LOSSES, PENALTIES) if pair != ("poisson", "lq")]
)
def test_the_verdict_is_that_on_the_host(rng, loss, name):
    X, y = data(rng, loss)
    s, weights = rng.uniform(1.0, 2.0, size=12), np.array([1.0, 2.0, 0.0, 1.0, 0.5])
    weights = weights if loss == "quadratic" and name in ("l1", "groups") else None
    found = []
    for to in (np.asarray, cupy.asarray):
        problem = bcd.Problem(
            to(X),
            to(y),
            datafit=loss,
            penalty=PENALTIES[name],
            sample_weight=to(s),
            weights=None if weights is None else to(weights),
            fit_intercept=True,
        )
        w = 0.1 * np.arange(np.prod(problem.model.shape)).reshape(problem.model.shape) % 0.3
        found.append(bcd.certify(problem, to(w)))
    agree(*found[::-1])


def test_single_precision_data_are_judged_on_the_device(rng):
    X, y = (part.astype(np.float32) for part in data(rng, "quadratic"))
    w = np.array([0.0, 0.1, 0.0, 0.0, -0.2])
    expected = bcd.certify(bcd.Problem(X, y, penalty=penalties.L1(0.1)), w)
    there = bcd.Problem(cupy.asarray(X), cupy.asarray(y), penalty=penalties.L1(0.1))
    agree(bcd.certify(there, cupy.asarray(w)), expected)


def test_quadratics_are_judged_on_the_device(rng):
    X, y = data(rng, "quadratic")
    A, b, x = X.T @ X, X.T @ y, rng.normal(size=5)
    expected = bcd.certify(bcd.Problem.quadratic(A, b, bounds=(-1, 1), l1=0.1), x)
    there = bcd.Problem.quadratic(cupy.asarray(A), cupy.asarray(b), bounds=(-1, 1), l1=0.1)
    agree(bcd.certify(there, cupy.asarray(x)), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_thresholds_are_those_on_the_host(rng, loss):
    X, y = data(rng, loss)
    weights = np.array([1.0, 2.0, 0.0, 1.0, 0.5])
    for options in ({}, {"fit_intercept": True}, {"penalty": "group", "groups": GROUPS}):
        expected = bcd.alpha_max(loss, X, y, **options)
        found = bcd.alpha_max(loss, cupy.asarray(X), cupy.asarray(y), **options)
        assert found == pytest.approx(expected, rel=1e-12)
    expected = bcd.alpha_max(loss, X, y, weights=weights)
    found = bcd.alpha_max(loss, cupy.asarray(X), cupy.asarray(y), weights=cupy.asarray(weights))
    assert found == pytest.approx(expected, rel=1e-9)
