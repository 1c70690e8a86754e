"""The penalties as the judge knows them: values, distances to optimality and conjugates.

They share nothing with the rules in `solvers.penalties` that solvers compile, but for penalties
that a user registered. All is flat: coefficient k of feature j is number ``j C + k``.
"""

import math

import numpy as np

from .. import losses, penalties
from .._core.rules import function_of


class Penalty:
    """A penalty of the coefficients of a problem.

    Parameters
    ----------
    problem : GLM or Quadratic

    Attributes
    ----------
    start : array, shape (N,)
        The feasible coefficients nearest to zero.
    free : array of bool, shape (N,), or None
        Coefficients without penalty or bounds, if there are any.
    dual : bool
        Whether slopes can be scaled until their conjugate is finite, if `free` ones allow it.
    flat : bool
        Whether the conjugate is 0 wherever it is finite.
    """

    dual = flat = False

    def __init__(self, problem):
        self.xp, self.host, self.size = problem.xp, problem.be.host, problem.size
        self.start, self.free = self.xp.zeros(self.size), None

    def worst(self, w, g):
        """Return the largest distance of ``-g`` to a subdifferential at w, and where it is."""
        distance = self.distance(w, g)
        where = distance.argmax()
        largest, where = self.host(distance[where], where)
        # A NaN comes first.
        return math.inf if math.isnan(largest) else largest, self.coefficient(int(where))

    def coefficient(self, where):
        """Return the coefficient that a distance belongs to."""
        return where

    def kink(self, g):
        """Return the multiplier of slopes from which a ridge has to pay, or infinity."""
        return math.inf

    def threshold(self, g):
        """Return the `alpha` from which zero is stationary, where it is 1 in this penalty."""
        return math.inf


class ElasticBox(Penalty):
    """``a |w| + r/2 w^2`` within bounds; each field a number or one for each coefficient."""

    def __init__(self, problem, penalty):
        super().__init__(problem)
        xp = self.xp
        self.a, self.r, lo, hi = (xp.asarray(field, dtype=np.float64) for field in penalty)
        # Bounds are those of the unknowns' precision: what rounds to a bound is feasible.
        self.lo, self.hi = (end.astype(problem.dtype).astype(np.float64) for end in (lo, hi))
        weights = getattr(problem, "weights", None)
        if weights is not None:
            weights = weights.astype(np.float64).reshape(-1)
            self.a = xp.where(weights > 0, self.a * weights, 0.0)
        self.below, self.above = xp.isfinite(self.lo), xp.isfinite(self.hi)
        loose = (self.a == 0) & (self.r == 0)
        free = loose & ~self.below & ~self.above
        end = (self.below & (self.lo != 0)) | (self.above & (self.hi != 0))
        facts = (
            (self.r > 0).any(),
            (self.below | self.above).any(),
            end.any(),
            ((self.lo > 0) | (self.hi < 0)).any(),
            # Neither scaling nor projection helps a slope that only one bound holds.
            (loose & (self.below ^ self.above)).any(),
            (~loose).any(),
            free.any(),
        )
        self.ridged, self.bounded, ends, self.shifted, lost, held, any_free = self.host(*facts)
        self.flat = not (self.ridged or ends)
        self.dual = held and not lost
        if any_free:
            self.free = xp.broadcast_to(free, (self.size,))
        if self.shifted:
            self.start = xp.clip(self.start, self.lo, self.hi)

    def value(self, w):
        xp, on = self.xp, self.xp.flatnonzero(w)
        size = self._smooth(w[on], _part(self.a, on), _part(self.r, on)).sum()
        if not self.bounded:
            return size
        return xp.where(((w >= self.lo) & (w <= self.hi)).all(), size, math.inf)

    def distance(self, w, g):
        xp = self.xp
        on = xp.arange(w.size) if self.shifted else xp.flatnonzero(w)
        # Zeros first: most are.
        if self.bounded:
            up, down = xp.where(self.hi > 0, -g, -math.inf), xp.where(self.lo < 0, g, -math.inf)
            away = xp.maximum(xp.maximum(up, down) - self.a, 0.0)
        else:
            away = xp.maximum(abs(g) - self.a, 0.0)
        a, r, lo, hi = (_part(field, on) for field in (self.a, self.r, self.lo, self.hi))
        w = w[on]
        pull = -(g[on] + xp.where(w == 0, 0.0, r) * w)
        # The subdifferential's ends, of which a bound opens one.
        left = xp.where(w <= lo, -math.inf, xp.where(w <= 0, -a, a))
        right = xp.where(w >= hi, math.inf, xp.where(w >= 0, a, -a))
        away[on] = xp.maximum(xp.maximum(pull - right, left - pull), 0.0)
        if self.bounded:
            away[on] = xp.where((w < lo) | (w > hi), math.inf, away[on])
        return away

    def reach(self, g):
        """Return the multipliers k for which ``-k g`` has a finite conjugate."""
        if not self.bounded and not self.ridged:
            k = self._shortest(g)
            return -k, k
        straight = (self.r == 0) & ((self.a > 0) | self.below | self.above)
        # Where only one side is open, only one sign of the slope matters.
        up, down = straight & ~self.above, straight & ~self.below
        return -self._shortest(-g, up, down), self._shortest(g, up, down)

    def kink(self, g):
        if not self.ridged:
            return math.inf
        held = (self.r > 0) & (self.a > 0)
        return self._shortest(g, held, held)

    def threshold(self, g):
        held = (self.a > 0) | (self.r > 0)
        return _inverse(self._shortest(g, held & (self.hi > 0), held & (self.lo < 0)))

    def _shortest(self, g, up=True, down=True):
        """Return the k from which ``-k g`` pulls some coefficient up, or down, out of its kink."""
        xp = self.xp
        pulls = ((g < 0) & up) | ((g > 0) & down)
        if self.free is not None:
            pulls = pulls & ~self.free
        if self.a.ndim == 0:
            largest = self.host(xp.where(pulls, abs(g), 0.0).max())
            return self.host(self.a) / largest if largest > 0 else math.inf
        return self.host(xp.where(pulls, self.a / xp.where(g == 0, 1.0, abs(g)), math.inf).min())

    def conjugate(self, t):
        """Return ``sup_w t w - G(w)``, for t that `reach` allows but for rounding."""
        if self.flat:
            return 0.0
        xp = self.xp
        inside = abs(t) <= self.a
        size = xp.where(inside, 0.0, abs(t) - xp.where(inside, 0.0, self.a))
        curved = xp.sign(t) * size / xp.where(self.r > 0, self.r, 1.0)
        far = xp.where(self.above, self.hi, self.start)
        near = xp.where(self.below, self.lo, self.start)
        straight = xp.where(inside, 0.0, xp.where(t > 0, far, near))
        w = xp.clip(xp.where(self.r > 0, curved, straight), self.lo, self.hi)
        return (t * w - self._smooth(w, self.a, self.r)).sum()

    def _smooth(self, w, a, r):
        # An infinite weight of a coefficient that is zero costs nothing.
        a, r = (self.xp.where(w == 0, 0.0, weight) for weight in (a, r))
        return a * abs(w) + 0.5 * r * w * w


class Groups(Penalty):
    """``sum_j l1_j |w_j| + sum_g l2_g |w_g|`` for disjoint groups g."""

    flat = True

    def __init__(self, problem, groups):
        super().__init__(problem)
        xp = self.xp
        self.idx, self.first = groups.idx, groups.ptr[:-1]
        self.group = xp.repeat(xp.arange(groups.l2.size), self.host(xp.diff(groups.ptr)).tolist())
        self.l1, self.l2 = groups.l1.astype(np.float64), groups.l2.astype(np.float64)
        self.loose = (self.l1 == 0) & (self.l2 == 0)[self.group]
        some, self.dual = self.host(self.loose.any(), (~self.loose).any())
        if some:
            self.free = xp.zeros(self.size, bool)
            self.free[self.idx] = self.loose

    def value(self, w):
        w = w[self.idx]
        size = self.xp.where(w == 0, 0.0, self.l1) * abs(w)
        norm = self._norms(w)
        return size.sum() + (self.xp.where(norm == 0, 0.0, self.l2) * norm).sum()

    def distance(self, w, g):
        xp, w, g = self.xp, w[self.idx], g[self.idx]
        norm = self._norms(w)
        idle = self._soft(g, 1.0)
        at_zero = xp.maximum(self._norms(idle) - self.l2, 0.0)
        unit = w / xp.where(norm > 0, norm, 1.0)[self.group]
        pulled = g + xp.where(w == 0, 0.0, self.l1 * xp.sign(w) + self.l2[self.group] * unit)
        return xp.where(norm > 0, self._norms(xp.where(w == 0, idle, pulled)), at_zero)

    def coefficient(self, where):
        return int(self.host(self.idx[self.first[where]]))

    def reach(self, g):
        """Return the multipliers k for which ``-k g`` has a finite conjugate."""
        xp = self.xp
        g = xp.where(self.loose, 0.0, g[self.idx])
        size = self._norms(g)
        held = size > 0
        ratio = xp.where(held, self.l2, math.inf) / xp.where(size > 0, size, 1.0)
        low = self.host(ratio.min())
        # No group allows more than this, and if there are no absolute values, not even that.
        slack = xp.where(held, self.l2 + self._norms(self.l1), math.inf)
        high = self.host((slack / xp.where(size > 0, size, 1.0)).min())
        if not math.isfinite(high):
            return -high, high
        while high - low > 4e-16 * high:
            middle = 0.5 * (low + high)
            if middle in (low, high):
                break
            if self._allows(middle, g, held):
                low = middle
            else:
                high = middle
        return -low, low

    def threshold(self, g):
        return _inverse(self.reach(g)[1])

    def conjugate(self, t):
        """Return 0: what `reach` allows costs nothing."""
        return 0.0

    def _allows(self, k, g, held):
        norms = self._norms(self._soft(g, k))
        return self.host(((norms <= self.l2) | ~held).all())

    def _soft(self, g, k):
        return self.xp.sign(g) * self.xp.maximum(k * abs(g) - self.l1, 0.0)

    def _norms(self, x):
        """Return the norm of each group, whatever the scale of their members."""
        xp, top = self.xp, self.host(abs(x).max())
        unit = top if 0.0 < top < math.inf else 1.0
        squares = xp.bincount(self.group, xp.square(x / unit), minlength=self.l2.size)
        return unit * xp.sqrt(squares)


class Concave(Penalty):
    """MCP and SCAD: concave on each side, with a kink at zero."""

    def __init__(self, problem):
        super().__init__(problem)
        penalty = problem.penalty
        # Finite, so that an infinite strength times a coefficient of 0 is 0.
        self.a = self.xp.minimum(_weighted(problem, penalty.alpha), np.finfo(np.float64).max)
        self.gamma = self.xp.asarray(penalty.gamma, dtype=np.float64)
        self.scad = isinstance(penalty, penalties.SCAD)
        self.problem = problem

    def value(self, w):
        xp, a, gamma, size = self.xp, self.a, self.gamma, abs(w)
        if self.scad:
            bent = (2.0 * gamma * a * size - size * size - a * a) / (2.0 * (gamma - 1.0))
            bent = xp.where(size <= a, a * size, bent)
            flat = 0.5 * a * a * (gamma + 1.0)
        else:
            bent, flat = a * size - size * size / (2.0 * gamma), 0.5 * gamma * a * a
        return xp.where(size <= gamma * a, bent, flat).sum()

    def distance(self, w, g):
        xp, a, gamma, size = self.xp, self.a, self.gamma, abs(w)
        if self.scad:
            slope = xp.minimum(a, xp.maximum(gamma * a - size, 0.0) / (gamma - 1.0))
        else:
            slope = xp.maximum(a - size / gamma, 0.0)
        return xp.where(w == 0, xp.maximum(abs(g) - a, 0.0), abs(g + slope * xp.sign(w)))

    def threshold(self, g):
        return self.host(self.xp.where(self.a > 0, _ratio(self.xp, abs(g), self.a), 0.0).max())


class Lq(Penalty):
    """``a |w|^q``: zero is always stationary, so a proximal step is measured instead."""

    def __init__(self, problem, data):
        super().__init__(problem)
        self.a = _weighted(problem, problem.penalty.alpha)
        self.q = self.xp.asarray(problem.penalty.q, dtype=np.float64)
        self.lipschitz = _lipschitz(problem, data)

    def value(self, w):
        size = abs(w)
        return (self.a * self.xp.where(size > 0, size, 1.0) ** self.q * (size > 0)).sum()

    def distance(self, w, g):
        xp, L = self.xp, self.lipschitz
        safe = xp.where(L > 0, L, 1.0)
        step = abs(w - self._prox(w - g / safe, 1.0 / safe))
        # A column of zeros: only the penalty's slope is left.
        return xp.where(L > 0, L * step, abs(self._slope(w)))

    def threshold(self, g):
        # Where a proximal step from zero just stays there.
        L, q = self.xp.where(self.lipschitz > 0, self.lipschitz, 1.0), self.q
        least = abs(g) / L * 2.0 * (1.0 - q) / (2.0 - q)
        weight = L * least ** (2.0 - q) / (2.0 * (1.0 - q))
        return self.host(self.xp.where(self.a > 0, _ratio(self.xp, weight, self.a), 0.0).max())

    def _slope(self, w):
        size = self.xp.where(w == 0, 1.0, abs(w))
        return self.xp.where(w == 0, 0.0, self.a * self.q * size ** (self.q - 1.0))

    def _prox(self, v, t):
        """Return the minimisers of ``G(w) + (w - v)^2 / (2 t)``."""
        xp, q, size = self.xp, self.q, abs(v)
        ta = t * self.a
        # Above the least size of a minimiser that is not zero, Newton steps fall to it.
        least = (2.0 * ta * (1.0 - q)) ** (1.0 / (2.0 - q))
        least = xp.where(ta > 0, least, 0.0)
        unit = xp.where(least > 0, least, 1.0)
        moves = size > least + xp.where(ta > 0, ta * q * unit ** (q - 1.0), 0.0)
        w = xp.where(moves, size, 1.0)
        for _ in range(60):
            push = ta * q * w ** (q - 1.0)
            w = w - (w - size + push) / (1.0 + (q - 1.0) * push / w)
            w = xp.maximum(w, 0.5 * unit * (least > 0))
            w = xp.where(moves, w, 1.0)
        return xp.where(moves, xp.sign(v) * w, 0.0)


class Registered(Penalty):
    """A penalty that a user registered, through its plain Python rules."""

    def __init__(self, problem):
        super().__init__(problem)
        weights = getattr(problem, "weights", None)
        weights = None if weights is None else self.host(weights).reshape(-1)
        # The rules read ``penalty.field[j]``.
        self.bound = penalties.bind(problem.penalty, self.size, np.float64, weights)

    def value(self, w):
        return self.xp.asarray(math.fsum(self._each("value", w)))

    def distance(self, w, g):
        return self.xp.asarray(self._each("distance", w, g))

    def _each(self, name, *arrays):
        rule = function_of(type(self.bound), name)
        columns = (self.host(array).tolist() for array in arrays)
        return [
            rule(self.bound, *values, j) for j, values in enumerate(zip(*columns, strict=True))
        ]


def open_penalty(problem, data=None):
    """Return the judge's own version of a problem's penalty."""
    penalty = problem.penalty
    if problem.groups is not None:
        return Groups(problem, problem.groups)
    if hasattr(penalty, "canonical"):
        penalty = penalty.canonical()
    if isinstance(penalty, penalties.ElasticBox):
        return ElasticBox(problem, penalty)
    if isinstance(penalty, (penalties.MCP, penalties.SCAD)):
        return Concave(problem)
    return Lq(problem, data) if isinstance(penalty, penalties.Lq) else Registered(problem)


def _part(field, where):
    """Return some entries of a field, which may be one number for all."""
    return field if field.ndim == 0 else field[where]


def _inverse(k):
    return math.inf if k == 0 else 1.0 / k


def _ratio(xp, a, b):
    return a / xp.where(b > 0, b, 1.0)


def _weighted(problem, alpha):
    xp, weights = problem.xp, getattr(problem, "weights", None)
    alpha = xp.broadcast_to(xp.asarray(alpha, dtype=np.float64), (problem.size,))
    return alpha if weights is None else alpha * weights.astype(np.float64).reshape(-1)


def _lipschitz(problem, data):
    """Return the largest second derivative of the smooth part for each coefficient."""
    L = data.squares()
    if problem.fit_intercept and isinstance(problem.loss, losses.Squared):
        mean = data.pull(data.s)
        L = problem.xp.maximum(L - mean * mean / data.total, 0.0)
    bound = losses.CURVATURE[type(problem.loss)]
    # Every step length tells stationary points from others.
    L = L * (bound if math.isfinite(bound) else 1.0)
    return problem.xp.repeat(L, problem.size // L.size)
