"""The passes of the iteration: Numba's here, their CUDA twins where CuPy is the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from tests.relu.kernel_tests import KernelTests


class TestNumbaKernels(KernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")

    @pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="needs two threads")
    def test_threads_share_the_samples(self, be, rng, monkeypatch):
        _, there = self.gates(be, rng, 7, 50)
        G = rng.standard_normal((1, 2, 7, 50))
        T = rng.standard_normal((14, 50))

        def run():
            out, state, left = np.empty((1, 50)), T.copy(), G.reshape(14, 50).copy()
            self.kernels(be).masked_sum(G, there, out)
            sums = self.kernels(be).advance(left, state, there, 1.6)
            return out, state, left, sums

        alone = run()
        monkeypatch.setattr(threads, "_SMALL_WORK", 0)
        together = run()
        for a, b in zip(alone[:3], together[:3], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(together[3], alone[3], rtol=1e-13)


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twins_and_the_iteration_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "on_device.py")
