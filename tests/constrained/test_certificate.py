import ast
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from _cupy_standin import run_with_standin
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, NonlinearConstraint

import solvers
from solvers.constrained import _second_order, certify, minimize
from solvers.constrained._certificate import judge
from solvers.constrained._matrices import Operator
from solvers.constrained._multipliers import Sides, _cost, fit
from solvers.constrained._program import pose
from solvers.constrained._second_order import smallest_curvature
from tests.constrained.oracles import (
    circle,
    fitted_cost,
    kkt,
    planted,
    quadratic,
    reduced_eigenvalue,
)

seeds = st.integers(0, 2**32 - 1)


def without_hess(problem):
    return {key: value for key, value in problem.items() if key != "hess"}


def rows(A, c=None, low=0.0, high=0.0):
    """Linear rows ``A x + c`` with a Jacobian of any kind."""
    m = A.shape[0]
    c = np.zeros(m) if c is None else c
    low, high = np.broadcast_to(low, m), np.broadcast_to(high, m)
    return NonlinearConstraint(lambda x: A @ x + c, low, high, jac=lambda x: A)


# ---------------------------------------------------------------- the residual
@given(seeds)
def test_the_value_is_the_residual_of_least_squares_multipliers(seed):
    rng = np.random.default_rng(seed)
    x, _, problem = quadratic(rng)
    for away in (0.0, 1e-3, 1.0):
        y = x + away * rng.normal(size=len(x))
        A, b = problem["constraints"].A, problem["constraints"].lb
        cert = certify(y, **without_hess(problem))
        g = problem["jac"](y)
        lam = np.linalg.lstsq(A.T, -g, rcond=None)[0]
        expected = max(abs(g + A.T @ lam).max(), abs(A @ y - b).max())
        assert cert.kind == "KKT residual"
        assert cert.value == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert cert.holds == (cert.value <= cert.tol) == (away == 0.0)


@given(seeds)
def test_planted_multipliers_of_all_kinds_are_found(seed):
    x, lam, bound, problem = planted(np.random.default_rng(seed))
    program, _ = pose(x0=x, hess=None, **problem)
    verdict = judge(program, x, tol=1e-8)
    assert verdict.certificate.value <= 1e-11
    np.testing.assert_allclose(verdict.lam, lam, atol=1e-7)
    np.testing.assert_allclose(verdict.bound, bound, atol=1e-7)


@given(seeds)
def test_no_multipliers_fit_better(seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 9), rng.integers(0, 6)
    G = rng.normal(size=(m, n)) * 10 ** rng.uniform(-1, 1, size=(m, 1))
    distances = []
    for k in (m, m, n, n):
        d = 10 ** rng.uniform(-6, 1, size=k)
        d[rng.random(k) < 0.4] = np.inf
        d[rng.random(k) < 0.2] = 0.0
        distances.append(d)
    g = rng.normal(size=n)
    lam = fit(g, G, Sides(*distances)).exact
    best = fitted_cost(g, G, *distances)
    assert _cost(g, G, Sides(*distances), lam) <= best * (1 + 1e-6) + 1e-13 * (g @ g)


def test_an_inactive_side_explains_nothing():
    x, con = np.array([2.0]), rows(np.eye(1), low=1.0, high=np.inf)
    cert = certify(x, lambda x: x[0], jac=lambda x: np.ones(1), constraints=con)
    # The best compromise of stationarity 1 - y and complementarity y leaves 1 / 2.
    assert cert.value == pytest.approx(0.5)


def test_a_point_of_a_barrier_method_passes_without_a_threshold_of_activity():
    # A multiplier of 1e-3 sits 1e-5 off its bound when both products are 1e-8.
    cert = certify(
        np.array([1e-5]), lambda x: 1e-3 * x[0], jac=lambda x: np.full(1, 1e-3), bounds=[(0, None)]
    )
    assert cert.holds
    assert cert.details["complementarity"] == pytest.approx(1e-8, rel=1e-3)


def test_inequalities_have_signs_and_bounds_too():
    up = rows(np.eye(1), low=-np.inf, high=1.0)
    low = rows(np.eye(1), low=1.0, high=np.inf)
    for sign, good, bad, bounds in ((1.0, low, up, (1, None)), (-1.0, up, low, (None, 1))):
        fun, jac = (lambda x, s=sign: s * x[0]), (lambda x, s=sign: np.full(1, s))
        assert certify(np.ones(1), fun, jac=jac, constraints=good).value == 0.0
        assert certify(np.ones(1), fun, jac=jac, constraints=bad).value == 1.0
        assert certify(np.ones(1), fun, jac=jac, bounds=[bounds]).value == 0.0
        assert certify(np.ones(1), fun, jac=jac, bounds=[bounds[::-1]]).value == 1.0


def test_multipliers_given_are_used_and_their_wrong_signs_count_in_full():
    x, lam, _, problem = planted(np.random.default_rng(1))
    assert certify(x, lam=lam, **problem).value <= 1e-12
    off = lam.copy()
    off[0] += 0.5
    assert certify(x, lam=off, **problem).value >= 0.05
    con = rows(np.eye(1), low=1.0, high=np.inf)
    cert = certify(
        np.ones(1), lambda x: -x[0], jac=lambda x: -np.ones(1), constraints=con, lam=[1.0]
    )
    assert cert.details["stationarity"] == 0.0
    assert cert.details["complementarity"] == 1.0


def test_a_solvers_multipliers_give_way_to_better_ones():
    x, lam, problem = quadratic(np.random.default_rng(2))
    program, _ = pose(x0=x, **problem)
    assert judge(program, x, lam + 1.0, tol=1e-8).certificate.holds
    assert not judge(program, x, lam + 1.0, tol=1e-8, strict=True).certificate.holds
    np.testing.assert_array_equal(judge(program, x, lam, tol=1e-8).lam, lam)


def test_a_result_is_judged_with_its_own_multipliers_first():
    _, problem = circle()
    res = minimize(x0=np.array([0.9, 0.4, 0.3]), **problem)
    cert = certify(res, **problem)
    assert cert.value == res.kkt
    assert cert.value == certify(res.x, lam=res.lam, **problem).value
    res.lam = res.lam + 1.0
    assert certify(res, **problem).holds


def test_violations_of_rows_and_bounds_count_in_full():
    con = rows(np.eye(2), low=[0.0, -1.0], high=[0.0, 1.0])
    zero = {"fun": lambda x: 0.0, "jac": lambda x: np.zeros(2), "constraints": con}
    assert certify([0.25, 0.0], **zero).details["violation"] == 0.25
    assert certify([0.0, 1.5], **zero).value == 0.5
    assert certify([0.0, -1.75], **zero).value == 0.75
    assert certify([0.0, 0.5], bounds=[(None, None), (0.75, 1)], **zero).value == 0.25


def test_what_is_not_finite_does_not_hold():
    for jac in (lambda x: np.full(2, np.nan), lambda x: np.full(2, np.inf)):
        cert = certify(np.ones(2), lambda x: 1.0, jac=jac, constraints=rows(np.ones((1, 2)), -2.0))
        assert not cert.holds
        assert not math.isfinite(cert.value)


def test_fixed_unknowns_and_rows_without_sides_explain_what_they_may():
    x = np.array([1.0, 2.0])
    linear = {"fun": lambda x: x.sum(), "jac": lambda x: np.ones(2)}
    assert certify(x, bounds=[(1, 1), (2, 2)], **linear).value == 0.0
    assert certify(x, bounds=[(1, 1), (None, None)], **linear).value == 1.0
    assert certify(x, bounds=[(4, 4), (2, 2)], **linear).details["violation"] == 3.0
    assert certify(x, constraints=rows(np.eye(2), low=-np.inf, high=np.inf), **linear).value == 1.0


# ---------------------------------------------------------------- kinds of matrices
@pytest.mark.parametrize("kind", ["csr", "csc", "operator"])
@pytest.mark.parametrize("rank", ["full", "deficient"])
def test_every_kind_of_jacobian_gives_the_dense_verdict(kind, rank, rng):
    n, m = 12, 5
    A = rng.normal(size=(m, n)) * (rng.random((m, n)) < 0.6)
    if rank == "deficient":
        A[3] = A[0] - A[1]
    x = rng.normal(size=n)
    low, high = np.full(m, -np.inf), A @ x + [0.0, 0.0, 1e-3, 0.0, 0.5]
    low[:2] = high[:2]
    form = {"csr": sp.csr_array, "csc": sp.csc_array, "operator": sp.linalg.aslinearoperator}[kind]
    form = form(A)
    g = rng.normal(size=n)
    bounds = [(xi - 0.1, None) if i % 3 else (None, xi) for i, xi in enumerate(x)]
    found = [
        certify(
            x,
            lambda x: g @ x,
            jac=lambda x: g,
            constraints=NonlinearConstraint(lambda x: A @ x, low, high, jac=lambda x, J=J: J),
            bounds=bounds,
        )
        for J in (A, form)
    ]
    assert found[1].value == pytest.approx(found[0].value, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_sparse_multipliers_are_as_good_as_dense_ones_on_stiff_rows(scale, rng):
    n = 40
    A = sp.diags_array([np.ones(n - 1), -np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n)).tocsr()
    A = sp.csr_array(sp.diags_array(np.geomspace(1, 1e6, n - 1)) @ A)
    lam = rng.normal(size=n - 1)
    g = scale * (A.T @ lam)
    values = [
        certify(np.zeros(n), lambda x: g @ x, jac=lambda x: -g, constraints=rows(J)).value
        for J in (A, A.toarray())
    ]
    assert max(values) <= 1e-12 * abs(g).max()


def test_many_unknowns_stay_sparse():
    n = 100_000
    x = 1.0 + 0.1 * np.sin(np.arange(n))
    A = sp.diags_array([0.3 * np.ones(n - 2), x[1:-1], -np.ones(n - 2)], offsets=[0, 1, 2]).tocsr()
    A = sp.csr_array(A, shape=(n - 2, n))
    g = A.T @ np.cos(np.arange(n - 2))
    cert = certify(x, lambda x: g @ x, jac=lambda x: g, constraints=rows(A, -(A @ x)))
    assert cert.value <= 1e-12


# ---------------------------------------------------------------- floors
def test_rounding_raises_the_tolerance_when_every_part_is_within_its_floor():
    x, _, problem = quadratic(np.random.default_rng(3))
    steep = {**problem, "fun": lambda x: 0.0, "jac": lambda x: 1e10 * problem["jac"](x)}
    cert = certify(x, **without_hess(steep))
    assert cert.value > 1e-8
    assert cert.holds
    assert cert.details["tol"] == 1e-8
    assert cert.tol == cert.details["kkt_floor"] <= 1e-2
    y = x + 1e-6
    assert not certify(y, **without_hess(steep)).holds


def test_a_steep_objective_does_not_excuse_a_violation():
    sum_is_one = LinearConstraint(np.ones((1, 3)), 1.0, 1.0)
    steep = {"fun": lambda x: 1e10 * x.sum(), "jac": lambda x: np.full(3, 1e10)}
    cert = certify(np.full(3, (1 + 1e-4) / 3), constraints=sum_is_one, **steep)
    assert cert.value == pytest.approx(1e-4)
    assert not cert.holds
    assert cert.tol == 1e-8


def test_rows_that_are_almost_the_same_do_not_raise_the_floor(rng):
    a, b = rng.normal(size=(2, 6))
    A = np.array([a, a + 1e-11 * b])
    g = -(a + 1e-3 * rng.normal(size=6))
    cert = certify(np.zeros(6), lambda x: g @ x, jac=lambda x: g, constraints=rows(A))
    assert not cert.holds
    assert cert.details["kkt_floor"] <= 1e-11


def test_single_precision_has_floors_of_its_own():
    x, problem = circle()
    problem = without_hess(problem)
    assert not certify(x.astype(np.float32).astype(np.float64), **problem).holds
    cert = certify(x.astype(np.float32), **problem)
    assert cert.holds
    assert 1e-8 < cert.tol <= 1e-4


# ---------------------------------------------------------------- curvature
def test_saddles_are_stationary_and_curve_downwards():
    for sign, expected in ((1.0, 2 * math.sqrt(3)), (-1.0, -2 * math.sqrt(3))):
        x, problem = circle(sign=sign)
        cert = certify(x, **problem)
        assert cert.holds
        assert cert.details["smallest_curvature"] == pytest.approx(expected)
        program, x = pose(x0=x, **problem)
        assert judge(program, x, tol=1e-8, second_order=True).second_order == (sign > 0)
    assert math.isnan(certify(x, **without_hess(problem)).details["smallest_curvature"])


@given(seeds)
def test_the_smallest_curvature_is_that_of_the_tangent_plane(seed):
    rng = np.random.default_rng(seed)
    n, m = 9, 3
    H, A = rng.normal(size=(n, n)), rng.normal(size=(m, n))
    A[2] *= 1e-6
    held, free = rng.random(m) < 0.7, rng.random(n) < 0.8
    expected = reduced_eigenvalue(H + H.T, np.concatenate([A[held], np.eye(n)[~free]]))
    found, _ = smallest_curvature(H + H.T, A, held, free)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("form", ["sparse", "operator", "no entries at all"])
def test_large_problems_have_their_curvature_from_products(form, rng, monkeypatch):
    monkeypatch.setattr(_second_order, "_DENSE", 100)
    n, m = 150, 30
    d = rng.uniform(1.0, 3.0, size=n)
    d[[7, 110]] = -0.5, -2.0
    A = sp.csr_array(sp.random_array((m, n), density=0.02, rng=rng) + sp.eye_array(m, n, k=90))
    free, held = np.arange(n) != 5, np.arange(m) != 3
    expected = reduced_eigenvalue(np.diag(d), np.concatenate([A.toarray()[held], np.eye(n)[[5]]]))
    H, G = sp.csr_array(sp.diags_array(d)), A
    if form != "sparse":
        H = Operator((n, n), lambda v: d * v, lambda v: d * v)
    if form == "no entries at all":
        G = Operator((m, n), lambda v: A @ v, lambda v: A.T @ v)
    assert smallest_curvature(H, G, held, free)[0] == pytest.approx(expected, rel=1e-7)


def test_no_direction_left_has_no_curvature():
    x = np.ones(2)
    cert = certify(
        x, lambda x: -x @ x, jac=lambda x: -2 * x, hess=lambda x: -2 * np.eye(2),
        constraints=rows(np.eye(2), -x),
    )  # fmt: skip
    assert cert.details["smallest_curvature"] == math.inf


def test_only_sides_that_hold_take_directions_away():
    concave = {"fun": lambda x: -0.5 * x @ x, "jac": lambda x: -x, "hess": lambda x: -np.eye(2)}
    corner = certify([1.0, 1.0], bounds=[(0, 1), (0, 1)], **concave)
    edge = certify([1.0, 0.0], bounds=[(0, 1), (-1, 1)], **concave)
    assert corner.holds
    assert corner.details["smallest_curvature"] == math.inf
    assert edge.holds
    assert edge.details["smallest_curvature"] == pytest.approx(-1.0)


# ---------------------------------------------------------------- infeasibility, least squares
def test_the_slope_of_the_violation_tells_local_infeasibility():
    con = NonlinearConstraint(
        lambda x: np.array([x @ x + 1.0]), 0.0, 0.0, jac=lambda x: 2 * x[None]
    )
    problem = {"fun": lambda x: x.sum(), "jac": lambda x: np.ones(2), "constraints": con}
    assert certify([0.0, 0.0], **problem).details["infeasibility"] == 0.0
    assert certify([0.3, 0.4], **problem).details["infeasibility"] == pytest.approx(1.0)
    assert math.isnan(certify(*circle()[:1], **circle()[1]).details["infeasibility"])
    # A bound in the way makes a point infeasible too.
    line = {
        "fun": lambda x: 0.0,
        "jac": lambda x: np.zeros(1),
        "constraints": rows(np.eye(1), 2.0),
    }
    assert certify([0.0], bounds=[(0, None)], **line).details["infeasibility"] == 0.0
    assert certify([0.0], bounds=[(None, 0)], **line).details["infeasibility"] == 1.0


def test_least_squares_are_judged_by_their_own_gradient(rng):
    A, b = rng.normal(size=(9, 4)), rng.normal(size=9)
    problem = {"fun": lambda x: 0.0, "jac": lambda x: np.zeros(4), "constraints": rows(A, -b)}
    x = np.linalg.lstsq(A, b, rcond=None)[0]
    cert = certify(x, least_squares=True, **problem)
    assert cert.holds
    assert "violation" in cert.kind
    assert cert.details["violation"] == pytest.approx(abs(A @ x - b).max())
    bounds = [(None, None)] * 3 + [(x[3] + 1.0, None)]
    assert certify(x, least_squares=True, bounds=bounds, **problem).value == pytest.approx(1.0)
    y = x + 0.1
    cert = certify(y, least_squares=True, **problem)
    assert cert.value == pytest.approx(abs(A.T @ (A @ y - b)).max())
    assert not cert.holds


# ---------------------------------------------------------------- laws
@given(seeds)
def test_constants_orders_and_copies_of_rows_change_nothing(seed):
    rng = np.random.default_rng(seed)
    x, _, problem = quadratic(rng)
    x = x + 0.1 * rng.normal(size=len(x))
    A, b = problem["constraints"].A, problem["constraints"].lb
    order = rng.permutation(len(b))
    again = [order, np.append(order, order[0])]
    value = kkt(x, problem["fun"], problem["jac"], rows(A, -b))
    for picked in again:
        con = LinearConstraint(A[picked], b[picked], b[picked])
        cert = certify(x, problem["fun"], jac=problem["jac"], constraints=con)
        assert cert.value == pytest.approx(value, rel=1e-8)


@given(seeds)
def test_rows_in_other_units_have_the_same_stationarity(seed):
    rng = np.random.default_rng(seed)
    x, _, problem = quadratic(rng)
    x = x + 0.1 * rng.normal(size=len(x))
    A, b = problem["constraints"].A, problem["constraints"].lb
    d = 10 ** rng.uniform(-4, 4, size=len(b))
    one = certify(x, **without_hess(problem)).details["stationarity"]
    con = LinearConstraint(d[:, None] * A, d * b, d * b)
    other = certify(x, problem["fun"], jac=problem["jac"], constraints=con).details
    assert other["stationarity"] == pytest.approx(one, rel=1e-8)


def test_the_judge_uses_nothing_of_the_solvers():
    folder = Path(solvers.__file__).parent / "constrained"
    seen = set()
    for name in ("_certificate", "_multipliers", "_second_order"):
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                seen.add(node.module)
    assert seen <= {"_matrices", "_multipliers", "_program", "_second_order"}


def test_device_arrays_are_judged_alike():
    run_with_standin(Path(__file__).parent / "certificate_on_device.py")


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"tol": 0.0}, ValueError, "`tol`"),
        ({"tol": "small"}, TypeError, "`tol`"),
        ({"lam": np.zeros(4)}, ValueError, "`lam`"),
        ({"lam": np.array([np.nan])}, ValueError, "`lam`"),
        ({"lam": "none"}, TypeError, "`lam`"),
        ({"least_squares": 1}, TypeError, "`least_squares`"),
        ({"fun": 3}, TypeError, "`fun`"),
        ({"x": np.zeros((2, 2))}, ValueError, "`x`"),
        ({"x": np.array([np.nan, 0.0, 0.0])}, ValueError, "`x`"),
        ({"x": np.zeros(3, complex)}, TypeError, "`x`"),
    ],
)
def test_bad_input_is_named(change, error, words):
    x, problem = circle()
    with pytest.raises(error, match=words):
        certify(**{"x": x, **problem, **change})
