"""Several classes: against a slow and sure method, the logistic loss, and laws of symmetry."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import ConvergenceWarning, bcd, penalties
from solvers._core.backend import get_backend
from solvers.bcd import _block_model
from tests.bcd.oracles import Model, elastic, grouped


def drawn(seed, n=70, p=7, C=3, noise=0.7):
    """Design and classes that overlap, so that an optimum exists without a penalty."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + 0.5
    W = rng.standard_normal((p, C)) * (np.arange(p) < 4)[:, None]
    y = np.argmax(X @ W + noise * rng.standard_normal((n, C)) + np.arange(C), axis=1)
    return X, y


def penalty(name, alpha, p, C, weights=1.0):
    if name == "row":
        rows = np.arange(p * C).reshape(p, C)
        return grouped(rows, np.broadcast_to(alpha * weights, (p,)))
    return elastic(alpha * weights) if name == "l1" else elastic(0.0, alpha)


def excess(res, model, iterations=3000):
    """How far an answer is above the optimum, relative to the certificate's unit."""
    best = model.solve(iterations)[2]
    return (model.objective(np.asarray(res.x), res.intercept) - best) / res.scale


@pytest.mark.parametrize("name", ["l1", "row", "l2"])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_optimum_is_that_of_proximal_gradients(name, fit_intercept, alpha):
    X, y = drawn(1)
    res = bcd.multinomial(X, y, alpha, penalty=name, fit_intercept=fit_intercept, tol=1e-10)
    model = Model(X, y, "multinomial", penalty(name, alpha, 7, 3), fit_intercept=fit_intercept)
    assert res.success
    assert res.x.shape == (7, 3)
    assert abs(excess(res, model)) <= 2e-10
    assert res.fun == pytest.approx(model.objective(res.x, res.intercept), rel=1e-12)
    if fit_intercept:
        assert abs(res.intercept.sum()) <= 1e-12
    else:
        assert not res.intercept.any()


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_two_classes_are_the_logistic_model(fit_intercept):
    X, y = drawn(2, C=2)
    # Rows (w, -w) predict as w - (-w) = 2 w does, and cost sqrt(2) |w| by rows, 2 |w| in all.
    rows = bcd.multinomial(X, y, 0.02, penalty="row", fit_intercept=fit_intercept, tol=1e-11)
    plain = bcd.logistic(X, y, 0.02 / 2**0.5, fit_intercept=fit_intercept, tol=1e-11)
    np.testing.assert_allclose(rows.x[:, 1] - rows.x[:, 0], plain.x, atol=1e-4)
    np.testing.assert_allclose(rows.x.sum(axis=1), 0.0, atol=1e-9)
    assert rows.fun == pytest.approx(plain.fun, rel=1e-9)
    single = bcd.multinomial(X, y, 0.02, penalty="l1", fit_intercept=fit_intercept, tol=1e-11)
    same = bcd.logistic(X, y, 0.02, fit_intercept=fit_intercept, tol=1e-11)
    np.testing.assert_allclose(single.x[:, 1] - single.x[:, 0], same.x, atol=1e-4)
    np.testing.assert_allclose(
        single.intercept[1] - single.intercept[0] if fit_intercept else 0.0,
        same.intercept,
        atol=1e-4,
    )


@pytest.mark.parametrize("name", ["l1", "row", "l2"])
@pytest.mark.parametrize("method", ["bcd", "cd"])
def test_plain_descent_ends_where_the_fast_one_does(name, method):
    X, y = drawn(3)
    one, two = (
        bcd.multinomial(X, y, 0.02, penalty=name, fit_intercept=True, tol=1e-9, method=m)
        for m in ("auto", method)
    )
    assert two.success
    assert abs(one.fun - two.fun) <= 2e-9 * one.scale
    assert (np.diff(two.history["fun"]) <= 1e-12).all()


@pytest.mark.parametrize("name", ["l1", "row", "l2"])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("kind", ["c", "f", "csc", "float32"])
def test_layouts_and_both_models_agree(kind, columns, name, monkeypatch):
    if columns:
        monkeypatch.setattr(_block_model, "_LARGEST", 0)
    X, y = drawn(4, p=40)
    rng = np.random.default_rng(4)
    X = X * (rng.random(X.shape) < 0.04) if kind == "csc" else X
    given = {
        "c": np.ascontiguousarray,
        "f": np.asfortranarray,
        "csc": sp.csc_array,
        "float32": np.float32,
    }[kind](X)
    tol = 1e-6 if kind == "float32" else 1e-10
    target = y.astype(given.dtype)
    res = bcd.multinomial(given, target, 0.01, penalty=name, fit_intercept=True, tol=tol)
    other = bcd.multinomial(X.copy(), y, 0.01, penalty=name, fit_intercept=True, tol=1e-10)
    assert res.success
    assert res.x.dtype == res.intercept.dtype == given.dtype
    model = Model(X, y, "multinomial", penalty(name, 0.01, 40, 3), fit_intercept=True)
    assert model.objective(res.x, res.intercept) - other.fun <= 2 * tol * res.scale


def test_weights_of_features_rows_and_coefficients():
    X, y = drawn(5)
    rng = np.random.default_rng(5)
    by_feature, by_entry = rng.uniform(0.5, 2.0, 7), rng.uniform(0.5, 2.0, (7, 3))
    for name, weights, oracle in (
        ("l1", by_feature, by_feature[:, None]),
        ("l1", by_entry, by_entry),
        ("row", by_feature, by_feature),
        ("row", by_entry, np.sqrt((by_entry**2).mean(axis=1))),
    ):
        res = bcd.multinomial(X, y, 0.02, penalty=name, weights=weights, tol=1e-10)
        model = Model(X, y, "multinomial", penalty(name, 0.02, 7, 3, oracle))
        assert res.success
        assert excess(res, model) <= 2e-10


def test_sample_weights_are_repeated_rows():
    X, y = drawn(6)
    count = np.random.default_rng(6).integers(0, 3, len(y))
    rows = np.repeat(np.arange(len(y)), count)
    one = bcd.multinomial(X, y, 0.02, penalty="row", sample_weight=1.0 * count, tol=1e-12)
    two = bcd.multinomial(X[rows], y[rows], 0.02, penalty="row", tol=1e-12)
    np.testing.assert_allclose(one.x, two.x, atol=1e-5)


def test_names_of_classes_do_not_matter_but_their_order_does():
    X, y = drawn(7)
    names = np.array([7.5, -2.0, 3.0])
    one = bcd.multinomial(X, y, 0.02, penalty="row", fit_intercept=True, tol=1e-12)
    two = bcd.multinomial(X, names[y], 0.02, penalty="row", fit_intercept=True, tol=1e-12)
    assert two.classes.tolist() == [-2.0, 3.0, 7.5]
    np.testing.assert_allclose(two.x, one.x[:, [1, 2, 0]], atol=1e-5)
    np.testing.assert_allclose(two.intercept, one.intercept[[1, 2, 0]], atol=1e-5)


def test_rows_are_used_for_all_classes_or_for_none():
    X, y = drawn(8, n=120, p=30)
    res = bcd.multinomial(X, y, 0.05, penalty="row")
    used = (res.x != 0).any(axis=1)
    assert 0 < used.sum() < 30
    assert (res.x[used] != 0).all()
    assert res.support.tolist() == np.flatnonzero(used).tolist()


@pytest.mark.parametrize("name", ["l1", "row"])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_from_the_threshold_on_the_answer_is_zero(name, fit_intercept):
    X, y = drawn(9)
    top = bcd.alpha_max("multinomial", X, y, penalty=name, fit_intercept=fit_intercept)
    at, below = (
        bcd.multinomial(X, y, f * top, penalty=name, fit_intercept=fit_intercept)
        for f in (1.0 + 1e-9, 0.99)
    )
    assert at.nit == 0
    assert not at.x.any()
    assert below.x.any()
    if fit_intercept:
        share = np.exp(at.intercept) / np.exp(at.intercept).sum()
        np.testing.assert_allclose(share, np.bincount(y) / len(y), rtol=1e-9)


@pytest.mark.parametrize("name", ["l1", "row"])
def test_the_end_is_quadratic(name):
    X, y = drawn(10, n=200, p=12)
    res = bcd.multinomial(X, y, 0.01, penalty=name, tol=1e-13)
    assert res.success
    # A few working sets, each with a few Newton steps; sweeps alone would take hundreds.
    assert res.nit <= 6
    assert res.n_newton <= 60


def test_a_model_with_a_free_column_and_one_without_any_penalty():
    X, y = drawn(11, n=150, p=4)
    weights = np.array([0.0, 1.0, 1.0, 1.0])
    res = bcd.multinomial(X, y, 10.0, weights=weights, fit_intercept=True, tol=1e-8)
    free = Model(X[:, :1], y, "multinomial", elastic(), fit_intercept=True).solve(2000)
    assert res.success
    assert not res.x[1:].any()
    assert res.fun == pytest.approx(free[2], rel=1e-9)
    none = bcd.multinomial(X, y, 0.0, tol=1e-8)
    assert none.success
    assert none.fun == pytest.approx(Model(X, y, "multinomial", elastic()).solve(2000)[2])


def test_second_derivatives_of_sparse_columns_are_those_of_the_formula(rng):
    n, p, C = 30, 12, 3
    X = rng.standard_normal((n, p)) * (rng.random((n, p)) < 0.3)
    s, Q = rng.random(n), rng.dirichlet(np.ones(C), n)
    # In any order, and of some columns not all classes.
    S = rng.permutation(p * C)[:20]
    place = np.full((p, C), -1)
    place.reshape(-1)[S] = np.arange(20)
    bend = Q[:, :, None] * np.eye(C) - Q[:, :, None] * Q[:, None, :]
    want = np.einsum("i,ij,ikl,im->jkml", s, X, bend, X).reshape(p * C, p * C)[np.ix_(S, S)]
    H, rows = np.zeros((20, 20)), sp.csr_array(X)
    kernels = get_backend("numpy").kernels("solvers.bcd", "newton")
    kernels.softmax_gram(rows.indptr, rows.indices, rows.data, s, Q, place, H)
    np.testing.assert_allclose(H, want, atol=1e-14)


def test_warm_starts_and_callbacks():
    X, y = drawn(12)
    seen = []
    first = bcd.multinomial(X, y, 0.01, fit_intercept=True, tol=1e-10, callback=seen.append)
    assert len(seen) == first.nit
    assert seen[-1].x.shape == (7, 3)
    again = bcd.multinomial(X, y, 0.01, fit_intercept=True, tol=1e-9, x0=first)
    assert again.nit == 0
    shifted = first.x + np.ones((7, 1))
    other = bcd.multinomial(X, y, 0.01, fit_intercept=True, tol=1e-10, x0=shifted)
    assert abs(other.fun - first.fun) <= 2e-10 * first.scale


def test_extreme_and_degenerate_columns_do_no_harm():
    X, y = drawn(13, p=8)
    X[:, 1], X[:, 2], X[:, 3] = 0.0, 3.0, X[:, 4]
    X[:, 5] *= 1e6
    for name in ("l1", "row"):
        res = bcd.multinomial(X, y, 0.01, penalty=name, fit_intercept=True, tol=1e-9)
        assert res.success
        assert not res.x[1].any()
    separable = np.repeat(np.eye(3), 5, axis=0) * 1e4
    res = bcd.multinomial(separable, np.repeat([0, 1, 2], 5), 1.0, penalty="l1", tol=1e-9)
    assert res.success


def test_elastic_nets_and_groups_of_rows_for_several_classes():
    X, y = drawn(14)
    mixed = penalties.ElasticNet(0.02, 0.5)
    res = bcd.minimize(bcd.Problem(X, y, datafit="multinomial", penalty=mixed), tol=1e-10)
    assert res.success
    assert excess(res, Model(X, y, "multinomial", elastic(0.01, 0.01))) <= 2e-10
    pairs = penalties.GroupL2(0.01, [[0, 4], [1, 2]], 0.2)
    res = bcd.minimize(bcd.Problem(X, y, datafit="multinomial", penalty=pairs), tol=1e-10)
    entries = np.arange(21).reshape(7, 3)
    groups = [entries[[0, 4]], entries[[1, 2]], entries[[3]], entries[[5]], entries[[6]]]
    groups = [g.ravel() for g in groups]
    oracle = grouped(groups, [0.008 * g.size**0.5 for g in groups], 0.002)
    assert res.success
    assert excess(res, Model(X, y, "multinomial", oracle)) <= 2e-10


def test_an_early_end_is_honest():
    X, y = drawn(15, n=100, p=60)
    with pytest.warns(ConvergenceWarning):
        res = bcd.multinomial(X, y, 0.01, maxiter=1, tol=1e-10)
    best = bcd.multinomial(X, y, 0.01, tol=1e-12)
    assert not res.success
    assert 0 < res.fun - best.fun <= res.gap


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"penalty": "lasso"}, "penalty"),
        ({"alpha": -1.0}, "alpha"),
        ({"y": np.ones(9)}, "y"),
        ({"y": np.arange(8)}, "y"),
        ({"weights": np.ones(3)}, "weights"),
        ({"weights": -np.ones(4)}, "weights"),
        ({"method": "anderson"}, "method"),
        ({"penalty": "row", "selection": "gs"}, "partition"),
        ({"penalty": "l2", "weights": np.ones(4)}, "weights"),
        ({"x0": np.zeros(4)}, "x0"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, name):
    X = np.random.default_rng(0).standard_normal((9, 4))
    call = {"X": X, "y": np.arange(9) % 3, "alpha": 0.1, **options}
    with pytest.raises(ValueError, match=f"`{name}`"):
        bcd.multinomial(**call)
