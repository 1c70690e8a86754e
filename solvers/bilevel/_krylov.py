"""The sharp solution of a large lower level, by conjugate gradients on differences."""

import numpy as np

from ._second_order import Piece

# Memory for directions that later solves start from, in numbers.
_KEPT = 1 << 25
# How small the residual of the probe must get, where its entries have variance 1.
_PROVEN = 1e-2
_RTOL, _ROUGH = 1e-4, 0.1


class KrylovPiece(Piece):
    """A `Piece` without rows that never forms the second derivative.

    A solve with a random right-hand side proves that all directions bend: conjugate gradients
    with positive curvatures only can enlarge its part along a direction that bends down, and
    hardly lower it along a flat one. Where the proof fails, `sure` is False.

    Parameters
    ----------
    local, y, free, tol : see `Piece`
    budget : int
        Largest number of products for the proof.
    """

    def __init__(self, local, y, free, tol, budget):
        self.sure, self.budget = True, budget
        super().__init__(local, y, free, np.zeros(0, int), tol)

    def _learn(self, H):
        local, n = self.local, int(self.free.sum())
        self.N = np.zeros((n, 0))
        self._given = local.trusted(self.y)
        self._at = self.y
        diagonal = local.problem.lower.diagonal(local.x)
        P = np.ones(n) if diagonal is None else local.host(diagonal)[self.free]
        self._P = P if np.isfinite(P).all() and (P > 0).all() else np.ones(n)
        self._kept, self.steepest, self._least = [], 0.0, np.inf
        probe = np.sqrt(self._P) * np.random.default_rng(0).standard_normal(n)
        self._descend(probe, _PROVEN, self.budget, prove=True)

    def _unsettled(self, fy):
        """Tell whether it is not certain that all directions bend."""
        return not self.sure

    @property
    def bends_down(self):
        """Whether a curvature is negative beyond what differences leave."""
        return self.curvature < -max(1e-6, 30 * self.local.problem.eps ** (2 / 3))

    @property
    def least(self):
        return self._least

    def _bend(self, v):
        """Return the second derivative times a vector, both along what is free."""
        whole = self._whole(v)
        given = self._given
        product = self.local.product(self._at, self.w, whole) if given is None else given(whole)
        return product[self.free]

    def _solve(self, r, rough=False):
        size = float(np.sqrt(r @ (r / self._P)))
        return self._descend(r, (_ROUGH if rough else _RTOL) * size, self.budget)

    def _descend(self, r, goal, budget, prove=False):
        """Return an approximate solution of ``K u = r``: conjugate gradients."""
        u = np.zeros_like(r)
        for p, Kp, bent in self._kept:
            t = float(p @ r) / bent
            u, r = u + t * p, r - t * Kp
        z = r / self._P
        p, rho = z, float(r @ z)
        steps = []
        for _ in range(budget):
            if not rho > goal * goal:
                break
            Kp = self._bend(p)
            bent, size = float(p @ Kp), float(p @ p)
            self.steepest = max(self.steepest, float(np.linalg.norm(Kp)) / size**0.5)
            if not bent > 30 * self.local.problem.eps ** (2 / 3) * self.steepest * size:
                self.curvature = min(self.curvature, bent / (self.steepest * size))
                self.sure = False
                break
            if 2 * (len(self._kept) + 1) * len(p) <= _KEPT:
                self._kept.append((p, Kp, bent))
            t = rho / bent
            u, r = u + t * p, r - t * Kp
            z = r / self._P
            before, rho = rho, float(r @ z)
            steps.append((t, rho / before))
            p = z + (rho / before) * p
        if prove:
            self.sure = self.sure and rho <= goal * goal
            self._least = _smallest(steps) * float(self._P.min())
        return u


def _smallest(steps):
    """Return the smallest Ritz value of conjugate gradients, from its steps."""
    if not steps:
        return np.inf
    t, beta = np.array(steps).T
    main = 1 / t + np.r_[0.0, beta[:-1] / t[:-1]]
    side = np.sqrt(beta[:-1]) / t[:-1]
    return float(np.linalg.eigvalsh(np.diag(main) + np.diag(side, 1) + np.diag(side, -1))[0])
