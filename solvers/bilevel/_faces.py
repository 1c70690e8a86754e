"""The nearest point of a polyhedron, by semismooth Newton steps on the dual."""

import numpy as np

# Newton's steps: how many, their damping, and how it rises where they fail.
_STEPS, _LEAST, _MOST, _RISE = 100, 1e-12, 1e6, 100.0
# Residuals, relative to the numbers at hand, that cannot fall and that will do.
_ROUNDING, _GOOD = 4e-15, 1e-12
# Rows whose part across the others is shorter than this depend on them.
_DEPENDENT = 1e-9


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
    be : Backend
        Back end of the arrays.

    Attributes
    ----------
    duals : array, shape (rows of A and E,)
        Of the last projection, for rows as they came; the next one starts from them.
    """

    def __init__(self, A, b, E=None, f=None, *, lo=None, hi=None, be):
        self.be, self.xp, self.lo, self.hi = be, be.xp, lo, hi
        xp = be.xp
        given = [(M, r) for M, r in ((A, b), (E, f)) if M is not None]
        G = xp.concatenate([M for M, _ in given]).astype(np.float64)
        h = xp.concatenate([r for _, r in given]).astype(np.float64)
        size = xp.sqrt((G * G).sum(axis=1))
        self._size = xp.where(size > 0, size, 1.0)
        self.G, self.h = G / self._size[:, None], h / self._size
        self.equal = xp.arange(len(h)) >= (0 if A is None else len(A))
        self._a = xp.zeros(len(h))

    @property
    def duals(self):
        return self._a / self._size

    @duals.setter
    def duals(self, given):
        self._a = given * self._size

    def project(self, v):
        """Return the nearest point; EmptyError if there is none."""
        wide = v.astype(np.float64)
        p, a = self._newton(wide)
        if p is None:
            p, a = self._by_active_sets(wide)
        self._a = a
        return p.astype(v.dtype, copy=False)

    def _newton(self, v):
        xp = self.xp
        a = xp.where(self.equal, self._a, xp.maximum(self._a, 0.0))
        p, slack, value, residual = self._at(v, a)
        scale = float(xp.maximum(abs(v).max(), abs(self.h).max()))
        damping = _LEAST
        for _ in range(_STEPS):
            if residual <= _ROUNDING * scale or damping > _MOST:
                break
            new = self._step(p, a, slack, damping)
            ahead = self._at(v, new)
            # What the step promises, to first order.
            promise = -float(slack @ (new - a))
            falls = promise > 0 and ahead[2] <= value - 1e-4 * promise
            if falls or ahead[3] <= 0.5 * residual:
                a, (p, slack, value, residual) = new, ahead
                damping = max(_LEAST, damping / _RISE)
            else:
                damping *= _RISE
        return (p, a) if residual <= _GOOD * scale else (None, None)

    def _at(self, v, a):
        """Return the point that duals stand for, slack, negative dual value and residual."""
        xp = self.xp
        p = v - a @ self.G
        if self.lo is not None:
            p = xp.clip(p, self.lo, self.hi)
        slack = self.h - self.G @ p
        away = p - v
        residual = xp.where(self.equal, abs(slack), abs(a - xp.maximum(a - slack, 0.0)))
        value, largest = self.be.host(a @ slack - 0.5 * (away @ away), residual.max())
        return p, slack, value, largest

    def _step(self, p, a, slack, damping):
        """Return the duals after a step: Newton's for the rows that count, zero for the rest."""
        xp = self.xp
        counts = self.equal | (a > slack)
        (rows,) = xp.nonzero(counts)
        new = xp.zeros_like(a)
        if len(rows):
            G = self.G[rows]
            free = G if self.lo is None else G * ((p > self.lo) & (p < self.hi))
            H = free @ G.T + damping * xp.eye(len(rows))
            # The rows that leave move the point, too.
            left = xp.where(counts, 0.0, a)
            new[rows] = a[rows] + xp.linalg.solve(H, free @ (left @ self.G) - slack[rows])
        return xp.where(self.equal, new, xp.maximum(new, 0.0))

    def _by_active_sets(self, v):
        xp, host = self.xp, self.be.host
        bounds = None
        if self.lo is not None:
            bounds = tuple(np.asarray(host(b), dtype=float) for b in (self.lo, self.hi))
        rows = host(self.G, self.h, self.equal)
        p, a = _by_active_sets(np.asarray(host(v)), *map(np.asarray, rows), bounds)
        return xp.asarray(p), xp.asarray(a)


def _by_active_sets(v, G, h, equal, bounds):
    """Return the nearest point and the duals of the rows of G, on the host.

    The dual active-set method of Goldfarb and Idnani: add the row that is violated most, drop
    rows whose duals would turn negative. One row at a time, it is slow where many hold with
    equality, but rows that depend on each other cannot mislead it.
    """
    m, n = G.shape
    if bounds is not None:
        lo, hi = bounds
        finite = np.flatnonzero(np.isfinite(np.r_[-lo, hi]))
        G = np.concatenate([G, np.concatenate([-np.eye(n), np.eye(n)])[finite]])
        h = np.concatenate([h, np.r_[-lo, hi][finite]])
    equal = np.r_[equal, np.zeros(len(h) - m, bool)]
    scale = max(abs(v).max(), abs(h).max())
    kept, signs, duals, p = [], [], np.zeros(0), v
    for _ in range(20 * (len(h) + 1)):
        slack = h - G @ p
        off = np.where(equal, abs(slack), -slack)
        off[kept] = 0.0
        new = int(off.argmax())
        if off[new] <= _GOOD * scale:
            break
        sign = -1.0 if slack[new] > 0 else 1.0
        normal, dual = sign * G[new], 0.0
        while True:
            N = (np.array(signs)[:, None] * G[kept]).T if kept else np.zeros((n, 0))
            r = np.linalg.lstsq(N, normal, rcond=None)[0]
            across = normal - N @ r
            across -= N @ np.linalg.lstsq(N, across, rcond=None)[0]
            length = across @ across
            far = np.inf
            if length > _DEPENDENT**2:
                far = (normal @ p - sign * h[new]) / length
            may = np.flatnonzero((r > 0) & ~equal[kept])
            ratios = duals[may] / r[may]
            t = min(far, ratios.min(initial=np.inf))
            if t == np.inf:
                raise EmptyError(f"its rows contradict each other by {off[new]:.3g}")
            if far < np.inf:
                p = p - t * across
            duals, dual = duals - t * r, dual + t
            if t == far:
                kept, signs, duals = [*kept, new], [*signs, sign], np.r_[duals, dual]
                break
            gone = int(may[ratios.argmin()])
            duals = np.delete(duals, gone)
            del kept[gone], signs[gone]
    a = np.zeros(len(h))
    a[kept] = np.array(signs) * duals
    return p, a[:m]
