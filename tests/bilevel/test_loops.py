"""The published loops of `penalty`: where they lead, at what cost, and what they admit."""

import numpy as np
import pytest

import solvers
from solvers import Status, bilevel
from tests.bilevel.oracles import Quadratic, Ridge

LOOPS = ["double-loop", "single-loop", "vpbgd"]
CERTIFYING = ["double-loop", "single-loop"]


@pytest.mark.parametrize("method", CERTIFYING)
@pytest.mark.parametrize("seed", range(2))
def test_planted_solutions_are_found_and_certified(method, seed):
    q = Quadratic(seed=seed, kappa=4.0)
    res = bilevel.penalty(q.upper, q.lower, q.x0, q.y0, method=method, tol=1e-3, maxiter=5000)
    assert res.success
    np.testing.assert_allclose(res.x, q.x, atol=1e-2)
    np.testing.assert_allclose(res.y, q.y, atol=1e-2)
    assert res.psi_lower <= q.psi(res.x)[0] + 1e-7 <= res.fun + 2e-7


@pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
@pytest.mark.parametrize("method", LOOPS)
def test_every_loop_descends_most_of_the_way(method):
    q = Quadratic(kappa=10.0)
    res = bilevel.penalty(q.upper, q.lower, q.x0, q.y0, method=method, maxiter=300, tol=1e-2)
    assert q.psi(res.x)[0] - q.value <= 0.1 * (q.psi(q.x0)[0] - q.value)


@pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
@pytest.mark.parametrize("method", CERTIFYING)
def test_both_levels_may_be_boxes(method):
    # y(x) = clip(x + 2, -1, 1): free in the first entry, at its bound in the second.
    t = np.array([-0.5, 3.0])

    def lower(x, y):
        return (0.5 * (y - x - 2) @ (y - x - 2), x + 2 - y, y - x - 2)

    def upper(x, y):
        return (0.5 * (y - t) @ (y - t) + 0.05 * x @ x, 0.1 * x, y - t)

    res = bilevel.penalty(
        upper, lower, np.array([-2.0, 0.5]), np.zeros(2), method=method,
        X=bilevel.box(-4.0, 4.0), Y=bilevel.box(-1.0, 1.0), sigma=1e-4, tol=1e-3,
        maxiter=5000,
    )  # fmt: skip
    np.testing.assert_allclose(res.x, [-2.5 / 1.1, 0.0], atol=5e-3)
    np.testing.assert_allclose(res.y, [2 - 2.5 / 1.1, 1.0], atol=5e-3)


def test_one_step_of_each_level_costs_less_than_lower_solves():
    q = Quadratic(kappa=4.0)
    cost = {}
    for method in CERTIFYING:
        res = bilevel.penalty(q.upper, q.lower, q.x0, q.y0, method=method, tol=1e-3, maxiter=9999)
        assert res.success
        cost[method] = res.counts["n_gy"]
    assert cost["single-loop"] < cost["double-loop"]


@pytest.mark.parametrize("method", LOOPS)
def test_a_limit_of_iterations_is_kept_and_admitted(method):
    q = Quadratic(kappa=10.0)
    with pytest.warns(solvers.ConvergenceWarning, match="maxiter = 7"):
        res = bilevel.penalty(q.upper, q.lower, q.x0, q.y0, method=method, maxiter=7)
    assert res.status is Status.MAXITER
    assert res.nit == 7
    assert len(res.history["sigma"]) == 7


@pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
@pytest.mark.parametrize("method", LOOPS)
def test_a_given_penalty_is_the_only_one(method):
    r = Ridge(seed=1)
    res = bilevel.penalty(
        r.upper, r.lower, r.x0, r.y0, X=bilevel.box(-5.0, 2.0), method=method, sigma=0.02,
        maxiter=300,
    )  # fmt: skip
    assert set(res.history["sigma"]) == {0.02}
    assert r.psi(res.x)[0] < r.psi(r.x0)[0]


@pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
@pytest.mark.parametrize("method", LOOPS)
def test_scaling_the_lower_level_changes_nothing(method):
    q = Quadratic(seed=2, kappa=4.0)
    answers = []
    for a in (1.0, 2.0**-12, 2.0**12):

        def lower(x, y, a=a):
            return tuple(a * part for part in q.lower(x, y))

        res = bilevel.penalty(q.upper, lower, q.x0, q.y0, method=method, maxiter=15, tol=1e-2)
        answers.append(res.x)
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(answers[2], answers[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", LOOPS)
def test_a_callback_ends_them_without_a_warning(method):
    q = Quadratic()
    seen = []

    def stop(intermediate_result):
        seen.append(intermediate_result.x)
        return len(seen) == 3

    res = bilevel.penalty(q.upper, q.lower, q.x0, q.y0, method=method, callback=stop)
    assert res.status is Status.CALLBACK
    assert len(seen) == 3


@pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
@pytest.mark.parametrize("method", LOOPS)
def test_a_run_goes_on_bit_for_bit(method):
    q = Quadratic(kappa=4.0)
    options = {"method": method, "tol": 1e-2}
    whole = bilevel.penalty(q.upper, q.lower, q.x0, q.y0, maxiter=30, **options)
    part = bilevel.penalty(q.upper, q.lower, q.x0, q.y0, maxiter=11, **options)
    again = bilevel.penalty(q.upper, q.lower, q.x0, q.y0, maxiter=30, resume=part.state, **options)
    assert part.nit < again.nit == whole.nit
    assert np.array_equal(again.x, whole.x)
    assert np.array_equal(again.y, whole.y)


def test_levels_without_a_solution_are_named(recwarn):
    lower = bilevel.Oracle(value_and_grads=lambda x, y: (float(y.sum()), 0, np.ones(2)))
    q = Quadratic(d=2, p=2)
    res = bilevel.penalty(q.upper, lower, q.x0, q.y0, method="single-loop", sigma=0.1)
    assert res.status is Status.UNBOUNDED
    assert np.isfinite(res.x).all()
