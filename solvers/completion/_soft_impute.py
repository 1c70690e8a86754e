"""The nuclear-norm problem: convex, solved by ridge factors of growing rank, to a duality gap."""

from dataclasses import replace

from .._core.result import Status
from .._core.validation import check_count, check_positive
from ._driver import complete
from ._factors import svd_of_product
from ._scaled_gd import scaled_gradient_descent
from ._start import start

# Singular directions that are looked for at a time, at first; steps of the search before its
# first look at what it has found, and most steps.
_WIDTH, _DEPTH, _MOST = 8, 4, 32
# Relative accuracy of the first fit, and how much finer the next one is.
_ROUGH, _FINER = 0.1, 0.03
# Iterations before columns are looked at again: those that are not needed hold up the rest.
_SWEEPS = 25
# Part of the tolerance that the gradient may use up.
_PART = 0.3
# A direction whose singular value is this part of the accuracy, times lam, is dropped.
_NEGLIGIBLE = 0.1


def soft_impute(
    M,
    lam,
    *,
    rank_max=None,
    shape=None,
    weights=None,
    lam_bias=None,
    weighted_lambda=False,
    bias=False,
    center=None,
    x0=None,
    tol=1e-8,
    maxiter=500,
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
    r"""Complete a matrix by nuclear-norm regularisation, to a certified global optimum.

    Minimises :math:`\tfrac{1}{2} \sum_\Omega w_{ij} (X_{ij} - M_{ij})^2 + \lambda |X|_*` over all
    matrices X. The problem is convex; it finds the rank by itself.

    Parameters
    ----------
    M : sparse matrix, (rows, cols, vals), masked array, or array with NaN
        The matrix; stored entries, zeros among them, are observed.
    lam : float
        Weight of the nuclear norm, positive, in the unit of `M`. From the spectral norm of the
        (weighted) entries on the answer is zero; half of it to a tenth is usual.
    rank_max : int, optional
        Largest rank that may be used. Default: no limit. If the answer needs more, the certificate
        does not hold and the message says so.
    shape : (int, int), optional
        Its shape; required for triples.
    weights : array, optional
        Weights of the entries, non-negative, in their order; entries of weight 0 are left out.
    lam_bias : float, optional
        Ridge on the biases. Default: `lam`.
    weighted_lambda : bool, default False
        Penalise the trace norm weighted by the number of entries of each row and column; `lam`
        has no unit then.
    bias : bool, default False
        Fit a bias for each row and each column too.
    center : bool, optional
        Subtract the mean of the entries. Default: `bias`.
    x0 : CompletionResult or tuple of arrays, optional
        Start ``(U0, V0)`` or ``(U0, s0, V0)``, such as the answer for a larger `lam`.
    tol : float, default 1e-8
        Largest duality gap, relative to the objective.
    maxiter : int, default 500
        Largest number of sweeps, all ranks together.
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
        Randomness of the search for directions.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    CompletionResult
        The matrix ``U diag(s) V^T``, of the rank that it found, with its duality gap as the
        certificate.

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
    For factors with enough columns the ridge ``lam / 2 (|A|^2 + |B|^2)`` is the nuclear norm of
    ``A B^T`` [1]_. Alternating minimisation solves the problem for few columns; singular values
    above `lam` of the residual then tell directions in which the objective falls, which become
    columns, until there are none: at that point the residual, scaled, is a feasible point of the
    dual problem, and proves the answer optimal up to the gap. Columns whose singular value goes to
    zero are dropped.

    A sweep costs O(N k^2 + (m + n) k^3) operations for k columns, a search O(N) for each of a few
    dozen vectors; memory is O(N + (m + n) k). Nothing of size m x n is formed. Use it where no
    rank is known, or where a proof is wanted; where `lam` is so small that k comes near the
    matrix's smaller side a dense method is as good.

    For the answers along a path, go from large to small `lam` with ``x0=`` the last result.

    References
    ----------
    .. [1] T. Hastie, R. Mazumder, J. D. Lee, R. Zadeh. Matrix completion and low-rank SVD via
       fast alternating least squares. Journal of Machine Learning Research, 2015.
       arXiv:1410.2596.

    Examples
    --------
    >>> import numpy as np
    >>> import solvers
    >>> M = np.diag([3.0, 2.0, 1.0])
    >>> res = solvers.completion.soft_impute(M, 0.5)
    >>> res.success, res.s.round(6)
    (True, array([2.5, 1.5, 0.5]))
    """
    lam = check_positive(lam, "lam")
    rank_max = check_count(rank_max, "rank_max", minimum=1, allow_none=True)

    def pipeline(problem, rank, watch, options):
        return nuclear(problem, min(rank, rank_max or rank), watch, options)

    return complete(
        "soft_impute",
        M,
        None,
        pipeline,
        shape=shape,
        weights=weights,
        lam=lam,
        lam_bias=lam_bias,
        weighted_lambda=weighted_lambda,
        bias=bias,
        center=center,
        x0=x0,
        tol=tol,
        maxiter=maxiter,
        time_limit=time_limit,
        validation=validation,
        patience=patience,
        certificate=("gap",),
        duplicates=duplicates,
        dtype=dtype,
        progress=progress,
        history=history,
        callback=callback,
        rng=rng,
        n_threads=n_threads,
    )


def nuclear(problem, rank, watch, options, *, engine=scaled_gradient_descent):
    """Minimise over all matrices of at most this rank, by factors of growing rank.

    The gap is about the relative distance of the gradient from its bound, so fits need not be
    finer than the search for directions that they are for, and become so by degrees.
    """
    finest = _PART * options.tol
    accuracy = max(_ROUGH, finest)
    size = problem.lam / problem.slope
    search = Search(problem, options.rng)
    point = _beginning(problem, search, rank, options)
    while True:
        point = _with_a_column(problem, point)
        k = point[0].shape[1]
        goal = {"tol": accuracy * size, "maxiter": _SWEEPS if accuracy == _ROUGH else 2 * _SWEEPS}
        x = engine(problem, k, watch, replace(options, x0=point), **goal)
        if watch.run.status is not None or watch.ended is None:
            return x
        point = search.trimmed(x, _NEGLIGIBLE * accuracy * problem.lam)
        new = search.above(point, 1.0 + accuracy, rank - point[0].shape[1])
        if new is not None:
            point = search.widened(point, *new)
        elif watch.ended is Status.MAXITER:
            continue
        elif accuracy > finest:
            accuracy = max(_FINER * accuracy, finest)
        else:
            break
    if search.full:
        watch.run.end(
            Status.STALLED, f"The answer needs more than {rank} columns: raise `rank_max`."
        )
    return problem.balance(*_with_a_column(problem, point))


def _beginning(problem, search, rank, options):
    """Return factors and biases to begin with: all directions in which zero can be improved."""
    if options.x0 is not None:
        columns = options.x0[0].shape[1]
        if columns > rank:
            raise ValueError(
                f"`x0` came with {columns} columns; expected at most `rank_max` = {rank}"
            )
        return options.x0
    A, B, a, b = start(problem, 1, options)
    nothing = A[:, :0], B[:, :0], a, b
    new = search.above(nothing, 1.0, rank)
    return nothing if new is None else (*new, a, b)


def _with_a_column(problem, point):
    """Return factors with a column of zeros if they have none: engines ask for one."""
    A, B, a, b = point
    if A.shape[1]:
        return point
    return *(problem.xp.zeros((len(F), 1), problem.dtype) for F in (A, B)), a, b


class Search:
    """Finds directions off the span of an iterate in which the objective falls.

    Off the span the gradient is the weighted residual; singular values of it above ``lam`` tell
    such directions. (Where rows and columns count differently in the ridge, those of
    ``diag(D)^-1/2 R diag(E)^-1/2``.)

    Parameters
    ----------
    problem : Completion
    rng : numpy.random.Generator

    Attributes
    ----------
    full : bool
        Whether there were such directions when last asked, but no room for them.
    """

    def __init__(self, problem, rng):
        self.problem, self._rng, self.full = problem, rng, False
        self._width, self._last = _WIDTH, problem.xp.empty((problem.shape[1], 0))
        xp, obs = problem.xp, problem.obs
        self._d, self._e = (
            xp.where(scale > 0, 1.0 / xp.sqrt(scale), 0.0).astype(problem.dtype)
            if problem.weighted
            else xp.ones(scale.size, problem.dtype)
            for scale in (problem.row_scale, problem.col_scale)
        )
        self._share = self._d[obs.rows] * self._e[obs.cols] if problem.weighted else 1.0

    def above(self, point, factor, room):
        """Return columns to append, or None: those with values above `factor` times lam.

        As factors A and B of about the best size.
        """
        problem, lam = self.problem, self.problem.lam
        if point[0].shape[1] == min(problem.shape):
            self.full = False
            return None
        U, s, V = self._leading(point, factor * lam)
        found = problem.be.host(s) > factor * lam
        count = int(found.sum())
        self.full = count > 0 and room == 0
        if count == len(found):
            # There may be more: look wider the next time.
            self._width *= 2
        count = min(count, room)
        return self._columns(U, s - lam, V, count) if count else None

    def grown(self, point, count):
        """Return factors and biases with so many more columns, from a residual without ridge."""
        self._width = max(self._width, count)
        U, s, V = self._leading(point, 0.0)
        return self.widened(point, *self._columns(U, s, V, count))

    def _columns(self, U, slopes, V, count):
        """Return columns of A and B that go down each of the first slopes to its lowest point."""
        U, V = self._d[:, None] * U[:, :count], self._e[:, None] * V[:, :count]
        root = self.problem.xp.sqrt(slopes[:count] / self._curvature(U, V))
        return U * root, V * root

    def trimmed(self, x, least):
        """Return factors and biases of an answer, less the directions smaller than `least`."""
        problem, xp = self.problem, self.problem.xp
        A, B = problem.balanced(x)
        sizes = problem.be.host(xp.square(_over(xp, A, self._d)).sum(axis=0))
        kept = int((sizes > least).sum())
        return A[:, :kept], B[:, :kept], x.row_bias, x.col_bias

    def widened(self, point, A, B):
        """Return factors and biases with more columns."""
        (A0, B0, a, b), xp = point, self.problem.xp
        return xp.concatenate([A0, A], axis=1), xp.concatenate([B0, B], axis=1), a, b

    def _curvature(self, U, V):
        """Return the objective's second derivative along each ``u v^T``."""
        problem, xp = self.problem, self.problem.xp
        side, out = problem.obs.by_row, self.problem.xp.empty_like(U)
        w = side.weight if side.weight.size else xp.ones_like(side.val)
        problem.kernels.times(side.ptr, side.idx, w, xp.square(V), out)
        total = (xp.square(U) * out).sum(axis=0)
        return total + 1.0 if problem.implicit else total

    def _leading(self, point, bound):
        """Return leading singular triples by block Lanczos steps with a random start.

        It goes on until one is above `bound`, or its error says that none will be.
        """
        problem, xp = self.problem, self.problem.xp
        (m, n), room = problem.shape, min(problem.shape) - point[0].shape[1]
        product, adjoint, V0 = self._residual(point)
        # Where a few steps would fill the space, one step with all of it gives the values exactly.
        width = room if room <= _DEPTH * self._width else self._width
        basis, images = xp.zeros((n, 0), problem.dtype), xp.zeros((m, 0), problem.dtype)
        Q = xp.asarray(self._rng.standard_normal((n, width)), dtype=problem.dtype)
        # What was found last is a good start, if something is there that it does not know.
        known = min(self._last.shape[1], width // 2)
        Q[:, :known] = self._last[:, :known]
        look = 0 if width == room else _DEPTH - 1
        while True:
            # Twice is enough to keep the basis orthonormal.
            for _ in range(2):
                Q = Q - V0 @ (V0.T @ Q) - basis @ (basis.T @ Q)
                Q = xp.linalg.qr(Q)[0]
            image = product(Q)
            basis = xp.concatenate([basis, Q], axis=1)
            images = xp.concatenate([images, image], axis=1)
            Q = adjoint(image)
            steps, full = basis.shape[1] // width, basis.shape[1] + width > room
            if steps <= look and not full:
                continue
            U, s, W = xp.linalg.svd(images, full_matrices=False)
            V = basis @ W[:width].T
            error = xp.linalg.norm(adjoint(U[:, :1]) - s[0] * V[:, :1])
            largest, error = problem.be.host(s[0], error)
            if full or largest > bound or largest + error <= bound or steps >= _MOST:
                self._last = V
                return U[:, :width], s[:width], V
            look = 2 * steps

    def _residual(self, point):
        """Return products with minus the scaled gradient off the span, and the span of columns."""
        problem, xp = self.problem, self.problem.xp
        (m, n), by_row, by_col = problem.shape, problem.obs.by_row, problem.obs.by_col
        A, B, a, b = point
        r = problem.residual(A, B, a, b) * (-self._share)
        r = (r * by_row.weight if by_row.weight.size else r).astype(problem.dtype)
        transposed = r[by_col.perm]
        U, s, V = svd_of_product(problem.be, _over(xp, A, self._d), _over(xp, B, self._e))
        count = int((problem.be.host(s) > 0.0).sum())
        U, V = U[:, :count], V[:, :count]

        def product(Q):
            out = xp.empty((m, Q.shape[1]), problem.dtype)
            problem.kernels.times(by_row.ptr, by_row.idx, r, Q, out)
            return out - U @ (U.T @ out)

        def adjoint(Q):
            out = xp.empty((n, Q.shape[1]), problem.dtype)
            problem.kernels.times(by_col.ptr, by_col.idx, transposed, Q, out)
            return out - V @ (V.T @ out)

        return product, adjoint, V


def _over(xp, F, d):
    """Return ``diag(d)^-1 F``; rows with d = 0 are zero."""
    return F * xp.where(d > 0, 1.0 / xp.where(d > 0, d, 1.0), 0.0).astype(F.dtype)[:, None]
