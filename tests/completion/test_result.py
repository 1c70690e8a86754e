import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import completion
from solvers.completion import CompletionResult, _result

SHAPE = 14, 11


@pytest.fixture
def dense(rng):
    """A noisy matrix of low rank with gaps."""
    X = rng.random((14, 2)) @ rng.random((2, 11)) + 0.05 * rng.normal(size=SHAPE)
    X[rng.random(SHAPE) < 0.3] = np.nan
    return X


def solve(M, rank=2, **options):
    return completion.alternating_minimization(
        M, rank, **{"method": "altmin", "rng": 0, "tol": 1e-8, "maxiter": 5000, **options}
    )


def estimate(res):
    """The whole estimate, by its formula."""
    return res.mu + res.row_bias[:, None] + res.col_bias + (res.U * res.s) @ res.V.T


@pytest.fixture
def biased(dense):
    return solve(dense + 3.0, lam=0.2, bias=True)


def test_entries_blocks_and_the_whole_are_the_formulas(biased, rng):
    X = estimate(biased)
    assert biased.mu > 2.0
    assert np.ptp(biased.row_bias) > 0.0
    rows, cols = rng.integers(0, 14, 50), rng.integers(0, 11, 50)
    np.testing.assert_allclose(biased.predict(rows, cols), X[rows, cols], rtol=1e-13)
    np.testing.assert_allclose(biased.block(slice(3, 9), slice(-4, None)), X[3:9, -4:], rtol=1e-13)
    np.testing.assert_allclose(biased.block(slice(None, None, -3)), X[::-3], rtol=1e-13)
    np.testing.assert_allclose(biased.todense(), X, rtol=1e-13)


def test_places_broadcast(biased):
    X = estimate(biased)
    assert biased.predict(2, 3).shape == ()
    assert biased.predict(2, 3) == pytest.approx(X[2, 3])
    np.testing.assert_allclose(biased.predict([[0], [5]], [1, 2, 3]), X[[0, 5], 1:4], rtol=1e-13)
    np.testing.assert_allclose(biased.predict(range(14), 0), X[:, 0], rtol=1e-13)
    assert biased.predict([], []).shape == (0,)
    reversed_rows = np.arange(14, dtype=np.int8)[::-1]
    np.testing.assert_allclose(biased.predict(reversed_rows, 1), X[::-1, 1], rtol=1e-13)


def test_factors_are_balanced(biased):
    A, B = biased.factors()
    np.testing.assert_allclose(A @ B.T, (biased.U * biased.s) @ biased.V.T, rtol=1e-12)
    np.testing.assert_allclose(A.T @ A, B.T @ B, atol=1e-12)


def test_methods_give_arrays_of_the_callers_own(biased):
    before = copy.deepcopy(dict(biased))
    for array in (*biased.factors(), biased.block(), biased.predict([0], [0])):
        array[...] = 7.0
    for name in ("U", "s", "V", "row_bias"):
        np.testing.assert_array_equal(biased[name], before[name])


MODELS = {
    "least squares": {},
    "ridge": {"lam": 0.3},
    "mean": {"lam": 0.3, "center": True},
    "biases": {"lam": 0.3, "bias": True},
    "biases of their own": {"lam": 0.3, "bias": True, "lam_bias": 0.02},
    "weighted": {"lam": 0.02, "weighted_lambda": True},
    "weighted biases": {"lam": 0.02, "weighted_lambda": True, "bias": True},
    "implicit": {"lam": 0.3, "implicit": True, "alpha": 2.0},
    "nonnegative": {"lam": 0.1, "nonnegative": True},
    "weighted nonnegative": {"lam": 0.01, "nonnegative": True, "weighted_lambda": True},
    "huber": {"loss": "huber", "delta": 0.05},
}


@pytest.mark.parametrize("model", MODELS)
def test_known_rows_fold_in_where_they_were(dense, model):
    M = np.where(dense > 0.6, 3.0 * dense, 0.0) if model == "implicit" else 100.0 * dense
    M = sp.csr_array(M) if model == "implicit" else M
    options = dict(MODELS[model])
    if not (options.get("weighted_lambda") or options.get("implicit")):
        # The ridge, like delta, is in the unit of the data.
        options |= {name: 100.0 * options[name] for name in ("lam", "delta") if name in options}
    res = solve(M, **options)
    assert res.certificate.value < 1e-7
    U, bias = res.fold_in(M, return_bias=True)
    # A stationary point is one where no row would rather be elsewhere.
    np.testing.assert_allclose(U, res.U, atol=1e-5)
    np.testing.assert_allclose(bias, res.row_bias, atol=1e-5 * max(np.abs(res.row_bias).max(), 1))


def test_a_new_row_solves_its_ridge_problem(dense, rng):
    lam, lam_bias = 0.4, 0.1
    res = solve(dense, lam=lam, bias=True, lam_bias=lam_bias)
    row = rng.random(11)
    row[[2, 5, 6]] = np.nan
    known = np.flatnonzero(~np.isnan(row))
    # The row's factor a and bias b, in one least-squares problem.
    B = res.V * np.sqrt(res.s)
    design = np.r_[np.c_[B[known], np.ones(known.size)], np.diag(np.sqrt([lam, lam, lam_bias]))]
    target = np.r_[row[known] - res.mu - res.col_bias[known], np.zeros(3)]
    *a, b = np.linalg.lstsq(design, target)[0]
    U, bias = res.fold_in(row[None], return_bias=True)
    np.testing.assert_allclose(U[0], a / np.sqrt(res.s), rtol=1e-9)
    np.testing.assert_allclose(bias, b, rtol=1e-9)


def test_new_rows_come_in_every_form(dense):
    res = solve(dense, lam=0.1)
    rows, cols = np.nonzero(~np.isnan(dense[:5]))
    vals = dense[rows, cols]
    expected = res.fold_in(dense[:5])
    for form in (
        np.ma.masked_invalid(dense[:5]),
        sp.coo_array((vals, (rows, cols)), shape=(5, 11)),
        dense[:5].tolist(),
    ):
        np.testing.assert_allclose(res.fold_in(form), expected, rtol=1e-12)
    np.testing.assert_allclose(
        res.fold_in((rows, cols, vals), shape=(5, 11)), expected, rtol=1e-12
    )


def test_rows_without_entries_fold_in_as_zeros(dense):
    res = solve(dense, lam=0.1)
    np.testing.assert_array_equal(res.fold_in(np.full((3, 11), np.nan)), np.zeros((3, 2)))
    some = dense[:3].copy()
    some[1] = np.nan
    U = res.fold_in(some)
    np.testing.assert_array_equal(U[1], 0.0)
    np.testing.assert_allclose(U[0], res.U[0], atol=1e-6)
    implicit = solve(sp.csr_array(np.nan_to_num(dense) > 0.5), lam=0.1, implicit=True)
    zeros = sp.csr_array((np.zeros(2), ([0, 1], [3, 4])), shape=(2, 11))
    np.testing.assert_array_equal(implicit.fold_in(zeros), np.zeros((2, 2)))


@pytest.mark.parametrize("scores", [11, 40, 10**6])
def test_the_best_columns_are_those_of_a_sort(biased, rng, monkeypatch, scores):
    # A few rows at a time give what all at once give.
    monkeypatch.setattr(_result, "_SCORES", scores)
    X, rows = estimate(biased), np.array([5, 0, 5, 13])
    cols, best = biased.top_n(rows, 4)
    order = np.argsort(-X[rows], axis=1)[:, :4]
    np.testing.assert_array_equal(cols, order)
    np.testing.assert_allclose(best, np.take_along_axis(X[rows], order, axis=1), rtol=1e-12)
    seen = sp.random_array(SHAPE, density=0.3, rng=rng)
    cols, _ = biased.top_n(rows, 3, exclude=seen)
    masked = np.where(seen.toarray() != 0.0, -np.inf, X)
    np.testing.assert_array_equal(cols, np.argsort(-masked[rows], axis=1)[:, :3])


def test_rows_with_too_few_columns_say_so(biased):
    seen = np.ones(SHAPE)
    seen[0, [4, 7]] = 0.0
    # Stored zeros have been seen, too.
    seen = sp.csr_array(seen)
    seen.data[:3] = 0.0
    cols, scores = biased.top_n(0, 4, exclude=seen)
    assert set(cols[:2]) == {4, 7}
    np.testing.assert_array_equal(cols[2:], -1)
    np.testing.assert_array_equal(scores[2:], -np.inf)
    cols, scores = biased.top_n([1], 12)
    assert cols.shape == (1, 12)
    np.testing.assert_array_equal(np.sort(cols[0]), np.arange(-1, 11))


def test_big_matrices_are_made_only_when_forced(dense, monkeypatch):
    res = solve(dense)
    monkeypatch.setattr(_result, "_DENSE", 150)
    with pytest.raises(MemoryError, match=r"use `predict` or `block`, or pass force=True"):
        res.todense()
    assert res.todense(force=True).shape == SHAPE
    monkeypatch.setattr(_result, "_DENSE", 154)
    assert res.todense().shape == SHAPE


def test_copies_and_pickles_are_whole(biased, dense):
    for other in (copy.deepcopy(biased), pickle.loads(pickle.dumps(biased))):
        assert type(other) is CompletionResult
        np.testing.assert_array_equal(
            other.predict([1, 2], [3, 4]), biased.predict([1, 2], [3, 4])
        )
        np.testing.assert_array_equal(other.fold_in(dense), biased.fold_in(dense))
        assert other.certificate == biased.certificate
        assert other.summary() == biased.summary()


def test_single_precision_stays_single(dense):
    res = solve(dense.astype(np.float32), lam=0.1, tol=1e-4)
    values = res.predict([0], [0]), res.block(), res.fold_in(dense), res.top_n([0], 2)[1]
    for array in (res.U, res.row_bias, *values, *res.factors()):
        assert array.dtype == np.float32


def test_it_shows_itself_without_its_inner_parts(biased):
    names = {"predict", "block", "todense", "fold_in", "top_n", "factors", "U", "components"}
    assert names <= set(dir(biased))
    assert not any(name in repr(biased) for name in ("_model", "_gauge"))
    assert "row_bias" in repr(biased)


def test_every_field_is_annotated_and_documented(biased):
    fields = {name for name in biased if not name.startswith("_")}
    bases = CompletionResult.__mro__[1].__annotations__
    assert fields == {*CompletionResult.__annotations__, *bases} - {"_bibtex"}
    for name in CompletionResult.__annotations__:
        assert name == "_bibtex" or f"{name}" in CompletionResult.__doc__


def test_it_cites_the_methods_that_ran(dense):
    res = solve(dense, lam=0.3)
    text = res.cite()
    assert text.count("@") == 2
    assert "gu2024low" in text
    res.stages.append(("gn", 3, 0.1))
    assert "zilber2022gnmr" in res.cite()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda res: res.predict([0, 14], [0, 0]),
            ValueError,
            r"^`rows` contains 14 at rows\[1\]",
        ),
        (lambda res: res.predict([0], [-1]), ValueError, r"^`cols` contains -1 at cols\[0\]"),
        (lambda res: res.predict([[0], [99]], 0), ValueError, r"^`rows` contains 99; expected"),
        (lambda res: res.predict([0.0], [0]), TypeError, r"^`rows` came with dtype float64"),
        (lambda res: res.predict([True], [0]), TypeError, r"^`rows` came with dtype bool"),
        (lambda res: res.predict([0, 1], [0, 1, 2]), ValueError, r"^`rows` and `cols` came with"),
        (lambda res: res.block(3), TypeError, r"^`row_slice` came as int; expected a slice"),
        (lambda res: res.block(slice(3), [1]), TypeError, r"^`col_slice` came as list"),
        (
            lambda res: res.fold_in(np.ones((2, 5))),
            ValueError,
            r"^`rows` came with shape \(2, 5\)",
        ),
        (lambda res: res.fold_in(np.ones(11)), ValueError, r"^`rows` came 1-D"),
        (
            lambda res: res.fold_in([[np.inf] * 11]),
            ValueError,
            r"^`rows` contains inf at \(0, 0\)",
        ),
        (lambda res: res.fold_in(([0], [0], [1.0])), TypeError, r"^`shape` is required"),
        (lambda res: res.fold_in("x"), TypeError, r"^`rows` came as str"),
        (
            lambda res: res.fold_in(np.ones((1, 11)), return_bias=1),
            TypeError,
            r"^`return_bias` came as int",
        ),
        (lambda res: res.top_n([14], 2), ValueError, r"^`rows` contains 14"),
        (lambda res: res.top_n([0.5], 2), TypeError, r"^`rows` came with dtype"),
        (lambda res: res.top_n([0], 0), ValueError, r"^`n` came as 0"),
        (lambda res: res.top_n([0], 2.0), TypeError, r"^`n` came as float"),
        (
            lambda res: res.top_n([0], 2, exclude=np.ones(SHAPE)),
            TypeError,
            r"^`exclude` came as numpy.ndarray .* sparse",
        ),
        (
            lambda res: res.top_n([0], 2, exclude=sp.eye_array(3)),
            ValueError,
            r"^`exclude` came with shape \(3, 3\); expected \(14, 11\)",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(biased, call, kind, message):
    with pytest.raises(kind, match=message):
        call(biased)
