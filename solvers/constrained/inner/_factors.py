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
_DEPENDENT = 1e-3


class BandedLU:
    """LU with row exchanges inside a narrow band; it says nothing of the inertia."""

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
    """SuperLU with pivots from the diagonal, of a quasi-definite or definite matrix.

    Parameters
    ----------
    A : CSC matrix
    n : int
        How many pivots are positive if the problem is convex.
    """

    def __init__(self, A, n):
        self.singular = False
        try:
            self._lu = splu(
                A,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True, "Equil": False},
            )
        except RuntimeError:
            self.convex, self.singular, self._lu = None, True, None
            return
        pivots, order = self._lu.U.diagonal(), self._lu.perm_c
        if not np.array_equal(self._lu.perm_r, order):
            # Pivots off the diagonal: their signs mean nothing.
            self.convex = None
            return
        self.convex = bool(np.count_nonzero(pivots > 0) == n)
        if self.convex and n == len(pivots):
            self.singular = not (pivots[order] > _ZERO * A.diagonal()).all()

    def solve(self, r):
        """Return the solution."""
        return self._lu.solve(r) if self._lu else np.full_like(r, np.nan)


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


class QuasiDefinite(SymmetricLU):
    """The same of a saddle matrix, whose rows may depend on each other.

    Parameters
    ----------
    K : CSC matrix
        With its dual regularisation.
    n : int
    delta : float
        The dual regularisation, if it is not the caller's.
    """

    def __init__(self, K, n, delta):
        super().__init__(K, n)
        m = K.shape[0] - n
        if self.convex and delta and m:
            # Rows that depend on each other show in a solution as large as 1 / delta.
            w = np.zeros(n + m)
            w[n:] = np.random.default_rng(0).standard_normal(m)
            self.singular = not abs(self.solve(w)[n:]).max() < _DEPENDENT / delta


def quasi_definite(G):
    """Return the dual regularisation with which a saddle matrix is factored."""
    return _QUASI * max(1.0, abs(G.data).max(initial=0.0))
