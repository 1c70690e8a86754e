"""The last digits: Newton steps over the gates that matter, from where another method has got to."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ._interior_point import Point, follow, in_double

# Gates matter where the dual reaches this part of beta along their cones.
_NEAR = 0.95
# Part of the tolerance that the programme over some of the gates is solved to.
_SHARE = 0.1


def polish(programme, watch, U, z, tol):
    """Go on from an iterate: blocks U, in their cones or not, and a dual point z (c, n).

    At the optimum most blocks are zero. Newton steps are made over the gates whose blocks are
    not, and those whose constraint in the dual is nearly tight; the watch judges over all of
    them. Gates that the dual then violates join, until the watch ends the run or none does.
    """
    programme, run, data = in_double(programme), watch.run, watch.data
    U, z = programme.be.host(U), programme.be.host(z)
    name = run.method
    run.stage("interior_point")
    kept = np.any(U != 0, axis=(0, 1, 3)) | (lengths(data, z) > _NEAR * data.beta)
    while run.status is None and kept.any():
        part = Part(watch, np.flatnonzero(kept))
        inner = part.programme(programme)
        follow(inner, Point.at(inner), part, tol, enough=_SHARE * tol)
        joined = kept | (lengths(data, watch.best.z) > data.beta)
        if (joined == kept).all():
            break
        kept = joined
    run.stage(name)


def lengths(data, z):
    """Return how long z (c, n) is along the cones of the gates, shape (P,)."""
    F = data.transpose(z.astype(np.float64))
    norms = np.linalg.norm(F, axis=-1)
    near = np.nonzero(norms > _NEAR * data.beta)
    points, _ = data.cones.project(F[near], near[2])
    norms[near] = np.linalg.norm(points, axis=1)
    return norms.max(axis=(0, 1))


@dataclass
class Part:
    """A watch over all gates, for a run over some of them."""

    watch: Any
    gates: Any

    @property
    def run(self):
        """The books of the run."""
        return self.watch.run

    def programme(self, whole):
        """Return the programme over these gates."""
        return replace(whole, mask=whole.mask[whole.xp.asarray(self.gates)])

    def judge(self, V, z, alpha):
        """Judge blocks of these gates, the others being zero."""
        self.watch.judge(self._all(V), z, self._all(alpha))

    def record(self, **series):
        """Count a step."""
        return self.watch.record(**series)

    def _all(self, a):
        programme = self.watch.programme
        out = programme.xp.zeros((*a.shape[:2], len(programme.mask), a.shape[-1]))
        out[:, :, programme.xp.asarray(self.gates)] = a
        return out
