"""Where a sweep maps factors to better ones, find its fixed point sooner: Anderson's mixing."""

import numpy as np

# Changes that are mixed, and the part of their Gram matrix that may be rounding.
_WINDOW, _ROUNDING = 6, 1e-12
# By what factor strides grow.
_FASTER = 2.0


class Mixing:
    """Extrapolates from the last few points and their images under a map.

    The next point is the combination of the images that would be a fixed point if the map were
    affine, as far as least squares can tell. A loop that finds it worse than the last image
    should go on from that, and say so by `reject`. Near a saddle point, to which such points tend,
    they would all be worse: so after a rejection points lie ahead in the direction of the last
    change, further and further, until one of these is rejected.

    Parameters
    ----------
    be : Backend
    window : int, default 6
        Most changes that are mixed; with 0 the next point is the image.

    Attributes
    ----------
    mixed : bool
        Whether the last point is more than an image of the one before.

    References
    ----------
    .. [1] H. F. Walker, P. Ni. Anderson acceleration for fixed-point iterations. SIAM Journal on
       Numerical Analysis 49 (2011), 1715-1735.
    """

    def __init__(self, be, window=_WINDOW):
        self._be, self._window, self._stride = be, window, None
        self.forget()

    def forget(self):
        """Begin anew, where points are no longer what they were."""
        self._last, self._steps, self.mixed = None, [], False

    def reject(self):
        """Begin anew, in the other of the two ways."""
        self.forget()
        self._stride = None if self._stride else 1.0

    def __call__(self, x, image):
        """Return the next point, from the present one and its image; all are arrays."""
        if not self._window:
            return image.copy()
        if self._stride is None:
            return self._fixed_point(x, image)
        ahead = image + self._stride * (image - x)
        self._stride, self.mixed = _FASTER * self._stride, True
        return ahead

    def _fixed_point(self, x, image):
        xp, change = self._be.xp, (image - x).ravel()
        last, self._last = self._last, (image, change)
        self.mixed = last is not None
        if last is None:
            return image.copy()
        self._steps = [*self._steps, (change - last[1], image - last[0])]
        self._steps = self._steps[-self._window :]
        F = xp.stack([f for f, _ in self._steps])
        gram, right = self._be.host(F @ F.T, F @ change)
        weights = np.linalg.lstsq(gram, right, rcond=_ROUNDING)[0]
        return image - sum(float(w) * d for w, (_, d) in zip(weights, self._steps, strict=True))
