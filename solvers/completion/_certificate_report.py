"""Which rows and columns the observed entries determine, and which parts hang together."""

import itertools
from typing import NamedTuple

import numpy as np

from .._core.arrays import to_numpy

# Singular values, relative to the largest, that count as zero.
_VANISHED = 1e-10
# Smallest eigenvalue, relative to the one to expect, from which a row counts as determined.
_SINGULAR = 1e-10
# Operations for Gram matrices and their eigenvalues; the rows with the fewest entries go first.
_WORK = 1e8
# Operations for the eigenvalues of the normal equations of all directions at once.
_DENSE_WORK = 1e8
# Entries for each row and column that a first search for components looks at.
_LINKS = 4
# Numbers in a batch of gathered rows.
_BATCH = 1 << 22


class Identified(NamedTuple):
    """What the entries determine of a matrix of this rank.

    Attributes
    ----------
    rows, cols : numpy.ndarray of int
        Rows and columns that they do not determine.
    components : numpy.ndarray of int, shape (m + n,)
        Connected component of each row, then of each column; -1 where nothing is observed.
    curvature : float or None
        See `smallest_curvature`.
    """

    rows: np.ndarray
    cols: np.ndarray
    components: np.ndarray
    curvature: float | None

    def details(self):
        """Return the numbers for a certificate."""
        found = {
            "unidentified_rows": self.rows.size,
            "unidentified_cols": self.cols.size,
            "components": int(self.components.max()) + 1,
        }
        return found if self.curvature is None else {**found, "curvature": self.curvature}

    def note(self):
        """Return a sentence on what is left open, or None."""
        parts = int(self.components.max()) + 1
        if parts > 1:
            return f"The entries fall into {parts} parts, and say nothing of the blocks between."
        counts = {"row": self.rows.size, "column": self.cols.size}
        lone = [f"{count} {side}{'s' * (count > 1)}" for side, count in counts.items() if count]
        return f"Too few entries determine {' and '.join(lone)}." if lone else None


def identify(case, U, s, V):
    """Return what the entries of a case determine; see `Identified`.

    Parameters
    ----------
    case : Case
    U, s, V : array
        Singular value decomposition of the answer.
    """
    be, (m, n) = case.be, case.shape
    if case.implicit:
        # All places count: nothing is left open.
        nobody = np.empty(0, np.int64)
        return Identified(nobody, nobody, np.zeros(m + n, np.int64), None)
    rank = int(be.host((s > _VANISHED * s[0]).sum()))
    U, V = U[:, :rank], V[:, :rank]
    labels = components(be, case.ptr, case.cols, n)
    by_col = case.sparse(case.target).T.tocsr()
    rows = unidentified(be, case.ptr, case.cols, own_bases(be, V, labels[m:]))
    cols = unidentified(be, by_col.indptr, by_col.indices, own_bases(be, U, labels[:m]))
    return Identified(rows, cols, labels, smallest_curvature(be, case.rows, case.cols, U, V))


def unidentified(be, ptr, idx, Q):
    r"""Return the rows that their entries do not determine, given the other factor.

    Those with fewer entries than columns of Q, and those with
    :math:`\lambda_{\min}(Q_{\Omega_i}^\top Q_{\Omega_i}) < 10^{-10} d_i / n`. The rows are looked
    through in the order of their number of entries, as far as a bounded effort goes: what is
    found is so, and a row with many entries may be missed.

    Parameters
    ----------
    be : Backend
    ptr, idx : array
        The entries, row by row.
    Q : array, shape (n, k)
        Basis of the other side, from `own_bases`.

    Returns
    -------
    numpy.ndarray of int, sorted
    """
    xp, (n, k) = be.xp, Q.shape
    ptr = to_numpy(ptr)
    degrees = np.diff(ptr)
    found = [np.flatnonzero(degrees < max(k, 1))]
    others = np.flatnonzero(degrees >= k)
    others = others[np.argsort(degrees[others], kind="stable")] if k else others[:0]
    # Batches have as many slots for each row as its longest, the last one, needs.
    first = 0
    budget = _WORK
    while first < others.size and budget > 0:
        longest = degrees[others[first]]
        size = max(int(_BATCH // (2 * longest * k)), 1)
        some = others[first : first + size]
        some = some[degrees[some] <= 2 * longest]
        longest = degrees[some[-1]]
        slots = ptr[some][:, None] + np.arange(longest)
        there = np.arange(longest) < degrees[some][:, None]
        chosen = idx[xp.asarray(np.where(there, slots, 0))]
        part = Q[chosen] * xp.asarray(there)[:, :, None]
        smallest = be.host(xp.linalg.eigvalsh(part.transpose(0, 2, 1) @ part)[:, 0])
        found.append(some[smallest < _SINGULAR * degrees[some] / n])
        budget -= some.size * k * k * (longest + 10.0 * k)
        first += some.size
    return np.sort(np.concatenate(found))


def own_bases(be, V, labels):
    """Return an orthonormal basis of the columns of V, made anew on each component.

    What components have to do with each other is nobody's business, and may be anything: taken
    together, the rows of one may be tiny beside those of another.

    Parameters
    ----------
    be : Backend
    V : array, shape (n, k)
        Orthonormal columns.
    labels : numpy.ndarray of int, shape (n,)
        Component of each of its rows, or -1.

    Returns
    -------
    array, shape (n, k)
        Scaled so that each component counts by its number of rows.
    """
    order = np.argsort(labels, kind="stable")
    cuts = np.searchsorted(labels[order], np.arange(labels.max() + 2))
    if cuts.size == 2:
        return V
    Q = V.copy()
    n, k = V.shape
    for first, last in itertools.pairwise(cuts):
        # With fewer columns than the rank, no row has enough entries anyway.
        if last - first >= k:
            some = be.xp.asarray(order[first:last])
            Q[some] = be.xp.linalg.qr(V[some])[0] * np.sqrt((last - first) / n)
    return Q


def smallest_curvature(be, rows, cols, U, V):
    """Return the least squared norm at the entries of a unit change that keeps the rank.

    Parameters
    ----------
    be : Backend
    rows, cols : array
        Where the entries are.
    U, V : array, shapes (m, k) and (n, k)
        Orthonormal bases.

    Returns
    -------
    float or None
        Relative to the mean over all unit changes of the matrix, N / (m n); None where that
        would take long.
    """
    xp, (m, k), n, size = be.xp, U.shape, V.shape[0], rows.size
    freedom = k * (m + n - k)
    if freedom > size or not freedom:
        # With fewer entries than directions some of these leave no trace.
        return 0.0 if freedom else None
    if float(size) * freedom**2 > _DENSE_WORK:
        return None
    # Changes are A V^T + U B^T with B orthogonal to V, so that none is counted twice.
    rest = xp.linalg.qr(V, mode="complete")[0][:, k:]
    A = xp.zeros((size, m, k))
    A[xp.arange(size), rows] = V[cols]
    B = rest[cols][:, :, None] * U[rows][:, None, :]
    J = xp.concatenate([A.reshape(size, -1), B.reshape(size, -1)], axis=1)
    least = be.host(xp.linalg.eigvalsh(J.T @ J)[0])
    return max(float(least), 0.0) * m * n / size


def components(be, ptr, idx, n):
    """Return the connected component of each row, then of each column; -1 for empty ones."""
    ptr, idx = to_numpy(ptr), to_numpy(idx)
    m = ptr.size - 1
    rows = np.repeat(np.arange(m, dtype=np.int32), np.diff(ptr))
    # Some entries join nearly all that hangs together; a graph of all would take much memory.
    stride = max(idx.size // (_LINKS * (m + n)), 1)
    labels = _joined(rows[::stride], idx[::stride] + m, m + n)
    ends = labels[:m][rows], labels[m:][idx]
    apart = ends[0] != ends[1]
    if apart.any():
        labels = _joined(ends[0][apart], ends[1][apart], labels.max() + 1)[labels]
    empty = np.concatenate([np.diff(ptr), np.bincount(idx, minlength=n)]) == 0
    seen = np.unique(labels[~empty])
    return np.where(empty, -1, np.searchsorted(seen, labels)).astype(np.int64)


def _joined(tails, heads, size):
    """Return the connected component of each vertex of a graph."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(tails.size, np.int8), (tails, heads)), shape=(size, size))
    return connected_components(graph.tocsr(), directed=False)[1]
