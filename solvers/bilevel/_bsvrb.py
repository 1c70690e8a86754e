"""Blockwise stochastic variance-reduced steps for levels that are means over many blocks."""

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import Ingest
from .._core.result import Status
from .._core.trees import is_tree
from .._core.validation import (
    check_choice,
    check_count,
    check_memory,
    check_nonnegative,
    check_positive,
    describe,
)
from ._block_steps import STEPS, Draws, Rows
from ._blocks import BlockLevel, block_sizes, whole
from ._descent import stationarity
from ._driver import solve
from ._envelope import scales
from ._oracle import as_oracle
from ._penalty_sgd import check_part, report
from ._result import BilevelResult

VARIANTS = ("v1", "v2", "v3")
# The paper's formula for gamma diverges unless alpha is small, and 1 allows only a third of the
# lower step length; the answers are as good.
_GAMMA = 0.1
# The penalty, as part of the one at which both levels weigh the same.
_SIGMA = 0.05
# Lower steps, as part of those at which recursions on a quadratic stop falling.
_LOWER = 0.75
# Visits to each block before the upper variable moves, and what it moves by between two visits:
# it must not run ahead of lower variables that follow with these lengths.
_WARM_UP, _FIRST = 4, 0.1
# Upper steps fall after this part of the run.
_PLATEAU = 0.2


class Own(NamedTuple):
    """Options of `bsvrb` alone."""

    upper: Any
    lower: Any
    n_blocks: int
    variant: str
    blocks: int
    batch: int
    epochs: float
    alpha: float
    gamma: float
    beta: float
    sigma: float | None
    lr: float | None
    lr_upper: float | None
    floor: float
    radius: float
    averaging: float
    callback_every: float


def bsvrb(
    upper, lower=None, x0=None, y0=None, *, n_blocks=None, X=None, variant="v3", blocks=10,
    batch=32, epochs=50, alpha=0.9, gamma=None, beta=0.9, sigma=None, lr=None, lr_upper=None,
    floor=1e-4, radius=math.inf, averaging=0.25, tol=1e-2, time_limit=None, callback=None,
    callback_every=1.0, progress=False, n_threads=None, rng=None, checkpoint=None,
    checkpoint_every=60, resume=None, history=True, how="auto",
):  # fmt: skip
    r"""Minimise over a variable that many blocks share, by steps on a few blocks at a time.

    .. math:: \min_{x \in X} \; \frac1m \sum_{i=1}^m f_i(x, y_i(x)), \qquad
              y_i(x) = \operatorname{argmin}_{y} \; g_i(x, y).

    Every step looks at some samples of some blocks, at the present point and at the one before,
    and updates recursive estimates of the derivatives there [1]_. What a step costs does not
    depend on the number of blocks.

    Parameters
    ----------
    upper, lower : Oracle
        The levels of single blocks, with `n_samples`: functions of ``(x, y[blocks], blocks, idx)``
        for block numbers (I,) and sample numbers (I, B), which return values (I,), gradients in x
        with one more axis of length I in front, and gradients in y, (I, p); `hvp_yy` and `hvp_xy`
        likewise. `precond_y` takes x and returns rows for all blocks. A problem with these and
        ``x0, y0, X, n_blocks`` may stand for all of them.
    x0 : array or nested arrays
        Start of the upper variable.
    y0 : array, shape (m, p)
        Start of the lower variables, a row for each block. (Any shape (m, ...) does.) Blocks with
        fewer variables leave the rest of their rows alone.
    n_blocks : int
        Number m of blocks.
    X : set or callable, optional
        Where x must lie.
    variant : {"v3", "v2", "v1"}
        What stands for the second derivatives: a second lower variable for each block, which
        minimises ``sigma f_i + g_i``, on the same samples; the solution v of
        ``g_yy v = f_y``, tracked by products with Hessians; or estimates of the Hessians, of p
        times p numbers for each block.
    blocks, batch : int
        How many blocks a step visits, and how many samples of each it looks at in either level:
        drawn with replacement, but all of them if there are no more.
    epochs : float
        Length of the run; an epoch is ``ceil(m / blocks) * ceil(n / batch)`` steps.
    alpha : float
        How much of the lower level's estimates is new in a step, at most 1.
    gamma : float, optional
        Weight of the change between two points in these estimates; by default a tenth.
    beta : float
        How much of the upper level's estimate is new in a step, at most 1.
    sigma : float, optional
        The penalty of "v3"; by default a twentieth of the one at which both levels weigh the same.
    lr : float, optional
        Length of lower steps, in units of the inverse of `precond_y` where there is one; by
        default from the largest curvatures of the blocks.
    lr_upper : float, optional
        Length of the first upper steps; they fall like one over the root of the step's number. By
        default they begin with what the lower level can follow, and never move x by more.
    floor : float
        Smallest eigenvalues of the Hessians of "v1", relative to their largest.
    radius : float
        Largest norm of v in "v2".
    averaging : float
        Part of the run, at its end, that x is averaged over.
    tol : float
        Largest value of the certificate.
    time_limit : float, optional
        Seconds.
    callback : callable, optional
        Called with an intermediate result every `callback_every` epochs; a true return value or
        StopIteration ends the run.
    callback_every : float
        Epochs between two reports.
    progress : bool
        Whether to show progress.
    n_threads : int, optional
        Threads of kernels and BLAS.
    rng : int or Generator, optional
        Source of blocks and samples.
    checkpoint : path or callable, optional
        Where states of the run go.
    checkpoint_every : float
        Seconds between two states.
    resume : path or State, optional
        A state to go on from, bit for bit.
    history : bool or int
        Whether, or every how many steps, to keep a row of the history.
    how : str
        How the answer is judged, see `certify`.

    Returns
    -------
    BilevelResult
        The averaged x, with lower variables that were solved for there on all samples.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the expected kind or value.

    Notes
    -----
    The certificate is that of the whole problem, on all blocks and samples: of the levels that
    ``upper.over_blocks(m)`` and ``lower.over_blocks(m)`` return. With ``gamma = 1``,
    for which the theory asks if alpha is small, lower steps that are repeated on one block must
    be three times shorter than with 0; the answers are no better.

    References
    ----------
    .. [1] Q. Hu, Z.-H. Qiu, Z. Guo, L. Zhang, T. Yang. Blockwise stochastic variance-reduced
       methods with parallel speedup for multi-block bilevel optimization. ICML 2023.

    Examples
    --------
    Twenty blocks, whose minimisers ``y_i = x + b_i`` should be close to 1:

    >>> import numpy as np
    >>> from solvers import bilevel
    >>> b = np.random.default_rng(0).standard_normal((20, 8))
    >>> def lower(x, y, blocks, idx):
    ...     r = y - x - b[blocks[:, None], idx]
    ...     return (r * r).mean(1) / 2, -r.mean(1, keepdims=True), r.mean(1, keepdims=True)
    >>> def upper(x, y, blocks, idx):
    ...     return (y[:, 0] - 1) ** 2 / 2, None, y - 1
    >>> levels = [bilevel.Oracle(value_and_grads=f, n_samples=8) for f in (upper, lower)]
    >>> res = bilevel.bsvrb(*levels, np.zeros(1), np.zeros((20, 1)), n_blocks=20, batch=8,
    ...                     epochs=200, rng=0)
    >>> bool(abs(res.x[0] - (1 - b.mean())) < 0.01)
    True
    """
    check_choice(variant, "variant", VARIANTS)
    if hasattr(upper, "n_blocks"):
        problem = upper
        upper, lower = problem.upper, problem.lower
        n_blocks = problem.n_blocks if n_blocks is None else n_blocks
        X = problem.X if X is None else X
        x0 = problem.x0 if x0 is None else x0
        y0 = problem.y0 if y0 is None and not isinstance(x0, BilevelResult) else y0
    if isinstance(x0, BilevelResult):
        x0, y0 = x0.x, x0.y if y0 is None else y0
    n_blocks = check_count(n_blocks, "n_blocks", minimum=1)
    upper, lower = as_oracle(upper, "upper"), as_oracle(lower, "lower")
    own = Own(
        upper,
        lower,
        n_blocks,
        variant,
        check_count(blocks, "blocks", minimum=1),
        check_count(batch, "batch", minimum=1),
        check_positive(epochs, "epochs"),
        _check_share(alpha, "alpha"),
        _GAMMA if gamma is None else check_nonnegative(gamma, "gamma"),
        _check_share(beta, "beta"),
        check_positive(sigma, "sigma", allow_none=True),
        check_positive(lr, "lr", allow_none=True),
        check_positive(lr_upper, "lr_upper", allow_none=True),
        check_positive(floor, "floor"),
        check_positive(radius, "radius", allow_inf=True),
        check_part(averaging, "averaging"),
        check_positive(callback_every, "callback_every"),
    )
    _check_levels({"upper": upper, "lower": lower}, own)
    _check_rows(y0, n_blocks)
    return solve(
        "bsvrb", whole(upper, "upper", n_blocks), whole(lower, "lower", n_blocks), x0, y0,
        descend, X=X, tol=tol, time_limit=time_limit, callback=callback, progress=progress,
        n_threads=n_threads, rng=rng, checkpoint=checkpoint, checkpoint_every=checkpoint_every,
        resume=resume, history=history, how=how, own=own,
    )  # fmt: skip


def _check_share(value, name):
    share = check_positive(value, name)
    if share > 1:
        raise ValueError(f"`{name}` came as {value!r}; expected a number in (0, 1]")
    return share


def _check_rows(y0, n_blocks):
    shape = Ingest(y0=y0).raw("y0").shape if y0 is not None and not is_tree(y0) else ()
    if shape[:1] != (n_blocks,) or len(shape) < 2:
        came = f"with shape {shape}" if shape else f"as {describe(y0)}"
        raise ValueError(f"`y0` came {came}; expected a row for each of the {n_blocks} blocks")


def _check_levels(levels, own):
    for name, oracle in levels.items():
        fewest = int(block_sizes(oracle, name, own.n_blocks).min())
        if own.batch > fewest:
            raise ValueError(
                f"`batch` came as {own.batch}; expected at most the {fewest} samples of a block "
                f"of `{name}`"
            )
    if own.blocks > own.n_blocks:
        raise ValueError(
            f"`blocks` came as {own.blocks}; expected at most the {own.n_blocks} blocks"
        )
    lower = levels["lower"]
    if own.variant != "v3" and (lower.hvp_yy is None or lower.hvp_xy is None):
        raise TypeError(
            f"`variant`={own.variant!r} needs lower.hvp_yy and lower.hvp_xy; use variant='v3'"
        )


def descend(problem, watch, options):
    """Take the steps of all epochs, then solve the lower level where they end."""
    own, run = options.own, watch.run
    loop = Loop(problem, own, watch.resumed, options.rng)
    run.maxiter = loop.K
    if loop.k >= loop.K:
        run.end(Status.MAXITER)
    for _ in run:
        loss, taken = loop.advance(lambda: run.late)
        s = loop.s
        if not (math.isfinite(loss) and loop.finite):
            run.record(math.nan, iterations=taken)
            break
        watch.answer(s.x if s.mean is None else s.mean, s.z.now.reshape(-1).copy())
        stat = stationarity(s.x, s.D, problem.X)
        watch.record(stat, iterations=taken, fun=loss)
        watch.keep(loop.state())
    if run.status is Status.MAXITER:
        run.end(Status.MAXITER, f"Here `epochs` = {own.epochs:g} says how many.")
    report(problem, watch, options, loop.plan["sigma"])


class Loop:
    """The steps of one run: where it is, its random numbers and step lengths.

    Attributes
    ----------
    k, K : int
        Steps so far, and of the whole run.
    s : namespace
        All that a step changes.
    """

    def __init__(self, problem, own, resumed, rng):
        self.problem, self.own, self.xp = problem, own, problem.io.xp
        self.upper, self.lower = (
            BlockLevel(getattr(own, name), getattr(problem, name), own.n_blocks)
            for name in ("upper", "lower")
        )
        per_epoch = -(-own.n_blocks // own.blocks) * -(-int(self.lower.sizes.max()) // own.batch)
        self.K = max(1, round(own.epochs * per_epoch))
        self.stride = max(1, round(own.callback_every * per_epoch))
        # Every block comes along this often, on average.
        self.period = -(-own.n_blocks // own.blocks)
        if resumed is None:
            # The generator moves on by these numbers, however long the run.
            self.key = rng.integers(2**32, size=4).tolist()
        else:
            self.key = resumed["key"]
        self.draws = Draws(self.xp, own, (self.lower, self.upper), self.key)
        self._begin() if resumed is None else self._go_on(resumed)

    def _begin(self):
        problem, own, xp = self.problem, self.own, self.xp
        m, x = own.n_blocks, problem.x0
        z = problem.y0.reshape(m, -1)
        p = z.shape[1]
        sigma = own.sigma or _SIGMA * scales(problem, x, problem.y0).sigma
        self.k, self.plan = 0, {"sigma": sigma}
        self.s = s = SimpleNamespace(
            x=x, x_old=x, D=None, mean=None, averaged=0, z=Rows.start(xp, z, p),
            last=xp.zeros(0, np.int64), seen=xp.zeros(m, bool),
        )  # fmt: skip
        if own.variant == "v1":
            check_memory(
                2 * m * p * p * z.itemsize,
                "`variant`='v1'",
                "Use variant='v2', which needs products alone",
                be=problem.io.be,
            )
            s.v = Rows.start(xp, z[:, :0], p, p)
        elif own.variant == "v2":
            s.v = Rows.start(xp, xp.zeros_like(z), p)
        else:
            s.y = Rows.start(xp, z, p)
        self._rescale()
        steep = self._steepness(z)
        # Beyond this, (1 - alpha) s + (alpha + gamma) new - gamma old diverges on a quadratic.
        limit = 2 * (2 - own.alpha) / (own.alpha + 2 * own.gamma)
        s.lengths = min(1.0, _LOWER * limit) / steep if own.lr is None else own.lr + 0 * steep
        self.plan["upper"], self.plan["most"] = own.lr_upper, math.inf
        if own.lr_upper is None:
            self._find_upper_length(min(1.0, float((s.lengths * steep).mean())))

    def _rescale(self):
        """Ask for the caller's diagonal at the present point."""
        D = self.lower.diagonal(self.s.x)
        self.s.P = self.xp.ones((self.own.n_blocks, 1), self.s.x.dtype) if D is None else D

    def _steepness(self, z):
        """Return the largest scaled curvature of each block's lower level, on one batch."""
        own, xp, x = self.own, self.xp, self.s.x
        every = xp.arange(own.n_blocks)
        rng = np.random.default_rng([*self.key, 0, 0])
        low, up = (xp.asarray(self.draws.samples(rng, n)) for n in self.draws.sizes)

        def slopes(Y):
            (g,) = self.lower.looks([(x, Y)], every, low)
            (f,) = self.upper.looks([(x, Y)], every, up)
            return g.gy + self.plan["sigma"] * f.gy

        start, unit = slopes(z), 1e-3 * xp.maximum(1.0, _norms(xp, z))
        v = xp.cos(xp.arange(z.size, dtype=z.dtype)).reshape(z.shape)
        steep = xp.zeros((own.n_blocks, 1), z.dtype)
        for _ in range(8):
            v = v * (unit / xp.maximum(_norms(xp, v), 1e-30))
            v = (slopes(z + v) - start) / self.s.P
            steep = xp.maximum(steep, _norms(xp, v) / unit)
        return xp.where(steep > 0, steep, 1.0)

    def _find_upper_length(self, pace):
        """Let the lower level settle; upper steps then begin with a length that it can follow."""
        self.plan["upper"] = 0.0
        size, warm = 0.0, round(_WARM_UP / max(pace, 0.1) * self.period)
        for k in range(warm):
            self._step(k)
            if k >= warm // 2:
                size += float(abs(self.s.D).max()) / (warm - warm // 2)
        most = _FIRST * pace / self.period * max(1.0, float(abs(self.s.x).max()))
        usable = size > 0 and math.isfinite(size)
        self.plan["upper"], self.plan["most"] = most / size if usable else 1.0, most

    def length(self, d):
        """Return the lower step lengths of a step's blocks, entry by entry."""
        return self.s.lengths[d.blocks] / self.s.P[d.blocks]

    def _step(self, k):
        """Take one step; return the mean of the upper values that it saw."""
        s, own = self.s, self.own
        if k % self.period == 0:
            self._rescale()
        d = self.draws(k)
        values, G, G_old = STEPS[own.variant](self, d, ~s.seen[d.blocks])
        s.z.move(d, s.last, s.z.now[d.blocks] - self.length(d) * s.z.estimate[d.blocks])
        s.D = G if s.D is None else (1 - own.beta) * (s.D - G_old) + G
        fall = (1 + k / (_PLATEAU * self.K)) ** -0.5
        move = self.plan["upper"] * s.D
        if self.plan["most"] < math.inf:
            move = move / self.xp.maximum(1.0, abs(move).max() / self.plan["most"])
        s.x, s.x_old = self.problem.X.project(s.x - fall * move), s.x
        s.last, s.seen[d.blocks] = d.blocks, True
        return values.mean()

    def advance(self, late):
        """Step until the next report; return the mean upper value and the number of steps."""
        begun, total = self.k, 0.0
        until = min(self.K, (begun // self.stride + 1) * self.stride)
        while self.k < until:
            total = total + self._step(self.k)
            self.k += 1
            if self.k > self.K - round(self.own.averaging * self.K):
                self._average()
            if late():
                break
        return float(total) / (self.k - begun), self.k - begun

    def _average(self):
        s = self.s
        s.averaged += 1
        s.mean = s.x if s.mean is None else s.mean + (s.x - s.mean) / s.averaged

    @property
    def finite(self):
        """Whether all that a step changes is finite."""
        s = self.s
        return bool(self.xp.isfinite(s.x).all() & self.xp.isfinite(s.z.now).all())

    def state(self):
        """Return all that the next steps depend on."""
        s = {name: v.parts() if isinstance(v, Rows) else v for name, v in vars(self.s).items()}
        s["seen"] = self.s.seen.copy()
        return {"k": self.k, "key": self.key, "plan": dict(self.plan), "s": s}

    def _go_on(self, resumed):
        self.k, self.plan = resumed["k"], resumed["plan"]
        parts = resumed["s"].items()
        self.s = SimpleNamespace(
            **{name: Rows(self.xp, **v) if isinstance(v, dict) else v for name, v in parts}
        )


def _norms(xp, rows):
    return xp.sqrt((rows * rows).sum(axis=1, keepdims=True))
