"""Stochastic loops on CuPy arrays; runs where `cupy` is the stand-in."""

import pytest

from solvers._core.backend import get_backend
from tests.bilevel.single_loop_kernel_tests import SingleLoopKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 128])
class TestCudaKernels(SingleLoopKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be
