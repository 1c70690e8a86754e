"""`alternating_minimization`, the front door of matrix completion."""

from .._core.validation import check_choice
from ._als import als
from ._altmin_paper import theory
from ._auto import auto, restarted
from ._driver import INNERS, complete, is_rank_sequence
from ._gauss_newton import gn_from_afar
from ._irls import find
from ._lmafit import lmafit
from ._nonnegative import nonnegative as nonnegative_engine
from ._rank import of_unknown_rank
from ._robust import robust
from ._scaled_gd import scaled_gradient_descent
from ._varpro import varpro

METHODS = ("auto", "altmin", "irls", "gn", "varpro", "scaled_gd", "lmafit")
_ENGINES = {
    "auto": auto,
    "gn": gn_from_afar,
    "irls": find,
    "varpro": varpro,
    "scaled_gd": scaled_gradient_descent,
    "lmafit": lmafit,
}


def alternating_minimization(
    M,
    rank,
    *,
    shape=None,
    weights=None,
    method="auto",
    inner="auto",
    loss="squared",
    delta="auto",
    lam=0.0,
    lam_bias=None,
    weighted_lambda=False,
    bias=False,
    center=None,
    implicit=False,
    alpha=1.0,
    nonnegative=False,
    init="svd",
    clip=None,
    mode="reuse",
    x0=None,
    n_init=1,
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
    r"""Complete a matrix of low rank from some of its entries.

    Finds `U`, `s` and `V` of the given rank such that :math:`X = U \operatorname{diag}(s) V^T`
    minimises

    .. math:: \sum_{(i,j) \in \Omega} w_{ij} \, \rho(X_{ij} - M_{ij}) + \lambda |X|_*

    with :math:`\rho(r) = r^2 / 2` and the nuclear norm written as a ridge on balanced factors,
    :math:`\tfrac{\lambda}{2} (|A|_F^2 + |B|_F^2)` for :math:`X = A B^T`.

    Parameters
    ----------
    M : sparse matrix, (rows, cols, vals), masked array, or array with NaN, shape (m, n)
        The observed entries: those that a sparse matrix of SciPy or CuPy stores (zeros, too),
        triples, those not masked, or those that are not NaN.
    rank : int, "auto" or sequence of int
        Number of columns of the factors, from 1 to ``min(m, n)``; "auto", or some to choose
        from, is decided by held-out entries.
    shape : (int, int), optional
        Shape of the matrix; required for triples.
    weights : array, shape (N,) or (m, n), optional
        Weight of each entry, non-negative: in the order of the stored entries or of `vals`, or
        for a dense `M` also of its shape. Default: 1. Entries of weight 0 count as missing.
    method : {"auto", "altmin", "irls", "gn", "varpro", "scaled_gd", "lmafit"}
        The algorithm. "auto" recovers exact data by reweighted least squares with a Gauss-Newton
        finish, and fits noisy or penalised data by alternating minimisation; "altmin" is
        alternating minimisation [1]_ alone (with ``inner="direct"`` classical ALS), "irls" and
        "gn" are `matrix_irls` [2]_ and `gauss_newton` [3]_, "varpro" eliminates one factor [4]_,
        "scaled_gd" and "lmafit" [5]_ take cheap steps.
    inner : {"auto", "direct", "cg", "sketch", "subspace"}
        How "altmin" solves the least-squares problems of its rows: exactly, by conjugate
        gradients, by conjugate gradients after sketching each row as in [1]_, or by blocks of
        unknowns. "auto" goes by the rank and the accuracy that is needed.
    loss : {"squared", "huber", "l1", "welsch", "tukey"}
        What a residual costs; all but the first hold outliers at bay.
    delta : float or "auto", default "auto"
        Residual from which the loss bends, in the unit of `M`. "auto" finds the noise level.
    lam : float, default 0.0
        Ridge :math:`\lambda`, in the unit of `M`; from the spectral norm of the observed entries
        on the solution is 0.
    lam_bias : float, optional
        Ridge of the biases, without unit. Default: `lam`.
    weighted_lambda : bool, default False
        Whether to multiply the ridge of each row and column by its number of entries [6]_;
        `lam` is then smaller by about that.
    bias : bool, default False
        Whether rows and columns have biases: the estimate is
        :math:`\mu + b_i + c_j + X_{ij}`, all solved jointly.
    center : bool, optional
        Whether to take the weighted mean :math:`\mu` off the data. Default: `bias`. Off data of
        exact rank k it leaves rank k + 1.
    implicit : bool, default False
        Whether `M` counts events, as in [7]_: every entry is fitted, to 1 where ``M > 0`` and to
        0 elsewhere, with weight ``1 + alpha * abs(M)``. See `als_implicit`.
    alpha : float, default 1.0
        Weight of an event, for `implicit`.
    nonnegative : bool, default False
        Whether the factors must have no negative entries.
    init : {"svd", "random"}
        Where to start: at the leading singular vectors of the observed entries, or at noise.
    clip : {None, "row", "entry"}
        Whether to scale down long rows of the singular vectors, or drop their large entries.
    mode : {"reuse", "theory"}
        Whether "altmin" uses all entries in each half sweep, or new ones in each as the theory
        of [1]_ has it.
    x0 : CompletionResult or tuple of arrays, optional
        Start: a result, ``(U0, V0)`` for :math:`U_0 V_0^T`, or ``(U0, s0, V0)``; missing columns
        are filled with small noise.
    n_init : int, default 1
        Largest number of starts, where a start does not lead to a certificate; with a robust
        loss or non-negative factors, where it does not lead to an exact fit. The best is kept.
    tol : float, default 1e-8
        Largest value of the certificate: of the relative residual or, where data cannot be
        fitted exactly, the relative gradient norm (``lam=0``); of the relative duality gap or
        the relative gradient norm (``lam > 0``).
    tol_inner : float, optional
        Relative accuracy of inner solves. Default: a tenth of the relative residual reached.
    ftol, gtol : float, default 0.0
        End the run where the objective changes by less than `ftol` in relative terms, or the
        relative gradient norm falls to `gtol`. Success is the certificate all the same.
    maxiter : int, default 500
        Largest number of iterations, of all stages together.
    maxiter_inner : int, optional
        Largest number of steps of an inner solver. Default: that of the method.
    time_limit : float, optional
        Seconds after which the best iterate is returned.
    validation : float or (rows, cols, vals), optional
        Entries to watch: a fraction of the observed ones, taken out at random, or others. The run
        ends where their error does not fall for `patience` iterations, with the best iterate.
    patience : int, default 5
        See `validation`.
    certificate : tuple of str, default ()
        ``("gap",)`` asks for the duality gap: it alone then decides.
    duplicates : {"error", "mean", "sum", "last"}
        What to do with entries that occur more than once: refuse, average (by weight), add up,
        or take the last.
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
        With `U`, `s` and `V` (and `mu` and biases) in the caller's kind of array, what the
        entries do and do not determine, and methods to predict without forming the matrix.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind: complex data, arrays of different kinds, triples
        without `shape`.
    ValueError
        If nothing is observed, an observed value is not finite, an index lies outside the
        matrix, an entry occurs twice, or an option has no such value.

    Warns
    -----
    ConvergenceWarning
        If the certificate does not hold; once per call.

    Notes
    -----
    A sweep of "altmin" takes time in proportion to the number of entries N times `rank` (with
    inexact inner solvers) or its square (exact ones); memory is about 50 bytes for each entry in
    float64 and a few copies of the factors. Values are divided by their root mean square on
    entry, so the unit of `M` does not matter.

    An exact fit proves that the observed entries are met, not that the others are right: see
    ``res.oversampling`` (well above 1), ``res.unidentified_rows``, ``res.unidentified_cols``
    and ``res.components``. With ``lam=0`` and noisy data the certificate is that of a stationary
    point, which the message says. With `lam` the duality gap bounds the distance to the global
    optimum of the convex problem; a gap that stays open with a spectral ratio above 1 says that
    `rank` is smaller than that optimum's.

    References
    ----------
    .. [1] Y. Gu, Z. Song, J. Yin, L. Zhang. Low rank matrix completion via robust alternating
       minimization in nearly linear time. ICLR 2024. arXiv:2302.11068.
    .. [2] C. Kuemmerle, C. Mayrink Verdun. A scalable second order method for ill-conditioned
       matrix completion from few samples. ICML 2021. arXiv:2106.02119.
    .. [3] P. Zilber, B. Nadler. GNMR: a provable one-line algorithm for low rank matrix recovery.
       SIAM Journal on Mathematics of Data Science, 2022. arXiv:2106.12933.
    .. [4] J. H. Hong, A. Fitzgibbon. Secrets of matrix factorization: approximations, numerics,
       manifold optimization and random restarts. ICCV 2015.
    .. [5] Z. Wen, W. Yin, Y. Zhang. Solving a low-rank factorization model for matrix completion
       by a nonlinear successive over-relaxation algorithm. Mathematical Programming Computation
       4, 2012.
    .. [6] Y. Zhou, D. Wilkinson, R. Schreiber, R. Pan. Large-scale parallel collaborative
       filtering for the Netflix prize. AAIM 2008.
    .. [7] Y. Hu, Y. Koren, C. Volinsky. Collaborative filtering for implicit feedback datasets.
       ICDM 2008.

    Examples
    --------
    >>> import numpy as np, solvers
    >>> M = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, -1.0, 2.0])
    >>> M[0, 1] = M[2, 2] = np.nan
    >>> res = solvers.completion.alternating_minimization(M, 1, rng=0)
    >>> res.success
    True
    >>> res.predict([0, 2], [1, 2]).round(6)
    array([-1.,  6.])
    >>> res.s.round(3)
    array([13.416])
    """
    options = dict(locals())
    for name in ("M", "rank", "method"):
        del options[name]
    method = check_choice(method, "method", METHODS)
    pipeline = _pipeline(method, mode)
    if is_rank_sequence(rank) or (isinstance(rank, str) and rank == "auto"):
        pipeline = of_unknown_rank(None if isinstance(rank, str) else rank, pipeline)
        rank = None
    return complete("alternating_minimization", M, rank, pipeline, **options)


def _pipeline(method, mode):
    """Return the engines that `method` stands for."""
    if isinstance(mode, str) and mode == "theory" and method not in ("auto", "altmin"):
        raise ValueError(
            f"`mode` came as 'theory' with method={method!r}; expected method='altmin'"
        )

    def pipeline(problem, rank, watch, options):
        engine = _ENGINES.get(method, als)
        if problem.loss != "squared" or problem.nonnegative:
            _check_alternating(method, problem, options)
            engine = nonnegative_engine if problem.nonnegative else robust
            return restarted(engine, problem, rank, watch, options)
        if options.mode == "theory":
            engine = theory
        return engine(problem, rank, watch, options)

    return pipeline


def _check_alternating(method, problem, options):
    """Refuse what is for least squares with factors of any sign alone."""
    what = "nonnegative=True" if problem.nonnegative else f"loss={problem.loss!r}"
    inners = ("auto", "direct") if problem.nonnegative else INNERS
    for name, value, expected in (
        ("method", method, ("auto", "altmin")),
        ("mode", options.mode, ("reuse",)),
        ("inner", options.inner, inners),
    ):
        if value not in expected:
            known = " or ".join(map(repr, expected))
            raise ValueError(
                f"`{name}` came as {value!r} with {what}; expected {known} there: the others fit "
                "by least squares, with factors of any sign"
            )
