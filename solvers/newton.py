r"""Newton's method for smooth functions without constraints, with approximate Hessians.

.. math:: \min_x \; f(x)

The Hessian may be replaced by any positive semi-definite approximation whose error the
regularisation can absorb. `gns_newton` builds the usual ones from their parts:

==================  =================================================  =======================
``approx``          what ``hess(x)`` returns                           approximation
==================  =================================================  =======================
"exact"             H: dense, sparse, or an operator                   H
"gauss-newton"      J (k, n), or (J, w) with weights w (k,)            J^T diag(w) J
"fisher"            gradients of k samples, (k, n)                     mean of g_i g_i^T
"logsumexp"         (A, p, mu): A (k, n), softmax p (k,), scale mu     A^T diag(p) A / mu
"power"             (u, J, p): residuals u (k,), Jacobian (k, n)       the Hessian of
                                                                       ||u||^p / p without
                                                                       second derivatives of u
==================  =================================================  =======================
"""

import math
from typing import Any, ClassVar

import numpy as np

from ._core.arrays import Ingest, is_sparse
from ._core.certificate import Certificate
from ._core.linalg import pcg
from ._core.monitor import Monitor
from ._core.result import Result, Status
from ._core.validation import (
    check_array,
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_flag_or_stride,
    check_positive,
    check_time_limit,
    describe,
)

__all__ = ["NewtonResult", "gns_newton"]

# Radii below the smallest, and more tries than this, mean that rounding decides. A step needs
# this part of the promised decrease of f, up to rounding.
_SMALLEST, _TRIES, _PART, _ROUNDING = 1e-9, 40, 0.125, 1e-15
_FORCING = 0.1

_CITATION = """\
@inproceedings{semenov2026gns,
  title = {Gradient-Normalized Smoothness for Optimization with Approximate Hessians},
  author = {Semenov, Andrei and Jaggi, Martin and Doikov, Nikita},
  booktitle = {International Conference on Learning Representations},
  year = {2026},
  note = {arXiv:2506.13710}
}"""


class NewtonResult(Result):
    """Outcome of `gns_newton`.

    Attributes
    ----------
    x : array, shape (n,)
        The point.
    fun : float
        The objective.
    jac : array, shape (n,)
        Its gradient.
    gamma : float
        The last gradient-normalised radius.
    nfev, njev, nhev : int
        Values, gradients and Hessians that were asked for.
    nsolve : int
        Regularised Newton systems that were solved.
    """

    x: Any
    jac: Any
    gamma: float
    nfev: int
    njev: int
    nhev: int
    nsolve: int

    _bibtex: ClassVar = {"gns_newton": _CITATION}


def gns_newton(
    fun,
    x0,
    *,
    jac,
    hess,
    approx=None,
    metric=None,
    gamma0=1.0,
    tol=1e-8,
    maxiter=500,
    time_limit=None,
    callback=None,
    progress=False,
    history=True,
):
    r"""Minimise a smooth function by Newton steps that find the right regularisation.

    A step is :math:`s = -(H + \lambda D)^{-1} g` with :math:`\lambda = \|g\|_* / \gamma`. The
    radius :math:`\gamma` doubles after steps that succeed at once and halves until f falls by
    :math:`\|g(x + s)\|_*^2 / (8 \lambda)`; no constant of the problem is needed [1]_.

    Parameters
    ----------
    fun : callable
        The objective, of x alone.
    x0 : array, shape (n,)
        The start. Its kind of array and its precision are those of the result; the callables get
        that kind, and the steps are computed in float64.
    jac : callable
        Its gradient.
    hess : callable
        ``hess(x)`` returns what `approx` says.
    approx : {None, "exact", "gauss-newton", "fisher", "logsumexp", "power"}
        How the Hessian is built, see the table in `solvers.newton`; None is "exact". The mean of
        ``g_i g_i^T`` vanishes where all samples are fitted, and steps get small there.
    metric : array, shape (n,), optional
        Diagonal of D, positive; the identity by default.
    gamma0 : float, default 1.0
        First radius.
    tol : float, default 1e-8
        Stop when :math:`\|g\|_* = \sqrt{g^\top D^{-1} g}` is at most `tol`.
    maxiter : int, default 500
        Largest number of steps.
    time_limit : float, optional
        Seconds of wall-clock time.
    callback : callable, optional
        ``callback(intermediate_result)`` after every step; a true return or StopIteration ends
        the run.
    progress : bool, default False
        Show progress.
    history : bool or int, default True
        Whether, or every how many steps, to keep a row of the history.

    Returns
    -------
    NewtonResult
        With `x`, `fun`, `jac`, `gamma`, counts, and the certificate "gradient norm".

    Notes
    -----
    Dense Hessians are factored by Cholesky, and by one eigendecomposition where a second try is
    needed; approximations of a rank below n by the eigenvalues of a small Gram matrix, once for
    all tries; sparse matrices and operators serve conjugate gradients. A Hessian that is not
    positive definite after regularisation counts as a failed try.

    References
    ----------
    .. [1] A. Semenov, M. Jaggi, N. Doikov. Gradient-normalized smoothness for optimization with
       approximate Hessians. ICLR 2026. arXiv:2506.13710.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers.newton import gns_newton
    >>> res = gns_newton(
    ...     lambda x: np.cosh(x).sum(),
    ...     np.array([1.0, -2.0]),
    ...     jac=np.sinh,
    ...     hess=lambda x: np.diag(np.cosh(x)),
    ... )
    >>> res.success
    True
    """
    approx = check_choice(approx, "approx", (None, *_APPROXIMATIONS)) or "exact"
    gamma, tol = check_positive(gamma0, "gamma0"), check_positive(tol, "tol")
    io = Ingest(x0=x0, metric=metric)
    x = check_array(io, "x0", ndim=1).astype(np.float64)
    D = check_array(io, "metric", shape=x.shape, means="x0.shape")
    if D is not None and not io.be.host(D.min()) > 0:
        raise ValueError("`metric` came with an entry that is not positive; expected D > 0")
    problem = _Problem(io, fun, jac, hess, _APPROXIMATIONS[approx], D)
    run = Monitor(
        "gns_newton",
        "gradient_norm",
        tol=tol,
        maxiter=check_count(maxiter, "maxiter"),
        time_limit=check_time_limit(time_limit),
        callback=check_callable(callback, "callback"),
        progress=check_flag(progress, "progress"),
        history=check_flag_or_stride(history, "history"),
    )
    with io.device, np.errstate(all="ignore"):
        return _finished(problem, run, *_solve(problem, run, x, gamma, tol), tol)


def _solve(problem, run, x, gamma, tol):
    f, g = problem.start(x)
    size = problem.norm(g)
    if size <= tol:
        run.end(Status.CONVERGED)
    for _ in run:
        step = _step(problem, x, f, g, size, gamma)
        if step is None:
            run.end(Status.STALLED, "No step lowers the objective by more than rounding.")
            break
        x, f, g, size, lam, tries = step
        gamma /= 2.0 ** (tries - 1)
        state = lambda x=x: {"x": problem.out(x)}  # noqa: E731
        run.record(size, state=state, fun=f, lam=lam, gamma=gamma, tries=tries)
        if tries == 1:
            gamma *= 2
    return x, gamma


def _step(problem, x, f, g, size, gamma):
    """Return where a step leads, with value, gradient, its norm, lambda and tries; or None."""
    model = problem.model(x)
    for tries in range(1, _TRIES + 1):
        lam = size / gamma
        s = model.step(g, lam, size)
        new = x if s is None else x + s
        f_new = math.nan if s is None else problem.value(new)
        # Only a value that did not rise is worth a gradient.
        if f - f_new >= -_ROUNDING * abs(f):
            g_new = problem.gradient(new)
            size_new = problem.norm(g_new)
            if f - f_new >= _PART * size_new**2 / lam - _ROUNDING * abs(f):
                return new, f_new, g_new, size_new, lam, tries
        gamma /= 2
        if gamma < _SMALLEST:
            return None
    return None


def _finished(problem, run, x, gamma, tol):
    exact, x = x, problem.rounded(x)
    g = problem.gradient(x)
    # Rounding to the caller's precision moves the gradient; `tol` is about the point before.
    floor = 0.0 if x is exact else problem.norm(g - problem.gradient(exact))
    details = {"largest_entry": problem.host(abs(g).max()), "rounding": floor}
    return run.finish(
        NewtonResult,
        Certificate("gradient norm", problem.norm(g), tol + floor, details),
        x=problem.out(x),
        fun=problem.value(x),
        jac=problem.out(g),
        gamma=gamma,
        nfev=problem.nfev,
        njev=problem.njev,
        nhev=problem.nhev,
        nsolve=problem.nsolve,
    )


class _Problem:
    """The caller's functions, counted and cast, and the metric."""

    def __init__(self, io, fun, jac, hess, approximate, D):
        for name, function in (("fun", fun), ("jac", jac), ("hess", hess)):
            if not callable(function):
                raise TypeError(f"`{name}` came as {describe(function)}; expected a callable")
        self._io, self.be, self.xp = io, io.be, io.xp
        self._fun, self._jac, self._hess, self._approximate = fun, jac, hess, approximate
        # In x = root u the metric is the identity.
        self.root = None if D is None else 1 / self.xp.sqrt(D.astype(np.float64))
        self.nfev = self.njev = self.nhev = self.nsolve = 0

    def start(self, x):
        """Return value and gradient at the start, which must be finite."""
        f, g = self.value(x), self.gradient(x)
        for name, finite in (("fun(x0)", math.isfinite(f)), ("jac(x0)", self.norm(g) < math.inf)):
            if not finite:
                raise ValueError(f"`{name}` came with values that are not finite")
        return f, g

    def value(self, x):
        self.nfev += 1
        return float(self.host(self.array(self._fun(self.theirs(x)), "fun").reshape(())))

    def gradient(self, x):
        self.njev += 1
        g = self.array(self._jac(self.theirs(x)), "jac")
        if g.shape != x.shape:
            raise ValueError(f"`jac` returned shape {g.shape}; expected {x.shape}")
        return g

    def model(self, x):
        """Return the approximate Hessian at a point, ready for every lambda."""
        self.nhev += 1
        return self._approximate(self, self._hess(self.theirs(x)), len(x))

    def norm(self, g):
        """Return the norm of a gradient."""
        return self.host(self.xp.linalg.norm(g if self.root is None else self.root * g))

    def array(self, value, name):
        """Return what a function of the caller returned as an array of float64."""
        if isinstance(value, float | int | list | tuple | np.generic):
            return self.xp.asarray(value, dtype=np.float64)
        return Ingest(**{name: value}).raw(name).astype(np.float64)

    def rounded(self, x):
        """Return a point as it will go out, the same object where nothing is lost."""
        return x if self._io.dtype == x.dtype else x.astype(self._io.dtype).astype(x.dtype)

    def out(self, x):
        """Return a copy in the caller's kind and precision."""
        return self._io.out(x.copy())

    def theirs(self, x):
        """Return a copy for the caller's functions, in float64 where the kind allows it."""
        return x.copy() if self._io.kind in ("numpy", "cupy") else self.out(x)

    def host(self, value):
        return self.be.host(value)


# ---------------------------------------------------------------- models
class _Model:
    """A Hessian H for ``step(g, lam, size)``: ``-(H + lam D)^-1 g``, or None if that fails."""

    def __init__(self, problem):
        self._problem, self._xp, self._be = problem, problem.xp, problem.be

    def step(self, g, lam, size):
        root = self._problem.root
        self._problem.nsolve += 1
        u = self._solve(g if root is None else root * g, lam, size)
        if u is None:
            return None
        return -u if root is None else -root * u


class _Dense(_Model):
    """A dense Hessian: Cholesky for the first lambda, eigenvalues for all that follow."""

    def __init__(self, problem, H):
        super().__init__(problem)
        root = problem.root
        self._H = H if root is None else root[:, None] * H * root
        self._tried, self._eigen = False, None

    def _solve(self, g, lam, size):
        xp, be = self._xp, self._be
        if not self._tried:
            self._tried = True
            try:
                L = be.cholesky(self._H + lam * xp.eye(len(g)))
            except np.linalg.LinAlgError:
                return None
            half = be.linalg.solve_triangular(L, g, lower=True)
            return be.linalg.solve_triangular(L, half, lower=True, trans="T")
        if self._eigen is None:
            self._eigen = xp.linalg.eigh(self._H)
        w, Q = self._eigen
        if not be.host(w.min()) + lam > 0:
            return None
        return Q @ ((Q.T @ g) / (w + lam))


class _LowRank(_Model):
    """``H = R^T R`` with fewer rows than columns: one small eigenproblem serves every lambda."""

    def __init__(self, problem, R):
        super().__init__(problem)
        self._R = R if problem.root is None else R * problem.root
        self._w, self._Q = problem.xp.linalg.eigh(self._R @ self._R.T)

    def _solve(self, g, lam, size):
        # (R^T R + lam)^-1 g = (g - R^T (R R^T + lam)^-1 R g) / lam
        inner = self._Q @ ((self._Q.T @ (self._R @ g)) / (abs(self._w) + lam))
        return (g - self._R.T @ inner) / lam


class _Products(_Model):
    """A Hessian that is known by its products: conjugate gradients."""

    def __init__(self, problem, product):
        super().__init__(problem)
        root = problem.root
        self._product = product if root is None else lambda v: root * product(root * v)

    def _solve(self, g, lam, size):
        solved = pcg(
            lambda v: self._product(v) + lam * v, g, be=self._be, tol=_FORCING * min(1.0, size)
        )
        return None if solved.flag == "breakdown" else solved.x


def _exact(problem, H, n):
    if tuple(getattr(H, "shape", (n, n))) != (n, n):
        raise ValueError(f"`hess` returned shape {tuple(H.shape)}; expected {(n, n)}")
    # A LinearOperator of SciPy lives in `scipy.sparse` too.
    if hasattr(H, "matvec"):
        return _Products(problem, lambda v: problem.array(H.matvec(problem.theirs(v)), "hess"))
    if is_sparse(H):
        H = H.astype(np.float64)
        return _Products(problem, lambda v: H @ v)
    H = problem.array(H, "hess")
    return _Dense(problem, H.reshape(n, n) if H.size == n * n else _rows(H, n))


def _squared(problem, R, n):
    """Return the model ``R^T R``."""
    if is_sparse(R):
        return _Products(problem, lambda v: R.T @ (R @ v))
    return _LowRank(problem, R) if len(R) < n else _Dense(problem, R.T @ R)


def _gauss_newton(problem, parts, n):
    J, w = parts if isinstance(parts, tuple) else (parts, None)
    J = _jacobian(problem, J, n)
    if w is None:
        return _squared(problem, J, n)
    return _squared(problem, _weighted(problem, J, problem.array(w, "hess")), n)


def _fisher(problem, gradients, n):
    J = _jacobian(problem, gradients, n)
    return _squared(problem, J / math.sqrt(J.shape[0]), n)


def _logsumexp(problem, parts, n):
    A, p, mu = parts
    J = _jacobian(problem, A, n)
    return _squared(problem, _weighted(problem, J, problem.array(p, "hess") / mu), n)


def _power(problem, parts, n):
    u, J, p = parts
    u, J = problem.array(u, "hess"), _jacobian(problem, J, n)
    size = problem.host(problem.xp.linalg.norm(u))
    if not size > 0 or not p > 1:
        raise ValueError("`hess` returned (u, J, p); expected u that is not zero and p > 1")
    # The weight ||u||^(p-2) (I + (p-2) e e^T), e = u / ||u||, has this square root.
    e = u / size
    stretched = J + (math.sqrt(p - 1) - 1) * e[:, None] * (e @ J)
    return _squared(problem, size ** (0.5 * p - 1) * stretched, n)


def _jacobian(problem, J, n):
    if is_sparse(J):
        return _rows(J.tocsr().astype(np.float64), n)
    return _rows(problem.array(J, "hess"), n)


def _rows(J, n):
    if J.ndim != 2 or J.shape[1] != n:
        raise ValueError(f"`hess` returned shape {tuple(J.shape)}; expected (k, {n})")
    return J


def _weighted(problem, J, w):
    if w.shape != (J.shape[0],) or not problem.host(w.min()) >= 0:
        raise ValueError(
            f"`hess` returned weights of shape {w.shape}; expected ({J.shape[0]},), none negative"
        )
    root = problem.xp.sqrt(w)
    return problem.be.sparse.diags(root) @ J if is_sparse(J) else J * root[:, None]


_APPROXIMATIONS = {
    "exact": _exact,
    "gauss-newton": _gauss_newton,
    "fisher": _fisher,
    "logsumexp": _logsumexp,
    "power": _power,
}
