"""Baselines: l1 methods with inexact steps, the augmented Lagrangian, sqp-direct."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, minimize_scalar

from solvers import constrained
from solvers._core.arrays import Ingest
from solvers.constrained._auglag import _steihaug
from solvers.constrained._l1 import Model
from tests.constrained.curved import KINDS, planted, sphere

METHODS = ["sqp-direct", "gmres-l1", "gmres-l1-tests", "auglag"]
BE = Ingest(x=np.zeros(1)).be


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_planted_solutions_are_found(method, kind):
    p = planted(1, kind=kind)
    res = constrained.minimize(**p.keywords, method=method, tol=1e-7)
    assert res.success
    np.testing.assert_allclose(res.x, p.x, atol=1e-6)
    np.testing.assert_allclose(res.lam, p.lam, atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(METHODS))
def test_any_planted_solution_is_found(seed, method):
    p = planted(seed, spread=0.1)
    res = constrained.minimize(**p.keywords, method=method, tol=1e-7)
    np.testing.assert_allclose(res.x, p.x, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_quadratic_programmes_equal_one_dense_solve(method):
    rng = np.random.default_rng(0)
    W, g, A = rng.standard_normal((6, 6)), rng.standard_normal(6), rng.standard_normal((2, 6))
    Q, b = W @ W.T + np.eye(6), rng.standard_normal(2)
    res = constrained.minimize(
        lambda x: 0.5 * x @ Q @ x + g @ x,
        np.zeros(6),
        jac=lambda x: Q @ x + g,
        hess=lambda x: Q,
        constraints=LinearConstraint(A, b, b),
        method=method,
    )
    K = np.block([[Q, A.T], [A, np.zeros((2, 2))]])
    d = np.linalg.solve(K, np.r_[-g, b])
    np.testing.assert_allclose(res.x, d[:6], atol=1e-7)
    np.testing.assert_allclose(res.lam, d[6:], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_depend_on_each_other_do_no_harm(method, seed):
    p = planted(seed, copies=[[1.0, 0, 0], [0, 1.0, -1.0], [3.0, 0, 0]])
    res = constrained.minimize(**p.keywords, method=method, tol=1e-7)
    assert res.success
    np.testing.assert_allclose(res.x, p.x, atol=1e-6)
    assert np.isfinite(res.lam).all()


@pytest.mark.parametrize("method", METHODS)
def test_bounds_project_onto_the_simplex(method):
    y = np.array([0.9, 0.8, -0.5, 0.1])
    res = constrained.minimize(
        lambda x: 0.5 * (x - y) @ (x - y),
        np.full(4, 0.25),
        jac=lambda x: x - y,
        hess=lambda x: np.eye(4),
        constraints=LinearConstraint(np.ones((1, 4)), 1.0, 1.0),
        bounds=Bounds(0.0, np.inf),
        method=method,
        tol=1e-6,
    )
    assert res.success
    # The threshold that leaves a sum of 1, by bisection.
    shift = minimize_scalar(
        lambda s: (np.maximum(y - s, 0).sum() - 1) ** 2, bounds=(-2, 2), options={"xatol": 1e-12}
    ).x
    np.testing.assert_allclose(res.x, np.maximum(y - shift, 0), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_smallest_eigenvalue_is_reached(method):
    A = np.diag([1.0, 2.0, 3.0, 10.0])
    res = constrained.minimize(
        lambda x: x @ A @ x,
        np.array([0.5, 0.4, 0.3, 1.0]),
        jac=lambda x: 2 * A @ x,
        hess=lambda x: 2 * A,
        constraints=sphere(4),
        method=method,
    )
    assert res.success
    assert res.fun == pytest.approx(1.0, abs=1e-7)


# ---------------------------------------------------------------- options
def test_the_two_ways_to_judge_inexact_steps_ask_for_different_work():
    p = planted(2, n=30, m=5)
    one, other = (
        constrained.minimize(**p.keywords, method=method)
        for method in ("gmres-l1", "gmres-l1-tests")
    )
    np.testing.assert_allclose(one.x, other.x, atol=1e-6)
    assert one.ninner != other.ninner


@pytest.mark.parametrize("method", ["gmres-l1", "gmres-l1-tests"])
def test_the_l1_methods_take_another_inner_solver(method):
    p = planted(2)
    res = constrained.minimize(**p.keywords, method=method, inner="direct")
    assert res.inner == "direct"
    np.testing.assert_allclose(res.x, p.x, atol=1e-7)
    assert constrained.minimize(**p.keywords, method=method).inner == "gmres"


def test_the_first_weight_of_the_augmented_lagrangian_is_the_callers():
    p = planted(2)
    light, heavy = (
        constrained.minimize(**p.keywords, method="auglag", eta=(eta, 1e-5)) for eta in (0.1, 1e3)
    )
    assert light.history["eta1"][0] == 0.1
    assert heavy.history["eta1"][0] == 1e3
    np.testing.assert_allclose(light.x, heavy.x, atol=1e-6)


# ---------------------------------------------------------------- parts
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(-2, 2))
def test_steps_within_a_radius_are_those_of_the_model(seed, exponent):
    rng = np.random.default_rng(seed)
    n, radius = 6, 10.0**exponent
    W, g = rng.standard_normal((n, n)), rng.standard_normal(n)
    H = W @ W.T + 0.1 * np.eye(n)
    scale = rng.uniform(0.5, 2.0, n)
    p, _ = _steihaug(lambda v: H @ v, g, scale, radius, 1e-12, BE)
    length = np.sqrt(p @ (scale * p))
    assert length <= radius * (1 + 1e-9)
    newton = np.linalg.solve(H, -g)
    if np.sqrt(newton @ (scale * newton)) < radius:
        np.testing.assert_allclose(p, newton, atol=1e-6 * np.linalg.norm(newton))
    # At least as low as the best step along the steepest descent in the same radius.
    s = -g / scale
    t = min(radius / np.sqrt(s @ (scale * s)), (s @ -g) / (s @ H @ s))
    assert g @ p + 0.5 * p @ H @ p <= (g @ (t * s) + 0.5 * t * t * s @ H @ s) * (1 - 1e-9)


def test_negative_curvature_is_followed_to_the_radius():
    H, g = np.diag([1.0, -2.0]), np.array([0.1, 0.1])
    p, _ = _steihaug(lambda v: H @ v, g, np.ones(2), 3.0, 1e-8, BE)
    assert np.linalg.norm(p) == pytest.approx(3.0)
    assert g @ p + 0.5 * p @ H @ p < 0


def test_an_exact_step_leaves_enough_of_the_model_for_some_weight():
    exact = Model(slope=3.0, curved=1.0, c=2.0, left=0.0)
    assert not exact.enough(1.0)
    assert exact.enough(4.0 / (0.91 * 2.0) + 1e-9)
    # A step that leaves the rows as they are needs descent in the objective.
    assert not Model(slope=3.0, curved=0.0, c=2.0, left=2.0).enough(1e9)
    assert Model(slope=-3.0, curved=0.0, c=0.0, left=0.0).enough(1.0)
