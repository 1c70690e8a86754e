"""`implicit`: every linear solver against closed forms, and what it asks of the oracles."""

import numpy as np
import pytest

import solvers
from solvers import Status, bilevel
from solvers.bilevel import _curvature as linear
from solvers.bilevel._curvature import Curvature
from solvers.bilevel._descent import Pairs
from solvers.bilevel._problem import pose
from tests.bilevel.oracles import Quadratic, Ridge

WORDS = ["auto", "cg", "neumann", "dense", "shine", "minres"]


def bare(level):
    """The same level without second derivatives."""
    return bilevel.Oracle(value_and_grads=level.value_and_grads)


@pytest.mark.parametrize("word", WORDS)
def test_every_linear_solver_finds_the_planted_solution(word):
    q = Quadratic(kappa=4.0)
    res = bilevel.implicit(q.upper, q.oracle(), q.x0, q.y0, linear_solver=word, tol=1e-8)
    assert res.success
    np.testing.assert_allclose(res.x, q.x, atol=1e-6)
    np.testing.assert_allclose(res.y, q.y, atol=1e-6)
    assert res.fun == pytest.approx(q.value, rel=1e-9)


@pytest.mark.parametrize("word", WORDS)
def test_on_a_box_the_exact_gradient_vanishes_or_presses_against_it(word):
    r = Ridge(seed=3)
    box = bilevel.box(-6.0, 1.0)
    res = bilevel.implicit(
        r.upper, r.oracle(), r.x0, r.y0, X=box, linear_solver=word, tol=1e-7, maxiter=500
    )
    grad = r.psi(res.x)[1]
    assert res.success
    assert abs(res.x - np.clip(res.x - grad, -6.0, 1.0)).max() <= 2e-7
    # A different local solution would be no fault; this problem has one.
    assert res.fun == pytest.approx(r.best(-6.0, 1.0).fun, rel=1e-6)


@pytest.mark.parametrize("word", ["auto", "dense", "shine"])
def test_differences_of_gradients_stand_in_for_second_derivatives(word):
    r = Ridge(seed=1)
    box = bilevel.box(-6.0, 1.0)
    with_them = bilevel.implicit(r.upper, r.oracle(), r.x0, r.y0, X=box, linear_solver=word)
    without = bilevel.implicit(r.upper, bare(r.oracle()), r.x0, r.y0, X=box, linear_solver=word)
    assert with_them.success
    assert without.success
    assert with_them.counts["n_hvp"] > 0 == without.counts["n_hvp"]
    assert without.fun == pytest.approx(with_them.fun, rel=1e-6)


@pytest.mark.parametrize("missing", ["hvp_yy", "hvp_xy"])
@pytest.mark.parametrize("word", ["cg", "neumann", "minres"])
def test_solvers_by_products_ask_for_them(word, missing):
    q = Quadratic()
    lower = bilevel.Oracle(
        value_and_grads=q.lower,
        **{"hvp_yy": q.oracle().hvp_yy, "hvp_xy": q.oracle().hvp_xy, missing: None},
    )
    with pytest.raises(TypeError, match=rf"`linear_solver`.*lower\.{missing}"):
        bilevel.implicit(q.upper, lower, q.x0, q.y0, linear_solver=word)


def test_large_dense_matrices_are_refused_and_unknown_words_listed():
    lower = bilevel.Oracle(value_and_grads=lambda x, y: (0.5 * y @ y - x[0] * y.sum(), 0, y - x))
    upper = bilevel.Oracle(value_and_grads=lambda x, y: (0.5 * y @ y, 0, y))
    with pytest.raises(ValueError, match="`linear_solver` came as 'dense' for 2001"):
        bilevel.implicit(upper, lower, np.zeros(1), np.zeros(2001), linear_solver="dense")
    with pytest.raises(ValueError, match=r"`linear_solver`.*'shine'"):
        bilevel.implicit(upper, lower, np.zeros(1), np.zeros(3), linear_solver="lu")


@pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_is_off_by_no_more_than_ten_times_its_estimate(seed):
    r = Ridge(seed=seed)
    x0 = np.random.default_rng(seed).uniform(-3.0, 1.0, r.p)
    for tol in (1e-2, 1e-6):
        res = bilevel.implicit(r.upper, r.oracle(), x0, r.y0, tol=tol, maxiter=2)
        off = np.linalg.norm(res.jac - r.psi(res.x)[1])
        assert off <= 10 * res.jac_err + 1e-13


def test_calls_are_counted_as_the_caller_sees_them():
    q, seen = Quadratic(), {"n_f": 0, "n_g": 0, "n_hvp": 0}
    oracle = q.oracle()

    def counted(key, fun):
        def wrapped(*args):
            seen[key] += counting
            return fun(*args)

        return wrapped

    lower = bilevel.Oracle(
        value_and_grads=counted("n_g", q.lower),
        hvp_yy=counted("n_hvp", oracle.hvp_yy),
        hvp_xy=counted("n_hvp", oracle.hvp_xy),
    )

    def stop(intermediate_result):
        # The certificate comes after the last step and does not count.
        nonlocal counting
        counting = intermediate_result.nit < 3
        at_end.update(seen)
        return not counting

    counting, at_end = True, {}
    res = bilevel.implicit(counted("n_f", q.upper), lower, q.x0, q.y0, callback=stop)
    assert res.status is Status.CALLBACK
    for key, calls in at_end.items():
        assert 0 < calls <= res.counts[key], key


def test_a_diagonal_saves_products_and_changes_no_answer():
    r = Ridge(seed=5)
    scale = np.geomspace(0.3, 3.0, r.p)
    r.X, r.V = r.X * scale, r.V * scale
    plain = bilevel.Oracle(
        value_and_grads=r.lower, hvp_yy=r.oracle().hvp_yy, hvp_xy=r.oracle().hvp_xy
    )
    options = {"X": bilevel.box(-6.0, 1.0), "linear_solver": "neumann", "maxiter_inner": 20_000}
    fast = bilevel.implicit(r.upper, r.oracle(), r.x0, r.y0, **options)
    slow = bilevel.implicit(r.upper, plain, r.x0, r.y0, **options)
    assert fast.success
    assert fast.fun == pytest.approx(slow.fun, rel=1e-6)
    assert fast.counts["n_hvp"] < slow.counts["n_hvp"]


def test_a_start_at_the_solution_takes_no_step():
    q = Quadratic()
    res = bilevel.implicit(q.upper, q.oracle(), q.x, q.y)
    assert res.success
    assert res.nit == 0


def test_nested_variables_and_single_precision_come_back_as_they_came():
    q = Quadratic(kappa=4.0, dtype=np.float32)

    def nested(level):
        def fun(x, y):
            value, gx, gy = level(np.r_[x["a"], x["b"]], y[0].reshape(-1))
            return value, {"a": gx[:1], "b": gx[1:]}, [gy.reshape(7, 1)]

        return fun

    res = bilevel.implicit(
        nested(q.upper), nested(q.lower), {"a": q.x0[:1], "b": q.x0[1:]}, [q.y0.reshape(7, 1)]
    )
    assert res.success
    assert res.x["b"].dtype == res.y[0].dtype == res.jac["a"].dtype == np.float32
    assert res.y[0].shape == (7, 1)
    np.testing.assert_allclose(np.r_[res.x["a"], res.x["b"]], q.x, atol=2e-2)


def test_inner_solves_cut_short_are_admitted():
    q = Quadratic(kappa=300.0, d=6, p=30)
    with pytest.warns(solvers.ConvergenceWarning, match="above the tolerance"):
        res = bilevel.implicit(q.upper, q.oracle(), q.x0, q.y0, maxiter_inner=2, maxiter=50)
    assert not res.success
    assert res.status in (Status.STALLED, Status.MAXITER)
    assert np.isfinite(res.fun)
    assert abs(q.psi(res.x)[1]).max() > res.certificate.tol


@pytest.mark.parametrize("solver", [bilevel.implicit, bilevel.unroll])
def test_levels_without_a_solution_are_named(solver):
    q = Quadratic(d=2, p=2)
    lower = bilevel.Oracle(value_and_grads=lambda x, y: (float(y.sum()), 0, np.ones(2)))
    with pytest.warns(solvers.ConvergenceWarning, match="falls without end"):
        res = solver(q.upper, lower, q.x0, q.y0)
    assert res.status is Status.UNBOUNDED
    assert np.isfinite(res.x).all()
    assert np.isfinite(res.y).all()


# ---- linear systems alone


def curvature(A, b, diagonal=None):
    """Return the second derivatives of ``y'Ay/2 - b'y`` at 0."""
    lower = bilevel.Oracle(
        value_and_grads=lambda x, y: (0.5 * y @ A @ y - b @ y, 0, A @ y - b),
        hvp_yy=lambda x, y, v: A @ v,
        hvp_xy=lambda x, y, v: 0 * x,
        precond_y=None if diagonal is None else lambda x: diagonal,
    )
    problem = pose(lambda x, y: (0.0, 0, 0), lower, np.zeros(1), np.zeros(len(b)))
    return Curvature(problem, problem.x0, problem.y0)


def matrix(rng, eigenvalues):
    Q, _ = np.linalg.qr(rng.standard_normal((len(eigenvalues),) * 2))
    return (Q * eigenvalues) @ Q.T


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("word", ["cg", "neumann", "dense", "minres"])
def test_regular_systems_equal_a_dense_solve_from_any_guess(word, scaled):
    rng = np.random.default_rng(0)
    A, b = matrix(rng, np.geomspace(0.2, 5.0, 12)), rng.standard_normal(12)
    found = curvature(A, b, np.diag(A) if scaled else None)
    guess = rng.standard_normal(12)
    q = getattr(linear, word)(found, b, guess, 1e-10, 2000)
    np.testing.assert_allclose(q, np.linalg.solve(A, b), atol=1e-8)


@pytest.mark.parametrize("word", ["minres", "dense"])
@pytest.mark.parametrize("spectrum", [np.r_[np.geomspace(0.2, 5, 8), np.zeros(4)]])
def test_singular_systems_get_the_shortest_solution(word, spectrum):
    rng = np.random.default_rng(1)
    A = matrix(rng, spectrum)
    b = A @ rng.standard_normal(12)
    q = getattr(linear, word)(curvature(A, b), b, np.zeros(12), 1e-10, 200)
    np.testing.assert_allclose(q, np.linalg.pinv(A, rcond=1e-10) @ b, atol=1e-8)


def test_minimal_residuals_need_no_positive_matrix():
    rng = np.random.default_rng(2)
    A, b = matrix(rng, np.linspace(-3.0, 4.0, 12)), rng.standard_normal(12)
    q = linear.minres(curvature(A, b), b, np.zeros(12), 1e-10, 200)
    np.testing.assert_allclose(q, np.linalg.solve(A, b), atol=1e-7)


def test_the_largest_eigenvalue_is_met_from_above_with_and_without_a_diagonal():
    rng = np.random.default_rng(3)
    A, b = matrix(rng, np.geomspace(0.01, 7.0, 20)), np.zeros(20)
    diagonal = rng.uniform(0.5, 2.0, 20)
    for P in (np.ones(20), diagonal):
        top = np.linalg.eigvals(A / P[:, None]).real.max()
        assert top <= curvature(A, b, P).largest(60) <= 1.06 * top


def test_pairs_of_a_quadratic_give_the_exact_inverse():
    rng = np.random.default_rng(4)
    A, b = matrix(rng, np.geomspace(0.2, 5.0, 6)), rng.standard_normal(6)
    _, directions = np.linalg.eigh(A)
    # Conjugate directions, all of them: no information is missing.
    pairs = Pairs(6)
    for s in directions.T:
        pairs.add(s, A @ s)
    q = linear.quasi_newton(pairs, b, curvature(A, b), 1.0)
    np.testing.assert_allclose(q, np.linalg.solve(A, b), atol=1e-10)


def test_every_correction_by_the_inverse_of_the_lower_level_is_closer():
    rng = np.random.default_rng(5)
    A, b = matrix(rng, np.geomspace(0.2, 5.0, 12)), rng.standard_normal(12)
    q, pairs, left = np.zeros(12), Pairs(30), [np.linalg.norm(b)]
    for _ in range(15):
        q = linear.shine(pairs, b, q, curvature(A, b), 0.2)
        left.append(np.linalg.norm(b - A @ q))
    assert left[5] < left[0]
    assert left[10] < left[5]
    assert left[15] < 1e-6


# ---- going on


@pytest.mark.parametrize("word", ["cg", "shine"])
@pytest.mark.parametrize("way", ["state", "file"])
def test_a_run_goes_on_bit_for_bit(word, way, tmp_path):
    r = Ridge(seed=9)
    options = {"X": bilevel.box(-6.0, 1.0), "linear_solver": word, "tol": 1e-7}
    whole = bilevel.implicit(r.upper, r.oracle(), r.x0, r.y0, **options)
    path = tmp_path / "run.npz"
    part = bilevel.implicit(
        r.upper, r.oracle(), r.x0, r.y0, callback=lambda state: state.nit == 4, checkpoint=path,
        **options,
    )  # fmt: skip
    assert part.status is Status.CALLBACK
    again = bilevel.implicit(
        r.upper, r.oracle(), r.x0, r.y0, resume=part.state if way == "state" else path, **options
    )
    assert part.nit < again.nit == whole.nit
    assert np.array_equal(again.x, whole.x)
    assert np.array_equal(again.y, whole.y)
