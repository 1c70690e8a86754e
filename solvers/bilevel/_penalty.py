"""Quasi-Newton steps on the penalised value, with continuation in the penalty."""

from typing import NamedTuple

from .._core.result import Status
from .._core.validation import check_choice, check_positive
from ._descent import Descent, residual
from ._driver import solve
from ._envelope import Envelope, _norm, errors
from ._loops import LOOPS
from ._loops import minimise as loop

METHODS = ("auto", "lbfgs", "spg", *LOOPS)
# A stage may stop where the penalty's error is this many times the residual.
_KAPPA = 0.3


class Own(NamedTuple):
    """Options of `penalty` alone."""

    method: str
    sigma: float | None
    sigma_min: float | None
    order: int


def penalty(
    upper, lower=None, x0=None, y0=None, *, X=None, Y=None, method="auto", sigma=None,
    sigma_min=None, order=2, tol=None, tol_inner=None, maxiter=200, maxiter_inner=1000,
    time_limit=None, callback=None, progress=False, n_threads=None, rng=None, history=True,
    how="auto",
):  # fmt: skip
    """Minimise the optimistic value of a bilevel problem by first derivatives alone."""
    check_choice(method, "method", METHODS)
    if order not in (1, 2):
        raise ValueError(f"`order` came as {order!r}; expected 1 or 2")
    own = Own(
        method,
        check_positive(sigma, "sigma", allow_none=True),
        check_positive(sigma_min, "sigma_min", allow_none=True),
        order,
    )
    engine = loop if method in LOOPS else minimise
    return solve(
        "penalty", upper, lower, x0, y0, engine, X=X, Y=Y, tol=tol, tol_inner=tol_inner,
        maxiter=maxiter, maxiter_inner=maxiter_inner, time_limit=time_limit, callback=callback,
        progress=progress, n_threads=n_threads, rng=rng, history=history, how=how, own=own,
    )  # fmt: skip


def minimise(problem, watch, options):
    """Lower sigma in stages, each a descent of psi_sigma, until the certificate holds."""
    own, run = options.own, watch.run
    env = Envelope(
        problem, late=lambda: run.late, maxiter=options.maxiter_inner, tol_inner=options.tol_inner
    )
    S, eps = env.scales.sigma, problem.eps
    sigma = own.sigma or 0.1 * S
    least = own.sigma_min or S * (10 * eps**0.5 if own.order == 1 else eps ** (1 / 3))
    x = problem.x0
    for _ in run:
        x, verdict = _stage(problem, env, watch, options, x, sigma)
        if run.status is not None or run.late:
            continue
        if verdict and watch.certificate().holds:
            run.end(Status.CONVERGED)
        elif own.sigma is not None or sigma / 10 < least:
            run.end(Status.STALLED, f"The penalty reached {sigma:.3g}.")
        sigma /= 10
        env.theta = max(env.theta / 10, 1e-6) if not verdict else env.theta


def _stage(problem, env, watch, options, x, sigma):
    """Descend with one penalty; return the end and whether all estimates are within reach."""
    order, tol, run = options.own.order, options.tol, watch.run
    point = env.at(x, (sigma, sigma / 2, sigma / 4))
    e = errors(point)
    _keep(problem, env, watch, point, e, order)
    size = max(1.0, _norm(e.extrapolated))
    if _stat(problem, x, e.extrapolated) > max(tol, e.second / size):
        polish = order == 2 and e.first / size > tol >= e.second / size
        goal = tol if polish else max(tol, _KAPPA * e.first / size)

        def psi(v):
            if not polish:
                (side,) = env.at(v, (sigma,)).sides
                return side.value, side.grad, 8 * problem.eps * abs(side.g.value) / sigma
            one, half = env.at(v, (sigma, sigma / 2)).sides
            noise = 16 * problem.eps * abs(one.g.value) / sigma
            return 2 * half.value - one.value, 2 * half.grad - one.grad, noise

        grad = e.extrapolated if polish else e.grad
        unit = 0.1 * max(1.0, float(abs(x).max())) / max(float(abs(grad).max()), 1e-300)
        descent = Descent(psi, x, problem.X, unit=unit, memory=20, eps=problem.eps)
        while True:
            stat = _stat(problem, descent.v, descent.grad)
            env.accuracy = min(max(tol, stat), 2 * env.accuracy)
            if stat <= goal or run.late:
                break
            if not descent.step():
                env.theta = max(env.theta / 10, 1e-6)
                break
            x = descent.v
            watch.answer(x, env._ys[sigma])
            if watch.record(stat, fun=descent.value, sigma=sigma):
                break
        x = descent.v
        env.accuracy = max(tol, min(env.accuracy, stat))
        point = env.at(x, (sigma, sigma / 2, sigma / 4))
        e = errors(point)
        _keep(problem, env, watch, point, e, order)
        size = max(1.0, _norm(e.extrapolated))
    grad, err = (e.grad, e.first) if order == 1 else (e.extrapolated, e.second)
    return x, max(_stat(problem, x, grad), err / size) <= tol


def _stat(problem, x, d):
    return residual(x, d, problem.X, 1.0) / max(1.0, float(abs(d).max()))


def _keep(problem, env, watch, point, e, order):
    """Make the point the answer, with a solution of the lower level near y_sigma."""
    one, half, _ = point.sides
    tol = env.tolerance(half.sigma)
    y = env.minimiser(point.x, one.y, tol, precondition=False)
    grad, err = (e.grad, e.first) if order == 1 else (e.extrapolated, e.second)
    at_y = problem.lower.look(point.x, y)
    watch.answer(
        point.x, y, y_sigma=one.y, z=point.z, psi_lower=half.value, jac=grad, jac_err=err,
        optimality=_stat(problem, point.x, grad), sigma=one.sigma, g_z=point.g.value,
        lower_residual=(env._residual(y, at_y.gy), point.residual),
    )  # fmt: skip
