"""What the kernels of sweeps must compute, on whatever back end.

Test classes inherit from `SweepsKernelTests` and bring the fixture `be`, the back end. Oracles are
loops in NumPy with the Python rules of losses and penalties.
"""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

from solvers import losses, penalties
from solvers._core.rules import function_of

LOSSES = [losses.Squared(), losses.Logistic(), losses.Huber(0.7)]
PENALTIES = [penalties.ElasticBox(0.05, 0.2, -0.6, 0.8), penalties.MCP(0.05, 30.0)]
RTOL = {"float32": 2e-4, "float64": 1e-9}
each_penalty = pytest.mark.parametrize("penalty", PENALTIES, ids=repr)


def rule(bound, name):
    return function_of(type(bound), name)


def sends(be):
    def send(value):
        return be.xp.asarray(value) if isinstance(value, np.ndarray) else value

    def many(*values):
        return [send(v) for v in values]

    return many


class SweepsKernelTests:
    @pytest.fixture
    def kernels(self, be):
        return be.kernels("solvers.bcd", "sweeps")

    def bound(self, be, penalty, size, dtype):
        here = penalties.bind(penalty, size, np.dtype(dtype))
        return here, penalties.bind(penalty, size, np.dtype(dtype), xp=be.xp)

    @pytest.mark.parametrize("loss", LOSSES, ids=repr)
    @pytest.mark.parametrize("t", [1.0, 1e-9])
    def test_changes_of_losses_are_known_however_small(self, be, kernels, rng, loss, t, dtype):
        y = np.sign(rng.normal(size=70)).astype(dtype)
        z, dz, s = (rng.normal(size=70).astype(dtype) for _ in range(3))
        bound = losses.bind(loss)
        value, slope = rule(bound, "value"), rule(bound, "derivative")
        rows = [tuple(map(float, row)) for row in zip(y, z, dz, s, strict=True)]
        want = sum(c * (value(bound, a, b + t * d) - value(bound, a, b)) for a, b, d, c in rows)
        if t < 1e-5:
            want = sum(c * t * d * slope(bound, a, b + 0.5 * t * d) for a, b, d, c in rows)
        got = kernels.loss_change(bound, *sends(be)(y, z, dz), t, be.xp.asarray(s))
        assert_allclose(be.host(got), want, rtol=1e-6)

    @pytest.mark.parametrize("t", [1.0, 1e-9])
    def test_changes_of_several_classes_are_known_however_small(self, be, kernels, rng, t, dtype):
        n, C = 40, 35
        y = rng.integers(0, C, n)
        z, dz = (rng.normal(size=(n, C)).astype(dtype) for _ in range(2))
        s = rng.random(n).astype(dtype)

        def slopes(z):
            q = np.exp(z - z.max(axis=1, keepdims=True))
            q /= q.sum(axis=1, keepdims=True)
            q[np.arange(n), y] -= 1.0
            return q

        # Gauss-Legendre along the step.
        nodes, weights = np.polynomial.legendre.leggauss(12)
        z64, d64 = z.astype(float), dz.astype(float)
        want = sum(
            0.5 * w * t * (s @ (slopes(z64 + 0.5 * (1 + x) * t * d64) * d64).sum(axis=1))
            for x, w in zip(nodes, weights, strict=True)
        )
        got = kernels.softmax_change(*sends(be)(y, z, dz), t, be.xp.asarray(s))
        assert_allclose(be.host(got), want, rtol=1e-6)

    @pytest.mark.parametrize("index", [np.int32, np.int64])
    def test_rows_are_added(self, be, kernels, rng, index, dtype):
        A = sp.random_array((50, 50), density=0.2, rng=rng, format="csr").astype(dtype)
        rows, d = np.array([3, 7, 49, 0]), rng.normal(size=4).astype(dtype)
        g = rng.normal(size=50).astype(dtype)
        want = g + A.toarray()[rows].T @ d
        sent = be.xp.asarray(g)
        matrix = A.indptr.astype(index), A.indices.astype(index), A.data
        kernels.add_rows(*sends(be)(*matrix, rows, d), sent)
        assert_allclose(be.host(sent), want, rtol=RTOL[dtype], atol=1e-5)

    @each_penalty
    def test_blocks_are_minimised_in_turn(self, be, kernels, rng, penalty):
        tau = 37
        R = rng.normal(size=(tau, 2 * tau))
        H, g, x = R @ R.T / tau, rng.normal(size=tau), np.full(tau, 0.1)
        here, there = self.bound(be, penalty, tau, float)
        prox, distance = rule(here, "prox"), rule(here, "distance")
        want_x, want_g, worst = x.copy(), g.copy(), 0.0
        for _ in range(3):
            worst = 0.0
            for j in range(tau):
                worst = max(worst, distance(here, want_x[j], want_g[j], j))
                L = H[j, j]
                new = prox(here, want_x[j] - want_g[j] / L, 1.0 / L, j)
                want_g += (new - want_x[j]) * H[j]
                want_x[j] = new
        H, g, x = sends(be)(H, g, x)
        got = kernels.block_sweeps(there, H, g, x, 3, 0.0)
        assert_allclose(float(got), worst, rtol=1e-9)
        assert_allclose(be.host(x), want_x, rtol=1e-10, atol=1e-14)
        assert_allclose(be.host(g), want_g, rtol=1e-9, atol=1e-12)
        assert float(kernels.block_sweeps(there, H, g, x, 200, 1e-3)) <= 1e-3

    # Each combination is a compilation, so not all of them.
    @pytest.mark.parametrize(
        ("loss", "penalty", "index"),
        [
            (LOSSES[0], PENALTIES[0], None),
            (LOSSES[1], PENALTIES[1], None),
            (LOSSES[0], PENALTIES[1], np.int32),
            (LOSSES[1], PENALTIES[0], np.int32),
        ],
    )
    def test_coefficients_are_swept(self, be, kernels, rng, loss, penalty, index, dtype):
        n, p = 45, 12
        X = rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.5)
        y, s = np.sign(rng.normal(size=n)), rng.random(n) / n
        squared = isinstance(loss, losses.Squared)
        mean = (s @ X) / s.sum() * squared
        L = (s @ (X * X) - s.sum() * mean**2) * (1.0 if squared else 0.25)
        L[4] = 0.0
        order = np.concatenate([rng.permutation(p), rng.integers(0, p, 5)])
        X, y, s = (v.astype(dtype) for v in (X, y, s))
        w, c, z = np.zeros(p, dtype), np.array([0.3 * squared]), np.zeros(n, dtype)
        bound = losses.bind(loss)
        slope = rule(bound, "derivative")
        here, there = self.bound(be, penalty, p, dtype)
        prox, distance = rule(here, "prox"), rule(here, "distance")

        def slopes(z):
            return np.array([s[i] * slope(bound, float(y[i]), z[i]) for i in range(n)])

        W, b, Z, worst = np.zeros(p), float(c[0]), np.zeros(n), 0.0
        r = slopes(Z).astype(dtype)
        for j in order:
            if L[j] == 0.0:
                continue
            # The intercept adds to predictions of a quadratic loss only.
            g = X[:, j].astype(float) @ (slopes(Z) + b * s * squared)
            worst = max(worst, distance(here, W[j], g, j))
            new = prox(here, W[j] - g / L[j], 1.0 / L[j], j)
            Z += (new - W[j]) * X[:, j]
            b -= (new - W[j]) * mean[j]
            W[j] = new
        csc = sp.csc_array(X)
        sent = sends(be)(y, s, mean, L, order, w, c, z, r)
        if index is None:
            columns = be.xp.asarray(np.ascontiguousarray(X.T))
            got = kernels.sweep_columns(bound, there, columns, *sent)
        else:
            matrix = csc.indptr.astype(index), csc.indices.astype(index), csc.data
            got = kernels.sweep_entries(bound, there, *sends(be)(*matrix), *sent)
        tol = {"rtol": RTOL[dtype], "atol": 1e-5 if dtype == "float32" else 1e-12}
        w, c, z, r = (be.host(v) for v in sent[5:])
        assert_allclose(w, W, **tol)
        assert_allclose(c, [b], **tol)
        assert_allclose(z, Z, **tol)
        assert_allclose(r, slopes(Z), **tol)
        assert_allclose(float(got), worst, rtol=1e-3)

    def quadratic(self, rng, N, dtype):
        R = rng.normal(size=(N, 2 * N)) * (rng.random((N, 2 * N)) < 0.2)
        A = R @ R.T / N + np.eye(N)
        A[2], A[:, 2] = 0.0, 0.0
        return A.astype(dtype), rng.normal(size=N).astype(dtype), np.full(N, 0.1, dtype)

    @pytest.mark.parametrize("relax", [1.0, 1.4])
    @pytest.mark.parametrize("index", [None, np.int32])
    def test_unknowns_of_quadratics_are_swept(self, be, kernels, rng, relax, index, dtype):
        N = 40
        A, g, x = self.quadratic(rng, N, dtype)
        order = rng.integers(0, N, 90)
        here, there = self.bound(be, penalties.ElasticBox(0.0, 0.1, -0.5, 0.7), N, dtype)
        prox = rule(here, "prox")
        want_x, want_g = x.astype(float), g.astype(float)
        for j in order:
            L = float(A[j, j])
            if L == 0.0:
                continue
            new = prox(here, want_x[j] - want_g[j] / L, 1.0 / L, j)
            new = np.clip(want_x[j] + relax * (new - want_x[j]), -0.5, 0.7)
            want_g += (new - want_x[j]) * A[j]
            want_x[j] = new
        csr = sp.csr_array(A)
        order, sent_x, sent_g = sends(be)(order, x.copy(), g.copy())
        if index is None:
            kernels.sweep_gram(there, be.xp.asarray(A), relax, order, sent_x, sent_g)
        else:
            matrix = csr.indptr.astype(index), csr.indices.astype(index), csr.data
            diagonal = A.diagonal().astype(float)
            matrix = sends(be)(*matrix, diagonal)
            kernels.sweep_rows(there, *matrix, relax, order, sent_x, sent_g)
        tol = {"rtol": RTOL[dtype], "atol": 1e-4 if dtype == "float32" else 1e-11}
        assert_allclose(be.host(sent_x), want_x, **tol)
        assert_allclose(be.host(sent_g), want_g, **tol)

    @pytest.mark.parametrize("rule_number", range(4))
    @each_penalty
    def test_greedy_steps_move_what_promises_most(self, be, kernels, rng, rule_number, penalty):
        N, steps = 40, 25
        A, g, x = self.quadratic(rng, N, float)
        L = A.diagonal().copy()
        here, there = self.bound(be, penalty, N, float)
        prox, distance, value = (rule(here, name) for name in ("prox", "distance", "value"))

        def promise(j):
            if L[j] == 0.0:
                return 0.0
            far, new = distance(here, x[j], g[j], j), prox(here, x[j] - g[j] / L[j], 1 / L[j], j)
            d = new - x[j]
            gain = value(here, x[j], j) - value(here, new, j) - d * (g[j] + 0.5 * L[j] * d)
            return (far, far * far / L[j], L[j] * d * d, gain)[rule_number]

        start = x.copy(), g.copy()
        for _ in range(steps):
            j = int(np.argmax([promise(j) for j in range(N)]))
            d = prox(here, x[j] - g[j] / L[j], 1 / L[j], j) - x[j]
            x[j] += d
            g += d * A[j]
        rows, slot, L, sent_x, sent_g = sends(be)(A, np.arange(N), L, *start)
        got = kernels.greedy_steps(there, rows, slot, L, rule_number, steps, sent_x, sent_g)
        assert tuple(map(int, got)) == (steps, -1)
        assert_allclose(be.host(sent_x), x, rtol=1e-9, atol=1e-12)
        assert_allclose(be.host(sent_g), g, rtol=1e-8, atol=1e-10)
        # Rows that are missing are asked for, and none is left to move at the optimum.
        nowhere = be.xp.asarray(np.full(N, -1))
        done, missing = kernels.greedy_steps(
            there, rows, nowhere, L, rule_number, 1, sent_x, sent_g
        )
        assert int(done) == 0
        assert 0 <= int(missing) < N

    def test_greedy_steps_end_where_nothing_is_to_be_gained(self, be, kernels):
        _, there = self.bound(be, penalties.L1(1.0), 3, float)
        rows, slot, L = sends(be)(np.eye(3), np.arange(3), np.ones(3))
        x, g = sends(be)(np.zeros(3), np.array([0.5, -1.0, 0.0]))
        assert tuple(map(int, kernels.greedy_steps(there, rows, slot, L, 0, 9, x, g))) == (0, -1)

    @pytest.mark.parametrize("index", [None, np.int32])
    def test_multipliers_are_swept_and_shrink(self, be, kernels, rng, index, dtype):
        n, p, C = 30, 7, 0.4
        X = (rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.7)).astype(dtype)
        X[5] = 0.0
        y = np.sign(rng.normal(size=n)).astype(dtype)
        square = (X.astype(float) ** 2).sum(axis=1)
        x = rng.choice([0.0, 0.1, C], n).astype(dtype)
        order = rng.permutation(n)
        above, below, count = 0.3, -0.3, n - 4
        want_x, w = x.astype(float), X.T.astype(float) @ (y * x)
        start, kept, slopes = w.astype(dtype), [], []
        top = float(np.asarray(C, dtype))
        for i in order[:count]:
            g = y[i] * (X[i] @ w) - 1.0
            if (want_x[i] <= 0 and g > above) or (want_x[i] >= top and g < below):
                continue
            kept.append(i)
            if not ((want_x[i] <= 0 and g > 0) or (want_x[i] >= top and g < 0)):
                slopes.append(g)
            new = np.clip(want_x[i] - g / square[i], 0, top) if square[i] else top
            w += (new - want_x[i]) * y[i] * X[i]
            want_x[i] = new
        sent = sends(be)(y, square, top, order.copy(), count, above, below, x, start, np.zeros(2))
        if index is None:
            got = kernels.hinge_sweep(be.xp.asarray(X), *sent)
        else:
            csr = sp.csr_array(X)
            matrix = csr.indptr.astype(index), csr.indices.astype(index), csr.data
            got = kernels.hinge_sweep_rows(*sends(be)(*matrix), *sent)
        tol = {"rtol": RTOL[dtype], "atol": 1e-5 if dtype == "float32" else 1e-12}
        assert int(got) == len(kept) < count
        assert_allclose(be.host(sent[7]), want_x, **tol)
        assert_allclose(be.host(sent[8]), w, **tol)
        assert_allclose(be.host(sent[9]), [min(slopes), max(slopes)], **tol)
        moved = be.host(sent[3])
        assert set(moved[: len(kept)]) == set(kept)
        assert set(moved) == set(range(n))
