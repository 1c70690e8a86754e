"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

from ...._core.backend import CudaSource, blocks, get_backend

HINGE, LOGISTIC, SQUARED = 0, 1, 2

_cuda = CudaSource(__file__)
_BLOCK, _WARPS = 128, 4
# Cones that are worked on at a time; each has its room.
_AT_ONCE = 512


def project(X, mask, eps, level, enough, tol, V, U, norm, index, weight, count):
    """Set U to the projections of V on the robust cones; see `cpu.project`."""
    xp = get_backend("cupy").xp
    (B, d), m = V.shape, index.shape[1]
    grid = min(B, _AT_ONCE)
    work = xp.empty((grid, (m + 3) * d + m * (m + 1)))
    limits = xp.asarray([level, enough, tol], dtype=work.dtype)
    args = X, mask, eps, limits, V, U, norm, index, weight, count, work
    _cuda.launch("project", V.dtype, grid, _BLOCK, (*args, B, *mask.shape, d, m))


def rows(loss, Y, eps, scale, rho, sigma, p0, q0, p, Q, w):
    """Set p, Q and the prices w of a robust loss near p0 and q0; see `cpu.rows`."""
    xp = get_backend("cupy").xp
    # In double precision whatever the arrays have, as on the host.
    numbers = xp.asarray([scale, rho, sigma], dtype=eps.dtype)
    args = loss, Y, eps, numbers, p0, q0, p, Q, w, p0.size, eps.size
    _cuda.launch("rows", q0.dtype, blocks(p0.size, _WARPS), _BLOCK, args)
