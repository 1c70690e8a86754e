r"""Bounds by a primal-dual logarithmic barrier.

For :math:`\mu \downarrow 0` each solver of the family minimises

.. math:: f(z) - \mu \sum_i \log d_i(z) \quad \text{subject to} \quad c(z) = 0

where :math:`d_i` is the distance from the i-th side of a bound. Its multiplier :math:`w_i` follows
the iterates by Newton steps on :math:`w_i d_i = \mu`.
"""

import math
from functools import cached_property

from ._matrices import add_diagonal
from ._problem import Answer, Curvature, Point, inside
from ._sides import FiniteSides

# A barrier problem is solved when its error is at most this many mu.
_ENOUGH = 10.0
# The next mu is the smaller one of a fraction and a power of the last.
_FIRST, _FRACTION, _POWER = 0.1, 0.2, 1.5
# Steps leave at least this part of each distance.
_BACK = 0.01
# What the smaller of multiplier and distance may be, in units of tol; for how many iterations to
# try to have it so; the smallest mu.
_VAGUE, _PATIENCE, _FINEST = 10.0, 10, 1e-15
# A little of every distance is added to its logarithm, which else falls for ever where the
# objective does not rise.
_TETHER = 1e-5
# Multipliers stay within this factor of mu / d.
_APART = 1e10


class BarrierPoint(Point):
    """A point of a barrier problem, with the multipliers `w` of the sides that belong to it.

    `plain` is the same point of the problem with bounds.
    """

    plain = None

    def __init__(self, problem, plain):
        super().__init__(problem, plain.z)
        self.plain, self.mu = plain, problem.mu

    @cached_property
    def d(self):
        """Distances from the sides."""
        return self.problem.sides.distances(self.z)

    @cached_property
    def w(self):
        """Multipliers of the sides: in the centre where no step led here, but not small."""
        return self.problem.xp.maximum(1.0, self.mu / self.d)

    @cached_property
    def f(self):
        be, xp = self.problem.be, self.problem.xp
        barrier = xp.log(self.d) - _TETHER * self.d
        return self.plain.f - self.mu * be.host(barrier.sum())

    @cached_property
    def g(self):
        return self.plain.g + self.problem.sides.gathered(self.mu / self.d - _TETHER * self.mu)

    @property
    def c(self):
        return self.plain.c

    @property
    def G(self):  # noqa: N802 (the field's name)
        return self.plain.G


class Barrier:
    """A `Standard` problem whose bounds have become a barrier.

    Parameters
    ----------
    standard : Standard
    tol : float
        Complementarity that the caller asks for, in the caller's unit.

    Attributes
    ----------
    mu : float
    last : BarrierPoint and array (m,)
        The point last answered, and its multipliers.
    """

    bounded = True

    def __init__(self, standard, tol):
        self.standard, self.be, self.xp = standard, standard.be, standard.xp
        self.n, self.m, self.f_scale = standard.n, standard.m, standard.f_scale
        self.lo, self.up = standard.lo, standard.up
        self.sides = FiniteSides(self.lo, self.up, xp=self.xp)
        self._tol, self._least = tol, 0.1 * tol * standard.f_scale
        self.mu = max(_FIRST, self._least)
        self.last, self._patience = None, _PATIENCE

    def start(self, lam):
        """Return the caller's start, moved inside the bounds, and multipliers (or None)."""
        z, lam = self.standard.start(lam)
        return inside(z, self.lo, self.up, xp=self.xp), lam

    def theirs(self, answer):
        """Return x and multipliers of rows and bounds in the caller's unit."""
        return self.standard.theirs(answer)

    # ------------------------------------------------------------ what solvers ask
    def point(self, z):
        """Return a `BarrierPoint`; the one last answered is not evaluated again."""
        last = self.last
        if last is None or last[0].z is not z:
            return BarrierPoint(self, self.standard.point(z))
        if last[0].mu == self.mu:
            return last[0]
        point = BarrierPoint(self, last[0].plain)
        point.w = last[0].w
        return point

    def curvature(self, point, lam):
        """Return the Hessian with primal-dual curvature in B and that of the barrier in product.

        The multipliers' ratio to the distances makes good steps, but the merit function has the
        derivative of mu / d.
        """
        B, product = self.standard.curvature(point.plain, lam)[:2]
        bend = self.sides.summed(self.mu / point.d**2)
        sigma = self.sides.summed(point.w / point.d)
        return Curvature(add_diagonal(B, sigma, be=self.be), lambda v: product(v) + bend * v)

    def longest(self, z, dz):
        """Return the longest step that leaves a part of each distance."""
        self._direction = dz
        away = (-self.sides.changes(dz) / self.sides.distances(z)).max()
        return self._within(self.be.host(away))

    def _within(self, rate):
        """Return the longest step, at most 1, over which what shrinks at `rate` stays positive."""
        keep = max(1 - _BACK, 1 - self.mu)
        return float(keep / rate) if rate > keep else 1.0

    def moved(self, point, lam, new, new_lam, step):
        """Move the multipliers of sides by a step of their own.

        A step of no known length was no Newton step: the centre then stands for one.
        """
        self.standard.moved(point.plain, lam, new.plain, new_lam, step)
        if math.isnan(step):
            return
        w, d, centre = point.w, point.d, self.mu / new.d
        dw = (self.mu - w * self._change(point, new, step)) / d - w
        w = w + self._within(self.be.host((-dw / w).max())) * dw
        new.w = self.xp.clip(w, centre / _APART, centre * _APART)

    def _change(self, point, new, step):
        """Return how fast the distances changed on the way to a new point.

        Close to a side the difference of two distances is mostly rounding, which multipliers
        would make large; the direction itself is exact.
        """
        dz = self._direction
        if (point.z + step * dz == new.z).all():
            return self.sides.changes(dz)
        return (new.d - point.d) / step

    def answer(self, point, lam):
        """Return an `Answer` with the multipliers of bounds."""
        self.last = point, lam
        return Answer(point.z, lam, self.sides.gathered(point.w))

    def objective(self, point):
        """Return the objective in the caller's unit, without the barrier."""
        return self.standard.objective(point.plain)

    def residual(self, point, answer):
        """Return the `Residual` in the caller's unit.

        Where neither a multiplier nor its distance is small the product says little: x may be as
        far from the solution as its square root. Such sides count by the smaller of both, for
        some iterations.
        """
        self._residual = found = self.standard.residual(point.plain, answer)
        if found.kkt <= self._tol and self._patience:
            vague = self.be.host(self.xp.minimum(point.w / self.f_scale, point.d).max())
            if vague > _VAGUE * self._tol:
                self._patience -= 1
                self._least = self.f_scale * max(_VAGUE * self._tol**2, _FINEST)
                return found._replace(complementarity=vague)
        return found

    def solved(self, point, answer):
        """Tell whether the barrier problem is solved as well as the next one needs it."""
        most = _ENOUGH * self.mu
        if not self._residual.stationarity * self.standard.f_scale <= most:
            return False
        off = abs(point.w * point.d - self.mu).max()
        return max(self.be.host(off, abs(point.c).max() if self.m else 0.0 * off)) <= most

    def lower(self):
        """Go to the next mu; tell whether there is one."""
        last, self.mu = self.mu, max(self._least, min(_FRACTION * self.mu, self.mu**_POWER))
        return self.mu < last


def solve_barrier(engine, barrier, watch, options, start):
    """Run a solver of equality constraints for a falling sequence of mu.

    Parameters
    ----------
    engine : callable
        ``engine(problem, watch, options, start)`` returns an `Answer`.
    barrier : Barrier
    watch, options, start
        As engines have them.

    Returns
    -------
    Answer
    """
    answer = start
    while watch.run.status is None:
        answer = engine(barrier, watch, options, answer)
        while barrier.solved(barrier.last[0], answer) and barrier.lower():
            pass
    return answer
