"""Quasi-Newton steps for a smooth function over a closed convex set."""

import math
from collections import deque

# Function values closer than this, relatively, tell less than slopes do.
_ALIKE = 1e-10
_HALVINGS = 30


class Descent:
    """Minimises a function by projected L-BFGS, or over sets other than boxes by spectral steps.

    Parameters
    ----------
    fun : callable
        ``fun(v) -> (value, gradient, rounding error of the value)``.
    v : array, shape (n,)
        The start.
    region : Region
        Where to stay.
    unit : float
        Length of a step per gradient, as long as nothing better is known.
    precond : array, shape (n,), optional
        A diagonal close to that of the second derivative.
    memory : int
        Number of pairs kept.

    Attributes
    ----------
    v, value, grad : array, float, array
        Where it is.
    """

    def __init__(self, fun, v, region, *, unit, precond=None, memory=15, eps):
        self.fun, self.region, self.unit, self.precond = fun, region, unit, precond
        self.xp_eps = eps
        self.pairs = deque(maxlen=memory)
        self.recent = deque(maxlen=8)
        self._be_at(v, *fun(v))

    def _be_at(self, v, value, grad, noise):
        self.v, self.value, self.grad, self.noise = v, value, grad, noise
        self.recent.append(value)

    def restart(self):
        """Forget the curvature that was seen."""
        self.pairs.clear()
        self.recent.clear()
        self.recent.append(self.value)

    def residual(self, unit=None):
        """Return the largest entry of the projected gradient, for steps of a given length."""
        return residual(self.v, self.grad, self.region, unit or self.unit)

    def step(self):
        """Take one step; tell whether there was one that descends."""
        for attempt in range(2):
            direction = self._direction()
            if self._search(direction):
                return True
            if attempt or not self.pairs:
                return False
            self.restart()
        return False

    def _direction(self):
        if self.region.whole or self.region.lo is not None:
            d = self._quasi_newton()
            if self.pairs and float(self.grad @ d) >= 0:
                self.restart()
                d = self._quasi_newton()
            return d
        # Spectral projected gradient: the step length of Barzilai and Borwein.
        length = self.unit
        if self.pairs:
            s, y = self.pairs[-1]
            length = float(s @ s) / float(s @ y)
        return self.region.project(self.v - length * self.grad) - self.v

    def _free(self):
        """Return where a step may go: all but bounds against which the gradient presses."""
        v, g, lo, hi = self.v, self.grad, self.region.lo, self.region.hi
        return ~(((v <= lo) & (g > 0)) | ((v >= hi) & (g < 0)))

    def _quasi_newton(self):
        free = None if self.region.whole else self._free()
        q = self.grad if free is None else self.grad * free
        used = []
        for pair in reversed(self.pairs):
            s, y = pair if free is None else (pair[0] * free, pair[1] * free)
            curvature = float(s @ y)
            if curvature <= 1e-10 * math.sqrt(float(s @ s) * float(y @ y)):
                continue
            a = float(s @ q) / curvature
            q = q - a * y
            used.append((s, y, curvature, a))
        if self.precond is not None:
            q = q / self.precond
        if used:
            s, y, curvature, _ = used[0]
            yPy = float(y @ y) if self.precond is None else float(y @ (y / self.precond))
            q = q * (curvature / yPy)
        elif self.precond is None:
            q = q * self.unit
        for s, y, curvature, a in reversed(used):
            q = q + (a - float(y @ q) / curvature) * s
        return -q if free is None else -q * free

    def _search(self, d):
        slope = float(self.grad @ d)
        if not slope < 0:
            return False
        straight = self.region.whole or self.region.lo is None
        reference = (
            self.value if self.region.lo is not None or self.region.whole else max(self.recent)
        )
        t = 1.0
        for _ in range(_HALVINGS):
            new = self.v + t * d if straight else self.region.project(self.v + t * d)
            value, grad, noise = self.fun(new)
            move = new - self.v
            slope = float(self.grad @ move)
            if math.isfinite(value) and slope < 0:
                alike = abs(value - self.value) <= max(_ALIKE * abs(value), noise, self.noise)
                flatter = abs(float(grad @ move)) <= 0.9 * abs(slope)
                if value <= reference + 1e-4 * slope or (alike and flatter):
                    change = grad - self.grad
                    if float(move @ change) > 1e-10 * math.sqrt(
                        float(move @ move) * float(change @ change)
                    ):
                        self.pairs.append((move, change))
                    self._be_at(new, value, grad, noise)
                    return True
            t *= 0.5
        return False


def residual(v, grad, region, unit):
    """Return the largest entry of the projected gradient."""
    if region.whole:
        return float(abs(grad).max())
    return float(abs(v - region.project(v - unit * grad)).max()) / unit
