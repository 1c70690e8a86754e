"""Normalised momentum and periodic lower steps, for upper levels of unbounded smoothness."""

import math
from types import SimpleNamespace
from typing import NamedTuple

from .._core.validation import check_count, check_flag, check_positive
from ._checkpoint import carried
from ._descent import residual
from ._driver import solve
from ._envelope import scales
from ._penalty_sgd import check_part, report
from ._stochastic import Batches

# The penalty, as part of the one at which both levels weigh the same.
_SIGMA = 0.01
# Stages of the start, each with half the radius and twice the steps of the one before, and, where
# gradients are noisy, half the step length.
_STAGES = 4
# Keeps a direction of length 0 from being divided by it.
_TINY = 1e-10


class Own(NamedTuple):
    """Options of `borep` alone."""

    period: int
    inner_steps: int
    init_steps: int
    radius: float | None
    beta: float
    sigma: float | None
    lr: float | None
    lr_upper: float
    nu: float | None
    first_order: bool
    maxiter: int
    batch: int


def borep(
    upper, lower=None, x0=None, y0=None, *, X=None, period=2, inner_steps=5, init_steps=100,
    radius=None, beta=0.9, sigma=None, lr=None, lr_upper=1e-2, nu=None, first_order=True,
    maxiter=1000, batch=32, tol=1e-2, time_limit=None, callback=None, progress=False,
    n_threads=None, rng=None, checkpoint=None, checkpoint_every=60, resume=None, history=True,
    how="auto",
):  # fmt: skip
    r"""Minimise the value of a bilevel problem whose upper level may grow exponentially.

    The gradient of such a level, as that of a recurrent network, is Lipschitz only relative to
    its own size. Steps in x along the direction of a momentum therefore have a given length, and
    the lower level, which has to be strongly convex, follows by a few steps every few of them
    [1]_:

    .. math:: M \leftarrow \beta M + (1 - \beta) d, \qquad
              x \leftarrow \Pi_X\bigl(x - \eta_t \, M / \|M\|\bigr).

    Parameters
    ----------
    upper, lower : callable or Oracle
        The levels: ``(x, y) -> (value, grad_x, grad_y)``. An `Oracle` with `n_samples` is looked
        at by batches. A problem with ``upper, lower, x0, y0, X`` may stand for all of them.
    x0, y0 : array or nested arrays
        Where to start.
    X : set or callable, optional
        Where x must lie.
    period : int
        Upper steps between two rounds of lower steps.
    inner_steps, init_steps : int
        Lower steps in a round, and before the first upper step.
    radius : float, optional
        How far a round may move the lower variables; by default as far as it likes.
    beta : float
        Momentum.
    sigma : float, optional
        Penalty of the first-order direction; by default a hundredth of the one at which both
        levels weigh the same at the start.
    lr : float, optional
        Length of lower steps; by default one over the largest curvature found at the start.
    lr_upper : float
        Length of the first upper step; they fall to 0 along half a cosine, for steps of one
        length never come to rest.
    nu : float, optional
        Length of the steps of v, see `first_order`; by default as `lr`.
    first_order : bool
        Whether d is that of the penalty, from minimisers of g and of ``sigma f + g`` that take
        the same steps; else it is ``f_x - g_xy v``, as in the paper, where v follows the solution
        of ``g_yy v = f_y`` by one step at a time.
    maxiter : int
        Number of upper steps.
    batch : int
        Samples in a batch, of levels with `n_samples`.
    tol : float
        Largest value of the certificate.
    time_limit : float, optional
        Seconds.
    callback : callable, optional
        Called with an intermediate result after every step; a true return value or StopIteration
        ends the run.
    progress : bool
        Whether to show progress.
    n_threads : int, optional
        Threads of kernels and BLAS.
    rng : int or Generator, optional
        Source of batches.
    checkpoint : path or callable, optional
        Where states of the run go.
    checkpoint_every : float
        Seconds between two states.
    resume : path or State, optional
        A state to go on from: bit for bit, if `maxiter` is the same.
    history : bool or int
        Whether, or every how many steps, to keep a row of the history.
    how : str
        How the answer is judged, see `certify`.

    Returns
    -------
    BilevelResult
        The last x, with a lower variable that was solved for there on all samples.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the expected kind or value.

    References
    ----------
    .. [1] J. Hao, X. Gong, M. Liu. Bilevel optimization under unbounded smoothness: a new
       algorithm and convergence analysis. ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> def upper(x, y):
    ...     return np.cosh(3 * (y - 1)).sum(), None, 3 * np.sinh(3 * (y - 1))
    >>> def lower(x, y):
    ...     return 0.5 * ((y - x) ** 2).sum(), x - y, y - x
    >>> res = bilevel.borep(upper, lower, np.array([4.0]), np.zeros(1))
    >>> bool(abs(res.x[0] - 1) < 1e-3)
    True
    """
    own = Own(
        check_count(period, "period", minimum=1),
        check_count(inner_steps, "inner_steps", minimum=1),
        check_count(init_steps, "init_steps"),
        check_positive(radius, "radius", allow_none=True),
        check_part(beta, "beta"),
        check_positive(sigma, "sigma", allow_none=True),
        check_positive(lr, "lr", allow_none=True),
        check_positive(lr_upper, "lr_upper"),
        check_positive(nu, "nu", allow_none=True),
        check_flag(first_order, "first_order"),
        check_count(maxiter, "maxiter"),
        check_count(batch, "batch", minimum=1),
    )
    return solve(
        "borep", upper, lower, x0, y0, descend, X=X, tol=tol, maxiter=maxiter,
        time_limit=time_limit, callback=callback, progress=progress, n_threads=n_threads, rng=rng,
        checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume, history=history,
        how=how, own=own,
    )  # fmt: skip


def descend(problem, watch, options):
    """Take the steps, then solve the lower level where they end."""
    own, run = options.own, watch.run
    _check_levels(problem, own)
    loop = Loop(problem, own, watch.resumed, options.rng)
    s = loop.s
    for _ in run:
        if s.t == 0:
            loop.start()
        elif s.t % own.period == 0:
            loop.follow()
        value, d = loop.direction()
        s.M = own.beta * s.M + (1 - own.beta) * d
        s.x = problem.X.project(s.x - loop.length * s.M / (_norm(s.M) + _TINY))
        s.t += 1
        finite = problem.io.xp.isfinite
        if not bool((finite(s.M) & finite(s.x)).all() & finite(s.z).all()):
            run.record(math.nan)
            break
        watch.answer(s.x, s.z)
        stat = residual(s.x, s.M, problem.X, 1.0) / max(1.0, float(abs(s.M).max()))
        watch.record(stat, fun=value)
        watch.keep(loop.state())
    report(problem, watch, options, s.sigma)


def _check_levels(problem, own):
    for level in (problem.upper, problem.lower):
        n = level.oracle.n_samples
        if n is not None and own.batch > n:
            raise ValueError(
                f"`batch` came as {own.batch}; expected at most the {n} samples of `{level.name}`"
            )
    lower = problem.lower.oracle
    if not own.first_order and (lower.hvp_yy is None or lower.hvp_xy is None):
        raise TypeError("`first_order`=False needs lower.hvp_yy and lower.hvp_xy")


class Loop:
    """Where a run is, and what it looks at.

    Attributes
    ----------
    s : namespace
        All that a step changes: t, x, z, y or v, momentum M, the number of batches used, and the
        lengths that the caller left open.
    """

    def __init__(self, problem, own, resumed, rng):
        self.problem, self.own = problem, own
        # The generator moves on by these numbers, however long the run.
        self.key = rng.integers(2**32, size=4).tolist() if resumed is None else resumed["key"]
        self._batches = {}
        for j, name in enumerate(("lower", "upper")):
            n = getattr(problem, name).oracle.n_samples
            self._batches[name] = None if n is None else Batches(n, own.batch, [*self.key, j])
        self.noisy = self._batches["lower"] is not None
        if resumed is not None:
            self.s = SimpleNamespace(**resumed["s"])
            return
        x, y, zeros = problem.x0, problem.y0, problem.io.xp.zeros_like
        sigma = own.sigma or _SIGMA * scales(problem, x, y).sigma
        self.s = SimpleNamespace(
            t=0, x=x, z=y, y=y, v=zeros(y), M=zeros(x), batches=0, sigma=sigma, lr=own.lr
        )
        if own.lr is None:
            self.s.lr = 1 / self._steepness()
        self.s.nu = own.nu or self.s.lr

    @property
    def length(self):
        """Return the length of the present upper step."""
        return 0.5 * self.own.lr_upper * (1 + math.cos(math.pi * self.s.t / self.own.maxiter))

    def start(self):
        """Solve the lower level in stages, each in a smaller ball around the end of the last."""
        total, radius, lr = self.own.init_steps, self.own.radius, self.s.lr
        for stage in range(_STAGES):
            # 1/15, 2/15, 4/15 and 8/15 of the steps.
            steps = round(total * 2**stage / (2**_STAGES - 1))
            self._descend(steps, lr, radius)
            radius = radius and radius / 2
            lr = lr / 2 if self.noisy else lr

    def follow(self):
        """Take a round of lower steps."""
        self._descend(self.own.inner_steps, self.s.lr, self.own.radius)

    def _descend(self, steps, lr, radius):
        """Move z, and y by the same batches, in balls around where they are."""
        s, first_order = self.s, self.own.first_order
        z_from, y_from = s.z, s.y
        for _ in range(steps):
            low, up = self._draw()
            at_z = self.problem.lower.look(s.x, s.z, low, with_x=False)
            if first_order:
                slope = self._penalised(s.y, low, up)
                s.y = _within(y_from, s.y - lr * slope, radius)
            s.z = _within(z_from, s.z - lr * at_z.gy, radius)

    def direction(self):
        """Return the upper value and an estimate of the hyper-gradient."""
        s, lower = self.s, self.problem.lower
        low, up = self._draw()
        if self.own.first_order:
            f = self.problem.upper.look(s.x, s.y, up)
            pair = lower.pair(s.x, s.y, s.z, low)
            change = pair.first.gx - pair.second.gx if pair.gx is None else pair.gx
            return f.value, f.gx + change / s.sigma
        f = self.problem.upper.look(s.x, s.z, up)
        s.v = s.v - s.nu * (lower.hvp_yy(s.x, s.z, s.v, low) - f.gy)
        return f.value, f.gx - lower.hvp_xy(s.x, s.z, s.v, low)

    def _penalised(self, y, low, up):
        f = self.problem.upper.look(self.s.x, y, up, with_x=False)
        g = self.problem.lower.look(self.s.x, y, low, with_x=False)
        return self.s.sigma * f.gy + g.gy

    def _steepness(self):
        """Return the largest curvature of the penalised lower level, on one batch."""
        s, xp = self.s, self.problem.io.xp
        low, up = self._draw()
        start, unit = self._penalised(s.z, low, up), 1e-3 * max(1.0, _norm(s.z))
        v, steepest = xp.cos(xp.arange(len(s.z), dtype=s.z.dtype)), 0.0
        for _ in range(10):
            v = v * (unit / max(_norm(v), 1e-300))
            v = self._penalised(s.z + v, low, up) - start
            steepest = max(steepest, _norm(v) / unit)
        return steepest if 0 < steepest < math.inf else 1.0

    def _draw(self):
        """Return the next batches of both levels; None stands for all samples."""
        k, self.s.batches = self.s.batches, self.s.batches + 1
        return [batches and batches(k) for batches in self._batches.values()]

    def state(self):
        """Return all that the next steps depend on; arrays are never changed in place."""
        return {"key": self.key, "s": carried(vars(self.s), lambda array: array)}


def _within(centre, y, radius):
    """Return the point of a ball that is nearest to y."""
    if radius is None:
        return y
    far = _norm(y - centre)
    return y if far <= radius else centre + (radius / far) * (y - centre)


def _norm(v):
    return math.sqrt(float(v @ v))
