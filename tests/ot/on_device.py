"""Transport on CuPy arrays; runs where `cupy` is the stand-in (see `_cupy_standin`)."""

import pytest
from _cuda_on_cpu import POLICIES, schedule

from solvers._core.backend import get_backend
from tests.ot.kernel_tests import KernelTests


@pytest.mark.parametrize("block", [32, 64, 128, 256])
class TestCudaKernels(KernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return get_backend("cupy")
