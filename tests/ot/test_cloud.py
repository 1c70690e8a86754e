import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from solvers._core.arrays import Ingest
from solvers.ot import PointCloud, _coarse, _gibbs, certify, sinkhorn, sinkhorn_newton
from solvers.ot._cloud import checked_cloud
from tests.ot.cloud_kernel_tests import each_cost


def clouds(d, n=70, m=50):
    rng = np.random.default_rng(d)
    return rng.normal(size=(n, d)) + 30.0, rng.normal(size=(m, d)) + 30.5


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
@pytest.mark.parametrize("solve", [sinkhorn, sinkhorn_newton])
def test_a_cloud_gives_what_its_matrix_gives(solve, cost):
    x, y = clouds(3)
    C = 2.0 * cdist(x, y, cost)
    reg = 0.05 * C.max()
    cloud = PointCloud(x, y, cost=cost, scale=2.0)
    res = solve(None, None, cloud, reg=reg, tol=1e-9)
    assert res.success
    assert certify(None, None, C, res.f, res.g, reg=reg, tol=2e-9).holds
    assert certify(None, None, cloud, res.f, res.g, reg=reg, tol=2e-9).holds
    assert np.abs(res.plan.sum(axis=1) - 1 / 70).max() < 1e-9
    assert np.isclose(res.value_linear, (res.plan * C).sum())


def test_a_callable_cost_is_asked_for_tiles():
    x, y = clouds(2)
    res = sinkhorn_newton(None, None, PointCloud(x, y, cost=lambda s, t: cdist(s, t) ** 1.5))
    C = cdist(x, y) ** 1.5
    assert np.isclose(res.reg, 0.05 * C.std())
    assert certify(None, None, C, res.f, res.g, reg=res.reg, tol=2e-8).holds


def test_statistics_of_a_cloud_are_those_of_its_matrix():
    x, y = clouds(3)
    C = cdist(x, y, "sqeuclidean")
    for scale, number in [("max", C.max()), ("median", np.median(C)), ("mean", C.mean())]:
        res = sinkhorn_newton(None, None, PointCloud(x, y), reg=0.5, reg_scale=scale, tol=1e-3)
        assert np.isclose(res.reg, 0.5 * number)


BAD = [
    ("x", TypeError, {"x": "points"}),
    ("x", ValueError, {"x": np.zeros(3)}),
    ("x", ValueError, {"x": np.array([[0.0, np.nan]])}),
    ("y", ValueError, {"y": np.zeros((4, 3))}),
    ("x", ValueError, {"x": np.zeros((3, 2)), "cost": "cosine"}),
    ("cost", ValueError, {"cost": "chebyshev"}),
    ("cost", TypeError, {"cost": 2}),
    ("scale", ValueError, {"scale": -1.0}),
]


@pytest.mark.parametrize(("name", "kind", "change"), BAD)
def test_bad_points_are_named(name, kind, change):
    with pytest.raises(kind, match=f"^`{name}`"):
        PointCloud(**{"x": np.ones((3, 2)), "y": np.ones((4, 2)), **change})


def test_a_callable_must_return_a_matrix_of_finite_costs():
    x, y = clouds(2)
    for cost in (lambda s, t: np.zeros(3), lambda s, t: np.full((len(s), len(t)), np.nan)):
        with pytest.raises(ValueError, match="`cost` returned"):
            sinkhorn_newton(None, None, PointCloud(x, y, cost=cost), reg=1.0)


def test_weights_must_fit_the_points():
    x, y = clouds(2)
    with pytest.raises(ValueError, match=r"^`b`"):
        sinkhorn_newton(None, np.full(70, 1 / 70), PointCloud(x, y))


# Costs.


def matrix_of(cloud):
    return checked_cloud(cloud, Ingest(x=cloud.x, y=cloud.y))


@each_cost
@pytest.mark.parametrize("d", [1, 2, 4, 5, 64])
def test_blocks_of_a_cloud_are_blocks_of_its_matrix(d, cost):
    x, y = clouds(d)
    y[:10] = x[:10]  # no distance at all
    C, D = matrix_of(PointCloud(x, y, cost=cost, scale=3.0)), 3.0 * cdist(x, y, cost)
    # Cosines in SciPy lose digits by a difference from 1.
    close = {"rtol": 1e-9, "atol": 1e-12 if cost != "cosine" else 1e-14 * d}
    rows, cols = np.array([5, 3, 60]), np.array([1, 0])
    for got, expected in [
        (C[:], D),
        (C[4:9], D[4:9]),
        (C[rows], D[rows]),
        (C.T[3:8], D.T[3:8]),
        (C.part(rows, cols)[:], D[np.ix_(rows, cols)]),
        (C.part(None, cols)[:], D[:, cols]),
        (C.min(axis=0), D.min(axis=0)),
        (C.min(axis=1), D.min(axis=1)),
    ]:
        np.testing.assert_allclose(got, expected, **close)
    assert (C.shape, C.size, C.ndim) == (D.shape, D.size, 2)
    low, high = C.bounds()
    assert low <= D.min() + 1e-12
    assert high >= D.max() * (1 - 1e-12)


@pytest.mark.parametrize("cost", ["sqeuclidean", "cosine"])
@pytest.mark.parametrize("d", [2, 3, 17])
def test_moments_by_formula_are_those_of_all_costs(d, cost):
    rng = np.random.default_rng(d)
    x, y = rng.exponential(size=(40, d)) + 5.0, rng.normal(size=(31, d))
    cloud = PointCloud(x, y, cost=cost, scale=0.7)
    C = 0.7 * cdist(x, y, cost)
    np.testing.assert_allclose(matrix_of(cloud).moments(), (C.mean(), C.std()), rtol=1e-12)
    a, b = rng.dirichlet(np.ones(40)), rng.dirichlet(np.ones(31))
    res = sinkhorn_newton(a, b, cloud)
    assert np.isclose(res.reg, 0.05 * C.std(), rtol=1e-12)


def test_order_puts_neighbours_together_and_leaves_the_potentials_in_place():
    rng = np.random.default_rng(0)
    x, y = rng.random((900, 2)), rng.random((800, 2))
    rows, cols = matrix_of(PointCloud(x, y)).orders()
    assert (np.sort(rows) == np.arange(900)).all()
    assert (np.sort(cols) == np.arange(800)).all()
    steps = np.linalg.norm(np.diff(x[rows], axis=0), axis=1).mean()
    assert steps < 0.15 * np.linalg.norm(np.diff(x, axis=0), axis=1).mean()
    a, b = rng.dirichlet(np.ones(900)), rng.dirichlet(np.ones(800))
    seen = []
    res = sinkhorn_newton(a, b, PointCloud(x, y), reg=1e-2, callback=lambda s: seen.append(s.g))
    assert certify(a, b, cdist(x, y, "sqeuclidean"), res.f, res.g, reg=1e-2, tol=2e-8).holds
    assert np.abs(seen[-1] - res.g).max() < 1e-5


# What comes and what goes.


def test_points_without_targets_are_their_own_targets():
    x, _ = clouds(2)
    res = sinkhorn_newton(None, None, PointCloud(x), reg=0.5)
    assert certify(None, None, cdist(x, x, "sqeuclidean"), res.f, res.g, reg=0.5).holds
    np.testing.assert_allclose(res.f, res.g, atol=1e-6)


@pytest.mark.parametrize("kind", [np.int32, bool, list])
def test_points_may_be_whole_numbers(kind):
    x = np.random.default_rng(0).integers(0, 2, (30, 3))
    points = x.tolist() if kind is list else x.astype(kind)
    res = sinkhorn_newton(None, None, PointCloud(points), reg=0.5)
    assert res.f.dtype == np.float64
    C = cdist(x.astype(float), x.astype(float), "sqeuclidean")
    assert certify(None, None, C, res.f, res.g, reg=0.5).holds


def test_float32_comes_back_as_float32():
    x, y = (p.astype(np.float32) for p in clouds(3))
    before = x.copy(), y.copy()
    res = sinkhorn_newton(None, None, PointCloud(x, y))
    assert (res.f.dtype, res.g.dtype) == (np.float32, np.float32)
    assert res.success
    np.testing.assert_array_equal((x, y)[0], before[0])
    np.testing.assert_array_equal((x, y)[1], before[1])


def test_a_cloud_far_from_the_origin_keeps_its_digits():
    x, y = clouds(3)
    near = sinkhorn_newton(None, None, PointCloud(x, y), reg=0.1, tol=1e-10)
    # On a grid, so that moving the points rounds nothing.
    far = PointCloud(np.round(x * 2**20) / 2**20 + 2.0**24, np.round(y * 2**20) / 2**20 + 2.0**24)
    res = sinkhorn_newton(None, None, far, reg=0.1, tol=1e-10)
    assert res.success
    np.testing.assert_allclose(res.plan, near.plan, atol=1e-7)


def test_moving_one_cloud_as_a_whole_leaves_the_plan_of_squared_distances():
    x, y = clouds(2)
    plans = [
        sinkhorn_newton(None, None, PointCloud(x, y + t), reg=0.2, tol=1e-11).plan
        for t in (0.0, np.array([3.0, -2.0]))
    ]
    np.testing.assert_allclose(*plans, atol=1e-11)


# Large clouds, made so by small limits.


@pytest.fixture
def few_nodes(monkeypatch):
    """Have every cloud corrected on nodes."""
    for name, value in [("LARGE", 0), ("MOST_NODES", 300), ("CLUSTERS", 100)]:
        monkeypatch.setattr(_coarse, name, value)


@pytest.mark.usefixtures("few_nodes")
@pytest.mark.parametrize(
    ("d", "cost"),
    [
        *[(d, cost) for d in (1, 2, 3) for cost in ("sqeuclidean", "euclidean", "cityblock")],
        (3, "cosine"),
        (6, "sqeuclidean"),
        (2, lambda s, t: cdist(s, t) ** 1.5),
    ],
)
def test_large_clouds_are_balanced_by_corrections_on_nodes(d, cost):
    rng = np.random.default_rng(d)
    x, y = rng.normal(size=(400, d)), 0.7 * rng.normal(size=(310, d)) + 1.0
    a, b = rng.dirichlet(np.ones(400)), rng.dirichlet(np.ones(310))
    a[::7] = 0.0
    a /= a.sum()
    y[5] = y[6]
    cloud = PointCloud(x, y, cost=cost)
    C = cost(x, y) if callable(cost) else cdist(x, y, cost)
    reg = 0.1 * C.std()
    res = sinkhorn_newton(a, b, cloud, reg=reg, store_plan=False)
    assert res.success
    assert {name for name, _, _ in res.stages} == {"coarse plan", "corrections"}
    assert res.levels == [reg]
    assert res.nnewton == res.nit - 1
    assert certify(a, b, C, res.f, res.g, reg=reg, tol=2e-8).holds
    # Far fewer than the sweeps that it takes without.
    assert res.nit < 0.6 * sinkhorn(a, b, C, reg=reg, method="stabilized").nit


@pytest.mark.usefixtures("few_nodes")
def test_corrections_begin_where_the_caller_says():
    rng = np.random.default_rng(0)
    cloud = PointCloud(rng.random((400, 2)), rng.random((300, 2)))
    res = sinkhorn_newton(None, None, cloud)
    assert sinkhorn_newton(None, None, cloud, x0=res).nit <= 2


@pytest.mark.usefixtures("few_nodes")
@pytest.mark.parametrize("corrected", [True, False])
def test_where_nodes_are_too_far_apart_the_general_method_takes_over(monkeypatch, corrected):
    monkeypatch.setattr(_coarse, "MOST_NODES", 20)
    monkeypatch.setattr(_coarse, "COARSEST", np.inf if corrected else 2.5)
    rng = np.random.default_rng(0)
    x, y = rng.random((300, 2)), rng.random((280, 2))
    res = sinkhorn_newton(None, None, PointCloud(x, y), reg=1e-4)
    assert res.success
    names = [name for name, _, _ in res.stages]
    assert names[0] == "coarse plan"
    assert ("corrections" in names) is corrected
    assert "final temperature" in names
    assert certify(None, None, cdist(x, y, "sqeuclidean"), res.f, res.g, reg=1e-4, tol=2e-8).holds


def test_a_sparse_plan_of_a_big_cloud_is_compressed_from_the_start(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.random((300, 2)), rng.random((280, 2))
    C = cdist(x, y, "sqeuclidean")
    start = sinkhorn(None, None, C, reg=1.1e-3, tol=1e-3)
    for name, value in [("SMALL", 0), ("MOST_ENTRIES", 20_000), ("DenseKernel", None)]:
        monkeypatch.setattr(_gibbs, name, value)
    res = sinkhorn_newton(None, None, PointCloud(x, y), reg=1e-3, g0=start.g)
    assert res.density < 0.2
    assert certify(None, None, C, res.f, res.g, reg=1e-3, tol=2e-8).holds


@pytest.mark.usefixtures("few_nodes")
def test_without_annealing_there_is_no_coarse_plan():
    rng = np.random.default_rng(0)
    cloud = PointCloud(rng.random((300, 2)), rng.random((280, 2)))
    res = sinkhorn_newton(None, None, cloud, annealing=False)
    assert res.success
    assert "coarse plan" not in [name for name, _, _ in res.stages]


@pytest.mark.usefixtures("few_nodes")
def test_a_time_limit_holds_for_nodes_too():
    rng = np.random.default_rng(0)
    cloud = PointCloud(rng.random((300, 2)), rng.random((280, 2)))
    with pytest.warns(match="time"):
        res = sinkhorn_newton(None, None, cloud, time_limit=1e-9)
    assert res.nit == 1
    assert np.isfinite(res.certificate.value)


def test_splines_add_up_to_one_and_reproduce_lines():
    rng = np.random.default_rng(0)
    cloud = matrix_of(PointCloud(rng.normal(size=(200, 3))))
    S, nodes = _coarse._splines(cloud.be, cloud.x, 0.3)
    np.testing.assert_allclose(S @ np.ones(nodes.shape[0]), 1.0, rtol=1e-14)
    np.testing.assert_allclose(S @ nodes, cloud.x, atol=1e-13)
    # And blur by a quarter of the spacing's square.
    blur = S @ nodes**2 - cloud.x**2
    np.testing.assert_allclose(blur, 0.3**2 / 4, rtol=1e-12)


def test_no_matrix_is_held_of_a_large_cloud(monkeypatch):
    monkeypatch.setattr(_coarse, "LARGE", 0)
    rng = np.random.default_rng(0)
    n = 8500
    cloud = PointCloud(rng.random((n, 2)), rng.random((n, 2)))
    tracemalloc.start()
    try:
        res = sinkhorn_newton(None, None, cloud, reg=0.05, tol=1e-6)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert res.success
    assert res.nit <= 6
    # Half a byte for each cost.
    assert peak < 0.5 * n * n
