"""The pass over blocks, and a run on it, for CuPy arrays; `cupy` is the stand-in here."""

import cupy
import numpy as np
import pytest

from solvers import bilevel
from solvers._core.backend import get_backend
from tests.bilevel.blocks_kernel_tests import BlocksKernelTests
from tests.bilevel.test_bsvrb import classifiers, quiet

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [64])
class TestCudaKernels(BlocksKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


@pytest.mark.parametrize("variant", ["v2", "v3"])
def test_a_run_on_the_device_takes_the_steps_of_one_on_the_host(variant):
    data = classifiers(m=4, sizes=(10, 8), p=3)

    def solve(xp):
        problem = bilevel.problems.MultiBlockLogistic(*map(xp.asarray, data))
        options = {"blocks": 2, "batch": 4, "epochs": 1, "rng": 0, "how": "penalty"}
        return quiet(bilevel.bsvrb, problem, variant=variant, **options)

    here, there = solve(np), solve(cupy)
    assert isinstance(there.x, cupy.ndarray)
    np.testing.assert_allclose(cupy_be.host(there.x), here.x, rtol=1e-7)
