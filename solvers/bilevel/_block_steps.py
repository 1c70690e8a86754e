"""The steps of `bsvrb`: one function per variant, on some samples of some blocks.

Derivatives are taken at the present point and at the one before, on the same samples.
"""

import math
from typing import Any, NamedTuple

import numpy as np

# Steps whose random numbers are drawn at a time.
_DRAWN = 64


class Draw(NamedTuple):
    """What a step may look at: blocks (I,), and samples (I, B) of both levels of each."""

    blocks: Any
    lower: Any
    upper: Any


class Draws:
    """The random numbers of all steps, a few steps' at a time.

    They depend on the key and on the step alone: a run can go on from any step.
    """

    def __init__(self, xp, own, levels, key):
        self.xp, self.own, self.key, self._chunk = xp, own, list(key), None
        self.sizes = [level.sizes for level in levels]

    def __call__(self, k):
        """Return the k-th draw."""
        chunk, place = divmod(k, _DRAWN)
        if chunk != self._chunk:
            self._drawn, self._chunk = self._draw(np.random.default_rng([*self.key, chunk])), chunk
        return Draw(*(numbers[place] for numbers in self._drawn))

    def _draw(self, rng):
        m, own = self.own.n_blocks, self.own
        blocks = np.tile(np.arange(m), (_DRAWN, 1))
        if own.blocks < m:
            blocks = rng.random((_DRAWN, m)).argpartition(own.blocks, axis=1)[:, : own.blocks]
        samples = (self.samples(rng, sizes[blocks]) for sizes in self.sizes)
        return [self.xp.asarray(numbers) for numbers in (blocks, *samples)]

    def samples(self, rng, sizes):
        """Return sample numbers with replacement, or all samples if the batch is that large."""
        every = np.arange(self.own.batch)
        drawn = rng.integers(sizes[..., None], size=(*sizes.shape, self.own.batch))
        return np.where(sizes[..., None] == self.own.batch, every, drawn)


class Rows:
    """A variable with a row for each block, and an estimate that belongs to it.

    Parameters
    ----------
    xp : module
    now : array, shape (m, p)
        Its rows.
    before : array, shape (m, p)
        The rows before the last step.
    estimate : array, shape (m, ...)
        Moving average of a derivative (MSVR).
    """

    def __init__(self, xp, now, before, estimate):
        self.xp, self.now, self.before, self.estimate = xp, now, before, estimate

    @classmethod
    def start(cls, xp, now, *shape):
        """Begin at given rows, with estimates of a given shape."""
        return cls(xp, now.copy(), now.copy(), xp.zeros((len(now), *shape), now.dtype))

    def track(self, d, fresh, new, old, own):
        """Update the estimate by derivatives on one batch at this point and the one before."""
        a, c = own.alpha, own.gamma
        moved = (1 - a) * self.estimate[d.blocks] + (a + c) * new - c * old
        # A block that is visited for the first time has no past.
        fresh = fresh.reshape(-1, *[1] * (new.ndim - 1))
        self.estimate[d.blocks] = self.xp.where(fresh, new, moved)

    def move(self, d, last, rows):
        """Set the rows of a step's blocks; those of the last step are past now."""
        self.before[last] = self.now[last]
        self.before[d.blocks] = self.now[d.blocks]
        self.now[d.blocks] = rows

    def parts(self):
        """Return copies of the arrays."""
        return {name: getattr(self, name).copy() for name in ("now", "before", "estimate")}


def exact_products(loop, d, fresh):
    """v1: keep estimates of the second derivatives, and solve with them."""
    s, own = loop.s, loop.own
    here, there, (f, f_old) = _both(loop, d, fresh)
    H, H_old = (loop.lower.hessians(x, Z, d.blocks, d.lower) for x, Z in (here, there))
    s.v.track(d, fresh, H, H_old, own)
    H = s.v.estimate[d.blocks] = _floored(loop.xp, s.v.estimate[d.blocks], own.floor)
    v, v_old = (loop.xp.linalg.solve(H, look.gy[..., None])[..., 0] for look in (f, f_old))
    return f.value, _implicit(loop, d, here, f, v), _implicit(loop, d, there, f_old, v_old)


def _floored(xp, H, floor):
    """Return symmetric matrices without eigenvalues below a part of their largest."""
    if not bool(xp.isfinite(H).all()):
        # LAPACK would not come to an end; the loop sees to it that the run does.
        return xp.full_like(H, math.nan)
    w, Q = xp.linalg.eigh(H)
    w = xp.maximum(w, floor * abs(w).max(axis=1, keepdims=True))
    return (Q * w[:, None, :]) @ xp.swapaxes(Q, 1, 2)


def products(loop, d, fresh):
    """v2: track the solutions v of ``g_yy v = f_y`` by products alone."""
    s, own, xp = loop.s, loop.own, loop.xp
    here, there, (f, f_old) = _both(loop, d, fresh)
    v, v_old = s.v.now[d.blocks], s.v.before[d.blocks]
    q, q_old = (
        loop.lower.hvp_yy(*point, w, d.blocks, d.lower) - look.gy
        for point, w, look in ((here, v, f), (there, v_old, f_old))
    )
    s.v.track(d, fresh, q, q_old, own)
    G = _implicit(loop, d, here, f, v)
    G_old = _implicit(loop, d, there, f_old, v_old)
    moved = v - loop.length(d) * s.v.estimate[d.blocks]
    if own.radius < math.inf:
        size = xp.sqrt((moved * moved).sum(axis=1, keepdims=True))
        moved = moved * (own.radius / xp.maximum(size, own.radius))
    s.v.move(d, s.last, moved)
    return f.value, G, G_old


def _both(loop, d, fresh):
    """Look at both levels at this point and the one before; track the lower one."""
    s = loop.s
    here, there = (s.x, s.z.now[d.blocks]), (s.x_old, s.z.before[d.blocks])
    g, g_old = loop.lower.looks([here, there], d.blocks, d.lower)
    s.z.track(d, fresh, g.gy, g_old.gy, loop.own)
    return here, there, loop.upper.looks([here, there], d.blocks, d.upper)


def _implicit(loop, d, point, f, v):
    return (f.gx - loop.lower.hvp_xy(*point, v, d.blocks, d.lower)).mean(axis=0)


def pairs(loop, d, fresh):
    """v3: keep a second point per block, for ``sigma f + g``, on the same batches."""
    s, own, sigma = loop.s, loop.own, loop.plan["sigma"]
    here, there = (s.x, s.z.now[d.blocks]), (s.x_old, s.z.before[d.blocks])
    up, up_old = (s.x, s.y.now[d.blocks]), (s.x_old, s.y.before[d.blocks])
    g, g_old, gs, gs_old = loop.lower.looks([here, there, up, up_old], d.blocks, d.lower)
    f, f_old = loop.upper.looks([up, up_old], d.blocks, d.upper)
    s.z.track(d, fresh, g.gy, g_old.gy, own)
    s.y.track(d, fresh, gs.gy + sigma * f.gy, gs_old.gy + sigma * f_old.gy, own)
    s.y.move(d, s.last, s.y.now[d.blocks] - loop.length(d) * s.y.estimate[d.blocks])
    G, G_old = (
        (look.gx + (at_y.gx - at_z.gx) / sigma).mean(axis=0)
        for look, at_y, at_z in ((f, gs, g), (f_old, gs_old, g_old))
    )
    return f.value, G, G_old


STEPS = {"v1": exact_products, "v2": products, "v3": pairs}
