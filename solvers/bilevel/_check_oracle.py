"""Derivatives that a caller wrote, against differences of what they are derivatives of."""

import math

import numpy as np

from .._core.arrays import Ingest
from .._core.random import check_rng
from .._core.validation import check_array, check_count
from ._local import difference
from ._packing import Packer
from ._problem import Level


def check_oracle(oracle, x, y, *, rng=None, directions=5):
    """Compare all derivatives of one level with differences, along random directions.

    Parameters
    ----------
    oracle : callable or Oracle
        ``(x, y) -> (value, grad_x, grad_y)``, or an `Oracle`.
    x, y : array or nested list, tuple or dict of arrays
        Where to look; a point where nothing vanishes tells most.
    rng : int, numpy.random.Generator or None, default None
        Source of the directions.
    directions : int, default 5
        How many.

    Returns
    -------
    dict of str to float
        The relative error of each thing that the oracle has: "grad_x", "grad_y" (against
        values), "hvp_yy", "hvp_xy" (against gradients), "pair" (against two evaluations),
        "samples" (the mean over parts of the samples against the whole), "prox_y" (a violation
        of what every proximal map has: it moves no two points apart). About 1e-8 is right in
        double precision, 1e-3 in single; a wrong sign gives about 1.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> def level(x, y):
    ...     return (x * y**2).sum(), y**2, -2 * x * y  # the sign of grad_y is wrong
    >>> errors = bilevel.check_oracle(level, np.ones(3), np.ones(3), rng=0)
    >>> errors["grad_x"] < 1e-6 < errors["grad_y"]
    True
    """
    rng, directions = check_rng(rng), check_count(directions, "directions", minimum=1)
    px, py = Packer(x, "x"), Packer(y, "y")
    io = Ingest(**px.given, **py.given)
    for path in (*px.given, *py.given):
        check_array(io, path)
    px.bind(io), py.bind(io)
    with io.device, np.errstate(all="ignore"):
        level = Level(oracle, "oracle", (px, py), io)
        return _Probe(level, px.start(), py.start(), rng, directions).errors()


class _Probe:
    """One level at one point."""

    def __init__(self, level, x, y, rng, directions):
        self.level, self.x, self.y, self.rng, self.directions = level, x, y, rng, directions
        self.eps = float(np.finfo(level.io.dtype).eps)
        self.at = level.look(x, y)

    def errors(self):
        """Return the relative error of each part that the oracle has."""
        oracle = self.level.oracle
        parts = {"grad_x": self._grad_x, "grad_y": self._grad_y}
        parts |= {
            name: getattr(self, f"_{name}")
            for name in ("hvp_yy", "hvp_xy", "pair", "prox_y")
            if getattr(oracle, name) is not None
        }
        if oracle.n_samples is not None and oracle.n_samples > 1:
            parts["samples"] = self._samples
        return {name: part() for name, part in parts.items()}

    def _direction(self, v, grad=None):
        """Return a direction like v; with a gradient, one along which it changes, too."""
        xp = self.level.io.xp
        d = xp.asarray(self.rng.standard_normal(len(v)), dtype=v.dtype)
        if grad is not None and float(grad @ grad) > 0:
            d = d / xp.linalg.norm(d) + grad / xp.linalg.norm(grad)
        return d

    def _difference(self, fun, v, d):
        length = self.eps**0.2 * max(1.0, float(abs(v).max()))
        return difference(lambda t: fun(v + t * d), d, length)

    def _slopes(self, fun, v, grad):
        """Compare a gradient with the values' differences."""
        pairs = []
        for _ in range(self.directions):
            d = self._direction(v, grad)
            pairs.append((self._difference(fun, v, d), float(grad @ d)))
        size = float(self.level.io.xp.linalg.norm(d)) / max(1.0, float(abs(v).max()))
        return _apart(*np.array(pairs).T, self.eps**0.5 * abs(self.at.value) * size)

    def _grad_x(self):
        return self._slopes(lambda x: self.level.look(x, self.y).value, self.x, self.at.gx)

    def _grad_y(self):
        return self._slopes(lambda y: self.level.look(self.x, y).value, self.y, self.at.gy)

    def _products(self, product, name):
        """Compare products with a second derivative with the gradient's differences."""
        floor = self.eps**0.5 * float(abs(getattr(self.at, name)).max())
        return max(
            _apart(
                self._difference(lambda y: getattr(self.level.look(self.x, y), name), self.y, v),
                product(self.x, self.y, v),
                floor,
            )
            for v in (self._direction(self.y) for _ in range(self.directions))
        )

    def _hvp_yy(self):
        return self._products(self.level.hvp_yy, "gy")

    def _hvp_xy(self):
        return self._products(self.level.hvp_xy, "gx")

    def _pair(self):
        z = self.y + self._direction(self.y)
        first, second, gap, *_ = self.level.pair(self.x, self.y, z)
        # The pair may know the values' difference only.
        plain = Level(self.level.oracle, "oracle", (self.level.px, self.level.py), self.level.io)
        truth = plain.look(self.x, self.y + 0.0), plain.look(self.x, z + 0.0)
        values = truth[0].value - truth[1].value
        floor = self.eps**0.5 * (abs(truth[0].value) + abs(truth[1].value))
        grads = [
            _apart(getattr(ours, name), getattr(theirs, name), 0.0)
            for ours, theirs in zip((first, second), truth, strict=True)
            for name in ("gx", "gy")
        ]
        return max(_apart(np.array([gap]), np.array([values]), floor), *grads)

    def _samples(self):
        n = self.level.oracle.n_samples
        order = self.rng.permutation(n)
        parts = np.array_split(order, min(3, n))
        looks = [(len(part) / n, self.level.look(self.x, self.y, part)) for part in parts]
        grads = [
            _apart(sum(share * getattr(look, name) for share, look in looks), whole, 0.0)
            for name, whole in (("gx", self.at.gx), ("gy", self.at.gy))
        ]
        value = np.array([sum(share * look.value for share, look in looks)])
        return max(_apart(value, np.array([self.at.value]), 0.0), *grads)

    def _prox_y(self):
        worst = 0.0
        for _ in range(self.directions):
            u, v = (self.y + self._direction(self.y) for _ in range(2))
            a, b = map(self._moved, (u, v))
            apart = float((a - b) @ (a - b))
            worst = max(worst, (apart - float((a - b) @ (u - v))) / max(apart, 1e-300))
        return worst

    def _moved(self, v):
        py = self.level.py
        return py.pack(self.level.oracle.prox_y(py.unpack(v), 1.0), "`oracle`.prox_y returned y")


def _apart(ours, theirs, floor):
    """Return the distance between two vectors relative to the longer one; inf for NaN."""
    off = float(abs(ours - theirs).max())
    size = max(float(abs(ours).max()), float(abs(theirs).max()), floor)
    relative = off / size if size > 0 else off
    return relative if math.isfinite(relative) else math.inf
