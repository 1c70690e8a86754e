"""Launchers of the CUDA twins of `cpu.py`: costs of some rows at a time, for those of `..gpu`."""

import numpy as np

from ...._core.backend import CudaSource, blocks
from .. import gpu as stored
from . import blocks as by_blocks

_cuda = CudaSource(__file__)
_COSTS = {
    "sqeuclidean": "Squared",
    "cosine": "Squared",
    "euclidean": "Euclidean",
    "cityblock": "CityBlock",
}
# Threads in a block.
_BLOCK = 256


def row_pass(C, h, beta, reg, a, shift, K):
    """Make all row sums exact for given `h`: one pass over the pairs."""
    return by_blocks.row_pass(stored, _costs, C, h, beta, reg, a, shift, K)


def sparse_row_pass(C, h, beta, reg, a, shift, cutoff, indices, values, starts, ends):
    """As `row_pass`, storing only the entries with ``K_ij beta_j > cutoff``.

    Row i's entries go to ``[starts[i], ends[i])`` of `indices` and `values`. Returns ``K^T a``
    and whether everything fitted. Waits for the device.
    """
    args = C, h, beta, reg, a, shift, cutoff, indices, values, starts, ends
    return by_blocks.sparse_row_pass(stored, _costs, *args)


def column_potential(C, shift, a, reg, columns, h):
    """Set ``h_j`` for the given columns so that their sums are exact: ``(K^T a)_j = 1``."""
    by_blocks.column_potential(stored, _costs, C, shift, a, reg, columns, h)


def _costs(C, rows):
    if callable(C.cost):
        return C[rows]
    xp, x, m = C.be.xp, C.x[rows], C.shape[1]
    out = xp.empty((x.shape[0], m))
    grid = blocks(m, _BLOCK), blocks(x.shape[0])
    args = x, C.columns, C.factor, out, x.shape[0], m, C.dim
    _cuda.launch("tile_costs", (np.float64, _COSTS[C.cost]), grid, _BLOCK, args)
    return out
