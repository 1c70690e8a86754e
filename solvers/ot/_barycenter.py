r"""Entropic barycentres: the measure closest to several others in the entropic cost.

The unknowns are the column potentials of all plans; in units of `reg`, ``eta_k``. With the row
sums ``s_k = log K_k v_k`` of the Gibbs kernels, all plans have the row sums
``x = exp(sum_k weight_k s_k)``, which makes the potentials of the rows add up to zero. The dual
is then concave, with gradient ``b_k - c_k`` for the k-th measure (in the inner product weighted
by the weights) and negated Hessian ``eta_k -> L_k eta_k + P_k^T xi``, where ``L_k`` is the
Laplacian of the balanced problem and ``xi = sum_k weight_k P_k eta_k / x``.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .._core import threads
from .._core.arrays import Ingest
from .._core.linalg import logsumexp, pcg
from .._core.monitor import Monitor
from .._core.result import Status
from .._core.validation import check_flag, check_memory, check_threads
from ._barycenter_result import BarycenterResult
from ._certificate_relatives import judge_barycenter
from ._gibbs import Passes
from ._measures import check_measures, check_start
from ._newton import GATE, LIGHT, LONGEST_STEP, REACH
from ._problem import check_limits, check_reg, softmin
from ._shared_kernel import SharedKernel
from ._sinkhorn_newton import ANNEALING_TOL, LAST_PATIENCE, PATIENCE, STALL, Outcome, Path

# Iterated projections in a block of them.
SWEEPS = 8
# Most conjugate-gradient iterations in a Newton step.
MOST_INNER = 500


def barycenter(
    B,
    C,
    *,
    weights=None,
    reg=None,
    reg_scale=None,
    tol=None,
    maxiter=500,
    time_limit=None,
    x0=None,
    annealing=True,
    callback=None,
    progress=False,
    history=True,
    n_threads=None,
):
    r"""Compute the entropic barycentre of several measures.

    Minimises :math:`\sum_k \lambda_k \, \mathrm{OT}_\varepsilon(x, b_k)` over measures `x`, where
    :math:`\mathrm{OT}_\varepsilon(x, b) = \min \langle C, P \rangle + \varepsilon \sum_{ij} P_{ij}
    (\log P_{ij} - 1)` over plans :math:`P \ge 0` with row sums `x` and column sums `b`.

    Parameters
    ----------
    B : array, shape (K, m)
        Measures, one in each row: non-negative, with equal sums.
    C : array or PointCloud, shape (n, m) or (K, n, m)
        Cost of moving a unit of mass from a point of the barycentre to one of the measures', in
        any unit; or such a matrix for each of them.
    weights : array, shape (K,), optional
        Non-negative weights :math:`\lambda_k`, which are divided by their sum. Default: equal.
    reg : float, optional
        Entropic weight :math:`\varepsilon`, in the unit of `C`. Default: 0.05 times the standard
        deviation of the costs.
    reg_scale : {None, "std", "mean", "max", "median"}
        Multiply `reg` by this statistic of the costs.
    tol : float, optional
        Largest value of the certificate. Default: 1e-8, in float32 1e-5.
    maxiter : int, default 500
        Largest number of passes over all costs.
    time_limit : float, optional
        Seconds after which the best iterate is returned.
    x0 : BarycenterResult or tuple of arrays, optional
        Barycentre and column potentials ``(x, g)`` to start from.
    annealing : bool, default True
        Whether to come down to `reg` from larger weights, where it is small.
    callback : callable, optional
        Called after each pass as ``callback(intermediate_result)`` with fields ``nit``, ``fun``,
        ``optimality``, ``reg`` and ``x``; StopIteration or a true return value ends the run.
    progress : bool, default False
        Show a progress bar.
    history : bool or int, default True
        Whether, or every how many passes, to record the history.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    BarycenterResult
        With the barycentre `x`, the potentials `f` and `g` of all plans, and their certificate.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind: complex or sparse data, arrays of different kinds.
    ValueError
        If shapes disagree, a measure or weight is negative, or sums differ.

    Warns
    -----
    ConvergenceWarning
        If the certificate does not hold; once per call.

    Notes
    -----
    The certificate is "barycentre optimality (L1)": :math:`\sum_k \lambda_k (\|P_k 1 - x\|_1 +
    \|P_k^\top 1 - b_k\|_1)` plus :math:`\langle x, |\sum_k \lambda_k f_k| \rangle / \varepsilon`,
    relative to the mass. The first part is zero for any `x` and its own plans; the second tells
    the barycentre.

    Iterated Bregman projections [1]_ and Newton steps work on stored kernels: where `C` is one
    matrix that ranges over at most 600 times `reg`, on one in float64 for all measures; else on
    one for each measure, restricted to where it has mass, and between passes over the cost that
    take an exponential for each measure and entry.

    References
    ----------
    .. [1] J.-D. Benamou, G. Carlier, M. Cuturi, L. Nenna, G. Peyré. Iterative Bregman projections
       for regularized transportation problems. SIAM J. Sci. Comput., 2015. arXiv:1412.5154.

    Examples
    --------
    >>> import solvers
    >>> B, C = [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], [[0, 1, 4], [1, 0, 1], [4, 1, 0]]
    >>> res = solvers.ot.barycenter(B, C, reg=0.2)
    >>> res.success
    True
    >>> res.x.round(3)
    array([0.007, 0.987, 0.007])
    """
    data, io = check_measures(B, C, weights)
    reg = check_reg(data.everything, reg, reg_scale)
    tol, limits = check_limits(io, tol, maxiter, time_limit, callback, progress, history)
    n_threads = check_threads(n_threads)
    check_flag(annealing, "annealing")
    start = check_start(data, reg, x0, C)
    run = Monitor("barycenter", "optimality", be=io.be, tol=0.9 * tol, stall=STALL, **limits)
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        if data.cut_off:
            run.end(Status.INFEASIBLE)
        # A little below the tolerance, for the judge rounds differently.
        kind = SharedKernel if SharedKernel.suits(data, reg) else _Projections
        solver = kind(data, reg, 0.8 * tol, run, io.out)
        if run.status is None:
            solver.solve(start, annealing)
        return _finish(data, io, reg, tol, solver, run)


class _Look(NamedTuple):
    """What a pass over all costs shows for row sums `w` and column potentials `g`."""

    w: Any
    s: list
    c: list
    kernels: list
    error: float
    over: bool


class _Point(NamedTuple):
    """Column log-factors, and the plans that belong to them; their mass is one."""

    eta: list
    v: list
    rho: list
    log_x: Any
    x: Any
    c: list


class _Projections:
    """Follows the solution from a high temperature down to `reg`.

    Parameters
    ----------
    data : Measures
    reg : float
        The last temperature.
    tol : float
        Largest residual there.
    run : Monitor
    out : callable
        Turns an array into the caller's kind.
    """

    def __init__(self, data, reg, tol, run, out):
        self._data, self._be, self._reg, self._tol = data, data.be, reg, tol
        self._run, self._out = run, out
        self._b = [part.b for part in data.parts]
        self._weights = [float(data.weights[k]) for k, _ in data.used]
        ends = np.cumsum([b.size for b in self._b])
        self._cuts = [slice(e - b.size, e) for e, b in zip(ends, self._b, strict=True)]
        self._damping, self._best = 1e-2, np.inf
        self.counts = {"nsinkhorn": 0, "nnewton": 0, "ncg": 0}
        self.levels, self._found = [], None

    def solve(self, start, annealing):
        """Solve from a barycentre and column potentials, or from scratch (None)."""
        data, run, xp = self._data, self._run, self._be.xp
        store = "auto"
        try:
            check_memory(8 * sum(part.C.size for part in data.parts), "Plans", be=self._be)
        except MemoryError:
            store = False
        self._passes = [Passes(part, store) for part in data.parts]
        log_x, g = (xp.log(data.parts[0].a), None) if start is None else start
        zero = xp.zeros(self._cuts[-1].stop)
        path = Path(data.parts[0], self._reg, g, annealing, first=zero)
        while run.status is None:
            g, reg, last = path.next()
            run.stage("final temperature" if last else "annealing")
            if self.levels[-1:] != [reg]:
                self.levels.append(reg)
            log_x, outcome = self._solve_level(log_x, g, reg, last, path.at_smallest_step)
            path.advance(reg, outcome)
        if self._found is None:
            # Something ended the run above the last temperature: make the rows exact there.
            _, s, _ = self._pass(xp.exp(log_x), outcome.g, self._reg, None)
            self._found = self._mean(s), s, outcome.g

    def answer(self):
        """Return logarithms of the barycentre, and by measure what `_finish` needs.

        These are the kernels' log-sums, and where column potentials are known with their values.
        """
        data, xp = self._data, self._be.xp
        if self._found is None:
            return xp.log(data.parts[0].a), {}, {}
        log_x, s, g = self._found
        places = [(k, slice(None) if kept is None else kept) for k, kept in data.used]
        columns = {k: (where, g[cut]) for (k, where), cut in zip(places, self._cuts, strict=True)}
        return log_x, {k: q for (k, _), q in zip(places, s, strict=True)}, columns

    def _solve_level(self, log_x, g, reg, last, patient):
        """Solve at one temperature; return the row sums reached and the outcome.

        All but the last temperature give up when they make slow progress, unless `patient`.
        """
        tol, patience = (self._tol, LAST_PATIENCE) if last else (ANNEALING_TOL, PATIENCE)
        first, left, before, stored = None, np.inf, np.inf, 0
        while True:
            look = self._look(log_x, g, reg, last, 0.1 * tol / g.size)
            if look.over or (last and look.error <= tol):
                return log_x, Outcome(look.error <= tol, g, first or look.error, stored)
            stored, goal = stored + 1, left
            system, floor = _System(self, look), max(kernel.floor for kernel in look.kernels)
            if last and look.error < 10 * floor:
                # Too little for stored entries to show; their rounding hardly matters to a step.
                if look.error > 0.3 * before:
                    for passes in self._passes:
                        passes.use_float64()
                before, point = look.error, self._refine(system, look.error)
                log_x, g = point.log_x, g + reg * self._be.xp.concatenate(point.eta)
                stored -= 1
                continue
            point, start, left = self._balance(system, max(0.3 * tol, 1e-15), floor, patience)
            first = first or start
            log_x, g = point.log_x, g + reg * self._be.xp.concatenate(point.eta)
            if not last and left <= tol:
                return log_x, Outcome(True, g, first, stored)
            if stored >= 3 and left > (0.01 if last else 0.3 * goal) and not (last and patient):
                return log_x, Outcome(False, g, first, stored)

    def _pass(self, w, g, reg, cutoff):
        """Return column sums, logarithms of the kernels' row sums, and the kernels."""
        c, s, kernels = [], [], []
        for cut, passes in zip(self._cuts, self._passes, strict=True):
            passes.problem = replace(passes.problem, a=w)
            h = g[cut].copy()
            sums, kernel = passes.run(h, reg, cutoff)
            g[cut] = h
            c.append(sums)
            s.append(-passes.f / reg)
            kernels.append(kernel)
        return c, s, kernels

    def _look(self, log_x, g, reg, last, cutoff):
        """Pass over all costs once, and report the residual of all conditions."""
        xp, host, mass = self._be.xp, self._be.host, self._data.mass
        w = xp.exp(log_x)
        c, s, kernels = self._pass(w, g, reg, cutoff)
        gaps = self._mean([abs(b - q).sum() for b, q in zip(self._b, c, strict=True)])
        off = xp.where(w > 0, w * abs(log_x - self._mean(s)), 0.0).sum()
        error = host(gaps + off)
        if reg == self._reg and error < self._best:
            self._best, self._found = error, (log_x, s, g.copy())
        columns = zip(self._b, self._cuts, strict=True)
        fun = self._mean([b @ (g[cut] + reg * xp.log(mass * b)) for b, cut in columns]) - reg
        state = partial(self._state, w)
        over = self._run.record(error, judge=last, state=state, fun=mass * fun, reg=reg)
        return _Look(w, s, c, kernels, error, over)

    def _state(self, w):
        return {"x": self._out(self._data.mass * w)}

    def _mean(self, values):
        """Return the weighted mean over the measures."""
        return sum(t * v for t, v in zip(self._weights, values, strict=True))

    def _balance(self, system, tol, floor, patience):
        """Find the log-factors at which a stored system holds, as far as rounding shows it.

        Returns
        -------
        _Point
            Where the residual is at most `tol`, or what was reached.
        float, float
            The residuals at the start and at the end.
        """
        xp, host = self._be.xp, self._be.host
        b = xp.concatenate(self._b)
        point = system.at([0.0 * part for part in self._b])
        first, weak = None, 0
        before = worst_before = np.inf
        for move in range(patience + 1):
            gaps = [abs(t - c) for t, c in zip(self._b, point.c, strict=True)]
            error = self._mean([gap.sum() for gap in gaps])
            c, eta = xp.concatenate(point.c), xp.concatenate(point.eta)
            heavy = b + c >= LIGHT / b.size * error
            mismatch = xp.log(b / xp.maximum(c, 1e-300))
            spreads = [
                xp.where(heavy[cut], eta[cut], -np.inf).max()
                - xp.where(heavy[cut], eta[cut], np.inf).min()
                for cut in self._cuts
            ]
            error, worst, spread = host(
                error,
                xp.abs(xp.where(heavy, mismatch, 0.0)).max(),
                xp.stack(spreads).max(),
            )
            first = error if first is None else first
            if error <= max(tol, floor) or spread > REACH or move == patience:
                break
            rounded = 0.5 * before < error < 30 * floor
            if rounded or not np.isfinite(error) or self._run.late:
                break
            before = error
            # What projections do not mend soon is slow for them: a shift of distant parts.
            if (worst > GATE and worst < 0.5 * worst_before) or weak == 2:
                point, weak, worst_before = self._sweeps(system, point, heavy), 0, worst
            else:
                point, step = self._newton_step(system, point, heavy, mismatch, error)
                weak, worst_before = weak + 1 if step < 0.3 else 0, np.inf
        return point, first, error

    def _refine(self, system, error):
        """Return where one Newton step leads from a residual that is known exactly."""
        xp, point = self._be.xp, system.exact()
        gap = system.column_weights * (xp.concatenate(self._b) - xp.concatenate(point.c))
        d, iterations = system.direction(point, gap, 1e-11, max(min(1e-9 / error, 0.1), 1e-4))
        self.counts["ncg"] += iterations
        self.counts["nnewton"] += 1
        d = d * min(1.0, 1.0 / self._be.host(xp.abs(d).max()))
        return system.moved(point, [d[cut] for cut in self._cuts])

    def _sweeps(self, system, point, heavy):
        """Make a few iterated projections."""
        xp = self._be.xp
        b = xp.concatenate(self._b)
        for _ in range(SWEEPS):
            step = xp.log(b / xp.maximum(xp.concatenate(point.c), 1e-300))
            step = xp.clip(step, -60.0, 60.0)
            point = system.at(
                [e + step[cut] for e, cut in zip(point.eta, self._cuts, strict=True)]
            )
            self.counts["nsinkhorn"] += 1
            off = xp.log(b / xp.maximum(xp.concatenate(point.c), 1e-300))
            if self._be.host(xp.abs(xp.where(heavy, off, 0.0)).max()) < 0.5 * GATE:
                break
        return point

    def _newton_step(self, system, point, heavy, mismatch, error):
        """Make one damped Newton step."""
        xp, host = self._be.xp, self._be.host
        weights = system.column_weights
        # Columns of no weight whose sums are far off follow the projections instead.
        aside = ~heavy & (xp.abs(mismatch) > GATE)
        b = xp.concatenate(self._b)
        gap = xp.where(aside, 0.0, weights * (b - xp.concatenate(point.c)))
        step_tol = max(0.1 * min(1.0, error / 1e-2) ** 0.5, 1e-2)
        shift = min(max(self._damping * error, 1e-11), 0.3)
        d, iterations = system.direction(point, gap, shift, step_tol)
        self.counts["ncg"] += iterations
        self.counts["nnewton"] += 1
        part = xp.where(aside, 0.0, d)
        d = xp.where(aside, xp.clip(mismatch, -LONGEST_STEP, LONGEST_STEP), d)
        spread, slope = host(xp.stack([xp.ptp(part[cut]) for cut in self._cuts]).max(), gap @ part)
        step = min(1.0, LONGEST_STEP / max(spread, 1e-30))
        for _ in range(10):
            eta = [e + step * d[cut] for e, cut in zip(point.eta, self._cuts, strict=True)]
            new = system.at(eta)
            # By the slope of the concave dual, whose gain drops below rounding long before.
            rest = xp.where(aside, 0.0, weights * (b - xp.concatenate(new.c)))
            end = host(rest @ part)
            if end >= -0.5 * slope:
                self._trust(step)
                return new, step
            shrink = slope / (slope - end) if np.isfinite(end) else 0.0
            step *= min(max(shrink, 0.1), 0.7)
        self._damping = min(10 * self._damping, 1e3)
        return point, 0.0

    def _trust(self, step):
        if step == 1.0:
            self._damping = max(self._damping / 4, 1e-6)
        else:
            self._damping = min(self._damping * (4 if step > 0.2 else 30), 1e3)


class _System:
    """The optimality system on stored kernels, corrected for what storing has changed."""

    def __init__(self, solver, look):
        self._be, self._b, self._cuts = solver._be, solver._b, solver._cuts
        self._mean, self._kernels, self._weights = solver._mean, look.kernels, solver._weights
        xp, self._look = self._be.xp, look
        self.column_weights = xp.concatenate(
            [xp.full(b.size, t) for b, t in zip(self._b, self._weights, strict=True)]
        )
        self._rho, self._s, self._correction = [], [], []
        for kernel, b, s, c in zip(look.kernels, self._b, look.s, look.c, strict=True):
            kernel.weigh(look.w)
            rho, sums = kernel.sweep(b)
            ratio = c / (b * sums)
            self._rho.append(rho)
            self._s.append(s - xp.log(rho))
            self._correction.append(xp.where(xp.isfinite(ratio), xp.clip(ratio, 0.5, 2.0), 1.0))

    def at(self, eta):
        """Return the plans for column potentials ``g + reg eta``, shifted to a mass of one."""
        xp = self._be.xp
        v, s = [], []
        for kernel, b, e, s0 in zip(self._kernels, self._b, eta, self._s, strict=True):
            top = e.max()
            v.append(b * xp.exp(e - top))
            s.append(s0 + top + xp.log(kernel.sweep(v[-1])[0]))
        log_x = self._mean(s)
        shift = -logsumexp(log_x, be=self._be, axis=0)
        log_x, eta = log_x + shift, [e + shift for e in eta]
        x, rho, c = xp.exp(log_x), [], []
        for kernel, factors, correction in zip(self._kernels, v, self._correction, strict=True):
            kernel.weigh(x)
            sums = kernel.sweep(factors)
            rho.append(sums[0])
            c.append(factors * sums[1] * correction)
        return _Point(eta, v, rho, log_x, x, c)

    def exact(self):
        """Return where the pass was, without the rounding of stored entries.

        For a small residual: they only tell what correcting the row sums changes.
        """
        look, c = self._look, []
        log_x = self._mean(look.s)
        x = self._be.xp.exp(log_x)
        for kernel, b, sums in zip(self._kernels, self._b, look.c, strict=True):
            kernel.weigh(x - look.w)
            c.append(sums + b * kernel.sweep(b)[1])
        return _Point([0.0 * b for b in self._b], self._b, self._rho, log_x, x, c)

    def moved(self, point, eta):
        """Return an exact point moved by small factors; its column sums stay as they were."""
        drifts = [
            kernel.sweep(v * e)[0] / rho
            for kernel, v, rho, e in zip(self._kernels, point.v, point.rho, eta, strict=True)
        ]
        return point._replace(eta=eta, log_x=point.log_x + self._mean(drifts))

    def direction(self, point, gap, shift, tol):
        """Solve for the Newton direction by conjugate gradients; return it and their number."""
        xp = self._be.xp
        x, weights, c = point.x, self.column_weights, xp.concatenate(point.c)
        diagonals = []
        for kernel, v, rho, q in zip(self._kernels, point.v, point.rho, point.c, strict=True):
            kernel.weigh(x)
            kernel.fix(v, rho)
            diagonals.append(kernel.diagonal(q))
        own = xp.concatenate(diagonals)
        jacobi = weights * (own + weights * xp.maximum(c - own, 0.0) + shift * c)

        def hessian(d):
            xi, parts = 0.0, []
            for t, kernel, v, rho, cut in self._parts(point):
                # P d / x: the plan's rows, divided by their sums.
                xi = xi + t * kernel.sweep(v * d[cut])[0] / rho
                parts.append(kernel.laplacian(d[cut]))
            for k, (_, kernel, v, _, _) in enumerate(self._parts(point)):
                kernel.weigh(x * xi)
                parts[k] = parts[k] + v * kernel.sweep(v)[1]
            return weights * (xp.concatenate(parts) + shift * c * d)

        def project(z):
            # Constants for one measure, at the expense of another, change nothing.
            means = [(q @ z[cut]) / q.sum() for q, cut in zip(point.c, self._cuts, strict=True)]
            common = self._mean(means)
            return z - xp.concatenate(
                [xp.full(b.size, 1.0) * (m - common) for b, m in zip(self._b, means, strict=True)]
            )

        result = pcg(
            hessian,
            gap,
            be=self._be,
            precond=lambda r: r / jacobi,
            project=project,
            norm=lambda r: xp.abs(r).sum(),
            tol=tol,
            maxiter=MOST_INNER,
        )
        return result.x, result.iterations

    def _parts(self, point):
        return zip(self._weights, self._kernels, point.v, point.rho, self._cuts, strict=True)


def _finish(data, io, reg, tol, solver, run):
    """Judge the answer as the caller gets it, and turn it into a result."""
    xp, mass = data.be.xp, data.mass
    log_x, s, h = solver.answer()
    f, g = [], []
    for k, cost in enumerate(data.costs):
        if k in s:
            rows, own = -reg * s[k], xp.zeros_like(data.B[k])
            own[h[k][0]] = h[k][1]
        else:
            # A measure of weight zero: any of its potentials that fit the barycentre will do.
            own = xp.zeros_like(data.B[k])
            rows = softmin(data.be, cost, own, data.B[k], reg)
        rows = rows + reg * log_x
        # The only freedom that potentials have is used up so that <x, f_k> = 0.
        shift = xp.exp(log_x) @ rows
        f.append(rows - shift)
        g.append(own + reg * xp.log(mass * data.B[k]) + shift)
    x, f, g = io.out(mass * xp.exp(log_x)), io.out(xp.stack(f)), io.out(xp.stack(g))
    door = Ingest(x=x, f=f, g=g)
    certificate = judge_barycenter(
        data.be, mass * data.B, data.costs, data.weights, door["x"], door["f"], door["g"], reg, tol
    )
    return run.finish(
        BarycenterResult,
        certificate,
        x=x,
        f=f,
        g=g,
        weights=io.out(xp.asarray(data.weights)),
        reg=reg,
        fun=certificate.details["dual"],
        levels=solver.levels,
        **solver.counts,
    )
