"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

import numpy as np

from ...._core.backend import CudaSource, get_backend

_cuda = CudaSource(__file__)
# Threads in a block; unknowns that a block of the Hessian has.
_THREADS, _SUBSPACE = 256, 32
# Most bytes that the rows in work may take, and most of these.
_ROOM, _ROWS = 1 << 30, 1024


def sketch_rows(systems, A, grad, left, state, eta, s, most, unit, seed):
    """Improve each ``A_i`` by least squares that a random sketch of its system preconditions."""
    k = A.shape[1]
    args = A, grad, left, state, eta, s, most, unit, np.uint64(seed)
    return _launch("sketch_rows", systems, args, k * (s + k), 2 * k)


def subspace_rows(systems, A, grad, left, state, eta, most):
    """Improve each ``A_i`` by minimising over some of its unknowns at a time, all in turn."""
    args = A, grad, left, state, eta, most
    return _launch("subspace_rows", systems, args, A.shape[1] * _SUBSPACE, _SUBSPACE)


def _launch(name, systems, args, matrices, vectors):
    """Run a kernel with so many numbers for a row's matrices, and for its vectors."""
    ptr, _, _, weight, _, offset, _, lam_bias, shared = systems
    be = get_backend("cupy")
    A, xp = args[0], be.xp
    (m, k), size = A.shape, A.dtype.itemsize
    longest = int(be.host((ptr[1:] - ptr[:-1]).max()))
    numbers = matrices + longest
    grid = max(min(m, _ROWS, _ROOM // (numbers * size)), 1)
    squares, counts = xp.zeros(m), xp.zeros(m, np.int64)
    flags = weight.size > 0, offset.size > 0, shared.size > 0
    room = xp.empty(grid * numbers, A.dtype)
    args = *systems[:7], float(lam_bias), shared, *args, *flags, room, longest, squares, counts
    _cuda.launch(name, A.dtype, grid, _THREADS, (*args, m, k), shared=vectors * size)
    square, steps = be.host(squares.sum(), counts.sum())
    return square, int(steps)
