import copy
import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import solvers
from solvers import datasets, ot
from solvers._core.backend import get_backend
from solvers.ot import _gibbs, _sinkhorn
from solvers.ot._problem import check_transport
from tests import oracles
from tests.ot import reference

PLAIN = ["kernel", "log", "stabilized"]
FASTER = ["overrelaxed", "anderson"]
METHODS = [*PLAIN, *FASTER, "auto"]
seeds = st.integers(0, 2**32 - 1)


def solve(a, b, C, **options):
    """Solve, and hold the answer to its promise before any test looks at it."""
    res = ot.sinkhorn(a, b, C, **options)
    assert res.success, res.message
    P = oracles.gibbs_plan(res.f, res.g, a, b, C, res.reg)
    assert oracles.marginal_error(P, a, b) <= res.certificate.tol * 1.001 * np.sum(a) + 1e-13
    return res


@pytest.mark.parametrize("method", PLAIN)
def test_iterations_are_those_of_the_textbook(rng, method):
    a, b, C = oracles.cloud_problem(rng, 9, 12)
    reg = 0.05 * C.max()
    seen = []
    with pytest.warns(solvers.ConvergenceWarning):
        ot.sinkhorn(a, b, C, reg=reg, method=method, maxiter=30, tol=1e-13, callback=seen.append)
    # The first iteration makes the rows exact for g = 0; the textbook then updates the columns.
    expected = [g for _, g in reference.sinkhorn_steps(a, b, C, reg, 29)]
    expected.insert(0, np.zeros(12))
    assert len(seen) == 30
    for now, g in zip(seen, expected, strict=True):
        difference = now.g - g
        np.testing.assert_allclose(difference, difference.mean(), rtol=0, atol=1e-11 * C.max())
        P = oracles.gibbs_plan(now.f, now.g, a, b, C, reg)
        np.testing.assert_allclose(P.sum(axis=1), a, rtol=1e-9)
        assert now.marginal_error == pytest.approx(oracles.marginal_error(P, a, b), rel=1e-6)
        assert now.fun == pytest.approx(a @ now.f + b @ now.g, rel=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_all_methods_reach_the_fixed_point(rng, method, dtype):
    a, b, C = (x.astype(dtype) for x in oracles.cloud_problem(rng, 15, 10))
    res = solve(a, b, C, reg=0.5, method=method)
    assert res.f.dtype == res.plan.dtype == dtype
    a, b, C = (x.astype(float) for x in (a, b, C))
    f, g = reference.sinkhorn(a, b * (a.sum() / b.sum()), C, 0.5)
    exact = oracles.gibbs_plan(f, g, a, b, C, 0.5)
    assert np.abs(res.plan - exact).sum() <= (1e-7 if dtype == "float64" else 1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_potentials_may_spread_over_thousands_of_reg(rng, method):
    a, b, C = oracles.cloud_problem(rng, 8, 9)
    u, v = 5000 * rng.random(8), 5000 * rng.random(9)
    # exp(-C / reg) is 0 nearly everywhere, and yet this is an easy problem in disguise.
    res = solve(a, b, C + u[:, None] + v, reg=2.0, method=method)
    easy = solve(a, b, C, reg=2.0, method=method)
    np.testing.assert_allclose(res.plan, easy.plan, rtol=0, atol=1e-8)


def test_the_kernel_method_breaks_down_where_its_factors_leave_the_range(rng):
    C = rng.random((24, 24))
    with pytest.warns(solvers.ConvergenceWarning, match="breakdown") as seen:
        res = ot.sinkhorn(None, None, C, reg=1e-4, method="kernel")
    assert len(seen) == 1
    assert res.status is solvers.Status.NUMERICAL
    assert not res.success
    assert np.isfinite(res.x).all()
    assert res.certificate.value < 0.2  # the last iterate that was finite
    with pytest.warns(solvers.ConvergenceWarning):
        res = ot.sinkhorn(None, None, C, reg=1e-4, method="stabilized", maxiter=2000)
    assert res.status is not solvers.Status.NUMERICAL


@pytest.mark.parametrize("seed", [301, 303, 328])
def test_a_breakdown_leaves_finite_potentials(seed):
    p = datasets.random_transport(seed, largest=60)
    with pytest.warns(solvers.ConvergenceWarning, match="breakdown"):
        res = ot.sinkhorn(p.a, p.b, p.C, reg=p.reg, method="kernel")
    assert np.isfinite(res.x).all()


def test_stabilisation_renews_the_kernel_when_its_factors_have_grown(rng, monkeypatch):
    a, b, C = oracles.cloud_problem(rng, 8, 8)
    passes = []
    run = _gibbs.Passes.run
    monkeypatch.setattr(
        _gibbs.Passes, "run", lambda *args, **kw: passes.append(1) or run(*args, **kw)
    )
    monkeypatch.setitem(_sinkhorn.ABSORB, np.dtype(np.float64), 50.0)
    counts = {}
    for method in ("kernel", "stabilized", "log"):
        passes.clear()
        counts[method] = solve(a, b, C, reg=C.max() / 300, method=method, tol=1e-3).nit
        counts[method, "passes"] = len(passes)
    assert counts["kernel", "passes"] == 1
    assert 1 < counts["stabilized", "passes"] < counts["stabilized"] / 2
    assert counts["log", "passes"] == counts["log"]


@given(seeds, st.sampled_from(PLAIN))
def test_the_dual_never_falls_and_stays_below_the_value(seed, method):
    rng = np.random.default_rng(seed)
    a, b, C = oracles.cloud_problem(rng, *rng.integers(2, 12, size=2))
    reg = 0.1 * C.max()
    h = ot.sinkhorn(a, b, C, reg=reg, method=method, tol=1e-6).history
    best = ot.sinkhorn_newton(a, b, C, reg=reg, tol=1e-12).value
    slack = 1e-13 * C.max()
    assert np.diff(h["fun"]).min(initial=0.0) >= -slack
    assert h["fun"].max() <= best + slack
    # Each iteration gains at least what Pinsker's inequality promises for the columns.
    gains, errors = np.diff(h["fun"]), h["marginal_error"][:-1]
    assert np.all(gains >= reg * errors**2 / 2 - slack)


@pytest.mark.parametrize("method", METHODS)
def test_forbidden_edges_and_points_without_mass_are_fine(rng, method):
    a, b, C = oracles.cloud_problem(rng, 10, 10)
    a[2] = b[5] = 0.0
    a, b = 5 * a / a.sum(), 5 * b / b.sum()
    C[0, 1] = C[3, 3] = C[2] = np.inf
    res = solve(a, b, C, reg=1.0, method=method)
    assert np.isfinite(res.x).all()
    assert res.plan[np.isinf(C)].sum() == 0.0
    twin = ot.sinkhorn_newton(a, b, C, reg=1.0)
    np.testing.assert_allclose(res.plan, twin.plan, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("forbidden", [np.s_[:, 2], np.s_[1]], ids=["column", "row"])
def test_a_point_without_any_edge_ends_the_run_unsolved_and_finite(rng, method, forbidden):
    C = rng.random((5, 5))
    C[forbidden] = np.inf
    with pytest.warns(solvers.ConvergenceWarning) as seen:
        res = ot.sinkhorn(None, None, C, reg=0.1, method=method, maxiter=20)
    assert len(seen) == 1
    assert not res.success
    assert np.isfinite(res.x).all()


def test_the_log_domain_stands_in_where_the_kernel_would_not_fit(rng, monkeypatch):
    a, b, C = oracles.cloud_problem(rng, 6, 7)
    usual = solve(a, b, C, reg=1.0)
    monkeypatch.setattr(_gibbs.Passes, "_fits", lambda self: False)
    monkeypatch.setattr(_gibbs.Passes, "_stored", None)  # calling it would fail
    res = solve(a, b, C, reg=1.0)
    np.testing.assert_allclose(res.plan, usual.plan, rtol=0, atol=1e-8)
    assert abs(res.nit - usual.nit) <= 1


@pytest.mark.parametrize("method", FASTER)
def test_accelerations_run_by_passes_where_the_kernel_would_not_fit(rng, monkeypatch, method):
    a, b, C = oracles.cloud_problem(rng, 16, 17)
    usual = solve(a, b, C, reg=0.2, method=method)
    monkeypatch.setattr(_gibbs.Passes, "_fits", lambda self: False)
    monkeypatch.setattr(_gibbs.Passes, "_stored", None)  # calling it would fail
    res = solve(a, b, C, reg=0.2, method=method)
    np.testing.assert_allclose(res.plan, usual.plan, rtol=0, atol=1e-7)
    assert abs(res.nit - usual.nit) <= 3


def test_what_a_pass_returns_belongs_to_the_potentials_it_has_mended():
    u, v = np.full(9, 1 / 9), np.full(12, 1 / 12)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        # So far off that columns underflow, and in a few of these cases do so again once they
        # have been set.
        C, h = 100.0 * rng.random((9, 12)), 100.0 * rng.normal(size=12)
        passes = _gibbs.Passes(check_transport(None, None, C)[0], True, number=np.float64)
        sums, _ = passes.run(h, 1.0, cutoff=0.0)
        P = oracles.gibbs_plan(passes.f, h, u, v, C, 1.0)
        np.testing.assert_allclose(P.sum(axis=0), sums, rtol=1e-6, atol=1e-300)


@pytest.fixture(scope="module")
def slow():
    """A problem on which plain sweeps crawl, its answer, and how many of them it takes."""
    p = datasets.digits_transport(side=14)
    reg = 1e-3 * p.C.max()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solvers.ConvergenceWarning)
        plain = ot.sinkhorn(p.a, p.b, p.C, reg=reg, method="stabilized", maxiter=3000)
    assert plain.nit > 700
    return p, reg, plain


@pytest.mark.parametrize(("method", "share"), [("overrelaxed", 0.2), ("anderson", 0.4)])
def test_accelerations_take_a_fraction_of_the_sweeps_of_a_slow_case(slow, method, share):
    p, reg, plain = slow
    res = solve(p.a, p.b, p.C, reg=reg, method=method)
    assert res.nit < share * plain.nit
    assert res.nsinkhorn == res.nit
    twin = ot.sinkhorn_newton(p.a, p.b, p.C, reg=reg, tol=1e-11)
    assert np.abs(res.plan - twin.plan).sum() <= 1e-5
    assert res.method == f"sinkhorn ({method})"


def test_over_relaxation_is_as_fast_as_that_of_both_halves_at_the_best_factor(slow):
    p, reg, _ = slow
    res = solve(p.a, p.b, p.C, reg=reg, method="overrelaxed", tol=1e-10)
    # What the best factor is follows from the solution, which a solver does not know.
    P = ot.sinkhorn_newton(p.a, p.b, p.C, reg=reg, tol=1e-12).plan
    links = P / np.sqrt(np.outer(p.a, p.b))
    rate = np.linalg.svd(links, compute_uv=False)[1] ** 2
    omega = 2 / (1 + np.sqrt(1 - rate))
    published = reference.overrelaxed_sinkhorn(p.a, p.b, p.C, reg, omega, 1e-10)
    assert res.nit <= 1.6 * published


def test_auto_is_over_relaxed(slow):
    p, reg, _ = slow
    auto, named = (solve(p.a, p.b, p.C, reg=reg, method=m) for m in ("auto", "overrelaxed"))
    assert auto.nit == named.nit
    assert auto.method == named.method
    np.testing.assert_array_equal(auto.f, named.f)
    assert "thibault2021" in auto.cite()
    assert "cuturi2013" in auto.cite()


@pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
@given(seeds, st.sampled_from(FASTER))
def test_accelerations_never_end_worse_than_plain_sweeps(seed, method):
    p = datasets.random_transport(seed, largest=40)
    plain, res = (
        ot.sinkhorn(p.a, p.b, p.C, reg=p.reg, method=m, maxiter=400)
        for m in ("stabilized", method)
    )
    assert res.success >= plain.success
    if not res.success:
        assert res.certificate.value <= 1.01 * plain.certificate.value
    # Before the rate is known, or when steps were in vain, a few more.
    assert res.nit <= 1.3 * plain.nit + 20


def test_a_factor_that_is_too_large_is_taken_back(slow, monkeypatch):
    p, reg, plain = slow
    # Believe in the first estimate that there is no gap at all.
    monkeypatch.setattr(_sinkhorn, "TRUST", np.inf)
    monkeypatch.setattr(_sinkhorn, "LEAST_GAP", 1e-12)
    original, looks = _sinkhorn.Overrelaxation._adapt, []

    def too_bold(self, rate):
        looks.append(rate)
        original(self, 1.0 - 1e-9 if len(looks) == 1 else rate)

    monkeypatch.setattr(_sinkhorn.Overrelaxation, "_adapt", too_bold)
    res = solve(p.a, p.b, p.C, reg=reg, method="overrelaxed", maxiter=3000)
    assert res.nit < plain.nit


def test_a_combination_that_lowers_the_dual_is_taken_back(rng):
    steps = _sinkhorn.AndersonMixing(get_backend("numpy"), np.full(5, 0.2), 1e-12)
    first, second, third = (
        _sinkhorn.Sweep(rng.normal(size=5), rng.normal(size=5), 1.0, dual)
        for dual in (0.0, 1.0, 0.5)
    )
    np.testing.assert_array_equal(steps.next(first), first.log_v + first.mismatch)
    assert np.abs(steps.next(second) - (second.log_v + second.mismatch)).max() > 1e-3
    # Back to where the dual was higher, by a plain step, wherever factors are counted from.
    twin = copy.copy(steps)
    np.testing.assert_array_equal(steps.next(third), second.log_v + second.mismatch)
    twin.shift(second.log_v)
    np.testing.assert_array_equal(twin.next(third), second.mismatch)


def test_plain_steps_are_never_taken_back(rng):
    # Else rounding errors of the dual could hold the method where it is for ever.
    b, be = np.full(5, 0.2), get_backend("numpy")
    steps = _sinkhorn.AndersonMixing(be, b, 1e-12)
    first, second = (
        _sinkhorn.Sweep(rng.normal(size=5), rng.normal(size=5), 1.0, dual) for dual in (1.0, 0.5)
    )
    steps.next(first)
    assert np.abs(steps.next(second) - (first.log_v + first.mismatch)).max() > 1e-3


def test_combinations_go_no_further_than_can_be_trusted(rng):
    b, be = np.full(5, 0.2), get_backend("numpy")
    steps = _sinkhorn.AndersonMixing(be, b, 1e-12)
    mismatch = rng.normal(size=5)
    # Nearly the same mismatch after a short step: the combination of both aims far away.
    steps.next(_sinkhorn.Sweep(np.zeros(5), mismatch, 1.0, 0.0))
    end = steps.next(_sinkhorn.Sweep(0.01 * mismatch, (1 - 1e-5) * mismatch, 1.0, 1.0))
    move = end - 0.01 * mismatch
    assert np.abs(move).max() == pytest.approx(_sinkhorn.LONGEST_STEP, rel=1e-12)
    np.testing.assert_allclose(move / np.abs(move).max(), mismatch / np.abs(mismatch).max())


def test_single_precision_is_accelerated_too(slow):
    p, reg, plain = slow
    a, b, C = (x.astype("float32") for x in p[:3])
    for method in FASTER:
        res = solve(a, b, C, reg=reg, method=method, tol=1e-4)
        assert res.nit < plain.nit / 4
        assert res.f.dtype == "float32"


def test_combinations_solve_linear_problems_of_few_dimensions_at_once(rng):
    b, be = rng.dirichlet(np.ones(6)), get_backend("numpy")
    steps = _sinkhorn.AndersonMixing(be, b, 1e-12)
    # A map with three different rates ends after so many differences.
    rates = np.array([0.9, 0.9, 0.5, 0.5, 0.99, 0.99])
    x = rng.normal(size=6)
    for _ in range(5):
        x = steps.next(_sinkhorn.Sweep(x, (rates - 1) * x, 1.0, 0.0))
    assert np.abs(x).max() <= 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_warm_starts_go_on_where_the_last_run_ended(rng, method):
    a, b, C = oracles.cloud_problem(rng, 10, 14)
    res = solve(a, b, C, reg=0.5, method=method)
    for start in ({"x0": res}, {"x0": (res.f, res.g)}, {"f0": res.f}, {"g0": res.g - 3.0}):
        assert solve(a, b, C, reg=0.5, method=method, **start).nit <= 2
    if method not in PLAIN:
        return  # what has been learnt of the rate is not part of a result
    with pytest.warns(solvers.ConvergenceWarning):
        half = ot.sinkhorn(a, b, C, reg=0.5, method=method, maxiter=res.nit // 2)
    rest = solve(a, b, C, reg=0.5, method=method, x0=half)
    assert half.nit + rest.nit <= res.nit + 2
    with pytest.raises(ValueError, match="`x0`"):
        ot.sinkhorn(a, b, C, reg=0.5, x0=res, g0=res.g)


def test_every_status_comes_with_its_sentence_and_at_most_one_warning(rng):
    a, b, C = oracles.cloud_problem(rng, 10, 14)
    for status, options in {
        solvers.Status.MAXITER: {"maxiter": 3},
        solvers.Status.TIME_LIMIT: {"time_limit": 1e-9},
        solvers.Status.STALLED: {"tol": 1e-17},
    }.items():
        with pytest.warns(solvers.ConvergenceWarning) as seen:
            res = ot.sinkhorn(a, b, C, **{"reg": 0.5, "tol": 1e-12, **options})
        assert len(seen) == 1
        assert seen[0].filename == __file__
        assert res.status is status
        assert not res.success
        assert np.isfinite(res.x).all()
    assert len(res.history["nit"]) == res.nit
    ended = ot.sinkhorn(a, b, C, reg=0.5, callback=lambda now: now.nit == 4)
    assert (ended.status, ended.nit) == (solvers.Status.CALLBACK, 4)


def test_history_has_a_row_for_every_iteration_or_every_few(rng):
    a, b, C = oracles.cloud_problem(rng, 10, 14)
    full = solve(a, b, C, reg=0.5)
    np.testing.assert_array_equal(full.history["nit"], np.arange(1, full.nit + 1))
    some = solve(a, b, C, reg=0.5, history=7)
    assert set(some.history["nit"]) == {*range(1, full.nit + 1, 7), full.nit}
    assert full.nsinkhorn == full.nit
    assert (full.nnewton, full.ncg, full.levels) == (0, 0, [0.5])
    assert "cuturi2013" in full.cite()


def test_values_are_those_of_the_newton_method(rng):
    a, b, C = oracles.cloud_problem(rng, 10, 14)
    for kind in ("kl", "entropy"):
        one = solve(a, b, C, reg=0.4, reg_scale="std", reg_type=kind, tol=1e-10)
        two = ot.sinkhorn_newton(a, b, C, reg=one.reg, reg_type=kind, tol=1e-10)
        assert one.value == pytest.approx(two.value, rel=1e-12)
        assert one.reg == pytest.approx(0.4 * C.std(), rel=1e-12)


def test_transposed_costs_are_used_as_they_lie(rng):
    a, b, C = oracles.cloud_problem(rng, 10, 14)
    one, two = solve(a, b, C, reg=0.5), solve(b, a, C.T, reg=0.5)
    np.testing.assert_array_equal(two.f, one.g)
    np.testing.assert_array_equal(two.g, one.f)


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("method", ValueError, {"method": "greedy"}),
        ("reg", ValueError, {"reg": -1.0}),
        ("tol", ValueError, {"tol": 0.0}),
        ("maxiter", ValueError, {"maxiter": 0}),
        ("reg_type", ValueError, {"reg_type": "l2"}),
        ("callback", TypeError, {"callback": 1}),
        ("n_threads", TypeError, {"n_threads": 1.5}),
        ("g0", ValueError, {"g0": np.zeros(2)}),
    ],
    ids=str,
)
def test_options_without_meaning_are_refused_by_name(rng, name, kind, options):
    with pytest.raises(kind, match=re.escape(f"`{name}`")):
        ot.sinkhorn(None, None, rng.random((4, 3)), **options)
