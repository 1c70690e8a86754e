"""Random linear maps to few dimensions that nearly keep lengths, for NumPy and CuPy arrays.

Each draws its S (s, n) once, on the host, with E[S^T S] = I. `apply` multiplies by S and
`apply_t` by its transpose, in the precision of the argument. Which to take: `SparseSign` for its
speed, also on sparse matrices; `SRHT` where s must be close to the rank; `Gaussian` for theory.
"""

import numpy as np

from .arrays import is_sparse
from .backend import get_backend
from .random import check_rng
from .validation import check_memory

# Columns of a Gaussian sketch that are in memory at a time.
_TILE = 4096


class Sketch:
    """What all sketches share.

    Attributes
    ----------
    shape : (int, int)
        Rows s and columns n of S.
    """

    takes_sparse = True

    def __init__(self, s, n):
        self.shape = (s, n)

    def apply(self, A):
        """Return ``S A``, dense, for A of shape (n,) or (n, d), dense or in compressed rows."""
        if is_sparse(A) and not self.takes_sparse:
            raise TypeError("`A` came as a sparse matrix; expected a dense array, or SparseSign")
        return self._multiply(self._apply, A)

    def apply_t(self, Y):
        """Return ``S^T Y`` for a dense Y of shape (s,) or (s, d)."""
        return self._multiply(self._apply_t, Y)

    def _multiply(self, product, A):
        device = type(A).__module__.startswith("cupy")
        be = get_backend("cupy" if device else "numpy")
        if is_sparse(A):
            return product(A.tocsr(), be)
        # A vector is a matrix of one column; kernels run along rows in memory.
        columns = be.xp.ascontiguousarray(A).reshape(A.shape[0], -1)
        return product(columns, be).reshape(-1, *A.shape[1:])


class SparseSign(Sketch):
    """Sparse random signs: `nnz` entries ``+-nnz^-1/2`` in each column of S.

    The rows are cut into `nnz` ranges; each column has one entry in each. ``nnz=1`` is the
    CountSketch. A subspace of dimension d survives with s >= 8 d and the default `nnz`.

    Parameters
    ----------
    s, n : int
        Shape of S.
    nnz : int, default 8
        Entries in each column, at most s.
    rng : None, int, SeedSequence, BitGenerator or Generator
        Where the randomness comes from.
    """

    def __init__(self, s, n, nnz=8, *, rng=None):
        super().__init__(s, n)
        nnz = min(nnz, s)
        # Rows and signs follow from the bits, wherever they are needed.
        self._bits = check_rng(rng).integers(2**32, size=(n, nnz), dtype=np.uint32)
        self._ranges = (np.arange(nnz + 1) * s // nnz).astype(np.uint32)
        self._scale = nnz**-0.5
        self._plans = {}

    def _apply(self, A, be):
        kernels = be.kernels("solvers._core")
        product = kernels.sparse_sign_csr if is_sparse(A) else kernels.sparse_sign
        return self._filled(product, self.shape[0], A, be)

    def _apply_t(self, Y, be):
        product = be.kernels("solvers._core").sparse_sign_t
        return self._filled(product, self.shape[1], Y, be)

    def _filled(self, product, rows, A, be):
        out = be.xp.empty((rows, A.shape[1]), A.dtype)
        product(self._plan(be), A.dtype.type(self._scale), A, out)
        return out

    def _plan(self, be):
        if be.name not in self._plans:
            plan = be.kernels("solvers._core").sparse_sign_plan
            self._plans[be.name] = plan(be.xp.asarray(self._bits), self._ranges)
        return self._plans[be.name]


class SRHT(Sketch):
    """Subsampled randomised Hadamard transform: random signs, transform, s sampled rows.

    Works on a copy of A whose rows are padded with zeros to a power of two.

    Parameters
    ----------
    s, n : int
        Shape of S.
    rng : None, int, SeedSequence, BitGenerator or Generator
        Where the randomness comes from.
    """

    takes_sparse = False

    def __init__(self, s, n, *, rng=None):
        super().__init__(s, n)
        rng = check_rng(rng)
        self._padded = 1 << (max(s, n) - 1).bit_length()
        self._picked = rng.choice(self._padded, s, replace=False)
        self._signs = rng.choice(np.array([-1, 1], np.int8), n)

    def _apply(self, A, be):
        X, signs, picked = self._workspace(A, be)
        be.xp.multiply(signs[:, None], A, out=X[: A.shape[0]])
        be.kernels("solvers._core").hadamard(X)
        return X[picked]

    def _apply_t(self, Y, be):
        X, signs, picked = self._workspace(Y, be)
        X[picked] = Y
        be.kernels("solvers._core").hadamard(X)
        return X[: self.shape[1]] * signs[:, None]

    def _workspace(self, A, be):
        xp, d = be.xp, A.shape[1]
        if be.name == "numpy":
            nbytes = self._padded * d * A.dtype.itemsize
            check_memory(nbytes, "The Hadamard transform", "Use SparseSign")
        signs = xp.asarray(self._signs).astype(A.dtype) * A.dtype.type(self.shape[0] ** -0.5)
        return xp.zeros((self._padded, d), A.dtype), signs, xp.asarray(self._picked)


class Gaussian(Sketch):
    """Independent normal entries of variance 1/s.

    S is drawn again, a few thousand columns at a time, whenever it is applied, so that it is never
    whole in memory. A GPU draws other numbers than a CPU, the same ones each time.

    Parameters
    ----------
    s, n : int
        Shape of S.
    rng : None, int, SeedSequence, BitGenerator or Generator
        Where the randomness comes from.
    """

    def __init__(self, s, n, *, rng=None):
        super().__init__(s, n)
        self._seeds = check_rng(rng).integers(2**63, size=-(-n // _TILE))

    def _apply(self, A, be):
        out = be.xp.zeros((self.shape[0], A.shape[1]), A.dtype)
        for columns, S in self._tiles(A.dtype, be):
            # In this order the product is dense for a sparse A too.
            out += (A[columns].T @ S.T).T
        return out

    def _apply_t(self, Y, be):
        out = be.xp.empty((self.shape[1], Y.shape[1]), Y.dtype)
        for columns, S in self._tiles(Y.dtype, be):
            out[columns] = S.T @ Y
        return out

    def _tiles(self, dtype, be):
        s, n = self.shape
        for seed, first in zip(self._seeds, range(0, n, _TILE), strict=True):
            columns = slice(first, min(first + _TILE, n))
            normal = be.xp.random.default_rng(int(seed)).standard_normal
            S = normal((s, columns.stop - first)).astype(dtype)
            S *= dtype.type(s**-0.5)
            yield columns, S
