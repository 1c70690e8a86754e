"""The transport problems are what their docstrings say."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from solvers import datasets

PROBLEMS = {
    "digits, squared": lambda rng: datasets.digits_transport(12, 31, 12),
    "digits, cityblock": lambda rng: datasets.digits_transport(12, 31, 12, "cityblock"),
    "grid": lambda rng: datasets.grid_transport(60, 45),
    "colours": lambda rng: datasets.color_transport(50, rng),
    "assignment": lambda rng: datasets.assignment(50, rng),
    "mixture": lambda rng: datasets.gaussian_mixture_transport(50, 35, rng),
    "field": lambda rng: datasets.random_field_transport(12, rng),
    "random": datasets.random_transport,
}
SEEDED = ["colours", "assignment", "mixture", "field", "random"]


def same(first, second):
    """Whether all fields agree to the last bit."""
    return all(np.array_equal(p, q) for p, q in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def suite():
    return [datasets.random_transport(seed, largest=60) for seed in range(200)]


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_is_a_balanced_transport_problem_in_float64(name):
    a, b, C, x, y, _ = PROBLEMS[name](0)
    assert C.shape == (a.size, b.size)
    assert all(array.dtype == np.float64 for array in (a, b, C))
    assert a.min() >= 0
    assert b.min() >= 0
    np.testing.assert_allclose([a.sum(), b.sum()], 1.0, rtol=1e-13)
    assert np.isfinite(C).all()
    assert C.min() >= 0
    if x is not None:
        assert (len(x), len(y)) == C.shape


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "random"])
def test_costs_are_scaled_to_a_maximum_of_one(name):
    C = PROBLEMS[name](0).C
    # A sample of 2500 uniform numbers comes this close to 1, all other costs are divided.
    assert 0.99 < C.max() <= 1.0


@pytest.mark.parametrize("name", SEEDED)
def test_the_same_seed_gives_the_same_problem_and_another_seed_another(name):
    first, again, other = (PROBLEMS[name](seed) for seed in (5, 5, 6))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("name", SEEDED)
def test_a_generator_is_used_and_advanced_but_global_state_is_not(name):
    rng = np.random.default_rng(3)
    before = np.random.get_state()[1].copy()  # noqa: NPY002  the state under test is the legacy one
    first, second = PROBLEMS[name](rng), PROBLEMS[name](rng)
    after = np.random.get_state()[1]  # noqa: NPY002  see above
    assert not same(first, second)
    assert np.array_equal(before, after)


@pytest.mark.parametrize("name", SEEDED)
def test_without_a_seed_every_call_differs(name):
    assert not same(PROBLEMS[name](None), PROBLEMS[name](None))


def test_scikit_learn_is_imported_only_when_its_data_are_asked_for():
    code = "import sys, solvers.datasets; sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_photographs_are_colours_between_zero_and_one():
    for picture in datasets.sample_photographs():
        assert picture.shape == (427, 640, 3)
        assert picture.dtype == np.float64
        assert picture.min() == 0.0
        assert 0.9 < picture.max() <= 1.0


def test_enlarged_digits_still_show_the_digit():
    from sklearn.datasets import load_digits

    images = load_digits().images
    problem = datasets.digits_transport(12, 31, side=32)
    for weights, image in [(problem.a, images[12]), (problem.b, images[31])]:
        blocks = weights.reshape(8, 4, 8, 4).sum(axis=(1, 3))
        assert np.corrcoef(blocks.ravel(), image.ravel())[0, 1] > 0.9
        # One per cent of the mass is spread over all pixels.
        assert weights.min() == pytest.approx(0.01 / 1.01 / 1024)


@pytest.mark.parametrize(("metric", "power"), [("sqeuclidean", 2), ("cityblock", 1)])
def test_digit_costs_are_distances_between_pixels(metric, power):
    problem = datasets.digits_transport(side=5, metric=metric)
    # Opposite corners cost 1; neighbours are a quarter of a side apart.
    assert problem.C[0, -1] == 1.0
    assert problem.C[0, 1] == problem.C[0, 5] == pytest.approx(0.25**power / 2)


def test_grid_weights_are_the_densities_of_scipy_stats():
    problem = datasets.grid_transport(80, 70)
    a = stats.expon.pdf(problem.x[:, 0])
    y = problem.y[:, 0]
    b = 0.2 * stats.norm.pdf(y, 1.0, 0.2) + 0.8 * stats.norm.pdf(y, 3.0, 0.5)
    np.testing.assert_allclose(problem.a, a / a.sum(), rtol=1e-12)
    np.testing.assert_allclose(problem.b, b / b.sum(), rtol=1e-12)
    np.testing.assert_allclose(problem.C, (problem.x - y) ** 2 / 25.0, rtol=1e-12, atol=1e-15)


def test_colours_come_from_their_own_photograph():
    problem = datasets.color_transport(200, rng=1)
    for points, picture in zip(problem[3:5], datasets.sample_photographs(), strict=True):
        colours = {tuple(colour) for colour in picture.reshape(-1, 3)}
        assert all(tuple(point) in colours for point in points)
    gaps = problem.x[:, None] - problem.y
    ratio = problem.C / (gaps**2).sum(-1)
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-12)


def test_assignment_has_uniform_weights_and_costs():
    problem = datasets.assignment(120, rng=0)
    assert np.all(problem.a == 1 / 120)
    assert np.all(problem.b == 1 / 120)
    assert problem.C.max() < 1.0
    assert stats.kstest(problem.C.ravel(), "uniform").pvalue > 1e-3


def test_random_fields_have_the_correlation_length_asked_for():
    lag, side = 2, 32
    products = np.zeros(2)
    for seed in range(30):
        problem = datasets.random_field_transport(side, rng=seed, correlation=lag / side)
        field = problem.a.reshape(side, side) - problem.a.mean()
        products += (field**2).mean(), (field * np.roll(field, lag, axis=0)).mean()
    # Gaussian correlation at one correlation length; taking off each field's mean costs 0.02.
    assert products[1] / products[0] == pytest.approx(np.exp(-0.5), abs=0.05)


def test_the_random_suite_stays_within_its_limits(suite):
    for problem in suite:
        assert 1 <= min(problem.C.shape) <= max(problem.C.shape) <= 60
        assert problem.reg > 0
        if np.ptp(problem.C) > 0:
            assert 0.999e-5 <= problem.reg / np.ptp(problem.C) <= 1.0


def test_the_random_suite_reaches_every_corner(suite):
    share = [p.reg / np.ptp(p.C) for p in suite if np.ptp(p.C) > 0]
    assert min(share) < 2e-5
    assert max(share) > 0.5
    zeros = [np.mean(p.a == 0) for p in suite]
    assert 0.1 < np.mean(np.array(zeros) > 0.1) < 0.6
    distinct = [np.unique(p.C).size / p.C.size for p in suite if p.C.size > 100]
    assert min(distinct) < 0.1  # ties
    repeated = [p for p in suite if p.x is not None and len(np.unique(p.x, axis=0)) < len(p.x)]
    assert repeated
    heaviest = [p.a.max() for p in suite if p.a.size > 30]
    assert min(heaviest) < 0.1
    assert max(heaviest) > 0.5
    units = [p.C.max() for p in suite]
    assert min(units) < 1e-2
    assert max(units) > 1e2


def test_a_single_point_is_a_problem_too():
    assert datasets.grid_transport(1).C.tolist() == [[0.0]]
