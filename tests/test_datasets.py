"""The problems are what their docstrings say."""

import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets
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


# Matrices with holes ----------------------------------------------------------------------------
def degrees(places, size):
    return np.bincount(places, minlength=size)


@pytest.mark.parametrize("cond", [1.0, 10.0, 1e6])
def test_a_planted_matrix_has_the_rank_the_condition_and_the_size_asked_for(cond):
    rows, cols, vals, L, R = datasets.planted_matrix(70, 50, 4, 3.0, cond=cond, rng=0)
    X = L @ R.T
    s = np.linalg.svd(X, compute_uv=False)
    assert s[0] / s[3] == pytest.approx(cond, rel=1e-8)
    assert s[4] < 1e-13 * s[0]
    assert np.square(X).mean() == pytest.approx(1.0, rel=1e-12)
    np.testing.assert_allclose(vals, X[rows, cols], atol=1e-13)


@pytest.mark.parametrize("oversampling", [1.0, 2.0, 3.5])
def test_planted_places_differ_and_are_as_many_as_the_oversampling_says(oversampling):
    rows, cols, *_ = datasets.planted_matrix(60, 40, 5, oversampling, min_degree=0, rng=1)
    assert len(set(zip(rows.tolist(), cols.tolist(), strict=True))) == rows.size
    assert rows.size == round(oversampling * 5 * (60 + 40 - 5))


def test_planted_places_are_spread_evenly_even_where_most_are_known():
    # 30 x 30 places, 600 of them known: each in two thirds of all draws.
    known = np.zeros((30, 30))
    for seed in range(200):
        rows, cols, *_ = datasets.planted_matrix(30, 30, 5, 600 / 275, min_degree=0, rng=seed)
        known[rows, cols] += 1
    # Independent of each other to within a per mille: a chi-square of 899 degrees of freedom.
    chi_square = np.square(known - 400 / 3).sum() / (400 / 9)
    assert 1e-4 < stats.chi2.sf(chi_square * 900 / 899, 899) < 1 - 1e-4


@pytest.mark.parametrize(("least", "expected"), [(None, 3), (7, 7)])
def test_no_row_or_column_of_a_planted_matrix_is_poor(least, expected):
    rows, cols, *_ = datasets.planted_matrix(400, 50, 3, 1.1, min_degree=least, rng=2)
    assert degrees(rows, 400).min() >= expected
    assert degrees(cols, 50).min() >= expected


def test_popular_rows_of_a_planted_matrix_are_known_better():
    rows, cols, *_ = datasets.planted_matrix(300, 300, 3, 5.0, popularity=True, rng=3)
    for places in (rows, cols):
        count = degrees(places, 300)
        assert count[:30].mean() > 2 * count[-150:].mean()


def test_noise_has_the_standard_deviation_asked_for():
    rows, cols, vals, L, R = datasets.planted_matrix(200, 200, 3, 5.0, noise=0.3, rng=4)
    noise = vals - (L @ R.T)[rows, cols]
    assert stats.kstest(noise / 0.3, "norm").pvalue > 1e-3


@pytest.mark.parametrize(
    ("arguments", "options", "name"),
    [
        ((0, 5, 1, 2.0), {}, "m"),
        ((5, 0, 1, 2.0), {}, "n"),
        ((5, 6, 6, 1.0), {}, "rank"),
        ((50, 50, 3, 0.0), {}, "oversampling"),
        ((50, 50, 3, 9.0), {}, "oversampling"),
        ((50, 50, 3, 3.0), {"popularity": True}, "oversampling"),
        ((50, 50, 3, 2.0), {"cond": 0.0}, "cond"),
        ((50, 50, 3, 2.0), {"noise": -1.0}, "noise"),
        ((50, 40, 3, 2.0), {"min_degree": 41}, "min_degree"),
    ],
)
def test_a_planted_matrix_that_cannot_be_is_refused_by_name(arguments, options, name):
    with pytest.raises(ValueError, match=f"^`{name}` came as .*; expected"):
        datasets.planted_matrix(*arguments, **options)


def test_the_family_has_planted_matrices_too():
    from solvers import completion

    first = completion.make_planted(20, 30, 2, 2.0, rng=5)
    assert same(first, datasets.planted_matrix(20, 30, 2, 2.0, rng=5))
    assert not same(first, datasets.planted_matrix(20, 30, 2, 2.0, rng=6))


def test_ratings_look_like_ratings():
    ratings = datasets.ratings_like(3000, 1800, 200_000, rng=0)
    assert ratings.shape == (3000, 1800)
    assert ratings.nnz == 200_000
    assert set(np.unique(ratings.data)) == {0.5 * k for k in range(1, 11)}
    assert ratings.data.mean() == pytest.approx(3.5, abs=0.15)
    assert ratings.data.std() == pytest.approx(1.1, abs=0.08)
    assert ratings.tocsr().nnz == 200_000  # no place twice
    for places, size in ((ratings.row, 3000), (ratings.col, 1800)):
        count = np.sort(degrees(places, size))
        assert count[-1] > 8 * np.median(count)
        # Popularity does not go by number.
        assert abs(stats.spearmanr(degrees(places, size), np.arange(size))[0]) < 0.1


def test_ratings_have_biases_of_users_and_items():
    ratings = datasets.ratings_like(200, 150, 7000, rng=1)
    for places, size in ((ratings.row, 200), (ratings.col, 150)):
        means = np.bincount(places, ratings.data, size) / np.maximum(degrees(places, size), 1)
        # Without them the means of some 40 ratings would vary by 0.17.
        assert means[degrees(places, size) >= 20].std() > 0.3


def test_counts_are_whole_and_come_in_topics():
    counts = datasets.listening_counts(800, 200, 20_000, rng=0)
    assert counts.shape == (800, 200)
    assert counts.nnz == counts.tocsr().nnz == 20_000
    assert counts.data.min() == 1
    assert np.array_equal(counts.data, np.rint(counts.data))
    # Twenty topics carry what users have in common; shuffled columns have nothing in common.
    rng = np.random.default_rng(0)
    known = counts.toarray() > 0
    shuffled = np.stack([rng.permutation(row) for row in known])
    spectra = [np.linalg.svd(x - x.mean(axis=0), compute_uv=False) for x in (known, shuffled)]
    assert spectra[0][15] > 1.5 * spectra[1][15]
    assert spectra[0][25] < 1.2 * spectra[1][15]


@pytest.mark.parametrize("make", [datasets.ratings_like, datasets.listening_counts])
def test_more_than_a_quarter_of_all_entries_is_refused(make):
    with pytest.raises(ValueError, match=r"^`size` came as 26; expected at most 25"):
        make(10, 10, 26)
    assert make(10, 10, 25, rng=0).nnz == 25


def test_a_damaged_photograph_is_whole_where_it_is_not_damaged():
    damaged, whole = datasets.damaged_photograph("flower", 0.9, rng=0)
    lost = np.isnan(damaged)
    assert lost.sum() == round(0.9 * whole.size)
    assert np.array_equal(damaged[~lost], whole[~lost])
    assert whole.min() >= 0.0
    assert whole.max() <= 1.0
    flower = datasets.sample_photographs()[1]
    assert np.all(flower.min(axis=2) - 1e-12 <= whole)
    assert np.all(whole <= flower.max(axis=2) + 1e-12)
    # Lost at random: in all parts of the picture alike.
    shares = [part.mean() for part in np.array_split(lost, 10, axis=1)]
    assert np.ptp(shares) < 0.02


def test_a_photograph_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"^`name` came as 'moon'"):
        datasets.damaged_photograph("moon")
    with pytest.raises(ValueError, match=r"^`missing` came as 1\.5"):
        datasets.damaged_photograph(missing=1.5)


MOVIELENS = {
    "ratings.csv": "userId,movieId,rating,timestamp\n7,31,2.5,1260759144\n3,1029,3.0,1260759179\n",
    "u.data": "7\t31\t2.5\t881250949\n3\t1029\t3\t891717742\n",
}


@pytest.mark.parametrize("name", MOVIELENS)
def test_movielens_files_become_ratings(name, tmp_path):
    (tmp_path / name).write_text(MOVIELENS[name])
    ratings, users, items = datasets.read_movielens(tmp_path / name)
    assert users.tolist() == [3, 7]
    assert items.tolist() == [31, 1029]
    assert ratings.toarray().tolist() == [[0.0, 3.0], [2.5, 0.0]]


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: datasets.planted_matrix(30, 20, 2, 2.0, noise=1.0, rng=rng),
        lambda rng: (datasets.ratings_like(50, 40, 300, rng=rng).toarray(),),
        lambda rng: (datasets.listening_counts(50, 40, 300, rng=rng).toarray(),),
        lambda rng: (np.nan_to_num(datasets.damaged_photograph(rng=rng)[0]),),
    ],
)
def test_matrices_with_holes_depend_on_the_seed_alone(make):
    first, again, other = (make(seed) for seed in (5, 5, 6))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("rank", [None, 2])
def test_planted_networks_explain_their_targets(rank):
    problem = datasets.planted_network(400, 6, 3, rank=rank, noise=0.0, rng=0)
    outputs = np.maximum(problem.X @ problem.hidden, 0) @ problem.out
    assert np.allclose(outputs, problem.y)
    assert np.linalg.matrix_rank(problem.X) == (rank or 6)
    assert np.square(problem.X).sum(axis=1).mean() == pytest.approx(1, rel=0.2)
    noisy = datasets.planted_network(400, 6, 3, rank=rank, noise=0.5, rng=0)
    assert np.std(noisy.y - problem.y) == pytest.approx(0.5 * problem.y.std(), rel=0.2)
    assert same(noisy, datasets.planted_network(400, 6, 3, rank=rank, noise=0.5, rng=0))
    with pytest.raises(ValueError, match="`rank` came as 7; expected at most `d` = 6"):
        datasets.planted_network(20, 6, rank=7)


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes", "digits", "iris", "wine"])
def test_standard_tables_have_rows_of_mean_square_length_one(name):
    X, y = datasets.standard_table(name)
    # Pixels that are never inked stay out of the sum.
    varying = abs(X[:, :-1]).max(axis=0) > 0
    assert np.square(X).sum() / len(X) == pytest.approx((varying.sum() + 1) / X.shape[1])
    assert np.allclose(X[:, -1], X[0, -1])
    assert abs(X[:, :-1].mean(axis=0)).max() < 1e-12
    if name == "diabetes":
        assert (y.mean(), y.std()) == pytest.approx((0, 1))
    else:
        assert set(y) == {-1.0, 1.0}
    with pytest.raises(ValueError, match="`name`"):
        datasets.standard_table("houses")


def test_enlarged_digits_show_the_same_digits():
    X, y = datasets.enlarged_digits(24, noise=0.0)
    small = X.reshape(-1, 8, 3, 8, 3).mean(axis=(2, 4))
    original = sklearn.datasets.load_digits()
    assert np.array_equal(y, original.target)
    match = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(small, original.images / 16, strict=True)
    ]
    assert min(match) > 0.9
    noisy, _ = datasets.enlarged_digits(24, rng=0)
    assert (noisy.min(), noisy.max()) == (0.0, 1.0)
    inside = (X > 0.2) & (X < 0.8)
    assert np.std((noisy - X)[inside]) == pytest.approx(0.05, rel=0.05)
