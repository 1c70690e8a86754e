"""The dual of a support vector machine: a quadratic in a box."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import penalties
from .._core.certificate import Certificate
from .._core.result import Status
from .._core.validation import check_array, check_choice, check_positive
from ._design import read_design
from ._driver import Answer, solve
from ._engines import ENGINES
from ._problem import Quadratic
from ._result import BlockResult

METHODS = ("auto", "bcd", "cd")
KERNELS = ("linear", "rbf", "precomputed")
_EPS = np.finfo(np.float64).eps
# Sweeps over the multipliers in sight between two looks at the gap.
_EVERY = 10
# Sweeps before the multipliers that are free by then are solved for together.
_FIRST_SWEEPS = 200


class SVMResult(BlockResult):
    """Outcome of `svm_dual`.

    Attributes
    ----------
    x : array, shape (n,)
        Multipliers, from 0 to C; not multiplied by the labels.
    coef : array of shape (p,), or None
        The normal ``sum_i x_i y_i X_i``; None for kernels other than the linear one.
    fun, dual_fun : float
        The objective ``x^T Q x / 2 - sum(x)`` of the multipliers, and its lower bound, the
        negative objective of the machine itself.
    """

    @property
    def coef(self):
        """The normal; None for kernels other than the linear one."""
        return self.get("normal")


def svm_dual(
    X_or_K,
    y,
    C,
    *,
    kernel="linear",
    gamma=None,
    method="auto",
    partition="variable",
    block_size=None,
    selection="gsq",
    update="auto",
    norm=2,
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
    r"""Solve the dual of a support vector machine without intercept, to a certified gap.

    .. math:: \min_{0 \le x \le C} \; \tfrac{1}{2} x^\top Q x - \sum_i x_i,
              \qquad Q_{ij} = y_i y_j K(x_i, x_j)

    Its optimum is the negative of that of
    :math:`\tfrac{1}{2} \|w\|^2 + C \sum_i \max(1 - y_i w^\top \phi(x_i), 0)`.

    Parameters
    ----------
    X_or_K : array or sparse matrix, shape (n, p) or (n, n)
        Samples, or the kernel matrix for kernel="precomputed". Sparse samples are for the linear
        kernel.
    y : array, shape (n,)
        Any two labels; the larger counts as 1.
    C : float
        Price of a unit of violation; the upper bound of the multipliers.
    kernel : {"linear", "rbf", "precomputed"}, default "linear"
        "rbf" is ``exp(-gamma |x - x'|^2)``.
    gamma : float, optional
        Of "rbf". Default: one over p times the variance of X.
    method : {"auto", "bcd", "cd"}, default "auto"
        "cd": sweeps over the multipliers in shuffled order that skip those that stay at their
        bounds, for the linear kernel without its matrix; "bcd": blocks by the rules below. "auto"
        solves for the free multipliers together, for the linear kernel after some sweeps.
    partition, block_size, selection, update, norm : optional
        Rules of "bcd"; see `minimize`. One that is not the default makes "auto" mean "bcd".
    tol : float, optional
        Largest duality gap, relative to C n. Default: 1e-8, or 1e-6 for float32 data.
    maxiter : int, optional
        Largest number of sweeps or block updates. Default: 10000.
    x0 : array or SVMResult, optional
        Start.
    check_every : int, optional
        Sweeps or block updates between two looks at the certificate's value.
    callback : callable, optional
        Called with the state after each look; a true return or StopIteration ends the run.
    rng : int or Generator, optional
        For random rules; sweeps are shuffled by it for selection="perm" or "random" only.
    history : bool or int, default True
        Whether, or every how many iterations, to keep a row.
    time_limit : float, optional
        Seconds.
    progress : bool, default False
        Whether to show a bar.
    n_threads : int, optional
        Threads of kernels.

    Returns
    -------
    SVMResult
        With the multipliers `x`, the normal `coef` of the linear kernel, and `classes`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the expected kind, shape or value.

    References
    ----------
    .. [1] C.-J. Hsieh, K.-W. Chang, C.-J. Lin, S. S. Keerthi and S. Sundararajan. A dual
       coordinate descent method for large-scale linear SVM. ICML, 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bcd
    >>> X, y = np.array([[1.0], [3.0], [-1.0]]), np.array([1, 1, 0])
    >>> bcd.svm_dual(X, y, 10.0, rng=0).coef.round(6)
    array([1.])
    """
    kernel = check_choice(kernel, "kernel", KERNELS)
    C = check_positive(C, "C")
    gamma = check_positive(gamma, "gamma", allow_none=True)
    if gamma is not None and kernel != "rbf":
        raise ValueError(f"`gamma` came with kernel={kernel!r}; expected None: it is for 'rbf'")
    io, design = read_design(X_or_K, name="X_or_K", sparse_ok=kernel == "linear", y=y)
    n = design.shape[0]
    with io.device:
        labels = check_array(io, "y", shape=(n,), means="(n_samples,)")
        signs, classes = _signs(io, labels)
        problem = _pose(io, design, signs, classes, C, kernel, gamma)
    linear = kernel == "linear"
    return solve(
        "svm_dual",
        problem,
        methods=METHODS,
        method=method,
        partition=partition,
        block_size=block_size,
        selection=selection,
        update=update,
        norm=norm,
        tol=tol,
        maxiter=10000 if maxiter is None else maxiter,
        x0=x0,
        check_every=check_every,
        callback=callback,
        rng=rng,
        history=history,
        time_limit=time_limit,
        progress=progress,
        n_threads=n_threads,
        kind=SVMResult,
        engines={**ENGINES, "auto": _auto, "cd": _sweeps if linear else ENGINES["cd"]},
        judge=_judge,
        normal=(lambda answer: io.out(problem.A.normal(answer.x))) if linear else None,
    )


@dataclass(frozen=True)
class SVM(Quadratic):
    """The quadratic of a support vector machine: A is Q, b is 1, the penalty a box."""

    classes: Any = None


class Linear:
    """The matrix ``diag(y) X X^T diag(y)`` of which X is kept only.

    Parameters
    ----------
    X : array or sparse array, shape (n, p)
        Samples; compressed rows where they are sparse.
    y : array, shape (n,)
        Signs.
    """

    ndim = 2

    def __init__(self, X, y, sparse):
        self.X, self.y, self.sparse = X, y, sparse
        self.shape, self.dtype = (y.size, y.size), X.dtype

    def __matmul__(self, x):
        return self.y * (self.X @ self.normal(x))

    def normal(self, x):
        """Return ``X^T (y x)``."""
        return self.X.T @ (self.y * x)

    def diagonal(self):
        """Return the squared norms of the samples, float64."""
        square = self.X.multiply(self.X) if self.sparse else self.X * self.X
        return square.sum(axis=1).astype(np.float64).reshape(-1)

    def __getitem__(self, rows):
        """Return some rows as an array."""
        some = self.X[rows]
        product = some @ self.X.T
        product = product.toarray() if self.sparse else product
        return self.y[rows][:, None] * product * self.y


def _signs(io, labels):
    classes, numbers = io.xp.unique(labels, return_inverse=True)
    if classes.size != 2:
        raise ValueError(f"`y` holds {classes.size} different labels; expected two")
    return (2 * numbers - 1).astype(io.dtype), io.be.host(classes)


def _pose(io, design, y, classes, C, kernel, gamma):
    n, X, xp = y.size, design.X, io.xp
    if kernel == "linear":
        A = Linear(X.tocsr() if design.sparse else X, y, design.sparse)
    else:
        K = X
        if kernel == "rbf":
            K = _gaussian(xp, X, gamma)
        elif design.shape[0] != design.shape[1]:
            raise ValueError(f"`X_or_K` came with shape {design.shape}; expected a square matrix")
        A = y[:, None] * K * y
        _check_kernel(io, A)
    box = penalties.ElasticBox(0.0, 0.0, 0.0, C)
    return SVM(io, A, xp.ones(n, io.dtype), box, classes)


def _gaussian(xp, X, gamma):
    X = X.astype(np.float64)
    if gamma is None:
        gamma = 1.0 / (X.shape[1] * (float(X.var()) or 1.0))
    square = (X * X).sum(axis=1)
    distance = square[:, None] + square - 2.0 * (X @ X.T)
    return xp.exp(-gamma * xp.maximum(distance, 0.0))


def _check_kernel(io, A):
    gap, largest = io.be.host(abs(A - A.T).max(), abs(A).max())
    if gap > 1e3 * np.finfo(io.dtype).eps * largest:
        raise ValueError("`X_or_K` is not symmetric; expected a symmetric kernel matrix")


def _judge(problem, x, c, *, tol):
    """Return the gap between the multipliers and the machine they stand for, relative to C n."""
    host, xp = problem.be.host, problem.xp
    x = x.astype(np.float64)
    Qx = problem.A @ x
    C, n = problem.penalty.hi, x.size
    square, total, hinge = host(x @ Qx, x.sum(), xp.maximum(1.0 - Qx, 0.0).sum())
    fun, machine = 0.5 * square - total, 0.5 * square + C * hinge
    pull = xp.where(x <= 0.0, xp.maximum(1.0 - Qx, 0.0), abs(1.0 - Qx))
    pull = xp.where(x >= C, xp.maximum(Qx - 1.0, 0.0), pull)
    worst, outside = host(xp.argmax(pull), xp.maximum(-x, x - C).max())
    gap, scale = machine + fun, C * n
    value = (max(gap, 0.0) + 4 * _EPS * (abs(machine) + abs(fun))) / scale
    details = {
        "primal": fun,
        "dual": -machine,
        "gap": gap,
        "kkt": float(host(pull.max())),
        "scale": scale,
        "worst": int(worst),
    }
    return Certificate("relative duality gap", value if outside <= 0.0 else math.inf, tol, details)


def _auto(problem, watch, options):
    """Solve for the free multipliers together, which sweeps find first for the linear kernel."""
    from ._quadratic import solve_quadratic

    if not isinstance(problem.A, Linear):
        return solve_quadratic(problem, watch, options)
    answer = _sweeps(problem, watch, options, limit=_FIRST_SWEEPS)
    if watch.run.status is not None:
        return answer
    answer = solve_quadratic(problem, watch, replace(options, x0=answer))
    watch.used = {"method": "cd, active_set"}
    return answer


def _sweeps(problem, watch, options, limit=math.inf):
    """Dual coordinate descent: multipliers that stay at a bound go out of sight for a while.

    Gives up after about `limit` sweeps, if that is not for ever.
    """
    xp, A = problem.xp, problem.A
    # Without a wish for chance, the same call shuffles the same way.
    chance = options.selection in ("random", "perm")
    rng = options.rng if chance else np.random.default_rng(0)
    x, c = options.x0 or problem.zeros()
    x, w, n = x.copy(), A.normal(x), x.size
    C, square = float(problem.penalty.hi), problem.lipschitz
    kernels = problem.be.kernels("solvers.bcd", "sweeps")
    rows = (A.X.indptr, A.X.indices, A.X.data) if A.sparse else (xp.ascontiguousarray(A.X),)
    sweep = kernels.hinge_sweep_rows if A.sparse else kernels.hinge_sweep
    order, ends, count = xp.arange(n), xp.zeros(2), n
    above, below, pending = math.inf, -math.inf, 0
    every = options.check_every or _EVERY
    watch.used = {"method": "cd"}
    report = _judge(problem, x, c, tol=watch.tol)
    if report.value <= watch.tol:
        watch.run.end(Status.CONVERGED)
    for _ in watch.run:
        order[:count] = order[xp.asarray(rng.permutation(count))]
        kept = sweep(*rows, A.y, square, C, order, count, above, below, x, w, ends)
        watch.npass += 2.0 * count / n
        watch.n_blocks += count
        count, pending = int(kept), pending + 1
        least, most = problem.be.host(ends)
        # Where all in sight are settled, or nearly, the others come back.
        settled = most - least <= 0.1 * watch.tol or count == 0
        above, below = (most or math.inf), (least or -math.inf)
        if settled:
            count, above, below = n, math.inf, -math.inf
        due = pending >= min(every, options.maxiter - watch.run.nit)
        if not (due or settled or watch.run.late):
            continue
        w = A.normal(x)
        report = _judge(problem, x, c, tol=watch.tol)
        watch.npass += 2.0
        if watch.record(
            x,
            c,
            fun=report.details["primal"],
            value=report.value,
            gap=report.details["gap"],
            block=1,
            iterations=pending,
        ):
            break
        pending = 0
        if watch.run.nit >= limit:
            break
    return Answer(x, c)
