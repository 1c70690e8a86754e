"""What the kernels of completion must compute, on whatever back end; oracles are dense formulas.

Test classes inherit from `KernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest
import scipy.sparse as sp

SHAPES = [(1, 1), (1, 40), (40, 1), (33, 31), (200, 7)]
RANKS = [1, 2, 31, 33, 67]
# Rounding of sums of up to a hundred terms of size 1.
ATOL = {"float32": 2e-5, "float64": 1e-13}
both = ("float32", "float64")
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_rank = pytest.mark.parametrize("k", RANKS)
each_dtype = pytest.mark.parametrize("dtype", both)


def triples(rng, shape, dtype, density=0.4):
    """Entries at distinct places, in any order; some rows and columns have none."""
    rows, cols = np.nonzero(rng.random(shape) < density)
    order = rng.permutation(rows.size)
    rows, cols = rows[order].astype(np.int32), cols[order].astype(np.int32)
    return rows, cols, rng.normal(size=rows.size).astype(dtype)


def compressed(rows, cols, vals, shape):
    """The same by rows, as SciPy does it."""
    S = sp.csr_array((vals, (rows, cols)), shape=shape)
    S.sort_indices()
    return S.indptr.astype(np.int64), S.indices.astype(np.int32), S.data


def factors(rng, shape, k, dtype):
    return [rng.normal(size=(size, k)).astype(dtype) for size in shape]


class KernelTests:
    def on(self, be, *arrays):
        return [be.xp.asarray(x) for x in arrays]

    @each_shape
    @pytest.mark.parametrize("weighted", [False, True])
    def test_entries_are_sorted_by_row_and_column_and_keep_their_company(
        self, be, rng, shape, weighted
    ):
        rows, cols, vals = triples(rng, shape, "float64")
        weights = vals + 7.0 if weighted else vals[:0]
        kernels = be.kernels("solvers.completion")
        sent = self.on(be, rows, cols, vals, weights)
        ptr, order, idx, val, weight = be.host(*kernels.arrange(*sent, shape[0]))
        expected = np.lexsort((cols, rows))
        np.testing.assert_array_equal(order, expected)
        np.testing.assert_array_equal(
            ptr, np.searchsorted(rows[expected], np.arange(shape[0] + 1))
        )
        np.testing.assert_array_equal(idx, cols[expected])
        np.testing.assert_array_equal(val, vals[expected])
        np.testing.assert_array_equal(weight, weights[expected] if weighted else weights)
        assert (ptr.dtype, idx.dtype, order.dtype) == (np.int64, np.int32, np.int32)

    def test_long_rows_are_sorted_and_equal_places_keep_their_order(self, be, rng):
        rows = np.repeat(np.int32([1, 0, 3]), [3000, 17, 1])
        cols = rng.integers(0, 900, rows.size).astype(np.int32)
        vals = np.arange(rows.size, dtype=float)
        sent = self.on(be, rows, cols, vals, vals[:0])
        got = be.kernels("solvers.completion").arrange(*sent, 4)
        np.testing.assert_array_equal(be.host(got[1]), np.lexsort((cols, rows)))
        np.testing.assert_array_equal(be.host(got[0]), [0, 17, 3017, 3017, 3018])

    @each_shape
    @pytest.mark.parametrize("weighted", [False, True])
    def test_the_transpose_is_scipys(self, be, rng, shape, weighted):
        csr = compressed(*triples(rng, shape, "float64"), shape)
        weight = csr[2] + 7.0 if weighted else csr[2][:0]
        got = be.kernels("solvers.completion").transpose(*self.on(be, *csr, weight), shape[1])
        ptr, rows, val, col_weight, perm = be.host(*got)
        S = sp.csr_array(csr[::-1], shape=shape).tocsc()
        np.testing.assert_array_equal(ptr, S.indptr)
        np.testing.assert_array_equal(rows, S.indices)
        np.testing.assert_array_equal(val, S.data)
        np.testing.assert_array_equal(val, csr[2][perm])
        np.testing.assert_array_equal(col_weight, weight[perm] if weighted else weight)

    @each_dtype
    @each_rank
    @pytest.mark.parametrize("biased", [False, True])
    def test_residuals_are_estimates_less_values(self, be, rng, k, dtype, biased):
        shape = 33, 31
        ptr, idx, val = compressed(*triples(rng, shape, dtype), shape)
        A, B = factors(rng, shape, k, dtype)
        a, b = (rng.normal(size=size if biased else 0).astype(dtype) for size in shape)
        sent = self.on(be, ptr, idx, val, A, B, a, b)
        out = be.xp.empty(val.size, dtype)
        be.kernels("solvers.completion").residual(*sent, out)
        X = A.astype(float) @ B.T + (a[:, None] + b if biased else 0.0)
        rows = np.repeat(np.arange(33), np.diff(ptr))
        np.testing.assert_allclose(be.host(out), X[rows, idx] - val, atol=10 * ATOL[dtype])

    @each_dtype
    @each_rank
    def test_products_with_the_entries_are_scipys(self, be, rng, k, dtype):
        shape = 33, 31
        ptr, idx, val = compressed(*triples(rng, shape, dtype), shape)
        B = factors(rng, shape, k, dtype)[1]
        out = be.xp.empty((33, k), dtype)
        be.kernels("solvers.completion").times(*self.on(be, ptr, idx, val, B), out)
        expected = sp.csr_array((val, idx, ptr), shape=shape).astype(float) @ B
        np.testing.assert_allclose(be.host(out), expected, atol=10 * ATOL[dtype])

    def test_rows_without_entries_give_zeros(self, be):
        empty = self.on(be, np.zeros(4, np.int64), np.zeros(0, np.int32), np.zeros(0))
        out = be.xp.empty((3, 2))
        be.kernels("solvers.completion").times(*empty, be.xp.ones((5, 2)), out)
        np.testing.assert_array_equal(be.host(out), np.zeros((3, 2)))

    @each_dtype
    @each_rank
    @pytest.mark.parametrize("biased", [False, True])
    def test_single_entries_are_those_of_the_dense_product(self, be, rng, k, dtype, biased):
        U, V = factors(rng, (33, 31), k, dtype)
        s = rng.random(k).astype(dtype)
        a, b = (rng.normal(size=size if biased else 0).astype(dtype) for size in (33, 31))
        rows, cols = (rng.integers(0, size, 300).astype(np.int32) for size in (33, 31))
        out = be.xp.empty(300, dtype)
        kernels = be.kernels("solvers.completion", "predict")
        kernels.entries(*self.on(be, rows, cols, U, s, V, a, b), out)
        X = (U.astype(float) * s) @ V.T + (a[:, None] + b if biased else 0.0)
        np.testing.assert_allclose(be.host(out), X[rows, cols], atol=10 * ATOL[dtype])

    @each_dtype
    @pytest.mark.parametrize("k", [1, 4, 30])
    def test_the_best_columns_are_those_of_a_stable_sort(self, be, rng, k, dtype):
        # Whole numbers tie often.
        scores = rng.integers(0, 9, (40, 25)).astype(dtype)
        scores[rng.random(scores.shape) < 0.2] = -np.inf
        scores[3] = -np.inf
        kept = min(k, 25)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :kept]
        best = np.take_along_axis(scores, order, axis=1)
        cols, out = be.xp.empty((40, k), np.int64), be.xp.empty((40, k), dtype)
        kernels = be.kernels("solvers.completion", "predict")
        kernels.best(be.xp.asarray(scores), cols, out)
        np.testing.assert_array_equal(be.host(out)[:, :kept], best)
        np.testing.assert_array_equal(be.host(cols)[:, :kept], np.where(best > -np.inf, order, -1))
        assert (be.host(cols)[:, kept:] == -1).all()
        assert (be.host(out)[:, kept:] == -np.inf).all()
