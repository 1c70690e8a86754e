"""Losses of linear models: sums over samples, at one or more points in one pass."""

import numpy as np

SQUARED, LOGISTIC, HINGE, SOFTMAX = range(4)
_ONE, _PAIR, _BEND = range(3)
# Largest curvatures of the losses by one prediction.
CURVATURE = {SQUARED: 1.0, LOGISTIC: 0.25, HINGE: 1.0, SOFTMAX: 0.25}


class LinearLosses:
    """The losses of some samples as functions of the coefficients, a vector.

    Sums are over all samples, or over those of `idx`, with weights if these are given, one vector
    for each point. Losses are float64.

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
        self.be, self.kind, self.k = be, kind, k
        self.X, self.t = samples
        self.n, self.p = self.X.shape
        self.dtype = self.X.dtype
        self.sparse = hasattr(self.X, "indptr")
        self._every = be.xp.arange(self.n)

    @property
    def xp(self):
        """The array module."""
        return self.be.xp

    def looks(self, ys, weights=None, idx=None):
        """Return losses (B, N) at each of B points, and the gradients of their sums."""
        vectors = [self._classes(y) for y in ys]
        losses, G = self._pass(_ONE, vectors, weights, idx, len(ys), len(ys))
        return losses, self._vectors(G, len(ys))

    def pairs(self, ys, zs, weights=None, idx=None):
        """Return losses at zs, how much more they are at ys, and the gradients at ys and zs."""
        steps = (y - z for y, z in zip(ys, zs, strict=True))
        vectors = [self._classes(v) for both in zip(zs, steps, strict=True) for v in both]
        losses, G = self._pass(_PAIR, vectors, weights, idx, 2 * len(ys), 2 * len(ys))
        gradients = self._vectors(G, 2 * len(ys))
        return losses[0::2], losses[1::2], gradients[1::2], gradients[0::2]

    def curvature(self, y, v, weights=None, idx=None):
        """Return each sample's slope along v, and the product of the Hessian with v."""
        vectors = [self._classes(y), self._classes(v)]
        weights = None if weights is None else [weights]
        along, G = self._pass(_BEND, vectors, weights, idx, 1, 1)
        return along[0], self._vectors(G, 1)[0]

    def squares(self):
        """Return the sum of the squares of each column."""
        X = self.X
        if self.sparse:
            sums = self.xp.bincount(X.indices, X.data * X.data, self.p)
            return sums.astype(self.dtype, copy=False)
        return self.xp.einsum("ij,ij->j", X, X)

    def _classes(self, y):
        """Return coefficients with those of a class together, (k, p)."""
        return y.reshape(self.p, self.k).T

    def _pass(self, mode, vectors, weights, idx, n_losses, n_gradients):
        xp, k = self.xp, self.k
        # A copy is what Numba has compiled for: of long integers, and writable.
        rows = self._every if idx is None else xp.array(idx, np.int64)
        W = xp.ascontiguousarray(xp.concatenate(vectors) if len(vectors) > 1 else vectors[0])
        weights = xp.empty((1, 0), self.dtype) if weights is None else xp.stack(weights)
        losses = xp.empty((n_losses, rows.size))
        kernels = self.be.kernels("solvers.bilevel", "losses")
        args = rows, self.t, weights, self.kind, mode, k
        if not self.sparse:
            G = xp.empty((n_gradients * k, self.p), self.dtype)
            kernels.dense_pass(self.X, *args, W, losses, G)
            return losses, G
        X, G = self.X, xp.empty((self.p, n_gradients * k), self.dtype)
        W = xp.ascontiguousarray(W.T)
        kernels.csr_pass(X.indptr, X.indices, X.data, *args, W, losses, G)
        return losses, G.T

    def _vectors(self, G, count):
        k = self.k
        parts = (G[a * k : (a + 1) * k] for a in range(count))
        return [self.xp.ascontiguousarray(part.T).reshape(-1) for part in parts]
