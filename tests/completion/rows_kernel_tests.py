"""What the kernels of row systems must compute, on whatever back end; the oracle is lstsq.

Test classes inherit from `RowKernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest

VARIANTS = ["plain", "ridge", "weighted", "biased", "implicit"]
each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def systems(rng, k, variant="ridge", dtype="float64", degrees=None):
    """Row systems with 0, 1, k - 1, k and 10 k entries, as kernels take them, and a start."""
    degrees = [0, 1, max(k - 1, 0), k, k + 1, 4 * k, 10 * k] if degrees is None else degrees
    n = max(10 * k + 3, *degrees)
    ptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    idx = np.concatenate([np.sort(rng.choice(n, d, replace=False)) for d in degrees])
    idx = idx.astype(np.int32)
    B, val = rng.standard_normal((n, k)), rng.standard_normal(idx.size)
    weight, offset, shared = np.empty(0), np.empty(0), np.empty((0, 0))
    if variant in ("weighted", "biased", "implicit"):
        weight = rng.uniform(0.2, 3.0, idx.size)
    if variant == "biased":
        B[:, 0], offset = 1.0, rng.standard_normal(n)
    if variant == "implicit":
        shared = B.T @ B
    ridge = np.full(len(degrees), 0.0 if variant == "plain" else 0.7) * np.arange(1, len(ptr))
    arrays = [x.astype(dtype) for x in (val, weight, B, offset, ridge)]
    A = rng.standard_normal((len(degrees), k)).astype(dtype)
    return (ptr, idx, *arrays, 0.3, shared.astype(dtype)), A


def dense(args, i):
    """Return the design, the targets and the penalty's Hessian of a row, in float64."""
    ptr, idx, val, weight, B, offset, ridge, lam_bias, shared = args
    p = slice(ptr[i], ptr[i + 1])
    X, y = B[idx[p]].astype(float), val[p].astype(float)
    D = np.full(B.shape[1], float(ridge[i]))
    if offset.size:
        y, D[0] = y - offset[idx[p]], lam_bias
    root = np.sqrt(weight[p].astype(float))[:, None] if weight.size else 1.0
    H = np.diag(D) + (shared if shared.size else 0.0)
    return root * X, np.ravel(root * y[:, None]), H


def minimiser(args, i):
    """Return the minimiser of smallest norm, by lstsq on the stacked system."""
    X, y, H = dense(args, i)
    values, vectors = np.linalg.eigh(H)
    stacked = np.concatenate([X, np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T])
    return np.linalg.lstsq(stacked, np.concatenate([y, np.zeros(len(H))]), rcond=1e-9)[0]


def gradient(args, i, x):
    X, y, H = dense(args, i)
    return X.T @ (X @ x - y) + H @ x


def squares(args, A):
    total = 0.0
    for i, x in enumerate(A):
        X, y, _ = dense(args, i)
        total += np.sum((X @ x - y) ** 2)
    return total


class RowKernelTests:
    """The twins agree with lstsq."""

    @pytest.fixture(autouse=True)
    def _kernels(self, be):
        self.be = be

    def run(self, name, args, A, *more):
        """Run a kernel on arrays from the host; return A, gradients, square and steps."""
        xp = self.be.xp
        args = [x if isinstance(x, float) else xp.asarray(x) for x in args]
        A, grad, left = xp.array(A), xp.full(A.shape, 9.0, A.dtype), xp.zeros(A.shape, A.dtype)
        out = (grad, left) if name == "cg_rows" else (grad,)
        kernel = getattr(self.be.kernels("solvers.completion", "rows"), name)
        square, steps = kernel(*args, A, *out, *more)
        A, grad, left = (np.array(self.be.host(x)) for x in (A, grad, left))
        return A, grad, left, float(square), int(steps)

    @each_dtype
    @each_variant
    @pytest.mark.parametrize("k", [1, 2, 3, 8, 17, 67])
    def test_direct_solves_are_those_of_lstsq(self, rng, k, variant, dtype):
        args, A = systems(rng, k, variant, dtype)
        X, grad, _, square, steps = self.run("solve_rows", args, A)
        exact = dtype == "float64"
        assert X.dtype == dtype
        assert steps == 0
        assert square == pytest.approx(squares(args, A), rel=1e-10 if exact else 1e-4)
        for i, x in enumerate(A):
            g = gradient(args, i, x.astype(float))
            np.testing.assert_allclose(
                grad[i], g, atol=(1e-11 if exact else 1e-4) * np.abs(g).max() + 1e-12
            )
            expected = minimiser(args, i)
            if exact:
                np.testing.assert_allclose(X[i], expected, atol=1e-7 * np.abs(expected).max())
            else:
                # What single precision finds is judged by the system that it solves.
                rest = gradient(args, i, X[i].astype(float))
                scale = np.linalg.norm(g) + np.linalg.norm(gradient(args, i, 0.0 * x))
                assert np.linalg.norm(rest) <= 1e-3 * scale

    @each_variant
    @pytest.mark.parametrize("k", [1, 5, 24])
    def test_conjugate_gradients_reach_what_direct_solves_give(self, rng, k, variant):
        args, A = systems(rng, k, variant)
        expected, grad, *_ = self.run("solve_rows", args, A)
        X, before, left, square, steps = self.run("cg_rows", args, A, 1e-13, 200)
        np.testing.assert_allclose(X, expected, atol=1e-8 * np.abs(expected).max())
        np.testing.assert_allclose(before, grad, atol=1e-10 * np.abs(grad).max())
        assert square == pytest.approx(squares(args, A), rel=1e-10)
        assert steps > 0
        for i, x in enumerate(X):
            np.testing.assert_allclose(
                left[i], gradient(args, i, x), atol=1e-9 * max(np.abs(grad[i]).max(), 1.0)
            )

    @each_variant
    def test_a_few_steps_improve_every_row_and_tell_what_is_left(self, rng, variant):
        k = 12
        args, A = systems(rng, k, variant, degrees=[10 * k] * 4)
        X, _, left, _, steps = self.run("cg_rows", args, A, 0.0, 2)
        assert steps == 2 * len(A)
        for i, x in enumerate(X):
            np.testing.assert_allclose(left[i], gradient(args, i, x), atol=1e-9)
            best, there, here = minimiser(args, i), A[i], x
            design, _, H = dense(args, i)
            H = H + design.T @ design
            before, after = (d @ H @ d for d in (there - best, here - best))
            assert after < 0.2 * before

    def test_a_loose_tolerance_takes_fewer_steps(self, rng):
        args, A = systems(rng, 10, degrees=[100] * 5)
        loose, tight = (self.run("cg_rows", args, A, eta, 100)[-1] for eta in (1e-2, 1e-10))
        assert 0 < loose < tight

    def test_rows_without_entries_become_zero_and_nothing_is_nan(self, rng):
        args, A = systems(rng, 6, "plain", degrees=[0, 3, 0])
        X, grad, *_ = self.run("solve_rows", args, A)
        assert (X[[0, 2]] == 0.0).all()
        assert np.isfinite(X).all()
        assert (grad[[0, 2]] == 0.0).all()

    def test_entries_that_do_not_fit_into_the_buffer_are_taken_in_turns(self, rng):
        # 144,000 numbers of a row are more than the 131,072 of the buffer.
        args, A = systems(rng, 7, "weighted", degrees=[18000, 3])
        X, grad, _, square, _ = self.run("solve_rows", args, A)
        np.testing.assert_allclose(X[0], minimiser(args, 0), rtol=1e-9)
        np.testing.assert_allclose(grad[0], gradient(args, 0, A[0]), rtol=1e-9, atol=1e-8)
        assert square == pytest.approx(squares(args, A), rel=1e-10)
        Y, *_ = self.run("cg_rows", args, A, 1e-14, 100)
        np.testing.assert_allclose(Y, X, rtol=1e-9)
