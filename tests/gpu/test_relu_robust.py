"""Robust training on a real device: the kernels, and a run against NumPy."""

import numpy as np
import pytest

from solvers import relu
from solvers._core.backend import get_backend
from tests.relu.robust_kernel_tests import RobustKernelTests

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernels(RobustKernelTests):
    pass


@pytest.mark.parametrize("loss", ["hinge", "logistic", "squared"])
def test_the_device_gives_what_the_host_gives(be, loss):
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (60, 3))
    y = np.where(X[:, 0] * X[:, 1] > 0, 1.0, -1.0)
    options = {"beta": 0.1, "loss": loss, "robust_eps": 0.02, "bias": True, "n_gates": 30}
    here = relu.admm(X, y, tol=1e-4, maxiter=20000, rng=0, **options)
    there = relu.admm(
        be.xp.asarray(X), be.xp.asarray(y), tol=1e-4, maxiter=20000, rng=0, **options
    )
    assert there.success
    assert isinstance(there.V, be.xp.ndarray)
    assert there.robust_fun == pytest.approx(here.robust_fun, rel=2e-4)
