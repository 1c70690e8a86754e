"""Group-sparse and multinomial models: greedy working sets of blocks, and Newton steps on them.

The loss is replaced by its quadratic model on the blocks of the working set, the model is solved
(`_blocks.solve_model`) and a line search takes care of the rest; for squares the model is exact.
"""

from contextlib import nullcontext

import numpy as np

from .. import losses
from .._core import threads
from .._core.result import Status
from ._block_model import MatrixModel, is_small
from ._block_part import Part
from ._block_state import State
from ._blocks import (
    any_of,
    distances,
    is_separable,
    penalty_sum,
    solve_model,
    solve_separable,
    take,
)
from ._driver import Answer
from ._measure import Measure

# Blocks of the first working set.
_FIRST = 10
# Unknowns in a greedy block, at least; of several groups if they are small.
_GREEDY = 50
# Newton steps of the loss on one working set, and those without progress that end it.
_STEPS, _IDLE = 50, 5
# A coefficient whose gradient is that near to its limit belongs into the model.
_NEAR = 0.98
# So few unknowns make matrices that are too small for the threads of BLAS.
_NARROW = 1000
# Sweeps of cyclic descent between two looks at the certificate's value.
_EVERY = 10


def solve(problem, watch, options):
    """Solve a `GLM` with a penalty of groups, or with several classes."""
    watch.used.update(partition="groups", selection="gsq", update="prox_newton")
    state, measure = State(problem, options.x0 or problem.zeros()), Measure(problem)
    working = state.support()

    def step():
        nonlocal working
        working = _grow(state, working)
        watch.active_set = state.order[state.where(working)]
        return _descend(state, working, watch.tol * measure.unit, watch)

    return _run(state, measure, watch, step)


def solve_greedy(problem, watch, options):
    """Solve by block coordinate descent: the groups that promise most are solved, and repeat."""
    watch.used.update(partition="groups", selection="gsq", update="prox_newton")
    state, measure = State(problem, options.x0 or problem.zeros()), Measure(problem)
    width = max(1, _GREEDY * state.blocks.number // state.w.size)
    nothing = state.support() & False

    def step():
        block, state.gram = _best(state, nothing, width), None
        return _descend(state, block, watch.tol * measure.unit, watch)

    return _run(state, measure, watch, step)


def solve_cyclic(problem, watch, options):
    """Solve by sweeps over the blocks of a quadratic model of the loss."""
    watch.used.update(partition="groups", selection="cyclic", update="gradient")
    state, measure = State(problem, options.x0 or problem.zeros()), Measure(problem)
    part = Part(state, state.xp.arange(state.w.size))
    every = options.check_every or _EVERY

    def step():
        model = part.column_model(state.problem, state.z, state.r, part.where)
        d, dc, _ = solve_model(
            state.be, model, state.w, state.blocks, 0.0, newton=False, rounds=1, sweeps=every
        )
        _line_search(state, part, state.blocks, state.w, state.g, d, dc)
        watch.n_blocks += every * state.blocks.number
        watch.npass += 2.0 * every
        state.refresh()
        return d.size

    return _run(state, measure, watch, step, every)


def _run(state, measure, watch, step, iterations=1):
    """Repeat steps, each of which returns the size of its block, until the run ends."""
    narrow = state.w.size <= _NARROW
    with threads.serial_blas() if narrow else nullcontext():
        return _repeat(state, measure, watch, step, iterations)


def _repeat(state, measure, watch, step, iterations):
    value, _ = measure(state)
    watch.npass += 2.0
    if value <= watch.tol:
        return Answer(*state.answer())
    best, idle = state.objective(), 0
    for _ in watch.run:
        block = step()
        (value, gap), fun = measure(state), state.objective()
        watch.npass += 1.0
        x, c = state.answer()
        if watch.record(x, c, fun=fun, value=value, gap=gap, block=block, iterations=iterations):
            break
        best, idle = min(best, fun), 0 if fun < best else idle + 1
        if idle >= _IDLE:
            watch.run.end(Status.STALLED, "The objective does not fall any more.")
            break
    return Answer(*state.answer())


def _grow(state, working):
    """Return the working set with the blocks that promise most."""
    be, blocks = state.be, state.blocks
    active, samples = be.host(state.support().sum()), state.z.shape[0]
    wanted = max(_FIRST, active, min(samples, blocks.number) // 20)
    # Blocks without a kink are never zero.
    smooth = (blocks.l2 == 0.0) & ~any_of(be, blocks, blocks.l1 > 0.0)
    return _best(state, working | (smooth & (state.lipschitz > 0.0)), wanted)


def _best(state, working, wanted):
    """Return the working set with so many more blocks, those with the largest GS-q scores."""
    xp, be, L = state.xp, state.be, state.lipschitz
    outside = ~working & (state.distance > 0.0) & (L > 0.0)
    wanted = min(wanted, be.host(outside.sum()))
    if wanted == 0:
        return working
    score = xp.where(outside, state.distance**2 / xp.where(L > 0.0, L, 1.0), -1.0)
    working = working.copy()
    working[xp.argpartition(-score, wanted - 1)[:wanted]] = True
    return working


def _inner_goal(state, working, eps):
    """Return the violation to reach on the working set."""
    xp = state.xp
    inside = xp.where(working, state.distance, 0.0).max()
    outside = xp.where(working, 0.0, state.distance).max()
    inside, outside, size = state.be.host(inside, outside, abs(state.w).sum())
    goal = max(0.1 * outside, 0.3 * eps / max(size, 1e-300))
    if _is_smooth(state):
        # A gradient g leaves the gap |g|^2 / (2 ridge).
        ridge, number = state.be.host(state.blocks.ridge.min()), state.blocks.number
        goal = max(goal, (0.6 * eps * ridge / number) ** 0.5)
    return min(goal, 0.1 * inside) if inside > 0.0 else goal


def _is_smooth(state):
    """Tell whether the penalty has no kinks."""
    blocks = state.blocks
    return not state.be.host((blocks.l1 > 0.0).any() | (blocks.l2 > 0.0).any())


def _descend(state, working, eps, watch):
    """Minimise over the working set; return how many unknowns it has."""
    be, xp, problem = state.be, state.xp, state.problem
    goal = _inner_goal(state, working, eps)
    exact = isinstance(problem.loss, losses.Squared)
    part = Part(state, state.where(working))
    blocks, w = take(be, state.blocks, part.where), state.w[part.where]
    first, before, best, idle = None, np.inf, np.inf, 0
    # Conjugate gradients are the quicker way for a penalty without kinks, while they get on.
    by_columns = not exact and _is_smooth(state)
    for _ in range(_STEPS):
        g = part.gradient(state.r)
        violation = be.host(distances(be, blocks, w, g).max())
        first = first or violation
        best, idle = min(best, violation), 0 if violation < 0.9 * best else idle + 1
        if violation <= goal or idle >= _IDLE or watch.run.late:
            break
        by_columns, before = by_columns and violation < 0.5 * before, violation
        S = xp.arange(w.size) if exact or by_columns else _near(be, blocks, w, g)
        if not is_small(state.z.shape[0], S.size):
            S = part.whole_features(S)
        if by_columns:
            model, share = part.column_model(problem, state.z, state.r, S), 0.3
        else:
            model, share = part.model(problem, state.z, state.r, g, S), 0.05
        tol = goal if exact else max(0.3 * goal, share * violation * min(1.0, violation / first))
        alone = isinstance(model, MatrixModel) and is_separable(be, blocks)
        solve_it = solve_separable if alone else solve_model
        step, dc, steps = solve_it(be, model, w[S], take(be, blocks, S), 0.5 * tol)
        d = xp.zeros_like(w)
        d[S] = step
        watch.n_newton += steps
        watch.n_blocks += 1
        if _line_search(state, part, blocks, w, g, d, dc) == 0.0:
            break
    state.w[part.where] = w
    state.refresh()
    return w.size


def _line_search(state, part, blocks, w, g, d, dc):
    """Move w by a fraction of the step d, and return it; 0 if nothing helps."""
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
    xp, grouped = be.xp, (blocks.l2 > 0.0)[blocks.owner]
    over = xp.maximum(abs(g) - blocks.l1, 0.0)
    size = xp.sqrt(xp.bincount(blocks.owner, over * over, minlength=blocks.number))
    group = (size >= _NEAR * blocks.l2) | any_of(be, blocks, w != 0.0)
    alone = (abs(g) >= _NEAR * blocks.l1) | (w != 0.0)
    return xp.flatnonzero(xp.where(grouped, group[blocks.owner], alone))
