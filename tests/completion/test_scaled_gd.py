"""Scaled gradient descent: exact steps, a rate that no condition number changes, every model."""

import numpy as np
import pytest
import scipy.optimize

from solvers import ConvergenceWarning, Status, completion
from solvers.completion._scaled_gd import best_step


def planted(m, n, rank, share, seed, *, cond=1.0, noise=0.0):
    """Entries of a matrix with rms 1, at least two more than `rank` in each row and column."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((length, rank)))[0] for length in (m, n))
    s = np.geomspace(cond, 1.0, rank)
    X = (U * (s * np.sqrt(m * n) / np.linalg.norm(s))) @ V.T
    seen = rng.random((m, n)) < share
    seen[:, : rank + 2] |= seen.sum(axis=1, keepdims=True) < rank + 2
    seen[: rank + 2] |= seen.sum(axis=0) < rank + 2
    rows, cols = np.nonzero(seen)
    return rows, cols, X[rows, cols] + noise * rng.standard_normal(rows.size), X


def complete(rows, cols, vals, X, rank, **options):
    return completion.scaled_gd((rows, cols, vals), rank, shape=X.shape, rng=0, **options)


def distance(res, X):
    return np.linalg.norm(res.todense() - X) / np.linalg.norm(X)


@pytest.mark.parametrize("seed", range(4))
def test_the_step_is_the_smallest_point_of_the_quartic(seed):
    rng = np.random.default_rng(seed)
    c = rng.standard_normal(5)
    c[4] = abs(c[4])
    t = best_step(c)
    grid = np.linspace(-20.0, 20.0, 400_001)
    values = np.polynomial.polynomial.polyval(grid, c)
    assert np.polynomial.polynomial.polyval(t, c) <= values.min() + 1e-9 * (1 + abs(values.min()))


def test_a_constant_a_line_that_never_ends_and_nan_give_no_step():
    assert best_step(np.zeros(5)) == 0.0
    assert best_step(np.array([0.0, np.nan, 1.0, 0.0, 1.0])) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_a_matrix_of_low_rank_is_recovered(seed):
    rows, cols, vals, X = planted(60, 45, 3, 0.45, seed, cond=3.0)
    res = complete(rows, cols, vals, X, 3, tol=1e-10)
    assert res.success
    assert distance(res, X) < 1e-8


def test_near_the_solution_the_rate_does_not_depend_on_the_condition_number():
    counts = []
    for cond in (1.0, 1e4):
        rows, cols, vals, X = planted(80, 60, 3, 0.5, 7, cond=cond)
        U, s, Vt = np.linalg.svd(X)
        rng = np.random.default_rng(1)
        # As close, for each singular value, as for the largest one.
        U0, V0 = (
            F[:, :3] * np.sqrt(s[:3]) * (1.0 + 0.02 * rng.standard_normal((len(F), 1)))
            for F in (U, Vt.T)
        )
        res = complete(rows, cols, vals, X, 3, tol=1e-12, x0=(U0, V0))
        assert res.success
        counts.append(res.nit)
    assert max(counts) <= 1.5 * min(counts)
    assert max(counts) < 60


def test_the_objective_never_rises():
    rows, cols, vals, X = planted(50, 40, 3, 0.4, 2, noise=0.3)
    res = complete(rows, cols, vals, X, 3, lam=1.0, bias=True, tol=1e-9)
    fall = np.diff(res.history["objective"])
    assert np.all(fall <= 1e-12 * res.history["objective"][0])


def objective(x, rows, cols, vals, w, shape, k, lam, lam_bias, row_lam, col_lam):
    """The ridge objective with biases in plain NumPy, and its gradient."""
    m, n = shape
    A, B = x[: m * k].reshape(m, k), x[m * k : (m + n) * k].reshape(n, k)
    a, b = x[(m + n) * k : (m + n) * k + m], x[(m + n) * k + m :]
    r = (A[rows] * B[cols]).sum(axis=1) + a[rows] + b[cols] - vals
    D, E = lam * row_lam[:, None], lam * col_lam[:, None]
    f = 0.5 * w @ r**2 + 0.5 * ((D * A**2).sum() + (E * B**2).sum())
    f += 0.5 * lam_bias * (a @ a + b @ b)
    R = np.zeros(shape)
    R[rows, cols] = w * r
    parts = R @ B + D * A, R.T @ A + E * B, R.sum(1) + lam_bias * a, R.sum(0) + lam_bias * b
    return f, np.concatenate([part.ravel() for part in parts])


@pytest.mark.parametrize("weighted_lambda", [False, True])
def test_ridge_weights_and_biases_reach_the_value_of_a_quasi_newton_method(weighted_lambda):
    rows, cols, vals, X = planted(20, 15, 2, 0.6, 3, noise=0.3)
    rng = np.random.default_rng(0)
    w, k, lam = rng.uniform(0.5, 2.0, vals.size), 4, 0.1 if weighted_lambda else 1.0
    vals = vals + rng.standard_normal(20)[rows] + 0.5
    counts = [np.bincount(i, minlength=size).astype(float) for i, size in ((rows, 20), (cols, 15))]
    D, E = counts if weighted_lambda else (np.ones(20), np.ones(15))
    res = complete(
        rows, cols, vals, X, k, lam=lam, weights=w, bias=True, lam_bias=0.7, center=False,
        weighted_lambda=weighted_lambda, tol=1e-9,
    )  # fmt: skip
    args = (rows, cols, vals, w, X.shape, k, lam, 0.7, D, E)
    best = min(
        scipy.optimize.minimize(
            objective, rng.standard_normal((35 * k) + 35), args, "L-BFGS-B", jac=True,
            options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10},
        ).fun
        for _ in range(2)
    )  # fmt: skip
    assert res.success
    assert res.fun == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(
    "model",
    [{}, {"lam": 2.0}, {"lam": 0.1, "weighted_lambda": True}, {"bias": True, "lam_bias": 1.0}],
    ids=["plain", "ridge", "weighted_lambda", "bias"],
)
def test_the_gradient_that_it_watches_is_the_one_that_the_certificate_finds(model):
    rows, cols, vals, X = planted(40, 30, 2, 0.6, 3, noise=0.3)
    w = np.random.default_rng(0).uniform(0.5, 2.0, vals.size)
    res = complete(rows, cols, vals, X, 2, weights=w, tol=1e-5, **model)
    assert res.success
    # Factors are balanced only for the certificate, which counts where there is a ridge.
    assert res.grad_norm == pytest.approx(res.history["grad"][-1], rel=0.5 if model else 1e-6)


def test_a_rank_that_is_too_large_does_no_harm():
    rows, cols, vals, X = planted(80, 70, 2, 0.5, 4)
    res = complete(rows, cols, vals, X, 4, tol=1e-8)
    assert res.success
    # What is left over may hide where nothing is observed, but must not explode.
    assert distance(res, X) < 0.2


def test_rows_are_projected_onto_what_the_data_leaves_plausible():
    rows, cols, vals, X = planted(40, 30, 2, 0.5, 6, noise=0.1)
    keep = rows != 0
    rows, cols, vals = rows[keep], cols[keep], vals[keep]
    # Nothing is known of the first row, so nothing but the projection shortens it.
    left, right = (np.random.default_rng(0).standard_normal((size, 2)) for size in (40, 30))
    left[0] = 1e4
    longest = 2.0 * np.sqrt(30 * max(np.mean(vals[rows == i] ** 2) for i in range(1, 40)))
    lengths = []
    for clip in (None, "row"):
        with pytest.warns(ConvergenceWarning):
            res = complete(rows, cols, vals, X, 2, clip=clip, x0=(left, right), maxiter=1)
        lengths.append(np.linalg.norm(res.todense(), axis=1)[0])
    assert lengths[1] <= longest * (1 + 1e-9) < lengths[0]


def test_the_answer_for_the_transpose_is_the_transpose():
    rows, cols, vals, X = planted(40, 30, 2, 0.5, 8, noise=0.1)
    here = complete(rows, cols, vals, X, 2, lam=0.5, tol=1e-9)
    there = complete(cols, rows, vals, X.T, 2, lam=0.5, tol=1e-9)
    np.testing.assert_allclose(there.todense().T, here.todense(), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scaling_the_data_scales_the_answer(scale):
    rows, cols, vals, X = planted(40, 30, 2, 0.5, 8, noise=0.1)
    here = complete(rows, cols, vals, X, 2, lam=0.5)
    there = complete(rows, cols, scale * vals, X, 2, lam=0.5 * scale)
    np.testing.assert_allclose(there.todense() / scale, here.todense(), atol=1e-8)
    assert there.nit == here.nit


def test_entries_of_weight_zero_change_nothing():
    rows, cols, vals, X = planted(30, 25, 2, 0.6, 9, noise=0.1)
    keep = np.arange(vals.size) % 9 > 0
    w = keep.astype(float)
    here = complete(rows, cols, np.where(keep, vals, 99.0), X, 2, weights=w, tol=1e-9)
    there = complete(rows[keep], cols[keep], vals[keep], X, 2, tol=1e-9)
    np.testing.assert_allclose(here.todense(), there.todense(), atol=1e-7)


def test_a_tolerance_out_of_reach_ends_with_a_word_and_one_warning():
    rows, cols, vals, X = planted(30, 25, 2, 0.6, 9, noise=0.1)
    with pytest.warns(ConvergenceWarning) as record:
        res = complete(rows, cols, vals, X, 2, tol=1e-300, maxiter=5)
    assert len(record) == 1
    assert (res.status, res.nit, res.success) == (Status.MAXITER, 5, False)


def test_a_run_that_rounding_holds_up_ends_there():
    rows, cols, vals, X = planted(30, 25, 2, 0.6, 9)
    res = complete(rows, cols, vals, X, 2, tol=1e-300)
    assert 1e-300 < res.certificate.tol < 1e-14
    assert res.nit < 500
    assert distance(res, X) < 1e-13


def test_a_warm_start_at_the_solution_ends_at_once():
    rows, cols, vals, X = planted(40, 30, 2, 0.5, 8)
    first = complete(rows, cols, vals, X, 2, tol=1e-10)
    assert complete(rows, cols, vals, X, 2, tol=1e-9, x0=first).nit <= 2


@pytest.mark.parametrize("method", ["scaled_gd", "lmafit"])
@pytest.mark.parametrize(
    "M",
    [
        np.array([[3.0]]),
        np.array([[1.0, np.nan, -2.0, 4.0]]),
        np.array([[1.0], [np.nan], [2.0]]),
        np.zeros((4, 5)),
        np.full((4, 5), 7.0),
    ],
    ids=["1x1", "row", "column", "zeros", "constant"],
)
def test_awkward_matrices_are_fitted(M, method):
    X = completion.alternating_minimization(M, 1, method=method, rng=0).todense()
    seen = ~np.isnan(M)
    assert np.isfinite(X).all()
    np.testing.assert_allclose(X[seen], M[seen], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"loss": "huber"}, "method"),
        ({"implicit": True, "lam": 1.0}, "implicit"),
        ({"nonnegative": True}, "method"),
    ],
)
def test_other_problems_are_refused_by_name(options, name):
    rows, cols, vals, X = planted(20, 15, 2, 0.6, 3)
    with pytest.raises(ValueError, match=f"^`{name}`"):
        completion.alternating_minimization(
            (rows, cols, abs(vals)), 2, shape=X.shape, method="scaled_gd", **options
        )
