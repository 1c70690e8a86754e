"""Sketches and conjugate gradients; runs where `cupy` is the stand-in (see `_cupy_standin`)."""

import cupy
import numpy as np
import pytest
import scipy.linalg
from _cuda_on_cpu import POLICIES, schedule

from solvers._core.backend import get_backend
from solvers._core.kernels import gpu
from solvers._core.linalg import logsumexp, pcg, power_norm, soft_threshold
from solvers._core.sketch import SRHT, SparseSign

be = get_backend("cupy")


@pytest.fixture(params=[(block, policy) for block in (32, 64, 128, 256) for policy in POLICIES])
def any_schedule(request, device, monkeypatch):
    """Every block size with every order of threads; few blocks, so that each has much to do."""
    device.block, policy = request.param
    monkeypatch.setattr(gpu, "blocks", lambda _: 3)
    with schedule(policy):
        yield


def close(got, expected):
    got = be.host(got)
    level = (1e-5 if got.dtype == np.float32 else 1e-13) * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=level)


def normal(shape, dtype):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sparse_signs_multiply_as_on_the_host(any_schedule, dtype):
    for n, s, d, nnz in [(1, 1, 1, 1), (31, 5, 33, 2), (33, 40, 3, 8), (255, 2, 1, 2)]:
        S = SparseSign(s, n, nnz, rng=0)
        A, Y = normal((n, d), dtype), normal((s, d), dtype)
        close(S.apply(cupy.asarray(A)), S.apply(A))
        close(S.apply_t(cupy.asarray(Y)), S.apply_t(Y))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_hadamard_kernel_multiplies_by_the_matrix(any_schedule, monkeypatch, dtype):
    # Small tiles, so that small matrices take several passes, of even and odd numbers of bits.
    monkeypatch.setattr(gpu, "_TILE", 64)
    for n, d in [(1, 3), (2, 1), (32, 7), (128, 1), (64, 33)]:
        X = normal((n, d), dtype)
        on_device = cupy.asarray(X)
        gpu.hadamard(on_device)
        close(on_device, scipy.linalg.hadamard(n) @ X)


def test_a_full_tile_fits_the_shared_memory_of_every_device():
    X = normal((1024, 9), "float64")
    on_device = cupy.asarray(X)
    gpu.hadamard(on_device)
    close(on_device, scipy.linalg.hadamard(1024) @ X)


@pytest.mark.parametrize("kind", [SparseSign, SRHT])
def test_a_sketch_is_the_same_on_host_and_device_and_waits_for_nothing(device, kind):
    S, A, Y = kind(20, 50, rng=3), normal((50, 4), "float64"), normal(20, "float64")
    A_there, Y_there = cupy.asarray(A), cupy.asarray(Y)
    device.reset()
    forth, back = S.apply(A_there), S.apply_t(Y_there)
    assert device.syncs == 0
    close(forth, S.apply(A))
    close(back, S.apply_t(Y))


def test_a_sparse_sketch_goes_to_the_device_once(device):
    S, A = SparseSign(20, 50, rng=3), cupy.ones((50, 4))
    S.apply(A)
    device.reset()
    S.apply(A)
    S.apply_t(cupy.ones((20, 4)))
    assert device.uploads == 0
    assert device.launches == ["signed_sums<double>"] * 2


@pytest.mark.parametrize("shape", [(60,), (60, 3)])
def test_conjugate_gradients_look_at_the_residual_every_eighth_step(device, shape):
    rng = np.random.default_rng(1)
    Q = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    A, b = (Q * np.geomspace(1, 1e3, 60)) @ Q.T, rng.standard_normal(shape)
    A_there, b_there, x0 = cupy.asarray(A), cupy.asarray(b), cupy.ones(shape)
    device.reset()
    got = pcg(lambda v: A_there @ v, b_there, be=be, x0=x0, precond=lambda r: r * 1.0, tol=1e-9)
    assert got.flag == "converged"
    assert device.syncs <= got.iterations // 8 + 4
    assert device.uploads == 0
    np.testing.assert_allclose(be.host(A_there @ got.x), b, rtol=0, atol=1e-8)


def test_a_breakdown_on_the_device_leaves_what_was_reached():
    A = cupy.asarray(np.diag([1.0, 2.0, 3.0, -4.0]))
    got = pcg(lambda v: A @ v, cupy.asarray([1.0, 1.0, 1.0, 1e-3]), be=be)
    assert got.flag == "breakdown"
    assert 0 < got.residual < 1
    never = pcg(lambda v: v * cupy.nan, cupy.ones(4), be=be)
    close(never.x, np.zeros(4))


def test_small_functions_run_on_the_device():
    z = normal((3, 4), "float64")
    there = cupy.asarray(z)
    close(logsumexp(there, be=be, axis=1), np.log(np.exp(z).sum(axis=1)))
    close(soft_threshold(there, 0.5, be=be), np.sign(z) * np.maximum(np.abs(z) - 0.5, 0))
    norm = power_norm(lambda v: there @ v, lambda u: there.T @ u, cupy.ones(4), be=be, steps=200)
    assert norm == pytest.approx(np.linalg.norm(z, 2))
