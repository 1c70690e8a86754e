"""Vertices of the polytope of plans, improved by the network simplex method; on the host."""

import numpy as np

from .._core.backend import get_backend

# Reduced costs above this fraction of the largest potential are what rounding makes of zero.
ROUNDING = 1e-13
# Pivots between two looks at the clock, and the most there may be for each point.
CHUNK, PATIENCE = 20_000, 2_000


class Basis:
    """A spanning tree of edges, with the plan and the potentials that belong to it.

    Parameters
    ----------
    a, b : numpy.ndarray
        Positive weights.
    tail, head : numpy.ndarray
        Edges to begin with, the most promising first.
    cost_of : callable
        Returns the costs of edges ``(tail, head)``; infinite where an edge is forbidden.

    Attributes
    ----------
    pivots : int
        How often the tree has changed.

    Notes
    -----
    Begins with what a greedy choice in the order of the edges gives, and ships what is left by
    the north-west corner rule. Forbidden edges may be among those; they are the first to leave.
    """

    def __init__(self, a, b, tail, head, cost_of):
        self._a, self._b = a, b
        n, nodes = a.size, a.size + b.size
        self._kernels = kernels = get_backend("numpy").kernels("solvers.ot", "simplex")
        shipped, left_a, left_b = np.zeros(tail.size), a.copy(), b.copy()
        kernels.greedy(tail, head, left_a, left_b, shipped)
        more_tail, more_head = np.empty((2, nodes), np.int64)
        more_shipped = np.empty(nodes)
        count = kernels.corner(left_a, left_b, more_tail, more_head, more_shipped)
        tail = np.concatenate([tail, more_tail[:count]])
        head = np.concatenate([head, more_head[:count]])
        shipped = np.concatenate([shipped, more_shipped[:count]])
        links = [np.empty(nodes, np.int64) for _ in range(5)]
        self._links, self._edge = links[:4], links[4]
        self._flow, self._pot = np.zeros(nodes), np.zeros(nodes)
        self._depth, self._big = np.zeros((2, nodes), np.int64)
        tree = *self._links, self._edge, self._flow
        kernels.plant(n, tail, head, shipped, *tree)
        self._root, count = kernels.join(n, b, *tree, tail.size, more_tail, more_head)
        self._tail = np.concatenate([tail, more_tail[:count]])
        self._head = np.concatenate([head, more_head[:count]])
        cost = cost_of(self._tail, self._head)
        self._forbidden = (cost == np.inf).astype(np.int64)
        self._cost = np.where(self._forbidden, 0.0, cost)
        self._next, self.pivots = 0, 0
        self._settle()

    def add(self, tail, head, cost):
        """Allow more edges, of finite cost, to enter the tree."""
        self._tail = np.concatenate([self._tail, tail])
        self._head = np.concatenate([self._head, head])
        self._cost = np.concatenate([self._cost, cost])
        self._forbidden = np.concatenate([self._forbidden, np.zeros(tail.size, np.int64)])

    def improve(self, late):
        """Pivot until no known edge lowers the cost.

        Parameters
        ----------
        late : callable
            Tells whether time is up.

        Returns
        -------
        bool
            Whether that was reached.
        """
        made = left = PATIENCE * self._flow.size
        while made and left > 0:
            made, tol = 0, self.tolerance
            while left > 0:
                count, self._next = self._kernels.pivots(
                    self._a.size, self._tail, self._head, self._cost, self._forbidden,
                    tol, CHUNK, self._next, *self._links, self._edge, self._flow, self._depth,
                    self._pot, self._big,
                )  # fmt: skip
                made, left = made + count, left - count
                self.pivots += count
                if count < CHUNK:
                    break
                if late():
                    self._settle()
                    return False
            # Freed from what rounding has added up, potentials may show some more to do.
            self._settle()
        return made == 0

    @property
    def tolerance(self):
        """Below what a reduced cost is no more than rounding."""
        return ROUNDING * float(np.abs(self._pot).max())

    def potentials(self):
        """Return row and column potentials with ``f_i + g_j = C_ij`` on the tree."""
        far = 4.0 * np.abs(self._pot).max() + np.abs(self._cost).max()
        pot = self._pot + far * self._big
        return pot[: self._a.size], pot[self._a.size :]

    def plan(self):
        """Return the edges in use, without forbidden ones, as (tail, head, mass)."""
        used = self._used()
        used = used[self._forbidden[self._edge[used]] == 0]
        edge = self._edge[used]
        return self._tail[edge], self._head[edge], self._flow[used]

    @property
    def cost(self):
        """Cost of the plan, without what forbidden edges carry."""
        used = self._used()
        return float(self._flow[used] @ self._cost[self._edge[used]])

    @property
    def forbidden(self):
        """Mass on forbidden edges."""
        used = self._used()
        return float(self._flow[used] @ self._forbidden[self._edge[used]])

    def _used(self):
        return np.flatnonzero(self._flow > 0.0)

    def _settle(self):
        """Compute the flows and the potentials of the tree from scratch."""
        parent, child, after, _ = self._links
        n = self._a.size
        supply = np.concatenate([self._a, -self._b])
        self._kernels.balance(self._root, n, parent, child, after, supply, self._flow)
        self._flow[self._root] = 0.0
        np.maximum(self._flow, 0.0, out=self._flow)
        self._kernels.settle(
            self._root, n, parent, child, after, self._edge, self._cost, self._forbidden,
            self._depth, self._pot, self._big,
        )  # fmt: skip
