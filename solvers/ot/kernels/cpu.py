r"""Numba kernels of optimal transport; `gpu.py` launches their CUDA twins.

All of them see the plan row by row, in the Gibbs form relative to column weights `beta`:
``P_ij = a_i K_ij beta_j`` with ``K_ij = exp((h_j - C_ij) / reg - shift_i)`` and ``K beta = 1``.
A *stored* kernel ``K`` is scaled afterwards by column factors ``v`` (where ``v`` includes `beta`):
``P_ij = a_i K_ij v_j / rho_i`` with ``rho = K v``, so that row sums stay exact.

A public function here splits its rows into strips, one per thread, each with its own column
accumulator: the result depends on the number of strips only, never on their timing.
"""

import numpy as np
from numba import prange

from ..._core import threads
from ..._core.kernels.jit import EXACT, REDUCE, kernel
from ..._core.kernels.vmath import exp, vmax


def row_pass(C, h, beta, reg, a, shift, K):
    """Make all row sums exact for given `h`: one pass over the cost.

    Sets ``shift_i = log sum_j beta_j exp((h_j - C_ij) / reg)``, stores ``K`` (unless it has no
    rows) and returns ``K^T a``, which is 1 where the column sum is ``beta_j``. All arithmetic is
    in float64, whatever the dtypes of `C` and `K`.
    """
    log_beta = np.log(beta)
    strips = threads.strips(C.size)
    sums = np.zeros((strips, C.shape[1]))
    with threads.guard():
        if strips == 1:
            _row_pass_strip(C, h, log_beta, beta, 1.0 / reg, a, shift, K, sums[0])
        else:
            _row_pass_strips(C, h, log_beta, beta, 1.0 / reg, a, shift, K, sums)
    return sums.sum(axis=0)


@kernel(parallel=True)
def _row_pass_strips(C, h, log_beta, beta, scale, a, shift, K, sums):
    n, strips = C.shape[0], sums.shape[0]
    for t in prange(strips):
        lo, hi = n * t // strips, n * (t + 1) // strips
        store = slice(lo, hi) if K.shape[0] > 0 else slice(0, 0)
        _row_pass_strip(
            C[lo:hi], h, log_beta, beta, scale, a[lo:hi], shift[lo:hi], K[store], sums[t]
        )


@kernel()
def _row_pass_strip(C, h, log_beta, beta, scale, a, shift, K, sums):
    n, m = C.shape
    rows = np.zeros((4, m))  # rows past the end count with weight zero, so they must be numbers
    w = np.zeros(4)
    for first in range(0, n, 4):
        # Four rows at a time: the column sums are loaded and stored once for all of them.
        for k in range(4):
            i = first + k
            w[k] = 0.0
            if i < n:
                top = _row_max(C[i], h, log_beta, scale)
                total = _row_exp(C[i], h, beta, scale, top, rows[k])
                shift[i] = top + np.log(total)
                w[k] = a[i] / total
                if K.shape[0] > 0:
                    _copy_scaled(rows[k], 1.0 / total, K[i])
        _add_rows(rows[0], rows[1], rows[2], rows[3], w[0], w[1], w[2], w[3], sums)


@kernel(fastmath=REDUCE)
def _row_max(c, h, log_beta, scale):
    top = -np.inf
    for j in range(c.size):
        top = vmax(top, (h[j] - c[j]) * scale + log_beta[j])
    return top


@kernel(fastmath=REDUCE)
def _row_exp(c, h, beta, scale, top, row):
    total = 0.0
    for j in range(c.size):
        x = exp((h[j] - c[j]) * scale - top)
        row[j] = x
        total += x * beta[j]
    return total


@kernel(fastmath=REDUCE)
def _copy_scaled(row, factor, out):
    for j in range(row.size):
        out[j] = out.dtype.type(row[j] * factor)


@kernel(fastmath=REDUCE)
def _add_rows(r0, r1, r2, r3, w0, w1, w2, w3, sums):
    for j in range(sums.size):
        sums[j] += np.float64(w0 * r0[j] + w1 * r1[j] + w2 * r2[j] + w3 * r3[j])


def column_potential(C, shift, a, reg, columns, h):
    """Set ``h_j`` for the given columns so that their sums are exact: ``(K^T a)_j = 1``."""
    log_a = np.log(a) - shift
    for j in columns:
        z = log_a - C[:, j].astype(np.float64) / reg
        top = z.max()
        h[j] = -reg * (top + np.log(np.exp(z - top).sum()))


def sweep(K, v, a, rho):
    """Set ``rho = K v`` and return ``K^T (a / rho)``: a full Sinkhorn sweep in one pass."""
    strips = threads.strips(K.size / 4)  # an entry costs a quarter of one of a pass
    sums = np.zeros((strips, K.shape[1]))
    v = v.astype(K.dtype)
    with threads.guard():
        if strips == 1:
            _sweep_strip(K, v, a, rho, sums[0])
        else:
            _sweep_strips(K, v, a, rho, sums)
    return sums.sum(axis=0)


@kernel(parallel=True)
def _sweep_strips(K, v, a, rho, sums):
    n, strips = K.shape[0], sums.shape[0]
    for t in prange(strips):
        lo, hi = n * t // strips, n * (t + 1) // strips
        _sweep_strip(K[lo:hi], v, a[lo:hi], rho[lo:hi], sums[t])


@kernel()
def _sweep_strip(K, v, a, rho, sums):
    n = K.shape[0]
    number = K.dtype.type
    zero = number(0.0)
    for i in range(0, n, 4):
        # Rows past the end repeat the last one with weight zero.
        i1, i2, i3 = min(i + 1, n - 1), min(i + 2, n - 1), min(i + 3, n - 1)
        rho[i], rho[i1], rho[i2], rho[i3] = _dot_rows(K[i], K[i1], K[i2], K[i3], v)
        w0 = number(a[i] / rho[i])
        w1 = number(a[i1] / rho[i1]) if i + 1 < n else zero
        w2 = number(a[i2] / rho[i2]) if i + 2 < n else zero
        w3 = number(a[i3] / rho[i3]) if i + 3 < n else zero
        _add_rows(K[i], K[i1], K[i2], K[i3], w0, w1, w2, w3, sums)


@kernel(fastmath=REDUCE)
def _dot_rows(r0, r1, r2, r3, x):
    zero = x.dtype.type(0.0)
    s0, s1, s2, s3 = zero, zero, zero, zero
    for j in range(x.size):
        z = x[j]
        s0 += r0[j] * z
        s1 += r1[j] * z
        s2 += r2[j] * z
        s3 += r3[j] * z
    return s0, s1, s2, s3


def row_peaks(K, v):
    """Return the column of each row's largest ``K_ij v_j``."""
    peaks = np.empty(K.shape[0], np.int64)
    _row_peaks(K, v.astype(K.dtype), peaks)
    return peaks


@kernel()
def _row_peaks(K, v, peaks):
    for i in range(K.shape[0]):
        peaks[i] = _peak(K[i], v)


@kernel()
def _peak(row, v):
    # Maxima run in vector registers; only the block of the best is searched entry by entry.
    best, start = -np.inf, 0
    for first in range(0, row.size, 128):
        top = _product_max(row[first : first + 128], v[first : first + 128])
        if top > best:
            best, start = top, first
    for j in range(start, row.size):
        if row[j] * v[j] == best:
            return j
    return start


@kernel(fastmath=REDUCE)
def _product_max(r, w):
    top = r[0] * w[0]
    for j in range(r.size):
        top = vmax(top, r[j] * w[j])
    return top


def laplacian(K, v, rho, a, peaks, x):
    """Return ``v * K^T (a / rho * ((x - x_peak) - s))`` with ``s = K (v (x - x_peak)) / rho``.

    This is the Schur complement ``diag(c) - P^T diag(1/a) P`` applied to `x`. Differences with
    the value at each row's peak keep it free of cancellation where the plan is nearly a
    permutation, and make constants an exact null space.
    """
    strips = threads.strips(K.size / 4)  # an entry costs a quarter of one of a pass
    sums = np.zeros((strips, K.shape[1]))
    args = K, v.astype(K.dtype), rho, a, peaks, x.astype(K.dtype)
    with threads.guard():
        if strips == 1:
            _laplacian_strip(*args, sums[0])
        else:
            _laplacian_strips(*args, sums)
    return v * sums.sum(axis=0)


@kernel(parallel=True)
def _laplacian_strips(K, v, rho, a, peaks, x, sums):
    n, strips = K.shape[0], sums.shape[0]
    for t in prange(strips):
        lo, hi = n * t // strips, n * (t + 1) // strips
        _laplacian_strip(K[lo:hi], v, rho[lo:hi], a[lo:hi], peaks[lo:hi], x, sums[t])


@kernel()
def _laplacian_strip(K, v, rho, a, peaks, x, sums):
    n = K.shape[0]
    number = K.dtype.type
    zero = number(0.0)
    for i in range(0, n, 4):
        i1, i2, i3 = min(i + 1, n - 1), min(i + 2, n - 1), min(i + 3, n - 1)
        x0, x1, x2, x3 = x[peaks[i]], x[peaks[i1]], x[peaks[i2]], x[peaks[i3]]
        s0, s1, s2, s3 = _dot_differences(K[i], K[i1], K[i2], K[i3], v, x, x0, x1, x2, x3)
        w0 = number(a[i] / rho[i])
        w1 = number(a[i1] / rho[i1]) if i + 1 < n else zero
        w2 = number(a[i2] / rho[i2]) if i + 2 < n else zero
        w3 = number(a[i3] / rho[i3]) if i + 3 < n else zero
        # Weighted means on their own: a mean of 1e-12 would get lost in x0 + s0.
        s0, s1 = w0 * number(s0 / rho[i]), w1 * number(s1 / rho[i1])
        s2, s3 = w2 * number(s2 / rho[i2]), w3 * number(s3 / rho[i3])
        _add_differences(
            K[i], K[i1], K[i2], K[i3],
            w0, w1, w2, w3, x, x0, x1, x2, x3, s0, s1, s2, s3, sums,
        )  # fmt: skip


@kernel(fastmath=REDUCE)
def _dot_differences(r0, r1, r2, r3, v, x, x0, x1, x2, x3):
    zero = x.dtype.type(0.0)
    s0, s1, s2, s3 = zero, zero, zero, zero
    for j in range(x.size):
        z, q = x[j], v[j]
        s0 += r0[j] * (q * (z - x0))
        s1 += r1[j] * (q * (z - x1))
        s2 += r2[j] * (q * (z - x2))
        s3 += r3[j] * (q * (z - x3))
    return s0, s1, s2, s3


@kernel(fastmath=EXACT)
def _add_differences(r0, r1, r2, r3, w0, w1, w2, w3, x, x0, x1, x2, x3, s0, s1, s2, s3, sums):
    for j in range(sums.size):
        z = x[j]
        y = r0[j] * (w0 * (z - x0) - s0) + r1[j] * (w1 * (z - x1) - s1)
        y += r2[j] * (w2 * (z - x2) - s2) + r3[j] * (w3 * (z - x3) - s3)
        sums[j] += np.float64(y)


def laplacian_diagonal(K, v, rho, a, peaks):
    """Return the diagonal of the matrix that `laplacian` applies, without cancellation."""
    sums = np.zeros(K.shape[1])
    _laplacian_diagonal(K, v, rho, a, peaks, sums)
    return sums


@kernel()
def _laplacian_diagonal(K, v, rho, a, peaks, sums):
    for i in range(K.shape[0]):
        at_peak = sums[peaks[i]]
        others = _row_diagonal(K[i], v, rho[i], a[i] / rho[i], sums)
        # 1 - P_peak / a_i as a sum of the other entries: a difference would lose its digits.
        peak = np.float64(K[i, peaks[i]]) * v[peaks[i]]
        others -= peak
        if others < 0.1 * rho[i]:
            others = _sum_without(K[i], v, peaks[i])
        sums[peaks[i]] = at_peak + a[i] / rho[i] * peak * (others / rho[i])


@kernel(fastmath=REDUCE)
def _row_diagonal(row, v, rho, weight, sums):
    total = 0.0
    for j in range(row.size):
        p = np.float64(row[j]) * v[j]
        sums[j] += weight * p * (1.0 - p / rho)
        total += p
    return total


@kernel(fastmath=REDUCE)
def _sum_without(row, v, peak):
    total = 0.0
    for j in range(peak):
        total += np.float64(row[j]) * v[j]
    for j in range(peak + 1, row.size):
        total += np.float64(row[j]) * v[j]
    return total


def sparse_row_pass(C, h, beta, reg, a, shift, cutoff, indices, values, starts, ends):
    """As `row_pass` in float64, storing only the entries with ``K_ij beta_j > cutoff``.

    Row i's entries go to ``[starts[i], ends[i])`` of `indices` and `values`. Returns ``K^T a``
    and whether everything fitted; a strip that runs out of room goes on without storing.
    """
    n, m = C.shape
    log_beta = np.log(beta)
    strips = threads.strips(C.size)
    sums = np.zeros((strips, m))
    fitted = np.ones(strips, np.bool_)
    args = C, h, log_beta, beta, 1.0 / reg, a, shift, cutoff, indices, values, starts, ends
    with threads.guard():
        if strips == 1:
            fitted[0] = _sparse_row_pass_strip(*args, 0, n, 0, indices.size, sums[0])
        else:
            _sparse_row_pass_strips(*args, sums, fitted)
    return sums.sum(axis=0), bool(fitted.all())


@kernel(parallel=True)
def _sparse_row_pass_strips(
    C, h, log_beta, beta, scale, a, shift, cutoff, indices, values, starts, ends, sums, fitted
):
    n, room, strips = C.shape[0], indices.size, sums.shape[0]
    for t in prange(strips):
        lo, hi = n * t // strips, n * (t + 1) // strips
        first, last = room * t // strips, room * (t + 1) // strips
        fitted[t] = _sparse_row_pass_strip(
            C, h, log_beta, beta, scale, a, shift, cutoff, indices, values, starts, ends,
            lo, hi, first, last, sums[t],
        )  # fmt: skip


@kernel()
def _sparse_row_pass_strip(
    C, h, log_beta, beta, scale, a, shift, cutoff, indices, values, starts, ends,
    lo, hi, first, last, sums,
):  # fmt: skip
    m = C.shape[1]
    rows = np.zeros((4, m))  # rows past the end count with weight zero, so they must be numbers
    w = np.zeros(4)
    at = first
    for top_row in range(lo, hi, 4):
        for k in range(4):
            i = top_row + k
            w[k] = 0.0
            if i < hi:
                top = _row_max(C[i], h, log_beta, scale)
                total = _row_exp(C[i], h, beta, scale, top, rows[k])
                shift[i] = top + np.log(total)
                w[k] = a[i] / total
                starts[i] = at
                # A row may take m places, however few it will fill.
                if at + m <= last:
                    at = _keep_above(
                        rows[k], beta, cutoff * total, 1.0 / total, at, indices, values
                    )
                else:
                    at = last + 1
                ends[i] = at
        _add_rows(rows[0], rows[1], rows[2], rows[3], w[0], w[1], w[2], w[3], sums)
    return at <= last


@kernel(fastmath=REDUCE)
def _keep_above(row, beta, limit, factor, at, indices, values):
    # Blocks without any entry above the limit, nearly all of them, cost one vector comparison.
    for first in range(0, row.size, 16):
        r, w = row[first : first + 16], beta[first : first + 16]
        top = 0.0
        for k in range(r.size):
            top = vmax(top, r[k] * w[k])
        if top > limit:
            for k in range(r.size):
                if r[k] * w[k] > limit:
                    indices[at] = first + k
                    values[at] = r[k] * factor
                    at += 1
    return at


def csr_sweep(starts, ends, indices, values, v, a, rho):
    """As `sweep`, for a compressed kernel."""
    strips = _csr_strips(starts, ends)
    sums = np.zeros((strips, v.size))
    with threads.guard():
        if strips == 1:
            _csr_sweep_strip(starts, ends, indices, values, v, a, rho, sums[0])
        else:
            _csr_sweep_strips(starts, ends, indices, values, v, a, rho, sums)
    return sums.sum(axis=0)


def _csr_strips(starts, ends):
    # An entry costs as much as eight of a dense kernel.
    return threads.strips(8.0 * (ends[-1] - starts[0]))


@kernel(parallel=True)
def _csr_sweep_strips(starts, ends, indices, values, v, a, rho, sums):
    n, strips = starts.size, sums.shape[0]
    for t in prange(strips):
        lo, hi = n * t // strips, n * (t + 1) // strips
        _csr_sweep_strip(
            starts[lo:hi], ends[lo:hi], indices, values, v, a[lo:hi], rho[lo:hi], sums[t]
        )


@kernel(fastmath=REDUCE)
def _csr_sweep_strip(starts, ends, indices, values, v, a, rho, sums):
    for i in range(rho.size):
        col, val = indices[starts[i] : ends[i]], values[starts[i] : ends[i]]
        total = 0.0
        for k in range(col.size):
            total += val[k] * v[col[k]]
        rho[i] = total
        w = a[i] / total
        for k in range(col.size):
            sums[col[k]] += w * val[k]


def csr_row_peaks(starts, ends, indices, values, v):
    """As `row_peaks`, for a compressed kernel."""
    peaks = np.empty(starts.size, np.int64)
    _csr_row_peaks(starts, ends, indices, values, v, peaks)
    return peaks


@kernel()
def _csr_row_peaks(starts, ends, indices, values, v, peaks):
    for i in range(peaks.size):
        best = starts[i]
        for k in range(starts[i], ends[i]):
            if values[k] * v[indices[k]] > values[best] * v[indices[best]]:
                best = k
        peaks[i] = indices[best]


def csr_laplacian(starts, ends, indices, values, v, rho, a, peaks, x):
    """As `laplacian`, for a compressed kernel."""
    strips = _csr_strips(starts, ends)
    sums = np.zeros((strips, v.size))
    with threads.guard():
        if strips == 1:
            _csr_laplacian_strip(starts, ends, indices, values, v, rho, a, peaks, x, sums[0])
        else:
            _csr_laplacian_strips(starts, ends, indices, values, v, rho, a, peaks, x, sums)
    return v * sums.sum(axis=0)


@kernel(parallel=True)
def _csr_laplacian_strips(starts, ends, indices, values, v, rho, a, peaks, x, sums):
    n, strips = starts.size, sums.shape[0]
    for t in prange(strips):
        lo, hi = n * t // strips, n * (t + 1) // strips
        _csr_laplacian_strip(
            starts[lo:hi], ends[lo:hi], indices, values, v, rho[lo:hi], a[lo:hi], peaks[lo:hi], x,
            sums[t],
        )  # fmt: skip


@kernel(fastmath=REDUCE)
def _csr_laplacian_strip(starts, ends, indices, values, v, rho, a, peaks, x, sums):
    for i in range(rho.size):
        col, val = indices[starts[i] : ends[i]], values[starts[i] : ends[i]]
        x0 = x[peaks[i]]
        s = 0.0
        for k in range(col.size):
            s += val[k] * (v[col[k]] * (x[col[k]] - x0))
        w = a[i] / rho[i]
        _add_sparse_differences(col, val, w, x, x0, w * (s / rho[i]), sums)


@kernel(fastmath=EXACT)
def _add_sparse_differences(col, val, w, x, x0, s, sums):
    for k in range(col.size):
        sums[col[k]] += val[k] * (w * (x[col[k]] - x0) - s)


def csr_laplacian_diagonal(starts, ends, indices, values, v, rho, a, peaks):
    """As `laplacian_diagonal`, for a compressed kernel."""
    sums = np.zeros(v.size)
    _csr_laplacian_diagonal(starts, ends, indices, values, v, rho, a, peaks, sums)
    return sums


@kernel(fastmath=REDUCE)
def _csr_laplacian_diagonal(starts, ends, indices, values, v, rho, a, peaks, sums):
    for i in range(rho.size):
        col, val = indices[starts[i] : ends[i]], values[starts[i] : ends[i]]
        others = 0.0
        for k in range(col.size):
            if col[k] != peaks[i]:
                others += val[k] * v[col[k]]
        for k in range(col.size):
            p = val[k] * v[col[k]]
            rest = others if col[k] == peaks[i] else rho[i] - p
            sums[col[k]] += a[i] / rho[i] * p * (rest / rho[i])


def csr_gram(starts, ends, indices, values, v, rho, a, W):
    """Set the lower triangle of `W` to ``P^T diag(1/a) P`` without its diagonal."""
    _csr_gram(starts, ends, indices, values, v, rho, a, W)


@kernel()
def _csr_gram(starts, ends, indices, values, v, rho, a, W):
    W[:] = 0.0
    for i in range(rho.size):
        w = a[i] / (rho[i] * rho[i])
        for k in range(starts[i], ends[i]):
            j = indices[k]
            p = w * values[k] * v[j]
            row = W[j]
            # Indices ascend within a row, so these are the entries left of the diagonal.
            for q in range(starts[i], k):
                row[indices[q]] += p * values[q] * v[indices[q]]
