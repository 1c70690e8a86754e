"""How much each unknown, or block of unknowns, promises.

On a smooth problem the proximal scores are the plain ones: the distance is ``|g|``, and a proximal
step gains ``g^2 / (2 L)``.
"""

import numpy as np

from ... import losses
from ._block import largest_eigenvalue
from ._partitions import absolute_sums

# Above this many unknowns a block's constants are bounded, not computed.
DENSE = 512


def squared_distance(kernels, penalty, x, g, L):
    """Return the squared distances of -g from the subdifferential: GS-s."""
    return _filled(kernels.distances, penalty, x, g) ** 2


def squared_step(kernels, penalty, x, g, L):
    """Return the squared proximal steps, times L: GS-r in each unknown's own norm."""
    return L * _filled(kernels.prox_steps, penalty, x, g, L) ** 2


def gain(kernels, penalty, x, g, L):
    """Return what a proximal step gains at least: GS-q."""
    return _filled(kernels.prox_scores, penalty, x, g, L)


def scaled_distance(kernels, penalty, x, g, L):
    """Return the squared distances over L: GSL for single unknowns."""
    positive = L > 0
    return squared_distance(kernels, penalty, x, g, L) * positive / (L + ~positive)


def _filled(kernel, penalty, x, *args):
    out = x.copy()
    kernel(penalty, x, *args, out)
    return out.astype(np.float64)


def score_all(state, rule, L):
    """Return the score of each unknown by a rule with constants L, float64 (N,)."""
    return rule(state.problem.kernels, state.penalty, state.x, state.gradient(), L)


def block_lipschitz(state, blocks):
    """Return an upper bound of the largest eigenvalue of each block's Hessian, float64.

    Of blocks of more than 512 unknowns it is the lesser of trace and largest absolute row sum.
    """
    xp, L = state.problem.xp, state.lipschitz
    if blocks.number == blocks.idx.size:
        return L[blocks.idx]
    out, other = np.empty(blocks.number), _bystander(state)
    large = np.diff(blocks.ptr) > DENSE
    for b in np.flatnonzero(~large):
        out[b] = largest_eigenvalue(hessian_bound(other, blocks[b]), state.problem.be)
    if large.any():
        sums, trace = absolute_block_sums(state, blocks), _per_block(state, blocks, L)
        for b in np.flatnonzero(large):
            out[b] = state.problem.be.host(xp.minimum(sums[blocks[b]].max(), trace[b]))
    return xp.asarray(out)


def block_diagonal(state, blocks):
    """Return a diagonal D, float64 (N,), with ``diag(D_b)`` above the Hessian of each block b.

    For each block that of two which promises more: its size times the Lipschitz constants (by
    Cauchy and Schwarz), or the absolute sums of the rows of its Hessian (diagonal dominance).
    """
    problem, xp, L = state.problem, state.problem.xp, state.lipschitz
    if blocks.number == blocks.idx.size:
        return L
    owner, sizes = owners(problem, blocks), xp.asarray(np.diff(blocks.ptr))
    first, second = sizes[owner] * L, absolute_block_sums(state, blocks)
    promise = [_per_block(state, blocks, inverse(xp, D)) for D in (first, second)]
    return xp.where((promise[0] >= promise[1])[owner], first, second)


def variable_diagonal(state, size):
    """Return a diagonal D above the Hessian of any `size` unknowns; see `block_diagonal`."""
    first = size * state.lipschitz
    if size == 1:
        return state.lipschitz
    if not state.problem.quadratic:
        # The sums would cost as much as the Gram matrix.
        return first
    xp, second = state.problem.xp, absolute_sums(state.problem)
    one, two = (inverse(xp, D).sum() for D in (first, second))
    return xp.where(one >= two, first, second)


def owners(problem, blocks):
    """Return the number of the block of each unknown."""
    owner = problem.xp.empty(problem.size, np.int64)
    owner[blocks.idx] = problem.xp.asarray(
        np.repeat(np.arange(blocks.number), np.diff(blocks.ptr))
    )
    return owner


def absolute_block_sums(state, blocks):
    """Return the sums of absolute values of the rows of each block's Hessian, float64 (N,)."""
    problem, xp = state.problem, state.problem.xp
    if problem.quadratic and problem.sparse:
        A, owner = problem.A, owners(problem, blocks)
        row = xp.repeat(xp.arange(problem.size), xp.diff(A.indptr))
        inside = owner[row] == owner[A.indices]
        weights = (abs(A.data) * inside).astype(np.float64)
        return xp.bincount(row, weights, minlength=problem.size)
    out, other = xp.empty(problem.size), _bystander(state)
    for b in range(blocks.number):
        out[blocks[b]] = abs(hessian_bound(other, blocks[b])).sum(axis=1)
    return out


def whiten(state, blocks):
    """Return inverse Cholesky factors of the blocks' Hessians, by size of block.

    Returns
    -------
    list of (array of int64 (k,), array of int64 (k, size), array (k, size, size))
        Numbers of blocks, their unknowns and factors.
    """
    problem, xp = state.problem, state.problem.xp
    sizes, batches, other = np.diff(blocks.ptr), [], _bystander(state)
    for size in np.unique(sizes):
        numbers = np.flatnonzero(sizes == size)
        members = xp.stack([blocks[b] for b in numbers])
        H = xp.stack([smooth_bound(other, idx) for idx in members])
        identity = xp.broadcast_to(xp.eye(int(size)), H.shape)
        factor = xp.linalg.solve(_factor(problem, H), identity)
        batches.append((xp.asarray(numbers), members, factor))
    return batches


def _factor(problem, H):
    """Return Cholesky factors of a stack of matrices, regularised where it must be."""
    xp, size = problem.xp, H.shape[-1]
    scale = xp.trace(H, axis1=1, axis2=2) / size
    ridge = (1e-12 if problem.dtype == np.float64 else 1e-6) * xp.where(scale > 0, scale, 1.0)
    for _ in range(4):
        try:
            return problem.be.cholesky(H + ridge[:, None, None] * xp.eye(size))
        except np.linalg.LinAlgError:
            ridge = 100.0 * ridge
    # Not even rounding explains that it is indefinite: the diagonal that is surely above it.
    return xp.sqrt(abs(H).sum(axis=2) + ridge[:, None])[:, :, None] * xp.eye(size)


def gradient(state):
    """Return the gradient of a smooth problem, squares that are penalised included, float64."""
    return state.gradient().astype(np.float64) + state.penalty.ridge * state.x


def hessian_bound(state, block):
    """Return what is never below the Hessian of a block, float64."""
    return state.bound(block).astype(np.float64)


def _bystander(state):
    """Return a state to ask for all blocks' Hessians: that of a run would keep what it learns."""
    from .._state import open_state

    if state.problem.quadratic:
        return state
    return open_state(state.problem, state.x, state.c)


def smooth_bound(state, block):
    """Return the same for a smooth problem, squares that are penalised included."""
    ridge = state.penalty.ridge[block].astype(np.float64)
    return hessian_bound(state, block) + state.problem.xp.diag(ridge)


def _per_block(state, blocks, values):
    kernels = state.problem.be.kernels("solvers.bcd", "select")
    out = state.problem.xp.empty(blocks.number)
    kernels.block_sums(values, state.problem.xp.asarray(blocks.ptr), blocks.idx, out)
    return out


def inverse(xp, D):
    return xp.where(D > 0, 1.0 / xp.where(D > 0, D, 1.0), 0.0)


def hessian_product(state):
    """Return a function that multiplies the bound of the Hessian with a vector (N,)."""
    problem = state.problem
    if problem.quadratic:
        return lambda v: (problem.A @ v.astype(problem.dtype)).astype(np.float64)
    bend = losses.CURVATURE[type(problem.loss)]

    def product(v):
        Z = problem.design.dot(v.astype(problem.dtype).reshape(problem.shape))
        if problem.multinomial:
            Z = 2.0 * (Z - Z.mean(axis=1, keepdims=True))
            out = problem.design.rdot(problem.s[:, None] * Z)
        else:
            if problem.fit_intercept and isinstance(problem.loss, losses.Squared):
                # The intercept follows at once.
                Z = Z - (problem.s @ Z) / problem.s.sum()
            out = problem.design.rdot(problem.s * Z)
        state.npass += 2.0
        return bend * out.reshape(-1).astype(np.float64)

    return product
