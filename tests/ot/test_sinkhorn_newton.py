import itertools
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import solvers
from solvers import datasets, ot
from solvers.ot import _gibbs
from tests import oracles
from tests.ot import reference

seeds = st.integers(0, 2**32 - 1)
# Loops over hundreds of thousands of entries, again and again.
needs_compiler = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="slow as plain Python")


def solve(a, b, C, **options):
    """Solve, and hold the answer to its promise before any test looks at it."""
    res = ot.sinkhorn_newton(a, b, C, **options)
    assert res.success, res.message
    error = oracles.marginal_error(oracles.gibbs_plan(res.f, res.g, a, b, C, res.reg), a, b)
    # The slack is the rounding of f + g - C, in units of reg, in either evaluation.
    floor = 1e-15 * np.abs(C[np.isfinite(C)]).max() / res.reg
    assert error <= (res.certificate.tol * 1.001 + floor) * np.sum(a)
    return res


def unsolved(a, b, C, **options):
    """Solve what cannot be solved: one warning, and potentials that are numbers all the same."""
    with pytest.warns(solvers.ConvergenceWarning) as seen:
        res = ot.sinkhorn_newton(a, b, C, **options)
    assert len(seen) == 1
    assert not res.success
    assert np.isfinite(res.f).all()
    assert np.isfinite(res.g).all()
    return res


def weights(rng, n, concentration=1.0):
    """Random weights that are all positive."""
    return rng.dirichlet(np.full(n, concentration)) * 0.999 + 0.001 / n


def without_shift(a, f, g):
    """Potentials with their free constant removed."""
    shift = a @ f / a.sum()
    return f - shift, g + shift


# The answer is right --------------------------------------------------------------------------
@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(-3, 3), st.floats(0.02, 10))
def test_two_by_two_plans_solve_the_quadratic_equation_of_the_odds_ratio(p, q, delta, reg):
    a, b, C = np.array([p, 1 - p]), np.array([q, 1 - q]), np.array([[0, 0.3], [delta - 0.3, 0.0]])
    x = solve(a, b, C, reg=reg, tol=1e-13).plan[0, 0]
    odds = np.exp(delta / reg)
    # x (1 - p - q + x) = odds (p - x) (q - x), each side relative to the larger one.
    left, right = x * (1 - p - q + x), odds * (p - x) * (q - x)
    assert abs(left - right) <= 1e-9 * odds**0.5 + 1e-11 * max(1.0, odds)


@pytest.mark.parametrize("relative", [1.0, 0.1, 0.02])
@pytest.mark.parametrize("precond", ["jacobi", "cholesky"])
def test_potentials_and_value_agree_with_50_digits(rng, relative, precond):
    a, b, C = oracles.cloud_problem(rng, 5, 5)
    reg = relative * C.max()
    f, g, value, error = reference.potentials_in_50_digits(a, b, C, reg)
    assert error < 1e-40
    res = solve(a, b, C, reg=reg, tol=1e-14, precond=precond)
    np.testing.assert_allclose(res.f, f, rtol=0, atol=1e-12 * C.max())
    np.testing.assert_allclose(res.g, g, rtol=0, atol=1e-12 * C.max())
    assert res.value == pytest.approx(value, rel=1e-13)


@given(seeds, st.floats(-4.0, 0.5), st.sampled_from([0.3, 1.0, 5.0]))
def test_values_bracket_the_linear_programme_within_the_entropic_bias(seed, log_reg, spread):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 9, size=2)
    a, b = weights(rng, n, spread), weights(rng, m, spread)
    C = rng.normal(size=(n, m))
    reg = np.ptp(C) * 10.0**log_reg
    res = solve(a, b, C, reg=reg, tol=1e-10)
    exact, bias = oracles.exact_cost(a, b, C), reg * min(oracles.entropy(a), oracles.entropy(b))
    rounding = 1e-9 * np.abs(C).max()
    assert -rounding <= res.value_linear - exact <= bias + rounding
    lower, upper = res.lp_bracket()
    assert lower - rounding <= exact <= upper + rounding
    assert upper == res.cost_rounded == pytest.approx(res.value_linear, abs=10 * rounding)
    assert exact - rounding <= res.value <= exact + bias + rounding


@given(seeds, st.floats(-5.0, 0.0))
def test_random_problems_are_certified_for_any_regularisation(seed, log_reg):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 13, size=2)
    x, y = rng.integers(0, 5, size=(n, 2)), rng.integers(0, 5, size=(m, 2))  # ties, duplicates
    C = cdist(x, y, rng.choice(["sqeuclidean", "cityblock", "euclidean"]))
    a, b = weights(rng, n, 0.2), weights(rng, m, 0.2)
    solve(a, b, C, reg=max(np.ptp(C), 1.0) * 10.0**log_reg, tol=1e-10)


@needs_compiler
@pytest.mark.parametrize("seed", [11, 226, 986, 1302])
def test_problems_from_the_benchmarks_suite_are_solved(seed):
    # The last two need mass moved over links that underflow at the final temperature.
    p = datasets.random_transport(seed)
    solve(p.a, p.b, p.C, reg=p.reg, tol=1e-9)


@pytest.mark.slow
@needs_compiler
def test_all_problems_of_the_benchmarks_suite_are_solved():
    for seed in range(1500):
        p = datasets.random_transport(seed)
        solve(p.a, p.b, p.C, reg=p.reg, tol=1e-9)


@pytest.mark.parametrize("mismatch", [1e-3, 1e-5, 1e-7])
def test_two_distant_clusters_exchange_a_tiny_mismatch_of_mass(rng, mismatch):
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(24, 2))
    x[:15] += 300.0
    y[:12] += 300.0
    a, b = weights(rng, 30), weights(rng, 24)
    for w, half in ((a, 15), (b, 12)):
        w[:half] *= 0.5 / w[:half].sum()
        w[half:] *= 0.5 / w[half:].sum()
    b[:12] *= 1 + mismatch
    b[12:] *= 1 - mismatch
    C = cdist(x, y, "sqeuclidean")
    P = solve(a, b, C, reg=1.0, tol=1e-9).plan  # the barrier is about 1e5 times reg
    assert P[15:, :12].sum() == pytest.approx(mismatch / 2, rel=0, abs=1e-8)


@pytest.mark.parametrize("seed", [17, 191, 217])
def test_mismatches_between_a_few_heavy_points_are_not_left_behind(seed):
    # Hardly any point has mass, so parts of the plan that lack 1e-4 of it look balanced while the
    # links between them are open, and have none left at the end.
    rng = np.random.default_rng(seed)
    a, b = (rng.dirichlet(np.full(n, 0.003)) for n in (102, 218))
    res = solve(a, b, rng.random((102, 218)), reg=1e-5, tol=1e-9)
    assert res.nit < 60


def test_photographs_match_a_long_sinkhorn_run():
    p = datasets.color_transport(60, rng=0)
    res = solve(p.a, p.b, p.C, reg=0.03, tol=1e-11)
    f, g = without_shift(p.a, *reference.sinkhorn(p.a, p.b, p.C, 0.03))
    ours = without_shift(p.a, res.f, res.g)
    np.testing.assert_allclose(ours[0], f, rtol=0, atol=1e-8)
    np.testing.assert_allclose(ours[1], g, rtol=0, atol=1e-8)


@needs_compiler
def test_digits_in_the_city_block_metric_stay_within_the_entropic_bias():
    p = datasets.digits_transport(3, 8, side=12, metric="cityblock")
    res = solve(p.a, p.b, p.C, reg=2e-4, tol=1e-9)
    exact = oracles.exact_cost(p.a, p.b, p.C)
    bias = res.reg * min(oracles.entropy(p.a), oracles.entropy(p.b))
    assert exact - 1e-9 <= res.value_linear <= exact + bias
    assert res.lp_bracket()[0] == pytest.approx(exact, abs=bias)


@needs_compiler
@pytest.mark.parametrize("relative", [0.92e-4, 0.98e-4, 1e-4, 1.05e-4])
def test_city_block_costs_take_few_passes_at_any_temperature(relative):
    # A plan of many ties, which comes apart as it cools: whoever leaves a temperature too early
    # has to search for links that have closed. Some of these took sixty passes, others eight.
    p = datasets.digits_transport(metric="cityblock")
    res = solve(p.a, p.b, p.C, reg=relative, tol=1e-9)
    assert res.nit <= 20


def test_large_regularisation_gives_the_independent_plan_and_small_the_assignment(rng):
    C = rng.random((7, 7))
    u = np.full(7, 1 / 7)
    assert np.abs(solve(u, u, C, reg=1e8).plan - 1 / 49).max() < 1e-9
    best = oracles.cheapest_permutation(C)
    assert oracles.assignment_cost(C) == pytest.approx(best, rel=1e-15)
    res = solve(u, u, C, reg=2e-4, tol=1e-9)
    assert best - 1e-9 <= res.cost_rounded <= best + res.reg * np.log(7)


# Laws -----------------------------------------------------------------------------------------
@given(seeds, st.floats(-3, 3), st.floats(-3, 3))
def test_scales_shifts_and_order_leave_the_plan_as_it_is(seed, log_scale, log_mass):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 12, size=2)
    a, b, C = weights(rng, n), weights(rng, m), rng.random((n, m))
    reg, scale, mass = 0.03, 10.0**log_scale, 10.0**log_mass
    rows, cols = rng.permutation(n), rng.permutation(m)
    u, v = rng.normal(size=n), rng.normal(size=m)
    base = solve(a, b, C, reg=reg, tol=1e-12)
    other = solve(
        mass * a[rows],
        mass * b[cols],
        scale * (C + u[:, None] + v)[np.ix_(rows, cols)],
        reg=scale * reg,
        tol=1e-12,
    )
    np.testing.assert_allclose(
        other.plan / mass, base.plan[np.ix_(rows, cols)], rtol=0, atol=1e-10
    )
    ours = without_shift(mass * a[rows], other.f / scale, other.g / scale)
    theirs = without_shift(a[rows], (base.f + u)[rows], (base.g + v)[cols])
    np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-8)
    # All values are of degree one in the mass and in the unit of the cost.
    moved = base.value + a @ u + b @ v
    assert other.value / (mass * scale) == pytest.approx(moved, rel=1e-9, abs=1e-9)


def test_a_transposed_view_is_solved_by_the_same_steps(rng):
    a, b, C = oracles.cloud_problem(rng, 40, 25)
    one = solve(a, b, C, reg=0.05)
    # The transpose of a C-ordered matrix is in Fortran order, so both see the same rows.
    two = solve(b, a, C.T, reg=0.05)
    np.testing.assert_array_equal(two.f, one.g)
    np.testing.assert_array_equal(two.g, one.f)
    np.testing.assert_array_equal(two.plan, one.plan.T)
    assert two.nit == one.nit
    assert (two.certificate.details["row_error"], two.certificate.details["col_error"]) == (
        one.certificate.details["col_error"],
        one.certificate.details["row_error"],
    )
    V = rng.normal(size=(40, 3))
    np.testing.assert_allclose(two.apply(V), one.plan.T @ V, rtol=0, atol=1e-15)
    np.testing.assert_allclose(two.apply(V[:25], axis=0), one.plan @ V[:25], rtol=0, atol=1e-15)
    assert (abs(two.plan_sparse(1e-9) - one.plan_sparse(1e-9).T)).max() == 0
    np.testing.assert_allclose(two.lp_bracket(), one.lp_bracket(), rtol=1e-12)


def test_a_point_given_twice_shares_its_mass_and_changes_nothing_else(rng):
    a, b, C = oracles.cloud_problem(rng, 8, 11)
    base = solve(a, b, C, reg=0.1, tol=1e-12)
    split = np.r_[0.3 * a[0], 0.7 * a[0], a[1:]]
    res = solve(split, b, C[[0, *range(8)]], reg=0.1, tol=1e-12)
    assert res.f[0] == pytest.approx(res.f[1], abs=1e-12)
    np.testing.assert_allclose(res.plan[0] + res.plan[1], base.plan[0], rtol=0, atol=1e-11)
    np.testing.assert_allclose(res.plan[2:], base.plan[1:], rtol=0, atol=1e-11)


# Special data ---------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 60), (60, 2)])
def test_thin_problems_are_solved(rng, shape):
    a, b = (weights(rng, k) for k in shape)
    C = rng.normal(size=shape)
    res = solve(a, b, C, reg=0.01, tol=1e-11)
    if 1 in shape:
        np.testing.assert_allclose(res.plan, np.outer(a, b), rtol=0, atol=1e-12)
    assert res.value == pytest.approx(reference.value(a, b, C, 0.01), rel=1e-9)


@pytest.mark.parametrize("constant", [0.0, 3.5, -2e5])
def test_a_constant_cost_gives_the_independent_plan(rng, constant):
    a, b = weights(rng, 6), weights(rng, 9)
    res = solve(a, b, np.full((6, 9), constant))
    np.testing.assert_allclose(res.plan, np.outer(a, b), rtol=1e-9)
    assert res.value == pytest.approx(constant, rel=1e-12)
    assert res.value_linear == pytest.approx(constant, rel=1e-9)


@pytest.mark.parametrize("tiny", [0.0, 1e-300, 1e-30, 1e-12])
def test_points_of_little_or_no_mass_get_the_potentials_of_the_limit(rng, tiny):
    a, b, C = oracles.cloud_problem(rng, 12, 10)
    a[:3] = b[4:6] = tiny
    a, b = a / a.sum(), b / b.sum()
    res = solve(a, b, C, reg=1.0, tol=1e-12)
    # Potentials of points without mass are those that make their own row or column exact.
    f, g = reference.sinkhorn(a[3:], np.delete(b, [4, 5]), np.delete(C, [4, 5], axis=1)[3:], 1.0)
    f, g = without_shift(a[3:], f, g)
    ours = without_shift(a, res.f, res.g)
    np.testing.assert_allclose(ours[0][3:], f, rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.delete(ours[1], [4, 5]), g, rtol=0, atol=1e-9)
    Q = res.plan / np.where(a > 0, a, 1.0)[:, None]
    if tiny == 0.0:
        assert not res.plan[:3].any()
        assert not res.plan[:, 4:6].any()
    else:
        np.testing.assert_allclose(Q.sum(axis=1), 1.0, rtol=1e-9)


@pytest.mark.parametrize("mass", [1e-300, 1e-9, 1e9])
def test_any_total_mass_scales_the_plan_and_the_values(rng, mass):
    a, b, C = oracles.cloud_problem(rng, 9, 14)
    one, res = solve(a, b, C, reg=0.1), solve(mass * a, mass * b, C, reg=0.1)
    np.testing.assert_allclose(res.f, one.f, rtol=0, atol=1e-12)
    np.testing.assert_allclose(res.plan, mass * one.plan, rtol=1e-9)
    for name in ("value", "dual", "value_linear", "cost_rounded", "marginal_error"):
        assert getattr(res, name) == pytest.approx(mass * getattr(one, name), rel=1e-3, abs=0)
    assert res.certificate.value == pytest.approx(one.certificate.value, rel=1e-3)
    assert res.certificate.details["mass"] == pytest.approx(mass, rel=1e-12)


def test_forbidden_edges_are_those_of_the_log_domain_iteration(rng):
    a, b, C = oracles.cloud_problem(rng, 14, 14)
    C[rng.random(C.shape) < 0.6] = np.inf
    a = b = np.full(14, 1 / 14)
    C[range(14), range(14)] = rng.random(14)  # so that there is a plan
    res = solve(a, b, C, reg=1.0, tol=1e-11)
    f, g = without_shift(a, *reference.sinkhorn(a, b, C, 1.0))
    np.testing.assert_allclose(res.plan, oracles.gibbs_plan(f, g, a, b, C, 1.0), atol=1e-10)
    assert not res.plan[np.isinf(C)].any()
    assert res.value_linear == pytest.approx(oracles.linear_value(res.plan, C), rel=1e-12)
    lower, upper = res.lp_bracket()
    assert lower <= oracles.exact_cost(a, b, C) + 1e-12
    assert upper == np.inf  # the rounded plan may use any edge, and cannot pay for these


def test_forbidding_every_edge_of_a_point_without_mass_changes_nothing(rng):
    a, b, C = oracles.cloud_problem(rng, 6, 7)
    a[2] = b[0] = 0.0
    a, b = a / a.sum(), b / b.sum()
    base = solve(a, b, C, reg=0.2, tol=1e-12)
    D = C.copy()
    D[2] = D[:, 0] = np.inf
    res = solve(a, b, D, reg=0.2, tol=1e-12)
    assert np.isfinite(res.f).all()
    assert np.isfinite(res.g).all()
    np.testing.assert_allclose(res.plan, base.plan, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pattern", ["blocks", "column", "row", "everything"])
def test_without_a_feasible_plan_the_run_ends_unsolved_and_finite(rng, pattern):
    C = rng.random((12, 12))
    u = np.full(12, 1 / 12)
    forbidden = {
        "blocks": np.s_[:5, :6],
        "column": np.s_[:, 5],
        "row": np.s_[3],
        "everything": np.s_[:],
    }[pattern]
    C[forbidden] = np.inf
    if pattern == "blocks":
        C[5:, 6:] = np.inf
        assert oracles.exact_cost(u, u, C) == np.inf
    res = unsolved(u, u, C, reg=0.05, maxiter=60)
    if pattern != "blocks":
        assert res.status is solvers.Status.INFEASIBLE  # seen at once
        assert res.nit == 0
    assert res.certificate.value > 0.1
    assert np.isfinite(res.plan).all()


def test_float32_data_reach_what_float32_potentials_can_show(rng):
    a, b, C = (x.astype(np.float32) for x in oracles.cloud_problem(rng, 30, 41))
    res = solve(a, b, C, reg=0.3)
    assert res.certificate.tol == 1e-5
    for array in (res.f, res.g, res.plan, res.x, res.apply(b), res.grad_C):
        assert array.dtype == np.float32
    a, b, C = (x.astype(np.float64) for x in (a, b, C))
    f, g = reference.sinkhorn(a, b * (a.sum() / b.sum()), C, 0.3)
    exact = oracles.gibbs_plan(f, g, a, b, C, 0.3)
    assert np.abs(res.plan - exact).sum() <= 2e-5
    # Rounding the returned potentials limits the error; more cannot be had, and is not claimed.
    res = unsolved(*(x.astype(np.float32) for x in (a, b, C)), reg=1e-3, tol=1e-9)
    assert res.status is solvers.Status.STALLED


def test_one_huge_cost_is_no_obstacle_where_no_plan_needs_it(rng):
    C = rng.random((10, 10))
    C[0, 1] = 1e6
    u = np.full(10, 0.1)
    D = C.copy()
    D[0, 1] = np.inf
    P = solve(u, u, C, reg=0.02, tol=1e-9).plan
    np.testing.assert_allclose(P, solve(u, u, D, reg=0.02, tol=1e-9).plan, rtol=0, atol=1e-8)


def test_costs_beyond_the_resolution_of_double_precision_end_honestly(rng):
    C = rng.random((10, 10))
    C[:, 0] = 1e32
    u = np.full(10, 0.1)
    # The first column must pay 1e32, which swallows everything of order reg.
    res = unsolved(u, u, C, reg=0.05)
    assert res.certificate.value > 1e-3
    assert np.isfinite(res.plan).all()


# Warm starts ----------------------------------------------------------------------------------
def test_a_solved_start_takes_at_most_two_passes_in_every_form(rng):
    a, b, C = oracles.cloud_problem(rng, 25, 18)
    res = solve(a, b, C, reg=0.02)
    assert res.nit > 2
    moved = res.f + 3.0, res.g - 3.0
    for start in (
        {"x0": res},
        {"x0": moved},
        {"x0": list(moved)},
        {"x0": (None, res.g)},
        {"f0": res.f},
        {"g0": moved[1]},
        {"f0": res.f, "g0": res.g},
        {"f0": res.f.tolist(), "g0": res.g.astype(np.float64)},
    ):
        again = solve(a, b, C, reg=0.02, **start)
        assert again.nit <= 2, start.keys()
        np.testing.assert_allclose(again.plan, res.plan, rtol=0, atol=2e-8)
    flipped = solve(b, a, C.T, reg=0.02, x0=(res.g, res.f))
    assert flipped.nit <= 2
    assert solve(b, a, C.T, reg=0.02, f0=res.g).nit <= 2
    assert solve(b, a, C.T, reg=0.02, g0=res.f).nit <= 2


@needs_compiler
def test_a_start_nearby_saves_passes_and_a_bad_one_does_no_harm(rng):
    p = datasets.digits_transport(1, 7, side=10)
    cold = solve(p.a, p.b, p.C, reg=1e-3)
    nearby = solve(p.a, p.b, p.C * (1 + 1e-4), reg=1e-3, x0=cold)
    assert nearby.nit < cold.nit
    assert len(nearby.levels) == 1
    for scale in (1.0, 1e3):
        g0 = scale * rng.normal(size=p.b.size)
        res = solve(p.a, p.b, p.C, reg=1e-3, g0=g0)
        np.testing.assert_allclose(res.plan, cold.plan, rtol=0, atol=3e-8)


def test_a_start_for_points_without_mass_is_ignored_there(rng):
    a, b, C = oracles.cloud_problem(rng, 9, 9)
    a[1] = b[3] = 0.0
    a, b = a / a.sum(), b / b.sum()
    res = solve(a, b, C, reg=0.1)
    g0 = res.g.copy()
    g0[3] = 1e9
    assert solve(a, b, C, reg=0.1, g0=g0).nit <= 2


@pytest.mark.parametrize(
    ("name", "kind", "start"),
    [
        ("x0", TypeError, {"x0": np.zeros((2, 4))}),
        ("x0", TypeError, {"x0": 3.0}),
        ("x0", ValueError, {"x0": (np.zeros(4), np.zeros(4))}),
        ("x0", ValueError, {"x0": (np.zeros(4), np.zeros(3)), "f0": np.zeros(4)}),
        ("x0", ValueError, {"x0": (np.zeros(4), np.zeros(3)), "g0": np.zeros(3)}),
        ("f0", ValueError, {"f0": np.zeros(3)}),
        ("f0", ValueError, {"f0": np.zeros((4, 1))}),
        ("g0", ValueError, {"g0": np.zeros(4)}),
        ("g0", ValueError, {"g0": np.array([0.0, np.nan, 0.0])}),
        ("f0", ValueError, {"f0": np.array([0.0, np.inf, 0.0, 0.0])}),
        ("g0", TypeError, {"g0": np.zeros(3, dtype=complex)}),
        ("f0", TypeError, {"f0": "zeros"}),
    ],
)
def test_starts_that_do_not_fit_are_refused_by_name(rng, name, kind, start):
    a, b, C = weights(rng, 4), weights(rng, 3), rng.random((4, 3))
    with pytest.raises(kind, match=re.escape(f"`{name}`")):
        ot.sinkhorn_newton(a, b, C, reg=0.1, **start)


# Every parameter has an effect ----------------------------------------------------------------
@pytest.fixture(scope="module")
def hard():
    """A problem that needs Newton steps, several temperatures and conjugate gradients."""
    if numba.config.DISABLE_JIT:
        pytest.skip("slow as plain Python")
    p = datasets.digits_transport(2, 9, side=12, metric="cityblock")
    return p.a, p.b, p.C


@pytest.mark.parametrize(
    ("differs", "options"),
    [
        ("levels", {"annealing": False}),
        ("levels", {"reg": 1e-2}),
        ("ncg", {"tol_inner": 1e-8}),
        ("ncg", {"maxiter_inner": 5, "precond": "jacobi"}),
        ("nsinkhorn", {"n_sinkhorn": 2}),
        ("nfactor", {"precond": "cholesky"}),
        ("nit", {"tol": 1e-3}),
    ],
    ids=str,
)
def test_a_parameter_changes_the_course_of_the_run(hard, differs, options):
    usual = solve(*hard, reg=3e-4, tol=1e-10)
    other = solve(*hard, **{"reg": 3e-4, "tol": 1e-10, **options})
    assert getattr(other, differs) != getattr(usual, differs)


def test_only_the_temperature_asked_for_is_visited_without_annealing(hard):
    assert set(solve(*hard, reg=1e-3, annealing=False).levels) == {1e-3}
    assert len(set(solve(*hard, reg=1e-3).levels)) > 2


def test_factorisations_replace_long_runs_of_conjugate_gradients_unless_forbidden(hard):
    runs = {
        choice: solve(*hard, reg=3e-4, tol_inner=1e-12, precond=choice)
        for choice in ("auto", "jacobi", "cholesky")
    }
    assert runs["jacobi"].nfactor == 0
    assert runs["auto"].nfactor > 0
    # A factor serves as long as a few iterations are enough with it.
    assert 0 < runs["cholesky"].nfactor < runs["cholesky"].nnewton
    assert runs["cholesky"].ncg < runs["auto"].ncg < runs["jacobi"].ncg


def test_the_plan_can_be_recomputed_in_place_of_being_stored(rng, monkeypatch):
    a, b, C = oracles.cloud_problem(rng, 30, 22)
    made = []
    for name in ("DenseKernel", "CostKernel"):
        kind = getattr(_gibbs, name)
        monkeypatch.setattr(
            _gibbs, name, lambda *args, kind=kind: made.append(kind.__name__) or kind(*args)
        )
    plans = {}
    for choice in (True, False, "auto"):
        made.clear()
        plans[choice] = solve(a, b, C, reg=0.05, tol=1e-11, store_plan=choice).plan
        assert set(made) == {"CostKernel" if choice is False else "DenseKernel"}
    np.testing.assert_allclose(plans[False], plans[True], rtol=0, atol=1e-10)


@pytest.mark.parametrize("statistic", ["std", "mean", "max", "median"])
def test_reg_is_multiplied_by_the_statistic_asked_for(rng, statistic):
    a, b, C = oracles.cloud_problem(rng, 8, 9)
    finite = C.copy()
    C[2, 3] = np.inf  # forbidden edges do not count
    finite = finite[np.isfinite(C)]
    res = solve(a, b, C, reg=0.2, reg_scale=statistic)
    assert res.reg == pytest.approx(0.2 * getattr(np, statistic)(finite), rel=1e-12)


@needs_compiler
def test_the_default_reg_is_a_twentieth_of_the_standard_deviation(rng):
    a, b, C = oracles.cloud_problem(rng, 300, 400)  # more than one block of rows
    C += 1e4
    C[5, 7] = np.inf
    res = solve(a, b, C, tol=1e-6)
    assert res.reg == pytest.approx(0.05 * C[np.isfinite(C)].std(), rel=1e-10)


def test_reg_type_changes_the_reported_value_only(rng):
    a, b, C = oracles.cloud_problem(rng, 10, 12)
    a, b = 2.5 * a, 2.5 * b
    kl, ent = (solve(a, b, C, reg=0.3, tol=1e-13, reg_type=kind) for kind in ("kl", "entropy"))
    P = kl.plan
    np.testing.assert_array_equal(ent.f, kl.f)
    assert kl.value == pytest.approx(oracles.entropic_value(P, a, b, C, 0.3), rel=1e-12)
    expected = (P * C).sum() + 0.3 * (P * (np.log(P) - 1)).sum()
    assert ent.value == ent.fun == pytest.approx(expected, rel=1e-12)
    assert ent.dual == kl.dual == kl.value
    zero = np.r_[a, 0.0], np.c_[C.T, np.ones(12)].T
    with_zero = solve(zero[0], b, zero[1], reg=0.3, tol=1e-13, reg_type="entropy")
    assert with_zero.value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("reg_type", ValueError, {"reg_type": "l2"}),
        ("reg_scale", ValueError, {"reg_scale": "std"}),  # without reg
        ("precond", ValueError, {"precond": "ilu"}),
        ("store_plan", TypeError, {"store_plan": "yes"}),
        ("annealing", TypeError, {"annealing": 1}),
        ("sparsity", ValueError, {"sparsity": 0.1}),  # without method='sns-paper'
        ("sparsity", ValueError, {"sparsity": -0.1, "method": "sns-paper"}),
        ("n_sinkhorn", ValueError, {"n_sinkhorn": 0}),
        ("n_sinkhorn", TypeError, {"n_sinkhorn": 2.5}),
        ("tol_inner", ValueError, {"tol_inner": 0.0}),
        ("maxiter_inner", ValueError, {"maxiter_inner": 0}),
        ("maxiter", ValueError, {"maxiter": 0}),
        ("maxiter", TypeError, {"maxiter": 1.5}),
        ("time_limit", ValueError, {"time_limit": -1.0}),
        ("callback", TypeError, {"callback": 3}),
        ("progress", TypeError, {"progress": "bar"}),
        ("history", ValueError, {"history": -2}),
        ("n_threads", ValueError, {"n_threads": 0}),
        ("method", TypeError, {"method": 1}),
    ],
    ids=str,
)
def test_options_without_meaning_are_refused_by_name(rng, name, kind, options):
    with pytest.raises(kind, match=re.escape(f"`{name}`")):
        ot.sinkhorn_newton(None, None, rng.random((4, 3)), **options)


# How runs end, and what they tell meanwhile ---------------------------------------------------
def test_every_status_comes_with_its_sentence_and_at_most_one_warning(hard):
    a, b, C = hard
    ends = {
        solvers.Status.MAXITER: {"maxiter": 2},
        solvers.Status.TIME_LIMIT: {"time_limit": 1e-9},
        solvers.Status.STALLED: {"tol": 1e-14},
    }
    for status, options in ends.items():
        res = unsolved(a, b, C, **{"reg": 1e-3, "tol": 1e-10, **options})
        assert res.status is status
        assert f"{res.certificate.value:.3g}" in res.message
        # Whatever ended the run, rows are exact for the reg in the result.
        assert res.certificate.details["row_error"] < 1e-10
        assert res.reg == 1e-3
    res = ot.sinkhorn_newton(a, b, C, reg=1e-3, callback=lambda _: True)
    assert res.status is solvers.Status.CALLBACK  # no warning, for it was asked for
    assert res.nit == 1
    assert not res.success


def test_rounding_level_is_recognised_soon(hard):
    res = unsolved(*hard, reg=1e-3, tol=1e-16)
    assert res.status is solvers.Status.STALLED
    assert res.nit < 100


@needs_compiler
def test_a_run_cut_short_returns_the_best_it_has_seen():
    p = datasets.random_transport(251)
    res = unsolved(p.a, p.b, p.C, reg=p.reg, annealing=False, maxiter=24)
    seen = res.history["marginal_error"]
    assert seen[-1] > 1.2 * seen.min()
    assert res.certificate.value == pytest.approx(seen.min(), rel=1e-6)


def test_a_limit_that_comes_above_the_last_temperature_still_gives_exact_rows(hard):
    res = unsolved(*hard, reg=1e-4, maxiter=1)
    assert res.levels[-1] > res.reg
    assert res.certificate.details["row_error"] < 1e-9
    assert np.isfinite(res.plan).all()


def test_callbacks_see_the_answer_as_it_is_and_may_end_the_run(hard):
    a, b, C = hard
    seen = []

    def watch(intermediate_result):
        now = intermediate_result
        assert not now.f.flags.writeable
        P = oracles.gibbs_plan(now.f, now.g, a, b, C, now.reg)
        # The reported error belongs to the reported potentials, at the present temperature.
        assert oracles.marginal_error(P, a, b) == pytest.approx(
            now.marginal_error, rel=1e-3, abs=1e-9
        )
        assert a @ now.f == pytest.approx(b @ now.g, abs=1e-12)
        assert now.fun == pytest.approx(a @ now.f + b @ now.g, rel=1e-9)
        seen.append(now.nit)
        if len(seen) == 4:
            raise StopIteration

    res = ot.sinkhorn_newton(a, b, C, reg=1e-3, tol=1e-300, callback=watch)
    assert seen == [1, 2, 3, 4]
    assert (res.status, res.nit) == (solvers.Status.CALLBACK, 4)


def test_callbacks_get_potentials_of_all_points_and_in_the_callers_orientation(rng):
    a, b, C = oracles.cloud_problem(rng, 6, 9)
    a[2] = 0.0
    a /= a.sum()
    shapes = set()

    def watch(now):
        shapes.add((now.f.shape, now.g.shape))

    solve(a, b, C, reg=0.1, callback=watch)
    solve(a, b, np.asfortranarray(C), reg=0.1, callback=watch)
    assert shapes == {((6,), (9,))}


def test_history_has_a_row_for_every_pass_or_every_few(hard):
    full = ot.sinkhorn_newton(*hard, reg=1e-3)
    assert {"nit", "seconds", "marginal_error", "fun", "reg"} <= full.history.keys()
    np.testing.assert_array_equal(full.history["nit"], np.arange(1, full.nit + 1))
    assert [reg for reg, _ in itertools.groupby(full.history["reg"])] == full.levels
    assert full.history["marginal_error"][-1] == pytest.approx(full.marginal_error, rel=1e-2)
    assert np.all(np.diff(full.history["seconds"]) >= 0)
    some = ot.sinkhorn_newton(*hard, reg=1e-3, history=3)
    assert set(some.history["nit"]) == {*range(1, full.nit + 1, 3), full.nit}
    none = ot.sinkhorn_newton(*hard, reg=1e-3, history=False)
    assert none.history == {}
    np.testing.assert_array_equal(none.f, full.f)


def test_no_pass_claims_a_dual_above_the_optimal_value(hard):
    a, b, C = hard
    best = solve(a, b, C, reg=1e-3, tol=1e-12)
    for options in ({}, {"annealing": False}, {"annealing": False, "n_sinkhorn": 1}):
        h = ot.sinkhorn_newton(a, b, C, reg=1e-3, tol=1e-10, **options).history
        last = h["reg"] == 1e-3
        # Rows are exact after every pass, so `fun` is the dual: never above, ever nearer.
        gap = best.value - h["fun"][last]
        assert gap.min() >= -1e-13
        assert gap[-1] <= 1e-12
        assert gap[-1] <= gap[0]


def test_counts_and_stages_add_up(hard):
    res = ot.sinkhorn_newton(*hard, reg=3e-4)
    assert sum(nit for _, nit, _ in res.stages) == res.nit == len(res.history["nit"])
    assert res.ncg >= res.nnewton > 0
    assert 0 < res.density <= 1
    assert res.levels[-1] == res.reg == min(res.levels)
    assert res.levels[0] == max(res.levels)


def test_progress_is_shown_on_request_only(hard, capfd):
    ot.sinkhorn_newton(*hard, reg=1e-3)
    assert capfd.readouterr() == ("", "")
    ot.sinkhorn_newton(*hard, reg=1e-3, progress=True)
    shown = capfd.readouterr()
    assert "marginal_error" in shown.err
    assert not shown.out


# Threads --------------------------------------------------------------------------------------
@needs_compiler
def test_the_same_number_of_threads_gives_the_same_bits(rng):
    a, b, C = oracles.cloud_problem(rng, 520, 510)  # big enough for parallel kernels
    for threads in (None, 1):
        one, two = (ot.sinkhorn_newton(a, b, C, reg=0.3, n_threads=threads) for _ in range(2))
        np.testing.assert_array_equal(one.f, two.f)
        assert (one.nit, one.ncg) == (two.nit, two.ncg)


def test_the_number_of_threads_is_the_one_asked_for_and_given_back(rng):
    C, before, during = rng.random((5, 5)), numba.get_num_threads(), []
    for n_threads in range(1, before + 1):
        during.clear()
        ot.sinkhorn_newton(
            None,
            None,
            C,
            reg=0.1,
            n_threads=n_threads,
            callback=lambda _: during.append(numba.get_num_threads()),
        )
        assert set(during) == {n_threads}
        assert numba.get_num_threads() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_a_callback_passes_through_and_leaves_no_trace(rng, error):
    C, before = rng.random((5, 5)), numba.get_num_threads()

    def fail(_):
        raise error

    with pytest.raises(error):
        ot.sinkhorn_newton(None, None, C, reg=0.1, n_threads=1, callback=fail)
    assert numba.get_num_threads() == before
    assert ot.sinkhorn_newton(None, None, C, reg=0.1).success


@needs_compiler
def test_runs_in_concurrent_threads_equal_runs_in_turn(rng):
    problems = [oracles.cloud_problem(rng, n, n - 7) for n in (40, 90, 520, 60)]
    together = threading.Barrier(4)

    def run(k, meet=True):
        if meet:
            together.wait()
        return [ot.sinkhorn_newton(*problems[(k + j) % 4], reg=0.1).x for j in range(3)]

    alone = [run(k, meet=False) for k in range(4)]
    with ThreadPoolExecutor(4) as pool:
        crowd = list(pool.map(run, range(4)))
    for mine, theirs in zip(alone, crowd, strict=True):
        for x, y in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(x, y)


@needs_compiler
def test_large_problems_compress_and_agree_with_small_steps(rng):
    # Beyond _gibbs.SMALL entries kernels are kept in single precision, or compressed.
    a, b, C = oracles.cloud_problem(rng, 520, 500)
    dense = solve(a, b, C, reg=2.0, tol=1e-10)
    assert dense.density > 0.3
    sparse = solve(a, b, C, reg=0.005, tol=1e-10)
    assert sparse.density < 0.1
    for res in (dense, sparse):
        n = res.f.size
        np.testing.assert_allclose(
            res.apply(np.ones(500)), res.plan.sum(axis=1), rtol=0, atol=1e-12 / n
        )
