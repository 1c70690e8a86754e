"""The rows of a matrix, dense or compressed, behind one face; and steps over single rows."""

import math

import numpy as np

from ..._core.arrays import is_sparse
from .._matrices import is_operator

# Fewest single steps between two looks at the residual.
SHORTEST = 64
# Entries of rows that are copied together.
_ROOM = 1 << 22


class Rows:
    """The rows of a matrix, and the kernels that step over them.

    Parameters
    ----------
    A : matrix (N, p)
        An operator has no rows to step over, but may be sketched.
    be : Backend

    Attributes
    ----------
    squares : array (N,)
        Squared lengths.
    length : float
        The Frobenius norm, estimated for an operator.
    sparse : bool
        Whether rows are compressed.
    """

    def __init__(self, A, *, be):
        self.A, self.be, self.shape, self.sparse = A, be, A.shape, is_sparse(A)
        self._kernels = be.kernels("solvers.constrained")
        xp = be.xp
        if is_operator(A):
            self.length = _frobenius(A, be)
            return
        if self.sparse:
            if not A.has_canonical_format:
                A = A.copy()
                A.sum_duplicates()
            # One integer type each, or Numba compiles once more.
            self._data = A.data, A.indices.astype(np.int32), A.indptr.astype(np.int64)
            squared = be.sparse.csr_matrix((A.data**2, A.indices, A.indptr), shape=A.shape)
            self.squares = squared @ xp.ones(A.shape[1])
        else:
            self._data = (A,)
            self.squares = xp.einsum("ij,ij->i", A, A)
        positive = xp.where(self.squares > 0, self.squares, 1.0)
        self._inverse = xp.where(self.squares > 0, 1.0 / positive, 0.0)
        self._scale = xp.sqrt(self._inverse)
        self.length = math.sqrt(be.host(self.squares.sum()))

    def step(self, b, order, x):
        """Project x onto single equations, in this order."""
        suffix = "_csr" if self.sparse else ""
        run = getattr(self._kernels, "kaczmarz" + suffix)
        run(*self._data, b, self._inverse, self.be.xp.asarray(order), x)

    def block_steps(self, b, blocks, factors, order, x, *, z=0.0, eta=0.0, v=None):
        """Project x onto blocks of equations; return the squared residuals that were found."""
        xp = self.be.xp
        squares = xp.empty(len(order))
        suffix = "_csr" if self.sparse else ""
        run = getattr(self._kernels, "block_kaczmarz" + suffix)
        v = xp.empty(0) if v is None else v  # not touched without momentum
        order = xp.asarray(order)
        run(*self._data, b, self._scale, blocks, factors, order, z, eta, v, x, squares)
        return squares

    def factors(self, blocks, ridge):
        """Return the Cholesky factors (k, q, q) of the Gram matrices of unit rows."""
        scale = self._scale
        gram = self.be.xp.empty((*blocks.shape, blocks.shape[1]))
        if self.sparse:
            self._kernels.gram_csr(*self._data, scale, blocks, self.shape[1], gram)
        else:
            some = max(_ROOM // (blocks.shape[1] * self.shape[1]), 1)
            for first in range(0, len(blocks), some):
                part = blocks[first : first + some]
                W = self.A[part] * scale[part][:, :, None]
                gram[first : first + some] = W @ W.transpose(0, 2, 1)
        return _cholesky(gram, ridge, be=self.be)


def _frobenius(A, be, probes=8):
    """Estimate the Frobenius norm by products with random signs."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(probes, A.shape[1]))
    images = [A @ v for v in be.xp.asarray(signs)]
    return math.sqrt(be.host(sum(v @ v for v in images)) / probes)


def _cholesky(gram, ridge, *, be):
    """Factor matrices that may be singular: `ridge`, or more if need be, joins their diagonals."""
    eye = be.xp.eye(gram.shape[1])
    for more in (1.0, 1e3, 1e6):
        try:
            return be.cholesky(gram + more * ridge * eye)
        except np.linalg.LinAlgError:
            continue
    # Entries that are not finite: steps that use it show that.
    return be.xp.full_like(gram, np.nan)


class Stepper:
    """What moves x; each kind of sketch has one.

    Those have ``advance(x, steps)``, which takes so many steps, at most `stride`, in place.

    Parameters
    ----------
    rows : Rows
    size : int
        Equations in a block.
    rng : numpy.random.Generator

    Attributes
    ----------
    sweep : int
        Steps that touch about as many equations as there are.
    stride : int
        Steps between two looks at the residual: a sweep, or more where that is over too soon.
    monotone : bool
        Whether no step moves away from the solution.
    """

    monotone = True

    def __init__(self, rows, size, rng):
        self.rows, self.size, self.rng = rows, size, rng
        self.sweep = self.stride = -(-rows.shape[0] // size)

    def pose(self, b):
        """Take a right-hand side."""
        self.b = b


class Single(Stepper):
    """What takes single equations."""

    def __init__(self, rows, size, rng):
        super().__init__(rows, size, rng)
        # A look costs as much as dozens of short steps.
        self.stride = max(self.sweep, SHORTEST)


class Uniform(Single):
    """Single equations, each with the same probability."""

    def advance(self, x, steps):
        self.rows.step(self.b, self.rng.integers(self.rows.shape[0], size=steps), x)


class Weighted(Single):
    """Single equations, with probabilities by their rows' squared lengths."""

    def __init__(self, rows, size, rng):
        super().__init__(rows, size, rng)
        total = np.cumsum(rows.be.host(rows.squares))
        self._ends = total / total[-1] if total[-1] > 0 else np.ones_like(total)

    def advance(self, x, steps):
        order = np.searchsorted(self._ends, self.rng.random(steps), side="right")
        self.rows.step(self.b, order, x)


class Shuffled(Single):
    """Single equations, all of them once in each sweep."""

    def advance(self, x, steps):
        turns = [self.rng.permutation(self.sweep) for _ in range(-(-steps // self.sweep))]
        self.rows.step(self.b, np.concatenate(turns)[:steps], x)
