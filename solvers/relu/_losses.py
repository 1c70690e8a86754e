"""Losses of a network's predictions p, summed over samples, and what their duals need.

Everything works on arrays whose last axis runs over samples. `z` is a dual candidate, minus a
slope of the loss; `k z` is tried for multiples k between 0 and `reach`.
"""

import math

import numpy as np

from .._core.backend import get_backend


class Loss:
    """A loss of the targets y.

    Parameters
    ----------
    y : array, shape (..., n)
    xp : module
    """

    # Whether targets must be -1 or 1.
    margin = False
    # Largest second derivative.
    curvature_bound = 1.0
    # Its number among the losses of robust training, which the kernels know.
    robust = -1

    def __init__(self, y, xp, *, delta=1.35, logit_scale=1.0):
        self.y, self.xp, self.delta, self.scale = y, xp, delta, logit_scale

    @staticmethod
    def check(y):
        """Raise where targets are none of this loss."""

    def value(self, p):
        """Return the loss."""
        return float(self.each(p).sum())

    def clip(self, z):
        """Return the dual candidate moved into the conjugate's domain."""
        return z

    def reach(self, z):
        """Return the largest k for which ``k z`` stays in the domain."""
        return math.inf

    def prox_derivative(self, p, rho):
        """Return the derivative of `prox` where its value is p: a map with its `diagonal`."""
        return Scaling(self.prox_slope(p, rho))

    def prox_slope(self, p, rho):
        """Return that derivative as an array, where samples and outputs are independent."""
        return rho / (rho + self.curvature(p))

    def best(self, z, largest):
        """Return the k in [0, largest] with the highest dual value of ``k z``."""
        along, square = self._parabola(z)
        k = along / square if square > 0 else 0.0
        return min(max(k, 0.0), largest, self.reach(z))


class Scaling:
    """Multiplication by the entries of `diagonal`."""

    def __init__(self, diagonal):
        self.diagonal = diagonal

    def __call__(self, x):
        return self.diagonal * x


class Squared(Loss):
    """``(p - y)^2 / 2``."""

    robust = 2

    def each(self, p):
        """Return the loss of each sample."""
        return 0.5 * self.xp.square(p - self.y)

    def slope(self, p):
        return p - self.y

    def curvature(self, p):
        return self.xp.ones_like(p)

    def dual(self, z):
        return float((z * self.y).sum() - 0.5 * self.xp.square(z).sum())

    def prox(self, q, rho):
        """Return the minimiser of ``L(p) + rho / 2 (p - q)^2``."""
        return (rho * q + self.y) / (1.0 + rho)

    def _parabola(self, z):
        return float((z * self.y).sum()), float(self.xp.square(z).sum())


class Huber(Squared):
    """``r^2 / 2`` of ``r = p - y`` up to `delta`, linear from there."""

    def each(self, p):
        r = abs(p - self.y)
        d = self.delta
        return self.xp.where(r <= d, 0.5 * r * r, d * r - 0.5 * d * d)

    def slope(self, p):
        return self.xp.clip(p - self.y, -self.delta, self.delta)

    def curvature(self, p):
        return (abs(p - self.y) < self.delta).astype(p.dtype)

    def clip(self, z):
        return self.xp.clip(z, -self.delta, self.delta)

    def reach(self, z):
        largest = float(abs(z).max())
        return self.delta / largest if largest > 0 else math.inf

    def prox(self, q, rho):
        r, d = q - self.y, self.delta
        inside = abs(r) <= d * (1.0 + 1.0 / rho)
        return self.xp.where(
            inside, self.y + r * (rho / (1.0 + rho)), q - self.xp.sign(r) * (d / rho)
        )


class SquaredHinge(Loss):
    """``max(1 - y p, 0)^2 / 2``."""

    margin = True

    def each(self, p):
        return 0.5 * self.xp.square(self.xp.maximum(1.0 - self.y * p, 0.0))

    def slope(self, p):
        return -self.y * self.xp.maximum(1.0 - self.y * p, 0.0)

    def curvature(self, p):
        return (self.y * p < 1.0).astype(p.dtype)

    def dual(self, z):
        a = self.y * z
        return float((a - 0.5 * a * a).sum())

    def clip(self, z):
        return self.y * self.xp.maximum(self.y * z, 0.0)

    def prox(self, q, rho):
        a = self.y * q
        return self.y * self.xp.where(a >= 1.0, a, (rho * a + 1.0) / (rho + 1.0))

    def _parabola(self, z):
        return float((z * self.y).sum()), float(self.xp.square(z).sum())


class Hinge(Loss):
    """``max(1 - y p, 0)``."""

    margin = True
    robust = 0
    curvature_bound = math.inf

    def each(self, p):
        return self.xp.maximum(1.0 - self.y * p, 0.0)

    def slope(self, p):
        return -self.y * (self.y * p < 1.0)

    def dual(self, z):
        return float((self.y * z).sum())

    def clip(self, z):
        return self.y * self.xp.clip(self.y * z, 0.0, 1.0)

    def reach(self, z):
        largest = float((self.y * z).max())
        return 1.0 / largest if largest > 0 else math.inf

    def best(self, z, largest):
        # Linear and increasing: as far as both limits let it.
        return min(largest, self.reach(z), 1e300)

    def prox(self, q, rho):
        a = self.y * q
        pushed = self.xp.minimum(a + 1.0 / rho, 1.0)
        return self.y * self.xp.where(a >= 1.0, a, pushed)

    def prox_slope(self, p, rho):
        # Many arguments have the kink itself as their proximal point.
        return (self.y * p != 1.0).astype(p.dtype)


class Logistic(Loss):
    """``log(1 + exp(-s y p))`` with s the scale of logits."""

    margin = True
    robust = 1

    def __init__(self, y, xp, **parameters):
        super().__init__(y, xp, **parameters)
        self.curvature_bound = 0.25 * self.scale**2

    def each(self, p):
        m = self.scale * self.y * p
        xp = self.xp
        return xp.maximum(-m, 0.0) + xp.log1p(xp.exp(-abs(m)))

    def slope(self, p):
        return -self.scale * self.y * self._chance(-self.scale * self.y * p)

    def curvature(self, p):
        e = self.xp.exp(-abs(self.scale * p))
        return self.scale**2 * e / self.xp.square(1.0 + e)

    def dual(self, z):
        a = self.y * z / self.scale
        return -float((self._xlogx(a) + self._xlogx(1.0 - a)).sum())

    def clip(self, z):
        return self.y * self.xp.clip(self.y * z, 0.0, self.scale)

    def reach(self, z):
        largest = float((self.y * z).max())
        return self.scale / largest if largest > 0 else math.inf

    def best(self, z, largest):
        high = min(largest, self.reach(z))
        if not np.isfinite(high):
            return 0.0
        low, k = 0.0, high
        a = self.y * z / self.scale
        # The entropy is concave in k: its slope changes sign once.
        for _ in range(60):
            inside = self.xp.clip(k * a, 1e-300, 1.0 - 1e-16)
            slope = -float((a * (self.xp.log(inside) - self.xp.log1p(-inside))).sum())
            low, high = (k, high) if slope > 0 else (low, k)
            if slope > 0 and k == high:
                return k
            k = 0.5 * (low + high)
        return low

    def prox(self, q, rho):
        a = (self.y * q).reshape(-1)
        m = self.xp.empty_like(a)
        # One for all samples, or each its own; kernels read memory, which one alone has not enough.
        rho = self.xp.broadcast_to(self.xp.asarray(rho, dtype=a.dtype), q.shape)
        rho = self.xp.ascontiguousarray(rho).reshape(-1)
        be = get_backend(self.xp.__name__)
        be.kernels("solvers.relu").logistic(a, self.scale, rho, m)
        return self.y * m.reshape(q.shape)

    def _chance(self, t):
        e = self.xp.exp(-abs(t))
        return self.xp.where(t >= 0, 1.0, e) / (1.0 + e)

    def _xlogx(self, a):
        return a * self.xp.log(self.xp.where(a > 0, a, 1.0))


LOSSES = {
    "squared": Squared,
    "logistic": Logistic,
    "hinge": Hinge,
    "squared_hinge": SquaredHinge,
    "huber": Huber,
}
