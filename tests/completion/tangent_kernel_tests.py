"""What the kernels on tangent spaces must compute, on whatever back end; oracles are dense.

Test classes inherit from `TangentKernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
each_shape = pytest.mark.parametrize("shape", [(1, 3, 1), (9, 7, 5), (6, 12, 33)], ids=str)
each_weight = pytest.mark.parametrize("weighted", [False, True])
# Rounding of sums of a few dozen terms.
ATOL = {"float32": 2e-4, "float64": 1e-12}


class Pattern:
    """Entries of a sparse matrix with empty rows and columns, by row and by column."""

    def __init__(self, rng, m, n, dtype, weighted=True):
        seen = rng.random((m, n)) < 0.5
        seen[1::4] = False
        seen[:, 2::5] = False
        self.rows, self.cols = np.nonzero(seen)
        self.perm = np.argsort(self.cols, kind="stable")
        self.weight = rng.uniform(0.5, 2.0, self.rows.size if weighted else 0).astype(dtype)
        self.w = self.weight if weighted else np.ones(self.rows.size)
        self.by_row = self._compressed(self.rows, self.cols, m)
        self.by_col = self._compressed(self.cols[self.perm], self.rows[self.perm], n)

    def _compressed(self, groups, others, size):
        ptr = np.searchsorted(groups, np.arange(size + 1)).astype(np.int64)
        return ptr, others.astype(np.int32)


class TangentKernelTests:
    """The twins agree with dense formulas."""

    def run(self, be, name, *args):
        """Run a kernel on copies of arrays; return the copies as they are after it."""
        args = [be.xp.array(x) for x in args]
        getattr(be.kernels("solvers.completion", "tangent"), name)(*args)
        return [np.array(be.host(x)) for x in args]

    @each_dtype
    @each_shape
    @each_weight
    @pytest.mark.parametrize("place", [np.int32, np.int64])
    def test_a_pass_by_row_and_one_by_column_apply_the_curvature(
        self, be, rng, shape, weighted, dtype, place
    ):
        m, n, k = shape
        at = Pattern(rng, m, n, dtype, weighted)
        U, A = rng.standard_normal((2, m, k)).astype(dtype)
        V, B = rng.standard_normal((2, n, k)).astype(dtype)
        y, gA, gB = (np.full(size, 9.0, dtype) for size in (at.rows.size, (m, k), (n, k)))
        *_, y, gA = self.run(be, "jac_rows", *at.by_row, at.weight, U, V, A, B, y, gA)
        perm = at.perm.astype(place)
        *_, gB = self.run(be, "jac_cols", *at.by_col, perm, y, U, gB)
        Y = np.zeros((m, n))
        Y[at.rows, at.cols] = at.w * (A @ V.T + U @ B.T)[at.rows, at.cols]
        scale = ATOL[dtype] * k
        np.testing.assert_allclose(y, Y[at.rows, at.cols], rtol=0, atol=scale)
        np.testing.assert_allclose(gA, Y @ V, rtol=0, atol=10 * scale)
        np.testing.assert_allclose(gB, Y.T @ U, rtol=0, atol=10 * scale)

    def test_the_passes_are_a_map_and_its_adjoint_to_the_last_digits(self, be, rng):
        m, n, k = 40, 30, 7
        at = Pattern(rng, m, n, "float64", weighted=False)
        U, A = rng.standard_normal((2, m, k))
        V, B = rng.standard_normal((2, n, k))
        y, gA, gB = np.empty(at.rows.size), np.empty((m, k)), np.empty((n, k))
        *_, Jx, gA = self.run(be, "jac_rows", *at.by_row, at.weight, U, V, A, B, y, gA)
        *_, gB = self.run(be, "jac_cols", *at.by_col, at.perm.astype(np.int32), Jx, U, gB)
        # <J x, J x> = <x, J^T J x>.
        left, right = (Jx * Jx).sum(), (A * gA).sum() + (B * gB).sum()
        assert abs(left - right) <= 1e-13 * abs(left)

    @each_dtype
    @each_shape
    @each_weight
    @pytest.mark.parametrize("sharing", [False, True])
    def test_blocks_are_inverse_to_each_rows_own_system(
        self, be, rng, shape, weighted, dtype, sharing
    ):
        m, n, k = shape
        at = Pattern(rng, m, n, dtype, weighted)
        V = rng.standard_normal((n, k)).astype(dtype)
        shared = (V.T @ V).astype(dtype) if sharing else np.empty((0, 0), dtype)
        ridge = rng.uniform(0.5, 1.5, (m, k)).astype(dtype)
        args = *at.by_row, at.weight, V, shared, ridge, np.full((m, k, k), 9.0, dtype)
        *_, got = self.run(be, "block_inverse", *args)
        for i in range(m):
            here = at.rows == i
            F = V[at.cols[here]].astype(float)
            G = (F.T * at.w[here]) @ F + np.diag(ridge[i]) + (shared if sharing else 0.0)
            np.testing.assert_allclose(got[i] @ G, np.eye(k), atol=20 * k * ATOL[dtype])

    def test_directions_without_data_are_left_out_of_blocks(self, be):
        # Two entries of one row see the same vector; another row sees nothing.
        V = np.array([[3.0, 4.0], [3.0, 4.0]])
        side = np.array([0, 2, 2], np.int64), np.array([0, 1], np.int32)
        out = np.full((2, 2, 2), 9.0)
        *_, got = self.run(
            be, "block_inverse", *side, np.empty(0), V, np.empty((0, 0)), np.zeros((2, 2)), out
        )
        np.testing.assert_allclose(got[0] @ (2 * V[0]), [1 / 3, 0], atol=1e-12)
        np.testing.assert_array_equal(got[1], np.zeros((2, 2)))

    @each_dtype
    @each_shape
    def test_blocks_multiply_their_rows(self, be, rng, shape, dtype):
        m, _, k = shape
        blocks, x = rng.standard_normal((m, k, k)), rng.standard_normal((m, k))
        *_, out = self.run(
            be, "block_times", blocks.astype(dtype), x.astype(dtype), np.empty((m, k), dtype)
        )
        expected = np.einsum("iqr,ir->iq", blocks, x)
        np.testing.assert_allclose(out, expected, rtol=0, atol=k * ATOL[dtype])
