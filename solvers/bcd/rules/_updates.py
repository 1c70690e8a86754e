"""How a block moves: the updates of the paper, and their forms for penalties and bounds.

Each ``make(state, options)`` returns ``step(number, block)``, which moves the state and tells by
how much the objective fell.
"""

import math

import numpy as np

from ... import losses
from ._block import ARMIJO, BreakdownError, Memory, View, factorise, largest_eigenvalue
from ._register import register_update

_DOUBLINGS = 60
# After so many steps in a row at the first trial, an estimate is halved.
_PATIENCE = 20
# How much smaller an exact update makes a block's violation, unless the loss is a quadratic.
_EXACT, _EXACT_STEPS = 1e-2, 50


def gradient(state, options):
    """Step along the gradient, ``-g / L`` with the largest curvature of the block."""
    view = View(state)
    curvature = Memory(lambda b: largest_eigenvalue(state.bound(b), view.be), lambda _: 8)

    def step(number, block):
        part = view.part(block)
        return view.take(part, block, view.prox_step(part, curvature(number, block)))

    return step


def lipschitz_ls(state, options):
    """Step along the gradient with a curvature that is found by doubling."""
    view, xp = View(state), state.problem.xp
    estimate = _first_estimates(state)
    successes = xp.zeros(estimate.size, np.int64)

    def step(number, block):
        part = view.part(block)
        L, wins = view.be.host(estimate[block].max(), successes[block].min())
        if wins >= _PATIENCE:
            L, successes[block] = 0.5 * L, 0
        trial = L
        for _ in range(_DOUBLINGS):
            line = state.line(block, view.prox_step(part, L))
            if view.excess(part, line, L) <= line.rounding():
                break
            L *= 2.0
        else:
            raise BreakdownError(
                f"The curvature of a block was not found in {_DOUBLINGS} doublings."
            )
        change = view.change(part, line)
        estimate[block] = L
        successes[block] = 0 if trial != L else successes[block] + 1
        state.move(line)
        return -change

    return step


def _first_estimates(state):
    xp, L = state.problem.xp, state.lipschitz
    if bool(state.problem.be.host(xp.isfinite(L).all())):
        return xp.where(L > 0, L, max(float(state.problem.be.host(L.max())), 1e-300))
    # A loss without a largest curvature: what it is at the start.
    design, curvature = state.problem.design, state.problem.curvatures(state.z)
    square = design.moments(curvature.astype(np.float64))[0]
    return xp.maximum(square, 1e-12 * float(state.problem.be.host(square.max())) or 1.0)


def matrix(state, options):
    """Minimise the model with a matrix that bounds the Hessian everywhere."""
    view = View(state)
    if not view.smooth:
        bound = Memory(state.bound)

        def step(number, block):
            part = view.part(block)
            return view.take(part, block, view.newton_step(part, bound(number, block)))

        return step

    def factor(block):
        ridge = state.penalty.ridge[block].astype(np.float64)
        return factorise(state.bound(block) + view.xp.diag(ridge), view.ridge, view.be)

    factors = Memory(factor, lambda _: 8 * _block_size(options, state) ** 2)

    def smooth_step(number, block):
        part = view.part(block)
        return view.take(part, block, factors(number, block)(-part.g))

    return smooth_step


def _block_size(options, state):
    return options.block_size or state.problem.size


def newton(state, options):
    """Take a Newton step of the block, shortened until the objective falls enough."""
    view = View(state)
    # With a concave penalty the model must bend as much as the loss may, or it has no minimiser.
    hessian = state.hessian if state.problem.convex else state.bound

    def step(number, block):
        part = view.part(block)
        return view.search(part, block, view.newton_step(part, hessian(block)))

    return step


def exact(state, options):
    """Minimise over the block: at once for quadratics, by Newton steps for other losses."""
    if _quadratic(state.problem):
        return matrix(state, options)
    view, once = View(state), newton(state, options)

    def step(number, block):
        goal, fell = _EXACT * view.violation(view.part(block)), 0.0
        for _ in range(_EXACT_STEPS):
            change = once(number, block)
            fell += change
            if change <= 0.0 or view.violation(view.part(block)) <= goal:
                break
        return fell

    return step


def _quadratic(problem):
    return problem.quadratic or isinstance(problem.loss, losses.Squared)


def cubic(state, options):
    """Minimise the second-order model with a cubic term that bounds the rest."""
    view = View(state)
    third = Memory(state.third, lambda _: 8)

    def step(number, block):
        part = view.part(block)
        H = state.hessian(block) + view.xp.diag(part.ridge)
        return view.take(part, block, cubic_step(H, part.g, third(number, block), view))

    return step


def cubic_step(H, g, M, view):
    """Return the minimiser of ``g d + d H d / 2 + M/6 |d|^3``, H positive semi-definite."""
    if M == 0.0:
        return factorise(H, view.ridge, view.be)(-g)
    xp, host = view.xp, view.be.host
    values, vectors = xp.linalg.eigh(H)
    values, turned = xp.maximum(values, 0.0), vectors.T @ g
    values, h = host(values), host(turned)
    values, h = np.atleast_1d(values), np.atleast_1d(h)
    size = math.sqrt(h @ h)
    if size == 0.0:
        return xp.zeros_like(g)
    # The multiplier solves lam = M/2 |d(lam)|; 1/|d| - M/(2 lam) rises and is concave, so that
    # Newton's steps from the lower bound come from one side.
    top, product = values[-1], M * size
    lam = product / (top + math.sqrt(top * top + 2.0 * product))
    upper = math.sqrt(0.5 * product)
    for _ in range(100):
        q = h / (values + lam)
        norm = math.sqrt(q @ q)
        value = 1.0 / norm - M / (2.0 * lam)
        slope = (q @ (q / (values + lam))) / norm**3 + M / (2.0 * lam * lam)
        new = min(lam - value / slope, upper)
        if not abs(new - lam) > 1e-15 * lam:
            break
        lam = new
    return -(vectors @ xp.asarray(h / (values + lam)))


def two_metric(state, options):
    """Newton steps for unknowns away from kinks and bounds, gradient steps for the others."""
    view, xp = View(state), state.problem.xp
    host = view.be.host

    def step(number, block):
        part = view.part(block)
        x, p = part.x, _orthant(part, xp)
        reach = float(host(abs(x - xp.clip(x - p.g, p.lo, p.hi)).max()))
        near = min(1e-4 * max(1.0, float(host(abs(x).max()))), reach)
        held = ((x <= p.lo + near) & (p.g > 0)) | ((x >= p.hi - near) & (p.g < 0))
        held |= p.lo >= p.hi
        H = state.hessian(block) + xp.diag(p.ridge)
        L = xp.maximum(H.diagonal(), 1e-12 * H.trace() / x.size)
        d = -p.g / xp.where(L > 0, L, 1.0)
        free = xp.flatnonzero(~held)
        if free.size:
            d[free] = factorise(H[free][:, free], view.ridge, view.be)(-p.g[free])
        slope = float(host(p.g[free] @ d[free])) if free.size else 0.0
        t = 1.0
        for _ in range(60):
            move = xp.clip(x + t * d, p.lo, p.hi) - x
            wanted = t * slope + float(host(p.g @ xp.where(held, move, 0.0)))
            line = state.line(block, move)
            change = view.change(part, line)
            excess = change - ARMIJO * wanted
            if excess <= 0.0 or excess <= view.noise():
                state.move(line)
                return -change
            t *= 0.5
        return 0.0

    return step


class _Orthant:
    """Where a penalty is smooth around a point: its bounds there, gradient and diagonal."""

    def __init__(self, g, ridge, lo, hi):
        self.g, self.ridge, self.lo, self.hi = g, ridge, lo, hi


def _orthant(part, xp):
    x, penalty = part.x, part.penalty
    if part.ridge is not None:
        return _Orthant(part.g, part.ridge, penalty.lo, penalty.hi)
    a, g = penalty.alpha, part.g + penalty.ridge * part.x
    # At zero: towards where the slope outweighs the penalty, if it does.
    side = xp.where(x != 0, xp.sign(x), xp.where(abs(g) > a, -xp.sign(g), 0.0))
    kinked = a > 0
    lo = xp.where(kinked & (side >= 0), xp.maximum(penalty.lo, 0.0), penalty.lo)
    hi = xp.where(kinked & (side <= 0), xp.minimum(penalty.hi, 0.0), penalty.hi)
    return _Orthant(xp.where(kinked & (side == 0), 0.0, g + a * side), penalty.ridge, lo, hi)


register_update("auto", None, about="The strongest of the others that suits the problem.")
register_update(
    "gradient",
    gradient,
    about="A step along the gradient, over the block's largest curvature.",
    lipschitz=True,
)
register_update(
    "lipschitz_ls", lipschitz_ls, about="The same, with a curvature that is found by doubling."
)
register_update(
    "matrix",
    matrix,
    about="The minimiser of the model with a bound of the block's Hessian.",
    lipschitz=True,
    newton=True,
)
register_update(
    "newton", newton, about="A Newton step of the block with a line search.", newton=True
)
register_update(
    "prox_newton",
    newton,
    about="A Newton step that keeps penalty and bounds as they are, with a line search.",
    newton=True,
)
register_update("exact", exact, about="The minimiser over the block.", newton=True)
register_update(
    "cubic",
    cubic,
    about="The minimiser of the model with a cubic term.",
    composite=False,
    cubic=True,
)
register_update(
    "two_metric",
    two_metric,
    about="A Newton step for the unknowns away from kinks and bounds, projected.",
    bounds=True,
)
