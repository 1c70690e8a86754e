"""No wrong answer may be certified, by any way to judge; right answers must be."""

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest
from _cupy_standin import run_with_standin

import solvers
from solvers import bilevel
from tests.bilevel.oracles import (
    LLC,
    CoupledQP,
    Quadratic,
    Ridge,
    Waves,
    WeightedSvm,
    differences,
)

certify = bilevel.certify
WAYS = ("auto", "dense", "cg", "kkt", "penalty")


def at(*entries):
    return np.array(entries, float)


def scaled(level, a):
    return lambda x, y: tuple(a * part for part in level(x, y))


def half_square(x, y):
    return 0.5 * x @ x + 0.5 * y @ y, x, y


# ------------------------------------------------------------------------------ right answers
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_of_a_quadratic_is_certified_in_every_way(how, seed):
    q = Quadratic(seed)
    found = certify(q.upper, q.lower, q.x, q.y, how=how)
    assert found.holds
    assert found.details["psi"] == pytest.approx(q.value, abs=1e-6)
    assert found.details["psi_lower"] <= q.value + 1e-9
    assert found.details["gap"] == pytest.approx(q.value - found.details["psi_lower"], abs=1e-6)
    # The lower bound is that of the penalty that it names.
    assert found.details["psi_lower"] == pytest.approx(
        q.psi_sigma(q.x, found.details["sigma"])[0], abs=1e-5
    )


@pytest.mark.parametrize("how", ["auto", "dense", "penalty"])
def test_of_several_lower_solutions_only_the_optimistic_one_passes(how):
    q = Quadratic(1, rank=5)
    assert certify(q.upper, q.lower, q.x, q.y, how=how).holds
    worse = q.y + q.N @ at(0.1, -0.1)
    found = certify(q.upper, q.lower, q.x, worse, how=how)
    assert not found.holds
    assert found.details["lower_residual"] < 1e-9
    excess = q.upper(q.x, worse)[0] - q.value
    assert found.details["gap_2"] * max(1, q.upper(q.x, worse)[0]) == pytest.approx(
        excess, rel=1e-2
    )


@pytest.mark.parametrize("how", ["auto", "dense", "cg"])
def test_stationarity_is_that_of_the_exact_hyper_gradient(how):
    q = Quadratic(2)
    rng = np.random.default_rng(0)
    for _ in range(4):
        x = q.x + rng.standard_normal(4)
        exact = abs(q.psi(x)[1]).max()
        found = certify(q.upper, q.lower, x, q.best_response(x), how=how)
        assert found.details["stationarity"] == pytest.approx(exact / max(1, exact), rel=1e-6)
        assert not found.holds


def test_a_box_of_x_projects_the_gradient():
    r = Ridge(2)
    x = r.best(-6, 1).x
    assert ((x == -6) | (x == 1)).any()
    y, X = r.best_response(x), bilevel.box(-6, 1)
    for lower in (r.lower, r.oracle()):
        assert certify(r.upper, lower, x, y, X=X).holds
        assert not certify(r.upper, lower, x, y).holds


def test_without_an_answer_of_the_lower_level_it_is_looked_for():
    q = Quadratic(5, rank=5)
    with pytest.raises(ValueError, match="`y` is missing"):
        certify(q.upper, q.lower, q.x)

    class Lower:
        y0 = q.y0

        def __call__(self, x, y):
            return q.lower(x, y)

    assert certify(q.upper, Lower(), q.x).holds
    assert not certify(q.upper, Lower(), q.x + 0.01).holds


def test_nested_arrays_are_judged_like_flat_ones():
    q = Quadratic(6)

    def nested(level):
        def fun(x, y):
            value, gx, gy = level(np.r_[x["a"], x["b"].ravel()], y[0].ravel())
            return value, {"a": gx[:2], "b": gx[2:].reshape(2, 1)}, [gy.reshape(1, 7)]

        return fun

    x, y = {"a": q.x[:2], "b": q.x[2:].reshape(2, 1)}, [q.y.reshape(1, 7)]
    flat = certify(q.upper, q.lower, q.x, q.y)
    assert certify(nested(q.upper), nested(q.lower), x, y).value == flat.value
    x["b"] = x["b"] + 0.01
    assert not certify(nested(q.upper), nested(q.lower), x, y).holds


@pytest.mark.parametrize("rank", [None, 5])
def test_single_precision_judges_by_what_it_can_tell(rank):
    q = Quadratic(3, rank=rank, dtype=np.float32)
    x, y = q.x.astype(np.float32), q.y.astype(np.float32)
    good = certify(q.upper, q.lower, x, y)
    assert good.holds
    assert good.tol == 3e-3
    for bad_x, bad_y in ((x + np.float32(0.1), None), (x, y + np.float32(0.1))):
        bad_y = q.best_response(bad_x).astype(np.float32) if bad_y is None else bad_y  # noqa: PLW2901
        assert not certify(q.upper, q.lower, bad_x, bad_y).holds


# ------------------------------------------------------------------------------ wrong answers
@pytest.mark.parametrize("how", WAYS)
def test_neither_maximisers_nor_saddle_points_of_the_lower_level_pass(how):
    def double_well(x, y):
        u, v = y
        value = 0.25 * v**4 - 0.5 * v**2 + 0.5 * (u - x[0]) ** 2
        return value, at(x[0] - u), at(u - x[0], v**3 - v)

    def hill(x, y):
        return -0.5 * (y - x) @ (y - x), y - x, x - y

    assert not certify(half_square, double_well, at(0), at(0, 0), how=how).holds
    assert not certify(half_square, hill, at(0, 0), at(0, 0), how=how).holds

    def upper(x, y):
        return 0.5 * x @ x + 0.5 * y[0] ** 2 + 0.5 * (y[1] - 1) ** 2, x, y - at(0, 1)

    assert certify(upper, double_well, at(0), at(0, 1), how=how).holds


@pytest.mark.parametrize("how", ["auto", "dense", "penalty"])
def test_on_a_circle_of_lower_solutions_only_the_best_point_passes(how):
    # psi = (x - 2)^2/2 - x, for the best point of the circle of radius x is (-x, 0).
    def circle(x, y):
        off = y @ y - x[0] ** 2
        return 0.25 * off**2, at(-off * x[0]), off * y

    def upper(x, y):
        return 0.5 * (x[0] - 2) ** 2 + y[0], x - 2, at(1, 0)

    assert certify(upper, circle, at(3), at(-3, 0), how=how, tol=1e-5).holds
    turned = 3 * at(-np.cos(0.02), np.sin(0.02))
    wrong = [(3, at(3, 0)), (1, at(-1, 0)), (3, at(0, 3)), (3, turned), (1, at(1, 0))]
    for x, y in wrong[:2] if how == "penalty" else wrong:
        assert not certify(upper, circle, at(x), y, how=how, tol=1e-5).holds


@pytest.mark.parametrize("how", ["auto", "dense", "cg", "penalty"])
def test_what_falls_for_ever_among_lower_solutions_does_not_pass(how):
    def valley(x, y):
        return 0.5 * (y[0] - x[0]) ** 2, x - y[0], at(y[0] - x[0], 0)

    linear = lambda x, y: (0.5 * y[0] ** 2 + y[1], 0 * x, at(y[0], 1))  # noqa: E731
    concave = lambda x, y: (0.5 * y[0] ** 2 - 0.5 * y[1] ** 2, 0 * x, at(y[0], -y[1]))  # noqa: E731
    assert not certify(linear, valley, at(0), at(0, 0), how=how).holds
    assert not certify(concave, valley, at(0), at(0, 0), how=how).holds
    if how != "cg":
        aside = lambda x, y: (0.5 * y[0] ** 2, 0 * x, at(y[0], 0))  # noqa: E731
        assert certify(aside, valley, at(0), at(0, 0), how=how).holds


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("x", [0.5, 1e-3])
def test_a_lower_level_without_curvature_fools_nobody(how, x):
    def quartic(x, y):
        e = y - x
        return (e**4).sum(), -4 * e**3, 4 * e**3

    # psi = x^2/2, whose gradient is x.
    upper = lambda x, y: (0.5 * y @ y, 0 * x, y)  # noqa: E731
    assert not certify(upper, quartic, at(x), at(x), how=how).holds


@pytest.mark.parametrize("kappa", [1e4, 1e6, 1e8, 1e10, 1e12])
def test_a_direction_that_bends_very_little_is_not_taken_for_a_flat_one(kappa):
    q = Quadratic(3, kappa=kappa)
    n = np.linalg.eigh(q.A)[1][:, :1]
    as_if = q.y + n @ np.linalg.solve(n.T @ q.F @ n, n.T @ q.F @ (q.t - q.y))
    assert not certify(q.upper, q.lower, q.x, as_if).holds
    x = q.x + 0.1
    assert not certify(q.upper, q.lower, x, q.best_response(x)).holds
    if kappa <= 1e5:
        assert certify(q.upper, q.lower, q.x, q.y).holds


def test_points_outside_the_sets_do_not_pass():
    r = Ridge(2)
    x = r.best(-6, 1).x
    X = bilevel.box(-6, 1)
    outside = x + 1e-3 * (x >= 1)
    assert not certify(r.upper, r.lower, outside, r.best_response(outside), X=X).holds
    q = Quadratic(4)
    Y = bilevel.box(q.y + 1e-3, q.y + 1)
    assert not certify(q.upper, q.lower, q.x, q.y, Y=Y).holds
    assert certify(q.upper, q.lower, q.x, q.y, Y=bilevel.box(q.y - 1, q.y + 1)).holds


@pytest.mark.parametrize("a", [1.0, 1e6])
def test_a_long_gradient_does_not_hide_that_x_is_not_on_its_bound(a):
    X, pull = bilevel.box(-9, 9), a * at(1, -1, 1, -1)
    upper = lambda x, y: (pull @ x + 0.5 * y @ y, pull, y)  # noqa: E731
    lower = lambda x, y: (0.5 * y @ y, 0 * x, y)  # noqa: E731
    bound = -9 * np.sign(pull)
    assert certify(upper, lower, bound, np.zeros(7), X=X).holds
    for off in (1e-3, -1e-3):
        assert not certify(upper, lower, (1 + off) * bound, np.zeros(7), X=X).holds


@pytest.mark.parametrize("how", ["auto", "dense", "cg"])
@pytest.mark.parametrize("a", [1e-12, 1e-6, 1e6, 1e12])
def test_the_scale_of_either_level_neither_helps_nor_harms(how, a):
    q = Quadratic(3)
    x = q.x + 0.1
    cases = ((q.x, q.y), True), ((x, q.best_response(x)), False), ((q.x, q.y + 0.01), False)
    for point, right in cases:
        assert certify(q.upper, scaled(q.lower, a), *point, how=how).holds == right
        assert certify(scaled(q.upper, a), q.lower, *point, how=how).holds == right


@pytest.mark.parametrize("flat", [False, True])
def test_of_many_stationary_points_exactly_the_minima_pass(flat):
    seen = []
    for seed in range(40):
        p = Waves(seed, flat)
        if (known := p.stationary()) is None:
            continue
        y, slope, minimum = known
        for off in (0.0, 0.05):
            upper = p.upper_with(off - slope)
            right = minimum and not off
            for how in ("auto", "dense") if flat else ("dense", "cg"):
                assert certify(upper, p.lower, p.x, y, how=how).holds == right
            single = [
                lambda x, y, level=level: tuple(np.float32(v) for v in level(x * 1.0, y * 1.0))
                for level in (upper, p.lower)
            ]
            rough = certify(*single, p.x.astype(np.float32), y.astype(np.float32))
            # In single precision some right answers cannot be told.
            assert right or not rough.holds
        seen.append(minimum)
    assert 4 <= sum(seen) < len(seen) - 4


# ------------------------------------------------------------------------------ wrong oracles
FAULTS = {
    "sign of grad_x": lambda v, gx, gy: (v, -gx, gy),
    "grad_x without 1/n": lambda v, gx, gy: (v, 50 * gx, gy),
    "grad_y without 1/n": lambda v, gx, gy: (v, gx, 50 * gy),
    "sign of grad_y": lambda v, gx, gy: (v, gx, -gy),
    "no grad_x": lambda v, gx, gy: (v, None, gy),
    "one entry of grad_y": lambda v, gx, gy: (v, gx, gy * np.r_[np.ones(6), -1]),
}


def broken(level, fault):
    return lambda x, y: FAULTS[fault](*level(x, y))


@pytest.mark.parametrize("which", ["upper", "lower"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_optimum_of_a_broken_oracle_is_not_certified(fault, which):
    # f's gradients vanish nowhere here, and g depends on x in the usual way.
    r = Ridge(7)
    levels = {"upper": r.upper, "lower": r.lower}
    if which == "upper" and "grad_x" in fault:
        plain = r.upper
        levels["upper"] = lambda x, y: (plain(x, y)[0] + 0.05 * x @ x, 0.1 * x, plain(x, y)[2])
    x = np.linspace(-2, 0, 7)
    y = r.best_response(x) + (0.1 if which == "lower" and "grad_y" in fault else 0)
    wrong = {**levels, which: broken(levels[which], fault)}
    # A tolerance that lets everything else pass.
    assert certify(*levels.values(), x, y, tol=1e3).holds
    found = certify(*wrong.values(), x, y, tol=1e3)
    assert not found.holds
    assert found.details["oracle_mismatch"] > 0.01


def test_stale_answers_of_the_lower_level_are_not_certified():
    q = Quadratic(8)
    for stale in (q.best_response(q.x + 1e-3), q.best_response(q.x0), q.y0):
        assert not certify(q.upper, q.lower, q.x, stale).holds


def test_wrong_products_with_the_second_derivative_are_found_and_not_used():
    q = Quadratic(9)
    for wrong in (lambda x, y, v: 2 * (q.A @ v), lambda x, y, v: v, lambda x, y, v: -(q.A @ v)):
        lower = bilevel.Oracle(value_and_grads=q.lower, hvp_yy=wrong)
        for how in ("dense", "cg"):
            assert certify(q.upper, lower, q.x, q.y, how=how).holds
            x = q.x + 0.01
            assert not certify(q.upper, lower, x, q.best_response(x), how=how).holds


def test_what_is_not_finite_around_the_point_does_not_pass():
    q = Quadratic(3)

    def hole(x, y):
        value, gx, gy = q.lower(x, y)
        return value, gx, gy if np.array_equal(y, q.y) else np.nan * gy

    found = certify(q.upper, hole, q.x, q.y)
    assert not found.holds
    assert found.value == np.inf


# ------------------------------------------------------------------------------ constraints
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


# ------------------------------------------------------------------------------ large ones
@pytest.mark.parametrize("products", [False, True])
def test_a_large_lower_level_needs_few_gradients(products):
    q = Quadratic(1, p=300, kappa=20.0)
    calls = []

    def lower(x, y):
        calls.append(1)
        return q.lower(x, y)

    hvp = (lambda x, y, v: q.A @ v) if products else None
    oracle = bilevel.Oracle(value_and_grads=lower, hvp_yy=hvp)
    found = certify(q.upper, oracle, q.x, q.y)
    assert found.holds
    assert len(calls) <= (80 if products else 450)
    x = q.x + 0.01
    assert not certify(q.upper, oracle, x, q.best_response(x)).holds


def test_conjugate_gradients_find_one_direction_in_many_that_bends_down_or_not_at_all():
    for curvature in (-0.1, 0.0, -1e-3):
        q = Quadratic(1, p=120, kappa=5.0)
        w, Q = np.linalg.eigh(q.A)
        w[77] = curvature
        A, n = (Q * w) @ Q.T, Q[:, 77]
        push = q.B - np.outer(n, n @ q.B), q.c - n * (n @ q.c)
        lower = lambda x, y, A=A, B=push[0], c=push[1]: (  # noqa: E731
            0.5 * y @ A @ y - y @ (B @ x + c), -B.T @ y, A @ y - B @ x - c,
        )  # fmt: skip
        y = np.linalg.pinv(A, rcond=1e-10) @ (push[0] @ q.x + push[1])
        upper = lambda x, y, n=n: (0.5 * x @ x + 3 * (n @ y), x, 3 * n)  # noqa: E731
        for how in ("auto", "cg", "dense"):
            assert not certify(
                upper, lower, 0 * q.x, y - np.linalg.pinv(A, rcond=1e-10) @ push[0] @ q.x, how=how
            ).holds


# ------------------------------------------------------------------------------ bad input
def test_bad_input_names_the_argument():
    q = Quadratic(0)
    table = [
        (ValueError, "`x`", {"x": np.full(4, np.nan)}),
        (ValueError, "`y`", {"y": np.full(7, np.inf)}),
        (TypeError, "`x`", {"x": np.zeros(4, complex)}),
        (ValueError, "`tol`", {"tol": 0.0}),
        (TypeError, "`tol`", {"tol": "small"}),
        (ValueError, "`how`", {"how": "guess"}),
        (TypeError, "`X`", {"X": 3.0}),
        (TypeError, "`Y`", {"Y": 3.0}),
        (TypeError, "`constraints`", {"constraints": 3.0}),
        (TypeError, "`upper`", {"upper": None}),
        (
            ValueError,
            "`lower` is not finite at \\(x, y\\)",
            {"lower": lambda x, y: (np.nan, x, y)},
        ),
        (ValueError, "`how`", {"how": "cg", "Y": bilevel.simplex()}),
        (ValueError, "`how`", {"how": "dense", "Y": bilevel.ball(1.0, np.zeros(7))}),
        (
            ValueError,
            "`how`",
            {
                "how": "penalty",
                "constraints": bilevel.Affine(np.ones((1, 4)), np.ones((1, 7)), [9.0]),
            },
        ),
    ]
    for error, match, change in table:
        given = {"upper": q.upper, "lower": q.lower, "x": q.x, "y": q.y, **change}
        with pytest.raises(error, match=match):
            certify(**given)


def test_a_matrix_that_no_memory_holds_is_refused_before_it_is_made():
    lower = lambda x, y: (0.5 * y @ y, 0 * x, y)  # noqa: E731
    with pytest.raises(MemoryError, match="second derivative"):
        certify(lower, lower, np.zeros(1), np.zeros(300_000), how="dense")


def test_judging_leaves_the_point_alone():
    q = Quadratic(0)
    x, y = q.x.copy(), q.y.copy()
    x.flags.writeable = y.flags.writeable = False
    for how in WAYS:
        certify(q.upper, q.lower, x, y, how=how)
    assert np.array_equal(x, q.x)
    assert np.array_equal(y, q.y)


def test_the_judge_uses_nothing_of_the_solvers():
    folder = Path(solvers.__file__).parent / "bilevel"
    ours, seen = {"_certificate", "_second_order", "_krylov", "_local", "_plain"}, set()
    for name in ours:
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                seen.add(node.module)
    assert seen - ours <= {"_problem", "_result"}


def test_device_arrays_are_judged_alike():
    run_with_standin(Path(__file__).parent / "certificate_on_device.py")


def test_solvers_refuse_a_way_to_judge_before_they_start():
    q = Quadratic(0)
    calls = []

    def counted(x, y):
        calls.append(1)
        return q.lower(x, y)

    with pytest.raises(ValueError, match="`how`"):
        bilevel.penalty(
            q.upper, counted, q.x0, q.y0, Y=bilevel.ball(1.0, np.zeros(7)), how="dense"
        )
    assert len(calls) <= 1
