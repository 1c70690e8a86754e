"""Sets as the solvers see them: of vectors of one back end."""

import itertools
import warnings

import numpy as np


class Region:
    """A closed convex set of vectors.

    Attributes
    ----------
    lo, hi : array or None
        Bounds, if it is a box.
    rows : callable or None
        Returns (A, b, E, f) on the host, if the set is ``A v <= b, E v = f``.
    whole : bool
        Whether there is no restriction.
    """

    def __init__(self, project=None, lo=None, hi=None, rows=None):
        self._project, self.lo, self.hi, self.rows = project, lo, hi, rows
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


def joined(regions, sizes, io):
    """Return the product of regions, of vectors with parts of the given sizes, one per region."""
    xp = io.xp
    spans = [slice(a, b) for a, b in itertools.pairwise(np.cumsum([0, *sizes]).tolist())]
    if all(region.whole for region in regions):
        return Region()
    if all(region.whole or region.lo is not None for region in regions):
        lo, hi = xp.full(sum(sizes), -xp.inf, io.dtype), xp.full(sum(sizes), xp.inf, io.dtype)
        for region, span in zip(regions, spans, strict=True):
            if not region.whole:
                lo[span], hi[span] = region.lo, region.hi
        return Region(lambda v: xp.clip(v, lo, hi), lo, hi)
    return Region(
        lambda v: xp.concatenate([r.project(v[s]) for r, s in zip(regions, spans, strict=True)])
    )
