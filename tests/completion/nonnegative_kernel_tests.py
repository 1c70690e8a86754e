"""What the kernel of non-negative rows must compute, on whatever back end.

Test classes inherit from `NonnegativeKernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest
from scipy.optimize import nnls

RTOL = {"float32": 3e-4, "float64": 1e-9}


def rows(rng, counts, k, n=40, dtype="float64", weighted=False):
    """Rows with so many entries each; the design; weights, ridge and a point."""
    ptr = np.cumsum([0, *counts])
    idx = np.concatenate([np.sort(rng.choice(n, count, replace=False)) for count in counts])
    B = rng.standard_normal((n, k)).astype(dtype)
    val = rng.standard_normal(ptr[-1]).astype(dtype)
    weight = (rng.uniform(0.2, 3.0, ptr[-1]) if weighted else np.empty(0)).astype(dtype)
    ridge = rng.uniform(0.1, 1.0, len(counts)).astype(dtype)
    A = np.maximum(rng.standard_normal((len(counts), k)), 0.0).astype(dtype)
    return ptr, idx.astype(np.int32), val, weight, B, ridge, np.empty((0, 0), dtype), A


def system(data, i):
    """The matrix and right-hand side of a row's normal equations."""
    ptr, idx, val, weight, B, ridge, shared, _ = (x.astype(np.float64) for x in data)
    here = slice(int(ptr[i]), int(ptr[i + 1]))
    V = B[idx[here].astype(int)]
    w = weight[here] if weight.size else np.ones(len(V))
    G = (V.T * w) @ V + ridge[i] * np.eye(B.shape[1]) + (shared if shared.size else 0.0)
    return G, V.T @ (w * val[here])


def violation(G, h, x):
    """How far a projected step along each unknown goes."""
    diag = np.where(np.diag(G) > 0, np.diag(G), 1.0)
    return x - np.maximum(x - (G @ x - h) / diag, 0.0)


def best(G, h):
    """The minimiser by SciPy, checked: it has returned nonsense on feasible problems."""
    L = np.linalg.cholesky(G)
    x, _ = nnls(L.T, np.linalg.solve(L, h))
    assert abs(violation(G, h, x)).max() < 1e-10 * max(abs(x).max(), 1.0)
    return x


class NonnegativeKernelTests:
    """The twins agree with SciPy, row by row."""

    @pytest.fixture(autouse=True)
    def _kernels(self, be):
        self.be, self.kernels = be, be.kernels("solvers.completion", "nonnegative")

    def solve(self, data):
        """Return the minimisers, and what the kernel says about the point it came from."""
        put = [self.be.xp.array(x) for x in data]
        squares = self.kernels.solve_nonnegative(*put)
        for before, after in zip(data[:-1], put[:-1], strict=True):
            np.testing.assert_array_equal(self.be.host(after), before)
        return self.be.host(put[-1]), float(self.be.host(squares))

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("k", [1, 2, 7, 33])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_rows_are_those_of_scipy(self, rng, dtype, k, weighted):
        data = rows(rng, [0, 1, k, 40, 3, 17], k, dtype=dtype, weighted=weighted)
        A, squares = self.solve(data)
        assert A.dtype == dtype
        expected, before = np.empty(A.shape), 0.0
        for i in range(len(A)):
            G, h = system(data, i)
            expected[i] = best(G, h)
            before += np.square(violation(G, h, data[-1][i])).sum()
        np.testing.assert_allclose(A, expected, rtol=0, atol=RTOL[dtype] * abs(expected).max())
        assert squares == pytest.approx(before, rel=RTOL[dtype])
        assert np.all(A >= 0)

    @pytest.mark.parametrize("k", [3, 12])
    def test_a_shared_matrix_counts(self, rng, k):
        data = list(rows(rng, [5, 0, 20], k, weighted=True))
        S = rng.standard_normal((2 * k, k))
        data[6] = S.T @ S
        A, _ = self.solve(data)
        expected = [best(*system(data, i)) for i in range(3)]
        np.testing.assert_allclose(A, expected, rtol=0, atol=1e-10)

    def test_the_minimiser_is_left_where_it_is(self, rng):
        data = rows(rng, [30, 12, 40], 8)
        A, _ = self.solve(data)
        again, squares = self.solve((*data[:-1], A))
        assert squares < 1e-28
        np.testing.assert_allclose(again, A, rtol=0, atol=1e-14)

    def test_starts_do_not_matter(self, rng):
        data = rows(rng, [30, 12, 40], 8)
        A, _ = self.solve(data)
        for start in (np.zeros_like(A), 1e3 * rng.random(A.shape), (A == 0) * 1.0):
            again, _ = self.solve((*data[:-1], start))
            np.testing.assert_allclose(again, A, rtol=0, atol=1e-12)

    def test_systems_without_full_rank_are_solved_too(self, rng):
        data = list(rows(rng, [2, 0, 4, 30], 6))
        data[5] = np.zeros(4)
        data[4][:, 3] = data[4][:, 1]  # two columns alike
        data[4][:, 5] = 0.0  # one that nothing depends on
        start = data[-1].copy()
        A, _ = self.solve(data)
        assert np.isfinite(A).all()
        assert np.all(A >= 0)
        np.testing.assert_array_equal(A[1], start[1])
        np.testing.assert_array_equal(A[:, 5], start[:, 5])
        for i in (0, 2, 3):
            G, h = system(data, i)
            assert abs(violation(G, h, A[i])).max() < 1e-6

    def test_badly_scaled_columns_are_solved_to_rounding(self, rng):
        data = list(rows(rng, [40, 25, 33], 5))
        data[4] = data[4] * np.logspace(0, -6, 5)
        data[5] = np.zeros(3)
        A, _ = self.solve(data)
        for i, x in enumerate(A):
            G, h = system(data, i)
            scale = np.sqrt(np.diag(G))
            expected = best(G / np.outer(scale, scale), h / scale)
            np.testing.assert_allclose(x * scale, expected, rtol=0, atol=1e-8)
