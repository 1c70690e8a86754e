"""Small quadratics with a penalty: the exact answer, whatever the matrix."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from solvers import penalties
from solvers._core.backend import get_backend
from solvers.bcd._l1qp import Factor, l1qp
from tests.bcd import oracles

kernels = get_backend("numpy").kernels("solvers.bcd", "working")
BOXES = {
    "lasso": (0.3, 0.0, -np.inf, np.inf),
    "elastic": (0.3, 0.4, -np.inf, np.inf),
    "positive": (0.2, 0.0, 0.0, np.inf),
    "box": (0.0, 0.0, -0.3, 0.2),
    "off zero": (0.1, 0.1, 0.1, 0.5),
    "free": (0.0, 0.0, -np.inf, np.inf),
}
each_box = pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)


def bound(m, alpha, ridge=0.0, lo=-np.inf, hi=np.inf):
    return penalties.bind(penalties.ElasticBox(alpha, ridge, lo, hi), m, np.float64)


def psd(rng, m, rank=None):
    A = rng.normal(size=(rank or 2 * m, m))
    return A.T @ A / m


def violation(penalty, w, g):
    """Largest distance of -g from the subdifferential, written out."""
    a, r, lo, hi = penalty
    g = g + r * w
    left = np.where(w <= lo, -np.inf, np.where(w > 0, a, -a))
    right = np.where(w >= hi, np.inf, np.where(w < 0, -a, a))
    return np.maximum(np.maximum(-g - right, g + left), 0.0).max()


def value(G, b, penalty, w):
    a, r, _, _ = penalty
    return 0.5 * w @ G @ w - b @ w + a @ abs(w) + 0.5 * (r * w) @ w


def solved(G, b, penalty, w=None, **options):
    w = np.clip(np.zeros(b.size) if w is None else w, penalty.lo, penalty.hi)
    g = G[: w.size, : w.size] @ w - b
    worst, newton = l1qp(G, g, w, penalty, **{"tol": 1e-10, **options})
    return w, g, worst, newton


@each_box
@pytest.mark.parametrize("rank", [None, 5], ids=["regular", "singular"])
@pytest.mark.parametrize("m", [1, 2, 12, 40])
def test_the_answer_is_optimal_and_its_gradient_true(rng, box, rank, m):
    G, penalty = psd(rng, m, rank), bound(m, *box)
    # As with least squares; other linear terms need not have a minimum.
    b = G @ rng.normal(size=m)
    w, g, worst, _ = solved(G, b, penalty)
    assert worst <= 1e-10
    assert_allclose(g, G @ w - b, atol=1e-9)
    assert violation(penalty, w, G @ w - b) <= 1e-9
    assert (penalty.lo <= w).all()
    assert (w <= penalty.hi).all()


@pytest.mark.parametrize("positive", [False, True])
def test_no_face_has_a_lower_minimum(rng, positive):
    for _ in range(20):
        m = rng.integers(1, 6)
        G, b = psd(rng, m), rng.normal(size=m)
        penalty = bound(m, 0.3, 0.0, 0.0 if positive else -np.inf)
        w = solved(G, b, penalty)[0]
        _, best = oracles.enumerate_faces(G, b, 0.3, positive=positive)
        assert_allclose(value(G, b, penalty, w), best, atol=1e-12)


def test_nearly_dependent_columns_cost_no_accuracy(rng):
    A = rng.normal(size=(30, 20)) + 1e4
    G, b = A.T @ A, A.T @ rng.normal(size=30)
    penalty = bound(20, 0.0, 0.0, 0.0, 0.5)
    w, _, _, _ = solved(G, b, penalty, tol=1e-4)
    assert violation(penalty, w, A.T @ (A @ w) - b) <= 1e-9 * abs(b).max() * 1e4


def test_a_good_start_is_left_as_it_is(rng):
    G, b, penalty = psd(rng, 10), rng.normal(size=10), bound(10, 0.2)
    w = solved(G, b, penalty)[0]
    again, _, _, newton = solved(G, b, penalty, w, tol=1e-8)
    assert newton == 0
    assert_allclose(again, w, rtol=0, atol=0)


def test_what_lies_beyond_the_length_does_not_count(rng):
    G, b, penalty = psd(rng, 8), rng.normal(size=8), bound(8, 0.2)
    roomy = np.full((20, 20), np.nan)
    roomy[:8, :8] = G
    assert_allclose(solved(roomy, b, penalty)[0], solved(G, b, penalty)[0], atol=1e-12)


def test_violations_are_in_the_callers_units(rng):
    G, b, penalty = psd(rng, 15), rng.normal(size=15), bound(15, 0.01)
    unit = np.where(np.arange(15) < 7, 1e6, 1e-6)
    w, g, worst, _ = solved(G, b, penalty, tol=1e-3, unit=unit)
    assert worst <= 1e-3
    assert violation(type(penalty)(*(f[7:] for f in penalty)), w[7:], g[7:]) <= 1e-9


def test_a_walk_ends_at_the_first_minimum_on_the_way(rng):
    for _ in range(20):
        m = 6
        G, penalty = psd(rng, m), bound(m, 0.2, 0.1, -0.8, 0.8)
        b, w = 3 * rng.normal(size=m), rng.uniform(-0.7, 0.7, m)
        w[0] = 0.0
        face = np.flatnonzero(w)
        g = G @ w - b
        slopes = g[face] + 0.1 * w[face] + 0.2 * np.sign(w[face])
        d = -slopes
        start, way = w.copy(), d.copy()
        hits = kernels.walk(G, g, w, penalty, face, d, np.zeros(m))
        assert hits == (d == 0).sum()
        assert_allclose(g, G @ w - b, atol=1e-12)
        # Along the path that stops at bounds and zeros nothing earlier is lower.
        edge = np.where(way > 0, np.where(start[face] < 0, 0.0, 0.8), 0.0)
        edge = np.where((way < 0) & (start[face] < 0), -0.8, edge)
        reach = (edge - start[face]) / way
        ended = (w[face] - start[face])[d != 0] / way[d != 0]
        last = ended[0] if ended.size else reach.max()
        points = np.linspace(0.0, last, 200)[:, None]
        path = np.tile(start, (200, 1))
        path[:, face] = start[face] + np.minimum(points, reach) * way
        values = [value(G, b, penalty, x) for x in path]
        assert np.all(np.diff(values) <= 1e-12)
        assert_allclose(values[-1], value(G, b, penalty, w), atol=1e-12)


class TestFactor:
    def test_sets_that_change_are_solved_as_from_scratch(self, rng):
        m, ridge = 300, rng.random(300)
        G = psd(rng, m)
        factor = Factor(G)
        inside = rng.random(m) < 0.9
        for _ in range(12):
            face = np.flatnonzero(inside)
            b = rng.normal(size=face.size)
            H = G[np.ix_(face, face)] + np.diag(ridge[face])
            assert_allclose(factor.solve(face, ridge, b), np.linalg.solve(H, b), rtol=1e-7)
            inside[rng.integers(0, m, 5)] ^= True

    def test_a_few_changes_keep_the_old_factor(self, rng):
        G, ridge = psd(rng, 300), np.zeros(300)
        factor = Factor(G)
        factor.solve(np.arange(280), ridge, rng.normal(size=280))
        factor.solve(np.arange(2, 284), ridge, rng.normal(size=282))
        assert factor.base.size == 280
        factor.forget()
        assert factor.base.size == 0

    def test_a_matrix_without_a_factor_has_no_solution(self):
        assert Factor(np.zeros((3, 3))).solve(np.arange(2), np.zeros(3), np.ones(2)) is None
