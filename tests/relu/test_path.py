import warnings

import numpy as np
import pytest

import solvers
from solvers import relu
from tests.relu import conic


def data(n=30, d=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, np.maximum(X @ rng.standard_normal(d), 0) + 0.3 * rng.standard_normal(n)


def test_every_weight_reaches_its_optimum_in_the_order_given():
    X, y = data()
    gates = relu.sample_gates(X, 6, rng=0)
    betas = [0.5, 2.0, 1.0]
    results = relu.path(X, y, betas=betas, gates=gates, tol=1e-4)
    assert [res.beta for res in results] == betas
    for res in results:
        optimum, _, _ = conic.convex_optimum(X, y, gates.D, res.beta)
        assert res.success
        assert optimum * (1 - 1e-7) <= res.fun_convex <= optimum * (1 + 2e-4)


@pytest.mark.parametrize("method", ["admm", "gated", "sampled_convex"])
def test_weights_start_where_the_network_is_zero(method):
    X, y = data()
    size = "n_neurons" if method == "sampled_convex" else "n_gates"
    results = relu.path(X, y, betas=3, method=method, rng=0, maxiter=20000, **{size: 6})
    betas = [res.beta for res in results]
    np.testing.assert_allclose(betas, betas[0] * np.array([1, 1e-3**0.5, 1e-3]))
    assert results[0].n_active == 0
    assert results[1].n_active > 0
    # One set of gates, and a little below the first weight the network is not zero any more.
    train = getattr(relu, method)
    D = results[0].gates.D
    assert all(np.array_equal(res.gates.D, D) for res in results)
    own = {"gates": results[0].gates}
    if method == "sampled_convex":
        H = np.maximum(X @ results[0].gates.vectors, 0)
        assert betas[0] == pytest.approx(abs(H.T @ y).max())
    else:
        assert train(X, y, beta=0.99 * betas[0], tol=1e-6, **own).n_active > 0


def test_joint_outputs_and_means_have_their_own_largest_weight():
    X, y = data()
    Y = np.c_[y, -0.5 * y + 1]
    for norm in ("frobenius", "nuclear"):
        options = {"method": "gated", "multi_output": "joint", "norm": norm, "n_gates": 6}
        first, second = relu.path(X, Y, betas=2, rng=0, loss_scale="mean", **options)
        assert not first.U.any()
        assert first.nit == 0
        assert second.U.any()
        options = {k: v for k, v in options.items() if k not in ("method", "n_gates")}
        less = relu.gated(
            X, Y, beta=0.99 * first.beta, loss_scale="mean", gates=first.gates, tol=1e-9, **options
        )
        assert less.U.any()


def test_twenty_weights_are_the_default():
    X, y = data(12, 2)
    results = relu.path(X, y, method="gated", n_gates=4, rng=0)
    assert len(results) == 20
    assert all(res.success for res in results)
    assert (np.diff([res.fun_convex for res in results]) < 0).all()


def test_warm_starts_save_steps():
    X, y = data(40, 5)
    gates = relu.sample_gates(X, 20, rng=0)
    betas = np.geomspace(2.0, 0.5, 8)
    warm = relu.path(X, y, betas=betas, method="gated", gates=gates)
    cold = [relu.gated(X, y, beta=beta, gates=gates) for beta in betas]
    assert sum(res.nit for res in warm) < sum(res.nit for res in cold)


def test_one_sentence_warns_about_all_weights():
    X, y = data()
    with pytest.warns(solvers.ConvergenceWarning, match="path: 2 of 2 weights") as caught:
        results = relu.path(X, y, betas=[0.5, 0.1], method="gated", n_gates=5, maxiter=1, rng=0)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert all(res.status == solvers.Status.MAXITER for res in results)


def test_a_callback_that_ends_a_run_ends_the_path():
    X, y = data()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = relu.path(
            X, y, betas=[0.1, 0.5, 0.3], method="gated", n_gates=5, rng=0,
            callback=lambda intermediate_result: True,
        )  # fmt: skip
    assert [res.beta for res in results] == [0.5]
    assert results[0].status == solvers.Status.CALLBACK


def test_the_time_limit_is_that_of_all_weights():
    X, y = data()
    with pytest.warns(solvers.ConvergenceWarning):
        results = relu.path(
            X, y, betas=[0.5, 0.1], method="gated", n_gates=5, rng=0, time_limit=1e-9
        )
    assert [res.status for res in results] == [solvers.Status.TIME_LIMIT] * 2


X0, Y0 = data(8, 2)
BAD = [
    ("X", ValueError, {"X": np.full((8, 2), np.nan)}),
    ("y", ValueError, {"y": Y0[:-1]}),
    ("betas", ValueError, {"betas": []}),
    ("betas", ValueError, {"betas": 0}),
    ("betas", TypeError, {"betas": 2.5}),
    ("betas", ValueError, {"betas": [0.1, 0.0]}),
    ("betas", ValueError, {"betas": [[0.1]]}),
    ("betas", TypeError, {"betas": ["much"]}),
    ("betas", ValueError, {"betas": None, "y": np.zeros(8)}),
    ("method", ValueError, {"method": "exact"}),
    ("beta", TypeError, {"beta": 0.1}),
    ("n_neurons", TypeError, {"n_neurons": 5}),
    ("time_limit", ValueError, {"time_limit": -1.0}),
    ("rng", TypeError, {"rng": "seed"}),
    ("loss", ValueError, {"loss": "cubic"}),
    ("loss", ValueError, {"loss": "cubic", "betas": 3}),
]


@pytest.mark.parametrize(("name", "error", "change"), BAD)
def test_bad_arguments_are_refused_by_name(name, error, change):
    call = {"X": X0, "y": Y0, "betas": [0.1], "method": "gated", "rng": 0, **change}
    with pytest.raises(error, match=f"`{name}`"):
        relu.path(call.pop("X"), call.pop("y"), **call)
