"""The kernels on tangent spaces: the Numba ones here, the CUDA twins where CuPy is a stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from tests.completion.tangent_kernel_tests import Pattern, TangentKernelTests


class TestNumbaKernels(TangentKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")

    @pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="needs two threads")
    def test_several_strips_give_what_one_strip_gives(self, be, rng, monkeypatch):
        m, n, k = 41, 30, 4
        at = Pattern(rng, m, n, "float64")
        U, A, ridge = rng.uniform(0.5, 1.5, (3, m, k))
        V, B = rng.standard_normal((2, n, k))
        nothing = np.empty((0, 0))

        def results():
            y, gA, gB = np.empty(at.rows.size), np.empty((m, k)), np.empty((n, k))
            *_, y, gA = self.run(be, "jac_rows", *at.by_row, at.weight, U, V, A, B, y, gA)
            yield from (y, gA)
            yield self.run(be, "jac_cols", *at.by_col, at.perm.astype(np.int32), y, U, gB)[-1]
            args = *at.by_row, at.weight, V, nothing, ridge, np.empty((m, k, k))
            blocks = self.run(be, "block_inverse", *args)[-1]
            yield blocks
            yield self.run(be, "block_times", blocks, A, gA)[-1]

        expected = list(results())
        monkeypatch.setattr(threads, "_SMALL_WORK", 0)
        for one, several in zip(expected, results(), strict=True):
            np.testing.assert_array_equal(several, one)


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twins_and_the_engines_on_them_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "tangent_on_device.py")
