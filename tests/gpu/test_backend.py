"""The CuPy back end and the demonstration kernels on a real device."""

import gc

import _cupy_standin
import numpy as np
import pytest
from _cuda_on_cpu import demo
from scipy.special import logsumexp

from solvers._core.backend import get_backend

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


def problem(be, n, m, T):
    rng = np.random.default_rng(n + m)
    C, g = rng.random((n, m)).astype(T), rng.random(m).astype(T)
    return be.xp.asarray(C), be.xp.asarray(g), be.xp.empty(n, T), logsumexp(g - 3 * C, axis=1)


@pytest.mark.parametrize("T", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (33, 31), (5, 1025), (70000, 33)])
def test_a_launcher_gives_what_scipy_gives(be, T, n, m):
    C, g, out, expected = problem(be, n, m, T)
    demo.row_lse(C, g, 3, out)
    np.testing.assert_allclose(be.host(out), expected, rtol=1e-5 if T is np.float32 else 1e-13)


@pytest.mark.parametrize("T", [np.float32, np.float64])
def test_atomics_and_dynamic_shared_memory_add_every_weight_once(be, T):
    rng = np.random.default_rng(2)
    label, weight = rng.integers(0, 9, 10**5, np.int32), rng.random(10**5).astype(T)
    counts = be.xp.zeros(9, T)
    demo.weighted_histogram(be.xp.asarray(label), be.xp.asarray(weight), counts)
    expected = np.bincount(label, weight.astype(float))
    np.testing.assert_allclose(be.host(counts), expected, rtol=1e-4 if T is np.float32 else 1e-12)


def test_a_reduction_gives_the_same_bits_in_every_run(be):
    C, g, out, _ = problem(be, 500, 3000, np.float32)
    demo.row_lse(C, g, 3, out)
    again = be.xp.empty_like(out)
    for _ in range(5):
        demo.row_lse(C, g, 3, again)
        np.testing.assert_array_equal(be.host(again), be.host(out))


def test_kernels_run_on_the_current_stream(be):
    C, g, out, expected = problem(be, 500, 3000, np.float64)
    with be.xp.cuda.Stream(non_blocking=True) as stream:
        out.fill(np.nan)
        demo.row_lse(C, g, 3, out)
        stream.synchronize()
        result = be.host(out)
    np.testing.assert_allclose(result, expected, rtol=1e-13)


def test_host_brings_values_of_all_types(be):
    x = be.xp.arange(6.0).reshape(2, 3).T
    number, matrix, big, yes = be.host(x.sum(), x, be.xp.asarray(2**60 + 1), x[2, 1] > 4)
    assert (number, big, yes) == (15.0, 2**60 + 1, True)
    np.testing.assert_array_equal(matrix, np.arange(6.0).reshape(2, 3).T)


def test_triangular_solves_have_scipys_name(be):
    L = np.tril(np.random.default_rng(3).random((20, 20)) + np.eye(20))
    x = be.linalg.solve_triangular(be.xp.asarray(L), be.xp.asarray(L @ np.ones(20)), lower=True)
    np.testing.assert_allclose(be.host(x), np.ones(20), rtol=1e-6)


def test_a_failed_factorisation_raises(be):
    with pytest.raises(np.linalg.LinAlgError):
        be.cholesky(-be.xp.eye(500))
    L = be.cholesky(4.0 * be.xp.eye(500))
    np.testing.assert_allclose(be.host(L), 2.0 * np.eye(500))


def test_free_memory_shrinks_by_what_is_allocated(be):
    before = be.free_memory()
    x = be.xp.ones(2**28, np.uint8)
    assert before - be.free_memory() >= x.nbytes // 2


def test_launches_leave_no_memory_behind(be):
    pool = be.xp.get_default_memory_pool()
    gc.collect()
    before = pool.used_bytes()
    C, g, out, _ = problem(be, 100, 100, np.float64)
    demo.row_lse(C, g, 3, out)
    be.host(out)
    del C, g, out
    gc.collect()
    assert pool.used_bytes() == before


def test_cupy_has_whatever_the_stand_in_offers(be):
    names = f"{_cupy_standin.FUNCTIONS} {_cupy_standin.WAITING} {_cupy_standin.CONSTANTS}"
    assert [n for n in names.split() if not hasattr(be.xp, n)] == []
    assert [n for n in _cupy_standin.LINALG.split() if not hasattr(be.xp.linalg, n)] == []
    assert [n for n in _cupy_standin.SCIPY_LINALG.split() if not hasattr(be.linalg, n)] == []
    names = f"{_cupy_standin.METHODS} {_cupy_standin.ATTRIBUTES}"
    assert [n for n in names.split() if not hasattr(be.xp.ndarray, n)] == []
    assert [n for n in _cupy_standin.SPARSE.split() if not hasattr(be.sparse, n)] == []
    matrix = be.sparse.csr_matrix(be.xp.eye(2))
    assert [n for n in _cupy_standin.SPARSE_ATTRIBUTES.split() if not hasattr(matrix, n)] == []
    operators = [f"__{n}__" for n in _cupy_standin.OPERATORS.split()]
    assert [n for n in operators if not hasattr(be.xp.ndarray, n)] == []
