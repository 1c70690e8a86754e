import copy
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.linear_model

import solvers
from solvers import bcd, penalties
from solvers.bcd._certificate import judge_together
from tests.bcd import oracles


def data(rng, n=40, p=25):
    X = rng.normal(size=(n, p))
    return X, X[:, :4] @ np.array([3.0, -2.0, 1.0, 0.5]) + 0.5 * rng.normal(size=n) + 1.0


def two_classes(rng, n=40, p=25):
    X, y = data(rng, n, p)
    return X, np.where(y + rng.normal(size=n) > 1.0, "yes", "no") == "yes"


# One case for each front: name, targets, options, and the penalty for `certify`.
FRONTS = [
    ("lasso", "real", {}, penalties.L1),
    ("lasso", "real", {"positive": True}, penalties.PositiveL1),
    ("elastic_net", "real", {"l1_ratio": 0.3}, lambda a: penalties.ElasticNet(a, 0.3)),
    ("huber", "real", {"delta": 1.0}, penalties.L1),
    ("logistic", "two", {}, penalties.L1),
    ("logistic", "two", {"penalty": "enet", "l1_ratio": 0.5}, penalties.ElasticNet),
    ("sparse_regression", "real", {"gamma": 5.0}, lambda a: penalties.MCP(a, 5.0)),
    ("sparse_regression", "real", {"penalty": "lq"}, penalties.Lq),
    ("multinomial", "three", {}, penalties.L1),
    ("multinomial", "three", {"penalty": "row"}, penalties.RowL2),
    (
        "group_lasso",
        "real",
        {"groups": np.arange(25) // 5},
        lambda a: penalties.GroupL2(a, np.arange(25) // 5),
    ),
]


@pytest.mark.parametrize(("name", "kind", "options", "penalty"), FRONTS)
def test_every_front_has_a_path_from_nothing_on_each_point_certified(
    rng, name, kind, options, penalty
):
    X, y = data(rng)
    targets = {"real": y, "two": y > 1.0, "three": np.digitize(y, (0.0, 2.0))}[kind]
    fun = getattr(bcd, name)
    res = bcd.path(fun, X, targets, alphas=5, eps=0.1, fit_intercept=True, tol=1e-7, **options)
    assert res.success
    assert res.nit == 5
    assert not np.any(res.coefs[0])
    assert np.any(res.coefs[1])
    np.testing.assert_allclose(res.alphas, res.alphas[0] * np.geomspace(1, 0.1, 5))
    datafit = {"huber": solvers.losses.Huber(1.0), "logistic": "logistic"}.get(name, "quadratic")
    datafit = "multinomial" if kind == "three" else datafit
    for i, alpha in enumerate(res.alphas):
        problem = bcd.Problem(
            X, targets, datafit=datafit, penalty=penalty(alpha), fit_intercept=True
        )
        found = bcd.certify(problem, res.coefs[i], intercept=res.intercepts[i], tol=1e-7)
        assert found.holds
        assert found.value == pytest.approx(res.certified[i], rel=1e-6, abs=1e-14)
        assert found.details["primal"] == pytest.approx(res.fun[i], rel=1e-12)
        assert res.gaps[i] == pytest.approx(
            found.details.get("gap", np.nan), nan_ok=True, abs=1e-13
        )
    assert res.certificate.value == max(res.certified)


def test_a_path_ends_where_cold_solves_do(rng):
    X, y = data(rng)
    weights, s = rng.uniform(0.5, 2.0, size=25), rng.uniform(0.5, 2.0, size=40)
    options = {"weights": weights, "sample_weight": s, "fit_intercept": True, "tol": 1e-12}
    alphas = [0.02, 1.0, 0.3]
    res = bcd.path(bcd.lasso, X, y, alphas=alphas, **options)
    np.testing.assert_array_equal(res.alphas, sorted(alphas, reverse=True))
    for i, alpha in enumerate(res.alphas):
        cold = bcd.lasso(X, y, alpha, **options)
        np.testing.assert_allclose(res.coefs[i], cold.x, atol=1e-9)
        assert res.intercepts[i] == pytest.approx(cold.intercept, abs=1e-9)
        assert res.fun[i] == pytest.approx(cold.fun, rel=1e-11)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_breakpoints_are_those_of_scikit_learn(rng, positive, fit_intercept):
    X, y = data(rng, 30, 50)
    res = bcd.path(
        bcd.lasso,
        X,
        y,
        method="lars",
        eps=0.01,
        positive=positive,
        fit_intercept=fit_intercept,
        tol=1e-13,
    )
    assert res.success
    Z, t = (X - X.mean(axis=0), y - y.mean()) if fit_intercept else (X, y)
    alphas, _, coefs = sklearn.linear_model.lars_path(
        Z, t, method="lasso", alpha_min=0.01 * res.alphas[0], positive=positive
    )
    np.testing.assert_allclose(res.alphas, alphas, atol=1e-12)
    np.testing.assert_allclose(res.coefs, coefs.T, atol=1e-10)
    np.testing.assert_allclose(
        res.intercepts, (y.mean() - coefs.T @ X.mean(axis=0)) * fit_intercept, atol=1e-10
    )


def test_lars_and_warm_starts_agree_on_a_grid_in_every_layout(rng):
    X, y = data(rng)
    X[abs(X) < 0.3] = 0.0
    want = bcd.path(bcd.lasso, X, y, alphas=6, eps=0.01, tol=1e-12)
    for Z in (X, np.asfortranarray(X), sp.csc_array(X)):
        for method in ("auto", "lars"):
            res = bcd.path(bcd.lasso, Z, y, alphas=6, eps=0.01, method=method, tol=1e-12)
            np.testing.assert_allclose(res.coefs, want.coefs, atol=1e-9)
            assert res.success
    single = bcd.path(
        bcd.lasso, X.astype(np.float32), y.astype(np.float32), alphas=6, eps=0.01, method="lars"
    )
    assert single.success
    assert single.coefs.dtype == single.intercepts.dtype == np.float32
    np.testing.assert_allclose(single.coefs, want.coefs, atol=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_lars_is_exact_where_columns_depend_on_each_other(seed):
    rng = np.random.default_rng(seed)
    n, p = 8, 6
    X, y = rng.integers(-1, 2, size=(n, p)).astype(float), rng.normal(size=n)
    X[:, 1], X[:, 3], X[:, 5] = X[:, 0], 0.0, X[:, 0] - X[:, 2]
    weights = rng.choice([0.5, 1.0, 2.0], size=p)
    alpha = rng.uniform(0.01, 0.9) * bcd.alpha_max("quadratic", X, y, weights=weights)
    res = bcd.lasso(X, y, alpha, weights=weights, method="lars", tol=1e-13)
    assert res.success
    assert res.fun == pytest.approx(oracles.enumerate_lasso(X, y, alpha * weights)[1], rel=1e-13)


def test_lars_starts_with_unpenalised_features_and_ends_with_least_squares(rng):
    X, y = data(rng, 30, 6)
    weights = np.array([1.0, 0.0, 1.0, 0.0, 2.0, 1.0])
    top = bcd.alpha_max("quadratic", X, y, weights=weights, fit_intercept=True)
    options = {"method": "lars", "fit_intercept": True, "tol": 1e-13}
    alone = np.linalg.lstsq(np.c_[X[:, [1, 3]], np.ones(30)], y, rcond=None)[0]
    res = bcd.lasso(X, y, 1.01 * top, weights=weights, **options)
    np.testing.assert_allclose(res.x[[1, 3]], alone[:2], atol=1e-12)
    assert res.nit == 0
    assert res.success
    full = np.linalg.lstsq(np.c_[X, np.ones(30)], y, rcond=None)[0]
    res = bcd.lasso(X, y, 0.0, **options)
    np.testing.assert_allclose(res.x, full[:6], atol=1e-11)
    assert res.intercept == pytest.approx(full[6], abs=1e-11)


def test_another_solver_takes_over_where_lars_turns_in_circles(rng, monkeypatch):
    X, y = data(rng)
    want = bcd.path(bcd.lasso, X, y, alphas=4, eps=0.1, tol=1e-10)
    monkeypatch.setattr("solvers.bcd._lars._TURNS", -1000)
    res = bcd.lasso(X, y, want.alphas[2], method="lars", tol=1e-10)
    assert res.success
    assert res.used["selection"] != "lars"
    np.testing.assert_allclose(res.x, want.coefs[2], atol=1e-6)
    res = bcd.path(bcd.lasso, X, y, alphas=4, eps=0.1, method="lars", tol=1e-10)
    assert res.success
    np.testing.assert_allclose(res.coefs, want.coefs, atol=1e-6)


def test_lars_stops_at_its_limits_and_says_so(rng):
    X, y = data(rng)
    with pytest.warns(solvers.ConvergenceWarning):
        res = bcd.lasso(X, y, 0.001, method="lars", maxiter=3)
    assert res.nit == 3
    assert res.status == solvers.Status.MAXITER
    whole = bcd.lasso(X, y, 0.001, method="lars", history=True)
    # The objective falls from breakpoint to breakpoint.
    assert np.all(np.diff(whole.history["fun"]) <= 1e-12)
    assert whole.used["selection"] == "lars"


def test_paths_keep_their_zeros_out_and_show_themselves(rng):
    X, y = data(rng)
    res = bcd.path(bcd.lasso, X, y, alphas=8)
    rows = res.sparse()
    assert isinstance(rows, sp.csr_array)
    assert rows.nnz == np.count_nonzero(res.coefs)
    np.testing.assert_array_equal(rows.toarray(), res.coefs)
    for twin in (pickle.loads(pickle.dumps(res)), copy.deepcopy(res)):
        np.testing.assert_array_equal(twin.coefs, res.coefs)
        assert twin.certificate == res.certificate
    assert len(res.history["alpha"]) == 8
    np.testing.assert_array_equal(res.history["alpha"], res.alphas)
    np.testing.assert_array_equal(res.history["nnz"], (res.coefs != 0).sum(axis=1))
    assert "coefs" in dir(res)
    assert "alphas" in repr(res)
    pyplot = pytest.importorskip("matplotlib.pyplot")
    ax = res.plot_coefs()
    assert len(ax.lines) == np.count_nonzero(res.coefs.any(axis=0))
    assert ax.get_xlabel() == "alpha"
    other = pyplot.figure().add_subplot()
    assert res.plot_coefs(ax=other) is other
    pyplot.close("all")
    classes = bcd.path(bcd.multinomial, X, np.digitize(y, (0.0, 2.0)), alphas=3, eps=0.2)
    assert classes.coefs.shape == (3, 25, 3)
    assert classes.sparse().shape == (3, 75)
    assert classes.intercepts.shape == (3, 3)
    np.testing.assert_array_equal(classes.classes, [0, 1, 2])


def test_callbacks_limits_and_histories_are_those_of_the_path(rng):
    X, y = data(rng)
    seen = []

    def stop(intermediate_result):
        seen.append((intermediate_result.alpha, intermediate_result.x.shape))
        return len(seen) == 3

    res = bcd.path(bcd.lasso, X, y, alphas=9, callback=stop)
    assert res.status == solvers.Status.CALLBACK
    assert "3 of 9 weights" in res.message
    assert seen == [(alpha, (25,)) for alpha in res.alphas]
    assert len(res.alphas) == len(res.coefs) == 3
    off = bcd.path(bcd.lasso, X, y, alphas=9, history=False)
    assert off.history == {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        late = bcd.path(bcd.lasso, X, y, alphas=1000, time_limit=1e-9)
        poor = bcd.path(bcd.logistic, X, y > 1, alphas=4, maxiter=1, tol=1e-14)
    assert len(late.alphas) < 1000
    assert not poor.success
    assert poor.certificate.value == max(poor.certified)
    assert [w.category for w in caught].count(solvers.ConvergenceWarning) == len(caught) <= 2


def test_a_start_and_a_seed_have_their_effect(rng):
    X, y = data(rng)
    first = bcd.lasso(X, y, 0.5, tol=1e-10)
    res = bcd.path(bcd.lasso, X, y, alphas=[0.5], x0=first)
    assert res.nits[0] == 0
    options = {"selection": "random", "block_size": 2, "alphas": 3, "eps": 0.3}
    one, two, other = (bcd.path(bcd.lasso, X, y, rng=r, **options) for r in (1, 1, 2))
    np.testing.assert_array_equal(one.coefs, two.coefs)
    assert np.any(one.coefs != other.coefs)


@pytest.mark.parametrize(
    ("change", "kind", "name"),
    [
        ({"fun": bcd.nnls}, TypeError, "fun"),
        ({"fun": "lasso"}, TypeError, "fun"),
        ({"fun": sklearn.linear_model.Lasso}, TypeError, "fun"),
        ({"alphas": 0}, ValueError, "alphas"),
        ({"alphas": True}, TypeError, "alphas"),
        ({"alphas": []}, ValueError, "alphas"),
        ({"alphas": [[1.0]]}, ValueError, "alphas"),
        ({"alphas": [1.0, -0.1]}, ValueError, "alphas"),
        ({"alphas": [1.0, np.nan]}, ValueError, "alphas"),
        ({"alphas": "ten"}, TypeError, "alphas"),
        ({"eps": 0.0}, ValueError, "eps"),
        ({"eps": 1.0}, ValueError, "eps"),
        ({"eps": None}, TypeError, "eps"),
        ({"alpha": 0.1}, TypeError, "alpha"),
        ({"l1_ratio": 0.1}, TypeError, "l1_ratio"),
        ({"tol": -1.0}, ValueError, "tol"),
        ({"y": np.zeros(3)}, ValueError, "y"),
        ({"method": "nonsense"}, ValueError, "method"),
        ({"callback": 3}, TypeError, "callback"),
        ({"fun": bcd.elastic_net, "l1_ratio": 0.0}, ValueError, "alphas"),
        ({"fun": bcd.elastic_net, "method": "lars"}, ValueError, "method"),
    ],
)
def test_wrong_arguments_are_named(rng, change, kind, name):
    X, y = data(rng)
    arguments = {"fun": bcd.lasso, "X": X, "y": y, **change}
    with pytest.raises(kind, match=f"^`{name}`"):
        bcd.path(**arguments)


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("datafit", ["quadratic", "logistic", "multinomial"])
def test_answers_judged_together_get_the_certificates_they_get_alone(rng, datafit, fit_intercept):
    X = rng.standard_normal((25, 6))
    z = X[:, 0] - X[:, 1] + 0.3 * rng.standard_normal(25)
    y = {"quadratic": z, "logistic": np.sign(z), "multinomial": np.digitize(z, [-0.5, 0.5])}
    problems = [
        bcd.Problem(
            X, y[datafit], datafit=datafit, penalty=penalties.L1(a), fit_intercept=fit_intercept
        )
        for a in (0.3, 0.1, 0.03)
    ]
    points = [rng.standard_normal(p.model.shape) for p in problems]
    intercepts = [rng.standard_normal(p.model.zeros()[1].shape) * fit_intercept for p in problems]
    found = judge_together(
        [p.model for p in problems],
        [(w.reshape(-1), c) for w, c in zip(points, intercepts, strict=True)],
        tol=1e-8,
    )
    for problem, w, c, certificate in zip(problems, points, intercepts, found, strict=True):
        alone = bcd.certify(problem, w, intercept=c if fit_intercept else None)
        assert certificate.value == pytest.approx(alone.value, rel=1e-12)
        assert certificate.details == pytest.approx(alone.details, rel=1e-10, abs=1e-12)


def test_a_path_whose_answers_are_judged_together_is_that_of_one_by_one(rng):
    X, y = rng.standard_normal((30, 12)), rng.standard_normal(30)
    seen = []
    one = bcd.path(bcd.lasso, X, y, alphas=30, callback=lambda state: seen.append(state.alpha))
    many = bcd.path(bcd.lasso, X, y, alphas=30)
    assert len(seen) == 30
    np.testing.assert_allclose(many.coefs, one.coefs, atol=1e-12)
    np.testing.assert_allclose(many.gaps, one.gaps, atol=1e-14)
