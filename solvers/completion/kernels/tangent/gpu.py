"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

from ...._core.backend import CudaSource, blocks

_cuda = CudaSource(__file__)
_BLOCK, _WARPS = 256, 8


def jac_rows(ptr, idx, weight, U, V, A, B, y, gA):
    """Set ``y_p = w_p (A_i . V_j + U_i . B_j)`` for each entry, and ``gA_i = sum_p y_p V_j``.

    `weight` may be empty: all are one.
    """
    m, k = U.shape
    args = (ptr, idx, weight, weight.size > 0, U, V, A, B, y, gA, m, k)
    _cuda.launch("jac_rows", U.dtype, blocks(m, _WARPS), _BLOCK, args)


def jac_cols(ptr, idx, perm, y, U, gB):
    """Set ``gB_j = sum_p y_p U_i`` for entries by column whose `y` are in row order."""
    n, k = gB.shape
    types = U.dtype, "int" if perm.dtype.itemsize == 4 else "long long"
    _cuda.launch("jac_cols", types, blocks(n, _WARPS), _BLOCK, (ptr, idx, perm, y, U, gB, n, k))


def block_inverse(ptr, idx, weight, V, shared, ridge, out):
    """Set ``out_i = (shared + sum_p w_p V_j V_j^T + diag(ridge_i))^-1``.

    `weight` and `shared` may be empty. Directions whose pivots drown in rounding get zero rows
    and columns, so `out` is always positive semi-definite and finite.
    """
    m, k = ridge.shape
    args = (ptr, idx, weight, weight.size > 0, V, shared, shared.size > 0, ridge, out, m, k)
    _cuda.launch("block_inverse", V.dtype, blocks(m, _WARPS), _BLOCK, args)


def block_times(blocks_, x, out):
    """Set ``out_i = blocks_i x_i``."""
    m, k = x.shape
    _cuda.launch("block_times", x.dtype, blocks(m * k, _BLOCK), _BLOCK, (blocks_, x, out, m, k))
