"""Classes of two, robust regression and penalties that are not convex: fronts of the solvers."""

from .. import losses, penalties
from .._core.validation import check_choice, check_nonnegative, check_positive
from ._driver import solve
from ._problem import pose

METHODS = ("auto", "bcd", "cd", "anderson")
_PENALTIES = ("l1", "l2", "enet", "mcp", "scad", "group", None)
# Where a concave penalty has no slope any more, in multiples of alpha. The logistic loss bends a
# quarter as much as squares do.
_GAMMA = {"mcp": 3.0, "scad": 3.7}
_LOGISTIC_GAMMA = {"mcp": 12.0, "scad": 14.8}


def logistic(
    X,
    y,
    alpha,
    *,
    penalty="l1",
    l1_ratio=None,
    gamma=None,
    groups=None,
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
    r"""Logistic regression with a penalty, to a certified duality gap.

    Minimises :math:`\sum_i s_i \log(1 + \exp(-y_i (x_i \cdot w + c))) + G(w)` for labels
    :math:`y_i = \pm 1`, with sample weights :math:`s_i` that sum to 1.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Rows are samples. Dense in either order and compressed columns are used as they are, other
        sparse formats are converted once.
    y : array, shape (n,)
        Labels: any two values, of which the larger counts as 1.
    alpha : float
        Weight of the penalty, at least 0. At 0, as without a penalty, there is no minimiser if
        the classes can be separated: the run ends as UNBOUNDED.
    penalty : {"l1", "l2", "enet", "mcp", "scad", "group"} or None, default "l1"
        :math:`\alpha |w|_1`, :math:`\tfrac{\alpha}{2} |w|^2`, a mixture of the two, a concave one
        (`penalties.MCP`, `penalties.SCAD`), or norms of groups (`penalties.GroupL2`).
    l1_ratio : float, optional
        Share of the absolute values, from 0 to 1; of "enet" (default 0.5) and "group"
        (default 0).
    gamma : float, optional
        Where "mcp" (default 12) and "scad" (default 14.8) are flat, in multiples of `alpha`. The
        larger, the nearer to "l1".
    groups : array, shape (p,), or list of lists
        For "group": a label for each feature, or the features of each group.
    weights : array, shape (p,), optional
        Feature weights; they multiply `alpha`, 0 leaves a feature unpenalised.
    sample_weight : array, shape (n,), optional
        Weights of the samples, scaled to sum to 1; equal by default.
    fit_intercept : bool, default False
        Whether to fit an intercept, which is not penalised.
    method : {"auto", "bcd", "cd", "anderson"}
        "auto" solves small problems in growing sets of coefficients by Newton steps; "bcd" is
        block coordinate descent by the rules below, "cd" and "anderson" are cyclic coordinate
        descent.
    partition, block_size, selection, update : optional
        Rules of block coordinate descent, see `minimize`; other than the defaults they turn
        "auto" into "bcd".
    tol : float, optional
        Tolerance of the certificate. Default: 1e-8, in single precision 1e-6.
    maxiter : int, optional
        Largest number of iterations. Default: 100 rounds of "auto", else 10000.
    x0 : array or BlockResult, optional
        Start.
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
        With coefficients `x`, `intercept`, and the duality gap as certificate; the KKT violation
        where the penalty is not convex or there is none.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    References
    ----------
    .. [1] J. Nutini, I. Laradji, M. Schmidt. Let's make block coordinate descent converge faster.
       JMLR 23(131), 2022. arXiv:1712.08859.
    .. [2] A. Gramfort, M. Massias, S. Vaiter, J. Salmon. Dual extrapolation for sparse generalized
       linear models. JMLR 21(234), 2020. arXiv:1907.05830.

    Examples
    --------
    >>> from solvers import bcd
    >>> X = [[1.0, 0.1], [2.0, -0.1], [-1.0, 0.2], [-2.0, 0.1]]
    >>> res = bcd.logistic(X, [1, 1, 0, 0], 0.1)
    >>> res.success, res.support
    (True, array([0]))
    """
    alpha = check_nonnegative(alpha, "alpha", allow_inf=True)
    check_choice(penalty, "penalty", _PENALTIES)
    chosen = _penalty(
        penalty, alpha, l1_ratio=l1_ratio, gamma=gamma, groups=groups, default=_LOGISTIC_GAMMA
    )
    problem = pose(
        X,
        y,
        "logistic",
        chosen,
        sample_weight=sample_weight,
        weights=weights,
        fit_intercept=fit_intercept,
    )
    return solve(
        "logistic",
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


def huber(
    X,
    y,
    alpha,
    *,
    delta=1.35,
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
    r"""Robust regression: the Huber loss with an L1 penalty, to a certified duality gap.

    Minimises :math:`\sum_i s_i \, h(y_i - x_i \cdot w - c) + \alpha |w|_1`, where h(r) is
    :math:`r^2 / 2` up to a distance of `delta` and linear from there, with sample weights
    :math:`s_i` that sum to 1.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Rows are samples. Dense in either order and compressed columns are used as they are, other
        sparse formats are converted once.
    y : array, shape (n,)
        Targets.
    alpha : float
        Weight of the absolute values, at least 0; from `alpha_max` on the answer is zero.
    delta : float, default 1.35
        Residuals beyond it, in the unit of `y`, count as outliers.
    weights : array, shape (p,), optional
        Feature weights; they multiply `alpha`, 0 leaves a feature unpenalised.
    sample_weight : array, shape (n,), optional
        Weights of the samples, scaled to sum to 1; equal by default.
    fit_intercept : bool, default False
        Whether to fit an intercept, which is not penalised.
    method : {"auto", "bcd", "cd", "anderson"}
        "auto" solves small problems in growing sets of coefficients by Newton steps; "bcd" is
        block coordinate descent by the rules below, "cd" and "anderson" are cyclic coordinate
        descent.
    partition, block_size, selection, update : optional
        Rules of block coordinate descent, see `minimize`; other than the defaults they turn
        "auto" into "bcd".
    tol : float, optional
        Tolerance of the certificate. Default: 1e-8, in single precision 1e-6.
    maxiter : int, optional
        Largest number of iterations. Default: 100 rounds of "auto", else 10000.
    x0 : array or BlockResult, optional
        Start.
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
    .. [2] P. J. Huber. Robust estimation of a location parameter. Annals of Mathematical
       Statistics 35(1), 1964.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bcd
    >>> X = np.arange(1.0, 7.0)[:, None]
    >>> y = 2.0 * X[:, 0]
    >>> y[5] = 1000.0
    >>> bcd.huber(X, y, 0.0).x.round(2)
    array([2.15])
    """
    alpha = check_nonnegative(alpha, "alpha", allow_inf=True)
    delta = check_positive(delta, "delta")
    problem = pose(
        X,
        y,
        losses.Huber(delta),
        penalties.L1(alpha),
        sample_weight=sample_weight,
        weights=weights,
        fit_intercept=fit_intercept,
    )
    return solve(
        "huber",
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


def sparse_regression(
    X,
    y,
    alpha,
    *,
    penalty="mcp",
    gamma=None,
    q=0.5,
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
    r"""Least squares with a concave penalty, which shrinks large coefficients less than L1 does.

    Finds a stationary point of :math:`\tfrac{1}{2} \sum_i s_i (y_i - x_i \cdot w - c)^2 + G(w)`,
    with sample weights :math:`s_i` that sum to 1. There may be several; the one that is found
    depends on the start.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Rows are samples. Dense in either order and compressed columns are used as they are, other
        sparse formats are converted once.
    y : array, shape (n,)
        Targets.
    alpha : float
        Weight of the penalty, at least 0.
    penalty : {"mcp", "scad", "lq"}
        `penalties.MCP`, `penalties.SCAD` or :math:`\alpha |w|^q` (`penalties.Lq`).
    gamma : float, optional
        Where "mcp" (default 3) and "scad" (default 3.7) are flat, in multiples of `alpha`. It
        must be above :math:`1 / \sum_i s_i x_{ij}^2` ("mcp") and 1 more ("scad") for each feature.
    q : float, default 0.5
        Power of "lq", between 0 and 1.
    weights : array, shape (p,), optional
        Feature weights; they multiply `alpha`, 0 leaves a feature unpenalised.
    sample_weight : array, shape (n,), optional
        Weights of the samples, scaled to sum to 1; equal by default.
    fit_intercept : bool, default False
        Whether to fit an intercept, which is not penalised.
    method : {"auto", "bcd", "cd", "anderson"}
        "auto" solves small problems in growing sets of coefficients by Newton steps; "bcd" is
        block coordinate descent by the rules below, "cd" and "anderson" are cyclic coordinate
        descent.
    partition, block_size, selection, update : optional
        Rules of block coordinate descent, see `minimize`; other than the defaults they turn
        "auto" into "bcd".
    tol : float, optional
        Tolerance of the certificate. Default: 1e-8, in single precision 1e-6.
    maxiter : int, optional
        Largest number of iterations. Default: 100 rounds of "auto", else 10000.
    x0 : array or BlockResult, optional
        Start.
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
        With coefficients `x`, `intercept`, and the KKT violation as certificate.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    References
    ----------
    .. [1] J. Nutini, I. Laradji, M. Schmidt. Let's make block coordinate descent converge faster.
       JMLR 23(131), 2022. arXiv:1712.08859.
    .. [2] C.-H. Zhang. Nearly unbiased variable selection under minimax concave penalty. Annals of
       Statistics 38(2), 2010.
    .. [3] J. Fan, R. Li. Variable selection via nonconcave penalized likelihood and its oracle
       properties. JASA 96(456), 2001.
    .. [4] Q. Bertrand et al. Beyond L1: faster and better sparse models with skglm. NeurIPS 2022.
       arXiv:2204.07826.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bcd
    >>> X = 2.0 * np.eye(4)
    >>> bcd.sparse_regression(X, [6.0, 0.2, -8.0, 0.1], 0.5).x
    array([ 3.,  0., -4.,  0.])
    """
    alpha = check_nonnegative(alpha, "alpha", allow_inf=True)
    check_choice(penalty, "penalty", ("mcp", "scad", "lq"))
    chosen = _penalty(penalty, alpha, gamma=gamma, default=_GAMMA, q=check_positive(q, "q"))
    problem = pose(
        X,
        y,
        "quadratic",
        chosen,
        sample_weight=sample_weight,
        weights=weights,
        fit_intercept=fit_intercept,
    )
    return solve(
        "sparse_regression",
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


def _penalty(name, alpha, *, l1_ratio=None, gamma=None, groups=None, default=None, q=None):
    """Return a penalty by name, once options that it does not have are left out."""
    _check_used(l1_ratio, "l1_ratio", name, ("enet", "group"))
    _check_used(gamma, "gamma", name, ("mcp", "scad"))
    _check_used(groups, "groups", name, ("group",))
    if name == "group":
        if groups is None:
            raise TypeError("`groups` came as NoneType; expected the groups of features")
        return penalties.GroupL2(alpha, groups, 0.0 if l1_ratio is None else l1_ratio)
    if name in ("mcp", "scad"):
        gamma = check_positive(gamma, "gamma", allow_none=True)
        kind = penalties.MCP if name == "mcp" else penalties.SCAD
        chosen = kind(alpha, default[name] if gamma is None else gamma)
    elif name == "enet":
        chosen = penalties.ElasticNet(alpha, 0.5 if l1_ratio is None else l1_ratio)
    elif name == "lq":
        chosen = penalties.Lq(alpha, q)
    else:
        chosen = penalties.L2(alpha) if name == "l2" else penalties.L1(alpha if name else 0.0)
    penalties.check(chosen, 1)
    # Nothing is left of any of them: the convex solvers know that case.
    return chosen if alpha else penalties.L1(0.0)


def _check_used(value, argument, name, users):
    if value is not None and name not in users:
        expected = " or ".join(map(repr, users))
        raise ValueError(
            f"`{argument}` came with `penalty` {name!r}; expected it with {expected} only"
        )
