"""The kernel of stochastic loops: Numba's here, its CUDA twin on the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import pytest
from _cupy_standin import run_with_standin

from solvers._core.backend import get_backend
from tests.bilevel.single_loop_kernel_tests import SingleLoopKernelTests


class TestNumbaKernels(SingleLoopKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twin_passes_its_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "single_loop_on_device.py")
