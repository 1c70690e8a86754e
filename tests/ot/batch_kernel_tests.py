"""What the kernel of batches must compute, on whatever back end; oracles are dense formulas.

Test classes inherit from `BatchKernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest
from scipy.special import logsumexp

OPTIONS = 40, 8, 0.0, 0
WRITTEN = "damping", "f", "log_v", "error", "left", "counts"
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def problems(rng, count=3, n=9, m=7, dtype="float64"):
    """Costs, weights, sizes and column potentials to start from."""
    C = rng.random((count, n, m)).astype(dtype)
    a, b = rng.dirichlet(np.ones(n), count), rng.dirichlet(np.ones(m), count)
    return C, a, b, np.tile([n, m], (count, 1)), rng.normal(0.0, 0.1, (count, m))


def softmin(C, b, h, reg):
    return -reg * logsumexp((h - C) / reg + np.log(b), axis=1)


def column_sums(C, a, b, f, h, reg):
    return b * (a @ np.exp((f[:, None] + h - C) / reg))


class BatchKernelTests:
    """The twins agree with dense formulas."""

    @pytest.fixture(autouse=True)
    def _kernels(self, be):
        self.be = be

    def balance(self, C, a, b, sizes, h, *, reg=0.1, tol=1e-9, active=None, options=OPTIONS):
        """Run the kernel on arrays from the host; return `h` and all that it wrote, by name."""
        count = len(a)
        active = np.ones(count, bool) if active is None else np.array(active)
        reg, tol = (np.broadcast_to(x, count).astype(float) for x in (reg, tol))
        written = np.full(count, 1e-2), np.full(a.shape, 9.0), np.full(b.shape, 9.0)
        written = *written, *np.full((2, count), 9.0), np.zeros((count, 3), np.int64)
        args = [self.be.xp.array(x) for x in (C, a, b, sizes, reg, h, tol, active)]
        written = [self.be.xp.array(x) for x in written]
        with np.errstate(all="ignore"):  # which compiled code does not look at
            self.be.kernels("solvers.ot", "batches").balance(*args, options, *written)
        host = [np.array(self.be.host(x)) for x in (args[5], *written)]
        return dict(zip(("h", *WRITTEN), host, strict=True))

    @each_dtype
    @pytest.mark.parametrize("shape", [(1, 1, 1), (3, 9, 7), (2, 1, 5), (2, 5, 1), (1, 33, 40)])
    def test_rows_are_exact_at_the_start_and_columns_after_the_step(self, rng, shape, dtype):
        C, a, b, sizes, h = problems(rng, *shape, dtype)
        out = self.balance(C, a, b, sizes, h)
        np.testing.assert_array_equal(out["h"], h)
        for k in range(len(a)):
            np.testing.assert_allclose(out["f"][k], softmin(C[k], b[k], h[k], 0.1), atol=1e-12)
            error = np.abs(column_sums(C[k], a[k], b[k], out["f"][k], h[k], 0.1) - b[k]).sum()
            assert out["error"][k] == pytest.approx(error, abs=1e-12)
            moved = h[k] + 0.1 * out["log_v"][k]
            sums = column_sums(C[k], a[k], b[k], softmin(C[k], b[k], moved, 0.1), moved, 0.1)
            assert np.abs(sums - b[k]).sum() <= 1e-9
            assert out["left"][k] <= 1e-9

    def test_one_cost_may_be_that_of_all(self, rng):
        C, a, b, sizes, h = problems(rng)
        shared = self.balance(C[:1], a, b, sizes, h)
        repeated = self.balance(np.repeat(C[:1], 3, axis=0), a, b, sizes, h)
        for name in shared:
            np.testing.assert_array_equal(shared[name], repeated[name])

    def test_every_problem_has_its_own_temperature_and_tolerance(self, rng):
        C, a, b, sizes, h = problems(rng)
        reg, tol = np.array([1.0, 0.1, 0.03]), np.array([1e-2, 1e-6, 1e-10])
        together = self.balance(C, a, b, sizes, h, reg=reg, tol=tol)
        for k in range(3):
            one = [x[k : k + 1] for x in (C, a, b, sizes, h)]
            alone = self.balance(*one, reg=reg[k], tol=tol[k])
            for name in together:
                np.testing.assert_array_equal(together[name][k], alone[name][0])
        assert (together["left"] <= tol).all()

    def test_nothing_is_done_for_what_is_not_active(self, rng):
        data = problems(rng)
        out = self.balance(*data, active=[True, False, True])
        for name in ("f", "log_v", "error", "left"):
            assert (out[name][1] == 9.0).all()
            assert (out[name][[0, 2]] != 9.0).all()
        assert out["counts"][1].sum() == 0

    def test_points_past_the_sizes_do_not_exist(self, rng):
        C, a, b, sizes, h = problems(rng)
        sizes[1] = 6, 4
        C[1, 6:], C[1, :, 4:] = np.nan, np.nan
        a[1, 6:], b[1, 4:] = 0.0, 0.0
        a[1], b[1] = a[1] / a[1].sum(), b[1] / b[1].sum()
        out = self.balance(C, a, b, sizes, h)
        part = [C[1:2, :6, :4], a[1:2, :6], b[1:2, :4], sizes[1:2], h[1:2, :4]]
        alone = self.balance(*(np.ascontiguousarray(x) for x in part))
        np.testing.assert_array_equal(out["f"][1, :6], alone["f"][0])
        np.testing.assert_array_equal(out["log_v"][1, :4], alone["log_v"][0])
        assert (out["f"][1, 6:] == 9.0).all()

    def test_a_solved_problem_is_not_moved(self, rng):
        C, a, b, sizes, h = problems(rng)
        step = self.balance(C, a, b, sizes, h, tol=1e-12)["log_v"]
        out = self.balance(C, a, b, sizes, h + 0.1 * step)
        np.testing.assert_array_equal(out["log_v"], np.zeros_like(h))
        np.testing.assert_array_equal(out["left"], out["error"])
        assert out["counts"].sum() == 0

    def test_without_patience_only_the_rows_become_exact(self, rng):
        C, a, b, sizes, h = problems(rng)
        out = self.balance(C, a, b, sizes, h, options=(0, *OPTIONS[1:]))
        np.testing.assert_array_equal(out["log_v"], np.zeros_like(h))
        np.testing.assert_allclose(out["f"][2], softmin(C[2], b[2], h[2], 0.1), atol=1e-12)

    def test_options_bound_what_they_say(self, rng):
        data = problems(rng)
        plain = self.balance(*data, reg=0.02)["counts"]
        few = self.balance(*data, reg=0.02, options=(40, 8, 0.0, 2))["counts"]
        assert (few[:, 2] <= 2 * few[:, 1]).all()
        assert (plain[:, 2] > 2 * plain[:, 1]).any()
        exact = self.balance(*data, reg=0.02, options=(40, 8, 1e-9, 0))["counts"]
        assert (exact[:, 2] > plain[:, 2]).all()
        sweeps = self.balance(*data, reg=0.02, options=(40, 8, 0.0, -1))["counts"]
        assert (sweeps[:, 1:] == 0).all()
        assert (sweeps[:, 0] > plain[:, 0]).all()
        short = self.balance(*data, reg=0.02, options=(1, 1, 0.0, 0))["counts"]
        assert (short[:, :2].sum(axis=1) == 1).all()

    def test_small_temperatures_are_balanced_as_far_as_a_kernel_reaches(self, rng):
        C, a, b, sizes, h = problems(rng, 4, 20, 20)
        out = self.balance(C, a, b, sizes, 0.1 * h, reg=2e-3)
        assert (out["left"] < out["error"]).all()
        spread = np.ptp(out["log_v"], axis=1)
        assert ((out["left"] <= 1e-9) | (spread > 40)).all()

    @each_dtype
    def test_forbidden_edges_carry_nothing(self, rng, dtype):
        C, a, b, sizes, h = problems(rng, dtype=dtype)
        C[rng.random(C.shape) < 0.2] = np.inf
        out = self.balance(C, a, b, sizes, h)
        assert (out["left"] <= 1e-9).all()
        np.testing.assert_allclose(out["f"][0], softmin(C[0], b[0], h[0], 0.1), atol=1e-12)

    def test_a_column_that_underflows_is_set_directly(self, rng):
        C, a, b, sizes, h = problems(rng)
        h[1, 3] -= 100.0
        out = self.balance(C, a, b, sizes, h)
        np.testing.assert_array_equal(out["h"][[0, 2]], h[[0, 2]])
        others = np.arange(7) != 3
        np.testing.assert_array_equal(out["h"][1, others], h[1, others])
        f = softmin(C[1], b[1], h[1], 0.1)
        expected = -0.1 * logsumexp((f - C[1, :, 3]) / 0.1 + np.log(a[1]))
        assert out["h"][1, 3] == pytest.approx(expected, abs=1e-10)
        assert out["left"][1] <= 1e-9

    def test_a_row_without_any_edge_shows_in_the_error(self, rng):
        C, a, b, sizes, h = problems(rng)
        C[1, 4] = np.inf
        out = self.balance(C, a, b, sizes, h)
        assert np.isfinite(out["error"]).tolist() == [True, False, True]
        assert (out["left"][[0, 2]] <= 1e-9).all()

    def test_columns_of_almost_no_weight_do_not_decide_anything(self, rng):
        C, a, b, sizes, h = problems(rng)
        b[0, 2], h[0, 2] = 1e-14, -3.0
        b[0] /= b[0].sum()
        out = self.balance(C, a, b, sizes, h)
        assert (out["left"] <= 1e-9).all()
