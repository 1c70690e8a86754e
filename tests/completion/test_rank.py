"""Finding the rank: planted ones, exactly; estimates against dense eigenvalues."""

import numpy as np
import pytest
import scipy.optimize

from solvers import completion, datasets
from solvers.completion._rank import bethe_rank, gap_rank, kept_apart
from tests.completion.test_scaled_gd import distance, planted


def select(rows, cols, vals, X, ranks=None, **options):
    return completion.select_rank((rows, cols, vals), ranks, shape=X.shape, **options)


@pytest.mark.parametrize("cond", [1.0, 10.0])
@pytest.mark.parametrize(("rank", "share"), [(1, 0.15), (3, 0.3), (5, 0.4)])
def test_the_rank_of_exact_data_is_found(rank, share, cond):
    for seed in range(2):
        rows, cols, vals, X = planted(90, 70, rank, share, seed, cond=cond)
        found = select(rows, cols, vals, X, rng=seed)
        assert found.rank == rank
        assert found.rank_curve["rmse"][-1] < 1e-3
        assert np.all(np.diff(found.rank_curve["rank"]) > 0)


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_the_rank_under_noise_is_found(noise):
    for seed in range(4):
        rows, cols, vals, X = planted(90, 80, 4, 0.6, seed, noise=noise)
        found = select(rows, cols, vals, X, rng=seed)
        assert found.rank == 4
        # The error of entries kept apart cannot be below the noise.
        assert 0.9 * noise < found.rank_curve["rmse"].min() < 2.0 * noise


def test_noise_alone_has_the_smallest_rank():
    M = np.random.default_rng(0).standard_normal((60, 50))
    assert completion.select_rank(np.where(M > -1.0, M, np.nan), rng=0).rank == 1


def test_ratings_have_a_small_rank():
    ratings = datasets.ratings_like(300, 200, 12_000, rng=0)
    ratings.data -= ratings.data.mean()
    found = completion.select_rank(ratings, rng=0)
    assert 1 <= found.rank <= 5
    assert len(found.rank_curve["rank"]) < 12


def test_only_the_ranks_given_are_tried_and_the_best_is_chosen():
    rows, cols, vals, X = planted(60, 50, 3, 0.5, 1, noise=0.1)
    found = select(rows, cols, vals, X, [8, 1, 3, 5, 3], rng=0)
    assert found.rank_curve["rank"].tolist() == [1, 3, 5, 8]
    assert found.rank == 3
    assert select(rows, cols, vals, X, (5,), rng=0).rank == 5


def test_the_error_is_in_the_unit_of_the_data():
    rows, cols, vals, X = planted(60, 50, 2, 0.5, 1, noise=0.1)
    here, there = (select(rows, cols, c * vals, X, rng=0).rank_curve["rmse"] for c in (1.0, 1e4))
    np.testing.assert_allclose(there, 1e4 * here, rtol=1e-6)


def test_entries_of_weight_zero_change_no_rank():
    rows, cols, vals, X = planted(60, 50, 2, 0.5, 1)
    w = (np.arange(vals.size) % 7 > 0).astype(float)
    assert select(rows, cols, np.where(w > 0, vals, 50.0), X, weights=w, rng=0).rank == 2


def test_a_ridge_tames_ranks_that_are_too_large():
    rows, cols, vals, X = planted(60, 50, 2, 0.3, 1, noise=0.5)
    plain, ridged = (select(rows, cols, vals, X, [2, 6], lam=lam, rng=0) for lam in (0.0, 1.0))
    assert ridged.rank_curve["rmse"][1] < 0.8 * plain.rank_curve["rmse"][1]


def test_estimates_are_offered_alone():
    rows, cols, vals, X = planted(60, 50, 3, 0.8, 1)
    for method in ("bethe", "gap"):
        found = select(rows, cols, vals, X, method=method, rng=0)
        assert found.rank == found.estimates[method] == 3
        assert found.rank_curve is None


@pytest.mark.parametrize(("length", "seed"), [(60, 0), (60, 1), (160, 2)])
def test_the_bethe_estimate_counts_negative_eigenvalues(length, seed):
    # 160 + 250 is large enough for the sparse eigenvalue solver.
    rows, cols, vals, X = planted(length, 250, 3, 0.1, seed)
    vals = vals * 7.0
    x = vals / np.sqrt(np.mean(vals**2))
    beta = scipy.optimize.bisect(
        lambda b: (np.tanh(b * x) ** 2).sum() - np.sqrt(X.size), 1e-9, 100.0
    )
    T, S = np.zeros(X.shape), np.zeros(X.shape)
    T[rows, cols], S[rows, cols] = 0.5 * np.sinh(2 * beta * x), np.sinh(beta * x) ** 2
    H = np.block([[np.diag(1 + S.sum(axis=1)), -T], [-T.T, np.diag(1 + S.sum(axis=0))]])
    count = max((np.linalg.eigvalsh(H) < 0).sum(), 1)
    assert bethe_rank(rows, cols, vals, X.shape, np.random.default_rng(0)) == count


def test_too_few_entries_to_say_anything_mean_rank_one():
    rng = np.random.default_rng(0)
    rows = cols = np.arange(20)
    assert bethe_rank(rows, cols, rng.standard_normal(20), (20, 20), rng) == 1
    assert bethe_rank(rows, cols, np.zeros(20), (20, 20), rng) == 1
    assert gap_rank(rows[:1], cols[:1], np.ones(1), (1, 20), rng) == 1


@pytest.mark.parametrize("seed", range(5))
def test_rows_and_columns_keep_enough_entries(seed):
    rng = np.random.default_rng(seed)
    rows, cols = np.nonzero(rng.random((40, 30)) < rng.random((40, 1)))
    apart = kept_apart(rows, cols, (40, 30), 4, rng)
    assert np.unique(apart).size == apart.size > 0
    rest = np.delete(np.arange(rows.size), apart)
    for keys, size in ((rows, 40), (cols, 30)):
        before, after = (np.bincount(k, minlength=size) for k in (keys, keys[rest]))
        assert np.all(after >= np.minimum(before, 4))


def test_alternating_minimization_finds_the_rank_and_recovers():
    rows, cols, vals, X = planted(60, 50, 3, 0.5, 1)
    res = completion.alternating_minimization(
        (rows, cols, vals), "auto", shape=X.shape, tol=1e-10, rng=0
    )
    assert res.success
    assert res.rank == 3 == res.U.shape[1]
    assert distance(res, X) < 1e-8
    assert res.rank_curve["rank"][-1] == 3
    assert "rank" in [name for name, _, _ in res.stages]


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_alternating_minimization_chooses_among_ranks(kind):
    rows, cols, vals, X = planted(60, 50, 3, 0.5, 1, noise=0.1)
    res = completion.alternating_minimization(
        (rows, cols, vals), kind([2, 3, 6]), shape=X.shape, lam=0.5, rng=0
    )
    assert res.rank == 3
    assert res.rank_curve["rank"].tolist() == [2, 3, 6]


@pytest.mark.parametrize(
    "model",
    [
        {"bias": True, "lam_bias": 1.0},
        {"loss": "huber"},
        {"nonnegative": True},
        {"method": "scaled_gd"},
        {"method": "lmafit"},
        {"implicit": True, "lam": 5.0},
    ],
    ids=lambda model: next(iter(model)) + str(model.get("method", "")),
)
def test_the_rank_of_every_model_can_be_found(model):
    rng = np.random.default_rng(3)
    X = rng.random((40, 2)) @ rng.random((2, 30))
    M = np.where(rng.random(X.shape) < 0.7, X + 0.01 * rng.standard_normal(X.shape), np.nan)
    if "implicit" in model:
        M = rng.poisson(2.0 * np.kron(np.eye(2), np.ones((20, 15)))).astype(float)
    res = completion.alternating_minimization(M, [1, 2], tol=1e-5, rng=0, **model)
    assert res.success
    assert res.rank == 2


@pytest.mark.parametrize(
    ("ranks", "error"),
    [([], ValueError), ([0, 2], ValueError), ([2, 99], ValueError), ([1.5], TypeError)],
)
def test_bad_ranks_are_refused_by_name(ranks, error):
    M = np.ones((4, 5))
    with pytest.raises(error, match=r"^`ranks`"):
        completion.select_rank(M, ranks)
    with pytest.raises(error, match=r"^`rank`"):
        completion.alternating_minimization(M, ranks)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"ranks": 3}, TypeError, "ranks"),
        ({"ranks": "auto"}, TypeError, "ranks"),
        ({"method": "magic"}, ValueError, "method"),
        ({"lam": -1.0}, ValueError, "lam"),
        ({"rng": "x"}, TypeError, "rng"),
        ({"n_threads": 0}, ValueError, "n_threads"),
        ({"weights": np.ones(3)}, ValueError, "weights"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, error, name):
    with pytest.raises(error, match=f"^`{name}`"):
        completion.select_rank(np.ones((4, 5)), **options)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (2, 2), (4, 5)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_tiny_and_constant_matrices_have_a_rank(shape, value):
    assert completion.select_rank(np.full(shape, value), rng=0).rank == 1


def test_the_same_rng_gives_the_same_curve():
    rows, cols, vals, X = planted(40, 30, 2, 0.5, 1, noise=0.1)
    here, there = (select(rows, cols, vals, X, rng=5).rank_curve["rmse"] for _ in range(2))
    np.testing.assert_array_equal(here, there)
