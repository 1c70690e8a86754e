"""Steps over blocks of rows whose factors are kept: plain, mixed, and with momentum."""

import math

import numpy as np

from ..._core.sketch import SRHT
from ..._core.validation import check_memory
from ._rows import Rows, Stepper

# Bytes of factors that are kept.
POOL = 1 << 30
# Partitions in a pool; one alone, visited again and again, may not converge.
_PARTITIONS = 8


class _Deck:
    """Deals blocks of row numbers: all rows once, then anew in another order."""

    def __init__(self, count, size, rng):
        self._count, self._size, self._rng = count, size, rng
        self._rest = np.empty((0, size), np.int64)

    def deal(self, blocks):
        """Return so many blocks of distinct rows, (blocks, size)."""
        while len(self._rest) < blocks:
            self._rest = np.concatenate([self._rest, self.partition()])
        dealt, self._rest = self._rest[:blocks], self._rest[blocks:]
        return dealt

    def partition(self):
        """Return all rows in blocks; the last one is filled up from the first."""
        number = -(-self._count // self._size)
        return np.resize(self._rng.permutation(self._count), (number, self._size))


class Blocks(Stepper):
    """Blocks of random partitions, a pool of which serves as long as it costs to make."""

    def __init__(self, rows, size, rng):
        super().__init__(rows, size, rng)
        self._deck = _Deck(rows.shape[0], size, rng)
        fit = POOL // (8 * size * size * self.sweep)
        self._partitions = min(_PARTITIONS, max(fit, 1))
        # A factor costs size/2 visits; but blocks that were seen often have little left to give.
        self._turns = min(max(size // 2, 1), 16)
        self._pool, self._sweeps = [], 0

    def advance(self, x, steps):
        blocks, factors = self._next()
        self.rows.block_steps(self.b, blocks, factors, np.arange(steps), x)

    def _next(self):
        """Return the blocks of a partition and their factors: all of the pool in each turn."""
        turn, place = divmod(self._sweeps, self._partitions)
        self._sweeps += 1
        if turn % self._turns == 0:
            if place == 0:
                self._pool = []
            blocks = self.rows.be.xp.asarray(self._deck.partition())
            self._pool.append((blocks, self.rows.factors(blocks, 1e-14 * self.size)))
            return self._pool[-1]
        if place == 0:
            self._order = self.rng.permutation(self._partitions)
        return self._pool[self._order[place]]


class Mixed(Blocks):
    """Blocks of rows that a randomised Hadamard transform has mixed."""

    def __init__(self, rows, size, rng):
        count, p = rows.shape
        check_memory(16 * count * p, "The mixed matrix", "Use 'block-kaczmarz'", be=rows.be)
        self._mix = SRHT(1 << (count - 1).bit_length(), count, rng=rng)
        dense = rows.A.toarray() if rows.sparse else rows.A
        super().__init__(Rows(self._mix.apply(dense), be=rows.be), size, rng)

    def pose(self, b):
        super().pose(self._mix.apply(b))


class Accelerated(Stepper):
    """Random blocks, ever more often those that were factored already, with momentum.

    Kaczmarz++ of Derezinski, Needell, Rebrova and Yang (arXiv 2501.11673). Half a window of the
    estimate of the rate is a sweep here.
    """

    monotone = False

    def __init__(self, rows, size, rng):
        super().__init__(rows, size, rng)
        self.sweep = self.stride = round(rows.shape[0] / size) + 1
        self._deck = _Deck(rows.shape[0], size, rng)
        self._most = max(POOL // (8 * size * size), self.sweep)
        self._drawn = self._steps = 0
        room = min(4 * self.sweep, self._most)
        xp = rows.be.xp
        self._blocks = xp.zeros((room, size), np.int64)
        self._factors = xp.zeros((room, size, size))

    def pose(self, b):
        super().pose(b)
        self._v = self.rows.be.xp.zeros(self.rows.shape[1])
        self._z, self._eta, self._windows, self._ratio = 1.0, 0.0, 1, 0.0
        self._old = None

    def restart(self):
        """Forget the momentum."""
        self._v[...] = 0.0

    def advance(self, x, steps):
        order = self._draw(steps)
        squares = self.rows.block_steps(
            self.b, self._blocks, self._factors, order, x, z=self._z, eta=self._eta, v=self._v
        )
        found = self.rows.be.host(squares.sum())
        if self._old is None:
            self._old = found
        else:
            self._adapt(min(1.0, found / self._old) if self._old > 0 else 1.0)
            self._old = None

    def _adapt(self, fell):
        """Set the momentum by how much the residuals fell from one half window to the next."""
        k = self._windows
        t = k ** math.log(k) / (k + 1) ** math.log(k + 1)
        self._ratio = t * self._ratio + (1 - t) * fell
        rho = max(0.0, 1.0 - self._ratio ** (1 / self.sweep))
        self._z = (1 - rho) / (1 + rho)
        self._eta = 0.5 * self.size / self.rows.shape[0]
        self._windows += 1

    def _draw(self, steps):
        """Return the places in the pool of the next blocks, new ones among them."""
        count = self.rows.shape[0]
        number = self._steps + 1 + np.arange(steps)
        new = self.rng.random(steps) < count * math.log(count) / (self.size * number)
        new[0] |= self._drawn == 0
        drawn = self._drawn + np.cumsum(new)
        lowest = np.maximum(drawn - self._most, 0)
        old = lowest + (self.rng.random(steps) * (drawn - lowest)).astype(np.int64)
        self._steps += steps
        self._add(int(new.sum()))
        return np.where(new, drawn - 1, old) % self._most

    def _add(self, count):
        """Draw and factor blocks; where the pool is full, they take the places of the oldest."""
        if not count:
            return
        xp = self.rows.be.xp
        self._grow(min(self._drawn + count, self._most))
        blocks = xp.asarray(self._deck.deal(count))
        where = xp.asarray((self._drawn + np.arange(count)) % self._most)
        self._blocks[where] = blocks
        self._factors[where] = self.rows.factors(blocks, 1e-8)
        self._drawn += count

    def _grow(self, needed):
        room = len(self._blocks)
        if needed > room:
            xp, more = self.rows.be.xp, min(max(room, needed - room), self._most - room)
            size = self.size
            self._blocks = xp.concatenate([self._blocks, xp.zeros((more, size), np.int64)])
            self._factors = xp.concatenate([self._factors, xp.zeros((more, size, size))])
