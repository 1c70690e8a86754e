"""The independent check: stationarity of psi, by second derivatives or plain lower solves."""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from .._core.certificate import Certificate
from .._core.validation import check_choice, check_memory, check_positive
from ._krylov import KrylovPiece
from ._local import Local
from ._plain import Plain, answer, stepped
from ._problem import pose
from ._result import BilevelResult
from ._second_order import Found, Piece

KIND = "hyper-stationarity"
HOWS = ("auto", "dense", "cg", "kkt", "penalty")
# Where more rows than this are weakly active, their combinations are too many to try.
MOST_WEAK = 8
# How far the unit of f may be from 1 before it counts.
_UNIT = 100.0
_SECANT = 1e-3
# Values and gradients that differ by more than this power of the rounding belong to different
# functions: 0.01 in double precision.
_CONTRADICTION = 1 / 8
# Lower levels up to the first size have their second derivative formed at once; up to the second
# one, where a few products with it do not suffice.
_SMALL, _DENSE = 100, 2000
_PRODUCTS = 2000


def default_tol(dtype):
    """Return the tolerance that `tol=None` stands for."""
    return 1e-6 if dtype == np.float64 else 3e-3


def certify(upper, lower, x, y=None, *, X=None, Y=None, constraints=None, how="auto", tol=None):
    r"""Judge a point of a bilevel problem, wherever it comes from.

    The problem is to minimise :math:`\psi(x)`, the smallest :math:`f(x, y)` among the minimisers
    y of :math:`g(x, \cdot)`. Everything is found out afresh, by code that no solver uses: y is
    sharpened, of several solutions of the lower level the one that is best for the upper level is
    taken, and the gradient of :math:`\psi` comes with an estimate of its error.

    Parameters
    ----------
    upper, lower : callable or Oracle
        The two levels, as in `penalty`; or a ready-made problem as `upper`, and None.
    x : array, nested arrays or BilevelResult
        The point.
    y : array or nested arrays, optional
        The answer of the lower level there. Default: it is looked for from ``lower.y0``.
    X, Y : set or callable, optional
        Where x and y must be, as in `penalty`.
    constraints : callable, Affine or pair, optional
        Of the lower level, as in `lvhba`; or a pair (inequalities, equations).
    how : {"auto", "dense", "cg", "kkt", "penalty"}, default "auto"
        "dense" forms the second derivative of the lower level, from products with it where the
        oracle has them and differences agree, else from differences; "kkt" is the same on the
        face of Y and of the constraints that y lies on; "cg" takes products only; "penalty" takes
        minimisers of :math:`\sigma f + g` for small penalties, in any Y. "auto" takes the first
        that fits: matrices up to 100 entries of y and where constraints hold, products beyond,
        matrices again up to 2000 entries where products prove nothing, and else penalties.
    tol : float, optional
        The largest value that passes. Default: 1e-6, or 3e-3 for single precision.

    Returns
    -------
    Certificate
        Its value is the largest of four entries of `details`: "stationarity" (the projected
        gradient of psi, relative to it where that is above f's unit), "hypergradient_error"
        (estimate of its error's length), "lower_residual" (the projected gradient of g, relative
        to its curvature and to y; where constraints hold, what the best multipliers leave, or the
        violation) and "gap_2" (f at y against psi). The unit of f is 1, but no more than 100
        times from the size of its gradients. Where y is a saddle point or a maximiser, of g or
        of f among the minimisers of g ("curvature", "upper_curvature" below 0), or values and
        gradients contradict each other ("oracle_mismatch" near 1), the value is infinite. "psi",
        the lower bound "psi_lower" at the penalty "sigma" and the "gap" of f to it are for
        information.

    Notes
    -----
    It is a local proof. A lower level that is not convex may have better minimisers elsewhere.
    Where rows or bounds hold without a multiplier, "weak_rows" of them, psi has a kink: each
    smooth piece is judged on the directions that it counts for. Beyond eight of them the pieces
    are too many to try, and the value is infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> upper = lambda x, y: (0.5 * np.sum((y - 1) ** 2), None, y - 1)
    >>> lower = lambda x, y: (0.5 * np.sum((y - 2 * x) ** 2), -2 * (y - 2 * x), y - 2 * x)
    >>> bilevel.certify(upper, lower, np.array([0.5]), np.array([1.0])).holds
    True
    >>> bilevel.certify(upper, lower, np.array([0.6]), np.array([1.2])).holds
    False
    """
    tol = check_positive(tol, "tol", allow_none=True)
    check_choice(how, "how", HOWS)
    missing = y is None and not isinstance(x, BilevelResult)
    if missing:
        y = getattr(lower, "y0", None)
        y = getattr(upper, "y0", None) if y is None else y
        if y is None or constraints is not None:
            raise ValueError("`y` is missing; expected the answer of the lower level at x")
    problem = pose(upper, lower, x, y, X, Y, constraints, candidate=True)
    x, y = problem.x0, problem.y0
    if missing:
        y = _answer(problem, x, y, how, tol)
    return judge(problem, x, y, how=how, tol=tol)


def _answer(problem, x, y, how, tol):
    """Return a solution of the lower level, of several one that suits the upper level."""
    tol = default_tol(problem.io.dtype) if tol is None else tol
    with problem.io.device, np.errstate(all="ignore"):
        y = answer(problem, x, y, tol, units(problem, x, y))
        sharp = _Case(problem, x, y, how, tol).pieces()[1][0].y
        return y if sharp is None else problem.io.xp.asarray(sharp, dtype=y.dtype)


def check_how(how, problem):
    """Check that a way to judge fits a problem."""
    tied = problem.constraints is not None
    if how == "penalty" and tied:
        raise ValueError("`how` came as 'penalty'; expected 'kkt' or 'auto' with constraints")
    if how in ("dense", "cg", "kkt") and not tied and not _polyhedral(problem):
        raise ValueError(
            f"`how` came as {how!r}; expected 'penalty' or 'auto' where Y is known by its "
            "projection alone or the lower level has a prox_y"
        )
    if how == "cg" and (tied or problem.Y.rows is not None):
        raise ValueError("`how` came as 'cg'; expected 'kkt' or 'auto' with constraints")


def judge(problem, x, y, *, how="auto", tol=None):
    """Return the certificate of (x, y)."""
    tol = default_tol(problem.io.dtype) if tol is None else tol
    check_how(how, problem)
    with problem.io.device, np.errstate(all="ignore"):
        return _Case(problem, x, y, how, tol).verdict()


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
    xp = problem.io.xp
    f, g = problem.upper.look(x, y), problem.lower.look(x, y)
    x_near, y_near = _near(x, f.gx, problem.X, xp), _near(y, f.gy, problem.Y, xp)
    upper_x = _bent(f.gx, problem.upper.look(x_near, y).gx, x_near - x)
    upper = _bent(f.gy, problem.upper.look(x, y_near).gy, y_near - y)
    lower = _bent(g.gy, problem.lower.look(x, y_near).gy, y_near - y)
    size = max(1.0, _largest(y))
    own = max(_largest(f.gx), _largest(f.gy), upper * size, upper_x * max(1.0, _largest(x)))
    value = min(max(1.0, own / _UNIT), own * _UNIT) if own > 0 else 1.0
    return Units(lower or 1.0, upper, value, size)


def mismatch(problem, x, y):
    """Return how much values and gradients contradict each other around a point, up to about 1.

    Trapezoids between feasible points are exact to third order; what only rounding or only the
    third derivative explains shrinks at one of two lengths.
    """
    worst, xp, eps = 0.0, problem.io.xp, problem.eps
    for level in (problem.upper, problem.lower):
        at = level.look(x, y)
        for v, grad, region, look in (
            (x, "gx", problem.X, lambda u, level=level: level.look(u, y)),
            (y, "gy", problem.Y, lambda u, level=level: level.look(x, u)),
        ):
            slope = getattr(at, grad)
            toward = _anywhere(v, xp) + (slope / _norm(slope) if _norm(slope) > 0 else 0.0)
            off = [
                _contradiction(at, grad, look, v, _near(v, toward, region, xp, eps**power))
                for power in (1 / 3, 1 / 4)
            ]
            worst = max(worst, min(off))
    return worst


def _contradiction(at, name, look, v, near):
    """Return the part of a change of value that gradients at both ends do not explain."""
    after, grad = look(near), getattr(at, name)
    chord = after.value - at.value
    slope = 0.5 * float((grad + getattr(after, name)) @ (near - v))
    blur = 8 * float(np.finfo(v.dtype).eps) * max(abs(at.value), abs(after.value))
    size = max(abs(chord), abs(slope))
    off = abs(chord - slope)
    return 0.0 if off <= blur or not math.isfinite(off) else off / size


def _near(v, grad, region, xp, length=_SECANT):
    """Return a point close by, downhill or anywhere, of a set."""
    norm = _norm(grad)
    s = grad if norm > 0 else _anywhere(v, xp)
    s = s * (length * max(1.0, _norm(v)) / _norm(s))
    ahead, back = region.project(v - s), region.project(v + s)
    return ahead if _norm(ahead - v) >= _norm(back - v) else back


def _anywhere(v, xp):
    """Return a unit vector in a direction that nobody chose."""
    s = np.cos(1.0 + np.arange(len(v)) ** 2)
    return xp.asarray(s / np.linalg.norm(s), dtype=v.dtype)


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

    def __init__(self, problem, x, y, how, tol):
        self.problem, self.x, self.y, self.how, self.tol = problem, x, y, how, tol
        self.units = units(problem, x, y)
        self.weak = 0

    def verdict(self):
        """Return the certificate."""
        problem, units = self.problem, self.units
        residual, pieces = self.pieces()
        f = problem.upper.look(self.x, self.y)
        sizes = [max(units.value, float(abs(one.grad).max())) for one in pieces]
        errors = [one.error / max(units.value, float(np.linalg.norm(one.grad))) for one in pieces]
        first = pieces[0]
        parts = {
            "stationarity": np.max([*map(self._stationarity, pieces, sizes)]),
            "hypergradient_error": np.max(errors),
            "lower_residual": residual,
            "gap_2": abs(f.value - first.value) / max(units.value, abs(f.value)),
        }
        bent = {
            "curvature": min(one.curvature for one in pieces),
            "upper_curvature": min(one.upper_curvature for one in pieces),
        }
        # What is no minimum proves nothing; a NaN must not get lost.
        value = float(np.max([*parts.values()])) if min(bent.values()) >= 0 else math.inf
        contradiction = mismatch(problem, self.x, self.y)
        value = math.inf if contradiction > problem.eps**_CONTRADICTION else value
        details = {
            **parts,
            **bent,
            "oracle_mismatch": contradiction,
            "weak_rows": self.weak,
            "psi": first.value,
            "psi_lower": first.psi_lower,
            "gap": f.value - first.psi_lower,
            "sigma": first.sigma,
        }
        return Certificate(KIND, value if math.isfinite(value) else math.inf, self.tol, details)

    def _stationarity(self, one, size):
        """Return how far x is from stationary for the directions that a piece counts for."""
        problem, grad = self.problem, one.grad
        if len(one.cone):
            grad = _outside(grad, np.r_[one.cone, self._walls()])
        # A gradient as long as its unit at most: a long one would hide that x could still go far.
        d = problem.io.xp.asarray(grad / size, dtype=self.x.dtype)
        off = _largest(self.x - problem.X.project(self.x)) / max(1.0, _largest(self.x))
        return max(off, _largest(self.x - problem.X.project(self.x - d)))

    def _walls(self):
        """Return the inward normals of the bounds of X at x."""
        lo, hi = self.problem.X.lo, self.problem.X.hi
        if lo is None:
            return np.zeros((0, len(self.x)))
        host = self.problem.io.be.host
        low, high = (np.flatnonzero(host(held)) for held in (self.x <= lo, self.x >= hi))
        walls = np.zeros((len(low) + len(high), len(self.x)))
        walls[np.arange(len(low)), low] = 1.0
        walls[len(low) + np.arange(len(high)), high] = -1.0
        return walls

    def pieces(self):
        """Return the residual of the lower level and what each smooth piece of psi gives."""
        try:
            return self._pieces()
        except np.linalg.LinAlgError:
            # Something near by is not finite, or not known.
            nothing = np.zeros((0, len(self.x)))
            nan = math.nan
            return nan, [Found(nan, nothing.sum(0), nan, None, 0.0, 0.0, nan, nan, nothing)]

    def _pieces(self):
        problem, tied = self.problem, self.problem.constraints is not None
        # Rows of a set are dense.
        wide = problem.Y.rows is not None and len(self.y) > _DENSE and self.how == "auto"
        if self.how == "penalty" or not (tied or _polyhedral(problem)) or (wide and not tied):
            return self._by_penalties()
        if tied and not _polyhedral(problem) and not self._inside():
            raise np.linalg.LinAlgError("nothing is known of the face of Y")
        y = self._host(self.y)
        found = active(Local(self.problem, self.x, y), y, self.tol, self.units)
        rows = len(found.strong) + len(found.weak) + len(found.bounds)
        n = int(found.free.sum())
        dense = n <= _DENSE or rows or self.how in ("dense", "kkt")
        if not rows and (self.how == "cg" or (self.how == "auto" and n > _SMALL)):
            local = Local(self.problem, self.x, found.y)
            budget = n // 4 if dense and self.how == "auto" else _PRODUCTS
            piece = KrylovPiece(local, found.y, found.free, self.tol, budget)
            if piece.sure or piece.bends_down or self.how == "cg":
                return found.residual, [piece.found(self.units.value)]
        return self._by_matrices(found) if dense else self._by_penalties()

    def _inside(self):
        """Tell whether y may move a little without leaving Y; of two ways, an edge bars one."""
        step = self.tol * self.units.size * math.sqrt(len(self.y))
        v = step * _anywhere(self.y, self.problem.io.xp)
        moved = [self.y + v, self.y - v]
        smooth = self.problem.lower.oracle.prox_y is None
        return smooth and all(_largest(self.problem.Y.project(u) - u) == 0 for u in moved)

    def _by_penalties(self):
        plain = Plain(self.problem, self.x, self.y, self.tol, self.units)
        found, excess = plain.found()
        units = self.units
        grad = self.problem.lower.look(self.x, self.y).gy
        moved = stepped(self.problem, self.y, grad, 1 / units.lower)
        return max(_largest(self.y - moved) / units.size, excess), [found]

    def _by_matrices(self, active):
        """Try every part of the weakly active rows."""
        local = Local(self.problem, self.x, active.y, active.bounds)
        added = len(local.equal) - np.arange(len(active.bounds)) - 1
        weak = np.r_[active.weak, added].astype(int)
        self.weak = len(weak)
        check_memory(4 * 8 * int(active.free.sum()) ** 2, "the lower level's second derivative")
        H, found = None, []
        for k in range(len(weak) + 1) if len(weak) <= MOST_WEAK else [0]:
            for held in itertools.combinations(weak, k):
                rows = np.r_[active.strong, held].astype(int)
                piece = Piece(local, active.y, active.free, rows, self.tol, H)
                H = piece.H
                if piece.independent or not k:
                    found.append(piece.found(self.units.value, weak))
        if len(weak) > MOST_WEAK:
            found = [found[0]._replace(error=math.inf)]
        return active.residual, found

    def _host(self, v):
        return np.asarray(self.problem.io.be.host(v), dtype=np.float64)


def _polyhedral(problem):
    """Tell whether the lower level is smooth over a set given by bounds and rows."""
    Y = problem.Y
    known = Y.whole or Y.lo is not None or Y.rows is not None
    return known and problem.lower.oracle.prox_y is None


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
    if not (np.isfinite(g).all() and np.isfinite(c).all() and np.isfinite(J).all()):
        raise np.linalg.LinAlgError("not finite")
    w, rest = _multipliers(g, J[held] / length[held, None], local.equal[held], low, high)
    given = local.vector(y)
    outside = float(abs(region.project(given) - given).max())
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
    from scipy.optimize import lsq_linear

    length = np.linalg.norm(cone, axis=1)
    cone = cone[length > 0] / length[length > 0, None]
    if not len(cone):
        return d
    # Any weights that are not negative prove as much as they leave.
    weights = lsq_linear(cone.T, d, (0.0, np.inf), method="bvls", tol=1e-14).x
    return d - np.maximum(weights, 0.0) @ cone
