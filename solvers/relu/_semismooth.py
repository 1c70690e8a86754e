r"""Programmes without cones, solved by proximal steps whose inner problems Newton's method solves.

.. math:: \min_U \; L(F U) + \beta \sum_i \|U_i\|

Each outer step adds ``|U - U_k|^2 / (2 sigma) + |p - p_k|^2 / (2 tau)``, where ``p = F U`` is a
copy of the predictions. The dual of that, a function of z in R^n only, is concave with a Lipschitz
gradient for every loss; its generalised Hessian touches the groups that are not zero alone.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .._core.linalg import pcg
from .._core.result import Status

# Proximal weights at the start, tau and sigma in the unit of tau over the norm of F, and how
# they grow: with them the outer steps are few, and the Newton steps of each stay few.
_TAU, _SIGMA, _GROW, _GROW_SLOWLY = 1.0, 1000.0, 5.0, 2.0
# Beyond this tau a proximal point differs from its argument by more than rounding leaves of it.
_LARGEST = 1e6
# By what sigma grows at most, which only keeps it finite.
_FARTHEST = 1e15
# An outer step ends when its equation holds this much better than the last outer step moved ...
_INNER = 0.1
# ... or after so many Newton steps; weights grow slowly unless it took few.
_PATIENCE, _FEW = 15, 8
# Least derivative of a proximal map that counts: kinks would make Newton's systems singular.
_FLOOR = 1e-3


@dataclass
class Task:
    """One programme without cones.

    Attributes
    ----------
    be : Backend
    design : GatedData or Neurons
    loss : Loss
    norm : PerOutput, Frobenius or Nuclear
    beta : float
    """

    be: Any
    design: Any
    loss: Any
    norm: Any
    beta: float

    def objective(self, U, p):
        """Return loss plus penalty, p being the predictions of U."""
        return self.loss.value(p) + self.beta * self.norm.total(U)

    def bound(self, z, F):
        """Return a lower bound of the optimum and the dual point that gives it.

        F is ``F^T z``.
        """
        largest = self.norm.dual(F)
        k = self.loss.best(z, self.beta / largest if largest > 0 else math.inf)
        return self.loss.dual(k * z), k * z


@dataclass
class Centre:
    """Where the proximal terms of an outer step are centred, and their weights."""

    U: Any
    p: Any
    sigma: float
    tau: float


@dataclass
class Point:
    """What follows from a dual point z for a given centre.

    Attributes
    ----------
    T, U : array, shape (c, P, k)
        Weights before and after the shrinkage.
    p, r : array, shape (c, n)
        The loss's copy of the predictions, and what it exceeds them by: the gradient.
    value : float
        The concave function.
    upper : float
        The objective at U.
    lower, best : float and array
        The lower bound, and the multiple of z that it comes from.
    """

    z: Any
    T: Any
    U: Any
    p: Any
    r: Any
    value: float
    upper: float
    lower: float
    best: Any


class Best:
    """The best weights and the best dual point so far."""

    def __init__(self):
        self.U, self.z, self.upper, self.lower = None, None, math.inf, -math.inf

    def take(self, point):
        if point.upper < self.upper:
            self.U, self.upper = point.U, point.upper
        if point.lower > self.lower:
            self.z, self.lower = point.best, point.lower

    @property
    def gap(self):
        return (self.upper - self.lower) / max(abs(self.upper), 1e-300)


def minimise(task, run, tol, U=None, z=None):
    """Run from weights U, or zero, and a dual point where one is known; return the best."""
    best = Best()
    if U is None:
        y = task.loss.y
        U = task.be.xp.zeros((len(y), *task.design.shape), dtype=y.dtype)
    p = task.design.predictions(U)
    z = -task.loss.slope(p) if z is None else z
    centre = Centre(U, p, *_weights(task))
    first, point = centre.sigma, evaluate(task, centre, z)
    best.take(_at(task, U, p, point))
    if best.gap <= tol:
        run.end(Status.CONVERGED)
    task.design.keep_products()
    steps = 0
    for _ in run:
        point, size = search(task, centre, point, direction(task, centre, point))
        steps += 1
        best.take(point)
        if run.record(best.gap, fun_convex=best.upper, dual=best.lower, state=partial(vars, best)):
            break
        if steps == _PATIENCE or size == 0.0 or _solved(task, centre, point):
            grow = _GROW if steps <= _FEW else _GROW_SLOWLY
            sigma = min(grow * centre.sigma, _FARTHEST * first)
            tau = min(grow * centre.tau, _LARGEST)
            centre = Centre(point.U, point.p, sigma, tau)
            point, steps = evaluate(task, centre, point.z), 0
    return best


def evaluate(task, centre, z):
    """Return the point of z."""
    xp, design, loss, norm = task.be.xp, task.design, task.loss, task.norm
    F = design.transpose(z)
    T = centre.U + centre.sigma * F
    U = norm.shrink(T, centre.sigma * task.beta)
    p = loss.prox(centre.p - centre.tau * z, 1.0 / centre.tau)
    on = _active(task, U)
    fitted = design.only(on).predictions(U[:, on])
    penalty = task.beta * norm.total(U[:, on])
    value = (
        loss.value(p)
        + float((z * (p - fitted)).sum())
        + penalty
        + float(xp.square(p - centre.p).sum()) / (2.0 * centre.tau)
        + float(xp.square(U - centre.U).sum()) / (2.0 * centre.sigma)
    )
    upper = loss.value(fitted) + penalty
    inside = loss.clip(z)
    lower, best = task.bound(inside, F if inside is z else design.transpose(inside))
    return Point(z, T, U, p, p - fitted, value, upper, lower, best)


def direction(task, centre, point):
    """Return Newton's direction of ascent.

    Its equation is ``(tau W + sigma F M F^T) x = r`` with W and M the derivatives of the loss's
    and the norm's proximal maps.
    """
    be, xp, loss = task.be, task.be.xp, task.loss
    on = _active(task, point.U)
    design = task.design.only(on)
    M = task.norm.derivative(point.T[:, on], centre.sigma * task.beta)
    W = loss.prox_derivative(point.p, 1.0 / centre.tau)
    short = float(xp.sqrt(xp.square(point.r).sum()))
    added = xp.maximum(_FLOOR * min(1.0, short) - W.diagonal, 0.0)

    def product(x):
        x = x.reshape(point.r.shape)
        inner = design.predictions(M(design.transpose(x)))
        return (centre.tau * (W(x) + added * x) + centre.sigma * inner).reshape(-1)

    tol = min(1e-2, short / (1.0 + math.sqrt(float(xp.square(point.p).sum()))))
    precond = _preconditioner(xp, design, centre, M, W.diagonal + added)
    found = pcg(
        product, point.r.reshape(-1), be=be, precond=precond, tol=max(tol, 1e-12), maxiter=200
    )
    return found.x.reshape(point.r.shape)


def search(task, centre, point, x):
    """Return the first point along x that rises enough, and the step: 1, 1/2, 1/4, ..."""
    rise = float((point.r * x).sum())
    # Near the solution values agree to rounding errors, and steps are right all the same.
    noise = 100.0 * np.finfo(x.dtype).eps * abs(point.value)
    step = 1.0
    while step > 1e-6:
        new = evaluate(task, centre, point.z + step * x)
        if new.value >= point.value + 1e-4 * step * rise - noise:
            return new, step
        step *= 0.5
    return point, 0.0


def _weights(task):
    n_groups = task.design.shape[0]
    # Between the largest eigenvalue of F F^T and its trace.
    size = task.design.trace() / max(1.0, min(3.0, n_groups))
    return _SIGMA * _TAU / max(size, 1e-300), _TAU


def _active(task, U):
    xp = task.be.xp
    return xp.flatnonzero(abs(U).max(axis=(0, 2)))


def _solved(task, centre, point):
    """Tell whether the equation of this outer step holds well enough."""
    xp = task.be.xp
    left = math.sqrt(float(xp.square(point.r).sum()))
    moved = math.sqrt(
        float(xp.square(point.U - centre.U).sum()) / centre.sigma**2
        + float(xp.square(point.p - centre.p).sum()) / centre.tau**2
    )
    size_p, size_z = (math.sqrt(float(xp.square(a).sum())) for a in (point.p, point.z))
    return left / (1.0 + size_p) <= max(_INNER * moved / (1.0 + size_z), 1e-13)


def _preconditioner(xp, design, centre, M, W):
    """Return what solves Newton's system of each output as if it had no other."""
    solvers = [design.solver(centre.tau * w, centre.sigma, M.of(o)) for o, w in enumerate(W)]

    def apply(r):
        rows = zip(solvers, r.reshape(W.shape), strict=True)
        return xp.stack([solve(row) for solve, row in rows]).reshape(-1)

    return apply


def _at(task, U, p, point):
    """Return the point with weights U in place of its own."""
    upper = task.objective(U, p)
    return Point(point.z, U, U, p, point.r, point.value, upper, point.lower, point.best)
