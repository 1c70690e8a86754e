"""Blocks of coefficients: a penalty of groups as a solver sees it, and quadratic models with one.

Here coefficients stand group by group, in float64.
"""

from typing import Any, NamedTuple

import numpy as np

from .. import penalties
from ._groups import HUGE, norms, owners
from ._l1qp import l1qp

# Newton steps on a support before blocks are swept again, and how many more a small one may have
# for each of its coefficients.
_NEWTON, _CHEAP = 4, 2000
# Lengths of a step that are tried, as parts of it and of the way to the first kink.
_LENGTHS = [1.0, 0.5, 0.25, 0.125, 0.0625]
# Rounds without progress after which rounding errors are all that is left.
_IDLE = 10


class Blocks(NamedTuple):
    """The penalty ``l2[b] |w_b| + sum_j l1[j] |w_j| + ridge[j]/2 w_j^2`` over blocks b.

    Attributes
    ----------
    ptr : array of int64, shape (blocks + 1,)
        Where each block's entries start.
    owner : array of int64, shape (N,)
        The block of each entry.
    l1, ridge : array, shape (N,)
        Weights of absolute values and of half squares.
    l2 : array, shape (blocks,)
        Weights of norms.
    """

    ptr: Any
    owner: Any
    l1: Any
    l2: Any
    ridge: Any

    @property
    def number(self):
        """How many blocks there are."""
        return self.l2.size

    @property
    def arguments(self):
        """What kernels take."""
        return self.ptr, self.l1, self.l2, self.ridge


def blocks_of(problem):
    """Return the order of a problem's coefficients, group by group, and its `Blocks`."""
    xp, groups = problem.xp, problem.groups
    if groups is not None:
        zeros = xp.zeros(problem.size)
        owner = owners(problem.be, groups.ptr)
        return groups.idx, Blocks(groups.ptr, owner, groups.l1, groups.l2, zeros)
    p, C = problem.design.shape[1], problem.n_classes
    ptr, owner = C * xp.arange(p + 1), xp.repeat(xp.arange(p), C)
    l1, ridge = (xp.minimum(f.astype(np.float64), HUGE) for f in problem.bound[:2])
    return xp.arange(problem.size), Blocks(ptr, owner, l1, xp.zeros(p), ridge)


def take(be, blocks, where):
    """Return the blocks of some entries, in ascending order; those of none are gone."""
    xp = be.xp
    kept, owner = xp.unique(blocks.owner[where], return_inverse=True)
    ptr = xp.zeros(kept.size + 1, np.int64)
    ptr[1:] = xp.cumsum(xp.bincount(owner, minlength=kept.size))
    return Blocks(ptr, owner, blocks.l1[where], blocks.l2[kept], blocks.ridge[where])


def split(xp, blocks):
    """Return blocks of which those without a norm, whose entries are on their own, are cut up."""
    starts = xp.zeros(blocks.owner.size, bool)
    starts[blocks.ptr[:-1]] = True
    starts |= blocks.l2[blocks.owner] == 0.0
    first = xp.flatnonzero(starts)
    ptr = xp.concatenate([first, blocks.ptr[-1:]])
    l2 = blocks.l2[blocks.owner[first]]
    return Blocks(ptr, xp.cumsum(starts) - 1, blocks.l1, l2, blocks.ridge)


def any_of(be, blocks, flags):
    """Tell for each block whether one of its entries has the flag."""
    return be.xp.bincount(blocks.owner, flags.astype(float), minlength=blocks.number) > 0.0


def penalty_sum(be, blocks, w):
    """Return the penalty of coefficients."""
    total = (blocks.l1 * abs(w)).sum() + 0.5 * (blocks.ridge * w * w).sum()
    if _has_norms(be, blocks):
        total = total + (blocks.l2 * norms(be, blocks.owner, blocks.number, w)).sum()
    return float(be.host(total))


def distances(be, blocks, w, g):
    """Return each block's distance of -g from the subdifferential."""
    out = be.xp.empty(blocks.number)
    be.kernels("solvers.bcd", "groups").block_distances(*blocks.arguments, w, g, out)
    return out


def solve_model(be, model, w, blocks, tol, *, newton=True, rounds=100, sweeps=None):
    """Minimise a quadratic model and the penalty, nearly.

    Sweeps over the blocks find the support, Newton steps on it end the work.

    Parameters
    ----------
    model : MatrixModel or ColumnModel
        The model, around w.
    w : array, shape (N,)
        Coefficients.
    tol : float
        Largest violation of the optimality conditions.
    newton : bool
        Whether Newton steps are taken; False leaves sweeps.
    rounds : int
        Limit of sweeps and Newton steps in turn.
    sweeps : int, optional
        Sweeps of the first round. Default: what a Newton step on half of the entries takes.

    Returns
    -------
    d : array, shape (N,)
        Step to the minimiser.
    dc : float or array of shape (C,)
        Step of the intercept.
    steps : int
        Newton steps taken.
    """
    before, steps, sweeps = w, 0, sweeps or max(5, model.sweeps(w.size // 2))
    blocks, w = model.begin(blocks, w)
    best, idle = np.inf, 0
    kinks = be.host((blocks.l1 > 0.0).any() | (blocks.l2 > 0.0).any())
    for _ in range(rounds):
        if kinks or not newton:
            model.sweep(w, sweeps, tol)
        violation = be.host(distances(be, blocks, w, model.g).max())
        best, idle = min(best, violation), 0 if violation < 0.9 * best else idle + 1
        if violation <= tol or idle >= _IDLE:
            break
        support = taken = 0
        # To the end of a face, unless that takes too long: sweeps would only leave it.
        while newton and taken < max(_NEWTON, _CHEAP // max(support, 1)):
            moved, support = _newton_step(be, model, w, blocks, tol / violation)
            taken += 1
            steps += moved
            violation = be.host(distances(be, blocks, w, model.g).max())
            if not moved or violation <= tol:
                break
        sweeps = max(3, model.sweeps(support))
    return *model.end(w, before), steps


def is_separable(be, blocks):
    """Tell whether coefficients are penalised one by one, some of them with a kink."""
    return not _has_norms(be, blocks) and be.host((blocks.l1 > 0.0).any())


def solve_separable(be, model, w, blocks, tol):
    """Do as `solve_model`, for a model that is a matrix and a penalty that `is_separable`.

    Single coefficients need no blocks: factors of one support serve those near it.
    """
    H, g, x, l1, ridge = (
        np.array(be.host(v), np.float64) for v in (model.H, model.g, w, blocks.l1, blocks.ridge)
    )
    S = np.flatnonzero(H.diagonal() > 0.0)
    if S.size < x.size:
        H, g = H[np.ix_(S, S)], g[S]
    v = x[S]
    penalty = penalties.bind(penalties.ElasticBox(l1[S], ridge[S]), S.size, np.float64)
    _, steps = l1qp(H, g, v, penalty, tol=tol)
    x[S] = v
    return *model.end(be.xp.asarray(x), w), steps


def _newton_step(be, model, w, blocks, wanted):
    """Move nonzero and free coefficients by a Newton step; tell whether it helped, and of many."""
    xp = be.xp
    # Where there is no kink at zero, zero is a number as any other.
    S = xp.flatnonzero((w != 0.0) | (blocks.l1 + blocks.l2[blocks.owner] == 0.0))
    if S.size == 0:
        return False, 0
    part, u, g = take(be, blocks, S), w[S], model.g[S]
    slope, bend = _smooth_penalty(be, part, u)
    slope = slope + g
    d = model.solve(S, bend, -slope, min(max(0.5 * wanted, 1e-12), 0.1))
    if d is None:
        return False, S.size
    before = penalty_sum(be, part, u)
    kink = _kinks(xp, part, u, d)
    first = min(1.0, be.host(kink.min()))
    # Up to the first kink the step descends, however long it is in a flat direction.
    for t in _LENGTHS + [first * t for t in _LENGTHS]:
        # What comes to a kink at zero stops there.
        new = xp.where(t >= kink, 0.0, u + t * d)
        step = new - u
        dg = model.push(S, step)
        change, promise = be.host(g @ step + 0.5 * (step @ dg[S]), slope @ step)
        change += penalty_sum(be, part, new) - before
        if change <= 1e-4 * promise and promise < 0.0:
            w[S] = new
            model.move(dg)
            return True, S.size
        if abs(promise) <= 1e-15 * before:
            break
    return False, S.size


def _kinks(xp, blocks, w, d):
    """Return which part of the step d takes each entry to where the penalty has a kink."""
    number = blocks.number
    flips = (blocks.l1 > 0.0) & ((w + d) * w < 0.0)
    alone = xp.where(flips, -w / xp.where(flips, d, 1.0), np.inf)
    # A block that turns back comes nearest to zero on its way.
    size = xp.bincount(blocks.owner, w * w, minlength=number)
    along = xp.bincount(blocks.owner, w * d, minlength=number)
    turns = (blocks.l2 > 0.0) & (along < -size)
    together = xp.where(turns, -size / xp.where(turns, along, 1.0), np.inf)
    return xp.minimum(alone, together[blocks.owner])


class Bend(NamedTuple):
    """Second derivatives of a penalty: a diagonal, less a matrix of rank one for each block.

    Attributes
    ----------
    be : Backend
    owner : array, shape (N,)
        The block of each entry.
    number : int
        How many blocks there are.
    straight : array, shape (N,)
        The diagonal.
    across, direction : array, shape (N,)
        The matrices of rank one have the entries ``across_i direction_i direction_j``.
    """

    be: Any
    owner: Any
    number: int
    straight: Any
    across: Any
    direction: Any

    def matrix(self):
        """Return all of it."""
        out = self.be.xp.diag(self.straight)
        if self.be.host(self.across.any()):
            same = self.owner[:, None] == self.owner
            out -= same * ((self.across * self.direction)[:, None] * self.direction)
        return out

    def diagonal(self):
        """Return the entries on the diagonal."""
        return self.straight - self.across * self.direction**2

    def times(self, v):
        """Return the product with a vector."""
        along = self.be.xp.bincount(self.owner, self.direction * v, minlength=self.number)
        return self.straight * v - self.across * self.direction * along[self.owner]


def _smooth_penalty(be, blocks, w):
    """Return first and second derivatives of the penalty where w is not zero."""
    xp = be.xp
    size = norms(be, blocks.owner, blocks.number, w)
    size = xp.where(size > 0.0, size, np.inf)[blocks.owner]
    direction, across = w / size, blocks.l2[blocks.owner] / size
    slope = blocks.l1 * xp.sign(w) + blocks.ridge * w + blocks.l2[blocks.owner] * direction
    straight = blocks.ridge + across
    return slope, Bend(be, blocks.owner, blocks.number, straight, across, direction)


def _has_norms(be, blocks):
    return be.host((blocks.l2 > 0.0).any())
