"""Estimators agree with scikit-learn's own, and pass its checks."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
import sklearn.datasets
import sklearn.linear_model
import sklearn.semi_supervised
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import solvers
from solvers import bcd, datasets

REGRESSORS = [
    bcd.Lasso(),
    bcd.LassoCV(alphas=5),
    bcd.ElasticNet(),
    bcd.ElasticNetCV(alphas=5),
    bcd.MCPRegression(),
    bcd.GroupLasso(),
    bcd.HuberL1(),
    bcd.NNLS(),
]
CLASSIFIERS = [
    bcd.SparseLogisticRegression(),
    bcd.SparseLogisticRegressionCV(alphas=5),
    bcd.LabelPropagation(),
]


# Between them they have the code of all; the others take a while.
QUICK = [REGRESSORS[0], CLASSIFIERS[0], CLASSIFIERS[2]]


@pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
@parametrize_with_checks(QUICK)
def test_scikit_learn_finds_nothing_to_complain_about(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
@parametrize_with_checks([model for model in REGRESSORS + CLASSIFIERS if model not in QUICK])
def test_scikit_learn_finds_nothing_to_complain_about_in_the_others(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def data():
    X, y, _ = datasets.autoregressive(60, 20, informative=5, noise=0.3, rng=0)
    return X, y + 3.0


@pytest.fixture(scope="module")
def labelled():
    X, y, _ = datasets.autoregressive(80, 12, informative=5, noise=0.5, classes=True, rng=0)
    return X, np.where(y > 0, "yes", "no")


def both(X):
    """Dense and sparse, with a third of the entries left out."""
    thin = np.where(np.abs(X) < 0.4, 0.0, X)
    return thin, sp.csr_array(thin)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("positive", [True, False])
def test_the_lasso_is_that_of_scikit_learn(data, intercept, positive):
    X, y = data
    options = {"alpha": 0.1, "fit_intercept": intercept, "positive": positive}
    theirs = sklearn.linear_model.Lasso(tol=1e-14, max_iter=100000, **options).fit(X, y)
    ours = bcd.Lasso(tol=1e-13, **options).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, abs=1e-6)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y))
    # A gap of 0 may come out as minus a rounding error.
    assert abs(ours.dual_gap_) <= 1e-12 * ours.result_.scale
    assert ours.result_.certificate.holds


@pytest.mark.parametrize("ratio", [0.1, 0.9])
def test_the_elastic_net_is_that_of_scikit_learn(data, ratio):
    X, y = data
    s = np.linspace(0.5, 2.0, y.size)
    options = {"alpha": 0.2, "l1_ratio": ratio}
    theirs = sklearn.linear_model.ElasticNet(tol=1e-14, max_iter=100000, **options)
    theirs.fit(X, y, sample_weight=s)
    ours = bcd.ElasticNet(tol=1e-13, **options).fit(X, y, sample_weight=s)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, abs=1e-6)


def test_sparse_matrices_give_the_same_models(data, labelled):
    (dense, sparse), y = both(data[0]), data[1]
    (dense_too, sparse_too), classes = both(labelled[0]), labelled[1]
    for model in REGRESSORS:
        fits = [clone(model).set_params(tol=1e-10).fit(A, y) for A in (dense, sparse)]
        np.testing.assert_allclose(fits[0].coef_, fits[1].coef_, atol=1e-4)
        np.testing.assert_allclose(fits[0].predict(sparse), fits[1].predict(dense), atol=1e-3)
    for model in CLASSIFIERS[:2]:
        fits = [
            clone(model).set_params(tol=1e-10).fit(A, classes) for A in (dense_too, sparse_too)
        ]
        np.testing.assert_allclose(fits[0].coef_, fits[1].coef_, atol=1e-4)
        assert (fits[0].predict(sparse_too) == fits[1].predict(dense_too)).all()


@pytest.mark.parametrize("model", REGRESSORS, ids=lambda m: type(m).__name__)
def test_a_doubled_weight_is_a_doubled_row(data, model):
    X, y = data
    count = np.arange(y.size) % 3
    rows = np.repeat(np.arange(y.size), count)
    if hasattr(model, "cv"):
        # Folds are not the same, so the grid has one penalty.
        model = clone(model).set_params(alphas=[0.1])
    weighted = clone(model).set_params(tol=1e-11).fit(X, y, sample_weight=count)
    repeated = clone(model).set_params(tol=1e-11).fit(X[rows], y[rows])
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-4)


def test_the_chosen_lasso_is_that_of_scikit_learn(data):
    X, y = data
    cv = KFold(4, shuffle=True, random_state=0)
    options = {"eps": 1e-2, "alphas": 12, "cv": cv}
    theirs = sklearn.linear_model.LassoCV(tol=1e-12, max_iter=100000, **options).fit(X, y)
    ours = bcd.LassoCV(tol=1e-12, **options).fit(X, y)
    np.testing.assert_allclose(ours.alphas_, theirs.alphas_)
    np.testing.assert_allclose(ours.mse_path_, theirs.mse_path_, rtol=1e-5)
    assert ours.alpha_ == pytest.approx(theirs.alpha_)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    given = bcd.LassoCV(alphas=theirs.alphas_[::-1], cv=cv).fit(X, y)
    assert given.alpha_ == pytest.approx(theirs.alpha_)


def test_the_chosen_elastic_net_is_that_of_scikit_learn(data):
    X, y = data
    s = np.linspace(0.5, 2.0, y.size)
    options = {"eps": 1e-2, "alphas": 8, "l1_ratio": [0.3, 0.8], "cv": 3}
    theirs = sklearn.linear_model.ElasticNetCV(tol=1e-12, max_iter=100000, **options)
    theirs.fit(X, y, sample_weight=s)
    ours = bcd.ElasticNetCV(tol=1e-12, **options).fit(X, y, sample_weight=s)
    np.testing.assert_allclose(ours.alphas_, theirs.alphas_)
    np.testing.assert_allclose(ours.mse_path_, theirs.mse_path_, rtol=1e-5)
    assert (ours.alpha_, ours.l1_ratio_) == pytest.approx((theirs.alpha_, theirs.l1_ratio_))


@pytest.mark.parametrize("intercept", [True, False])
def test_sparse_logistic_regression_is_that_of_scikit_learn(labelled, intercept):
    X, y = labelled
    ours = bcd.SparseLogisticRegression(C=0.3, fit_intercept=intercept, tol=1e-12).fit(X, y)
    theirs = sklearn.linear_model.LogisticRegression(
        C=0.3, l1_ratio=1.0, solver="saga", fit_intercept=intercept, tol=1e-10, max_iter=100000
    ).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(ours.predict_log_proba(X), np.log(ours.predict_proba(X)))
    assert (ours.predict(X) == theirs.predict(X)).all()
    assert ours.classes_.tolist() == ["no", "yes"]
    same = bcd.SparseLogisticRegression(
        alpha=1.0 / (0.3 * y.size), fit_intercept=intercept, tol=1e-12
    ).fit(X, y)
    np.testing.assert_allclose(same.coef_, ours.coef_, atol=1e-7)


def test_several_classes_are_those_of_scikit_learn():
    X, y = sklearn.datasets.load_iris(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    ours = bcd.SparseLogisticRegression(C=0.2, tol=1e-11).fit(X, y)
    theirs = sklearn.linear_model.LogisticRegression(
        C=0.2, l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=100000
    ).fit(X, y)
    assert ours.coef_.shape == (3, 4)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)
    rows = bcd.SparseLogisticRegression(C=0.05, penalty="row").fit(X, y)
    assert set(np.count_nonzero(rows.coef_, axis=0)) <= {0, 3}


def test_the_chosen_classifier_loses_least_on_samples_left_out(labelled):
    X, y = labelled
    model = bcd.SparseLogisticRegressionCV(alphas=6, cv=4, tol=1e-10).fit(X, y)
    assert model.loss_path_.shape == (6, 4)
    losses = [
        -cross_val_score(
            bcd.SparseLogisticRegression(alpha=alpha), X, y, cv=4, scoring="neg_log_loss"
        )
        for alpha in model.alphas_
    ]
    np.testing.assert_allclose(model.loss_path_, losses, atol=1e-4)
    assert model.alpha_ == model.alphas_[np.mean(losses, axis=1).argmin()]
    direct = bcd.SparseLogisticRegression(C=model.C_).fit(X, y)
    np.testing.assert_allclose(direct.coef_, model.coef_, atol=1e-4)


def test_concave_penalties_do_not_shrink_and_do_not_care_for_units(data):
    X, y, w = datasets.autoregressive(200, 30, informative=4, noise=0.05, rng=1)
    w[w != 0] += np.sign(w[w != 0])
    y = X @ w + 0.1 * np.random.default_rng(0).standard_normal(200)
    model = bcd.MCPRegression(alpha=0.2).fit(X, y)
    np.testing.assert_array_equal(model.coef_ != 0, w != 0)
    least = np.linalg.lstsq(np.c_[X[:, w != 0], np.ones(200)], y, rcond=None)[0]
    np.testing.assert_allclose(model.coef_[w != 0], least[:-1], atol=1e-6)
    unit = 10.0 ** np.linspace(-3, 3, 30)
    np.testing.assert_allclose(
        bcd.MCPRegression(alpha=0.2).fit(X * unit, y).coef_ * unit, model.coef_, atol=1e-6
    )
    with pytest.raises(ValueError, match=r"^`gamma`"):
        bcd.MCPRegression(standardize=False).fit(X * unit, y)


def test_a_constant_feature_has_no_coefficient(data):
    X, y = data
    X = X.copy()
    X[:, 3] = 7.1
    for model in REGRESSORS:
        if not isinstance(model, bcd.NNLS):
            assert clone(model).fit(X, y).coef_[3] == 0.0


def test_groups_vanish_as_a_whole(data):
    X, y = data
    groups = np.repeat(np.arange(4), 5)
    coef = bcd.GroupLasso(groups, alpha=0.3).fit(X, y).coef_.reshape(4, 5)
    assert set(np.count_nonzero(coef, axis=1)) == {0, 5}
    alone = bcd.GroupLasso(alpha=0.1, tol=1e-11).fit(X, y).coef_
    np.testing.assert_allclose(alone, bcd.Lasso(0.1, tol=1e-12).fit(X, y).coef_, atol=1e-5)


def test_outliers_do_not_matter_to_a_robust_loss(data):
    X, y = data
    clean = bcd.HuberL1(0.01).fit(X, y)
    y = y.copy()
    y[:3] += 1e4
    np.testing.assert_allclose(bcd.HuberL1(0.01).fit(X, y).coef_, clean.coef_, atol=0.3)


def test_nonnegative_coefficients_are_those_of_scipy(data):
    X, y = data
    s = np.linspace(0.5, 2.0, y.size)
    model = bcd.NNLS(tol=1e-11).fit(X, y, sample_weight=s)
    root = np.sqrt(s)
    expected = scipy.optimize.nnls(X * root[:, None], y * root)[0]
    np.testing.assert_allclose(model.coef_, expected, atol=1e-8)
    assert model.intercept_ == 0.0


def test_labels_spread_as_those_of_scikit_learn():
    _, labels, truth, points = datasets.moons_graph(120, labelled=15, noise=0.1, rng=0)
    ours = bcd.LabelPropagation("rbf", gamma=20.0, tol=1e-10).fit(points, labels)
    theirs = sklearn.semi_supervised.LabelPropagation(gamma=20.0, tol=1e-12, max_iter=100000)
    theirs.fit(points, labels)
    np.testing.assert_allclose(ours.label_distributions_, theirs.label_distributions_, atol=1e-5)
    assert (ours.transduction_ == theirs.transduction_).all()
    new = points + 0.01
    np.testing.assert_allclose(ours.predict_proba(new), theirs.predict_proba(new), atol=1e-5)
    near = bcd.LabelPropagation(n_neighbors=5).fit(points, labels)
    assert np.mean(near.predict(points) == truth) > 0.9
    np.testing.assert_array_equal(near.transduction_[labels >= 0], labels[labels >= 0])


def test_options_reach_the_solver(data):
    X, y = data
    plain = bcd.Lasso(0.1, tol=1e-6).fit(X, y).result_
    for change in ({"alpha": 0.2}, {"positive": True}, {"fit_intercept": False},
                   {"weights": np.arange(20.0)}):  # fmt: skip
        assert (
            bcd.Lasso(**{"alpha": 0.1, "tol": 1e-6, **change}).fit(X, y).result_.fun != plain.fun
        )
    assert bcd.Lasso(0.1, tol=1e-3).fit(X, y).result_.certificate.tol == 1e-3
    with pytest.warns(solvers.ConvergenceWarning, match="maxiter"):
        bcd.Lasso(1e-4, max_iter=1, tol=1e-300).fit(X, y)
    for model, name in (
        (bcd.Lasso(-1.0), "alpha"),
        (bcd.Lasso(method="best"), "method"),
        (bcd.Lasso(n_jobs=0), "n_threads"),
        (bcd.ElasticNet(l1_ratio=2.0), "l1_ratio"),
        (bcd.HuberL1(delta=-1.0), "delta"),
        (bcd.SparseLogisticRegression(C=0.0), "C"),
        (bcd.SparseLogisticRegression(penalty="l7"), "penalty"),
        (bcd.LabelPropagation(kernel="flat"), "kernel"),
    ):
        with pytest.raises(ValueError, match=rf"^`{name}`"):
            model.fit(X, y > 3 if is_classifier(model) else y)
    with pytest.raises(TypeError, match=r"^`sample_weight`"):
        bcd.Lasso().fit(X, y, sample_weight=["a"] * y.size)


def test_samples_that_do_not_count_have_no_class(labelled):
    X, y = labelled
    y = y.copy()
    y[:5] = "perhaps"
    model = bcd.SparseLogisticRegression().fit(X, y, sample_weight=np.arange(y.size) >= 5)
    assert model.classes_.tolist() == ["no", "yes"]
    with pytest.raises(ValueError, match="class"):
        bcd.SparseLogisticRegression().fit(X, y, sample_weight=np.arange(y.size) < 5)


def test_they_work_in_pipelines_clones_and_pickles(data):
    X, y = data
    pipe = make_pipeline(StandardScaler(), bcd.Lasso(0.05)).fit(X, y)
    twin = pickle.loads(pickle.dumps(clone(pipe).fit(X, y)))
    np.testing.assert_array_equal(twin.predict(X), pipe.predict(X))
    with pytest.raises(NotFittedError):
        bcd.Lasso().predict(X)


def test_single_precision_stays(data):
    X, y = data
    for model in REGRESSORS:
        fit = clone(model).fit(X.astype(np.float32), y)
        assert fit.coef_.dtype == np.float32
        assert fit.predict(X.astype(np.float32)).dtype == np.float32


def test_the_family_loads_scikit_learn_only_for_its_estimators():
    code = "import sys, solvers.bcd as b; b.lasso; dir(b); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
