"""Completion on a real device: kernels, the door and results, against the same on the host."""

import numpy as np
import pytest

from solvers._core.backend import get_backend
from solvers.completion import CompletionResult, alternating_minimization
from solvers.completion._observations import observe, read_entries
from tests.completion.kernel_tests import KernelTests

pytestmark = pytest.mark.gpu
SHAPE = 700, 500


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernels(KernelTests):
    pass


@pytest.fixture
def data(rng):
    """Entries in no order, with equal places, and weights of which some are zero."""
    rows, cols = (rng.integers(0, size, 40_000) for size in SHAPE)
    return rows, cols, rng.random(40_000), rng.integers(0, 3, 40_000).astype(float)


@pytest.mark.parametrize("duplicates", ["mean", "sum", "last"])
def test_entries_are_sorted_and_merged_as_on_the_host(be, data, duplicates):
    def sides(rows, cols, vals, weights):
        obs = observe(read_entries((rows, cols, vals), SHAPE, weights), duplicates)
        return be.host(*obs.by_row, *obs.by_col, obs.rows)

    found = sides(*map(be.xp.asarray, data))
    for x, y in zip(found, sides(*data), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)
        assert x.dtype == y.dtype


def test_dense_and_sparse_matrices_are_read_as_on_the_host(be, rng):
    dense = rng.random(SHAPE)
    dense[rng.random(SHAPE) < 0.5] = np.nan
    rows, cols = np.nonzero(~np.isnan(dense))
    there = be.xp.asarray(dense)
    sparse = be.sparse.coo_matrix((there[rows, cols], (be.xp.asarray(rows), be.xp.asarray(cols))))
    for M in (there, sparse.tocsr(), sparse.tocsc()):
        obs = observe(read_entries(M, SHAPE))
        np.testing.assert_array_equal(be.host(obs.rows), rows)
        np.testing.assert_array_equal(be.host(obs.by_row.val), dense[rows, cols])


def test_faults_are_found_on_the_device(be):
    ones = be.xp.ones(9)
    places = be.xp.arange(9)
    for rows, vals, message in (
        (places - 1, ones, r"^`rows` contains -1 at rows\[0\]"),
        ((places + 120).astype(np.int8), ones, r"^`rows` contains -128 at rows\[8\]"),
        (places, be.xp.log(places - 3.0), r"^`vals` contains nan at vals\[0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            read_entries((rows, places, vals), (300, 300))


def test_methods_of_a_result_give_what_they_give_on_the_host(be, rng):
    xp = be.xp
    dense = rng.random((300, 4)) @ rng.random((4, 200))
    dense[rng.random(dense.shape) < 0.6] = np.nan
    host = alternating_minimization(dense, 4, lam=0.5, nonnegative=True, tol=1e-6, rng=0)
    host.row_bias, host.mu = rng.random(300), 0.5
    names = ("U", "s", "V", "row_bias", "col_bias")
    there = CompletionResult(**{**host, **{name: xp.asarray(host[name]) for name in names}})
    rows, cols = rng.integers(0, 300, 999), rng.integers(0, 200, 999)
    seen = be.sparse.csr_matrix(xp.asarray(np.nan_to_num(dense)))
    users = np.arange(0, 300, 7)
    pairs = [
        *zip(there.factors(), host.factors(), strict=True),
        (there.predict(xp.asarray(rows), xp.asarray(cols)), host.predict(rows, cols)),
        (there.block(slice(2, 99)), host.block(slice(2, 99))),
        (there.fold_in(xp.asarray(dense)), host.fold_in(dense)),
        *zip(
            there.top_n(xp.asarray(users), 9, exclude=seen),
            host.top_n(users, 9, exclude=seen.get()),
            strict=True,
        ),
    ]
    for found, expected in pairs:
        assert isinstance(found, xp.ndarray)
        np.testing.assert_allclose(be.host(found), expected, rtol=1e-8, atol=1e-10)
