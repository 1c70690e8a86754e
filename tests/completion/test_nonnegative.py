"""Non-negative factors: KKT conditions by dense formulas, SciPy's NNLS, scikit-learn's NMF."""

import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn.decomposition import NMF

import solvers
from solvers import Status
from solvers._core.backend import get_backend
from solvers.completion import alternating_minimization
from solvers.completion._mixing import Mixing


def planted(seed, shape=(40, 34), rank=3, share=0.5, noise=0.05):
    """Triples of a non-negative matrix of low rank, and the matrix."""
    rng, (m, n) = np.random.default_rng(seed), shape
    X = rng.random((m, rank)) @ rng.random((rank, n))
    rows, cols = np.nonzero(rng.random(shape) < share)
    return (rows, cols, X[rows, cols] + noise * rng.standard_normal(rows.size)), X


def dense(res):
    return (res.U * res.s) @ res.V.T


def halves(data, W, shape):
    """The matrix and the weights of the entries, zero elsewhere."""
    rows, cols, vals = data
    M, weights = np.zeros(shape), np.zeros(shape)
    M[rows, cols], weights[rows, cols] = vals, W
    return M, weights


def kkt_residual(res, M, W, row_ridge, col_ridge):
    """How far a projected step along each unknown goes, relative to the factors."""
    A, B = res.factors()
    square = 0.0
    R = W * (A @ B.T - M)
    for F, other, S, T, ridge in ((A, B, R, W, row_ridge), (B, A, R.T, W.T, col_ridge)):
        D = T @ other**2 + ridge
        square += np.square(np.minimum(F, (S @ other + ridge * F) / np.where(D > 0, D, 1.0))).sum()
    return np.sqrt(square / ((A**2).sum() + (B**2).sum()))


def objective(M, W, A, B, row_ridge, col_ridge):
    ridge = (row_ridge * A**2).sum() + (col_ridge * B**2).sum()
    return 0.5 * (W * (A @ B.T - M) ** 2).sum() + 0.5 * ridge


@pytest.mark.parametrize("lam", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_answers_satisfy_the_kkt_conditions(lam, weighted):
    data, X = planted(1)
    W = np.random.default_rng(2).uniform(0.3, 3.0, data[2].size) if weighted else None
    res = alternating_minimization(
        data, 3, shape=X.shape, lam=lam, weights=W, nonnegative=True, tol=1e-8, maxiter=3000, rng=0
    )
    assert res.success
    assert min(res.U.min(), res.V.min()) >= 0
    np.testing.assert_allclose([np.linalg.norm(F, axis=0) for F in (res.U, res.V)], 1.0)
    M, W = halves(data, 1.0 if W is None else W, X.shape)
    assert kkt_residual(res, M, W, lam, lam) < 2e-8
    assert res.fun == pytest.approx(objective(M, W, *res.factors(), lam, lam), rel=1e-9)
    assert np.linalg.norm(dense(res) - X) < 0.2 * np.linalg.norm(X)


def test_each_factor_is_the_best_for_the_other_by_scipy():
    data, X = planted(3)
    rows, cols, vals = data
    res = alternating_minimization(
        data, 3, shape=X.shape, lam=0.2, nonnegative=True, tol=1e-10, maxiter=3000, rng=0
    )
    A, B = res.factors()
    for i in range(0, 40, 5):
        design = np.concatenate([B[cols[rows == i]], np.sqrt(0.2) * np.eye(3)])
        best, _ = nnls(design, np.concatenate([vals[rows == i], np.zeros(3)]))
        np.testing.assert_allclose(A[i], best, atol=1e-8)


def test_rows_that_count_differently_are_balanced_as_they_count():
    data, X = planted(4)
    res = alternating_minimization(
        data, 3, shape=X.shape, lam=0.02, weighted_lambda=True, nonnegative=True, tol=1e-9,
        maxiter=3000, rng=0,
    )  # fmt: skip
    M, W = halves(data, 1.0, X.shape)
    d, e = (0.02 * W.sum(axis=axis)[:, None] for axis in (1, 0))
    # The factors of smallest penalty have columns of equal penalty.
    A, B = res.factors()
    a, b = (d * A**2).sum(axis=0), (e * B**2).sum(axis=0)
    A, B = A * (b / a) ** 0.25, B * (a / b) ** 0.25
    assert res.fun == pytest.approx(objective(M, W, A, B, d, e), rel=1e-9)
    R = W * (A @ B.T - M)
    for F, G in ((A, R @ B + d * A), (B, R.T @ A + e * B)):
        assert abs(np.minimum(F, G)).max() < 1e-6


def test_full_data_is_fitted_as_well_as_by_scikit_learn(rng):
    X = rng.random((25, 4)) @ rng.random((4, 18)) + 0.1 * rng.random((25, 18))
    model = NMF(4, init="random", solver="cd", tol=1e-10, max_iter=4000, random_state=0)
    W = model.fit_transform(X)
    theirs = 0.5 * np.square(W @ model.components_ - X).sum()
    ours = min(
        alternating_minimization(
            X, 4, nonnegative=True, init=init, tol=1e-7, maxiter=4000, rng=seed
        ).fun
        for init, seed in (("svd", 0), ("random", 1), ("random", 2))
    )
    assert ours <= theirs * (1 + 1e-4)


def test_where_the_best_fit_is_nonnegative_the_constraint_changes_nothing(rng):
    X = (1.0 + rng.random((20, 1))) @ (1.0 + rng.random((1, 15))) + 0.01 * rng.random((20, 15))
    U, s, Vt = np.linalg.svd(X)
    res = alternating_minimization(X, 1, nonnegative=True, tol=1e-10, rng=0)
    np.testing.assert_allclose(dense(res), s[0] * np.outer(U[:, 0], Vt[0]), rtol=1e-8)


def test_exact_data_is_fitted_exactly():
    data, X = planted(5, noise=0.0, share=0.7)
    res = alternating_minimization(
        data, 3, shape=X.shape, nonnegative=True, tol=1e-6, maxiter=3000, rng=0
    )
    assert res.success
    assert np.linalg.norm(dense(res) - X) < 1e-4 * np.linalg.norm(X)


def test_the_objective_never_rises():
    data, X = planted(6)
    res = alternating_minimization(
        data, 3, shape=X.shape, lam=0.05, nonnegative=True, tol=1e-10, maxiter=1000, rng=0
    )
    fun = res.history["objective"]
    assert fun.size > 20
    assert np.all(np.diff(fun) <= 1e-13 * fun[0])


def test_mixed_sweeps_need_far_fewer_than_plain_ones(monkeypatch):
    data, X = planted(6)
    options = {"shape": X.shape, "lam": 0.05, "nonnegative": True, "tol": 1e-7, "rng": 0}
    res = alternating_minimization(data, 3, **options)
    monkeypatch.setattr(Mixing, "__call__", lambda self, x, image: image.copy())
    plain = alternating_minimization(data, 3, maxiter=5000, **options)
    assert 3 * res.nit < plain.nit


def test_implicit_feedback_has_nonnegative_factors_too(rng):
    R = rng.poisson(0.7, (20, 15)).astype(float)
    rows, cols = np.nonzero(R)
    res = alternating_minimization(
        (rows, cols, R[rows, cols]), 3, shape=R.shape, implicit=True, alpha=2.0, lam=0.5,
        nonnegative=True, tol=1e-9, maxiter=3000, rng=0,
    )  # fmt: skip
    assert min(res.U.min(), res.V.min()) >= 0
    W, M = 1.0 + 2.0 * R, (R > 0) * 1.0
    assert kkt_residual(res, M, W, 0.5, 0.5) < 1e-8
    assert res.fun == pytest.approx(objective(M, W, *res.factors(), 0.5, 0.5), rel=1e-9)


def test_transposed_data_give_the_transposed_matrix():
    (rows, cols, vals), X = planted(7)
    options = {"lam": 0.3, "nonnegative": True, "tol": 1e-10, "maxiter": 3000, "rng": 0}
    one = alternating_minimization((rows, cols, vals), 2, shape=X.shape, **options)
    two = alternating_minimization((cols, rows, vals), 2, shape=X.T.shape, **options)
    np.testing.assert_allclose(dense(two).T, dense(one), atol=1e-6)


def test_a_ridge_beyond_the_largest_singular_value_gives_zero():
    data, X = planted(8)
    M, _ = halves(data, 1.0, X.shape)
    lam = 1.01 * np.linalg.norm(M, 2)
    res = alternating_minimization(data, 3, shape=X.shape, lam=lam, nonnegative=True, rng=0)
    assert np.all(np.isfinite(dense(res)))
    assert abs(dense(res)).max() < 1e-6


def test_a_solution_as_start_is_left_at_once():
    data, X = planted(9)
    options = {"shape": X.shape, "lam": 0.1, "nonnegative": True, "maxiter": 3000, "rng": 0}
    first = alternating_minimization(data, 3, tol=1e-9, **options)
    again = alternating_minimization(data, 3, tol=1e-8, x0=first, **options)
    assert again.nit <= 1
    np.testing.assert_allclose(dense(again), dense(first), atol=1e-6)


def test_single_precision_is_kept():
    (rows, cols, vals), X = planted(10)
    res = alternating_minimization(
        (rows, cols, vals.astype(np.float32)), 3, shape=X.shape, lam=0.1, nonnegative=True,
        tol=1e-4, rng=0,
    )  # fmt: skip
    assert res.success
    assert res.U.dtype == np.float32
    assert min(res.U.min(), res.V.min()) >= 0


def test_an_unfinished_run_says_so():
    data, X = planted(11)
    with pytest.warns(solvers.ConvergenceWarning):
        res = alternating_minimization(
            data, 3, shape=X.shape, lam=0.1, nonnegative=True, maxiter=2, rng=0
        )
    assert res.status == Status.MAXITER
    assert res.nit == 2
    assert not res.success


def test_more_starts_find_a_lower_objective():
    data, X = planted(12)
    options = {"shape": X.shape, "nonnegative": True, "init": "random", "lam": 0.02, "rng": 1}
    options |= {"tol": 1e-5, "maxiter": 5000}
    one, more = (alternating_minimization(data, 5, n_init=n, **options) for n in (1, 5))
    assert one.success
    assert more.success
    assert more.fun < one.fun


@pytest.mark.parametrize("method", ["irls", "gn", "varpro", "scaled_gd", "lmafit"])
def test_methods_without_signs_say_so(method):
    with pytest.raises(ValueError, match=r"^`method`.*nonnegative"):
        alternating_minimization(np.ones((4, 4)), 1, nonnegative=True, method=method)


@pytest.mark.parametrize("inner", ["cg", "sketch", "subspace"])
def test_inexact_rows_are_for_any_sign_only(inner):
    with pytest.raises(ValueError, match=r"^`inner`.*nonnegative"):
        alternating_minimization(np.ones((4, 4)), 1, nonnegative=True, inner=inner)


# Anderson's mixing.


def test_mixing_solves_affine_maps_in_as_many_steps_as_they_have_dimensions(rng):
    T = rng.standard_normal((5, 5))
    T *= 0.95 / np.linalg.norm(T, 2)
    c = rng.standard_normal(5)
    mixing, x = Mixing(get_backend("numpy")), np.zeros(5)
    for _ in range(7):
        x = mixing(x, T @ x + c)
    np.testing.assert_allclose(x, np.linalg.solve(np.eye(5) - T, c), rtol=1e-6)


def test_mixing_begins_with_the_image_itself(rng):
    mixing, (x, image) = Mixing(get_backend("numpy")), rng.standard_normal((2, 4))
    np.testing.assert_array_equal(mixing(x, image), image)
    assert not mixing.mixed
    mixing(image, x)
    assert mixing.mixed


def test_after_a_rejection_mixing_runs_ahead_until_it_is_rejected_again(rng):
    mixing, (x, image) = Mixing(get_backend("numpy")), rng.standard_normal((2, 4))
    mixing(x, image)
    mixing.reject()
    assert not mixing.mixed
    for stride in (1.0, 2.0, 4.0):
        np.testing.assert_allclose(mixing(x, image), image + stride * (image - x))
        assert mixing.mixed
    mixing.reject()
    np.testing.assert_array_equal(mixing(x, image), image)
    assert not mixing.mixed
