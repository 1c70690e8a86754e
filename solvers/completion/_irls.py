"""Iteratively reweighted least squares: weights from the spectrum favour matrices of low rank."""

import numpy as np

from .._core.linalg import pcg
from .._core.result import Status
from ._factors import svd_of_product, without_biases

# More columns than the rank in the block of singular vectors, and power steps: first and later.
MORE, FIRST_POWERS, POWERS = 5, 6, 3
# Linear solves: relative residual at most, and at least; most steps.
LOOSE, TIGHT, STEPS = 1e-3, 1e-13, 400
# Singular values count as at least this much above the smoothing.
ABOVE = 1.0 + 1e-3
# Smoothing, relative to the largest singular value, below which the systems are singular.
LEAST = 1e-12
SWITCH = 0.1
FALL=0.8


def irls(problem, rank, watch, options, *, tol=None, maxiter=None):
    """Run reweighted least squares on interpolants of the entries; return `Factors`."""
    watch.begin("irls", tol=tol, maxiter=maxiter)
    tol = options.tol if tol is None else tol
    x = Interpolant(problem, rank, options)
    eps = np.inf
    for turn in watch.run:
        U, s, V = x.spectrum(POWERS if turn else FIRST_POWERS)
        eps = min(eps, max(float(s[rank]), FALL * eps if turn else 0.0))
        tol_inner = options.tol_inner or max(min(LOOSE, 0.1 * eps / float(s[0])), TIGHT)
        solve = x.reweighted(U, s[:rank], V, eps, tol_inner, options.maxiter_inner or STEPS)
        done = watch.record(
            lambda: problem.start_of(x.truncated()),
            fun=0.5 * (x.relres * problem.norm) ** 2,
            relres=x.relres,
            inner=solve.iterations,
            passes=2 * solve.iterations + 2 * POWERS + 2,
            judge=False,
        )
        if done or x.relres <= tol or eps <= SWITCH * float(s[rank-1]) or eps <= LEAST * float(s[0]):
            break
    return x.truncated()


class Interpolant:
    """A matrix that agrees with the entries: ``P V^T + U Q^T`` plus what is missing on them.

    U and V are orthonormal and ``V^T Q = 0``.
    """

    def __init__(self, problem, rank, options):
        xp, (m, n), dtype = problem.xp, problem.shape, problem.dtype
        self.problem, self.rank = problem, rank
        self._P, self._U = xp.zeros((m, rank), dtype), xp.zeros((m, rank), dtype)
        self._Q, self._V = xp.zeros((n, rank), dtype), xp.zeros((n, rank), dtype)
        self._missing = problem.obs.by_row.val
        self.relres = 1.0
        width = min(rank + MORE, m, n)
        self._block = xp.asarray(options.rng.standard_normal((n, width)), dtype=dtype)
        self._tangent = problem.be.kernels("solvers.completion", "tangent")

    def spectrum(self, powers):
        """Return the leading singular triples, by a subspace iteration from the last ones."""
        xp, W = self.problem.xp, self._block
        for _ in range(powers):
            Z = xp.linalg.qr(self._times(W))[0]
            W, R = xp.linalg.qr(self._times_transpose(Z))
            left, s, right = xp.linalg.svd(R.T)
            W = W @ right.T
        self._block = W
        U, V = (xp.ascontiguousarray(F[:, : self.rank]) for F in (Z @ left, W))
        return U, self.problem.be.host(s), V

    def _times(self, W):
        side, out = (
            self.problem.obs.by_row,
            self.problem.xp.empty_like(self._P, shape=(self._P.shape[0], W.shape[1])),
        )
        self.problem.kernels.times(side.ptr, side.idx, self._missing, W, out)
        return out + self._P @ (self._V.T @ W) + self._U @ (self._Q.T @ W)

    def _times_transpose(self, Z):
        side, out = (
            self.problem.obs.by_col,
            self.problem.xp.empty_like(self._Q, shape=(self._Q.shape[0], Z.shape[1])),
        )
        self._tangent.jac_cols(side.ptr, side.idx, side.perm, self._missing, Z, out)
        return out + self._V @ (self._P.T @ Z) + self._Q @ (self._U.T @ Z)

    def reweighted(self, U, s, V, eps, tol, maxiter):
        """Replace the matrix by the interpolant of smallest weighted norm; return its solve."""
        problem, xp, tangent = self.problem, self.problem.xp, self._tangent
        by_row, by_col = problem.obs.by_row, problem.obs.by_col
        m, n = problem.shape
        k, density = s.size, problem.density
        s = np.maximum(s, ABOVE * eps)
        edge = eps / (s - eps)
        core = eps**2 / (np.multiply.outer(s, s) - eps**2)
        damp = (xp.asarray(core - edge), xp.asarray(edge))
        free = (
            xp.asarray(1 / (core + density) - 1 / (edge + density)),
            xp.asarray(1 / (edge + density)),
        )
        y, none = xp.empty_like(by_row.val), by_row.weight[:0]
        out, z = xp.empty((2, m + n, k), problem.dtype)

        def scaled(x, weights, target):
            """Multiply tangent coordinates by numbers for their three parts."""
            inner, outer = weights
            P, Q = x[:m], x[m:]
            target[:m] = P * outer + U @ (inner * (U.T @ P))
            target[m:] = Q * outer

        def adjoint(values, target):
            problem.kernels.times(by_row.ptr, by_row.idx, values, V, target[:m])
            columns(values, target)

        def columns(values, target):
            gB = target[m:]
            tangent.jac_cols(by_col.ptr, by_col.idx, by_col.perm, values, U, gB)
            gB -= V @ (V.T @ gB)

        def product(p):
            p = p.reshape(out.shape)
            P, Q = p[:m], p[m:]
            scaled(p, damp, z)
            tangent.jac_rows(by_row.ptr, by_row.idx, none, U, V, P, Q, y, out[:m])
            columns(y, out)
            return (out + z).reshape(-1)

        def precond(r):
            scaled(r.reshape(out.shape), free, z)
            return z.reshape(-1)

        b = xp.empty_like(out)
        adjoint(by_row.val, b)
        x0 = xp.concatenate([U * xp.asarray(s), xp.zeros((n, k), problem.dtype)])
        solve = pcg(
            product,
            b.reshape(-1),
            be=problem.be,
            x0=x0.reshape(-1),
            precond=precond,
            tol=tol,
            maxiter=maxiter,
        )
        x = solve.x.reshape(out.shape)
        self._U, self._V, self._P, self._Q = U, V, x[:m], x[m:]
        tangent.jac_rows(by_row.ptr, by_row.idx, none, U, V, self._P, self._Q, y, out[:m])
        self._missing = by_row.val - y
        self.relres = float(problem.be.host(xp.linalg.norm(self._missing))) / float(
            problem.be.host(xp.linalg.norm(by_row.val))
        )
        return solve

    def truncated(self):
        """Return the nearest matrix of the rank to the part without missing entries."""
        xp, k = self.problem.xp, self.rank
        left = xp.concatenate([self._P, self._U], axis=1)
        right = xp.concatenate([self._V, self._Q], axis=1)
        U, s, V = svd_of_product(self.problem.be, left, right)
        U, V = (xp.ascontiguousarray(F[:, :k]) for F in (U, V))
        return without_biases(self.problem.be, U, s[:k], V)
