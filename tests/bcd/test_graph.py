"""Partitions by the graph of a matrix, and exact solves of forests by message passing."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from solvers import ConvergenceWarning, Status, bcd
from solvers._core.backend import get_backend
from solvers.bcd._problem import pose_quadratic
from solvers.bcd._state import open_state
from solvers.bcd.rules import _forest
from solvers.bcd.rules._graph import growing, message_passing, redblack, tree
from tests.bcd.graphs import (
    laplacian,
    lattice,
    neighbours,
    number_of_trees,
    random_forest,
    random_graph,
)

BE = get_backend("numpy")


def quadratic_of(W, *, shift=0.5, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    A = laplacian(W, shift * rng.uniform(0.5, 2.0, W.shape[0]))
    return pose_quadratic(A.astype(dtype), rng.standard_normal(W.shape[0]).astype(dtype))


def blocks_of(problem, make, **options):
    found = make(problem, None, None, **options)
    return [found[b] for b in range(found.number)]


def minimised(A, b):
    """Move one block that holds everything; return the point and the decrease."""
    problem = pose_quadratic(A, b)
    state = open_state(problem, *problem.zeros())
    before = problem.objective(state.x)
    decrease = message_passing(state, None)(None, np.arange(b.size))
    assert decrease == pytest.approx(before - problem.objective(state.x), rel=1e-9, abs=1e-13)
    return state.x


# ------------------------------------------------------------------------------- partitions
@given(st.integers(1, 30), st.integers(0, 60), st.integers(0, 10**6))
@pytest.mark.parametrize("make", [redblack, tree])
@pytest.mark.parametrize("order", ["lipschitz", "natural"])
def test_blocks_cover_every_unknown_once_and_are_what_they_claim(make, order, n, edges, seed):
    W = random_graph(n, edges, seed)
    problem = quadratic_of(W, seed=seed)
    blocks = blocks_of(problem, make, order=order)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(n))
    for block in blocks:
        trees = number_of_trees(W, block)
        assert trees == len(block) if make is redblack else trees > 0


def test_tree_blocks_are_the_first_that_stay_forests():
    for seed in range(30):
        W = random_graph(14, 40, seed)
        problem = quadratic_of(W, seed=seed)
        expected = []
        for v in np.argsort(-problem.A.diagonal(), kind="stable"):
            home = next((b for b in expected if number_of_trees(W, [*b, v]) > 0), None)
            if home is None:
                expected.append([v])
            else:
                home.append(v)
        blocks = blocks_of(problem, tree)
        assert [sorted(b) for b in expected] == [sorted(b.tolist()) for b in blocks]


def test_colours_are_the_allowed_ones_with_the_fewest_members():
    for seed in range(30):
        W = random_graph(14, 30, seed)
        problem = quadratic_of(W, seed=seed)
        expected = []
        for v in range(14):
            around = set(neighbours(W, v))
            legal = [b for b in expected if not around & set(b)]
            if legal:
                min(legal, key=len).append(v)
            else:
                expected.append([v])
        blocks = blocks_of(problem, redblack, order="natural")
        assert [sorted(b) for b in expected] == [sorted(b.tolist()) for b in blocks]


def test_the_greedy_forest_takes_nodes_by_score_while_there_is_no_cycle():
    for seed in range(40):
        W = random_graph(15, 45, seed)
        problem = quadratic_of(W, seed=seed)
        scores = np.random.default_rng(seed).random(15)
        expected = []
        for v in np.argsort(-scores):
            if number_of_trees(W, [*expected, v]) > 0:
                expected.append(int(v))
        assert growing(problem)(scores).tolist() == sorted(expected)


def test_equal_scores_go_to_the_lowest_index():
    W = sp.csr_array(np.ones((3, 3)) - np.eye(3))
    assert growing(quadratic_of(W))(np.ones(3)).tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(2, 2), (3, 4), (4, 3), (2, 7), (7, 2), (6, 5)])
def test_a_lattice_is_recognised_and_cut_into_two_combs_or_colours(shape):
    W = lattice(*shape)
    problem = quadratic_of(W)
    assert _forest.lattice_of(_forest.graph_of(BE, problem.A)) == shape
    for make in (tree, redblack):
        blocks = blocks_of(problem, make)
        assert len(blocks) == 2
        for block in blocks:
            trees = number_of_trees(W, block)
            assert trees == (1 if make is tree else len(block))


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 2)])
def test_a_path_is_one_tree(shape):
    assert len(blocks_of(quadratic_of(lattice(*shape)), tree)) == 1


def spoilt(kind):
    W = lattice(4, 5).tolil()
    if kind == "an edge less":
        W[0, 1] = W[1, 0] = 0
    elif kind == "an edge more":
        W[0, 6] = W[6, 0] = 1
    elif kind == "a row's end tied to the next":
        W[4, 5] = W[5, 4] = 1
        W[0, 1] = W[1, 0] = 0
    else:
        W = W[np.random.default_rng(0).permutation(20)][:, np.r_[1:20, 0]]
        W = W + W.T
    W = W.tocsr()
    W.eliminate_zeros()
    return W


@pytest.mark.parametrize(
    "kind", ["an edge less", "an edge more", "a row's end tied to the next", "shuffled"]
)
def test_other_graphs_are_not_taken_for_lattices(kind):
    W = spoilt(kind)
    assert _forest.lattice_of(_forest.graph_of(BE, W)) is None
    blocks = blocks_of(quadratic_of(W), tree)
    assert all(number_of_trees(W, block) > 0 for block in blocks)


def test_a_lattice_that_is_told_is_cut_even_with_edges_missing():
    W = spoilt("an edge less")
    blocks = blocks_of(quadratic_of(W), tree, lattice=(4, 5))
    assert len(blocks) == 2
    assert all(number_of_trees(W, block) > 0 for block in blocks)


# ------------------------------------------------------------------------- message passing
def test_trees_are_solved_as_dense_systems_are():
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 25))
        A = laplacian(random_forest(n, seed, cut=rng.random()), rng.uniform(0.01, 1.0, n))
        b = rng.standard_normal(n)
        graph = _forest.graph_of(BE, A)
        trees = _forest.arrange(graph, np.zeros(n, np.int64))
        pivots, factors, h = A.diagonal()[trees.order], np.empty(n), b[trees.order][:, None]
        assert graph.kernels.factor_forest(
            trees.levels, trees.up, A.data[trees.edge], pivots, factors
        )
        assert graph.kernels.solve_forest(trees.levels, trees.up, pivots, factors, h) == 0.0
        x = np.empty(n)
        x[trees.order] = h[:, 0]
        expected = np.linalg.solve(A.toarray(), b)
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-12 * abs(expected).max() * 10)


@pytest.mark.parametrize("shape", ["star", "path", "singletons", "one node"])
def test_extreme_shapes_are_solved(shape):
    n, rng = 60, np.random.default_rng(3)
    if shape == "star":
        i, j = np.arange(1, n), np.full(n - 1, 7)
        i = i - (i <= 7)
    elif shape == "path":
        i, j = np.arange(n - 1), np.arange(1, n)
    else:
        i = j = np.empty(0, int)
        n = 1 if shape == "one node" else n
    W = sp.coo_array((rng.uniform(0.1, 9.0, i.size), (i, j)), (n, n)).tocsr()
    A = laplacian((W + W.T).tocsr(), 0.01)
    b = rng.standard_normal(n)
    np.testing.assert_allclose(minimised(A, b), np.linalg.solve(A.toarray(), b), rtol=1e-10)


def test_a_path_of_a_hundred_thousand_nodes_needs_no_recursion():
    n, rng = 100_000, np.random.default_rng(0)
    off = -rng.uniform(0.5, 2.0, n - 1)
    diagonal = np.r_[-off, 0] + np.r_[0, -off] + 1e-3
    A = sp.diags_array([off, diagonal, off], offsets=[-1, 0, 1]).tocsr()
    b = rng.standard_normal(n)
    expected = scipy.linalg.solveh_banded(np.vstack([np.r_[0, off], diagonal]), b)
    np.testing.assert_allclose(minimised(A, b), expected, rtol=0, atol=1e-9 * abs(expected).max())


@pytest.mark.parametrize("seed", range(5))
def test_a_singular_tree_is_solved_where_it_can_be(seed):
    rng = np.random.default_rng(seed)
    W = random_forest(40, seed, cut=0.2)
    A, b = laplacian(W), rng.standard_normal(40)
    _, part = sp.csgraph.connected_components(W)
    # Within the range of A: no component has a surplus.
    b -= (np.bincount(part, b) / np.bincount(part))[part]
    x = minimised(A, b)
    np.testing.assert_allclose(A @ x, b, rtol=0, atol=1e-12)


def test_a_tree_without_a_minimiser_ends_as_unbounded():
    A, b = laplacian(random_forest(40, 0, cut=0.0)), np.random.default_rng(0).standard_normal(40)
    with pytest.warns(ConvergenceWarning, match="no lower bound"):
        res = bcd.quadratic(A, b, partition="tree", update="tree")
    assert res.status is Status.UNBOUNDED
    assert not res.success


def test_a_matrix_that_is_not_semi_definite_is_found_out():
    A = sp.csr_array([[1.0, 2.0], [2.0, 1.0]])
    with pytest.warns(ConvergenceWarning, match="negative eigenvalue"):
        res = bcd.quadratic(A, np.ones(2), partition="tree", update="tree")
    assert res.status is Status.UNBOUNDED


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("selection", ["gs", "gsl", "gsd", "random"])
def test_growing_forests_reach_the_minimiser_without_a_rise(selection, dtype):
    W = lattice(7, 6)
    A = laplacian(W, 0.3).astype(dtype)
    b = np.random.default_rng(1).standard_normal(42).astype(dtype)
    res = bcd.quadratic(
        A, b, partition="forest_variable", selection=selection, update="tree", rng=0
    )
    assert res.success
    assert res.x.dtype == dtype
    expected = np.linalg.solve(A.toarray().astype(np.float64), b)
    np.testing.assert_allclose(res.x, expected, atol=1e-4 if dtype == "float32" else 1e-6)
    assert np.diff(res.history["fun"]).max() <= (1e-5 if dtype == "float32" else 1e-12)


def test_two_combs_need_fewer_turns_than_two_colours():
    A, b = laplacian(lattice(12, 12), 0.05), np.random.default_rng(2).standard_normal(144)
    turns = [
        bcd.quadratic(A, b, partition=partition, selection="cyclic").nit
        for partition in ("tree", "redblack")
    ]
    assert turns[0] < turns[1]
