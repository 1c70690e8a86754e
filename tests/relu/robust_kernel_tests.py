"""What the kernels of robust training must compute, on whatever back end.

Test classes inherit from `RobustKernelTests` and bring the fixture `be`, the back end. Optimality
conditions are the oracles: what is asked for is the one point that satisfies them.
"""

import numpy as np
import pytest

HINGE, LOGISTIC, SQUARED = 0, 1, 2


def drawn(seed, n=12, d=4, P=5, far=0.05):
    """Samples with a column of ones that does not move, gates, radii and blocks."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    X[:, -1] = 1.0
    mask = (rng.standard_normal((P, d)) @ X.T >= 0).astype(np.uint8)
    eps = np.append(rng.uniform(0.5, 1.5, d - 1) * far, 0.0)
    return X, mask, eps, rng.standard_normal((2 * P, d))


def room(B, m):
    return np.zeros((B, m), np.int32), np.zeros((B, m)), np.zeros(B, np.int32)


class RobustKernelTests:
    """The kernels satisfy the conditions of optimality."""

    def run(self, be, name, *args):
        """Run a kernel on copies of arrays from the host; return all arrays afterwards."""
        args = [be.xp.array(a) if isinstance(a, np.ndarray) else a for a in args]
        getattr(be.kernels("solvers.relu", "robust"), name)(*args)
        return [np.array(be.host(a)) if hasattr(a, "shape") else a for a in args]

    def project(self, be, X, mask, eps, V, *, level=0.0, enough=0.0, start=None, tol=1e-11):
        start = start or room(len(V), X.shape[1] + 2)
        norm = np.empty(len(V))
        out = self.run(
            be, "project", X, mask, eps, level, enough, tol, V, np.empty_like(V), norm, *start
        )
        return out[7], out[8], out[9:]

    @pytest.mark.parametrize("far", [0.0, 0.02, 0.2])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_projection_is_the_nearest_point_of_the_robust_cone(self, be, seed, far):
        X, mask, eps, V = drawn(seed, far=far)
        U, norm, (index, weight, count) = self.project(be, X, mask, eps, V)
        assert np.allclose(norm, np.linalg.norm(U, axis=1), atol=1e-12)
        assert (norm > 1e-3).any()
        for b in range(len(V)):
            A = (2.0 * mask[b % len(mask)] - 1.0)[:, None] * X
            assert (A @ U[b] - eps @ abs(U[b])).min() > -1e-9
            # The way back is a normal of the cone, and the multipliers say which.
            assert abs(U[b] @ (V[b] - U[b])) < 1e-9
            alpha = np.zeros(len(X))
            alpha[index[b, : count[b]]] = weight[b, : count[b]]
            assert alpha.min() >= 0
            w = V[b] + A.T @ alpha
            soft = np.sign(w) * np.maximum(abs(w) - alpha.sum() * eps, 0)
            assert np.allclose(soft, U[b], atol=1e-9)

    def test_a_second_call_starts_where_the_first_ended(self, be):
        X, mask, eps, V = drawn(2)
        U, _, state = self.project(be, X, mask, eps, V)
        again, _, end = self.project(be, X, mask, eps, V, start=state)
        assert np.allclose(U, again, atol=1e-12)
        assert np.array_equal(state[2], end[2])
        # Another vector, from this start and from none, is projected to one point.
        there, _, _ = self.project(be, X, mask, eps, -V, start=state)
        fresh, _, _ = self.project(be, X, mask, eps, -V)
        assert np.allclose(there, fresh, atol=1e-8)

    def test_a_projection_that_is_short_enough_is_left_early(self, be):
        X, mask, eps, V = drawn(3)
        _, exact, _ = self.project(be, X, mask, eps, V)
        enough = float(np.median(exact[exact > 0]))
        _, norm, _ = self.project(be, X, mask, eps, V, enough=enough)
        long = exact > enough
        assert np.allclose(norm[long], exact[long], atol=1e-9)
        assert (norm[~long] <= enough).all()
        # Whatever has been found bounds the length from above.
        assert (norm >= exact - 1e-9).all()

    def test_with_a_level_it_finds_a_point_inside_or_that_there_is_none(self, be):
        X, mask, eps, _ = drawn(4, n=8, P=6, far=0.01)
        U, room_left, _ = self.project(be, X, mask, eps, np.zeros((6, 4)), level=1.0)
        assert (room_left > 1e-9).any()
        for u, left, gate in zip(U, room_left, mask, strict=True):
            if left > 1e-9:
                A = (2.0 * gate - 1.0)[:, None] * X
                assert (A @ u - eps @ abs(u)).min() >= left * (1 - 1e-6)
        # Samples that may go anywhere cross every plane; the column of ones stays, open for all.
        far = np.array([50.0, 50.0, 50.0, 0.0])
        _, room_left, _ = self.project(be, X, mask, far, np.zeros((6, 4)), level=1.0)
        assert np.array_equal(room_left > 1e-9, mask.all(axis=1) | ~mask.any(axis=1))

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    @pytest.mark.parametrize("loss", [HINGE, LOGISTIC, SQUARED])
    @pytest.mark.parametrize(("rho", "sigma"), [(0.7, 0.3), (0.02, 0.05), (30.0, 5.0)])
    def test_rows_meet_their_conditions(self, be, loss, rho, sigma, dtype):
        rng = np.random.default_rng(5)
        n, d, scale = 15, 4, 1.5
        eps = np.array([0.1, 0.3, 0.05, 0.0])
        y = rng.choice([-1.0, 1.0], (2, n)) if loss != SQUARED else rng.standard_normal((2, n))
        p0 = 3.0 * rng.standard_normal((2, n))
        q0 = rng.standard_normal((2, n, d)) * rng.choice([0.1, 1.0, 5.0], (2, n, 1))
        p0, q0, y = (a.astype(dtype) for a in (p0, q0, y))
        blank = np.empty_like(p0), np.empty_like(q0), np.empty_like(p0)
        args = loss, y, eps, scale, rho, sigma, p0, q0, *blank
        p, Q, w = self.run(be, "rows", *args)[-3:]
        near = {"atol": 1e-9 if dtype == np.float64 else 2e-4}
        far = (w / sigma)[..., None] * eps
        assert np.allclose(Q, np.sign(q0) * np.maximum(abs(q0) - far, 0), **near)
        size, z = abs(Q) @ eps, rho * (p - p0)
        margin = y * p - size
        if loss == HINGE:
            assert np.allclose(z, w * y, **near)
            assert ((w >= 0) & (w <= 1)).all()
            assert np.allclose(w * np.maximum(margin - 1, 0), 0, **near)
            assert np.allclose((1 - w) * np.maximum(1 - margin, 0), 0, **near)
        elif loss == LOGISTIC:
            assert np.allclose(z, w * y, **near)
            assert np.allclose(w, scale / (1 + np.exp(scale * margin)), **near)
        else:
            assert np.allclose(w, abs(p - y) + size, **near)
            assert (abs(z) <= w + 1e-4).all()
            # Off the target the whole price goes to the prediction.
            assert np.allclose((abs(z) - w) * abs(p - y), 0, atol=10 * near["atol"])
            assert (z * (p - y) <= near["atol"]).all()
