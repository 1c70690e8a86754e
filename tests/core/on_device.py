"""The CuPy back end; runs where `cupy` is the stand-in (see `_cupy_standin`)."""

import cupy
import numpy as np
import pytest
from _cuda_on_cpu import CudaError, demo
from scipy.special import logsumexp

from solvers._core.arrays import Ingest
from solvers._core.backend import available_backends, get_backend
from solvers._core.validation import check_memory

be = get_backend("cupy")


def test_the_back_end_is_cupy():
    assert available_backends() == ("numpy", "cupy")
    assert be.xp is cupy
    assert be.linalg.__name__ == "cupyx.scipy.linalg"


def test_host_brings_values_of_all_types_in_one_transfer(device):
    x = cupy.asarray(np.arange(6.0).reshape(2, 3).T)
    small, big = cupy.asarray(np.float32(0.1)), cupy.asarray(np.int64(2**60 + 1))
    values = be.host(small, 7, x, big, x[0, 1] > 2, cupy.zeros(0))
    assert device.syncs == 1
    assert values[:2] == (float(np.float32(0.1)), 7)
    np.testing.assert_array_equal(values[2], np.arange(6.0).reshape(2, 3).T)
    assert values[3:5] == (2**60 + 1, True)
    assert values[5].shape == (0,)
    assert values[2].flags.owndata
    assert values[2].flags.aligned


@pytest.mark.parametrize("T", [np.float32, np.float64])
@pytest.mark.parametrize("block", [None, 32, 64, 256])
def test_a_launcher_gives_what_scipy_gives(device, T, block):
    rng = np.random.default_rng(1)
    C, g = rng.random((5, 300)).astype(T), rng.random(300).astype(T)
    args, out = (cupy.asarray(C), cupy.asarray(g)), cupy.empty(5, T)
    device.reset()
    device.block = block
    demo.row_lse(*args, 3, out)
    name = "row_lse<float>" if T is np.float32 else "row_lse<double>"
    assert (device.launches, device.syncs, device.uploads) == ([name], 0, 0)
    rtol = 1e-6 if T is np.float32 else 1e-13
    np.testing.assert_allclose(be.host(out), logsumexp(g - 3 * C, axis=1), rtol=rtol)


def test_a_launcher_passes_shared_memory_and_integers():
    rng = np.random.default_rng(2)
    label, weight = rng.integers(0, 9, 1000, np.int32), rng.random(1000)
    counts = cupy.zeros(9)
    demo.weighted_histogram(cupy.asarray(label), cupy.asarray(weight), counts)
    np.testing.assert_allclose(be.host(counts), np.bincount(label, weight), rtol=1e-12)


def test_a_template_argument_may_be_a_class_on_the_element_type(device):
    x, out = cupy.arange(1000.0), cupy.empty(1000)
    demo.twice(x, out)
    assert device.launches == ["apply<double, Twice<double>>"]
    np.testing.assert_array_equal(be.host(out), 2 * np.arange(1000.0))


def test_a_wrong_array_type_is_refused_at_the_launch():
    C = cupy.zeros((2, 2))
    with pytest.raises(CudaError, match="argument 2 came as float32 array"):
        demo.row_lse(C, cupy.zeros(2, np.float32), 1.0, cupy.zeros(2))


def test_the_door_takes_stand_in_arrays_and_hands_them_back(device):
    a = cupy.asarray(np.arange(4, dtype=np.float32))
    device.reset()
    io = Ingest(a=a, b=[1.0, 2.0])
    assert (io.kind, io.be, io.dtype) == ("cupy", be, np.float32)
    out = io.out(io["a"] * 2)
    assert isinstance(out, cupy.ndarray)
    assert (device.uploads, device.syncs) == (1, 0)
    np.testing.assert_array_equal(be.host(out), [0, 2, 4, 6])


@pytest.mark.parametrize(
    "wrong",
    [
        np.asarray,
        np.exp,
        np.sum,
        lambda x: x + np.ones(3),
        lambda x: x[np.array([0, 1])],
        lambda x: cupy.exp(np.ones(3)),
        lambda x: cupy.concatenate([x, np.ones(3)]),
        lambda x: x.__setitem__(0, np.ones(3)),
    ],
)
def test_host_and_device_arrays_do_not_mix(wrong):
    with pytest.raises(TypeError):
        wrong(cupy.ones(3))


def test_what_is_not_listed_does_not_exist():
    for missing in (lambda: cupy.polyfit, lambda: cupy.ones(3).partition, lambda: cupy.asnumpy):
        with pytest.raises(AttributeError):
            missing()


def test_whatever_waits_for_the_device_is_counted(device):
    x = cupy.asarray(np.array([1.0, -2.0, 3.0]))
    assert device.uploads == 1
    total = x.sum() + x[0] * np.float64(2)
    x += 1
    x[cupy.asarray([0, 1])] = 5.0
    assert isinstance(total, cupy.ndarray)
    assert device.syncs == 0
    waits = [
        lambda: float(total),
        lambda: bool(x[0] > 0),
        total.item,
        lambda: x[x > 0],
        lambda: cupy.flatnonzero(x),
        x.tolist,
        lambda: range(cupy.asarray(2)),
    ]
    for count, wait in enumerate(waits, start=1):
        wait()
        assert device.syncs == count


def test_memory_that_was_never_written_is_nan():
    assert be.host(cupy.isnan(cupy.empty(3)).all())


def test_a_failed_factorisation_raises_only_where_the_back_end_asks(device):
    cupy.linalg.cholesky(-cupy.eye(2))
    assert device.syncs == 0
    with pytest.raises(np.linalg.LinAlgError):
        be.cholesky(-cupy.eye(2))
    np.testing.assert_allclose(be.host(be.cholesky(4 * cupy.eye(2))), 2 * np.eye(2))


def test_an_array_of_another_device_than_the_current_one_is_refused():
    with cupy.cuda.Device(1):
        x = cupy.ones(3)
    assert x.__dlpack_device__() == (2, 1)
    with pytest.raises(ValueError, match="array device = 1 while current = 0"):
        x + 1
    with cupy.cuda.Device(1):
        assert be.host(x.sum()) == 3.0


def test_memory_is_that_of_the_device():
    assert be.free_memory() == 2**36 + 2**20
    check_memory(2**36, "`plan`", be=be)
    with pytest.raises(MemoryError, match=r"`plan` needs 137 GB; 68\.7 GB are free"):
        check_memory(2**37, "`plan`", be=be)


def test_sparse_matrices_stay_on_the_device_until_they_are_fetched(device):
    A = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
    part = be.sparse.csr_matrix(cupy.asarray(A))
    whole = be.sparse.vstack([part, part], format="csr")
    assert whole.shape == (4, 3)
    np.testing.assert_array_equal(be.host(whole @ cupy.ones(3)), [2.0, 4.0, 2.0, 4.0])
    np.testing.assert_array_equal(whole.T.tocsr().get().toarray(), np.vstack([A, A]).T)
    assert device.syncs == 3


def test_in_place_operations_write_to_the_array_that_others_see():
    x = cupy.zeros((2, 3))
    row = x[1]
    row += 1
    assert cupy.add(row, 1, out=row) is row
    assert cupy.asarray(row) is row
    np.testing.assert_array_equal(be.host(x), [[0, 0, 0], [2, 2, 2]])
