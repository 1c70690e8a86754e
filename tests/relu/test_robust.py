"""Robust training: certified against conic programmes, and attacks that never beat it."""

import cvxpy as cp
import numpy as np
import pytest

from solvers import ConvergenceWarning, Status, relu
from solvers._core.backend import get_backend
from solvers.relu._robust import draw_robust

LOSSES = ("hinge", "logistic", "squared")


def quadrants(n=16, seed=3):
    """Samples in the plane with a column of ones, labels that no plane parts, and gates."""
    rng = np.random.default_rng(seed)
    X = np.c_[rng.uniform(-1.5, 1.5, (n, 2)), np.ones(n)]
    y = np.where(X[:, 0] * X[:, 1] > 0, 1.0, -1.0)
    D = np.unique(X @ rng.standard_normal((3, 24)) >= 0, axis=1)
    return X, y, D[:, D.any(axis=0)]


def conic(X, y, D, beta, loss, eps, scale=1.0):
    """Return the optimum of the robust programme by Clarabel."""
    (n, d), P = X.shape, D.shape[1]
    V, W = cp.Variable((d, P)), cp.Variable((d, P))
    constraints, E = [], 2.0 * D - 1.0
    for U in (V, W):
        far = cp.reshape(eps @ cp.abs(U), (1, P), order="F")
        constraints.append(cp.multiply(E, X @ U) >= np.ones((n, 1)) @ far)
    Q = D.astype(float) @ (V - W).T
    p, q = cp.sum(cp.multiply(X, Q), axis=1), cp.abs(Q) @ eps
    if loss == "squared":
        value = 0.5 * cp.sum(cp.square(cp.abs(p - y) + q))
    else:
        margin = cp.multiply(y, p) - q
        shape = cp.pos(1 - margin) if loss == "hinge" else cp.logistic(-scale * margin)
        value = cp.sum(shape)
    norms = sum(cp.sum(cp.norm(U, axis=0)) for U in (V, W))
    return cp.Problem(cp.Minimize(value + beta * norms), constraints).solve(solver="CLARABEL")


@pytest.mark.parametrize("loss", LOSSES)
def test_the_optimum_lies_between_the_bounds(loss):
    X, y, D = quadrants()
    eps = np.array([0.04, 0.08, 0.0])
    options = {"beta": 0.2, "loss": loss, "robust_eps": eps, "logit_scale": 2.0}
    res = relu.admm(X, y, gates=D, tol=1e-4, maxiter=20000, rng=0, **options)
    optimum = conic(X, y, D, 0.2, loss, eps, scale=2.0)
    assert res.success
    assert res.dual <= optimum * (1 + 1e-6)
    assert res.fun_convex >= optimum * (1 - 1e-6)
    assert res.robust_fun == res.fun_convex
    assert res.fun <= res.robust_fun * (1 + 1e-12)
    again = relu.certify(X, y, V=res.V, W=res.W, gates=D, tol=1e-4, **options)
    assert again.details["cone_violation"] <= 1e-9
    assert again.details["fun_convex"] == pytest.approx(res.fun_convex, rel=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_attack_beats_the_certified_loss(loss):
    X, y, D = quadrants(20, seed=5)
    eps = np.array([0.06, 0.06, 0.0])
    res = relu.admm(X, y, beta=0.1, loss=loss, gates=D, robust_eps=eps, tol=1e-3, rng=0)
    norms = np.linalg.norm(res.V, axis=0).sum() + np.linalg.norm(res.W, axis=0).sum()
    attack = relu.attack_pgd(res.net, X, y, eps, loss=loss, steps=100, restarts=20, rng=0)
    assert (abs(attack.X_adv - X) <= eps * (1 + 1e-12)).all()
    assert attack.loss.sum() + 0.1 * norms <= res.robust_fun * (1 + 1e-9)
    # The bound is attained: the box's corners are where samples go.
    assert attack.loss.sum() + 0.1 * norms >= res.robust_fun * (1 - 1e-2)


def test_zero_radius_is_plain_training_and_larger_ones_cost_more():
    X, y, D = quadrants()
    options = {"beta": 0.3, "loss": "squared", "gates": D, "tol": 1e-4, "maxiter": 20000}
    plain = relu.admm(X, y, rng=0, **options)
    none = relu.admm(X, y, rng=0, robust_eps=0.0, **options)
    assert none.fun_convex == plain.fun_convex
    assert none.robust_fun is None
    values = [
        relu.admm(X, y, rng=0, robust_eps=[e, e, 0.0], **options).fun_convex
        for e in (1e-9, 0.03, 0.1)
    ]
    assert values[0] == pytest.approx(plain.fun_convex, rel=3e-4)
    assert values[0] < values[1] < values[2]


def test_a_bias_does_not_move_and_a_mean_loss_scales():
    X, y, D = quadrants()
    options = {"loss": "hinge", "gates": D, "tol": 1e-3, "rng": 0}
    ours = relu.admm(X, y, beta=0.2, robust_eps=[0.05, 0.05, 0.0], **options)
    bias = relu.admm(X[:, :2], y, beta=0.2, robust_eps=0.05, bias=True, **options)
    assert np.allclose(bias.V, ours.V, atol=1e-9)
    assert bias.net.bias
    mean = relu.admm(
        X, y, beta=0.2 / 16, robust_eps=[0.05, 0.05, 0.0], loss_scale="mean", **options
    )
    assert mean.robust_fun * 16 == pytest.approx(ours.robust_fun, rel=1e-9)


def test_outputs_are_trained_apart_and_single_precision_is_kept():
    X, y, D = quadrants()
    Y = np.c_[y, X[:, 0] - 0.5]
    options = {"beta": 0.2, "gates": D, "robust_eps": [0.05, 0.05, 0.0], "tol": 1e-3, "rng": 0}
    both = relu.admm(X, Y, **options)
    each = [relu.admm(X, Y[:, k], **options) for k in range(2)]
    assert both.success
    assert both.V.shape == (2, 3, D.shape[1])
    assert both.robust_fun == pytest.approx(sum(r.robust_fun for r in each), rel=2e-3)
    single = relu.admm(X.astype(np.float32), y.astype(np.float32), **options)
    assert single.V.dtype == np.float32
    assert single.robust_fun == pytest.approx(each[0].robust_fun, rel=3e-3)


def test_a_warm_start_ends_at_the_first_check():
    X, y, D = quadrants()
    options = {"beta": 0.2, "loss": "logistic", "robust_eps": [0.05, 0.05, 0.0], "tol": 1e-3}
    res = relu.admm(X, y, gates=D, rng=0, **options)
    again = relu.admm(X, y, gates=D, rng=0, x0=res, **options)
    assert res.nit > 50
    assert again.success
    assert again.nit <= 50


def test_empty_cones_end_as_infeasible_with_the_zero_network():
    X, y, _ = quadrants()
    D = X[:, :2] @ np.random.default_rng(1).standard_normal((2, 6)) >= 0
    with pytest.warns(ConvergenceWarning, match="robust_eps"):
        res = relu.admm(X[:, :2], y, beta=0.1, loss="hinge", gates=D, robust_eps=50.0, rng=0)
    assert res.status is Status.INFEASIBLE
    assert not res.success
    assert (res.V == 0).all()
    assert (res.W == 0).all()
    assert (res.net.predict(X[:, :2]) == 0).all()


def test_gates_are_drawn_where_samples_cannot_cross_them():
    rng = np.random.default_rng(0)
    # Many samples on a grid: every plane in general position comes near one of them.
    X = np.c_[rng.integers(0, 8, (80, 6)) - 3.5, np.ones(80)]
    eps = np.append(np.full(6, 0.1), 0.0)
    gates = draw_robust(get_backend("numpy"), X, eps, 15, "gaussian", np.random.default_rng(1))
    again = draw_robust(get_backend("numpy"), X, eps, 15, "gaussian", np.random.default_rng(1))
    assert len(gates) == 15
    assert np.array_equal(gates.D, again.D)
    room = (2.0 * gates.D - 1.0) * (X @ gates.vectors)
    assert (room - eps @ abs(gates.vectors)).min() > 0
    with pytest.warns(ConvergenceWarning, match="robust cones"):
        few = draw_robust(
            get_backend("numpy"), X[:, :6], 20 * eps[:6], 15, "gaussian", np.random.default_rng(1)
        )
    assert len(few) < 15


def test_one_fast_gradient_step_goes_to_a_corner():
    net = relu.recover(np.array([[1.0], [-2.0]]), np.zeros((2, 1)))
    X, y = np.array([[3.0, 0.5], [2.0, 0.1]]), np.array([1.0, -1.0])
    attack = relu.attack_pgd(net, X, y, 0.25, step=0.25, steps=1, restarts=1, rng=0)
    assert np.allclose(attack.X_adv, [[2.75, 0.75], [2.25, -0.15]])
    assert np.array_equal(attack.pred, [1.0, 1.0])
    assert np.allclose(attack.loss, [0.0, 3.55])
    still = relu.attack_pgd(net, X, y, 0.0, rng=0)
    assert np.array_equal(still.X_adv, X)


@pytest.mark.parametrize(
    ("error", "name", "options"),
    [
        (ValueError, "eps", {"eps": -0.1}),
        (ValueError, "eps", {"eps": np.ones(3)}),
        (ValueError, "steps", {"steps": 0}),
        (ValueError, "restarts", {"restarts": 0}),
        (ValueError, "step", {"step": 0.0}),
        (ValueError, "loss", {"loss": "absolute"}),
        (ValueError, "y", {"y": np.ones(5)}),
        (ValueError, "X", {"X": np.ones((2, 3))}),
        (TypeError, "eps", {"eps": "much"}),
    ],
)
def test_bad_attacks_are_refused(error, name, options):
    net = relu.recover(np.array([[1.0], [-2.0]]), np.zeros((2, 1)))
    call = {"X": np.ones((2, 2)), "y": np.ones(2), "eps": 0.1, **options}
    with pytest.raises(error, match=f"^`{name}`"):
        relu.attack_pgd(net, call.pop("X"), call.pop("y"), call.pop("eps"), **call)


@pytest.mark.parametrize(
    ("error", "name", "options"),
    [
        (ValueError, "robust_eps", {"robust_eps": -0.1}),
        (ValueError, "robust_eps", {"robust_eps": np.ones(2)}),
        (ValueError, "robust_eps", {"robust_eps": np.nan}),
        (TypeError, "robust_eps", {"robust_eps": "wide"}),
        (NotImplementedError, "robust_eps", {"robust_eps": 0.1, "loss": "huber"}),
        (NotImplementedError, "refine", {"robust_eps": 0.1, "refine": 2}),
    ],
)
def test_bad_radii_are_refused(error, name, options):
    X, y, D = quadrants()
    with pytest.raises(error, match=f"^`{name}`"):
        relu.admm(X, y, beta=0.2, gates=D, **{"loss": "hinge", **options})


@pytest.mark.parametrize(("name", "value"), [("sigma", 1.0), ("split", "Q"), ("usolver", "cg")])
def test_options_of_the_other_iteration_are_refused(name, value):
    X, y, D = quadrants()
    with pytest.raises(ValueError, match=f"`{name}` came as .*robust_eps"):
        relu.admm(X, y, beta=0.1, loss="hinge", robust_eps=0.01, gates=D, **{name: value})


def test_attacks_refuse_labels_and_networks_that_are_none():
    X, y, _ = quadrants()
    net = relu.Net(np.ones((3, 2)), np.ones(2))
    with pytest.raises(ValueError, match="`y` holds other values"):
        relu.attack_pgd(net, X, 0.5 * y, 0.1)
    with pytest.raises(TypeError, match="`net` came as"):
        relu.attack_pgd(3, X, y, 0.1)
