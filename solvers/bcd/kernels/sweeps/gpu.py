"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

import numpy as np

from ...._core.backend import CudaSource, blocks, get_backend
from ..gpu import _double, _fields, _number, _of_loss, _of_penalty, _rows

_cuda = CudaSource(__file__)
_BLOCK = 256
# Blocks that share a sum: enough to fill a device.
_PARTS = 1024


def loss_change(loss, y, z, dz, t, s):
    """Return the change of the weighted sum of losses when predictions move by ``t dz``."""
    args = (*_number(loss), y, z, dz, np.float64(t), s)
    return _total("loss_change", _of_loss(loss, z), args, y.size, (y.size,))


def softmax_change(y, z, dz, t, s):
    """Return what `loss_change` does for ``log(sum_k exp(z_k)) - z_y``."""
    n, C = z.shape
    args = y, _rows(z), _rows(dz), np.float64(t), s
    return _total("softmax_change", z.dtype, args, 32 * n, (n, C))


def add_rows(indptr, indices, data, rows, d, g):
    """Add the sum of rows of a matrix in compressed rows, times `d`, to g."""
    types = data.dtype, _index(indices)
    args = indptr, indices, data, rows, d, g, rows.size
    _cuda.launch("add_rows", types, blocks(32 * rows.size, _BLOCK), _BLOCK, args)


def block_sweeps(penalty, H, g, x, sweeps, tol):
    """Minimise ``g d + d H d / 2 + penalty(x + d)`` over the unknowns of a block, in turn."""
    args = (*_fields(penalty), _rows(H), g, x, sweeps, np.float64(tol))
    return _alone("block_sweeps", _of_penalty(penalty, x), args, (x.size,))


def sweep_columns(loss, penalty, X, y, s, mean, L, order, w, c, z, r):
    """Minimise over one coefficient after the other, in the given order."""
    args = (*_number(loss), *_fields(penalty), X, y, s, mean, _double(L), order, w, c, z, r)
    types = (*_of_loss(loss, z), _of_penalty(penalty, w)[1])
    return _alone("sweep_columns", types, args, (order.size, y.size))


def sweep_entries(loss, penalty, indptr, indices, data, y, s, mean, L, order, w, c, z, r):
    """Do what `sweep_columns` does for a design in compressed columns."""
    dtype, name = _of_loss(loss, z)
    matrix = indptr, indices, data
    point = y, s, mean, _double(L), order, w, c, z, r
    types = dtype, _index(indices), name, _of_penalty(penalty, w)[1]
    args = (*_number(loss), *_fields(penalty), *matrix, *point)
    return _alone("sweep_entries", types, args, (order.size, y.size))


def sweep_gram(penalty, A, relax, order, x, g):
    """Minimise a quadratic over one unknown after the other; g is its gradient."""
    args = (*_fields(penalty), _rows(A), np.float64(relax), order, x, g)
    return _alone("sweep_gram", _of_penalty(penalty, x), args, (order.size, x.size))


def sweep_rows(penalty, indptr, indices, data, diagonal, relax, order, x, g):
    """Do what `sweep_gram` does for a matrix in compressed rows."""
    dtype, name = _of_penalty(penalty, x)
    matrix = indptr, indices, data, _double(diagonal), np.float64(relax)
    args = (*_fields(penalty), *matrix, order, x, g)
    return _alone("sweep_rows", (dtype, _index(indices), name), args, (order.size,))


def greedy_steps(penalty, rows, slot, L, rule, steps, x, g):
    """Minimise a quadratic over one unknown at a time, the one that promises most."""
    be = get_backend("cupy")
    out = be.xp.empty(2, np.int64)
    args = (*_fields(penalty), rows, slot, _double(L), rule, steps, x, g, out, x.size)
    _cuda.launch("greedy_steps", _of_penalty(penalty, x), 1, _BLOCK, args)
    return tuple(map(int, be.host(out)))


def hinge_sweep(X, y, square, C, order, count, above, below, x, w, ends):
    """Minimise the dual of a support vector machine over one multiplier after the other."""
    bounds = np.float64(above), np.float64(below)
    args = X, y, square, np.float64(C), order, int(count), *bounds, x, w, ends
    return int(_alone("hinge_sweep", (x.dtype,), args, (w.size,), np.int64))


def hinge_sweep_rows(indptr, indices, data, y, square, C, order, count, above, below, x, w, ends):
    """Do what `hinge_sweep` does for samples in compressed rows."""
    bounds = np.float64(above), np.float64(below)
    matrix = indptr, indices, data, y, square, np.float64(C)
    args = *matrix, order, int(count), *bounds, x, w, ends
    types = x.dtype, _index(indices)
    return int(_alone("hinge_sweep_rows", types, args, (), np.int64))


def _alone(name, types, args, sizes, dtype=np.float64):
    """Launch one block, whose steps depend on each other; return the number it leaves."""
    be = get_backend("cupy")
    out = be.xp.empty((), dtype)
    _cuda.launch(name, types, 1, _BLOCK, (*args, out, *sizes))
    return be.host(out)


def _total(name, types, args, threads, sizes):
    be = get_backend("cupy")
    grid = min(blocks(threads, _BLOCK), _PARTS)
    part = be.xp.empty(grid, np.float64)
    _cuda.launch(name, types, grid, _BLOCK, (*args, part, *sizes))
    return be.host(part.sum())


def _index(indices):
    return "int" if indices.dtype.itemsize == 4 else "long long"
