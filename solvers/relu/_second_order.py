"""Second-order cones ``|x_1| <= x_0``, many at a time: what a primal-dual method needs of them.

A point of a cone is a pair of arrays, `head` (...) and `tail` (..., d). The scaling is that of
Nesterov and Todd: ``W y = W^-1 x`` for the pair of a point x and its dual y.
"""

from dataclasses import dataclass
from typing import Any


def dot(a, b):
    """Return the products of the tails."""
    return (a * b).sum(axis=-1)


def product(x, y):
    """Return the Jordan product, whose value is ``mu (1, 0)`` on the central path."""
    (a, u), (b, v) = x, y
    return a * b + dot(u, v), a[..., None] * v + b[..., None] * u


@dataclass(frozen=True)
class Scaling:
    """The scaling of points and duals, and ``scaled = W y``.

    Attributes
    ----------
    size : array
        W's determinant, the root of it.
    head, tail : arrays
        W / size, as a point on the hyperboloid ``head^2 - |tail|^2 = 1``.
    scaled : pair of arrays
    """

    size: Any
    head: Any
    tail: Any
    scaled: Any = None

    @classmethod
    def of(cls, xp, x, y):
        """Return the scaling of points x and duals y, both inside."""
        (a, u), (b, v) = x, y
        deep_x, deep_y = (xp.sqrt(_depth(xp, *point)) for point in (x, y))
        a, u, b, v = a / deep_x, u / deep_x[..., None], b / deep_y, v / deep_y[..., None]
        half = 0.5 / xp.sqrt(0.5 * (1.0 + a * b + dot(u, v)))
        size, head, tail = xp.sqrt(deep_x / deep_y), (a + b) * half, (u - v) * half[..., None]
        return cls(size, head, tail, cls(size, head, tail).times(y))

    def times(self, x):
        """Return ``W x``."""
        a, u = x
        along = dot(self.tail, u)
        more = (along / (1.0 + self.head) + a)[..., None] * self.tail
        return self.size * (self.head * a + along), self.size[..., None] * (u + more)

    def over(self, x):
        """Return ``W^-1 x``."""
        a, u = x
        along = dot(self.tail, u)
        more = (along / (1.0 + self.head) - a)[..., None] * self.tail
        return (self.head * a - along) / self.size, (u + more) / self.size[..., None]

    def divide(self, r):
        """Return ``W^-1 x`` for the x whose Jordan product with `scaled` is r."""
        (a, u), (b, v) = self.scaled, r
        head = (a * b - dot(u, v)) / (a * a - dot(u, u))
        return self.over((head, (v - head[..., None] * u) / a[..., None]))


def longest(xp, x, step):
    """Return how far every point can move along its step, at most 1."""
    (a, u), (b, v) = x, step
    square, along, deep = b * b - dot(v, v), a * b - dot(u, v), _depth(xp, a, u)
    root = along * along - square * deep
    # The first root of deep + 2 along t + square t^2, where there is one ahead.
    ahead = (root >= 0) & ((along < 0) | (square < 0))
    first = deep / xp.maximum(xp.sqrt(xp.maximum(root, 0.0)) - along, 1e-300)
    tip = -a / xp.minimum(b, -1e-300)
    return float(xp.minimum(xp.where(ahead, first, 1.0), tip).min(initial=1.0))


def _depth(xp, head, tail):
    norm = xp.sqrt(dot(tail, tail))
    return (head - norm) * (head + norm)
