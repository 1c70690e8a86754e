"""What the row solvers for large ranks must compute, on whatever back end.

Test classes inherit from `SketchKernelTests` and bring the fixture `be`, the back end. The oracle
is `numpy.linalg.lstsq` for each row, with the ridge as rows of its own.
"""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from solvers.completion import _large_rows

# How far a row may be from its minimiser, relative to the minimiser.
FAR = {"float32": 2e-4, "float64": 1e-9}
CASES = ("plain", "weights", "biases", "shared", "all of it")
METHODS = ("sketch", "unit sketch", "subspace")
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
each_case = pytest.mark.parametrize("case", CASES)
each_method = pytest.mark.parametrize("method", METHODS)


def systems(rng, lengths, k, case="plain", dtype="float64", n=None, noise=0.1):
    """Row systems of given lengths, and a start that is near their solution."""
    n = n or max(*lengths, 1) + 5
    everything = case == "all of it"
    idx = np.concatenate([np.sort(rng.choice(n, d, replace=False)) for d in lengths])
    ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    B = rng.standard_normal((n, k))
    offset = rng.standard_normal(n) if case == "biases" or everything else np.empty(0)
    if offset.size:
        B[:, 0] = 1.0
    X = rng.standard_normal((len(lengths), k))
    rows = np.repeat(np.arange(len(lengths)), lengths)
    val = np.einsum("pk,pk->p", X[rows], B[idx]) + noise * rng.standard_normal(idx.size)
    val += offset[idx] if offset.size else 0.0
    weight = rng.uniform(0.3, 3.0, idx.size) if case == "weights" or everything else np.empty(0)
    shared = 0.3 * B.T @ B if case == "shared" or everything else np.empty((0, 0))
    ridge = rng.uniform(0.5, 2.0, len(lengths)) if case != "plain" else np.zeros(len(lengths))
    parts = (ptr, idx.astype(np.int32), val, weight, B, offset, ridge, 0.7, shared)
    parts = [x.astype(dtype) if getattr(x, "dtype", None) == np.float64 else x for x in parts]
    return parts, (X + 0.3 * rng.standard_normal(X.shape)).astype(dtype)


def rows_of(parts):
    """Yield the design, the values and the ridge's Hessian of each row, weights included."""
    ptr, idx, *others = parts
    val, weight, B, offset, ridge, lam_bias, shared = (np.asarray(x, float) for x in others)
    for i, (first, last) in enumerate(pairwise(ptr)):
        j = idx[first:last]
        root = np.sqrt(weight[first:last]) if weight.size else np.ones(j.size)
        b = root * (val[first:last] - (offset[j] if offset.size else 0.0))
        diag = np.full(B.shape[1], ridge[i])
        if offset.size:
            diag[0] = lam_bias
        yield root[:, None] * B[j], b, np.diag(diag) + (shared if shared.size else 0.0)


def expected(parts, A):
    """Minimisers of smallest norm, gradients at A, and the weighted sum of squares there."""
    solved, grad, square = [], [], 0.0
    for (V, b, P), x in zip(rows_of(parts), A.astype(float), strict=True):
        s, Q = np.linalg.eigh(P)
        root = np.sqrt(np.maximum(s, 0.0))[:, None] * Q.T
        design, target = np.vstack([V, root]), np.concatenate([b, np.zeros(len(root))])
        solved.append(np.linalg.lstsq(design, target, rcond=1e-10)[0])
        grad.append(V.T @ (V @ x - b) + P @ x)
        square += np.sum((V @ x - b) ** 2)
    return np.array(solved), np.array(grad), square


class SketchKernelTests:
    """Both twins reach the minimisers, and say where they came from."""

    @pytest.fixture(autouse=True)
    def _be(self, be):
        self.be = be

    def solve(self, method, parts, A, eta=1e-12, steps=None, seed=3):
        """Run a row solver; return what it wrote and what it returned, on the host."""
        xp = self.be.xp
        steps = steps if steps is not None else 400 if method == "subspace" else 0
        inner = SimpleNamespace(name=method, eta=eta, steps=steps, rng=np.random.default_rng(seed))
        parts = tuple(xp.array(x) if isinstance(x, np.ndarray) else x for x in parts)
        x, grad = xp.array(A), xp.full(A.shape, np.nan, A.dtype)
        left = xp.zeros(A.shape, A.dtype)
        run = _large_rows.block_by_block if method == "subspace" else _large_rows.sketched
        square, count = run(self.be, parts, x, grad, left, inner)
        host = [np.array(self.be.host(y)) for y in (x, grad, left)]
        return *host, float(self.be.host(square)), count

    @each_dtype
    @each_case
    @each_method
    def test_rows_of_all_lengths_reach_their_minimiser(self, rng, method, case, dtype):
        # No entries, too few for an answer, for a sketch, and enough for any.
        parts, A = systems(rng, [0, 2, 3, 7, 24, 25, 40, 73, 90], 3, case, dtype)
        solved, grad, square = expected(parts, A)
        x, before, left, came_from, count = self.solve(method, parts, A)
        unique = slice(2, None) if case == "plain" and dtype == "float32" else slice(None)
        np.testing.assert_allclose(x[unique], solved[unique], atol=FAR[dtype] * abs(solved).max())
        np.testing.assert_allclose(before, grad, atol=1e-5 * abs(grad).max())
        assert came_from == pytest.approx(square, rel=1e-5)
        assert abs(left).max() <= FAR[dtype] * abs(grad).max()
        assert count > 0

    @each_case
    @pytest.mark.parametrize("k", [33, 64])
    def test_blocks_of_unknowns_meet_in_the_minimiser(self, rng, k, case):
        parts, A = systems(rng, [k + 30, 3 * k], k, case)
        solved, grad, _ = expected(parts, A)
        x, before, _, _, count = self.solve("subspace", parts, A, eta=1e-10)
        np.testing.assert_allclose(x, solved, atol=1e-7 * abs(solved).max())
        np.testing.assert_allclose(before, grad, atol=1e-11 * abs(grad).max())
        assert count > 2

    @each_method
    def test_a_gradient_that_is_left_is_the_one_at_the_answer(self, rng, method):
        k, steps = (40, 2) if method == "subspace" else (12, 0)
        parts, A = systems(rng, [30 * k, 40 * k], k, "all of it", noise=1.0)
        x, _, left, _, _ = self.solve(method, parts, A, eta=1e-3, steps=steps)
        _, grad, _ = expected(parts, x)
        start = np.linalg.norm(expected(parts, np.zeros_like(A))[1])
        np.testing.assert_allclose(left, grad, atol=1e-10 * start)
        assert 1e-8 * start < np.linalg.norm(grad) < 1e-1 * start

    def test_one_round_over_blocks_never_raises_the_objective(self, rng):
        parts, A = systems(rng, [60], 40, "plain")
        (V, b, _), = rows_of(parts)  # fmt: skip
        values = [np.sum((V @ A[0] - b) ** 2)]
        for steps in (1, 2, 5):
            x, *_ = self.solve("subspace", parts, A, steps=steps)
            values.append(np.sum((V @ x[0] - b) ** 2))
        assert np.all(np.diff(values) < 0)

    @pytest.mark.parametrize("method", ["sketch", "unit sketch"])
    def test_the_seed_decides_and_any_seed_serves(self, rng, method):
        parts, A = systems(rng, [90, 150], 3)
        first, again, other = (self.solve(method, parts, A, eta=1e-4, seed=s) for s in (1, 1, 2))
        np.testing.assert_array_equal(first[0], again[0])
        assert not np.array_equal(first[0], other[0])
        solved, *_ = expected(parts, A)
        for x in (first[0], other[0]):
            np.testing.assert_allclose(x, solved, atol=1e-3 * abs(solved).max())

    @pytest.mark.parametrize("method", ["sketch", "unit sketch"])
    def test_rows_that_take_too_many_steps_are_solved_directly(self, rng, method):
        parts, A = systems(rng, [90, 150], 3, "weights")
        solved, grad, _ = expected(parts, A)
        x, before, left, _, count = self.solve(method, parts, A, steps=1)
        np.testing.assert_allclose(x, solved, atol=1e-12)
        np.testing.assert_allclose(before, grad, atol=1e-10 * abs(grad).max())
        assert count == 2
        assert not left.any()

    @each_method
    def test_equal_unknowns_leave_the_row_to_the_direct_solver(self, rng, method):
        parts, A = systems(rng, [100], 3)
        parts[4][:, 2] = parts[4][:, 1]
        solved, *_ = expected(parts, A)
        x, *_ = self.solve(method, parts, A)
        np.testing.assert_allclose(x, solved, atol=1e-9)
