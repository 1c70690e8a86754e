r"""Unbalanced transport: marginals may differ from the weights, at a price.

Rows are eliminated as in the balanced problem. With the row sums ``log K v = s`` of the Gibbs
kernel, the optimal row masses are ``r = a exp(lam s)``, ``lam = reg / (reg + tau_1)``, and the
dual is a concave function of the column potentials alone: its gradient is ``t - c`` with targets
``t = b exp(-g / tau_2)`` and the plan's column sums ``c``; its negated Hessian is
``(1 - lam) L + diag(lam c + reg / tau_2 t)`` with the Laplacian ``L`` of the balanced problem.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from .._core import threads
from .._core.arrays import Ingest
from .._core.monitor import Monitor
from .._core.result import Status
from .._core.validation import check_choice, check_flag, check_threads
from ._certificate_relatives import judge_unbalanced
from ._cloud import Cloud
from ._damped import DampedPasses, DampedSteps, System, damping, wanted_marginal
from ._newton import REACH
from ._problem import (
    DUST,
    check_limits,
    check_potentials,
    check_reg,
    check_reg_m,
    check_transport,
    row_blocks,
    softmin,
)
from ._sinkhorn import sinkhorn
from ._sinkhorn_newton import (
    ANNEALING_TOL,
    LAST_PATIENCE,
    PATIENCE,
    STALL,
    Outcome,
    Path,
    sinkhorn_newton,
)
from ._unbalanced_result import UnbalancedResult

# A row potential of this many `tau` leaves nothing of a row's mass, not even a denormal number.
NOTHING_LEFT = 800.0


def sinkhorn_unbalanced(
    a,
    b,
    C,
    *,
    reg_m,
    reg=None,
    reg_scale=None,
    method="newton",
    tol=None,
    maxiter=None,
    time_limit=None,
    x0=None,
    f0=None,
    g0=None,
    annealing=True,
    store_plan="auto",
    callback=None,
    progress=False,
    history=True,
    n_threads=None,
):
    r"""Solve an entropic transport problem whose marginals may differ from the weights.

    Minimises :math:`\langle C, P \rangle + \varepsilon \, \mathrm{KL}(P \,|\, a b^\top) + \tau_1
    \mathrm{KL}(P 1 \,|\, a) + \tau_2 \mathrm{KL}(P^\top 1 \,|\, b)` over :math:`P \ge 0`, where
    :math:`\mathrm{KL}(p \,|\, q) = \sum p \log (p / q) - p + q`. The masses of `a` and `b` may
    differ, and are not normalised.

    Parameters
    ----------
    a, b : array, shapes (n,) and (m,), or None
        Non-negative weights (zeros are fine); None for uniform ones with sum one.
    C : array or PointCloud, shape (n, m)
        Cost of moving a unit of mass, in any unit; ``inf`` forbids an edge.
    reg_m : float or pair of float
        Price :math:`\tau_1, \tau_2` of a marginal's divergence from `a` and `b`, in the unit of
        `C`. ``inf`` keeps that marginal exactly; with both infinite the answer is that of
        `sinkhorn_newton`.
    reg : float, optional
        Entropic weight :math:`\varepsilon`, in the unit of `C`. Default: 0.05 times the standard
        deviation of the costs.
    reg_scale : {None, "std", "mean", "max", "median"}
        Multiply `reg` by this statistic of the finite costs.
    method : {"newton", "sinkhorn"}
        "sinkhorn" alternates damped updates of both potentials; simple, but where `reg_m` is
        large relative to `reg` an iteration gains a fraction ``reg / reg_m`` only.
    tol : float, optional
        Largest value of the certificate. Default: 1e-8, in float32 1e-5.
    maxiter : int, optional
        Largest number of passes over the cost, or of iterations for "sinkhorn". Default: 500,
        for "sinkhorn" 10000.
    time_limit : float, optional
        Seconds after which the best iterate is returned.
    x0 : UnbalancedResult or tuple of arrays, optional
        Potentials ``(f, g)`` to start from.
    f0, g0 : array, shapes (n,) and (m,), optional
        Either of them, in place of `x0`.
    annealing : bool, default True
        For "newton": whether to come down to `reg` from larger weights.
    store_plan : {"auto", True, False}
        Whether to hold the plan in memory between passes while it is dense; False recomputes
        its entries instead, which is several times slower.
    callback : callable, optional
        Called after each pass (or iteration) as ``callback(intermediate_result)`` with fields
        ``nit``, ``fun``, ``optimality``, ``f`` and ``g``; StopIteration or a true return value
        ends the run.
    progress : bool, default False
        Show a progress bar.
    history : bool or int, default True
        Whether, or every how many passes, to record the history.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    UnbalancedResult
        A `TransportResult` with the potentials `f` and `g` (unit of `C`) of the plan
        :math:`P_{ij} = a_i b_j \exp((f_i + g_j - C_{ij}) / \varepsilon)`, its ``mass``, the
        optimal ``value`` and its derivatives ``grad_a`` and ``grad_b``, which are *not* `f` and
        `g`. With both `reg_m` infinite, the `TransportResult` of `sinkhorn_newton` (or
        `sinkhorn`), whose plan refers to ``a b^T / mass``.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind: complex or sparse data, arrays of different kinds.
    ValueError
        If shapes disagree, a weight is negative, or an option has no such value.

    Warns
    -----
    ConvergenceWarning
        If the certificate does not hold; once per call.

    Notes
    -----
    The certificate is "unbalanced optimality (L1)": :math:`(\|P 1 - a e^{-f/\tau_1}\|_1 +
    \|P^\top 1 - b e^{-g/\tau_2}\|_1) / \sum_{ij} P_{ij}`. The potentials of the solution are
    unique: here nothing can be shifted from `f` to `g`.

    A pass over the cost takes one exponential per entry. Newton steps see the Hessian of the
    balanced problem plus a positive diagonal of relative size ``reg / reg_m``; what plain
    iterations gain slowly, the total mass above all, they solve for.

    A point that only forbidden edges reach loses all of its mass.

    References
    ----------
    .. [1] L. Chizat, G. Peyré, B. Schmitzer, F.-X. Vialard. Scaling algorithms for unbalanced
       optimal transport problems. Math. Comp., 2018. arXiv:1607.05816.
    .. [2] T. Séjourné, F.-X. Vialard, G. Peyré. Faster unbalanced optimal transport: translation
       invariant Sinkhorn and 1-D Frank-Wolfe. AISTATS 2022. arXiv:2201.00730.

    Examples
    --------
    >>> import solvers
    >>> a, b, C = [1.0, 1.0], [1.0, 2.0], [[0, 4], [4, 0]]
    >>> res = solvers.ot.sinkhorn_unbalanced(a, b, C, reg=0.1, reg_m=1.0)
    >>> res.success
    True
    >>> res.plan.sum(axis=1).round(2)
    array([1.  , 1.44])
    """
    reg_m = check_reg_m(reg_m)
    check_choice(method, "method", ("newton", "sinkhorn"))
    check_flag(annealing, "annealing")
    if store_plan != "auto":
        check_flag(store_plan, "store_plan")
    if maxiter is None:
        maxiter = 500 if method == "newton" else 10000
    if min(reg_m) == np.inf:
        options = {
            "reg": reg, "reg_scale": reg_scale, "tol": tol, "maxiter": maxiter,
            "time_limit": time_limit, "x0": x0, "f0": f0, "g0": g0, "callback": callback,
            "progress": progress, "history": history, "n_threads": n_threads,
        }  # fmt: skip
        if method == "sinkhorn":
            return sinkhorn(a, b, C, **options)
        return sinkhorn_newton(a, b, C, annealing=annealing, store_plan=store_plan, **options)
    problem, io = check_transport(a, b, C, balanced=False)
    reg = check_reg(problem, reg, reg_scale)
    tol, limits = check_limits(io, tol, maxiter, time_limit, callback, progress, history)
    n_threads = check_threads(n_threads)
    start = check_potentials(problem, C, x0, f0, g0)
    stall = STALL if method == "newton" else 1000
    run = Monitor(
        "sinkhorn_unbalanced", "optimality", be=io.be, tol=0.9 * tol, stall=stall, **limits
    )
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        best = _BestPair(problem, reg, reg_m, io.out)
        if best.infeasible:
            run.end(Status.INFEASIBLE)
        elif method == "newton":
            best.relaxed(tol, run).anneal(best.restrict(*start), annealing, store_plan)
        else:
            best.relaxed(tol, run).alternate(best.restrict(*start), store_plan, io.dtype)
        return _finish(problem, io, reg, reg_m, tol, best, run, (a, b, C))


def solve_unbalanced(problem, io, reg, reg_m, tol, start, run, data):
    """Solve a checked problem for an outer run, which warns; `run` may have ended already."""
    best = _BestPair(problem, reg, reg_m, io.out)
    if run.status is None:
        best.relaxed(tol, run).anneal(best.restrict(*start), True, "auto")
    return _finish(problem, io, reg, reg_m, tol, best, run, data, warn=False)


class _Relaxed:
    """Solves a problem without points that take no part.

    Parameters
    ----------
    best : _BestPair
    reg : float
        The last temperature.
    taus : pair of float
        Prices of the marginals, in the problem's orientation.
    tol : float
        Largest residual, relative to the plan's mass.
    run : Monitor
    """

    def __init__(self, best, reg, taus, tol, run):
        self._best, self._problem, self._be = best, best.part, best.part.be
        self._reg, self._taus, self._tol, self._run = reg, taus, tol, run

    def anneal(self, start, annealing, store_plan):
        """Come down from a high temperature by Newton steps."""
        run, problem, best = self._run, self._problem, self._best
        f, g = start
        if g is None and f is not None:
            g = _damped(self._be, problem.C.T, f, problem.a, self._reg, self._taus[1])
        passes = DampedPasses(problem, store_plan)
        steps = DampedSteps(self._be, problem.b, run)
        path = Path(problem, self._reg, g, annealing)
        while run.status is None:
            g, reg, last = path.next()
            run.stage("final temperature" if last else "annealing")
            if best.levels[-1:] != [reg]:
                best.levels.append(reg)
            f, outcome = self._solve_level(passes, steps, f, g, reg, last, path.at_smallest_step)
            path.advance(reg, outcome)
        if not best.found:
            # Something ended the run above the last temperature: make the rows exact there.
            look = passes.look(f, outcome.g, self._reg, self._taus)
            best.offer(np.inf, look.f, outcome.g)
        best.density = passes.density
        best.counts = steps.counts

    def _solve_level(self, passes, steps, f, g, reg, last, patient):
        """Solve at one temperature; return row potentials and the outcome.

        All but the last temperature give up when they make slow progress, unless `patient`.
        """
        tol, patience = (self._tol, LAST_PATIENCE) if last else (ANNEALING_TOL, PATIENCE)
        cutoff, first, stored = 0.1 * tol / g.size, None, 0
        left = before = np.inf
        while True:
            look = self._look(passes, f, g, reg, last, cutoff)
            if look.over or (last and look.error <= tol):
                return look.f, Outcome(look.error <= tol, g, first or look.error, stored)
            system = System(self._problem, reg, self._taus, look)
            stored, goal = stored + 1, left
            floor = look.kernel.floor
            if last and look.error < 10 * floor:
                # Too little for stored entries to show; their rounding hardly matters to a step.
                if look.error > 0.3 * before:
                    passes.use_float64()
                before, point = look.error, steps.refine(system, look.error)
                g, f, stored = g + reg * point.x, system.row_potentials(point), stored - 1
                continue
            point, start, left = steps.solve(system, max(0.3 * tol, 1e-15), floor, patience)
            first = first or start
            g, f = g + reg * point.x, system.row_potentials(point)
            if not last and left <= tol:
                return f, Outcome(True, g, first, stored)
            if stored >= 3 and left > (0.01 if last else 0.3 * goal) and not (last and patient):
                return f, Outcome(False, g, first, stored)

    def alternate(self, start, store_plan, number):
        """Alternate damped updates on a stored kernel, renewed when its factors have grown."""
        f, g = start
        problem, reg, be = self._problem, self._reg, self._be
        if g is None:
            g = be.xp.zeros_like(problem.b)
        passes = DampedPasses(problem, store_plan, number)
        best, run = self._best, self._run
        best.levels.append(reg)
        while run.status is None:
            system = System(problem, reg, self._taus, passes.look(f, g, reg, self._taus, 0.0))
            point = system.at(0.0 * g)
            while True:
                error, mass, reach = be.host(*system.residual(point), be.xp.ptp(point.x))
                f, h = system.row_potentials(point), g + reg * point.x
                if be.host(be.xp.isfinite(h).all() & be.xp.isfinite(f).all()):
                    best.offer(0.0, f, h)
                fun = _dual(problem, reg, self._taus, f, h, mass)
                error /= max(mass, 1e-300)
                if run.record(error, state=best.state, fun=fun):
                    break
                best.counts["nsinkhorn"] += 1
                if reach > REACH:
                    break
                point = system.at(point.x + system.update(point))
            g = h

    def _look(self, passes, f, g, reg, last, cutoff):
        """Pass over the cost once, and report the residual of both conditions."""
        problem, host = self._problem, self._be.host
        look = passes.look(f, g, reg, self._taus, cutoff)
        # The plan has the row sums `r`, and column sums that are as far from `c` at most.
        r = wanted_marginal(self._be.xp, problem.a, look.f, self._taus[0])
        rows, cols, mass = host(abs(look.w - r).sum(), abs(look.c - look.t).sum(), r.sum())
        error = (rows + cols) / max(mass, 1e-300)
        if reg == self._reg:
            self._best.offer(error, look.f, g)
        fun = _dual(problem, reg, self._taus, look.f, g, mass)
        state = partial(self._best.state, look.f, g)
        over = self._run.record(error, judge=last, state=state, fun=fun, reg=reg)
        return look._replace(error=error, over=over)


class _BestPair:
    """The best potentials of a run, and which points take part in it.

    Parameters
    ----------
    problem : Transport
        The caller's problem, with its masses.
    reg : float
        The last temperature.
    reg_m : pair of float
        Prices of the marginals, in the caller's order.
    out : callable
        Turns an array into the caller's kind.
    """

    def __init__(self, problem, reg, reg_m, out):
        self._problem, self._reg, self._out = problem, reg, out
        self._taus = taus = reg_m[::-1] if problem.flipped else reg_m
        xp, be = problem.be.xp, problem.be
        heavy = [problem.a > DUST, problem.b > DUST]
        reached = heavy
        if problem.extent.forbidden:
            reached = [
                _reached(be, problem.C, heavy[1]) & heavy[0],
                _reached(be, problem.C.T, heavy[0]) & heavy[1],
            ]
        # Points with mass that no edge reaches.
        self._cut = [h & ~r for h, r in zip(heavy, reached, strict=True)]
        cut, sizes = be.host(*(c.any() for c in self._cut)), be.host(*(r.sum() for r in reached))
        self.infeasible = any(c and tau == np.inf for c, tau in zip(cut, taus, strict=True))
        self.infeasible = self.infeasible or 0 in sizes
        self._kept = [
            None if size == r.size else xp.flatnonzero(r)
            for size, r in zip(sizes, reached, strict=True)
        ]
        self.part = problem if self.infeasible else _part(problem, *self._kept)
        self.error, self._f, self._g = np.inf, None, None
        self.levels, self.density = [], 1.0
        self.counts = {"nsinkhorn": 0, "nnewton": 0, "ncg": 0, "nfactor": 0}

    def relaxed(self, tol, run):
        """Return the solver of the problem without points that take no part."""
        # A little below the tolerance, for the judge rounds differently.
        return _Relaxed(self, self._reg, self._taus, 0.8 * tol, run)

    @property
    def found(self):
        """Whether any were offered."""
        return self._f is not None

    def restrict(self, f, g):
        """Return potentials of the whole problem at the points that `part` has."""
        return tuple(
            v if v is None or kept is None else v[kept]
            for v, kept in zip((f, g), self._kept, strict=True)
        )

    def offer(self, error, f, g):
        """Keep potentials of `part` if they are at least as good as any before."""
        if error <= self.error:
            self.error, self._f, self._g = error, f.copy(), g.copy()

    def state(self, f=None, g=None):
        """Return what a callback sees: the potentials given, or those kept."""
        f, g = self.potentials() if f is None else self._whole(f, g)
        f, g = self._out(f), self._out(g)
        return {"f": g, "g": f} if self._problem.flipped else {"f": f, "g": g}

    def potentials(self):
        """Return those kept, for all points; zeros if there are none."""
        if not self.found:
            return 0.0 * self._problem.a, 0.0 * self._problem.b
        return self._whole(self._f, self._g)

    def _whole(self, f, g):
        problem, taus = self._problem, self._taus
        g_kept, g = g, self._spread(g, 1)
        if self._kept[1] is not None:
            a = problem.a if self._kept[0] is None else problem.a[self._kept[0]]
            C = _rows(problem.C, self._kept[0])
            g = self._filled(C.T, 1, f, a, g_kept, taus[1])
        if self._kept[0] is not None:
            f = self._filled(problem.C, 0, g, problem.b, f, taus[0])
        return f, g

    def _spread(self, values, side):
        kept = self._kept[side]
        if kept is None:
            return values
        out = self._problem.be.xp.zeros_like((self._problem.a, self._problem.b)[side])
        out[kept] = values
        return out

    def _filled(self, C, side, others, weights, values, tau):
        """Return potentials for all rows of C: `values` where known, else the damped update."""
        be, xp = self._problem.be, self._problem.be.xp
        known = xp.zeros(C.shape[0], bool)
        known[self._kept[side]] = True
        missing = xp.flatnonzero(~known)
        out = self._spread(values, side)
        out[missing] = _damped(be, _rows(C, missing), others, weights, self._reg, tau)
        return xp.where(self._cut[side], NOTHING_LEFT * tau, out)


def _part(problem, rows, cols):
    """Return the problem of some points, with their weights as they are."""
    if rows is None and cols is None:
        return problem
    a = problem.a if rows is None else problem.a[rows]
    b = problem.b if cols is None else problem.b[cols]
    C = _rows(problem.C, rows)
    if isinstance(C, Cloud):
        C = C.part(None, cols)
    elif cols is not None:
        C = problem.be.xp.ascontiguousarray(C[:, cols])
    return replace(problem, a=a, b=b, C=C)


def _rows(C, rows):
    """Return some rows of a cost (None: all), without evaluating them if it is a cloud."""
    if rows is None:
        return C
    return C.part(rows, None) if isinstance(C, Cloud) else C[rows]


def _reached(be, C, others):
    """Tell which rows have a finite cost to at least one of `others`."""
    xp = be.xp
    blocks = [(xp.isfinite(C[rows]) & others).any(axis=1) for rows in row_blocks(be, C)]
    return xp.concatenate(blocks)


def _damped(be, C, others, weights, reg, tau):
    """Return the potentials of C's rows that are optimal for given column potentials."""
    return (1.0 - damping(reg, tau)) * softmin(be, C, others, weights, reg)


def _dual(problem, reg, taus, f, g, mass):
    """Return the dual value, on the device, of potentials whose plan has this mass."""
    xp = problem.be.xp
    parts = [
        w @ v if tau == np.inf else -tau * (w @ xp.expm1(-v / tau))
        for w, v, tau in ((problem.a, f, taus[0]), (problem.b, g, taus[1]))
    ]
    return sum(parts) + reg * (problem.a.sum() * problem.b.sum() - mass)


def _finish(problem, io, reg, reg_m, tol, best, run, data, warn=True):
    """Judge the answer as the caller gets it, and turn it into a result."""
    f, g = best.potentials()
    f, g = (io.out(v) for v in ((g, f) if problem.flipped else (f, g)))
    door = Ingest(f=f, g=g)
    own = (door["g"], door["f"]) if problem.flipped else (door["f"], door["g"])
    taus = reg_m[::-1] if problem.flipped else reg_m
    certificate = judge_unbalanced(problem, *own, reg, taus, tol)
    note = None
    largest = problem.be.host(*(problem.be.xp.abs(v).max() for v in own))
    floor = np.finfo(io.dtype).eps * max(*largest, problem.range) / reg
    if certificate.details["mass"] == 0.0:
        note = "The plan's mass underflows: these costs are too large for this `reg_m`."
    elif not certificate.holds and floor > 0.1 * tol:
        note = f"Rounding of the potentials limits it to about {floor:.1e}."
    return run.finish(
        UnbalancedResult,
        certificate,
        note=note,
        warn=warn,
        f=f,
        g=g,
        reg=reg,
        reg_m=reg_m,
        fun=certificate.details["dual"],
        value=certificate.details["dual"],
        dual=certificate.details["dual"],
        mass=certificate.details["mass"],
        marginal_error=certificate.value * certificate.details["mass"],
        density=best.density,
        levels=best.levels,
        **best.counts,
        _data=data,
    )
