"""Optima of small programmes by a conic solver, and objectives written out."""

import warnings

import numpy as np
import pytest

LOSSES = {
    "squared": lambda p, y: 0.5 * np.sum((p - y) ** 2),
    "logistic": lambda p, y: np.logaddexp(0, -y * p).sum(),
    "hinge": lambda p, y: np.maximum(0, 1 - y * p).sum(),
    "squared_hinge": lambda p, y: 0.5 * np.sum(np.maximum(0, 1 - y * p) ** 2),
    "huber": lambda p, y: np.where(
        abs(p - y) <= 1.35, 0.5 * (p - y) ** 2, 1.35 * abs(p - y) - 0.5 * 1.35**2
    ).sum(),
}


def conic_loss(cp, loss, p, y):
    """The loss of predictions p, for the modeller cp."""
    margin = 1 - cp.multiply(y, p)
    return {
        "squared": lambda: 0.5 * cp.sum_squares(p - y),
        "logistic": lambda: cp.sum(cp.logistic(margin - 1)),
        "hinge": lambda: cp.sum(cp.pos(margin)),
        "squared_hinge": lambda: 0.5 * cp.sum_squares(cp.pos(margin)),
        "huber": lambda: 0.5 * cp.sum(cp.huber(p - y, 1.35)),
        "softmax": lambda: cp.sum(cp.log_sum_exp(p, axis=1)) - cp.sum(cp.multiply(y, p)),
    }[loss]()


def solve(cp, objective, constraints=()):
    """Minimise by an interior point; return the optimum."""
    problem = cp.Problem(cp.Minimize(objective), list(constraints))
    with warnings.catch_warnings():
        # It may say that the last digits are in doubt.
        warnings.simplefilter("ignore")
        problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return problem.value


def convex_optimum(X, y, D, beta, loss="squared"):
    """Optimum of the convex programme over gates D (n, P): value, V and W."""
    cp = pytest.importorskip("cvxpy")
    E = 2.0 * D - 1
    V, W = (cp.Variable((X.shape[1], D.shape[1])) for _ in range(2))
    p = cp.sum(cp.multiply(D.astype(float), X @ (V - W)), axis=1)
    penalty = beta * (cp.mixed_norm(V.T, 2, 1) + cp.mixed_norm(W.T, 2, 1))
    cones = [cp.multiply(E, X @ T) >= 0 for T in (V, W)]
    return solve(cp, conic_loss(cp, loss, p, y) + penalty, cones), V.value, W.value


def gated_optimum(X, Y, D, beta, loss="squared", norm=None):
    """Optimum of the programme without cones over gates D (n, P).

    Outputs, the columns of Y, are separate without a `norm` ("frobenius" or "nuclear") of the
    matrix of each gate.
    """
    cp = pytest.importorskip("cvxpy")
    Y = Y.reshape(len(Y), -1)
    U = [cp.Variable((X.shape[1], Y.shape[1])) for _ in range(D.shape[1])]
    p = sum(cp.multiply(D[:, [i]].astype(float), X @ u) for i, u in enumerate(U))
    if norm is None:
        penalty = sum(cp.mixed_norm(u.T, 2, 1) for u in U)
    else:
        size = {"frobenius": lambda u: cp.norm(cp.vec(u, order="F")), "nuclear": cp.normNuc}
        penalty = sum(size[norm](u) for u in U)
    return solve(cp, conic_loss(cp, loss, p, Y) + beta * penalty)


def lasso_optimum(H, y, beta, loss="squared"):
    """Optimum of loss plus beta times the sum of absolute weights of the columns of H."""
    cp = pytest.importorskip("cvxpy")
    a = cp.Variable(H.shape[1])
    return solve(cp, conic_loss(cp, loss, H @ a, y) + beta * cp.norm1(a))


def network_value(net, X, y, beta, loss="squared"):
    """The training objective of a network."""
    p = np.maximum(X @ net.hidden, 0) @ net.out
    penalty = np.square(net.hidden).sum() + np.square(net.out).sum()
    return LOSSES[loss](p, y) + 0.5 * beta * penalty
