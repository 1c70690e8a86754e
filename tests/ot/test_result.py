import copy
import pickle
import warnings

import numpy as np
import pytest

import solvers
from solvers import ot
from solvers._core import validation
from tests import oracles
from tests.ot import reference


@pytest.fixture(params=["C order", "Fortran order"])
def solved(request, rng):
    """A result with mass 2, points without mass and a forbidden edge; and its dense plan."""
    a, b, C = oracles.cloud_problem(rng, 14, 11)
    a[3] = b[7] = 0.0
    a, b = 2 * a / a.sum(), 2 * b / b.sum()
    C[2, 5] = np.inf
    C = np.asfortranarray(C) if request.param == "Fortran order" else C
    res = ot.sinkhorn_newton(a, b, C, reg=0.3, tol=1e-10)
    return res, oracles.gibbs_plan(res.f, res.g, a, b, C, 0.3), a, b, C


def test_the_plan_is_that_of_the_formula_and_is_built_once(solved):
    res, P, *_ = solved
    np.testing.assert_allclose(res.plan, P, rtol=1e-12, atol=1e-300)
    assert res.plan is res.plan
    assert res.grad_C is res.plan
    assert res.plan.flags.c_contiguous


@pytest.mark.parametrize("columns", [None, 1, 3])
def test_products_with_the_plan_need_no_plan(solved, rng, columns):
    res, P, *_ = solved
    tail = () if columns is None else (columns,)
    V, W = rng.normal(size=(11, *tail)), rng.normal(size=(14, *tail))
    np.testing.assert_allclose(res.apply(V), P @ V, rtol=0, atol=1e-14)
    np.testing.assert_allclose(res.apply(V, axis=1), P @ V, rtol=0, atol=1e-14)
    np.testing.assert_allclose(res.apply(W, axis=0), P.T @ W, rtol=0, atol=1e-14)
    assert "_plan" not in vars(res)
    assert not dict.__contains__(res, "plan")


def test_what_cannot_be_multiplied_is_refused(solved):
    res, *_ = solved
    with pytest.raises(ValueError, match=r"`V`.* 11 rows"):
        res.apply(np.ones(14))
    with pytest.raises(ValueError, match=r"`V`.* 14 rows"):
        res.apply(np.ones(11), axis=0)
    with pytest.raises(ValueError, match="`V`"):
        res.apply(np.ones((11, 2, 2)))
    for axis in (2, -1):
        with pytest.raises(ValueError, match="`axis`"):
            res.apply(np.ones(11), axis=axis)


def test_an_axis_is_a_number(solved):
    with pytest.raises(TypeError, match="`axis`"):
        solved[0].apply(np.ones(11), axis="0")


@pytest.mark.parametrize("threshold", [0.0, 1e-12, 1e-4, 10.0])
def test_sparse_plans_have_the_entries_above_the_threshold_and_no_others(solved, threshold):
    res, P, *_ = solved
    S = res.plan_sparse(threshold)
    assert S.format == "csr"
    assert S.shape == P.shape
    expected = np.where(threshold <= P, P, 0.0)
    np.testing.assert_allclose(S.toarray(), expected, rtol=1e-12)
    assert S.nnz == np.count_nonzero(expected)


def test_an_entry_at_the_threshold_itself_is_kept(solved):
    res, *_ = solved
    np.testing.assert_array_equal(res.plan_sparse(res.plan.max()).data, [res.plan.max()])


def test_values_and_bounds_agree_with_dense_formulas(solved):
    res, P, a, b, C = solved
    assert res.value_linear == pytest.approx(oracles.linear_value(P, C), rel=1e-13)
    dual = a[a > 0] @ res.f[a > 0] + b[b > 0] @ res.g[b > 0] + 0.3 * (2 - P.sum())
    assert res.value == res.fun == res.dual == pytest.approx(dual, rel=1e-13)
    assert res.value == pytest.approx(oracles.entropic_value(P, a, b, C, 0.3), rel=1e-9)
    assert res.marginal_error == pytest.approx(oracles.marginal_error(P, a, b), rel=1e-3)
    # Each potential from the other one, in the order in which the rows lie; without mass, none.
    D, f, g = C[np.ix_(a > 0, b > 0)], res.f[a > 0], res.g[b > 0]
    if C.flags.c_contiguous:
        f = (D - g).min(axis=1)
        g = (D - f[:, None]).min(axis=0)
    else:
        g = (D - f[:, None]).min(axis=0)
        f = (D - g).min(axis=1)
    lower, upper = res.lp_bracket()
    assert lower == pytest.approx(a[a > 0] @ f + b[b > 0] @ g, rel=1e-12)
    assert upper == res.cost_rounded
    assert lower <= oracles.exact_cost(a, b, C) * (1 + 1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("tol", [1e-12, 1e-2])
@pytest.mark.parametrize("forbidden", [False, True])
def test_the_rounded_cost_is_that_of_the_rounded_plan(rng, order, tol, forbidden):
    a, b, C = oracles.cloud_problem(rng, 13, 17)
    a[3] = b[7] = 0.0
    a, b, C = 3 * a / a.sum(), 3 * b / b.sum(), np.asarray(C, order=order)
    if forbidden:
        C[rng.random(C.shape) < 0.3] = np.inf
    res = ot.sinkhorn_newton(a, b, C, reg=0.2, tol=tol)
    # In Fortran order the targets are the rows that are rounded first.
    rounded = ot.round_plan(res.plan, a, b) if order == "C" else ot.round_plan(res.plan.T, b, a).T
    expected = oracles.linear_value(rounded, C)
    assert res.cost_rounded == pytest.approx(expected, rel=1e-12)
    assert expected >= oracles.exact_cost(a, b, C) * (1 - 1e-12)
    if forbidden and tol == 1e-2:
        assert expected == np.inf  # what was missing had to use the forbidden edge too


def test_both_conventions_of_potentials_give_the_same_plan(solved):
    res, P, a, b, C = solved
    phi, psi = res.potentials_counting
    assert (phi[a == 0] == -np.inf).all()
    assert (psi[b == 0] == -np.inf).all()
    np.testing.assert_allclose(np.exp((phi[:, None] + psi - C) / 0.3), P, rtol=1e-11)
    np.testing.assert_array_equal(res.x, np.r_[res.f, res.g])


def test_the_potentials_are_split_evenly(solved):
    res, _, a, b, _ = solved
    assert a @ res.f == pytest.approx(b @ res.g, rel=1e-12)
    assert np.isfinite(res.x).all()


def test_gradients_are_the_slopes_of_the_value(rng):
    a, b, C = oracles.cloud_problem(rng, 5, 4)
    reg, t = 0.4, 1e-4
    res = ot.sinkhorn_newton(a, b, C, reg=reg, tol=1e-13)
    assert res.grad_a is res.f
    assert res.grad_b is res.g

    def slope(da=0.0, db=0.0, dC=0.0):
        up = reference.value(a + t * da, b + t * db, C + t * dC, reg)
        down = reference.value(a - t * da, b - t * db, C - t * dC, reg)
        return (up - down) / (2 * t)

    # Central differences are good to t^2 times the third derivative, about 1e-6 here.
    da, db, dC = rng.normal(size=5) * a, rng.normal(size=4) * b, rng.normal(size=C.shape)
    da -= da.sum() * a
    db -= db.sum() * b
    assert res.grad_a @ da == pytest.approx(slope(da=da), rel=1e-5, abs=1e-6)
    assert res.grad_b @ db == pytest.approx(slope(db=db), rel=1e-5, abs=1e-6)
    assert (res.grad_C * dC).sum() == pytest.approx(slope(dC=dC), rel=1e-5, abs=1e-6)
    # More mass on both sides: the even split makes the potentials its gradient too.
    up, down = (
        ot.sinkhorn_newton(s * a, s * b, C, reg=reg, tol=1e-12).value for s in (1 + t, 1 - t)
    )
    assert res.grad_a @ a + res.grad_b @ b == pytest.approx((up - down) / (2 * t), rel=1e-6)


def test_results_survive_pickling_and_copying(solved):
    res, P, *_ = solved
    for twin in (pickle.loads(pickle.dumps(res)), copy.deepcopy(res), copy.copy(res)):
        assert type(twin) is type(res)
        assert twin.certificate == res.certificate
        assert twin.status is solvers.Status.CONVERGED
        np.testing.assert_array_equal(twin.f, res.f)
        np.testing.assert_allclose(twin.plan, P, rtol=1e-12)
        assert twin.cost_rounded == res.cost_rounded
        for name, column in res.history.items():
            np.testing.assert_array_equal(twin.history[name], column)
    # A plan that was built does not travel: it can be built again.
    small = len(pickle.dumps(res))
    assert res.plan.any()
    assert len(pickle.dumps(res)) <= small + P.nbytes + 1000


def test_pickles_hold_plain_arrays_only(solved):
    text = pickle.dumps(solved[0], protocol=0)
    for word in (b"cupy", b"_Writable", b"Backend", b"_thread"):
        assert word not in text


def test_results_describe_themselves(solved):
    res, *_ = solved
    words = res.summary()
    for part in ("sinkhorn_newton", "marginal error (L1)", "dual", "primal", "final temperature"):
        assert part in words
    assert "CONVERGED (0)" in repr(res)
    assert "_data" not in repr(res)
    assert "tang2024" in res.cite()
    assert {"plan", "apply", "lp_bracket", "f", "value"} <= set(dir(res))
    assert len(repr(res).splitlines()) < 40


def test_plots_show_the_marginal_error(solved):
    pytest.importorskip("matplotlib").use("agg")
    line = solved[0].plot().get_lines()[0]
    np.testing.assert_array_equal(line.get_ydata(), solved[0].history["marginal_error"])


def test_a_plan_that_would_not_fit_is_refused_with_a_remedy(solved, monkeypatch):
    res, *_ = solved
    monkeypatch.setattr(validation, "_SMALL_ALLOCATION", 0)
    monkeypatch.setattr(validation, "_free_memory", lambda: 100)
    with pytest.raises(MemoryError, match=r"`plan`.*plan_sparse"):
        _ = res.plan


def test_the_bracket_of_an_infeasible_pattern_is_no_number_too_small(rng):
    u, C = np.full(6, 1 / 6), rng.random((6, 6))
    C[:2, :3] = C[2:, 3:] = np.inf
    assert oracles.exact_cost(u, u, C) == np.inf
    with pytest.warns(solvers.ConvergenceWarning):
        res = ot.sinkhorn_newton(u, u, C, reg=0.1, maxiter=30)
    lower, upper = res.lp_bracket()
    assert upper == np.inf
    assert np.isfinite(res.value_linear)
    assert not np.isnan(lower)


def test_the_bracket_ignores_points_without_mass(rng):
    a, b, C = oracles.cloud_problem(rng, 5, 6)
    base = ot.sinkhorn_newton(a, b, C, reg=0.1, tol=1e-10).lp_bracket()
    a, C = np.r_[a, 0.0], np.vstack([C, np.full(6, np.inf)])
    res = ot.sinkhorn_newton(a, b, C, reg=0.1, tol=1e-10)
    np.testing.assert_allclose(res.lp_bracket(), base, rtol=1e-9)


def test_masses_near_the_largest_number_do_not_overflow(rng):
    a, b, C = oracles.cloud_problem(rng, 5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        res = ot.sinkhorn_newton(1e300 * a, 1e300 * b, C, reg=0.1)
        assert res.value_linear <= res.cost_rounded * (1 + 1e-6) < np.inf


def test_results_follow_their_data_only_while_these_last(rng):
    # The result refers to the caller's arrays: documented, so that no copy of C is held.
    a, b, C = oracles.cloud_problem(rng, 5, 6)
    res = ot.sinkhorn_newton(a, b, C, reg=0.1)
    before = res.value_linear
    twin = copy.deepcopy(res)
    C[:] = 0.0
    assert twin.cost_rounded >= before * (1 - 1e-6)
    assert res.cost_rounded == 0.0
