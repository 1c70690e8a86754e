import numpy as np
import pytest
import scipy.optimize
import scipy.special

from solvers import relu
from solvers.relu._softmax import Softmax
from tests.relu import conic


def loss_of(rng, c=4, n=30):
    # Classes, and probabilities of classes.
    y = np.c_[np.eye(c)[:, rng.integers(0, c, n // 2)], rng.dirichlet(np.ones(c), n - n // 2).T]
    return Softmax(y, np)


def test_values_and_slopes_are_those_of_the_cross_entropy(rng):
    loss, p = loss_of(rng), 5 * rng.standard_normal((4, 30))
    log_chances = scipy.special.log_softmax(p, axis=0)
    assert loss.value(p) == pytest.approx(-(loss.y * log_chances).sum(), rel=1e-12)
    np.testing.assert_allclose(loss.slope(p), np.exp(log_chances) - loss.y, atol=1e-14)


@pytest.mark.parametrize("rho", [1e-6, 1e-2, 1.0, 1e3])
def test_proximal_points_are_stationary_and_their_derivative_is_one(rng, rho):
    loss, q = loss_of(rng), 5 * rng.standard_normal((4, 30)) * max(1.0, rho**-0.5)
    p = loss.prox(q, rho)
    # Numbers of size 1 / rho, of which rounding takes its share.
    atol = 1e-12 * max(1.0, rho) + 1e-16 / rho
    np.testing.assert_allclose(loss.slope(p) + rho * (p - q), 0, atol=atol)
    x, h = rng.standard_normal((4, 30)), 1e-4
    slope = (loss.prox(q + h * x, rho) - loss.prox(q - h * x, rho)) / (2 * h)
    derivative = loss.prox_derivative(p, rho)
    np.testing.assert_allclose(derivative(x), slope, atol=1e-5)
    unit = np.zeros((4, 30))
    unit[1] = 1.0
    np.testing.assert_allclose(derivative(unit)[1], derivative.diagonal[1], rtol=1e-10)


def test_the_dual_is_a_lower_bound_that_slopes_attain(rng):
    loss, p = loss_of(rng), rng.standard_normal((4, 30))
    z = -loss.slope(p)
    assert loss.dual(z) == pytest.approx(loss.value(p) + (z * p).sum(), rel=1e-12)
    other = loss.clip(z + 0.3 * rng.standard_normal((4, 30)))
    assert (loss.y - other).min() >= 0
    np.testing.assert_allclose(other.sum(axis=0), 0, atol=1e-12)
    assert loss.dual(other) <= loss.value(p) + (other * p).sum()


def test_the_best_multiple_is_that_of_a_scalar_search(rng):
    loss = loss_of(rng)
    z = loss.clip(rng.standard_normal((4, 30)))
    for largest in (0.1, 1.0, np.inf):
        high = min(largest, loss.reach(z))
        found = scipy.optimize.minimize_scalar(
            lambda k: -loss.dual(k * z),
            bounds=(0, high),
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert loss.dual(loss.best(z, largest) * z) >= -found.fun - 1e-9


@pytest.mark.parametrize("norm", [None, "frobenius", "nuclear"])
def test_gated_networks_of_three_classes_reach_the_optimum(rng, norm):
    X, Y = rng.standard_normal((24, 3)), np.eye(3)[rng.integers(0, 3, 24)]
    gates = relu.sample_gates(X, 5, rng=0)
    options = {} if norm is None else {"multi_output": "joint", "norm": norm}
    res = relu.gated(X, Y, beta=0.4, loss="softmax", gates=gates, tol=1e-7, **options)
    assert res.success
    optimum = conic.gated_optimum(X, Y, gates.D, 0.4, "softmax", norm)
    assert res.fun_convex == pytest.approx(optimum, rel=1e-6)
    assert res.dual <= optimum * (1 + 1e-7)
    by_hand = -(Y * scipy.special.log_softmax(res.net.predict(X), axis=1)).sum()
    by_hand += 0.2 * (np.square(res.net.hidden).sum() + np.square(res.net.out).sum())
    assert res.fun == pytest.approx(by_hand, rel=1e-9)
    assert relu.network_objective(X, Y, res.net, 0.4, "softmax") == pytest.approx(by_hand)


def test_random_neurons_and_single_precision_know_it_too(rng):
    X, Y = rng.standard_normal((24, 3)), np.eye(3)[rng.integers(0, 3, 24)]
    res = relu.sampled_convex(X, Y, beta=0.3, loss="softmax", n_neurons=50, rng=0)
    assert res.success
    X, Y = X.astype(np.float32), Y.astype(np.float32)
    single = relu.sampled_convex(X, Y, beta=0.3, loss="softmax", n_neurons=50, tol=1e-3, rng=0)
    assert single.success
    assert single.fun == pytest.approx(res.fun, rel=2e-3)
    assert single.alpha.dtype == np.float32


def test_a_path_begins_where_all_classes_are_alike(rng):
    X, Y = rng.standard_normal((24, 3)), np.eye(3)[rng.integers(0, 3, 24)]
    first, second = relu.path(
        X, Y, betas=2, method="gated", loss="softmax", multi_output="joint", n_gates=5, rng=0
    )
    assert not first.U.any()
    assert first.fun_convex == pytest.approx(24 * np.log(3))
    assert second.fun_convex < first.fun_convex


@pytest.mark.parametrize(
    "y", [np.ones(4), np.ones((4, 1)), np.full((4, 2), 0.4), np.array([[2.0, -1.0]] * 4)]
)
def test_targets_that_are_no_probabilities_are_refused(y):
    with pytest.raises(ValueError, match=r"^`y` .* probabilities of classes"):
        relu.gated(np.eye(4), y, beta=0.1, loss="softmax", n_gates=2, rng=0)


def test_methods_with_cones_have_no_such_loss():
    with pytest.raises(ValueError, match="`loss`"):
        relu.admm(np.eye(4), np.eye(4), beta=0.1, loss="softmax")
