"""Scaled gradient descent: in its metric all singular directions weigh the same."""

from typing import Any, NamedTuple

import numpy as np

from ._driver import complete
from ._start import start

# Steps after which the residual is computed afresh: updating it adds a rounding error each time.
_REFRESH = 20
# Damping of the metric, in estimated errors per singular direction.
_DAMPING = 0.1
# Rows of the iterates may be this many times as long as the data lets the longest row be.
_LONGEST = 2.0


def scaled_gd(
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
    init="svd",
    clip=None,
    x0=None,
    tol=1e-8,
    ftol=0.0,
    gtol=0.0,
    maxiter=2000,
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
    r"""Complete a matrix of low rank by scaled gradient descent.

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
    init : {"svd", "random"}, default "svd"
        Start from singular vectors of the observed entries, or from noise.
    clip : {None, "row", "entry"}, default None
        Curb rows, or entries, of the start that stand out. With "row", rows of all iterates are
        projected onto the largest norm that the data leaves plausible, which proofs ask for.
    x0 : CompletionResult or tuple of arrays, optional
        Start ``(U0, V0)`` or ``(U0, s0, V0)`` of at most `rank` columns.
    tol : float, default 1e-8
        Tolerance of the certificate.
    ftol, gtol : float, default 0.0
        End the run when the objective changes by less than `ftol`, relatively, in an iteration;
        when the relative gradient is below `gtol`. Neither makes it a success.
    maxiter : int, default 2000
        Largest number of iterations.
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
    The gradient for a row of A is multiplied by the inverse of ``B^T B``, times the row's share
    of observed entries, plus ridge [1]_: near a solution the rate does not depend on the ratio
    of its singular values. Where `rank` is too large ``B^T B`` becomes singular; it is damped in
    proportion to the residual [2]_, which does no harm where `rank` is right. Beyond the papers,
    directions are made conjugate (Polak and Ribiere), and the step is the best there is: along a
    line the objective is a polynomial of degree four, whose coefficients cost one pass.

    An iteration is three passes over the entries: O(N rank) operations and O((m + n) rank^2)
    beside them, against O(N rank^2) of exact alternating minimisation. Memory: N numbers
    thrice, beside the entries. Use it for large ranks, or many entries in each row, and easy
    spectra; far from a solution, with few entries, or with singular values that differ by
    factors of 100, `matrix_irls` and `gauss_newton` are the better choice.

    References
    ----------
    .. [1] T. Tong, C. Ma, Y. Chi. Accelerating ill-conditioned low-rank matrix estimation via
       scaled gradient descent. Journal of Machine Learning Research, 2021. arXiv:2005.08898.
    .. [2] X. Xu, Y. Shen, Y. Chi, C. Ma. The power of preconditioning in overparameterized
       low-rank matrix sensing. ICML 2023. arXiv:2302.01186.

    Examples
    --------
    >>> import numpy as np
    >>> import solvers
    >>> M = np.outer([1.0, 2.0, 3.0], [1.0, -1.0, 2.0])
    >>> M[0, 0] = np.nan
    >>> res = solvers.completion.scaled_gd(M, 1)
    >>> res.success, round(float(res.predict([0], [0])[0]), 6)
    (True, 1.0)
    """
    return complete(
        "scaled_gd",
        M,
        rank,
        scaled_gradient_descent,
        shape=shape,
        weights=weights,
        lam=lam,
        lam_bias=lam_bias,
        weighted_lambda=weighted_lambda,
        bias=bias,
        center=center,
        init=init,
        clip=clip,
        x0=x0,
        tol=tol,
        ftol=ftol,
        gtol=gtol,
        maxiter=maxiter,
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


def scaled_gradient_descent(problem, rank, watch, options, *, tol=None, maxiter=None):
    """Run scaled gradient descent with conjugate directions; return `Factors`."""
    check_least_squares(problem, "scaled_gd")
    line = Line(problem)
    x = Point(*start(problem, rank, options))
    r = problem.residual(*x)
    slope = gradient(problem, x, r)
    longest = _longest_row(problem) if options.clip == "row" else None
    watch.begin("scaled_gd", tol=tol, maxiter=maxiter)
    relres = problem.relres(problem.misfit(x.A, x.B, r))
    if watch.done(relres, relative_gradient(problem, x, slope)):
        return problem.balance(*x)
    before = direction = None
    lowest = np.inf, np.inf
    for nit in watch.run:
        scaled = line.scaled(slope, x, r)
        direction = _conjugate(slope, scaled, before, direction)
        before = scaled, _dot(slope, scaled)
        t, r = line.search(x, direction, r, slope)
        if t == 0.0:
            # No step, of any length, makes the objective smaller: rounding.
            break
        x = Point(*(part + x.A.dtype.type(t) * d for part, d in zip(x, direction, strict=True)))
        refreshed = nit % _REFRESH == _REFRESH - 1
        if longest is not None and problem.be.host(_shorten(problem.xp, x, longest)):
            r, before = problem.residual(*x), None
        elif refreshed:
            r = problem.residual(*x)
        slope = gradient(problem, x, r)
        misfit, grad = problem.misfit(x.A, x.B, r), relative_gradient(problem, x, slope)
        fun = misfit + problem.penalty(*x)
        if watch.record(
            lambda x=x: x, fun=fun, relres=problem.relres(misfit), grad=grad, passes=3
        ):
            break
        if refreshed:
            if fun >= lowest[0] and grad >= lowest[1]:
                break
            lowest = fun, grad
    return problem.balance(*x)


class Point(NamedTuple):
    """Factors and biases, or a direction in which they move; biases may be empty."""

    A: Any
    B: Any
    a: Any
    b: Any


class Line:
    """The objective along lines, in the metric of scaled gradient descent.

    Parameters
    ----------
    problem : Completion
    """

    def __init__(self, problem):
        self.problem = problem
        xp, obs = problem.xp, problem.obs
        m, n = problem.shape
        # A row's Hessian is about its share of what all columns contribute.
        rows, cols = (_totals(xp, side) for side in (obs.by_row, obs.by_col))
        self._totals = rows, cols
        self._shares = rows / n, cols / m
        self._kernels = problem.be.kernels("solvers.completion", "descent")
        self._slope, self._bend = (xp.empty_like(obs.by_row.val) for _ in range(2))

    def scaled(self, gradient, x, r):
        """Return the gradient in the metric: the Hessian's diagonal blocks, as if sampled evenly.

        Damping by the error that the residual stands for keeps directions apart that `x` hardly
        has, until it has them.
        """
        problem, (gA, gB, ga, gb) = self.problem, gradient
        xp, (rows, cols) = problem.xp, self._shares
        error = xp.linalg.norm(r) / np.sqrt(problem.density * 2.0 * x.A.shape[1])
        damping = _DAMPING * error
        pA = _over(xp, gA, x.B.T @ x.B, rows, damping, problem.row_ridge)
        pB = _over(xp, gB, x.A.T @ x.A, cols, damping, problem.col_ridge)
        if not ga.size:
            return Point(pA, pB, ga, gb)
        down, across = (total + problem.lam_bias for total in self._totals)
        pa, pb = ga / xp.where(down > 0, down, 1.0), gb / xp.where(across > 0, across, 1.0)
        return Point(pA, pB, pa.astype(ga.dtype), pb.astype(gb.dtype))

    def search(self, x, direction, r, gradient):
        """Return the best step along `direction`, and the residual there."""
        problem, side = self.problem, self.problem.obs.by_row
        (A, B), (dA, dB) = (
            _with_biases(problem.xp, x),
            _with_biases(problem.xp, direction, moving=True),
        )
        slope, bend = self._slope, self._bend
        sums = self._kernels.along(side.ptr, side.idx, r, side.weight, A, B, dA, dB, slope, bend)
        slope_squared, with_bend, mixed, bend_squared = problem.be.host(sums)
        coefficients = np.array(
            [
                0.0,
                # The gradient has the ridge, and no cancellation, in its inner product.
                float(problem.be.host(_dot(gradient, direction))),
                0.5 * slope_squared + with_bend + problem.penalty(*direction),
                mixed,
                0.5 * bend_squared,
            ]
        )
        t = best_step(coefficients)
        if t == 0.0:
            return t, r
        return t, r + slope.dtype.type(t) * (slope + slope.dtype.type(t) * bend)


def best_step(coefficients):
    """Return where a polynomial of degree four, given from its constant upwards, is smallest."""
    polynomial = np.polynomial.Polynomial(coefficients)
    slope = polynomial.deriv().trim()
    if slope.degree() < 1 or not np.isfinite(coefficients).all():
        return 0.0
    roots = slope.roots()
    # A double root may come as a pair with tiny imaginary parts.
    candidates = np.append(roots.real, 0.0)
    return float(candidates[np.argmin(polynomial(candidates))])


def check_least_squares(problem, method, ridge=True):
    """Refuse the problems that a method for least squares, with a ridge or not, cannot solve."""
    wrong = {
        "implicit": problem.implicit,
        "bias": problem.biased and not ridge,
        "lam": problem.lam and not ridge,
    }
    for name, given in wrong.items():
        if given:
            raise ValueError(
                f"`{name}` came with method={method!r}; expected its default there, or "
                "method='altmin'"
            )


def gradient(problem, x, r):
    """Return the gradient at `x`, whose residual is `r`."""
    A, B, a, b = x
    by_row, by_col = problem.obs.by_row, problem.obs.by_col
    k, r = A.shape[1], r * by_row.weight if by_row.weight.size else r
    left, right = _with_biases(problem.xp, x)
    gA, gB = problem.xp.empty_like(left), problem.xp.empty_like(right)
    problem.kernels.times(by_row.ptr, by_row.idx, r, right, gA)
    problem.kernels.times(by_col.ptr, by_col.idx, r[by_col.perm], left, gB)
    ga, gb = a, b
    if a.size:
        ga, gb = gA[:, k] + problem.lam_bias * a, gB[:, k + 1] + problem.lam_bias * b
        gA, gB = gA[:, :k], gB[:, :k]
    if problem.lam:
        gA, gB = gA + problem.row_ridge[:, None] * A, gB + problem.col_ridge[:, None] * B
    return Point(gA, gB, ga, gb)


def relative_gradient(problem, x, at_x):
    """Return the relative norm of the projected gradient, from the gradient for A and B.

    ``R V`` has the norm of ``R B (B^T B)^-1/2``, whatever the gauge of A and B.
    """
    (A, B, _, _), (gA, gB, ga, gb) = x, at_x
    xp = problem.xp
    d, e = (
        xp.where(s > 0, s, 1.0).astype(A.dtype)[:, None] if problem.lam else 1.0
        for s in (problem.row_scale, problem.col_scale)
    )
    over_A, over_B = _inverse(xp, A.T @ (d * A)), _inverse(xp, B.T @ (e * B))
    core = A.T @ gA
    square = ((gA @ over_B) * gA / d).sum() + ((gB @ over_A) * gB / e).sum()
    square -= ((over_A @ core @ over_B) * core).sum()
    if ga.size:
        m, n = problem.shape
        square = square + xp.square(ga).sum() / n + xp.square(gb).sum() / m
    return float(np.sqrt(max(problem.be.host(square), 0.0)) / problem.slope)


def _with_biases(xp, x, moving=False):
    """Return factors whose product contains the biases: two more columns, one of ones."""
    A, B, a, b = x
    if not a.size:
        return A, B
    one = xp.zeros_like if moving else xp.ones_like
    return (
        xp.concatenate([A, a[:, None], one(a)[:, None]], axis=1),
        xp.concatenate([B, one(b)[:, None], b[:, None]], axis=1),
    )


def _conjugate(gradient, scaled, before, direction):
    """Return the next direction: Polak and Ribiere's, or the steepest where that is none."""
    steepest = Point(*(-part for part in scaled))
    if before is None:
        return steepest
    last, square = before
    share = (_dot(gradient, scaled) - _dot(gradient, last)) / square
    # On the device, without asking what the share is: below 0 it begins anew.
    share = share * (share > 0)
    return Point(
        *(s + share.astype(s.dtype) * d for s, d in zip(steepest, direction, strict=True))
    )


def _dot(x, y):
    return sum((p * q).sum(dtype=np.float64) for p, q in zip(x, y, strict=True))


def _totals(xp, side):
    """Return the sum of the weights in each row."""
    counts = xp.diff(side.ptr).astype(side.val.dtype)
    if not side.weight.size:
        return counts
    total = xp.zeros(side.weight.size + 1)
    xp.cumsum(side.weight, dtype=np.float64, out=total[1:])
    return (total[side.ptr[1:]] - total[side.ptr[:-1]]).astype(side.val.dtype)


def _over(xp, G, gram, shares, damping, ridge):
    """Return each row of G over ``share (gram + damping I) + ridge I``."""
    values, Q = xp.linalg.eigh(gram)
    values = xp.maximum(values, 0.0) + damping
    scale = shares[:, None] * values + ridge[:, None]
    return (((G @ Q) / xp.where(scale > 0, scale, 1.0)) @ Q.T).astype(G.dtype)


def _inverse(xp, gram):
    """Return the inverse of a Gram matrix, on its range."""
    values, Q = xp.linalg.eigh(gram)
    kept = values > values.size * np.finfo(gram.dtype).eps * values[-1]
    return (Q * xp.where(kept, 1.0 / xp.where(kept, values, 1.0), 0.0).astype(gram.dtype)) @ Q.T


def _longest_row(problem):
    """Return bounds for the norms of rows and of columns: what the entries make plausible."""
    xp, obs = problem.xp, problem.obs
    m, n = problem.shape
    squares = obs.with_values(xp.square(obs.by_row.val), obs.by_row.weight)
    bounds = []
    for side, length in ((squares.by_row, n), (squares.by_col, m)):
        total = _totals(xp, side._replace(weight=side.val))
        mean = total / xp.maximum(xp.diff(side.ptr), 1)
        bounds.append(_LONGEST * xp.sqrt(length * mean.max()))
    return bounds


def _shorten(xp, x, longest):
    """Scale rows of A and B down, in place, where those of ``A B^T`` are too long."""
    before = None
    for F, other, bound in ((x.A, x.B, longest[0]), (x.B, x.A, longest[1])):
        norms = xp.sqrt(xp.maximum(((F @ (other.T @ other)) * F).sum(axis=1), 0.0))
        share = xp.minimum(bound / xp.maximum(norms, bound), 1.0)
        xp.multiply(F, share[:, None], out=F)
        before = share.min() if before is None else xp.minimum(before, share.min())
    return before < 1.0
