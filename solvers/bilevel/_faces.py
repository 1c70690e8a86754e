"""The nearest point of a polyhedron, by semismooth Newton steps on the dual."""

import numpy as np

from ._descent import Descent
from ._region import Region

# Newton's steps: how many, their damping, and how it rises where they fail.
_STEPS, _LEAST, _MOST, _RISE = 100, 1e-12, 1e6, 100.0
# Residuals, relative to the numbers at hand, that cannot fall, that will do, and that prove that
# rows and region are apart.
_ROUNDING, _GOOD, _POOR = 4e-15, 1e-12, 1e-6
# Rows whose part across the others is shorter than this depend on them.
_DEPENDENT = 1e-9
# Slack, relative to the point, below which a row holds with equality.
_TIGHT = 1e-11


class EmptyError(ValueError):
    """No point satisfies all rows."""


class Faces:
    """All v with ``A v <= b`` and ``E v = f``, within a region.

    Everything is computed in double precision, with rows of unit length.

    Parameters
    ----------
    A, b, E, f : array or None
        Rows and right-hand sides.
    within : Region, optional
        Bounds or, at some cost, another set.
    be : Backend
        Back end of the arrays.

    Attributes
    ----------
    size : array, shape (rows of A and E,)
        Lengths of the rows as they came.
    duals : array, shape (rows of A and E,)
        Of the last projection, for rows as they came; the next one starts from them.
    normal : array or None
        What the region took away in the last projection, unless it is a box; None, too, once
        `tangent` has seen that the point itself does not lie on that wall.
    """

    def __init__(self, A, b, E=None, f=None, *, within=None, be):
        self.be, self.xp, self.within = be, be.xp, within or Region()
        self.lo, self.hi = self.within.lo, self.within.hi
        xp = be.xp
        given = [(M, r) for M, r in ((A, b), (E, f)) if M is not None]
        G = xp.concatenate([M for M, _ in given]).astype(np.float64)
        h = xp.concatenate([r for _, r in given]).astype(np.float64)
        size = xp.sqrt((G * G).sum(axis=1))
        self.size = xp.where(size > 0, size, 1.0)
        self.G, self.h = G / self.size[:, None], h / self.size
        self.equal = xp.arange(len(h)) >= (0 if A is None else len(A))
        self._a, self._face, self.normal = xp.zeros(len(h)), None, None

    @property
    def duals(self):
        return self._a / self.size

    @duals.setter
    def duals(self, given):
        self._a = given * self.size

    def project(self, v):
        """Return the nearest point; EmptyError if there is none."""
        wide = v.astype(np.float64)
        self.normal = None
        if self.within.whole or self.lo is not None:
            p, a = self._newton(wide)
            if p is None:
                p, a = self._by_active_sets(wide)
        else:
            p, a = self._by_dual_descent(wide)
        self._a = a
        return p.astype(v.dtype, copy=False)

    def tangent(self, v, q, *, known=True):
        """Return a function that leaves of a direction what keeps to the face of v and q.

        Parameters
        ----------
        v, q : array, shape (n,)
            Points of the set.
        known : bool
            Whether q came out of the last projection, which then knows more than q shows.
        """
        xp = self.xp
        if self.normal is not None and not self._leans(v, q):
            self.normal = None
        near = _TIGHT * max(1.0, float(abs(v).max())) + 64 * float(xp.finfo(v.dtype).eps)
        pressed = self._a > 0 if known else self.h - self.G @ q <= near
        tight = self.equal | (pressed & (self.h - self.G @ v <= near))
        free = self._free(v, q)
        if self._face is None or self._stale(tight, free):
            self._face = tight, free, self._across(tight, free)
        across = self._face[2]
        return lambda w: xp.where(free, w - across(xp.where(free, w, 0.0)), 0.0).astype(w.dtype)

    def bounded(self):
        """Return which coordinates have bounds."""
        xp = self.xp
        if self.lo is None:
            return xp.zeros(self.G.shape[1], bool)
        return xp.isfinite(self.lo) | xp.isfinite(self.hi)

    def pressure(self, grad):
        """Return the multipliers of rows that explain a gradient best, on the last `tangent`."""
        tight, free, _ = self._face
        a = self.xp.zeros(len(self.h))
        rows = self.G[tight] * free
        a[tight] = -self.xp.linalg.lstsq(rows.T, self.xp.where(free, grad, 0.0), rcond=None)[0]
        return a / self.size

    def _free(self, v, q):
        """Return which coordinates no wall of the region holds."""
        if self.lo is not None:
            low, high = (v <= self.lo) & (q <= self.lo), (v >= self.hi) & (q >= self.hi)
            return ~(low | high)
        # What a wall of unknown shape presses on and does not let move.
        return self.xp.ones(len(v), bool) if self.normal is None else v != q

    def _leans(self, v, q):
        """Tell whether v lies on the wall that pressed on q, and not before it."""
        way, norm = q - v, self.xp.linalg.norm
        return float(self.normal @ way) <= 0.3 * float(norm(self.normal) * norm(way))

    def _stale(self, tight, free):
        if self.normal is not None:
            return True
        before = self._face[:2]
        return bool((before[0] != tight).any() | (before[1] != free).any())

    def _across(self, tight, free):
        """Return the projector on the span of the tight rows, within the free coordinates."""
        rows = self.G[tight]
        if self.normal is not None:
            rows = self.xp.concatenate(
                [rows, self.normal[None] / self.xp.linalg.norm(self.normal)]
            )
        _, s, V = self.xp.linalg.svd(rows * free, full_matrices=False)
        Q = V[s > _DEPENDENT * max(float(s[0]) if len(s) else 0.0, _DEPENDENT)]
        return lambda w: (Q @ w) @ Q

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
        p = self.within.project(v - a @ self.G)
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

    def _by_dual_descent(self, v):
        """Return the nearest point for a region of any kind, by quasi-Newton steps."""
        xp = self.xp

        def negative_dual(a):
            _, slack, value, _ = self._at(v, a)
            return value, slack, 1e-16 * abs(value)

        if not len(self.h):
            p = self.within.project(v)
            return self._leant(v, p), self._a
        least = xp.where(self.equal, -xp.inf, 0.0)
        most = xp.full_like(least, xp.inf)
        cone = Region(lambda a: xp.maximum(a, least), least, most)
        run = Descent(negative_dual, self._a, cone, unit=1.0 / len(least))
        scale = float(xp.maximum(abs(v).max(), abs(self.h).max()))
        for _ in range(10 * _STEPS):
            if run.residual(1.0) <= _GOOD * scale or not run.step():
                break
        p, _, _, residual = self._at(v, run.v)
        if not residual <= _POOR * scale:
            raise EmptyError(f"its rows are violated by {residual:.3g} everywhere that was seen")
        return self._leant(v - run.v @ self.G, p), run.v

    def _leant(self, v, p):
        """Keep what the region took away from v to come to p, if it is more than rounding."""
        out = v - p
        if float(abs(out).max()) > _GOOD * max(1e-300, float(abs(v).max())):
            self.normal = out
        return p

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


class OwnSlacks(Faces):
    """Inequalities that each have a variable of their own, such as margins with slacks.

    Without those variables the projection is a smooth least-squares problem in the others, whose
    second derivative is never singular; Newton's steps on it need a handful. Bounds may hold
    variables that do not occur in the rows, for those are clipped apart.
    """

    @classmethod
    def find(cls, faces):
        """Return rows as such a set if they are one, and few variables are left; else None."""
        xp, G = faces.xp, faces.G
        if not (faces.within.whole or faces.lo is not None) or not len(G):
            return None
        if bool(faces.equal.any() | (faces.bounded() & (G != 0).any(axis=0)).any()):
            return None
        alone = (G != 0) & ((G != 0).sum(axis=0) == 1)
        own = alone.argmax(axis=1)
        rest = (G != 0).any(axis=0)
        rest[own] = False
        if not (bool(alone.any(axis=1).all()) and 0 < int(rest.sum()) <= len(G)):
            return None
        found = cls.__new__(cls)
        found.__dict__ = dict(faces.__dict__)
        found.own, (found.rest,) = own, xp.nonzero(rest)
        found.B, found.s = G[:, found.rest], G[xp.arange(len(G)), own]
        return found

    def _newton(self, v):
        xp, host = self.xp, self.be.host
        w0, B, weight = v[self.rest], self.B, 1.0 / self.s**2
        base = self.s * v[self.own] - self.h
        scale = float(xp.maximum(abs(v).max(), abs(self.h).max()))

        def at(w):
            over = xp.maximum(B @ w + base, 0.0)
            away = w - w0
            grad = away + (weight * over) @ B
            return (over, grad, *host(0.5 * (away @ away + weight @ over**2), abs(grad).max()))

        w = w0 - self._a @ B
        over, grad, value, steep = at(w)
        for _ in range(_STEPS):
            (rows,) = xp.nonzero(over > 0)
            A = B[rows]
            H = (weight[rows, None] * A).T @ A + xp.eye(len(w))
            step, t = xp.linalg.solve(H, -grad), 1.0
            slope = float(grad @ step)
            while True:
                ahead = at(w + t * step)
                if ahead[2] <= value + 1e-4 * t * slope or ahead[3] < steep or t < 1e-10:
                    break
                t *= 0.5
            stuck = ahead[3] >= steep and ahead[2] >= value
            if not stuck:
                w, (over, grad, value, steep) = w + t * step, ahead
            if stuck or steep <= _ROUNDING * scale:
                break
        a = weight * over
        p = 1.0 * self.within.project(v)
        p[self.rest], p[self.own] = w, v[self.own] - self.s * a
        return (p, a) if steep <= _GOOD * scale * len(a) else (None, None)

    def _across(self, tight, free):
        xp = self.xp
        (rows,) = xp.nonzero(tight)
        B, weight, own = self.B[rows], 1.0 / self.s[rows] ** 2, self.own[rows]
        inverse = xp.linalg.inv(xp.eye(len(self.rest)) + (weight[:, None] * B).T @ B)

        def across(w):
            r = weight * (B @ w[self.rest] + self.s[rows] * w[own])
            r = r - weight * (B @ (inverse @ (r @ B)))
            out = xp.zeros(len(w))
            out[self.rest], out[own] = r @ B, self.s[rows] * r
            return out

        return across
