"""Square systems and least-squares fits: roots, damping, degenerate Jacobians, certificates."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, NonlinearConstraint, least_squares, root

from solvers import ConvergenceWarning, Status, constrained
from tests.constrained.curved import KINDS, equations


def wavy(seed, n=8, amplitude=0.1):
    """Return c and its Jacobian for ``A x - b + amplitude sin(W x)``, and the planted root."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n)) + 3 * np.eye(n)
    W, xs = rng.standard_normal((n, n)), rng.standard_normal(n)
    b = A @ xs + amplitude * np.sin(W @ xs)
    return (
        lambda x: A @ x - b + amplitude * np.sin(W @ x),
        lambda x: A + amplitude * np.cos(W @ x)[:, None] * W,
        xs,
    )


# ---------------------------------------------------------------- as many equations as unknowns
@pytest.mark.parametrize("kind", KINDS)
def test_planted_roots_are_found_for_every_kind_of_matrix(kind):
    c, jac, xs = wavy(0)
    res = constrained.minimize(**equations(c, jac, xs + 0.1, kind=kind))
    assert res.success
    np.testing.assert_allclose(res.x, xs, atol=1e-8)
    assert res.globalization_used == "newton"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-4, 1e4))
def test_roots_do_not_depend_on_the_unit_of_a_row(seed, unit):
    c, jac, xs = wavy(seed)
    d = np.ones(8)
    d[seed % 8] = unit
    x0 = xs + 0.01
    res = constrained.minimize(
        **equations(lambda x: d * c(x), lambda x: d[:, None] * jac(x), x0), tol=1e-8 * min(unit, 1)
    )
    assert res.success
    np.testing.assert_allclose(res.x, xs, atol=1e-7)


def test_linear_systems_take_one_step_and_one_of_each_value():
    rng = np.random.default_rng(1)
    A, b = rng.standard_normal((5, 5)), rng.standard_normal(5)
    seen = []
    keywords = equations(lambda x: seen.append(x) or A @ x - b, lambda x: A, np.zeros(5))
    res = constrained.minimize(**keywords)
    np.testing.assert_allclose(res.x, np.linalg.solve(A, b), rtol=1e-10)
    assert res.nit == 1
    assert res.ncjev <= 3


def test_steps_are_damped_where_newtons_method_diverges():
    # arctan from 3: full steps run away.
    res = constrained.minimize(
        **equations(np.arctan, lambda x: np.diag(1 / (1 + x**2)), [3.0, -5.0])
    )
    assert res.success
    np.testing.assert_allclose(res.x, 0.0, atol=1e-8)
    assert res.history["alpha"][0] < 1.0


def test_a_singular_jacobian_at_the_start_is_left():
    # G = 0 in one row at the start; SciPy's hybrid method is the oracle.
    def c(x):
        return np.array([x[0] ** 2 + x[1] - 2.0, x[0] - x[1] ** 2 + 0.5])

    def jac(x):
        return np.array([[2 * x[0], 1.0], [1.0, -2 * x[1]]])

    res = constrained.minimize(**equations(c, jac, [0.5, 0.5 + 1e-12]))
    assert res.success
    known = [root(c, start, jac=jac, tol=1e-12).x for start in res.x + 1e-3 * np.eye(2)]
    np.testing.assert_allclose(res.x, known[0], atol=1e-8)


def test_powells_singular_system_is_solved_where_its_jacobian_vanishes():
    def c(x):
        return np.array([x[0] ** 2, 10 * x[0] / (x[0] + 0.1) + 2 * x[1] ** 2])

    def jac(x):
        return np.array([[2 * x[0], 0.0], [1.0 / (x[0] + 0.1) ** 2, 4 * x[1]]])

    res = constrained.minimize(**equations(c, jac, [3.0, 1.0]))
    assert res.success
    assert abs(c(res.x)).max() <= 1e-8


def test_exponential_fits_through_three_points_are_found():
    # HATFLDF, on which the Lagrangian's machinery needs hundreds of steps.
    t, y = np.array([1.0, 2.0, 3.0]), np.array([0.032, 0.056, 0.099])

    def c(x):
        return x[0] + x[1] * np.exp(x[2] * t) - y

    def jac(x):
        e = np.exp(x[2] * t)
        return np.stack([np.ones(3), e, x[1] * t * e], axis=1)

    res = constrained.minimize(**equations(c, jac, [0.1, 0.1, 0.1]))
    assert res.success
    # From the ratio of differences: exp(x3) = 0.043 / 0.024.
    np.testing.assert_allclose(res.x[2], np.log(0.043 / 0.024), atol=1e-4)


def test_multipliers_balance_an_objective_that_cannot_choose():
    c, jac, xs = wavy(3)
    g = np.arange(8.0)
    keywords = equations(c, jac, xs + 0.1)
    keywords |= {"fun": lambda x: g @ x, "jac": lambda x: g}
    res = constrained.minimize(**keywords)
    assert res.success
    np.testing.assert_allclose(res.lam, np.linalg.solve(jac(xs).T, -g), atol=1e-6)


def test_a_system_without_a_root_ends_as_infeasible():
    def c(x):
        return np.array([x[0] ** 2 + 1.0, x[1]])

    with pytest.warns(ConvergenceWarning):
        res = constrained.minimize(**equations(c, lambda x: np.diag([2 * x[0], 1.0]), [1.0, 1.0]))
    assert res.status == Status.INFEASIBLE
    np.testing.assert_allclose(res.x, 0.0, atol=1e-3)


def test_other_ways_to_solve_equations_are_taken_where_they_are_asked_for():
    c, jac, xs = wavy(4)
    keywords = equations(c, jac, xs + 0.1)
    for options, used in [
        ({"globalization": "filter"}, "filter"),
        ({"globalization": "eal"}, "eal"),
        ({"method": "auglag"}, "trust region"),
    ]:
        res = constrained.minimize(**keywords, **options)
        assert res.success
        assert res.globalization_used == used
        np.testing.assert_allclose(res.x, xs, atol=1e-7)


def test_values_that_are_not_finite_shorten_the_step():
    # log is NaN to the left of 0; the full step from 5 goes there.
    res = constrained.minimize(
        **equations(
            lambda x: np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), np.nan),
            lambda x: np.diag(1 / x),
            [5.0],
        )
    )
    assert res.success
    np.testing.assert_allclose(res.x, 1.0, atol=1e-8)


# ---------------------------------------------------------------- more equations than unknowns
def bent(seed, noise, m=15, n=6):
    """Return c, its Jacobian, a start and the second derivatives for ``v @ c``."""
    rng = np.random.default_rng(seed)
    A, t = rng.standard_normal((m, n)), noise * rng.standard_normal(m)
    return (
        lambda x: A @ x + 0.1 * np.sin(A @ x) - t,
        lambda x: A * (1 + 0.1 * np.cos(A @ x))[:, None],
        np.zeros(n),
        lambda x, v: (A.T * (-0.1 * np.sin(A @ x) * v)) @ A,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.01, 1.0, 30.0])
def test_fits_are_those_of_scipy(kind, noise):
    c, jac, x0, hess = bent(0, noise)
    res = constrained.minimize(**equations(c, jac, x0, hess, kind=kind), least_squares=True)
    assert res.success
    assert res.certificate.kind != "KKT residual"
    assert abs(jac(res.x).T @ c(res.x)).max() <= max(1e-8, res.certificate.tol)
    # There are several: SciPy must come back to this one.
    best = least_squares(c, res.x + 0.01, jac, xtol=1e-15, ftol=1e-15, gtol=1e-13)
    np.testing.assert_allclose(res.x, best.x, atol=1e-6)


def test_linear_fits_are_those_of_numpy():
    rng = np.random.default_rng(5)
    A, b = 1e3 * rng.standard_normal((9, 4)), rng.standard_normal(9)
    # Rows of different length: scaling them would change the fit.
    A[0] *= 50
    rows = LinearConstraint(A, b, b)
    zero = {"jac": np.zeros_like, "hess": lambda x: np.zeros((4, 4))}
    res = constrained.minimize(
        lambda x: 0.0, np.zeros(4), constraints=rows, least_squares=True, **zero
    )
    assert res.success
    np.testing.assert_allclose(res.x, np.linalg.lstsq(A, b, rcond=None)[0], atol=1e-9)


def test_the_objective_is_ignored_by_a_fit():
    c, jac, x0, _ = bent(1, 1.0)
    keywords = equations(c, jac, x0)
    plain = constrained.minimize(**keywords, least_squares=True)
    keywords |= {"fun": lambda x: x.sum(), "jac": np.ones_like}
    res = constrained.minimize(**keywords, least_squares=True)
    assert np.array_equal(res.x, plain.x)


def test_more_equations_than_unknowns_need_least_squares():
    c, jac, x0, _ = bent(2, 1.0)
    with pytest.raises(ValueError, match=r"`constraints`.*m=15 > n=6.*least_squares=True"):
        constrained.minimize(**equations(c, jac, x0))


def test_a_fit_takes_no_bounds():
    c, jac, x0, _ = bent(2, 1.0)
    with pytest.raises(ValueError, match=r"`constraints`.*no bounds"):
        constrained.minimize(
            **equations(c, jac, x0), bounds=Bounds(-np.ones(6), np.ones(6)), least_squares=True
        )


def test_least_squares_changes_nothing_where_there_are_enough_unknowns():
    c, jac, xs = wavy(6)
    keywords = equations(c, jac, xs + 0.1)
    plain = constrained.minimize(**keywords)
    res = constrained.minimize(**keywords, least_squares=True)
    assert np.array_equal(res.x, plain.x)
    assert res.certificate.kind == "KKT residual"


def test_a_fit_can_be_limited_and_watched():
    c, jac, x0, _ = bent(0, 30.0)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        res = constrained.minimize(
            **equations(c, jac, x0),
            least_squares=True,
            maxiter=2,
            callback=lambda intermediate_result: seen.append(intermediate_result.kkt),
        )
    assert res.status == Status.MAXITER
    assert len(seen) == res.nit == 2


def test_fixed_unknowns_do_not_count():
    # Two unknowns are left of three, for two equations.
    con = NonlinearConstraint(
        lambda x: np.array([x[0] + x[2] - 3.0, x[1] * x[2] - 4.0]),
        0.0,
        0.0,
        jac=lambda x: np.array([[1.0, 0.0, 1.0], [0.0, x[2], x[1]]]),
        hess=lambda x, v: v[1] * np.array([[0.0, 0, 0], [0, 0, 1], [0, 1, 0]]),
    )
    res = constrained.minimize(
        lambda x: 0.0,
        np.array([0.0, 0.0, 2.0]),
        jac=np.zeros_like,
        hess=lambda x: np.zeros((3, 3)),
        constraints=con,
        bounds=Bounds([-np.inf, -np.inf, 2.0], [np.inf, np.inf, 2.0]),
    )
    np.testing.assert_allclose(res.x, [1.0, 2.0, 2.0], atol=1e-10)
    assert res.globalization_used == "newton"
