"""What the judge has before it: the caller's entries and a candidate, in float64.

Plain array code that shares nothing with the solvers, neither their data structure nor kernels.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core import threads

# Numbers gathered at a time, of each factor: these stay in the cache.
_BLOCK = 1 << 15
# How far Gram matrices may be from the identity for their Cholesky factors to lose nothing.
_NEARLY = 1e-3


@dataclass(frozen=True)
class Case:
    """The observed entries, one for each place, row by row.

    Attributes
    ----------
    be : Backend
    shape : (int, int)
        Shape of the matrix.
    ptr, rows, cols : array
        Where each row starts, and where each entry is.
    target : array, shape (N,)
        What the matrix should be there: values less the mean, divided by `unit`, or 0 and 1 for
        implicit feedback.
    unit : float
        A power of two about as large as the values, so that no square overflows or vanishes.
    weight : array, shape (N,), or 1.0
        Weights of the entries, above 0; for implicit feedback, their confidence above 1.
    implicit : bool
        Whether all other places count too, with target 0 and weight 1.
    """

    be: Any
    shape: tuple[int, int]
    ptr: Any
    rows: Any
    cols: Any
    target: Any
    unit: float
    weight: Any
    implicit: bool

    @property
    def degrees(self):
        """Number of entries of each row, and of each column."""
        xp = self.be.xp
        return xp.diff(self.ptr), xp.bincount(self.cols, minlength=self.shape[1])

    def sparse(self, data):
        """Return the sparse matrix with these entries."""
        return self.be.sparse.csr_matrix((data, self.cols, self.ptr), shape=self.shape)

    def entries(self, A, B):
        """Return ``A B^T`` at the observed places."""
        return entries(self.be, A, B, self.rows, self.cols)


def open_case(entered, *, duplicates, without=None, mu=0.0, implicit=False, alpha=1.0):
    """Return the `Case` of checked entries, less those of weight 0 and those of `without`."""
    be, xp, (m, n) = entered.io.be, entered.io.xp, entered.shape
    rows, cols, vals, weight = entered.rows, entered.cols, entered.vals, entered.weights
    if weight is not None or without is not None:
        keep = xp.ones(vals.size, bool) if weight is None else weight > 0
        if without is not None:
            keep[xp.asarray(without)] = False
        rows, cols, vals = rows[keep], cols[keep], vals[keep]
        weight = weight if weight is None else weight[keep]
    if vals.size == 0:
        culprit = "M" if entered.weights is None else "weights"
        culprit = culprit if without is None else "holdout"
        raise ValueError(f"`{culprit}` leaves no entries to judge; expected at least one")
    # Many entries make large arrays: each is used again, or given up, as soon as it can be.
    key = rows.astype(np.int64)
    key *= n
    key += cols
    order = xp.argsort(key, kind="stable")
    key = key[order]
    rows, cols, vals = rows[order], cols[order], vals[order].astype(np.float64)
    weight = 1.0 if weight is None else weight[order].astype(np.float64)
    del order
    again = key[1:] == key[:-1]
    del key
    if be.host(again.any()):
        rows, cols, vals, weight = _merged(be, rows, cols, vals, weight, again, duplicates)
    if implicit:
        # What was never consumed is no observation.
        events = xp.flatnonzero(vals)
        rows, cols, vals = rows[events], cols[events], vals[events]
    target, unit = vals - mu, 1.0
    if implicit:
        target, weight = (vals > 0).astype(np.float64), alpha * abs(vals)
    else:
        top = be.host(abs(target).max())
        unit = np.ldexp(1.0, np.frexp(top)[1]) if top else 1.0
        target /= unit
    ptr = xp.concatenate([xp.zeros(1, np.int64), xp.cumsum(xp.bincount(rows, minlength=m))])
    return Case(be, (m, n), ptr, rows, cols, target, unit, weight, implicit)


def _merged(be, rows, cols, vals, weight, again, duplicates):
    """Deal with places that occur twice, which are neighbours, in the caller's order."""
    xp = be.xp
    if duplicates == "error":
        first = int(be.host(again.argmax()))
        i, j = be.host(rows[first], cols[first])
        raise ValueError(
            f"`M` holds the entry ({i}, {j}) twice; expected each once: pass duplicates='mean', "
            "'sum' or 'last'"
        )
    one = xp.ones(1, bool)
    new, last = xp.concatenate([one, ~again]), xp.concatenate([~again, one])
    rows, cols, place = rows[new], cols[new], xp.cumsum(new) - 1
    if duplicates == "mean":
        weight = weight + xp.zeros(vals.size)
        total = xp.bincount(place, weight)
        return rows, cols, xp.bincount(place, weight * vals) / total, total
    vals = xp.bincount(place, vals) if duplicates == "sum" else vals[last]
    return rows, cols, vals, weight if isinstance(weight, float) else weight[last]


class Slope:
    """The matrix ``S - L K^T``, S sparse: minus the gradient of the misfit.

    Parameters
    ----------
    be : Backend
    S : sparse matrix in CSR format
    L, K : array, shapes (m, k) and (n, k), optional
    """

    def __init__(self, be, S, L=None, K=None):
        self.be, self.S, self.L, self.K, self.shape = be, S, L, K, S.shape
        count = threads.strips(8 * S.nnz) if be.name == "numpy" else 1
        if count == 1:
            self._strips = [(slice(0, S.shape[0]), S)]
            return
        cuts = np.searchsorted(S.indptr, np.linspace(0, S.nnz, count + 1))
        cuts[0], cuts[-1] = 0, S.shape[0]
        self._strips = [(slice(i, j), _rows(be, S, i, j)) for i, j in itertools.pairwise(cuts)]

    def times(self, B):
        """Return its product with a block of columns."""
        B = self.be.xp.ascontiguousarray(B)
        out = self.be.xp.concatenate(_side_by_side(lambda strip: strip[1] @ B, self._strips))
        return out if self.L is None else out - self.L @ (self.K.T @ B)

    def transposed_times(self, A):
        """Return the product of its transpose with a block of columns."""
        A = self.be.xp.ascontiguousarray(A)
        out = sum(_side_by_side(lambda strip: strip[1].T @ A[strip[0]], self._strips))
        return out if self.L is None else out - self.K @ (self.L.T @ A)


def entries(be, A, B, rows, cols):
    """Return ``A B^T`` at some places."""
    xp = be.xp
    out = xp.empty(rows.size)
    step = max(_BLOCK // max(A.shape[1], 1), 1) if be.name == "numpy" else rows.size
    count = threads.strips(rows.size * A.shape[1]) if be.name == "numpy" else 1
    cuts = np.linspace(0, rows.size, count + 1).astype(int)

    def fill(ends):
        for first in range(ends[0], ends[1], step):
            some = slice(first, min(first + step, ends[1]))
            out[some] = xp.einsum("pk,pk->p", A[rows[some]], B[cols[some]])

    _side_by_side(fill, list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)))
    return out


def svd_of_product(be, A, s, B):
    """Return U, s and V of ``A diag(s) B^T``."""
    xp = be.xp
    Qa, Ra = _orthonormal(be, A)
    Qb, Rb = _orthonormal(be, B)
    u, s, vt = xp.linalg.svd((Ra * s) @ Rb.T, full_matrices=False)
    return Qa @ u, s, Qb @ vt.T


def _orthonormal(be, A):
    """Return Q and R, by way of the Gram matrix where A is nearly orthonormal already."""
    xp = be.xp
    gram = A.T @ A
    if be.host(abs(gram - xp.eye(A.shape[1])).max()) > _NEARLY:
        return xp.linalg.qr(A)
    R = be.cholesky(gram).T
    return A @ be.linalg.solve_triangular(R, xp.eye(A.shape[1])), R


def _rows(be, S, first, last):
    ptr = S.indptr[first : last + 1]
    part = slice(ptr[0], ptr[-1])
    return be.sparse.csr_matrix(
        (S.data[part], S.indices[part], ptr - ptr[0]), shape=(last - first, S.shape[1])
    )


def _side_by_side(function, parts):
    """Return what `function` makes of each part, one thread for each."""
    if len(parts) == 1:
        return [function(parts[0])]

    def quietly(part):
        # NumPy's error state belongs to the thread.
        with np.errstate(all="ignore"):
            return function(part)

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(quietly, parts))
