"""A point of a model with a loss of one prediction per sample, and how good it is."""

import math

import numpy as np

from .. import losses
from ._rounds import Report


class Point:
    """A point of the whole problem: `x`, `c`, predictions `z`, slopes `r`, gradient `g`."""

    def __init__(self, problem):
        self.problem, self.xp, self.be = problem, problem.xp, problem.be
        self.penalty = problem.bound
        self.elastic = "ridge" in self.penalty._fields
        self.M = losses.CURVATURE[type(problem.loss)]
        if not (self.elastic or math.isfinite(self.M)):
            raise ValueError(
                f"`penalty` came as {problem.penalty!r} with a loss whose second derivative has "
                "no bound; expected a convex one of solvers.penalties, or another loss"
            )
        self.has_gap = self._has_gap()
        self.unit = self.xp.ones_like(self.penalty[0])
        if "alpha" in self.penalty._fields:
            alpha = self.penalty.alpha
            top = float(self.be.host(alpha.max())) or 1.0
            self.unit = self.xp.where(alpha > 0.0, alpha / top, 1.0)
        self.start, _ = problem.zeros()

    def _has_gap(self):
        """Tell whether slopes give a dual point."""
        if not self.elastic or type(self.problem.loss) not in _FLOORS:
            return False
        alpha, ridge, lo, hi = self.penalty
        held = (alpha > 0.0) | (ridge > 0.0)
        boxed = (lo > -np.inf) & (hi < np.inf)
        every, some = self.be.host((held | boxed).all(), held.any())
        return every and some

    def open(self, x, c):
        """Go to a first point, and find what values are relative to."""
        problem, host = self.problem, self.be.host
        self._at(self.start, *self._cold())
        square, g = self._cold_sums()
        self.L = self.xp.where(square > 0.0, self.M * square, 0.0)
        self.g = g.astype(problem.dtype)
        loss = host(problem.loss_sum(self.z))
        self.scale_of_values = abs(loss) or 1.0
        if self.has_gap:
            self.least = _FLOORS[type(problem.loss)](problem)
            self.scale = loss - self.least + host(problem.penalty_sum(self.start)) or 1.0
        else:
            self.scale = host(abs(self.g).max()) or 1.0
        if host((x != self.start).any()):
            self._at(x, c, problem.predict(x, c))
            self.g = problem.design.rdot(self.r)
        return self._measure()

    def _cold_sums(self):
        """Return the columns' sums of squares, and the gradient of the cold start."""
        problem, xp = self.problem, self.xp
        if not isinstance(problem.loss, losses.Logistic) or self.be.host((self.start != 0).any()):
            s = problem.s.astype(np.float64)
            square, _, g = problem.design.moments(s, self.r / s)
            return square, g
        # Labels are -1 and 1 and predictions equal: slopes are a + b y, and no pass is needed.
        square, mean, cross = problem.moments
        y, z = xp.asarray([-1.0, 1.0]), xp.full(2, self.be.host(self.z[0]))
        slopes = xp.empty(2)
        problem.kernels.loss_slopes(losses.bind(problem.loss), y, z, xp.ones(2), slopes)
        low, high = self.be.host(slopes).tolist()
        return square, 0.5 * (low + high) * mean + 0.5 * (high - low) * cross

    def _cold(self):
        problem, x = self.problem, self.start
        c = problem.no_intercept()
        if self.be.host((x != 0).any()):
            return c, problem.predict(x, c)
        return c, self.xp.zeros(problem.y.shape, problem.dtype)

    def move(self, x, work=None):
        """Go to a point whose predictions `work` knows, and return its `Report`."""
        self._at(x, work.c, work.z)
        self.g = self.problem.design.rdot(self.r)
        return self._measure()

    def intercept(self):
        """Return the intercept."""
        return self.xp.asarray(self.c, self.problem.dtype)

    def _at(self, x, c, z):
        """Take a point, with the best intercept for it."""
        problem = self.problem
        shift = best_shift(problem, z) if problem.fit_intercept else 0.0
        self.x, self.c, self.z = x, c + shift, z + shift if shift else z
        self.r = problem.slopes(self.z)

    def _measure(self):
        problem, x, g = self.problem, self.x, self.g
        self.violation = self._violations(x, g) / self.unit
        worst, rz = self.be.host(self.violation.max(), self.r @ self.z)
        self.worst, loss = worst, float(problem.loss_sum(self.z))
        primal = loss + float(problem.penalty_sum(x))
        if not self.has_gap:
            return Report(primal, worst / self.scale, np.nan)
        gap = primal - self._bound(rz, loss)
        return Report(primal, max(gap, 0.0) / self.scale, gap)

    def _violations(self, x, g):
        out = self.xp.empty_like(g)
        self.problem.kernels.distances(self.penalty, x, g, out)
        if self.elastic:
            return out
        steps = self.xp.empty_like(g)
        self.problem.kernels.prox_steps(self.penalty, x, g, self.L, steps)
        return self.xp.maximum(out, self.L * abs(steps))

    def _bound(self, rz, loss):
        """Return a lower bound of the optimum.

        Where the slopes v are scaled by k < 1, convexity bounds the conjugates of the losses:
        ``phi*(k v) <= k phi*(v) + (1 - k) phi*(0)``, and ``phi*(v) = v z - phi(z)``.
        """
        xp, (alpha, ridge, lo, hi) = self.xp, self.penalty
        linear = (ridge == 0.0) & (alpha > 0.0)
        up = xp.where(linear & (hi == np.inf), -self.g, 0.0)
        down = xp.where(linear & (lo == -np.inf), self.g, 0.0)
        ratio = xp.maximum(up, down) / xp.where(alpha > 0.0, alpha, 1.0)
        k = 1.0 / max(float(self.be.host(ratio.max())), 1.0)
        return (1.0 - k) * self.least - k * (rz - loss) - self._conjugate(-k * self.g)

    def _conjugate(self, t):
        """Return ``sum_j sup_w t_j w - G_j(w)``, where it is finite."""
        xp, (alpha, ridge, lo, hi) = self.xp, self.penalty
        beyond = xp.sign(t) * xp.maximum(abs(t) - alpha, 0.0)
        end = xp.where(beyond > 0.0, hi, xp.where(beyond < 0.0, lo, 0.0))
        w = xp.where(ridge > 0.0, beyond / xp.where(ridge > 0.0, ridge, 1.0), end)
        w = xp.clip(xp.where(xp.isfinite(w), w, 0.0), lo, hi)
        return self.be.host((t * w - alpha * abs(w) - 0.5 * ridge * w * w).sum(dtype=np.float64))


def _poisson_floor(problem):
    xp, y = problem.xp, problem.y
    each = y - y * xp.log(xp.where(y > 0.0, y, 1.0))
    return float(problem.be.host((problem.s * each).sum()))


# The infimum of the sum of losses over all predictions.
_FLOORS = {
    losses.Logistic: lambda problem: 0.0,
    losses.Huber: lambda problem: 0.0,
    losses.Squared: lambda problem: 0.0,
    losses.SquaredHinge: lambda problem: 0.0,
    losses.Poisson: _poisson_floor,
}


def best_shift(problem, z):
    """Return the number that, added to all predictions, makes the losses least."""
    be, xp = problem.be, problem.xp
    low, high, shift = -math.inf, math.inf, 0.0
    reach = max(1.0, float(be.host(abs(problem.y - z).max())))
    for _ in range(200):
        r = problem.slopes(z + xp.asarray(shift, z.dtype))
        h = problem.curvatures(z + xp.asarray(shift, z.dtype))
        g, size, bend = be.host(r.sum(dtype=np.float64), abs(r).sum(), h.sum(dtype=np.float64))
        if abs(g) <= np.finfo(z.dtype).eps * size:
            break
        low, high = (low, shift) if g > 0.0 else (shift, high)
        new = shift - (
            min(max(g / bend, -reach), reach) if bend > 0.0 else math.copysign(reach, g)
        )
        reach *= 2.0
        if not low < new < high:
            new = 0.5 * (low + high)
        if new in (shift, low, high):
            break
        shift = new
    return shift
