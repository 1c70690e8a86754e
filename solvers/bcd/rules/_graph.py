"""Partitions of a quadratic's unknowns by the graph of its matrix, and exact solves on forests."""

import numpy as np

from . import _forest
from ._register import Blocks, register_partition, register_update

# Rounding of a gradient that was added up along a tree, in units of terms times nodes.
_ROUNDING = 16.0


class UnboundedError(ArithmeticError):
    """The objective falls for ever along some direction of a block."""


def redblack(problem, size, rng, *, order="lipschitz", lattice=None):
    """Return blocks of unknowns that no entry of A couples, by greedy colouring.

    Parameters
    ----------
    problem : Quadratic
    size, rng : object
        Unused; every partition takes them.
    order : {"lipschitz", "natural"}
        Whether unknowns are coloured by descending diagonal of A or as they come.
    lattice : (int, int), optional
        Rows and columns of the lattice that A's graph is; found by itself where A has all of
        a lattice's edges. A lattice gets a checkerboard.
    """
    graph = _forest.graph_of(problem.be, problem.A)
    shape = lattice or _forest.lattice_of(graph)
    if shape:
        colours = _forest.checkerboard(*shape, xp=problem.xp)
    else:
        colours = _forest.colours(graph, _order(problem, order))
    sizes = problem.be.host(problem.xp.bincount(colours))
    return Blocks(np.cumsum([0, *sizes]), problem.xp.argsort(colours, kind="stable"))


def tree(problem, size, rng, *, order="lipschitz", lattice=None):
    """Return blocks of unknowns on which A's graph is a forest; see `redblack`."""
    graph = _forest.graph_of(problem.be, problem.A)
    shape = lattice or _forest.lattice_of(graph)
    if shape:
        blocks = _forest.combs(*shape, xp=problem.xp)
    else:
        blocks = _forest.tree_blocks(graph, _order(problem, order))
    found = _forest.arrange(graph, blocks.astype(np.int64))
    return Blocks(problem.be.host(found.ptr), found.order.astype(np.int64))


def growing(problem):
    """Return a function that makes the unknowns with the best scores a forest."""
    graph = _forest.graph_of(problem.be, problem.A)
    return lambda scores: problem.xp.flatnonzero(_forest.sorted_forest(graph, scores) == 0)


def message_passing(state, options):
    """Return ``step(number, block)``, which minimises over a block whose graph is a forest."""
    problem, be, xp = state.problem, state.problem.be, state.problem.xp
    graph = _forest.graph_of(be, problem.A)
    diagonal, fixed = problem.lipschitz, {}

    def prepared(number, block):
        if number in fixed:
            return fixed[number]
        chosen = xp.full(problem.size, -1, np.int64)
        chosen[block] = 0
        trees = _forest.arrange(graph, chosen)
        pivots, factors = diagonal[trees.order], xp.empty(trees.order.size)
        weight = _forest.edge_weights(trees, problem.A)
        sound = graph.kernels.factor_forest(trees.levels, trees.up, weight, pivots, factors)
        if not be.host(sound):
            raise UnboundedError("`A` has a negative eigenvalue")
        if number is not None:
            fixed[number] = trees, pivots, factors
        return trees, pivots, factors

    def step(number, block):
        trees, pivots, factors = prepared(number, block)
        nodes = trees.order
        h = -state.partial(nodes).astype(np.float64)
        d = h[:, None].copy()
        left = graph.kernels.solve_forest(trees.levels, trees.up, pivots, factors, d)
        noise = abs(h) + 2.0 * diagonal[nodes] * abs(state.x[nodes]) + abs(problem.b[nodes])
        left, noise = be.host(xp.asarray(left), noise.sum())
        if left > _ROUNDING * nodes.size * np.finfo(problem.dtype).eps * noise:
            raise UnboundedError("`A` is singular and `b` is not in its range")
        d = d[:, 0]
        state.move(state.line(nodes, d))
        return 0.5 * float(be.host(h @ d))

    return step


def _order(problem, order):
    """Return the unknowns by descending diagonal of A, equal ones as they come; or all as is."""
    if order == "natural":
        return problem.xp.arange(problem.size)
    return problem.xp.argsort(-problem.lipschitz, kind="stable")


register_partition(
    "redblack",
    redblack,
    graph=True,
    forest=True,
    about="Colours of a greedy colouring of A's graph, a checkerboard on lattices.",
)
register_partition(
    "tree",
    tree,
    graph=True,
    forest=True,
    about="Greedy forests in A's graph, two combs on lattices.",
)


register_partition(
    "forest_variable",
    None,
    graph=True,
    forest=True,
    variable=True,
    grow=growing,
    about="A new forest at each step, of the unknowns with the best scores.",
)
register_update(
    "tree",
    message_passing,
    composite=False,
    forest=True,
    about="Exact minimisation over a forest by message passing, in time linear in its size.",
)
