"""Sinkhorn's alternating scaling, in kernel form and in the log domain, and two accelerations."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .._core import threads
from .._core.monitor import Monitor
from .._core.result import Status
from .._core.validation import check_choice, check_threads
from ._batch import sinkhorn_batch
from ._batch_problem import is_batch
from ._gibbs import Passes
from ._problem import BestPotentials, check_limits, check_reg, check_start, check_transport
from ._result import Answer, finish

# Log-factors at which they move into the potentials. What has underflowed, below 1e-308 (1e-38) of
# its row, would be too small to matter even scaled by these.
ABSORB = {np.dtype(np.float64): 200.0, np.dtype(np.float32): 15.0}
# Iterations between two looks at the rate of convergence, in over-relaxation.
WINDOW = 10
# There the error may grow by this factor before the window is undone.
SPIKE = 10.0
# Gaps, one minus the rate of plain sweeps: the least to be believed, how much smaller than the
# last one an estimate may be, how much larger one must be after a failure, and how fast that is
# forgotten.
LEAST_GAP, TRUST, CAUTION, FORGIVENESS = 1e-7, 4.0, 4.0, 1.2
# Differences of iterates that Anderson's method combines, and what keeps its equations definite.
MEMORY, RIDGE = 5, 1e-10
# No combination moves log-factors further.
LONGEST_STEP = 20.0


def sinkhorn(
    a,
    b,
    C,
    *,
    reg=None,
    reg_scale=None,
    reg_type="kl",
    method="auto",
    tol=None,
    maxiter=10000,
    time_limit=None,
    x0=None,
    f0=None,
    g0=None,
    callback=None,
    progress=False,
    history=True,
    n_threads=None,
):
    r"""Solve an entropic optimal transport problem by Sinkhorn's alternating scaling.

    Minimises :math:`\langle C, P \rangle + \varepsilon \, \mathrm{KL}(P \,|\, a b^\top)` over
    plans :math:`P \ge 0` with row sums `a` and column sums `b`. Simple and quick for large
    `reg`; for small `reg` `sinkhorn_newton` needs far fewer passes.

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
        deviation of the costs.
    reg_scale : {None, "std", "mean", "max", "median"}
        Multiply `reg` by this statistic of the finite costs.
    reg_type : {"kl", "entropy"}
        Which value the result reports; the plan is the same.
    method : {"auto", "kernel", "log", "stabilized", "overrelaxed", "anderson"}
        "kernel" scales a stored matrix of exponentials and may underflow for small `reg`;
        "stabilized" renews that matrix whenever its factors grow large; "log" computes the
        exponentials in every iteration and stores nothing. "overrelaxed" [3]_ [4]_ and
        "anderson" [5]_ are "stabilized" with longer steps, taken back where the dual falls: they
        take a fraction of the iterations where there are many, and compute the exponentials anew
        where the matrix does not fit into memory. "auto" is "overrelaxed".
    tol : float, optional
        Largest marginal error in the L1 norm, relative to the mass. Default: 1e-8, in float32
        1e-5.
    maxiter : int, default 10000
        Largest number of iterations; each updates all rows and all columns.
    time_limit : float, optional
        Seconds after which the last iterate is returned.
    x0 : TransportResult or tuple of arrays, optional
        Potentials ``(f, g)`` to start from.
    f0, g0 : array, shapes (n,) and (m,), optional
        Either of them, in place of `x0`.
    callback : callable, optional
        Called after each iteration (on a GPU, with plain steps and a stored matrix, after every
        tenth) as ``callback(intermediate_result)`` with fields ``nit``, ``fun``,
        ``marginal_error``, ``f`` and ``g``; StopIteration or a true return value ends the run.
    progress : bool, default False
        Show a progress bar.
    history : bool or int, default True
        Whether, or every how many iterations, to record the history.
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
    An iteration in kernel form reads the matrix once; in the log domain it costs one exponential
    per entry of `C`. The number of plain iterations grows like ``1 / reg``, and worse near the
    solution of an unfavourable problem; that of the accelerated ones roughly like its square root.

    A batch is solved as by `sinkhorn_newton`, in plain sweeps: its methods are "auto" and
    "stabilized". ``nit`` is what the slowest problem took, and `callback` is called every fifty
    iterations, or fewer where factors grow large.

    References
    ----------
    .. [1] M. Cuturi. Sinkhorn distances: lightspeed computation of optimal transport. NeurIPS
       2013.
    .. [2] B. Schmitzer. Stabilized sparse scaling algorithms for entropy regularized transport
       problems. SIAM J. Sci. Comput., 2019. arXiv:1610.06519.
    .. [3] A. Thibault, L. Chizat, C. Dossal, N. Papadakis. Overrelaxed Sinkhorn-Knopp algorithm
       for regularized optimal transport. Algorithms, 2021. arXiv:1711.01851.
    .. [4] T. Lehmann, M.-K. von Renesse, A. Sambale, A. Uschmajew. A note on overrelaxation in
       the Sinkhorn algorithm. Optim. Lett., 2022. arXiv:2012.12562.
    .. [5] H. F. Walker, P. Ni. Anderson acceleration for fixed-point iterations. SIAM
       Journal on Numerical Analysis, 2011.

    Examples
    --------
    >>> import solvers
    >>> res = solvers.ot.sinkhorn([0.5, 0.5], [0.25, 0.75], [[0, 1], [1, 0]], reg=0.1)
    >>> res.success
    True
    """
    if is_batch(a, b, C):
        return sinkhorn_batch(**locals())
    problem, io = check_transport(a, b, C)
    reg = check_reg(problem, reg, reg_scale)
    tol, limits = check_limits(io, tol, maxiter, time_limit, callback, progress, history)
    n_threads = check_threads(n_threads)
    check_choice(reg_type, "reg_type", ("kl", "entropy"))
    check_choice(
        method, "method", ("auto", "kernel", "log", "stabilized", "overrelaxed", "anderson")
    )
    start = check_start(problem, reg, C, x0, f0, g0)
    # Few or many iterations, this takes the least time of all.
    wanted = "overrelaxed" if method == "auto" else method
    accelerated = wanted in ("overrelaxed", "anderson")
    name = f"sinkhorn ({wanted})" if accelerated else "sinkhorn"
    run = Monitor(name, "marginal_error", be=io.be, tol=0.9 * tol, stall=1000, **limits)
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        best = BestPotentials(problem, reg, max(1e-4 * tol, 1e-15), io.out)
        g = io.xp.zeros_like(best.part.b) if start is None else best.restrict(start)
        insists = method in ("kernel", "stabilized")
        passes = Passes(best.part, insists or "auto", number=io.dtype)
        if best.part.cut_off:
            run.end(Status.INFEASIBLE)
        elif accelerated:
            # Below this, differences of the dual are rounding errors: of costs, of stored sums.
            noise = 1e-14 * max(map(abs, problem.extent[:2])) + reg * np.finfo(io.dtype).eps
            if wanted == "overrelaxed":
                steps = Overrelaxation(noise)
            else:
                steps = AndersonMixing(io.be, best.part.b, noise)
            reach = ABSORB[io.dtype] if passes.holds_dense else -1.0
            _iterate_accelerated(passes, g, reg, run, best, reach, steps)
        elif method == "log":
            _iterate_log(passes, g, reg, run, best)
        else:
            reach = np.inf if method == "kernel" else ABSORB[io.dtype]
            _iterate_kernel(passes, g, reg, run, best, reach)
        answer = Answer(*best.potentials(), [reg], nsinkhorn=run.nit)
        return finish(problem, io, reg, reg_type, tol, answer, run, (a, b, C))


def _iterate_log(passes, g, reg, run, best):
    """Update rows in a pass over the cost, and columns from the sums that it returns."""
    b, be = passes.problem.b, passes.problem.be
    while True:
        c, _ = passes.run(g, reg)
        error = be.host(abs(c - b).sum())
        if np.isfinite(error):
            best.replace(passes.f, g)
        if run.record(error, state=best.state, fun=passes.dual(g)):
            return
        g = g + reg * be.xp.log(b / c)


def _iterate_kernel(passes, g, reg, run, best, reach):
    """Update rows in a sweep of the stored kernel, and columns from the sums that it returns."""
    b, be = passes.problem.b, passes.problem.be
    xp, every = be.xp, 1 if be.name == "numpy" else 10
    c, kernel = passes.run(g, reg, cutoff=0.0)
    v, rho, since = b, xp.ones_like(passes.problem.a), 0
    while True:
        since += 1
        if since == every or run.nit + since == run.maxiter:
            error, spread = be.host(xp.abs(c - b).sum(), xp.abs(xp.log(v / b)).max())
            f_now, g_now = passes.f - reg * xp.log(rho), g + reg * xp.log(v / b)
            # A factor that has underflowed has no logarithm, whatever its column's error.
            if np.isfinite(error) and be.host(xp.isfinite(g_now).all()):
                best.replace(f_now, g_now)
            dual = passes.problem.a @ f_now + b @ g_now
            if run.record(error, iterations=since, state=best.state, fun=dual):
                return
            since = 0
            if spread > reach:
                g, v = g_now, b
                c, kernel = passes.run(g, reg, cutoff=0.0)
                rho = xp.ones_like(rho)
        v = v * (b / c)
        rho, w = kernel.sweep(v)
        c = v * w


def _iterate_accelerated(passes, g, reg, run, best, reach, steps):
    """As `_iterate_kernel`, where `steps` decides how far to go; by passes if `reach` < 0."""
    a, b, be = passes.problem.a, passes.problem.b, passes.problem.be
    xp, log_v = be.xp, be.xp.zeros_like(b)
    stored = 0.0 if reach >= 0.0 else None
    c, kernel = passes.run(g, reg, stored)
    f = passes.f
    while True:
        now = g + reg * log_v
        error, dual = be.host(xp.abs(c - b).sum(), a @ f + b @ now)
        best.offer(error, f, now)
        if run.record(error, state=partial(best.state, f, now, reg), fun=dual):
            return
        # A column that has underflowed asks for more than the kernel can give: renew it.
        mismatch = xp.log(b / xp.maximum(c, 1e-300))
        log_v = steps.next(Sweep(log_v, mismatch, error, dual))
        if be.host(xp.abs(log_v).max()) > reach:
            steps.shift(log_v)
            g, log_v = g + reg * log_v, xp.zeros_like(b)
            c, kernel = passes.run(g, reg, stored)
            f = passes.f
        else:
            v = b * xp.exp(log_v)
            rho, w = kernel.sweep(v)
            f, c = passes.f - reg * xp.log(rho), v * w


class Sweep(NamedTuple):
    """What a sweep has shown: log-factors, how far a plain step would move them, and how it is."""

    log_v: Any
    mismatch: Any
    error: float
    dual: float


class Overrelaxation:
    """Relaxes rows and columns by a factor that follows from the observed rate.

    Rows are exact in every sweep, so the half-steps for them do not show. What two relaxed halves
    do to the column factors is, to first order, a step ``omega^2`` times as long and a share
    ``(omega - 1)^2`` of the last one (successive over-relaxation with every other unknown
    eliminated): one read of the kernel, and the same asymptotic rate, ``omega - 1``.

    Parameters
    ----------
    noise : float
        Rounding errors of the dual.
    """

    def __init__(self, noise):
        self._noise = noise
        self._omega, self._gap, self._least_gap = 1.0, 1.0, LEAST_GAP
        self._move, self._start, self._count, self._middle = 0.0, None, 0, np.inf

    def next(self, sweep):
        """Return the next log-factors."""
        if self._start is None:
            self._begin(sweep)
        if self._count == WINDOW // 2:
            self._middle = sweep.error
        exploded = self._omega > 1.0 and sweep.error > SPIKE * self._start.error
        if self._count == WINDOW or exploded:
            fell = sweep.dual < self._start.dual - self._noise
            if self._omega > 1.0 and (exploded or fell):
                sweep = self._start
                self._least_gap = min(CAUTION * self._gap, 1.0)
                self._omega, self._gap, self._move = 1.0, 1.0, 0.0
            else:
                self._adapt((sweep.error / self._middle) ** (1.0 / (WINDOW - WINDOW // 2)))
            self._begin(sweep)
        self._count += 1
        self._move = self._omega**2 * sweep.mismatch + (self._omega - 1.0) ** 2 * self._move
        return sweep.log_v + self._move

    def shift(self, log_v):
        """Take note that log-factors are counted from these from now on."""
        self._start = self._start._replace(log_v=self._start.log_v - log_v)

    def _begin(self, sweep):
        self._start, self._count, self._middle = sweep, 0, sweep.error

    def _adapt(self, rate):
        """Set omega for the rate of plain sweeps that explains the one observed."""
        self._least_gap = max(self._least_gap / FORGIVENESS, LEAST_GAP)
        excess = self._omega - 1.0
        # Any slower mode decays at a rate above omega - 1; if none shows, omega is large enough.
        if excess < rate < 1.0:
            gap = 1.0 - (rate + excess) ** 2 / (rate * self._omega**2)
            self._gap = max(gap, self._least_gap, self._gap / TRUST)
            self._omega = 2.0 / (1.0 + self._gap**0.5)


class AndersonMixing:
    """Combines the last sweeps so that their mismatches nearly cancel.

    Parameters
    ----------
    be : Backend
    b : array
        Weights of the columns, by which mismatches count.
    noise : float
        Rounding errors of the dual.
    """

    def __init__(self, be, b, noise):
        self._be, self._b, self._noise = be, b, noise
        self._known, self._combined = [], False

    def next(self, sweep):
        """Return the next log-factors."""
        xp, known = self._be.xp, self._known
        if self._combined and sweep.dual < known[-1].dual - self._noise:
            # The combination was worse than what it came from: make a plain step there.
            self._known, self._combined = known[-1:], False
            return known[-1].log_v + known[-1].mismatch
        self._known = known = [*known[-MEMORY:], sweep]
        self._combined = len(known) > 1
        plain = sweep.log_v + sweep.mismatch
        if not self._combined:
            return plain
        places, mismatches = (xp.stack([k[which] for k in known]) for which in (0, 1))
        moves, changes = places[1:] - places[:-1], mismatches[1:] - mismatches[:-1]
        gram, diagonal = (changes * self._b) @ changes.T, xp.arange(len(known) - 1)
        gram[diagonal, diagonal] += RIDGE * gram[diagonal, diagonal] + 1e-300
        shares = xp.linalg.solve(gram, (changes * self._b) @ sweep.mismatch)
        step = sweep.mismatch - shares @ (moves + changes)
        longest = xp.abs(step).max()
        step *= xp.minimum(1.0, LONGEST_STEP / longest)
        return xp.where(longest < np.inf, sweep.log_v + step, plain)

    def shift(self, log_v):
        """Take note that log-factors are counted from these from now on."""
        self._known = [k._replace(log_v=k.log_v - log_v) for k in self._known]
