"""Normalised momentum with periodic lower steps: closed forms, growth, contracts."""

import warnings

import numpy as np
import pytest

import solvers
from solvers import bilevel


class Cosh:
    """f = sum cosh(3 (y - t)), g_i = (y - B x - c_i)' A (y - B x - c_i) / 2, a mean over i."""

    def __init__(self, d=3, p=4, n=12, noise=0.5, seed=0):
        rng = np.random.default_rng(seed)
        q = np.linalg.qr(rng.standard_normal((p, p)))[0]
        self.A = (q * np.linspace(0.5, 1.5, p)) @ q.T
        self.B = rng.standard_normal((p, d))
        self.c = noise * rng.standard_normal((n, p))
        self.mean, self.n, self.d, self.p = self.c.mean(0), n, d, p
        self.x = np.array([2.0, -1.5, 1.0])
        # Attained at x, so that the least value is p.
        self.t = self.B @ self.x + self.mean
        self.x0, self.y0 = np.zeros(d), np.zeros(p)
        self.calls = 0

    def upper_of(self, x, y, idx=None):
        e = 3 * (y - self.t)
        return np.cosh(e).sum(), None, 3 * np.sinh(e)

    def lower_of(self, x, y, idx=None):
        self.calls += 1
        r = y - self.B @ x - (self.mean if idx is None else self.c[idx].mean(0))
        return 0.5 * r @ self.A @ r, -self.B.T @ self.A @ r, self.A @ r

    def levels(self, sampled=False, **changes):
        lower = {
            "value_and_grads": self.lower_of,
            "hvp_yy": lambda x, y, v, *idx: self.A @ v,
            "hvp_xy": lambda x, y, v, *idx: -self.B.T @ (self.A @ v),
            "n_samples": self.n if sampled else None,
            **changes,
        }
        upper = bilevel.Oracle(
            value_and_grads=self.upper_of, n_samples=self.n if sampled else None
        )
        return upper, bilevel.Oracle(**lower)

    def solve(self, levels=None, **options):
        given = {"lr_upper": 0.02, "maxiter": 600, "rng": 0, **options}
        levels = levels or self.levels()
        return quiet(bilevel.borep, *levels, self.x0, self.y0, **given)


def quiet(call, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solvers.ConvergenceWarning)
        return call(*args, **options)


both_orders = pytest.mark.parametrize("first_order", [True, False])


@both_orders
def test_exponential_growth_is_no_obstacle(first_order):
    problem = Cosh()
    start = np.cosh(3 * (problem.mean - problem.t)).sum()
    assert start > 1e3
    res = problem.solve(first_order=first_order)
    assert res.fun - problem.p <= 1e-3 * (start - problem.p)
    np.testing.assert_allclose(res.x, problem.x, atol=0.02)
    np.testing.assert_allclose(res.y, problem.B @ res.x + problem.mean, atol=1e-3)


@both_orders
def test_batches_come_close(first_order):
    problem = Cosh()
    res = problem.solve(problem.levels(True), first_order=first_order, batch=6, maxiter=1500)
    np.testing.assert_allclose(res.x, problem.x, atol=0.15)


def test_a_batch_of_all_samples_is_the_whole():
    problem = Cosh()
    options = {"maxiter": 30, "lr": 0.5, "sigma": 0.01, "init_steps": 0}
    res = problem.solve(problem.levels(True), batch=problem.n, **options)
    np.testing.assert_allclose(res.x, problem.solve(**options).x, rtol=1e-9)


def test_steps_have_the_length_that_they_are_given():
    problem, seen = Cosh(), []
    problem.solve(maxiter=10, lr_upper=0.5, callback=lambda r: seen.append(r.x.copy()))
    lengths = np.linalg.norm(np.diff([problem.x0, *seen], axis=0), axis=1)
    np.testing.assert_allclose(lengths, 0.25 * (1 + np.cos(np.pi * np.arange(10) / 10)))


def test_a_ball_bounds_what_a_round_of_lower_steps_does():
    problem, states = Cosh(), []
    problem.solve(maxiter=3, period=1, radius=1e-3, checkpoint=states.append, checkpoint_every=0)
    ends = [problem.y0, *(state.data["s"]["z"] for state in states[:3])]
    moved = np.linalg.norm(np.diff(ends, axis=0), axis=1)
    # At the start there are four balls, each with half the radius and around the end of the last.
    np.testing.assert_allclose(moved[0], 1e-3 * (1 + 1 / 2 + 1 / 4 + 1 / 8), rtol=1e-2)
    np.testing.assert_allclose(moved[1:], 1e-3, rtol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"period": 3}, {"inner_steps": 2}, {"init_steps": 3}, {"radius": 0.01}, {"beta": 0.1},
        {"sigma": 0.5}, {"lr": 0.05}, {"lr_upper": 0.1}, {"first_order": False}, {"maxiter": 9},
        {"X": bilevel.box(-0.01, 0.01)},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_every_option_has_an_effect(change):
    problem = Cosh()
    plain, other = (problem.solve(**{"maxiter": 8, **c}) for c in ({}, change))
    assert (plain.x != other.x).any()


@pytest.mark.parametrize("change", [{"batch": 3}, {"rng": 1}], ids=["batch", "rng"])
def test_options_of_batches_have_an_effect(change):
    problem = Cosh()
    plain, other = (
        problem.solve(problem.levels(True), **{"maxiter": 8, "batch": 4, **c})
        for c in ({}, change)
    )
    assert (plain.x != other.x).any()


def test_the_length_of_tracking_steps_has_an_effect():
    problem = Cosh()
    runs = [problem.solve(first_order=False, maxiter=8, nu=nu) for nu in (None, 0.01)]
    assert (runs[0].x != runs[1].x).any()


@both_orders
def test_a_run_goes_on_bit_for_bit(first_order):
    problem, states = Cosh(), []
    options = {"maxiter": 20, "first_order": first_order, "batch": 4}
    res = problem.solve(
        problem.levels(True), checkpoint=states.append, checkpoint_every=0, **options
    )
    again = problem.solve(problem.levels(True), resume=states[8], **{**options, "rng": 3})
    np.testing.assert_array_equal(again.x, res.x)
    assert again.nit == res.nit == 20


def test_the_result_tells_what_happened():
    problem = Cosh()
    res = problem.solve(maxiter=12, history=3)
    assert res.method == "borep"
    assert res.status == solvers.Status.MAXITER
    assert res.nit == 12
    np.testing.assert_array_equal(res.history["nit"], [1, 4, 7, 10, 12])
    assert res.sigma > 0
    assert "Unbounded Smoothness" in res.cite()


def test_a_callback_ends_the_run():
    problem = Cosh()
    res = problem.solve(callback=lambda r: r.nit == 5)
    assert res.status == solvers.Status.CALLBACK
    assert res.nit == 5


def test_steps_that_are_too_long_end_with_a_finite_answer():
    problem = Cosh()
    res = problem.solve(lr=1e3)
    assert res.status == solvers.Status.NUMERICAL
    assert np.isfinite(res.x).all()
    assert np.isfinite(res.y).all()


def test_nested_variables_and_single_precision_stay_as_they_are():
    problem = Cosh()

    def upper(x, y):
        value, _, gy = problem.upper_of(None, y["v"])
        return value, None, {"v": gy}

    def lower(x, y):
        value, gx, gy = problem.lower_of(np.concatenate(x), y["v"])
        return value, [gx[:1], gx[1:]], {"v": gy}

    start = [np.zeros(1, np.float32), np.zeros(2, np.float32)], {"v": np.zeros(4, np.float32)}
    res = quiet(bilevel.borep, upper, lower, *start, lr_upper=0.02, maxiter=50)
    assert [part.dtype for part in res.x] == [np.float32] * 2
    flat = problem.solve(maxiter=50)
    np.testing.assert_allclose(np.concatenate(res.x), flat.x, atol=2e-3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"period": 0}, ValueError, "`period` came as 0"),
        ({"inner_steps": 1.5}, TypeError, "`inner_steps` came as float"),
        ({"init_steps": -1}, ValueError, "`init_steps` came as -1"),
        ({"radius": 0.0}, ValueError, "`radius` came as 0.0"),
        ({"beta": 1.0}, ValueError, "`beta` came as 1.0"),
        ({"sigma": 0.0}, ValueError, "`sigma` came as 0.0"),
        ({"lr": -1.0}, ValueError, "`lr` came as -1.0"),
        ({"lr_upper": None}, TypeError, "`lr_upper` came as NoneType"),
        ({"nu": "fast"}, TypeError, "`nu` came as str"),
        ({"first_order": 1}, TypeError, "`first_order` came as int"),
        ({"maxiter": -1}, ValueError, "`maxiter` came as -1"),
        ({"batch": 0}, ValueError, "`batch` came as 0"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    with pytest.raises(error, match=f"^{message}"):
        Cosh().solve(**change)


def test_wrong_levels_are_named():
    problem = Cosh()
    with pytest.raises(
        TypeError, match=r"^`first_order`=False needs lower.hvp_yy and lower.hvp_xy"
    ):
        problem.solve(problem.levels(hvp_xy=None), first_order=False)
    with pytest.raises(ValueError, match=r"^`batch` came as 13; expected at most the 12 samples"):
        problem.solve(problem.levels(True), batch=13)
