"""Annealed Newton steps on the semi-dual, with sparsification under error control."""

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .._core import threads
from .._core.monitor import Monitor
from .._core.result import Status
from .._core.validation import check_choice, check_count, check_flag, check_positive, check_threads
from ._batch import sinkhorn_newton_batch
from ._batch_problem import is_batch
from ._coarse import NODES_TOL, CoarsePlan, Mixing, pays
from ._constrained import ConstrainedDescent, start_multipliers
from ._constraints import check_constraints
from ._gibbs import Passes
from ._newton import NewtonSteps
from ._problem import BestPotentials, check_limits, check_reg, check_start, check_transport
from ._result import Answer, finish
from ._sns_paper import sns_paper
from ._splr import splr

# Weights of the entropy ("temperatures"): the first, relative to the spread of the cost, and the
# factor between two, which adapts within these bounds.
FIRST, FACTOR, FACTORS = 1 / 64, 8.0, (1.5, 16.0)
# Marginal error, relative to the mass, at which all temperatures but the last are left.
ANNEALING_TOL = 3e-4
# The last temperature is stuck where a pass finds more than this fraction of the error before.
STUCK = 0.9
# Newton steps, and blocks of sweeps, between two passes: while annealing, and at the end.
PATIENCE, LAST_PATIENCE = 14, 40
# Corrections from a coarse plan within which the error has to halve.
CORRECTIONS = 5
# Passes without progress after which a run has stalled.
STALL = 20
# Relative residual of the linear solves that ask how a balanced plan answers to changes.
RESPONSE_TOL = 1e-4


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
    constraints=None,
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
        Non-negative weights with equal sums (zeros are fine); None for uniform ones. For a batch
        of problems, shapes (B, n) and (B, m).
    C : array, shape (n, m)
        Cost of moving a unit of mass, in any unit; ``inf`` forbids an edge. For a batch, shape
        (B, n, m), or (n, m) if it is that of all problems.
    reg : float, or for a batch also array, shape (B,), optional
        Entropic weight :math:`\varepsilon`, in the unit of `C`. Default: 0.05 times the standard
        deviation of the costs, of each cost in a batch.
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
    method : {"auto", "sns-paper", "splr"}
        For comparisons: "sns-paper" is the method of [1]_ as published, with one temperature
        and a fixed fraction of kept entries; "splr" makes the quasi-Newton steps of [4]_, with a
        sparse and a low-rank part of the Hessian. Both form the plan anew in every pass.
    x0 : TransportResult or tuple of arrays, optional
        Potentials ``(f, g)`` to start from.
    f0, g0 : array, shapes (n,) and (m,), optional
        Either of them, in place of `x0`.
    annealing : bool, default True
        Whether to come down to `reg` from larger weights.
    sparsity : float, optional
        Fraction of the plan's entries that the Hessian keeps: for "sns-paper" always (default
        ``2 / max(n, m)``), for "splr" at most (default 0.01, but ten for each row and column).
    n_sinkhorn : int, optional
        Sinkhorn sweeps: in a block of them while Newton steps are not trusted (default 8), for
        "sns-paper" at the start (default 20), for "splr" at each weight (default 5).
    precond : {"auto", "jacobi", "cholesky"}
        Preconditioner of conjugate gradients. "auto" factorises where Jacobi's takes longer.
    store_plan : {"auto", True, False}
        Whether to hold the plan in memory between passes while it is dense, at half the size of
        a float64 cost. False recomputes its entries instead, which is several times slower.
    constraints : list of tuples, optional
        Conditions on the plan, ``(D, ">=")``, ``(D, "==")`` or with a number ``beta`` as third
        entry: ``sum(D * P) >= beta``, or ``== beta``, for the plan as returned (so `beta` is in
        units of `D` times mass; default 0). `D` has the shape of `C` and is finite.
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

    Under constraints the plan is :math:`P_{ij} = a_i b_j \exp((f_i + g_j - C_{ij} + \sum_k w_k
    D_{k,ij}) / \varepsilon) / M` with the multipliers ``res.w``: non-negative for inequalities,
    and zero where they have slack, so that these do not bend the plan. Newton steps on `w` go
    around the method for plans without constraints, at 10 passes in all for a large `reg` and 20
    to 60 for a small one; `callback` is called after each step, and sees `w` too. It takes the
    memory of one more cost in float64, and copies matrices whose memory order or precision is
    not that of `C`. Constraints that contradict each other end as ``INFEASIBLE``, with the proof
    in the certificate.

    A batch is solved in common passes: all problems that are still running advance in one call
    of a kernel, each problem on one thread (on a GPU: in one block), which makes its sweeps and
    Newton steps in the cache. Every problem has its own `reg` and its own end; `maxiter` is for
    each. The few that take long are finished on their own, with all threads, and so are problems
    with more than 250 000 entries; `precond` and `store_plan` matter to these only. A shared
    `PointCloud` is evaluated once. The result's fields have a leading axis B, and the numbers
    (`reg`, `value`, `dual`, `marginal_error`, `converged`) are NumPy arrays of shape (B,), while
    `success`, `status` and `certificate` are those of the worst problem and `nit` is the most
    passes of any. A callback gets the largest ``marginal_error``, and as ``fun`` the sum of the
    dual values. Batches have neither constraints nor other methods than "auto".

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
    .. [4] C. Wang, Y. Qiu. The sparse-plus-low-rank quasi-Newton method for entropic-regularized
       optimal transport. ICML 2025, PMLR 267.
    .. [5] X. Tang, H. Rahmanian, M. Shavlovsky, K. K. Thekumparampil, T. Xiao, L. Ying. A
       Sinkhorn-type algorithm for constrained optimal transport. 2024. arXiv:2403.05054.

    Examples
    --------
    >>> import solvers
    >>> res = solvers.ot.sinkhorn_newton([0.5, 0.5], [0.25, 0.75], [[0, 1], [1, 0]], reg=0.1)
    >>> res.success
    True
    >>> res.plan.round(3)
    array([[0.25, 0.25],
           [0.  , 0.5 ]])

    Two problems at once, of which the second has the cost turned over:

    >>> C = [[[0, 1], [1, 0]], [[1, 0], [0, 1]]]
    >>> res = solvers.ot.sinkhorn_newton(None, [[0.25, 0.75]] * 2, C, reg=[0.1, 0.2])
    >>> res.converged
    array([ True,  True])
    >>> res.plan.shape
    (2, 2, 2)

    At least a tenth of the mass is to go from the second point to the first:

    >>> D = [[0, 0], [1, 0]]
    >>> data = [0.5, 0.5], [0.25, 0.75], [[0, 1], [1, 0]]
    >>> res = solvers.ot.sinkhorn_newton(*data, reg=0.1, constraints=[(D, ">=", 0.1)])
    >>> res.plan.round(3)
    array([[0.15, 0.35],
           [0.1 , 0.4 ]])
    """
    if is_batch(a, b, C):
        return sinkhorn_newton_batch(Descent, **locals())
    problem, io = check_transport(a, b, C)
    reg = check_reg(problem, reg, reg_scale)
    tol, limits = check_limits(io, tol, maxiter, time_limit, callback, progress, history)
    n_threads = check_threads(n_threads)
    check_choice(reg_type, "reg_type", ("kl", "entropy"))
    check_choice(method, "method", ("auto", "sns-paper", "splr"))
    n_sinkhorn = check_count(n_sinkhorn, "n_sinkhorn", minimum=1, allow_none=True)
    tol_inner = check_positive(tol_inner, "tol_inner", allow_none=True)
    maxiter_inner = check_count(maxiter_inner, "maxiter_inner", minimum=1, allow_none=True)
    sparsity = check_positive(sparsity, "sparsity", allow_none=True)
    check_choice(precond, "precond", ("auto", "jacobi", "cholesky"))
    if store_plan != "auto":
        check_flag(store_plan, "store_plan")
    check_flag(annealing, "annealing")
    if sparsity is not None and method == "auto":
        raise ValueError("`sparsity` came with method='auto'; expected 'sns-paper' or 'splr'")
    start = check_start(problem, reg, C, x0, f0, g0)
    conditions = check_constraints(problem, C, constraints)
    if conditions is not None and method != "auto":
        raise ValueError(f"`constraints` came with method={method!r}; expected method='auto'")
    # Points of the constrained method take a few passes each, quasi-Newton steps come in long runs
    # without much progress, and the first sweeps of the published method are not to be cut short.
    stall = STALL * (10 if method == "splr" else 1 if conditions is None else 5)
    if method == "sns-paper":
        stall += n_sinkhorn or 20
    name = "sinkhorn_newton (splr)" if method == "splr" else "sinkhorn_newton"
    run = Monitor(name, "marginal_error", be=io.be, tol=0.8 * tol, stall=stall, **limits)
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        if method == "sns-paper":
            options = sparsity, n_sinkhorn or 20, tol_inner or 1e-3, maxiter_inner
            answer = sns_paper(problem, io.out, reg, tol, start, run, *options)
        elif method == "splr":
            options = sparsity, n_sinkhorn or 5, tol_inner, maxiter_inner, annealing
            answer = splr(problem, io.out, reg, tol, start, run, *options)
        else:
            newton = partial(
                NewtonSteps,
                precond=precond,
                tol=tol_inner,
                maxiter=maxiter_inner,
                sweeps=n_sinkhorn or 8,
            )
            descend = partial(Descent, newton=newton, store_plan=store_plan, out=io.out)
            if conditions is None:
                answer = descend(problem, reg, tol, run).solve(start, annealing)
            else:
                descent = ConstrainedDescent(
                    problem, conditions, reg, tol, run, time_limit, descend, annealing, io.out
                )
                answer = descent.solve(start, start_multipliers(conditions, x0))
        conditions = conditions and (constraints, conditions)
        return finish(problem, io, reg, reg_type, tol, answer, run, (a, b, C), conditions)


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
    annealing_tol : float
        Largest error at all temperatures but the last.
    """

    def __init__(
        self, problem, reg, tol, run, newton, store_plan, out, annealing_tol=ANNEALING_TOL
    ):
        self._best = BestPotentials(problem, reg, max(1e-4 * tol, 1e-15), out)
        self._problem, self._be = self._best.part, problem.be
        self._passes = Passes(self._problem, store_plan)
        # A little below the tolerance, for the judge rounds differently.
        self._reg, self._tol, self._annealing_tol = reg, 0.8 * tol, annealing_tol
        self._run, self._make_newton, self._out = run, newton, out
        self._newton = newton(self._be, self._problem.b, run)

    def solve(self, start, annealing):
        """Return the answer, from column potentials `start` (None: from scratch)."""
        run, best = self._run, self._best
        if self._problem.cut_off:
            run.end(Status.INFEASIBLE)
            return Answer(*best.potentials(), [])
        start, levels = best.restrict(start), []
        if annealing and pays(self._problem, self._passes.holds_dense):
            start, levels = self._correct(start), [self._reg]
        last_g, path = start, Path(self._problem, self._reg, start, annealing)
        while run.status is None:
            g, reg, last = path.next()
            run.stage("final temperature" if last else "annealing")
            if levels[-1:] != [reg]:
                levels.append(reg)
            outcome = self._solve_level(g, reg, last, patient=path.at_smallest_step)
            last_g = outcome.g
            if annealing and outcome.stuck:
                # A mismatch has been left where its links were open, and now they are closed:
                # come down once more, carefully, from where all of them are open.
                self._annealing_tol = self._tol
                highest = self._problem.range
                path = Path(self._problem, self._reg, None, annealing, highest=highest)
            else:
                path.advance(reg, outcome)
        if not best.found:
            # Something ended the run above the last temperature: make the rows exact there.
            c, _ = self._passes.run(last_g, self._reg)
            error = self._be.host(abs(self._problem.b - c).sum())
            best.offer(error, self._passes.f, last_g)
        return Answer(*best.potentials(), levels, self._passes.density, **self._newton.counts)

    def _correct(self, start):
        """Balance a large cloud by corrections from a coarse plan; return column potentials.

        A pass finds the gaps, the coarse plan tells what fills them. Ends where that stops to
        help.
        """
        self._run.stage("coarse plan")
        coarse = CoarsePlan(self._problem, self._reg, self._solve_nodes)
        g = coarse.g if start is None else start
        if not coarse.resolves:
            return g
        self._run.stage("corrections")
        mixing, best, goal, kept = Mixing(self._be, self._problem.b), np.inf, np.inf, None
        while True:
            look = self._look(g, self._reg, last=True)
            if look.error < best:
                best, kept = look.error, (g, look.gap)
            if best < 0.5 * goal:
                goal, patience = best, CORRECTIONS
            if look.over or patience == 0:
                return kept[0]
            patience -= 1
            gap = look.gap
            if look.error > 3.0 * best:
                # Mixing went astray: on from the best, without it.
                (g, gap), mixing = kept, Mixing(self._be, self._problem.b)
            x, iterations = coarse.correction(gap, 3e-3)
            self._newton.counts["ncg"] += iterations
            self._newton.counts["nnewton"] += 1
            g = mixing(g, self._reg * x)

    def _solve_nodes(self, problem, reg):
        """Solve the problem between the nodes of a coarse plan."""
        run = Monitor(
            "sinkhorn_newton",
            "marginal_error",
            be=self._be,
            tol=0.8 * NODES_TOL,
            maxiter=200,
            callback=lambda _: self._run.late,
            history=False,
            stall=STALL,
        )
        descent = Descent(problem, reg, NODES_TOL, run, self._make_newton, "auto", self._out)
        return descent.solve(None, True)

    def responses(self, g, gaps):
        """Return how column potentials answer to small gaps of the column sums, row by row.

        Around `g`, balanced at the last temperature, and in units of it. Takes one pass.
        """
        xp, best = self._be.xp, self._best
        part = best.restrict(g).copy()
        _, kernel = self._passes.run(part, self._reg, 0.1 * self._tol / part.size)
        replies = []
        none = xp.zeros_like(part)
        for gap in gaps:
            x = self._newton.solve(kernel, none, best.restrict(gap), 1e-11, RESPONSE_TOL)
            replies.append(best.extend(x))
        return xp.stack(replies)

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

    def __init__(self, problem, reg, start, annealing, *, first=None, highest=None):
        self._reg, self._factor = reg, FACTOR
        self._levels = []
        self._highest = highest or (FIRST * problem.spread if annealing else reg)
        if self._highest < 2.0 * reg:
            self._highest = reg
        # A good start needs no higher temperature; `advance` goes up if it was not good.
        self._next = self._highest if start is None else reg
        if start is None:
            # The c-transform of zero: exact for reg = 0 if every row could choose freely.
            start = problem.C.min(axis=0).astype(np.float64) if first is None else first
        self._g = start

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
