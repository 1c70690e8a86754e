"""The pass over blocks: the Numba kernel here, its CUDA twin where CuPy is the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from tests.bilevel.blocks_kernel_tests import BlocksKernelTests
from tests.bilevel.losses_kernel_tests import LOGISTIC, ONE


class TestNumbaKernels(BlocksKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")

    def test_threads_do_not_show_in_the_numbers(self, be, monkeypatch):
        rng = np.random.default_rng(0)
        X, t = rng.standard_normal((50, 6)), np.sign(rng.standard_normal(50))
        rows, W = rng.integers(50, size=(5, 9)), rng.standard_normal((5, 2, 6))
        block_pass = be.kernels("solvers.bilevel", "losses").block_pass
        found = []
        for strips in (1, 3):
            monkeypatch.setattr(threads, "strips", lambda work, count=strips: count)
            losses, G = np.empty((2, 5, 9)), np.empty((5, 2, 6))
            block_pass(X, rows, t, np.empty((5, 0)), LOGISTIC, ONE, 1, W, losses, G)
            found.append((losses, G))
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twin_and_a_whole_run_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "blocks_on_device.py")
