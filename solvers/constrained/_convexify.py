"""From a Hessian that may be indefinite to a Newton system whose solution descends."""

from .inner import Saddle

# Shifts of the Hessian: the first, factors from one to the next (before and after a shift has
# been of use), what the last one shrinks by when it is tried again, and where it ends.
_FIRST, _STRIDE, _FINE_STRIDE, _SHRINK = 1e-4, 100.0, 8.0, 3.0
_SMALLEST, _LARGEST = 1e-20, 1e40
# Dual regularisation of rows that depend on each other, relative to the longest.
_DUAL = 1e-8
# Curvature along a step, relative to the Hessian, below which the step is not trusted.
_FLAT = 1e-12


class Shifts:
    """The multiples of the identity that Hessians needed so far.

    Attributes
    ----------
    last : float
        The last one that was needed; 0 before any was.
    d : array (n + m,) or None
        The solution that the test of curvature left, a start for the solve that follows.
    iterations : int
        Steps of the inner solver that the tests of curvature took for the last matrix.
    """

    def __init__(self):
        self.last, self.d, self.iterations = 0.0, None, 0

    def ladder(self):
        """Yield 0, then shifts that grow from near the last one."""
        yield 0.0
        known = self.last > 0
        tau = max(_SMALLEST, self.last / _SHRINK) if known else _FIRST
        while tau < _LARGEST:
            yield tau
            tau *= _FINE_STRIDE if known else _STRIDE


def factored(B, G, inner, shifts, *, be, r=None, tol=0.0):
    """Factor ``[[B + tau I, G^T], [G, -delta I]]`` with the first tau that makes it convex.

    A positive delta takes the place of zero where rows of G depend on each other.

    Parameters
    ----------
    B, G : matrix
    inner : object
        An inner solver.
    shifts : Shifts
    be : Backend
    r : array (n + m,), optional
        The right-hand side: a solver that cannot tell the inertia is judged by the curvature
        along its solution.
    tol : float
        How accurately that is solved.

    Returns
    -------
    Saddle or None
        What was factored; None if no shift helped.
    """
    saddle, delta = Saddle(B, G, be=be), 0.0
    shifts.iterations = 0
    for tau in shifts.ladder():
        shifted = saddle.shifted(tau, delta) if tau or delta else saddle
        convex = inner.factor(shifted)
        if not delta and getattr(inner, "singular", False):
            delta = _DUAL * _longest(G, be)
            shifted = saddle.shifted(tau, delta)
            convex = inner.factor(shifted)
        shifts.d = None
        if convex is None and r is not None:
            convex = _curves(shifted, inner, shifts, r, tol)
        if convex is not False:
            shifts.last = tau or shifts.last
            return shifted
    return None


def _curves(saddle, inner, shifts, r, tol):
    """Tell whether the Hessian curves upwards along the step that solves the system.

    This is the test of Chiang and Zavala (2016), which needs no inertia.
    """
    solved = inner.solve(r, tol=tol)
    shifts.iterations += solved.iterations
    if solved.flag == "breakdown":
        return False
    shifts.d = solved.d
    dx = solved.d[: saddle.n]
    Bdx = saddle.B @ dx
    along, length, image = saddle.be.host(dx @ Bdx, dx @ dx, abs(Bdx).max())
    # Bdx stands for the norm of the Hessian, which an operator does not tell.
    return along >= _FLAT * max(length, image * length**0.5)


def _longest(G, be):
    """Return the largest entry of G, at least 1; 1 for operators."""
    return max(1.0, be.host(abs(G).max())) if hasattr(G, "max") else 1.0
