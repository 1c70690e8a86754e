"""Estimators agree with scikit-learn's networks and functions, and pass its checks."""

import pickle

import numpy as np
import pytest
import scipy.optimize
from sklearn.base import clone
from sklearn.datasets import load_iris, make_friedman1, make_moons
from sklearn.linear_model import Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

import solvers
from solvers import relu
from solvers.relu._radius import radii

QUICK = {"n_gates": 12, "refine": 0, "max_iter": 100, "tol": 0.05, "random_state": 0}
quiet = pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
pytestmark = quiet


@pytest.mark.slow
@parametrize_with_checks([relu.ConvexReLUClassifier(), relu.ConvexReLURegressor()])
def test_scikit_learn_finds_nothing_to_complain_about(estimator, check):
    check(estimator)


@parametrize_with_checks(
    [
        relu.ConvexReLUClassifier(n_gates=8, refine=0, max_iter=50, tol=0.1),
        relu.ConvexReLURegressor(n_gates=8, refine=0, max_iter=50, tol=0.1),
    ]
)
def test_scikit_learn_finds_nothing_to_complain_about_in_short_runs(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def moons():
    X, y = make_moons(80, noise=0.15, random_state=11)
    return X, np.array(["east", "west"])[y]


@pytest.fixture(scope="module")
def two(moons):
    return relu.ConvexReLUClassifier(1e-3, **QUICK).fit(*moons)


@pytest.fixture(scope="module")
def three():
    X, y = load_iris(return_X_y=True)
    return relu.ConvexReLUClassifier(1e-3, **QUICK).fit(X, y)


@pytest.fixture(scope="module")
def friedman():
    X, y = make_friedman1(120, 5, noise=0.3, random_state=3)
    return X, 10.0 * y - 30.0


def test_two_classes_are_told_by_the_sign_of_a_score(two, moons):
    X, y = moons
    score = two.decision_function(X)
    assert list(two.classes_) == ["east", "west"]
    assert np.array_equal(two.predict(X), np.where(score > 0, "west", "east"))
    assert two.score(X, y) > 0.9
    chances = two.predict_proba(X)
    assert chances[:, 1] == pytest.approx(1 / (1 + np.exp(-score)))
    assert chances.sum(axis=1) == pytest.approx(1)


def test_three_classes_are_told_by_the_largest_score(three):
    X, y = load_iris(return_X_y=True)
    scores = three.decision_function(X)
    assert scores.shape == (150, 3)
    assert np.array_equal(three.predict(X), scores.argmax(axis=1))
    assert three.score(X, y) > 0.95
    one_against_rest = 1 / (1 + np.exp(-scores))
    chances = three.predict_proba(X)
    assert chances == pytest.approx(one_against_rest / one_against_rest.sum(axis=1)[:, None])


def test_probabilities_of_a_hopeless_sample_are_even(three):
    three = pickle.loads(pickle.dumps(three))
    three.intercepts_[1] = np.full(3, -1e6)
    assert three.predict_proba(load_iris().data[:2]) == pytest.approx(1 / 3)


def test_probabilities_need_the_logistic_loss(moons):
    model = relu.ConvexReLUClassifier(1e-3, loss="hinge", **QUICK).fit(*moons)
    assert not hasattr(model, "predict_proba")
    assert model.score(*moons) > 0.9


def test_training_is_the_function_on_standardised_features(two, moons):
    X, y = moons
    Z = np.c_[(X - X.mean(axis=0)) / X.std(axis=0), np.ones(80)] / np.sqrt(3)
    net = two.result_.net
    score = np.maximum(Z @ net.hidden, 0) @ net.out
    assert two.decision_function(X) == pytest.approx(score)
    signs = np.where(y == "west", 1.0, -1.0)
    penalty = np.square(net.hidden).sum() + np.square(net.out).sum()
    objective = np.logaddexp(0, -signs * score).mean() + 0.5e-3 * penalty
    assert two.loss_ == pytest.approx(objective)
    assert two.gap_ == two.certificate_.value
    assert two.gap_global_ >= 0


def test_units_of_features_do_not_matter(two, moons):
    X, y = moons
    unit = np.array([1e3, 1e-4])
    moved = clone(two).fit(X * unit + [5.0, -2.0], y)
    assert moved.decision_function(X * unit + [5.0, -2.0]) == pytest.approx(
        two.decision_function(X), abs=1e-6
    )


def test_raw_features_are_used_as_they_are_when_asked(moons):
    X, y = moons
    model = relu.ConvexReLUClassifier(1e-2, normalize=False, bias=False, **QUICK).fit(X, y)
    assert model.decision_function(X) == pytest.approx(model.result_.net.predict(X))
    assert not model.intercepts_[0].any()


def test_constant_features_change_nothing(two, moons):
    X, y = moons
    model = clone(two).fit(np.c_[X, np.full(80, 0.1)], y)
    assert np.isfinite(model.coefs_[0]).all()
    assert model.score(np.c_[X, np.full(80, 0.1)], y) > 0.9


def test_the_network_of_scikit_learn_predicts_the_same(two, three, moons, friedman):
    X = moons[0]
    mlp = two.to_mlp()
    assert np.array_equal(mlp.predict(X), two.predict(X))
    assert mlp.predict_proba(X) == pytest.approx(two.predict_proba(X))
    X = load_iris().data
    assert np.array_equal(three.to_mlp().predict(X), three.predict(X))
    X, y = friedman
    for targets in (y, np.c_[y, -y]):
        model = relu.ConvexReLURegressor(1e-2, **QUICK).fit(X, targets)
        assert np.array_equal(model.to_mlp().predict(X), model.predict(X))


def test_the_network_of_pytorch_gives_the_same_scores(two, three, moons):
    torch = pytest.importorskip("torch")
    for model, X in ((two, moons[0]), (three, load_iris().data)):
        with torch.no_grad():
            scores = model.to_torch()(torch.as_tensor(X)).numpy()
        assert scores == pytest.approx(model.decision_function(X).reshape(len(X), -1))


def test_a_network_without_neurons_has_the_same_forms(moons):
    model = relu.ConvexReLUClassifier(1e3, **QUICK).fit(*moons)
    assert model.coefs_[0].shape == (2, 0)
    assert not model.decision_function(moons[0]).any()
    assert np.array_equal(model.to_mlp().predict(moons[0]), model.predict(moons[0]))
    assert not model.certified_radius(moons[0]).any()


def test_no_change_within_the_radius_changes_a_label(two, three, moons):
    rng = np.random.default_rng(0)
    for model, X in ((two, moons[0]), (three, load_iris().data)):
        radius, label = model.certified_radius(X), model.predict(X)
        assert (radius > 0).all()
        for _ in range(50):
            corner = rng.choice([-1.0, 1.0], X.shape)
            assert np.array_equal(model.predict(X + 0.999 * radius[:, None] * corner), label)


def test_the_radius_of_one_neuron_is_its_distance_from_the_boundary():
    # The score (x_1 + 2 x_2 + 1)_+ - 1 changes its sign where x_1 + 2 x_2 = 0.
    hidden, out = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([1.0, -1.0])
    X = np.array([[3.0, 0.0], [-0.6, 0.0], [-5.0, 0.0], [0.0, 0.0]])
    pre = X @ hidden + 1.0
    score = np.maximum(pre, 0) @ out
    found = radii(pre, abs(hidden).sum(axis=0), np.c_[-out, out] / 2, (score > 0).astype(int))
    assert found == pytest.approx([1.0, 0.2, 5 / 3, 0.0])


def test_the_radius_is_infinite_where_nothing_can_change_the_label():
    pre, reach, out = np.array([[2.0, 1.0]]), np.array([1.0, 0.0]), np.array([[0.0, 1.0]] * 2)
    assert radii(pre, reach, out, np.array([1])) == [np.inf]
    assert radii(np.zeros((1, 0)), np.zeros(0), np.zeros((0, 2)), np.array([0])) == [0.0]


def test_the_radius_is_the_largest_that_intervals_prove(two, moons):
    X = moons[0][:5]
    (hidden, out), (offset, _) = two.coefs_, two.intercepts_
    pre, reach = X @ hidden + offset, abs(hidden).sum(axis=0)
    side = np.where(two.predict(X) == "west", 1.0, -1.0)

    def least(r, k):
        a = side[k] * out[:, 0]
        low, high = np.maximum(pre[k] - r * reach, 0), np.maximum(pre[k] + r * reach, 0)
        return np.where(a > 0, a * low, a * high).sum()

    expected = [scipy.optimize.brentq(least, 0, 10, (k,), xtol=1e-13) for k in range(5)]
    assert two.certified_radius(X) == pytest.approx(expected, rel=1e-8)


def test_regression_beats_a_line_and_knows_no_units(friedman):
    X, y = friedman
    model = relu.ConvexReLURegressor(1e-3, **QUICK).fit(X[:90], y[:90])
    line = Ridge().fit(X[:90], y[:90])
    assert model.score(X[90:], y[90:]) > line.score(X[90:], y[90:])
    other = clone(model).fit(X[:90], 1e-3 * y[:90] + 7)
    assert other.predict(X) == pytest.approx(1e-3 * model.predict(X) + 7, abs=1e-6)


def test_several_targets_are_several_networks(friedman):
    X, y = friedman
    model = relu.ConvexReLURegressor(1e-2, **QUICK).fit(X, np.c_[y, -y, np.ones(len(y))])
    assert model.predict(X).shape == (len(y), 3)
    assert model.predict(X)[:, 2] == pytest.approx(1)
    assert ((model.coefs_[1] != 0).sum(axis=1) <= 1).all()


def test_single_precision_is_kept(moons):
    X, y = moons
    model = relu.ConvexReLUClassifier(1e-3, **QUICK).fit(X.astype(np.float32), y)
    arrays = [*model.coefs_, *model.intercepts_, model.decision_function(X.astype(np.float32))]
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}


def test_the_same_random_state_gives_the_same_model(two, moons):
    again = clone(two).fit(*moons)
    other = clone(two).set_params(random_state=1).fit(*moons)
    assert np.array_equal(again.coefs_[0], two.coefs_[0])
    assert not np.array_equal(other.coefs_[0], two.coefs_[0])
    back = pickle.loads(pickle.dumps(two))
    assert np.array_equal(back.predict(moons[0]), two.predict(moons[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sgd"}, "`method`"),
        ({"device": "tpu"}, "`device`"),
        ({"beta": -1.0}, "`beta`"),
        ({"loss": "absolute"}, "`loss`"),
        ({"n_gates": 0}, "`n_gates`"),
        ({"robust_eps": [0.1, 0.1, 0.1]}, "`robust_eps` .* 2 features"),
        ({"robust_eps": 0.1, "method": "ipm"}, "`robust_eps` .* method='admm'"),
        ({"tol": -1.0}, "`tol`"),
        ({"max_iter": -1}, "`maxiter`"),
    ],
)
def test_bad_options_are_refused_by_name(moons, options, message):
    with pytest.raises(ValueError, match=message):
        relu.ConvexReLUClassifier(**options).fit(*moons)


def test_a_single_class_is_refused(moons):
    with pytest.raises(ValueError, match="`y` holds one class"):
        relu.ConvexReLUClassifier().fit(moons[0], np.zeros(80))


def test_a_run_that_is_too_short_warns_once(moons):
    with pytest.warns(solvers.ConvergenceWarning) as caught:
        relu.ConvexReLUClassifier(n_gates=8, refine=0, max_iter=1, tol=1e-9).fit(*moons)
    assert len(caught) == 1
