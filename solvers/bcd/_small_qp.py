"""Small dense quadratics with any penalty of single coefficients: sweeps, and Newton steps."""

import numpy as np

from .._core.backend import get_backend
from .._core.rules import function_of
from ._l1qp import Factor

# Rounds of sweeps and Newton steps before the accuracy reached must do.
_ROUNDS = 200
_SWEEPS = 10


def penalised_qp(G, g, w, penalty, *, tol, unit):
    """Minimise ``g d + d G d / 2`` plus the penalty of ``w + d``: a stationary point, on the host.

    Parameters
    ----------
    G : numpy.ndarray, shape (m, m), C-contiguous
        Symmetric and positive semi-definite.
    g, w : numpy.ndarray, shape (m,)
        Gradient and start; updated.
    penalty : NamedTuple
        Bound to these coefficients, see `penalties.bind`; float64.
    tol : float
        Largest violation that may be left, in multiples of `unit`.
    unit : numpy.ndarray, shape (m,)
        Units of violations.

    Returns
    -------
    float, int
        Largest violation left, and the number of Newton steps.
    """
    sweeps = get_backend("numpy").kernels("solvers.bcd", "newton").descend
    newton, smooth = 0, has_slopes(penalty)
    worst = np.inf
    for _ in range(_ROUNDS):
        worst = sweeps(G, g, w, penalty, unit, _SWEEPS, tol)
        if worst <= tol:
            break
        if smooth:
            newton += _newton(G, g, w, penalty)
    return worst, newton


def has_slopes(penalty):
    """Tell whether a penalty has derivatives off zero."""
    return function_of(type(penalty), "slope") is not None


def face_step(H, g, w, penalty):
    """Return the nonzero coefficients and a Newton step on them; None without one."""
    kernels = get_backend("numpy").kernels("solvers.bcd", "newton")
    first, second = np.empty_like(w), np.empty_like(w)
    kernels.slopes_and_bends(penalty, w, first, second)
    face = np.flatnonzero(w)
    if not face.size:
        return None
    slope = g[face] + first[face]
    # Where the penalty bends down more than the quadratic bends up there is no minimum to go to.
    d = Factor(H).solve(face, second, -slope)
    if d is None or not slope @ d < 0.0:
        return None
    # What crosses zero stops there.
    d = np.where(w[face] * (w[face] + d) <= 0.0, -w[face], d)
    return face, d


def _newton(G, g, w, penalty):
    """Make a Newton step on the nonzero coefficients if it pays; tell whether it did."""
    step = face_step(G, g, w, penalty)
    if step is None:
        return False
    face, d = step
    penalty_sum = get_backend("numpy").kernels("solvers.bcd").penalty_sum
    before, change = penalty_sum(penalty, w), d @ G[face, : w.size]
    for t in (1.0, 0.5, 0.1):
        new = w.copy()
        new[face] += t * d
        fall = t * (g[face] @ d) + 0.5 * t * t * (change[face] @ d)
        if fall + penalty_sum(penalty, new) - before < 0.0:
            w[:] = new
            g += t * change
            return True
    return False
