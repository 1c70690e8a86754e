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
from ._convexify import Shifts, factored
from ._levenberg import Levenberg
from .inner import open_inner
from .inner._projection import multipliers

_MARGIN, _ARMIJO = 1e-5, 1e-4
_POWER_F, _POWER_THETA = 2.3, 1.1
_THETA_MAX, _THETA_MIN = 1e4, 1e-4
_SHORTEST, _CORRECTIONS, _CORRECTED = 1e-8, 4, 0.99
# After so many steps in a row that are shorter than this, feasibility comes first.
_SHORT, _TARDY = 0.05, 3
# What rounding may add to an objective or a violation.
_ROUNDING = 1e-15


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
    be, xp = problem.be, problem.xp
    inner, shifts = open_inner(options.inner, options), Shifts()
    watch.inner, watch.globalization = inner.name, "filter"
    point, lam = problem.point(start.z), start.lam
    if watch.begin(problem, point, start):
        return start
    barred, restoration, tardy = Filter(violation(point, be=be)), None, 0
    for _ in watch.run:
        trial, its = None, 0
        if restoration is None and tardy < _TARDY:
            F = xp.concatenate([point.gradient(lam), point.c])
            tol = min(0.1, math.sqrt(be.host(xp.linalg.norm(F))))
            curvature = problem.curvature(point, lam)
            saddle = factored(curvature.B, point.G, inner, shifts, be=be)
            if saddle is None:
                shifts = Shifts()
            else:
                solved = inner.solve(-F, tol=tol)
                its = solved.iterations
                trial = _searched(problem, barred, inner, point, lam, solved.d, F, tol)
        if trial is None:
            if restoration is None:
                restoration = _Restoration(problem, barred, inner, point)
            trial = restoration.step(point, lam)
            if trial is None:
                if not watch.ends.infeasible(point.plain):
                    watch.run.end(Status.STALLED, "Feasibility could not be restored.")
                break
            if restoration.done:
                restoration, tardy = None, 0
        else:
            tardy = tardy + 1 if trial.alpha < _SHORT else 0
            if saddle.delta:
                # Rows that depend on each other leave multipliers without a bound.
                trial = trial._replace(lam=multipliers(trial.point, be=be))
        problem.moved(point, lam, trial.point, trial.lam, trial.alpha)
        point, lam = trial.point, trial.lam
        answer = problem.answer(point, lam)
        if watch.record(problem, point, answer, alpha=trial.alpha, inner_its=its):
            break
    return problem.answer(point, lam)


def violation(point, *, be):
    """Return the sum of the absolute values of c."""
    return be.host(abs(point.c).sum()) if len(point.c) else 0.0


# ---------------------------------------------------------------- the line search
def _searched(problem, barred, inner, point, lam, d, F, tol):
    """Return the first `_Trial` along `d` that the filter takes, or None; may augment it."""
    be, n = problem.be, problem.n
    dx, dl = d[:n], d[n:]
    theta, f, slope = violation(point, be=be), point.f, be.host(point.g @ dx)
    longest = alpha = problem.longest(point.z, dx)
    while alpha >= _SHORTEST:
        new = problem.point(point.z + alpha * dx)
        downhill = _switches(barred, theta, slope, alpha)
        if _takes(barred, theta, f, slope, alpha, downhill, new, be):
            return _taken(barred, theta, f, slope, alpha, new, lam + alpha * dl)
        if alpha == longest:
            if _at_rounding(point, lam, new, lam + alpha * dl, be):
                return _Trial(new, lam + alpha * dl, alpha)
            if theta > 0 and not violation(new, be=be) < theta:
                trial = _corrected(
                    problem, barred, inner, point, lam, F, tol, slope, new, alpha, downhill
                )
                if trial is not None:
                    return trial
        alpha /= 2
    return None


def _switches(barred, theta, slope, alpha):
    """Tell whether a step must lower the objective: it promises more there than in theta."""
    promised = alpha * max(-slope, 0.0) ** _POWER_F
    return slope < 0 and theta <= barred.small and promised > theta**_POWER_THETA


def _armijo(f, slope, alpha, new):
    return new.f - f <= _ARMIJO * alpha * slope + 10 * _ROUNDING * abs(f)


def _takes(barred, theta, f, slope, alpha, downhill, new, be):
    """Tell whether a trial is acceptable to the filter and to the present iterate."""
    new_theta = violation(new, be=be)
    if not (math.isfinite(new_theta) and barred.accepts(new_theta, new.f)):
        return False
    if downhill:
        return _armijo(f, slope, alpha, new)
    return new_theta <= (1 - _MARGIN) * theta or new.f <= f - _MARGIN * theta


def _taken(barred, theta, f, slope, alpha, new, lam):
    """Accept a trial; the filter remembers where steps that need not lower f began."""
    if not (_switches(barred, theta, slope, alpha) and _armijo(f, slope, alpha, new)):
        barred.add(theta, f)
    return _Trial(new, lam, alpha)


def _at_rounding(point, lam, new, new_lam, be):
    """Tell whether f cannot judge any more and the optimality conditions improved."""
    change, unit = abs(new.f - point.f), 1 + abs(point.f)
    if not change <= 1e-9 * unit:
        return False
    before, after = (_error(p, y, be) for p, y in ((point, lam), (new, new_lam)))
    return after <= (1.0 if change <= 1e-13 * unit else 0.9) * before


def _error(point, lam, be):
    parts = [abs(point.gradient(lam)).max()] + ([abs(point.c).max()] if len(point.c) else [])
    return float(max(be.host(*parts))) if len(parts) > 1 else be.host(parts[0])


def _corrected(problem, barred, inner, point, lam, F, tol, slope, new, alpha, downhill):
    """Return a trial with second-order corrections of the violation, or None.

    Steps along which the constraints curve raise theta and f at once; the same matrix, solved
    with the trial's violation added, bends them back.
    """
    be, xp, n = problem.be, problem.xp, problem.n
    theta, f, last = violation(point, be=be), point.f, violation(new, be=be)
    c = point.c
    for _ in range(_CORRECTIONS):
        if not math.isfinite(last):
            return None
        c = alpha * c + new.c
        d = inner.solve(xp.concatenate([-F[:n], -c]), tol=tol).d
        alpha = problem.longest(point.z, d[:n])
        new, new_lam = problem.point(point.z + alpha * d[:n]), lam + alpha * d[n:]
        if _takes(barred, theta, f, slope, alpha, downhill, new, be):
            return _taken(barred, theta, f, slope, alpha, new, new_lam)
        before, last = last, violation(new, be=be)
        if not last <= _CORRECTED * before:
            return None
    return None


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
