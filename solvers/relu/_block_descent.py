"""The paper's inner loop for losses that are not quadratic: random blocks, one step each."""

import math

import numpy as np

# Gates of a block; Armijo's constant; the cut of a step that fails, and of the next first trial;
# the growth of first trials: those of the authors' programme.
_BLOCK = 3
_ARMIJO = 1e-3
_SHRINK, _CUT, _GROW = 2.5, 1.5, 1.05
# The inner loop ends when the mean decrease of `_WINDOW sqrt(blocks)` steps is below this part of
# a sample's loss, which shrinks from one outer iteration to the next.
_WINDOW, _FALL, _TIGHTEN = 8, 1e-3, 0.96
# Steps of one inner loop, in passes over all gates.
_PASSES = 100


class BlockDescent:
    """Minimise ``L(F U) + rho (<U, B U> / 2 - <R, U>)`` by gradient steps on random blocks.

    Goes on from the U that it returned last.

    Parameters
    ----------
    programme : Programme
    sigma : float
        Penalty of ``G U = S``, in units of rho.
    rng : Generator
    """

    def __init__(self, programme, sigma, rng):
        xp, X = programme.xp, programme.X
        self.programme, self.rng, self.sigma = programme, rng, sigma
        self.metric = xp.eye(X.shape[1], dtype=X.dtype) + sigma * (X.T @ X)
        self.top = float(xp.linalg.norm(self.metric, 2))
        self.U = None
        self.F = xp.zeros_like(programme.Y)
        start = programme.loss.value(self.F)
        self.fall, self.eps = _FALL * start / self.F.size, float(np.finfo(X.dtype).eps)
        # Smaller decreases are rounding.
        self.least = 10 * self.eps * start
        self.trial = None

    def start(self, U):
        """Begin at blocks U."""
        self.U, self.F = U.copy(), self.programme.predictions(U)

    def weigh(self, theta):
        """Set ``1 / rho``; first trials scale with it."""
        self.rho, self.trial = 1.0 / theta, theta / self.top

    def solve(self, R, target):
        """Return U, improved until steps of blocks gain little."""
        P = R.shape[2]
        if self.U is None:
            self.U = self.programme.xp.zeros_like(R)
        size = min(_BLOCK, P)
        blocks = math.ceil(P / size)
        gains = np.full(math.ceil(_WINDOW * math.sqrt(blocks)), np.inf)
        for k in range(_PASSES * blocks):
            gains[k % len(gains)] = self._step(self.rng.choice(P, size, replace=False), R)
            if gains.mean() <= self.fall:
                break
        self.fall = max(_TIGHTEN * self.fall, self.least)
        return self.U.copy()

    def _step(self, some, R):
        """Move the gates `some` against their gradient; return the decrease."""
        programme, xp = self.programme, self.programme.xp
        host, loss, X = programme.be.host, programme.loss, programme.X
        mask, U = programme.mask[some], self.U[:, :, some]
        slope = (loss.slope(self.F)[:, None, :] * mask) @ X
        error = U @ self.metric - R[:, :, some]
        G = self.rho * error + xp.stack([slope, -slope], axis=1)
        change = (((G[:, 0] - G[:, 1]) @ X.T) * mask).sum(axis=1)
        along, curve, square = host(
            (G * error).sum(), (G * (G @ self.metric)).sum(), (G * G).sum()
        )
        value, t = loss.value(self.F), self.trial
        self.trial *= _GROW
        # Below rounding of the value no step can be told to be one.
        while t * square > self.eps * abs(value):
            F = self.F - t * change
            gain = value - loss.value(F) + self.rho * t * (along - 0.5 * t * curve)
            if gain >= _ARMIJO * t * square:
                self.U[:, :, some] = U - t * G
                self.F = F
                return gain
            t /= _SHRINK
            self.trial /= _CUT
        return 0.0
