"""Sketches and conjugate gradients on a real device, against the same on the host."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers._core.backend import get_backend
from solvers._core.linalg import pcg
from solvers._core.sketch import SRHT, Gaussian, SparseSign

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


@pytest.mark.parametrize("kind", [SparseSign, SRHT])
@pytest.mark.parametrize(("s", "n", "d"), [(1, 1, 1), (400, 70_000, 50), (3000, 2000, 3)])
def test_a_sketch_is_the_same_on_host_and_device(be, kind, dtype, s, n, d, rng):
    S, A = kind(s, n, rng=rng), rng.standard_normal((n, d)).astype(dtype)
    Y = rng.standard_normal((s, d)).astype(dtype)
    forth, back = S.apply(be.xp.asarray(A)), S.apply_t(be.xp.asarray(Y))
    assert forth.dtype == back.dtype == dtype
    level = 1e-4 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(be.host(forth), S.apply(A), rtol=0, atol=level * n**0.5)
    np.testing.assert_allclose(be.host(back), S.apply_t(Y), rtol=0, atol=level * s**0.5)
    again = S.apply(be.xp.asarray(A))
    np.testing.assert_array_equal(be.host(again), be.host(forth))


def test_a_gaussian_sketch_draws_the_same_numbers_each_time(be, dtype, rng):
    s, n = 20, 9000
    S, X = Gaussian(s, n, rng=rng), be.xp.asarray(rng.standard_normal((n, 3)).astype(dtype))
    Y = be.xp.asarray(rng.standard_normal((s, 3)).astype(dtype))
    forth, back = S.apply(X), S.apply_t(Y)
    assert forth.dtype == back.dtype == dtype
    left, right = be.host((forth * Y).sum(), (X * back).sum())
    assert left == pytest.approx(right, rel=1e-3 if dtype == "float32" else 1e-10)
    lengths = be.host(be.xp.linalg.norm(forth, axis=0) / be.xp.linalg.norm(X, axis=0))
    assert np.all((lengths > 0.3) & (lengths < 2))


def test_a_sparse_matrix_gives_what_the_dense_one_gives(be, dtype, rng):
    cupyx = pytest.importorskip("cupyx.scipy.sparse")
    A = sp.random_array((5000, 30), density=0.02, format="csr", rng=rng, dtype=np.dtype(dtype))
    S = SparseSign(200, 5000, rng=rng)
    got = S.apply(cupyx.csr_matrix(sp.csr_matrix(A)))
    assert got.dtype == dtype
    np.testing.assert_allclose(be.host(got), S.apply(A), rtol=0, atol=1e-5)


@pytest.mark.parametrize("columns", [(), (4,)])
def test_conjugate_gradients_solve_on_the_device(be, dtype, columns, rng):
    Q = np.linalg.qr(rng.standard_normal((300, 300)))[0]
    A = ((Q * np.linspace(1, 50, 300)) @ Q.T).astype(dtype)
    b = rng.standard_normal((300, *columns)).astype(dtype)
    tol = 1e-5 if dtype == "float32" else 1e-11
    A_there = be.xp.asarray(A)
    got = pcg(lambda v: A_there @ v, be.xp.asarray(b), be=be, tol=tol)
    assert got.flag == "converged"
    assert got.x.dtype == dtype
    np.testing.assert_allclose(be.host(got.x), np.linalg.solve(A, b), rtol=0, atol=20 * tol)
