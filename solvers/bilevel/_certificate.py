"""The independent check: stationarity of psi, by second derivatives or plain lower solves."""

import math
from typing import Any, NamedTuple

import numpy as np

from .._core.certificate import Certificate
from .._core.validation import check_choice, check_positive
from ._descent import residual
from ._envelope import scales
from ._problem import pose

KIND = "hyper-stationarity"
HOWS = ("auto", "dense", "kkt", "penalty")
# Singular values below this part of the largest count as zero.
_CUT = 1e-7


def default_tol(dtype):
    """Return the tolerance that `tol=None` stands for."""
    return 1e-6 if dtype == np.float64 else 3e-3


def certify(upper, lower, x, y=None, *, X=None, Y=None, constraints=None, how="auto", tol=None):
    """Judge a point of a bilevel problem, wherever it comes from."""
    tol = check_positive(tol, "tol", allow_none=True)
    check_choice(how, "how", HOWS)
    problem = pose(upper, lower, x, y, X, Y)
    return judge(problem, problem.x0, problem.y0, how=how, tol=tol)


def judge(problem, x, y, *, how="auto", tol=None):
    """Return the certificate of (x, y)."""
    tol = default_tol(problem.io.dtype) if tol is None else tol
    found = dense(problem, x, y)
    scale = scales(problem, x, y)
    d = problem.io.xp.asarray(found.grad, dtype=x.dtype)
    size = max(1.0, float(abs(d).max()))
    stationarity = residual(x, d, problem.X, 1.0) / size
    g = problem.lower.look(x, y)
    lower_residual = residual(y, g.gy, problem.Y, 1.0 / scale.lower) / (
        scale.lower * max(1.0, float(abs(y).max()))
    )
    f = problem.upper.look(x, y)
    gap_2 = abs(f.value - found.value) / max(1.0, abs(f.value))
    error = found.error / max(1.0, float(np.linalg.norm(found.grad)))
    details = {
        "stationarity": stationarity,
        "hypergradient_error": error,
        "lower_residual": lower_residual,
        "gap_2": gap_2,
        "psi": found.value,
    }
    value = max(stationarity, error, lower_residual, gap_2)
    return Certificate(KIND, value if math.isfinite(value) else math.inf, tol, details)


class Found(NamedTuple):
    """Value and gradient of psi, and the error of the latter."""

    value: float
    grad: Any
    error: float


def dense(problem, x, y):
    """Evaluate psi with the whole second derivative of the lower level."""
    host = problem.io.be.host
    answers = []
    step0 = np.finfo(problem.io.dtype).eps ** 0.2 * max(1.0, float(abs(y).max()))
    for step in (step0, 2 * step0):
        H, M = _second_derivatives(problem, x, y, step)
        w, Q = np.linalg.eigh(H)
        keep = w > _CUT * max(w.max(), 1e-300)
        inv = (Q[:, keep] / w[keep]) @ Q[:, keep].T
        N = Q[:, ~keep]
        g, f = problem.lower.look(x, y), problem.upper.look(x, y)
        move = -inv @ host(g.gy).astype(float)
        fy = host(f.gy).astype(float)
        if N.shape[1]:
            F = _hessian_on(problem.upper, x, y, N, step)
            move = move - N @ np.linalg.solve(F, N.T @ fy)
        better = y + problem.io.xp.asarray(move, dtype=y.dtype)
        f = problem.upper.look(x, better)
        fy = host(f.gy).astype(float)
        answers.append((f.value, host(f.gx) - M @ (inv @ fy)))
    (value, grad), (_, other) = answers
    return Found(value, grad, float(np.linalg.norm(grad - other)))


def _second_derivatives(problem, x, y, step):
    """Return g_yy (p, p) and g_xy (d, p) by differences of fourth order."""
    xp, host = problem.io.xp, problem.io.be.host
    H, M = [], []
    for k in range(len(y)):
        e = xp.zeros_like(y)
        e[k] = step
        looks = [problem.lower.look(x, y + m * e) for m in (-2, -1, 1, 2)]
        for rows, name in ((H, "gy"), (M, "gx")):
            a, b, c, d = (host(getattr(look, name)).astype(float) for look in looks)
            rows.append((a - 8 * b + 8 * c - d) / (12 * step))
    H = np.array(H)
    return 0.5 * (H + H.T), np.array(M).T


def _hessian_on(level, x, y, N, step):
    """Return the second derivative in y on the span of the columns of N."""
    host, xp = level.io.be.host, level.io.xp
    columns = []
    for n in N.T:
        e = xp.asarray(n * step, dtype=y.dtype)
        a, b = (host(level.look(x, v, with_x=False).gy).astype(float) for v in (y - e, y + e))
        columns.append(N.T @ (b - a) / (2 * step))
    H = np.array(columns)
    return 0.5 * (H + H.T)
