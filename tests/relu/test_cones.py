"""Projections on the cones of gates, against an interior point and by the laws they obey."""

import numpy as np
import pytest

from solvers.relu._cones import Cones
from tests.relu import oracles


def cones(n, d, P, seed, eps=None):
    X, _ = oracles.data(n, d, seed)
    D, g = oracles.patterns(X, P, seed)
    return Cones(X, np.ascontiguousarray(D.T).astype(np.uint8), eps), g.T, X


@pytest.mark.parametrize("eps", [None, 0.05])
def test_projections_are_those_of_an_interior_point(eps):
    radius = None if eps is None else np.array([eps, 0.0, eps])
    K, _, X = cones(25, 3, 12, 1, radius)
    F = np.random.default_rng(2).standard_normal((6, 3))
    U, _ = K.project(F, np.arange(6))
    for f, u, bits in zip(F, U, K.mask, strict=False):
        rows = (2.0 * bits - 1.0)[:, None] * X
        np.testing.assert_allclose(u, oracles.nearest(rows, f, radius), atol=2e-6)


@pytest.mark.parametrize(("n", "d"), [(40, 1), (40, 2), (60, 12), (6, 12)])
def test_what_is_left_out_is_at_a_right_angle_and_polar_to_the_cone(n, d):
    K, g, _ = cones(n, d, 30, 3)
    gates = np.arange(len(g))
    F = np.random.default_rng(4).standard_normal(g.shape)
    U, _ = K.project(F, gates)
    assert K.slack(U, gates).min() >= -1e-12 * np.linalg.norm(F, axis=1).max()
    assert abs(((F - U) * U).sum(axis=1)).max() <= 1e-11
    # Every point inside, such as the gates' own, is on the other side of what was left out.
    assert ((F - U) * g).sum(axis=1).max() <= 1e-11


def test_projections_are_of_degree_one_and_keep_points_inside():
    K, g, _ = cones(30, 5, 10, 5)
    gates = np.arange(len(g))
    F = np.random.default_rng(6).standard_normal(g.shape)
    U, _ = K.project(F, gates)
    for scale in (1e-150, 1e150):
        np.testing.assert_allclose(K.project(scale * F, gates)[0] / scale, U, atol=1e-12)
    np.testing.assert_allclose(K.project(g, gates)[0], g, rtol=1e-14)
    np.testing.assert_array_equal(K.project(0.0 * F, gates)[0], 0.0 * F)


def test_rows_that_repeat_or_vanish_change_nothing():
    X, _ = oracles.data(20, 4, 7)
    D, g = oracles.patterns(X, 10, 7)
    F, gates = np.random.default_rng(8).standard_normal(g.T.shape), np.arange(g.shape[1])
    U, _ = Cones(X, D.T.astype(np.uint8)).project(F, gates)
    rows = np.r_[X, 3.0 * X, np.zeros((2, 4)), 1e-9 * X[:5]]
    bits = np.r_[D, D, np.zeros((1, len(gates)), bool), np.ones((1, len(gates)), bool), D[:5]]
    more, _ = Cones(rows, bits.T.astype(np.uint8)).project(F, gates)
    np.testing.assert_allclose(more, U, atol=1e-12)


def test_a_pattern_that_is_no_cell_has_the_origin_alone():
    X = np.array([[1.0, 0.0], [-1.0, 0.1], [-1.0, -0.1]])
    K = Cones(X, np.ones((1, 3), dtype=np.uint8))
    U, _ = K.project(np.array([[0.3, 0.7]]), np.zeros(1, dtype=int))
    assert abs(U).max() <= 1e-12


def test_a_goal_ends_the_search_with_a_bound_that_is_short_enough():
    K, g, _ = cones(80, 8, 20, 9)
    F, gates = np.random.default_rng(10).standard_normal(g.shape), np.arange(len(g))
    exact = np.linalg.norm(K.project(F, gates)[0], axis=1)
    goals = 0.5 * (exact + np.linalg.norm(F, axis=1))
    early = np.linalg.norm(K.project(F, gates, goals)[0], axis=1)
    assert (early >= exact - 1e-12).all()
    assert (early <= goals + 1e-12).all()
    assert (early > exact + 1e-6).any()


@pytest.mark.parametrize("eps", [None, 0.02])
def test_points_inside_are_found_where_there_are_any(eps):
    radius = None if eps is None else np.full(3, eps)
    K, g, X = cones(20, 3, 20, 11, radius)
    G, inside = K.interior(np.arange(len(g)))
    known = K.slack(g, np.arange(len(g))).min(axis=1) > 0
    assert inside[known].all()
    assert K.slack(G[inside], np.flatnonzero(inside)).min() >= 1 - 1e-9
    assert not G[~inside].any()
    # Opposite rows cannot both be positive.
    flat = Cones(np.r_[X, -X[:1]], np.ones((1, 21), dtype=np.uint8), radius)
    assert not flat.interior(np.zeros(1, dtype=int))[1].any()
    if eps is not None:
        huge = Cones(X, K.mask, np.full(3, 50.0))
        assert not huge.interior(np.arange(len(g)))[1].any()


def test_threads_share_problems_without_a_trace(monkeypatch):
    K, g, _ = cones(60, 6, 20, 12)
    F, gates = np.random.default_rng(13).standard_normal(g.shape), np.arange(len(g))
    alone = K.project(F, gates)
    monkeypatch.setattr("solvers.relu._cones._SHARED", 0.0)
    for a, b in zip(alone, K.project(F, gates), strict=True):
        np.testing.assert_array_equal(a, b)
