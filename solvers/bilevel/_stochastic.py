"""The steps of `penalty_sgd`: one function per method, each on one batch of either level.

All gradients of a step are taken at the point that it starts from.
"""

from typing import NamedTuple

import numpy as np

from .._core.validation import check_memory

# Terms of the Neumann series of "stocbio".
_TERMS = 10
# STORM forgets no more slowly than this.
FORGET = 0.05
# Part of the way to the projected step, for `prox`.
_PROX = 0.5


class Batches:
    """Batches of sample numbers: pieces of one random permutation after another.

    The k-th batch depends on the key and on k alone: a run can go on from any step.

    Parameters
    ----------
    n : int
        Number of samples.
    size : int
        Samples in a batch.
    key : sequence of int
        Tells streams apart.
    """

    def __init__(self, n, size, key):
        self.n, self.size, self.key = n, size, list(key)
        # What does not fill a batch is left out; every permutation leaves out others.
        self.per_epoch = n // size
        self._epoch = None

    def __call__(self, k):
        """Return the k-th batch."""
        epoch, part = divmod(k, self.per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([*self.key, epoch]).permutation(self.n)
            self._epoch = epoch
        return self._order[part * self.size : (part + 1) * self.size]


class Rate(NamedTuple):
    """Step lengths of one step, its penalty, and how fast averages of gradients forget.

    No entry of x moves farther than `reach`.
    """

    lower: float
    upper: float
    sigma: float
    forget: float
    reach: float


class Draw(NamedTuple):
    """What step k may look at: batches of both levels."""

    k: int
    lower_batches: Batches
    upper_batches: Batches

    @property
    def lower(self):
        """Return the step's samples of the lower level."""
        return self.lower_batches(self.k)

    @property
    def upper(self):
        """Return the step's samples of the upper level."""
        return self.upper_batches(self.k)

    def fresh(self, q):
        """Return other samples of the lower level."""
        return self.lower_batches(self.k + q)


def shared(problem, s, rate, draw, own):
    """Move y and z with the same lower batch, so that their noise cancels in y - z."""
    low, up = draw.lower, draw.upper
    f, g = problem.upper.look(s.x, s.y, up), problem.lower.pair(s.x, s.y, s.z, low)
    gx = g.first.gx - g.second.gx if g.gx is None else g.gx
    s.D = (1 - rate.forget) * s.D + rate.forget * (f.gx + gx / rate.sigma)
    _lower(problem, s, rate, g.first.gy + rate.sigma * f.gy, g.second.gy)
    _upper(problem, s, rate, own)
    return f.value


def single_loop(problem, s, rate, draw, own):
    """Keep recursive-momentum (STORM) estimates of all six gradients."""
    low, up = draw.lower, draw.upper
    points = s.x, s.y, s.z
    value, now = _gradients(problem, points, low, up)
    if s.before is None:
        s.G = now
    else:
        _, then = _gradients(problem, s.before, low, up)
        s.G = [
            new + (1 - rate.forget) * (G - old) for new, G, old in zip(now, s.G, then, strict=True)
        ]
    s.before = points
    f_x, f_y, y_x, y_y, z_x, z_y = s.G
    s.D = f_x + (y_x - z_x) / rate.sigma
    _lower(problem, s, rate, y_y + rate.sigma * f_y, z_y, _PROX if own.prox else 1.0)
    _upper(problem, s, rate, own)
    return value


def _gradients(problem, points, low, up):
    x, y, z = points
    f = problem.upper.look(x, y, up)
    at_y, at_z, *_ = problem.lower.pair(x, y, z, low)
    return f.value, [f.gx, f.gy, at_y.gx, at_y.gy, at_z.gx, at_z.gy]


def soba(problem, s, rate, draw, own):
    """Track the solution v of ``g_yy v = f_y`` beside that of the lower level."""
    low, up = draw.lower, draw.upper
    f, g = problem.upper.look(s.x, s.z, up), problem.lower.look(s.x, s.z, low, with_x=False)
    s.D = f.gx - problem.lower.hvp_xy(s.x, s.z, s.v, low)
    v = s.v - rate.lower * (problem.lower.hvp_yy(s.x, s.z, s.v, low) - f.gy) / s.P
    _lower(problem, s, rate, None, g.gy)
    s.v = v
    _upper(problem, s, rate, own)
    return f.value


def saba(problem, s, rate, draw, own):
    """Do as `soba` does, with the variance taken out by tables of block gradients (SAGA)."""
    (b,), (c,) = draw.lower, draw.upper
    value, upper = _upper_terms(problem, s, s.upper_blocks[c])
    f_x, f_y = _renewed(s.upper_table, c, upper)
    lower = _lower_terms(problem, s, s.lower_blocks[b])
    g_y, g_yy_v, g_xy_v = _renewed(s.lower_table, b, lower)
    s.D = f_x - g_xy_v
    v = s.v - rate.lower * (g_yy_v - f_y) / s.P
    _lower(problem, s, rate, None, g_y)
    s.v = v
    _upper(problem, s, rate, own)
    return value


def saba_tables(problem, s, size, key):
    """Cut the samples of both levels into blocks for good, and look at each once."""
    dtype = problem.io.dtype
    for name, level, terms in (
        ("lower", problem.lower, _lower_terms),
        ("upper", problem.upper, _upper_terms),
    ):
        n = level.oracle.n_samples
        count = -(-n // size)
        wide = 2 * len(s.z) + len(s.x) if name == "lower" else len(s.z) + len(s.x)
        check_memory(
            count * wide * dtype.itemsize,
            f"The table of `method`='saba' for {count} batches",
            "Raise `batch`, or use `method`='soba'",
            be=problem.io.be,
        )
        order = np.random.default_rng([*key, name == "upper"]).permutation(n)
        blocks = np.array_split(order, count)
        rows = [terms(problem, s, block) for block in blocks]
        if name == "upper":
            rows = [row for _, row in rows]
        weights = [len(block) / n for block in blocks]
        setattr(s, f"{name}_blocks", blocks)
        setattr(s, f"{name}_table", table(rows, weights))


def _lower_terms(problem, s, low):
    g = problem.lower.look(s.x, s.z, low, with_x=False)
    hvp_yy = problem.lower.hvp_yy(s.x, s.z, s.v, low)
    return g.gy, hvp_yy, problem.lower.hvp_xy(s.x, s.z, s.v, low)


def _upper_terms(problem, s, up):
    f = problem.upper.look(s.x, s.z, up)
    return f.value, (f.gx, f.gy)


def stocbio(problem, s, rate, draw, own):
    """Solve ``g_yy v = f_y`` anew in every step, by a truncated Neumann series."""
    low, up = draw.lower, draw.upper
    f, g = problem.upper.look(s.x, s.z, up), problem.lower.look(s.x, s.z, low, with_x=False)
    v = rate.lower * f.gy / s.P
    for q in range(1, _TERMS):
        # Products of means need independent batches.
        fresh = draw.fresh(q)
        v = v + rate.lower * (f.gy - problem.lower.hvp_yy(s.x, s.z, v, fresh)) / s.P
    s.D = f.gx - problem.lower.hvp_xy(s.x, s.z, v, draw.fresh(_TERMS))
    _lower(problem, s, rate, None, g.gy)
    _upper(problem, s, rate, own)
    return f.value


def _lower(problem, s, rate, along_y, along_z, part=1.0):
    """Move z, and y where the method has one, against the given directions."""
    prox = problem.lower.prox

    def moved(v, along):
        new = v - rate.lower * along / s.P
        new = problem.Y.project(new) if prox is None else prox(new, rate.lower)
        return new if part == 1.0 else v + part * (new - v)

    s.z = moved(s.z, along_z)
    s.y = s.z if along_y is None else moved(s.y, along_y)


def _upper(problem, s, rate, own):
    step = rate.upper
    if own.normalize:
        step = step / (float(s.D @ s.D) ** 0.5 + 1e-10)
    step = min(step, rate.reach / (float(abs(s.D).max()) + 1e-300))
    s.x = problem.X.project(s.x - step * s.D)


def table(rows, weights):
    """Return a SAGA table: the terms of every block, and their means over all samples."""
    means = [
        sum(w * row[j] for w, row in zip(weights, rows, strict=True)) for j in range(len(rows[0]))
    ]
    return {"rows": list(rows), "weights": weights, "means": means}


def _renewed(table, b, terms):
    """Put new terms of a block into a table and return estimates without bias of their means."""
    w, count = table["weights"][b], len(table["rows"])
    change = [new - old for new, old in zip(terms, table["rows"][b], strict=True)]
    estimates = [m + count * w * c for m, c in zip(table["means"], change, strict=True)]
    table["rows"][b] = tuple(terms)
    table["means"] = [m + w * c for m, c in zip(table["means"], change, strict=True)]
    return estimates
