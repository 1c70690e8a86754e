"""Kernels on graphs: Numba here, their CUDA twins where CuPy is the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from tests.bcd.graph_kernel_tests import GraphKernelTests
from tests.bcd.graphs import laplacian, random_graph


class TestNumbaKernels(GraphKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")

    @pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS == 1, reason="needs two threads")
    def test_threads_share_a_product_and_change_no_bit(self, monkeypatch):
        A = laplacian(random_graph(300, 900, 1))
        X, graph = np.random.default_rng(0).standard_normal((300, 2)), self.graph(A)
        alone, together = np.empty_like(X), np.empty_like(X)
        self.kernels.product(graph.ptr, graph.idx, A.data, X, alone)
        monkeypatch.setattr(threads, "_SMALL_WORK", 0)
        self.kernels.product(graph.ptr, graph.idx, A.data, X, together)
        np.testing.assert_array_equal(together, alone)


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twins_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "graph_on_device.py")
