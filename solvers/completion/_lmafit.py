"""LMaFit: least squares for a filled-in matrix that is never formed, over-relaxed."""

import numpy as np

from ._scaled_gd import Point, check_least_squares, gradient, relative_gradient
from ._start import start

# The residual's fall over an iteration that is too slow: relax more. A step of the relaxation
# grows, or is cut, by these fractions of what exceeds one.
_SLOW, _GROWTH, _CUT = 0.7, 0.25, 0.1
# The gradient costs two passes more, and only noisy data need it.
_LOOK = 5


def lmafit(problem, rank, watch, options, *, tol=None, maxiter=None):
    r"""Run LMaFit; return `Factors`.

    ``Z = X + omega P(M - X)`` fills the holes by the estimate X; a step takes the span of
    ``Z V`` for the columns of U and ``Z^T U`` for V [1]_. Weights enter through
    ``W / max(W)``, which majorises the objective. Products with Z are products with X, of low
    rank, and with the residual, sparse: three passes over the entries and O((m + n) rank^2)
    operations. It knows no ridge and no biases.

    References
    ----------
    .. [1] Z. Wen, W. Yin, Y. Zhang. Solving a low-rank factorization model for matrix completion
       by a nonlinear successive over-relaxation algorithm. Mathematical Programming Computation,
       2012.
    """
    check_least_squares(problem, "lmafit", ridge=False)
    xp, obs = problem.xp, problem.obs
    weight = obs.by_row.weight
    share = weight / weight.max() if weight.size else 1.0
    U, V, a, b = start(problem, rank, options)
    r = problem.residual(U, V, a, b)
    fun, passes = problem.misfit(U, V, r), 0
    omega, increment, lowest = 1.0, 1.0, (np.inf, np.inf)
    watch.begin("lmafit", tol=tol, maxiter=maxiter)
    if watch.done(problem.relres(fun), np.nan):
        return problem.balance(U, V, a, b)
    for nit in watch.run:
        fill = -omega * share * r
        U_new = xp.linalg.qr(U @ (V.T @ V) + _product(problem, obs.by_row, fill, V))[0]
        V_new = V @ (U.T @ U_new) + _product(problem, obs.by_col, fill[obs.by_col.perm], U_new)
        r_new = problem.residual(U_new, V_new, a, b)
        fun_new = problem.misfit(U_new, V_new, r_new)
        fall = np.sqrt(fun_new / fun) if fun > 0.0 else 1.0
        # A step that is not over-relaxed can rise by rounding only.
        rejected = fall >= 1.0 and omega > 1.0
        grad, passes = np.nan, 3
        if rejected:
            increment, omega = _CUT * max(omega - 1.0, increment), 1.0
        else:
            U, V, r, fun = U_new, V_new, r_new, fun_new
            if fall > _SLOW:
                increment = max(increment, _GROWTH * (omega - 1.0))
                omega += increment
        if nit % _LOOK == _LOOK - 1:
            x = Point(U, V, a, b)
            grad, passes = relative_gradient(problem, x, gradient(problem, x, r)), 5
        if watch.record(
            lambda U=U, V=V: (U, V, a, b),
            fun=fun,
            relres=problem.relres(fun),
            grad=grad,
            passes=passes,
            judge=not rejected,
        ):
            break
        if not np.isnan(grad):
            if fun >= lowest[0] and grad >= lowest[1]:
                break
            lowest = min(fun, lowest[0]), min(grad, lowest[1])
    return problem.balance(U, V, a, b)


def _product(problem, side, val, F):
    """Return the product of a sparse matrix with the pattern of the entries and a thin one."""
    out = problem.xp.empty((side.ptr.size - 1, F.shape[1]), F.dtype)
    problem.kernels.times(side.ptr, side.idx, val.astype(F.dtype, copy=False), F, out)
    return out
