"""What MINRES and GMRES share: restarts from the true residual until it is small enough."""

import math

from ._preconditioner import block_diagonal, of_caller
from ._saddle import InnerSolve, most_steps


class Restarted:
    """A Krylov solver whose cycles start from the true residual of the last one.

    Subclasses have ``_cycle(r, goal, limit)``, which approximates ``K^-1 r`` to a residual that
    it believes to be at most `goal`, and returns it with the number of steps taken and whether K
    turned out to be singular.
    """

    name = ""
    # A cycle that leaves more than this part of the residual was the last one.
    _progress = 1.0

    def __init__(self, options):
        self._options = options

    def factor(self, saddle):
        """Set up the preconditioner; nothing is learned about the inertia."""
        self._saddle = saddle
        if self._options.preconditioner is not None:
            self._precondition = of_caller(self._options.preconditioner, saddle)
        else:
            self._precondition = block_diagonal(saddle)

    def solve(self, r, *, d0=None, tol=0.0):
        """Run cycles until the true residual is small, or a cycle no longer helps."""
        K, be = self._saddle, self._saddle.be
        xp = be.xp
        limit = most_steps(self._options, K)
        d = xp.zeros_like(r) if d0 is None else d0.copy()
        rest = r.copy() if d0 is None else r - K @ d
        size, left = be.host(xp.linalg.norm(r), xp.linalg.norm(rest))
        steps, flag = 0, "maxiter"
        while left > tol * size and steps < limit and not self._options.deadline():
            step, taken, singular = self._cycle(rest, tol * size, limit - steps)
            steps += taken
            trial = d + step
            after = r - K @ trial
            error = be.host(xp.linalg.norm(after))
            if not (error < left or singular):
                flag = "breakdown"
                break
            helped, d, rest, left = error <= self._progress * left, trial, after, error
            if singular or not helped:
                flag = "breakdown"
                break
        if left <= tol * size:
            flag = "converged"
        elif not math.isfinite(left):
            flag = "breakdown"
        return InnerSolve(d, -rest, steps, flag)
