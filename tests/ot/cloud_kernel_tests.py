"""What the kernels of clouds must compute: what those of a matrix do, on SciPy's distances.

Test classes inherit from `CloudKernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from solvers._core.arrays import Ingest
from solvers.ot._cloud import PointCloud, checked_cloud

COSTS = ("sqeuclidean", "euclidean", "cityblock", "cosine")
# Entries below exp(-50) of a row's largest may be left out.
NOTHING = np.exp(-50)
each_cost = pytest.mark.parametrize("cost", COSTS)
# Few coordinates are treated in another way than many.
each_dim = pytest.mark.parametrize("d", [1, 3, 7])
# From all entries to a few: at the smallest most boxes of points drop out.
each_reg = pytest.mark.parametrize("reg", [1.0, 1e-3])


def problem(rng, be, d, cost, n=77, m=200):
    """A cloud whose points are along a line in order, its matrix, potentials and weights."""
    x, y = (np.sort(rng.random((k, d)), axis=0) + 0.1 * rng.random((k, d)) for k in (n, m))
    cloud = PointCloud(be.xp.array(x + 3.0), be.xp.array(y + 3.0), cost=cost, scale=2.0)
    C = checked_cloud(cloud, Ingest(x=cloud.x, y=cloud.y))
    a, beta = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    a[1::5] = 0.0
    return C, 2.0 * cdist(x + 3.0, y + 3.0, cost), rng.normal(0.0, 0.05, m), a, beta


def tight(rng, be, n=70, m=130):
    """Two far groups on each side: whole boxes of entries vanish."""
    x, y = rng.normal(0.0, 0.1, (n, 2)), rng.normal(0.0, 0.1, (m, 2))
    x[n // 2 :] += 50.0
    y[m // 2 :] += 50.0
    cloud = PointCloud(be.xp.array(x), be.xp.array(y))
    return checked_cloud(cloud, Ingest(x=cloud.x, y=cloud.y)), cdist(x, y, "sqeuclidean")


class CloudKernelTests:
    """The twins agree with dense formulas."""

    @pytest.fixture(autouse=True)
    def _kernels(self, be):
        self.be, self.kernels = be, be.kernels("solvers.ot", "clouds")

    def run(self, name, *args):
        """Call a kernel with arrays from the host; return its value and what it wrote to."""
        args = [self.be.xp.array(x) if isinstance(x, np.ndarray) else x for x in args]
        out = getattr(self.kernels, name)(*args)
        return self.host(out), [self.host(x) for x in args]

    def host(self, x):
        if isinstance(x, tuple):
            return tuple(map(self.host, x))
        return np.array(self.be.host(x)) if hasattr(x, "strides") else x

    @each_dim
    @each_cost
    @each_reg
    def test_row_pass_is_a_softmax_of_each_row(self, rng, d, cost, reg):
        C, D, h, a, beta = problem(rng, self.be, d, cost)
        Z = (h - D) / reg
        shift = logsumexp(Z + np.log(beta), axis=1)
        expected = np.exp(Z - shift[:, None])
        for stored in ("float32", "float64", None):
            K = np.empty(D.shape if stored else (0, D.shape[1]), stored or "float64")
            sums, (*_, got, K) = self.run("row_pass", C, h, beta, reg, a, np.empty(a.size), K)
            np.testing.assert_allclose(got, shift, rtol=1e-10, atol=1e-10)
            np.testing.assert_allclose(beta * sums, beta * (expected.T @ a), rtol=1e-9, atol=1e-17)
            if stored:
                rtol = 1e-9 if stored == "float64" else 1e-6
                np.testing.assert_allclose(K, expected, rtol=rtol, atol=1e-17)

    @each_dim
    @each_cost
    def test_sparse_row_pass_stores_what_is_above_the_cutoff(self, rng, d, cost):
        C, D, h, a, beta = problem(rng, self.be, d, cost)
        (n, m), reg, cutoff = D.shape, 0.05, 1e-4
        Z = (h - D) / reg
        K = np.exp(Z - logsumexp(Z + np.log(beta), axis=1)[:, None])
        room, ends = n * m + 8 * m, np.empty(n, np.int64)
        (sums, fitted), (*_, indices, values, starts, ends) = self.run(
            "sparse_row_pass",
            *(C, h, beta, reg, a, np.empty(n), cutoff),
            *(np.full(room, -1, np.int32), np.full(room, np.nan), ends.copy(), ends.copy()),
        )
        assert fitted is True
        np.testing.assert_allclose(beta * sums, beta * (K.T @ a), rtol=1e-9, atol=1e-17)
        for i in range(n):
            kept = np.flatnonzero(K[i] * beta > cutoff)
            np.testing.assert_array_equal(indices[starts[i] : ends[i]], kept)
            np.testing.assert_allclose(values[starts[i] : ends[i]], K[i, kept], rtol=1e-9)

    @pytest.mark.parametrize("d", [2, 7])
    def test_sparse_row_pass_says_when_the_room_is_too_small(self, rng, d):
        C, D, h, a, beta = problem(rng, self.be, d, "sqeuclidean")
        n, m = D.shape
        none = np.empty((0, m))
        expected, _ = self.run("row_pass", C, h, beta, 0.05, a, np.empty(n), none)
        for room in (0, 10, 500):
            indices, values = np.empty(room, np.int32), np.empty(room)
            segments = np.empty(n, np.int64), np.empty(n, np.int64)
            args = (C, h, beta, 0.05, a, np.empty(n), 1e-9, indices, values, *segments)
            (sums, fitted), _ = self.run("sparse_row_pass", *args)
            assert fitted is False
            np.testing.assert_allclose(sums, expected, rtol=1e-12)

    def test_entries_between_far_groups_are_nothing(self, rng):
        C, D = tight(rng, self.be)
        n, m = D.shape
        a, beta, h = np.full(n, 1 / n), rng.dirichlet(np.ones(m)), np.zeros(m)
        K = np.empty((n, m))
        sums, (*_, K) = self.run("row_pass", C, h, beta, 0.01, a, np.empty(n), K)
        assert K[: n // 2, m // 2 :].max() <= NOTHING
        np.testing.assert_allclose(K @ beta, np.ones(n), rtol=1e-12)
        np.testing.assert_allclose(sums, K.T @ a, rtol=1e-11, atol=1e-17)

    def test_a_heavy_potential_far_away_is_not_left_out(self, rng):
        C, D = tight(rng, self.be)
        n, m = D.shape
        a, beta, h = np.full(n, 1 / n), np.full(m, 1 / m), np.zeros(m)
        h[-1] = 5000.0  # worth the way from the other group
        Z = (h - D) / 0.5 + np.log(beta)
        _, (*_, shift, _) = self.run("row_pass", C, h, beta, 0.5, a, np.empty(n), np.empty((0, m)))
        np.testing.assert_allclose(shift, logsumexp(Z, axis=1), rtol=1e-12, atol=1e-10)

    def test_weights_near_underflow_do_not_overflow_their_rows(self, rng):
        C, D, h, a, beta = problem(rng, self.be, 2, "sqeuclidean")
        beta[::2] = 1e-300
        Z = (h - D) / 1e-2 + np.log(beta)
        sums, (*_, shift, _) = self.run(
            "row_pass", C, h, beta, 1e-2, a, np.empty(a.size), np.empty((0, beta.size))
        )
        np.testing.assert_allclose(shift, logsumexp(Z, axis=1), rtol=1e-12, atol=1e-10)
        assert np.isfinite(sums).all()

    @each_dim
    @each_cost
    def test_column_potential_makes_the_sums_of_its_columns_exact(self, rng, d, cost):
        C, D, h, _, _ = problem(rng, self.be, d, cost)
        n = D.shape[0]
        a, reg, columns = rng.dirichlet(np.ones(n)), 1e-2, np.array([1, 150, 199])
        shift = rng.normal(0.0, 100.0, n)
        _, (*_, got) = self.run("column_potential", C, shift, a, reg, columns, h)
        sums = logsumexp((got - D) / reg + (np.log(a) - shift)[:, None], axis=0)
        np.testing.assert_allclose(sums[columns], 0.0, atol=1e-9)
        np.testing.assert_array_equal(np.delete(got, columns), np.delete(h, columns))
