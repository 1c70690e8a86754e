"""Approximate inverses for Krylov solvers: the caller's, or what diagonals tell."""

import numpy as np

from ..._core.arrays import is_sparse
from .._matrices import is_operator

# Diagonals are kept above this part of their largest entry.
_FLAT = 1e-8


def diagonal(B, *, be):
    """Return the sizes of the diagonal entries of B, none of them tiny.

    Of an operator only what was added to its diagonal is known, as barriers do; the mean of the
    rest is estimated. Where nothing was added there is nothing to balance: ones.
    """
    xp = be.xp
    if is_operator(B):
        if B.added is None:
            return xp.ones(B.shape[0])
        signs = xp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], B.shape[0]))
        d = abs(signs @ (B.plain @ signs)) / len(signs) + abs(B.added)
    else:
        d = abs(B.diagonal())
    top = d.max()
    return xp.where(top > 0, xp.maximum(d, _FLAT * top), 1.0)


def block_diagonal(saddle):
    """Return ``r -> P^-1 r`` with P the diagonal of B above that of ``G diag(B)^-1 G^T``."""
    be, xp, G = saddle.be, saddle.be.xp, saddle.G
    d = diagonal(saddle.B, be=be)
    if is_operator(G):
        s = xp.ones(saddle.m)
    else:
        squares = G.multiply(G) if is_sparse(G) else G * G
        s = squares @ (1 / d)
        s = xp.where(s > 0, s, 1.0)
    P = xp.concatenate([d, s])
    return lambda r: r / P


def of_caller(build, saddle):
    """Return what the caller's `preconditioner` built for a matrix, its answers checked."""
    xp, shape = saddle.be.xp, (saddle.n + saddle.m,)
    apply = build(saddle.B, saddle.G)
    if not callable(apply):
        raise TypeError(
            f"`preconditioner` returned {type(apply).__name__}; expected a callable r -> z"
        )

    def checked(r):
        z = xp.asarray(apply(r), dtype=np.float64)
        if z.shape != shape:
            raise ValueError(f"`preconditioner` gave shape {z.shape}; expected {shape}")
        return z

    return checked
