"""Optimal transport without entropy: annealing shows which edges matter, pivots do the rest."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np

from .._core import threads
from .._core.arrays import Ingest
from .._core.monitor import Monitor
from .._core.result import Status
from .._core.validation import (
    check_array,
    check_count,
    check_flag,
    check_nonnegative,
    check_positive,
    check_threads,
)
from ._certificate_linear import judge_linear
from ._cloud import Cloud
from ._newton import NewtonSteps
from ._problem import check_limits, check_start, check_transport, row_blocks
from ._result import TransportResult
from ._simplex import Basis
from ._sinkhorn_newton import Descent

# The last temperature of the annealing, relative to the spread of the cost, the marginal error
# to be reached there, and the most passes to spend on it.
COLDEST, BALANCED, MOST_PASSES = 1e-4, 1e-2, 20
# Up to this many costs every edge takes part at once, and nothing is annealed.
SMALL = 10_000
# Edges for each point of the longer side: to begin with, and those that one pricing may add.
EDGES, MORE = 30, 8
# Gaps are relative to the value, or to this fraction of the cost's range if that is larger.
FLOOR = 1e-8
# Mass on forbidden edges up to which rounding may have put it there.
DUST = 1e-12
# Costs are evaluated for this many edges at a time where there is no matrix of them.
PAIRS = 64

_SIMPLEX = """\
@article{peyre2019computational,
  title = {Computational optimal transport},
  author = {Peyr{\\'e}, Gabriel and Cuturi, Marco},
  journal = {Foundations and Trends in Machine Learning},
  volume = {11},
  year = {2019},
}"""


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
        (For values below 1e-8 times the range of `C`, relative to that.)
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
    runs on the host, in one thread, whatever the arrays.

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
        return _finish(problem, io, gap, answer, run, (a, b, C))


@dataclass
class Vertex:
    """What the search hands back: potentials and plan of the checked problem of mass one."""

    f: Any
    g: Any
    entries: tuple
    levels: list[float]
    density: float
    counts: dict[str, int]

    def plan(self, problem):
        """Return the plan as a sparse matrix."""
        tail, head, mass = (problem.be.xp.asarray(v) for v in self.entries)
        mass = problem.mass * mass
        return problem.be.sparse.csr_matrix((mass, (tail, head)), shape=problem.C.shape)


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
        while run.status is None:
            solved = basis.improve(lambda: run.late)
            f, g = (self._be.xp.asarray(v) for v in basis.potentials())
            low, (tail, head, cost) = violations(
                self._be, self._problem.C, f, g, max(basis.tolerance, 1e-300)
            )
            self._offer(low, g)
            over = run.record(
                self._gap(basis), judge=not polish, state=self._state, fun=self._value(basis)
            )
            if over or self._exhausted(basis, solved and tail.size == 0):
                break
            basis.add(tail, head, cost)
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
        newton = partial(NewtonSteps, precond="auto", tol=None, maxiter=None, sweeps=8)
        descent = Descent(problem, self._coldest, BALANCED, watch, newton, "auto", _unchanged)
        answer = descent.solve(None, annealing=True)
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
        return max(upper - self._lower, 0.0) / scale if scale else 0.0

    def _value(self, basis):
        return self._whole.mass * basis.cost

    def _cost_of(self, tail, head):
        """Return the costs of some edges, on the host."""
        C, xp, host = self._problem.C, self._be.xp, self._be.host
        tail, head = xp.asarray(tail), xp.asarray(head)
        if not isinstance(C, Cloud):
            return np.atleast_1d(host(C[tail, head])).astype(np.float64)
        costs = []
        for first in range(0, tail.size, PAIRS):
            some = slice(first, first + PAIRS)
            costs.append(xp.diagonal(C.part(tail[some], head[some])[:]))
        return np.atleast_1d(host(xp.concatenate(costs)))

    def _state(self):
        """Return what a callback sees."""
        f, g = (self._out(v) for v in self._extended(self._g))
        return {"f": g, "g": f} if self._whole.flipped else {"f": f, "g": g}

    def _annealing_state(self, state):
        found = state()
        g = found["f"] if self._whole.flipped else found["g"]
        f, g = (self._out(v) for v in self._extended(g))
        return {"f": g, "g": f} if self._whole.flipped else {"f": f, "g": g}

    def _extended(self, g):
        """Return feasible potentials for all points, in the canonical split."""
        whole = self._whole
        if self._cols is not None:
            # Points without mass take what leaves the others free.
            f = c_transform(self._be, self._problem.C, g)
            C = whole.C if self._rows is None else whole.C[self._rows]
            every = c_transform(self._be, C.T, f)
            every[self._cols] = g
            g = every
        f = c_transform(self._be, whole.C, g)
        shift = 0.5 * (whole.a @ f - whole.b @ g)
        return f - shift, g + shift


class Annealing:
    """Lets a descent be a part of a longer run: its end is not the end of that.

    What it records is a bound of the relative LP gap: entropy changes the value by its weight
    times the entropy of a marginal, and mass in the wrong place by at most the range of the cost.
    """

    def __init__(self, run, problem, coldest, state):
        self._run, self._be, self._state, self._status = run, problem.be, state, None
        self._range, self._passes = problem.range, 0
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
            fun=value,
            reg=reg,
        )
        if judge and error <= BALANCED:
            self._status = Status.CONVERGED
        elif self._passes >= MOST_PASSES:
            self._status = Status.MAXITER
        return self.status is not None


def c_transform(be, C, g):
    """Return the largest row potentials that are feasible with `g`; 0 where there is no edge."""
    xp = be.xp
    f = xp.empty(C.shape[0])
    for rows in row_blocks(be, C):
        f[rows] = xp.subtract(C[rows], g, dtype=np.float64).min(axis=1)
    return xp.where(xp.isfinite(f), f, 0.0)


def support(be, C, f, g):
    """Collect the edges of smallest reduced cost, some `EDGES` for each point.

    Returns
    -------
    array
        Row minima of ``C - g``.
    tuple of numpy.ndarray
        The edges: tail, head, reduced cost.
    """
    xp, (n, m) = be.xp, C.shape
    wanted = min(1.0, EDGES / min(n, m)) if C.size > SMALL else 1.0
    limit = np.inf
    if wanted < 0.5:
        step = max(1, n // 64)
        sample = (xp.subtract(C[::step], g, dtype=np.float64) - f[::step, None]).ravel()
        at = int(wanted * sample.size)
        limit = be.host(xp.partition(sample, at)[at])
    low, found = xp.empty(n), []
    for rows in row_blocks(be, C):
        R = xp.subtract(C[rows], g, dtype=np.float64)
        low[rows] = R.min(axis=1)
        R -= f[rows, None]
        near = xp.flatnonzero((limit >= R) & (np.inf > R))
        if wanted < 0.5:
            # Of costs with ties far too many may be equally good.
            near = near[:: int(near.size / (8.0 * wanted * R.size)) + 1]
        found.append((rows.start + near // m, near % m, R.ravel()[near]))
    return low, _joined(be, found)


def violations(be, C, f, g, tol):
    """Collect edges whose reduced cost is negative, a few of the worst for each row.

    Returns
    -------
    array
        Row minima of ``C - g``.
    tuple of numpy.ndarray
        The edges: tail, head, cost.
    """
    xp, (n, m) = be.xp, C.shape
    width = -(-m // MORE)
    low, found = xp.empty(n), []
    for rows in row_blocks(be, C):
        block = C[rows]
        R = xp.subtract(block, g, dtype=np.float64)
        low[rows] = R.min(axis=1)
        worse = xp.flatnonzero(low[rows] < f[rows] - tol)
        if worse.size == 0:
            continue
        R = R[worse] - f[rows][worse, None]
        every = xp.arange(worse.size)
        # One of each part of the row: those of a whole row would often be neighbours.
        for first in range(0, m, width):
            head = first + R[:, first : first + width].argmin(axis=1)
            k = xp.flatnonzero(R[every, head] < -tol)
            tail, head = worse[k], head[k]
            found.append((rows.start + tail, head, block[tail, head].astype(np.float64)))
    return low, _joined(be, found)


def _joined(be, found):
    """Return lists of edges as three arrays on the host."""
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    columns = (be.host(be.xp.concatenate(column)) for column in zip(*found, strict=True))
    return tuple(np.atleast_1d(column) for column in columns)


def _unchanged(array):
    return array


class ExactResult(TransportResult):
    """Outcome of `emd`; attributes that are not listed are those of `TransportResult`.

    Attributes
    ----------
    f, g : array, shapes (n,) and (m,)
        Potentials with ``f_i + g_j <= C_ij``, up to rounding.
    reg : float
        Zero.
    fun, value : float
        Cost of the plan: an upper bound of the optimal value.
    dual : float
        A lower bound of the optimal value.
    """

    _bibtex: ClassVar = {"emd": _SIMPLEX}

    @cached_property
    def _plan(self):
        problem, io = self._checked()
        with io.device:
            P = io.xp.zeros(problem.C.shape[:: -1 if problem.flipped else 1], io.dtype)
            tail, head, mass = (io.xp.asarray(v) for v in self._entries)
            P[tail, head] = mass
            return io.out(P)

    def plan_sparse(self, threshold=0.0):
        """Return the plan, at most ``n + m - 1`` entries, as a sparse array.

        Parameters
        ----------
        threshold : float
            Smaller entries are left out, in units of mass.

        Returns
        -------
        sparse array, shape (n, m)
            In CSR format, of SciPy or CuPy.
        """
        threshold = check_nonnegative(threshold, "threshold")
        problem, io = self._checked()
        with io.device:
            return _sparse(problem, io, self._entries, threshold).astype(io.dtype)

    def apply(self, V, axis=1):
        """Multiply the plan with a vector or matrix: ``P @ V``, or ``P.T @ V`` for `axis` 0."""
        if check_count(axis, "axis") > 1:
            raise ValueError(f"`axis` came as {axis!r}; expected 0 or 1")
        problem, io = self._checked()
        door = Ingest(V=V, f=self.f)
        V = check_array(door, "V", ndim=(1, 2))
        with io.device:
            P = _sparse(problem, io, self._entries, 0.0)
            P = P if axis == 1 else P.T
            if V.shape[0] != P.shape[1]:
                raise ValueError(f"`V` came with shape {V.shape}; expected {P.shape[1]} rows")
            return io.out(P @ V.astype(np.float64))

    @property
    def potentials_counting(self):
        """The potentials themselves, for without entropy there is no reference measure."""
        return self.f, self.g

    @property
    def value_linear(self):
        """Cost of the plan."""
        return self.value

    @property
    def cost_rounded(self):
        """Cost of the plan, which needs no rounding."""
        return self.value

    def lp_bracket(self):
        """Return a lower and an upper bound of the optimal value: `dual` and `value`."""
        return self.dual, self.value

    @property
    def grad_reg(self):
        """Not available: the value has no slope at `reg` = 0."""
        raise NotImplementedError("`grad_reg` is for positive `reg`; see `sinkhorn_newton`")

    @property
    def grad_x(self):
        """Not available: an exact plan jumps as points move."""
        raise NotImplementedError("`grad_x` is for positive `reg`; see `sinkhorn_newton`")

    grad_y = grad_x

    def vjp(self, df=None, dg=None, dP=None, *, tol=None):
        """Not available: exact potentials and plans jump as the data change."""
        raise NotImplementedError("`vjp` is for positive `reg`; see `sinkhorn_newton`")


def _sparse(problem, io, entries, threshold):
    """Return the plan in the caller's orientation."""
    tail, head, mass = entries
    kept = mass >= threshold
    tail, head, mass = (io.xp.asarray(v[kept]) for v in entries)
    shape = problem.C.shape[:: -1 if problem.flipped else 1]
    return io.be.sparse.csr_matrix((mass, (tail, head)), shape=shape)


def _finish(problem, io, gap, answer, run, data):
    """Judge the answer and turn it into a result."""
    f, g = (io.out(v) for v in (answer.f, answer.g))
    # As the caller gets them: the certificate is about nothing else.
    certificate = judge_linear(problem, Ingest(g=g)["g"], answer.plan(problem), gap)
    details = certificate.details
    tail, head, mass = answer.entries
    entries = tail, head, problem.mass * mass
    if problem.flipped:
        f, g, entries = g, f, (head, tail, problem.mass * mass)
    return run.finish(
        ExactResult,
        certificate,
        f=f,
        g=g,
        reg=0.0,
        fun=details["primal"],
        value=details["primal"],
        dual=details["dual"],
        marginal_error=details["row_error"] + details["col_error"],
        **answer.counts,
        density=answer.density,
        levels=answer.levels,
        _data=data,
        _reg_type="kl",
        _entries=entries,
    )
