import itertools
import math

import numpy as np
import pytest

from solvers import ConvergenceWarning, relu
from solvers.relu._gates import Patterns


def columns(D):
    return {column.tobytes() for column in np.ascontiguousarray(D.T)}


def data(n=30, d=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scheme", ["gaussian", "sphere", "data", "sparse"])
def test_gates_are_distinct_and_those_of_their_vectors(scheme, dtype):
    X = data().astype(dtype)
    gates = relu.sample_gates(X, 25, scheme=scheme, rng=3)
    assert len(gates) == 25
    assert gates.D.shape == (30, 25)
    assert gates.D.dtype == bool
    assert len(columns(gates.D)) == 25
    assert gates.D.any(axis=0).all()
    # In double precision, whatever the data's: the judge's arithmetic.
    assert gates.vectors.dtype == dtype
    assert np.array_equal(gates.D, X.astype(float) @ gates.vectors.astype(float) >= 0)
    again = relu.sample_gates(X, 25, scheme=scheme, rng=3)
    assert np.array_equal(gates.D, again.D)
    assert np.array_equal(gates.vectors, again.vectors)


def test_each_scheme_follows_its_law():
    X = data(200, 25)
    sphere = relu.sample_gates(X, 40, scheme="sphere", rng=0).vectors
    assert np.allclose(np.linalg.norm(sphere, axis=0), 1.0)
    sparse = relu.sample_gates(X, 40, scheme="sparse", rng=0).vectors
    assert ((sparse != 0).sum(axis=0) == 5).all()
    # All samples on one side of the origin: most directions do not split them, differences do.
    far = data(200, 25) + 8.0
    share = {s: relu.sample_gates(far, 40, scheme=s, rng=0).D.mean(axis=0) for s in
             ("gaussian", "data")}  # fmt: skip
    balance = {s: np.minimum(p, 1 - p).mean() for s, p in share.items()}
    assert balance["data"] > balance["gaussian"]


def test_bits_survive_packing_for_any_number_of_samples():
    rng = np.random.default_rng(5)
    for n in (1, 7, 8, 9, 64, 65):
        D = rng.random((n, 5)) < 0.5
        gates = relu.Gates(D)
        assert np.array_equal(gates.D, D)
        assert np.array_equal(gates.mask, D.T)
        some = gates.select([3, 1])
        assert np.array_equal(some.D, D[:, [3, 1]])
        assert len(some) == 2
        assert len(gates) == 5
    assert "5 gates of 65 samples" in repr(gates)


def test_patterns_of_many_rows_do_not_depend_on_blocks(monkeypatch):
    X, g = data(100, 4), data(4, 9)
    whole = relu._gates.pack(X, g)
    monkeypatch.setattr(relu._gates, "_BLOCK", 64)
    assert np.array_equal(relu._gates.pack(X, g), whole)
    assert np.array_equal(np.unpackbits(whole, axis=1, count=100).T, X @ g >= 0)


def test_few_possible_gates_are_returned_with_a_warning():
    X = data(3, 2)
    with pytest.warns(ConvergenceWarning, match="of the 50 asked for"):
        gates = relu.sample_gates(X, 50, rng=0)
    assert len(gates) <= relu.count_arrangements_bound(3, 2)
    assert len(columns(gates.D)) == len(gates)


def test_rows_of_zeros_tell_no_gates_apart():
    X = np.vstack([data(3, 2), np.zeros((2, 2))])
    found = Patterns(X)
    numbers = found.add(data(2, 400, 1))
    # All cells of three lines but the one that is closed for all samples, if there is one.
    D = found.gates().D
    assert len(columns(D[:3])) == len(found)
    assert D[:3].any(axis=0).all()
    assert numbers.max() == len(found) - 1
    with pytest.warns(ConvergenceWarning):
        nothing = relu.sample_gates(np.zeros((4, 2)), 3, rng=0)
    assert len(nothing) == 1


def test_data_of_any_layout_give_the_same_gates():
    X = data()
    wide = np.zeros((60, 12))
    wide[::2, ::2] = X
    frozen = X.copy()
    frozen.setflags(write=False)
    want = relu.sample_gates(X, 10, rng=0).D
    for other in (np.asfortranarray(X), wide[::2, ::2], frozen, X.astype(">f8")):
        assert np.array_equal(relu.sample_gates(other, 10, rng=0).D, want)


def test_more_samples_are_required_for_less_risk():
    for n, xi, psi in itertools.product((1, 50, 3000), (0.01, 0.5), (1e-4, 0.9)):
        want = min((n + 1) / (psi * xi) - 1, 2 / xi * (n + 1 - math.log(psi)))
        assert relu.required_gates(n, xi, psi) in (math.ceil(want), math.floor(want))
    assert relu.required_gates(100, 0.1, 0.05) < relu.required_gates(100, 0.05, 0.05)
    assert relu.required_gates(100, 0.1, 0.05) < relu.required_gates(100, 0.1, 0.01)


@pytest.mark.parametrize(
    ("error", "name", "call"),
    [
        (ValueError, "X", lambda: relu.sample_gates(np.ones(3), 2)),
        (ValueError, "X", lambda: relu.sample_gates(np.full((2, 2), np.nan), 2)),
        (TypeError, "X", lambda: relu.sample_gates(np.ones((2, 2), dtype=complex), 2)),
        (ValueError, "n", lambda: relu.sample_gates(np.ones((2, 2)), 0)),
        (TypeError, "n", lambda: relu.sample_gates(np.ones((2, 2)), 2.5)),
        (ValueError, "scheme", lambda: relu.sample_gates(np.ones((2, 2)), 2, scheme="local")),
        (TypeError, "rng", lambda: relu.sample_gates(np.ones((2, 2)), 2, rng="seed")),
        (ValueError, "xi", lambda: relu.required_gates(10, 1.5, 0.1)),
        (ValueError, "psi", lambda: relu.required_gates(10, 0.5, 0.0)),
        (TypeError, "n", lambda: relu.required_gates("10", 0.5, 0.1)),
        (ValueError, "n", lambda: relu.count_arrangements_bound(0, 2)),
    ],
)
def test_bad_arguments_are_refused_by_name(error, name, call):
    with pytest.raises(error, match=f"^`{name}`"):
        call()


def test_gates_are_booleans_in_columns():
    with pytest.raises(TypeError, match="`D` came as"):
        relu.Gates(np.ones((3, 2)))
    with pytest.raises(ValueError, match="`D` came as"):
        relu.Gates(np.ones(3, dtype=bool))
