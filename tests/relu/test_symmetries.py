"""Laws that hold for every method of the family: what changes of the data do to the optimum."""

import warnings

import numpy as np
import pytest

import solvers
from solvers import relu

BETA, TOL = 0.4, 1e-5
METHODS = ("admm", "interior_point", "gated")
LAWS_OF_MARGINS = ("logistic", "hinge", "squared_hinge")


def problem(loss="squared", n=24, d=3, P=6):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, 3)), 0) @ [1.0, -1.0, 0.5]
    y = np.where(y > np.median(y), 1.0, -1.0) if loss in LAWS_OF_MARGINS else y
    return X, y, relu.sample_gates(X, P, rng=0).D


def solve(method, X, y, D, beta=BETA, **options):
    options = {"tol": TOL, "maxiter": 20000, **options}
    if method == "interior_point":
        options["maxiter"] = 200
    with warnings.catch_warnings():
        # A bound is a bound, however far a run came.
        warnings.simplefilter("ignore", solvers.ConvergenceWarning)
        return getattr(relu, method)(X, y, beta=beta, gates=D, **options)


def bounds(res, scale=1.0):
    return res.dual / scale, res.fun_convex / scale


def assert_same_optimum(one, other, scale=1.0):
    """Two brackets of one optimum overlap, and they are narrow."""
    (low, high), (other_low, other_high) = bounds(one), bounds(other, scale)
    assert low <= other_high * (1 + 1e-9)
    assert other_low <= high * (1 + 1e-9)
    assert other_high == pytest.approx(high, rel=5 * TOL)


@pytest.fixture(scope="module", params=METHODS)
def solved(request):
    X, y, D = problem()
    return request.param, X, y, D, solve(request.param, X, y, D)


def test_the_order_of_samples_and_gates_does_not_matter(solved):
    method, X, y, D, res = solved
    rows, columns = np.random.default_rng(0).permutation(24), np.arange(6)[::-1]
    other = solve(method, X[rows], y[rows], D[np.ix_(rows, columns)])
    assert_same_optimum(res, other)


def test_targets_of_the_other_sign_swap_what_adds_and_what_subtracts(solved):
    method, X, y, D, res = solved
    other = solve(method, X, -y, D)
    assert_same_optimum(res, other)
    np.testing.assert_allclose(other.net.predict(X), -res.net.predict(X), atol=2e-2)
    np.testing.assert_allclose(
        np.linalg.norm(other.V, axis=0), np.linalg.norm(res.W, axis=0), atol=2e-2
    )


def test_a_rotation_of_the_features_rotates_the_weights(solved):
    method, X, y, D, res = solved
    Q = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    other = solve(method, X @ Q, y, D)
    assert_same_optimum(res, other)
    np.testing.assert_allclose(Q @ other.V, res.V, atol=2e-2)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scaled_data_and_penalty_scale_the_weights_alone(solved, scale):
    method, X, y, D, res = solved
    other = solve(method, scale * X, y, D, beta=scale * BETA)
    assert_same_optimum(res, other)
    np.testing.assert_allclose(scale * other.V, res.V, atol=2e-2)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scaled_targets_and_penalty_scale_the_objective_by_squares(solved, scale):
    method, X, y, D, res = solved
    assert_same_optimum(res, solve(method, X, scale * y, D, beta=scale * BETA), scale**2)


def test_every_sample_twice_and_a_double_penalty_give_the_same_network(solved):
    method, X, y, D, res = solved
    other = solve(method, np.r_[X, X], np.r_[y, y], np.r_[D, D], beta=2 * BETA)
    assert_same_optimum(res, other, 2.0)
    np.testing.assert_allclose(other.net.predict(X), res.net.predict(X), atol=2e-2)


def test_a_feature_of_zeros_gets_no_weight(solved):
    method, X, y, D, res = solved
    other = solve(method, np.c_[X, np.zeros(24)], y, D)
    assert_same_optimum(res, other)
    np.testing.assert_allclose(other.V[3], 0, atol=1e-9)


def test_more_gates_never_raise_and_more_penalty_never_lowers_the_optimum(solved):
    method, X, y, D, res = solved
    assert solve(method, X, y, D[:, :3]).fun_convex >= res.dual * (1 - 1e-9)
    assert solve(method, X, y, D, beta=2 * BETA).fun_convex >= res.dual * (1 - 1e-9)


def test_a_gate_twice_changes_nothing(solved):
    method, X, y, D, res = solved
    assert_same_optimum(res, solve(method, X, y, np.c_[D, D[:, :2]]))


def test_a_sample_of_zeros_adds_its_loss_alone(solved):
    method, X, y, D, res = solved
    other = solve(method, np.r_[X, np.zeros((1, 3))], np.r_[y, 3.0], np.r_[D, D[:1]])
    low, high = bounds(other)
    assert low - 4.5 <= res.fun_convex * (1 + 1e-9)
    assert high - 4.5 == pytest.approx(res.fun_convex, rel=20 * TOL)


@pytest.mark.parametrize("loss", LAWS_OF_MARGINS)
def test_labels_of_the_other_sign_give_the_other_network(loss):
    X, y, D = problem(loss)
    for method, tol in (("admm", 1e-3), ("gated", 1e-6)):
        one, other = (solve(method, X, s * y, D, loss=loss, tol=tol) for s in (1, -1))
        assert one.fun_convex == pytest.approx(other.fun_convex, rel=2 * tol)


def test_every_method_agrees_about_the_programme_and_its_relaxation():
    X, y, D = problem()
    admm, interior, gated = (solve(method, X, y, D) for method in METHODS)
    assert_same_optimum(admm, interior)
    assert gated.dual <= admm.fun_convex
    assert gated.fun_relu >= admm.dual * (1 - 1e-9)
    # What the judge says of the relaxation's parts is what the relaxation says of them.
    cert = relu.certify(X, y, beta=BETA, loss="squared", V=gated.V, W=gated.W, gates=D)
    assert cert.details["fun_convex"] == pytest.approx(gated.fun_relu, rel=1e-7)
    assert cert.details["dual"] <= admm.fun_convex * (1 + 1e-9)


def test_random_neurons_bound_no_less_than_gates_of_the_same_patterns():
    X, y, _ = problem()
    lasso = relu.sampled_convex(X, y, beta=BETA, n_neurons=40, rng=0)
    D = np.unique(lasso.gates.D[:, lasso.gates.D.any(axis=0)], axis=1)
    # Each neuron is a feasible block of the gate that has its pattern.
    assert solve("admm", X, y, D, tol=1e-3).dual <= lasso.fun * (1 + 1e-9)


def test_orthogonal_random_neurons_rotate_with_the_features():
    X, y, _ = problem()
    Q = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    one = relu.sampled_convex(X, y, beta=BETA, n_neurons=40, rng=0)
    H = np.maximum((X @ Q) @ (Q.T @ one.gates.vectors), 0)
    value = 0.5 * np.sum((H @ one.alpha - y) ** 2) + BETA * abs(one.alpha).sum()
    assert value == pytest.approx(one.fun, rel=1e-9)
