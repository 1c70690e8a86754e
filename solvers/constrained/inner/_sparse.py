"""Sparse direct solves: three factorisations, by the pattern of the matrix, and one to fall back.

- B of small positive definite blocks: Cholesky of the Schur complement ``G B^-1 G^T + delta I``;
- a narrow band: banded LU with partial pivoting, beside a Cholesky factor as test of curvature;
- otherwise SuperLU with symmetric pivots of a quasi-definite neighbour, whose signs are the
  inertia;
- where refinement does not converge: SuperLU with partial pivoting.
"""

import math

import numpy as np
import scipy.sparse as sp

from .._matrices import scaled
from ._blocks import LARGEST_BLOCK
from ._factors import (
    BandedCholesky,
    BandedLU,
    Definite,
    PivotingLU,
    QuasiDefinite,
    quasi_definite,
)
from ._pattern import SaddlePattern, SquarePattern, canonical
from ._saddle import InnerSolve, Saddle

# Bands up to which LAPACK's band solvers beat SuperLU: with row exchanges, and Cholesky's.
_NARROW, _WIDE = 16, 300
# A Schur complement with more entries than this many times those of G is not formed.
_SCHUR_FILL = 20
# Relative residuals: what refinement is to reach (less would cost quadratic programmes a second
# Newton step), and what is not good enough to go on with.
_SHARP, _BLUNT = 1e-12, 1e-8
_REFINEMENTS = 5
# What the rows of G weigh beside B in a test of curvature.
_WEIGHT = 1e7
# Entries of factors for each entry of the matrix that are worth it.
_FILL = 50
# Patterns to remember: of Newton systems with and without a shift, and of least squares.
_PATTERNS = 4


class SparseDirect:
    """Factorisations of sparse saddle matrices, whose patterns are looked at once.

    Attributes
    ----------
    singular : bool
        Whether rows of the last G depend on each other.
    """

    name = "direct"

    def __init__(self, options=None):
        self._patterns, self._complements, self._condensed = [], [], []
        self._last = None

    def factor(self, saddle):
        """Factor; tell whether B is positive definite on the kernel of G, or None."""
        self._last = None
        B, G = canonical(saddle.B), canonical(saddle.G)
        self._saddle = Saddle(B, G, saddle.delta, be=saddle.be)
        inverse = self._thin_inverse(B, G)
        if inverse is not None:
            self._factors = Schur(inverse, G, saddle.delta, self._complements)
        else:
            self._factors = self._whole(B, G, saddle.delta)
        self.singular = self._factors.singular
        return False if self.singular else self._factors.convex

    def is_affordable(self, B, G):
        """Tell whether the factors of a whole saddle matrix would be of reasonable size."""
        B, G = canonical(B), canonical(G)
        if self._thin_inverse(B, G) is not None:
            return True
        return self._pattern(B, G).fill() <= _FILL * (B.nnz + 2 * G.nnz)

    def _thin_inverse(self, B, G):
        """Return the inverse of B if it has one of small blocks, and a thin complement of it."""
        diagonal = _positive_diagonal(B)
        if diagonal is not None:
            thin = _has_thin_complement(G, np.arange(B.shape[0]))
            return sp.diags_array(1 / diagonal).tocsr() if thin else None
        if np.diff(B.indptr).max() > LARGEST_BLOCK:
            return None
        pattern = self._pattern(B, G)
        if pattern.bandwidth <= _NARROW or not pattern.blocks.small:
            return None
        return pattern.blocks.inverse(B) if _has_thin_complement(G, pattern.blocks.label) else None

    def _whole(self, B, G, delta):
        pattern = self._pattern(B, G)
        if pattern.bandwidth <= _NARROW:
            factors = BandedLU(pattern, pattern.values(B, G, delta))
            # A small pivot may be a matter of scales: the next one knows.
            if not factors.singular:
                # As many independent rows as unknowns leave no kernel.
                square = G.shape[0] == G.shape[1]
                factors.convex = square or _is_dominant(B) or self._curves(B, G)
                return factors
        quasi = max(delta, quasi_definite(G))
        K = pattern.columns(pattern.values(B, G, quasi))
        return QuasiDefinite(K, B.shape[0], 0.0 if delta else quasi)

    def _curves(self, B, G):
        """Tell whether ``B + G^T W G`` has a Cholesky factor for a large diagonal W."""
        be = self._saddle.be
        largest = abs(G).max(axis=1).toarray().reshape(-1)
        root = (_WEIGHT * abs(B.data).max(initial=0.0)) ** 0.5 / np.where(largest, largest, 1.0)
        E = scaled(G, root, be=be)
        factors = definite_factors((B + E.T @ E).tocsr(), self._condensed)
        return bool(factors.convex) and not factors.singular

    def _pattern(self, B, G):
        for pattern in self._patterns:
            if pattern.fits(B, G):
                return pattern
        self._patterns = [SaddlePattern(B, G), *self._patterns][:_PATTERNS]
        return self._patterns[0]

    def solve(self, r, *, d0=None, tol=0.0):
        """Solve, with refinement where the residual asks for it; a good `d0` is the answer."""
        if self._known(r, d0):
            return self._last[1]
        size = math.sqrt(r @ r)
        goal = _SHARP * size
        d, residual, left = self._refined(r, d0, goal)
        if not left <= max(goal, _BLUNT * size) and not isinstance(self._factors, PivotingLU):
            self._factors = self._pivoting()
            d, residual, left = self._refined(r, None, goal)
        flag = "converged" if math.isfinite(left) else "breakdown"
        self._last = r, InnerSolve(d, residual, 1, flag)
        return self._last[1]

    def _known(self, r, d0):
        """Tell whether `d0` is the answer to the last question, asked again."""
        last = self._last
        return last is not None and d0 is last[1].d and np.array_equal(r, last[0])

    def _pivoting(self):
        saddle = self._saddle
        pattern = self._pattern(saddle.B, saddle.G)
        return PivotingLU(pattern.columns(pattern.values(saddle.B, saddle.G, saddle.delta)))

    def _refined(self, r, d, goal):
        """Return d, its residual and the norm of that; `d` may be a start."""
        saddle, d = self._saddle, self._factors.solve(r) if d is None else d
        residual = saddle @ d - r
        left = math.sqrt(residual @ residual)
        for _ in range(_REFINEMENTS):
            if left <= goal or not math.isfinite(left):
                break
            again = d - self._factors.solve(residual)
            what = saddle @ again - r
            if not (less := math.sqrt(what @ what)) < left:
                break
            slow = less > 0.5 * left
            d, residual, left = again, what, less
            if slow:
                break
        return d, residual, left


class Schur:
    """Solves by the Schur complement of a positive definite B with a sparse inverse.

    Parameters
    ----------
    inverse : CSR matrix (n, n)
    G : CSR matrix (m, n)
    delta : float
    patterns : list
        The pattern of the complement seen last, which this may replace.
    """

    def __init__(self, inverse, G, delta, patterns):
        self._inverse, self._G, self._Gt, self.convex = inverse, G, G.T, True
        S = (G @ inverse @ self._Gt).tocsr()
        if delta:
            S = (S + delta * sp.eye_array(G.shape[0])).tocsr()
        self._factors = definite_factors(S, patterns, sure=True)
        self.singular = self._factors.singular

    def solve(self, r):
        """Return the solution."""
        n = self._inverse.shape[0]
        a, b = r[:n], r[n:]
        y = self._factors.solve(self._G @ (self._inverse @ a) - b)
        return np.concatenate([self._inverse @ (a - self._Gt @ y), y])


def definite_factors(A, patterns, *, sure=False):
    """Return the Cholesky factors of a CSR matrix, in its band or by SuperLU.

    Parameters
    ----------
    A : CSR matrix
    patterns : list
        Empty or the pattern seen last, which another one replaces.
    sure : bool
        Whether the matrix is known to have no negative eigenvalue.
    """
    A.sort_indices()
    if not patterns or not patterns[0].fits(A):
        patterns[:] = [SquarePattern(A)]
    if patterns[0].bandwidth <= _WIDE:
        return BandedCholesky(patterns[0], A.data)
    return Definite(A.tocsc()) if sure else QuasiDefinite(A.tocsc(), A.shape[0], 0.0)


def _positive_diagonal(B):
    """Return the diagonal if B has no other entries and all are well above zero, or None."""
    n = B.shape[0]
    if B.nnz < n or not np.array_equal(B.indices, np.arange(n)) or B.indptr[-1] != n:
        return None
    d = B.data
    return d if d.min() > 1e-10 * d.max() else None


def _is_dominant(B):
    """Tell whether the discs of Gershgorin show that B is positive definite."""
    rows = np.diff(B.indptr) > 0
    if not rows.all():
        return False
    radii = np.add.reduceat(abs(B.data), B.indptr[:-1])
    return bool((2 * B.diagonal() > radii).all())


def _has_thin_complement(G, label):
    """Tell whether ``G B^-1 G^T`` has few entries, for the blocks that columns belong to."""
    counts = np.bincount(label[G.indices]) if G.nnz else np.zeros(1)
    return int(counts @ counts) < _SCHUR_FILL * G.nnz
