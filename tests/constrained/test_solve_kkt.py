"""`solve_kkt` against dense solves, by every solver and kind of matrix."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

import solvers
from solvers import Status
from solvers.constrained import solve_kkt
from solvers.constrained.inner import INNERS

EXACT = ("auto", "direct", "condensed", "pcg", "minres", "gmres")


def system(seed=0, n=12, m=4):
    rng = np.random.default_rng(seed)
    B = np.diag(rng.uniform(1, 3, n)) + 0.1
    G = np.linalg.qr(rng.standard_normal((n, m)))[0].T * rng.uniform(1, 2, (m, 1))
    r = rng.standard_normal(n + m)
    return B, G, r, np.linalg.solve(np.block([[B, G.T], [G, np.zeros((m, m))]]), r)


@pytest.mark.parametrize("inner", INNERS)
def test_every_solver_finds_the_solution(inner):
    B, G, r, x = system()
    res = solve_kkt(B, G, r, inner=inner, tol=1e-8, rng=0)
    assert res.success
    assert res.fun == res.certificate.value <= 1e-8
    assert res.certificate.kind == "relative residual"
    np.testing.assert_allclose(res.x, x, rtol=0, atol=1e-6)
    assert res.work >= 12 * 12 + 2 * 4 * 12
    assert res.nit >= 1


@pytest.mark.parametrize("inner", EXACT)
def test_sparse_matrices_give_the_same(inner):
    B, G, r, x = system(1)
    for make in (sp.csr_array, sp.csc_matrix, sp.coo_array):
        np.testing.assert_allclose(solve_kkt(make(B), make(G), r, inner=inner).x, x, atol=1e-7)
    np.testing.assert_allclose(solve_kkt(B, sp.csr_array(G), r, inner=inner).x, x, atol=1e-7)


@pytest.mark.parametrize("inner", [*EXACT, "gaussian"])
def test_operators_give_the_same(inner):
    B, G, r, x = system(2)
    res = solve_kkt(aslinearoperator(B), aslinearoperator(G), r, inner=inner, tol=1e-8, rng=0)
    np.testing.assert_allclose(res.x, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("inner", ["direct", "minres", "gmres"])
def test_an_indefinite_hessian_is_no_obstacle(inner):
    B, G, r, _ = system(3)
    B = B - 2 * np.eye(12)
    K = np.block([[B, G.T], [G, np.zeros((4, 4))]])
    np.testing.assert_allclose(solve_kkt(B, G, r, inner=inner).x, np.linalg.solve(K, r), atol=1e-6)


@pytest.mark.parametrize("inner", ["direct", "condensed", "minres"])
def test_dependent_rows_do_where_there_is_a_solution(inner):
    B, G, _, _ = system(4)
    G = np.vstack([G, 2 * G[:1] - G[1:2]])
    K = np.block([[B, G.T], [G, np.zeros((5, 5))]])
    r = K @ np.arange(17.0)
    for make in (np.asarray, sp.csr_array):
        res = solve_kkt(make(B), make(G), r, inner=inner)
        assert res.success
        # The multipliers are not unique, the rest is.
        np.testing.assert_allclose(res.x[:12], np.arange(12.0), atol=1e-6)


def test_a_system_without_solution_ends_with_a_warning_and_the_residual():
    B, G, r, _ = system(5)
    G = np.vstack([G, G[:1]])
    r = np.r_[r, r[12] + 1.0]
    with pytest.warns(solvers.ConvergenceWarning, match="relative residual"):
        res = solve_kkt(B, G, r)
    assert not res.success
    K = np.block([[B, G.T], [G, np.zeros((5, 5))]])
    assert res.fun == pytest.approx(np.linalg.norm(K @ res.x - r) / np.linalg.norm(r))
    # No vector leaves less than the least-squares solution does.
    best = np.linalg.norm(K @ np.linalg.lstsq(K, r, rcond=None)[0] - r) / np.linalg.norm(r)
    assert best * (1 - 1e-9) <= res.fun <= 2 * best


def test_a_tolerance_beyond_rounding_ends_as_stalled_and_says_so():
    B, G, r, _ = system(6)
    with pytest.warns(solvers.ConvergenceWarning, match="Rounding alone leaves"):
        res = solve_kkt(B, G, r, tol=1e-300)
    assert res.status is Status.STALLED
    assert res.certificate.details["floor"] < 1e-14


@pytest.mark.parametrize("inner", ["minres", "gmres", "pcg", "kaczmarz"])
def test_iterations_are_limited(inner):
    B, G, r, _ = system(7, n=40, m=10)
    with pytest.warns(solvers.ConvergenceWarning, match="maxiter"):
        res = solve_kkt(B, G, r, inner=inner, maxiter=2, tol=1e-12, rng=0)
    assert res.status is Status.MAXITER
    assert res.nit == 2


def test_no_iterations_return_the_start():
    B, G, r, _ = system(8)
    with pytest.warns(solvers.ConvergenceWarning):
        res = solve_kkt(B, G, r, maxiter=0, x0=np.arange(16.0))
    np.testing.assert_array_equal(res.x, np.arange(16.0))
    assert (res.nit, res.work) == (0, 0)


@pytest.mark.parametrize("inner", ["minres", "gmres", "pcg", "kaczmarz++"])
def test_a_solution_is_a_start_that_needs_no_step(inner):
    B, G, r, _ = system(9)
    first = solve_kkt(B, G, r, inner=inner, rng=0)
    again = solve_kkt(B, G, r, inner=inner, x0=first, rng=0)
    assert again.nit == 0
    np.testing.assert_array_equal(again.x, first.x)


@pytest.mark.parametrize("inner", ["minres", "gmres"])
def test_a_near_start_saves_steps(inner):
    B, G, r, x = system(10, n=60, m=20)
    far = solve_kkt(B, G, r, inner=inner)
    near = solve_kkt(B, G, r, inner=inner, x0=x + 1e-8)
    assert near.nit < far.nit


@pytest.mark.parametrize("inner", ["minres", "gmres"])
def test_the_inverse_is_the_best_preconditioner(inner):
    B, G, r, _ = system(11, n=60, m=20)
    K = np.block([[B, G.T], [G, np.zeros((20, 20))]])
    # Positive definite, with which all eigenvalues are 1 or -1.
    w, V = np.linalg.eigh(K)
    inverse = (V / abs(w)) @ V.T
    seen = []

    def build(B, G):
        seen.append((B, G))
        return lambda r: inverse @ r

    plain = solve_kkt(B, G, r, inner=inner)
    quick = solve_kkt(B, G, r, inner=inner, preconditioner=build)
    assert seen
    assert quick.success
    assert quick.nit <= 4 < plain.nit


def test_single_precision_comes_back_in_single_precision():
    B, G, r, x = (v.astype(np.float32) for v in system(12))
    res = solve_kkt(B, G, r)
    assert res.success
    assert res.x.dtype == np.float32
    np.testing.assert_allclose(res.x, x, atol=1e-5)


def test_without_rows_it_is_a_symmetric_solve():
    B, _, r, _ = system(13)
    for make in (np.asarray, sp.csr_array):
        res = solve_kkt(make(B), make(np.zeros((0, 12))), r[:12])
        np.testing.assert_allclose(res.x, np.linalg.solve(B, r[:12]), atol=1e-9)


def test_zero_is_the_solution_for_a_zero_right_hand_side():
    B, G, r, _ = system(14)
    res = solve_kkt(B, G, 0 * r)
    assert res.success
    assert not res.x.any()


@pytest.mark.parametrize("seed", range(5))
def test_units_of_unknowns_and_rows_change_the_solution_alone(seed):
    B, G, r, x = system(seed)
    t = 10.0 ** np.random.default_rng(seed).uniform(-3, 3, 16)
    a, b = t[:12], t[12:]
    res = solve_kkt(a[:, None] * B * a, b[:, None] * G * a, t * r, tol=1e-8)
    np.testing.assert_allclose(t * res.x, x, rtol=1e-6, atol=1e-6)


def test_the_same_seed_gives_the_same():
    B, G, r, _ = system(15)
    pair = [solve_kkt(B, G, r, inner="kaczmarz++", rng=3, tol=1e-6).x for _ in range(2)]
    np.testing.assert_array_equal(*pair)


def test_nothing_of_the_caller_is_changed_and_layouts_do_not_matter():
    B, G, r, x = system(16)
    frozen = [v.copy() for v in (B, G, r)]
    for v in frozen:
        v.flags.writeable = False
    for make in (np.ascontiguousarray, np.asfortranarray):
        for inner in EXACT:
            res = solve_kkt(make(frozen[0]), make(frozen[1]), frozen[2], inner=inner)
            np.testing.assert_allclose(res.x, x, atol=1e-7)
    sparse = sp.csr_array(B), sp.csr_array(G)
    before = [A.copy() for A in sparse]
    solve_kkt(*sparse, r)
    for A, old in zip(sparse, before, strict=True):
        np.testing.assert_array_equal(A.data, old.data)


_BAD = {
    "B is None": ({"B": None}, TypeError, "`B`"),
    "B is not square": ({"B": np.ones((12, 11))}, ValueError, "`B`.*\\(n, n\\)"),
    "B is one-dimensional": ({"B": np.ones(12)}, ValueError, "`B`"),
    "B is unsymmetric": ({"B": np.triu(np.ones((12, 12)))}, ValueError, "`B`.*symmetric"),
    "B is complex": ({"B": np.eye(12) * 1j}, TypeError, "`B`"),
    "B is sparse and complex": ({"B": sp.csr_array(np.eye(12) * 1j)}, TypeError, "`B`"),
    "B has NaN": ({"B": np.full((12, 12), np.nan)}, ValueError, "`B` contains NaN"),
    "B is sparse with NaN": (
        {"B": sp.csr_array(np.diag([np.nan] * 12))},
        ValueError,
        "`B` contains NaN",
    ),
    "G has another width": ({"G": np.ones((4, 11))}, ValueError, "`G`.*n = 12"),
    "G is too tall": ({"G": np.ones((13, 12))}, ValueError, "`G`.*m <= n"),
    "r has another length": ({"r": np.ones(15)}, ValueError, "`r`"),
    "r is None": ({"r": None}, TypeError, "`r`"),
    "x0 has another length": ({"x0": np.ones(3)}, ValueError, "`x0`"),
    "unknown solver": ({"inner": "luck"}, ValueError, "`inner`.*'pcg'"),
    "solver of the wrong kind": ({"inner": 3}, TypeError, "`inner`"),
    "tol of zero": ({"tol": 0.0}, ValueError, "`tol`"),
    "maxiter below zero": ({"maxiter": -1}, ValueError, "`maxiter`"),
    "preconditioner without call": ({"preconditioner": 1}, TypeError, "`preconditioner`"),
    "rng of the wrong kind": ({"rng": "dice"}, TypeError, "`rng`"),
    "no threads": ({"n_threads": 0}, ValueError, "`n_threads`"),
    "rows of an operator": (
        {"B": aslinearoperator(np.eye(12)), "inner": "kaczmarz"},
        ValueError,
        "`inner='kaczmarz'` needs explicit rows",
    ),
}


@pytest.mark.parametrize("bad", _BAD)
def test_bad_input_is_named(bad):
    change, error, match = _BAD[bad]
    B, G, r, _ = system()
    call = {"B": B, "G": G, "r": r, **change}
    with pytest.raises(error, match=match):
        solve_kkt(call.pop("B"), call.pop("G"), call.pop("r"), **call)
