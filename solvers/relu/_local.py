"""Local descent on the network itself, and the search for neurons that would lower it.

A network is held as rows ``B`` (c, m, d) and signs (c, m): a neuron ``(x @ u)_+ a`` with
``|u| = |a|``, which a rescaling always attains at the least penalty, is the row ``u |a|`` and the
sign of a, and costs `beta` times the length of that row.
"""

import math

# Pairs that the curvature is estimated from.
_MEMORY = 10
# Least decrease, in units of the slope, and the part of the slope that must have gone.
_ARMIJO, _WOLFE = 1e-4, 0.9


def descend(be, X, loss, beta, B, signs, *, maxiter, tol=1e-9, late=None):
    """Return the network that L-BFGS leads to, as rows and signs.

    Parameters
    ----------
    tol : float
        Relative decrease of the objective in 10 iterations below which the descent ends.
    late : callable, optional
        Tells whether time is up.
    """
    xp = be.xp
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
    return A * abs(a)[..., None], xp.where(a < 0, -1.0, 1.0).astype(X.dtype)


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


def ascend(xp, X, z, U, *, maxiter=60):
    r"""Return unit vectors at local maxima of :math:`|z^T (X u)_+|`, and the values.

    Parameters
    ----------
    z : array, shape (c, n)
        Dual points, one per output.
    U : array, shape (k, d)
        Starts, shared by all outputs and both signs.

    Returns
    -------
    U : array, shape (c, 2, k, d)
        The points, for the maximum of z^T (X u)_+ and that of its negative.
    values : array, shape (c, 2, k)
    """
    length = xp.sqrt(xp.square(U).sum(axis=-1, keepdims=True))
    unit = (U / xp.where(length > 0, length, 1.0)).astype(X.dtype)
    both = xp.stack([z, -z], axis=1)[:, :, None, :].astype(X.dtype)
    U = xp.broadcast_to(unit, (*both.shape[:2], *unit.shape)).copy()
    values = _reach(xp, X, both, U)
    toward = _toward(xp, X, both, U)
    step = xp.ones(values.shape, dtype=X.dtype)
    for _ in range(maxiter):
        # The full step is not monotone where z has both signs, so each start has its own.
        trial = U + step[..., None] * (toward - U)
        length = xp.sqrt(xp.square(trial).sum(axis=-1, keepdims=True))
        trial /= xp.where(length > 0, length, 1.0)
        reached = _reach(xp, X, both, trial)
        better = reached > values
        if not bool((reached > values * (1 + 1e-7)).any()) and not bool((step > 0.05).any()):
            break
        U = xp.where(better[..., None], trial, U)
        values = xp.where(better, reached, values)
        step = xp.where(better, xp.minimum(1.3 * step, 1.0), 0.5 * step)
        toward = _toward(xp, X, both, U)
    return U, values


def _reach(xp, X, z, U):
    return (z * xp.maximum(U @ X.T, 0.0)).sum(axis=-1)


def _toward(xp, X, z, U):
    G = (z * (U @ X.T >= 0)) @ X
    length = xp.sqrt(xp.square(G).sum(axis=-1, keepdims=True))
    return G / xp.where(length > 0, length, 1.0)
