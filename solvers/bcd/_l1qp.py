"""Small dense quadratics with an L1 or elastic penalty and bounds: sweeps and Newton on faces."""

import numpy as np

from .._core.backend import get_backend

# What a diagonal is raised by, relatively, and how much more until a matrix has a factor. Never
# nothing: along what a singular matrix maps to zero, coefficients would go anywhere.
_JITTER, _MORE = 1e-14, (1.0, 1e2, 1e4)
# Rounds in which the largest violation must fall to half, or rounding errors are in the way.
_PATIENCE = 20
# Changes of a face, as a part of its size, up to which its old factor is worth keeping.
_BORDER = 0.3
# Sweeps at first, and between Newton steps: these cost less once a factor is known.
_FIRST_SWEEPS, _SWEEPS = 6, 2
# Newton steps on one face after another before the next sweeps, at first.
_FACES = 2
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
    newton, count, faces = 0, _FIRST_SWEEPS, _FACES
    best, patience = np.inf, _PATIENCE
    for _ in range(_ROUNDS):
        worst = kernels.sweep(G, g, w, penalty, unit, count, tol)
        if worst < 0.5 * best:
            best, patience = worst, _PATIENCE
        else:
            # Down to the minimum of a face, at last: no face comes twice after that.
            patience, faces = patience - 1, 2 * faces
        if worst <= tol or not patience:
            break
        for _ in range(faces):
            face = _face(penalty, w)
            if not face.size:
                break
            d = factor.solve(face, penalty.ridge, -_slopes(penalty, g, w, face))
            newton += 1
            if d is None or not kernels.walk(G, g, w, penalty, face, d, np.zeros_like(g)):
                break
        count = _SWEEPS
    return worst, newton


class Factor:
    """Solves with parts ``H = G_FF + diag(ridge)`` for sets F that change little between calls.

    A Cholesky factor of a base set B serves sets near it: what F has and B has not, and the other
    way round, are k rows and columns of a bordered system, whose Schur complement is small.

    Parameters
    ----------
    G : numpy.ndarray, C-contiguous
        The matrix; it may be replaced by one that has the same entries and further ones.
    jitter : float, optional
        What its diagonal is raised by, relatively.
    """

    def __init__(self, G, jitter=_JITTER):
        self.G, self.jitter = G, jitter
        self.forget()

    def forget(self):
        """Start anew at the next call, for G has changed or rounding errors have grown."""
        self.base = np.zeros(0, np.int64)
        self._border = {}

    def solve(self, face, ridge, b):
        """Solve ``H d = b``.

        Parameters
        ----------
        face : numpy.ndarray of int, shape (k,)
            The set F, ascending.
        ridge : numpy.ndarray, shape (m,)
            Of all coefficients; the same from call to call.
        b : numpy.ndarray, shape (k,)

        Returns
        -------
        numpy.ndarray, shape (k,), or None
            None where H is singular.
        """
        removed, added = _without(self.base, face), _without(face, self.base)
        changes = removed.size + added.size
        if not self.base.size or changes > max(_BORDER * self.base.size, 1):
            return self._anew(face, ridge, b)
        if not (removed.size or added.size):
            return self._solve(self._solve(b, False), True)
        return self._bordered(face, ridge, b, removed, added)

    def _anew(self, face, ridge, b):
        from scipy.linalg.lapack import dpotrf

        self.forget()
        H = self.G.take(face, axis=0).take(face, axis=1)
        where = np.arange(face.size)
        diagonal = H[where, where]
        for more in _MORE:
            H[where, where] = diagonal * (1.0 + more * self.jitter) + ridge[face]
            # Of the transpose, LAPACK reads the lower triangle, in its own order.
            self._L, failed = dpotrf(H.T, lower=1, clean=0)
            if not failed:
                self.base = face
                return self._solve(self._solve(b, False), True)
        return None

    def _solve(self, b, transposed):
        from scipy.linalg.lapack import dtrtrs

        return dtrtrs(self._L, b, lower=1, trans=int(transposed))[0]

    def _bordered(self, face, ridge, b, removed, added):
        base, G = self.base, self.G
        changed = np.concatenate([added, removed])
        fresh = [j for j in changed.tolist() if j not in self._border]
        if fresh:
            new = np.array(fresh)
            V = np.asfortranarray(G[base[:, None], new])
            where = np.searchsorted(base, new)
            for k, j in enumerate(fresh):
                inside = where[k] < base.size and base[where[k]] == j
                if inside:
                    V[:, k] = 0.0
                    V[where[k], k] = 1.0
            self._border.update(zip(fresh, self._solve(V, False).T, strict=True))
        Y = np.array([self._border[j] for j in changed.tolist()])
        in_base, in_face = np.searchsorted(base, face), np.searchsorted(face, added)
        shared = np.ones(face.size, bool)
        shared[in_face] = False
        right = np.zeros(base.size)
        right[in_base[shared]] = b[shared]
        z = self._solve(right, False)
        k = added.size
        S = -(Y @ Y.T)
        S[:k, :k] += G[added[:, None], added]
        S[np.arange(k), np.arange(k)] += ridge[added]
        t = -(Y @ z)
        t[:k] += b[in_face]
        try:
            u = np.linalg.solve(S, t)
        except np.linalg.LinAlgError:
            return self._anew(face, ridge, b)
        d = np.empty(face.size)
        d[shared] = self._solve(z - u @ Y, True)[in_base[shared]]
        d[in_face] = u[:k]
        return d


def _without(some, others):
    """Return the members of one ascending set that another has not."""
    if not others.size:
        return some
    place = np.minimum(np.searchsorted(others, some), others.size - 1)
    return some[others[place] != some]


def _face(penalty, w):
    """Return the coefficients that may move both ways: off the bounds and off kinks."""
    inside = (w > penalty.lo) & (w < penalty.hi)
    return np.flatnonzero(inside & ((w != 0.0) | (penalty.alpha == 0.0)))


def _slopes(penalty, g, w, face):
    """Return derivatives with the penalty on a face."""
    x = w[face]
    return g[face] + penalty.ridge[face] * x + penalty.alpha[face] * np.sign(x)
