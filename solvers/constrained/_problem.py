"""The problem that solvers see: equalities and bounds only, scaled, each point evaluated once."""

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import is_sparse
from ._matrices import LowRank, Operator, columns, is_operator, scaled, stacked, to_dense

# Gradients longer than this are scaled down to it.
_LONG, _SMALLEST = 100.0, 1e-8
# Sides closer to each other than this, relatively, are one.
_ROUNDING = 1e-14
# Products that tell how long the rows of an operator are.
_PROBES = 8


class Answer(NamedTuple):
    """Where a solver ended: unknowns (n,), multipliers of rows (m,) and of bounds (n,).

    A bound's multiplier is at most 0 at a lower and at least 0 at an upper bound.
    """

    z: Any
    lam: Any
    bound: Any


class Residual(NamedTuple):
    """What is left of the optimality conditions, in the caller's unit, as floats."""

    stationarity: float
    violation: float
    complementarity: float

    @property
    def kkt(self):
        """The largest of the three; NaN if one is."""
        total = sum(self)
        # The builtin loses a NaN that does not come first.
        return total if math.isnan(total) else max(self)


class Curvature(NamedTuple):
    """Second derivatives at a point.

    `B` is the matrix for Newton systems, which may be a model; `product(v)` multiplies the true
    Hessian of the Lagrangian by a vector. `exact` tells that B is that Hessian.
    """

    B: Any
    product: Any
    exact: bool = False


class Point:
    """A point at which each function is evaluated at most once, when it is first needed."""

    def __init__(self, problem, z):
        self.problem, self.z = problem, z
        self._lam = None

    @property
    def plain(self):
        """The same point of the problem that still has its bounds."""
        return self

    @cached_property
    def f(self):
        return self.problem.fun(self.z)

    @cached_property
    def c(self):
        return self.problem.cons(self.z)

    @cached_property
    def g(self):
        return self.problem.grad(self.z)

    @cached_property
    def G(self):  # noqa: N802 (the field's name)
        return self.problem.jac(self.z)

    @cached_property
    def Gt(self):  # noqa: N802 (its transpose, whose making costs as much as a short product)
        return self.G.T

    def gradient(self, lam):
        """Return the gradient of the Lagrangian, ``g + G^T lam``; the last one is kept."""
        if self._lam is not lam:
            self._gradient = self.g + self.Gt @ lam if len(lam) else self.g
            self._lam = lam
        return self._gradient


class Standard:
    """Minimise ``f(z)`` subject to ``c(z) = 0`` and ``lo <= z <= up``.

    The unknowns are those of the caller that are not fixed, followed by a slack for every
    inequality, ``c_i(x) - s_i = 0``. Objective and rows are scaled.

    Parameters
    ----------
    program : Program
    x : array (n,)
        The start, in the caller's unit.
    scaling : {"gradient", None}
        Whether to scale gradients at the start down to a length of 100.

    Attributes
    ----------
    n, m : int
        Unknowns and rows.
    lo, up : array (n,)
        Bounds.
    bounded : bool
        Whether any bound is finite.
    f_scale : float
    c_scale : array (m,)
    """

    def __init__(self, program, x, scaling="gradient"):
        self.program, self.be, self.xp = program, program.be, program.xp
        xp = self.xp
        bounded = bool((xp.isfinite(program.lo) | xp.isfinite(program.up)).any())
        self._x = inside(x, program.lo, program.up, xp=xp) if bounded else x
        self.free = xp.flatnonzero(~_equal(program.lo, program.up, xp=xp))
        kept = xp.isfinite(program.lb) | xp.isfinite(program.ub)
        self.rows = xp.flatnonzero(kept)
        lb, ub = program.lb[self.rows], program.ub[self.rows]
        equal = _equal(lb, ub, xp=xp)
        self.slack = xp.flatnonzero(~equal)
        self._all_free, self._all_rows = len(self.free) == program.n, len(self.rows) == program.m
        self.n, self.m = len(self.free) + len(self.slack), len(self.rows)
        self.f_scale, self.c_scale = 1.0, xp.ones(self.m)
        if scaling is not None:
            self._scale()
        self._unscaled = bool((self.c_scale == 1.0).all())
        self._shift = self.c_scale * xp.where(equal, lb, 0.0)
        s = self.c_scale[self.slack]
        self.lo = xp.concatenate([program.lo[self.free], s * lb[self.slack]])
        self.up = xp.concatenate([program.up[self.free], s * ub[self.slack]])
        self.bounded = bool((xp.isfinite(self.lo) | xp.isfinite(self.up)).any())
        self._model = None
        if program.model not in (None, "differences"):
            from ._models import open_model

            self._model = open_model(program.model, len(self.free), be=self.be)

    def _scale(self):
        xp, program = self.xp, self.program
        steepest = self.be.host(abs(program.grad(self._x)).max())
        self.f_scale = float(np.clip(_LONG / max(steepest, _LONG), _SMALLEST, 1.0))
        G = program.jac(self._x)
        if self.m:
            long = xp.maximum(_largest_entries(G, xp)[self.rows], _LONG)
            self.c_scale = xp.clip(_LONG / long, _SMALLEST, 1.0)

    # ------------------------------------------------------------ between both units
    def start(self, lam):
        """Return the start, within its bounds, and the caller's multipliers (or None)."""
        x = self._x
        z = x[self.free]
        if len(self.slack):
            s = (self.c_scale * self.program.cons(x)[self.rows])[self.slack]
            z = self.xp.concatenate([z, s])
        lam = None if lam is None else lam[self.rows] * self.f_scale / self.c_scale
        return z, lam

    def x(self, z):
        """Return the caller's unknowns."""
        if self._all_free:
            return z[: self.program.n]
        x = self._x.copy()
        x[self.free] = z[: len(self.free)]
        return x

    def theirs(self, answer):
        """Return x, multipliers of all rows and multipliers of bounds in the caller's unit."""
        xp, program = self.xp, self.program
        lam, bound = xp.zeros(program.m), xp.zeros(program.n)
        lam[self.rows] = self.multipliers(answer) * self.c_scale / self.f_scale
        bound[self.free] = answer.bound[: len(self.free)] / self.f_scale
        return self.x(answer.z), lam, bound

    def multipliers(self, answer):
        """Return multipliers of rows; a row with a slack has that of the slack's bounds.

        Both agree at a solution; before it, only the latter has the right sign.
        """
        if not len(self.slack):
            return answer.lam
        lam = answer.lam.copy()
        lam[self.slack] = answer.bound[len(self.free) :]
        return lam

    # ------------------------------------------------------------ values and derivatives
    def point(self, z):
        """Return a `Point`."""
        return Point(self, z)

    def fun(self, z):
        """Return the objective."""
        return self.f_scale * self.program.fun(self.x(z))

    def grad(self, z):
        """Return its gradient (n,)."""
        g = self.f_scale * self.program.grad(self.x(z))
        g = g if self._all_free else g[self.free]
        return self.xp.concatenate([g, self.xp.zeros(len(self.slack))]) if len(self.slack) else g

    def cons(self, z):
        """Return the rows' values (m,)."""
        c = self.program.cons(self.x(z))
        c = self.c_scale * (c if self._all_rows else c[self.rows]) - self._shift
        if len(self.slack):
            c[self.slack] -= z[len(self.free) :]
        return c

    def jac(self, z):
        """Return their Jacobian, (m, n)."""
        be, xp = self.be, self.xp
        G = self.program.jac(self.x(z))
        if not self._all_rows:
            G = columns(G.T, self.rows, be=be).T
        if not self._unscaled:
            G = scaled(G, self.c_scale, be=be)
        if not self._all_free:
            G = columns(G, self.free, be=be)
        if not len(self.slack):
            return G
        k = len(self.slack)
        E = be.sparse.csr_matrix((-xp.ones(k), (self.slack, xp.arange(k))), (self.m, k))
        if is_operator(G):
            A = E
            E = Operator(A.shape, lambda v: A @ v, lambda v: A.T @ v)
        elif not is_sparse(G):
            E = to_dense(E, be=be)
        return stacked([G.T, E.T], self.m, be=be).T if not is_sparse(G) else _beside(G, E, be)

    def curvature(self, point, lam):
        """Return the Hessian of the Lagrangian as a `Curvature`."""
        be, xp, program = self.be, self.xp, self.program
        theirs = lam * self.c_scale
        if not self._all_rows:
            theirs = xp.zeros(program.m)
            theirs[self.rows] = lam * self.c_scale
        H = program.hess(self.x(point.z), theirs, self.f_scale)
        if not self._all_free:
            H = columns(columns(H, self.free, be=be).T, self.free, be=be)
        if len(self.slack):
            H = _padded(H, self.n, be)
        B = H
        if self._model is not None:
            B = _padded(self._model.B, self.n, be) if len(self.slack) else self._model.B
        return Curvature(B, lambda v: H @ v, exact=self._model is None)

    # ------------------------------------------------------------ measures
    def objective(self, point):
        """Return the objective in the caller's unit."""
        return point.f / self.f_scale

    def answer(self, point, lam):
        """Return an `Answer`; what has bounds adds their multipliers."""
        return Answer(point.z, lam, self.xp.zeros(self.n))

    def residual(self, point, answer):
        """Return the `Residual` of an answer, whose z is the point's."""
        be, xp, k = self.be, self.xp, len(self.free)
        r = point.gradient(self.multipliers(answer)) + answer.bound
        parts = [abs(r[:k]).max() if k else xp.zeros(())]
        parts.append((abs(point.c) / self.c_scale).max() if self.m else xp.zeros(()))
        if self.bounded:
            w, z = answer.bound, point.z
            far = xp.where(w < 0, z - self.lo, xp.where(w > 0, self.up - z, 0.0))
            parts.append(abs(w * far).max())
        stationarity, violation, *more = be.host(*parts)
        complementarity = more[0] / self.f_scale if more else 0.0
        return Residual(stationarity / self.f_scale, violation, complementarity)

    def solved(self, point, answer):
        """Tell whether a solver may stop here although the caller's problem is not solved."""
        return False

    def longest(self, z, dz):
        """Return the longest step along `dz` that stays within the bounds' reach."""
        return 1.0

    def moved(self, point, lam, new, new_lam, step):
        """Take note of a step; for models and bound multipliers that follow the iterates."""
        if self._model is not None:
            k = len(self.free)
            y = new.gradient(new_lam) - point.gradient(new_lam)
            self._model.update((new.z - point.z)[:k], y[:k])


def inside(x, lo, up, *, xp):
    """Return x moved inside its bounds, by 1 % of their size or of their distance."""
    low, high = (0.01 * xp.maximum(1.0, xp.where(xp.isfinite(s), abs(s), 0.0)) for s in (lo, up))
    gap = 0.01 * (up - lo)
    return xp.clip(x, lo + xp.minimum(gap, low), up - xp.minimum(gap, high))


def _equal(lo, up, *, xp):
    """Tell which pairs of sides are one but for rounding."""
    apart = up - lo
    return (apart <= _ROUNDING * xp.maximum(1.0, abs(lo))) & xp.isfinite(apart)


def _largest_entries(G, xp):
    """Return the largest entry of every row; of an operator an estimate from above."""
    if is_operator(G):
        # The mean square of products with random signs is the square of a row's length.
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (_PROBES, G.shape[1]))
        return xp.sqrt(sum((G @ xp.asarray(v)) ** 2 for v in signs) / _PROBES)
    long = abs(G).max(axis=1)
    return long.toarray().reshape(-1) if is_sparse(long) else long


def _beside(A, B, be):
    return be.sparse.hstack([A, be.sparse.csr_matrix(B)]).tocsr()


def _padded(H, n, be):
    """Return a matrix with rows and columns of zeros added up to a size of n."""
    k = H.shape[0]
    if isinstance(H, LowRank):
        return H.padded(n, be=be)
    if is_operator(H):

        def dot(v):
            out = be.xp.zeros(n)
            out[:k] = H @ v[:k]
            return out

        return Operator((n, n), dot, dot)
    if is_sparse(H):
        return be.sparse.block_diag([H, be.sparse.csr_matrix((n - k, n - k))]).tocsr()
    out = be.xp.zeros((n, n))
    out[:k, :k] = H
    return out
