"""Launcher of the CUDA twin of `cpu.py`: the same function, for CuPy arrays."""

from ...._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
_BLOCK, _WARPS = 256, 8


def along(ptr, idx, r, weight, A, B, dA, dB, slope, bend):
    """Set the residual's first and second order terms along ``(A, B) + t (dA, dB)``.

    ``slope_p = A_i . dB_j + dA_i . B_j`` and ``bend_p = dA_i . dB_j``. Returns the weighted sums
    of ``slope^2``, ``r bend``, ``slope bend`` and ``bend^2``, in double precision.
    """
    xp = get_backend("cupy").xp
    m, k = A.shape
    sums = xp.empty((m, 4))
    args = (ptr, idx, r, weight, weight.size > 0, A, B, dA, dB, slope, bend, sums, m, k)
    _cuda.launch("along", A.dtype, blocks(m, _WARPS), _BLOCK, args)
    return sums.sum(axis=0)
