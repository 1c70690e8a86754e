"""Row solvers for large ranks: by sketches, and block by block; directly where rows are short.

They have the signature of all row solvers, see `_als.ROW_SOLVERS`.
"""

import math

import numpy as np

# Rows of a sketch for each unknown. The preconditioned Hessian is within (k / s)^1/2 or so of the
# identity: with s = 4 k conjugate gradients halve the error in each step, but steps of length one
# would not converge (measured; they need about 12 k).
_CONJUGATE, _UNIT = 4, 12


def sketched(be, systems, x, grad, left, inner):
    """Solve rows by least squares that a random sketch of each preconditions.

    Those that take three times as many steps as expected, or ``inner.steps``, are solved directly.
    """
    unit, seed = inner.name == "unit sketch", int(inner.rng.integers(2**63))
    ratio, eta = _UNIT if unit else _CONJUGATE, _attainable(inner.eta, x.dtype)
    most = 3 * max(math.ceil(2.0 * math.log(1.0 / eta) / math.log(ratio)), 1)
    most = min(most, inner.steps or most)
    kernel = be.kernels("solvers.completion", "sketch").sketch_rows
    return _with_direct(
        be, kernel, systems, x, grad, left, eta, ratio * x.shape[1], most, unit, seed
    )


def block_by_block(be, systems, x, grad, left, inner):
    """Solve rows by minimising over some of their unknowns at a time."""
    eta = _attainable(inner.eta, x.dtype)
    kernel = be.kernels("solvers.completion", "sketch").subspace_rows
    return _with_direct(be, kernel, systems, x, grad, left, eta, inner.steps)


def _attainable(eta, dtype):
    """Return a relative tolerance that rounding errors let rows reach."""
    return max(float(eta), 64.0 * float(np.finfo(dtype).eps))


def _with_direct(be, kernel, systems, x, grad, left, *options):
    """Run a kernel, and solve the rows directly that it skips or gives up."""
    xp = be.xp
    state = xp.zeros(x.shape[0], np.int8)
    square, steps = kernel(systems, x, grad, left, state, *options)
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
