"""Numba kernel for projections on cones; there is no CUDA twin.

The problems are small, and every rotation depends on the one before, so they live on the host
wherever the data are. What they find is proved elsewhere, in plain array code.
"""

from math import inf, sqrt

from ...._core.kernels.jit import REDUCE, kernel

# Rows are of length 1, and so is what is projected: what rounding leaves of a violation, and the
# squared distance from the others' span below which a row counts as one of their combinations.
_ROUNDING, _DEPENDENT = 1e-14, 1e-22


@kernel(fastmath=REDUCE)
def project(A, floor, goals, alpha, u, Q, R, lam, rows, state):
    """Move each u[i], f on entry, to the nearest point with ``A[i] u >= floor``.

    The dual method of Goldfarb and Idnani: the most violated row enters, rows whose multiplier
    would become negative leave. Afterwards ``u = f + A^T alpha`` with ``alpha >= 0``.

    A is (B, m, d); u (B, d); alpha (B, m) holds, on entry, multipliers of an earlier solve with
    some of the rows. A problem ends early once the length of its u is at most goals[i]. The rows
    in force span what the rows of Q (d + 1, d) span, and their combinations are the columns of R
    (d + 1, d + 1); lam, rows (d + 1) and state (m) are room to work in, too.
    """
    B, m, d = A.shape
    for i in range(B):
        q = 0
        for k in range(m):
            state[k] = 0
            before = alpha[i, k]
            alpha[i, k] = 0.0
            if before > 0.0 and q < d:
                left = _split(Q, R, q, A, i, k)
                if left > _DEPENDENT:
                    _append(Q, R, q, sqrt(left))
                    rows[q], lam[q], state[k] = k, before, 1
                    q += 1
                    for c in range(d):
                        u[i, c] += before * A[i, k, c]
        for _ in range(20 * (m + d)):
            square = 0.0
            for c in range(d):
                square += u[i, c] * u[i, c]
            p, slack = -1, -_ROUNDING * (1.0 + sqrt(square))
            if sqrt(square) > goals[i]:
                for k in range(m):
                    s = -floor
                    for c in range(d):
                        s += A[i, k, c] * u[i, c]
                    if s < slack and state[k] == 0:
                        p, slack = k, s
            if p < 0:
                break
            gain = 0.0
            while state[p] == 0:
                # The next row of Q and column of R, should p enter.
                left = _split(Q, R, q, A, i, p)
                enters = left > _DEPENDENT and q < d
                step, leaves = (-slack / left if enters else inf), -1
                # What the multipliers of the others lose for each unit that p's gains.
                for k in range(q - 1, -1, -1):
                    loss = R[k, q]
                    for c in range(k + 1, q):
                        loss -= R[k, c] * R[d, c]
                    loss /= R[k, k]
                    R[d, k] = loss
                    if loss > 0.0 and lam[k] < step * loss:
                        step, leaves = lam[k] / loss, k
                if step == inf:
                    # Rounding alone, or no point satisfies all rows.
                    state[p], alpha[i, p] = 2, gain
                    break
                for k in range(q):
                    lam[k] -= step * R[d, k]
                gain += step
                if enters:
                    slack += step * left
                    for c in range(d):
                        u[i, c] += step * Q[q, c]
                if leaves < 0:
                    _append(Q, R, q, sqrt(left))
                    rows[q], lam[q], state[p] = p, gain, 1
                    q += 1
                else:
                    state[rows[leaves]] = 0
                    q -= 1
                    for k in range(leaves, q):
                        rows[k], lam[k] = rows[k + 1], lam[k + 1]
                    _remove(Q, R, q, leaves)
        for k in range(q):
            alpha[i, rows[k]] = lam[k]


@kernel(fastmath=REDUCE)
def _split(Q, R, q, A, i, p):
    """Set row q of Q to what is outside the span of those before; return its squared length."""
    d = Q.shape[1]
    square = 0.0
    for c in range(d):
        Q[q, c] = A[i, p, c]
        square += Q[q, c] * Q[q, c]
    for sweep in range(2):
        for k in range(q):
            t = 0.0
            for c in range(d):
                t += Q[k, c] * Q[q, c]
            for c in range(d):
                Q[q, c] -= t * Q[k, c]
            R[k, q] = t if sweep == 0 else R[k, q] + t
        before, square = square, 0.0
        for c in range(d):
            square += Q[q, c] * Q[q, c]
        # Once is enough, unless so little is left that rounding errors are a part of it.
        if square > 0.25 * before:
            break
    return square


@kernel()
def _append(Q, R, q, length):
    """Take in the row that `_split` has split."""
    for c in range(Q.shape[1]):
        Q[q, c] /= length
    R[q, q] = length


@kernel()
def _remove(Q, R, q, j):
    """Let go of column j, which leaves q, and rotate R back into a triangle."""
    for k in range(j, q):
        for c in range(k + 2):
            R[c, k] = R[c, k + 1]
    for k in range(j, q):
        length = sqrt(R[k, k] * R[k, k] + R[k + 1, k] * R[k + 1, k])
        x, y = R[k, k] / length, R[k + 1, k] / length
        for c in range(k, q):
            s, t = R[k, c], R[k + 1, c]
            R[k, c], R[k + 1, c] = x * s + y * t, x * t - y * s
        for c in range(Q.shape[1]):
            s, t = Q[k, c], Q[k + 1, c]
            Q[k, c], Q[k + 1, c] = x * s + y * t, x * t - y * s
