"""Linear algebra that more than one family needs, for NumPy and CuPy arrays alike."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np


class LinearSolve(NamedTuple):
    """Where an iterative linear solve ended.

    Attributes
    ----------
    x : array, shape of the right-hand side
        The solution, or what was reached.
    iterations : int
        Steps taken.
    residual : float, or numpy.ndarray with one entry per column
        Norm of ``b - A x``.
    flag : {"converged", "maxiter", "breakdown", "stalled"}
        "breakdown": a direction without positive curvature, or a number that is not finite, was
        met, and `x` is from before. "stalled": rounding errors keep the residual above its goal.
    """

    x: Any
    iterations: int
    residual: Any
    flag: str


# Overflow ends a solve as "breakdown", not in a warning.
@np.errstate(over="ignore", invalid="ignore")
def pcg(
    matvec,
    b,
    *,
    be,
    x0=None,
    precond=None,
    project=None,
    norm=None,
    tol=1e-10,
    maxiter=None,
    check_every=None,
):
    """Solve ``A x = b`` by preconditioned conjugate gradients, A symmetric and semi-definite.

    Parameters
    ----------
    matvec : callable
        ``matvec(v)`` returns ``A v``; it may return the same work array at every call.
    b : array, shape (n,) or (n, k)
        Right-hand side; columns are solved side by side, each with its own step lengths.
    be : Backend
        Back end of the arrays.
    x0 : array, optional
        Start; zero by default.
    precond : callable, optional
        ``precond(r)`` returns an approximation of ``A^-1 r``, positive definite as a map.
    project : callable, optional
        For a singular A and b in its range: ``project(z)`` returns a new array, z less its part
        in the null space.
    norm : callable, optional
        ``norm(r)`` returns the norm, on the device, by which residuals are judged (of each
        column, if there are several); Euclidean by default.
    tol : float, default 1e-10
        Stop when the residual's norm is at most `tol` times that of `b`.
    maxiter : int, optional
        Ten times n by default.
    check_every : int, optional
        Steps between two looks at the residual, for which the host waits for the device; by
        default 1 on a CPU and 8 on a GPU.

    Returns
    -------
    LinearSolve
        The solution `x`, and `iterations`, `residual` and `flag`.
    """
    xp = be.xp
    dot = xp.dot if b.ndim == 1 else partial(xp.einsum, "ij,ij->j")
    norm = norm or (lambda r: xp.sqrt(dot(r, r)))
    maxiter = 10 * b.shape[0] if maxiter is None else maxiter
    check_every = check_every or (1 if be.name == "numpy" else 8)
    # The residual is updated, not computed: it drifts from b - A x by rounding errors, amplified
    # by A's condition number. Only rough solves may do without a look at the true one.
    eps, tiny = np.finfo(b.dtype).eps, np.finfo(b.dtype).tiny
    verify = tol < 100 * eps**0.5

    scale = norm(b)
    if x0 is None:
        x, r = xp.zeros_like(b), b.copy()
    else:
        x = xp.where(scale > 0, x0 if project is None else project(x0), 0)
        r = b - matvec(x)
    # Below a tenth of the rounding level the updated residual means nothing any more.
    target, floor, residual = be.host(tol * scale, 0.1 * eps * scale, norm(r))
    if _all(residual <= target):
        return LinearSolve(x, 0, residual, "converged")

    goal = np.maximum(target, floor)
    p, work = xp.zeros_like(b), xp.empty_like(b)
    steps, one = xp.zeros(scale.shape, int), xp.ones(scale.shape, b.dtype)
    rho, dead, last, flag = one, one < 0, residual, "maxiter"
    for k in range(1, maxiter + 1):
        z = r if precond is None else precond(r)
        z = z if project is None else project(z)
        rho, before = dot(r, z), rho
        p *= rho / xp.where(before > 0, before, xp.inf)
        p += z
        Ap = matvec(p)
        curvature = dot(p, Ap)
        dead = dead | ~((rho > 0) & (curvature > tiny * rho) & (curvature < xp.inf))
        # A product with zero would not do: p may hold NaN, which must never reach x.
        xp.copyto(p, 0, where=dead)
        alpha = xp.where(dead, 0, rho) / xp.where(dead, 1, curvature)
        x += xp.multiply(p, alpha, out=work)
        r -= xp.multiply(Ap, alpha, out=work)
        steps += ~dead

        if k % check_every and k < maxiter:
            continue
        residual, over = be.host(norm(r), dead)
        done = residual <= goal
        ended = _all(done | over)
        if not ended and k < maxiter:
            continue
        if verify or not _all(done):
            xp.subtract(b, matvec(x), out=r)
            residual = be.host(norm(r))
        if not _all(done):
            flag = "breakdown" if ended else "maxiter"
            break
        if _all(residual <= target):
            flag = "converged"
            break
        if not np.any((residual > target) & (residual <= last / 2)):
            flag = "stalled"
            break
        # The drift was in the way: start anew from the true residual.
        p[...] = 0
        rho, dead, last = one, one < 0, residual
    return LinearSolve(x, int(np.max(be.host(steps))), residual, flag)


def _all(flags):
    # NumPy's `all` takes as long for one Python bool as a short vector operation.
    return flags if isinstance(flags, bool) else flags.all()


def power_norm(matvec, rmatvec, v, *, be, steps=30):
    """Estimate the spectral norm of a linear map, from below, by power steps.

    Parameters
    ----------
    matvec, rmatvec : callable
        Products of the map and of its transpose with a vector.
    v : array, shape (n,)
        Start, best a random vector.
    be : Backend
        Back end of the arrays.
    steps : int, default 30
        Pairs of products; 30 leave an error of a few per cent where the largest singular values
        lie close together, and none otherwise.

    Returns
    -------
    float
        The estimate.
    """
    norm, tiny = be.xp.linalg.norm, np.finfo(v.dtype).tiny
    for _ in range(steps):
        v = v / be.xp.maximum(norm(v), tiny)  # the map may be zero
        image = matvec(v)
        v = rmatvec(image)
    return be.host(norm(image))


def logsumexp(z, *, be, axis):
    """Return ``log(sum(exp(z), axis))``; a slice of -inf only gives -inf."""
    xp = be.xp
    top = xp.max(z, axis=axis, keepdims=True)
    finite = xp.where(xp.isfinite(top), top, 0)
    total = xp.sum(xp.exp(z - finite), axis=axis)
    with np.errstate(divide="ignore"):
        return xp.log(total) + finite.reshape(total.shape)


def soft_threshold(v, t, *, be):
    """Return the point that minimises ``t abs(w) + (w - v)^2 / 2``, entry by entry."""
    xp = be.xp
    return xp.sign(v) * xp.maximum(xp.abs(v) - t, 0)
