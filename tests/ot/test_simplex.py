"""The network simplex method by itself: its trees, and what makes it end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.ot._simplex import Basis
from tests import oracles

seeds = st.integers(0, 2**32 - 1)


def weights(rng, n, m):
    # Multiples of a unit, so that most trees are degenerate.
    a, b = rng.multinomial(2 * (n + m), np.full(n, 1 / n)), np.zeros(m)
    a = a + 1.0
    b = rng.multinomial(int(a.sum()) - m, np.full(m, 1 / m)) + 1.0
    return a / a.sum(), b / b.sum()


def basis_of(a, b, C, tail, head):
    return Basis(a, b, tail, head, lambda i, j: C[i, j].astype(float))


def assert_tree(basis, a, b):
    """Links, depths, flows and potentials belong to one spanning tree."""
    parent, child, after, before = basis._links
    n, nodes = a.size, a.size + b.size
    order, stack = [], [basis._root]
    while stack:
        v = stack.pop()
        order.append(v)
        w, previous = child[v], -1
        while w >= 0:
            assert parent[w] == v
            assert before[w] == previous
            assert basis._depth[w] == basis._depth[v] + 1
            stack.append(w)
            w, previous = after[w], w
    assert sorted(order) == list(range(nodes))
    for v in order[1:]:
        edge = basis._edge[v]
        ends = basis._tail[edge], n + basis._head[edge]
        assert sorted(ends) == sorted((v, parent[v]))
        pot, big = (p[ends[0]] + p[ends[1]] for p in (basis._pot, basis._big))
        assert pot == pytest.approx(basis._cost[edge], abs=1e-10)
        assert big == basis._forbidden[edge]
    tail, head, mass = basis.plan()
    P = np.zeros((a.size, b.size))
    np.add.at(P, (tail, head), mass)
    missing = basis.forbidden
    assert np.abs(P.sum(axis=1) - a).sum() <= missing + 1e-14
    assert np.abs(P.sum(axis=0) - b).sum() <= missing + 1e-14


@given(seeds)
def test_pivots_lead_from_tree_to_tree_and_end_at_the_optimum(seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 9, size=2)
    a, b = weights(rng, n, m)
    C = rng.integers(0, 4, size=(n, m)).astype(float)
    tail, head = (k.ravel() for k in np.indices(C.shape))
    few = rng.random(tail.size) < 0.5
    basis = basis_of(a, b, C, tail[few], head[few])
    assert_tree(basis, a, b)
    before = basis.cost
    assert basis.improve(lambda: False)
    assert_tree(basis, a, b)
    assert basis.cost <= before + 1e-12
    basis.add(tail[~few], head[~few], C[tail[~few], head[~few]])
    assert basis.improve(lambda: False)
    assert_tree(basis, a, b)
    assert basis.cost == pytest.approx(oracles.exact_cost(a, b, C), abs=1e-9)
    f, g = basis.potentials()
    assert (f[:, None] + g - C <= 1e-12).all()
    assert a @ f + b @ g == pytest.approx(basis.cost, abs=1e-12)


@given(seeds)
def test_forbidden_edges_carry_nothing_where_there_is_another_way(seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 9, size=2)
    a, b = weights(rng, n, m)
    C = rng.random((n, m))
    C[rng.random(C.shape) < 0.3] = np.inf
    tail, head = np.nonzero(np.isfinite(C))
    basis = basis_of(a, b, C, tail, head)
    assert basis.improve(lambda: False)
    assert_tree(basis, a, b)
    least = oracles.exact_cost(a, b, np.isinf(C).astype(float))
    # Not all forbidden edges take part, so it may be more, but not where none is needed.
    assert basis.forbidden >= least - 1e-9
    if least <= 1e-9:
        assert basis.forbidden <= 1e-15
        assert basis.cost == pytest.approx(oracles.exact_cost(a, b, C), abs=1e-9)


def test_weights_lost_to_rounding_still_have_a_place_in_the_tree():
    a, b = np.array([1e-20, 1.0]), np.array([1e-40, 1.0, 1e-300, 1e-25])
    C = np.arange(8.0).reshape(2, 4)
    basis = basis_of(a, b, C, np.array([1, 0]), np.array([1, 1]))
    assert_tree(basis, a, b)
    assert basis.improve(lambda: False)
    assert_tree(basis, a, b)


def test_the_clock_interrupts_between_two_chunks_of_pivots(rng, monkeypatch):
    monkeypatch.setattr("solvers.ot._simplex.CHUNK", 2)
    a, b = weights(rng, 30, 30)
    C = rng.random((30, 30))
    tail, head = (k.ravel() for k in np.indices(C.shape))
    basis = basis_of(a, b, C, tail, head)
    assert not basis.improve(lambda: True)
    assert basis.pivots == 2
    assert_tree(basis, a, b)
    assert basis.improve(lambda: False)
    assert basis.pivots > 2
