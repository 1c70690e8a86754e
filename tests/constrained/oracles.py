"""Problems and verdicts that share no code with the library: NumPy, SciPy and closed forms."""

import numpy as np
import scipy.linalg
from scipy.optimize import LinearConstraint, NonlinearConstraint, lsq_linear


def circle(n=3, sign=1.0):
    """The point of the unit sphere nearest to twos (or, with -1, farthest), and its problem."""
    con = NonlinearConstraint(
        lambda x: np.array([x @ x - 1.0]),
        0.0,
        0.0,
        jac=lambda x: 2.0 * x[None],
        hess=lambda x, v: 2.0 * v[0] * np.eye(n),
    )
    problem = {
        "fun": lambda x: 0.5 * np.sum((x - 2.0) ** 2),
        "jac": lambda x: x - 2.0,
        "hess": lambda x: np.eye(n),
        "constraints": con,
    }
    return sign * np.ones(n) / np.sqrt(n), problem


def planted(rng, n=10, m=3, k=3):
    """A point at which m equalities, k inequalities and some bounds hold with known multipliers.

    Returns the point, the multipliers of rows, those of bounds, and the problem. Its objective
    is linear and its rows are ``A (x - x*) + s |x - x*|^2 / 2``, the last of them inactive.
    """
    x, A = rng.normal(size=n), rng.normal(size=(m + k + 1, n))
    lam = np.concatenate([rng.normal(size=m), -rng.uniform(0.1, 2.0, size=k), [0.0]])
    bound = np.zeros(n)
    bound[0], bound[1] = -rng.uniform(0.1, 2.0), rng.uniform(0.1, 2.0)
    lo, up = np.full(n, -np.inf), np.full(n, np.inf)
    lo[0], up[1], lo[2], up[2] = x[0], x[1], x[2] - 1.0, x[2] + 1.0
    g = -(A.T @ lam + bound)
    low = np.concatenate([np.zeros(m + k), [-3.0]])
    high = np.concatenate([np.zeros(m), np.full(k + 1, np.inf)])
    con = NonlinearConstraint(
        lambda y: A @ (y - x) + 0.05 * np.sum((y - x) ** 2),
        low,
        high,
        jac=lambda y: A + 0.1 * (y - x),
        hess=lambda y, v: 0.1 * v.sum() * np.eye(n),
    )
    problem = {
        "fun": lambda y: g @ (y - x),
        "jac": lambda y: g,
        "constraints": con,
        "bounds": list(zip(lo, up, strict=True)),
    }
    return x, lam, bound, problem


def kkt(x, fun, jac, constraints, hess=None):
    """The KKT residual of a problem with equalities only, by NumPy's least squares."""
    g, c, G = jac(x), constraints.fun(x), constraints.jac(x)
    lam = np.linalg.lstsq(G.T, -g, rcond=1e-12)[0]
    return max(abs(g + G.T @ lam).max(), abs(c).max())


def fitted_cost(g, G, below, above, lo, up):
    """The smallest sum of squares of what multipliers leave, by active sets over all sides."""
    n = G.shape[1]
    A = np.concatenate([-G, G, -np.eye(n), np.eye(n)]).T
    d = np.concatenate([below, above, lo, up])
    A, d = A[:, np.isfinite(d)], d[np.isfinite(d)]
    A = np.concatenate([A, np.diag(d)])
    b = np.concatenate([-g, np.zeros(len(d))])
    if not A.shape[1]:
        return g @ g
    y = lsq_linear(A, b, bounds=(0, np.inf), method="bvls", tol=1e-15, max_iter=2000).x
    return np.sum((A @ y - b) ** 2)


def reduced_eigenvalue(H, A):
    """The smallest eigenvalue of H on the null space of A."""
    Z = scipy.linalg.null_space(A)
    return np.linalg.eigvalsh(Z.T @ H @ Z)[0]


def quadratic(rng, n=8, m=3):
    """A convex quadratic programme with equalities, and its solution and multipliers."""
    W, A = rng.normal(size=(n, n)), rng.normal(size=(m, n))
    H, g, b = W @ W.T / n + np.eye(n), rng.normal(size=n), rng.normal(size=m)
    K = np.block([[H, A.T], [A, np.zeros((m, m))]])
    both = np.linalg.solve(K, np.concatenate([-g, b]))
    problem = {
        "fun": lambda x: 0.5 * x @ H @ x + g @ x,
        "jac": lambda x: H @ x + g,
        "hess": lambda x: H,
        "constraints": LinearConstraint(A, b, b),
    }
    return both[:n], both[n:], problem
