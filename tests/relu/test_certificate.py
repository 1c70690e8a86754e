"""The judge: bounds hold whatever comes, and are sharp where weights are optimal."""

import numpy as np
import pytest

from solvers import relu
from solvers.relu._certificate_bounds import dual_bound, feasible
from solvers.relu._certificate_data import Data, RobustDual
from solvers.relu._certificate_global import crude_norm, search
from tests.relu import oracles

LOSSES = ("squared", "logistic", "hinge", "squared_hinge", "huber")
BETA = 0.3


def labelled(loss):
    return loss not in ("squared", "huber")


@pytest.fixture(scope="module")
def solved():
    """Data, gates, optimum and weights of each loss, by an interior point."""
    known = {}

    def get(loss):
        if loss not in known:
            X, y = oracles.data(30, 4, 1, labels=labelled(loss))
            D, _ = oracles.patterns(X, 8, 1)
            known[loss] = (X, y, D, *oracles.clarabel(X, y, D, BETA, loss))
        return known[loss]

    return get


def posed(X, y, D, loss="squared", beta=BETA, eps=None, vectors=None):
    Y, parameters = np.atleast_2d(y), {"delta": 1.35, "logit_scale": 1.0}
    return Data(X, Y, loss, parameters, beta, relu.Gates(D, vectors), eps)


def blocks(V, W):
    return np.stack([V.T, W.T])[None]


def judged(solved, loss="squared", **changes):
    X, y, D, _, V, W = solved(loss)
    options = {"beta": BETA, "loss": loss, "V": V, "W": W, "gates": D} | changes
    return relu.certify(X, y, **options)


# ------------------------------------------------------------------------------------- sharp
@pytest.mark.parametrize("loss", LOSSES)
def test_weights_of_another_solver_are_proved_optimal(solved, loss):
    optimum = solved(loss)[3]
    certificate = judged(solved, loss, tol=1e-5)
    assert certificate.holds
    details = certificate.details
    assert details["dual"] <= optimum * (1 + 1e-8)
    assert details["fun_convex"] >= optimum * (1 - 1e-8)
    assert details["dual_global"] <= details["dual_global_est"] <= details["fun"] * (1 + 1e-9)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("factor", [0.0, 0.9, 1.1])
def test_the_gap_is_at_least_the_true_one(solved, loss, factor):
    _, _, _, optimum, V, W = solved(loss)
    certificate = judged(solved, loss, V=factor * V, W=factor * W)
    value = certificate.details["fun_convex"]
    assert certificate.value >= (value - optimum) / value - 1e-9
    assert not certificate.holds


@np.errstate(all="ignore")  # as every caller of the judge has it
@pytest.mark.parametrize("loss", LOSSES)
def test_no_dual_point_bounds_above_the_optimum(solved, loss):
    X, y, D, optimum, *_ = solved(loss)
    data, rng = posed(X, y, D, loss), np.random.default_rng(0)
    shape = (1, 2, D.shape[1], len(X))
    for size in (1e-300, 1e-3, 1.0, 1e3, 1e300):
        z = size * rng.standard_normal((1, len(X)))
        for alpha in (None, size * rng.standard_normal(shape), np.full(shape, -1.0)):
            assert 0 <= dual_bound(data, z, alpha) <= optimum * (1 + 1e-8)
    for nonsense in (np.nan, np.inf):
        assert 0 <= dual_bound(data, np.full((1, len(X)), nonsense)) <= optimum


def test_multipliers_are_used_only_where_they_help(solved):
    X, y, D, _, V, W = solved("squared")
    data = posed(X, y, D)
    z = data.slope(blocks(V, W))
    alone = dual_bound(data, z)
    wrong = 1e6 * np.ones((1, 2, D.shape[1], len(X)))
    assert dual_bound(data, z, wrong) == pytest.approx(alone, rel=1e-12)


def test_given_duals_count(solved):
    X, y, D, optimum, V, W = solved("squared")
    z = y - (D * (X @ (V - W))).sum(axis=1)
    zero = np.zeros_like(V)
    without = judged(solved, V=zero, W=zero)
    given = judged(solved, V=zero, W=zero, z=z)
    assert without.details["dual"] < 0.9 * optimum
    assert given.details["dual"] == pytest.approx(optimum, rel=1e-6)
    multipliers = np.zeros((len(X), D.shape[1]))
    again = judged(solved, V=zero, W=zero, z=z, alpha=multipliers, gamma=multipliers)
    assert again.details["dual"] == pytest.approx(optimum, rel=1e-6)


def test_outputs_add_up():
    X, y = oracles.data(25, 3, 2)
    Y = np.c_[y, abs(y)]
    D, _ = oracles.patterns(X, 6, 2)
    each = [oracles.clarabel(X, t, D, BETA) for t in Y.T]
    V, W = (np.stack([one[k] for one in each]) for k in (1, 2))
    certificate = relu.certify(X, Y, beta=BETA, loss="squared", V=V, W=W, gates=D, tol=1e-6)
    assert certificate.holds
    total = sum(value for value, *_ in each)
    assert certificate.details["fun_convex"] == pytest.approx(total, rel=1e-7)
    swapped = relu.certify(X, Y, beta=BETA, loss="squared", V=V[::-1], W=W[::-1], gates=D)
    assert not swapped.holds


# ----------------------------------------------------------------------------------- deceived
def test_weights_outside_their_cones_never_pass(solved):
    X, y, D, optimum, V, W = solved("squared")
    relaxed, V2, W2 = oracles.clarabel(X, y, D, BETA, cones=False)
    assert relaxed < optimum
    outside = judged(solved, V=V2, W=W2)
    assert outside.value == np.inf
    assert outside.details["cone_violation"] > 1e-3
    assert outside.details["fun_convex"] >= optimum * (1 - 1e-9)
    assert np.isfinite(outside.details["gap_projected"])
    assert not judged(solved, gates=~D).holds
    assert not judged(solved, gates=np.roll(D, 1, axis=1)).holds
    assert not judged(solved, V=W, W=V).holds


@pytest.mark.parametrize("unit", [1e-100, 1e-9, 1e-3, 1e3, 1e9, 1e100])
def test_units_of_the_samples_change_nothing(solved, unit):
    X, y, D, optimum, V, W = solved("squared")
    options = {"beta": unit * BETA, "loss": "squared", "gates": D}
    good = relu.certify(unit * X, y, V=V / unit, W=W / unit, **options, tol=1e-6)
    # Clarabel's own violation of 1e-10 counts for more where weights are small.
    assert good.details["gap_projected"] <= 1e-6
    assert good.details["dual"] <= optimum * (1 + 1e-8)
    _, V2, W2 = oracles.clarabel(X, y, D, BETA, cones=False)
    assert not relu.certify(unit * X, y, V=V2 / unit, W=W2 / unit, **options).holds


@pytest.mark.parametrize("beta", [1e-300, 1e-12, 1e12, 1e300])
def test_extreme_penalties_are_judged_soundly(solved, beta):
    X, y, D, _, V, W = solved("squared")
    certificate = relu.certify(X, y, beta=beta, loss="squared", V=V, W=W, gates=D)
    assert not certificate.holds
    zero = relu.certify(X, y, beta=beta, loss="squared", V=0 * V, W=0 * W, gates=D)
    assert zero.holds == (beta > 1)
    assert zero.details["dual"] <= 0.5 * y @ y


def test_overflow_is_no_proof(solved):
    X, y, D, _, V, W = solved("squared")
    for options in ({"V": 1e300 * V, "W": W}, {"V": V, "W": W, "z": 1e300 * y}):
        certificate = relu.certify(X, y, beta=BETA, loss="squared", gates=D, **options)
        assert certificate.holds == ("z" in options and certificate.value <= certificate.tol)
    far = relu.certify(1e100 * X, 1e100 * y, beta=BETA, loss="squared", V=V, W=W, gates=D)
    assert not far.holds


def test_single_precision_weights_pass_with_their_own_slack(solved):
    X, y, D, optimum, V, W = solved("squared")
    single = [a.astype(np.float32) for a in (V, W)]
    X4, y4 = X.astype(np.float32), y.astype(np.float32)
    own = relu.certify(X4, y4, beta=BETA, loss="squared", V=single[0], W=single[1], gates=D)
    assert own.holds
    assert own.details["fun_convex"] == pytest.approx(optimum, rel=1e-5)
    # The same violation is too much for weights that come in double precision.
    hair = 3e-8 * np.sign(V) * (1 + 2 * abs(V).max())
    moved = [(V - hair).astype(t) for t in (np.float32, np.float64)]
    loose, strict = (
        relu.certify(X.astype(v.dtype), y, beta=BETA, loss="squared", V=v, W=W.astype(v.dtype),
                     gates=D, tol=1e-3)
        for v in moved
    )  # fmt: skip
    assert loose.holds
    assert strict.value == np.inf


def test_gates_that_are_no_cells_are_judged_all_the_same(solved):
    X, y, _, _, V, _ = solved("squared")
    D = np.random.default_rng(3).random((len(X), 8)) < 0.5
    zero = np.zeros_like(V)
    certificate = relu.certify(X, y, beta=BETA, loss="squared", V=zero, W=zero, gates=D)
    # No neuron fits: the empty network is the best one over these gates, if not over all.
    assert certificate.holds
    assert certificate.details["dual_global"] < 0.99 * certificate.details["fun"]


# ------------------------------------------------------------------------------- over all gates
@pytest.mark.parametrize(("n", "r"), [(14, 1), (14, 2), (9, 3)])
def test_low_rank_is_proved_over_all_networks(n, r):
    rng = np.random.default_rng(r)
    X, y = rng.standard_normal((n, r)), rng.standard_normal(n)
    D = oracles.cells(X)
    optimum, V, W = oracles.clarabel(X, y, D, 0.2)
    wide = X @ np.linalg.qr(rng.standard_normal((6, r)))[0].T
    lift = np.linalg.pinv(wide) @ X
    for rows, weights in ((X, (V, W)), (wide, (lift @ V, lift @ W))):
        options = {"beta": 0.2, "loss": "squared", "V": weights[0], "W": weights[1]}
        whole = relu.certify(rows, y, gates=D, scope="global", tol=1e-6, **options)
        assert whole.holds
        assert whole.kind != relu.certify(rows, y, gates=D, **options).kind
        assert whole.details["dual_global"] <= optimum * (1 + 1e-8)


def test_too_few_gates_are_found_out():
    rng = np.random.default_rng(5)
    X, y = np.c_[rng.standard_normal(14), np.ones(14)], rng.standard_normal(14)
    optimum = oracles.clarabel(X, y, oracles.cells(X), 0.2)[0]
    few = oracles.cells(X)[:, ::9]
    partial, V, W = oracles.clarabel(X, y, few, 0.2)
    assert partial > 1.001 * optimum
    options = {"beta": 0.2, "loss": "squared", "V": V, "W": W, "gates": few}
    assert relu.certify(X, y, **options).holds
    whole = relu.certify(X, y, scope="global", **options)
    assert not whole.holds
    assert whole.details["dual_global"] <= optimum * (1 + 1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_no_neuron_gives_more_than_the_crude_bound(seed):
    X, _ = oracles.data(40, 5, seed)
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((1, 40)) * rng.random((1, 40)) ** 4
    data = posed(X, z[0], oracles.patterns(X, 5)[0])
    bound = crude_norm(data, z)
    u = rng.standard_normal((5, 5000))
    sampled = abs(z @ np.maximum(X @ (u / np.linalg.norm(u, axis=0)), 0)).max()
    best, neurons, values = search(data, z)
    assert sampled * (1 - 1e-9) <= best <= bound
    for side, sign in enumerate((1.0, -1.0)):
        given = sign * np.maximum(neurons[0, side] @ X.T, 0) @ z[0]
        np.testing.assert_allclose(values[0, side], given, atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(neurons[0, side], axis=1), 1)


# --------------------------------------------------------------------------------------- robust
@pytest.mark.parametrize("loss", ["hinge", "squared", "logistic"])
def test_robust_bounds_enclose_the_optimum(loss):
    X, y = oracles.data(16, 2, 3, labels=labelled(loss))
    X = np.c_[X, np.ones(16)]
    D, g = oracles.patterns(X, 20, 3)
    eps = np.array([0.05, 0.05, 0.0])
    optimum, V, W = oracles.clarabel(X, y, D, 0.1, loss, eps=eps)
    options = {"beta": 0.1, "loss": loss, "V": V, "W": W, "gates": relu.Gates(D, g)}
    certificate = relu.certify(X, y, robust_eps=eps, **options)
    assert certificate.value <= 1e-4
    assert certificate.details["dual"] <= optimum * (1 + 1e-7)
    assert certificate.details["fun_convex"] == pytest.approx(optimum, rel=1e-6)
    assert certificate.details["cone_violation"] <= 1e-8
    for factor in (0.9, 1.1):
        spoiled = relu.certify(
            X, y, robust_eps=eps, **options | {"V": factor * V, "W": factor * W}
        )
        excess = spoiled.details["fun_convex"] - optimum
        assert spoiled.value >= excess / spoiled.details["fun_convex"] - 1e-7
    # The worst case of the network on a grid of the box is no worse than its certificate.
    hidden, out = (relu.recover(V, W).hidden, relu.recover(V, W).out)
    worst = 0.0
    for step in np.array(np.meshgrid(*[np.linspace(-0.05, 0.05, 5)] * 2)).reshape(2, -1).T:
        p = np.maximum((X + np.r_[step, 0]) @ hidden, 0) @ out
        each = {
            "hinge": np.maximum(1 - y * p, 0),
            "squared": 0.5 * (p - y) ** 2,
            "logistic": np.logaddexp(0, -y * p),
        }[loss]
        worst = np.maximum(worst, each)
    penalty = 0.05 * (np.square(hidden).sum() + np.square(out).sum())
    assert worst.sum() + penalty <= certificate.details["fun_convex"] * (1 + 1e-9)
    # Any point of the dual bounds from below, however little it knows.
    data, rng = posed(X, y, D, loss, 0.1, eps), np.random.default_rng(0)
    for size in (0.1, 1.0, 10.0):
        z, w = size * rng.standard_normal((2, 1, 16))
        eta = size * rng.standard_normal((1, 16, 3))
        assert dual_bound(data, RobustDual(z, w, eta)) <= optimum * (1 + 1e-7)


@pytest.mark.parametrize("loss", ["hinge", "squared", "logistic"])
def test_results_of_robust_training_are_proved_from_what_they_hold(loss):
    X, y = oracles.data(16, 2, 3, labels=labelled(loss))
    X = np.c_[X, np.ones(16)]
    D, _ = oracles.patterns(X, 20, 3)
    options = {"beta": 0.1, "loss": loss, "gates": D, "robust_eps": np.array([0.05, 0.05, 0.0])}
    res = relu.admm(X, y, tol=1e-3, maxiter=20000, **options)
    assert res.success
    assert relu.certify(X, y, V=res.V, W=res.W, z=res.z, tol=2e-3, **options).holds


def test_no_radius_is_the_plain_programme(solved):
    plain, still = judged(solved), judged(solved, robust_eps=0.0)
    assert plain.details == still.details
    X, y, D, _, V, W = solved("squared")
    moved = judged(solved, robust_eps=0.1)
    assert moved.details["fun_convex"] > plain.details["fun_convex"]
    inside = feasible(posed(X, y, D, eps=np.full(4, 0.1)), blocks(V, W))
    assert posed(X, y, D, eps=np.full(4, 0.1)).violation(inside)[0] <= 1e-12


# ---------------------------------------------------------------------------------- what comes in
def test_bad_arguments_are_named(solved):
    X, y, D, _, V, W = solved("squared")
    broken = V.copy()
    broken[0, 0] = np.nan
    table = [
        (ValueError, "V", {"V": broken}),
        (ValueError, "V", {"V": V[:-1]}),
        (ValueError, "W", {"W": W[:, :-1]}),
        (TypeError, "W", {"W": W.astype(complex)}),
        (ValueError, "gates", {"gates": D[:-1]}),
        (ValueError, "z", {"z": y[:-1]}),
        (ValueError, "z", {"z": np.full(len(y), np.inf)}),
        (ValueError, "alpha", {"z": y, "alpha": np.zeros((len(y), 3))}),
        (ValueError, "gamma", {"z": y, "gamma": np.zeros((3, D.shape[1]))}),
        (ValueError, "beta", {"beta": 0.0}),
        (ValueError, "tol", {"tol": -1.0}),
        (ValueError, "scope", {"scope": "everywhere"}),
        (ValueError, "loss", {"loss": "absolute"}),
        (ValueError, "y", {"loss": "hinge"}),
        (ValueError, "robust_eps", {"robust_eps": -0.1}),
        (ValueError, "robust_eps", {"robust_eps": np.ones(3)}),
        (NotImplementedError, "robust_eps", {"loss": "huber", "robust_eps": 0.1}),
    ]
    options = {"beta": BETA, "loss": "squared", "V": V, "W": W, "gates": D}
    for error, name, changes in table:
        with pytest.raises(error, match=f"^`{name}`"):
            relu.certify(X, y, **(options | changes))


def test_parameters_of_the_losses_count(solved):
    assert judged(solved, "huber").holds
    assert not judged(solved, "huber", delta=0.2).holds
    assert judged(solved, "logistic").holds
    assert not judged(solved, "logistic", logit_scale=2.0).holds


def test_nothing_of_the_caller_is_changed(solved):
    X, y, D, _, V, W = solved("hinge")
    given = [a.copy() for a in (X, y, D, V, W)]
    for a in given:
        a.setflags(write=False)
    X2, y2, D2, V2, W2 = given
    options = {"beta": BETA, "loss": "hinge", "V": V2, "W": W2, "z": y2}
    assert relu.certify(X2, y2, gates=D2, **options).holds
    for a, b in zip(given, (X, y, D, V, W), strict=True):
        np.testing.assert_array_equal(a, b)
