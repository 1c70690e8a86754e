"""Completion on CuPy arrays; runs where `cupy` is the stand-in (see `_cupy_standin`)."""

import pytest

from solvers._core.backend import get_backend
from tests.completion.kernel_tests import KernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 256])
class TestCudaKernels(KernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be
