"""Transport on a real device: kernels against dense formulas, solvers against NumPy."""

import gc

import numpy as np
import pytest

from solvers import ot
from solvers._core.backend import get_backend
from tests.ot.cloud_kernel_tests import CloudKernelTests
from tests.ot.kernel_tests import KernelTests, cost, plan

pytestmark = pytest.mark.gpu

N, M = 700, 600
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernels(KernelTests):
    pass


class TestCloudKernels(CloudKernelTests):
    pass


def problem(dtype="float64", seed=3):
    rng = np.random.default_rng(seed)
    x, y = rng.random((N, 2)), rng.random((M, 2))
    C = np.square(x[:, None] - y).sum(axis=2)
    a, b = rng.dirichlet(np.ones(N)), rng.dirichlet(np.ones(M))
    return [v.astype(dtype) for v in (a, b, C)]


def on_device(be, *arrays):
    return [be.xp.asarray(x) for x in arrays]


def assert_same_answer(be, res, expected, atol):
    assert res.success
    assert isinstance(res.f, be.xp.ndarray)
    assert res.f.dtype == expected.f.dtype
    for ours, theirs in ((res.f, expected.f), (res.g, expected.g), (res.plan, expected.plan)):
        np.testing.assert_allclose(be.host(ours), theirs, rtol=0, atol=atol)
    assert res.value == pytest.approx(expected.value, rel=atol)


# Sizes that the harness is too slow for.


@each_dtype
@pytest.mark.parametrize("shape", [(70_000, 33), (3, 200_000), (5000, 3000)], ids=str)
def test_big_matrices_give_what_numba_gives(be, rng, shape, dtype):
    C, h, a, beta = cost(rng, shape, dtype)
    K, v, a, rho, _ = plan(rng, shape, dtype)
    x, rtol = rng.standard_normal(shape[1]), 1e-5 if dtype == "float32" else 1e-11
    answers = []
    for backend in (get_backend("numpy"), be):
        kernels, xp = backend.kernels("solvers.ot"), backend.xp
        C_, h_, a_, beta_, K_, v_, rho_, x_ = map(xp.asarray, (C, h, a, beta, K, v, rho, x))
        shift, out = xp.empty_like(a_), xp.empty_like(a_)
        peaks = kernels.row_peaks(K_, v_)
        sums = [
            kernels.row_pass(C_, h_, beta_, 0.05, a_, shift, K_.copy()),
            kernels.sweep(K_, v_, a_, out),
            kernels.laplacian_diagonal(K_, v_, rho_, a_, peaks),
            kernels.laplacian(K_, v_, rho_, a_, peaks, x_) + 1.0,
        ]
        answers.append(backend.host(peaks, shift, out, *sums))
    for theirs, ours in zip(*answers, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-12)


def test_more_entries_than_32_bits_count_are_all_summed(be):
    n = 47_000
    if be.free_memory() < 6 * n * n:
        pytest.skip("needs 13 GB of device memory")
    xp, kernels = be.xp, be.kernels("solvers.ot")
    K, a, rho = xp.ones((n, n), np.float32), xp.full(n, 1.0 / n), xp.empty(n)
    sums = kernels.sweep(K, xp.ones(n), a, rho)
    np.testing.assert_allclose(be.host(rho), n, rtol=1e-12)
    np.testing.assert_allclose(be.host(sums), 1.0 / n, rtol=1e-6)


# The public functions.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reg": 2e-4},
        {"store_plan": False},
        {"precond": "cholesky"},
        {"annealing": False, "precond": "jacobi"},
    ],
    ids=str,
)
def test_sinkhorn_newton_gives_what_it_gives_for_numpy_arrays(be, options):
    options = {"reg": 5e-3, "tol": 1e-11, **options}
    expected = ot.sinkhorn_newton(*problem(), **options)
    res = ot.sinkhorn_newton(*on_device(be, *problem()), **options)
    assert_same_answer(be, res, expected, 1e-8)


def test_sinkhorn_newton_takes_float32(be):
    expected = ot.sinkhorn_newton(*problem("float32"), reg=5e-3)
    res = ot.sinkhorn_newton(*on_device(be, *problem("float32")), reg=5e-3)
    assert_same_answer(be, res, expected, 1e-4)


def test_the_published_method_works(be):
    options = {"reg": 2e-2, "method": "sns-paper"}
    expected = ot.sinkhorn_newton(*problem(), **options)
    res = ot.sinkhorn_newton(*on_device(be, *problem()), **options)
    assert_same_answer(be, res, expected, 1e-6)


def test_conditions_on_the_plan_hold(be):
    data, options = problem(), {"reg": 2e-2, "tol": 1e-10}
    D = np.random.default_rng(1).normal(size=data[2].shape)
    level = np.sum(D * ot.sinkhorn_newton(*data, **options).plan)
    conditions = [(D, ">=", level + 0.1), (-D, ">=", -level - 1.0)]
    expected = ot.sinkhorn_newton(*data, constraints=conditions, **options)
    conditions = [(be.xp.asarray(D), *others) for D, *others in conditions]
    res = ot.sinkhorn_newton(*on_device(be, *data), constraints=conditions, **options)
    assert_same_answer(be, res, expected, 1e-7)
    np.testing.assert_allclose(be.host(res.w), expected.w, atol=1e-7)


@pytest.mark.parametrize("method", ["kernel", "log", "stabilized", "overrelaxed", "anderson"])
@each_dtype
def test_sinkhorn_gives_what_it_gives_for_numpy_arrays(be, method, dtype):
    options = {"reg": 5e-2, "method": method, "tol": 1e-5 if dtype == "float32" else 1e-11}
    expected = ot.sinkhorn(*problem(dtype), **options)
    res = ot.sinkhorn(*on_device(be, *problem(dtype)), **options)
    assert_same_answer(be, res, expected, 1e-4 if dtype == "float32" else 1e-9)


def test_points_without_mass_and_forbidden_edges_work(be):
    a, b, C = problem()
    a[::7], b[3], C[C > 0.8] = 0.0, 0.0, np.inf
    a, b = a / a.sum(), b / b.sum()
    expected = ot.sinkhorn_newton(a, b, C, reg=5e-3, tol=1e-11)
    res = ot.sinkhorn_newton(*on_device(be, a, b, C), reg=5e-3, tol=1e-11)
    np.testing.assert_allclose(be.host(res.plan), expected.plan, rtol=0, atol=1e-8)
    assert res.certificate.value == pytest.approx(
        ot.certify(a, b, C, be.host(res.f), be.host(res.g), reg=5e-3).value, rel=1e-2
    )


def test_exact_plans_are_those_of_numpy_arrays(be):
    a, b, C = problem()
    expected = ot.emd(a, b, C, polish=True)
    res = ot.emd(*on_device(be, a, b, C), polish=True)
    assert res.success
    np.testing.assert_allclose(be.host(res.plan), expected.plan, rtol=0, atol=1e-14)
    np.testing.assert_allclose(be.host(res.plan_sparse().toarray()), expected.plan, atol=1e-14)
    assert res.lp_bracket() == pytest.approx(expected.lp_bracket(), rel=1e-10)
    assert ot.wasserstein(*on_device(be, a, b, C))[0] == pytest.approx(
        ot.wasserstein(a, b, C)[0], rel=1e-4
    )


def test_results_compute_on_the_device(be):
    a, b, C = on_device(be, *problem())
    res = ot.sinkhorn_newton(a, b, C, reg=5e-3)
    P = be.host(res.plan)
    np.testing.assert_allclose(be.host(res.apply(b)), P @ be.host(b), rtol=1e-10)
    np.testing.assert_allclose(be.host(res.apply(a, axis=0)), be.host(a) @ P, rtol=1e-10)
    np.testing.assert_array_equal(res.plan_sparse(1e-9).get().toarray(), np.where(P < 1e-9, 0, P))
    low, high = res.lp_bracket()
    assert low <= res.value_linear + 1e-9
    assert res.value_linear <= high + 1e-9
    rounded = be.host(ot.round_plan(res.plan, a, b))
    np.testing.assert_allclose(rounded.sum(axis=1), be.host(a), rtol=1e-10)
    np.testing.assert_allclose(rounded.sum(axis=0), be.host(b), rtol=1e-10)


def test_the_same_call_gives_the_same_bits(be):
    data = on_device(be, *problem())
    first = ot.sinkhorn(*data, reg=5e-2)
    again = ot.sinkhorn(*data, reg=5e-2)
    np.testing.assert_array_equal(be.host(first.f), be.host(again.f))


def test_solvers_run_on_the_current_stream(be):
    data = on_device(be, *problem())
    expected = ot.sinkhorn_newton(*data, reg=5e-3, tol=1e-11)
    be.xp.cuda.Device().synchronize()
    with be.xp.cuda.Stream(non_blocking=True) as stream:
        res = ot.sinkhorn_newton(*data, reg=5e-3, tol=1e-11)
        stream.synchronize()
    np.testing.assert_allclose(be.host(res.f), be.host(expected.f), rtol=0, atol=1e-8)


def test_a_solve_leaves_no_memory_behind(be):
    pool = be.xp.get_default_memory_pool()
    data = on_device(be, *problem())
    ot.sinkhorn_newton(*data, reg=5e-3)
    gc.collect()
    before = pool.used_bytes()
    res = ot.sinkhorn_newton(*data, reg=5e-3)
    assert res.success
    del res
    gc.collect()
    assert pool.used_bytes() == before


def test_arrays_of_a_second_device_are_solved_there(be):
    if be.xp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two devices")
    with be.xp.cuda.Device(1):
        a, b, C = on_device(be, *problem())
    res = ot.sinkhorn_newton(a, b, C, reg=5e-3)
    assert res.success
    assert res.f.device.id == res.plan.device.id == 1
    assert ot.certify(a, b, C, res.f, res.g, reg=5e-3).holds


def test_torch_tensors_stay_on_the_device():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no device")
    data = problem()
    expected = ot.sinkhorn_newton(*data, reg=5e-3, tol=1e-11)
    res = ot.sinkhorn_newton(*(torch.as_tensor(x).cuda() for x in data), reg=5e-3, tol=1e-11)
    assert res.f.is_cuda
    assert res.plan.is_cuda
    np.testing.assert_allclose(res.plan.cpu().numpy(), expected.plan, rtol=0, atol=1e-8)


def test_jax_arrays_stay_on_the_device():
    jax = pytest.importorskip("jax")
    try:
        device = jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("JAX finds no device")
    data = problem("float32")
    res = ot.sinkhorn_newton(*(jax.device_put(x, device) for x in data), reg=5e-3)
    assert res.success
    assert res.f.devices() == {device}


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_a_large_cloud_is_solved_without_its_matrix(be, rng, cost):
    x, y = rng.random((20_000, 3)), rng.random((18_000, 3))
    cloud = ot.PointCloud(*on_device(be, x, y), cost=cost)
    res = ot.sinkhorn_newton(None, None, cloud, tol=1e-7)
    assert res.success
    assert "corrections" in [name for name, _, _ in res.stages]
    f, g = (be.host(v) for v in (res.f, res.g))
    assert ot.certify(
        None, None, ot.PointCloud(x, y, cost=cost), f, g, reg=res.reg, tol=2e-7
    ).holds
