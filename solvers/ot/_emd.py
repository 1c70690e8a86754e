"""Optimal transport without entropy: annealing shows which edges matter, pivots do the rest."""

from functools import partial

import numpy as np

from .._core import threads
from .._core.monitor import Monitor
from .._core.result import Status
from .._core.validation import check_flag, check_positive, check_threads
from ._cloud import Cloud
from ._exact_result import Vertex, finish_exact
from ._newton import NewtonSteps
from ._pricing import SMALL, c_transform, column_transform, support, violations
from ._problem import check_limits, check_start, check_transport
from ._simplex import Basis
from ._sinkhorn_newton import Descent

# The last temperature of the annealing, relative to the spread of the cost, the marginal errors
# to be reached before it and there, and the most passes to spend on all that: it only has to
# find edges, so rough answers will do.
COLDEST, UNBALANCED, BALANCED, MOST_PASSES = 1e-4, 3e-2, 0.1, 20
# Relative residual of its linear solves.
ROUGH = 0.25
# Gaps are relative to the value, or to this fraction of the cost's range if that is larger.
FLOOR = 1e-8
# Mass on forbidden edges up to which rounding may have put it there.
DUST = 1e-12
# Costs are evaluated for this many edges at a time where there is no matrix of them.
PAIRS = 64


def emd(
    a,
    b,
    C,
    *,
    gap=1e-6,
    polish=False,
    maxiter=2000,
    time_limit=None,
    x0=None,
    f0=None,
    g0=None,
    callback=None,
    progress=False,
    history=True,
    n_threads=None,
):
    r"""Solve an optimal transport problem exactly, or to a certified gap.

    Minimises :math:`\langle C, P \rangle` over plans :math:`P \ge 0` with row sums `a` and column
    sums `b`: the earth mover's distance, if `C` is one.

    Parameters
    ----------
    a, b : array, shapes (n,) and (m,), or None
        Non-negative weights with equal sums (zeros are fine); None for uniform ones.
    C : array, shape (n, m), or PointCloud
        Cost of moving a unit of mass, in any unit and of any sign; ``inf`` forbids an edge.
    gap : float, default 1e-6
        Largest gap between upper and lower bound of the optimal value, relative to the value.
        For values below 1e-8 times the range of `C`, relative to that.
    polish : bool, default False
        Go on, once the gap is reached, until no edge can improve the plan: an optimal vertex,
        with optimal potentials, up to rounding.
    maxiter : int, default 2000
        Largest number of passes over the cost.
    time_limit : float, optional
        Seconds after which the best plan is returned.
    x0 : TransportResult or tuple of arrays, optional
        Potentials ``(f, g)`` to start from.
    f0, g0 : array, shapes (n,) and (m,), optional
        Either of them, in place of `x0`.
    callback : callable, optional
        Called after each pass as ``callback(intermediate_result)`` with fields ``nit``, ``fun``,
        ``lp_gap``, ``f`` and ``g``; StopIteration or a true return value ends the run.
    progress : bool, default False
        Show a progress bar.
    history : bool or int, default True
        Whether, or every how many passes, to record the history.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    TransportResult
        With a `plan` of at most ``n + m - 1`` entries that is a vertex of the polytope of plans,
        its cost `value` (also `fun`), potentials with ``f_i + g_j <= C_ij``, and `dual`, the
        lower bound that they prove. `reg` is 0.

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
    A few temperatures of `sinkhorn_newton` show which edges an optimal plan may use, some 30 for
    each point. The network simplex method solves the problem on these [1]_; then a pass over the
    cost finds edges that would improve the plan, if there are any, and so on. The simplex method
    runs on the host, in one thread, whatever the arrays. Leaving out points without mass copies
    the remaining part of the cost.

    Where `C` forbids edges so that there is no plan, the run ends as INFEASIBLE. Before the
    simplex method begins, the history shows a bound of the gap that the temperature implies.

    References
    ----------
    .. [1] G. Peyre, M. Cuturi. Computational optimal transport. Foundations and Trends in Machine
       Learning, 2019. arXiv:1803.00567. Section 3.5.
    .. [2] B. Schmitzer. Stabilized sparse scaling algorithms for entropy regularized transport
       problems. SIAM Journal on Scientific Computing, 2019. arXiv:1610.06519.

    Examples
    --------
    >>> import solvers
    >>> res = solvers.ot.emd([0.5, 0.5], [0.25, 0.75], [[0, 1], [1, 0]])
    >>> res.plan
    array([[0.25, 0.25],
           [0.  , 0.5 ]])
    >>> round(res.value, 9), round(res.dual, 9)
    (0.25, 0.25)
    """
    problem, io = check_transport(a, b, C)
    gap = check_positive(gap, "gap")
    polish = check_flag(polish, "polish")
    _, limits = check_limits(io, gap, maxiter, time_limit, callback, progress, history)
    n_threads = check_threads(n_threads)
    with io.device:
        coldest = COLDEST * problem.spread or 1.0
    start = check_start(problem, coldest, C, x0, f0, g0)
    run = Monitor("emd", "lp_gap", be=io.be, tol=0.9 * gap, **limits)
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        search = Search(problem, coldest, run, io.out)
        answer = search.solve(start, polish)
        return finish_exact(problem, io, gap, answer, run, (a, b, C))


class Search:
    """Finds the edges that matter, and the best plan on them.

    Parameters
    ----------
    problem : Transport
    coldest : float
        The last temperature of the annealing.
    run : Monitor
    out : callable
        Turns an array into the caller's kind.
    """

    def __init__(self, problem, coldest, run, out):
        self._whole, self._coldest, self._run, self._out = problem, coldest, run, out
        # Points without mass have no place in a tree.
        self._problem, self._rows, self._cols = problem.without_dust(0.0)
        self._be = problem.be
        self._a, self._b = self._be.host(self._problem.a, self._problem.b)
        self._a, self._b = np.atleast_1d(self._a), np.atleast_1d(self._b)
        self._lower, self._g = -np.inf, None

    def solve(self, start, polish):
        """Return the answer, from column potentials `start` (None: from scratch)."""
        run = self._run
        answer, f, g = self._potentials(start)
        run.stage("support")
        low, (tail, head, reduced) = support(self._be, self._problem.C, f, g)
        self._offer(low, g)
        order = np.argsort(reduced, kind="stable")
        basis = Basis(self._a, self._b, tail[order], head[order], self._cost_of)
        run.stage("simplex")
        added = False
        while run.status is None:
            before = basis.pivots
            solved = basis.improve(lambda: run.late)
            f, g = (self._be.xp.asarray(v) for v in basis.potentials())
            low, (tail, head, cost) = violations(
                self._be, self._problem.C, f, g, max(basis.tolerance, 1e-300)
            )
            self._offer(low, g)
            state = partial(self._state, self._g)
            over = run.record(
                self._gap(basis), judge=not polish, state=state, fun=self._whole.mass * basis.cost
            )
            # Edges that look good only until they may enter do so by rounding.
            futile = tail.size == 0 or (added and basis.pivots == before)
            if over or self._exhausted(basis, solved and futile):
                break
            basis.add(tail, head, cost)
            added = True
        tail, head, mass = basis.plan()
        if self._rows is not None:
            tail = self._be.host(self._rows)[tail]
        if self._cols is not None:
            head = self._be.host(self._cols)[head]
        counts = {"nsinkhorn": 0, "nnewton": 0, "ncg": 0, "nfactor": 0}
        counts = {name: getattr(answer, name, 0) for name in counts}
        return Vertex(
            *self._extended(self._g),
            (tail, head, mass),
            answer.levels if answer else [],
            tail.size / self._whole.C.size,
            counts,
        )

    def _potentials(self, start):
        """Return potentials whose smallest reduced costs mark the edges that matter."""
        problem, xp = self._problem, self._be.xp
        if start is not None or problem.C.size <= SMALL or problem.cut_off:
            g = xp.zeros_like(problem.b)
            if start is not None:
                g = start if self._cols is None else start[self._cols]
            return None, c_transform(self._be, problem.C, g), g
        self._run.stage("annealing")
        watch = Annealing(self._run, problem, self._coldest, self._annealing_state)
        newton = partial(NewtonSteps, precond="jacobi", tol=ROUGH, maxiter=None, sweeps=8)
        descent = Descent(
            problem, self._coldest, BALANCED, watch, newton, "auto", _unchanged, UNBALANCED
        )
        answer = descent.solve(None, annealing=True)
        if not self._be.host(xp.isfinite(answer.f).all() & xp.isfinite(answer.g).all()):
            g = xp.zeros_like(problem.b)
            return answer, c_transform(self._be, problem.C, g), g
        return answer, answer.f, answer.g

    def _exhausted(self, basis, optimal):
        """End the run if nothing can be improved any more."""
        if optimal and basis.forbidden > DUST:
            self._run.end(Status.INFEASIBLE, "No plan avoids the forbidden (infinite) costs.")
        elif optimal:
            # Whether rounding leaves the gap asked for is the certificate's business.
            self._run.end(Status.CONVERGED)
        return optimal

    def _offer(self, low, g):
        """Keep column potentials if they prove a better lower bound; `low` is their transform."""
        problem = self._problem
        lower = self._be.host(problem.a @ low + problem.b @ g)
        if self._g is None or lower > self._lower:
            self._lower, self._g = lower, g

    def _gap(self, basis):
        upper = basis.cost
        scale = max(abs(upper), FLOOR * self._problem.range)
        if basis.forbidden > DUST:
            # No plan yet, but none of the numbers that a history holds may be infinite.
            return np.finfo(np.float64).max
        # Two sums that agree by chance do not prove more than rounding lets them.
        hidden = np.finfo(np.float64).eps * (abs(upper) + abs(self._lower))
        return (max(upper - self._lower, 0.0) + hidden) / scale if scale else 0.0

    def _cost_of(self, tail, head):
        """Return the costs of some edges, on the host."""
        C, xp, host = self._problem.C, self._be.xp, self._be.host
        tail, head = xp.asarray(tail), xp.asarray(head)
        if not isinstance(C, Cloud):
            return np.atleast_1d(host(C[tail, head])).astype(np.float64)
        costs = []
        for first in range(0, tail.size, PAIRS):
            some = slice(first, first + PAIRS)
            block = C.part(tail[some], head[some])[:]
            every = xp.arange(block.shape[0])
            costs.append(block[every, every])
        return np.atleast_1d(host(xp.concatenate(costs)))

    def _annealing_state(self, state):
        """Return what a callback sees, from what the descent would show it."""
        found = state()
        return self._state(found["f"] if self._whole.flipped else found["g"])

    def _state(self, g):
        f, g = (self._out(v) for v in self._extended(g))
        return {"f": g, "g": f} if self._whole.flipped else {"f": f, "g": g}

    def _extended(self, g):
        """Return feasible potentials for all points, in the canonical split."""
        whole, be, xp = self._whole, self._be, self._be.xp
        if self._cols is not None:
            # Points without mass must not bind the others, so they take what these leave.
            every = xp.full(whole.b.size, -np.inf)
            every[self._cols] = g
            f = xp.where(whole.a > 0, c_transform(be, whole.C, every), -np.inf)
            every = column_transform(be, whole.C, f)
            every[self._cols] = g
            g = every
        f = c_transform(be, whole.C, g)
        shift = 0.5 * (whole.a @ f - whole.b @ g)
        return f - shift, g + shift


class Annealing:
    """Lets a descent be a part of a longer run: its end is not the end of that.

    What it records is a bound of the relative LP gap: entropy changes the value by its weight
    times the entropy of a marginal, and mass in the wrong place by at most the range of the cost.
    """

    def __init__(self, run, problem, coldest, state):
        self._run, self._be, self._state, self._status = run, problem.be, state, None
        self._range, self._mass, self._passes = problem.range, problem.mass, 0
        entropies = (-(w * problem.be.xp.log(w)).sum() for w in (problem.a, problem.b))
        self._entropy = min(problem.be.host(*entropies))

    @property
    def status(self):
        """Why the run, or only the descent, has ended."""
        return self._status if self._run.status is None else self._run.status

    @property
    def late(self):
        """Whether time is up."""
        return self._run.late

    def stage(self, name):
        """All of a descent is one stage of the run."""

    def end(self, status, reason=None):
        """End the descent."""
        self._status = status

    def record(self, error, *, judge, state, fun, reg):
        """Record a pass; tell whether the descent must end."""
        self._passes += 1
        if not np.isfinite(error):
            self._status = Status.NUMERICAL
            return True
        value = self._be.host(fun)
        bound = reg * self._entropy + error * self._range
        scale = max(abs(value), FLOOR * self._range)
        self._run.record(
            bound / scale if scale else 0.0,
            judge=False,
            state=partial(self._state, state),
            fun=self._mass * value,
            reg=reg,
        )
        if judge and error <= BALANCED:
            self._status = Status.CONVERGED
        elif self._passes >= MOST_PASSES:
            self._status = Status.MAXITER
        return self.status is not None


def _unchanged(array):
    return array
