"""Reweighted least squares: the dense formula for a step, and recovery from few entries."""

import numpy as np
import pytest

from solvers.completion import alternating_minimization, matrix_irls
from solvers.completion._irls import Interpolant
from solvers.completion._observations import read_entries
from solvers.completion._problem import pose
from tests.completion.exact import dense, error, planted, slope
from tests.completion.test_gauss_newton import MODEL


def interpolant(entries, shape, rank):
    problem = pose(read_entries(entries, shape), **MODEL)
    return problem, Interpolant(problem, rank, np.random.default_rng(0))


def full(x):
    """The whole matrix that an interpolant stands for."""
    X = x._P @ x._V.T + x._U @ x._Q.T
    X[x.problem.obs.rows, x.problem.obs.cols] += x._lacking
    return X


def test_a_step_minimises_the_weighted_norm_among_matrices_that_have_the_entries(rng):
    entries, X = planted(9, 8, 2, 1.4, 3)
    problem, x = interpolant(entries, X.shape, 2)
    U, s, Vt = np.linalg.svd(rng.standard_normal((9, 8)))
    eps = 0.5 * s[1]
    x.reweigh(U[:, :2], s[:2], Vt[:2].T, eps, 1e-14, 400)
    # The inverse of the weight, on vec(X): products of values on the tangent space, eps^2 off it.
    left, right = (np.r_[np.maximum(s[:2], eps), np.full(size - 2, eps)] for size in (9, 8))
    inverse = np.outer(left, right)
    basis = np.einsum("ia,jb->ijab", U, Vt.T).reshape(72, 72)
    W = basis @ np.diag(inverse.ravel()) @ basis.T
    seen = problem.obs.rows * 8 + problem.obs.cols
    values = problem.obs.by_row.val
    expected = W[:, seen] @ np.linalg.solve(W[np.ix_(seen, seen)], values)
    np.testing.assert_allclose(full(x), expected.reshape(9, 8), atol=1e-10)
    np.testing.assert_allclose(full(x)[problem.obs.rows, problem.obs.cols], values, atol=1e-12)
    np.testing.assert_allclose(Vt[:2] @ x._Q, 0.0, atol=1e-12)


def test_the_spectrum_is_that_of_the_whole_matrix(rng):
    entries, X = planted(30, 25, 3, 2.0, 5)
    _, x = interpolant(entries, X.shape, 3)
    x.randomise(rng)
    U, s, V = x.spectrum(40)
    exact = np.linalg.svd(full(x), compute_uv=False)
    np.testing.assert_allclose(s[:4], exact[:4], rtol=1e-6)
    np.testing.assert_allclose(full(x) @ V, U * s[:3], atol=1e-4 * s[0])
    assert x.estimate().s.size == 3


@pytest.mark.parametrize(
    ("rank", "oversampling", "cond"), [(3, 1.7, 1.0), (4, 1.7, 1e3), (4, 2.0, 1e5)]
)
def test_matrices_are_recovered_from_few_entries_whatever_their_spectrum(rank, oversampling, cond):
    found = 0
    for seed in range(3):
        entries, X = planted(120, 100, rank, oversampling, seed, cond)
        res = matrix_irls(entries, rank, shape=X.shape, tol=1e-12, rng=0)
        found += res.success and error(dense(res), X) <= 1e-8
    assert found == 3


def test_too_large_a_rank_does_no_harm():
    entries, X = planted(80, 70, 2, 6.0, 7)
    res = matrix_irls(entries, 4, shape=X.shape, tol=1e-10, rng=0)
    assert res.success
    assert error(dense(res), X) <= 1e-7
    assert (res.s[2:] <= 1e-6 * res.s[0]).all()


@pytest.mark.parametrize("sigma", [1e-4, 0.3])
def test_noise_ends_as_a_weighted_least_squares_fit(sigma):
    (rows, cols, vals), X = planted(60, 50, 2, 3.0, 9, noise=sigma)
    w = np.random.default_rng(2).uniform(0.5, 2.0, vals.size)
    res = matrix_irls((rows, cols, vals), 2, shape=X.shape, weights=w, tol=1e-9, rng=0)
    assert res.success
    assert not res.exact_fit
    assert slope(res, rows, cols, vals, w) <= 1e-8
    # Noise is spread over all degrees of freedom, and nothing else is.
    assert error(dense(res), X) <= 2 * sigma


def test_gauss_newton_steps_finish():
    entries, X = planted(60, 50, 2, 3.0, 11)
    res = matrix_irls(entries, 2, shape=X.shape, tol=1e-12, rng=0)
    assert [name for name, _, _ in res.stages] == ["irls", "gn"]
    assert res.nit == sum(nit for _, nit, _ in res.stages)


def test_more_starts_are_made_if_asked_for():
    # No start leads to an exact fit of noise.
    entries, X = planted(40, 40, 3, 2.0, 4, noise=0.1)
    options = {"shape": X.shape, "tol": 1e-8, "rng": 0, "maxiter": 2000}
    once = matrix_irls(entries, 3, **options)
    often = matrix_irls(entries, 3, n_init=3, **options)
    assert often.nit > once.nit
    assert often.success
    assert often.relres <= once.relres * (1 + 1e-12)


@pytest.mark.parametrize(("name", "value"), [("lam", 1.0), ("bias", True), ("implicit", True)])
def test_what_is_no_interpolation_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^`{name}` .* expected"):
        alternating_minimization(np.eye(4) + 1.0, 1, method="irls", **{name: value})


def test_the_full_rank_is_found_without_a_spectrum():
    M = np.random.default_rng(0).standard_normal((6, 3))
    res = matrix_irls(M, 3, tol=1e-12, rng=0)
    assert res.success
    np.testing.assert_allclose(dense(res), M, atol=1e-9)
