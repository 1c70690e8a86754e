"""What the kernels for blocks must compute, on whatever back end; oracles are dense formulas.

Test classes inherit from `GroupsKernelTests` and bring the fixture `be`, the back end.
"""

import itertools

import numpy as np
import pytest
import scipy.optimize as so
import scipy.sparse as sp

PTR = np.array([0, 1, 4, 6, 11], np.int64)


def drawn(rng, number=11):
    """Blocks, coefficients with zeros, a gradient, and weights."""
    w = rng.standard_normal(number) * (rng.random(number) < 0.7)
    w[1:4] = 0.0
    l1, ridge = rng.uniform(0.0, 0.5, number), np.full(number, 0.2)
    # Where there is no norm, each coefficient has a ridge of its own.
    ridge[0] = 0.7
    return w, rng.standard_normal(number), l1, np.array([0.0, 0.6, 1.5, 0.3]), ridge


def value(w, l1, l2, ridge, ptr=PTR):
    norms = sum(a * np.linalg.norm(w[s:e]) for a, s, e in zip(l2, ptr, ptr[1:], strict=False))
    return norms + l1 @ abs(w) + 0.5 * ridge @ w**2


class GroupsKernelTests:
    """The kernels agree with dense formulas."""

    def run(self, be, name, *args):
        """Run a kernel on copies of arrays from the host; return all arrays afterwards."""
        args = [be.xp.array(a) if isinstance(a, np.ndarray) else a for a in args]
        getattr(be.kernels("solvers.bcd", "groups"), name)(*args)
        return [np.array(be.host(a)) if hasattr(a, "shape") else a for a in args]

    def test_a_distance_is_that_to_the_nearest_subgradient(self, be, rng):
        w, g, l1, l2, ridge = drawn(rng)
        out = self.run(be, "block_distances", PTR, l1, l2, ridge, w, g, np.empty(4))[-1]
        for b, (s, e) in enumerate(itertools.pairwise(PTR)):
            # Subgradients: l1 u + l2 v, |u| <= 1, |v| <= 1, fixed where w is not zero.
            zero, size = w[s:e] == 0, np.linalg.norm(w[s:e])
            low = np.where(zero, -l1[s:e], np.sign(w[s:e]) * l1[s:e])
            high = np.where(zero, l1[s:e], low)
            base = g[s:e] + ridge[s:e] * w[s:e] + (l2[b] * w[s:e] / size if size else 0.0)
            nearest = np.linalg.norm(base + np.clip(-base, low, high))
            if size == 0:
                nearest = max(nearest - l2[b], 0.0)
            assert out[b] == pytest.approx(nearest, abs=1e-12)

    def test_bounds_are_above_the_eigenvalues_and_not_far(self, be, rng):
        A = rng.standard_normal((20, 11))
        H = A.T @ A
        out = self.run(be, "block_bounds", H, PTR, np.empty(4))[-1]
        for bound, s, e in zip(out, PTR, PTR[1:], strict=False):
            top = np.linalg.eigvalsh(H[s:e, s:e])[-1]
            assert top <= bound * (1 + 1e-12)
            assert bound <= top * (e - s) ** 0.5 * (1 + 1e-12)

    def model(self, rng, C):
        """Columns, weights of samples, probabilities, and the matrix that they stand for."""
        n, m = 30, 11 // C if C > 1 else 11
        A = rng.standard_normal((m, n)) * (rng.random((m, n)) < 0.6)
        D = rng.uniform(0.5, 1.0, n) / n
        if C == 1:
            return A, D, np.zeros((0, n)), (A * D) @ A.T
        Q = rng.dirichlet(np.ones(C), n).T.copy()
        bends = np.array([np.diag(q) - np.outer(q, q) for q in Q.T])
        H = np.einsum("fi,i,ikl,gi->fkgl", A, D, bends, A).reshape(m * C, m * C)
        return A, D, Q, H

    def check(self, w, H, g0, w0, l1, l2, ridge, ptr):
        """No direction leads downhill."""

        def objective(x):
            return g0 @ (x - w0) + 0.5 * (x - w0) @ H @ (x - w0) + value(x, l1, l2, ridge, ptr=ptr)

        best = so.minimize(objective, w, method="Powell", options={"xtol": 1e-10, "ftol": 1e-14})
        assert objective(w) <= best.fun + 1e-9
        assert objective(w) < objective(w0)

    def test_sweeps_over_a_matrix_end_at_the_minimiser(self, be, rng):
        w, g, l1, l2, ridge = drawn(rng)
        *_, H = self.model(rng, 1)
        H = H + 0.01 * np.eye(11)
        bound = self.run(be, "block_bounds", H, PTR, np.empty(4))[-1]
        out = self.run(be, "block_sweeps", H, PTR, l1, l2, ridge, bound, w, g, 3000, 1e-13)
        np.testing.assert_allclose(out[7], g + H @ (out[6] - w), atol=1e-12)
        self.check(out[6], H, g, w, l1, l2, ridge, PTR)

    @pytest.mark.parametrize("C", [1, 3])
    @pytest.mark.parametrize("sparse", [False, True])
    def test_sweeps_over_columns_end_at_the_minimiser(self, be, rng, C, sparse):
        A, D, Q, H = self.model(rng, C)
        ptr = PTR if C == 1 else np.array([0, 3, 9], np.int64)
        w, _, l1, l2, ridge = (part[: H.shape[0]] for part in drawn(rng))
        l2, l1 = 0.05 * l2[-(ptr.size - 1) :], 0.02 * l1
        ridge[0] = ridge[0] if l2[0] == 0.0 else ridge[1]
        R = 0.1 * rng.standard_normal((max(C, 1), D.size))
        bound = np.array([np.trace(H[s:e, s:e]) for s, e in itertools.pairwise(ptr)])
        csr = sp.csr_array(A)
        start, idx = csr.indptr.astype(np.int32), csr.indices.astype(np.int32)
        columns = (start, idx, csr.data) if sparse else (A,)
        name = "sparse_column_sweeps" if sparse else "column_sweeps"
        model = D, Q, ptr, l1, l2, ridge, bound, w, R, 3000, 1e-14
        *_, new, slopes, _, _ = self.run(be, name, *columns, *model)
        np.testing.assert_allclose(
            (A @ slopes.T).ravel(), (A @ R.T).ravel() + H @ (new - w), atol=1e-12
        )
        self.check(new, H, (A @ R.T).ravel(), w, l1, l2, ridge, ptr)

    def test_a_block_without_curvature_stays(self, be):
        H, zeros = np.diag([0.0, 2.0]), np.zeros(2)
        ptr, bound = np.array([0, 1, 2], np.int64), np.array([0.0, 2.0])
        state = zeros.copy(), np.array([-1.0, -4.0])
        out = self.run(be, "block_sweeps", H, ptr, zeros, zeros, zeros, bound, *state, 5, 0.0)
        assert out[6].tolist() == [0.0, 2.0]
