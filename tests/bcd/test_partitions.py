"""Blocks cover every unknown exactly once, in the order that their name says."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from solvers import bcd
from solvers.bcd.rules import PARTITIONS, check_rules, cut

PLAIN = [name for name, rule in PARTITIONS.items() if not (rule.graph or rule.variable)]


def posed(rng, kind="dense", n=12, p=11, **more):
    X = rng.standard_normal((n, p)) * 10.0 ** rng.uniform(-1, 1, p)
    if kind == "quadratic":
        return bcd.Problem.quadratic(sp.csr_array(X.T @ X), np.ones(p)).model
    if kind == "multinomial":
        return bcd.Problem(X, np.arange(n) % 3, datafit=kind, **more).model
    data = sp.csc_array(X) if kind == "sparse" else X
    return bcd.Problem(data, rng.standard_normal(n), **more).model


def flat(blocks):
    return list(itertools.chain.from_iterable(blocks))


def blocks_of(problem, partition, size=None, seed=0):
    rules = check_rules(
        problem, partition=partition, block_size=size, selection="random", update="auto"
    )
    made = cut(problem, SimpleNamespace(**rules, rng=np.random.default_rng(seed)))
    return [made[b].tolist() for b in range(made.number)]


@given(
    p=st.integers(1, 9),
    size=st.integers(1, 9),
    name=st.sampled_from(PLAIN),
    kind=st.sampled_from(["dense", "sparse", "quadratic", "multinomial"]),
)
def test_blocks_cover_every_unknown_once_and_only_the_last_is_shorter(p, size, name, kind):
    problem = posed(np.random.default_rng(p), kind, p=p)
    size = min(size, problem.size)
    blocks = blocks_of(problem, name, size)
    assert sorted(flat(blocks)) == list(range(problem.size))
    assert all(len(block) == size for block in blocks[:-1])
    assert 1 <= len(blocks[-1]) <= size


def test_order_leaves_unknowns_as_they_are_and_random_does_not(rng):
    problem = posed(rng)
    assert flat(blocks_of(problem, "order", 4)) == list(range(11))
    drawn = blocks_of(problem, "random", 4, seed=1)
    assert drawn == blocks_of(problem, "random", 4, seed=1)
    assert drawn != blocks_of(problem, "random", 4, seed=2)


@pytest.mark.parametrize("p", [10, 11])
def test_sort_and_avg_go_by_the_lipschitz_constants(rng, p):
    problem = posed(rng, p=p)
    X = problem.design.X
    L = (X * X).mean(axis=0)
    ascending = np.argsort(L)
    assert flat(blocks_of(problem, "sort", 3)) == ascending.tolist()
    found = flat(blocks_of(problem, "avg", 3))
    half = (p + 1) // 2
    assert found[::2] == ascending[:half].tolist()
    assert found[1::2] == ascending[::-1][: p - half].tolist()


@pytest.mark.parametrize("kind", ["dense", "sparse", "quadratic", "multinomial", "centred"])
def test_hsort_goes_by_the_absolute_rows_of_the_hessian(rng, kind):
    more = {"fit_intercept": True} if kind == "centred" else {}
    problem = posed(rng, "dense" if kind == "centred" else kind, **more)
    if kind == "quadratic":
        H = problem.A.toarray()
    else:
        X = problem.design.X
        X = X.toarray() if sp.issparse(X) else X
        X = X - X.mean(axis=0) if kind == "centred" else X
        H = X.T @ X / len(X)
    if kind == "multinomial":
        H = np.kron(H, np.eye(3) - 1 / 3)
    sums = abs(H).sum(axis=1)
    found = flat(blocks_of(problem, "hsort", 4))
    assert np.all(np.diff(sums[found]) >= -1e-12 * sums.max())
    mixed = flat(blocks_of(problem, "havg", 4))
    assert sums[mixed[0]] == pytest.approx(sums.min())
    assert sums[mixed[1]] == pytest.approx(sums.max())


def test_blocks_may_be_given_as_labels_or_as_lists(rng):
    problem = posed(rng, p=6)
    want = [[1, 4], [0, 2, 5], [3]]
    labels = np.array([7, -2, 7, 9, -2, 7])
    assert blocks_of(problem, labels) == want
    assert blocks_of(problem, labels.tolist()) == want
    assert blocks_of(problem, np.array(list("bab" + "cab"))) == want
    assert blocks_of(problem, want) == want
    assert blocks_of(problem, [np.array(part) for part in want]) == want


def test_labels_of_features_hold_for_all_their_classes(rng):
    problem = posed(rng, "multinomial", p=2)
    assert blocks_of(problem, [1, 0]) == [[3, 4, 5], [0, 1, 2]]
    assert blocks_of(problem, [0, 1, 0, 1, 0, 1]) == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ([0, 1], ValueError),
        ([[0, 1, 2], [3, 4]], ValueError),
        ([[0, 1, 2], [2, 3, 4, 5]], ValueError),
        ([[0, 1, 2], [3, 4, 6]], ValueError),
        ([[0, 1, 2], [3, 4, -1]], ValueError),
        ([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], TypeError),
        ([0, [1, 2, 3, 4, 5]], TypeError),
        (lambda: 0, TypeError),
    ],
)
def test_blocks_that_are_no_partition_are_refused(rng, wrong, kind):
    with pytest.raises(kind, match=r"^`partition`"):
        blocks_of(posed(rng, p=6), wrong)
