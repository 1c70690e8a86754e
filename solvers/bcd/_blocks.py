"""Blocks of coefficients: a penalty of groups as a solver sees it, and quadratic models with one.

Here coefficients stand group by group, in float64.
"""

from typing import Any, NamedTuple

import numpy as np

from ._groups import norms, owners

# Newton steps on a support before blocks are swept again.
_NEWTON = 4
_HALVINGS = 12


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
    l1, ridge = (xp.minimum(f.astype(np.float64), 1e100) for f in problem.bound[:2])
    return xp.arange(problem.size), Blocks(ptr, owner, l1, xp.zeros(p), ridge)


def take(be, blocks, where):
    """Return the blocks of some entries, in ascending order; those of none are gone."""
    xp = be.xp
    kept, owner = xp.unique(blocks.owner[where], return_inverse=True)
    ptr = xp.zeros(kept.size + 1, np.int64)
    ptr[1:] = xp.cumsum(xp.bincount(owner, minlength=kept.size))
    return Blocks(ptr, owner, blocks.l1[where], blocks.l2[kept], blocks.ridge[where])


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


def solve_model(be, H, g, w, blocks, tol, *, newton=True, rounds=100):
    """Minimise ``g . d + d . H d / 2`` and the penalty of ``w + d``, nearly.

    Sweeps over the blocks find the support, Newton steps on it end the work.

    Parameters
    ----------
    H : array, shape (N, N)
        Symmetric and positive semi-definite.
    g, w : array, shape (N,)
        Gradient of the model at w.
    tol : float
        Largest violation of the optimality conditions.
    newton : bool
        Whether Newton steps are taken; False leaves sweeps.
    rounds : int
        Limit of sweeps and Newton steps in turn.

    Returns
    -------
    w : array
        The minimiser.
    steps : int
        Newton steps taken.
    """
    kernels = be.kernels("solvers.bcd", "groups")
    w, g, steps = w.copy(), g.copy(), 0
    bound = be.xp.empty(blocks.number)
    kernels.block_bounds(H, blocks.ptr, bound)
    sweeps = 5
    for _ in range(rounds):
        kernels.block_sweeps(H, *blocks.arguments, bound, w, g, sweeps, tol)
        if be.host(distances(be, blocks, w, g).max()) <= tol:
            break
        support = 0
        for _ in range(_NEWTON if newton else 0):
            moved, support = _newton_step(be, H, g, w, blocks)
            steps += moved
            if not moved or be.host(distances(be, blocks, w, g).max()) <= tol:
                break
        # A factorisation costs as much as that many sweeps.
        sweeps = max(3, support * support // (6 * w.size))
    return w, steps


def _newton_step(be, H, g, w, blocks):
    """Move nonzero and free coefficients by a Newton step; tell whether it helped, and of many."""
    xp = be.xp
    free = (blocks.l1 + blocks.ridge + blocks.l2[blocks.owner] == 0.0) | (w != 0.0)
    S = xp.flatnonzero(free)
    if S.size == 0:
        return False, 0
    part, u, HS = take(be, blocks, S), w[S], H[:, S]
    slope, bend = _smooth_penalty(be, part, u)
    slope = slope + g[S]
    d = _solve(be, HS[S] + bend, -slope)
    if d is None:
        return False, S.size
    before = penalty_sum(be, part, u)
    for k in range(_HALVINGS):
        # A coefficient with a kink at zero stops there.
        new = u + 0.5**k * d
        new = xp.where((part.l1 > 0.0) & (new * u < 0.0), 0.0, new)
        step = new - u
        dg = HS @ step
        change, promise = be.host(g[S] @ step + 0.5 * (step @ dg[S]), slope @ step)
        change += penalty_sum(be, part, new) - before
        if change <= 1e-4 * promise and promise < 0.0:
            w[S] = new
            g += dg
            return True, S.size
        if abs(promise) <= 1e-15 * before:
            break
    return False, S.size


def _smooth_penalty(be, blocks, w):
    """Return first and second derivatives of the penalty where w is not zero."""
    xp = be.xp
    slope, bend = blocks.l1 * xp.sign(w) + blocks.ridge * w, xp.diag(blocks.ridge)
    if _has_norms(be, blocks):
        size = norms(be, blocks.owner, blocks.number, w)
        size = xp.where(size > 0.0, size, np.inf)[blocks.owner]
        direction, inverse = w / size, blocks.l2[blocks.owner] / size
        slope += blocks.l2[blocks.owner] * direction
        same = blocks.owner[:, None] == blocks.owner
        bend += xp.diag(inverse) - same * (inverse[:, None] * direction[:, None] * direction)
    return slope, bend


def _solve(be, A, b):
    """Return ``A^-1 b``, A lifted a little where it is singular; None if that does not help."""
    xp = be.xp
    unit = be.host(xp.trace(A)) / b.size
    for lift in (1e-14, 1e-12, 1e-10):
        try:
            factor = be.cholesky(A + (lift * unit) * xp.eye(b.size))
        except np.linalg.LinAlgError:
            continue
        half = be.linalg.solve_triangular(factor, b, lower=True)
        return be.linalg.solve_triangular(factor, half, lower=True, trans=1)
    return None


def _has_norms(be, blocks):
    return be.host((blocks.l2 > 0.0).any())
