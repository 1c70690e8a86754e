"""Anderson acceleration: jumps of a fixed-point iteration from what its last points tell."""

import numpy as np

# Points remembered, and bytes that they may take; iterations between two jumps; the first jump.
_MEMORY, _BYTES = 10, 1 << 30
_EVERY, _FIRST = 3, 50
# How far a jump may raise the fixed-point residual: over the last one, and over the lowest.
_RISE, _EVER = 2.0, 10.0
_RIDGE = 1e-7


class Anderson:
    """Type II, on a state of several arrays that the iteration changes in place.

    The iteration maps x to ``g = x + f``. A jump goes to ``g - dG gamma``, where gamma minimises
    ``|f - dF gamma|`` over the differences between remembered points; the next residual decides
    whether it stands.

    Parameters
    ----------
    be : Backend
    weights : tuple of float
        Weights of the arrays' squares in the norm.
    """

    def __init__(self, be, weights):
        self.be, self.weights = be, weights

        self.dF = self.dG = None
        self.reset()

    def reset(self):
        """Forget all points: the map has changed."""
        self.lowest = np.inf
        self._empty()

    def due(self, nit):
        """Tell whether iteration `nit` ends in a jump."""
        return nit >= _FIRST and nit % _EVERY == 0

    def mark(self, parts):
        """Remember where an iteration starts."""
        self.x = [part.copy() for part in parts]

    def jump(self, parts, residual):
        """Go on from the marked point's image `parts`, with the square of its residual."""
        be, g = self.be, [part.copy() for part in parts]
        f = [be.xp.subtract(part, x, out=x) for part, x in zip(parts, self.x, strict=True)]
        if self.last is not None:
            self._learn(f, g)
        self.last, self.x = (f, g), None
        if self.count:
            self._move(parts, f)
            self.reference = self.be.host(residual)
            self.lowest = min(self.lowest, self.reference)

    def stands(self, residual):
        """Tell whether the last jump, if it is not judged yet, was none or a good one."""
        if self.reference is None:
            return True
        limit = min(_RISE**2 * self.reference, _EVER**2 * self.lowest)
        self.reference = None
        return self.be.host(residual) <= limit

    def undo(self, parts):
        """Return to where the last jump started."""
        for part, g in zip(parts, self.last[1], strict=True):
            part[...] = g
        self._empty()

    def _empty(self):
        self.count, self.last, self.reference = 0, None, None

    def _learn(self, f, g):
        """Store the differences to the last point, and their products with the others."""
        xp = self.be.xp
        if self.dF is None:
            fit = _BYTES // (2 * sum(part.nbytes for part in f))
            self.room = min(max(fit, 2), _MEMORY)
            self.dF = [xp.empty((self.room, part.size), dtype=part.dtype) for part in f]
            self.dG = [xp.empty_like(ring) for ring in self.dF]
            self.gram = np.zeros((self.room, self.room))
        at = self.count % self.room
        for now, before, rings in ((f, self.last[0], self.dF), (g, self.last[1], self.dG)):
            for a, b, ring in zip(now, before, rings, strict=True):
                xp.subtract(a.reshape(-1), b.reshape(-1), out=ring[at])
        self.count += 1
        held = min(self.count, self.room)
        row = self._products([ring[at] for ring in self.dF], held)
        self.gram[at, :held] = self.gram[:held, at] = row

    def _move(self, parts, f):
        """Take ``dG gamma`` off the parts."""
        held = min(self.count, self.room)
        right = self._products([part.reshape(-1) for part in f], held)
        gram = self.gram[:held, :held]
        shift = _RIDGE * np.trace(gram) * np.eye(held)
        try:
            gamma = np.linalg.solve(gram + shift, right)
        except np.linalg.LinAlgError:
            return
        gamma = self.be.xp.asarray(gamma)
        for part, ring in zip(parts, self.dG, strict=True):
            part[...] -= (gamma.astype(part.dtype) @ ring[:held]).reshape(part.shape)

    def _products(self, vector, held):
        """Return the products of a vector with the differences of residuals, on the host."""
        parts = zip(self.weights, self.dF, vector, strict=True)
        return np.array(
            self.be.host(sum(w * (ring[:held] @ v).astype(np.float64) for w, ring, v in parts))
        )
