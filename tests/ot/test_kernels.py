"""The kernels of transport: the Numba ones here, their CUDA twins where CuPy is the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from tests.ot.cloud_kernel_tests import CloudKernelTests
from tests.ot.cloud_kernel_tests import problem as cloud_problem
from tests.ot.kernel_tests import KernelTests, compressed, cost, plan, thinned


class TestNumbaKernels(KernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")


class TestNumbaCloudKernels(CloudKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")


@pytest.mark.parametrize("n", [1, 2, 77])
def test_several_strips_of_a_cloud_give_what_one_strip_gives(rng, monkeypatch, n):
    if numba.get_num_threads() == 1:
        pytest.skip("one thread makes one strip")
    be = get_backend("numpy")
    C, _, h, a, beta = cloud_problem(rng, be, 3, "euclidean", n=n)
    kernels, m = be.kernels("solvers.ot", "clouds"), h.size

    def results():
        shift, K, room = np.empty(n), np.empty((n, m)), 20 * n * m
        yield from (kernels.row_pass(C, h, beta, 0.05, a, shift, K), shift, K)
        indices, values = np.empty(room, np.int32), np.empty(room)
        starts, ends = np.empty((2, n), np.int64)
        args = C, h, beta, 0.05, a, shift, 1e-3, indices, values, starts, ends
        yield from kernels.sparse_row_pass(*args)
        for start, end in zip(starts, ends, strict=True):
            yield from (indices[start:end], values[start:end])

    expected = [np.copy(x) for x in results()]
    monkeypatch.setattr(threads, "_SMALL_WORK", 0)
    for one, several in zip(expected, results(), strict=True):
        np.testing.assert_allclose(several, one, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n", [1, 2, 37])
def test_several_strips_give_what_one_strip_gives(rng, monkeypatch, n):
    if numba.get_num_threads() == 1:
        pytest.skip("one thread makes one strip")
    # The types that big problems have.
    C, h, a, beta = cost(rng, (n, 50), "float64")
    K, v, _, rho, _ = plan(rng, (n, 50), "float32")
    csr = compressed(thinned(rng, K))
    kernels = get_backend("numpy").kernels("solvers.ot")
    peaks, few = kernels.row_peaks(K, v), kernels.csr_row_peaks(*csr, v)

    def results():
        shift, out, stored = np.empty(n), np.empty(n), np.empty((n, 50), np.float32)
        room = np.empty(200 * n, np.int32), np.empty(200 * n)
        starts, ends = np.empty((2, n), np.int64)
        yield kernels.row_pass(C, h, beta, 0.05, a, shift, stored)
        yield from (shift, stored)
        sums, fitted = kernels.sparse_row_pass(
            C, h, beta, 0.05, a, shift, 0.01, *room, starts, ends
        )
        yield from (sums, fitted, shift, ends - starts)
        yield from (room[1][start:end] for start, end in zip(starts, ends, strict=True))
        yield kernels.sweep(K, v, a, out)
        yield out
        yield kernels.laplacian(K, v, rho, a, peaks, h)
        yield kernels.csr_sweep(*csr, v, a, out)
        yield out
        yield kernels.csr_laplacian(*csr, v, out, a, few, h)

    expected = [np.copy(x) for x in results()]
    monkeypatch.setattr(threads, "_SMALL_WORK", 0)
    for one, several in zip(expected, results(), strict=True):
        np.testing.assert_allclose(several, one, rtol=2e-6, atol=1e-9)


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twins_and_the_solvers_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "on_device.py")
