"""The loss as an interior point sees it: slopes as variables, with a slack for each end.

With a = y z and m = y p for losses of margins, a = z and m = p for the others, every loss says

    phi'(a) + slack of the upper end - slack of the lower end = target - m

where phi is its conjugate inside the range of a: a square, nothing or an entropy. A slack times
the room that is left to its end is mu on the central path and vanishes at the optimum.
"""

import math
from dataclasses import dataclass
from typing import Any

from ._losses import Hinge, Huber, Logistic, Squared, SquaredHinge


def _range(loss):
    """Return the ends of a's range, and phi'' where it is constant."""
    return {
        Squared: (-math.inf, math.inf, 1.0),
        Huber: (-loss.delta, loss.delta, 1.0),
        SquaredHinge: (0.0, math.inf, 1.0),
        Hinge: (0.0, 1.0, 0.0),
        Logistic: (0.0, loss.scale, 0.0),
    }[type(loss)]


@dataclass
class Slack:
    """The slack of one end of the range: `side` is 1 at the lower end and -1 at the upper."""

    end: float
    side: float
    q: Any

    def room(self, a):
        """Return the distance to the end."""
        return self.side * (a - self.end)


class Slopes:
    """Minus the slopes of a loss, inside their range.

    Parameters
    ----------
    loss : Loss
    z : array, shape (c, n)
        Minus slopes to start from, moved inside.
    mu : float
        Product of slacks and rooms at the start.

    Attributes
    ----------
    a : array, shape (c, n)
    slacks : list of Slack
        One for each end that is finite; an entropy keeps off its ends by itself.
    """

    def __init__(self, loss, z, mu):
        self.xp, xp = loss.xp, loss.xp
        self.low, self.high, self.bend = _range(loss)
        self.entropy = isinstance(loss, Logistic)
        one = xp.ones_like(loss.y)
        self.sign = loss.y if loss.margin else one
        self.target = 0.0 * one if self.entropy else (one if loss.margin else loss.y)
        margin = 0.2 * min(self.high - self.low, 1.0)
        self.a = xp.clip(self.sign * z, self.low + margin, self.high - margin)
        ends = () if self.entropy else ((self.low, 1.0), (self.high, -1.0))
        self.slacks = [Slack(end, side, None) for end, side in ends if math.isfinite(end)]
        for slack in self.slacks:
            slack.q = mu / slack.room(self.a)

    @property
    def z(self):
        """Minus the slopes of the loss."""
        return self.sign * self.a

    def products(self):
        """Return slack times room for every end."""
        return [slack.q * slack.room(self.a) for slack in self.slacks]

    def weights(self):
        """Return w in ``dz = w (drift - dp)``: the curvature of the loss."""
        a = self.a
        bend = 1.0 / (a * (self.high - a)) if self.entropy else self.bend + 0.0 * a
        for slack in self.slacks:
            bend = bend + slack.q / slack.room(a)
        return 1.0 / bend

    def drift(self, p, goals):
        """Return what moves z where predictions p stay; `goals` are to be added to `products`."""
        a = self.a
        rise = self.xp.log(a / (self.high - a)) / self.high if self.entropy else self.bend * a
        drift = self.target - self.sign * p - rise
        for slack, goal in zip(self.slacks, goals, strict=True):
            drift = drift + slack.side * (slack.q + goal / slack.room(a))
        return self.sign * drift

    def step(self, dz, goals):
        """Return the moves of a and of the slacks."""
        da = self.sign * dz
        pairs = zip(self.slacks, goals, strict=True)
        return da, [(goal - s.q * s.side * da) / s.room(self.a) for s, goal in pairs]

    def second_order(self, step):
        """Return what a step adds to `products` beyond its goals."""
        da, moves = step
        return [s.side * da * dq for s, dq in zip(self.slacks, moves, strict=True)]

    def longest(self, step):
        """Return how far the step can go, at most 1."""
        (da, moves), xp = step, self.xp
        ways = [longest(xp, s.q, dq) for s, dq in zip(self.slacks, moves, strict=True)]
        for end, side in ((self.low, 1.0), (self.high, -1.0)):
            if math.isfinite(end):
                ways.append(longest(xp, side * (self.a - end), side * da))
        return min(ways, default=1.0)

    def move(self, t, step):
        """Go t times along a step."""
        da, moves = step
        self.a = self.a + t * da
        for slack, dq in zip(self.slacks, moves, strict=True):
            slack.q = slack.q + t * dq


def longest(xp, x, step):
    """Return how far positive x can move along a step, at most 1."""
    return float(xp.where(step < 0, -x / xp.minimum(step, -1e-300), 1.0).min(initial=1.0))
