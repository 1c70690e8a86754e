"""Models with groups of coefficients or several classes, by name."""

from .. import penalties
from .._core.validation import check_choice, check_nonnegative
from ._driver import solve
from ._problem import pose

METHODS = ("auto", "bcd", "cd")
_MULTINOMIAL = {"l1": penalties.L1, "row": penalties.RowL2, "l2": penalties.L2}


def group_lasso(
    X,
    y,
    alpha,
    groups,
    *,
    l1_ratio=0.0,
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
    r"""Least squares with a penalty of groups, or a sparse group penalty, to a certified gap.

    Minimises :math:`\tfrac{1}{2} \sum_i s_i (y_i - x_i \cdot w - c)^2
    + \alpha (\rho |w|_1 + (1 - \rho) \sum_g \sqrt{d_g} |w_g|_2)`, with sample weights
    :math:`s_i` that sum to 1, groups g of :math:`d_g` features and :math:`\rho` = `l1_ratio`.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Rows are samples. Dense in either order and compressed columns are used as they are, other
        sparse formats are converted once.
    y : array, shape (n,)
        Targets.
    alpha : float
        Weight of the penalty, at least 0; from `alpha_max` on the answer is zero.
    groups : array, shape (p,), or list of lists
        A label for each feature, or the features of each group. Groups must not overlap; features
        outside of any are a group each.
    l1_ratio : float, default 0.0
        Share of the absolute values, from 0 (whole groups) to 1 (lasso).
    weights : array, shape (p,), optional
        Feature weights; they multiply the weights of the absolute values, and their root mean
        square in a group that of its norm. A group of weight 0 is not penalised.
    sample_weight : array, shape (n,), optional
        Weights of the samples, scaled to sum to 1; equal by default.
    fit_intercept : bool, default False
        Whether to fit an intercept, which is not penalised.
    method : {"auto", "bcd", "cd"}
        "auto" solves small problems in growing sets of groups to the end, with Newton steps;
        "bcd" solves for the groups with the largest scores, again and again; "cd" sweeps over
        all.
    partition, block_size, selection, update : optional
        Rules of block coordinate descent, see `minimize`. Blocks are the groups here, so that only
        the defaults are legal.
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
    .. [2] E. Ndiaye, O. Fercoq, A. Gramfort, J. Salmon. Gap safe screening rules for sparsity
       enforcing penalties. JMLR 18(128), 2017. arXiv:1611.05780.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bcd
    >>> X = np.eye(4)
    >>> bcd.group_lasso(X, [3.0, 4.0, 0.1, 0.2], 0.25 / 2**0.5, [0, 0, 1, 1]).x.round(12)
    array([2.4, 3.2, 0. , 0. ])
    """
    alpha = check_nonnegative(alpha, "alpha", allow_inf=True)
    problem = pose(
        X,
        y,
        "quadratic",
        penalties.GroupL2(alpha, groups, l1_ratio),
        sample_weight=sample_weight,
        weights=weights,
        fit_intercept=fit_intercept,
    )
    return solve(
        "group_lasso",
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


def multinomial(
    X,
    y,
    alpha,
    *,
    penalty="l1",
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
    r"""Logistic regression for several classes, sparse in coefficients or rows.

    Minimises :math:`\sum_i s_i (\log \sum_k e^{z_{ik}} - z_{i y_i}) + G(W)` over W of shape
    (p, C), where :math:`z_i = W^\top x_i + c` and sample weights :math:`s_i` sum to 1. G is
    :math:`\alpha \sum_{jk} |W_{jk}|` ("l1"), :math:`\alpha \sum_j |W_j|_2` over rows ("row")
    or :math:`\tfrac{\alpha}{2} \sum_{jk} W_{jk}^2` ("l2").

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Rows are samples. Dense in either order and compressed columns are used as they are, other
        sparse formats are converted once.
    y : array, shape (n,)
        Classes: any two numbers or more.
    alpha : float
        Weight of the penalty, at least 0; for "l1" and "row" the answer is zero from
        `alpha_max` on.
    penalty : {"l1", "row", "l2"}
        What is sparse: coefficients, rows (a feature is used for all classes or for none), or
        nothing.
    weights : array, shape (p,) or (p, C), optional
        Feature weights; they multiply `alpha`; "row" takes the root mean square of each row's.
        0 leaves a coefficient unpenalised. Not for "l2".
    sample_weight : array, shape (n,), optional
        Weights of the samples, scaled to sum to 1; equal by default.
    fit_intercept : bool, default False
        Whether to fit an intercept per class, not penalised; their mean is zero, since adding a
        number to all of them changes nothing.
    method : {"auto", "bcd", "cd"}
        "auto" solves small problems in growing sets of features to the end, with Newton steps;
        "bcd" is block coordinate descent by the rules below, "cd" moves one feature's
        coefficients after the other's.
    partition, block_size, selection, update : optional
        Rules of block coordinate descent, see `minimize`; other than the defaults they turn
        "auto" into "bcd". For "row" blocks are rows, so that only the defaults are legal.
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
        With coefficients `x` (p, C), `intercept` (C,), `classes` in the order of the columns,
        and the duality gap as certificate.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    References
    ----------
    .. [1] D. Boehning. Multinomial logistic regression algorithm. Annals of the Institute of
       Statistical Mathematics 44, 1992.
    .. [2] J. Nutini, I. Laradji, M. Schmidt. Let's make block coordinate descent converge faster.
       JMLR 23(131), 2022. arXiv:1712.08859.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bcd
    >>> X = np.array([[2.0, 0.0], [1.0, 0.1], [-2.0, 0.1], [-1.0, 0.0], [0.0, 2.0], [0.1, 1.0]])
    >>> res = bcd.multinomial(X, [0, 0, 1, 1, 2, 2], 0.1, penalty="row")
    >>> res.x.shape, res.success
    ((2, 3), True)
    """
    alpha = check_nonnegative(alpha, "alpha", allow_inf=True)
    penalty = check_choice(penalty, "penalty", tuple(_MULTINOMIAL))
    if penalty == "l2" and weights is not None:
        raise ValueError("`weights` came with penalty='l2'; expected None: they are for a kink")
    problem = pose(
        X,
        y,
        "multinomial",
        _MULTINOMIAL[penalty](alpha),
        sample_weight=sample_weight,
        weights=weights,
        fit_intercept=fit_intercept,
    )
    return solve(
        "multinomial",
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
