"""From a Hessian that may be indefinite to a Newton system whose solution descends."""

import math

from .inner import Saddle

_FIRST, _LARGEST, _DUAL = 1e-4, 1e40, 1e-8


class Shifts:
    """The multiples of the identity that Hessians needed so far."""

    def __init__(self):
        self.last = 0.0

    def ladder(self):
        """Yield 0, then shifts that grow, near the last one that was needed."""
        yield 0.0
        tau = max(1e-20, self.last / 3) if self.last else _FIRST
        while tau < _LARGEST:
            yield tau
            tau *= 8 if self.last else 100


def factored(B, G, inner, shifts, *, be):
    """Factor ``[[B + tau I, G^T], [G, -delta I]]`` with the first tau that makes it convex.

    Returns
    -------
    Saddle or None
        What was factored; None if no shift helped.
    """
    saddle = Saddle(B, G, be=be)
    delta = 0.0
    for tau in shifts.ladder():
        shifted = saddle.shifted(tau, delta)
        convex = inner.factor(shifted)
        if getattr(inner, "singular", False) and not delta:
            delta = _DUAL
            shifted = saddle.shifted(tau, delta)
            convex = inner.factor(shifted)
        if convex is not False:
            shifts.last = tau
            return shifted
    shifts.last = math.inf
    return None
