"""Kernels on graphs on CuPy arrays; runs where `cupy` is the stand-in."""

import pytest

from solvers._core.backend import get_backend
from tests.bcd.graph_kernel_tests import GraphKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 64])
class TestCudaKernels(GraphKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be
