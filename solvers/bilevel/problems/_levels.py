"""The levels that ready-made problems are put together from."""

from .._problem import Look, Pair
from ._linear import CURVATURE
from ._ready import Flat


def _length(idx, n):
    return n if idx is None else len(idx)


class MeanLoss(Flat):
    """The mean loss of a linear model; x plays no part."""

    def __init__(self, io, losses, x_shape, y_shape):
        super().__init__(io, x_shape, y_shape, losses.n)
        self.losses = losses

    def look(self, x, y, idx=None, with_x=True):
        losses, gy = self.losses.look(y, None, idx)
        n = len(losses)
        return Look(float(losses.sum()) / n, self._no_gx, gy / n)

    def pair(self, x, y, z, idx=None, with_x=True):
        losses, more, gy, gz = self.losses.pair(y, z, None, idx)
        n = len(losses)
        value, change = float(losses.sum()) / n, float(more.sum()) / n
        at_y, at_z = Look(value + change, self._no_gx, gy / n), Look(value, self._no_gx, gz / n)
        return Pair(change, self._no_gx, at_y, at_z)


class PenalisedLoss(Flat):
    """Mean loss of a linear model plus ``sum_j exp(x_group(j)) |y_j|^2 / 2``.

    Parameters
    ----------
    groups : Groups
        The entry of x that penalises each feature.
    """

    def __init__(self, io, losses, groups, y_shape):
        super().__init__(io, (groups.count,), y_shape, losses.n)
        self.losses, self.groups = losses, groups
        self._squares = losses.squares() * (CURVATURE[losses.kind] / losses.n)

    def look(self, x, y, idx=None, with_x=True):
        losses, gy = self.losses.look(y, None, idx)
        n = len(losses)
        rate, Y = self._rate(x), self._matrix(y)
        part = 0.5 * rate * (Y * Y).sum(axis=1)
        value = float(losses.sum()) / n + float(part.sum())
        gx = self.groups.sum(part) if with_x else None
        return Look(value, gx, gy / n + self._pull(rate, Y))

    def pair(self, x, y, z, idx=None, with_x=True):
        losses, more, gy, gz = self.losses.pair(y, z, None, idx)
        n = len(losses)
        rate, Y, Z = self._rate(x), self._matrix(y), self._matrix(z)
        part = 0.5 * rate * (Z * Z).sum(axis=1)
        grown = 0.5 * rate * ((Y - Z) * (Y + Z)).sum(axis=1)
        value = float(losses.sum()) / n + float(part.sum())
        change = float(more.sum()) / n + float(grown.sum())
        at_z, gx = (self.groups.sum(v) if with_x else None for v in (part, grown))
        at_y = at_z + gx if with_x else None
        return Pair(
            change,
            gx,
            Look(value + change, at_y, gy / n + self._pull(rate, Y)),
            Look(value, at_z, gz / n + self._pull(rate, Z)),
        )

    def hvp_yy(self, x, y, v, idx=None):
        product = self.losses.curvature(y, v, None, idx)[1] / _length(idx, self.n_samples)
        return product + self._pull(self._rate(x), self._matrix(v))

    def hvp_xy(self, x, y, v, idx=None):
        products = (self._matrix(y) * self._matrix(v)).sum(axis=1)
        return self.groups.sum(self._rate(x) * products)

    def diagonal(self, x):
        D = self._squares + self._rate(x)
        return self.xp.repeat(D, self.losses.k)

    def _rate(self, x):
        return self.groups.take(self.xp.exp(x))

    def _matrix(self, y):
        return y.reshape(self.losses.p, self.losses.k)

    def _pull(self, rate, Y):
        return (rate[:, None] * Y).reshape(-1)


class WeightedLoss(Flat):
    """``c sum_i w(x_group(i)) loss_i(y) + l2 |y|^2 / 2``, where c is `scale`.

    Parameters
    ----------
    groups : Groups
        The entry of x that weighs each sample.
    weigh : callable
        ``xp, x -> w, dw/dx``.
    scale, l2 : float
    """

    def __init__(self, io, losses, groups, y_shape, weigh, scale, l2):
        super().__init__(io, (groups.count,), y_shape, losses.n)
        self.losses, self.groups, self.weigh = losses, groups, weigh
        self.scale, self.l2 = scale, l2
        self._squares = losses.squares() * (CURVATURE[losses.kind] / losses.n)

    def look(self, x, y, idx=None, with_x=True):
        weights, slopes, scale = self._weights(x, idx)
        losses, gy = self.losses.look(y, weights, idx)
        value = scale * float(weights @ losses) + 0.5 * self.l2 * float(y @ y)
        gx = self.groups.sum(scale * slopes * losses, idx) if with_x else None
        return Look(value, gx, scale * gy + self.l2 * y)

    def pair(self, x, y, z, idx=None, with_x=True):
        weights, slopes, scale = self._weights(x, idx)
        losses, more, gy, gz = self.losses.pair(y, z, weights, idx)
        value = scale * float(weights @ losses) + 0.5 * self.l2 * float(z @ z)
        change = scale * float(weights @ more) + 0.5 * self.l2 * float((y - z) @ (y + z))
        at_z, gx = (
            self.groups.sum(scale * slopes * v, idx) if with_x else None for v in (losses, more)
        )
        at_y = at_z + gx if with_x else None
        return Pair(
            change,
            gx,
            Look(value + change, at_y, scale * gy + self.l2 * y),
            Look(value, at_z, scale * gz + self.l2 * z),
        )

    def hvp_yy(self, x, y, v, idx=None):
        weights, _, scale = self._weights(x, idx)
        return scale * self.losses.curvature(y, v, weights, idx)[1] + self.l2 * v

    def hvp_xy(self, x, y, v, idx=None):
        weights, slopes, scale = self._weights(x, idx)
        along = self.losses.curvature(y, v, weights, idx)[0]
        return self.groups.sum(scale * slopes * along, idx)

    def diagonal(self, x):
        # As if weights had nothing to do with features: no pass over the data.
        mean = float(self.groups.take(self.weigh(self.xp, x)[0]).sum()) * self.scale
        return self.xp.repeat(mean * self._squares + self.l2, self.losses.k)

    def _weights(self, x, idx):
        """Return weights, their slopes and the factor of the sum over samples or a batch."""
        w, dw = (self.groups.take(v, idx) for v in self.weigh(self.xp, x))
        return w, dw, self.scale * (self.n_samples / len(w))


class Groups:
    """Which entry of x belongs to each of some things.

    Parameters
    ----------
    xp : module
    which : array of int or None
        None: each has its own.
    count : int
        Entries of x.
    """

    def __init__(self, xp, which, count):
        self.xp, self.which, self.count = xp, which, count

    def take(self, v, idx=None):
        """Return each thing's entry of v, or those of the things in `idx`."""
        where = self._where(idx)
        return v if where is None else v[where]

    def sum(self, v, idx=None):
        """Return the sum over the things of each group."""
        where = self._where(idx)
        if where is None:
            return v
        return self.xp.bincount(where, v, self.count).astype(v.dtype, copy=False)

    def _where(self, idx):
        if idx is None:
            return self.which
        idx = self.xp.asarray(idx)
        return idx if self.which is None else self.which[idx]
