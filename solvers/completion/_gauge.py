r"""Pairs of factors seen through the singular values of their product, and its gradient.

Many pairs A, B have the same product X. Where the ridge is :math:`\lambda D_i` and
:math:`\lambda E_j`, the pair of smallest penalty and the gradient of the problem in X are told by
the singular value decomposition of :math:`D^{1/2} X E^{1/2}`, which two thin QR factorisations
give: nothing of the size of X is formed, and no orthonormal factor.
"""

from typing import Any, NamedTuple

import numpy as np

# Singular values below this part of the largest are zero to rounding, as the certificate has it.
_ZERO = 1e-10


class Gauge(NamedTuple):
    """How a pair (A, B) leads to singular vectors: ``U = D^1/2 A P``, ``V = E^1/2 B Q``.

    Attributes
    ----------
    P, Q : array, shape (k, r)
    s : array, shape (r,)
        Singular values of ``D^1/2 A B^T E^1/2`` that are not zero to rounding.
    """

    P: Any
    Q: Any
    s: Any


def gauge(problem, A, B):
    """Return the `Gauge` of a pair of factors."""
    xp = problem.xp
    d, e = root_scales(problem)
    R, S = xp.linalg.qr(d * A, mode="r"), xp.linalg.qr(e * B, mode="r")
    u, s, vt = xp.linalg.svd(R @ S.T)
    r = int(problem.be.host((s > _ZERO * s[0]).sum()))
    u, s, v = u[:, :r], s[:r], vt[:r].T
    # U = X V / s, so that no factor need be inverted, let alone a singular one.
    return Gauge(S.T @ v / s, R.T @ u / s, s)


def root_scales(problem):
    """Return the roots of D and E as columns; 1 where nothing counts, or everything equally."""
    if not problem.weighted:
        return 1.0, 1.0
    xp = problem.xp
    scales = (xp.sqrt(scale) for scale in (problem.row_scale, problem.col_scale))
    return tuple(xp.where(d > 0, d, 1.0).astype(problem.dtype)[:, None] for d in scales)


def balancing(problem, A, B):
    """Return k x k matrices that bring a pair to the smallest penalty, with the least turn of B.

    The third value is the `Gauge` of the pair ``A T_A, B T_B`` that they lead to. It has the same
    product, but for singular values that are zero, and depends on the pair given without jumps:
    none that the signs and the order of singular vectors would bring.
    """
    xp = problem.xp
    P, Q, s = gauge(problem, A, B)
    root = xp.sqrt(s)
    _, e = root_scales(problem)
    old = e * B
    u, _, vt = xp.linalg.svd(((old @ Q) * root).T @ old, full_matrices=False)
    turn = u @ vt
    back = turn.T / root
    return P * root @ turn, Q * root @ turn, Gauge(back, back, s)


class Slope(NamedTuple):
    """The gradient of the misfit in X, R, as a pair of factors sees it.

    Attributes
    ----------
    left, right : array, shapes (m, k) and (n, k)
        ``R B`` and ``R^T A``.
    rows, cols : array, shapes (m,) and (n,), or (0,)
        Gradients of the objective in the biases.
    """

    left: Any
    right: Any
    rows: Any
    cols: Any


def slope(problem, A, B, a, b, r):
    """Return the `Slope` for residuals `r` at the observed entries, by two passes over them."""
    xp, times = problem.xp, problem.kernels.times
    by_row, by_col = problem.obs.by_row, problem.obs.by_col
    r = r * by_row.weight if by_row.weight.size else r
    left, right = xp.empty_like(A), xp.empty_like(B)
    times(by_row.ptr, by_row.idx, r, B, left)
    turned = r[by_col.perm]
    times(by_col.ptr, by_col.idx, turned, A, right)
    if problem.implicit:
        left += A @ (B.T @ B)
        right += B @ (A.T @ A)
    if not problem.biased:
        return Slope(left, right, a, b)
    rows, cols = xp.empty((a.size, 1), A.dtype), xp.empty((b.size, 1), B.dtype)
    times(by_row.ptr, by_row.idx, r, xp.ones_like(cols), rows)
    times(by_col.ptr, by_col.idx, turned, xp.ones_like(rows), cols)
    lam = problem.lam_bias
    return Slope(left, right, rows[:, 0] + lam * a, cols[:, 0] + lam * b)


def projected_gradient(problem, A, B, at, found=None):
    """Return the norm of the objective's gradient along matrices of this rank, and along biases.

    Parameters
    ----------
    problem : Completion
    A, B : array
        Factors, in any gauge.
    at : Slope
    found : Gauge, optional
        That of the pair, if it is known.

    Returns
    -------
    norm : float
        The same in every gauge; it counts columns whose singular values are not zero to rounding.
    core : array, shape (r, r)
        ``U^T R V`` (of the scaled R where the ridge has scales).
    gauge : Gauge
    """
    xp, lam, (m, n) = problem.xp, problem.lam, problem.shape
    P, Q, s = found = gauge(problem, A, B) if found is None else found
    d, e = root_scales(problem)
    U, left, right = d * (A @ P), (at.left @ Q) / d, (at.right @ P) / e
    core = U.T @ left
    above, below = left + lam * U, right + lam * e * (B @ Q)
    inner = core + lam * xp.eye(s.size, dtype=core.dtype)
    square = _square(xp, above) + _square(xp, below) - _square(xp, inner)
    if problem.biased:
        square += _square(xp, at.rows) / n + _square(xp, at.cols) / m
    return float(np.sqrt(max(problem.be.host(square), 0.0))), core, found


def gradient_unit(problem):
    """Return what makes gradients relative: their norm where the estimate is zero, or 1."""
    xp, obs = problem.xp, problem.obs
    start = obs.by_row.val * obs.by_row.weight if obs.by_row.weight.size else obs.by_row.val
    if problem.weighted:
        d, e = root_scales(problem)
        start = start / (d[obs.rows, 0] * e[obs.cols, 0])
    return float(np.sqrt(problem.be.host(_square(xp, start)))) or 1.0


def _square(xp, x):
    return xp.square(x).sum(dtype=np.float64)
