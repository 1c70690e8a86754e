"""Projected CG, MINRES and GMRES against dense algebra: answers, ends, preconditioners."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from _cupy_standin import run_with_standin

import solvers
from solvers._core.backend import get_backend
from solvers.constrained import minimize, solve_kkt
from solvers.constrained._lsqr import lsqr
from solvers.constrained._matrices import Operator
from solvers.constrained.inner import Saddle, open_inner
from solvers.constrained.inner._projection import open_projection

NAMES = ("pcg", "minres", "gmres")
BE = get_backend("numpy")
FORMS = {
    "dense": lambda A: A,
    "sparse": sp.csr_array,
    "operator": lambda A: Operator(A.shape, lambda v: A @ v, lambda v: A.T @ v),
}


def opened(name, saddle, **options):
    defaults = {"preconditioner": None, "maxiter_inner": None, "deadline": lambda: False}
    inner = open_inner(name, SimpleNamespace(**{**defaults, **options}))
    inner.factor(saddle)
    return inner


def blocks(seed, n=30, m=7):
    rng = np.random.default_rng(seed)
    W, G = rng.standard_normal((n, n)), rng.standard_normal((m, n))
    return W @ W.T / n + np.eye(n), G, rng.standard_normal(n + m)


def whole(B, G, delta=0.0):
    return np.block([[B, G.T], [G, -delta * np.eye(len(G))]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_residuals_are_true_and_as_small_as_asked(name, form):
    B, G, r = blocks(0)
    K, make = whole(B, G), FORMS[form]
    for tol in (1e-2, 1e-6, 1e-11):
        inner = opened(name, Saddle(make(B), make(G), be=BE))
        solved = inner.solve(r, tol=tol)
        assert solved.flag == "converged"
        np.testing.assert_allclose(solved.residual, K @ solved.d - r, atol=1e-12)
        # The preconditioner of pcg leaves no violation, and weighs the rest by itself.
        assert np.linalg.norm(K @ solved.d - r) <= 1.001 * tol * np.linalg.norm(r)
    np.testing.assert_allclose(solved.d, np.linalg.solve(K, r), atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_a_solve_goes_on_from_where_another_ended(name):
    B, G, r = blocks(1)
    inner = opened(name, Saddle(B, G, be=BE))
    rough = inner.solve(r, tol=1e-3)
    again = inner.solve(r, d0=rough.d, tol=1e-3)
    assert again.iterations == 0
    fine, anew = inner.solve(r, d0=rough.d, tol=1e-9), inner.solve(r, tol=1e-9)
    assert fine.flag == "converged"
    assert fine.iterations < anew.iterations
    assert np.linalg.norm(whole(B, G) @ fine.d - r) <= 1e-9 * np.linalg.norm(r)


@pytest.mark.parametrize("name", NAMES)
def test_the_limit_of_steps_and_the_deadline_end_a_solve(name):
    B, G, r = blocks(2)
    solved = opened(name, Saddle(B, G, be=BE), maxiter_inner=3).solve(r, tol=1e-12)
    assert (solved.iterations, solved.flag) == (3, "maxiter")
    solved = opened(name, Saddle(B, G, be=BE), deadline=lambda: True).solve(r, tol=1e-12)
    assert solved.iterations <= 1
    np.testing.assert_allclose(solved.residual, whole(B, G) @ solved.d - r, atol=1e-12)


@pytest.mark.parametrize("name", ["minres", "gmres"])
def test_the_dual_regularisation_belongs_to_the_matrix(name):
    B, G, r = blocks(3)
    solved = opened(name, Saddle(B, G, 0.5, be=BE)).solve(r, tol=1e-11)
    np.testing.assert_allclose(solved.d, np.linalg.solve(whole(B, G, 0.5), r), atol=1e-8)


# ---------------------------------------------------------------- projected conjugate gradients
@pytest.mark.parametrize("seed", range(3))
def test_steps_of_pcg_meet_the_linearised_constraints_from_the_start(seed):
    B, G, r = blocks(seed)
    for steps in (1, 3):
        solved = opened("pcg", Saddle(B, G, be=BE), maxiter_inner=steps).solve(r, tol=1e-12)
        np.testing.assert_allclose(G @ solved.d[:30], r[30:], atol=1e-12)


def test_pcg_ends_in_as_many_steps_as_the_kernel_has_dimensions():
    B, G, r = blocks(4, n=12, m=5)
    assert opened("pcg", Saddle(B, G, be=BE)).solve(r, tol=1e-9).iterations <= 7 + 2


def test_pcg_never_follows_negative_curvature_beyond_its_first_direction():
    B, G, r = blocks(5)
    B = B - 2.0 * np.eye(30)
    inner = opened("pcg", Saddle(FORMS["operator"](B), G, be=BE))
    r[30:] = 0.0
    solved = inner.solve(r, tol=1e-10)
    assert solved.flag == "negative"
    dx = solved.d[:30]
    np.testing.assert_allclose(G @ dx, 0.0, atol=1e-12)
    # It descends along the quadratic model 1/2 x.Bx - r.x all the same.
    assert r[:30] @ dx > 0
    np.testing.assert_allclose(solved.residual, whole(B, G) @ solved.d - r, atol=1e-11)


def test_pcg_takes_the_projected_gradient_where_the_first_direction_curves_downwards():
    _, G, r = blocks(6)
    r[30:] = 0.0
    solved = opened("pcg", Saddle(-np.eye(30), G, be=BE)).solve(r, tol=1e-10)
    P = np.eye(30) - np.linalg.pinv(G) @ G
    assert solved.flag == "negative"
    np.testing.assert_allclose(solved.d[:30], P @ r[:30], atol=1e-12)


def test_a_step_that_was_cut_short_limits_the_next_one_and_full_steps_set_it_free():
    B, G, r = blocks(7)
    r[30:] = 0.0
    inner = opened("pcg", Saddle(FORMS["operator"](B), G, be=BE))
    full = inner.solve(r, tol=1e-10).d[:30]
    inner.took(0.1)
    cut = inner.solve(r, tol=1e-10)
    assert cut.flag == "radius"
    assert np.linalg.norm(cut.d[:30]) == pytest.approx(0.15 * np.linalg.norm(full))
    # Along the path of conjugate gradients, which lowers the model all the way.
    assert r[:30] @ cut.d[:30] > 0
    for _ in range(4):
        inner.took(1.0)
        longer = inner.solve(r, tol=1e-10)
    assert longer.flag == "converged"
    np.testing.assert_allclose(longer.d[:30], full, atol=1e-8)


# ---------------------------------------------------------------- rows that depend on each other
def dependent(seed):
    B, G, r = blocks(seed)
    G = np.vstack([G, G[0], 2 * G[1] - G[2]])
    return B, G, np.r_[r, 0.3, -0.2]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_dependent_rows_are_solved_where_there_is_a_solution(name, form):
    B, G, d = dependent(8)
    K, make = whole(B, G), FORMS[form]
    r = K @ d
    solved = opened(name, Saddle(make(B), make(G), be=BE)).solve(r, tol=1e-8)
    assert np.linalg.norm(K @ solved.d - r) <= 1e-8 * np.linalg.norm(r)
    assert np.linalg.norm(solved.d) <= 5 * np.linalg.norm(np.linalg.pinv(K) @ r)


@pytest.mark.parametrize("seed", range(4))
def test_minres_finds_the_shortest_least_squares_solution_where_there_is_none(seed):
    B, G, r = dependent(seed)
    K = whole(B, G)
    # Operators have no diagonal that would change the norm.
    inner = opened("minres", Saddle(FORMS["operator"](B), FORMS["operator"](G), be=BE))
    solved = inner.solve(r, tol=1e-10)
    assert solved.flag == "breakdown"
    np.testing.assert_allclose(solved.d, np.linalg.pinv(K) @ r, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_minres_makes_up_for_blocks_of_different_units(scale):
    B, G, r = blocks(9)
    steps = [
        opened("minres", Saddle(B, c * G, be=BE)).solve(np.r_[r[:30], c * r[30:]], tol=1e-7)
        for c in (1.0, scale)
    ]
    assert all(solved.flag == "converged" for solved in steps)
    assert steps[1].iterations <= 3 * steps[0].iterations


# ---------------------------------------------------------------- preconditioners
def ideal(B, G):
    """Murphy, Golub and Wathen: three distinct eigenvalues, so at most three steps."""
    S = G @ np.linalg.solve(B, G.T)
    n = len(B)
    return lambda r: np.r_[np.linalg.solve(B, r[:n]), np.linalg.solve(S, r[n:])]


@pytest.mark.parametrize(("name", "steps"), [("minres", 4), ("gmres", 4), ("pcg", 2)])
def test_the_ideal_preconditioner_needs_hardly_any_step(name, steps):
    B, G, r = blocks(10)
    solved = opened(name, Saddle(B, G, be=BE), preconditioner=ideal).solve(r, tol=1e-8)
    assert solved.flag == "converged"
    if name != "pcg":
        assert solved.iterations <= steps
    np.testing.assert_allclose(solved.d, np.linalg.solve(whole(B, G), r), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_minimize_asks_for_a_preconditioner_of_every_matrix(name):
    asked = []

    def build(B, G):
        asked.append((B.shape, G.shape))
        return ideal(B, G)

    rng = np.random.default_rng(11)
    H, A = np.diag(np.geomspace(1, 1e3, 20)), rng.standard_normal((4, 20))
    x = np.linalg.solve(whole(H, A), np.r_[np.ones(20), np.ones(4)])[:20]
    res = minimize(
        lambda v: 0.5 * v @ H @ v - v.sum(),
        np.zeros(20),
        jac=lambda v: H @ v - 1,
        hess=lambda v: H,
        constraints={"type": "eq", "fun": lambda v: A @ v - 1, "jac": lambda v: A},
        inner=name,
        preconditioner=build,
        scaling=None,
    )
    assert res.success
    assert res.inner == name
    assert set(asked) == {((20, 20), (4, 20))}
    np.testing.assert_allclose(res.x, x, atol=1e-7)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda B, G: None, TypeError, "`preconditioner` returned NoneType"),
        (lambda B, G: lambda r: r[:3], ValueError, r"`preconditioner` gave shape \(3,\)"),
        (3, TypeError, "`preconditioner` came as int"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_preconditioners_of_the_wrong_kind_are_named(name, build, error, message):
    B, G, r = blocks(12)
    with pytest.raises(error, match=message):
        solve_kkt(B, G, r, inner=name, preconditioner=build)


# ---------------------------------------------------------------- projections and least squares
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rank", ["full", "dependent", "zero row"])
def test_projections_are_those_of_the_pseudo_inverse(form, rank):
    rng = np.random.default_rng(13)
    A = rng.standard_normal((5, 12)) * np.geomspace(1e-3, 1e3, 5)[:, None]
    if form == "operator":
        A = rng.standard_normal((5, 12))  # whose rows nobody can bring to one length
    if rank != "full":
        A = np.vstack([A, 3 * A[1] if rank == "dependent" else 0 * A[1]])
    onto, plus = open_projection(FORMS[form](A), be=BE), np.linalg.pinv(A)
    v, c = rng.standard_normal(12), A @ rng.standard_normal(12)
    np.testing.assert_allclose(onto.kernel(v), v - plus @ (A @ v), atol=1e-9)
    np.testing.assert_allclose(onto.normal(c), plus @ c, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(A.T @ onto.rows(v), plus @ (A @ v), atol=1e-8)
    # What is left lies in the kernel to rounding, however large the part that went.
    kernel = onto.kernel(v + 1e6 * A[0])
    assert abs(A @ kernel).max() <= 1e-7 * abs(A).max()


@pytest.mark.parametrize("shape", [(30, 7), (7, 30), (20, 20)])
def test_lsqr_finds_the_shortest_least_squares_solution(shape):
    rng = np.random.default_rng(14)
    A, b = rng.standard_normal(shape), rng.standard_normal(shape[0])
    A[:, -1] = A[:, 0]
    A[-1] = A[0]
    np.testing.assert_allclose(lsqr(A, b, be=BE), np.linalg.pinv(A) @ b, atol=1e-8)
    assert not lsqr(A, 0 * b, be=BE).any()
    assert not lsqr(0 * A, b, be=BE).any()


def test_lsqr_leaves_out_what_small_singular_values_would_add():
    rng = np.random.default_rng(15)
    U, V = (np.linalg.qr(rng.standard_normal((n, 5)))[0] for n in (20, 9))
    A, b = (U * [3.0, 2.0, 1.5, 1.0, 1e-8]) @ V.T, rng.standard_normal(20)
    truncated = np.linalg.pinv(A, rcond=1e-4) @ b
    np.testing.assert_allclose(lsqr(A, b, be=BE, rcond=1e-4), truncated, atol=1e-5)


# ---------------------------------------------------------------- through the front door
@pytest.mark.parametrize("name", NAMES)
def test_krylov_solvers_solve_curved_problems_with_saddles_around(name):
    # The smallest eigenvalue on the sphere: the Hessian of the Lagrangian is indefinite far off.
    rng = np.random.default_rng(16)
    A = rng.standard_normal((15, 15))
    A = A + A.T
    w = np.linalg.eigvalsh(A)
    sphere = {"type": "eq", "fun": lambda x: x @ x - 1, "jac": lambda x: 2 * x[None]}
    hess = lambda x, lam, weight: 2 * weight * A + 2 * lam[0] * np.eye(15)  # noqa: E731
    res = minimize(
        lambda x: x @ A @ x,
        rng.standard_normal(15),
        jac=lambda x: 2 * A @ x,
        hess="lagrangian",
        lagrangian_hess=hess,
        constraints=sphere,
        inner=name,
    )
    assert res.success
    assert np.min(abs(res.fun - w)) <= 1e-8
    if name == "pcg":
        assert res.fun == pytest.approx(w[0], abs=1e-8)


def test_inner_steps_are_reported():
    res = minimize(
        lambda x: 0.5 * x @ x,
        np.ones(6),
        jac=lambda x: x,
        hess=lambda x: np.eye(6),
        constraints={"type": "eq", "fun": lambda x: x[:2] - 1, "jac": lambda x: np.eye(6)[:2]},
        inner="minres",
        scaling=None,
    )
    assert res.status is solvers.Status.CONVERGED
    assert res.ninner == res.history["inner_its"].sum() > 0


def test_krylov_solvers_run_on_a_device():
    run_with_standin(Path(__file__).parent / "krylov_on_device.py")
