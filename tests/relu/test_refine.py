import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from solvers import ConvergenceWarning, Status, relu
from solvers._core.backend import get_backend
from solvers.relu._local import descend, local_gates, minimise, placed
from solvers.relu._losses import LOSSES
from solvers.relu._problem import Programme


def data(n=40, d=4, seed=0, *, labels=False):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) / np.sqrt(d)
    y = np.maximum(X @ rng.standard_normal((d, 3)), 0) @ [2.0, -2.0, 1.0]
    y += 0.1 * rng.standard_normal(n)
    return X, np.where(y > np.median(y), 1.0, -1.0) if labels else y


def descent(X, y, beta, m, seed):
    """SciPy's L-BFGS on the network with m neurons: the objective it ends at."""
    d = X.shape[1]

    def value_and_gradient(theta):
        A, a = theta[: d * m].reshape(d, m), theta[d * m :]
        H = X @ A
        e = np.maximum(H, 0) @ a - y
        gradient = X.T @ ((e[:, None] * a) * (H > 0)) + beta * A, np.maximum(H, 0).T @ e + beta * a
        value = 0.5 * e @ e + 0.5 * beta * theta @ theta
        return value, np.concatenate([g.ravel() for g in gradient])

    start = np.random.default_rng(seed).standard_normal(d * m + m) / np.sqrt(d)
    return minimize(value_and_gradient, start, jac=True, method="L-BFGS-B").fun


def programme(X, Y, loss="squared", beta=0.1):
    be = get_backend("numpy")
    return Programme(be, X, Y, LOSSES[loss](Y, np), beta, None, None, len(Y) > 1)


def value(X, Y, B, signs, beta, loss="squared"):
    p = (np.maximum(B @ X.T, 0.0) * signs[..., None]).sum(axis=1)
    return LOSSES[loss](Y, np).value(p) + beta * np.linalg.norm(B, axis=-1).sum()


def test_refined_training_beats_descent_from_many_starts():
    X, y = data(50, 4)
    best = min(descent(X, y, 0.2, 30, seed) for seed in range(4))
    res = relu.admm(X, y, beta=0.2, refine="auto", tol=3e-3, rng=0)
    assert res.success
    assert res.fun <= best * (1 + 1e-6)
    assert res.dual_global <= best * (1 + 1e-9)
    assert relu.network_objective(X, y, res.net, 0.2) == pytest.approx(res.fun, rel=1e-9)


def test_every_round_of_refinement_lowers_the_optimum():
    X, y = data(30)
    D = relu.sample_gates(X, 6, rng=1).D
    runs = [relu.admm(X, y, beta=0.1, gates=D, refine=k, tol=1e-3, rng=0) for k in range(3)]
    upper = [r.fun_convex for r in runs]
    assert all(r.success for r in runs)
    assert all(b <= a * (1 + 1e-3) for a, b in itertools.pairwise(upper))
    assert upper[-1] < 0.98 * upper[0]
    assert len(runs[1].gates) > 6
    assert np.array_equal(runs[0].gates.D, D)


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_refined_gates_hold_the_network_that_is_returned(loss):
    X, y = data(labels=True)
    res = relu.admm(X, y, beta=0.2, loss=loss, refine="auto", tol=1e-2, rng=0)
    assert res.success
    assert res.fun <= res.fun_convex * (1 + 1e-9)
    judged = relu.certify(
        X, y, beta=0.2, loss=loss, V=res.V, W=res.W, gates=res.gates, z=res.z, tol=1e-2
    )
    assert judged.holds


def test_local_gates_are_as_good_as_descent_by_construction():
    X, y = data()
    local = relu.admm(X, y, beta=0.1, scheme="local", n_gates=24, tol=1e-4, rng=0)
    drawn = relu.admm(X, y, beta=0.1, scheme="gaussian", n_gates=24, tol=1e-4, rng=0)
    assert len(local.gates) == 24
    assert local.success
    assert local.fun_convex < drawn.fun_convex
    be = programme(X, y[None])
    gates, U = local_gates(be, 24, np.random.default_rng(0), lambda: False)
    assert np.array_equal(gates.D, local.gates.D)
    # The blocks lie in the cones of their gates, so their objective bounds the optimum.
    signs = 2.0 * gates.mask - 1.0
    assert ((U @ X.T) * signs).min() >= -1e-12
    network = np.concatenate([U[:, 0], U[:, 1]], axis=1)
    side = np.repeat([[1.0, -1.0]], 24, axis=1)
    assert local.fun_convex <= value(X, y[None], network, side, 0.1) * (1 + 1e-9)


def test_outputs_share_gates_and_are_all_refined():
    X, y = data(30)
    Y = np.c_[y, -y]
    res = relu.admm(X, Y, beta=0.2, refine="auto", n_gates=20, tol=2e-2, rng=0)
    assert res.success
    assert res.V.shape == (2, 4, len(res.gates))
    apart = 2 * min(descent(X, y, 0.2, 20, s) for s in range(2))
    assert res.fun <= apart * (1 + 1e-2)


def test_refinement_keeps_precision_and_repeats_itself():
    X, y = (a.astype(np.float32) for a in data())
    first, again = (
        relu.admm(X, y, beta=0.1, refine=1, n_gates=20, tol=2e-2, rng=4) for _ in range(2)
    )
    assert first.V.dtype == np.float32
    assert first.gates.vectors.dtype == np.float32
    assert np.array_equal(first.V, again.V)
    assert np.array_equal(first.gates.D, again.gates.D)


def test_limits_hold_across_rounds():
    X, y = data(60, 5)
    with pytest.warns(ConvergenceWarning):
        res = relu.admm(X, y, beta=0.01, refine=3, n_gates=20, tol=1e-12, maxiter=60, rng=0)
    assert res.status == Status.MAXITER
    assert 60 <= res.nit <= 110
    with pytest.warns(ConvergenceWarning):
        late = relu.admm(X, y, beta=0.01, refine="auto", tol=1e-12, time_limit=1e-9, rng=0)
    assert late.status == Status.TIME_LIMIT
    seen = []
    ended = relu.admm(
        X, y, beta=0.01, refine=3, n_gates=20, tol=1e-12, callback=lambda r: seen.append(r) or True
    )
    assert ended.status == Status.CALLBACK
    assert len(seen) == 1


def test_the_zero_network_needs_no_gates():
    X, y = data()
    for refine in (2, "auto"):
        res = relu.admm(X, y, beta=1e4, refine=refine, rng=0)
        assert res.success
        assert res.n_active == 0
        assert res.fun == pytest.approx(0.5 * y @ y)


@pytest.mark.parametrize(
    ("error", "refine"), [(ValueError, -1), (ValueError, "some"), (TypeError, 1.5)]
)
def test_other_rounds_are_refused(error, refine):
    with pytest.raises(error, match=r"^`refine`"):
        relu.admm(*data(), beta=0.1, refine=refine)


@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge", "squared_hinge", "huber"])
def test_descent_goes_as_far_as_nelder_and_mead_can_tell(loss):
    X, y = data(20, 2, labels=loss in ("logistic", "hinge", "squared_hinge"))
    Y, rng = y[None], np.random.default_rng(1)
    B, signs = rng.standard_normal((1, 3, 2)), np.array([[1.0, -1.0, 1.0]])
    B_new, signs_new = descend(programme(X, Y, loss), B, signs, tol=1e-12)
    end = value(X, Y, B_new, signs_new, 0.1, loss)
    assert end < value(X, Y, B, signs, 0.1, loss)
    nearby = minimize(
        lambda b: value(X, Y, b.reshape(B.shape), signs_new, 0.1, loss),
        B_new.ravel(),
        method="Nelder-Mead",
        options={"initial_simplex": B_new.ravel() + 1e-2 * np.eye(7, 6), "xatol": 1e-9},
    )
    assert end <= nearby.fun * (1 + 2e-3)


def test_descent_minimises_a_quadratic_like_a_linear_solve():
    rng = np.random.default_rng(2)
    A = rng.standard_normal((30, 12))
    H, b = A.T @ A + np.eye(12), rng.standard_normal(12)
    x = minimise(np, lambda x: (0.5 * x @ H @ x - b @ x, H @ x - b), np.zeros(12), 500, 1e-15)
    assert np.allclose(x, np.linalg.solve(H, b), atol=1e-6)


def test_neurons_of_one_pattern_and_sign_are_merged():
    B = np.arange(12.0).reshape(1, 4, 3)
    U = placed(B, np.array([[1.0, 1.0, -1.0, 1.0]]), np.array([0, 0, 0, -1]), 2)
    assert np.array_equal(U[0, 0, 0], B[0, 0] + B[0, 1])
    assert np.array_equal(U[0, 1, 0], B[0, 2])
    assert not U[0, :, 1].any()
