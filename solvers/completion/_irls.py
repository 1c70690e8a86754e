"""Iteratively reweighted least squares: weights from the spectrum favour matrices of low rank."""

import numpy as np

from .._core.linalg import pcg
from .._core.result import Status
from ._factors import without_biases
from ._gauss_newton import Progress, truncated

# More columns than the rank in the block of singular vectors, and power steps: first and later.
MORE, FIRST_POWERS, POWERS = 5, 6, 3
# Linear solves: relative residual at most, and at least; most steps.
LOOSE, TIGHT, STEPS = 1e-3, 1e-13, 400
# The smoothing falls by this factor in a step at most: with less haste more matrices are found.
FALL = 0.8
# Singular values count as at least this much above the smoothing.
ABOVE = 1.0 + 1e-3
# The smoothing is close enough to zero at these parts of the rank's last singular value, where
# Gauss-Newton steps can take over, and of the first, from where on the systems are singular.
CLOSE, LEAST = 0.1, 1e-12
# Size of random interpolants, relative to the entries.
NOISE = 0.5
# The stage has stalled when the smoothing has not halved in so many steps.
PATIENCE = 25


def irls(
    problem, rank, watch, options, *, tol=None, maxiter=None, fall=FALL, close=CLOSE, noise=False
):
    """Run reweighted least squares on interpolants of the entries; return `Factors`.

    Parameters
    ----------
    problem, rank, watch, options, tol, maxiter : object
        As for all engines.
    fall : float
        Factor by which the smoothing falls in a step at most.
    close : float
        Where it is close enough to zero, relative to the rank's last singular value.
    noise : bool
        Whether the first interpolant is a random one, not that of least norm.
    """
    check_problem(problem, rank)
    watch.begin("irls", tol=tol, maxiter=maxiter)
    tol = options.tol if tol is None else tol
    x, eps, progress = Interpolant(problem, rank, options.rng), np.inf, Progress(PATIENCE)
    if noise:
        x.randomise(options.rng)
    for turn in watch.run:
        U, s, V = x.spectrum(POWERS if turn else FIRST_POWERS)
        eps = min(eps, max(s[rank], fall * eps if turn else 0.0))
        tol_inner = options.tol_inner or max(min(LOOSE, 0.1 * eps / s[0]), TIGHT)
        solve = x.reweigh(U, s[:rank], V, eps, tol_inner, options.maxiter_inner or STEPS)
        done = watch.record(
            lambda: problem.start_of(x.estimate()),
            fun=0.5 * (x.relres * problem.norm) ** 2,
            relres=x.relres,
            inner=solve.iterations,
            passes=2 * (solve.iterations + POWERS + 2),
            # The estimate is not of the rank yet.
            judge=False,
        )
        if done or x.relres <= tol or eps <= max(close * s[rank - 1], LEAST * s[0]):
            break
        if progress.ended(eps):
            watch.ended = Status.STALLED
            break
    return x.estimate()


def check_problem(problem, rank):
    """Refuse what is no search for a matrix that has the entries."""
    wrong = {
        "loss": problem.loss != "squared",
        "implicit": problem.implicit,
        "nonnegative": problem.nonnegative,
        "bias": problem.biased,
        "lam": problem.lam,
    }
    for name, given in wrong.items():
        if given:
            raise ValueError(
                f"`{name}` came with reweighted least squares; expected its default there, or "
                "method='altmin'"
            )
    if rank == min(problem.shape):
        raise ValueError(
            f"`rank` came as {rank}, the matrix's smaller side; expected less with reweighted "
            "least squares, or method='gn'"
        )


class Interpolant:
    """A matrix that has the entries: ``P V^T + U Q^T``, and on them what it lacks.

    U and V are orthonormal and ``V^T Q = 0``.

    Attributes
    ----------
    relres : float
        Norm of what the low-rank part lacks, relative to the entries.
    """

    def __init__(self, problem, rank, rng):
        xp, (m, n), dtype = problem.xp, problem.shape, problem.dtype
        self.problem, self.rank, self.relres = problem, rank, 1.0
        self._P, self._U = xp.zeros((2, m, rank), dtype)
        self._Q, self._V = xp.zeros((2, n, rank), dtype)
        self._lacking = problem.obs.by_row.val
        self._size = self._norm(self._lacking) or 1.0
        self._block = xp.asarray(rng.standard_normal((n, min(rank + MORE, m, n))), dtype=dtype)
        self._tangent = problem.be.kernels("solvers.completion", "tangent")

    def randomise(self, rng):
        """Become a random matrix that has the entries."""
        xp, (m, n), k = self.problem.xp, self.problem.shape, self.rank
        A, B = (xp.asarray(rng.standard_normal((size, k)), dtype=self._P.dtype) for size in (m, n))
        self._V = xp.linalg.qr(B)[0]
        self._P = A * (NOISE * n**0.5 * k**-0.5)
        nothing = xp.empty(0, self._P.dtype)
        self._lacking = -self.problem.residual(self._P, self._V, nothing, nothing)

    def _norm(self, values):
        return float(self.problem.be.host(self.problem.xp.linalg.norm(values)))

    def spectrum(self, powers):
        """Return the leading singular triples, by subspace iteration from the last ones."""
        xp, W = self.problem.xp, self._block
        for _ in range(powers):
            Z = xp.linalg.qr(self._times(W))[0]
            W, R = xp.linalg.qr(self._transpose_times(Z))
            left, s, right = xp.linalg.svd(R.T)
            W = W @ right.T
        self._block = W
        # The kernels are compiled for contiguous arrays.
        U, V = (xp.ascontiguousarray(F[:, : self.rank]) for F in (Z @ left, W))
        return U, self.problem.be.host(s), V

    def _times(self, W):
        side = self.problem.obs.by_row
        out = self.problem.xp.empty((self._P.shape[0], W.shape[1]), W.dtype)
        self.problem.kernels.times(side.ptr, side.idx, self._lacking, W, out)
        out += self._P @ (self._V.T @ W) + self._U @ (self._Q.T @ W)
        return out

    def _transpose_times(self, Z):
        side = self.problem.obs.by_col
        out = self.problem.xp.empty((self._Q.shape[0], Z.shape[1]), Z.dtype)
        self._tangent.jac_cols(side.ptr, side.idx, side.perm, self._lacking, Z, out)
        out += self._V @ (self._P.T @ Z) + self._Q @ (self._U.T @ Z)
        return out

    def reweigh(self, U, s, V, eps, tol, maxiter):
        """Become the matrix with the entries of smallest weighted norm; return the solve.

        Weights belong to the singular triples U, s and V. The norm's inverse is a multiple of
        the identity but on their tangent space, so that the matrix is known by its part there,
        which solves ``(C + J^T J) x = J^T values`` with a diagonal C in the coordinates
        ``(U^T P, P - U U^T P, Q)``.
        """
        problem, xp, tangent = self.problem, self.problem.xp, self._tangent
        by_row, by_col = problem.obs.by_row, problem.obs.by_col
        (m, n), k, density = problem.shape, s.size, problem.density
        s = np.maximum(s, ABOVE * eps)
        inner, outer = eps**2 / (np.multiply.outer(s, s) - eps**2), eps / (s - eps)
        C, inverse = (
            (xp.asarray(a - b, dtype=problem.dtype), xp.asarray(b, dtype=problem.dtype))
            for a, b in ((inner, outer), (1 / (inner + density), 1 / (outer + density)))
        )
        y, everywhere = xp.empty_like(by_row.val), by_row.weight[:0]
        out, z = xp.empty((2, m + n, k), problem.dtype)

        def scaled(x, factors):
            core, rest = factors
            xp.multiply(x, rest, out=z)
            z[:m] += U @ (core * (U.T @ x[:m]))
            return z

        def adjoint_cols(values, out):
            tangent.jac_cols(by_col.ptr, by_col.idx, by_col.perm, values, U, out[m:])
            out[m:] -= V @ (V.T @ out[m:])

        def product(x):
            x = x.reshape(out.shape)
            sides = U, V, x[:m], x[m:]
            tangent.jac_rows(by_row.ptr, by_row.idx, everywhere, *sides, y, out[:m])
            adjoint_cols(y, out)
            out[...] += scaled(x, C)
            return out.reshape(-1)

        def precond(r):
            return scaled(r.reshape(out.shape), inverse).reshape(-1)

        b = xp.empty_like(out)
        problem.kernels.times(by_row.ptr, by_row.idx, by_row.val, V, b[:m])
        adjoint_cols(by_row.val, b)
        x0 = xp.zeros_like(out)
        x0[:m] = U * xp.asarray(s, dtype=problem.dtype)
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
        tangent.jac_rows(by_row.ptr, by_row.idx, everywhere, U, V, x[:m], x[m:], y, out[:m])
        self._lacking = by_row.val - y
        self.relres = self._norm(self._lacking) / self._size
        return solve

    def estimate(self):
        """Return the nearest matrix of the rank to the part without what is lacking."""
        problem, xp = self.problem, self.problem.xp
        left = xp.concatenate([self._P, self._U], axis=1)
        right = xp.concatenate([self._V, self._Q], axis=1)
        return without_biases(problem.be, *truncated(problem.be, left, right, self.rank))
