"""Quadratics within bounds and with absolute values: the front, and the solvers that suit them."""

import math

import numpy as np

from .._core.result import Status
from .._core.validation import check_choice, check_positive
from ._coordinate import descend_coordinates, over_relax
from ._driver import Answer, solve
from ._measure import Measure
from ._problem import pose_quadratic
from ._state import open_state
from .rules import is_smooth
from .rules._block import View

METHODS = ("auto", "bcd", "active_set", "cholesky", "cg", "cd", "sor")
# Up to this size a dense matrix is factorised; larger ones are left to conjugate gradients.
_FACTORISED = 5000
# Unknowns that join the working set at once; and how many of those that are free it may hold.
_JOIN, _MOST = 100, 4000


def quadratic(
    A,
    b,
    *,
    bounds=(-math.inf, math.inf),
    l1=0.0,
    method="auto",
    relaxation=1.5,
    partition="variable",
    block_size=None,
    selection="gsq",
    update="auto",
    norm=2,
    tol=None,
    maxiter=None,
    x0=None,
    check_every=None,
    callback=None,
    rng=None,
    history=True,
    time_limit=None,
    progress=False,
    n_threads=None,
):
    r"""Minimise a quadratic within bounds, with a weight on absolute values.

    .. math:: \min_{l \le x \le u} \; \tfrac{1}{2} x^\top A x - b^\top x + \lambda \|x\|_1

    Parameters
    ----------
    A : array or sparse matrix, shape (N, N)
        Symmetric and positive semi-definite.
    b : array, shape (N,)
        Linear term.
    bounds : (lo, hi), optional
        Numbers or arrays of shape (N,); infinite ones are legal.
    l1 : float, default 0.0
        Weight :math:`\lambda` of the absolute values.
    method : str, default "auto"
        "cholesky" or "cg" (conjugate gradients) for problems without bounds and `l1`;
        "active_set": the unknowns that are free, and those that want to be, are solved for
        together; "bcd": blocks by the rules below; "cd": sweeps over single unknowns, random for
        selection="random" or "perm"; "sor": sweeps with stretched steps, without `l1`. "auto"
        takes the first of these that suits the problem.
    relaxation : float, default 1.5
        Stretch of the steps of "sor", between 0 and 2.
    partition, block_size, selection, update, norm : optional
        Rules of "bcd"; see `minimize`. One that is not the default makes "auto" mean "bcd".
    tol : float, optional
        Largest violation of the optimality conditions, relative to the largest gradient at zero.
        Default: 1e-8, or 1e-6 for float32 data.
    maxiter : int, optional
        Largest number of iterations: block updates, sweeps or steps. Default: 10000.
    x0 : array or BlockResult, optional
        Start.
    check_every : int, optional
        Block updates, or sweeps, between two looks at the certificate's value.
    callback : callable, optional
        Called with the state after each look; a true return or StopIteration ends the run.
    rng : int or Generator, optional
        For random rules.
    history : bool or int, default True
        Whether, or every how many iterations, to keep a row.
    time_limit : float, optional
        Seconds.
    progress : bool, default False
        Whether to show a bar.
    n_threads : int, optional
        Threads of kernels.

    Returns
    -------
    BlockResult
        With status UNBOUNDED where the objective has no lower bound.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the expected kind, shape or value.

    References
    ----------
    .. [1] J. Nutini, I. Laradji and M. Schmidt. Let's make block coordinate descent converge
       faster. Journal of Machine Learning Research 23(131), 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bcd
    >>> A = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> bcd.quadratic(A, np.array([1.0, -1.0]), bounds=(0, np.inf)).x
    array([0.5, 0. ])
    """
    problem = pose_quadratic(A, b, bounds=bounds, l1=l1)
    method = check_choice(method, "method", METHODS)
    relaxation = check_positive(relaxation, "relaxation")
    if not relaxation < 2.0:
        raise ValueError(f"`relaxation` came as {relaxation:.6g}; expected less than 2")
    with problem.io.device:
        plain = is_smooth(problem)
    if method in ("cholesky", "cg") and not plain:
        raise ValueError(
            f"`method` came as {method!r}, which is for problems without `bounds` and `l1`; "
            "expected 'auto', 'active_set', 'bcd', 'cd' or 'sor'"
        )
    if method == "cholesky" and problem.sparse:
        raise ValueError("`method` came as 'cholesky', but `A` is sparse; expected 'auto' or 'cg'")
    if method == "sor" and problem.penalty.alpha > 0:
        raise ValueError("`method` came as 'sor', which is for problems without `l1`")
    engines = {**ENGINES, "sor": lambda *run: over_relax(*run, relaxation)}
    return solve(
        "quadratic",
        problem,
        methods=METHODS,
        method=method,
        partition=partition,
        block_size=block_size,
        selection=selection,
        update=update,
        norm=norm,
        tol=tol,
        maxiter=10000 if maxiter is None else maxiter,
        x0=x0,
        check_every=check_every,
        callback=callback,
        rng=rng,
        history=history,
        time_limit=time_limit,
        progress=progress,
        n_threads=n_threads,
        engines=engines,
    )


def solve_quadratic(problem, watch, options):
    """Run what suits a quadratic."""
    method = _suitable(problem)
    watch.used = {"method": method}
    return ENGINES[method](problem, watch, options)


def _suitable(problem):
    if not is_smooth(problem):
        return "active_set"
    return "cholesky" if not problem.sparse and problem.size <= _FACTORISED else "cg"


def _factorised(problem, watch, options):
    """Solve ``A x = b`` by a Cholesky factor; of all solutions the one nearest to the start."""
    xp, host = problem.xp, problem.be.host
    state, measure = open_state(problem, *(options.x0 or problem.zeros())), Measure(problem)
    value, _ = measure(state)
    if value <= watch.tol:
        watch.run.end(Status.CONVERGED)
    A = problem.A.astype(np.float64)
    solve_with = None
    for turn in watch.run:
        solve_with = solve_with or _solver(A, problem)
        d, lost = solve_with(-state.gradient().astype(np.float64))
        if turn == 0 and lost > 1e6 * np.finfo(problem.dtype).eps * value:
            watch.run.end(Status.UNBOUNDED)
            break
        x = (state.x + d).astype(problem.dtype)
        if not bool(host((x != state.x).any())):
            watch.run.end(Status.STALLED, "Rounding leaves this much.")
            break
        state = open_state(problem, x, state.c)
        watch.npass += 2.0
        value, _ = measure(state)
        if watch.record(x, state.c, fun=state.objective(), value=value, block=x.size):
            break
        if turn > 10:
            watch.run.end(Status.STALLED, "Corrections do not make it smaller.")
    return Answer(state.x, xp.zeros((), problem.dtype))


def _solver(A, problem):
    """Return a function that solves with A and tells how much of a vector A cannot reach."""
    be, xp = problem.be, problem.xp
    try:
        R = be.cholesky(A)
        smallest, largest = be.host(R.diagonal().min(), R.diagonal().max())
        if smallest > 1e-7 * largest:
            return lambda v: (_lower(be, R, v), 0.0)
    except np.linalg.LinAlgError:
        pass
    values, vectors = xp.linalg.eigh(A)
    rounding = A.shape[0] * np.finfo(problem.dtype).eps * abs(values).max()
    least = be.host(values[0])
    if least < -1e3 * be.host(rounding):
        raise ValueError(
            f"`A` has the eigenvalue {least:.3g}; expected a positive semi-definite matrix"
        )
    kept = values > rounding
    inverse = xp.where(kept, 1.0 / xp.where(kept, values, 1.0), 0.0)

    def solve_with(v):
        h = vectors.T @ v
        lost = abs(vectors @ xp.where(kept, 0.0, h)).max()
        return vectors @ (inverse * h), float(be.host(lost / abs(v).max()))

    return solve_with


def _lower(be, R, v):
    half = be.linalg.solve_triangular(R, v, lower=True, check_finite=False)
    return be.linalg.solve_triangular(R, half, lower=True, trans=1, check_finite=False)


def _conjugate_gradients(problem, watch, options):
    """Conjugate gradients with the diagonal as preconditioner."""
    xp, host = problem.xp, problem.be.host
    state, measure = open_state(problem, *(options.x0 or problem.zeros())), Measure(problem)
    value, _ = measure(state)
    if value <= watch.tol:
        watch.run.end(Status.CONVERGED)
    D = problem.lipschitz
    scale = xp.where(D > 0, 1.0 / xp.where(D > 0, D, 1.0), 1.0)
    x, r = state.x.astype(np.float64), -state.gradient().astype(np.float64)
    b, zero = problem.b.astype(np.float64), state.c
    z = scale * r
    p, rho = z, r @ z
    for _ in watch.run:
        Ap = problem.A @ p
        bend, slope, size = host(p @ Ap, rho, (p * p) @ D)
        if not bend > 1e-14 * size or value <= 1e-15:
            # No curvature along a direction of descent: it goes down for ever.
            rounding = value <= 1e6 * np.finfo(problem.dtype).eps
            watch.run.end(Status.STALLED if rounding else Status.UNBOUNDED)
            break
        step = slope / bend
        x, r = x + step * p, r - step * Ap
        z = scale * r
        rho, before = r @ z, rho
        p = z + (rho / before) * p
        watch.npass += 1.0
        value = float(host(abs(r).max())) / measure.unit
        fun = float(host(-0.5 * (x @ (r + b))))
        if watch.record(x.astype(problem.dtype), zero, fun=fun, value=value, block=x.size):
            break
    return Answer(x.astype(problem.dtype), zero)


def _active_set(problem, watch, options):
    """Solve for the unknowns that are free and those that want to be, until none does."""
    xp = problem.xp
    state, measure = open_state(problem, *(options.x0 or problem.zeros())), Measure(problem)
    view, penalty, idle = View(state), problem.bound, 0
    value, gap = measure(state)
    if value <= watch.tol:
        watch.run.end(Status.CONVERGED)
    score = xp.empty_like(state.x)
    for _ in watch.run:
        problem.kernels.distances(penalty, state.x, state.gradient(), score)
        block = _working_set(xp, score, state.x, penalty)
        part = view.part(block)
        fell = view.search(part, block, view.newton_step(part, state.hessian(block)))
        idle = 0 if fell > 0.0 else idle + 1
        if idle:
            state.refresh()
        watch.n_blocks += 1
        watch.n_newton += 1
        watch.npass, watch.active_set = state.npass, block
        value, gap = measure(state)
        fun = state.objective()
        if watch.record(state.x, state.c, fun=fun, value=value, gap=gap, block=block.size):
            break
        if idle > 5:
            watch.run.end(Status.STALLED, "No block lowers the objective beyond rounding.")
            break
    return Answer(state.x, state.c)


def _working_set(xp, score, x, penalty):
    """Return the unknowns off their kinks and bounds, and the worst of the others."""
    free = (x > penalty.lo) & (x < penalty.hi) & ((x != 0) | (penalty.alpha == 0))
    count = int(free.sum())
    room = min(max(_JOIN, count), x.size)
    rank = xp.where(free, -1.0, score)
    worst = xp.argpartition(-rank, room - 1)[:room]
    worst = worst[rank[worst] > 0.0]
    if count > _MOST:
        # Too many to solve for at once: those that gain most.
        rank = xp.where(free, score, rank)
        return xp.sort(xp.argpartition(-rank, _MOST - 1)[:_MOST])
    return xp.sort(xp.concatenate([xp.flatnonzero(free), worst]))


def _blocks(problem, watch, options):
    from ._minimize import descend

    return descend(problem, watch, options)


ENGINES = {
    "auto": solve_quadratic,
    "bcd": _blocks,
    "active_set": _active_set,
    "cholesky": _factorised,
    "cg": _conjugate_gradients,
    "cd": descend_coordinates,
}
