"""Group-sparse and multinomial models: greedy working sets of blocks, and Newton steps on them.

The loss is replaced by its quadratic model on the blocks of the working set, the model is solved
(`_blocks.solve_model`) and a line search takes care of the rest; for squares the model is exact.
"""

from dataclasses import replace

import numpy as np

from .. import losses
from ._block_gap import Measure
from ._block_model import is_small
from ._block_part import Part, fit_intercept
from ._blocks import blocks_of, distances, penalty_sum, solve_model, take

# Blocks of the first working set.
_FIRST = 10
# Newton steps of the loss on one working set.
_STEPS = 50
# A block or coefficient whose gradient is that near to its limit belongs into the model.
_NEAR = 0.98


def solve(problem, watch, options):
    """Solve a `GLM` with a penalty of groups, or with several classes."""
    from ._driver import Answer

    state = _State(problem, options.x0 or problem.zeros())
    measure = Measure(state)
    watch.used.update(partition="groups", selection="gsq", update="prox_newton")
    value, gap, fun = measure.take(state)
    watch.npass += 2.0
    if value > watch.tol:
        working = state.support()
        for _ in watch.run:
            working = _grow(state, working)
            goal = _inner_goal(state, working, watch.tol * measure.scale)
            block = _descend(state, working, goal, watch, options)
            value, gap, fun = measure.take(state)
            watch.npass += 1.0
            x, c = state.answer()
            if watch.record(x, c, fun=fun, value=value, gap=gap, block=block):
                break
        watch.active_set = state.order[state.where(working)]
    return Answer(*state.answer())


class _State:
    """A point of a problem: coefficients group by group, predictions, slopes and gradient."""

    def __init__(self, problem, start):
        xp, x, c = problem.xp, *start
        self.given, self.be, self.xp = problem, problem.be, xp
        # Where the data are float32, only passes over all of X are.
        y = problem.y if problem.multinomial else problem.y.astype(np.float64)
        self.problem = replace(problem, y=y, s=problem.s.astype(np.float64))
        self.order, self.blocks = blocks_of(problem)
        self.features = self.order // problem.n_classes
        self.w, self.c = x[self.order].astype(np.float64), c.astype(np.float64)
        self.z = self.c + xp.zeros((problem.y.size, *self.c.shape))
        nonzero = self.support()
        if self.be.host(nonzero.any()):
            part = Part(self, self.where(nonzero))
            self.z = self.z + part.predict(self.w[part.where])
        self.lipschitz = problem.lipschitz[self.order]
        self.refresh()

    def refresh(self):
        """Fit the intercept and renew slopes, gradient and violations: a pass over X."""
        problem = self.problem
        if problem.fit_intercept:
            self.z, self.c = fit_intercept(problem, self.z, self.c)
        self.r = problem.slopes(self.z)
        g = problem.design.rdot(self.r.astype(problem.design.dtype)).reshape(-1)
        self.g = g.astype(np.float64)[self.order]
        self.distance = distances(self.be, self.blocks, self.w, self.g)

    def support(self):
        """Return which blocks are not zero, or not penalised."""
        xp, blocks = self.xp, self.blocks
        free = blocks.l1 + blocks.ridge + blocks.l2[blocks.owner] == 0.0
        active = (self.w != 0.0) | (free & (self.lipschitz_or_one() > 0.0))
        return xp.bincount(blocks.owner, active.astype(float), minlength=blocks.number) > 0.0

    def lipschitz_or_one(self):
        """Return the curvatures, once they are there."""
        return getattr(self, "lipschitz", self.xp.ones(1))

    def where(self, chosen):
        """Return the entries of chosen blocks."""
        return self.xp.flatnonzero(chosen[self.blocks.owner])

    def objective(self):
        """Return the objective."""
        return self.problem.loss_sum(self.z) + penalty_sum(self.be, self.blocks, self.w)

    def answer(self):
        """Return coefficients and intercept as the caller counts them."""
        dtype = self.given.dtype
        x = self.xp.empty(self.w.size, dtype)
        x[self.order] = self.w.astype(dtype)
        return x, self.c.astype(dtype)


def _grow(state, working):
    """Return the working set with the blocks that promise most."""
    xp, be, blocks = state.xp, state.be, state.blocks
    L = xp.bincount(blocks.owner, state.lipschitz, minlength=blocks.number)
    outside = ~working & (state.distance > 0.0) & (L > 0.0)
    score = xp.where(outside, state.distance**2 / xp.where(L > 0.0, L, 1.0), -1.0)
    candidates, active = be.host(outside.sum(), state.support().sum())
    wanted = min(candidates, max(_FIRST, active, min(state.z.shape[0], blocks.number) // 20))
    if wanted == 0:
        return working
    best = xp.argpartition(-score, wanted - 1)[:wanted]
    # Blocks without a kink are never zero.
    smooth = (blocks.l2 == 0.0) & ~_any(state, blocks.l1 > 0.0)
    working = working | (smooth & outside)
    working[best] = True
    return working


def _any(state, flags):
    """Tell for each block whether one of its entries has the flag."""
    counts = state.xp.bincount(state.blocks.owner, flags, minlength=state.blocks.number)
    return counts > 0.0


def _inner_goal(state, working, eps):
    """Return the violation to reach on the working set."""
    be, xp = state.be, state.xp
    inside = be.host(xp.where(working, state.distance, 0.0).max())
    outside, size = be.host(xp.where(working, 0.0, state.distance).max(), abs(state.w).sum())
    floor = 0.3 * eps / max(size, 1e-300)
    return min(max(0.1 * outside, floor), 0.1 * inside if inside > 0.0 else np.inf)


def _descend(state, working, goal, watch, options):
    """Minimise over the working set; return how many unknowns it has."""
    be, xp, problem = state.be, state.xp, state.problem
    exact = isinstance(problem.loss, losses.Squared)
    part = Part(state, state.where(working))
    blocks, w = take(be, state.blocks, part.where), state.w[part.where]
    first = None
    for _ in range(_STEPS):
        if watch.run.late:
            break
        g = part.gradient(state.r)
        violation = be.host(distances(be, blocks, w, g).max())
        first = first or violation
        if violation <= goal:
            break
        S = xp.arange(w.size) if exact else _near(be, blocks, w, g)
        if not is_small(state.z.shape[0], S.size):
            S = part.whole_features(S)
        model = part.model(problem, state.z, state.r, g, S)
        tol = goal if exact else max(0.3 * goal, 0.05 * violation * min(1.0, violation / first))
        step, dc, steps = solve_model(be, model, w[S], take(be, blocks, S), 0.5 * tol)
        d = xp.zeros_like(w)
        d[S] = step
        watch.n_newton += steps + (not exact)
        watch.n_blocks += 1
        t = _line_search(state, part, blocks, w, g, d, dc)
        if t == 0.0:
            break
    state.w[part.where] = w
    state.refresh()
    return w.size


def _line_search(state, part, blocks, w, g, d, dc):
    """Move by a fraction of the step d, and return it; 0 if nothing helps."""
    be, problem = state.be, state.problem
    dz = part.predict(d) + dc
    loss, penalty = problem.loss_sum(state.z), penalty_sum(be, blocks, w)
    promise = be.host(g @ d + (state.r.sum(axis=0) * dc).sum())
    promise += penalty_sum(be, blocks, w + d) - penalty
    # Below this, differences of objectives are rounding errors.
    rounding = 1e-15 * (abs(loss) + penalty)
    t = 1.0
    for _ in range(40):
        z = state.z + t * dz
        change = problem.loss_sum(z) - loss + penalty_sum(be, blocks, w + t * d) - penalty
        if change <= 1e-4 * t * promise + rounding:
            w += t * d
            state.z, state.c = z, state.c + t * dc
            state.r = problem.slopes(z)
            return t
        t *= 0.5
    return 0.0


def _near(be, blocks, w, g):
    """Return the entries that are not zero or might become so."""
    xp = be.xp
    over = xp.maximum(abs(g) - blocks.l1, 0.0)
    group = xp.sqrt(xp.bincount(blocks.owner, over * over, minlength=blocks.number))
    near = (group > _NEAR * blocks.l2) & (blocks.l2 > 0.0)
    alone = (blocks.l2[blocks.owner] == 0.0) & (abs(g) >= _NEAR * blocks.l1)
    active = xp.bincount(blocks.owner, (w != 0.0).astype(float), minlength=blocks.number) > 0.0
    grouped = blocks.l2[blocks.owner] > 0.0
    return xp.flatnonzero(alone | (w != 0.0) | (grouped & (near | active)[blocks.owner]))
