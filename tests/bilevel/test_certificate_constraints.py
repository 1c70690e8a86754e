"""Right and wrong answers of lower levels with constraints, bounds and other sets."""

import itertools
import warnings

import numpy as np
import pytest

from solvers import bilevel
from tests.bilevel.oracles import LLC, CoupledQP, Quadratic, WeightedSvm, differences

certify = bilevel.certify


def at(*entries):
    return np.array(entries, float)


def half_square(x, y):
    return 0.5 * x @ x + 0.5 * y @ y, x, y


@pytest.mark.parametrize("seed", range(12))
def test_the_global_optimum_with_constraints_is_certified_also_at_kinks(seed):
    p = CoupledQP(seed)
    _, x, y, _ = p.enumerated()
    rows = bilevel.Affine(p.Ax, p.Ay, p.b)
    assert certify(p.upper, p.lower, x, y, constraints=rows).holds
    away = x + 1e-3
    y, _ = p.best_response(away)
    assert not certify(p.upper, p.lower, away, y, constraints=rows).holds


def test_some_of_those_optima_are_kinks():
    def biactive(p):
        _, x, y, w = p.enumerated()
        return ((abs(p.Ax @ x + p.Ay @ y - p.b) < 1e-9) & (w < 1e-9)).any()

    kinks = [biactive(CoupledQP(seed)) for seed in range(12)]
    assert 3 <= sum(kinks) <= 9


def test_the_gradient_with_constraints_is_that_of_the_value():
    for seed in range(4):
        p = CoupledQP(seed)
        rows = bilevel.Affine(p.Ax, p.Ay, p.b)
        psi = lambda x, p=p: p.upper(x, p.best_response(x)[0])[0]  # noqa: E731
        for x in np.random.default_rng(seed).uniform(-0.4, 0.4, (3, 2)):
            if p.best_response(x) is None:
                continue
            exact = abs(differences(psi, x)).max()
            found = certify(p.upper, p.lower, x, p.best_response(x)[0], constraints=rows)
            assert found.details["stationarity"] * max(1, exact) == pytest.approx(exact, rel=1e-5)


VARIANTS = {
    "twice": lambda Ax, Ay, b: (np.r_[Ax, Ax], np.r_[Ay, Ay], np.r_[b, b]),
    "with their sum": lambda Ax, Ay, b: (
        np.r_[Ax, [Ax.sum(0)]], np.r_[Ay, [Ay.sum(0)]], np.r_[b, b.sum()],
    ),
    "in other units": lambda Ax, Ay, b: (
        Ax * [[1e6], [1e-6], [1]], Ay * [[1e6], [1e-6], [1]], b * [1e6, 1e-6, 1],
    ),
    "with loose ones": lambda Ax, Ay, b: (np.r_[Ax, Ax], np.r_[Ay, Ay], np.r_[b, b + 50]),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(6))
def test_rows_may_be_written_in_any_way(variant, seed):
    p = CoupledQP(seed)
    _, x, y, _ = p.enumerated()
    rows = bilevel.Affine(*VARIANTS[variant](p.Ax, p.Ay, p.b))
    assert certify(p.upper, p.lower, x, y, constraints=rows).holds
    x = x + 1e-3
    assert not certify(p.upper, p.lower, x, p.best_response(x)[0], constraints=rows).holds


def test_a_kink_passes_exactly_if_psi_falls_in_no_direction():
    held = []
    for seed in range(6):
        p = CoupledQP(seed)
        d = np.random.default_rng(seed).standard_normal(2)
        psi = lambda x, p=p: p.upper(x, p.best_response(x)[0])[0]  # noqa: E731
        for x in _kinks(p, d):
            ring = [x + 1e-5 * at(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 24)]
            if any(p.best_response(v) is None for v in ring):
                continue
            steepest = min(psi(v) - psi(x) for v in ring) / 1e-5
            rows = bilevel.Affine(p.Ax, p.Ay, p.b)
            found = certify(p.upper, p.lower, x, p.best_response(x)[0], constraints=rows)
            assert found.holds == (steepest > -1e-4)
            held.append(found.holds)
    assert len(held) > 5
    assert not all(held)


def _kinks(p, d):
    """Yield where, on a ray, a multiplier vanishes or appears."""

    def pattern(t):
        found = p.best_response(t * d)
        return None if found is None else tuple(found[1] > 1e-10)

    ts = np.linspace(-1.5, 1.5, 25)
    for a, b in itertools.pairwise(ts):
        here = pattern(a)
        if None in (here, pattern(b)) or here == pattern(b):
            continue
        for _ in range(50):
            a, b = (0.5 * (a + b), b) if pattern(0.5 * (a + b)) == here else (a, 0.5 * (a + b))  # noqa: PLW2901
        yield a * d


def test_bounds_of_y_are_rows_like_any_other():
    for seed in range(5):
        p = CoupledQP(seed)
        lo, hi = -0.2 * np.ones(3), 0.3 * np.ones(3)
        p.Ax, p.Ay, p.b = np.zeros((6, 2)), np.r_[np.eye(3), -np.eye(3)], np.r_[hi, -lo]
        p.rows = 6
        rows, Y = bilevel.Affine(p.Ax, p.Ay, p.b), bilevel.box(lo, hi)
        for x in np.random.default_rng(seed).uniform(-1, 1, (2, 2)):
            y, _ = p.best_response(x)
            one = certify(p.upper, p.lower, x, y, constraints=rows)
            other = certify(p.upper, p.lower, x, y, Y=Y)
            assert other.value == pytest.approx(one.value, rel=1e-8)
            psi = lambda v, p=p: p.upper(v, p.best_response(v)[0])[0]  # noqa: E731
            exact = abs(differences(psi, x)).max()
            assert other.details["stationarity"] * max(1, exact) == pytest.approx(exact, rel=1e-5)


def test_levels_that_leave_out_a_variable_are_judged():
    q = Quadratic(0)
    constant = lambda x, y: (1.0, 0 * x, 0 * y)  # noqa: E731
    best = lambda x, y: (0.5 * (x - 1) @ (x - 1) + 0.5 * (y - 2) @ (y - 2), x - 1, y - 2)  # noqa: E731
    # Of a constant lower level every y is a solution, so that psi minimises over both.
    assert certify(best, constant, np.ones(2), np.full(3, 2.0)).holds
    assert not certify(best, constant, np.ones(2), np.full(3, 2.1)).holds
    assert not certify(best, constant, np.full(2, 1.1), np.full(3, 2.0)).holds
    x_alone = lambda x, y: (0.5 * (x - 1) @ (x - 1), x - 1, 0 * y)  # noqa: E731
    assert certify(x_alone, q.lower, np.ones(4), q.best_response(np.ones(4))).holds
    assert not certify(x_alone, q.lower, np.ones(4), q.y).holds
    y_alone = lambda x, y: (0.5 * (y - 1) @ (y - 1), None, y - 1)  # noqa: E731
    x = 5 * np.ones(4)
    assert certify(half_square, y_alone, 0 * x, np.ones(7)).holds
    assert not certify(half_square, y_alone, x, np.ones(7)).holds
    # A single point is all there is.
    assert certify(best, q.lower, x, q.y, X=bilevel.box(x, x), Y=bilevel.box(q.y, q.y)).holds


def test_a_kink_that_is_no_minimum_is_not_certified():
    # y = max(0, x): psi has slopes 0 - c and b - c to the left and right of x = 0.
    lower = lambda x, y: (0.5 * (y - x) @ (y - x), x - y, y - x)  # noqa: E731
    upper = lambda b, c: lambda x, y: (b * y[0] - c * x[0], at(-c), at(b))  # noqa: E731
    given = {"Y": bilevel.nonneg()}, {"constraints": bilevel.Affine([[0.0]], [[-1.0]], [0.0])}
    for rows in given:
        assert certify(upper(2, 1), lower, at(0), at(0), **rows).holds
        for b, c in ((2, -1), (0.5, 1), (2, 3)):
            assert not certify(upper(b, c), lower, at(0), at(0), **rows).holds
        # Close to a kink is not at it.
        assert not certify(upper(2, 1), lower, at(1e-4), at(1e-4), **rows).holds
        assert not certify(upper(2, 1), lower, at(-1e-4), at(0), **rows).holds


def test_the_equality_toy_is_certified_and_its_neighbours_are_not():
    t = LLC(5)
    row = bilevel.Affine(t.Ax, t.Ay, t.b)
    for rows in (
        (None, row),
        (None, lambda x, y: (row.Ax @ x + row.Ay @ y, lambda w: (w @ row.Ax, w @ row.Ay))),
    ):
        assert certify(t.upper, t.lower, t.x, t.y, constraints=rows).holds
        assert not certify(t.upper, t.lower, t.x, t.y + 1e-3, constraints=rows).holds
        swap = np.r_[np.zeros(5), 0.1, -0.1, np.zeros(3)]
        # Feasible and lower-optimal, for y2 is free as long as its sum is; but not the best.
        assert not certify(t.upper, t.lower, t.x, t.y + swap, constraints=rows).holds
        shift = np.r_[0.01, -0.01, np.zeros(3)]
        y = t.y + np.r_[shift, np.zeros(5)]
        assert not certify(t.upper, t.lower, t.x + shift, y, constraints=rows).holds


def test_multipliers_with_the_wrong_sign_do_not_explain_an_answer():
    # min (y - 1)^2 s.t. y <= 2: y = 2 is stationary with a multiplier of -2 only.
    lower = lambda x, y: ((y[0] - 1) ** 2, 0 * x, 2 * (y - 1))  # noqa: E731
    row = bilevel.Affine([[0.0]], [[1.0]], [2.0])
    upper = lambda x, y: (0.5 * x @ x, x, 0 * y)  # noqa: E731
    assert not certify(upper, lower, at(0), at(2), constraints=row).holds
    assert not certify(upper, lower, at(0), at(2), Y=bilevel.box(-np.inf, 2)).holds
    assert certify(upper, lower, at(0), at(1), constraints=row).holds
    wanted = bilevel.Affine([[0.0]], [[1.0]], [0.5])
    assert certify(upper, lower, at(0), at(0.5), constraints=wanted).holds
    # As an equation, any sign does.
    assert certify(upper, lower, at(0), at(2), constraints=(None, row)).holds


def test_curved_constraints_enter_with_their_curvature():
    # y = the point of the unit ball nearest to (x, 1) + (0, 1), outside of it.
    lower = lambda x, y: (  # noqa: E731
        0.5 * (y - at(x[0], 2)) @ (y - at(x[0], 2)), at(x[0] - y[0]), y - at(x[0], 2),
    )  # fmt: skip
    ball = lambda x, y: (at(y @ y - 1), lambda w: (0 * x, 2 * w[0] * y))  # noqa: E731
    response = lambda x: at(x, 2) / np.hypot(x, 2)  # noqa: E731
    target = response(0.7)
    upper = lambda x, y: (0.5 * (y - target) @ (y - target), 0 * x, y - target)  # noqa: E731
    assert certify(upper, lower, at(0.7), target, constraints=ball).holds
    x = 0.3
    found = certify(upper, lower, at(x), response(x), constraints=ball)
    psi = lambda v: upper(v, response(v[0]))[0]  # noqa: E731
    assert found.details["stationarity"] == pytest.approx(
        abs(differences(psi, at(x))[0]), rel=1e-6
    )
    assert not found.holds
    # The same set, known by its projection alone.
    assert certify(upper, lower, at(0.7), target, Y=bilevel.ball(1.0, np.zeros(2))).holds
    assert not certify(upper, lower, at(x), response(x), Y=bilevel.ball(1.0, np.zeros(2))).holds


def test_constraints_beside_a_set_that_only_its_projection_tells_of():
    p = CoupledQP(3)
    _, x, y, _ = p.enumerated()
    rows, size = bilevel.Affine(p.Ax, p.Ay, p.b), np.linalg.norm(y)
    far, edge, short = (bilevel.ball(r * size, np.zeros(3)) for r in (2.0, 1.0, 0.9))
    assert certify(p.upper, p.lower, x, y, constraints=rows, Y=far).holds
    # On the edge nothing is known; outside is outside.
    assert not certify(p.upper, p.lower, x, y, constraints=rows, Y=edge).holds
    assert not certify(p.upper, p.lower, x, y, constraints=rows, Y=short).holds


def test_a_support_vector_machine_is_the_same_with_and_without_slacks():
    s = WeightedSvm(1, n=12)
    c = np.random.default_rng(0).uniform(-1, 1, 12)
    y = s.best_response(c)
    target = np.array([0.3, -0.2, 0.1])

    def loss(x, w):
        return 0.5 * (w - target) @ (w - target) + 0.01 * x @ x, 0.02 * x, w - target

    def slack_loss(x, v):
        value, gx, gw = loss(x, v[: s.p])
        return value, gx, np.r_[gw, np.zeros(s.n)]

    rows = bilevel.Affine(s.Ax, s.Ay, s.b)
    both = (
        certify(slack_loss, s.lower, c, y, constraints=rows),
        certify(loss, s.slackless, c, y[:3]),
    )
    grads = [one.details["stationarity"] for one in both]
    assert grads[0] == pytest.approx(grads[1], rel=1e-6)
    psi = lambda x: loss(x, s.best_response(x)[:3])[0]  # noqa: E731
    assert grads[0] == pytest.approx(abs(differences(psi, c)).max(), rel=1e-5)


@pytest.mark.parametrize("name", ["simplex", "polyhedron"])
def test_polyhedral_sets_of_y_are_judged_on_their_faces(name):
    rng = np.random.default_rng(2)
    A, C = 2 * np.eye(4), rng.standard_normal((4, 2))
    lower = lambda x, y: (0.5 * y @ A @ y - y @ (C @ x), -C.T @ y, A @ y - C @ x)  # noqa: E731
    if name == "simplex":
        Y = bilevel.simplex(1.0)
    else:
        Y = bilevel.polyhedron(np.r_[-np.eye(4), np.ones((1, 4))], np.r_[np.zeros(4), 1.0])
    response = lambda x: Y.project(C @ x / 2)  # noqa: E731
    goal = np.array([1.5, -0.5])
    t = response(goal)
    assert (t < 1e-12).any()
    upper = lambda x, y: (0.5 * (y - t) @ (y - t), 0 * x, y - t)  # noqa: E731
    assert certify(upper, lower, goal, t, Y=Y).holds
    x = goal + 0.1
    psi = lambda v: upper(v, response(v))[0]  # noqa: E731
    found = certify(upper, lower, x, response(x), Y=Y)
    assert found.details["stationarity"] == pytest.approx(abs(differences(psi, x)).max(), rel=1e-4)
    by_projection = certify(upper, lower, x, response(x), Y=Y.project)
    assert by_projection.details["stationarity"] == pytest.approx(
        found.details["stationarity"], rel=1e-4
    )


def test_a_lower_level_with_a_proximal_term_is_judged_by_penalties():
    # y = soft threshold of x by 1/2.
    soft = lambda v, t: np.sign(v) * np.maximum(abs(v) - 0.5 * t, 0)  # noqa: E731
    lower = bilevel.Oracle(
        value_and_grads=lambda x, y: (0.5 * (y - x) @ (y - x), x - y, y - x), prox_y=soft
    )
    t = at(1.0, 0.0, -0.7)

    def upper(x, y):
        aside = x[1] - 0.2
        return 0.5 * (y - t) @ (y - t) + 0.5 * aside**2, at(0, aside, 0), y - t

    x = at(1.5, 0.2, -1.2)
    assert certify(upper, lower, x, t).holds
    assert not certify(upper, lower, x, t + 0.01).holds
    x = x + at(0.1, 0, 0)
    found = certify(upper, lower, x, soft(x, 1.0))
    assert found.details["stationarity"] == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("n", [2, 9])
def test_more_kinks_than_can_be_tried_are_named_in_the_message(n):
    def upper(x, y):
        return 0.5 * (x @ x + y @ y), x, y

    def lower(x, y):
        return 0.5 * (y - x) @ (y - x), x - y, y - x

    tie = bilevel.Affine(np.zeros((n, n)), -np.eye(n), np.zeros(n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        res = bilevel.lvhba(upper, lower, tie, np.zeros(n), np.zeros(n), maxiter=3)
    assert res.certificate.details["weak_rows"] == n
    assert res.certificate.holds == (n == 2)
    assert ("9 constraints hold without a multiplier" in res.message) == (n == 9)
