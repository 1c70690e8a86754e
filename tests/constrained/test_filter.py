"""The filter line search: what it accepts, corrects and restores, and what it costs."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from _cupy_standin import run_with_standin
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, NonlinearConstraint

from solvers import ConvergenceWarning, Status, constrained
from solvers.constrained._filter import Filter
from tests.constrained.curved import KINDS, planted, sphere


# ---------------------------------------------------------------- the filter itself
@given(st.lists(st.tuples(st.floats(1e-6, 10), st.floats(-10, 10)), max_size=8), st.floats(0, 9))
def test_a_pair_that_is_worse_in_both_is_barred(pairs, more):
    barred = Filter(1.0)
    for theta, f in pairs:
        barred.add(theta, f)
    for theta, f in pairs:
        assert not barred.accepts(theta + more, f + more)
        # Nearly feasible and far lower are both acceptable to every pair.
        assert barred.accepts(0.0, f)
        assert barred.accepts(10.0 + more, -100.0)


def test_what_is_not_finite_or_far_more_violated_is_barred():
    barred = Filter(2.0)
    assert barred.accepts(1e4, 0.0)
    assert not barred.accepts(3e4, 0.0)
    assert not barred.accepts(np.nan, 0.0)
    assert not barred.accepts(1.0, np.nan)
    assert not barred.accepts(1.0, -np.inf)


# ---------------------------------------------------------------- answers
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"method": "sqp-direct"}, {"globalization": "filter"}])
def test_planted_solutions_are_found_for_every_kind_of_matrix(kind, options):
    p = planted(0, kind=kind)
    res = constrained.minimize(**p.keywords, **options)
    assert res.success
    np.testing.assert_allclose(res.x, p.x, atol=1e-7)
    np.testing.assert_allclose(res.lam, p.lam, atol=1e-6)
    assert res.globalization_used == "filter"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 3), st.floats(-3, 3))
def test_units_of_rows_and_objective_do_not_move_the_point(seed, row, objective):
    p = planted(seed, spread=0.1)
    D, w = np.array([10.0**row, 1.0, 1.0]), 10.0**objective
    k, con = p.keywords, p.keywords["constraints"]
    res = constrained.minimize(
        lambda x: w * k["fun"](x),
        k["x0"],
        jac=lambda x: w * k["jac"](x),
        hess=lambda x: w * k["hess"](x),
        constraints=NonlinearConstraint(
            lambda x: D * con.fun(x),
            0.0,
            0.0,
            jac=lambda x: D[:, None] * con.jac(x),
            hess=lambda x, v: con.hess(x, D * v),
        ),
        globalization="filter",
        tol=1e-8 * min(1.0, w, D[0]),
    )
    np.testing.assert_allclose(res.x, p.x, atol=1e-6)
    np.testing.assert_allclose(res.lam * D / w, p.lam, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_depend_on_each_other_do_no_harm(seed):
    p = planted(seed, copies=[[1.0, 0, 0], [0, 1.0, -1.0]])
    res = constrained.minimize(**p.keywords, globalization="filter")
    assert res.success
    np.testing.assert_allclose(res.x, p.x, atol=1e-7)
    # The multipliers of five rows explain what those of three do.
    G = p.keywords["constraints"].jac(res.x)
    np.testing.assert_allclose(G.T @ res.lam, G[:3].T @ p.lam, atol=1e-6)


def test_the_smallest_eigenvalue_is_reached_from_near_the_largest():
    # Steps on the optimality conditions alone go to the nearest eigenvector.
    A = np.diag([1.0, 2.0, 3.0, 10.0])
    res = constrained.minimize(
        lambda x: x @ A @ x,
        np.array([0.05, 0.04, 0.03, 1.0]),
        jac=lambda x: 2 * A @ x,
        hess=lambda x: 2 * A,
        constraints=sphere(4),
        globalization="filter",
    )
    assert res.success
    assert res.fun == pytest.approx(1.0, abs=1e-8)


def test_bounds_and_inequalities_are_kept():
    # HS71, whose solution is known to eight digits.
    def fun(x):
        return x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2]

    def jac(x):
        s = x[0] + x[1] + x[2]
        return np.array([x[3] * (x[0] + s), x[0] * x[3], x[0] * x[3] + 1, x[0] * s])

    def product(x):
        return np.array([x.prod() / v for v in x])

    con = NonlinearConstraint(
        lambda x: np.array([x.prod(), x @ x]),
        [25.0, 40.0],
        [np.inf, 40.0],
        jac=lambda x: np.stack([product(x), 2 * x]),
    )
    res = constrained.minimize(
        fun,
        np.array([1.0, 5.0, 5.0, 1.0]),
        jac=jac,
        constraints=con,
        bounds=Bounds(1.0, 5.0),
        globalization="filter",
        tol=1e-6,
    )
    assert res.success
    np.testing.assert_allclose(res.x, [1.0, 4.74299963, 3.82114998, 1.37940829], atol=1e-5)


# ---------------------------------------------------------------- steps
def test_a_quadratic_programme_costs_one_step_and_one_more_of_each_value():
    rng = np.random.default_rng(0)
    W, g, A = rng.standard_normal((6, 6)), rng.standard_normal(6), rng.standard_normal((2, 6))
    Q, b, calls = W @ W.T + np.eye(6), rng.standard_normal(2), []
    con = NonlinearConstraint(
        lambda x: calls.append(x.copy()) or A @ x - b,
        0.0,
        0.0,
        jac=lambda x: A,
        hess=lambda x, v: np.zeros((6, 6)),
    )
    res = constrained.minimize(
        lambda x: 0.5 * x @ Q @ x + g @ x,
        np.zeros(6),
        jac=lambda x: Q @ x + g,
        hess=lambda x: Q,
        constraints=con,
        globalization="filter",
    )
    K = np.block([[Q, A.T], [A, np.zeros((2, 2))]])
    np.testing.assert_allclose(res.x, np.linalg.solve(K, np.r_[-g, b])[:6], atol=1e-10)
    assert res.nit == 1
    assert len({tuple(x) for x in calls}) == 2
    assert (res.history["alpha"] == 1.0).all()


@pytest.mark.parametrize("angle", [0.3, 0.1, 0.01])
def test_corrections_keep_full_steps_near_a_curved_solution(angle):
    # Maratos: full steps on the circle raise both the violation and the objective.
    res = constrained.minimize(
        lambda x: 2 * (x @ x - 1) - x[0],
        np.array([np.cos(angle), np.sin(angle)]),
        jac=lambda x: 4 * x - [1.0, 0.0],
        hess=lambda x: 4 * np.eye(2),
        constraints=sphere(),
        globalization="filter",
    )
    assert res.success
    np.testing.assert_allclose(res.x, [1.0, 0.0], atol=1e-8)
    assert (res.history["alpha"] == 1.0).all()
    assert res.nit <= 6


def test_feasibility_is_restored_where_newton_steps_become_short():
    # BT4 from its start: steps of the optimality conditions shrink to nothing.
    def cons(x):
        return np.array([x @ x - 25.0, x.sum() - 1.0])

    con = NonlinearConstraint(
        cons,
        0.0,
        0.0,
        jac=lambda x: np.stack([2 * x, np.ones(3)]),
        hess=lambda x, v: 2 * v[0] * np.eye(3),
    )
    res = constrained.minimize(
        lambda x: x[0] - x[1] + x[1] ** 3,
        np.array([4.0382, -2.9470, -0.09115]),
        jac=lambda x: np.array([1.0, 3 * x[1] ** 2 - 1.0, 0.0]),
        hess=lambda x: np.diag([0.0, 6 * x[1], 0.0]),
        constraints=con,
        globalization="filter",
    )
    assert res.success
    assert np.isnan(res.history["alpha"]).any(), "no step restored feasibility"
    assert abs(cons(res.x)).max() <= 1e-8
    # One of the two minima of the collection.
    assert min(abs(res.fun - known) for known in (-45.5105507, -3.70476818)) <= 1e-6


def test_steps_of_restoration_count_and_can_be_stopped():
    options = {"globalization": "filter", "maxiter": 3}
    rows = NonlinearConstraint(
        lambda x: np.array([np.arctan(x[0]), x[1] ** 2 + 1.0]),
        0.0,
        0.0,
        jac=lambda x: np.diag([1 / (1 + x[0] ** 2), 2 * x[1]]),
        hess=lambda x, v: np.diag([-2 * v[0] * x[0] / (1 + x[0] ** 2) ** 2, 2 * v[1]]),
    )
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        res = constrained.minimize(
            lambda x: x[0],
            np.array([50.0, 1e-3]),
            jac=lambda x: np.array([1.0, 0.0]),
            hess=lambda x: np.zeros((2, 2)),
            constraints=rows,
            callback=lambda intermediate_result: seen.append(intermediate_result.x),
            **options,
        )
    assert res.status == Status.MAXITER
    assert res.nit == len(seen) == 3


def test_values_that_are_not_finite_are_failed_trials():
    # log is NaN beyond the wall, where the full step from here goes.
    def fun(x):
        return float(x[0] - np.log(x[0])) if x[0] > 0 else np.nan

    res = constrained.minimize(
        fun,
        np.array([5.0, 0.0]),
        jac=lambda x: np.array([1 - 1 / x[0], 0.0]),
        hess=lambda x: np.diag([1 / x[0] ** 2, 0.0]),
        constraints=LinearConstraint([[1.0, -1.0]], 0.0, 0.0),
        globalization="filter",
    )
    assert res.success
    np.testing.assert_allclose(res.x, 1.0, atol=1e-7)


def test_problems_without_rows_are_minimised():
    Q, g = np.diag([1.0, 5.0]), np.array([1.0, -2.0])
    res = constrained.minimize(
        lambda x: 0.5 * x @ Q @ x + g @ x,
        np.zeros(2),
        jac=lambda x: Q @ x + g,
        hess=lambda x: Q,
        globalization="filter",
    )
    np.testing.assert_allclose(res.x, np.linalg.solve(Q, -g), atol=1e-10)


def test_methods_run_on_a_device():
    run_with_standin(Path(__file__).parent / "methods_on_device.py")
