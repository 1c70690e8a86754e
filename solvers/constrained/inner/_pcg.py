"""Projected conjugate gradients: steps within the kernel of G, one product with B each."""

import math

from .._matrices import scaled
from ._preconditioner import diagonal, of_caller
from ._projection import open_projection
from ._saddle import InnerSolve, most_steps

# Curvature along a direction below this part of the largest seen counts as none.
_FLAT = 1e-14
# A step after one of which a part was taken may be longer than that part by the first factor,
# one after a full step that ended at its limit by the second.
_LONGER, _GROWTH = 1.5, 2.0
# Where there is no radius yet and curvature turns out not to be positive, the step ends at the
# last point that is no farther than this many first steps.
_MODEST = 3.0
# Of a residual that is mostly violation, which is gone after the first step, this part counts.
_VIOLATION = 0.1


class ProjectedCG:
    """Conjugate gradients on the kernel of G, with ``[[D, G^T], [G, 0]]`` as preconditioner.

    D is the diagonal of B where that is known, else I. With ``x = D^{-1/2} u`` the preconditioner
    is an orthogonal projection, onto the kernel of ``A = G D^{-1/2}``.

    Within the kernel a step is no longer than a radius, which follows the steps that were taken;
    where curvature is not positive it ends at the radius, as in Steihaug's method.
    """

    name = "pcg"

    def __init__(self, options):
        self._options = options
        self._radius, self._length, self._cut = math.inf, 0.0, False

    def factor(self, saddle):
        """Project onto the kernel of G; `solve` never follows curvature that is not positive."""
        self._saddle, be = saddle, saddle.be
        self._root = 1 / be.xp.sqrt(diagonal(saddle.B, be=be))
        A = scaled(saddle.G.T, self._root, be=be).T
        self._onto, self._share = open_projection(A, be=be), 1.0
        self._precondition = lambda u: u
        if self._options.preconditioner is not None:
            xp, n, root = be.xp, saddle.n, self._root
            apply = of_caller(self._options.preconditioner, saddle)
            zeros, kernel = xp.zeros(saddle.m), self._onto.kernel
            self._precondition = lambda u: kernel(
                apply(xp.concatenate([u / root, zeros]))[:n] / root
            )
        return True

    def took(self, part):
        """Hear which part of the last step was taken."""
        if part < 1.0:
            self._radius = _LONGER * part * self._length
        elif self._cut:
            self._radius = _GROWTH * self._length

    def solve(self, r, *, d0=None, tol=0.0):
        """Solve within the kernel of G, after a shortest step onto ``G x = r[n:]``."""
        saddle, root = self._saddle, self._root
        B, G, n, be = saddle.B, saddle.G, saddle.n, saddle.be
        xp, norm = be.xp, be.xp.linalg.norm
        top, bottom = r[:n], r[n:]
        x = xp.zeros(n) if d0 is None else d0[:n].copy()
        off = bottom if d0 is None else bottom - G @ x
        size, away = be.host(norm(r), norm(off))
        if away:
            x += root * self._onto.normal(off)
        left = top - B @ x if away or d0 is not None else top.copy()
        if d0 is None and size:
            rest = be.host(norm(self._onto.kernel(root * left) / root))
            self._share = max(min(rest / size, 1.0), _VIOLATION)
        t, left, steps, flag = self._within_kernel(left, tol * self._share * size)
        x += root * t
        y = self._onto.rows(root * left)
        residual = xp.concatenate([G.T @ y - left, G @ x - bottom])
        return InnerSolve(xp.concatenate([x, y]), residual, steps, flag)

    def _within_kernel(self, left, goal):
        """Return a step t of u, what it leaves of the first n equations, steps and flag."""
        B, root, be = self._saddle.B, self._root, self._saddle.be
        host, kernel, norm = be.host, self._onto.kernel, be.xp.linalg.norm
        limit = most_steps(self._options, self._saddle)
        t, p, rho, most, flag = 0.0 * left, None, 1.0, 0.0, "maxiter"
        ball = _Ball(self._radius, host)
        for steps in range(limit + 1):
            u = kernel(root * left)
            z = self._precondition(u)
            before, (rho, error) = rho, host(u @ z, norm(u / root))
            if error <= goal:
                flag = "converged"
                break
            if steps == limit or self._options.deadline():
                break
            p = z if p is None else z + (rho / before) * p
            Bp = B @ (root * p)
            curvature, square = host(root * p @ Bp, p @ p)
            if not (rho > 0 and math.isfinite(curvature)):
                flag = "breakdown"
                break
            most = max(most, curvature / square)
            alpha = rho / curvature if curvature > _FLAT * most * square else math.inf
            out = ball.leaves(t, p)
            if alpha == out == math.inf:
                t, left = (p, left - Bp) if steps == 0 else ball.modest
                flag = "negative"
                break
            t, left = t + min(alpha, out) * p, left - min(alpha, out) * Bp
            if out <= alpha:
                flag = "radius"
                break
            ball.keep(t, left)
        self._length, self._cut = host(norm(t)), flag in ("negative", "radius")
        return t, left, steps, flag


class _Ball:
    """The points that a step may reach; without a radius, those that are a modest choice."""

    def __init__(self, radius, host):
        self._radius, self._host = radius, host
        self.modest, self._first = None, None

    def leaves(self, t, p):
        """Return the length along p at which the line from t leaves the ball."""
        if self._radius == math.inf:
            return math.inf
        tt, tp, pp = self._host(t @ t, t @ p, p @ p)
        gap = max(self._radius**2 - tt, 0.0)
        return gap / (tp + math.sqrt(tp * tp + pp * gap)) if gap else 0.0

    def keep(self, t, left):
        """Remember a point without a radius, unless it is far beyond the first."""
        if self._radius < math.inf:
            return
        far = self._host(t @ t)
        self._first = far if self._first is None else self._first
        if far <= _MODEST**2 * self._first:
            # Nobody writes to them: the next step makes new arrays.
            self.modest = t, left
