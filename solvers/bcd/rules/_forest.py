"""The graph of a symmetric matrix: its colours, its forests, and where it is a lattice."""

from typing import Any, NamedTuple

import numpy as np


class Graph(NamedTuple):
    """Adjacency in compressed rows; entries on the diagonal count for nothing.

    Attributes
    ----------
    be : Backend
    ptr : array of int64, shape (N + 1,)
    idx : array of int32, shape (nnz,)
    """

    be: Any
    ptr: Any
    idx: Any

    @property
    def size(self):
        """Number of nodes."""
        return self.ptr.size - 1

    @property
    def kernels(self):
        """The kernels for these arrays."""
        return self.be.kernels("solvers.bcd", "graph")


class Forests(NamedTuple):
    """Blocks of nodes whose graphs are forests, stored for elimination.

    Attributes
    ----------
    ptr : array of int64, shape (blocks + 1,)
        Where blocks start in `order`.
    order : array of int32, shape (m,)
        The nodes, block by block, level by level from the roots.
    up, edge, levels, floors : array
        See `elimination_order` in the kernels.
    """

    ptr: Any
    order: Any
    up: Any
    edge: Any
    levels: Any
    floors: Any


def graph_of(be, A):
    """Return the graph of a symmetric sparse matrix in compressed rows."""
    return Graph(be, A.indptr.astype(np.int64), A.indices.astype(np.int32))


def colours(graph, order):
    """Return the colour of each node, by a greedy pass over the nodes in `order`."""
    found = graph.be.xp.full(graph.size, -1, np.int64)
    graph.kernels.colour(graph.ptr, graph.idx, order.astype(np.int32), found)
    return found


def tree_blocks(graph, order):
    """Return a block for each node such that blocks are forests, by a greedy pass in `order`."""
    found = graph.be.xp.full(graph.size, -1, np.int64)
    graph.kernels.forests(graph.ptr, graph.idx, order.astype(np.int32), found)
    return found


def sorted_forest(graph, scores):
    """Return 0 for the nodes of a forest, the best scores first, and -1 for the others."""
    xp = graph.be.xp
    order = xp.argsort(-scores, kind="stable").astype(np.int32)
    found = xp.full(graph.size, -1, np.int64)
    graph.kernels.greedy_forest(graph.ptr, graph.idx, order, found)
    return found


def arrange(graph, blocks):
    """Return the `Forests` of the nodes whose block is not -1."""
    be, xp = graph.be, graph.be.xp
    sizes = xp.bincount(blocks[blocks >= 0])
    number, m = sizes.size, int(be.host(sizes.sum()))
    order, up, edge = xp.empty(m, np.int32), xp.empty(m, np.int64), xp.empty(m, np.int64)
    levels, floors = xp.empty(m + number + 1, np.int64), xp.empty(number + 1, np.int64)
    graph.kernels.elimination_order(
        graph.ptr, graph.idx, blocks, number, order, up, edge, levels, floors
    )
    ptr = xp.concatenate([xp.zeros(1, np.int64), xp.cumsum(sizes)])
    return Forests(ptr, order, up, edge, levels[: int(be.host(floors[-1]))], floors)


def edge_weights(trees, A):
    """Return the entry of A between each stored node and its parent; roots get any number."""
    if A.nnz == 0:
        return trees.edge.astype(A.dtype)
    return A.data[trees.edge]


def lattice_of(graph):
    """Return (rows, columns) if the graph is a lattice numbered row by row, else None."""
    be, xp, N = graph.be, graph.be.xp, graph.size
    if graph.idx.size > 5 * N:
        return None
    rows = xp.repeat(xp.arange(N), xp.diff(graph.ptr))
    cols = graph.idx.astype(np.int64)
    jumps = xp.unique(be.xp.abs(cols - rows))
    jumps = be.host(jumps[jumps > 0])
    if len(jumps) not in (1, 2) or (len(jumps) == 2 and jumps[0] != 1):
        return None
    if len(jumps) == 1:
        shape = (1, N) if jumps[0] == 1 else None
        return shape if shape and int(be.host((cols != rows).sum())) == 2 * (N - 1) else None
    width = int(jumps[1])
    if N % width:
        return None
    height = N // width
    # Edges between the end of a row and the start of the next are no lattice's.
    wrapped = (cols == rows + 1) & (cols % width == 0)
    edges, wrapped = be.host((cols != rows).sum(), wrapped.any())
    whole = 2 * (height * (width - 1) + (height - 1) * width)
    return (height, width) if edges == whole and not wrapped else None


def checkerboard(height, width, *, xp=np):
    """Return the colour, 0 or 1, of each node of a lattice."""
    i, j = xp.divmod(xp.arange(height * width), width)
    return (i + j) % 2


def combs(height, width, *, xp=np):
    """Return the block, 0 or 1, of each node of a lattice, such that both blocks are trees.

    Block 0 is the first row with all even columns but their last nodes, block 1 the rest: two
    combs whose teeth interlock. A lattice of one row is one path.
    """
    i, j = xp.divmod(xp.arange(height * width), width)
    return xp.where((i == 0) | ((j % 2 == 0) & (i < height - 1)), 0, 1)
