r"""Bounds by a primal-dual logarithmic barrier.

For :math:`\mu \downarrow 0` each solver of the family minimises

.. math:: f(z) - \mu \sum_i \log d_i(z) \quad \text{subject to} \quad c(z) = 0

where :math:`d_i` is the distance from the i-th side of a bound. Its multiplier :math:`w_i` follows
the iterates by Newton steps on :math:`w_i d_i = \mu`.
"""

from functools import cached_property

from ._matrices import add_diagonal
from ._problem import Answer, Curvature, Point, inside

# A barrier problem is solved when its error is at most this many mu.
_ENOUGH = 10.0
# The next mu is the smaller one of a fraction and a power of the last.
_FIRST, _FRACTION, _POWER = 0.1, 0.2, 1.5
# Steps leave at least this part of each distance.
_BACK = 0.01
# Multipliers stay within this factor of mu / d.
_APART = 1e10


class BarrierPoint(Point):
    """A point of a barrier problem; `plain` is the same point of the problem with bounds."""

    def __init__(self, problem, plain):
        super().__init__(problem, plain.z)
        self.plain = plain

    @cached_property
    def d(self):
        """Distances from the sides."""
        return self.problem.distances(self.z)

    @cached_property
    def f(self):
        problem = self.problem
        return self.plain.f - problem.mu * problem.be.host(problem.xp.log(self.d).sum())

    @cached_property
    def g(self):
        return self.plain.g + self.problem.gathered(self.problem.mu / self.d)

    @property
    def c(self):
        return self.plain.c

    @property
    def G(self):  # noqa: N802 (the field's name)
        return self.plain.G


class Barrier:
    """A `Standard` problem whose bounds have become a barrier: equalities only.

    Parameters
    ----------
    standard : Standard
    tol : float
        Complementarity that the caller asks for, in the caller's unit.

    Attributes
    ----------
    mu : float
    w : array (k,)
        Multipliers of the finite sides of bounds, positive.
    """

    def __init__(self, standard, tol):
        self.standard, self.be, self.xp = standard, standard.be, standard.xp
        self.n, self.m, self.f_scale = standard.n, standard.m, standard.f_scale
        self.lo, self.up, self.bounded = standard.lo, standard.up, True
        xp = self.xp
        low = xp.flatnonzero(xp.isfinite(standard.lo))
        high = xp.flatnonzero(xp.isfinite(standard.up))
        # A distance is sign * z - side: lower sides first, then upper ones.
        self._at = xp.concatenate([low, high])
        self._sign = xp.concatenate([xp.ones(len(low)), -xp.ones(len(high))])
        self._side = xp.concatenate([standard.lo[low], -standard.up[high]])
        self._least = 0.1 * tol * standard.f_scale
        self.mu = max(_FIRST, self._least)
        self.w, self._known = None, None

    def start(self, lam):
        """Return the caller's point, moved inside the bounds, and multipliers (or None)."""
        z, lam = self.standard.start(lam)
        z = inside(z, self.standard.lo, self.standard.up, xp=self.xp)
        self.w = self.mu / self.distances(z)
        return z, lam

    # ------------------------------------------------------------ sides
    def distances(self, z):
        """Return the distances of z from the sides (k,)."""
        return self._sign * z[self._at] - self._side

    def gathered(self, w):
        """Return the gradient of ``-w @ d``: multipliers of bounds (n,) from those of sides."""
        return -self.xp.bincount(self._at, self._sign * w, self.n)

    # ------------------------------------------------------------ what solvers ask
    def point(self, z):
        """Return a `BarrierPoint`; the one last answered is not evaluated again."""
        plain = self._known
        if plain is None or plain.z is not z:
            plain = self.standard.point(z)
        return BarrierPoint(self, plain)

    def curvature(self, point, lam):
        """Return the Hessian with primal-dual curvature in B and that of the barrier in product.

        The multipliers' ratio to the distances makes good steps, but the merit function has the
        derivative of mu / d.
        """
        B, product = self.standard.curvature(point.plain, lam)[:2]
        bend = self.xp.bincount(self._at, self.mu / point.d**2, self.n)
        sigma = self.xp.bincount(self._at, self.w / point.d, self.n)
        return Curvature(add_diagonal(B, sigma, be=self.be), lambda v: product(v) + bend * v)

    def longest(self, z, dz):
        """Return the longest step that leaves a part of each distance."""
        self._direction = dz
        away = (-self._sign * dz[self._at] / self.distances(z)).max()
        return self._within(self.be.host(away))

    def _within(self, rate):
        """Return the longest step, at most 1, over which what shrinks at `rate` stays positive."""
        keep = max(1 - _BACK, 1 - self.mu)
        return float(keep / rate) if rate > keep else 1.0

    def moved(self, point, lam, new, new_lam, step):
        """Move the multipliers of sides by a step of their own."""
        w, d, centre = self.w, point.d, self.mu / new.d
        change = self._change(point, new, step)
        dw = (self.mu - w * change) / d - w
        # A step of no known length was no Newton step.
        w = w + self._within(self.be.host((-dw / w).max())) * dw if step == step else centre
        self.w = self.xp.clip(w, centre / _APART, centre * _APART)
        self.standard.moved(point.plain, lam, new.plain, new_lam, step)

    def _change(self, point, new, step):
        """Return how fast the distances changed on the way to a new point.

        Close to a side the difference of two distances is mostly rounding, which multipliers
        would make large; the direction itself is exact.
        """
        dz = self._direction
        if (point.z + step * dz == new.z).all():
            return self._sign * dz[self._at]
        return (new.d - point.d) / step

    def answer(self, point, lam):
        """Return an `Answer`; a row with a slack has the multiplier of the slack's bounds."""
        self._known, self._lam, bound = point.plain, lam, self.gathered(self.w)
        slack = self.standard.slack
        if len(slack):
            lam = lam.copy()
            lam[slack] = bound[self.n - len(slack) :]
        return Answer(point.z, lam, bound)

    def residual(self, point, answer):
        """Return the `Residual` in the caller's unit."""
        return self.standard.residual(point.plain, answer)

    def solved(self, point, answer):
        """Tell whether the barrier problem is solved as well as the next one needs it."""
        xp = self.xp
        parts = [abs(point.plain.gradient(answer.lam) + answer.bound).max()]
        parts.append(abs(self.w * point.d - self.mu).max())
        if self.m:
            parts.append(abs(point.c).max())
        return bool(self.be.host(xp.stack(parts).max()) <= _ENOUGH * self.mu)

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
        answer = engine(barrier, watch, options, answer._replace(lam=barrier._lam))
        point = barrier.point(answer.z)
        while barrier.solved(point, answer):
            if not barrier.lower():
                break
    return answer
