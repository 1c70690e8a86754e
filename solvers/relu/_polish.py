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
    c, P = len(programme.Y), len(programme.mask)
    nit, gap = gaps[-1]
    if n > _SAMPLES or gap > _CLEAR or len(gaps) < 2:
        return False
    if stuck(gaps):
        return True
    then, before = gaps[max(-3, -len(gaps))]
    speed = math.log(before / gap) / (nit - then)
    iteration = c * (12.0 * n * d * P + 4.0 * d * d * P + 2.0 * n * n)
    active = np.any(watch.best.U != 0, axis=(1, 3)).sum()
    # Products of square matrices go at about twice the pace of those of thin ones.
    newton = active * (2.0 * n * d * d + n * n * d) + c * n**3 / 6.0
    return _STEPS * newton * speed < iteration * math.log(gap / tol)


def polish(programme, watch, U, z, tol):
    """Go on from an iterate: blocks U, in their cones or not, and a dual point z (c, n).

    At the optimum most blocks are zero. For each output Newton steps are made over the gates whose
    blocks are not, and those whose constraint in the dual is nearly tight; the watch judges over
    all of them. Gates that the dual then violates join, until the watch ends the run or none
    does. Iterations of the run count the steps too; its stages tell them apart.
    """
    programme, run, data = in_double(programme), watch.run, watch.data
    U, z = (programme.be.host(a).astype(np.float64) for a in (U, z))
    name, before = run.method, watch.gap
    run.stage("interior_point")
    kept = np.any(U != 0, axis=(1, 3)) | (lengths(data, z) > _NEAR * data.beta)
    whole, changed = Whole(watch, U.copy(), z.copy(), {}), np.ones(len(U), dtype=bool)
    goal = _SHARE * tol
    while run.status is None and watch.gap > tol and changed.any():
        outputs = [o for o in np.flatnonzero(changed) if kept[o].any()]
        for o in outputs:
            part = Part(whole, o, np.flatnonzero(kept[o]), judges=o == outputs[-1])
            inner = part.programme(programme)
            follow(inner, Point.at(inner), part, goal, enough=goal)
        if run.status is not None:
            # The outputs that came first have not been judged.
            whole.judge()
        if not np.isfinite(whole.z).all():
            break
        # The dual point of the watch, scaled for all gates, would violate none.
        joined = kept | (lengths(data, whole.z) > data.beta * (1.0 + goal))
        changed = (joined != kept).any(axis=1)
        kept = joined
    run.stage(name)
    if run.status is None and tol < watch.gap < _SHARE * before:
        # Cheaper steps would not get further.
        run.end(Status.STALLED, "Rounding errors keep the Newton steps from going further.")


def lengths(data, z):
    """Return how long z (c, n) is along the cones of the gates, shape (c, P)."""
    F = data.transpose(z)
    norms = np.linalg.norm(F, axis=-1)
    near = np.nonzero(norms > _NEAR * data.beta)
    points, _ = data.cones.project(F[near], near[2])
    norms[near] = np.linalg.norm(points, axis=1)
    return norms.max(axis=1)


@dataclass
class Whole:
    """Where all outputs have got to: blocks, dual point, multipliers by output, on the host."""

    watch: Any
    U: Any
    z: Any
    alpha: dict

    def judge(self):
        """Judge all outputs together."""
        alpha = np.zeros((*self.U.shape[:3], self.z.shape[1]))
        for o, (gates, own) in self.alpha.items():
            alpha[o][:, gates] = own
        self.watch.judge(self.U, self.z, alpha)


@dataclass
class Part:
    """A watch for a run over some of the gates of one output."""

    whole: Whole
    output: int
    gates: Any
    judges: bool

    @property
    def run(self):
        """The books of the run."""
        return self.whole.watch.run

    def programme(self, programme):
        """Return the programme of this output over these gates."""
        Y, old = programme.Y[self.output : self.output + 1], programme.loss
        loss = type(old)(Y, programme.xp, delta=old.delta, logit_scale=old.scale)
        mask = programme.mask[programme.xp.asarray(self.gates)]
        return replace(programme, Y=Y, loss=loss, mask=mask)

    def judge(self, V, z, alpha):
        """Take note of where this output has got to; judge, if it is the last."""
        host = self.whole.watch.programme.be.host
        V, z, alpha = host(V), host(z), host(alpha)
        self.whole.U[self.output] = 0.0
        self.whole.U[self.output][:, self.gates] = V[0]
        self.whole.z[self.output] = z[0]
        self.whole.alpha[self.output] = self.gates, alpha[0]
        if self.judges:
            self.whole.judge()

    def record(self, *, judged, **series):
        """Count a step."""
        return self.whole.watch.record(judged=judged and self.judges, **series)
