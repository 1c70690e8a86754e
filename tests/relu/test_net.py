import numpy as np
import pytest

from solvers import relu
from tests.relu import conic
from tests.relu.conic import LOSSES


def weights(d=3, P=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d, P)), rng.standard_normal((d, P))


def penalty(V, W):
    return np.linalg.norm(V, axis=-2).sum() + np.linalg.norm(W, axis=-2).sum()


def outputs(X, V, W):
    return np.maximum(X @ V, 0).sum(axis=1) - np.maximum(X @ W, 0).sum(axis=1)


def test_a_network_predicts_what_its_weights_do_and_costs_as_much(rng):
    V, W = weights()
    V[:, 2] = 0
    X = rng.standard_normal((20, 3))
    net = relu.recover(V, W)
    assert net.hidden.shape == (3, 9)
    np.testing.assert_allclose(net.predict(X), outputs(X, V, W), atol=1e-12)
    cost = np.square(net.hidden).sum() + np.square(net.out).sum()
    assert 0.5 * cost == pytest.approx(penalty(V, W), rel=1e-12)
    # Both layers of each neuron weigh the same, which no rescaling beats.
    np.testing.assert_allclose(np.linalg.norm(net.hidden, axis=0), abs(net.out))


def test_several_outputs_have_neurons_of_their_own(rng):
    pairs = [weights(seed=k) for k in range(2)]
    V, W = (np.stack(part) for part in zip(*pairs, strict=True))
    V[1, :, 0] = 0
    X = rng.standard_normal((20, 3))
    net = relu.recover(V, W)
    assert net.out.shape == (19, 2)
    assert ((net.out != 0).sum(axis=1) == 1).all()
    expected = np.stack([outputs(X, v, w) for v, w in zip(V, W, strict=True)], axis=1)
    np.testing.assert_allclose(net.predict(X), expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_joined_neurons_predict_the_same_for_less(seed):
    rng = np.random.default_rng(seed)
    # One feature besides the ones: few patterns, so that many neurons share theirs.
    X = np.c_[rng.standard_normal(6), np.ones(6)]
    V, W = weights(2, 12, seed)
    V[:, 3] = V[:, 4] = 0
    whole, joined = relu.recover(V, W), relu.recover(V, W, X=X)
    assert joined.hidden.shape[1] < whole.hidden.shape[1]
    np.testing.assert_allclose(joined.predict(X), whole.predict(X), atol=1e-10)
    values = [relu.network_objective(X, np.zeros(6), net, 1.0) for net in (whole, joined)]
    assert values[1] <= values[0] * (1 + 1e-12)
    # No two of one sign see the same, and none sees nothing.
    seen = [(a > 0, *(h > 1e-12)) for a, h in zip(joined.out, (X @ joined.hidden).T, strict=True)]
    assert len(set(seen)) == len(seen)
    assert all(any(pattern) for _, *pattern in seen)


def test_joining_keeps_signs_and_outputs_apart():
    X = np.eye(2)
    V = np.array([[1.0, 2.0], [1.0, 0.5]])
    net = relu.recover(np.stack([V, V]), np.stack([V, 0 * V]), X=X)
    np.testing.assert_allclose(net.hidden * abs(net.out).sum(axis=1), [[3, 3, 3], [1.5] * 3])
    np.testing.assert_allclose(np.sign(net.out), [[1, 0], [-1, 0], [0, 1]])


def test_nothing_recovers_as_a_network_without_neurons():
    zero = np.zeros((3, 4))
    for X in (None, np.ones((5, 3))):
        net = relu.recover(zero, zero, X=X)
        assert net.hidden.shape == (3, 0)
        np.testing.assert_array_equal(net.predict(np.ones((2, 3))), 0)
        assert relu.network_objective(np.ones((2, 3)), [1.0, 2.0], net, 0.1) == 2.5
    assert relu.recover(zero[None], zero[None]).predict(np.ones((2, 3))).shape == (2, 1)


def test_a_bias_is_the_last_weight_of_each_neuron(rng):
    V, W = weights()
    X = rng.standard_normal((20, 2))
    ones = np.c_[X, np.ones(20)]
    for more in ({}, {"X": X}):
        net = relu.recover(V, W, bias=True, **more)
        np.testing.assert_allclose(net.predict(X), outputs(ones, V, W), atol=1e-10)
    assert repr(net).startswith("Net(")
    assert "2 features and a bias" in repr(net)


def test_solvers_return_networks_whose_neurons_are_joined():
    rng = np.random.default_rng(0)
    X = np.c_[rng.uniform(-1, 1, 15), np.ones(15)]
    res = relu.admm(X, rng.standard_normal(15), beta=0.05, n_gates=10, rng=0, tol=1e-3)
    seen = X @ res.net.hidden > 1e-9
    patterns = {(a > 0, *column) for a, column in zip(res.net.out, seen.T, strict=True)}
    assert len(patterns) == res.net.out.size


@pytest.mark.parametrize("loss", list(LOSSES))
def test_the_objective_is_loss_plus_penalty(loss, rng):
    X, y = rng.standard_normal((20, 3)), np.where(rng.random(20) > 0.5, 1.0, -1.0)
    net = relu.recover(*weights())
    by_hand = conic.network_value(net, X, y, 0.3, loss)
    assert relu.network_objective(X, y, net, 0.3, loss) == pytest.approx(by_hand, rel=1e-13)


def test_the_objective_knows_the_losses_parameters(rng):
    X, y = rng.standard_normal((20, 3)), np.where(rng.random(20) > 0.5, 1.0, -1.0)
    net = relu.recover(*weights())
    p, cost = net.predict(X), 0.15 * (np.square(net.hidden).sum() + np.square(net.out).sum())
    steep = relu.network_objective(X, y, net, 0.3, "logistic", logit_scale=2.0)
    assert steep == pytest.approx(np.logaddexp(0, -2 * y * p).sum() + cost)
    r = abs(p - y)
    huber = np.where(r <= 0.5, 0.5 * r**2, 0.5 * r - 0.125).sum()
    assert relu.network_objective(X, y, net, 0.3, "huber", delta=0.5) == pytest.approx(
        huber + cost
    )


def test_the_objective_of_single_precision_weights_is_in_double(rng):
    X = rng.standard_normal((20, 3)).astype(np.float32)
    V, W = (a.astype(np.float32) for a in weights())
    net = relu.recover(V, W)
    assert net.hidden.dtype == net.predict(X).dtype == np.float32
    wide = relu.Net(net.hidden.astype(float), net.out.astype(float))
    by_hand = conic.network_value(wide, X.astype(float), np.zeros(20), 0.3)
    found = relu.network_objective(X, np.zeros(20, dtype=np.float32), net, 0.3)
    assert found == pytest.approx(by_hand, rel=1e-13)


V0, W0 = weights()
NET = relu.recover(V0, W0)
X0, Y0 = np.ones((4, 3)), np.ones(4)


@pytest.mark.parametrize(
    ("name", "error", "call"),
    [
        ("V", ValueError, lambda: relu.recover(V0[0], W0)),
        ("V", ValueError, lambda: relu.recover(V0 * np.nan, W0)),
        ("W", ValueError, lambda: relu.recover(V0, W0[:, :-1])),
        ("W", TypeError, lambda: relu.recover(V0, W0.astype(complex))),
        ("X", ValueError, lambda: relu.recover(V0, W0, X=np.ones((4, 2)))),
        ("bias", TypeError, lambda: relu.recover(V0, W0, bias="yes")),
        ("X", ValueError, lambda: NET.predict(np.ones((4, 2)))),
        ("X", ValueError, lambda: NET.predict(np.ones(3))),
        ("X", ValueError, lambda: relu.network_objective(np.ones((4, 2)), Y0, NET, 0.1)),
        ("X", TypeError, lambda: relu.network_objective(X0.astype(str), Y0, NET, 0.1)),
        ("y", ValueError, lambda: relu.network_objective(X0, Y0[:-1], NET, 0.1)),
        ("y", ValueError, lambda: relu.network_objective(X0, 2 * Y0, NET, 0.1, "hinge")),
        ("out", ValueError, lambda: relu.network_objective(X0, np.ones((4, 2)), NET, 0.1)),
        ("net", TypeError, lambda: relu.network_objective(X0, Y0, "net", 0.1)),
        ("beta", ValueError, lambda: relu.network_objective(X0, Y0, NET, 0.0)),
        ("loss", ValueError, lambda: relu.network_objective(X0, Y0, NET, 0.1, "cubic")),
        ("delta", ValueError, lambda: relu.network_objective(X0, Y0, NET, 0.1, delta=0.0)),
    ],
)
def test_bad_arguments_are_refused_by_name(name, error, call):
    with pytest.raises(error, match=f"`{name}`"):
        call()


@pytest.mark.parametrize(("hidden", "out"), [((3, 2), (3,)), ((3,), (3,)), ((3, 2), (2, 1, 1))])
def test_a_network_whose_parts_do_not_fit_is_refused(hidden, out):
    with pytest.raises(ValueError, match="`hidden` and `out` came with shapes"):
        relu.Net(np.ones(hidden), np.ones(out))
