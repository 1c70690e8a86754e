"""Dense factorisations that tell whether B is positive definite on the kernel of G."""

import warnings

import numpy as np

from ..._core.validation import check_memory
from .._matrices import to_dense
from ._saddle import InnerSolve

# Pivots this much smaller than the largest are looked at again, after equilibration.
_SUSPICIOUS = 1e-10
# Relative residual (squared) above which a step of refinement pays.
_ROUGH = 1e-24
# What stands for no dual regularisation in a test of curvature.
_SMALLEST_DELTA = 1e-9
_REMEDY = "Pass sparse matrices, or ask for inner='pcg' or 'minres'"


class DenseLDL:
    """Symmetric indefinite factorisation (LAPACK's ``dsytrf``), whose pivots give the inertia.

    Attributes
    ----------
    singular : bool
        Whether a pivot of the last matrix is zero but for rounding.
    """

    name = "direct"

    def __init__(self, options=None):
        # A module that `import solvers.constrained` must not load.
        from scipy.linalg import lapack

        self._sytrf, self._sytrs = lapack.dsytrf, lapack.dsytrs

    def factor(self, saddle):
        """Factor; tell whether the inertia is that of a convex problem, (n, m, 0)."""
        self._saddle, self._scale = saddle, None
        self._factor(_assembled(saddle, np.zeros))
        sizes, positive = self._pivots()
        self.singular = False
        if not sizes.min() > _SUSPICIOUS * sizes.max():
            # Rows of very different length also have small pivots: equilibrated ones do not.
            K, n = _assembled(saddle, np.zeros), saddle.n
            K[:n, n:] = K[n:, :n].T
            self._scale = s = _equilibrium(K)
            K *= s
            K *= s[:, None]
            self._factor(K)
            sizes, positive = self._pivots()
            self.singular = not sizes.min() > 10 * len(s) * np.finfo(float).eps
        return bool(positive == saddle.n) and not self.singular

    def _factor(self, K):
        # 64 columns at a time: LAPACK's own block size, whose workspace SciPy does not ask for.
        self._ldl, self._rows, _ = self._sytrf(K, lower=1, lwork=64 * len(K), overwrite_a=1)

    def _pivots(self):
        """Return the sizes of the pivots and how many eigenvalues of D are positive."""
        d, single = self._ldl.diagonal(), self._rows > 0
        if single.all():
            return abs(d), np.count_nonzero(d > 0)
        # A pair of pivots is taken only where its determinant is negative.
        pairs = (len(d) - np.count_nonzero(single)) // 2
        first = np.flatnonzero(~single)[::2]
        off = self._ldl[first + 1, first]
        sizes = np.concatenate([abs(d[single]), np.sqrt(abs(d[first] * d[first + 1] - off * off))])
        return sizes, np.count_nonzero(d[single] > 0) + pairs

    def solve(self, r, *, d0=None, tol=0.0):
        """Solve, with one step of refinement where the residual asks for it."""
        d = self._solve(r)
        residual = self._saddle @ d - r
        if not residual @ residual <= _ROUGH * (r @ r):
            refined = d - self._solve(residual)
            again = self._saddle @ refined - r
            if again @ again < residual @ residual:
                d, residual = refined, again
        return InnerSolve(d, residual, 1, "converged" if np.isfinite(d).all() else "breakdown")

    def _solve(self, r):
        if self._scale is None:
            return self._sytrs(self._ldl, self._rows, r, lower=1)[0]
        return self._scale * self._sytrs(self._ldl, self._rows, self._scale * r, lower=1)[0]


class DenseLU:
    """LU factorisation beside a Cholesky test of curvature, for arrays on any device.

    B is positive definite on the kernel of G if and only if ``B + G^T G / delta`` is positive
    definite for a small delta, or for that which regularises K.
    """

    name = "direct"

    def __init__(self, options=None):
        pass

    def factor(self, saddle):
        """Factor; tell whether the matrix is that of a convex problem."""
        self._saddle, be = saddle, saddle.be
        xp, n = be.xp, saddle.n
        K = _assembled(saddle, xp.zeros)
        K[:n, n:] = K[n:, :n].T
        self._scale = s = _equilibrium(K, xp)
        K *= s
        K *= s[:, None]
        with warnings.catch_warnings():
            # A zero pivot is no news: it is looked for below.
            warnings.simplefilter("ignore")
            self._lu = be.linalg.lu_factor(K, check_finite=False)
        pivots = abs(self._lu[0].diagonal())
        self.singular = not be.host(pivots.min()) > 10 * len(s) * np.finfo(float).eps
        return not self.singular and (saddle.m == n or _is_convex(K, n, be))

    def solve(self, r, *, d0=None, tol=0.0):
        """Solve with one step of refinement."""
        d = self._solve(r)
        d = d - self._solve(self._saddle @ d - r)
        finite = self._saddle.be.host(self._saddle.be.xp.isfinite(d).all())
        return InnerSolve(d, self._saddle @ d - r, 1, "converged" if finite else "breakdown")

    def _solve(self, r):
        s = self._scale
        return s * self._saddle.be.linalg.lu_solve(self._lu, s * r, check_finite=False)


def _assembled(saddle, zeros):
    """Return the saddle-point matrix in Fortran order, its upper right block left out."""
    n, N, be = saddle.n, saddle.n + saddle.m, saddle.be
    check_memory(8 * N * N, "the dense saddle-point matrix", _REMEDY, be=be)
    K = zeros((N, N), order="F")
    K[:n, :n] = to_dense(saddle.B, be=be)
    K[n:, :n] = to_dense(saddle.G, be=be)
    if saddle.delta:
        dual = be.xp.arange(n, N)
        K[dual, dual] = -saddle.delta
    return K


def _equilibrium(K, xp=np):
    """Return s such that every row of ``diag(s) K diag(s)`` has its largest entry near 1."""
    size, s = abs(K), xp.ones(len(K))
    for _ in range(3):
        largest = (size * s).max(axis=1) * s
        s = s / xp.sqrt(xp.where(largest > 0, largest, 1.0))
    return s


def _is_convex(K, n, be):
    """Tell whether B is positive definite on the kernel of G, for an equilibrated matrix."""
    xp = be.xp
    B, G = K[:n, :n], K[n:, :n]
    delta = xp.maximum(-K.diagonal()[n:], _SMALLEST_DELTA)
    try:
        be.cholesky(B + (G.T / delta) @ G)
    except np.linalg.LinAlgError:
        return False
    return True
