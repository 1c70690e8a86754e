"""Quasi-Newton steps on the value itself, by the implicit function theorem."""

import math
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

from .._core.result import Status
from .._core.validation import check_choice
from . import _curvature as linear
from ._checkpoint import carried
from ._curvature import Curvature
from ._descent import Descent, Pairs, stationarity
from ._driver import solve
from ._envelope import UnboundedError, scales

LINEAR_SOLVERS = ("auto", "cg", "neumann", "dense", "shine", "minres")
# Words that would cost a difference of gradients for every step of a solve.
_NEED_PRODUCTS = ("cg", "neumann", "minres")
_LARGEST_DENSE = 2000
# How well lower levels and linear systems are solved at first, and at most.
_THETA, _LEAST = 0.3, 1e-5
# A lower solve that gets this far from where it began runs away.
_FAR = 1e10
# Pairs of L-BFGS, in both levels.
_MEMORY = 20


class Own(NamedTuple):
    """Options of `implicit` alone."""

    linear_solver: str


def implicit(
    upper, lower=None, x0=None, y0=None, *, X=None, linear_solver="auto", tol=None,
    tol_inner=None, maxiter=200, maxiter_inner=1000, time_limit=None, callback=None,
    progress=False, n_threads=None, rng=None, checkpoint=None, checkpoint_every=60, resume=None,
    history=True, how="auto",
):  # fmt: skip
    r"""Minimise the value of a bilevel problem by implicit differentiation.

    Where the lower level is strongly convex in y and unrestricted, its solution :math:`y(x)` is
    a smooth function, and

    .. math:: \nabla \psi(x) = f_x - g_{xy} \, q, \qquad g_{yy} \, q = f_y
              \quad \text{at } (x, y(x)).

    Projected L-BFGS minimises :math:`\psi`. The lower level and the linear system start from
    their last solutions and are solved no better than the hyper-gradient's length asks for.

    Parameters
    ----------
    upper, lower : callable or Oracle
        The two levels, ``(x, y) -> (value, grad_x, grad_y)``; `lower` with `hvp_yy` and `hvp_xy`
        for "cg", "neumann" and "minres". `upper` may be a problem of `bilevel.problems`, without
        the other three.
    x0, y0 : array or nested arrays
        Start.
    X : set or callable, optional
        Where x may be: a set of this module, or a projection.
    linear_solver : {"auto", "cg", "neumann", "dense", "shine", "minres"}
        Conjugate gradients; a Neumann series; a Cholesky factor of the whole of :math:`g_{yy}`,
        for at most 2000 entries in y; the inverse that L-BFGS built in the lower level [2]_, for
        two products at every x, whose error goes away as x settles; minimal residuals, for a
        singular :math:`g_{yy}`. "auto": "cg". Where `lower` has no products, "auto", "dense" and
        "shine" take differences of gradients.
    tol : float, optional
        Stop when the certificate's value is at most this; by default 1e-6, in float32 3e-3.
    tol_inner : float, optional
        Largest projected gradient of the lower level, relative to its curvature and to the length
        of y; by default it follows the hyper-gradient.
    maxiter : int, default 200
        Largest number of steps in x.
    maxiter_inner : int, default 1000
        Largest number of steps of a lower solve, and of a linear solve.
    time_limit : float, optional
        Seconds.
    callback : callable, optional
        ``callback(intermediate_result)`` after every step in x; a true return value or
        StopIteration ends the run.
    progress : bool, default False
        Show a progress bar.
    n_threads : int, optional
        Threads of kernels and BLAS.
    rng : int or numpy.random.Generator, optional
        Of no effect: nothing is drawn.
    checkpoint : str, Path or callable, optional
        Where the state of the run goes now and then, and at the end.
    checkpoint_every : float, default 60
        Seconds between two of them.
    resume : str, Path or state, optional
        A file that `checkpoint` has written, or the `state` of a result, to go on from.
    history : bool or int, default True
        Keep the history of every step, or of every so many.
    how : {"auto", "dense", "cg", "kkt", "penalty"}, default "auto"
        How the certificate is computed, see `certify`.

    Returns
    -------
    BilevelResult
        With `jac`, the hyper-gradient, and `jac_err`, by how much it changed as both solves were
        repeated ten times more accurately. There is no penalty, so that `sigma` is None and
        `psi_lower` minus infinity.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or value; the message begins with its name.

    Warns
    -----
    ConvergenceWarning
        If the certificate does not hold.

    See Also
    --------
    penalty : By first derivatives alone; also for several lower solutions, and for Y.
    unroll : Differentiates the steps that solve the lower level.

    References
    ----------
    .. [1] F. Pedregosa. Hyperparameter optimization with approximate gradient. ICML 2016.
    .. [2] Z. Ramzi et al. SHINE: sharing the inverse estimate from the forward pass for bi-level
       optimization and implicit models. ICLR 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> lower = bilevel.Oracle(
    ...     value_and_grads=lambda x, y: (0.5 * (y - x) @ (y - x), x - y, y - x),
    ...     hvp_yy=lambda x, y, v: v,
    ...     hvp_xy=lambda x, y, v: -v,
    ... )
    >>> upper = lambda x, y: (0.5 * (y - 1) @ (y - 1), 0, y - 1)
    >>> res = bilevel.implicit(upper, lower, np.zeros(2), np.zeros(2))
    >>> res.success, res.x.round(6)
    (True, array([1., 1.]))
    """
    check_choice(linear_solver, "linear_solver", LINEAR_SOLVERS)
    return solve(
        "implicit", upper, lower, x0, y0, minimise, X=X, tol=tol, tol_inner=tol_inner,
        maxiter=maxiter, maxiter_inner=maxiter_inner, time_limit=time_limit, callback=callback,
        progress=progress, n_threads=n_threads, rng=rng, checkpoint=checkpoint,
        checkpoint_every=checkpoint_every, resume=resume, history=history, how=how,
        own=Own(linear_solver),
    )  # fmt: skip


def minimise(problem, watch, options):
    """Descend with ever better lower solves."""
    _check_products(problem, options.own.linear_solver)
    values = Values(problem, options, late=lambda: watch.run.late)
    with bounded(watch.run):
        _rounds(problem, watch, options, values)


@contextmanager
def bounded(run):
    """End a run whose lower level has no solution."""
    try:
        yield
    except UnboundedError:
        run.end(Status.UNBOUNDED, "The lower level falls without end in y.")


def _rounds(problem, watch, options, values):
    """Descend, judge, and solve the lower level better until the certificate holds."""
    run = watch.run
    half_done = values.restore(watch.resumed)
    if half_done is None:
        values.at(problem.x0)
        values.keep()
    for _ in run:
        values.began = run.nit if half_done is None else values.began
        descend(values, watch, watch.goal, half_done)
        half_done = None
        loose = values.point
        values.accuracy *= 0.1
        better = values.at(loose.x)
        values.keep()
        err = 2 * _norm(better.grad - loose.grad)
        watch.answer(
            better.x, better.y, y_sigma=better.y, z=better.y, jac=better.grad, jac_err=err,
            optimality=stationarity(better.x, better.grad, problem.X),
            lower_residual=(better.residual, better.residual),
        )  # fmt: skip
        if run.status is not None or run.late:
            continue
        if watch.holds():
            run.end(Status.CONVERGED)
        elif values.theta <= _LEAST or (run.nit == values.began and values.theta < _THETA):
            run.end(Status.STALLED, f"The hyper-gradient changed by {err:.3g} at the end.")
        values.theta = max(0.1 * values.theta, _LEAST)


def _check_products(problem, linear_solver):
    oracle = problem.lower.oracle
    for name in ("hvp_yy", "hvp_xy"):
        if linear_solver in _NEED_PRODUCTS and getattr(oracle, name) is None:
            raise TypeError(
                f"`linear_solver` came as {linear_solver!r}, which needs lower.{name}; "
                "expected an Oracle that has it, or use bilevel.penalty"
            )
    if linear_solver == "dense" and problem.py.size > _LARGEST_DENSE:
        raise ValueError(
            f"`linear_solver` came as 'dense' for {problem.py.size} entries in y; "
            f"expected at most {_LARGEST_DENSE}, or 'cg'"
        )


def descend(values, watch, tol, half_done=None):
    """Minimise psi by projected L-BFGS until its gradient is small, or go on doing so."""
    problem, run, pairs = values.problem, watch.run, values.pairs

    def psi(v):
        try:
            point = values.at(v)
        except UnboundedError:
            # Too far; a shorter step may have a solution.
            return math.inf, v * math.nan, 0.0
        return point.value, point.grad, 8 * problem.eps * abs(point.value)

    if half_done is None:
        x, grad = values.point.x, values.point.grad
        unit = 0.1 * max(1.0, float(abs(x).max())) / max(float(abs(grad).max()), 1e-300)
        descent = Descent(psi, x, problem.X, unit=unit, memory=pairs)
        values.keep()
    else:
        descent = Descent(None, values.point.x, problem.X, unit=1.0, memory=pairs)
        descent.restore(half_done["descent"]).fun = psi
    while True:
        stat = stationarity(descent.v, descent.grad, problem.X)
        values.accuracy = min(max(tol, stat), 2 * values.accuracy)
        if stat <= tol or run.late or not descent.step():
            return
        point = values.keep()
        watch.answer(point.x, point.y, jac=point.grad, optimality=stat)
        ended = watch.record(stat, fun=point.f)
        watch.keep({"values": values.state(), "descent": descent.state()})
        if ended:
            return


def _copied(pairs):
    """Return the state of pairs, apart from what they go on changing."""
    return carried(pairs.state(), lambda a: a.copy())


class Value(NamedTuple):
    """An estimate of psi and its gradient at x, and how well the lower level was solved."""

    x: Any
    y: Any
    f: float
    value: float
    grad: Any
    residual: float


class Values:
    """Evaluates psi, each time from what the last accepted point left.

    Attributes
    ----------
    point : Value
        The last point that was kept.
    accuracy : float
        Length of the gradient that is to be told from zero.
    theta : float
        How much better than that lower levels are solved.
    began : int
        Steps before this descent.
    pairs : Pairs
        What descents have seen of psi.
    """

    _carried: ClassVar[tuple[str, ...]] = ("start", "q", "accuracy", "theta", "began")

    def __init__(self, problem, options, late):
        self.problem, self.options, self.late = problem, options, late
        self.scales = scales(problem, problem.x0, problem.y0)
        self.accuracy, self.theta, self.began = 1e-2, _THETA, 0
        self.start, self.q = problem.y0, problem.io.xp.zeros_like(problem.y0)
        self.last = self.point = None
        # A warm start leaves too few steps to learn the lower level's inverse from.
        self.pairs, self._below = Pairs(_MEMORY), Pairs(_MEMORY)

    def state(self):
        """Return all that later evaluations depend on, for `Watch.keep`."""
        plain = {name: getattr(self, name) for name in self._carried}
        pairs = {"pairs": _copied(self.pairs), "below": _copied(self._below)}
        return {**plain, **pairs, "point": tuple(self.point)}

    def restore(self, state):
        """Go on from where `state` was taken, if it was; return what `descend` has to know."""
        if state is None:
            return None
        values = state["values"]
        for name in self._carried:
            setattr(self, name, values[name])
        self.last = self.point = Value(*values["point"])
        self.pairs.restore(values["pairs"])
        self._below.restore(values["below"])
        return state

    def keep(self):
        """Accept the last point: the next ones start from its solution."""
        self.point = self.last
        self.start = self.point.y
        return self.point

    def at(self, x):
        """Solve the lower level and the linear system at x."""
        lower = self.lower(x)
        y = lower.v
        f, g = self.problem.upper.look(x, y), self.problem.lower.look(x, y)
        curvature = Curvature(self.problem, x, y)
        self.q = self._system(curvature, f, lower)
        grad = f.gx - curvature.xy(self.q)
        # What is left of g_y moves f to first order, which q can tell.
        value = f.value - float(self.q @ g.gy)
        self.last = Value(x, y, f.value, value, grad, float(abs(g.gy).max()))
        return self.last

    def tolerance(self):
        """Return the residual at which a lower solve may end."""
        size = self.scales.lower * max(1.0, float(abs(self.start).max()))
        if self.options.tol_inner is not None:
            return self.options.tol_inner * size
        floor = 50 * self.problem.eps * size
        return min(max(self.theta * self.scales.sigma * self.accuracy, floor), 1e-4 * size + floor)

    def lower(self, x):
        """Solve the lower level at x; return the descent where it ended."""
        problem = self.problem
        descent = Descent(
            lambda y: _quietly(problem, x, y),
            self.start,
            problem.Y,
            unit=1.0 / self.scales.lower,
            precond=problem.lower.diagonal(x),
            memory=self._below,
        )
        tol = self.tolerance()
        for _ in range(self.options.maxiter_inner):
            if descent.residual() <= tol or self.late() or not descent.step():
                break
        if float(abs(descent.v).max()) > _FAR * max(1.0, float(abs(self.start).max())):
            raise UnboundedError
        return descent

    def _system(self, curvature, f, lower):
        """Return q, as accurate as the gradient needs it."""
        word = self.options.own.linear_solver
        if word == "shine":
            return linear.shine(lower.pairs, f.gy, self.q, curvature, 1.0 / self.scales.lower)
        size = _norm(f.gy)
        tol = max(self.theta * min(1.0, self.accuracy), 10 * self.problem.eps) * size
        run = getattr(linear, "cg" if word == "auto" else word)
        return run(curvature, f.gy, self.q, tol, self.options.maxiter_inner)


def _quietly(problem, x, y):
    look = problem.lower.look(x, y, with_x=False)
    return look.value, look.gy, problem.eps * abs(look.value)


def _norm(v):
    return math.sqrt(float(v @ v))
