"""The exact augmented Lagrangian loop: steps, weights, accuracy, watchdog, hand-over, history."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import LinearConstraint

import solvers.constrained._eal as eal
import solvers.constrained._search as search
import solvers.constrained._watch as watch
from solvers import ConvergenceWarning, Status, constrained
from solvers.constrained._convexify import Shifts
from solvers.constrained._merit import Weights
from solvers.constrained._problem import Standard
from solvers.constrained._program import pose
from solvers.constrained.inner import InnerSolve
from tests.constrained.nonlinear import CURVED, maratos, parallel, sphere, two_spheres, valley


def solved(given, weight=1.0, rows=1.0, **options):
    res = constrained.minimize(**given.keywords(weight, rows), **options)
    assert res.success, res.message
    return res


def standard(given):
    keywords = given.keywords()
    program, x = pose(keywords.pop("fun"), keywords.pop("x0"), **keywords)
    return Standard(program, x, None)


@pytest.mark.parametrize("name", CURVED)
def test_problems_of_the_collections_are_solved(name):
    given = CURVED[name]
    res = solved(given)
    assert res.fun == pytest.approx(given.best, rel=1e-8)
    # Recomputed from the caller's functions.
    r = given.jac(res.x) + given.cons_jac(res.x).T @ res.lam
    assert max(abs(r).max(), abs(given.cons(res.x)).max()) <= 1e-8


@pytest.mark.parametrize("angle", [0.5, 0.1, 0.01])
def test_full_steps_are_taken_on_the_circle_of_maratos(angle):
    res = solved(maratos([np.cos(angle), np.sin(angle)]), globalization="eal")
    assert (res.history["alpha"] == 1.0).all()
    assert res.nit <= 6


@pytest.mark.parametrize("seed", range(5))
def test_rows_in_another_unit_give_the_same_point(seed):
    given, rng = CURVED["HS77"], np.random.default_rng(seed)
    D = 10.0 ** rng.uniform(-4, 4, 2)
    res = solved(given, rows=D)
    plain = solved(given)
    np.testing.assert_allclose(res.x, plain.x, atol=1e-6)
    np.testing.assert_allclose(res.lam * D, plain.lam, atol=1e-6)


def repeated(given, more):
    """Add a combination of the rows to them; return the matrix that does so, too."""
    A = np.vstack([np.eye(len(more)), more])
    return A, given._replace(
        cons=lambda x: A @ given.cons(x),
        cons_jac=lambda x: A @ given.cons_jac(x),
        cons_hess=lambda x, v: given.cons_hess(x, A.T @ v),
    )


@pytest.mark.parametrize("more", [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
def test_rows_that_repeat_others_change_neither_the_point_nor_its_multipliers(more):
    A, again = repeated(CURVED["HS77"], more)
    res, plain = solved(again, globalization="eal"), solved(CURVED["HS77"])
    np.testing.assert_allclose(res.x, plain.x, atol=1e-6)
    np.testing.assert_allclose(A.T @ res.lam, plain.lam, atol=1e-6)


def test_rows_that_are_parallel_at_the_start_are_no_trouble_to_the_merit():
    given = parallel()
    res = solved(given, globalization="eal")
    assert res.fun == pytest.approx(given.best, rel=1e-8)


def test_multipliers_that_cancel_each_other_are_fitted_anew():
    _, again = repeated(CURVED["HS77"], [1.0, 0.0])
    # Their rounding errors alone, 1e-4, are far above the tolerance.
    res = solved(again, globalization="eal", lam0=[1e12, 0.0, -1e12])
    assert abs(res.history["kkt"][-1]) <= 1e-8
    assert abs(res.lam).max() <= 1


def test_a_constant_added_to_the_objective_changes_no_step():
    given = CURVED["BT11"]
    plain = solved(given)
    moved = solved(given._replace(fun=lambda x: given.fun(x) + 1024.0))
    assert moved.nit == plain.nit
    np.testing.assert_allclose(moved.x, plain.x, atol=1e-8)


@pytest.mark.parametrize("weight", [1e-6, 1e6, 1e10])
def test_objectives_in_any_unit_end_at_the_same_point(weight):
    given = CURVED["HS77"]
    res = solved(given, weight=weight)
    assert res.status is Status.CONVERGED
    # 1e-8 below the rounding of the gradient: the run must see that it cannot go on.
    assert res.nit <= 20
    assert res.constr_violation <= 1e-8
    np.testing.assert_allclose(res.x, solved(given).x, atol=1e-4 if weight < 1 else 1e-7)


def test_trial_points_outside_the_domain_are_failed_trials():
    outside = []

    def fun(x):
        outside.append(x.min() <= 0)
        return -np.log(x).sum() if x.min() > 0 else np.nan

    def jac(x):
        return np.where(x > 0, -1 / x, np.nan)

    res = constrained.minimize(
        fun,
        [1.0, 2.0, 3.0],
        jac=jac,
        hess=lambda x: np.diag(1 / x**2),
        constraints=LinearConstraint(np.ones((1, 3)), 0.3, 0.3),
        globalization="eal",
    )
    assert res.success
    assert any(outside)
    np.testing.assert_allclose(res.x, 0.1, atol=1e-8)


@pytest.mark.parametrize("seed", range(10))
def test_runs_from_near_a_maximiser_end_at_a_minimiser(seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((6, 6))
    A = A + A.T
    w, V = np.linalg.eigh(A)
    given = sphere(
        lambda x: x @ A @ x,
        lambda x: 2 * A @ x,
        lambda x: 2 * A,
        V[:, -1] + 1e-3 * rng.standard_normal(6),
    )
    res = solved(given)
    assert res.second_order
    assert res.fun == pytest.approx(w[0], abs=1e-7)


# ---------------------------------------------------------------- the watchdog
def test_the_watchdog_follows_a_curved_valley(monkeypatch):
    watched = solved(valley(), globalization="eal")
    monkeypatch.setattr(search, "_WORSE", 0.0)
    shortened = solved(valley(), globalization="eal")
    assert watched.nfev < 0.5 * shortened.nfev
    assert (watched.history["alpha"] == 1.0).all()


def test_the_watchdog_goes_back_where_full_steps_lead_nowhere():
    given = sphere(lambda x: x @ x, lambda x: 2 * x, lambda x: 2 * np.eye(2), [1.0, 1.0])
    problem = standard(given)
    line = search.LineSearch(problem)
    start, lam = problem.point(given.x0), np.zeros(1)
    # Beyond the solution by so much that M rises, and from there on the spot.
    far = eal.Step(-2.2 * given.x0, np.zeros(1), -1.0, Weights(10.0, 0.0), 1, 0.0, 0.1, False)
    taken = line.take(start, lam, far)
    assert taken.alpha == 1.0
    assert taken.change > 0
    still = far._replace(dx=np.zeros(2))
    for _ in range(search._WATCHED - 1):
        taken = line.take(taken.new, taken.new_lam, still)
        assert taken.alpha == 1.0
    taken = line.take(taken.new, taken.new_lam, still)
    assert taken.point is start
    assert taken.step is far
    assert taken.alpha < 1.0
    assert taken.change < 0


def test_a_step_too_short_to_change_anything_is_no_success():
    given = sphere(lambda x: x @ x, lambda x: 2 * x, lambda x: 2 * np.eye(2), [1.0, 0.0])
    problem = standard(given)
    # Uphill, but said to be downhill: the merit rises for every length.
    wrong = eal.Step(np.array([1.0, 0.0]), np.zeros(1), -1.0, Weights(10.0, 0.0), 1, 0.0, 0.1)
    start, lam = problem.point(given.x0), np.zeros(1)
    line = search.LineSearch(problem)
    assert line._shortened(line._trial(start, lam, wrong, 1.0)) is None


# ---------------------------------------------------------------- accuracy
class Scripted:
    """An inner solver that returns prepared solutions, and remembers what it was asked for."""

    def __init__(self, K, r, errors):
        self._exact, self._K, self._r = np.linalg.solve(K, r), K, r
        self._errors, self.asked = list(errors), []

    def factor(self, saddle):
        return True

    def solve(self, r, *, d0=None, tol):
        self.asked.append((d0, tol))
        d = self._exact + self._errors.pop(0)
        return InnerSolve(d, self._K @ d - r, 3, "converged")


def direction(errors, eta=(10.0, 1e-5)):
    """Ask for a direction on HS77 whose inner solver makes the given errors."""
    given = CURVED["HS77"]
    problem = standard(given)
    point, lam = problem.point(given.x0), np.zeros(2)
    F = np.concatenate([point.gradient(lam), point.c])
    curvature = problem.curvature(point, lam)
    B = curvature.B + 50 * np.eye(5)
    curvature = curvature._replace(B=B, exact=False)
    K = np.block([[B, point.G.T], [point.G, np.zeros((2, 2))]])
    inner = Scripted(K, -F, errors)
    options = SimpleNamespace(tol_inner=None, theta="superlinear", tol=1e-8)
    step, trouble = eal._direction(
        point, lam, F, curvature, inner, Shifts(), Weights(*eta), options, problem.be
    )
    return step, trouble, inner, point


def test_a_solve_that_does_not_descend_is_continued_more_accurately():
    bad = 1e3 * np.ones(7)
    step, trouble, inner, _ = direction([bad, 0.1 * bad, np.zeros(7)])
    assert trouble is None
    (first, tol), (second, tighter), (third, tightest) = inner.asked
    assert first is None
    np.testing.assert_allclose(second - inner._exact, bad)
    np.testing.assert_allclose(third - inner._exact, 0.1 * bad)
    assert tol > tighter > tightest
    assert step.weights == (10.0, 1e-5)
    assert (step.iterations, step.delta) == (9, tightest)
    assert step.slope < 0


def test_weights_change_only_where_exact_solves_do_not_descend():
    step, trouble, inner, point = direction([np.zeros(7)], eta=(1e-9, 1e-5))
    assert trouble is None
    assert len(inner.asked) == 1
    assert step.weights.eta1 > 1e-9
    assert step.weights.eta2 < 1e-5
    F = np.concatenate([point.gradient(np.zeros(2)), point.c])
    assert step.slope <= -0.5 * step.weights.eta2 * F @ F


def test_no_weights_help_a_direction_that_is_none():
    step, trouble, inner, _ = direction([np.full(7, np.nan)] * 8)
    assert step is None
    assert "descend" in trouble
    assert len(inner.asked) == 7


@pytest.mark.parametrize("inner", ["minres", "pcg"])
def test_inexact_inner_solvers_give_the_same_answer(inner):
    given = CURVED["HS100LNP"]
    res = solved(given, inner=inner)
    assert res.inner == inner
    assert res.ninner == res.history["inner_its"].sum() > 0
    assert res.fun == pytest.approx(given.best, rel=1e-8)


def test_tol_inner_is_the_accuracy_of_every_solve():
    res = solved(CURVED["BT11"], inner="minres", tol_inner=1e-3)
    assert (res.history["delta"] == 1e-3).all()
    assert (res.history["inner_residual"] <= 1.1e-3).all()


# ---------------------------------------------------------------- hand-over, books
def test_the_filter_takes_over_where_the_merit_leads_nowhere():
    given = two_spheres()
    res = solved(given)
    first, second = res.globalization_used.split(", ")
    assert first == "eal"
    assert second.startswith("filter from ")
    assert 0 <= int(second.removeprefix("filter from ")) <= res.nit
    assert res.fun == pytest.approx(given.best, rel=1e-8)
    for only in ("eal", "filter"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            alone = constrained.minimize(**given.keywords(), globalization=only)
        assert alone.globalization_used == only


def test_the_others_have_a_turn_each_where_none_makes_progress(monkeypatch):
    monkeypatch.setattr(eal, "_PATIENCE", 3)
    monkeypatch.setattr(eal, "_PATIENCE_OF_OTHERS", 1)
    # No residual falls fast enough for so little patience.
    monkeypatch.setattr(watch, "_FALL", 0.0)
    res = solved(CURVED["HS77"])
    assert res.globalization_used == "eal, filter from 3, eal from 4, trust region from 5"


def test_weights_beyond_their_limits_are_the_end():
    step, trouble, _, _ = direction([np.zeros(7)], eta=(1e-30, 1e-14))
    assert step is None
    assert "weights" in trouble


def test_the_history_is_the_run():
    given = CURVED["HS77"]
    seen = []
    res = solved(given, callback=lambda intermediate_result: seen.append(intermediate_result.x))
    h = res.history
    assert set(h) == {
        *("nit", "seconds", "kkt", "fun", "violation", "alpha"),
        *("inner_its", "inner_residual", "eta1", "eta2", "delta"),
    }
    assert len(h["nit"]) == res.nit == len(seen)
    assert (np.diff(h["seconds"]) > 0).all()
    assert h["fun"][-1] == pytest.approx(res.fun, rel=1e-12)
    np.testing.assert_allclose(h["fun"], [given.fun(x) for x in seen], rtol=1e-12)
    np.testing.assert_allclose(
        h["violation"], [abs(given.cons(x)).max() for x in seen], rtol=1e-9, atol=1e-14
    )
    assert res.eta == (h["eta1"][-1], h["eta2"][-1])
    assert (h["delta"] <= 0.1).all()


def test_eta_sets_the_first_weights():
    res = solved(CURVED["HS77"], eta=(20.0, 1e-6))
    assert res.history["eta1"][0] == 20.0
    assert res.history["eta2"][0] <= 1e-6


def test_a_solution_as_start_needs_no_step():
    first = solved(CURVED["BT11"])
    again = constrained.minimize(**{**CURVED["BT11"].keywords(), "x0": first})
    assert again.success
    assert again.nit == 0


def test_the_best_iterate_is_returned_on_failure():
    seen = []

    def note(intermediate_result):
        seen.append(intermediate_result.kkt)

    with pytest.warns(ConvergenceWarning, match="maxiter"):
        res = constrained.minimize(**CURVED["HS100LNP"].keywords(), maxiter=6, callback=note)
    assert res.status is Status.MAXITER
    # The certificate may find better multipliers than the iterate had.
    assert res.kkt <= min(seen) * (1 + 1e-9)
