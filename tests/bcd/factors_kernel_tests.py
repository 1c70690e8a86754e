"""What the kernel of non-negative factors must compute, on whatever back end.

Test classes inherit from `FactorsKernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest

RTOL = {"float32": 1e-4, "float64": 1e-10}


class FactorsKernelTests:
    """The twins agree with coordinate steps in plain NumPy."""

    @pytest.fixture(autouse=True)
    def _kernels(self, be):
        self.be, self.kernels = be, be.kernels("solvers.bcd", "factors")

    def moved(self, G, R, l1, sweeps, X):
        G, R, out = (self.be.xp.array(part) for part in (G, R, X))
        self.kernels.nonnegative_rows(G, R, l1, sweeps, out)
        return self.be.host(out)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("k", [1, 3, 40])
    @pytest.mark.parametrize("l1", [0.0, 0.4])
    def test_one_sweep_moves_each_coordinate_once(self, dtype, k, l1):
        rng = np.random.default_rng(k)
        B = rng.standard_normal((k + 5, k))
        G, R = (B.T @ B).astype(dtype), rng.standard_normal((9, k)).astype(dtype)
        X = np.maximum(rng.standard_normal((9, k)), 0).astype(dtype)
        expected = X.astype(np.float64)
        for q in range(k):
            slope = expected @ G[q] - R[:, q] + l1
            expected[:, q] = np.maximum(expected[:, q] - slope / G[q, q], 0)
        found = self.moved(G, R, l1, 1, X)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=RTOL[dtype] * abs(expected).max())

    def test_many_sweeps_lower_the_objective_more_and_stop_by_themselves(self):
        rng = np.random.default_rng(0)
        B = rng.standard_normal((12, 6))
        G, R, X = B.T @ B, rng.standard_normal((5, 6)), rng.random((5, 6))

        def value(X):
            return 0.5 * ((X @ G) * X).sum() - (R * X).sum()

        values = [value(self.moved(G, R, 0.0, sweeps, X)) for sweeps in (1, 3, 500)]
        assert values[0] > values[1] >= values[2]
        first = self.moved(G, R, 0.0, 500, X)
        # A row that hardly moves any more is left: far before so many turns are over.
        assert not np.array_equal(self.moved(G, R, 0.0, 500, first), first)

    def test_coordinates_that_only_a_penalty_knows_become_zero(self):
        G, R, X = np.diag([1.0, 0.0]), np.array([[2.0, 0.0]]), np.array([[1.0, 3.0]])
        np.testing.assert_array_equal(self.moved(G, R, 0.5, 4, X), [[1.5, 0.0]])
        np.testing.assert_array_equal(self.moved(G, R, 0.0, 4, X), [[2.0, 3.0]])
