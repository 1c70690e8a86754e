"""The door for a matrix of samples: dense in either order, or compressed columns, never copied."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .._core.arrays import Ingest, is_sparse
from .._core.validation import check_array, check_sparse


@dataclass(frozen=True)
class Design:
    """A matrix X (n, p), rows are samples, and the products that solvers need.

    Attributes
    ----------
    be : Backend
    X : array or sparse array
        Dense in C or Fortran order, or compressed columns with sorted, unique entries.
    sparse : bool
        Which of the two.
    """

    be: Any
    X: Any
    sparse: bool

    @property
    def shape(self):
        """(samples, features)."""
        return self.X.shape

    @property
    def dtype(self):
        """Precision."""
        return self.X.dtype

    @property
    def size(self):
        """Stored entries."""
        return self.X.nnz if self.sparse else self.X.size

    @property
    def fortran(self):
        """Whether columns of a dense matrix are contiguous."""
        return not self.sparse and self.X.flags.f_contiguous

    def dot(self, w):
        """Return ``X w``, w (p,) or (p, C)."""
        return self.X @ w

    @cached_property
    def transposed(self):
        """X^T, a view; a sparse one takes longer to make than to multiply."""
        return self.X.T

    def rdot(self, r):
        """Return ``X^T r``, r (n,) or (n, C)."""
        return self.transposed @ r

    def columns(self, where):
        """Return some columns as a matrix (n, len), compressed if X is."""
        return self.X[:, where]

    def moments(self, s, y=None):
        """Return the sums of ``s x^2``, ``s x`` and, given y, ``s x y`` over each column.

        A single pass, in float64, as are the vectors s and y (n,).
        """
        only, y = (2, s) if y is None else (3, y)
        square, mean, cross = out = self.be.xp.empty((3, self.shape[1]))
        kernels = self.be.kernels("solvers.bcd", "screen")
        if self.sparse:
            X = self.X
            kernels.moments_csc(X.indptr, X.indices, X.data, s, y, square, mean, cross)
        elif self.fortran:
            kernels.moments_columns(self.X.T, s, y, square, mean, cross)
        else:
            kernels.moments_rows(self.X, s, y, square, mean, cross)
        return out[:only]

    def astype(self, dtype):
        """Return the same matrix in another precision."""
        return replace(self, X=self.X.astype(dtype))


def read_design(X, /, *, name="X", sparse_ok=True, finite=True, **arrays):
    """Check a matrix and the arrays that come with it.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
    name : str
        What messages call it.
    sparse_ok : bool
        Whether it may be sparse.
    finite : bool
        Whether to look for NaN and infinities; `check_finite` does it later.
    **arrays : array or None
        By name; the caller checks them.

    Returns
    -------
    Ingest, Design
        The arrays, `X` among them where it is dense, and the matrix.
    """
    if sparse_ok and is_sparse(X):
        return _from_sparse(X, name, finite, arrays)
    hint = {} if sparse_ok else {name: f"pass `{name}.toarray()`"}
    io = Ingest(sparse_hint=hint, **{name: X, **arrays})
    if name not in io:
        raise TypeError(f"`{name}` came as NoneType; expected a matrix")
    with io.device:
        if io.is_fortran(name):
            dense = check_array(io, name, ndim=2, transposed=True, finite=finite).T
        else:
            dense = check_array(io, name, ndim=2, finite=finite)
    return io, Design(io.be, dense, False)


def check_finite(io, design, square, *, name="X"):
    """Raise where a matrix has NaN or infinities, which its sums of squares tell at no cost."""
    # The squares of large numbers may be infinite too.
    if not io.be.host(io.xp.isfinite(square).all()):
        with io.device:
            check_array(io, name, transposed=design.fortran, nonempty=False)


def _from_sparse(X, name, finite, arrays):
    csc = check_sparse(X, name, "csc")
    io = Ingest(**{name: csc.data, **arrays})
    with io.device:
        data = check_array(io, name, finite=finite, nonempty=False)
        where = io.be.sparse
        matrix = where.csc_array if hasattr(where, "csc_array") else where.csc_matrix
        places = (_writable(csc.indices), _writable(csc.indptr))
        return io, Design(io.be, matrix((data, *places), shape=csc.shape), True)


def _writable(places):
    """Return indices that Numba compiles nothing new for: plain, in memory, not read-only."""
    # CuPy's arrays are always writable, and their flags do not say so.
    ready = type(places) is not np.memmap and getattr(places.flags, "writeable", True)
    return places if ready else np.array(places)
