"""Small dense quadratics with an L1 or elastic penalty and bounds: sweeps and Newton on faces."""

import numpy as np

from .._core.backend import get_backend

# Newton steps on one face after another before the next sweeps.
_FACES = 3
# Rounds of sweeps and Newton steps before the accuracy reached must do.
_ROUNDS = 200


def l1qp(G, g, w, penalty, *, tol, unit=None, factor=None):
    """Minimise ``g d + d G d / 2`` plus the penalty of ``w + d``, on the host, in float64.

    Parameters
    ----------
    G : numpy.ndarray, C-contiguous
        Symmetric, positive semi-definite with a positive diagonal; rows and columns beyond the
        first ``w.size`` do not count.
    g : numpy.ndarray, shape (m,)
        Gradient at `w`; updated.
    w : numpy.ndarray, shape (m,)
        Start; updated.
    penalty : ElasticBox
        Bound to these coefficients, see `penalties.bind`; float64.
    tol : float
        Largest violation that may be left, in multiples of `unit`.
    unit : numpy.ndarray, shape (m,), optional
        Units of violations; 1 by default.
    factor : Factor, optional
        What is known of G from before.

    Returns
    -------
    float, int
        Largest violation left, and the number of Newton steps.
    """
    kernels = get_backend("numpy").kernels("solvers.bcd", "working")
    unit = np.ones_like(w) if unit is None else unit
    factor = Factor(G) if factor is None else factor
    m, newton, count = w.size, 0, 6
    worst = np.inf
    for _ in range(_ROUNDS):
        worst = kernels.sweep(G, g, w, penalty, unit, count, tol)
        if worst <= tol:
            break
        size = 0
        for _ in range(_FACES):
            face = _face(penalty, w)
            size = face.size
            if not size:
                break
            d = factor.solve(face, penalty.ridge[face], -_slopes(penalty, g, w, face))
            newton += 1
            if d is None or not kernels.walk(G, g, w, penalty, face, d):
                break
        # As much time in sweeps as in factorisations.
        count = max(2, size * size // (6 * m))
    return worst, newton


class Factor:
    """Solves with parts ``G_FF`` of a symmetric matrix, for sets F that change a little.

    Parameters
    ----------
    G : numpy.ndarray
        The matrix.
    """

    def __init__(self, G):
        self.G = G

    def solve(self, face, ridge, b):
        """Return the solution of ``(G_FF + diag(ridge)) d = b``; None where G_FF is singular."""
        from scipy.linalg.lapack import dpotrf, dpotrs

        H = self.G[np.ix_(face, face)]
        where = np.arange(face.size)
        H[where, where] += ridge
        for jitter in (0.0, 1e-14, 1e-12):
            H[where, where] += jitter * H.trace()
            L, failed = dpotrf(H.T, lower=0, clean=0)
            if not failed:
                return dpotrs(L, b, lower=0)[0]
        return None


def _face(penalty, w):
    """Return the coefficients that may move both ways: off the bounds and off kinks."""
    inside = (w > penalty.lo) & (w < penalty.hi)
    return np.flatnonzero(inside & ((w != 0.0) | (penalty.alpha == 0.0)))


def _slopes(penalty, g, w, face):
    """Return derivatives with the penalty on a face."""
    x = w[face]
    return g[face] + penalty.ridge[face] * x + penalty.alpha[face] * np.sign(x)
