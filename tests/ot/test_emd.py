import copy
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from solvers import ConvergenceWarning, Status, datasets
from solvers.ot import PointCloud, certify, emd
from solvers.ot import _emd as module
from tests import oracles

seeds = st.integers(0, 2**32 - 1)


def problem(seed, n=25, m=31):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m)), rng.random((n, m))


def check(res, a, b, C, rtol=1e-12):
    """What must hold for every plan and every pair of potentials, from first principles."""
    a, b = (np.full(k, 1 / k) if w is None else w for w, k in zip((a, b), C.shape, strict=True))
    P, mass = res.plan, a.sum()
    assert (P >= 0).all()
    assert np.count_nonzero(P) <= sum(C.shape) - 1
    assert np.abs(P.sum(axis=1) - a).sum() + np.abs(P.sum(axis=0) - b).sum() <= 1e-14 * mass
    finite = np.isfinite(C)
    assert (P[~finite] == 0).all()
    scale = mass * max(np.abs(C[finite]).max(), np.abs(res.f).max(), np.abs(res.g).max())
    assert np.isclose((P * np.where(finite, C, 0)).sum(), res.value, rtol=0, atol=rtol * scale)
    assert ((res.f[:, None] + res.g - C) <= 1e-13 * scale / mass).all()
    assert np.isclose(a @ res.f + b @ res.g, res.dual, rtol=0, atol=rtol * scale)
    assert res.dual <= res.value == res.fun
    assert res.success is res.certificate.holds


# ------------------------------------------------------------------------------ against oracles
@pytest.mark.parametrize("polish", [False, True])
@given(seed=seeds)
def test_the_suite_of_hard_problems_agrees_with_a_linear_programming_solver(polish, seed):
    a, b, C = datasets.random_transport(seed, largest=30)[:3]
    res = emd(a, b, C, polish=polish)
    assert res.success
    check(res, a, b, C)
    # HiGHS works to 1e-7 itself, and calls some problems with lighter points infeasible.
    a, b = (np.where(w > 1e-9, w, 0.0) for w in (a, b))
    scale = np.ptp(C) or 1.0
    truth = oracles.exact_cost(a / a.sum(), b / b.sum(), C)
    assume(np.isfinite(truth))
    assert res.dual - 1e-6 * scale <= truth <= res.value + 1e-6 * scale


@pytest.mark.parametrize("n", [150, 500])
def test_uniform_weights_give_an_optimal_assignment(rng, n):
    C = rng.random((n, n))
    rows, cols = linear_sum_assignment(C)
    truth = C[rows, cols].mean()
    res = emd(None, None, C, polish=True)
    assert res.success
    check(res, None, None, C)
    assert res.value == pytest.approx(truth, rel=1e-12)
    assert res.dual == pytest.approx(truth, rel=1e-10)
    assert (res.plan > 0).sum() == n


@pytest.mark.parametrize("power", [1, 2])
def test_on_a_line_the_plan_is_monotone(rng, power):
    x, y = np.sort(rng.normal(size=400)), np.sort(rng.normal(size=300))
    a, b = rng.dirichlet(np.ones(400)), rng.dirichlet(np.ones(300))
    # The quantile functions differ at the breakpoints of both.
    ends = np.sort(np.concatenate([a.cumsum(), b.cumsum()]))
    steps = np.diff(ends, prepend=0.0)
    middle = ends - 0.5 * steps
    i = np.minimum(np.searchsorted(a.cumsum(), middle), 399)
    j = np.minimum(np.searchsorted(b.cumsum(), middle), 299)
    truth = steps @ np.abs(x[i] - y[j]) ** power
    C = np.abs(x[:, None] - y) ** power
    res = emd(a, b, C)
    assert res.success
    check(res, a, b, C)
    assert res.dual * (1 - 1e-9) <= truth <= res.value * (1 + 1e-9)


def test_digits_and_colours_are_solved_from_few_edges_only():
    for data in (datasets.digits_transport(0, 1, 24, "cityblock"), datasets.color_transport(600)):
        a, b, C = data[:3]
        res = emd(a, b, C)
        assert res.success
        check(res, a, b, C)
        assert [name for name, _, _ in res.stages] == ["annealing", "support", "simplex"]


# ----------------------------------------------------------------------------------- hard data
def test_points_without_mass_get_potentials_that_bind_nobody(rng):
    a, b, C = problem(1, 300, 290)
    a[::3], b[1::4] = 0.0, 0.0
    a, b = a / a.sum(), b / b.sum()
    full = emd(a, b, C, polish=True)
    check(full, a, b, C)
    part = emd(a[a > 0], b[b > 0], C[np.ix_(a > 0, b > 0)], polish=True)
    assert full.value == pytest.approx(part.value, rel=1e-12)
    assert full.dual == pytest.approx(part.value, rel=1e-10)


def test_equal_measures_have_distance_zero(rng):
    x = rng.normal(size=(150, 2))
    a = rng.dirichlet(np.ones(150))
    res = emd(a, a, cdist(x, x))
    assert res.success
    check(res, a, a, cdist(x, x))
    assert abs(res.value) <= 1e-14 >= abs(res.dual)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (3, 400), (400, 3)])
def test_any_shape_is_fine(rng, shape):
    a, b, C = problem(3, *shape)
    res = emd(a, b, C)
    assert res.success
    check(res, a, b, C)
    assert res.value == pytest.approx(oracles.exact_cost(a, b, C), rel=1e-6)


def test_a_constant_cost_costs_that(rng):
    a, b, _ = problem(4, 200, 220)
    for constant in (0.0, -3.0):
        res = emd(a, b, np.full((200, 220), constant))
        assert res.success
        assert res.value == pytest.approx(constant, abs=1e-13)


def test_ties_everywhere_do_not_make_pivots_go_round_in_circles(rng):
    C = rng.integers(0, 3, size=(240, 240)).astype(float)
    rows, cols = linear_sum_assignment(C)
    res = emd(None, None, C, polish=True)
    assert res.success
    check(res, None, None, C)
    assert res.value == pytest.approx(C[rows, cols].mean(), abs=1e-12)


def test_weights_of_all_sizes_take_part(rng):
    a, b, C = problem(6, 120, 130)
    a *= 10.0 ** rng.uniform(-60, 0, 120)
    b *= 10.0 ** rng.uniform(-300, 0, 130)
    a, b = a / a.sum(), b / b.sum()
    res = emd(a, b, C)
    assert res.success
    check(res, a, b, C)


def test_huge_costs_beside_small_ones_do_not_spoil_the_plan(rng):
    # Where no plan needs them they are as good as forbidden.
    C = rng.random((40, 40))
    rows, cols = linear_sum_assignment(C)
    spoilt = C.copy()
    dear = rng.random((40, 40)) < 0.3
    dear[rows, cols] = False
    spoilt[dear] = 1e12
    res = emd(None, None, spoilt, polish=True)
    assert res.value == pytest.approx(C[rows, cols].mean(), rel=1e-9)


# ------------------------------------------------------------------------------ forbidden edges
def test_forbidden_edges_are_not_used(rng):
    for n, m, share in ((30, 35, 0.7), (150, 140, 0.9)):
        a, b, C = problem(7, n, m)
        allowed = C.copy()
        C[rng.random(C.shape) < share] = np.inf
        # A north-west corner keeps it feasible.
        P = emd(a, b, np.abs(np.arange(n)[:, None] / n - np.arange(m) / m)).plan
        C[P > 0] = allowed[P > 0]
        res = emd(a, b, C)
        assert res.success
        check(res, a, b, C)
        limit = np.where(np.isfinite(C), C, 1e3)
        assert res.value == pytest.approx(oracles.exact_cost(a, b, limit), rel=1e-6)


@pytest.mark.parametrize("size", [4, 120])
def test_separate_components_that_balance_are_solved(rng, size):
    C = rng.random((2 * size, 2 * size))
    C[:size, size:] = C[size:, :size] = np.inf
    res = emd(None, None, C)
    assert res.success
    check(res, None, None, C)
    parts = [emd(None, None, C[k : k + size, k : k + size]).value for k in (0, size)]
    assert res.value == pytest.approx(np.mean(parts), rel=1e-5)


@pytest.mark.parametrize("size", [4, 120])
def test_without_any_plan_the_run_ends_as_infeasible(rng, size):
    C = rng.random((2 * size, 2 * size))
    C[:size, size:] = C[size:, :size] = np.inf
    a = np.full(2 * size, 0.5 / size)
    a[0] *= 2.0
    with pytest.warns(ConvergenceWarning, match="forbidden"):
        res = emd(a / a.sum(), None, C)
    assert res.status == Status.INFEASIBLE
    assert not res.success
    assert res.value == np.inf
    assert np.isfinite(res.f).all()
    assert np.isfinite(res.g).all()


def test_a_row_without_any_edge_is_infeasible(rng):
    a, b, C = problem(8)
    C[3] = np.inf
    with pytest.warns(ConvergenceWarning):
        res = emd(a, b, C)
    assert res.status == Status.INFEASIBLE


# ----------------------------------------------------------------------------------- invariances
def test_units_shifts_and_the_order_of_points_do_not_matter(rng):
    a, b, C = problem(9, 130, 120)
    ref = emd(a, b, C, polish=True)
    u, v = rng.normal(size=130), rng.normal(size=120)
    tilted = emd(a, b, C + u[:, None] + v, polish=True)
    assert tilted.value == pytest.approx(ref.value + a @ u + b @ v, abs=1e-12)
    scaled = emd(20.0 * a, 20.0 * b, 1e5 * C, polish=True)
    assert scaled.value == pytest.approx(2e6 * ref.value, rel=1e-11)
    check(scaled, 20.0 * a, 20.0 * b, 1e5 * C)
    turned = emd(b, a, C.T, polish=True)
    assert turned.value == pytest.approx(ref.value, rel=1e-11)
    i, j = rng.permutation(130), rng.permutation(120)
    mixed = emd(a[i], b[j], C[np.ix_(i, j)], polish=True)
    assert mixed.value == pytest.approx(ref.value, rel=1e-11)
    np.testing.assert_allclose(mixed.plan, ref.plan[np.ix_(i, j)], atol=1e-14)


def test_fortran_order_changes_nothing_but_the_way(rng):
    a, b, C = problem(10, 130, 170)
    res = emd(a, b, np.asfortranarray(C), polish=True)
    check(res, a, b, C)
    np.testing.assert_allclose(res.plan, emd(a, b, C, polish=True).plan, atol=1e-14)


@pytest.mark.parametrize("shape", [(40, 50), (190, 180)])
def test_float32_comes_back_and_is_certified(shape):
    a, b, C = (x.astype(np.float32) for x in problem(11, *shape))
    res = emd(a, b, C, gap=1e-5)
    assert res.success
    assert {x.dtype for x in (res.f, res.g, res.plan, res.apply(b))} == {np.dtype(np.float32)}
    double = emd(*(x.astype(float) for x in (a, b, C)))
    assert res.value == pytest.approx(double.value, rel=1e-5)


def test_a_cloud_gives_what_its_matrix_gives(rng):
    x, y = rng.normal(size=(180, 3)), rng.normal(size=(190, 3)) + 0.5
    cloud, C = emd(None, None, PointCloud(x, y)), cdist(x, y, "sqeuclidean")
    assert cloud.success
    check(cloud, None, None, C)
    assert cloud.value == pytest.approx(emd(None, None, C).value, rel=2e-6)


# ------------------------------------------------------------------------------- how runs end
def test_polish_goes_on_where_the_gap_would_do():
    a, b, C = datasets.color_transport(500, rng=1)[:3]
    loose = emd(a, b, C, gap=0.5)
    exact = emd(a, b, C, gap=0.5, polish=True)
    assert loose.success
    assert exact.nit > loose.nit
    assert exact.certificate.value < 1e-12 < loose.certificate.value


def test_gap_is_what_the_certificate_is_held_to():
    a, b, C = problem(12)
    for gap in (1e-2, 1e-9):
        assert emd(a, b, C, gap=gap).certificate.tol == gap
    with pytest.warns(ConvergenceWarning):
        res = emd(a, b, C, gap=1e-300)
    assert res.status == Status.STALLED


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"maxiter": 1}, Status.MAXITER),
        ({"maxiter": 4}, Status.MAXITER),
        ({"time_limit": 1e-9}, Status.TIME_LIMIT),
    ],
)
def test_a_run_cut_short_returns_a_feasible_plan_and_an_honest_gap(options, status):
    a, b, C = problem(13, 180, 190)
    with pytest.warns(ConvergenceWarning):
        res = emd(a, b, C, **options)
    assert res.status == status
    check(res, a, b, C)
    truth = emd(a, b, C).value
    assert res.dual <= truth * (1 + 1e-6) <= res.value * (1 + 2e-6)
    assert res.certificate.value == pytest.approx((res.value - res.dual) / res.value)


def test_the_clock_stops_pivots_too(monkeypatch):
    monkeypatch.setattr("solvers.ot._simplex.CHUNK", 3)
    a, b, C = problem(14, 60, 70)
    seen = []

    def late(self):
        seen.append(1)
        return len(seen) > 5

    monkeypatch.setattr("solvers._core.monitor.Monitor.late", property(late))
    with pytest.warns(ConvergenceWarning):
        res = emd(a, b, C)
    assert res.status == Status.TIME_LIMIT
    check(res, a, b, C)


def test_a_callback_sees_feasible_potentials_and_can_end_the_run():
    a, b, C = problem(15, 180, 190)
    seen = []

    def look(intermediate_result):
        seen.append(intermediate_result)
        return len(seen) == 3

    res = emd(a, b, C, callback=look)
    assert res.status == Status.CALLBACK
    assert [s.nit for s in seen] == [1, 2, 3]
    for s in seen:
        assert ((s.f[:, None] + s.g - C) <= 1e-12).all()
    check(res, a, b, C)


def test_history_shows_the_gap_from_the_first_pass_on():
    a, b, C = problem(16, 180, 190)
    res = emd(a, b, C)
    assert len(res.history["lp_gap"]) == res.nit == len(res.history["fun"])
    assert res.history["lp_gap"][-1] <= 1e-6
    assert len(emd(a, b, C, history=2).history["nit"]) < res.nit


@pytest.mark.parametrize("how", ["x0", "pair", "g0", "f0"])
@pytest.mark.parametrize("shape", [(40, 50), (300, 310)])
def test_starting_from_the_solution_takes_two_passes_at_most(how, shape):
    a, b, C = problem(17, *shape)
    ref = emd(a, b, C, polish=True)
    start = {
        "x0": {"x0": ref},
        "pair": {"x0": (ref.f, ref.g)},
        "g0": {"g0": ref.g},
        "f0": {"f0": ref.f},
    }[how]
    res = emd(a, b, C, **start)
    assert res.success
    assert res.nit <= 2
    assert res.value == pytest.approx(ref.value, rel=1e-6)


# ---------------------------------------------------------------------------------- the result
def test_all_ways_to_the_plan_agree(rng):
    a, b, C = problem(18, 190, 180)
    for cost in (C, np.asfortranarray(C)):
        res = emd(3.0 * a, 3.0 * b, cost)
        P = res.plan
        np.testing.assert_array_equal(res.plan_sparse().toarray(), P)
        assert res.plan_sparse(np.median(P[P > 0])).nnz < res.plan_sparse().nnz
        V = rng.normal(size=(180, 2))
        np.testing.assert_allclose(res.apply(V), P @ V, atol=1e-14)
        np.testing.assert_allclose(res.apply(a, axis=0), P.T @ a, atol=1e-14)
        assert res.lp_bracket() == (res.dual, res.value)
        assert res.value_linear == res.cost_rounded == res.value
        assert res.reg == 0.0
        assert res.potentials_counting[0] is res.f
        np.testing.assert_array_equal(res.grad_C, P)
        for back in (pickle.loads(pickle.dumps(res)), copy.deepcopy(res)):
            np.testing.assert_array_equal(back.plan, P)
        with pytest.raises(ValueError, match=r"^`V`"):
            res.apply(np.ones(7))
        with pytest.raises(ValueError, match=r"^`axis`"):
            res.apply(V, axis=2)
        for name in ("grad_x", "grad_y", "grad_reg"):
            with pytest.raises(NotImplementedError, match="positive"):
                getattr(res, name)
        with pytest.raises(NotImplementedError, match="positive"):
            res.vjp(df=a)


def test_potentials_are_the_slopes_of_the_value(rng):
    # Exact plans are piecewise constant, so differences are exact slopes inside a piece.
    a, b, C = problem(19, 12, 9)
    res, h = emd(a, b, C, polish=True), 1e-6
    P = res.plan
    for i, k in ((0, 1), (4, 7)):
        moved = a.copy()
        moved[i] += h
        moved[k] -= h
        slope = (emd(moved, b, C, polish=True).value - res.value) / h
        assert slope == pytest.approx(res.grad_a[i] - res.grad_a[k], abs=1e-7)
    dearer = C.copy()
    i, j = np.unravel_index(P.argmax(), P.shape)
    dearer[i, j] += h
    assert (emd(a, b, dearer, polish=True).value - res.value) / h == pytest.approx(
        P[i, j], abs=1e-7
    )


def test_nothing_of_the_callers_is_modified():
    a, b, C = problem(20, 190, 180)
    copies = [x.copy() for x in (a, b, C)]
    for x in (a, b, C):
        x.flags.writeable = False
    emd(a, b, C)
    for x, y in zip((a, b, C), copies, strict=True):
        np.testing.assert_array_equal(x, y)


# --------------------------------------------------------------------------------- the judge
@given(seeds)
def test_the_linear_certificate_encloses_the_optimum_whatever_it_is_given(seed):
    rng = np.random.default_rng(seed)
    a, b, C = problem(seed, *rng.integers(2, 9, size=2))
    if rng.random() < 0.5:
        C = C - 0.5
    mass = 10.0 ** rng.uniform(-2, 2)
    P = mass * rng.dirichlet(np.ones(C.size)).reshape(C.shape) * rng.uniform(0.5, 1.5)
    g = rng.normal(size=b.size)
    cert = certify(mass * a, mass * b, C, 0 * a, g, reg=0, P=P)
    truth = mass * oracles.exact_cost(a, b, C)
    slack = 1e-6 * mass
    assert cert.details["dual"] <= truth + slack
    assert cert.details["primal"] >= truth - slack
    assert cert.details["dual"] == pytest.approx(mass * (a @ (C - g).min(axis=1) + b @ g))
    assert cert.details["row_error"] == pytest.approx(np.abs(P.sum(axis=1) - mass * a).sum())
    assert cert.details["col_error"] == pytest.approx(np.abs(P.sum(axis=0) - mass * b).sum())
    for other in (sp.csr_array(P), sp.coo_matrix(P)):
        again = certify(mass * a, mass * b, C, 0 * a, g, reg=0, P=other)
        assert again.value == pytest.approx(cert.value, rel=1e-12)
    turned = certify(mass * b, mass * a, np.asfortranarray(C.T), g, 0 * a, reg=0, P=P.T)
    assert turned.value == pytest.approx(cert.value, rel=1e-12)


def test_the_linear_certificate_charges_what_rounding_the_plan_costs(rng):
    from solvers.ot import round_plan

    a, b, C = problem(21, 12, 15)
    P = a[:, None] * b * rng.uniform(0.8, 1.2, size=C.shape)
    cert = certify(a, b, C, 0 * a, 0 * b, reg=0, P=P)
    assert cert.details["primal"] == pytest.approx((round_plan(P, a, b) * C).sum(), rel=1e-12)


def test_bounds_stand_in_exact_arithmetic():
    from fractions import Fraction

    a, b, C = problem(22, 9, 11)
    C = C + 1e3  # so that rounding is large beside the differences
    res = emd(a, b, C, polish=True)
    exact = [[Fraction(x) for x in row] for row in C]
    P = [[Fraction(x) for x in row] for row in res.plan]
    value = sum(
        p * c for ps, cs in zip(P, exact, strict=True) for p, c in zip(ps, cs, strict=True)
    )
    assert Fraction(res.value) >= value
    g = [Fraction(x) for x in res.g]
    dual = sum(
        Fraction(w) * min(c - x for c, x in zip(cs, g, strict=True))
        for w, cs in zip(a, exact, strict=True)
    ) + sum(Fraction(w) * x for w, x in zip(b, g, strict=True))
    assert Fraction(res.dual) <= dual


def test_missing_mass_on_forbidden_edges_costs_infinitely_much():
    C = np.array([[0.0, np.inf], [np.inf, 0.0]])
    half = np.array([0.5, 0.5])
    assert certify(half, half, C, half, half, reg=0, P=np.diag(half)).holds
    cert = certify(half, half, C, half, half, reg=0, P=np.diag([0.4, 0.4]))
    assert cert.value == np.inf == cert.details["primal"]


def test_potentials_that_are_not_finite_prove_nothing():
    a, b, C = problem(23, 4, 5)
    cert = certify(a, b, C, a, np.full(5, np.nan), reg=0, P=a[:, None] * b)
    assert cert.value == np.inf
    assert not cert.holds


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("reg", ValueError, {"reg": 0}),
        ("P", ValueError, {"reg": 0.1, "P": np.full((2, 3), 1 / 6)}),
        ("P", ValueError, {"reg": 0, "P": np.full((3, 2), 1 / 6)}),
        ("P", ValueError, {"reg": 0, "P": sp.csr_array(np.full((3, 2), 1 / 6))}),
        ("P", ValueError, {"reg": 0, "P": np.full((2, 3), -1.0)}),
        ("P", ValueError, {"reg": 0, "P": sp.csr_array(np.full((2, 3), -1.0))}),
        ("P", ValueError, {"reg": 0, "P": np.full((2, 3), np.nan)}),
        ("P", TypeError, {"reg": 0, "P": np.full((2, 3), 1j)}),
        ("P", TypeError, {"reg": 0, "P": sp.csr_array(np.full((2, 3), 1j))}),
        ("P", ValueError, {"reg": 0, "P": np.full((2, 3), 1 / 6), "reg_m": 1.0}),
    ],
)
def test_wrong_arguments_of_the_linear_certificate_are_named(name, kind, options):
    with pytest.raises(kind, match=f"^`{name}`"):
        certify(None, None, np.ones((2, 3)), np.ones(2), np.ones(3), **options)


# --------------------------------------------------------------------------------- arguments
BAD = [
    ("a", ValueError, {"a": [0.5, -0.5]}),
    ("a", ValueError, {"a": [0.5, 0.6]}),
    ("a", ValueError, {"a": [0.0, 0.0]}),
    ("a", ValueError, {"a": []}),
    ("b", ValueError, {"b": [[0.3, 0.3, 0.4]]}),
    ("C", ValueError, {"C": np.full((2, 3), np.nan)}),
    ("C", ValueError, {"C": np.full((2, 3), -np.inf)}),
    ("C", TypeError, {"C": None}),
    ("C", TypeError, {"C": np.full((2, 3), 1j)}),
    ("C", TypeError, {"C": sp.csr_array(np.ones((2, 3)))}),
    ("C", TypeError, {"C": [["a", "b", "c"], ["d", "e", "f"]]}),
    ("gap", ValueError, {"gap": 0.0}),
    ("gap", ValueError, {"gap": np.nan}),
    ("gap", TypeError, {"gap": "small"}),
    ("polish", TypeError, {"polish": 1}),
    ("maxiter", ValueError, {"maxiter": 0}),
    ("maxiter", TypeError, {"maxiter": 1.5}),
    ("time_limit", ValueError, {"time_limit": -1.0}),
    ("callback", TypeError, {"callback": 3}),
    ("progress", TypeError, {"progress": "yes"}),
    ("history", TypeError, {"history": "yes"}),
    ("n_threads", ValueError, {"n_threads": 0}),
    ("x0", TypeError, {"x0": 3}),
    ("x0", ValueError, {"x0": ([0.0, 0.0], [0.0, 0.0])}),
    ("x0", ValueError, {"x0": ([0.0, 0.0], [0.0, 0.0, 0.0]), "g0": [0.0, 0.0, 0.0]}),
    ("f0", ValueError, {"f0": [0.0]}),
    ("g0", ValueError, {"g0": [0.0, np.nan, 0.0]}),
]


@pytest.mark.parametrize(("name", "kind", "change"), BAD)
def test_bad_arguments_are_named(name, kind, change):
    data = {"a": [0.5, 0.5], "b": [0.3, 0.3, 0.4], "C": np.ones((2, 3)), **change}
    with pytest.raises(kind, match=f"^`{name}`"):
        emd(data.pop("a"), data.pop("b"), data.pop("C"), **data)


def test_a_good_run_is_silent(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        emd(*problem(24, 180, 190))
        emd(*problem(24), progress=True, n_threads=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "emd" in captured.err


def test_annealing_that_ends_early_does_no_harm(monkeypatch):
    monkeypatch.setattr(module, "MOST_PASSES", 1)
    a, b, C = problem(25, 180, 190)
    res = emd(a, b, C)
    assert res.success
    check(res, a, b, C)


def test_annealing_that_breaks_down_does_no_harm(monkeypatch):
    solve = module.Descent.solve

    def broken(self, *args, **options):
        answer = solve(self, *args, **options)
        answer.g[3] = np.nan
        return answer

    monkeypatch.setattr(module.Descent, "solve", broken)
    a, b, C = problem(26, 180, 190)
    res = emd(a, b, C)
    assert res.success
    check(res, a, b, C)


def test_no_gap_is_known_to_be_zero():
    # Of many small problems, the sums of some agree to the last bit.
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b = rng.dirichlet(np.ones(5), 2)
        with pytest.warns(ConvergenceWarning, match="maxiter"):
            res = emd(a, b, rng.random((5, 5)), gap=1e-300, maxiter=1)
        assert res.status == Status.MAXITER
