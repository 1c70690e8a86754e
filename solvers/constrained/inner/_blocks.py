"""Inverses of block-diagonal matrices, all blocks of a size at once."""

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

# Blocks larger than this leave too much of the work to small dense matrices.
LARGEST_BLOCK = 8


class Blocks:
    """The blocks of a symmetric CSR matrix, whatever the order of its rows.

    Attributes
    ----------
    label : int array (n,)
        The block of each row.
    small : bool
        Whether all blocks are small, and there are some of more than one row.
    """

    def __init__(self, B):
        self._count, self.label = connected_components(B, directed=False)
        self._sizes = np.bincount(self.label)
        self.small = 1 < self._sizes.max() <= LARGEST_BLOCK

    def inverse(self, B):
        """Return the inverse in CSR, or None if B is not positive definite."""
        n = B.shape[0]
        by_block = np.argsort(self.label, kind="stable")
        starts = np.concatenate([[0], np.cumsum(self._sizes)])
        place = np.empty(n, dtype=np.int64)
        place[by_block] = np.arange(n) - np.repeat(starts[:-1], self._sizes)
        entries = B.tocoo()
        block = self.label[entries.row]
        parts = []
        for size in np.unique(self._sizes):
            same = np.flatnonzero(self._sizes == size)
            number = np.full(self._count, -1)
            number[same] = np.arange(len(same))
            here = number[block] >= 0
            dense = np.zeros((len(same), size, size))
            where = number[block[here]], place[entries.row[here]], place[entries.col[here]]
            dense[where] = entries.data[here]
            try:
                np.linalg.cholesky(dense)
            except np.linalg.LinAlgError:
                return None
            rows = by_block[starts[same][:, None] + np.arange(size)]
            shape = dense.shape
            parts.append(
                (
                    np.linalg.inv(dense).ravel(),
                    np.broadcast_to(rows[:, :, None], shape).ravel(),
                    np.broadcast_to(rows[:, None, :], shape).ravel(),
                )
            )
        data, rows, cols = map(np.concatenate, zip(*parts, strict=True))
        return sp.csr_array((data, (rows, cols)), shape=(n, n))
