"""As many equations as unknowns, by Newton steps; more of them, in the least-squares sense."""

import math
from functools import partial

import numpy as np

from .._core.arrays import is_sparse
from .._core.result import Status
from ._eal import solve_eal
from ._levenberg import Levenberg, steepness
from ._levenberg import violation as length
from ._matrices import columns, is_dense
from ._problem import Answer, Residual
from .inner import open_inner
from .inner._projection import multipliers, open_projection

_ARMIJO = 1e-4
# Newton's method gives way when a step is shorter than this, or so many make no progress.
_SHORT, _PATIENCE, _PROGRESS = 1e-2, 25, 0.9
# A fit's gradient that shrinks by less than this, in so many steps, calls for second derivatives.
_SLOW, _PATIENT_STEPS = 0.3, 3


def solve_equations(problem, watch, options, start):
    """Solve ``c(z) = 0`` for as many equations as unknowns; the objective cannot choose.

    Newton steps are damped by the length of c. Where the Jacobian is singular or they make no
    progress, Levenberg-Marquardt steps follow, and where these end too, the general method; each
    from the start, as the others tend to end where it is worse.

    Parameters
    ----------
    problem : Standard
    watch : Watch
    options : Options
    start : Answer

    Returns
    -------
    Answer
    """
    watch.inner = "direct"
    first = problem.point(start.z)
    if watch.begin(problem, first, start):
        return start
    for steps in (_Newton(problem), _Damped(problem, options)):
        watch.globalization = steps.name
        point, over = _steps(problem, watch, steps, first)
        if over:
            return problem.answer(point, steps.multipliers(point))
    watch.globalization = "eal"
    return solve_eal(problem, watch, options, start)


def _steps(problem, watch, steps, point):
    """Take steps until the run ends or they make no progress; tell whether the run is over."""
    best, since = length(point, be=problem.be), 0
    for _ in watch.run:
        found = steps.step(point)
        if found is None:
            return point, False
        point, alpha = found
        answer = problem.answer(point, steps.multipliers(point))
        if watch.record(problem, point, answer, alpha=alpha, inner_its=1):
            return point, True
        now, since = length(point, be=problem.be), since + 1
        if now <= _PROGRESS * best:
            best, since = now, 0
        if since >= _PATIENCE:
            return point, False
    return point, True


class _Newton:
    """Newton steps on c, damped by its length."""

    name = "newton"

    def __init__(self, problem):
        self._problem, self._at = problem, None

    def step(self, point):
        """Return the next point and the step's length; None where steps become short."""
        problem, be = self._problem, self._problem.be
        p = self._factored(point).step(-point.c)
        square = be.host(point.c @ point.c)
        alpha = 1.0
        while p is not None and alpha >= _SHORT:
            new = problem.point(point.z + alpha * p)
            left = be.host(new.c @ new.c)
            # Along p the square falls at twice its value.
            if left <= (1 - 2 * _ARMIJO * alpha) * square:
                return new, alpha
            bend = left - (1 - 2 * alpha) * square
            alpha *= min(max(alpha * square / bend, 0.1), 0.5) if math.isfinite(bend) else 0.5
        return None

    def multipliers(self, point):
        """Return the multipliers at a point, by the factors that the next step needs."""
        be = self._problem.be
        if not be.host(abs(point.g).max()):
            return self._problem.xp.zeros(self._problem.m)
        return self._factored(point).rows(-point.g)

    def _factored(self, point):
        if self._at is not point:
            self._at, self._factors = point, _factors(point.G, self._problem.be)
        return self._factors


class _Damped:
    """Levenberg-Marquardt steps."""

    name = "levenberg-marquardt"

    def __init__(self, problem, options):
        self._problem = problem
        self._levenberg = Levenberg(problem, open_inner(options.inner, options))

    def step(self, point):
        """Return the next point and a step without a length; None if there is none."""
        new = self._levenberg.step(point)
        return None if new is None else (new, math.nan)

    def multipliers(self, point):
        """Return least-squares multipliers."""
        return multipliers(point, be=self._problem.be)


# ---------------------------------------------------------------- systems with the Jacobian
def _factors(G, be):
    """Return what solves ``G p = c`` by `step(c)` and ``G^T y = v`` by `rows(v)`."""
    if is_dense(G):
        return _DenseLU(G, be)
    return _SparseLU(G) if is_sparse(G) and be.name == "numpy" else _Shortest(G, be)


class _DenseLU:
    def __init__(self, G, be):
        self._G, self._xp = G, be.xp

    def step(self, c):
        return self._solve(self._G, c)

    def rows(self, v):
        y = self._solve(self._G.T, v)
        return self._xp.zeros(len(v)) if y is None else y

    def _solve(self, A, b):
        try:
            x = self._xp.linalg.solve(A, b)
        except self._xp.linalg.LinAlgError:
            return None
        return x if self._xp.isfinite(x).all() else None


class _SparseLU:
    def __init__(self, G):
        from scipy.sparse.linalg import splu

        try:
            self._lu = splu(G.tocsc())
        except RuntimeError:  # exactly singular
            self._lu = None

    def step(self, c):
        return self._lu and _finite(self._lu.solve(c))

    def rows(self, v):
        y = self._lu and _finite(self._lu.solve(v, "T"))
        return np.zeros(len(v)) if y is None else y


def _finite(x):
    return x if np.isfinite(x).all() else None


class _Shortest:
    def __init__(self, G, be):
        projection = open_projection(G, be=be)
        self.step, self.rows = projection.normal, projection.rows


# ---------------------------------------------------------------- more equations than unknowns
class _Fit:
    """Minimise ``||c||^2 / 2``, with nothing to hold: what least squares are to a `Watch`."""

    def __init__(self, standard):
        self._be, self.theirs = standard.be, standard.theirs

    def objective(self, point):
        """Return what is minimised."""
        return 0.5 * self._be.host(point.c @ point.c)

    def residual(self, point, answer):
        """Return the gradient's largest entry, and no violation: there is nothing to satisfy."""
        return Residual(steepness(point, be=self._be), 0.0, 0.0)

    def solved(self, point, answer):
        """Tell that there is no other problem to go to."""
        return False


def solve_least_squares(standard, watch, options, start):
    """Minimise ``||c||^2 / 2`` by Levenberg-Marquardt steps; arguments as in `solve_equations`.

    Where c stays large these converge slowly; then the rows' second derivatives join in.
    """
    fit, inner = _Fit(standard), open_inner(options.inner, options)
    levenberg = Levenberg(standard, inner)
    watch.inner, watch.globalization = inner.name, _Damped.name
    point, slow = standard.point(start.z), 0
    if watch.begin(fit, point, start):
        return start
    for _ in watch.run:
        new = levenberg.step(point)
        if new is None:
            watch.run.end(Status.STALLED, "No step lowers the violation.")
            break
        before, point, watch.inner = watch.residual.stationarity, new, inner.name
        if watch.record(fit, point, Answer(point.z, start.lam, start.bound)):
            break
        slow += watch.residual.stationarity > _SLOW * before
        if slow == _PATIENT_STEPS:
            levenberg.bend = partial(_bend, standard)
    return Answer(point.z, start.lam, start.bound)


def _bend(standard, point):
    """Return the Hessian of the rows, weighted by their values."""
    be, program, free = standard.be, standard.program, standard.free
    c = standard.xp.zeros(program.m)
    c[standard.rows] = point.c
    H = program.hess(standard.x(point.z), c, 0.0)
    return columns(columns(H, free, be=be).T, free, be=be)
