"""Numba kernels of block coordinate descent; `gpu.py` launches their CUDA twins.

`loss` and `penalty` are tuples from `solvers.losses.bind` and `solvers.penalties.bind`; kernels
are compiled for their classes, see `_core.kernels.rules`. Sums run in float64.
"""

from math import exp, log

from ..._core.kernels.jit import EXACT, REDUCE, kernel
from ..._core.kernels.rules import (
    distance,
    loss_curvature,
    loss_derivative,
    loss_value,
    penalty_value,
    prox,
)


@kernel(fastmath=REDUCE)
def loss_sum(loss, y, z, s):
    """Return the weighted sum of losses."""
    total = 0.0
    for i in range(y.size):
        total += s[i] * loss_value(loss, y[i], z[i])
    return total


@kernel(fastmath=REDUCE)
def loss_change(loss, y, z, dz, t, s):
    """Return by how much a step ``t dz`` changes the weighted sum of losses."""
    total = 0.0
    for i in range(y.size):
        total += s[i] * (loss_value(loss, y[i], z[i] + t * dz[i]) - loss_value(loss, y[i], z[i]))
    return total


@kernel(fastmath=EXACT)
def loss_slopes(loss, y, z, s, out):
    """Set `out` to the weighted first derivatives."""
    for i in range(y.size):
        out[i] = s[i] * loss_derivative(loss, y[i], z[i])


@kernel(fastmath=EXACT)
def loss_curvatures(loss, y, z, s, out):
    """Set `out` to the weighted second derivatives."""
    for i in range(y.size):
        out[i] = s[i] * loss_curvature(loss, y[i], z[i])


@kernel(fastmath=EXACT)
def softmax_sum(y, z, s):
    """Return the weighted sum of ``log(sum_k exp(z_k)) - z_y``."""
    total = 0.0
    for i in range(y.size):
        top = z[i, 0]
        for k in range(1, z.shape[1]):
            top = max(top, z[i, k])
        weight = 0.0
        for k in range(z.shape[1]):
            weight += exp(z[i, k] - top)
        total += s[i] * (log(weight) + top - z[i, y[i]])
    return total


@kernel(fastmath=EXACT)
def softmax_slopes(y, z, s, out):
    """Set `out` to the weighted derivatives: probabilities less the class."""
    for i in range(y.size):
        top = z[i, 0]
        for k in range(1, z.shape[1]):
            top = max(top, z[i, k])
        weight = 0.0
        for k in range(z.shape[1]):
            out[i, k] = exp(z[i, k] - top)
            weight += out[i, k]
        for k in range(z.shape[1]):
            out[i, k] *= s[i] / weight
        out[i, y[i]] -= s[i]


@kernel(fastmath=EXACT)
def penalty_sum(penalty, w):
    """Return the sum of a penalty over coefficients."""
    total = 0.0
    for j in range(w.size):
        total += penalty_value(penalty, w[j], j)
    return total


@kernel(fastmath=EXACT)
def prox_all(penalty, v, steps, out):
    """Set `out` to the proximal points of v, each with its own step."""
    for j in range(v.size):
        out[j] = prox(penalty, v[j], steps[j], j)


@kernel(fastmath=EXACT)
def distances(penalty, w, g, out):
    """Set `out` to the distances of -g from the subdifferential: the GS-s score."""
    for j in range(w.size):
        out[j] = distance(penalty, w[j], g[j], j)


@kernel(fastmath=EXACT)
def prox_steps(penalty, w, g, L, out):
    """Set `out` to the proximal steps ``prox(w - g / L) - w``; 0 where L is 0."""
    for j in range(w.size):
        out[j] = 0.0
        if L[j] > 0.0:
            out[j] = prox(penalty, w[j] - g[j] / L[j], 1.0 / L[j], j) - w[j]


@kernel(fastmath=EXACT)
def prox_scores(penalty, w, g, L, out):
    """Set `out` to what a proximal step of one coefficient gains at least: the GS-q score."""
    for j in range(w.size):
        out[j] = 0.0
        if L[j] > 0.0:
            # In double precision: a gain is a difference of nearly equal numbers.
            old = 1.0 * w[j]
            new = prox(penalty, old - g[j] / L[j], 1.0 / L[j], j)
            d = new - old
            before, after = penalty_value(penalty, old, j), penalty_value(penalty, new, j)
            gain = before - after - d * (g[j] + 0.5 * L[j] * d)
            # Of a short step only this, which is part of every gain, is more than rounding.
            least = 0.5 * L[j] * d * d
            out[j] = max(gain, 0.0) if gain > 1e-13 * max(before, after) else least
