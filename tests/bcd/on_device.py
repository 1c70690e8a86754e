"""Block coordinate descent on CuPy arrays; runs where `cupy` is the stand-in."""

from typing import NamedTuple

import cupy
import pytest

from solvers import losses
from solvers._core.backend import get_backend
from tests.bcd.kernel_tests import KernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 256])
class TestCudaKernels(KernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


def test_a_users_loss_has_no_cuda_rules(device):
    class Logistic(NamedTuple):
        """Not the library's."""

    rules = dict.fromkeys(("value", "derivative", "curvature"), _rule)
    losses.register(Logistic, **rules)
    x = cupy.zeros(3)
    with pytest.raises(TypeError, match="`Logistic` has no CUDA rules"):
        cupy_be.kernels("solvers.bcd").loss_sum(losses.bind(Logistic()), x, x, x)


def _rule(loss, y, z):
    return z
