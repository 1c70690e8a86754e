"""Many stochastic steps in one call, for penalties of linear models; `gpu.py` has the twin."""

from math import log1p, sqrt

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...._core.kernels.jit import REDUCE, kernel
from ...._core.kernels.vmath import exp

SQUARED, LOGISTIC = 0, 1
# Coefficients that one piece of a row holds, and bytes that memory sends at a time.
_PIECE, _LINE = 128, 64


@kernel(fastmath=REDUCE)
def single_loop(
    kind, X, t, V, tv, low, up, rates, start, members, base, lo, hi, normalize, x, D, both, means,
    work, e,
):  # fmt: skip
    """Take a step for each row of `low`, on these samples of (X, t) and those of (V, tv) in `up`.

    Both levels are mean losses, the lower one plus ``sum_j exp(x_group(j)) y_j^2 / 2``.

    Parameters
    ----------
    kind : int
        0 for half squares, 1 for log-losses, 2 for half squared hinges.
    low, up : (steps, b) arrays of int
        Sample numbers.
    rates : (steps, 6) array
        For each step: length of lower steps, of upper steps, sigma, share of the newest gradient
        in D, weight of the newest point in the means, and how far an entry of x may move; in
        float64.
    start, members : (d + 1,) and (p,) arrays of int
        ``members[start[c]:start[c + 1]]`` are the coefficients that entry c of x penalises.
    base : (p,) array
        Lower steps are scaled by ``base + exp(x_group)``.
    lo, hi : (d,) arrays
        Bounds of x.
    normalize : bool
        Whether D is divided by its length.
    x, D, both, means : arrays
        State; `both` is ``[y, z]``, of shape (2, p), and `means` are those of x, y, z in a row.
    work, e : (4, p) and (d,) arrays
        Scratch.

    Returns
    -------
    float
        Sum of the steps' mean upper losses.
    """
    steps, b = low.shape
    p, d = base.size, x.size
    y, z = both[0], both[1]
    gy, gz, fy, unused = work[0], work[1], work[2], work[3]
    number = x.dtype.type
    half, share = number(0.5), number(1 / b)
    total = 0.0
    for k in range(steps):
        eta, beta, sigma = number(rates[k, 0]), number(rates[k, 1]), number(rates[k, 2])
        forget, weight = number(rates[k, 3]), number(rates[k, 4])
        work[:] = number(0)
        _add_gradients(kind, X, t, low[k], y, z, gy, gz, V, up[k])
        following = low[min(k + 1, steps - 1)]
        total += _add_gradients(kind, V, tv, up[k], y, y, fy, unused, X, following) / b
        for j in range(d):
            e[j] = exp(x[j])
        square, largest = 0.0, 0.0
        for c in range(d):
            r, change = e[c], number(0)
            for m in range(start[c], start[c + 1]):
                j = members[m]
                change += half * r * (y[j] - z[j]) * (y[j] + z[j])
                step = eta / (base[j] + r)
                y[j] -= step * (share * (gy[j] + sigma * fy[j]) + r * y[j])
                z[j] -= step * (share * gz[j] + r * z[j])
            D[c] += forget * (change / sigma - D[c])
            square += D[c] * D[c]
            largest = max(largest, abs(D[c]))
        if normalize:
            beta = number(beta / (sqrt(square) + 1e-10))
        beta = number(min(beta, rates[k, 5] / (largest + 1e-300)))
        for j in range(d):
            x[j] = min(max(x[j] - beta * D[j], lo[j]), hi[j])
        if weight > 0:
            _average(weight, x, means[:d])
            _average(weight, y, means[d : d + p])
            _average(weight, z, means[d + p :])
    return total


@kernel(fastmath=REDUCE, inline=True)
def _average(weight, v, mean):
    for j in range(v.size):
        mean[j] += weight * (v[j] - mean[j])


@kernel(fastmath=REDUCE)
def _add_gradients(kind, X, t, rows, y, z, gy, gz, X_next, rows_next):
    """Add the gradients of the losses of some rows at y and z; return the sum of those at y.

    Four rows share each pass over the coefficients. Rows come from memory in no order, so the
    next ones are asked for ahead of time; after the last, the first of `rows_next` in `X_next`.
    """
    zero, total, b = y.dtype.type(0), 0.0, rows.size
    for k in range(0, b, 4):
        i0, i1, i2, i3 = _four(rows, k)
        r0, r1, r2, r3 = X[i0], X[i1], X[i2], X[i3]
        a0, a1, a2, a3 = zero, zero, zero, zero
        c0, c1, c2, c3 = zero, zero, zero, zero
        for j in range(y.size):
            a0 += r0[j] * y[j]
            a1 += r1[j] * y[j]
            a2 += r2[j] * y[j]
            a3 += r3[j] * y[j]
            c0 += r0[j] * z[j]
            c1 += r1[j] * z[j]
            c2 += r2[j] * z[j]
            c3 += r3[j] * z[j]
        f0, a0, c0 = _slopes(kind, t[i0], a0, c0, True)
        f1, a1, c1 = _slopes(kind, t[i1], a1, c1, k + 1 < b)
        f2, a2, c2 = _slopes(kind, t[i2], a2, c2, k + 2 < b)
        f3, a3, c3 = _slopes(kind, t[i3], a3, c3, k + 3 < b)
        total += f0 + f1 + f2 + f3
        here = k + 4 < b
        i0, i1, i2, i3 = _four(rows, k + 4) if here else _four(rows_next, 0)
        M = X if here else X_next
        n0, n1, n2, n3 = M[i0], M[i1], M[i2], M[i3]
        for start in range(0, y.size, _PIECE):
            end = min(start + _PIECE, y.size)
            _prefetch_all(n0[start:end], n1[start:end], n2[start:end], n3[start:end])
            q0, q1, q2, q3 = r0[start:end], r1[start:end], r2[start:end], r3[start:end]
            hy, hz = gy[start:end], gz[start:end]
            for j in range(hy.size):
                hy[j] += a0 * q0[j] + a1 * q1[j] + a2 * q2[j] + a3 * q3[j]
                hz[j] += c0 * q0[j] + c1 * q1[j] + c2 * q2[j] + c3 * q3[j]
    return total


@kernel(inline=True)
def _four(rows, k):
    """Return four rows from the k-th on; past the end, the last again."""
    last = rows.size - 1
    return rows[k], rows[min(k + 1, last)], rows[min(k + 2, last)], rows[min(k + 3, last)]


@kernel(fastmath=REDUCE, inline=True)
def _slopes(kind, t, a, c, counts):
    """Return the loss of a prediction a and the slopes at a and c; zeros if it does not count."""
    if not counts:
        return 0.0, a * 0, c * 0
    return _loss(kind, t, a), _slope(kind, t, a), _slope(kind, t, c)


@kernel(fastmath=REDUCE, inline=True)
def _loss(kind, t, m):
    if kind == SQUARED:
        return 0.5 * (m - t) * (m - t)
    if kind == LOGISTIC:
        return max(-t * m, 0.0) + log1p(exp(-abs(m)))
    return 0.5 * max(1 - t * m, 0.0) ** 2


@kernel(fastmath=REDUCE, inline=True)
def _slope(kind, t, m):
    one = m * 0 + 1
    if kind == SQUARED:
        return m - t
    if kind == LOGISTIC:
        e = exp(-abs(m))
        return -t * (one if t * m < 0 else e) / (one + e)
    return -t * max(one - t * m, m * 0)


@kernel(inline=True)
def _prefetch_all(r0, r1, r2, r3):
    for j in range(0, r0.size, _LINE // r0.itemsize):
        _prefetch(r0, j)
        _prefetch(r1, j)
        _prefetch(r2, j)
        _prefetch(r3, j)


@intrinsic
def _prefetch(typingctx, row, j):
    """Ask memory for an entry of a row, to be read soon."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.bitcast(builder.gep(array.data, [args[1]]), byte)
        takes = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], takes)
        # To read; keep in all caches; data.
        builder.call(function, [address, *(ir.Constant(word, flag) for flag in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(row, j), codegen
