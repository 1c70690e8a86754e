"""The independent judge of weights, wherever they come from."""

import math

import numpy as np

from .._core.arrays import to_numpy
from .._core.certificate import Certificate
from .._core.validation import check_choice, check_positive
from ._cones import multipliers, project
from ._losses import LOSSES
from ._problem import check_data, check_gates, ours

GAP = "relative duality gap"
_EPS = np.finfo(np.float64).eps


def certify(
    X, y, *, beta, loss, V, W, gates, robust_eps=None, scope="sampled", tol=1e-4,
    z=None, alpha=None, gamma=None, delta=1.35, logit_scale=1.0,
):  # fmt: skip
    """Judge weights of the convex programme; ground floor, to be completed."""
    check_choice(scope, "scope", ("sampled", "global"))
    tol, beta = check_positive(tol, "tol"), check_positive(beta, "beta")
    io, X, Y, _, parameters = check_data(
        X, y, loss, gates=gates, delta=delta, logit_scale=logit_scale, V=V, W=W
    )
    gates = check_gates(io, gates, X.shape[0])
    data = Data(io.be.host(X), io.be.host(Y), loss, parameters, beta, gates)
    U = ours(*(to_numpy(a).astype(np.float64) for a in (V, W)), np)
    slack = 1e-5 if np.dtype(io.dtype) == np.float32 else 1e-8
    duals = None if z is None else (z, alpha, gamma)
    return judge(data, U, tol=tol, slack=slack, duals=duals, scope=scope)


class Data:
    """The caller's programme on the host, in float64."""

    def __init__(self, X, Y, loss, parameters, beta, gates):
        self.X, self.Y = X.astype(np.float64), Y.astype(np.float64)
        self.loss, self.beta, self.gates = LOSSES[loss](self.Y, np, **parameters), beta, gates
        self.mask = gates.mask.astype(np.float64)
        self.signs = 2.0 * self.mask - 1.0

    def objective(self, U):
        p = (((U[:, 0] - U[:, 1]) @ self.X.T) * self.mask).sum(axis=1)
        return self.loss.value(p) + self.beta * float(np.linalg.norm(U, axis=-1).sum())

    def network_objective(self, U):
        A = np.maximum(U @ self.X.T, 0.0)
        p = (A[:, 0] - A[:, 1]).sum(axis=1)
        return self.loss.value(p) + self.beta * float(np.linalg.norm(U, axis=-1).sum())

    def slope(self, U):
        p = (((U[:, 0] - U[:, 1]) @ self.X.T) * self.mask).sum(axis=1)
        return -self.loss.slope(p)

    def violation(self, U):
        return max(0.0, -float(((U @ self.X.T) * self.signs).min()))


def judge(data, U, *, tol, slack=1e-8, duals=None, scope="sampled"):
    """Return the certificate of blocks U."""
    violation = data.violation(U)
    allowed = slack * (1 + abs(U[:, 0]).max(initial=0) + abs(U[:, 1]).max(initial=0))
    inside = feasible(data, U) if violation > allowed else U
    upper, fun = data.objective(inside), data.network_objective(U)
    zs = [data.slope(inside)] + ([duals[0]] if duals else [])
    dual = max(dual_bound(data, z) for z in zs)
    lower = max(global_bound(data, z) for z in zs)
    gap = (upper - dual) / max(abs(upper), 1e-300)
    gap_global = (fun - lower) / max(abs(fun), 1e-300)
    value = gap if scope == "sampled" else gap_global
    details = {
        "fun_convex": upper,
        "dual": dual,
        "dual_global": lower,
        "fun": fun,
        "cone_violation": violation,
        "gap_projected": gap,
        "gap_global": gap_global,
    }
    kind = GAP if scope == "sampled" else "relative duality gap over all arrangements"
    return Certificate(kind, value if violation <= allowed else math.inf, tol, details)


def feasible(data, U):
    """Return blocks inside their cones near U."""
    out = U.copy()
    outside = ((U @ data.X.T) * data.signs).min(axis=-1) < 0
    for o, s, i in np.argwhere(outside):
        vectors = data.gates.vectors
        g = None if vectors is None else vectors[:, i].astype(np.float64)
        out[o, s, i] = project(data.signs[i][:, None] * data.X, U[o, s, i], g)
    return out


def dual_bound(data, z, alpha=None):
    """Return a lower bound of the optimum over the gates, from any z (c, n).

    `alpha` (c, 2, P, n), non-negative, are the multipliers of the cones, if they are known.
    """
    z = data.loss.clip(z)
    F = (z[:, None, :] * data.mask) @ data.X
    F = np.stack([F, -F], axis=1)
    if alpha is not None:
        norms = np.linalg.norm(F + (alpha * data.signs) @ data.X, axis=-1)
    else:
        norms = np.linalg.norm(F, axis=-1)
    for o, s, i in np.argwhere(norms > data.beta):
        A = data.signs[i][:, None] * data.X
        tight = np.linalg.norm(F[o, s, i] + A.T @ multipliers(A, F[o, s, i]))
        norms[o, s, i] = min(norms[o, s, i], tight)
    return scaled_dual(data, z, float(norms.max(initial=0.0)))


def scaled_dual(data, z, norm):
    """Return the dual value of the best multiple of z, `norm` being its largest gate norm."""
    norm *= 1 + 10 * z.shape[-1] * _EPS
    k = data.loss.best(z, data.beta / norm if norm > 0 else math.inf)
    return data.loss.dual(k * z)


def global_bound(data, z):
    """Return a lower bound of the optimum over all gates, from any z."""
    z = data.loss.clip(z)
    norm = 0.0
    for row in z:
        for side in (row, -row):
            s = np.maximum(side, 0.0)
            top = np.linalg.eigvalsh((data.X.T * s) @ data.X)[-1]
            reach = 0.5 * np.linalg.norm(data.X.T @ s) + 0.5 * math.sqrt(max(s.sum() * top, 0.0))
            norm = max(norm, reach)
    return scaled_dual(data, z, norm)
