"""Transport on CuPy arrays; runs where `cupy` is the stand-in (see `_cupy_standin`)."""

import pickle

import cupy
import numpy as np
import pytest
from _cuda_on_cpu import POLICIES, schedule

import solvers
from solvers import ot
from solvers._core import validation
from solvers._core.backend import get_backend
from solvers.ot import _coarse, _gibbs
from tests.ot.cloud_kernel_tests import CloudKernelTests
from tests.ot.kernel_tests import KernelTests, cost, plan

cupy_be = get_backend("cupy")
kernels, host = cupy_be.kernels("solvers.ot"), cupy_be.host
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.mark.parametrize("block", [32, 64, 128, 256])
class TestCudaKernels(KernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


class TestCudaCloudKernels(CloudKernelTests):
    @pytest.fixture
    def be(self, device):
        device.block = 64
        return cupy_be


def on_device(*arrays):
    return [cupy.asarray(x) for x in arrays]


@pytest.mark.parametrize("policy", POLICIES)
def test_sums_have_the_same_bits_in_every_order_of_threads(rng, policy):
    C, h, a, beta = on_device(*cost(rng, (70, 300), "float32"))
    K, v, a, rho, _ = on_device(*plan(rng, (70, 300), "float32"))
    peaks = kernels.row_peaks(K, v)
    for call in (
        lambda: kernels.row_pass(C, h, beta, 0.05, a, cupy.empty(70), cupy.empty((0, 300))),
        lambda: kernels.sweep(K, v, a, cupy.empty(70)),
        lambda: kernels.laplacian(K, v, rho, a, peaks, h),
        lambda: kernels.laplacian_diagonal(K, v, rho, a, peaks),
    ):
        with schedule("fair"):
            expected = host(call())
        with schedule(policy, seed=1):
            np.testing.assert_array_equal(host(call()), expected)


def test_kernels_read_their_matrix_once_and_write_it_once(device, rng):
    n, m = 64, 600
    C, h, a, beta = on_device(*cost(rng, (n, m), "float64"))
    K, v, a, rho, _ = on_device(*plan(rng, (n, m), "float32"))
    peaks, segments = kernels.row_peaks(K, v), on_device(*np.empty((2, n), np.int64))
    room = cupy.empty(n * m, np.int32), cupy.empty(n * m)
    row_pass = C, h, beta, 0.05, a, cupy.empty(n)
    for matrix, reads, call in (
        (C, 2, lambda: kernels.row_pass(*row_pass, K)),
        # The one that waits: for how many entries there are.
        (C, 4, lambda: kernels.sparse_row_pass(*row_pass, 1e-3, *room, *segments)),
        (K, 2, lambda: kernels.sweep(K, v, a, rho)),
        (K, 1, lambda: kernels.row_peaks(K, v)),
        (K, 2, lambda: kernels.laplacian(K, v, rho, a, peaks, h)),
    ):
        device.reset()
        call()
        assert [traffic[0] for traffic in device.traffic] == [(matrix.nbytes, 0)] * reads
        stored = [stored for traffic in device.traffic for _, stored in traffic]
        assert stored.count(K.nbytes) == (reads == 2 and matrix is C)
        assert device.syncs == (reads == 4)


# The public functions.


def problem(dtype="float64", n=24, m=20):
    rng = np.random.default_rng(3)
    x, y = rng.random((n, 2)), rng.random((m, 2))
    C = np.square(x[:, None] - y).sum(axis=2)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    return [v.astype(dtype) for v in (a, b, C)]


def without_mass(a, b, C):
    a, b = a.copy(), b.copy()
    a[3], b[::7] = 0.0, 0.0
    return a / a.sum(), b / b.sum(), C


def with_forbidden_edges(a, b, C):
    C = C.copy()
    C[C > 0.8] = np.inf
    return a, b, C


def in_fortran_order(a, b, C):
    return a, b, np.asfortranarray(C)


def as_they_are(*data):
    return data


@pytest.fixture(autouse=True)
def _small_blocks(device):
    # Blocks of one warp: nothing else about a solver depends on the size.
    device.block = 32


def assert_same_answer(res, expected, atol):
    assert res.success
    assert isinstance(res.f, cupy.ndarray)
    assert isinstance(res.plan, cupy.ndarray)
    assert res.f.dtype == expected.f.dtype
    scale = np.abs(expected.f).max()
    for ours, theirs in ((res.f, expected.f), (res.g, expected.g), (res.plan, expected.plan)):
        np.testing.assert_allclose(host(ours), theirs, rtol=0, atol=atol * max(scale, 1.0))
    np.testing.assert_allclose(res.value, expected.value, rtol=atol)


def most_waits(res):
    """How often the host may wait: at both ends, by pass, Newton step, sweep and CG iteration."""
    return 40 + 4 * res.nit + 7 * res.nnewton + 1.5 * res.nsinkhorn + res.ncg / 8


def solve_on_device(device, solve, data, **options):
    """Call a solver with arrays of the device, and check that it leaves them there."""
    arrays = on_device(*data)
    device.syncs = device.uploads = 0
    res = solve(*arrays, **options)
    assert device.uploads == 0
    return res


@pytest.mark.parametrize(
    "change", [as_they_are, without_mass, with_forbidden_edges, in_fortran_order]
)
def test_conditions_on_the_plan_hold_on_the_device_too(change):
    data, options = change(*problem()), {"reg": 5e-2, "tol": 1e-10}
    D = np.random.default_rng(1).normal(size=data[2].shape)
    level = np.sum(D * ot.sinkhorn_newton(*data, **options).plan)
    conditions = [(D, ">=", level + 0.1), (-D, ">=", -level - 1.0), (D[::-1] ** 2, ">=", 0.01)]
    expected = ot.sinkhorn_newton(*data, constraints=conditions, **options)
    conditions = [(cupy.asarray(D), *others) for D, *others in conditions]
    res = ot.sinkhorn_newton(*on_device(*data), constraints=conditions, **options)
    assert_same_answer(res, expected, 1e-7)
    assert isinstance(res.w, cupy.ndarray)
    assert expected.w[0] > 0
    np.testing.assert_allclose(host(res.w), expected.w, atol=1e-7)
    potentials = {"reg": 5e-2, "tol": 1e-9, "constraints": conditions, "w": res.w}
    assert ot.certify(*on_device(*data), res.f, res.g, **potentials).holds
    again = ot.sinkhorn_newton(*on_device(*data), constraints=conditions, x0=res, **options)
    assert again.nit <= 2


@pytest.mark.parametrize(
    "change", [as_they_are, without_mass, with_forbidden_edges, in_fortran_order]
)
def test_sinkhorn_newton_gives_what_it_gives_for_numpy_arrays(device, change):
    options = {"reg": 5e-3, "tol": 1e-12}
    expected = ot.sinkhorn_newton(*change(*problem()), **options)
    res = solve_on_device(device, ot.sinkhorn_newton, change(*problem()), **options)
    assert device.syncs <= most_waits(res)
    assert_same_answer(res, expected, 1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"store_plan": False},
        {"precond": "cholesky"},
        {"precond": "jacobi", "annealing": False, "n_sinkhorn": 3},
    ],
    ids=str,
)
def test_options_of_sinkhorn_newton_work_for_device_arrays(device, options):
    options = {"reg": 1e-2, "tol": 1e-12, **options}
    expected = ot.sinkhorn_newton(*problem(), **options)
    res = solve_on_device(device, ot.sinkhorn_newton, problem(), **options)
    assert_same_answer(res, expected, 1e-9)
    assert (res.nfactor > 0) == (options.get("precond") == "cholesky")


def test_the_published_method_works_for_device_arrays(device):
    options = {"reg": 1e-2, "method": "sns-paper", "tol": 1e-8}
    expected = ot.sinkhorn_newton(*problem(), **options)
    res = solve_on_device(device, ot.sinkhorn_newton, problem(), **options)
    assert_same_answer(res, expected, 1e-6)


@pytest.mark.parametrize(("reg", "kernel"), [(1e-1, "laplacian_sums<float>"), (2e-3, "csr_lapl")])
@each_dtype
def test_big_problems_are_compressed_or_stored_in_float32(device, monkeypatch, reg, kernel, dtype):
    monkeypatch.setattr(_gibbs, "SMALL", 0)
    # Always try to compress: at high temperatures there is not enough room.
    monkeypatch.setattr(_gibbs, "PROMISING", 2.0)
    options = {"reg": reg, "tol": 1e-5 if dtype == "float32" else 1e-10}
    expected = ot.sinkhorn_newton(*problem(dtype), **options)
    res = solve_on_device(device, ot.sinkhorn_newton, problem(dtype), **options)
    assert device.syncs <= most_waits(res)
    assert_same_answer(res, expected, 1e-5 if dtype == "float32" else 1e-9)
    assert any(kernel in name for name in device.launches)


def test_a_plan_that_the_device_cannot_hold_is_computed_anew(device, monkeypatch):
    monkeypatch.setattr(validation, "_SMALL_ALLOCATION", 0)
    monkeypatch.setattr(cupy_be, "free_memory", lambda: 1000)
    monkeypatch.setattr(_gibbs, "DenseKernel", None)
    res = solve_on_device(device, ot.sinkhorn_newton, problem(), reg=1e-2)
    assert res.success
    with pytest.raises(MemoryError, match="`plan` needs"):
        assert res.plan is None


def test_a_solved_start_costs_one_pass(device):
    a, b, C = on_device(*problem())
    first = ot.sinkhorn_newton(a, b, C, reg=1e-2)
    again = ot.sinkhorn_newton(a, b, C, reg=1e-2, x0=first)
    assert again.nit == 1
    by_rows = ot.sinkhorn_newton(a, b, C, reg=1e-2, f0=first.f)
    assert by_rows.nit <= 2


def test_columns_that_underflowed_are_mended(device):
    a, b, C = problem()
    far = np.zeros(b.size)
    far[4] = -50.0
    res = ot.sinkhorn_newton(*on_device(a, b, C), reg=1e-2, g0=cupy.asarray(far))
    assert res.success
    assert any("column_potential" in name for name in device.launches)


def test_an_infeasible_problem_ends_as_it_does_for_numpy_arrays(device):
    a, b, C = problem()
    C[2] = np.inf
    answers = []
    for data in ((a, b, C), on_device(a, b, C)):
        with pytest.warns(solvers.ConvergenceWarning):
            answers.append(ot.sinkhorn_newton(*data, reg=1e-2))
    assert answers[0].status == answers[1].status
    assert not answers[1].success


@pytest.mark.parametrize("method", ["kernel", "log", "stabilized", "overrelaxed", "anderson"])
@each_dtype
def test_sinkhorn_gives_what_it_gives_for_numpy_arrays(device, method, dtype):
    options = {"reg": 5e-2, "method": method, "tol": 1e-5 if dtype == "float32" else 1e-11}
    expected = ot.sinkhorn(*problem(dtype), **options)
    res = solve_on_device(device, ot.sinkhorn, problem(dtype), **options)
    # With plain steps in kernel form the host looks at every tenth iteration only.
    assert device.syncs <= 40 + (0.3 if method in ("kernel", "stabilized") else 4) * res.nit
    assert_same_answer(res, expected, 1e-5 if dtype == "float32" else 1e-9)


def test_absorbed_potentials_do_not_overflow(device):
    options = {"reg": 4e-3, "method": "stabilized", "tol": 1e-6}
    expected = ot.sinkhorn(*problem(), **options)
    res = solve_on_device(device, ot.sinkhorn, problem(), **options)
    assert_same_answer(res, expected, 1e-5)


@pytest.mark.parametrize("annealed", [True, False])
@pytest.mark.parametrize(
    "change", [as_they_are, without_mass, with_forbidden_edges, in_fortran_order]
)
def test_exact_plans_are_those_of_numpy_arrays(device, monkeypatch, change, annealed):
    if annealed:
        monkeypatch.setattr("solvers.ot._emd.SMALL", 0)
        for name, value in (("SMALL", 0), ("EDGES", 2), ("MORE", 2)):
            monkeypatch.setattr(f"solvers.ot._pricing.{name}", value)
    a, b, C = change(*problem())
    expected = ot.emd(a, b, C, polish=True)
    arrays = on_device(a, b, C)
    res = ot.emd(*arrays, polish=True)
    assert res.success
    for ours, theirs in (
        (res.plan, expected.plan),
        (res.apply(arrays[1]), expected.apply(b)),
        (res.plan_sparse().toarray(), expected.plan),
    ):
        assert isinstance(ours, cupy.ndarray)
        np.testing.assert_allclose(host(ours), theirs, rtol=0, atol=1e-14)
    assert isinstance(res.f, cupy.ndarray)
    assert res.lp_bracket() == pytest.approx(expected.lp_bracket(), rel=1e-12)
    for P in (res.plan, res.plan_sparse()):
        cert = ot.certify(*arrays, res.f, res.g, reg=0, P=P)
        assert cert.holds
        assert cert.details["primal"] == pytest.approx(res.value, rel=1e-12)
    expected = ot.wasserstein(a, b, C, p=2)
    assert ot.wasserstein(*arrays, p=2) == pytest.approx(expected, rel=1e-9)


def test_exact_plans_between_clouds_of_the_device(device, monkeypatch, rng):
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(25, 2))
    monkeypatch.setattr("solvers.ot._emd.SMALL", 0)
    expected = ot.emd(None, None, ot.PointCloud(x, y), polish=True)
    res = ot.emd(None, None, ot.PointCloud(*on_device(x, y)), polish=True)
    assert res.success
    np.testing.assert_allclose(host(res.plan), expected.plan, rtol=0, atol=1e-14)


def test_callbacks_get_arrays_of_the_device(device):
    seen = []
    solve_on_device(
        device,
        ot.sinkhorn_newton,
        problem(),
        reg=1e-2,
        callback=lambda r: seen.append((r.f, r.fun)),
    )
    assert all(isinstance(f, cupy.ndarray) and isinstance(fun, float) for f, fun in seen)


@pytest.mark.parametrize("change", [without_mass, with_forbidden_edges, in_fortran_order])
def test_certify_judges_as_it_does_for_numpy_arrays(device, change):
    data = change(*problem())
    rng = np.random.default_rng(5)
    f, g = rng.normal(0.0, 0.1, 24), rng.normal(0.0, 0.1, 20)
    expected = ot.certify(*data, f, g, reg=0.05)
    certificate = ot.certify(*on_device(*data, f, g), reg=0.05)
    assert certificate.value == pytest.approx(expected.value, rel=1e-12)
    assert certificate.details == pytest.approx(expected.details, rel=1e-12)


def test_rounding_gives_what_it_gives_for_numpy_arrays(device):
    a, b, C = problem()
    P = np.exp(-C / 0.1) / 400
    expected = ot.round_plan(P, a, b)
    rounded = ot.round_plan(*on_device(P, a, b))
    np.testing.assert_allclose(host(rounded), expected, rtol=1e-12)


@pytest.mark.parametrize("change", [without_mass, with_forbidden_edges, in_fortran_order])
def test_results_compute_on_the_device(device, change):
    data = change(*problem())
    expected = ot.sinkhorn_newton(*data, reg=1e-2, tol=1e-12)
    res = solve_on_device(device, ot.sinkhorn_newton, data, reg=1e-2, tol=1e-12)
    rng = np.random.default_rng(6)
    V, U = rng.random((20, 3)), rng.random(24)
    device.uploads = 0
    values = {
        "x": lambda r, put: r.x,
        "potentials_counting": lambda r, put: r.potentials_counting[1],
        "apply": lambda r, put: r.apply(put(V)),
        "apply to rows": lambda r, put: r.apply(put(U), axis=0),
        "grad_C": lambda r, put: r.grad_C,
    }
    for value in values.values():
        ours = value(res, cupy.asarray)
        assert isinstance(ours, cupy.ndarray)
        np.testing.assert_allclose(host(ours), value(expected, np.asarray), rtol=0, atol=1e-9)
    assert device.uploads == 2
    sparse = res.plan_sparse(1e-6)
    assert type(sparse).__module__.startswith("cupyx.scipy.sparse")
    np.testing.assert_allclose(
        sparse.get().toarray(), expected.plan_sparse(1e-6).toarray(), rtol=0, atol=1e-9
    )
    for name in ("value_linear", "cost_rounded"):
        assert getattr(res, name) == pytest.approx(getattr(expected, name), rel=1e-9)
    assert res.lp_bracket() == pytest.approx(expected.lp_bracket(), rel=1e-9)


@pytest.mark.parametrize("change", [without_mass, with_forbidden_edges, in_fortran_order])
def test_derivatives_are_those_for_numpy_arrays(device, change):
    data = change(*problem())
    expected = ot.sinkhorn_newton(*data, reg=1e-2, tol=1e-12)
    res = solve_on_device(device, ot.sinkhorn_newton, data, reg=1e-2, tol=1e-12)
    rng = np.random.default_rng(7)
    df, dg, dP = rng.normal(size=24), rng.normal(size=20), rng.normal(size=(24, 20))
    back = res.vjp(*on_device(df, dg, dP))
    for ours, wanted in zip(back, expected.vjp(df, dg, dP), strict=True):
        assert isinstance(ours, cupy.ndarray)
        np.testing.assert_allclose(host(ours), wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    assert res.grad_reg == pytest.approx(expected.grad_reg, rel=1e-8)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
def test_gradients_in_points_are_those_for_numpy_arrays(device, cost):
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(24, 2)), rng.normal(size=(20, 2))
    expected = ot.sinkhorn_newton(None, None, ot.PointCloud(x, y, cost=cost), reg=0.1, tol=1e-12)
    cloud = ot.PointCloud(*on_device(x, y), cost=cost)
    res = ot.sinkhorn_newton(None, None, cloud, reg=0.1, tol=1e-12)
    for ours, wanted in ((res.grad_x, expected.grad_x), (res.grad_y, expected.grad_y)):
        assert isinstance(ours, cupy.ndarray)
        np.testing.assert_allclose(host(ours), wanted, rtol=0, atol=1e-8)


def test_quasi_newton_steps_give_what_they_give_for_numpy_arrays(device):
    options = {"reg": 2e-2, "method": "splr", "tol": 1e-9}
    expected = ot.sinkhorn_newton(*problem(), **options)
    res = solve_on_device(device, ot.sinkhorn_newton, problem(), **options)
    assert_same_answer(res, expected, 1e-6)


def test_results_pickle(device):
    res = ot.sinkhorn_newton(*on_device(*problem()), reg=1e-2)
    copy = pickle.loads(pickle.dumps(res))
    np.testing.assert_array_equal(host(copy.plan), host(res.plan))
    assert copy.certificate == res.certificate


def test_arrays_of_a_second_device_are_solved_there(device):
    with cupy.cuda.Device(1):
        a, b, C = on_device(*problem())
    for solve in (ot.sinkhorn_newton, ot.sinkhorn):
        res = solve(a, b, C, reg=5e-2)
        assert res.success
        assert res.f.device.id == 1
        assert res.plan.device.id == 1
        assert res.x.device.id == res.potentials_counting[0].device.id == 1
        assert res.apply(b).device.id == res.apply(a, axis=0).device.id == 1
        assert res.plan_sparse(1e-3).shape == C.shape
        assert res.lp_bracket()[0] <= res.value_linear
        assert ot.certify(a, b, C, res.f, res.g, reg=5e-2).holds
        assert ot.round_plan(res.plan, a, b).device.id == 1
    assert ot.sinkhorn_newton(None, None, C, f0=a, reg_scale="median", reg=0.1).success


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_a_cloud_is_solved_as_on_the_host(cost):
    rng = np.random.default_rng(1)
    x, y = rng.random((24, 2)), rng.random((20, 2))
    expected = ot.sinkhorn_newton(None, None, ot.PointCloud(x, y, cost=cost))
    cloud = ot.PointCloud(*on_device(x, y), cost=cost)
    assert_same_answer(ot.sinkhorn_newton(None, None, cloud), expected, 1e-7)


@pytest.mark.parametrize("d", [2, 5])
def test_a_large_cloud_is_corrected_on_nodes(device, monkeypatch, d):
    rng = np.random.default_rng(1)
    x, y = rng.random((60, d)), rng.random((50, d))
    expected = ot.sinkhorn_newton(None, None, ot.PointCloud(x, y), reg=0.1)
    for name, value in [("LARGE", 0), ("MOST_NODES", 40), ("CLUSTERS", 30)]:
        monkeypatch.setattr(_coarse, name, value)
    cloud = ot.PointCloud(*on_device(x, y))
    res = ot.sinkhorn_newton(None, None, cloud, reg=0.1, store_plan=False)
    assert "corrections" in [name for name, _, _ in res.stages]
    assert_same_answer(res, expected, 1e-7)


def test_points_of_two_kinds_are_refused():
    x = np.zeros((3, 2))
    with pytest.raises(TypeError, match=r"^`y`"):
        ot.PointCloud(cupy.asarray(x), x)
