"""Warm starts: weights from an earlier result, or from elsewhere, as blocks over these gates."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.arrays import Ingest, to_numpy
from .._core.validation import check_array, describe
from ._problem import ours
from ._result import ReLUResult


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes
    ----------
    U : array, shape (c, 2, P, d)
        Blocks.
    z : array, shape (c, n), or None
        A dual point, where an earlier result has one.
    """

    U: Any
    z: Any


def check_start(x0, io, gates, shape):
    """Return a start as blocks of `shape` = (c, 2, P, d), or None."""
    if x0 is None:
        return None
    if isinstance(x0, ReLUResult):
        return _from_result(x0, io, gates, shape)
    if not (isinstance(x0, tuple | list) and len(x0) == 2):
        raise TypeError(f"`x0` came as {describe(x0)}; expected a result or weights (V, W)")
    return Start(_blocks(x0, io, shape), None)


def _from_result(x0, io, gates, shape):
    n = gates.n
    if x0.gates.n != n:
        raise ValueError(
            f"`x0` came with gates of {x0.gates.n} samples; expected those of `X`: {n}"
        )
    old = _blocks((x0.V, x0.W), io, (*shape[:2], len(x0.gates), shape[3]))
    here, there = _common(gates, x0.gates)
    if not here:
        raise ValueError(
            "`x0` came with weights of other gates; expected some gates of this call among them: "
            "pass gates=x0.gates"
        )
    U = io.xp.zeros(shape, dtype=io.dtype)
    U[:, :, here] = old[:, :, there]
    # It was handed out in the unit of the caller's loss.
    z = np.atleast_2d(to_numpy(x0.z).astype(np.float64))
    return Start(U, z if z.shape == (shape[0], n) else None)


def _blocks(weights, io, shape):
    """Return V and W as blocks, where the data are."""
    given = Ingest(dtype=io.dtype, **dict(zip("VW", weights, strict=True)))
    c, _, P, d = shape
    try:
        wide = (c, d, P)
        fits = wide if given.raw("V").ndim == 3 or c > 1 else wide[1:]
        V, W = (check_array(given, name, shape=fits) for name in "VW")
    except ValueError as error:
        raise ValueError(f"`x0`: {error}") from error
    if given.be is not io.be:
        raise TypeError(
            f"`x0` came as {given.kind} arrays; expected arrays where the data are: {io.kind}"
        )
    return ours(V, W, io.xp)


def _common(gates, others):
    """Return the places of the patterns that two sets share, in both."""
    where = {row.tobytes(): k for k, row in enumerate(others.mask)}
    pairs = [(k, where.get(row.tobytes())) for k, row in enumerate(gates.mask)]
    return [k for k, j in pairs if j is not None], [j for _, j in pairs if j is not None]
