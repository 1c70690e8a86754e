"""Value and gradient of psi by second derivatives of the lower level."""

from typing import Any, NamedTuple

import numpy as np

# Curvatures below this part of the largest one are looked at again, for they may be 0.
_FLAT = 1e-7
# Solutions sharper than this part of the tolerance gain nothing.
_ENOUGH = 1e-2
# A sharp solution farther than this from the candidate, relative to y, has a look of its own.
_FAR = 1e-3
# Estimates of errors are taken this many times.
_CAUTION = 2.0
_POLISHES, _REFINEMENTS, _RECENTRED, _SHARPENED = 20, 8, 4, 3


class Found(NamedTuple):
    """Value and gradient of psi at a solution of the lower level that was made sharp.

    Parameters
    ----------
    value : float
    grad : array, shape (d,)
    error : float
        Estimate of the length of the gradient's error.
    y : array, shape (p,)
        The sharp solution.
    curvature : float
        Smallest curvature of the lower level along what is free, relative to the largest, if
        that is negative; else 0.
    upper_curvature : float
        The same of the upper level among the solutions of the lower one.
    psi_lower, sigma : float
        A lower bound of psi, and the penalty that it belongs to.
    cone : array, shape (k, d)
        The gradient counts for the directions v with ``cone @ v >= 0``.
    """

    value: float
    grad: Any
    error: float
    y: Any
    curvature: float
    upper_curvature: float
    psi_lower: float
    sigma: float
    cone: Any


class Piece:
    """The lower level with certain coordinates fixed and certain rows active.

    Parameters
    ----------
    local : Local
    y : array, shape (p,)
        Close to a solution.
    free : array of bool, shape (p,)
    active : array of int
        Rows that hold with equality.
    tol : float
        Relative accuracy that is wanted.
    H : array, optional
        The second derivative in the free coordinates, if it is known already.
    """

    def __init__(self, local, y, free, active, tol, H=None):
        self.local, self.y, self.free, self.active = local, y, free, active
        self.tol, self.enough = tol, _ENOUGH * tol
        self._relate()
        self.curvature = self.upper_curvature = self.slope = self.tilt = 0.0
        self._learn(H)
        self._polish()
        if float(abs(self.y - y).max()) > _FAR * max(1.0, float(abs(y).max())):
            # What holds here may not hold there.
            self._learn(None)
            self._polish()
        if self.N.shape[1]:
            self._choose()

    # ------------------------------------------------------------ the lower level
    def _relate(self):
        """Find what keeps the active rows, Z (n, r), and the multipliers of the others."""
        _, _, gy = self.local.lower(self.y)
        self.c, self.Jx, Jy = (part[self.active] for part in self.local.rows(self.y))
        self.J = Jy[:, self.free]
        n = self.J.shape[1]
        self.w = np.zeros(len(self.local.equal))
        if not len(self.active):
            self.Z, self.J_inv, self.independent = None, np.zeros((n, 0)), True
            return
        # Rows of any length weigh the same.
        length = np.maximum(np.linalg.norm(self.J, axis=1), 1e-300)
        self.c, self.Jx = self.c / length, self.Jx / length[:, None]
        U, s, V = np.linalg.svd(self.J / length[:, None])
        rank = int((s > 1e-9 * s.max(initial=0.0)).sum())
        self.Z, self.independent = V[rank:].T, rank == len(self.active)
        self.J_inv = (V[:rank].T / s[:rank]) @ U[:, :rank].T
        self.w[self.active] = -self.J_inv.T @ gy[self.free] / length

    def _onto(self, v):
        """Return the part of a vector (n,) along what is free to move."""
        return v if self.Z is None else self.Z.T @ v

    def _whole(self, u):
        """Return a free move as one of y, (p,)."""
        out = np.zeros(self.local.p)
        out[self.free] = u if self.Z is None else self.Z @ u
        return out

    def _learn(self, H):
        """Find the second derivative, and tell directions that bend from flat ones, N."""
        self.H = self.local.hessian(self.y, self.w, self.free) if H is None else H
        K = self.H if self.Z is None else self.Z.T @ self.H @ self.Z
        lam, Q = np.linalg.eigh(K)
        self.steepest = float(abs(lam).max(initial=0.0))
        eps = self.local.problem.eps
        noise = 5 * eps**0.8 * self.steepest
        doubtful = lam <= max(_FLAT, 100 * eps ** (2 / 3)) * self.steepest
        self.lam, self.Q, self.N = lam[~doubtful], Q[:, ~doubtful], Q[:, doubtful]
        if not doubtful.any():
            return
        moves = [self._whole(n) for n in self.N.T]
        seen = np.array([self.local.along(self.y, self.w, v) for v in moves])
        again = np.array([self.local.along(self.y, self.w, v, 2.0) for v in moves[:8]])
        d = self.local.d
        off = abs(again - seen[:8])
        noise += 2 * float(off[:, d:].max())
        B = np.array([self._onto(row[d:][self.free]) for row in seen]) @ self.N
        low, R = np.linalg.eigh(0.5 * (B + B.T))
        if low[0] < -noise:
            self.curvature = float(low[0] / self.steepest)
        bends = low > 4 * noise
        self.lam = np.r_[low[bends], self.lam]
        self.Q = np.c_[self.N @ R[:, bends], self.Q]
        flat = R[:, ~bends]
        self.N = self.N @ flat
        # Flat directions must stay flat for other x, or psi jumps there.
        blur = 4 * off[:, :d].max() + 30 * eps**0.8 * abs(self.local.lower(self.y)[1]).max()
        self.tilt = max(0.0, float(abs(flat.T @ seen[:, :d]).max(initial=0.0) - blur))

    @property
    def least(self):
        """Smallest curvature of those that are not 0; inf without any."""
        return float(self.lam.min(initial=np.inf))

    def _solve(self, r, rough=False):
        """Return ``K^+ r`` over the directions that bend."""
        return self.Q @ ((self.Q.T @ r) / self.lam)

    def _residual(self):
        """Return the gradient along what is free."""
        return self._onto(self.local.gradients(self.y, self.w)[self.local.d :][self.free])

    def _polish(self):
        """Newton's method with one matrix, as long as it gains."""
        best = np.inf
        for _ in range(_POLISHES):
            self._relate()
            normal = -self.J_inv @ self.c
            r = self._residual() + (self._onto(self.H @ normal) if len(self.active) else 0.0)
            u = -self._solve(r)
            move = self._whole(u)
            move[self.free] += normal
            size = float(abs(move).max(initial=0.0))
            if not size <= 0.5 * best:
                break
            best, self.y = size, self.y + move
            if size <= self.enough:
                break
        self._relate()
        # What the last move was, and the gradient that no move can lower.
        self.left = best if np.isfinite(best) else np.nan
        self.stuck = float(abs(self.N.T @ self._residual()).max(initial=0.0))

    # ------------------------------------------------------------ the upper level
    def _choose(self):
        """Move to the minimiser of the upper level among the solutions of the lower one."""
        for _ in range(_RECENTRED):
            if not self.N.shape[1]:
                return
            _, _, fy = self.local.upper(self.y)
            slope = self.N.T @ self._onto(fy[self.free])
            F, noise = self._bent_upper(fy)
            phi, R = np.linalg.eigh(F)
            bends = phi > noise
            self.upper_curvature = float(min(0.0, phi[0] + noise) / abs(phi).max(initial=noise))
            along = R.T @ slope
            # What no bend stops may fall for ever.
            self.slope = float(abs(along[~bends]).max(initial=0.0))
            move = self._whole(self.N @ R[:, bends] @ (-along[bends] / phi[bends]))
            self.y = self.y + move
            self._polish()
            if not abs(move).max() > self.enough:
                return
            # Solutions may lie on a curve, whose tangent has turned.
            self._learn(None)

    def _bent_upper(self, fy):
        """Return the second derivative of f along N, on the solutions' curve, and its noise."""
        q = self._whole(self._solve(self._onto(fy[self.free])))
        d, columns, size = self.local.d, [], self.steepest * float(np.linalg.norm(q))
        for n in self.N.T:
            v = self._whole(n)
            bent = self.local.upper_along(self.y, v)
            size = max(size, float(np.linalg.norm(bent)))
            t = self.local.long / max(abs(v).max(), 1e-300)
            ahead, behind = (self.local.along(self.y + s * v, self.w, q)[d:] for s in (t, -t))
            bent = bent - (ahead - behind) / (2 * t)
            columns.append(self.N.T @ self._onto(bent[self.free]))
        F = np.array(columns)
        return 0.5 * (F + F.T), self.local.problem.eps**0.5 * size

    def found(self, unit, weak=()):
        """Return value, gradient and bounds of psi; sharper, if that is needed for the tolerance.

        Parameters
        ----------
        unit : float
            Gradients above it are measured relative to themselves.
        weak : array of int
            Rows without a multiplier.
        """
        for _ in range(_SHARPENED):
            found = self._found(weak)
            enough = 0.3 * self.tol * max(unit, float(np.linalg.norm(found.grad)))
            if found.error <= enough or not np.isfinite(found.error):
                break
            self.enough *= 1e-3
            self._polish()
        return found

    def _found(self, weak):
        local, d = self.local, self.local.d
        value, fx, fy = local.upper(self.y)
        target = self._part(self._onto(fy[self.free]))
        u, product, best = np.zeros(len(target)), np.zeros(d + local.p), np.inf
        long = np.linalg.norm(target)
        for _ in range(_REFINEMENTS):
            rest = self._part(target - self._onto(product[d:][self.free]))
            size = float(np.linalg.norm(rest))
            if not self.enough * long < size <= 0.5 * best:
                break
            best, u = size, u + self._solve(rest)
            product = local.along(self.y, self.w, self._whole(u))
        a = self._whole(u)
        b = self.J_inv.T @ (fy - product[d:])[self.free]
        grad = fx - product[:d] - self.Jx.T @ b
        return Found(
            value, grad, self._error(a, product, rest, fx, fy), self.y, self.curvature,
            self.upper_curvature, *self._bound(a, value), self._cone(weak),
        )  # fmt: skip

    def _part(self, r):
        return r - self.N @ (self.N.T @ r)

    def _error(self, a, product, rest, fx, fy):
        """Estimate the length of the gradient's error: of differences, solves and rounding."""
        local, d = self.local, self.local.d
        apart = local.along(self.y, self.w, a, 2.0) - product
        doubled, mixed = np.linalg.norm(apart[:d]), 0.0
        for unsolved in (rest, self._part(self._onto(apart[d:][self.free]))):
            spread = self._whole(self._solve(unsolved, rough=True))
            mixed += np.linalg.norm(local.along(self.y, self.w, spread)[:d])
        eps = local.problem.eps
        rounding = 64 * eps * (np.linalg.norm(fx) + np.linalg.norm(product[:d]))
        # How far y may still be off moves all terms.
        bent = np.linalg.norm(local.upper_along(self.y, a)) / max(np.linalg.norm(a), 1e-300)
        steep = np.linalg.norm(product[:d]) / max(np.linalg.norm(fy), 1e-300)
        off = self._off() * (bent * steep)
        turned = (
            max(1e-5, 30 * eps**0.8) * np.linalg.norm(product[:d]) / max(np.linalg.norm(a), 1e-300)
        )
        if self.tilt > turned or self._unsettled(fy):
            return np.inf
        return float(_CAUTION * (doubled + mixed + off) + rounding)

    def _unsettled(self, fy):
        """Tell whether one of the levels still falls along a flat direction."""
        size = max(1.0, float(abs(self.y).max()))
        falls = self.stuck > self.local.problem.eps**0.75 * self.steepest * size
        return falls or self.slope > self.tol * float(abs(fy).max())

    def _off(self):
        """Return how far the sharp solution may be from the exact one."""
        floor = self.local.problem.eps * max(1.0, float(abs(self.y).max()))
        return max(self.left, floor) if np.isfinite(self.left) else np.inf

    def _bound(self, a, value):
        """Return a lower bound of psi by one penalty, and that penalty."""
        local = self.local
        if len(self.active) or not self.free.all() or not np.isfinite(self.least):
            return np.nan, np.nan
        eps, g0 = local.problem.eps, local.lower(self.y)[0]
        _, _, fy = local.upper(self.y)
        bent = np.linalg.norm(local.upper_along(self.y, fy))
        bent = bent / max(np.linalg.norm(fy), 1e-300) or 1.0
        # Rounding loses eps |g| / sigma; the penalty costs sigma f_y a / 2, and that `near` is
        # no exact minimiser another sigma^3 |F a|^2 / least.
        lost, first = 4 * eps * abs(g0) + 1e-300, abs(fy @ a) + 1e-300
        third = np.linalg.norm(local.upper_along(self.y, a)) ** 2 / self.least + 1e-300
        sigma = min(1e-3 * self.steepest / bent, (lost / first) ** 0.5, (lost / third) ** 0.25)
        near = self.y - sigma * a
        f, _, fy = local.upper(near)
        g, _, gy = local.lower(near)
        e = np.linalg.norm(self._part(sigma * fy + gy))
        blur = 4 * eps * abs(g) + e * e / (2 * self.least)
        return float(f + (g - g0 - blur) / sigma), float(sigma)

    def _cone(self, weak):
        """Return the directions of x in which weakly active rows stay as they are here."""
        local, d = self.local, self.local.d
        if not len(weak):
            return np.zeros((0, d))
        M = np.zeros((d, self.H.shape[0]))
        for j, k in enumerate(np.flatnonzero(self.free)):
            e = np.zeros(local.p)
            e[k] = 1.0
            M[:, j] = local.along(self.y, self.w, e)[:d]
        # Derivatives in x of y, and of the multipliers of the active rows.
        dy = -self.J_inv @ self.Jx
        u = -np.array([self._solve(self._onto(c)) for c in (M.T + self.H @ dy).T]).T
        dy = dy + (u if self.Z is None else self.Z @ u)
        dw = -self.J_inv.T @ (M.T + self.H @ dy)
        _, Jx, Jy = local.rows(self.y)
        rows = []
        for i in weak:
            held = np.flatnonzero(self.active == i)
            rows.append(dw[held[0]] if len(held) else -(Jx[i] + Jy[i][self.free] @ dy))
        return np.array(rows)
