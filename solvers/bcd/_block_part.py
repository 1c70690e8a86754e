"""Some coefficients of a model: their columns, gathered, and quadratic models of the loss."""

import numpy as np

from .. import losses
from ._block_model import ColumnModel, MatrixModel, is_small

# Columns with a larger share of stored entries, and no more entries than that, become dense.
_DENSE, _LARGEST = 0.05, 5e7


class Part:
    """The columns of some coefficients.

    Parameters
    ----------
    state : State
        The point of the problem.
    where : array of int
        The coefficients, in the order of groups; of whole features.
    """

    def __init__(self, state, where):
        problem, self.state, self.xp = state.problem, state, state.xp
        self.where, self.C = where, problem.n_classes
        self.kind = state.order[where] % self.C
        self.columns = _gather(problem.design, state.features[where][:: self.C])
        self.column = self.xp.arange(where.size) // self.C
        self._rows = None

    def predict(self, w):
        """Return the predictions of the coefficients."""
        return self.columns @ (w if self.C == 1 else w.reshape(-1, self.C))

    def gradient(self, r):
        """Return the gradient by the coefficients."""
        return (self.columns.T @ r).reshape(-1)

    def whole_features(self, S):
        """Return the entries of all features that have one in S."""
        chosen = self.xp.zeros(self.columns.shape[1], bool)
        chosen[self.column[S]] = True
        return self.xp.flatnonzero(chosen[self.column])

    def model(self, problem, z, r, g, S):
        """Return a quadratic model of the loss in the entries S of these coefficients.

        Parameters
        ----------
        z, r : array
            Predictions and slopes.
        g : array
            Gradient by the coefficients.
        S : array of int
            Whole features, unless `is_small`.
        """
        if not is_small(z.shape[0], S.size):
            return self.column_model(problem, z, r, S)
        if self.C == 1:
            return self._matrix_model(problem, z, r, g, S)
        return self._softmax_model(problem, z, r, g, S)

    def _matrix_model(self, problem, z, r, g, S):
        D, A = problem.curvatures(z), self.columns[:, S]
        H = self._known_gram(D) if isinstance(problem.loss, losses.Squared) else _gram(A, D)
        if not problem.fit_intercept:
            return MatrixModel(problem.be, H, g[S])
        inverse = (1.0 / self.xp.maximum(D.sum(), np.finfo(float).tiny)).reshape(1, 1)
        slope = r.sum(axis=0).reshape(1)
        return MatrixModel(problem.be, H, g[S], (A.T @ D)[:, None], inverse, slope)

    def _known_gram(self, D):
        """Return the Gram matrix of all coefficients, of which the last one's is known."""
        xp, A, known = self.xp, self.columns, self.state.gram
        if known is None:
            H = _gram(A, D)
        else:
            before, G = known
            old = xp.searchsorted(self.where, before)
            new = xp.ones(self.where.size, bool)
            new[old] = False
            new = xp.flatnonzero(new)
            H = xp.empty((self.where.size, self.where.size))
            H[xp.ix_(old, old)] = G
            H[new] = _dot(A[:, new].T, _scaled(A, D[:, None]))
            H[:, new] = H[new].T
        self.state.gram = self.where, H
        return H

    def _softmax_model(self, problem, z, r, g, S):
        xp, s, kind = self.xp, problem.s, self.kind[S]
        q = probabilities(problem, r)
        A = self.columns[:, self.column[S]]
        # Row by row no product with zero is made, and nothing sparse is allocated.
        by_rows = hasattr(A, "nnz") and problem.be.name == "numpy"
        if problem.fit_intercept or not by_rows:
            B = _scaled(A, xp.sqrt(s)[:, None] * q[:, kind])
        H = self._by_rows(problem, q, S) if by_rows else self._by_products(A, B, s, q, S)
        if not problem.fit_intercept:
            return MatrixModel(problem.be, H, g[S])
        cross = -(B.T @ (xp.sqrt(s)[:, None] * q))
        cross[xp.arange(S.size), kind] += _column_sums(A, s[:, None] * q[:, kind])
        inverse = inverse_of_classes(xp, s, q)
        return MatrixModel(problem.be, H, g[S], cross, inverse, r.sum(axis=0))

    def _by_rows(self, problem, q, S):
        """Return second derivatives by the entries S of sparse columns."""
        if self._rows is None:
            rows = self.columns.tocsr()
            self._rows = rows.indptr, rows.indices, rows.data
        place = np.full((self.columns.shape[1], self.C), -1)
        place[self.column[S], self.kind[S]] = np.arange(S.size)
        H = np.zeros((S.size, S.size))
        kernels = problem.be.kernels("solvers.bcd", "newton")
        kernels.softmax_gram(*self._rows, problem.s, q, place, H)
        return H

    def _by_products(self, A, B, s, q, S):
        """Return second derivatives by the entries S, from their columns, plain and weighted."""
        xp, kind = self.xp, self.kind[S]
        H = -_dot(B.T, B)
        for k in range(self.C):
            of = xp.flatnonzero(kind == k)
            H[xp.ix_(of, of)] += _gram(A[:, of], s * q[:, k])
        return H

    def column_model(self, problem, z, r, S):
        """Return the model by columns; S holds whole features."""
        A = self.columns[:, self.column[S][:: self.C]]
        Q = probabilities(problem, r) if problem.multinomial else None
        D = problem.curvatures(z) if Q is None else problem.s
        return ColumnModel(problem.be, A, D, Q, r, problem.fit_intercept)


def probabilities(problem, r):
    """Return the probability of each class for each sample, from the slopes."""
    q = r.copy()
    q[problem.xp.arange(problem.y.size), problem.y] += problem.s
    return q / problem.s[:, None]


def inverse_of_classes(xp, s, q):
    """Return the inverse of the second derivatives by intercepts, which ignore a common shift."""
    weighted = s[:, None] * q
    H = xp.diag(weighted.sum(axis=0)) - weighted.T @ q
    shift = xp.full(H.shape, xp.trace(H) / H.size)
    lift = 1e-14 * xp.trace(H) * xp.eye(q.shape[1])
    return xp.linalg.inv(H + shift + lift)


def _gather(design, features):
    """Return columns in float64, dense where that is the faster way."""
    A = design.columns(features)
    if design.sparse:
        cells = A.shape[0] * A.shape[1]
        if A.nnz < _DENSE * cells or cells > _LARGEST:
            return A.astype(np.float64)
        A = A.toarray()
    return A.astype(np.float64)


def _gram(A, d):
    """Return ``A^T diag(d) A``, dense, for d >= 0."""
    # The product of a matrix with its own transpose takes half the time of any other.
    B = _scaled(A, d[:, None] ** 0.5)
    return _dot(B.T, B)


def _scaled(A, factor):
    return A.multiply(factor).tocsc() if hasattr(A, "multiply") else A * factor


def _dot(A, B):
    product = A @ B
    return product.toarray() if hasattr(product, "toarray") else product


def _column_sums(A, factor):
    if hasattr(A, "multiply"):
        return A.multiply(factor).sum(axis=0).reshape(-1)
    return (A * factor).sum(axis=0)
