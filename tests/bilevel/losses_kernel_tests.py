"""What the kernels of linear models' losses must compute, on whatever back end.

Test classes inherit from `LossesKernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest
import scipy.sparse
from scipy.special import expit, log_softmax, softmax

SQUARED, LOGISTIC, HINGE, SOFTMAX = range(4)
ONE, PAIR, BEND = range(3)
TOL = {"float32": 3e-5, "float64": 1e-12}


def loss_of(kind, t, Z):
    """Return losses and slopes of predictions Z (N, k)."""
    if kind == SOFTMAX:
        hot = np.eye(Z.shape[1])[t.astype(int)]
        return -(hot * log_softmax(Z, axis=1)).sum(axis=1), softmax(Z, axis=1) - hot
    z = Z[:, 0]
    if kind == SQUARED:
        return 0.5 * (z - t) ** 2, (z - t)[:, None]
    if kind == LOGISTIC:
        return np.logaddexp(0, -t * z), (-t * expit(-t * z))[:, None]
    room = np.maximum(1 - t * z, 0)
    return 0.5 * room**2, (-t * room)[:, None]


def bent(kind, t, Z, V):
    """Return the curvature of the losses at Z along V."""
    if kind == SOFTMAX:
        share = softmax(Z, axis=1)
        return share * V - share * (share * V).sum(axis=1, keepdims=True)
    z = Z[:, 0]
    curvature = {
        SQUARED: np.ones_like(z),
        LOGISTIC: expit(z) * expit(-z),
        HINGE: (t * z < 1).astype(float),
    }
    return curvature[kind][:, None] * V


def targets(kind, n, k, rng):
    if kind == SQUARED:
        return rng.standard_normal(n)
    return rng.integers(k, size=n) if kind == SOFTMAX else np.sign(rng.standard_normal(n))


def sample(kind, n=21, p=7, k=1, seed=0, density=1.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) * (rng.random((n, p)) < density)
    return X, targets(kind, n, k, rng), rng


class LossesKernelTests:
    """The twins agree with formulas of SciPy."""

    # Of kinds, precisions and formats; what Numba has to compile anew for each costs seconds.
    every_case = True

    @pytest.fixture(autouse=True)
    def _kernels(self, be):
        self.be, self.xp = be, be.xp
        self.kernels = be.kernels("solvers.bilevel", "losses")

    def run(self, X, rows, t, weights, kind, mode, k, vectors, dtype, sparse):
        """Return losses (L, N) and gradients (O, k, p) of vectors (Q / k, k, p)."""
        xp, n_vectors = self.xp, len(vectors)
        families = n_vectors if mode == ONE else n_vectors // 2
        out = n_vectors if mode == PAIR else families
        W = vectors.reshape(-1, X.shape[1]).astype(dtype)
        weights = np.empty((families, 0)) if weights is None else weights
        losses = xp.empty((out, rows.size))
        args = xp.array(rows), *(xp.array(v.astype(dtype)) for v in (t, weights)), kind, mode, k
        if sparse:
            X = scipy.sparse.csr_array(X.astype(dtype))
            G = xp.empty((X.shape[1], out * k), np.dtype(dtype))
            parts = (xp.array(v) for v in (X.indptr, X.indices, X.data))
            self.kernels.csr_pass(*parts, *args, xp.array(np.ascontiguousarray(W.T)), losses, G)
            G = self.be.host(G).T
        else:
            G = xp.empty((out * k, X.shape[1]), np.dtype(dtype))
            self.kernels.dense_pass(xp.array(X.astype(dtype)), *args, xp.array(W), losses, G)
            G = self.be.host(G)
        assert G.dtype == dtype
        return self.be.host(losses), G.reshape(out, k, -1)

    def close(self, found, wanted, dtype):
        size = max(1.0, abs(wanted).max())
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOL[dtype] * size)

    @pytest.mark.parametrize("sparse", [False, True])
    @pytest.mark.parametrize("kind", [SQUARED, LOGISTIC, HINGE, SOFTMAX])
    @pytest.mark.parametrize("mode", [ONE, PAIR, BEND])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_pass_gives_losses_and_gradients(self, kind, mode, sparse, dtype):
        if dtype == "float32" and (sparse or kind == SOFTMAX) and not self.every_case:
            pytest.skip("compiles long, and tests nothing that others do not")
        k, points = 3 if kind == SOFTMAX else 1, 1 if mode == BEND else 2
        X, t, rng = sample(kind, k=k, density=0.4 if sparse else 1.0)
        X, t = (v.astype(dtype).astype(float) for v in (X, t))
        rows = rng.integers(X.shape[0], size=19)
        weights = rng.random((points, rows.size)).astype(dtype)
        vectors = rng.standard_normal((points if mode == ONE else 2 * points, k, X.shape[1]))
        vectors = vectors.astype(dtype).astype(float)
        losses, G = self.run(X, rows, t, weights, kind, mode, k, vectors, dtype, sparse)
        A, b = X[rows], t[rows]
        if mode == ONE:
            found = [loss_of(kind, b, A @ v.T) for v in vectors]
            expected = [loss for loss, _ in found]
            gradients = [(s * w[:, None]).T @ A for (_, s), w in zip(found, weights, strict=True)]
        elif mode == PAIR:
            expected, gradients = [], []
            for z, d, w in zip(vectors[0::2], vectors[1::2], weights, strict=True):
                (at_z, slopes_z), (at_y, slopes_y) = (
                    loss_of(kind, b, A @ v.T) for v in (z, z + d)
                )
                expected += [at_z, at_y - at_z]
                gradients += [(s * w[:, None]).T @ A for s in (slopes_z, slopes_y)]
        else:
            Z, V = (A @ v.T for v in vectors)
            expected = [(loss_of(kind, b, Z)[1] * V).sum(axis=1)]
            gradients = [(bent(kind, b, Z, V) * weights[0][:, None]).T @ A]
        self.close(losses, np.array(expected), dtype)
        self.close(G, np.array(gradients), dtype)

    @pytest.mark.parametrize("kind", [SQUARED, LOGISTIC, HINGE, SOFTMAX])
    def test_small_changes_keep_their_digits(self, kind):
        k = 3 if kind == SOFTMAX else 1
        X, t, rng = sample(kind, k=k)
        rows, z, d = np.arange(X.shape[0]), *rng.standard_normal((2, k, X.shape[1]))
        vectors = np.stack([z, 1e-9 * d])
        losses, _ = self.run(X, rows, t, None, kind, PAIR, k, vectors, "float64", False)
        # To first order, from the slopes: the next term is smaller by 1e-9.
        slopes = loss_of(kind, t, X @ z.T)[1]
        expected = 1e-9 * (slopes * (X @ d.T)).sum(axis=1)
        np.testing.assert_allclose(losses[1], expected, rtol=1e-6, atol=1e-17)

    @pytest.mark.parametrize("kind", [LOGISTIC, SOFTMAX])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_extreme_predictions_give_neither_infinity_nor_nan(self, kind, dtype):
        if dtype == "float32" and kind == SOFTMAX and not self.every_case:
            pytest.skip("compiles long, and tests nothing that others do not")
        k = 2 if kind == SOFTMAX else 1
        X = np.array([[1.0], [-1.0], [1e4], [-1e4]])
        t = np.array([1.0, 0.0, 1.0, 0.0]) if kind == SOFTMAX else np.array([1.0, 1, -1, -1])
        z, d = np.full((k, 1), -500.0), np.full((k, 1), 1400.0)
        if k == 2:
            z[0], d[0] = 500.0, -1400.0
        found, G = self.run(
            X, np.arange(4), t, None, kind, PAIR, k, np.stack([z, d]), dtype, False
        )
        at_z, at_y = (loss_of(kind, t, X @ v.T)[0] for v in (z, z + d))
        np.testing.assert_allclose(found, [at_z, at_y - at_z], rtol=1e-6)
        assert np.isfinite(G).all()

    def test_coefficients_that_no_cache_holds_give_the_same(self):
        X, t, rng = sample(LOGISTIC, n=21, p=7)
        where = np.sort(rng.permutation(600_000)[:7])
        wide = scipy.sparse.csr_array(
            (X.ravel(), np.tile(where, 21), 7 * np.arange(22)), shape=(21, 600_000)
        )
        w = rng.standard_normal(600_000)
        xp = self.xp
        losses, G = xp.empty((1, 21)), xp.empty((600_000, 1))
        args = xp.arange(21), xp.array(t), xp.empty((1, 0)), LOGISTIC, ONE, 1
        parts = (
            xp.array(v)
            for v in (wide.indptr.astype(np.int32), wide.indices.astype(np.int32), wide.data)
        )
        self.kernels.csr_pass(*parts, *args, xp.array(w[:, None]), losses, G)
        values, slopes = loss_of(LOGISTIC, t, X @ w[where, None])
        self.close(self.be.host(losses)[0], values, "float64")
        self.close(self.be.host(G)[where, 0], (X.T @ slopes)[:, 0], "float64")
        assert np.count_nonzero(self.be.host(G)) == 7
