import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from solvers import ConvergenceWarning
from solvers.ot import PointCloud, wasserstein
from tests import oracles


def clouds(rng, n=180, m=190):
    return rng.normal(size=(n, 2)), rng.normal(size=(m, 2)) + 0.5


def test_on_a_line_the_bracket_holds_what_scipy_computes(rng):
    x, y = rng.normal(size=300), rng.normal(size=250) + 0.3
    a, b = rng.dirichlet(np.ones(300)), rng.dirichlet(np.ones(250))
    truth = wasserstein_distance(x, y, a, b)
    for gap in (1e-2, 1e-8):
        value, lower, upper = wasserstein(a, b, np.abs(x[:, None] - y), gap=gap)
        assert lower <= truth * (1 + 1e-12)
        assert truth <= upper * (1 + 1e-12)
        assert value == upper
        assert upper - lower <= gap * upper


@pytest.mark.parametrize("p", [1, 2, 3.5])
@pytest.mark.parametrize("n", [20, 150])
def test_any_order_agrees_with_the_best_assignment(rng, p, n):
    x, y = clouds(rng, n, n)
    D = cdist(x, y)
    rows, cols = linear_sum_assignment(D**p)
    truth = (D[rows, cols] ** p).mean() ** (1 / p)
    _, lower, upper = wasserstein(None, None, D, p=p, gap=1e-9)
    assert lower <= truth * (1 + 1e-13)
    assert truth <= upper * (1 + 1e-13)
    assert upper - lower <= 1e-9 * upper


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cityblock"])
def test_a_cloud_stands_for_its_distances(rng, p, cost):
    x, y = clouds(rng)
    D = 2.0 * cdist(x, y, "cityblock" if cost == "cityblock" else "euclidean")
    # Squared distances are those whose root is twice as long.
    scale = 4.0 if cost == "sqeuclidean" else 2.0
    cloud = PointCloud(x, y, cost=cost, scale=scale)
    expected = wasserstein(None, None, D, p=p, gap=1e-7)
    assert wasserstein(None, None, cloud, p=p, gap=1e-7) == pytest.approx(expected, rel=2e-7)


def test_it_is_a_metric(rng):
    x = rng.normal(size=(60, 2))
    D = cdist(x, x)
    a, b, c = rng.dirichlet(np.ones(60), size=3)

    def distance(s, t):
        return wasserstein(s, t, D, gap=1e-9)

    assert max(distance(a, a)) <= 1e-12
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-9)
    assert distance(a, c)[1] <= distance(a, b)[2] + distance(b, c)[2]


def test_the_mass_and_the_unit_scale_the_distance(rng):
    x, y = clouds(rng)
    D = cdist(x, y)
    a, b = rng.dirichlet(np.ones(180)), rng.dirichlet(np.ones(190))
    one = wasserstein(a, b, D, p=2, gap=1e-8)[0]
    assert wasserstein(9 * a, 9 * b, D, p=2, gap=1e-8)[0] == pytest.approx(3 * one, rel=1e-7)
    assert wasserstein(a, b, 5 * D, p=2, gap=1e-8)[0] == pytest.approx(5 * one, rel=1e-7)


def test_powers_do_not_overflow(rng):
    x, y = clouds(rng, 30, 30)
    D = cdist(x, y)
    one = wasserstein(None, None, D, p=4, gap=1e-8)[0]
    huge = wasserstein(None, None, 1e100 * D, p=4, gap=1e-8)[0]
    assert huge == pytest.approx(1e100 * one, rel=1e-7)


def test_float32_distances_are_taken_at_their_word(rng):
    x, y = clouds(rng, 40, 50)
    D = cdist(x, y).astype(np.float32)
    truth = oracles.exact_cost(np.full(40, 1 / 40), np.full(50, 1 / 50), D.astype(float) ** 2)
    _, lower, upper = wasserstein(None, None, D, p=2, gap=1e-9)
    assert upper - lower <= 1e-9 * upper
    assert lower**2 <= truth * (1 + 1e-6)
    assert truth * (1 - 1e-6) <= upper**2
    # No copy of the caller's is changed on the way to the square.
    np.testing.assert_array_equal(D, cdist(x, y).astype(np.float32))


def test_a_bracket_that_is_too_wide_comes_with_one_warning(rng):
    x, y = clouds(rng)
    D = cdist(x, y)
    truth = wasserstein(None, None, D)[0]
    for options in ({"maxiter": 1}, {"time_limit": 1e-9}, {"gap": 1e-300}):
        with pytest.warns(ConvergenceWarning, match="^wasserstein") as seen:
            value, lower, upper = wasserstein(None, None, D, **options)
        assert len(seen) == 1
        assert 0.0 <= lower <= truth * (1 + 1e-4)
        assert truth * (1 - 1e-4) <= upper == value


def test_without_a_plan_the_distance_is_infinite():
    inf = np.inf
    with pytest.warns(ConvergenceWarning, match="forbidden"):
        value, lower, upper = wasserstein([0.5, 0.5], [0.4, 0.6], [[1.0, inf], [inf, 1.0]])
    assert lower <= value == upper == inf


def test_progress_shows_and_threads_are_taken(rng, capsys):
    D = cdist(*clouds(rng))
    assert wasserstein(None, None, D, progress=True, n_threads=1)[0] > 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "wasserstein" in captured.err


@pytest.mark.parametrize(
    ("name", "kind", "change"),
    [
        ("a", ValueError, {"a": [0.5, -0.5]}),
        ("a", ValueError, {"a": [0.5, 0.7]}),
        ("C", ValueError, {"C": [[1.0, -1.0], [1.0, 1.0]]}),
        ("C", TypeError, {"C": None}),
        ("p", ValueError, {"p": 0.5}),
        ("p", ValueError, {"p": np.inf}),
        ("p", TypeError, {"p": "two"}),
        ("gap", ValueError, {"gap": 0.0}),
        ("maxiter", ValueError, {"maxiter": 0}),
        ("time_limit", ValueError, {"time_limit": 0.0}),
        ("progress", TypeError, {"progress": 1}),
        ("n_threads", ValueError, {"n_threads": 0}),
    ],
)
def test_bad_arguments_are_named(name, kind, change):
    data = {"a": [0.5, 0.5], "b": [0.5, 0.5], "C": [[1.0, 2.0], [2.0, 1.0]], **change}
    with pytest.raises(kind, match=f"^`{name}`"):
        wasserstein(data.pop("a"), data.pop("b"), data.pop("C"), **data)
