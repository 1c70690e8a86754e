r"""Newton steps on the optimality conditions, globalised by a filter.

A step must lower the violation :math:`\theta = \|c\|_1` or the objective, and be acceptable to the
pairs that earlier iterates left in the filter; where neither can be had, Levenberg-Marquardt
steps restore feasibility.

References
----------
A. Waechter, L. T. Biegler. Line search filter methods for nonlinear programming. SIAM J. Optim. 16
(2005), 1-31 and 32-48.
"""

import math
from typing import Any, NamedTuple

from .._core.result import Status
from ._convexify import factored
from ._levenberg import Levenberg
from .inner import forcing, open_inner
from .inner._projection import multipliers

_MARGIN, _ARMIJO = 1e-5, 1e-4
_POWER_F, _POWER_THETA = 2.3, 1.1
_THETA_MAX, _THETA_MIN = 1e4, 1e-4
_SHORTEST, _CORRECTIONS, _CORRECTED = 1e-8, 4, 0.99
# After so many steps in a row that are shorter than this, feasibility comes first.
_SHORT, _TARDY = 0.05, 3
# What rounding may add to an objective, relative to it.
_ROUNDING = 1e-14


class Filter:
    """Pairs of violation and objective that no later iterate may be worse than in both.

    Parameters
    ----------
    theta : float
        Violation at the start.
    """

    def __init__(self, theta):
        self.most = _THETA_MAX * max(1.0, theta)
        self.small = _THETA_MIN * max(1.0, theta)
        self._pairs = []

    def accepts(self, theta, f):
        """Tell whether a pair is finite and better than each in the filter in one of both."""
        if not (theta <= self.most and math.isfinite(f)):
            return False
        return all(theta < t or f < v for t, v in self._pairs)

    def add(self, theta, f):
        """Bar what is not better than a pair by a margin."""
        self._pairs.append(((1 - _MARGIN) * theta, f - _MARGIN * theta))


class _Trial(NamedTuple):
    """An accepted trial: the point, its multipliers, its step."""

    point: Any
    lam: Any
    alpha: float


def solve_filter(problem, watch, options, start):
    """Take Newton steps from `start` until the run ends or feasibility cannot be restored.

    Parameters
    ----------
    problem : Standard or what wraps it
    watch : Watch
    options : Options
    start : Answer

    Returns
    -------
    Answer
    """
    inner, shifts = open_inner(options.inner, options), watch.shifts
    watch.inner, watch.globalization = inner.name, "filter"
    point, lam = problem.point(start.z), start.lam
    if watch.begin(problem, point, start):
        return start
    barred, restoration, tardy = Filter(violation(point, be=problem.be)), None, 0
    for _ in watch.run:
        trial, its = None, 0
        if restoration is None and tardy < _TARDY:
            trial, its = _newton(problem, barred, inner, shifts, options, point, lam)
            watch.inner = inner.name
        if trial is None:
            restoration = restoration or _Restoration(problem, barred, inner, point)
            trial = restoration.step(point, lam)
        if trial is None:
            if not watch.ends.infeasible(point.plain):
                watch.run.end(Status.STALLED, "The filter takes no step.")
            break
        tardy = tardy + 1 if trial.alpha < _SHORT else 0
        if restoration is not None and restoration.done:
            restoration = None
        problem.moved(point, lam, trial.point, trial.lam, trial.alpha)
        point, lam = trial.point, trial.lam
        answer = problem.answer(point, lam)
        if watch.record(problem, point, answer, alpha=trial.alpha, inner_its=its):
            break
    return problem.answer(point, lam)


def violation(point, *, be):
    """Return the sum of the absolute values of c."""
    return be.host(abs(point.c).sum()) if len(point.c) else 0.0


# ---------------------------------------------------------------- Newton steps
def _newton(problem, barred, inner, shifts, options, point, lam):
    """Return the `_Trial` that a Newton step leads to, or None, and the inner solver's steps."""
    be, xp = problem.be, problem.xp
    F = xp.concatenate([point.gradient(lam), point.c])
    tol = forcing(options, be.host(xp.linalg.norm(F)), problem.f_scale)
    B = problem.curvature(point, lam).B
    saddle = factored(B, point.G, inner, shifts, be=be, r=-F, tol=tol)
    if saddle is None:
        return None, 0
    solved = inner.solve(-F, d0=shifts.d, tol=tol)
    trial = _Search(problem, barred, inner, point, lam, solved.d).run(F, tol)
    if trial is not None and saddle.delta:
        # Rows that depend on each other leave multipliers without a bound.
        trial = trial._replace(lam=multipliers(trial.point, be=be))
    return trial, solved.iterations


class _Search:
    """Shorter and shorter steps along one direction, until the filter takes one."""

    def __init__(self, problem, barred, inner, point, lam, d):
        self._problem, self._barred, self._inner = problem, barred, inner
        self._be, self._n, self._point, self._lam = problem.be, problem.n, point, lam
        self._d, self._theta = d, violation(point, be=self._be)
        self._slope = self._be.host(point.g @ d[: self._n])

    def run(self, F, tol):
        """Return the `_Trial` that is taken, or None; may add to the filter.

        F is the right-hand side that `d` belongs to, `tol` how accurately corrections are solved.
        """
        longest = alpha = self._problem.longest(self._point.z, self._d[: self._n])
        while alpha >= _SHORTEST:
            trial = self._trial(self._d, alpha)
            if self._takes(trial, alpha):
                return self._taken(trial, alpha)
            if alpha == longest:
                if self._at_rounding(trial):
                    return trial
                if (corrected := self._corrected(trial, F, tol)) is not None:
                    return corrected
            alpha /= 2
        return None

    def _trial(self, d, alpha):
        dx, dl = d[: self._n], d[self._n :]
        new = self._problem.point(self._point.z + alpha * dx)
        return _Trial(new, self._lam + alpha * dl, alpha)

    def _takes(self, trial, alpha):
        """Tell whether a trial is acceptable to the filter and to the present iterate.

        `alpha` is the step's length before any correction.
        """
        theta, f = violation(trial.point, be=self._be), trial.point.f
        if not (math.isfinite(theta) and self._barred.accepts(theta, f)):
            return False
        if self._downhill(alpha):
            return self._armijo(trial, alpha)
        return theta <= (1 - _MARGIN) * self._theta or f <= self._point.f - _MARGIN * self._theta

    def _taken(self, trial, alpha):
        """Accept a trial; the filter remembers where steps that need not lower f began."""
        if not (self._downhill(alpha) and self._armijo(trial, alpha)):
            self._barred.add(self._theta, self._point.f)
        return trial

    def _downhill(self, alpha):
        """Tell whether a step must lower the objective: it promises more there than in theta."""
        promised = alpha * max(-self._slope, 0.0) ** _POWER_F
        small = self._theta <= self._barred.small
        return self._slope < 0 and small and promised > self._theta**_POWER_THETA

    def _armijo(self, trial, alpha):
        f = self._point.f
        return trial.point.f - f <= _ARMIJO * alpha * self._slope + _ROUNDING * abs(f)

    def _at_rounding(self, trial):
        """Tell whether f cannot judge any more and the optimality conditions improved."""
        change, unit = abs(trial.point.f - self._point.f), 1 + abs(self._point.f)
        if not change <= 1e-9 * unit:
            return False
        before = _error(self._point, self._lam, self._be)
        after = _error(trial.point, trial.lam, self._be)
        return after <= (1.0 if change <= 1e-13 * unit else 0.9) * before

    def _corrected(self, trial, F, tol):
        """Return a trial with second-order corrections of the violation, or None.

        Steps along which the constraints curve raise theta and f at once; the same matrix, solved
        with the trial's violation added, bends them back.
        """
        xp, first, c = self._problem.xp, trial.alpha, self._point.c
        last = violation(trial.point, be=self._be)
        if not last > 0 or last < self._theta:
            return None
        for _ in range(_CORRECTIONS):
            if not math.isfinite(last):
                return None
            c = trial.alpha * c + trial.point.c
            d = self._inner.solve(xp.concatenate([-F[: self._n], -c]), tol=tol).d
            trial = self._trial(d, self._problem.longest(self._point.z, d[: self._n]))
            if self._takes(trial, first):
                return self._taken(trial, first)
            before, last = last, violation(trial.point, be=self._be)
            if not last <= _CORRECTED * before:
                return None
        return None


def _error(point, lam, be):
    """Return the largest entry of F."""
    r = abs(point.gradient(lam)).max()
    return max(be.host(r, abs(point.c).max())) if len(point.c) else be.host(r)


# ---------------------------------------------------------------- restoration
class _Restoration:
    """Steps that only lower the violation, until the filter takes a point with half of it.

    `done` tells whether the last step led there.
    """

    def __init__(self, problem, barred, inner, point):
        self._problem, self._barred = problem, barred
        theta = violation(point, be=problem.be)
        barred.add(theta, point.f)
        self._goal, self.done = 0.5 * theta, False
        self._levenberg = Levenberg(problem, inner)

    def step(self, point, lam):
        """Return the next `_Trial`, or None if no step lowers the violation."""
        new = self._levenberg.step(point)
        if new is None:
            return None
        theta = violation(new, be=self._problem.be)
        self.done = theta <= self._goal and self._barred.accepts(theta, new.f)
        if self.done:
            lam = multipliers(new, be=self._problem.be)
        return _Trial(new, lam, math.nan)
