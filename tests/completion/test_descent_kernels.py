"""The kernel along a line: the Numba one here, its CUDA twin where CuPy is the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from tests.completion.descent_kernel_tests import DescentKernelTests, entries


class TestNumbaKernel(DescentKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")

    @pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="needs two threads")
    def test_threads_share_the_rows(self, be, rng, monkeypatch):
        where, ptr, *arrays = entries(rng, 40, 30, 4, "float64")
        alone = self.along(be, ptr, where[1], *arrays)
        monkeypatch.setattr(threads, "_SMALL_WORK", 0)
        together = self.along(be, ptr, where[1], *arrays)
        np.testing.assert_array_equal(together[0], alone[0])
        np.testing.assert_allclose(together[2], alone[2], rtol=1e-13)


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twin_and_scaled_gradients_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "descent_on_device.py")
