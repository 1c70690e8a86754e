"""Where a block method stands: unknowns, predictions or gradient, and what a step would change.

`GLMState` and `QuadraticState` offer the same things. Coefficient k of feature j of a multinomial
problem is unknown ``j C + k``. `number` counts passes over the data.
"""

import numpy as np

from .. import losses


class GLMState:
    """A point of a `GLM`: coefficients `x` (N,), intercept `c`, predictions `z`."""

    def __init__(self, problem, x, c):
        self.problem, self.penalty = problem, problem.bound
        self.x, self.c, self.npass = x.copy(), c.copy(), 0.0
        self.lipschitz = problem.lipschitz
        self.refresh()

    def refresh(self):
        """Compute predictions and gradient anew; increments drift."""
        self.z = self.problem.predict(self.x, self.c)
        self.npass += 1.0
        self._fit_intercept()

    def objective(self):
        """Return the objective, without a pass over the data."""
        return float(self.problem.loss_sum(self.z) + self.problem.penalty_sum(self.x))

    def gradient(self):
        """Return the gradient of the smooth part (N,): a pass unless nothing has moved."""
        if self._g is None:
            self._g = self.problem.design.rdot(self._r).reshape(-1)
            self.npass += 1.0
        return self._g

    def partial(self, block):
        """Return the gradient of a block."""
        if self._g is not None:
            return self._g[block]
        C = self.problem.n_classes
        X = self._columns(block // C)
        if C == 1:
            return X.T @ self._r
        return (X.T @ self._r)[self.problem.xp.arange(block.size), block % C]

    def hessian(self, block):
        """Return the second derivatives of the smooth part in a block, float64."""
        problem, C = self.problem, self.problem.n_classes
        X = self._columns(block // C)
        if C == 1:
            return _weighted_gram(X, problem.curvatures(self.z), problem.design.sparse)
        xp, k = problem.xp, block % C
        q = problem.slopes(self.z)
        q[xp.arange(problem.y.size), problem.y] += problem.s
        q = (q / problem.s[:, None])[:, k]
        X = X.toarray() if problem.design.sparse else X
        same = (k[:, None] == k[None, :]).astype(np.float64)
        D = problem.s[:, None] * X * q
        return same * (D.T @ X) - D.T @ (X * q)

    def bound(self, block):
        """Return a matrix that is never below `hessian`, wherever the point is."""
        problem, C = self.problem, self.problem.n_classes
        gram = _weighted_gram(self._columns(block // C), problem.s, problem.design.sparse)
        if C == 1:
            if problem.fit_intercept and isinstance(problem.loss, losses.Squared):
                mean = problem.moments[1][block]
                gram = gram - mean[:, None] * mean / problem.s.sum(dtype=np.float64)
            return losses.CURVATURE[type(problem.loss)] * gram
        k = block % C
        same = (k[:, None] == k[None, :]).astype(np.float64)
        return 0.5 * (same - 1.0 / C) * gram

    def line(self, block, d):
        """Return the step d of a block, whose effects are computed once; see `Line`."""
        problem, C = self.problem, self.problem.n_classes
        X = self._columns(block // C)
        if C == 1:
            dz = X @ d.astype(problem.dtype)
        else:
            D = problem.xp.zeros((block.size, C), problem.dtype)
            D[problem.xp.arange(block.size), block % C] = d
            dz = X @ D
        if problem.fit_intercept and isinstance(problem.loss, losses.Squared):
            # The intercept follows at once, lest it slow everything down.
            dc = -(problem.s @ dz) / problem.s.sum()
            return Line(self, block, d, dz + dc, dc)
        return Line(self, block, d, dz, 0.0)

    def move(self, line, t=1.0):
        """Take the step ``t d`` of a `line`."""
        self.x[line.block] += (t * line.d).astype(self.x.dtype)
        self.z = self.z + t * line.dz
        self.c = self.c + t * line.dc
        self._fit_intercept()

    def _columns(self, features):
        return self.problem.design.columns(features)

    def _fit_intercept(self):
        """Minimise over the intercept, where there is one, and renew the slopes."""
        problem = self.problem
        self._g, self._r = None, problem.slopes(self.z)
        if not problem.fit_intercept:
            return
        for _ in range(50):
            g = self._r.sum(axis=0)
            step = -g / (losses.CURVATURE[type(problem.loss)] * (2 if problem.multinomial else 1))
            h = problem.curvatures(self.z).sum(axis=0)
            newton = -g / problem.xp.maximum(h, 1e-12 * problem.s.sum())
            step = problem.xp.where(abs(newton) < 1.0, newton, step)
            if not problem.be.host((abs(g) > 1e-14 * abs(self._r).sum(axis=0)).any()):
                return
            self.z, self.c = self.z + step, self.c + step
            self._r = problem.slopes(self.z)


class Line:
    """A step d of a block, with the change of predictions that it makes."""

    def __init__(self, state, block, d, dz, dc):
        self.state, self.block, self.d, self.dz, self.dc = state, block, d, dz, dc

    def change(self, t=1.0):
        """Return how much ``t d`` changes the smooth part."""
        problem, z = self.state.problem, self.state.z
        return float(problem.loss_sum(z + t * self.dz) - problem.loss_sum(z))


class QuadraticState:
    """A point `x` of a `Quadratic` with its gradient."""

    c = 0.0

    def __init__(self, problem, x, c=None):
        self.problem, self.penalty = problem, problem.bound
        self.x, self.npass = x.copy(), 0.0
        self.lipschitz = problem.lipschitz
        self.refresh()

    def refresh(self):
        """Compute the gradient anew; increments drift."""
        self._g = self.problem.gradient(self.x)
        self.npass += 1.0

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
        """Return A of a block."""
        A = self.problem.A[block][:, block]
        return A.toarray() if self.problem.sparse else A

    bound = hessian

    def line(self, block, d):
        """Return the step d of a block; see `Line`."""
        A = self.problem.A
        if self.problem.sparse:
            dg = A[:, block] @ d if A.format == "csc" else (A[block].T @ d)
        else:
            dg = A[:, block] @ d
        return QuadraticLine(self, block, d, dg)

    def move(self, line, t=1.0):
        """Take the step ``t d`` of a `line`."""
        self.x[line.block] += (t * line.d).astype(self.x.dtype)
        self._g = self._g + t * line.dg


class QuadraticLine:
    """A step d of a block, with the change of the gradient that it makes."""

    def __init__(self, state, block, d, dg):
        self.state, self.block, self.d, self.dg = state, block, d, dg

    def change(self, t=1.0):
        """Return how much ``t d`` changes the smooth part."""
        host = self.state.problem.be.host
        slope, bend = host(self.d @ self.state._g[self.block], self.d @ self.dg[self.block])
        return float(t * slope + 0.5 * t * t * bend)


def open_state(problem, x, c):
    """Return the state of a point of either problem."""
    return (QuadraticState if problem.quadratic else GLMState)(problem, x, c)


def _weighted_gram(X, s, sparse):
    if sparse:
        return (X.T @ X.multiply(s[:, None]).tocsc()).toarray()
    return X.T @ (s[:, None] * X)
