import numpy as np
import pytest
import scipy.sparse as sp

from solvers._core.backend import get_backend
from solvers.completion._factors import Factors, entries, padded, svd_of_product
from solvers.completion._observations import observe, read_entries
from solvers.completion._problem import pose

SHAPE = 9, 7
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
be = get_backend("numpy")


@pytest.fixture
def data(rng):
    """Values with gaps, weights, factors and biases, in the caller's unit."""
    M = 5.0 + 30.0 * rng.normal(size=SHAPE)
    M[rng.random(SHAPE) < 0.4] = np.nan
    M[0, 0], M[3] = 1.0, np.nan
    A, B = (rng.normal(size=(size, 3)) for size in SHAPE)
    a, b = (rng.normal(size=size) for size in SHAPE)
    return M, rng.random(SHAPE) + 0.5, A, B, a, b


def problem_of(M, weights=None, **options):
    return pose(read_entries(M, None, weights), **{**PLAIN, **options})


def in_unit(problem, A, B, a=None, b=None):
    """Factors of the caller's unit in the problem's."""
    root = np.sqrt(problem.scale)
    none = np.empty(0)
    biases = (none, none) if a is None else (a / problem.scale, b / problem.scale)
    return A / root, B / root, *biases


def objective(problem, state):
    A, B, a, b = state
    misfit = problem.misfit(A, B, problem.residual(*state))
    return (misfit + problem.penalty(A, B, a, b)) * problem.scale**2


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("weighted_lambda", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_objective_is_the_callers(data, weighted, weighted_lambda, bias):
    M, weights, A, B, a, b = data
    weights = weights if weighted else np.ones(SHAPE)
    lam, lam_bias = 1.7, 0.3
    problem = problem_of(
        M,
        weights if weighted else None,
        lam=lam,
        bias=bias,
        center=bias,
        lam_bias=lam_bias,
        weighted_lambda=weighted_lambda,
    )
    known = ~np.isnan(M)
    mu = np.average(M[known], weights=weights[known]) if bias else 0.0
    a, b = (a, b) if bias else (np.zeros(9), np.zeros(7))
    r = (mu + a[:, None] + b + A @ B.T - M)[known]
    d, e = (known.sum(axis=axis) if weighted_lambda else 1.0 for axis in (1, 0))
    sizes = (d * np.square(A).sum(axis=1)).sum() + (e * np.square(B).sum(axis=1)).sum()
    expected = 0.5 * (weights[known] * r**2).sum() + 0.5 * lam * sizes
    expected += 0.5 * lam_bias * (a @ a + b @ b)
    state = in_unit(problem, A, B, *((a, b) if bias else ()))
    assert objective(problem, state) == pytest.approx(expected, rel=1e-12)
    assert problem.mu == pytest.approx(mu)
    assert np.sqrt(np.mean(np.square(M[known] - mu))) == pytest.approx(problem.scale)


def test_relative_residuals_are_of_the_observed_entries(data):
    M, weights, A, B, _, _ = data
    known = ~np.isnan(M)
    problem = problem_of(M, weights)
    state = in_unit(problem, A, B)
    relres = problem.relres(problem.misfit(A, B, problem.residual(*state)))
    w, r = weights[known], (A @ B.T - M)[known]
    assert relres == pytest.approx(np.sqrt((w * r**2).sum() / (w * M[known] ** 2).sum()))


@pytest.mark.parametrize("alpha", [0.5, 40.0])
def test_implicit_feedback_counts_every_place(rng, alpha):
    R = rng.poisson(0.6, SHAPE).astype(float)
    R[2, 3] = -2.0
    A, B = (rng.normal(size=(size, 3)) for size in SHAPE)
    problem = problem_of(sp.csr_array(R), implicit=True, alpha=alpha, lam=0.4)
    C, P = 1.0 + alpha * np.abs(R), (R > 0) * 1.0
    expected = 0.5 * (C * (P - A @ B.T) ** 2).sum() + 0.2 * ((A**2).sum() + (B**2).sum())
    state = in_unit(problem, A, B)
    assert objective(problem, state) == pytest.approx(expected, rel=1e-12)
    assert (problem.mu, problem.scale) == (0.0, 1.0)
    # At zero the misfit is all there is.
    nothing = in_unit(problem, 0 * A, 0 * B)
    misfit = problem.misfit(*nothing[:2], problem.residual(*nothing))
    assert problem.relres(misfit) == pytest.approx(1.0)


def test_feedback_is_merged_before_it_becomes_weights():
    twice = sp.coo_array(([1.0, 2.0, 0.0, 3.0], ([0, 0, 1, 1], [0, 0, 1, 0])), shape=(2, 2))
    merged = problem_of(twice, implicit=True, duplicates="sum").obs
    np.testing.assert_array_equal(merged.by_row.weight, [3.0, 3.0])
    # What was consumed not once is no observation.
    np.testing.assert_array_equal(merged.rows, [0, 1])
    with pytest.raises(ValueError, match=r"^`M` holds zeros only"):
        problem_of(np.zeros((2, 2)), implicit=True)


def test_frequent_rows_may_count_more_in_the_ridge():
    R = sp.csr_array([[1.0, 1.0, 1.0], [0.0, 2.0, 0.0]])
    problem = problem_of(R, implicit=True, nu=0.5, alpha0=2.0, lam=0.1)
    np.testing.assert_allclose(problem.row_ridge, 0.1 * np.sqrt([3 + 6, 1 + 6]))
    np.testing.assert_allclose(problem.col_ridge, 0.1 * np.sqrt([1 + 4, 2 + 4, 1 + 4]))


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("weighted_lambda", [False, True])
def test_balanced_factors_have_the_smallest_penalty(data, rng, nonnegative, weighted_lambda):
    M, _, A, B, _, _ = data
    problem = problem_of(M, lam=1.0, weighted_lambda=weighted_lambda, nonnegative=nonnegative)
    A, B = (np.abs(A), np.abs(B)) if nonnegative else (A, B)
    none = np.empty(0)
    x = problem.balance(A, B, none, none)
    np.testing.assert_allclose((x.U * x.s) @ x.V.T, A @ B.T, atol=1e-12)
    best = problem.balanced(x)
    np.testing.assert_allclose(best[0] @ best[1].T, A @ B.T, atol=1e-12)
    least = problem.penalty(*best, none, none)
    for _ in range(20):
        # Another gauge; only sizes are free where signs are not.
        T = np.eye(3) + 0.1 * rng.normal(size=(3, 3))
        T = np.diag(np.diag(T)) if nonnegative else T
        other = best[0] @ T, best[1] @ np.linalg.inv(T).T
        assert problem.penalty(*other, none, none) >= least * (1.0 - 1e-12)
    if nonnegative:
        assert min(x.U.min(), x.V.min(), best[0].min(), best[1].min()) >= 0.0
        np.testing.assert_allclose(np.linalg.norm(x.U, axis=0), 1.0)


def test_columns_of_zeros_balance_without_nan(data):
    M, _, A, B, _, _ = data
    none = np.empty(0)
    A[:, 1] = 0.0
    for nonnegative in (False, True):
        problem = problem_of(M, lam=1.0, weighted_lambda=True, nonnegative=nonnegative)
        x = problem.balance(np.abs(A), np.abs(B), none, none)
        assert all(np.isfinite(part).all() for part in (*x, *problem.balanced(x)))
        assert x.s[-1] == pytest.approx(0.0, abs=1e-12)


def test_the_penalty_of_the_svd_is_the_nuclear_norm(data):
    M, _, A, B, _, _ = data
    problem = problem_of(M, lam=2.0)
    none = np.empty(0)
    balanced = problem.balanced(problem.balance(A, B, none, none))
    nuclear = np.linalg.norm(A @ B.T, "nuc")
    assert problem.penalty(*balanced, none, none) == pytest.approx(problem.lam * nuclear)


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1e30, 1e200])
def test_values_of_any_size_are_scaled(data, size):
    M = data[0]
    plain, scaled = problem_of(M), problem_of(size * M)
    assert scaled.scale / size == pytest.approx(plain.scale)
    np.testing.assert_allclose(scaled.obs.by_row.val, plain.obs.by_row.val, rtol=1e-12)
    np.testing.assert_allclose(scaled.obs.by_col.val, plain.obs.by_col.val, rtol=1e-12)


def test_data_that_say_nothing_are_scaled_by_one():
    assert problem_of(np.zeros((2, 3))).scale == 1.0
    centred = problem_of(np.full((2, 3), 4.0), center=True)
    assert (centred.mu, centred.scale) == (4.0, 1.0)
    np.testing.assert_array_equal(centred.obs.by_row.val, 0.0)


def test_the_callers_values_are_not_scaled_in_place(data):
    rows, cols = np.nonzero(~np.isnan(data[0]))
    vals = data[0][rows, cols]
    before = vals.copy()
    pose(read_entries((rows, cols, vals), SHAPE), **{**PLAIN, "center": True})
    np.testing.assert_array_equal(vals, before)


def test_a_given_unit_is_kept(data):
    entered = read_entries(data[0])
    problem = pose(entered, **{**PLAIN, "lam": 3.0, "center": True}, unit=(2.0, 1.0))
    assert (problem.mu, problem.scale, problem.lam) == (2.0, 1.0, 3.0)
    np.testing.assert_allclose(problem.obs.by_row.val, observe(entered).by_row.val - 2.0)


def test_long_sums_of_single_precision_do_not_lose_their_tail():
    M = np.full((2000, 100), 1.0, np.float32)
    M[::2] = 1e-3
    problem = problem_of(M)
    assert problem.dtype == np.float32
    expected = np.sqrt(0.5 * (1.0 + 1e-6))
    assert problem.scale == pytest.approx(expected, rel=1e-6)
    assert problem.norm == pytest.approx(np.sqrt(M.size), rel=1e-6)


# Factors.


def test_the_svd_of_a_product_is_numpys(rng):
    A, B = rng.normal(size=(9, 3)), rng.normal(size=(7, 3))
    U, s, V = svd_of_product(be, A, B)
    np.testing.assert_allclose(s, np.linalg.svd(A @ B.T)[1][:3])
    np.testing.assert_allclose((U * s) @ V.T, A @ B.T, atol=1e-13)
    np.testing.assert_allclose(U.T @ U, np.eye(3), atol=1e-13)


def test_small_singular_values_keep_their_digits(rng):
    # Gram matrices would lose whatever is below 1e-8.
    s = np.array([1.0, 1e-6, 1e-12])
    U, V = (np.linalg.qr(rng.normal(size=(size, 3)))[0] for size in SHAPE)
    found = svd_of_product(be, U * np.sqrt(s), V * np.sqrt(s))[1]
    np.testing.assert_allclose(found, s, rtol=1e-3)


def test_single_entries_are_those_of_the_product(data, rng):
    _, _, A, B, a, b = data
    rows, cols = rng.integers(0, 9, 40), rng.integers(0, 7, 40)
    none = np.empty(0)
    X = A @ B.T
    np.testing.assert_allclose(entries(be, A, B, none, none, rows, cols), X[rows, cols])
    X += a[:, None] + b
    np.testing.assert_allclose(entries(be, A, B, a, b, rows, cols), X[rows, cols])


def test_missing_columns_are_filled_with_noise_of_the_size_asked_for(rng):
    A, B = rng.normal(size=(400, 2)), rng.normal(size=(300, 2))
    wide = padded(be, A, B, 6, rng, 1e-3)
    for narrow, F in zip((A, B), wide, strict=True):
        np.testing.assert_array_equal(F[:, :2], narrow)
        assert F.shape[1] == 6
    added = wide[0][:, 2:] @ wide[1][:, 2:].T
    assert np.linalg.norm(added) == pytest.approx(1e-3, rel=0.3)
    assert padded(be, A, B, 2, rng, 1.0)[0] is A


def test_balanced_factors_of_an_svd_have_equal_grams(rng):
    U, V = (np.linalg.qr(rng.normal(size=(size, 2)))[0] for size in SHAPE)
    none = np.empty(0)
    A, B = Factors(U, np.array([4.0, 1.0]), V, none, none).balanced(be)
    np.testing.assert_allclose(A.T @ A, np.diag([4.0, 1.0]), atol=1e-14)
    np.testing.assert_allclose(B.T @ B, np.diag([4.0, 1.0]), atol=1e-14)
