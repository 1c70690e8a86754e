"""Newton steps on the optimality conditions, with the exact augmented Lagrangian as merit."""

import math
from typing import Any, NamedTuple

from .._core.result import Status
from ._auglag import descend
from ._convexify import factored
from ._filter import solve_filter
from ._matrices import is_operator
from ._merit import Weights, slope
from ._search import LineSearch
from .inner import forcing, open_inner
from .inner._projection import multipliers, open_projection

# Rounds of a tighter solve, then of heavier weights, in search of a direction of descent.
_TIGHTER, _ROUNDS, _NU = 6, 60, 1.5
_ETA1_MAX, _ETA2_MIN = 1e12, 1e-14
# Multipliers of rows that depend on each other have no bound; beyond this they are fitted anew.
_LAM_MAX = 1e10
# The first weight starts at no less than this part of that of `eta`.
_LIGHTEST = 1e-3
# What is left of a system that was solved as well as rounding lets it.
_EXACT = 1e-10
# Steps shorter than this, and so many of them, are trouble.
_SHORT, _SHORT_STEPS = 1e-3, 3
# Iterations without progress after which the next solver has its turn.
_PATIENCE, _PATIENCE_OF_OTHERS = 25, 100
# Unless the residual fell to this part of the first one, the filter had better start afresh.
_ASTRAY = 1e-3


class Step(NamedTuple):
    """A direction in which M descends, and what it took to find it.

    `slope` is the derivative of M along it for `weights`, `delta` the accuracy that was asked of
    the inner solver, `dependent` tells whether rows depend on each other.
    """

    dx: Any
    dl: Any
    slope: float
    weights: Weights
    iterations: int
    residual: float
    delta: float
    dependent: bool = False


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
    auto = options.globalization == "auto"
    watch.wait(_PATIENCE if auto else math.inf, hopeful=auto)
    answer, trouble = _steps(problem, watch, options, start, impatient=auto)
    if watch.run.status is not None or trouble is None or watch.certified(problem, answer):
        return answer
    if auto:
        astray = not watch.residual.kkt <= _ASTRAY * watch.first_kkt
        return _others(problem, watch, options, start, start if astray else answer)
    watch.run.end(Status.STALLED, trouble)
    return answer


def _others(problem, watch, options, start, nearer):
    """Go on with one solver after the other, until the run ends, where M led nowhere.

    The filter, for as long as it makes progress; slower but steadier Newton steps that may raise
    the residual; the augmented Lagrangian, which minds no rows that depend on each other, from the
    start; and the filter from where that ended.
    """
    watch.wait(_PATIENCE_OF_OTHERS)
    answer = solve_filter(problem, watch, options, nearer)
    if not watch.tired:
        return answer
    watch.wait(_PATIENCE_OF_OTHERS)
    watch.globalization = "eal"
    answer, _ = _steps(problem, watch, options, start, impatient=False)
    if watch.run.status is None:
        watch.wait(math.inf)
        answer, _ = descend(problem, watch, options, start)
    if watch.run.status is None:
        answer = solve_filter(problem, watch, options, answer)
    return answer


def _steps(problem, watch, options, start, *, impatient):
    """Return where the steps ended, and in what trouble, or None.

    If impatient, steps that are very short are trouble.
    """
    be, xp = problem.be, problem.xp
    inner, shifts = open_inner(options.inner, options), watch.shifts
    watch.inner = inner.name
    point, lam = problem.point(start.z), start.lam
    if watch.begin(problem, point, start):
        return start, None
    weights, short, search = None, 0, LineSearch(problem)
    for _ in watch.run:
        F = xp.concatenate([point.gradient(lam), point.c])
        curvature = problem.curvature(point, lam)
        if weights is None:
            weights = _first_weights(options.eta, point.gradient(lam), curvature, be)
        step, trouble = _direction(point, lam, F, curvature, inner, shifts, weights, options, be)
        taken = search.back() if step is None else search.take(point, lam, step)
        if taken is None:
            return problem.answer(point, lam), trouble or "The line search found no descent."
        if taken.step.dependent and be.host(abs(taken.new_lam).max()) > _LAM_MAX:
            taken = taken._replace(new_lam=multipliers(taken.new, be=be))
        problem.moved(taken.point, taken.lam, taken.new, taken.new_lam, taken.alpha)
        if hasattr(inner, "took"):
            inner.took(taken.alpha / problem.longest(taken.point.z, taken.step.dx))
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
            return answer, "The residual does not fall any more." if watch.tired else None
        if taken.rounded and not watch.falling and watch.certified(problem, answer):
            return answer, None
        short = short + 1 if taken.alpha < _SHORT else 0
        if impatient and short >= _SHORT_STEPS:
            return answer, "The steps became too short."
    return problem.answer(point, lam), None


def _first_weights(eta, r, curvature, be):
    """Return the weights for a start.

    Violations weigh less where the gradient is small, or steps along curved constraints would
    have to be short; the second weight is not to fight the curvature of its square.
    """
    Hr = curvature.product(r)
    rr, hh, steepest = be.host(r @ r, Hr @ Hr, abs(r).max())
    lighter = min(1.0, max(steepest**2, _LIGHTEST))
    return Weights(eta[0] * lighter, eta[1] / max(1.0, math.sqrt(hh / rr) if rr else 1.0))


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
        if saddle.delta:
            # Without the part that changes nothing, which the regularisation leaves very long.
            dl = open_projection(point.G, be=be).rows(point.G.T @ dl)
        product = curvature.product
        if curvature.exact and is_operator(curvature.B):
            # Products are dear: what is left of the system tells that with dx.
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
    return Step(dx, dl, parts.at(weights), weights, its, residual, delta, saddle.delta > 0), None


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
