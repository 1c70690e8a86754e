import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import solvers
from solvers import ot
from tests.ot import reference
from tests.ot.test_unbalanced import divergence as kl
from tests.ot.test_unbalanced import iterate, plan

seeds = st.integers(0, 2**32 - 1)
COSTS = ["sqeuclidean", "euclidean", "cityblock", "cosine"]


def clouds(rng, n=9, m=7, d=2):
    x, y = rng.normal(size=(n, d)), 0.6 * rng.normal(size=(m, d)) + 1.0
    return rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m)), x, y


def solve(*args, **options):
    res = ot.sinkhorn_divergence(*args, **options)
    assert res.success, res.message
    return res


def unbalanced_value(a, b, C, reg, tau):
    f, g = iterate(a, b, C, reg, (tau, tau))
    P = plan(f, g, a, b, C, reg)
    marginals = kl(P.sum(1), a) + kl(P.sum(0), b)
    return (C * P).sum() + reg * kl(P, np.outer(a, b)) + tau * marginals


@pytest.mark.parametrize("cost", COSTS)
def test_the_value_is_that_of_three_long_iterations(rng, cost):
    a, b, x, y = clouds(rng)
    reg = 0.2
    res = solve(a, b, x, y, cost=cost, reg=reg)
    expected = reference.value(a, b, cdist(x, y, cost), reg)
    expected -= 0.5 * reference.value(a, a, cdist(x, x, cost), reg)
    expected -= 0.5 * reference.value(b, b, cdist(y, y, cost), reg)
    assert res.value == res.fun == pytest.approx(expected, rel=1e-8)
    details = res.certificate.details
    assert details["lower"] <= res.value <= details["upper"]
    assert details["upper"] - details["lower"] < 1e-6


@pytest.mark.parametrize("tau", [0.05, 1.0, 30.0])
def test_unbalanced_values_count_the_difference_of_the_masses(rng, tau):
    a, b, x, y = clouds(rng)
    a, b, reg = 1.4 * a, 0.5 * b, 0.2
    res = solve(a, b, x, y, reg=reg, reg_m=tau)
    C = [cdist(s, t, "sqeuclidean") for s, t in ((x, y), (x, x), (y, y))]
    expected = unbalanced_value(a, b, C[0], reg, tau) + 0.5 * reg * (1.4 - 0.5) ** 2
    expected -= 0.5 * (unbalanced_value(a, a, C[1], reg, tau))
    expected -= 0.5 * (unbalanced_value(b, b, C[2], reg, tau))
    assert res.value == pytest.approx(expected, rel=1e-8)
    assert res.value > 0.0


@given(seeds, st.sampled_from([None, 0.3, np.inf]))
def test_it_is_symmetric_positive_and_zero_for_equal_clouds_only(seed, tau):
    rng = np.random.default_rng(seed)
    a, b, x, y = clouds(rng, *rng.integers(1, 9, size=2))
    res = solve(a, b, x, y, reg=0.3, reg_m=tau)
    assert res.value > 1e-6
    assert solve(b, a, y, x, reg=0.3, reg_m=tau).value == pytest.approx(res.value, rel=1e-7)
    order = rng.permutation(len(a))
    # So much entropy that no point is left to itself, whose potential nothing would fix.
    same = solve(a, a[order], x, x[order], reg=3.0, reg_m=tau, tol=1e-12)
    assert abs(same.value) < 1e-10
    np.testing.assert_allclose(same.f - same.f.mean(), 0.0, atol=1e-5)


def test_a_shift_costs_its_square_whatever_the_entropy(rng):
    a, _, x, _ = clouds(rng)
    step = np.array([1.0, -2.0])
    for reg in (0.05, 5.0):
        res = solve(a, a, x, x + step, reg=reg)
        assert res.value == pytest.approx(5.0, rel=1e-9)
        np.testing.assert_allclose(res.grad_x, -2.0 * a[:, None] * step, atol=1e-7)
        np.testing.assert_allclose(res.grad_y, 2.0 * a[:, None] * step, atol=1e-7)


@pytest.mark.parametrize("tau", [None, 0.5])
@pytest.mark.parametrize("cost", COSTS)
def test_gradients_are_slopes_of_the_value(rng, cost, tau):
    a, b, x, y = clouds(rng)
    options = {"cost": cost, "reg": 0.2, "reg_m": tau, "tol": 1e-12}
    res = solve(a, b, x, y, **options)
    da, db = rng.normal(size=a.size) * a, rng.normal(size=b.size) * b
    if tau is None:
        # Balanced weights have to keep their mass.
        da, db = da - da.sum() * a, db - db.sum() * b
    dx, dy, t = rng.normal(size=x.shape), rng.normal(size=y.shape), 1e-5

    def slope(da, db, dx, dy):
        up, down = (
            solve(a + s * da, b + s * db, x + s * dx, y + s * dy, **options).value for s in (t, -t)
        )
        return (up - down) / (2 * t)

    assert slope(da, 0, 0, 0) == pytest.approx(res.grad_a @ da, rel=1e-5, abs=1e-9)
    assert slope(0, db, 0, 0) == pytest.approx(res.grad_b @ db, rel=1e-5, abs=1e-9)
    assert slope(0, 0, dx, 0) == pytest.approx((res.grad_x * dx).sum(), rel=1e-5, abs=1e-9)
    assert slope(0, 0, 0, dy) == pytest.approx((res.grad_y * dy).sum(), rel=1e-5, abs=1e-9)


def test_masses_scale_the_balanced_value_and_large_prices_lead_to_it(rng):
    a, b, x, y = clouds(rng)
    res = solve(a, b, x, y, reg=0.3)
    assert solve(5 * a, 5 * b, x, y, reg=0.3).value == pytest.approx(5 * res.value, rel=1e-8)
    near = solve(a, b, x, y, reg=0.3, reg_m=1e5)
    assert near.value == pytest.approx(res.value, rel=1e-3)
    assert solve(a, b, x, y, reg=0.3, reg_m=np.inf).value == res.value


def test_defaults_are_uniform_weights_and_a_twentieth_of_the_spread(rng):
    _, _, x, y = clouds(rng)
    res = solve(None, None, x, y)
    assert res.reg == pytest.approx(0.05 * cdist(x, y, "sqeuclidean").std(), rel=1e-9)
    even = solve(np.full(9, 1 / 9), np.full(7, 1 / 7), x, y)
    assert res.value == pytest.approx(even.value, rel=1e-12)
    scaled = solve(None, None, x, y, reg=0.05, reg_scale="std")
    assert scaled.value == pytest.approx(res.value, rel=1e-9)

    def squared(x, y):
        return cdist(x, y, "sqeuclidean")

    called = solve(None, None, x, y, cost=squared)
    assert called.value == pytest.approx(res.value, rel=1e-9)
    with pytest.raises(TypeError, match="callable"):
        called.grad_x  # noqa: B018 (the access itself is under test)


def test_the_three_problems_come_along(rng):
    a, b, x, y = clouds(rng)
    res = solve(a, b, x, y, reg=0.3)
    for part, (p, q) in zip((res.xy, res.xx, res.yy), ((a, b), (a, a), (b, b)), strict=True):
        np.testing.assert_allclose(part.plan.sum(axis=1), p, atol=1e-8)
        np.testing.assert_allclose(part.plan.sum(axis=0), q, atol=1e-8)
    total = sum(part.nit for part in (res.xy, res.xx, res.yy))
    assert res.nit == total == len(res.history["nit"])
    assert set(res.history["problem"]) == {0, 1, 2}
    assert res.certificate.value == max(p.certificate.value for p in (res.xy, res.xx, res.yy))


@pytest.mark.parametrize("tau", [None, 0.5])
def test_a_result_is_a_warm_start_for_points_nearby(rng, tau):
    a, b, x, y = clouds(rng, 40, 30)
    res = solve(a, b, x, y, reg=0.01, reg_m=tau)
    assert solve(a, b, x, y, reg=0.01, reg_m=tau, x0=res).nit == 3
    moved = x + 1e-6 * rng.normal(size=x.shape)
    assert solve(a, b, moved, y, reg=0.01, reg_m=tau, x0=res).nit < res.nit


def test_runs_end_as_asked_with_one_warning(rng):
    a, b, x, y = clouds(rng)
    for limit, status in (
        ({"maxiter": 1}, solvers.Status.MAXITER),
        ({"time_limit": 1e-9}, solvers.Status.TIME_LIMIT),
    ):
        for tau in (None, 1.0):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                res = ot.sinkhorn_divergence(a, b, x, y, reg=0.01, reg_m=tau, **limit)
            assert len(seen) == 1
            assert res.status is status
            assert not res.success
            assert np.isfinite(res.value)
            assert np.isfinite(res.f).all()
    res = ot.sinkhorn_divergence(a, b, x, y, callback=lambda r: r.problem == 1)
    assert res.status is solvers.Status.CALLBACK
    assert res.nit == res.xy.nit + 1


def test_single_precision_and_tensors_come_back(rng):
    a, b, x, y = (v.astype(np.float32) for v in clouds(rng))
    res = solve(a, b, x, y, reg=0.3)
    assert res.f.dtype == res.g.dtype == res.grad_x.dtype == np.float32
    exact = solve(*(v.astype(float) for v in (a, b)), x.astype(float), y.astype(float), reg=0.3)
    assert res.value == pytest.approx(exact.value, rel=1e-4)
    torch = pytest.importorskip("torch")
    other = solve(*(torch.from_numpy(v) for v in (a, b, x, y)), reg=0.3)
    assert isinstance(other.grad_x, torch.Tensor)
    np.testing.assert_array_equal(other.grad_x.numpy(), res.grad_x)


def test_results_pickle_print_and_cite(rng):
    a, b, x, y = clouds(rng)
    res = solve(a, b, x, y, reg=0.3)
    back = pickle.loads(pickle.dumps(res))
    np.testing.assert_array_equal(back.grad_x, res.grad_x)
    assert "feydy2019interpolating" in res.cite()
    assert len(repr(res)) < 5000


@pytest.mark.parametrize(
    ("change", "kind", "name"),
    [
        ({"a": np.ones(8)}, ValueError, "a"),
        ({"a": -np.ones(9)}, ValueError, "a"),
        ({"b": np.ones(7)}, ValueError, "a"),
        ({"b": np.ones(7), "reg_m": 0.0}, ValueError, "reg_m"),
        ({"reg_m": (1.0, 2.0)}, TypeError, "reg_m"),
        ({"x": np.ones(9)}, ValueError, "x"),
        ({"x": np.full((9, 2), np.nan)}, ValueError, "x"),
        ({"y": np.ones((7, 3))}, ValueError, "y"),
        ({"y": np.ones((7, 2)) + 0j}, TypeError, "y"),
        ({"cost": "l2"}, ValueError, "cost"),
        ({"cost": 2}, TypeError, "cost"),
        ({"reg": -1.0}, ValueError, "reg"),
        ({"reg_scale": "max", "reg": None}, ValueError, "reg_scale"),
        ({"tol": 0.0}, ValueError, "tol"),
        ({"maxiter": 0}, ValueError, "maxiter"),
        ({"time_limit": -1}, ValueError, "time_limit"),
        ({"x0": (1, 2)}, TypeError, "x0"),
        ({"callback": 3}, TypeError, "callback"),
        ({"progress": 2}, TypeError, "progress"),
        ({"history": "all"}, TypeError, "history"),
        ({"n_threads": 0}, ValueError, "n_threads"),
    ],
)
def test_bad_input_is_refused_by_name(rng, change, kind, name):
    data = dict(zip("abxy", clouds(rng), strict=True)) | {"reg": 0.3} | change
    clouds_given = [data.pop(k) for k in "abxy"]
    with pytest.raises(kind, match=rf"^`{name}`"):
        ot.sinkhorn_divergence(*clouds_given, **data)
