"""Losses other than squares and penalties that are not convex, against formulas and gradients."""

import math
import warnings
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose
from scipy.optimize import minimize as scipy_minimize
from scipy.special import expit

from solvers import ConvergenceWarning, Status, bcd, losses, penalties
from solvers._core.backend import get_backend


def correlated(rng, n, p, rho=0.6, k=6, noise=0.4):
    """A design with neighbours alike, and targets of a few of its columns."""
    X = rng.standard_normal((n, p))
    for j in range(1, p):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho * rho) * X[:, j]
    w = np.zeros(p)
    w[rng.choice(p, min(k, p), replace=False)] = 1.0 + rng.random(min(k, p))
    z = X @ w
    return X, z + noise * z.std() * rng.standard_normal(n)


def soft(v, t):
    return np.sign(v) * np.maximum(np.abs(v) - t, 0)


# Value and slope by z of each loss, in plain NumPy.
PLAIN = {
    "logistic": (lambda y, z: np.logaddexp(0, -y * z), lambda y, z: -y * expit(-y * z)),
    "huber": (
        lambda y, z: np.where(
            abs(z - y) > 1.35, 1.35 * abs(z - y) - 1.35**2 / 2, (z - y) ** 2 / 2
        ),
        lambda y, z: np.clip(z - y, -1.35, 1.35),
    ),
    "squared_hinge": (
        lambda y, z: np.maximum(1 - y * z, 0) ** 2 / 2,
        lambda y, z: -y * np.maximum(1 - y * z, 0),
    ),
    "poisson": (lambda y, z: np.exp(z) - y * z, lambda y, z: np.exp(z) - y),
}


def case(name, rng, n=90, p=40):
    X, y = correlated(rng, n, p)
    if name in ("logistic", "squared_hinge"):
        y = np.where(y > 0.3, 1.0, -1.0)
    elif name == "poisson":
        y = rng.poisson(np.exp(0.5 * y / y.std())).astype(float)
    return X, y


def solve(problem, **options):
    """What the fronts call, for losses that have none."""
    return bcd.minimize(problem, **options)


each_loss = pytest.mark.parametrize("name", PLAIN)


@each_loss
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("ratio", [0.5, 0.02])
def test_l1_optima_pass_the_subgradient_test(name, intercept, ratio, rng):
    X, y = case(name, rng)
    slope, n = PLAIN[name][1], len(y)
    alpha = ratio * abs(X.T @ slope(y, np.zeros(n)) / n).max()
    problem = bcd.Problem(X, y, datafit=name, penalty=penalties.L1(alpha), fit_intercept=intercept)
    res = solve(problem, tol=1e-12)
    assert res.success
    r = slope(y, X @ res.x + res.intercept) / n
    g = X.T @ r
    on = res.x != 0
    assert abs(g[on] + alpha * np.sign(res.x[on])).max(initial=0) < 1e-5 * alpha
    assert abs(g[~on]).max(initial=0) < alpha * (1 + 1e-5)
    assert abs(r.sum()) < (1e-9 if intercept else np.inf)
    assert 0 < on.sum() < X.shape[1]
    value = PLAIN[name][0](y, X @ res.x + res.intercept).mean() + alpha * abs(res.x).sum()
    assert_allclose(res.fun, value, rtol=1e-12)


@each_loss
def test_ridge_optima_are_scipys(name, rng):
    X, y = case(name, rng, p=6)
    value, slope = PLAIN[name]
    alpha, n = 0.1, len(y)

    def objective(v):
        z = X @ v[:-1] + v[-1]
        r = slope(y, z) / n
        gradient = np.append(X.T @ r + alpha * v[:-1], r.sum())
        return value(y, z).mean() + alpha / 2 * (v[:-1] @ v[:-1]), gradient

    best = scipy_minimize(objective, np.zeros(7), jac=True, method="BFGS", tol=1e-9)
    problem = bcd.Problem(X, y, datafit=name, penalty=penalties.L2(alpha), fit_intercept=True)
    res = solve(problem, tol=1e-12)
    assert_allclose(np.append(res.x, res.intercept), best.x, atol=1e-5)
    assert -1e-11 < res.fun - best.fun < 1e-11


@pytest.mark.parametrize("kind", [np.asfortranarray, sp.csc_array, sp.csr_matrix], ids=repr)
def test_every_layout_gives_the_same(kind, rng):
    X, y = case("logistic", rng)
    X[abs(X) < 0.4] = 0.0
    want = bcd.logistic(X, y, 0.01, fit_intercept=True, tol=1e-12)
    got = bcd.logistic(kind(X), y, 0.01, fit_intercept=True, tol=1e-12)
    assert_allclose(got.x, want.x, atol=1e-5)
    assert_allclose([got.fun, got.intercept], [want.fun, want.intercept], atol=1e-5)


def test_single_precision_stays_and_is_certified(rng):
    X, y = case("logistic", rng)
    res = bcd.logistic(X.astype(np.float32), y.astype(np.float32), 0.02)
    assert res.success
    assert res.x.dtype == np.float32
    assert_allclose(res.fun, bcd.logistic(X, y, 0.02).fun, rtol=2e-6)


def test_weights_are_copies_of_samples_and_scales_of_features(rng):
    X, y = case("logistic", rng)
    count = rng.integers(0, 3, len(y))
    rows = np.repeat(np.arange(len(y)), count)
    one = bcd.logistic(X, y, 0.02, sample_weight=count, fit_intercept=True, tol=1e-12)
    two = bcd.logistic(X[rows], y[rows], 0.02, fit_intercept=True, tol=1e-12)
    assert_allclose(one.x, two.x, atol=1e-6)
    scale = 10.0 ** rng.uniform(-3, 3, X.shape[1])
    three = bcd.logistic(X * scale, y, 0.02, weights=scale, tol=1e-12)
    assert_allclose(three.x * scale, bcd.logistic(X, y, 0.02, tol=1e-12).x, atol=1e-5)


def test_free_features_are_not_penalised(rng):
    X, y = case("logistic", rng, p=10)
    weights = np.ones(10)
    weights[3] = 0.0
    res = bcd.logistic(X, y, 1.0, weights=weights)
    assert res.success
    r = PLAIN["logistic"][1](y, X @ res.x) / len(y)
    assert abs(X[:, 3] @ r) < 1e-8
    assert res.support.tolist() == [3]


def test_labels_are_any_two_values(rng):
    X, y = case("logistic", rng)
    want = bcd.logistic(X, y, 0.02)
    got = bcd.logistic(X, np.where(y > 0, 7, 3), 0.02)
    assert_allclose(got.x, want.x)
    assert got.classes.tolist() == [3, 7]


def test_the_gap_falls_quadratically_at_the_end(rng):
    X, y = case("logistic", rng, n=200, p=8)
    alpha = 0.02
    # All coefficients are in the first working set, so each round ends at the optimum; look at
    # Newton steps one by one through a limit on their number.
    want = bcd.logistic(X, y, alpha, tol=1e-14)
    gaps = []
    from solvers.bcd import _prox_newton

    steps = _prox_newton._STEPS
    try:
        for count in range(1, 9):
            _prox_newton._STEPS = count
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                res = bcd.logistic(X, y, alpha, tol=1e-14, maxiter=1)
            gaps.append(max(res.fun - want.fun, 1e-17))
    finally:
        _prox_newton._STEPS = steps
    digits = -np.log10(gaps)
    seen = [k for k in range(1, 8) if 2 < digits[k] < 15.5 and digits[k] > digits[k - 1] + 0.5]
    assert seen
    last = seen[-1]
    assert digits[last] >= min(1.8 * digits[last - 1], 15)


# No penalty.


def test_without_a_penalty_newton_finds_the_minimum(rng):
    X, y = case("logistic", rng, p=5)
    res = bcd.logistic(X, y, 0.0, fit_intercept=True)
    assert res.success
    r = PLAIN["logistic"][1](y, X @ res.x + res.intercept) / len(y)
    assert abs(X.T @ r).max() < 1e-8
    assert_allclose(bcd.logistic(X, y, 1.0, penalty=None, fit_intercept=True).x, res.x)


def test_separable_classes_have_no_minimiser(rng):
    X = rng.standard_normal((40, 5))
    y = np.sign(X[:, 0])
    with pytest.warns(ConvergenceWarning, match="separated"):
        res = bcd.logistic(X, y, 0.0)
    assert res.status == Status.UNBOUNDED
    assert not res.success
    assert np.isfinite(res.x).all()
    assert bcd.logistic(X, y, 1e-3).success


# Huber.


def test_outliers_hardly_move_a_robust_fit(rng):
    X, y = correlated(rng, 120, 10, noise=0.05)
    clean = bcd.huber(X, y, 0.01, delta=0.5)
    spoilt = y.copy()
    spoilt[:12] += 1e6
    res = bcd.huber(X, spoilt, 0.01, delta=0.5)
    assert res.success
    assert abs(res.x - clean.x).max() < 0.5


def test_a_wide_huber_loss_is_squares(rng):
    X, y = correlated(rng, 60, 20)
    got = bcd.huber(X, y, 0.05, delta=1e4, fit_intercept=True, tol=1e-12)
    want = bcd.lasso(X, y, 0.05, fit_intercept=True, tol=1e-12)
    assert_allclose(got.x, want.x, atol=1e-6)


def test_targets_far_from_zero_are_reached(rng):
    X, y = correlated(rng, 60, 5)
    res = bcd.huber(X, y + 1e5, 0.05, fit_intercept=True)
    assert res.success
    assert_allclose(res.x, bcd.huber(X, y, 0.05, fit_intercept=True).x, atol=1e-4)


# Penalties that are not convex.


def stationarity(name, alpha, gamma, w, g):
    size = abs(w)
    if name == "mcp":
        slope = np.maximum(alpha - size / gamma, 0)
    else:
        slope = np.where(size <= alpha, alpha, np.maximum(gamma * alpha - size, 0) / (gamma - 1))
    return np.where(w != 0, abs(g + slope * np.sign(w)), np.maximum(abs(g) - alpha, 0)).max()


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize(("name", "gamma"), [("mcp", 3.0), ("scad", 3.7)])
def test_concave_penalties_reach_stationary_points(name, gamma, intercept, rng):
    X, y = correlated(rng, 100, 150, rho=0.3)
    X /= X.std(axis=0)
    n = len(y)
    alpha = 0.1 * abs(X.T @ (y - y.mean())).max() / n
    res = bcd.sparse_regression(X, y + 5 * intercept, alpha, penalty=name, fit_intercept=intercept)
    assert res.success
    r = (X @ res.x + res.intercept - y - 5 * intercept) / n
    assert stationarity(name, alpha, gamma, res.x, X.T @ r) < 1e-7 * alpha
    assert abs(r.sum()) < (1e-10 if intercept else np.inf)
    assert 0 < res.support.size < 60


@pytest.mark.parametrize("name", ["mcp", "scad"])
def test_concave_penalties_work_with_the_logistic_loss(name, rng):
    X, y = case("logistic", rng, n=150, p=60)
    X /= X.std(axis=0)
    gamma = {"mcp": 12.0, "scad": 14.8}[name]
    res = bcd.logistic(X, y, 0.02, penalty=name, gamma=gamma, tol=1e-10)
    assert res.success
    g = X.T @ PLAIN["logistic"][1](y, X @ res.x) / len(y)
    assert stationarity(name, 0.02, gamma, res.x, g) < 1e-9
    assert_allclose(bcd.logistic(X, y, 0.02, penalty=name, tol=1e-10).x, res.x)


@pytest.mark.parametrize("q", [0.3, 0.5, 0.8])
def test_powers_reach_fixed_points_of_the_proximal_map(q, rng):
    X, y = correlated(rng, 80, 60, rho=0.3)
    X /= np.sqrt((X**2).mean(axis=0))
    n, alpha = len(y), 0.5
    res = bcd.sparse_regression(X, y, alpha, penalty="lq", q=q)
    assert res.success
    v = res.x - X.T @ (X @ res.x - y) / n
    grid = np.linspace(-8, 8, 160_001)
    cost = alpha * abs(grid) ** q
    for vj, wj in zip(v, res.x, strict=True):
        here = alpha * abs(wj) ** q + (wj - vj) ** 2 / 2
        assert here <= (cost + (grid - vj) ** 2 / 2).min() + 1e-8
    assert 0 < res.support.size < 60


def test_a_concave_penalty_finds_the_planted_support_without_shrinking(rng):
    X = rng.standard_normal((200, 100))
    w = np.zeros(100)
    w[[3, 50, 77]] = [2.0, -3.0, 1.5]
    y = X @ w + 0.1 * rng.standard_normal(200)
    res = bcd.sparse_regression(X, y, 0.2)
    assert res.support.tolist() == [3, 50, 77]
    least = np.linalg.lstsq(X[:, res.support], y, rcond=None)[0]
    assert_allclose(res.x[res.support], least, atol=1e-7)


# Penalties and losses of users, as the documentation of `penalties` and `losses` shows them.


class CappedL1(NamedTuple):
    alpha: float
    cap: float


def capped_value(penalty, w, j):
    return penalty.alpha[j] * min(abs(w), penalty.cap[j])


def capped_prox(penalty, v, step, j):
    a, cap, size = penalty.alpha[j], penalty.cap[j], abs(v)
    inner = min(max(size - step * a, 0.0), cap)
    outer = max(size, cap)
    inside = a * inner + (inner - size) ** 2 / (2.0 * step)
    outside = a * cap + (outer - size) ** 2 / (2.0 * step)
    return math.copysign(inner if inside <= outside else outer, v)


def capped_distance(penalty, w, g, j):
    if w == 0.0:
        return max(abs(g) - penalty.alpha[j], 0.0)
    return abs(g + math.copysign(penalty.alpha[j] if abs(w) < penalty.cap[j] else 0.0, w))


class Quantile(NamedTuple):
    tau: float
    width: float


def quantile_derivative(loss, y, z):
    return min(max((z - y) / loss.width, -loss.tau), 1.0 - loss.tau)


def quantile_value(loss, y, z):
    d = min(max((z - y) / loss.width, -loss.tau), 1.0 - loss.tau)
    return d * (z - y) - 0.5 * loss.width * d * d


def quantile_curvature(loss, y, z):
    inside = -loss.tau < (z - y) / loss.width < 1.0 - loss.tau
    return 1.0 / loss.width if inside else 0.0


@pytest.fixture(scope="module", autouse=True)
def users():
    penalties.register(CappedL1, value=capped_value, prox=capped_prox, distance=capped_distance)
    losses.register(
        Quantile,
        value=quantile_value,
        derivative=quantile_derivative,
        curvature=quantile_curvature,
    )


def test_the_examples_of_the_documentation_are_what_is_tested_here():
    for module, parts in (
        (penalties, (capped_value, capped_prox, capped_distance)),
        (losses, (quantile_value, quantile_derivative, quantile_curvature)),
    ):
        text = "\n".join(line.strip() for line in module.__doc__.splitlines())
        for part in parts:
            code = part.__code__
            for line in _source(code)[1:]:
                assert line.strip() in text


def _source(code):
    import inspect

    return [line for line in inspect.getsource(code).splitlines() if line.strip()]


def test_a_users_penalty_is_solved_by_sweeps(rng):
    X, y = correlated(rng, 80, 30, rho=0.3)
    X /= np.sqrt((X**2).mean(axis=0))
    alpha, cap = 0.1, 0.5
    res = solve(bcd.Problem(X, y, penalty=CappedL1(alpha, cap)))
    assert res.success
    g = X.T @ (X @ res.x - y) / len(y)
    slope = np.where(abs(res.x) < cap, alpha, 0.0) * np.sign(res.x)
    assert np.where(res.x != 0, abs(g + slope), np.maximum(abs(g) - alpha, 0)).max() < 1e-7
    large = abs(res.x) > cap
    assert large.any()
    assert abs(g[large]).max() < 1e-7


def test_a_users_loss_is_minimised(rng):
    X, y = correlated(rng, 150, 4)
    tau = 0.8
    problem = bcd.Problem(
        X, y, datafit=Quantile(tau, 0.01), penalty=penalties.L1(1e-3), fit_intercept=True
    )
    res = solve(problem)
    assert res.success
    below = np.mean(y < X @ res.x + res.intercept)
    assert abs(below - tau) < 0.05


# Ends and errors.


def test_alpha_beyond_its_largest_value_gives_zeros_at_once(rng):
    X, y = case("logistic", rng)
    for alpha in (bcd.alpha_max("logistic", X, y) * (1 + 1e-12), math.inf):
        res = bcd.logistic(X, y, alpha)
        assert res.success
        assert res.nit == 0
        assert not res.x.any()


def test_a_solution_is_where_it_starts(rng):
    X, y = case("logistic", rng)
    first = bcd.logistic(X, y, 0.01, fit_intercept=True)
    for start in (first, first.x):
        assert bcd.logistic(X, y, 0.01, fit_intercept=True, x0=start).nit <= 1


def test_constant_and_twin_columns_do_no_harm(rng):
    X, y = case("logistic", rng, p=15)
    want = bcd.logistic(X, y, 0.01, fit_intercept=True, tol=1e-10).fun
    twice = np.hstack([X, X, np.zeros((len(y), 2)), np.ones((len(y), 1))])
    res = bcd.logistic(twice, y, 0.01, fit_intercept=True, tol=1e-10)
    assert res.success
    assert_allclose(res.fun, want, rtol=1e-8)


@pytest.mark.parametrize("scale", [1e-150, 1e-6, 1e6, 1e150])
def test_units_of_columns_do_not_matter(scale, rng):
    X, y = case("logistic", rng)
    want = bcd.logistic(X, y, 0.01, tol=1e-10)
    got = bcd.logistic(scale * X, y, scale * 0.01, tol=1e-10)
    assert got.success
    assert_allclose(scale * got.x, want.x, atol=1e-5)


def test_a_limit_of_one_round_is_honest(rng):
    X, y = case("logistic", rng, n=100, p=400)
    with pytest.warns(ConvergenceWarning, match="maxiter = 1"):
        res = bcd.logistic(X, y, 0.005, maxiter=1)
    assert res.status == Status.MAXITER
    assert not res.success
    assert res.gap > 0


BAD = [
    ("logistic", {"alpha": -1.0}, ValueError, "alpha"),
    ("logistic", {"alpha": math.nan}, ValueError, "alpha"),
    ("logistic", {"alpha": "1"}, TypeError, "alpha"),
    ("logistic", {"y": np.arange(20.0)}, ValueError, "y"),
    ("logistic", {"y": np.ones(20)}, ValueError, "y"),
    ("logistic", {"penalty": "l0"}, ValueError, "penalty"),
    ("logistic", {"penalty": 1.0}, TypeError, "penalty"),
    ("logistic", {"penalty": "enet", "l1_ratio": 2.0}, ValueError, "l1_ratio"),
    ("logistic", {"penalty": "enet", "l1_ratio": "2"}, TypeError, "l1_ratio"),
    ("logistic", {"l1_ratio": 0.5}, ValueError, "l1_ratio"),
    ("logistic", {"gamma": 3.0}, ValueError, "gamma"),
    ("logistic", {"groups": [0, 0, 1]}, ValueError, "groups"),
    ("logistic", {"penalty": "group"}, TypeError, "groups"),
    ("logistic", {"penalty": "mcp", "gamma": 1.0}, ValueError, "gamma"),
    ("logistic", {"penalty": "mcp", "gamma": "3"}, TypeError, "gamma"),
    ("logistic", {"penalty": "mcp", "gamma": 0.5, "alpha": 0.0}, ValueError, "gamma"),
    ("huber", {"delta": 0.0}, ValueError, "delta"),
    ("huber", {"delta": None}, TypeError, "delta"),
    ("huber", {"y": np.ones(19)}, ValueError, "y"),
    ("sparse_regression", {"penalty": "l1"}, ValueError, "penalty"),
    ("sparse_regression", {"gamma": 0.5}, ValueError, "gamma"),
    ("sparse_regression", {"penalty": "scad", "gamma": 1.9}, ValueError, "gamma"),
    ("sparse_regression", {"penalty": "lq", "q": 1.0}, ValueError, "q"),
    ("sparse_regression", {"penalty": "lq", "q": 0.0}, ValueError, "q"),
    ("sparse_regression", {"penalty": "lq", "q": "half"}, TypeError, "q"),
]


@pytest.mark.parametrize(("front", "changes", "kind", "word"), BAD, ids=repr)
def test_wrong_arguments_are_named(front, changes, kind, word, rng):
    X = rng.standard_normal((20, 3))
    y = np.sign(rng.standard_normal(20))
    arguments = {"X": X, "y": y, "alpha": 0.1, **changes}
    with pytest.raises(kind, match=f"^`{word}` "):
        getattr(bcd, front)(**arguments)


def test_a_concave_penalty_needs_a_loss_of_bounded_curvature():
    with pytest.raises(ValueError, match=r"^`penalty` .* no bound"):
        bcd.Problem(np.eye(3), np.ones(3), datafit="poisson", penalty=penalties.MCP(0.1))


@pytest.mark.parametrize("first", [0, 3, 7])
def test_weighted_products_of_sparse_columns_are_those_of_dense_ones(first, rng):
    X = rng.standard_normal((30, 12)) * (rng.random((30, 12)) < 0.3)
    D, S = rng.random(30), np.array([5, 2, 9, 0, 11, 3, 8, 1])
    place = np.full(12, -1)
    place[S] = np.arange(8)
    want = X[:, S].T @ (D[:, None] * X[:, S])
    H = want.copy()
    H[:, first:] = 0.0
    rows = sp.csr_array(X)
    kernels = get_backend("numpy").kernels("solvers.bcd", "newton")
    kernels.weighted_gram(rows.indptr, rows.indices, rows.data, D, place, first, H)
    assert_allclose(H, want, atol=1e-14)


def test_options_of_penalties_have_effects(rng):
    X, y = case("logistic", rng, p=12)
    X /= X.std(axis=0)
    fits = [
        bcd.logistic(X, y, 0.15, penalty="enet"),
        bcd.logistic(X, y, 0.15, penalty="enet", l1_ratio=0.9),
        bcd.logistic(X, y, 0.15, penalty="l2"),
        bcd.logistic(X, y, 0.15, penalty="mcp", gamma=6.0),
        bcd.logistic(X, y, 0.15, penalty="mcp", gamma=20.0),
        bcd.logistic(X, y, 0.15, penalty="scad"),
        bcd.logistic(X, y, 0.15, penalty="group", groups=np.arange(12) // 3),
        bcd.logistic(X, y, 0.15, penalty="group", groups=np.arange(12) // 3, l1_ratio=0.5),
    ]
    assert all(res.success for res in fits)
    for k, one in enumerate(fits):
        for two in fits[:k]:
            assert abs(one.x - two.x).max() > 1e-4
