"""Problems and bundled pictures for docs, tests and benchmarks; nothing is ever downloaded.

Every transport problem is a `TransportProblem`: weights that sum to one and a cost matrix, with
the points behind the cost where there are any. Costs are scaled to a maximum of 1 unless a
function says otherwise, so that `reg` has the same meaning in all of them.

Designs come as a `LinearProblem`, graphs with a few labels as a `GraphProblem`, functions under
constraints as a `ConstrainedProblem`, samples of a network as a `NetworkProblem`, matrices with
holes as a sparse matrix whose stored entries are the known ones, as triples, or as an array with
NaN.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import zoom
from scipy.sparse import coo_array

from ._core import densities, networks, sampling, validation
from ._core.designs import (
    GraphProblem,
    LinearProblem,
    autoregressive,
    block_correlated,
    lattice_graph,
    moons_graph,
    one_hot_interactions,
    text_like,
)
from ._core.networks import NetworkProblem, planted_network
from ._core.programs import (
    ConstrainedProblem,
    chained_rosenbrock,
    constrained_logistic,
    planted_program,
    poisson_control,
    stiefel_procrustes,
    thomson,
)
from ._core.random import check_rng

__all__ = [
    "ConstrainedProblem",
    "GraphProblem",
    "LinearProblem",
    "NetworkProblem",
    "TransportProblem",
    "assignment",
    "autoregressive",
    "block_correlated",
    "breast_cancer_interactions",
    "chained_rosenbrock",
    "color_transport",
    "constrained_logistic",
    "damaged_photograph",
    "digits_transport",
    "enlarged_digits",
    "gaussian_mixture_transport",
    "grid_transport",
    "lattice_graph",
    "listening_counts",
    "moons_graph",
    "one_hot_interactions",
    "planted_matrix",
    "planted_network",
    "planted_program",
    "poisson_control",
    "random_field_transport",
    "random_transport",
    "ratings_like",
    "read_movielens",
    "sample_photographs",
    "standard_table",
    "stiefel_procrustes",
    "text_like",
    "thomson",
]

# Topics of `listening_counts`, and how users divide their time: three favourites, then anything.
_TOPICS, _HABITS = 20, (0.45, 0.25, 0.15, 0.15)


class TransportProblem(NamedTuple):
    """Weights, cost and, where they exist, the points and a regularisation.

    Attributes
    ----------
    a, b : ndarray, shapes (n,) and (m,)
        Non-negative weights, each with sum 1.
    C : ndarray, shape (n, m)
        Cost of moving one unit of mass.
    x, y : ndarray, shapes (n, d) and (m, d), or None
        The points that `C` compares.
    reg : float or None
        Entropic regularisation in the unit of `C`, where the problem prescribes one.
    """

    a: np.ndarray
    b: np.ndarray
    C: np.ndarray
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    reg: float | None = None


def sample_photographs():
    """Return the two photographs that come with scikit-learn.

    Returns
    -------
    china, flower : ndarray, shape (427, 640, 3)
        Red, green and blue in [0, 1].

    Examples
    --------
    >>> from solvers import datasets
    >>> china, flower = datasets.sample_photographs()
    >>> china.shape
    (427, 640, 3)
    """
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    return china / 255.0, flower / 255.0


def digits_transport(i=0, j=1, side=32, metric="sqeuclidean"):
    """Move the ink of one handwritten digit to another.

    Parameters
    ----------
    i : int, default 0
        Position of the source, an 8 x 8 image of `sklearn.datasets.load_digits`.
    j : int, default 1
        Position of the target.
    side : int, default 32
        Both images are enlarged to `side` x `side` pixels.
    metric : str, default "sqeuclidean"
        Ground cost between pixels of the unit square, as in `scipy.spatial.distance.cdist`.

    Returns
    -------
    TransportProblem
        With n = m = `side` ** 2 pixels; `x` and `y` are their places.

    Examples
    --------
    >>> from solvers import datasets
    >>> datasets.digits_transport(3, 8, side=16).C.shape
    (256, 256)
    """
    from sklearn.datasets import load_digits

    images = load_digits().images
    a, b = (densities.density(zoom(images[k], side / 8, order=1)) for k in (i, j))
    pixels = densities.pixels(side)
    return TransportProblem(a, b, densities.unit_cost(pixels, pixels, metric), pixels, pixels)


def grid_transport(n=1000, m=None):
    """Move an exponential density to a mixture of two Gaussians on the interval [0, 5].

    Parameters
    ----------
    n : int, default 1000
        Number of source points.
    m : int or None, default None
        Number of target points; None: as many.

    Returns
    -------
    TransportProblem
        With the squared distance as cost.

    Notes
    -----
    The example of the RegOT package. The weights span several orders of magnitude.
    """
    x, y = np.linspace(0.0, 5.0, n), np.linspace(0.0, 5.0, n if m is None else m)
    a = np.exp(-x)
    # Mixture of N(1, 0.2^2) and N(3, 0.5^2) with weights 0.2 and 0.8, up to a common factor.
    b = np.exp(-0.5 * ((y - 1.0) / 0.2) ** 2) + 1.6 * np.exp(-0.5 * ((y - 3.0) / 0.5) ** 2)
    x, y = x[:, None], y[:, None]
    return TransportProblem(a / a.sum(), b / b.sum(), densities.unit_cost(x, y), x, y)


def color_transport(n=1000, rng=None):
    """Move the colours of one photograph to those of another.

    Parameters
    ----------
    n : int, default 1000
        Number of pixels drawn, without repetition, from each of `sample_photographs`.
    rng : int, numpy.random.Generator or None, default None
        Source of the draw.

    Returns
    -------
    TransportProblem
        With uniform weights; `x` and `y` are colours in [0, 1]^3, the cost is their squared
        distance.
    """
    rng = check_rng(rng)
    x, y = (
        rng.choice(picture.reshape(-1, 3), size=n, replace=False)
        for picture in sample_photographs()
    )
    return TransportProblem(
        densities.uniform(n), densities.uniform(n), densities.unit_cost(x, y), x, y
    )


def assignment(n=1000, rng=None):
    """Assign `n` workers to `n` jobs at costs drawn uniformly from [0, 1).

    Parameters
    ----------
    n : int, default 1000
        Number of workers and of jobs.
    rng : int, numpy.random.Generator or None, default None
        Source of the costs.

    Returns
    -------
    TransportProblem
        With uniform weights and no points.
    """
    rng = check_rng(rng)
    return TransportProblem(densities.uniform(n), densities.uniform(n), rng.random((n, n)))


def gaussian_mixture_transport(n=1000, m=None, rng=None):
    """Move one cloud of points in the plane to another, with random weights.

    Parameters
    ----------
    n : int, default 1000
        Number of source points.
    m : int or None, default None
        Number of target points; None: as many.
    rng : int, numpy.random.Generator or None, default None
        Source of points and weights.

    Returns
    -------
    TransportProblem
        Each cloud comes from its own mixture of five Gaussians and has Dirichlet(1) weights; the
        cost is the squared distance.
    """
    rng = check_rng(rng)
    sizes = n, n if m is None else m
    x, y = (densities.mixture(rng, size, dimension=2) for size in sizes)
    a, b = (rng.dirichlet(np.ones(size)) for size in sizes)
    return TransportProblem(a, b, densities.unit_cost(x, y), x, y)


def random_field_transport(side=32, rng=None, *, correlation=0.1):
    """Move one smooth random image to another, as in the DOTmark collection.

    Parameters
    ----------
    side : int, default 32
        The images have `side` x `side` pixels.
    rng : int, numpy.random.Generator or None, default None
        Source of both images.
    correlation : float, default 0.1
        Distance over which the fields vary, as a fraction of the image's side.

    Returns
    -------
    TransportProblem
        With the squared distance between pixels of the unit square as cost.
    """
    rng = check_rng(rng)
    a, b = (densities.density(densities.random_field(rng, side, correlation)) for _ in range(2))
    pixels = densities.pixels(side)
    return TransportProblem(a, b, densities.unit_cost(pixels, pixels), pixels, pixels)


def random_transport(rng=None, *, largest=300):
    """Draw one problem from a family made to find a solver's weak points.

    Parameters
    ----------
    rng : int, numpy.random.Generator or None, default None
        Source of everything; successive integers give the suite used by the benchmarks.
    largest : int, default 300
        Upper limit for the numbers of rows and columns.

    Returns
    -------
    TransportProblem
        With `reg` between 1 and 1e-5 of the cost's range. Weights are Dirichlet with a
        concentration between 0.02 and 10, in a third of the problems some are exactly zero. The
        cost is uniform, small integers (ties), or a distance between points that are spread,
        repeated, or gathered in distant clusters. It is not scaled to 1: its unit varies from
        1e-3 to 1e3.
    """
    rng = check_rng(rng)
    n, m = rng.integers(1, largest + 1, size=2)
    a, b = densities.random_weights(rng, n), densities.random_weights(rng, m)
    C, x, y = densities.random_cost(rng, n, m)
    unit = 10.0 ** rng.uniform(-3, 3)
    C = unit * C
    reg = (np.ptp(C) or unit) * 10.0 ** rng.uniform(-5, 0)
    return TransportProblem(a, b, C, x, y, float(reg))


def planted_matrix(
    m, n, rank, oversampling, *, cond=1.0, noise=0.0, min_degree=None, popularity=False, rng=None
):
    """Hide a matrix of low rank behind some of its entries.

    Parameters
    ----------
    m, n : int
        Numbers of rows and columns.
    rank : int
        Rank of the matrix.
    oversampling : float
        Number of known entries over ``rank * (m + n - rank)``, the number of parameters. Below 1
        no method can find the matrix.
    cond : float, default 1.0
        Ratio of the largest to the smallest singular value; they are spaced geometrically.
    noise : float, default 0.0
        Standard deviation of Gaussian noise on the known entries, whose root mean square is
        about 1.
    min_degree : int or None, default None
        Rows and columns with fewer entries get more, ``2 * rank`` at a time; None: `rank`.
    popularity : bool, default False
        Whether some rows and columns are known much better than others, by power laws, instead of
        all alike; then at most a quarter of the entries can be known.
    rng : int, numpy.random.Generator or None, default None
        Source of everything.

    Returns
    -------
    rows, cols : ndarray of int, shape (N,)
        Where the known entries are, row by row, each place once.
    vals : ndarray, shape (N,)
        Their values.
    L, R : ndarray, shapes (m, rank) and (n, rank)
        The matrix is ``L @ R.T``; the root mean square of its entries is 1.

    Examples
    --------
    >>> from solvers import datasets
    >>> rows, cols, vals, L, R = datasets.planted_matrix(60, 50, 3, 3.0, cond=10.0, rng=4)
    >>> bool(abs((L @ R.T)[rows, cols] - vals).max() < 1e-12)
    True
    """
    m, n = (validation.check_count(x, name, minimum=1) for x, name in ((m, "m"), (n, "n")))
    rank = _at_most(validation.check_count(rank, "rank", minimum=1), "rank", min(m, n))
    oversampling = validation.check_positive(oversampling, "oversampling")
    cond, noise = (
        validation.check_positive(cond, "cond"),
        validation.check_nonnegative(noise, "noise"),
    )
    least = _at_most(
        validation.check_count(min_degree, "min_degree", allow_none=True), "min_degree", min(m, n)
    )
    rng = check_rng(rng)
    free = rank * (m + n - rank)
    _at_most(oversampling, "oversampling", m * n / free)
    size = round(oversampling * free)
    L, R = (np.linalg.qr(rng.standard_normal((side, rank)))[0] for side in (m, n))
    s = np.geomspace(cond, 1.0, rank)
    L *= s * (np.sqrt(float(m) * n) / np.linalg.norm(s))
    if validation.check_flag(popularity, "popularity"):
        _at_most(oversampling, "oversampling", m * n / (4 * free))
        places = sampling.distinct(rng, sampling.popular_places(rng, m, n), size)
    else:
        places = sampling.distinct_uniform(rng, m, n, size)
    places = sampling.topped_up(rng, places, m, n, rank if least is None else least, 2 * rank)
    rows, cols = np.divmod(places, n)
    vals = sampling.entries_of(L, R, rows, cols)
    if noise:
        vals += noise * rng.standard_normal(vals.size)
    return rows, cols, vals, L, R


def ratings_like(m=6000, n=3700, size=800_000, *, rng=None):
    """Draw ratings that look like those of films, of one half to five stars.

    Parameters
    ----------
    m : int, default 6000
        Number of users.
    n : int, default 3700
        Number of items.
    size : int, default 800_000
        Number of ratings, at most a quarter of all places.
    rng : int, numpy.random.Generator or None, default None
        Source of everything.

    Returns
    -------
    scipy.sparse.coo_array, shape (m, n)
        Stored entries are ratings. Few users give and few items get most of them, by power laws.
        Their mean is about 3.5, their standard deviation about 1.1: biases of users (0.45) and
        items (0.5), a part of rank 20 with a decaying spectrum (0.6), and noise (0.8).

    Examples
    --------
    >>> from solvers import datasets
    >>> ratings = datasets.ratings_like(600, 370, 8000, rng=0)
    >>> ratings.shape, ratings.nnz, float(ratings.data.max())
    ((600, 370), 8000, 5.0)
    """
    m, n = (validation.check_count(x, name, minimum=1) for x, name in ((m, "m"), (n, "n")))
    size = _at_most(validation.check_count(size, "size", minimum=1), "size", m * n / 4)
    rng = check_rng(rng)
    rows, cols = np.divmod(sampling.distinct(rng, sampling.popular_places(rng, m, n), size), n)
    # The popular are not those with the first numbers.
    rows, cols = rng.permutation(m)[rows], rng.permutation(n)[cols]
    rank = min(20, m, n)
    weight = 0.85 ** np.arange(rank)
    L, R = (rng.standard_normal((side, rank)) for side in (m, n))
    vals = sampling.entries_of(L * (0.6 * weight / np.linalg.norm(weight)), R, rows, cols)
    vals += 3.5 + 0.8 * rng.standard_normal(size)
    vals += 0.45 * rng.standard_normal(m)[rows] + 0.5 * rng.standard_normal(n)[cols]
    stars = np.clip(np.rint(2 * vals) / 2, 0.5, 5.0)
    return coo_array((stars, (rows.astype(np.int32), cols.astype(np.int32))), shape=(m, n))


def listening_counts(m=7000, n=1000, size=1_000_000, *, rng=None):
    """Draw how often each user has chosen each item: implicit feedback.

    Parameters
    ----------
    m : int, default 7000
        Number of users.
    n : int, default 1000
        Number of items.
    size : int, default 1_000_000
        Number of pairs that occur, at most a quarter of all.
    rng : int, numpy.random.Generator or None, default None
        Source of everything.

    Returns
    -------
    scipy.sparse.coo_array, shape (m, n)
        Stored entries are counts, 1 or more, in float64. Every user has three favourites among
        20 topics and now and then tries something else; within a topic items are popular by a
        power law.

    Examples
    --------
    >>> from solvers import datasets
    >>> counts = datasets.listening_counts(700, 400, 8000, rng=0)
    >>> counts.nnz, float(counts.data.min())
    (8000, 1.0)
    """
    m, n = (validation.check_count(x, name, minimum=1) for x, name in ((m, "m"), (n, "n")))
    size = _at_most(validation.check_count(size, "size", minimum=1), "size", m * n / 4)
    rng = check_rng(rng)
    topics = min(_TOPICS, n)
    favourites = rng.integers(topics, size=(m, len(_HABITS) - 1), dtype=np.int32)
    eager = sampling.power_law(rng, m, 5.0, 0.6)
    # Item j is about topic j % topics.
    liked = sampling.power_law(rng, -(-n // topics), 2.0, 0.9)

    def draw(count):
        rows = eager(count)
        habit = np.searchsorted(np.cumsum(_HABITS[:-1]), rng.random(count))
        topic = rng.integers(topics, size=count)
        settled = habit < favourites.shape[1]
        topic[settled] = favourites[rows[settled], habit[settled]]
        cols = topics * liked(count) + topic
        exists = cols < n
        return rows[exists] * n + cols[exists]

    places, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    while places.size < size:
        drawn, times = np.unique(draw(int(1.2 * (size - places.size)) + 100), return_counts=True)
        places, where = np.unique(np.concatenate([places, drawn]), return_inverse=True)
        counts = np.bincount(where, weights=np.concatenate([counts, times]))
    kept = sampling.some(rng, places.size, size)
    rows, cols = np.divmod(places[kept], n)
    rows, cols = rng.permutation(m)[rows], rng.permutation(n)[cols]
    return coo_array((counts[kept], (rows.astype(np.int32), cols.astype(np.int32))), shape=(m, n))


def damaged_photograph(name="china", missing=0.7, *, rng=None):
    """Return a photograph in grey that lacks some of its pixels.

    Parameters
    ----------
    name : {"china", "flower"}, default "china"
        One of `sample_photographs`.
    missing : float, default 0.7
        Share of the pixels that are lost, between 0 and 1; uniformly at random.
    rng : int, numpy.random.Generator or None, default None
        Source of the damage.

    Returns
    -------
    damaged : ndarray, shape (427, 640)
        Luminance in [0, 1], NaN where a pixel is lost.
    whole : ndarray, shape (427, 640)
        The same without damage.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import datasets
    >>> damaged, whole = datasets.damaged_photograph(rng=0)
    >>> round(float(np.isnan(damaged).mean()), 2)
    0.7
    """
    names = ("china", "flower")
    name = validation.check_choice(name, "name", names)
    missing = _at_most(validation.check_nonnegative(missing, "missing"), "missing", 1)
    rng = check_rng(rng)
    whole = sample_photographs()[names.index(name)] @ (0.299, 0.587, 0.114)
    damaged = whole.copy()
    lost = sampling.some(rng, whole.size, round(missing * whole.size))
    damaged.ravel()[lost] = np.nan
    return damaged, whole


def breast_cancer_interactions():
    """Return measurements of tumours with their products, and which tumours are malignant.

    Returns
    -------
    X : ndarray, shape (569, 495)
        The thirty features of `sklearn.datasets.load_breast_cancer` and the products of every two
        of them, squares included, each with mean 0 and variance 1.
    y : ndarray, shape (569,)
        1 for malignant, -1 for benign.
    names : list of str
        Of the columns.

    Examples
    --------
    >>> from solvers import datasets
    >>> X, y, names = datasets.breast_cancer_interactions()
    >>> X.shape, int((y > 0).sum()), names[0]
    ((569, 495), 212, 'mean radius')
    """
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    X = _standardised(data.data)
    i, j = np.triu_indices(X.shape[1])
    names = list(map(str, data.feature_names))
    names += [f"{names[a]} x {names[b]}" for a, b in zip(i, j, strict=True)]
    y = np.where(data.target == 0, 1.0, -1.0)
    return np.asfortranarray(np.hstack([X, _standardised(X[:, i] * X[:, j])])), y, names


def standard_table(name="breast_cancer"):
    """Return a table that comes with scikit-learn, ready for training networks.

    Parameters
    ----------
    name : {"breast_cancer", "diabetes", "digits", "iris", "wine"}, default "breast_cancer"
        Which one.

    Returns
    -------
    X : ndarray, shape (n, d + 1)
        Features with mean 0 and variance 1 and a column of ones, all divided by the root of
        d + 1: rows have mean square length 1.
    y : ndarray, shape (n,)
        Labels: 1 for benign tumours, odd digits, the last two species of iris (the first is left
        out) told apart, the first cultivar of wine; else -1. For "diabetes" the target with mean
        0 and variance 1.

    Examples
    --------
    >>> from solvers import datasets
    >>> X, y = datasets.standard_table("wine")
    >>> X.shape, int((y > 0).sum())
    ((178, 14), 59)
    """
    from sklearn import datasets as bundled

    positive = {
        "breast_cancer": lambda y: y == 1,
        "diabetes": None,
        "digits": lambda y: y % 2 == 1,
        "iris": lambda y: y == 2,
        "wine": lambda y: y == 0,
    }
    validation.check_choice(name, "name", tuple(positive))
    X, y = getattr(bundled, f"load_{name}")(return_X_y=True)
    if name == "iris":
        X, y = X[y > 0], y[y > 0]
    label = positive[name]
    y = _standardised(y) if label is None else np.where(label(y), 1.0, -1.0)
    return networks.scaled_rows(X), y


def enlarged_digits(side=28, noise=0.05, *, rng=None):
    """Enlarge scikit-learn's handwritten digits to the size of larger collections.

    Parameters
    ----------
    side : int, default 28
        Images are `side` x `side` pixels.
    noise : float, default 0.05
        Standard deviation of the noise of a pixel.
    rng : int, Generator or None, default None
        Where noise comes from.

    Returns
    -------
    X : ndarray, shape (1797, side ** 2)
        Images as rows, ink in [0, 1].
    y : ndarray of int, shape (1797,)
        The digits that they show.

    Examples
    --------
    >>> from solvers import datasets
    >>> X, y = datasets.enlarged_digits(16, rng=0)
    >>> X.shape, int(y[0])
    ((1797, 256), 0)
    """
    from sklearn.datasets import load_digits

    side = validation.check_count(side, "side", minimum=8)
    noise, rng = validation.check_nonnegative(noise, "noise"), check_rng(rng)
    images, y = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16.0
    images = zoom(images, (1, side / 8, side / 8), order=1)
    images += noise * rng.standard_normal(images.shape)
    return np.clip(images, 0.0, 1.0).reshape(len(images), -1), y


def read_movielens(path):
    r"""Read ratings from a file of the MovieLens collection that you have.

    Parameters
    ----------
    path : str or path
        A ``ratings.csv`` (with a header; user, item and rating are its first columns) or a
        ``u.data`` (the same without a header, separated by tabs).

    Returns
    -------
    ratings : scipy.sparse.coo_array, shape (m, n)
        Stored entries are ratings, in the order of the file.
    users, items : ndarray of int, shapes (m,) and (n,)
        The file's numbers of rows and columns, ascending.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from solvers import datasets
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "u.data"
    ...     _ = path.write_text("196\t242\t3\t881250949\n186\t302\t4\t891717742\n")
    ...     ratings, users, items = datasets.read_movielens(path)
    >>> ratings.toarray(), users
    (array([[0., 4.],
           [3., 0.]]), array([186, 196]))
    """
    with Path(path).open(encoding="utf-8") as file:
        first = file.readline()
    comma = "," in first
    table = np.loadtxt(
        path,
        delimiter="," if comma else "\t",
        skiprows=int(comma and not first[0].isdigit()),
        usecols=(0, 1, 2),
        ndmin=2,
    )
    (users, rows), (items, cols) = (
        np.unique(table[:, k].astype(np.int64), return_inverse=True) for k in (0, 1)
    )
    shape = users.size, items.size
    return coo_array((table[:, 2], (rows, cols)), shape=shape), users, items


def _standardised(X):
    return (X - X.mean(axis=0)) / X.std(axis=0)


def _at_most(value, name, limit):
    if value is not None and value > limit:
        raise ValueError(f"`{name}` came as {value}; expected at most {limit:.6g}")
    return value
