"""The three kinds of matrices that callers hand in, and the little algebra that solvers need.

A matrix is a dense array, a compressed sparse row array, or an `Operator`. All take ``A @ v`` and
``A.T @ v``.
"""

import itertools

import numpy as np

from .._core.arrays import is_sparse


class Operator:
    """A linear map that is known by its products alone.

    Parameters
    ----------
    shape : (int, int)
    dot, rdot : callable
        Products of the map and of its transpose with a vector.

    Attributes
    ----------
    plain : Operator
        The map without the diagonal that was added to it.
    added : array (n,) or None
        That diagonal.
    """

    def __init__(self, shape, dot, rdot):
        self.shape, self._dot, self._rdot = tuple(shape), dot, rdot
        self.plain, self.added = self, None

    def __matmul__(self, v):
        return self._dot(v)

    @property
    def T(self):  # noqa: N802 (as arrays have it)
        return Operator(self.shape[::-1], self._rdot, self._dot)


class LowRank(Operator):
    """A diagonal and a symmetric matrix of low rank, ``diag(d) + U C U^T``.

    Parameters
    ----------
    d : array (n,)
    U : array (n, k)
    C : array (k, k)
        Symmetric.
    """

    def __init__(self, d, U, C):
        dot = lambda v: d * v + U @ (C @ (U.T @ v))  # noqa: E731
        super().__init__((len(d), len(d)), dot, dot)
        self.d, self.U, self.C = d, U, C

    def dense(self, *, be):
        """Return it as a dense array."""
        return be.xp.diag(self.d) + self.U @ (self.C @ self.U.T)

    def padded(self, n, *, be):
        """Return it with rows and columns of zeros added up to a size of n."""
        more = n - len(self.d)
        xp, k = be.xp, len(self.C)
        d = xp.concatenate([self.d, xp.zeros(more)])
        return LowRank(d, xp.concatenate([self.U, xp.zeros((more, k))]), self.C)


def is_operator(A):
    """Tell whether a matrix has no entries to look at."""
    return isinstance(A, Operator)


def is_dense(A):
    """Tell whether a matrix is a dense array."""
    return not is_operator(A) and not is_sparse(A)


def add(A, B, *, be):
    """Return ``A + B`` in the more general of both forms; operators give an operator."""
    if type(A) is type(B) is be.xp.ndarray:
        return A + B
    if is_operator(A) or is_operator(B):
        return Operator(A.shape, lambda v: A @ v + B @ v, lambda v: A.T @ v + B.T @ v)
    if is_sparse(A) and is_sparse(B):
        return (A + B).tocsr()
    return to_dense(A, be=be) + to_dense(B, be=be)


def add_diagonal(A, d, *, be):
    """Return ``A + diag(d)`` for a vector d."""
    if isinstance(A, LowRank):
        return LowRank(A.d + d, A.U, A.C)
    if is_operator(A):
        plain, d = A.plain, d if A.added is None else A.added + d
        out = Operator(A.shape, lambda v: plain @ v + d * v, lambda v: plain.T @ v + d * v)
        out.plain, out.added = plain, d
        return out
    if is_sparse(A):
        return (A + be.sparse.diags(d)).tocsr()
    out = A.copy()
    out[be.xp.arange(len(d)), be.xp.arange(len(d))] += d
    return out


def scaled(A, rows, *, be):
    """Return ``diag(rows) A``; `rows` may be a number."""
    if is_operator(A):
        return Operator(A.shape, lambda v: rows * (A @ v), lambda v: A.T @ (rows * v))
    if is_sparse(A):
        if not getattr(rows, "ndim", 0):
            return A * rows
        A = A.tocsr()
        data = A.data * be.xp.repeat(rows, _lengths(A, be))
        return type(A)((data, A.indices, A.indptr), shape=A.shape)
    return A * (rows[:, None] if getattr(rows, "ndim", 0) else rows)


def _lengths(A, be):
    """Return how many entries each row of a CSR matrix has, as NumPy and CuPy repeat takes it."""
    lengths = A.indptr[1:] - A.indptr[:-1]
    return lengths if be.name == "numpy" else be.host(lengths).tolist()


def scale_both(A, s, *, be):
    """Return ``diag(s) A diag(s)`` of a matrix with entries."""
    if is_sparse(A):
        diagonal = be.sparse.diags(s)
        return (diagonal @ A @ diagonal).tocsr()
    return s[:, None] * A * s


def columns(A, picked, *, be):
    """Return the picked columns of a matrix."""
    if not is_operator(A):
        return A[:, picked]

    def spread(v):
        out = be.xp.zeros(A.shape[1], v.dtype)
        out[picked] = v
        return out

    shape = A.shape[0], len(picked)
    return Operator(shape, lambda v: A @ spread(v), lambda v: (A.T @ v)[picked])


def stacked(parts, n, *, be):
    """Return matrices of n columns below each other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return be.xp.zeros((0, n))
    if any(map(is_operator, parts)):
        ends = np.cumsum([0, *(A.shape[0] for A in parts)])
        cuts = [slice(*pair) for pair in itertools.pairwise(ends)]
        return Operator(
            (int(ends[-1]), n),
            lambda v: be.xp.concatenate([A @ v for A in parts]),
            lambda v: sum(A.T @ v[cut] for A, cut in zip(parts, cuts, strict=True)),
        )
    if any(map(is_sparse, parts)):
        return be.sparse.vstack([be.sparse.csr_matrix(A) for A in parts]).tocsr()
    return be.xp.concatenate(parts)


def to_dense(A, *, be):
    """Return a matrix as a dense array; operators are multiplied by the unit vectors."""
    if isinstance(A, LowRank):
        return A.dense(be=be)
    if is_operator(A):
        eye = be.xp.eye(A.shape[1])
        return be.xp.stack([A @ e for e in eye], axis=1)
    return A.toarray() if is_sparse(A) else A
