"""Data are checked once, at the door, and become the numbers that the formulas speak of."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import losses, penalties
from solvers.bcd import Problem
from solvers.bcd._problem import DATAFITS, pose, pose_least_squares, pose_quadratic


@pytest.fixture
def data(rng):
    return rng.normal(size=(8, 3)), rng.normal(size=8)


def posed(X, y, datafit="quadratic", penalty=None, **options):
    penalty = penalties.L1(0.1) if penalty is None else penalty
    return pose(X, y, datafit, penalty, **options)


def labels(y, datafit):
    kinds = {"multinomial": np.arange(y.size) % 3, "poisson": np.arange(y.size) % 3}
    return kinds.get(datafit, np.where(y > 0, 1, -1) if datafit in TWO else y)


TWO = "logistic", "squared_hinge"


def loss_of_one(datafit, y, z):
    """The table of losses, written out; `z` is a number, or one for each class."""
    if datafit == "quadratic":
        return 0.5 * (y - z) ** 2
    if datafit == "logistic":
        return np.log1p(np.exp(-y * z))
    if datafit == "multinomial":
        return np.log(np.exp(z).sum()) - z[int(y)]
    if datafit == "huber":
        return 0.5 * (y - z) ** 2 if abs(y - z) < 1.35 else 1.35 * (abs(y - z) - 0.675)
    if datafit == "squared_hinge":
        return 0.5 * max(1 - y * z, 0) ** 2
    return np.exp(z) - y * z


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("datafit", DATAFITS)
def test_the_objective_is_the_formula(data, datafit, sparse, rng):
    X, y = data
    y = labels(y, datafit)
    s = rng.random(8)
    many = datafit == "multinomial"
    w = rng.normal(size=(3, 3) if many else 3)
    c = rng.normal(size=3) if many else np.float64(0.3)
    problem = posed(sp.csr_array(X) if sparse else X, y, datafit, sample_weight=s)
    z = X @ w + c
    smooth = sum(s[i] / s.sum() * loss_of_one(datafit, y[i], z[i]) for i in range(8))
    got = problem.objective(w.reshape(-1), c)
    assert got == pytest.approx(smooth + 0.1 * np.abs(w).sum(), rel=1e-12)
    assert problem.shape == w.shape


@pytest.mark.parametrize("datafit", DATAFITS)
def test_gradients_are_those_of_the_objective(data, datafit, rng):
    X, y = data
    problem = posed(X, labels(y, datafit), datafit, penalties.ElasticBox())
    w, c = rng.normal(size=problem.size), problem.zeros()[1] + 0.2
    g, gc = problem.gradient(problem.predict(w, c))
    h = 1e-6
    for j in range(problem.size):
        step = np.zeros(problem.size)
        step[j] = h
        slope = (problem.objective(w + step, c) - problem.objective(w - step, c)) / (2 * h)
        assert g[j] == pytest.approx(slope, abs=1e-8)
    slope = (problem.objective(w, c + h) - problem.objective(w, c - h)) / (2 * h)
    assert np.sum(gc) == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("datafit", [d for d in DATAFITS if d != "poisson"])
def test_curvatures_bound_those_of_the_objective(data, datafit, intercept, rng):
    X, y = data
    problem = posed(X, labels(y, datafit), datafit, fit_intercept=intercept)
    h = 1e-3
    for _ in range(20):
        w, j = 0.3 * rng.normal(size=problem.size), rng.integers(problem.size)
        steps = w + h * np.outer([-1, 0, 1], np.arange(problem.size) == j)
        # An intercept of squares follows at once: the best one for each.
        values = []
        for v in steps:
            z = problem.predict(v, problem.zeros()[1])
            best = problem.y - z if intercept and datafit == "quadratic" else np.zeros(1)
            values.append(float(problem.loss_sum(z + best.mean())))
        assert (values[0] - 2 * values[1] + values[2]) / h**2 <= problem.lipschitz[j] * (1 + 1e-6)


def test_a_doubled_weight_is_a_doubled_row_and_weight_zero_a_removed_one(data):
    X, y = data
    count = np.array([2, 0, 1, 1, 3, 0, 1, 1])
    rows = np.repeat(np.arange(8), count)
    w = np.array([0.3, -0.2, 0.5])
    for A in (X, np.asfortranarray(X), sp.csc_array(X)):
        weighted, repeated = posed(A, y, sample_weight=count), posed(X[rows], y[rows])
        assert weighted.objective(w, 0.1) == pytest.approx(repeated.objective(w, 0.1), rel=1e-13)
        np.testing.assert_allclose(weighted.lipschitz, repeated.lipschitz)
        assert weighted.design.shape == (6, 3)
        np.testing.assert_array_equal(weighted.rows, np.flatnonzero(count))


def test_weights_of_samples_sum_to_one_whatever_their_size(data):
    X, y = data
    for unit in (1e-300, 1.0, 1e308):
        s = posed(X, y, sample_weight=unit * np.linspace(0.1, 1.0, 8)).s
        np.testing.assert_allclose(s.sum(), 1.0)
        np.testing.assert_allclose(s[-1] / s[0], 10.0)


@pytest.mark.parametrize(
    ("two", "dtype"),
    [((-1.0, 1.0), float), ((3, 7), np.int64), ((False, True), bool), ((2, 9), np.uint8)],
)
def test_the_larger_of_two_labels_is_the_positive_one(data, two, dtype):
    X, _ = data
    y = np.array([two[k % 2] for k in range(8)], dtype)
    problem = posed(X, y, "logistic")
    np.testing.assert_array_equal(problem.y, [-1, 1] * 4)
    assert problem.classes.tolist() == list(two)
    assert problem.classes.dtype == dtype


def test_large_labels_stay_apart(data):
    y = 2**60 + np.arange(8) % 2
    np.testing.assert_array_equal(posed(data[0], y, "logistic").y, [-1, 1] * 4)


def test_classes_are_numbered_in_order(data):
    y = np.array([5, -2, 5, 9, 9, 9, -2, 5])
    problem = posed(data[0], y, "multinomial")
    np.testing.assert_array_equal(problem.classes[problem.y], y)
    assert problem.y.dtype == np.int64


def test_classes_are_those_of_the_samples_that_count(data):
    y = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    problem = posed(data[0], y, "logistic", sample_weight=(y != 2).astype(float))
    assert problem.classes.tolist() == [0, 1]
    with pytest.raises(ValueError, match="`y` holds 1 different"):
        posed(data[0], y, "logistic", sample_weight=(y == 2).astype(float))


def test_the_precision_is_that_of_the_data(data):
    X, y = data
    assert posed(X.astype(np.float32), y.astype(np.float32)).dtype == np.float32
    assert posed(X.astype(np.float32), y).dtype == np.float64
    problem = posed(X.astype(np.float32), labels(y, "logistic").astype(np.int8), "logistic")
    assert problem.dtype == problem.y.dtype == problem.s.dtype == np.float32
    assert problem.bound.alpha.dtype == np.float32


def test_nothing_of_the_callers_is_modified(data):
    X, y = data
    s, weights = np.linspace(0, 1, 8), np.array([1.0, 2.0, 0.0])
    given = X, y, s, weights
    before = [array.copy() for array in given]
    problem = posed(X, y, sample_weight=s, weights=weights)
    problem.objective(np.ones(3), 0.0)
    assert problem.bound.alpha.tolist() == [0.1, 0.2, 0.0]
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_weight_of_zero_frees_a_feature_from_any_penalty(data):
    bound = posed(*data, penalty=penalties.L1(np.inf), weights=[0.0, 1.0, 2.0]).bound
    assert bound.alpha[0] == 0.0
    assert bound.alpha[1:].min() > 1e300


def test_weights_of_features_may_be_those_of_each_class(data, rng):
    y, weights = np.arange(8) % 3, rng.random((3, 3))
    problem = posed(data[0], y, "multinomial", weights=weights)
    np.testing.assert_allclose(problem.bound.alpha, 0.1 * weights.reshape(-1))
    problem = posed(data[0], y, "multinomial", weights=[1.0, 2.0, 3.0])
    np.testing.assert_allclose(problem.bound.alpha, 0.1 * np.repeat([1.0, 2.0, 3.0], 3))


def test_a_concave_penalty_must_not_outweigh_the_loss(data):
    X, y = data
    X = X / np.sqrt(np.mean(X**2, axis=0))  # curvature 1 in each coefficient
    posed(X, y, penalty=penalties.MCP(0.1, 1.01))
    posed(X, y, penalty=penalties.SCAD(0.1, 2.01))
    for penalty in (penalties.MCP(0.1, 0.99), penalties.SCAD(0.1, 1.99)):
        with pytest.raises(ValueError, match=r"^`gamma` came as"):
            posed(X, y, penalty=penalty)


# Quadratics and least squares.


@pytest.mark.parametrize("sparse", [False, True])
def test_a_quadratic_is_its_formula(data, sparse, rng):
    A = data[0].T @ data[0]
    b, x = rng.normal(size=3), np.array([0.5, 0.0, 0.2])
    problem = pose_quadratic(sp.coo_array(A) if sparse else A, b, bounds=(0.0, 1.0), l1=0.3)
    assert problem.objective(x) == pytest.approx(x @ A @ x / 2 - b @ x + 0.3 * np.abs(x).sum())
    np.testing.assert_allclose(problem.gradient(x), A @ x - b)
    np.testing.assert_allclose(problem.lipschitz, np.diag(A))
    assert problem.objective(x - 1.0) == np.inf
    assert problem.sparse == sparse


def test_least_squares_have_no_factor_in_front(data):
    X, y = data
    x = np.array([0.5, 0.0, 0.2])
    problem = pose_least_squares(X, y, bounds=(0.0, np.array([1.0, 1.0, np.inf])))
    assert problem.objective(x, 0.0) == pytest.approx(0.5 * np.sum((X @ x - y) ** 2))


def test_a_cold_start_is_the_feasible_point_next_to_zero(data):
    X, y = data
    bounds = np.array([-1.0, 0.5, -2.0]), np.array([1.0, np.inf, -0.5])
    for problem in (
        pose_least_squares(X, y, bounds=bounds),
        pose_quadratic(X.T @ X, y[:3], bounds=bounds),
    ):
        assert problem.zeros()[0].tolist() == [0.0, 0.5, -0.5]


def test_rounding_does_not_make_a_matrix_asymmetric(data):
    A = (data[0].T @ data[0]).astype(np.float32)
    A[0, 1] *= 1 + 1e-6
    pose_quadratic(A, np.ones(3, np.float32))


def spoilt(x, value):
    x = np.array(x, float)
    x[0] = value
    return x


y8 = np.linspace(-1, 1, 8)
BAD = [
    (lambda X, y: posed(X, None), TypeError, "y"),
    (lambda X, y: posed(X, y[:-1]), ValueError, "y"),
    (lambda X, y: posed(X, y[:, None]), ValueError, "y"),
    (lambda X, y: posed(X, spoilt(y, np.nan)), ValueError, "y"),
    (lambda X, y: posed(X, y + 0j), TypeError, "y"),
    (lambda X, y: posed(X, np.array(list("abababab")), "logistic"), TypeError, "y"),
    (lambda X, y: posed(X, np.ones(8), "logistic"), ValueError, "y"),
    (lambda X, y: posed(X, np.arange(8), "squared_hinge"), ValueError, "y"),
    (lambda X, y: posed(X, np.ones(8), "multinomial"), ValueError, "y"),
    (lambda X, y: posed(X, y, "poisson"), ValueError, "y"),
    (lambda X, y: posed(X, y, "hinge"), ValueError, "datafit"),
    (lambda X, y: posed(X, y, 3), TypeError, "datafit"),
    (lambda X, y: posed(X, y, losses.Squared), TypeError, "datafit"),
    (lambda X, y: posed(X, y, losses.Huber(-1.0)), ValueError, "delta"),
    (lambda X, y: posed(X, y, penalty="l1"), TypeError, "penalty"),
    (lambda X, y: posed(X, y, penalty=penalties.L1), TypeError, "penalty"),
    (lambda X, y: posed(X, y, penalty=penalties.L1("a")), TypeError, "alpha"),
    (lambda X, y: posed(X, y, penalty=penalties.L1(-1.0)), ValueError, "alpha"),
    (lambda X, y: posed(X, y, penalty=penalties.L1(np.nan)), ValueError, "alpha"),
    (lambda X, y: posed(X, y, penalty=penalties.L1(np.ones(4))), ValueError, "alpha"),
    (lambda X, y: posed(X, y, sample_weight=np.ones(7)), ValueError, "sample_weight"),
    (lambda X, y: posed(X, y, sample_weight=2.0), ValueError, "sample_weight"),
    (lambda X, y: posed(X, y, sample_weight=np.zeros(8)), ValueError, "sample_weight"),
    (lambda X, y: posed(X, y, sample_weight=-y8), ValueError, "sample_weight"),
    (lambda X, y: posed(X, y, sample_weight=spoilt(y8, np.nan)), ValueError, "sample_weight"),
    (lambda X, y: posed(X, y, weights=np.ones(4)), ValueError, "weights"),
    (lambda X, y: posed(X, y, weights=[1.0, -1.0, 1.0]), ValueError, "weights"),
    (lambda X, y: posed(X, y, weights=[1.0, np.inf, 1.0]), ValueError, "weights"),
    (lambda X, y: posed(X, y, fit_intercept=1), TypeError, "fit_intercept"),
    (pose_quadratic, ValueError, "A"),
    (lambda X, y: pose_quadratic(np.triu(X.T @ X), y[:3]), ValueError, "A"),
    (lambda X, y: pose_quadratic(sp.csr_array(np.triu(X.T @ X)), y[:3]), ValueError, "A"),
    (lambda X, y: pose_quadratic(-X.T @ X, y[:3]), ValueError, "A"),
    (lambda X, y: pose_quadratic(X.T @ X, None), TypeError, "b"),
    (lambda X, y: pose_quadratic(X.T @ X, y), ValueError, "b"),
    (lambda X, y: pose_quadratic(X.T @ X, y[:3], l1=-1.0), ValueError, "l1"),
    (lambda X, y: pose_quadratic(X.T @ X, y[:3], l1="a"), TypeError, "l1"),
    (lambda X, y: pose_least_squares(X, None), TypeError, "b"),
    (lambda X, y: pose_least_squares(X, y, bounds=(1.0, 0.0)), ValueError, "bounds"),
    (lambda X, y: pose_least_squares(X, y, bounds=(np.inf, np.inf)), ValueError, "bounds"),
    (lambda X, y: pose_least_squares(X, y, bounds=(np.nan, 1.0)), ValueError, "bounds"),
    (lambda X, y: pose_least_squares(X, y, bounds=(None, 1.0)), ValueError, "bounds"),
    (lambda X, y: pose_least_squares(X, y, bounds=(np.zeros(4), 1.0)), ValueError, "bounds"),
    (lambda X, y: pose_least_squares(X, y, bounds=3.0), TypeError, "bounds"),
    (lambda X, y: pose_least_squares(X, y, bounds=("a", "b")), TypeError, "bounds"),
    (lambda X, y: Problem(X, y, penalty=0.1), TypeError, "penalty"),
]


@pytest.mark.parametrize(("call", "kind", "name"), BAD)
@pytest.mark.parametrize("sparse", [False, True])
def test_bad_arguments_are_refused_by_name(data, call, kind, name, sparse):
    X, y = data
    with pytest.raises(kind, match=rf"^`{name}`"):
        call(X, y)
    if sparse and name != "A":
        with pytest.raises(kind, match=rf"^`{name}`"):
            call(sp.csc_array(X), y)
