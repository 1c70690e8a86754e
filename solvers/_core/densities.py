"""Weights, points and costs: what makes transport problems."""

import numpy as np
from scipy.spatial.distance import cdist


def random_weights(rng, n):
    """Return weights between even and very uneven, some of them perhaps zero."""
    weights = rng.dirichlet(np.full(n, 10.0 ** rng.uniform(np.log10(0.02), 1.0)))
    if rng.random() < 1 / 3:
        heaviest = weights.argmax()
        empty = rng.random(n) < 0.3
        empty[heaviest] = False
        weights[empty] = 0.0
    return weights / weights.sum()


def random_cost(rng, n, m):
    """Return a cost of some kind, and the points behind it if there are any."""
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


def mixture(rng, size, dimension, components=5):
    """Return points around a few centres."""
    centres = rng.random((components, dimension))
    return rng.choice(centres, size=size) + 0.08 * rng.normal(size=(size, dimension))


def random_field(rng, side, correlation):
    """Return a periodic Gaussian random field with a Gaussian correlation function."""
    frequency = np.fft.fftfreq(side, 1.0 / side)
    square = frequency[:, None] ** 2 + frequency**2
    # Square root of the spectrum that belongs to exp(-r^2 / (2 correlation^2)).
    filtered = np.exp(-((np.pi * correlation) ** 2) * square)
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) * filtered).real
    return field - field.min()


def density(image):
    """Return weights: the image plus a background of one per cent, so that no pixel is empty."""
    weights = image.ravel() / image.sum() + 0.01 / image.size
    return weights / weights.sum()


def pixels(side):
    """Return the places of pixels in the unit square."""
    axis = np.linspace(0.0, 1.0, side)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def uniform(n):
    """Return equal weights."""
    return np.full(n, 1.0 / n)


def unit_cost(x, y, metric="sqeuclidean"):
    """Return distances between points, scaled to a maximum of 1."""
    C = cdist(x, y, metric)
    return C / (C.max() or 1.0)
