"""Sparse direct solves: three factorisations, by the pattern of the matrix, and one to fall back.

- B diagonal and positive: Cholesky of the Schur complement ``G B^-1 G^T + delta I``;
- a narrow band: banded LU with partial pivoting;
- otherwise SuperLU with symmetric pivots of a quasi-definite neighbour, whose signs are the
  inertia;
- where refinement does not converge: SuperLU with partial pivoting.
"""

import math

import numpy as np
import scipy.sparse as sp

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
        self._patterns, self._complements, self._last = [], [], None

    def factor(self, saddle):
        """Factor; tell whether B is positive definite on the kernel of G, or None."""
        self._last = None
        B, G = canonical(saddle.B), canonical(saddle.G)
        self._saddle = Saddle(B, G, saddle.delta, be=saddle.be)
        diagonal = _positive_diagonal(B)
        if _has_thin_complement(diagonal, G):
            self._factors = Schur(diagonal, G, saddle.delta, self._complements)
        else:
            self._factors = self._whole(B, G, saddle.delta)
        self.singular = self._factors.singular
        return False if self.singular else self._factors.convex

    def is_affordable(self, B, G):
        """Tell whether the factors of a whole saddle matrix would be of reasonable size."""
        B, G = canonical(B), canonical(G)
        if _has_thin_complement(_positive_diagonal(B), G):
            return True
        return self._pattern(B, G).fill() <= _FILL * (B.nnz + 2 * G.nnz)

    def _whole(self, B, G, delta):
        pattern = self._pattern(B, G)
        if pattern.bandwidth <= _NARROW:
            factors = BandedLU(pattern, pattern.values(B, G, delta))
            # A small pivot may be a matter of scales: the next one knows.
            if not factors.singular:
                return factors
        quasi = max(delta, quasi_definite(G))
        K = pattern.columns(pattern.values(B, G, quasi))
        return QuasiDefinite(K, B.shape[0], 0.0 if delta else quasi)

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
    """Solves by the Schur complement of a positive diagonal B.

    Parameters
    ----------
    diagonal : array (n,)
    G : CSR matrix (m, n)
    delta : float
    patterns : list
        Patterns of complements seen so far, which this may replace.
    """

    def __init__(self, diagonal, G, delta, patterns):
        self._d, self._G, self.convex = diagonal, G, True
        m = G.shape[0]
        S = (G @ sp.diags_array(1 / diagonal) @ G.T).tocsr()
        if delta:
            S = (S + delta * sp.eye_array(m)).tocsr()
        self._factors = definite_factors(S, patterns, sure=True)
        self.singular = self._factors.singular

    def solve(self, r):
        """Return the solution."""
        n = len(self._d)
        a, b = r[:n], r[n:]
        y = self._factors.solve(self._G @ (a / self._d) - b)
        return np.concatenate([(a - self._G.T @ y) / self._d, y])


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


def _has_thin_complement(diagonal, G):
    """Tell whether B is a positive diagonal and ``G B^-1 G^T`` has few entries."""
    if diagonal is None:
        return False
    counts = np.bincount(G.indices, minlength=G.shape[1])
    return int(counts @ counts) < _SCHUR_FILL * G.nnz
