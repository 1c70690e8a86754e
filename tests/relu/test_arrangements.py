import math

import numpy as np
import pytest

from solvers import relu


def patterns(X, vectors):
    return {column.tobytes() for column in np.ascontiguousarray((X @ vectors >= 0).T)}


def columns(gates):
    return {column.tobytes() for column in np.ascontiguousarray(gates.D.T)}


@pytest.mark.parametrize(("n", "r"), [(6, 1), (14, 2), (12, 3), (10, 4), (8, 5), (7, 7)])
def test_rows_in_general_position_have_as_many_gates_as_they_can(n, r):
    X = np.random.default_rng(n + r).standard_normal((n, r))
    gates = relu.enumerate_arrangements(X)
    count = 2 * sum(math.comb(n - 1, k) for k in range(r))
    # One of them may be closed for all samples, and its opposite is then open for all.
    closed = gates.D.all(axis=0).any()
    assert len(gates) == len(columns(gates)) == count - closed
    assert relu.count_arrangements_bound(n, r) == count
    assert np.array_equal(gates.D, X @ gates.vectors >= 0)
    # The vectors lie inside: every row keeps its side when they move a little.
    assert (abs(X @ gates.vectors) > 1e-9).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "r"), [(8, 2), (8, 3), (7, 4)])
def test_a_hundred_thousand_random_vectors_find_no_other_gate(n, r, seed):
    rng = np.random.default_rng(seed)
    # Small whole numbers: rows repeat, oppose each other, vanish, and meet three at a time.
    X = rng.integers(-1, 2, (n, r)).astype(float)
    found = columns(relu.enumerate_arrangements(X))
    seen = patterns(X, rng.standard_normal((r, 100_000)))
    nonzero = (X != 0).any(axis=1)
    closed = {p for p in seen if not np.frombuffer(p, dtype=bool)[nonzero].any()}
    assert found == seen - closed


def test_rank_counts_and_not_the_number_of_columns():
    rng = np.random.default_rng(1)
    flat, basis = rng.standard_normal((9, 2)), rng.standard_normal((2, 6))
    wide = relu.enumerate_arrangements(flat @ basis)
    assert columns(wide) == columns(relu.enumerate_arrangements(flat))
    assert wide.vectors.shape == (6, len(wide))


def test_lengths_of_rows_do_not_matter():
    X = np.random.default_rng(2).standard_normal((9, 3))
    lengths = 10.0 ** np.linspace(-150, 150, 9)[:, None]
    assert columns(relu.enumerate_arrangements(lengths * X)) == columns(
        relu.enumerate_arrangements(X)
    )


def test_rows_of_zeros_and_copies_add_nothing():
    X = np.random.default_rng(3).standard_normal((6, 2))
    more = np.vstack([X, 2 * X[:2], -X[2:3], np.zeros((1, 2))])
    gates = relu.enumerate_arrangements(more)
    assert columns(relu.Gates(gates.D[:6])) == columns(relu.enumerate_arrangements(X))
    assert gates.D[9].all()
    assert len(relu.enumerate_arrangements(np.zeros((3, 2)))) == 1


def test_single_precision_sees_the_rank_of_its_data():
    X = np.random.default_rng(4).standard_normal((12, 3)).astype(np.float32)
    gates = relu.enumerate_arrangements(X)
    assert gates.vectors.dtype == np.float32
    assert len(gates) >= relu.count_arrangements_bound(12, 3) - 1


def test_too_many_cells_are_refused_before_they_are_listed():
    X = np.random.default_rng(5).standard_normal((60, 6))
    with pytest.raises(ValueError, match=r"^`X` .* max_cells = 200,000"):
        relu.enumerate_arrangements(X)
    with pytest.raises(ValueError, match="max_cells = 10"):
        relu.enumerate_arrangements(X[:8, :2], max_cells=10)


@pytest.mark.parametrize(
    ("error", "name", "call"),
    [
        (ValueError, "X", lambda: relu.enumerate_arrangements(np.ones(3))),
        (ValueError, "X", lambda: relu.enumerate_arrangements(np.full((2, 2), np.inf))),
        (TypeError, "X", lambda: relu.enumerate_arrangements([["a", "b"]])),
        (ValueError, "max_cells", lambda: relu.enumerate_arrangements(np.eye(2), max_cells=0)),
        (TypeError, "max_cells", lambda: relu.enumerate_arrangements(np.eye(2), max_cells=1e5)),
    ],
)
def test_bad_arguments_are_refused_by_name(error, name, call):
    with pytest.raises(error, match=f"^`{name}`"):
        call()
