"""The CPU harness for CUDA kernels: correct kernels agree with NumPy, planted bugs are caught."""

from pathlib import Path

import _cuda_on_cpu
import numpy as np
import pytest
from _cuda_on_cpu import (
    POLICIES,
    CompileError,
    CpuKernel,
    CpuRawModule,
    CudaError,
    instances,
    schedule,
)
from scipy.special import logsumexp

from solvers._core.backend import CudaSource

pytestmark = pytest.mark.skipif(
    _cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or ""
)

FOLDER = Path(_cuda_on_cpu.__file__).parent
RTOL = {np.float32: 2e-5, np.float64: 1e-12}
CUDA_TYPE = {np.float32: "float", np.float64: "double"}


def kernel(name, T=np.float64, source="demo"):
    code = CudaSource(FOLDER / source).code
    module = CpuRawModule(code=code, name_expressions=instances(code))
    return module.get_function(f"{name}<{CUDA_TYPE[T]}>")


def compiled(code, name):
    return CpuRawModule(code=code, name_expressions=(name,)).get_function(name)


each_type = pytest.mark.parametrize("T", [np.float32, np.float64])


@each_type
@pytest.mark.parametrize("block", [32, 64, 128, 256])
def test_row_log_sum_exp_agrees_with_scipy_for_every_size_and_order_of_threads(T, block):
    row_lse, rng = kernel("row_lse", T), np.random.default_rng(1)
    for m in (1, 31, 32, 33, 255, 1025):
        # A slice of a wider matrix: the kernel must use the leading dimension.
        C, g = rng.random((5, m + 3)).astype(T)[:, :m], rng.standard_normal(m).astype(T)
        for seed, policy in enumerate(POLICIES):
            out = np.full(5, np.nan, T)
            with schedule(policy, seed):
                args = (C, np.int64(m + 3), g, T(40), out, np.int64(5), np.int64(m))
                row_lse((3,), (block,), args)
            np.testing.assert_allclose(out, logsumexp(g - T(40) * C, axis=1), rtol=RTOL[T])


def test_log_sum_exp_takes_infinities_as_logsumexp_does_and_hands_nan_on():
    g = np.zeros((4, 40))
    g[0] = -np.inf
    g[1, ::2] = -np.inf
    g[2, 7] = np.nan
    out = np.empty(4)
    kernel("row_lse")((4,), (32,), (-g, 40, np.zeros(40), 1.0, out, 4, 40))
    np.testing.assert_allclose(out, logsumexp(g, axis=1), rtol=1e-14)


@each_type
@pytest.mark.parametrize("policy", POLICIES)
def test_atomics_in_shared_and_global_memory_add_every_weight_once(T, policy):
    rng = np.random.default_rng(2)
    label, weight = rng.integers(0, 9, 1000, np.int32), rng.random(1000).astype(T)
    counts = np.ones(9, T)
    with schedule(policy):
        args = (label, weight, counts, np.int64(1000), np.int64(9))
        kernel("weighted_histogram", T)((3,), (64,), args, shared_mem=9 * counts.itemsize)
    np.testing.assert_allclose(counts, 1 + np.bincount(label, weight), rtol=RTOL[T])


def test_a_transpose_through_shared_memory_is_exact_on_a_two_dimensional_grid():
    A, out = np.random.default_rng(3).random((45, 70)), np.empty((70, 45))
    kernel("transpose")((3, 2), (32, 8), (A, out, np.int64(45), np.int64(70)))
    np.testing.assert_array_equal(out, A.T)


def test_shuffles_move_values_within_their_width():
    x, out = np.arange(32.0), np.empty((4, 4, 8))
    kernel("shuffles")((1,), (32,), (x, out))
    groups, lane = x.reshape(4, 8), np.arange(8)
    np.testing.assert_array_equal(out[0], np.repeat(groups[:, 3:4], 8, axis=1))
    np.testing.assert_array_equal(out[1], groups[:, np.where(lane < 2, lane, lane - 2)])
    np.testing.assert_array_equal(out[2], groups[:, np.where(lane > 5, lane, lane + 2)])
    np.testing.assert_array_equal(out[3], groups[:, lane ^ 5])


@pytest.mark.parametrize("limit", [-1.0, 0.5, 2.0])
def test_votes_count_the_lanes_that_say_yes(limit):
    x, out = np.random.default_rng(4).random(64), np.empty((2, 5), np.uint32)
    kernel("votes")((1,), (64,), (x, limit, out))
    yes = (x > limit).reshape(2, 32)
    ballots = [sum(1 << int(lane) for lane in np.flatnonzero(row)) for row in yes]
    even = [ballot & 0x55555555 for ballot in ballots]
    total = [yes.sum()] * 2
    expected = np.transpose([ballots, even, total, yes.any(axis=1), yes.all(axis=1)])
    np.testing.assert_array_equal(out, expected)


PLANTED = {
    "missing_barrier": "shared memory, which",
    "missing_trailing_barrier": "with no barrier between",
    "missing_warp_barrier": "shared memory, which its warp has",
    "write_after_another_warp_read": "shared memory, which another warp has",
    "race_in_dynamic_shared": "with no barrier between",
    "race_of_blocks": "which another block has",
    "plain_read_of_atomic": "with no barrier between",
    "unwritten_shared": "reads shared memory that its block has not written",
    "divergent_barrier": "waits for the block at",
    "barrier_after_return": "return",
    "divergent_shuffle": "thread 0 and 31 more wait for their warp",
    "different_shuffles": "diverges: lane",
    "shuffle_after_return": "lane 7 in its mask",
    "shuffle_from_outside_the_mask": "reads lane 4, which mask 0000000f does not name",
    "read_past_the_end": "reads 8 bytes at byte 1024 of argument 0, which has 1024",
    "write_before_the_start": "writes 8 bytes at byte -8 of argument 1, which has 1024",
    "read_far_away": "far outside its arguments",
    "write_past_dynamic_shared": "outside the block's dynamic shared memory",
    "write_past_static_shared": "indexes an array out of its bounds",
    "write_to_const": "writes to const argument 0",
    "endless_wait": "finds no end",
    "overflow_of_int": "overflows a signed multiplication",
    "stack_too_deep": "overflows its stack",
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_planted_bug_is_caught_in_every_order_of_threads(name, policy, monkeypatch):
    monkeypatch.setattr(CpuKernel, "most_accesses", 1_000_000)
    x, y = np.arange(128.0), np.zeros(128)
    with schedule(policy), pytest.raises(CudaError) as caught:
        kernel(name, source="planted")((2,), (64,), (x, y, np.int64(128)), shared_mem=512)
    assert PLANTED[name] in str(caught.value)
    assert str(caught.value).startswith(f"{name}<double>: ")
    # After an error the next launch starts afresh; and its twin without the bug passes.
    with schedule(policy):
        kernel("correct", source="planted")((1,), (64,), (x, y, np.int64(128)))
    np.testing.assert_array_equal(y, np.roll(x.reshape(2, 64), -1, axis=1).ravel())


def test_every_planted_bug_is_expected_to_be_caught():
    kernels = {name.partition("<")[0] for name in instances(CudaSource(FOLDER / "planted").code)}
    assert kernels == {*PLANTED, "correct"}


def test_an_error_names_thread_block_and_source_line():
    with pytest.raises(CudaError) as caught:
        kernel("read_past_the_end", source="planted")(
            (1,), (32,), (np.zeros(5), np.zeros(5), np.int64(5))
        )
    line = (
        (FOLDER / "planted.cu")
        .read_text()
        .splitlines()
        .index("  for (long long i = threadIdx.x; i < n; i += blockDim.x) y[i] = x[i + 1] - x[i];")
    )
    assert "thread (4, 0, 0) of block (0, 0, 0)" in str(caught.value)
    assert f"(planted.cu:{line + 1})" in str(caught.value)


x, y, n = np.zeros(4), np.zeros(4), np.int64(4)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((x, y), "takes 3 arguments, got 2"),
        ((x, y, np.int32(4)), "argument 2 came as int32; the kernel declares `long long`"),
        ((x, y, 4.0), "argument 2 came as float64; the kernel declares `long long`"),
        (
            (x, y.astype("f4"), n),
            "argument 1 came as float32 array; the kernel declares `double *`",
        ),
        ((x, 4, n), "argument 1 came as int64; the kernel declares `double *`"),
        ((x, y, y), "argument 2 came as float64 array; the kernel declares `long long`"),
        ((x, y, None), "argument 2 came as None"),
        ((x, x, n), "arguments 1 and 0 share memory"),
        ((y[:3], y[1:], n), "arguments 1 and 0 share memory"),
    ],
)
def test_arguments_that_do_not_fit_the_signature_are_refused(args, message):
    with pytest.raises(CudaError) as caught:
        kernel("correct", source="planted")((1,), (32,), args)
    assert message in str(caught.value)


def test_a_python_float_is_not_a_float32():
    C = np.zeros((1, 1), np.float32)
    with pytest.raises(CudaError, match="argument 3 came as float64; the kernel declares `float`"):
        kernel("row_lse", np.float32)((1,), (32,), (C, 1, C[0], 1.0, C[0], 1, 1))


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        ((0,), (32,), 0, "`grid` came as"),
        ((1, 65536), (32,), 0, "`grid` came as"),
        ((1,), (1025,), 0, "`block` came as"),
        ((1,), (64, 32), 0, "at most 1024 threads"),
        ((1,), (32,), 49153, "shared memory; 49152 at most"),
    ],
)
def test_launches_beyond_the_limits_of_every_gpu_are_refused(grid, block, shared, message):
    with pytest.raises(CudaError, match=message):
        kernel("correct", source="planted")(grid, block, (x, y, n), shared_mem=shared)


def test_a_full_mask_in_a_block_that_ends_in_half_a_warp_is_an_error():
    with pytest.raises(CudaError, match=r"lane 16 in its mask .* does not exist"):
        kernel("shuffles")((1,), (16,), (np.zeros(32), np.zeros(128)))


def test_views_of_one_workspace_are_written_in_place():
    work = np.zeros((100, 2))
    work[:, 0] = np.arange(100)
    code = """
template <class T>
__global__ void copy(const T* x, T* y, long long stride) {
  y[threadIdx.x * stride] = x[threadIdx.x * stride];
}"""
    compiled(code, "copy<double>")((1,), (100,), (work[:, 0], work[:, 1], np.int64(2)))
    np.testing.assert_array_equal(work[:, 1], np.arange(100))


def test_bytes_moved_are_those_of_the_algorithm():
    row_lse, out = kernel("row_lse"), np.empty(10)
    row_lse((10,), (32,), (np.ones((10, 50)), 50, np.ones(50), 1.0, out, 10, 50))
    moved = {k: total for k, total in enumerate(row_lse.traffic) if any(total)}
    assert moved == {0: (4000, 0), 2: (4000, 0), 4: (0, 80)}


def test_a_source_that_does_not_compile_shows_the_line():
    with pytest.raises(CompileError, match=r"source\.cu:2.*no_such_thing"):
        compiled(
            "template <class T> __global__ void f(T* x) {\n  x[0] = no_such_thing; }", "f<float>"
        )


def test_the_seed_alone_decides_the_order_of_threads():
    def order(seed):
        done = np.zeros(64)
        with schedule("subset", seed):
            turn((1,), (64,), (done, np.zeros(1, np.int32)))
        return done.tolist()

    turn = compiled(
        """
template <class T>
__global__ void turn(T* done, int* clock) {
  done[threadIdx.x] = atomicAdd(clock, 1);
}""",
        "turn<double>",
    )
    orders = [order(seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(64))
    assert orders[0] != sorted(orders[0])


def test_kernels_are_found_with_all_their_element_types():
    code = """
template <class T>
__device__ T twice(T x) { return 2 * x; }

template <class T>
__global__ void first(const T* x) {}

template <typename T, typename S>
__global__ void __launch_bounds__(256)
    second(const T* x, S* y) {}

template <class T, class Shape>
__global__ void third(const T* x, Shape shape) {}

template <class T, class Penalty>
__global__ void fourth(const T* x) {}
"""
    pairs = [f"second<{T}, {S}>" for T in ("float", "double") for S in ("float", "double")]
    found = instances(code)
    assert found[:6] == ("first<float>", "first<double>", *pairs)
    assert {"fourth<float, MCP<float>>", "fourth<double, ElasticBox<double>>"} < set(found[6:])
    assert all(name.startswith("fourth") for name in found[6:])
