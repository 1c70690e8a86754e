"""LMaFit: over-relaxed, weighted, and honest about what it cannot do."""

import numpy as np
import pytest

from solvers import ConvergenceWarning, completion
from tests.completion.test_scaled_gd import distance, planted


def complete(rows, cols, vals, X, rank, **options):
    return completion.alternating_minimization(
        (rows, cols, vals), rank, shape=X.shape, method="lmafit", rng=0, **options
    )


def plain_lmafit(M, seen, U, V, steps):
    """Relaxation one, with the filled-in matrix formed: the method of the paper, literally."""
    for _ in range(steps):
        Z = np.where(seen, M, U @ V.T)
        U = Z @ V @ np.linalg.pinv(V.T @ V)
        V = Z.T @ U @ np.linalg.pinv(U.T @ U)
    return U @ V.T


@pytest.mark.parametrize("seed", range(3))
def test_a_matrix_of_low_rank_is_recovered(seed):
    rows, cols, vals, X = planted(60, 45, 3, 0.5, seed, cond=2.0)
    res = complete(rows, cols, vals, X, 3, tol=1e-9)
    assert res.success
    assert distance(res, X) < 1e-7


def test_the_first_step_is_that_of_the_filled_in_matrix():
    rows, cols, vals, X = planted(20, 15, 2, 0.6, 1, noise=0.2)
    seen, M = np.zeros(X.shape, bool), np.zeros(X.shape)
    seen[rows, cols], M[rows, cols] = True, vals
    rng = np.random.default_rng(0)
    U0, V0 = rng.standard_normal((20, 2)), rng.standard_normal((15, 2))
    with pytest.warns(ConvergenceWarning):
        res = complete(rows, cols, vals, X, 2, x0=(U0, V0), maxiter=1, tol=1e-12)
    np.testing.assert_allclose(res.todense(), plain_lmafit(M, seen, U0, V0, 1), atol=1e-10)


def test_relaxation_beats_plain_alternation():
    rows, cols, vals, X = planted(60, 45, 3, 0.5, 1)
    seen, M = np.zeros(X.shape, bool), np.zeros(X.shape)
    seen[rows, cols], M[rows, cols] = True, vals
    res = complete(rows, cols, vals, X, 3, tol=1e-8)
    U, s, Vt = np.linalg.svd(M / seen.mean())
    plain = plain_lmafit(M, seen, U[:, :3] * s[:3], Vt[:3].T, res.nit)
    assert np.linalg.norm((plain - M)[seen]) > 100 * res.relres * np.linalg.norm(vals)


def test_weighted_noisy_data_end_at_a_weighted_stationary_point():
    rows, cols, vals, X = planted(40, 30, 2, 0.6, 3, noise=0.2)
    w = np.random.default_rng(0).uniform(0.3, 2.0, vals.size)
    res = complete(rows, cols, vals, X, 2, weights=w, tol=1e-9)
    R = np.zeros(X.shape)
    R[rows, cols] = w * (res.todense()[rows, cols] - vals)
    assert res.success
    assert np.linalg.norm(R @ res.V) < 1e-7 * np.linalg.norm(w * vals)
    assert np.linalg.norm(R.T @ res.U) < 1e-7 * np.linalg.norm(w * vals)


def test_the_objective_never_rises():
    rows, cols, vals, X = planted(40, 30, 2, 0.5, 3, noise=0.2)
    values = complete(rows, cols, vals, X, 2).history["objective"]
    fall = np.diff(values)
    assert np.all(fall <= 1e-14 * values[0])
    assert np.any(fall == 0.0), "no step was ever rejected: the rule was not at work"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"lam": 0.1}, "lam"),
        ({"bias": True}, "bias"),
        ({"loss": "huber"}, "method"),
        ({"nonnegative": True}, "method"),
    ],
)
def test_what_it_cannot_solve_is_refused_by_name(options, name):
    rows, cols, vals, X = planted(20, 15, 2, 0.6, 3)
    with pytest.raises(ValueError, match=f"^`{name}`"):
        complete(rows, cols, abs(vals), X, 2, **options)
