"""Quasi-Newton steps along the faces of a set, and spectral steps from one face to another."""

import math

# Pairs of steps kept, trials along a face and across faces, the least cosine of a pair.
_MEMORY, _ALONG, _ACROSS, _CURVED = 20, 4, 30, 1e-10
# Function values closer than this, relatively, tell less than slopes do.
_ALIKE = 1e-10


class FaceDescent:
    """Minimises a function over a `Coupled` set.

    Parameters
    ----------
    fun : callable
        ``fun(u) -> (value, gradient, rounding error of the value)``.
    u : array, shape (n,)
        The start, in the set.
    C : Coupled
        The set.

    Attributes
    ----------
    u, value : array, float
        Where it is.
    stat : float
        Largest entry of the projected gradient.
    """

    def __init__(self, fun, u, C):
        self.fun, self.C = fun, C
        self.u = u
        self.renew()

    def renew(self, fun=None):
        """Look again, at a function that may have changed a little, and forget curvature."""
        self.fun = fun or self.fun
        self.pairs, self.length = [], 1.0
        self._be_at(self.u, *self.fun(self.u))

    def _be_at(self, u, value, grad, noise):
        self.u, self.value, self.grad, self.noise = u, value, grad, noise
        q = self.C.project(u - grad)
        self.pressure, self._stay = self.C.pressure, self.C.tangent(u, q)
        # The gradient without what the walls take.
        self.free = u - q
        self.stat = float(abs(self.free).max())

    def step(self):
        """Take one step; tell whether there was one that descends."""
        if self.pairs and self._stay is not None:
            d = self._quasi_newton()
            if d is not None and self._search(d, _ALONG, bent=True):
                return True
        d = self.C.project(self.u - self.length * self.grad) - self.u
        return self._search(d, _ACROSS, bent=self.C.curved)

    def _quasi_newton(self):
        stay, used = self._stay, []
        q = stay(self.grad)
        for move, change in reversed(self.pairs):
            s, y = stay(move), stay(change)
            sy = float(s @ y)
            if sy > _CURVED * math.sqrt(float(s @ s) * float(y @ y)):
                a = float(s @ q) / sy
                q = q - a * y
                used.append((s, y, sy, a))
        if not used:
            return None
        _, y, sy, _ = used[0]
        q = q * (sy / float(y @ y))
        for s, y, sy, a in reversed(used):
            q = q + (a - float(y @ q) / sy) * s
        return -q

    def _search(self, d, trials, *, bent):
        t = 1.0
        for _ in range(trials):
            new = self.u + t * d
            new = self.C.project(new) if bent else new
            move = new - self.u
            # Walls do not move: what presses on them says nothing but rounding.
            slope = float(self.free @ move)
            if not slope < 0:
                return False
            value, grad, noise = self.fun(new)
            change = grad - self.grad + self.C.bend(self.u, new, self.pressure)
            rise = float(change @ move)
            if self._accepts(value, slope, slope + rise, noise):
                if rise > _CURVED * math.sqrt(float(move @ move) * float(change @ change)):
                    self.pairs = [*self.pairs[1 - _MEMORY :], (move, change)]
                    self.length = float(move @ move) / rise
                self._be_at(new, value, grad, noise)
                return True
            # Where the slope would vanish if it changed evenly.
            t *= min(max(-slope / rise, 0.1), 0.5) if rise > -slope else 0.5
        return False

    def _accepts(self, value, slope, after, noise):
        if not (math.isfinite(value) and math.isfinite(after)):
            return False
        alike = abs(value - self.value) <= max(_ALIKE * abs(value), noise, self.noise)
        return value <= self.value + 1e-4 * slope or (alike and abs(after) <= 0.9 * abs(slope))
