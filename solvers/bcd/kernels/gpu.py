"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays.

`loss` and `penalty` must be of `solvers.losses` and `solvers.penalties`: the rules that a user
registers are Python.
"""

import numpy as np

from ... import losses, penalties
from ..._core.backend import CudaSource, blocks, get_backend
from ..._core.rules import compiled_class

_cuda = CudaSource(__file__)
_BLOCK = 256
# Blocks that share a sum: enough to fill a device.
_PARTS = 1024
_LOSSES = (losses.Squared, losses.Logistic, losses.Huber, losses.SquaredHinge, losses.Poisson)
_PENALTIES = (penalties.ElasticBox, penalties.MCP, penalties.SCAD, penalties.Lq)


def loss_sum(loss, y, z, s):
    """Return the weighted sum of losses."""
    return _total("loss_sum", _of_loss(loss, z), (*_number(loss), y, z, s), y.size)


def loss_change(loss, y, z, dz, t, s):
    """Return by how much a step ``t dz`` changes the weighted sum of losses."""
    args = (*_number(loss), y, z, dz, np.float64(t), s)
    return _total("loss_change", _of_loss(loss, z), args, y.size)


def loss_slopes(loss, y, z, s, out):
    """Set `out` to the weighted first derivatives."""
    _each("loss_slopes", _of_loss(loss, z), (*_number(loss), y, z, s, out), y.size)


def loss_curvatures(loss, y, z, s, out):
    """Set `out` to the weighted second derivatives."""
    _each("loss_curvatures", _of_loss(loss, z), (*_number(loss), y, z, s, out), y.size)


def softmax_sum(y, z, s):
    """Return the weighted sum of ``log(sum_k exp(z_k)) - z_y``."""
    n, C = z.shape
    return _total("softmax_sum", z.dtype, (y, _rows(z), s), 32 * n, (n, C))


def softmax_slopes(y, z, s, out):
    """Set `out` to the weighted derivatives: probabilities less the class."""
    n, C = z.shape
    rows = _rows(out)
    _each("softmax_slopes", z.dtype, (y, _rows(z), s, rows), 32 * n, (n, C))
    if rows is not out:
        out[...] = rows


def penalty_sum(penalty, w):
    """Return the sum of a penalty over coefficients."""
    return _total("penalty_sum", _of_penalty(penalty, w), (*_fields(penalty), w), w.size)


def prox_all(penalty, v, steps, out):
    """Set `out` to the proximal points of v, each with its own step."""
    args = (*_fields(penalty), v, _double(steps), out)
    _each("prox_all", _of_penalty(penalty, v), args, v.size)


def distances(penalty, w, g, out):
    """Set `out` to the distances of -g from the subdifferential: the GS-s score."""
    _each("distances", _of_penalty(penalty, w), (*_fields(penalty), w, g, out), w.size)


def prox_steps(penalty, w, g, L, out):
    """Set `out` to the proximal steps ``prox(w - g / L) - w``; 0 where L is 0."""
    args = (*_fields(penalty), w, g, _double(L), out)
    _each("prox_steps", _of_penalty(penalty, w), args, w.size)


def prox_scores(penalty, w, g, L, out):
    """Set `out` to what a proximal step of one coefficient gains at least: the GS-q score."""
    args = (*_fields(penalty), w, g, _double(L), out)
    _each("prox_scores", _of_penalty(penalty, w), args, w.size)


def _each(name, types, args, threads, sizes=None):
    sizes = (threads,) if sizes is None else sizes
    _cuda.launch(name, types, blocks(threads, _BLOCK), _BLOCK, (*args, *sizes))


def _total(name, types, args, threads, sizes=None):
    be = get_backend("cupy")
    grid = min(blocks(threads, _BLOCK), _PARTS)
    part = be.xp.empty(grid, np.float64)
    sizes = (threads,) if sizes is None else sizes
    _cuda.launch(name, types, grid, _BLOCK, (*args, part, *sizes))
    return be.host(part.sum())


def _of_loss(loss, z):
    return z.dtype, _known(loss, _LOSSES)


def _of_penalty(penalty, w):
    return w.dtype, f"{_known(penalty, _PENALTIES)}<T>"


def _known(rule, classes):
    """Return the name of a CUDA struct; a user's class of that name is another one."""
    for cls in classes:
        if type(rule) is compiled_class(cls):
            return cls.__name__
    name, names = type(rule).__name__.partition("__")[0], ", ".join(c.__name__ for c in classes)
    raise TypeError(
        f"`{name}` has no CUDA rules; expected one of {names} for data on a GPU, or data in host "
        "memory"
    )


def _number(loss):
    """Return the one number of a loss; a placeholder where it has none."""
    return (*map(float, loss), 0.0)[:1]


def _fields(penalty):
    """Return four arrays: the fields, and the last of them again."""
    return (*penalty, *(penalty[-1],) * 3)[:4]


def _double(x):
    return x.astype(np.float64, copy=False)


def _rows(z):
    return get_backend("cupy").xp.ascontiguousarray(z)
