"""Numba kernels on graphs; `gpu.py` launches their CUDA twins.

A graph is its adjacency in compressed rows, `ptr` (int64) and `idx` (int32), symmetric; entries
on the diagonal count for nothing. Trees are stored level by level, roots first, and without
recursion: a path may be as long as memory allows. The nodes of `levels[l]` to ``levels[l + 1]``
are one level; `up` is the place of a node's parent, which is in the level before, -1 for a root.
"""

from math import exp

import numpy as np
from numba import prange

from ...._core import threads
from ...._core.kernels.jit import EXACT, kernel


@kernel()
def colour(ptr, idx, order, colours):
    """Colour nodes in `order` such that neighbours differ; return how many colours that takes.

    A node gets the colour with the fewest members among those that none of its neighbours has,
    or a new one. `colours` comes in as -1.
    """
    used, members = 0, np.zeros(order.size + 1, np.int64)
    taken = np.full(order.size + 1, -1, np.int32)
    for v in order:
        for k in range(ptr[v], ptr[v + 1]):
            if idx[k] != v and colours[idx[k]] >= 0:
                taken[colours[idx[k]]] = v
        best = used
        for c in range(used):
            if taken[c] != v and (best == used or members[c] < members[best]):
                best = c
        used = max(used, best + 1)
        members[best] += 1
        colours[v] = best
    return used


@kernel()
def forests(ptr, idx, order, blocks):
    """Put each node, in `order`, into the first block that stays a forest; return their number.

    That is so unless two of its neighbours are in the same tree of the block. `blocks` comes in
    as -1.
    """
    used, tree = 0, np.arange(order.size, dtype=np.int32)
    met = np.full(order.size, -1, np.int32)
    closed = np.full(order.size + 1, -1, np.int32)
    for v in order:
        for k in range(ptr[v], ptr[v + 1]):
            u = idx[k]
            if u != v and blocks[u] >= 0:
                root = _root(tree, u)
                if met[root] == v:
                    closed[blocks[u]] = v
                met[root] = v
        best = 0
        while closed[best] == v:
            best += 1
        used = max(used, best + 1)
        blocks[v] = best
        _join(ptr, idx, blocks, tree, v)
    return used


@kernel()
def greedy_forest(ptr, idx, order, blocks):
    """Choose nodes in `order` while they make up a forest: block 0; the others stay at -1.

    Returns how many they are.
    """
    size, tree = 0, np.arange(ptr.size - 1, dtype=np.int32)
    met = np.full(ptr.size - 1, -1, np.int32)
    for v in order:
        allowed = True
        for k in range(ptr[v], ptr[v + 1]):
            u = idx[k]
            if u != v and blocks[u] == 0:
                root = _root(tree, u)
                if met[root] == v:
                    allowed = False
                    break
                met[root] = v
        if allowed:
            blocks[v] = 0
            size += 1
            _join(ptr, idx, blocks, tree, v)
    return size


@kernel()
def _root(tree, v):
    """Return the root of a node's set, and halve the way there."""
    while tree[v] != v:
        tree[v] = tree[tree[v]]
        v = tree[v]
    return v


@kernel()
def _join(ptr, idx, blocks, tree, v):
    """Unite a node with the trees of its neighbours in the same block."""
    for k in range(ptr[v], ptr[v + 1]):
        if idx[k] != v and blocks[idx[k]] == blocks[v]:
            tree[_root(tree, idx[k])] = v


@kernel()
def elimination_order(ptr, idx, blocks, number, order, up, edge, levels, floors):
    """Store the trees of each block level by level, breadth first, block after block.

    Parameters
    ----------
    blocks : array of int64, shape (N,)
        Block of each node; -1 for nodes that are left out.
    number : int
        How many blocks there are.
    order : array of int32, shape (m,)
        Receives the m nodes that are in blocks.
    up : array of int64, shape (m,)
        Receives the place in `order` of each node's parent, -1 for roots.
    edge : array of int64, shape (m,)
        Receives the entry of `idx` that leads from the parent to the node; 0 for roots.
    levels : array of int64, shape (m + number + 1,)
        Receives where levels start; those of block b are ``floors[b]`` to ``floors[b + 1] - 1``,
        with the end of the last.
    floors : array of int64, shape (number + 1,)
        See `levels`.
    """
    m, N = order.size, blocks.size
    queue, depth = np.empty(m, np.int32), np.full(N, -1, np.int64)
    above, way = np.empty(N, np.int32), np.zeros(N, np.int64)
    end, deepest = 0, 0
    for start in range(N):
        if blocks[start] < 0 or depth[start] >= 0:
            continue
        head, depth[start], above[start] = end, 0, -1
        queue[end] = start
        end += 1
        while head < end:
            v = queue[head]
            head += 1
            for k in range(ptr[v], ptr[v + 1]):
                u = idx[k]
                if u != v and blocks[u] == blocks[v] and depth[u] < 0:
                    depth[u], above[u], way[u] = depth[v] + 1, v, k
                    deepest = max(deepest, depth[u])
                    queue[end] = u
                    end += 1
    by_depth = np.empty(m, np.int32)
    _sort(queue, depth, deepest + 1, by_depth)
    _sort(by_depth, blocks, number, order)
    place = np.empty(N, np.int64)
    for p in range(m):
        place[order[p]] = p
    block, level, n = -1, -1, 0
    for p in range(m):
        v = order[p]
        while block < blocks[v]:
            if block >= 0:
                levels[n] = p
                n += 1
            block, level = block + 1, -1
            floors[block] = n
        if depth[v] != level:
            levels[n] = p
            n, level = n + 1, depth[v]
        up[p] = -1 if above[v] < 0 else place[above[v]]
        edge[p] = way[v]
    levels[n] = m
    floors[block + 1] = n + 1


@kernel()
def _sort(items, keys, number, out):
    """Sort items by their keys, 0 to `number` - 1; equal ones stay in order."""
    first = np.zeros(number + 1, np.int64)
    for v in items:
        first[keys[v] + 1] += 1
    for k in range(number):
        first[k + 1] += first[k]
    for v in items:
        out[first[keys[v]]] = v
        first[keys[v]] += 1


@kernel(fastmath=EXACT)
def factor_forest(levels, up, weight, pivots, factors):
    """Eliminate a forest's matrix from its leaves to its roots.

    Parameters
    ----------
    levels, up : array
        The forest; places count from ``levels[0]``.
    weight : array, shape (m,)
        Entry of the matrix between a node and its parent.
    pivots : array of float64, shape (m,)
        The diagonal; receives the pivots. Those of singular trees' roots become 0.
    factors : array of float64, shape (m,)
        Receives what multiplies a node's right-hand side when it is taken to its parent.

    Returns
    -------
    bool
        Whether no pivot was negative: whether the matrix is semi-definite.
    """
    base, sizes = levels[0], np.ones(up.size, np.int64)
    sound, eps = True, np.finfo(weight.dtype).eps
    diagonal = pivots.copy()
    for p in range(up.size - 1, -1, -1):
        if up[p] < 0:
            # Only a root's pivot can vanish; rounding leaves as much of it as the tree has nodes.
            noise = 4.0 * eps * sizes[p] * diagonal[p]
            sound = sound and pivots[p] >= -noise
            pivots[p] = 0.0 if pivots[p] <= noise else pivots[p]
            factors[p] = 0.0
            continue
        sound = sound and pivots[p] > 0.0
        u = up[p] - base
        factors[p] = weight[p] / pivots[p]
        pivots[u] -= factors[p] * weight[p]
        sizes[u] += sizes[p]
    return sound


@kernel(fastmath=EXACT)
def solve_forest(levels, up, pivots, factors, h):
    """Solve a factorised forest's system for each column of h (m, C), in place.

    Roots of singular trees receive 0; return the largest right-hand side that was left there.
    """
    base, C, left = levels[0], h.shape[1], 0.0
    for p in range(up.size - 1, -1, -1):
        if up[p] >= 0:
            for c in range(C):
                h[up[p] - base, c] -= factors[p] * h[p, c]
    for p in range(up.size):
        for c in range(C):
            if up[p] >= 0:
                h[p, c] = h[p, c] / pivots[p] - factors[p] * h[up[p] - base, c]
            elif pivots[p] > 0.0:
                h[p, c] /= pivots[p]
            else:
                left = max(left, abs(h[p, c]))
                h[p, c] = 0.0
    return left


@kernel()
def split_rows(ptr, idx, blocks, low, high):
    """Find where a row's entries in its own block begin and end; indices are sorted.

    `blocks` tells where blocks of rows start.
    """
    for b in range(blocks.size - 1):
        for p in range(blocks[b], blocks[b + 1]):
            low[p] = ptr[p]
            while low[p] < ptr[p + 1] and idx[low[p]] < blocks[b]:
                low[p] += 1
            high[p] = low[p]
            while high[p] < ptr[p + 1] and idx[high[p]] < blocks[b + 1]:
                high[p] += 1


@kernel(fastmath=EXACT)
def sweep_forests(rows, idx, val, low, high, trees, factors, z, work):
    """Solve with the symmetric block Gauss-Seidel splitting of a matrix, for each column of z.

    Parameters
    ----------
    rows, idx, val : array
        The matrix in compressed rows, in the order of `trees`.
    low, high : array of int64
        See `split_rows`.
    trees : tuple (ptr, levels, floors, up)
        As from `elimination_order`.
    factors : tuple (pivots, factors)
        As from `factor_forest`.
    z : array, shape (m, C)
        Right-hand side, then solution.
    work : array, shape (m, C)
        Room.
    """
    ptr, number, C = trees[0], trees[0].size - 1, z.shape[1]
    for b in range(number):
        for p in range(ptr[b], ptr[b + 1]):
            for k in range(rows[p], low[p]):
                for c in range(C):
                    z[p, c] -= val[k] * z[idx[k], c]
        _solve_block(trees, factors, b, z)
    for b in range(number - 2, -1, -1):
        for p in range(ptr[b], ptr[b + 1]):
            for c in range(C):
                work[p, c] = 0.0
            for k in range(high[p], rows[p + 1]):
                for c in range(C):
                    work[p, c] += val[k] * z[idx[k], c]
        _solve_block(trees, factors, b, work)
        for p in range(ptr[b], ptr[b + 1]):
            for c in range(C):
                z[p, c] -= work[p, c]


@kernel(inline=True)
def _solve_block(trees, factors, b, z):
    ptr, levels, floors, up = trees
    first, last = ptr[b], ptr[b + 1]
    pivots, down = factors
    solve_forest(
        levels[floors[b] : floors[b + 1]], up[first:last], pivots[first:last],
        down[first:last], z[first:last],
    )  # fmt: skip


def product(ptr, idx, val, X, out):
    """Set `out` to A X, for X (m, C) and A in compressed rows."""
    strips = threads.strips(val.size * X.shape[1])
    if strips == 1:
        _product_of_rows(0, X.shape[0], ptr, idx, val, X, out)
        return
    where = np.searchsorted(ptr, np.linspace(0, val.size, strips + 1))
    with threads.guard():
        _product_in_strips(np.minimum(where, X.shape[0]), ptr, idx, val, X, out)


@kernel(parallel=True)
def _product_in_strips(where, ptr, idx, val, X, out):
    for t in prange(where.size - 1):
        _product_of_rows(where[t], where[t + 1], ptr, idx, val, X, out)


@kernel(fastmath=EXACT)
def _product_of_rows(first, last, ptr, idx, val, X, out):
    C = X.shape[1]
    for i in range(first, last):
        if C == 1:
            total = 0.0
            for k in range(ptr[i], ptr[i + 1]):
                total += val[k] * X[idx[k], 0]
            out[i, 0] = total
            continue
        # All columns side by side: the graph is read once.
        for c in range(C):
            out[i, c] = 0.0
        for k in range(ptr[i], ptr[i + 1]):
            for c in range(C):
                out[i, c] += val[k] * X[idx[k], c]


@kernel(fastmath=EXACT)
def add_columns(ptr, idx, val, nodes, d, g):
    """Add ``A[:, nodes] d`` to g, for a symmetric A in compressed rows."""
    for p in range(nodes.size):
        for k in range(ptr[nodes[p]], ptr[nodes[p] + 1]):
            for c in range(d.shape[1]):
                g[idx[k], c] += val[k] * d[p, c]


@kernel(fastmath=EXACT)
def projected_sweep(ptr, idx, val, diagonal, b, lo, hi, colours, order, x):
    """Minimise ``x^T A x / 2 - b^T x`` over each unknown in turn, within bounds.

    Parameters
    ----------
    ptr, idx, val : array
        A in compressed rows.
    diagonal : array, shape (m,)
        Its diagonal.
    b : array, shape (m, C)
        Right-hand sides.
    lo, hi : float
        Bounds.
    colours : array of int64
        Where colours start in `order`; the unknowns of one are not coupled.
    order : array of int32, shape (m,)
        Unknowns, colour by colour.
    x : array, shape (m, C)
        The point, changed in place.
    """
    for t in range(colours.size - 1):
        for p in range(colours[t], colours[t + 1]):
            i = order[p]
            for c in range(x.shape[1]):
                g = -b[i, c]
                for k in range(ptr[i], ptr[i + 1]):
                    g += val[k] * x[idx[k], c]
                x[i, c] = min(max(x[i, c] - g / diagonal[i], lo), hi)


@kernel(fastmath=EXACT)
def assignment_sweep(ptr, idx, val, cost, lam, barrier, colours, order, Y):
    """Minimise over the assignment of each point in turn, the others fixed.

    That is the softmax of ``(lam * sum_q w_pq y_q - cost_p) / barrier``.

    Parameters
    ----------
    ptr, idx, val : array
        W in compressed rows, without a diagonal.
    cost : array, shape (N, K)
        Distances from the prototypes.
    lam, barrier : float
        Weights of the graph and of the entropy.
    colours, order : array
        Points to visit, colour by colour; see `projected_sweep`.
    Y : array, shape (N, K)
        Assignments, changed in place.
    """
    K = Y.shape[1]
    z = np.empty(K)
    for t in range(colours.size - 1):
        for p in range(colours[t], colours[t + 1]):
            i = order[p]
            for c in range(K):
                z[c] = -cost[i, c]
            for k in range(ptr[i], ptr[i + 1]):
                for c in range(K):
                    z[c] += lam * val[k] * Y[idx[k], c]
            top, total = z[0], 0.0
            for c in range(1, K):
                top = max(top, z[c])
            for c in range(K):
                z[c] = exp((z[c] - top) / barrier)
                total += z[c]
            for c in range(K):
                Y[i, c] = z[c] / total


@kernel()
def pair_up(ptr, idx, val, groups):
    """Group each node with the neighbour it is tied to most; return how many groups there are.

    Entries of `val` off the diagonal are minus the weights. `groups` comes in as -1.
    """
    number = 0
    for i in range(groups.size):
        if groups[i] >= 0:
            continue
        best, most, heaviest = -1, 0.0, 0.0
        for k in range(ptr[i], ptr[i + 1]):
            if idx[k] != i:
                heaviest = max(heaviest, -val[k])
                if groups[idx[k]] < 0 and -val[k] > most:
                    best, most = idx[k], -val[k]
        groups[i] = number
        # A weak tie is worse than none: it would make far values one.
        if best >= 0 and most >= 0.25 * heaviest:
            groups[best] = number
        number += 1
    return number
