"""The door for a matrix with holes: from any of its forms to the entries by row and by column.

A matrix comes as SciPy or CuPy sparse matrix (stored entries are observed, zeros too), as triples
``(rows, cols, vals)``, as a dense array with NaN where nothing is known, or as a masked array.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import Ingest, is_sparse
from .._core.validation import check_array, check_choice, check_count, describe

DUPLICATES = ("error", "mean", "sum", "last")
# Rows and columns are numbered in 32 bits, places of entries in 64 where there are so many.
_LONGEST = 2**31 - 1


@dataclass(frozen=True)
class Entries:
    """Observed entries in the caller's order, checked but not yet sorted.

    Attributes
    ----------
    io : Ingest
        The way back to the caller's kind of array.
    rows, cols : array of int32, shape (N,)
        Where the entries are.
    vals : array, shape (N,)
        Their values, finite.
    weights : array, shape (N,), or None
        Their weights, non-negative.
    shape : (int, int)
        Shape of the matrix.
    name : str
        What messages call the matrix.
    """

    io: Ingest
    rows: Any
    cols: Any
    vals: Any
    weights: Any
    shape: tuple[int, int]
    name: str = "M"


class Side(NamedTuple):
    """The observed entries row by row, or column by column.

    Attributes
    ----------
    ptr : array of int64, shape (rows + 1,)
        Where each row's entries start.
    idx : array of int32, shape (N,)
        Their columns, ascending within a row.
    val : array, shape (N,)
        Their values.
    weight : array, shape (N,) or (0,)
        Their weights; empty if all are one.
    perm : array of int32 or int64, shape (N,) or (0,)
        Their places in row order; empty if this is the row order.
    """

    ptr: Any
    idx: Any
    val: Any
    weight: Any
    perm: Any


@dataclass(frozen=True)
class Observations:
    """The observed entries, sorted both ways; duplicates and entries of weight 0 are gone.

    Attributes
    ----------
    be : Backend
    shape : (int, int)
        Shape of the matrix.
    by_row, by_col : Side
        The entries row by row, and column by column.
    count : int
        Number of entries that the caller passed.
    """

    be: Any
    shape: tuple[int, int]
    by_row: Side
    by_col: Side
    count: int
    _order: Any  # the caller's place of each entry in row order, before duplicates were merged
    _segment: Any  # the place in row order of each of these; None without duplicates

    @property
    def size(self):
        """Number of observed entries."""
        return self.by_row.idx.size

    @cached_property
    def rows(self):
        """Row of each entry, in row order."""
        return row_of_each(self.be, self.by_row.ptr)

    @property
    def cols(self):
        """Column of each entry, in row order."""
        return self.by_row.idx

    def with_values(self, val, weight):
        """Return the same pattern with other values and weights, given in row order."""
        by_row, by_col = self.by_row, self.by_col
        return Observations(
            self.be,
            self.shape,
            by_row._replace(val=val, weight=weight),
            by_col._replace(
                val=val[by_col.perm], weight=weight[by_col.perm] if weight.size else weight
            ),
            self.count,
            self._order,
            self._segment,
        )

    def in_callers_order(self, values, missing):
        """Return one number for each entry that the caller passed, from those in row order."""
        out = self.be.xp.full(self.count, missing, values.dtype)
        out[self._order] = values if self._segment is None else values[self._segment]
        return out


def read_entries(M, shape=None, weights=None, dtype=None, *, name="M", empty=False):
    """Check a matrix with holes, in any of its forms, and list its observed entries.

    Parameters
    ----------
    M : sparse matrix, (rows, cols, vals), masked array, or array with NaN
    shape : (int, int), optional
        Required for triples; otherwise, if given, the matrix must have it.
    weights : array, optional
        Of shape (N,) in the order of the stored entries, or of the shape of a dense `M`.
    dtype : numpy.dtype, optional
        Precision to compute in; by default the values' own.
    name : str
        What messages call `M`.
    empty : bool
        Whether there may be no entries.

    Returns
    -------
    Entries
    """
    shape = _checked_shape(shape)
    if M is None:
        raise TypeError(
            f"`{name}` came as NoneType; expected a sparse matrix, (rows, cols, vals), or an array"
        )
    if is_sparse(M):
        read = _from_sparse
    elif isinstance(M, tuple):
        read = _from_triples
    else:
        read = _from_dense
    entries = read(name, M, shape, weights, dtype)
    if entries.vals.size == 0 and not empty:
        raise ValueError(f"`{name}` holds no observed entries; expected at least one")
    return replace(entries, name=name)


def observe(entries, duplicates="error", without=None):
    """Sort entries by row and by column, less those of weight 0.

    Parameters
    ----------
    entries : Entries
    duplicates : {"error", "mean", "sum", "last"}
        What to do where a place occurs twice.
    without : array of int, optional
        Entries, numbered as the caller did, to leave out.

    Returns
    -------
    Observations
    """
    io, be, xp = entries.io, entries.io.be, entries.io.xp
    kernels = be.kernels("solvers.completion")
    (m, n), count = entries.shape, entries.vals.size
    rows, cols, vals = entries.rows, entries.cols, entries.vals
    weights = xp.empty(0, io.dtype) if entries.weights is None else entries.weights
    kept = _kept(xp, entries, without)
    if kept is not None:
        rows, cols, vals = rows[kept], cols[kept], vals[kept]
        weights = weights[kept] if weights.size else weights
    if rows.size == 0:
        raise ValueError("`weights` leaves no observed entries; expected at least one above 0")
    ptr, order, *columns = kernels.arrange(rows, cols, vals, weights, m)
    if kept is not None:
        order = kept[order]
    ptr, idx, val, weight, segment = _merged(entries, ptr, *columns, duplicates)
    col_ptr, row_of, col_val, col_weight, perm = kernels.transpose(ptr, idx, val, weight, n)
    by_row = Side(ptr, idx, val, weight, perm[:0])
    by_col = Side(col_ptr, row_of, col_val, col_weight, perm)
    return Observations(be, (m, n), by_row, by_col, count, order, segment)


def _kept(xp, entries, without):
    """Return the numbers of the entries that count; None if all do."""
    if entries.weights is None and without is None:
        return None
    keep = xp.ones(entries.vals.size, bool) if entries.weights is None else entries.weights > 0
    if without is not None:
        keep[without] = False
    return xp.flatnonzero(keep)


def check_duplicates(value):
    """Return the word that says what to do with duplicates."""
    return check_choice(value, "duplicates", DUPLICATES)


def check_indices(io, name, size):
    """Return row or column numbers once they are known to lie in the matrix."""
    x, be = io.raw(name), io.be
    if x.size and x.dtype.kind not in "iu":
        raise TypeError(f"`{name}` came with dtype {x.dtype}; expected whole numbers")
    with io.device:
        # Narrow types cannot be compared with numbers that they cannot hold.
        x = x.astype(np.int64) if x.dtype.itemsize < 4 else x
        if x.size and not _within(be, x, size):
            flat = x.reshape(-1)
            first = int(be.host(((flat < 0) | (flat >= size)).argmax()))
            place = f" at {name}[{first}]" if x.ndim == 1 else ""
            raise ValueError(
                f"`{name}` contains {be.host(flat[first])}{place}; expected numbers in [0, {size})"
            )
        return x


def _within(be, x, size):
    low, high = be.host(x.min(), x.max())
    return low >= 0 and high < size


def _from_sparse(name, M, shape, weights, dtype):
    if getattr(M, "ndim", 2) != 2:
        raise ValueError(f"`{name}` came {M.ndim}-D; expected a matrix")
    _agree(name, M.shape, shape)
    invalid = f"`{name}` holds indices outside its shape {M.shape}; expected a valid matrix"
    try:
        coo = M.tocoo(copy=False)
    except ValueError as error:
        raise ValueError(invalid) from error
    io = _ingest(name, coo.data, weights, dtype)
    m, n = coo.shape
    with io.device:
        # Sparse matrices do not look at indices that are assigned to them.
        if coo.data.size and not (_within(io.be, coo.row, m) and _within(io.be, coo.col, n)):
            raise ValueError(invalid)
        vals = io[name].reshape(-1)
        _check_finite(io.be, vals, f"{name}.data")
        return _entries(io, coo.row, coo.col, vals, _entry_weights(io, vals), coo.shape)


def _from_triples(name, M, shape, weights, dtype):
    if len(M) != 3:
        raise ValueError(
            f"`{name}` came as a tuple of {len(M)}; expected (rows, cols, vals), or pass an array"
        )
    if shape is None:
        raise TypeError("`shape` is required with (rows, cols, vals); expected (m, n)")
    rows, cols, vals = M
    io = Ingest(dtype=dtype, rows=rows, cols=cols, vals=vals, weights=weights)
    lengths = [io.raw(part).shape for part in ("rows", "cols", "vals")]
    if len(set(lengths)) != 1 or len(lengths[0]) != 1:
        found = ", ".join(map(str, lengths))
        raise ValueError(
            f"`rows`, `cols` and `vals` came with shapes {found}; expected one length"
        )
    rows, cols = (check_indices(io, *of) for of in zip(("rows", "cols"), shape, strict=True))
    with io.device:
        vals = io["vals"]
        _check_finite(io.be, vals, "vals")
        return _entries(io, rows, cols, vals, _entry_weights(io, vals), shape)


def _from_dense(name, M, shape, weights, dtype):
    mask, missing = None, ", or NaN where nothing is known"
    if isinstance(M, np.ma.MaskedArray):
        mask, M = np.ma.getmaskarray(M), np.ma.getdata(M)
        missing = " where the mask is False"
    io = _ingest(name, M, weights, dtype)
    be, xp, given = io.be, io.xp, io.raw(name).shape
    if len(given) != 2:
        raise ValueError(f"`{name}` came {len(given)}-D, with shape {given}; expected a matrix")
    _agree(name, given, shape)
    with io.device:
        X = io[name]
        rows, cols = xp.nonzero(~xp.isnan(X) if mask is None else xp.asarray(~mask))
        vals = X[rows, cols]
        finite = xp.isfinite(vals)
        if vals.size and not be.host(finite.all()):
            first = int(be.host(finite.argmin()))
            i, j = be.host(rows[first], cols[first])
            raise ValueError(
                f"`{name}` contains {be.host(vals[first])} at ({i}, {j}); "
                f"expected finite numbers{missing}"
            )
        if "weights" in io and io.raw("weights").ndim == 2:
            chosen = check_array(io, "weights", shape=given, finite=False)[rows, cols]
        else:
            chosen = _entry_weights(io, vals)
        return _entries(io, rows, cols, vals, chosen, given)


def _ingest(name, values, weights, dtype):
    return Ingest(dtype=dtype, **{name: values, "weights": weights})


def _entry_weights(io, vals):
    """Return one weight for each entry, or None."""
    return check_array(
        io, "weights", shape=vals.shape, means="one for each entry", finite=False, nonempty=False
    )


def _entries(io, rows, cols, vals, weights, shape):
    """Check weights, and number rows and columns in 32 bits."""
    if max(shape) > _LONGEST:
        raise ValueError(f"`shape` came as {shape}; expected at most {_LONGEST} rows and columns")
    if weights is not None and weights.size:
        _check_finite(io.be, weights, "weights")
        least = io.be.host(weights.min())
        if least < 0:
            raise ValueError(f"`weights` contains {least:.6g}; expected numbers >= 0")
    rows, cols = (io.xp.asarray(x, dtype=np.int32) for x in (rows, cols))
    return Entries(io, rows, cols, vals, weights, tuple(map(int, shape)))


def _check_finite(be, x, label):
    finite = be.xp.isfinite(x)
    if x.size and not be.host(finite.all()):
        first = int(be.host(finite.argmin()))
        name = label.partition(".")[0]
        raise ValueError(
            f"`{name}` contains {be.host(x[first])} at {label}[{first}]; expected finite numbers"
        )


def _checked_shape(shape):
    if shape is None:
        return None
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        raise TypeError(f"`shape` came as {describe(shape)}; expected (m, n)")
    return tuple(check_count(length, "shape", minimum=1) for length in shape)


def _agree(name, found, shape):
    if shape is not None and tuple(found) != shape:
        raise ValueError(
            f"`shape` came as {shape}; expected {tuple(found)}, the shape of `{name}`"
        )


def row_of_each(be, ptr):
    """Return the row of each entry."""
    xp = be.xp
    if be.name == "numpy":
        return np.repeat(np.arange(ptr.size - 1, dtype=np.int32), np.diff(ptr))
    # CuPy would repeat one row after the other.
    places = xp.arange(be.host(ptr[-1]))
    return (xp.searchsorted(ptr, places, side="right") - 1).astype(np.int32)


def _merged(entries, ptr, idx, val, weight, duplicates):
    """Deal with places that occur twice, which now are neighbours."""
    be, xp = entries.io.be, entries.io.xp
    again = idx[1:] == idx[:-1]
    # The first entry of a row has no neighbour before it.
    inner = ptr[1:-1]
    again[inner[(inner > 0) & (inner < idx.size)] - 1] = False
    if not be.host(again.any()):
        return ptr, idx, val, weight, None
    if duplicates == "error":
        first = int(be.host(again.argmax()))
        i, j = be.host(xp.searchsorted(ptr, first, side="right") - 1, idx[first])
        raise ValueError(
            f"`{entries.name}` holds the entry ({i}, {j}) twice; expected each once: pass "
            "duplicates='mean', 'sum' or 'last'"
        )
    first = xp.concatenate([xp.ones(1, bool), ~again])
    last = xp.concatenate([~again, xp.ones(1, bool)])
    segment = xp.cumsum(first) - 1
    count = int(be.host(segment[-1])) + 1
    if duplicates == "mean":
        w = weight if weight.size else xp.ones_like(val)
        total = xp.bincount(segment, weights=w, minlength=count)
        val = (xp.bincount(segment, weights=w * val, minlength=count) / total).astype(val.dtype)
        weight = total.astype(val.dtype)
    elif duplicates == "sum":
        val = xp.bincount(segment, weights=val, minlength=count).astype(val.dtype)
        weight = weight[last] if weight.size else weight
    else:
        val, weight = val[last], weight[last] if weight.size else weight
    starts = xp.concatenate([xp.zeros(1, np.int64), xp.cumsum(first)])
    return starts[ptr], idx[first], val, weight, segment
