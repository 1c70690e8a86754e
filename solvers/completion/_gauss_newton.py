"""Gauss-Newton steps on the tangent space, damped and solved by conjugate gradients."""

import math

import numpy as np

from .._core.linalg import pcg
from ._factors import Factors, svd_of_product
from ._start import start

# Damping, relative to the mean curvature: at first, and at least.
DAMPING, LEAST_DAMPING = 1e-3, 1e-14
# Largest relative residual of the linear solves, and their most steps.
FORCING, STEPS = 0.1, 300
# Below this promised relative decrease the objective's rounding errors decide; the gradient's
# norm is judged instead.
DROWNED = 1e-12
# Steps in a row that may fail before the stage has stalled.
FAILURES = 12
# A residual that falls by less than this factor has settled: noise.
SETTLED = 0.9


def gn(problem, rank, watch, options, *, tol=None, maxiter=None):
    """Run damped Gauss-Newton steps; return `Factors`."""
    x = problem.balance(*start(problem, rank, options))
    watch.begin("gn", tol=tol, maxiter=maxiter)
    tol = options.tol if tol is None else tol
    here = Linearised(problem, x)
    if watch.done(here.relres, here.gradient):
        return x
    damping, failures = DAMPING, 0
    for _ in watch.run:
        eta = max(min(FORCING, here.relres), 0.1 * min(tol / max(here.relres, 1e-300), 1.0))
        eta = options.tol_inner or eta
        solve, promised = here.step(damping, eta, options.maxiter_inner or STEPS)
        there = Linearised(problem, here.moved(solve.x))
        fell = here.fun - there.fun
        drowned = promised <= DROWNED * here.fun
        better = there.gradient < here.gradient if drowned else fell > 0
        ratio = fell / promised if promised > 0 else 1.0
        settled = there.relres > SETTLED * here.relres
        if better:
            here, failures = there, 0
            if drowned or ratio > 0.75:
                damping = max(damping / 10, LEAST_DAMPING)
            elif ratio < 0.25:
                damping *= 4
        else:
            damping, failures = damping * 10, failures + 1
        done = watch.record(
            lambda x=here.x: problem.start_of(x),
            fun=here.fun,
            relres=here.relres,
            grad=here.gradient,
            inner=solve.iterations,
            passes=2 * solve.iterations + 5,
            judge=problem.lam > 0 or here.relres <= tol or settled,
        )
        if done or failures >= FAILURES or (drowned and failures >= 2):
            break
    return here.x


class Linearised:
    """The objective at `x`, its gradient, and the quadratic model there.

    Without a ridge the model's variables are tangent vectors ``A V^T + U B^T`` with orthonormal U
    and V, which makes its conditioning independent of the singular values; with a ridge they are
    changes of the balanced factors. Biases are one more column, of which one factor is constant.
    Variables (A, B) are stacked into one array.
    """

    def __init__(self, problem, x):
        xp = problem.xp
        self.problem, self.x = problem, x
        A, B, a, b = problem.start_of(x)
        r = problem.residual(A, B, a, b)
        misfit = problem.misfit(A, B, r)
        self.fun = misfit + problem.penalty(A, B, a, b)
        self.relres = problem.relres(misfit)
        self._m = problem.shape[0]
        (m, n), dtype = problem.shape, problem.dtype
        ridged = problem.lam > 0
        self._U, self._V = (A, B) if ridged else (x.U, x.V)
        self._level = float(problem.be.host(x.s.mean())) if ridged else 1.0
        self._ridge = None
        if ridged:
            ridge = xp.concatenate([problem.row_ridge, problem.col_ridge])
            self._ridge = xp.repeat(ridge[:, None], A.shape[1], axis=1)
        self._b = self._slope(r, A, B, a, b)
        self.gradient = self._judged_gradient()

    def _slope(self, r, A, B, a, b):
        """Return the gradient in the model's variables."""
        problem, xp = self.problem, self.problem.xp
        obs = problem.obs
        kernels, tangent = problem.kernels, problem.be.kernels("solvers.completion", "tangent")
        by_row, by_col = obs.by_row, obs.by_col
        if by_row.weight.size:
            r = r * by_row.weight
        g = xp.empty((sum(problem.shape), self._U.shape[1]), problem.dtype)
        kernels.times(by_row.ptr, by_row.idx, r, self._V, g[: self._m])
        tangent.jac_cols(by_col.ptr, by_col.idx, by_col.perm, r, self._U, g[self._m :])
        if self._ridge is not None:
            g += self._ridge * xp.concatenate([A, B])
        return g

    def _judged_gradient(self):
        xp, g, x = self.problem.xp, self._b, self.x
        if self._ridge is None:
            core = x.U.T @ g[: self._m]
        else:
            root = xp.sqrt(x.s)
            g = g / xp.where(root > 0, root, 1.0)
            core = x.U.T @ g[: self._m]
        square = self.problem.be.host(xp.vdot(g, g) - xp.vdot(core, core))
        return math.sqrt(max(square, 0.0)) / self.problem.norm

    def step(self, damping, eta, maxiter):
        """Return the damped step's `LinearSolve`, and the decrease that the model promises."""
        problem, xp, host = self.problem, self.problem.xp, self.problem.be.host
        obs, m = problem.obs, self._m
        by_row, by_col = obs.by_row, obs.by_col
        tangent = problem.be.kernels("solvers.completion", "tangent")
        U, V = self._U, self._V
        k = U.shape[1]
        shift = damping * problem.density * self._level
        ridge = xp.full(self._b.shape, shift, problem.dtype)
        if self._ridge is not None:
            ridge += self._ridge
        blocks = xp.empty((*self._b.shape, k), problem.dtype)
        nothing = xp.empty((0, 0), problem.dtype)
        tangent.block_inverse(
            by_row.ptr, by_row.idx, by_row.weight, V, nothing, ridge[:m], blocks[:m]
        )
        tangent.block_inverse(
            by_col.ptr, by_col.idx, by_col.weight, U, nothing, ridge[m:], blocks[m:]
        )
        y, out, z = xp.empty_like(by_row.val), xp.empty_like(self._b), xp.empty_like(self._b)

        def product(p):
            p = p.reshape(out.shape)
            A, B = p[:m], p[m:]
            tangent.jac_rows(by_row.ptr, by_row.idx, by_row.weight, U, V, A, B, y, out[:m])
            tangent.jac_cols(by_col.ptr, by_col.idx, by_col.perm, y, U, out[m:])
            out[...] += ridge * p
            return out.reshape(-1)

        def precond(r):
            tangent.block_times(blocks, r.reshape(out.shape), z)
            return z.reshape(-1)

        g = self._b.reshape(-1)
        solve = pcg(product, -g, be=problem.be, precond=precond, tol=eta, maxiter=maxiter)
        # Iterates of conjugate gradients from zero satisfy <d, H d> = -<g, d>.
        slope, square = host(g @ solve.x, solve.x @ solve.x)
        return solve, -0.5 * slope + 0.5 * shift * square

    def moved(self, d):
        """Return the estimate after a step."""
        problem, x, xp, m = self.problem, self.x, self.problem.xp, self._m
        k = x.s.size
        d = d.reshape(self._b.shape)
        if self._ridge is not None:
            return problem.balance(self._U + d[:m], self._V + d[m:], x.row_bias, x.col_bias)
        left = xp.concatenate([x.U * x.s + d[:m], x.U], axis=1)
        right = xp.concatenate([x.V, d[m:]], axis=1)
        U, s, V = svd_of_product(problem.be, left, right)
        # The kernels are compiled for contiguous arrays.
        U, V = (xp.ascontiguousarray(F[:, :k]) for F in (U, V))
        return Factors(U, s[:k], V, x.row_bias, x.col_bias)
