import inspect
import warnings

import numpy as np
import pytest
from bilevel.oracles import LLC, CoupledQP, WeightedSvm

from solvers import ConvergenceWarning, Status, bilevel

TIE = bilevel.Affine([[1.0], [0.0]], [[1.0], [-1.0]], [2.0, 0.0])


def kinked(x, y):
    """Upper level of the pair whose lower one is the clip of x to [0, 2 - x]."""
    return (x - 2) @ (x - 2) + (y - 1.5) @ (y - 1.5), 2 * (x - 2), 2 * (y - 1.5)


def follower(x, y):
    return (y - x) @ (y - x), 2 * (x - y), 2 * (y - x)


def solve(problem, **options):
    tie = bilevel.Affine(problem.Ax, problem.Ay, problem.b)
    return bilevel.lvhba(problem.upper, problem.lower, tie, problem.x0, problem.y0, **options)


@pytest.mark.parametrize(("n", "start"), [(12, 2.0), (12, 10.0), (100, 2.0)])
def test_the_equality_toy_has_its_analytic_solution_in_few_evaluations(n, start):
    toy = LLC(n)
    tie = bilevel.Affine(toy.Ax, toy.Ay, toy.b)
    x0, y0 = np.full(n, start), np.full(2 * n, start)
    res = bilevel.lvhba(toy.upper, toy.lower, None, x0, y0, eq=tie)
    assert res.success
    np.testing.assert_allclose(res.x, toy.x, atol=1e-6)
    np.testing.assert_allclose(res.y, toy.y, atol=1e-6)
    np.testing.assert_allclose(res.multipliers, toy.multiplier, atol=1e-6)
    assert res.fun == pytest.approx(toy.value, abs=1e-6)
    assert res.counts["n_g"] < 1000
    assert res.psi_lower <= toy.value + 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_tiny_problems_end_in_local_solutions_with_the_multipliers_of_enumeration(seed):
    problem = CoupledQP(seed)
    res = solve(problem)
    assert res.success
    assert res.certificate.value <= 1e-6
    y, w = problem.best_response(res.x)
    np.testing.assert_allclose(res.y, y, atol=2e-6)
    np.testing.assert_allclose(res.multipliers, w, atol=2e-5)

    def psi(x):
        return problem.upper(x, problem.best_response(x)[0])[0]

    rng = np.random.default_rng(seed)
    around = [psi(res.x + 1e-3 * rng.standard_normal(2)) for _ in range(20)]
    assert min(around) >= psi(res.x) - 1e-7
    assert psi(res.x) >= problem.enumerated()[0] - 1e-6
    assert res.psi_lower <= psi(res.x) + 1e-9


def test_the_enumerated_optimum_is_found_from_beside_it():
    problem = CoupledQP(3)
    f, x, y, w = problem.enumerated()
    problem.x0, problem.y0 = x + 0.01, y
    res = solve(problem, multipliers0=w)
    assert res.fun == pytest.approx(f, abs=1e-5)


@pytest.mark.parametrize(("a", "s"), [(1e-4, 1.0), (1e4, 1.0), (1.0, 1e3), (1e-2, 1e-3)])
def test_units_of_the_lower_level_and_of_its_rows_change_nothing(a, s):
    problem = CoupledQP(1)
    plain = solve(problem)
    lower = problem.lower
    problem.lower = lambda x, y: tuple(a * part for part in lower(x, y))
    problem.Ax, problem.Ay, problem.b = s * problem.Ax, s * problem.Ay, s * problem.b
    res = solve(problem)
    assert res.success
    np.testing.assert_allclose(res.x, plain.x, atol=1e-6)
    np.testing.assert_allclose(res.multipliers * s / a, plain.multipliers, atol=1e-4)


def test_a_solution_at_a_kink_of_the_response_is_certified():
    # y = min(x, 2 - x), and the upper level pulls towards the kink from both sides.
    def upper(x, y):
        return (y - 3) @ (y - 3) + 0.1 * (x - 1.2) @ (x - 1.2), 0.2 * (x - 1.2), 2 * (y - 3)

    res = bilevel.lvhba(upper, follower, TIE, np.array([0.4]), np.array([0.4]))
    assert res.success
    np.testing.assert_allclose([res.x, res.y], 1.0, atol=1e-6)


def test_an_active_row_gets_its_multiplier():
    res = bilevel.lvhba(kinked, follower, TIE, np.array([0.4]), np.array([0.4]))
    np.testing.assert_allclose(np.r_[res.x, res.y], [1.25, 0.75], atol=1e-6)
    # 2 (y - x) + w = 0.
    np.testing.assert_allclose(res.multipliers, [1.0, 0.0], atol=1e-5)


def test_a_callable_gives_what_affine_rows_give():
    problem = CoupledQP(3)

    def rows(x, y):
        value = problem.Ax @ x + problem.Ay @ y - problem.b
        return value, lambda w: (problem.Ax.T @ w, problem.Ay.T @ w)

    res = bilevel.lvhba(problem.upper, problem.lower, rows, problem.x0, problem.y0)
    np.testing.assert_allclose(res.x, solve(problem).x, atol=1e-6)


def test_a_curved_constraint_that_moves_with_x_is_followed():
    # The nearest point to (2, 1) in a ball of radius sqrt(x): y = sqrt(x / 5) (2, 1).
    target = np.array([2.0, 1.0])

    def lower(x, y):
        return 0.5 * (y - target) @ (y - target), 0 * x, y - target

    def upper(x, y):
        return (x - 1) @ (x - 1) + 0.5 * y[0] ** 2, 2 * (x - 1), np.array([y[0], 0.0])

    def ball(x, y):
        return np.array([y @ y - x[0]]), lambda w: (-w, 2 * w[0] * y)

    res = bilevel.lvhba(upper, lower, ball, np.ones(1), np.ones(2))
    assert res.success
    # (x - 1)^2 + 0.4 x has its minimum at x = 0.8.
    np.testing.assert_allclose(res.x, 0.8, atol=1e-6)
    np.testing.assert_allclose(res.y, 0.4 * target, atol=1e-6)
    # y - target + 2 w y = 0.
    np.testing.assert_allclose(res.multipliers, 0.75, atol=1e-5)


@pytest.mark.parametrize("kind", ["box", "callable", "polyhedron", "ball"])
def test_walls_of_x_hold_whatever_form_they_come_in(kind):
    problem = CoupledQP(0)
    free = solve(problem)
    X = {
        "box": bilevel.box(-0.2, 0.2),
        "callable": lambda v: np.clip(v, -0.2, 0.2),
        "polyhedron": bilevel.polyhedron(np.r_[np.eye(2), -np.eye(2)], np.full(4, 0.2)),
        "ball": bilevel.ball(0.2),
    }[kind]
    res = solve(problem, X=X)
    assert np.abs(free.x).max() > 0.25
    inside = X(res.x) if callable(X) else X.project(res.x)
    np.testing.assert_allclose(inside, res.x, atol=1e-9)
    y, _ = problem.best_response(res.x)
    np.testing.assert_allclose(res.y, y, atol=1e-6)
    rng = np.random.default_rng(0)
    for step in 1e-3 * rng.standard_normal((20, 2)):
        x = X(res.x + step) if callable(X) else X.project(res.x + step)
        assert problem.upper(x, problem.best_response(x)[0])[0] >= res.fun - 1e-7


def test_walls_of_y_are_part_of_the_lower_level():
    # y = clip(x, 0, 0.6) by a box, and the row x + y <= 3 does not matter.
    tie = bilevel.Affine([[1.0]], [[1.0]], [3.0])
    Y = bilevel.box(0.0, 0.6)
    res = bilevel.lvhba(kinked, follower, tie, np.array([0.4]), np.array([0.4]), Y=Y)
    assert res.success
    np.testing.assert_allclose(np.r_[res.x, res.y], [2.0, 0.6], atol=1e-6)


def test_a_support_vector_machine_learns_its_costs():
    svm = WeightedSvm(0, n=12, p=3)

    def upper(c, y):
        over = np.maximum(0.0, 1 - svm.M[::-1] @ y[:3]) / 12
        grad = np.zeros(15)
        grad[:3] = -svm.M[::-1].T @ over
        return 6 * over @ over + 0.05 * c @ c, 0.1 * c, grad

    tie = bilevel.Affine(svm.Ax, svm.Ay, svm.b)
    x0, y0 = np.zeros(12), np.r_[np.zeros(3), np.ones(12)]
    res = bilevel.lvhba(upper, svm.lower, tie, x0, y0, X=bilevel.box(-4, 4), tol=1e-5)
    np.testing.assert_allclose(res.y, svm.best_response(res.x), atol=1e-6)

    def plain(c, w):
        f, fc, fy = upper(c, np.r_[w, np.zeros(12)])
        return f, fc, fy[:3]

    other = bilevel.penalty(plain, svm.slackless, x0, y0[:3], X=bilevel.box(-4, 4), tol=1e-5)
    assert res.fun == pytest.approx(other.fun, abs=1e-6)


def test_a_projection_of_the_callers_takes_the_place_of_ours():
    problem = CoupledQP(0)
    calls = []
    rows = bilevel.polyhedron(np.c_[problem.Ax, problem.Ay], problem.b)

    def project(x, y):
        calls.append(0)
        p = rows.project(np.r_[x, y])
        return p[:2], p[2:]

    res = solve(problem, project=project)
    np.testing.assert_allclose(res.x, solve(problem).x, atol=1e-6)
    assert len(calls) > 10


def test_nested_variables_and_other_shapes_come_back_as_they_were():
    problem = CoupledQP(2)
    plain = solve(problem)

    def lower(x, y):
        g, gx, gy = problem.lower(x.ravel(), np.r_[y["a"], y["b"].ravel()])
        return g, gx.reshape(2, 1), {"a": gy[:1], "b": gy[1:].reshape(1, 2)}

    def upper(x, y):
        f, fx, fy = problem.upper(x.ravel(), np.r_[y["a"], y["b"].ravel()])
        return f, fx.reshape(2, 1), {"a": fy[:1], "b": fy[1:].reshape(1, 2)}

    tie = bilevel.Affine(problem.Ax, problem.Ay, problem.b)
    y0 = {"a": np.zeros(1), "b": np.zeros((1, 2))}
    res = bilevel.lvhba(upper, lower, tie, np.zeros((2, 1)), y0)
    assert res.x.shape == (2, 1)
    assert res.y["b"].shape == (1, 2)
    np.testing.assert_allclose(res.x.ravel(), plain.x, atol=1e-7)


def test_single_precision_is_kept():
    problem = CoupledQP(0)
    wanted = solve(problem).x
    problem.x0, problem.y0 = problem.x0.astype(np.float32), problem.y0.astype(np.float32)
    res = solve(problem)
    assert res.success
    assert res.certificate.tol == 3e-3
    assert (res.x.dtype, res.y.dtype, res.multipliers.dtype) == (np.float32,) * 3
    np.testing.assert_allclose(res.x, wanted, atol=1e-2)


def test_a_result_starts_the_next_run_at_the_solution():
    problem = CoupledQP(0)
    first = solve(problem)
    tie = bilevel.Affine(problem.Ax, problem.Ay, problem.b)
    again = bilevel.lvhba(problem.upper, problem.lower, tie, first)
    assert again.success
    assert again.nit == 0
    np.testing.assert_allclose(again.x, first.x, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"method": "single-loop"}, {"X": bilevel.box(-0.2, 0.2)}])
def test_a_run_in_two_parts_is_the_whole_run_bit_for_bit(options, tmp_path):
    problem, file = CoupledQP(1), tmp_path / "run.npz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole = solve(problem, maxiter=40, **options)
        part = solve(problem, maxiter=23, checkpoint=file, checkpoint_every=0, **options)
        from_state = solve(problem, maxiter=40, resume=part.state, **options)
        from_file = solve(problem, maxiter=40, resume=file, **options)
    assert (part.nit, from_state.nit) == (23, 40)
    for res in (from_state, from_file):
        np.testing.assert_array_equal(res.x, whole.x)
        np.testing.assert_array_equal(res.y, whole.y)
        np.testing.assert_array_equal(res.multipliers, whole.multipliers)


def test_counts_are_those_of_the_callers_functions():
    problem, calls = CoupledQP(0), {"lower": 0, "upper": 0}

    def counted(name):
        fun = getattr(problem, name)

        def count(x, y):
            calls[name] += 1
            return fun(x, y)

        return count

    problem.lower, problem.upper = counted("lower"), counted("upper")
    seen = []

    def stop(intermediate_result):
        seen.append(dict(calls))
        return True

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        res = solve(problem, callback=stop)
    # After the only step the lower level answers once more; the certificate does not count.
    assert res.history["n_g"][-1] == seen[0]["lower"]
    assert seen[0]["lower"] < res.counts["n_g"] < calls["lower"]
    assert res.counts["n_f"] == seen[0]["upper"] + 1


def test_the_published_loop_stays_bounded_with_steps_that_contract():
    toy = LLC(6)
    tie = bilevel.Affine(toy.Ax, toy.Ay, toy.b)
    options = {"eq": tie, "method": "single-loop", "maxiter": 2000}
    with pytest.warns(ConvergenceWarning):
        res = bilevel.lvhba(toy.upper, toy.lower, None, toy.x0, toy.y0, **options)
    assert res.status is Status.MAXITER
    # Its error falls like the inverse of a weight that grows like the 0.3rd power of steps.
    assert 1e-4 < np.abs(res.x - toy.x).max() < 0.03
    np.testing.assert_allclose(res.multipliers, toy.multiplier, atol=1e-3)


def test_the_published_loop_with_steps_too_long_does_not_pretend():
    toy = LLC(6)
    tie = bilevel.Affine(toy.Ax, toy.Ay, toy.b)
    options = {"eq": tie, "method": "single-loop", "maxiter": 600, "steps": (0.1, 0.1, 3.0)}
    with pytest.warns(ConvergenceWarning):
        res = bilevel.lvhba(toy.upper, toy.lower, None, toy.x0, toy.y0, **options)
    assert res.status in (Status.NUMERICAL, Status.MAXITER)
    assert np.isfinite(res.x).all()


@pytest.mark.parametrize("method", ["robust", "single-loop"])
@pytest.mark.parametrize("Y", [None, bilevel.nonneg()])
def test_constraints_that_nothing_satisfies_are_reported(method, Y):
    tie = bilevel.Affine(np.zeros((2, 1)), [[1.0, 1.0], [-1.0, -1.0]], [-1.0, -1.0])

    def lower(x, y):
        return 0.5 * y @ y, 0 * x, y

    with pytest.warns(ConvergenceWarning):
        res = bilevel.lvhba(lower, lower, tie, np.zeros(1), np.zeros(2), Y=Y, method=method)
    assert res.status is Status.INFEASIBLE
    assert "`constraints`" in res.message
    assert not res.success


def test_an_upper_level_that_falls_for_ever_is_reported():
    def upper(x, y):
        return -x @ x - x.sum(), -2 * x - 1, 0 * y

    tie = bilevel.Affine([[0.0]], [[1.0]], [1.0])
    with pytest.warns(ConvergenceWarning):
        res = bilevel.lvhba(upper, follower, tie, np.zeros(1), np.zeros(1))
    assert res.status in (Status.UNBOUNDED, Status.STALLED)
    assert not res.success


def test_few_iterations_end_with_a_response_of_the_lower_level():
    problem = CoupledQP(0)
    with pytest.warns(ConvergenceWarning):
        res = solve(problem, maxiter=3)
    assert (res.status, res.nit) == (Status.MAXITER, 3)
    np.testing.assert_allclose(res.y, problem.best_response(res.x)[0], atol=1e-5)
    assert set(res.history) >= {"fun", "psi_lower", "sigma", "optimality", "n_g", "seconds"}
    assert len(res.history["fun"]) == 3


def test_tighter_bounds_of_multipliers_than_they_need_fail_openly():
    # The multiplier is 1: held to 0.1, the lower level cannot be solved.
    with pytest.warns(ConvergenceWarning):
        res = bilevel.lvhba(kinked, follower, TIE, np.array([0.4]), np.array([0.4]), r=0.1)
    assert not res.success
    assert res.multipliers.max() <= 0.1 + 1e-9


@pytest.mark.parametrize(
    ("options", "error", "start"),
    [
        ({"constraints": None}, ValueError, "`constraints`"),
        ({"constraints": 3.0}, TypeError, "`constraints`"),
        ({"constraints": (TIE, TIE, TIE)}, TypeError, "`constraints`"),
        ({"constraints": bilevel.Affine([[1.0, 1.0]], [[1.0]], [1.0])}, ValueError, "`constr"),
        ({"constraints": bilevel.Affine([[1.0]], [[1.0, 1.0]], [1.0])}, ValueError, "`constr"),
        ({"constraints": lambda x, y: x}, TypeError, "`constraints`"),
        ({"constraints": lambda x, y: (x, 3.0)}, TypeError, "`constraints`"),
        ({"constraints": lambda x, y: (1.0, lambda w: (x, y))}, ValueError, "`constraints`"),
        ({"constraints": lambda x, y: (x, lambda w: x)}, TypeError, "`constraints`"),
        ({"constraints": lambda x, y: (x, lambda w: (x, np.ones(3)))}, ValueError, "`constr"),
        ({"constraints": lambda x, y: (np.nan * x, lambda w: (x, y))}, ValueError, "`constr"),
        ({"eq": 1.0}, TypeError, "`eq`"),
        ({"project": 1.0}, TypeError, "`project`"),
        ({"project": lambda x, y: x}, TypeError, "`project`"),
        ({"method": "fast"}, ValueError, "`method`"),
        ({"gamma1": 0.0}, ValueError, "`gamma1`"),
        ({"gamma2": "a"}, TypeError, "`gamma2`"),
        ({"r": -1.0}, ValueError, "`r`"),
        ({"c0": 0.0}, ValueError, "`c0`"),
        ({"c_max": np.inf}, ValueError, "`c_max`"),
        ({"c_max": 0.5}, ValueError, "`c_max`"),
        ({"steps": 0.1}, TypeError, "`steps`"),
        ({"steps": (0.1, 0.1)}, ValueError, "`steps`"),
        ({"steps": (0.1, 0.1, -1.0)}, ValueError, "`steps`"),
        ({"multipliers0": np.ones(3)}, ValueError, "`multipliers0`"),
        ({"multipliers0": [np.nan, 1.0]}, ValueError, "`multipliers0`"),
        ({"X": 3.0}, TypeError, "`X`"),
        ({"Y": 3.0}, TypeError, "`Y`"),
        ({"tol": 0.0}, ValueError, "`tol`"),
        ({"maxiter_inner": 0}, ValueError, "`maxiter_inner`"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, error, start):
    args = {"constraints": TIE, **options}
    with pytest.raises(error, match=f"^{start}"):
        bilevel.lvhba(kinked, follower, args.pop("constraints"), np.ones(1), np.ones(1), **args)


@pytest.mark.parametrize(
    ("change", "error", "start"),
    [
        ({"Ax": [1.0]}, ValueError, "`Ax`"),
        ({"Ay": [[1.0], [1.0]]}, ValueError, "`Ay`"),
        ({"b": [np.inf]}, ValueError, "`b`"),
        ({"Ax": "a"}, TypeError, "`Ax`"),
    ],
)
def test_bad_rows_are_refused_by_name(change, error, start):
    with pytest.raises(error, match=f"^{start}"):
        bilevel.Affine(**{"Ax": [[1.0]], "Ay": [[1.0]], "b": [1.0], **change})


def test_proximal_parameters_may_be_chosen():
    problem = CoupledQP(0)
    plain = solve(problem)
    other = solve(problem, gamma1=3.0, gamma2=1.0, c0=3.0, c_max=3e5)
    np.testing.assert_allclose(other.x, plain.x, atol=1e-6)
    assert other.counts != plain.counts


def test_the_callers_arrays_stay_as_they_were():
    problem = CoupledQP(0)
    kept = {name: np.array(getattr(problem, name)) for name in ("x0", "y0", "Ax", "Ay", "b")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solve(problem, maxiter=5)
    for name, value in kept.items():
        np.testing.assert_array_equal(getattr(problem, name), value)
    assert inspect.signature(bilevel.lvhba).parameters["method"].default == "robust"
