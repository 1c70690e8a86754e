"""`als_implicit`: matrix factors of counted events, where silence says something too."""

from .._core.validation import check_positive
from ._als import als
from ._driver import complete


def als_implicit(
    R,
    rank,
    *,
    alpha=1.0,
    lam=1.0,
    nu=0.0,
    alpha0=1.0,
    shape=None,
    inner="auto",
    init="svd",
    x0=None,
    tol=1e-8,
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
    r"""Factor a matrix of counted events (clicks, plays, purchases), all places included.

    Finds factors A (m, k) and B (n, k) that minimise

    .. math:: \tfrac{1}{2} \sum_{i,j} c_{ij} (p_{ij} - A_i \cdot B_j)^2
              + \tfrac{\lambda}{2} \sum_i D_i |A_i|^2 + \tfrac{\lambda}{2} \sum_j E_j |B_j|^2

    over *all* places [1]_: :math:`p_{ij} = 1` where :math:`R_{ij} > 0` and 0 elsewhere, known
    with confidence :math:`c_{ij} = 1 + \alpha |R_{ij}|`.

    Parameters
    ----------
    R : sparse matrix, (rows, cols, vals), masked array, or array with NaN, shape (m, n)
        Events: how often each row met each column. Negative numbers say with confidence that
        there is no interest; zeros say nothing.
    rank : int
        Number of columns of the factors, from 1 to ``min(m, n)``.
    alpha : float, default 1.0
        Confidence that an event adds.
    lam : float, default 1.0
        Ridge :math:`\lambda`, positive.
    nu : float, default 0.0
        How much more often the ridge of busy rows and columns counts [2]_:
        :math:`D_i = (d_i + \alpha_0 n)^\nu` for a row with :math:`d_i` events, and
        :math:`E_j = (e_j + \alpha_0 m)^\nu` for a column with :math:`e_j`. With 0 all count
        once.
    alpha0 : float, default 1.0
        Weight :math:`\alpha_0` of the places without events in that.
    shape : (int, int), optional
        Shape of the matrix; required for triples.
    inner : {"auto", "direct", "cg", "sketch", "subspace"}
        How rows are solved, see `alternating_minimization`.
    init : {"svd", "random"}
        Where to start: at the leading singular vectors of the events, or at noise.
    x0 : CompletionResult or tuple of arrays, optional
        Start: a result, ``(U0, V0)`` or ``(U0, s0, V0)``.
    tol : float, default 1e-8
        Largest relative duality gap or relative gradient norm.
    tol_inner : float, optional
        Relative accuracy of inner solves. Default: a tenth of the relative gradient reached.
    ftol, gtol : float, default 0.0
        End the run where the objective changes by less than `ftol` in relative terms, or the
        relative gradient norm falls to `gtol`. Success is the certificate all the same.
    maxiter : int, default 500
        Largest number of sweeps.
    maxiter_inner : int, optional
        Largest number of steps of an inner solver. Default: that of the method.
    time_limit : float, optional
        Seconds after which the best iterate is returned.
    validation : float or (rows, cols, vals), optional
        Entries to watch: a fraction of the events, taken out at random, or others.
    patience : int, default 5
        Sweeps without a smaller error there after which the run ends.
    certificate : tuple of str, default ()
        ``("gap",)`` asks for the duality gap: it alone then decides.
    duplicates : {"error", "mean", "sum", "last"}
        What to do with places that occur more than once.
    dtype : {None, "float32", "float64"}
        Precision to compute in. Default: that of the data.
    progress : bool, default False
        Show a progress bar.
    history : bool or int, default True
        Whether, or every how many iterations, to record the history.
    callback : callable, optional
        Called after each iteration as ``callback(intermediate_result)`` with fields ``nit``,
        ``relres``, ``objective``, ``grad``, ``U``, ``s`` and ``V``; StopIteration or a true
        return value ends the run.
    rng : int, Generator or None, optional
        Randomness of starts, sketches and held-out entries.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    CompletionResult
        With `U`, `s` and `V`; ``res.top_n`` recommends, ``res.fold_in`` takes new rows.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If there are no events, a value is not finite, or an option has no such value.

    Warns
    -----
    ConvergenceWarning
        If the certificate does not hold; once per call.

    Notes
    -----
    The sum over all places is never formed: what they have in common is the Gram matrix
    :math:`B^T B`, so a sweep costs what the events cost, and ``O((m + n) k^2)``. The objective is
    half of that of [1]_, which has the same minimiser; libraries differ in this, and in whether
    `alpha` counts once more.

    References
    ----------
    .. [1] Y. Hu, Y. Koren, C. Volinsky. Collaborative filtering for implicit feedback datasets.
       ICDM 2008.
    .. [2] S. Rendle, W. Krichene, L. Zhang, Y. Koren. Revisiting the performance of iALS on item
       recommendation benchmarks. RecSys 2022. arXiv:2110.14037.

    Examples
    --------
    >>> import numpy as np, solvers
    >>> plays = np.kron(np.eye(2), np.ones((4, 3)))
    >>> plays[0, 0] = 0
    >>> res = solvers.completion.als_implicit(plays, 2, alpha=5.0, lam=0.1, rng=0)
    >>> res.success
    True
    >>> bool(res.predict([0], [0])[0] > 0.5 > res.predict([0], [5])[0])
    True
    """
    return complete(
        "als_implicit",
        R,
        rank,
        als,
        argument="R",
        shape=shape,
        inner=inner,
        lam=check_positive(lam, "lam"),
        implicit=True,
        alpha=alpha,
        nu=nu,
        alpha0=alpha0,
        init=init,
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
