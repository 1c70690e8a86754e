"""The proximal Lagrangian of a lower level with constraints, in units of its own."""

from typing import Any, NamedTuple

from ._coupled import Walls
from ._descent import Descent, Pairs
from ._envelope import scales
from ._faced import FaceDescent

# Failed line searches after which a solve has met rounding.
_FAILURES = 3
# Residuals, in roundings, below which nothing falls.
_ROUNDING = 4.0
# Pairs of steps kept.
_MEMORY = 15


class Saddle(NamedTuple):
    """The saddle point ``v(x, y, z)``: its variables, its value and the gradients of v."""

    th: Any
    w: Any
    value: float
    gx: Any
    gy: Any
    gz: Any


class Lagrangian:
    r"""The problem, with f, g and every row of constraints divided by its size.

    .. math:: v(x, y, z) = \min_{\theta \in Y} \max_{w \in Z} g(x, \theta) + w \cdot c(x, \theta)
              + \frac{|\theta - y|^2}{2 \gamma_1} - \frac{|w - z|^2}{2 \gamma_2}

    Attributes
    ----------
    f_size, g_size : float
        Curvatures of both levels in y.
    row_size : array, shape (l,)
        Lengths of the rows of constraints at the start.
    Z : pair of arrays, shape (l,)
        Bounds of multipliers.
    unit : float
        A safe length of steps in theta.
    """

    def __init__(self, problem, options, late, gamma=10.0, sizes=None):
        own, xp = options.own, problem.io.xp
        self.problem, self.late, self.xp, self.rows = problem, late, xp, problem.constraints
        self.maxiter = options.maxiter_inner
        x, y = problem.x0, problem.y0
        self.f_size, self.g_size, self.row_size, self.steep = sizes or self._sizes(x, y)
        steep = self.steep
        self.gamma1 = own.gamma1 or gamma
        # The second derivative of the augmented Lagrangian stays near 1 + gamma.
        self.gamma2 = own.gamma2 or (gamma / steep if steep > 0 else gamma)
        top = own.r * self.row_size / self.g_size
        self.Z = xp.where(self.rows.equal, -top, 0.0), top
        self.unit = 1.0 / (1.0 + 1.0 / self.gamma1 + self.gamma2 * steep)
        # The second derivative in theta changes little from one solve to the next.
        self._th, self._pairs, self._changes = y, Pairs(_MEMORY), ()
        Y = problem.Y
        plain = Y.whole or Y.lo is not None
        self._walls = None if plain else Walls(Y, len(y), problem.io.be)

    @property
    def sizes(self):
        """What a later run needs to count in the same units."""
        return self.f_size, self.g_size, self.row_size, self.steep

    def state(self):
        """Return what inner solves start from."""
        kept = self._pairs.state()
        pairs = kept and {**kept, **{k: kept[k].copy() for k in ("S", "Y", "norms")}}
        return {"th": self._th, "pairs": pairs, "changes": list(self._changes)}

    def restore(self, state):
        """Go on from a `state`."""
        self._th, self._changes = state["th"], state["changes"]
        self._pairs.restore(state["pairs"])

    def _sizes(self, x, y):
        """Measure both levels and the rows; also the squared norm of what c_y then is."""
        xp, size = self.xp, scales(self.problem, x, y)
        Jx, Jy = self.rows.jacobian(x, y)
        length = xp.sqrt((Jx * Jx).sum(axis=1) + (Jy * Jy).sum(axis=1))
        length = xp.where(length > 0, length, 1.0)
        steep = float(xp.linalg.norm(Jy / length[:, None], 2)) ** 2
        return size.upper if size.upper > 0 else 1.0, size.lower, length, steep

    def upper(self, x, y):
        """Return value and gradients of f."""
        f = self.problem.upper.look(x, y)
        return f.value / self.f_size, f.gx / self.f_size, f.gy / self.f_size

    def lower(self, x, y, *, with_x=True):
        """Return value and gradients of g."""
        g = self.problem.lower.look(x, y, with_x=with_x)
        return g.value / self.g_size, g.gx / self.g_size if with_x else None, g.gy / self.g_size

    def constraints(self, x, y):
        """Return the values of c."""
        return self.rows.look(x, y) / self.row_size

    def pulled(self, x, y, w):
        """Return ``c_x^T w`` and ``c_y^T w``."""
        return self.rows.pulled(x, y, w / self.row_size)

    def given(self, w):
        """Return multipliers in the caller's units."""
        return w * self.g_size / self.row_size

    def taken(self, w):
        """Return multipliers that came in the caller's units."""
        return self.xp.clip(w * self.row_size / self.g_size, *self.Z)

    def saddle(self, x, y, z, tol):
        """Find the saddle point at (x, y, z), starting from the last one."""
        fun = self._in_theta(x, y, z)
        tol = max(tol, _ROUNDING * self.problem.eps)
        if self._walls is None:
            th, value = self._by_descent(fun, tol)
        else:
            th, value = self._between_walls(fun, tol)
        self._th = th
        w = self._best_weights(self.constraints(x, th), z)
        gx = self.lower(x, th)[1] + self.pulled(x, th, w)[0]
        return Saddle(th, w, value, gx, (y - th) / self.gamma1, (w - z) / self.gamma2)

    def _by_descent(self, fun, tol):
        """Minimise over the whole space or a box."""
        run = Descent(fun, self._th, self.problem.Y, unit=self.unit, memory=self._pairs)
        failures = 0
        for _ in range(self.maxiter):
            if run.residual(self.unit) <= tol or failures == _FAILURES or self.late():
                break
            if not run.step():
                failures += 1
                run.restart()
        return run.v, run.value

    def _between_walls(self, fun, tol):
        """Minimise over another set."""
        run = FaceDescent(fun, self._th, self._walls, self._changes)
        failures = 0
        for _ in range(self.maxiter):
            if run.stat <= tol or failures == _FAILURES or self.late():
                break
            if not run.step():
                failures += 1
                run.renew()
        self._changes = run.pairs
        return run.u, run.value

    def _best_weights(self, c, z):
        """Return the w in Z that is best for constraints c."""
        return self.xp.clip(z + self.gamma2 * c, *self.Z)

    def _in_theta(self, x, y, z):
        """Return the function of theta whose minimum is v(x, y, z), with w at its best."""

        def fun(th):
            g, _, gy = self.lower(x, th, with_x=False)
            c = self.constraints(x, th)
            w = self._best_weights(c, z)
            away, shift = th - y, w - z
            part = float(w @ c) - 0.5 * float(shift @ shift) / self.gamma2
            prox = 0.5 * float(away @ away) / self.gamma1
            grad = gy + self.pulled(x, th, w)[1] + away / self.gamma1
            noise = self.problem.eps * (abs(g) + abs(part) + prox)
            return g + part + prox, grad, noise

        return fun

    def respond(self, x, y, z, tol):
        """Solve the lower level at x by proximal steps on y and its multipliers.

        Returns
        -------
        y, z : array
            The solution and its multipliers.
        residual : float
            The largest change that the last step asked for.
        """
        for _ in range(self.maxiter):
            s = self.saddle(x, y, z, 0.1 * tol)
            residual = float(self.xp.maximum(abs(s.gy).max(), abs(s.gz).max()))
            y, z = s.th, s.w
            if residual <= tol or self.late():
                break
        return y, z, residual
