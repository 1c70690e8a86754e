import math

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import bcd, penalties
from tests.bcd import oracles

LOSSES = tuple(oracles.LOSSES)


def data(rng, loss, n=20, p=6):
    X = rng.normal(size=(n, p))
    z = X @ rng.normal(size=p) / 2
    y = {
        "quadratic": z + 1,
        "huber": 3 * z + 1,
        "poisson": rng.poisson(np.exp(z)).astype(float),
        "multinomial": np.r_[0, 1, 2, np.digitize(z[3:], (-0.5, 0.5))],
    }.get(loss, np.r_[-1.0, 1.0, np.sign(z[2:] + 0.2)])
    return X, y


def null_gradient(model):
    """The gradient by all coefficients where the best ones are zero."""
    lone = oracles.Model(
        0 * model.X, model.y, model.loss, oracles.elastic(), model.s, model.fit_intercept
    )
    c = lone.solve()[1] if model.fit_intercept else 0.0
    return model.smooth(np.zeros(model.shape), c)[1]


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_the_dual_norm_of_the_gradient_at_zero(rng, loss, fit_intercept):
    X, y = data(rng, loss)
    s, weights = rng.uniform(0.5, 2.0, size=20), rng.uniform(0.5, 2.0, size=6)
    model = oracles.Model(X, y, loss, oracles.elastic(), s, fit_intercept)
    g = null_gradient(model)
    by_row = weights.reshape(6, *[1] * (g.ndim - 1))
    options = {"sample_weight": s, "weights": weights, "fit_intercept": fit_intercept}
    find = lambda **more: bcd.alpha_max(loss, X, y, **options, **more)  # noqa: E731
    largest = abs(g / by_row).max()
    assert find() == pytest.approx(largest, rel=1e-9)
    assert find(penalty="mcp") == find(penalty="scad") == find()
    assert find(penalty="enet", l1_ratio=0.2) == pytest.approx(find() / 0.2, rel=1e-14)
    assert find(penalty="enet") == pytest.approx(2 * find(), rel=1e-14)
    positive = max((-g / by_row).max(), 0.0)
    assert find(penalty="positive") == pytest.approx(positive, rel=1e-9)
    rows = np.sqrt((g**2).reshape(6, -1).sum(axis=1)) / weights
    assert find(penalty="row") == pytest.approx(rows.max(), rel=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("loss", ["quadratic", "logistic", "multinomial"])
def test_groups_leave_zero_exactly_below_it(rng, loss, share):
    X, y = data(rng, loss)
    groups = [[0, 3], [1, 2, 5]]
    at = bcd.alpha_max(loss, X, y, penalty="group", groups=groups, l1_ratio=share)
    if share == 0.0:
        assert at == bcd.alpha_max(loss, X, y, penalty="group", groups=groups)
        assert at == bcd.alpha_max(loss, X, y, penalty="group", groups=[0, 1, 1, 0, 2, 1])
    problem = {}
    for factor in (1 - 1e-6, 1 + 1e-12):
        penalty = penalties.GroupL2(factor * at, groups, share)
        problem[factor < 1] = bcd.Problem(X, y, datafit=loss, penalty=penalty)
    zero = np.zeros(problem[True].model.shape)
    assert bcd.certify(problem[False], zero, tol=1e-13).holds
    assert bcd.certify(problem[False], zero).details["kkt"] == 0.0
    assert bcd.certify(problem[True], zero).details["kkt"] > 0.0


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_unpenalised_features_are_fitted_first(rng, loss, fit_intercept):
    X, y = data(rng, loss)
    weights = np.array([1.0, 0.0, 2.0, 0.0, 0.5, 1.0])
    at = bcd.alpha_max(loss, X, y, weights=weights, fit_intercept=fit_intercept)
    model = oracles.Model(X[:, [1, 3]], y, loss, oracles.elastic(), None, fit_intercept)
    w, c, _ = model.solve()
    full = np.zeros((6, *w.shape[1:]))
    full[[1, 3]] = w
    g = oracles.Model(X, y, loss, oracles.elastic()).smooth(full, c)[1]
    penalised = weights > 0
    by_row = weights[penalised].reshape(4, *[1] * (g.ndim - 1))
    assert at == pytest.approx(abs(g[penalised] / by_row).max(), rel=1e-6)


def test_every_layout_and_precision_has_the_same_threshold(rng):
    X, y = data(rng, "quadratic")
    at = bcd.alpha_max("quadratic", X, y)
    assert at == pytest.approx(abs(X.T @ y).max() / 20, rel=1e-14)
    for other in (np.asfortranarray(X), sp.csc_array(X), sp.csr_matrix(X), X.tolist()):
        assert bcd.alpha_max("quadratic", other, y) == pytest.approx(at, rel=1e-14)
    single = bcd.alpha_max("quadratic", X.astype(np.float32), y.astype(np.float32))
    assert isinstance(single, float)
    assert single == pytest.approx(at, rel=1e-6)


def test_extremes_are_zero_or_infinity(rng):
    X, y = data(rng, "quadratic")
    assert bcd.alpha_max("quadratic", X, 0 * y) == 0.0
    assert bcd.alpha_max("quadratic", X, y, penalty="enet", l1_ratio=0.0) == math.inf
    assert bcd.alpha_max("quadratic", X, 0 * y, penalty="enet", l1_ratio=0.0) == 0.0
    assert bcd.alpha_max("quadratic", abs(X), -abs(y), penalty="positive") == 0.0
    assert bcd.alpha_max("quadratic", X, y, weights=np.zeros(6)) == 0.0


@pytest.mark.parametrize(
    ("options", "kind", "name"),
    [
        ({"datafit": "nonsense"}, ValueError, "datafit"),
        ({"datafit": 3}, TypeError, "datafit"),
        ({"X": np.ones(3)}, ValueError, "X"),
        ({"y": np.ones(3)}, ValueError, "y"),
        ({"penalty": "nonsense"}, ValueError, "penalty"),
        ({"penalty": 3}, TypeError, "penalty"),
        ({"penalty": "group"}, ValueError, "groups"),
        ({"groups": [0, 0, 1, 1, 2, 2]}, ValueError, "groups"),
        ({"l1_ratio": 0.5}, ValueError, "l1_ratio"),
        ({"penalty": "enet", "l1_ratio": 1.5}, ValueError, "l1_ratio"),
        ({"penalty": "enet", "l1_ratio": "half"}, TypeError, "l1_ratio"),
        ({"fit_intercept": 1}, TypeError, "fit_intercept"),
        ({"sample_weight": -np.ones(20)}, ValueError, "sample_weight"),
        ({"weights": np.ones(5)}, ValueError, "weights"),
    ],
)
def test_wrong_arguments_are_named(rng, options, kind, name):
    X, y = data(rng, "quadratic")
    arguments = {"datafit": "quadratic", "X": X, "y": y, **options}
    with pytest.raises(kind, match=f"^`{name}`"):
        bcd.alpha_max(**arguments)
