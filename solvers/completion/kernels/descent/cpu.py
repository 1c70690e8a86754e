"""Numba kernel that reads the objective along a line off one pass over the entries."""

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import REDUCE, kernel
from ..cpu import cuts


def along(ptr, idx, r, weight, A, B, dA, dB, slope, bend):
    """Set the residual's first and second order terms along ``(A, B) + t (dA, dB)``.

    ``slope_p = A_i . dB_j + dA_i . B_j`` and ``bend_p = dA_i . dB_j``. Returns the weighted sums
    of ``slope^2``, ``r bend``, ``slope bend`` and ``bend^2``, in double precision.
    """
    with threads.guard():
        where = cuts(ptr, 3 * A.shape[1])
        sums = np.zeros((where.size - 1, 4))
        _along(where, ptr, idx, r, weight, A, B, dA, dB, slope, bend, sums)
    return sums.sum(axis=0)


@kernel(parallel=True, fastmath=REDUCE)
def _along(where, ptr, idx, r, weight, A, B, dA, dB, slope, bend, sums):
    k = A.shape[1]
    for t in prange(where.size - 1):
        squares = with_bend = mixed = bent = 0.0
        for i in range(where[t], where[t + 1]):
            for p in range(ptr[i], ptr[i + 1]):
                j = idx[p]
                first = second = r.dtype.type(0.0)
                for q in range(k):
                    first += A[i, q] * dB[j, q] + dA[i, q] * B[j, q]
                    second += dA[i, q] * dB[j, q]
                slope[p], bend[p] = first, second
                w = weight[p] if weight.size > 0 else r.dtype.type(1.0)
                squares += w * first * first
                with_bend += w * r[p] * second
                mixed += w * first * second
                bent += w * second * second
        sums[t, 0], sums[t, 1], sums[t, 2], sums[t, 3] = squares, with_bend, mixed, bent
