"""LV-HBA: lower levels with constraints that tie their variable to the upper one."""

import functools
import itertools
import math
from typing import Any, NamedTuple

from .._core.arrays import Ingest
from .._core.result import Status
from .._core.validation import check_array, check_callable, check_choice, check_positive, describe
from ._coupled import Coupled
from ._driver import solve
from ._faced import FaceDescent
from ._faces import EmptyError
from ._result import BilevelResult
from ._saddle import Lagrangian

METHODS = ("robust", "single-loop")
# How the weight of the gap grows: by a factor from stage to stage, or as a power of steps.
_GROWTH, _POWER = 10.0, 0.3
# Stages that extrapolation looks back on.
_STAGES = 5
# Accuracy of inner solves, relative to the residual outside, and how far below a stage's goal.
_INNER, _DEEPEST = 0.03, 1e-3
# Accuracy of the lower level's first answer.
_START = 1e-3
# Residuals, in roundings, below which nothing falls.
_ROUNDING = 100.0
# Size, relative to the start, at which variables count as unbounded.
_FAR = 1e10


class Own(NamedTuple):
    """Options of `lvhba` alone."""

    project: Any
    gamma1: float | None
    gamma2: float | None
    r: float
    c0: float
    c_max: float
    steps: tuple | None
    multipliers0: Any


def lvhba(
    upper, lower=None, constraints=None, x0=None, y0=None, *, eq=None, X=None, Y=None,
    project=None, method="robust", gamma1=None, gamma2=None, r=1e6, c0=1.0, c_max=1e6,
    steps=None, tol=None, maxiter=500, maxiter_inner=1000, multipliers0=None, time_limit=None,
    callback=None, progress=False, n_threads=None, rng=None, history=True, how="auto",
    checkpoint=None, checkpoint_every=60, resume=None,
):  # fmt: skip
    r"""Solve a bilevel problem whose lower level has constraints that depend on x.

    .. math:: \min_{x \in X, y} f(x, y) \quad \text{with } y \text{ a minimiser of } g(x, \cdot)
              \text{ over } \{ v \in Y : c(x, v) \le 0, \; e(x, v) = 0 \}.

    The lower level is replaced by one smooth inequality, ``g(x, y) <= v(x, y, z)``, in which v is
    the value of a proximal Lagrangian and z stands for the multipliers.

    Parameters
    ----------
    upper, lower : callable or Oracle
        The two levels, as `penalty` takes them; `upper` may be a problem that brings `lower`,
        `x0` and `y0`.
    constraints : Affine or callable, optional
        Inequalities: ``Ax x + Ay y <= b``, or ``(x, y) -> (c, jvpT)`` with the values c, of shape
        (l,), and a function ``jvpT(w) -> (c_x^T w, c_y^T w)``.
    x0, y0 : array, nested arrays or BilevelResult
        The start; it need not satisfy anything. A result as `x0` is a warm start.
    eq : Affine or callable, optional
        Equations, in the same form.
    X, Y : Set or callable, optional
        Where x and y must stay whatever the other does.
    project : callable, optional
        ``(x, y) -> (x, y)``, the nearest pair that satisfies everything, if there is a faster way
        to it than the general one.
    method : {"robust", "single-loop"}
        "robust" solves for the value v at every step and extrapolates in the weight of the gap;
        "single-loop" is the method as published, one gradient step for each variable in turn.
    gamma1, gamma2 : float, optional
        Proximal parameters for y and the multipliers, of the problem in units in which both
        levels and all rows of constraints have size one; by default 10, or 1 for "single-loop",
        and the same over the largest squared singular value of ``c_y``.
    r : float, default 1e6
        Bound of multipliers.
    c0, c_max : float
        Weights of the gap, relative to that of f: the first, and the last that "robust" tries.
    steps : tuple of three floats, optional
        Step lengths of "single-loop", in the units of `gamma1`: of (x, y), of the multipliers
        and of the inner variables; by default such that the inner ones contract.
    tol : float, optional
        Largest value of the certificate that counts as solved; by default 1e-6, or 3e-3 in single
        precision.
    maxiter : int, default 500
        Largest number of steps in (x, y).
    maxiter_inner : int, default 1000
        Largest number of steps of an inner solve.
    multipliers0 : array, shape (l,), optional
        A guess of the multipliers: of inequalities first, then of equations.
    time_limit : float, optional
        Seconds after which to stop.
    callback : callable, optional
        Called with an intermediate result after every step; a true return value or StopIteration
        ends the run.
    progress : bool, default False
        Show progress on stderr.
    n_threads : int, optional
        Number of threads.
    rng : int or Generator, optional
        Not needed: the method draws no random numbers; taken for uniformity.
    history : bool or int, default True
        Whether, or every how many steps, to keep a row.
    how : str, default "auto"
        How to certify, see `certify`.
    checkpoint : str, path or callable, optional
        Where to keep what a later call needs to go on.
    checkpoint_every : float, default 60
        Seconds from one checkpoint to the next.
    resume : str, path or state, optional
        A checkpoint, or the `state` of a result, to go on from.

    Returns
    -------
    BilevelResult
        Also with `multipliers`, signed so that ``g + w . c`` is stationary in y. `psi_lower` is a
        lower bound of the optimal value if all stages were solved to their global minimum.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or value; the message starts with its name.

    Notes
    -----
    At each step (x, y) is projected on the constraints by semismooth Newton steps: on the dual,
    or, where every row has a variable of its own, such as the slacks of a support vector machine,
    on what is left without those. See [1]_.

    References
    ----------
    .. [1] W. Yao, C. Yu, S. Zeng and J. Zhang, "Constrained bi-level optimization: proximal
       Lagrangian value function approach and Hessian-free algorithm", ICLR, 2024.

    Examples
    --------
    The lower level comes as close to x as ``x + y <= 2`` allows:

    >>> import numpy as np
    >>> from solvers import bilevel
    >>> def upper(x, y):
    ...     value = (x - 2) @ (x - 2) + (y - 1.5) @ (y - 1.5)
    ...     return value, 2 * (x - 2), 2 * (y - 1.5)
    >>> def lower(x, y):
    ...     return (y - x) @ (y - x), 2 * (x - y), 2 * (y - x)
    >>> tie = bilevel.Affine([[1.0]], [[1.0]], [2.0])
    >>> res = bilevel.lvhba(upper, lower, tie, np.zeros(1), np.zeros(1))
    >>> print(res.x.round(4), res.y.round(4), res.multipliers.round(4))
    [1.25] [0.75] [1.]
    """
    check_choice(method, "method", METHODS)
    if constraints is None and eq is None:
        raise ValueError("`constraints` came as None; expected them, or `eq`: else use `penalty`")
    if isinstance(x0, BilevelResult) and multipliers0 is None:
        multipliers0 = x0.multipliers
    own = Own(
        check_callable(project, "project"),
        check_positive(gamma1, "gamma1", allow_none=True),
        check_positive(gamma2, "gamma2", allow_none=True),
        check_positive(r, "r"),
        check_positive(c0, "c0"),
        check_positive(c_max, "c_max"),
        _check_steps(steps),
        multipliers0,
    )
    if own.c_max < own.c0:
        raise ValueError(f"`c_max` came as {c_max}; expected at least `c0` = {c0}")
    engine = robust if method == "robust" else single_loop
    return solve(
        "lvhba", upper, lower, x0, y0, engine, constraints=constraints, eq=eq, X=X, Y=Y, tol=tol,
        maxiter=maxiter, maxiter_inner=maxiter_inner, time_limit=time_limit, callback=callback,
        progress=progress, n_threads=n_threads, rng=rng, history=history, how=how, own=own,
        checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume,
    )  # fmt: skip


def _unless_empty(engine):
    """Let an engine end where a projection finds that no point satisfies all constraints."""

    @functools.wraps(engine)
    def guarded(problem, watch, options):
        try:
            engine(problem, watch, options)
        except EmptyError as error:
            watch.run.end(Status.INFEASIBLE, f"Nothing satisfies `constraints`: {error}.")

    return guarded


@_unless_empty
def robust(problem, watch, options):
    """Minimise ``f / c + g - v`` over C x Z for growing c, and extrapolate in 1 / c."""
    own, run, tol, kept = options.own, watch.run, options.tol, watch.resumed
    L, C = _sets_up(problem, watch, own, options)
    if kept is None:
        u, c, ends = _start(problem, L, C, own), own.c0, []
        if own.multipliers0 is not None and _settle(L, C, watch, u, tol, judge=True):
            return
    else:
        u, c, ends = kept["u"], kept["c"], kept["ends"]
    for _ in run:
        stage = _descend(L, C, watch, u, c, tol, ends, kept)
        before, u, kept = u, stage.u, None
        if run.status is None and not run.late:
            ends = [*ends, u]
            before, u = u, _extrapolated(ends)
        last = c * _GROWTH > own.c_max * (1 + 1e-9)
        near = float(abs(u - before).max()) <= 100 * tol * max(1.0, float(abs(u).max()))
        if not _settle(L, C, watch, u, tol, judge=last or near) and last:
            run.end(Status.STALLED, f"The weight of the gap reached c_max = {own.c_max:.3g}.")
        c, u = c * _GROWTH, stage.u


def _sets_up(problem, watch, own, options, **units):
    """Return the proximal Lagrangian and C x Z, as an earlier run left them."""
    kept = watch.resumed
    sizes = None if kept is None else kept["sizes"]
    L = Lagrangian(problem, options, lambda: watch.run.late, sizes=sizes, **units)
    C = Coupled(problem, L.Z, own.project)
    if kept is not None:
        L.restore(kept["inner"])
        C.restore(kept["u"], kept["duals"])
    return L, C


def _start(problem, L, C, own):
    """Return a start in C x Z."""
    z = L.xp.zeros_like(L.row_size)
    if own.multipliers0 is not None:
        io = Ingest(multipliers0=own.multipliers0, dtype=problem.io.dtype)
        z = L.taken(problem.io.xp.asarray(check_array(io, "multipliers0", shape=z.shape)))
    x, y, z = C.split(C.project(L.xp.concatenate([problem.x0, problem.y0, z])))
    # Where the lower level answers with its multipliers, the gap is closed.
    y, z, _ = L.respond(x, y, z, _START)
    return C.project(L.xp.concatenate([x, y, z]))


def _settle(L, C, watch, u, tol, *, judge):
    """Make the lower level's answer to u the run's; tell, if asked, whether that is the end."""
    x, y, z = C.split(C.project(u))
    y, w, residual = L.respond(x, y, z, 0.01 * tol)
    watch.answer(
        x, y, z=y, multipliers=watch.problem.io.out(L.given(w)), lower_residual=(residual,) * 2
    )
    if judge and watch.run.status is None and watch.certificate().holds:
        watch.run.end(Status.CONVERGED)
        return True
    return False


class _Penalised:
    """``f / c + g - v`` as a function of (x, y, z).

    Attributes
    ----------
    accuracy : float
        Residual to which v is solved for.
    f : float
        f at the last point.
    """

    def __init__(self, L, C, c, accuracy):
        self.L, self.C, self.c, self.accuracy = L, C, c, accuracy

    def __call__(self, u):
        L, c = self.L, self.c
        x, y, z = self.C.split(u)
        s = L.saddle(x, y, z, self.accuracy)
        f, fx, fy = L.upper(x, y)
        g, gx, gy = L.lower(x, y)
        self.f, self.steep = f * L.f_size, max(1.0, float(abs(fx).max()), float(abs(fy).max()))
        grad = L.xp.concatenate([fx / c + gx - s.gx, fy / c + gy - s.gy, -s.gz])
        noise = 4 * L.problem.eps * (abs(f / c) + abs(g) + abs(s.value))
        return f / c + g - s.value, grad, noise


def _descend(L, C, watch, u, c, tol, ends, kept):
    """Minimise ``f / c + g - v`` until its projected gradient is small; return the descent."""
    run = watch.run
    goal = max(0.1 * tol / c, _ROUNDING * L.problem.eps)
    fun = _Penalised(L, C, c, 1e-3 * _INNER)
    far = _FAR * max(1.0, float(abs(u).max()))
    descent = FaceDescent(fun, u, C, kept=kept and kept["descent"])
    fun.accuracy = kept["accuracy"] if kept else fun.accuracy
    while descent.stat > goal and not run.late:
        fun.accuracy = min(fun.accuracy, _INNER * max(goal, descent.stat))
        if descent.step():
            _report(L, C, watch, descent, fun, ends)
            if float(abs(descent.u).max()) > far:
                run.end(Status.UNBOUNDED, "Give bounds by `X` or `Y`.")
            if run.status is not None:
                break
        elif fun.accuracy > _DEEPEST * goal:
            # Perhaps the inner solves were too rough to show a way down.
            fun.accuracy = max(0.01 * fun.accuracy, _DEEPEST * goal)
            descent.renew()
        else:
            break
    if not math.isfinite(descent.value):
        run.end(Status.NUMERICAL)
    return descent


def _report(L, C, watch, descent, fun, ends):
    x, y, z = C.split(descent.u)
    scale = fun.c * L.f_size
    watch.answer(
        x, y, y_sigma=y, multipliers=watch.problem.io.out(L.given(z)),
        psi_lower=scale * descent.value, jac=scale * C.split(descent.free)[0],
        sigma=L.g_size / scale, optimality=fun.c * descent.stat / fun.steep,
    )  # fmt: skip
    fields = watch.fields
    series = {"fun": fun.f, "psi_lower": fields["psi_lower"], "sigma": fields["sigma"]}
    watch.record(fields["optimality"], **series)
    watch.keep(
        {
            "u": descent.u, "c": fun.c, "ends": ends, "accuracy": fun.accuracy,
            "descent": descent.state(), "inner": L.state(), "duals": C.duals, "sizes": L.sizes,
        }
    )  # fmt: skip


def _extrapolated(ends):
    """Return the limit of what changes with powers of 1 / c, by Neville's scheme."""
    table = ends[-_STAGES:]
    for k in range(1, len(table)):
        table = [b + (b - a) / (_GROWTH**k - 1) for a, b in itertools.pairwise(table)]
    return table[0]


@_unless_empty
def single_loop(problem, watch, options):
    """Take one gradient step for each variable in turn, with a weight that grows slowly."""
    own, run, tol, xp = options.own, watch.run, options.tol, problem.io.xp
    # Less memory of the past than "robust" has: what lags behind must catch up in a few steps.
    L, C = _sets_up(problem, watch, own, options, gamma=1.0)
    alpha, beta, eta = own.steps or _contracting(L)
    if watch.resumed is None:
        u, k = _start(problem, L, C, own), 0
        _, th, w = C.split(u)
    else:
        u, k, th, w = (watch.resumed[name] for name in ("u", "k", "th", "w"))
    x, y, z = C.split(u)
    for _ in run:
        c = own.c0 * (k + 1) ** _POWER
        d_th = L.lower(x, th)[2] + L.pulled(x, th, w)[1] + (th - y) / L.gamma1
        d_w = -L.constraints(x, th) + (w - z) / L.gamma2
        th, w = problem.Y.project(th - eta * d_th), xp.clip(w - eta * d_w, *L.Z)

        f, fx, fy = L.upper(x, y)
        _, gx, gy = L.lower(x, y)
        d_x = fx / c + gx - L.lower(x, th)[1] - L.pulled(x, th, w)[0]
        d_y = fy / c + gy - (y - th) / L.gamma1
        d_z = -(w - z) / L.gamma2
        ahead = xp.concatenate([x - alpha * d_x, y - alpha * d_y, z - beta * d_z])
        new = C.project(ahead) if bool(xp.isfinite(ahead).all()) else ahead
        stat = c * float(abs(new - u).max()) / alpha
        if not math.isfinite(stat):
            run.end(Status.NUMERICAL, "Shorten `steps`.")
            continue
        u, (x, y, z), k = new, C.split(new), k + 1
        scale = c * L.f_size
        watch.answer(x, y, y_sigma=y, sigma=L.g_size / scale, optimality=stat)
        watch.record(stat, fun=f * L.f_size, sigma=L.g_size / scale)
        watch.keep(
            {
                "u": u, "k": k, "th": th, "w": w, "inner": L.state(), "duals": C.duals,
                "sizes": L.sizes,
            }
        )  # fmt: skip
        if stat <= tol:
            _settle(L, C, watch, u, tol, judge=True)
    _settle(L, C, watch, u, tol, judge=False)


def _contracting(L):
    """Return steps for which descent in theta and ascent in w contract.

    With curvature h of g, and s the largest singular value of ``c_y``, they do for
    ``eta < (h + 1 / gamma1 + 1 / gamma2) / (s^2 + (h + 1 / gamma1) / gamma2)``.
    """
    eta = min(
        (h + 1 / L.gamma1 + 1 / L.gamma2) / (L.steep + (h + 1 / L.gamma1) / L.gamma2)
        for h in (0.0, 1.0)
    )
    return 0.1, 0.3 * L.gamma2, 0.5 * min(eta, 1.0)


def _check_steps(steps):
    if steps is None:
        return None
    if not isinstance(steps, tuple | list):
        raise TypeError(f"`steps` came as {describe(steps)}; expected a tuple of three numbers")
    if len(steps) != 3:
        raise ValueError(f"`steps` came as {steps!r}; expected three numbers")
    return tuple(check_positive(s, "steps") for s in steps)
