"""What kernels on graphs must compute, on whatever back end.

Test classes inherit from `GraphKernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers.bcd.rules import _forest
from tests.bcd.graphs import laplacian, number_of_trees, random_forest, random_graph

RTOL = {"float32": 1e-4, "float64": 1e-11}


class GraphKernelTests:
    """The twins agree with dense linear algebra."""

    @pytest.fixture(autouse=True)
    def _kernels(self, be):
        self.be, self.xp = be, be.xp
        self.kernels = be.kernels("solvers.bcd", "graph")

    def graph(self, A):
        put = self.xp.asarray
        ptr, idx = put(A.indptr.astype(np.int64)), put(A.indices.astype(np.int32))
        return _forest.Graph(self.be, ptr, idx)

    def factorised(self, A, blocks):
        """Return the stored forests of blocks and their pivots and factors, block by block."""
        trees = _forest.arrange(self.graph(A), self.xp.asarray(blocks))
        order, edge, ptr, floors = self.be.host(trees.order, trees.edge, trees.ptr, trees.floors)
        weight = self.xp.asarray(A.data[edge])
        pivots = self.xp.asarray(A.diagonal()[order].astype(np.float64))
        factors = self.xp.empty(order.size)
        for b in range(ptr.size - 1):
            nodes, levels = slice(*ptr[b : b + 2]), slice(*floors[b : b + 2])
            args = weight[nodes], pivots[nodes], factors[nodes]
            sound = self.kernels.factor_forest(trees.levels[levels], trees.up[nodes], *args)
            assert self.be.host(sound)
        return trees, pivots, factors

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize(
        ("n", "cut", "path"), [(1, 0, 0), (40, 0.2, 0), (40, 0, 40), (9, 1, 0)]
    )
    def test_forests_are_solved_for_all_columns(self, dtype, n, cut, path):
        rng = np.random.default_rng(n)
        A = laplacian(random_forest(n, 1, cut=cut, path=path), 0.3).astype(dtype)
        trees, pivots, factors = self.factorised(A, np.zeros(n, np.int64))
        order, b = self.be.host(trees.order), rng.standard_normal((n, 3)).astype(dtype)
        h = self.xp.asarray(b[order])
        left = self.kernels.solve_forest(trees.levels, trees.up, pivots, factors, h)
        assert float(self.be.host(left)) == 0.0
        x = np.empty_like(b)
        x[order] = self.be.host(h)
        expected = np.linalg.solve(A.toarray().astype(np.float64), b)
        np.testing.assert_allclose(x, expected, rtol=0, atol=RTOL[dtype] * abs(expected).max())

    def test_singular_trees_keep_their_root_and_tell_what_was_left(self):
        A = laplacian(random_forest(12, 3, cut=0.0))
        trees, pivots, factors = self.factorised(A, np.zeros(12, np.int64))
        h = self.xp.asarray(np.ones((12, 1)))
        left = self.kernels.solve_forest(trees.levels, trees.up, pivots, factors, h)
        assert float(self.be.host(left)) == pytest.approx(12.0)
        assert float(self.be.host(h)[0, 0]) == 0.0

    def test_negative_pivots_are_found(self):
        A = sp.csr_array([[1.0, 2.0], [2.0, 1.0]])
        with pytest.raises(AssertionError):
            self.factorised(A, np.zeros(2, np.int64))

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_symmetric_sweep_is_that_of_dense_blocks(self, dtype):
        rng = np.random.default_rng(0)
        W = random_graph(30, 60, 2)
        A = laplacian(W, 0.5).astype(dtype)
        order = self.xp.arange(30)
        blocks = self.be.host(_forest.tree_blocks(self.graph(W), order))
        assert all(number_of_trees(W, np.flatnonzero(blocks == b)) > 0 for b in set(blocks))
        trees, pivots, factors = self.factorised(A, blocks)
        place = self.be.host(trees.order)
        P = A[place][:, place].tocsr()
        P.sort_indices()
        rows, idx = P.indptr.astype(np.int64), P.indices.astype(np.int32)
        low, high = self.xp.empty_like(trees.up), self.xp.empty_like(trees.up)
        rows, idx, val = map(self.xp.asarray, (rows, idx, P.data))
        self.kernels.split_rows(rows, idx, trees.ptr, low, high)
        r = rng.standard_normal((30, 2)).astype(dtype)
        z, work = self.xp.asarray(r[place]), self.xp.empty((30, 2), dtype)
        shape = trees.ptr, trees.levels, trees.floors, trees.up
        self.kernels.sweep_forests(rows, idx, val, low, high, shape, (pivots, factors), z, work)
        x = np.empty_like(r)
        x[place] = self.be.host(z)
        dense = A.toarray().astype(np.float64)
        same, lower = blocks[:, None] == blocks, blocks[:, None] > blocks
        D, L = np.where(same, dense, 0), np.where(lower, dense, 0)
        expected = np.linalg.solve(D + L.T, D @ np.linalg.solve(D + L, r))
        np.testing.assert_allclose(x, expected, rtol=0, atol=RTOL[dtype] * abs(expected).max())

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("columns", [1, 3])
    def test_products_are_those_of_scipy(self, dtype, columns):
        A = laplacian(random_graph(50, 90, 1)).astype(dtype)
        X = np.random.default_rng(0).standard_normal((50, columns)).astype(dtype)
        graph, out = self.graph(A), self.xp.empty(X.shape, dtype)
        put = self.xp.asarray(A.data), self.xp.asarray(X)
        self.kernels.product(graph.ptr, graph.idx, *put, out)
        np.testing.assert_allclose(self.be.host(out), A @ X, rtol=0, atol=1e-5)

    def test_columns_are_added(self):
        rng, A = np.random.default_rng(0), laplacian(random_graph(20, 40, 1), 1.0)
        graph, nodes = self.graph(A), np.array([3, 17, 4], np.int32)
        d, g = rng.standard_normal((3, 2)), rng.standard_normal((20, 2))
        out = self.xp.array(g)
        put = map(self.xp.asarray, (A.data, nodes, d))
        self.kernels.add_columns(graph.ptr, graph.idx, *put, out)
        np.testing.assert_allclose(self.be.host(out), g + A[:, nodes] @ d, rtol=0, atol=1e-13)

    @pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (-0.1, 0.2)])
    def test_projected_sweeps_move_one_unknown_at_a_time(self, bounds):
        rng, W = np.random.default_rng(0), random_graph(20, 40, 1)
        A, (lo, hi) = laplacian(W, 1.0), bounds
        graph = self.graph(A)
        colours = self.be.host(_forest.colours(graph, self.xp.arange(20)))
        order = np.argsort(colours, kind="stable").astype(np.int32)
        ends = np.cumsum([0, *np.bincount(colours)])
        b, x = rng.standard_normal((20, 2)), rng.uniform(-0.1, 0.2, (20, 2))
        out = self.xp.array(x)
        put = [self.xp.asarray(part) for part in (A.data, A.diagonal(), b)]
        visits = self.xp.asarray(ends), self.xp.asarray(order)
        self.kernels.projected_sweep(graph.ptr, graph.idx, *put, lo, hi, *visits, out)
        for i in order:
            g = A[[i]].toarray()[0] @ x - b[i]
            x[i] = np.clip(x[i] - g / A.diagonal()[i], lo, hi)
        np.testing.assert_allclose(self.be.host(out), x, rtol=0, atol=1e-13)

    def test_assignments_are_softmaxes_one_after_the_other(self):
        rng, W = np.random.default_rng(0), random_graph(15, 25, 1)
        graph = self.graph(W)
        colours = self.be.host(_forest.colours(graph, self.xp.arange(15)))
        order = np.argsort(colours, kind="stable").astype(np.int32)[:-2]
        ends = np.cumsum([0, *np.bincount(colours[order])])
        cost, Y = rng.random((15, 4)) * 900, rng.dirichlet(np.ones(4), 15)
        out = self.xp.array(Y)
        put = self.xp.asarray(W.data), self.xp.asarray(cost)
        visits = self.xp.asarray(ends), self.xp.asarray(order)
        self.kernels.assignment_sweep(graph.ptr, graph.idx, *put, 0.7, 0.5, *visits, out)
        for i in order:
            z = (0.7 * (W[[i]].toarray()[0] @ Y) - cost[i]) / 0.5
            Y[i] = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        np.testing.assert_allclose(self.be.host(out), Y, rtol=0, atol=1e-12)

    def test_pairs_are_neighbours_with_strong_ties(self):
        A = laplacian(random_graph(40, 80, 1), 0.1)
        graph, groups = self.graph(A), self.xp.full(40, -1, np.int64)
        number = self.kernels.pair_up(graph.ptr, graph.idx, self.xp.asarray(A.data), groups)
        groups = self.be.host(groups)
        assert sorted(set(groups.tolist())) == list(range(number))
        dense = A.toarray()
        for group in range(number):
            members = np.flatnonzero(groups == group)
            assert members.size <= 2
            if members.size == 2:
                i, j = members
                heaviest = -np.delete(dense[i], i).min()
                assert -dense[i, j] >= 0.25 * heaviest
        assert number < 30
