"""Where the entries of sparse saddle-point matrices lie, looked at once for many matrices."""

import math
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import reverse_cuthill_mckee

from ._blocks import Blocks

# Rows longer than this many times the square root of the size make every order wide.
_LONG = 10
# Entries of factors beside the squared widths of separators, from grids of two and three
# dimensions.
_SHARE = 0.6


class Pattern:
    """The pattern of a symmetric matrix whose entries are gathered from a list of values.

    Parameters
    ----------
    rows, cols, source : int array (nnz,)
        Where entries lie, and their places in the list of values. Both triangles are given.
    size : int
    """

    def __init__(self, rows, cols, source, size):
        self._rows, self._cols, self._source, self.size = rows, cols, source, size

    @cached_property
    def order(self):
        """The order of Cuthill and McKee, which keeps entries near the diagonal."""
        ones = np.ones(len(self._rows), dtype=np.int8)
        A = sp.csr_array((ones, (self._rows, self._cols)), shape=(self.size, self.size))
        return reverse_cuthill_mckee(A, symmetric_mode=True)

    @cached_property
    def _banded(self):
        place = np.empty(self.size, dtype=np.int64)
        place[self.order] = np.arange(self.size)
        rows, cols = place[self._rows], place[self._cols]
        return rows, cols, int(abs(rows - cols).max(initial=0))

    @property
    def bandwidth(self):
        """Diagonals below the main one, in that order."""
        return self._banded[2]

    def fill(self):
        """Estimate the entries of a triangular factor in a good order.

        The narrowest order's width is about the size of the separator in the middle; halves have
        smaller ones, by a power that the width tells (a line, a plane, a solid), and each leaves
        a dense triangle. Long rows, which make any order wide, come last and count in full.
        """
        lengths = np.bincount(self._rows, minlength=self.size)
        long = lengths > max(_LONG * math.sqrt(self.size), _LONG)
        rest = self
        if long.any():
            kept = ~(long[self._rows] | long[self._cols])
            rest = Pattern(self._rows[kept], self._cols[kept], None, self.size)
        n, width = self.size, max(rest.bandwidth, 1)
        power = 1 - 2 * math.log(width) / math.log(max(n, 2))
        depth = np.arange(max(int(math.log2(n / width)), 0) + 1)
        separators = _SHARE * width**2 * (2.0 ** (power * depth)).sum()
        return min(separators, n * width) + n * np.count_nonzero(long)

    @cached_property
    def _full_band(self):
        rows, cols, width = self._banded
        return 2 * width + rows - cols + cols * (3 * width + 1)

    @cached_property
    def _lower_band(self):
        rows, cols, width = self._banded
        low = np.flatnonzero(rows >= cols)
        return (rows - cols + cols * (width + 1))[low], self._source[low]

    def full_band(self, values):
        """Return the band as ``dgbtrf`` takes it."""
        ab = np.zeros((self.size, 3 * self.bandwidth + 1))
        ab.reshape(-1)[self._full_band] = values[self._source]
        return ab.T

    def lower_band(self, values):
        """Return the lower half of the band as ``dpbtrf`` takes it."""
        ab = np.zeros((self.size, self.bandwidth + 1))
        where, source = self._lower_band
        ab.reshape(-1)[where] = values[source]
        return ab.T

    @cached_property
    def _columns(self):
        # The places of values travel as if they were entries.
        entries = (self._source.astype(np.float64), (self._rows, self._cols))
        A = sp.csc_matrix(entries, shape=(self.size, self.size))
        A.sort_indices()
        return A.data.astype(np.int64), A.indices, A.indptr

    def columns(self, values):
        """Return the matrix by columns."""
        source, indices, indptr = self._columns
        return sp.csc_matrix((values[source], indices, indptr), shape=(self.size, self.size))


class SaddlePattern(Pattern):
    """The pattern of ``[[B, G^T], [G, -delta I]]``, every entry of the diagonal included."""

    def __init__(self, B, G):
        self._B, self._G = _places(B), _places(G)
        (m, n), (b, g) = G.shape, (B.nnz, G.nnz)
        rows, cols = _coordinates(B)
        below, beside = _coordinates(G)
        # Entries of B's diagonal that are not stored are zero: the place after all others.
        stored = np.zeros(n, dtype=bool)
        stored[rows[rows == cols]] = True
        bare = np.flatnonzero(~stored)
        dual = np.arange(n, n + m)
        source = [np.arange(b), b + np.arange(g), b + np.arange(g)]
        source += [np.full(m, b + g), np.full(len(bare), b + g + 1)]
        super().__init__(
            np.concatenate([rows, n + below, beside, dual, bare]),
            np.concatenate([cols, beside, n + below, dual, bare]),
            np.concatenate(source),
            n + m,
        )

    @cached_property
    def blocks(self):
        """The `Blocks` of B."""
        indptr, indices = self._B
        n = len(indptr) - 1
        return Blocks(sp.csr_array((np.ones(len(indices)), indices, indptr), shape=(n, n)))

    def fits(self, B, G):
        """Tell whether B and G have the entries that this pattern has."""
        return _same(self._B, B) and _same(self._G, G)

    @staticmethod
    def values(B, G, delta):
        """Return the list of values of a matrix."""
        return np.concatenate([B.data, G.data, [-delta, 0.0]])


class SquarePattern(Pattern):
    """The pattern of a symmetric CSR matrix, whose values are its data."""

    def __init__(self, A):
        self._A = _places(A)
        super().__init__(*_coordinates(A), np.arange(A.nnz), A.shape[0])

    def fits(self, A):
        """Tell whether a matrix has the entries that this pattern has."""
        return _same(self._A, A)


def canonical(A):
    """Return a matrix in CSR without duplicates, its columns in order."""
    if not hasattr(A, "nnz"):  # no rows have no form
        return sp.csr_array(A)
    if A.has_canonical_format:
        return A
    A = A.copy()
    A.sum_duplicates()
    return A


def _coordinates(A):
    return np.repeat(np.arange(A.shape[0]), np.diff(A.indptr)), A.indices


def _places(A):
    return A.indptr.copy(), A.indices.copy()


def _same(places, A):
    indptr, indices = places
    return (
        len(indices) == len(A.indices)
        and np.array_equal(indptr, A.indptr)
        and np.array_equal(indices, A.indices)
    )
