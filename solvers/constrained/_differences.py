"""Derivatives by differences, within the bounds of x.

Steps are ``h = e^(1/3) (1 + |x_i|)`` for central differences, where e is the relative error of
what is differenced, and ``e^(1/2)`` for forward ones. Complex steps have no such error.
"""

from typing import Any, NamedTuple

import numpy as np

SCHEMES = ("2-point", "3-point", "cs")
_POWERS = {"2-point": 1 / 2, "3-point": 1 / 3}
_COMPLEX = 1e-20
# What the certificate expects of differences, relative, in double precision.
_EXPECTED = 1e-7


class Differences(NamedTuple):
    """How to difference a function.

    Parameters
    ----------
    scheme : {"2-point", "3-point", "cs"}
    noise : float
        Relative error of the function.
    lo, up : array (n,)
        Bounds that x stays within; entries of x that they fix are not differenced.
    xp : module
    rel_step : float or array, optional
        In place of the step's first factor.
    """

    scheme: str
    noise: float
    lo: Any
    up: Any
    xp: Any
    rel_step: Any = None

    @property
    def error(self):
        """The relative error that is left in a derivative."""
        if self.scheme == "cs":
            return self.noise
        return self.noise ** (1 / 2 if self.scheme == "2-point" else 2 / 3)

    def jacobian(self, fresh, base, x):
        """Return the derivatives of a function along each axis, (n,) or (m, n).

        Parameters
        ----------
        fresh : callable
            ``fresh(y)`` evaluates the function: a float or a vector. For complex steps, it returns
            the imaginary part.
        base : callable
            ``base()`` returns its value at `x`, where that is known or needed.
        x : array (n,)
        """
        columns = self._complex if self.scheme == "cs" else self._real
        free = self.xp.flatnonzero(self.lo != self.up).tolist()
        columns = dict(zip(free, columns(fresh, base, x, free), strict=True))
        if not columns:
            return self.xp.zeros((*getattr(base(), "shape", ()), len(x)))
        zero = 0.0 * next(iter(columns.values()))
        full = [columns.get(i, zero) for i in range(len(x))]
        return self.xp.asarray(full) if isinstance(zero, float) else self.xp.stack(full, axis=-1)

    def _complex(self, fresh, base, x, free):
        for i in free:
            z = x.astype(np.complex128)
            z[i] += 1j * _COMPLEX
            yield fresh(z) / _COMPLEX

    def _real(self, fresh, base, x, free):
        xp, central = self.xp, self.scheme == "3-point"
        factor = self.noise ** _POWERS[self.scheme] if self.rel_step is None else self.rel_step
        h = factor * (1.0 + abs(x))
        below, above = x - self.lo, self.up - x
        inside = (below >= h) & (above >= h) if central else above >= h
        # Next to a bound, towards the other; a quadratic through three points if need be.
        away = xp.where(above >= below, 1.0, -1.0) * xp.minimum(h, xp.maximum(above, below) / 2)
        h = xp.where(inside, h, away)
        h, inside = ((x + h) - x).tolist(), inside.tolist()

        def at(i, step):
            y = x.copy()
            y[i] += step
            return fresh(y)

        for i in free:
            if not central:
                yield (at(i, h[i]) - base()) / h[i]
            elif inside[i]:
                yield (at(i, h[i]) - at(i, -h[i])) / (2 * h[i])
            else:
                yield (4 * at(i, h[i]) - 3 * base() - at(i, 2 * h[i])) / (2 * h[i])


def expected_error(scheme, eps):
    """Return what is to be expected of a derivative by differences, relative."""
    if scheme == "cs":
        return 100 * eps
    return max(_EXPECTED, 10 * eps ** (1 / 2 if scheme == "2-point" else 2 / 3))


def along(gradient, x, v, noise, *, be):
    """Return the derivative of a gradient along `v`, by one central difference."""
    xp = be.xp
    size, length = be.host(xp.linalg.norm(x), xp.linalg.norm(v))
    if length == 0.0:
        return xp.zeros_like(v)
    h = noise ** (1 / 3) * (1.0 + size) / length
    return (gradient(x + h * v) - gradient(x - h * v)) / (2 * h)
