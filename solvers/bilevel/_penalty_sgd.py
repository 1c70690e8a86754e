"""Stochastic penalty methods: batches of both levels, one loop."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from .._core.result import Status
from .._core.validation import check_choice, check_count, check_flag, check_positive, describe
from . import _stochastic as steps
from ._checkpoint import carried
from ._descent import residual, stationarity
from ._driver import solve
from ._envelope import Envelope, errors, scales
from ._fused import Fused

# For every method its step, and how fast lower and upper step lengths fall ([K23], with noise in
# both levels); the penalty falls like their ratio.
_METHODS = {
    "shared": (steps.shared, 1 / 2, 1 / 2),
    "single-loop": (steps.single_loop, 1 / 2, 1 / 2),
    "f2sa": (steps.shared, 4 / 7, 5 / 7),
    "f3sa": (steps.single_loop, 2 / 5, 3 / 5),
    "soba": (steps.soba, 1 / 2, 1 / 2),
    "saba": (steps.saba, 0.0, 0.0),
    "stocbio": (steps.stocbio, 1 / 2, 1 / 2),
}
METHODS = tuple(_METHODS)
_WITH_PRODUCTS = ("soba", "saba", "stocbio")
_STORM = ("single-loop", "f3sa")
# Step lengths fall after this part of the run.
_PLATEAU = 0.2
# Parts of the run that warm up the lower level, and that try one length of the upper steps; the
# most steps of either.
_WARM_UP, _TRIAL, _MOST = 0.02, 0.01, 1000
# Lower steps in the caller's scaling are no longer than this, and no longer than 1 / curvature on
# some batches; batches looked at first, and then once an epoch or so.
_LONGEST, _BATCHES_MEASURED, _STEPS_MEASURED = 0.2, 3, 50
# A mean loss this many times the first is a sign of steps that are too long; how often to halve.
_LOST, _HALVINGS = 100.0, 10
# First length to try, as the part of x that a step moves it by; the factor to the next, and how
# many to try at most.
_FIRST, _FACTOR, _TRIALS = 0.02, 3.0, 4
# Part of x that a step may move an entry of it by: hyper-gradients of batches have outliers.
_REACH = 0.1
# Part of x that noise may move an entry of it by in the whole run, and steps that measure it.
_WANDER, _WATCHED = 0.6, 20
# Growth of the hyper-gradient's largest entry that a trial may end with, and of the loss from one
# trial to the next: less is noise.
_CALM, _WORSE = 2.0, 0.01


class Own(NamedTuple):
    """Options of `penalty_sgd` alone."""

    method: str
    batch: int
    epochs: float
    sigma: float | None
    lr: float | None
    lr_upper: float | None
    momentum: float
    normalize: bool
    prox: bool
    averaging: float
    callback_every: float


def penalty_sgd(
    upper, lower=None, x0=None, y0=None, *, X=None, Y=None, method="shared", batch=64, epochs=50,
    sigma=None, lr=None, lr_upper=None, momentum=0.9, normalize=False, prox=False, averaging=0.25,
    tol=1e-2, time_limit=None, callback=None, callback_every=1.0, progress=False, n_threads=None,
    rng=None, checkpoint=None, checkpoint_every=60, resume=None, history=True, how="auto",
):  # fmt: skip
    r"""Minimise the value of a bilevel problem over samples, by steps on small batches.

    Both levels are means over samples. With minimisers z of g and y of
    :math:`\sigma f + g` that move along with x,

    .. math:: D \leftarrow m D + (1 - m) \left( f_x(x, y) +
              \frac{g_x(x, y) - g_x(x, z)}{\sigma} \right), \qquad
              x \leftarrow \Pi_X (x - \beta D).

    One batch of the lower level serves y and z: driven by the same noise, they leave a difference
    whose noise does not grow as :math:`\sigma` falls.

    Parameters
    ----------
    upper, lower : Oracle
        The two levels, with `n_samples`. `upper` may be a problem of `bilevel.problems`, without
        the other three; penalties of linear models, with a box for X, run in one kernel.
    x0, y0 : array or nested arrays
        Start.
    X, Y : set or callable, optional
        Where x and y may be: sets of this module, or projections.
    method : str
        "shared" is the above. "single-loop" keeps recursive-momentum (STORM) estimates of all
        gradients [1]_. "f2sa" and "f3sa" are these two with step lengths and a penalty that
        fall like powers of the step's number, and without `momentum` [2]_. "soba" and "saba" [3]_
        follow the solution of ``g_yy v = f_y``, the latter with tables of the last gradient
        of every batch; "stocbio" [4]_ solves it anew in every step; the three need `hvp_yy` and
        `hvp_xy`.
    batch : int
        Samples of either level in a step.
    epochs : float
        Passes over the samples of the lower level.
    sigma : float, optional
        The penalty; by default a hundredth of what makes both levels weigh the same.
    lr : float, optional
        Length of the first steps in y and z; by default one over the largest curvature on some
        batches, measured again now and then. With `precond_y`, in its scaling and at most 0.2.
    lr_upper : float, optional
        Length of the first steps in x; by default by trials on a few per cent of the steps.
    momentum : float
        Part of D that a step keeps, for "shared".
    normalize : bool
        Divide D by its length, for upper levels of exponential growth.
    prox : bool
        Move y and z only half-way to where their steps lead, as in [1]_.
    averaging : float
        Part of the run, at its end, whose mean is the answer.
    tol : float
        The run counts as converged if the certificate's value is at most this in the end.
    time_limit : float, optional
        Seconds.
    callback : callable, optional
        ``callback(intermediate_result)`` once in `callback_every` epochs; a true return value or
        StopIteration ends the run.
    callback_every : float
        Epochs between two calls, and between two rows of the history.
    progress : bool, default False
        Show a progress bar.
    n_threads : int, optional
        Threads of kernels and BLAS.
    rng : int or numpy.random.Generator, optional
        Chooses the batches.
    checkpoint : str, path or callable, optional
        A file for what a later call needs to go on, or a function of it.
    checkpoint_every : float
        Seconds between two of them; there is one at the end in any case.
    resume : str, path or state, optional
        A checkpoint, or the `state` of a result, of a call with the same data and options; the
        run goes on as if it had never been interrupted.
    history : bool or int, default True
        Keep the history of every report, or of every so many.
    how : {"auto", "dense", "cg", "kkt", "penalty"}, default "auto"
        How the certificate is computed, see `certify`.

    Returns
    -------
    BilevelResult
        With x averaged over the end of the run, and y the lower level's solution there, on all
        samples.

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
    penalty : With all samples in every step: more accurate.

    Notes
    -----
    Lengths of steps are constant for a fifth of the run, about, and then fall like one over the
    square root of the step's number. Batches are pieces of random permutations of the samples.

    References
    ----------
    .. [1] J. Kwon, D. Kwon, S. Wright and R. Nowak. On penalty methods for nonconvex bilevel
       optimization and first-order stochastic approximation. ICLR 2024.
    .. [2] J. Kwon, D. Kwon, S. Wright and R. Nowak. A fully first-order method for stochastic
       bilevel optimization. ICML 2023.
    .. [3] M. Dagréou, P. Ablin, S. Vaiter and T. Moreau. A framework for bilevel optimization
       that enables stochastic and global variance reduction algorithms. NeurIPS 2022.
    .. [4] K. Ji, J. Yang and Y. Liang. Bilevel optimization: convergence analysis and enhanced
       design. ICML 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((400, 3))
    >>> t = A[:, 0] + 0.5 * rng.standard_normal(400)
    >>> problem = bilevel.problems.RidgeHPO(A[:200], t[:200], A[200:], t[200:])
    >>> res = bilevel.penalty_sgd(problem, batch=20, rng=0)
    >>> res.success, res.nit
    (True, 500)
    """
    check_choice(method, "method", METHODS)
    own = Own(
        method,
        check_count(batch, "batch", minimum=1),
        check_positive(epochs, "epochs"),
        check_positive(sigma, "sigma", allow_none=True),
        check_positive(lr, "lr", allow_none=True),
        check_positive(lr_upper, "lr_upper", allow_none=True),
        check_part(momentum, "momentum"),
        check_flag(normalize, "normalize"),
        check_flag(prox, "prox"),
        check_part(averaging, "averaging"),
        check_positive(callback_every, "callback_every"),
    )
    return solve(
        "penalty_sgd", upper, lower, x0, y0, descend, X=X, Y=Y, tol=tol, time_limit=time_limit,
        callback=callback, progress=progress, n_threads=n_threads, rng=rng, history=history,
        checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume, how=how, own=own,
    )  # fmt: skip


def check_part(value, name):
    part = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if part is None:
        raise TypeError(f"`{name}` came as {describe(value)}; expected a number in [0, 1)")
    if not 0 <= part < 1:
        raise ValueError(f"`{name}` came as {value!r}; expected a number in [0, 1)")
    return part


def descend(problem, watch, options):
    """Take the steps of all epochs, then solve the lower level at the average."""
    own, run = options.own, watch.run
    _check_levels(problem, own)
    loop = Loop(problem, own, watch.resumed, options.rng, lambda: run.late)
    run.maxiter = loop.K
    if watch.resumed is not None:
        watch.answer(*loop.answer)
        watch.keep(loop.state())
    if loop.k >= loop.K:
        run.end(Status.MAXITER)
    for _ in run:
        loss, taken = loop.advance()
        s = loop.s
        finite = problem.io.xp.isfinite
        if not (
            math.isfinite(loss) and bool((finite(s.x) & finite(s.D)).all() & finite(s.y).all())
        ):
            run.record(math.nan, iterations=taken)
            break
        watch.answer(*loop.answer)
        stat = stationarity(s.x, s.D, problem.X)
        watch.record(stat, iterations=taken, fun=loss, sigma=loop.rate(loop.k - 1).sigma)
        watch.keep(loop.state())
    if run.status is Status.MAXITER:
        run.end(Status.MAXITER, f"Here `epochs` = {own.epochs:g} says how many.")
    report(problem, watch, options, loop.plan["sigma"])


def _check_levels(problem, own):
    for level in (problem.upper, problem.lower):
        n = level.oracle.n_samples
        if n is None:
            raise ValueError(
                f"`n_samples` of `{level.name}` is None; expected an Oracle over samples: for "
                "functions of all data at once use bilevel.penalty"
            )
        if own.batch > n:
            raise ValueError(
                f"`batch` came as {own.batch}; expected at most the {n} samples of `{level.name}`"
            )
    oracle = problem.lower.oracle
    if own.method in _WITH_PRODUCTS and (oracle.hvp_yy is None or oracle.hvp_xy is None):
        raise TypeError(
            f"`method`={own.method!r} needs lower.hvp_yy and lower.hvp_xy; use method='shared'"
        )


class Loop:
    """The steps of one run: where it is, its batches and step lengths.

    Attributes
    ----------
    k, K : int
        Steps so far, and of the whole run.
    s : namespace
        All that a step changes.
    """

    def __init__(self, problem, own, resumed, rng, late):
        self.problem, self.own, self.late = problem, own, late
        self._step, self._fall_lower, self._fall_upper = _METHODS[own.method]
        self.per_epoch = -(-problem.lower.oracle.n_samples // own.batch)
        self.K = max(1, round(own.epochs * self.per_epoch))
        self.stride = max(1, round(own.callback_every * self.per_epoch))
        self.first_averaged = self.K - round(own.averaging * self.K)
        if resumed is None:
            # The generator moves on by these numbers, however long the run.
            self.key = rng.integers(2**32, size=4).tolist()
        else:
            self.key = resumed["key"]
        sizes = {name: getattr(problem, name).oracle.n_samples for name in ("lower", "upper")}
        self._batches = [
            steps.Batches(-(-n // own.batch) if own.method == "saba" else n,
                          1 if own.method == "saba" else own.batch, [*self.key, j])
            for j, n in enumerate(sizes.values())
        ]  # fmt: skip
        self._fused = Fused(problem, own) if Fused.fits(problem, own.method) else None
        if resumed is None:
            self._begin()
        else:
            self._restore(resumed)

    def _begin(self):
        """Find what the caller left open: penalty, and lengths of lower and upper steps."""
        problem, own, xp = self.problem, self.own, self.problem.io.xp
        x, y = problem.x0, problem.y0
        sigma = own.sigma or 0.01 * scales(problem, x, y).sigma
        self.k, self.plan = 0, {
            "sigma": sigma, "lower": own.lr or 1.0, "upper": own.lr_upper, "patience": 1.0,
            "reach": math.inf if own.lr_upper else _REACH * max(1.0, float(abs(x).max())),
            "loss": abs(problem.upper.look(x, y).value),
        }  # fmt: skip
        self.s = s = SimpleNamespace(
            x=x, y=y, z=y, D=xp.zeros_like(x), P=self._scaling(x), means=None, averaged=0
        )
        if own.method in _STORM:
            s.before = s.G = None
        if own.method in _WITH_PRODUCTS:
            s.v = xp.zeros_like(y)
        if own.method == "saba":
            steps.saba_tables(problem, s, own.batch, self.key)
        if own.lr is None:
            self._measure(_BATCHES_MEASURED)
        if own.lr_upper is None:
            self.plan["upper"] = self._tried_length()

    def _scaling(self, x):
        """Return the caller's diagonal, or 1; a prox knows no diagonals."""
        lower = self.problem.lower
        diagonal = None if lower.prox else lower.diagonal(x)
        return 1.0 if diagonal is None else diagonal

    def _measure(self, count):
        """Set the length of lower steps by the largest curvature on some of the next batches."""
        s, xp = self.s, self.problem.io.xp
        s.P = self._scaling(s.x)
        steepest = 0.0
        for k in range(self.k, self.k + count):
            start = self._penalised(s.x, s.z, k)
            v = xp.cos(xp.arange(len(s.z), dtype=s.z.dtype))
            for _ in range(8):
                v = v * (1e-3 * max(1.0, _norm(s.z)) / max(_norm(v), 1e-300))
                moved = (self._penalised(s.x, s.z + v, k) - start) / s.P
                steepest, v = max(steepest, _norm(moved) / _norm(v)), moved
                if not _norm(v) > 0:
                    break
        if steepest > 0 and math.isfinite(steepest):
            longest = math.inf if isinstance(s.P, float) else _LONGEST
            self.plan["lower"] = min(longest, self.plan["patience"] / steepest)

    def _penalised(self, x, y, k):
        """Return the gradient of ``sigma f + g`` in y on the batches of step k."""
        low, up = self._draw(k).lower, self._draw(k).upper
        if self.own.method == "saba":
            low, up = self.s.lower_blocks[low[0]], self.s.upper_blocks[up[0]]
        f = self.problem.upper.look(x, y, up, with_x=False)
        g = self.problem.lower.look(x, y, low, with_x=False)
        return self.plan["sigma"] * f.gy + g.gy

    def _tried_length(self):
        """Warm up the lower level, then try lengths of the upper steps and return the best."""
        plan = self.plan
        plan["upper"] = 0.0
        cold = _copied(self.s)
        for _ in range(_HALVINGS):
            noise, largest = self._warm_up()
            if math.isfinite(noise + largest) or self.own.lr is not None:
                break
            self.s = _copied(cold)
            self._halve("lower")
        warm = _copied(self.s)
        extent = max(1.0, float(abs(self.s.x).max()))
        unit = extent if self.own.normalize else extent / largest if largest > 0 else 1.0

        def loss(length):
            plan["upper"], self.s = length, _copied(warm)
            loss = self._rehearse(min(max(10, round(_TRIAL * self.K)), _MOST))
            # Steps that are too long show in hyper-gradients sooner than in losses.
            calm = float(abs(self.s.D).max()) <= _CALM * largest
            return loss if calm and math.isfinite(loss) else math.inf

        length = _FIRST * unit
        now = loss(length)
        for _ in range(_TRIALS):
            if math.isinf(now):
                length = length / _FACTOR
                now = loss(length)
                continue
            other = loss(_FACTOR * length)
            if other > now + _WORSE * abs(now):
                break
            length, now = _FACTOR * length, other
        self.s = warm
        # Noise makes x wander; where it wanders far, a trial is too short to tell.
        falls = (1 + np.arange(self.K) / (_PLATEAU * self.K)) ** -self._fall_upper
        wander = noise * math.sqrt(float(falls @ falls))
        return min(length, _WANDER * extent / wander) if wander > 0 else length

    def _warm_up(self):
        """Step with x as it is; return how far hyper-gradients of batches are off, and how large.

        Both are the largest of all entries.
        """
        count = min(max(2 * _WATCHED, round(_WARM_UP * self.K)), _MOST)
        self._rehearse(count - _WATCHED)
        squares, largest, forget = 0.0, 0.0, self.rate(count).forget
        for k in range(count - _WATCHED, count):
            before = self.s.D
            loss = self._rehearse(k + 1, k)
            change = self.s.D - before
            squares = squares + change * change / _WATCHED
            largest = max(largest, float(abs(self.s.D).max()))
        # An average that takes in a part `forget` of each gradient changes by so much less.
        noise = math.sqrt(float(squares.max()) * (1 - forget / 2)) / forget
        if not self._sane(loss):
            return math.inf, math.inf
        if self.own.normalize:
            noise = noise / max(_norm(self.s.D), 1e-300)
        return noise, largest

    def _rehearse(self, until, begin=0):
        """Take steps that do not count; return the sum of their losses."""
        total, first = 0.0, self.first_averaged
        self.k, self.first_averaged = begin, self.K + until
        while self.k < until and not self.late():
            total += self._walk(until)
        self.k, self.first_averaged = 0, first
        return total

    def rate(self, k):
        """Return the step lengths of step k."""
        late = 1 + k / (_PLATEAU * self.K)
        fall_lower, fall_upper = late**-self._fall_lower, late**-self._fall_upper
        forget = {"shared": 1 - self.own.momentum}.get(self.own.method, 1.0)
        if self.own.method in _STORM:
            forget = max(steps.FORGET, (1 + k) ** (-2 / 3))
        return steps.Rate(
            fall_lower * self.plan["lower"],
            fall_upper * self.plan["upper"],
            fall_upper / fall_lower * self.plan["sigma"],
            forget,
            self.plan["reach"],
        )

    def _draw(self, k):
        return steps.Draw(k, *self._batches)

    def advance(self):
        """Step until the next report, with shorter steps if that goes astray.

        Returns the mean loss and the number of steps.
        """
        begun = self.state()
        for _ in range(_HALVINGS):
            loss, count = self._reach()
            if self._sane(loss) or (self.own.lr and self.own.lr_upper):
                break
            self._restore(begun)
            if self.own.lr is None:
                self._halve("lower")
            if self.own.lr_upper is None:
                self._halve("upper")
            begun = self.state()
        return loss, count

    def _halve(self, name):
        self.plan[name] *= 0.5
        if name == "lower":
            self.plan["patience"] *= 0.5

    def _sane(self, loss):
        s, finite = self.s, self.problem.io.xp.isfinite
        return abs(loss) <= _LOST * max(self.plan["loss"], 1e-300) and bool(
            finite(s.x).all() & finite(s.y).all() & finite(s.D).all()
        )

    def _reach(self):
        begun, total = self.k, 0.0
        until = min(self.K, (begun // self.stride + 1) * self.stride)
        while self.k < until:
            total += self._walk(until)
            if not math.isfinite(total) or self.late():
                break
        return total / (self.k - begun), self.k - begun

    def _walk(self, until):
        """Take the steps that one call can take; return the sum of their losses."""
        k, epoch = self.k, self.per_epoch
        if k and self.own.lr is None and k % (epoch * -(-_STEPS_MEASURED // epoch)) == 0:
            self._measure(1)
        if self._fused is None:
            self.k += 1
            self.s.P = self._scaling(self.s.x)
            loss = self._step(self.problem, self.s, self.rate(k), self._draw(k), self.own)
            if self.k > self.first_averaged:
                self._average()
            return loss
        steps = range(k, min(until, (k // epoch + 1) * epoch))
        self.k = steps[-1] + 1
        low, up = (np.array([b(k) for k in steps]) for b in self._batches)
        counts = [max(0, k + 1 - self.first_averaged) for k in steps]
        self.s.averaged = counts[-1]
        return self._fused.run(
            self.s, low, up, [self.rate(k) for k in steps], [1 / c if c else 0.0 for c in counts]
        )

    def _average(self):
        s = self.s
        s.averaged += 1
        now = (s.x, s.y, s.z)
        if s.means is None:
            s.means = now
        else:
            s.means = tuple(m + (v - m) / s.averaged for m, v in zip(s.means, now, strict=True))

    @property
    def answer(self):
        """Return x and y, averaged over the end of the run."""
        s = self.s
        return (s.x, s.z) if s.means is None else (s.means[0], s.means[2])

    def _restore(self, state):
        self.k, self.plan = state["k"], dict(state["plan"])
        self.s = SimpleNamespace(**state["s"])

    def state(self):
        """Return all that the next steps depend on."""
        return {"k": self.k, "key": self.key, "plan": dict(self.plan), "s": vars(_copied(self.s))}


def _copied(s):
    """Return a namespace that later steps leave alone; arrays are never changed in place."""
    return SimpleNamespace(**carried(vars(s), lambda array: array))


def report(problem, watch, options, sigma):
    """Solve the lower level at the answer, on all samples, and look at psi there."""
    x = watch.x
    env = Envelope(replace(problem, x0=x, y0=watch.y), late=lambda: watch.run.late, maxiter=100)
    env.accuracy = options.tol
    point = env.at(x, (sigma, sigma / 2, sigma / 4))
    one, half, _ = point.sides
    y, e = env.settle(point), errors(point)
    stat = residual(x, e.extrapolated, problem.X, 1.0)
    watch.answer(
        x, y, y_sigma=one.y, z=point.z, psi_lower=half.value, jac=e.extrapolated,
        jac_err=e.second, optimality=stat / max(1.0, float(abs(e.extrapolated).max())),
        sigma=sigma, g_z=point.g.value, lower_residual=(
            residual(y, problem.lower.look(x, y).gy, problem.Y, 1.0 / env.scales.lower),
            point.residual,
        ),
    )  # fmt: skip


def _norm(v):
    return math.sqrt(float(v @ v))
