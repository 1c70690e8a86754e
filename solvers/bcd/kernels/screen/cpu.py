"""Numba kernels that look at every coefficient, or at every entry of X."""

from math import inf

import numpy as np

from ...._core.kernels.jit import EXACT, REDUCE, kernel
from ...._core.kernels.rules import distance, prox

# Rows of a tile of `gather`: their parts of the columns fit the first-level cache.
_TILE = 64
# Columns whose sums fit there.
_STRIP = 1024
# Entries by rows that fit the second-level cache.
_VISITED = 32768


@kernel(fastmath=EXACT)
def survey(penalty, w, g, L, unit, scores, violations, steepness):
    """Look at every coefficient once.

    Sets `scores` to what a proximal step gains at least (where it starts from a kink or a bound,
    the GS-q score), or where it does not move, to -1 plus the share of the penalty's slope at a
    kink that -g reaches, `violations` to the distances of -g from the subdifferential in multiples
    of `unit`, and `steepness` to how many units wide the dual constraint of a coefficient would
    have to be; 0 where it has none.
    """
    for j in range(w.size):
        d = 0.0
        if L[j] > 0.0:
            d = prox(penalty, w[j] - g[j] / L[j], 1.0 / L[j], j) - w[j]
        scores[j] = 0.5 * L[j] * d * d
        if d == 0.0:
            pull = -g[j] if penalty.hi[j] > w[j] else 0.0
            if penalty.lo[j] < w[j]:
                pull = max(pull, g[j])
            scores[j] = pull / penalty.alpha[j] - 1.0 if pull > 0.0 < penalty.alpha[j] else -1.0
        violations[j] = distance(penalty, w[j], g[j], j) / unit[j]
        # Only a penalty that grows linearly for ever has a conjugate that is infinite somewhere.
        steep = 0.0
        if penalty.alpha[j] > 0.0 and penalty.ridge[j] == 0.0:
            if penalty.hi[j] == inf:
                steep = max(steep, -g[j])
            if penalty.lo[j] == -inf:
                steep = max(steep, g[j])
        steepness[j] = steep / unit[j]


@kernel(fastmath=REDUCE)
def moments_rows(X, s, y, square, mean, cross):
    """Set the sums of ``s x^2``, ``s x`` and ``s x y`` over each column of contiguous rows.

    Sums are in float64. They are finite unless an entry is not, or its square overflows.
    """
    n, p = X.shape
    square[:] = 0.0
    mean[:] = 0.0
    cross[:] = 0.0
    for first in range(0, p, _STRIP):
        last = min(first + _STRIP, p)
        a, b, c = square[first:last], mean[first:last], cross[first:last]
        # Four rows at a time: the sums are read and written a quarter as often.
        for i in range(0, n - 3, 4):
            x0, x1 = X[i, first:last], X[i + 1, first:last]
            x2, x3 = X[i + 2, first:last], X[i + 3, first:last]
            for j in range(a.size):
                u0, u1, u2, u3 = s[i] * x0[j], s[i + 1] * x1[j], s[i + 2] * x2[j], s[i + 3] * x3[j]
                a[j] += u0 * x0[j] + u1 * x1[j] + u2 * x2[j] + u3 * x3[j]
                b[j] += u0 + u1 + u2 + u3
                c[j] += u0 * y[i] + u1 * y[i + 1] + u2 * y[i + 2] + u3 * y[i + 3]
        for i in range(n - n % 4, n):
            x0 = X[i, first:last]
            for j in range(a.size):
                u0 = s[i] * x0[j]
                a[j] += u0 * x0[j]
                b[j] += u0
                c[j] += u0 * y[i]


@kernel(fastmath=REDUCE)
def moments_columns(X, s, y, square, mean, cross):
    """Do what `moments_rows` does for a matrix with contiguous columns, the rows of X here."""
    for j in range(X.shape[0]):
        x = X[j]
        a = b = c = 0.0
        for i in range(x.size):
            u = s[i] * x[i]
            a += u * x[i]
            b += u
            c += u * y[i]
        square[j], mean[j], cross[j] = a, b, c


@kernel(fastmath=REDUCE)
def moments_csc(starts, rows, values, s, y, square, mean, cross):
    """Do what `moments_rows` does for compressed columns."""
    for j in range(square.size):
        a = b = c = 0.0
        for k in range(starts[j], starts[j + 1]):
            i = rows[k]
            u = s[i] * values[k]
            a += u * values[k]
            b += u
            c += u * y[i]
        square[j], mean[j], cross[j] = a, b, c


@kernel(fastmath=EXACT)
def gather(X, where, root, out):
    """Set ``out[k, i] = root[i] X[i, where[k]]`` for a matrix X of contiguous rows."""
    n = X.shape[0]
    for first in range(0, n, _TILE):
        last = min(first + _TILE, n)
        for k in range(where.size):
            j = where[k]
            for i in range(first, last):
                out[k, i] = root[i] * X[i, j]


@kernel(fastmath=REDUCE)
def dot_csc(starts, rows, values, where, w, out):
    """Set ``out = X[:, where] w`` for compressed columns."""
    out[:] = 0.0
    for k in range(where.size):
        if w[k] != 0.0:
            for e in range(starts[where[k]], starts[where[k] + 1]):
                out[rows[e]] += w[k] * values[e]


@kernel(fastmath=REDUCE)
def gram_csc(starts, rows, values, s, where, first, out):
    """Set ``out = X_F^T diag(s) X_N`` for columns F = where, and N = where[first:]."""
    n, total = s.size, where.size
    # The new columns by rows: then a product visits only what two columns share.
    begins = np.zeros(n + 2, np.int64)
    for k in range(first, total):
        for e in range(starts[where[k]], starts[where[k] + 1]):
            begins[rows[e] + 2] += 1
    for i in range(n):
        begins[i + 2] += begins[i + 1]
    columns = np.empty(begins[n + 1], np.int32)
    entries = np.empty(begins[n + 1])
    for k in range(first, total):
        for e in range(starts[where[k]], starts[where[k] + 1]):
            i = rows[e]
            columns[begins[i + 1]], entries[begins[i + 1]] = k - first, s[i] * values[e]
            begins[i + 1] += 1
    # All columns pass over so many rows at a time that what they visit stays in a cache.
    strip = max(n * _VISITED // max(columns.size, 1), 1)
    place = np.empty(total, np.int64)
    for k in range(total):
        place[k] = starts[where[k]]
    out[:] = 0.0
    for low in range(0, n, strip):
        for k in range(total):
            e, end, line = place[k], starts[where[k] + 1], out[k]
            # Of two new columns' products, which are symmetric, one.
            last = k - first if k >= first else total
            while e < end and rows[e] < low + strip:
                for o in range(begins[rows[e]], begins[rows[e] + 1]):
                    if columns[o] > last:
                        break
                    line[columns[o]] += values[e] * entries[o]
                e += 1
            place[k] = e
    for k in range(first, total):
        for o in range(first, k):
            out[o, k - first] = out[k, o - first]
