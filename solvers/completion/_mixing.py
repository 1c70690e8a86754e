"""Anderson's mixing: where a sweep maps factors to better ones, find the fixed point sooner."""

import numpy as np

# Changes that are mixed, and the part of their Gram matrix that may be rounding.
_WINDOW, _ROUNDING = 6, 1e-12


class Mixing:
    """Extrapolates from the last few points and their images under a map.

    The next point is the combination of the images that would be a fixed point if the map were
    affine, as far as least squares can tell. A loop that finds it worse than the last image
    should go on from that, and `forget`.

    Parameters
    ----------
    be : Backend

    Attributes
    ----------
    mixed : bool
        Whether the last point is more than an image of the one before.

    References
    ----------
    .. [1] H. F. Walker, P. Ni. Anderson acceleration for fixed-point iterations. SIAM Journal on
       Numerical Analysis 49 (2011), 1715-1735.
    """

    def __init__(self, be):
        self._be = be
        self.forget()

    def forget(self):
        """Begin anew."""
        self._last, self._steps, self.mixed = None, [], False

    def __call__(self, x, image):
        """Return the next point, from the present one and its image; all are arrays."""
        xp, change = self._be.xp, (image - x).ravel()
        last, self._last = self._last, (image, change)
        self.mixed = last is not None
        if last is None:
            return image.copy()
        self._steps = [*self._steps[1 - _WINDOW :], (change - last[1], image - last[0])]
        F = xp.stack([f for f, _ in self._steps])
        gram, right = self._be.host(F @ F.T, F @ change)
        weights = np.linalg.lstsq(gram, right, rcond=_ROUNDING)[0]
        return image - sum(float(w) * d for w, (_, d) in zip(weights, self._steps, strict=True))
