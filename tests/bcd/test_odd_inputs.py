"""Data that are odd but legal: every model ends certified, without a warning or a NaN."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import bcd, datasets


def of_two(y):
    return np.where(y > np.median(y), 1, 0)


def of_three(y):
    return np.digitize(y, np.quantile(y, [0.3, 0.6]))


def same(y):
    return y


def grouped(X, y, alpha, **options):
    return bcd.group_lasso(X, y, alpha, np.arange(X.shape[1]) // 2, **options)


def concave(X, y, alpha, **options):
    return bcd.sparse_regression(X, y, alpha, penalty="scad", gamma=1e4, **options)


# The function, what it makes of targets, and what the least alpha without coefficients is called.
MODELS = {
    "lasso": (bcd.lasso, same, ("quadratic", {})),
    "elastic_net": (bcd.elastic_net, same, ("quadratic", {"penalty": "enet"})),
    "huber": (bcd.huber, same, ("huber", {})),
    "logistic": (bcd.logistic, of_two, ("logistic", {})),
    "multinomial": (bcd.multinomial, of_three, ("multinomial", {})),
    "group_lasso": (grouped, same, ("quadratic", None)),
    "sparse_regression": (concave, same, ("quadratic", {"penalty": "scad"})),
}
CONVEX = [name for name in MODELS if name != "sparse_regression"]
each_model = pytest.mark.parametrize("name", MODELS)
each_intercept = pytest.mark.parametrize("intercept", [False, True])


@pytest.fixture(scope="module")
def data():
    X, y, _ = datasets.autoregressive(40, 12, informative=4, noise=0.3, rng=0)
    return X, y + 1.0


def largest(name, X, y, intercept):
    datafit, words = MODELS[name][2]
    if words is None:
        words = {"penalty": "group", "groups": np.arange(X.shape[1]) // 2}
    return bcd.alpha_max(datafit, X, y, fit_intercept=intercept, **words)


def solve(name, X, y, *, share=0.1, intercept=True, **options):
    """Solve at a share of the least alpha without coefficients, and check the answer."""
    fun, targets, _ = MODELS[name]
    y = targets(y)
    alpha = share * largest(name, X, y, intercept) if np.isfinite(share) else share
    res = fun(X, y, alpha, fit_intercept=intercept, **options)
    assert res.success, res.message
    assert np.isfinite(res.x).all()
    assert np.isfinite(res.fun)
    return res


@each_model
@each_intercept
def test_empty_and_constant_columns_get_no_coefficient(data, name, intercept):
    X, y = data
    X = np.c_[X, np.zeros(40), np.zeros(40), np.full(40, 3.0), np.full(40, 3.0)]
    x = solve(name, X, y, intercept=intercept).x
    assert (x[12:14] == 0).all()
    if intercept:
        assert (x[14:] == 0).all()


@pytest.mark.parametrize("name", CONVEX)
def test_columns_that_are_there_twice_change_no_objective(data, name):
    X, y = data
    if name == "elastic_net":
        pytest.skip("two columns share a ridge")
    if name == "group_lasso":
        pytest.skip("larger groups cost more")
    once, twice = (solve(name, A, y, tol=1e-10) for A in (X, np.c_[X, X]))
    assert twice.fun == pytest.approx(once.fun, rel=1e-8)


@each_model
@each_intercept
def test_single_features_and_few_samples_are_problems_too(data, name, intercept):
    X, y = data
    solve(name, X[:, :1], y, intercept=intercept)
    few = 4 if name == "multinomial" else 2
    solve(name, X[:few], y[:few], intercept=intercept)
    if MODELS[name][1] is same:
        solve(name, X[:1], y[:1], intercept=intercept)


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name][1] is same])
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_constant_targets_are_met_by_the_intercept(data, name, value):
    X, _ = data
    y = np.full(40, value)
    res = MODELS[name][0](X, y, 0.1, fit_intercept=True)
    assert res.success
    assert (res.x == 0).all()
    assert res.intercept == pytest.approx(value, abs=1e-9)
    without = MODELS[name][0](X, y, 0.1)
    assert without.success


@each_model
@each_intercept
def test_large_penalties_leave_nothing(data, name, intercept):
    X, y = data
    for share in (1.0, 1.5, np.inf):
        res = solve(name, X, y, share=share, intercept=intercept)
        assert np.abs(res.x).max() <= (1e-12 if share == 1.0 else 0.0)
        if share > 1:
            assert res.nit == 0


@pytest.mark.parametrize("unit", [1e150, 1e-150])
@pytest.mark.parametrize("name", ["lasso", "group_lasso"])
def test_the_unit_of_the_targets_does_not_matter(data, name, unit):
    X, y = data
    plain, scaled = solve(name, X, y), solve(name, X, unit * y)
    np.testing.assert_allclose(scaled.x / unit, plain.x, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        *((name, 1e-100) for name in ("lasso", "logistic", "huber")),
        *((name, unit) for name in CONVEX if name != "elastic_net" for unit in (1e100, 1e-8)),
    ],
)
def test_the_unit_of_the_features_does_not_matter(data, name, unit):
    X, y = data
    plain, scaled = solve(name, X, y), solve(name, unit * X, y)
    np.testing.assert_allclose(scaled.x * unit, plain.x, atol=1e-6)
    assert scaled.fun == pytest.approx(plain.fun, rel=1e-7)


@pytest.mark.parametrize("name", ["lasso", "logistic"])
def test_columns_of_very_different_length_are_certified(data, name):
    X, y = data
    weights = 10.0 ** np.linspace(-8, 8, 12)
    plain = solve(name, X, y, share=0.1)
    alpha = 0.1 * largest(name, X, MODELS[name][1](y), True)
    scaled = MODELS[name][0](X * weights, MODELS[name][1](y), alpha, weights=weights,
                             fit_intercept=True)  # fmt: skip
    assert scaled.success
    np.testing.assert_allclose(scaled.x * weights, plain.x, atol=1e-5)


FORMS = {
    "Fortran": np.asfortranarray,
    "backwards": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "csc": sp.csc_array,
    "csr": sp.csr_matrix,
    "stored zeros": lambda X: sp.csc_array(
        (np.r_[X.T.ravel()], np.tile(np.arange(40), 12), 40 * np.arange(13)), shape=X.shape
    ),
    "int8": lambda X: X.astype(np.int8),
    "float32": lambda X: X.astype(np.float32),
}


@each_model
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_matrix_has_the_same_answer(data, name, form):
    X, y = data
    X = np.rint(X) + (np.arange(12) == 0)  # with zeros, and a column that never is
    plain, other = solve(name, X, y), solve(name, FORMS[form](X), y)
    # A float32 matrix with float64 targets is computed in float64.
    np.testing.assert_allclose(other.x, plain.x, atol=1e-4)
    assert other.fun == pytest.approx(plain.fun, rel=1e-6)


@each_model
def test_single_precision_is_certified_in_single_precision(data, name):
    X, y = data
    res = solve(name, X.astype(np.float32), y.astype(np.float32))
    assert res.x.dtype == np.float32
    assert res.certificate.tol == 1e-6
    np.testing.assert_allclose(res.x, solve(name, X, y).x, atol=1e-2)


@each_model
def test_a_start_far_away_is_no_trouble(data, name):
    X, y = data
    fun, targets, _ = MODELS[name]
    alpha = 0.5 * largest(name, X, targets(y), True)
    cold = fun(X, targets(y), alpha, fit_intercept=True)
    far = fun(X, targets(y), alpha, fit_intercept=True, x0=np.full_like(cold.x, 10.0))
    assert far.success
    assert far.fun == pytest.approx(cold.fun, rel=1e-6)


def test_single_classes_are_refused(data):
    X, _ = data
    for fun in (bcd.logistic, bcd.multinomial):
        with pytest.raises(ValueError, match=r"^`y` holds 1 different label"):
            fun(X, np.ones(40), 0.1)


# Graphs.


def test_graphs_may_be_labelled_everywhere():
    graph = datasets.lattice_graph(4, labelled=16, rng=0)
    res = bcd.label_propagation(graph.W, graph.labels)
    np.testing.assert_array_equal(res.x, graph.labels)
    assert res.success


def test_graphs_without_edges_need_a_word_about_their_nodes():
    W, labels = sp.csr_array((4, 4)), np.array([1.0, np.nan, 2.0, np.nan])
    with pytest.raises(ValueError, match=r"^`labels`"):
        bcd.label_propagation(W, labels)
    np.testing.assert_array_equal(
        bcd.label_propagation(W, labels, isolated="zero").x, [1.0, 0.0, 2.0, 0.0]
    )
    np.testing.assert_array_equal(bcd.label_propagation(W, labels, isolated="nan").x, labels)
