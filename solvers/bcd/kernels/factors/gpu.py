"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

from ...._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
_BLOCK, _WARPS = 256, 8


def nonnegative_rows(G, R, l1, sweeps, X):
    """Move each row of X (n, k) towards the minimiser over ``x >= 0`` of its own problem.

    That is ``x^T G x / 2 - R_i x + l1 sum(x)``; `sweeps` is the largest number of turns over the
    row's unknowns.
    """
    n, k = X.shape
    slopes = get_backend("cupy").xp.empty_like(X)
    args = G, R, float(l1), int(sweeps), slopes, X, n, k
    _cuda.launch("nonnegative_rows", X.dtype, blocks(n, _WARPS), _BLOCK, args)
