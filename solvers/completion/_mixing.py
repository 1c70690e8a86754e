"""Anderson's acceleration of a fixed-point map of arrays."""

import numpy as np

# How much of the changes' Gram matrix may be rounding.
_ROUNDING = 1e-12


class Mixing:
    """Looks for the fixed point of a map along the last changes of its points and images.

    Parameters
    ----------
    be : Backend
    window : int
        Changes that are mixed; 0 switches mixing off.

    Attributes
    ----------
    mixed : bool
        Whether the last point is more than an image of the one before.
    """

    def __init__(self, be, window):
        self._be, self._window = be, window
        self.forget()

    def forget(self):
        """Begin anew."""
        self._last, self._steps, self.mixed = None, [], False

    def __call__(self, x, image):
        """Return the next point, from the present one and its image."""
        if not self._window:
            return image
        xp, change = self._be.xp, (image - x).ravel()
        last, self._last = self._last, (image, change)
        self.mixed = last is not None
        if last is None:
            return image
        self._steps = [*self._steps, (change - last[1], image - last[0])][-self._window :]
        F = xp.stack([f for f, _ in self._steps])
        gram, right = self._be.host(F @ F.T, F @ change)
        weights = np.linalg.lstsq(gram, right, rcond=_ROUNDING)[0].astype(x.dtype)
        return image - sum(w * step for w, (_, step) in zip(weights, self._steps, strict=True))
