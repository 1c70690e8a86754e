"""The loss of several classes at once; its outputs belong together."""

import math

import numpy as np

from ._losses import LOSSES, Loss

# Newton's steps of a proximal point, at most.
_STEPS = 60
_TINY = 1e-300


class Softmax(Loss):
    """``log(sum_o exp(p_o)) - sum_o y_o p_o``, y being probabilities of classes.

    A dual point z is ``y - pi`` with probabilities pi.
    """

    @staticmethod
    def check(y):
        legal = len(y) > 1 and bool((y >= 0).all())
        if not (legal and float(abs(y.sum(axis=0) - 1.0).max()) <= 1e-5):
            raise ValueError(
                "`y` came with other rows than probabilities of classes; loss='softmax' needs "
                "shape (n, c), such as a 1 for the class of each sample among zeros"
            )

    def each(self, p):
        """Return the loss of every sample."""
        top = p.max(axis=0)
        total = self.xp.exp(p - top).sum(axis=0)
        return self.xp.log(total) + top - (self.y * p).sum(axis=0)

    def slope(self, p):
        return self._chances(p) - self.y

    def dual(self, z):
        chances = self.y - z
        return -float((chances * self.xp.log(self.xp.where(chances > 0, chances, 1.0))).sum())

    def clip(self, z):
        chances = self.xp.maximum(self.y - z, 0.0)
        total = chances.sum(axis=0)
        return self.y - self.xp.where(total > 0, chances / self.xp.maximum(total, _TINY), self.y)

    def reach(self, z):
        xp = self.xp
        ratio = xp.where(z > 0, self.y / xp.where(z > 0, z, 1.0), math.inf)
        return float(ratio.min())

    def best(self, z, largest):
        low, high = 0.0, min(largest, self.reach(z))
        if not math.isfinite(high):
            return 0.0
        # The entropy is concave in k.
        for k in (high, *(None,) * 60):
            middle = 0.5 * (low + high) if k is None else k
            chances = self.xp.maximum(self.y - middle * z, _TINY)
            rising = float((z * self.xp.log(chances)).sum()) > 0
            if rising and k is not None:
                return k
            low, high = (middle, high) if rising else (low, middle)
        return low

    def prox(self, q, rho):
        """Return the minimiser of ``L(p) + rho / 2 |p - q|^2``.

        With ``u = pi / rho`` it has ``u + log u = a - s + log(1 / rho)`` for ``a = q + y / rho``
        and the s at which the u of a sample sum to 1 / rho.
        """
        xp, total = self.xp, 1.0 / rho
        a = q + total * self.y
        # The sum falls and is convex: from where one u is all of it, Newton's s only rise.
        s = a.max(axis=0) - total
        for _ in range(_STEPS):
            u = _omega(xp, a - s + math.log(total))
            rise = (u.sum(axis=0) - total) / (u / (1.0 + u)).sum(axis=0)
            s = s + rise
            if not bool((rise > 1e-15 * (total + abs(s))).any()):
                break
        return a - _omega(xp, a - s + math.log(total))

    def prox_derivative(self, p, rho):
        return Curved(self.xp, self._chances(p), rho)

    def _chances(self, p):
        e = self.xp.exp(p - p.max(axis=0))
        return e / e.sum(axis=0)


class Curved:
    """The derivative of the proximal map: ``rho (rho + diag(pi) - pi pi^T)^-1`` of each sample.

    Attributes
    ----------
    diagonal : array, shape (c, n)
    """

    def __init__(self, xp, chances, rho):
        inverse = 1.0 / (rho + chances)
        self._rho, self._inverse, self._along = rho, inverse, inverse * chances
        # 1 - sum pi^2 / (rho + pi), without cancellation: the pi sum to 1.
        self._rest = rho * self._along.sum(axis=0)
        self.diagonal = rho * (inverse + xp.square(self._along) / self._rest)

    def solve(self, g):
        """Return the solution of ``(rho + diag(pi) - pi pi^T) x = g``."""
        return self._inverse * g + self._along * ((self._along * g).sum(axis=0) / self._rest)

    def __call__(self, x):
        return self._rho * self.solve(x)


def _omega(xp, x):
    """Return the u with ``u + log u = x``."""
    # Further down u would underflow.
    x = xp.maximum(x, 0.95 * math.log(np.finfo(x.dtype).tiny))
    low = xp.exp(xp.minimum(x, 1.0))
    u = xp.where(x > 1.0, x - xp.log(xp.maximum(x, 1.0)), low / (1.0 + low))
    for _ in range(5):
        u = u * (1.0 + x - xp.log(u)) / (1.0 + u)
    return u


EVERY = {**LOSSES, "softmax": Softmax}
