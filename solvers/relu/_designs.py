"""What multiplies the weights of programmes without cones: gated data, or random neurons."""

from functools import partial

import numpy as np

# Up to this many samples, systems of gated data are solved by a Cholesky factor.
_DENSE = 2000
# Outputs of neurons are kept up to this many numbers, and computed in blocks beyond.
_KEPT = 2 * 10**8


class GatedData:
    """The maps ``u -> D_i X u``.

    Parameters
    ----------
    be : Backend
    X : array, shape (n, d)
    mask : array, shape (P, n)
        The gates as zeros and ones, in the precision of X.
    """

    def __init__(self, be, X, mask):
        self.be, self.X, self.mask = be, X, mask
        self._K = None

    @property
    def shape(self):
        """Groups and entries of each."""
        return len(self.mask), self.X.shape[1]

    def only(self, on):
        """Return the design of some groups."""
        some = GatedData(self.be, self.X, self.mask[on])
        some._K = self._K
        return some

    def spread(self, U):
        """Return what each group adds to the predictions, shape (c, P, n)."""
        return (U @ self.X.T) * self.mask

    def predictions(self, U):
        """Return the predictions (c, n) of weights (c, P, d)."""
        return self.spread(U).sum(axis=1)

    def transpose(self, z):
        """Return ``X^T D_i z`` for all groups, shape (c, P, d)."""
        return (z[:, None, :] * self.mask) @ self.X

    def keep_products(self):
        """Form the products of all samples, which `solver` needs where they are not many."""
        if len(self.X) <= _DENSE:
            self._K = self.X @ self.X.T

    def solver(self, w, sigma, M):
        """Return what solves ``(diag(w) + sigma F M F^T) x = r`` for one output.

        M is the derivative of a shrinkage, its vectors of one output on their own. Beyond
        `_DENSE` samples the solution is that of the diagonal.
        """
        xp, (a, T) = self.be.xp, M
        B = self.spread(T)
        if self._K is None:
            inner = xp.square(self.X).sum(axis=1) * (a @ self.mask) + xp.square(B).sum(axis=0)
            return lambda r: r / (w + sigma * inner)
        return _cholesky(self.be, w, sigma * (self._K * ((self.mask.T * a) @ self.mask) + B.T @ B))

    def trace(self):
        """Return the trace of ``sum_i F_i F_i^T``."""
        return float((self.be.xp.square(self.X).sum(axis=1) * self.mask.sum(axis=0)).sum())


class Neurons:
    """The outputs of neurons on the samples, ``(X u_j)_+``.

    Parameters
    ----------
    be : Backend
    X : array, shape (n, d)
    directions : array, shape (N, d)
        The neurons.
    """

    def __init__(self, be, X, directions):
        self.be, self.X, self.directions = be, X, directions
        self.kept = self._outputs(slice(None)) if len(X) * len(directions) <= _KEPT else None

    @property
    def shape(self):
        """Groups and entries of each."""
        return len(self.directions), 1

    def only(self, on):
        """Return the design of some neurons."""
        some = Neurons.__new__(Neurons)
        some.be, some.X, some.directions = self.be, self.X, self.directions[on]
        some.kept = self._outputs(on) if self.kept is None else self.kept[on]
        return some

    def predictions(self, U):
        """Return the predictions (c, n) of weights (c, N, 1)."""
        return sum(U[:, at, 0] @ H for at, H in self._blocks())

    def transpose(self, z):
        """Return ``h_j^T z`` for all neurons, shape (c, N, 1)."""
        return self.be.xp.concatenate([z @ H.T for _, H in self._blocks()], axis=1)[:, :, None]

    def keep_products(self):
        """Form nothing: there are few active neurons."""

    def solver(self, w, sigma, M):
        """Return what solves ``(diag(w) + sigma H M H^T) x = r`` for one output.

        M is 1 for neurons that are not zero: there are only such.
        """
        H, n = self.kept, len(w)
        if len(H) >= n:
            return _cholesky(self.be, w, sigma * (H.T @ H))
        # As many equations as neurons, by the formula of Woodbury.
        light = H / w
        small = _cholesky(self.be, self.be.xp.ones_like(H[:, 0]) / sigma, light @ H.T)
        return lambda r: (r - small(H @ (r / w)) @ H) / w

    def trace(self):
        """Return the trace of ``H H^T``."""
        return float(sum(self.be.xp.square(H).sum() for _, H in self._blocks()))

    def _outputs(self, at):
        return self.be.xp.maximum(self.directions[at] @ self.X.T, 0.0)

    def _blocks(self):
        """Yield places and outputs, a block of neurons at a time where all would not fit."""
        if self.kept is not None:
            yield slice(None), self.kept
            return
        width = max(1, _KEPT // (8 * len(self.X)))
        for first in range(0, len(self.directions), width):
            at = slice(first, first + width)
            yield at, self._outputs(at)


def _cholesky(be, w, A):
    """Return what solves ``(diag(w) + A) x = r``, in double precision."""
    xp = be.xp
    H, at = A.astype(np.float64), xp.arange(len(w))
    # Kinks of the loss may leave nothing but A, which need not have full rank.
    H[at, at] += w + 1e-13 * xp.trace(H) / len(w)
    C = be.cholesky(H)
    solve = partial(be.linalg.solve_triangular, C, lower=True, check_finite=False)

    def apply(r):
        return solve(solve(r.astype(np.float64)), trans=1).astype(r.dtype)

    return apply
