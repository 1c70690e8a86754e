"""Alternating minimisation against dense formulas, brute force and plain NumPy loops."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import solvers
from solvers import completion
from solvers._core.result import Status
from solvers.completion import _gauge
from solvers.completion._als import choose_inner, half_sweep, relative_gradient
from solvers.completion._observations import read_entries
from solvers.completion._problem import pose

MODEL = {
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
VARIANTS = {
    "plain": {},
    "ridge": {"lam": 0.8},
    "weighted lambda": {"lam": 0.1, "weighted_lambda": True},
    "biases": {"lam": 0.8, "lam_bias": 0.3, "bias": True},
    "implicit": {"lam": 0.8, "implicit": True, "alpha": 2.0},
    "scaled implicit": {"lam": 0.02, "implicit": True, "nu": 0.5, "alpha0": 0.3},
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def entries(rng, m=13, n=11, k=2, density=0.7, noise=0.3):
    """Triples of a noisy matrix of rank k, all rows and columns seen."""
    X = 1.5 + rng.standard_normal((m, k)) @ rng.standard_normal((k, n))
    mask = rng.random((m, n)) < density
    mask[:, 0] = mask[0] = True
    rows, cols = np.nonzero(mask)
    return rows, cols, X[rows, cols] + noise * rng.standard_normal(rows.size)


def posed(rng, variant, weights=None):
    rows, cols, vals = entries(rng)
    if "implicit" in VARIANTS[variant]:
        vals = np.abs(np.rint(vals)) + 1.0
        vals[::5] *= -1.0
    w = rng.uniform(0.3, 2.0, vals.size) if weights else None
    return pose(read_entries((rows, cols, vals), (13, 11), w), **{**MODEL, **VARIANTS[variant]})


def dense(problem):
    """Return values, weights of all places, and the ridges, densely."""
    obs, (m, n) = problem.obs, problem.shape
    M, W = np.zeros((m, n)), np.zeros((m, n))
    w = obs.by_row.weight if obs.by_row.weight.size else np.ones(obs.size)
    M[obs.rows, obs.cols], W[obs.rows, obs.cols] = obs.by_row.val, w
    if problem.implicit:
        # The weighted entries and the squares of all places, as one weighted square.
        M, W = W * M / (1.0 + W), 1.0 + W
    return M, W


def objective(problem, A, B, a, b):
    M, W = dense(problem)
    X = A @ B.T
    total = 0.5 * np.sum(problem.row_ridge[:, None] * A**2)
    total += 0.5 * np.sum(problem.col_ridge[:, None] * B**2)
    if problem.biased:
        X = X + a[:, None] + b
        total += 0.5 * problem.lam_bias * (a @ a + b @ b)
    return total + 0.5 * np.sum(W * (X - M) ** 2)


def factors(rng, problem, k=3):
    (m, n), biased = problem.shape, problem.biased
    A, B = rng.standard_normal((m, k)), rng.standard_normal((n, k))
    return A, B, rng.standard_normal(m * biased), rng.standard_normal(n * biased)


@each_variant
@pytest.mark.parametrize("weights", [False, True])
def test_a_half_sweep_is_the_minimiser_over_one_factor(rng, variant, weights):
    if weights and "implicit" in variant:
        pytest.skip("implicit feedback has weights of its own")
    problem = posed(rng, variant, weights)
    A, B, a, b = factors(rng, problem)
    half = half_sweep(problem, problem.obs.by_row, A, B, a, b, problem.row_ridge)
    assert half.steps == 0
    lowest = objective(problem, A, B, a, b)
    for _ in range(20):
        other = A + 1e-3 * rng.standard_normal(A.shape)
        shift = a + 1e-3 * rng.standard_normal(a.shape)
        assert objective(problem, other, B, shift, b) > lowest


@each_variant
def test_a_half_sweep_tells_the_gradient_at_the_point_it_comes_from(rng, variant):
    problem = posed(rng, variant)
    A, B, a, b = factors(rng, problem)
    came, start = (A.copy(), a.copy()), objective(problem, A, B, a, b)
    grad = half_sweep(problem, problem.obs.by_row, A, B, a, b, problem.row_ridge).grad
    (A, a), h = came, 1e-6
    told = grad[:, 1:] if problem.biased else grad
    for i, q in ((0, 0), (5, 2), (12, 1)):
        moved = A.copy()
        moved[i, q] += h
        slope = (objective(problem, moved, B, a, b) - start) / h
        assert told[i, q] == pytest.approx(slope, rel=1e-4, abs=1e-4)
    if problem.biased:
        a = a.copy()
        a[3] += h
        slope = (objective(problem, A, B, a, b) - start) / h
        assert grad[3, 0] == pytest.approx(slope, rel=1e-4, abs=1e-4)


@each_variant
def test_the_gradient_is_the_dense_one_in_every_gauge(rng, variant):
    problem = posed(rng, variant)
    A, B, a, b = factors(rng, problem)
    M, W = dense(problem)
    X = A @ B.T + (a[:, None] + b if problem.biased else 0.0)
    R, (m, n) = W * (X - M), problem.shape
    d, e = np.sqrt(problem.row_scale), np.sqrt(problem.col_scale)
    if not problem.lam:
        d, e = np.ones(m), np.ones(n)
    scaled = R / np.outer(d, e)
    U, _, Vt = np.linalg.svd(np.outer(d, e) * (A @ B.T))
    U, V = U[:, :3], Vt[:3].T
    full = scaled + problem.lam * U @ V.T
    P = U @ (U.T @ full) + (full @ V) @ V.T - U @ (U.T @ full @ V) @ V.T
    square = np.sum(P**2)
    if problem.biased:
        square += np.sum((R.sum(1) + problem.lam_bias * a) ** 2) / n
        square += np.sum((R.sum(0) + problem.lam_bias * b) ** 2) / m
    G = rng.standard_normal((3, 3))
    for left, right in ((A, B), (A @ G, B @ np.linalg.inv(G).T)):
        r = problem.residual(left, right, a, b)
        at = _gauge.slope(problem, left, right, a, b, r)
        norm, core, _ = _gauge.projected_gradient(problem, left, right, at)
        assert norm == pytest.approx(np.sqrt(square), rel=1e-9)
        assert np.linalg.svd(core, compute_uv=False) == pytest.approx(
            np.linalg.svd(U.T @ scaled @ V, compute_uv=False), rel=1e-8
        )
    assert _gauge.gradient_unit(problem) == pytest.approx(
        np.linalg.norm(W * M / np.outer(d, e)), rel=1e-12
    )
    x = problem.balance(A, B, a, b)
    r = problem.residual(A, B, a, b)
    assert relative_gradient(problem, x, r) == pytest.approx(norm / problem.norm, rel=1e-8)


@each_variant
def test_balancing_keeps_the_product_and_lowers_the_penalty(rng, variant):
    problem = posed(rng, variant)
    A, B, a, b = factors(rng, problem)
    T, S, found = _gauge.balancing(problem, A, B)
    np.testing.assert_allclose((A @ T) @ (B @ S).T, A @ B.T, atol=1e-10)
    U, V = (
        d * F @ G
        for d, F, G in zip(_gauge.root_scales(problem), (A @ T, B @ S), found[:2], strict=True)
    )
    np.testing.assert_allclose(U.T @ U, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(V.T @ V, np.eye(3), atol=1e-10)
    if problem.lam:
        best = problem.lam * np.linalg.svd(
            np.sqrt(np.outer(problem.row_scale, problem.col_scale)) * (A @ B.T), compute_uv=False
        )
        assert problem.penalty(A @ T, B @ S, a[:0], b[:0]) == pytest.approx(best.sum())
        again, _, _ = _gauge.balancing(problem, A @ T, B @ S)
        np.testing.assert_allclose(again, np.eye(3), atol=1e-8)


@each_variant
@pytest.mark.parametrize("inner", ["direct", "cg"])
def test_the_objective_never_rises_and_is_the_dense_one(rng, variant, inner):
    rows, cols, vals = entries(rng, 30, 26, 3, 0.5)
    options = dict(VARIANTS[variant])
    if "implicit" in options:
        vals, call = np.abs(np.rint(vals)) + 1.0, completion.als_implicit
        options.pop("implicit")
    else:
        call = completion.alternating_minimization
        options["method"] = "altmin"
    res = call(
        (rows, cols, vals),
        4,
        shape=(30, 26),
        inner=inner,
        tol=1e-7,
        maxiter=1500,
        rng=0,
        **options,
    )
    assert res.success, res.message
    fun = res.history["objective"]
    assert (np.diff(fun) <= 1e-12 * fun[0]).all()
    problem = pose(
        read_entries((rows, cols, vals), (30, 26)),
        unit=(res.mu, 1.0),
        **{**MODEL, **VARIANTS[variant], "center": res.mu != 0.0},
    )
    biases = (res.row_bias, res.col_bias) if problem.biased else (res.row_bias[:0],) * 2
    x = solvers.completion._factors.Factors(res.U, res.s, res.V, *biases)
    assert fun[-1] == pytest.approx(objective(problem, *problem.start_of(x)), rel=1e-8)


def test_implicit_feedback_is_the_dense_weighted_problem(rng):
    R = rng.poisson(1.0, (9, 8)).astype(float)
    R[2, 3] = -2.0
    res = completion.als_implicit(sp.csr_matrix(R), 8, alpha=3.0, lam=1.5, tol=1e-9, rng=0)
    assert res.success
    C, P, lam = 1.0 + 3.0 * np.abs(R), (R > 0) * 1.0, 1.5
    A, B = rng.standard_normal((9, 8)), rng.standard_normal((8, 8))
    for _ in range(3000):
        for X, Y, c, p in ((A, B, C, P), (B, A, C.T, P.T)):
            for i in range(len(X)):
                G = (Y.T * c[i]) @ Y + lam * np.eye(8)
                X[i] = np.linalg.solve(G, Y.T @ (c[i] * p[i]))
    np.testing.assert_allclose((res.U * res.s) @ res.V.T, A @ B.T, atol=1e-4)
    fun = 0.5 * np.sum(C * (P - A @ B.T) ** 2) + 0.5 * lam * (np.sum(A**2) + np.sum(B**2))
    assert res.fun == pytest.approx(fun, rel=1e-6)


@pytest.mark.parametrize("name", ["nu", "alpha0", "alpha", "lam"])
def test_every_option_of_implicit_feedback_has_an_effect(rng, name):
    R = sp.csr_matrix(rng.poisson(0.7, (15, 12)).astype(float))
    base = {"nu": 0.5, "alpha0": 1.0, "alpha": 1.0, "lam": 0.1}
    one, other = (
        completion.als_implicit(R, 2, tol=1e-6, rng=0, **{**base, name: value}).s
        for value in (base[name], 1.3 * base[name])
    )
    assert np.abs(one - other).max() > 1e-3 * one[0]


@pytest.mark.parametrize("lam", [0.0, -1.0, np.nan])
def test_implicit_feedback_needs_a_ridge(lam):
    with pytest.raises(ValueError, match=r"^`lam`"):
        completion.als_implicit(np.ones((3, 3)), 1, lam=lam)


def test_columns_that_a_ridge_does_not_pay_for_become_zero(rng):
    rows, cols, vals = entries(rng, 30, 24, 2, 0.6)
    lam = 0.3 * np.linalg.norm(sp.coo_matrix((vals, (rows, cols)), shape=(30, 24)).toarray(), 2)
    call = {"shape": (30, 24), "lam": lam, "method": "altmin", "tol": 1e-8, "rng": 0}
    wide = completion.alternating_minimization((rows, cols, vals), 12, **call)
    assert wide.success
    assert wide.certificate.kind == "relative duality gap"
    assert wide.U.shape == (30, 12)
    rank = int((wide.s > 0).sum())
    assert 1 <= rank < 12
    narrow = completion.alternating_minimization((rows, cols, vals), rank, **call)
    np.testing.assert_allclose(narrow.s, wide.s[:rank], rtol=1e-4)
    np.testing.assert_allclose(wide.U.T @ wide.U, np.eye(12), atol=1e-10)


def test_a_ridge_above_the_largest_singular_value_leaves_nothing(rng):
    rows, cols, vals = entries(rng)
    lam = 1.5 * np.linalg.norm(sp.coo_matrix((vals, (rows, cols)), shape=(13, 11)).toarray(), 2)
    res = completion.alternating_minimization(
        (rows, cols, vals), 3, shape=(13, 11), lam=lam, method="altmin", rng=0
    )
    assert res.success
    assert res.s.max() <= 1e-8 * np.abs(vals).max()


def test_a_solution_is_recognised_without_a_sweep(rng):
    rows, cols, vals = entries(rng, 20, 18, 2, 0.7)
    call = {"shape": (20, 18), "lam": 1.0, "method": "altmin", "rng": 0}
    first = completion.alternating_minimization((rows, cols, vals), 3, tol=1e-9, **call)
    again = completion.alternating_minimization((rows, cols, vals), 3, tol=1e-7, x0=first, **call)
    assert again.success
    assert again.nit == 0


def test_factors_that_grow_without_bound_end_the_run_as_numerical():
    rows, cols, vals, _, _ = completion.make_planted(60, 60, 5, 1.2, cond=100.0, rng=0)
    with pytest.warns(solvers.ConvergenceWarning, match="without bound"):
        res = completion.alternating_minimization(
            (rows, cols, vals), 5, shape=(60, 60), method="altmin", tol=1e-12, rng=0
        )
    assert res.status is Status.NUMERICAL
    assert res.nit < 500
    assert np.isfinite(res.U).all()


def test_a_run_ends_at_the_rounding_level_whatever_is_asked(rng):
    rows, cols, vals = entries(rng, 20, 18, 2, 0.7)
    res = completion.alternating_minimization(
        (rows, cols, vals), 2, shape=(20, 18), lam=1.0, method="altmin", tol=1e-300, rng=0
    )
    assert res.nit < 300
    assert res.grad_norm <= 1e-10


@pytest.mark.parametrize("name", ["tol_inner", "maxiter_inner"])
def test_options_of_inner_solvers_bound_their_steps(rng, name):
    rows, cols, vals = entries(rng, 60, 50, 3, 0.9)
    call = {"shape": (60, 50), "lam": 1.0, "method": "altmin", "inner": "cg", "maxiter": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solvers.ConvergenceWarning)
        few, many = (
            completion.alternating_minimization(
                (rows, cols, vals), 4, tol=1e-13, rng=0, **{name: value}, **call
            ).n_inner
            for value in ((1e-2, 1e-12) if name == "tol_inner" else (1, 30))
        )
    assert 0 < few < many


def test_the_inner_solver_follows_rank_and_accuracy():
    from types import SimpleNamespace

    options = SimpleNamespace(inner="auto", tol_inner=None, maxiter_inner=None, rng=None)
    assert choose_inner(options, 5, np.float64, 1.0, 1.0).name == "direct"
    far, near = (choose_inner(options, 50, np.float64, 1.0, grad) for grad in (1.0, 1e-6))
    assert far.name == near.name == "cg"
    assert far.steps < near.steps
    assert near.eta == pytest.approx(1e-7)
    assert choose_inner(options, 50, np.float32, 1.0, 1e-12).eta >= 1e-6


def test_answers_do_not_depend_on_the_number_of_threads(rng):
    rows, cols, vals = entries(rng, 200, 150, 3, 0.5)
    one, two = (
        completion.alternating_minimization(
            (rows, cols, vals), 5, shape=(200, 150), lam=2.0, method="altmin", rng=0, n_threads=t
        )
        for t in (1, 2)
    )
    np.testing.assert_allclose(one.s, two.s, rtol=1e-10)


def test_single_precision_stays_single(rng):
    rows, cols, vals = entries(rng, 20, 18, 2, 0.7)
    res = completion.alternating_minimization(
        (rows, cols, vals.astype(np.float32)),
        3,
        shape=(20, 18),
        lam=1.0,
        method="altmin",
        tol=1e-4,
        rng=0,
    )
    assert res.success
    assert res.U.dtype == np.float32


def test_an_empty_side_is_left_at_zero(rng):
    rows, cols, vals = entries(rng, 12, 10)
    res = completion.alternating_minimization(
        (rows, cols, vals), 2, shape=(14, 11), lam=1.0, method="altmin", rng=0
    )
    assert res.success
    np.testing.assert_allclose(res.U[12:], 0.0, atol=1e-12)
    np.testing.assert_allclose(res.V[10:], 0.0, atol=1e-12)


def test_a_start_from_a_larger_ridge_finds_the_columns_that_it_lacks():
    rng = np.random.default_rng(3)
    M = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 50)) + 0.1 * rng.normal(size=(60, 50))
    M[rng.random(M.shape) < 0.4] = np.nan
    top = np.linalg.norm(np.nan_to_num(M), 2)
    options = {"certificate": ("gap",), "tol": 1e-6, "method": "altmin", "rng": 0}
    few = completion.alternating_minimization(M, 12, lam=0.5 * top, **options)
    many = completion.alternating_minimization(M, 12, lam=0.02 * top, x0=few, **options)
    assert (few.s > 0).sum() < (many.s > 0).sum()
    assert many.success
