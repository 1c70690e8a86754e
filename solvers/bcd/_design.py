"""The door for a matrix of samples: dense in either order, or compressed columns, never copied."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._core.arrays import Ingest, is_sparse
from .._core.validation import check_array


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

    def rdot(self, r):
        """Return ``X^T r``, r (n,) or (n, C)."""
        return self.X.T @ r

    def columns(self, where):
        """Return some columns as a matrix (n, len), compressed if X is."""
        return self.X[:, where]

    def moments(self, s):
        """Return ``sum_i s_i X_ij^2`` and ``sum_i s_i X_ij``, in float64."""
        if self.sparse:
            square = self.X.copy()
            square.data = square.data.astype(np.float64) ** 2
            return square.T @ s, self.X.T @ s
        X = self.X
        return self.be.xp.einsum("i,ij,ij->j", s, X, X, dtype=np.float64), X.T @ s

    def astype(self, dtype):
        """Return the same matrix in another precision."""
        return replace(self, X=self.X.astype(dtype))


def read_design(X, /, *, name="X", sparse_ok=True, **arrays):
    """Check a matrix and the arrays that come with it.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
    name : str
        What messages call it.
    sparse_ok : bool
        Whether it may be sparse.
    **arrays : array or None
        By name; the caller checks them.

    Returns
    -------
    Ingest, Design
        The arrays, `X` among them where it is dense, and the matrix.
    """
    if sparse_ok and is_sparse(X):
        return _from_sparse(X, name, arrays)
    hint = {} if sparse_ok else {name: f"pass `{name}.toarray()`"}
    io = Ingest(sparse_hint=hint, **{name: X, **arrays})
    with io.device:
        if name in io and io.is_fortran(name):
            dense = check_array(io, name, ndim=2, transposed=True).T
        else:
            dense = check_array(io, name, ndim=2)
    if dense is None:
        raise TypeError(f"`{name}` came as NoneType; expected a matrix")
    return io, Design(io.be, dense, False)


def _from_sparse(X, name, arrays):
    if X.ndim != 2:
        raise ValueError(f"`{name}` came {X.ndim}-D; expected 2-D")
    if 0 in X.shape:
        raise ValueError(f"`{name}` came empty, with shape {X.shape}; expected entries")
    csc = X.tocsc()
    if not csc.has_canonical_format:
        # The caller's matrix stays as it is.
        csc = csc.copy() if csc is X or csc.data is getattr(X, "data", None) else csc
        csc.sum_duplicates()
    io = Ingest(**{name: csc.data, **arrays})
    with io.device:
        data = check_array(io, name, nonempty=False)
        where = io.be.sparse
        matrix = where.csc_array if hasattr(where, "csc_array") else where.csc_matrix
        return io, Design(io.be, matrix((data, csc.indices, csc.indptr), shape=csc.shape), True)
