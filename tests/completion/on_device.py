"""Completion on CuPy arrays; runs where `cupy` is the stand-in (see `_cupy_standin`)."""

import cupy
import numpy as np
import pytest
import scipy.sparse

from solvers._core.backend import get_backend
from solvers.completion import CompletionResult, alternating_minimization
from solvers.completion._observations import observe, read_entries
from tests.completion.kernel_tests import KernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 256])
class TestCudaKernels(KernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


# The door.


@pytest.fixture
def data(rng):
    """Rows, columns and values in no order, and the same with NaN for gaps."""
    rows, cols = np.nonzero(rng.random((13, 9)) < 0.5)
    order = rng.permutation(rows.size)
    rows, cols = rows[order], cols[order]
    vals = 3.0 + rng.random(rows.size)
    dense = np.full((13, 9), np.nan)
    dense[rows, cols] = vals
    return rows, cols, vals, dense


def sides(entered, **options):
    """Everything that the door finds out, on the host."""
    obs = observe(entered, **options)
    parts = (*obs.by_row, *obs.by_col, obs.rows)
    return entered.io.be.host(*parts)


def assert_same(found, expected):
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_form_is_read_as_on_the_host(device, data, dtype):
    rows, cols, vals, dense = *data[:2], data[2].astype(dtype), data[3].astype(dtype)
    weights = np.sqrt(vals) * (rows != 4)
    expected = sides(read_entries((rows, cols, vals), dense.shape, weights))
    triples = [cupy.asarray(x) for x in (rows, cols, vals)]
    on_device = cupy.asarray(weights)
    uploads = device.uploads
    assert_same(sides(read_entries(tuple(triples), dense.shape, on_device)), expected)
    S = cupy_be.sparse.csr_matrix((triples[2], (triples[0], triples[1])), shape=dense.shape)
    by_row = cupy.asarray(weights[np.lexsort((cols, rows))])
    assert_same(sides(read_entries(S, None, by_row)), expected)
    assert_same(sides(read_entries(cupy.asarray(dense), None, by_row)), expected)
    # The tests' own: two arrays.
    assert device.uploads == uploads + 2


@pytest.mark.parametrize("duplicates", ["mean", "sum", "last"])
def test_duplicates_are_merged_as_on_the_host(data, duplicates):
    rows, cols, vals, _ = data
    rows, cols, vals = np.r_[rows, rows[:9]], np.r_[cols, cols[:9]], np.r_[vals, vals[:9] + 1.0]
    weights = 1.0 + np.arange(rows.size) % 3
    parts = [cupy.asarray(x) for x in (rows, cols, vals, weights)]
    entered = read_entries(tuple(parts[:3]), (13, 9), parts[3])
    found = sides(entered, duplicates=duplicates)
    assert_same(
        found, sides(read_entries((rows, cols, vals), (13, 9), weights), duplicates=duplicates)
    )
    with pytest.raises(ValueError, match=r"^`M` holds the entry"):
        observe(entered)


def test_faults_are_found_on_the_device(data):
    rows, cols, vals, dense = data
    far, spoilt = rows.copy(), dense.copy()
    far[3], spoilt[2, 5] = 13, np.inf
    for M, shape, message in (
        ((far, cols, vals), dense.shape, r"^`rows` contains 13 at rows\[3\]"),
        ((far.astype(np.int8), cols, vals), dense.shape, r"^`rows` contains 13 at rows\[3\]"),
        (
            (rows, cols, np.where(rows == 4, np.nan, vals)),
            dense.shape,
            r"^`vals` contains nan at vals",
        ),
        (spoilt, None, r"^`M` contains inf at \(2, 5\)"),
        (np.full((2, 2), np.nan), None, r"^`M` holds no observed entries"),
    ):
        sent = tuple(map(cupy.asarray, M)) if isinstance(M, tuple) else cupy.asarray(M)
        with pytest.raises(ValueError, match=message):
            read_entries(sent, shape)


# The result.


@pytest.fixture
def results(data):
    """A result on the host, and the same on the device."""
    host = alternating_minimization(data[3], 2, lam=0.1, nonnegative=True, tol=1e-6, rng=0)
    names = ("U", "s", "V", "row_bias", "col_bias")
    host.row_bias, host.mu = np.arange(13.0), 0.5
    arrays = {name: cupy.asarray(host[name]) for name in names}
    return host, CompletionResult(**{**host, **arrays})


def test_methods_give_what_they_give_on_the_host(device, data, results):
    rows, cols, _, dense = data
    host, there = results
    device.syncs = device.uploads = 0
    pairs = [
        *zip(there.factors(), host.factors(), strict=True),
        (there.block(slice(2, 7)), host.block(slice(2, 7))),
        *zip(there.top_n([0, 5], 3), host.top_n([0, 5], 3), strict=True),
    ]
    # Rows that come as a list.
    assert device.uploads == 1
    i, j = cupy.asarray(rows), cupy.asarray(cols)
    pairs += [
        (there.predict(i, j), host.predict(rows, cols)),
        (there.fold_in(cupy.asarray(dense)), host.fold_in(dense)),
    ]
    for found, expected in pairs:
        assert isinstance(found, cupy.ndarray)
        np.testing.assert_allclose(cupy_be.host(found), expected, rtol=1e-9, atol=1e-12)


def test_what_was_seen_is_left_out_on_the_device(data, results):
    host, there = results
    S = scipy.sparse.csr_matrix((np.ones(data[0].size), data[:2]), shape=(13, 9))
    found = cupy_be.host(*there.top_n([0, 5], 9, exclude=cupy_be.sparse.csr_matrix(S)))
    for x, y in zip(found, host.top_n([0, 5], 9, exclude=S), strict=True):
        np.testing.assert_allclose(x, y)
    with pytest.raises(TypeError, match=r"^`exclude`"):
        there.top_n([0], 2, exclude=S)


def test_arrays_in_host_memory_are_refused(data, results):
    rows, cols, vals, dense = data
    there = results[1]
    for call in (
        lambda: there.predict(rows, cols),
        lambda: there.fold_in(dense),
        lambda: read_entries((rows, cols, cupy.asarray(vals)), dense.shape),
    ):
        with pytest.raises(TypeError, match="numpy array"):
            call()
