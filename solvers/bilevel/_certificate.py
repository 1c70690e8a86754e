"""The independent check: stationarity of psi, by second derivatives or plain lower solves."""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from .._core.certificate import Certificate
from .._core.validation import check_choice, check_positive
from ._local import Local
from ._problem import pose
from ._second_order import Piece

KIND = "hyper-stationarity"
HOWS = ("auto", "dense", "kkt", "penalty")
# Where more rows than this are weakly active, their combinations are too many to try.
_WEAK = 8
# How far the unit of f may be from 1 before it counts.
_UNIT = 100.0
_SECANT = 1e-3


def default_tol(dtype):
    """Return the tolerance that `tol=None` stands for."""
    return 1e-6 if dtype == np.float64 else 3e-3


def certify(upper, lower, x, y=None, *, X=None, Y=None, constraints=None, how="auto", tol=None):
    """Judge a point of a bilevel problem, wherever it comes from."""
    tol = check_positive(tol, "tol", allow_none=True)
    check_choice(how, "how", HOWS)
    problem = pose(upper, lower, x, y, X, Y, constraints, candidate=True)
    return judge(problem, problem.x0, problem.y0, how=how, tol=tol)


def judge(problem, x, y, *, how="auto", tol=None):
    """Return the certificate of (x, y)."""
    tol = default_tol(problem.io.dtype) if tol is None else tol
    with problem.io.device, np.errstate(all="ignore"):
        return _Case(problem, x, y, tol).verdict()


class Units(NamedTuple):
    """What is large and what is small for a problem.

    Parameters
    ----------
    lower, upper : float
        Curvatures in y.
    value : float
        A difference of f that matters: 1, unless f is far from that.
    size : float
        Largest entry of y, at least 1.
    """

    lower: float
    upper: float
    value: float
    size: float


def units(problem, x, y):
    """Return the `Units` of a problem near a point."""
    f, g = problem.upper.look(x, y), problem.lower.look(x, y)
    x_near, y_near = _near(x, f.gx, problem.X), _near(y, f.gy, problem.Y)
    upper_x = _bent(f.gx, problem.upper.look(x_near, y).gx, x_near - x)
    upper = _bent(f.gy, problem.upper.look(x, y_near).gy, y_near - y)
    lower = _bent(g.gy, problem.lower.look(x, y_near).gy, y_near - y)
    size = max(1.0, _largest(y))
    own = max(_largest(f.gx), _largest(f.gy), upper * size, upper_x * max(1.0, _largest(x)))
    value = min(max(1.0, own / _UNIT), own * _UNIT) if own > 0 else 1.0
    return Units(lower or 1.0, upper, value, size)


def _near(v, grad, region):
    """Return a point close by, downhill or anywhere, of a set."""
    norm = _norm(grad)
    xp = np if isinstance(grad, np.ndarray) else region.xp
    s = grad if norm > 0 else xp.cos(xp.arange(len(v), dtype=v.dtype))
    s = s * (_SECANT * max(1.0, _norm(v)) / _norm(s))
    ahead, back = region.project(v - s), region.project(v + s)
    return ahead if _norm(ahead - v) >= _norm(back - v) else back


def _bent(before, after, move):
    """Return the curvature between two points, 0 where there is none to be seen."""
    bent = _norm(after - before) / (_norm(move) or 1.0)
    return bent if math.isfinite(bent) else 0.0


def _norm(v):
    return math.sqrt(float(v @ v))


def _largest(v):
    return float(abs(v).max())


class _Case:
    """A point of a problem, and all that is found out about it."""

    def __init__(self, problem, x, y, tol):
        self.problem, self.x, self.y, self.tol = problem, x, y, tol
        self.units = units(problem, x, y)

    def verdict(self):
        problem, units = self.problem, self.units
        residual, pieces = self.pieces()
        f = problem.upper.look(self.x, self.y)
        parts = {"lower_residual": residual}
        if pieces:
            first = pieces[0]
            sizes = [max(units.value, float(abs(one.grad).max())) for one in pieces]
            parts["stationarity"] = max(map(self._stationarity, pieces, sizes))
            parts["hypergradient_error"] = max(
                one.error / max(units.value, float(np.linalg.norm(one.grad))) for one in pieces
            )
            parts["gap_2"] = abs(f.value - first.value) / max(units.value, abs(f.value))
            bent = min(min(one.curvature, one.upper_curvature) for one in pieces)
        else:
            first, bent = None, 0.0
            parts.update(stationarity=math.inf, hypergradient_error=math.inf, gap_2=math.inf)
        # A NaN must not get lost, and what is no minimum proves nothing.
        value = float(np.max(list(parts.values()))) if bent >= 0 else math.inf
        details = {
            **parts,
            "curvature": min((one.curvature for one in pieces), default=math.nan),
            "upper_curvature": min((one.upper_curvature for one in pieces), default=math.nan),
            "psi": first.value if first else math.nan,
            "psi_lower": first.psi_lower if first else math.nan,
            "gap": f.value - first.psi_lower if first else math.nan,
            "sigma": first.sigma if first else math.nan,
        }
        return Certificate(KIND, value if math.isfinite(value) else math.inf, self.tol, details)

    def _stationarity(self, one, size):
        """Return how far x is from stationary for the directions that a piece counts for."""
        problem, grad = self.problem, one.grad
        if len(one.cone):
            grad = _outside(grad, np.r_[one.cone, self._walls()])
        d = problem.io.xp.asarray(grad, dtype=self.x.dtype)
        return _largest(self.x - problem.X.project(self.x - d)) / size

    def _walls(self):
        """Return the inward normals of the bounds of X at x."""
        lo, hi = self.problem.X.lo, self.problem.X.hi
        if lo is None:
            return np.zeros((0, len(self.x)))
        host = self.problem.io.be.host
        low, high = host(self.x <= lo), host(self.x >= hi)
        eye = np.eye(len(self.x))
        return np.r_[eye[low], -eye[high]]

    def pieces(self):
        """Return the residual of the lower level and what each smooth piece of psi gives."""
        problem, units = self.problem, self.units
        local = Local(problem, self.x, self._host(self.y))
        activity = active(local, self._host(self.y), self.tol, units)
        if len(activity.weak) > _WEAK or not math.isfinite(activity.residual):
            return activity.residual, []
        local = Local(problem, self.x, activity.y, activity.bounds)
        weak = np.r_[activity.weak, len(local.equal) - np.arange(len(activity.bounds)) - 1].astype(
            int
        )
        H, found = None, []
        for k in range(len(weak) + 1):
            for held in itertools.combinations(weak, k):
                rows = np.r_[activity.strong, held].astype(int)
                piece = Piece(local, activity.y, activity.free, rows, H)
                H = piece.H
                if piece.independent or not k:
                    found.append(piece.found(weak))
        return activity.residual, found

    def _host(self, v):
        return np.asarray(self.problem.io.be.host(v), dtype=np.float64)


class Activity(NamedTuple):
    """Which coordinates and rows of the lower level hold, and how well they explain y.

    Parameters
    ----------
    residual : float
    y : array, shape (p,)
        On the bounds that hold.
    free : array of bool, shape (p,)
    strong, weak : array of int
        Rows with and without a multiplier.
    bounds : list of (coordinate, sign, bound)
        Bounds without a multiplier.
    """

    residual: float
    y: Any
    free: Any
    strong: Any
    weak: Any
    bounds: list


def active(local, y, tol, units):
    """Return the `Activity` at a point."""
    region, p = local.region, local.p
    near, least = tol * units.size, tol * units.lower * units.size
    host = local.problem.io.be.host
    lo = np.full(p, -np.inf) if region.lo is None else host(region.lo).astype(float)
    hi = np.full(p, np.inf) if region.hi is None else host(region.hi).astype(float)
    low, high = y - lo <= near, hi - y <= near
    c, _, J = local.rows(y)
    length = np.maximum(np.linalg.norm(J, axis=1), 1e-300)
    held = np.flatnonzero(local.equal | (c >= -near * length))
    g = local.lower(y)[2]
    w, rest = _multipliers(g, J[held] / length[held, None], local.equal[held], low, high)
    outside = max((lo - y).max(), (y - hi).max(), 0.0)
    off = np.where(local.equal, abs(c), np.maximum(c, 0.0)) / length
    residual = max(
        float(abs(rest).max()) / (units.lower * units.size),
        max(outside, float(off.max(initial=0.0))) / units.size,
    )
    strong = local.equal[held] | (w > least)
    pull = g + J[held].T @ (w / length[held])
    fixed = (low & (pull > least)) | (high & (pull < -least)) | (lo == hi)
    bounds = [(k, -1.0, lo[k]) for k in np.flatnonzero(low & ~fixed)]
    bounds += [(k, 1.0, hi[k]) for k in np.flatnonzero(high & ~fixed)]
    y = np.where(fixed, np.where(low, lo, hi), y)
    return Activity(residual, y, ~fixed, held[strong], held[~strong], bounds)


def _multipliers(g, J, equal, low, high):
    """Return the multipliers of rows that explain a gradient best, and what they leave of it."""
    w = np.zeros(len(J))
    if len(J):
        from scipy.optimize import lsq_linear

        # Bounds hold the gradient on one side.
        eye = np.eye(len(g))
        A = np.c_[J.T, -eye[:, low], eye[:, high]]
        bottom = np.r_[np.where(equal, -np.inf, 0.0), np.zeros(A.shape[1] - len(J))]
        w = lsq_linear(A, -g, (bottom, np.inf), method="bvls", tol=1e-14).x[: len(J)]
    rest = g + J.T @ w
    rest = np.where(low, np.minimum(rest, 0.0), rest)
    return w, np.where(high, np.maximum(rest, 0.0), rest)


def _outside(d, cone):
    """Return what is left of a gradient where only directions of a cone count."""
    from scipy.optimize import nnls

    length = np.linalg.norm(cone, axis=1)
    cone = cone[length > 0] / length[length > 0, None]
    return d - cone.T @ nnls(cone.T, d)[0] if len(cone) else d
