"""Numba kernels of loops over single coordinates and of blocks; `gpu.py` launches CUDA twins.

`loss` and `penalty` are tuples from `solvers.losses.bind` and `solvers.penalties.bind`. Sums run
in float64.
"""

from math import exp, expm1, log1p

from ...._core.kernels.jit import EXACT, REDUCE, kernel
from ...._core.kernels.rules import distance, loss_derivative, loss_value, penalty_value, prox

# Up to a move of this size the mean slope is a better difference than a difference of values.
_SMALL = 1e-5


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


@kernel(fastmath=REDUCE, inline=True)
def _dot(x, v):
    total = 0.0
    for i in range(x.size):
        total += x[i] * v[i]
    return total


@kernel(fastmath=EXACT)
def sweep_columns(loss, penalty, X, y, s, mean, L, order, w, c, z, r):
    """Minimise over one coefficient after the other, in the given order.

    Parameters
    ----------
    X : array, shape (p, n)
        Columns of the design, each contiguous.
    mean : array, shape (p,)
        What a step of a coefficient changes the intercept by, if that follows at once; else 0.
    L : array, shape (p,)
        Largest curvatures; coefficients without one stay.
    c : array, shape (1,)
        The intercept that follows. Predictions z (n,) leave it out.
    z, r : array, shape (n,)
        Predictions and weighted slopes; they move along with w (p,).

    Returns
    -------
    float
        The largest violation that was met.
    """
    worst, total = 0.0, 0.0
    for i in range(s.size):
        total += s[i]
    for k in range(order.size):
        j = order[k]
        if L[j] <= 0.0:
            continue
        g = _dot(X[j], r) + c[0] * mean[j] * total
        worst = max(worst, distance(penalty, w[j], g, j))
        old = 1.0 * w[j]
        w[j] = prox(penalty, old - g / L[j], 1.0 / L[j], j)
        # The step as it is stored: what follows it must not drift.
        d = w[j] - old
        if d != 0.0:
            c[0] -= d * mean[j]
            for i in range(y.size):
                z[i] += d * X[j, i]
                r[i] = s[i] * loss_derivative(loss, y[i], z[i])
    return worst


@kernel(fastmath=EXACT)
def sweep_entries(loss, penalty, indptr, indices, data, y, s, mean, L, order, w, c, z, r):
    """Do what `sweep_columns` does for a design in compressed columns."""
    worst, total = 0.0, 0.0
    for i in range(s.size):
        total += s[i]
    for k in range(order.size):
        j = order[k]
        if L[j] <= 0.0:
            continue
        g = c[0] * mean[j] * total
        for e in range(indptr[j], indptr[j + 1]):
            g += data[e] * r[indices[e]]
        worst = max(worst, distance(penalty, w[j], g, j))
        old = 1.0 * w[j]
        w[j] = prox(penalty, old - g / L[j], 1.0 / L[j], j)
        # The step as it is stored: what follows it must not drift.
        d = w[j] - old
        if d != 0.0:
            c[0] -= d * mean[j]
            for e in range(indptr[j], indptr[j + 1]):
                i = indices[e]
                z[i] += d * data[e]
                r[i] = s[i] * loss_derivative(loss, y[i], z[i])
    return worst


@kernel(fastmath=EXACT)
def sweep_gram(penalty, A, relax, order, x, g):
    """Minimise a quadratic over one unknown after the other; g is its gradient ``A x - b``.

    `relax` stretches each step; a step of length 0 of the proximal map projects to the bounds.
    Returns the largest violation that was met.
    """
    worst = 0.0
    for k in range(order.size):
        j = order[k]
        worst = max(worst, distance(penalty, x[j], g[j], j))
        L = A[j, j]
        if L <= 0.0:
            continue
        old = 1.0 * x[j]
        new = prox(penalty, old - g[j] / L, 1.0 / L, j)
        if relax != 1.0:
            new = prox(penalty, old + relax * (new - old), 0.0, j)
        x[j] = new
        d = x[j] - old
        if d != 0.0:
            for i in range(g.size):
                g[i] += d * A[j, i]
    return worst


@kernel(fastmath=EXACT)
def sweep_rows(penalty, indptr, indices, data, diagonal, relax, order, x, g):
    """Do what `sweep_gram` does for a matrix in compressed rows."""
    worst = 0.0
    for k in range(order.size):
        j = order[k]
        worst = max(worst, distance(penalty, x[j], g[j], j))
        L = diagonal[j]
        if L <= 0.0:
            continue
        old = 1.0 * x[j]
        new = prox(penalty, old - g[j] / L, 1.0 / L, j)
        if relax != 1.0:
            new = prox(penalty, old + relax * (new - old), 0.0, j)
        x[j] = new
        d = x[j] - old
        if d != 0.0:
            for e in range(indptr[j], indptr[j + 1]):
                g[indices[e]] += d * data[e]
    return worst


@kernel(inline=True)
def _score(penalty, rule, x, g, L, j):
    """Return what a step of one unknown promises; the rules are those of `greedy_steps`."""
    far = distance(penalty, x, g, j)
    if rule == 0:
        return far
    if L <= 0.0:
        return 0.0
    if rule == 1:
        return far * far / L
    new = prox(penalty, x - g / L, 1.0 / L, j)
    d = new - x
    if rule == 2:
        return L * d * d
    before, after = penalty_value(penalty, x, j), penalty_value(penalty, new, j)
    gain = before - after - d * (g + 0.5 * L * d)
    # Of a short step only this, which is part of every gain, is more than rounding.
    return gain if gain > 1e-13 * max(before, after) else 0.5 * L * d * d


@kernel(fastmath=EXACT)
def greedy_steps(penalty, rows, slot, L, rule, steps, x, g):
    """Minimise a quadratic over one unknown at a time, the one that promises most.

    Parameters
    ----------
    rows : array, shape (m, N)
        Rows of the Hessian.
    slot : array of int64, shape (N,)
        Where the row of each unknown is; -1: not there yet.
    L : array, shape (N,)
        Its diagonal.
    rule : int
        What promises most: 0 the distance to optimality, 1 its square over L, 2 the proximal
        step in the norm of L, 3 what that step gains.
    steps : int
        How many steps to take.
    x, g : array, shape (N,)
        Unknowns and gradient; they move.

    Returns
    -------
    int, int
        Steps that were taken, and the unknown whose row is missing; -1 for none.
    """
    for done in range(steps):
        best, j = 0.0, -1
        for k in range(x.size):
            # In double precision: gains are differences of nearly equal numbers.
            score = _score(penalty, rule, 1.0 * x[k], 1.0 * g[k], L[k], k)
            if score > best and L[k] > 0.0:
                best, j = score, k
        if j < 0:
            return done, -1
        if slot[j] < 0:
            return done, j
        old = 1.0 * x[j]
        x[j] = prox(penalty, old - g[j] / L[j], 1.0 / L[j], j)
        d = x[j] - old
        for k in range(x.size):
            g[k] += d * rows[slot[j], k]
    return steps, -1


@kernel(inline=True)
def _hinge_step(g, x, C, square):
    """Return the best value of one multiplier, where the slope is g."""
    if square > 0.0:
        return min(max(x - g / square, 0.0), C)
    return C if g < 0.0 else x


@kernel(fastmath=REDUCE)
def hinge_sweep(X, y, square, C, order, count, above, below, x, w, ends):
    """Minimise the dual of a support vector machine over one multiplier after the other.

    Parameters
    ----------
    X : array, shape (n, p)
    y, square : array, shape (n,)
        Labels -1 and 1, and squared norms of the rows.
    order : array of int64, shape (n,)
        The multipliers to visit are the first `count`; those that stay in sight are moved to
        the front.
    above, below : float
        Multipliers at 0 and at C leave sight if their slopes are beyond.
    x, w : array, shape (n,) and (p,)
        Multipliers and normal; they move.
    ends : array, shape (2,)
        Receives the smallest and largest projected slope.

    Returns
    -------
    int
        How many multipliers stay in sight.
    """
    kept, least, most = 0, 0.0, 0.0
    for k in range(count):
        i = order[k]
        g = y[i] * _dot(X[i], w) - 1.0
        if (x[i] <= 0.0 and g > above) or (x[i] >= C and g < below):
            continue
        order[k] = order[kept]
        order[kept] = i
        kept += 1
        new = _hinge_step(g, x[i], C, square[i])
        if not ((x[i] <= 0.0 and g > 0.0) or (x[i] >= C and g < 0.0)):
            least, most = min(least, g), max(most, g)
        old = 1.0 * x[i]
        x[i] = new
        d = (x[i] - old) * y[i]
        if d != 0.0:
            for j in range(w.size):
                w[j] += d * X[i, j]
    ends[0], ends[1] = least, most
    return kept


@kernel(fastmath=EXACT)
def hinge_sweep_rows(indptr, indices, data, y, square, C, order, count, above, below, x, w, ends):
    """Do what `hinge_sweep` does for samples in compressed rows."""
    kept, least, most = 0, 0.0, 0.0
    for k in range(count):
        i = order[k]
        g = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            g += data[e] * w[indices[e]]
        g = y[i] * g - 1.0
        if (x[i] <= 0.0 and g > above) or (x[i] >= C and g < below):
            continue
        order[k] = order[kept]
        order[kept] = i
        kept += 1
        new = _hinge_step(g, x[i], C, square[i])
        if not ((x[i] <= 0.0 and g > 0.0) or (x[i] >= C and g < 0.0)):
            least, most = min(least, g), max(most, g)
        old = 1.0 * x[i]
        x[i] = new
        d = (x[i] - old) * y[i]
        if d != 0.0:
            for e in range(indptr[i], indptr[i + 1]):
                w[indices[e]] += d * data[e]
    ends[0], ends[1] = least, most
    return kept
