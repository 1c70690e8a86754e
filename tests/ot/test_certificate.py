import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers import ot
from tests import oracles
from tests.ot import reference

seeds = st.integers(0, 2**32 - 1)


def candidate(rng, how):
    """A random problem with potentials of any quality: f, g, a, b, C, reg."""
    n, m = rng.integers(1, 9, size=2)
    a, b = rng.dirichlet(np.full(n, 0.5)), rng.dirichlet(np.full(m, 0.5))
    if rng.random() < 0.3:
        a[rng.integers(n)] = b[rng.integers(m)] = 0.0
        a, b = (w / w.sum() if w.any() else np.full(w.size, 1 / w.size) for w in (a, b))
    mass = 10.0 ** rng.uniform(-2, 2)
    C, reg = rng.normal(size=(n, m)), 10.0 ** rng.uniform(-2, 1)
    if how == "zero":
        f, g = np.zeros(n), np.zeros(m)
    elif how == "random":
        f, g = rng.normal(size=n), rng.normal(size=m)
    else:
        heavy = np.ix_(a > 0, b > 0)
        f, g = np.zeros(n), np.zeros(m)
        f[a > 0], g[b > 0] = reference.sinkhorn(a[a > 0], b[b > 0], C[heavy], reg, steps=200)
        f += how * rng.normal(size=n)
    return f, g, mass * a, mass * b, C, reg


@given(seeds, st.sampled_from(["zero", "random", 1e-1, 1e-3, 1e-6, 0.0]))
def test_the_value_is_the_marginal_error_of_the_rebuilt_plan(seed, how):
    f, g, a, b, C, reg = candidate(np.random.default_rng(seed), how)
    P = oracles.gibbs_plan(f, g, a, b, C, reg)
    cert = ot.certify(a, b, C, f, g, reg=reg, tol=1e-6)
    rows, cols = np.abs(P.sum(axis=1) - a).sum(), np.abs(P.sum(axis=0) - b).sum()
    mass = a.sum()
    assert cert.value == pytest.approx((rows + cols) / mass, rel=1e-9, abs=1e-13)
    assert cert.details["row_error"] == pytest.approx(rows / mass, rel=1e-9, abs=1e-13)
    assert cert.details["col_error"] == pytest.approx(cols / mass, rel=1e-9, abs=1e-13)
    assert cert.details["mass"] == pytest.approx(mass, rel=1e-14)
    assert cert.holds == (cert.value <= 1e-6 == cert.tol)


@given(seeds, st.sampled_from(["zero", "random", 1e-1, 1e-3, 1e-6, 0.0]))
def test_dual_and_primal_enclose_the_value_of_the_rounded_plan_from_both_sides(seed, how):
    f, g, a, b, C, reg = candidate(np.random.default_rng(seed), how)
    P = oracles.gibbs_plan(f, g, a, b, C, reg)
    details = ot.certify(a, b, C, f, g, reg=reg).details
    # Both sides by their definitions, densely.
    dual = a[a > 0] @ f[a > 0] + b[b > 0] @ g[b > 0] + reg * (a.sum() - P.sum())
    rounded = oracles.entropic_value(ot.round_plan(P, a, b), a, b, C, reg)
    slack = 1e-11 * (reg + np.abs(C).max() + np.abs(f).max() + np.abs(g).max()) * a.sum()
    assert details["dual"] == pytest.approx(dual, rel=1e-9, abs=slack)
    assert details["dual"] <= rounded + slack
    # The bound of one pass is at least the value of the plan that needs three.
    assert details["primal"] >= rounded - slack
    gap = details["primal"] - details["dual"]
    assert details["entropic_gap"] == pytest.approx(gap, rel=1e-12, abs=slack)


@given(seeds)
def test_the_true_value_lies_between_dual_and_primal(seed):
    rng = np.random.default_rng(seed)
    f, g, a, b, C, reg = candidate(rng, 1e-2)
    res = ot.sinkhorn_newton(a, b, C, reg=reg, tol=1e-11)
    truth = oracles.entropic_value(res.plan, a, b, C, reg)
    details = ot.certify(a, b, C, f, g, reg=reg).details
    slack = 1e-9 * (reg + np.abs(C).max()) * a.sum()
    assert details["dual"] <= truth + slack
    assert details["primal"] >= truth - slack


@pytest.mark.parametrize("reg", [0.02, 0.3])
def test_the_gap_closes_with_the_error(rng, reg):
    a, b, C = oracles.cloud_problem(rng, 15, 12)
    reg *= C.max()
    f, g = reference.sinkhorn(a, b, C, reg)
    direction = rng.normal(size=15)
    before = np.inf
    for size in (1e-1, 1e-3, 1e-5, 1e-7, 1e-9):
        cert = ot.certify(a, b, C, f + size * direction, g, reg=reg)
        gap = cert.details["entropic_gap"]
        # What is missing pays the dearest edge; -log of it is the price of mixing it in.
        worst = np.ptp(C) + np.ptp(f) + np.ptp(g) + reg * (10.0 - 3.0 * np.log(cert.value))
        assert 0 <= gap <= 1.5 * cert.value * worst
        assert gap < before / 20
        before = gap


@given(seeds, st.floats(-50, 50))
def test_only_the_sum_of_the_potentials_counts(seed, shift):
    f, g, a, b, C, reg = candidate(np.random.default_rng(seed), 1e-2)
    one = ot.certify(a, b, C, f, g, reg=reg)
    two = ot.certify(a, b, C, f + shift, g - shift, reg=reg)
    # Potentials of size 50 carry rounding of 50 eps / reg.
    assert two.value == pytest.approx(one.value, rel=1e-10, abs=1e-11)
    for name in ("dual", "primal"):
        assert two.details[name] == pytest.approx(one.details[name], rel=1e-9, abs=1e-9 * a.sum())


def test_the_judge_sees_the_transpose_alike(rng):
    f, g, a, b, C, reg = candidate(rng, 1e-3)
    one = ot.certify(a, b, C, f, g, reg=reg)
    two = ot.certify(b, a, C.T, g, f, reg=reg)
    assert two.value == pytest.approx(one.value, rel=1e-12)
    assert two.details["row_error"] == pytest.approx(one.details["col_error"], rel=1e-12)
    assert two.details["dual"] == pytest.approx(one.details["dual"], rel=1e-12)
    # The primal bound may differ: it rounds one side first. Both are bounds.
    assert two.details["primal"] >= one.details["dual"]


def test_uniform_weights_may_be_left_out(rng):
    C = rng.random((4, 6))
    f, g = reference.sinkhorn(np.full(4, 0.25), np.full(6, 1 / 6), C, 0.2)
    cert = ot.certify(None, None, C, f, g, reg=0.2)
    assert cert.holds
    assert cert.kind == "marginal error (L1)"
    assert cert.details["mass"] == 1.0


def test_potentials_where_there_is_no_mass_do_not_count(rng):
    a, b, C = oracles.cloud_problem(rng, 6, 6)
    a[0] = b[1] = 0.0
    a, b = a / a.sum(), b / b.sum()
    res = ot.sinkhorn_newton(a, b, C, reg=0.5)
    base = ot.certify(a, b, C, res.f, res.g, reg=0.5)
    for odd in (1e300, -1e300, np.inf, np.nan):
        f, g = res.f.copy(), res.g.copy()
        f[0] = g[1] = odd
        assert ot.certify(a, b, C, f, g, reg=0.5) == base


@pytest.mark.parametrize(
    "odd",
    [
        np.nan,
        np.inf,
        1e300,
        -np.inf,
    ],
)
def test_potentials_that_make_no_plan_never_pass(rng, odd):
    a, b, C = oracles.cloud_problem(rng, 5, 7)
    f, g = reference.sinkhorn(a, b, C, 0.5)
    f[2] = odd
    cert = ot.certify(a, b, C, f, g, reg=0.5, tol=1e300)
    assert not cert.holds
    assert cert.value == np.inf


@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e300])
def test_bounds_without_a_plan_are_infinite(rng, odd):
    a, b, C = oracles.cloud_problem(rng, 5, 7)
    f, g = reference.sinkhorn(a, b, C, 0.5)
    f[2] = odd
    details = ot.certify(a, b, C, f, g, reg=0.5).details
    assert (details["dual"], details["primal"]) == (-np.inf, np.inf)


def test_rounding_of_large_costs_does_not_blur_the_verdict(rng):
    a, b, _ = oracles.cloud_problem(rng, 5, 7)
    # Whole multiples of a power of two add up without rounding.
    f, g = (rng.integers(-(10**9), 10**9, size=k) * 2.0**-20 for k in (5, 7))
    # All exponents are exactly zero, so this plan is exact, whatever reg is.
    cert = ot.certify(a, b, f[:, None] + g, f, g, reg=1e-6)
    assert cert.value <= 1e-14


def test_weights_below_the_normal_range_do_not_overflow():
    a, b = np.array([1e-15, 1.0]), np.array([1e-310, 1.0])
    C = np.array([[0.0, 800.0], [800.0, 0.0]])
    # The light row goes to the light column entirely: exp(713) times 1e-325.
    f, g = np.array([-800 - np.log(1e-310), 0.0]), np.array([800.0, 0.0])
    cert = ot.certify(a, b, C, f, g, reg=1.0)
    assert cert.value == pytest.approx(1e-15, rel=0.5)


def test_forbidden_edges_leave_the_dual_a_bound(rng):
    a, b, C = oracles.cloud_problem(rng, 9, 9)
    a = b = np.full(9, 1 / 9)
    C[np.triu_indices(9, 2)] = np.inf
    f, g = reference.sinkhorn(a, b, C, 0.4)
    f += 1e-4 * rng.normal(size=9)
    cert = ot.certify(a, b, C, f, g, reg=0.4)
    truth = reference.value(a, b, C, 0.4)
    P = oracles.gibbs_plan(f, g, a, b, C, 0.4)
    assert cert.value == pytest.approx(oracles.marginal_error(P, a, b), rel=1e-9)
    assert truth - 1e-3 <= cert.details["dual"] <= truth
    assert cert.details["primal"] == np.inf  # rounding uses every edge


def test_edges_forbidden_to_points_without_mass_cost_nothing(rng):
    a, b, C = oracles.cloud_problem(rng, 6, 7)
    f, g = reference.sinkhorn(a, b, C, 0.4)
    f -= 1e-3  # so that some mass is missing
    base = ot.certify(a, b, C, f, g, reg=0.4)
    C = np.vstack([C, np.full(7, np.inf)])
    cert = ot.certify(np.r_[a, 0.0], b, C, np.r_[f, 0.0], g, reg=0.4)
    assert cert.details == pytest.approx(base.details, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("f", {"f": np.zeros(3)}),
        ("g", {"g": np.zeros((3, 1))}),
        ("reg", {"reg": 0.0}),
        ("tol", {"tol": -1.0}),
        ("C", {"C": np.zeros((3, 2))}),
        ("a", {"a": np.array([0.5, 0.6])}),
    ],
)
def test_misfits_are_refused_by_name(name, change):
    data = {"a": np.full(2, 0.5), "b": np.full(3, 1 / 3), "C": np.zeros((2, 3))}
    data |= {"f": np.zeros(2), "g": np.zeros(3), "reg": 0.1, "tol": 1e-8, **change}
    with pytest.raises(ValueError, match=f"`{name}`"):
        ot.certify(**data)


def test_nothing_that_is_judged_is_modified(rng):
    f, g, a, b, C, reg = candidate(rng, "random")
    arrays = a, b, C, f, g
    before = [x.copy() for x in arrays]
    for x in arrays:
        x.flags.writeable = False
    ot.certify(a, b, C, f, g, reg=reg)
    for x, y in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(x, y)
