"""Kernels of robust training, and training with them, for CuPy arrays; `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import relu
from solvers._core.backend import get_backend
from tests.relu.robust_kernel_tests import RobustKernelTests

cupy_be = get_backend("cupy")


class TestCudaKernels(RobustKernelTests):
    @pytest.fixture
    def be(self, device):
        device.block = 64
        return cupy_be


def test_robust_training_on_the_device_gives_what_the_host_gives():
    rng = np.random.default_rng(0)
    X = np.c_[rng.uniform(-1, 1, (10, 2)), np.ones(10)]
    y = np.where(X[:, 0] > 0, 1.0, -1.0)
    gates = rng.standard_normal((6, 3)) @ X.T >= 0
    options = {"beta": 0.3, "loss": "hinge", "robust_eps": np.array([0.02, 0.02, 0.0])}
    here = relu.admm(X, y, gates=gates.T, tol=1e-3, rng=0, **options)
    there = relu.admm(
        cupy.asarray(X), cupy.asarray(y), gates=cupy.asarray(gates.T), tol=1e-3, rng=0, **options
    )
    assert here.success
    assert there.success
    assert isinstance(there.V, cupy.ndarray)
    assert there.fun_convex == pytest.approx(here.fun_convex, rel=1e-6)
    attack = relu.attack_pgd(
        there.net, cupy.asarray(X), cupy.asarray(y), options["robust_eps"], steps=3, rng=0
    )
    assert isinstance(attack.X_adv, cupy.ndarray)
    host = relu.attack_pgd(here.net, X, y, options["robust_eps"], steps=3, rng=0)
    assert np.allclose(cupy_be.host(attack.loss), host.loss, atol=1e-6)
