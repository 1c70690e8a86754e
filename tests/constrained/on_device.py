"""Sketch and project on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers._core.backend import get_backend
from solvers.constrained import sketch_project
from solvers.constrained.sketches import SKETCHES
from tests.constrained.kernel_tests import KernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 128])
class TestCudaKernels(KernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


# The stand-in draws no normal numbers, and does not multiply sparse matrices.
DENSE = [(sketch, "dense") for sketch in SKETCHES if "gaussian" not in sketch]
SPARSE = [(sketch, "csr") for sketch, kind in SKETCHES.items() if kind.entries]


@pytest.mark.parametrize(("sketch", "form"), DENSE + SPARSE)
def test_systems_are_solved_on_the_device(device, sketch, form):
    device.block = 32
    rng = np.random.default_rng(0)
    A = rng.standard_normal((12, 12)) / 6 + 2 * np.eye(12)
    x = rng.standard_normal(12)
    matrix = cupy.asarray(A)
    if form == "csr":
        matrix = cupy_be.sparse.csr_matrix(matrix)
    res = sketch_project(matrix, cupy.asarray(A @ x), sketch=sketch, rng=0, tol=1e-6)
    assert res.success
    assert isinstance(res.x, cupy.ndarray)
    np.testing.assert_allclose(cupy_be.host(res.x), x, rtol=0, atol=1e-5)
