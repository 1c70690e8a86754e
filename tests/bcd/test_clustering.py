"""Transductive clustering against its own formula, k-means and mixtures of normals."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from solvers import ConvergenceWarning, Status
from solvers.bcd import transductive_clustering


def blobs(seed=0, n=20, d=2, spread=0.8):
    """Points around three centres, their truth, and a symmetric graph of near ones."""
    rng = np.random.default_rng(seed)
    centres = 4.0 * np.eye(3, d) if d >= 3 else np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    truth = np.repeat(np.arange(3), n)
    X = centres[truth] + spread * rng.standard_normal((3 * n, d))
    W = np.exp(-0.5 * ((X[:, None] - X[None]) ** 2).sum(axis=2))
    W[W < 0.2] = 0.0
    np.fill_diagonal(W, 0.0)
    return X, truth, W


def some_labels(truth, each, seed=0):
    rng, labels = np.random.default_rng(seed), np.full(truth.size, -1)
    for c in range(3):
        labels[rng.choice(np.flatnonzero(truth == c), each, replace=False)] = c
    return labels


def energy(X, Y, M, W=None, lam=0.0, barrier=1.0, shift=0.0):
    """The energy as it is written, with loops."""
    total = sum(Y[p, k] * ((X[p] - M[k]) ** 2).sum() for p in range(len(X)) for k in range(len(M)))
    if W is not None:
        S = W - np.diag(np.diag(W)) + shift * np.eye(len(W))
        total -= 0.5 * lam * np.trace(Y.T @ S @ Y)
    return total + barrier * (Y * np.log(np.where(Y > 0, Y, 1.0))).sum()


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("sweep", ["gauss_seidel", "jacobi"])
@pytest.mark.parametrize("lam", [0.0, 0.4, 3.0])
@pytest.mark.parametrize("distance", ["sqeuclidean", "gaussian"])
def test_the_energy_never_rises_and_ends_at_a_fixed_point(sweep, lam, distance):
    X, truth, W = blobs(1)
    labels = some_labels(truth, 2)
    res = transductive_clustering(
        X, 3, W=W, lam=lam, labels=labels, sweep=sweep, distance=distance, tol=1e-9, maxiter=2000
    )
    assert res.success
    fun = res.history["fun"]
    assert np.diff(fun).max(initial=0.0) <= 1e-12 * abs(fun).max()
    np.testing.assert_allclose(res.x.sum(axis=1), 1.0, atol=1e-12)
    known = labels >= 0
    np.testing.assert_array_equal(res.x[known], np.eye(3)[labels[known]])
    np.testing.assert_array_equal(res.labels, res.x.argmax(axis=1))
    M = res.x.T @ X / res.x.sum(axis=0)[:, None]
    np.testing.assert_allclose(res.prototypes, M, rtol=0, atol=1e-7)


@pytest.mark.parametrize("sweep", ["gauss_seidel", "jacobi"])
def test_the_energy_is_the_written_one_and_the_certificate_its_fixed_point(sweep):
    X, _, W = blobs(2, n=8)
    with pytest.warns(ConvergenceWarning):
        res = transductive_clustering(
            X, 3, W=W, lam=0.7, barrier=0.5, sweep=sweep, maxiter=2, rng=0, tol=1e-12
        )
    shift = max(0.0, -np.linalg.eigvalsh(W)[0]) if sweep == "jacobi" else 0.0
    expected = energy(X, res.x, res.prototypes, W, 0.7, 0.5, shift)
    assert res.fun == pytest.approx(expected, rel=1e-4 if shift else 1e-10)
    assert res.history["fun"][-1] == pytest.approx(res.fun, rel=1e-10)
    D = ((X[:, None] - res.prototypes[None]) ** 2).sum(axis=2)
    after = softmax((0.7 * (W @ res.x + shift * res.x) - D) / 0.5)
    assert res.certificate.value == pytest.approx(abs(after - res.x).max(), rel=1e-4)


def test_colours_visit_points_one_by_one():
    X, _, W = blobs(3, n=6)
    start = np.random.default_rng(0).dirichlet(np.ones(3), 18)
    with pytest.warns(ConvergenceWarning):
        res = transductive_clustering(X, 3, W=W, lam=1.0, maxiter=1, x0=start, tol=1e-12)
    Y, M = start.copy(), start.T @ X / start.sum(axis=0)[:, None]
    # The order of colours: by the first pass over the points, fewest members first.
    members = []
    for v in range(18):
        legal = [c for c in members if not any(W[v, u] for u in c)]
        min(legal, key=len).append(v) if legal else members.append([v])
    for v in (v for c in members for v in c):
        Y[v] = softmax((W[v] @ Y - ((X[v] - M) ** 2).sum(axis=1))[None])[0]
    np.testing.assert_allclose(res.x, Y, rtol=0, atol=1e-12)


def test_with_a_small_barrier_it_is_k_means():
    X, _, _ = blobs(4)
    start = X[[0, 25, 50]]
    theirs = KMeans(3, init=start, n_init=1, tol=0.0).fit(X)
    Y = np.eye(3)[((X[:, None] - start[None]) ** 2).sum(axis=2).argmin(axis=1)]
    res = transductive_clustering(X, 3, barrier=1e-9, x0=Y)
    assert res.success
    np.testing.assert_array_equal(res.labels, theirs.labels_)
    np.testing.assert_allclose(res.prototypes, theirs.cluster_centers_, rtol=0, atol=1e-9)
    assert res.fun == pytest.approx(theirs.inertia_, rel=1e-8)


def test_gaussian_distances_are_those_of_a_mixture_with_equal_weights():
    X, truth, _ = blobs(5, n=30)
    X = X * np.where(truth == 1, 2.0, 1.0)[:, None]
    res = transductive_clustering(X, 3, distance="gaussian", rng=0, tol=1e-10, maxiter=5000)
    Y = res.x
    M = Y.T @ X / Y.sum(axis=0)[:, None]
    D = ((X[:, None] - M[None]) ** 2).sum(axis=2)
    v = (Y * D).sum(axis=0) / (2 * Y.sum(axis=0))
    np.testing.assert_allclose(res.variances, v, rtol=1e-8)
    np.testing.assert_allclose(Y, softmax(-D / (2 * v) - np.log(v)), rtol=0, atol=1e-8)
    # The minimum over assignments is minus the log-likelihood, up to constants.
    likelihood = np.log(np.exp(-D / (2 * v) - np.log(v)).sum(axis=1)).sum()
    assert res.fun == pytest.approx(-likelihood, rel=1e-9)


def test_the_graph_pulls_neighbours_together():
    X = np.array([[0.0], [0.4], [0.6], [1.0]])
    W = np.zeros((4, 4))
    W[1, 2] = W[2, 1] = 1.0
    labels = [0, -1, -1, 1]
    gap = [
        abs(np.subtract(*transductive_clustering(X, 2, W=W, lam=lam, labels=labels).x[1:3])).max()
        for lam in (0.0, 2.0)
    ]
    assert gap[1] < gap[0]


def test_a_graph_and_a_few_labels_beat_the_nearest_label_on_average():
    hits = []
    for seed in range(10):
        X, truth, W = blobs(seed, n=40, spread=1.2)
        labels = some_labels(truth, 1, seed)
        firsts = X[[np.flatnonzero(labels == c)[0] for c in range(3)]]
        nearest = ((X[:, None] - firsts[None]) ** 2).sum(axis=2).argmin(axis=1)
        res = transductive_clustering(X, 3, W=W, lam=0.2, labels=labels)
        hits.append((np.mean(res.labels == truth), np.mean(nearest == truth)))
    ours, theirs = np.mean(hits, axis=0)
    assert ours > theirs + 0.05


def test_more_inner_updates_go_further_before_prototypes_move():
    X, truth, W = blobs(7)
    kept = {"W": W, "lam": 2.0, "labels": some_labels(truth, 1), "maxiter": 1, "tol": 1e-12}
    with pytest.warns(ConvergenceWarning):
        once, often = (transductive_clustering(X, 3, inner=inner, **kept) for inner in (1, 50))
    assert often.n_blocks > once.n_blocks
    assert not np.allclose(once.x, often.x)


@given(st.integers(0, 10**6))
def test_names_of_clusters_and_the_place_of_the_origin_do_not_matter(seed):
    X, truth, W = blobs(8, n=7)
    labels, swap = some_labels(truth, 1), np.random.default_rng(seed).permutation(3)
    options = {"W": W, "lam": 0.5, "tol": 1e-9, "maxiter": 2000}
    res = transductive_clustering(X, 3, labels=labels, **options)
    renamed = np.where(labels >= 0, swap[labels], -1)
    again = transductive_clustering(X + 100.0, 3, labels=renamed, **options)
    np.testing.assert_allclose(again.x[:, swap], res.x, rtol=0, atol=1e-6)
    np.testing.assert_allclose(again.prototypes[swap], res.prototypes + 100.0, rtol=0, atol=1e-6)


def test_clusters_without_labels_are_planted_by_rng():
    X, truth, _ = blobs(9)
    runs = [transductive_clustering(X, 3, labels=np.full(60, -1), rng=3) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].x, runs[1].x)
    found = [np.bincount(truth[runs[0].labels == c], minlength=3).max() for c in range(3)]
    assert sum(found) >= 55
    other = transductive_clustering(X, 3, rng=4, maxiter=0, tol=10.0)
    assert not np.array_equal(other.x, transductive_clustering(X, 3, rng=5, maxiter=0, tol=10.0).x)


def test_empty_clusters_keep_their_prototype_and_equal_points_do_no_harm():
    res = transductive_clustering(np.ones((5, 2)), 3, rng=0)
    assert res.success
    assert np.isfinite(res.x).all()
    np.testing.assert_array_equal(res.prototypes, np.ones((3, 2)))
    res = transductive_clustering(np.ones((5, 2)), 2, distance="gaussian", rng=0)
    assert np.isfinite(res.fun)


def test_sparse_and_dense_graphs_and_float32_agree():
    X, truth, W = blobs(10)
    options = {"lam": 0.3, "labels": some_labels(truth, 2), "tol": 1e-5}
    res = transductive_clustering(X, 3, W=W, **options)
    for form in (sp.csr_array(W), sp.csc_matrix(W), sp.coo_array(W + np.eye(60))):
        again = transductive_clustering(X, 3, W=form, **options)
        np.testing.assert_allclose(again.x, res.x, rtol=0, atol=1e-12)
    small = transductive_clustering(
        X.astype(np.float32), 3, W=sp.csr_array(W.astype(np.float32)), **options
    )
    assert small.x.dtype == small.prototypes.dtype == np.float32
    np.testing.assert_allclose(small.x, res.x, rtol=0, atol=1e-3)


def test_a_result_is_a_warm_start_and_early_ends_are_honest():
    X, truth, W = blobs(11)
    options = {"W": W, "lam": 0.3, "labels": some_labels(truth, 2)}
    res = transductive_clustering(X, 3, **options)
    assert transductive_clustering(X, 3, x0=res, **options).nit == 0
    with pytest.warns(ConvergenceWarning):
        res = transductive_clustering(X, 3, time_limit=1e-9, tol=1e-300, **options)
    assert res.status is Status.TIME_LIMIT
    res = transductive_clustering(X, 3, callback=lambda _: True, tol=1e-300, **options)
    assert (res.status, res.nit) == (Status.CALLBACK, 1)


X6, W6 = np.arange(12.0).reshape(6, 2), np.ones((6, 6))
BAD = [
    ((X6[0], 2), {}, ValueError, "X"),
    ((X6 + 0j, 2), {}, TypeError, "X"),
    ((np.full((3, 2), np.nan), 2), {}, ValueError, "X"),
    ((None, 2), {}, TypeError, "X"),
    ((X6, 0), {}, ValueError, "k"),
    ((X6, 7), {}, ValueError, "k"),
    ((X6, 2.0), {}, TypeError, "k"),
    ((X6, 2), {"lam": -1.0}, ValueError, "lam"),
    ((X6, 2), {"lam": 1.0}, ValueError, "W"),
    ((X6, 2), {"lam": 1.0, "W": -W6}, ValueError, "W"),
    ((X6, 2), {"lam": 1.0, "W": np.triu(W6)}, ValueError, "W"),
    ((X6, 2), {"lam": 1.0, "W": np.ones((5, 5))}, ValueError, "W"),
    ((X6, 2), {"labels": [0, 1, 2, -1, -1, -1]}, ValueError, "labels"),
    ((X6, 2), {"labels": [0, 1, -2, -1, -1, -1]}, ValueError, "labels"),
    ((X6, 2), {"labels": [0.5] * 6}, TypeError, "labels"),
    ((X6, 2), {"labels": [0, 1]}, ValueError, "labels"),
    ((X6, 2), {"distance": "cosine"}, ValueError, "distance"),
    ((X6, 2), {"barrier": 0.0}, ValueError, "barrier"),
    ((X6, 2), {"sweep": "random"}, ValueError, "sweep"),
    ((X6, 2), {"inner": 0}, ValueError, "inner"),
    ((X6, 2), {"tol": 0.0}, ValueError, "tol"),
    ((X6, 2), {"rng": "one"}, TypeError, "rng"),
    ((X6, 2), {"x0": np.ones((6, 2))}, ValueError, "x0"),
    ((X6, 2), {"x0": np.ones((6, 3)) / 3}, ValueError, "x0"),
]


@pytest.mark.parametrize(("args", "options", "kind", "name"), BAD)
def test_bad_input_is_refused_by_name(args, options, kind, name):
    with pytest.raises(kind, match=f"^`{name}`"):
        transductive_clustering(*args, **options)
