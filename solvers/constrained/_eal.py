"""Newton steps on the optimality conditions, with the exact augmented Lagrangian as merit."""

import math

from .._core.result import Status
from ._convexify import Shifts, factored
from ._merit import Weights, difference, slope
from .inner import open_inner

_ARMIJO, _HALVINGS, _ROUNDS = 1e-4, 40, 60
_ETA1_MAX, _ETA2_MIN, _NU = 1e12, 1e-14, 1.5


def solve_eal(problem, watch, options, start):
    """Take Newton steps from `start` until the run ends or the line search fails.

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
    inner, shifts = open_inner(options.inner, options), Shifts()
    watch.inner = inner.name
    point, lam = problem.point(start.z), start.lam
    weights = Weights(*options.eta)
    if watch.begin(problem, point, start):
        return start
    for _ in watch.run:
        r, c = point.gradient(lam), point.c
        F = xp.concatenate([r, c])
        size = be.host(xp.linalg.norm(F))
        curvature = problem.curvature(point, lam)
        saddle = factored(curvature.B, point.G, inner, shifts, be=be)
        if saddle is None:
            watch.run.end(Status.STALLED, "No shift makes the Hessian convex.")
            break
        solved = inner.solve(-F, tol=min(0.1, math.sqrt(size)))
        dx, dl = solved.d[:n], solved.d[n:]
        for _ in range(_ROUNDS):
            D = slope(point, lam, dx, dl, curvature.product, weights, be=be)
            if -0.5 * weights.eta2 * size**2 >= D:
                break
            weights = Weights(weights.eta1 * _NU**2, weights.eta2 / _NU)
        alpha = problem.longest(point.z, dx)
        for _ in range(_HALVINGS):
            new, new_lam = problem.point(point.z + alpha * dx), lam + alpha * dl
            change = difference(point, lam, new, new_lam, weights, be=be)
            if change <= alpha * _ARMIJO * D or abs(change) <= 1e-13 * (1 + abs(point.f)):
                break
            alpha /= 2
        else:
            watch.run.end(Status.STALLED, "The line search found no descent.")
            break
        problem.moved(point, lam, new, new_lam, alpha)
        point, lam = new, new_lam
        watch.eta = tuple(weights)
        answer = problem.answer(point, lam)
        if watch.record(
            problem,
            point,
            answer,
            alpha=alpha,
            inner_its=solved.iterations,
            eta1=weights.eta1,
            eta2=weights.eta2,
        ):
            break
    return problem.answer(point, lam)
