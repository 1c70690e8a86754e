"""Alternating minimisation for losses that forgive outliers: majorise, minimise, repeat.

Each half sweep minimises a weighted sum of squares that lies above the loss and touches it at the
present residuals. The scale of the loss, unless given, falls with the residuals until they show
the noise, and is frozen then: from there on the objective never rises.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._core.result import Status
from . import _losses
from ._als import choose_inner, half_sweep, relative_gradient
from ._mixing import Mixing
from ._start import start

# The standard deviation of normal noise, over the median of its size.
_DEVIATION = 1.4826
# The noise has been found once the median residual keeps this much of what it was so many sweeps
# before; not in the first sweeps, where a poor start may look like noise.
_KEPT, _BACK, _FIRST = 0.8, 5, 15
# Where scales end if there is no noise, relative to typical values: just above rounding.
_LEAST = 1e-12
# How fast the scale of "l1" falls at most, and where it ends, relative to the noise: with less the
# weights differ so much that sweeps hardly move (at 1e-3, by 1 % of the distance).
_COOLING, _SHARP = 0.7, 0.1
# Growth of the largest singular value that tells a run without bound.
_BLOWN_UP = 1e3
# Accuracy of the Huber fit from which a redescending loss starts, and the least scale of the
# latter. Its fit counts if the Huber loss grows by less than this factor: at a minimiser it cannot
# but grow, and where inliers have been taken for outliers it grows by much more.
_ROUGH, _LEAST_REDESCENDING, _GROWTH = 1e-4, 1e-6, 1.1


def robust(problem, rank, watch, options):
    """Minimise a robust loss; return `Factors`, and leave its scale in ``watch.problem``."""
    state, size = start(problem, rank, options), _typical_size(problem)
    if problem.loss in _losses.REDESCENDING:
        state = _redescend(problem, state, watch, options, size)
    else:
        watch.begin(problem.loss)
        state = _descend(problem, state, watch, options, Scale(problem.loss, problem.delta, size))
    x = problem.balance(*state)
    # A ridge that leaves nothing of a column takes for ever to make it zero.
    least = np.finfo(problem.dtype).eps * problem.norm
    return x._replace(s=problem.xp.where(x.s > least, x.s, 0.0).astype(problem.dtype))


def _redescend(problem, state, watch, options, size):
    """Minimise a loss with many local minima, from a fit by Huber's."""
    ratio = _losses.EFFICIENT[problem.loss] / _losses.EFFICIENT["huber"]
    delta, convex = problem.delta, replace(problem, loss="huber")
    scale = Scale("huber", delta and delta / ratio, size)
    if options.x0 is None or delta is None:
        watch.begin("huber")
        state = _descend(convex, state, watch, options, scale, enough=_ROUGH)
    delta = delta or max(ratio * scale.delta, _LEAST_REDESCENDING * size)
    watch.problem = problem = replace(problem, delta=delta)
    if watch.ended is not None:
        return state
    watch.begin(problem.loss)
    convex = replace(convex, delta=scale.delta)
    kept = Kept(_short_of_inliers(problem, state), scale.delta)
    scale = Scale(problem.loss, delta, size)
    after = _descend(problem, state, watch, options, scale, kept=kept)
    if _objective(convex, after) > _GROWTH * _objective(convex, state):
        watch.run.end(Status.STALLED, "The redescending loss lost inliers: this is the Huber fit.")
        return state
    if watch.ended is None and problem.be.host(kept.where.any()):
        watch.run.end(Status.STALLED, "Rows or columns with few inliers keep their Huber weights.")
    return after


def _descend(problem, state, watch, options, scale, *, enough=0.0, kept=None):
    """Sweep until the watch, or the gradient, says enough; return the state."""
    point, x = state, problem.balance(*state)
    r = problem.residual(*state)
    median, change = _median(problem, r), 1.0
    watch.problem = problem = replace(problem, delta=scale.update(median))
    grad = np.nan if enough else _gradient(problem, x, r, scale)
    if watch.done(_exactness(problem, x, median, scale), grad):
        return state
    mixing, last, limit = Mixing(problem.be), np.inf, np.inf
    rounding = 4.0 * float(np.finfo(problem.dtype).eps)
    for _ in watch.run:
        inner = choose_inner(options, x.s.size, problem.dtype, change, 1.0)
        swept, steps = _sweep(problem, point, kept, inner)
        there = problem.start_of(swept)
        before, r = r, problem.residual(*there)
        fun = _objective(problem, there, r)
        if mixing.mixed and not fun <= last * (1.0 + rounding):
            point, r = state, before
            mixing.reject()
            continue
        x, state, last = swept, there, fun
        median, change = _median(problem, r), _rms(problem, r - before)
        grad = _gradient(problem, x, r, scale)
        over = watch.record(
            lambda state=state: state,
            fun=fun,
            relres=problem.relres(problem.misfit(*state[:2], r)),
            # That of a loss on the way to another ends nothing.
            grad=np.nan if enough else grad,
            # Half of the residuals vanish before rows with many outliers are found.
            exact=_exactness(problem, x, max(median, change), scale),
            inner=steps,
            passes=8,
        )
        if over or grad <= enough or change <= rounding:
            break
        if not scale.frozen:
            point, last = state, np.inf
            watch.problem = problem = replace(problem, delta=scale.update(median))
            continue
        top = float(problem.be.host(x.s[0]))
        limit = min(limit, _BLOWN_UP * top)
        if top > limit:
            watch.leave(Status.NUMERICAL, "The factors grew without bound: too few entries.")
            break
        point = _mixed(problem, mixing, point, state)
    return state


def _sweep(problem, state, kept, inner):
    """Minimise over rows and columns in turn, with weights that majorise the loss before each.

    Returns `Factors`, and the steps of the inner solver.
    """
    xp, obs = problem.xp, problem.obs
    A, B, a, b = (F.copy() for F in state)
    w = _majorant(problem, problem.residual(A, B, a, b), kept)
    if not problem.lam:
        B, R = xp.linalg.qr(B)
        A = A @ R.T
    by_row = obs.by_row._replace(weight=w)
    first = half_sweep(problem, by_row, A, B, a, b, problem.row_ridge, inner)
    w = _majorant(problem, problem.residual(A, B, a, b), kept)
    if not problem.lam:
        A, R = xp.linalg.qr(A)
        B = B @ R.T
    by_col = obs.by_col._replace(weight=w[obs.by_col.perm])
    second = half_sweep(problem, by_col, B, A, b, a, problem.col_ridge, inner)
    return problem.balance(A, B, a, b), first.steps + second.steps


def _mixed(problem, mixing, point, state):
    """Return a state ahead of the last one."""
    xp, (A, B, a, b) = problem.xp, state
    # Balanced factors are determined up to a rotation.
    left, _, right = xp.linalg.svd(A.T @ point[0] + B.T @ point[1])
    turn = left @ right
    before, image = (
        xp.concatenate([part.ravel() for part in s]) for s in (point, (A @ turn, B @ turn, a, b))
    )
    ahead, parts, first = mixing(before, image), [], 0
    for part in state:
        parts.append(ahead[first : first + part.size].reshape(part.shape))
        first += part.size
    return tuple(parts)


class Scale:
    """The scale of a loss from sweep to sweep.

    Parameters
    ----------
    loss : {"huber", "l1", "welsch", "tukey"}
    delta : float or None
        A given scale; None to find one for "huber" or "l1".
    size : float
        Of typical values.

    Attributes
    ----------
    delta : float
        The present scale.
    frozen : bool
        Whether it is final.
    size : float
        As given.
    """

    def __init__(self, loss, delta, size):
        self.delta, self.frozen, self.size = delta, delta is not None, size
        self._loss, self._medians, self._end = loss, [], 1.0

    def update(self, median):
        """Return the scale to use in a sweep that begins with this median residual."""
        if self.frozen:
            return self.delta
        self._medians.append(median)
        noise = _DEVIATION * median
        least, past = _LEAST * self.size, self._medians[-1 - _BACK :]
        found = len(self._medians) > _FIRST and median > _KEPT * past[0]
        if self._loss == "huber":
            self.frozen = found
            if not found:
                self.delta = max(_losses.EFFICIENT["huber"] * noise, least)
            return self.delta
        if found:
            self._end = _SHARP
        goal = max(self._end * noise, least)
        self.delta = goal if self.delta is None else max(_COOLING * self.delta, goal)
        self.frozen = self._end < 1.0 and self.delta <= goal
        return self.delta


class Kept(NamedTuple):
    """Entries of rows and columns with few inliers: these keep Huber weights, none are lost.

    Attributes
    ----------
    where : array of bool, shape (N,)
    delta : float
        Scale of the Huber loss.
    """

    where: Any
    delta: float


def _majorant(problem, r, kept):
    """Return the weights of the squares that majorise the loss at `r`."""
    xp, own = problem.xp, problem.obs.by_row.weight
    w = _losses.weight(xp, problem.loss, r, problem.delta)
    if kept is not None:
        w = xp.where(kept.where, _losses.weight(xp, "huber", r, kept.delta), w)
    return w * own if own.size else w


def _short_of_inliers(problem, state):
    """Tell which entries lie in a row or column with outliers, but at most k inliers."""
    xp, obs, k = problem.xp, problem.obs, state[0].shape[1]
    short = xp.zeros(problem.size, bool)
    if problem.lam > 0:
        return short  # a ridge determines all rows
    inside = (xp.abs(problem.residual(*state)) < problem.delta).astype(np.float64)
    for index, side in ((obs.rows, obs.by_row), (obs.cols, obs.by_col)):
        total = xp.diff(side.ptr)
        inliers = xp.bincount(index, weights=inside, minlength=total.size)
        short |= ((inliers <= k) & (inliers < total))[index]
    return short


def _exactness(problem, x, median, scale):
    """Return a median residual as what shows an exact fit: it does if os > 2."""
    (m, n), k = problem.shape, x.s.size
    if problem.size <= 2 * k * (m + n - k):
        return np.inf
    return median / scale.size


def _gradient(problem, x, r, scale):
    """Return the projected gradient of the objective, relative to that of all entries."""
    if not scale.frozen:
        return np.nan
    psi = r * _losses.weight(problem.xp, problem.loss, r, problem.delta)
    w = problem.obs.by_row.weight
    size = _rms(problem, w * psi if w.size else psi) * np.sqrt(problem.size)
    # Where nothing is left to pull, the ridge's pull is relative to the values.
    return relative_gradient(problem, x, psi) * problem.norm / (size or 1.0)


def _objective(problem, state, r=None):
    r = problem.residual(*state) if r is None else r
    return problem.data_term(*state[:2], r) + problem.penalty(*state)


def _typical_size(problem):
    """Return the size of values that are no outliers, as if they were normal."""
    # Where most values are zero that says nothing, and their root mean square has to do: 1.
    return _DEVIATION * _median(problem, problem.obs.by_row.val) or 1.0


def _median(problem, r):
    return float(problem.be.host(problem.xp.median(problem.xp.abs(r))))


def _rms(problem, r):
    return float(np.sqrt(problem.be.host((r * r).mean(dtype=np.float64))))
