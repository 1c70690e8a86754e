"""The cones of gates that samples cannot leave while they move."""

import math

import numpy as np

# A cone is empty if no point of it that is as long as 1 over this has room 1 for all rows.
_EMPTY = 1e-9


class Cones:
    """Robust cones ``E_i X u >= eps^T |u|``; what is active in each is kept from call to call.

    Parameters
    ----------
    be : Backend
    X : array, shape (n, d)
    mask : array of uint8, shape (P, n)
    eps : array, shape (d,)
    lead : tuple of int
        Axes of the blocks before gate and feature.
    """

    def __init__(self, be, X, mask, eps, lead=()):
        xp = be.xp
        self.be, self.X, self.mask, self.eps = be, X, mask, eps
        self.shape = (*lead, len(mask), X.shape[1])
        # So many rows may be independent, and one more while they change.
        blocks, most = math.prod(self.shape[:-1]), min(X.shape[0], X.shape[1] + 1) + 1
        self.length = be.host(xp.sqrt(xp.square(X).sum(axis=1).max()))
        self.index = xp.zeros((blocks, most), dtype=np.int32)
        self.weight = xp.zeros((blocks, most))
        self.count = xp.zeros(blocks, dtype=np.int32)

    def project(self, T, enough=0.0, level=0.0):
        """Return the projections of blocks, and their lengths.

        Those that are found to be at most `enough` long are not finished. With `level` = 1
        the blocks have a further coordinate, see the kernel.
        """
        xp = self.be.xp
        V = xp.ascontiguousarray(T.reshape(-1, self.shape[-1]))
        U, norm = xp.empty_like(V), xp.empty(len(V))
        tol = (1e-10 if V.dtype == np.float64 else 1e-6) * self.length
        self.be.kernels("solvers.relu", "robust").project(
            self.X, self.mask, self.eps, level, enough, tol,
            V, U, norm, self.index, self.weight, self.count,
        )  # fmt: skip
        return U.reshape(self.shape), norm.reshape(self.shape[:-1])

    def multipliers(self, point, beta):
        """Return the alpha (c, 2, P, n) that bring the gates' norms of a dual point to beta.

        Where that is not possible they make the norm as small as it gets.
        """
        xp = self.be.xp
        rows = point.z[..., None] * self.X + point.eta
        F = self.mask.astype(rows.dtype) @ rows
        self.project(xp.stack([F, -F], axis=1), beta)
        alpha = xp.zeros((len(self.index), len(self.X)))
        used = xp.arange(self.index.shape[1]) < self.count[:, None]
        alpha[xp.nonzero(used)[0], self.index[used]] = self.weight[used]
        return alpha.reshape(*self.shape[:-1], -1)

    def rescale(self, q):
        """Keep the multipliers in the caller's unit when rho becomes ``q rho``."""
        self.weight /= q


def points_inside(be, X, mask, eps):
    """Return which gates have a robust cone with an interior, (P,), and points in them, (P, d)."""
    cones = Cones(be, X, mask, eps)
    U, room = cones.project(be.xp.zeros(cones.shape, dtype=X.dtype), level=1.0)
    return room > _EMPTY, U
