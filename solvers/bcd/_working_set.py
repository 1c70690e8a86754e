"""Squared loss with an elastic penalty and bounds: greedy working sets and exact small problems.

Rounds of: gradient and duality gap, a working set of the best coefficients by the GS-q rule, its
Gram matrix, and the problem restricted to it, solved by `l1qp`.
"""

import copy
from contextlib import nullcontext

import numpy as np

from .. import penalties
from .._core import threads
from .._core.result import Status
from ._l1qp import Factor, l1qp
from ._rounds import LEAST, Report, first_number, steps_are_dear, work_in_rounds

# A column whose variance is below this part of its square is a constant, up to rounding.
_CONSTANT = 1e-13
# Passes that the Gram matrix of new columns may cost.
_PASSES = 2.0
# Columns that may come in early: they nearly violate the optimality conditions, see `survey`.
_NEAR = -0.3
# From which product of densities on sparse columns are multiplied as dense ones, unless these take
# so many bytes.
_CROWDED, _LARGE = 0.05, 2.5e8
# A whole Gram matrix of so many products takes no longer than the rounds that it saves.
_ALL = 1e8
# Rounds without a new column or half the error after which rounding errors are in the way.
_IDLE = 6
# Relative jitter of Newton systems for coefficients in single precision.
_JITTER_SINGLE = 1e-9
# Below this size a problem in play is solved with one thread.
_SMALL = 400


def solve_squares(problem, watch, options):
    """Solve a `GLM` with squared loss and an `ElasticBox`; an engine, see `_engines`."""
    x, _ = options.x0 or problem.zeros()
    squares, work, report, passes = _begin(problem, x)
    watch.npass += passes
    return work_in_rounds(squares, work, report, watch)


def _begin(problem, x):
    """Return the start, its working set and report, and how many passes that took.

    Along a path the working set goes on with its Gram matrix, and a gradient does not depend on
    the penalty.
    """
    memory = {} if problem.memory is None else problem.memory
    before = memory.get("squares")
    squares = _Squares(problem) if before is None else before.under(problem)
    work = memory.get("work") or _WorkingSet(squares)
    work.follow(squares)
    memory.update(squares=squares, work=work)
    if before is not None and problem.be.host((before.x == x).all()):
        report = squares.measure()
        work.expect(2.0 * squares.top - before.top)
        return squares, work, report, 0.0
    return squares, work, squares.move(x), 2.0


class _Squares:
    """A point `x` of the whole problem: residual `r`, gradient `g`, how good it is.

    Everything is in terms of ``sqrt(s) X``, centred where there is an intercept.
    """

    def __init__(self, problem):
        self.problem, self.xp, self.be = problem, problem.xp, problem.be
        # Vectors over samples, and columns in play, are in float64 whatever X is.
        xp, s = problem.xp, problem.s.astype(np.float64)
        self.penalty = problem.bound
        self.total = s.sum()
        self.root = xp.sqrt(s)
        square, mean, cross = problem.moments
        self.mean = mean / self.total
        self.L = xp.where(problem.lipschitz > _CONSTANT * square, problem.lipschitz, 0.0)
        self.level = (s @ problem.y) / self.total if problem.fit_intercept else 0.0
        self.y = self.root * (problem.y - self.level)
        self._read_penalty()
        self.start, _ = problem.zeros()
        self.kernels = self.be.kernels("solvers.bcd", "screen")
        self.base = self.y
        if self.be.host((self.start != 0).any()):
            # Coefficients that are not in play stay where they start, at a bound.
            self.base = self.y - self._predict(self.start)
            self.cold = self._pull(self.base)
        else:
            self.cold = -(cross - self.level * mean).astype(problem.dtype)
        self._read_scale()

    def under(self, problem):
        """Return the same point under another penalty weight."""
        twin = copy.copy(self)
        twin.problem, twin.penalty = problem, problem.bound
        twin._read_penalty()
        twin._read_scale()
        return twin

    def _read_scale(self):
        """Find out what gaps and slopes are relative to."""
        if self.has_gap:
            size = 0.5 * (self.base @ self.base) + self._size(self.start)
        else:
            size = abs(self.cold).max()
        self.scale, self.slope = (v or 1.0 for v in self.be.host(size, abs(self.cold).max()))

    def _read_penalty(self):
        """Find out what may judge, and in which units."""
        xp, (alpha, ridge, lo, hi) = self.xp, self.penalty
        open_lo, open_hi = lo == -np.inf, hi == np.inf
        # The dual constraint of these coefficients is an equation, which no multiple solves.
        loose = (alpha == 0.0) & (ridge == 0.0) & (open_lo | open_hi)
        self.free = loose & open_lo & open_hi
        linear = (ridge == 0.0) & open_hi & (open_lo | (lo == 0.0))
        self.top, bends, half, plain, penalised = self.be.host(
            alpha.max(),
            (ridge > 0.0).any(),
            (loose & ~self.free).any(),
            linear.all(),
            ((alpha > 0.0) | (ridge > 0.0)).any(),
        )
        self.has_gap = penalised and not half
        # The conjugate of the penalty is 0 wherever it is finite.
        self.plain = plain and not bends
        self.unit = xp.ones_like(alpha)
        if self.has_gap and self.top > 0.0:
            self.unit = xp.where(alpha > 0.0, alpha / self.top, 1.0)

    def intercept(self):
        """Return the best intercept."""
        problem = self.problem
        if not problem.fit_intercept:
            return problem.no_intercept()
        return self.xp.asarray(self.level - self.mean @ self.x, problem.dtype)

    def move(self, x, work=None):
        """Go to a point and return its `Report`; `work` knows the predictions."""
        problem = self.problem
        self.x = x
        if work is not None:
            self.r = self.base - work.predict(x - self.start)
        elif self.be.host((x != self.start).any()):
            self.r = self.y - self._predict(x)
        else:
            self.r, self.g = self.base, self.cold
            return self.measure()
        if problem.fit_intercept:
            # Columns count as centred because the residual is.
            self.r -= self.root * (self.root @ self.r / self.total)
        self.g = self._pull(self.r)
        return self.measure()

    def _pull(self, r):
        """Return the gradient that a residual makes, a pass over X."""
        design = self.problem.design
        return -design.rdot((self.root * r).astype(design.dtype))

    def _predict(self, x):
        """Return ``sqrt(s) X x``, centred where there is an intercept."""
        z = self.problem.design.dot(x)
        if self.problem.fit_intercept:
            z = z - self.mean @ x
        return self.root * z

    def measure(self):
        """Return the `Report` of the present point."""
        x, g, be, xp = self.x, self.g, self.be, self.xp
        self.scores, self.violations, steepness = xp.empty((3, x.size), x.dtype)
        self.kernels.survey(
            self.penalty, x, g, self.L, self.unit, self.scores, self.violations, steepness
        )
        rr, ry, size, self.worst, steepest = be.host(
            self.r @ self.r,
            self.r @ self.y,
            self._size(x),
            self.violations.max(),
            steepness.max(),
        )
        primal = 0.5 * rr + size
        if not self.has_gap:
            return Report(primal, self.worst / self.scale, np.nan)
        gap = primal - self._dual(rr, ry, steepest)
        slope = be.host(xp.where(self.free, abs(g), 0.0).max())
        value = max(max(gap, 0.0) / self.scale, slope / self.slope)
        return Report(primal, value, gap)

    def _size(self, x):
        """Return the penalty, for a feasible point."""
        alpha, ridge, _, _ = self.penalty
        return (alpha * abs(x) + 0.5 * ridge * x * x).sum(dtype=np.float64)

    def _dual(self, rr, ry, steepest):
        """Return the dual objective at the best multiple of the residual."""
        limit = self.top / steepest if steepest > 0.0 else np.inf
        k = min(max(ry / rr, 0.0) if self.plain and rr > 0.0 else 1.0, limit)
        dual = k * ry - 0.5 * k * k * rr
        return dual if self.plain else dual - self._conjugate(-k * self.g)

    def _conjugate(self, t):
        """Return ``sum_j sup_w t_j w - G_j(w)``; unpenalised coefficients count as 0."""
        xp, (alpha, ridge, lo, hi) = self.xp, self.penalty
        beyond = xp.sign(t) * xp.maximum(abs(t) - alpha, 0.0)
        end = xp.where(beyond > 0.0, hi, xp.where(beyond < 0.0, lo, 0.0))
        w = xp.where(ridge > 0.0, beyond / xp.where(ridge > 0.0, ridge, 1.0), end)
        w = xp.clip(xp.where(xp.isfinite(w), w, 0.0), lo, hi)
        return self.be.host((t * w - alpha * abs(w) - 0.5 * ridge * w * w).sum(dtype=np.float64))


class _WorkingSet:
    """The coefficients in play: their columns, Gram matrix, and small problem.

    Attributes
    ----------
    where : array of int
        Which they are, in the order in which they came.
    """

    def __init__(self, squares):
        self.squares, self.be, self.xp = squares, squares.be, squares.xp
        n, p = squares.problem.design.shape
        self.first = first_number(p)
        if not squares.problem.design.sparse and n * p * p <= _ALL:
            self.first = p
        self.where = self.xp.zeros(0, np.int64)
        self.inside = self.xp.zeros(p, bool)
        self.outside = 0.0
        self.sparse = squares.problem.design.sparse
        self.rows = self.xp.empty((0, n))
        self.G = np.empty((0, 0))
        # Coefficients in single precision cannot follow what only tiny singular values see.
        single = squares.problem.dtype == np.float32
        self.factor = Factor(self.G, **({"jitter": _JITTER_SINGLE} if single else {}))

    def follow(self, squares):
        """Go on with another penalty."""
        if (self.squares.penalty.ridge != squares.penalty.ridge).any():
            self.factor.forget()
        self.squares = squares

    @property
    def size(self):
        """Number of coefficients."""
        return self.where.size

    @property
    def passes(self):
        """What a round costs besides the gradient, in passes over X."""
        return 2.0 * self.size / self.squares.problem.size

    def dead_end(self, idle):
        """Return the end of rounds that bring nothing, None before."""
        return (Status.STALLED,) if idle == _IDLE else None

    def grow(self):
        """Take in the coefficients that promise most, by the GS-q rule."""
        squares, xp, be = self.squares, self.xp, self.be
        x = squares.x
        scores = squares.scores
        scores[self.where] = -1.0
        wanted = (x != squares.start) | squares.free
        scores = xp.where(wanted & ~self.inside & (squares.L > 0.0), np.inf, scores)
        found, near, kept, nonzero, outside = be.host(
            (scores > 0.0).sum(),
            (scores > _NEAR).sum(),
            (scores == np.inf).sum(),
            (x != 0.0).sum(),
            xp.where(self.inside, 0.0, squares.violations).max(),
        )
        self.outside = outside
        if not found:
            return
        # Steps of these move others that are near: as many of them may save a round.
        count = min(near, 2 * found, max(self.first, nonzero // 2, kept))
        new = xp.argpartition(-scores, count - 1)[:count]
        if self.sparse and not kept:
            new = self._affordable(new[xp.argsort(-scores[new])])
        self._add(xp.sort(new))

    def _affordable(self, new):
        """Return the first columns, as many as have a Gram matrix that costs a few passes."""
        starts, n = self.squares.problem.design.X.indptr, self.squares.root.size
        old = self._entries(self.where)
        mine = (starts[new + 1] - starts[new]).cumsum(dtype=np.float64)
        cost = mine * (old + mine) / n
        many = self.be.host((cost <= _PASSES * self.squares.problem.design.size).sum())
        return new[: max(many, LEAST)]

    def expect(self, steepness):
        """Take in coefficients that are likely to violate the optimality conditions soon.

        The strong rule: along a path, slopes change by no more than the penalty weight.
        """
        squares, xp = self.squares, self.xp
        steep = (abs(squares.g) > steepness * squares.unit) & ~self.inside & (squares.L > 0.0)
        new = xp.flatnonzero(steep)
        if new.size:
            self._add(new)

    def _add(self, new):
        """Take in columns, and their products with all columns in play."""
        xp, m = self.xp, self.size
        self.inside[new] = True
        self.where = xp.concatenate([self.where, new])
        total = self.size
        if total > self.G.shape[0]:
            self.G = _grown(np, self.G[:m, :m], (2 * total, 2 * total))
        cross = self.be.host(self._sparse(new) if self.sparse else self._dense(new))
        self.G[:total, m:total] = cross
        self.G[m:total, :m] = cross[:m].T

    def _dense(self, new):
        squares, total = self.squares, self.size
        design, root, m = squares.problem.design, squares.root, total - new.size
        if total > self.rows.shape[0]:
            self.rows = _grown(self.xp, self.rows[:m], (2 * total, root.size))
        fresh = self.rows[m:total]
        if design.fortran:
            self.xp.multiply(design.X.T[new], root, out=fresh)
        else:
            squares.kernels.gather(design.X, new, root, fresh)
        if squares.problem.fit_intercept:
            fresh -= squares.mean[new][:, None] * root
        return self.rows[:total] @ fresh.T

    def _sparse(self, new):
        squares, design = self.squares, self.squares.problem.design
        X, first = design.X, self.size - new.size
        if self._crowded(new):
            columns = squares.root[:, None] * design.columns(self.where).toarray()
            cross = columns.T @ columns[:, first:]
        else:
            cross = self.xp.empty((self.size, new.size))
            squares.kernels.gram_csc(
                X.indptr, X.indices, X.data, squares.problem.s, self.where, first, cross
            )
        if squares.problem.fit_intercept:
            mean = squares.mean
            cross -= squares.total * mean[self.where][:, None] * mean[new]
        return cross

    def _crowded(self, new):
        """Tell whether sparse columns, those in play and new ones, are better multiplied dense."""
        n = self.squares.root.size
        some, all_ = (self._entries(where) / (n * where.size) for where in (new, self.where))
        return some * all_ > _CROWDED and 8 * n * self.size <= _LARGE

    def _entries(self, where):
        """Return the number of entries of sparse columns."""
        starts = self.squares.problem.design.X.indptr
        return self.be.host((starts[where + 1] - starts[where]).sum(dtype=np.float64))

    def predict(self, x):
        """Return ``sqrt(s) X x``, centred where there is an intercept."""
        squares, w = self.squares, x[self.where]
        if not self.sparse:
            return w @ self.rows[: self.size]
        X, z = squares.problem.design.X, self.xp.empty_like(squares.root)
        squares.kernels.dot_csc(X.indptr, X.indices, X.data, self.where, w, z)
        if squares.problem.fit_intercept:
            z -= squares.mean[self.where] @ w
        return squares.root * z

    def solve(self, tol):
        """Solve the problem in play; return the point (p,) and the number of Newton steps."""
        squares, be, where = self.squares, self.be, self.where
        penalty = penalties.take(squares.penalty, where)
        penalty = type(penalty)(*(np.asarray(be.host(f), np.float64) for f in penalty))
        g = squares.g[where] if self.sparse else -(self.rows[: self.size] @ squares.r)
        w, g, unit = (
            np.array(be.host(v), np.float64) for v in (squares.x[where], g, squares.unit[where])
        )
        goal = tol * squares.scale
        if squares.has_gap:
            # Until a round has moved them, coefficients are as large as the objective allows.
            size = float(abs(w) @ unit) or squares.scale / max(squares.top, 1e-300)
            goal /= max(size, 1e-300)
        # More accuracy than the outside has is lost, but where it is cheap it may save a round.
        nonzero = np.count_nonzero(w)
        dear = steps_are_dear(nonzero, nonzero * self.size, squares.problem.design)
        goal = max(0.1 * self.outside, 0.3 * goal) if dear else 0.3 * goal
        goal = min(goal, 0.1 * squares.worst)
        self.factor.G = self.G
        # Threads gain nothing in small factorisations, and wait for each other.
        with threads.serial_blas() if self.size < _SMALL else nullcontext():
            _, newton = l1qp(self.G, g, w, penalty, tol=goal, unit=unit, factor=self.factor)
        x = squares.x.copy()
        x[where] = self.xp.asarray(w, x.dtype)
        return x, newton


def _grown(xp, old, shape):
    """Return a larger array that begins with an old one."""
    new = xp.empty(shape, old.dtype)
    rows, columns = old.shape
    new[:rows, :columns] = old
    return new
