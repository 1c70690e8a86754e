"""What the kernels of transport must compute, on whatever back end; oracles are dense formulas.

Test classes inherit from `KernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest
from scipy.special import logsumexp

SHAPES = [(1, 1), (33, 31), (31, 33), (4, 255), (2, 1025), (70, 2)]
# Rounding of sums of up to a thousand terms.
RTOL = {"float32": 2e-6, "float64": 1e-13}
both = ("float32", "float64")
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_dtype = pytest.mark.parametrize("dtype", both)


def cost(rng, shape, dtype):
    """A cost matrix, potentials, and weights of which some rows are zero."""
    n, m = shape
    C = rng.random(shape).astype(dtype)
    a, beta = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    a[1::5] = 0.0
    return C, rng.normal(0.0, 0.2, m), a, beta


def plan(rng, shape, dtype):
    """A kernel with column factors and weights, and the plan: rows p_i / a_i with sum 1."""
    n, m = shape
    K = rng.random(shape).astype(dtype)
    v = rng.uniform(0.5, 1.5, m).astype(dtype).astype(float)
    a = rng.dirichlet(np.ones(n))
    a[1::5] = 0.0
    rho = K.astype(float) @ v
    return K, v, a, rho, K * v / rho[:, None]


def thinned(rng, K):
    """Drop most entries of a kernel, but no row's first, whatever its value."""
    keep = rng.random(K.shape) < 0.3
    keep[np.arange(K.shape[0]), rng.integers(0, K.shape[1], K.shape[0])] = True
    return np.where(keep, K, 0.0)


def compressed(K):
    """The segments of a compressed kernel, with gaps between the rows as several strips leave."""
    counts = (K != 0).sum(axis=1)
    ends = np.cumsum(counts + 3)
    starts = ends - counts
    indices, values = np.full(ends[-1], -1, np.int32), np.full(ends[-1], np.nan)
    for start, end, row in zip(starts, ends, K, strict=True):
        indices[start:end] = np.flatnonzero(row)
        values[start:end] = row[row != 0]
    return starts, ends, indices, values


def schur(a, P):
    """``diag(c) - P^T diag(1/a) P`` for rows P of sum 1; its diagonal by what is off it."""
    S = -(P.T @ (a[:, None] * P))
    np.fill_diagonal(S, 0.0)
    np.fill_diagonal(S, -S.sum(axis=1))
    return S


def near_permutation(rng, n, dtype):
    """A plan whose entries outside of a permutation are about 1e-12."""
    K = 1e-12 * rng.random((n, n))
    K[np.arange(n), rng.permutation(n)] = 1.0
    K = K.astype(dtype)
    v = rng.uniform(0.5, 1.5, n).astype(dtype).astype(float)
    a = rng.dirichlet(np.ones(n))
    exact = K.astype(np.longdouble)
    rho = exact @ v
    x = rng.standard_normal(n).astype(dtype).astype(float)
    return K, v, a, rho.astype(float), schur(a, exact * v / rho[:, None]), x


class KernelTests:
    """The twins agree with dense formulas."""

    @pytest.fixture(autouse=True)
    def _kernels(self, be):
        self.be, self.kernels = be, be.kernels("solvers.ot")

    def put(self, *arrays):
        return [self.be.xp.array(x) for x in arrays]

    def run(self, name, *args):
        """Call a kernel with arrays from the host; return its value and what it wrote to."""
        args = [self.be.xp.array(x) if isinstance(x, np.ndarray) else x for x in args]
        out = getattr(self.kernels, name)(*args)
        return self.host(out), [self.host(x) for x in args]

    def host(self, x):
        if isinstance(x, tuple):
            return tuple(map(self.host, x))
        return np.array(self.be.host(x)) if hasattr(x, "shape") else x

    # Passes over the cost.

    @each_shape
    @each_dtype
    @pytest.mark.parametrize("stored", [*both, None])
    def test_row_pass_is_a_softmax_of_each_row(self, rng, shape, dtype, stored):
        C, h, a, beta = cost(rng, shape, dtype)
        reg = 0.05
        Z = (h - C) / reg
        shift = logsumexp(Z + np.log(beta), axis=1)
        expected = np.exp(Z - shift[:, None])
        K = np.empty(shape if stored else (0, shape[1]), stored or "float64")
        sums, (*_, got, K) = self.run("row_pass", C, h, beta, reg, a, np.empty(shape[0]), K)
        np.testing.assert_allclose(got, shift, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(sums, expected.T @ a, rtol=1e-12)
        if stored:
            np.testing.assert_allclose(K, expected, rtol=1e-12 if stored == "float64" else 1e-7)

    @each_dtype
    def test_row_pass_gives_forbidden_edges_exactly_nothing(self, rng, dtype):
        C, h, a, beta = cost(rng, (40, 45), dtype)
        C[rng.random(C.shape) < 0.5] = np.inf
        C[3] = np.inf
        C[3, 7] = 0.5  # one edge only
        C[:, 11] = np.inf  # a point that nothing reaches
        args = (C, h, beta, 0.05, a, np.empty(40), np.empty((40, 45)))
        sums, (*_, shift, K) = self.run("row_pass", *args)
        np.testing.assert_array_equal(K == 0.0, np.isinf(C))
        np.testing.assert_allclose(K @ beta, np.ones(40), rtol=1e-13)
        np.testing.assert_allclose(sums, K.T @ a, rtol=1e-13)
        assert sums[11] == 0.0
        np.testing.assert_allclose(shift[3], (h[7] - 0.5) / 0.05 + np.log(beta[7]), rtol=1e-14)

    def test_rows_have_sum_one_to_rounding_however_large_the_exponents(self, rng):
        C, h, a, beta = cost(rng, (20, 50), "float64")
        args = (1e3 * C, 1e3 * h, beta, 1e-3, a, np.empty(20), np.empty((20, 50)))
        sums, (*_, K) = self.run("row_pass", *args)
        np.testing.assert_allclose(K @ beta, np.ones(20), rtol=1e-14)
        np.testing.assert_allclose(beta @ sums, a.sum(), rtol=1e-14)

    @each_dtype
    def test_only_differences_of_potentials_and_costs_count(self, rng, dtype):
        C, h, a, beta = cost(rng, (20, 50), dtype)
        # On a grid, so that adding a constant rounds nothing.
        C, h = np.round(64 * C).astype(dtype) / 64, np.round(64 * h) / 64
        answers = []
        for constant in (0.0, 1024.0):
            args = (C + C.dtype.type(constant), h + constant, beta, 1.23e-3, a)
            sums, (*_, shift, K) = self.run("row_pass", *args, np.empty(20), np.empty((20, 50)))
            answers.append((sums, shift, K))
        for moved, expected in zip(*answers, strict=True):
            np.testing.assert_array_equal(moved, expected)

    def test_a_row_without_any_edge_shows_in_every_sum(self, rng):
        C, h, a, beta = cost(rng, (6, 5), "float64")
        C[2] = np.inf
        sums, _ = self.run("row_pass", C, h, beta, 0.05, a, np.empty(6), np.empty((0, 5)))
        assert np.isnan(sums).all()

    @each_dtype
    def test_column_potential_makes_the_sums_of_its_columns_exact(self, rng, dtype):
        C, h, *_ = cost(rng, (300, 9), dtype)
        C[5, 1], a = np.inf, rng.dirichlet(np.ones(300))
        reg, shift, columns = 1e-3, rng.normal(0.0, 100.0, 300), np.array([1, 7, 8])
        _, (*_, got) = self.run("column_potential", C, shift, a, reg, columns, h)
        sums = logsumexp((got - C) / reg + (np.log(a) - shift)[:, None], axis=0)
        np.testing.assert_allclose(sums[columns], 0.0, atol=1e-11)
        np.testing.assert_array_equal(np.delete(got, columns), np.delete(h, columns))

    # A stored kernel.

    @each_shape
    @each_dtype
    def test_sweep_returns_the_sums_of_both_sides(self, rng, shape, dtype):
        K, v, a, rho, P = plan(rng, shape, dtype)
        sums, (*_, got) = self.run("sweep", K, v, a, np.empty(shape[0]))
        np.testing.assert_allclose(got, rho, rtol=RTOL[dtype])
        np.testing.assert_allclose(v * sums, a @ P, rtol=RTOL[dtype])

    @each_shape
    @each_dtype
    def test_row_peaks_are_the_first_largest_entries(self, rng, shape, dtype):
        K, v, *_ = plan(rng, shape, dtype)
        K, v = np.round(K * 8).astype(dtype) / 8, np.ones_like(v)  # many ties
        peaks, _ = self.run("row_peaks", K, v)
        np.testing.assert_array_equal(peaks, K.argmax(axis=1))
        assert peaks.dtype == np.int64

    @each_shape
    @each_dtype
    def test_laplacian_is_the_schur_complement(self, rng, shape, dtype):
        K, v, a, rho, P = plan(rng, shape, dtype)
        x = rng.standard_normal(shape[1]).astype(dtype).astype(float)
        y, _ = self.run("laplacian", K, v, rho, a, (K * v).argmax(axis=1), x)
        scale = np.abs(x).max() * (a @ P).max()
        np.testing.assert_allclose(y, schur(a, P) @ x, rtol=0, atol=4 * RTOL[dtype] * scale)

    @each_dtype
    def test_laplacian_of_a_constant_is_exactly_zero(self, rng, dtype):
        K, v, a, rho, _ = plan(rng, (20, 40), dtype)
        y, _ = self.run("laplacian", K, v, rho, a, (K * v).argmax(axis=1), np.full(40, 0.3))
        np.testing.assert_array_equal(y, np.zeros(40))

    @each_dtype
    def test_laplacian_of_nearly_a_permutation_keeps_its_digits(self, rng, dtype):
        K, v, a, rho, S, x = near_permutation(rng, 40, dtype)
        y, _ = self.run("laplacian", K, v, rho, a, (K * v).argmax(axis=1), x)
        links = np.abs(S) * np.abs(x[:, None] - x)
        assert (np.abs(y - S @ x) <= 1e-6 * links.sum(axis=1)).all()

    @each_shape
    @each_dtype
    def test_laplacian_diagonal_is_that_of_the_schur_complement(self, rng, shape, dtype):
        K, v, a, rho, P = plan(rng, shape, dtype)
        y, _ = self.run("laplacian_diagonal", K, v, rho, a, (K * v).argmax(axis=1))
        np.testing.assert_allclose(y, schur(a, P).diagonal(), rtol=1e-11)

    @each_dtype
    def test_laplacian_diagonal_of_nearly_a_permutation_keeps_its_digits(self, rng, dtype):
        K, v, a, rho, S, _ = near_permutation(rng, 40, dtype)
        y, _ = self.run("laplacian_diagonal", K, v, rho, a, (K * v).argmax(axis=1))
        np.testing.assert_allclose(y, S.diagonal().astype(float), rtol=1e-12)

    # A compressed kernel.

    @each_shape
    @each_dtype
    def test_sparse_row_pass_stores_what_is_above_the_cutoff(self, rng, shape, dtype):
        C, h, a, beta = cost(rng, shape, dtype)
        n, m = shape
        reg, cutoff = 0.05, 0.5 / m
        Z = (h - C) / reg
        shift = logsumexp(Z + np.log(beta), axis=1)
        K = np.exp(Z - shift[:, None])
        room = n * m + 8 * m
        ends = np.empty(n, np.int64)
        (sums, fitted), (*_, got, _, indices, values, starts, ends) = self.run(
            "sparse_row_pass",
            *(C, h, beta, reg, a, np.empty(n), cutoff),
            *(np.full(room, -1, np.int32), np.full(room, np.nan), ends.copy(), ends.copy()),
        )
        assert fitted is True
        np.testing.assert_allclose(got, shift, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(sums, K.T @ a, rtol=1e-12)
        assert starts[0] >= 0
        assert ends[-1] <= room
        assert (ends[:-1] <= starts[1:]).all()
        for i in range(n):
            kept = np.flatnonzero(K[i] * beta > cutoff)
            np.testing.assert_array_equal(indices[starts[i] : ends[i]], kept)
            np.testing.assert_allclose(values[starts[i] : ends[i]], K[i, kept], rtol=1e-12)

    def test_sparse_row_pass_says_when_the_room_is_too_small(self, rng):
        C, h, a, beta = cost(rng, (40, 50), "float64")
        expected, _ = self.run("row_pass", C, h, beta, 0.05, a, np.empty(40), np.empty((0, 50)))
        for room in (0, 10, 500):
            indices, values = np.empty(room, np.int32), np.empty(room)
            segments = np.empty(40, np.int64), np.empty(40, np.int64)
            args = (C, h, beta, 0.05, a, np.empty(40), 1e-9, indices, values, *segments)
            (sums, fitted), _ = self.run("sparse_row_pass", *args)
            assert fitted is False
            np.testing.assert_allclose(sums, expected, rtol=1e-13)

    @each_shape
    def test_a_compressed_kernel_does_what_the_dense_one_does(self, rng, shape):
        K, v, a, *_ = plan(rng, shape, "float64")
        K = thinned(rng, K)
        rho, csr = K @ v, compressed(K)
        P = K * v / rho[:, None]
        peaks, x = (K * v).argmax(axis=1), rng.standard_normal(shape[1])
        S = schur(a, P)

        sums, (*_, got) = self.run("csr_sweep", *csr, v, a, np.empty(shape[0]))
        np.testing.assert_allclose(got, rho, rtol=1e-13)
        np.testing.assert_allclose(v * sums, a @ P, rtol=1e-12)
        found, _ = self.run("csr_row_peaks", *csr, v)
        np.testing.assert_array_equal(found, peaks)
        y, _ = self.run("csr_laplacian", *csr, v, rho, a, peaks, x)
        np.testing.assert_allclose(y, S @ x, rtol=0, atol=1e-13 * np.abs(x).max())
        y, _ = self.run("csr_laplacian_diagonal", *csr, v, rho, a, peaks)
        np.testing.assert_allclose(y, S.diagonal(), rtol=1e-11, atol=1e-18)
        _, (*_, W) = self.run("csr_gram", *csr, v, rho, a, np.full((shape[1],) * 2, np.nan))
        np.testing.assert_allclose(W, -np.tril(S, -1), rtol=1e-12)

    def test_first_peaks_win_in_compressed_rows_too(self, rng):
        K = np.round(rng.random((50, 90)) * 4) / 4
        peaks, _ = self.run("csr_row_peaks", *compressed(K), np.ones(90))
        np.testing.assert_array_equal(peaks, K.argmax(axis=1))

    def test_a_compressed_permutation_keeps_its_digits(self, rng):
        K, v, a, rho, S, x = near_permutation(rng, 40, "float64")
        csr, peaks = compressed(K), (K * v).argmax(axis=1)
        y, _ = self.run("csr_laplacian", *csr, v, rho, a, peaks, x)
        links = np.abs(S) * np.abs(x[:, None] - x)
        assert (np.abs(y - S @ x) <= 1e-6 * links.sum(axis=1)).all()
        y, _ = self.run("csr_laplacian_diagonal", *csr, v, rho, a, peaks)
        np.testing.assert_allclose(y, S.diagonal().astype(float), rtol=1e-12)
        y, _ = self.run("csr_laplacian", *csr, v, rho, a, peaks, np.full(40, 0.3))
        np.testing.assert_array_equal(y, np.zeros(40))

    def test_an_empty_compressed_row_adds_nothing(self, rng):
        K, v, a, *_ = plan(rng, (9, 40), "float64")
        K = thinned(rng, K)
        K[4], a[4] = 0.0, 0.0
        csr = compressed(K)
        sums, (*_, rho) = self.run("csr_sweep", *csr, v, a, np.empty(9))
        full = np.arange(9) != 4
        np.testing.assert_allclose(sums, K[full].T @ (a[full] / rho[full]), rtol=1e-12)
        assert rho[4] == 0.0

    def test_results_are_arrays_of_the_back_end(self, rng):
        K, v, a, rho, _ = plan(rng, (5, 6), "float32")
        K, v, a, rho = self.put(K, v, a, rho)
        peaks = self.kernels.row_peaks(K, v)
        for out in (
            self.kernels.sweep(K, v, a, rho),
            self.kernels.laplacian(K, v, rho, a, peaks, v),
            self.kernels.laplacian_diagonal(K, v, rho, a, peaks),
        ):
            assert isinstance(out, self.be.xp.ndarray)
            assert out.dtype == np.float64
