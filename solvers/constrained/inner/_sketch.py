"""Sketch-and-project steps on the rows of the saddle-point matrix."""

import math

from ..._core.arrays import is_sparse
from .._matrices import Operator, is_operator, scale_both
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
        be, options = saddle.be, self._options
        K = self._rows_of(saddle)
        self._be, self._scale = be, be.xp.ones(saddle.n + saddle.m)
        if not (self._plain or is_operator(K)):
            K = _equilibrate(K, self._scale, be)
        self._projection = Projection(Rows(K, be=be), self._kind, options.block_size, options.rng)

    def solve(self, r, *, d0=None, tol):
        """Step from `d0` until the residual is small, or at rounding level, or steps run out."""
        be, run, scale = self._be, self._projection, self._scale
        xp, norm = be.xp, be.xp.linalg.norm
        run.begin(scale * r, xp.zeros_like(r) if d0 is None else d0 / scale)
        goal = tol * be.host(norm(r))
        steps, flag = 0, "maxiter"
        while True:
            residual = run.gap / scale
            size = be.host(norm(residual))
            if size <= goal or run.exhausted:
                flag = "converged"
                break
            if not math.isfinite(size):
                return InnerSolve(xp.zeros_like(r), -r, steps, "breakdown")
            if run.stuck or steps >= self._steps or self._options.deadline():
                break
            steps += run.sweep(self._steps - steps)
        return InnerSolve(scale * run.x, residual, steps, flag)

    def _rows_of(self, saddle):
        """Return the saddle-point matrix, dense or in compressed rows if it has entries."""
        be, B, G = saddle.be, saddle.B, saddle.G
        if is_operator(B) or is_operator(G):
            if self._kind.entries:
                raise ValueError(
                    f"`inner='{self.name}'` needs explicit rows, and a matrix came as an "
                    "operator; use 'gaussian' or 'minres'"
                )
            # It is symmetric.
            return Operator((saddle.n + saddle.m,) * 2, saddle.__matmul__, saddle.__matmul__)
        if is_sparse(B) or is_sparse(G):
            sparse = be.sparse
            B, G = sparse.csr_matrix(B), sparse.csr_matrix(G)
            lower = sparse.identity(saddle.m) * -saddle.delta if saddle.delta else None
            return sparse.bmat([[B, G.T], [G, lower]]).tocsr() if saddle.m else B
        lower = -saddle.delta * be.xp.eye(saddle.m)
        top = be.xp.concatenate([B, G.T], axis=1)
        return be.xp.concatenate([top, be.xp.concatenate([G, lower], axis=1)])


def _equilibrate(K, s, be):
    """Set s so that the rows of ``diag(s) K diag(s)``, which is returned, reach up to about 1."""
    xp, sparse = be.xp, is_sparse(K)
    for turn in range(_ROUNDS + 1):
        scaled = scale_both(K, s, be=be)
        if turn < _ROUNDS:
            top = abs(scaled).max(axis=1)
            top = top.toarray().reshape(-1) if sparse else top
            s /= xp.sqrt(xp.where(top > 0, top, 1.0))
    return scaled
