"""Numba kernels of the network simplex method; there are no CUDA twins, for it cannot be shared.

A basis is a spanning tree over sources (nodes ``0 .. n - 1``) and targets (``n .. n + m - 1``),
held in four arrays of links between nodes (`parent`, first `child`, `after` and `before` among
siblings), the `edge` to the parent with its `flow`, and `depth`. Edges run from sources to
targets, so the kind of a node tells the direction of the edge to its parent: up for a source,
down for a target.

Costs have two parts that compare like words: `big` counts forbidden edges, `cost` is a number.
So the first phase of the method needs no large constant, and no phase of its own.
"""

import numpy as np

from ...._core.kernels.jit import kernel

# Edges compared before the best of them enters: about those of one point.
_BLOCK = 32


@kernel()
def greedy(tail, head, a, b, flow):
    """Ship as much as possible over each edge in the order given; `a` and `b` keep what is left.

    A unit that has nothing left is passed over, so the edges used make a forest.
    """
    for k in range(tail.size):
        i, j = tail[k], head[k]
        x = min(a[i], b[j])
        if x > 0.0:
            flow[k] = x
            a[i] -= x
            b[j] -= x


@kernel()
def corner(a, b, tail, head, flow):
    """Ship what is left by the north-west corner rule; return the number of edges used.

    Leaves nothing but what rounding makes of equal sums.
    """
    i, j, count = 0, 0, 0
    while i < a.size and j < b.size:
        x = min(a[i], b[j])
        if x > 0.0:
            tail[count], head[count], flow[count] = i, j, x
            count += 1
            a[i] -= x
            b[j] -= x
        if a[i] <= 0.0:
            i += 1
        else:
            j += 1
    return count


@kernel()
def _attach(v, p, parent, child, after, before):
    parent[v], before[v], after[v] = p, -1, child[p]
    if child[p] >= 0:
        before[child[p]] = v
    child[p] = v


@kernel()
def _detach(v, parent, child, after, before):
    if before[v] >= 0:
        after[before[v]] = after[v]
    else:
        child[parent[v]] = after[v]
    if after[v] >= 0:
        before[after[v]] = before[v]
    parent[v] = -1


@kernel()
def _reroot(v, parent, child, after, before, edge, flow):
    """Turn the tree of `v` around, so that `v` is its root."""
    p, e, x = parent[v], edge[v], flow[v]
    if p >= 0:
        _detach(v, parent, child, after, before)
    while p >= 0:
        q, e2, x2 = parent[p], edge[p], flow[p]
        if q >= 0:
            _detach(p, parent, child, after, before)
        _attach(p, v, parent, child, after, before)
        edge[p], flow[p] = e, x
        v, p, e, x = p, q, e2, x2


@kernel()
def _shift(v, n, depth0, cost_step, big_step, parent, child, after, depth, pot, big):
    """Move the potentials of a whole subtree, plus at sources, minus at targets; set depths."""
    top = v
    depth[v] = depth0
    while True:
        if v < n:
            pot[v] += cost_step
            big[v] += big_step
        else:
            pot[v] -= cost_step
            big[v] -= big_step
        if child[v] >= 0:
            depth[child[v]] = depth[v] + 1
            v = child[v]
            continue
        while v != top and after[v] < 0:
            v = parent[v]
        if v == top:
            return
        depth[after[v]] = depth[v]
        v = after[v]


@kernel()
def plant(n, tail, head, shipped, parent, child, after, before, edge, flow):
    """Hang the edges that ship something into a forest; return a root for each node's tree.

    The edges must not contain a cycle.
    """
    size = parent.size
    parent[:] = -1
    child[:] = -1
    after[:] = -1
    before[:] = -1
    edge[:] = -1
    flow[:] = 0.0
    weight = np.ones(size, np.int64)
    for k in range(tail.size):
        if shipped[k] > 0.0:
            u, v = tail[k], n + head[k]
            ru, rv = u, v
            while parent[ru] >= 0:
                ru = parent[ru]
            while parent[rv] >= 0:
                rv = parent[rv]
            if weight[ru] > weight[rv]:
                u, v, ru, rv = v, u, rv, ru
            # The smaller tree is turned around and hung below the larger one.
            weight[rv] += weight[ru]
            _reroot(u, parent, child, after, before, edge, flow)
            _attach(u, v, parent, child, after, before)
            edge[u], flow[u] = k, shipped[k]


@kernel()
def join(n, b, parent, child, after, before, edge, flow, first, tail, head):
    """Link the trees of a forest into one by edges without flow; return root and their number.

    Each points towards the root, so that the tree can send something from everywhere to its root
    ("strongly feasible"), which keeps degenerate pivots from going round in circles. The links
    are numbered from `first` on.
    """
    root = n
    for v in range(n, parent.size):
        if child[v] >= 0 or parent[v] >= 0:
            root = v
            break
    _reroot(root, parent, child, after, before, edge, flow)
    count = 0
    for v in range(parent.size):
        if parent[v] >= 0 or v == root or (v >= n and child[v] < 0):
            continue
        source = v
        if v >= n:
            source = child[v]
            _reroot(source, parent, child, after, before, edge, flow)
        _attach(source, root, parent, child, after, before)
        edge[source], flow[source] = first + count, 0.0
        tail[count], head[count] = source, root - n
        count += 1
    for v in range(n, parent.size):
        if parent[v] < 0 and v != root:
            # Its weight is so small that rounding has left nothing for it: it gets some now.
            _attach(v, 0, parent, child, after, before)
            edge[v], flow[v] = first + count, b[v - n]
            tail[count], head[count] = 0, v - n
            count += 1
    return root, count


@kernel()
def settle(root, n, parent, child, after, edge, cost, forbidden, depth, pot, big):
    """Compute potentials with ``cost = pot_i + pot_j`` on all edges of the tree, and depths."""
    v = root
    depth[v] = 0
    pot[v] = 0.0
    big[v] = 0
    while True:
        if child[v] >= 0:
            v = child[v]
        else:
            while v != root and after[v] < 0:
                v = parent[v]
            if v == root:
                return
            v = after[v]
        p, e = parent[v], edge[v]
        depth[v] = depth[p] + 1
        pot[v] = cost[e] - pot[p]
        big[v] = forbidden[e] - big[p]


@kernel()
def balance(root, n, parent, child, after, supply, flow):
    """Compute the flows from what each node has to give (sources) or wants (targets, negative)."""
    v = root
    excess = supply.copy()
    while child[v] >= 0:
        v = child[v]
    while v != root:
        flow[v] = excess[v] if v < n else -excess[v]
        excess[parent[v]] += excess[v]
        if after[v] >= 0:
            v = after[v]
            while child[v] >= 0:
                v = child[v]
        else:
            v = parent[v]


@kernel()
def pivots(
    n, tail, head, cost, forbidden, tol, most, start,
    parent, child, after, before, edge, flow, depth, pot, big,
):  # fmt: skip
    """Make up to `most` pivots of the network simplex method on the given edges.

    Searches in blocks, from edge `start` on, for the edge whose reduced cost is lowest.

    Returns
    -------
    int, int
        Pivots made, less than `most` if no edge is left to enter, and where to go on searching.
    """
    size = tail.size
    k, made = start, 0
    while made < most:
        best, best_big, best_cost = -1, 0, -tol
        seen, left = 0, _BLOCK
        while seen < size:
            k = k + 1 if k + 1 < size else 0
            i, j = tail[k], n + head[k]
            q = forbidden[k] - big[i] - big[j]
            if q < best_big:
                best, best_big, best_cost = k, q, cost[k] - pot[i] - pot[j]
            elif q == best_big:
                r = cost[k] - pot[i] - pot[j]
                if r < best_cost:
                    best, best_cost = k, r
            seen += 1
            left -= 1
            if left == 0:
                if best >= 0:
                    break
                left = _BLOCK
        if best < 0:
            break
        _pivot(
            best, n, tail[best], n + head[best], best_cost, best_big,
            parent, child, after, before, edge, flow, depth, pot, big,
        )  # fmt: skip
        made += 1
    return made, k


@kernel()
def _pivot(
    k, n, i, j, reduced, reduced_big,
    parent, child, after, before, edge, flow, depth, pot, big,
):  # fmt: skip
    """Let edge `k` from `i` to `j` enter the tree, and the last edge that blocks it leave."""
    # Flow runs i -> j -> ... -> apex -> ... -> i; edges against that direction may block.
    u, v = i, j
    step, out, below_i = np.inf, -1, True
    while u != v:
        if depth[u] > depth[v]:
            # Strict here but not below: of several that block, the last along the cycle leaves.
            if u < n and flow[u] < step:
                step, out, below_i = flow[u], u, True
            u = parent[u]
        else:
            if v >= n and flow[v] <= step:
                step, out, below_i = flow[v], v, False
            v = parent[v]
    apex = u
    if step > 0.0:
        u = i
        while u != apex:
            flow[u] += -step if u < n else step
            u = parent[u]
        v = j
        while v != apex:
            flow[v] += step if v < n else -step
            v = parent[v]
    # Cut below the leaving edge, and hang the part cut off at the entering one.
    inner, outer = (i, j) if below_i else (j, i)
    p, e, x = parent[inner], edge[inner], flow[inner]
    v = inner
    end = parent[out]
    _detach(v, parent, child, after, before)
    while p != end:
        q, e2, x2 = parent[p], edge[p], flow[p]
        _detach(p, parent, child, after, before)
        _attach(p, v, parent, child, after, before)
        edge[p], flow[p] = e, x
        v, p, e, x = p, q, e2, x2
    _attach(inner, outer, parent, child, after, before)
    edge[inner], flow[inner] = k, step
    sign = 1.0 if inner < n else -1.0
    bigs = reduced_big if inner < n else -reduced_big
    _shift(
        inner, n, depth[outer] + 1, sign * reduced, bigs,
        parent, child, after, depth, pot, big,
    )  # fmt: skip
