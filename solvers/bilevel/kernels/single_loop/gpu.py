"""Launcher of the CUDA twin of `cpu.py`: the same function, for CuPy arrays."""

import numpy as np

from ...._core.backend import CudaSource, get_backend

_cuda = CudaSource(__file__)
_BLOCK = 1024


def single_loop(
    kind, X, t, V, tv, low, up, rates, start, members, base, lo, hi, normalize, x, D, both, means,
    work, e,
):  # fmt: skip
    """Take a step for each row of `low`; see the twin for the arguments."""
    be = get_backend("cupy")
    steps, b = low.shape
    out, slopes = be.xp.empty((), np.float64), be.xp.empty((3, b), x.dtype)
    args = X, t, V, tv, low, up, rates, start, members, base, lo, hi, bool(normalize)
    state = x, D, both, means, work, e, slopes, out
    sizes = steps, b, base.size, x.size
    _cuda.launch("single_loop", x.dtype, 1, _BLOCK, (int(kind), *args, *state, *sizes))
    return be.host(out)
