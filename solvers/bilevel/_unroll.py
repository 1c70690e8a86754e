"""Quasi-Newton steps on the value that gradient steps on the lower level reach."""

import math
from typing import ClassVar, NamedTuple

from .._core.result import Status
from .._core.validation import check_choice, check_count, check_memory, check_positive
from ._curvature import Curvature
from ._descent import stationarity
from ._driver import solve
from ._implicit import Value, Values, _norm, bounded, descend

MODES = ("reverse", "forward")


class Own(NamedTuple):
    """Options of `unroll` alone."""

    steps: int
    lr: float | None
    mode: str
    window: int


def unroll(
    upper, lower=None, x0=None, y0=None, *, X=None, steps=100, lr=None, mode="reverse",
    window=None, tol=None, tol_inner=None, maxiter=200, maxiter_inner=1000, time_limit=None,
    callback=None, progress=False, n_threads=None, rng=None, checkpoint=None,
    checkpoint_every=60, resume=None, history=True, how="auto",
):  # fmt: skip
    r"""Minimise the value of a bilevel problem by differentiating through lower-level steps.

    The lower level takes `steps` gradient steps :math:`y_{t+1} = y_t - \eta g_y(x, y_t)`, and the
    upper level descends along the gradient of :math:`x \mapsto f(x, y_T)`. It tends to the
    hyper-gradient as fast as the steps converge; short of that, or with a short `window`, its
    zeros are elsewhere, and the certificate says so.

    Parameters
    ----------
    upper, lower : callable or Oracle
        The two levels, ``(x, y) -> (value, grad_x, grad_y)``; `lower` best with `hvp_yy` and
        `hvp_xy`, in place of which differences of gradients are taken. `upper` may be a problem
        of `bilevel.problems`, without the other three.
    x0, y0 : array or nested arrays
        Start.
    X : set or callable, optional
        Where x may be: a set of this module, or a projection.
    steps : int, default 100
        Steps that are taken on the lower level for every x.
    lr : float, optional
        Their length; by default the inverse of the largest curvature of the lower level.
    mode : {"reverse", "forward"}
        Backwards through the steps, which keeps all of them in memory, or forwards, by
        differences of two gradients for each entry of x and step, which keeps one vector like y
        for each entry of x.
    window : int, optional
        How many of the last steps are differentiated; by default all of them.
    tol : float, optional
        Stop when the certificate's value is at most this; by default 1e-6, in float32 3e-3.
    tol_inner : float, optional
        Largest projected gradient of the lower level at the answer, relative to its curvature
        and to the length of y; by default it follows the hyper-gradient.
    maxiter : int, default 200
        Largest number of steps in x.
    maxiter_inner : int, default 1000
        Largest number of steps of the lower solve at the answer.
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
        With `y_sigma`, where the steps ended, and `y`, the lower level's solution near it;
        `jac_err` is by how much half of the differentiated steps changed `jac`. There is no
        penalty, so that `sigma` is None and `psi_lower` minus infinity.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or value; the message begins with its name.
    MemoryError
        If the steps would not fit.

    Warns
    -----
    ConvergenceWarning
        If the certificate does not hold.

    See Also
    --------
    penalty : By first derivatives alone.
    implicit : Differentiates the lower level's solution.

    References
    ----------
    .. [1] L. Franceschi et al. Forward and reverse gradient-based hyperparameter optimization.
       ICML 2017.
    .. [2] A. Shaban et al. Truncated back-propagation for bilevel optimization. AISTATS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> lower = lambda x, y: (0.5 * (y - x) @ (y - x), x - y, y - x)
    >>> upper = lambda x, y: (0.5 * (y - 1) @ (y - 1), 0, y - 1)
    >>> res = bilevel.unroll(upper, lower, np.zeros(2), np.zeros(2), steps=20)
    >>> res.success, res.x.round(6)
    (True, array([1., 1.]))
    """
    check_choice(mode, "mode", MODES)
    steps = check_count(steps, "steps", minimum=1)
    window = check_count(window, "window", minimum=1, allow_none=True)
    own = Own(steps, check_positive(lr, "lr", allow_none=True), mode, min(window or steps, steps))
    return solve(
        "unroll", upper, lower, x0, y0, minimise, X=X, tol=tol, tol_inner=tol_inner,
        maxiter=maxiter, maxiter_inner=maxiter_inner, time_limit=time_limit, callback=callback,
        progress=progress, n_threads=n_threads, rng=rng, checkpoint=checkpoint,
        checkpoint_every=checkpoint_every, resume=resume, history=history, how=how, own=own,
    )  # fmt: skip


def minimise(problem, watch, options):
    """Descend with one start of the lower level after the other."""
    _check_memory(problem, options.own)
    values = Unrolled(problem, options, late=lambda: watch.run.late)
    with bounded(watch.run):
        _rounds(problem, watch, options, values)


def _rounds(problem, watch, options, values):
    """Descend and judge, until the start is no news."""
    run = watch.run
    half_done = values.restore(watch.resumed)
    if half_done is None:
        values.at(problem.x0)
    for _ in run:
        if half_done is None:
            values.began = run.nit
            values.renew()
        if not _finite(values.point):
            run.end(Status.NUMERICAL, "The steps diverged; shorten `lr`.")
            return
        descend(values, watch, watch.goal, half_done)
        half_done = None
        point = values.point
        values.accuracy *= 0.1
        values.start = point.y
        lower = values.lower(point.x)
        watch.answer(
            point.x, lower.v, y_sigma=point.y, z=lower.v, jac=point.grad, jac_err=values.error,
            optimality=stationarity(point.x, point.grad, problem.X),
            lower_residual=(lower.residual(), lower.residual()),
        )  # fmt: skip
        if run.status is not None or run.late:
            continue
        if watch.holds():
            run.end(Status.CONVERGED)
        elif run.nit == values.began:
            run.end(Status.STALLED, _advice(values))


def _finite(point):
    return math.isfinite(point.value) and math.isfinite(_norm(point.grad))


def _check_memory(problem, own):
    vectors = own.window if own.mode == "reverse" else problem.px.size
    size = vectors * problem.py.size * problem.io.dtype.itemsize
    remedy = "Shorten `window`." if own.mode == "reverse" else "Use mode='reverse'."
    check_memory(size, "Unrolling", remedy, be=problem.io.be)


def _advice(values):
    if values.own.lr is not None:
        return "The steps may be too few, or `lr` too large or too small."
    return f"Half of the steps changed the gradient by {values.error:.3g}; raise `steps`."


class Unrolled(Values):
    """Evaluates f at the end of the steps, all from one start.

    Attributes
    ----------
    error : float
        By how much half of the differentiated steps changed the last gradient.
    """

    _carried: ClassVar[tuple[str, ...]] = ("start", "accuracy", "began", "error")

    def __init__(self, problem, options, late):
        super().__init__(problem, options, late)
        self.own, self.lr, self.error = options.own, options.own.lr, float("inf")

    def renew(self):
        """Start the steps where they ended."""
        self.start = self.last.y
        self.at(self.last.x)
        self.keep()

    def keep(self):
        """Accept the last point; the start stays, so that values remain comparable."""
        self.point = self.last
        return self.point

    def at(self, x):
        """Take the steps at x and differentiate the last of them."""
        if self.own.lr is None:
            # A length that suits another x may be too long here, and would cut the step in x.
            curvature = Curvature(self.problem, x, self.start, precondition=False)
            self.lr = 1.0 / curvature.largest()
        walk = self._forward if self.own.mode == "forward" else self._reverse
        y, f, grad, half = walk(x)
        self.error = _norm(grad - half)
        residual = float(abs(self.problem.lower.look(x, y, with_x=False).gy).max())
        self.last = Value(x, y, f.value, f.value, grad, residual)
        return self.last

    def _next(self, x, y):
        return y - self.lr * self.problem.lower.look(x, y, with_x=False).gy

    def _before_window(self, x):
        y = self.start
        for _ in range(self.own.steps - self.own.window):
            y = self._next(x, y)
        return y

    def _reverse(self, x):
        """Walk on, then back: `adjoint` is the derivative of f by the point of that step."""
        path = [self._before_window(x)]
        for _ in range(self.own.window):
            path.append(self._next(x, path[-1]))
        y = path.pop()
        f = self.problem.upper.look(x, y)
        grad, half, adjoint = f.gx, f.gx, f.gy
        for k in range(len(path)):
            yy, xy = Curvature(self.problem, x, path.pop(), precondition=False).both(adjoint)
            grad, adjoint = grad - self.lr * xy, adjoint - self.lr * yy
            if 2 * k < self.own.window:
                half = grad
        return y, f, grad, half

    def _forward(self, x):
        """Walk on with the derivatives of y by each entry of x, the rows of Z."""
        xp = self.problem.io.xp
        y, axes = self._before_window(x), xp.eye(len(x), dtype=x.dtype)
        Z = half = xp.zeros((len(x), len(y)), dtype=y.dtype)
        for k in range(self.own.window):
            curvature = Curvature(self.problem, x, y, precondition=False)
            change = [curvature.along(e, z) for e, z in zip(axes, Z, strict=True)]
            y, Z = self._next(x, y), Z - self.lr * xp.stack(change)
            if 2 * k < self.own.window:
                half = Z
        f = self.problem.upper.look(x, y)
        return y, f, f.gx + Z @ f.gy, f.gx + half @ f.gy
