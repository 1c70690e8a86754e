"""Non-negative factors on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers._core.backend import get_backend
from solvers.bcd import nmf
from tests.bcd.factors_kernel_tests import FactorsKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 128])
class TestCudaKernel(FactorsKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


@pytest.mark.parametrize("init", ["nndsvd", "random"])
def test_factors_are_those_for_numpy_arrays(device, init):
    device.block = 32
    rng = np.random.default_rng(0)
    V = rng.random((12, 2)) @ rng.random((2, 9)) + 0.1 * rng.random((12, 9))
    expected = nmf(V, 2, init=init, rng=0, tol=1e-5)
    res = nmf(cupy.asarray(V), 2, init=init, rng=0, tol=1e-5)
    assert res.success
    assert isinstance(res.W, cupy.ndarray)
    W, H = cupy_be.host(res.W, res.H)
    np.testing.assert_allclose(W @ H, expected.W @ expected.H, rtol=0, atol=1e-3)
