r"""The problem of `label_propagation`: a graph, its labels, and the linear system they make.

.. math:: \min_x \; \tfrac{1}{2} \sum_{i < j} w_{ij} |x_i - x_j|^2
          + \tfrac{\alpha}{2} \sum_{i \in \text{labelled}} |x_i - y_i|^2

or, without alpha, x = y at labelled nodes. Columns of x are classes; they share the matrix.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .._core.arrays import is_sparse
from .._core.validation import check_array, check_choice, check_memory, describe
from ._design import read_design
from ._problem import Posed
from .rules._forest import Graph

# Entries of A times columns below which a kernel is not worth compiling.
_LARGE = 10**6


@dataclass(frozen=True)
class Propagation(Posed):
    """Checked arguments of `label_propagation`.

    Attributes
    ----------
    io : Ingest
    W : sparse array, shape (n, n)
        Weights in compressed rows: no diagonal, no zeros, scaled by a power of 2.
    unit : float
        What `W` and `alpha` were divided by.
    height : float
        What the labels were divided by, another power of 2.
    Y : array, shape (n, C)
        Values at labelled nodes, or one column for each class; 0 elsewhere.
    labelled : array of bool, shape (n,)
    unknown : array of int64, shape (m,)
        Nodes whose values are to be found, in ascending order.
    alone : array of bool, shape (n,)
        Nodes whose component has no label.
    alpha : float or None
        In the unit of `W`.
    bounds : (float, float) or None
    classes : numpy.ndarray or None
        Labels, in the order of the columns.
    """

    io: Any
    W: Any
    unit: float
    height: float
    Y: Any
    labelled: Any
    unknown: Any
    alone: Any
    alpha: Any
    bounds: Any
    classes: Any

    @property
    def unit_of_energy(self):
        """What the objective of scaled weights and labels is to be multiplied by."""
        return self.unit * self.height * self.height

    @cached_property
    def degree(self):
        """Sum of the weights at each node."""
        return self.W @ self.xp.ones(self.W.shape[0], self.dtype)

    @cached_property
    def diagonal(self):
        """Diagonal of the system, (m,)."""
        d = self.degree + self.alpha * self.labelled if self.alpha else self.degree
        return d[self.unknown].astype(self.dtype)

    @cached_property
    def A(self):  # noqa: N802 (the matrix has this name everywhere)
        """Matrix of the system in compressed rows, (m, m), indices sorted."""
        where = self.be.sparse
        make = getattr(where, "diags_array", where.diags)
        off = self.W if self.unknown.size == self.W.shape[0] else self._inner
        A = (make(self.diagonal) - off).tocsr()
        A.sort_indices()
        return A

    @cached_property
    def b(self):
        """Right-hand sides of the system, (m, C)."""
        if self.alpha:
            return (self.alpha * self.Y[self.unknown]).astype(self.dtype)
        return (self.W @ self.Y)[self.unknown]

    def product(self, X):
        """Return ``A X``, by several threads where that pays."""
        if self.A.nnz * X.shape[1] < _LARGE:
            return self.A @ X
        out = self.xp.empty_like(X)
        self.graph.kernels.product(self.graph.ptr, self.graph.idx, self.A.data, X, out)
        return out

    @property
    def _inner(self):
        return self.W[self.unknown][:, self.unknown]

    @cached_property
    def graph(self):
        """Graph of the system's matrix."""
        return Graph(self.be, self.A.indptr.astype(np.int64), self.A.indices.astype(np.int32))

    def everywhere(self, x, fill=0.0):
        """Return values (n, C) at all nodes for those at the unknown ones."""
        X = self.Y.copy()
        X[self.alone] = fill
        X[self.unknown] = x
        return X


def pose_propagation(W, labels, *, alpha, mode, bounds, isolated, symmetrize):
    """Return the `Propagation` of checked arguments; see `label_propagation`."""
    isolated = check_choice(isolated, "isolated", ("raise", "zero", "nan"))
    symmetrize = check_choice(symmetrize, "symmetrize", (None, "max"))
    if is_sparse(W) and W.format == "csr" and W.shape == W.shape[::-1]:
        # The rows of a symmetric matrix are its columns, the form that the door hands on.
        W = W.T
    io, design = read_design(W, name="W", labels=labels)
    with io.device:
        W, unit = read_weights(io, design, symmetrize)
        Y, labelled, classes = _values(io, W.shape[0])
        alone = _alone(io, W, labelled, isolated)
        wanted = ~alone if alpha else ~(alone | labelled)
        unknown = io.xp.flatnonzero(wanted)
        box = None if mode == "harmonic" else _bounds(io, bounds, Y, labelled, classes)
        height = _power_of_two(float(io.be.host(abs(Y).max())), io.dtype)
        Y /= io.dtype.type(height)
    alpha = None if alpha is None else alpha / unit
    box = None if box is None else (box[0] / height, box[1] / height)
    return Propagation(io, W, unit, height, Y, labelled, unknown, alone, alpha, box, classes)


def read_weights(io, design, symmetrize):
    """Return W in compressed rows, scaled by a power of two, without its diagonal."""
    be = io.be
    n, m = design.shape
    if n != m:
        raise ValueError(f"`W` came with shape {(n, m)}; expected a square matrix")
    sparse = be.sparse
    make = getattr(sparse, "csr_array", sparse.csr_matrix)
    if design.sparse:
        # Compressed columns of a symmetric matrix are its rows.
        csc = design.X
        W = make((csc.data.copy(), csc.indices, csc.indptr), shape=(n, n))
    else:
        nbytes = 16 * int(be.host((design.X != 0).sum()))
        check_memory(nbytes, "`W` in compressed rows", be=be)
        W = make(design.X)
    if W.nnz and be.host(W.data.min()) < 0:
        raise ValueError("`W` has negative entries; expected weights >= 0")
    W = _without_diagonal(io, W)
    largest = float(be.host(W.data.max())) if W.nnz else 1.0
    unit = _power_of_two(largest, io.dtype)
    W.data *= io.dtype.type(1.0 / unit)
    other = W.T.tocsr()
    gap = abs(W.data - other.data) if _same_pattern(be, W, other) else abs(W - other).data
    gap = float(be.host(gap.max())) if gap.size else 0.0
    if symmetrize == "max":
        return W.maximum(other).tocsr(), unit
    if gap > 1e3 * np.finfo(io.dtype).eps:
        raise ValueError(
            f"`W` is not symmetric: entries differ by up to {gap * unit:.3g}; expected a "
            "symmetric matrix, or symmetrize='max'"
        )
    # What rounding left of an asymmetry would keep conjugate gradients from their goal.
    return (0.5 * (W + other)).tocsr() if gap else W, unit


def _without_diagonal(io, W):
    """Return W without its diagonal and without zeros that are stored."""
    xp = io.xp
    rows = xp.repeat(xp.arange(W.shape[0], dtype=W.indices.dtype), xp.diff(W.indptr))
    kept = (W.data != 0) & (rows != W.indices)
    if io.be.host(kept.all()):
        return W
    ptr = xp.concatenate([xp.zeros(1, np.int64), xp.cumsum(kept)])[W.indptr]
    return type(W)((W.data[kept], W.indices[kept], ptr.astype(W.indptr.dtype)), shape=W.shape)


def _same_pattern(be, A, B):
    if A.nnz != B.nnz:
        return False
    return be.host((A.indices == B.indices).all() & (A.indptr == B.indptr).all())


def _power_of_two(size, dtype):
    """Return the power of two next to a size, such that neither it nor 1 over it overflows."""
    reach = np.finfo(dtype).maxexp - 8
    return float(2.0 ** np.clip(np.floor(np.log2(size)), -reach, reach)) if size > 0 else 1.0


def _values(io, n):
    """Return the known values (n, C), where they are known, and classes for whole numbers."""
    xp = io.xp
    if "labels" not in io:
        raise TypeError("`labels` came as None; expected one entry for each node")
    raw = io.raw("labels")
    y = check_array(io, "labels", shape=(n,), means="(W.shape[0],)", finite=False)
    if raw.dtype.kind == "f":
        known = ~xp.isnan(y)
        _some(io, known)
        if not io.be.host(xp.isfinite(y[known]).all()):
            raise ValueError("`labels` contains infinities; expected numbers, NaN for unlabelled")
        return xp.where(known, y, 0)[:, None].astype(io.dtype), known, None
    raw = raw.astype(np.int64)
    known = raw != -1
    _some(io, known)
    classes, numbers = xp.unique(raw[known], return_inverse=True)
    Y = xp.zeros((n, classes.size), io.dtype)
    Y[xp.flatnonzero(known), numbers.reshape(-1)] = 1
    return Y, known, io.be.host(classes)


def _some(io, known):
    if not io.be.host(known.any()):
        raise ValueError(
            "`labels` has no label at all; expected some that are not NaN (float) or -1 (integer)"
        )


def _alone(io, W, labelled, isolated):
    """Return which nodes have no path to a label; raise where there must be none."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    data, indices, indptr, known = io.be.host(W.data, W.indices, W.indptr, labelled)
    number, part = connected_components(csr_array((data, indices, indptr), W.shape), False)
    reached = np.zeros(number, bool)
    reached[part[known]] = True
    if isolated == "raise" and not reached.all():
        count = int(number - reached.sum())
        raise ValueError(
            f"`labels` leaves {count} of {number} connected components of `W` without a label, "
            f"{int((~reached[part]).sum())} nodes; label one node of each, or pass "
            "isolated='zero' or isolated='nan'"
        )
    return io.xp.asarray(~reached[part])


def _bounds(io, bounds, Y, labelled, classes):
    """Return lower and upper bound as numbers of the precision of the values."""
    if bounds is None:
        if classes is not None:
            return 0.0, 1.0
        return tuple(map(float, io.be.host(Y[labelled].min(), Y[labelled].max())))
    try:
        lo, hi = (float(end) for end in bounds)
    except (TypeError, ValueError):
        raise TypeError(f"`bounds` came as {describe(bounds)}; expected two numbers") from None
    if not lo <= hi:
        raise ValueError(f"`bounds` came as ({lo:g}, {hi:g}); expected lo <= hi")
    return float(io.dtype.type(lo)), float(io.dtype.type(hi))


def is_forest(graph):
    """Tell whether a graph has no cycles."""
    nodes = graph.be.xp.arange(graph.size, dtype=np.int32)
    found = graph.be.xp.full(graph.size, -1, np.int64)
    return graph.kernels.greedy_forest(graph.ptr, graph.idx, nodes, found) == graph.size
