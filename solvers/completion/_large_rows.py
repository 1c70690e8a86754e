"""Row solvers for large ranks: by sketches, and block by block; directly where rows are short.

They have the signature of all row solvers, see `_als.ROW_SOLVERS`.
"""

import numpy as np


def sketched(be, systems, x, grad, left, inner):
    """Solve rows by least squares that a random sketch of each preconditions."""
    sketch_rows = be.kernels("solvers.completion", "sketch").sketch_rows
    unit, seed = inner.name == "unit sketch", int(inner.rng.integers(2**63))
    return _with_direct(be, sketch_rows, systems, x, grad, left, inner.eta, unit, seed)


def block_by_block(be, systems, x, grad, left, inner):
    """Solve rows by minimising over some of their unknowns at a time."""
    subspace_rows = be.kernels("solvers.completion", "sketch").subspace_rows
    return _with_direct(be, subspace_rows, systems, x, grad, left, inner.eta, inner.steps)


def _with_direct(be, kernel, systems, x, grad, left, *options):
    """Run a kernel, and solve the rows directly that it skips or gives up."""
    xp = be.xp
    state = xp.zeros(x.shape[0], np.int8)
    square, steps = kernel(*systems, x, grad, left, state, *options)
    skipped, given_up = xp.flatnonzero(state == 0), xp.flatnonzero(state == 2)
    if not skipped.size and not given_up.size:
        return square, steps
    solve_rows = be.kernels("solvers.completion", "rows").solve_rows
    if skipped.size == x.shape[0]:
        return solve_rows(*systems, x, grad)
    for rows in (skipped, given_up):
        if rows.size:
            solved, came_from = x[rows], xp.empty((rows.size, x.shape[1]), x.dtype)
            before, _ = solve_rows(*_some(xp, systems, rows), solved, came_from)
            x[rows], left[rows] = solved, 0.0
            if rows is skipped:
                # Rows that were given up are no longer where they came from.
                grad[rows] = came_from
                square += before
    return square, steps


def _some(xp, systems, rows):
    """Return the systems of some rows."""
    ptr, idx, val, weight, B, offset, ridge, *rest = systems
    counts = ptr[rows + 1] - ptr[rows]
    starts = xp.concatenate([xp.zeros(1, np.int64), xp.cumsum(counts)])
    place = xp.arange(int(starts[-1]))
    row = xp.searchsorted(starts, place, side="right") - 1
    take = place + (ptr[rows] - starts[:-1])[row]
    weight = weight[take] if weight.size else weight
    return starts, idx[take], val[take], weight, B, offset, ridge[rows], *rest
