r"""The dual point of weights that were trained to withstand moved samples.

Where ``Q_kj`` is zero any move of entry j of sample k costs the same, and at a kink of the loss
any weight of a sample belongs to the optimum. Both are free, within limits, in

.. math:: \pm \sum_k d_{ki} (z_k x_k + \eta_k) + \sum_k \alpha_{ki} (e_{ki} x_k - \epsilon \circ
          \operatorname{sign} v_i) = \beta \, v_i / \|v_i\|

over the blocks that are not zero and their entries that are not zero.
"""

import numpy as np

from ._certificate_kinks import within

# Numbers in a system that is still worth solving, and its equations.
_LARGEST, _EQUATIONS = 20_000_000, 4000


def robust_point(data, U, near, z=None):
    """Return the `RobustDual` of blocks U; z (c, n) may be given.

    `near` is what counts as a kink, as equality in a cone, and as zero beside the largest.
    """
    point = data.slope(U, z)
    Q, p = data.differences(U), data.predictions(U)
    for o in range(len(U)):
        length = np.linalg.norm(U[o], axis=-1)
        side, gates = np.nonzero(length > near * length.max())
        if len(gates) and len(gates) * data.X.shape[1] <= _EQUATIONS:
            sample = _Free(data, point, o, Q[o], p[o], near, z is None)
            sample.fit(U[o, side, gates], 1.0 - 2.0 * side, gates)
    return point


class _Free:
    """What is free in the dual point of one output."""

    def __init__(self, data, point, o, Q, p, near, kinks):
        self.data, self.y, self.near = data, data.loss.y[o], near
        # Views: what is found is written there.
        self.z, self.w, self.eta = point.z[o], point.w[o], point.eta[o]
        self.loose = (abs(Q) <= near * abs(Q).max(initial=0.0)) & (data.eps > 0)
        self.cut = np.where(self.loose, 0.0, data.eps * np.sign(Q))
        q = abs(Q) @ data.eps
        at_kink = np.zeros(len(p), dtype=bool)
        if kinks and np.isinf(data.loss.curvature_bound):
            at_kink = abs(self.y * p - q - 1.0) <= near
        elif kinks and not data.loss.margin:
            at_kink = (abs(p - self.y) <= near * (1.0 + abs(p))) & (q > 0)
        self.kinks = np.flatnonzero(at_kink)

    def fit(self, V, sign, gates):
        """Find what is free from the stationarity of blocks V (B, d)."""
        data, kinks = self.data, self.kinks
        B, d = V.shape
        D = sign[:, None] * data.mask[gates]
        size = np.linalg.norm(V, axis=1)
        k, j = np.nonzero(self.loose & D.any(axis=0)[:, None])
        block, row = np.nonzero(data.cones.slack(V, gates) <= self.near * size[:, None])
        unknown = len(k) + len(row) + len(kinks)
        if unknown * B * d > _LARGEST:
            return
        # One column for each move, for each row of a cone and for each kink.
        A = np.zeros((B, d, unknown))
        A[:, j, np.arange(len(k))] = D[:, k]
        signs = (2.0 * data.mask[gates[block], row] - 1.0)[:, None]
        cuts = signs * data.X[row] - data.eps * np.sign(V[block])
        A[block, :, len(k) + np.arange(len(row))] = cuts
        columns, low, high = self._at_kinks()
        A[:, :, len(k) + len(row) :] = np.swapaxes(D[:, kinks, None] * columns, 1, 2)
        right = data.beta * V / size[:, None] - (D * self.z) @ data.X - D @ (self.eta - self.moves)
        far = self.w[k] * data.eps[j]
        low = np.concatenate([-far, np.zeros(len(row)), low])
        high = np.concatenate([far, np.full(len(row), np.inf), high])
        # Entries of a block that are zero have a subgradient of their own.
        used = (abs(V) > self.near * abs(V).max()) | (data.eps == 0)
        x = within(A[used], right[used], low, high)
        self.eta[k, j] = x[: len(k)]
        self._take(x[len(k) + len(row) :])

    def _at_kinks(self):
        """Return the columns and limits of kinks, and leave these out of the point."""
        at = self.kinks
        self.moves = np.where(self.loose, self.eta, 0.0)
        if self.data.loss.margin:
            # The sample, moved as it will be, by its weight.
            columns = self.y[at, None] * self.data.X[at] - self.cut[at]
            low, high = np.zeros(len(at)), np.ones(len(at))
            self.w[at], self.eta[at], self.moves[at] = 1.0, 0.0, 0.0
        else:
            columns, low, high = self.data.X[at], -self.w[at], self.w[at].copy()
        self.z[at] = 0.0
        return columns, low, high

    def _take(self, found):
        at = self.kinks
        if self.data.loss.margin:
            self.w[at], self.z[at] = found, self.y[at] * found
            self.eta[at] -= np.where(self.loose[at], 0.0, found[:, None] * self.cut[at])
        else:
            self.z[at] = found
