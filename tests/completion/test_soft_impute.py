"""The nuclear-norm problem against proximal gradients with full SVDs, in every model it knows."""

import numpy as np
import pytest

from solvers import ConvergenceWarning, Status, completion
from tests.completion.test_scaled_gd import planted


def shrunk(X, t):
    """The proximal point of ``t |X|_*``, and its nuclear norm."""
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    s = np.maximum(s - t, 0.0)
    return (U * s) @ Vt, s.sum()


def proximal_gradient(smooth, L, lam, shape, steps=20_000):
    """Minimise ``smooth(X) + lam |X|_*``: accelerated, restarted; return X and the value."""
    X = Y = np.zeros(shape)
    t, best = 1.0, np.inf
    for _ in range(steps):
        Z, nuclear = shrunk(Y - smooth(Y)[1] / L, lam / L)
        value = smooth(Z)[0] + lam * nuclear
        if value > best:
            Y, t, best = X, 1.0, np.inf
            continue
        moved = np.linalg.norm(Z - X)
        t, before = (1 + np.sqrt(1 + 4 * t * t)) / 2, t
        Y, X, best = Z + (before - 1) / t * (Z - X), Z, value
        if moved <= 1e-13 * np.linalg.norm(Z):
            break
    return X, best


def least_squares(rows, cols, vals, shape, w=1.0):
    M, W = np.zeros(shape), np.zeros(shape)
    M[rows, cols], W[rows, cols] = vals, w

    def smooth(X):
        R = X - M
        return 0.5 * (W * R * R).sum(), W * R

    return smooth, np.linalg.norm(W * M, 2), W.max()


def data(seed, noise=0.4, share=0.5):
    return planted(30, 24, 3, share, seed, noise=noise)


@pytest.mark.parametrize("part", [0.5, 0.2, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_the_value_is_that_of_proximal_gradients(seed, part):
    rows, cols, vals, X = data(seed)
    smooth, top, _ = least_squares(rows, cols, vals, X.shape)
    best, value = proximal_gradient(smooth, 1.0, part * top, X.shape)
    res = completion.soft_impute((rows, cols, vals), part * top, shape=X.shape, rng=0)
    A = res.todense()
    assert res.success
    assert res.certificate.kind == "relative duality gap"
    mine = smooth(A)[0] + part * top * np.linalg.norm(A, "nuc")
    assert mine == pytest.approx(value, rel=2e-8)
    assert res.fun == pytest.approx(mine, rel=1e-9)
    assert res.rank == np.linalg.matrix_rank(best, tol=1e-4)
    np.testing.assert_allclose(A, best, atol=2e-3)


def test_a_matrix_without_holes_has_its_singular_values_shrunk():
    rng = np.random.default_rng(0)
    M = rng.standard_normal((20, 30))
    lam = np.linalg.svd(M, compute_uv=False)[8]
    res = completion.soft_impute(M, lam * 1.01, rng=0)
    np.testing.assert_allclose(res.todense(), shrunk(M, lam * 1.01)[0], atol=1e-7)
    assert res.rank == 8


def test_weights_count():
    rows, cols, vals, X = data(4)
    w = np.random.default_rng(0).uniform(0.3, 3.0, vals.size)
    smooth, top, L = least_squares(rows, cols, vals, X.shape, w)
    _, value = proximal_gradient(smooth, L, 0.2 * top, X.shape)
    res = completion.soft_impute((rows, cols, vals), 0.2 * top, shape=X.shape, weights=w, rng=0)
    assert res.success
    assert res.fun == pytest.approx(value, rel=2e-8)


def test_the_weighted_trace_norm_is_that_of_the_scaled_matrix():
    rows, cols, vals, X = data(5)
    d, e = (np.bincount(i, minlength=size) for i, size in ((rows, 30), (cols, 24)))
    scale = np.sqrt(np.outer(d, e))
    plain, _, _ = least_squares(rows, cols, vals, X.shape)

    def smooth(Z):
        value, slope = plain(Z / scale)
        return value, slope / scale

    lam = 0.1
    _, value = proximal_gradient(smooth, 1.0 / scale.min() ** 2, lam, X.shape)
    res = completion.soft_impute(
        (rows, cols, vals), lam, shape=X.shape, weighted_lambda=True, rng=0
    )
    assert res.success
    assert res.fun == pytest.approx(value, rel=1e-7)


def test_biases_are_fitted_with_it():
    rows, cols, vals, X = data(6)
    vals = vals + np.random.default_rng(1).standard_normal(30)[rows] + 3.5
    M, W = np.zeros(X.shape), np.zeros(X.shape)
    M[rows, cols], W[rows, cols] = vals - vals.mean(), 1.0
    lam_bias, lam = 0.5, 4.0
    D = np.zeros((rows.size, 54))
    D[np.arange(rows.size), rows] = D[np.arange(rows.size), 30 + cols] = 1.0
    inverse = np.linalg.inv(D.T @ D + lam_bias * np.eye(54)) @ D.T

    def smooth(Z):
        """The misfit for the best biases; by Danskin its gradient is the residual there."""
        x = inverse @ (M - Z)[rows, cols]
        R = W * (Z + x[:30, None] + x[30:] - M)
        return 0.5 * (R * R).sum() + 0.5 * lam_bias * x @ x, R

    _, value = proximal_gradient(smooth, 1.0, lam, X.shape)
    res = completion.soft_impute(
        (rows, cols, vals), lam, shape=X.shape, bias=True, lam_bias=lam_bias, rng=0
    )
    assert res.success
    assert res.fun == pytest.approx(value, rel=1e-7)


@pytest.mark.parametrize("bias", [False, True])
def test_from_the_largest_lam_on_the_answer_is_zero(bias):
    rows, cols, vals, X = data(7)
    _, top, _ = least_squares(rows, cols, vals, X.shape)
    res = completion.soft_impute((rows, cols, vals), 1.001 * top, shape=X.shape, bias=bias, rng=0)
    assert res.success
    assert res.s.max() < 1e-7
    assert (np.abs(res.row_bias).max() > 0) == bias


def test_a_limit_of_the_rank_is_kept_and_told():
    rows, cols, vals, X = data(8)
    smooth, top, _ = least_squares(rows, cols, vals, X.shape)
    _, value = proximal_gradient(smooth, 1.0, 0.1 * top, X.shape)
    with pytest.warns(ConvergenceWarning, match="rank_max"):
        res = completion.soft_impute(
            (rows, cols, vals), 0.1 * top, shape=X.shape, rank_max=2, rng=0
        )
    assert not res.success
    assert res.rank == 2
    assert res.status is Status.STALLED
    # The gap that it reports bounds what is missing.
    assert res.duality_gap * res.fun >= res.fun - value > 0.01 * value


def test_the_last_answer_is_a_good_start_for_the_next_lam():
    rows, cols, vals, X = data(9)
    _, top, _ = least_squares(rows, cols, vals, X.shape)
    first = completion.soft_impute((rows, cols, vals), 0.2 * top, shape=X.shape, rng=0)
    cold, warm = (
        completion.soft_impute((rows, cols, vals), 0.19 * top, shape=X.shape, rng=0, x0=x0)
        for x0 in (None, first)
    )
    assert warm.success
    assert warm.fun == pytest.approx(cold.fun, rel=2e-8)
    assert warm.nit < cold.nit


def test_an_answer_as_start_is_given_back():
    rows, cols, vals, X = data(9)
    first = completion.soft_impute((rows, cols, vals), 5.0, shape=X.shape, rng=0)
    again = completion.soft_impute(
        (rows, cols, vals), 5.0, shape=X.shape, rng=1, x0=first, tol=1e-7
    )
    assert again.success
    assert again.nit <= 2


@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_scaling_the_data_and_lam_scales_the_answer(scale):
    rows, cols, vals, X = data(3)
    here = completion.soft_impute((rows, cols, vals), 3.0, shape=X.shape, rng=0)
    there = completion.soft_impute((rows, cols, scale * vals), 3.0 * scale, shape=X.shape, rng=0)
    np.testing.assert_allclose(there.todense() / scale, here.todense(), atol=1e-7)


@pytest.mark.parametrize(
    "M",
    [
        np.zeros((4, 5)),
        np.full((4, 5), 7.0),
        np.array([[1.0, np.nan, -2.0]]),
        np.array([[1.0, np.nan, np.nan], [np.nan, 2.0, np.nan], [np.nan, np.nan, np.nan]]),
    ],
    ids=["zeros", "constant", "row", "diagonal"],
)
@pytest.mark.parametrize("model", [{}, {"bias": True}, {"weighted_lambda": True}], ids=str)
def test_awkward_matrices_are_certified(M, model):
    res = completion.soft_impute(M, 0.5, rng=0, **model)
    assert res.success
    assert np.isfinite(res.todense()).all()


def test_limits_and_callbacks_end_the_run_with_what_was_reached():
    rows, cols, vals, X = data(3)
    seen = []

    def stop(intermediate_result):
        seen.append(intermediate_result.U.shape)
        return len(seen) == 4

    options = {"shape": X.shape, "rng": 0}
    res = completion.soft_impute((rows, cols, vals), 1.0, callback=stop, **options)
    assert (res.status, res.nit, len(seen)) == (Status.CALLBACK, 4, 4)
    assert np.isfinite(res.duality_gap)
    with pytest.warns(ConvergenceWarning):
        res = completion.soft_impute((rows, cols, vals), 1.0, maxiter=3, **options)
    assert (res.status, res.nit, res.success) == (Status.MAXITER, 3, False)


def test_single_precision_reaches_what_it_can():
    rows, cols, vals, X = data(3)
    double = completion.soft_impute((rows, cols, vals), 3.0, shape=X.shape, rng=0)
    res = completion.soft_impute(
        (rows, cols, vals.astype(np.float32)), 3.0, shape=X.shape, tol=1e-4, rng=0
    )
    assert res.success
    assert res.U.dtype == np.float32
    assert res.fun == pytest.approx(double.fun, rel=1e-4)


def test_one_column_and_one_entry_are_matrices_too():
    assert completion.soft_impute(np.array([[3.0]]), 1.0).todense().item() == pytest.approx(2.0)
    column = np.array([[3.0], [np.nan], [4.0]])
    np.testing.assert_allclose(
        completion.soft_impute(column, 1.0).todense(), [[2.4], [0.0], [3.2]], atol=1e-7
    )


def test_alternating_minimization_with_rank_auto_solves_the_same_problem():
    rows, cols, vals, X = data(2)
    smooth, top, _ = least_squares(rows, cols, vals, X.shape)
    _, value = proximal_gradient(smooth, 1.0, 0.1 * top, X.shape)
    res = completion.alternating_minimization(
        (rows, cols, vals), "auto", lam=0.1 * top, shape=X.shape, certificate=("gap",), rng=0
    )
    assert res.success
    assert res.fun == pytest.approx(value, rel=2e-8)


@pytest.mark.parametrize(
    ("lam", "options", "error", "name"),
    [
        (0.0, {}, ValueError, "lam"),
        (-1.0, {}, ValueError, "lam"),
        (np.nan, {}, ValueError, "lam"),
        ("1", {}, TypeError, "lam"),
        (1.0, {"rank_max": 0}, ValueError, "rank_max"),
        (1.0, {"rank_max": 1.5}, TypeError, "rank_max"),
        (1.0, {"weights": -np.ones((4, 3))}, ValueError, "weights"),
        (1.0, {"x0": (np.ones((3, 1)), np.ones((3, 1)))}, ValueError, "x0"),
        (1.0, {"x0": (np.ones((4, 2)), np.ones((3, 2))), "rank_max": 1}, ValueError, "x0"),
    ],
)
def test_bad_arguments_are_refused_by_name(lam, options, error, name):
    with pytest.raises(error, match=f"^`{name}`"):
        completion.soft_impute(np.ones((4, 3)), lam, **options)
