"""The nearest point of a polyhedron, by semismooth Newton steps on the dual."""

import math

import numpy as np

# Steps at most, and how the damping of a step rises where it fails and falls where it does not.
_STEPS = 200
_RISE, _FALL = 100.0, 0.01
_LEAST = 1e-12


class EmptyError(ValueError):
    """No point satisfies all rows."""


class Faces:
    """All v with ``A v <= b`` and ``E v = f``, within bounds.

    Everything is computed in double precision, with rows of unit length.

    Parameters
    ----------
    A, b, E, f : array or None
        Rows and right-hand sides.
    lo, hi : array, optional
        Bounds, possibly infinite.

    Attributes
    ----------
    duals : array, shape (rows of A and E,)
        Of the last projection, for rows as they came; the next one starts from them.
    """

    def __init__(self, A, b, E, f, *, lo=None, hi=None, xp=np):
        self.xp, self.lo, self.hi = xp, lo, hi
        given = [(M, r) for M, r in ((A, b), (E, f)) if M is not None]
        G = xp.concatenate([M for M, _ in given]).astype(np.float64)
        h = xp.concatenate([r for _, r in given]).astype(np.float64)
        size = xp.sqrt((G * G).sum(axis=1))
        self._size = xp.where(size > 0, size, 1.0)
        self.G, self.h = G / self._size[:, None], h / self._size
        n_inequalities = 0 if A is None else len(A)
        self.equal = xp.arange(len(h)) >= n_inequalities
        self._a = xp.zeros(len(h))

    @property
    def duals(self):
        return self._a / self._size

    @duals.setter
    def duals(self, given):
        self._a = given * self._size

    def project(self, v):
        """Return the nearest point; EmptyError if there is none."""
        point = self._newton(v.astype(np.float64))
        return point.astype(v.dtype, copy=False)

    def _at(self, v, a):
        """Return the primal point of duals, its slack, the dual value to minimise and residual."""
        xp = self.xp
        p = v - a @ self.G
        if self.lo is not None:
            p = xp.clip(p, self.lo, self.hi)
        slack = self.h - self.G @ p
        away = p - v
        value = float(a @ slack) - 0.5 * float(away @ away)
        residual = xp.where(self.equal, abs(slack), abs(a - xp.maximum(a - slack, 0.0)))
        return p, slack, value, float(residual.max()) if len(residual) else 0.0

    def _newton(self, v):
        xp = self.xp
        a = xp.where(self.equal, self._a, xp.maximum(self._a, 0.0))
        p, slack, value, residual = self._at(v, a)
        scale = max(1e-300, float(abs(v).max()), float(abs(self.h).max()))
        damping, best = _LEAST, (residual, p, a)
        for _ in range(_STEPS):
            if residual <= 4e-15 * scale:
                break
            new = self._step(p, a, slack, damping)
            p_new, slack_new, value_new, residual_new = self._at(v, new)
            # How much the step promises: rounding hides less of it than of the value.
            promise = -float(slack @ (new - a))
            lower = value_new <= value - 1e-4 * promise and promise > 0
            if lower or residual_new <= 0.5 * residual:
                a, p, slack, value, residual = new, p_new, slack_new, value_new, residual_new
                damping = max(_LEAST, damping * _FALL)
            elif damping >= 1e6:
                break
            else:
                damping *= _RISE
            if residual < best[0]:
                best = residual, p, a
        residual, p, a = best
        if residual > 1e-9 * scale:
            self._refuse_if_empty(a, residual, scale)
        self._a = a
        return p

    def _step(self, p, a, slack, damping):
        """Return the duals after a step: Newton's for the rows that count, zero for the rest."""
        xp = self.xp
        counts = self.equal | (a > slack)
        (rows,) = xp.nonzero(counts)
        new = xp.zeros_like(a)
        if len(rows):
            G = self.G[rows]
            free = G if self.lo is None else G * ((p > self.lo) & (p < self.hi))
            H = free @ G.T
            H[xp.arange(len(rows)), xp.arange(len(rows))] += damping
            # The rows that leave move the point, too.
            left = xp.where(counts, 0.0, a)
            rhs = -slack[rows] + free @ (left @ self.G)
            new[rows] = a[rows] + xp.linalg.solve(H, rhs)
        return xp.where(self.equal, new, xp.maximum(new, 0.0))

    def _refuse_if_empty(self, a, residual, scale):
        """Raise if the duals prove, up to rounding, that no point satisfies the rows."""
        size = float(abs(a).max())
        if not size > 0:
            return
        ray = a / size
        slope, reach = ray @ self.G, float(ray @ self.h)
        tiny = 1e-7 * math.sqrt(float(ray @ ray))
        if self.lo is not None:
            slope = self.xp.where(abs(slope) <= tiny, 0.0, slope)
            least = self.xp.where(slope > 0, self.lo, self.hi)
            reach -= float((slope * self.xp.where(slope == 0, 0.0, least)).sum())
        elif float(abs(slope).max()) > tiny:
            return
        if reach < -tiny * scale:
            raise EmptyError(f"its rows contradict each other by {residual:.3g}")
