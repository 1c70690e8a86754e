"""What the certificate will say, from what a solver knows anyway."""

import numpy as np


class Measure:
    """The certificate's value at the point of a state, without a pass if its gradient is known.

    Parameters
    ----------
    problem : GLM or Quadratic
    """

    def __init__(self, problem):
        self.problem = problem
        self._unit = None

    def __call__(self, state):
        """Return the value and the duality gap, which is NaN where there is none."""
        problem = self.problem
        g = state.gradient()
        if self._unit is None:
            x, c = problem.zeros()
            g0 = problem.gradient(x) if problem.quadratic else state_gradient(problem, x, c)
            self._unit = float(problem.be.host(abs(g0).max())) or 1.0
        out = problem.xp.empty_like(g)
        problem.kernels.distances(problem.bound, state.x, g, out)
        return float(problem.be.host(out.max())) / self._unit, np.nan


def state_gradient(problem, x, c):
    """Return the gradient of a `GLM` at a point."""
    return problem.gradient(problem.predict(x, c))[0]
