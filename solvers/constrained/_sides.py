"""The finite sides of bounds, each a number."""


class FiniteSides:
    """Distances from the finite sides of bounds, lower ones first.

    Parameters
    ----------
    lo, up : array (n,)

    Attributes
    ----------
    at : array (k,)
        The unknown that a side bounds.
    sign : array (k,)
        1 for lower sides, -1 for upper ones.
    """

    def __init__(self, lo, up, *, xp):
        low, high = xp.flatnonzero(xp.isfinite(lo)), xp.flatnonzero(xp.isfinite(up))
        self._xp, self._n = xp, len(lo)
        self.at = xp.concatenate([low, high])
        self.sign = xp.concatenate([xp.ones(len(low)), -xp.ones(len(high))])
        self._side = xp.concatenate([lo[low], -up[high]])

    def __len__(self):
        return len(self.at)

    def distances(self, z):
        """Return how far z is inside each side (k,)."""
        return self.sign * z[self.at] - self._side

    def changes(self, dz):
        """Return how the distances change along a direction (k,)."""
        return self.sign * dz[self.at]

    def gathered(self, w):
        """Return the gradient of ``-w @ distances``: multipliers of bounds (n,) from sides'."""
        return -self.summed(self.sign * w)

    def summed(self, v):
        """Return for each unknown the sum over its sides (n,)."""
        return self._xp.bincount(self.at, v, self._n)
