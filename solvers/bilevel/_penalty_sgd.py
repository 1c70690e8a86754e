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
from ._descent import residual
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
# Parts of the run that warm up the lower level, and that try one length of the upper steps.
_WARM_UP, _TRIAL = 0.02, 0.01
# Tried lengths, as parts of x that the first steps move it by.
_LENGTHS = (0.002, 0.02, 0.2)


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
    """Minimise the value of a bilevel problem over samples, by steps on small batches."""
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
    loop = Loop(problem, own, watch.resumed, options.rng)
    run.maxiter = loop.K
    if loop.k >= loop.K:
        run.end(Status.MAXITER)
    for _ in run:
        loss, taken = loop.advance(lambda: run.late)
        s = loop.s
        finite = problem.io.xp.isfinite
        if not (
            math.isfinite(loss) and bool((finite(s.x) & finite(s.D)).all() & finite(s.y).all())
        ):
            run.record(math.nan, iterations=taken)
            break
        watch.answer(*loop.answer)
        stat = residual(s.x, s.D, problem.X, 1.0) / max(1.0, float(abs(s.D).max()))
        watch.record(stat, iterations=taken, fun=loss, sigma=loop.rate(loop.k - 1).sigma)
        watch.keep(loop.state())
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

    def __init__(self, problem, own, resumed, rng):
        self.problem, self.own = problem, own
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
            self.k, self.plan = resumed["k"], resumed["plan"]
            self.s = SimpleNamespace(**resumed["s"])

    def _begin(self):
        """Find what the caller left open: penalty, and lengths of lower and upper steps."""
        problem, own, xp = self.problem, self.own, self.problem.io.xp
        x, y = problem.x0, problem.y0
        sigma = own.sigma or 0.01 * scales(problem, x, y).sigma
        self.k, self.plan = 0, {"sigma": sigma, "lower": own.lr, "upper": own.lr_upper}
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
            steep = self._steepness(sigma)
            self.plan["lower"] = (
                1 / steep if problem.lower.diagonal(x) is None else min(0.2, 1 / steep)
            )
        if own.lr_upper is None:
            self.plan["upper"] = self._tried_length()

    def _scaling(self, x):
        """Return the caller's diagonal, or 1."""
        diagonal = self.problem.lower.diagonal(x)
        return 1.0 if diagonal is None else diagonal

    def _steepness(self, sigma):
        """Return the largest curvature of the scaled lower level on a few batches."""
        s, xp = self.s, self.problem.io.xp
        steepest = 0.0
        for b in range(3):
            draw = self._draw(b)
            start = self._penalised(s.x, s.y, draw, sigma)
            v = xp.cos(xp.arange(len(s.y), dtype=s.y.dtype))
            for _ in range(8):
                v = v * (1e-3 * max(1.0, _norm(s.y)) / max(_norm(v), 1e-300))
                moved = (self._penalised(s.x, s.y + v, draw, sigma) - start) / s.P
                steepest, v = max(steepest, _norm(moved) / _norm(v)), moved
                if not _norm(v) > 0:
                    break
        return steepest if steepest > 0 and math.isfinite(steepest) else 1.0

    def _penalised(self, x, y, draw, sigma):
        f = self.problem.upper.look(x, y, self._sample(draw, "upper"), with_x=False)
        g = self.problem.lower.look(x, y, self._sample(draw, "lower"), with_x=False)
        return sigma * f.gy + g.gy

    def _sample(self, draw, name):
        """Return sample numbers of a draw, which for "saba" are numbers of blocks."""
        numbers = getattr(draw, name)
        return (
            getattr(self.s, f"{name}_blocks")[numbers[0]] if self.own.method == "saba" else numbers
        )

    def _tried_length(self):
        """Warm up the lower level, then try lengths of the upper steps and return the best."""
        plan = self.plan
        plan["upper"] = 0.0
        self._rehearse(max(20, round(_WARM_UP * self.K)))
        size = float(abs(self.s.D).max())
        unit = max(1.0, float(abs(self.s.x).max()))
        if not self.own.normalize:
            unit = unit / size if size > 0 and math.isfinite(size) else 1.0
        warm, best = _copied(self.s), (math.inf, 0.0)
        for length in _LENGTHS:
            plan["upper"] = length * unit
            self.s = _copied(warm)
            loss = self._rehearse(max(10, round(_TRIAL * self.K)))
            best = min(best, (loss if math.isfinite(loss) else math.inf, plan["upper"]))
        self.s = warm
        return best[1]

    def _rehearse(self, count):
        """Take steps that do not count; return the sum of their losses."""
        total, first = 0.0, self.first_averaged
        self.first_averaged = self.K + count
        while self.k < count:
            total += self._walk(count)
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
        )

    def _draw(self, k):
        return steps.Draw(k, *self._batches)

    def _one(self, k):
        return self._step(self.problem, self.s, self.rate(k), self._draw(k), self.own)

    def advance(self, late):
        """Step until the next report; return the mean loss and the number of steps."""
        begun, total = self.k, 0.0
        until = min(self.K, (begun // self.stride + 1) * self.stride)
        while self.k < until:
            total += self._walk(until)
            if not math.isfinite(total) or late():
                break
        return total / (self.k - begun), self.k - begun

    def _walk(self, until):
        """Take the steps that one call can take; return the sum of their losses."""
        k, epoch = self.k, self.per_epoch
        if k % epoch == 0:
            self.s.P = self._scaling(self.s.x)
        if self._fused is None:
            self.k += 1
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
    y = env.minimiser(x, one.y, env.tolerance(half.sigma), precondition=False)
    e = errors(point)
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
