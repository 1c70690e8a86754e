import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.linear_model

import solvers
from solvers import relu
from tests.relu import conic
from tests.relu.conic import LOSSES


def data(n=40, d=3, c=None, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    Y = np.maximum(X @ rng.standard_normal((d, c or 1)), 0) + 0.3 * rng.standard_normal(
        (n, c or 1)
    )
    return X, Y if c else Y[:, 0]


def signs(y):
    return np.where(y > np.median(y), 1.0, -1.0)


def outputs_of(X, res):
    return np.maximum(X @ res.gates.vectors, 0)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_every_loss_reaches_the_optimum_of_a_conic_solver(loss):
    X, y = data()
    y = y if loss in ("squared", "huber") else signs(y)
    res = relu.sampled_convex(X, y, beta=0.4, loss=loss, n_neurons=50, tol=1e-8, rng=0)
    assert res.success
    H = outputs_of(X, res)
    optimum = conic.lasso_optimum(H, y, 0.4, loss)
    assert res.fun_convex == pytest.approx(optimum, rel=2e-7)
    assert res.dual <= optimum * (1 + 1e-8)
    by_hand = LOSSES[loss](H @ res.alpha, y) + 0.4 * abs(res.alpha).sum()
    assert res.fun_convex == pytest.approx(by_hand, rel=1e-12)


def test_squared_loss_equals_the_lasso_of_scikit_learn():
    X, y = data(80, 5)
    res = relu.sampled_convex(X, y, beta=0.5, n_neurons=300, tol=1e-10, rng=0)
    lasso = sklearn.linear_model.Lasso(
        alpha=0.5 / 80, fit_intercept=False, tol=1e-12, max_iter=10**5
    )
    lasso.fit(outputs_of(X, res), y)
    np.testing.assert_allclose(res.alpha, lasso.coef_, atol=1e-4)
    assert res.n_active == (abs(lasso.coef_) > 1e-6).sum()


def test_neurons_are_the_directions_and_have_the_objective():
    X, y = data()
    res = relu.sampled_convex(X, y, beta=0.3, n_neurons=60, rng=0)
    u = res.gates.vectors
    np.testing.assert_allclose(np.linalg.norm(u, axis=0), 1.0)
    np.testing.assert_array_equal(res.gates.D, X @ u >= 0)
    np.testing.assert_allclose(res.V - res.W, u * res.alpha, atol=1e-14)
    assert conic.network_value(res.net, X, y, 0.3) == pytest.approx(res.fun_convex, rel=1e-10)
    assert res.fun == pytest.approx(res.fun_convex, rel=1e-10)
    assert res.net.hidden.shape[1] == res.n_active < 40
    assert res.dual_global <= res.dual


def test_outputs_share_neurons_and_nothing_else():
    X, Y = data(40, 3, 2)
    together = relu.sampled_convex(X, Y, beta=0.3, n_neurons=50, tol=1e-9, rng=0)
    assert together.alpha.shape == (2, 50)
    for k, y in enumerate(Y.T):
        alone = relu.sampled_convex(X, y, beta=0.3, n_neurons=50, tol=1e-9, rng=0)
        np.testing.assert_allclose(together.alpha[k], alone.alpha, atol=1e-3)
    assert together.net.predict(X).shape == (40, 2)


def test_the_number_of_neurons_follows_the_guarantee():
    X, y = data(10, 2)
    res = relu.sampled_convex(X, y, beta=0.3, xi=0.2, psi=0.1, rng=0)
    assert res.alpha.size == relu.required_gates(10, 0.2, 0.1)
    assert relu.sampled_convex(X, y, beta=0.3, rng=0).alpha.size == 1000


def test_more_neurons_never_raise_the_optimum():
    X, y = data()
    # A generator draws row by row, so fewer neurons are the first of more.
    runs = [relu.sampled_convex(X, y, beta=0.3, n_neurons=k, rng=0) for k in (10, 40, 160)]
    np.testing.assert_array_equal(runs[0].gates.vectors, runs[1].gates.vectors[:, :10])
    values = [res.fun for res in runs]
    assert values[0] >= values[1] * (1 - 1e-6) >= values[2] * (1 - 2e-6)


def test_outputs_of_neurons_in_blocks_give_the_same(monkeypatch):
    X, y = data()
    options = {"beta": 0.3, "n_neurons": 100, "tol": 1e-8, "rng": 0}
    kept = relu.sampled_convex(X, y, **options)
    monkeypatch.setattr("solvers.relu._designs._KEPT", 1000)
    monkeypatch.setattr("solvers.relu._sampled_convex._ROOM", 300)
    blocks = relu.sampled_convex(X, y, **options)
    assert blocks.success
    np.testing.assert_allclose(blocks.alpha, kept.alpha, atol=1e-5)


def test_a_start_ends_at_once():
    X, y = data()
    res = relu.sampled_convex(X, y, beta=0.3, n_neurons=50, rng=0)
    assert relu.sampled_convex(X, y, beta=0.3, n_neurons=50, rng=0, x0=res).nit == 0
    assert relu.sampled_convex(X, y, beta=0.3, n_neurons=50, rng=0, x0=res.alpha).nit <= res.nit


def test_the_largest_useful_beta_is_the_largest_product():
    X, y = data()
    res = relu.sampled_convex(X, y, beta=1e3, n_neurons=50, rng=0)
    largest = abs(outputs_of(X, res).T @ y).max()
    zero = relu.sampled_convex(X, y, beta=1.0001 * largest, n_neurons=50, rng=0)
    some = relu.sampled_convex(X, y, beta=0.999 * largest, n_neurons=50, rng=0, tol=1e-9)
    assert (zero.nit, zero.n_active) == (0, 0)
    assert some.n_active == 1


def test_a_bias_and_the_mean_loss_are_those_of_larger_data_and_beta():
    X, y = data()
    ones = np.c_[X, np.ones(40)]
    short = relu.sampled_convex(
        X, y, beta=0.01, bias=True, loss_scale="mean", n_neurons=50, tol=1e-9, rng=0
    )
    long = relu.sampled_convex(ones, y, beta=0.4, n_neurons=50, tol=1e-9, rng=0)
    np.testing.assert_allclose(short.alpha, long.alpha, atol=1e-5)
    assert 40 * short.fun == pytest.approx(long.fun, rel=1e-8)
    np.testing.assert_allclose(short.net.predict(X), long.net.predict(ones), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (2, 6)])
def test_small_and_constant_data_are_solved(shape):
    for X in (np.ones(shape), np.zeros(shape)):
        res = relu.sampled_convex(X, np.ones(shape[0]), beta=0.1, n_neurons=10, rng=0)
        assert res.success


def test_a_run_that_is_cut_short_says_so_once():
    X, y = data()
    with pytest.warns(solvers.ConvergenceWarning) as caught:
        res = relu.sampled_convex(X, y, beta=0.01, n_neurons=100, maxiter=2, rng=0)
    assert len(caught) == 1
    assert res.status == solvers.Status.MAXITER
    optimum = relu.sampled_convex(X, y, beta=0.01, n_neurons=100, rng=0, tol=1e-9).fun
    assert res.dual <= optimum <= res.fun


X0, Y0 = data(8, 2)
BAD = [
    ("X", ValueError, {"X": np.full((8, 2), np.inf)}),
    ("X", TypeError, {"X": sp.csr_matrix(X0)}),
    ("y", ValueError, {"y": Y0[:-1]}),
    ("y", ValueError, {"loss": "logistic"}),
    ("beta", ValueError, {"beta": -1.0}),
    ("loss", ValueError, {"loss": "softplus"}),
    ("n_neurons", ValueError, {"n_neurons": 0}),
    ("n_neurons", TypeError, {"n_neurons": 1.5}),
    ("n_neurons", ValueError, {"xi": 0.1, "psi": 0.1}),
    ("psi", ValueError, {"n_neurons": None, "xi": 0.1}),
    ("xi", ValueError, {"n_neurons": None, "psi": 0.1}),
    ("xi", ValueError, {"n_neurons": None, "xi": 1.5, "psi": 0.1}),
    ("x0", ValueError, {"x0": np.zeros(4)}),
    ("x0", TypeError, {"x0": "zero"}),
    ("tol", ValueError, {"tol": 0.0}),
    ("maxiter", TypeError, {"maxiter": 2.5}),
    ("rng", ValueError, {"rng": -1}),
]


@pytest.mark.parametrize(("name", "error", "change"), BAD)
def test_bad_arguments_are_refused_by_name(name, error, change):
    call = {"X": X0, "y": Y0, "beta": 0.1, "n_neurons": 5, "rng": 0, **change}
    with pytest.raises(error, match=f"`{name}`"):
        relu.sampled_convex(call.pop("X"), call.pop("y"), **call)


def test_the_same_seed_gives_the_same_digits_and_data_stay_as_they_were():
    X, y = data()
    before = X.copy(), y.copy()
    runs = [relu.sampled_convex(X, y, beta=0.3, n_neurons=50, rng=r) for r in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0].alpha, runs[1].alpha)
    assert runs[0].fun != runs[2].fun
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])


def test_single_precision_is_kept_and_judged_in_double():
    X, y = (a.astype(np.float32) for a in data())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        res = relu.sampled_convex(X, y, beta=0.3, n_neurons=50, tol=1e-4, rng=0)
    assert res.alpha.dtype == res.V.dtype == res.net.out.dtype == np.float32
    H = np.maximum(X.astype(float) @ res.gates.vectors.astype(float), 0)
    value = 0.5 * np.sum((H @ res.alpha.astype(float) - y) ** 2) + 0.3 * abs(res.alpha).sum()
    assert res.fun_convex == pytest.approx(value, rel=1e-6)
