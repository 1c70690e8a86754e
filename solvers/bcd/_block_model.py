"""Quadratic models of a loss in some coefficients, as a matrix or by their columns.

A model knows its gradient `g` where it stands; sweeps and steps keep it up to date. The
intercept is eliminated from a matrix, and is one more feature among columns.
"""

from functools import partial

import numpy as np

from .._core.linalg import pcg
from ._blocks import Blocks, split

# Up to that many coefficients, and multiplications for the matrix, a model is a matrix.
_LARGEST, _MOST_WORK = 3000, 1e10
# As many products with columns as conjugate gradients need, nearly.
_SWEEPS = 40


def is_small(n, size):
    """Tell whether a model of `size` coefficients of n samples should be a matrix."""
    return size <= _LARGEST and float(n) * size * size <= _MOST_WORK


class MatrixModel:
    """A model given by its second derivatives.

    Parameters
    ----------
    be : Backend
    H : array, shape (N, N)
        Second derivatives by the coefficients.
    g : array, shape (N,)
        Gradient by the coefficients.
    cross : array, shape (N, C), optional
        Second derivatives by coefficients and intercepts.
    inverse : array, shape (C, C), optional
        Inverse of the second derivatives by the intercepts.
    slope : array, shape (C,), optional
        Gradient by the intercepts.
    """

    def __init__(self, be, H, g, cross=None, inverse=None, slope=None):
        self.be, self.H, self.g = be, H, g.copy()
        self.cross, self.inverse, self.slope = cross, inverse, slope
        if cross is not None:
            self.H = H - cross @ inverse @ cross.T
            self.g -= cross @ (inverse @ slope)

    def sweeps(self, support):
        """Return how many sweeps take as long as a Newton step on a support."""
        return support * support // (6 * self.g.size)

    def begin(self, blocks, w):
        """Return the model's own blocks and coefficients, to start from."""
        blocks = split(self.be.xp, blocks)
        self.blocks, self.bound = blocks, self.be.xp.empty(blocks.number)
        self._kernels.block_bounds(self.H, blocks.ptr, self.bound)
        return blocks, w.copy()

    def end(self, w, before):
        """Return the steps of coefficients and intercept; a number for one class."""
        d = w - before
        if self.cross is None:
            return d, 0.0
        step = -self.inverse @ (self.slope + self.cross.T @ d)
        return d, step if step.size > 1 else step[0]

    def sweep(self, w, sweeps, tol):
        """Sweep over the blocks."""
        arguments = self.blocks.arguments
        self._kernels.block_sweeps(self.H, *arguments, self.bound, w, self.g, sweeps, tol)

    def solve(self, S, bend, b, rtol):
        """Return the solution d of ``(H + bend) d = b`` in the entries S, or None."""
        be, xp = self.be, self.be.xp
        A = self.H[xp.ix_(S, S)] + bend.matrix()
        # Columns may be of any size.
        root = xp.sqrt(xp.maximum(A.diagonal(), np.finfo(float).tiny))
        A /= root[:, None] * root
        for lift in (1e-14, 1e-12, 1e-10):
            try:
                factor = be.cholesky(A + lift * xp.eye(S.size))
            except np.linalg.LinAlgError:
                continue
            half = _triangular(be, factor, b / root, 0)
            return _triangular(be, factor, half, 1) / root
        return None

    def push(self, S, step):
        """Return how a step of the entries S changes the gradient."""
        return self.H[:, S] @ step

    def move(self, dg):
        """Take the step that was pushed last."""
        self.g += dg

    @property
    def _kernels(self):
        return self.be.kernels("solvers.bcd", "groups")


class ColumnModel:
    """A model given by columns and the second derivatives of the losses.

    Parameters
    ----------
    be : Backend
    A : array or sparse array, shape (n, m)
        Columns of the features.
    D : array, shape (n,)
        Second derivatives of the losses, or sample weights if there are classes.
    Q : array, shape (n, C), or None
        Probabilities of the classes.
    r : array, shape (n,) or (n, C)
        Slopes of the losses.
    fit_intercept : bool
    """

    def __init__(self, be, A, D, Q, r, fit_intercept):
        xp = be.xp
        self.be, self.D, self.fit_intercept, self.sparse = be, D, fit_intercept, hasattr(A, "nnz")
        if fit_intercept:
            ones = xp.ones((A.shape[0], 1))
            join = be.sparse.hstack if self.sparse else partial(xp.concatenate, axis=1)
            A = join([A, ones])
            A = A.tocsc() if self.sparse else A
        self.A, self.C = A, r.shape[1] if r.ndim == 2 else 1
        self.rows = None if self.sparse else xp.ascontiguousarray(A.T)
        # Samples last, for long loops in kernels.
        self.Q = xp.zeros((0, D.size)) if Q is None else xp.ascontiguousarray(Q.T)
        self.R = xp.array(r.reshape(D.size, self.C).T, order="C")
        self._renew()

    def sweeps(self, support):
        """Return how many sweeps take as long as a Newton step on a support."""
        return _SWEEPS

    def begin(self, blocks, w):
        """Return the model's own blocks and coefficients, to start from."""
        xp, C = self.be.xp, self.C
        if self.fit_intercept:
            blocks, w = _with_intercept(xp, blocks, C), xp.concatenate([w, xp.zeros(C)])
        squares = self.A.multiply(self.A) if self.sparse else self.A * self.A
        if self.Q.size:
            D = self.D * (2.0 * self.Q * (1.0 - self.Q)).max(axis=0)
            self.diagonal = squares.T @ (self.D * self.Q * (1.0 - self.Q)).T
        else:
            D, self.diagonal = self.D, squares.T @ self.D[:, None]
        self.diagonal = self.diagonal.reshape(-1)
        # The largest eigenvalue of a block is at most the sum of those of its features.
        each = xp.repeat(squares.T @ D, C) / C
        self.bound = xp.bincount(blocks.owner, each, minlength=blocks.number)
        self.blocks = blocks
        return blocks, w.copy()

    def end(self, w, before):
        """Return the steps of coefficients and intercept; a number for one class."""
        size = before.size
        step = w[size:] if self.fit_intercept else self.be.xp.zeros(self.C)
        return w[:size] - before, step if self.C > 1 else step[0]

    def sweep(self, w, sweeps, tol):
        """Sweep over the blocks."""
        kernels, arguments = self.be.kernels("solvers.bcd", "groups"), self.blocks.arguments
        model = self.D, self.Q, *arguments, self.bound, w, self.R, sweeps, tol
        if self.sparse:
            kernels.sparse_column_sweeps(self.A.indptr, self.A.indices, self.A.data, *model)
        else:
            kernels.column_sweeps(self.rows, *model)
        self._renew()

    def solve(self, S, bend, b, rtol):
        """Return the solution d of ``(H + bend) d = b`` in the entries S, nearly, or None."""
        diagonal = self.diagonal[S] + bend.diagonal()
        lift = 1e-12 * diagonal + np.finfo(float).tiny
        inverse = 1.0 / (diagonal + lift)
        found = pcg(
            lambda v: self._pull(self._bend(S, v))[S] + bend.times(v) + lift * v,
            b,
            be=self.be,
            precond=lambda v: inverse * v,
            tol=rtol,
            maxiter=500,
        )
        return found.x

    def push(self, S, step):
        """Return how a step of the entries S changes the gradient."""
        self._pushed = self._bend(S, step)
        return self._pull(self._pushed)

    def move(self, dg):
        """Take the step that was pushed last."""
        self.R += self._pushed
        self.g += dg

    def _renew(self):
        self.g = self._pull(self.R)

    def _pull(self, R):
        return (self.A.T @ R.T).reshape(-1)

    def _bend(self, S, step):
        """Return how a step of the entries S changes the slopes."""
        V = self.be.xp.zeros(self.A.shape[1] * self.C)
        V[S] = step
        U = (self.A @ V.reshape(-1, self.C)).T
        if self.Q.size:
            U = self.Q * (U - (self.Q * U).sum(axis=0))
        return self.D * U


def _triangular(be, factor, b, trans):
    return be.linalg.solve_triangular(factor, b, lower=True, trans=trans, check_finite=False)


def _with_intercept(xp, blocks, C):
    """Return blocks with one more, of C entries, that is not penalised."""
    none = xp.zeros(C)
    return Blocks(
        xp.concatenate([blocks.ptr, blocks.ptr[-1:] + C]),
        xp.concatenate([blocks.owner, xp.full(C, blocks.number)]),
        xp.concatenate([blocks.l1, none]),
        xp.concatenate([blocks.l2, none[:1]]),
        xp.concatenate([blocks.ridge, none]),
    )
