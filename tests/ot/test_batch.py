import copy
import logging
import pickle

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import solvers
from solvers import ot
from solvers.ot import _batch, _batch_problem, _batch_result
from tests import oracles
from tests.core.kinds import FOREIGN, as_kind, assert_same_kind
from tests.ot import reference

A, B, C = np.full((3, 4), 0.25), np.full((3, 5), 0.2), np.random.default_rng(0).random((3, 4, 5))


def batch(rng, count=6, n=14, m=11, kind="random"):
    """Weights and costs of problems that differ."""
    a, b = rng.dirichlet(np.ones(n), count), rng.dirichlet(np.ones(m), count)
    if kind == "random":
        return a, b, rng.random((count, n, m))
    x, y = rng.random((count, n, 1, 2)), rng.random((count, 1, m, 2))
    power = {"squares": 2, "distances": 1}[kind]
    return a, b, np.sqrt(np.square(x - y).sum(axis=3)) ** power


def one(data, k):
    a, b, C = data
    return a[k], b[k], C if np.ndim(C) == 2 else C[k]


def error(res, data, k):
    a, b, C = one(data, k)
    P = oracles.gibbs_plan(res.f[k], res.g[k], a, b, C, res.reg[k])
    return oracles.marginal_error(P, a, b)


def solve(a, b, C, **options):
    """Solve, and hold every answer to its promise before any test looks at it."""
    res = ot.sinkhorn_newton(a, b, C, **options)
    assert res.success, res.message
    assert res.converged.all()
    for k in range(len(res.f)):
        data = a, b, C
        assert error(res, data, k) <= res.certificate.tol * 1.001 * np.sum(a[k]) + 1e-12
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


# The answers are right -------------------------------------------------------------------------
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["random", "squares"])
def test_each_problem_has_the_potentials_of_a_long_sinkhorn_run(rng, shared, kind):
    a, b, C = batch(rng, 4, kind=kind)
    C = C[0] if shared else C
    res = solve(a, b, C, reg=0.05, tol=1e-12)
    for k in range(4):
        f, g = reference.sinkhorn(*one((a, b, C), k), 0.05)
        shift = 0.5 * (a[k] @ f - b[k] @ g)
        np.testing.assert_allclose(res.f[k], f - shift, rtol=0, atol=1e-10)
        np.testing.assert_allclose(res.g[k], g + shift, rtol=0, atol=1e-10)
        assert res.value[k] == pytest.approx(a[k] @ f + b[k] @ g, abs=1e-11)


@pytest.mark.parametrize("kind", ["random", "squares", "distances"])
def test_a_batch_equals_the_loop_over_its_problems(rng, kind):
    data = batch(rng, 5, kind=kind)
    reg = 10.0 ** -np.arange(5)
    res = solve(*data, reg=reg, tol=1e-10)
    for k in range(5):
        single = ot.sinkhorn_newton(*one(data, k), reg=reg[k], tol=1e-10)
        assert single.success
        np.testing.assert_allclose(res.plan[k], single.plan, rtol=0, atol=2e-10)
        assert res.value[k] == pytest.approx(single.value, abs=1e-10)
        assert res.marginal_error[k] == pytest.approx(error(res, data, k), abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(-4, 1), st.floats(-1.5, 1))
def test_random_batches_are_certified_for_any_regularisation(seed, log_reg, log_concentration):
    rng = np.random.default_rng(seed)
    count, n, m = rng.integers(1, 12, 3)
    a = rng.dirichlet(np.full(n, 10.0**log_concentration), count)
    b = rng.dirichlet(np.full(m, 10.0**log_concentration), count)
    C = np.round(rng.random((count, n, m)) * rng.integers(2, 50, (count, 1, 1)))
    solve(a, b, C, reg=10.0**log_reg * np.maximum(C.max(axis=(1, 2)), 1.0), tol=1e-9)


@given(st.integers(0, 2**32 - 1), st.floats(-3, 3))
def test_scales_and_shifts_of_the_costs_leave_the_plans_as_they_are(seed, log_scale):
    rng = np.random.default_rng(seed)
    a, b, C = batch(rng, 3, 6, 5)
    scale, reg = 10.0**log_scale, np.array([1.0, 0.1, 0.03])
    plain = solve(a, b, C, reg=reg, tol=1e-11)
    moved = C + rng.normal(size=(3, 6, 1)) + rng.normal(size=(3, 1, 5))
    res = solve(a, b, scale * moved, reg=scale * reg, tol=1e-11)
    np.testing.assert_allclose(res.plan, plain.plan, rtol=0, atol=1e-9)


def test_plans_cost_what_the_linear_programme_does_within_the_entropic_bias(rng):
    data = batch(rng, 3, 9, 12)
    reg = np.array([1e-1, 1e-2, 1e-3])
    res = solve(*data, reg=reg)
    low, high = res.lp_bracket()
    for k in range(3):
        exact = oracles.exact_cost(*one(data, k))
        assert low[k] - 1e-9 <= exact <= high[k] + 1e-9
        entropy = oracles.entropy(data[0][k])
        assert -1e-7 <= res.value_linear[k] - exact <= reg[k] * entropy + 1e-7


def test_one_cloud_of_points_may_be_the_cost_of_all(rng):
    a, b, _ = batch(rng, 3)
    x, y = rng.random((14, 2)), rng.random((11, 2))
    cloud, C = ot.PointCloud(x, y, scale=2.0), 2.0 * cdist(x, y, "sqeuclidean")
    res, expected = (ot.sinkhorn_newton(a, b, cost, reg=0.05) for cost in (cloud, C))
    assert res.success
    np.testing.assert_allclose(res.f, expected.f, rtol=0, atol=1e-9)
    np.testing.assert_allclose(res.apply(b), expected.apply(b), rtol=0, atol=1e-9)
    for ours, theirs in zip(res.vjp(df=a), expected.vjp(df=a), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert ot.certify(a, b, cloud, res.f, res.g, reg=0.05).holds
    with pytest.raises(NotImplementedError, match="`grad_x`"):
        assert res.grad_x is None


def test_the_order_of_the_problems_is_the_order_of_the_answers(rng):
    a, b, C = batch(rng, 7)
    reg = np.geomspace(1.0, 1e-3, 7)
    order = rng.permutation(7)
    res = solve(a, b, C, reg=reg)
    moved = solve(a[order], b[order], C[order], reg=reg[order])
    np.testing.assert_array_equal(moved.f, res.f[order])
    np.testing.assert_array_equal(moved.g, res.g[order])


def test_easy_and_hard_problems_stop_on_their_own_tests(rng):
    a, b, C = batch(rng, 3, 30, 30)
    C[1] = np.abs(np.subtract.outer(np.arange(30.0), np.arange(30.0))) / 29
    reg = np.array([10.0, 1e-4, 1e-2])
    res = solve(a, b, C, reg=reg)
    alone = [ot.sinkhorn_newton(a[k], b[k], C[k], reg=reg[k]).nit for k in range(3)]
    running = res.history["running"]
    # The first one needs no second look at a temperature, and rounds go on without it.
    assert running[0] == 3 or running[1] < 3
    assert running[-1] == 0
    assert (np.diff(running) <= 0).all()
    assert res.nit >= min(alone)
    visited = np.isfinite(np.array(res.levels)).sum(axis=0)
    assert visited[0] < visited[1]


def test_problems_that_resist_are_finished_one_by_one(rng, monkeypatch):
    data = batch(rng, 4, kind="distances")
    expected = solve(*data, reg=1e-3)
    monkeypatch.setattr(_batch, "MOST_ROUNDS", 1)
    monkeypatch.setattr(_batch, "PATIENCE", 2)
    res = solve(*data, reg=1e-3)
    names = [name for name, _, _ in res.stages]
    assert names == ["all together", "one by one"]
    assert [name for name, _, _ in expected.stages] == ["all together"]
    np.testing.assert_allclose(res.plan, expected.plan, rtol=0, atol=1e-8)
    assert (np.diff(res.history["nit"]) >= 0).all()


def test_large_problems_are_solved_one_by_one(rng, monkeypatch):
    data = batch(rng, 3)
    expected = solve(*data, reg=1e-2)
    monkeypatch.setattr(_batch_problem, "SMALL", 100)
    res = solve(*data, reg=1e-2)
    assert [name for name, _, _ in res.stages] == ["one by one"]
    np.testing.assert_allclose(res.plan, expected.plan, rtol=0, atol=1e-8)
    np.testing.assert_allclose(res.value, expected.value, rtol=0, atol=1e-8)


def test_small_weights_of_the_batch_are_no_obstacle(rng):
    a, b, C = batch(rng, 5, 20, 20)
    a[0, 3] = b[1, 4] = 0.0
    a[2, 5], b[2, 7], a[3, :3] = 1e-300, 1e-30, 1e-12
    a, b = a / a.sum(axis=1)[:, None], b / b.sum(axis=1)[:, None]
    res = solve(a, b, C, reg=1e-2, tol=1e-10)
    for k in range(5):
        f, g = res.f[k], res.g[k]
        # Also points without mass have the potentials that would make their sums exact.
        rows = np.exp((f[:, None] + g - C[k]) / 1e-2) @ b[k]
        cols = a[k] @ np.exp((f[:, None] + g - C[k]) / 1e-2)
        np.testing.assert_allclose(rows[a[k] < 1e-11], 1.0, rtol=1e-6)
        np.testing.assert_allclose(cols[b[k] < 1e-11], 1.0, rtol=1e-6)
    plain = solve(a[4:], b[4:], C[4:], reg=1e-2, tol=1e-10)
    np.testing.assert_allclose(res.plan[4], plain.plan[0], rtol=0, atol=1e-10)


def test_forbidden_edges_carry_nothing(rng):
    a, b, C = batch(rng, 4)
    C[rng.random(C.shape) < 0.2] = np.inf
    res = solve(a, b, C, reg=0.05, tol=1e-11)
    assert (res.plan[np.isinf(C)] == 0).all()
    for k in range(4):
        expected = ot.sinkhorn_newton(a[k], b[k], C[k], reg=0.05, tol=1e-11)
        np.testing.assert_allclose(res.plan[k], expected.plan, rtol=0, atol=1e-10)


def test_one_problem_without_a_plan_does_not_spoil_the_others(rng):
    a, b, C = batch(rng, 4)
    C[2, 3] = np.inf
    res = unsolved(a, b, C, reg=0.05)
    assert res.converged.tolist() == [True, True, False, True]
    assert res.status == solvers.Status.INFEASIBLE
    assert res.certificate.details["problem"] == 2
    assert "problem 2" in res.message
    assert np.isfinite(res.plan).all()
    expected = ot.sinkhorn_newton(a[0], b[0], C[0], reg=0.05)
    np.testing.assert_allclose(res.plan[0], expected.plan, rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 5), (3, 1, 6), (3, 6, 1), (2, 2, 40)])
def test_thin_batches_are_solved(rng, shape):
    count, n, m = shape
    data = batch(rng, count, n, m)
    res = solve(*data, reg=0.1)
    assert res.plan.shape == shape
    np.testing.assert_allclose(res.plan.sum(axis=2), data[0], rtol=0, atol=1e-8)


def test_masses_may_differ_from_problem_to_problem(rng):
    a, b, C = batch(rng, 3)
    mass = np.array([1e-9, 1.0, 1e9])
    res = solve(mass[:, None] * a, mass[:, None] * b, C, reg=0.05)
    plain = solve(a, b, C, reg=0.05)
    np.testing.assert_allclose(res.f, plain.f, rtol=0, atol=1e-8)
    np.testing.assert_allclose(res.value, mass * plain.value, rtol=1e-7)
    np.testing.assert_allclose(res.plan, mass[:, None, None] * plain.plan, rtol=1e-5)
    np.testing.assert_allclose(res.value_linear, mass * plain.value_linear, rtol=1e-7)


def test_uniform_weights_are_meant_by_none(rng):
    _, b, C = batch(rng, 3)
    a = np.full((3, 14), 1 / 14)
    expected = solve(a, b, C, reg=0.05)
    res = ot.sinkhorn_newton(None, b, C, reg=0.05)
    np.testing.assert_allclose(res.f, expected.f, rtol=0, atol=1e-12)
    both = ot.sinkhorn_newton(None, None, C, reg=0.05)
    np.testing.assert_allclose(both.plan.sum(axis=1), 1 / 11, rtol=0, atol=1e-8)


def test_float32_data_reach_what_float32_potentials_can_show(rng):
    a, b, C = (x.astype(np.float32) for x in batch(rng, 4))
    res = solve(a, b, C)
    assert res.f.dtype == res.g.dtype == res.plan.dtype == np.float32
    assert res.value.dtype == res.reg.dtype == np.float64
    exact = ot.sinkhorn_newton(*(x.astype(float) for x in (a, b, C)), reg=res.reg)
    np.testing.assert_allclose(res.plan, exact.plan, rtol=0, atol=1e-5)


def test_lost_columns_are_found_again(rng):
    a, b, C = batch(rng, 2, 12, 12)
    start = rng.normal(0.0, 50.0, (2, 12))  # ten thousand times reg
    res = solve(a, b, C, reg=5e-3, g0=start)
    np.testing.assert_allclose(res.plan, solve(a, b, C, reg=5e-3).plan, rtol=0, atol=1e-8)


# Temperatures ----------------------------------------------------------------------------------
def test_the_default_reg_is_a_twentieth_of_each_standard_deviation(rng):
    a, b, C = batch(rng, 3)
    C *= np.array([1.0, 10.0, 100.0])[:, None, None]
    C[1, 2, 3] = np.inf
    expected = [0.05 * one[np.isfinite(one)].std() for one in C]
    np.testing.assert_allclose(ot.sinkhorn_newton(a, b, C).reg, expected, rtol=1e-12)
    shared = ot.sinkhorn_newton(a, b, C[0])
    np.testing.assert_allclose(shared.reg, np.full(3, expected[0]), rtol=1e-12)


@pytest.mark.parametrize("statistic", ["std", "mean", "max", "median"])
def test_reg_is_multiplied_by_the_statistic_of_each_cost(rng, statistic):
    a, b, C = batch(rng, 3)
    C *= np.array([1.0, 10.0, 100.0])[:, None, None]
    C[1, 2, 3] = np.inf
    reg = np.array([0.1, 0.2, 0.3])
    finite = [one[np.isfinite(one)] for one in C]
    expected = reg * [getattr(np, statistic)(x) for x in finite]
    res = ot.sinkhorn_newton(a, b, C, reg=reg, reg_scale=statistic)
    np.testing.assert_allclose(res.reg, expected, rtol=1e-12)


def test_constant_costs_give_independent_plans(rng):
    a, b, C = batch(rng, 3)
    C[0], C[1] = 0.0, -2e5
    res = solve(a, b, C)
    np.testing.assert_allclose(res.plan[:2], a[:2, :, None] * b[:2, None], rtol=1e-8)
    np.testing.assert_array_equal(res.reg[:2], [1.0, 2e5])


def test_costs_of_which_few_differ_are_no_obstacle(rng):
    a, b, C = batch(rng, 2, 40, 40)
    C[:], C[0, 5, 7], C[1, :, 11] = 1.0, 0.0, 100.0
    res = solve(a, b, C, reg=1e-3)
    for k in range(2):
        expected = ot.sinkhorn_newton(a[k], b[k], C[k], reg=1e-3)
        np.testing.assert_allclose(res.plan[k], expected.plan, rtol=0, atol=1e-8)


def test_reg_may_be_a_list_and_comes_back_as_it_was_used(rng):
    data = batch(rng, 3)
    res = solve(*data, reg=[1, 0.1, 0.5])
    np.testing.assert_array_equal(res.reg, [1, 0.1, 0.5])
    np.testing.assert_array_equal(solve(*data, reg=0.3).reg, [0.3] * 3)


# Starts ----------------------------------------------------------------------------------------
def test_a_solved_start_takes_one_pass_in_every_form(rng):
    data = batch(rng, 4)
    res = solve(*data, reg=1e-2, tol=1e-10)
    forms = [{"x0": res}, {"x0": (res.f, res.g)}, {"g0": res.g}, {"f0": res.f}]
    for form in forms:
        again = solve(*data, reg=1e-2, tol=1e-8, **form)
        assert again.nit == 1
    nearby = solve(*data, reg=0.9e-2, x0=res)
    assert nearby.nsinkhorn + nearby.nnewton < res.nsinkhorn + res.nnewton


def test_a_bad_start_does_no_harm(rng):
    data = batch(rng, 4)
    bad = rng.normal(0.0, 3.0, (4, 11))
    res = solve(*data, reg=1e-3, g0=bad)
    np.testing.assert_allclose(res.plan, solve(*data, reg=1e-3).plan, rtol=0, atol=1e-8)


def test_only_the_temperatures_asked_for_are_visited_without_annealing(rng):
    data = batch(rng, 3)
    reg = np.array([1e-3, 2e-3, 1e-2])
    res = solve(*data, reg=reg, annealing=False)
    for level in res.levels:
        np.testing.assert_array_equal(level[np.isfinite(level)], reg[np.isfinite(level)])
    assert max(np.nanmax(level) for level in solve(*data, reg=reg).levels) > 1e-2


# Options ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("differs", "options"),
    [
        ("nsinkhorn", {"n_sinkhorn": 1}),
        ("ncg", {"tol_inner": 1e-10}),
        ("ncg", {"maxiter_inner": 3}),
        ("ncg", {"tol": 1e-2}),
        ("levels", {"annealing": False}),
    ],
    ids=str,
)
def test_a_parameter_changes_the_course_of_the_run(rng, differs, options):
    data = batch(rng, 4, 30, 30)
    plain = ot.sinkhorn_newton(*data, reg=1e-3)
    res = ot.sinkhorn_newton(*data, reg=1e-3, **options)
    assert res.success
    assert np.sum(getattr(res, differs)) != np.sum(getattr(plain, differs))


@pytest.mark.parametrize("options", [{"precond": "cholesky"}, {"store_plan": False}], ids=str)
def test_options_of_a_single_problem_hold_for_those_finished_one_by_one(rng, monkeypatch, options):
    monkeypatch.setattr(_batch_problem, "SMALL", 0)
    res = solve(*batch(rng, 3), reg=1e-2, **options)
    assert (res.nfactor > 0) == ("precond" in options)


def test_reg_type_changes_the_reported_values_only(rng):
    a, b, _ = data = batch(rng, 3)
    a[0] *= 2.0
    b[0] *= 2.0
    kl, entropy = (solve(*data, reg=0.05, reg_type=t) for t in ("kl", "entropy"))
    np.testing.assert_array_equal(kl.f, entropy.f)
    np.testing.assert_array_equal(kl.dual, entropy.dual)
    for k in range(3):
        single = ot.sinkhorn_newton(*one(data, k), reg=0.05, reg_type="entropy")
        assert entropy.value[k] == pytest.approx(single.value, abs=1e-8)


def test_limits_end_all_problems_with_exact_rows_and_one_warning(rng):
    data = batch(rng, 5, 30, 30)
    for status, options in (("MAXITER", {"maxiter": 1}), ("TIME_LIMIT", {"time_limit": 1e-9})):
        res = unsolved(*data, reg=1e-4, **options)
        assert res.status == solvers.Status[status]
        assert res.nit == 1
        np.testing.assert_allclose(res.plan.sum(axis=2), data[0], rtol=1e-6)
        assert not res.converged.any()


def test_limits_hold_for_problems_finished_one_by_one(rng, monkeypatch):
    monkeypatch.setattr(_batch_problem, "SMALL", 0)
    data = batch(rng, 3, 30, 30)
    res = unsolved(*data, reg=1e-4, maxiter=2)
    assert res.status == solvers.Status.MAXITER
    assert res.nit == 2
    seen = []
    res = ot.sinkhorn_newton(
        *data, reg=1e-4, callback=lambda r: seen.append(r.nit) or len(seen) > 2
    )
    assert res.status == solvers.Status.CALLBACK
    assert len(seen) == 3
    res = unsolved(*data, reg=1e-4, time_limit=1e-9)
    assert res.status == solvers.Status.TIME_LIMIT
    # Also those whose turn has not come.
    np.testing.assert_allclose(res.plan.sum(axis=2), data[0], rtol=1e-6)


def test_unreachable_tolerances_end_honestly(rng):
    data = batch(rng, 2)
    res = unsolved(*data, reg=1e-3, tol=1e-17)
    assert res.status == solvers.Status.STALLED
    assert res.certificate.value < 1e-10


def test_callbacks_see_all_problems_and_may_end_the_run(rng):
    a, b, _ = data = batch(rng, 4)
    a[0, 3] = 0.0
    a[0] /= a[0].sum()
    seen = []
    res = ot.sinkhorn_newton(*data, reg=1e-3, callback=seen.append)
    assert [r.nit for r in seen] == list(range(1, res.nit + 1))
    for r in seen:
        assert r.f.shape == a.shape
        assert r.g.shape == b.shape
        assert not r.f.flags.writeable
    assert seen[-1].fun == pytest.approx(res.value.sum(), rel=1e-6)

    np.testing.assert_allclose(seen[-1].f, res.f, rtol=0, atol=1e-12)
    # The rows are exact at the temperature of the pass.
    first = ot.sinkhorn_newton(*data, reg=0.1, annealing=False, callback=seen.append)
    r = seen[-first.nit]
    P = a[:, :, None] * b[:, None] * np.exp((r.f[:, :, None] + r.g[:, None] - data[2]) / 0.1)
    np.testing.assert_allclose(P.sum(axis=2), a, rtol=1e-9)

    def stop(r):
        raise StopIteration

    ended = ot.sinkhorn_newton(*data, reg=1e-3, callback=stop)
    assert ended.status == solvers.Status.CALLBACK
    assert ended.nit == 1
    in_time = ot.sinkhorn_newton(*data, reg=1e-3, callback=lambda r: r.nit == res.nit)
    assert in_time.status == solvers.Status.CONVERGED


def test_history_has_a_row_for_every_pass_or_none(rng):
    data = batch(rng, 4)
    res = ot.sinkhorn_newton(*data, reg=1e-3)
    assert len(res.history["nit"]) == res.nit
    assert set(res.history) == {"nit", "seconds", "marginal_error", "fun", "reg", "running"}
    assert ot.sinkhorn_newton(*data, reg=1e-3, history=False).history == {}


def test_progress_is_shown_on_request_only(rng, capfd):
    data = batch(rng, 3)
    ot.sinkhorn_newton(*data)
    assert capfd.readouterr().err == ""
    ot.sinkhorn_newton(*data, progress=True)
    assert "sinkhorn_newton" in capfd.readouterr().err


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
def test_any_number_of_threads_gives_the_same_bits(rng):
    data = batch(rng, 40, 30, 30)
    one_thread = ot.sinkhorn_newton(*data, reg=1e-3, n_threads=1)
    two = ot.sinkhorn_newton(*data, reg=1e-3, n_threads=2)
    np.testing.assert_array_equal(one_thread.f, two.f)


def test_nothing_of_the_callers_is_modified_in_any_layout(rng):
    data = batch(rng, 3)
    expected = solve(*data, reg=0.05)
    odd = [np.asfortranarray(x) for x in data]
    for x in odd:
        x.flags.writeable = False
    res = ot.sinkhorn_newton(*odd, reg=0.05)
    np.testing.assert_array_equal(res.f, expected.f)
    strided = [np.repeat(x, 2, axis=-1)[..., ::2] for x in data]
    np.testing.assert_array_equal(ot.sinkhorn_newton(*strided, reg=0.05).f, expected.f)
    plain = [x.copy() for x in data]
    ot.sinkhorn_newton(*plain, reg=0.05, g0=expected.g)
    for x, y in zip(plain, data, strict=True):
        np.testing.assert_array_equal(x, y)


def test_lists_and_integers_are_taken(rng):
    C = rng.integers(0, 10, (2, 3, 4))
    res = ot.sinkhorn_newton([[1, 1, 2]] * 2, [[1, 1, 1, 1]] * 2, C.tolist(), reg=1)
    assert res.success
    np.testing.assert_allclose(res.plan.sum(axis=1), 1.0, rtol=1e-7)


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_array_kinds_come_back_as_they_went_in(rng, kind):
    arrays = [x.astype(np.float32) for x in batch(rng, 3)]
    a, b, C = (as_kind(x, kind) for x in arrays)
    res = ot.sinkhorn_newton(a, b, C, reg=np.array([0.1, 0.2, 0.3]))
    expected = ot.sinkhorn_newton(*arrays, reg=np.array([0.1, 0.2, 0.3]))
    applied = res.apply(b)
    for x in (res.f, res.g, res.plan, res.x, applied, *res.potentials_counting):
        assert_same_kind(x, a)
    np.testing.assert_array_equal(np.asarray(res.f), expected.f)
    assert ot.certify(a, b, C, res.f, res.g, reg=res.reg, tol=1e-5).holds
    again = ot.sinkhorn_newton(a, b, C, reg=res.reg, x0=res)
    assert again.nit == 1


# Plain sweeps ----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["random", "squares"])
def test_sweeps_of_a_batch_reach_the_same_plans(rng, kind):
    a, _, _ = data = batch(rng, 4, kind=kind)
    a[2, 3] = 0.0
    a[2] /= a[2].sum()
    reg = np.array([1.0, 0.1, 0.05, 0.02])
    res = ot.sinkhorn(*data, reg=reg, tol=1e-10)
    expected = solve(*data, reg=reg, tol=1e-10)
    assert res.success
    assert res.method == "sinkhorn"
    assert res.nnewton == res.ncg == 0
    assert max(error(res, data, k) for k in range(4)) <= 1e-10
    np.testing.assert_allclose(res.plan, expected.plan, rtol=0, atol=1e-9)
    again = ot.sinkhorn(*data, reg=reg, x0=res, method="stabilized")
    assert again.nit == 1


def test_sweeps_are_those_of_the_log_domain_iteration(rng):
    a, b, C = batch(rng, 3)
    g = rng.normal(0.0, 0.1, (3, 11))
    with pytest.warns(solvers.ConvergenceWarning):
        res = ot.sinkhorn(a, b, C, reg=0.1, g0=g, maxiter=6, tol=1e-14)
    assert res.status == solvers.Status.MAXITER
    assert res.nit == 6
    for k in range(3):
        # Five sweeps of rows and columns, and the rows once more.
        *_, (_, last) = reference.sinkhorn_steps(a[k], b[k], C[k], 0.1, 5, g=g[k])
        E = np.exp((last - C[k]) / 0.1)
        P = a[k][:, None] * E * b[k] / (E @ b[k])[:, None]
        np.testing.assert_allclose(res.plan[k], P, rtol=0, atol=1e-13)


def test_sweeps_report_and_end_as_asked(rng):
    data = batch(rng, 3)
    seen = []
    res = ot.sinkhorn(*data, reg=0.01, callback=seen.append)
    assert res.success
    assert [r.nit for r in seen] == res.history["nit"].tolist()
    np.testing.assert_allclose(seen[-1].f, res.f, rtol=0, atol=1e-12)
    ended = ot.sinkhorn(*data, reg=0.01, callback=lambda r: True)
    assert ended.status == solvers.Status.CALLBACK
    with pytest.warns(solvers.ConvergenceWarning):
        late = ot.sinkhorn(*data, reg=0.01, time_limit=1e-9)
    assert late.status == solvers.Status.TIME_LIMIT
    data[2][1, 4] = np.inf
    with pytest.warns(solvers.ConvergenceWarning) as warned:
        res = ot.sinkhorn(*data, reg=0.05)
    assert len(warned) == 1
    assert res.status == solvers.Status.INFEASIBLE
    assert res.converged.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("method", {"method": "log"}),
        ("method", {"method": "anderson"}),
        ("reg", {"reg": [0.1, 0.1]}),
        ("maxiter", {"maxiter": 0}),
        ("a", {"a": A[0]}),
    ],
)
def test_sweeps_refuse_wrong_arguments_by_name(name, change):
    call = {"a": A, "b": B, "C": C, "reg": 0.1} | change
    with pytest.raises(ValueError, match=f"^`{name}`"):
        ot.sinkhorn(call.pop("a"), call.pop("b"), call.pop("C"), **call)


# The certificate -------------------------------------------------------------------------------
@pytest.mark.parametrize("shared", [True, False])
def test_the_certificate_is_that_of_the_worst_problem(rng, shared):
    a, b, C = batch(rng, 5)
    a[1, 2], b[3, 4], a[4] = 0.0, 0.0, 3 * a[4]
    b[4] *= 3
    a, b = (w / w.sum(axis=1)[:, None] * np.array([1, 1, 1, 1, 3])[:, None] for w in (a, b))
    C = C[0] if shared else C
    f, g = rng.normal(0.0, 0.05, (5, 14)), rng.normal(0.0, 0.05, (5, 11))
    reg = rng.uniform(0.05, 0.2, 5)
    singles = [ot.certify(*one((a, b, C), k), f[k], g[k], reg=reg[k]) for k in range(5)]
    worst = int(np.argmax([c.value for c in singles]))
    certificate = ot.certify(a, b, C, f, g, reg=reg)
    assert certificate.details.pop("problem") == worst
    assert certificate.value == pytest.approx(singles[worst].value, rel=1e-12)
    assert certificate.kind == singles[worst].kind
    assert certificate.details == pytest.approx(singles[worst].details, rel=1e-9)


@pytest.mark.parametrize("large", [True, False])
def test_every_problem_is_judged_as_on_its_own(rng, monkeypatch, large):
    if large:
        monkeypatch.setattr(_batch_problem, "SMALL", 0)
    a, b, C = batch(rng, 4)
    C[2, rng.random((14, 11)) < 0.3] = np.inf
    a[1, 2] = 0.0
    a /= a.sum(axis=1)[:, None]
    f, g = rng.normal(0.0, 0.05, (4, 14)), rng.normal(0.0, 0.05, (4, 11))
    f[3, 5] = np.nan
    reg = np.array([0.1, 0.2, 0.3, 0.4])
    problem, _ = _batch_problem.check_batch(a, b, C)
    numbers = _batch_result.judge_batch(problem, f, g, reg)
    for k in range(4):
        single = ot.certify(*one((a, b, C), k), f[k], g[k], reg=reg[k])
        assert numbers["value"][k] == pytest.approx(single.value, rel=1e-12)
        for name in ("dual", "primal"):
            assert numbers[name][k] == pytest.approx(single.details[name], rel=1e-9)


def test_certificates_bracket_the_optimal_values(rng):
    a, b, C = data = batch(rng, 3)
    res = solve(*data, reg=0.05, tol=1e-3)
    for k in range(3):
        optimum = reference.value(*one(data, k), 0.05)
        certificate = ot.certify(
            a[k : k + 1], b[k : k + 1], C[k], res.f[k : k + 1], res.g[k : k + 1], reg=0.05
        )
        assert certificate.details["dual"] <= optimum + 1e-13
        assert certificate.details["primal"] >= optimum - 1e-13


# The result ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def solved():
    rng = np.random.default_rng(5)
    a, b, C = batch(rng, 4)
    a[1, 2], b[3, 4], C[2, 0, :3] = 0.0, 0.0, np.inf
    a, b = a / a.sum(axis=1)[:, None], 2 * b / b.sum(axis=1)[:, None]
    data = 2 * a, b, C
    reg = np.array([0.1, 0.05, 0.2, 0.02])
    res = ot.sinkhorn_newton(*data, reg=reg, tol=1e-12)
    singles = [ot.sinkhorn_newton(*one(data, k), reg=reg[k], tol=1e-12) for k in range(4)]
    return res, singles


@pytest.mark.parametrize(
    "name",
    [
        "plan",
        "x",
        "grad_a",
        "grad_b",
        "grad_C",
        "grad_reg",
        "value_linear",
        "cost_rounded",
        "value",
        "fun",
    ],
)
def test_what_a_result_has_is_what_the_results_of_its_problems_have(solved, name):
    res, singles = solved
    expected = np.stack([getattr(single, name) for single in singles])
    np.testing.assert_allclose(getattr(res, name), expected, rtol=0, atol=1e-9)


def test_methods_give_what_they_give_for_each_problem(solved, rng):
    res, singles = solved
    for axis, size in ((1, 11), (0, 14)):
        V = rng.random((4, size, 3))
        expected = [single.apply(v, axis=axis) for single, v in zip(singles, V, strict=True)]
        np.testing.assert_allclose(res.apply(V, axis=axis), expected, atol=1e-9)
        np.testing.assert_allclose(
            res.apply(V[:, :, 0], axis=axis), np.array(expected)[:, :, 0], atol=1e-9
        )
    for ours, single in zip(res.plan_sparse(1e-3), singles, strict=True):
        theirs = single.plan_sparse(1e-3)
        np.testing.assert_allclose(ours.toarray(), theirs.toarray(), atol=1e-9)
    np.testing.assert_allclose(
        np.transpose(res.lp_bracket()), [single.lp_bracket() for single in singles], atol=1e-9
    )
    for k, single in enumerate(singles):
        for ours, theirs in zip(res.potentials_counting, single.potentials_counting, strict=True):
            np.testing.assert_allclose(ours[k], theirs, atol=1e-9)


@pytest.mark.parametrize("which", ["df", "dg", "dP", "all"])
def test_cotangents_are_pulled_back_problem_by_problem(solved, rng, which):
    res, singles = solved
    shapes = {"df": (4, 14), "dg": (4, 11), "dP": (4, 14, 11)}
    given = {name: rng.normal(size=s) for name, s in shapes.items() if which in (name, "all")}
    pulled = res.vjp(**given)
    for k, single in enumerate(singles):
        expected = single.vjp(**{name: v[k] for name, v in given.items()})
        for ours, theirs in zip(pulled, expected, strict=True):
            np.testing.assert_allclose(ours[k], theirs, rtol=1e-6, atol=1e-7)


def test_gradients_are_slopes_of_the_values(rng):
    a, b, C = batch(rng, 3, 6, 5)
    reg, step = np.array([0.1, 0.2, 0.3]), 1e-5
    res = solve(a, b, C, reg=reg, tol=1e-12)
    D = rng.normal(size=C.shape)
    up, down = (solve(a, b, C + s * D, reg=reg, tol=1e-12).value for s in (step, -step))
    np.testing.assert_allclose(
        (res.grad_C * D).sum(axis=(1, 2)), (up - down) / (2 * step), rtol=1e-6
    )
    up, down = (solve(a, b, C, reg=reg + s, tol=1e-12).value for s in (step, -step))
    np.testing.assert_allclose(res.grad_reg, (up - down) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind", "call"),
    [
        ("df", ValueError, lambda res: res.vjp()),
        ("df", ValueError, lambda res: res.vjp(np.ones(14))),
        ("dg", ValueError, lambda res: res.vjp(dg=np.ones((4, 14)))),
        ("tol", ValueError, lambda res: res.vjp(np.ones((4, 14)), tol=0.0)),
        ("V", ValueError, lambda res: res.apply(np.ones(11))),
        ("V", ValueError, lambda res: res.apply(np.ones((4, 14)))),
        ("V", TypeError, lambda res: res.apply("V")),
        ("axis", ValueError, lambda res: res.apply(np.ones((4, 11)), axis=2)),
        ("threshold", ValueError, lambda res: res.plan_sparse(-1.0)),
    ],
)
def test_wrong_arguments_of_methods_are_refused_by_name(solved, name, kind, call):
    with pytest.raises(kind, match=f"^`{name}`"):
        call(solved[0])


def test_results_pickle_copy_print_and_plot(solved):
    res, _ = solved
    for twin in (pickle.loads(pickle.dumps(res)), copy.deepcopy(res)):
        np.testing.assert_array_equal(twin.plan, res.plan)
        assert twin.certificate == res.certificate
    assert "This is the largest of 4, that of problem" in res.summary()
    assert "converged" in repr(res)
    assert "converged" in dir(res)
    assert "tang2024" in res.cite()


def test_the_message_names_the_worst_problem(rng, caplog):
    data = batch(rng, 3, 30, 30)
    with caplog.at_level(logging.INFO, "solvers"):
        res = unsolved(*data, reg=[10.0, 1e-4, 10.0], maxiter=2)
    assert res.converged.tolist() == [True, False, True]
    assert "This is problem 1; 1 of 3 have not converged." in res.message
    assert res.message in caplog.text


# Wrong arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "change"),
    [
        ("a", ValueError, {"a": A[0]}),
        ("b", ValueError, {"b": B[0]}),
        ("b", ValueError, {"b": B[:2]}),
        ("C", ValueError, {"C": C[:2]}),
        ("C", ValueError, {"C": C.transpose(0, 2, 1)}),
        ("C", ValueError, {"C": C[0].T}),
        ("C", ValueError, {"C": C[None]}),
        ("C", ValueError, {"C": C[:, :0]}),
        ("C", ValueError, {"C": np.where(C[1, 2, 3] == C, np.nan, C)}),
        ("C", ValueError, {"C": np.where(C[1, 2, 3] == C, -np.inf, C)}),
        ("C", TypeError, {"C": C.astype(complex)}),
        ("C", TypeError, {"C": None}),
        ("b", ValueError, {"C": ot.PointCloud(np.ones((4, 2)), np.ones((6, 2)))}),
        ("b", ValueError, {"b": B[:2], "C": ot.PointCloud(np.ones((4, 2)), np.ones((5, 2)))}),
        ("a", ValueError, {"a": A - 1}),
        ("a", ValueError, {"a": A * np.array([[1], [0], [1]])}),
        ("a", ValueError, {"a": A * np.array([[1], [2], [1]])}),
        ("b", ValueError, {"b": B * np.inf}),
        ("a", ValueError, {"a": A[:0], "b": B[:0], "C": C[0]}),
        ("C", ValueError, {"a": None, "b": None, "C": C[:0]}),
        ("a", TypeError, {"a": A.astype(str)}),
        ("reg", ValueError, {"reg": np.ones(2)}),
        ("reg", ValueError, {"reg": np.ones((3, 1))}),
        ("reg", ValueError, {"reg": [0.1, -0.1, 0.1]}),
        ("reg", ValueError, {"reg": [0.1, np.nan, 0.1]}),
        ("reg", ValueError, {"reg": 0}),
        ("reg", TypeError, {"reg": "0.1"}),
        ("reg", TypeError, {"reg": [1j, 1, 1]}),
        ("reg_scale", ValueError, {"reg": None, "reg_scale": "max"}),
        ("reg_scale", ValueError, {"reg_scale": "min"}),
        ("reg_type", ValueError, {"reg_type": "l2"}),
        ("method", ValueError, {"method": "sns-paper"}),
        ("method", ValueError, {"method": "newton"}),
        ("method", ValueError, {"method": "splr"}),
        ("sparsity", ValueError, {"sparsity": 0.1}),
        ("constraints", ValueError, {"constraints": [(np.ones((4, 5)), ">=")]}),
        ("tol", ValueError, {"tol": 0}),
        ("tol_inner", ValueError, {"tol_inner": -1}),
        ("maxiter", ValueError, {"maxiter": 0}),
        ("maxiter_inner", TypeError, {"maxiter_inner": 1.5}),
        ("n_sinkhorn", ValueError, {"n_sinkhorn": 0}),
        ("precond", ValueError, {"precond": "ilu"}),
        ("store_plan", TypeError, {"store_plan": 1}),
        ("annealing", TypeError, {"annealing": 1}),
        ("time_limit", ValueError, {"time_limit": -1}),
        ("callback", TypeError, {"callback": 1}),
        ("n_threads", ValueError, {"n_threads": 0}),
        ("x0", TypeError, {"x0": 3}),
        ("x0", ValueError, {"x0": (np.zeros(4), np.zeros(5))}),
        ("x0", ValueError, {"x0": (np.zeros((3, 4)), np.zeros((3, 5))), "g0": np.zeros((3, 5))}),
        ("g0", ValueError, {"g0": np.zeros((2, 5))}),
        ("f0", ValueError, {"f0": np.full((3, 4), np.nan)}),
    ],
)
def test_wrong_arguments_are_refused_by_name(name, kind, change):
    call = {"a": A, "b": B, "C": C, "reg": 0.1} | change
    with pytest.raises(kind, match=f"^`{name}`"):
        ot.sinkhorn_newton(call.pop("a"), call.pop("b"), call.pop("C"), **call)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("f", {"f": np.zeros((2, 4))}),
        ("g", {"g": np.zeros(5)}),
        ("reg", {"reg": np.ones(4)}),
        ("tol", {"tol": 0.0}),
    ],
)
def test_certify_refuses_by_name_too(name, change):
    call = {"f": np.zeros((3, 4)), "g": np.zeros((3, 5)), "reg": 0.1} | change
    with pytest.raises(ValueError, match=f"^`{name}`"):
        ot.certify(A, B, C, call.pop("f"), call.pop("g"), **call)


def test_masses_that_differ_are_reported_with_the_problem():
    with pytest.raises(ValueError, match=r"^`a` sums to 2 and `b` to 1 in problem 1"):
        ot.sinkhorn_newton(A * np.array([[1], [2], [1]]), B, C)
