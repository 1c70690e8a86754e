"""Sweeps and block methods on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import bcd, penalties
from solvers._core.backend import get_backend
from tests.bcd.sweeps_kernel_tests import SweepsKernelTests

rng0 = np.random.default_rng(0)
X = rng0.standard_normal((30, 6))
Y = X[:, 0] - X[:, 1] + 0.1 * rng0.standard_normal(30)
RULES = [
    {"block_size": 3, "update": "exact"},
    {"block_size": 3, "update": "two_metric"},
    {"block_size": 3, "update": "lipschitz_ls", "selection": "gs"},
    {"partition": "order", "block_size": 1, "selection": "cyclic", "update": "gradient"},
    {"block_size": 1, "selection": "gs", "update": "gradient"},
]


@pytest.mark.parametrize("block", [32, 256])
class TestCudaKernels(SweepsKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return get_backend("cupy")


def agree(fit, tol=1e-6):
    """A call of device arrays gives what the same call of host arrays does."""
    there, here = fit(cupy.asarray), fit(np.asarray)
    assert isinstance(there.x, cupy.ndarray)
    assert there.success
    np.testing.assert_allclose(there.x.get(), here.x, atol=tol)


@pytest.mark.parametrize("rules", RULES)
def test_blocks_are_moved(device, rules):
    def fit(put):
        problem = bcd.Problem(put(X), put(Y), penalty=penalties.L1(0.05), fit_intercept=True)
        return bcd.minimize(problem, tol=1e-10, **rules)

    agree(fit)


@pytest.mark.parametrize(
    "options",
    [{}, {"bounds": (0.0, 1.0)}, {"method": "cg"}, {"method": "cd"}, {"method": "bcd"}],
)
def test_quadratics_are_solved(device, options):
    agree(lambda put: bcd.quadratic(put(X.T @ X), put(X.T @ Y), tol=1e-10, **options))


@pytest.mark.parametrize("options", [{}, {"kernel": "rbf"}, {"method": "bcd"}])
def test_support_vector_machines_are_solved(device, options):
    agree(lambda put: bcd.svm_dual(put(X), put(np.sign(Y)), 0.5, tol=1e-12, **options), tol=1e-4)


@pytest.mark.parametrize("method", ["cd", "anderson"])
def test_coefficients_are_swept_to_the_optimum(device, method):
    agree(lambda put: bcd.lasso(put(X), put(Y), 0.05, method=method, tol=1e-10))
