"""Alternating minimisation: rows given columns, then columns given rows, until nothing changes.

For given B each row of A is the minimiser of a least-squares problem in k unknowns, and the other
way round. How well these are solved is the choice of an inner solver, see `ROW_SOLVERS`: the
theory of [1]_ allows errors that are a small part of the distance from the solution.

References
----------
.. [1] Y. Gu, Z. Song, J. Yin, L. Zhang. Low rank matrix completion via robust alternating
   minimization in nearly linear time. ICLR 2024. arXiv:2302.11068.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .._core.result import Status
from ._factors import padded
from ._gauge import (
    Slope,
    balancing,
    gradient_unit,
    projected_gradient,
    root_scales,
    slope,
)
from ._large_rows import block_by_block, sketched
from ._mixing import Mixing
from ._start import noise_of, start

# Most steps of an inner solver. "auto" takes conjugate gradients from this rank on, and fewer
# steps until it is near (see benchmarks/crossover_completion.py).
_STEPS, _MANY, _FEW_STEPS, _NEAR = 20, 20, 3, 1e-4
# Changes that are mixed.
_WINDOW = 5
# Singular values below this part of the largest are zero.
_ZERO = 1e-10
# Sweeps before columns may be dropped: new ones begin small, in no particular direction.
_TURNED = 10
# A largest singular value so much above what the entries suggest tells a run without bound; so
# many sweeps without a smaller objective, or gradient, the rounding level.
_BLOWN_UP, _PATIENCE, _BETTER = 30.0, 20, 0.99


class Inner(NamedTuple):
    """How rows are solved: a name in `ROW_SOLVERS`, a relative tolerance and a limit of steps."""

    name: str = "direct"
    eta: float = 0.0
    steps: int = 0
    rng: Any = None


class Half(NamedTuple):
    """What a half sweep tells about the point that it came from.

    Attributes
    ----------
    square : float
        Weighted sum of squared residuals there (over the observed entries).
    grad : array, shape (m, k) or (m, 1 + k)
        Gradient there with respect to A, after that for the biases if there are any.
    left : array, of the same shape
        Gradient at the point reached, as far as the inner solver has left one.
    steps : int
        Steps of the inner solver, in all rows.
    """

    square: float
    grad: Any
    left: Any
    steps: int


def als(problem, rank, watch, options, *, tol=None, maxiter=None):
    """Run alternating minimisation; return `Factors`.

    The best rows for given columns, and the best columns for these, are the image of the columns
    under a map; its fixed point is sought, under a ridge by Anderson's mixing. The stage ends as
    NUMERICAL where the factors grow without bound, and as STALLED at the rounding level.
    """
    xp, (by_row, by_col) = problem.xp, (problem.obs.by_row, problem.obs.by_col)
    A, B, a, b = state = _without_dead_columns(xp, *start(problem, rank, options))
    watch.begin("altmin", tol=options.tol if tol is None else tol, maxiter=maxiter)
    unit, curvature = gradient_unit(problem), _curvature(problem)
    mixing, course = Mixing(problem.be, _window(problem, B)), Course(problem)
    grad, misfit = _judged(problem, unit, *state)
    if options.x0 is not None:
        if watch.done(problem.relres(misfit), grad):
            return _full(problem, state, rank)
        if not watch.run.nit:
            # The caller's start is not the answer, and columns of zeros would stay so.
            A, B = padded(problem.be, A, B, rank, options.rng, noise_of(problem))
    swept = state = A, B, a, b
    for _ in watch.run:
        inner = choose_inner(options, B.shape[1], problem.dtype, problem.relres(misfit), grad)
        # The best rows for these columns.
        if not problem.lam:
            B, A = _orthonormal(problem, B, A)
        first = half_sweep(problem, by_row, A, B, a, b, problem.row_ridge, inner)
        left = _columns(problem, first.left) - problem.row_ridge[:, None] * A
        # The best columns for these rows, where it turns out how good the pair is.
        if problem.lam:
            T, S, found = balancing(problem, A, B)
            A, B, left = A @ T, B @ S, left @ S
        else:
            (A, B, left), found = _orthonormal(problem, A, B, left), None
        image, shift = B.copy(), b.copy()
        second = half_sweep(problem, by_col, image, A, shift, a, problem.col_ridge, inner)
        misfit = problem.misfit_of(second.square, A, B)
        fun = misfit + problem.penalty(A, B, a, b)
        if mixing.mixed and not fun <= course.fun * (1.0 + course.rounding):
            A, B, a, b = swept
            mixing.reject()
            continue
        right = _columns(problem, second.grad) - problem.col_ridge[:, None] * B
        at = Slope(left, right, first.left[:, 0], second.grad[:, 0])
        norm, core, found = projected_gradient(problem, A, B, at, found)
        grad, state = norm / unit, (A, B, a, b)
        if watch.record(
            lambda state=state: state,
            fun=fun,
            relres=problem.relres(misfit),
            grad=grad,
            inner=first.steps + second.steps,
            passes=2 + (first.steps + second.steps) // sum(problem.shape),
        ) or course.ended(watch, fun, grad, found.s):
            break
        swept = A, image, a, shift
        smaller = _shrunk(problem, A, B, core, found, curvature) if course.settled else None
        if smaller is not None:
            A, B = smaller
            mixing.forget()
            continue
        mixed = mixing(with_bias(problem, b, B), with_bias(problem, shift, image))
        # Kernels take contiguous arrays.
        A, B = A.copy(), xp.ascontiguousarray(_columns(problem, mixed))
        b = mixed[:, 0].copy() if problem.biased else b
    return _full(problem, state, rank)


def choose_inner(options, rank, dtype, relres, grad):
    """Return how rows are to be solved, where so much is left of residual and gradient.

    Errors of an inner solver must be a small part of the distance from the solution.
    """
    name, steps, value = options.inner, _STEPS, min(1.0, relres, grad)
    if name == "auto":
        name, steps = "cg" if rank >= _MANY else "direct", _STEPS if value < _NEAR else _FEW_STEPS
    steps = options.maxiter_inner or steps
    eta = 0.1 * value if options.tol_inner is None else options.tol_inner
    return Inner(name, max(eta, 50.0 * float(np.finfo(dtype).eps)), steps, options.rng)


class Course:
    """Tells from the objective, gradient and singular values how a run goes.

    Attributes
    ----------
    fun : float
        The objective at the last point.
    rounding : float
        By how much it may rise, in relative terms.
    """

    def __init__(self, problem):
        self.fun, self.rounding = math.inf, 8.0 * float(np.finfo(problem.dtype).eps)
        self._sweeps, self._idle, self._best = 0, 0, math.inf
        # About the norm of a matrix that is everywhere as large as it is seen to be.
        size = problem.norm / math.sqrt(problem.density)
        self._bound = math.inf if problem.lam else _BLOWN_UP * size

    @property
    def settled(self):
        """Whether columns have had time to turn to where they are needed."""
        return self._sweeps >= _TURNED

    def ended(self, watch, fun, grad, s):
        """Tell whether nothing good is to be expected, and say so to the watch."""
        self._sweeps += 1
        top = float(watch.problem.be.host(s[:1].sum()))
        better = fun < self.fun * (1.0 - self.rounding) or grad < _BETTER * self._best
        self._idle = 0 if better else self._idle + 1
        self.fun, self._best = fun, min(self._best, grad)
        if top > self._bound:
            reason = (
                "The factors grew without bound: too few entries for alternating minimisation."
            )
            watch.leave(Status.NUMERICAL, reason)
        elif self._idle >= _PATIENCE:
            watch.leave(Status.STALLED, "The objective had stopped falling.")
        return watch.ended is not None


def _without_dead_columns(xp, A, B, a, b):
    """Return copies of a start, without the columns that are zero in A or B."""
    alive = xp.flatnonzero((A != 0).any(axis=0) & (B != 0).any(axis=0))
    alive = alive if alive.size else xp.zeros(1, alive.dtype)
    A, B = (xp.ascontiguousarray(F[:, alive]) for F in (A, B))
    return A, B, a.copy(), b.copy()


def _full(problem, state, rank):
    """Return `Factors` of so many columns, the last ones with singular value 0 if need be."""
    xp, (A, B, a, b) = problem.xp, state
    A, B = (
        xp.concatenate([F, xp.zeros((len(F), rank - F.shape[1]), F.dtype)], axis=1) for F in (A, B)
    )
    return problem.balance(A, B, a, b)


def _judged(problem, unit, A, B, a, b):
    """Return the relative gradient and the misfit of a pair."""
    r = problem.residual(A, B, a, b)
    norm, _, _ = projected_gradient(problem, A, B, slope(problem, A, B, a, b, r))
    return norm / unit, problem.misfit(A, B, r)


def _orthonormal(problem, B, *partners):
    """Return an orthonormal B, and its partners such that their products with it stay.

    The Gram matrices of rows are near multiples of the identity then.
    """
    Q, R = problem.xp.linalg.qr(B)
    return Q, *(A @ R.T for A in partners)


def _columns(problem, x):
    return x[:, 1:] if problem.biased else x


def _window(problem, B):
    """Return how many changes to mix: such that they take no more memory than the entries."""
    return min(_WINDOW, 3 * problem.size // B.size) if problem.lam else 0


def _curvature(problem):
    """Return a bound on the second derivatives of the misfit, in the scale of the ridge."""
    xp, w = problem.xp, problem.obs.by_row.weight
    top = w.max() if w.size else 1.0
    if problem.weighted:
        d, e = root_scales(problem)
        top = top / xp.square(d.min() * e.min())
        if problem.implicit:
            top = top + 1.0 / xp.square(d.min() * e.min())
    elif problem.implicit:
        top = top + 1.0
    return float(problem.be.host(top))


def _shrunk(problem, A, B, core, found, curvature):
    """Return the pair with fewer columns that one proximal step leads to, or None.

    Under a ridge, singular values that are zero in the end go there only by degrees. A step of
    the proximal gradient method, within the spaces of A and B, makes them zero; as it is short
    enough, the objective does not rise.
    """
    if not problem.lam:
        return None
    xp, (P, Q, s) = problem.xp, found
    u, t, vt = xp.linalg.svd(xp.diag(s) - core / curvature)
    t = xp.maximum(t - problem.lam / curvature, 0.0)
    r = max(int(problem.be.host((t > _ZERO * t[:1]).sum())), 1)
    if r >= B.shape[1]:
        return None
    root = xp.sqrt(t[:r])
    return A @ (P @ (u[:, :r] * root)), B @ (Q @ (vt[:r].T * root))


def half_sweep(problem, side, A, B, a, b, ridge, inner=Inner()):  # noqa: B008
    """Minimise over A and its biases a, in place, for given B and b.

    Parameters
    ----------
    problem : Completion
    side : Side
        The entries by the rows of A.
    A, B, a, b : array
        Factors and biases; `a` and `b` are empty where there are none.
    ridge : array
        Weight of ``|A_i|^2 / 2``, for each row.
    inner : Inner, optional
        By default rows are solved exactly.

    Returns
    -------
    Half
    """
    x = with_bias(problem, a, A)
    grad, left = problem.xp.empty_like(x), problem.xp.zeros_like(x)
    systems = row_systems(problem, side, B, b, ridge)
    square, steps = ROW_SOLVERS[inner.name](problem.be, systems, x, grad, left, inner)
    if problem.biased:
        a[:], A[:] = x[:, 0], x[:, 1:]
    return Half(square, grad, left, steps)


def row_systems(problem, side, B, b, ridge):
    """Return what every solver of rows takes first; see `kernels.rows.cpu`."""
    xp = problem.xp
    design = with_bias(problem, xp.ones_like(b), B)
    shared = B.T @ B if problem.implicit else xp.empty((0, 0), B.dtype)
    return *side[:4], design, b, ridge, float(problem.lam_bias or 0.0), shared


def with_bias(problem, a, A):
    """Return A, after a column `a` where there are biases."""
    return problem.xp.concatenate([a[:, None], A], axis=1) if problem.biased else A


def _direct(be, systems, x, grad, left, inner):
    rows = be.kernels("solvers.completion", "rows")
    return rows.solve_rows(*systems, x, grad)


def _cg(be, systems, x, grad, left, inner):
    rows = be.kernels("solvers.completion", "rows")
    return rows.cg_rows(*systems, x, grad, left, inner.eta, inner.steps)


# Each solves or improves all rows of x in place, writes the gradient at the point it comes from
# and, unless it is zero to rounding, the one that it leaves. It returns the weighted sum of
# squares at the point it comes from and the number of inner steps.
ROW_SOLVERS = {
    "direct": _direct,
    "cg": _cg,
    "sketch": sketched,
    "unit sketch": sketched,
    "subspace": block_by_block,
}


def relative_gradient(problem, x, r):
    """Return the norm of the projected gradient of `Factors`, with residual `r`, over `norm`."""
    A, B = problem.balanced(x)
    at = slope(problem, A, B, x.row_bias, x.col_bias, r)
    return projected_gradient(problem, A, B, at)[0] / problem.norm
