"""The kernels for blocks: the Numba ones here, the CUDA twins where CuPy is the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import pytest
from _cupy_standin import run_with_standin

from solvers._core.backend import get_backend
from tests.bcd.groups_kernel_tests import GroupsKernelTests


class TestNumbaKernels(GroupsKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twins_and_models_with_blocks_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "groups_on_device.py")
