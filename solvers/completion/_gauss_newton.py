"""Gauss-Newton steps on the tangent space, damped and solved by conjugate gradients."""

import math
from dataclasses import replace
from functools import cached_property

import numpy as np

from .._core.linalg import pcg
from .._core.result import Status
from .._core.validation import check_memory
from ._als import als, gradient_unit
from ._driver import complete
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
# Part of the free memory that the blocks of the preconditioner may take.
SHARE = 0.1
# Sweeps of alternating minimisation before a second attempt.
SWEEPS = 20
# A fit of so many times the size of the data has run off to infinity.
OFF = 100.0


def gauss_newton(
    M,
    rank,
    *,
    shape=None,
    weights=None,
    lam=0.0,
    lam_bias=None,
    weighted_lambda=False,
    bias=False,
    center=None,
    implicit=False,
    alpha=1.0,
    init="svd",
    clip=None,
    x0=None,
    tol=1e-08,
    tol_inner=None,
    ftol=0.0,
    gtol=0.0,
    maxiter=500,
    maxiter_inner=None,
    time_limit=None,
    validation=None,
    patience=5,
    certificate=(),
    duplicates="error",
    dtype=None,
    progress=False,
    history=True,
    callback=None,
    rng=None,
    n_threads=None,
):
    r"""Complete a matrix of low rank by damped Gauss-Newton steps.

    Minimises :math:`\tfrac{1}{2} \sum_\Omega w_{ij} (A_i \cdot B_j - M_{ij})^2` over factors A and
    B, with the ridge and the biases of `alternating_minimization` where asked for.

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
    lam : float, default 0.0
        Ridge on the factors, in the unit of `M`.
    lam_bias : float, optional
        Ridge on the biases. Default: `lam`.
    weighted_lambda : bool, default False
        Multiply `lam` by the number of entries of each row and column.
    bias : bool, default False
        Fit a bias for each row and each column too.
    center : bool, optional
        Subtract the mean of the entries. Default: `bias`.
    implicit : bool, default False
        Take `M` for counts of events, as `als_implicit` does.
    alpha : float, default 1.0
        Weight of an event, for `implicit`.
    init : {"svd", "random"}, default "svd"
        Start from singular vectors of the observed entries, or from noise.
    clip : {None, "row", "entry"}, default None
        Curb rows, or entries, of the start that stand out.
    x0 : CompletionResult or tuple of arrays, optional
        Start ``(U0, V0)`` or ``(U0, s0, V0)`` of at most `rank` columns.
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
        Most steps of conjugate gradients in an iteration. Default: 300.
    time_limit : float, optional
        Seconds after which the best factors so far are returned.
    validation : float or (rows, cols, vals), optional
        Entries, or a fraction of them, kept apart to end the run when their error rises.
    patience : int, default 5
        Iterations without a smaller held-out error before that.
    certificate : tuple of str, default ()
        ``("gap",)`` asks for the duality gap of the convex problem, where `lam` is positive.
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
    At :math:`X = U \operatorname{diag}(s) V^T` the least-squares problem in the tangent vector
    :math:`A V^T + U B^T` is solved by conjugate gradients, damped as Levenberg and Marquardt do,
    and the sum is rounded to the rank again [1]_ [2]_. With orthonormal U and V the singular
    values do not matter to its conditioning; the preconditioner is the own part of each row and
    column (their diagonal, where that would take a tenth of the memory). A start from which the
    steps lead nowhere is tried once more after a few sweeps. Where there is an exact fit the
    steps converge quadratically; with noise or a ridge they converge linearly, and fast.

    Near a solution there is nothing better; far from one the steps may not get there, with few
    entries or a wide spectrum: `matrix_irls` does, and ends with these steps. A step of conjugate
    gradients is two passes over the entries, some 10 N rank operations. Memory: N numbers twice
    beside the entries, and (m + n) rank^2 for the preconditioner.

    References
    ----------
    .. [1] J. Bauch, B. Nadler, P. Zilber. Rank 2r iterative least squares: efficient recovery of
       ill-conditioned low rank matrices from few entries. SIAM Journal on Mathematics of Data
       Science, 2021.
    .. [2] P. Zilber, B. Nadler. GNMR: a provable one-line algorithm for low rank matrix recovery.
       SIAM Journal on Mathematics of Data Science, 2022. arXiv:2106.12933.

    Examples
    --------
    >>> import numpy as np
    >>> import solvers
    >>> M = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, -1.0, 2.0])
    >>> M[0, 0] = M[3, 1] = np.nan
    >>> res = solvers.completion.gauss_newton(M, 1)
    >>> res.success, round(float(res.predict([0], [0])[0]), 6)
    (True, 1.0)
    """
    return complete(
        "gauss_newton",
        M,
        rank,
        gn_from_afar,
        shape=shape,
        weights=weights,
        lam=lam,
        lam_bias=lam_bias,
        weighted_lambda=weighted_lambda,
        bias=bias,
        center=center,
        implicit=implicit,
        alpha=alpha,
        init=init,
        clip=clip,
        x0=x0,
        tol=tol,
        tol_inner=tol_inner,
        ftol=ftol,
        gtol=gtol,
        maxiter=maxiter,
        maxiter_inner=maxiter_inner,
        time_limit=time_limit,
        validation=validation,
        patience=patience,
        certificate=certificate,
        duplicates=duplicates,
        dtype=dtype,
        progress=progress,
        history=history,
        callback=callback,
        rng=rng,
        n_threads=n_threads,
    )


def gn(problem, rank, watch, options, *, tol=None, maxiter=None):
    """Run damped Gauss-Newton steps from `start`; return `Factors`."""
    check_problem(problem)
    watch.begin("gn", tol=tol, maxiter=maxiter)
    x = problem.balance(*start(problem, rank, options))
    return descend(Model, problem, x, watch, options, tol)


def gn_from_afar(problem, rank, watch, options):
    """Run Gauss-Newton steps; where they lead nowhere, once more from after a few sweeps."""
    x = gn(problem, rank, watch, options)
    if watch.ended is Status.CONVERGED or watch.run.status is not None:
        return x
    x = als(problem, rank, watch, replace(options, x0=None), maxiter=SWEEPS)
    if watch.ended is Status.CONVERGED or watch.run.status is not None:
        return x
    return gn(problem, rank, watch, replace(options, x0=problem.start_of(x)))


def descend(model, problem, x, watch, options, tol):
    """Go from `x` down along the damped steps of a `model`; return `Factors`."""
    tol = options.tol if tol is None else tol
    vanished = max(VANISHED, min(tol, SHRUNK)) if problem.lam else VANISHED
    here = model(problem, x, vanished)
    if watch.done(here.relres, here.gradient):
        return here.x
    damping, progress = DAMPING, Progress(PATIENCE)
    for _ in watch.run:
        eta = options.tol_inner or _forcing(here.relres, tol)
        solve, promised = here.step(damping, eta, options.maxiter_inner or STEPS)
        there = model(problem, here.moved(solve.x), vanished)
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
            passes=here.passes * solve.iterations + 5,
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
    passes : int
        Passes over the entries in a step of conjugate gradients.
    """

    passes = 2

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
        core = self._U[:, :k].T @ g[:m, :k] / xp.sqrt(xp.outer(*shares))
        square = problem.be.host(squares - (core**2).sum())
        return math.sqrt(max(square, 0.0)) / gradient_unit(problem)

    def step(self, damping, eta, maxiter):
        """Return the damped step's `LinearSolve`, and the decrease that the model promises."""
        be, xp, m = self.problem.be, self.problem.xp, self.problem.shape[0]
        g, (shift, ridge) = self._slope, self._damped(damping)
        precond = self._precond(ridge)
        out = xp.empty_like(g)

        def product(p):
            p = p.reshape(g.shape)
            self._curvature(p[:m], p[m:], out)
            out[...] += ridge * p
            return out.reshape(-1)

        return solve_damped(be, product, g.reshape(-1), precond, shift, eta, maxiter)

    def _damped(self, damping):
        """Return the damping, in the unit of the curvature, and with the ridge."""
        problem, xp, weight = self.problem, self.problem.xp, self.problem.obs.by_row.weight
        total = weight.sum() if weight.size else problem.size
        mean = total / math.prod(problem.shape) * (self._V**2).sum() / self._V.shape[1]
        shift = damping * float(problem.be.host(mean))
        ridge = xp.full(self._slope.shape, shift, problem.dtype)
        return shift, ridge if self._ridge is None else ridge + self._ridge

    def _precond(self, ridge):
        """Return the map by each row's and each column's own part, or by the diagonal of those."""
        z = self.problem.xp.empty_like(ridge)
        try:
            check_memory(ridge.nbytes * ridge.shape[1] / SHARE, "Blocks", be=self.problem.be)
        except MemoryError:
            diagonal = (self._diagonal() + ridge).reshape(-1)
            return lambda r: r / diagonal
        blocks = self._blocks(ridge)

        def precond(r):
            self._tangent.block_times(blocks, r.reshape(z.shape), z)
            return z.reshape(-1)

        return precond

    def _diagonal(self):
        """Return the diagonal of the model's curvature."""
        problem, xp, m = self.problem, self.problem.xp, self.problem.shape[0]
        U, V = self._U, self._V
        out = xp.empty_like(self._slope)
        for side, F, part in ((problem.obs.by_row, V, out[:m]), (problem.obs.by_col, U, out[m:])):
            weight = side.weight if side.weight.size else xp.ones_like(side.val)
            problem.kernels.times(side.ptr, side.idx, weight, F**2, part)
            if problem.implicit:
                part[...] += (F**2).sum(axis=0)
        return out

    def _blocks(self, ridge):
        """Return the inverse of each row's and each column's own part of the model."""
        problem, xp, m = self.problem, self.problem.xp, self.problem.shape[0]
        U, V = self._U, self._V
        shared = (V.T @ V, U.T @ U) if problem.implicit else (xp.empty((0, 0), U.dtype),) * 2
        blocks = xp.empty((*ridge.shape, U.shape[1]), problem.dtype)
        for side, F, G, d, out in (
            (problem.obs.by_row, V, shared[0], ridge[:m], blocks[:m]),
            (problem.obs.by_col, U, shared[1], ridge[m:], blocks[m:]),
        ):
            self._tangent.block_inverse(side.ptr, side.idx, side.weight, F, G, d, out)
        return blocks

    def _curvature(self, A, B, out):
        """Set `out` to ``J^T W J (A, B)``."""
        problem, tangent, m = self.problem, self._tangent, self.problem.shape[0]
        by_row, by_col, U, V, y = problem.obs.by_row, problem.obs.by_col, self._U, self._V, self._y
        tangent.jac_rows(by_row.ptr, by_row.idx, by_row.weight, U, V, A, B, y, out[:m])
        tangent.jac_cols(by_col.ptr, by_col.idx, by_col.perm, y, U, out[m:])
        if problem.implicit:
            out[:m] += A @ (V.T @ V) + U @ (B.T @ V)
            out[m:] += B @ (U.T @ U) + V @ (A.T @ U)

    @cached_property
    def _y(self):
        return self.problem.xp.empty_like(self.problem.obs.by_row.val)

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


def solve_damped(be, product, g, precond, shift, eta, maxiter):
    """Return the `LinearSolve` of a step, and the decrease that the model promises for it."""
    solve = pcg(product, -g, be=be, precond=precond, tol=eta, maxiter=maxiter)
    # Iterates of conjugate gradients from zero satisfy <d, H d> = -<g, d>.
    slope, square = be.host(g @ solve.x, solve.x @ solve.x)
    return solve, 0.5 * (shift * square - slope)


def truncated(be, A, B, k):
    """Return the `k` leading singular triples of ``A B^T``."""
    U, s, V = svd_of_product(be, A, B)
    # The kernels are compiled for contiguous arrays.
    U, V = (be.xp.ascontiguousarray(F[:, :k]) for F in (U, V))
    return U, s[:k], V
