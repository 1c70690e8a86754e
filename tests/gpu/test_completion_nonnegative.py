"""Non-negative factors on a real device: the kernel against SciPy, solves against NumPy."""

import numpy as np
import pytest

from solvers._core.backend import get_backend
from solvers.completion import alternating_minimization
from tests.completion.nonnegative_kernel_tests import NonnegativeKernelTests

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernel(NonnegativeKernelTests):
    pass


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nonnegative_factors_are_those_for_numpy_arrays(be, dtype):
    rng = np.random.default_rng(0)
    X = rng.random((300, 4)) @ rng.random((4, 200))
    rows, cols = np.nonzero(rng.random(X.shape) < 0.3)
    vals = (X[rows, cols] + 0.05 * rng.standard_normal(rows.size)).astype(dtype)
    options = {"shape": X.shape, "lam": 1.0, "nonnegative": True, "rng": 0}
    options["tol"] = 1e-4 if dtype == "float32" else 1e-8
    expected = alternating_minimization((rows, cols, vals), 4, **options)
    arrays = tuple(map(be.xp.asarray, (rows, cols, vals)))
    res = alternating_minimization(arrays, 4, **options)
    assert res.success
    assert res.U.dtype == dtype
    U, s, V = be.host(res.U, res.s, res.V)
    atol = 1e-2 if dtype == "float32" else 1e-5
    np.testing.assert_allclose((U * s) @ V.T, (expected.U * expected.s) @ expected.V.T, atol=atol)
