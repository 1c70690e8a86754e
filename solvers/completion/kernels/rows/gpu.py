"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

import numpy as np

from ...._core.backend import CudaSource, get_backend

_cuda = CudaSource(__file__)
# A warp takes a row of few unknowns, a block one of many.
_NARROW, _WARP, _BLOCK = 32, 32, 256
# Bytes of shared memory that a block has on every device, and most entries held there at a time.
_SHARED, _TILE = 48 << 10, 32
# Most bytes that the rows in work may take beside shared memory, and most rows.
_ROOM, _ROWS = 1 << 30, 1 << 14
# Vectors of the length of a row that a block needs.
_VECTORS = 7
# Float32 Gram matrices of more unknowns or entries than these are summed in float64.
_WIDE, _LONG = 64, 1 << 14


def solve_rows(ptr, idx, val, weight, B, offset, ridge, lam_bias, shared, A, grad):
    """Set each ``A_i`` to its row's minimiser, by Cholesky factorisation."""
    systems = ptr, idx, val, weight, B, offset, ridge, lam_bias, shared
    return _solved(systems, A, grad, get_backend("cupy").xp.empty_like(grad), 0.0, 0)


def cg_rows(ptr, idx, val, weight, B, offset, ridge, lam_bias, shared, A, grad, left, eta, steps):
    """Improve each ``A_i`` by conjugate gradients; as `solve_rows` otherwise."""
    systems = ptr, idx, val, weight, B, offset, ridge, lam_bias, shared
    return _solved(systems, A, grad, left, eta, steps)


def _solved(systems, A, grad, left, eta, steps):
    ptr, _, _, weight, B, offset, _, lam_bias, shared = systems
    be = get_backend("cupy")
    xp, (m, k) = be.xp, A.shape
    mean = xp.square(B).mean(axis=0, dtype=np.float64)
    w = weight.mean(dtype=np.float64) if weight.size else 1.0
    longest, level = be.host((ptr[1:] - ptr[:-1]).max(), w * mean.mean())
    kind = np.dtype(np.float64) if k > _WIDE or longest > _LONG else A.dtype
    # Unknowns come in tiles of four.
    width = -(-k // 4) * 4
    vectors = (_VECTORS * width + _TILE) * kind.itemsize
    tile = min(max((_SHARED - vectors) // (width * kind.itemsize), 1), _TILE)
    if vectors + (tile + width) * width * kind.itemsize > _SHARED:
        # Half the room for entries, lest there be none for the matrix.
        tile = max(tile // 2, 1)
    small = vectors + tile * width * kind.itemsize
    fits = small <= _SHARED
    gram_fits = small + width * width * kind.itemsize <= _SHARED
    numbers = width * width + _VECTORS * width + _TILE + tile * width
    grid = max(min(m, _ROWS, 65535 if gram_fits else _ROOM // (numbers * kind.itemsize)), 1)
    room = xp.empty(1 if gram_fits else grid * numbers, kind)
    squares, counts = xp.zeros(m), xp.zeros(m, np.int64)
    flags = weight.size > 0, offset.size > 0, shared.size > 0, fits, gram_fits
    numbers_of = np.float64(level), np.float64(eta), int(steps)
    args = *systems[:7], float(lam_bias), shared, A, grad, left, mean, *numbers_of, *flags
    bytes_ = (small if fits else 0) + (width * width * kind.itemsize if gram_fits else 0)
    _cuda.launch(
        "solve_rows",
        (A.dtype, kind),
        grid,
        _WARP if k <= _NARROW else _BLOCK,
        (*args, room, tile, squares, counts, m, k),
        shared=bytes_,
    )
    square, taken = be.host(squares.sum(), counts.sum())
    return square, int(taken)
