"""The loss as an interior point sees it: slopes as variables, with a slack for each end.

With a = y z and m = y p for losses of margins, a = z and m = p for the others, every loss says

    phi'(a) + slack of the upper end - slack of the lower end = target - m

where phi is its conjugate inside the range of a. A slack times the room that is left to its end
is mu on the central path and vanishes at the optimum.
"""

import math
from dataclasses import dataclass
from typing import Any

from ._losses import Hinge, Huber, Logistic, Squared, SquaredHinge

# What is left, at the start, of the range of an end, at most.
_ROOM = 0.2
# Larger logits than these are steps of Newton's method that went astray.
_LOGITS = 500.0


def slopes_of(loss, z, mu):
    """Return minus the slopes of a loss, from z moved inside their range; mu is for the slacks."""
    if isinstance(loss, Logistic):
        return Logits(loss, z)
    low, high, bend = {
        Squared: (-math.inf, math.inf, 1.0),
        Huber: (-loss.delta, loss.delta, 1.0),
        SquaredHinge: (0.0, math.inf, 1.0),
        Hinge: (0.0, 1.0, 0.0),
    }[type(loss)]
    return Slopes(loss, z, mu, low, high, bend)


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
    """Minus the slopes of a loss whose conjugate is ``bend a^2 / 2`` between low and high.

    Parameters
    ----------
    loss : Loss
    z : array, shape (c, n)
    mu : float
        Product of slacks and rooms at the start.
    low, high, bend : float
    """

    def __init__(self, loss, z, mu, low, high, bend):
        self.xp, self.bend = loss.xp, bend
        one = loss.xp.ones_like(loss.y)
        self.sign, self.target = (loss.y, one) if loss.margin else (one, loss.y)
        room = _ROOM * min(high - low, 1.0)
        self.a = loss.xp.clip(self.sign * z, low + room, high - room)
        ends = [(end, side) for end, side in ((low, 1.0), (high, -1.0)) if math.isfinite(end)]
        self.slacks = [Slack(end, side, mu / (side * (self.a - end))) for end, side in ends]

    @property
    def z(self):
        """Minus the slopes of the loss."""
        return self.sign * self.a

    def products(self):
        """Return slack times room for every end."""
        return [slack.q * slack.room(self.a) for slack in self.slacks]

    def weights(self):
        """Return w in ``dz = w (drift - dp)``: the curvature of the loss."""
        bend = self.bend + 0.0 * self.a
        for slack in self.slacks:
            bend = bend + slack.q / slack.room(self.a)
        return 1.0 / bend

    def drift(self, p, goals):
        """Return what moves z where predictions p stay; `goals` are to be added to `products`."""
        drift = self.target - self.sign * p - self.bend * self.a
        for slack, goal in zip(self.slacks, goals, strict=True):
            drift = drift + slack.side * (slack.q + goal / slack.room(self.a))
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
        (da, moves), xp, a = step, self.xp, self.a
        ways = [longest(xp, s.room(a), s.side * da) for s in self.slacks]
        ways += [longest(xp, s.q, dq) for s, dq in zip(self.slacks, moves, strict=True)]
        return min(ways, default=1.0)

    def move(self, t, step):
        """Go t times along a step."""
        da, moves = step
        self.a = self.a + t * da
        for slack, dq in zip(self.slacks, moves, strict=True):
            slack.q = slack.q + t * dq


class Logits:
    """Minus the slopes of the logistic loss, as logits, so that no step can leave their range.

    A step of length 1 ends where the slopes are those at the predictions: the linearisation
    is that of Newton's method in the weights.
    """

    def __init__(self, loss, z):
        self.xp, self.scale, self.sign = loss.xp, loss.scale, loss.y
        share = loss.xp.clip(self.sign * z / self.scale, _ROOM, 1.0 - _ROOM)
        self.logit = loss.xp.log(share / (1.0 - share))

    @property
    def z(self):
        """Minus the slopes of the loss."""
        return self.sign * (self.scale / (1.0 + self.xp.exp(-self.logit)))

    def products(self):
        """Return nothing: there are no slacks."""
        return []

    def weights(self):
        """Return w in ``dz = w (drift - dp)``: the curvature of the loss."""
        e = self.xp.exp(-abs(self.logit))
        return self.scale**2 * e / self.xp.square(1.0 + e)

    def drift(self, p, goals):
        """Return what moves z where predictions p stay."""
        return -p - self.sign * self.logit / self.scale

    def step(self, dz, goals):
        """Return the move of the logits."""
        return self.scale * self.sign * dz / self.weights()

    def second_order(self, step):
        """Return nothing, as there are no slacks."""
        return []

    def longest(self, step):
        """Return 1: logits have no end."""
        return 1.0

    def move(self, t, step):
        """Go t times along a step."""
        self.logit = self.xp.clip(self.logit + t * step, -_LOGITS, _LOGITS)


def longest(xp, x, step):
    """Return how far positive x can move along a step, at most 1."""
    return float(xp.where(step < 0, -x / xp.minimum(step, -1e-300), 1.0).min(initial=1.0))
