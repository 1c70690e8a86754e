"""Non-negative factors on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers._core.backend import get_backend
from solvers.completion import alternating_minimization
from tests.completion.nonnegative_kernel_tests import NonnegativeKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 128])
class TestCudaKernel(NonnegativeKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


def planted(dtype="float64"):
    rng = np.random.default_rng(0)
    X = rng.random((14, 2)) @ rng.random((2, 12))
    rows, cols = np.nonzero(rng.random(X.shape) < 0.7)
    vals = X[rows, cols] + 0.05 * rng.standard_normal(rows.size)
    return rows.astype(np.int32), cols.astype(np.int32), vals.astype(dtype)


@pytest.mark.parametrize("options", [{"lam": 0.3}, {"lam": 0.5, "implicit": True}], ids=str)
def test_nonnegative_factors_are_those_for_numpy_arrays(device, options):
    device.block = 32
    options = {"shape": (14, 12), "nonnegative": True, "tol": 1e-7, "rng": 0, **options}
    expected = alternating_minimization(planted(), 2, **options)
    res = alternating_minimization(tuple(map(cupy.asarray, planted())), 2, **options)
    assert res.success
    assert isinstance(res.U, cupy.ndarray)
    U, s, V = cupy_be.host(res.U, res.s, res.V)
    close = (expected.U * expected.s) @ expected.V.T
    np.testing.assert_allclose((U * s) @ V.T, close, rtol=0, atol=1e-5)
    assert min(U.min(), V.min()) >= 0
