"""Ends that are no solution: INFEASIBLE and UNBOUNDED, and what must not be taken for them."""

import warnings

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, NonlinearConstraint

from solvers import ConvergenceWarning, Status, constrained
from tests.constrained.curved import planted

LOOPS = [{}, {"method": "sqp-direct"}, {"method": "auglag"}]


def circle(radius2, lb=None, weight=1.0):
    """x^2 + y^2 = radius2, or from `lb` on; the least violation for a negative one is at 0."""
    return NonlinearConstraint(
        lambda x: weight * np.array([x @ x - radius2]),
        0.0 if lb is None else lb,
        0.0,
        jac=lambda x: 2 * weight * x[None],
        hess=lambda x, v: 2 * weight * v[0] * np.eye(2),
    )


def ended(fun, x0, jac, hess, constraints, **options):
    with pytest.warns(ConvergenceWarning) as caught:
        res = constrained.minimize(fun, x0, jac=jac, hess=hess, constraints=constraints, **options)
    assert len(caught) == 1
    assert not res.success
    return res


def plane(constraints, x0=(1.0, 0.7), **options):
    zero = np.zeros((2, 2))
    return ended(sum, np.array(x0), np.ones_like, lambda x: zero, constraints, **options)


# ---------------------------------------------------------------- no point satisfies the rows
@pytest.mark.parametrize(
    ("options", "weight"),
    [({}, 1.0), ({}, 1e-3), ({}, 1e4), (LOOPS[1], 1.0), (LOOPS[1], 1e-3), (LOOPS[2], 1.0)],
    ids=str,
)
def test_an_empty_circle_ends_where_its_violation_is_least(options, weight):
    res = plane(circle(-1.0, weight=weight), **options)
    assert res.status == Status.INFEASIBLE
    assert "local infeasibility" in res.message
    assert np.linalg.norm(res.x) <= 1e-3
    # The length of c = weight (x^2 + y^2 + 1) has the gradient 2 weight x.
    assert res.infeasibility_certificate <= 1e-3 * weight


@pytest.mark.parametrize("options", LOOPS, ids=str)
def test_contradicting_equations_end_at_their_least_squares_solution(options):
    A, b = np.array([[1.0, 2.0], [1.0, 2.0]]), np.array([0.0, 1.0])
    res = ended(
        lambda x: 0.5 * x @ x,
        np.array([1.0, 0.7]),
        lambda x: x,
        lambda x: np.eye(2),
        LinearConstraint(A, b, b),
        **options,
    )
    assert res.status == Status.INFEASIBLE
    np.testing.assert_allclose(A @ res.x, 0.5, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"method": "sqp-direct"}], ids=str)
def test_inequalities_are_judged_by_their_violated_parts(options):
    # x + y at least 1 and at most -1; the row in between holds and must not count.
    A = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    rows = LinearConstraint(A, [1.0, -np.inf, -50.0], [np.inf, -1.0, 50.0])
    res = plane(rows, **options)
    assert res.status == Status.INFEASIBLE
    assert abs(res.x.sum()) <= 1e-2


def test_bounds_that_keep_from_the_rows_are_infeasible():
    rows = LinearConstraint([[1.0, 1.0]], 3.0, 3.0)
    res = plane(rows, x0=[0.5, 0.5], bounds=Bounds([0.0, 0.0], [1.0, 1.0]))
    assert res.status == Status.INFEASIBLE
    np.testing.assert_allclose(res.x, 1.0, atol=1e-3)


def test_the_point_of_least_violation_is_returned():
    seen = []
    res = plane(
        circle(-1.0), callback=lambda intermediate_result: seen.append(intermediate_result.x)
    )
    violations = [x @ x + 1.0 for x in seen]
    assert res.status == Status.INFEASIBLE
    assert res.constr_violation <= min(violations) + 1e-15


@pytest.mark.parametrize("seed", range(40))
def test_small_rows_close_to_the_solution_are_not_infeasible(seed):
    # A rule that looks at the length of G^T c alone calls this infeasible.
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((3, 6))
    A[0] *= 0.1 / np.linalg.norm(A[0])
    A *= rng.choice([1.0, 1e-4])
    b = A @ rng.standard_normal(6)
    x0 = np.linalg.lstsq(A, b + 3e-8, rcond=None)[0]
    res = constrained.minimize(
        lambda x: 0.5 * x @ x,
        x0,
        jac=lambda x: x,
        hess=lambda x: np.eye(6),
        constraints=LinearConstraint(A, b, b),
        method="sqp-direct",
    )
    assert res.status == Status.CONVERGED
    # The shortest solution of A x = b.
    np.testing.assert_allclose(res.x, np.linalg.lstsq(A, b, rcond=None)[0], atol=1e-4)


def test_a_start_where_the_violation_is_stationary_is_left():
    # G^T c = 0 at the origin, which is a maximiser of the violation.
    res = constrained.minimize(
        lambda x: x[0],
        np.array([1e-9, 0.0]),
        jac=lambda x: np.array([1.0, 0.0]),
        hess=lambda x: np.zeros((2, 2)),
        constraints=circle(1.0),
    )
    np.testing.assert_allclose(res.x, [-1.0, 0.0], atol=1e-6)


def test_success_has_no_certificate_of_infeasibility():
    p = planted(0)
    assert np.isnan(constrained.minimize(**p.keywords).infeasibility_certificate)


# ---------------------------------------------------------------- no lower bound
@pytest.mark.parametrize("options", [{}, {"method": "sqp-direct"}], ids=str)
def test_an_objective_that_falls_for_ever_is_unbounded(options):
    res = ended(
        lambda x: -(x**4).sum(),
        np.array([1.0, 0.5]),
        lambda x: -4 * x**3,
        lambda x: np.diag(-12 * x**2),
        LinearConstraint([[1.0, -1.0]], 0.0, 0.0),
        **options,
    )
    assert res.status == Status.UNBOUNDED


def test_an_objective_that_falls_within_bounds_is_unbounded():
    res = ended(
        lambda x: -(x**3).sum(),
        np.array([1.0, 0.5]),
        lambda x: -3 * x**2,
        lambda x: np.diag(-6 * x),
        LinearConstraint([[1.0, -1.0]], -1.0, 1.0),
        bounds=Bounds(0.0, np.inf),
    )
    assert res.status == Status.UNBOUNDED


def test_a_deep_but_bounded_objective_is_not_unbounded():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        res = constrained.minimize(
            lambda x: 1e15 * ((x - 3.0) @ (x - 3.0)) - 1e19,
            np.array([1.0, 0.0]),
            jac=lambda x: 2e15 * (x - 3.0),
            hess=lambda x: 2e15 * np.eye(2),
            constraints=LinearConstraint([[1.0, -1.0]], 0.0, 0.0),
        )
    np.testing.assert_allclose(res.x, 3.0, atol=1e-10)
