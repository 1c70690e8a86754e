"""Ends that are no solution: no point satisfies the constraints, or the objective has no bound."""

import math

import numpy as np

from .._core.result import Status
from ._matrices import is_operator

# A violation that fell by less than this in a step is asked whether it can fall at all.
_STUCK = 0.9
# So often in a row: one long step may end where the rows are flat, and the next one come back.
_TIMES = 4
_STATIONARY, _FAR, _FEASIBLE = 1e-6, 1e20, 1e-6


class Ends:
    """Looks at iterates of any solver of the family for an end that is no solution.

    Parameters
    ----------
    standard : Standard
    run : Monitor
    tol : float

    Attributes
    ----------
    least : Answer or None
        The iterate with the smallest violation.
    certificate : float
        The gradient of the violation's length, ``||G^T c|| / ||c||``, where the run ended for
        infeasibility; NaN elsewhere.
    """

    def __init__(self, standard, run, tol):
        self.standard, self._run, self._tol = standard, run, tol
        self.least, self.certificate = None, math.nan
        self._lowest = self._last = math.inf
        self._times, self._steep = 0, math.nan
        self._first = None

    def see(self, point, answer, violation):
        """Take note of an iterate and of its violation in the caller's unit."""
        if self._first is None:
            self._first = point.f, violation
        if violation < self._lowest or self.least is None:
            self._lowest, self.least = violation, answer

    def hopeless(self, point, violation):
        """Tell whether several iterates in a row found no step that lowers the violation."""
        stuck, self._last = violation > _STUCK * self._last, violation
        stuck = violation > self._tol and stuck and self._stationary(point)
        self._times = self._times + 1 if stuck else 0
        return self._times >= _TIMES

    def infeasible(self, point):
        """End the run if the point is infeasible and no small step helps; tell whether it did."""
        if not self._stationary(point):
            return False
        self.certificate = self._steep
        self._run.end(Status.INFEASIBLE, "It converged to a point of local infeasibility.")
        return True

    def _stationary(self, point):
        """Tell whether the point is infeasible and no small step helps.

        A step as long as x, and within the bounds, gains at most `gain` of half of ``||v||^2``,
        for the violated parts v of the scaled rows.
        """
        standard, be, xp = self.standard, self.standard.be, self.standard.xp
        if not standard.m:
            return False
        k, v = len(standard.free), self._violated(point)
        x, lo, up = point.z[:k], standard.lo[:k], standard.up[:k]
        slope = (point.G.T @ v)[:k]
        reach = xp.maximum(1.0, xp.linalg.norm(x))
        if standard.bounded:
            reach = xp.minimum(reach, xp.where(slope > 0, x - lo, up - x))
        parts = xp.linalg.norm(slope * reach), v @ v, xp.linalg.norm(slope)
        gain, square, steep = be.host(*parts)
        # A comparison with NaN is False.
        if not (square > 0 and gain <= _STATIONARY * square):
            return False
        if be.host((abs(v) / standard.c_scale).max()) <= max(self._tol, self._floor(point)):
            return False
        self._steep = steep / math.sqrt(square)
        return True

    def _violated(self, point):
        """Return the rows' violations; of an inequality, what lacks to its nearer side."""
        standard, v = self.standard, point.c
        k = len(standard.free)
        if len(standard.slack):
            v = v.copy()
            value = v[standard.slack] + point.z[k:]
            v[standard.slack] = value - standard.xp.clip(value, standard.lo[k:], standard.up[k:])
        return v

    def _floor(self, point):
        """Return the violation that rounding leaves, in the caller's unit."""
        standard, eps = self.standard, 100 * np.finfo(float).eps
        entries = not is_operator(point.G)
        sums = abs(point.G) @ abs(point.z) if entries else abs(point.G @ point.z)
        return eps * standard.be.host((sums / standard.c_scale).max())

    def unbounded(self, point, violation):
        """End the run if the objective or the unknowns have no end; tell whether it did."""
        f, c = self._first
        scale = self.standard.f_scale
        low = point.f < -_FAR * max(scale, abs(f)) and violation <= _FEASIBLE * max(1.0, c)
        far = self.standard.be.host(point.z @ point.z) > _FAR**2
        if low or far:
            what = "The objective fell without end." if low else "The unknowns grew without end."
            self._run.end(Status.UNBOUNDED, what)
        return low or far
