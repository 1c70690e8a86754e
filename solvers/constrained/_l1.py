r"""Inexact Newton steps with the merit function :math:`f + \mu \|c\|_1`: baselines of the paper.

A step is good enough when the model of the merit function promises enough for what it left of the
linearised constraints. The adaptive variant asks for a residual in proportion to kappa, which
falls while the weight rises; the other one takes the two termination tests of Byrd, Curtis and
Nocedal.

References
----------
R. H. Byrd, F. E. Curtis, J. Nocedal. An inexact SQP method for equality constrained optimization.
SIAM J. Optim. 19 (2008), 351-369.
"""

from typing import Any, NamedTuple

from .._core.result import Status
from ._convexify import Shifts, factored
from .inner import open_inner

# What the adaptive variant starts from and how it goes on.
_KAPPA, _NU = 0.1, 1.5
# Constants of the termination tests: residual of the first; of c and of the gradient in the
# second; the share of the model that the weight must keep.
_KAPPA_1, _EPS, _BETA, _TAU = 0.1, 0.1, 1.0, 0.1
_SHARE, _ARMIJO, _ROUNDS, _HALVINGS, _WEIGHT_MAX = 0.09, 1e-8, 60, 40, 1e16
# Each round of a solve asks for this part of the residual of the last one, down to rounding.
_TIGHTER, _EXACT = 0.25, 1e-12


class Model(NamedTuple):
    """What a direction does: slope of f, curvature (if positive), and rows before and after."""

    slope: float
    curved: float
    c: float
    left: float

    def falls(self, weight):
        """Return the fall of the model of the merit function."""
        return -self.slope - self.curved + weight * (self.c - self.left)

    def enough(self, weight):
        """Tell whether it falls enough for what is left of the rows."""
        return self.falls(weight) >= _SHARE * weight * max(self.c, self.left - self.c)


class _Step(NamedTuple):
    d: Any
    model: Model
    iterations: int


def solve_l1(problem, watch, options, start):
    """Take inexact Newton steps, judged by the l1 merit function, as `solve_eal` has them.

    Parameters
    ----------
    problem : Standard or what wraps it
    watch : Watch
    options : Options
    start : Answer

    Returns
    -------
    Answer
    """
    be, xp, n = problem.be, problem.xp, problem.n
    inner = open_inner("gmres" if options.inner == "auto" else options.inner, options)
    shifts, weight = Shifts(), 1.0
    accuracy = (_Tests if options.method == "gmres-l1-tests" else _Adaptive)(inner, be)
    watch.inner, watch.globalization = inner.name, "l1"
    point, lam = problem.point(start.z), start.lam
    if watch.begin(problem, point, start):
        return start
    for _ in watch.run:
        F = xp.concatenate([point.gradient(lam), point.c])
        B = problem.curvature(point, lam).B
        saddle = factored(B, point.G, inner, shifts, be=be, r=-F, tol=accuracy.kappa)
        if saddle is None:
            watch.run.end(Status.STALLED, "No shift makes the Hessian convex.")
            break
        step, weight = accuracy.solve(point, saddle, F, weight, shifts.d)
        if step is None:
            watch.run.end(Status.STALLED, "No weight makes the step descend.")
            break
        found = _search(problem, point, step, weight)
        if found is None:
            watch.run.end(Status.STALLED, "The line search found no descent.")
            break
        new, alpha = found
        new_lam = lam + alpha * step.d[n:]
        problem.moved(point, lam, new, new_lam, alpha)
        point, lam = new, new_lam
        answer = problem.answer(point, lam)
        its = shifts.iterations + step.iterations
        if watch.record(problem, point, answer, alpha=alpha, inner_its=its, eta1=weight):
            break
    return problem.answer(point, lam)


def _search(problem, point, step, weight):
    """Return the first new point with enough descent and its alpha, or None."""
    be, dx = problem.be, step.d[: problem.n]
    fall, alpha = step.model.falls(weight), problem.longest(point.z, dx)
    for _ in range(_HALVINGS):
        new = problem.point(point.z + alpha * dx)
        change = new.f - point.f + weight * (_size(new.c, be) - step.model.c)
        rounding = 1e-13 * (1 + abs(point.f) + weight * step.model.c)
        if change <= rounding - _ARMIJO * alpha * fall:
            return new, alpha
        alpha /= 2
    return None


# ---------------------------------------------------------------- how accurate a step must be
class _Inexact:
    """Solves for a step in rounds, each more accurate, until it is good enough."""

    kappa = _KAPPA

    def __init__(self, inner, be):
        self._inner, self._be = inner, be

    def solve(self, point, saddle, F, weight, d):
        """Return a `_Step` or None, and the weight that it is good for."""
        be, n, its, tol = self._be, saddle.n, 0, self.kappa
        for _ in range(_ROUNDS):
            solved = self._inner.solve(-F, d0=d, tol=tol)
            d, its = solved.d, its + solved.iterations
            rho = saddle @ d + F
            model = _model(point, saddle, d[:n], rho[n:], be)
            sizes = _size(rho, be) / _size(F, be), _size(rho[:n], be)
            good, weight = self._judge(model, *sizes, weight)
            if good:
                return _Step(d, model, its), weight
            if not weight <= _WEIGHT_MAX:
                break
            tol = max(_TIGHTER * tol, _EXACT)
        return None, weight


class _Adaptive(_Inexact):
    """A residual below ``kappa ||F||_1``; kappa falls while the weight rises."""

    def _judge(self, model, residual, _, weight):
        if residual > self.kappa:
            return False, weight
        while not model.enough(weight):
            weight *= _NU
            self.kappa = max(self.kappa / _NU**2, 10 * _EXACT)
            if residual > self.kappa or not weight <= _WEIGHT_MAX:
                return False, weight
        return True, weight


class _Tests(_Inexact):
    """The termination tests: of the whole residual, or of the rows' with a heavier weight."""

    kappa = _KAPPA_1

    def _judge(self, model, residual, above, weight):
        if model.enough(weight) and residual <= _KAPPA_1:
            return True, weight
        if model.left > _EPS * model.c or (above > _BETA * model.c and residual > 10 * _EXACT):
            return False, weight
        gained = (1 - _TAU) * (model.c - model.left)
        if gained > 0:
            weight = max(weight, (model.slope + model.curved) / gained)
        return model.enough(weight), weight


def _model(point, saddle, dx, left, be):
    curved = be.host(dx @ (saddle.B @ dx))
    return Model(
        be.host(point.g @ dx), max(0.5 * curved, 0.0), _size(point.c, be), _size(left, be)
    )


def _size(v, be):
    return be.host(abs(v).sum()) if len(v) else 0.0
