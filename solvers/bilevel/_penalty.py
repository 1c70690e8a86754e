"""Quasi-Newton steps on the penalised value, with continuation in the penalty."""

import math
from contextlib import suppress
from typing import Any, NamedTuple

from .._core.result import Status
from .._core.validation import check_choice, check_count, check_positive
from ._descent import Descent, Pairs, stationarity
from ._driver import solve
from ._envelope import Envelope, UnboundedError, combine, errors, ladder, norm, weights
from ._loops import LOOPS
from ._loops import minimise as loop
from ._result import BilevelResult

METHODS = ("auto", "lbfgs", "spg", *LOOPS)
ORDERS = (1, 2, "central")
# A stage may stop where the residual is this part of the penalty's error.
_KAPPA = 0.3
# Pairs of L-BFGS in the upper level.
_MEMORY = 20
# A hyper-gradient is measured to this part of its residual.
_CLEAR = 0.1
# Stages with one penalty.
_TRIES = 3


class _LateError(Exception):
    """There is no time left for what was begun."""


class Own(NamedTuple):
    """Options of `penalty` alone."""

    method: str
    sigma: float | None
    first: float | None
    sigma_min: float | None
    order: int | str
    z0: Any
    multistart: int


def penalty(
    upper, lower=None, x0=None, y0=None, *, X=None, Y=None, method="auto", sigma=None,
    sigma_min=None, order=2, tol=None, tol_inner=None, maxiter=200, maxiter_inner=1000,
    time_limit=None, z0=None, multistart=0, callback=None, progress=False, n_threads=None,
    rng=None, checkpoint=None, checkpoint_every=60, resume=None, history=True, how="auto",
):  # fmt: skip
    r"""Minimise the optimistic value of a bilevel problem by first derivatives alone.

    .. math:: \min_{x \in X} \; \psi(x), \qquad
              \psi(x) = \min \{ f(x, y) : y \in \operatorname{argmin}_{v \in Y} g(x, v) \}

    A quasi-Newton method on :math:`\psi_\sigma(x) = \min_{y \in Y} \max_{z \in Y} f(x, y) +
    (g(x, y) - g(x, z)) / \sigma`, a smooth lower bound of psi, for falling penalties sigma, until
    the error of its gradient, which is estimated, and the gradient itself are within `tol`.

    Parameters
    ----------
    upper, lower : callable or Oracle
        The functions ``(x, y) -> (value, grad_x, grad_y)``, or an `Oracle` that can do more. In
        place of both, with `x0` and `y0`: a ready-made problem of `solvers.bilevel.problems`.
    x0 : array, nested arrays or BilevelResult
        Start. Of a result, its y, z and penalty are taken as well.
    y0 : array or nested arrays
        Start of the lower level.
    X, Y : set or callable, optional
        Convex sets for x and y, such as ``box(lo, hi)``, or projections onto them.
    method : str, default "auto"
        "lbfgs": projected L-BFGS, which on sets other than boxes takes spectral steps; "spg":
        spectral steps everywhere; or a published loop: "double-loop", "single-loop", "vpbgd".
        "auto" stands for "lbfgs".
    sigma : float, optional
        The one penalty to use. By default a tenth of the ratio of both levels' curvatures, and
        then what the error calls for.
    sigma_min : float, optional
        Smallest penalty; by default what rounding allows.
    order : {2, 1, "central"}, default 2
        2: hyper-gradients are extrapolated from two penalties, so that errors fall like sigma^2;
        1: those of one; "central": differences of sigma and -sigma, for strongly convex lower
        levels alone, of which sigma must not exceed the modulus.
    tol : float, optional
        The largest certificate that passes, 1e-6 by default, or 3e-3 in float32.
    tol_inner : float, optional
        Residual of lower solves relative to ``curvature max(1, |y|)``; by default what the
        hyper-gradient needs.
    maxiter : int, default 200
        Largest number of steps in x.
    maxiter_inner : int, default 1000
        Largest number of steps of one lower solve.
    time_limit : float, optional
        Seconds.
    z0 : array or nested arrays, optional
        Start of the solves without a penalty, in place of `y0`.
    multistart : int, default 0
        Number of further, random starts of every lower solve, for lower levels with several
        minima: the smallest value wins.
    callback : callable, optional
        Called with the state after each step in x; a true return or StopIteration ends the run.
    progress : bool, default False
        Whether to show a bar.
    n_threads : int, optional
        Threads of kernels.
    rng : int or Generator, optional
        For `multistart`.
    checkpoint : str, Path or callable, optional
        Where the state goes every `checkpoint_every` seconds and at the end.
    checkpoint_every : float, default 60
        Seconds between two of them.
    resume : str, Path or state, optional
        A file that `checkpoint` has written, or the `state` of a result, to go on from.
    history : bool or int, default True
        Whether, or every how many steps, to keep a row.
    how : {"auto", "dense", "cg", "kkt", "penalty"}, default "auto"
        How the certificate is computed; see `certify`.

    Returns
    -------
    BilevelResult
        With x; y, a solution of the lower level near the one that is best for f; ``fun = f(x, y)``
        and ``psi_lower``, which bracket psi(x); ``jac`` and ``jac_err``, the hyper-gradient and
        its error.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or value; the message starts with its name.

    Notes
    -----
    Nothing tells a lower level that is not convex from one that is, short of `multistart`: with
    local minima the answer belongs to the one that the start leads to.

    References
    ----------
    .. [1] J. Kwon, D. Kwon, S. Wright, R. Nowak. On penalty methods for nonconvex bilevel
       optimization and first-order stochastic approximation. ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> upper = lambda x, y: (0.5 * (y - 1) @ (y - 1), 0 * x, y - 1)
    >>> lower = lambda x, y: (0.5 * (y - x) @ (y - x), x - y, y - x)
    >>> res = bilevel.penalty(upper, lower, np.zeros(2), np.zeros(2))
    >>> res.success, np.round(res.x, 4)
    (True, array([1., 1.]))
    """
    check_choice(method, "method", METHODS)
    if isinstance(order, bool) or order not in ORDERS:
        raise ValueError(f"`order` came as {order!r}; expected 1, 2 or 'central'")
    sigma = check_positive(sigma, "sigma", allow_none=True)
    first = None
    if isinstance(x0, BilevelResult):
        first, z0 = x0.sigma, x0.z if z0 is None else z0
        x0, y0 = x0.x, x0.y if y0 is None else y0
    own = Own(
        method,
        sigma,
        first,
        check_positive(sigma_min, "sigma_min", allow_none=True),
        order,
        z0,
        check_count(multistart, "multistart"),
    )
    engine = loop if method in LOOPS else minimise
    return solve(
        "penalty", upper, lower, x0, y0, engine, X=X, Y=Y, tol=tol, tol_inner=tol_inner,
        maxiter=maxiter, maxiter_inner=maxiter_inner, time_limit=time_limit, callback=callback,
        progress=progress, n_threads=n_threads, rng=rng, checkpoint=checkpoint,
        checkpoint_every=checkpoint_every, resume=resume, history=history, how=how, own=own,
    )  # fmt: skip


def minimise(problem, watch, options):
    """Lower sigma in stages, each a descent of psi_sigma, until the certificate holds."""
    Continuation(problem, watch, options).run()


class Measured(NamedTuple):
    """A hyper-gradient's residual and all that is off, relative to the hyper-gradient.

    `stat` and `err` are of the order that was asked for, `first` is the error with one penalty.
    Without a `point` they are expectations.
    """

    stat: float
    first: float
    err: float
    solves: float = 0.0
    point: Any = None
    errors: Any = None


class Continuation:
    """The state of a run of `penalty`.

    Attributes
    ----------
    x : array
        Where it is.
    sigma : float
        The penalty of the stage.
    """

    def __init__(self, problem, watch, options):
        self.problem, self.watch = problem, watch
        self.own, self.tol, self.monitor = options.own, watch.goal, watch.run
        self.env = Envelope(
            problem,
            late=lambda: self.monitor.late,
            maxiter=options.maxiter_inner,
            tol_inner=options.tol_inner,
            z0=entering(problem, self.own.z0),
            others=others(problem, self.own.multistart, options.rng),
        )
        S, eps = self.env.scales.sigma, problem.eps
        floor = 10 * eps**0.5 if self.own.order == 1 else eps ** (1 / 3)
        self.x, self.sigma = problem.x0, self.own.sigma or self.own.first or 0.1 * S
        self.least = self.own.sigma_min or S * floor
        self.pairs, self.tries = Pairs(_MEMORY), 0
        self.best = None

    def run(self):
        """Go through the stages."""
        now, half_done = None, self._restored()
        for _ in self.monitor:
            try:
                now = self._stage(now, half_done)
            except UnboundedError:
                now = self._retreat()
            half_done = None
        self._settle()

    def _stage(self, now, half_done):
        """Descend with one penalty, judge, choose the next; return what is known about it."""
        before = self.x
        if half_done is not None:
            now, polish = half_done["known"], half_done["order"] != 1
            self._descend(now, half_done["goal"], half_done["order"], half_done)
        else:
            # A result as a start may well need no step.
            now = now or self._measure(1.0 if self.own.first is None else 0.0)
            polish = self._may_polish(now)
            goal = max(self.tol, _KAPPA * (now.err if polish else now.first))
            if now.stat > max(self.tol, now.err):
                self._descend(now, goal, self.own.order if polish else 1)
        if self.monitor.status is not None or self.monitor.late:
            return None
        moved = half_done is not None or self.x is not before
        if moved or now.point is None:
            now = self._confirm(now)
        if self.monitor.late:
            # It may have been cut short.
            return None
        if not self._keep(now):
            return None
        if self._within(now):
            if self.watch.holds():
                self.monitor.end(Status.CONVERGED)
                return None
            self.tol = self.watch.goal
        if now.solves > 0.3 * max(self.tol, now.err) and self.env.accuracy <= self.tol:
            self._sharpen()
        self.tries += 1
        if self._may_polish(now) and now.stat > self.tol and self.tries < _TRIES:
            return now
        return self._next(now, moved)

    def _confirm(self, expected):
        """Measure where something is known already; again and better if it does not agree."""
        last = expected.err <= 3 * self.tol
        wanted = 0.3 * self.env.accuracy
        now = self._measure(_CLEAR * min(expected.stat, expected.err) if last else wanted)
        missed = now.err > max(self.tol, (1 if last else 5) * expected.err)
        # Where x is clearly not stationary yet, that is all there is to know.
        if missed and now.err > _CLEAR * now.stat:
            theta = self.env.theta
            self._sharpen()
            now = self._measure(_CLEAR * expected.err)
            self.env.theta = theta
        return now

    def _next(self, now, moved):
        """Lower the penalty to where the error is expected within the tolerance."""
        if self._last:
            if self.tries < _TRIES:
                # What is left may be due to the lower solves.
                self._sharpen()
                return self._measure(0.0)
            self.monitor.end(
                Status.STALLED,
                f"The hyper-gradient's error is {now.err:.3g} at the penalty {self.sigma:.3g}.",
            )
            return None
        # Errors fall like a power of the penalty.
        power = 1 if self.own.order == 1 else 2
        share = (0.3 * self.tol / max(now.err, 1e-300)) ** (1 / power)
        share = max(min(share, 0.1), 1e-2, self.least / self.sigma)
        self.sigma, self.tries = self.sigma * share, 0
        expected = Measured(now.stat, now.first * share, now.err * share**power)
        # Unless the error was too large to tell whether the point is stationary.
        return expected if moved or now.stat > 0.1 * now.err else self._confirm(expected)

    def _retreat(self):
        """Go on where a penalty was too large for central differences, or give up."""
        if self.own.order == "central" and self.own.sigma is None and self.sigma > self.least:
            self.sigma = max(0.1 * self.sigma, self.least)
        else:
            self.monitor.end(
                Status.UNBOUNDED, "The lower level falls without end in y; bound it by `Y`."
            )

    @property
    def _last(self):
        """Tell whether there is no smaller penalty to go to."""
        return self.own.sigma is not None or self.sigma <= self.least

    def _within(self, m):
        """Tell whether a certificate may hold: with the last penalty it knows more than `err`."""
        return m.stat <= self.tol and (m.err <= self.tol or self._last)

    def _may_polish(self, m):
        allowed = m.err <= self.tol or self._last
        return self.own.order != 1 and m.first > self.tol and allowed and m.stat <= 10 * m.first

    def _sharpen(self):
        self.env.theta = max(self.env.theta / 10, 1e-6)

    def _measure(self, accuracy, env=None):
        """Solve with the penalties that errors need, at the present point."""
        env, order = env or self.env, self.own.order
        env.accuracy = max(self.tol, min(accuracy, 1e-2))
        point = env.at(self.x, ladder(order, self.sigma))
        e = errors(point)
        env.gain = min(max(e.gain, 1.0), 1e3)
        grad, err = e.of(order)
        size = max(1.0, norm(grad))
        stat = stationarity(self.x, grad, self.problem.X)
        return Measured(stat, e.first / size, err / size, e.solves / size, point, e)

    def _descend(self, known, goal, order, half_done=None):
        """Take quasi-Newton steps on psi_sigma until it is stationary, or time is up."""
        with suppress(_LateError):
            self._walk(known, goal, order, half_done)

    def _walk(self, known, goal, order, half_done):
        env, problem = self.env, self.problem
        parts = weights(order, self.sigma)

        def psi(v):
            try:
                point = env.at(v, tuple(parts), strict=False)
            except UnboundedError:
                # Too far; at the start the search fails, and the next measurement says why.
                return math.inf, v * math.nan, 0.0, None
            if self.monitor.late:
                # Solves that were cut short tell nothing.
                raise _LateError
            return combine(point, parts)

        unit = 0.1 * max(1.0, float(abs(self.x).max()))
        for attempt in range(3):
            spectral = attempt == 2 or self.own.method == "spg"
            if half_done is None:
                env.accuracy = max(self.tol, min(known.stat, 1e-2))
                descent = Descent(
                    psi, self.x, problem.X, unit=unit, memory=self.pairs, spectral=spectral
                )
                descent.unit /= max(float(abs(descent.grad).max()), 1e-300)
            else:
                descent = Descent(
                    None, self.x, problem.X, unit=unit, memory=self.pairs, spectral=spectral
                ).restore(half_done["descent"])
                descent.fun, half_done = psi, None
            while True:
                stat = stationarity(descent.v, descent.grad, problem.X)
                env.accuracy = min(max(self.tol, stat), 2 * env.accuracy)
                if stat <= goal or self.monitor.late:
                    return
                if not descent.step():
                    break
                self.x = descent.v
                self._took_step(descent, stat, known, goal, order)
                if self.monitor.status is not None:
                    return
            # The values or slopes were too rough: solve better, then trust them less.
            self._sharpen()

    def _took_step(self, descent, stat, known, goal, order):
        fields, psi = descent.note
        # Of what is known here, z is the solution of the lower level; that with a penalty is
        # better for f than any.
        self.watch.answer(
            self.x, fields["z"], jac=descent.grad, jac_err=math.inf, optimality=stat,
            sigma=self.sigma, **fields,
        )  # fmt: skip
        self.watch.record(stat, fun=psi, psi_lower=fields["psi_lower"], sigma=self.sigma)
        self.watch.keep(
            {
                "sigma": self.sigma,
                "tries": self.tries,
                "goal": goal,
                "order": order,
                "known": tuple(known[:4]),
                "env": self.env.state(),
                "pairs": self.pairs.state(),
                "descent": descent.state(),
            }
        )

    def _restored(self):
        """Take over the state of an earlier run; return what it was about to do, if any."""
        state = self.watch.resumed
        if state is None:
            return None
        self.sigma, self.tries = state["sigma"], state["tries"]
        self.x = state["descent"]["v"]
        self.env.restore(state["env"])
        self.pairs.restore(state["pairs"])
        return {**state, "known": Measured(*state["known"])}

    def _keep(self, m):
        """Make the point the answer; tell whether the sandwich is in order, or end."""
        for _ in range(2):
            fun, lower = _keep(
                self.problem, self.env, self.watch, m.point, m.errors, self.own.order
            )
            if lower <= fun + self.tol * max(1.0, abs(fun)):
                if self.best is None or fun < self.best[0]:
                    self.best = fun, self.watch.x, self.watch.y, dict(self.watch.fields)
                return True
            self._sharpen()
            m = self._measure(0.0)
        self.monitor.end(
            Status.NUMERICAL,
            f"The lower bound {lower:.6g} of psi is above the upper one {fun:.6g}: the lower "
            "level is not solved, or has several minima; see `multistart`.",
        )
        return False

    def _settle(self):
        """Leave the best answer, with all that belongs to it, where a run ended on the way."""
        ended = self.monitor.status
        if ended is Status.CONVERGED:
            return
        fun = math.inf
        if ended in (Status.MAXITER, Status.CALLBACK) and self.monitor.nit:
            env = self.env.aside()
            try:
                m = self._measure(env.accuracy, env)
            except UnboundedError:
                return
            fun, _ = _keep(self.problem, env, self.watch, m.point, m.errors, self.own.order)
        elif ended is Status.TIME_LIMIT and self.best is None and not self.monitor.nit:
            self._answer_start()
        elif ended is Status.TIME_LIMIT and self.monitor.nit:
            fun = self.problem.upper.look(self.watch.x, self.watch.y).value
        if self.best is not None and self.best[0] < fun:
            _, x, y, fields = self.best
            self.watch.answer(x, y, **fields)

    def _answer_start(self):
        """Make the start the answer, with a solution of the lower level, whatever it takes."""
        env = self.env
        env.late = lambda: False
        z = env.minimiser(self.x, env.start, env.tolerance(env.scales.sigma))
        g = self.problem.lower.look(self.x, z)
        off = env.residual(z, g.gy)
        self.watch.answer(self.x, z, y_sigma=z, z=z, g_z=g.value, lower_residual=(off, off))


def _keep(problem, env, watch, point, e, order):
    """Make the point the answer, with a solution of the lower level; return bounds of psi."""
    one, half, *_ = point.sides
    y = env.settle(point)
    grad, err = e.of(order)
    at_y, lower = problem.lower.look(point.x, y), env.lower_bound(point, half)
    if problem.upper.look(point.x, y).value < lower and point.g.value < at_y.value:
        # Where g is flat y has not come far, and z is the better solution.
        y, at_y = point.z, point.g
    watch.answer(
        point.x, y, y_sigma=one.y, z=point.z, psi_lower=lower, jac=grad,
        jac_err=err, optimality=stationarity(point.x, grad, problem.X), sigma=one.sigma,
        g_z=point.g.value, lower_residual=(env.residual(y, at_y.gy), point.residual),
    )  # fmt: skip
    return problem.upper.look(point.x, y).value, lower


def entering(problem, z0):
    """Return the start of the solves without a penalty as a vector."""
    if z0 is None:
        return None
    z = problem.py.pack(z0, "`z0` came")
    if not bool(problem.io.xp.isfinite(z).all()):
        raise ValueError("`z0` contains NaN or infinities; expected finite numbers")
    return problem.Y.project(z)


def others(problem, count, rng):
    """Return random starts of lower solves, around the first."""
    y0 = problem.y0
    spread = max(1.0, float(abs(y0).max()))
    drawn = (rng.standard_normal(len(y0)) for _ in range(count))
    asarray = problem.io.xp.asarray
    return [problem.Y.project(y0 + spread * asarray(v, dtype=y0.dtype)) for v in drawn]
