"""Local descent on the network itself, and the gates of where it ends.

A network is held as rows ``B`` (c, m, d) and signs (c, m): a neuron ``(x @ u)_+ a`` with
``|u| = |a|``, which a rescaling always attains at the least penalty, is the row ``u |a|`` and the
sign of a, and costs `beta` times the length of that row.
"""

import math

import numpy as np

from .._core.arrays import to_numpy
from ._gates import Patterns, draw_into

# Operations of a descent, and its iterations at least and at most.
_WORK, _FEWEST, _MOST = 2e11, 100, 1000
# Pairs that the curvature is estimated from.
_MEMORY = 10
# Least decrease, in units of the slope, and the part of the slope that must have gone.
_ARMIJO, _WOLFE = 1e-4, 0.9


def local_gates(programme, n, rng, late):
    """Return `n` gates, about half of them those of a local minimum, and that as blocks.

    The rest is drawn: descent knows only where it has been.
    """
    c, d = len(programme.Y), programme.X.shape[1]
    width = max(min(max(32, n // 2), n) // c, 1)
    A, a = rng.standard_normal((c, width, d)), rng.standard_normal((c, width))
    # Rows ``u |a|`` of hidden and output weights that preserve lengths on average.
    B = A * abs(a)[..., None] / math.sqrt(d * width)
    B, signs = descend(programme, B, np.sign(a), late=late)
    found = Patterns(to_numpy(programme.X))
    numbers = found.add(B.reshape(-1, d).T)
    draw_into(found, n, "gaussian", rng)
    gates = found.gates(max(n, c * width))
    return gates, placed(B, signs, numbers, len(gates))


def placed(B, signs, numbers, P):
    """Return blocks (c, 2, P, d) of a network whose neurons have the patterns `numbers`."""
    c, m, d = B.shape
    U = np.zeros((c, 2, P, d), dtype=B.dtype)
    output = np.repeat(np.arange(c), m)
    side = (signs < 0).astype(np.int64).reshape(-1)
    kept = numbers >= 0
    # Neurons of one pattern and one sign are one: their sum stays in the cone.
    np.add.at(U, (output[kept], side[kept], numbers[kept]), B.reshape(-1, d)[kept])
    return U


def descend(programme, B, signs, *, maxiter=None, tol=1e-7, late=None):
    """Return the network that L-BFGS leads to, as rows and signs, on the host.

    Parameters
    ----------
    tol : float
        Relative decrease of the objective in 10 iterations below which the descent ends.
    late : callable, optional
        Tells whether time is up.
    """
    if B.size == 0:
        return B, signs
    xp, X, loss, beta = programme.xp, programme.X, programme.loss, programme.beta
    B, signs = xp.asarray(B, dtype=X.dtype), xp.asarray(signs, dtype=X.dtype)
    if maxiter is None:
        maxiter = int(min(max(_WORK / (8.0 * B.size * len(X)), _FEWEST), _MOST))
    root = xp.sqrt(xp.sqrt(xp.square(B).sum(axis=-1, keepdims=True)))
    u = B / xp.where(root > 0, root, 1.0)
    start = xp.concatenate([u, signs[..., None] * root], axis=-1)

    def value_and_gradient(theta):
        theta = theta.reshape(start.shape)
        A, a = theta[..., :-1], theta[..., -1]
        H = A @ X.T
        # The slope of the loss is all that depends on how many samples a neuron sees.
        p = (a[:, None, :] @ xp.maximum(H, 0.0))[:, 0]
        G = ((H > 0) * loss.slope(p)[:, None, :]) @ X
        value = loss.value(p) + 0.5 * beta * float(xp.square(theta).sum())
        gradient = xp.concatenate([a[..., None] * G, (A * G).sum(axis=-1)[..., None]], axis=-1)
        return value, (gradient + beta * theta).reshape(-1)

    theta = minimise(xp, value_and_gradient, start.reshape(-1), maxiter, tol, late)
    theta = theta.reshape(start.shape)
    A, a = theta[..., :-1], theta[..., -1]
    return to_numpy(A * abs(a)[..., None]), np.where(to_numpy(a) < 0, -1.0, 1.0)


def minimise(xp, value_and_gradient, x, maxiter, tol, late=None):
    """Return where L-BFGS with a weak Wolfe line search leads from x."""
    value, g = value_and_gradient(x)
    steps, changes, seen = [], [], [value]
    for _ in range(maxiter):
        direction = -_two_loops(g, steps, changes)
        slope = float(direction @ g)
        if not slope < 0:
            direction, slope = -g, -float(g @ g)
        first = 1.0 if steps else 1.0 / max(math.sqrt(-slope), 1e-300)
        found = _line_search(value_and_gradient, x, value, direction, slope, first)
        if found is None and not steps:
            break
        if found is None:
            steps, changes = [], []
            continue
        s, value, new = found
        steps, changes = [*steps[1 - _MEMORY :], s], [*changes[1 - _MEMORY :], new - g]
        x, g = x + s, new
        seen.append(value)
        if (len(seen) > 10 and seen[-11] - value <= tol * abs(value)) or (late and late()):
            break
    return x


def _two_loops(g, steps, changes):
    if not steps:
        return g
    q, weights = g.copy(), []
    for s, y in zip(reversed(steps), reversed(changes), strict=True):
        weights.append((s @ q) / (s @ y))
        q -= weights[-1] * y
    q *= (steps[-1] @ changes[-1]) / (changes[-1] @ changes[-1])
    for s, y, w in zip(steps, changes, reversed(weights), strict=True):
        q += (w - (y @ q) / (s @ y)) * s
    return q


def _line_search(value_and_gradient, x, value, direction, slope, t):
    """Return step, value and gradient where the weak Wolfe conditions hold, None without one."""
    low, high = 0.0, math.inf
    for _ in range(30):
        s = t * direction
        new, gradient = value_and_gradient(x + s)
        along = float(gradient @ direction)
        if not new <= value + _ARMIJO * t * slope:
            high = t
        elif along < _WOLFE * slope:
            low = t
        else:
            return s, new, gradient
        t = 0.5 * (low + high) if high < math.inf else 2.0 * low
    return None
