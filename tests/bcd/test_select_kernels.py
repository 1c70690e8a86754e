"""Kernels that choose blocks: Numba's here, their CUDA twins on the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numpy as np
import pytest
from _cupy_standin import run_with_standin
from hypothesis import given
from hypothesis import strategies as st

from solvers._core.backend import get_backend
from tests.bcd.select_kernel_tests import SelectKernelTests


class TestNumbaKernels(SelectKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40))
def test_the_heap_knows_the_largest_score_and_where_each_is(seed, n):
    kernels = get_backend("numpy").kernels("solvers.bcd", "heap")
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, n).astype(float)
    heap, place = np.empty(n, np.int64), np.empty(n, np.int64)
    kernels.heap_build(scores, heap, place)
    for _ in range(10):
        assert heap[0] == np.argmax(scores)
        np.testing.assert_array_equal(heap[place], np.arange(n))
        items = rng.choice(n, rng.integers(1, n + 1), replace=False)
        new = rng.integers(0, 6, items.size).astype(float)
        want = scores.copy()
        want[items] = new
        kernels.heap_update(scores, heap, place, items, new)
        np.testing.assert_array_equal(scores, want)


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twins_and_rules_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "select_on_device.py")
