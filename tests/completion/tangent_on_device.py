"""Tangent kernels and the engines on them for CuPy arrays; `cupy` is the stand-in here."""

import cupy
import numpy as np
import pytest

from solvers import completion
from solvers._core.backend import get_backend
from tests.completion.tangent_kernel_tests import TangentKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 128])
class TestCudaKernels(TangentKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


def holes(noise):
    rng = np.random.default_rng(2)
    M = rng.standard_normal((12, 2)) @ rng.standard_normal((2, 10))
    M += noise * rng.standard_normal(M.shape)
    M[rng.random(M.shape) < 0.2] = np.nan
    return M


@pytest.mark.parametrize(
    "options",
    [
        {"method": "irls"},
        {"method": "gn"},
        {"method": "varpro"},
        {"method": "gn", "lam": 0.5, "weighted_lambda": True},
        {"method": "gn", "lam": 0.5, "bias": True},
        {"method": "gn", "implicit": True, "lam": 1.0},
        {"lam": 0.5, "bias": True},
        {},
    ],
    ids=lambda o: "-".join(map(str, o.values())) or "auto",
)
def test_the_device_gives_what_the_host_gives(options):
    M = holes(0.05 if "lam" in options else 0.0)
    here, there = (
        completion.alternating_minimization(x, 2, tol=1e-7, rng=0, **options)
        for x in (M, cupy.asarray(M))
    )
    assert isinstance(there.U, cupy.ndarray)
    assert there.success
    assert there.fun == pytest.approx(here.fun, rel=1e-6, abs=1e-9)
