"""Projected conjugate gradients: steps within the kernel of G, one product with B each."""

import math

from .._matrices import scaled
from ._preconditioner import diagonal, of_caller
from ._projection import open_projection
from ._saddle import InnerSolve

# Curvature along a direction below this part of the largest seen counts as none.
_FLAT = 1e-14
# After a step that was cut short the next may be this much longer, and grows by _GROWTH as long
# as steps that end at their limit are taken in full.
_LONGER, _GROWTH = 1.5, 4.0
# Where there is no radius yet and curvature turns out not to be positive, the step ends at the
# last point that is no farther than this many first steps.
_MODEST = 10.0
# Of a residual that is mostly violation, which is gone after the first step, this part counts.
_VIOLATION = 0.1


class ProjectedCG:
    """Conjugate gradients on the kernel of G, with ``[[D, G^T], [G, 0]]`` as preconditioner.

    D is the diagonal of B where B has entries, else I. With ``x = D^{-1/2} u`` the preconditioner
    is an orthogonal projection, onto the kernel of ``A = G D^{-1/2}``.

    Within the kernel a step is no longer than a radius, which follows the steps that were taken;
    where curvature is not positive it ends at the radius, as in Steihaug's method.
    """

    name = "pcg"

    def __init__(self, options):
        self._options = options
        self._radius, self._length = math.inf, 0.0

    def factor(self, saddle):
        """Project onto the kernel of G; `solve` never follows curvature that is not positive."""
        self._saddle, be = saddle, saddle.be
        self._root = 1 / be.xp.sqrt(diagonal(saddle.B, be=be))
        A = scaled(saddle.G.T, self._root, be=be).T
        self._onto = open_projection(A, be=be)
        self._inverse = None
        if self._options.preconditioner is not None:
            apply = of_caller(self._options.preconditioner, saddle)
            zeros, root = be.xp.zeros(saddle.m), self._root
            xp, n = be.xp, saddle.n
            self._inverse = lambda u: apply(xp.concatenate([u / root, zeros]))[:n] / root
        return True

    def took(self, part):
        """Hear which part of the last step was taken."""
        if part < 1.0:
            self._radius = _LONGER * part * self._length
        elif self._length >= 0.99 * self._radius:
            self._radius *= _GROWTH

    def solve(self, r, *, d0=None, tol=0.0):
        """Solve within the kernel of G, after a shortest step onto ``G x = r[n:]``."""
        saddle, root, onto = self._saddle, self._root, self._onto
        B, G, n, be = saddle.B, saddle.G, saddle.n, saddle.be
        xp, host = be.xp, be.host
        top, bottom = r[:n], r[n:]
        x = xp.zeros(n) if d0 is None else d0[:n].copy()
        off = bottom if d0 is None else bottom - G @ x
        size, away = host(xp.linalg.norm(r), xp.linalg.norm(off))
        if away:
            x += root * onto.normal(off)
        left = top - B @ x if away or d0 is not None else top.copy()

        limit = self._options.maxiter_inner or 10 * (n + saddle.m)
        t, p, rho, most, flag = xp.zeros(n), None, 1.0, 0.0, "maxiter"
        first, modest = 0.0, None
        for steps in range(limit + 1):
            u = onto.kernel(root * left)
            z = u if self._inverse is None else onto.kernel(self._inverse(u))
            before, (rho, error) = rho, host(u @ z, xp.linalg.norm(u / root))
            if steps == 0:
                goal = tol * max(min(error, size), _VIOLATION * size)
            if error <= goal:
                flag = "converged"
                break
            if steps == limit or self._options.deadline():
                break
            if not rho > 0:
                flag = "breakdown"
                break
            p = z if p is None else z + (rho / before) * p
            Bp = B @ (root * p)
            curvature, pp, tp, tt = host(root * p @ Bp, p @ p, t @ p, t @ t)
            if not math.isfinite(curvature):
                flag = "breakdown"
                break
            most = max(most, curvature / pp)
            convex = curvature > _FLAT * most * pp
            alpha = rho / curvature if convex else math.inf
            # Where the line leaves the ball.
            out = math.inf
            if self._radius < math.inf:
                gap = max(self._radius**2 - tt, 0.0)
                out = gap / (tp + math.sqrt(tp * tp + pp * gap)) if gap else 0.0
            if not convex and out == math.inf:
                flag = "negative"
                if steps == 0:
                    t, left = t + p, left - Bp
                else:
                    t, left = modest
                break
            if alpha >= out:
                flag = "radius"
                alpha = out
            t += alpha * p
            left -= alpha * Bp
            if flag != "maxiter":
                break
            if self._radius == math.inf:
                tt = host(t @ t)
                first = tt if steps == 0 else first
                if tt <= _MODEST**2 * first:
                    modest = t.copy(), left.copy()
        self._length = math.sqrt(host(t @ t))
        x += root * t
        y = onto.rows(root * left)
        residual = xp.concatenate([G.T @ y - left, G @ x - bottom])
        return InnerSolve(xp.concatenate([x, y]), residual, steps, flag)
