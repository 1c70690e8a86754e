"""Quasi-Newton steps over a set of any kind, along its faces where it has some."""

import math

# Most pairs of steps kept, trials along a face and across faces, the least cosine of a pair.
_MEMORY, _ALONG, _ACROSS, _CURVED = 50, 12, 30, 1e-10
# Pairs that are still believed where a step that they gave has failed.
_RECENT = 5
# Function values closer than this, relatively, tell less than slopes do.
_ALIKE = 1e-10


class FaceDescent:
    """Minimises a function over a closed convex set.

    Steps are quasi-Newton's along the face on which a projected gradient step stays, and spectral
    where those fail.

    Parameters
    ----------
    fun : callable
        ``fun(u) -> (value, gradient, rounding error of the value)``.
    u : array, shape (n,)
        The start, in the set.
    C : Coupled or Walls
        The set.
    pairs : list, optional
        Steps and changes of gradient of an earlier run.
    kept : dict, optional
        The `state` of a run to go on with.

    Attributes
    ----------
    u, value : array, float
        Where it is.
    stat : float
        Largest entry of the projected gradient.
    """

    def __init__(self, fun, u, C, pairs=(), kept=None):
        self.fun, self.C, self.pairs, self.length = fun, C, list(pairs), 1.0
        # More than there are unknowns would only contradict each other.
        self.memory = min(_MEMORY, max(2, len(u)))
        if kept is None:
            self._be_at(u, *fun(u))
        else:
            self.pairs, self.length = kept["pairs"], kept["length"]
            self._be_at(u, *kept["look"])

    def state(self):
        """Return, beside the point, what a run goes on from."""
        look = self.value, self.grad, self.noise
        return {"look": look, "pairs": self.pairs, "length": self.length}

    def renew(self):
        """Look again at a function that may have changed a little, and forget curvature."""
        self.pairs, self.length = [], 1.0
        self._be_at(self.u, *self.fun(self.u))

    def _be_at(self, u, value, grad, noise):
        self.u, self.value, self.grad, self.noise = u, value, grad, noise
        q = self.C.project(u - grad)
        self._stay = self.C.tangent(u, q, grad)
        self.pressure, self.normal = self.C.pressure, self.C.normal
        # The gradient without what the walls take; those that bend take more at q than at u.
        bends = self.C.curved or self.normal is not None
        self.free = self._stay(grad) if bends else u - q
        self.stat = float(abs(u - q).max())

    def step(self):
        """Take one step; tell whether there was one that descends."""
        if self.pairs:
            d = self._quasi_newton()
            if d is not None and self._search(d, _ALONG, bent=True):
                return True
            # Older ones tell of other faces, or of where the function bent in another way.
            self.pairs = self.pairs[-_RECENT:]
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
            if bent and not self.C.holds(new):
                t *= 0.1
                continue
            move = new - self.u
            # Walls do not move: what presses on them says nothing but rounding.
            slope = float(self.free @ move)
            if not slope < 0:
                return False
            value, grad, noise = self.fun(new)
            change = grad - self.grad + self.C.bend(self.u, new, self.pressure)
            rise = float(change @ move)
            if self._accepts(value, slope, slope + rise, noise):
                before = self.normal
                self._be_at(new, value, grad, noise)
                self._remember(move, change + _turn(before, self.normal))
                return True
            # Where the slope would vanish if it changed evenly.
            t *= min(max(-slope / rise, 0.1), 0.5) if rise > -slope else 0.5
        return False

    def _remember(self, move, change):
        rise, square = float(change @ move), float(move @ move)
        if rise > _CURVED * math.sqrt(square * float(change @ change)):
            self.pairs = [*self.pairs[1 - self.memory :], (move, change)]
            self.length = square / rise

    def _accepts(self, value, slope, after, noise):
        if not (math.isfinite(value) and math.isfinite(after)):
            return False
        alike = abs(value - self.value) <= max(_ALIKE * abs(value), noise, self.noise)
        return value <= self.value + 1e-4 * slope or (alike and abs(after) <= 0.9 * abs(slope))


def _turn(before, after):
    """Return how a wall turns what presses on it, from one point to another."""
    if before is None or after is None:
        return 0.0
    old, new = (math.sqrt(float(n @ n)) for n in (before, after))
    return after * (old / new) - before if new > 0 else 0.0
