"""Costs between points, evaluated block by block and never stored."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import check_array, check_choice, check_positive, describe

COSTS = ("sqeuclidean", "euclidean", "cityblock", "cosine")
# What kernels make of coordinates: sums of squares, their roots, sums of absolute values.
KINDS = {"sqeuclidean": 0, "cosine": 0, "euclidean": 1, "cityblock": 2}
# Up to this many coordinates they take differences themselves.
FEW = 4
# Costs that stay in a core's cache while they are added up.
TILE = 1 << 14


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

    Notes
    -----
    In up to four coordinates a pass costs about a nanosecond and a half for each pair of points
    and core, and less where `reg` is so small that boxes of points have nothing to do with each
    other; with more, it costs a matrix product. `sinkhorn_newton` stores a plan as it does for a
    matrix while it is small. For larger clouds it first solves the problem between a few thousand
    nodes, and lets their plan tell how to correct what passes over the points find wrong: about
    five of them in up to three coordinates, and more in many coordinates or where `cost` is a
    function. Memory then stays below a gigabyte for 100 000 points on both sides.

    The default `reg` follows from means and covariances for squared distances and cosines, and
    takes a pass for the others.

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
    def dim(self):
        """Number of coordinates."""
        return self.x.shape[1]

    @property
    def factor(self):
        """What squared differences, distances or sums of differences are multiplied with."""
        # 1 - cos is half the squared distance of unit vectors.
        return 0.5 * self.scale if self.cost == "cosine" else self.scale

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

    @cached_property
    def packed(self):
        """For kernels: kind of cost, points (n, 4), points (4, m) and factor; None if too wide."""
        if callable(self.cost) or self.dim > FEW:
            return None
        xp, (n, m) = self.be.xp, self.shape
        X, Y = xp.zeros((n, FEW)), xp.zeros((FEW, m))
        X[:, : self.dim], Y[: self.dim] = self.x, self.y.T
        return KINDS[self.cost], X, Y, self.factor

    def row_blocks(self, parallel=False):
        """Yield slices of rows whose costs fit the cache, or keep several threads busy."""
        entries = 1 << 24 if self.be.name != "numpy" else 1 << 22 if parallel else 1 << 18
        step = max(1, entries // self.shape[1])
        for first in range(0, self.shape[0], step):
            yield slice(first, min(first + step, self.shape[0]))

    def orders(self):
        """Return orders of rows and columns with neighbours together; None where any will do."""
        if self.packed is None:
            return None, None
        return _along_curve(self.be.xp, self.x), _along_curve(self.be.xp, self.y)

    def __getitem__(self, rows):
        """Return the dense costs of some rows, a slice or an array of indices."""
        xp, x = self.be.xp, self.x[rows]
        if callable(self.cost):
            return self.scale * self._called(x, self.y)
        if self.dim > FEW and self.cost != "cityblock":
            total = self._squares_by_products(x)
        else:
            total = self._sums_of_differences(x)
        if self.cost == "euclidean":
            xp.sqrt(total, out=total)
        total *= self.factor
        return total

    @cached_property
    def columns(self):
        """The coordinates of `y`, one after the other."""
        return self.be.xp.ascontiguousarray(self.y.T)

    def _sums_of_differences(self, x):
        xp, m = self.be.xp, self.y.shape[0]
        total = xp.zeros((x.shape[0], m))
        # In pieces that stay in the cache through all coordinates.
        step = max(1, TILE // x.shape[0]) if self.be.name == "numpy" else m
        for first in range(0, m, step):
            piece, gap = total[:, first : first + step], None
            for xk, yk in zip(x.T, self.columns, strict=True):
                gap = xp.subtract(xk[:, None], yk[first : first + step], out=gap)
                if self.cost == "cityblock":
                    piece += xp.abs(gap, out=gap)
                else:
                    piece += xp.square(gap, out=gap)
        return total

    def _squares_by_products(self, x):
        """Return squared distances from one matrix product, and those of close points anew."""
        xp, y = self.be.xp, self.y
        total = x @ self.columns
        total *= -2.0
        size = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)
        total += size
        # What cancellation has left of them has too few digits for a square root.
        row, col = xp.nonzero(total < 1e-6 * size)
        step = max(1, (1 << 22) // self.dim)
        for first in range(0, row.size, step):
            i, j = row[first : first + step], col[first : first + step]
            total[i, j] = xp.square(x[i] - y[j]).sum(axis=1)
        return total

    def min(self, axis):
        """Return the smallest cost of each column (`axis` 0) or row (1)."""
        C = self.T if axis == 0 else self
        if self.be.name == "numpy" and self.packed is not None:
            return _nearest(C)
        return self.be.xp.concatenate([C[rows].min(axis=1) for rows in C.row_blocks()])

    def bounds(self):
        """Return two numbers between which all costs lie."""
        if callable(self.cost):
            host = self.be.host
            ends = [host(C.min(), C.max()) for C in (self[rows] for rows in self.row_blocks())]
            return min(low for low, _ in ends), max(high for _, high in ends)
        xp, x, y = self.be.xp, self.x, self.y
        reach = xp.maximum(x.max(axis=0) - y.min(axis=0), y.max(axis=0) - x.min(axis=0))
        box = type(self)(self.be, reach[None], 0.0 * reach[None], self.cost, self.scale)
        # A little more, because the costs themselves are rounded.
        return 0.0, (1.0 + 1e-12) * self.be.host(box[:][0, 0])

    def moments(self):
        """Return mean and population standard deviation of all costs, if there is a formula."""
        if self.cost not in ("sqeuclidean", "cosine"):
            return None
        centre = self.y.mean(axis=0)
        # With y centred, <x, y> has mean 0 and no correlation with |x|^2.
        x, y = self.x - centre, self.y - centre
        x2, y2 = (x * x).sum(axis=1), (y * y).sum(axis=1)
        products = ((x.T @ x) * (y.T @ y)).sum() / self.size
        skew = x.mean(axis=0) @ (y2 @ y) / y.shape[0]
        variance = x2.var() + y2.var() + 4.0 * products - 4.0 * skew
        mean, variance = self.be.host(x2.mean() + y2.mean(), variance)
        return self.factor * mean, self.factor * float(np.sqrt(max(variance, 0.0)))

    def _called(self, x, y):
        block = self.cost(x, y)
        shape = x.shape[0], y.shape[0]
        if getattr(block, "shape", None) != shape:
            raise ValueError(f"`cost` returned {describe(block)}; expected shape {shape}")
        block = self.be.xp.asarray(block, np.float64)
        if not self.be.host(self.be.xp.isfinite(block).all()):
            raise ValueError("`cost` returned NaN or infinity; expected finite costs")
        return block


def _along_curve(xp, points):
    """Return the order of points along a space-filling curve (Morton's)."""
    low = points.min(axis=0)
    width = xp.maximum(points.max(axis=0) - low, np.finfo(np.float64).tiny)
    bits = 15
    cells = xp.minimum((points - low) / width.max() * 2**bits, 2**bits - 1).astype(np.int64)
    code = xp.zeros(points.shape[0], np.int64)
    for bit in range(bits - 1, -1, -1):
        for column in cells.T:
            code = 2 * code + column // 2**bit % 2
    return xp.argsort(code)


def _nearest(C):
    """Return the smallest cost of each row, by a tree."""
    from scipy.spatial import KDTree

    distance, _ = KDTree(C.y).query(C.x, p=1 if C.cost == "cityblock" else 2)
    if C.cost in ("sqeuclidean", "cosine"):
        distance *= distance
    return C.factor * distance


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
