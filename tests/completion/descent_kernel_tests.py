"""What the kernel along a line must compute, on whatever back end; the oracle is a dense formula.

Test classes inherit from `DescentKernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
# Rounding of sums of a few dozen terms.
RTOL = {"float32": 1e-5, "float64": 1e-12}


def entries(rng, m, n, k, dtype):
    """A pattern with empty rows, a residual, weights, factors and a direction."""
    seen = rng.random((m, n)) < 0.4
    seen[1::4] = False
    rows, cols = np.nonzero(seen)
    ptr = np.searchsorted(rows, np.arange(m + 1)).astype(np.int64)
    r, weight = rng.standard_normal(rows.size), rng.uniform(0.5, 2.0, rows.size)
    factors = [rng.standard_normal((length, k)) for length in (m, n, m, n)]
    return (rows, cols), ptr, *(x.astype(dtype) for x in (r, weight, *factors))


class DescentKernelTests:
    """The twins agree with dense formulas."""

    def along(self, be, ptr, cols, *arrays):
        """Run the kernel on arrays from the host; return slope, bend and the sums."""
        args = [be.xp.array(x) for x in (ptr, cols.astype(np.int32), *arrays)]
        slope, bend = (be.xp.full(cols.size, 9.0, arrays[0].dtype) for _ in range(2))
        sums = be.kernels("solvers.completion", "descent").along(*args, slope, bend)
        return tuple(np.array(be.host(x)) for x in (slope, bend, sums))

    @each_dtype
    @pytest.mark.parametrize("shape", [(1, 3, 1), (9, 7, 2), (6, 12, 33)])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_slope_bend_and_sums_are_those_of_the_moving_product(
        self, be, rng, shape, weighted, dtype
    ):
        where, ptr, r, weight, A, B, dA, dB = entries(rng, *shape, dtype)
        given = weight if weighted else weight[:0]
        slope, bend, sums = self.along(be, ptr, where[1], r, given, A, B, dA, dB)
        first, second = (A @ dB.T + dA @ B.T)[where], (dA @ dB.T)[where]
        scale = RTOL[dtype] * shape[2] ** 0.5
        np.testing.assert_allclose(slope, first, rtol=0, atol=5 * scale)
        np.testing.assert_allclose(bend, second, rtol=0, atol=5 * scale)
        w = weight.astype(float) if weighted else 1.0
        products = [w * first * first, w * r * second, w * first * second, w * second * second]
        for total, terms in zip(sums, products, strict=True):
            assert abs(total - terms.sum()) <= 10 * scale * (1.0 + np.abs(terms).sum())

    def test_a_matrix_without_entries_in_most_rows_writes_nothing_else(self, be):
        ptr = np.array([0, 0, 1, 1], np.int64)
        one = np.ones((3, 1)), np.ones((2, 1))
        slope, bend, sums = self.along(be, ptr, np.array([1]), np.ones(1), np.ones(0), *one, *one)
        assert slope.tolist() == [2.0]
        assert bend.tolist() == [1.0]
        assert sums.tolist() == [4.0, 1.0, 2.0, 1.0]
