"""The books of a run: residuals in the caller's unit, the best iterate, and when it is enough."""

import math

import numpy as np

from .._core.result import Status
from ._certificate import judge
from ._convexify import Shifts
from ._ends import Ends

# A residual that fell to this part made progress.
_FALL = 0.9


class Watch:
    """Records iterates of any solver of the family.

    Parameters
    ----------
    standard : Standard
    run : Monitor
    tol : float

    Attributes
    ----------
    best : Answer or None
        The recorded iterate with the smallest residual.
    ninner : int
        Steps of inner solvers so far.
    inner : str
        The inner solver that ran.
    eta : (float, float)
    residual : Residual
        That of the last point.
    falling : bool
        Whether the last iteration lowered it.
    shifts : Shifts
        Of Hessians; what one problem of a sequence needed serves the next.
    ends : Ends
        Knows whether the problem has no solution.
    """

    def __init__(self, standard, run, tol):
        self.standard, self.run, self.tol = standard, run, tol
        self.best, self._best_kkt = None, math.inf
        self.ninner, self.inner, self._globalizations = 0, "", []
        self.eta = (math.nan, math.nan)
        self.first_kkt = math.inf
        self.shifts = Shifts()
        self.falling = True
        self.wait(math.inf)
        self.ends = Ends(standard, run, tol)

    @property
    def globalization(self):
        """By what steps are judged; what it was is kept."""
        return self._globalizations[-1][0] if self._globalizations else ""

    @globalization.setter
    def globalization(self, name):
        if name != self.globalization:
            self._globalizations.append((name, self.run.nit))

    @property
    def globalization_used(self):
        """All of them, with the iterations at which they took over."""
        first, *later = self._globalizations or [("", 0)]
        return ", ".join([first[0], *(f"{name} from {nit}" for name, nit in later)])

    def record(self, problem, point, answer, *, alpha=np.nan, inner_its=0, **series):
        """Count an iteration at a point of `problem`; tell whether its solver must end.

        Parameters
        ----------
        problem : Standard or what wraps it
        point : Point
        answer : Answer
        alpha : float
            The step that led here.
        inner_its : int
            Steps of inner solvers that it took.
        **series : float
            Further columns of the history: inner_residual, eta1, eta2, delta.
        """
        last = self.residual.kkt
        kkt = self._look(problem, point, answer)
        self.falling = kkt <= _FALL * last
        self._idle += 1
        if kkt < _FALL * self._mark:
            self._mark, self._idle = kkt, 0
        self.ninner += inner_its
        over = self.run.record(
            kkt,
            judge=False,
            state=lambda: self._shown(problem, answer),
            fun=problem.objective(point),
            violation=self.residual.violation,
            alpha=alpha,
            inner_its=inner_its,
            **series,
        )
        if kkt <= self.tol and not over:
            self.run.end(Status.CONVERGED)
        elif not over:
            over = self._leads_nowhere(point.plain)
        if over or kkt <= self.tol or problem.solved(point, answer):
            # Whatever is solved next is given all the time again.
            self._idle = 0
            return True
        return self.tired

    def _leads_nowhere(self, point):
        """End the run where the problem has no solution; tell whether it did."""
        violation = self.residual.violation
        if self.ends.hopeless(point, violation):
            if not self._hopeful:
                return self.ends.infeasible(point)
            self._idle = self._patience
        return self.ends.unbounded(point, violation)

    def wait(self, iterations, *, hopeful=False):
        """From here on, let a solver end after so many iterations without progress.

        If hopeful, it ends where the problem looks infeasible, but the run does not: the next
        solver may find what this one did not.
        """
        self._patience, self._idle, self._mark = iterations, 0, math.inf
        self._hopeful = hopeful

    @property
    def tired(self):
        """Whether the residual has not fallen by a tenth for as long as `wait` allows."""
        return self._idle >= self._patience

    def begin(self, problem, point, answer):
        """Look at a start without counting it; tell whether it is good enough."""
        self.first_kkt = min(self.first_kkt, kkt := self._look(problem, point, answer))
        if kkt <= self.tol:
            self.run.end(Status.CONVERGED)
        return kkt <= self.tol

    def certified(self, problem, answer):
        """Tell whether the certificate holds although the residual is above the tolerance.

        So it is where rounding leaves more than that; end the run then.
        """
        verdict = judge(self.standard.program, *problem.theirs(answer), tol=self.tol)
        if verdict.certificate.holds:
            self.run.end(Status.CONVERGED)
        return verdict.certificate.holds

    def _look(self, problem, point, answer):
        self.residual = problem.residual(point, answer)
        kkt = self.residual.kkt
        self.ends.see(point.plain, answer, self.residual.violation)
        if kkt < self._best_kkt or self.best is None:
            self._best_kkt = kkt
            self.best = answer
        return kkt

    def _shown(self, problem, answer):
        x, lam, _ = problem.theirs(answer)
        out = self.standard.program.io.out
        return {"x": out(x.copy()), "lam": out(lam)}
