"""Least squares with an L1 or elastic penalty, or within bounds: fronts of the solvers."""

import math

from .. import penalties
from .._core.validation import check_flag, check_nonnegative
from ._driver import solve
from ._problem import pose, pose_least_squares

METHODS = ("auto", "bcd", "cd", "anderson")


def lasso(
    X,
    y,
    alpha,
    *,
    positive=False,
    weights=None,
    sample_weight=None,
    fit_intercept=False,
    method="auto",
    partition="variable",
    block_size=None,
    selection="gsq",
    update="auto",
    tol=None,
    maxiter=None,
    x0=None,
    check_every=None,
    callback=None,
    rng=None,
    history=True,
    time_limit=None,
    progress=False,
    n_threads=None,
):
    r"""Least squares with an L1 penalty, to a certified duality gap.

    Minimises :math:`\tfrac{1}{2} \sum_i s_i (y_i - x_i \cdot w - c)^2 + \alpha |w|_1`, with
    sample weights :math:`s_i` that sum to 1.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Rows are samples. Dense in either order and compressed columns are used as they are, other
        sparse formats are converted once.
    y : array, shape (n,)
        Targets.
    alpha : float
        Weight of the absolute values, at least 0; from `alpha_max` on the answer is zero. At 0
        this is least squares.
    positive : bool, default False
        Only coefficients of at least 0.
    weights : array, shape (p,), optional
        Feature weights; they multiply `alpha`, 0 leaves a feature unpenalised.
    sample_weight : array, shape (n,), optional
        Weights of the samples, scaled to sum to 1; equal by default.
    fit_intercept : bool, default False
        Whether to fit an intercept, which is not penalised.
    method : {"auto", "bcd", "cd", "anderson", "lars"}
        "auto" solves small problems in growing sets of coefficients to the end; "bcd" is block
        coordinate descent by the rules below, "cd" and "anderson" are cyclic coordinate
        descent, "lars" follows the path of
        solutions from a large `alpha`.
    partition, block_size, selection, update : optional
        Rules of block coordinate descent, see `minimize`; other than the defaults they turn
        "auto" into "bcd".
    tol : float, optional
        Tolerance of the certificate. Default: 1e-8, in single precision 1e-6.
    maxiter : int, optional
        Largest number of iterations. Default: 100 rounds of "auto", else 10000.
    x0 : array or BlockResult, optional
        Start; made to fit the bounds.
    check_every : int, optional
        Iterations between two checks of "bcd" and "cd".
    callback : callable, optional
        ``callback(intermediate_result)`` after every iteration; a true return value or
        StopIteration ends the run.
    rng : int or numpy.random.Generator, optional
        For rules that draw at random.
    history : bool or int, default True
        Keep the history of every iteration, or of every so many.
    time_limit : float, optional
        Seconds.
    progress : bool, default False
        Show a progress bar.
    n_threads : int, optional
        Threads of kernels and BLAS.

    Returns
    -------
    BlockResult
        With coefficients `x`, `intercept`, and the duality gap as certificate.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    References
    ----------
    .. [1] J. Nutini, I. Laradji, M. Schmidt. Let's make block coordinate descent converge faster.
       JMLR 23(131), 2022. arXiv:1712.08859.
    .. [2] M. Massias, A. Gramfort, J. Salmon. Celer: a fast solver for the lasso with dual
       extrapolation. ICML 2018. arXiv:1802.07481.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bcd
    >>> X = np.eye(3)
    >>> bcd.lasso(X, [3.0, 0.3, -6.0], 0.5).x
    array([ 1.5,  0. , -4.5])
    """
    alpha = check_nonnegative(alpha, "alpha", allow_inf=True)
    problem = pose(
        X,
        y,
        "quadratic",
        _elastic(alpha, 0.0, positive),
        sample_weight=sample_weight,
        weights=weights,
        fit_intercept=fit_intercept,
    )
    return solve(
        "lasso",
        problem,
        methods=(*METHODS, "lars"),
        method=method,
        partition=partition,
        block_size=block_size,
        selection=selection,
        update=update,
        tol=tol,
        maxiter=maxiter,
        x0=x0,
        check_every=check_every,
        callback=callback,
        rng=rng,
        history=history,
        time_limit=time_limit,
        progress=progress,
        n_threads=n_threads,
    )


def elastic_net(
    X,
    y,
    alpha,
    *,
    l1_ratio=0.5,
    positive=False,
    weights=None,
    sample_weight=None,
    fit_intercept=False,
    method="auto",
    partition="variable",
    block_size=None,
    selection="gsq",
    update="auto",
    tol=None,
    maxiter=None,
    x0=None,
    check_every=None,
    callback=None,
    rng=None,
    history=True,
    time_limit=None,
    progress=False,
    n_threads=None,
):
    r"""Least squares with an L1 and a ridge penalty, to a certified duality gap.

    Minimises :math:`\tfrac{1}{2} \sum_i s_i (y_i - x_i \cdot w - c)^2
    + \alpha (\rho |w|_1 + \tfrac{1 - \rho}{2} |w|^2)`, with sample weights :math:`s_i` that sum to
    1 and :math:`\rho` = `l1_ratio`.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Rows are samples. Dense in either order and compressed columns are used as they are, other
        sparse formats are converted once.
    y : array, shape (n,)
        Targets.
    alpha : float
        Weight of the penalty, at least 0.
    l1_ratio : float, default 0.5
        Share of the absolute values, from 0 (ridge) to 1 (lasso).
    positive : bool, default False
        Only coefficients of at least 0.
    weights : array, shape (p,), optional
        Feature weights; they multiply the weight of the absolute values.
    sample_weight : array, shape (n,), optional
        Weights of the samples, scaled to sum to 1; equal by default.
    fit_intercept : bool, default False
        Whether to fit an intercept, which is not penalised.
    method : {"auto", "bcd", "cd", "anderson"}
        "auto" solves small problems in growing sets of coefficients to the end; "bcd" is block
        coordinate descent by the rules below, "cd" and "anderson" are cyclic coordinate
        descent.
    partition, block_size, selection, update : optional
        Rules of block coordinate descent, see `minimize`; other than the defaults they turn
        "auto" into "bcd".
    tol : float, optional
        Tolerance of the certificate. Default: 1e-8, in single precision 1e-6.
    maxiter : int, optional
        Largest number of iterations. Default: 100 rounds of "auto", else 10000.
    x0 : array or BlockResult, optional
        Start; made to fit the bounds.
    check_every : int, optional
        Iterations between two checks of "bcd" and "cd".
    callback : callable, optional
        ``callback(intermediate_result)`` after every iteration; a true return value or
        StopIteration ends the run.
    rng : int or numpy.random.Generator, optional
        For rules that draw at random.
    history : bool or int, default True
        Keep the history of every iteration, or of every so many.
    time_limit : float, optional
        Seconds.
    progress : bool, default False
        Show a progress bar.
    n_threads : int, optional
        Threads of kernels and BLAS.

    Returns
    -------
    BlockResult
        With coefficients `x`, `intercept`, and the duality gap as certificate.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    References
    ----------
    .. [1] J. Nutini, I. Laradji, M. Schmidt. Let's make block coordinate descent converge faster.
       JMLR 23(131), 2022. arXiv:1712.08859.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bcd
    >>> X = np.eye(3)
    >>> bcd.elastic_net(X, [3.0, 0.3, -6.0], 1.0, l1_ratio=0.5).x.round(3)
    array([ 0.6,  0. , -1.8])
    """
    alpha = check_nonnegative(alpha, "alpha", allow_inf=True)
    l1_ratio = check_nonnegative(l1_ratio, "l1_ratio")
    if l1_ratio > 1.0:
        raise ValueError(f"`l1_ratio` came as {l1_ratio}; expected a number in [0, 1]")
    # An infinite strength leaves a share of 0 what it is.
    l1, ridge = (alpha * share if share else 0.0 for share in (l1_ratio, 1.0 - l1_ratio))
    problem = pose(
        X,
        y,
        "quadratic",
        _elastic(l1, ridge, positive),
        sample_weight=sample_weight,
        weights=weights,
        fit_intercept=fit_intercept,
    )
    return solve(
        "elastic_net",
        problem,
        methods=METHODS,
        method=method,
        partition=partition,
        block_size=block_size,
        selection=selection,
        update=update,
        tol=tol,
        maxiter=maxiter,
        x0=x0,
        check_every=check_every,
        callback=callback,
        rng=rng,
        history=history,
        time_limit=time_limit,
        progress=progress,
        n_threads=n_threads,
    )


def nnls(
    A,
    b,
    *,
    method="auto",
    partition="variable",
    block_size=None,
    selection="gsq",
    update="auto",
    tol=None,
    maxiter=None,
    x0=None,
    check_every=None,
    callback=None,
    rng=None,
    history=True,
    time_limit=None,
    progress=False,
    n_threads=None,
):
    r"""Non-negative least squares, to certified optimality conditions.

    Minimises :math:`\tfrac{1}{2} |A x - b|^2` over :math:`x \ge 0`.

    Parameters
    ----------
    A : array or sparse matrix, shape (n, p)
        Dense in either order or compressed columns; other sparse formats are converted once.
    b : array, shape (n,)
        Right-hand side.
    method : {"auto", "bcd", "cd", "anderson"}
        "auto" solves small problems in growing sets of coefficients to the end; "bcd" is block
        coordinate descent by the rules below, "cd" and "anderson" are cyclic coordinate
        descent.
    partition, block_size, selection, update : optional
        Rules of block coordinate descent, see `minimize`; other than the defaults they turn
        "auto" into "bcd".
    tol : float, optional
        Tolerance of the certificate. Default: 1e-8, in single precision 1e-6.
    maxiter : int, optional
        Largest number of iterations. Default: 100 rounds of "auto", else 10000.
    x0 : array or BlockResult, optional
        Start; made to fit the bounds.
    check_every : int, optional
        Iterations between two checks of "bcd" and "cd".
    callback : callable, optional
        ``callback(intermediate_result)`` after every iteration; a true return value or
        StopIteration ends the run.
    rng : int or numpy.random.Generator, optional
        For rules that draw at random.
    history : bool or int, default True
        Keep the history of every iteration, or of every so many.
    time_limit : float, optional
        Seconds.
    progress : bool, default False
        Show a progress bar.
    n_threads : int, optional
        Threads of kernels and BLAS.

    Returns
    -------
    BlockResult
        With the unknowns `x` and the violation of the optimality conditions as certificate.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    References
    ----------
    .. [1] J. Nutini, I. Laradji, M. Schmidt. Let's make block coordinate descent converge faster.
       JMLR 23(131), 2022. arXiv:1712.08859.

    Examples
    --------
    >>> from solvers import bcd
    >>> bcd.nnls([[1.0, 0.0], [0.0, 1.0]], [2.0, -1.0]).x
    array([2., 0.])
    """
    problem = pose_least_squares(A, b, bounds=(0.0, math.inf))
    return solve(
        "nnls",
        problem,
        methods=METHODS,
        method=method,
        partition=partition,
        block_size=block_size,
        selection=selection,
        update=update,
        tol=tol,
        maxiter=maxiter,
        x0=x0,
        check_every=check_every,
        callback=callback,
        rng=rng,
        history=history,
        time_limit=time_limit,
        progress=progress,
        n_threads=n_threads,
    )


def bvls(
    A,
    b,
    bounds,
    *,
    method="auto",
    partition="variable",
    block_size=None,
    selection="gsq",
    update="auto",
    tol=None,
    maxiter=None,
    x0=None,
    check_every=None,
    callback=None,
    rng=None,
    history=True,
    time_limit=None,
    progress=False,
    n_threads=None,
):
    r"""Least squares within bounds, to certified optimality conditions.

    Minimises :math:`\tfrac{1}{2} |A x - b|^2` over :math:`l \le x \le u`.

    Parameters
    ----------
    A : array or sparse matrix, shape (n, p)
        Dense in either order or compressed columns; other sparse formats are converted once.
    b : array, shape (n,)
        Right-hand side.
    bounds : (lo, hi)
        Numbers or arrays of shape (p,); infinite ones are legal.
    method : {"auto", "bcd", "cd", "anderson"}
        "auto" solves small problems in growing sets of coefficients to the end; "bcd" is block
        coordinate descent by the rules below, "cd" and "anderson" are cyclic coordinate
        descent.
    partition, block_size, selection, update : optional
        Rules of block coordinate descent, see `minimize`; other than the defaults they turn
        "auto" into "bcd".
    tol : float, optional
        Tolerance of the certificate. Default: 1e-8, in single precision 1e-6.
    maxiter : int, optional
        Largest number of iterations. Default: 100 rounds of "auto", else 10000.
    x0 : array or BlockResult, optional
        Start; made to fit the bounds.
    check_every : int, optional
        Iterations between two checks of "bcd" and "cd".
    callback : callable, optional
        ``callback(intermediate_result)`` after every iteration; a true return value or
        StopIteration ends the run.
    rng : int or numpy.random.Generator, optional
        For rules that draw at random.
    history : bool or int, default True
        Keep the history of every iteration, or of every so many.
    time_limit : float, optional
        Seconds.
    progress : bool, default False
        Show a progress bar.
    n_threads : int, optional
        Threads of kernels and BLAS.

    Returns
    -------
    BlockResult
        With the unknowns `x` and the violation of the optimality conditions as certificate.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    References
    ----------
    .. [1] J. Nutini, I. Laradji, M. Schmidt. Let's make block coordinate descent converge faster.
       JMLR 23(131), 2022. arXiv:1712.08859.

    Examples
    --------
    >>> from solvers import bcd
    >>> bcd.bvls([[1.0, 0.0], [0.0, 1.0]], [2.0, -1.0], (-0.5, 0.5)).x
    array([ 0.5, -0.5])
    """
    problem = pose_least_squares(A, b, bounds=bounds)
    return solve(
        "bvls",
        problem,
        methods=METHODS,
        method=method,
        partition=partition,
        block_size=block_size,
        selection=selection,
        update=update,
        tol=tol,
        maxiter=maxiter,
        x0=x0,
        check_every=check_every,
        callback=callback,
        rng=rng,
        history=history,
        time_limit=time_limit,
        progress=progress,
        n_threads=n_threads,
    )


def _elastic(alpha, ridge, positive):
    """Return the penalty as an `ElasticBox`."""
    lo = 0.0 if check_flag(positive, "positive") else -math.inf
    return penalties.ElasticBox(alpha, ridge, lo)
