"""The iteration of `relu.admm` on CuPy arrays; `cupy` is the stand-in here."""

import cupy
import pytest

from solvers import relu
from solvers._core.backend import get_backend
from tests.relu.kernel_tests import KernelTests
from tests.relu.oracles import data, patterns

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 256])
class TestCudaKernels(KernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_the_device_gives_what_the_host_gives(loss):
    X, y = data(25, 3, labels=True)
    D, _ = patterns(X, 6)
    options = {"beta": 0.3, "loss": loss, "gates": relu.Gates(D), "tol": 1e-3}
    here = relu.admm(X, y, **options)
    there = relu.admm(cupy.asarray(X), cupy.asarray(y), **options)
    assert isinstance(there.V, cupy.ndarray)
    assert there.success
    assert there.fun_convex == pytest.approx(here.fun_convex, rel=1e-9)
