"""Penalties of groups: against closed forms, a slow and sure method, and laws of symmetry."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import ConvergenceWarning, bcd, penalties
from solvers._core.backend import get_backend
from solvers.bcd import _block_model
from solvers.bcd._groups import read_groups
from solvers.bcd._problem import pose
from tests.bcd.oracles import Model, accelerated, grouped


def planted(seed, n=40, sizes=(3, 1, 4, 2, 3, 5, 2), noise=0.3):
    """Design, target, labels and index lists of groups that are no intervals."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    X = rng.standard_normal((n, labels.size))
    w = rng.standard_normal(labels.size) * (labels % 3 == 0)
    y = X @ w + noise * rng.standard_normal(n)
    return X, y, labels, [np.flatnonzero(labels == g) for g in range(len(sizes))]


def largest_alpha(X, y, lists):
    """The alpha from which whole groups are zero, for equal weights and no intercept."""
    g = X.T @ y / len(y)
    return max(np.linalg.norm(g[k]) / len(k) ** 0.5 for k in lists)


def reference(X, y, alpha, lists, l1_ratio=0.0, **options):
    """Optimal value by accelerated proximal gradients."""
    l2 = [alpha * (1 - l1_ratio) * len(k) ** 0.5 for k in lists]
    return Model(X, y, "quadratic", grouped(lists, l2, alpha * l1_ratio), **options)


@pytest.mark.parametrize("l1_ratio", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.02])
def test_the_optimum_is_that_of_proximal_gradients(l1_ratio, fit_intercept, share):
    X, y, labels, lists = planted(1)
    y = y + 3.0 * fit_intercept
    alpha = share * largest_alpha(X, y - y.mean(), lists)
    res = bcd.group_lasso(
        X, y, alpha, labels, l1_ratio=l1_ratio, fit_intercept=fit_intercept, tol=1e-11
    )
    model = reference(X, y, alpha, lists, l1_ratio, fit_intercept=fit_intercept)
    w, c, best = model.solve()
    assert res.success
    assert model.objective(res.x, res.intercept) - best <= 2e-11 * res.scale
    assert res.fun == pytest.approx(model.objective(res.x, res.intercept), rel=1e-12)
    np.testing.assert_allclose(res.x, w, atol=1e-5)
    np.testing.assert_allclose(res.intercept, c, atol=1e-5)


@pytest.mark.parametrize("l1_ratio", [0.0, 0.4])
def test_an_orthonormal_design_has_a_closed_form(l1_ratio):
    rng = np.random.default_rng(2)
    n, alpha = 12, 0.05
    X = np.linalg.qr(rng.standard_normal((n, n)))[0] * n**0.5
    y, lists = rng.standard_normal(n), [[0, 1, 2], [3, 4], [5, 6, 7, 8], [9], [10, 11]]
    v = X.T @ y / n
    v = np.sign(v) * np.maximum(abs(v) - alpha * l1_ratio, 0.0)
    for k in lists:
        size = np.linalg.norm(v[k])
        v[k] *= max(1.0 - alpha * (1 - l1_ratio) * len(k) ** 0.5 / size, 0.0) if size else 0.0
    res = bcd.group_lasso(X, y, alpha, lists, l1_ratio=l1_ratio, tol=1e-13)
    np.testing.assert_allclose(res.x, v, atol=1e-6)
    assert set(res.support) == set(np.flatnonzero(v))


@pytest.mark.parametrize("loss", ["logistic", "huber", "squared_hinge", "poisson"])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_every_loss_takes_groups(loss, fit_intercept):
    X, y, labels, lists = planted(3, n=50)
    y = {
        "logistic": np.where(y > 0.3, 1.0, -1.0),
        "squared_hinge": np.where(y > 0.3, 1.0, -1.0),
        "huber": y + 10.0 * (np.arange(50) % 9 == 0),
        "poisson": np.floor(np.exp(0.2 * y)),
    }[loss]
    alpha = 0.03
    problem = bcd.Problem(
        X,
        y,
        datafit=loss,
        penalty=penalties.GroupL2(alpha, labels, 0.2),
        fit_intercept=fit_intercept,
    )
    res = bcd.minimize(problem, tol=1e-9)
    penalty = grouped(lists, [0.8 * alpha * len(k) ** 0.5 for k in lists], 0.2 * alpha)
    model = Model(X, y, loss, penalty, fit_intercept=fit_intercept)
    best = model.solve(4000)[2]
    assert res.success
    assert abs(model.objective(res.x, res.intercept) - best) <= 1e-8 * max(res.scale, best)


@pytest.mark.parametrize("method", ["bcd", "cd"])
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
def test_plain_descent_ends_where_the_fast_one_does(method, l1_ratio):
    X, y, labels, lists = planted(4)
    alpha = 0.1 * largest_alpha(X, y, lists)
    call = X, y + 1.0, alpha, labels
    options = {"l1_ratio": l1_ratio, "fit_intercept": True, "tol": 1e-10}
    one, two = (bcd.group_lasso(*call, method=m, **options) for m in ("auto", method))
    assert two.success
    np.testing.assert_allclose(two.x, one.x, atol=1e-5)
    assert (np.diff(two.history["fun"]) <= 1e-13).all()
    assert two.used["selection"] == {"bcd": "gsq", "cd": "cyclic"}[method]


def test_groups_of_one_make_a_lasso():
    X, y, *_ = planted(5)
    p = X.shape[1]
    alpha = 0.1 * abs(X.T @ y).max() / len(y)
    lasso = bcd.lasso(X, y, alpha, tol=1e-12)
    for groups, l1_ratio in ((np.arange(p), 0.0), (np.zeros(p), 1.0), ([[3]], 0.0)):
        res = bcd.group_lasso(X, y, alpha, groups, l1_ratio=l1_ratio, tol=1e-12)
        np.testing.assert_allclose(res.x, lasso.x, atol=1e-6)


def test_any_labels_and_any_order_name_the_same_groups():
    X, y, labels, lists = planted(6)
    alpha = 0.1 * largest_alpha(X, y, lists)
    expected = bcd.group_lasso(X, y, alpha, labels, tol=1e-12).x
    same = [lists, [k[::-1] for k in lists[::-1]], [k.tolist() for k in lists], labels[::1] - 3.5]
    without_the_single = [k for k in lists if len(k) > 1]
    for groups in (*same, without_the_single, labels.astype(np.int8), labels.tolist()):
        res = bcd.group_lasso(X, y, alpha, groups, tol=1e-12)
        np.testing.assert_allclose(res.x, expected, atol=1e-7)


def test_weights_scale_columns_and_norms():
    X, y, labels, lists = planted(7)
    rng = np.random.default_rng(7)
    alpha = 0.1 * largest_alpha(X, y, lists)
    weights = rng.uniform(0.5, 2.0, X.shape[1])
    res = bcd.group_lasso(X, y, alpha, labels, l1_ratio=0.3, weights=weights, tol=1e-11)
    l2 = [0.7 * alpha * np.linalg.norm(weights[k]) for k in lists]
    model = Model(X, y, "quadratic", grouped(lists, l2, 0.3 * alpha * weights))
    assert res.success
    assert abs(model.objective(res.x) - model.solve()[2]) <= 1e-10 * res.scale


def test_a_group_of_weight_zero_is_free():
    X, y, labels, lists = planted(8)
    alpha = 2.0 * largest_alpha(X, y, lists)
    weights = np.where(labels == 2, 0.0, 1.0)
    res = bcd.group_lasso(X, y, alpha, labels, weights=weights, tol=1e-10)
    expected = np.linalg.lstsq(X[:, lists[2]], y, rcond=None)[0]
    assert res.success
    np.testing.assert_allclose(res.x[lists[2]], expected, atol=1e-6)
    assert not res.x[labels != 2].any()


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("kind", ["c", "f", "csc", "csr", "float32"])
def test_layouts_and_both_models_agree(kind, columns, monkeypatch):
    if columns:
        monkeypatch.setattr(_block_model, "_LARGEST", 0)
    rng = np.random.default_rng(9)
    X, y, labels, lists = planted(9)
    X = X * (rng.random(X.shape) < 0.04 if "cs" in kind else 1.0) + 0.0
    X[0] = 1.0
    given = {
        "c": np.ascontiguousarray,
        "f": np.asfortranarray,
        "csc": sp.csc_array,
        "csr": sp.csr_matrix,
        "float32": np.float32,
    }[kind](X)
    alpha = 0.1 * largest_alpha(X, y, lists)
    tol = 1e-6 if kind == "float32" else 1e-11
    target = y.astype(given.dtype)
    res = bcd.group_lasso(given, target, alpha, labels, l1_ratio=0.2, fit_intercept=True, tol=tol)
    model = reference(X, y, alpha, lists, 0.2, fit_intercept=True)
    assert res.success
    assert res.x.dtype == given.dtype
    assert abs(model.objective(res.x, res.intercept) - model.solve()[2]) <= 2 * tol * res.scale


def test_sample_weights_are_repeated_rows():
    X, y, labels, lists = planted(10)
    count = np.random.default_rng(10).integers(0, 3, len(y))
    rows = np.repeat(np.arange(len(y)), count)
    alpha = 0.1 * largest_alpha(X, y, lists)
    one = bcd.group_lasso(X, y, alpha, labels, sample_weight=1.0 * count, tol=1e-12)
    two = bcd.group_lasso(X[rows], y[rows], alpha, labels, tol=1e-12)
    np.testing.assert_allclose(one.x, two.x, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_rotating_the_columns_of_a_group_rotates_its_coefficients(seed):
    X, y, labels, lists = planted(seed)
    turned, rng = X.copy(), np.random.default_rng(seed)
    alpha, turns = 0.1 * largest_alpha(X, y, lists), {}
    for k in map(tuple, lists):
        turns[k] = np.linalg.qr(rng.standard_normal((len(k), len(k))))[0]
        turned[:, k] = X[:, k] @ turns[k]
    one, two = (bcd.group_lasso(A, y, alpha, labels, tol=1e-12) for A in (X, turned))
    for k, Q in turns.items():
        np.testing.assert_allclose(Q @ two.x[list(k)], one.x[list(k)], atol=1e-5)


def test_from_the_threshold_on_the_answer_is_zero():
    X, y, labels, lists = planted(11)
    top = bcd.alpha_max("quadratic", X, y, penalty="group", groups=labels, l1_ratio=0.0)
    assert top == pytest.approx(largest_alpha(X, y, lists), rel=1e-12)
    at, below = (bcd.group_lasso(X, y, f * top, labels) for f in (1.0 + 1e-12, 0.99))
    assert at.nit == 0
    assert at.support.size == 0
    assert below.support.size > 0
    assert bcd.group_lasso(X, y, np.inf, labels).support.size == 0


def test_a_warm_start_at_the_optimum_ends_at_once():
    X, y, labels, lists = planted(12)
    alpha = 0.05 * largest_alpha(X, y, lists)
    first = bcd.group_lasso(X, y, alpha, labels, fit_intercept=True, tol=1e-10)
    for x0 in (first, first.x):
        again = bcd.group_lasso(X, y, alpha, labels, fit_intercept=True, tol=1e-9, x0=x0)
        assert again.nit == 0
        assert again.success


def test_degenerate_columns_do_no_harm():
    X, y, labels, lists = planted(13)
    X[:, lists[0]] = 0.0
    X[:, lists[2][0]] = 2.0
    X[:, lists[5]] = X[:, lists[5][:1]]
    for alpha in (0.5, 0.01, 1e-4):
        res = bcd.group_lasso(X, y, alpha, labels, fit_intercept=True, tol=1e-9)
        assert res.success
        assert not res.x[lists[0]].any()


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e8, 1e140])
def test_the_unit_of_the_target_does_not_matter(scale):
    X, y, labels, lists = planted(14)
    alpha = 0.1 * largest_alpha(X, y, lists)
    one, two = (bcd.group_lasso(X, f * y, f * alpha, labels) for f in (1.0, scale))
    assert two.success
    np.testing.assert_allclose(two.x / scale, one.x, rtol=1e-6, atol=1e-9)


def test_early_ends_are_honest():
    X, y, labels, lists = planted(15, n=200, sizes=(4,) * 60)
    alpha = 0.01 * largest_alpha(X, y, lists)
    with pytest.warns(ConvergenceWarning):
        res = bcd.group_lasso(X, y, alpha, labels, maxiter=1)
    assert not res.success
    best = bcd.group_lasso(X, y, alpha, labels, tol=1e-11)
    assert 0 < res.fun - best.fun <= res.gap
    assert (np.diff(best.history["fun"]) <= 0).all()


@pytest.mark.parametrize(
    ("groups", "kind"),
    [
        ([[0, 1], [1, 2]], ValueError),
        ([[0, 8]], ValueError),
        ([[-1, 0]], ValueError),
        ([[0, 1], []], ValueError),
        ([0, 1, 2], ValueError),
        ([[0.0, 1.0]], TypeError),
        ("labels", TypeError),
        (None, TypeError),
        ([0, 0, 0, 0, 1, 1, 1, np.nan], ValueError),
    ],
)
def test_bad_groups_are_refused_by_name(groups, kind):
    with pytest.raises(kind, match=r"^`groups`"):
        bcd.group_lasso(np.eye(8), np.ones(8), 0.1, groups)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"l1_ratio": -0.1}, "l1_ratio"),
        ({"l1_ratio": 1.1}, "l1_ratio"),
        ({"alpha": -1.0}, "alpha"),
        ({"weights": -np.ones(8)}, "weights"),
        ({"method": "anderson"}, "method"),
        ({"partition": "order"}, "partition"),
    ],
)
def test_bad_options_are_refused_by_name(options, name):
    call = {"alpha": 0.1, "groups": [[0, 1]], **options}
    with pytest.raises(ValueError, match=f"`{name}`"):
        bcd.group_lasso(np.eye(8), np.ones(8), **call)


def test_a_penalty_of_groups_is_read_as_written():
    class Door:
        be, xp = get_backend("numpy"), np

    weights = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    penalty = penalties.GroupL2(2.0, [[3, 0], [4]], 0.25)
    _, groups = read_groups(Door, penalty, (5,), weights)
    assert groups.ptr.tolist() == [0, 2, 3, 4, 5]
    assert groups.idx.tolist() == [3, 0, 4, 1, 2]
    np.testing.assert_allclose(groups.l1, 0.5 * weights[groups.idx])
    np.testing.assert_allclose(groups.l2, [1.5 * 17**0.5, 7.5, 3.0, 4.5])
    w = np.array([1.0, -2.0, 0.0, 3.0, 0.5])
    by_hand = 0.5 * (1 + 4 + 12 + 2.5) + 1.5 * (17 * 10) ** 0.5 + 7.5 * 0.5 + 3.0 * 2.0
    assert groups.value(w) == pytest.approx(by_hand)


def test_groups_of_a_model_with_classes_are_of_rows():
    X, y = np.random.default_rng(0).standard_normal((9, 4)), np.arange(9) % 3
    model = pose(X, y, "multinomial", penalties.GroupL2(1.0, [0, 1, 0, 1]))
    assert model.groups.idx.tolist() == [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]
    np.testing.assert_allclose(model.groups.l2, 6**0.5)


def test_the_slow_method_itself_is_right():
    # With one group and an orthonormal design: shrink the least-squares solution.
    X, y = 2.0 * np.eye(4), np.array([2.0, 0.0, 0.0, 4.0])
    model = Model(X, y, "quadratic", grouped([[0, 1, 2, 3]], [0.5]))
    w, _, _ = accelerated(model, 1.0, (np.zeros(4), np.zeros(())), 500)
    v = X.T @ y / 4
    np.testing.assert_allclose(w, v * (1 - 0.5 / np.linalg.norm(v)), atol=1e-9)
