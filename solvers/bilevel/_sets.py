"""Closed convex sets that have a projection."""

import warnings

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import describe


class Set:
    """A closed convex set: ``S.project(v)``, or ``S(v)``, is the nearest point."""

    def __call__(self, v):
        return self.project(v)

    def project(self, v):
        """Return the point of the set that is nearest to an array of any kind."""
        io = Ingest(v=v)
        with io.device:
            return io.out(self._nearest(io["v"].reshape(-1), io.xp).reshape(io.raw("v").shape))


class Box(Set):
    """All v with ``lo <= v <= hi``; see `box`."""

    def __init__(self, lo, hi):
        lo, hi = np.asarray(lo, dtype=float), np.asarray(hi, dtype=float)
        if np.isnan(lo).any() or np.isnan(hi).any() or (lo > hi).any():
            raise ValueError(f"`X.lo` came as {lo}, above hi = {hi}; expected lo <= hi")
        self.lo, self.hi = lo, hi

    def __repr__(self):
        return f"box({self.lo}, {self.hi})"

    def _nearest(self, v, xp):
        return xp.clip(
            v, xp.asarray(self.lo, v.dtype).reshape(-1), xp.asarray(self.hi, v.dtype).reshape(-1)
        )


def box(lo, hi):
    """Return the set of arrays with ``lo <= v <= hi``.

    Parameters
    ----------
    lo, hi : float or array
        Bounds, possibly infinite: one for all entries, or one for each.
    """
    return Box(lo, hi)


def nonneg():
    """Return the set of arrays without negative entries."""
    return Box(0.0, np.inf)


class Region:
    """A set as the solvers see it: of vectors of one back end.

    Attributes
    ----------
    lo, hi : array or None
        Bounds, if it is a box.
    whole : bool
        Whether there is no restriction.
    """

    def __init__(self, project=None, lo=None, hi=None):
        self._project, self.lo, self.hi = project, lo, hi
        self.whole = project is None

    def project(self, v):
        return v if self.whole else self._project(v)

    def enter(self, v, name):
        """Return a start inside, with a warning if it had to be moved."""
        inside = self.project(v)
        if not self.whole and float(abs(inside - v).max()) > 1e-6 * max(1.0, float(abs(v).max())):
            warnings.warn(
                f"`{name}` lay outside {name[0].upper()}; it was projected",
                RuntimeWarning,
                stacklevel=5,
            )
        return inside


def check_set(given, packer, name):
    """Return what came as X or Y as a `Region` of vectors."""
    if given is None:
        return Region()
    xp, dtype = packer.io.xp, packer.io.dtype
    if isinstance(given, Box):
        full = xp.zeros(packer.size, dtype)
        lo, hi = (full + xp.asarray(b, dtype).reshape(-1) for b in (given.lo, given.hi))
        return Region(lambda v: xp.clip(v, lo, hi), lo, hi)
    if isinstance(given, Set):
        return Region(lambda v: given._nearest(v, xp).astype(dtype, copy=False))
    if not callable(given):
        raise TypeError(f"`{name}` came as {describe(given)}; expected a set or a projection")
    return Region(lambda v: packer.pack(given(packer.unpack(v)), f"`{name}` returned a point"))
