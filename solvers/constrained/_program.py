"""The caller's problem in the caller's unit: functions that are counted, timed and cast."""

import itertools
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import Ingest, is_sparse
from .._core.validation import check_array, describe
from ._matrices import Operator, add, is_operator, scaled, stacked


class Rows(NamedTuple):
    """Rows of one constraint: ``lb <= fun(x) <= ub``.

    `jac` returns a matrix, `hess(x, v)` the Hessian of ``v @ fun``; None stands for zero.
    """

    name: str
    fun: Any
    jac: Any
    hess: Any
    lb: Any
    ub: Any


@dataclass
class Counts:
    """How often the caller's functions ran, and for how long."""

    nfev: int = 0
    njev: int = 0
    nhev: int = 0
    nhvp: int = 0
    ncev: int = 0
    ncjev: int = 0
    seconds: float = 0.0


class Errors(NamedTuple):
    """Relative errors of values, of the gradient and of the Jacobian; rounding at least."""

    values: float
    grad: float
    jac: float


# In units of the precision.
_ROUNDING = 100.0


class Program:
    """Minimise ``f(x)`` subject to ``lb <= c(x) <= ub`` and ``lo <= x <= up``.

    Parameters
    ----------
    io : Ingest
        The door through which `x0` came.
    f, grad, hess : callable
        The caller's functions of x, which may return any kind of array.
    rows : list of Rows
        Constraints, in their order.
    lo, up : array (n,)
        Bounds; infinite where there are none.

    Attributes
    ----------
    n, m : int
        Unknowns and rows.
    lb, ub : array (m,)
        Sides of the rows.
    counts : Counts
    model : {None, "differences", "bfgs", "sr1", "lbfgs"}
        How second derivatives come: None where the caller gives them all; "differences" where
        `hess` returns a matrix of differences; else the name of the model that stands for them
        in Newton systems, while `hess` returns an `Operator` of differences, one for a product.
    errors : Errors
    """

    def __init__(self, io, n, f, grad, hess, rows, lo, up):
        self.io, self.be, self.xp, self.n = io, io.be, io.xp, n
        self._f, self._grad, self._hess, self.rows = f, grad, hess, rows
        self.lo, self.up = lo, up
        self.counts = Counts()
        self.model = None
        self.errors = Errors(*[_ROUNDING * float(np.finfo(io.dtype).eps)] * 3)
        none = self.xp.zeros(0)
        self.lb = self.xp.concatenate([none, *(r.lb for r in rows)])
        self.ub = self.xp.concatenate([none, *(r.ub for r in rows)])
        self.m = len(self.lb)
        ends = np.cumsum([0, *(len(r.lb) for r in rows)])
        self.parts = [slice(*pair) for pair in itertools.pairwise(ends)]

    def fun(self, x):
        """Return the objective as a float; NaN where it is not finite."""
        self.counts.nfev += 1
        value = self._ask(self._f, x)
        return float(self.be.host(self.xp.asarray(_shared(value, self)).reshape(())))

    def grad(self, x):
        """Return the gradient (n,)."""
        self.counts.njev += 1
        return self._vector(self._ask(self._grad, x), self.n, "jac")

    def cons(self, x):
        """Return the values of all rows (m,)."""
        self.counts.ncev += 1
        parts = [self._vector(self._ask(r.fun, x), len(r.lb), f"{r.name}.fun") for r in self.rows]
        if len(parts) == 1:
            return parts[0]
        return self.xp.concatenate(parts) if parts else self.xp.zeros(0)

    def jac(self, x):
        """Return the Jacobian of all rows, (m, n)."""
        self.counts.ncjev += 1
        shapes = [(len(r.lb), self.n) for r in self.rows]
        parts = [
            self._matrix(self._ask(r.jac, x), shape, f"{r.name}.jac")
            for r, shape in zip(self.rows, shapes, strict=True)
        ]
        return stacked(parts, self.n, be=self.be)

    def hess(self, x, lam, weight=1.0):
        """Return the Hessian of ``weight f + lam @ c``, (n, n)."""
        self.counts.nhev += 1
        shape = (self.n, self.n)
        H = scaled(self._matrix(self._ask(self._hess, x), shape, "hess"), weight, be=self.be)
        for r, part in zip(self.rows, self.parts, strict=True):
            if r.hess is not None:
                v = lam[part]
                C = self._ask(r.hess, x, self._theirs(v))
                H = add(H, self._matrix(C, shape, f"{r.name}.hess"), be=self.be)
        return H

    def _ask(self, function, x, *more):
        """Call a function of the caller with a copy of `x` in the caller's kind."""
        began = time.perf_counter()
        try:
            return function(self._theirs(x), *more)
        finally:
            self.counts.seconds += time.perf_counter() - began

    def _theirs(self, v):
        # A copy: a function that changes its argument must not change ours.
        return v.copy() if self.io.kind in ("numpy", "cupy") else self.io.out(v.copy())

    def _vector(self, value, length, name):
        v = self.xp.asarray(_shared(value, self), dtype=np.float64)
        if v.ndim > 1 or v.size != length:
            raise ValueError(f"`{name}` returned shape {v.shape}; expected ({length},)")
        return v.reshape(length)

    def _matrix(self, value, shape, name):
        if is_sparse(value):
            A = value.tocsr().astype(np.float64)
        elif hasattr(value, "matvec"):
            self_ = self

            def dot(v, A=value):
                self_.counts.nhvp += name.endswith("hess")
                return self_.xp.asarray(A.matvec(v)).reshape(-1)

            A = Operator(value.shape, dot, lambda v: self.xp.asarray(value.rmatvec(v)).reshape(-1))
        elif is_operator(value):
            A = value
        else:
            A = self.xp.asarray(_shared(value, self), dtype=np.float64)
            A = A.reshape(shape) if A.ndim < 2 and A.size == shape[0] * shape[1] else A
        if tuple(A.shape) != shape:
            raise ValueError(f"`{name}` returned shape {tuple(A.shape)}; expected {shape}")
        return A


def _shared(value, program):
    """Return what a function of the caller returned as an array of the back end."""
    if isinstance(value, float | int | np.ndarray | np.generic):
        return value
    given = Ingest(value=value)
    return given.raw("value")


def pose(fun, x0, args=(), *, jac, hess, constraints=(), bounds=None):
    """Check what a caller passed and return the `Program` and the start x (n,).

    The ground floor: arrays and callables only; differences, dictionaries and products with
    Hessians come with the door.
    """
    io = Ingest(x0=x0)
    x = check_array(io, "x0", ndim=1).astype(np.float64)
    if not callable(fun):
        raise TypeError(f"`fun` came as {describe(fun)}; expected a callable")
    n, xp = len(x), io.xp
    if constraints is None:
        constraints = ()
    if not isinstance(constraints, list | tuple):
        constraints = [constraints]
    rows = [_rows(f"constraints[{k}]", c, x, xp) for k, c in enumerate(constraints)]
    lo, up = xp.full(n, -np.inf), xp.full(n, np.inf)
    if bounds is not None:
        lo, up = _sides(bounds, n, xp)
    bind = lambda g: (lambda x: g(x, *args)) if args else g  # noqa: E731
    return Program(io, n, bind(fun), bind(jac), bind(hess), rows, lo, up), x


def _rows(name, con, x, xp):
    if hasattr(con, "A"):
        A = con.A if is_sparse(con.A) else xp.atleast_2d(xp.asarray(con.A, dtype=np.float64))
        m = A.shape[0]
        fun, jac, hess = (lambda x: A @ x), (lambda x: A), None
    else:
        m = len(np.atleast_1d(con.fun(x.copy())))
        fun, jac, hess = con.fun, con.jac, con.hess
    lb, ub = (xp.broadcast_to(xp.asarray(s, dtype=np.float64), (m,)) for s in (con.lb, con.ub))
    return Rows(name, fun, jac, hess, lb, ub)


def _sides(bounds, n, xp):
    if hasattr(bounds, "lb"):
        pair = bounds.lb, bounds.ub
    else:
        pair = [
            [s if v is None else v for v in side]
            for s, side in zip((-np.inf, np.inf), zip(*bounds, strict=True), strict=True)
        ]
    return tuple(xp.broadcast_to(xp.asarray(s, dtype=np.float64), (n,)) for s in pair)
