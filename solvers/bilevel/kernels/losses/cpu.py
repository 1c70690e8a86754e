"""Numba kernels of the losses of linear models; `gpu.py` launches their CUDA twins.

One pass serves Q vectors of coefficients. They come in families of k, one vector per class (k = 1
but for SOFTMAX), and what a family means is the `mode`:

- ONE: each is a point. Out come its losses and its gradient.
- PAIR: a point z, then a step d. Out come the losses at z, how much more they are at z + d, and
  the gradients at z and z + d.
- BEND: a point, then a direction. Out come the slopes along it and the Hessian's product with it.

`losses` takes per-sample numbers, one row for each family (BEND: one for two families).
"""

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import EXACT, REDUCE, kernel
from ...._core.kernels.vmath import exp, log, vmax, vmin

SQUARED, LOGISTIC, HINGE, SOFTMAX = range(4)
ONE, PAIR, BEND = range(3)
# Bytes of a chunk of rows, which stay in the cache from the products to the gradients.
_CHUNK = 1 << 18
# Where not even the vectors stay there, few turns from products to gradients are best: rows of a
# chunk for coefficients that take more bytes than this.
_SPILL, _MANY_ROWS = 1 << 22, 1 << 17


def dense_pass(X, rows, t, weights, kind, mode, k, W, losses, G):
    """Pass over rows of X (n, p) with the vectors in W (Q, p).

    Parameters
    ----------
    rows : array of int, shape (N,)
    t : array, shape (n,)
        Targets, signs, or classes as numbers.
    weights : array, shape (B, N) or (B, 0)
        Of the samples in the gradients, one row for each point, or none.
    losses : array, shape (L, N)
        Output.
    G : array, shape (O, p)
        Output: sums of the gradients, or products.
    """
    Q, p = W.shape
    chunk = _chunk(p * X.itemsize, rows.size)
    classes = k if kind == SOFTMAX else None
    args = X, rows, t, weights, kind, mode, classes, W, chunk, losses
    _run(_dense, _dense_in_strips, rows.size * p * (Q + G.shape[0]), rows.size, args, G)


def block_pass(X, rows, t, weights, kind, mode, k, W, losses, G):
    """Pass over rows of I blocks, each with vectors of its own.

    Parameters
    ----------
    X : array, shape (n, p)
        The rows of all blocks.
    rows : array of int, shape (I, N)
    t : array, shape (n,)
    weights : array, shape (I, N) or (I, 0)
        Of the samples in the gradients of all points, or none.
    W : array, shape (I, Q, p)
    losses : array, shape (L, I, N)
        Output.
    G : array, shape (I, O, p)
        Output: sums of the gradients, or products.
    """
    count, Q, p = W.shape
    N = rows.shape[1]
    strips = threads.strips(rows.size * p * (Q + G.shape[1]))
    every = weights.reshape(1, -1)
    weights = np.tile(every, (Q, 1)) if weights.size else every
    flat = losses.reshape(losses.shape[0], -1)
    chunk = _chunk(p * X.itemsize, N)
    classes = k if kind == SOFTMAX else None
    args = X, rows.reshape(-1), t, weights, kind, mode, classes, W, N, chunk, flat, G
    if strips == 1:
        _blocks(0, count, *args)
        return
    cuts = np.linspace(0, count, strips + 1).astype(np.int64)
    with threads.guard():
        _blocks_in_strips(cuts, *args)


def csr_pass(indptr, indices, data, rows, t, weights, kind, mode, k, W, losses, G):
    """Pass over compressed rows with the vectors in W (p, Q); G is (p, O), the rest as above."""
    Q, entries = W.shape[1], data.size // max(indptr.size - 1, 1) + 1
    chunk = _chunk(entries * (data.itemsize + indices.itemsize), rows.size)
    if W.nbytes > _SPILL:
        chunk = max(min(_MANY_ROWS // Q, rows.size) // 4 * 4, 4)
    classes = k if kind == SOFTMAX else None
    args = indptr, indices, data, rows, t, weights, kind, mode, classes, W, chunk, losses
    _run(_csr, _csr_in_strips, rows.size * entries * (Q + G.shape[1]), rows.size, args, G)


def _chunk(row_bytes, n):
    return max(min(_CHUNK // row_bytes, 512, n) // 4 * 4, 4)


def _run(serial, parallel, work, n, args, G):
    """Pass over n rows in strips that add to parts of their own, summed in their order."""
    strips = threads.strips(work)
    if strips == 1:
        G[...] = 0
        serial(0, 0, n, *args, G[np.newaxis])
        return
    where = np.linspace(0, n, strips + 1).astype(np.int64)
    parts = np.zeros((strips, *G.shape), G.dtype)
    with threads.guard():
        parallel(where, *args, parts)
    np.sum(parts, axis=0, out=G)


@kernel(parallel=True)
def _dense_in_strips(where, X, rows, t, weights, kind, mode, classes, W, chunk, losses, parts):
    for s in prange(where.size - 1):
        _dense(
            s, where[s], where[s + 1],
            X, rows, t, weights, kind, mode, classes, W, chunk, losses, parts,
        )  # fmt: skip


@kernel(parallel=True)
def _blocks_in_strips(cuts, X, rows, t, weights, kind, mode, classes, W, N, chunk, losses, G):
    for s in prange(cuts.size - 1):
        _blocks(
            cuts[s], cuts[s + 1],
            X, rows, t, weights, kind, mode, classes, W, N, chunk, losses, G,
        )  # fmt: skip


@kernel(parallel=True)
def _csr_in_strips(
    where, indptr, indices, data, rows, t, weights, kind, mode, classes, W, chunk, losses, parts
):
    for s in prange(where.size - 1):
        _csr(
            s, where[s], where[s + 1],
            indptr, indices, data, rows, t, weights, kind, mode, classes, W, chunk, losses, parts,
        )  # fmt: skip


@kernel()
def _blocks(first, last, X, rows, t, weights, kind, mode, classes, W, N, chunk, losses, G):
    for i in range(first, last):
        G[i] = 0
        _dense(
            i, i * N, (i + 1) * N,
            X, rows, t, weights, kind, mode, classes, W[i], chunk, losses, G,
        )  # fmt: skip


@kernel()
def _dense(s, first, last, X, rows, t, weights, kind, mode, classes, W, chunk, losses, parts):
    Q, G = W.shape[0], parts[s]
    M, target = np.empty((Q, chunk), X.dtype), np.empty(chunk, X.dtype)
    S = np.empty((4 if classes is None else 4 + classes, chunk))
    for a in range(first, last, chunk):
        b = min(a + chunk, last)
        for q in range(0, Q - 1, 2):
            _dot_two(X, rows, a, b, W[q], W[q + 1], M[q], M[q + 1])
        if Q % 2:
            _dot_one(X, rows, a, b, W[Q - 1], M[Q - 1])
        for i in range(a, b):
            target[i - a] = t[rows[i]]
        _respond(kind, mode, classes, target, weights, M, losses, S, a, b - a)
        out = G.shape[0]
        for q in range(0, out - 1, 2):
            _add_two(X, rows, a, b, M[q], M[q + 1], G[q], G[q + 1])
        if out % 2:
            _add_one(X, rows, a, b, M[out - 1], G[out - 1])


@kernel(fastmath=REDUCE)
def _dot_two(X, rows, a, b, w, v, mw, mv):
    zero = mw.dtype.type(0)
    for i in range(a, b, 4):
        # The last rows may be the same one again.
        x0, x1 = X[rows[i]], X[rows[min(i + 1, b - 1)]]
        x2, x3 = X[rows[min(i + 2, b - 1)]], X[rows[min(i + 3, b - 1)]]
        w0 = w1 = w2 = w3 = v0 = v1 = v2 = v3 = zero
        for j in range(w.size):
            w0 += x0[j] * w[j]
            w1 += x1[j] * w[j]
            w2 += x2[j] * w[j]
            w3 += x3[j] * w[j]
            v0 += x0[j] * v[j]
            v1 += x1[j] * v[j]
            v2 += x2[j] * v[j]
            v3 += x3[j] * v[j]
        _put(mw, i - a, w0, w1, w2, w3)
        _put(mv, i - a, v0, v1, v2, v3)


@kernel(fastmath=REDUCE)
def _dot_one(X, rows, a, b, w, mw):
    zero = mw.dtype.type(0)
    for i in range(a, b, 4):
        x0, x1 = X[rows[i]], X[rows[min(i + 1, b - 1)]]
        x2, x3 = X[rows[min(i + 2, b - 1)]], X[rows[min(i + 3, b - 1)]]
        w0 = w1 = w2 = w3 = zero
        for j in range(w.size):
            w0 += x0[j] * w[j]
            w1 += x1[j] * w[j]
            w2 += x2[j] * w[j]
            w3 += x3[j] * w[j]
        _put(mw, i - a, w0, w1, w2, w3)


@kernel(inline=True)
def _put(m, i, m0, m1, m2, m3):
    m[i] = m0
    m[i + 1] = m1
    m[i + 2] = m2
    m[i + 3] = m3


@kernel(fastmath=REDUCE)
def _add_two(X, rows, a, b, r, q, g, h):
    for i in range(b - a, (b - a + 3) // 4 * 4):
        r[i] = q[i] = 0
    for i in range(a, b, 4):
        x0, x1 = X[rows[i]], X[rows[min(i + 1, b - 1)]]
        x2, x3 = X[rows[min(i + 2, b - 1)]], X[rows[min(i + 3, b - 1)]]
        c = i - a
        r0, r1, r2, r3 = r[c], r[c + 1], r[c + 2], r[c + 3]
        q0, q1, q2, q3 = q[c], q[c + 1], q[c + 2], q[c + 3]
        for j in range(g.size):
            g[j] += (r0 * x0[j] + r1 * x1[j]) + (r2 * x2[j] + r3 * x3[j])
            h[j] += (q0 * x0[j] + q1 * x1[j]) + (q2 * x2[j] + q3 * x3[j])


@kernel(fastmath=REDUCE)
def _add_one(X, rows, a, b, r, g):
    for i in range(b - a, (b - a + 3) // 4 * 4):
        r[i] = 0
    for i in range(a, b, 4):
        x0, x1 = X[rows[i]], X[rows[min(i + 1, b - 1)]]
        x2, x3 = X[rows[min(i + 2, b - 1)]], X[rows[min(i + 3, b - 1)]]
        c = i - a
        r0, r1, r2, r3 = r[c], r[c + 1], r[c + 2], r[c + 3]
        for j in range(g.size):
            g[j] += (r0 * x0[j] + r1 * x1[j]) + (r2 * x2[j] + r3 * x3[j])


@kernel()
def _csr(
    s,
    first,
    last,
    indptr,
    indices,
    data,
    rows,
    t,
    weights,
    kind,
    mode,
    classes,
    W,
    chunk,
    losses,
    parts,
):
    G = parts[s]
    M, target = np.empty((W.shape[1], chunk), data.dtype), np.empty(chunk, data.dtype)
    m = np.zeros(W.shape[1], data.dtype)
    S = np.empty((4 if classes is None else 4 + classes, chunk))
    for a in range(first, last, chunk):
        b = min(a + chunk, last)
        for i in range(a, b):
            target[i - a] = t[rows[i]]
            start, end = np.uint64(indptr[rows[i]]), np.uint64(indptr[rows[i] + 1])
            _dot_row(start, end, indices, data, W, M, i - a, m)
        _respond(kind, mode, classes, target, weights, M, losses, S, a, b - a)
        for i in range(a, b):
            start, end = np.uint64(indptr[rows[i]]), np.uint64(indptr[rows[i] + 1])
            _add_row(start, end, indices, data, M, i - a, m, G)


# Without fast arithmetic: sums in a different order are gathered by vectors, which takes longer.
# Entries and columns are unsigned, for Numba lets a signed index count from the end; and rows are
# too short for a call, which would cost more than their products.
@kernel(inline=True)
def _dot_row(first, last, indices, data, W, M, i, m):
    Q = m.size
    a = b = data.dtype.type(0)
    if Q == 1:
        for e in range(first, last):
            a += data[e] * W[np.uint64(indices[e]), 0]
        M[0, i] = a
        return
    if Q == 2:
        for e in range(first, last):
            c, d = np.uint64(indices[e]), data[e]
            a += d * W[c, 0]
            b += d * W[c, 1]
        M[0, i] = a
        M[1, i] = b
        return
    for q in range(Q):
        m[q] = 0
    for e in range(first, last):
        w, d = W[np.uint64(indices[e])], data[e]
        for q in range(Q):
            m[q] += d * w[q]
    for q in range(Q):
        M[q, i] = m[q]


@kernel(inline=True)
def _add_row(first, last, indices, data, M, i, m, G):
    Q = G.shape[1]
    if Q == 1:
        a = M[0, i]
        for e in range(first, last):
            G[np.uint64(indices[e]), 0] += data[e] * a
        return
    for q in range(Q):
        m[q] = M[q, i]
    if Q == 2:
        a, b = m[0], m[1]
        for e in range(first, last):
            c, d = np.uint64(indices[e]), data[e]
            G[c, 0] += d * a
            G[c, 1] += d * b
        return
    for e in range(first, last):
        g, d = G[np.uint64(indices[e])], data[e]
        for q in range(Q):
            g[q] += d * m[q]


@kernel()
def _respond(kind, mode, classes, t, weights, M, losses, S, a, n):
    """Turn predictions for n rows from row a into weighted slopes; BEND's move to the front.

    Of the two parts, the one without and the one with classes, Numba compiles what is needed.
    """
    k = 1 if classes is None else classes
    step = k if mode == ONE else 2 * k
    for f in range(M.shape[0] // step):
        o = f * step
        row = 2 * f if mode == PAIR else f
        loss, change = losses[row], losses[row + (mode == PAIR)]
        if classes is None:
            _one_prediction(kind, mode, t, M[o], M[o + step - 1], loss, change, a, n)
        else:
            _softmax(mode, classes, t, M, o, loss, change, S, a, n)
        if mode == BEND:
            for c in range(k):
                _copy(M[o + k + c], M[f * k + c], n)
        if weights.shape[1]:
            count = k if mode == BEND else step
            for q in range(f * count, (f + 1) * count):
                _times(weights[f], a, 1, M[q], n)


@kernel()
def _one_prediction(kind, mode, t, z, d, loss, change, a, n):
    if kind == SQUARED:
        _squared(mode, t, z, d, loss, change, a, n)
        return
    # The others are functions of u = -t z.
    _times(t, 0, -1, z, n)
    if mode != ONE:
        _times(t, 0, -1, d, n)
    if kind == HINGE:
        _hinge(mode, z, d, loss, change, a, n)
    else:
        _logistic(mode, z, d, loss, change, a, n)
    _times(t, 0, -1, z, n)
    if mode != ONE:
        _times(t, 0, -1, d, n)


@kernel()
def _times(t, first, sign, z, n):
    for i in range(n):
        z[i] *= sign * t[first + i]


@kernel()
def _copy(x, y, n):
    for i in range(n):
        y[i] = x[i]


@kernel(fastmath=EXACT)
def _squared(mode, t, r, d, loss, change, a, n):
    for i in range(n):
        r[i] -= t[i]
    for i in range(n):
        if mode == BEND:
            loss[a + i] = r[i] * d[i]
            continue
        if mode == PAIR:
            change[a + i] = np.float64(d[i]) * (r[i] + 0.5 * d[i])
            d[i] += r[i]
        loss[a + i] = 0.5 * np.float64(r[i]) * r[i]


@kernel(fastmath=EXACT)
def _hinge(mode, u, d, loss, change, a, n):
    for i in range(n):
        room = vmax(1.0 + u[i], 0.0)
        if mode == BEND:
            loss[a + i] = room * d[i]
            d[i] = d[i] if room > 0.0 else 0.0
            continue
        if mode == PAIR:
            then = vmax(1.0 + u[i] + d[i], 0.0)
            more = np.float64(d[i]) if room > 0.0 and then > 0.0 else then - room
            change[a + i] = 0.5 * more * (then + room)
            d[i] = then
        loss[a + i] = 0.5 * room * room
        u[i] = room


@kernel(fastmath=EXACT)
def _logistic(mode, u, d, loss, change, a, n):
    # The loss is log(1 + e^u), its slope 1 / (1 + e^-u).
    if mode == BEND:
        for i in range(n):
            share = _sigmoid(np.float64(u[i]))
            loss[a + i] = share * d[i]
            d[i] *= share * (1.0 - share)
        return
    if mode == PAIR:
        for i in range(n):
            v, step = np.float64(u[i]), np.float64(d[i])
            near = _log1p(_sigmoid(v) * _expm1(vmin(vmax(step, -0.25), 0.25)))
            far = _softplus(v + step) - _softplus(v)
            change[a + i] = near if abs(step) < 0.25 else far
            d[i] = _sigmoid(v + step)
    for i in range(n):
        v = np.float64(u[i])
        loss[a + i] = _softplus(v)
        u[i] = _sigmoid(v)


@kernel()
def _softmax(mode, k, t, M, o, loss, change, S, a, n):
    """Predictions are in rows o to o + k of M, steps or directions in the k rows after them."""
    here, there, total, inner = S[0], S[1], S[2], S[3]
    for i in range(n):
        own = o + int(t[i])
        loss[a + i] = -M[own + k, i] if mode == BEND else -M[own, i]
        if mode == PAIR:
            change[a + i] = -M[own + k, i]
    if mode == PAIR:
        for c in range(k):
            _move(M[o + c], M[o + k + c], S[4 + c], n)
        _shares(k, S, 4, there, total, n)
    _shares(k, M, o, here, total, n)
    if mode == BEND:
        _spread(k, M, o, loss, inner, a, n)
        return
    if mode == PAIR:
        _grow(k, M, o, S, change, a, n)
    for i in range(n):
        loss[a + i] += here[i]
        own = o + int(t[i])
        M[own, i] -= 1
        if mode == PAIR:
            M[own + k, i] -= 1


@kernel()
def _move(z, d, moved, n):
    for i in range(n):
        moved[i] = np.float64(z[i]) + d[i]


@kernel(fastmath=EXACT)
def _shares(k, M, o, top, total, n):
    """Turn predictions into their shares; `top` becomes the logarithm of the sum of e^z."""
    for i in range(n):
        top[i] = -np.inf
        total[i] = 0.0
    for c in range(k):
        z = M[o + c]
        for i in range(n):
            top[i] = vmax(top[i], np.float64(z[i]))
    for c in range(k):
        z = M[o + c]
        for i in range(n):
            e = exp(z[i] - top[i])
            z[i] = e
            total[i] += e
    for c in range(k):
        z = M[o + c]
        for i in range(n):
            z[i] /= total[i]
    for i in range(n):
        top[i] += log(total[i])


@kernel(fastmath=EXACT)
def _grow(k, M, o, S, change, a, n):
    """Add to `change` what the logarithm of the sum grows by; put the new shares into M."""
    here, there, size, inner = S[0], S[1], S[2], S[3]
    for i in range(n):
        inner[i] = size[i] = 0.0
    for c in range(k):
        z, d = M[o + c], M[o + k + c]
        for i in range(n):
            step = np.float64(d[i])
            size[i] = vmax(size[i], abs(step))
            inner[i] += z[i] * _expm1(vmin(vmax(step, -0.25), 0.25))
    for i in range(n):
        near, far = _log1p(inner[i]), there[i] - here[i]
        change[a + i] += near if size[i] < 0.25 else far
    for c in range(k):
        z, d = S[4 + c], M[o + k + c]
        for i in range(n):
            d[i] = z[i]


@kernel(fastmath=EXACT)
def _spread(k, M, o, loss, mean, a, n):
    """Multiply the directions in M by the Hessian of each sample."""
    for i in range(n):
        mean[i] = 0.0
    for c in range(k):
        z, v = M[o + c], M[o + k + c]
        for i in range(n):
            mean[i] += np.float64(z[i]) * v[i]
    for i in range(n):
        loss[a + i] += mean[i]
    for c in range(k):
        z, v = M[o + c], M[o + k + c]
        for i in range(n):
            v[i] = z[i] * (v[i] - mean[i])


@kernel(inline=True, fastmath=EXACT)
def _sigmoid(u):
    e = exp(-abs(u))
    return (1.0 if u > 0.0 else e) / (1.0 + e)


@kernel(inline=True, fastmath=EXACT)
def _softplus(u):
    """log(1 + e^u)."""
    return vmax(u, 0.0) + _log1p(exp(-abs(u)))


@kernel(inline=True, fastmath=EXACT)
def _log1p(x):
    """log(1 + x): that of the rounded sum, corrected for the rounding (Kahan)."""
    s = 1.0 + x
    return x if s == 1.0 else log(s) * (x / (s - 1.0))


@kernel(inline=True, fastmath=EXACT)
def _expm1(d):
    """e^d - 1 for d of -1/4 to 1/4, by its power series."""
    p = 1.0 / 39916800.0
    p = p * d + 1.0 / 3628800.0
    p = p * d + 1.0 / 362880.0
    p = p * d + 1.0 / 40320.0
    p = p * d + 1.0 / 5040.0
    p = p * d + 1.0 / 720.0
    p = p * d + 1.0 / 120.0
    p = p * d + 1.0 / 24.0
    p = p * d + 1.0 / 6.0
    p = p * d + 0.5
    return (p * d + 1.0) * d
