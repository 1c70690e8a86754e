"""How `label_propagation` solves its systems: directly, by conjugate gradients, or by blocks.

Each solver takes (problem, watch, x) with a start x (m, C), and returns values (m, C).
"""

from importlib import import_module

import numpy as np

from ._multigrid import Hierarchy
from ._propagation import is_forest
from ._smoother import Smoother
from .rules import _forest

# Systems that are factorised: any small ones, and larger ones of planar density, whose factors
# stay sparse.
_SMALL, _PLANAR, _EDGES = 500, 20_000, 6
# Steps of conjugate gradients after which to look how it goes.
_PATIENCE = 60


def auto(problem, watch, x):
    """Eliminate where that is cheap: forests, small systems; else use conjugate gradients."""
    if is_forest(problem.graph):
        return by_trees(problem, watch, x)
    planar = problem.A.nnz <= _EDGES * problem.unknown.size
    if problem.unknown.size <= (_PLANAR if planar else _SMALL):
        return cholesky(problem, watch, x)
    return conjugate_gradients(problem, watch, x)


def cholesky(problem, watch, x):
    """Factorise the matrix; each turn refines what came before."""
    watch.used["update"] = "cholesky"
    solve = factorised(problem.be, problem.A)
    r = problem.b - problem.A @ x
    for _ in watch.run:
        x = x + solve(r)
        r = problem.b - problem.A @ x
        if watch.record(x, r):
            break
    return x


def factorised(be, A):
    """Return ``solve(b)`` for a symmetric, positive definite sparse matrix."""
    splu = import_module(f"{be.sparse.__name__}.linalg").splu
    # Without pivoting and with a symmetric ordering, LU has the fill of a Cholesky factor.
    factor = splu(
        A.astype(np.float64).tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    return lambda b: factor.solve(b.astype(np.float64)).astype(A.dtype)


def conjugate_gradients(problem, watch, x):
    """Conjugate gradients, preconditioned by the diagonal.

    Where labels are so far apart that it would take long, a hierarchy of ever smaller graphs
    takes its place.
    """
    watch.used["update"] = "cg"
    inverse = 1.0 / problem.diagonal[:, None]
    start = watch.value(problem.b - problem.product(x))

    def other(r):
        if not _slow(problem.be, start, watch.value(r), watch.tol):
            return None
        watch.used["update"] = "multigrid cg"
        return Hierarchy(problem, factorised).apply

    return _accelerated(problem, watch, x, lambda r: inverse * r, other)


def by_trees(problem, watch, x):
    """Sweep over blocks that are forests, each solved by message passing."""
    watch.used.update(partition="tree", selection="cyclic", update="tree")
    return _sweeps(problem, watch, x, tree_blocks(problem))


def by_colours(problem, watch, x):
    """Sweep over colours, whose unknowns are not coupled."""
    watch.used.update(partition="redblack", selection="cyclic", update="exact")
    return _sweeps(problem, watch, x, colours(problem))


def _sweeps(problem, watch, x, blocks):
    """Sweep forth and back over blocks, each time from where conjugate gradients lead."""
    smoother = Smoother(problem, blocks)
    return _accelerated(problem, watch, x, smoother.apply, blocks=2 * smoother.number - 1)


def _accelerated(problem, watch, x, precond, other=None, *, blocks=0):
    """Conjugate gradients, all columns side by side.

    Parameters
    ----------
    problem, watch, x : object
        See the module.
    precond : callable
        ``precond(r)`` returns an approximation of ``A^-1 r``.
    other : callable, optional
        Asked once, with the residual, whether it knows a better one.
    blocks : int
        Block updates in a call of `precond`.
    """
    xp = problem.xp
    x, r = x.copy(), problem.b - problem.product(x)
    p, Ap = xp.zeros_like(r), xp.zeros_like(r)
    rho = step = xp.ones(r.shape[1], r.dtype)
    for turn in watch.run:
        if turn == _PATIENCE and other is not None:
            better = other(r)
            if better is not None:
                precond = better
                p[...] = 0
        z = precond(r)
        # As much of the last direction as makes both conjugate, even if `precond` is not linear.
        p *= -step * xp.einsum("ij,ij->j", z, Ap) / xp.where(rho > 0, rho, 1)
        p += z
        rho = xp.einsum("ij,ij->j", r, z)
        Ap = problem.product(p)
        bend = xp.einsum("ij,ij->j", p, Ap)
        # A column that is solved stays where it is.
        step = xp.where(bend > 0, rho / xp.where(bend > 0, bend, 1), 0)
        x += step * p
        r -= step * Ap
        if watch.record(x, r, blocks=blocks):
            break
    return x


def _slow(be, first, now, tol):
    """Tell whether a residual that falls on as it did will take twice as long to be gone."""
    first, now = be.host(first, now)
    return now > tol and np.log(now / tol) > 2.0 * np.log(max(first / now, 1.0))


def by_greedy_forests(problem, watch, x):
    """Move the forest of the unknowns with the largest gradients, relative to their diagonals."""
    watch.used.update(partition="forest_variable", selection="gsl", update="tree")
    xp, A, graph = problem.xp, problem.A, problem.graph
    x, g = x.copy(), A @ x - problem.b
    scale = 1.0 / xp.sqrt(problem.diagonal)
    for turn in watch.run:
        chosen = _forest.sorted_forest(graph, abs(g).max(axis=1) * scale)
        trees = _forest.arrange(graph, chosen)
        d = -g[trees.order]
        pivots, factors = problem.diagonal[trees.order].astype(np.float64), xp.empty(len(d))
        graph.kernels.factor_forest(
            trees.levels, trees.up, _forest.edge_weights(trees, A), pivots, factors
        )
        graph.kernels.solve_forest(trees.levels, trees.up, pivots, factors, d)
        x[trees.order] += d
        graph.kernels.add_columns(graph.ptr, graph.idx, A.data, trees.order, d, g)
        if turn % 500 == 499:
            g = A @ x - problem.b  # increments drift
        if watch.record(x, -g, blocks=1):
            break
    return x


def tree_blocks(problem):
    """Return a block for each unknown such that blocks are forests: combs on lattices."""
    return _by_shape(problem, _forest.combs, _forest.tree_blocks)


def colours(problem):
    """Return a colour for each unknown: a checkerboard on lattices."""
    return _by_shape(problem, _forest.checkerboard, _forest.colours)


def _by_shape(problem, closed, greedy):
    """Return the blocks of a closed form for the whole graph, or those of a greedy pass."""
    xp = problem.xp
    shape = _forest.lattice_of(_forest.graph_of(problem.be, problem.W))
    if shape is None:
        return greedy(problem.graph, xp.argsort(-problem.diagonal, kind="stable"))
    # Where nodes are known a block may have nothing left.
    blocks = closed(*shape, xp=xp)[problem.unknown]
    return xp.unique(blocks, return_inverse=True)[1].astype(np.int64)


SOLVERS = {
    "auto": auto,
    "tree": by_trees,
    "redblack": by_colours,
    "forest_variable": by_greedy_forests,
    "cg": conjugate_gradients,
    "cholesky": cholesky,
}
