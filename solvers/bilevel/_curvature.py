"""Second derivatives of the lower level as linear maps, and linear systems with them."""

import math

import numpy as np

from .._core.linalg import pcg
from ._problem import Look

# Eigenvalues below this part of the largest count as zero.
_CUT = 1e-7
# Terms of a series that may grow before its step is halved.
_GROWTH = 10.0


class Curvature:
    """Products with ``g_yy`` and ``g_xy`` at a point: the caller's, or differences of gradients.

    Attributes
    ----------
    precond : array, shape (p,), or None
        The caller's diagonal close to that of ``g_yy``.
    """

    def __init__(self, problem, x, y, *, precondition=True):
        self.problem, self.lower, self.x, self.y = problem, problem.lower, x, y
        self.precond = problem.lower.diagonal(x) if precondition else None

    def yy(self, v):
        """Return ``g_yy v``."""
        if self.lower.oracle.hvp_yy is None:
            return self._change(None, v).gy
        return self.lower.hvp_yy(self.x, self.y, v)

    def xy(self, v):
        """Return ``g_xy v``, shaped like x."""
        if self.lower.oracle.hvp_xy is None:
            return self._change(None, v, with_x=True).gx
        return self.lower.hvp_xy(self.x, self.y, v)

    def both(self, v):
        """Return ``g_yy v`` and ``g_xy v``; where both are differences, of one pair."""
        oracle = self.lower.oracle
        if oracle.hvp_yy is None and oracle.hvp_xy is None:
            change = self._change(None, v, with_x=True)
            return change.gy, change.gx
        return self.yy(v), self.xy(v)

    def along(self, u, v):
        """Return how fast ``g_y`` changes as x moves along u and y along v."""
        return self._change(u, v).gy

    def _change(self, u, v, with_x=False):
        """Return the central difference of both gradients along u in x and v in y."""
        step = min(_reach(self.problem, self.x, u), _reach(self.problem, self.y, v))
        if math.isinf(step):
            step = 0.0
        ends = []
        for t in (step, -step):
            x = self.x if u is None else self.x + t * u
            ends.append(self.lower.look(x, self.y + t * v, with_x=with_x))
        scale = 0.5 / step if step else 0.0
        gx = scale * (ends[0].gx - ends[1].gx) if with_x else None
        return Look(0.0, gx, scale * (ends[0].gy - ends[1].gy))

    def scaled(self, v):
        """Return v divided by the diagonal, if there is one."""
        return v if self.precond is None else v / self.precond

    def largest(self, steps=15):
        """Return the largest eigenvalue of ``P^-1 g_yy``, a little above what power steps find."""
        xp = self.problem.io.xp
        v = xp.cos(xp.arange(len(self.y), dtype=self.y.dtype))
        top = 0.0
        for _ in range(steps):
            v = v * (1.0 / math.sqrt(float(v @ v)))
            w = self.yy(v)
            weight = 1.0 if self.precond is None else float(v @ (self.precond * v))
            top = max(top, abs(float(v @ w)) / weight, self._length(w) / math.sqrt(weight))
            v = self.scaled(w)
            if not float(v @ v) > 0:
                break
        return 1.05 * top if top > 0 and math.isfinite(top) else 1.0

    def _length(self, w):
        return math.sqrt(max(float(w @ self.scaled(w)), 0.0))


def _reach(problem, point, v):
    """Return how far along v a central difference goes, at most."""
    length = 0.0 if v is None else float(abs(v).max())
    reach = problem.eps ** (1 / 3) * max(1.0, float(abs(point).max()))
    return reach / length if length > 0 else math.inf


# ---- linear systems g_yy q = b, each from a guess to a residual of length `tol`


def cg(curvature, b, guess, tol, maxiter):
    """Solve by preconditioned conjugate gradients."""
    precond = None if curvature.precond is None else curvature.scaled
    size = _norm(b)
    return pcg(
        curvature.yy, b, be=curvature.problem.io.be, x0=guess, precond=precond,
        tol=tol / size if size > 0 else 1.0, maxiter=maxiter,
    ).x  # fmt: skip


def neumann(curvature, b, guess, tol, maxiter):
    """Sum the Neumann series of ``eta P^-1 g_yy``, begun at the guess."""
    q, eta = guess, 1.0 / curvature.largest()
    r, least = b - curvature.yy(q), math.inf
    for _ in range(maxiter):
        size = _norm(r)
        if size <= tol:
            break
        if size > _GROWTH * least:
            eta *= 0.5
        least = min(least, size)
        q = q + eta * curvature.scaled(r)
        r = b - curvature.yy(q)
    return q


def minres(curvature, b, guess, tol, maxiter):
    """Solve by preconditioned minimal residuals, which a singular matrix does not disturb."""
    x, v = guess, b - curvature.yy(guess)
    z = curvature.scaled(v)
    gamma = math.sqrt(max(float(z @ v), 0.0))
    # The method measures residuals by P^-1; a first comparison says what `tol` means there.
    goal = tol * gamma / max(_norm(v), 1e-300)
    eta, before, c, c_old, s, s_old = gamma, 1.0, 1.0, 1.0, 0.0, 0.0
    v_old, w, w_old = 0 * v, 0 * v, 0 * v
    for _ in range(maxiter):
        if abs(eta) <= goal or not gamma > 0:
            break
        z = z / gamma
        Az = curvature.yy(z)
        delta = float(Az @ z)
        v, v_old = Az - (delta / gamma) * v - (gamma / before) * v_old, v
        z, last = curvature.scaled(v), z
        before, gamma = gamma, math.sqrt(max(float(z @ v), 0.0))
        # Rotations keep the triangular factor of Lanczos' matrix.
        a0 = c * delta - c_old * s * before
        a1 = math.hypot(a0, gamma)
        a2 = s * delta + c_old * c * before
        a3 = s_old * before
        if not a1 > 0:
            break
        c, c_old, s, s_old = a0 / a1, c, gamma / a1, s
        w, w_old = (last - a3 * w_old - a2 * w) / a1, w
        x = x + (c * eta) * w
        eta = -s * eta
    return x


def dense(curvature, b, guess, tol, maxiter):
    """Solve by a Cholesky factor, or where there is none by the pseudo-inverse."""
    xp, be = curvature.problem.io.xp, curvature.problem.io.be
    H = xp.stack([curvature.yy(e) for e in xp.eye(len(b), dtype=b.dtype)])
    H = 0.5 * (H + H.T)
    try:
        factor = be.cholesky(H)
        q = be.linalg.solve_triangular(factor, b, lower=True)
        q = be.linalg.solve_triangular(factor, q, lower=True, trans=1)
    except np.linalg.LinAlgError:
        w, Q = xp.linalg.eigh(H)
        keep = w > _CUT * w.max()
        q = Q @ (xp.where(keep, Q.T @ b, 0) / xp.where(keep, w, 1))
    return q


def shine(pairs, b, guess, curvature, unit):
    """Correct a guess by the inverse that L-BFGS built while it minimised: a step, not a solve.

    The inverse gets one more pair, for the sake of b: what it does to the guess's residual.
    """
    r = b - curvature.yy(guess)
    s = quasi_newton(pairs, r, curvature, unit)
    pairs.add(s, curvature.yy(s))
    return guess + quasi_newton(pairs, r, curvature, unit)


def quasi_newton(pairs, b, curvature, unit):
    """Return the product of the inverse behind pairs (step, change of gradient) with b."""
    if pairs:
        return pairs.times(b, curvature.precond)
    return unit * b if curvature.precond is None else curvature.scaled(b)


def _norm(v):
    return math.sqrt(float(v @ v))
