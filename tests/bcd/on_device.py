"""Block coordinate descent on CuPy arrays; runs where `cupy` is the stand-in."""

from typing import NamedTuple

import cupy
import numpy as np
import pytest

from solvers import bcd, losses
from solvers._core.backend import get_backend
from tests.bcd.kernel_tests import KernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 256])
class TestCudaKernels(KernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("name", ["logistic", "huber", "sparse_regression"])
def test_models_are_solved_as_on_the_host(device, rng, name, intercept):
    X = rng.standard_normal((40, 30))
    z = X[:, :4].sum(axis=1) + rng.standard_normal(40)
    y = np.sign(z) if name == "logistic" else z
    fit = getattr(bcd, name)
    want = fit(X, y, 0.05, fit_intercept=intercept)
    got = fit(cupy.asarray(X), cupy.asarray(y), 0.05, fit_intercept=intercept)
    assert got.success
    np.testing.assert_allclose(cupy_be.host(got.x), want.x, atol=1e-6)


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
