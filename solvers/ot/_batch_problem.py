"""A batch of transport problems: the caller's data, and what remains of them for the solver."""

from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from .._core.arrays import Ingest, to_numpy
from .._core.linalg import logsumexp
from .._core.validation import check_array, check_choice, check_memory, check_positive
from ._cloud import PointCloud, arrays_of, checked_cloud
from ._gibbs import SMALL
from ._problem import _SPARSE_HINT, MASS_SLACK, Transport, _pair

# Entries of a few problems that are looked at together: they stay in the cache, or fill a GPU.
_BLOCK = {"numpy": 1 << 16, "cupy": 1 << 24}
# Rows and columns of each cost that its spread is judged from.
_SAMPLE = 12


@dataclass(frozen=True)
class Batch:
    """Checked problems of mass one.

    Attributes
    ----------
    be : Backend
    device : context manager
        Makes the arrays' device the current one.
    a, b : array, float64, shapes (B, n) and (B, m)
        Weights, each row with sum one.
    C : array, shape (B, n, m) or (1, n, m)
        Costs in the caller's precision; never written to.
    mass : array, shape (B,)
        Sums of the caller's weights.
    """

    be: Any
    device: Any
    a: Any
    b: Any
    C: Any
    mass: Any

    @property
    def count(self):
        """How many problems there are."""
        return self.a.shape[0]

    @property
    def size(self):
        """Entries of one cost."""
        return self.C[0].size

    @property
    def large(self):
        """Whether a problem is worth all threads, and more than a dense kernel in the cache."""
        return self.size > SMALL

    @property
    def kernels(self):
        """The kernels for these arrays."""
        return self.be.kernels("solvers.ot", "batches")

    @cached_property
    def spread(self):
        """Range of each cost, blind to a few costs that are far away from all others."""
        xp = self.be.xp
        _, n, m = self.C.shape
        sample = self.C[:, :: n // _SAMPLE + 1, :: m // _SAMPLE + 1]
        sample = xp.sort(sample.reshape(sample.shape[0], -1), axis=1).astype(np.float64)
        found = xp.isfinite(sample).sum(axis=1)
        edge = found // 100
        which = xp.arange(sample.shape[0])
        low, high = sample[which, edge], sample[which, xp.maximum(found - 1 - edge, 0)]
        spread = xp.where(found > 0, high - low, 0.0)
        if self.be.host((spread == 0).any()):
            # What the sample shows as constant need not be.
            spread = xp.where(spread == 0, 4.0 * self.moments[1], spread)
        return spread + xp.zeros(self.count)

    @cached_property
    def moments(self):
        """Means, standard deviations and largest absolute values of the finite costs."""
        xp, parts = self.be.xp, []
        for problems in self.blocks(self.C.shape[0]):
            C = self.C[problems].astype(np.float64)
            finite = xp.isfinite(C)
            count = xp.maximum(finite.sum(axis=(1, 2)), 1)
            C = xp.where(finite, C, 0.0)
            mean = C.sum(axis=(1, 2)) / count
            top = xp.abs(C).max(axis=(1, 2))
            C -= mean[:, None, None]
            variance = xp.square(xp.where(finite, C, 0.0)).sum(axis=(1, 2)) / count
            parts.append(xp.stack([mean, xp.sqrt(variance), top]))
        return xp.concatenate(parts, axis=1) + xp.zeros(self.count)

    def blocks(self, count=None):
        """Yield slices of problems, of moderate size altogether."""
        step = max(1, _BLOCK[self.be.name] // self.size)
        count = self.count if count is None else count
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))

    def costs(self, problems):
        """Return the costs of a slice of problems, one for each or one for all."""
        return self.C[problems] if self.C.shape[0] > 1 else self.C

    def one(self, k):
        """Return a problem of the batch on its own."""
        C = self.C[k if self.C.shape[0] > 1 else 0]
        mass = self.be.host(self.mass[k])
        return Transport(self.be, self.device, self.a[k], self.b[k], C, mass, False)

    def row_softmin(self, g, weights, reg):
        """Return the row potentials that make all row sums exact; 0 where no edge leads on."""
        return self._softmin(g[:, None, :], weights[:, None, :], reg, axis=2)

    def column_softmin(self, f, weights, reg):
        """Return the column potentials that make all column sums exact, likewise."""
        return self._softmin(f[:, :, None], weights[:, :, None], reg, axis=1)

    def _softmin(self, potential, weights, reg, axis):
        xp, parts = self.be.xp, []
        for problems in self.blocks():
            scale = reg[problems, None, None]
            with np.errstate(divide="ignore"):
                z = (potential[problems] - self.costs(problems)) / scale
                z += xp.log(weights[problems])
            parts.append(-scale[:, :, 0] * logsumexp(z, be=self.be, axis=axis))
        out = xp.concatenate(parts)
        return xp.where(xp.isfinite(out), out, 0.0)


class Part:
    """The problems without their lightest points, which come last and are not counted.

    Parameters
    ----------
    problem : Batch
    negligible : float
        Mass of the points of either side that may be left out.

    Attributes
    ----------
    a, b, C : array
        As in the batch, with the points that count first where not all do.
    sizes : array of int, shape (B, 2)
        How many rows and columns count.
    """

    def __init__(self, problem, negligible):
        be, xp = problem.be, problem.be.xp
        self._problem, self._xp = problem, xp
        self.a, self.b, self.C = problem.a, problem.b, problem.C
        self.sizes = xp.empty((problem.count, 2), np.int64)
        self._which = xp.arange(problem.count)[:, None]
        self._orders = []
        for side, w in enumerate((problem.a, problem.b)):
            order = xp.argsort(w, axis=1)
            light = (xp.cumsum(w[self._which, order], axis=1) <= negligible).sum(axis=1)
            self.sizes[:, side] = w.shape[1] - light
            self._orders.append(order[:, ::-1])
        self._whole = be.host((self.sizes == xp.array(self.C.shape[1:])).all())
        if not self._whole:
            rows, cols = self._orders
            self.a = self._heavy(problem.a[self._which, rows], 0)
            self.b = self._heavy(problem.b[self._which, cols], 1)
            first = self._which[:, :, None] if self.C.shape[0] > 1 else 0
            self.C = self.C[first, rows[:, :, None], cols[:, None, :]]

    def _heavy(self, w, side):
        """Return weights in order with nothing but zeros after those that count."""
        w = self._xp.where(self._xp.arange(w.shape[1]) < self.sizes[:, side, None], w, 0.0)
        return w / w.sum(axis=1, keepdims=True)

    def columns(self, g):
        """Return potentials of the columns in the order of this part."""
        return g.copy() if self._whole else g[self._which, self._orders[1]]

    def potentials(self, f, g, reg):
        """Extend potentials of this part to all points, with ``<a, f> = <b, g>`` each."""
        xp, problem = self._xp, self._problem
        if not self._whole:
            (f, a, _), (g, _, left_out) = (
                self._unsorted(f, self.a, 0),
                self._unsorted(g, self.b, 1),
            )
            # What was left out gets the potentials that make its own marginals exact.
            g = xp.where(left_out, problem.column_softmin(f, a, reg), g)
            f = xp.where(a > 0, f, problem.row_softmin(g, problem.b, reg))
        shift = 0.5 * ((problem.a * f).sum(axis=1) - (problem.b * g).sum(axis=1))
        return f - shift[:, None], g + shift[:, None]

    def _unsorted(self, potential, weights, side):
        """Return potentials and weights in the caller's order, and which points are left out."""
        place = self._xp.argsort(self._orders[side], axis=1)
        left_out = place >= self.sizes[:, side, None]
        potential = self._xp.where(left_out, 0.0, potential[self._which, place])
        return potential, weights[self._which, place], left_out


def is_batch(a, b, C):
    """Tell whether arguments mean a batch: both weights 2-D, or the cost 3-D."""
    return _ndim(C) == 3 or _ndim(a) == _ndim(b) == 2


def _ndim(x):
    if x is None or hasattr(x, "ndim"):
        return getattr(x, "ndim", 0)
    try:
        return np.ndim(x)
    except ValueError:
        # A ragged list, which the checks of the call will name.
        return 0


def check_batch(a, b, C):
    """Check the data of a batch.

    Returns
    -------
    Batch
        The problems in normal form.
    Ingest
        The door back to the caller's kind of array.
    """
    if C is None:
        raise TypeError("`C` came as None; expected a cost matrix, or one for each problem")
    io = Ingest(a=a, b=b, **arrays_of(C), sparse_hint=_SPARSE_HINT)
    weights = [check_array(io, name, ndim=2, minimum=0.0) for name in ("a", "b")]
    C = (_evaluated if isinstance(C, PointCloud) else _matrices)(io, C, weights)
    counts = [len(w) for w in (*weights, C) if w is not None]
    with io.device:
        a, b, mass = _normalised(io, weights, (counts[0], *C.shape[1:]))
    return Batch(io.be, io.device, a, b, C, mass), io


def _matrices(io, _, weights):
    """Return cost matrices, one for each problem or one for all."""
    if io.raw("C").ndim not in (2, 3):
        check_array(io, "C", ndim=(2, 3))
    *count, n, m = io.raw("C").shape
    a, b = weights
    if a is not None:
        count, n = [len(a)], a.shape[1]
    if b is not None:
        check_array(io, "b", shape=(*(count or [None]), None))
        count, m = [len(b)], b.shape[1]
    shape, means = (n, m), "(a.shape[1], b.shape[1])"
    if io.raw("C").ndim == 3:
        shape, means = (*count, n, m), "(problems, a.shape[1], b.shape[1])"
    C = check_array(io, "C", shape=shape, means=means, plus_inf=True)
    return C if C.ndim == 3 else C[None]


def _evaluated(io, cloud, weights):
    """Return the costs of a cloud as a matrix for all problems."""
    cloud = checked_cloud(cloud, io)
    count = len(weights[0])
    for name, points, size in zip("ab", "xy", cloud.shape, strict=True):
        means = f"(problems, len({points}))"
        check_array(io, name, shape=(count, size), means=means)
    remedy = "Solve the problems one by one."
    check_memory(8 * cloud.size, "The cost matrix of a batch", remedy, be=io.be)
    with io.device:
        return cloud[slice(None)][None]


def check_regs(problem, reg, reg_scale):
    """Return the entropic weights in the unit of the costs, shape (B,)."""
    xp = problem.be.xp
    check_choice(reg_scale, "reg_scale", (None, "std", "mean", "max", "median"))
    with problem.device:
        if reg is None:
            if reg_scale is not None:
                raise ValueError(f"`reg_scale` came as {reg_scale!r} without `reg`; expected both")
            _, std, top = problem.moments
            # Where a cost is constant every weight gives the same plan.
            regs = xp.where(std > 0, 0.05 * std, xp.maximum(top, 1.0))
        else:
            regs = xp.asarray(_checked_regs(reg, problem.count))
            if reg_scale is not None:
                regs = regs * _scales(problem, reg_scale)
        low, high = problem.be.host(regs.min(), regs.max())
    if not (low > 0 and high < np.inf):
        raise ValueError(f"`reg` came as {low:g} to {high:g}; expected positive finite numbers")
    return regs


def _checked_regs(reg, count):
    if isinstance(reg, Real):
        return np.full(count, check_positive(reg, "reg"))
    io = Ingest(reg=reg)
    return to_numpy(check_array(io, "reg", shape=(count,), means="(problems,)")).astype(np.float64)


def _scales(problem, name):
    """Return a statistic of the finite costs of each problem."""
    xp = problem.be.xp
    if name == "median":
        return xp.stack([xp.median(C[xp.isfinite(C)]) for C in problem.C]) + xp.zeros(
            problem.count
        )
    if name == "max":
        C = xp.where(xp.isfinite(problem.C), problem.C, -np.inf)
        return C.max(axis=(1, 2)) + xp.zeros(problem.count)
    return problem.moments[["mean", "std"].index(name)]


def check_starts(problem, reg, C, x0, f0, g0):
    """Return the column potentials of a warm start, or None; as `check_start`."""
    names = "f0", "g0"
    if x0 is not None:
        if f0 is not None or g0 is not None:
            raise ValueError("`x0` came together with `f0` or `g0`; expected one or the other")
        names = "x0", "x0"
        f0, g0 = _pair(x0)
    with problem.device:
        # Without a potential there is nothing of that name, and None comes back.
        f, g = (
            check_array(Ingest(**arrays_of(C), **{name: v}), name, shape=w.shape)
            for name, v, w in zip(names, (f0, g0), (problem.a, problem.b), strict=True)
        )
        if g is None and f is not None:
            return problem.column_softmin(f.astype(np.float64), problem.a, reg)
        return None if g is None else g.astype(np.float64)


def _normalised(io, weights, sizes):
    """Return weights with sum one, uniform ones for None, and the masses."""
    be, xp, (count, *lengths) = io.be, io.xp, sizes
    weights = [None if w is None else w.astype(np.float64) for w in weights]
    sums = [None if w is None else w.sum(axis=1) for w in weights]
    known = {name: be.host(s) for name, s in zip("ab", sums, strict=True) if s is not None}
    for name, totals in known.items():
        bad = np.flatnonzero(~((totals > 0) & (totals < np.inf)))
        if bad.size:
            raise ValueError(
                f"`{name}` sums to {totals[bad[0]]:g} in problem {bad[0]}; "
                "expected a positive, finite mass"
            )
    if len(known) == 2:
        low, high = np.minimum(*known.values()), np.maximum(*known.values())
        bad = np.flatnonzero(high - low > MASS_SLACK[io.dtype] * high)
        if bad.size:
            raise ValueError(
                f"`a` sums to {known['a'][bad[0]]:.10g} and `b` to {known['b'][bad[0]]:.10g} in "
                f"problem {bad[0]}; expected equal masses: rescale one of them"
            )
    a, b = (
        xp.full((count, length), 1.0 / length) if w is None else w / total[:, None]
        for w, total, length in zip(weights, sums, lengths, strict=True)
    )
    mass = next((s for s in sums if s is not None), xp.ones(count))
    return a, b, mass
