"""What the judge reads of a problem: the caller's numbers in float64, and products with X."""

import numpy as np

# Numbers in a block of a matrix that is converted or gathered, one block at a time.
_BLOCK = 1 << 20
# Gathering the support's columns pays below this share of all: contiguous columns, other ones.
_FEW, _VERY_FEW = 0.3, 0.05


class Data:
    """Targets and weights of a `GLM` in float64, and products with X, which is never copied.

    Parameters
    ----------
    problem : GLM

    Attributes
    ----------
    be : Backend
    xp : module
    X, XT : array or sparse array
        The matrix and its transpose, a view.
    y, s : array, shape (n,)
        Class numbers stay whole.
    total : float
        Sum of s.
    shape : tuple
        Shape of the coefficients, (p,) or (p, C).
    fit_intercept : bool
    """

    def __init__(self, problem):
        self.be, self.xp = problem.be, problem.xp
        self.sparse, self.X = problem.design.sparse, problem.design.X
        self.XT = problem.design.transposed
        self.y = problem.y if problem.y.dtype.kind == "i" else problem.y.astype(np.float64)
        self.s = problem.s.astype(np.float64)
        self.total = self.be.host(self.s.sum())
        self.shape, self.fit_intercept = problem.shape, problem.fit_intercept

    def predict(self, w, c):
        """Return ``X w + c`` for coefficients (N,)."""
        return self.times(w.reshape(self.shape)) + c

    def times(self, W):
        """Return ``X W``, W (p,) or (p, m), most of whose rows may be zero."""
        xp, p = self.xp, self.X.shape[1]
        used = xp.flatnonzero(W.any(axis=1) if W.ndim == 2 else W)
        if self.sparse and W.ndim == 1 and used.size <= _FEW * p:
            return self._gathered(W, used)
        if self.sparse and used.size and self.X.nnz < _BLOCK:
            return self.X @ W
        share = _FEW if self.sparse or self.X.flags.f_contiguous else _VERY_FEW
        if used.size > share * p:
            return multiply(xp, self.X, W, self.sparse)
        z = xp.zeros((self.X.shape[0], *W.shape[1:]))
        # Sparse columns are gathered at once: what they hold is small.
        width = p if self.sparse else max(_BLOCK // self.X.shape[0], 1)
        for k in range(0, used.size, width):
            some = used[k : k + width]
            z += self.X[:, some] @ W[some]
        return z

    def _gathered(self, w, used):
        """Return ``X w`` for compressed columns, from the entries of those that are used."""
        xp, X = self.xp, self.X
        starts = X.indptr[used]
        counts = X.indptr[used + 1] - starts
        ends = xp.cumsum(counts)
        total = self.be.host(ends[-1]) if used.size else 0
        places = xp.repeat(starts - ends + counts, counts) + xp.arange(total)
        values = X.data[places] * xp.repeat(w[used], counts)
        return xp.bincount(X.indices[places], values, minlength=X.shape[0])

    def pull(self, r):
        """Return ``X^T r``, r (n,) or (n, m)."""
        return multiply(self.xp, self.XT, r, self.sparse)

    def squares(self):
        """Return the sums of ``s_i X_ij^2``, (p,)."""
        if self.sparse:
            squared = self.X.copy()
            squared.data = squared.data.astype(np.float64) ** 2
            return squared.T @ self.s
        return multiply(self.xp, self.XT, self.s, False, of=self.xp.square)

    def columns(self, where):
        """Return some columns as a dense matrix, float64."""
        X = self.X[:, where]
        return (X.toarray() if self.sparse else X).astype(np.float64)


def multiply(xp, X, W, sparse, of=None):
    """Return ``X W`` in float64, or ``of(X) W`` of a dense X, without a copy of X in float64."""
    if of is None and (X.dtype == np.float64 or (sparse and X.nnz <= _BLOCK)):
        return X @ W
    m, n = X.shape
    rows = X.format == "csr" if sparse else X.flags.c_contiguous
    out = xp.zeros((m, *W.shape[1:]))
    # A slice of a sparse matrix is a copy, with its indices.
    stored = 4 * X.nnz if sparse else m * n
    width = max(_BLOCK * (m if rows else n) // stored, 1)
    for k in range(0, m if rows else n, width):
        where = slice(k, k + width)
        block = (X[where] if rows else X[:, where]).astype(np.float64)
        block = block if of is None else of(block)
        if rows:
            out[where] = block @ W
        else:
            out += block @ W[where]
    return out
