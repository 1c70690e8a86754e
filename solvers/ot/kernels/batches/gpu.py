"""Launcher of the CUDA twin of `cpu.py`: the same function, for CuPy arrays."""

import numpy as np

from ...._core.backend import CudaSource, get_backend

_cuda = CudaSource(__file__)
# Blocks that work at a time: enough for any device, but not a strip of memory for each of many
# problems; and the numbers in all strips above which no more than a block for each of the
# multiprocessors of a large device is granted.
_MOST_BLOCKS, _ROOM, _MULTIPROCESSORS = 4096, 1 << 25, 148
# Vectors over the columns and over the rows that a block needs beside its kernel.
_COLUMNS, _ROWS = 14, 4


def balance(C, a, b, sizes, reg, h, tol, active, options, damping, f, log_v, error, left, counts):
    """Make rows exact for column potentials `h`, and say how far to move these.

    One launch, a block for each problem; the arguments are those of `cpu.py`.
    """
    xp, (patience, n_sinkhorn, tol_inner, maxiter_inner) = get_backend("cupy").xp, options
    count, (n, m) = a.shape[0], C.shape[1:]
    stride = n * m + _COLUMNS * m + _ROWS * n
    blocks = min(count, _MOST_BLOCKS, max(_ROOM // stride, _MULTIPROCESSORS))
    room, peaks = xp.empty((blocks, stride)), xp.empty((blocks, n), np.int64)
    options = patience, n_sinkhorn, np.float64(tol_inner), maxiter_inner
    args = C, C.shape[0], a, b, sizes, reg, h, tol, active, *options
    args = *args, damping, f, log_v, error, left, counts, room, stride, peaks, count, n, m
    # A thread for each column: of small blocks more fit on the device at a time.
    threads = min(max(64, 32 * -(-m // 32)), 256)
    _cuda.launch("balance", C.dtype, blocks, threads, args)
