"""Projected conjugate gradients: steps within the kernel of G, one product with B each."""

import math

from .._matrices import scaled
from ._preconditioner import diagonal, of_caller
from ._projection import open_projection
from ._saddle import InnerSolve

# Curvature along a direction below this part of the largest seen counts as none.
_FLAT = 1e-14


class ProjectedCG:
    """Conjugate gradients on the kernel of G, with ``[[D, G^T], [G, 0]]`` as preconditioner.

    D is the diagonal of B where B has entries, else I. With ``x = D^{-1/2} u`` the preconditioner
    is an orthogonal projection, onto the kernel of ``A = G D^{-1/2}``.
    """

    name = "pcg"

    def __init__(self, options):
        self._options = options

    def factor(self, saddle):
        """Project onto the kernel of G; `solve` meets what curvature is not positive."""
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
        p, rho, most, flag = None, 1.0, 0.0, "maxiter"
        for steps in range(limit + 1):
            u = onto.kernel(root * left)
            z = u if self._inverse is None else onto.kernel(self._inverse(u))
            before, (rho, error) = rho, host(u @ z, xp.linalg.norm(u / root))
            if error <= tol * size:
                flag = "converged"
                break
            if steps == limit or self._options.deadline():
                break
            if not rho > 0:
                flag = "breakdown"
                break
            p = z if p is None else z + (rho / before) * p
            along = root * p
            Bp = B @ along
            curvature, long = host(along @ Bp, p @ p)
            most = max(most, curvature / long)
            if not curvature > _FLAT * most * long:
                flag = "negative" if math.isfinite(curvature) else "breakdown"
                if steps == 0 and flag == "negative":
                    x, left = x + along, left - Bp
                break
            alpha = rho / curvature
            x += alpha * along
            left -= alpha * Bp
        y = onto.rows(root * left)
        residual = xp.concatenate([G.T @ y - left, G @ x - bottom])
        return InnerSolve(xp.concatenate([x, y]), residual, steps, flag)
