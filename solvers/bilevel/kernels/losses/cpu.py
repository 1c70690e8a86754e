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
_CHUNK = 1 << 17


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
    where = _strips(rows.size, p * (Q + G.shape[0]))
    parts = np.zeros((where.size - 1, *G.shape), G.dtype)
    args = X, rows, t, weights, kind, mode, k, W, chunk, losses, parts
    if where.size == 2:
        _dense(0, 0, rows.size, *args)
        G[:] = parts[0]
        return
    with threads.guard():
        _dense_in_strips(where, *args)
    np.sum(parts, axis=0, out=G)


def csr_pass(indptr, indices, data, rows, t, weights, kind, mode, k, W, losses, G):
    """Pass over compressed rows with the vectors in W (p, Q); G is (p, O), the rest as above."""
    Q, entries = W.shape[1], data.size // max(indptr.size - 1, 1) + 1
    chunk = _chunk(entries * (data.itemsize + indices.itemsize), rows.size)
    where = _strips(rows.size, entries * (Q + G.shape[1]))
    parts = np.zeros((where.size - 1, *G.shape), G.dtype)
    args = indptr, indices, data, rows, t, weights, kind, mode, k, W, chunk, losses, parts
    if where.size == 2:
        _csr(0, 0, rows.size, *args)
        G[:] = parts[0]
        return
    with threads.guard():
        _csr_in_strips(where, *args)
    np.sum(parts, axis=0, out=G)


def _chunk(row_bytes, n):
    return max(min(_CHUNK // row_bytes, 512, n) // 4 * 4, 4)


def _strips(n, work):
    return np.linspace(0, n, threads.strips(n * work) + 1).astype(np.int64)


@kernel(parallel=True)
def _dense_in_strips(where, X, rows, t, weights, kind, mode, k, W, chunk, losses, parts):
    for s in prange(where.size - 1):
        _dense(
            s, where[s], where[s + 1],
            X, rows, t, weights, kind, mode, k, W, chunk, losses, parts,
        )  # fmt: skip


@kernel(parallel=True)
def _csr_in_strips(
    where, indptr, indices, data, rows, t, weights, kind, mode, k, W, chunk, losses, parts
):
    for s in prange(where.size - 1):
        _csr(
            s, where[s], where[s + 1],
            indptr, indices, data, rows, t, weights, kind, mode, k, W, chunk, losses, parts,
        )  # fmt: skip


@kernel()
def _dense(s, first, last, X, rows, t, weights, kind, mode, k, W, chunk, losses, parts):
    Q, G = W.shape[0], parts[s]
    M, target = np.empty((Q, chunk), X.dtype), np.empty(chunk, X.dtype)
    for a in range(first, last, chunk):
        b = min(a + chunk, last)
        for q in range(0, Q - 1, 2):
            _dot_two(X, rows, a, b, W[q], W[q + 1], M[q], M[q + 1])
        if Q % 2:
            _dot_one(X, rows, a, b, W[Q - 1], M[Q - 1])
        for i in range(a, b):
            target[i - a] = t[rows[i]]
        _respond(kind, mode, k, target, weights, M, losses, a, b)
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
    s, first, last, indptr, indices, data, rows, t, weights, kind, mode, k, W, chunk, losses, parts
):
    G = parts[s]
    M, target = np.empty((W.shape[1], chunk), data.dtype), np.empty(chunk, data.dtype)
    for a in range(first, last, chunk):
        b = min(a + chunk, last)
        for i in range(a, b):
            target[i - a] = t[rows[i]]
            _dot_row(indptr[rows[i]], indptr[rows[i] + 1], indices, data, W, M, i - a)
        _respond(kind, mode, k, target, weights, M, losses, a, b)
        for i in range(a, b):
            _add_row(indptr[rows[i]], indptr[rows[i] + 1], indices, data, M, i - a, G)


@kernel(fastmath=REDUCE)
def _dot_row(first, last, indices, data, W, M, i):
    Q = W.shape[1]
    if Q == 2:
        # The usual case, in registers.
        m0 = m1 = M.dtype.type(0)
        for e in range(first, last):
            m0 += data[e] * W[indices[e], 0]
            m1 += data[e] * W[indices[e], 1]
        M[0, i] = m0
        M[1, i] = m1
        return
    for q in range(Q):
        m = M.dtype.type(0)
        for e in range(first, last):
            m += data[e] * W[indices[e], q]
        M[q, i] = m


@kernel(fastmath=REDUCE)
def _add_row(first, last, indices, data, M, i, G):
    if G.shape[1] == 2:
        r0, r1 = M[0, i], M[1, i]
        for e in range(first, last):
            G[indices[e], 0] += data[e] * r0
            G[indices[e], 1] += data[e] * r1
        return
    for e in range(first, last):
        for q in range(G.shape[1]):
            G[indices[e], q] += data[e] * M[q, i]


@kernel()
def _respond(kind, mode, k, target, weights, M, losses, a, b):
    """Turn predictions into weighted slopes, in place; those of BEND move to the front."""
    n, step = b - a, k if mode == ONE else 2 * k
    for f in range(M.shape[0] // step):
        m = M[f * step : (f + 1) * step]
        out = losses[f : f + 1, a:b] if mode != PAIR else losses[2 * f : 2 * f + 2, a:b]
        if kind == SOFTMAX:
            _softmax(mode, target, m, out)
        elif kind == SQUARED:
            _squared(mode, target, m, out)
        elif kind == HINGE:
            _hinge(mode, target, m, out)
        else:
            _logistic(mode, target, m, out)
        first, count = (k, k) if mode == BEND else (0, step)
        for q in range(count):
            slopes = M[f * count + q]
            for i in range(n):
                slopes[i] = m[first + q, i]
            if weights.shape[1]:
                for i in range(n):
                    slopes[i] *= weights[f, a + i]


@kernel(fastmath=EXACT)
def _squared(mode, t, m, out):
    for i in range(out.shape[1]):
        r, d = np.float64(m[0, i]) - t[i], np.float64(m[-1, i])
        if mode == BEND:
            out[0, i] = r * d
            continue
        out[0, i] = 0.5 * r * r
        m[0, i] = r
        if mode == PAIR:
            out[1, i] = d * (r + 0.5 * d)
            m[1, i] = r + d


@kernel(fastmath=EXACT)
def _hinge(mode, t, m, out):
    for i in range(out.shape[1]):
        sign = np.float64(t[i])
        margin, d = 1.0 - sign * m[0, i], -sign * m[-1, i]
        room = vmax(margin, 0.0)
        if mode == BEND:
            out[0, i] = room * d
            m[1, i] = m[1, i] if room > 0.0 else 0.0
            continue
        out[0, i] = 0.5 * room * room
        m[0, i] = -sign * room
        if mode == PAIR:
            then = vmax(margin + d, 0.0)
            more = d if room > 0.0 and then > 0.0 else then - room
            out[1, i] = 0.5 * more * (then + room)
            m[1, i] = -sign * then


@kernel(fastmath=EXACT)
def _logistic(mode, t, m, out):
    # With u = -t z the loss is log(1 + e^u), and its slope by u is 1 / (1 + e^-u).
    for i in range(out.shape[1]):
        sign = -np.float64(t[i])
        u, d = sign * m[0, i], sign * m[-1, i]
        e = exp(-abs(u))
        share = (1.0 if u > 0.0 else e) / (1.0 + e)
        if mode == BEND:
            out[0, i] = share * d
            m[1, i] *= share * (1.0 - share)
            continue
        loss = vmax(u, 0.0) + _log1p(e)
        out[0, i] = loss
        m[0, i] = sign * share
        if mode == PAIR:
            then = exp(-abs(u + d))
            near = _log1p(share * _expm1(vmin(vmax(d, -1.0), 1.0)))
            far = vmax(u + d, 0.0) + _log1p(then) - loss
            out[1, i] = near if abs(d) < 1.0 else far
            m[1, i] = sign * (1.0 if u + d > 0.0 else then) / (1.0 + then)


@kernel(fastmath=EXACT)
def _softmax(mode, t, m, out):
    k = m.shape[0] if mode == ONE else m.shape[0] // 2
    for i in range(out.shape[1]):
        y = int(t[i])
        top = np.float64(m[0, i])
        for c in range(1, k):
            top = vmax(top, np.float64(m[c, i]))
        total = 0.0
        for c in range(k):
            total += exp(m[c, i] - top)
        own = np.float64(m[y, i])
        step = np.float64(m[y - k, i])
        if mode == BEND:
            mean = 0.0
            for c in range(k):
                mean += exp(m[c, i] - top) / total * m[k + c, i]
            out[0, i] = mean - step
            for c in range(k):
                m[k + c, i] = exp(m[c, i] - top) / total * (m[k + c, i] - mean)
            continue
        loss = log(total) + top - own
        out[0, i] = loss
        if mode == PAIR:
            out[1, i] = _softmax_change(k, i, m, top, total, step)
            m[k + y, i] -= 1.0
        for c in range(k):
            m[c, i] = exp(m[c, i] - top) / total
        m[y, i] -= 1.0


@kernel(fastmath=EXACT)
def _softmax_change(k, i, m, top, total, step):
    """Return the change of the loss; turn the steps in m into shares."""
    largest, then, inner, size = -np.inf, 0.0, 0.0, 0.0
    for c in range(k):
        d = np.float64(m[k + c, i])
        largest, size = vmax(largest, m[c, i] + d), vmax(size, abs(d))
        inner += exp(m[c, i] - top) / total * _expm1(vmin(vmax(d, -1.0), 1.0))
    for c in range(k):
        share = exp(np.float64(m[c, i]) + m[k + c, i] - largest)
        then += share
        m[k + c, i] = share
    for c in range(k):
        m[k + c, i] /= then
    if size < 1.0:
        return _log1p(inner) - step
    return log(then) + largest - (log(total) + top) - step


@kernel(inline=True, fastmath=EXACT)
def _log1p(e):
    """log(1 + e): that of the rounded sum, corrected for the rounding (Kahan)."""
    s = 1.0 + e
    return e if s == 1.0 else log(s) * (e / (s - 1.0))


@kernel(inline=True, fastmath=EXACT)
def _expm1(d):
    """e^d - 1 for d of -1 to 1, likewise."""
    e = exp(d)
    return d if e == 1.0 else (e - 1.0) * (d / log(e))
