"""The kernel of batches: the Numba one here, its CUDA twin where CuPy is the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from tests.ot.batch_kernel_tests import BatchKernelTests, problems


class TestNumbaKernel(BatchKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")

    @pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="needs two threads")
    def test_threads_share_the_problems_and_change_no_bit(self, rng, monkeypatch):
        data = problems(rng, 5)
        alone = self.balance(*data)
        monkeypatch.setattr(threads, "_SMALL_WORK", 0)
        together = self.balance(*data)
        for name in alone:
            np.testing.assert_array_equal(together[name], alone[name])


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twin_and_batches_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "batch_on_device.py")
