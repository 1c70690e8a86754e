"""The transport problem: the caller's data, and what remains of them for the solvers."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .._core import threads
from .._core.arrays import Ingest
from .._core.validation import (
    check_array,
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_flag_or_stride,
    check_memory,
    check_positive,
    check_time_limit,
    describe,
)
from ._cloud import Cloud, PointCloud, arrays_of, checked_cloud

_SPARSE_HINT = {
    "C": "pass a dense array with `inf` for edges that do not exist, or a `PointCloud`"
}
# Relative difference of the total masses up to which `b` is rescaled without a word.
MASS_SLACK = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-4}


# A weight, relative to the mass, that counts as none: its exponent would overflow.
DUST = 1e-305


class Extent(NamedTuple):
    """Smallest and largest finite cost, and whether there are infinite ones."""

    low: float
    high: float
    forbidden: bool


@dataclass(frozen=True)
class Transport:
    """A checked problem of mass one, with the cost's rows contiguous.

    Attributes
    ----------
    be : Backend
    device : context manager
        Makes the arrays' device the current one.
    a, b : array, float64
        Weights with sum one.
    C : array or Cloud, shape (a.size, b.size)
        Cost in the caller's precision; never written to.
    mass : float
        Sum of the caller's weights.
    flipped : bool
        Whether sources and targets are exchanged, because the caller's cost is in Fortran order.
    """

    be: Any
    device: Any
    a: Any
    b: Any
    C: Any
    mass: float
    flipped: bool

    @property
    def kernels(self):
        """The kernels for these arrays."""
        return self.be.kernels("solvers.ot")

    @property
    def cost_kernels(self):
        """The kernels that see the cost: those for a matrix or those for a cloud."""
        part = "clouds" if isinstance(self.C, Cloud) else None
        return self.be.kernels("solvers.ot", part)

    @cached_property
    def extent(self):
        """Between which bounds the costs lie, found on first use."""
        return _extent(self.be, self.C)

    @property
    def range(self):
        """Largest minus smallest finite cost."""
        return self.extent.high - self.extent.low

    @cached_property
    def spread(self):
        """As `range`, but blind to a few costs that are far away from all others."""
        xp = self.be.xp
        n, m = self.C.shape
        sample = self.C[:: n // 100 + 1][:, :: m // 100 + 1]
        sample = xp.sort(sample[xp.isfinite(sample)])
        edge = sample.size // 100
        if sample.size == 0:
            return self.range
        low, high = self.be.host(sample[edge], sample[sample.size - 1 - edge])
        return high - low or self.range

    @cached_property
    def cut_off(self):
        """Whether a point that has mass has no finite cost at all."""
        if not self.extent.forbidden:
            return False
        xp, finite = self.be.xp, self.be.xp.isfinite(self.C)
        reached = xp.stack(
            [finite.any(axis=1)[self.a > 0].all(), finite.any(axis=0)[self.b > 0].all()]
        )
        return not self.be.host(reached.all())

    def without_dust(self, negligible):
        """Drop the lightest points, up to a total mass of `negligible`.

        Returns
        -------
        Transport, array or None, array or None
            The smaller problem and which rows and columns it kept; None where all of them. The
            points of a cloud are sorted, too, so that neighbours stand together.
        """
        orders = self.C.orders() if isinstance(self.C, Cloud) else (None, None)
        rows, cols = (
            _heavy(self.be, w, negligible, order)
            for w, order in zip((self.a, self.b), orders, strict=True)
        )
        if rows is None and cols is None:
            return self, None, None
        a, b, C = self.a, self.b, self.C
        if rows is not None:
            a = a[rows] / a[rows].sum()
        if cols is not None:
            b = b[cols] / b[cols].sum()
        if isinstance(C, Cloud):
            C = C.part(rows, cols)
        elif rows is not None and cols is not None:
            C = C[self.be.xp.ix_(rows, cols)]
        else:
            C = C[rows] if cols is None else self.be.xp.ascontiguousarray(C[:, cols])
        return replace(self, a=a, b=b, C=C), rows, cols


class BestPotentials:
    """The best potentials that a run has seen at its last temperature.

    Parameters
    ----------
    problem : Transport
        The caller's problem.
    reg : float
        Entropic weight that they belong to.
    negligible : float
        Mass of the points that `part`, the problem for the solver, may leave out.
    out : callable
        Turns an array into the caller's kind.
    """

    def __init__(self, problem, reg, negligible, out):
        self._problem, self._reg, self._out = problem, reg, out
        self.part, self._rows, self._cols = problem.without_dust(negligible)
        self.error, self._f, self._g = np.inf, None, None

    def restrict(self, g):
        """Return column potentials of the whole problem at the points that `part` has."""
        return g if g is None or self._cols is None else g[self._cols]

    def extend(self, change):
        """Return a change of `part`'s column potentials as one of all; 0 where it has none."""
        if self._cols is None:
            return change
        whole = self.part.be.xp.zeros_like(self._problem.b)
        whole[self._cols] = change
        return whole

    def offer(self, error, f, g):
        """Keep potentials of `part` if they are the best so far; NaN never is."""
        if error < self.error:
            self.error = error
            self.replace(f, g)

    def replace(self, f, g):
        """Keep potentials of `part` whatever their error."""
        self._f, self._g = f.copy(), g.copy()

    @property
    def found(self):
        """Whether any were offered."""
        return self._f is not None

    def state(self, f=None, g=None, reg=None):
        """Return what a callback sees: the potentials given, or those kept."""
        f, g = self.potentials() if f is None else self._whole(f, g, reg)
        f, g = self._out(f), self._out(g)
        return {"f": g, "g": f} if self._problem.flipped else {"f": f, "g": g}

    def potentials(self):
        """Return those kept, for all points, in the canonical split; zeros if there are none."""
        if not self.found:
            return 0.0 * self._problem.a, 0.0 * self._problem.b
        return self._whole(self._f, self._g, self._reg)

    def _whole(self, f, g, reg):
        """Extend potentials of `part` to all points, with ``<a, f> = <b, g>``."""
        problem, part = self._problem, self.part
        # What was left out gets the potentials that make its own marginals exact.
        if self._cols is not None:
            g = _filled(part.be, problem.C.T, self._cols, self._rows, g, f, part.a, reg)
        if self._rows is not None:
            f = _filled(part.be, problem.C, self._rows, None, f, g, problem.b, reg)
        shift = 0.5 * (problem.a @ f - problem.b @ g)
        return f - shift, g + shift


def check_transport(a, b, C, *, balanced=True):
    """Check the data of a transport problem.

    Parameters
    ----------
    a, b, C : array
        As the caller passes them.
    balanced : bool
        Whether the masses must be equal. If not, weights stay as they are and `mass` is one.

    Returns
    -------
    Transport
        The problem in normal form.
    Ingest
        The door back to the caller's kind of array.
    """
    if C is None:
        raise TypeError("`C` came as None; expected a cost matrix")
    io = Ingest(a=a, b=b, **arrays_of(C), sparse_hint=_SPARSE_HINT)
    weights = [check_array(io, name, ndim=1, minimum=0.0) for name in ("a", "b")]
    checked = _checked_points if isinstance(C, PointCloud) else _checked_matrix
    C, flipped = checked(io, C, weights)
    shape = C.shape[::-1] if flipped else C.shape
    with io.device:
        weights = [None if w is None else w.astype(np.float64) for w in weights]
        totals = [None if w is None else io.be.host(w.sum()) for w in weights]
        if balanced:
            mass = common_mass(totals, MASS_SLACK[io.dtype])
        else:
            _check_masses(totals)
            mass, totals = 1.0, (1.0, 1.0)
        a, b = (
            io.xp.full(size, 1.0 / size) if w is None else w / total
            for w, total, size in zip(weights, totals, shape, strict=True)
        )
    if flipped:
        a, b = b, a
    problem = Transport(io.be, io.device, a, b, C, mass, flipped)
    low, high = C.bounds() if isinstance(C, Cloud) else io.bounds["C"]
    if high < np.inf:
        # Known from the check already, which spares a look at every cost.
        vars(problem)["extent"] = Extent(low, high, False)
    return problem, io


def _checked_matrix(io, _, weights):
    """Return a cost matrix with contiguous rows, and whether these are the caller's columns."""
    if len(io.raw("C").shape) != 2:
        check_array(io, "C", ndim=2)
    shape = tuple(
        size if w is None else w.size for size, w in zip(io.raw("C").shape, weights, strict=True)
    )
    # Where a copy is made anyway, it may as well have the rows contiguous.
    flipped = io.is_fortran("C") and io.raw("C").dtype == io.dtype
    C = check_array(
        io, "C", shape=shape, means="(a.size, b.size)", plus_inf=True, transposed=flipped
    )
    return C, flipped


def _checked_points(io, cloud, weights):
    """Return a `Cloud`, and False: its rows are always the caller's."""
    C = checked_cloud(cloud, io)
    for name, points, size, w in zip("ab", "xy", C.shape, weights, strict=True):
        if w is not None and w.size != size:
            raise ValueError(
                f"`{name}` came with shape {w.shape}; expected ({size},), a weight for each point "
                f"of `{points}`"
            )
    return C, False


def check_reg(problem, reg, reg_scale):
    """Return the entropic weight in the unit of the cost."""
    check_choice(reg_scale, "reg_scale", (None, "std", "mean", "max", "median"))
    if reg is None:
        if reg_scale is not None:
            raise ValueError(f"`reg_scale` came as {reg_scale!r} without `reg`; expected both")
        with problem.device:
            std = _moments(problem.be, problem.C)[1]
            # Where the cost is constant every weight gives the same plan.
            return check_positive(0.05 * std or max(abs(problem.extent.high), 1.0), "reg")
    reg = check_positive(reg, "reg")
    if reg_scale is None:
        return reg
    with problem.device:
        return check_positive(reg * float(_scale(problem, reg_scale)), "reg")


def _scale(problem, name):
    """Return a statistic of the finite costs."""
    if name == "max":
        # Of a cloud the extent is only a bound.
        cloud = isinstance(problem.C, Cloud)
        return (_extent(problem.be, problem.C) if cloud else problem.extent).high
    if name == "median":
        xp = problem.be.xp
        check_memory(8 * problem.C.size, "The median of all costs", be=problem.be)
        C = problem.C[:]
        return problem.be.host(xp.median(C[xp.isfinite(C)]))
    mean, std = _moments(problem.be, problem.C)
    return mean if name == "mean" else std


def check_limits(io, tol, maxiter, time_limit, callback, progress, history):
    """Check the options that end, watch and record a run.

    Returns
    -------
    float
        The tolerance.
    dict
        The others, for `Monitor`.
    """
    tol = check_positive(tol, "tol", allow_none=True)
    if tol is None:
        # In float32 the potentials that are returned limit what the certificate can show.
        tol = 1e-8 if io.dtype == np.float64 else 1e-5
    return tol, {
        "maxiter": check_count(maxiter, "maxiter", minimum=1),
        "time_limit": check_time_limit(time_limit),
        "callback": check_callable(callback, "callback"),
        "progress": check_flag(progress, "progress"),
        "history": check_flag_or_stride(history, "history"),
    }


def check_reg_m(reg_m):
    """Return the weights of both marginals' divergences; infinite where a marginal is kept."""
    pair = reg_m if isinstance(reg_m, tuple | list) else (reg_m, reg_m)
    if len(pair) != 2:
        raise ValueError(f"`reg_m` came with {len(pair)} numbers; expected one, or a pair")
    return tuple(check_positive(tau, "reg_m", allow_inf=True) for tau in pair)


def check_start(problem, reg, C, x0, f0, g0):
    """Return the column potentials of a warm start, or None.

    They are all that is needed, because the first pass makes the rows exact. Where only row
    potentials are given, the columns are made exact for them.
    """
    f, g = check_potentials(problem, C, x0, f0, g0)
    if g is None and f is not None:
        with problem.device:
            return softmin(problem.be, problem.C.T, f, problem.a, reg)
    return g


def check_potentials(problem, C, x0, f0, g0):
    """Return row and column potentials of a warm start; None for those not given."""
    names = "f0", "g0"
    if x0 is not None:
        if f0 is not None or g0 is not None:
            raise ValueError("`x0` came together with `f0` or `g0`; expected one or the other")
        names = "x0", "x0"
        f0, g0 = _pair(x0)
    sizes = problem.C.shape[::-1] if problem.flipped else problem.C.shape
    with problem.device:
        f, g = (
            _potential(C, name, potential, size)
            for name, potential, size in zip(names, (f0, g0), sizes, strict=True)
        )
    return (g, f) if problem.flipped else (f, g)


def is_feasible(problem):
    """Tell whether a plan exists that uses no infinite cost, up to a mass of 1e-8 or so.

    By a maximum flow from sources to targets through the finite costs; on the host.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    be, (n, m) = problem.be, problem.C.shape
    # Flows are 32-bit integers.
    unit = 2**30
    a, b = (np.floor(unit * be.host(w)).astype(np.int32) for w in (problem.a, problem.b))
    rows, cols = (be.host(k) for k in be.xp.nonzero(be.xp.isfinite(problem.C)))
    source, sink = n + m, n + m + 1
    tail = np.concatenate([np.full(n, source), rows, n + np.arange(m)])
    head = np.concatenate([np.arange(n), n + cols, np.full(m, sink)])
    capacity = np.concatenate([a, np.minimum(a[rows], b[cols]), b])
    graph = csr_array((capacity, (tail, head)), shape=(n + m + 2,) * 2)
    return maximum_flow(graph, source, sink).flow_value >= min(a.sum(), b.sum()) - 10


def softmin(be, C, potential, weights, reg):
    """Return the potentials of C's rows that make their sums exact, in blocks of rows.

    ``-reg * log(sum_j weights_j exp((potential_j - C_ij) / reg))``; 0 for a row without any edge
    to a point with mass.
    """
    xp = be.xp
    with np.errstate(divide="ignore"):
        shift = xp.log(weights)
    out = xp.zeros(C.shape[0])
    for rows in row_blocks(be, C):
        z = (potential - C[rows]) / reg + shift
        top = z.max(axis=1)
        top = xp.where(xp.isfinite(top), top, 0.0)
        total = xp.exp(z - top[:, None]).sum(axis=1)
        out[rows] = xp.where(
            total > 0, -reg * (top + xp.log(xp.where(total > 0, total, 1.0))), 0.0
        )
    return out


def row_blocks(be, C, first=0, last=None):
    """Yield slices of rows, small enough to stay in the cache (on a GPU: to fill the device)."""
    entries = 1 << 16 if be.name == "numpy" else 1 << 24
    step = max(1, entries // C.shape[1])
    last = C.shape[0] if last is None else last
    for start in range(first, last, step):
        yield slice(start, min(start + step, last))


def gibbs_block(be, C, f, g, reg, rows):
    """Return ``exp((f_i + g_j - C_ij) / reg)`` for some rows; 0 where a potential is ``-inf``."""
    # In this order, because near the support the difference is exact and small.
    E = be.xp.subtract(g, C[rows], dtype=np.float64)
    E += f[rows, None]
    E *= 1.0 / reg
    return be.xp.exp(E, out=E)


def over_strips(be, C, function):
    """Return the sum of ``function(first, last)`` over strips of rows, one for each thread."""
    strips = threads.strips(C.size) if be.name == "numpy" else 1
    ends = [C.shape[0] * k // strips for k in range(strips + 1)]
    if strips == 1:
        return function(*ends)

    def quietly(first, last):
        # NumPy's error state belongs to the thread.
        with np.errstate(all="ignore"):
            return function(first, last)

    # BLAS must not start threads of its own in each of these: they would wait for each other.
    with threads.limit(1), ThreadPoolExecutor(strips) as pool:
        return sum(pool.map(quietly, ends[:-1], ends[1:]))


def _filled(be, C, kept, others, values, potential, weights, reg):
    """Return potentials for all rows of C: `values` for those kept, a softmin for the others."""
    xp = be.xp
    every = xp.empty(C.shape[0])
    every[kept] = values
    dropped = xp.ones(C.shape[0], bool)
    dropped[kept] = False
    dropped = xp.flatnonzero(dropped)
    step = max(1, (1 << 20) // C.shape[1])
    for start in range(0, dropped.size, step):
        some = dropped[start : start + step]
        block = C[some] if others is None else C[some][:, others]
        every[some] = softmin(be, block, potential, weights, reg)
    return every


def _pair(x0):
    """Return (f, g) of a previous result or of a pair."""
    if isinstance(x0, tuple | list) and len(x0) == 2:
        return x0
    try:
        return x0.f, x0.g
    except AttributeError:
        raise TypeError(f"`x0` came as {describe(x0)}; expected a result or (f, g)") from None


def _potential(C, name, potential, size):
    """Return a potential of a warm start in float64, or None."""
    if potential is None:
        return None
    io = Ingest(**arrays_of(C), **{name: potential})
    return check_array(io, name, shape=(size,)).astype(np.float64)


def _check_masses(totals):
    """Return the masses that are known, by name; None stands for uniform weights."""
    known = {name: t for name, t in zip(("a", "b"), totals, strict=True) if t is not None}
    for name, total in known.items():
        if not 0.0 < total < np.inf:
            raise ValueError(f"`{name}` sums to {total:g}; expected a positive, finite mass")
    return known


def common_mass(totals, slack):
    """Return the total mass of both sides; None stands for uniform weights."""
    known = _check_masses(totals)
    low, high = min(known.values(), default=1.0), max(known.values(), default=1.0)
    if high - low > slack * high:
        raise ValueError(
            f"`a` sums to {known['a']:.10g} and `b` to {known['b']:.10g}; expected equal masses: "
            "rescale one of them"
        )
    return known.get("a", known.get("b", 1.0))


def _heavy(be, weights, negligible, wanted=None):
    """Return the indices of all but the lightest entries, whose sum is at most `negligible`.

    In the order `wanted`, or ascending; None stands for all of them, ascending.
    """
    xp = be.xp
    order = xp.argsort(weights)
    count = be.host((xp.cumsum(weights[order]) <= negligible).sum())
    if count == 0:
        return wanted
    if wanted is None:
        return xp.sort(order[count:])
    kept = xp.ones(weights.size, bool)
    kept[order[:count]] = False
    return wanted[kept[wanted]]


def _extent(be, C):
    """Smallest and largest finite entry; zeros if there is none."""
    xp = be.xp
    low, high, forbidden = np.inf, -np.inf, False
    for rows in row_blocks(be, C):
        block = C[rows]
        ends = be.host(block.min(), block.max())
        if not np.isfinite(ends[1]):
            forbidden = True
            block = block[xp.isfinite(block)]
            if block.size == 0:
                continue
            ends = be.host(block.min(), block.max())
        low, high = min(low, ends[0]), max(high, ends[1])
    return Extent(low, high, forbidden) if low <= high else Extent(0.0, 0.0, forbidden)


@np.errstate(over="ignore")
def _moments(be, C):
    """Mean and population standard deviation of the finite entries."""
    known = C.moments() if isinstance(C, Cloud) else None
    if known is not None:
        return known
    xp = be.xp
    count, mean, spread = 0, 0.0, 0.0
    for rows in row_blocks(be, C):
        block = C[rows].astype(np.float64).ravel()
        if not np.isfinite(be.host(block.sum())):
            block = block[xp.isfinite(block)]
        size = block.size
        if size == 0:
            continue
        centre, part = be.host(block.mean(), xp.square(block - block.mean()).sum())
        # Chan's update joins the moments of two samples without cancellation.
        step = centre - mean
        spread += part + step * step * count * size / (count + size)
        mean += step * size / (count + size)
        count += size
    return mean, float(np.sqrt(spread / max(count, 1)))
