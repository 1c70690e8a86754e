"""Partitions that need no graph: blocks of consecutive unknowns in some order."""

import numpy as np

from ... import losses
from ._register import PARTITIONS, Blocks, register_partition

# Columns of a Gram matrix at a time.
_SLAB = 256


def cut(problem, options):
    """Return the fixed blocks that were asked for, or None if there are none.

    Parameters
    ----------
    problem : GLM or Quadratic
    options : Options
        Their `partition`, `block_size` and `rng`.
    """
    if isinstance(options.partition, Blocks):
        return options.partition
    rule = PARTITIONS[options.partition]
    if rule.variable:
        return None
    ptr, idx = rule.make(problem, options.block_size, options.rng)
    return Blocks(problem.be.host(ptr), idx)


def cut_order(problem, idx, size):
    """Return blocks of `size` unknowns in the order `idx`; the last may be shorter."""
    starts = np.arange(0, problem.size, size, dtype=np.int64)
    idx = problem.xp.asarray(idx, dtype=np.int64)
    return Blocks(np.append(starts, problem.size), idx)


def _order(problem, size, rng):
    return cut_order(problem, np.arange(problem.size), size)


def _random(problem, size, rng):
    return cut_order(problem, rng.permutation(problem.size), size)


def _sort(problem, size, rng):
    return cut_order(problem, _ascending(problem, problem.lipschitz), size)


def _avg(problem, size, rng):
    return cut_order(problem, _alternating(_ascending(problem, problem.lipschitz)), size)


def _hsort(problem, size, rng):
    return cut_order(problem, _ascending(problem, absolute_sums(problem)), size)


def _havg(problem, size, rng):
    return cut_order(problem, _alternating(_ascending(problem, absolute_sums(problem))), size)


def _ascending(problem, scores):
    return np.argsort(problem.be.host(scores), kind="stable")


def _alternating(ascending):
    """Return smallest, largest, second smallest, ..."""
    out = np.empty_like(ascending)
    half = (ascending.size + 1) // 2
    out[::2] = ascending[:half]
    out[1::2] = ascending[half:][::-1]
    return out


def absolute_sums(problem):
    """Return the sums of absolute values of each row of the bound of the Hessian, float64 (N,).

    For predictions this costs as much as the Gram matrix, of which a slab at a time is kept.
    """
    if problem.quadratic:
        sums = abs(problem.A).sum(axis=1)
        return problem.xp.asarray(sums).reshape(-1).astype(np.float64)
    xp, design = problem.xp, problem.design
    s = problem.s.astype(np.float64)
    p = design.shape[1]
    sums = xp.empty(p)
    centred = problem.fit_intercept and isinstance(problem.loss, losses.Squared)
    mean, total = problem.moments[1], s.sum()
    for start in range(0, p, _SLAB):
        some = slice(start, start + _SLAB)
        X = design.columns(xp.arange(p)[some])
        X = X.toarray() if design.sparse else X
        slab = design.rdot(s[:, None] * X)
        if centred:
            slab = slab - mean[:, None] * mean[some] / total
        sums[some] = abs(slab).sum(axis=0)
    sums *= losses.CURVATURE[type(problem.loss)]
    if not problem.multinomial:
        return sums
    # Entries for classes k and l are (1{k = l} - 1 / C) / 2 times those of the features.
    C = problem.n_classes
    return xp.repeat(sums * 2.0 * (2.0 - 2.0 / C), C)


register_partition(
    "variable", None, about="No fixed blocks: any set of unknowns is one.", variable=True
)
register_partition("order", _order, about="Unknowns as they come.")
register_partition("random", _random, about="Unknowns in random order.")
register_partition(
    "sort",
    _sort,
    about="Unknowns by their Lipschitz constants: those of a block are alike.",
    lipschitz=True,
)
register_partition(
    "avg",
    _avg,
    about="Small and large Lipschitz constants in turn: blocks are alike.",
    lipschitz=True,
)
register_partition(
    "hsort",
    _hsort,
    about="As 'sort', by the absolute sums of the Hessian's rows.",
    lipschitz=True,
)
register_partition(
    "havg",
    _havg,
    about="As 'avg', by the absolute sums of the Hessian's rows.",
    lipschitz=True,
)
