"""Where a block method stands: unknowns, predictions or gradient, and what a step would change.

`GLMState` and `QuadraticState` offer the same things. Coefficient k of feature j of a multinomial
problem is unknown ``j C + k``. `npass` counts passes over the data.
"""

import numpy as np

from .. import losses

# Increments are replaced by fresh numbers after so many updates, or more often if they drift.
_REFRESH = 500
_DRIFT = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-10}
# Bytes of Gram columns that are kept to move the gradient without a pass.
_GRAM_BYTES = 1 << 28


class GLMState:
    """A point of a `GLM`: coefficients `x` (N,), intercept `c`, predictions `z`.

    Parameters
    ----------
    problem : GLM
    x, c : array
        The point.
    greedy : bool
        Whether the whole gradient is asked for before each step. With a quadratic loss it then
        moves along with the coefficients, by columns of the Gram matrix.
    """

    def __init__(self, problem, x, c, *, greedy=False):
        self.problem, self.penalty = problem, problem.bound
        self.x, self.c, self.npass = x.copy(), c.copy(), 0.0
        self.lipschitz = problem.lipschitz
        self._kernels = problem.be.kernels("solvers.bcd", "sweeps")
        self._squared = isinstance(problem.loss, losses.Squared)
        self._gram = _GramColumns(self) if greedy and self._squared else None
        self._gathered, self._refresher = (None, None), _Refresher(problem.dtype)
        self._compute()

    def refresh(self):
        """Compute predictions anew; increments drift."""
        before = self.z
        self._compute()
        self._refresher.measure(self.problem.be, before, self.z)

    def objective(self):
        """Return the objective, without a pass over the data."""
        return float(self.problem.loss_sum(self.z) + self.problem.penalty_sum(self.x))

    def gradient(self):
        """Return the gradient of the smooth part (N,): a pass unless it is known."""
        if self._g is None:
            self._g = self.problem.design.rdot(self._r).reshape(-1)
            self.npass += 1.0
        return self._g

    def partial(self, block):
        """Return the gradient of a block."""
        if self._g is not None:
            return self._g[block]
        C = self.problem.n_classes
        X = self.columns(block)
        self.npass += block.size / self.problem.size
        if C == 1:
            return X.T @ self._r
        return (X.T @ self._r)[self.problem.xp.arange(block.size), block % C]

    def hessian(self, block):
        """Return the second derivatives of the smooth part in a block, float64."""
        problem = self.problem
        if self._squared:
            return self.bound(block)
        X, C = self.columns(block), problem.n_classes
        if C == 1:
            return _weighted_gram(X, problem.curvatures(self.z), problem.design.sparse)
        xp, k = problem.xp, block % C
        q = problem.slopes(self.z).astype(np.float64)
        q[xp.arange(problem.y.size), problem.y] += problem.s
        q = (q / problem.s[:, None])[:, k]
        X = (X.toarray() if problem.design.sparse else X).astype(np.float64)
        same = (k[:, None] == k[None, :]).astype(np.float64)
        D = problem.s[:, None] * X * q
        return same * (D.T @ X) - D.T @ (X * q)

    def bound(self, block):
        """Return a matrix that is never below `hessian`, wherever the point is, float64."""
        problem, C = self.problem, self.problem.n_classes
        if self._gram is not None and (rows := self._gram.rows(block)) is not None:
            return rows[:, block].astype(np.float64)
        gram = _weighted_gram(self.columns(block), problem.s, problem.design.sparse)
        if C == 1:
            if problem.fit_intercept and self._squared:
                mean = problem.moments[1][block]
                gram = gram - mean[:, None] * mean / problem.s.sum(dtype=np.float64)
            return losses.CURVATURE[type(problem.loss)] * gram
        k = block % C
        same = (k[:, None] == k[None, :]).astype(np.float64)
        # Classes outside of the block act like one more.
        present = min(C, problem.xp.unique(k).size + 1)
        return 0.5 * (same - 1.0 / present) * gram

    def third(self, block):
        """Return a bound of the third derivatives along any direction of a block."""
        problem, xp, C = self.problem, self.problem.xp, self.problem.n_classes
        features, k = xp.unique(block // C), block % C
        X = problem.design.columns(features)
        square = X.multiply(X) if problem.design.sparse else X * X
        norms = xp.asarray(square.sum(axis=1)).reshape(-1).astype(np.float64) ** 1.5
        most = losses.THIRD[losses.Logistic]
        if C > 1 and xp.unique(k).size > 1:
            most *= 2.0 * 2.0**0.5
        elif C == 1:
            most = losses.THIRD[type(problem.loss)]
        return float(problem.be.host(most * (problem.s @ norms)))

    def line(self, block, d):
        """Return the step d of a block, whose effects are computed once; see `Line`."""
        problem, C = self.problem, self.problem.n_classes
        X = self.columns(block)
        self.npass += block.size / problem.size
        d = d.astype(problem.dtype)
        if C == 1:
            dz = X @ d
        else:
            D = problem.xp.zeros((block.size, C), problem.dtype)
            D[problem.xp.arange(block.size), block % C] = d
            dz = X @ D
        if problem.fit_intercept and self._squared:
            # The intercept follows at once, lest it slow everything down.
            dc = -(problem.s @ dz) / problem.s.sum()
            return Line(self, block, d, dz + dc, dc)
        return Line(self, block, d, dz, 0.0)

    def move(self, line, t=1.0):
        """Take the step ``t d`` of a `line`."""
        _step(self, line.block, t * line.d)
        self.z = self.z + t * line.dz
        self.c = self.c + t * line.dc
        if self._g is not None:
            self._g = self._gram and self._gram.moved(self._g, line.block, t * line.d)
        self._renew()
        if self._refresher.due():
            self.refresh()

    def known_rows(self):
        """Return rows of the Hessian of a quadratic loss, and where each unknown's is, or -1."""
        return self._gram.kept, self._gram.slot

    def learn_rows(self, block):
        """Make room for the rows of a block in `known_rows`."""
        self._gram.rows(block)

    def follow(self, before, g):
        """Catch up with coefficients that were moved from outside, whose gradient is g."""
        xp = self.problem.xp
        moved, after = xp.flatnonzero(self.x != before), self.x
        self.x = before
        line = self.line(moved, after[moved] - before[moved])
        self.x, self.z, self.c = after, self.z + line.dz, self.c + line.dc
        self._renew()
        self._g = g

    def columns(self, block):
        """Return the columns of X that belong to the unknowns of a block, (n, tau)."""
        known, X = self._gathered
        if known is not block:
            X = self.problem.design.columns(block // self.problem.n_classes)
            self._gathered = block, X
        return X

    def _compute(self):
        self.z = self.problem.predict(self.x, self.c)
        self.npass += 1.0
        self._g = None
        self._renew()

    def _renew(self):
        """Renew the slopes of the predictions, at the best intercept if there is one."""
        self._r = self.problem.slopes(self.z)
        if self.problem.fit_intercept:
            from ._intercept import fit_intercept

            shift = fit_intercept(self.problem, self.z, self._r)
            if shift is not None:
                self.z, self.c = self.z + shift, self.c + shift
                self._r = self.problem.slopes(self.z)
                self._g = self._g if self._squared else None


class Line:
    """A step d of a block, with the change of predictions that it makes."""

    def __init__(self, state, block, d, dz, dc):
        self.state, self.block, self.d, self.dz, self.dc = state, block, d, dz, dc

    def change(self, t=1.0):
        """Return how much ``t d`` changes the smooth part."""
        state, problem = self.state, self.state.problem
        if problem.multinomial:
            change, first = state._kernels.softmax_change, ()
        else:
            change, first = state._kernels.loss_change, (losses.bind(problem.loss),)
        return float(change(*first, problem.y, state.z, self.dz, float(t), problem.s))

    def rounding(self):
        """Return what rounding may add to `change` and take from the slope along the step."""
        size = self.state.problem.be.host((abs(self.state._r) * abs(self.dz)).sum())
        return 8.0 * float(np.finfo(self.dz.dtype).eps * size)


class QuadraticState:
    """A point `x` of a `Quadratic` with its gradient; parameters as of `GLMState`."""

    def __init__(self, problem, x, c, *, greedy=False):
        self.problem, self.penalty = problem, problem.bound
        self.x, self.c, self.npass = x.copy(), c.copy(), 0.0
        self.lipschitz = problem.lipschitz
        self._kernels = problem.be.kernels("solvers.bcd", "sweeps")
        self._known, self._refresher = (None, None), _Refresher(problem.dtype)
        self._g = None
        self.refresh()

    def refresh(self):
        """Compute the gradient anew; increments drift."""
        before, self._g = self._g, self.problem.gradient(self.x)
        self.npass += 1.0
        if before is not None:
            self._refresher.measure(self.problem.be, before, self._g)

    def objective(self):
        """Return the objective, without a pass over the data."""
        smooth = 0.5 * (self.x @ (self._g - self.problem.b))
        return float(self.problem.be.host(smooth) + self.problem.penalty_sum(self.x))

    def gradient(self):
        """Return the gradient of the smooth part (N,)."""
        return self._g

    def partial(self, block):
        """Return the gradient of a block."""
        return self._g[block]

    def hessian(self, block):
        """Return A of a block, float64."""
        known, H = self._known
        if known is not block:
            H = self.problem.A[block][:, block]
            H = (H.toarray() if self.problem.sparse else H).astype(np.float64)
            self._known = block, H
        return H

    bound = hessian

    def third(self, block):
        """Return a bound of the third derivatives along any direction of a block."""
        return 0.0

    def known_rows(self):
        """Return rows of A, and where each unknown's is."""
        A = self.problem.A
        return A if A.flags.c_contiguous else A.T, self.problem.xp.arange(self.x.size)

    def follow(self, before, g):
        """Catch up with unknowns that were moved from outside, whose gradient is g."""
        self._g = g

    def line(self, block, d):
        """Return the step d of a block; see `Line`."""
        return QuadraticLine(self, block, d.astype(self.problem.dtype))

    def move(self, line, t=1.0):
        """Take the step ``t d`` of a `line`."""
        A, d = self.problem.A, (t * line.d).astype(self.problem.dtype)
        _step(self, line.block, d)
        if self.problem.sparse:
            self._kernels.add_rows(A.indptr, A.indices, A.data, line.block, d, self._g)
        else:
            self._g += d @ A[line.block]
        self.npass += line.block.size / self.problem.size
        if self._refresher.due():
            self.refresh()


class QuadraticLine:
    """A step d of a block."""

    def __init__(self, state, block, d):
        self.state, self.block, self.d = state, block, d

    def change(self, t=1.0):
        """Return how much ``t d`` changes the smooth part."""
        d = self.d.astype(np.float64)
        slope, Hd = d @ self.state._g[self.block], self._product(d)
        slope, bend = self.state.problem.be.host(slope, d @ Hd)
        return float(t * slope + 0.5 * t * t * bend)

    def rounding(self):
        """Return what rounding may add to `change` and take from the slope along the step."""
        g = self.state._g[self.block]
        size = self.state.problem.be.host((abs(g) * abs(self.d)).sum())
        return 8.0 * float(np.finfo(g.dtype).eps * size)

    def _product(self, d):
        """Return ``A_bb d``; a large sparse block is not made dense for it."""
        state = self.state
        if state.problem.sparse and self.block.size > 1000:
            full = state.problem.xp.zeros(state.x.size)
            full[self.block] = d
            return (state.problem.A[self.block]) @ full
        return state.hessian(self.block) @ d


class _Refresher:
    """Says when increments are due to be replaced: sooner where they were found to drift."""

    def __init__(self, dtype):
        self._limit, self._period, self._count = _DRIFT[np.dtype(dtype)], _REFRESH, 0

    def due(self):
        self._count += 1
        return self._count >= self._period

    def measure(self, be, before, after):
        self._count = 0
        gap, size = be.host(abs(before - after).max(), abs(after).max())
        if gap > self._limit * size:
            self._period = max(self._period // 2, 10)


class _GramColumns:
    """Columns of the Hessian of a quadratic loss, kept once their coefficients have moved.

    Attributes
    ----------
    kept : array, shape (m, p)
        Columns, as rows; perhaps with room for more.
    slot : array of int64, shape (p,)
        Where the column of each coefficient is; -1: nowhere.
    """

    def __init__(self, state):
        problem, p = state.problem, state.problem.size
        self._state, self._xp = state, problem.xp
        self._most = min(p, _GRAM_BYTES // (p * problem.dtype.itemsize))
        self.kept, self._count = problem.xp.empty((0, p), problem.dtype), 0
        self.slot = problem.xp.full(p, -1)

    def rows(self, block):
        """Return the rows of a block (tau, p), or None where there is no room for them."""
        new = block[self.slot[block] < 0]
        if new.size:
            if self._count + new.size > self._most:
                return None
            self._grow(new)
        return self.kept[self.slot[block]]

    def moved(self, g, block, d):
        """Return the gradient after a step, or None where there is no room for the columns."""
        rows = self.rows(block)
        return None if rows is None else g + d @ rows

    def _grow(self, new):
        xp, problem = self._xp, self._state.problem
        need = self._count + new.size
        if need > self.kept.shape[0]:
            more = xp.empty((min(self._most, max(2 * need, 16)), problem.size), problem.dtype)
            more[: self._count] = self.kept[: self._count]
            self.kept = more
        X = problem.design.columns(new)
        # A compressed matrix is faster times a dense one than times another compressed one.
        X = X.toarray() if problem.design.sparse else X
        H = problem.design.rdot(problem.s[:, None] * X).T
        if problem.fit_intercept:
            mean = problem.moments[1]
            H = H - mean[new][:, None] * mean / problem.s.sum(dtype=np.float64)
        self.kept[self._count : need] = H
        self.slot[new] = xp.arange(self._count, need)
        self._count = need
        self._state.npass += new.size


def fits_gram(problem):
    """Tell whether all columns of the Hessian of a quadratic loss can be kept."""
    return problem.size**2 * problem.dtype.itemsize <= _GRAM_BYTES


def open_state(problem, x, c, *, greedy=False):
    """Return the state of a point of either problem."""
    return (QuadraticState if problem.quadratic else GLMState)(problem, x, c, greedy=greedy)


def _step(state, block, d):
    """Move unknowns; rounding must not carry them over a bound."""
    x = state.x[block] + d.astype(state.x.dtype)
    if state.penalty is not None and "lo" in state.penalty._fields:
        x = state.problem.xp.clip(x, state.penalty.lo[block], state.penalty.hi[block])
    state.x[block] = x


def _weighted_gram(X, s, sparse):
    """Return ``X^T diag(s) X``, float64."""
    if sparse:
        return (X.T @ X.multiply(s[:, None]).tocsc()).toarray().astype(np.float64)
    X = X.astype(np.float64, copy=False)
    return X.T @ (s[:, None] * X)
