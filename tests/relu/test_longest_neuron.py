"""Branch and bound for the longest neuron, against a list of all cells."""

import numpy as np
import pytest

from solvers.relu._certificate_branch import longest_neuron
from solvers.relu._cones import Cones
from tests.relu import oracles


def over_all_cells(X, z):
    """The longest neuron, cell by cell."""
    D = oracles.cells(X)
    F = (D * z[:, None]).T @ X
    U, _ = Cones(X, np.ascontiguousarray(D.T).astype(np.uint8)).project(F, np.arange(len(F)))
    return np.linalg.norm(U, axis=1).max()


@pytest.mark.parametrize(("n", "r"), [(8, 1), (15, 2), (10, 3), (7, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_the_bound_is_the_length_of_the_longest(n, r, seed):
    rng = np.random.default_rng(seed)
    X, z = rng.standard_normal((n, r)), rng.standard_normal(n)
    X *= 10.0 ** rng.integers(-3, 3, (n, 1))
    want = over_all_cells(X, z)
    for known in (0.0, 0.99 * want, want):
        assert longest_neuron(X, z, known, work=1e7) == pytest.approx(want, rel=3e-9, abs=1e-9)


def test_rows_that_repeat_or_oppose_count_together():
    rng = np.random.default_rng(9)
    X, z = rng.standard_normal((8, 3)), rng.standard_normal(8)
    want = over_all_cells(X, z)
    twice, half = np.r_[X, X, np.zeros((1, 3))], np.r_[0.5 * z, 0.5 * z, 1.0]
    assert longest_neuron(twice, half, 0.0, work=1e7) == pytest.approx(want, rel=3e-9)
    # A pair of opposite rows with one z is an absolute value.
    lines, ones = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]]), np.ones(3)
    assert longest_neuron(lines, ones, 0.0, work=1e7) == pytest.approx(np.sqrt(5.0), rel=3e-9)


@pytest.mark.parametrize("work", [1e2, 1e4, 1e5])
def test_too_little_work_leaves_a_larger_bound(work):
    rng = np.random.default_rng(3)
    X, z = rng.standard_normal((30, 6)), rng.standard_normal(30)
    u = rng.standard_normal((6, 20000))
    sampled = (z @ np.maximum(X @ (u / np.linalg.norm(u, axis=0)), 0)).max()
    most = abs(z) @ np.linalg.norm(X, axis=1)
    assert sampled <= longest_neuron(X, z, sampled, work=work) <= most


def test_nothing_gives_nothing():
    X = np.random.default_rng(4).standard_normal((5, 2))
    assert longest_neuron(X, np.zeros(5), 0.0, work=1e6) == 0.0
    assert longest_neuron(X, -np.ones(5), 0.0, work=1e6) == pytest.approx(
        max(0.0, over_all_cells(X, -np.ones(5))), abs=1e-9
    )
