import pickle
import warnings
from pathlib import Path

import _cuda_on_cpu
import numpy as np
import pytest
from _cupy_standin import run_with_standin
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

import solvers
from solvers import ot
from tests import oracles

seeds = st.integers(0, 2**32 - 1)
PRICES = [(0.7, 2.0), (1.0, np.inf), (np.inf, 0.3), (1e3, 1e3), (0.01, 0.02)]


def problem(rng, n=12, m=9):
    a, b, C = oracles.cloud_problem(rng, n, m)
    return 1.3 * a, 0.8 * b, C / C.max()


def divergence(p, q):
    """KL of non-negative arrays of any shape."""
    used = p > 0
    return (p[used] * np.log(p[used] / q[used])).sum() - p.sum() + q.sum()


def primal(P, a, b, C, reg, taus):
    """The objective by its definition; infinite where a kept marginal is not kept."""
    value = (C * P).sum() + reg * divergence(P, np.outer(a, b))
    for sums, weights, tau in ((P.sum(1), a, taus[0]), (P.sum(0), b, taus[1])):
        if tau < np.inf:
            value += tau * divergence(sums, weights)
        elif np.abs(sums - weights).sum() > 1e-8:
            return np.inf
    return value


def iterate(a, b, C, reg, taus, steps=30_000):
    """Textbook damped updates in the log domain, nearly to rounding level."""
    k1, k2 = (1.0 if tau == np.inf else tau / (tau + reg) for tau in taus)
    f, g = np.zeros(a.size), np.zeros(b.size)
    for _ in range(steps):
        before = g
        z = (g - C) / reg + np.log(b)
        f = -k1 * reg * (z.max(1) + np.log(np.exp(z - z.max(1)[:, None]).sum(1)))
        z = (f[:, None] - C) / reg + np.log(a)[:, None]
        g = -k2 * reg * (z.max(0) + np.log(np.exp(z - z.max(0)).sum(0)))
        if np.abs(g - before).max() < 1e-15 * max(1.0, np.abs(g).max()):
            break
    return f, g


def plan(f, g, a, b, C, reg):
    return np.outer(a, b) * np.exp((f[:, None] + g - C) / reg)


def solve(*args, **options):
    res = ot.sinkhorn_unbalanced(*args, **options)
    assert res.success, res.message
    return res


@pytest.mark.parametrize("method", ["newton", "sinkhorn"])
@pytest.mark.parametrize("taus", PRICES[:3])
def test_the_potentials_are_those_of_long_damped_iterations(rng, taus, method):
    a, b, C = problem(rng)
    f, g = iterate(a, b, C, 0.05, taus)
    res = solve(a, b, C, reg=0.05, reg_m=taus, method=method, tol=1e-11)
    np.testing.assert_allclose(res.f, f, rtol=0, atol=1e-9)
    np.testing.assert_allclose(res.g, g, rtol=0, atol=1e-9)
    np.testing.assert_allclose(res.plan, plan(f, g, a, b, C, 0.05), rtol=1e-7)
    assert res.mass == pytest.approx(res.plan.sum(), rel=1e-12)


def test_no_plan_is_cheaper_by_direct_minimisation(rng):
    a, b, C = problem(rng, 5, 4)
    taus, reg = (0.3, 0.8), 0.1

    def objective(z):
        P = np.exp(z.reshape(5, 4))
        slope = C + reg * np.log(P / np.outer(a, b))
        slope += taus[0] * np.log(P.sum(1) / a)[:, None] + taus[1] * np.log(P.sum(0) / b)
        return primal(P, a, b, C, reg, taus), (slope * P).ravel()

    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(
        objective, np.log(np.outer(a, b)).ravel(), jac=True, method="L-BFGS-B", options=options
    )
    res = solve(a, b, C, reg=reg, reg_m=taus, tol=1e-12)
    assert res.value == pytest.approx(found.fun, rel=1e-8)
    assert res.value <= found.fun + 1e-12
    assert primal(res.plan, a, b, C, reg, taus) == pytest.approx(res.value, rel=1e-12)


@given(seeds, st.sampled_from(PRICES), st.floats(-4.0, 0.0))
def test_random_problems_have_no_duality_gap_and_satisfy_the_optimality_system(seed, taus, power):
    rng = np.random.default_rng(seed)
    a, b, C = problem(rng, *rng.integers(1, 14, size=2))
    reg = 10.0**power
    res = solve(a, b, C, reg=reg, reg_m=taus)
    P = plan(res.f, res.g, a, b, C, reg)
    rows, cols = (
        w if tau == np.inf else w * np.exp(-v / tau)
        for w, v, tau in ((a, res.f, taus[0]), (b, res.g, taus[1]))
    )
    error = np.abs(P.sum(1) - rows).sum() + np.abs(P.sum(0) - cols).sum()
    assert error <= 1.001e-8 * P.sum()
    rounding = 1e-15 * max(np.abs(res.f).max(), np.abs(res.g).max(), 1.0) / reg
    assert res.certificate.value == pytest.approx(error / P.sum(), abs=10 * rounding)
    details = res.certificate.details
    scale = abs(details["primal"]) + max(t for t in taus if t < np.inf)
    assert -1e-12 * scale <= details["entropic_gap"] <= 1e-6 * scale
    assert details["dual"] == res.value == res.fun
    assert res.nit <= 12


@pytest.mark.parametrize("taus", PRICES)
def test_dual_and_primal_bound_the_value_for_any_potentials(rng, taus):
    a, b, C = problem(rng)
    best = solve(a, b, C, reg=0.1, reg_m=taus, tol=1e-12).value
    for size in (1e-3, 0.1, 1.0):
        f, g = size * rng.normal(size=a.size), size * rng.normal(size=b.size)
        judged = ot.certify(a, b, C, f, g, reg=0.1, reg_m=taus)
        assert judged.details["dual"] < best
        assert judged.value > 1e-4
        P = plan(f, g, a, b, C, 0.1)
        if taus[0] == np.inf:
            P *= (a / P.sum(1))[:, None]
        if taus[1] == np.inf:
            P *= b / P.sum(0)
        assert judged.details["primal"] == pytest.approx(primal(P, a, b, C, 0.1, taus), rel=1e-9)
        assert judged.details["primal"] > best


def test_the_certificate_is_blind_to_nothing(rng):
    a, b, C = problem(rng)
    res = solve(a, b, C, reg=0.1, reg_m=(0.7, 2.0))
    assert ot.certify(a, b, C, res.f, res.g, reg=0.1, reg_m=(0.7, 2.0)).holds
    # A shift leaves the plan as it is, but its marginals are no longer those asked for.
    shifted = ot.certify(a, b, C, res.f + 0.01, res.g - 0.01, reg=0.1, reg_m=(0.7, 2.0))
    assert not shifted.holds
    assert shifted.details["mass"] == pytest.approx(res.mass, rel=1e-12)
    assert not ot.certify(a, b, C, res.f, res.g, reg=0.1, reg_m=(2.0, 0.7)).holds
    for f in (np.full(a.size, np.nan), np.full(a.size, np.inf)):
        assert ot.certify(a, b, C, f, res.g, reg=0.1, reg_m=1.0).value == np.inf


def test_infinite_prices_are_the_balanced_problem_and_large_ones_nearly(rng):
    a, b, C = oracles.cloud_problem(rng, 12, 9)
    kept = solve(a, b, C, reg=0.3, reg_m=np.inf, tol=1e-11)
    twin = ot.sinkhorn_newton(a, b, C, reg=0.3, tol=1e-11)
    np.testing.assert_array_equal(kept.f, twin.f)
    distances = [
        np.abs(solve(a, b, C, reg=0.3, reg_m=tau, tol=1e-12).plan - twin.plan).sum()
        for tau in (1e2, 1e4)
    ]
    assert distances[0] == pytest.approx(100 * distances[1], rel=0.1)
    assert distances[1] < 1e-2
    judged = [
        ot.certify(a, b, C, twin.f, twin.g, reg=0.3, reg_m=reg_m).value for reg_m in (None, np.inf)
    ]
    assert judged[0] == judged[1] < 1e-11
    plain = ot.sinkhorn_unbalanced(a, b, C, reg=0.3, reg_m=np.inf, method="sinkhorn")
    assert plain.method.startswith("sinkhorn ")


def test_for_free_marginals_the_plan_is_the_gibbs_kernel(rng):
    a, b, C = problem(rng)
    res = solve(a, b, C, reg=0.2, reg_m=1e-6, tol=1e-7)
    np.testing.assert_allclose(res.plan, np.outer(a, b) * np.exp(-C / 0.2), rtol=1e-4)


def test_a_plan_whose_mass_underflows_is_not_called_solved(rng):
    a, b, C = problem(rng)
    with pytest.warns(solvers.ConvergenceWarning, match="underflows"):
        res = ot.sinkhorn_unbalanced(a, b, C + 5.0, reg=1e-3, reg_m=1e-3)
    assert res.mass == 0.0
    assert np.isfinite(res.x).all()


@given(seeds, st.sampled_from(PRICES))
def test_scaling_all_prices_and_transposing_change_nothing(seed, taus):
    rng = np.random.default_rng(seed)
    a, b, C = problem(rng, 8, 6)
    res = solve(a, b, C, reg=0.1, reg_m=taus, tol=1e-11)
    scaled = solve(a, b, 7 * C, reg=0.7, reg_m=tuple(7 * t for t in taus), tol=1e-11)
    np.testing.assert_allclose(scaled.plan, res.plan, rtol=1e-7, atol=1e-15)
    assert scaled.value == pytest.approx(7 * res.value, rel=1e-9)
    turned = solve(b, a, np.ascontiguousarray(C.T), reg=0.1, reg_m=taus[::-1], tol=1e-11)
    np.testing.assert_allclose(turned.plan.T, res.plan, rtol=1e-7, atol=1e-15)
    for side in (solve(a, b, np.asfortranarray(C), reg=0.1, reg_m=taus, tol=1e-11), turned):
        assert side.value == pytest.approx(res.value, rel=1e-10)
    permuted = solve(a[::-1], b, C[::-1], reg=0.1, reg_m=taus, tol=1e-11)
    np.testing.assert_allclose(permuted.f[::-1], res.f, rtol=0, atol=1e-9)


@pytest.mark.parametrize("layout", [np.asarray, np.asfortranarray])
@pytest.mark.parametrize("taus", PRICES[:3])
def test_gradients_are_slopes_of_the_value(rng, taus, layout):
    a, b, C = problem(rng, 7, 5)
    C = layout(C)
    res = solve(a, b, C, reg=0.1, reg_m=taus, tol=1e-12)
    da, db, dC = rng.normal(size=7) * a, rng.normal(size=5) * b, rng.normal(size=C.shape)
    t = 1e-5

    def slope(da, db, dC):
        ends = [
            solve(a + s * da, b + s * db, C + s * dC, reg=0.1, reg_m=taus, tol=1e-13).value
            for s in (t, -t)
        ]
        return (ends[0] - ends[1]) / (2 * t)

    assert slope(da, 0, 0) == pytest.approx(res.grad_a @ da, rel=1e-6)
    assert slope(0, db, 0) == pytest.approx(res.grad_b @ db, rel=1e-6)
    assert slope(0, 0, dC) == pytest.approx((res.grad_C * dC).sum(), rel=1e-6)
    assert np.abs(res.grad_a - res.f).max() > 1e-3


@pytest.mark.parametrize("taus", [(10.0, 10.0), (1e4, 1e4), (np.inf, 1.0), (0.05, 0.05)])
@pytest.mark.parametrize("reg", [1e-1, 1e-3])
def test_few_passes_suffice_however_small_reg_and_large_the_prices(rng, taus, reg):
    a, b, C = problem(rng, 60, 80)
    res = solve(a, b, C, reg=reg, reg_m=taus)
    assert res.nit <= 6
    with pytest.warns(solvers.ConvergenceWarning):
        # A damped update gains a fraction reg / tau only; a tenth of what it would take.
        plain = ot.sinkhorn_unbalanced(a, b, C, reg=reg, reg_m=taus, method="sinkhorn", maxiter=5)
    assert plain.status is solvers.Status.MAXITER
    assert plain.value <= res.value + 1e-12


@pytest.mark.parametrize("store_plan", [True, False])
def test_large_problems_in_single_precision_kernels_reach_full_accuracy(rng, store_plan):
    x, y = rng.normal(size=(600, 2)), 0.5 * rng.normal(size=(500, 2)) + 1
    C = cdist(x, y, "sqeuclidean")
    a, b = 1.3 * rng.dirichlet(np.ones(600)), rng.dirichlet(np.ones(500))
    options = {"reg": 0.02 * C.max(), "reg_m": (C.max(), 3.0), "tol": 1e-11}
    res = solve(a, b, C, store_plan=store_plan, **options)
    assert res.nit <= 8
    cloud = solve(a, b, ot.PointCloud(x, y), **options)
    np.testing.assert_allclose(cloud.f, res.f, rtol=0, atol=1e-8)


def test_points_without_mass_get_the_potentials_of_a_vanishing_mass(rng):
    a, b, C = problem(rng)
    a[3] = b[5] = 0.0
    res = solve(a, b, C, reg=0.1, reg_m=(0.7, 2.0), tol=1e-12)
    assert res.plan[3].sum() == res.plan[:, 5].sum() == 0.0
    a[3], b[5] = 1e-13, 1e-13
    nearly = solve(a, b, C, reg=0.1, reg_m=(0.7, 2.0), tol=1e-12)
    np.testing.assert_allclose(res.f, nearly.f, rtol=0, atol=1e-9)
    np.testing.assert_allclose(res.g, nearly.g, rtol=0, atol=1e-9)
    cloud = ot.PointCloud(rng.normal(size=(12, 2)), rng.normal(size=(9, 2)))
    a[3] = b[5] = 0.0
    assert np.isfinite(solve(a, b, cloud, reg_m=1.0).x).all()


def test_forbidden_edges_cost_the_mass_that_only_they_reach(rng):
    a, b, C = problem(rng)
    C[2] = np.inf
    C[4, 1] = np.inf
    res = solve(a, b, C, reg=0.1, reg_m=(0.7, 2.0), tol=1e-11)
    assert res.plan[2].sum() == res.plan[4, 1] == 0.0
    assert np.isfinite(res.x).all()
    # As if the point were not there, but for the price of its mass.
    rest = np.arange(12) != 2
    less = solve(a[rest], b, C[rest], reg=0.1, reg_m=(0.7, 2.0), tol=1e-11)
    expected = less.value + 0.7 * a[2] + 0.1 * a[2] * b.sum()
    assert res.value == pytest.approx(expected, rel=1e-9)
    with pytest.warns(solvers.ConvergenceWarning, match="no point satisfies"):
        stuck = ot.sinkhorn_unbalanced(a, b, C, reg=0.1, reg_m=(np.inf, 2.0))
    assert stuck.status is solvers.Status.INFEASIBLE
    assert not stuck.success


def test_a_solution_is_a_warm_start_and_so_is_half_of_it(rng):
    a, b, C = problem(rng, 30, 40)
    options = {"reg": 1e-3, "reg_m": (1.0, 5.0)}
    res = solve(a, b, C, **options)
    assert res.nit > 2
    assert solve(a, b, C, x0=res, **options).nit == 1
    assert solve(a, b, C, x0=(res.f, res.g), **options).nit == 1
    assert solve(a, b, C, f0=res.f, **options).nit <= 2
    assert solve(a, b, C, g0=res.g, **options).nit <= 2
    assert solve(a, b, C, annealing=False, **options).levels == [1e-3]
    assert len(res.levels) > 1


def test_plans_are_applied_and_thinned_without_normalisation(rng):
    a, b, C = problem(rng)
    res = solve(a, b, C, reg=0.05, reg_m=0.5)
    V = rng.normal(size=(9, 2))
    np.testing.assert_allclose(res.apply(V), res.plan @ V, rtol=1e-12)
    np.testing.assert_allclose(res.plan_sparse(0.0).toarray(), res.plan, rtol=1e-12)
    phi, psi = res.potentials_counting
    np.testing.assert_allclose(np.exp((phi[:, None] + psi - C) / 0.05), res.plan, rtol=1e-10)
    assert res.value_linear == pytest.approx((C * res.plan).sum(), rel=1e-12)
    back = pickle.loads(pickle.dumps(res))
    np.testing.assert_array_equal(back.grad_a, res.grad_a)
    assert "chizat2018scaling" in res.cite()
    for gone in (lambda: res.cost_rounded, res.lp_bracket):
        with pytest.raises(NotImplementedError, match="balanced"):
            gone()


def test_single_precision_comes_back_with_its_own_tolerance(rng):
    a, b, C = (v.astype(np.float32) for v in problem(rng))
    res = solve(a, b, C, reg=0.1, reg_m=0.5)
    assert res.f.dtype == res.g.dtype == res.grad_a.dtype == res.plan.dtype == np.float32
    assert res.certificate.tol == 1e-5
    exact = solve(*(v.astype(float) for v in (a, b, C)), reg=0.1, reg_m=0.5)
    assert res.value == pytest.approx(exact.value, rel=1e-6)
    with pytest.warns(solvers.ConvergenceWarning, match="Rounding of the potentials"):
        ot.sinkhorn_unbalanced(a, b, C, reg=1e-3, reg_m=100.0)


def test_runs_end_as_asked_with_finite_potentials_and_one_warning(rng):
    a, b, C = problem(rng, 30, 40)
    options = {"reg": 1e-4, "reg_m": 3.0}
    for limit, status in (
        ({"maxiter": 1}, solvers.Status.MAXITER),
        ({"time_limit": 1e-9}, solvers.Status.TIME_LIMIT),
    ):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            res = ot.sinkhorn_unbalanced(a, b, C, **options, **limit)
        assert len(seen) == 1
        assert res.status is status
        assert np.isfinite(res.x).all()
        # Whatever was reached makes the rows right.
        details = res.certificate.details
        assert details["row_error"] < 1e-6 * details["mass"]
    seen = []
    res = ot.sinkhorn_unbalanced(a, b, C, callback=lambda r: seen.append(r) or True, **options)
    assert res.status is solvers.Status.CALLBACK
    assert {"f", "g", "fun", "optimality", "nit"} <= set(seen[0])
    assert (seen[0].f.size, seen[0].g.size) == (30, 40)


def test_the_recorded_residual_is_the_certificates(rng):
    a, b, C = problem(rng)
    res = solve(a, b, C, reg=0.02, reg_m=(0.5, 3.0))
    assert res.history["optimality"][-1] == pytest.approx(res.certificate.value, abs=1e-12)
    assert res.history["fun"][-1] == pytest.approx(res.value, rel=1e-10)


@pytest.mark.parametrize(
    ("change", "kind", "name"),
    [
        ({"reg_m": 0.0}, ValueError, "reg_m"),
        ({"reg_m": -1.0}, ValueError, "reg_m"),
        ({"reg_m": np.nan}, ValueError, "reg_m"),
        ({"reg_m": "1"}, TypeError, "reg_m"),
        ({"reg_m": (1.0, 2.0, 3.0)}, ValueError, "reg_m"),
        ({"reg_m": None}, TypeError, "reg_m"),
        ({"reg": 0.0}, ValueError, "reg"),
        ({"reg": [1.0]}, TypeError, "reg"),
        ({"reg_scale": "max", "reg": None}, ValueError, "reg_scale"),
        ({"tol": 0.0}, ValueError, "tol"),
        ({"method": "plain"}, ValueError, "method"),
        ({"annealing": 1}, TypeError, "annealing"),
        ({"store_plan": 0}, TypeError, "store_plan"),
        ({"maxiter": 0}, ValueError, "maxiter"),
        ({"time_limit": -1.0}, ValueError, "time_limit"),
        ({"callback": 3}, TypeError, "callback"),
        ({"progress": 2}, TypeError, "progress"),
        ({"history": -1}, ValueError, "history"),
        ({"n_threads": 0}, ValueError, "n_threads"),
        ({"f0": np.zeros(3)}, ValueError, "f0"),
        ({"g0": np.full(9, np.nan)}, ValueError, "g0"),
        ({"x0": 3}, TypeError, "x0"),
        ({"x0": (None, None), "f0": np.zeros(12)}, ValueError, "x0"),
        ({"a": -np.ones(12)}, ValueError, "a"),
        ({"a": np.zeros(12)}, ValueError, "a"),
        ({"a": np.ones((1, 12))}, ValueError, "a"),
        ({"b": np.full(9, np.inf)}, ValueError, "b"),
        ({"b": np.ones(9) + 0j}, TypeError, "b"),
        ({"C": np.full((12, 9), np.nan)}, ValueError, "C"),
        ({"C": np.zeros((9, 12))}, ValueError, "C"),
        ({"C": None}, TypeError, "C"),
    ],
)
def test_bad_input_is_refused_by_name(rng, change, kind, name):
    data = dict(zip("abC", problem(rng), strict=True)) | {"reg": 0.1, "reg_m": 1.0} | change
    with pytest.raises(kind, match=rf"^`{name}`"):
        ot.sinkhorn_unbalanced(data.pop("a"), data.pop("b"), data.pop("C"), **data)


def test_certify_refuses_bad_prices_by_name(rng):
    a, b, C = problem(rng)
    with pytest.raises(ValueError, match=r"^`reg_m`"):
        ot.certify(a, b, C, 0 * a, 0 * b, reg=0.1, reg_m=(1.0,))
    # Unequal masses are an error only where both marginals are kept.
    with pytest.raises(ValueError, match=r"^`a` sums to"):
        ot.certify(a, b, C, 0 * a, 0 * b, reg=0.1)
    with pytest.raises(ValueError, match=r"^`a` sums to"):
        ot.sinkhorn_unbalanced(a, b, C, reg_m=np.inf)


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_relatives_of_transport_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "relatives_on_device.py")
