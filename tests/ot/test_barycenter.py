import pickle
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

import solvers
from solvers import datasets, ot
from tests import oracles
from tests.ot import reference

seeds = st.integers(0, 2**32 - 1)


def problem(rng, count=3, n=13, m=11):
    B = rng.dirichlet(np.ones(m), size=count)
    C = cdist(rng.random((n, 2)), rng.random((m, 2)), "sqeuclidean")
    return B, C / C.max(), rng.dirichlet(np.ones(count))


def projections(B, C, weights, reg, steps=20_000):
    """Iterated Bregman projections as published, in kernel form."""
    K = np.exp(-C / reg) if C.ndim == 3 else np.broadcast_to(np.exp(-C / reg), (len(B), *C.shape))
    v = np.ones_like(B)
    x = 0.0
    for _ in range(steps):
        before = x
        Kv = np.einsum("kij,kj->ki", K, v)
        x = np.exp(weights @ np.log(Kv))
        v = B / np.einsum("kij,ki->kj", K, x / Kv)
        if np.abs(x - before).sum() < 1e-15:
            break
    return x


def solve(B, C, **options):
    """Solve, and hold the answer to its promise before any test looks at it."""
    res = ot.barycenter(B, C, **options)
    assert res.success, res.message
    assert error(res, B, C) <= 1.01 * res.certificate.tol * B[0].sum() + 1e-13
    return res


def error(res, B, C):
    P = np.exp((res.f[:, :, None] + res.g[:, None] - C) / res.reg)
    gaps = np.abs(P.sum(2) - res.x).sum(1) + np.abs(P.sum(1) - B).sum(1)
    return res.weights @ gaps + res.x @ np.abs(res.weights @ res.f) / res.reg


def value(x, B, C, weights, reg):
    """The objective by its definition, from transport problems solved one by one."""
    total = 0.0
    for t, b in zip(weights, B, strict=True):
        f, g = reference.sinkhorn(x, b, C, reg)
        P = oracles.gibbs_plan(f, g, x, b, C, reg)
        total += t * ((C * P).sum() + reg * (P * (np.log(P) - 1.0)).sum())
    return total


@pytest.mark.parametrize("reg", [0.5, 0.05, 0.01])
def test_the_barycentre_is_the_fixed_point_of_iterated_projections(rng, reg):
    B, C, weights = problem(rng)
    res = solve(B, C, weights=weights, reg=reg, tol=1e-11)
    np.testing.assert_allclose(res.x, projections(B, C, weights, reg), rtol=0, atol=1e-9)
    # Costs that are not shared are solved in another way, with few passes.
    copies = solve(B, np.stack([C] * 3), weights=weights, reg=reg, tol=1e-11)
    assert copies.nit <= 4
    np.testing.assert_allclose(copies.x, res.x, rtol=0, atol=1e-10)
    np.testing.assert_allclose(copies.f, res.f, rtol=0, atol=1e-8)
    np.testing.assert_allclose(copies.g, res.g, rtol=0, atol=1e-8)


def test_newton_steps_take_over_where_projections_are_slow(rng):
    B, C, weights = problem(rng)
    easy = solve(B, C, weights=weights, reg=0.5)
    assert easy.nnewton == 0
    hard = solve(B, C, weights=weights, reg=0.004, tol=1e-11)
    assert 0 < hard.nnewton < hard.nit < 40
    np.testing.assert_allclose(hard.x, projections(B, C, weights, 0.004), rtol=0, atol=1e-9)


def test_no_measure_is_closer_by_direct_minimisation(rng):
    B, C, weights = problem(rng, 2, 4, 5)
    reg = 0.3

    def objective(z):
        x = np.exp(z - z.max())
        return value(x / x.sum(), B, C, weights, reg)

    found = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-6})
    res = solve(B, C, weights=weights, reg=reg, tol=1e-11)
    x = np.exp(found.x - found.x.max())
    np.testing.assert_allclose(res.x, x / x.sum(), atol=1e-4)
    assert res.fun <= found.fun + 1e-10
    assert res.fun == pytest.approx(value(res.x, B, C, weights, reg), rel=1e-9)


# In this example projections move distant parts slowly, and their mismatch stays large.
@example(49015707)
@given(seeds)
def test_random_problems_are_certified_and_the_dual_bounds_every_value(seed):
    rng = np.random.default_rng(seed)
    B, C, weights = problem(rng, *rng.integers(1, 9, size=3))
    B[rng.random(B.shape) < 0.2] = 0.0
    B[:, 0] += 1e-3
    B /= B.sum(axis=1, keepdims=True)
    reg = 10.0 ** rng.uniform(-2.5, 0.0)
    res = solve(B, C, weights=weights, reg=reg)
    assert np.all(res.x >= 0.0)
    assert res.x.sum() == pytest.approx(1.0, abs=1e-8)
    assert res.certificate.details["dual"] == res.fun
    mixed = [ot.sinkhorn_newton(w, b, C, reg=reg, reg_type="entropy").value for w, b in [
        (np.full(len(C), 1 / len(C)), b / b.sum()) for b in B]]  # fmt: skip
    assert res.fun <= res.weights @ mixed + 1e-9


def test_fitting_marginals_alone_do_not_pass_for_a_barycentre(rng):
    B, C, weights = problem(rng)
    res = solve(B, C, weights=weights, reg=0.05)
    x = rng.dirichlet(np.ones(len(C)))
    f, g = [], []
    for b in B:
        plan = ot.sinkhorn_newton(x, b, C, reg=0.05, tol=1e-12)
        phi, psi = plan.potentials_counting
        f.append(phi)
        g.append(psi)
    impostor = type(res)(x=x, f=np.array(f), g=np.array(g), weights=res.weights, reg=0.05)
    P = np.exp((impostor.f[:, :, None] + impostor.g[:, None] - C) / 0.05)
    assert np.abs(P.sum(2) - x).sum() + np.abs(P.sum(1) - B).sum() < 1e-10
    assert error(impostor, B, C) > 0.1
    assert res.certificate.details["potential_error"] < 1e-9


def test_equal_measures_have_the_barycentre_of_one(rng):
    B, C, _ = problem(rng, 1, 9, 9)
    one = solve(B, C, reg=0.1, tol=1e-11)
    three = solve(np.repeat(B, 3, axis=0), C, weights=[0.2, 0.5, 0.3], reg=0.1, tol=1e-11)
    np.testing.assert_allclose(three.x, one.x, rtol=0, atol=1e-10)
    # Of one measure, entropy leaves each row its share of the columns: a closed form.
    K = np.exp(-C / 0.1)
    np.testing.assert_allclose(one.x, K @ (B[0] / K.sum(axis=0)), rtol=0, atol=1e-10)


def test_two_points_meet_half_way():
    axis = np.linspace(0.0, 1.0, 21)
    C = (axis[:, None] - axis) ** 2
    B = np.zeros((2, 21))
    B[0, 4] = B[1, 16] = 1.0
    for weights, place in (((0.5, 0.5), 10), ((0.75, 0.25), 7), ((0.25, 0.75), 13)):
        res = solve(B, C, weights=weights, reg=1e-3)
        assert np.argmax(res.x) == place
        # Entropy blurs the meeting point as heat does.
        expected = np.exp(-((axis - axis[place]) ** 2) / 1e-3)
        np.testing.assert_allclose(res.x, expected / expected.sum(), atol=1e-10)


@given(seeds)
def test_order_mass_scale_and_shift_of_the_cost_change_what_they_should(seed):
    rng = np.random.default_rng(seed)
    B, C, weights = problem(rng, 3, 6, 7)
    res = solve(B, C, weights=weights, reg=0.1, tol=1e-11)
    turned = solve(B[::-1], C, weights=weights[::-1], reg=0.1, tol=1e-11)
    heavy = solve(5.0 * B, C, weights=7.0 * weights, reg=0.1, tol=1e-11)
    scaled = solve(B, 4.0 * C + 3.0, weights=weights, reg=0.4, tol=1e-11)
    for other in (turned.x, heavy.x / 5.0, scaled.x):
        np.testing.assert_allclose(other, res.x, rtol=0, atol=1e-9)
    np.testing.assert_allclose(turned.f[::-1], res.f, rtol=0, atol=1e-7)
    assert scaled.fun == pytest.approx(4.0 * res.fun + 3.0, rel=1e-9)
    # sum P (log P - 1) gains mass log(mass).
    assert heavy.fun == pytest.approx(5.0 * (res.fun + 0.1 * np.log(5.0)), rel=1e-9)
    np.testing.assert_allclose(res.f @ res.x, 0.0, atol=1e-10)


def test_every_measure_may_have_its_own_cost_or_all_a_cloud(rng):
    B, _, weights = problem(rng)
    x, y = rng.random((13, 2)), rng.random((11, 2))
    C = cdist(x, y, "sqeuclidean")
    shared = solve(B, C, weights=weights, reg=0.05, tol=1e-11)
    cloud = ot.barycenter(B, ot.PointCloud(x, y), weights=weights, reg=0.05, tol=1e-11)
    np.testing.assert_allclose(cloud.x, shared.x, rtol=0, atol=1e-9)
    own = np.stack([C, 2.0 * C, C + rng.random(C.shape)])
    res = solve(B, own, weights=weights, reg=0.05, tol=1e-11)
    np.testing.assert_allclose(res.x, projections(B, own, weights, 0.05), rtol=0, atol=1e-9)


def test_a_measure_without_weight_changes_nothing_and_keeps_a_fitting_plan(rng):
    B, C, _ = problem(rng)
    res = solve(B, C, weights=[0.5, 0.0, 0.5], reg=0.1, tol=1e-11)
    less = solve(B[[0, 2]], C, reg=0.1, tol=1e-11)
    np.testing.assert_allclose(res.x, less.x, rtol=0, atol=1e-10)
    P = np.exp((res.f[1][:, None] + res.g[1] - C) / 0.1)
    np.testing.assert_allclose(P.sum(axis=1), res.x, rtol=1e-9)


@pytest.mark.parametrize(("reg", "passes"), [(1e-2, 20), (1e-3, 8)])
def test_images_are_averaged_in_few_passes_with_the_accuracy_of_double_precision(reg, passes):
    images = [datasets.digits_transport(k, 1, 24) for k in (0, 2, 3, 4)]
    B, C = np.stack([image.a for image in images]), images[0].C
    res = ot.barycenter(B, C, reg=reg, tol=1e-10)
    assert res.success, res.message
    assert res.nit <= passes
    # Zeros are where no image has ink.
    B[B < 1e-4] = 0.0
    B /= B.sum(axis=1, keepdims=True)
    inked = ot.barycenter(B, C, reg=reg)
    assert inked.success
    assert np.array_equal(np.isneginf(inked.g), B == 0.0)
    assert np.isfinite(inked.f).all()


def test_forbidden_edges_are_avoided_or_reported(rng):
    B, C, weights = problem(rng)
    C[3, 4] = C[0] = np.inf
    C[0, 0] = 0.5
    res = solve(B, C, weights=weights, reg=0.1)
    assert np.isfinite(res.f).all()
    C[:, 2] = np.inf
    with pytest.warns(solvers.ConvergenceWarning, match="no point satisfies"):
        res = ot.barycenter(B, C, weights=weights, reg=0.1)
    assert res.status is solvers.Status.INFEASIBLE


def test_a_solution_is_a_warm_start(rng):
    B, C, weights = problem(rng, 4, 40, 30)
    B[1, 5] = 0.0
    B[1] /= B[1].sum()
    res = solve(B, C, weights=weights, reg=1e-3)
    assert res.nit > 2
    assert solve(B, C, weights=weights, reg=1e-3, x0=res).nit == 1
    assert solve(B, C, weights=weights, reg=1e-3, x0=(res.x, res.g)).nit == 1
    assert solve(B, C, weights=weights, reg=1e-3, annealing=False).levels == [1e-3]
    assert len(res.levels) > 1


def test_single_precision_comes_back_with_its_own_tolerance(rng):
    B, C, weights = problem(rng)
    res = ot.barycenter(B.astype("f4"), C.astype("f4"), weights=weights.astype("f4"), reg=0.1)
    assert res.success
    assert res.x.dtype == res.f.dtype == res.g.dtype == np.float32
    assert res.certificate.tol == 1e-5
    np.testing.assert_allclose(res.x, projections(B, C, weights, 0.1), atol=1e-5)


def test_defaults_are_equal_weights_and_a_twentieth_of_the_spread(rng):
    B, C, _ = problem(rng)
    res = solve(B, C)
    assert res.reg == pytest.approx(0.05 * C.std(), rel=1e-12)
    np.testing.assert_allclose(res.weights, 1 / 3)
    assert solve(B, C, reg=0.05, reg_scale="std").reg == pytest.approx(res.reg, rel=1e-12)


def test_runs_end_as_asked_with_finite_answers_and_one_warning(rng):
    B, C, weights = problem(rng, 3, 40, 30)
    options = {"weights": weights, "reg": 1e-3}
    for limit, status in (
        ({"maxiter": 1}, solvers.Status.MAXITER),
        ({"maxiter": 1, "reg": 0.1}, solvers.Status.MAXITER),
        ({"time_limit": 1e-9}, solvers.Status.TIME_LIMIT),
    ):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            res = ot.barycenter(B, C, **(options | limit))
        assert len(seen) == 1
        assert res.status is status
        assert res.nit == 1
        assert all(np.isfinite(v).all() for v in (res.x, res.f, res.g))
    seen = []
    res = ot.barycenter(B, C, callback=lambda r: seen.append(r) or True, **options)
    assert res.status is solvers.Status.CALLBACK
    assert seen[0].x.shape == (40,)
    assert {"nit", "fun", "optimality", "reg"} <= set(seen[0])


def test_results_pickle_print_and_cite(rng):
    B, C, weights = problem(rng)
    res = solve(B, C, weights=weights, reg=0.1)
    back = pickle.loads(pickle.dumps(res))
    np.testing.assert_array_equal(back.x, res.x)
    assert "benamou2015iterative" in res.cite()
    assert "barycentre optimality" in res.summary()
    assert res.history["optimality"][-1] == pytest.approx(res.certificate.value, abs=1e-11)
    assert set(res.history) >= {"nit", "seconds", "optimality", "fun", "reg"}


def test_tensors_come_back_as_tensors(rng):
    torch = pytest.importorskip("torch")
    B, C, weights = problem(rng)
    res = ot.barycenter(*(torch.from_numpy(v) for v in (B, C)), weights=weights.tolist(), reg=0.1)
    assert isinstance(res.x, torch.Tensor)
    np.testing.assert_allclose(
        res.x.numpy(), solve(B, C, weights=weights, reg=0.1).x, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("change", "kind", "name"),
    [
        ({"B": np.ones(11)}, ValueError, "B"),
        ({"B": -np.ones((3, 11))}, ValueError, "B"),
        ({"B": np.zeros((3, 11))}, ValueError, "B"),
        ({"B": np.arange(33.0).reshape(3, 11)}, ValueError, "B"),
        ({"B": np.ones((3, 10))}, ValueError, "C"),
        ({"B": np.empty((0, 11))}, ValueError, "B"),
        ({"B": None}, TypeError, "B"),
        ({"B": np.ones((3, 11)) + 0j}, TypeError, "B"),
        ({"C": np.ones(11)}, ValueError, "C"),
        ({"C": np.ones((2, 13, 11))}, ValueError, "C"),
        ({"C": np.full((13, 11), np.nan)}, ValueError, "C"),
        ({"C": None}, TypeError, "C"),
        ({"C": ot.PointCloud(np.ones((13, 2)), np.ones((10, 2)))}, ValueError, "B"),
        ({"weights": np.ones(2)}, ValueError, "weights"),
        ({"weights": -np.ones(3)}, ValueError, "weights"),
        ({"weights": np.zeros(3)}, ValueError, "weights"),
        ({"weights": "equal"}, TypeError, "weights"),
        ({"reg": 0.0}, ValueError, "reg"),
        ({"reg_scale": "max", "reg": None}, ValueError, "reg_scale"),
        ({"tol": -1.0}, ValueError, "tol"),
        ({"maxiter": 0}, ValueError, "maxiter"),
        ({"time_limit": 0.0}, ValueError, "time_limit"),
        ({"annealing": "no"}, TypeError, "annealing"),
        ({"x0": 3}, TypeError, "x0"),
        ({"x0": (np.ones(12), np.ones((3, 11)))}, ValueError, "x0"),
        ({"x0": (np.ones(13), np.ones((3, 10)))}, ValueError, "x0"),
        ({"x0": (np.zeros(13), np.ones((3, 11)))}, ValueError, "x0"),
        ({"x0": (np.ones(13), np.full((3, 11), np.nan))}, ValueError, "x0"),
        ({"callback": 3}, TypeError, "callback"),
        ({"progress": 2}, TypeError, "progress"),
        ({"history": 0}, ValueError, "history"),
        ({"n_threads": 0}, ValueError, "n_threads"),
    ],
)
def test_bad_input_is_refused_by_name(rng, change, kind, name):
    B, C, weights = problem(rng)
    data = {"B": B, "C": C, "weights": weights, "reg": 0.1} | change
    with pytest.raises(kind, match=rf"^`{name}`"):
        ot.barycenter(data.pop("B"), data.pop("C"), **data)
