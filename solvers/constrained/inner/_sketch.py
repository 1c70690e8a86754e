"""Sketch-and-project steps on the rows of the saddle-point matrix."""

import math

from ..._core.arrays import is_sparse
from .._matrices import is_operator, stacked
from ..sketches import SKETCHES
from ..sketches._projection import Projection
from ..sketches._rows import Rows
from ._saddle import InnerSolve

_STEPS = 100_000
# Rounds of equilibration.
_ROUNDS = 3


class Sketched:
    """Any kind of `solvers.constrained.sketches`, on rows and columns of about unit length.

    Where rows differ much in length, as those of B and G do, steps on them as they are take
    many times as long; but the authors' method does without, and so does ``accuracy="paper"``.
    """

    def __init__(self, options):
        self.name = options.inner
        sketch = (options.sketch or "kaczmarz++") if self.name == "sketch" else self.name
        self._kind, self._options = SKETCHES[sketch], options
        self._plain = options.accuracy == "paper"
        self._steps = options.maxiter_inner or _STEPS

    def factor(self, saddle):
        """Put the rows together; the inertia stays unknown."""
        be = saddle.be
        K = _rows_of(saddle, self.name)
        self._scale = be.xp.ones(K.shape[0]) if self._plain else _equilibrium(K, be)
        scale = self._scale
        if is_sparse(K):
            diagonal = be.sparse.diags(scale)
            K = (diagonal @ K @ diagonal).tocsr()
        else:
            K = scale[:, None] * K * scale
        rows, options = Rows(K, be=be), self._options
        self._projection = Projection(rows, self._kind, options.block_size, options.rng)

    def solve(self, r, *, d0=None, tol):
        """Step from `d0` until the residual is small, or at rounding level, or steps run out."""
        xp, run, scale = self._scale, self._projection, self._scale
        xp = run.xp
        d = xp.zeros_like(r) if d0 is None else d0 / scale
        run.begin(scale * r, d)
        host, norm, goal = run.host, xp.linalg.norm, tol * run.host(xp.linalg.norm(r))
        steps, flag = 0, "maxiter"
        while True:
            residual = run.gap / scale
            size = host(norm(residual))
            if size <= goal or run.exhausted:
                flag = "converged"
                break
            if not math.isfinite(size):
                return InnerSolve(xp.zeros_like(r), -r, steps, "breakdown")
            if steps >= self._steps or self._options.deadline():
                break
            steps += run.sweep(self._steps - steps)
        return InnerSolve(scale * run.x, residual, steps, flag)


def _rows_of(saddle, name):
    """Return the saddle-point matrix, dense or in compressed rows."""
    be, B, G = saddle.be, saddle.B, saddle.G
    if is_operator(B) or is_operator(G):
        raise ValueError(
            f"`inner`={name!r} needs explicit rows, and a matrix came as an operator; "
            "use 'pcg' or 'minres'"
        )
    if is_sparse(B) or is_sparse(G):
        sparse = be.sparse
        B, G = sparse.csr_matrix(B), sparse.csr_matrix(G)
        lower = sparse.identity(saddle.m) * -saddle.delta if saddle.delta else None
        return sparse.bmat([[B, G.T], [G, lower]]).tocsr() if saddle.m else B
    lower = -saddle.delta * be.xp.eye(saddle.m)
    top = be.xp.concatenate([B, G.T], axis=1)
    return be.xp.concatenate([top, be.xp.concatenate([G, lower], axis=1)])


def _equilibrium(K, be):
    """Return s for which the rows of ``diag(s) K diag(s)`` have entries of up to about 1."""
    xp = be.xp
    size = abs(K)
    s = xp.ones(K.shape[0])
    for _ in range(_ROUNDS):
        top = (be.sparse.diags(s) @ size @ be.sparse.diags(s)).max(axis=1) if is_sparse(K) else (
            s[:, None] * size * s
        ).max(axis=1)
        top = top.toarray().reshape(-1) if is_sparse(top) else top
        s = s / xp.sqrt(xp.where(top > 0, top, 1.0))
    return s
