"""The penalised value psi_sigma of the upper level, and its gradient, by lower solves."""

import math
from typing import Any, NamedTuple

from ._descent import Descent, residual
from ._problem import Look

# Length of the steps that measure curvature, relative to the point.
_SECANT = 1e-3


class Side(NamedTuple):
    """What one penalty gives at x: psi_sigma, its gradient and the minimiser behind them."""

    sigma: float
    y: Any
    f: Look
    g: Look
    value: float
    grad: Any
    residual: float


class Point(NamedTuple):
    """The lower level solved at x: its minimiser z, and one `Side` for each penalty."""

    x: Any
    z: Any
    g: Look
    residual: float
    sides: tuple


class Scales(NamedTuple):
    """Curvatures of both levels in y; their ratio is the natural unit of sigma."""

    upper: float
    lower: float

    @property
    def sigma(self):
        """Return the penalty at which both levels weigh the same."""
        return self.lower / self.upper if self.upper > 0 else self.lower


class Envelope:
    """Lower solves with warm starts.

    Attributes
    ----------
    accuracy : float
        Residual of the upper level that is wanted; decides how well lower levels are solved.
    theta : float
        How much better, see `tolerance`.
    """

    def __init__(self, problem, *, late=lambda: False, maxiter=1000, tol_inner=None):
        self.problem, self.late, self.maxiter = problem, late, maxiter
        self.accuracy, self.theta, self.tol_inner = 1e-2, 0.3, tol_inner
        self.scales = scales(problem, problem.x0, problem.y0)
        self._z, self._ys = problem.y0, {}

    def tolerance(self, sigma):
        """Return the residual at which a lower solve may end, for a penalty sigma."""
        lower = self.scales.lower * max(1.0, float(abs(self._z).max()))
        if self.tol_inner is not None:
            return self.tol_inner * lower
        floor = 50 * self.problem.eps * lower
        return min(max(self.theta * sigma * self.accuracy, floor), max(1e-4 * lower, floor))

    def at(self, x, sigmas):
        """Solve the lower level at x, alone and with each penalty."""
        problem = self.problem
        z, before = self.minimiser(x, self._z, self.tolerance(min(sigmas))), self._z
        g = problem.lower.look(x, z)
        sides = []
        for sigma in sigmas:
            y = self._ys.get(sigma)
            # The path of y runs beside that of z.
            y = problem.Y.project(y + (z - before)) if y is not None else z
            y = self.minimiser(x, y, self.tolerance(sigma), sigma)
            self._ys[sigma] = y
            sides.append(self._side(x, sigma, y, g))
        self._z = z
        return Point(x, z, g, self._residual(z, g.gy), tuple(sides))

    def _side(self, x, sigma, y, at_z):
        f, g = self.problem.upper.look(x, y), self.problem.lower.look(x, y)
        value = f.value + (g.value - at_z.value) / sigma
        grad = f.gx + (g.gx - at_z.gx) / sigma
        return Side(sigma, y, f, g, value, grad, self._residual(y, sigma * f.gy + g.gy))

    def _residual(self, y, grad):
        return residual(y, grad, self.problem.Y, 1.0 / self.scales.lower)

    def minimiser(self, x, start, tol, sigma=0.0, precondition=True):
        """Minimise ``sigma f(x, .) + g(x, .)`` over Y until the projected gradient is small."""
        problem = self.problem

        def penalised(y):
            g = problem.lower.look(x, y, with_x=False)
            if not sigma:
                return g.value, g.gy, problem.eps * abs(g.value)
            f = problem.upper.look(x, y, with_x=False)
            value = sigma * f.value + g.value
            return value, sigma * f.gy + g.gy, problem.eps * (abs(sigma * f.value) + abs(g.value))

        unit = 1.0 / self.scales.lower
        run = Descent(
            penalised,
            start,
            problem.Y,
            unit=unit,
            precond=problem.lower.diagonal(x) if precondition else None,
            eps=problem.eps,
        )
        failures = 0
        for _ in range(self.maxiter):
            if run.residual(unit) <= tol or self.late():
                break
            if not run.step():
                failures += 1
                if failures == 3:
                    break
                run.restart()
        return run.v


def scales(problem, x, z):
    """Return the curvatures of both levels near (x, z), from one pair of gradients each."""
    xp = problem.io.xp
    f, g = problem.upper.look(x, z), problem.lower.look(x, z, with_x=False)
    s = f.gy
    norm = math.sqrt(float(s @ s))
    if not norm > 0:
        s = xp.cos(xp.arange(len(z), dtype=z.dtype))
        norm = math.sqrt(float(s @ s))
    s = s * (-_SECANT * max(1.0, math.sqrt(float(z @ z))) / norm)
    step = math.sqrt(float(s @ s))
    moved = z + s
    change = [
        level.look(x, moved, with_x=False).gy - look.gy
        for level, look in ((problem.upper, f), (problem.lower, g))
    ]
    upper, lower = (math.sqrt(float(c @ c)) / step for c in change)
    return Scales(upper, lower if lower > 0 and math.isfinite(lower) else 1.0)


class Errors(NamedTuple):
    """How far a hyper-gradient can be off: `first` for one penalty, `second` extrapolated."""

    first: float
    second: float
    grad: Any
    extrapolated: Any
    solves: float


def errors(point):
    """Estimate the errors of hyper-gradients from sides at sigma, sigma/2 and sigma/4."""
    one, half, quarter = point.sides
    sigma = one.sigma
    R, R_half = 2 * half.grad - one.grad, 2 * quarter.grad - half.grad
    e1, e2 = _norm(half.grad - one.grad), _norm(quarter.grad - half.grad)
    q = e2 / e1 if e1 > 0 else 1.0
    # What unfinished lower solves and rounding add.
    steep = _norm(one.g.gy - point.g.gy)
    c_xy = _norm(one.g.gx - point.g.gx) / steep if steep > 0 else 0.0
    solves = 3 * c_xy * (one.residual + point.residual) / sigma
    eps = 2.0 ** (-52 if one.grad.dtype.itemsize == 8 else -23)
    rounding = 4 * eps * _norm(one.g.gx) / sigma
    rest = solves + rounding
    if e1 <= rest:
        return Errors(rest, rest, one.grad, R, solves)
    first = 2 * e1 / max(0.1, 1 - q)
    # A ratio near 1/2 shows that the error is of the order that is extrapolated.
    regular = 0.45 <= q <= 0.55
    second = 2 * _norm(R - R_half) if regular else 4 * max(e1, e2) / max(0.1, 1 - q)
    return Errors(first + rest, second + rest, one.grad, R, solves)


def _norm(v):
    return math.sqrt(float(v @ v))
