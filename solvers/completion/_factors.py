"""A matrix of low rank with biases, and what solvers and judges ask of it."""

from typing import Any, NamedTuple

import numpy as np

# Entries that are predicted at a time, times the rank.
_BATCH = 1 << 22


class Factors(NamedTuple):
    """The estimate ``U diag(s) V^T + row_bias 1^T + 1 col_bias^T``, in the problem's unit.

    Attributes
    ----------
    U, V : array, shapes (m, k) and (n, k)
        Singular vectors (non-negative problems: unit columns).
    s : array, shape (k,)
        Singular values, descending.
    row_bias, col_bias : array, shapes (m,) and (n,), or (0,)
        Biases; empty where there are none.
    """

    U: Any
    s: Any
    V: Any
    row_bias: Any
    col_bias: Any

    def balanced(self, be):
        """Return A and B with ``A B^T = U diag(s) V^T`` and equal Gram matrices."""
        root = be.xp.sqrt(self.s)
        return self.U * root, self.V * root


def svd_of_product(be, A, B):
    """Return U, s and V of ``A B^T``, by QR factorisations of both: never of its entries."""
    xp = be.xp
    Qa, Ra = xp.linalg.qr(A)
    Qb, Rb = xp.linalg.qr(B)
    u, s, vt = xp.linalg.svd(Ra @ Rb.T)
    return Qa @ u, s, Qb @ vt.T


def without_biases(be, U, s, V):
    """Return factors that have no biases."""
    nothing = be.xp.empty(0, U.dtype)
    return Factors(U, s, V, nothing, nothing)


def entries(be, A, B, a, b, rows, cols):
    """Return some entries of ``A B^T + a 1^T + 1 b^T``; `a` and `b` may be empty."""
    xp = be.xp
    out = xp.empty(rows.size, A.dtype)
    step = max(_BATCH // max(A.shape[1], 1), 1)
    for first in range(0, rows.size, step):
        i, j = rows[first : first + step], cols[first : first + step]
        total = xp.einsum("pk,pk->p", A[i], B[j])
        out[first : first + step] = total + a[i] + b[j] if a.size else total
    return out


def padded(be, A, B, k, rng, size):
    """Widen factors to `k` columns by noise whose product has about the norm `size`."""
    xp, more = be.xp, k - A.shape[1]
    if more <= 0:
        return A, B
    (m, _), (n, _) = A.shape, B.shape
    scale = np.sqrt(size / np.sqrt(float(m) * n * more))
    wider = (
        xp.asarray(scale * rng.standard_normal((rows, more)), dtype=A.dtype) for rows in (m, n)
    )
    A_more, B_more = wider
    return xp.concatenate([A, A_more], axis=1), xp.concatenate([B, B_more], axis=1)
