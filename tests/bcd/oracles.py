"""Independent answers for sparse models: enumeration, a slow and sure method, and cvxpy.

Nothing here imports the library. Losses and penalties are textbook formulas on whole arrays.
Targets are -1 and 1 for two classes and 0, ..., C - 1 for several.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


# Losses: values (n,) and slopes by z, of the shape of z -----------------------------------------
def quadratic(y, z):
    return 0.5 * (y - z) ** 2, z - y


def huber(y, z, delta=1.35):
    size = abs(z - y)
    value = np.where(size <= delta, 0.5 * size**2, delta * size - 0.5 * delta**2)
    return value, np.clip(z - y, -delta, delta)


def logistic(y, z):
    with np.errstate(over="ignore"):
        return np.logaddexp(0.0, -y * z), -y / (1.0 + np.exp(y * z))


def squared_hinge(y, z):
    short = np.maximum(1.0 - y * z, 0.0)
    return 0.5 * short**2, -y * short


def poisson(y, z):
    with np.errstate(over="ignore"):
        return np.exp(z) - y * z, np.exp(z) - y


def multinomial(y, z):
    rows = np.arange(len(y))
    spread = np.logaddexp.reduce(z, axis=1)
    slope = np.exp(z - spread[:, None])
    slope[rows, y] -= 1.0
    return spread - z[rows, y], slope


LOSSES = {f.__name__: f for f in (quadratic, huber, logistic, squared_hinge, poisson, multinomial)}
BENDS = {"quadratic": 1.0, "huber": 1.0, "squared_hinge": 1.0, "logistic": 0.25}


# Penalties: value and proximal point ------------------------------------------------------------
def soft(v, t):
    return np.sign(v) * np.maximum(abs(v) - t, 0.0)


@dataclass
class Penalty:
    """``value(w)`` and ``prox(v, t)``, the minimiser of ``t value(w) + |w - v|^2 / 2``."""

    value: Callable
    prox: Callable


def elastic(a=0.0, r=0.0, lo=-np.inf, hi=np.inf):
    """``a |w| + r/2 w^2`` within bounds, on arrays of any shape."""

    def value(w):
        if np.any(w < lo) or np.any(w > hi):
            return np.inf
        return float(np.sum(a * abs(w) + 0.5 * r * w * w))

    return Penalty(value, lambda v, t: np.clip(soft(v, t * a) / (1.0 + t * r), lo, hi))


def grouped(groups, l2, l1=0.0):
    """``l1 |w|_1 + sum_g l2_g |w_g|``; `groups` lists the indices of each into the raveled w."""
    l1 = np.asarray(l1, float)

    def value(w):
        flat = w.ravel()
        norms = sum(a * np.linalg.norm(flat[g]) for g, a in zip(groups, l2, strict=True))
        return float(norms + np.sum(l1 * abs(flat)))

    def prox(v, t):
        out = soft(v.ravel(), t * l1)
        for g, a in zip(groups, l2, strict=True):
            norm = np.linalg.norm(out[g])
            out[g] *= max(1.0 - t * a / norm, 0.0) if norm > 0 else 0.0
        return out.reshape(v.shape)

    return Penalty(value, prox)


@dataclass
class Model:
    """``sum_i s_i loss(y_i, x_i w + c) + penalty(w)``."""

    X: Any
    y: Any
    loss: str
    penalty: Penalty
    s: Any = None
    fit_intercept: bool = False
    delta: float = 1.35

    def __post_init__(self):
        n = len(self.y)
        self.s = np.full(n, 1.0 / n) if self.s is None else np.asarray(self.s) / np.sum(self.s)
        self.C = int(np.max(self.y)) + 1 if self.loss == "multinomial" else None

    @property
    def shape(self):
        p = self.X.shape[1]
        return (p,) if self.C is None else (p, self.C)

    def smooth(self, w, c):
        """Value and gradients of the loss."""
        f = LOSSES[self.loss]
        z = self.X @ w + c
        value, slope = f(self.y, z, self.delta) if self.loss == "huber" else f(self.y, z)
        r = self.s[:, None] * slope if slope.ndim == 2 else self.s * slope
        return float(self.s @ value), self.X.T @ r, r.sum(axis=0)

    def objective(self, w, c=0.0):
        return self.smooth(w, c)[0] + self.penalty.value(w)

    def solve(self, iterations=20000):
        """Coefficients, intercept and optimal value by `accelerated`."""
        bend = BENDS.get(self.loss, 0.5)
        columns = np.c_[self.X, np.ones(len(self.y))] if self.fit_intercept else self.X
        L = bend * np.linalg.norm(np.sqrt(self.s)[:, None] * columns, 2) ** 2
        start = np.zeros(self.shape), np.zeros(() if self.C is None else self.C)
        return accelerated(self, L, start, iterations, adaptive=self.loss == "poisson")


def accelerated(model, L, start, iterations=20000, adaptive=False):
    """Proximal gradient steps with momentum that restart when the objective grows."""
    w, c = start
    w = model.penalty.prox(w, 1.0 / L)
    v, vc, t, best = w, c, 1.0, model.objective(w, c)
    for _ in range(iterations):
        value, g, gc = model.smooth(v, vc)
        gc = gc if model.fit_intercept else 0.0 * gc
        for _ in range(60):
            new, new_c = model.penalty.prox(v - g / L, 1.0 / L), vc - gc / L
            move = np.sum(g * (new - v)) + np.sum(gc * (new_c - vc))
            square = np.sum((new - v) ** 2) + np.sum((new_c - vc) ** 2)
            bound = value + move + 0.5 * L * square
            if not adaptive or model.smooth(new, new_c)[0] <= bound + 1e-14 * abs(value):
                break
            L *= 2.0
        found = model.objective(new, new_c)
        if found > best and t > 1:
            v, vc, t = w, c, 1.0
            continue
        step = max(abs(new - v).max(), abs(new_c - vc).max())
        following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * t * t))
        v = new + (t - 1.0) / following * (new - w)
        vc = new_c + (t - 1.0) / following * (new_c - c)
        w, c, t, best = new, new_c, following, min(best, found)
        if step <= 1e-15 * max(1.0, abs(w).max()):
            break
    return w, c, model.objective(w, c)


# Enumeration: every face of a quadratic problem -------------------------------------------------
def enumerate_lasso(X, y, a, s=None):
    """Minimum of ``sum s (y - X w)^2 / 2 + sum a |w|`` over all 3^p sign patterns: w, value."""
    n = len(y)
    s = np.full(n, 1.0 / n) if s is None else np.asarray(s, float)
    return enumerate_faces(X.T @ (s[:, None] * X), X.T @ (s * y), a, 0.5 * np.sum(s * y * y))


def enumerate_faces(H, q, a, constant=0.0, *, positive=False):
    """Minimum of ``w^T H w / 2 - q^T w + sum a |w|``, perhaps over w >= 0: w, value."""
    p = len(q)
    a = np.broadcast_to(a, (p,))
    best, answer = constant, np.zeros(p)
    for signs in itertools.product((0, 1) if positive else (-1, 0, 1), repeat=p):
        sign = np.array(signs, float)
        on = sign != 0
        if not on.any():
            continue
        w = np.zeros(p)
        w[on] = np.linalg.lstsq(H[np.ix_(on, on)], (q - a * sign)[on], rcond=None)[0]
        value = 0.5 * w @ H @ w - q @ w + np.sum(a * abs(w)) + constant
        if np.all(w[on] * sign[on] >= 0) and value < best:
            best, answer = value, w
    return answer, best


def enumerate_box(H, q, lo, hi):
    """Minimum of ``w^T H w / 2 - q^T w`` for ``lo <= w <= hi`` over all faces: w, value."""
    p = len(q)
    lo, hi = np.broadcast_to(lo, (p,)), np.broadcast_to(hi, (p,))
    choices = [
        [k for k in (0, 1, 2) if k == 0 or np.isfinite((lo, hi)[k - 1][j])] for j in range(p)
    ]
    best, answer = np.inf, None
    for face in map(np.array, itertools.product(*choices)):
        w = np.where(face == 1, lo, np.where(face == 2, hi, 0.0))
        on = face == 0
        rest = q[on] - H[np.ix_(on, ~on)] @ w[~on]
        w[on] = np.linalg.lstsq(H[np.ix_(on, on)], rest, rcond=None)[0]
        value = 0.5 * w @ H @ w - q @ w
        if np.all((w >= lo - 1e-12) & (w <= hi + 1e-12)) and value < best:
            best, answer = value, np.clip(w, lo, hi)
    return answer, best


def cvxpy_optimum(model, penalty):
    """Optimal value by an interior-point method; `penalty(cvxpy, w)` is the penalty's expression.

    Skips the test where cvxpy is not installed.
    """
    import pytest

    cp = pytest.importorskip("cvxpy")
    w = cp.Variable(model.shape)
    c = cp.Variable(() if model.C is None else (model.C,)) if model.fit_intercept else 0.0
    z, y, s = model.X @ w, model.y, model.s
    if model.C is not None:
        z = (
            z + np.ones((len(y), 1)) @ cp.reshape(c, (1, model.C), "C")
            if model.fit_intercept
            else z
        )
        hot = np.eye(model.C)[y]
        losses = cp.log_sum_exp(z, axis=1) - cp.sum(cp.multiply(hot, z), axis=1)
    else:
        z = z + c
        losses = {
            "quadratic": lambda: cp.square(y - z) / 2,
            "huber": lambda: cp.huber(y - z, model.delta) / 2,
            "logistic": lambda: cp.logistic(-cp.multiply(y, z)),
            "squared_hinge": lambda: cp.square(cp.pos(1 - cp.multiply(y, z))) / 2,
            "poisson": lambda: cp.exp(z) - cp.multiply(y, z),
        }[model.loss]()
    problem = cp.Problem(cp.Minimize(s @ losses + penalty(cp, w)))
    tight = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}
    return problem.solve(solver=cp.CLARABEL, **tight)
