"""Robust losses: closed forms, planted outliers, and dense formulas for stationarity."""

import functools
from pathlib import Path

import _cuda_on_cpu
import numpy as np
import pytest
from _cupy_standin import run_with_standin
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import huber, pseudo_huber

import solvers
from solvers import Status
from solvers.completion import _losses, _robust, alternating_minimization
from solvers.completion._observations import read_entries
from solvers.completion._problem import pose

LOSSES = ("huber", "l1", "welsch", "tukey")
each_loss = pytest.mark.parametrize("loss", LOSSES)
# The certificate's word for an unfinished run is not what these tests are about.
quiet = pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")


def planted(seed, shape=(90, 80), rank=3, oversampling=7.0, share=0.1, noise=0.0):
    """Triples of a matrix of rank `rank` and rms 1, some with gross errors; matrix; which."""
    rng, (m, n) = np.random.default_rng(seed), shape
    X = rng.standard_normal((m, rank)) @ rng.standard_normal((n, rank)).T / np.sqrt(rank)
    count = int(oversampling * rank * (m + n - rank))
    rows, cols = np.divmod(rng.choice(m * n, count, replace=False), n)
    out = rng.random(count) < share
    errors = noise * rng.standard_normal(count) + 10.0 * out * rng.standard_normal(count)
    return (rows, cols, X[rows, cols] + errors), X, out


def dense(res):
    return (res.U * res.s) @ res.V.T


def relerr(X, Y):
    return np.linalg.norm(X - Y) / np.linalg.norm(Y)


@functools.cache
def least_squares(seed, share=0.1, rank=3, sweeps=25):
    """The fit of least squares to inliers, from the matrix on, by `numpy.linalg.lstsq`."""
    data, X, out = planted(seed, share=share, noise=0.1)
    rows, cols, vals = (x[~out] for x in data)
    V = np.linalg.svd(X)[2][:rank].T
    for _ in range(sweeps):
        U = np.array(
            [np.linalg.lstsq(V[cols[rows == i]], vals[rows == i])[0] for i in range(len(X))]
        )
        U = np.linalg.qr(U)[0]
        V = np.array(
            [np.linalg.lstsq(U[rows[cols == j]], vals[cols == j])[0] for j in range(X.shape[1])]
        )
    return U @ V.T


# Losses.


def oracle(loss, r, delta):
    """Each loss by another formula than the library's."""
    return {
        "huber": huber(delta, r),
        "l1": pseudo_huber(delta, r) / delta + delta,
        "welsch": delta**2 / 2 * (1 - np.exp(-((r / delta) ** 2))),
        "tukey": delta**2 / 6 * np.where(abs(r) < delta, 1 - (1 - (r / delta) ** 2) ** 3, 1.0),
    }[loss]


@each_loss
def test_losses_are_what_their_names_say(loss, rng):
    r, delta = np.concatenate([3 * rng.standard_normal(50), [0.0, 0.7, -0.7, 1e3]]), 0.7
    value = _losses.value(np, loss, r, delta)
    np.testing.assert_allclose(value, oracle(loss, r, delta), rtol=1e-12, atol=1e-15)


@each_loss
def test_weights_are_derivatives_over_residuals(loss, rng):
    r, h = 2 * rng.standard_normal(50), 1e-6
    slope = (oracle(loss, r + h, 0.7) - oracle(loss, r - h, 0.7)) / (2 * h)
    np.testing.assert_allclose(r * _losses.weight(np, loss, r, 0.7), slope, atol=1e-8)


@each_loss
@given(r=st.floats(-1e3, 1e3), s=st.floats(-1e3, 1e3), delta=st.floats(1e-3, 1e2))
def test_weighted_squares_lie_above_the_loss(loss, r, s, delta):
    at_r, at_s = oracle(loss, np.array([r, s]), delta)
    bound = at_r + _losses.weight(np, loss, np.array([r]), delta)[0] * (s * s - r * r) / 2
    assert at_s <= bound + 1e-12 * (delta**2 + abs(bound) + at_r + at_s)


@each_loss
def test_shares_of_inliers_run_from_one_to_zero(loss):
    share = _losses.inlier_share(np, loss, np.array([0.0, 0.01, 1e8]), 0.5)
    assert share[0] == 1.0
    assert share[1] > 0.99
    assert share[2] < 1e-7


# The scale.


def test_the_scale_follows_the_median_until_that_stops_falling():
    scale = _robust.Scale("huber", None, 1.0)
    medians = [0.7**t for t in range(30)] + [0.7**29] * 10
    found = [(scale.update(median), scale.frozen) for median in medians]
    for median, (delta, frozen) in zip(medians[:30], found, strict=False):
        assert not frozen
        assert delta == pytest.approx(1.345 * 1.4826 * median)
    # Five sweeps after the last fall by 0.7, 0.7 per five sweeps is more than 0.8.
    assert [frozen for _, frozen in found[30:]].index(True) == 4
    assert found[-1][0] == found[33][0]


def test_the_scale_is_not_frozen_by_a_slow_beginning():
    scale = _robust.Scale("huber", None, 1.0)
    frozen = []
    for _ in range(20):
        scale.update(1.0)
        frozen.append(scale.frozen)
    assert frozen.index(True) == 15


def test_the_scale_of_l1_cools_and_ends_at_a_tenth_of_the_noise():
    scale = _robust.Scale("l1", None, 1.0)
    deltas = []
    for t in range(60):
        deltas.append(scale.update(max(0.1**t, 1e-2)))
    deltas = np.array(deltas)
    assert scale.frozen
    assert deltas[0] == pytest.approx(1.4826)
    assert np.all(deltas[1:] >= 0.7 * deltas[:-1] * (1 - 1e-12))
    assert deltas[-1] == pytest.approx(0.1 * 1.4826 * 1e-2)


def test_a_given_scale_is_kept():
    scale = _robust.Scale("huber", 0.3, 1.0)
    assert [scale.update(median) for median in (5.0, 1e-9)] == [0.3, 0.3]
    assert scale.frozen


# Recovery.


@quiet
@each_loss
@pytest.mark.parametrize(
    ("share", "oversampling", "seed"), [(0.1, 6, 1), (0.2, 9, 2), (0.3, 12, 3)]
)
def test_exact_data_is_recovered_from_under_gross_outliers(loss, share, oversampling, seed):
    data, X, out = planted(seed, oversampling=oversampling, share=share)
    res = alternating_minimization(data, 3, shape=X.shape, loss=loss, tol=1e-12, rng=0)
    assert relerr(dense(res), X) < 1e-10
    w = res.outlier_weights
    assert w[out].mean() < 0.01 * w[~out].mean()


@quiet
@each_loss
def test_noisy_data_is_fitted_nearly_as_well_as_by_an_oracle_that_knows_the_outliers(loss):
    data, X, out = planted(4, noise=0.1)
    inliers = least_squares(4)
    res = alternating_minimization(data, 3, shape=X.shape, loss=loss, rng=0)
    # The price of not knowing: all of these are at least 60 % efficient for normal noise.
    assert relerr(dense(res), X) < 1.3 * relerr(inliers, X)
    w = res.outlier_weights
    far = out & (abs(data[2] - X[data[0], data[1]]) > 2.0)
    assert w[far].mean() < 0.3 * w[~out].mean()


@quiet
@each_loss
def test_without_outliers_the_answer_is_that_of_least_squares_up_to_the_noise(loss):
    data, X, _ = planted(5, share=0.0, noise=0.1)
    squares = least_squares(5, share=0.0)
    res = alternating_minimization(data, 3, shape=X.shape, loss=loss, rng=0)
    assert relerr(dense(res), squares) < 0.7 * relerr(squares, X)


@each_loss
def test_outliers_may_be_a_million_times_as_large_as_the_values(loss):
    (rows, cols, vals), X, out = planted(18)
    vals = vals + 1e6 * out * np.random.default_rng(0).standard_normal(vals.size)
    res = alternating_minimization((rows, cols, vals), 3, shape=X.shape, loss=loss, rng=0)
    assert res.success
    assert relerr(dense(res), X) < 1e-6


@each_loss
def test_a_ridge_that_leaves_nothing_gives_zero(loss):
    data, X, _ = planted(19, noise=0.1)
    res = alternating_minimization(data, 3, shape=X.shape, loss=loss, lam=1e3, rng=0)
    assert res.success
    np.testing.assert_array_equal(dense(res), 0.0)


# Stationarity and the objective.


@quiet
@pytest.mark.parametrize(
    ("loss", "delta"), [("huber", 0.15), ("l1", 0.1), ("welsch", 0.4), ("tukey", 0.5)]
)
@pytest.mark.parametrize("lam", [0.0, 0.3])
def test_the_answer_is_stationary_with_weights_and_ridge(loss, delta, lam, rng):
    (rows, cols, vals), X, _ = planted(6, noise=0.1)
    weights = rng.uniform(0.5, 2.0, vals.size)
    res = alternating_minimization(
        (rows, cols, vals), 3, shape=X.shape, loss=loss, delta=delta, lam=lam, weights=weights,
        tol=1e-8, rng=0,
    )  # fmt: skip
    assert res.delta == pytest.approx(delta)
    r, h = dense(res)[rows, cols] - vals, 1e-6
    psi = weights * (oracle(loss, r + h, delta) - oracle(loss, r - h, delta)) / (2 * h)
    S = np.zeros(X.shape)
    S[rows, cols] = psi
    for g in (S @ res.V + lam * res.U, S.T @ res.U + lam * res.V):
        assert np.linalg.norm(g) < 1e-6 * np.linalg.norm(psi)
    fun = weights @ oracle(loss, r, delta) + lam * res.s.sum()
    assert res.fun == pytest.approx(fun, rel=1e-9)


@each_loss
def test_biases_are_stationary_too(loss):
    (rows, cols, vals), X, _ = planted(23, noise=0.1)
    vals = 5.0 * vals
    options = {"delta": 1.0, "lam": 0.7, "bias": True, "lam_bias": 0.4, "rng": 0}
    res = alternating_minimization((rows, cols, vals), 3, shape=X.shape, loss=loss, **options)
    assert res.success
    r, h = res.predict(rows, cols) - vals, 1e-6
    psi = (oracle(loss, r + h, 1.0) - oracle(loss, r - h, 1.0)) / (2 * h)
    S = np.zeros(X.shape)
    S[rows, cols] = psi
    tolerance = 1e-5 * np.linalg.norm(psi)
    np.testing.assert_allclose(S.sum(axis=1), -0.4 * res.row_bias, rtol=0, atol=tolerance)
    np.testing.assert_allclose(S.sum(axis=0), -0.4 * res.col_bias, rtol=0, atol=tolerance)
    np.testing.assert_allclose(S @ res.V, -0.7 * res.U, rtol=0, atol=tolerance)


@each_loss
def test_a_general_minimiser_finds_nothing_better_near_a_small_fit(loss, rng):
    M = np.outer(rng.standard_normal(6), rng.standard_normal(5)) + 0.1 * rng.standard_normal(
        (6, 5)
    )
    M[2, 3] += 2.0
    res = alternating_minimization(M, 1, loss=loss, delta=0.3, rng=0)
    assert res.success

    def objective(x):
        return oracle(loss, np.outer(x[:6], x[6:]) - M, 0.3).sum()

    here = np.concatenate([F[:, 0] for F in res.factors()])
    assert objective(here) == pytest.approx(res.fun, rel=1e-12)
    assert minimize(objective, here, tol=1e-10).fun > res.fun * (1 - 1e-9)
    assert minimize(objective, here + 0.02 * rng.standard_normal(11)).fun > res.fun * (1 - 1e-9)


@quiet
@each_loss
@pytest.mark.parametrize("noise", [1e-3, 0.1])
def test_the_objective_falls_once_the_scale_is_frozen(loss, noise):
    data, X, _ = planted(7, noise=noise)
    res = alternating_minimization(data, 3, shape=X.shape, loss=loss, tol=1e-12, rng=0)
    first = res.stages[0][1] if len(res.stages) > 1 else 0
    frozen = np.isfinite(res.history["grad"]) & (res.history["nit"] > first)
    fun = res.history["objective"][frozen]
    assert fun.size > 3
    assert np.all(np.diff(fun) <= 1e-12 * fun[0])


# What the result carries.


@quiet
@each_loss
def test_scaling_the_data_scales_answer_and_scale(loss):
    (rows, cols, vals), X, _ = planted(8, noise=0.1)
    one, two = (
        alternating_minimization((rows, cols, c * vals), 3, shape=X.shape, loss=loss, rng=0)
        for c in (1.0, 1024.0)
    )
    assert two.delta == pytest.approx(1024.0 * one.delta, rel=1e-6)
    np.testing.assert_allclose(dense(two), 1024.0 * dense(one), rtol=0, atol=1e-3)
    np.testing.assert_allclose(two.outlier_weights, one.outlier_weights, atol=1e-6)


@each_loss
def test_transposed_and_shuffled_data_give_the_transposed_matrix(loss, rng):
    (rows, cols, vals), X, _ = planted(20, noise=0.1)
    options = {"loss": loss, "delta": 0.3, "tol": 1e-9, "rng": 0}
    order = rng.permutation(vals.size)
    one = alternating_minimization((rows, cols, vals), 3, shape=X.shape, **options)
    data = cols[order], rows[order], vals[order]
    two = alternating_minimization(data, 3, shape=X.T.shape, **options)
    np.testing.assert_allclose(dense(two).T, dense(one), atol=1e-6)
    np.testing.assert_allclose(two.outlier_weights, one.outlier_weights[order], atol=1e-5)


@each_loss
def test_equal_weights_are_as_good_as_none(loss):
    data, X, _ = planted(21, noise=0.1)
    options = {"shape": X.shape, "loss": loss, "delta": 0.3, "tol": 1e-9, "rng": 0}
    one = alternating_minimization(data, 3, **options)
    two = alternating_minimization(data, 3, weights=np.full(data[2].size, 2.5), **options)
    np.testing.assert_allclose(dense(two), dense(one), atol=1e-6)
    assert two.fun == pytest.approx(2.5 * one.fun, rel=1e-9)


@quiet
def test_outlier_weights_come_in_the_order_of_the_entries_and_are_nan_for_those_left_out():
    (rows, cols, vals), X, _ = planted(9, noise=0.1)
    weights = np.ones(vals.size)
    weights[::7] = 0.0
    res = alternating_minimization(
        (rows, cols, vals), 3, shape=X.shape, weights=weights, loss="huber", rng=0
    )
    size = abs(res.predict(rows, cols) - vals)
    expected = np.where(weights > 0, np.minimum(1.0, res.delta / size), np.nan)
    np.testing.assert_allclose(res.outlier_weights, expected, rtol=1e-9)
    res = alternating_minimization(
        (rows, cols, vals), 3, shape=X.shape, validation=0.1, loss="huber", rng=0
    )
    assert set(np.flatnonzero(np.isnan(res.outlier_weights))) == set(res.holdout)


@quiet
def test_biases_are_fitted_under_outliers_too():
    (rows, cols, vals), X, out = planted(10, rank=2, share=0.1)
    rng = np.random.default_rng(1)
    b, c = rng.standard_normal(len(X)), rng.standard_normal(X.shape[1])
    vals = vals + 3.0 + b[rows] + c[cols]
    res = alternating_minimization(
        (rows, cols, vals), 2, shape=X.shape, loss="huber", bias=True, lam=1e-9, tol=1e-8, rng=0
    )
    whole = res.mu + res.row_bias[:, None] + res.col_bias + dense(res)
    assert relerr(whole, X + 3.0 + b[:, None] + c) < 1e-5
    assert res.outlier_weights[out].mean() < 0.01 * res.outlier_weights[~out].mean()


@quiet
@pytest.mark.parametrize("loss", ["welsch", "tukey"])
def test_a_redescending_loss_with_a_scale_far_below_the_noise_loses_no_row(loss, monkeypatch):
    data, X, _ = planted(11, noise=0.1)
    first = alternating_minimization(data, 3, shape=X.shape, loss="huber", rng=0)
    options = {"shape": X.shape, "loss": loss, "delta": 1e-4, "x0": first, "maxiter": 60, "rng": 0}
    res = alternating_minimization(data, 3, **options)
    # Nearly the l1 fit: all rows are short of inliers.
    assert relerr(dense(res), X) < 1.5 * relerr(dense(first), X)
    monkeypatch.setattr(_robust, "_short_of_inliers", lambda p, s: np.zeros(p.size, bool))
    monkeypatch.setattr(_robust, "_GROWTH", np.inf)
    lost = alternating_minimization(data, 3, **options)
    assert relerr(dense(lost), X) > 3.0 * relerr(dense(first), X)


@quiet
@pytest.mark.parametrize("loss", ["welsch", "tukey"])
def test_a_redescending_fit_that_loses_inliers_is_not_taken(loss, monkeypatch):
    data, X, _ = planted(11, noise=0.1)
    monkeypatch.setattr(_robust, "_short_of_inliers", lambda p, s: np.zeros(p.size, bool))
    first = alternating_minimization(data, 3, shape=X.shape, loss="huber", rng=0)
    res = alternating_minimization(
        data, 3, shape=X.shape, loss=loss, delta=1e-4, x0=first, maxiter=60, rng=0
    )
    assert "this is the Huber fit" in res.message
    np.testing.assert_allclose(dense(res), dense(first), rtol=1e-9, atol=1e-9)


def test_rows_and_columns_with_few_inliers_are_found():
    M = np.outer(np.arange(1.0, 7.0), np.arange(1.0, 6.0))
    M[2, 1:] += 1.0  # one inlier in this row
    M[4:, 0] += 1.0  # three in this column
    model = dict.fromkeys(("lam", "nu", "alpha0"), 0.0) | {"alpha": 1.0, "duplicates": "error"}
    model |= dict.fromkeys(("weighted_lambda", "bias", "center", "implicit", "nonnegative"), False)
    problem = pose(read_entries(M), **model, lam_bias=None, loss="tukey", delta=0.5)
    A, B = np.arange(1.0, 7.0)[:, None] / problem.scale, np.arange(1.0, 6.0)[:, None]
    short = _robust._short_of_inliers(problem, (A, B, A[:0, 0], B[:0, 0])).reshape(M.shape)
    expected = np.zeros(M.shape, bool)
    expected[2] = True
    np.testing.assert_array_equal(short, expected)


@quiet
def test_single_precision_is_kept():
    (rows, cols, vals), X, _ = planted(12)
    res = alternating_minimization(
        (rows, cols, vals.astype(np.float32)), 3, shape=X.shape, loss="huber", tol=1e-4, rng=0
    )
    assert res.U.dtype == res.outlier_weights.dtype == np.float32
    assert relerr(dense(res), X) < 1e-3


@quiet
@each_loss
def test_a_solution_as_start_is_left_at_once(loss):
    data, X, _ = planted(13, noise=0.1)
    first = alternating_minimization(data, 3, shape=X.shape, loss=loss, tol=1e-9, rng=0)
    again = alternating_minimization(
        data, 3, shape=X.shape, loss=loss, delta=first.delta, tol=1e-8, x0=first, rng=0
    )
    assert again.nit <= 1
    assert relerr(dense(again), dense(first)) < 1e-7


def test_equal_values_need_no_scale():
    res = alternating_minimization(np.full((6, 5), 2.0), 1, loss="huber", rng=0)
    np.testing.assert_allclose(dense(res), 2.0, rtol=1e-9)


@pytest.mark.parametrize("inner", ["direct", "cg"])
def test_rows_may_be_solved_inexactly(inner):
    data, X, _ = planted(16, noise=0.1)
    options = {"shape": X.shape, "loss": "huber", "delta": 0.15, "tol": 1e-8, "rng": 0}
    exact, res = (
        alternating_minimization(data, 3, inner=name, **options) for name in ("auto", inner)
    )
    assert res.success
    assert (res.n_inner > 0) == (inner != "direct")
    np.testing.assert_allclose(dense(res), dense(exact), atol=1e-5)


@quiet
def test_outliers_among_held_out_entries_do_not_end_a_run_early():
    data, X, _ = planted(17, share=0.2, oversampling=9)
    res = alternating_minimization(
        data, 3, shape=X.shape, loss="huber", validation=0.1, tol=1e-12, rng=0
    )
    assert relerr(dense(res), X) < 1e-9
    assert res.rmse_validation > 1.0


@quiet
def test_more_starts_find_what_one_misses():
    # So few entries that the outcome depends on the start.
    data, X, _ = planted(2, shape=(60, 50), oversampling=4.5)
    options = {"shape": X.shape, "loss": "huber", "init": "random", "maxiter": 1000, "rng": 0}
    one, more = (alternating_minimization(data, 3, n_init=n, **options) for n in (1, 6))
    assert relerr(dense(one), X) > 1e-2
    assert more.nit > one.nit
    assert relerr(dense(more), X) < 1e-6


# Wrong arguments.


@pytest.mark.parametrize("delta", [0.0, -1.0, np.nan])
def test_a_scale_that_is_none_is_refused(delta):
    with pytest.raises(ValueError, match=r"^`delta`"):
        alternating_minimization(np.eye(4), 1, loss="huber", delta=delta)


@pytest.mark.parametrize("delta", ["small", [1.0]])
def test_a_scale_of_the_wrong_kind_is_refused(delta):
    with pytest.raises(TypeError, match=r"^`delta`"):
        alternating_minimization(np.eye(4), 1, loss="huber", delta=delta)


@pytest.mark.parametrize("method", ["irls", "gn", "varpro", "scaled_gd", "lmafit"])
def test_methods_that_know_squares_only_say_so(method):
    with pytest.raises(ValueError, match=r"^`method`.*loss"):
        alternating_minimization(np.eye(4), 1, loss="huber", method=method)


def test_sample_splitting_is_for_squares_only():
    with pytest.raises(ValueError, match=r"^`mode`.*loss"):
        alternating_minimization(np.eye(4), 1, loss="huber", mode="theory")


def test_an_unfinished_run_says_so():
    data, X, _ = planted(14, noise=0.1)
    with pytest.warns(solvers.ConvergenceWarning):
        res = alternating_minimization(data, 3, shape=X.shape, loss="huber", maxiter=2, rng=0)
    assert res.status == Status.MAXITER
    assert res.nit == 2
    assert res.delta > 0
    assert not res.success


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_robust_losses_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "robust_on_device.py")
