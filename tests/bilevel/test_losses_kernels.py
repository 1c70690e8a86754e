"""The kernels of linear models' losses: Numba here, CUDA twins where CuPy is the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from tests.bilevel.losses_kernel_tests import LOGISTIC, PAIR, LossesKernelTests, sample


class TestNumbaKernels(LossesKernelTests):
    every_case = False

    @pytest.fixture
    def be(self):
        return get_backend("numpy")

    @pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="needs two threads")
    @pytest.mark.parametrize("sparse", [False, True])
    def test_threads_share_the_rows_in_the_same_way_every_time(self, sparse, monkeypatch):
        X, t, rng = sample(LOGISTIC, n=301, density=0.5)
        vectors, rows = rng.standard_normal((2, 1, 7)), np.arange(301)
        args = X, rows, t, None, LOGISTIC, PAIR, 1, vectors, "float64", sparse
        losses, G = self.run(*args)
        monkeypatch.setattr(threads, "_SMALL_WORK", 0)
        shared, H = self.run(*args)
        np.testing.assert_array_equal(shared, losses)
        np.testing.assert_allclose(H, G, rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(self.run(*args)[1], H)


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twins_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "losses_on_device.py")
