"""Row solvers and alternating minimisation on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import completion
from solvers._core.backend import get_backend
from tests.completion.rows_kernel_tests import RowKernelTests, systems

cupy_be = get_backend("cupy")


class TestCudaKernels(RowKernelTests):
    @pytest.fixture
    def be(self, device):
        device.block = 64
        return cupy_be


@pytest.mark.parametrize("name", ["solve_rows", "cg_rows"])
def test_the_size_of_a_block_changes_nothing_but_rounding(rng, device, name):
    args, A = systems(rng, 9, "weighted", degrees=[0, 5, 90, 9])
    found = []
    for block in (32, 256):
        device.block = block
        tests = RowKernelTests()
        tests.be = cupy_be
        found.append(tests.run(name, args, A, *((1e-12, 50) if name == "cg_rows" else ()))[0])
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)


@pytest.mark.parametrize(
    "options", [{"lam": 0.5}, {"lam": 0.5, "bias": True}, {"lam": 0.5, "implicit": True}]
)
def test_alternating_minimisation_gives_what_it_gives_for_numpy_arrays(rng, device, options):
    device.block = 32
    rows, cols = np.nonzero(rng.random((14, 12)) < 0.6)
    vals = rng.poisson(1.0, rows.size) + 1.0
    call = {"shape": (14, 12), "method": "altmin", "tol": 1e-7, "rng": 0, **options}
    expected = completion.alternating_minimization((rows, cols, vals), 2, **call)
    on_device = tuple(cupy.asarray(x) for x in (rows, cols, vals))
    res = completion.alternating_minimization(on_device, 2, **call)
    assert res.success
    assert isinstance(res.U, cupy.ndarray)
    np.testing.assert_allclose(cupy_be.host(res.s), expected.s, rtol=1e-5)
