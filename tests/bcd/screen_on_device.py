"""Passes over coefficients and columns on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import bcd
from solvers._core.backend import get_backend
from tests.bcd.screen_kernel_tests import ScreenKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 256])
class TestCudaKernels(ScreenKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_a_lasso_on_the_device_is_that_on_the_host(device, rng, order, fit_intercept):
    X = np.asarray(rng.normal(size=(30, 50)), order=order)
    y = X[:, :4].sum(axis=1) + 1.0
    host = bcd.lasso(X, y, 0.1, fit_intercept=fit_intercept)
    there = cupy.asarray(X, order=order)
    res = bcd.lasso(there, cupy.asarray(y), 0.1, fit_intercept=fit_intercept)
    assert res.success
    assert isinstance(res.x, cupy.ndarray)
    np.testing.assert_allclose(cupy_be.host(res.x), host.x, atol=1e-10)
