"""The kernel of non-negative rows: Numba here, its CUDA twin where CuPy is the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from tests.completion.nonnegative_kernel_tests import NonnegativeKernelTests, rows


class TestNumbaKernel(NonnegativeKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")

    @pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="needs two threads")
    def test_threads_share_the_rows_and_change_no_bit(self, rng, monkeypatch):
        data = rows(rng, [10, 0, 30, 4] * 9, 5)
        alone = self.solve(data)
        monkeypatch.setattr(threads, "_SMALL_WORK", 0)
        together = self.solve(data)
        np.testing.assert_array_equal(together[0], alone[0])
        assert together[1] == alone[1]


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twin_passes_its_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "nonnegative_on_device.py")
