"""The dual of support vector machines: gaps by hand, SciPy, and invariances."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import minimize

from solvers import ConvergenceWarning, Status, bcd

rng0 = np.random.default_rng(7)
X = rng0.standard_normal((60, 4))
Y = np.where(X[:, 0] + 0.7 * rng0.standard_normal(60) > 0, 1.0, -1.0)
C = 0.5


def gap(K, x, C=C, y=Y):
    """Objective of the machine plus that of its dual, both by hand."""
    f = y * (K @ (y * x))
    return x @ f + C * np.maximum(1.0 - f, 0.0).sum() - x.sum()


def gaussian(gamma):
    return np.exp(-gamma * ((X[:, None] - X[None]) ** 2).sum(-1))


@pytest.mark.parametrize("method", ["auto", "cd", "bcd"])
@pytest.mark.parametrize("kernel", ["linear", "rbf", "precomputed"])
def test_the_gap_is_closed_by_every_method(method, kernel):
    gamma = 1.0 / (4 * X.var())
    K = X @ X.T if kernel == "linear" else gaussian(gamma)
    data = K if kernel == "precomputed" else X
    res = bcd.svm_dual(data, Y, C, kernel=kernel, method=method, tol=1e-10)
    assert res.success
    assert res.x.min() >= 0
    assert res.x.max() <= C
    assert -1e-10 <= gap(K, res.x) <= 1.01e-10 * C * 60
    assert res.gap == pytest.approx(gap(K, res.x), abs=1e-11)
    assert res.fun - res.dual_fun == pytest.approx(res.gap, abs=1e-12)
    Q = Y[:, None] * K * Y
    want = minimize(
        lambda x: (0.5 * x @ Q @ x - x.sum(), Q @ x - 1.0),
        np.zeros(60),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, C)] * 60,
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000},
    )
    assert res.fun <= want.fun + 1e-8


def test_the_normal_is_that_of_the_linear_kernel_only():
    res = bcd.svm_dual(X, Y, C)
    np.testing.assert_allclose(res.coef, X.T @ (Y * res.x), atol=1e-12)
    assert bcd.svm_dual(X, Y, C, kernel="rbf").coef is None
    assert np.mean(np.sign(X @ res.coef) == Y) > 0.75


@pytest.mark.parametrize("data", [sp.csr_array(X), sp.csc_matrix(X), np.asfortranarray(X)])
def test_layouts_agree(data):
    want = bcd.svm_dual(X, Y, C, tol=1e-11)
    for method in ("cd", "bcd"):
        res = bcd.svm_dual(data, Y, C, method=method, tol=1e-11)
        np.testing.assert_allclose(res.coef, want.coef, atol=1e-6)
        assert res.fun == pytest.approx(want.fun, abs=1e-9)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_single_precision(kernel):
    res = bcd.svm_dual(X.astype(np.float32), Y.astype(np.float32), C, kernel=kernel)
    assert res.success
    assert res.x.dtype == np.float32


def test_labels_are_any_two():
    want = bcd.svm_dual(X, Y, C)
    for low, high in ((0, 1), (-3.5, 2.0), (False, True)):
        res = bcd.svm_dual(X, np.where(Y > 0, high, low), C)
        np.testing.assert_array_equal(res.x, want.x)
    for wrong in (np.zeros(60), np.arange(60.0)):
        with pytest.raises(ValueError, match="`y` holds"):
            bcd.svm_dual(X, wrong, C)


def test_gamma_is_of_the_gaussian_kernel():
    for gamma in (0.1, 2.0):
        res = bcd.svm_dual(X, Y, C, kernel="rbf", gamma=gamma, tol=1e-10)
        assert gap(gaussian(gamma), res.x) <= 1.01e-10 * C * 60
    with pytest.raises(ValueError, match="`gamma`"):
        bcd.svm_dual(X, Y, C, gamma=1.0)
    with pytest.raises(ValueError, match="`gamma`"):
        bcd.svm_dual(X, Y, C, kernel="rbf", gamma=-1.0)


def test_a_sample_of_zeros_pays_the_full_price():
    data = X.copy()
    data[3] = 0.0
    res = bcd.svm_dual(data, Y, C)
    assert res.success
    assert res.x[3] == C


def test_separable_samples_have_the_widest_margin():
    # Two points at distance 2: the margin is their perpendicular bisector's.
    res = bcd.svm_dual(np.array([[1.0, 0.0], [-1.0, 0.0], [5.0, 5.0]]), [1, -1, 1], 100.0)
    np.testing.assert_allclose(res.coef, [1.0, 0.0], atol=1e-4)
    assert res.x[2] == 0


def test_shuffles_are_the_same_each_time_unless_asked_for():
    def run(seed, **rules):
        with pytest.warns(ConvergenceWarning):
            return bcd.svm_dual(X, Y, C, **rules, rng=seed, maxiter=3, tol=1e-14).x

    one, two = (run(seed) for seed in (0, 1))
    rules = {"method": "cd", "selection": "random"}
    three, four, five = (run(seed, **rules) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(three, four)
    assert (three != five).any()


def test_shrinking_loses_nothing():
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((300, 20)) + np.repeat([[1.0], [-1.0]], 150, axis=0)
    y = np.repeat([1.0, -1.0], 150)
    for price in (1e-3, 1.0, 100.0):
        res = bcd.svm_dual(wide, y, price, tol=1e-9)
        assert res.success
        assert gap(wide @ wide.T, res.x, price, y) <= 1.01e-9 * price * 300
        # Samples out of sight cost nothing.
        assert res.n_blocks < 300 * res.nit or res.nit < 3


def test_early_ends_are_honest():
    with pytest.warns(ConvergenceWarning):
        res = bcd.svm_dual(X, Y, C, maxiter=1, tol=1e-14)
    assert res.status is Status.MAXITER
    assert res.nit == 1
    seen = []
    res = bcd.svm_dual(X, Y, C, callback=lambda r: seen.append(r.x) or True, tol=1e-14)
    assert res.status is Status.CALLBACK
    np.testing.assert_array_equal(seen[-1], res.x)
    assert bcd.svm_dual(X, Y, C, x0=bcd.svm_dual(X, Y, C)).nit == 0


BAD = [
    ((X[0], Y, C), {}, ValueError, "X_or_K"),
    ((X, Y[:-1], C), {}, ValueError, "y"),
    ((X, Y, -1.0), {}, ValueError, "C"),
    ((X, Y, "1"), {}, TypeError, "C"),
    ((X, Y, C), {"kernel": "poly"}, ValueError, "kernel"),
    ((X, Y, C), {"kernel": "precomputed"}, ValueError, "X_or_K"),
    ((X @ X.T + np.triu(np.ones((60, 60)), 1), Y, C), {"kernel": "precomputed"}, ValueError,
     "X_or_K"),
    ((sp.csr_array(X), Y, C), {"kernel": "rbf"}, TypeError, "X_or_K"),
    ((X, Y, C), {"method": "lars"}, ValueError, "method"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "options", "kind", "name"), BAD)
def test_wrong_arguments_are_named(data, options, kind, name):
    with pytest.raises(kind, match=f"`{name}`"):
        bcd.svm_dual(*data, **options)


def test_free_multipliers_are_solved_for_together_where_sweeps_take_long():
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((300, 50))
    y = np.sign(wide[:, 0] + 0.5 * rng.standard_normal(300))
    res = bcd.svm_dual(wide, y, 0.3, tol=1e-11)
    assert res.used == {"method": "cd, active_set"}
    assert res.success
    assert gap(wide @ wide.T, res.x, 0.3, y) <= 1.01e-11 * 0.3 * 300
    assert res.nit < 230
