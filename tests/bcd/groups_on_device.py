"""Kernels for blocks for CuPy arrays; `cupy` is the stand-in here."""

import pytest

from solvers._core.backend import get_backend
from tests.bcd.groups_kernel_tests import GroupsKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 128])
class TestCudaKernels(GroupsKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be
