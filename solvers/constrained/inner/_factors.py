"""Sparse factorisations, each with ``solve(r)`` and what it knows of inertia and rank.

``convex`` is True or False where pivots tell whether B is positive definite on the kernel of G,
None where they do not. ``singular`` tells of a zero pivot.
"""

import numpy as np
from scipy.linalg import lapack
from scipy.sparse.linalg import splu

# A pivot this small beside the largest is zero but for rounding.
_ZERO = 1e-14
# Makes a saddle matrix quasi-definite, so that pivots may be taken from the diagonal in any order;
# one step of refinement takes away what it changes.
_QUASI = 1e-8
# What shows a null vector: solutions this large, beside those of the largest diagonal entry or of
# the regularisation alone.
_NULL, _DEPENDENT = 1e13, 1e-3


class BandedLU:
    """LU with row exchanges inside a narrow band, which say nothing of the inertia."""

    def __init__(self, pattern, values):
        self._order, self._width = pattern.order, pattern.bandwidth
        ab = pattern.full_band(values)
        self._lu, self._rows, _ = lapack.dgbtrf(ab, self._width, self._width, overwrite_ab=1)
        pivots = abs(self._lu[2 * self._width])
        self.convex, self.singular = None, not pivots.min() > _ZERO * pivots.max()

    def solve(self, r):
        """Return the solution."""
        d = np.empty_like(r)
        d[self._order] = lapack.dgbtrs(
            self._lu, self._width, self._width, r[self._order], self._rows
        )[0]
        return d


class BandedCholesky:
    """Cholesky factor of a positive definite matrix inside its band."""

    def __init__(self, pattern, values):
        self._order = pattern.order
        ab = pattern.lower_band(values)
        least = _ZERO * ab[0]
        self._factor, info = lapack.dpbtrf(ab, lower=1, overwrite_ab=1)
        self.convex, self.singular = True, info != 0 or not (self._factor[0] ** 2 > least).all()

    def solve(self, r):
        """Return the solution."""
        d = np.empty_like(r)
        d[self._order] = lapack.dpbtrs(self._factor, r[self._order], lower=1)[0]
        return d


class SymmetricLU:
    """SuperLU with pivots from the diagonal, for matrices that need no others."""

    def __init__(self, A):
        self.convex, self.singular = None, False
        try:
            self._lu = splu(
                A,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
        except RuntimeError:
            self.singular, self._lu = True, None

    def solve(self, r):
        """Return the solution."""
        return self._lu.solve(r) if self._lu else np.full_like(r, np.nan)

    def _has_small_pivot(self, first, size):
        """Tell whether the rows from `first` on have a null vector, within ``1 / size``."""
        w = np.zeros(self._lu.shape[0])
        # One step of inverse iteration; reading the pivots would cost more.
        w[first:] = np.random.default_rng(0).standard_normal(len(w) - first)
        return not abs(self.solve(w)[first:]).max(initial=0.0) < size


class Definite(SymmetricLU):
    """The same of a matrix that is positive definite or singular."""

    def __init__(self, A):
        super().__init__(A)
        self.convex = True
        if self._lu:
            self.singular = self._has_small_pivot(0, _NULL / A.diagonal().max())


class QuasiDefinite(SymmetricLU):
    """The same of a saddle matrix with a dual regularisation.

    Parameters
    ----------
    K : CSC matrix
    n : int
        How many pivots are positive if the problem is convex.
    delta : float
        The dual regularisation, if it is not the caller's: then rows may depend on each other.
    """

    def __init__(self, K, n, delta):
        super().__init__(K)
        # Off the diagonal, the signs of pivots mean nothing.
        if self._lu and np.array_equal(self._lu.perm_r, self._lu.perm_c):
            self.convex = bool(np.count_nonzero(self._lu.U.diagonal() > 0) == n)
            if self.convex and delta:
                self.singular = self._has_small_pivot(n, _DEPENDENT / delta)


class PivotingLU:
    """SuperLU with partial pivoting, slower and safe."""

    def __init__(self, A):
        self.convex = None
        try:
            self._lu, self.singular = splu(A, permc_spec="COLAMD"), False
        except RuntimeError:
            self._lu, self.singular = None, True

    def solve(self, r):
        """Return the solution."""
        return self._lu.solve(r) if self._lu else np.full_like(r, np.nan)


def quasi_definite(G):
    """Return the dual regularisation with which a saddle matrix is factored."""
    return _QUASI * max(1.0, abs(G.data).max(initial=0.0))
