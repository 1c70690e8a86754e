r"""Numba kernels that solve the small least-squares problems of alternating minimisation.

Row i of the entries asks for the minimiser over x of

.. math:: \tfrac{1}{2} \sum_p w_p (x \cdot B_j + c_j - val_p)^2 + \tfrac{1}{2} x^T S x
          + \tfrac{1}{2} \sum_q D_{iq} x_q^2

where p runs over the row's entries, j is the column of p, c is `offset` and S is `shared` (both
may be empty), and D is ``ridge[i]``. With biases (`offset` not empty) the first column of B is
constant, and that unknown's ridge is `lam_bias`.

The rows of B that a row needs are gathered, times the roots of the weights, in a buffer that the
cache holds, V; `target` has the values that belong to them. All else works on the buffer.
"""

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import REDUCE, kernel
from ..cpu import cuts
from .tiles import (
    BLOCK,
    GROUP,
    add_products,
    apart,
    normal_pass,
    residual_pass,
    set_products,
    subtract_products,
)

# Numbers in the buffer: a megabyte in double precision.
_BUFFER = 1 << 17
# Rows with a larger condition number, as random rows of B would give it, are solved directly:
# conjugate gradients would take too many steps. Without a ridge those are rows with fewer than
# three entries for each unknown.
_HARD = 14.0
# Float32 Gram matrices of more unknowns or entries than these are summed in float64.
_WIDE, _LONG = 64, 1 << 14


def solve_rows(ptr, idx, val, weight, B, offset, ridge, lam_bias, shared, A, grad):
    """Set each ``A_i`` to its row's minimiser, by Cholesky factorisation.

    Where it is not unique, the one of smallest norm is taken. `grad` receives the gradients at
    the A that came in.

    Returns
    -------
    square : float
        ``sum_p w_p (A_i . B_j + c_j - val_p)^2`` at the A that came in.
    steps : int
        Steps of an inner solver; 0.
    """
    systems = ptr, idx, val, weight, B, offset, ridge, lam_bias, shared
    return _solved(systems, A, grad, np.empty_like(grad), 0.0, 0)


def cg_rows(ptr, idx, val, weight, B, offset, ridge, lam_bias, shared, A, grad, left, eta, steps):
    """Improve each ``A_i`` by conjugate gradients; as `solve_rows` otherwise.

    A row stops when its preconditioned gradient is `eta` times as long as its values, or after so
    many `steps`. Rows with few entries are solved directly. `left` receives the gradients at the
    end. Returns, beside the weighted square, the number of steps of all rows.
    """
    systems = ptr, idx, val, weight, B, offset, ridge, lam_bias, shared
    return _solved(systems, A, grad, left, eta, steps)


def _solved(systems, A, grad, left, eta, steps):
    ptr, B = systems[0], systems[4]
    (m, k), dtype = A.shape, A.dtype
    longest = int(np.diff(ptr).max())
    if k > _WIDE or longest > _LONG:
        dtype = np.dtype(np.float64)
    squares, counts = np.zeros(m), np.zeros(m, np.int64)
    # What preconditions a row, for an entry of weight one.
    mean = np.square(B).mean(axis=0, dtype=np.float64)
    level = float(mean.mean() * (weight.mean() if (weight := systems[3]).size else 1.0))
    where = cuts(ptr, k * (4 * steps or k))
    with threads.guard():
        _solve_rows(
            where, ptr, (*systems[1:], mean, level, longest), A, grad, left, float(eta), steps,
            np.empty(0, dtype), squares, counts,
        )  # fmt: skip
    return squares.sum(), int(counts.sum())


@kernel(parallel=True)
def _solve_rows(where, ptr, systems, A, grad, left, eta, steps, kind, squares, counts):
    for t in prange(where.size - 1):
        _solve_strip(
            where[t], where[t + 1], ptr, systems, A, grad, left, eta, steps, kind, squares, counts
        )


@kernel()
def _solve_strip(first, last, ptr, systems, A, grad, left, eta, steps, kind, squares, counts):
    """Solve the rows from `first` to `last`, in the precision of `kind`."""
    apart()
    idx, val, weight, B, offset, ridge, lam_bias, shared, mean, level, longest = systems
    k = B.shape[1]
    width = -(-k // BLOCK) * BLOCK
    room = min(max(_BUFFER // width // GROUP, 1), -(-longest // GROUP)) * GROUP
    V, target = np.zeros((room, width), kind.dtype), np.zeros(room, kind.dtype)
    G, S = np.zeros((width, width + BLOCK), kind.dtype), np.zeros((width, width), kind.dtype)
    x, g, diag = (
        np.zeros(width, kind.dtype),
        np.zeros(width, kind.dtype),
        np.zeros(width, kind.dtype),
    )
    metric, work = np.ones(width, kind.dtype), np.zeros((2, width), kind.dtype)
    if shared.size > 0:
        for q in range(k):
            for r in range(k):
                S[q, r] = shared[q, r]
    common = np.trace(S) / k
    for i in range(first, last):
        for q in range(k):
            x[q], diag[q] = A[i, q], ridge[i]
        if offset.size > 0:
            diag[0] = lam_bias
        entries = ptr[i], ptr[i + 1], idx, val, weight, B, offset
        direct = steps == 0 or _is_hard(ptr[i + 1] - ptr[i], k, level, ridge[i] + common)
        squares[i], scale, total = _system(entries, V, target, S, diag, x, g, G, direct)
        for q in range(k):
            grad[i, q] = g[q]
            metric[q] = diag[q] + S[q, q] + total * mean[q]
        if ptr[i] == ptr[i + 1]:
            for q in range(k):
                x[q], g[q] = 0.0, 0.0
        elif direct and _factor(G, g, k, work):
            _substitute(G, work, x, g)
        elif direct:
            # From zero, conjugate gradients reach the minimiser of smallest norm.
            for q in range(k):
                x[q], metric[q] = 0.0, 1.0
            _system(entries, V, target, S, diag, x, g, G, direct)
            _conjugate(entries, V, target, S, diag, metric, x, g, 0.0, 4 * k, work)
        else:
            goal = eta * eta * scale
            counts[i] = _conjugate(entries, V, target, S, diag, metric, x, g, goal, steps, work)
        for q in range(k):
            left[i, q], A[i, q] = g[q], x[q]


@kernel()
def _is_hard(entries, k, level, ridge):
    """Tell whether a row's condition number is to be expected above `_HARD`."""
    d, k = np.sqrt(np.float64(entries)), np.sqrt(np.float64(k))
    return level * (d + k) ** 2 + ridge > _HARD * (level * max(d - k, 0.0) ** 2 + ridge)


@kernel(fastmath=REDUCE)
def _gather(entries, start, V, target):
    """Fill the buffer from entry `start` on.

    Returns how many of its rows count, a multiple of `GROUP` (the last ones may be zero), the
    sum of their squared values, and that of their weights.
    """
    apart()
    _, last, idx, val, weight, B, offset = entries
    k = B.shape[1]
    rows = min(last - start, V.shape[0])
    scale, total = 0.0, 0.0
    for n in range(rows):
        p = start + n
        j = idx[p]
        value = val[p] - offset[j] if offset.size > 0 else val[p]
        if weight.size > 0:
            root = np.sqrt(weight[p])
            value *= root
            total += weight[p]
            for q in range(k):
                V[n, q] = root * B[j, q]
        else:
            total += 1.0
            for q in range(k):
                V[n, q] = B[j, q]
        target[n] = value
        scale += value * value
    end = -(-rows // GROUP) * GROUP
    for n in range(rows, end):
        target[n] = 0.0
        for q in range(k):
            V[n, q] = 0.0
    return end, scale, total


@kernel(fastmath=REDUCE)
def _system(entries, V, target, S, diag, x, g, G, direct):
    """Set the gradient g at x and, if wanted, the Hessian G.

    Returns the sums of squared residuals, of squared values, and of weights.
    """
    apart()
    width = x.size
    for q in range(width):
        g[q] = diag[q] * x[q]
    _add_product(S, x, g)
    if direct:
        for q in range(width):
            for r in range(width):
                G[q, r] = S[q, r]
            # Unknowns that only fill the last block up have a Hessian of their own.
            G[q, q] += diag[q]
    square, scale, total = 0.0, 0.0, 0.0
    start, last = entries[0], entries[1]
    while start < last:
        rows, values, weights = _gather(entries, start, V, target)
        square += residual_pass(V, rows, x, target, g)
        scale, total = scale + values, total + weights
        if direct:
            for row in range(0, width, BLOCK):
                add_products(V, 0, rows, row, row, width, G)
        start += V.shape[0]
    return square, scale, total


@kernel(fastmath=REDUCE)
def _add_product(S, x, out):
    """Add ``S x`` for symmetric S; zero matrices cost nothing but a look."""
    apart()
    if S[0, 0] == 0.0:
        return
    for r in range(0, x.size, 4):
        y0, y1, y2, y3 = x[r], x[r + 1], x[r + 2], x[r + 3]
        for q in range(x.size):
            out[q] += S[r, q] * y0 + S[r + 1, q] * y1 + S[r + 2, q] * y2 + S[r + 3, q] * y3


@kernel(fastmath=REDUCE)
def _factor(G, g, k, work):
    """Factor ``G = U^T U``, and solve ``U^T y = g``; tell whether G has full rank.

    U replaces G's upper half, but blocks on the diagonal are replaced by their inverses; y stands
    in the column after G's.
    """
    apart()
    width = G.shape[0]
    size = work[0]
    for q in range(width):
        size[q] = G[q, q]
        for c in range(width, width + BLOCK):
            G[q, c] = 0.0
        G[q, width] = g[q]
    for row in range(0, width, BLOCK):
        subtract_products(G, 0, row, row, row, width + BLOCK, G)
        if not _invert(G, row, k, size):
            return False
        set_products(G, row, row + BLOCK, row, row + BLOCK, width + BLOCK, G)
    return True


@kernel()
def _invert(G, row, k, size):
    """Replace a block on the diagonal by the inverse of its factor U; tell whether it has one."""
    apart()
    floor = 8.0 * k * np.finfo(G.dtype).eps
    end = row + BLOCK
    for q in range(row, end):
        if q >= k:
            # An unknown that only fills the block up.
            G[q, q], size[q] = 1.0, 1.0
        for p in range(row, q):
            y = G[p, q]
            for c in range(q, end):
                G[q, c] -= y * G[p, c]
        if not G[q, q] > floor * size[q]:
            return False
        scale = 1.0 / np.sqrt(G[q, q])
        for c in range(q, end):
            G[q, c] *= scale
    # From the last column on: a column of the inverse needs those of U before it.
    for c in range(end - 1, row - 1, -1):
        G[c, c] = 1.0 / G[c, c]
        for q in range(c - 1, row - 1, -1):
            total = G[q, c] * G[c, c]
            for p in range(q + 1, c):
                total += G[q, p] * G[p, c]
            G[q, c] = -total / G[q, q]
        for q in range(c + 1, end):
            G[q, c] = 0.0
    return True


@kernel(fastmath=REDUCE)
def _substitute(G, work, x, g):
    """Subtract ``d = U^-1 y`` from x, which leaves no gradient."""
    apart()
    width = x.size
    d = work[0]
    for row in range(width - BLOCK, -1, -BLOCK):
        end = row + BLOCK
        for q in range(row, end):
            total = G[q, width]
            for c in range(end, width):
                total -= G[q, c] * d[c]
            G[q, width] = total
        for q in range(row, end):
            total = G.dtype.type(0.0)
            for c in range(row, end):
                total += G[q, c] * G[c, width]
            d[q] = total
            x[q] -= total
            g[q] = 0.0


@kernel(fastmath=REDUCE)
def _conjugate(entries, V, target, S, diag, metric, x, g, goal, steps, work):
    """Take preconditioned CG steps from x, where the gradient is g; return how many."""
    apart()
    p, product = work[0], work[1]
    rho = 0.0
    for q in range(x.size):
        p[q] = -g[q] / metric[q]
        rho -= g[q] * p[q]
    # Past rounding, steps would follow noise.
    goal = max(goal, rho * np.finfo(x.dtype).eps ** 2)
    step = 0
    while step < steps and rho > goal:
        curvature = _product(entries, V, target, S, diag, p, product)
        if not curvature > 0.0:
            break
        alpha = rho / curvature
        before, rho = rho, 0.0
        for q in range(x.size):
            x[q] += alpha * p[q]
            g[q] += alpha * product[q]
            rho += g[q] * g[q] / metric[q]
        for q in range(x.size):
            p[q] = rho / before * p[q] - g[q] / metric[q]
        step += 1
    return step


@kernel(fastmath=REDUCE)
def _product(entries, V, target, S, diag, p, out):
    """Set `out` to the Hessian times p; return p times that."""
    apart()
    curvature = 0.0
    for q in range(p.size):
        out[q] = diag[q] * p[q]
    _add_product(S, p, out)
    for q in range(p.size):
        curvature += out[q] * p[q]
    start, last = entries[0], entries[1]
    fits = last - start <= V.shape[0]
    while start < last:
        # What fits into the buffer is still there.
        rows = -(-(last - start) // GROUP) * GROUP
        if not fits:
            rows, _, _ = _gather(entries, start, V, target)
        curvature += normal_pass(V, rows, p, out)
        start += V.shape[0]
    return curvature
