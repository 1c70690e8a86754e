"""A run of sketch-and-project steps: looks at the residual, larger blocks, restarts."""

import math

import numpy as np

from ._blocks import POOL

# Sweeps in which the residual must have halved, or blocks grow.
_PATIENCE = 20
_EPS = float(np.finfo(float).eps)


class Projection:
    """Sketch-and-project steps for one matrix and one right-hand side after the other.

    Parameters
    ----------
    rows : Rows
    kind : Kind
    block_size : int or None
        None: the kind's own choice, doubled whenever the residual has not halved in 20 sweeps.
    rng : numpy.random.Generator

    Attributes
    ----------
    x : array (p,)
        Where the run is.
    gap : array (N,)
        ``A x - b`` there, and its norm `residual`.
    best : (float, array)
        The smallest residual so far, and x there.
    stuck : bool
        Whether steps that solve for all equations at once do not help any more.
    """

    def __init__(self, rows, kind, block_size, rng):
        self._rows, self._kind, self._rng = rows, kind, rng
        self._free = block_size is None and kind.blocks
        self._open(kind.size(rows.shape[0], block_size))

    def begin(self, b, x):
        """Take a right-hand side, and a start that moves in place."""
        self.b, self.x = b, x
        self._scale = self._rows.be.host(self._rows.be.xp.linalg.norm(b))
        self.best = math.inf, x
        self._marks, self.stuck = [], False
        self._stepper.pose(b)
        self._look()

    @property
    def exhausted(self):
        """Whether rounding keeps the residual where it is."""
        size = self._rows.be.host(self._rows.be.xp.linalg.norm(self.x))
        return self.residual <= 10 * _EPS * (self._rows.length * size + self._scale)

    def sweep(self, most):
        """Take a sweep of steps, at most so many, and look; return the number of steps."""
        steps = min(self._stepper.stride, most)
        self._stepper.advance(self.x, steps)
        self._look()
        if not self._stepper.monotone and self.residual > 10 * self.best[0]:
            self.x[...] = self.best[1]
            self._stepper.restart()
            self._look()
        self._marks.append(self.residual)
        if self._idle():
            self.stuck = self._stepper.size == self._rows.shape[0] > 1
            if self._free:
                self._enlarge()
        return steps

    def _look(self):
        be = self._rows.be
        self.gap = self._rows.A @ self.x - self.b
        self.residual = be.host(be.xp.linalg.norm(self.gap))
        if self.residual < self.best[0]:
            self.best = self.residual, self.x.copy()

    def _idle(self):
        marks = self._marks
        return len(marks) > _PATIENCE and not marks[-1] <= 0.5 * marks[-1 - _PATIENCE]

    def _enlarge(self):
        count, size = self._rows.shape[0], self._stepper.size
        largest = min(count, max(POOL // (8 * count), size))
        if size < largest:
            self._open(min(2 * size, largest))
            self._stepper.pose(self.b)
            self._marks = []

    def _open(self, size):
        self._stepper = self._kind.open(self._rows, size, self._rng)
