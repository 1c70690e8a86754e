import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers import ot
from solvers._core.backend import get_backend
from solvers.ot._problem import BestPotentials, check_reg, check_transport, softmin
from tests import oracles
from tests.ot import reference

seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_softmin_makes_rows_exact_and_is_zero_where_there_is_no_edge(seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 8, size=2)
    b, C = rng.dirichlet(np.ones(m)), 5 * rng.normal(size=(n, m))
    b[0] = 0.0
    C[rng.random((n, m)) < 0.3] = np.inf
    g = rng.normal(size=m)
    f = softmin(get_backend("numpy"), C, g, b, 0.1)
    for i in range(n):
        linked = (b > 0) & np.isfinite(C[i])
        if linked.any():
            total = (b * np.exp((f[i] + g - C[i]) / 0.1))[linked].sum()
            assert total == pytest.approx(1.0, rel=1e-12)
        else:
            assert f[i] == 0.0


def test_softmin_tends_to_the_minimum_and_to_the_mean(rng):
    C, g, b = rng.normal(size=(4, 6)), rng.normal(size=6), np.full(6, 1 / 6)
    be = get_backend("numpy")
    np.testing.assert_allclose(softmin(be, C, g, b, 1e-9), (C - g).min(axis=1), atol=1e-8)
    np.testing.assert_allclose(softmin(be, C, g, b, 1e7), (C - g).mean(axis=1), atol=1e-6)


@given(seeds)
def test_statistics_of_the_cost_are_those_of_its_finite_entries(seed):
    rng = np.random.default_rng(seed)
    # Rows of 70000 entries come in blocks of one row.
    n, m = (3, 70_000) if seed % 5 == 0 else rng.integers(2, 40, size=2)
    C = 1e3 + rng.normal(size=(n, m))
    C[rng.random((n, m)) < rng.choice([0.0, 0.5])] = np.inf
    C[0, 0] = 1e3
    finite = C[np.isfinite(C)]
    problem, _ = check_transport(None, None, C)
    assert check_reg(problem, 1.0, "max") == finite.max()
    for name in ("mean", "std", "median"):
        expected = getattr(np, name)(finite)
        if expected > 1e-9:
            assert check_reg(problem, 2.0, name) == pytest.approx(2 * expected, rel=1e-9)
    assert problem.range == np.ptp(finite)


def test_a_statistic_that_is_no_scale_is_refused(rng):
    u = np.full(3, 1 / 3)
    for C, name in ((np.zeros((3, 3)), "std"), (-np.ones((3, 3)), "max")):
        with pytest.raises(ValueError, match="`reg"):
            ot.sinkhorn_newton(u, u, C, reg=0.1, reg_scale=name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_almost_equal_masses_are_made_equal_and_others_refused(rng, dtype):
    C = rng.random((4, 5)).astype(dtype)
    a, b = (rng.dirichlet(np.ones(k)) for k in (4, 5))
    slack = 1e-6 if dtype == "float64" else 1e-4
    close = (b * (1 + 0.9 * slack)).astype(dtype)
    res = ot.sinkhorn_newton(a.astype(dtype), close, C, reg=0.2)
    assert res.success
    np.testing.assert_allclose(res.plan.sum(), 1.0, rtol=1e-5)
    with pytest.raises(ValueError, match=r"^`a` sums to 1.*rescale"):
        ot.sinkhorn_newton(a.astype(dtype), (b * (1 + 2 * slack)).astype(dtype), C, reg=0.2)


@pytest.mark.parametrize("bad", [np.zeros(3), np.array([np.inf, 1, 1]), np.array([1e308] * 3)])
def test_masses_without_a_finite_positive_sum_are_refused(bad):
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="`a`"):
        ot.sinkhorn_newton(bad, None, np.zeros((3, 2)))


def test_one_side_may_be_left_uniform_with_the_mass_of_the_other(rng):
    C = rng.random((4, 6))
    b = 3.0 * rng.dirichlet(np.ones(6))
    res = ot.sinkhorn_newton(None, b, C, reg=0.3, tol=1e-11)
    np.testing.assert_allclose(res.plan.sum(axis=1), 0.75, rtol=1e-9)
    np.testing.assert_allclose(res.plan.sum(axis=0), b, rtol=1e-9)


def test_the_lightest_points_are_left_out_up_to_the_mass_allowed(rng):
    a = np.array([0.5, 1e-9, 0.0, 0.5, 2e-9])
    C = rng.random((5, 3))
    problem, _ = check_transport(a, None, C)
    part, rows, cols = problem.without_dust(1.5e-9)
    np.testing.assert_array_equal(rows, [0, 3, 4])
    assert cols is None
    np.testing.assert_array_equal(part.C, C[[0, 3, 4]])
    assert part.a.sum() == pytest.approx(1.0, rel=1e-15)
    _, rows, _ = problem.without_dust(0.0)
    np.testing.assert_array_equal(rows, [0, 1, 3, 4])  # zeros are always dust
    full, _ = check_transport(None, None, C)
    assert full.without_dust(1e-13) == (full, None, None)


def test_what_was_left_out_gets_potentials_that_make_its_own_marginals_exact(rng):
    a, b, C = oracles.cloud_problem(rng, 7, 6)
    a[1] = b[2] = 0.0
    a[4] = 1e-16
    a, b = a / a.sum(), b / b.sum()
    problem, io = check_transport(a, b, C)
    best = BestPotentials(problem, 0.3, 1e-15, io.out)
    f, g = reference.sinkhorn(best.part.a, best.part.b, best.part.C, 0.3)
    best.offer(1.0, f, g)
    f, g = best.potentials()
    assert a @ f == pytest.approx(b @ g, abs=1e-14)
    K = np.exp((f[:, None] + g - C) / 0.3)
    np.testing.assert_allclose(K @ b, 1.0, rtol=1e-12)
    np.testing.assert_allclose(a @ K, 1.0, rtol=1e-12)


def test_the_best_potentials_are_kept_and_nan_never_is(rng):
    a, b, C = oracles.cloud_problem(rng, 3, 4)
    problem, io = check_transport(a, b, C)
    best = BestPotentials(problem, 0.3, 0.0, io.out)
    assert not best.found
    for error, level in [(0.5, 1.0), (0.1, 2.0), (np.nan, 3.0), (0.2, 4.0)]:
        best.offer(error, np.full(3, level), np.full(4, level))
    f, g = best.potentials()
    np.testing.assert_allclose((f[:, None] + g), 4.0, rtol=1e-15)


def test_costs_are_used_where_they_lie(rng):
    C = rng.random((30, 40))
    for given_C in (C, np.asfortranarray(C), C.astype(np.float32)):
        problem, _ = check_transport(None, None, given_C)
        assert np.shares_memory(problem.C, given_C)
        assert problem.C.flags.c_contiguous
        assert problem.flipped == given_C.flags.f_contiguous
    # A copy is made where there is no way around it: of integers, and of scattered rows.
    for given_C in (np.ones((3, 4), int), C[::2, ::2]):
        problem, _ = check_transport(None, None, given_C)
        assert not np.shares_memory(problem.C, given_C)


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        ("C", TypeError, (None, None, None)),
        ("C", ValueError, (None, None, np.zeros((1, 2, 2, 2)))),
        ("C", ValueError, (None, None, np.array([[-np.inf, 0.0]]))),
        ("C", ValueError, (None, None, np.zeros((0, 3)))),
        ("b", ValueError, (None, np.array([0.5, -0.5, 1.0]), np.zeros((2, 3)))),
        ("b", ValueError, (None, np.zeros(3), np.zeros((2, 3)))),
        ("C", ValueError, (np.ones(3), np.ones(3), np.zeros((3, 2)))),
        ("a", ValueError, (0.5, None, np.zeros((1, 1)))),
        ("a", TypeError, ("ab", None, np.zeros((2, 2)))),
        ("C", TypeError, (None, None, np.ma.masked_array(np.zeros((2, 2))))),
    ],
    ids=range(10),
)
def test_data_that_are_no_problem_are_refused_by_name(name, kind, data):
    for function in (ot.sinkhorn_newton, ot.sinkhorn):
        with pytest.raises(kind, match=f"^`{name}`"):
            function(*data)
