import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import solvers
from solvers.completion import ImplicitALS, MatrixCompletion


@pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
@parametrize_with_checks([MatrixCompletion(), ImplicitALS()])
def test_scikit_learn_finds_nothing_to_complain_about(estimator, check):
    check(estimator)


@pytest.fixture
def data(rng):
    """A matrix of rank 2 with gaps, and the whole."""
    X = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 20))
    M = X.copy()
    M[rng.random(X.shape) < 0.4] = np.nan
    return M, X


def held_out(M):
    """Two halves of the entries, each with NaN for the others."""
    first = np.indices(M.shape).sum(axis=0) % 4 > 0
    return np.where(first, M, np.nan), np.where(first, np.nan, M)


def test_gaps_are_filled_and_entries_kept(data):
    M, X = data
    model = MatrixCompletion(rank=2, random_state=0)
    filled = model.fit_transform(M)
    np.testing.assert_array_equal(filled[~np.isnan(M)], M[~np.isnan(M)])
    np.testing.assert_allclose(filled, X, atol=1e-6)
    np.testing.assert_allclose(model.predict([0, 3], [5, 6]), X[[0, 3], [5, 6]], atol=1e-6)
    np.testing.assert_allclose(model.predict(M), X, atol=1e-6)
    assert model.result_.certificate.holds
    assert model.n_iter_ == model.result_.nit


def test_unseen_rows_are_filled_from_their_own_entries(data):
    M, X = data
    model = MatrixCompletion(rank=2, random_state=0).fit(M[:20])
    np.testing.assert_allclose(model.transform(M[20:]), X[20:], atol=1e-6)
    nothing = np.full((1, 20), np.nan)
    np.testing.assert_array_equal(model.transform(nothing), np.zeros((1, 20)))


def test_unseen_rows_have_biases_of_their_own(rng):
    a, b = rng.normal(size=30), rng.normal(size=20)
    X = 5.0 + a[:, None] + b
    M = np.where(rng.random(X.shape) < 0.3, np.nan, X)
    model = MatrixCompletion(rank=1, lam=0.05, bias=True, random_state=0, tol=1e-4).fit(M[:25])
    assert model.result_.mu > 3.0
    np.testing.assert_allclose(model.transform(M[25:]), X[25:], atol=0.1)
    # A row without entries gets what is true of the columns.
    guess = model.transform(np.full((1, 20), np.nan))[0]
    np.testing.assert_allclose(guess, model.result_.mu + model.result_.col_bias)


def test_estimates_may_replace_entries(data, rng):
    M = data[0] + 0.3 * rng.normal(size=data[0].shape)
    model = MatrixCompletion(rank=2, lam=1.0, keep_observed=False, random_state=0)
    smooth = model.fit_transform(M)
    np.testing.assert_allclose(smooth, model.result_.todense(), atol=1e-5)
    assert not np.allclose(smooth[~np.isnan(M)], M[~np.isnan(M)])


def test_sparse_matrices_hold_what_is_observed(data):
    M, _ = data
    rows, cols = np.nonzero(~np.isnan(M))
    S = sp.csr_array((M[rows, cols], (rows, cols)), shape=M.shape)
    sparse, dense = (MatrixCompletion(rank=2, random_state=0).fit(A) for A in (S, M))
    np.testing.assert_array_equal(sparse.result_.U, dense.result_.U)
    with pytest.raises(TypeError, match=r"^`X` came as scipy.csr_array.*predict\(rows, cols\)"):
        sparse.transform(S)


def test_the_score_is_that_of_entries_held_out(data, rng):
    M, _ = data
    train, test = held_out(M + 0.1 * rng.normal(size=M.shape))
    scores = [
        MatrixCompletion(rank=k, lam=0.1, random_state=0).fit(train).score(test) for k in (1, 2)
    ]
    assert scores[0] < 0.9 < scores[1] < 1.0
    model = MatrixCompletion(rank=2, random_state=0).fit(train)
    rows, cols = np.nonzero(~np.isnan(test))
    error = test[rows, cols] - model.result_.todense()[rows, cols]
    expected = 1.0 - np.mean(error**2) / np.var(test[rows, cols])
    assert model.score(test) == pytest.approx(expected)
    S = sp.coo_array((test[rows, cols], (rows, cols)), shape=M.shape)
    assert model.score(S) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"^`X` came with shape \(3, 20\); expected \(30, 20\)"):
        model.score(test[:3])


def test_more_entries_go_on_from_what_was_found(data):
    M, _ = data
    first, second = held_out(M)
    model = MatrixCompletion(rank=2, lam=1e-3, random_state=0).fit(first)
    before = model.n_iter_
    rows, cols = np.nonzero(~np.isnan(second))
    model.partial_fit(rows, cols, second[rows, cols])
    at_once = MatrixCompletion(rank=2, lam=1e-3, random_state=0).fit(M)
    np.testing.assert_allclose(model.result_.todense(), at_once.result_.todense(), atol=1e-5)
    by_matrix = MatrixCompletion(rank=2, lam=1e-3, random_state=0).partial_fit(first)
    assert by_matrix.n_iter_ == before
    by_matrix.partial_fit(second)
    np.testing.assert_array_equal(by_matrix.result_.U, model.result_.U)
    # What is known already is replaced.
    changed = model.partial_fit([0, 0], [0, 1], [7.0, 7.0])._entries
    assert changed[2][-2:].tolist() == [7.0, 7.0]
    # Nothing new, nothing to do.
    assert MatrixCompletion(rank=2, lam=1e-3).fit(M).partial_fit(M).n_iter_ <= 2


def test_bad_entries_leave_the_model_as_it_was(data):
    model = MatrixCompletion(rank=2, lam=0.1, random_state=0).fit(data[0])
    before, entries = model.result_, model._entries
    for more, message in (
        (([99], [0], [1.0]), r"^`rows` contains 99"),
        (([0], [0], [np.nan]), r"^`vals` contains nan"),
        ((data[0][:3],), r"^`X` came with shape \(3, 20\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model.partial_fit(*more)
    assert model.result_ is before
    assert model._entries is entries
    with pytest.raises(NotFittedError):
        MatrixCompletion().partial_fit([0], [0], [1.0])


def test_options_reach_the_solver(data):
    M, _ = data
    for name, value in {
        "lam": 0.7,
        "bias": True,
        "nonnegative": True,
        "loss": "huber",
        "weighted_lambda": True,
        "tol": 1e-3,
        "rank": 1,
    }.items():
        options = {"rank": 2, "lam": 0.1, "random_state": 0, "tol": 1e-6, name: value}
        plain = {"rank": 2, "lam": 0.1, "random_state": 0, "tol": 1e-6}
        if name == "nonnegative":
            M = np.abs(M)
        results = [MatrixCompletion(**o).fit(M).result_ for o in (options, plain)]
        assert results[0].fun != results[1].fun, name
    with pytest.warns(solvers.ConvergenceWarning, match="maxiter"):
        MatrixCompletion(rank=2, max_iter=1, tol=1e-12).fit(M)
    with pytest.raises(ValueError, match=r"^`method` came as 'best'"):
        MatrixCompletion(rank=2, method="best").fit(M)
    with pytest.raises(ValueError, match=r"^`n_threads`"):
        MatrixCompletion(rank=2, n_jobs=0).fit(M)
    with pytest.raises(TypeError, match=r"^`rank` came as float"):
        MatrixCompletion(rank=2.5).fit(M)


def test_the_rank_is_at_most_the_smaller_side(data):
    assert MatrixCompletion(rank=100, lam=1.0).fit(data[0]).result_.rank == 20
    assert ImplicitALS(rank=100).fit(np.eye(4)).result_.rank == 4


def test_it_works_in_pipelines_clones_and_pickles(data):
    pandas = pytest.importorskip("pandas")
    M, _ = data
    pipe = make_pipeline(StandardScaler(), MatrixCompletion(rank=3, random_state=0))
    filled = pipe.fit_transform(M)
    assert np.isfinite(filled).all()
    twin = clone(pipe).fit(M)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(twin)).transform(M), filled)
    frame = pandas.DataFrame(M, columns=[f"c{j}" for j in range(20)])
    model = MatrixCompletion(rank=2, random_state=0).set_output(transform="pandas")
    assert list(model.fit_transform(frame).columns) == list(frame.columns)


def test_random_states_of_scikit_learn_are_taken(data):
    fits = [
        MatrixCompletion(rank=2, random_state=np.random.RandomState(3), tol=1e-2).fit(data[0])
        for _ in range(2)
    ]
    np.testing.assert_array_equal(fits[0].result_.U, fits[1].result_.U)
    with pytest.raises(ValueError, match="seed"):
        MatrixCompletion(random_state="three").fit(data[0])


# Implicit feedback.


@pytest.fixture
def counts(rng):
    """Users of two kinds, who turn to items of their kind."""
    return sp.csr_array(rng.poisson(1.0 * np.kron(np.eye(2), np.ones((20, 15)))))


def test_recommendations_are_unseen_items_of_the_users_kind(counts):
    model = ImplicitALS(rank=3, alpha=5.0, lam=1.0, random_state=0).fit(counts)
    seen = counts.toarray()
    for user in (0, 11, 25, 39):
        items, scores = model.recommend(user, 3)
        assert not seen[user, items].any()
        assert ((items < 15) == (user < 20)).all()
        assert (np.diff(scores) <= 0).all()
    items, scores = model.recommend([0, 25], 4)
    assert items.shape == scores.shape == (2, 4)
    everything, scores = model.recommend(0, 30, exclude_seen=False)
    assert sorted(everything) == list(range(30))
    np.testing.assert_allclose(scores, model.result_.todense()[0, everything])


def test_users_who_know_everything_get_no_recommendations():
    R = np.ones((3, 4))
    R[0] = [2, 0, 0, 0]
    model = ImplicitALS(rank=1, random_state=0).fit(R)
    np.testing.assert_array_equal(model.recommend(1, 2)[0], [-1, -1])
    assert model.recommend(0, 3)[0].min() >= 1


def test_similar_items_point_the_same_way(counts):
    model = ImplicitALS(rank=3, alpha=5.0, lam=1.0, random_state=0).fit(counts)
    items, scores = model.similar_items(3, 8)
    assert items[0] == 3
    assert scores[0] == pytest.approx(1.0)
    assert (items < 15).sum() >= 7
    B = model.result_.factors()[1]
    cosine = B[items[4]] @ B[3] / np.linalg.norm(B[items[4]]) / np.linalg.norm(B[3])
    assert scores[4] == pytest.approx(cosine)
    assert model.similar_items(0, 99)[0].size == 30


def test_users_are_recalculated_from_their_counts(counts):
    model = ImplicitALS(rank=3, alpha=2.0, lam=1.0, tol=1e-8, random_state=0).fit(counts)
    U = model.result_.U
    np.testing.assert_allclose(model.recalculate_user(counts[:5]), U[:5], atol=1e-6)
    np.testing.assert_allclose(model.recalculate_user(counts[[7]].toarray()[0]), U[7], atol=1e-6)
    np.testing.assert_array_equal(model.recalculate_user(np.zeros(30)), np.zeros(3))


def test_options_reach_the_solver_of_implicit_feedback(counts):
    plain = {"rank": 2, "alpha": 1.0, "lam": 1.0, "tol": 1e-6, "random_state": 0}
    fun = ImplicitALS(**plain).fit(counts).result_.fun
    for change in ({"alpha": 2.0}, {"lam": 2.0}, {"nu": 0.5}, {"rank": 1}):
        assert ImplicitALS(**{**plain, **change}).fit(counts).result_.fun != fun
    scaled = {**plain, "nu": 0.5}
    funs = [ImplicitALS(**scaled, alpha0=a).fit(counts).result_.fun for a in (1.0, 0.1)]
    assert funs[0] != funs[1]
    model = ImplicitALS(**scaled).fit(counts)
    np.testing.assert_allclose(model.recalculate_user(counts[:3]), model.result_.U[:3], atol=1e-4)


def test_zero_counts_are_no_events(counts):
    stored = sp.csr_array(counts)
    stored.data[::5] = 0
    removed = stored.copy()
    removed.eliminate_zeros()
    fits = [ImplicitALS(rank=2, random_state=0).fit(R) for R in (stored, removed)]
    np.testing.assert_array_equal(fits[0].result_.U, fits[1].result_.U)
    assert stored.nnz > removed.nnz
    user = int(np.flatnonzero(np.diff(stored.indptr) > np.diff(removed.indptr))[0])
    unseen = set(range(30)) - set(removed[[user]].indices)
    assert set(fits[0].recommend(user, len(unseen))[0]) == unseen


def test_bad_questions_are_refused_by_name(counts):
    model = ImplicitALS(rank=2, random_state=0).fit(counts)
    for call, kind, name in (
        (lambda: model.recommend(40), ValueError, "user"),
        (lambda: model.recommend(0, exclude_seen="yes"), TypeError, "exclude_seen"),
        (lambda: model.similar_items(30), ValueError, "i"),
        (lambda: model.similar_items(-1), ValueError, "i"),
        (lambda: model.similar_items(0, 0), ValueError, "N"),
    ):
        with pytest.raises(kind, match=rf"^`{name}`"):
            call()
    for method in ("recommend", "similar_items"):
        with pytest.raises(NotFittedError):
            getattr(ImplicitALS(), method)(0)


def test_the_family_loads_scikit_learn_only_for_its_estimators():
    code = (
        "import sys, solvers.completion as c; c.alternating_minimization; dir(c); "
        "assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("user", "error"), [(99, ValueError), (-1, ValueError), (0.5, TypeError)])
def test_users_that_do_not_exist_are_refused_by_name(user, error):
    counts = np.random.default_rng(0).poisson(1.0, (12, 10)).astype(float)
    model = ImplicitALS(rank=2).fit(counts)
    with pytest.raises(error, match="`user`"):
        model.recommend(user)
