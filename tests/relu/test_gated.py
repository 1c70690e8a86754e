import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from _cupy_standin import run_with_standin

import solvers
from solvers import relu
from solvers.relu._cone_parts import interior, nearest, parts
from solvers.relu._groups import Frobenius, Nuclear, PerOutput
from tests.relu import conic
from tests.relu.conic import LOSSES

NORMS = ("frobenius", "nuclear")


def data(n=30, d=3, c=None, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    Y = np.maximum(X @ rng.standard_normal((d, c or 1)), 0) + 0.3 * rng.standard_normal(
        (n, c or 1)
    )
    return X, Y if c else Y[:, 0]


def signs(y):
    return np.where(y > np.median(y), 1.0, -1.0)


def gates_of(X, P=8, seed=1):
    return relu.sample_gates(X, P, rng=seed)


def gated_value(X, y, D, U, beta, loss="squared"):
    p = (D * (X @ U)).sum(axis=1)
    return LOSSES[loss](p, y) + beta * np.linalg.norm(U, axis=0).sum()


# The programme.


@pytest.mark.parametrize("loss", list(LOSSES))
def test_every_loss_reaches_the_optimum_of_a_conic_solver(loss):
    X, y = data()
    y = y if loss in ("squared", "huber") else signs(y)
    gates = gates_of(X)
    res = relu.gated(X, y, beta=0.4, loss=loss, gates=gates, tol=1e-8)
    optimum = conic.gated_optimum(X, y, gates.D, 0.4, loss)
    assert res.success
    assert gated_value(X, y, gates.D, res.U, 0.4, loss) == pytest.approx(res.fun_convex, rel=1e-12)
    assert res.fun_convex == pytest.approx(optimum, rel=2e-7)
    assert res.dual <= optimum * (1 + 1e-8)


@pytest.mark.parametrize("loss", ["squared", "hinge"])
@pytest.mark.parametrize("norm", [None, *NORMS])
def test_outputs_are_separate_or_joint_in_either_norm(norm, loss):
    X, Y = data(20, 3, 2)
    Y = Y if loss == "squared" else signs(Y)
    gates = gates_of(X, 6)
    joint = {} if norm is None else {"multi_output": "joint", "norm": norm}
    res = relu.gated(X, Y, beta=0.5, loss=loss, gates=gates, tol=1e-8, **joint)
    assert res.success
    optimum = conic.gated_optimum(X, Y, gates.D, 0.5, loss, norm)
    assert res.fun_convex == pytest.approx(optimum, rel=2e-7)
    assert res.dual <= optimum * (1 + 1e-8)
    assert res.U.shape == res.V.shape == (2, 3, 6)
    assert res.net.predict(X).shape == (20, 2)


def test_more_outputs_than_features_do_not_confuse_the_nuclear_norm():
    X, Y = data(15, 2, 4)
    gates = gates_of(X, 5)
    res = relu.gated(X, Y, beta=0.5, gates=gates, multi_output="joint", norm="nuclear", tol=1e-8)
    optimum = conic.gated_optimum(X, Y, gates.D, 0.5, norm="nuclear")
    assert res.fun_convex == pytest.approx(optimum, rel=2e-7)


def test_separate_outputs_are_programmes_of_their_own():
    X, Y = data(25, 3, 2)
    gates = gates_of(X)
    together = relu.gated(X, Y, beta=0.3, gates=gates, tol=1e-9)
    alone = [relu.gated(X, y, beta=0.3, gates=gates, tol=1e-9) for y in Y.T]
    assert together.fun_convex == pytest.approx(sum(res.fun_convex for res in alone), rel=1e-8)
    p = [(gates.D * (X @ U)).sum(axis=1) for U in together.U]
    for k, res in enumerate(alone):
        np.testing.assert_allclose(p[k], (gates.D * (X @ res.U)).sum(axis=1), atol=1e-3)


def test_one_output_is_the_same_joint_or_not():
    X, y = data()
    options = {"beta": 0.3, "gates": gates_of(X), "tol": 1e-9}
    plain = relu.gated(X, y, **options)
    for norm in NORMS:
        joint = relu.gated(X, y, multi_output="joint", norm=norm, **options)
        assert joint.fun_convex == pytest.approx(plain.fun_convex, rel=1e-8)


def test_a_gate_that_lets_all_through_is_ridge_like_least_squares():
    X, y = data()
    res = relu.gated(X, y, beta=0.7, gates=np.ones((30, 1), dtype=bool), tol=1e-12)
    u = res.U[:, 0]
    # The gradient of |X u - y|^2 / 2 + beta |u|.
    np.testing.assert_allclose(X.T @ (X @ u - y) + 0.7 * u / np.linalg.norm(u), 0, atol=1e-5)


def test_it_is_a_relaxation_and_equal_where_beta_vanishes():
    X, y = data(12, 4)
    gates = gates_of(X, 6)
    for beta, slack in ((0.5, np.inf), (1e-5, 2e-2)):
        with_cones, _, _ = conic.convex_optimum(X, y, gates.D, beta)
        res = relu.gated(X, y, beta=beta, gates=gates, tol=1e-8)
        assert res.fun_convex <= with_cones * (1 + 1e-6)
        # Both tend to the least squares over all gates, of which beta takes a small share.
        assert with_cones - res.fun_convex <= slack


def test_more_gates_never_raise_the_optimum():
    X, y = data()
    D = gates_of(X, 12).D
    values = [relu.gated(X, y, beta=0.3, gates=D[:, :k], tol=1e-8).fun_convex for k in (3, 6, 12)]
    assert values[0] >= values[1] - 1e-7 >= values[2] - 2e-7


def test_a_large_beta_gives_zero_at_once_and_a_little_less_does_not():
    X, y = data()
    gates = gates_of(X)
    largest = max(np.linalg.norm(X.T @ (D * y)) for D in gates.D.T)
    res = relu.gated(X, y, beta=1.0001 * largest, gates=gates)
    assert res.success
    assert res.nit == 0
    assert not res.U.any()
    assert res.net.hidden.shape == (3, 0)
    assert relu.gated(X, y, beta=0.999 * largest, gates=gates, tol=1e-9).U.any()


# The ReLU network behind it.


@pytest.mark.parametrize("decomposition", ["minimal", "shift"])
def test_parts_lie_in_the_cones_and_differ_by_the_weights(decomposition):
    X, y = data()
    gates = gates_of(X)
    res = relu.gated(X, y, beta=0.2, gates=gates, decomposition=decomposition)
    E = 2.0 * gates.D - 1
    np.testing.assert_allclose(res.V - res.W, res.U, atol=1e-12)
    assert (E * (X @ res.V)).min() >= -1e-10
    assert (E * (X @ res.W)).min() >= -1e-10
    penalty = np.linalg.norm(res.V, axis=0).sum() + np.linalg.norm(res.W, axis=0).sum()
    p = (gates.D * (X @ res.U)).sum(axis=1)
    assert res.fun_relu == pytest.approx(0.5 * np.sum((p - y) ** 2) + 0.2 * penalty, rel=1e-9)
    np.testing.assert_allclose(res.net.predict(X), p, atol=1e-9)
    assert conic.network_value(res.net, X, y, 0.2) == pytest.approx(res.fun, rel=1e-12)
    assert res.dual <= res.fun_convex <= res.fun <= res.fun_relu * (1 + 1e-12)
    assert res.dual_global <= res.fun


def test_the_minimal_parts_are_the_shorter_ones():
    X, y = data()
    both = [
        relu.gated(X, y, beta=0.2, gates=gates_of(X), decomposition=how).fun_relu
        for how in ("minimal", "shift")
    ]
    assert both[0] < 0.9 * both[1]


@pytest.mark.parametrize("seed", range(6))
def test_minimal_parts_equal_those_of_a_conic_solver(seed):
    cp = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(seed)
    X, g, u = rng.standard_normal((25, 4)), rng.standard_normal(4), rng.standard_normal(4)
    A = np.where(X @ g >= 0, 1.0, -1.0)[:, None] * X
    # With and without a point inside to begin with.
    v, w = parts(A, u, g if seed % 2 else None, "minimal")
    x = cp.Variable(4)
    optimum = conic.solve(cp, cp.norm(x) + cp.norm(x + u), [A @ x >= 0, A @ (x + u) >= 0])
    assert np.linalg.norm(v) + np.linalg.norm(w) == pytest.approx(optimum, rel=1e-8)
    np.testing.assert_allclose(v - w, u, atol=1e-12)
    assert min((A @ v).min(), (A @ w).min()) >= -1e-10


def test_weights_inside_a_cone_or_its_negative_stay_whole():
    A = np.eye(2)
    inside = np.array([1.0, 2.0])
    assert [list(p) for p in parts(A, inside, None, "minimal")] == [[1, 2], [0, 0]]
    assert [list(p) for p in parts(A, -inside, None, "minimal")] == [[0, 0], [1, 2]]


def test_a_cone_without_interior_has_no_parts_across_it():
    # x >= 0 and x <= 0: only the second axis, half of it, is left.
    A = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    assert interior(A) is None
    for how in ("minimal", "shift"):
        assert parts(A, np.array([1.0, 0.0]), None, how) is None
    X = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    D = np.array([[True], [False], [True]])
    res = relu.gated(X, [3.0, 0.0, 0.0], beta=0.1, gates=D)
    assert res.U.any()
    assert "leaves out 1 gate" in res.message
    assert not res.V.any()
    assert res.fun_relu == pytest.approx(4.5)


def test_nearest_points_of_polyhedra_are_nearest():
    rng = np.random.default_rng(3)
    A, low = rng.standard_normal((40, 5)), -rng.random(40)
    x = 3.0 * rng.standard_normal(5)
    y = nearest(A, low, x)
    assert (A @ y >= low - 1e-10).all()
    # No feasible direction leads nearer.
    for _ in range(200):
        other = y + 0.1 * rng.standard_normal(5)
        if (A @ other >= low).all():
            assert (x - y) @ (other - y) <= 1e-9


# The pieces of the solver.


@pytest.mark.parametrize("norm", [PerOutput, Frobenius, Nuclear])
@pytest.mark.parametrize("shape", [(2, 4, 3), (4, 3, 2), (1, 5, 3)])
def test_shrinkages_and_their_derivatives_agree(norm, shape, rng):
    norm = norm(np)
    T, G = rng.standard_normal(shape), rng.standard_normal(shape)
    t, h = 0.8, 1e-6
    slope = (norm.shrink(T + h * G, t) - norm.shrink(T - h * G, t)) / (2 * h)
    np.testing.assert_allclose(norm.derivative(T, t)(G), slope, atol=1e-7)
    # A shrinkage minimises t |U| + |U - T|^2 / 2.
    U = norm.shrink(T, t)

    def value(U):
        return t * norm.total(U) + 0.5 * np.square(U - T).sum()

    for _ in range(50):
        assert value(U) <= value(U + 0.1 * rng.standard_normal(shape)) + 1e-12
    # The norm is the largest product with what the dual norm calls 1.
    assert (U * G).sum() <= norm.total(U) * norm.dual(G) * (1 + 1e-12)


def test_large_problems_do_without_a_factor_of_all_samples(monkeypatch):
    X, y = data(60, 4)
    gates = gates_of(X)
    dense = relu.gated(X, y, beta=0.5, gates=gates, tol=1e-8)
    monkeypatch.setattr("solvers.relu._designs._DENSE", 10)
    sparse = relu.gated(X, y, beta=0.5, gates=gates, tol=1e-8)
    assert sparse.success
    assert sparse.fun_convex == pytest.approx(dense.fun_convex, rel=1e-7)


# Options.


def test_the_mean_loss_is_the_sum_with_a_larger_beta():
    X, y = data()
    gates = gates_of(X)
    mean = relu.gated(X, y, beta=0.01, gates=gates, loss_scale="mean", tol=1e-9)
    total = relu.gated(X, y, beta=0.3, gates=gates, tol=1e-9)
    for name in ("fun_convex", "dual", "fun", "fun_relu", "dual_global"):
        assert 30 * mean[name] == pytest.approx(total[name], rel=1e-6), name
    np.testing.assert_allclose(mean.U, total.U, atol=1e-6)


def test_a_bias_is_a_column_of_ones():
    X, y = data()
    ones = np.c_[X, np.ones(30)]
    gates = relu.sample_gates(ones, 8, rng=0)
    with_bias = relu.gated(X, y, beta=0.3, gates=gates, bias=True)
    by_hand = relu.gated(ones, y, beta=0.3, gates=gates)
    np.testing.assert_array_equal(with_bias.U, by_hand.U)
    np.testing.assert_allclose(with_bias.net.predict(X), by_hand.net.predict(ones), atol=1e-12)


def test_parameters_of_losses_have_effect():
    X, y = data()
    options = {"beta": 0.3, "gates": gates_of(X)}
    huber = [relu.gated(X, 5 * y, loss="huber", delta=d, **options).fun_convex for d in (0.1, 1.0)]
    assert huber[0] < huber[1]
    steep = relu.gated(X, signs(y), loss="logistic", logit_scale=2.0, **options)
    # A scale of 2 halves what weights cost.
    half = relu.gated(X, signs(y), loss="logistic", **{**options, "beta": 0.15})
    assert steep.fun_convex == pytest.approx(half.fun_convex, rel=1e-5)


def test_a_start_saves_steps():
    X, y = data()
    gates = gates_of(X)
    res = relu.gated(X, y, beta=0.3, gates=gates)
    assert relu.gated(X, y, beta=0.3, gates=gates, x0=res).nit == 0
    # Weights alone give a dual point too.
    assert relu.gated(X, y, beta=0.3, gates=gates, x0=res.U).nit <= 1
    near = relu.gated(X, y, beta=0.29, gates=gates, x0=res)
    assert near.nit < relu.gated(X, y, beta=0.29, gates=gates).nit


def test_a_tolerance_out_of_reach_ends_with_one_warning():
    X, y = data()
    with pytest.warns(solvers.ConvergenceWarning) as caught:
        res = relu.gated(X, y, beta=0.3, gates=gates_of(X), tol=1e-17, maxiter=300)
    assert len(caught) == 1
    assert res.status in (solvers.Status.STALLED, solvers.Status.MAXITER)
    assert res.gap <= 1e-10
    with pytest.warns(solvers.ConvergenceWarning):
        short = relu.gated(X, y, beta=0.3, gates=gates_of(X), maxiter=1)
    assert short.nit == 1
    assert short.dual <= res.fun_convex <= short.fun_convex


def test_single_precision_is_judged_in_double():
    X, y = (a.astype(np.float32) for a in data())
    gates = gates_of(X)
    res = relu.gated(X, y, beta=0.3, gates=gates, tol=1e-4)
    assert res.success
    assert res.U.dtype == res.V.dtype == res.net.hidden.dtype == np.float32
    exact = gated_value(X.astype(float), y.astype(float), gates.D, res.U.astype(float), 0.3)
    assert res.fun_convex == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("X", "y"),
    [
        (np.zeros((4, 2)), np.ones(4)),
        (np.ones((5, 1)), np.arange(5.0)),
        (np.ones((1, 1)), np.ones(1)),
        (np.eye(3), np.zeros(3)),
        (np.array([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0]]), np.array([1.0, 5.0, -1.0])),
    ],
)
def test_degenerate_data_are_solved(X, y):
    with warnings.catch_warnings():
        # There may be fewer gates than asked for.
        warnings.simplefilter("ignore", solvers.ConvergenceWarning)
        res = relu.gated(X, y, beta=0.1, rng=0)
    assert res.success
    assert np.isfinite(res.net.predict(X)).all()


@pytest.mark.parametrize("beta", [1e-12, 1e12])
def test_extreme_weights_of_the_penalty_end_honestly(beta):
    X, y = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solvers.ConvergenceWarning)
        res = relu.gated(X, y, beta=beta, gates=gates_of(X), maxiter=200)
    assert np.isfinite(res.fun_convex)
    assert res.dual <= res.fun_convex
    assert res.success == res.certificate.holds


X0, Y0 = data(8, 2)
BAD = [
    ("X", ValueError, {"X": np.full((8, 2), np.nan)}),
    ("X", ValueError, {"X": np.ones(8)}),
    ("X", ValueError, {"X": np.ones((0, 2)), "y": np.ones(0)}),
    ("X", TypeError, {"X": sp.csr_matrix(X0)}),
    ("X", TypeError, {"X": X0 + 0j}),
    ("X", TypeError, {"X": X0.astype(object)}),
    ("y", ValueError, {"y": Y0[:-1]}),
    ("y", ValueError, {"loss": "hinge"}),
    ("beta", ValueError, {"beta": 0.0}),
    ("beta", ValueError, {"beta": np.nan}),
    ("beta", TypeError, {"beta": "much"}),
    ("loss", ValueError, {"loss": "hinged"}),
    ("n_gates", ValueError, {"n_gates": 0}),
    ("n_gates", TypeError, {"n_gates": 2.5}),
    ("gates", ValueError, {"gates": np.ones((7, 2), dtype=bool)}),
    ("gates", TypeError, {"gates": np.ones((8, 2))}),
    ("scheme", ValueError, {"scheme": "random"}),
    ("multi_output", ValueError, {"multi_output": "shared"}),
    ("norm", ValueError, {"norm": "spectral"}),
    ("decomposition", ValueError, {"decomposition": "exact"}),
    ("delta", ValueError, {"delta": 0.0}),
    ("logit_scale", ValueError, {"logit_scale": -1.0}),
    ("loss_scale", ValueError, {"loss_scale": "median"}),
    ("bias", TypeError, {"bias": 1}),
    ("tol", ValueError, {"tol": -1.0}),
    ("maxiter", ValueError, {"maxiter": -1}),
    ("time_limit", ValueError, {"time_limit": 0.0}),
    ("callback", TypeError, {"callback": 3}),
    ("progress", TypeError, {"progress": "yes"}),
    ("history", ValueError, {"history": 0}),
    ("n_threads", ValueError, {"n_threads": 0}),
    ("rng", TypeError, {"rng": "seed"}),
    ("x0", ValueError, {"n_gates": 3, "x0": np.zeros((2, 4))}),
    ("x0", TypeError, {"n_gates": 3, "x0": "zero"}),
]


@pytest.mark.parametrize(("name", "error", "change"), BAD)
def test_bad_arguments_are_refused_by_name(name, error, change):
    call = {"X": X0, "y": Y0, "beta": 0.1, "n_gates": 3, "rng": 0, **change}
    if "gates" in change:
        del call["n_gates"]
    with pytest.raises(error, match=f"`{name}`"):
        relu.gated(call.pop("X"), call.pop("y"), **call)


def test_a_start_of_another_method_is_refused():
    X, y = data(8, 2)
    other = relu.sampled_convex(X, y, beta=0.1, n_neurons=5, rng=0)
    with pytest.raises(ValueError, match="`x0` came as a result of sampled_convex"):
        relu.gated(X, y, beta=0.1, n_gates=5, rng=0, x0=other)


def test_cupy_arrays_stay_on_the_device():
    run_with_standin(Path(__file__).parent / "coneless_on_device.py")
