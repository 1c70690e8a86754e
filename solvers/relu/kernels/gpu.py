"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

import numpy as np

from ..._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
_BLOCK, _WARPS = 256, 8
# Blocks that leave sums: enough to keep any device busy.
_MOST = 2048


def masked_sum(G, mask, out):
    """Set ``out_k = sum_i mask_ik (G_0ik - G_1ik)``; G (c, sides, P, n), the second side optional.

    `out` is (c, n).
    """
    _cuda.launch("masked_sum", G.dtype, blocks(out.size, _BLOCK), _BLOCK, (G, mask, out, *G.shape))


def spread(z, mask, out):
    """Set ``out_oik = mask_ik z_ok``; z (c, n), out (c, P, n)."""
    c, P, n = out.shape
    _cuda.launch("spread", z.dtype, _grid(c * P, n), _BLOCK, (z, mask, out, c * P, P, n))


def advance(G, T, mask, relax):
    """Move the cones' copies by ``relax (sign G - max(T, 0))``; leave ``sign |T|`` in G.

    Returns the sums of squares of what is left of the constraint, ``sign G - S`` with the new
    ``S = max(T, 0)``, of the change of S, and of ``sign G - S`` with the old one.
    """
    rows, n = T.shape
    grid = _grid(rows, n)
    sums = get_backend("cupy").xp.empty((grid[0] * grid[1], 3))
    args = (G, T, mask, float(relax), sums, rows, len(mask), n)
    _cuda.launch("advance", T.dtype, grid, _BLOCK, args)
    return sums.sum(axis=0)


def shrink(U, T, V, t, relax):
    """Move the blocks' copies T by ``relax (U - V)`` and set V to each moved by t towards zero.

    All are (rows, d). Returns sums of squares as `advance` does.
    """
    rows, d = T.shape
    grid = min(blocks(rows, _WARPS), _MOST)
    sums = get_backend("cupy").xp.empty((grid, 3))
    args = (U, T, V, np.float64(t), float(relax), sums, rows, d)
    _cuda.launch("shrink", T.dtype, grid, _BLOCK, args)
    return sums.sum(axis=0)


def logistic(a, scale, rho, out):
    """Set out to the m that minimise ``log(1 + exp(-scale m)) + rho / 2 (m - a)^2``.

    a, rho and out are flat and of one type: each sample has its own rho.
    """
    eps = np.float64(np.finfo(a.dtype).eps)
    args = (a, np.float64(scale), rho, eps, out, a.size)
    _cuda.launch("logistic", a.dtype, blocks(a.size, _BLOCK), _BLOCK, args)


def _grid(rows, n):
    """Return blocks along samples and along rows."""
    along = min(blocks(n, _BLOCK), _MOST)
    return along, max(1, min(rows, _MOST // along))
