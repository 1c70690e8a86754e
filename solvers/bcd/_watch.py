"""The books of a run: what is recorded after an iteration, and what was counted."""

import numpy as np


class Watch:
    """Records iterates and counts passes, blocks and Newton steps.

    Parameters
    ----------
    problem : GLM or Quadratic
    run : Monitor
    options : Options

    Attributes
    ----------
    run : Monitor
    tol : float
        The certificate's value that is wanted; the driver may lower it.
    npass : float
        Passes over the data so far.
    n_blocks, n_newton : int
        Block updates and Newton steps so far.
    identified_at : int
        The iteration since which the support has been what it is.
    active_set : array
        The working set at the end; all unknowns unless a solver says otherwise.
    used : dict of str to str
        What "auto" chose: partition, selection, update and the like.
    """

    def __init__(self, problem, run, options):
        self.problem, self.run, self.tol = problem, run, options.tol
        self.npass, self.n_blocks, self.n_newton = 0.0, 0, 0
        self.identified_at, self.active_set, self.used = 0, None, {}
        self._support, self._sound = None, None

    def record(self, x, c, *, fun, value, gap=np.nan, block=0, iterations=1, judge=True):
        """Count an iteration; tell whether the run must end.

        Parameters
        ----------
        x, c : array
            Unknowns (N,) and intercept.
        fun : float
            Objective.
        value : float
            The certificate's value, as far as the solver knows it.
        gap : float
            Duality gap in the unit of the objective, if known.
        block : int
            Size of the block that moved.
        iterations : int
            How many iterations this stands for.
        judge : bool
            Whether `value` may end the run as converged.
        """
        be, support = self.problem.be, x != 0
        nnz = be.host(support.sum())
        changed = self._support is None or be.host((support != self._support).any())
        over = self.run.record(
            value,
            judge=judge and value <= self.tol,
            iterations=iterations,
            state=lambda: self._shown(x, c),
            fun=fun,
            gap=gap,
            nnz=nnz,
            block=block,
        )
        if be.host(self.problem.xp.isfinite(x).all()):
            self._sound = x.copy(), c.copy()
        if changed:
            self._support, self.identified_at = support, self.run.nit
        return over

    def sound(self, start):
        """Return the last recorded iterate without NaN or infinities, else `start`."""
        return start if self._sound is None else type(start)(*self._sound)

    def _shown(self, x, c):
        out = self.problem.io.out
        return {"x": out(x.reshape(self.problem.shape).copy()), "intercept": out(c)}
