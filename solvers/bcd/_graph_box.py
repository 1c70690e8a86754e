"""How `label_propagation` solves its systems within bounds: projected sweeps and faces.

Each turn sweeps over the unknowns one by one, and then takes a step on the free ones, those that
no bound holds: exact on them, and cut off where it leaves the bounds.
"""

from functools import partial

import numpy as np

from . import _graph_methods as methods
from .rules import _forest


def bounded(problem, watch, x, step):
    """Minimise within bounds; ``step(problem, watch, x, g)`` returns a step d (m, C).

    Parameters
    ----------
    problem : Propagation
    watch : PropagationWatch
    x : array, shape (m, C)
        Start.
    step : callable or None
        None: sweeps only.
    """
    xp, A, (lo, hi) = problem.xp, problem.A, problem.bounds
    colours = methods.colours(problem)
    order = xp.argsort(colours, kind="stable").astype(np.int32)
    ends = xp.concatenate([xp.zeros(1, np.int64), xp.cumsum(xp.bincount(colours))])
    x, graph = x.copy(), problem.graph
    for _ in watch.run:
        graph.kernels.projected_sweep(
            graph.ptr, graph.idx, A.data, problem.diagonal, problem.b, lo, hi, ends, order, x
        )
        g = problem.product(x) - problem.b
        if step is not None:
            x, g = _projected(problem, x, g, step(problem, watch, x, g))
        if watch.record(x, -g, blocks=1):
            break
    return x


def _free(problem, x, g):
    """Return which unknowns no bound holds: within, or at a bound that the objective leaves."""
    lo, hi = problem.bounds
    return ~(((x <= lo) & (g >= 0)) | ((x >= hi) & (g <= 0)))


def _projected(problem, x, g, d):
    """Take the step d, cut off at the bounds, or only as far as the first bound."""
    xp, (lo, hi) = problem.xp, problem.bounds
    s = xp.clip(x + d, lo, hi) - x
    As = problem.product(s)
    slope = xp.einsum("ij,ij->j", s, g)
    better = slope + 0.5 * xp.einsum("ij,ij->j", s, As) <= 1e-4 * slope
    if not problem.be.host(better.all()):
        room = xp.where(d > 0, (hi - x) / d, xp.where(d < 0, (lo - x) / d, xp.inf))
        length = xp.minimum(xp.maximum(room.min(axis=0), 0), 1)
        s = xp.where(better, s, length * d)
        As = problem.product(s)
    return xp.clip(x + s, lo, hi), g + As


def on_face(problem, watch, x, g):
    """Minimise over the free unknowns by conjugate gradients."""
    xp, inverse = problem.xp, 1.0 / problem.diagonal[:, None]
    free = _free(problem, x, g)
    goal = max(0.1 * watch.tol * watch.scale, 1e-3 * float(problem.be.host(abs(g * free).max())))
    d, r = xp.zeros_like(x), xp.where(free, -g, 0)
    p, rho = xp.zeros_like(x), xp.ones(x.shape[1], x.dtype)
    for _ in range(10 * x.shape[0]):
        if problem.be.host(abs(r).max()) <= goal or watch.run.late:
            break
        z = inverse * r
        rho, before = xp.einsum("ij,ij->j", r, z), rho
        p *= rho / xp.where(before > 0, before, 1)
        p += z
        Ap = xp.where(free, problem.product(p), 0)
        bend = xp.einsum("ij,ij->j", p, Ap)
        step = xp.where(bend > 0, rho / xp.where(bend > 0, bend, 1), 0)
        d += step * p
        r -= step * Ap
    watch.books.n_newton += 1
    return d


def on_face_directly(problem, watch, x, g):
    """Minimise over the free unknowns by a factorisation for each column."""
    xp, d = problem.xp, problem.xp.zeros_like(x)
    for c in range(x.shape[1]):
        free = xp.flatnonzero(_free(problem, x, g)[:, c])
        if free.size:
            solve = methods.factorised(problem.be, problem.A[free][:, free])
            d[free, c] = solve(-g[free, c])
    watch.books.n_newton += 1
    return d


def on_trees(problem, watch, x, g, *, forest):
    """Minimise over the free unknowns of a forest by message passing, column by column."""
    xp, graph = problem.xp, problem.graph
    free, d = _free(problem, x, g), xp.zeros_like(x)
    trees = forest(watch, xp.where(free, g, 0))
    nodes = trees.order
    above = xp.maximum(trees.up, 0)
    for c in range(x.shape[1]):
        here = free[nodes, c]
        # Edges to an unknown that a bound holds are cut.
        weight = xp.where(here & here[above], _forest.edge_weights(trees, problem.A), 0)
        pivots, factors = problem.diagonal[nodes].astype(np.float64), xp.empty(nodes.size)
        graph.kernels.factor_forest(trees.levels, trees.up, weight, pivots, factors)
        h = xp.where(here, -g[nodes, c], 0)[:, None]
        graph.kernels.solve_forest(trees.levels, trees.up, pivots, factors, h)
        d[nodes, c] = h[:, 0]
    return d


def by_trees(problem, watch, x):
    """Take the blocks of a tree partition in turn."""
    watch.used.update(partition="tree", selection="cyclic", update="tree")
    graph, blocks = problem.graph, methods.tree_blocks(problem)
    number = int(problem.be.host(blocks.max())) + 1
    forests = [_forest.arrange(graph, problem.xp.where(blocks == b, 0, -1)) for b in range(number)]
    step = partial(on_trees, forest=lambda watch, g: forests[watch.run.nit % number])
    return bounded(problem, watch, x, step)


def by_greedy_forests(problem, watch, x):
    """Take the forest of the free unknowns with the largest gradients."""
    watch.used.update(partition="forest_variable", selection="gsl", update="tree")
    scale = 1.0 / problem.xp.sqrt(problem.diagonal)

    def forest(watch, g):
        chosen = _forest.sorted_forest(problem.graph, abs(g).max(axis=1) * scale)
        return _forest.arrange(problem.graph, chosen)

    return bounded(problem, watch, x, partial(on_trees, forest=forest))


def by_colours(problem, watch, x):
    """Take colours in turn."""
    watch.used.update(partition="redblack", selection="cyclic", update="exact")
    return bounded(problem, watch, x, None)


def by_faces(problem, watch, x, *, step=on_face):
    """Take sweeps, and steps on all free unknowns."""
    watch.used.update(partition="variable", update="two_metric")
    return bounded(problem, watch, x, step)


BOUNDED = {
    "auto": by_faces,
    "tree": by_trees,
    "redblack": by_colours,
    "forest_variable": by_greedy_forests,
    "cg": by_faces,
    "cholesky": partial(by_faces, step=on_face_directly),
}
