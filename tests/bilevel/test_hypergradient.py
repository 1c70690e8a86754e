"""Hyper-gradients and bounds of psi against closed forms and differences."""

import numpy as np
import pytest

from solvers import bilevel
from tests.bilevel.oracles import Quadratic, Ridge, differences


@pytest.mark.parametrize("order", [1, 2, "central"])
def test_errors_stay_within_ten_times_their_estimate(order):
    rng = np.random.default_rng(5)
    for seed in range(25):
        d, p, kappa = rng.integers(1, 6), rng.integers(2, 12), 10 ** rng.uniform(0, 3)
        q = Quadratic(seed=seed, d=int(d), p=int(p), kappa=kappa)
        x = rng.standard_normal(d)
        # Two-sided differences exist only below the modulus of g.
        sigma = None if order != "central" else 0.02 / kappa
        h = bilevel.hypergradient(q.upper, q.lower, x, q.y0, order=order, sigma=sigma)
        value, grad = q.psi(x)
        assert np.linalg.norm(h.grad - grad) <= 10 * h.err
        assert h.err <= 1e-2 * max(1.0, np.linalg.norm(grad)) or kappa > 100
        slack = 1e-9 * max(1.0, abs(value))
        assert h.value_lower <= value + slack
        assert h.value >= value - slack


def test_errors_fall_like_sigma_and_its_square():
    q = Quadratic(seed=3, kappa=8.0)
    x = np.random.default_rng(1).standard_normal(4)
    grad = q.psi(x)[1]
    sigmas = [1e-2, 1e-3, 1e-4]
    for order, slope in ((1, 1), (2, 2), ("central", 2)):
        errors = [
            np.linalg.norm(
                bilevel.hypergradient(
                    q.upper, q.lower, x, q.y0, sigma=s, order=order, tol=1e-12
                ).grad
                - grad
            )
            for s in sigmas[: 3 if slope == 1 else 2]
        ]
        steps = len(errors) - 1
        assert np.log10(errors[0] / errors[-1]) / steps == pytest.approx(slope, abs=0.2)


def test_several_minimisers_give_the_gradient_of_the_best():
    q = Quadratic(seed=13, p=9, rank=6, kappa=8.0)
    x = np.random.default_rng(2).standard_normal(4)
    h = bilevel.hypergradient(q.upper, q.lower, x, q.y0)
    assert np.allclose(h.grad, q.psi(x)[1], atol=1e-5)
    assert np.allclose(h.y, q.best_response(x), atol=1e-5)


def test_scaling_the_lower_level_changes_nothing():
    r = Ridge(seed=2)
    x = np.linspace(-2, 0, len(r.x0))
    grads = []
    for a in (1e-4, 1.0, 1e4):
        h = bilevel.hypergradient(
            r.upper, lambda x, y, a=a: tuple(a * part for part in r.lower(x, y)), x, r.y0
        )
        grads.append(h.grad)
        assert np.linalg.norm(h.grad - r.psi(x)[1]) <= 10 * h.err
    assert np.allclose(grads[0], grads[1], atol=1e-6)
    assert np.allclose(grads[2], grads[1], atol=1e-6)


def test_it_is_the_slope_of_psi():
    r = Ridge(seed=4)
    x = np.linspace(-2, 0, len(r.x0))
    h = bilevel.hypergradient(r.upper, r.lower, x, r.y0)
    assert np.allclose(h.grad, differences(lambda v: r.psi(v)[0], x), atol=1e-6)


def test_single_precision_stays_single_and_knows_its_error():
    q = Quadratic(seed=2, kappa=4.0, dtype=np.float32)
    x = np.ones(4, np.float32)
    h = bilevel.hypergradient(q.upper, q.lower, x, q.y0)
    assert h.grad.dtype == np.float32
    assert h.y.dtype == np.float32
    error = np.linalg.norm(h.grad - q.psi(x.astype(float))[1])
    assert error <= 10 * h.err
    assert error <= 1e-2 * np.linalg.norm(h.grad)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"sigma": 0.0}, "sigma"),
        ({"order": 3}, "order"),
        ({"order": True}, "order"),
        ({"tol": -1.0}, "tol"),
        ({"method": "magic"}, "method"),
    ],
)
def test_wrong_options_are_named(options, name):
    q = Quadratic()
    with pytest.raises(ValueError, match=f"^`{name}`"):
        bilevel.hypergradient(q.upper, q.lower, q.x0, q.y0, **options)


def test_a_lower_level_without_end_is_an_error():
    def falling(x, y):
        return float(x @ y), y, x

    q = Quadratic(d=3, p=3)
    with pytest.raises(ValueError, match=r"^`lower` falls without end"):
        bilevel.hypergradient(q.upper, falling, np.ones(3), q.y0)
