"""Numba kernels of sketch-and-project; `gpu.py` launches their CUDA twins.

Compressed rows come as `values`, `columns` (int32) and `starts` (int64). Right-hand sides and
unknowns are vectors; `x` moves in place. Steps follow each other, so that nothing runs in
parallel.
"""

import numpy as np

from ..._core.kernels.jit import REDUCE, kernel


@kernel()
def kaczmarz(A, b, inverse, order, x):
    """Project x onto the solutions of one equation after the other.

    `inverse` holds the rows' inverse squared lengths, 0 for rows of zeros.
    """
    for i in order:
        row = A[i]
        _add((b[i] - _dot(row, x)) * inverse[i], row, x)


@kernel()
def kaczmarz_csr(values, columns, starts, b, inverse, order, x):
    """Project x onto the solutions of one equation after the other; compressed rows."""
    for i in order:
        part = slice(starts[i], starts[i + 1])
        row, where = values[part], columns[part]
        _scatter((b[i] - _gather(row, where, x)) * inverse[i], row, where, x)


@kernel()
def block_kaczmarz(A, b, scale, blocks, factors, order, z, eta, v, x, squares):
    """Project x onto the solutions of several equations at once, one block after the other.

    Equations are multiplied by `scale`; `blocks` (k, q) lists their numbers, `factors` (k, q, q)
    the lower Cholesky factors of their Gram matrices. With ``z > 0`` the steps have momentum,
    which `v` carries. `squares` receives the squared residual that each step found.
    """
    t, w = np.empty(blocks.shape[1]), np.empty(x.size)
    for step in range(order.size):
        block = blocks[order[step]]
        for k in range(t.size):
            i = block[k]
            t[k] = scale[i] * (b[i] - _dot(A[i], x))
        squares[step] = _dot(t, t)
        _solve(factors[order[step]], t)
        target = w if z > 0.0 else x
        w[:] = 0.0
        for k in range(t.size):
            i = block[k]
            _add(scale[i] * t[k], A[i], target)
        if z > 0.0:
            _momentum(w, z, eta, v, x)


@kernel()
def block_kaczmarz_csr(
    values, columns, starts, b, scale, blocks, factors, order, z, eta, v, x, squares
):
    """Project x onto the solutions of several equations at once; compressed rows."""
    t, w = np.empty(blocks.shape[1]), np.empty(x.size)
    for step in range(order.size):
        block = blocks[order[step]]
        for k in range(t.size):
            i = block[k]
            part = slice(starts[i], starts[i + 1])
            t[k] = scale[i] * (b[i] - _gather(values[part], columns[part], x))
        squares[step] = _dot(t, t)
        _solve(factors[order[step]], t)
        target = w if z > 0.0 else x
        if z > 0.0:
            w[:] = 0.0
        for k in range(t.size):
            i = block[k]
            part = slice(starts[i], starts[i + 1])
            _scatter(scale[i] * t[k], values[part], columns[part], target)
        if z > 0.0:
            _momentum(w, z, eta, v, x)


@kernel()
def gram_csr(values, columns, starts, scale, blocks, width, gram):
    """Set gram (k, q, q) to the products of the scaled rows of each block; columns < width."""
    spread = np.zeros(width)
    for number in range(blocks.shape[0]):
        block, out = blocks[number], gram[number]
        for k in range(block.size):
            i = block[k]
            own = slice(starts[i], starts[i + 1])
            _scatter(scale[i], values[own], columns[own], spread)
            for other in range(k + 1):
                j = block[other]
                part = slice(starts[j], starts[j + 1])
                out[k, other] = scale[j] * _gather(values[part], columns[part], spread)
                out[other, k] = out[k, other]
            for p in range(starts[i], starts[i + 1]):
                spread[columns[p]] = 0.0


@kernel()
def _solve(L, t):
    """Solve ``L L^T y = t`` in place."""
    for k in range(t.size):
        t[k] = (t[k] - _dot(L[k, :k], t[:k])) / L[k, k]
    for k in range(t.size - 1, -1, -1):
        t[k] /= L[k, k]
        _add(-t[k], L[k, :k], t[:k])


@kernel(fastmath=REDUCE)
def _momentum(w, z, eta, v, x):
    for k in range(x.size):
        v[k] = z * (v[k] + w[k])
        x[k] += w[k] + eta * v[k]


@kernel(fastmath=REDUCE)
def _dot(a, x):
    total = 0.0
    for k in range(a.size):
        total += a[k] * x[k]
    return total


@kernel(fastmath=REDUCE)
def _add(factor, a, x):
    for k in range(a.size):
        x[k] += factor * a[k]


@kernel(fastmath=REDUCE)
def _gather(a, where, x):
    total = 0.0
    for k in range(a.size):
        total += a[k] * x[where[k]]
    return total


@kernel(fastmath=REDUCE)
def _scatter(factor, a, where, x):
    for k in range(a.size):
        x[where[k]] += factor * a[k]
