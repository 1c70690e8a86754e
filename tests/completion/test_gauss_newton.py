"""Gauss-Newton steps: dense formulas for the model, recovery, and fits that stay stationary."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import ConvergenceWarning, Status, completion
from solvers.completion import _gauss_newton
from solvers.completion._gauss_newton import Model, Progress, gauss_newton
from solvers.completion._observations import read_entries
from solvers.completion._problem import pose
from tests.completion.exact import dense, error, least_squares, planted, slope

MODEL = {
    "lam": 0.0,
    "lam_bias": None,
    "weighted_lambda": False,
    "bias": False,
    "center": False,
    "implicit": False,
    "alpha": 2.0,
    "nu": 0.0,
    "alpha0": 1.0,
    "nonnegative": False,
    "loss": "squared",
    "delta": None,
    "duplicates": "error",
}
KINDS = {
    "plain": {},
    "ridge": {"lam": 0.7},
    "weighted ridge": {"lam": 0.1, "weighted_lambda": True},
    "biases": {"lam": 0.3, "bias": True, "lam_bias": 0.8},
    "biases without ridge": {"bias": True},
    "implicit": {"lam": 0.4, "implicit": True},
}


def posed(rng, weights=None, **kind):
    rows, cols = np.nonzero(rng.random((11, 9)) < 0.6)
    vals = rng.standard_normal(rows.size)
    w = weights if weights is None else rng.uniform(0.5, 2.0, rows.size)
    entered = read_entries((rows, cols, vals), (11, 9), w)
    return pose(entered, **{**MODEL, **kind})


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_models_slope_is_the_objectives(rng, kind, weighted):
    if weighted and kind == "implicit":
        pytest.skip("implicit feedback has weights of its own")
    problem = posed(rng, weighted or None, **KINDS[kind])
    biases = (rng.standard_normal(size if problem.biased else 0) for size in (11, 9))
    x = problem.balance(rng.standard_normal((11, 2)), rng.standard_normal((9, 2)), *biases)
    here = Model(problem, x, 1e-10)
    d = rng.standard_normal(here._slope.shape)

    def fun(t):
        return Model(problem, here.moved(t * d), 1e-10).fun

    # Retractions agree with the tangent vector to first order.
    t = 1e-5
    measured = (fun(t) - fun(-t)) / (2 * t)
    assert measured == pytest.approx((here._slope * d).sum(), rel=1e-6, abs=1e-6)


def test_steps_solve_the_damped_normal_equations_and_promise_what_the_model_does(rng):
    problem = posed(rng, weights=True)
    x = problem.balance(
        rng.standard_normal((11, 2)), rng.standard_normal((9, 2)), np.empty(0), np.empty(0)
    )
    here, damping = Model(problem, x, 1e-10), 0.3
    solve, promised = here.step(damping, 1e-13, 200)
    rows, cols, w = problem.obs.rows, problem.obs.cols, problem.obs.by_row.weight
    J = np.zeros((rows.size, 20, 2))
    J[np.arange(rows.size), rows] = x.V[cols]
    J[np.arange(rows.size), 11 + cols] = x.U[rows]
    J = J.reshape(rows.size, -1)
    H, g = J.T @ (w[:, None] * J), here._slope.reshape(-1)
    # Damping is relative to the mean curvature, the density times the weights' mean.
    d = np.linalg.solve(H + damping * w.sum() / 99 * np.eye(40), -g)
    np.testing.assert_allclose(solve.x, d, rtol=1e-8, atol=1e-10)
    assert promised == pytest.approx(-(g @ d) - 0.5 * d @ H @ d, rel=1e-8)


@pytest.mark.parametrize("share", [0.1, 0.0])
def test_a_preconditioner_by_blocks_or_diagonal_gives_the_same_step(rng, monkeypatch, share):
    problem = posed(rng, weights=True, lam=0.2)
    x = problem.balance(
        rng.standard_normal((11, 2)), rng.standard_normal((9, 2)), np.empty(0), np.empty(0)
    )
    expected = Model(problem, x, 1e-10).step(0.1, 1e-12, 200)[0]
    calls = []

    def refuse(nbytes, what, remedy="", *, be=None):
        calls.append(nbytes)
        if not share:
            raise MemoryError

    monkeypatch.setattr(_gauss_newton, "check_memory", refuse)
    solve = Model(problem, x, 1e-10).step(0.1, 1e-12, 200)[0]
    assert calls == [20 * 2 * 2 * 8 / 0.1]
    np.testing.assert_allclose(solve.x, expected.x, rtol=1e-8, atol=1e-10)


def test_retraction_rounds_to_the_nearest_matrix_of_the_rank(rng):
    problem = posed(rng)
    x = problem.balance(
        rng.standard_normal((11, 2)), rng.standard_normal((9, 2)), np.empty(0), np.empty(0)
    )
    d = rng.standard_normal((20, 2))
    moved = Model(problem, x, 1e-10).moved(d)
    X = (x.U * x.s) @ x.V.T + d[:11] @ x.V.T + x.U @ d[11:].T
    U, s, Vt = np.linalg.svd(X)
    np.testing.assert_allclose((moved.U * moved.s) @ moved.V.T, (U[:, :2] * s[:2]) @ Vt[:2])


@pytest.mark.parametrize(("oversampling", "cond"), [(3.0, 1.0), (6.0, 5.0)])
def test_planted_matrices_are_recovered_to_rounding(oversampling, cond):
    entries, X = planted(80, 70, 3, oversampling, 1, cond)
    res = gauss_newton(entries, 3, shape=X.shape, tol=1e-13, rng=0)
    assert res.success
    assert res.exact_fit
    assert error(dense(res), X) <= 1e-11
    # The last steps each square the error.
    assert res.nit <= 25


def test_noise_with_weights_ends_stationary_and_no_row_can_be_better(rng):
    (rows, cols, vals), X = planted(45, 40, 2, 6.0, 3, noise=0.3)
    w = rng.uniform(0.2, 3.0, vals.size)
    res = gauss_newton((rows, cols, vals), 2, shape=X.shape, weights=w, tol=1e-11, rng=0)
    assert res.success
    assert not res.exact_fit
    assert slope(res, rows, cols, vals, w) <= 1e-10
    np.testing.assert_allclose(least_squares(rows, cols, vals, w, res.V), res.U * res.s, atol=1e-8)


def test_a_small_fit_to_everything_is_the_truncated_svd(rng):
    M = rng.standard_normal((14, 3)) @ np.diag([9.0, 5.0, 0.5]) @ rng.standard_normal((3, 10))
    U, s, Vt = np.linalg.svd(M)
    res = gauss_newton(M, 2, tol=1e-10, rng=0)
    np.testing.assert_allclose(dense(res), (U[:, :2] * s[:2]) @ Vt[:2], atol=1e-7)


def test_a_warm_start_at_the_solution_takes_no_step():
    entries, X = planted(50, 40, 2, 4.0, 5)
    res = gauss_newton(entries, 2, shape=X.shape, tol=1e-11, rng=0)
    again = gauss_newton(entries, 2, shape=X.shape, tol=1e-10, x0=res)
    assert again.success
    assert again.nit == 0
    np.testing.assert_allclose(dense(again), dense(res), atol=1e-9)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "plain"])
def test_every_penalised_fit_is_stationary_and_as_low_as_alternation_gets(rng, kind):
    (rows, cols, vals), X = planted(30, 25, 2, 5.0, 7, noise=0.2)
    vals = np.abs(np.rint(vals)) if kind == "implicit" else vals + 1.0
    M = sp.coo_matrix((vals, (rows, cols)), shape=X.shape)
    options = {"tol": 1e-9, "rng": 0, "maxiter": 3000, **KINDS[kind]}
    res = gauss_newton(M, 2, **options)
    other = completion.alternating_minimization(M, 2, method="altmin", x0=res, **options)
    assert res.success
    assert res.fun == pytest.approx(other.fun, rel=1e-9)


def test_transposing_and_scaling_change_nothing_else():
    (rows, cols, vals), X = planted(40, 30, 2, 4.0, 9, noise=0.1)
    res = gauss_newton((rows, cols, vals), 2, shape=X.shape, tol=1e-11, rng=0)
    flipped = gauss_newton((cols, rows, 1e5 * vals), 2, shape=X.T.shape, tol=1e-11, rng=0)
    np.testing.assert_allclose(dense(flipped).T / 1e5, dense(res), rtol=0, atol=1e-8)


def test_single_precision_ends_at_its_own_rounding_level():
    (rows, cols, vals), X = planted(60, 50, 2, 4.0, 11)
    res = gauss_newton((rows, cols, vals.astype(np.float32)), 2, shape=X.shape, tol=1e-12, rng=0)
    assert res.U.dtype == np.float32
    assert res.success
    assert error(dense(res), X) <= 1e-5


def test_inner_limits_have_an_effect():
    entries, X = planted(60, 50, 3, 3.0, 13)
    options = {"shape": X.shape, "tol": 1e-10, "rng": 0}
    free = gauss_newton(entries, 3, **options)
    few = gauss_newton(entries, 3, maxiter_inner=2, **options)
    tight = gauss_newton(entries, 3, tol_inner=1e-10, **options)
    assert few.n_inner <= 2 * few.nit
    assert few.nit > free.nit
    assert tight.n_inner > free.n_inner


def test_a_fit_that_cannot_be_reached_is_returned_with_a_warning():
    entries, X = planted(40, 40, 3, 1.2, 15)
    with pytest.warns(ConvergenceWarning):
        res = gauss_newton(entries, 3, shape=X.shape, tol=1e-13, rng=0, maxiter=4)
    assert not res.success
    assert res.status == Status.MAXITER
    assert np.isfinite(dense(res)).all()


@pytest.mark.parametrize("name", ["loss", "nonnegative"])
def test_problems_that_are_not_least_squares_are_refused_by_name(rng, name):
    problem = posed(rng, **{name: {"loss": "huber", "nonnegative": True}[name]})
    with pytest.raises(ValueError, match=f"^`{name}` .* expected"):
        _gauss_newton.check_problem(problem)


def test_progress_ends_where_a_value_does_not_halve():
    progress = Progress(3)
    assert [progress.ended(v) for v in (1.0, 0.6, 0.5, 0.4, 0.3, 0.26)] == [False] * 5 + [True]
