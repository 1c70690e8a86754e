"""Batches on CuPy arrays; runs where `cupy` is the stand-in (see `_cupy_standin`)."""

import pickle

import cupy
import numpy as np
import pytest
from _cuda_on_cpu import POLICIES, schedule

from solvers import ConvergenceWarning, Status, ot
from solvers._core.backend import get_backend
from solvers.ot import _batch
from tests.ot.batch_kernel_tests import BatchKernelTests, problems

cupy_be = get_backend("cupy")
host = cupy_be.host


@pytest.mark.parametrize("block", [32, 128])
class TestCudaKernel(BatchKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


def batch(dtype="float64", count=3, n=9, m=8):
    rng = np.random.default_rng(3)
    a, b = rng.dirichlet(np.ones(n), count), rng.dirichlet(np.ones(m), count)
    return [x.astype(dtype) for x in (a, b, rng.random((count, n, m)))]


def without_mass(a, b, C):
    a, b = a.copy(), b.copy()
    a[1, 3], b[:, 2] = 0.0, 0.0
    return a / a.sum(axis=1)[:, None], b / b.sum(axis=1)[:, None], C


def with_forbidden_edges(a, b, C):
    return a, b, np.where(C > 0.8, np.inf, C)


def with_one_cost(a, b, C):
    return a, b, C[0]


def as_they_are(*data):
    return data


@pytest.fixture(autouse=True)
def _small_blocks(device):
    device.block = 32


def on_device(*arrays):
    return [cupy.asarray(x) for x in arrays]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_bits_are_the_same_in_every_order_of_threads(rng, policy):
    C, a, b, _, _ = problems(rng, 2)
    with schedule("fair"):
        expected = ot.sinkhorn_newton(*on_device(a, b, C), reg=0.05)
    with schedule(policy, seed=1):
        res = ot.sinkhorn_newton(*on_device(a, b, C), reg=0.05)
    np.testing.assert_array_equal(host(res.f), host(expected.f))


@pytest.mark.parametrize(
    "change", [as_they_are, without_mass, with_forbidden_edges, with_one_cost]
)
def test_a_batch_gives_what_it_gives_for_numpy_arrays(device, change):
    data, options = change(*batch()), {"reg": 2e-2, "tol": 1e-11}
    expected = ot.sinkhorn_newton(*data, **options)
    arrays = on_device(*data)
    device.launches.clear()
    res = ot.sinkhorn_newton(*arrays, **options)
    assert res.success
    assert isinstance(res.f, cupy.ndarray)
    assert isinstance(res.value, np.ndarray)
    # One launch for a round, whatever the number of problems.
    assert len(device.launches) == res.nit
    for ours, theirs in ((res.f, expected.f), (res.g, expected.g), (res.plan, expected.plan)):
        np.testing.assert_allclose(host(ours), theirs, rtol=0, atol=1e-9)
    np.testing.assert_allclose(res.value, expected.value, rtol=0, atol=1e-10)
    verdict = ot.certify(*arrays, res.f, res.g, reg=res.reg)
    assert verdict.value == pytest.approx(res.certificate.value, rel=1e-9, abs=1e-15)


def test_float32_and_starts_stay_on_the_device(device):
    a, b, C = on_device(*batch("float32"))
    res = ot.sinkhorn_newton(a, b, C)
    assert res.success
    assert res.f.dtype == np.float32
    assert ot.sinkhorn_newton(a, b, C, x0=res).nit == 1
    assert ot.sinkhorn_newton(a, b, C, f0=res.f).nit == 1
    for scale in ("std", "max", "mean", "median"):
        assert ot.sinkhorn_newton(a, b, C, reg=0.2, reg_scale=scale).success


def test_plain_sweeps_work_too(device):
    data = batch()
    expected = ot.sinkhorn(*data, reg=0.1)
    res = ot.sinkhorn(*on_device(*data), reg=0.1)
    assert res.success
    assert res.nit == expected.nit
    np.testing.assert_allclose(host(res.plan), expected.plan, rtol=0, atol=1e-10)


def test_hard_problems_are_finished_on_the_device_too(device, monkeypatch):
    monkeypatch.setattr(_batch, "MOST_ROUNDS", 1)
    monkeypatch.setattr(_batch, "PATIENCE", 2)
    data = batch()
    expected = ot.sinkhorn_newton(*data, reg=1e-2)
    seen = []
    res = ot.sinkhorn_newton(*on_device(*data), reg=1e-2, callback=seen.append)
    assert res.stages[-1][0] == "one by one"
    assert all(isinstance(r.f, cupy.ndarray) for r in seen)
    np.testing.assert_allclose(host(res.plan), expected.plan, rtol=0, atol=1e-8)


def test_a_problem_without_a_plan_does_not_spoil_the_others(device):
    a, b, C = batch()
    C[1, 2] = np.inf
    with pytest.warns(ConvergenceWarning):
        res = ot.sinkhorn_newton(*on_device(a, b, C), reg=0.05)
    assert res.status == Status.INFEASIBLE
    assert res.converged.tolist() == [True, False, True]
    assert np.isfinite(host(res.plan)).all()


def test_results_compute_on_the_device(device):
    data = with_forbidden_edges(*without_mass(*batch()))
    expected = ot.sinkhorn_newton(*data, reg=0.05, tol=1e-11)
    res = ot.sinkhorn_newton(*on_device(*data), reg=0.05, tol=1e-11)
    a, b, _ = on_device(*data)
    for ours, theirs in (
        (res.x, expected.x),
        (res.apply(b), expected.apply(data[1])),
        (res.apply(a, axis=0), expected.apply(data[0], axis=0)),
        (res.potentials_counting[1], expected.potentials_counting[1]),
        (res.grad_C, expected.grad_C),
        (res.vjp(df=a)[2], expected.vjp(df=data[0])[2]),
    ):
        assert isinstance(ours, cupy.ndarray)
        np.testing.assert_allclose(host(ours), theirs, rtol=0, atol=1e-9)
    np.testing.assert_allclose(res.lp_bracket(), expected.lp_bracket(), atol=1e-9)
    np.testing.assert_allclose(res.value_linear, expected.value_linear, atol=1e-9)
    np.testing.assert_allclose(res.grad_reg, expected.grad_reg, atol=1e-9)
    for ours, theirs in zip(res.plan_sparse(1e-6), expected.plan_sparse(1e-6), strict=True):
        np.testing.assert_allclose(ours.get().toarray(), theirs.toarray(), rtol=0, atol=1e-9)
    copy = pickle.loads(pickle.dumps(res))
    np.testing.assert_array_equal(host(copy.plan), host(res.plan))


def test_arrays_of_a_second_device_are_solved_there(device):
    with cupy.cuda.Device(1):
        a, b, C = on_device(*batch())
    res = ot.sinkhorn_newton(a, b, C, reg=[0.1, 0.2, 0.3])
    assert res.success
    assert res.f.device.id == res.plan.device.id == res.apply(b).device.id == 1
    assert ot.certify(a, b, C, res.f, res.g, reg=res.reg).holds
