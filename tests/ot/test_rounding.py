import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers import ot
from tests import oracles

seeds = st.integers(0, 2**32 - 1)


def altschuler_weed_rigollet(P, a, b):
    """Algorithm 2 of arXiv:1705.09634, line by line."""
    n, m = P.shape
    X = np.diag([min(a[i] / P[i].sum(), 1.0) if P[i].any() else 1.0 for i in range(n)])
    F = X @ P
    Y = np.diag([min(b[j] / F[:, j].sum(), 1.0) if F[:, j].any() else 1.0 for j in range(m)])
    F = F @ Y
    rows, cols = a - F.sum(axis=1), b - F.sum(axis=0)
    return F + np.outer(rows, cols) / np.abs(rows).sum() if np.abs(rows).sum() > 1e-300 else F


def random_plan(rng, n, m):
    """A plan with empty rows and columns, and how good it is left to chance."""
    a, b = rng.dirichlet(np.full(n, 0.4)), rng.dirichlet(np.full(m, 0.4))
    P = np.outer(a, b) * rng.choice([0.0, 0.5, 1.0, 2.0], size=(n, m)) * 10.0 ** rng.uniform(-2, 2)
    if rng.random() < 0.5:
        P[rng.integers(n)] = 0.0
        P[:, rng.integers(m)] = 0.0
    return P, a, b


@given(seeds)
def test_the_published_algorithm_is_followed(seed):
    rng = np.random.default_rng(seed)
    P, a, b = random_plan(rng, *rng.integers(1, 9, size=2))
    before = P.copy()
    rounded = ot.round_plan(P, a, b)
    np.testing.assert_allclose(rounded, altschuler_weed_rigollet(P, a, b), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(P, before)
    assert rounded.min() >= 0
    assert oracles.marginal_error(rounded, a, b) <= 1e-14
    # Lemma 7 of the paper, up to rounding.
    assert np.abs(rounded - P).sum() <= 2 * oracles.marginal_error(P, a, b) + 1e-14


def test_a_feasible_plan_stays_as_it_is(rng):
    a, b = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(8))
    P = ot.round_plan(rng.random((5, 8)), a, b)
    np.testing.assert_allclose(ot.round_plan(P, a, b), P, rtol=0, atol=1e-16)


def test_points_without_mass_end_empty(rng):
    a, b = np.array([0.0, 0.4, 0.6]), np.array([1.0, 0.0])
    P = ot.round_plan(rng.random((3, 2)), a, b)
    np.testing.assert_allclose(P, [[0, 0], [0.4, 0], [0.6, 0]], rtol=1e-15)


def test_any_mass_is_kept(rng):
    P, a, b = random_plan(rng, 4, 6)
    for mass in (1e-200, 1e200):
        scaled = ot.round_plan(mass * P, mass * a, mass * b)
        np.testing.assert_allclose(scaled / mass, ot.round_plan(P, a, b), rtol=1e-12, atol=1e-15)


def test_single_precision_comes_back_as_such(rng):
    P, a, b = random_plan(rng, 6, 5)
    single = ot.round_plan(*(x.astype(np.float32) for x in (P, a, b)))
    assert single.dtype == np.float32
    assert oracles.marginal_error(single.astype(float), a, b) <= 1e-6
    np.testing.assert_allclose(single, ot.round_plan(P, a, b), rtol=0, atol=1e-6)


def test_layout_and_protection_of_the_input_do_not_matter(rng):
    P, a, b = random_plan(rng, 6, 5)
    expected = ot.round_plan(P, a, b)
    for Q in (np.asfortranarray(P), P[::-1][::-1], P.tolist()):
        np.testing.assert_allclose(ot.round_plan(Q, a, b), expected, rtol=0, atol=1e-16)
    P.flags.writeable = False
    assert ot.round_plan(P, a, b).flags.writeable


@pytest.mark.parametrize(
    ("name", "kind", "change"),
    [
        ("P", ValueError, {"P": np.array([[0.5, -0.5]])}),
        ("P", ValueError, {"P": np.array([[0.5, np.nan]])}),
        ("P", ValueError, {"P": np.array([0.5, 0.5])}),
        ("P", TypeError, {"P": np.array([["a", "b"]])}),
        ("a", ValueError, {"a": np.array([0.5, 0.5])}),
        ("a", ValueError, {"a": np.array([-1.0])}),
        ("b", ValueError, {"b": np.array([1.0])}),
        ("P", ValueError, {"P": np.array([[0.5, np.inf]])}),
    ],
    ids=str,
)
def test_what_is_no_plan_is_refused_by_name(name, kind, change):
    data = {"P": np.array([[0.5, 0.5]]), "a": np.array([1.0]), "b": np.array([0.5, 0.5])}
    with pytest.raises(kind, match=f"`{name}`"):
        ot.round_plan(**{**data, **change})


def test_marginals_of_different_mass_are_refused():
    with pytest.raises(ValueError, match=r"`[ab]`"):
        ot.round_plan(np.array([[0.5, 0.5]]), np.array([1.0]), np.array([0.5, 0.9]))
