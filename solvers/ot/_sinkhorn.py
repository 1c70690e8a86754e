"""Sinkhorn's alternating scaling, in kernel form and in the log domain."""

import numpy as np

from .._core import threads
from .._core.monitor import Monitor
from .._core.result import Status
from .._core.validation import check_choice, check_threads
from ._gibbs import Passes
from ._problem import BestPotentials, check_limits, check_reg, check_start, check_transport
from ._result import Answer, finish

# Log-factors at which the stabilised method moves them into the potentials.
ABSORB = {np.dtype(np.float64): 50.0, np.dtype(np.float32): 15.0}


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
        Non-negative weights with equal sums (zeros are fine); None for uniform ones.
    C : array, shape (n, m)
        Cost of moving a unit of mass, in any unit; ``inf`` forbids an edge.
    reg : float, optional
        Entropic weight :math:`\varepsilon`, in the unit of `C`. Default: 0.05 times the standard
        deviation of the costs.
    reg_scale : {None, "std", "mean", "max", "median"}
        Multiply `reg` by this statistic of the finite costs.
    reg_type : {"kl", "entropy"}
        Which value the result reports; the plan is the same.
    method : {"auto", "kernel", "log", "stabilized"}
        "kernel" scales a stored matrix of exponentials and may underflow for small `reg`;
        "stabilized" renews that matrix whenever its factors grow large; "log" computes the
        exponentials in every iteration and stores nothing. "auto" is "stabilized", or "log"
        where the matrix would not fit into memory.
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
        Called after each iteration (on a GPU every tenth) as ``callback(intermediate_result)``
        with fields ``nit``, ``fun``, ``marginal_error``, ``f`` and ``g``; StopIteration or a
        true return value ends the run.
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
    per entry of `C`. The number of iterations grows like ``1 / reg``, and worse near the
    solution of an unfavourable problem.

    References
    ----------
    .. [1] M. Cuturi. Sinkhorn distances: lightspeed computation of optimal transport. NeurIPS
       2013.
    .. [2] B. Schmitzer. Stabilized sparse scaling algorithms for entropy regularized transport
       problems. SIAM J. Sci. Comput., 2019. arXiv:1610.06519.

    Examples
    --------
    >>> import solvers
    >>> res = solvers.ot.sinkhorn([0.5, 0.5], [0.25, 0.75], [[0, 1], [1, 0]], reg=0.1)
    >>> res.success
    True
    """
    problem, io = check_transport(a, b, C)
    reg = check_reg(problem, reg, reg_scale)
    tol, limits = check_limits(io, tol, maxiter, time_limit, callback, progress, history)
    n_threads = check_threads(n_threads)
    check_choice(reg_type, "reg_type", ("kl", "entropy"))
    check_choice(method, "method", ("auto", "kernel", "log", "stabilized"))
    start = check_start(problem, reg, C, x0, f0, g0)
    run = Monitor("sinkhorn", "marginal_error", be=io.be, tol=0.9 * tol, stall=1000, **limits)
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        best = BestPotentials(problem, reg, max(1e-4 * tol, 1e-15), io.out)
        g = io.xp.zeros_like(best.part.b) if start is None else best.restrict(start)
        passes = Passes(best.part, "auto" if method == "auto" else True, number=io.dtype)
        if best.part.cut_off:
            run.end(Status.INFEASIBLE)
        elif method == "log" or not passes.holds_dense:
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
