"""Stochastic loops on CuPy arrays; runs where `cupy` is the stand-in."""

import numpy as np
import pytest

from solvers import bilevel
from solvers._core.backend import get_backend
from tests.bilevel.single_loop_kernel_tests import SingleLoopKernelTests
from tests.bilevel.test_penalty_sgd import Ridge

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 128])
class TestCudaKernels(SingleLoopKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


def test_a_whole_run_gives_what_it_gives_on_the_host(device):
    device.block = 32
    ridge = Ridge(n=64, m=64, p=3)
    results = []
    for xp in (np, cupy_be.xp):
        data = (xp.asarray(v) for v in (ridge.A, ridge.b, ridge.V, ridge.c))
        problem = bilevel.problems.RidgeHPO(*data)
        results.append(
            bilevel.penalty_sgd(problem, batch=16, epochs=2, tol=10.0, lr=0.1, lr_upper=1.0, rng=0)
        )
    host, there = (res.x for res in results)
    assert isinstance(there, cupy_be.xp.ndarray)
    np.testing.assert_allclose(cupy_be.host(there), host, rtol=1e-9)
