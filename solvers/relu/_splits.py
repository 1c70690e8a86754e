"""How the loss is split off: what the linear step of each iteration solves.

Every split keeps copies of what the loss sees, in units of the penalty rho:

- `Predictions`: p = F U, one number per sample, for any loss. The linear step is exact, by one
  n x n Cholesky factor that does not depend on rho.
"""

import numpy as np


class Predictions:
    """The copy ``p = F U`` with ``theta rho`` as its penalty; its linear step by Woodbury.

    Parameters
    ----------
    programme : Programme
    sigma, theta : float
        Penalties of ``G U = S`` and ``F U = p``, in units of rho.
    """

    def __init__(self, programme, sigma, theta=1.0):
        xp, X = programme.xp, programme.X
        self.programme, self.sigma, self.theta = programme, sigma, theta
        d = X.shape[1]
        B = xp.eye(d, dtype=X.dtype) + sigma * (X.T @ X)
        self.inverse = xp.linalg.inv(B)
        self.M = X @ self.inverse
        both = programme.mask.astype(X.dtype)
        S = 2.0 * (self.M @ X.T) * (both.T @ both)
        S[xp.arange(len(S)), xp.arange(len(S))] += 1.0 / theta
        self.factor = programme.be.linalg.cho_factor(S.astype(np.float64), lower=True)
        self.p = xp.zeros_like(programme.Y)
        self.mu = xp.zeros_like(programme.Y)

    def solve(self, R):
        """Return the U that minimises the augmented Lagrangian; R (c, 2, P, d)."""
        programme, xp = self.programme, self.programme.xp
        f = programme.masked_sum((R[:, 0] - R[:, 1]) @ self.M.T)
        right = (f - (self.p - self.mu)).T.astype(np.float64)
        w = programme.be.linalg.cho_solve(self.factor, right).T.astype(R.dtype)
        C = programme.transpose(xp.ascontiguousarray(w))
        return xp.stack([R[:, 0] - C, R[:, 1] + C], axis=1) @ self.inverse

    def absorb(self, F, rho, relax):
        """Update the copy from ``F = F U``; return the squared residuals."""
        xp = self.programme.xp
        q = relax * F + (1.0 - relax) * self.p + self.mu
        p = self.programme.loss.prox(q, rho * self.theta)
        residuals = xp.square(F - p).sum(), xp.square(p - self.p).sum()
        self.p, self.mu = p, q - p
        return residuals

    def rescale(self, q):
        """Keep the duals in the caller's unit when rho becomes ``q rho``."""
        self.mu = self.mu / q

    def dual(self, rho):
        """Return the dual point z."""
        return -rho * self.theta * self.mu
