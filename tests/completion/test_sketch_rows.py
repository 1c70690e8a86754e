"""Row solvers for large ranks: the Numba kernels here, their CUDA twins on the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from solvers.completion.kernels.sketch import cpu
from tests.completion.sketch_kernel_tests import SketchKernelTests, expected, systems


class TestNumbaSketchKernels(SketchKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twins_pass_their_tests_on_the_stand_in():
    run_with_standin(
        Path(__file__).parent / "sketch_on_device.py",
        "-k",
        "not all_lengths and not equal_unknowns and not too_many",
    )
