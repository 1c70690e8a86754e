"""A point of a problem with blocks, in float64 and in the order of groups."""

from dataclasses import replace

import numpy as np

from ._block_part import Part
from ._blocks import any_of, blocks_of, distances, penalty_sum
from ._intercept import fit_intercept


class State:
    """Coefficients group by group, predictions, slopes and gradient.

    Parameters
    ----------
    problem : GLM
    start : tuple
        Coefficients (N,) and intercept.

    Attributes
    ----------
    order : array of int64, shape (N,)
        Which unknown of the problem each coefficient is.
    features : array of int64, shape (N,)
        Its feature.
    blocks : Blocks
    lipschitz : array, shape (blocks,)
        At least the largest second derivative of the loss in each block.
    w, c : array
        Coefficients (N,) and intercept.
    z, r : array
        Predictions, and weighted slopes of the losses there.
    g : array, shape (N,)
        Gradient by the coefficients.
    distance : array, shape (blocks,)
        How far each block is from optimal.
    gram : tuple or None
        Of squares: the last working set's coefficients and their Gram matrix.
    """

    def __init__(self, problem, start):
        x, c = start
        self.be, self.xp, self.dtype = problem.be, problem.xp, problem.dtype
        # Where the data are float32, only passes over all of X are.
        y = problem.y if problem.multinomial else problem.y.astype(np.float64)
        self.problem = replace(problem, y=y, s=problem.s.astype(np.float64))
        self.gram = None
        self.order, self.blocks = blocks_of(problem)
        self.features = self.order // problem.n_classes
        self.lipschitz = self.xp.bincount(
            self.blocks.owner, problem.lipschitz[self.order], minlength=self.blocks.number
        )
        self.w, self.c = x[self.order].astype(np.float64), c.astype(np.float64)
        self.z = self.c + self.xp.zeros((problem.y.size, *self.c.shape))
        where = self.where(any_of(self.be, self.blocks, self.w != 0.0))
        if where.size:
            self.z = self.z + Part(self, where).predict(self.w[where])
        self.refresh()

    def refresh(self):
        """Fit the intercept and renew slopes, gradient and distances: a pass over X."""
        problem = self.problem
        self.r = problem.slopes(self.z)
        shift = fit_intercept(problem, self.z, self.r) if problem.fit_intercept else None
        if shift is not None:
            self.z, self.c = self.z + shift, self.c + shift
            self.r = problem.slopes(self.z)
        g = problem.design.rdot(self.r.astype(problem.design.dtype)).reshape(-1)
        self.g = g.astype(np.float64)[self.order]
        self.distance = distances(self.be, self.blocks, self.w, self.g)

    def support(self):
        """Return which blocks are not zero, or not penalised and not without effect."""
        blocks = self.blocks
        free = any_of(self.be, blocks, blocks.l1 + blocks.ridge == 0.0) & (blocks.l2 == 0.0)
        return any_of(self.be, blocks, self.w != 0.0) | (free & (self.lipschitz > 0.0))

    def where(self, chosen):
        """Return the entries of chosen blocks."""
        return self.xp.flatnonzero(chosen[self.blocks.owner])

    def objective(self):
        """Return the objective."""
        return float(self.problem.loss_sum(self.z) + penalty_sum(self.be, self.blocks, self.w))

    @property
    def x(self):
        """The coefficients as the problem counts them."""
        return self._put(self.w)

    def gradient(self):
        """Return the gradient as the problem counts coefficients."""
        return self._put(self.g)

    def answer(self):
        """Return coefficients and intercept in the problem's precision."""
        c = self.c - self.c.mean() if self.c.ndim else self.c
        return self.x.astype(self.dtype), c.astype(self.dtype)

    def _put(self, values):
        out = self.xp.empty_like(values)
        out[self.order] = values
        return out
