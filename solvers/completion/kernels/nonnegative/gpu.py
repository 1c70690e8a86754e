"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

from ...._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
_BLOCK, _WARPS = 256, 8
# Bytes that the systems of all rows that are solved at a time may take.
_ROOM = 1 << 28


def solve_nonnegative(ptr, idx, val, weight, B, ridge, shared, A):
    """Set each ``A_i >= 0`` to its row's minimiser, from the A that comes in.

    Returns
    -------
    float
        Sum of squares of ``A - max(A - gradient / diagonal, 0)`` at the A that came in, where
        `diagonal` is that of each row's second derivative: 0 where that A is the minimiser.
    """
    xp = get_backend("cupy").xp
    m, k = A.shape
    size = 2 * k * k + 3 * k
    grid = min(blocks(m, _WARPS), max(_ROOM // (size * A.itemsize * _WARPS), 1))
    work, squares = xp.empty(grid * _WARPS * size, A.dtype), xp.empty(m)
    args = (
        ptr, idx, val, weight, weight.size > 0, B, ridge, shared, shared.size > 0, A, squares,
        work, m, k,
    )  # fmt: skip
    _cuda.launch("solve_nonnegative", A.dtype, grid, _BLOCK, args)
    return squares.sum()
