"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

import numpy as np

from ...._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
_BLOCK, _WARPS = 256, 8


def entries(rows, cols, U, s, V, a, b, out):
    """Set ``out_p = sum_q U_iq s_q V_jq + a_i + b_j`` for pairs (i, j); `a`, `b` may be empty."""
    args = (rows, cols, U, s, V, a, b, a.size > 0, out, rows.size, s.size)
    _cuda.launch("entries", U.dtype, blocks(rows.size, _WARPS), _BLOCK, args)


def best(scores, cols, out):
    """Write the columns with the largest scores of each row, the best first, and these scores.

    Of equal scores the one in the smaller column is better.
    """
    xp = get_backend("cupy").xp
    # CuPy's partition is a full sort, and its sort is stable.
    order = xp.argsort(-scores, axis=1)[:, : cols.shape[1]]
    found = xp.take_along_axis(scores, order, axis=1)
    out.fill(-np.inf)
    cols.fill(-1)
    out[:, : order.shape[1]] = found
    cols[:, : order.shape[1]] = xp.where(found > -np.inf, order, -1)
