"""Derivatives against differences of long reference iterations, which share nothing with them."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import solvers
from solvers import datasets, ot
from solvers._core import validation
from tests import oracles
from tests.core.kinds import KINDS, as_kind, assert_same_kind
from tests.ot import reference

REG = 0.7


def solution(a, b, C, reg=REG):
    """Canonical potentials and the plan for any mass; points without mass take no part."""
    mass, rows, cols = a.sum(), a > 0, b > 0
    alpha, beta = a / a.sum(), b / b.sum()
    f, g = reference.sinkhorn(alpha[rows], beta[cols], C[np.ix_(rows, cols)], reg)
    with np.errstate(divide="ignore"):
        F = -reg * np.log(np.exp((g - C[:, cols]) / reg) @ beta[cols])
        G = -reg * np.log(alpha[rows] @ np.exp((f[:, None] - C[rows]) / reg))
    t = (alpha @ F - beta @ G) / 2
    F, G = F - t, G + t
    P = mass * np.outer(alpha, beta) * np.exp((F[:, None] + G - C) / reg)
    return F, G, P


def loss(cotangents, a, b, C):
    """The linear functional whose gradient a vector-Jacobian product is."""
    return sum((c * v).sum() for c, v in zip(cotangents, solution(a, b, C), strict=True))


def slope(fun, t=1e-5):
    """Central difference at 0, good to about 1e-9 here."""
    return (fun(t) - fun(-t)) / (2 * t)


def directions(rng, a, b, C):
    """Random changes of weights (both masses alike) and of costs."""
    da, db = rng.normal(size=a.size) * a, rng.normal(size=b.size) * b
    return da, db + (da.sum() - db.sum()) * b / b.sum(), rng.normal(size=C.shape)


def cotangents(rng, which, n, m):
    full = rng.normal(size=n), rng.normal(size=m), rng.normal(size=(n, m))
    return [v if k in which else np.zeros_like(v) for k, v in enumerate(full)]


@pytest.mark.parametrize("which", [{0}, {1}, {2}, {0, 1, 2}], ids=["df", "dg", "dP", "all"])
@pytest.mark.parametrize("mass", [1.0, 3.0])
@pytest.mark.parametrize("order", ["C", "F"])
def test_vector_jacobian_products_are_slopes_of_a_long_reference_iteration(
    rng, which, mass, order
):
    a, b, C = oracles.cloud_problem(rng, 8, 6)
    a, b, C = mass * a, mass * b, np.asarray(C, order=order)
    res = ot.sinkhorn_newton(a, b, C, reg=REG, tol=1e-12)
    given = cotangents(rng, which, 8, 6)
    da, db, dC = res.vjp(*(v if k in which else None for k, v in enumerate(given)))
    va, vb, vC = directions(rng, a, b, C)
    by_weights = slope(lambda t: loss(given, a + t * va, b + t * vb, C))
    by_cost = slope(lambda t: loss(given, a, b, C + t * vC))
    assert da @ va + db @ vb == pytest.approx(by_weights, rel=1e-6, abs=1e-8)
    assert (dC * vC).sum() == pytest.approx(by_cost, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("order", ["C", "F"])
def test_points_without_mass_have_the_derivatives_of_a_point_that_gains_some(rng, order):
    a, b, C = oracles.cloud_problem(rng, 8, 6)
    a[2] = b[4] = 0.0
    a, b, C = 2 * a / a.sum(), 2 * b / b.sum(), np.asarray(C, order=order)
    res = ot.sinkhorn_newton(a, b, C, reg=REG, tol=1e-12)
    given = cotangents(rng, {0, 1, 2}, 8, 6)
    da, db, dC = res.vjp(*given)
    unit_a, unit_b = np.eye(8), np.eye(6)
    for va, vb in (
        (unit_a[2] - unit_a[0], 0.0),
        (0.0, unit_b[4] - unit_b[1]),
        (unit_a[2], unit_b[4]),
    ):

        def moved(t, va=va, vb=vb):
            return loss(given, a + t * va, b + t * vb, C)

        # One-sided, to second order: weights cannot become negative.
        t = 1e-5
        expected = (-3 * moved(0) + 4 * moved(t) - moved(2 * t)) / (2 * t)
        assert (da * va).sum() + (db * vb).sum() == pytest.approx(expected, rel=1e-6, abs=1e-7)
    vC = rng.normal(size=C.shape)
    expected = slope(lambda t: loss(given, a, b, C + t * vC))
    assert (dC * vC).sum() == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_a_point_that_nothing_reaches_has_no_derivative_and_spoils_none(rng):
    a, b, C = oracles.cloud_problem(rng, 8, 6)
    plain = ot.sinkhorn_newton(a, b, C, reg=REG, tol=1e-12)
    df, dg = rng.normal(size=8), rng.normal(size=6)
    expected = plain.vjp(df, dg)
    a, C = np.r_[a, 0.0], np.vstack([C, np.full(6, np.inf)])
    res = ot.sinkhorn_newton(a, b, C, reg=REG, tol=1e-12)
    da, db, dC = res.vjp(np.r_[df, 5.0], dg)
    np.testing.assert_allclose(da[:8], expected[0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(db, expected[1], rtol=0, atol=1e-8)
    np.testing.assert_allclose(dC, np.vstack([expected[2], np.zeros(6)]), rtol=0, atol=1e-8)
    assert np.isfinite(da).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_come_back_as_the_arrays_came(rng, kind):
    data = [as_kind(x.astype("float32"), kind) for x in oracles.cloud_problem(rng, 8, 6)]
    res = ot.sinkhorn_newton(*data, reg=REG)
    given = [as_kind(v.astype("float32"), kind) for v in cotangents(rng, {0, 1, 2}, 8, 6)]
    a, b, C = (np.asarray(x, dtype=float) for x in data)
    exact = ot.sinkhorn_newton(a, b, C, reg=REG, tol=1e-12)
    expected = exact.vjp(*(np.asarray(v, dtype=float) for v in given))
    for back, like, wanted in zip(res.vjp(*given), data, expected, strict=True):
        assert_same_kind(back, like)
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(np.asarray(back), wanted, rtol=0, atol=1e-3 * scale)


@given(st.integers(0, 2**32 - 1))
def test_what_cannot_change_the_answer_has_no_derivative(seed):
    rng = np.random.default_rng(seed)
    a, b, C = oracles.cloud_problem(rng, *rng.integers(1, 12, size=2))
    mass = rng.choice([1.0, 0.1, 7.0])
    res = ot.sinkhorn_newton(mass * a, mass * b, C, reg=0.2 * (C.max() + 0.1), tol=1e-11)
    df, dg, dP = cotangents(rng, {0, 1, 2}, a.size, b.size)
    da, db, dC = res.vjp(df, dg, dP)
    scale = sum(np.abs(x).sum() for x in (da, db, dC))
    # Equal changes of all costs go to the potentials, half to each; the plan does not see them.
    assert dC.sum() == pytest.approx((df.sum() + dg.sum()) / 2, abs=1e-8 * scale)
    # More mass scales the plan and nothing else.
    assert mass * (da @ a + db @ b) == pytest.approx((dP * res.plan).sum(), abs=1e-8 * scale)
    # The constant of the potentials is fixed, so cotangents along it give the weights' part only.
    da, db, dC = res.vjp(mass * a, -mass * b)
    assert np.abs(dC).sum() <= 1e-8 * (1 + mass)


@pytest.mark.parametrize("reg", [1e-2, 1e-3])
@pytest.mark.parametrize("name", ["digits", "mixture"])
def test_large_problems_are_solved_to_the_tolerance_and_agree_with_dense_algebra(name, reg):
    p = (
        datasets.digits_transport(side=23)
        if name == "digits"
        else datasets.gaussian_mixture_transport(520, rng=0)
    )
    rng = np.random.default_rng(1)
    res = ot.sinkhorn_newton(p.a, p.b, p.C, reg=reg * p.C.max(), tol=1e-12)
    df, dg = rng.normal(size=p.a.size), rng.normal(size=p.b.size)
    da, _, dC = res.vjp(df, dg)
    # The system in the spirit of a textbook: the whole Hessian, its null space, a pseudo-inverse.
    P, n = oracles.gibbs_plan(res.f, res.g, p.a, p.b, p.C, res.reg), p.a.size
    sigma = df.sum() - dg.sum()
    H = np.block([[np.diag(P.sum(axis=1)), P], [P.T, np.diag(P.sum(axis=0))]])
    null = np.r_[np.ones(n), -np.ones(p.b.size)]
    rhs = np.r_[df - 0.5 * sigma * p.a, dg + 0.5 * sigma * p.b]
    w = np.linalg.solve(H + np.outer(null, null) * (P.max() / n), rhs)
    expected = P * (w[:n, None] + w[n:])
    assert np.abs(dC - expected).sum() <= 1e-7 * np.abs(expected).sum()
    expected = -res.reg * (P @ w[n:]) / p.a - 0.5 * sigma * res.f
    expected -= p.a @ expected
    assert np.abs(da - expected).sum() <= 1e-7 * np.abs(expected).sum()


def test_a_second_product_uses_the_factor_of_the_first(rng):
    p = datasets.digits_transport(side=23)
    res = ot.sinkhorn_newton(p.a, p.b, p.C, reg=1e-3)
    df = rng.normal(size=p.a.size)
    first = res.vjp(df)
    system = res._adjoint
    before = dict(system._newton.counts)
    second = res.vjp(2 * df)
    assert res._adjoint is system
    assert system._newton.counts["nfactor"] == before["nfactor"]
    for one, two in zip(first, second, strict=True):
        assert np.abs(2 * one - two).sum() <= 1e-8 * np.abs(two).sum()


def test_results_of_sinkhorn_differentiate_too(rng):
    a, b, C = oracles.cloud_problem(rng, 8, 6)
    df, dg = rng.normal(size=8), rng.normal(size=6)
    twin = ot.sinkhorn_newton(a, b, C, reg=REG, tol=1e-12).vjp(df, dg)
    for method in ("log", "overrelaxed"):
        res = ot.sinkhorn(a, b, C, reg=REG, tol=1e-11, method=method)
        for one, two in zip(res.vjp(df, dg), twin, strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-8)


def test_constant_costs_and_a_huge_reg_are_no_trouble(rng):
    a, b, C = oracles.cloud_problem(rng, 8, 6)
    given = cotangents(rng, {0, 1, 2}, 8, 6)
    for D, reg in ((np.ones((8, 6)), REG), (C, 1e6)):
        res = ot.sinkhorn_newton(a, b, D, reg=reg, tol=1e-13)
        vC = rng.normal(size=C.shape)
        parts = (solution(a, b, D + t * vC, reg) for t in (1e-4, -1e-4))
        up, down = (sum((c * v).sum() for c, v in zip(given, p, strict=True)) for p in parts)
        assert (res.vjp(*given)[2] * vC).sum() == pytest.approx((up - down) / 2e-4, rel=1e-5)


def test_pickles_and_copies_build_the_system_anew(rng):
    a, b, C = oracles.cloud_problem(rng, 30, 40)
    res = ot.sinkhorn_newton(a, b, C, reg=REG)
    df = rng.normal(size=30)
    small = len(pickle.dumps(res))
    expected = res.vjp(df)
    assert "_adjoint" in vars(res)
    assert len(pickle.dumps(res)) == small
    for twin in (pickle.loads(pickle.dumps(res)), copy.deepcopy(res)):
        assert "_adjoint" not in vars(twin)
        for one, two in zip(expected, twin.vjp(df), strict=True):
            np.testing.assert_array_equal(one, two)


def test_an_accuracy_out_of_reach_is_told(rng):
    a, b, C = oracles.cloud_problem(rng, 8, 6)
    res = ot.sinkhorn_newton(a, b, C, reg=REG, tol=1e-12)
    df = rng.normal(size=8)
    expected = res.vjp(df)
    with pytest.warns(solvers.ConvergenceWarning, match="residual") as seen:
        back = res.vjp(df, tol=1e-30)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    np.testing.assert_allclose(back[2], expected[2], rtol=0, atol=1e-8)
    # Of a coarse tolerance no more than one solve is asked.
    assert np.abs(res.vjp(df, tol=0.5)[2] - expected[2]).max() < np.abs(expected[2]).max()


def test_nothing_of_the_callers_is_modified(rng):
    a, b, C = oracles.cloud_problem(rng, 8, 6)
    a[1] = 0.0
    a /= a.sum()
    given = cotangents(rng, {0, 1, 2}, 8, 6)
    before = [x.copy() for x in (a, b, C, *given)]
    res = ot.sinkhorn_newton(a, b, C, reg=REG)
    first = res.vjp(*given)
    res.vjp(given[0])
    np.testing.assert_array_equal(res.vjp(*given)[2], first[2])
    for x, y in zip((a, b, C, *given), before, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("name", "kind", "arguments"),
    [
        ("df", ValueError, {}),
        ("df", ValueError, {"df": np.zeros(6)}),
        ("df", TypeError, {"df": np.zeros(8) * 1j}),
        ("df", ValueError, {"df": np.full(8, np.nan)}),
        ("dg", ValueError, {"dg": np.zeros((6, 1))}),
        ("dg", TypeError, {"dg": "up"}),
        ("dP", ValueError, {"dP": np.zeros((6, 8))}),
        ("tol", ValueError, {"df": np.zeros(8), "tol": 0.0}),
        ("tol", TypeError, {"df": np.zeros(8), "tol": "1e-3"}),
    ],
)
def test_wrong_cotangents_are_named(rng, name, kind, arguments):
    a, b, C = oracles.cloud_problem(rng, 8, 6)
    res = ot.sinkhorn_newton(a, b, C, reg=REG)
    with pytest.raises(kind, match=f"^`{name}`"):
        res.vjp(**arguments)


def test_a_gradient_that_would_not_fit_is_refused(rng, monkeypatch):
    a, b, C = oracles.cloud_problem(rng, 8, 6)
    res = ot.sinkhorn_newton(a, b, C, reg=REG)
    monkeypatch.setattr(validation, "_SMALL_ALLOCATION", 0)
    monkeypatch.setattr(validation, "_free_memory", lambda: 100)
    with pytest.raises(MemoryError, match="`dC`"):
        res.vjp(np.ones(8))


def value(a, b, C, reg, reg_type):
    """The value from the reference's plan, by its definition."""
    P = solution(a, b, C, reg)[2]
    if reg_type == "kl":
        return oracles.entropic_value(P, a, b, C, reg)
    used = P > 0
    return (P * C).sum() + reg * (P[used] * (np.log(P[used]) - 1)).sum()


@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
@pytest.mark.parametrize("mass", [1.0, 3.0])
@pytest.mark.parametrize("order", ["C", "F"])
def test_gradients_of_the_value_are_its_slopes(rng, reg_type, mass, order):
    a, b, C = oracles.cloud_problem(rng, 8, 6)
    a, b, C = mass * a, mass * b, np.asarray(C, order=order)
    res = ot.sinkhorn_newton(a, b, C, reg=REG, reg_type=reg_type, tol=1e-12)
    va, vb, vC = directions(rng, a, b, C)
    assert abs(va.sum()) > 0.01  # the mass changes too
    for change, mine in (
        (lambda t: (a + t * va, b + t * vb, C, REG), res.grad_a @ va + res.grad_b @ vb),
        (lambda t: (a, b, C + t * vC, REG), (res.grad_C * vC).sum()),
        (lambda t: (a, b, C, REG + t), res.grad_reg),
    ):
        expected = slope(lambda t, change=change: value(*change(t), reg_type))
        assert mine == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_the_slope_in_reg_is_the_divergence_of_the_plan(rng):
    a, b, C = oracles.cloud_problem(rng, 9, 9)
    a[2] = b[5] = 0.0
    a, b = 2 * a / a.sum(), 2 * b / b.sum()
    C[0, 1] = np.inf
    res = ot.sinkhorn_newton(a, b, C, reg=REG, tol=1e-11)
    P, Q = res.plan[res.plan > 0], (np.outer(a, b) / 2)[res.plan > 0]
    assert res.grad_reg == pytest.approx((P * np.log(P / Q)).sum() - P.sum() + 2, rel=1e-9)


METRICS = {"sqeuclidean": 1.0, "euclidean": 1.0, "cityblock": 1.0, "cosine": 1.0}


@pytest.mark.parametrize("cost", METRICS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gradients_in_points_are_slopes(rng, cost, dtype):
    x, y = rng.normal(size=(8, 3)) + 2.0, rng.normal(size=(6, 3))
    a, b, scale = rng.dirichlet(np.ones(8)), rng.dirichlet(np.ones(6)), 1.7
    reg = 0.2

    def at(x, y):
        return a, b, scale * cdist(x, y, cost)

    cloud = ot.PointCloud(x.astype(dtype), y.astype(dtype), cost=cost, scale=scale)
    weights = a.astype(dtype), b.astype(dtype)
    res = ot.sinkhorn_newton(*weights, cloud, reg=reg, tol=1e-12 if dtype == "float64" else None)
    assert res.grad_x.dtype == res.grad_y.dtype == dtype
    vx, vy = rng.normal(size=x.shape), rng.normal(size=y.shape)
    close = {"rel": 1e-6, "abs": 1e-7} if dtype == "float64" else {"rel": 1e-3, "abs": 1e-4}
    expected = slope(lambda t: value(*at(x + t * vx, y + t * vy), reg, "kl"))
    mine = (res.grad_x * vx).sum() + (res.grad_y * vy).sum()
    assert mine == pytest.approx(expected, **close)

    given = cotangents(rng, {0, 1, 2}, 8, 6)

    def moved(t):
        parts = solution(*at(x + t * vx, y + t * vy), reg)
        return sum((c * v).sum() for c, v in zip(given, parts, strict=True))

    da, _, (dx, dy) = res.vjp(*(v.astype(dtype) for v in given))
    assert da.dtype == dx.dtype == dtype
    assert (dx * vx).sum() + (dy * vy).sum() == pytest.approx(slope(moved), **close)


def test_distances_of_coinciding_points_count_as_flat(rng):
    x = rng.normal(size=(7, 2))
    for cost in METRICS:
        res = ot.sinkhorn_newton(None, None, ot.PointCloud(x, cost=cost), reg=0.3)
        assert np.isfinite(res.grad_x).all()
        # One cloud against itself: both roles are the same.
        np.testing.assert_allclose(res.grad_x, res.grad_y, rtol=0, atol=1e-7)


def test_costs_without_points_have_no_gradient_in_them(rng):
    a, b, C = oracles.cloud_problem(rng, 8, 6)
    res = ot.sinkhorn_newton(a, b, C, reg=REG)
    with pytest.raises(TypeError, match=r"^`C`"):
        _ = res.grad_x
    x, y = rng.normal(size=(8, 2)), rng.normal(size=(6, 2))
    cloud = ot.PointCloud(x, y, cost=cdist)
    res = ot.sinkhorn_newton(a, b, cloud, reg=REG)
    with pytest.raises(TypeError, match=r"^`C`"):
        _ = res.grad_y
    assert res.vjp(np.ones(8))[2].shape == (8, 6)


def test_extreme_weights_and_costs_give_numbers(rng):
    a, b, C = oracles.cloud_problem(rng, 8, 6)
    a[:3], b[2] = (1e-300, 1e-310, 0.0), 0.0
    a, b = a / a.sum(), b / b.sum()
    C[2, 2], C[1, 0] = -1e4, np.inf
    res = ot.sinkhorn_newton(a, b, C, reg=REG)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solvers.ConvergenceWarning)
        for part in res.vjp(*cotangents(rng, {0, 1, 2}, 8, 6)):
            assert np.isfinite(part).all()
