"""Problems and bundled pictures for docs, tests and benchmarks; nothing is ever downloaded.

Every transport problem is a `TransportProblem`: weights that sum to one and a cost matrix, with
the points behind the cost where there are any. Costs are scaled to a maximum of 1 unless a
function says otherwise, so that `reg` has the same meaning in all of them.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import zoom
from scipy.spatial.distance import cdist

from ._core.random import check_rng

__all__ = [
    "TransportProblem",
    "assignment",
    "color_transport",
    "digits_transport",
    "gaussian_mixture_transport",
    "grid_transport",
    "random_field_transport",
    "random_transport",
    "sample_photographs",
]


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
    a, b = (_density(zoom(images[k], side / 8, order=1)) for k in (i, j))
    pixels = _pixels(side)
    return TransportProblem(a, b, _unit_cost(pixels, pixels, metric), pixels, pixels)


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
    return TransportProblem(a / a.sum(), b / b.sum(), _unit_cost(x, y), x, y)


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
    return TransportProblem(_uniform(n), _uniform(n), _unit_cost(x, y), x, y)


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
    return TransportProblem(_uniform(n), _uniform(n), rng.random((n, n)))


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
    x, y = (_mixture(rng, size, dimension=2) for size in sizes)
    a, b = (rng.dirichlet(np.ones(size)) for size in sizes)
    return TransportProblem(a, b, _unit_cost(x, y), x, y)


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
    a, b = (_density(_random_field(rng, side, correlation)) for _ in range(2))
    pixels = _pixels(side)
    return TransportProblem(a, b, _unit_cost(pixels, pixels), pixels, pixels)


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
    a, b = _random_weights(rng, n), _random_weights(rng, m)
    C, x, y = _random_cost(rng, n, m)
    unit = 10.0 ** rng.uniform(-3, 3)
    C = unit * C
    reg = (np.ptp(C) or unit) * 10.0 ** rng.uniform(-5, 0)
    return TransportProblem(a, b, C, x, y, float(reg))


def _random_weights(rng, n):
    weights = rng.dirichlet(np.full(n, 10.0 ** rng.uniform(np.log10(0.02), 1.0)))
    if rng.random() < 1 / 3:
        heaviest = weights.argmax()
        empty = rng.random(n) < 0.3
        empty[heaviest] = False
        weights[empty] = 0.0
    return weights / weights.sum()


def _random_cost(rng, n, m):
    kind = rng.choice(["uniform", "ties", "spread", "repeated", "clusters"])
    if kind == "uniform":
        return rng.random((n, m)), None, None
    if kind == "ties":
        return rng.integers(0, 6, size=(n, m)).astype(float), None, None
    dimension = rng.integers(1, 4)
    if kind == "spread":
        x, y = rng.normal(size=(n, dimension)), rng.normal(0.5, 1.0, size=(m, dimension))
    elif kind == "repeated":
        places = rng.random((1 + min(n, m) // 4, dimension))
        x, y = rng.choice(places, size=n), rng.choice(places, size=m)
    else:
        centres = 20.0 * rng.normal(size=(3, dimension))
        x, y = (rng.choice(centres, size=k) + rng.normal(size=(k, dimension)) for k in (n, m))
    return cdist(x, y, rng.choice(["sqeuclidean", "euclidean", "cityblock"])), x, y


def _mixture(rng, size, dimension, components=5):
    centres = rng.random((components, dimension))
    return rng.choice(centres, size=size) + 0.08 * rng.normal(size=(size, dimension))


def _random_field(rng, side, correlation):
    """Return a periodic Gaussian random field with a Gaussian correlation function."""
    frequency = np.fft.fftfreq(side, 1.0 / side)
    square = frequency[:, None] ** 2 + frequency**2
    # Square root of the spectrum that belongs to exp(-r^2 / (2 correlation^2)).
    filtered = np.exp(-((np.pi * correlation) ** 2) * square)
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) * filtered).real
    return field - field.min()


def _density(image):
    """Return weights: the image plus a background of one per cent, so that no pixel is empty."""
    weights = image.ravel() / image.sum() + 0.01 / image.size
    return weights / weights.sum()


def _pixels(side):
    axis = np.linspace(0.0, 1.0, side)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def _uniform(n):
    return np.full(n, 1.0 / n)


def _unit_cost(x, y, metric="sqeuclidean"):
    C = cdist(x, y, metric)
    return C / (C.max() or 1.0)
