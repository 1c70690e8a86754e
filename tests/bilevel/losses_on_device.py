"""Losses of linear models on CuPy arrays; runs where `cupy` is the stand-in."""

import pytest

from solvers._core.backend import get_backend
from tests.bilevel.losses_kernel_tests import LossesKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 128])
class TestCudaKernels(LossesKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be
