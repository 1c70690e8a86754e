"""Batches on a real device: the kernel against dense formulas, solves against NumPy."""

import numpy as np
import pytest

from solvers import ot
from solvers._core.backend import get_backend
from tests.ot.batch_kernel_tests import BatchKernelTests

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernel(BatchKernelTests):
    pass


def batch(dtype="float64", count=40, n=90, m=70):
    rng = np.random.default_rng(3)
    x, y = rng.random((count, n, 1, 2)), rng.random((count, 1, m, 2))
    a, b = rng.dirichlet(np.ones(n), count), rng.dirichlet(np.ones(m), count)
    return [v.astype(dtype) for v in (a, b, np.square(x - y).sum(axis=3))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reg", [1e-1, 1e-3])
def test_a_batch_gives_what_it_gives_for_numpy_arrays(be, dtype, reg):
    data = batch(dtype)
    options = {"reg": reg, "tol": 1e-4 if dtype == "float32" else 1e-11}
    expected = ot.sinkhorn_newton(*data, **options)
    res = ot.sinkhorn_newton(*(be.xp.asarray(x) for x in data), **options)
    assert res.success
    assert res.f.dtype == dtype
    atol = 1e-4 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(be.host(res.plan), expected.plan, rtol=0, atol=atol)
    np.testing.assert_allclose(res.value, expected.value, rtol=0, atol=atol)


def test_more_problems_than_blocks_are_all_solved(be):
    data = batch(count=3000, n=12, m=9)
    res = ot.sinkhorn_newton(*(be.xp.asarray(x) for x in data), reg=1e-2)
    assert res.success
    np.testing.assert_allclose(be.host(res.plan.sum(axis=2)), data[0], rtol=0, atol=1e-8)


def test_the_same_call_gives_the_same_bits(be):
    data = [be.xp.asarray(x) for x in batch()]
    first, again = (ot.sinkhorn_newton(*data, reg=1e-2) for _ in range(2))
    np.testing.assert_array_equal(be.host(first.f), be.host(again.f))
