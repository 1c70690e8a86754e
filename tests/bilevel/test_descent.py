"""Steps of the quasi-Newton and proximal descents, against closed forms of quadratics."""

import numpy as np
import pytest

from solvers.bilevel._descent import (
    Accelerated,
    Descent,
    Pairs,
    Proximal,
    Secants,
    follow,
    residual,
    together,
)
from solvers.bilevel._sets import Region


def quadratic(n=12, kappa=100.0, seed=0):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    return (Q * np.geomspace(1.0, kappa, n)) @ Q.T, rng.standard_normal(n)


def fun(H, b):
    return lambda v: (0.5 * v @ H @ v - b @ v, H @ v - b, 1e-16)


def two_loops(pairs, q):
    """The recursion of Nocedal and Wright, algorithm 7.4, with the usual scale."""
    used = []
    for s, y in reversed(pairs):
        a = s @ q / (s @ y)
        q = q - a * y
        used.append((s, y, a))
    s, y = pairs[-1]
    q = q * (s @ y) / (y @ y)
    for s, y, a in reversed(used):
        q = q + (a - y @ q / (s @ y)) * s
    return q


@pytest.mark.parametrize("count", [1, 4, 9])
def test_the_compact_form_is_that_of_the_two_loop_recursion(count):
    H, q = quadratic()
    rng = np.random.default_rng(1)
    pairs = [(s, H @ s) for s in rng.standard_normal((count, 12))]
    own = Pairs(5)
    for s, y in pairs:
        assert own.add(s, y)
    assert np.allclose(own.times(q), two_loops(pairs[-5:], q), rtol=1e-8)


def test_pairs_without_curvature_are_not_taken():
    own = Pairs(3)
    s = np.ones(4)
    assert not own.add(s, -s)
    assert not own.add(s, 0 * s)
    assert not own


def test_secants_solve_exactly_within_the_steps_and_follow_a_diagonal():
    H, _ = quadratic()
    rng = np.random.default_rng(2)
    own, S = Secants(8), rng.standard_normal((6, 12))
    own.bend(np.ones(12))
    for s in S:
        own.add(s, H @ s)
    w = rng.standard_normal(6) @ S
    assert np.allclose(own.times(H @ w), w, atol=1e-5)
    more = rng.uniform(0, 3, 12)
    own.bend(np.ones(12) + more)
    assert np.allclose(own.times((H + np.diag(more)) @ w), w, atol=1e-5)


def test_a_state_restores_pairs():
    H, q = quadratic()
    own, twin = Secants(4), Secants(4)
    for s in np.random.default_rng(3).standard_normal((7, 12)):
        own.add(s, H @ s)
    twin.restore(own.state())
    assert np.array_equal(twin.times(q), own.times(q))


@pytest.mark.parametrize("spectral", [False, True])
def test_descents_end_at_the_solution_within_a_box(spectral):
    H, b = quadratic(kappa=30.0)
    lo, hi = np.full(12, -0.05), np.full(12, 0.1)
    box = Region(lambda v: np.clip(v, lo, hi), lo, hi)
    run = Descent(fun(H, b), np.zeros(12), box, unit=0.03, spectral=spectral)
    for _ in range(500):
        if run.residual(1.0) <= 1e-10 or not run.step():
            break
    assert run.residual(1.0) <= 1e-8
    # The optimality conditions of a box, written out.
    g = H @ run.v - b
    inside = (run.v > lo) & (run.v < hi)
    assert abs(g[inside]).max(initial=0.0) <= 1e-8
    assert (g[run.v == lo] >= 0).all()
    assert (g[run.v == hi] <= 0).all()
    assert 0 < inside.sum() < 12


def test_a_search_recovers_from_values_that_are_not_finite():
    def steep(v):
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(v[0] - np.log(v[0])), 1 - 1 / v, 0.0

    run = Descent(steep, np.array([0.05]), Region(), unit=10.0)
    while run.residual() > 1e-9 and run.step():
        assert run.v[0] > 0
    assert run.v[0] == pytest.approx(1.0, abs=1e-8)


def test_without_values_slopes_decide():
    H, b = quadratic()
    run = Descent(lambda v: (None, H @ v - b, 0.0), np.zeros(12), Region(), unit=0.01)
    while run.residual() > 1e-9 and run.step():
        pass
    assert np.allclose(run.v, np.linalg.solve(H, b), atol=1e-8)


def test_fista_solves_the_lasso():
    rng = np.random.default_rng(4)
    A, t = rng.standard_normal((40, 10)), rng.standard_normal(40)
    l1 = Proximal(lambda v, step: np.sign(v) * np.maximum(abs(v) - 4.0 * step, 0))
    run = Accelerated(np.zeros(10), l1, unit=1.0)

    def look(v):
        r = A @ v - t
        return 0.5 * r @ r, A.T @ r, 0.0, None

    follow(run.begin(), look)
    for _ in range(2000):
        if run.residual() <= 1e-10:
            break
        assert follow(run.search(), look)
    # Fermat's rule.
    g = A.T @ (A @ run.v - t)
    on = run.v != 0
    assert np.allclose(g[on], -4.0 * np.sign(run.v[on]), atol=1e-8)
    assert (abs(g[~on]) <= 4.0 + 1e-8).all()
    assert 0 < on.sum() < 10


def test_searches_side_by_side_end_as_they_do_alone():
    H, b = quadratic()

    def task(scale):
        run = Descent(None, np.zeros(12), Region(), unit=0.01)
        yield from run.begin()
        while run.residual() > 1e-6:
            yield from run.search()
        return run.v

    def look(points):
        rounds.append(len(points))
        return {key: fun(H, key * b)(v) for key, v in points.items()}

    rounds = []
    ends = together({1.0: task(1.0), 3.0: task(3.0)}, look)
    for key, v in ends.items():
        assert np.array_equal(v, follow(task(key), fun(H, key * b)))
    assert max(rounds) == 2


def test_the_residual_of_a_box_forgets_gradients_that_press_outwards():
    lo = np.zeros(3)
    box = Region(lambda v: np.maximum(v, lo), lo, np.full(3, np.inf))
    assert residual(lo, np.array([2.0, 0.0, 1.0]), box, 0.5) == 0
    assert residual(lo, np.array([2.0, -3.0, 1.0]), box, 0.5) == pytest.approx(3.0)


@pytest.mark.parametrize("kind", [Pairs, Secants])
def test_a_state_of_pairs_stays_what_it_was(kind):
    rng = np.random.default_rng(4)
    H = np.diag(np.arange(1.0, 7.0))
    pairs = kind(3)
    for s in rng.standard_normal((3, 6)):
        pairs.add(s, H @ s)
    pairs.bend(np.ones(6))
    q = rng.standard_normal(6)
    before = pairs.times(q)
    state = pairs.state()
    pairs.bend(np.full(6, 2.0))
    for s in rng.standard_normal((2, 6)):
        pairs.add(s, 3 * H @ s)
        pairs.times(q)
    twin = kind(3)
    twin.restore(state)
    np.testing.assert_allclose(twin.times(q), before, rtol=1e-12)
