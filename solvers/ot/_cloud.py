"""Costs between points, evaluated block by block and never stored."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import check_array, check_choice, check_positive, describe

COSTS = ("sqeuclidean", "euclidean", "cityblock", "cosine")


class PointCloud:
    r"""Costs between two clouds of points, for use wherever a cost matrix may stand.

    No matrix is ever stored: solvers evaluate the costs they need, when they need them.

    Parameters
    ----------
    x : array, shape (n, d)
        Source points.
    y : array, shape (m, d), optional
        Target points. Default: `x`.
    cost : {"sqeuclidean", "euclidean", "cityblock", "cosine"} or callable
        :math:`|x_i - y_j|^2`, :math:`|x_i - y_j|`, :math:`|x_i - y_j|_1`,
        :math:`1 - x_i^\top y_j / (|x_i| |y_j|)`, or a function ``cost(x_rows, y_rows)`` that
        returns the matrix of finite costs between some of the points, given as NumPy (on a GPU:
        CuPy) arrays.
    scale : float, default 1.0
        Positive factor of all costs, which changes their unit.

    Attributes
    ----------
    x, y : array
        The points, as they were passed; they must not change meanwhile.
    shape : tuple of int
        ``(n, m)``, as of the matrix.

    Raises
    ------
    TypeError
        If points are no real numbers, of two kinds or on two devices.
    ValueError
        If shapes disagree, a coordinate is not finite, or `cost` is unknown.

    Examples
    --------
    >>> import numpy as np, solvers
    >>> x = np.linspace(0.0, 1.0, 5)[:, None]
    >>> res = solvers.ot.sinkhorn_newton(None, None, solvers.ot.PointCloud(x, x + 1), reg=0.01)
    >>> round(res.lp_bracket()[0], 6)
    1.0
    """

    def __init__(self, x, y=None, *, cost="sqeuclidean", scale=1.0):
        if not callable(cost):
            if not isinstance(cost, str):
                raise TypeError(f"`cost` came as {describe(cost)}; expected a word or a function")
            check_choice(cost, "cost", COSTS)
        self.x, self.y = x, x if y is None else y
        self.cost, self.scale = cost, check_positive(scale, "scale")
        cloud = checked_cloud(self, Ingest(x=self.x, y=self.y))
        self.shape = cloud.shape

    def __repr__(self):
        cost = self.cost if isinstance(self.cost, str) else "callable"
        return f"PointCloud(shape={self.shape}, cost={cost!r}, scale={self.scale:g})"


@dataclass(frozen=True)
class Cloud:
    """A checked `PointCloud`, which behaves like a read-only matrix of costs.

    Attributes
    ----------
    be : Backend
    x, y : array, float64
        Points after what their cost asks for: moved to a common centre, against cancellation, and
        for "cosine" made unit vectors.
    cost : str or callable
    scale : float
    """

    be: Any
    x: Any
    y: Any
    cost: Any
    scale: float

    ndim = 2
    dtype = np.dtype(np.float64)

    @property
    def shape(self):
        """As of the matrix."""
        return self.x.shape[0], self.y.shape[0]

    @property
    def size(self):
        """Number of costs."""
        return self.x.shape[0] * self.y.shape[0]

    @property
    def T(self):  # noqa: N802 (as of a matrix)
        """The transposed costs."""
        cost = self.cost
        if callable(cost):
            return replace(self, x=self.y, y=self.x, cost=lambda x, y: cost(y, x).T)
        return replace(self, x=self.y, y=self.x)

    def part(self, rows, cols):
        """Return the costs between some of the points; None stands for all of them."""
        x = self.x if rows is None else self.x[rows]
        return replace(self, x=x, y=self.y if cols is None else self.y[cols])

    def __getitem__(self, rows):
        """Return the dense costs of some rows, a slice or an array of indices."""
        xp, x, y = self.be.xp, self.x[rows], self.y
        if callable(self.cost):
            return self.scale * self._called(x, y)
        total = xp.zeros((x.shape[0], y.shape[0]))
        for k in range(x.shape[1]):
            step = xp.subtract(x[:, k, None], y[:, k])
            if self.cost == "cityblock":
                total += xp.abs(step, out=step)
            else:
                step *= step
                total += step
        if self.cost == "euclidean":
            xp.sqrt(total, out=total)
        total *= 0.5 * self.scale if self.cost == "cosine" else self.scale
        return total

    def min(self, axis):
        """Return the smallest cost of each column (`axis` 0) or row (1)."""
        C = self.T if axis == 0 else self
        step = max(1, (1 << 18) // C.shape[1])
        blocks = (C[start : start + step] for start in range(0, C.shape[0], step))
        return self.be.xp.concatenate([block.min(axis=1) for block in blocks])

    def bounds(self):
        """Return two numbers between which all costs lie."""
        if callable(self.cost):
            C, ends = self, []
            for start in range(self.shape[0]):
                block = C[start : start + 1]
                ends.append(self.be.xp.stack([block.min(), block.max()]))
            ends = self.be.xp.stack(ends)
            return self.be.host(ends[:, 0].min(), ends[:, 1].max())
        xp, x, y = self.be.xp, self.x, self.y
        reach = xp.maximum(x.max(axis=0) - y.min(axis=0), y.max(axis=0) - x.min(axis=0))
        box = type(self)(self.be, reach[None], 0.0 * reach[None], self.cost, self.scale)
        # A little more, because the costs themselves are rounded.
        return 0.0, (1.0 + 1e-12) * self.be.host(box[:][0, 0])

    def _called(self, x, y):
        block = self.cost(x, y)
        shape = x.shape[0], y.shape[0]
        if getattr(block, "shape", None) != shape:
            raise ValueError(f"`cost` returned {describe(block)}; expected shape {shape}")
        block = self.be.xp.asarray(block, np.float64)
        if not self.be.host(self.be.xp.isfinite(block).all()):
            raise ValueError("`cost` returned NaN or infinity; expected finite costs")
        return block


def arrays_of(C):
    """Return the arrays behind a cost, by the names they have in messages."""
    return {"x": C.x, "y": C.y} if isinstance(C, PointCloud) else {"C": C}


def checked_cloud(cloud, io):
    """Return the `Cloud` of a `PointCloud` whose points `io` holds as "x" and "y"."""
    x = check_array(io, "x", ndim=2)
    y = check_array(io, "y", shape=(None, x.shape[1]), means="(m, x.shape[1])")
    xp = io.xp
    with io.device:
        x, y = x.astype(np.float64), y.astype(np.float64)
        if cloud.cost == "cosine":
            x, y = _unit(io, "x", x), _unit(io, "y", y)
        if not callable(cloud.cost):
            centre = 0.5 * (x.mean(axis=0) + y.mean(axis=0))
            x, y = x - centre, y - centre
        return Cloud(
            io.be, xp.ascontiguousarray(x), xp.ascontiguousarray(y), cloud.cost, cloud.scale
        )


def _unit(io, name, x):
    length = io.xp.sqrt((x * x).sum(axis=1, keepdims=True))
    if not io.be.host((length > 0).all()):
        raise ValueError(f"`{name}` contains a zero vector; expected a direction for 'cosine'")
    return x / length
