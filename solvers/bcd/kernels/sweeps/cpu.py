"""Numba kernels of loops over single coordinates and of blocks; `gpu.py` launches CUDA twins.

`loss` and `penalty` are tuples from `solvers.losses.bind` and `solvers.penalties.bind`. Sums run
in float64.
"""

from math import exp, expm1, log1p

from ...._core.kernels.jit import EXACT, kernel
from ...._core.kernels.rules import distance, loss_derivative, loss_value, prox

# Up to a move of this size the mean slope is a better difference than a difference of values.
_SMALL = 1e-3


@kernel(fastmath=EXACT)
def loss_change(loss, y, z, dz, t, s):
    """Return the change of the weighted sum of losses when predictions move by ``t dz``."""
    total = 0.0
    for i in range(y.size):
        d = t * dz[i]
        if abs(d) < _SMALL:
            slope = loss_derivative(loss, y[i], z[i]) + loss_derivative(loss, y[i], z[i] + d)
            total += s[i] * 0.5 * d * slope
        else:
            total += s[i] * (loss_value(loss, y[i], z[i] + d) - loss_value(loss, y[i], z[i]))
    return total


@kernel(fastmath=EXACT)
def softmax_change(y, z, dz, t, s):
    """Return what `loss_change` does for ``log(sum_k exp(z_k)) - z_y``."""
    total = 0.0
    for i in range(y.size):
        top = z[i, 0]
        for k in range(1, z.shape[1]):
            top = max(top, z[i, k])
        weight, moved = 0.0, 0.0
        for k in range(z.shape[1]):
            e = exp(z[i, k] - top)
            weight += e
            moved += e * expm1(t * (dz[i, k] - dz[i, y[i]]))
        total += s[i] * log1p(moved / weight)
    return total


@kernel(fastmath=EXACT)
def add_rows(indptr, indices, data, rows, d, g):
    """Add the sum of rows of a matrix in compressed rows, times `d`, to g."""
    for k in range(rows.size):
        j = rows[k]
        for e in range(indptr[j], indptr[j + 1]):
            g[indices[e]] += d[k] * data[e]


@kernel(fastmath=EXACT)
def block_sweeps(penalty, H, g, x, sweeps, tol):
    """Minimise ``g d + d H d / 2 + penalty(x + d)`` over blocks of unknowns, one by one.

    `x` is moved to ``x + d`` and `g` to ``g + H d``; ends after `sweeps` rounds, or once no
    violation is above `tol`. Returns the largest violation of the last round.
    """
    worst = 0.0
    for _ in range(sweeps):
        worst = 0.0
        for j in range(x.size):
            worst = max(worst, distance(penalty, x[j], g[j], j))
            if H[j, j] <= 0.0:
                continue
            new = prox(penalty, x[j] - g[j] / H[j, j], 1.0 / H[j, j], j)
            d = new - x[j]
            if d != 0.0:
                x[j] = new
                for k in range(x.size):
                    g[k] += d * H[j, k]
        if worst <= tol:
            break
    return worst
