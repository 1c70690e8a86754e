"""Relatives of transport on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import ot
from solvers._core.backend import get_backend

host = get_backend("cupy").host


@pytest.fixture(autouse=True)
def _small_blocks(device):
    # Blocks of one warp: nothing else about a solver depends on the size.
    device.block = 32


def problem(n=24, m=20):
    rng = np.random.default_rng(3)
    x, y = rng.random((n, 2)), rng.random((m, 2))
    a, b = 1.3 * rng.dirichlet(np.ones(n)), 0.8 * rng.dirichlet(np.ones(m))
    a[4] = b[2] = 0.0
    return a, b, x, y


def same(ours, theirs, atol=1e-9):
    assert isinstance(ours, cupy.ndarray)
    np.testing.assert_allclose(host(ours), theirs, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("reg_m", "options"),
    [
        ((0.5, 2.0), {}),
        ((np.inf, 0.1), {}),
        ((30.0, 30.0), {"store_plan": False}),
        (0.1, {"method": "sinkhorn", "maxiter": 3000}),
    ],
)
def test_unbalanced_transport_is_as_for_numpy_arrays(device, reg_m, options):
    a, b, x, y = problem()
    C = np.square(x[:, None] - y).sum(axis=2)
    C[3] = C[5, 5] = np.inf
    if reg_m == (np.inf, 0.1):
        C[3] = 1.0
    options = {"reg": 5e-3 if "method" not in options else 0.05, "tol": 1e-10, **options}
    expected = ot.sinkhorn_unbalanced(a, b, C, reg_m=reg_m, **options)
    arrays = [cupy.asarray(v) for v in (a, b, C)]
    device.syncs = device.uploads = 0
    res = ot.sinkhorn_unbalanced(*arrays, reg_m=reg_m, **options)
    assert device.uploads == 0
    assert device.syncs <= 60 + 8 * res.nit + 8 * res.nnewton + 2 * res.nsinkhorn + res.ncg / 4
    assert res.success
    for name in ("f", "g", "grad_a", "grad_b", "plan"):
        same(getattr(res, name), getattr(expected, name), 1e-7)
    assert res.value == pytest.approx(expected.value, rel=1e-10)
    judged = ot.certify(*arrays, res.f, res.g, reg=res.reg, reg_m=reg_m)
    assert judged.value == res.certificate.value


@pytest.mark.parametrize("reg_m", [None, 0.5])
def test_divergences_are_as_for_numpy_arrays(reg_m):
    a, b, x, y = problem()
    a, b = (w / w.sum() for w in (a, b))
    options = {"reg": 0.05, "reg_m": reg_m, "tol": 1e-10}
    expected = ot.sinkhorn_divergence(a, b, x, y, **options)
    res = ot.sinkhorn_divergence(*(cupy.asarray(v) for v in (a, b, x, y)), **options)
    assert res.success
    assert res.value == pytest.approx(expected.value, rel=1e-9)
    for name in ("f", "g", "grad_x", "grad_y"):
        same(getattr(res, name), getattr(expected, name), 1e-7)


@pytest.mark.parametrize(("reg", "copies"), [(0.1, None), (5e-3, None), (0.02, 3)])
def test_barycentres_are_as_for_numpy_arrays(device, reg, copies):
    _, _, x, y = problem()
    C = np.square(x[:, None] - y).sum(axis=2)
    if copies:
        C = np.stack([C] * copies)
    B = np.random.default_rng(5).dirichlet(np.ones(20), size=3)
    B[1, 4] = 0.0
    B[1] /= B[1].sum()
    weights = np.array([0.2, 0.5, 0.3])
    options = {"weights": weights, "reg": reg, "tol": 1e-10}
    expected = ot.barycenter(B, C, **options)
    arrays = [cupy.asarray(v) for v in (B, C, weights)]
    device.uploads = 0
    res = ot.barycenter(arrays[0], arrays[1], **{**options, "weights": arrays[2]})
    assert device.uploads <= 4
    assert res.success
    for name in ("x", "f", "g"):
        same(getattr(res, name), getattr(expected, name), 1e-7)
    again = ot.barycenter(arrays[0], arrays[1], **{**options, "weights": arrays[2]}, x0=res)
    assert again.nit == 1
