"""The line search on the exact augmented Lagrangian, with a watchdog."""

import math
from typing import Any, NamedTuple

from ._merit import difference

_ARMIJO, _SHORTEST = 1e-4, 1e-10
# Changes of M, relative to f, that rounding makes, and that it spoils.
_ROUNDING, _NEARLY_ROUNDING = 1e-13, 1e-9
# Steps that may pass before M must be lower than where the watchdog began.
_WATCHED = 5
# Full steps to where the optimality conditions are worse by more than this are not tried.
_WORSE = 10.0


class Trial(NamedTuple):
    """A step: from where, along what, how far, to where, and how M changed."""

    point: Any
    lam: Any
    step: Any
    alpha: float
    new: Any
    new_lam: Any
    change: float

    @property
    def enough(self):
        """Whether M fell enough, or cannot judge any more."""
        promised = self.alpha * _ARMIJO * self.step.slope
        return self.change <= promised or self._within_rounding()

    @property
    def hopeful(self):
        """Whether the optimality conditions are not much worse; never so where one is NaN."""
        return _error(self.new, self.new_lam) <= _WORSE * _error(self.point, self.lam)

    @property
    def rounded(self):
        """Whether nothing but rounding is left of the change."""
        return abs(self.change) <= _ROUNDING * (1 + abs(self.point.f))

    def _within_rounding(self):
        # Of a very short step any change is small; what counts is that of a full one.
        largest = max(abs(self.change), abs(self.step.slope))
        if not largest <= _NEARLY_ROUNDING * (1 + abs(self.point.f)):
            return False
        before, after = _error(self.point, self.lam), _error(self.new, self.new_lam)
        return after <= (before if self.rounded else 0.9 * before)


class LineSearch:
    """Finds steps that lower M.

    Where a full step does not, it is taken all the same: curved constraints often make M rise for
    a step and fall below its first value with the next. If it did not after some steps, the run
    goes back and takes a shorter first step; then it waits longer before it tries that again.

    Parameters
    ----------
    problem : Standard or what wraps it
    """

    def __init__(self, problem):
        self._problem = problem
        self._mark, self._left, self._rest, self._pause = None, 0, 0, 1

    def take(self, point, lam, step):
        """Return the `Trial` to go on from; None if no length of the step lowers M."""
        trial = self._trial(point, lam, step, self._problem.longest(point.z, step.dx))
        if self._mark is not None:
            return self._watched(trial)
        self._rest -= 1
        if trial.enough:
            return trial
        if self._rest < 0 and trial.hopeful:
            self._mark, self._left = trial, _WATCHED
            return trial
        return self._shortened(trial)

    def back(self):
        """Return a shorter step from where the watchdog began; None if it is not on."""
        mark, self._mark = self._mark, None
        self._rest, self._pause = self._pause, 2 * self._pause
        return None if mark is None else self._shortened(mark)

    def _watched(self, trial):
        mark, be = self._mark, self._problem.be
        change = difference(mark.point, mark.lam, trial.new, trial.new_lam, be=be)
        if change.at(mark.step.weights) <= mark.alpha * _ARMIJO * mark.step.slope:
            self._mark, self._pause = None, 1
            return trial
        self._left -= 1
        if self._left > 0 and math.isfinite(trial.change):
            return trial
        return self.back()

    def _shortened(self, trial):
        while trial.alpha > _SHORTEST:
            shorter = trial.alpha * _fraction(trial.alpha * trial.step.slope, trial.change)
            trial = self._trial(trial.point, trial.lam, trial.step, shorter)
            if trial.enough:
                return trial
        return None

    def _trial(self, point, lam, step, alpha):
        new, new_lam = self._problem.point(point.z + alpha * step.dx), lam + alpha * step.dl
        change = difference(point, lam, new, new_lam, be=self._problem.be).at(step.weights)
        return Trial(point, lam, step, alpha, new, new_lam, change)


def _fraction(promised, change):
    """Return where the parabola through both ends is lowest, between 0.1 and 0.5."""
    bend = change - promised
    return min(max(-0.5 * promised / bend, 0.1), 0.5) if math.isfinite(bend) else 0.5


def _error(point, lam):
    """Return the largest entry of the optimality conditions."""
    be, r = point.problem.be, abs(point.gradient(lam)).max()
    return max(be.host(r, abs(point.c).max())) if len(point.c) else be.host(r)
