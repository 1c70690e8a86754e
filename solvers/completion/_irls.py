"""Iteratively reweighted least squares: weights from the spectrum favour matrices of low rank."""

from dataclasses import replace

import numpy as np

from .._core.linalg import pcg
from .._core.result import Status
from ._driver import complete
from ._factors import without_biases
from ._gauss_newton import Progress, gn, truncated

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
# In attempts after the first, the smoothing's fall and how close to zero it goes.
PATIENT = {"fall": 0.9, "close": 0.01}
# Last singular value, relative to the first, from which on a small residual means to be near.
NARROW = 0.05
# Size of random interpolants, relative to the entries.
NOISE = 0.5
# The stage has stalled when the smoothing has not halved in so many steps.
PATIENCE = 25


def matrix_irls(
    M,
    rank,
    *,
    shape=None,
    weights=None,
    center=False,
    x0=None,
    n_init=1,
    tol=1e-08,
    tol_inner=None,
    ftol=0.0,
    gtol=0.0,
    maxiter=500,
    maxiter_inner=None,
    time_limit=None,
    validation=None,
    patience=5,
    duplicates="error",
    dtype=None,
    progress=False,
    history=True,
    callback=None,
    rng=None,
    n_threads=None,
):
    r"""Recover a matrix of low rank from few entries by reweighted least squares.

    Looks for a matrix of the rank that has the entries; if there is none, for one that fits them
    best in the least-squares sense.

    Parameters
    ----------
    M : sparse matrix, (rows, cols, vals), masked array, or array with NaN
        The matrix; stored entries, zeros among them, are observed.
    rank : int
        Rank of the answer.
    shape : (int, int), optional
        Its shape; required for triples.
    weights : array, optional
        Weights of the entries, non-negative, in their order; entries of weight 0 are left out.
        The others matter to the Gauss-Newton steps, where no matrix has the entries exactly.
    center : bool, default False
        Subtract the mean of the entries, which makes an exact rank larger by one.
    x0 : CompletionResult or tuple of arrays, optional
        Start ``(U0, V0)`` or ``(U0, s0, V0)`` of at most `rank` columns, for Gauss-Newton steps;
        reweighting begins, from scratch, if these fail.
    n_init : int, default 1
        Largest number of starts, where a start does not lead to an exact fit.
    tol : float, default 1e-8
        Tolerance of the certificate.
    tol_inner : float, optional
        Relative residual at which conjugate gradients stop. Default: tightened towards the end.
    ftol, gtol : float, default 0.0
        End the run when the objective changes by less than `ftol`, relatively, in an iteration;
        when the relative gradient is below `gtol`. Neither makes it a success.
    maxiter : int, default 500
        Largest number of iterations.
    maxiter_inner : int, optional
        Most steps of conjugate gradients in an iteration. Default: 400 while reweighting, 300
        after.
    time_limit : float, optional
        Seconds after which the best factors so far are returned.
    validation : float or (rows, cols, vals), optional
        Entries, or a fraction of them, kept apart to end the run when their error rises.
    patience : int, default 5
        Iterations without a smaller held-out error before that.
    duplicates : {"error", "mean", "sum", "last"}, default "error"
        What to do where an entry is given twice.
    dtype : numpy.dtype, optional
        Precision, float32 or float64. Default: that of the data.
    progress : bool, default False
        Show a progress bar.
    history : bool or int, default True
        Whether, or every how many iterations, to record the history.
    callback : callable, optional
        Called after each iteration as ``callback(intermediate_result)`` with fields ``nit``,
        ``relres``, ``U``, ``s`` and ``V``; StopIteration or a true return value ends the run.
    rng : int, numpy.random.Generator or None, optional
        Randomness of the start.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    CompletionResult
        The matrix ``U diag(s) V^T``, with its certificate.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If shapes disagree, a value is not finite, or an option has no such value.

    Warns
    -----
    ConvergenceWarning
        If the certificate does not hold; once per call.

    Notes
    -----
    Among the matrices that have the entries the next one minimises a quadratic form, whose weights
    come from the spectrum of the present one and make it a smoothed rank [1]_. The smoothing is
    the first singular value beyond `rank`, as in [1]_, but falls by a fifth in an iteration at
    most, for haste leads to wrong matrices. Once it is a tenth of the last singular value
    within `rank`, `gauss_newton` takes over. If that fails a second attempt goes slower and
    further; `n_init` allows for more, from random matrices that have the entries.

    Of all methods here this one needs the fewest entries, and it does not mind a wide spectrum.
    An iteration costs a few steps of conjugate gradients, of two passes over the entries each, and
    six passes for singular vectors. Memory: four numbers for each entry, beside the entries.

    References
    ----------
    .. [1] C. Kuemmerle, C. M. Verdun. A scalable second order method for ill-conditioned matrix
       completion from few samples. ICML 2021. arXiv:2106.02119.

    Examples
    --------
    >>> import numpy as np
    >>> import solvers
    >>> M = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, -1.0, 2.0])
    >>> M[0, 0] = M[3, 1] = np.nan
    >>> res = solvers.completion.matrix_irls(M, 1)
    >>> res.success, round(float(res.predict([0], [0])[0]), 6)
    (True, 1.0)
    """
    return complete(
        "matrix_irls",
        M,
        rank,
        find,
        shape=shape,
        weights=weights,
        center=center,
        x0=x0,
        n_init=n_init,
        tol=tol,
        tol_inner=tol_inner,
        ftol=ftol,
        gtol=gtol,
        maxiter=maxiter,
        maxiter_inner=maxiter_inner,
        time_limit=time_limit,
        validation=validation,
        patience=patience,
        duplicates=duplicates,
        dtype=dtype,
        progress=progress,
        history=history,
        callback=callback,
        rng=rng,
        n_threads=n_threads,
    )


def find(problem, rank, watch, options, near=None):
    """Look for a matrix with the entries, from several starts if need be.

    Parameters
    ----------
    problem, rank, watch, options : object
        As for all engines.
    near : callable, optional
        An engine that comes near a solution, to try first.

    Returns
    -------
    Factors
        Those with the smallest residual.
    """
    check_problem(problem)
    best, reached, ended = None, np.inf, None
    for attempt in _attempts(problem, rank, watch, options, near):
        x = attempt()
        relres = problem.relres(problem.objective(*problem.start_of(x)))
        if best is None or relres < reached:
            best, reached, ended = x, relres, (watch.ended, watch.reason)
        if watch.run.status is not None or reached <= options.tol:
            break
        # A stationary fit may still not be the best one.
        if watch.ended is Status.CONVERGED and options.n_init == 1:
            break
    watch.ended, watch.reason = ended
    return best


def _attempts(problem, rank, watch, options, near):
    """Yield what to try, one after another; each returns `Factors`."""
    fresh = replace(options, x0=None)

    def polished(engine, **kind):
        x = engine(problem, rank, watch, fresh, **kind)
        if watch.run.status is not None:
            return x
        return gn(problem, rank, watch, replace(options, x0=problem.start_of(x)))

    def approached():
        x = near(problem, rank, watch, fresh)
        if watch.run.status is not None:
            return x
        first, last = problem.be.host(x.s[0], x.s[-1])
        if watch.ended is not Status.CONVERGED or last < NARROW * first:
            # Small residuals say nothing of singular values that are smaller still.
            watch.leave(Status.STALLED, "The spectrum is wide, or the sweeps converge slowly.")
            return x
        return gn(problem, rank, watch, replace(options, x0=problem.start_of(x)))

    if options.x0 is not None:
        yield lambda: gn(problem, rank, watch, options)
    elif near is not None:
        yield approached
    if rank == min(problem.shape):
        # All matrices have this rank: their spectra tell nothing.
        yield lambda: gn(problem, rank, watch, fresh)
        return
    yield lambda: polished(irls)
    yield lambda: polished(irls, **PATIENT)
    for _ in range(options.n_init - 1):
        yield lambda: polished(irls, **PATIENT, noise=True)


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


def check_problem(problem):
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
