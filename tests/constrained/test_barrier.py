"""Bounds and inequalities: against enumeration, linear programmes and closed forms."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, NonlinearConstraint, linprog

from solvers import ConvergenceWarning, Status, constrained
from solvers.constrained._barrier import Barrier
from solvers.constrained._problem import Standard, inside
from solvers.constrained._program import pose
from solvers.constrained._squared import Squared


def quadratic(seed, n=4, m=1):
    """Return H, g, A, b, lo, up of a convex quadratic whose feasible set has an interior."""
    rng = np.random.default_rng(seed)
    R = rng.standard_normal((n, n))
    A, inner = rng.standard_normal((m, n)), rng.uniform(-0.3, 0.3, n)
    return R @ R.T + 0.1 * np.eye(n), 2 * rng.standard_normal(n), A, A @ inner, -0.5, 0.5


def enumerate_active(H, g, A, b, lo, up):
    """Return the minimiser: the best feasible one over which unknowns sit at which bound."""
    n, best, least = len(g), None, np.inf
    for sides in itertools.product((-1, 0, 1), repeat=n):
        where = np.array(sides)
        x, free = np.where(where < 0, lo, np.where(where > 0, up, 0.0)), where == 0
        k, m = free.sum(), len(A)
        K = np.block([[H[np.ix_(free, free)], A[:, free].T], [A[:, free], np.zeros((m, m))]])
        r = np.append(-(g + H @ x)[free], b - A @ x)
        d = np.linalg.lstsq(K, r, rcond=None)[0]
        x[free] = d[:k]
        feasible = (
            abs(A @ x - b).max() < 1e-9 and (x >= lo - 1e-9).all() and (x <= up + 1e-9).all()
        )
        if feasible and (value := 0.5 * x @ H @ x + g @ x) < least:
            best, least = x, value
    return best


def call(H, g, A, b, lo, up, **options):
    n = len(g)
    bounds = None if lo is None else Bounds(np.full(n, lo), np.full(n, up))
    return constrained.minimize(
        lambda x: 0.5 * x @ H @ x + g @ x,
        options.pop("x0", np.zeros(n)),
        jac=lambda x: H @ x + g,
        hess=lambda x: H,
        constraints=LinearConstraint(A, b, b),
        bounds=bounds,
        **options,
    )


# ---------------------------------------------------------------- answers
@pytest.mark.parametrize("seed", range(8))
def test_quadratics_in_a_box_equal_enumeration(seed):
    data = quadratic(seed)
    res = call(*data)
    assert res.status == Status.CONVERGED, res.message
    assert res.success
    np.testing.assert_allclose(res.x, enumerate_active(*data), atol=1e-6)
    H, g, A, *_ = data
    np.testing.assert_allclose(H @ res.x + g + A.T @ res.lam + res.bound_lam, 0.0, atol=2e-8)


@pytest.mark.parametrize("inner", ["direct", "pcg", "minres", "gmres", "kaczmarz++"])
def test_every_inner_solver_runs_inside_the_barrier(inner):
    data = quadratic(3)
    res = call(*data, inner=inner, tol=1e-6, rng=0)
    assert res.success, res.message
    np.testing.assert_allclose(res.x, enumerate_active(*data), atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"globalization": "eal"}, {"globalization": "filter"}, {"method": "sqp-direct"}]
)
def test_every_globalization_runs_inside_the_barrier(options):
    data = quadratic(5)
    res = call(*data, **options)
    assert res.success, res.message
    np.testing.assert_allclose(res.x, enumerate_active(*data), atol=1e-6)


@pytest.mark.parametrize("degenerate", [False, True])
def test_linear_programmes_equal_highs(degenerate):
    rng = np.random.default_rng(4)
    n, m = 6, 3
    A, c = rng.standard_normal((m, n)), rng.standard_normal(n)
    x = np.abs(rng.standard_normal(n))
    if degenerate:
        # A basic solution with a zero among its basic unknowns.
        x[2:] = 0.0
    b = A @ x
    res = constrained.minimize(
        lambda x: c @ x,
        np.ones(n),
        jac=lambda x: c,
        hess=lambda x: np.zeros((n, n)),
        constraints=LinearConstraint(A, b, b),
        bounds=Bounds(0.0, 3.0),
        tol=1e-7,
    )
    exact = linprog(c, A_eq=A, b_eq=b, bounds=(0, 3))
    assert res.success, res.message
    assert res.fun == pytest.approx(exact.fun, abs=1e-5)


def test_bounds_without_constraints_clip_a_separable_minimiser():
    middle = np.array([-2.0, 0.3, 5.0, 0.1])
    bounds = [(0, None), (None, None), (None, 1), (-1, 1)]
    res = constrained.minimize(
        lambda x: ((x - middle) ** 2).sum(),
        np.full(4, 7.0),
        jac=lambda x: 2 * (x - middle),
        hess=lambda x: 2 * np.eye(4),
        bounds=bounds,
    )
    assert res.success
    np.testing.assert_allclose(res.x, [0.0, 0.3, 1.0, 0.1], atol=1e-7)
    np.testing.assert_allclose(res.bound_lam, [-4.0, 0.0, 8.0, 0.0], atol=1e-5)


def project(rows, lb, ub, point, **options):
    """Project a point on ``lb <= rows @ x <= ub``."""
    return constrained.minimize(
        lambda x: 0.5 * ((x - point) ** 2).sum(),
        np.zeros(len(point)),
        jac=lambda x: x - point,
        hess=lambda x: np.eye(len(point)),
        constraints=LinearConstraint(rows, lb, ub),
        **options,
    )


def test_multipliers_of_rows_have_the_sign_of_their_side():
    res = project(np.eye(3), [1.0, -np.inf, -2.0], [np.inf, -1.0, 2.0], np.array([0.0, 0, 0.5]))
    assert res.success
    np.testing.assert_allclose(res.x, [1.0, -1.0, 0.5], atol=1e-7)
    np.testing.assert_allclose(res.lam, [-1.0, 1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize(("side", "lam"), [(-3.0, -1.0), (3.0, 1.0)])
def test_a_row_with_two_sides_is_held_by_the_nearer_one(side, lam):
    res = project(np.array([[1.0, 1.0]]), [-4.0], [4.0], np.array([side, side]))
    assert res.success
    np.testing.assert_allclose(res.x, 2.0 * np.sign(side), atol=1e-7)
    np.testing.assert_allclose(res.lam, [lam], atol=1e-6)


def test_rows_without_sides_are_dropped():
    rows, point = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([2.0, 2.0])
    with_free = project(rows, [-np.inf, -np.inf], [1.0, np.inf], point)
    alone = project(rows[:1], [-np.inf], [1.0], point)
    np.testing.assert_array_equal(with_free.x, alone.x)
    assert with_free.lam[1] == 0.0


@pytest.mark.parametrize("width", [0.0, 1e-17, 1e-15])
def test_unknowns_between_equal_bounds_are_fixed(width):
    seen = []

    def fun(x):
        seen.append(x[1])
        return ((x - 3) ** 2).sum()

    res = constrained.minimize(
        fun,
        np.zeros(3),
        jac=lambda x: 2 * (x - 3),
        hess=lambda x: 2 * np.eye(3),
        bounds=Bounds([0, 1.0, 0], [1, 1.0 + width, 9]),
    )
    assert res.success
    np.testing.assert_allclose(res.x, [1.0, 1.0, 3.0], atol=1e-7)
    assert abs(np.array(seen) - 1.0).max() <= 2 * width


def test_rows_between_equal_sides_are_equations():
    res = project(np.array([[1.0, 1.0]]), [1.0], [1.0 + 2e-16], np.array([1.0, 2.0]))
    assert res.success
    np.testing.assert_allclose(res.x, [0.0, 1.0], atol=1e-8)


# ---------------------------------------------------------------- starts and ends
def test_functions_are_asked_inside_the_bounds_only():
    """A logarithm has no value outside; the start lies on the bound."""
    asked = []

    def fun(x):
        asked.append(x.copy())
        return x.sum() - np.log(x).sum()

    res = constrained.minimize(
        fun,
        np.zeros(3),
        jac=lambda x: 1 - 1 / x,
        hess=lambda x: np.diag(1 / x**2),
        bounds=Bounds(0.0, np.inf),
    )
    assert res.success
    np.testing.assert_allclose(res.x, 1.0, atol=1e-6)
    assert np.min(asked) > 0


def test_no_point_is_evaluated_twice():
    asked = []

    def fun(x):
        asked.append(x.tobytes())
        return (x**4).sum() - x.sum()

    constrained.minimize(
        fun,
        np.full(3, 0.2),
        jac=lambda x: 4 * x**3 - 1,
        hess=lambda x: np.diag(12 * x**2),
        bounds=Bounds(0.0, 0.5),
    )
    assert len(asked) - len(set(asked)) <= 1, "the certificate looks at the answer once more"


@pytest.mark.parametrize("x0", [[9.0, -9.0], [0.5, 0.5], [-1e3, 1e3]])
def test_a_start_outside_the_bounds_is_moved_inside(x0):
    res = constrained.minimize(
        lambda x: x @ x,
        np.array(x0),
        jac=lambda x: 2 * x,
        hess=lambda x: 2 * np.eye(2),
        constraints=NonlinearConstraint(
            lambda x: [x[0] * x[1]],
            1.0,
            np.inf,
            jac=lambda x: np.array([[x[1], x[0]]]),
            hess=lambda x, v: v[0] * np.array([[0.0, 1.0], [1.0, 0.0]]),
        ),
        bounds=Bounds(0.1, 5.0),
    )
    assert res.success
    np.testing.assert_allclose(res.x, [1.0, 1.0], atol=1e-6)


def test_moved_starts_keep_a_distance_from_both_sides():
    lo, up = np.array([0.0, -np.inf, 1e4, 1.0]), np.array([1.0, 3.0, np.inf, 1.0])
    for x in (np.full(4, -1e9), np.full(4, 1e9), np.full(4, 0.4)):
        z = inside(x, lo, up, xp=np)
        free = lo < up
        assert (z > lo)[free].all()
        assert (z < up)[free].all()
        assert z[3] == 1.0
    np.testing.assert_array_equal(inside(np.array([0.5]), lo[:1], up[:1], xp=np), [0.5])


def test_empty_sets_end_as_infeasible():
    with pytest.warns(ConvergenceWarning):
        res = constrained.minimize(
            lambda x: x @ x,
            np.array([0.3, 0.4]),
            jac=lambda x: 2 * x,
            hess=lambda x: 2 * np.eye(2),
            constraints=LinearConstraint([[1.0, 1.0]], 3.0, 3.0),
            bounds=Bounds(0.0, 1.0),
        )
    assert res.status == Status.INFEASIBLE
    assert not res.success
    assert res.constr_violation >= 0.99


def test_sparse_matrices_give_the_answer_of_dense_ones():
    H, g, A, b, lo, up = quadratic(6)
    res = constrained.minimize(
        lambda x: 0.5 * x @ H @ x + g @ x,
        np.zeros(4),
        jac=lambda x: H @ x + g,
        hess=lambda x: sp.csr_array(H),
        constraints=LinearConstraint(sp.csr_array(A), b, b + 0.1),
        bounds=[(lo, up)] * 4,
    )
    dense = constrained.minimize(
        lambda x: 0.5 * x @ H @ x + g @ x,
        np.zeros(4),
        jac=lambda x: H @ x + g,
        hess=lambda x: H,
        constraints=LinearConstraint(A, b, b + 0.1),
        bounds=[(lo, up)] * 4,
    )
    assert res.success
    assert dense.success
    np.testing.assert_allclose(res.x, dense.x, atol=1e-7)


def test_float32_is_kept():
    data = quadratic(2)
    res = call(*data, x0=np.zeros(4, np.float32), tol=1e-4)
    assert res.success
    assert res.x.dtype == np.float32
    np.testing.assert_allclose(res.x, enumerate_active(*data), atol=1e-3)


def test_infinite_bounds_cost_nothing():
    H, g, A, b, *_ = quadratic(1)
    plain, infinite = call(H, g, A, b, -np.inf, np.inf), call(H, g, A, b, None, None)
    np.testing.assert_array_equal(plain.x, infinite.x)
    assert plain.nfev == infinite.nfev
    assert plain.globalization_used == "eal"


# ---------------------------------------------------------------- the barrier problem
def curved(kind=Barrier):
    """Return a barrier problem with curved rows, a point inside and multipliers."""
    con = NonlinearConstraint(
        lambda x: [x[0] * x[1] - x[2] ** 2, x @ x],
        [0.1, -np.inf],
        [0.1, 4.0],
        jac=lambda x: np.array([[x[1], x[0], -2 * x[2]], 2 * x]),
        hess=lambda x, v: (
            v[0] * np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -2]]) + 2 * v[1] * np.eye(3)
        ),
    )
    program, x = pose(
        lambda x: (x**4).sum(),
        np.array([0.7, 0.5, 0.4]),
        jac=lambda x: 4 * x**3,
        hess=lambda x: np.diag(12 * x**2),
        constraints=con,
        bounds=Bounds([0, -1, -np.inf], [1, np.inf, 3]),
    )
    standard = Standard(program, x)
    problem = kind(standard, 1e-8) if kind is Barrier else kind(standard)
    rng = np.random.default_rng(0)
    return problem, problem.start(None)[0], rng.standard_normal(problem.m), rng


@pytest.mark.parametrize("kind", [Barrier, Squared])
def test_products_are_derivatives_of_the_lagrangians_gradient(kind):
    problem, z, lam, rng = curved(kind)
    p, h = rng.standard_normal(problem.n), 1e-6
    product = problem.curvature(problem.point(z), lam).product(p)
    ends = [problem.point(z + t * p).gradient(lam) for t in (h, -h)]
    np.testing.assert_allclose(product, (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [Barrier, Squared])
def test_gradients_are_derivatives_of_values(kind):
    problem, z, _, rng = curved(kind)
    p, h, at = rng.standard_normal(problem.n), 1e-6, problem.point(z)
    new, old = problem.point(z + h * p), problem.point(z - h * p)
    assert at.g @ p == pytest.approx((new.f - old.f) / (2 * h), rel=1e-6)
    np.testing.assert_allclose(at.G @ p, (new.c - old.c) / (2 * h), atol=1e-6)


def test_steps_leave_a_part_of_every_distance():
    problem, z, _, rng = curved()
    for _ in range(20):
        dz = 10 * rng.standard_normal(problem.n)
        before, step = problem.sides.distances(z), problem.longest(z, dz)
        assert 0 < step <= 1
        assert (problem.sides.distances(z + step * dz) >= 0.0099 * before).all()


def test_multipliers_follow_the_newton_step_of_their_equation():
    """A full step that changes no multiplier much solves w d = mu to first order."""
    problem, z, lam, rng = curved()
    point, dz = problem.point(z), 1e-4 * rng.standard_normal(problem.n)
    assert problem.longest(z, dz) == 1.0
    new = problem.point(z + dz)
    problem.moved(point, lam, new, lam, 1.0)
    np.testing.assert_allclose(new.w * new.d, problem.mu, rtol=1e-2)


def test_a_step_back_finds_the_multipliers_of_its_point():
    problem, z, lam, rng = curved()
    point, dz = problem.point(z), 0.01 * rng.standard_normal(problem.n)
    problem.longest(z, dz)
    first = problem.point(z + dz)
    problem.moved(point, lam, first, lam, 1.0)
    before = first.w.copy()
    problem.longest(first.z, dz)
    problem.moved(first, lam, problem.point(first.z + dz), lam, 1.0)
    np.testing.assert_array_equal(first.w, before)


# ---------------------------------------------------------------- squared slacks
@pytest.mark.parametrize("seed", [0, 3])
def test_squared_slacks_find_the_same_answer(seed):
    data = quadratic(seed)
    res = call(*data, inequalities="squared-slack", tol=1e-7)
    assert res.success, res.message
    np.testing.assert_allclose(res.x, enumerate_active(*data), atol=1e-5)


def test_squared_slacks_count_multipliers_of_the_wrong_sign():
    """At x = 0 the problem min (x - 1)^2 with x >= 0 is stationary for the multiplier 2."""
    program, x = pose(
        lambda x: float((x[0] - 1) ** 2),
        np.array([0.5]),
        jac=lambda x: 2 * (x - 1),
        hess=lambda x: 2 * np.eye(1),
        bounds=[(0, None)],
    )
    problem = Squared(Standard(program, x))
    point, lam = problem.point(np.zeros(2)), np.array([2.0])
    np.testing.assert_allclose(point.gradient(lam), 0.0)
    assert problem.residual(point, problem.answer(point, lam)).kkt == pytest.approx(2.0)


# ---------------------------------------------------------------- words
def test_inequalities_are_refused_where_the_caller_wants_none():
    data = quadratic(0)
    with pytest.raises(ValueError, match="`inequalities` came as 'error'"):
        call(*data, inequalities="error")
    assert call(*data[:4], -np.inf, np.inf, inequalities="error").success
    with pytest.raises(ValueError, match="`inequalities` came as 'luck'"):
        call(*data, inequalities="luck")


def test_order_of_unknowns_does_not_matter():
    H, g, A, b, lo, up = quadratic(7)
    order = np.array([2, 0, 3, 1])
    res = call(H, g, A, b, lo, up)
    other = call(H[np.ix_(order, order)], g[order], A[:, order], b, lo, up)
    np.testing.assert_allclose(other.x, res.x[order], atol=1e-7)


def test_faces_of_solutions_that_never_end_are_no_reason_to_go_far():
    """Whatever x[1] is, x[0] = 0 is a solution."""
    res = constrained.minimize(
        lambda x: x[0],
        np.ones(2),
        jac=lambda x: np.array([1.0, 0.0]),
        hess=lambda x: np.zeros((2, 2)),
        bounds=Bounds(0.0, np.inf),
    )
    assert res.success
    assert res.x[0] <= 1e-7
    assert res.x[1] < 1e6


def test_sides_without_force_do_not_hold_the_answer_off():
    """At the solution x = 0 the multiplier is 0, too: their product says little."""
    res = constrained.minimize(
        lambda x: float(x @ x),
        np.array([0.5]),
        jac=lambda x: 2 * x,
        hess=lambda x: 2 * np.eye(1),
        bounds=Bounds(0.0, np.inf),
        tol=1e-7,
    )
    assert res.success
    assert 0 <= res.x[0] <= 2e-6, "the square root of the tolerance is 3e-4"
