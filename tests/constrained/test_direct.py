"""Direct inner solvers against eigenvalues and dense solves."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from _cupy_standin import run_with_standin

from solvers._core.backend import get_backend
from solvers.constrained import minimize, solve_kkt
from solvers.constrained.inner import Saddle, open_inner
from solvers.constrained.inner._dense import DenseLDL, DenseLU
from solvers.constrained.inner._factors import BandedLU, PivotingLU, QuasiDefinite
from solvers.constrained.inner._pattern import SaddlePattern
from solvers.constrained.inner._sparse import Schur, SparseDirect

be = get_backend("numpy")
DENSE, SPARSE = (DenseLDL, DenseLU), (SparseDirect,)


def dense_case(seed, kind="plain"):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    m = int(rng.integers(0, n + 1))
    B = rng.standard_normal((n, n))
    B = B + B.T + rng.choice([0, 1, 3, 5]) * np.eye(n)
    G = rng.standard_normal((m, n))
    if kind == "duplicated" and m > 1:
        G[1] = 2 * G[0]
    if kind == "vanishing" and m > 0:
        G[0] = 0
    if kind == "scaled":
        t = 10.0 ** rng.uniform(-4, 4, n)
        B, G = B * t * t[:, None], G * t * 10.0 ** rng.uniform(-6, 4, (m, 1))
    return B, G


def sparse_case(seed, kind="indefinite"):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 60))
    m = int(rng.integers(1, n))
    G = sp.random_array((m, n), density=0.15, rng=rng)
    some = rng.uniform(1, 2, m), (np.arange(m), rng.permutation(n)[:m])
    G = (G + sp.csr_array(some, shape=(m, n))).tocsr()
    if kind == "diagonal":
        return sp.diags_array(rng.uniform(0.1, 3, n)).tocsr(), G
    B = sp.random_array((n, n), density=0.1, rng=rng)
    B = (B + B.T + rng.choice([-1.0, 0.0, 1.0, 3.0]) * sp.eye_array(n)).tocsr()
    return B, G


def chain(n, seed=0):
    """A tridiagonal B and three entries in each row of G."""
    rng = np.random.default_rng(seed)
    off = rng.standard_normal(n - 1)
    B = sp.diags_array([off, 4 + rng.random(n), off], offsets=[-1, 0, 1]).tocsr()
    bands = [rng.uniform(1, 2, n - 2) for _ in range(3)]
    return B, sp.diags_array(bands, offsets=[0, 1, 2], shape=(n - 2, n)).tocsr()


def control(k):
    """Poisson control on a grid of k x k: a diagonal B."""
    t = sp.diags_array([np.ones(k - 1), np.full(k, -2.0), np.ones(k - 1)], offsets=[-1, 0, 1])
    eye = sp.eye_array(k)
    G = sp.hstack([sp.kron(eye, t) + sp.kron(t, eye), sp.eye_array(k * k)])
    return sp.diags_array(np.r_[np.ones(k * k), np.full(k * k, 0.1)]).tocsr(), sp.csr_array(G)


def reduced(B, G):
    """Return the eigenvalues of B on the kernel of G, and the rank of G."""
    B, G = (A.toarray() if sp.issparse(A) else A for A in (B, G))
    rows = G / np.maximum(np.linalg.norm(G, axis=1, keepdims=True), 1e-300)
    rank = int(np.linalg.matrix_rank(rows, tol=1e-11)) if len(G) else 0
    Z = np.linalg.svd(G)[2][rank:].T if len(G) else np.eye(len(B))
    # Eigenvalues alone depend on units; their signs, asked for here, do not.
    return scipy.linalg.eigvalsh(Z.T @ B @ Z) if Z.shape[1] else np.ones(1), rank


def whole(B, G, delta=0.0):
    B, G = (A.toarray() if sp.issparse(A) else A for A in (B, G))
    return np.block([[B, G.T], [G, -delta * np.eye(len(G))]])


@pytest.mark.parametrize("kind", ["plain", "duplicated", "vanishing", "scaled"])
@pytest.mark.parametrize("solver", DENSE)
def test_dense_factors_tell_convexity_and_rank(solver, kind):
    for seed in range(60):
        B, G = dense_case(seed, kind)
        inner = solver()
        w, rank = reduced(B, G)
        full = rank == len(G)
        assert inner.factor(Saddle(B, G, be=be)) is bool((w > 0).all() and full)
        assert inner.singular is not full


@pytest.mark.parametrize("kind", ["plain", "scaled"])
@pytest.mark.parametrize("solver", DENSE)
def test_dense_solves_leave_rounding_errors(solver, kind):
    for seed in range(30):
        B, G = dense_case(seed, kind)
        inner, r = solver(), np.random.default_rng(seed).standard_normal(sum(G.shape))
        inner.factor(Saddle(B, G, be=be))
        solved, K = inner.solve(r), whole(B, G)
        # Each row in its own unit.
        unit = abs(K) @ abs(solved.d) + abs(r)
        assert (abs(solved.residual - (K @ solved.d - r)) <= 1e-14 * unit).all()
        assert (abs(K @ solved.d - r) <= 1e-10 * unit).all()
        assert solved.flag == "converged"


@pytest.mark.parametrize("solver", DENSE)
def test_a_dual_regularisation_is_part_of_the_matrix(solver):
    B, G = dense_case(3, "duplicated")
    inner, r = solver(), np.arange(1.0, 1 + sum(G.shape))
    inner.factor(Saddle(B, G, 1e-2, be=be))
    np.testing.assert_allclose(inner.solve(r).d, np.linalg.solve(whole(B, G, 1e-2), r), rtol=1e-8)


def test_entries_that_are_not_finite_are_no_convex_matrix():
    for solver in (DenseLDL, SparseDirect):
        B, G = chain(8)
        B.data[:] = np.nan
        B, G = (B, G) if solver is SparseDirect else (B.toarray(), G.toarray())
        inner = solver()
        assert inner.factor(Saddle(B, G, be=be)) is not True
        assert inner.solve(np.ones(14)).flag == "breakdown"


@pytest.mark.parametrize("kind", ["indefinite", "diagonal"])
def test_sparse_factors_never_tell_a_wrong_inertia(kind):
    told = 0
    for seed in range(120):
        B, G = sparse_case(seed, kind)
        inner = SparseDirect()
        w, rank = reduced(B, G)
        if abs(w).min() < 1e-6 * abs(w).max() or rank < G.shape[0]:
            continue
        convex = inner.factor(Saddle(B, G, be=be))
        assert convex is None or convex is bool((w > 0).all())
        assert inner.singular is False
        told += convex is not None
    assert told > 60


@pytest.mark.parametrize("kind", ["indefinite", "diagonal"])
def test_sparse_solves_agree_with_dense_ones(kind):
    for seed in range(60):
        B, G = sparse_case(seed, kind)
        K = whole(B, G)
        if np.linalg.cond(K) > 1e8:
            continue
        inner, r = SparseDirect(), np.random.default_rng(seed).standard_normal(len(K))
        inner.factor(Saddle(B, G, be=be))
        np.testing.assert_allclose(inner.solve(r).d, np.linalg.solve(K, r), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "factors"), [(chain(400), BandedLU), (control(12), Schur), (control(5), Schur)]
)
def test_structure_picks_the_factorisation(case, factors):
    inner, saddle = SparseDirect(), Saddle(*case, be=be)
    assert inner.factor(saddle) is not False
    assert isinstance(inner._factors, factors)
    r = np.cos(np.arange(sum(case[1].shape)))
    solved = inner.solve(r)
    assert np.linalg.norm(saddle @ solved.d - r) <= 1e-11 * np.linalg.norm(r)


@pytest.mark.parametrize("seed", range(6))
def test_narrow_bands_tell_the_inertia_too(seed):
    B, G = chain(60, seed)
    told = set()
    for shift in (0.0, -3.0, -5.0, -9.0):
        H = (B + shift * sp.eye_array(60)).tocsr()
        w, _ = reduced(H, G)
        inner = SparseDirect()
        assert inner.factor(Saddle(H, G, be=be)) is bool((w > 0).all())
        assert isinstance(inner._factors, BandedLU)
        told.add(inner._factors.convex)
    assert told == {True, False}


def test_as_many_rows_as_unknowns_need_no_curvature():
    off = np.ones(299)
    G = sp.diags_array([off, np.full(300, 3.0), off], offsets=[-1, 0, 1]).tocsr()
    for B in (sp.csr_array((300, 300)), -1.0 * sp.eye_array(300).tocsr()):
        inner, saddle = SparseDirect(), Saddle(B, G, be=be)
        assert inner.factor(saddle) is True
        r = np.arange(600.0)
        assert np.linalg.norm(saddle @ inner.solve(r).d - r) <= 1e-11 * np.linalg.norm(r)


def test_small_blocks_of_any_order_make_a_schur_complement():
    rng = np.random.default_rng(0)
    k = 12
    _, G = control(k)
    n = G.shape[1]
    # Each control is tied to its state; some pairs to another pair.
    B = sp.diags_array(rng.uniform(2, 3, n)).tolil()
    for i in range(k * k):
        B[i, i + k * k] = B[i + k * k, i] = 0.5
    B[0, 1] = B[1, 0] = 0.25
    B = B.tocsr()
    inner, saddle = SparseDirect(), Saddle(B, G, be=be)
    assert inner.factor(saddle) is True
    assert isinstance(inner._factors, Schur)
    np.testing.assert_allclose((inner._factors._inverse @ B).toarray(), np.eye(n), atol=1e-14)
    r = rng.standard_normal(sum(G.shape))
    np.testing.assert_allclose(inner.solve(r).d, np.linalg.solve(whole(B, G), r), atol=1e-10)
    # An indefinite block leaves the decision to the inertia of the whole.
    B[5, 5] = -0.01
    w, _ = reduced(B, G)
    assert inner.factor(Saddle(B, G, be=be)) is bool((w > 0).all())
    assert not isinstance(inner._factors, Schur)


def test_factors_of_unreasonable_size_are_left_to_conjugate_gradients(monkeypatch):
    from solvers.constrained.inner import _sparse

    B, G = control(12)
    B = (B + sp.diags_array([0.01, 0.01], offsets=[-12, 12], shape=B.shape)).tocsr()
    r = np.ones(sum(G.shape))
    direct = solve_kkt(B, G, r)
    monkeypatch.setattr(_sparse, "_FILL", 0.1)
    other = solve_kkt(B, G, r)
    assert (direct.inner, other.inner) == ("direct", "pcg")
    np.testing.assert_allclose(other.x, direct.x, atol=1e-7)


def test_what_is_neither_narrow_nor_diagonal_has_symmetric_pivots():
    B, G = control(12)
    B = (B + sp.diags_array([0.01, 0.01], offsets=[-12, 12], shape=B.shape)).tocsr()
    inner, saddle = SparseDirect(), Saddle(B, G, be=be)
    assert inner.factor(saddle) is True
    assert isinstance(inner._factors, QuasiDefinite)
    assert inner.factor(Saddle((B - 2 * sp.eye_array(288)).tocsr(), G, be=be)) is False


def test_duplicated_sparse_rows_are_seen():
    for B, G in (chain(300), control(12)):
        twice = sp.vstack([G, G[:1]]).tocsr()
        inner = SparseDirect()
        assert inner.factor(Saddle(B, twice, be=be)) is False
        assert inner.singular
        assert inner.factor(Saddle(B, twice, 1e-6, be=be)) is not False
        assert not inner.singular


def test_a_solve_that_refinement_cannot_save_falls_back_to_pivoting():
    B, G = chain(300)
    inner, saddle = SparseDirect(), Saddle(B, G, be=be)
    inner.factor(saddle)
    # Factors of another matrix: no refinement with them converges.
    inner._factors = QuasiDefinite(
        SaddlePattern(B, G).columns(SaddlePattern.values(-5 * B, 0.01 * G, 1e-8)), 300, 0.0
    )
    r = np.ones(598)
    solved = inner.solve(r)
    assert isinstance(inner._factors, PivotingLU)
    assert np.linalg.norm(saddle @ solved.d - r) <= 1e-10 * np.linalg.norm(r)


def test_patterns_are_looked_at_once():
    inner = SparseDirect()
    for seed in range(3):
        inner.factor(Saddle(*chain(300, seed), be=be))
    assert len(inner._patterns) == 1
    inner.factor(Saddle(sp.eye_array(300).tocsr() * -1.0, chain(300)[1], be=be))
    assert len(inner._patterns) == 2


def test_stored_duplicates_count_together():
    B, G = chain(300)
    split = sp.csr_array(
        (np.tile(G.data / 2, 2), (np.tile(G.tocoo().row, 2), np.tile(G.tocoo().col, 2))),
        shape=G.shape,
    )
    split.has_canonical_format = False
    r = np.ones(598)
    found = [solve_kkt(B, A, r, inner="direct").x for A in (G, split)]
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_the_estimate_of_fill_grows_with_the_dimension_of_the_grid():
    line, plane = SaddlePattern(*chain(2000)), SaddlePattern(*control(26))
    assert line.fill() < 10 * 4 * 2000
    assert plane.fill() > 5 * line.fill()


def test_one_long_row_does_not_make_a_sparse_matrix_full():
    B = chain(3000)[0]
    pattern = SaddlePattern(B, sp.csr_array(np.ones((1, 3000))))
    assert pattern.bandwidth > 1000
    assert pattern.fill() < 10 * 3000


def test_a_good_start_is_the_answer():
    B, G = chain(300)
    inner, saddle, r = SparseDirect(), Saddle(B, G, be=be), np.ones(598)
    inner.factor(saddle)
    first = inner.solve(r)
    assert inner.solve(r, d0=first.d).d is first.d


@pytest.mark.parametrize("thin", [False, True])
def test_condensed_steps_few_times_whatever_the_rank(thin):
    B, G = control(12)
    G = sp.vstack([G, G[:3]]).tocsr()
    B, G = (B, G) if thin else (B.toarray(), G.toarray())
    inner, saddle = open_inner("condensed", None), Saddle(B, G, be=be)
    assert inner.factor(saddle) is True
    d = np.sin(np.arange(sum(G.shape)))
    r = saddle @ d
    solved = inner.solve(r)
    assert solved.iterations < 40
    assert np.linalg.norm(saddle @ solved.d - r) <= 1e-9 * np.linalg.norm(r)
    assert inner.factor(Saddle(-B, G, be=be)) is False


def test_condensed_leaves_long_rows_to_direct():
    B, G = chain(2000)[0], sp.csr_array(np.ones((1, 2000)))
    inner = open_inner("condensed", None)
    assert inner.factor(Saddle(B, G, be=be)) is True
    assert inner.name == "direct"


def test_the_choice_follows_the_kinds_of_matrices():
    from scipy.sparse.linalg import aslinearoperator as operator

    B, G = chain(300)
    r, dense = np.ones(598), (B.toarray(), G.toarray())
    assert solve_kkt(B, G, r).inner == "direct"
    assert solve_kkt(*dense, r).inner == "direct"
    assert solve_kkt(operator(B), G, r).inner == "pcg"
    assert solve_kkt(operator(B), operator(G), r).inner == "minres"


def test_minimize_reports_the_solver_that_ran():
    A = np.diag([1.0, 2.0, 3.0])
    res = minimize(
        lambda x: 0.5 * x @ A @ x,
        np.ones(3),
        jac=lambda x: A @ x,
        hess=lambda x: A,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": lambda x: np.ones(3)},
    )
    assert res.success
    assert res.inner == "direct"
    np.testing.assert_allclose(res.x, np.array([6, 3, 2]) / 11, atol=1e-9)


def test_direct_solvers_work_in_device_memory():
    run_with_standin(Path(__file__).parent / "direct_on_device.py")
