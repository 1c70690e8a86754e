"""Squared losses: every layout, penalty and degenerate case ends at the optimum."""

import warnings

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

import solvers
from solvers import bcd, datasets, penalties
from solvers.bcd import _working_set

LAYOUTS = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "csc": sp.csc_array,
    "single": lambda X: X.astype(np.float32),
}
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@pytest.fixture
def data(rng):
    X = rng.normal(size=(30, 45)) * (rng.random((30, 45)) < 0.6)
    return X, X[:, :5] @ rng.normal(size=5) + 2.0 + 0.3 * rng.normal(size=30)


def violation(X, y, w, c=0.0, *, a=0.0, r=0.0, lo=-np.inf, hi=np.inf, s=None):
    """Distance to optimality of least squares with a penalty, relative to the slopes at zero."""
    s = np.full(y.size, 1.0 / y.size) if s is None else s / s.sum()
    g = X.T @ (s * (X @ w + c - y)) + r * w
    left = np.where(w <= lo, -np.inf, np.where(w > 0, a, -a))
    right = np.where(w >= hi, np.inf, np.where(w < 0, -a, a))
    off = np.maximum(np.maximum(-g - right, g + left), 0.0).max()
    return off / abs(X.T @ (s * y)).max()


def threshold(X, y):
    return abs(X.T @ y).max() / y.size


@each_layout
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_layout_and_option_is_optimal(data, rng, layout, fit_intercept, positive, weighted):
    X, y = data
    s = rng.integers(1, 4, y.size).astype(float) if weighted else None
    weights = rng.choice([0.5, 1.0, 2.0], X.shape[1]) if weighted else None
    a, sent = 0.05 * threshold(X, y), layout(X)
    y = y.astype(sent.dtype)
    single = sent.dtype == np.float32
    res = bcd.elastic_net(
        sent,
        y,
        a,
        l1_ratio=0.9,
        positive=positive,
        fit_intercept=fit_intercept,
        weights=weights if weights is None else weights.astype(y.dtype),
        sample_weight=s if s is None else s.astype(y.dtype),
    )
    assert res.success
    assert res.x.dtype == sent.dtype
    exact = 0.9 * a * (1.0 if weights is None else weights)
    lo = 0.0 if positive else -np.inf
    off = violation(X, y, res.x, res.intercept, a=exact, r=0.1 * a, lo=lo, s=s)
    assert off <= (1e-3 if single else 1e-5)


@pytest.mark.parametrize("ratio", [0.5, 0.05, 0.002])
def test_a_tight_tolerance_is_met(data, ratio):
    X, y = data
    a = ratio * threshold(X, y)
    res = bcd.lasso(X, y, a, tol=1e-13)
    assert res.success
    assert violation(X, y, res.x, a=a) <= 1e-9


def test_free_features_and_an_intercept_are_not_penalised(data):
    X, y = data
    weights = np.ones(X.shape[1])
    weights[:2] = 0.0
    a = 0.2 * threshold(X, y)
    res = bcd.lasso(X, y, a, weights=weights, fit_intercept=True)
    r = y - X @ res.x - res.intercept
    assert res.success
    assert_allclose(X[:, :2].T @ r / 30, 0.0, atol=1e-6)
    assert abs(r.mean()) <= 1e-12
    assert violation(X, y, res.x, res.intercept, a=a * weights) <= 1e-5


def test_the_strength_decides_between_nothing_and_everything(data):
    X, y = data
    largest = threshold(X, y)
    for a in (largest * (1 + 1e-9), np.inf):
        res = bcd.lasso(X, y, a)
        assert res.success
        assert res.nit == 0
        assert not res.x.any()
    assert bcd.lasso(X, y, 0.99 * largest).support.size == 1
    tall, target = X[:, :8], y
    for penalty in ({}, {"fit_intercept": True}):
        res = bcd.lasso(tall, target, 0.0, **penalty)
        columns = np.c_[tall, np.ones(30)] if penalty else tall
        want = np.linalg.lstsq(columns, target)[0]
        assert_allclose(res.x, want[:8], atol=1e-6)
    # More unknowns than equations: one of many exact fits.
    res = bcd.lasso(X, y, 0.0)
    assert res.success
    assert_allclose(X @ res.x, y, atol=1e-6)


def test_a_ridge_alone_has_a_closed_form(data):
    X, y = data
    res = bcd.elastic_net(X, y, 0.3, l1_ratio=0.0, tol=1e-12)
    want = np.linalg.solve(X.T @ X / 30 + 0.3 * np.eye(45), X.T @ y / 30)
    assert_allclose(res.x, want, atol=1e-5)


def test_degenerate_columns_do_no_harm(data):
    X, y = data
    a = 0.02 * threshold(X, y)
    want = bcd.lasso(X, y, a, tol=1e-11).fun
    twice = np.hstack([X, X, np.zeros((30, 2))])
    for form in (np.asarray, np.asfortranarray, sp.csc_array):
        res = bcd.lasso(form(twice), y, a, tol=1e-11)
        assert res.success
        assert_allclose(res.fun, want, rtol=1e-9)
        assert not res.x[90:].any()
    constant = np.hstack([X, np.full((30, 1), 7.0)])
    res = bcd.lasso(constant, y, a, fit_intercept=True)
    assert res.success
    assert res.x[-1] == 0.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
def test_the_smallest_problems_are_solved(rng, shape):
    X, y = rng.normal(size=shape), rng.normal(size=shape[0])
    a = 0.3 * threshold(X, y)
    res = bcd.lasso(X, y, a)
    assert res.success
    assert violation(X, y, res.x, a=a) <= 1e-6
    for target in (np.zeros(shape[0]), np.full(shape[0], 3.0)):
        assert bcd.lasso(X, target, 0.1, fit_intercept=True).success


@pytest.mark.parametrize("scale", [1e-120, 1e120])
def test_units_do_not_matter(data, scale):
    X, y = data
    a = 0.05 * threshold(X, y)
    want = bcd.lasso(X, y, a, tol=1e-12)
    targets = bcd.lasso(X, scale * y, scale * a, tol=1e-12)
    columns = bcd.lasso(scale * X, y, scale * a, tol=1e-12)
    assert_allclose(targets.x / scale, want.x, atol=1e-6)
    assert_allclose(columns.x * scale, want.x, atol=1e-6)


def test_nonnegative_least_squares_agree_with_scipy(rng):
    for n, p in ((40, 12), (12, 30), (60, 60)):
        A, b = abs(rng.normal(size=(n, p))), rng.normal(size=n) + 1.0
        for form in (np.asarray, np.asfortranarray, sp.csc_array):
            res = bcd.nnls(form(A), b)
            assert res.success
            assert (res.x >= 0).all()
            assert_allclose(np.sqrt(2 * res.fun), scipy.optimize.nnls(A, b)[1], rtol=1e-8)


def test_bounded_least_squares_agree_with_scipy(rng):
    A, b = rng.normal(size=(25, 40)), 3 * rng.normal(size=25)
    lo, hi = rng.uniform(-0.5, 0.1, 40), rng.uniform(0.1, 0.5, 40)
    res = bcd.bvls(A, b, (lo, hi))
    want = scipy.optimize.lsq_linear(A, b, (lo, hi), method="bvls", tol=1e-14)
    assert res.success
    assert ((lo <= res.x) & (res.x <= hi)).all()
    assert_allclose(res.fun, want.cost, rtol=1e-8)
    # Bounds that keep zero out, some of them infinite.
    lo, hi = np.full(40, 0.2), np.where(np.arange(40) < 20, 0.4, np.inf)
    res = bcd.bvls(A, b, (lo, hi))
    want = scipy.optimize.lsq_linear(A, b, (lo, hi), tol=1e-14)
    assert_allclose(res.fun, want.cost, rtol=1e-7)


def test_ill_conditioned_bounds_are_met(rng):
    A = rng.normal(size=(30, 20)) + 1e4
    res = bcd.bvls(A, rng.normal(size=30), (0.0, 0.5))
    assert res.success


def test_a_penalty_within_bounds_is_minimised(data):
    X, y = data
    a = 0.02 * threshold(X, y)
    penalty = penalties.ElasticBox(a, 0.1, -0.2, 0.3)
    res = bcd.minimize(bcd.Problem(X, y, penalty=penalty))
    assert res.success
    assert res.used["update"] == "prox_newton"
    assert violation(X, y, res.x, a=a, r=0.1, lo=-0.2, hi=0.3) <= 1e-5


def test_a_warm_start_takes_no_round_and_a_near_one_few(data):
    X, y = data
    a = 0.05 * threshold(X, y)
    first = bcd.lasso(X, y, a, tol=1e-10)
    assert first.nit > 1
    for start in (first, first.x, first.x + 0.0):
        assert bcd.lasso(X, y, a, x0=start).nit == 0
    near = bcd.lasso(X, y, 0.95 * a, x0=first)
    assert near.success
    assert near.nit <= 2
    assert bcd.lasso(X, y, a, x0=np.ones(45)).success
    # A start outside the bounds is moved into them.
    assert bcd.lasso(X, y, a, positive=True, x0=-np.ones(45)).success


def test_a_path_shares_what_the_penalty_does_not_change(data, monkeypatch):
    X, y = data
    alphas = threshold(X, y) * np.geomspace(1, 0.01, 20)
    made = []
    kind = _working_set._WorkingSet
    monkeypatch.setattr(
        _working_set, "_WorkingSet", lambda squares: made.append(kind(squares)) or made[-1]
    )
    for front, options in ((bcd.lasso, {}), (bcd.elastic_net, {"l1_ratio": 0.5})):
        made.clear()
        path = bcd.path(front, X, y, alphas=alphas, tol=1e-10, **options)
        assert path.certificate.holds
        assert len(made) == 1
        for a, w in zip(path.alphas, path.coefs, strict=True):
            cold = front(X, y, a, tol=1e-12, **options)
            assert_allclose(w, cold.x, atol=1e-4)


@pytest.mark.parametrize("n", range(6, 42, 2))
def test_columns_in_play_survive_any_growth_of_their_room(n):
    # Room for n rows of length n once looked like a Gram matrix: in 4 of these 18 cases.
    rng = np.random.default_rng(n)
    X, y = rng.standard_normal((n, 20)), rng.standard_normal(n)
    assert bcd.path(bcd.lasso, X, y, alphas=30, eps=1e-2).success


def test_a_heavy_column_is_counted_before_its_products(rng):
    # A few features in every sample, many in hardly any: as in text.
    share = np.where(np.arange(400) < 100, 0.9, 0.005)
    X = rng.random((300, 400)) * (rng.random((300, 400)) < share)
    y = X[:, :6].sum(axis=1) - X[:, 101] + 0.1 * rng.normal(size=300)
    a = 0.01 * threshold(X, y)
    res = bcd.lasso(sp.csc_array(X), y, a)
    assert res.success
    assert violation(X, y, res.x, a=a) <= 1e-5
    assert res.active_set.size < 400


def test_the_run_tells_what_it_did(data):
    X, y = data
    seen = []
    res = bcd.lasso(X, y, 0.02 * threshold(X, y), callback=lambda r: seen.append(r.nit))
    assert seen == list(range(1, res.nit + 1))
    assert res.n_newton >= 1
    assert res.npass >= res.nit
    assert set(res.support) <= set(res.active_set)
    assert res.used["selection"] == "gsq"
    assert res.history["block"][-1] == res.active_set.size
    assert res.history["value"][-1] <= 1e-8


@pytest.mark.parametrize("sparse", [False, True])
def test_columns_that_nearly_violate_save_a_round(sparse):
    problem = (datasets.text_like if sparse else datasets.autoregressive)(400, 4000, rng=0)
    alpha = 0.5 * threshold(problem.X, problem.y)
    res = bcd.lasso(problem.X, problem.y, alpha)
    assert res.success
    assert res.nit == 1
    assert res.support.size < res.active_set.size <= 100


def test_an_early_end_says_so(data):
    X, y = data
    with pytest.warns(solvers.ConvergenceWarning):
        res = bcd.lasso(X, y, 0.002 * threshold(X, y), maxiter=1, tol=1e-300)
    assert res.status == solvers.Status.MAXITER
    assert np.isfinite(res.x).all()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        res = bcd.lasso(X, y, 0.05 * threshold(X, y), tol=1e-300)
    assert len(seen) == 1
    assert res.status == solvers.Status.STALLED
    assert res.nit < 50
    assert violation(X, y, res.x, a=0.05 * threshold(X, y)) <= 1e-10


def test_nothing_of_the_callers_is_changed(data):
    X, y = data
    kept = X.copy(), y.copy()
    for given in (X, np.asfortranarray(X)):
        given.flags.writeable = False
        bcd.lasso(given, y, 0.1, fit_intercept=True)
        assert_array_equal(given, kept[0])
    assert_array_equal(y, kept[1])


@pytest.mark.parametrize(
    ("call", "kind", "name"),
    [
        (lambda X, y: bcd.lasso(X, y, -1.0), ValueError, "alpha"),
        (lambda X, y: bcd.lasso(X, y, "much"), TypeError, "alpha"),
        (lambda X, y: bcd.lasso(X, y, 0.1, positive=2), TypeError, "positive"),
        (lambda X, y: bcd.lasso(X, y, 0.1, weights=-np.ones(45)), ValueError, "weights"),
        (lambda X, y: bcd.lasso(X, y, 0.1, method="newton"), ValueError, "method"),
        (lambda X, y: bcd.elastic_net(X, y, 0.1, l1_ratio=1.5), ValueError, "l1_ratio"),
        (lambda X, y: bcd.elastic_net(X, y, 0.1, l1_ratio=None), TypeError, "l1_ratio"),
        (lambda X, y: bcd.nnls(X, y[:-1]), ValueError, "b"),
        (lambda X, y: bcd.bvls(X, y, (1.0, 0.0)), ValueError, "bounds"),
        (lambda X, y: bcd.bvls(X, y, 1.0), TypeError, "bounds"),
    ],
)
def test_a_wrong_argument_is_named(data, call, kind, name):
    with pytest.raises(kind, match=f"^`{name}`"):
        call(*data)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@each_layout
def test_numbers_that_are_none_are_found_in_the_first_pass(data, layout, bad):
    X, y = data
    X[3, 4] = bad
    for weights in (None, np.where(np.arange(30) == 3, 0.0, 1.0)):
        with pytest.raises(ValueError, match=r"^`X` contains"):
            bcd.lasso(layout(X), y.astype(layout(X).dtype), 0.1, sample_weight=weights)
    with pytest.raises(ValueError, match=r"^`A` contains"):
        bcd.nnls(layout(X), y.astype(layout(X).dtype))


def test_large_numbers_are_no_infinities(data):
    X, y = data
    X[:, 7] *= 1e200
    assert bcd.Problem(X, y).model.moments[0][7] == np.inf
