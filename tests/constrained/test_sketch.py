"""Sketch and project against closed forms, dense solves and its own laws."""

import inspect
import re

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint
from scipy.sparse.linalg import LinearOperator, minres

import solvers
from solvers import ConvergenceWarning, Status
from solvers._core.backend import get_backend
from solvers.constrained import minimize, sketch_project
from solvers.constrained.inner import INNERS
from solvers.constrained.sketches import SKETCHES, _blocks
from solvers.constrained.sketches._projection import Projection
from solvers.constrained.sketches._rows import Rows

MONOTONE = [name for name in SKETCHES if name != "kaczmarz++"]
BLOCKS = [name for name, kind in SKETCHES.items() if kind.blocks]


def symmetric(singular_values, seed=0):
    """Return a symmetric indefinite matrix with these singular values."""
    rng = np.random.default_rng(seed)
    n = len(singular_values)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = (Q * (singular_values * rng.choice([-1.0, 1.0], n))) @ Q.T
    return (A + A.T) / 2


def outliers(n=300, count=40, seed=0):
    """Return a matrix of which some singular values are a thousand times the others."""
    s = np.random.default_rng(seed).uniform(1, 2, n)
    s[:count] *= 1e3 * (1 + np.arange(count) / count)
    return symmetric(s, seed)


def projection(A, b, sketch, *, block_size=None, seed=0, x=None):
    rows = Rows(A, be=get_backend("numpy"))
    run = Projection(rows, SKETCHES[sketch], block_size, np.random.default_rng(seed))
    run.begin(b, np.zeros(A.shape[1]) if x is None else x.copy())
    return run


# ---------------------------------------------------------------- laws of the steps
@pytest.mark.parametrize("sketch", MONOTONE)
def test_no_step_without_momentum_moves_away_from_the_solution(sketch):
    A, x = symmetric(np.linspace(1, 9, 24)), np.linspace(-1, 1, 24)
    run, error = projection(A, A @ x, sketch), np.linalg.norm(x)
    for _ in range(40):
        run.sweep(1)
        before, error = error, np.linalg.norm(run.x - x)
        assert error <= before * (1 + 1e-12) + 1e-13


def test_the_expected_step_of_weighted_rows_has_the_known_rate():
    # From the last singular vector, the mean of the squared error over all rows is exact.
    A = np.random.default_rng(1).standard_normal((14, 6))
    _, s, V = np.linalg.svd(A)
    b, lengths, kept = A @ np.ones(6), (A**2).sum(axis=1), 0.0
    rows = Rows(A, be=get_backend("numpy"))
    for i in range(14):
        x = np.ones(6) + V[-1]
        rows.step(b, np.array([i]), x)
        kept += lengths[i] / lengths.sum() * np.sum((x - 1) ** 2)
    assert kept == pytest.approx(1 - s[-1] ** 2 / lengths.sum(), rel=1e-12)


def test_weighted_rows_come_as_often_as_their_squared_lengths_say():
    A = np.diag([3.0, 2.0, 1.0, 0.0])
    run = projection(A, np.ones(4), "kaczmarz-weighted")
    drawn = []
    run._stepper.rows.step = lambda b, order, x: drawn.extend(order)
    run._stepper.advance(run.x, 14_000)
    share = np.bincount(drawn, minlength=4) / len(drawn)
    # Five standard deviations.
    np.testing.assert_allclose(share, np.array([9, 4, 1, 0]) / 14, rtol=0, atol=0.02)


@pytest.mark.parametrize("sketch", ["kaczmarz-shuffled", "block-kaczmarz", "kaczmarz++"])
def test_every_row_is_visited_in_the_first_sweep(sketch):
    # The rows are orthogonal, so that a sweep over all of them solves the system.
    Q = np.linalg.qr(np.random.default_rng(2).standard_normal((50, 50)))[0]
    assert sketch_project(Q, Q.sum(axis=1), sketch=sketch, rng=0).history["residual"][0] < 1e-6


@pytest.mark.parametrize("sketch", sorted({*BLOCKS} - {"sparse-sign", "countsketch"}))
def test_blocks_of_all_equations_solve_in_a_step(sketch):
    A = np.random.default_rng(3).standard_normal((16, 16)) + 8 * np.eye(16)
    res = sketch_project(
        A, A.sum(axis=1), sketch=sketch, block_size=16, maxiter=1, rng=0, tol=1e-6
    )
    np.testing.assert_allclose(res.x, 1.0, rtol=0, atol=1e-5)


def test_rows_that_repeat_or_vanish_do_no_harm():
    A = np.random.default_rng(4).standard_normal((8, 6))
    A = np.concatenate([A, A, 1e-9 * A[:3], np.zeros((2, 6))])
    for sketch in SKETCHES:
        res = sketch_project(A, A.sum(axis=1), sketch=sketch, rng=0)
        assert res.success, sketch
        np.testing.assert_allclose(res.x, 1.0, rtol=0, atol=1e-6)


# ---------------------------------------------------------------- answers
FORMS = [(name, form) for name in SKETCHES for form in (np.asarray, sp.csr_array)]
FORMS += [("kaczmarz++", np.asfortranarray), ("kaczmarz++", sp.coo_matrix)]


@pytest.mark.parametrize(("sketch", "form"), FORMS)
def test_consistent_systems_of_every_shape_have_the_nearest_solution(sketch, form):
    rng = np.random.default_rng(5)
    for shape, rank in (((20, 9), 9), ((9, 20), 9), ((18, 15), 6)):
        U, V = np.linalg.qr(rng.standard_normal((shape[0], rank)))[0], rng.standard_normal(shape)
        A = (
            U @ U.T @ V * np.linspace(1, 3, shape[0])[:, None]
            if rank == shape[0]
            else U @ (U.T @ V)
        )
        b, x0 = A @ rng.standard_normal(shape[1]), rng.standard_normal(shape[1])
        res = sketch_project(form(A), b, sketch=sketch, x0=x0, rng=0, tol=1e-10)
        assert res.success
        nearest = x0 + np.linalg.pinv(A) @ (b - A @ x0)
        np.testing.assert_allclose(res.x, nearest, rtol=0, atol=1e-7)
        residual = np.linalg.norm(A @ res.x - b) / np.linalg.norm(b)
        assert res.certificate.value == pytest.approx(residual, rel=1e-3, abs=1e-15) == res.fun


@given(st.integers(0, 10**6), st.sampled_from(["kaczmarz", "block-kaczmarz", "kaczmarz++"]))
def test_powers_of_two_in_the_equations_change_no_bit(seed, sketch):
    rng = np.random.default_rng(seed)
    A = np.linalg.qr(rng.standard_normal((12, 12)))[0] + 0.3 * rng.standard_normal((12, 12))
    b, rows = A.sum(axis=1), 2.0 ** rng.integers(-9, 9, 12)
    plain = sketch_project(A, b, sketch=sketch, rng=0, maxiter=20, callback=lambda _: True)
    scaled = sketch_project(
        rows[:, None] * A, rows * b, sketch=sketch, rng=0, maxiter=20, callback=lambda _: True
    )
    np.testing.assert_array_equal(plain.x, scaled.x)


def test_few_passes_are_enough_for_a_matrix_with_outliers():
    A = outliers()
    x = np.random.default_rng(1).standard_normal(300)
    # A block step is 2 q / N of a product.
    res = sketch_project(A, A @ x, block_size=100, maxiter=125 * 3, rng=0)
    assert res.success
    assert res.nit * 2 * 100 / 300 <= 125
    far = minres(A, A @ x, rtol=1e-15, maxiter=125)[0]
    assert np.linalg.norm(A @ far - A @ x) > 1e-7 * np.linalg.norm(A @ x)


def test_blocks_grow_where_they_are_smaller_than_the_number_of_outliers():
    A = outliers(120, 40)
    stuck = projection(A, A.sum(axis=1), "block-kaczmarz", block_size=11)
    free = projection(A, A.sum(axis=1), "block-kaczmarz")
    for run in (stuck, free):
        for _ in range(100):
            run.sweep(10**6)
    assert stuck._stepper.size == 11
    assert free._stepper.size > 40
    assert free.residual < 1e-3 * stuck.residual


def test_a_small_pool_forgets_the_oldest_factors_and_still_solves(monkeypatch):
    monkeypatch.setattr(_blocks, "POOL", 8 * 8**2 * 5)
    A = symmetric(np.linspace(1, 3, 40))
    for sketch in ("kaczmarz++", "block-kaczmarz", "hadamard"):
        res = sketch_project(A, A.sum(axis=1), sketch=sketch, block_size=8, rng=0)
        assert res.success
        np.testing.assert_allclose(res.x, 1.0, rtol=0, atol=1e-6)


# ---------------------------------------------------------------- inside Newton's method
def program(form=np.asarray, seed=6, n=12, m=3):
    """Return a quadratic programme whose rows differ much in length, and its solution."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((n, n))
    H, A = W @ W.T / n + np.eye(n), rng.standard_normal((m, n)) * np.array([[1.0], [30.0], [0.1]])
    g, b = rng.standard_normal(n), rng.standard_normal(m)
    K = np.block([[H, A.T], [A, np.zeros((m, m))]])
    x = np.linalg.solve(K, np.concatenate([-g, b]))[:n]
    H_, A_ = form(H), form(A)
    call = {
        "fun": lambda x: 0.5 * x @ (H_ @ x) + g @ x,
        "x0": np.zeros(n),
        "lam0": np.zeros(m),
        "jac": lambda x: H_ @ x + g,
        "hess": lambda x: H_,
        "constraints": LinearConstraint(A_, b, b),
    }
    return call, x


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("inner", ["sketch", *SKETCHES])
def test_every_kind_solves_the_newton_systems_of_minimize(inner, form):
    call, x = program(form)
    res = minimize(**call, inner=inner, rng=0, tol=1e-6)
    assert res.success
    assert res.inner == inner
    assert res.ninner > 0
    np.testing.assert_allclose(res.x, x, rtol=0, atol=1e-5)


def test_options_of_sketches_take_effect():
    call, _ = program()
    plain = minimize(**call, inner="sketch", rng=0, tol=1e-6)
    same = minimize(**call, inner="kaczmarz++", rng=0, tol=1e-6)
    np.testing.assert_array_equal(plain.x, same.x)
    other = minimize(**call, inner="sketch", sketch="kaczmarz-shuffled", rng=0, tol=1e-6)
    assert other.ninner > 10 * plain.ninner
    small = minimize(**call, inner="sketch", block_size=2, rng=0, tol=1e-6)
    assert small.ninner > plain.ninner
    with pytest.warns(ConvergenceWarning):
        short = minimize(**call, inner="kaczmarz", maxiter_inner=10, maxiter=3, rng=0)
    assert short.ninner <= 3 * 7 * 10


def test_what_has_no_rows_is_refused_by_those_that_need_them():
    call, x = program()
    H = call["hess"](None)
    call["hess"] = lambda x: LinearOperator(H.shape, matvec=lambda v: H @ v, dtype=float)
    for inner, kind in SKETCHES.items():
        if kind.entries:
            with pytest.raises(ValueError, match=re.escape(f"`inner='{inner}'` needs explicit")):
                minimize(**call, inner=inner, rng=0)
        elif inner != "gaussian":
            res = minimize(**call, inner=inner, rng=0, tol=1e-4)
            np.testing.assert_allclose(res.x, x, rtol=0, atol=1e-2)


# ---------------------------------------------------------------- the contract
def test_one_table_names_the_kinds_everywhere():
    assert set(SKETCHES) <= set(INNERS)
    text = " ".join(inspect.getdoc(sketch_project).split())
    for name, kind in SKETCHES.items():
        assert f'- "{name}": {kind.says}' in text
    with pytest.raises(ValueError, match="`sketch`") as error:
        sketch_project(np.eye(2), np.ones(2), sketch="luck")
    assert all(repr(name) in str(error.value) for name in SKETCHES)


def test_ends_are_honest():
    A = symmetric(np.linspace(1, 100, 60))
    b = A.sum(axis=1)
    with pytest.warns(ConvergenceWarning, match="maxiter = 7"):
        res = sketch_project(A, b, sketch="kaczmarz", maxiter=7, rng=0)
    assert (res.status, res.nit, res.success) == (Status.MAXITER, 7, False)
    with pytest.warns(ConvergenceWarning, match="Rounding"):
        res = sketch_project(A, b, block_size=60, tol=1e-300, rng=0)
    assert res.status is Status.STALLED
    assert res.fun < 1e-13
    with pytest.warns(ConvergenceWarning):
        res = sketch_project(A[:, :5], np.ones(60), rng=0, maxiter=300)
    least = A[:, :5] @ np.linalg.lstsq(A[:, :5], np.ones(60), rcond=None)[0] - 1
    assert not res.success
    assert res.fun >= np.linalg.norm(least) / np.sqrt(60) * (1 - 1e-12)
    seen = []
    res = sketch_project(A, b, rng=0, callback=lambda intermediate_result: seen.append(1) or True)
    assert (res.status, len(seen)) == (Status.CALLBACK, 1)


def test_systems_without_a_solution_end_soon():
    A = np.random.default_rng(7).standard_normal((40, 10))
    least = A @ np.linalg.lstsq(A, np.ones(40), rcond=None)[0] - 1
    for form in (np.asarray, sp.csr_array):
        with pytest.warns(ConvergenceWarning, match="no solution"):
            res = sketch_project(form(A), np.ones(40), rng=0)
        assert res.status is Status.STALLED
        assert res.fun >= np.linalg.norm(least) / np.sqrt(40) * (1 - 1e-12)


def test_a_start_that_solves_the_system_is_the_answer():
    A = symmetric(np.linspace(1, 3, 10))
    first = sketch_project(A, A.sum(axis=1), rng=0)
    for start in (first, first.x):
        again = sketch_project(A, A.sum(axis=1), x0=start, rng=0)
        assert again.nit == 0
        np.testing.assert_array_equal(again.x, first.x)
    zero = sketch_project(A, np.zeros(10), rng=0)
    assert zero.success
    assert not zero.x.any()


def test_single_precision_comes_back_with_the_floor_that_it_has():
    A = symmetric(np.linspace(1, 3, 30)).astype(np.float32)
    res = sketch_project(A, A.sum(axis=1), rng=0)
    assert res.x.dtype == np.float32
    assert res.success
    assert 1e-8 < res.certificate.tol == res.certificate.details["floor"] < 1e-6
    np.testing.assert_allclose(res.x, 1.0, rtol=0, atol=1e-5)


def test_the_data_stay_as_they_are():
    A = sp.csr_array((np.array([1.0, 2.0, 3.0]), np.array([1, 0, 1]), np.array([0, 2, 3])), (2, 2))
    b, x0 = np.array([3.0, 3.0]), np.zeros(2)
    kept = A.copy(), b.copy(), x0.copy()
    sketch_project(A, b, x0=x0, rng=0)
    np.testing.assert_array_equal(A.indices, kept[0].indices)
    np.testing.assert_array_equal(A.data, kept[0].data)
    np.testing.assert_array_equal(b, kept[1])
    np.testing.assert_array_equal(x0, kept[2])


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"A": None}, TypeError, "`A`"),
        ({"A": np.ones(3)}, ValueError, "`A`"),
        ({"A": np.ones((3, 2)) + 0j}, TypeError, "`A`"),
        ({"A": sp.csr_array(np.ones((3, 2)) + 0j)}, TypeError, "`A`"),
        ({"A": np.full((3, 2), np.nan)}, ValueError, "`A`"),
        ({"A": sp.csr_array(np.full((3, 2), np.inf))}, ValueError, "`A`"),
        ({"A": np.ones((0, 2))}, ValueError, "`A`"),
        ({"A": sp.csr_array((0, 2))}, ValueError, "`A`"),
        ({"b": np.ones(2)}, ValueError, "`b`"),
        ({"b": None}, TypeError, "`b`"),
        ({"x0": np.ones(3)}, ValueError, "`x0`"),
        ({"sketch": 3}, TypeError, "`sketch`"),
        ({"sketch": "luck"}, ValueError, "`sketch`"),
        ({"block_size": 0}, ValueError, "`block_size`"),
        ({"block_size": 2.5}, TypeError, "`block_size`"),
        ({"tol": 0.0}, ValueError, "`tol`"),
        ({"maxiter": -1}, ValueError, "`maxiter`"),
        ({"rng": "three"}, TypeError, "`rng`"),
        ({"callback": 3}, TypeError, "`callback`"),
    ],
)
def test_bad_input_is_named(change, error, word):
    call = {"A": np.ones((3, 2)), "b": np.ones(3), **change}
    with pytest.raises(error, match=f"^{word}"):
        sketch_project(call.pop("A"), call.pop("b"), **call)


def test_the_result_cites_the_method():
    res = sketch_project(np.eye(3), np.ones(3), rng=0)
    assert isinstance(res, solvers.Result)
    assert "2501.11673" in res.cite()
