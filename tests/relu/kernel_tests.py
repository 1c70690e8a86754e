"""What the passes of the iteration must compute, on whatever back end; oracles are formulas.

Test classes inherit from `KernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest
from scipy.optimize import brentq

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
# Outputs, gates, samples and features.
each_shape = pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 33, 5), (1, 40, 300, 35)])
# Rounding of sums of up to a few dozen terms of size 1.
ATOL = {"float32": 3e-5, "float64": 1e-13}


class KernelTests:
    """The twins agree with dense formulas."""

    def kernels(self, be):
        return be.kernels("solvers.relu")

    def gates(self, be, rng, P, n):
        mask = rng.random((P, n)) < 0.5
        return mask, be.xp.asarray(mask.astype(np.uint8))

    @each_dtype
    @each_shape
    @pytest.mark.parametrize("sides", [1, 2])
    def test_sums_see_what_gates_let_through(self, be, rng, shape, sides, dtype):
        c, P, n, _ = shape
        mask, there = self.gates(be, rng, P, n)
        G = rng.standard_normal((c, sides, P, n)).astype(dtype)
        out = be.xp.full((c, n), 9.0, dtype=dtype)
        self.kernels(be).masked_sum(be.xp.asarray(G), there, out)
        total = (G[:, 0] * mask).sum(axis=1)
        expected = total - (G[:, 1] * mask).sum(axis=1) if sides == 2 else total
        np.testing.assert_allclose(be.host(out).reshape(c, n), expected, atol=ATOL[dtype])

    @each_dtype
    @each_shape
    def test_samples_are_spread_to_the_gates_that_see_them(self, be, rng, shape, dtype):
        c, P, n, _ = shape
        mask, there = self.gates(be, rng, P, n)
        z = rng.standard_normal((c, n)).astype(dtype)
        out = be.xp.full((c, P, n), 9.0, dtype=dtype)
        self.kernels(be).spread(be.xp.asarray(z), there, out)
        expected = np.where(mask, z[:, None, :], 0.0)
        np.testing.assert_array_equal(np.reshape(be.host(out), (c, P, n)), expected)

    @each_dtype
    @each_shape
    def test_copies_advance_and_are_reflected(self, be, rng, shape, dtype):
        c, P, n, _ = shape
        mask, there = self.gates(be, rng, P, n)
        signs = np.tile(2.0 * mask - 1.0, (2 * c, 1))
        G, T = rng.standard_normal((2, 2 * c * P, n)).astype(dtype)
        sent_G, sent_T = be.xp.array(G), be.xp.array(T)
        sums = self.kernels(be).advance(sent_G, sent_T, there, 1.6)
        S = np.maximum(T, 0.0)
        new = T + 1.6 * (signs * G - S)
        after = np.maximum(new, 0.0)
        expected = [np.square(a).sum() for a in (signs * G - after, after - S, signs * G - S)]
        np.testing.assert_allclose(
            be.host(sums), expected, rtol=1e-4 if dtype == "float32" else 1e-12
        )
        got_G, got_T = (np.reshape(a, T.shape) for a in be.host(sent_G, sent_T))
        np.testing.assert_allclose(got_T, new, atol=ATOL[dtype])
        np.testing.assert_allclose(got_G, signs * abs(new), atol=ATOL[dtype])

        # A step of no length leaves the copies and gives the same.
        out = be.xp.zeros_like(sent_T)
        self.kernels(be).advance(out, sent_T, there, 0.0)
        again, still = (np.reshape(a, T.shape) for a in be.host(out, sent_T))
        np.testing.assert_array_equal(again, got_G)
        np.testing.assert_array_equal(still, got_T)

    @each_dtype
    @each_shape
    def test_blocks_move_and_shrink_towards_zero(self, be, rng, shape, dtype):
        c, P, _, d = shape
        U, T, V = rng.standard_normal((3, 2 * c * P, d)).astype(dtype)
        T[0] = V[0] = U[0] = 0.0
        there = [be.xp.array(a) for a in (U, T, V)]
        t = float(np.sqrt(d))
        sums = self.kernels(be).shrink(*there, t, 1.6)
        moved = T + 1.6 * (U - V)
        norms = np.linalg.norm(moved, axis=1, keepdims=True)
        new = np.where(norms > t, moved * (1.0 - t / np.where(norms > 0, norms, 1.0)), 0.0)
        expected = [np.square(a).sum() for a in (U - new, new - V, U - V)]
        np.testing.assert_allclose(
            be.host(sums), expected, rtol=1e-4 if dtype == "float32" else 1e-12
        )
        _, got_T, got_V = (np.reshape(a, T.shape) for a in be.host(*there))
        np.testing.assert_allclose(got_T, moved, atol=ATOL[dtype])
        np.testing.assert_allclose(got_V, new, atol=ATOL[dtype])

    @pytest.mark.parametrize("scale", [1.0, 2.0])
    @pytest.mark.parametrize("rho", [1e-2, 1.0, 50.0])
    @each_dtype
    def test_the_logistic_prox_is_stationary(self, be, rng, scale, rho, dtype):
        # At -1.33..., scale 2 and rho 0.01, Newton's method goes to and fro for ever.
        a = np.append(10.0 * rng.standard_normal(60), [-1.3345155853725454, 0.0, 300.0, -300.0])
        a = a.astype(dtype)
        out = be.xp.empty(a.size, dtype=dtype)
        rho = np.full(a.size, rho, dtype=dtype)
        rho[::3] *= 2.0
        self.kernels(be).logistic(be.xp.asarray(a), scale, be.xp.asarray(rho), out)

        def slope(m, start, reach):
            e = np.exp(-abs(scale * m))
            return m - start - reach * (e if m > 0 else 1.0) / (1.0 + e)

        reach = scale / rho.astype(float)
        expected = [
            brentq(slope, x - 1.0, x + far + 1.0, (x, far), 1e-14)
            for x, far in zip(a.astype(float), reach, strict=True)
        ]
        eps = np.finfo(dtype).eps
        error = abs(be.host(out) - np.array(expected)) / (abs(a) + reach)
        assert error.max() <= 100 * eps
