"""What solvers allocate, in bytes for each observed entry."""

import tracemalloc

import numpy as np
import pytest

from solvers import completion

COUNT, SHAPE, RANK = 300_000, (6000, 5000), 5


@pytest.fixture(scope="module")
def data():
    """Entries of a noisy matrix, in no order."""
    rng = np.random.default_rng(0)
    flat = rng.choice(SHAPE[0] * SHAPE[1], COUNT, replace=False)
    rows, cols = flat // SHAPE[1], flat % SHAPE[1]
    A, B = (rng.normal(size=(size, RANK)) for size in SHAPE)
    return rows, cols, np.einsum("pk,pk->p", A[rows], B[cols]) + rng.normal(size=COUNT)


def peak(call):
    tracemalloc.start()
    try:
        result = call()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_run_never_holds_the_matrix_nor_many_copies_of_its_entries(data):
    def solve():
        return completion.alternating_minimization(
            data, RANK, shape=SHAPE, lam=5.0, method="altmin", tol=1e-3, rng=0
        )

    solve()  # compiles
    res, nbytes = peak(solve)
    assert res.success
    assert nbytes < 0.4 * 8 * SHAPE[0] * SHAPE[1]
    # The solver keeps 40; the certificate makes matrices of its own.
    assert nbytes < 300 * COUNT


def test_predictions_need_what_they_return(data):
    res = completion.alternating_minimization(
        data, RANK, shape=SHAPE, lam=5.0, method="altmin", tol=1e-2, rng=0
    )
    rows, cols = data[0].astype(np.int32), data[1].astype(np.int32)
    res.predict(rows[:9], cols[:9])  # compiles
    assert peak(lambda: res.predict(rows, cols))[1] < 40 * COUNT
    few = peak(lambda: res.predict(rows[:100], cols[:100]))[1]
    assert few < 1e5
    # Scores of a few rows at a time.
    users = np.arange(SHAPE[0])
    res.top_n(users[:9], 5)
    assert peak(lambda: res.top_n(users, 5))[1] < 3 * 8 * (1 << 24)
