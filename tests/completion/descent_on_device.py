"""Scaled gradients and growing ranks on CuPy arrays; `cupy` is the stand-in here."""

import cupy
import numpy as np
import pytest

from solvers import completion
from solvers._core.backend import get_backend
from tests.completion.descent_kernel_tests import DescentKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 128])
class TestCudaKernel(DescentKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


def holes(m=12, n=9):
    rng = np.random.default_rng(2)
    M = np.outer(rng.uniform(1.0, 2.0, m), rng.uniform(1.0, 2.0, n))
    M += 0.05 * rng.standard_normal(M.shape)
    M[rng.random(M.shape) < 0.3] = np.nan
    return M


@pytest.mark.parametrize(
    "solve",
    [
        lambda M: completion.scaled_gd(M, 1, lam_bias=1.0, bias=True, tol=1e-6, rng=0),
        lambda M: completion.soft_impute(M, 1.0, tol=1e-6, rng=0),
        lambda M: completion.alternating_minimization(M, 1, method="lmafit", tol=1e-6, rng=0),
    ],
    ids=["scaled_gd", "soft_impute", "lmafit"],
)
def test_the_device_gives_what_the_host_gives(solve):
    here, there = solve(holes()), solve(cupy.asarray(holes()))
    assert isinstance(there.U, cupy.ndarray)
    assert there.fun == pytest.approx(here.fun, rel=1e-6)
    assert there.success


def test_ranks_are_found_on_the_device():
    rank = completion.select_rank(cupy.asarray(holes()), rng=0).rank
    assert rank == completion.select_rank(holes(), rng=0).rank
