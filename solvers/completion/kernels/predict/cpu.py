"""Numba kernels that read entries off factors; `gpu.py` has their CUDA twins."""

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import REDUCE, kernel


def entries(rows, cols, U, s, V, a, b, out):
    """Set ``out_p = sum_q U_iq s_q V_jq + a_i + b_j`` for pairs (i, j); `a`, `b` may be empty."""
    strips = threads.strips(rows.size * U.shape[1])
    with threads.guard():
        _entries(strips, rows, cols, U, s, V, a, b, out)


@kernel(parallel=True, fastmath=REDUCE)
def _entries(strips, rows, cols, U, s, V, a, b, out):
    for t in prange(strips):
        for p in range(rows.size * t // strips, rows.size * (t + 1) // strips):
            i, j = rows[p], cols[p]
            total = out.dtype.type(0.0)
            for q in range(s.size):
                total += U[i, q] * s[q] * V[j, q]
            if a.size > 0:
                total += a[i] + b[j]
            out[p] = total


def best(scores, cols, out):
    """Write the columns with the largest scores of each row, the best first, and these scores.

    Of equal scores the one in the smaller column is better.
    """
    strips = min(threads.strips(scores.size), scores.shape[0])
    with threads.guard():
        _best(strips, scores, cols, out)


@kernel(parallel=True)
def _best(strips, scores, cols, out):
    (rows, n), k = scores.shape, cols.shape[1]
    for t in prange(strips):
        for i in range(rows * t // strips, rows * (t + 1) // strips):
            out[i] = -np.inf
            cols[i] = -1
            for j in range(n):
                score = scores[i, j]
                # Most scores are worse than the worst kept, so insertion is rare.
                if score <= out[i, k - 1]:
                    continue
                q = k - 1
                while q > 0 and out[i, q - 1] < score:
                    out[i, q], cols[i, q] = out[i, q - 1], cols[i, q - 1]
                    q -= 1
                out[i, q], cols[i, q] = score, j
