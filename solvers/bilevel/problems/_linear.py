"""Losses of linear models: sums over samples, at one point or two in one pass."""

import numpy as np

SQUARED, LOGISTIC, HINGE, SOFTMAX = range(4)
# Largest curvatures of the losses by one prediction.
CURVATURE = {SQUARED: 1.0, LOGISTIC: 0.25, HINGE: 1.0, SOFTMAX: 0.25}


class LinearLosses:
    """The losses of some samples as functions of the coefficients, a vector.

    Sums are over all samples, or over those of `idx`, with weights if these are given.

    Parameters
    ----------
    be : Backend
    samples : Samples
    kind : int
        The loss.
    k : int
        Number of predictions per sample: of coefficients (p, k), each column gives one.
    """

    def __init__(self, be, samples, kind, k=1):
        self.be, self.xp, self.kind, self.k = be, be.xp, kind, k
        self.X, self.t = samples
        self.n, self.p = self.X.shape
        self.dtype = self.X.dtype
        if kind == SOFTMAX:
            self.t = self.t.astype(np.int64)

    def _rows(self, idx):
        if idx is None:
            return self.X, self.t
        idx = self.xp.asarray(idx)
        return self.X[idx], self.t[idx]

    def look(self, y, weights=None, idx=None):
        """Return each sample's loss and the gradient of their sum."""
        X, t = self._rows(idx)
        losses, slopes = self._loss(X @ y.reshape(self.p, self.k), t)
        return losses, self._gradient(X, slopes, weights)

    def pair(self, y, z, weights=None, idx=None):
        """Return losses at z, how much more they are at y, and the gradients at y and z."""
        X, t = self._rows(idx)
        at_z, change = (X @ v.reshape(self.p, self.k) for v in (z, y - z))
        losses, slopes = self._loss(at_z, t)
        more, slopes_y = self._loss(at_z + change, t)
        gradients = (self._gradient(X, s, weights) for s in (slopes_y, slopes))
        return losses, self._change(at_z, change, t, losses, more), *gradients

    def curvature(self, y, v, weights=None, idx=None):
        """Return each sample's slope along v, and the product of the Hessian with v."""
        xp = self.xp
        X, t = self._rows(idx)
        at_y, along = (X @ u.reshape(self.p, self.k) for u in (y, v))
        slopes = self._loss(at_y, t)[1]
        if self.kind == SQUARED:
            bent = along
        elif self.kind == LOGISTIC:
            bent = abs(slopes) * (1 - abs(slopes)) * along
        elif self.kind == HINGE:
            bent = (slopes != 0) * along
        else:
            share = slopes + (xp.arange(self.k) == t[:, None])
            bent = share * (along - (share * along).sum(axis=1)[:, None])
        return (slopes * along).sum(axis=1), self._gradient(X, bent, weights)

    def squares(self, weights=None):
        """Return the weighted sum of the squares of each column."""
        X = self.X
        square = X.multiply(X) if hasattr(X, "multiply") else X * X
        weights = self.xp.ones(self.n, self.dtype) if weights is None else weights
        return square.T @ weights

    def _gradient(self, X, slopes, weights):
        slopes = slopes if weights is None else slopes * weights[:, None]
        return (X.T @ slopes).reshape(-1)

    def _loss(self, m, t):
        """Return losses (N,) and their slopes (N, k) by the predictions."""
        xp = self.xp
        if self.kind == SOFTMAX:
            top = m.max(axis=1)
            e = xp.exp(m - top[:, None])
            total = e.sum(axis=1)
            hot = xp.arange(self.k) == t[:, None]
            losses = xp.log(total) + top - (m * hot).sum(axis=1)
            return losses, e / total[:, None] - hot
        m = m[:, 0]
        if self.kind == SQUARED:
            slope = m - t
            losses = 0.5 * slope * slope
        elif self.kind == HINGE:
            room = xp.maximum(1 - t * m, 0)
            losses, slope = 0.5 * room * room, -t * room
        else:
            e = xp.exp(-abs(m))
            losses = xp.maximum(-t * m, 0) + xp.log1p(e)
            slope = -t * xp.where(t * m < 0, 1, e) / (1 + e)
        return losses, slope[:, None].astype(self.dtype, copy=False)

    def _change(self, at_z, change, t, losses, more):
        """Return by how much losses change along `change`, also where they hardly do."""
        xp = self.xp
        if self.kind == SQUARED:
            d = change[:, 0]
            return d * (at_z[:, 0] - t + 0.5 * d)
        if self.kind == HINGE:
            room, then = (xp.maximum(1 - t * m[:, 0], 0) for m in (at_z, at_z + change))
            both = (room > 0) & (then > 0)
            return 0.5 * xp.where(both, -t * change[:, 0], then - room) * (then + room)
        if self.kind == LOGISTIC:
            m, d = t * at_z[:, 0], -t * change[:, 0]
            e = xp.exp(-abs(m))
            share = xp.where(m < 0, 1, e) / (1 + e)
            small = xp.log1p(share * xp.expm1(xp.clip(d, -1, 1)))
            return xp.where(abs(d) < 1, small, more - losses)
        hot = xp.arange(self.k) == t[:, None]
        share = self._loss(at_z, t)[1] + hot
        inner = (share * xp.expm1(xp.clip(change, -1, 1))).sum(axis=1)
        small = xp.log1p(inner) - (change * hot).sum(axis=1)
        return xp.where(abs(change).max(axis=1) < 1, small, more - losses)
