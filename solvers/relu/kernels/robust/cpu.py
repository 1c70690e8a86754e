"""Numba kernels of robust training; `gpu.py` launches their CUDA twins.

Every sample may move by `eps_j` in coordinate j. Work arrays and what they hold are float64;
data and results have the solver's precision.
"""

from concurrent.futures import ThreadPoolExecutor
from math import copysign, exp, sqrt

import numpy as np

from ...._core import threads
from ...._core.kernels.jit import REDUCE, kernel

# Losses, as `rows` knows them.
HINGE, LOGISTIC, SQUARED = 0, 1, 2
# A safeguarded Newton step at least halves a bracket in two tries; it needs five or so.
_TRIES = 80


def project(X, mask, eps, level, enough, tol, V, U, norm, index, weight, count):
    """Set U to the projections of V on the robust cones, block by block.

    The cone of gate i holds the u with ``e_ik x_k^T u >= eps^T |u|`` for all k. The projection
    is ``soft(v + A^T alpha, (1^T alpha) eps)`` for the alpha >= 0 that makes it shortest: few
    entries of it are not zero, and an active set of them is kept from call to call.

    Parameters
    ----------
    X : array, shape (n, d)
    mask : array of uint8, shape (P, n)
        The gates; the one of block b is ``b % P``.
    eps : array, shape (d,)
    level : float
        0; or 1 to append a coordinate, in which all rows are 1 and all blocks -1.
    enough : float
        A block is left as soon as it is known that the projection is not longer.
    tol : float
        How far outside, relative to its length, a projection may end.
    V, U : array, shape (B, d)
    norm : array, shape (B,)
        Set to the lengths of what U holds; with `level`, to the appended coordinate's.
    index, weight : array of int32 and of float64, shape (B, m)
        The active rows and their alpha, of this call's start and of its end.
    count : array of int32, shape (B,)
        How many are active.
    """
    m, d = index.shape[1], X.shape[1]
    # One, which has nothing to do, if there are no vectors.
    strips = max(min(threads.strips(V.shape[0] * X.size), V.shape[0]), 1)
    # A row of `rest` for each vector of work.
    work = np.empty((strips, m, d)), np.empty((strips, m, m)), np.empty((strips, 4, max(d, m)))

    def strip(t):
        room = tuple(part[t] for part in work)
        _project_strip(
            t, strips, X, mask, eps, level, enough, tol, V, U, norm, index, weight, count, *room
        )

    _in_threads(strip, strips)


def _in_threads(strip, strips):
    """Run strips of a loop side by side.

    They are long, and a kernel of its own threads would take three times as long to compile.
    """
    if strips == 1:
        strip(0)
    else:
        with ThreadPoolExecutor(strips) as pool:
            list(pool.map(strip, range(strips)))


@kernel()
def _project_strip(
    t, strips, X, mask, eps, level, enough, tol, V, U, norm, index, weight, count, M, H, rest
):
    for b in range(t, V.shape[0], strips):
        signs = mask[b % mask.shape[0]]
        count[b], norm[b] = _project_one(
            X, signs, eps, level, enough, tol, V[b], U[b], index[b], weight[b], count[b],
            M, H, rest[0], rest[1], rest[2], rest[3],
        )  # fmt: skip


@kernel()
def _project_one(
    X, signs, eps, level, enough, tol, v, u, index, weight, p, M, H, base, r, along, step
):  # fmt: skip
    """Project one block; return how many rows are active, and the length."""
    d, m = v.size, index.size
    length, total = 0.0, 0.0
    for _ in range(20 * m):
        total = _gather(X, signs, v, index, weight, p, base)
        length = _shorten(base, total, eps, r, d)
        gap = total - level if level > 0.0 else 0.0
        size = sqrt(length * length + gap * gap)
        if size <= enough:
            break
        largest = _bend(X, signs, eps, r, index, p, gap, M, step, d)
        new = -1
        if largest <= tol * size:
            new = _most_violated(X, signs, eps, r, gap, -tol * size, d)
            if new < 0 or p == m or _holds(index, p, new):
                break
            index[p], weight[p] = new, 0.0
            p += 1
            _bend(X, signs, eps, r, index, p, gap, M, step, d)
        if not _newton(M, H, step, p, d, 1.0 if level > 0.0 else 0.0):
            break
        p = _move(X, signs, eps, level, index, weight, p, base, total, along, step, d)
        # At the level of rounding a row may have to leave as soon as it has come.
        if new >= 0 and not _holds(index, p, new):
            break
    for j in range(d):
        u[j] = r[j]
    return p, (level - total if level > 0.0 else length)


@kernel(fastmath=REDUCE)
def _gather(X, signs, v, index, weight, p, base):
    """Set ``base = v + A^T alpha``; return the sum of alpha."""
    total = 0.0
    for j in range(v.size):
        base[j] = v[j]
    for h in range(p):
        k = index[h]
        a = weight[h] if signs[k] else -weight[h]
        total += weight[h]
        for j in range(v.size):
            base[j] += a * X[k, j]
    return total


@kernel(fastmath=REDUCE)
def _shorten(base, total, eps, r, d):
    """Set ``r = soft(base, total eps)``; return its length."""
    square = 0.0
    for j in range(d):
        x = max(abs(base[j]) - total * eps[j], 0.0)
        r[j] = copysign(x, base[j])
        square += x * x
    return sqrt(square)


@kernel(fastmath=REDUCE)
def _bend(X, signs, eps, r, index, p, gap, M, slope, d):
    """Set M to the active rows where r is not 0, `slope` to the gradient; return its size."""
    largest = 0.0
    for h in range(p):
        k = index[h]
        e = 1.0 if signs[k] else -1.0
        g = gap
        for j in range(d):
            # Where r is 0 it stays so: the coordinate does not feel a small change of alpha.
            row = e * X[k, j] - copysign(eps[j], r[j]) if r[j] != 0.0 else 0.0
            M[h, j] = row
            g += row * r[j]
        slope[h] = g
        largest = max(largest, abs(g))
    return largest


@kernel(fastmath=REDUCE)
def _most_violated(X, signs, eps, r, gap, limit, d):
    """Return the row that is furthest below `limit`, or -1."""
    price = -gap
    for j in range(d):
        price += eps[j] * abs(r[j])
    lowest, where = limit, -1
    for k in range(X.shape[0]):
        s = 0.0
        for j in range(d):
            s += X[k, j] * r[j]
        s = (s if signs[k] else -s) - price
        if s < lowest:
            lowest, where = s, k
    return where


@kernel()
def _holds(index, p, k):
    found = False
    for h in range(p):
        found |= index[h] == k
    return found


@kernel(fastmath=REDUCE)
def _newton(M, H, step, p, d, lift):
    """Replace the gradient in `step` by the Newton step; False if there is none."""
    trace = 0.0
    for h in range(p):
        for i in range(h + 1):
            s = lift
            for j in range(d):
                s += M[h, j] * M[i, j]
            H[h, i] = s
        trace += H[h, h]
    if not trace > 0.0:
        return False
    # Cholesky, and the two triangular systems; a trace of ridge for rows that depend.
    for h in range(p):
        H[h, h] += 1e-13 * trace
        for i in range(h + 1):
            s = H[h, i]
            for j in range(i):
                s -= H[h, j] * H[i, j]
            if i < h:
                H[h, i] = s / H[i, i]
            else:
                H[h, h] = sqrt(max(s, 1e-14 * trace))
    for h in range(p):
        s = -step[h]
        for j in range(h):
            s -= H[h, j] * step[j]
        step[h] = s / H[h, h]
    for q in range(p):
        h = p - 1 - q
        s = step[h]
        for j in range(h + 1, p):
            s -= H[j, h] * step[j]
        step[h] = s / H[h, h]
    return True


@kernel(fastmath=REDUCE)
def _move(X, signs, eps, level, index, weight, p, base, total, along, step, d):
    """Go along `step` to the lowest point within alpha >= 0; return how many rows are left."""
    change, far = 0.0, 1.0
    for j in range(d):
        along[j] = 0.0
    for h in range(p):
        k = index[h]
        change += step[h]
        if weight[h] + far * step[h] < 0.0:
            far = -weight[h] / step[h]
        a = step[h] if signs[k] else -step[h]
        for j in range(d):
            along[j] += a * X[k, j]
    low, high, t = 0.0, far, far
    # The slope along the step increases; mostly it is still negative at the end.
    for _ in range(60):
        slope = (total + t * change - level) * change if level > 0.0 else 0.0
        bend = change * change if level > 0.0 else 0.0
        shrink = total + t * change
        for j in range(d):
            x = base[j] + t * along[j]
            y = abs(x) - shrink * eps[j]
            if y > 0.0:
                direction = (along[j] if x > 0.0 else -along[j]) - change * eps[j]
                slope += y * direction
                bend += direction * direction
        if slope > 0.0:
            high = t
        else:
            low = t
            if t == far:
                break
        if high - low <= 1e-12 * far:
            break
        t -= slope / bend if bend > 0.0 else 0.0
        if not low < t < high:
            t = 0.5 * (low + high)
    t = low if low > 0.0 else t
    kept = 0
    for h in range(p):
        a = weight[h] + t * step[h]
        # The row that stops the step leaves.
        if a > 1e-15 * (1.0 + abs(weight[h])):
            index[kept], weight[kept] = index[h], a
            kept += 1
    return kept


def rows(loss, Y, eps, scale, rho, sigma, p0, q0, p, Q, w):
    """Set p and Q to the minimisers of a robust loss near p0 and q0, w to the prices.

    For each sample: ``loss(p, eps^T |Q|) + rho / 2 (p - p0)^2 + sigma / 2 |Q - q0|^2``, whose
    minimisers are a prediction moved by ``w / rho`` and ``soft(q0, w eps / sigma)``; the price w
    is minus the slope of the loss by the margin, or by ``-eps^T |Q|``.

    Parameters
    ----------
    loss : int
        HINGE, LOGISTIC or SQUARED.
    Y : array, shape (c, n)
    eps : array, shape (d,)
    scale : float
        Scale of the logits.
    rho, sigma : float
    p0, p, w : array, shape (c, n)
    q0, Q : array, shape (c, n, d)
    """
    strips = min(threads.strips(10 * q0.size), p0.size)

    def strip(t):
        _rows_strip(t, strips, loss, Y, eps, scale, rho, sigma, p0, q0, p, Q, w)

    _in_threads(strip, strips)


@kernel()
def _rows_strip(t, strips, loss, Y, eps, scale, rho, sigma, p0, q0, p, Q, w):
    n = Y.shape[1]
    for i in range(t, p0.size, strips):
        o, k = i // n, i % n
        q, y = q0[o, k], Y[o, k]
        if loss == SQUARED:
            away = p0[o, k] - y
            price = _price(loss, abs(away), eps, scale, rho, sigma, q)
            p[o, k] = p0[o, k] - copysign(min(price / rho, abs(away)), away)
        else:
            price = _price(loss, y * p0[o, k], eps, scale, rho, sigma, q)
            p[o, k] = p0[o, k] + y * price / rho
        w[o, k] = price
        for j in range(eps.size):
            Q[o, k, j] = copysign(max(abs(q[j]) - price * eps[j] / sigma, 0.0), q[j])


@kernel()
def _price(loss, m, eps, scale, rho, sigma, q):
    """Return the price w; m is the margin, or the distance from the target, at p0."""
    size, bend = _norm(q, eps, 0.0)
    if loss == HINGE and m - size >= 1.0:
        return 0.0
    low, high = 0.0, m + size
    if loss != SQUARED:
        high = 1.0 if loss == HINGE else scale
    w, before = high if loss == HINGE else 0.5 * high, high
    for _ in range(_TRIES):
        size, bend = _norm(q, eps, w / sigma)
        if loss == SQUARED:
            left = m - w / rho
            value, slope = w - max(left, 0.0) - size, 1.0 + bend / sigma
            slope += 1.0 / rho if left > 0.0 else 0.0
        else:
            margin, slope = m + w / rho - size, 1.0 / rho + bend / sigma
            if loss == HINGE:
                value = margin - 1.0
                if value <= 0.0 and w >= high:
                    break
            else:
                chance = 1.0 / (1.0 + exp(scale * margin))
                value = w - scale * chance
                slope = 1.0 + scale * scale * chance * (1.0 - chance) * slope
        if value > 0.0:
            high = w
        else:
            low = w
        step = value / slope
        if abs(step) <= 1e-15 * w or value == 0.0:
            break
        # Newton while it halves its steps inside of what must hold the root.
        if not (low < w - step < high and 2.0 * abs(step) <= before):
            step = w - 0.5 * (low + high)
        w, before = w - step, abs(step)
    return w


@kernel(fastmath=REDUCE)
def _norm(q, eps, t):
    """Return ``eps^T |soft(q, t eps)|`` and how fast it falls as t grows."""
    size, bend = 0.0, 0.0
    for j in range(q.size):
        y = abs(q[j]) - t * eps[j]
        if y > 0.0:
            size += eps[j] * y
            bend += eps[j] * eps[j]
    return size, bend
