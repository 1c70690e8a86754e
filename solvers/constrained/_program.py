"""The caller's problem in the caller's unit: functions that are counted, timed and cast."""

import itertools
from typing import NamedTuple

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import check_array, check_callable, describe
from ._constraints import bind, read_bounds, read_constraints
from ._differences import along
from ._functions import Caller, Counts, OnDevice
from ._matrices import Operator, add, stacked
from ._smooth import Objective

# A Hessian by differences costs twice as many gradients as there are unknowns; where gradients
# are differences too, the square of that.
_FEW, _VERY_FEW = 200, 50


class Errors(NamedTuple):
    """Relative errors of values, of the gradient and of the Jacobian; rounding at least."""

    values: float
    grad: float
    jac: float


class Program:
    """Minimise ``f(x)`` subject to ``lb <= c(x) <= ub`` and ``lo <= x <= up``.

    Parameters
    ----------
    caller : Caller
    objective : Objective
    rows : list of Rows
        Constraints, in their order.
    lo, up : array (n,)
        Bounds; infinite where there are none.
    lagrangian_hess : callable, optional
        ``lagrangian_hess(x, lam, weight)``, in place of all other second derivatives.

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
    lam0 : array (m,) or None
        The caller's multipliers.
    """

    lam0 = None

    def __init__(self, caller, objective, rows, lo, up, lagrangian_hess=None):
        self.caller, self.io, self.be, self.xp = caller, caller.io, caller.be, caller.xp
        self.n, self._objective, self.rows = objective.n, objective, rows
        self.lo, self.up = lo, up
        none = self.xp.zeros(0)
        self.lb = self.xp.concatenate([none, *(r.lb for r in rows)])
        self.ub = self.xp.concatenate([none, *(r.ub for r in rows)])
        self.m = len(self.lb)
        ends = np.cumsum([0, *(r.m for r in rows)])
        self.parts = [slice(*pair) for pair in itertools.pairwise(ends.tolist())]
        self._lagrangian_hess, self._nhev = lagrangian_hess, 0
        self.model = None if lagrangian_hess else _choose_model(objective, rows)
        self._noise = max([objective.noise, *(r.noise for r in rows)])
        rounding = 100 * objective.eps
        self.errors = Errors(rounding, objective.error, max([rounding, *(r.error for r in rows)]))

    @property
    def counts(self):
        """How often the caller's functions ran so far."""
        f, rows = self._objective, self.rows
        return Counts(
            nfev=f.nfev,
            njev=f.njev,
            nhev=max([self._nhev, f.nhev, *(r.nhev for r in rows)]),
            nhvp=self.caller.nhvp,
            ncev=max([0, *(r.nfev for r in rows)]),
            ncjev=max([0, *(r.njev for r in rows)]),
            seconds=self.caller.seconds,
        )

    def fun(self, x):
        """Return the objective as a float."""
        return self._objective.value(x)

    def grad(self, x):
        """Return the gradient (n,)."""
        return self._objective.jacobian(x)

    def cons(self, x):
        """Return the values of all rows (m,)."""
        if len(self.rows) == 1:
            return self.rows[0].value(x)
        parts = [r.value(x) for r in self.rows]
        return self.xp.concatenate(parts) if parts else self.xp.zeros(0)

    def jac(self, x):
        """Return the Jacobian of all rows, (m, n)."""
        if len(self.rows) == 1:
            return self.rows[0].jacobian(x)
        return stacked([r.jacobian(x) for r in self.rows], self.n, be=self.be)

    def hess(self, x, lam, weight=1.0):
        """Return the Hessian of ``weight f + lam @ c``, (n, n)."""
        if self._lagrangian_hess is not None:
            self._nhev += 1
            caller, shape = self.caller, (self.n, self.n)
            H = caller.ask(self._lagrangian_hess, x, caller.theirs(lam), weight)
            return caller.matrix(H, shape, "lagrangian_hess", hessian=True)
        if self.model not in (None, "differences"):
            return self._differenced(x, lam, weight)
        H = self._objective.hessian(x, weight)
        for r, part in zip(self.rows, self.parts, strict=True):
            C = r.hessian(x, lam[part])
            H = H if C is None else add(H, C, be=self.be)
        return H

    def _differenced(self, x, lam, weight):
        """Return the Hessian as an operator: a product is one difference of gradients."""
        curved = [(r, part) for r, part in zip(self.rows, self.parts, strict=True) if r.curved]
        slopes = [self._objective.slope(weight), *(r.slope(lam[part]) for r, part in curved)]

        def dot(v):
            return along(
                lambda y: sum(slope(y) for slope in slopes), x, v, self._noise, be=self.be
            )

        return Operator((self.n, self.n), dot, dot)


def _choose_model(objective, rows):
    """Return how second derivatives come, and tell functions to difference theirs."""
    if objective.model is not None:
        return objective.model
    functions = [objective, *rows]
    missing = [f for f in functions if not f.exact and f.scheme is None]
    twice = any(f.noise > objective.eps for f in missing)
    if objective.n <= (_VERY_FEW if twice else _FEW):
        for f in missing:
            f.scheme = "3-point"
    elif missing and not objective.has_products:
        return "lbfgs"
    return "differences" if any(f.scheme for f in functions) else None


def pose(
    fun, x0, args=(), *, jac=None, hess=None, hessp=None, constraints=(), bounds=None, lam0=None,
    lagrangian_hess=None, start=True,
):  # fmt: skip
    """Check what a caller passed and return the `Program` and the point x (n,).

    Parameters
    ----------
    fun, x0, args, jac, hess, hessp, constraints, bounds, lam0, lagrangian_hess : object
        As in `minimize`.
    start : bool
        Whether `x0` is a start, which moves to where bounds fix it; otherwise it is a point to
        be judged as it is, and messages call it "x" and its multipliers "lam".
    """
    if isinstance(x0, dict) and "x" in x0:
        x0, lam0 = x0["x"], (x0.get("lam") if lam0 is None else lam0)
    point, multipliers = ("x0", "lam0") if start else ("x", "lam")
    if x0 is None:
        raise TypeError(f"`{point}` came as None; expected an array of shape (n,)")
    io = Ingest(**{point: x0, multipliers: lam0})
    x = check_array(io, point, ndim=1).astype(np.float64)
    fun, jac, hess, hessp, lagrangian_hess = (
        bind(f, args) for f in (fun, jac, hess, hessp, lagrangian_hess)
    )
    hess = _check_lagrangian(hess, lagrangian_hess)
    with io.device, np.errstate(all="ignore"):
        caller = (Caller if io.be.name == "numpy" else OnDevice)(io)
        lo, up = read_bounds(bounds, len(x), caller)
        x = io.xp.where(lo == up, lo, x) if start else x
        options = {"room": (lo, up), "eps": float(np.finfo(io.dtype).eps)}
        hessp = check_callable(hessp, "hessp")
        objective = Objective(caller, "", fun, jac, hess, hessp, n=len(x), **options)
        rows = read_constraints(constraints, x, caller, **options)
        program = Program(caller, objective, rows, lo, up, lagrangian_hess)
    lam0 = check_array(io, multipliers, shape=(program.m,), means="(rows of all constraints,)")
    program.lam0 = None if lam0 is None else lam0.astype(np.float64)
    return program, x


def _check_lagrangian(hess, lagrangian_hess):
    """Return `hess`, or None where `lagrangian_hess` stands for it."""
    check_callable(lagrangian_hess, "lagrangian_hess")
    wanted = isinstance(hess, str) and hess == "lagrangian"
    if wanted != (lagrangian_hess is not None):
        expected = "a callable" if wanted else "None, or hess='lagrangian' to go with it"
        raise ValueError(
            f"`lagrangian_hess` came as {describe(lagrangian_hess)}; expected {expected}"
        )
    return None if wanted else hess


def check_shape(program, options):
    """Refuse more equations than unknowns, or inequalities, where the caller's options do."""
    xp, be = program.xp, program.be
    free, equal = program.lo != program.up, program.lb == program.ub
    n, m = map(int, be.host(free.sum(), equal.sum()))
    if m > n and not options.least_squares:
        raise ValueError(
            f"`constraints`: m={m} > n={n}: more equations than unknowns that are not fixed; "
            "least_squares=True minimises the sum of their squares"
        )
    if options.inequalities == "error":
        finite = [xp.isfinite(side).any() for side in (program.lb[~equal], program.ub[~equal])]
        finite += [xp.isfinite(side).any() for side in (program.lo[free], program.up[free])]
        if any(be.host(*finite)):
            raise ValueError(
                "`inequalities` came as 'error' with an inequality or a bound among the "
                "constraints; expected equations only, or inequalities='barrier'"
            )


def check_start(program, x):
    """Refuse a start at which a function of the caller is not finite, by name."""
    be, xp = program.be, program.xp
    if not np.isfinite(value := program.fun(x)):
        raise ValueError(f"`fun(x0)` is {value}; expected a finite number")
    checks = [("jac(x0)", program.grad(x))]
    checks += [(f"{rows.name}.fun(x0)", rows.value(x)) for rows in program.rows]
    for name, value in checks:
        wrong = xp.flatnonzero(~xp.isfinite(value))
        if len(wrong):
            k = int(wrong[0])
            raise ValueError(
                f"`{name}` contains {be.host(value[k])} at entry {k}; expected finite numbers"
            )
