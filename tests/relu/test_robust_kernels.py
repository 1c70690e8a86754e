"""The kernels of robust training: the Numba ones here, the CUDA twins on the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import pytest
from _cupy_standin import run_with_standin

from solvers._core.backend import get_backend
from tests.relu.robust_kernel_tests import RobustKernelTests


class TestNumbaKernels(RobustKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twins_and_robust_training_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "robust_on_device.py")
