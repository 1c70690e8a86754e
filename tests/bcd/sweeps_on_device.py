"""Sweeps on CuPy arrays; runs where `cupy` is the stand-in."""

import pytest

from solvers._core.backend import get_backend
from tests.bcd.sweeps_kernel_tests import SweepsKernelTests


@pytest.mark.parametrize("block", [32, 256])
class TestCudaKernels(SweepsKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return get_backend("cupy")
