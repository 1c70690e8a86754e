"""Gauss-Newton steps on the tangent space, damped and solved by conjugate gradients."""

import math
from functools import cached_property

import numpy as np

from .._core.linalg import pcg
from .._core.result import Status
from ._factors import Factors, svd_of_product
from ._start import start

# Damping, relative to the mean curvature: at first, and at least.
DAMPING, LEAST_DAMPING = 1e-3, 1e-14
# Relative residual of the linear solves at most and at least, and their most steps.
FORCING, TIGHT, STEPS = 0.1, 2e-6, 300
# The stage has stalled when neither residual nor gradient has halved in so many steps.
PATIENCE = 20
# Singular values below this part of the first one have vanished; those that a ridge makes
# vanish, below the tolerance, but at the most this.
VANISHED, SHRUNK = 1e-10, 1e-6
# A fit of so many times the size of the data has run off to infinity.
OFF = 100.0


def gn(problem, rank, watch, options, *, tol=None, maxiter=None, stage="gn"):
    """Run damped Gauss-Newton steps from `start`; return `Factors`."""
    check_problem(problem)
    watch.begin(stage, tol=tol, maxiter=maxiter)
    tol = options.tol if tol is None else tol
    vanished = max(VANISHED, min(tol, SHRUNK)) if problem.lam else VANISHED
    here = Model(problem, problem.balance(*start(problem, rank, options)), vanished)
    if watch.done(here.relres, here.gradient):
        return here.x
    damping, progress = DAMPING, Progress(PATIENCE)
    for _ in watch.run:
        eta = options.tol_inner or _forcing(here.relres, tol)
        solve, promised = here.step(damping, eta, options.maxiter_inner or STEPS)
        there = Model(problem, here.moved(solve.x), vanished)
        fell = here.fun - there.fun
        # Where rounding hides what the objective does, the gradient tells.
        drowned = promised <= np.finfo(problem.dtype).eps ** 0.75 * here.fun
        accepted = there.gradient < here.gradient if drowned else fell > 0
        if not accepted:
            damping *= 10
        elif drowned or fell > 0.75 * promised:
            damping = max(damping / 10, LEAST_DAMPING)
        elif fell < 0.25 * promised:
            damping *= 4
        here = there if accepted else here
        done = watch.record(
            lambda x=here.x: problem.start_of(x),
            fun=here.fun,
            relres=here.relres,
            grad=here.gradient,
            inner=solve.iterations,
            passes=2 * solve.iterations + 5,
            judge=accepted,
        )
        if done or (drowned and not accepted):
            break
        if progress.ended(here.distance):
            watch.ended = Status.STALLED
            break
        if here.runs_off:
            watch.ended = Status.STALLED
            watch.reason = "The factors grow without bound: more entries or a ridge are needed."
            break
    return here.x


def check_problem(problem):
    """Refuse what is no least-squares problem without constraints."""
    for name, given in (
        ("loss", problem.loss != "squared"),
        ("nonnegative", problem.nonnegative),
    ):
        if given:
            raise ValueError(
                f"`{name}` came with Gauss-Newton steps; expected its default there, or "
                "method='altmin'"
            )


def _forcing(relres, tol):
    """Return how well to solve: quadratic convergence, but no better than asked for."""
    return min(FORCING, max(relres, 0.1 * tol / max(relres, tol), TIGHT))


class Progress:
    """Tells when a falling value has not halved in `patience` turns."""

    def __init__(self, patience):
        self._patience, self._goal, self._turns = patience, math.inf, 0

    def ended(self, value):
        """Count a turn that has reached `value`."""
        self._turns += 1
        if value <= self._goal:
            self._goal, self._turns = 0.5 * value, 0
        return self._turns >= self._patience


class Model:
    """The objective at the estimate `x`, its gradient, and its quadratic model there.

    The model's variables (A, B), stacked into one array, change the estimate by
    ``A V^T + U B^T``. Without a ridge U and V are orthonormal, so that the singular values do not
    matter to its conditioning; with a ridge they are the balanced factors, and (A, B) changes of
    them. Biases are one more column of each, whose partner is constant.

    Attributes
    ----------
    fun, relres, gradient : float
        Objective, relative residual and relative norm of the projected gradient.
    """

    def __init__(self, problem, x, vanished):
        self.problem, self.x, self._vanished = problem, x, vanished
        self._tangent = problem.be.kernels("solvers.completion", "tangent")
        factors = problem.start_of(x)
        r = problem.residual(*factors)
        misfit = problem.misfit(*factors[:2], r)
        self.fun = misfit + problem.penalty(*factors)
        self.relres = problem.relres(misfit)
        self._A, self._B = factors[:2]
        self._U, self._V = self._bases()
        self._slope = self._gradient(r)
        self.gradient = self._judged(self._slope)

    @property
    def distance(self):
        """What falls to zero on the way to a solution."""
        if self.problem.lam:
            # The projected gradient counts directions that vanish in full.
            return float(self.problem.be.host(self.problem.xp.linalg.norm(self._slope)))
        return min(self.relres, self.gradient)

    @property
    def runs_off(self):
        """Whether the estimate is so large that the entries cannot hold it."""
        m, n = self.problem.shape
        return bool(self.problem.be.host(self.x.s[0] > OFF * np.sqrt(m) * np.sqrt(n)))

    def _bases(self):
        problem, x, xp = self.problem, self.x, self.problem.xp
        U, V = (self._A, self._B) if problem.lam else (x.U, x.V)
        if not problem.biased:
            return U, V
        m, n = problem.shape
        one, other = (xp.full((size, 1), size**-0.5, problem.dtype) for size in (m, n))
        return xp.concatenate([U, one], axis=1), xp.concatenate([V, other], axis=1)

    @cached_property
    def _ridge(self):
        """Weights of the squares of the model's variables, or None."""
        problem, xp = self.problem, self.problem.xp
        if not problem.lam and not problem.lam_bias:
            return None
        m, n = problem.shape
        weights = xp.concatenate([problem.row_ridge, problem.col_ridge])
        ridge = xp.repeat(weights[:, None], self._U.shape[1], axis=1)
        if problem.biased:
            ridge[:m, -1], ridge[m:, -1] = problem.lam_bias / n, problem.lam_bias / m
        return ridge

    def _gradient(self, r):
        """Return the gradient in the model's variables, from the residual."""
        problem, x, xp = self.problem, self.x, self.problem.xp
        by_row, by_col = problem.obs.by_row, problem.obs.by_col
        (m, n), U, V = problem.shape, self._U, self._V
        if by_row.weight.size:
            r = r * by_row.weight
        g = xp.empty((m + n, U.shape[1]), problem.dtype)
        problem.kernels.times(by_row.ptr, by_row.idx, r, V, g[:m])
        self._tangent.jac_cols(by_col.ptr, by_col.idx, by_col.perm, r, U, g[m:])
        if problem.implicit:
            g[:m] += self._A @ (self._B.T @ V)
            g[m:] += self._B @ (self._A.T @ U)
        if self._ridge is not None:
            now = xp.concatenate([self._A, self._B])
            if problem.biased:
                biases = xp.concatenate([x.row_bias * n**0.5, x.col_bias * m**0.5])
                now = xp.concatenate([now, biases[:, None]], axis=1)
            g += self._ridge * now
        return g

    def _judged(self, g):
        """Return the relative norm of the gradient on the tangent space, whatever the bases."""
        problem, xp, k = self.problem, self.problem.xp, self.x.s.size
        m = problem.shape[0]
        squares, shares = 0.0, []
        for F, part, scale in (
            (self._U[:, :k], g[:m], problem.row_scale),
            (self._V[:, :k], g[m:], problem.col_scale),
        ):
            d = xp.where(scale > 0, scale, 1.0)[:, None] if problem.weighted else 1.0
            share = (d * F * F).sum(axis=0)
            # Directions that vanish do not count.
            shares.append(xp.where(share > self._vanished * share.max(), share, xp.inf))
            squares += (part[:, :k] ** 2 / d / shares[-1]).sum() + (part[:, k:] ** 2).sum()
        core = self._U[:, :k].T @ g[:m, :k] / xp.sqrt(xp.multiply.outer(*shares))
        square = problem.be.host(squares - (core**2).sum())
        return math.sqrt(max(square, 0.0)) / gradient_unit(problem)

    def step(self, damping, eta, maxiter):
        """Return the damped step's `LinearSolve`, and the decrease that the model promises."""
        problem, xp, host = self.problem, self.problem.xp, self.problem.be.host
        m, U, V, tangent = problem.shape[0], self._U, self._V, self._tangent
        by_row, by_col = problem.obs.by_row, problem.obs.by_col
        shared = V.T @ V, U.T @ U
        total = by_row.weight.sum() if by_row.weight.size else problem.size
        curvature = total / math.prod(problem.shape) * (xp.trace(shared[0]) / V.shape[1])
        shift = float(damping * host(curvature))
        g = self._slope
        ridge = xp.full(g.shape, shift, problem.dtype)
        if self._ridge is not None:
            ridge += self._ridge
        blocks = xp.empty((*g.shape, U.shape[1]), problem.dtype)
        gram = shared if problem.implicit else (xp.empty((0, 0), problem.dtype),) * 2
        for side, F, G, d, out in (
            (by_row, V, gram[0], ridge[:m], blocks[:m]),
            (by_col, U, gram[1], ridge[m:], blocks[m:]),
        ):
            tangent.block_inverse(side.ptr, side.idx, side.weight, F, G, d, out)
        y, out, z = xp.empty_like(by_row.val), xp.empty_like(g), xp.empty_like(g)

        def product(p):
            p = p.reshape(g.shape)
            A, B = p[:m], p[m:]
            tangent.jac_rows(by_row.ptr, by_row.idx, by_row.weight, U, V, A, B, y, out[:m])
            tangent.jac_cols(by_col.ptr, by_col.idx, by_col.perm, y, U, out[m:])
            if problem.implicit:
                out[:m] += A @ shared[0] + U @ (B.T @ V)
                out[m:] += B @ shared[1] + V @ (A.T @ U)
            out[...] += ridge * p
            return out.reshape(-1)

        def precond(r):
            tangent.block_times(blocks, r.reshape(g.shape), z)
            return z.reshape(-1)

        flat = g.reshape(-1)
        solve = pcg(product, -flat, be=problem.be, precond=precond, tol=eta, maxiter=maxiter)
        # Iterates of conjugate gradients from zero satisfy <d, H d> = -<g, d>.
        slope, square = host(flat @ solve.x, solve.x @ solve.x)
        return solve, 0.5 * (shift * square - slope)

    def moved(self, d):
        """Return the estimate after a step."""
        problem, x, xp = self.problem, self.x, self.problem.xp
        (m, n), k = problem.shape, self.x.s.size
        d = d.reshape(self._slope.shape)
        a, b = x.row_bias, x.col_bias
        if problem.biased:
            a, b = a + d[:m, k] * n**-0.5, b + d[m:, k] * m**-0.5
        A, B = d[:m, :k], d[m:, :k]
        if problem.lam:
            return problem.balance(self._A + A, self._B + B, a, b)
        left = xp.concatenate([x.U * x.s + A, x.U], axis=1)
        right = xp.concatenate([x.V, B], axis=1)
        return Factors(*truncated(problem.be, left, right, k), a, b)


def truncated(be, A, B, k):
    """Return the `k` leading singular triples of ``A B^T``."""
    U, s, V = svd_of_product(be, A, B)
    # The kernels are compiled for contiguous arrays.
    U, V = (be.xp.ascontiguousarray(F[:, :k]) for F in (U, V))
    return U, s[:k], V


def gradient_unit(problem):
    """Return what gradients are relative to: the norm of the values, scaled as the ridge is."""
    if not problem.weighted:
        return problem.norm
    obs = problem.obs
    d, e = problem.row_scale[obs.rows], problem.col_scale[obs.cols]
    square = obs.by_row.val**2 / (d * e)
    w = obs.by_row.weight
    return math.sqrt(problem.be.host((w**2 * square if w.size else square).sum())) or 1.0
