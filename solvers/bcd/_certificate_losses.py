"""The losses as the judge knows them: values, slopes and conjugates on whole arrays.

They share nothing with the rules in `solvers.losses` that solvers compile. Slopes v are those of
a single sample, without its weight s.
"""

import math

import numpy as np

from .. import losses
from .._core.rules import compiled_class, function_of

_EPS = np.finfo(np.float64).eps
# Sums of slopes below this many units of rounding are zero.
_BALANCED = 4 * _EPS


class Loss:
    """A loss of the targets y with sample weights s.

    Parameters
    ----------
    data : Data
    loss : NamedTuple
        One of `solvers.losses`.
    """

    # Whether there is a conjugate.
    dual = True
    # Whether the dual objective is a parabola in the multiplier of slopes.
    parabolic = False
    # Whether a residual may lose what unpenalised columns explain and stay a dual point.
    projects = False

    def __init__(self, data, loss):
        self.xp, self.host = data.xp, data.be.host
        self.y, self.s, self.total, self.loss = data.y, data.s, data.total, loss

    def sum(self, values):
        """Return the weighted sum over samples, on the host."""
        return self.host(self.s @ values)

    def reach(self, v):
        """Return the multipliers of slopes v that stay in the conjugate's domain."""
        return 0.0, 1.0

    def likely(self, v):
        """Return the multiplier that is best if the penalty forbids none."""
        return 1.0

    def balanced(self, v):
        """Return slopes whose weighted sum is zero: the heavier sign shrinks."""
        xp = self.xp
        up, down = self.host(self.s @ xp.maximum(v, 0.0), self.s @ xp.maximum(-v, 0.0))
        if up > down:
            return xp.where(v > 0, v * (down / up), v)
        return xp.where(v < 0, v * (up / down), v) if down > up else v

    def intercept(self, z):
        """Return the c that minimises the loss of ``z + c``: a safeguarded Newton method."""
        xp, c, low, high, last = self.xp, 0.0, -math.inf, math.inf, math.inf
        step = max(1.0, self.host(abs(self._offset(z)).max()))
        for _ in range(1200):
            v = self.slope(z + c)
            slope, size, bend = self.host(
                self.s @ v, self.s @ abs(v), self.s @ self.curvature(z + c)
            )
            if not abs(slope) > _BALANCED * size:
                break
            low, high = (low, c) if slope > 0 else (c, high)
            closed = math.isfinite(low) and math.isfinite(high)
            new = c - slope / bend if bend > 0 else math.nan
            # Newton steps must lead inside and pay; they may not run off to infinity either.
            if not (low < new < high and abs(slope) < 0.5 * last and abs(new - c) <= step):
                new = 0.5 * (low + high) if closed else c - math.copysign(step, slope)
                step = step if closed else 2.0 * step
            if new in (c, low, high):
                break
            c, last = new, abs(slope)
        return xp.asarray(c)

    def _offset(self, z):
        return self.xp.ones(1)


class Squared(Loss):
    """``(y - z)^2 / 2``."""

    projects = parabolic = True

    def value(self, z):
        return 0.5 * self.xp.square(self.y - z)

    def slope(self, z):
        return z - self.y

    def curvature(self, z):
        return self.xp.ones(z.shape)

    def conjugate(self, v):
        return v * (0.5 * v + self.y)

    def reach(self, v):
        return -math.inf, math.inf

    def likely(self, v):
        along, square = self.host(self.s @ (v * self.y), self.s @ (v * v))
        return -along / square if square > 0 else 1.0

    def balanced(self, v):
        return v - (self.s @ v) / self.total

    def intercept(self, z):
        return self.s @ (self.y - z) / self.total


class Huber(Squared):
    """``(y - z)^2 / 2`` up to a distance of delta, linear from there."""

    projects = False
    balanced, intercept = Loss.balanced, Loss.intercept

    def value(self, z):
        size, d = abs(z - self.y), self.loss.delta
        return self.xp.where(size <= d, 0.5 * size * size, d * (size - 0.5 * d))

    def slope(self, z):
        return self.xp.clip(z - self.y, -self.loss.delta, self.loss.delta)

    def curvature(self, z):
        return (abs(z - self.y) < self.loss.delta).astype(np.float64)

    def reach(self, v):
        largest = self.host(abs(v).max())
        k = self.loss.delta / largest if largest > 0 else math.inf
        return -k, k

    def _offset(self, z):
        return self.y - z


class SquaredHinge(Squared):
    """``max(1 - y z, 0)^2 / 2``."""

    projects = False
    balanced, intercept = Loss.balanced, Loss.intercept

    def value(self, z):
        return 0.5 * self.xp.square(self.xp.maximum(1.0 - self.y * z, 0.0))

    def slope(self, z):
        return -self.y * self.xp.maximum(1.0 - self.y * z, 0.0)

    def curvature(self, z):
        return (self.y * z < 1.0).astype(np.float64)

    def reach(self, v):
        return 0.0, math.inf


class Logistic(Loss):
    """``log(1 + exp(-y z))``."""

    def value(self, z):
        m = self.y * z
        return self.xp.maximum(-m, 0.0) + self.xp.log1p(self.xp.exp(-abs(m)))

    def slope(self, z):
        return -self.y * self._chance(-self.y * z)

    def curvature(self, z):
        e = self.xp.exp(-abs(z))
        return e / self.xp.square(1.0 + e)

    def conjugate(self, v):
        share = -v * self.y
        return _entropy(self.xp, share) + _entropy(self.xp, 1.0 - share)

    def _chance(self, m):
        e = self.xp.exp(-abs(m))
        return self.xp.where(m >= 0, 1.0, e) / (1.0 + e)


class Poisson(Loss):
    """``exp(z) - y z``."""

    def value(self, z):
        return self.xp.exp(z) - self.y * z

    def slope(self, z):
        return self.xp.exp(z) - self.y

    def curvature(self, z):
        return self.xp.exp(z)

    def conjugate(self, v):
        mean = v + self.y
        return _entropy(self.xp, mean) - mean

    def balanced(self, v):
        events, means = self.host(self.s @ self.y, self.s @ (v + self.y))
        return (v + self.y) * (events / means) - self.y if means > 0 else v

    def intercept(self, z):
        top = z.max()
        means = self.s @ self.xp.exp(z - top)
        # Without any event the infimum is at minus infinity; exp(-700) is as good.
        return self.xp.maximum(self.xp.log(self.s @ self.y / means), -700.0) - top


class Multinomial(Loss):
    """``log(sum_k exp(z_k)) - z_y``; slopes are (n, C)."""

    def __init__(self, data, loss):
        super().__init__(data, loss)
        self.rows = self.xp.arange(self.y.size)

    def value(self, z):
        top = z.max(axis=1)
        spread = self.xp.log(self.xp.exp(z - top[:, None]).sum(axis=1))
        return spread - (z[self.rows, self.y] - top)

    def slope(self, z):
        q = self.chances(z)
        q[self.rows, self.y] -= 1.0
        return q

    def conjugate(self, v):
        return _entropy(self.xp, self._probabilities(v)).sum(axis=1)

    def balanced(self, v):
        xp, s = self.xp, self.s / self.total
        excess = s @ v
        shares = xp.zeros(v.shape[1])
        for k in range(v.shape[1]):
            shares[k] = s @ (self.y == k)
        over = xp.maximum(excess, 0.0)
        t = self.host((over / xp.where(over > 0, shares + over, 1.0)).max())
        if not t > 0:
            return v
        q = (1.0 - t) * self._probabilities(v) + (t * shares - (1.0 - t) * excess)
        q[self.rows, self.y] -= 1.0
        return q

    def intercept(self, z):
        c = np.zeros(z.shape[1])
        for _ in range(100):
            q = self.chances(z + self.xp.asarray(c))
            mass = self.s[:, None] * q
            gram, q_sum = self.host(mass.T @ q, mass.sum(axis=0))
            q[self.rows, self.y] -= 1.0
            e = self.host(self.s @ q)
            if not abs(e).max() > _BALANCED * self.total:
                break
            # The classes' intercepts may all move alike: the mean stays.
            H = np.diag(q_sum) - gram + np.full_like(gram, np.trace(gram) / c.size)
            d = -np.linalg.lstsq(H, e, rcond=None)[0]
            d *= min(1.0, 5.0 / max(abs(d).max(), 1e-300))
            before = self.sum(self.value(z + self.xp.asarray(c)))
            for _ in range(30):
                if self.sum(self.value(z + self.xp.asarray(c + d))) <= before:
                    break
                d = 0.5 * d
            else:
                break
            c = c + d
        return self.xp.asarray(c)

    def chances(self, z):
        """Return the probability of each class."""
        q = self.xp.exp(z - z.max(axis=1)[:, None])
        return q / q.sum(axis=1)[:, None]

    def _probabilities(self, v):
        q = v.copy()
        q[self.rows, self.y] += 1.0
        return q


class Registered(Loss):
    """A loss that a user registered, through its plain Python rules."""

    dual = False

    def __init__(self, data, loss):
        super().__init__(data, loss)
        self.rules = compiled_class(type(loss))

    def value(self, z):
        return self._each("value", z)

    def slope(self, z):
        return self._each("derivative", z)

    def curvature(self, z):
        return self._each("curvature", z)

    def _each(self, name, z):
        rule = function_of(self.rules, name)
        y, z = (self.host(part).tolist() for part in (self.y, z))
        return self.xp.asarray([rule(self.loss, a, b) for a, b in zip(y, z, strict=True)])


_LOSSES = {
    losses.Squared: Squared,
    losses.Logistic: Logistic,
    losses.Multinomial: Multinomial,
    losses.Huber: Huber,
    losses.SquaredHinge: SquaredHinge,
    losses.Poisson: Poisson,
}


def open_loss(data, loss):
    """Return the judge's own version of a loss."""
    return _LOSSES.get(type(loss), Registered)(data, loss)


def _entropy(xp, q):
    """Return ``q log q``, 0 at 0; rounding may have taken q just below."""
    return q * xp.log(xp.where(q > 0, q, 1.0))
