"""The kernels of row systems: the Numba ones here, their CUDA twins where CuPy is the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from solvers.completion.kernels.rows import plain_tiles, tiles
from tests.completion.rows_kernel_tests import RowKernelTests, systems


class TestNumbaKernels(RowKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")

    @pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="needs two threads")
    @pytest.mark.parametrize("name", ["solve_rows", "cg_rows"])
    def test_threads_share_the_rows_and_change_no_bit(self, rng, monkeypatch, name):
        args, A = systems(rng, 9, "weighted", degrees=[0, 5, 90, 40, 9, 61, 2])
        more = (1e-6, 4) if name == "cg_rows" else ()
        alone = self.run(name, args, A, *more)
        monkeypatch.setattr(threads, "_SMALL_WORK", 0)
        together = self.run(name, args, A, *more)
        for one, several in zip(alone, together, strict=True):
            np.testing.assert_array_equal(several, one)


@pytest.mark.parametrize("name", ["add_products", "subtract_products", "set_products"])
@pytest.mark.parametrize("stop", [16, 24, 40])
def test_tiles_compute_what_their_plain_twins_do(rng, name, stop, dtype):
    V, G = rng.standard_normal((21, 40)).astype(dtype), rng.standard_normal((16, 40)).astype(dtype)
    expected = G.copy()
    getattr(tiles, name)(V, 3, 20, 8, 8, stop, G)
    getattr(plain_tiles, name)(V, 3, 20, 8, 8, stop, expected)
    np.testing.assert_allclose(G, expected, atol=1e-13 if dtype == "float64" else 1e-4)


def test_a_tile_may_replace_what_it_is_made_of(rng):
    G = rng.standard_normal((8, 32))
    expected = G[:, :8].T @ G[:, 8:]
    tiles.set_products(G, 0, 8, 0, 8, 32, G)
    np.testing.assert_allclose(G[:, 8:], expected, atol=1e-13)


def test_passes_compute_what_their_plain_twins_do(rng, dtype):
    V, x = rng.standard_normal((12, 24)).astype(dtype), rng.standard_normal(24).astype(dtype)
    target = rng.standard_normal(12).astype(dtype)
    tol = 1e-12 if dtype == "float64" else 1e-3
    out, expected = np.ones(24, dtype), np.ones(24, dtype)
    square = tiles.residual_pass(V, 8, x, target, out)
    assert square == pytest.approx(plain_tiles.residual_pass(V, 8, x, target, expected), rel=1e-5)
    np.testing.assert_allclose(out, expected, atol=tol)
    square = tiles.normal_pass(V, 12, x, out)
    assert square == pytest.approx(plain_tiles.normal_pass(V, 12, x, expected), rel=1e-5)
    np.testing.assert_allclose(out, expected, atol=tol)


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twins_and_the_engine_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "rows_on_device.py")
