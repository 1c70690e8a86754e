"""Where engines start, against dense formulas and what a start must never do."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from solvers._core.backend import get_backend
from solvers.completion._observations import read_entries
from solvers.completion._problem import pose
from solvers.completion._start import clipped, positive_parts, spectrum, start, winsorised

PLAIN = {
    "lam": 0.0,
    "lam_bias": None,
    "weighted_lambda": False,
    "bias": False,
    "center": False,
    "implicit": False,
    "alpha": 1.0,
    "nu": 0.0,
    "alpha0": 1.0,
    "nonnegative": False,
    "loss": "squared",
    "delta": None,
    "duplicates": "error",
}


def problem(M, weights=None, **model):
    return pose(read_entries(M, weights=weights), **{**PLAIN, **model})


def options(seed=0, **given):
    return SimpleNamespace(
        **{"x0": None, "init": "svd", "clip": None, **given, "rng": np.random.default_rng(seed)}
    )


def estimate(p, rank, **given):
    """The matrix that a start stands for, in the caller's unit, without biases."""
    A, B, *_ = start(p, rank, options(**given))
    return p.scale * (A @ B.T)


def planted(rng, m, n, r):
    return rng.standard_normal((m, r)) @ rng.standard_normal((r, n))


def truncated(M, r):
    U, s, V = np.linalg.svd(M, full_matrices=False)
    return (U[:, :r] * s[:r]) @ V[:r]


def distance(X, Y):
    return np.linalg.norm(X - Y) / np.linalg.norm(Y)


def popular(rng, m, n, count):
    """A mask whose rows and columns are seen more or less often, by power laws."""
    rows, cols = (np.arange(m) + 5.0) ** -0.6, (np.arange(n) + 20.0) ** -0.9
    chance = np.outer(rows / rows.sum(), cols / cols.sum()).ravel()
    mask = np.zeros(m * n, bool)
    mask[rng.choice(m * n, count, replace=False, p=chance)] = True
    return mask.reshape(m, n)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (9, 4), (1, 6), (5, 1), (1, 1)], ids=str)
def test_a_matrix_seen_whole_starts_at_its_truncated_svd(rng, shape, dtype):
    rank = min(3, *shape)
    M = (planted(rng, *shape, rank) + 1e-3 * rng.standard_normal(shape)).astype(dtype)
    p = problem(M)
    A, B, a, b = start(p, rank, options())
    assert A.dtype == B.dtype == dtype
    assert a.size == b.size == 0
    # Randomised iteration leaves what its power steps leave of the noise below the gap.
    tol = 1e-5 if dtype == "float32" else 1e-7
    assert distance(p.scale * (A @ B.T), truncated(M, rank)) <= tol


def test_popular_rows_and_columns_do_not_drown_the_others(rng):
    X = planted(rng, 150, 200, 3)
    seen = popular(rng, *X.shape, 9 * 3 * 347)
    start_error = distance(estimate(problem(np.where(seen, X, np.nan)), 3), X)
    assert start_error < 0.65
    assert start_error < 0.7 * distance(truncated(np.where(seen, X, 0.0) / seen.mean(), 3), X)


def test_weights_and_degrees_enter_as_the_dense_formula_says(rng):
    X = planted(rng, 20, 25, 2)
    W = np.where(popular(rng, *X.shape, 250), rng.uniform(0.5, 3.0, X.shape), 0.0)
    p = problem(np.where(W > 0, X, np.nan), W)
    d, e = (np.sqrt(1.5 / (W.sum(axis=k) / W.sum(axis=k).mean() + 0.5)) for k in (1, 0))
    U, s, V = spectrum(p, 20, np.random.default_rng(0))
    expected = d[:, None] * (d[:, None] * W * X * e) * e / W.mean()
    np.testing.assert_allclose(p.scale * (U * s) @ V.T, expected, atol=1e-10)
    np.testing.assert_allclose(U.T @ U, np.eye(20), atol=1e-12)


@pytest.mark.parametrize("case", ["plain", "weighted", "clipped", "non-negative", "implicit"])
def test_no_multiple_of_the_start_fits_better(rng, case):
    M = np.abs(planted(rng, 30, 24, 2)) if case == "non-negative" else planted(rng, 30, 24, 2)
    seen = rng.random(M.shape) < 0.4
    W, clip, model = seen.astype(float), None, {}
    if case == "weighted":
        W *= rng.uniform(0.1, 4.0, M.shape)
    elif case == "clipped":
        M[3] *= 30.0
        clip = "row"
    elif case == "non-negative":
        model = {"nonnegative": True}
    if case == "implicit":
        R = np.where(seen, rng.poisson(2.0, M.shape), 0).astype(float)
        p, W, M = problem(sp.csr_matrix(R), implicit=True, alpha=0.7), 1.0 + 0.7 * R, R > 0
    else:
        p = problem(np.where(seen, M, np.nan), np.where(seen, W, 0.0), **model)
    Y = estimate(p, 3, clip=clip)
    assert np.sum(W * Y * Y) > 0
    assert abs(np.sum(W * Y * (Y - M))) <= 1e-10 * np.sum(W * Y * Y)


def test_the_start_of_a_transposed_or_reordered_matrix_is_transposed_or_reordered(rng):
    # A clear gap: then randomised singular vectors are the exact ones to rounding.
    M = planted(rng, 30, 26, 2) + 1e-6 * rng.standard_normal((30, 26))
    X = estimate(problem(M), 2)
    np.testing.assert_allclose(estimate(problem(M.T.copy()), 2).T, X, atol=1e-9)
    rows, cols = rng.permutation(30), rng.permutation(26)
    reordered = estimate(problem(M[rows][:, cols]), 2, seed=5)
    np.testing.assert_allclose(reordered, X[rows][:, cols], atol=1e-9)


@pytest.mark.parametrize("init", ["svd", "random"])
def test_the_generator_decides_and_nothing_else(rng, init):
    M = np.where(rng.random((30, 40)) < 0.3, planted(rng, 30, 40, 3), np.nan)
    once, again = (start(problem(M), 4, options(7, init=init)) for _ in range(2))
    for x, y in zip(once, again, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not np.array_equal(once[0], start(problem(M), 4, options(8, init=init))[0])


def test_random_factors_have_entries_of_variance_one_over_the_rank(rng):
    A, B, *_ = start(problem(planted(rng, 300, 200, 2)), 5, options(init="random"))
    assert A.var() == pytest.approx(0.2, rel=0.1)
    assert (A @ B.T).var() == pytest.approx(0.2, rel=0.2)
    A, B, *_ = start(problem(np.ones((30, 20)), nonnegative=True), 5, options(init="random"))
    assert min(A.min(), B.min()) >= 0.0


def test_biases_start_at_means_that_few_observations_hardly_move(rng):
    a, b = rng.standard_normal(60), rng.standard_normal(50)
    M = 3.0 + a[:, None] + b
    M[0, 1:] = np.nan
    M[1] = np.nan
    p = problem(M, bias=True, center=True, lam=0.1)
    A, B, row, col = start(p, 2, options())
    fitted = p.mu + p.scale * (row[:, None] + col)
    np.testing.assert_allclose(fitted[2:], M[2:], atol=0.2)
    assert row[1] == 0.0
    # One observation pulls its row at most half of the way.
    left = (M[0, 0] - p.mu) / p.scale - col[0]
    assert abs(row[0]) <= 0.5 * abs(left) + 1e-12
    assert np.linalg.norm(A @ B.T) <= 0.2 * np.linalg.norm(fitted - p.mu)


def test_non_negative_factors_start_at_the_larger_parts_and_without_zeros(rng):
    u, v = rng.random(30), rng.random(20)
    p = problem(np.outer(u, v), nonnegative=True)
    A, B, *_ = start(p, 1, options())
    np.testing.assert_allclose(p.scale * (A @ B.T), np.outer(u, v), rtol=1e-10)
    A, B, *_ = start(problem(np.abs(planted(rng, 30, 20, 4)), nonnegative=True), 4, options())
    assert min(A.min(), B.min()) > 0.0
    below, *_ = start(problem(-np.outer(u, v), nonnegative=True), 1, options())
    assert np.all(below >= 0.0)


@given(seed=st.integers(0, 10**6), k=st.integers(1, 4))
def test_a_positive_part_is_the_larger_of_the_two_that_its_term_has(seed, k):
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((6, k)), rng.standard_normal((5, k))
    P, Q = positive_parts(np, A, B)
    for q in range(k):
        one, other = (
            np.outer(np.maximum(sign * A[:, q], 0), np.maximum(sign * B[:, q], 0))
            for sign in (1, -1)
        )
        larger = max(one, other, key=np.linalg.norm)
        np.testing.assert_array_equal(np.outer(P[:, q], Q[:, q]), larger)
    # Of factors that are non-negative, up to their sign, nothing is lost.
    P, Q = positive_parts(np, -np.abs(A), -np.abs(B))
    np.testing.assert_array_equal(P, np.abs(A))
    np.testing.assert_array_equal(Q, np.abs(B))


def test_clipping_rows_keeps_their_direction_and_bounds_their_length(rng):
    U = rng.standard_normal((200, 4))
    U[[7, 50]] *= 40.0
    U = np.linalg.qr(U)[0]
    be = get_backend("numpy")
    V = clipped(be, U, "row")
    lengths = np.linalg.norm(U, axis=1)
    # mu k / n is what nine rows in ten keep, and at least the average k / n.
    bound = 2.0 * max(np.sort(lengths)[int(0.9 * 199)], np.sqrt(4 / 200))
    np.testing.assert_allclose(np.linalg.norm(V, axis=1), np.minimum(lengths, bound))
    np.testing.assert_allclose(V * (lengths / np.minimum(lengths, bound))[:, None], U)
    assert set(np.flatnonzero(lengths > bound)) == {7, 50}
    V = clipped(be, U, "entry")
    np.testing.assert_array_equal(V, np.where(np.abs(U) > bound, 0.0, U))
    assert np.count_nonzero(V == 0.0) >= 2


@pytest.mark.parametrize("clip", ["row", "entry"])
def test_clipping_takes_effect_on_a_matrix_with_a_spike_and_leaves_others_alone(rng, clip):
    M = planted(rng, 80, 60, 2)
    calm = estimate(problem(M), 2)
    np.testing.assert_allclose(estimate(problem(M), 2, clip=clip), calm, atol=1e-9)
    M[5] *= 100.0
    share = [
        np.linalg.norm(X[5]) / np.linalg.norm(np.delete(X, 5, axis=0))
        for X in (estimate(problem(M), 2, clip=clip), estimate(problem(M), 2))
    ]
    assert share[0] < 0.7 * share[1]


def test_winsorised_values_stay_within_three_median_deviations(rng):
    val = rng.standard_normal((40, 30)) + 2.0
    val[3, 4], val[5, 6] = 100.0, -100.0
    p = problem(val)
    got = winsorised(p).obs
    middle = np.median(val)
    reach = 3.0 * np.median(np.abs(val - middle))
    expected = np.clip(val, middle - reach, middle + reach)
    np.testing.assert_allclose(p.scale * got.by_row.val, expected.ravel())
    np.testing.assert_allclose(p.scale * got.by_col.val, expected.T.ravel())
    mostly = np.zeros((6, 5))
    mostly[0] = [5.0, 1.0, 2.0, 9.0, 4.0]
    np.testing.assert_array_equal(winsorised(problem(mostly)).obs.by_row.val,
                                  problem(mostly).obs.by_row.val)  # fmt: skip


def test_gross_outliers_do_not_lead_a_robust_start_astray(rng):
    X = planted(rng, 120, 100, 2)
    M = np.where(rng.random(X.shape) < 0.5, X, np.nan)
    wrong = rng.random(X.shape) < 0.05
    M[wrong] += 30.0 * rng.standard_normal(wrong.sum())
    assert distance(estimate(problem(M, loss="huber"), 2), X) < 0.5
    assert distance(estimate(problem(M), 2), X) > 1.0


def test_given_factors_are_kept_and_widened_by_little(rng):
    A, B = rng.standard_normal((30, 2)), rng.standard_normal((20, 2))
    p = problem(A @ B.T)
    zero = np.zeros(0)
    a, b = rng.standard_normal(30), rng.standard_normal(20)
    got = start(p, 4, options(x0=(A, B, a, b)))
    np.testing.assert_array_equal(got[0][:, :2], A)
    np.testing.assert_array_equal(got[1][:, :2], B)
    assert got[2] is a
    assert got[3] is b
    added = np.linalg.norm(got[0] @ got[1].T - A @ B.T) / np.linalg.norm(A @ B.T)
    assert 1e-5 < added < 1e-2
    p = problem(np.abs(A @ B.T), nonnegative=True)
    A, B, *_ = start(p, 3, options(x0=(-np.abs(A), -np.abs(B), zero, zero)))
    assert min(A.min(), B.min()) >= 0.0
    assert np.all(A[:, :2] > 0.0)


@pytest.mark.parametrize("model", [{}, {"nonnegative": True}, {"bias": True, "center": True},
                                   {"loss": "huber"}], ids=str)  # fmt: skip
@pytest.mark.parametrize("clip", [None, "row", "entry"])
def test_hostile_data_give_finite_factors(model, clip):
    one = np.full((3, 4), np.nan)
    one[1, 2] = -2.0
    for M in (np.zeros((4, 5)), np.full((4, 5), 3.0), np.ones((1, 1)), one, one[1:2], one.T,
              np.full((3, 3), 1e150), np.full((3, 3), 1e-150)):  # fmt: skip
        for rank in range(1, min(M.shape) + 1):
            for part in start(problem(M, **model), rank, options(clip=clip)):
                assert np.isfinite(part).all()
