"""Numba kernels that solve row systems of many unknowns: by sketches, and block by block.

The systems are those of the kernels in ``rows``: `ptr` ... `shared` mean the same, and so do what
`grad` and `left` receive and what is returned. So does V, a buffer with the entries of a row.
"""

import math

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import REDUCE, kernel
from ..cpu import cuts
from ..rows.cpu import _BUFFER, _factor, _gather, _product, _system
from ..rows.tiles import BLOCK, GROUP, add_products, apart

# Entries in each column of a sketch. Two keep its quality where rows of B differ much in length:
# of 4.0, 4.7 and 6.0 steps with one entry, for k = 20, 50, 100, they leave 3.5, 3.8 and 4.2.
_NNZ = 2
# Unknowns that are minimised over at a time; measured at k = 256 and d = 10 k, against 16 and 64.
_SUBSPACE = 32
# What became of a row; 0: it was left as it is.
_DONE, _GIVEN_UP = 1, 2

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_HALF, _LOW = np.uint64(32), np.uint64(1)


def sketch_rows(systems, A, grad, left, state, eta, s, most, unit, seed):
    """Improve each ``A_i`` by least squares that a random sketch of its system preconditions.

    Rows with at most 2 s entries, or whose sketch is singular, are left as they are.

    Parameters
    ----------
    systems : tuple
        Arguments `ptr` to `shared` of the kernels in ``rows``.
    A, grad, left : array, shape (m, k)
        See ``rows``.
    state : array of int8, shape (m,)
        Zeros; becomes 1 for a row that is solved, 2 for one that did not get there in time.
    eta : float
        A row is solved when its preconditioned gradient is `eta` times as long as its values.
    s : int
        Rows of a sketch.
    most : int
        Most steps for a row.
    unit : bool
        Whether to take the steps of length one that the theory has, not conjugate gradients.
    seed : int
        Where the randomness comes from, below 2^63; it depends on nothing else.

    Returns
    -------
    square : float
        Weighted sum of squared residuals at the A that came in, of the rows that are improved.
    steps : int
        Steps of all rows.
    """
    ptr, *rest = systems
    where, squares, counts = _prepared(ptr, A, A.shape[1])
    with threads.guard():
        _sketch_rows(
            where, ptr, tuple(rest), A, grad, left, state, eta, s, most, unit, np.uint64(seed),
            squares, counts,
        )  # fmt: skip
    return squares.sum(), int(counts.sum())


def _prepared(ptr, A, work):
    """Return strips of rows for so many operations per unknown and entry, and two counters."""
    m, k = A.shape
    return cuts(ptr, k * work), np.zeros(m), np.zeros(m, np.int64)


@kernel(parallel=True)
def _sketch_rows(
    where, ptr, systems, A, grad, left, state, eta, s, most, unit, seed, squares, counts
):
    for t in prange(where.size - 1):
        _sketch_strip(
            where[t], where[t + 1], ptr, systems, A, grad, left, state, eta, s, most, unit, seed,
            squares, counts,
        )  # fmt: skip


@kernel()
def _sketch_strip(
    first, last, ptr, systems, A, grad, left, state, eta, s, most, unit, seed, squares, counts
):
    """Solve the rows from `first` to `last`; in double precision, as ranks are large."""
    apart()
    idx, val, weight, B, offset, ridge, lam_bias, shared = systems
    k = B.shape[1]
    width = -(-k // BLOCK) * BLOCK
    room = max(_BUFFER // width // GROUP, 1) * GROUP
    V, target = np.zeros((room, width)), np.zeros(room)
    S, G = np.zeros((s, width)), np.zeros((width, width + BLOCK))
    P, work = np.zeros((width, width)), np.zeros((6, width))
    x, g, diag = work[0], work[1], work[2]
    if shared.size > 0:
        P[:k, :k] = shared
    for i in range(first, last):
        # With more than half as many rows as the system a sketch saves nothing.
        if ptr[i + 1] - ptr[i] <= 2 * s:
            continue
        x[:k], diag[:k] = A[i], ridge[i]
        if offset.size > 0:
            diag[0] = lam_bias
        entries = ptr[i], ptr[i + 1], idx, val, weight, B, offset
        square, scale, _ = _system(entries, V, target, P, diag, x, g, G, False)
        grad[i] = g[:k]
        _sketch(entries, V, target, seed, S)
        for q in range(width):
            G[q, :width] = P[q]
            G[q, q] += diag[q]
        for row in range(0, width, BLOCK):
            add_products(S, 0, s, row, row, width, G)
        if _factor(G, g, k, work[3:]):
            squares[i] = square
            counts[i], done = _iterate(
                entries, V, target, P, diag, G, x, g, eta * eta * scale, unit, most, work[3:]
            )
            state[i] = _DONE if done else _GIVEN_UP
            A[i], left[i] = x[:k], g[:k]


@kernel(fastmath=REDUCE)
def _sketch(entries, V, target, seed, S):
    """Set S to a sparse random sign matrix times the row's system, weights included."""
    apart()
    start, last = entries[0], entries[1]
    fits = last - start <= V.shape[0]
    part, size = S.shape[0] // _NNZ, V.dtype.type(math.sqrt(1.0 / _NNZ))
    S[:] = 0.0
    while start < last:
        if not fits:
            _gather(entries, start, V, target)
        for n in range(min(last - start, V.shape[0])):
            for c in range(_NNZ):
                bits = _bits(seed, _NNZ * (start + n) + c)
                # The upper half of the bits, as a fraction, says which row; the lowest the sign.
                row = c * part + np.int64(((bits >> _HALF) * np.uint64(part)) >> _HALF)
                f = size if bits & _LOW else -size
                for q in range(V.shape[1]):
                    S[row, q] += f * V[n, q]
        start += V.shape[0]


@kernel(inline=True)
def _bits(seed, counter):
    """Return 64 random bits that follow from two numbers (SplitMix64, by G. Steele et al.)."""
    z = seed + np.uint64(counter) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@kernel(fastmath=REDUCE)
def _iterate(entries, V, target, P, diag, U, x, g, goal, unit, most, work):
    """Descend with ``U^T U`` for a preconditioner; return the steps, and whether g got small.

    g is the gradient at x and stays so.
    """
    apart()
    y, p, product = work[0], work[1], work[2]
    for q in range(x.size):
        y[q], p[q] = g[q], 0.0
    rho = _forward(U, y)
    step, before = 0, 1.0
    while rho > goal:
        if step == most:
            return step, False
        _backward(U, y)
        # Directions that are not made conjugate to those before are the gradients themselves.
        keep = 0.0 if unit or step == 0 else rho / before
        for q in range(x.size):
            p[q] = keep * p[q] - y[q]
        curvature = _product(entries, V, target, P, diag, p, product)
        alpha = 1.0 if unit else rho / curvature
        for q in range(x.size):
            x[q] += alpha * p[q]
            g[q] += alpha * product[q]
            y[q] = g[q]
        before, rho = rho, _forward(U, y)
        step += 1
    return step, True


@kernel(fastmath=REDUCE)
def _forward(U, x):
    """Solve with the transpose of U, in place; return the square of the solution.

    Blocks on the diagonal of U are the inverses of what they were, see `rows.cpu._factor`.
    """
    apart()
    square = 0.0
    for row in range(0, x.size, BLOCK):
        end = row + BLOCK
        for q in range(end - 1, row - 1, -1):
            total = U.dtype.type(0.0)
            for c in range(row, q + 1):
                total += U[c, q] * x[c]
            x[q] = total
            square += total * total
        for q in range(row, end):
            for c in range(end, x.size):
                x[c] -= U[q, c] * x[q]
    return square


@kernel(fastmath=REDUCE)
def _backward(U, x):
    """Solve with U, in place."""
    apart()
    for row in range(x.size - BLOCK, -1, -BLOCK):
        end = row + BLOCK
        for q in range(row, end):
            total = x[q]
            for c in range(end, x.size):
                total -= U[q, c] * x[c]
            x[q] = total
        for q in range(row, end):
            total = U.dtype.type(0.0)
            for c in range(q, end):
                total += U[q, c] * x[c]
            x[q] = total


def subspace_rows(systems, A, grad, left, state, eta, most):
    """Improve each ``A_i`` by minimising over some of its unknowns at a time, all in turn.

    That is the block coordinate Newton method of iALS++ (Rendle et al., arXiv:2110.14044). Rows
    with fewer entries than unknowns, or with a singular block, are left as they are.

    Parameters
    ----------
    systems, A, grad, left, state
        See `sketch_rows`; rows that are improved count as solved.
    eta : float
        A row stops when its preconditioned gradient is `eta` times as long as its values,
    most : int
        or after so many rounds over its unknowns.

    Returns
    -------
    square : float
        As for `sketch_rows`.
    steps : int
        Rounds of all rows.
    """
    ptr, *rest = systems
    where, squares, counts = _prepared(ptr, A, _SUBSPACE)
    longest = int(np.diff(ptr).max())
    with threads.guard():
        _subspace_rows(
            where, ptr, tuple(rest), A, grad, left, state, eta, most, longest, squares,
            counts,
        )  # fmt: skip
    return squares.sum(), int(counts.sum())


@kernel(parallel=True)
def _subspace_rows(where, ptr, systems, A, grad, left, state, eta, most, longest, squares, counts):
    for t in prange(where.size - 1):
        _subspace_strip(
            where[t], where[t + 1], ptr, systems, A, grad, left, state, eta, most, longest,
            squares, counts,
        )  # fmt: skip


@kernel()
def _subspace_strip(
    first, last, ptr, systems, A, grad, left, state, eta, most, longest, squares, counts
):
    """Improve the rows from `first` to `last`; in double precision, as ranks are large."""
    apart()
    idx, val, weight, B, offset, ridge, lam_bias, shared = systems
    k = B.shape[1]
    # The blocks on the Hessian's diagonal, factored, and the part of the entries that one needs.
    L = np.zeros((-(-k // _SUBSPACE), _SUBSPACE, _SUBSPACE + BLOCK))
    V = np.zeros((_BUFFER // _SUBSPACE, _SUBSPACE))
    work, d = np.zeros((3, k)), np.zeros((2, _SUBSPACE))
    e = np.zeros(longest)
    x, g, diag = work[0], work[1], work[2]
    for i in range(first, last):
        x[:], diag[:] = A[i], ridge[i]
        if offset.size > 0:
            diag[0] = lam_bias
        entries = ptr[i], ptr[i + 1], idx, val, weight, B, offset
        # With fewer entries than unknowns nothing is saved, nor need the minimiser be unique.
        if ptr[i + 1] - ptr[i] < k or not _factor_blocks(entries, diag, shared, V, L, d):
            continue
        squares[i], scale = _residual(entries, x, e)
        _gradient(entries, diag, shared, x, e, g)
        grad[i] = g
        # The gradient of a block is judged by what its own Hessian makes of it.
        while counts[i] < most:
            size = 0.0
            for b in range(L.shape[0]):
                size += _descend(entries, diag, shared, L[b], b * _SUBSPACE, x, e, d[0])
            counts[i] += 1
            if size <= eta * eta * scale:
                break
        _gradient(entries, diag, shared, x, e, g)
        state[i] = _DONE
        A[i], left[i] = x, g


@kernel(fastmath=REDUCE)
def _factor_blocks(entries, diag, shared, V, L, work):
    """Factor the blocks on the Hessian's diagonal; tell whether all have full rank."""
    apart()
    start, last, idx, _, weight, B, _ = entries
    k = diag.size
    for b in range(L.shape[0]):
        q, G = b * _SUBSPACE, L[b]
        size = min(_SUBSPACE, k - q)
        G[:] = 0.0
        for r in range(size):
            for c in range(size):
                G[r, c] = shared[q + r, q + c] if shared.size > 0 else 0.0
            G[r, r] += diag[q + r]
        V[:] = 0.0
        for chunk in range(start, last, V.shape[0]):
            rows = min(last - chunk, V.shape[0])
            for n in range(rows):
                j = idx[chunk + n]
                root = math.sqrt(weight[chunk + n]) if weight.size > 0 else 1.0
                for r in range(size):
                    V[n, r] = root * B[j, q + r]
            for row in range(0, _SUBSPACE, BLOCK):
                add_products(V, 0, rows, row, row, _SUBSPACE, G)
        work[1, :] = 0.0
        if not _factor(G, work[1], size, work):
            return False
    return True


@kernel(fastmath=REDUCE)
def _residual(entries, x, e):
    """Set e to the residual at x; return the weighted sums of its squares and of the values'."""
    apart()
    first, last, idx, val, weight, B, offset = entries
    square, scale = 0.0, 0.0
    for p in range(first, last):
        v, w = B[idx[p]], weight[p] if weight.size > 0 else val.dtype.type(1.0)
        target = val[p] - offset[idx[p]] if offset.size > 0 else val[p]
        r = -e.dtype.type(target)
        for q in range(x.size):
            r += v[q] * x[q]
        e[p - first] = r
        square += w * r * r
        scale += w * target * target
    return square, scale


@kernel(fastmath=REDUCE)
def _gradient(entries, diag, shared, x, e, g):
    """Set g to the gradient at x, where the residual is e."""
    apart()
    first, last, idx, _, weight, B, _ = entries
    for q in range(x.size):
        g[q] = diag[q] * x[q]
        if shared.size > 0:
            for r in range(x.size):
                g[q] += shared[q, r] * x[r]
    for p in range(first, last):
        v, r = B[idx[p]], weight[p] * e[p - first] if weight.size > 0 else e[p - first]
        for q in range(x.size):
            g[q] += r * v[q]


@kernel(fastmath=REDUCE)
def _descend(entries, diag, shared, U, q, x, e, d):
    """Minimise over the block that begins with the unknown q; e is the residual and stays so.

    Returns the square of the block's gradient, preconditioned by its Hessian.
    """
    apart()
    first, last, idx, _, weight, B, _ = entries
    size = min(_SUBSPACE, x.size - q)
    for r in range(d.size):
        d[r] = diag[q + r] * x[q + r] if r < size else 0.0
    if shared.size > 0:
        for r in range(size):
            for c in range(x.size):
                d[r] += shared[q + r, c] * x[c]
    for p in range(first, last):
        v = B[idx[p], q : q + size]
        f = weight[p] * e[p - first] if weight.size > 0 else e[p - first]
        for r in range(size):
            d[r] += f * v[r]
    square = _forward(U, d)
    _backward(U, d)
    for r in range(size):
        x[q + r] -= d[r]
    for p in range(first, last):
        v = B[idx[p], q : q + size]
        change = e.dtype.type(0.0)
        for r in range(size):
            change += v[r] * d[r]
        e[p - first] -= change
    return square
