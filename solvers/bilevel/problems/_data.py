"""The door for training and validation data: checked, of one back end and precision."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from ..._core.arrays import Ingest, is_sparse
from ..._core.validation import check_array, check_sparse


class Samples(NamedTuple):
    """One set of samples: a matrix, dense in C order or compressed rows, and its targets."""

    X: Any
    t: Any


def read(X, t, Xv, tv, **arrays):
    """Check two sets of samples; return an `Ingest` of everything, and both `Samples`."""
    given = {"X": X, "Xv": Xv}
    rows = {name: check_sparse(x, name, "csr") for name, x in given.items() if is_sparse(x)}
    plain = {name: rows[name].data if name in rows else x for name, x in given.items()}
    io = Ingest(t=t, tv=tv, **plain, **arrays)
    for name in ("X", "t", "Xv", "tv"):
        if name not in io:
            raise TypeError(f"`{name}` came as NoneType; expected an array")
    with io.device:
        both = [_samples(io, name, rows.get(name)) for name in ("X", "Xv")]
        p, pv = both[0].X.shape[1], both[1].X.shape[1]
        if p != pv:
            raise ValueError(f"`Xv` came with {pv} columns; expected {p}, those of `X`")
    _warn_of_a_leak(io)
    return io, *both


def _samples(io, name, rows):
    if rows is None:
        X = check_array(io, name, ndim=2)
    else:
        data = check_array(io, name, ndim=1, nonempty=False)
        where = io.be.sparse
        matrix = where.csr_array if hasattr(where, "csr_array") else where.csr_matrix
        places = (_writable(part) for part in (rows.indices, rows.indptr))
        X = matrix((data, *places), shape=rows.shape)
    t = "t" + name[1:]
    return Samples(X, check_array(io, t, ndim=1, shape=(X.shape[0],), means=f"({name} rows,)"))


def _writable(places):
    """Return indices that Numba compiles nothing new for: in memory, and not read-only."""
    # CuPy's arrays are always writable, and their flags do not say so.
    ready = type(places) is not np.memmap and getattr(places.flags, "writeable", True)
    return places if ready else np.array(places)


def _warn_of_a_leak(io):
    """Warn where both levels read the same numbers: the upper one then measures nothing new."""
    if io.be.name != "numpy":
        return
    if np.shares_memory(io.raw("X"), io.raw("Xv")):
        message = "`X` and `Xv` share memory; expected samples that the lower level does not see"
        warnings.warn(message, UserWarning, stacklevel=4)


def are_signs(io, name):
    """Tell whether labels are -1 and 1, and not all of them 1."""
    t = io[name]
    return bool(io.be.host((abs(t) == 1).all() & (t < 0).any()))


def signs(io, name):
    """Return labels -1 and 1 of the call's precision."""
    t = io[name]
    if not io.be.host((abs(t) == 1).all()):
        raise ValueError(f"`{name}` came with other labels; expected -1 and 1")
    return t


def classes(io, *names):
    """Return the number of classes, if the labels are 0, 1, ..."""
    for name in names:
        t = io[name]
        if not io.be.host(((t >= 0) & (t == io.xp.floor(t))).all()):
            raise ValueError(f"`{name}` came with other labels; expected 0, 1, ..., k - 1")
    return max(2, *(int(io.be.host(io[name].max())) + 1 for name in names))


def check_groups(io, name, length, counts):
    """Return the group of each of `length` things as integers, and how many groups there are."""
    g = check_array(io, name, ndim=1, shape=(length,), means=counts)
    if g is None:
        return None, length
    low, high = io.bounds[name]
    if low < 0 or not io.be.host((g == io.xp.floor(g)).all()):
        raise ValueError(f"`{name}` came with other entries; expected whole numbers >= 0")
    return g.astype(np.int64), int(high) + 1
