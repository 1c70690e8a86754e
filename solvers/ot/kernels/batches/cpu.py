"""Numba kernels for batches of small problems; `gpu.py` launches their CUDA twins.

A problem's Gibbs kernel stays in the cache of the thread that works on it, so everything between
two rounds of a batch happens in one call: a pass over the cost, and then Sinkhorn sweeps and
Newton steps on what it has stored. `_newton.py` tells the same story for one large problem.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...._core import threads
from ...._core.kernels.jit import REDUCE, kernel
from ...._core.kernels.vmath import exp, log
from ..cpu import (
    _laplacian_diagonal,
    _laplacian_strip,
    _row_exp,
    _row_max,
    _row_peaks,
    _sweep_strip,
)

# As in `_newton.py`: the mismatch up to which Newton steps are trusted, what makes a column light,
# how far the factors of a stored kernel may spread, and the longest step.
GATE, LIGHT, REACH, LONGEST_STEP = 1.0, 1e-3, 40.0, 20.0
# Column sums, relative to their targets, beyond which a kernel has lost a column.
LOST = 1e20
TINY = 1e-300
# Vectors over the columns that a problem needs, by what is in them.
LOG_B, SUMS, C_NOW, V_NOW, C_NEW, V_NEW, STEP, GAP, MISS, X, R, Z, P, AP, JACOBI, VECTORS = range(
    16
)
# Rough estimate of the element operations of a round, per entry of the cost.
ROUND = 50


def balance(
    C, a, b, sizes, reg, h, tol, active, options, damping, f, log_v, error, left, counts
):  # fmt: skip
    """Make rows exact for column potentials `h`, and say how far to move these.

    Parameters
    ----------
    C : array, shape (B, n, m) or (1, n, m)
        Costs.
    a, b : array, shapes (B, n) and (B, m)
        Weights, positive up to the sizes.
    sizes : array, shape (B, 2)
        How many rows and columns each problem has.
    reg : array, shape (B,)
        Temperatures.
    h : array, shape (B, m)
        Column potentials; mended in place where they are so far off that a column underflows.
    tol : array, shape (B,)
        Errors to be reached.
    active : array, shape (B,)
        Which problems are to be worked on; nothing of the others is touched.
    options : tuple
        Most Newton steps and blocks of sweeps, sweeps in a block, relative residual (0: tightened
        with the error) and most iterations (0: by size; negative: sweeps only) of linear solves.
    damping : array, shape (B,)
        How little Newton steps are trusted; updated.
    f : array, shape (B, n)
        Set to the row potentials that belong to `h`.
    log_v : array, shape (B, m)
        Set to the step: ``h + reg * log_v`` brings the error down to `left`.
    error, left : array, shape (B,)
        Set to the marginal errors at `h` and, to rounding, after the step. Where that at `h` is
        within the tolerance there is no step.
    counts : array, shape (B, 3)
        Sweeps, Newton steps and conjugate-gradient iterations are added.
    """
    # Compiled for one precision: the copy is nothing beside a round.
    C = C.astype(np.float64, copy=False)
    args = C, a, b, sizes, reg, h, tol, active, *options, damping, f, log_v, error, left, counts
    strips = min(threads.strips(ROUND * a.shape[0] * C[0].size), a.shape[0])
    if strips == 1:
        _balance_strip(0, 1, *args)
        return
    # Without any problem, so that it is compiled in this thread, which is the one that is timed.
    _balance_strip(a.shape[0], strips, *args)
    with ThreadPoolExecutor(strips) as pool:
        # The kernel does not hold the GIL, and a version with Numba's own threads would take as
        # long to compile again.
        list(pool.map(lambda first: _balance_strip(first, strips, *args), range(strips)))


@kernel()
def _balance_strip(
    first, stride, C, a, b, sizes, reg, h, tol, active, patience, n_sinkhorn, tol_inner,
    maxiter_inner, damping, f, log_v, error, left, counts,
):  # fmt: skip
    n, m = C.shape[1:]
    room, peaks = np.empty(n * m + 2 * n + VECTORS * m), np.empty(n, np.int64)
    for p in range(first, a.shape[0], stride):
        if not active[p]:
            continue
        n, m = sizes[p]
        K, rest = room[: n * m].reshape(n, m), room[n * m :]
        rows, cols = rest[: 2 * n].reshape(2, n), rest[2 * n : 2 * n + VECTORS * m]
        cols = cols.reshape(VECTORS, m)
        weights = a[p, :n], b[p, :m]
        cost = C[p if C.shape[0] > 1 else 0]
        error[p] = _fill(cost, *weights, reg[p], h[p, :m], K, rows, cols)
        for i in range(n):
            f[p, i] = -reg[p] * rows[0, i]
        left[p], damping[p] = _settle(
            K, *weights, error[p], tol[p], patience, n_sinkhorn, tol_inner, maxiter_inner,
            damping[p], rows[1], cols, peaks[:n], log_v[p, :m], counts[p],
        )  # fmt: skip


@kernel()
def _fill(C, a, b, reg, h, K, rows, cols):
    """Store the kernel for `h`; set the shifts and the first column sums, and return the error."""
    n, m = K.shape
    shift, rho = rows[0], rows[1]
    log_b, sums, c = cols[LOG_B], cols[SUMS], cols[C_NOW]
    for j in range(m):
        log_b[j] = log(b[j])
    for attempt in range(2):
        for i in range(n):
            top = _row_max(C[i, :m], h, log_b, 1.0 / reg)
            total = _row_exp(C[i, :m], h, b, 1.0 / reg, top, K[i])
            shift[i] = top + np.log(total)
            _scale(K[i], 1.0 / total)
        for j in range(m):
            sums[j] = 0.0
        _sweep_strip(K, b, a, rho, sums)
        if attempt == 0 and not _mend(C, a, reg, shift, sums, h):
            break
    error = 0.0
    for j in range(m):
        c[j] = b[j] * sums[j]
        error += abs(c[j] - b[j])
    return error


@kernel()
def _mend(C, a, reg, shift, sums, h):
    """Set the potentials of lost columns so that their sums are exact; tell if there were any."""
    mended = False
    for j in range(sums.size):
        if not 1.0 / LOST < sums[j] < LOST:
            top, total = -np.inf, 0.0
            for i in range(a.size):
                top = max(top, np.log(a[i]) - shift[i] - C[i, j] / reg)
            for i in range(a.size):
                total += np.exp(np.log(a[i]) - shift[i] - C[i, j] / reg - top)
            h[j] = -reg * (top + np.log(total))
            mended = True
    return mended


@kernel()
def _settle(
    K, a, b, error, tol, patience, n_sinkhorn, tol_inner, maxiter_inner, damping, rho, cols, peaks,
    log_v, counts,
):  # fmt: skip
    """Scale the columns of a kernel until their sums are right; set the factors' logarithms.

    Returns the error reached, and the damping of the next Newton step.
    """
    m = b.size
    c, v, miss = cols[C_NOW], cols[V_NOW], cols[MISS]
    for j in range(m):
        log_v[j], v[j] = 0.0, b[j]
    if not error > tol:
        return error, damping
    # A little further than asked for, because the next pass rounds differently.
    aim, weak, quick, before = 0.3 * tol, 0, True, np.inf
    for move in range(patience + 1):
        error, worst, spread = _look(b, c, log_v, miss)
        if error <= aim or spread > REACH or move == patience or not np.isfinite(error):
            break
        # As long as a few sweeps gain a digit, no Newton step is as cheap.
        quick, before = quick and error < 0.35 * before, error
        if worst > GATE or weak == 2 or quick or maxiter_inner < 0:
            sweeps = n_sinkhorn if worst > GATE or weak == 2 else 1
            _sinkhorn_block(K, a, b, sweeps, error, rho, cols, log_v, counts)
            weak = 0
        else:
            _direction(K, a, b, error, damping, tol_inner, maxiter_inner, rho, cols, peaks, counts)
            step = _search(K, a, b, rho, cols, log_v)
            counts[1] += 1
            # Trust in the next step, as in `NewtonSteps`.
            if step == 1.0:
                damping = max(damping / 4.0, 1e-6)
            else:
                damping *= 10.0 if step == 0.0 else 4.0 if step > 0.2 else 30.0
                damping = min(damping, 1e3)
            weak = weak + 1 if step < 0.3 else 0
    return error, damping


@kernel()
def _look(b, c, log_v, miss):
    """Set by which factor each column is off, in logarithms.

    Returns the error and, over the columns that matter, the largest of these logarithms and how
    far the factors have spread.
    """
    error, worst, low, high = 0.0, 0.0, np.inf, -np.inf
    for j in range(b.size):
        error += abs(b[j] - c[j])
        miss[j] = log(b[j] / max(c[j], TINY))
    for j in range(b.size):
        if _matters(b[j], c[j], error, b.size):
            worst = max(worst, abs(miss[j]))
            low, high = min(low, log_v[j]), max(high, log_v[j])
    return error, worst, high - low


@kernel(inline=True)
def _matters(b, c, error, m):
    return b + c >= LIGHT / m * error


@kernel()
def _sinkhorn_block(K, a, b, n_sinkhorn, error, rho, cols, log_v, counts):
    """Make a few sweeps, until Newton steps can be trusted."""
    m = b.size
    c, v, miss = cols[C_NOW], cols[V_NOW], cols[MISS]
    for _ in range(n_sinkhorn):
        for j in range(m):
            # Columns of no weight may ask for any factor; the others stay far from the bounds.
            log_v[j] = min(max(log_v[j] + miss[j], -60.0), 60.0)
        _sweep(K, a, b, log_v, rho, v, c)
        counts[0] += 1
        worst = 0.0
        for j in range(m):
            miss[j] = log(b[j] / max(c[j], TINY))
            if _matters(b[j], c[j], error, m):
                worst = max(worst, abs(miss[j]))
        if worst < 0.5 * GATE:
            break


@kernel(fastmath=REDUCE)
def _sweep(K, a, b, log_v, rho, v, c):
    """Set row sums, column factors and column sums for given logarithms of the factors."""
    for j in range(b.size):
        v[j] = b[j] * exp(log_v[j])
        c[j] = 0.0
    _sweep_strip(K, v, a, rho, c)
    for j in range(b.size):
        c[j] *= v[j]


@kernel(fastmath=REDUCE)
def _direction(
    K, a, b, error, damping, tol_inner, maxiter_inner, rho, cols, peaks, counts
):  # fmt: skip
    """Set the Newton step and the gap it is meant to close.

    Columns of no weight whose sums are far off follow Sinkhorn instead, and have no gap.
    """
    m = b.size
    c, v, miss = cols[C_NOW], cols[V_NOW], cols[MISS]
    gap, step, jacobi = cols[GAP], cols[STEP], cols[JACOBI]
    shift = min(max(damping * error, 1e-11), 0.3)
    tol = tol_inner if tol_inner > 0.0 else max(0.1 * min(1.0, error / 1e-2) ** 0.5, 1e-2)
    most = maxiter_inner if maxiter_inner > 0 else max(2 * m, 100)
    _row_peaks(K, v, peaks)
    spread_out = True
    for i in range(a.size):
        spread_out &= K[i, peaks[i]] * v[peaks[i]] < 0.5 * rho[i]
    for j in range(m):
        # Where no entry has most of its row, the diagonal is about the column sums.
        jacobi[j] = c[j] if spread_out else 0.0
    if not spread_out:
        _laplacian_diagonal(K, v, rho, a, peaks, jacobi)
    for j in range(m):
        jacobi[j] += shift * c[j]
        gap[j] = 0.0 if _aside(b[j], c[j], error, miss[j], m) else b[j] - c[j]
    counts[2] += _solve(K, a, shift, tol, most, rho, cols, peaks, m)
    for j in range(m):
        if _aside(b[j], c[j], error, miss[j], m):
            step[j] = min(max(miss[j], -LONGEST_STEP), LONGEST_STEP)


@kernel(inline=True)
def _aside(b, c, error, miss, m):
    return abs(miss) > GATE and not _matters(b, c, error, m)


@kernel(fastmath=REDUCE)
def _solve(K, a, shift, tol, maxiter, rho, cols, peaks, m):
    """Solve ``(S + shift diag(c)) step = gap`` by conjugate gradients; return their number.

    Both sides are kept free of constants, weighted by c, because then the shift keeps the
    subspace too.
    """
    c, v, gap, x = cols[C_NOW], cols[V_NOW], cols[GAP], cols[STEP]
    r, z, p, q, jacobi = cols[R], cols[Z], cols[P], cols[AP], cols[JACOBI]
    total, excess, goal = 0.0, 0.0, 0.0
    for j in range(m):
        total += c[j]
        excess += gap[j]
    for j in range(m):
        x[j], p[j] = 0.0, 0.0
        r[j] = gap[j] - c[j] * (excess / total)
        goal += abs(r[j])
    goal *= tol
    before = 1.0
    for k in range(maxiter):
        mean, rz = 0.0, 0.0
        for j in range(m):
            z[j] = r[j] / jacobi[j]
            mean += c[j] * z[j]
        mean /= total
        for j in range(m):
            z[j] -= mean
            rz += r[j] * z[j]
        ratio = rz / before if k > 0 else 0.0
        for j in range(m):
            p[j] = z[j] + ratio * p[j]
            q[j] = 0.0
        _laplacian_strip(K, v, rho, a, peaks, p, q)
        curvature = 0.0
        for j in range(m):
            q[j] = v[j] * q[j] + shift * c[j] * p[j]
            curvature += p[j] * q[j]
        if not (rz > 0.0 and curvature > TINY * rz and curvature < np.inf):
            return k
        alpha, norm = rz / curvature, 0.0
        for j in range(m):
            x[j] += alpha * p[j]
            r[j] -= alpha * q[j]
            norm += abs(r[j])
        if norm <= goal:
            return k + 1
        before = rz
    return maxiter


@kernel()
def _search(K, a, b, rho, cols, log_v):
    """Move along the Newton step until the dual stops rising; return its length, 0 if it fails."""
    m = b.size
    step, gap, x = cols[STEP], cols[GAP], cols[X]
    c, v, c_new, v_new = cols[C_NOW], cols[V_NOW], cols[C_NEW], cols[V_NEW]
    slope, low, high = 0.0, 0.0, 0.0
    for j in range(m):
        slope += gap[j] * step[j]
        if gap[j] != 0.0:
            low, high = min(low, step[j]), max(high, step[j])
    length = min(1.0, LONGEST_STEP / max(high - low, 1e-30))
    for _ in range(10):
        for j in range(m):
            x[j] = log_v[j] + length * step[j]
        _sweep(K, a, b, x, rho, v_new, c_new)
        # The slope of the concave dual, not its value: near the solution its gain drops below
        # rounding long before the error does.
        end = 0.0
        for j in range(m):
            if gap[j] != 0.0:
                end += (b[j] - c_new[j]) * step[j]
        if end >= -0.5 * slope:
            for j in range(m):
                log_v[j], v[j], c[j] = x[j], v_new[j], c_new[j]
            return length
        shrink = slope / (slope - end) if np.isfinite(end) else 0.0
        length *= min(max(shrink, 0.1), 0.7)
    # The row sums of the last trial do not belong to the present factors.
    _sweep(K, a, b, log_v, rho, v, c)
    return 0.0


@kernel(fastmath=REDUCE)
def _scale(row, factor):
    for j in range(row.size):
        row[j] *= factor
