"""`unroll`: its gradient against that of the steps themselves, and against the hyper-gradient."""

from types import SimpleNamespace

import numpy as np
import pytest

import solvers
from solvers import Status, bilevel
from solvers.bilevel._problem import pose
from solvers.bilevel._unroll import Own, Unrolled
from tests.bilevel.oracles import Quadratic, Ridge, differences


def unrolled(r, *, steps=7, lr=0.3, mode="reverse", window=None, lower=None):
    """Return the engine's view of a problem, before any step in x."""
    problem = pose(r.upper, r.lower if lower is None else lower, r.x0, r.y0 + 0.1)
    own = Own(steps, lr, mode, window or steps)
    options = SimpleNamespace(own=own, tol_inner=None, maxiter_inner=1000)
    return Unrolled(problem, options, late=lambda: False)


def walked(r, x, steps, lr=0.3):
    """Return where plain gradient steps end."""
    y = r.y0 + 0.1
    for _ in range(steps):
        y = y - lr * r.lower(x, y)[2]
    return y


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("products", [True, False])
def test_the_gradient_is_that_of_the_steps(mode, products):
    r = Ridge(seed=2)
    x = np.random.default_rng(0).uniform(-2.0, 0.0, r.p)
    values = unrolled(r, mode=mode, lower=r.oracle() if products else None)
    exact = differences(lambda v: r.upper(v, walked(r, v, 7))[0], x)
    np.testing.assert_allclose(values.at(x).grad, exact, atol=1e-8)
    np.testing.assert_allclose(values.last.y, walked(r, x, 7), atol=1e-14)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_a_window_of_one_sees_the_last_step_alone(mode):
    r = Ridge(seed=4)
    x = np.random.default_rng(1).uniform(-2.0, 0.0, r.p)
    values = unrolled(r, mode=mode, window=1)
    before, y = walked(r, x, 6), walked(r, x, 7)
    # g_xy = diag(exp(x) y).
    exact = -0.3 * np.exp(x) * before * r.upper(x, y)[2]
    np.testing.assert_allclose(values.at(x).grad, exact, atol=1e-9)


def test_more_steps_come_geometrically_closer_to_the_hyper_gradient():
    r = Ridge(seed=6)
    eigenvalues = np.linalg.eigvalsh(r.hessian(r.x0))
    lr = 1.0 / eigenvalues.max()
    off = [
        np.linalg.norm(unrolled(r, steps=T, lr=lr).at(r.x0).grad - r.psi(r.x0)[1])
        for T in (20, 40, 80)
    ]
    rate = (1 - lr * eigenvalues.min()) ** 20
    assert off[1] <= 3 * rate * off[0]
    assert off[2] <= 3 * rate**2 * off[1]


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_enough_steps_reach_the_certificate(mode):
    q = Quadratic(kappa=4.0)
    res = bilevel.unroll(q.upper, q.oracle(), q.x0, q.y0, steps=80, mode=mode)
    assert res.success
    np.testing.assert_allclose(res.x, q.x, atol=1e-5)
    np.testing.assert_allclose(res.y, q.y, atol=1e-5)
    assert np.linalg.norm(res.jac - q.psi(res.x)[1]) <= res.jac_err + 1e-9


def test_on_a_box_it_agrees_with_the_closed_form():
    r = Ridge(seed=7)
    res = bilevel.unroll(
        r.upper, r.oracle(), r.x0, r.y0, X=bilevel.box(-5.0, 2.0), steps=150, tol=1e-5
    )
    assert res.success
    assert res.fun == pytest.approx(r.best(-5.0, 2.0).fun, rel=1e-6)


@pytest.mark.parametrize("options", [{"steps": 3}, {"window": 2}, {"lr": 0.01}])
def test_too_few_steps_are_admitted(options):
    q = Quadratic(kappa=30.0)
    with pytest.warns(solvers.ConvergenceWarning):
        res = bilevel.unroll(q.upper, q.oracle(), q.x0, q.y0, maxiter=20, **options)
    assert res.status in (Status.STALLED, Status.MAXITER)
    assert not res.success
    # The lower level is solved all the same.
    np.testing.assert_allclose(res.y, q.best_response(res.x), atol=1e-3)
    assert res.jac_err > res.certificate.tol


def test_steps_that_are_too_long_end_the_run_where_it_began():
    q = Quadratic()
    with pytest.warns(solvers.ConvergenceWarning, match="`lr`"):
        res = bilevel.unroll(q.upper, q.oracle(), q.x0, q.y0, lr=1e6)
    assert res.status is Status.NUMERICAL
    assert np.isfinite(res.x).all()
    assert np.isfinite(res.y).all()


def test_the_window_and_the_modes_cost_what_they_say():
    r = Ridge(seed=8)
    backward, shorter = unrolled(r, steps=20), unrolled(r, steps=20, window=5)
    forward = unrolled(r, steps=20, mode="forward")
    calls = []
    for values in (backward, shorter, forward):
        before = values.problem.counts["n_g"]
        values.at(r.x0 + 0.1)
        calls.append(values.problem.counts["n_g"] - before)
    # A difference is two gradients: for every step back, for every entry of x and step forward.
    assert calls == [20 + 2 * 20 + 1, 20 + 2 * 5 + 1, 20 + 2 * 20 * r.p + 1]


@pytest.mark.parametrize(
    ("error", "name", "options"),
    [
        (ValueError, "steps", {"steps": 0}),
        (TypeError, "steps", {"steps": 2.5}),
        (ValueError, "lr", {"lr": 0.0}),
        (TypeError, "lr", {"lr": "long"}),
        (ValueError, "mode", {"mode": "sideways"}),
        (ValueError, "window", {"window": 0}),
        (TypeError, "window", {"window": "all"}),
    ],
)
def test_bad_options_are_named(error, name, options):
    q = Quadratic()
    with pytest.raises(error, match=f"^`{name}`"):
        bilevel.unroll(q.upper, q.lower, q.x0, q.y0, **options)


@pytest.mark.parametrize(("mode", "advice"), [("reverse", "`window`"), ("forward", "reverse")])
def test_steps_that_would_not_fit_into_memory_are_refused(mode, advice):
    lower = bilevel.Oracle(value_and_grads=lambda x, y: (0.5 * y @ y, 0, y))
    n = 10 if mode == "reverse" else 10**7
    with pytest.raises(MemoryError, match=advice):
        bilevel.unroll(lower, lower, np.zeros(n), np.zeros(10**6), steps=10**8, mode=mode)


def test_single_precision_stays_single():
    q = Quadratic(kappa=4.0, dtype=np.float32)
    res = bilevel.unroll(q.upper, q.oracle(), q.x0, q.y0, steps=60)
    assert res.success
    assert res.x.dtype == res.jac.dtype == np.float32
    np.testing.assert_allclose(res.x, q.x, atol=2e-2)


def test_a_run_goes_on_bit_for_bit():
    r = Ridge(seed=9)
    options = {"X": bilevel.box(-5.0, 2.0), "steps": 200, "tol": 1e-5}
    whole = bilevel.unroll(r.upper, r.oracle(), r.x0, r.y0, **options)
    part = bilevel.unroll(
        r.upper, r.oracle(), r.x0, r.y0, callback=lambda state: state.nit == 4, **options
    )
    again = bilevel.unroll(r.upper, r.oracle(), r.x0, r.y0, resume=part.state, **options)
    assert part.nit < again.nit == whole.nit
    assert np.array_equal(again.x, whole.x)
