"""Constrained problems for docs, tests and benchmarks, with exact derivatives."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .random import check_rng


class ConstrainedProblem(NamedTuple):
    """A function to minimise under constraints, with derivatives and a start.

    Attributes
    ----------
    fun, jac, hess : callable
        The objective, its gradient and its Hessian.
    constraints : LinearConstraint, NonlinearConstraint or list of them
        As SciPy has them.
    x0 : ndarray, shape (n,)
        Where to start.
    solution : ndarray, shape (n,), or None
        A minimiser, where one is known.
    hessp : callable or None
        ``hessp(x, p)``: the Hessian of the objective times a vector, where that is cheaper.
    """

    fun: Any
    jac: Any
    hess: Any
    constraints: Any
    x0: np.ndarray
    solution: np.ndarray | None = None
    hessp: Any = None

    def keywords(self):
        """Return what goes after ``fun`` and ``x0`` in a call.

        Returns
        -------
        dict
            `jac`, `hess` and `constraints`, for `solvers.constrained.minimize`.
        """
        return {"jac": self.jac, "hess": self.hess, "constraints": self.constraints}


def planted_program(n=50, m=10, *, curvature=0.2, rng=None):
    """Plant a strict minimiser and its multipliers in a random problem with equations.

    Parameters
    ----------
    n : int, default 50
        Number of unknowns.
    m : int, default 10
        Number of equations, fewer than `n`.
    curvature : float, default 0.2
        Size of the equations' second derivatives; 0 makes a convex quadratic programme.
    rng : int, numpy.random.Generator or None, default None
        Source of the draw.

    Returns
    -------
    ConstrainedProblem
        Started close to the solution that it knows. Objective and equations are quadratic.

    Examples
    --------
    >>> from solvers import datasets
    >>> problem = datasets.planted_program(20, 5, rng=0)
    >>> bool(abs(problem.constraints.fun(problem.solution)).max() < 1e-12)
    True
    """
    rng = check_rng(rng)
    best, A, lam = rng.normal(size=n), rng.normal(size=(m, n)) / np.sqrt(n), rng.normal(size=m)
    Q = curvature * rng.normal(size=(m, n, n)) / np.sqrt(n)
    Q = (Q + Q.transpose(0, 2, 1)) / 2
    # The Hessian of the Lagrangian at the solution is diagonal and positive.
    D = np.diag(rng.uniform(1.0, 4.0, size=n))
    P = D - np.tensordot(lam, Q, 1)
    g = -A.T @ lam

    def rows(x):
        d = x - best
        return A @ d + 0.5 * (Q @ d) @ d

    return ConstrainedProblem(
        fun=lambda x: float(g @ (x - best) + 0.5 * (x - best) @ P @ (x - best)),
        jac=lambda x: g + P @ (x - best),
        hess=lambda x: P,
        constraints=_equations(
            m, rows, lambda x: A + Q @ (x - best), lambda x, v: np.tensordot(v, Q, 1)
        ),
        x0=best + 0.3 * rng.normal(size=n) / np.sqrt(n),
        solution=best,
    )


def constrained_logistic(n_samples=1000, n=40, m=10, *, decay=0.5, data=None, rng=None):
    r"""Fit a logistic model whose weights have length 1 and satisfy linear equations.

    Parameters
    ----------
    n_samples : int, default 1000
        Number of samples.
    n : int, default 40
        Number of features.
    m : int, default 10
        Number of linear equations; the length is one more.
    decay : float, default 0.5
        Feature j is scaled by :math:`j^{-decay}`.
    data : (ndarray, ndarray), optional
        Samples of shape (n_samples, n) and their labels, +1 or -1, in place of random ones.
    rng : int, numpy.random.Generator or None, default None
        Source of the draw.

    Returns
    -------
    ConstrainedProblem
        Of minimising the mean of ``log(1 + exp(-y (X w)))`` subject to ``A w = b`` and
        ``w @ w = 1``, with Gaussian `A`, and `b` such that there are such weights. Products with
        the Hessian are cheaper than the Hessian.

    References
    ----------
    Hong, Na, Mahoney, Kolar. Constrained optimization via exact augmented Lagrangian and
    randomized iterative sketching. ICML 2023.
    """
    rng = check_rng(rng)
    if data is None:
        X = rng.normal(size=(n_samples, n)) * np.arange(1, n + 1) ** -float(decay)
        y = np.where(X @ rng.normal(size=n) + 0.5 * rng.normal(size=n_samples) > 0, 1.0, -1.0)
    else:
        X, y = (np.asarray(part, dtype=np.float64) for part in data)
        n_samples, n = X.shape
    A, inside = rng.normal(size=(m, n)), rng.normal(size=n)
    # Random right-hand sides could be farther than 1 from the origin: no weights at all.
    inside /= np.linalg.norm(inside)
    b = A @ inside

    def weights(w):
        p = 1.0 / (1.0 + np.exp(np.clip(y * (X @ w), -500.0, 500.0)))
        return p * (1.0 - p) / n_samples

    def jac(w):
        return -(X.T @ (y / (1.0 + np.exp(np.clip(y * (X @ w), -500.0, 500.0))))) / n_samples

    return ConstrainedProblem(
        fun=lambda w: float(np.logaddexp(0.0, -y * (X @ w)).mean()),
        jac=jac,
        hess=lambda w: (X.T * weights(w)) @ X,
        hessp=lambda w, p: X.T @ (weights(w) * (X @ p)),
        constraints=_equations(
            m + 1,
            lambda w: np.concatenate([A @ w - b, [w @ w - 1.0]]),
            lambda w: np.concatenate([A, 2.0 * w[None]]),
            lambda w, v: 2.0 * v[-1] * np.eye(n),
        ),
        x0=np.zeros(n) + 1.0 / np.sqrt(n),
    )


def poisson_control(side=32, *, weight=0.1):
    r"""Steer the solution of Poisson's equation on a square to a wavy surface.

    Parameters
    ----------
    side : int, default 32
        The grid has `side` x `side` inner points.
    weight : float, default 0.1
        What control costs.

    Returns
    -------
    ConstrainedProblem
        Of minimising :math:`\tfrac{1}{2} \|w - w_d\|^2 + \tfrac{1}{2} weight \|z\|^2` subject to
        :math:`\Delta_h w + z = 0`: a quadratic programme with 2 `side`:sup:`2` unknowns (w, z)
        and sparse derivatives.

    References
    ----------
    Hong, Na, Mahoney, Kolar. Constrained optimization via exact augmented Lagrangian and
    randomized iterative sketching. ICML 2023.
    """
    from scipy.optimize import LinearConstraint

    h, k = 2.0 / (side + 1), side * side
    ones = np.ones(side)
    second = sp.diags_array([ones[1:], -2.0 * ones, ones[1:]], offsets=[-1, 0, 1]) / h**2
    eye = sp.eye_array(side)
    laplacian = sp.kron(eye, second) + sp.kron(second, eye)
    A = sp.csr_array(sp.hstack([laplacian, sp.eye_array(k)]))
    place = 0.1 / np.sqrt(15.0) * (np.arange(1, side + 1) - (side + 1) / 2)
    wanted = (np.sin(4.0 + place)[:, None] + np.cos(3.0 + place)).reshape(-1)
    target = np.concatenate([wanted, np.zeros(k)])
    d = np.concatenate([np.ones(k), np.full(k, float(weight))])
    H = sp.csr_array(sp.diags_array(d))
    return ConstrainedProblem(
        fun=lambda x: float(0.5 * (x - target) @ (d * (x - target))),
        jac=lambda x: d * (x - target),
        hess=lambda x: H,
        hessp=lambda x, p: d * p,
        constraints=LinearConstraint(A, 0.0, 0.0),
        x0=np.ones(2 * k),
    )


def thomson(n_charges=25, *, rng=None):
    """Let equal charges on the unit sphere repel each other.

    Parameters
    ----------
    n_charges : int, default 25
        Number of charges.
    rng : int, numpy.random.Generator or None, default None
        Source of the start, uniform on the sphere.

    Returns
    -------
    ConstrainedProblem
        Of minimising the sum of the inverse distances, over points of shape (`n_charges`, 3),
        row by row in one vector, of length 1 each. It has many local minima, and turning the
        sphere changes nothing.

    Examples
    --------
    Four charges make a tetrahedron:

    >>> from solvers import constrained, datasets
    >>> problem = datasets.thomson(4, rng=0)
    >>> res = constrained.minimize(problem.fun, problem.x0, **problem.keywords())
    >>> bool(abs(res.fun - 6 / (8 / 3) ** 0.5) < 1e-8)
    True
    """
    rng, k = check_rng(rng), n_charges
    x0 = rng.normal(size=(k, 3))
    x0 /= np.linalg.norm(x0, axis=1, keepdims=True)
    i, j = np.triu_indices(k, 1)
    charge = np.repeat(np.arange(k), 3)

    def apart(x):
        d = x.reshape(k, 3)[:, None] - x.reshape(k, 3)
        r = np.sqrt((d**2).sum(axis=2))
        np.fill_diagonal(r, np.inf)
        return d, r

    def hess(x):
        d, r = apart(x)
        pairs = np.eye(3) / r[:, :, None, None] ** 3
        pairs = pairs - 3.0 * d[:, :, :, None] * d[:, :, None, :] / r[:, :, None, None] ** 5
        pairs[np.arange(k), np.arange(k)] = -pairs.sum(axis=1)
        return pairs.transpose(0, 2, 1, 3).reshape(3 * k, 3 * k)

    def jac(x):
        d, r = apart(x)
        return -(d / r[:, :, None] ** 3).sum(axis=1).reshape(-1)

    return ConstrainedProblem(
        fun=lambda x: float((1.0 / apart(x)[1][i, j]).sum()),
        jac=jac,
        hess=hess,
        constraints=_equations(
            k,
            lambda x: (x.reshape(k, 3) ** 2).sum(axis=1) - 1.0,
            lambda x: sp.csr_array((2.0 * x, (charge, np.arange(3 * k))), shape=(k, 3 * k)),
            lambda x, v: sp.csr_array(sp.diags_array(2.0 * v[charge])),
        ),
        x0=x0.reshape(-1),
    )


def chained_rosenbrock(n=1000):
    """Chain Rosenbrock functions under trigonometric and exponential equations.

    Parameters
    ----------
    n : int, default 1000
        Number of unknowns; there are n - 2 equations.

    Returns
    -------
    ConstrainedProblem
        Problem LUKVLE1 of the CUTEst collection, with banded derivatives. Its minimum at ones has
        the value 0; other local minima exist.

    References
    ----------
    Luksan, Vlcek. Sparse and partially separable test problems for unconstrained and equality
    constrained optimization. Technical report 767, Prague, 1999.
    """
    one = np.ones(n - 1)

    def fun(x):
        a, b = x[:-1], x[1:]
        return float(np.sum(100.0 * (a**2 - b) ** 2 + (a - 1.0) ** 2))

    def jac(x):
        a, b = x[:-1], x[1:]
        g = np.zeros(n)
        g[:-1] = 400.0 * a * (a**2 - b) + 2.0 * (a - 1.0)
        g[1:] -= 200.0 * (a**2 - b)
        return g

    def hess(x):
        a, b = x[:-1], x[1:]
        d, off = np.zeros(n), -400.0 * a
        d[:-1] = 1200.0 * a**2 - 400.0 * b + 2.0
        d[1:] += 200.0 * one
        return sp.csr_array(sp.diags_array([off, d, off], offsets=[-1, 0, 1]))

    def rows(x):
        a, b, c = x[:-2], x[1:-1], x[2:]
        waves = np.sin(b - c) * np.sin(b + c)
        return 3.0 * b**3 + 2.0 * c - 5.0 + waves + 4.0 * b - a * np.exp(a - b) - 3.0

    def rows_jac(x):
        a, b, c = x[:-2], x[1:-1], x[2:]
        e = np.exp(a - b)
        bands = [-(1.0 + a) * e, 9.0 * b**2 + np.sin(2.0 * b) + 4.0 + a * e, 2.0 - np.sin(2.0 * c)]
        return sp.csr_array(sp.diags_array(bands, offsets=[0, 1, 2], shape=(n - 2, n)))

    def rows_hess(x, v):
        a, b, c = x[:-2], x[1:-1], x[2:]
        e = v * np.exp(a - b)
        d, off = np.zeros(n), np.zeros(n - 1)
        d[:-2] -= (2.0 + a) * e
        d[1:-1] += v * (18.0 * b + 2.0 * np.cos(2.0 * b)) - a * e
        d[2:] -= 2.0 * v * np.cos(2.0 * c)
        off[:-1] += (1.0 + a) * e
        return sp.csr_array(sp.diags_array([off, d, off], offsets=[-1, 0, 1]))

    start = np.where(np.arange(n) % 2 == 0, -1.2, 1.0)
    constraints = _equations(n - 2, rows, rows_jac, rows_hess)
    return ConstrainedProblem(fun, jac, hess, constraints, start, np.ones(n))


def stiefel_procrustes(p=50, k=5, *, noise=0.0, rng=None):
    r"""Turn a frame of k orthonormal columns so that it maps one cloud of points to another.

    Parameters
    ----------
    p : int, default 50
        Length of the columns.
    k : int, default 5
        Number of columns.
    noise : float, default 0.0
        Size of the errors of the second cloud.
    rng : int, numpy.random.Generator or None, default None
        Source of the draw.

    Returns
    -------
    ConstrainedProblem
        Of minimising :math:`\tfrac{1}{2} \|A X - B\|_F^2` subject to :math:`X^\top X = I`, over X
        of shape (`p`, `k`), row by row in one vector. Without noise the planted frame is the
        solution.
    """
    rng = check_rng(rng)
    A = rng.normal(size=(2 * p, p)) / np.sqrt(p)
    planted = np.linalg.qr(rng.normal(size=(p, k)))[0]
    B = A @ planted + noise * rng.normal(size=(2 * p, k))
    i, j = np.triu_indices(k)
    m, H = len(i), np.kron(A.T @ A, np.eye(k))
    # Entry (l, j) of X counts in the row of the pair (i, j) with X[l, i], and the other way round.
    pair, line = np.repeat(np.arange(m), p), np.tile(np.arange(p), m)
    left, right = i[pair], j[pair]

    def rows_jac(x):
        X = x.reshape(p, k)
        values = np.concatenate([X[line, right], X[line, left]])
        places = np.concatenate([line * k + left, line * k + right])
        return sp.csr_array((values, (np.tile(pair, 2), places)), shape=(m, p * k))

    def rows_hess(x, v):
        S = np.zeros((k, k))
        S[i, j] = v
        return np.kron(np.eye(p), S + S.T)

    def rows(x):
        X = x.reshape(p, k)
        return (X.T @ X - np.eye(k))[i, j]

    start = np.linalg.qr(planted + 0.5 * rng.normal(size=(p, k)) / np.sqrt(p))[0]
    return ConstrainedProblem(
        fun=lambda x: float(0.5 * np.sum((A @ x.reshape(p, k) - B) ** 2)),
        jac=lambda x: (A.T @ (A @ x.reshape(p, k) - B)).reshape(-1),
        hess=lambda x: H,
        hessp=lambda x, u: (A.T @ (A @ u.reshape(p, k))).reshape(-1),
        constraints=_equations(m, rows, rows_jac, rows_hess),
        # A frame of QR may come with columns turned round.
        x0=(start * np.sign((start * planted).sum(axis=0))).reshape(-1),
        solution=planted.reshape(-1) if noise == 0 else None,
    )


def _equations(m, fun, jac, hess):
    from scipy.optimize import NonlinearConstraint

    return NonlinearConstraint(fun, np.zeros(m), np.zeros(m), jac=jac, hess=hess)
