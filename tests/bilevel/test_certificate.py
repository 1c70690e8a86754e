"""No wrong answer may be certified, by any way to judge; right answers must be."""

import ast
from pathlib import Path

import numpy as np
import pytest
from _cupy_standin import run_with_standin

import solvers
from solvers import bilevel
from tests.bilevel.oracles import (
    Quadratic,
    Ridge,
    Waves,
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
