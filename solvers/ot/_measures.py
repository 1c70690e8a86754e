"""The measures of a barycentre problem: the caller's data, and what remains of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import check_array, describe
from ._cloud import Cloud, PointCloud, arrays_of, checked_cloud
from ._problem import MASS_SLACK, Extent, Transport


@dataclass(frozen=True)
class Measures:
    """Checked measures of mass one.

    Attributes
    ----------
    be : Backend
    device : context manager
    B : array, shape (K, m), float64
    costs : list
        One for each measure.
    weights : numpy.ndarray, shape (K,)
    mass : float
        Of the caller's measures.
    everything : Transport
        All costs on top of each other; of its weights nothing is meant.
    used : list of (int, array or None)
        Measures of positive weight, by number, and where they have mass (None: everywhere).
    """

    be: Any
    device: Any
    B: Any
    costs: list
    weights: Any
    mass: float
    everything: Transport
    used: list

    @cached_property
    def parts(self):
        """Transport problems of those used, where they have mass; row weights mean nothing yet."""
        xp, parts = self.be.xp, []
        for k, kept in self.used:
            b, cost = self.B[k], self.costs[k]
            if kept is not None:
                b = b[kept]
                if isinstance(cost, Cloud):
                    cost = cost.part(None, kept)
                else:
                    cost = xp.ascontiguousarray(cost[:, kept])
            a = xp.full(cost.shape[0], 1.0 / cost.shape[0])
            parts.append(Transport(self.be, self.device, a, b, cost, 1.0, False))
        return parts

    @property
    def cut_off(self):
        """Whether a point of some measure has mass and no finite cost."""
        return self.everything.extent.forbidden and any(part.cut_off for part in self.parts)


def check_measures(B, C, weights):
    """Check the data of a barycentre problem; return `Measures` and the door back."""
    if C is None:
        raise TypeError("`C` came as None; expected a cost matrix")
    hint = {"C": "pass a dense array with `inf` for edges that do not exist, or a `PointCloud`"}
    io = Ingest(B=B, weights=weights, **arrays_of(C), sparse_hint=hint)
    if "B" not in io:
        raise TypeError("`B` came as None; expected a matrix with a measure in each row")
    B = check_array(io, "B", ndim=2, minimum=0.0)
    count, m = B.shape
    t = check_array(io, "weights", shape=(count,), means="(B.shape[0],)", minimum=0.0)
    if isinstance(C, PointCloud):
        C = checked_cloud(C, io)
        if C.shape[1] != m:
            raise ValueError(
                f"`B` came with shape {B.shape}; expected a column for each of the {C.shape[1]} "
                "points of `y`"
            )
    else:
        shape = io.raw("C").shape
        if len(shape) == 3:
            legal, means = (count, None, m), "(B.shape[0], n, B.shape[1])"
        else:
            legal, means = (None, m), "(n, B.shape[1])"
        C = check_array(io, "C", ndim=(2, 3), shape=legal, means=means, plus_inf=True)
    with io.device:
        return _measures(io, B.astype(np.float64), C, t), io


def _measures(io, B, C, t):
    xp, be = io.xp, io.be
    masses = be.host(B.sum(axis=1))
    low, high = masses.min(), masses.max()
    if not (low > 0.0 and high < np.inf and high - low <= MASS_SLACK[io.dtype] * high):
        raise ValueError(
            f"`B` has rows with sums from {low:.10g} to {high:.10g}; expected equal, positive sums"
        )
    B = B / B.sum(axis=1, keepdims=True)
    t = np.ones(len(masses)) if t is None else be.host(t.astype(np.float64))
    if not 0.0 < t.sum() < np.inf:
        raise ValueError(f"`weights` sums to {t.sum():g}; expected a positive, finite sum")
    t = t / t.sum()
    costs = list(C) if C.ndim == 3 else [C] * len(t)
    flat = C.reshape(-1, C.shape[-1]) if C.ndim == 3 else C
    rows = xp.full(flat.shape[0], 1.0 / flat.shape[0])
    everything = Transport(be, io.device, rows, B[0], flat, 1.0, False)
    low, high = C.bounds() if isinstance(C, Cloud) else io.bounds["C"]
    if high < np.inf:
        vars(everything)["extent"] = Extent(low, high, False)
    used = []
    for k in map(int, np.flatnonzero(t)):
        kept = xp.flatnonzero(B[k] > 0.0)
        used.append((k, None if kept.size == B.shape[1] else kept))
    return Measures(be, io.device, B, costs, t, float(masses.mean()), everything, used)


def check_start(data, reg, x0, C):
    """Return logarithms of a barycentre and column potentials to start from, or None.

    The potentials are those of the measures used, where they have mass, one after the other, and
    relative to the measures.
    """
    if x0 is None:
        return None
    try:
        x, g = (x0.x, x0.g) if hasattr(x0, "g") else x0
    except (TypeError, ValueError):
        raise TypeError(f"`x0` came as {describe(x0)}; expected a result or (x, g)") from None
    x, g = (Ingest(**arrays_of(C), x0=v) for v in (x, g))
    n = data.costs[0].shape[0]
    x = check_array(x, "x0", shape=(n,), means="(n,)", minimum=0.0)
    g = check_array(g, "x0", shape=data.B.shape, means="B.shape", finite=False)
    xp, host = data.be.xp, data.be.host
    x, g = x.astype(np.float64), g.astype(np.float64)
    if not host(x.sum() > 0.0) or not host(xp.isfinite(g[data.B > 0.0]).all()):
        raise ValueError("`x0` came with NaN, infinity or zeros only; expected numbers")
    with np.errstate(divide="ignore", invalid="ignore"):
        log_x = xp.log(x / x.sum())
        h = [
            (g[k] - reg * xp.log(data.B[k]))[slice(None) if kept is None else kept]
            for k, kept in data.used
        ]
    return log_x, xp.concatenate(h)
