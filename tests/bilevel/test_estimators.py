"""Estimators find what scikit-learn finds on grids, and more, and pass its checks."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.utils.estimator_checks import parametrize_with_checks

from solvers import bilevel
from solvers.bilevel._folds import Folds, LeaveOneOut


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
@parametrize_with_checks(
    [
        bilevel.BilevelRidge(),
        bilevel.BilevelLogisticRegression(tol=1e-3),
        bilevel.CleanLogisticRegression(),
    ]
)
def test_scikit_learn_finds_nothing_to_complain_about(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def diabetes():
    X, t = load_diabetes(return_X_y=True)
    return X / X.std(axis=0), t


def ridge_coefficients(X, t, penalties):
    """Solve the normal equations of the centred data."""
    n, Z = len(X), X - X.mean(axis=0)
    return np.linalg.solve(Z.T @ Z / n + np.diag(penalties), Z.T @ (t - t.mean()) / n)


# ------------------------------------------------------------------------------------------ ridge


def test_one_penalty_leaving_one_out_is_that_of_a_fine_grid(diabetes):
    X, t = diabetes
    grid = RidgeCV(np.geomspace(1e-2, 1e3, 1001)).fit(X, t)
    model = bilevel.BilevelRidge("single", cv="loo", tol=1e-8).fit(X, t)
    assert model.certificate_.holds
    assert np.allclose(model.penalties_, grid.alpha_ / len(t), rtol=0.02)
    assert np.allclose(model.coef_, grid.coef_, rtol=0.02, atol=0.02)


def test_one_penalty_is_a_minimum_of_the_error_over_folds(diabetes):
    X, t = diabetes
    model = bilevel.BilevelRidge("single", cv=KFold(4, shuffle=True, random_state=0), tol=1e-8)
    model.fit(X[:440], t[:440])

    def error(penalty):
        total = 0.0
        for a, b in model.cv.split(X[:440]):
            # scikit-learn's way: the penalty counts as for all 440 samples, not for 330.
            w = ridge_coefficients(X[a], t[a], np.full(10, penalty * 440 / 330))
            total += np.square((X[b] - X[a].mean(axis=0)) @ w + t[a].mean() - t[b]).sum()
        return total / 440

    best = model.penalties_[0]
    assert 2 * model.result_.fun * t[:440].var() == pytest.approx(error(best), rel=1e-9)
    assert error(best) <= min(error(best * 1.03), error(best / 1.03))


def test_many_penalties_leave_less_error_on_held_out_samples(diabetes):
    X, t = diabetes
    model = bilevel.BilevelRidge().fit(X, t)

    def error(penalties):
        scales = np.sqrt(penalties * len(t) * 0.8)
        # scikit-learn's penalty is one number, so features are divided; a fold has n 4 / 5.
        folds = cross_val_predict(Ridge(1.25), X / scales, t, cv=KFold(5))
        return np.square(folds - t).mean()

    alone = bilevel.BilevelRidge("single").fit(X, t)
    assert model.result_.success
    assert error(model.penalties_) < error(alone.penalties_)
    # The upper level's value is that error, in units of the variance.
    value = 2 * model.result_.fun * t.var()
    assert value == pytest.approx(error(model.penalties_), rel=1e-4)


def test_coefficients_solve_the_normal_equations(diabetes):
    X, t = diabetes
    model = bilevel.BilevelRidge(np.arange(10) // 2, tol=1e-4).fit(X, t)
    assert len(set(model.penalties_)) == 5
    assert np.allclose(model.coef_, ridge_coefficients(X, t, model.penalties_), atol=1e-5)
    assert np.allclose(model.predict(X).mean(), t.mean())
    through = bilevel.BilevelRidge(fit_intercept=False, tol=1e-4).fit(X, t)
    assert through.intercept_ == 0
    assert np.array_equal(through.predict(np.zeros((2, 10))), [0, 0])


def test_units_of_features_and_targets_do_not_matter(diabetes):
    X, t = diabetes
    units = np.geomspace(1e-3, 1e3, 10)
    model = bilevel.BilevelRidge().fit(X, t)
    other = bilevel.BilevelRidge().fit(X * units + 5.0, 1e4 * t - 7.0)
    assert np.allclose(other.predict(X * units + 5.0), 1e4 * model.predict(X) - 7.0, rtol=1e-4)
    assert np.allclose(other.penalties_, model.penalties_ * units**2, rtol=1e-3)


def test_a_constant_or_a_double_feature_does_no_harm(diabetes):
    X, t = diabetes
    model = bilevel.BilevelRidge("single").fit(X, t)
    wide = np.c_[X, np.full(len(X), 3.0)]
    groups = np.append(np.zeros(10, int), 1)
    assert np.allclose(
        bilevel.BilevelRidge(groups).fit(wide, t).predict(wide), model.predict(X), rtol=1e-4
    )
    double = bilevel.BilevelRidge().fit(np.c_[X, X[:, :1]], t)
    assert double.result_.success
    assert double.score(np.c_[X, X[:, :1]], t) > 0.4


def test_leaving_one_out_by_leverages_is_leaving_one_out():
    rng = np.random.default_rng(0)
    X, groups = np.c_[rng.standard_normal((12, 3)), np.ones(12)], np.array([0, 1, 0, -1])
    t, x = rng.standard_normal((12, 1)), rng.standard_normal(2)
    problem, missed = LeaveOneOut(X, t, groups), []
    penalties = np.append(np.exp(x)[groups[:3]], 0.0)
    for i in range(12):
        others = np.arange(12) != i
        A = X[others].T @ X[others] / 12 + np.diag(penalties)
        missed.append(t[i] - X[i] @ np.linalg.solve(A, X[others].T @ t[others] / 12))
    y = problem.solve(x, problem.y0)
    assert problem.upper(x, y)[0] == pytest.approx(0.5 * np.square(missed).mean(), rel=1e-8)
    errors = bilevel.check_oracle(problem.upper, x, y, rng=0)
    assert max(errors.values()) < 1e-4


@pytest.mark.parametrize(("loss", "c"), [("squared", 1), ("logistic", 1), ("softmax", 3)])
def test_derivatives_of_the_levels_are_right(loss, c):
    rng = np.random.default_rng(1)
    X, place = rng.standard_normal((20, 4)), np.arange(20) % max(c, 2)
    T = np.eye(3)[place] if c == 3 else 2.0 * place[:, None] - 1
    train, hold = rng.random((2, 20, 2))
    problem = Folds(X, T, loss, np.array([0, 1, 1, -1]), train, hold)
    x, y = rng.standard_normal(2), rng.standard_normal(problem.shape)
    for level in (problem.upper, problem.lower):
        assert max(bilevel.check_oracle(level, x, y, rng=0).values()) < 1e-4


def test_a_third_part_ends_the_search_before_it_fits_noise():
    rng = np.random.default_rng(0)
    X, noise = rng.standard_normal((90, 40)), rng.standard_normal(90)
    t = X[:, :3] @ [1.0, -1.0, 1.0] + 2 * noise
    fresh = rng.standard_normal((2000, 40))
    truth = fresh[:, :3] @ [1.0, -1.0, 1.0]

    def error(**options):
        model = bilevel.BilevelRidge(random_state=0, **options).fit(X, t)
        return model, np.square(model.predict(fresh) - truth).mean()

    stopped, error_stopped = error(n_iter_no_change=3)
    whole, _ = error(early_stopping=False)
    assert stopped.n_iter_ < whole.n_iter_
    assert not np.array_equal(stopped.penalties_, whole.penalties_)
    assert error_stopped < np.square(truth - t.mean()).mean()
    again, _ = error(n_iter_no_change=3)
    assert np.array_equal(again.coef_, stopped.coef_)


def test_one_fraction_may_be_held_out_and_float32_stays(diabetes):
    X, t = diabetes
    model = bilevel.BilevelRidge(cv=0.3, random_state=0, tol=1e-3)
    assert model.fit(X, t).score(X, t) > 0.4
    assert model.fit(X.astype(np.float32), t).coef_.dtype == np.float32


# --------------------------------------------------------------------------------------- logistic


def test_two_classes_agree_with_scikit_learn_at_the_penalties_found():
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:, :8] / X[:, :8].std(axis=0)
    model = bilevel.BilevelLogisticRegression(np.arange(8) // 2, tol=1e-3).fit(X, y)
    scales = np.sqrt(model.penalties_ * len(y))
    peer = LogisticRegression(C=1.0, tol=1e-10, max_iter=10000).fit(X / scales, y)
    assert np.allclose(model.predict_proba(X), peer.predict_proba(X / scales), atol=1e-4)
    assert np.array_equal(model.predict(X), model.classes_[(model.decision_function(X) > 0) * 1])


def test_three_classes_come_with_their_names_and_chances():
    X, place = load_iris(return_X_y=True)
    y = np.array(["setosa", "versicolor", "virginica"])[place]
    model = bilevel.BilevelLogisticRegression("single", cv=3, tol=1e-2).fit(X, y)
    chances = model.predict_proba(X)
    assert model.coef_.shape == (3, 4)
    assert np.allclose(chances.sum(axis=1), 1)
    assert np.array_equal(model.predict(X), model.classes_[chances.argmax(axis=1)])
    assert np.allclose(model.coef_.sum(axis=0), 0, atol=1e-6)
    scales = np.sqrt(model.penalties_ * len(y))
    peer = LogisticRegression(C=1.0, tol=1e-10, max_iter=10000).fit(X / scales, y)
    assert log_loss(y, chances) == pytest.approx(log_loss(y, peer.predict_proba(X / scales)), 1e-3)


# --------------------------------------------------------------------------------------- cleaning


@pytest.fixture(scope="module")
def flipped_digits():
    X, y = load_digits(n_class=4, return_X_y=True)
    rng = np.random.default_rng(3)
    order = rng.permutation(len(y))
    X, y = X[order] / 16, y[order]
    wrong = rng.random(300) < 0.5
    wrong[:50] = False
    labels = y[:300].copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, 4, wrong.sum())) % 4
    return X, y, labels, wrong


def test_wrong_labels_lose_their_weight(flipped_digits):
    X, y, labels, wrong = flipped_digits
    model = bilevel.CleanLogisticRegression().fit(X[:300], labels, clean_idx=np.arange(50))
    weight = model.sample_weight_
    assert weight.shape == (300,)
    assert (weight[:50] == 1).all()
    assert roc_auc_score(~wrong[50:], weight[50:]) > 0.8
    plain = LogisticRegression(max_iter=1000).fit(X[:300], labels)
    assert model.score(X[300:], y[300:]) > plain.score(X[300:], y[300:]) + 0.05


def test_trusted_samples_may_come_as_a_mask_or_be_drawn(flipped_digits):
    X, _, labels, _ = flipped_digits
    X, labels = X[:120], labels[:120] > 1
    mask = np.arange(120) < 30
    one = bilevel.CleanLogisticRegression(tol=1e-2).fit(X, labels, clean_idx=mask)
    two = bilevel.CleanLogisticRegression(tol=1e-2).fit(X, labels, clean_idx=np.arange(30)[::-1])
    assert np.array_equal(one.coef_, two.coef_)
    assert one.coef_.shape == (1, 64)
    drawn = bilevel.CleanLogisticRegression(val_fraction=0.25, tol=1e-2, rng=1).fit(X, labels)
    assert len(drawn.clean_idx_) == 30
    assert (drawn.sample_weight_[drawn.clean_idx_] == 1).all()
    other = bilevel.CleanLogisticRegression(val_fraction=0.25, tol=1e-2, rng=2).fit(X, labels)
    assert not np.array_equal(other.clean_idx_, drawn.clean_idx_)


# -------------------------------------------------------------------------------------- bad input

BAD = {
    "word for penalty": (bilevel.BilevelRidge("ridge"), ValueError, "`penalty` came as 'ridge'"),
    "groups too short": (bilevel.BilevelRidge(np.zeros(3, int)), ValueError, "`penalty` .* of 4"),
    "groups of floats": (bilevel.BilevelRidge(np.zeros(4)), ValueError, "`penalty`"),
    "negative groups": (bilevel.BilevelRidge(np.full(4, -1)), ValueError, "`penalty`"),
    "one fold": (bilevel.BilevelRidge(cv=1), ValueError, "`cv` came as 1"),
    "fraction": (bilevel.BilevelRidge(cv=1.5), ValueError, "`cv` came as 1.5"),
    "word for cv": (bilevel.BilevelRidge(cv="all"), ValueError, "`cv` came as 'all'"),
    "loo": (bilevel.BilevelLogisticRegression(cv="loo"), ValueError, "`cv` came as 'loo'"),
    "stopping": (bilevel.BilevelRidge(early_stopping=1), TypeError, "`early_stopping`"),
    "part": (
        bilevel.BilevelRidge(early_stopping=True, validation_fraction=2),
        ValueError,
        "`validation_fraction`",
    ),
    "patience": (
        bilevel.BilevelRidge(early_stopping=True, n_iter_no_change=0),
        ValueError,
        "`n_iter_no_change`",
    ),
    "tol": (bilevel.BilevelRidge(tol=0), ValueError, "`tol`"),
    "max_iter": (bilevel.BilevelRidge(max_iter=-1), ValueError, "`maxiter`"),
    "l2": (bilevel.CleanLogisticRegression(l2=0.0), ValueError, "`l2`"),
    "val_fraction": (bilevel.CleanLogisticRegression(val_fraction=1), ValueError, "val_fraction"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_refused_by_name(case):
    model, kind, message = BAD[case]
    X = np.random.default_rng(0).standard_normal((30, 4))
    with pytest.raises(kind, match=message):
        model.fit(X, X[:, 0] > 0)


@pytest.mark.parametrize("clean", [[], [0, 40], [-1], np.arange(30), [0.5], [[1]], "all"])
def test_trusted_samples_must_be_some_of_the_samples(clean):
    X = np.random.default_rng(0).standard_normal((30, 4))
    with pytest.raises((TypeError, ValueError), match="`clean_idx`"):
        bilevel.CleanLogisticRegression().fit(X, X[:, 0] > 0, clean_idx=clean)
    with pytest.raises(ValueError, match="`y` holds one class"):
        bilevel.CleanLogisticRegression().fit(X, np.zeros(30))
