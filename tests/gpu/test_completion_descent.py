"""Scaled gradients and growing ranks on a real device: the kernel, and solves against NumPy."""

import pytest

from solvers import completion
from solvers._core.backend import get_backend
from tests.completion.descent_kernel_tests import DescentKernelTests
from tests.completion.test_scaled_gd import planted

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernel(DescentKernelTests):
    pass


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", ["scaled_gd", "lmafit", "soft_impute"])
def test_the_device_gives_what_the_host_gives(be, method, dtype):
    rows, cols, vals, X = planted(300, 200, 4, 0.4, 0, noise=0.1)
    options = {"shape": X.shape, "rng": 0, "tol": 1e-3 if dtype == "float32" else 1e-8}

    def solve(*arrays):
        if method == "soft_impute":
            return completion.soft_impute(arrays, 10.0, **options)
        return completion.alternating_minimization(arrays, 4, method=method, **options)

    expected = solve(rows, cols, vals)
    res = solve(*map(be.xp.asarray, (rows, cols, vals.astype(dtype))))
    assert res.success
    assert res.U.dtype == dtype
    assert res.fun == pytest.approx(expected.fun, rel=1e-3 if dtype == "float32" else 1e-7)


def test_the_rank_is_found(be):
    rows, cols, vals, X = planted(300, 200, 4, 0.4, 0, noise=0.1)
    arrays = tuple(map(be.xp.asarray, (rows, cols, vals)))
    assert completion.select_rank(arrays, shape=X.shape, rng=0).rank == 4
