"""What the pass over blocks must compute, on whatever back end; the oracles are SciPy's formulas.

Test classes inherit from `BlocksKernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest

from tests.bilevel.losses_kernel_tests import BEND, LOGISTIC, ONE, PAIR, TOL, bent, loss_of


class BlocksKernelTests:
    """Every block has its own rows and vectors."""

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("mode", [ONE, PAIR, BEND])
    def test_each_block_gets_losses_and_gradients_of_its_own(self, be, mode, weighted, dtype):
        rng = np.random.default_rng(mode)
        count, N, p, Q = 5, 38, 6, 4
        X, t = rng.standard_normal((90, p)), np.sign(rng.standard_normal(90))
        rows = rng.integers(90, size=(count, N))
        W = rng.standard_normal((count, Q, p))
        weights = rng.random((count, N)) if weighted else np.empty((count, 0))
        X, W, weights = (v.astype(dtype).astype(float) for v in (X, W, weights))
        out = Q // 2 if mode == BEND else Q
        losses, G = be.xp.empty((out, count, N)), be.xp.empty((count, out, p), dtype)
        arrays = [be.xp.array(v.astype(dtype)) for v in (X, t, weights, W)]
        be.kernels("solvers.bilevel", "losses").block_pass(
            arrays[0], be.xp.array(rows), *arrays[1:3], LOGISTIC, mode, 1, arrays[3], losses, G
        )
        losses, G = be.host(losses), be.host(G)
        for i in range(count):
            A, b, w = X[rows[i]], t[rows[i]], weights[i] if weighted else 1.0
            if mode == BEND:
                for f in range(out):
                    Z, V = A @ W[i, 2 * f][:, None], A @ W[i, 2 * f + 1][:, None]
                    self.close(G[i, f], (w * bent(LOGISTIC, b, Z, V)[:, 0]) @ A, dtype)
                    self.close(losses[f, i], loss_of(LOGISTIC, b, Z)[1][:, 0] * V[:, 0], dtype)
                continue
            steps = W[i].copy()
            if mode == PAIR:
                steps[1::2] += steps[::2]
            looks = [loss_of(LOGISTIC, b, A @ v[:, None]) for v in steps]
            for q, (values, slopes) in enumerate(looks):
                self.close(G[i, q], (w * slopes[:, 0]) @ A, dtype)
                before = looks[q - 1][0] if mode == PAIR and q % 2 else 0.0
                self.close(losses[q, i], values - before, dtype)

    def close(self, found, wanted, dtype):
        size = max(1.0, abs(wanted).max())
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2 * TOL[dtype] * size)
