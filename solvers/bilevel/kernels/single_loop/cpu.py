"""Many stochastic steps in one call, for penalties of linear models; `gpu.py` has the twin."""

from math import log1p, sqrt

import numpy as np

from ...._core.kernels.jit import REDUCE, kernel
from ...._core.kernels.vmath import exp

SQUARED, LOGISTIC = 0, 1


@kernel(fastmath=REDUCE, inline=True)
def _loss(kind, m, t):
    """Return the loss of one prediction and its slope; the third kind is the squared hinge."""
    if kind == SQUARED:
        return 0.5 * (m - t) * (m - t), m - t
    if kind == LOGISTIC:
        e = exp(-abs(m))
        share = (1 if t * m < 0 else e) / (1 + e)
        return max(-t * m, 0) + log1p(e), -t * share
    room = max(1 - t * m, 0)
    return 0.5 * room * room, -t * room


@kernel(fastmath=REDUCE)
def single_loop(
    kind, X, t, V, tv, low, up, rates, group, P, lo, hi, normalize, x, D, both, means, work, work_x
):
    """Take one step for each row of `low`, on these samples of (X, t) and those of (V, tv) in `up`.

    The levels are mean losses, the lower one plus ``sum_j exp(x_group(j)) y_j^2 / 2``.

    Parameters
    ----------
    rates : (steps, 5) array
        For each step: length of lower steps, of upper steps, sigma, share of the newest gradient
        in D, and weight of the newest point in the means, in float64.
    P : (p,) array
        Scales of lower steps.
    lo, hi : (d,) arrays
        Bounds of x.
    x, D, both, means : arrays
        State; `both` is ``[y, z]``, of shape (2, p), and `means` are those of x, y, z in a row.
    work, work_x : (3, p) and (2, d) arrays
        Scratch.

    Returns
    -------
    float
        Sum of the steps' upper losses.
    """
    steps, b = low.shape
    p, d = P.size, x.size
    y, z, e, change = both[0], both[1], work_x[0], work_x[1]
    gy, gz, fy = work[0], work[1], work[2]
    half, slopes = x.dtype.type(0.5), np.empty((2, 4), x.dtype)
    total = 0.0
    for k in range(steps):
        eta, beta = x.dtype.type(rates[k, 0]), x.dtype.type(rates[k, 1])
        sigma, forget = x.dtype.type(rates[k, 2]), x.dtype.type(rates[k, 3])
        weight = x.dtype.type(rates[k, 4])
        work[:] = x.dtype.type(0)
        change[:] = x.dtype.type(0)
        _add_gradients(kind, X, t, low[k], both, work[:2], slopes)
        total += _add_gradients(kind, V, tv, up[k], both[:1], work[2:], slopes) / b
        for j in range(d):
            e[j] = exp(x[j])
        share = x.dtype.type(1 / b)
        for j in range(p):
            r = e[group[j]]
            change[group[j]] += half * r * (y[j] - z[j]) * (y[j] + z[j])
            toward = share * (gy[j] + sigma * fy[j]) + r * y[j]
            y[j] -= eta * toward / P[j]
            z[j] -= eta * (share * gz[j] + r * z[j]) / P[j]
        square = 0.0
        for j in range(d):
            D[j] += forget * (change[j] / sigma - D[j])
            square += D[j] * D[j]
        if normalize:
            beta = x.dtype.type(beta / (sqrt(square) + 1e-10))
        for j in range(d):
            x[j] = min(max(x[j] - beta * D[j], lo[j]), hi[j])
        if weight > 0:
            for j in range(d):
                means[j] += weight * (x[j] - means[j])
            for j in range(p):
                means[d + j] += weight * (y[j] - means[d + j])
                means[d + p + j] += weight * (z[j] - means[d + p + j])
    return total


@kernel(fastmath=REDUCE)
def _add_gradients(kind, X, t, rows, points, grads, slopes):
    """Add the gradients of the losses of some rows at each point; return the losses at the first.

    Four rows share one pass over each gradient.
    """
    total, last = 0.0, rows.size - 1
    for k in range(0, rows.size, 4):
        slopes[:] = slopes.dtype.type(0)
        for q in range(min(4, rows.size - k)):
            i = rows[k + q]
            for v in range(len(points)):
                loss, slopes[v, q] = _loss(kind, _dot(X[i], points[v]), t[i])
                if v == 0:
                    total += loss
        r0, r1 = X[rows[k]], X[rows[min(k + 1, last)]]
        r2, r3 = X[rows[min(k + 2, last)]], X[rows[min(k + 3, last)]]
        for v in range(len(points)):
            grad, s0, s1, s2, s3 = grads[v], slopes[v, 0], slopes[v, 1], slopes[v, 2], slopes[v, 3]
            for j in range(grad.size):
                grad[j] += s0 * r0[j] + s1 * r1[j] + s2 * r2[j] + s3 * r3[j]
    return total


@kernel(fastmath=REDUCE, inline=True)
def _dot(u, v):
    total = u.dtype.type(0)
    for j in range(u.size):
        total += u[j] * v[j]
    return total
