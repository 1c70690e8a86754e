"""The independent check of an answer: its KKT residual, from the caller's functions alone."""

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import is_sparse
from .._core.certificate import Certificate
from .._core.validation import check_flag, check_positive
from ._matrices import Operator, is_operator
from ._multipliers import Multipliers, Sides, bound_multipliers, fit
from ._program import pose
from ._second_order import smallest_curvature

KIND = "KKT residual"
KIND_LEAST_SQUARES = "gradient of half the squared violation"
# Curvature that still counts as rounding, relative to 1 plus the size of the Hessian.
_FLAT = 1e-8


def certify(
    x,
    fun,
    *,
    jac,
    constraints=(),
    bounds=None,
    lam=None,
    hess=None,
    least_squares=False,
    tol=1e-8,
):
    r"""Judge a point of a constrained problem, wherever it comes from.

    The problem is to minimise :math:`f(x)` subject to :math:`l \le c(x) \le u` and bounds on x.
    Everything is evaluated afresh, in float64, in the unit of the functions given.

    Parameters
    ----------
    x : array, shape (n,), or ConstrainedResult
        The point. Multipliers of a result are tried first.
    fun, jac : callable
        The objective and its gradient, as in `minimize`.
    constraints, bounds : object, optional
        As in `minimize`.
    lam : array, shape (m,), optional
        Multipliers of the rows of all constraints, in their order, with the Lagrangian
        :math:`f + \lambda^\top c`: at most 0 at a lower side, at least 0 at an upper one. Parts
        with the wrong sign count in full. Default: those that explain the gradient best.
    hess : callable, optional
        The objective's Hessian, as in `minimize`: judge the curvature, too.
    least_squares : bool, default False
        Judge the point as one that violates the constraints least, whatever the objective: by
        the gradient of :math:`\tfrac{1}{2} \|c\|^2`.
    tol : float, default 1e-8
        The largest residual that passes.

    Returns
    -------
    Certificate
        Its value is the largest of three entries of `details`: "stationarity" (of the
        Lagrangian's gradient), "violation" (of constraints and bounds) and "complementarity"
        (multiplier times distance from its side). Its tolerance is `tol`, or what rounding
        leaves of the residual where that is more ("kkt_floor"), provided that each of the three
        is within the larger of `tol` and its own floor. "smallest_curvature" is the smallest
        eigenvalue of the Lagrangian's Hessian on the plane tangent to what is active;
        "infeasibility" is the gradient of the violation's norm: almost 0 where moving a little
        does not help. Both are NaN if they were not looked at.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import constrained
    >>> from scipy.optimize import LinearConstraint
    >>> on_line = LinearConstraint([[1.0, 1.0]], 1.0, 1.0)
    >>> constrained.certify(
    ...     [0.5, 0.5], lambda x: x @ x, jac=lambda x: 2 * x, constraints=on_line
    ... ).holds
    True
    """
    tol = check_positive(tol, "tol")
    check_flag(least_squares, "least_squares")
    program, x = pose(
        fun,
        x,
        jac=jac,
        hess=hess,
        constraints=constraints,
        bounds=bounds,
        lam0=lam,
        start=False,
    )
    return judge(
        program,
        x,
        program.lam0,
        tol=tol,
        strict=lam is not None,
        second_order=hess is not None,
        least_squares=least_squares,
    ).certificate


class Verdict(NamedTuple):
    """A certificate, the multipliers it was found with, and the sign of the curvature.

    `second_order` tells whether no feasible direction has negative curvature; None if that was
    not looked at.
    """

    certificate: Certificate
    lam: Any
    bound: Any
    second_order: bool | None


def judge(
    program, x, lam=None, bound=None, *, tol, strict=False, second_order=False, least_squares=False
):
    """Return the `Verdict` on a point (n,) in the caller's unit.

    Parameters
    ----------
    program : Program
        Its functions are evaluated afresh.
    x : array, shape (n,)
    lam, bound : array, shapes (m,) and (n,), optional
        Multipliers of rows and of bounds. Without those of bounds the best ones count.
    tol : float
    strict : bool
        Whether multipliers given must do; otherwise, where they do not, better ones may.
    second_order : bool
        Whether to look at the curvature.
    least_squares : bool
        Whether the violation was minimised.
    """
    with program.io.device, np.errstate(all="ignore"):
        evidence = Evidence(program, x)
        if least_squares:
            return evidence.least_violation(tol)
        found = None if lam is None else evidence.measured(lam, bound)
        if found is None or not (strict or found.residual.kkt <= tol):
            own = [evidence.measured(y) for y in evidence.fitted.each]
            found = min([*own, *([found] if found else [])], key=lambda f: _rank(f.residual.kkt))
        return evidence.verdict(found, tol, second_order)


class Parts(NamedTuple):
    """Three parts of what is left of the optimality conditions, or their floors."""

    stationarity: float
    violation: float
    complementarity: float

    @property
    def kkt(self):
        """The largest of the three; NaN if one is."""
        return float(np.max(self))


class Found(NamedTuple):
    """Multipliers of rows (m,) and bounds (n,), and the residual that they leave."""

    lam: Any
    bound: Any
    residual: Parts


class Evidence:
    """The caller's functions at one point, on the host.

    Parameters
    ----------
    program : Program
    x : array, shape (n,)
    """

    def __init__(self, program, x):
        host = program.be.host
        self.program, self._x = program, x
        self.x, self.g, self.c = host(x, program.grad(x), program.cons(x))
        self.G = _on_host(program.jac(x), program.be)
        self.rows = _Box(self.c, *host(program.lb, program.ub))
        self.bounds = _Box(self.x, *host(program.lo, program.up))

    @cached_property
    def sides(self):
        """Distances of rows and bounds to their sides."""
        return Sides(self.rows.below, self.rows.above, self.bounds.below, self.bounds.above)

    def measured(self, lam, bound=None):
        """Return multipliers, with the best ones of bounds where none are given, as `Found`."""
        host = self.program.be.host
        lam = host(lam)
        r = self.g + self.G.T @ lam if len(lam) else self.g
        if bound is not None:
            bound = host(bound)
        elif self.bounds.any:
            bound = bound_multipliers(r, self.sides)
        else:
            bound = np.zeros(len(r))
        residual = Parts(
            _largest(r + bound),
            max(self.rows.violation, self.bounds.violation),
            max(self.rows.gap(lam), self.bounds.gap(bound)),
        )
        return Found(lam, bound, residual)

    @cached_property
    def fitted(self):
        """The best multipliers of rows; zeros where derivatives are not finite."""
        if not (np.isfinite(self.g).all() and _finite(self.G)):
            return Multipliers(np.zeros(len(self.c)), np.zeros(len(self.c)))
        return fit(self.g, self.G, self.sides)

    def verdict(self, found, tol, second_order):
        """Judge multipliers: by `tol`, or by the floors where these are above it."""
        residual = found.residual
        # Within the tolerance floors are for information, and these multipliers do for them.
        needed = not residual.kkt <= tol
        floors = self._floors(self.measured(self.fitted.mild) if needed else found)
        allowed = _allowed(residual, floors, tol) if needed else tol
        curvature, flag = self._curvature(found) if second_order else (math.nan, None)
        details = {
            **residual._asdict(),
            "tol": tol,
            "kkt_floor": floors.kkt,
            **{f"{name}_floor": floor for name, floor in floors._asdict().items()},
            "smallest_curvature": curvature,
            "infeasibility": self._infeasibility() if residual.violation > tol else math.nan,
        }
        certificate = Certificate(KIND, residual.kkt, allowed, details)
        return Verdict(certificate, found.lam, found.bound, flag)

    def least_violation(self, tol):
        """Judge the gradient of half the squared violation."""
        off, slope = self.rows.off, _largest(self._violation_slope())
        violation = max(self.rows.violation, self.bounds.violation)
        errors = self.program.errors
        # The rows' own rounding enters through their values.
        blur = errors.jac * abs(off) + errors.values * _sizes(self.G, abs(self.x))
        floor = _largest(_sizes(self.G.T, blur))
        details = {"stationarity": slope, "violation": violation, "complementarity": 0.0}
        details.update(tol=tol, kkt_floor=floor)
        certificate = Certificate(KIND_LEAST_SQUARES, slope, max(tol, floor), details)
        return Verdict(certificate, np.zeros(len(off)), np.zeros(len(self.x)), None)

    # ------------------------------------------------------------ floors
    def _floors(self, mild):
        """Return what rounding leaves of each part, with multipliers that are not inflated."""
        errors, reach, lam = self.program.errors, abs(self.x), abs(mild.lam)
        rows, pull = _sizes(self.G, reach), _sizes(self.G.T, lam)
        products = self.rows.spread(lam * rows), self.bounds.spread(mild.bound * reach)
        return Parts(
            errors.grad * _largest(self.g) + errors.jac * _largest(pull),
            errors.values * max(_largest(rows), _largest(reach[self.bounds.finite])),
            errors.values * max(products),
        )

    # ------------------------------------------------------------ directions
    def _curvature(self, found):
        """Return the smallest curvature along what is active, and whether it is not negative."""
        program = self.program
        H = _on_host(program.hess(self._x, program.xp.asarray(found.lam)), program.be)
        rows, bounds = self.rows.active(found.lam), self.bounds.active(found.bound)
        least, size = smallest_curvature(H, self.G, rows, ~bounds)
        return least, None if math.isnan(least) else bool(least >= -_FLAT * (1 + size))

    def _infeasibility(self):
        """Return the gradient's length of the norm of the violation, along the bounds."""
        size = math.hypot(np.linalg.norm(self.rows.off), np.linalg.norm(self.bounds.off))
        return float(np.linalg.norm(self._violation_slope()) / size)

    def _violation_slope(self):
        """Return the gradient of half the squared violation, where bounds let it be followed."""
        slope = self.bounds.off + (self.G.T @ self.rows.off if len(self.c) else 0.0)
        # At a bound the violation may well fall outwards.
        slope = np.where(self.bounds.below == 0, np.minimum(slope, 0.0), slope)
        return np.where(self.bounds.above == 0, np.maximum(slope, 0.0), slope)


class _Box:
    """Values between two sides, and what the certificate asks about them.

    Attributes
    ----------
    off : array
        How far values are above the upper side (positive) or below the lower one.
    finite : array of bool
        Which values have a side.
    """

    def __init__(self, values, low, high):
        self._values, self._low, self._high = values, low, high
        self.equal = low == high
        self.finite = np.isfinite(low) | np.isfinite(high)
        self.any, self.all_equal = bool(self.finite.any()), bool(self.equal.all())
        self.off = np.maximum(values - high, 0.0) - np.maximum(low - values, 0.0)
        self.violation = _largest(self.off)

    @cached_property
    def below(self):
        """Distances to lower sides, 0 where both are equal."""
        return np.where(self.equal, 0.0, np.maximum(self._values - self._low, 0.0))

    @cached_property
    def above(self):
        """Distances to upper sides, 0 where both are equal."""
        return np.where(self.equal, 0.0, np.maximum(self._high - self._values, 0.0))

    def gap(self, y):
        """Return the largest product of multiplier and distance; in full where no side is."""
        if self.all_equal or not y.any():
            return 0.0
        d = np.where(y > 0, self.above, self.below)
        return _largest(y * np.where(np.isinf(d), 1.0, d))

    def spread(self, rounding):
        """Return the largest rounding error of a product of multiplier and distance."""
        return 0.0 if self.all_equal else _largest(rounding[~self.equal])

    def active(self, y):
        """Tell which sides hold: the multiplier is at least the distance."""
        if self.all_equal or not self.any:
            return self.equal
        nearest = np.minimum(self.below, self.above)
        d = np.where(y > 0, self.above, np.where(y < 0, self.below, nearest))
        return abs(y) >= d


def _allowed(residual, floors, tol):
    """Return the tolerance, raised where each part is within its own floor or the tolerance."""
    if not math.isfinite(residual.kkt):
        return tol
    limits = [max(tol, floor) for floor in floors]
    if not all(part <= limit for part, limit in zip(residual, limits, strict=True)):
        return tol
    return max(limits)


def _largest(v):
    return float(abs(v).max(initial=0.0))


def _rank(value):
    return math.inf if math.isnan(value) else value


def _sizes(A, v):
    """Return ``|A| v`` for entries v that are not negative; of an operator what is known."""
    return abs(A @ v) if is_operator(A) else abs(A) @ v


def _finite(A):
    if is_operator(A):
        return True
    return bool(np.isfinite(A.data if is_sparse(A) else A).all())


def _on_host(A, be):
    """Return a matrix of the back end as one of NumPy's and SciPy's."""
    if be.name == "numpy":
        return A
    if is_operator(A):
        to, back = be.xp.asarray, be.host
        return Operator(A.shape, lambda v: back(A @ to(v)), lambda v: back(A.T @ to(v)))
    return A.get() if is_sparse(A) else be.host(A)
