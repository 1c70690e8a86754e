import numpy as np
import pytest
from scipy.spatial.distance import cdist

from solvers.ot import PointCloud, certify, sinkhorn, sinkhorn_newton


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
