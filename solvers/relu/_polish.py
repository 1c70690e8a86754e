"""The last digits for other methods: Newton steps over the gates that matter."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._core.result import Status
from ._interior_point import Point, follow, in_double

# Gates matter where the dual reaches this part of beta along their cones.
_NEAR = 0.95
# Largest number of samples: a step takes an n x n factor.
_SAMPLES = 3000
# Newton steps that reach a tolerance, and the gap below which it is clear which gates matter.
_STEPS, _CLEAR = 35, 0.05
# Checks over which progress is measured, and the fall in them that still is progress.
_CHECKS, _FALL = 10, 0.99
# Part of the tolerance that the programme over some of the gates is solved to.
_SHARE = 0.1


def stuck(gaps):
    """Tell whether checks have stopped to lower the gap; `gaps` are pairs (iteration, gap)."""
    return len(gaps) > _CHECKS and gaps[-1][1] > _FALL * gaps[-1 - _CHECKS][1]


def pays(programme, watch, gaps, tol):
    """Tell whether Newton steps would be done sooner than iterations that go on as they do.

    `gaps` are pairs (iteration, gap) of the checks so far.
    """
    n, d = programme.X.shape
    P, active = len(programme.mask), np.any(watch.best.U != 0, axis=(0, 1, 3)).sum()
    nit, gap = gaps[-1]
    if n > _SAMPLES or gap > _CLEAR or len(gaps) < 2:
        return False
    if stuck(gaps):
        return True
    then, before = gaps[max(-3, -len(gaps))]
    speed = math.log(before / gap) / (nit - then)
    iteration = 12.0 * n * d * P + 4.0 * d * d * P + 2.0 * n * n
    # Products of square matrices go at about twice the pace of those of thin ones.
    newton = active * (2.0 * n * d * d + n * n * d) + n**3 / 6.0
    return _STEPS * newton * speed < iteration * math.log(gap / tol)


def polish(programme, watch, U, z, tol):
    """Go on from an iterate: blocks U, in their cones or not, and a dual point z (c, n).

    At the optimum most blocks are zero. Newton steps are made over the gates whose blocks are
    not, and those whose constraint in the dual is nearly tight; the watch judges over all of
    them. Gates that the dual then violates join, until the watch ends the run or none does.
    Iterations of the run count the steps too; its stages tell them apart.
    """
    programme, run, data = in_double(programme), watch.run, watch.data
    U, z = programme.be.host(U), programme.be.host(z)
    name, before = run.method, watch.gap
    run.stage("interior_point")
    kept = np.any(U != 0, axis=(0, 1, 3)) | (lengths(data, z) > _NEAR * data.beta)
    while run.status is None and kept.any() and watch.gap > tol:
        part = Part(watch, np.flatnonzero(kept))
        inner = part.programme(programme)
        point, goal = Point.at(inner), _SHARE * tol
        follow(inner, point, part, goal, enough=goal)
        # The dual point of the watch, scaled for all gates, would violate none.
        z = programme.be.host(point.slopes.z)
        if not np.isfinite(z).all():
            break
        joined = kept | (lengths(data, z) > data.beta * (1.0 + goal))
        if (joined == kept).all():
            break
        kept = joined
    run.stage(name)
    if run.status is None and tol < watch.gap < _SHARE * before:
        # Cheaper steps would not get further.
        run.end(Status.STALLED, "Rounding errors keep the Newton steps from going further.")


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
