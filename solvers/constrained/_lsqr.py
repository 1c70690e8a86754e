"""Least squares with matrices that are known by their products alone."""

import math


def lsqr(A, b, *, be, tol=1e-14, rcond=1e-12, maxiter=None):
    """Return the shortest x of those with the smallest ``||A x - b||``, by LSQR.

    Parameters
    ----------
    A : matrix, (m, n)
        Dense, sparse or an `Operator`.
    b : array, (m,)
        Right-hand side.
    be : Backend
    tol : float
        End when ``||A^T r||`` is at most `tol` times ``||A|| ||r||``, or ``||r||`` at most `tol`
        times ``||b||``.
    rcond : float
        End when the part of A that was met is as ill-conditioned as ``1 / rcond``: what singular
        values below contribute stays out of x.
    maxiter : int, optional
        Four times the smaller side, and 100, by default.

    References
    ----------
    .. [1] C. C. Paige, M. A. Saunders. LSQR: an algorithm for sparse linear equations and sparse
       least squares. ACM Trans. Math. Softw. 8, 43-71, 1982.
    """
    xp, host, norm = be.xp, be.host, be.xp.linalg.norm
    m, n = A.shape
    x = xp.zeros(n)
    beta = size = host(norm(b))
    if not beta > 0:
        return x
    u = b / beta
    v = A.T @ u
    alpha = host(norm(v))
    if not alpha > 0:
        return x
    v = v / alpha
    w, phi, rho_bar = v.copy(), beta, alpha
    squares, inverse = 0.0, 0.0
    for _ in range(4 * min(m, n) + 100 if maxiter is None else maxiter):
        u = A @ v - alpha * u
        beta = host(norm(u))
        u = u / beta if beta else u
        squares += alpha**2 + beta**2
        v = A.T @ u - beta * v
        alpha = host(norm(v))
        v = v / alpha if alpha else v
        rho = math.hypot(rho_bar, beta)
        inverse += host(w @ w) / rho**2
        if math.sqrt(squares * inverse) * rcond >= 1.0:
            break
        c, s = rho_bar / rho, beta / rho
        x += (c * phi / rho) * w
        w = v - (s * alpha / rho) * w
        rho_bar, phi = -c * alpha, s * phi
        small = alpha * abs(c) <= tol * math.sqrt(squares) or phi <= tol * size
        if small or not math.isfinite(alpha):
            break
    return x
