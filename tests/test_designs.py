"""Designs and graphs have the properties that their docstrings promise."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from solvers import datasets

DESIGNS = {
    "text": lambda **o: datasets.text_like(300, 800, **o),
    "autoregressive": lambda **o: datasets.autoregressive(300, 80, **o),
    "blocks": lambda **o: datasets.block_correlated(300, 80, block=20, **o),
    "one-hot": lambda **o: datasets.one_hot_interactions(300, (4, 5, 3), **o),
}
GRAPHS = {
    "moons": lambda **o: datasets.moons_graph(200, **o),
    "lattice": lambda **o: datasets.lattice_graph(12, 15, **o),
}


def plain(part):
    return part.toarray() if sp.issparse(part) else part


@pytest.mark.parametrize("make", [*DESIGNS.values(), *GRAPHS.values()], ids=[*DESIGNS, *GRAPHS])
def test_problems_depend_on_the_seed_alone(make):
    first, second, other = (make(rng=seed) for seed in (3, np.random.default_rng(3), 4))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(plain(a), plain(b))
    assert not np.array_equal(plain(first[1]), plain(other[1]), equal_nan=True)


@pytest.mark.parametrize("name", DESIGNS)
def test_targets_come_from_few_coefficients_and_the_noise_asked_for(name):
    X, y, w = DESIGNS[name](informative=10, noise=0.5, rng=0)
    assert np.count_nonzero(w) == 10
    signal = X @ w
    assert np.std(y - signal) == pytest.approx(0.5 * np.std(signal), rel=0.15)
    exact = DESIGNS[name](informative=10, noise=0.0, rng=0)
    np.testing.assert_array_equal(exact.X @ exact.w, exact.y)


@pytest.mark.parametrize("name", DESIGNS)
def test_classes_are_two_and_as_large_as_each_other(name):
    y = DESIGNS[name](classes=True, rng=0).y
    assert set(y) == {-1.0, 1.0}
    assert abs(y.sum()) <= 30  # one-hot targets have ties


@pytest.mark.parametrize("name", DESIGNS)
def test_columns_are_contiguous(name):
    X = DESIGNS[name](rng=0).X
    if sp.issparse(X):
        assert X.format == "csc"
        assert X.indices.dtype == X.indptr.dtype == np.int32
    else:
        assert X.flags.f_contiguous


def test_words_follow_zipfs_law_and_documents_have_length_one():
    X = datasets.text_like(2000, 1000, exponent=0.7, rng=0).X
    assert X.nnz == 20000
    assert X.data.min() > 0
    length = np.sqrt(X.multiply(X).sum(axis=1))
    np.testing.assert_allclose(length[length > 0], 1.0)
    count = np.sort(np.diff(X.indptr))[::-1]
    slope = np.polyfit(np.log(np.arange(10, 300)), np.log(count[10:300]), 1)[0]
    assert slope == pytest.approx(-0.7, abs=0.07)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.95])
def test_neighbours_are_correlated_as_asked_for(rho):
    X = datasets.autoregressive(4000, 6, rho=rho, informative=2, rng=0).X
    expected = rho ** np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    np.testing.assert_allclose(np.cov(X.T), expected, atol=0.08)


def test_groups_are_correlated_inside_only():
    X, _, w = datasets.block_correlated(4000, 7, block=3, rho=0.8, informative=3, rng=0)
    group = np.arange(7) // 3
    expected = np.where(group[:, None] == group, 0.8, 0.0) + 0.2 * np.eye(7)
    np.testing.assert_allclose(np.cov(X.T), expected, atol=0.08)
    assert sorted(group[w != 0]) == [0, 1, 2]


def test_interactions_are_products_of_categories():
    X = datasets.one_hot_interactions(400, (2, 3, 4), informative=5, rng=0).X.toarray()
    assert X.shape[1] == 2 + 3 + 4 + 2 * 3 + 2 * 4 + 3 * 4
    assert set(X.ravel()) == {0.0, 1.0}
    single, pairs = X[:, :9], X[:, 9:]
    products = [single[:, i] * single[:, j] for i in range(9) for j in range(i)]
    for column in pairs.T:
        assert any(np.array_equal(column, product) for product in products)
    np.testing.assert_array_equal(X.sum(axis=1), 6.0)


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_are_symmetric_with_as_many_labels_as_asked_for(name):
    W, labels, truth, points = GRAPHS[name](labelled=17, rng=0)
    assert abs(W - W.T).nnz == 0
    assert W.diagonal().max() == 0
    assert W.data.min() > 0
    known = labels >= 0 if name == "moons" else ~np.isnan(labels)
    assert known.sum() == 17
    np.testing.assert_array_equal(labels[known], truth[known])
    assert points.shape == (truth.size, 2)


def test_neighbours_on_the_moons_are_the_nearest():
    W, _, truth, points = datasets.moons_graph(100, neighbours=3, labelled=5, noise=0.1, rng=1)
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distance, np.inf)
    near = np.argsort(distance, axis=1)[:, :3]
    expected = np.zeros((100, 100))
    np.put_along_axis(expected, near, 1.0, axis=1)
    np.testing.assert_array_equal(W.toarray(), np.maximum(expected, expected.T))
    # Neighbours are mostly of one moon, which is why labels can be propagated.
    rows, cols = W.nonzero()
    assert np.mean(truth[rows] == truth[cols]) > 0.95


def test_a_lattice_is_connected_along_its_lines():
    W, *_, points = datasets.lattice_graph(4, 6, labelled=3, weight=2.5, rng=0)
    rows, cols = W.nonzero()
    assert rows.size == 2 * (3 * 6 + 4 * 5)
    steps = 6 * np.abs(points[rows] - points[cols])
    np.testing.assert_allclose(steps.sum(axis=1), 1.0)
    assert set(W.data) == {2.5}
    assert connected_components(W)[0] == 1


def test_tumours_come_with_products_of_their_features():
    X, y, names = datasets.breast_cancer_interactions()
    assert len(names) == X.shape[1] == 30 + 30 * 31 // 2
    np.testing.assert_allclose(X.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(X.std(axis=0), 1.0)
    column = names.index("mean radius x mean texture")
    product = X[:, names.index("mean radius")] * X[:, names.index("mean texture")]
    assert np.corrcoef(product, X[:, column])[0, 1] == pytest.approx(1.0)
    assert set(y) == {-1.0, 1.0}
    # Malignant tumours are larger.
    assert X[y > 0, 0].mean() > 0.5 > X[y < 0, 0].mean()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: datasets.text_like(10, 20, informative=30), "informative"),
        (lambda: datasets.text_like(10, 20, informative=3, density=0.7), "density"),
        (lambda: datasets.text_like(0, 20), "n"),
        (lambda: datasets.autoregressive(10, 20, rho=1.0), "rho"),
        (lambda: datasets.block_correlated(10, 20, block=0), "block"),
        (lambda: datasets.autoregressive(10, 20, noise=-1.0), "noise"),
        (lambda: datasets.one_hot_interactions(10, (3, 0)), "levels"),
        (lambda: datasets.moons_graph(10, labelled=11), "labelled"),
        (lambda: datasets.lattice_graph(3, labelled=1, weight=0.0), "weight"),
    ],
)
def test_problems_that_cannot_be_are_refused_by_name(call, name):
    with pytest.raises(ValueError, match=rf"^`{name}` came as"):
        call()
