"""Losses of one prediction and any penalty of single coefficients: proximal Newton steps.

Rounds of: gradient and duality gap, a working set of the best coefficients by the GS-q rule, and
the problem restricted to it, solved by Newton steps. Each is a small quadratic with the penalty,
solved by `l1qp`, and a line search on the predictions.
"""

import math

import numpy as np

from .. import losses, penalties
from .._core.backend import get_backend
from .._core.result import Status
from ._glm_point import Point
from ._l1qp import Factor, l1qp
from ._rounds import first_number, steps_are_dear, work_in_rounds
from ._small_qp import face_step, has_slopes, penalised_qp

# Coefficients whose gradient is this share of one that moves them may come in early.
_CLOSE = 0.7
# Newton steps on one working set before the next look at all coefficients.
_STEPS = 20
# A second derivative serves on while a weighted mean of the curvatures has changed by less.
_STALE = 0.1
# Coefficients whose gradient is within this share of moving them take part in a Newton step.
_NEAR = 1.02
# The density from which sparse columns are multiplied as dense ones, unless that takes so many
# bytes.
_DENSE, _LARGE = 0.1, 1e9
# The share of the violation outside, and of a penalty weight, that is enough for a round.
_SHARE = 0.3
# The fall of the violation that is enough for a round where steps cost more than a round.
_FALL = 0.01
# What rounding may hide of a change, in units of it.
_HIDDEN = 16.0


def solve_losses(problem, watch, options):
    """Solve a `GLM` with one prediction per sample and a separable penalty; see `_engines`."""
    x, c = options.x0 or problem.zeros()
    point = Point(problem)
    report = point.open(x, c)
    watch.npass += 2.0
    return work_in_rounds(point, _NewtonSet(point), report, watch)


class _NewtonSet:
    """The coefficients in play, and Newton steps on them.

    `c`, `z`, `r` are intercept, predictions and slopes there.
    """

    def __init__(self, point):
        self.point, self.be, self.xp = point, point.be, point.xp
        p = point.problem.design.shape[1]
        self.first = first_number(p)
        self.where = self.xp.zeros(0, np.int64)
        self.inside = self.xp.zeros(p, bool)
        self.columns, self.outside, self.settled = None, 0.0, False
        self.model, self.damping = None, 0.0

    @property
    def size(self):
        """Number of coefficients."""
        return self.where.size

    def grow(self):
        """Take in the coefficients that promise most, by the GS-q rule."""
        point, xp = self.point, self.xp
        scores = xp.where(self.inside, 0.0, self._scores(point.g))
        away = (point.x != point.start) & ~self.inside & (point.L > 0.0)
        scores = xp.where(away, np.inf, scores)
        found, kept, nonzero = self.be.host(
            (scores > 0.0).sum(), away.sum(), (point.x != 0.0).sum()
        )
        count = min(found, max(self.first, nonzero, kept))
        self.settled = not count
        if count:
            self._add(_largest(xp, scores, count))
        if 0 < count < self.first:
            # Steps of these move others that are near: as many of them may save a round.
            scores = xp.where(self.inside, 0.0, self._scores(point.g / _CLOSE))
            count = min(count, self.be.host((scores > 0.0).sum()))
            if count:
                self._add(_largest(xp, scores, count))
        self.outside = self.be.host(xp.where(self.inside, 0.0, point.violation).max())

    def _scores(self, g):
        point, xp = self.point, self.xp
        if not math.isfinite(point.M):
            return point.violation
        scores = xp.empty_like(g)
        point.problem.kernels.prox_scores(point.penalty, point.x, g, point.L, scores)
        # Rounding may hide what a small violation is worth.
        return xp.maximum(scores, 1e-30 * point.violation)

    def _add(self, new):
        xp, design = self.xp, self.point.problem.design
        self.inside[new] = True
        self.where = xp.concatenate([self.where, new])
        if design.sparse:
            self.columns, self._by_row = design.columns(self.where), None
            return
        fresh = design.X.T[new]
        old = self.columns
        self.columns = fresh if old is None else xp.concatenate([old, fresh])

    def solve(self, tol):
        """Solve the problem in play; return the point (p,) and the number of Newton steps."""
        point, be, where = self.point, self.be, self.where
        self.penalty = self._on_host(penalties.take(point.penalty, where))
        w, g, unit, L = (
            np.array(be.host(v[where]), np.float64)
            for v in (point.x, point.g, point.unit, point.L)
        )
        self.w, self.unit, self.L = w, unit, L
        # How large features are: the derivative by the intercept, which goes with ones, counts as
        # much as one by a coefficient of theirs.
        size = math.sqrt(L.max(initial=0.0) / point.M)
        self.span = size if 0.0 < size < math.inf else 1.0
        self.bounded, self.free = self._kinds()
        self.c, self.z, self.r = point.c, point.z, point.r
        self.passes = 0.0
        share = self.size / max(point.problem.size, 1)
        newton = 0
        for step in range(_STEPS):
            if step:
                g = self._gradient()
            violation = self._violation(g)
            worst = max(violation.max(initial=0.0), self.span * abs(self._balance()))
            if not step:
                goal = self._goal(tol, worst)
            if worst <= goal:
                break
            self.passes += 3.0 * share
            newton += 1
            if not self._step(g, worst, goal) or self.dead_end(0):
                break
        x = point.x.copy()
        x[where] = self.xp.asarray(self.w, x.dtype)
        return x, newton

    def _kinds(self):
        """Tell whether there are bounds, and which coefficients have neither those nor a price."""
        if not self.point.elastic:
            return False, np.zeros(self.size, bool)
        alpha, ridge, lo, hi = self.penalty
        inside = (lo > -np.inf) | (hi < np.inf)
        return inside.any(), (alpha == 0.0) & (ridge == 0.0) & ~inside

    def dead_end(self, idle):
        """Return the end where larger coefficients are better for ever, else None."""
        problem = self.point.problem
        if not isinstance(problem.loss, losses.Logistic) or (~self.free & (self.w != 0.0)).any():
            return None
        if not self.be.host((problem.y * self.z).min()) > 0.0:
            return None
        return Status.UNBOUNDED, "The classes can be separated: there is no minimiser."

    def _goal(self, tol, worst):
        """Return the violation on the working set that is small enough for now."""
        point = self.point
        goal, enough = 0.3 * tol * point.scale, _SHARE * self.outside
        if point.has_gap:
            # A violation v costs v / alpha of the objective.
            alpha = float(self.penalty.alpha.max())
            goal *= (alpha or 1.0) / point.scale
            enough = min(enough, _SHARE * alpha or math.inf)
        # Where steps cost as much as a look at all coefficients, there is no need to finish with
        # those in play before it is known that they are the right ones.
        design, columns = point.problem.design, self.columns
        entries = columns.nnz if self._sparse else columns.size
        if not self.settled and steps_are_dear(np.count_nonzero(self.w), entries, design):
            enough = max(enough, _FALL * worst)
        return max(enough, goal)

    def _on_host(self, penalty):
        return type(penalty)(*(np.asarray(self.be.host(f), np.float64) for f in penalty))

    def _balance(self):
        """Return the derivative by the intercept."""
        if not self.point.problem.fit_intercept:
            return 0.0
        return float(self.be.host(self.r.sum(dtype=np.float64)))

    def _gradient(self):
        g = self.columns.T @ self.r if self._sparse else self.columns @ self.r
        return np.array(self.be.host(g), np.float64)

    @property
    def _sparse(self):
        return self.point.problem.design.sparse

    def _violation(self, g):
        kernels = get_backend("numpy").kernels("solvers.bcd")
        out = np.empty_like(g)
        kernels.distances(self.penalty, self.w, g, out)
        if not self.point.elastic:
            steps = np.empty_like(g)
            kernels.prox_steps(self.penalty, self.w, g, self.L, steps)
            out = np.maximum(out, self.L * abs(steps))
        return out / self.unit

    def _step(self, g, worst, goal):
        """Make a step on the coefficients that may move; tell whether it led anywhere."""
        point = self.point
        if not point.elastic:
            return self._majorised_step(g, worst, goal)
        model = self._model_of(self._movable(g), self._curvatures(), worst, goal)
        S, balance = model.S, self._balance()
        v, q = self.w[S].copy(), g[S] - model.pull(balance)
        alpha = float(self.penalty.alpha.max())
        # Far from the optimum a rough step is as good; near it, errors must shrink like squares.
        tol = 0.05 * worst * (min(1.0, worst / alpha) if alpha else 1.0)
        penalty = penalties.take(self.penalty, S)
        l1qp(
            model.H,
            q,
            v,
            penalty,
            tol=max(tol, 0.1 * goal),
            unit=self.unit[S],
            factor=model.factor,
        )
        d = v - self.w[S]
        dc = model.intercept(d, balance)
        return self._search(S, d, dc, g[S] @ d + balance * dc + self._growth(S, d))

    def _majorised_step(self, g, worst, goal):
        """Minimise an upper bound, then make a Newton step on the coefficients that are not zero.

        Second derivatives that are never too small keep the problem in each coefficient convex.
        """
        point = self.point
        S, balance = np.flatnonzero(self.L > 0.0), self._balance()
        model = self._model_of(S, point.M * point.problem.s, worst, goal)
        S = model.S
        v, q = self.w[S].copy(), g[S] - model.pull(balance)
        exact = isinstance(point.problem.loss, losses.Squared)
        tol = 0.5 * goal if exact else max(0.1 * worst, 0.5 * goal)
        penalised_qp(model.H, q, v, penalties.take(self.penalty, S), tol=tol, unit=self.unit[S])
        d = v - self.w[S]
        # An upper bound that falls needs no search.
        moved = self._search(S, d, model.intercept(d, balance), 0.0)
        if exact or not moved or not has_slopes(self.penalty):
            return moved
        return self._face_step() or moved

    def _face_step(self):
        F = np.flatnonzero(self.w)
        model = _Model(self, F, self._curvatures())
        g, balance = self._gradient(), self._balance()
        step = face_step(
            model.H, g[F] - model.pull(balance), self.w[F], penalties.take(self.penalty, F)
        )
        if step is None:
            return False
        d = step[1]
        dc = model.intercept(d, balance)
        return self._search(F, d, dc, min(g[F] @ d + balance * dc + self._growth(F, d), -1e-300))

    def _growth(self, S, d):
        """Return by how much the penalty grows."""
        penalty_sum = get_backend("numpy").kernels("solvers.bcd").penalty_sum
        penalty = penalties.take(self.penalty, S)
        return penalty_sum(penalty, self._moved(S, d)) - penalty_sum(penalty, self.w[S])

    def _moved(self, S, d):
        w = self.w[S] + d
        if not self.bounded:
            return w
        # Rounding must not lead out of the bounds.
        return np.clip(w, self.penalty.lo[S], self.penalty.hi[S])

    def _movable(self, g):
        """Return which coefficients of the working set are not zero or may leave it soon."""
        L = self.L if math.isfinite(self.point.M) else np.ones_like(self.L)
        steps = np.empty_like(g)
        kernels = get_backend("numpy").kernels("solvers.bcd")
        kernels.prox_steps(self.penalty, self.w, _NEAR * g, L, steps)
        return np.flatnonzero((self.L > 0.0) & ((self.w != 0.0) | (steps != 0.0)))

    def _model_of(self, S, D, worst, goal):
        """Return second derivatives for S at least, older ones if they serve."""
        if self.model is not None and self.model.serves(D, worst, goal):
            self.model.extend(S)
        else:
            self.model = _Model(self, S, D)
        return self.model

    def _curvatures(self):
        problem = self.point.problem
        D, bound = problem.curvatures(self.z), self.point.M
        if not math.isfinite(bound):
            bound = max(float(self.be.host((D / problem.s).max())), 1.0)
        # A share of the bound keeps directions without curvature from being endless.
        floor = max(self.damping, 1e-12)
        if self.damping == 0.0 and not self.be.host(D.any()):
            floor = 1e-3
        return D + (floor * bound) * problem.s

    def _search(self, S, d, dc, promised):
        """Move by a part of (d, dc) that makes the objective fall as promised, but for a part."""
        problem, loss = self.point.problem, losses.bind(self.point.problem.loss)
        dz = self._predict(S, d) + self.xp.asarray(dc, self.z.dtype)
        hidden = _HIDDEN * np.finfo(self.z.dtype).eps * self.point.scale_of_values
        t = 1.0
        for _ in range(40):
            change = float(problem.kernels.loss_change(loss, problem.y, self.z, dz, t, problem.s))
            change += self._growth(S, t * d)
            # Below the rounding of the sums nothing can be said against a Newton step.
            if change <= 1e-4 * t * promised or (t == 1.0 and abs(promised) <= hidden):
                break
            t *= 0.5
        else:
            return self._damp(0.0)
        self.w[S] = self._moved(S, t * d)
        self.c = self.c + t * dc
        self.z = self.z + t * dz
        self.r = problem.slopes(self.z)
        return self._damp(t)

    def _damp(self, t):
        """Trust second derivatives less after a short step; tell whether to go on."""
        if t < 0.25:
            if self.damping >= 1.0:
                return t > 0.0
            self.damping, self.model = min(max(10.0 * self.damping, 1e-2), 1.0), None
        elif t == 1.0 and self.damping:
            self.damping = 0.1 * self.damping if self.damping > 1e-3 else 0.0
        return True

    def _predict(self, S, d):
        d = self.xp.asarray(d, self.z.dtype)
        S = self.xp.asarray(S)
        if not self._sparse and 2 * S.size < self.size:
            return d @ self.columns[S]
        # Some products with zero are cheaper than a copy of the other columns.
        full = self.xp.zeros(self.size, self.z.dtype)
        full[S] = d
        return self.columns @ full if self._sparse else full @ self.columns

    def gram(self, S, first, D, H):
        """Set rows and columns of ``H = X_S^T diag(D) X_S`` from `first` on, on the host."""
        xp, be = self.xp, self.be
        if self._sparse and be.name == "numpy" and self._thin(S):
            place = np.full(self.size, -1)
            place[S] = np.arange(S.size)
            H[:, first:] = 0.0
            kernels = be.kernels("solvers.bcd", "newton")
            kernels.weighted_gram(*self._rows(), D, place, first, H)
            return
        A, root = xp.asarray(S), xp.sqrt(D)
        columns = self.columns[:, A].toarray().T if self._sparse else self.columns[A]
        left = columns * root
        # NumPy sees that a matrix meets its own transpose, and halves the work.
        H[:, first:] = be.host(left @ (left[first:] if first else left).T)
        H[first:] = H[:, first:].T

    def _thin(self, S):
        """Tell whether columns are better multiplied entry by entry."""
        n, _ = self.columns.shape
        entries = np.diff(self.columns.indptr)[S].sum()
        return entries < _DENSE * n * S.size or 8 * n * S.size > _LARGE

    def _rows(self):
        """Return the columns in play by rows."""
        if self._by_row is None:
            rows = self.columns.tocsr()
            self._by_row = rows.indptr, rows.indices, rows.data
        return self._by_row

    def mixed(self, S, D):
        """Return ``X_S^T D``, on the host."""
        S = self.xp.asarray(S)
        h = self.columns[:, S].T @ D if self._sparse else self.columns[S] @ D
        return np.asarray(self.be.host(h), np.float64)


def _largest(xp, scores, count):
    """Return the places of the largest scores, ascending."""
    return xp.sort(xp.argpartition(-scores, min(count, scores.size - 1))[:count])


class _Model:
    """Second derivatives on some coefficients, with the intercept eliminated.

    Attributes
    ----------
    S : numpy.ndarray of int
        The coefficients, by their place in the working set.
    H : numpy.ndarray
        Their second derivatives.
    factor : Factor
    """

    def __init__(self, work, S, D):
        self.work, self.S, self.D = work, S, D
        self.before = math.inf
        self.fit_intercept = work.point.problem.fit_intercept
        self.total = float(work.be.host(D.sum(dtype=np.float64)))
        H = np.empty((S.size, S.size))
        work.gram(S, 0, D, H)
        self._take(H, S)

    def serves(self, D, worst, goal):
        """Tell whether it is near enough to second derivatives with curvatures D."""
        off = float(self.work.be.host(abs(D - self.D).sum(dtype=np.float64))) / self.total
        before, self.before = self.before, worst
        if off == 0.0:
            return True
        # A step with errors of this share leaves that share of the violation, unless they fall on
        # directions with little curvature. Second derivatives cost as much as some steps, the
        # more the larger they are.
        steps = math.log(max(worst / goal, 1.0)) / -math.log(off) if off < _STALE else math.inf
        return worst <= 0.3 * before and steps <= 1.0 + self.S.size / 30

    def extend(self, S):
        """Take in the coefficients of S that are not there."""
        missing = np.zeros(self.work.size, bool)
        missing[S] = True
        missing[self.S] = False
        new = np.flatnonzero(missing)
        if not new.size:
            return
        m, S = self.S.size, np.concatenate([self.S, new])
        H = np.empty((S.size, S.size))
        H[:m, :m] = self.full
        self.work.gram(S, m, self.D, H)
        self.S = S
        self._take(H, S)

    def _take(self, H, S):
        self.full = H
        if self.fit_intercept:
            self.mixed = self.work.mixed(S, self.D)
            H = H - np.outer(self.mixed, self.mixed) / self.total
        self.H, self.factor = H, Factor(H)

    def pull(self, balance):
        """Return what the best intercept takes off the gradient on S."""
        return self.mixed * (balance / self.total) if self.fit_intercept else 0.0

    def intercept(self, d, balance):
        """Return the intercept's part of a step."""
        return -(balance + self.mixed @ d) / self.total if self.fit_intercept else 0.0
