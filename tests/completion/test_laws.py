"""What must hold for every completion, whatever solves it."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.completion import alternating_minimization

seeds = st.integers(0, 2**16)
models = pytest.mark.parametrize(
    "options",
    [
        {"lam": 0.8},
        {"lam": 0.8, "bias": True, "lam_bias": 0.5},
        {"lam": 0.1, "weighted_lambda": True},
        {"lam": 0.5, "nonnegative": True},
        {"loss": "huber", "delta": 0.3},
    ],
    ids=["ridge", "biases", "weighted", "nonnegative", "huber"],
)


def problem(seed, m=15, n=12):
    """A noisy matrix of rank 1, clearly so, with gaps."""
    rng = np.random.default_rng(seed)
    X = np.outer(1.0 + rng.random(m), 1.0 + rng.random(n)) + 0.1 * rng.normal(size=(m, n))
    X[rng.random((m, n)) < 0.3] = np.nan
    X[np.arange(m), np.arange(m) % n] = X[np.arange(n) % m, np.arange(n)] = 2.0
    return X


def complete(M, rank=1, **options):
    return alternating_minimization(
        M, rank, **{"method": "altmin", "tol": 1e-10, "maxiter": 5000, "rng": 0, **options}
    )


@models
@settings(max_examples=3)
@given(seed=seeds)
def test_the_transpose_has_the_transposed_completion(options, seed):
    M = problem(seed)
    X, Y = complete(M, **options).todense(), complete(M.T, **options).todense()
    np.testing.assert_allclose(Y.T, X, atol=1e-6)


@models
@settings(max_examples=3)
@given(seed=seeds)
def test_the_order_of_rows_and_columns_does_not_matter(options, seed):
    M, rng = problem(seed), np.random.default_rng(seed)
    rows, cols = rng.permutation(15), rng.permutation(12)
    X = complete(M, **options).todense()
    np.testing.assert_allclose(
        complete(M[rows][:, cols], **options).todense(), X[rows][:, cols], atol=1e-6
    )


@models
def test_entries_of_weight_zero_change_nothing(options):
    M = problem(1)
    if options.get("nonnegative") or "loss" in options:
        M = np.abs(M)
    filled, weights = np.where(np.isnan(M), 99.0, M), ~np.isnan(M)
    X = complete(M, **options).todense()
    res = complete(filled, weights=weights.astype(float), **options)
    np.testing.assert_allclose(res.todense(), X, atol=1e-7)


@pytest.mark.parametrize("options", [{"lam": 0.8}, {"loss": "huber", "delta": 0.3}], ids=str)
def test_a_mean_of_two_entries_is_an_entry_of_weight_two(options):
    M = problem(2)
    rows, cols = np.nonzero(~np.isnan(M))
    vals, twice = M[rows, cols], slice(0, 20)
    up, down = vals.copy(), vals[twice] - 0.1
    up[twice] += 0.1
    doubled = np.r_[rows, rows[twice]], np.r_[cols, cols[twice]], np.r_[up, down]
    weights = np.ones(vals.size)
    weights[twice] = 2.0
    merged = complete(doubled, shape=M.shape, duplicates="mean", **options)
    weighted = complete((rows, cols, vals), shape=M.shape, weights=weights, **options)
    np.testing.assert_allclose(merged.todense(), weighted.todense(), atol=1e-6)
    alone = complete((rows, cols, vals), shape=M.shape, **options)
    assert np.abs(merged.todense() - alone.todense()).max() > 1e-4


def test_without_gaps_it_is_the_truncated_svd(rng):
    M = rng.normal(size=(15, 12)) + 6.0 * np.outer(np.linspace(1, 2, 15), np.linspace(-1, 1, 12))
    M += 4.0 * np.outer(np.cos(np.arange(15)), np.ones(12))
    U, s, Vt = np.linalg.svd(M, full_matrices=False)
    res = complete(M, 2)
    np.testing.assert_allclose(res.s, s[:2], rtol=1e-8)
    np.testing.assert_allclose(res.todense(), (U[:, :2] * s[:2]) @ Vt[:2], atol=1e-6)
    # A ridge shrinks the singular values of the same.
    ridge = complete(M, 2, lam=1.5)
    np.testing.assert_allclose(ridge.s, s[:2] - 1.5, rtol=1e-8)


def test_rank_one_on_a_spanning_tree_is_its_closed_form(rng):
    M = np.full((9, 7), np.nan)
    M[0], M[:, 0] = np.exp(0.5 * rng.normal(size=7)), np.exp(0.5 * rng.normal(size=9))
    res = complete(M, 1, method="auto", tol=1e-11)
    assert res.success
    assert res.oversampling == 1.0
    np.testing.assert_allclose(res.todense(), np.outer(M[:, 0], M[0]) / M[0, 0], rtol=1e-6)


def test_a_constant_shift_is_taken_by_the_mean():
    M = problem(3)
    options = {"lam": 0.5, "center": True}
    shifted, plain = complete(M + 1000.0, **options), complete(M, **options)
    assert shifted.mu - plain.mu == pytest.approx(1000.0)
    np.testing.assert_allclose(shifted.todense() - 1000.0, plain.todense(), atol=1e-6)


def test_dense_and_sparse_data_give_the_same_digits():
    M = problem(4)
    rows, cols = np.nonzero(~np.isnan(M))
    S = sp.coo_array((M[rows, cols], (rows, cols)), shape=M.shape)
    answers = [complete(form, lam=0.5).U for form in (M, S, S.tocsr(), S.tocsc())]
    for other in answers[1:]:
        np.testing.assert_array_equal(other, answers[0])
