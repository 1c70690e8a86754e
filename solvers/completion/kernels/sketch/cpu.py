"""Numba kernels that solve row systems of many unknowns: by sketches, and block by block.

The systems are those of the kernels in ``rows``: `ptr` ... `shared` mean the same, and so do what
`grad` and `left` receive and what is returned. H is a row's Hessian, g its gradient.
"""

import math

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import REDUCE, kernel
from ..cpu import cuts

# Rows of a sketch for each unknown. The preconditioned H is within (k / s)^1/2 or so of the
# identity: with s = 4 k conjugate gradients halve the error in each step, but steps of length one
# would not converge (measured; they need about 12 k).
_CONJUGATE, _UNIT = 4, 12
# Entries in each column of a sketch. Two keep its quality where rows of B differ much in length:
# of 4.0, 4.7 and 6.0 steps with one entry, for k = 20, 50, 100, they leave 3.5, 3.8 and 4.2.
_NNZ = 2
# Unknowns that are minimised over at a time.
_BLOCK = 32
# What became of a row; 0: it was left as it is.
_DONE, _GIVEN_UP = 1, 2

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_HALF, _LOW = np.uint64(32), np.uint64(1)


def sketch_rows(
    ptr,
    idx,
    val,
    weight,
    B,
    offset,
    ridge,
    lam_bias,
    shared,
    A,
    grad,
    left,
    state,
    eta,
    unit,
    seed,
):
    """Improve each ``A_i`` by least squares that a random sketch of its system preconditions.

    Rows with too few entries for a sketch, or whose sketch is singular, are left as they are.

    Parameters
    ----------
    ptr, ..., left : array or float
        See ``rows``.
    state : array of int8, shape (m,)
        Zeros; becomes 1 for a row that is solved, 2 for one that did not get there in time.
    eta : float
        A row is solved when its preconditioned gradient is `eta` times as long as with A_i = 0.
    unit : bool
        Whether to take the steps of length one that the theory has, not conjugate gradients.
    seed : int
        Where the randomness comes from, below 2^63; it depends on nothing else.

    Returns
    -------
    square : float
    steps : int
        Steps of all rows.
    """
    k = B.shape[1]
    s = (_UNIT if unit else _CONJUGATE) * k
    eta = max(eta, _roundings(A))
    most = 3 * max(math.ceil(math.log(1.0 / eta) / (0.5 * math.log(s / k))), 1)
    squares, counts = np.zeros(A.shape[0]), np.zeros(A.shape[0], np.int64)
    with threads.guard():
        where = cuts(ptr, k * k)
        _sketch_rows(
            where, ptr, idx, val, weight, B, offset, ridge, lam_bias, shared, A, grad, left, state,
            eta, unit, np.uint64(seed), s, most, squares, counts,
        )  # fmt: skip
    return squares.sum(), int(counts.sum())


def _roundings(A):
    """Return the smallest relative tolerance that rounding errors let a row reach."""
    return 64.0 * float(np.finfo(A.dtype).eps)


@kernel(parallel=True)
def _sketch_rows(
    where, ptr, idx, val, weight, B, offset, ridge, lam_bias, shared, A, grad, left, state, eta,
    unit, seed, s, most, squares, counts,
):  # fmt: skip
    k = B.shape[1]
    for t in prange(where.size - 1):
        G, S = np.empty((k, k), A.dtype), np.empty((s, k), A.dtype)
        diag, h, work = np.empty(k, A.dtype), np.empty(k, A.dtype), np.empty((3, k), A.dtype)
        nothing = np.empty(0, A.dtype)
        for i in range(where[t], where[t + 1]):
            first, last, x, g = ptr[i], ptr[i + 1], A[i], left[i]
            _diagonal(ridge[i], lam_bias, offset, diag)
            # With more than half as many rows as the system a sketch saves nothing.
            if last - first <= 2 * s:
                continue
            _sketch(first, last, idx, weight, B, seed, S)
            _gram(S, diag, shared, G)
            if not _cholesky(G):
                continue
            squares[i] = _gradient(
                first, last, idx, val, weight, B, offset, diag, shared, x, grad[i], h, nothing
            )
            g[:] = grad[i]
            counts[i], done = _iterate(
                first, last, idx, weight, B, diag, shared, G, x, g, h, eta, unit, most, work
            )
            state[i] = _DONE if done else _GIVEN_UP


@kernel(fastmath=REDUCE)
def _iterate(
    first, last, idx, weight, B, diag, shared, L, x, g, h, eta, unit, most, work
):  # fmt: skip
    """Descend with ``L L^T`` for a preconditioner; return the steps, and whether g got small.

    g is the gradient at x and stays so; h is minus the gradient at zero, and is overwritten.
    """
    k = x.size
    y, p, Hp = work[0], work[1], work[2]
    _forward(L, h)
    goal = eta * eta * (h @ h)
    y[:] = g
    _forward(L, y)
    rho = y @ y
    p[:] = 0.0
    step, before = 0, 1.0
    while rho > goal:
        if step == most:
            return step, False
        _backward(L, y)
        # Directions that are not made conjugate to those before are the gradients themselves.
        keep = 0.0 if unit or step == 0 else rho / before
        for q in range(k):
            p[q] = keep * p[q] - y[q]
        _hessian(first, last, idx, weight, B, diag, shared, p, Hp)
        alpha = 1.0 if unit else rho / (p @ Hp)
        for q in range(k):
            x[q] += alpha * p[q]
            g[q] += alpha * Hp[q]
        y[:] = g
        _forward(L, y)
        before, rho = rho, y @ y
        step += 1
    return step, True


def subspace_rows(
    ptr, idx, val, weight, B, offset, ridge, lam_bias, shared, A, grad, left, state, eta, steps
):
    """Improve each ``A_i`` by minimising over some of its unknowns at a time, all in turn.

    That is the block coordinate Newton method of iALS++ (Rendle et al., arXiv:2110.14044). Rows
    with fewer entries than unknowns, or with a singular block, are left as they are.

    Parameters
    ----------
    ptr, ..., left : array or float
        See ``rows``.
    state : array of int8, shape (m,)
        Zeros; becomes 1 for the other rows.
    eta : float
        A row stops when its gradient is `eta` times as long as with A_i = 0,
    steps : int
        or after so many rounds over its unknowns.

    Returns
    -------
    square : float
    steps : int
        Rounds of all rows.
    """
    eta = max(eta, _roundings(A))
    squares, counts = np.zeros(A.shape[0]), np.zeros(A.shape[0], np.int64)
    longest = int(np.diff(ptr).max(initial=0))
    with threads.guard():
        where = cuts(ptr, B.shape[1] * _BLOCK)
        _subspace_rows(
            where, ptr, idx, val, weight, B, offset, ridge, lam_bias, shared, A, grad, left, state,
            eta, steps, longest, squares, counts,
        )  # fmt: skip
    return squares.sum(), int(counts.sum())


@kernel(parallel=True)
def _subspace_rows(
    where, ptr, idx, val, weight, B, offset, ridge, lam_bias, shared, A, grad, left, state, eta,
    steps, longest, squares, counts,
):  # fmt: skip
    k = B.shape[1]
    for t in prange(where.size - 1):
        # The Cholesky factors of all blocks on the diagonal, one below the other.
        L = np.empty((k, _BLOCK), A.dtype)
        diag, h = np.empty(k, A.dtype), np.empty(k, A.dtype)
        d, e = np.empty(_BLOCK, A.dtype), np.empty(longest, A.dtype)
        for i in range(where[t], where[t + 1]):
            first, last, x, g = ptr[i], ptr[i + 1], A[i], left[i]
            _diagonal(ridge[i], lam_bias, offset, diag)
            # With fewer entries than unknowns nothing is saved, nor need the minimiser be unique.
            if last - first < k or not _blocks(first, last, idx, weight, B, diag, shared, L):
                continue
            squares[i] = _gradient(
                first, last, idx, val, weight, B, offset, diag, shared, x, grad[i], h, e
            )
            g[:] = grad[i]
            goal = eta * eta * (h @ h)
            while counts[i] < steps and g @ g > goal:
                for q in range(0, k, _BLOCK):
                    _descend(first, last, idx, weight, B, diag, shared, L, q, x, e, d)
                _gradient_of(first, last, idx, weight, B, diag, shared, x, e, g)
                counts[i] += 1
            state[i] = _DONE


@kernel(fastmath=REDUCE)
def _blocks(first, last, idx, weight, B, diag, shared, L):
    """Factorise the blocks on the Hessian's diagonal; tell whether all have full rank."""
    k = diag.size
    for q in range(0, k, _BLOCK):
        size = min(_BLOCK, k - q)
        G = L[q : q + size, :size]
        for a in range(size):
            for b in range(a + 1):
                G[a, b] = shared[q + a, q + b] if shared.size > 0 else 0.0
            G[a, a] += diag[q + a]
        for p in range(first, last):
            v = B[idx[p], q : q + size]
            for a in range(size):
                c = weight[p] * v[a] if weight.size > 0 else v[a]
                for b in range(a + 1):
                    G[a, b] += c * v[b]
        if not _cholesky(G):
            return False
    return True


@kernel(fastmath=REDUCE)
def _descend(first, last, idx, weight, B, diag, shared, L, q, x, e, d):
    """Minimise over the block that begins with the unknown q; e is the residual and stays so."""
    size = min(_BLOCK, x.size - q)
    d = d[:size]
    for a in range(size):
        d[a] = diag[q + a] * x[q + a]
        if shared.size > 0:
            d[a] += shared[q + a] @ x
    for p in range(first, last):
        v = B[idx[p], q : q + size]
        r = weight[p] * e[p - first] if weight.size > 0 else e[p - first]
        for a in range(size):
            d[a] += r * v[a]
    _forward(L[q : q + size], d)
    _backward(L[q : q + size], d)
    x[q : q + size] -= d
    for p in range(first, last):
        e[p - first] -= B[idx[p], q : q + size] @ d


@kernel(fastmath=REDUCE)
def _gradient_of(first, last, idx, weight, B, diag, shared, x, e, g):
    """Set g to the gradient at x, where the residual is e."""
    _penalty_times(diag, shared, x, g)
    for p in range(first, last):
        v = B[idx[p]]
        r = weight[p] * e[p - first] if weight.size > 0 else e[p - first]
        for q in range(x.size):
            g[q] += r * v[q]


@kernel(inline=True)
def _diagonal(ridge, lam_bias, offset, diag):
    diag[:] = ridge
    if offset.size > 0:
        diag[0] = lam_bias


@kernel(fastmath=REDUCE)
def _gradient(first, last, idx, val, weight, B, offset, diag, shared, x, g, h, e):
    """Set g and h, minus the gradient at zero, and e, the residual, if it has room.

    Returns the weighted sum of squares.
    """
    k = x.size
    _penalty_times(diag, shared, x, g)
    h[:] = 0.0
    square = 0.0
    for p in range(first, last):
        v = B[idx[p]]
        target = val[p]
        if offset.size > 0:
            target -= offset[idx[p]]
        r = -target
        for q in range(k):
            r += v[q] * x[q]
        w = weight[p] if weight.size > 0 else v.dtype.type(1.0)
        square += w * r * r
        if e.size > 0:
            e[p - first] = r
        r *= w
        target *= w
        for q in range(k):
            g[q] += r * v[q]
            h[q] += target * v[q]
    return square


@kernel(fastmath=REDUCE)
def _hessian(first, last, idx, weight, B, diag, shared, x, out):
    """Set out to the product of the Hessian and x."""
    k = x.size
    _penalty_times(diag, shared, x, out)
    for p in range(first, last):
        v = B[idx[p]]
        r = v.dtype.type(0.0)
        for q in range(k):
            r += v[q] * x[q]
        if weight.size > 0:
            r *= weight[p]
        for q in range(k):
            out[q] += r * v[q]


@kernel(fastmath=REDUCE)
def _penalty_times(diag, shared, x, out):
    for q in range(x.size):
        total = diag[q] * x[q]
        if shared.size > 0:
            for r in range(x.size):
                total += shared[q, r] * x[r]
        out[q] = total


@kernel(inline=True)
def _bits(seed, counter):
    """Return 64 random bits that follow from two numbers (SplitMix64, by G. Steele et al.)."""
    z = seed + np.uint64(counter) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@kernel(fastmath=REDUCE)
def _sketch(first, last, idx, weight, B, seed, S):
    """Set S to a sparse random sign matrix times the row's system, weights included."""
    S[:] = 0.0
    part = S.shape[0] // _NNZ
    for p in range(first, last):
        v = B[idx[p]]
        size = v.dtype.type(math.sqrt((weight[p] if weight.size > 0 else 1.0) / _NNZ))
        for c in range(_NNZ):
            bits = _bits(seed, _NNZ * p + c)
            # The upper half of the bits, as a fraction, says which row; the lowest the sign.
            row = S[c * part + np.int64(((bits >> _HALF) * np.uint64(part)) >> _HALF)]
            f = size if bits & _LOW else -size
            for q in range(v.size):
                row[q] += f * v[q]


@kernel(fastmath=REDUCE)
def _gram(S, diag, shared, G):
    """Set the lower half of G to ``S^T S`` and what is added to it."""
    k = diag.size
    for q in range(k):
        for r in range(q + 1):
            G[q, r] = shared[q, r] if shared.size > 0 else 0.0
        G[q, q] += diag[q]
    # Four rows at a time: G is read and written a fourth as often. Sketches have 4 k rows.
    for p in range(0, S.shape[0], 4):
        for q in range(k):
            a, b, c, d = S[p, q], S[p + 1, q], S[p + 2, q], S[p + 3, q]
            for r in range(q + 1):
                G[q, r] += a * S[p, r] + b * S[p + 1, r] + c * S[p + 2, r] + d * S[p + 3, r]


@kernel(fastmath=REDUCE)
def _cholesky(G):
    """Factorise the lower half of G in place; tell whether it has full rank to rounding."""
    k = G.shape[0]
    top = 0.0
    for q in range(k):
        top = max(top, G[q, q])
    floor = top * k * 4.0 * np.finfo(G.dtype).eps
    for q in range(k):
        for r in range(q + 1):
            total = G[q, r]
            for c in range(r):
                total -= G[q, c] * G[r, c]
            if r < q:
                G[q, r] = total / G[r, r]
            elif total > floor:
                G[q, q] = math.sqrt(total)
            else:
                return False
    return True


@kernel(fastmath=REDUCE)
def _forward(L, x):
    """Solve with L, in place."""
    for q in range(x.size):
        total = x[q]
        for c in range(q):
            total -= L[q, c] * x[c]
        x[q] = total / L[q, q]


@kernel(fastmath=REDUCE)
def _backward(L, x):
    """Solve with the transpose of L, in place."""
    for q in range(x.size - 1, -1, -1):
        x[q] /= L[q, q]
        for c in range(q):
            x[c] -= L[q, c] * x[q]
