"""What tests of `solvers.relu` compare with: other people's solvers and plain enumeration."""

import itertools
import warnings

import numpy as np


def data(n=30, d=4, seed=0, *, labels=False):
    """Samples with targets of a small network, or labels."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) / np.sqrt(d)
    y = np.maximum(X @ rng.standard_normal((d, 4)), 0) @ rng.choice([-1.0, 1.0], 4)
    y += 0.1 * rng.standard_normal(n)
    return X, (np.where(y > np.median(y), 1.0, -1.0) if labels else y)


def patterns(X, P, seed=0):
    """Distinct patterns (n, P) of gaussian vectors, and the vectors (d, P)."""
    g = np.random.default_rng(seed).standard_normal((X.shape[1], P))
    D = X @ g >= 0
    _, first = np.unique(D, axis=1, return_index=True)
    first = np.sort(first[D[:, first].any(axis=0)])
    return np.ascontiguousarray(D[:, first]), np.ascontiguousarray(g[:, first])


def cells(X):
    """All patterns of rows in general position: those around every ray where r - 1 rows vanish."""
    r, found = X.shape[1], set()
    for rows in itertools.combinations(range(len(X)), r - 1):
        u = np.linalg.svd(X[list(rows)])[2][-1] if r > 1 else np.ones(1)
        for side in (1.0, -1.0):
            base = X @ (side * u) >= 0
            for signs in itertools.product((True, False), repeat=r - 1):
                base[list(rows)] = signs
                found.add(base.tobytes())
    columns = [np.frombuffer(b, dtype=bool) for b in sorted(found)]
    return np.array([c for c in columns if c.any()]).T


def clarabel(X, y, D, beta, loss="squared", *, eps=None, delta=1.35, cones=True):
    """The optimum over gates D (n, P) by an interior point: value, V, W.

    `eps` (d,) is the radius of robust training; without `cones` the programme is the gated one.
    """
    import cvxpy as cp

    D, E = D.astype(float), 2.0 * D - 1.0
    V, W = (cp.Variable((X.shape[1], D.shape[1])) for _ in range(2))
    p = cp.sum(cp.multiply(D, X @ (V - W)), axis=1)
    q = np.zeros(len(X)) if eps is None else cp.abs(D @ (V - W).T) @ eps
    short = 1 - cp.multiply(y, p) + q
    value = {
        "squared": lambda: 0.5 * cp.sum_squares(p - y if eps is None else cp.abs(p - y) + q),
        "hinge": lambda: cp.sum(cp.pos(short)),
        "logistic": lambda: cp.sum(cp.logistic(short - 1)),
        "squared_hinge": lambda: 0.5 * cp.sum_squares(cp.pos(short)),
        "huber": lambda: 0.5 * cp.sum(cp.huber(p - y, delta)),
    }[loss]()
    penalty = cp.sum(cp.norm(V, axis=0)) + cp.sum(cp.norm(W, axis=0))
    limits = []
    for T in (V, W) if cones else ():
        far = (
            0
            if eps is None
            else np.ones((len(X), 1)) @ cp.reshape(eps @ cp.abs(T), (1, D.shape[1]), order="C")
        )
        limits.append(cp.multiply(E, X @ T) >= far)
    problem = cp.Problem(cp.Minimize(value + beta * penalty), limits)
    _solve(problem, 1e-10)
    return problem.value, V.value, W.value


def nearest(A, f, eps=None):
    """The point nearest to f with ``A u >= eps^T |u|``, by an interior point."""
    import cvxpy as cp

    u = cp.Variable(len(f))
    far = 0 if eps is None else eps @ cp.abs(u)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u - f)), [A @ u >= far])
    _solve(problem, 1e-12)
    return u.value


def _solve(problem, tol):
    with warnings.catch_warnings():
        # It warns where rounding keeps it from the last digits.
        warnings.simplefilter("ignore")
        problem.solve(solver="CLARABEL", tol_gap_abs=tol, tol_gap_rel=tol, tol_feas=tol)
