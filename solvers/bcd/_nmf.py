"""`nmf`: non-negative factors of a matrix, by exact steps on one coordinate at a time."""

from typing import Any, NamedTuple

import numpy as np

from .._core import threads
from .._core.arrays import Ingest, is_sparse
from .._core.random import check_rng
from .._core.validation import (
    check_array,
    check_choice,
    check_count,
    check_nonnegative,
    check_threads,
    describe,
)
from ._books import Books
from ._certificate_nmf import judge_factors
from ._design import read_design
from ._result import BlockResult


class FactorResult(BlockResult):
    """Outcome of `nmf`.

    Attributes
    ----------
    x : array, shape (n k + k p,)
        Entries of `W`, row by row, then those of `H`.
    W : array, shape (n, k)
        Left factor.
    H : array, shape (k, p)
        Right factor.
    """

    W: Any
    H: Any


class Factors(NamedTuple):
    """A point: W (n, k) and the transpose of H (p, k)."""

    W: Any
    Ht: Any


def nmf(
    V,
    k,
    *,
    l1=0.0,
    init="nndsvd",
    tol=None,
    maxiter=2000,
    x0=None,
    callback=None,
    rng=None,
    history=True,
    time_limit=None,
    progress=False,
    n_threads=None,
):
    r"""Factorise a non-negative matrix into two thin ones that are non-negative, too.

    Minimises :math:`\tfrac{1}{2} |V - W H|_F^2 + l_1 (|W|_1 + |H|_1)` over :math:`W, H \ge 0`
    by block descent [1]_: each factor in turn moves one coordinate at a time, all of its rows
    side by side, a few times between two looks at `V` [2]_. Between turns both factors are
    extrapolated as long as the objective falls [3]_.

    Parameters
    ----------
    V : array or sparse matrix, shape (n, p)
        Non-negative.
    k : int
        Number of columns of `W` and of rows of `H`.
    l1 : float, default 0.0
        Weight of the entries of both factors.
    init : {"nndsvd", "random"}
        Start: the positive parts of the leading singular vectors [4]_, or noise.
    tol : float, optional
        Largest value of the certificate. Default: 1e-8, or 1e-6 in float32.
    maxiter : int, default 2000
        Largest number of turns.
    x0 : (W, H), array of the shape of `x`, or a previous result, optional
        Start, in place of `init`.
    callback : callable, optional
        Called after each turn as ``callback(intermediate_result)`` with fields ``x``, ``W`` and
        ``H``; StopIteration or a true return value ends the run.
    rng : int, Generator or None, optional
        Randomness of the start.
    history : bool or int, default True
        Whether, or every how many turns, to record the history.
    time_limit : float, optional
        Seconds after which the factors so far are returned.
    progress : bool, default False
        Show a progress bar.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    FactorResult
        With `W` and `H`. The certificate is the largest violation of the optimality conditions of
        either factor with the other fixed, relative to the largest entry of :math:`V H^T` and
        :math:`W^T V`. It proves a stationary point, not the best one.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind, such as a complex matrix.
    ValueError
        If `V` has negative entries or is not 2-D, or `k` is less than 1.

    Warns
    -----
    ConvergenceWarning
        If the certificate does not hold; once per call.

    References
    ----------
    .. [1] A. Cichocki, A.-H. Phan. Fast local algorithms for large scale nonnegative matrix and
       tensor factorizations. IEICE Transactions E92-A, 2009.
    .. [2] N. Gillis, F. Glineur. Accelerated multiplicative updates and hierarchical ALS
       algorithms for nonnegative matrix factorization. Neural Computation 24, 2012.
    .. [3] A. M. S. Ang, N. Gillis. Accelerating nonnegative matrix factorization algorithms using
       extrapolation. Neural Computation 31, 2019.
    .. [4] C. Boutsidis, E. Gallopoulos. SVD based initialization: a head start for nonnegative
       matrix factorization. Pattern Recognition 41, 2008.

    Examples
    --------
    >>> import numpy as np, solvers
    >>> V = np.outer([1.0, 2.0, 0.0], [1.0, 0.0, 3.0, 1.0])
    >>> res = solvers.bcd.nmf(V, 1, rng=0)
    >>> (res.W @ res.H).round(6)
    array([[1., 0., 3., 1.],
           [2., 0., 6., 2.],
           [0., 0., 0., 0.]])
    """
    k, l1 = check_count(k, "k", minimum=1), check_nonnegative(l1, "l1")
    init = check_choice(init, "init", ("nndsvd", "random"))
    io, design = read_design(V, name="V")
    with io.device:
        matrix = design.X.tocsr() if design.sparse else design.X
        entries = matrix.data if design.sparse else matrix
        if entries.size and io.be.host(entries.min()) < 0:
            raise ValueError("`V` has negative entries; expected numbers >= 0")
    problem = Factorisation(io, matrix, k, l1)
    books = Books(
        "nmf",
        io,
        tol=tol,
        maxiter=maxiter,
        time_limit=time_limit,
        callback=callback,
        progress=progress,
        history=history,
    )
    rng, n_threads = check_rng(rng), check_threads(n_threads)
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        start = _start(problem, x0, init, rng)
        (W, Ht), certificate = books.solve(
            start,
            lambda point: _alternate(problem, books, point),
            lambda point: judge_factors(io.be, matrix, point.W, point.Ht.T, l1, tol=books.wanted),
            warm=x0 is not None,
        )
        return books.finish(
            FactorResult,
            certificate,
            x=problem.flat(Factors(W, Ht)),
            W=io.out(W),
            H=io.out(Ht.T),
        )


class Factorisation:
    """The problem: V (n, p), how many columns, and the products of one factor with V.

    Parameters
    ----------
    io : Ingest
    V : array or sparse array
    k : int
    l1 : float
    """

    def __init__(self, io, V, k, l1):
        self.io, self.be, self.xp, self.V, self.k, self.l1 = io, io.be, io.xp, V, k, l1
        self.kernels = self.be.kernels("solvers.bcd", "factors")
        # A transpose in compressed rows walks through memory; a dense one is for the BLAS.
        self.Vt = V.T.tocsr() if is_sparse(V) else V.T
        size = V.nnz if is_sparse(V) else V.size
        entries = V.data if is_sparse(V) else V.reshape(-1)
        self.square = float(self.be.host((entries.astype(np.float64) ** 2).sum()))
        # As many turns over a factor as half the time of a product with V allows.
        self.sweeps = tuple(
            max(1, min(20, 1 + size // (2 * rows * k))) for rows in (V.shape[0], V.shape[1])
        )

    def flat(self, point):
        """Return W and H as one vector."""
        return self.xp.concatenate([point.W.reshape(-1), point.Ht.T.reshape(-1)])

    def solve(self, X, Y, product, sweeps):
        """Move a factor X towards its best for the other factor Y; `product` is V times Y.

        Returns X and its Gram matrix of the other factor.
        """
        G = Y.T @ Y
        X = X.copy()
        self.kernels.nonnegative_rows(G, product, self.l1, sweeps, X)
        return X, G

    def balanced(self, W, Ht):
        """Return factors with the same product whose columns are of equal size.

        With a penalty that is the cheapest of all such pairs; without, it costs nothing.
        """
        xp = self.xp
        size = xp.linalg.norm if self.l1 == 0 else lambda X, axis: X.sum(axis=axis)
        w, h = size(W, axis=0), size(Ht, axis=0)
        alive = (w > 0) & (h > 0)
        ratio = xp.sqrt(xp.where(alive, h, 1) / xp.where(alive, w, 1)).astype(W.dtype)
        return Factors(W * ratio, Ht / ratio)

    def violation(self, X, g):
        """Return how far X is from being optimal, g being the gradient of the fit."""
        xp, g = self.xp, g + self.l1
        return xp.where(X > 0, abs(g), xp.maximum(-g, 0)).max()

    def fun(self, point, product, G_W, G_H):
        """Return the objective from the product ``V^T W`` and both Gram matrices."""
        fit = self.square - 2 * (product * point.Ht).sum(dtype=np.float64)
        fit = fit + (G_W.astype(np.float64) * G_H).sum()
        penalty = self.l1 * (point.W.sum(dtype=np.float64) + point.Ht.sum(dtype=np.float64))
        return 0.5 * fit + penalty


def _alternate(problem, books, point):
    """Update W and H in turn, with extrapolation that is dropped where the objective rises."""
    xp, be, V, Vt = problem.xp, problem.be, problem.V, problem.Vt
    last = ahead = point
    best, before, beta, cap = np.inf, np.inf, 0.5, 1.0
    # The objective is a difference of numbers of this size, rounded.
    noise = 4.0 * np.finfo(point.W.dtype).eps * problem.square
    for _ in books.run:
        VH = V @ ahead.Ht
        W, G_H = problem.solve(ahead.W, ahead.Ht, VH, problem.sweeps[0])
        VW = Vt @ W
        G_W = W.T @ W
        # Both gradients are known at the new W with the H that it was found for.
        here = Factors(W, ahead.Ht)
        value = xp.maximum(
            problem.violation(W, W @ G_H - VH), problem.violation(here.Ht, here.Ht @ G_W - VW)
        ) / xp.maximum(xp.maximum(abs(VH).max(), abs(VW).max()), np.finfo(VH.dtype).tiny)
        fun, value = be.host(problem.fun(here, VW, G_W, G_H), value)
        books.npass += 2.0
        # Where rounding hides which objective is lower, the violation tells.
        worse = fun > best and (fun > best + noise or value > before)
        if worse and ahead is not last:
            # Extrapolation went too far: take the plain step instead.
            cap, beta = beta, beta / 1.5
            ahead = last
            continue
        best, before = min(best, fun), value
        if books.record(value, state=lambda here=here: _shown(problem, here), fun=fun):
            return here
        Ht, _ = problem.solve(here.Ht, W, VW, problem.sweeps[1])
        books.n_blocks += 2
        new = problem.balanced(W, Ht)
        ahead = Factors(
            xp.maximum(new.W + beta * (new.W - last.W), 0),
            xp.maximum(new.Ht + beta * (new.Ht - last.Ht), 0),
        )
        last, beta, cap = new, min(cap, 1.05 * beta), min(1.0, 1.01 * cap)
    return last


def _shown(problem, point):
    out = problem.io.out
    return {"x": out(problem.flat(point)), "W": out(point.W.copy()), "H": out(point.Ht.T)}


def _start(problem, x0, init, rng):
    """Return factors to start from."""
    io, xp, (n, p), k = problem.io, problem.xp, problem.V.shape, problem.k
    if x0 is not None:
        return _given(problem, x0)
    if init == "nndsvd" and k <= min(n, p):
        return _singular(problem, rng)
    mean = float(io.be.host(problem.V.sum(dtype=np.float64))) / (n * p)
    scale = np.sqrt(mean / k)
    draw = [np.abs(rng.standard_normal((rows, k))) * scale for rows in (n, p)]
    return Factors(*(xp.asarray(part.astype(io.dtype)) for part in draw))


def _singular(problem, rng):
    """Return the positive parts of the leading singular vectors, zeros filled with small noise."""
    io, xp, V, Vt, k = problem.io, problem.xp, problem.V, problem.Vt, problem.k
    n, p = V.shape
    Q = xp.asarray(rng.standard_normal((p, min(k + 8, n, p))).astype(io.dtype))
    for _ in range(4):
        Q, _ = xp.linalg.qr(V @ Q)
        Q, _ = xp.linalg.qr(Vt @ Q)
    U, s, R = xp.linalg.svd(V @ Q, full_matrices=False)
    U, S, Vr = U[:, :k], s[:k], (Q @ R.T)[:, :k]
    up, vp = xp.maximum(U, 0), xp.maximum(Vr, 0)
    un, vn = xp.maximum(-U, 0), xp.maximum(-Vr, 0)
    norm = xp.linalg.norm
    plus, minus = norm(up, axis=0) * norm(vp, axis=0), norm(un, axis=0) * norm(vn, axis=0)
    positive = plus >= minus
    W, Ht = xp.where(positive, up, un), xp.where(positive, vp, vn)
    size = xp.sqrt(S * xp.maximum(plus, minus))
    tiny = np.finfo(io.dtype).tiny
    W = W * (size / xp.maximum(norm(W, axis=0), tiny))
    Ht = Ht * (size / xp.maximum(norm(Ht, axis=0), tiny))
    noise = [xp.asarray(rng.random(part.shape).astype(io.dtype)) for part in (W, Ht)]
    filled = [
        xp.where(part > 0, part, 0.01 * part.mean() * extra)
        for part, extra in zip((W, Ht), noise, strict=True)
    ]
    return Factors(*(xp.ascontiguousarray(part.astype(io.dtype)) for part in filled))


def _given(problem, x0):
    """Return the factors that the caller passed."""
    io, (n, p), k = problem.io, problem.V.shape, problem.k
    if isinstance(x0, tuple) and len(x0) == 2:
        given = Ingest(dtype=io.dtype, **{"x0[0]": x0[0], "x0[1]": x0[1]})
        _same_home(io, given, x0)
        W = check_array(given, "x0[0]", shape=(n, k), means="(V.shape[0], k)", minimum=0.0)
        H = check_array(given, "x0[1]", shape=(k, p), means="(k, V.shape[1])", minimum=0.0)
    else:
        given = Ingest(dtype=io.dtype, x0=getattr(x0, "x", x0))
        _same_home(io, given, x0)
        x = check_array(given, "x0", shape=(n * k + k * p,), means="(n k + k p,)", minimum=0.0)
        W, H = x[: n * k].reshape(n, k), x[n * k :].reshape(k, p)
    return Factors(W.copy(), io.xp.ascontiguousarray(H.T))


def _same_home(io, given, x0):
    if given.be is not io.be:
        raise TypeError(f"`x0` came as {describe(x0)}; expected arrays where `V` is")
