"""Steps over rows of ``S A`` for a random S that is drawn anew for each step.

Several steps' sketches are multiplied by A together: the rows of the products are equations like
any others, and the kernels that step over rows of A step over them.
"""

import numpy as np

from ..._core.sketch import Gaussian, SparseSign
from .._matrices import is_operator
from ._rows import SHORTEST, Rows, Stepper

# Entries of sketched rows that are in memory at a time.
_ROOM = 1 << 20


class _Fresh(Stepper):
    """Draws sketches for as many steps as fit in memory, and takes these steps."""

    def advance(self, x, steps):
        while steps:
            count = min(steps, max(_ROOM // (self.size * self.rows.shape[1]), 1))
            rows, b = self._sketched(count)
            self._step(rows, b, count, x)
            steps -= count

    def _sketched(self, count):
        """Return the rows and right-hand sides of `count` sketches below each other."""
        xp = self.rows.be.xp
        sketches = self._sketches(count)
        W = [_multiplied(S, self.rows) for S in sketches]
        c = [S.apply(self.b) for S in sketches]
        return Rows(xp.concatenate(W), be=self.rows.be), xp.concatenate(c)

    def _step(self, rows, b, count, x):
        blocks = rows.be.xp.arange(count * self.size).reshape(count, self.size)
        factors = rows.factors(blocks, 1e-14 * self.size)
        rows.block_steps(b, blocks, factors, np.arange(count), x)


def _multiplied(S, rows):
    """Return ``S A``, for an operator by a product for each row of S."""
    if not is_operator(rows.A):
        return S.apply(rows.A)
    xp = rows.be.xp
    columns = S.apply_t(xp.eye(S.shape[0]))
    return xp.stack([rows.A.T @ column for column in columns.T])


class BlockNormal(_Fresh):
    """Blocks of combinations of all equations, with normal factors."""

    def _sketches(self, count):
        return [Gaussian(count * self.size, self.rows.shape[0], rng=self.rng)]


class Normal(BlockNormal):
    """Single combinations of all equations, with normal factors."""

    def __init__(self, rows, size, rng):
        super().__init__(rows, size, rng)
        self.stride = max(self.sweep, SHORTEST)

    def _step(self, rows, b, count, x):
        rows.step(b, np.arange(count), x)


class Signs(_Fresh):
    """Blocks of sums of equations with random signs; each equation is in eight of them."""

    nnz = 8

    def _sketches(self, count):
        size, total = self.size, self.rows.shape[0]
        return [SparseSign(size, total, self.nnz, rng=self.rng) for _ in range(count)]


class Count(Signs):
    """Blocks of sums of equations with random signs; each equation is in one of them."""

    nnz = 1
