"""Row solvers for large ranks on CuPy arrays; runs where `cupy` is the stand-in."""

import pytest

from solvers._core.backend import get_backend
from tests.completion.sketch_kernel_tests import SketchKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 64])
class TestCudaSketchKernels(SketchKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be
