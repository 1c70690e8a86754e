r"""The lasso for all penalty weights at once: its solution is piecewise linear in the weight.

While the signs :math:`\sigma` and the set A of nonzero coefficients stay the same,

.. math:: w_A(\lambda) = G_{AA}^{-1} (b_A - \lambda \sigma a_A), \qquad G = X^\top S X, \;
          b = X^\top S y,

with feature weights a. The path goes from one breakpoint to the next: a coefficient joins where
its correlation :math:`c(\lambda) = b - G w(\lambda)` reaches :math:`\pm \lambda a`, and leaves
where it becomes zero. Each column of G that is needed is a pass over X, and made once.
"""

import math
from dataclasses import replace

import numpy as np

from .._core.backend import get_backend
from ._engines import ENGINES

# A column whose variance is below this part of its square is a constant, up to rounding.
_CONSTANT = 1e-13
# A column of which the others leave less than this part depends on them.
_DEPENDENT = 1e-11
# Breakpoints after which correlations are computed anew, lest rounding errors add up.
_RENEWED = 32
# Breakpoints at one and the same weight before the path counts as lost.
_TURNS = 100


def solve_lars(problem, watch, options):
    """Follow the path from the largest weight to the one of a lasso problem; an engine."""
    from ._driver import Answer

    way = Homotopy(problem)
    watch.used = {"partition": "variable", "selection": "lars", "update": "exact"}
    target = way.top
    if target >= way.weight:
        watch.record(way.x, way.intercept(), iterations=0, **way.report(target))
    for _ in watch.run:
        arrived = way.step(target)
        watch.npass, watch.n_newton = way.npass, way.turns
        watch.n_blocks, watch.active_set = way.turns, way.active()
        if watch.record(way.x, way.intercept(), block=way.size, **way.report(target)) or arrived:
            break
        if way.lost:
            # Ties without end: another solver takes over from here.
            options = replace(options, x0=Answer(way.x, way.intercept()))
            return ENGINES["auto"](problem, watch, options)
    return Answer(way.x, way.intercept())


class Homotopy:
    """A point on the solution path of a lasso problem.

    Parameters
    ----------
    problem : GLM
        With squared loss and a bound `ElasticBox` that is L1, perhaps for coefficients >= 0.

    Attributes
    ----------
    top : float
        The problem's own weight; feature weights are relative to it.
    weight : float
        Where the path is.
    x : array, shape (p,)
        The solution there.
    lost : bool
        Whether ties made the path turn in circles.
    """

    def __init__(self, problem):
        self.problem, self.xp, self.host = problem, problem.xp, problem.be.host
        xp, s = self.xp, problem.s.astype(np.float64)
        alpha = problem.bound.alpha.astype(np.float64)
        self.top = self.host(alpha.max())
        self.a = alpha / self.top if self.top > 0 else xp.ones_like(alpha)
        self.positive = self.host((problem.bound.lo == 0).all())
        self.total = self.host(s.sum())
        square, mean, cross = problem.moments
        self.s, self.mean = s, mean / self.total
        y = problem.y.astype(np.float64)
        self.level = (s @ y) / self.total if problem.fit_intercept else 0.0
        y = y - self.level
        self.b = cross - self.level * mean
        self.yy = self.host(s @ (y * y))
        self.diagonal = xp.where(problem.lipschitz > _CONSTANT * square, problem.lipschitz, 0.0)
        # Columns of G, one a row, in the order in which they were first needed.
        self.G, self.stored, self.npass = xp.empty((0, alpha.size)), 0, 1.0
        self.slot = np.full(alpha.size, -1)
        self.order, self.signs, self.blocked = np.empty(0, np.int64), np.empty(0), set()
        self._a, self._b = (np.atleast_1d(self.host(v)) for v in (self.a, self.b))
        self.L = np.zeros((16, 16))
        self.turns, self._ties, self.lost = 0, 0, False
        self.inside = xp.zeros(alpha.size, bool)
        self.weight = math.inf
        for j in self.host(xp.flatnonzero((self.a == 0) & (self.diagonal > 0))).tolist():
            self._join(j, 0.0)
        self._line()
        self.weight = self._first()
        self._place()

    @property
    def size(self):
        """How many coefficients are on the path."""
        return self.order.size

    def active(self):
        """Return which they are."""
        return self.xp.asarray(self.order)

    def intercept(self):
        """Return the best intercept."""
        problem = self.problem
        if not problem.fit_intercept:
            return problem.no_intercept()
        return self.xp.asarray(self.level - self.mean @ self.x, problem.dtype)

    def step(self, target):
        """Go to the next breakpoint, or to `target` if that comes first; tell whether it did."""
        join, leave = self._next_join(), self._next_leave()
        following = max(join[0], leave[0], target)
        self._ties = self._ties + 1 if following >= self.weight else 0
        self.lost = self._ties > _TURNS + self.size
        self.weight = min(following, self.weight)
        arrived = following == target
        if not arrived:
            if leave[0] >= join[0]:
                self._leave(leave[1])
            else:
                self._join(*join[1:])
            self.turns += 1
            self._line()
        else:
            self._refine()
        self._place()
        return arrived

    def report(self, target):
        """Return objective, gap and relative gap of the present point for another weight."""
        w = self.at(self.weight)
        size = float(self._a[self.order] @ abs(w))
        wb = float(w @ self._b[self.order])
        rr = max(self.yy - wb - self.weight * size, 0.0)
        ry = self.yy - wb
        limit = min(target / self.weight, 1.0) if self.weight > 0 else 1.0
        k = min(max(ry / rr, -limit), limit) if rr > 0 else 1.0
        primal = 0.5 * rr + target * size
        gap = primal - k * (ry - 0.5 * k * rr)
        return {"fun": primal, "gap": gap, "value": max(gap, 0.0) / (0.5 * self.yy or 1.0)}

    def at(self, weight):
        """Return the active coefficients for a weight up to the next breakpoint."""
        return self.w0 - weight * self.d

    def _first(self):
        """Return the weight from which on only unpenalised coefficients are not zero."""
        xp, c = self.xp, self.c0
        ratio = (c if self.positive else abs(c)) / xp.where(self.a > 0, self.a, 1.0)
        penalised = (self.a > 0) & (self.diagonal > 0)
        return max(self.host(xp.where(penalised, ratio, 0.0).max()), 0.0)

    def _line(self):
        """Solve for the line on which the coefficients move until the next breakpoint."""
        right = np.empty((self.size, 2), order="F")
        right[:, 0], right[:, 1] = self._b[self.order], self.signs * self._a[self.order]
        self.w0, self.d = self._solve(right).T
        # Correlations are c0 + weight q.
        before = None if self.turns % _RENEWED == 0 else self.c0 + self.weight * self.q
        self.q = self._through(self.d)
        if before is None:
            self.c0 = self.b - self._through(self.w0)
        else:
            self.c0 = before - self.weight * self.q

    def _through(self, w):
        """Return G times coefficients of which only the active ones are not zero."""
        mixed = np.zeros(self.stored)
        mixed[self.slot[self.order]] = w
        return self.xp.asarray(mixed) @ self.G[: self.stored]

    def _next_join(self):
        """Return weight, coefficient and sign of the next one to join."""
        xp, a, c, q = self.xp, self.a, self.c0, self.q
        free = ~self.inside & (self.diagonal > 0)
        up, down = a - q, a + q
        # Where the distance to the bound grows, rounding made a coefficient that left seem late.
        rising = xp.where(free & (up > 0) & (c > 0), c / xp.where(up > 0, up, 1.0), -1.0)
        falling = xp.where(free & (down > 0) & (c < 0), -c / xp.where(down > 0, down, 1.0), -1.0)
        if self.positive:
            falling = xp.full_like(falling, -1.0)
        best = xp.maximum(rising, falling)
        j = best.argmax()
        weight, j, rises = self.host(best[j], j, rising[j] >= falling[j])
        return min(weight, self.weight), int(j), 1.0 if rises else -1.0

    def _next_leave(self):
        """Return the weight at which the next coefficient becomes zero, and its place."""
        shrinks = self.signs * self.d < 0
        if not shrinks.any():
            return -1.0, -1
        zero = np.where(shrinks, self.w0 / np.where(shrinks, self.d, 1.0), -1.0)
        k = int(zero.argmax())
        return min(float(zero[k]), self.weight), k

    def _join(self, j, sign):
        k, row = self.size, self._row(j)
        if k + 1 > self.L.shape[0]:
            room = np.zeros((2 * k, 2 * k))
            room[:k, :k] = self.L[:k, :k]
            self.L = room
        self.inside[j] = True
        cross = np.atleast_1d(self.host(row[self.active()])) if k else np.zeros(0)
        own = self.host(row[j])
        if k:
            self.L[k, :k] = self._triangular(cross)
        rest = own - float(self.L[k, :k] @ self.L[k, :k])
        if not rest > _DEPENDENT * own:
            # Its correlation stays at the bound without it, until one of the others leaves.
            self.blocked.add(j)
            return
        self.L[k, k] = math.sqrt(rest)
        self.order, self.signs = np.append(self.order, j), np.append(self.signs, sign)

    def _leave(self, k):
        kernels = get_backend("numpy").kernels("solvers.bcd", "lars")
        kernels.drop_row(self.L, self.size, k)
        self.inside[int(self.order[k])] = False
        self.order, self.signs = np.delete(self.order, k), np.delete(self.signs, k)
        if self.blocked:
            self.inside[self.xp.asarray(sorted(self.blocked))] = False
            self.blocked.clear()

    def _place(self):
        xp = self.xp
        self.x = xp.zeros(self.a.size, self.problem.dtype)
        if self.size:
            w = self.at(self.weight)
            # Rounding must not push what is about to leave, or has just come, across zero.
            w = np.where((self.signs != 0) & (w * self.signs < 0), 0.0, w)
            self.x[self.active()] = xp.asarray(w.astype(self.problem.dtype))

    def _refine(self):
        """Take off the rounding errors of many breakpoints, by the residual itself."""
        if not self.size:
            return
        self._place()
        problem = self.problem
        z = problem.design.dot(self.x).astype(np.float64)
        y = problem.y.astype(np.float64) - self.level
        c = self._pull(self.s * (y - z + (self.mean @ self.x if problem.fit_intercept else 0.0)))
        c = np.atleast_1d(self.host(c[self.active()]))
        wrong = c - self.weight * self.signs * self._a[self.order]
        self.w0 = self.w0 + self._solve(wrong)
        self.npass += 2.0

    def _row(self, j):
        """Return column j of G, over X or from memory."""
        if self.slot[j] < 0:
            m = self.stored
            if m == self.G.shape[0]:
                room = self.xp.empty((max(16, 2 * m), self.a.size))
                room[:m] = self.G
                self.G = room
            column = self.problem.design.columns([j])
            column = column.toarray() if self.problem.design.sparse else column
            self.G[m] = self._pull(self.s * column[:, 0].astype(np.float64))
            if self.problem.fit_intercept:
                self.G[m] -= self.total * self.mean[j] * self.mean
            self.slot[j], self.stored = m, m + 1
            self.npass += 1.0
        return self.G[self.slot[j]]

    def _pull(self, r):
        return self.problem.design.rdot(r.astype(self.problem.dtype)).astype(np.float64)

    def _triangular(self, b):
        from scipy.linalg.lapack import dtrtrs

        k = self.size
        return dtrtrs(self.L[:k, :k].T, b, lower=0, trans=1)[0]

    def _solve(self, b):
        """Solve with the Gram matrix of the active coefficients."""
        from scipy.linalg.lapack import dpotrs

        k = self.size
        return dpotrs(self.L[:k, :k].T, b, lower=0)[0] if k else b
