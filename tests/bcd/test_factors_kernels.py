"""The kernel of non-negative factors: Numba here, its CUDA twin where CuPy is the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from tests.bcd.factors_kernel_tests import FactorsKernelTests


class TestNumbaKernels(FactorsKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")

    @pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="needs two threads")
    def test_threads_share_the_rows_and_change_no_bit(self, monkeypatch):
        rng = np.random.default_rng(0)
        B, R, X = rng.standard_normal((9, 4)), rng.random((60, 4)), rng.random((60, 4))
        alone = self.moved(B.T @ B, R, 0.1, 5, X)
        monkeypatch.setattr(threads, "_SMALL_WORK", 0)
        np.testing.assert_array_equal(self.moved(B.T @ B, R, 0.1, 5, X), alone)


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twin_passes_its_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "factors_on_device.py")
