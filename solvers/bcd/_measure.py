"""What the certificate will say, from what a solver knows anyway."""

import numpy as np

from ._certificate import Case, _scale

_ROUNDING = 4 * np.finfo(np.float64).eps


class Measure:
    """The certificate's value at the point of a state, without a pass if its gradient is known.

    The certificate itself starts again from the caller's data; this only decides when to ask it.

    Parameters
    ----------
    problem : GLM or Quadratic

    Attributes
    ----------
    unit : float
        What values are relative to.
    """

    def __init__(self, problem):
        self.problem = problem
        case = None if problem.quadratic else Case(problem)
        self._case = case if case is not None and case.dual else None
        self.unit = _gradient_at_zero(problem) if self._case is None else _scale(case)

    def __call__(self, state):
        """Return the value and the duality gap, which is NaN where there is none."""
        if self._case is None:
            return self._violation(state) / self.unit + _ROUNDING, np.nan
        primal, dual = state.objective(), self._dual(state)
        gap = primal - dual
        return (max(gap, 0.0) + _ROUNDING * (abs(primal) + abs(dual))) / self.unit, gap

    def _violation(self, state):
        g = state.gradient()
        if self.problem.groups is not None:
            return Case(self.problem).penalty.worst(state.x, g)[0]
        out = self.problem.xp.empty_like(g)
        self.problem.kernels.distances(self.problem.bound, state.x, g, out)
        return float(self.problem.be.host(out.max()))

    def _dual(self, state):
        case = self._case
        z = state.z.astype(np.float64)
        v = case.loss.slope(z)
        if case.has_free:
            # Columns without a penalty leave few slopes; theirs are not those of the state.
            v = case.dual_slopes(_Slopes(z, v))
            return case.bound(v, case.pull(v))
        if case.fit_intercept:
            v = case.loss.balanced(v)
        return case.bound(v, state.gradient().astype(np.float64))


class _Slopes:
    def __init__(self, z, v):
        self.z, self.v = z, v


def _gradient_at_zero(problem):
    """Return the largest entry of the gradient at a cold start with the best intercept."""
    from ._state import open_state

    g = open_state(problem, *problem.zeros()).gradient()
    return float(problem.be.host(abs(g).max())) or 1.0
