"""The kernels of completion: the Numba ones here, their CUDA twins where CuPy is the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers._core import threads
from solvers._core.backend import get_backend
from solvers.completion.kernels.strips import cuts
from tests.completion.kernel_tests import KernelTests, compressed, factors, triples


class TestNumbaKernels(KernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")


@pytest.mark.parametrize("m", [1, 2, 77])
def test_several_strips_give_what_one_strip_gives(rng, monkeypatch, m):
    if numba.get_num_threads() == 1:
        pytest.skip("one thread makes one strip")
    be = get_backend("numpy")
    kernels, predict = (be.kernels("solvers.completion", part) for part in (None, "predict"))
    rows, cols, vals = triples(rng, (m, 50), "float64")
    csr = compressed(rows, cols, vals, (m, 50))
    A, B = factors(rng, (m, 50), 3, "float64")
    none = np.empty(0)

    def results():
        yield from kernels.arrange(rows, cols, vals, vals, m)
        yield from kernels.transpose(*csr, vals, 50)
        out, product, best = np.empty_like(vals), np.empty_like(A), np.empty((m, 4))
        kernels.residual(*csr, A, B, none, none, out)
        kernels.times(*csr, B, product)
        yield from (out, product)
        predict.entries(rows, cols, A, np.ones(3), B, none, none, out)
        predict.best(A @ B.T, np.empty((m, 4), np.int64), best)
        yield from (out, best)

    expected = [np.copy(x) for x in results()]
    monkeypatch.setattr(threads, "_SMALL_WORK", 0)
    for one, several in zip(expected, results(), strict=True):
        np.testing.assert_array_equal(several, one)


def test_strips_share_out_entries_evenly_whatever_rows_they_are_in(monkeypatch):
    monkeypatch.setattr(threads, "strips", lambda work: 4)
    counts = np.r_[np.ones(500, int), 300, np.zeros(200, int), np.full(100, 5)]
    ptr = np.r_[0, np.cumsum(counts)]
    where = cuts(ptr, 1)
    assert where[0] == 0
    assert where[-1] == counts.size
    assert (np.diff(where) >= 0).all()
    # No strip has more than its share, but for the row that ends it.
    shares = np.add.reduceat(counts + 1, where[:-1][np.diff(where) > 0])
    assert shares.max() <= (counts + 1).sum() / 32 + 301


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twins_and_the_solvers_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "on_device.py")
