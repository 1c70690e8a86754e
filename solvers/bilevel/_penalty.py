"""Quasi-Newton steps on the penalised value, with continuation in the penalty."""

from typing import Any, NamedTuple

from .._core.result import Status
from .._core.validation import check_choice, check_count, check_positive
from ._descent import Descent, Pairs, residual
from ._driver import solve
from ._envelope import Envelope, Unbounded, combine, errors, norm, weights
from ._loops import LOOPS
from ._loops import minimise as loop

METHODS = ("auto", "lbfgs", "spg", *LOOPS)
ORDERS = (1, 2, "central")
# A stage may stop where the residual is this part of the penalty's error.
_KAPPA = 0.3
# Pairs of L-BFGS in the upper level.
_MEMORY = 20
# A hyper-gradient is measured to this part of its residual.
_CLEAR = 0.1


class Own(NamedTuple):
    """Options of `penalty` alone."""

    method: str
    sigma: float | None
    sigma_min: float | None
    order: int | str
    z0: Any
    multistart: int


def penalty(
    upper, lower=None, x0=None, y0=None, *, X=None, Y=None, method="auto", sigma=None,
    sigma_min=None, order=2, tol=None, tol_inner=None, maxiter=200, maxiter_inner=1000,
    time_limit=None, z0=None, multistart=0, callback=None, progress=False, n_threads=None,
    rng=None, history=True, how="auto",
):  # fmt: skip
    """Minimise the optimistic value of a bilevel problem by first derivatives alone."""
    check_choice(method, "method", METHODS)
    if order not in ORDERS:
        raise ValueError(f"`order` came as {order!r}; expected 1, 2 or 'central'")
    own = Own(
        method,
        check_positive(sigma, "sigma", allow_none=True),
        check_positive(sigma_min, "sigma_min", allow_none=True),
        order,
        z0,
        check_count(multistart, "multistart"),
    )
    engine = loop if method in LOOPS else minimise
    return solve(
        "penalty", upper, lower, x0, y0, engine, X=X, Y=Y, tol=tol, tol_inner=tol_inner,
        maxiter=maxiter, maxiter_inner=maxiter_inner, time_limit=time_limit, callback=callback,
        progress=progress, n_threads=n_threads, rng=rng, history=history, how=how, own=own,
    )  # fmt: skip


def minimise(problem, watch, options):
    """Lower sigma in stages, each a descent of psi_sigma, until the certificate holds."""
    Continuation(problem, watch, options).run()


class Measured(NamedTuple):
    """A point with its hyper-gradient and all that is off, relative to the hyper-gradient.

    `stat` and `err` are of the order that was asked for.
    """

    point: Any
    errors: Any
    stat: float
    first: float
    err: float
    solves: float


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
        self.problem, self.watch, self.options = problem, watch, options
        self.own, self.tol, self.monitor = options.own, options.tol, watch.run
        self.env = Envelope(
            problem,
            late=lambda: self.monitor.late,
            maxiter=options.maxiter_inner,
            tol_inner=options.tol_inner,
        )
        self.env.accuracy = max(self.tol, 1e-2)
        S, eps = self.env.scales.sigma, problem.eps
        order_floor = 10 * eps**0.5 if self.own.order == 1 else eps ** (1 / 3)
        self.x, self.sigma = problem.x0, self.own.sigma or 0.1 * S
        self.least = self.own.sigma_min or S * order_floor
        self.pairs = Pairs(_MEMORY)

    def run(self):
        """Go through the stages."""
        now = None
        for _ in self.monitor:
            try:
                now = self._stage(now)
            except Unbounded:
                self.monitor.end(
                    Status.UNBOUNDED, "The lower level falls without end in y; bound it by `Y`."
                )

    def _stage(self, now):
        """Descend with one penalty, judge, choose the next; return what is known about it."""
        if now is None:
            now = self._measure(1.0)
        polish, before = False, self.x
        if now.stat > max(self.tol, now.err):
            polish = self._may_polish(now)
            goal = self.tol if polish else max(self.tol, _KAPPA * now.first)
            self._descend(now, goal, self.own.order if polish else 1)
        if self.monitor.late:
            return None
        if self.x is not now.point.x or self.sigma != now.point.sides[0].sigma:
            now = self._confirm(now)
        _keep(self.problem, self.env, self.watch, now.point, now.errors, self.own.order)
        if self.monitor.status is not None:
            return None
        if max(now.stat, now.err) <= self.tol and self.watch.certificate().holds:
            self.monitor.end(Status.CONVERGED)
            return None
        if now.solves > 0.3 * max(self.tol, now.err):
            self._sharpen()
        if self._may_polish(now) and now.stat > self.tol and not polish:
            return now
        return self._next(now, self.x is not before)

    def _confirm(self, expected):
        """Measure where something is known already; again and better if it does not agree."""
        last = expected.err <= 3 * self.tol
        now = self._measure(_CLEAR * min(expected.stat, expected.err) if last else expected.first)
        if now.err > max(self.tol, 5 * expected.err):
            self._sharpen()
            now = self._measure(0.0)
        return now

    def _next(self, now, moved):
        """Lower the penalty to where the error is expected within the tolerance."""
        if self.own.sigma is not None or self.sigma <= self.least:
            self.monitor.end(
                Status.STALLED,
                f"The hyper-gradient's error is {now.err:.3g} at the penalty {self.sigma:.3g}.",
            )
            return None
        # Errors fall like a power of the penalty.
        power = 1 if self.own.order == 1 else 2
        share = (0.3 * self.tol / max(now.err, 1e-300)) ** (1 / power)
        share = max(min(share, 0.1), 1e-2, self.least / self.sigma)
        self.sigma *= share
        expected = now._replace(first=now.first * share, err=now.err * share**power)
        # Unless the error was too large to tell how far the point is from stationary.
        return expected if moved or now.stat > now.err else self._confirm(expected)

    def _may_polish(self, m):
        return self.own.order != 1 and m.first > self.tol >= m.err and m.stat <= 10 * m.first

    def _sharpen(self):
        self.env.theta = max(self.env.theta / 10, 1e-6)

    def _measure(self, accuracy):
        """Solve with the penalties that errors need, at the present point."""
        sigma, order, env = self.sigma, self.own.order, self.env
        env.accuracy = max(self.tol, min(accuracy, 1e-2))
        point = env.at(self.x, (sigma, sigma / 2, sigma / 4))
        e = errors(point)
        env.gain = min(max(e.gain, 1.0), 1e3)
        grad, err = e.of(order)
        size = max(1.0, norm(grad))
        stat = stationarity(self.problem, self.x, grad)
        return Measured(point, e, stat, e.first / size, err / size, e.solves / size)

    def _descend(self, start, goal, order):
        """Take quasi-Newton steps on psi_sigma until it is stationary."""
        env, problem = self.env, self.problem
        parts = weights(order, self.sigma)

        def psi(v):
            point = env.at(v, tuple(parts), strict=False)
            return combine(point, parts)

        grad, _ = start.errors.of(order)
        unit = 0.1 * max(1.0, float(abs(self.x).max())) / max(float(abs(grad).max()), 1e-300)
        env.accuracy = max(self.tol, min(stationarity(problem, self.x, grad), 1e-2))
        for attempt in range(3):
            descent = Descent(
                psi,
                self.x,
                problem.X,
                unit=unit,
                memory=self.pairs,
                spectral=attempt == 2 or self.own.method == "spg",
            )
            while True:
                stat = stationarity(problem, descent.v, descent.grad)
                env.accuracy = min(max(self.tol, stat), 2 * env.accuracy)
                if stat <= goal or self.monitor.late:
                    return
                if not descent.step():
                    break
                self.x = descent.v
                self.watch.answer(self.x, descent.note)
                if self.watch.record(stat, fun=descent.value, sigma=self.sigma):
                    return
            # The values or slopes were too rough: solve better, then trust them less.
            self._sharpen()


def stationarity(problem, x, d):
    """Return the largest entry of the projected hyper-gradient, relative to its largest entry."""
    return residual(x, d, problem.X, 1.0) / max(1.0, float(abs(d).max()))


def _keep(problem, env, watch, point, e, order):
    """Make the point the answer, with a solution of the lower level near y_sigma."""
    one, half, _ = point.sides
    y = env.settle(point)
    grad, err = e.of(order)
    at_y = problem.lower.look(point.x, y)
    watch.answer(
        point.x, y, y_sigma=one.y, z=point.z, psi_lower=half.value, jac=grad, jac_err=err,
        optimality=stationarity(problem, point.x, grad), sigma=one.sigma, g_z=point.g.value,
        lower_residual=(env.residual(y, at_y.gy), point.residual),
    )  # fmt: skip
