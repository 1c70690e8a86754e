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
    X : array or sparse array
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
        self.y = problem.y if problem.y.dtype.kind == "i" else problem.y.astype(np.float64)
        self.s = problem.s.astype(np.float64)
        self.total = self.be.host(self.s.sum())
        self.shape, self.fit_intercept = problem.shape, problem.fit_intercept

    def predict(self, w, c):
        """Return ``X w + c`` for coefficients (N,)."""
        xp, W = self.xp, w.reshape(self.shape)
        used = xp.flatnonzero(W.any(axis=1) if W.ndim == 2 else W)
        p = self.X.shape[1]
        share = _FEW if self.sparse or self.X.flags.f_contiguous else _VERY_FEW
        if used.size > share * p:
            return self._times(W) + c
        z = xp.zeros((self.X.shape[0], *self.shape[1:]))
        # Sparse columns are gathered at once: what they hold is small.
        width = p if self.sparse else max(_BLOCK // self.X.shape[0], 1)
        for k in range(0, used.size, width):
            some = used[k : k + width]
            z += self.X[:, some] @ W[some]
        return z + c

    def pull(self, r):
        """Return ``X^T r``, r (n,) or (n, m)."""
        if self._ready:
            return self.X.T @ r
        parts = ((where, X.T @ (r if across else r[where])) for where, X, across in self._blocks())
        return self._put(parts, (self.X.shape[1], *r.shape[1:]))

    def squares(self):
        """Return the sums of ``s_i X_ij^2``, (p,)."""
        if self.sparse:
            squared = self.X.copy()
            squared.data = squared.data.astype(np.float64) ** 2
            return squared.T @ self.s
        parts = (
            (where, self.xp.square(X).T @ (self.s if across else self.s[where]))
            for where, X, across in self._blocks()
        )
        return self._put(parts, (self.X.shape[1],))

    def columns(self, where):
        """Return some columns as a dense matrix, float64."""
        X = self.X[:, where]
        return (X.toarray() if self.sparse else X).astype(np.float64)

    @property
    def _ready(self):
        """Whether products with X need no conversion that is not made entry by entry."""
        return self.sparse or self.X.dtype == np.float64

    def _times(self, W):
        if self._ready:
            return self.X @ W
        z = self.xp.zeros((self.X.shape[0], *W.shape[1:]))
        for where, X, across in self._blocks():
            if across:
                z += X @ W[where]
            else:
                z[where] = X @ W
        return z

    def _blocks(self):
        """Yield slices of a dense X, by columns (True) or by rows, in float64."""
        across = self.X.flags.f_contiguous and not self.X.flags.c_contiguous
        n, p = self.X.shape
        width = max(_BLOCK // (n if across else p), 1)
        for k in range(0, p if across else n, width):
            where = slice(k, k + width)
            X = self.X[:, where] if across else self.X[where]
            yield where, X.astype(np.float64), across

    def _put(self, parts, shape):
        out = self.xp.zeros(shape)
        for where, part in parts:
            # Blocks of rows add up, those of columns lie side by side.
            if part.shape == out.shape:
                out += part
            else:
                out[where] = part
        return out
