"""Relatives of transport on a real device, against NumPy."""

import numpy as np
import pytest

from solvers import ot
from solvers._core.backend import get_backend

pytestmark = pytest.mark.gpu

# Big enough for compressed and single-precision kernels.
N, M = 560, 500


@pytest.fixture
def be():
    return get_backend("cupy")


def clouds():
    rng = np.random.default_rng(3)
    a, b = 1.3 * rng.dirichlet(np.ones(N)), 0.8 * rng.dirichlet(np.ones(M))
    return a, b, rng.random((N, 2)), rng.random((M, 2))


def assert_same(be, ours, theirs, atol=1e-7):
    assert isinstance(ours, be.xp.ndarray)
    np.testing.assert_allclose(be.host(ours), theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("reg", [5e-2, 2e-3])
@pytest.mark.parametrize("reg_m", [0.1, (np.inf, 20.0)])
def test_unbalanced_transport_is_as_for_numpy_arrays(be, reg, reg_m):
    a, b, x, y = clouds()
    C = np.square(x[:, None] - y).sum(axis=2)
    options = {"reg": reg, "reg_m": reg_m, "tol": 1e-10}
    expected = ot.sinkhorn_unbalanced(a, b, C, **options)
    arrays = [be.xp.asarray(v) for v in (a, b, C)]
    res = ot.sinkhorn_unbalanced(*arrays, **options)
    assert res.success
    for name in ("f", "g", "grad_a", "plan"):
        assert_same(be, getattr(res, name), getattr(expected, name))
    judged = ot.certify(*arrays, res.f, res.g, reg=reg, reg_m=reg_m)
    assert judged.value == pytest.approx(res.certificate.value, rel=1e-3)


@pytest.mark.parametrize("reg_m", [None, 0.5])
def test_divergences_are_as_for_numpy_arrays(be, reg_m):
    a, b, x, y = clouds()
    a, b = a / a.sum(), b / b.sum()
    options = {"reg": 0.02, "reg_m": reg_m, "tol": 1e-10}
    expected = ot.sinkhorn_divergence(a, b, x, y, **options)
    res = ot.sinkhorn_divergence(*(be.xp.asarray(v) for v in (a, b, x, y)), **options)
    assert res.success
    assert res.value == pytest.approx(expected.value, rel=1e-8)
    for name in ("f", "grad_x"):
        assert_same(be, getattr(res, name), getattr(expected, name))


@pytest.mark.parametrize("reg", [5e-2, 1.5e-3])
def test_barycentres_are_as_for_numpy_arrays(be, reg):
    _, _, x, y = clouds()
    C = np.square(x[:, None] - y).sum(axis=2)
    B = np.random.default_rng(5).dirichlet(np.ones(M), size=3)
    expected = ot.barycenter(B, C, reg=reg, tol=1e-10)
    res = ot.barycenter(be.xp.asarray(B), be.xp.asarray(C), reg=reg, tol=1e-10)
    assert res.success
    for name in ("x", "f"):
        assert_same(be, getattr(res, name), getattr(expected, name))
