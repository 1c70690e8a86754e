"""Annealed Newton steps on the semi-dual, with sparsification under error control."""

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .._core import threads
from .._core.monitor import Monitor
from .._core.result import Status
from .._core.validation import check_choice, check_count, check_flag, check_positive, check_threads
from ._gibbs import Passes
from ._newton import NewtonSteps
from ._problem import BestPotentials, check_limits, check_reg, check_start, check_transport
from ._result import Answer, finish
from ._sns_paper import sns_paper

# Weights of the entropy ("temperatures"): the first, relative to the spread of the cost, and the
# factor between two, which adapts within these bounds.
FIRST, FACTOR, FACTORS = 1 / 64, 8.0, (1.5, 16.0)
# Marginal error, relative to the mass, at which all temperatures but the last are left.
ANNEALING_TOL = 3e-4
# The last temperature is stuck where a pass finds more than this fraction of the error before.
STUCK = 0.9
# Newton steps, and blocks of sweeps, between two passes: while annealing, and at the end.
PATIENCE, LAST_PATIENCE = 14, 40
# Passes without progress after which a run has stalled.
STALL = 20


def sinkhorn_newton(
    a,
    b,
    C,
    *,
    reg=None,
    reg_scale=None,
    reg_type="kl",
    tol=None,
    tol_inner=None,
    maxiter=500,
    maxiter_inner=None,
    time_limit=None,
    method="auto",
    x0=None,
    f0=None,
    g0=None,
    annealing=True,
    sparsity=None,
    n_sinkhorn=None,
    precond="auto",
    store_plan="auto",
    callback=None,
    progress=False,
    history=True,
    n_threads=None,
):
    r"""Solve an entropic optimal transport problem by Sinkhorn sweeps and Newton steps.

    Minimises :math:`\langle C, P \rangle + \varepsilon \, \mathrm{KL}(P \,|\, a b^\top)` over
    plans :math:`P \ge 0` with row sums `a` and column sums `b`.

    Parameters
    ----------
    a, b : array, shapes (n,) and (m,), or None
        Non-negative weights with equal sums (zeros are fine); None for uniform ones.
    C : array, shape (n, m)
        Cost of moving a unit of mass, in any unit; ``inf`` forbids an edge.
    reg : float, optional
        Entropic weight :math:`\varepsilon`, in the unit of `C`. Default: 0.05 times the standard
        deviation of the costs.
    reg_scale : {None, "std", "mean", "max", "median"}
        Multiply `reg` by this statistic of the finite costs.
    reg_type : {"kl", "entropy"}
        Which value the result reports: with :math:`\mathrm{KL}(P | a b^\top)`, or with
        :math:`\sum P (\log P - 1)` in its place. The plan is the same.
    tol : float, optional
        Largest marginal error in the L1 norm, relative to the mass. Default: 1e-8, in float32
        1e-5.
    tol_inner : float, optional
        Relative residual at which conjugate gradients stop. Default: tightened towards the end.
    maxiter : int, default 500
        Largest number of passes over the cost.
    maxiter_inner : int, optional
        Largest number of conjugate-gradient iterations in a Newton step. Default: what a
        factorisation would cost.
    time_limit : float, optional
        Seconds after which the best iterate is returned.
    method : {"auto", "sns-paper"}
        "sns-paper" is the method of [1]_ as published, with one temperature and a fixed
        fraction of kept entries; for comparisons.
    x0 : TransportResult or tuple of arrays, optional
        Potentials ``(f, g)`` to start from.
    f0, g0 : array, shapes (n,) and (m,), optional
        Either of them, in place of `x0`.
    annealing : bool, default True
        Whether to come down to `reg` from larger weights.
    sparsity : float, optional
        For "sns-paper": fraction of the plan's entries that the Hessian keeps. Default:
        ``2 / max(n, m)``.
    n_sinkhorn : int, optional
        Sinkhorn sweeps: in a block of them while Newton steps are not trusted (default 8), or
        for "sns-paper" at the start (default 20).
    precond : {"auto", "jacobi", "cholesky"}
        Preconditioner of conjugate gradients. "auto" factorises where Jacobi's takes longer.
    store_plan : {"auto", True, False}
        Whether to hold the plan in memory between passes while it is dense, at half the size of
        a float64 cost. False recomputes its entries instead, which is several times slower.
    callback : callable, optional
        Called after each pass as ``callback(intermediate_result)`` with fields ``nit``, ``fun``,
        ``marginal_error``, ``reg``, ``f`` and ``g``; StopIteration or a true return value ends
        the run.
    progress : bool, default False
        Show a progress bar.
    history : bool or int, default True
        Whether, or every how many passes, to record the history.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    TransportResult
        With the potentials `f` and `g` (unit of `C`), their certificate, and `plan`, which is
        built on first use.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind: complex or sparse data, arrays of different kinds.
    ValueError
        If shapes disagree, a weight is negative, totals differ, or an option has no such value.

    Warns
    -----
    ConvergenceWarning
        If the certificate does not hold; once per call.

    Notes
    -----
    A pass over the cost takes one exponential per entry, and a solve typically 4 to 10 of them.
    A cost in Fortran order is used as it is. Points whose masses add up to less than
    ``tol / 10**4`` do not take part and get their potentials at the end; leaving out points
    copies the remaining part of the cost.

    Potentials are in the KL convention (:math:`P_{ij} = a_i b_j \exp((f_i + g_j - C_{ij}) /
    \varepsilon) / M` for mass :math:`M`) and split evenly: :math:`\langle a, f \rangle = \langle
    b, g \rangle`. ``res.potentials_counting`` has those that OTT-JAX and POT report.

    References
    ----------
    .. [1] X. Tang, M. Shavlovsky, H. Rahmanian, E. Tardini, K. Thekumparampil, T. Xiao, L. Ying.
       Accelerating Sinkhorn algorithm with sparse Newton iterations. ICLR 2024.
       arXiv:2401.12253.
    .. [2] M. Kemertas, A. Farahmand, A. Jepson. A truncated Newton method for optimal transport.
       ICLR 2025. arXiv:2504.02067.
    .. [3] Z. Tang, Y. Qiu. Safe and sparse Newton method for entropic-regularized optimal
       transport. NeurIPS 2024.

    Examples
    --------
    >>> import solvers
    >>> res = solvers.ot.sinkhorn_newton([0.5, 0.5], [0.25, 0.75], [[0, 1], [1, 0]], reg=0.1)
    >>> res.success
    True
    >>> res.plan.round(3)
    array([[0.25, 0.25],
           [0.  , 0.5 ]])
    """
    problem, io = check_transport(a, b, C)
    reg = check_reg(problem, reg, reg_scale)
    tol, limits = check_limits(io, tol, maxiter, time_limit, callback, progress, history)
    n_threads = check_threads(n_threads)
    check_choice(reg_type, "reg_type", ("kl", "entropy"))
    check_choice(method, "method", ("auto", "sns-paper"))
    n_sinkhorn = check_count(n_sinkhorn, "n_sinkhorn", minimum=1, allow_none=True)
    tol_inner = check_positive(tol_inner, "tol_inner", allow_none=True)
    maxiter_inner = check_count(maxiter_inner, "maxiter_inner", minimum=1, allow_none=True)
    sparsity = check_positive(sparsity, "sparsity", allow_none=True)
    check_choice(precond, "precond", ("auto", "jacobi", "cholesky"))
    if store_plan != "auto":
        check_flag(store_plan, "store_plan")
    check_flag(annealing, "annealing")
    if sparsity is not None and method == "auto":
        raise ValueError("`sparsity` came with method='auto'; expected method='sns-paper'")
    start = check_start(problem, reg, C, x0, f0, g0)
    run = Monitor(
        "sinkhorn_newton", "marginal_error", be=io.be, tol=0.8 * tol, stall=STALL, **limits
    )
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        if method == "sns-paper":
            options = sparsity, n_sinkhorn or 20, tol_inner or 1e-3, maxiter_inner
            answer = sns_paper(problem, io.out, reg, tol, start, run, *options)
        else:
            newton = partial(
                NewtonSteps,
                precond=precond,
                tol=tol_inner,
                maxiter=maxiter_inner,
                sweeps=n_sinkhorn or 8,
            )
            descent = Descent(problem, reg, tol, run, newton, store_plan, io.out)
            answer = descent.solve(start, annealing)
        return finish(problem, io, reg, reg_type, tol, answer, run, (a, b, C))


class Descent:
    """Follows the solution from a high temperature down to `reg`.

    Parameters
    ----------
    problem : Transport
    reg : float
        The last temperature.
    tol : float
        Largest error there, relative to the mass.
    run : Monitor
    newton : callable
        Makes the `NewtonSteps` for a back end, column weights and a run.
    store_plan : {"auto", True, False}
    out : callable
        Turns an array into the caller's kind.
    """

    def __init__(self, problem, reg, tol, run, newton, store_plan, out):
        self._best = BestPotentials(problem, reg, max(1e-4 * tol, 1e-15), out)
        self._problem, self._be = self._best.part, problem.be
        self._passes = Passes(self._problem, store_plan)
        # A little below the tolerance, for the judge rounds differently.
        self._reg, self._tol = reg, 0.8 * tol
        self._run, self._newton = run, newton(self._be, self._problem.b, run)
        self._annealing_tol = ANNEALING_TOL

    def solve(self, start, annealing):
        """Return the answer, from column potentials `start` (None: from scratch)."""
        run, best = self._run, self._best
        if self._problem.cut_off:
            run.end(Status.INFEASIBLE)
            return Answer(*best.potentials(), [])
        path = Path(self._problem, self._reg, best.restrict(start), annealing)
        levels = []
        while run.status is None:
            g, reg, last = path.next()
            run.stage("final temperature" if last else "annealing")
            if levels[-1:] != [reg]:
                levels.append(reg)
            outcome = self._solve_level(g, reg, last, patient=path.at_smallest_step)
            if annealing and outcome.stuck:
                # A mismatch has been left where its links were open, and now they are closed:
                # come down once more, carefully, from where all of them are open.
                self._annealing_tol = self._tol
                path = Path(self._problem, self._reg, None, annealing, self._problem.range)
            else:
                path.advance(reg, outcome)
        if not best.found:
            # Something ended the run above the last temperature: make the rows exact there.
            c, _ = self._passes.run(outcome.g, self._reg)
            error = self._be.host(abs(self._problem.b - c).sum())
            best.offer(error, self._passes.f, outcome.g)
        return Answer(*best.potentials(), levels, self._passes.density, **self._newton.counts)

    def _solve_level(self, g, reg, last, patient):
        """Balance the plan at one temperature, starting from column potentials `g`.

        All but the last temperature give up when they make slow progress, unless `patient`.
        """
        tol, patience = (self._tol, LAST_PATIENCE) if last else (self._annealing_tol, PATIENCE)
        # Dropping less than a tenth of the error to be reached is harmless.
        cutoff = 0.1 * tol / g.size
        first, before, left, stored = None, np.inf, np.inf, 0
        while True:
            look = None  # lets go of a dense kernel, before the next one takes as much room
            look = self._look(g, reg, last, cutoff)
            first = first or look.error
            if look.over or look.error <= tol:
                return Outcome(look.error <= tol, g, first, stored)
            careful = self._annealing_tol == self._tol
            if last and not careful and stored >= 2 and look.error > STUCK * before:
                return Outcome(False, g, first, stored, stuck=True)
            stored, before, goal = stored + 1, look.error, left
            aim = max(0.3 * tol, look.kernel.floor, 1e-15)
            log_v, left = self._newton.balance(look.kernel, look.gap, aim, patience)
            g = g + reg * log_v
            if not last and left <= tol:
                return Outcome(True, g, first, stored)
            if stored >= 3 and left > (0.01 if last else 0.3 * goal) and not (last and patient):
                return Outcome(False, g, first, stored)
            if left <= 1.01 * aim:
                g = self._polish(g, reg, last, look.kernel, log_v, tol)
                before = np.inf
                if self._run.status is not None:
                    return Outcome(self._run.status == Status.CONVERGED, g, first, stored)

    def _look(self, g, reg, last, cutoff=None):
        """Pass over the cost once, and report what it shows."""
        passes = self._passes
        c, kernel = passes.run(g, reg, cutoff)
        gap = self._problem.b - c
        error = self._be.host(abs(gap).sum())
        if reg == self._reg:
            self._best.offer(error, passes.f, g)
        state = partial(self._best.state, passes.f, g, reg)
        over = self._run.record(error, judge=last, state=state, fun=passes.dual(g), reg=reg)
        return Look(gap, error, kernel, over)

    def _polish(self, g, reg, last, kernel, log_v, tol):
        """Correct exactly known gaps by Newton steps on a stored kernel, while they help."""
        before = np.inf
        while True:
            look = self._look(g, reg, last)
            if look.over or look.error <= tol:
                return g
            if look.error > 0.3 * before:
                # If it was the rounding of float32 entries that spoiled the directions.
                self._passes.use_float64()
                return g
            g = g + reg * self._newton.refine(kernel, log_v, look.gap, 0.3 * tol / look.error)
            before = look.error


class Look(NamedTuple):
    """What a pass shows: gaps of the column sums, their L1 norm, the kernel if it was stored."""

    gap: Any
    error: float
    kernel: Any
    over: bool


class Outcome(NamedTuple):
    """How a level went: the potentials reached, its first error, and how often it stored."""

    solved: bool
    g: Any
    first: float
    stored: int
    stuck: bool = False


class Level(NamedTuple):
    """A temperature that has been dealt with, and the column potentials found there."""

    reg: float
    g: Any


class Path:
    """Which temperature comes next, and where to start there.

    Potentials are smooth in the temperature, so two levels predict the next by a straight line.
    Steps shrink where a level resisted and grow where the prediction was good.
    """

    def __init__(self, problem, reg, start, annealing, first=None):
        self._reg, self._factor = reg, FACTOR
        self._levels = []
        self._highest = first or (FIRST * problem.spread if annealing else reg)
        if self._highest < 2.0 * reg:
            self._highest = reg
        # A good start needs no higher temperature; `advance` goes up if it was not good.
        self._next = self._highest if start is None else reg
        # Otherwise the c-transform of zero: exact for reg = 0 if every row could choose freely.
        self._g = problem.C.min(axis=0).astype(np.float64) if start is None else start

    def next(self):
        """Return start, temperature, and whether it is the last one."""
        return self._g, self._next, self._next == self._reg

    @property
    def at_smallest_step(self):
        """Whether coming back from a nearer temperature is no option any more."""
        return self._factor <= FACTORS[0]

    def advance(self, reg, outcome):
        """Take note of how a level went."""
        if not outcome.solved and not self._levels and reg < self._highest:
            self._g, self._next = outcome.g, self._highest
            return
        only = bool(self._levels) and self._levels[-1].reg == reg
        if outcome.solved or only or not self._levels or self.at_smallest_step:
            self._levels = [*self._levels[-1:], Level(reg, outcome.g)]
        if outcome.solved and outcome.first < 0.1:
            self._factor = min(self._factor**2, FACTORS[1])
        elif not outcome.solved or outcome.stored > 1:
            if not outcome.solved and not only:
                # Less than the step that failed, not only than the largest one allowed.
                self._factor = min(self._factor, self._levels[-1].reg / reg)
            self._factor = max(self._factor**0.5, FACTORS[0])
        # Steps of equal ratio, as many as this factor takes, or nearly.
        ratio = self._levels[-1].reg / self._reg
        steps = max(1, math.ceil(math.log(ratio) / math.log(self._factor) - 0.2))
        self._next = self._reg if steps == 1 else self._levels[-1].reg / ratio ** (1 / steps)
        self._g = self._predict(self._next)

    def _predict(self, reg):
        if len(self._levels) < 2 or self._levels[0].reg == self._levels[1].reg:
            return self._levels[-1].g
        old, new = self._levels
        return new.g + (new.g - old.g) * ((reg - new.reg) / (new.reg - old.reg))
