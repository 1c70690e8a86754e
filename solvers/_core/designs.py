"""Designs and graphs with a planted answer, for `solvers.datasets`."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csc_array, csr_array
from scipy.spatial import cKDTree

from . import sampling
from .random import check_rng
from .validation import check_count, check_flag, check_nonnegative, check_positive


class LinearProblem(NamedTuple):
    """A design, targets, and the coefficients behind them.

    Attributes
    ----------
    X : ndarray or scipy.sparse.csc_array, shape (n, p)
        Rows are samples; columns are contiguous.
    y : ndarray, shape (n,)
        Targets, or labels -1 and 1.
    w : ndarray, shape (p,)
        The planted coefficients.
    """

    X: np.ndarray | csc_array
    y: np.ndarray
    w: np.ndarray


class GraphProblem(NamedTuple):
    """A graph of which some nodes are labelled.

    Attributes
    ----------
    W : scipy.sparse.csr_array, shape (N, N)
        Weights of the edges, symmetric.
    labels : ndarray, shape (N,)
        What is known: NaN, or -1 for classes, where nothing is.
    truth : ndarray, shape (N,)
        What was hidden.
    points : ndarray, shape (N, 2)
        Places of the nodes.
    """

    W: csr_array
    labels: np.ndarray
    truth: np.ndarray
    points: np.ndarray


def text_like(
    n=1000,
    p=10000,
    *,
    density=0.01,
    exponent=0.7,
    informative=50,
    noise=0.1,
    classes=False,
    rng=None,
):
    """Draw a sparse design that looks like documents and their words.

    Parameters
    ----------
    n : int, default 1000
        Number of documents, the rows.
    p : int, default 10000
        Number of words, the columns.
    density : float, default 0.01
        Share of the entries that are stored.
    exponent : float, default 0.7
        Words occur in proportion to a power of their rank: Zipf's law.
    informative : int, default 50
        Number of planted coefficients other than zero, among the more frequent words.
    noise : float, default 0.1
        Standard deviation of the noise over that of the targets without it.
    classes : bool, default False
        Whether the targets are labels -1 and 1, the signs about the median.
    rng : int, numpy.random.Generator or None, default None
        Source of everything.

    Returns
    -------
    LinearProblem
        With rows of Euclidean length 1.

    Examples
    --------
    >>> from solvers import datasets
    >>> X, y, w = datasets.text_like(200, 500, rng=0)
    >>> X.shape, X.nnz
    ((200, 500), 1000)
    """
    n, p, informative = _sizes(n, p, informative)
    density = check_positive(density, "density")
    if density > 0.5:
        raise ValueError(f"`density` came as {density:g}; expected at most 0.5")
    exponent = check_nonnegative(exponent, "exponent")
    rng = check_rng(rng)
    word = sampling.power_law(rng, p, 1.0, exponent)

    def draw(count):
        return rng.integers(n, size=count) * p + word(count)

    size = round(density * n * p)
    rows, cols = np.divmod(sampling.distinct(rng, draw, size), p)
    # Repeated words count less than in proportion, frequent ones less than rare ones.
    documents = np.bincount(cols, minlength=p)
    weight = (1.0 + np.log1p(rng.poisson(0.5, size))) * np.log(2.0 * n / (1.0 + documents[cols]))
    length = np.sqrt(np.bincount(rows, weight**2, minlength=n))
    # Frequent words are not those with the first numbers.
    place = rng.permutation(p)
    X = csc_array((weight / length[rows], _narrow(rows, place[cols])), shape=(n, p))
    frequent = place[: max(p // 10, informative)]
    return _planted(rng, X, rng.permutation(frequent)[:informative], noise, classes)


def autoregressive(n=200, p=2000, *, rho=0.6, informative=20, noise=0.1, classes=False, rng=None):
    """Draw a Gaussian design whose columns are correlated with their neighbours.

    Parameters
    ----------
    n : int, default 200
        Number of samples.
    p : int, default 2000
        Number of features.
    rho : float, default 0.6
        Correlation of neighbours, in [0, 1); of columns i and j it is ``rho ** abs(i - j)``.
    informative : int, default 20
        Number of planted coefficients other than zero.
    noise : float, default 0.1
        Standard deviation of the noise over that of the targets without it.
    classes : bool, default False
        Whether the targets are labels -1 and 1, the signs about the median.
    rng : int, numpy.random.Generator or None, default None
        Source of everything.

    Returns
    -------
    LinearProblem
        With entries of variance 1.

    Examples
    --------
    >>> from solvers import datasets
    >>> X, y, w = datasets.autoregressive(100, 300, rng=0)
    >>> X.shape, int((w != 0).sum())
    ((100, 300), 20)
    """
    n, p, informative = _sizes(n, p, informative)
    rho, rng = _correlation(rho), check_rng(rng)
    X = rng.standard_normal((p, n)).T
    for j in range(1, p):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1.0 - rho * rho) * X[:, j]
    return _planted(rng, X, rng.permutation(p)[:informative], noise, classes)


def block_correlated(
    n=200, p=2000, *, block=50, rho=0.9, informative=20, noise=0.1, classes=False, rng=None
):
    """Draw a Gaussian design whose columns come in groups of like ones.

    Parameters
    ----------
    n : int, default 200
        Number of samples.
    p : int, default 2000
        Number of features.
    block : int, default 50
        Number of columns in a group; the last one may have fewer.
    rho : float, default 0.9
        Correlation of two columns of a group, in [0, 1); those of two groups are independent.
    informative : int, default 20
        Number of planted coefficients other than zero, at most one in a group if there are
        enough of these.
    noise : float, default 0.1
        Standard deviation of the noise over that of the targets without it.
    classes : bool, default False
        Whether the targets are labels -1 and 1, the signs about the median.
    rng : int, numpy.random.Generator or None, default None
        Source of everything.

    Returns
    -------
    LinearProblem
        With entries of variance 1.

    Examples
    --------
    >>> from solvers import datasets
    >>> datasets.block_correlated(100, 300, rng=0).X.shape
    (100, 300)
    """
    n, p, informative = _sizes(n, p, informative)
    block = check_count(block, "block", minimum=1)
    rho, rng = _correlation(rho), check_rng(rng)
    group = np.arange(p) // block
    common = rng.standard_normal((group[-1] + 1, n))
    X = (np.sqrt(rho) * common[group] + np.sqrt(1.0 - rho) * rng.standard_normal((p, n))).T
    # In turn from each group, in a random order.
    turn = np.lexsort((rng.random(group[-1] + 1)[group], np.arange(p) % block))
    return _planted(rng, X, turn[:informative], noise, classes)


def one_hot_interactions(
    n=2000, levels=(8, 12, 5, 20, 3), *, informative=20, noise=0.1, classes=False, rng=None
):
    """Draw categories, written as zeros and ones, with the products of every two of them.

    Parameters
    ----------
    n : int, default 2000
        Number of samples.
    levels : sequence of int, default (8, 12, 5, 20, 3)
        Number of values of each categorical variable; some are more frequent than others.
    informative : int, default 20
        Number of planted coefficients other than zero.
    noise : float, default 0.1
        Standard deviation of the noise over that of the targets without it.
    classes : bool, default False
        Whether the targets are labels -1 and 1, the signs about the median.
    rng : int, numpy.random.Generator or None, default None
        Source of everything.

    Returns
    -------
    LinearProblem
        `X` has a column for each value of each variable and then for each pair of values of two
        variables. The columns of a variable sum to 1: they are linearly dependent.

    Examples
    --------
    >>> from solvers import datasets
    >>> X, y, w = datasets.one_hot_interactions(300, (3, 4, 2), rng=0)
    >>> X.shape, bool((X[:, :3].sum(axis=1) == 1).all())
    ((300, 35), True)
    """
    n = check_count(n, "n", minimum=1)
    levels = [check_count(size, "levels", minimum=1) for size in levels]
    rng = check_rng(rng)
    values = [sampling.power_law(rng, size, 1.0, 0.7)(n) for size in levels]
    pairs = [(i, j) for i in range(len(levels)) for j in range(i)]
    values += [values[i] * levels[j] + values[j] for i, j in pairs]
    sizes = np.array(levels + [levels[i] * levels[j] for i, j in pairs], np.int64)
    starts = np.cumsum(sizes) - sizes
    cols = np.concatenate([start + value for start, value in zip(starts, values, strict=True)])
    rows = np.tile(np.arange(n), len(values))
    p = int(sizes.sum())
    X = csc_array((np.ones(rows.size), _narrow(rows, cols)), shape=(n, p))
    *_, informative = _sizes(n, p, informative)
    present = np.flatnonzero(X.sum(axis=0))
    return _planted(rng, X, rng.permutation(present)[:informative], noise, classes)


def moons_graph(n=2000, *, labelled=100, neighbours=5, noise=0.2, rng=None):
    """Connect points of two half-moons with their neighbours; few are labelled.

    Parameters
    ----------
    n : int, default 2000
        Number of points.
    labelled : int, default 100
        Number of points whose moon is known.
    neighbours : int, default 5
        Every point is connected with as many next ones, without weights.
    noise : float, default 0.2
        Standard deviation of the points' distance from their moon, whose radius is 1.
    rng : int, numpy.random.Generator or None, default None
        Source of everything.

    Returns
    -------
    GraphProblem
        With classes 0 and 1, and -1 where `labels` are hidden.

    Examples
    --------
    >>> from solvers import datasets
    >>> W, labels, truth, points = datasets.moons_graph(200, labelled=10, rng=0)
    >>> W.shape, int((labels >= 0).sum())
    ((200, 200), 10)
    """
    n = check_count(n, "n", minimum=2)
    labelled, rng = _labelled(labelled, n), check_rng(rng)
    neighbours = min(check_count(neighbours, "neighbours", minimum=1), n - 1)
    noise = check_nonnegative(noise, "noise")
    truth = np.arange(n) % 2
    angle = rng.uniform(0.0, np.pi, n)
    # The second moon is the first one turned around and moved between its horns.
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (1 - 2 * truth[:, None])
    points += truth[:, None] * np.array([1.0, 0.5]) + noise * rng.standard_normal((n, 2))
    _, near = cKDTree(points).query(points, k=neighbours + 1)
    rows, cols = np.repeat(np.arange(n), neighbours + 1), near.reshape(-1)
    others = rows != cols
    W = csr_array((np.ones(others.sum()), _narrow(rows[others], cols[others])), shape=(n, n))
    labels = np.full(n, -1)
    known = rng.permutation(n)[:labelled]
    labels[known] = truth[known]
    return GraphProblem(W.maximum(W.T), labels, truth, points)


def lattice_graph(rows=50, cols=None, *, labelled=100, weight=1.0, rng=None):
    """Connect the points of a lattice with their neighbours; few have a known value.

    Parameters
    ----------
    rows : int, default 50
        Number of rows of points.
    cols : int, optional
        Number of columns; as many as rows by default.
    labelled : int, default 100
        Number of points whose value is known.
    weight : float, default 1.0
        Weight of every edge.
    rng : int, numpy.random.Generator or None, default None
        Source of everything.

    Returns
    -------
    GraphProblem
        With values of a smooth surface, and NaN where `labels` are hidden.

    Examples
    --------
    >>> from solvers import datasets
    >>> W = datasets.lattice_graph(3, 4, labelled=5, rng=0).W
    >>> W.shape, W.nnz // 2
    ((12, 12), 17)
    """
    rows = check_count(rows, "rows", minimum=1)
    cols = rows if cols is None else check_count(cols, "cols", minimum=1)
    labelled = _labelled(labelled, rows * cols)
    weight, rng = check_positive(weight, "weight"), check_rng(rng)
    node = np.arange(rows * cols).reshape(rows, cols)
    edges = np.hstack(
        [(node[:, :-1].ravel(), node[:, 1:].ravel()), (node[:-1].ravel(), node[1:].ravel())]
    )
    there, back = np.hstack([edges, edges[::-1]])
    W = csr_array((np.full(there.size, weight), _narrow(there, back)), shape=(node.size,) * 2)
    points = np.stack(np.unravel_index(node.ravel(), node.shape), axis=1) / max(rows, cols)
    # A few waves of random directions.
    waves, phases = 2.0 * np.pi * rng.standard_normal((2, 5)), rng.uniform(0.0, 2.0 * np.pi, 5)
    truth = np.cos(points @ waves + phases).sum(axis=1)
    labels = np.full(node.size, np.nan)
    known = rng.permutation(node.size)[:labelled]
    labels[known] = truth[known]
    return GraphProblem(W, labels, truth, points)


def _narrow(rows, cols):
    """Return places as 32-bit numbers: half of the memory, and what other packages insist on."""
    return rows.astype(np.int32), cols.astype(np.int32)


def _sizes(n, p, informative):
    n, p = check_count(n, "n", minimum=1), check_count(p, "p", minimum=1)
    informative = check_count(informative, "informative")
    if informative > p:
        raise ValueError(f"`informative` came as {informative}; expected at most p = {p}")
    return n, p, informative


def _correlation(rho):
    rho = check_nonnegative(rho, "rho")
    if rho >= 1.0:
        raise ValueError(f"`rho` came as {rho:g}; expected a number in [0, 1)")
    return rho


def _labelled(labelled, n):
    labelled = check_count(labelled, "labelled", minimum=1)
    if labelled > n:
        raise ValueError(f"`labelled` came as {labelled}; expected at most {n}, the nodes")
    return labelled


def _planted(rng, X, support, noise, classes):
    noise = check_nonnegative(noise, "noise")
    w = np.zeros(X.shape[1])
    w[support] = rng.standard_normal(support.size)
    y = X @ w
    y += noise * (y.std() or 1.0) * rng.standard_normal(y.size)
    if check_flag(classes, "classes"):
        y = np.where(y > np.median(y), 1.0, -1.0)
    return LinearProblem(X, y, w)
