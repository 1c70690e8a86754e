"""The programme as the judge knows it: the caller's data on the host, in float64."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._cones import Cones
from ._softmax import EVERY

# Numbers in one of the arrays that a pass over gates makes.
_BATCH = 1 << 22


@dataclass
class RobustDual:
    """A dual point of robust training: samples within the box, each with a weight.

    Attributes
    ----------
    z, w : array, shape (c, n)
        With ``|z| <= w``, and ``z = w y`` for the losses of labels.
    eta : array, shape (c, n, d)
        With ``|eta_k| <= w_k eps``; the programme sees ``z_k x_k + eta_k``.
    """

    z: Any
    w: Any
    eta: Any


class Data:
    """The caller's programme on the host, in float64.

    Parameters
    ----------
    X, Y : array, shapes (n, d) and (c, n)
    loss : str
    parameters : dict
        Of the loss.
    beta : float
    gates : Gates
    eps : array, shape (d,), optional
        How far every entry of a row may move, for robust training.
    """

    def __init__(self, X, Y, loss, parameters, beta, gates, eps=None):
        self.X, self.Y = X.astype(np.float64), Y.astype(np.float64)
        self.eps = None if eps is None or not np.any(eps) else np.asarray(eps, dtype=np.float64)
        self.loss, self.beta = EVERY[loss](self.Y, np, **parameters), beta
        # Whether these are all gates, so that a bound over all networks is worth its time.
        self.complete = False
        self._take(gates)

    def _take(self, gates):
        self.gates, self.mask = gates, gates.mask
        self.cones = Cones(self.X, self.mask, self.eps)
        # Lengths of rows, wherever they move.
        self.reach = self.cones.length + (0.0 if self.eps is None else np.linalg.norm(self.eps))

    def over(self, gates):
        """Return the programme over other gates."""
        other = copy.copy(self)
        other._take(gates)
        return other

    def predictions(self, U):
        """Return ``sum_i D_i X (v_i - w_i)``, shape (c, n)."""
        p = np.zeros((len(U), len(self.X)))
        for part in self.active(U):
            p += (((U[:, 0, part] - U[:, 1, part]) @ self.X.T) * self.mask[part]).sum(axis=1)
        return p

    def outputs(self, U):
        """Return the outputs of the network that blocks U stand for, shape (c, n)."""
        p = np.zeros((len(U), len(self.X)))
        for part in self.active(U):
            for s, sign in enumerate((1.0, -1.0)):
                p += sign * np.maximum(U[:, s, part] @ self.X.T, 0.0).sum(axis=1)
        return p

    def objective(self, U):
        """Return loss plus penalty of the convex programme, for robust training at worst."""
        p = self.predictions(U)
        if self.eps is not None:
            p = self.worst(p, abs(self.differences(U)) @ self.eps)
        return self.loss.value(p) + self.penalty(U)

    def differences(self, U):
        """Return ``Q_k = sum_i d_ki (v_i - w_i)``, shape (c, n, d)."""
        Q = np.zeros((len(U), *self.X.shape))
        for part in self.active(U):
            Q += self.mask[part].T @ (U[:, 0, part] - U[:, 1, part])
        return Q

    def worst(self, p, q):
        """Return the predictions within q of p that cost most."""
        if self.loss.margin:
            return p - self.loss.y * q
        return p + np.where(p >= self.loss.y, q, -q)

    def network_objective(self, U):
        """Return the objective of the network; never below the optimum over all gates."""
        return self.loss.value(self.outputs(U)) + self.penalty(U)

    def penalty(self, U):
        return self.beta * float(np.linalg.norm(U, axis=-1).sum())

    @property
    def kinks(self):
        """Whether slopes at some predictions are not unique and worth finding."""
        return self.eps is None and math.isinf(self.loss.curvature_bound)

    def slope(self, U, z=None):
        """Return the dual point of blocks U: z (c, n), or a `RobustDual`; z may be given."""
        if self.eps is None:
            return -self.loss.slope(self.predictions(U)) if z is None else z
        Q = self.differences(U)
        own = -self.loss.slope(self.worst(self.predictions(U), abs(Q) @ self.eps))
        # A copy: whoever completes the point writes to it.
        z = own if z is None else z.copy()
        w = abs(z) if self.loss.margin else np.maximum(abs(z), abs(own))
        return RobustDual(z, w, -w[..., None] * self.eps * np.sign(Q))

    def blocks(self, U):
        """Return the indices (output, side, gate) of the blocks that are not zero."""
        return np.nonzero((U != 0).any(axis=-1))

    def short(self, V, gates):
        """Return the smallest slack, as a length, of points V (B, d) in the cones of gates."""
        parts = [self.cones.slack(V[k], gates[k]).min(axis=1) for k in self.cones.batches(len(V))]
        return np.concatenate(parts) if parts else np.zeros(0)

    def violation(self, U):
        """Return the largest violation of a cone, and it in lengths of rows and largest block."""
        where = self.blocks(U)
        V, gates = U[where], where[2]
        if not len(V):
            return 0.0, 0.0
        worst = 0.0
        for k in self.cones.batches(len(V)):
            T = self.cones.slack(V[k], gates[k]) * self.cones.length
            worst = max(worst, -float(T.min()))
        relative = -float(self.short(V, gates).min()) / float(np.linalg.norm(V, axis=1).max())
        return worst, max(relative, 0.0)

    def transpose(self, z):
        """Return ``X^T D_i z`` and its negative for all gates, shape (c, 2, P, d)."""
        F = np.empty((len(z), len(self.mask), self.X.shape[1]))
        for part in self._batches(len(self.mask)):
            F[:, part] = (z[:, None, :] * self.mask[part]) @ self.X
        return np.stack([F, -F], axis=1)

    def gather(self, eta):
        """Return ``eta^T d_i`` and its negative for all gates, shape (c, 2, P, d)."""
        F = self.mask @ eta
        return np.stack([F, -F], axis=1)

    def pull(self, alpha):
        """Return ``X^T E_i alpha_i`` for all blocks; alpha is (c, 2, P, n)."""
        F = np.empty((*alpha.shape[:3], self.X.shape[1]))
        for part in self._batches(len(self.mask)):
            F[:, :, part] = (alpha[:, :, part] * (2.0 * self.mask[part] - 1.0)) @ self.X
        return F

    def lengths(self, z):
        """Return ``sum_k d_ki |z_k| ||x_k||``, of which rounding takes a share, shape (c, P)."""
        return (abs(z) * self.cones.length) @ self.mask.T

    def lengths_of(self, z):
        """Return ``sum_k |z_k| ||x_k||`` for each output."""
        return abs(z) @ self.cones.length

    def active(self, U):
        """Yield the gates whose blocks are not all zero, a few at a time."""
        gates = np.flatnonzero((U != 0).any(axis=(0, 1, 3)))
        for part in self._batches(len(gates)):
            yield gates[part]

    def _batches(self, count):
        step = max(1, _BATCH // (len(self.X) * len(self.Y)))
        for low in range(0, count, step):
            yield slice(low, low + step)
