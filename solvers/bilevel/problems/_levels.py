"""The levels that ready-made problems are put together from."""

from .._problem import Look, Pair
from ._linear import CURVATURE
from ._ready import Flat


def _length(idx, n):
    return n if idx is None else len(idx)


def _pair(value, change, gx, gx_change, gy, gz, none=None):
    """Put a `Pair` together from z and from what changes on the way to y."""
    at_y = none if gx is None else gx + gx_change
    first, second = Look(value + change, at_y, gy), Look(value, none if gx is None else gx, gz)
    return Pair(first, second, change, none if gx is None else gx_change)


class MeanLoss(Flat):
    """The mean loss of a linear model; x plays no part."""

    def __init__(self, io, losses, x_shape, y_shape):
        super().__init__(io, x_shape, y_shape, losses.n)
        self.losses = losses

    def looks(self, points, idx=None, with_x=True):
        losses, grads = self.losses.looks([y for _, y in points], None, idx)
        n = losses.shape[1]
        values = self.be.host(losses.sum(axis=1) / n)
        return [Look(float(v), self._no_gx, g / n) for v, g in zip(values, grads, strict=True)]

    def pairs(self, points, idx=None, with_x=True):
        _, ys, zs = zip(*points, strict=True)
        losses, more, gys, gzs = self.losses.pairs(ys, zs, None, idx)
        n = losses.shape[1]
        sums = zip(*self.be.host(losses.sum(axis=1) / n, more.sum(axis=1) / n), strict=True)
        return [
            _pair(*both, None, None, gy / n, gz / n, self._no_gx)
            for both, gy, gz in zip(sums, gys, gzs, strict=True)
        ]


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

    def looks(self, points, idx=None, with_x=True):
        losses, grads = self.losses.looks([y for _, y in points], None, idx)
        parts = (
            self._look(x, y, row, gy, with_x)
            for (x, y), row, gy in zip(points, losses, grads, strict=True)
        )
        return list(parts)

    def _look(self, x, y, losses, gy, with_x):
        n, rate, Y = len(losses), self._rate(x), self._matrix(y)
        part = self._penalty(rate, Y, Y)
        loss, penalty = self.be.host(losses.sum() / n, part.sum())
        gx = self.groups.sum(part) if with_x else None
        return Look(loss + penalty, gx, gy / n + self._pull(rate, Y))

    def pairs(self, points, idx=None, with_x=True):
        _, ys, zs = zip(*points, strict=True)
        found = zip(points, *self.losses.pairs(ys, zs, None, idx), strict=True)
        return [self._pair(*point, *parts, with_x) for point, *parts in found]

    def _pair(self, x, y, z, losses, more, gy, gz, with_x):
        n, rate, Y, Z = len(losses), self._rate(x), self._matrix(y), self._matrix(z)
        part, grown = self._penalty(rate, Z, Z), self._penalty(rate, Y - Z, Y + Z)
        loss, change, penalty, growth = self.be.host(
            losses.sum() / n, more.sum() / n, part.sum(), grown.sum()
        )
        gx = (self.groups.sum(part), self.groups.sum(grown)) if with_x else (None, None)
        gy, gz = gy / n + self._pull(rate, Y), gz / n + self._pull(rate, Z)
        return _pair(loss + penalty, change + growth, *gx, gy, gz)

    def _penalty(self, rate, Y, Z):
        """Return half of ``rate Y Z`` for each feature."""
        return 0.5 * rate * (Y[:, 0] * Z[:, 0] if Y.shape[1] == 1 else (Y * Z).sum(axis=1))

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
        return self._of(x, lambda x: self.groups.take(self.xp.exp(x)))

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

    def looks(self, points, idx=None, with_x=True):
        scales = [self._weights(x, idx) for x, _ in points]
        losses, grads = self.losses.looks([y for _, y in points], [w for w, *_ in scales], idx)
        out = []
        for (_, y), (weights, slopes, scale), row, gy in zip(
            points, scales, losses, grads, strict=True
        ):
            loss, square = self.be.host(weights @ row, y @ y)
            gx = self._sum(scale * slopes * row, idx) if with_x else None
            value = scale * loss + 0.5 * self.l2 * square
            out.append(Look(value, gx, scale * gy + self.l2 * y))
        return out

    def pairs(self, points, idx=None, with_x=True):
        _, ys, zs = zip(*points, strict=True)
        scales = [self._weights(x, idx) for x, *_ in points]
        found = self.losses.pairs(ys, zs, [w for w, *_ in scales], idx)
        found = zip(points, scales, *found, strict=True)
        return [self._pair(*point, *scale, *parts, idx, with_x) for point, scale, *parts in found]

    def _pair(self, x, y, z, weights, slopes, scale, losses, more, gy, gz, idx, with_x):
        loss, change, square, growth = self.be.host(
            weights @ losses, weights @ more, z @ z, (y - z) @ (y + z)
        )
        parts = (scale * slopes * v for v in (losses, more))
        gx = (self._sum(v, idx) for v in parts) if with_x else (None, None)
        half = 0.5 * self.l2
        return _pair(
            scale * loss + half * square,
            scale * change + half * growth,
            *gx,
            scale * gy + self.l2 * y,
            scale * gz + self.l2 * z,
        )

    def _sum(self, v, idx):
        return self.groups.sum(v, idx).astype(self.dtype, copy=False)

    def hvp_yy(self, x, y, v, idx=None):
        weights, _, scale = self._weights(x, idx)
        return scale * self.losses.curvature(y, v, weights, idx)[1] + self.l2 * v

    def hvp_xy(self, x, y, v, idx=None):
        weights, slopes, scale = self._weights(x, idx)
        along = self.losses.curvature(y, v, weights, idx)[0]
        return self._sum(scale * slopes * along, idx)

    def diagonal(self, x):
        # As if weights had nothing to do with features: no pass over the data.
        mean = float(self.groups.take(self._weighed(x)[0]).sum()) * self.scale
        return self.xp.repeat(mean * self._squares + self.l2, self.losses.k)

    def _weighed(self, x):
        return self._of(x, lambda x: self.weigh(self.xp, x))

    def _weights(self, x, idx):
        """Return weights, their slopes and the factor of the sum over samples or a batch."""
        w, dw = (self.groups.take(v, idx) for v in self._weighed(x))
        return w, dw, self.scale * (self.n_samples / len(w))


class Groups:
    """Which entry of x belongs to each of some things.

    Parameters
    ----------
    be : Backend
    which : array of int or None
        None: each has its own.
    count : int
        Entries of x.
    """

    def __init__(self, be, which, count):
        self.be, self.which, self.count = be, which, count

    def take(self, v, idx=None):
        """Return each thing's entry of v, or those of the things in `idx`."""
        where = self._where(idx)
        return v if where is None else v[where]

    def sum(self, v, idx=None):
        """Return the sum over the things of each group."""
        where = self._where(idx)
        if where is None:
            return v
        return self.be.xp.bincount(where, v, self.count).astype(v.dtype, copy=False)

    def _where(self, idx):
        if idx is None:
            return self.which
        idx = self.be.xp.asarray(idx)
        return idx if self.which is None else self.which[idx]
