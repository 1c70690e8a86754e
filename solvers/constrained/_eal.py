"""Newton steps on the optimality conditions, with the exact augmented Lagrangian as merit."""

import math
from typing import Any, NamedTuple

from .._core.result import Status
from ._convexify import Shifts, factored
from ._filter import solve_filter
from ._merit import Weights, slope
from ._search import LineSearch
from .inner import forcing, open_inner

# Rounds of a tighter solve, then of heavier weights, in search of a direction of descent.
_TIGHTER, _ROUNDS, _NU = 6, 60, 1.5
_ETA1_MAX, _ETA2_MIN = 1e12, 1e-14
# What is left of a system that was solved as well as rounding lets it.
_EXACT = 1e-10
# Steps shorter than this, and so many of them, or iterations without progress, are trouble.
_SHORT, _SHORT_STEPS, _PATIENCE, _FALL = 1e-3, 3, 25, 0.9
# Unless the residual fell to this part of the first one, the filter had better start afresh.
_ASTRAY = 1e-3


class Step(NamedTuple):
    """A direction in which M descends, and what it took to find it.

    `slope` is the derivative of M along it for `weights`, `delta` the accuracy that was asked of
    the inner solver.
    """

    dx: Any
    dl: Any
    slope: float
    weights: Weights
    iterations: int
    residual: float
    delta: float


def solve_eal(problem, watch, options, start):
    """Take Newton steps from `start` until the run ends, with a filter where M leads nowhere.

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
    if watch.globalization == "filter":
        # An earlier problem of a sequence went over to it.
        return solve_filter(problem, watch, options, start)
    watch.globalization = "eal"
    answer, trouble = _steps(problem, watch, options, start)
    if trouble is None or watch.certified(answer):
        return answer
    if options.globalization == "eal":
        watch.run.end(Status.STALLED, trouble)
        return answer
    astray = not watch.residual.kkt <= _ASTRAY * watch.first_kkt
    return solve_filter(problem, watch, options, start if astray else answer)


def _steps(problem, watch, options, start):
    """Return where the steps ended, and in what trouble, or None."""
    be, xp = problem.be, problem.xp
    inner, shifts = open_inner(options.inner, options), Shifts()
    watch.inner = inner.name
    point, lam = problem.point(start.z), start.lam
    if watch.begin(problem, point, start):
        return start, None
    weights, progress, search = None, _Progress(watch), LineSearch(problem)
    for _ in watch.run:
        F = xp.concatenate([point.gradient(lam), point.c])
        curvature = problem.curvature(point, lam)
        if weights is None:
            weights = _first_weights(options.eta, point.gradient(lam), curvature, be)
        step, trouble = _direction(point, lam, F, curvature, inner, shifts, weights, options, be)
        taken = search.back() if step is None else search.take(point, lam, step)
        if taken is None:
            return problem.answer(point, lam), trouble or "The line search found no descent."
        problem.moved(taken.point, taken.lam, taken.new, taken.new_lam, taken.alpha)
        if hasattr(inner, "took"):
            inner.took(taken.alpha / problem.longest(point.z, taken.step.dx))
        point, lam, step = taken.new, taken.new_lam, taken.step
        weights, watch.inner = step.weights, inner.name
        watch.eta = weights
        answer = problem.answer(point, lam)
        if watch.record(
            problem,
            point,
            answer,
            alpha=taken.alpha,
            inner_its=step.iterations,
            inner_residual=step.residual,
            eta1=weights.eta1,
            eta2=weights.eta2,
            delta=step.delta,
        ):
            return answer, None
        if taken.rounded and watch.certified(answer):
            return answer, None
        if options.globalization == "auto" and (trouble := progress.trouble(taken.alpha)):
            return answer, trouble
    return problem.answer(point, lam), None


def _first_weights(eta, r, curvature, be):
    """Return the weights for a start; the second is not to fight the curvature of its square."""
    Hr = curvature.product(r)
    rr, hh = be.host(r @ r, Hr @ Hr)
    return Weights(eta[0], eta[1] / max(1.0, math.sqrt(hh / rr) if rr else 1.0))


# ---------------------------------------------------------------- the direction
def _direction(point, lam, F, curvature, inner, shifts, weights, options, be):
    """Return a `Step` of sufficient descent and None, or None and why there is none.

    Where M does not descend the system is solved more accurately first, as far as that goes; then
    violations weigh more and the gradient's square less.
    """
    n, square = len(point.z), be.host(F @ F)
    delta = forcing(options, math.sqrt(square), point.problem.f_scale)
    tighter = _TIGHTER
    saddle = factored(curvature.B, point.G, inner, shifts, be=be, r=-F, tol=delta)
    if saddle is None:
        return None, "No shift makes the Hessian convex."
    d, its = shifts.d, shifts.iterations
    while True:
        solved = inner.solve(-F, d0=d, tol=delta)
        d, its = solved.d, its + solved.iterations
        dx, dl = d[:n], d[n:]
        product = curvature.product
        if curvature.exact:
            # What is left of the system tells the Hessian's product with dx.
            Hdx = solved.residual[:n] - F[:n] - point.G.T @ dl - saddle.tau * dx
            product = lambda _, Hdx=Hdx: Hdx  # noqa: E731
        parts = slope(point, lam, dx, dl, product, be=be)
        residual = math.sqrt(be.host(solved.residual @ solved.residual) / (square or 1.0))
        if -0.5 * weights.eta2 * square >= parts.at(weights):
            break
        if tighter == 0 or residual <= _EXACT:
            weights = _heavier(parts, weights, square)
            if weights is None:
                return None, "No weights make the step descend."
            break
        tighter, delta = tighter - 1, delta / _NU**2
    return Step(dx, dl, parts.at(weights), weights, its, residual, delta), None


def _heavier(parts, weights, square):
    """Return weights under which M descends enough, or None."""
    eta1, eta2 = weights
    for _ in range(_ROUNDS):
        eta1, eta2 = eta1 * _NU**2, eta2 / _NU
        if not (eta1 <= _ETA1_MAX and eta2 >= _ETA2_MIN):
            return None
        if -0.5 * eta2 * square >= parts.at(weights := Weights(eta1, eta2)):
            return weights
    return None


# ---------------------------------------------------------------- trouble
class _Progress:
    """Tells when the merit function leads nowhere."""

    def __init__(self, watch):
        self._watch, self._short = watch, 0
        self._best, self._since = watch.residual.kkt, 0

    def trouble(self, alpha):
        """Return a sentence if steps became too short or the residual does not fall."""
        self._short = self._short + 1 if alpha < _SHORT else 0
        self._since += 1
        if (kkt := self._watch.residual.kkt) < _FALL * self._best:
            self._best, self._since = kkt, 0
        if self._short >= _SHORT_STEPS:
            return "The steps became too short."
        if self._since >= _PATIENCE:
            return f"The residual has not fallen in {_PATIENCE} iterations."
        return None
