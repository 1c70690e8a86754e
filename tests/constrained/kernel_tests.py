"""What the kernels of sketch-and-project must compute, on whatever back end.

Test classes inherit from `KernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest
import scipy.sparse as sp


def system(rows=13, columns=9, seed=0, density=0.5):
    """Return a matrix with a row of zeros, and a right-hand side that x = 1 solves."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((rows, columns)) * (rng.random((rows, columns)) < density)
    A[3] = 0.0
    return A, A.sum(axis=1)


def compressed(A, be):
    csr = sp.csr_matrix(A)
    parts = csr.data, csr.indices.astype(np.int32), csr.indptr.astype(np.int64)
    return tuple(be.xp.asarray(part) for part in parts)


def projected(A, b, block, x):
    """Return the point nearest to x that solves some equations."""
    return x + np.linalg.pinv(A[block]) @ (b[block] - A[block] @ x)


class KernelTests:
    """The twins agree with projections in plain NumPy."""

    @pytest.fixture(autouse=True)
    def _kernels(self, be):
        self.be, self.kernels = be, be.kernels("solvers.constrained")

    def on(self, *arrays):
        return [self.be.xp.array(a) if isinstance(a, np.ndarray) else a for a in arrays]

    def matrix(self, A, form):
        return compressed(A, self.be) if form == "csr" else (self.be.xp.asarray(A),)

    def kernel(self, name, form):
        return getattr(self.kernels, name + ("_csr" if form == "csr" else ""))

    @pytest.mark.parametrize("form", ["dense", "csr"])
    def test_steps_over_single_rows_are_projections_in_their_order(self, form):
        A, b = system()
        order = np.array([4, 0, 3, 12, 0, 7])
        squares = (A**2).sum(axis=1)
        inverse = np.divide(1.0, squares, out=np.zeros_like(squares), where=squares > 0)
        x = expected = np.linspace(-1, 1, 9)
        for i in order:
            expected = projected(A, b, [i], expected)
        rest = self.on(b, inverse, order, x)
        self.kernel("kaczmarz", form)(*self.matrix(A, form), *rest)
        np.testing.assert_allclose(self.be.host(rest[-1]), expected, rtol=0, atol=1e-12)

    def blocks(self, A, size=4):
        """Return scale, blocks and factors of a system with independent rows."""
        scale = 1.0 / np.linalg.norm(A, axis=1)
        blocks = np.random.default_rng(1).permutation(12).reshape(-1, size)
        W = (A * scale[:, None])[blocks]
        return scale, blocks, np.linalg.cholesky(W @ W.transpose(0, 2, 1))

    def steps(self, A, b, form, order, x, z, eta, v):
        scale, blocks, factors = self.blocks(A)
        squares = np.zeros(len(order))
        rest = self.on(b, scale, blocks, factors, order, z, eta, v, x, squares)
        self.kernel("block_kaczmarz", form)(*self.matrix(A, form), *rest)
        return blocks, *self.be.host(*rest[-3:])

    @pytest.mark.parametrize("form", ["dense", "csr"])
    def test_steps_over_blocks_are_projections_in_their_order(self, form):
        A = np.random.default_rng(2).standard_normal((12, 9))
        x = expected = np.linspace(-1, 1, 9)
        b, order = A.sum(axis=1), np.array([2, 0, 1, 2])
        blocks, _, found, squares = self.steps(A, b, form, order, x, 0.0, 0.0, x)
        for step, place in enumerate(order):
            W = A[blocks[place]]
            unit = np.linalg.norm(W, axis=1)
            gap = (W @ expected - b[blocks[place]]) / unit
            assert squares[step] == pytest.approx(gap @ gap, rel=1e-9)
            expected = projected(A, b, blocks[place], expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)

    @pytest.mark.parametrize("form", ["dense", "csr"])
    def test_momentum_adds_what_earlier_steps_moved(self, form):
        A = np.random.default_rng(3).standard_normal((12, 9))
        x, v, z, eta = np.linspace(-1, 1, 9), np.linspace(0.5, 0, 9), 0.7, 0.2
        b, order = A.sum(axis=1), np.array([1, 0, 2])
        blocks, velocity, found, _ = self.steps(A, b, form, order, x, z, eta, v)
        for place in order:
            w = projected(A, b, blocks[place], x) - x
            v = z * (v + w)
            x = x + w + eta * v
        np.testing.assert_allclose(found, x, rtol=0, atol=1e-10)
        np.testing.assert_allclose(velocity, v, rtol=0, atol=1e-10)

    def test_gram_matrices_of_compressed_rows_are_products(self):
        A, _ = system()
        scale, blocks = np.linspace(1, 2, 13), np.array([[0, 3, 5], [12, 7, 1]])
        gram = np.full((2, 3, 3), np.nan)
        rest = self.on(scale, blocks, 9, gram)
        self.kernels.gram_csr(*compressed(A, self.be), *rest)
        W = (A * scale[:, None])[blocks]
        expected = W @ W.transpose(0, 2, 1)
        np.testing.assert_allclose(self.be.host(rest[-1]), expected, rtol=0, atol=1e-12)
