"""The stored kernels and what is done with them between two passes over the cost."""

import types

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers._core.monitor import Monitor
from solvers.ot import _gibbs
from solvers.ot._gibbs import Passes
from solvers.ot._newton import NewtonSteps
from solvers.ot._problem import check_transport
from tests import oracles

seeds = st.integers(0, 2**32 - 1)
KINDS = ["dense", "single", "compressed", "recomputed"]


def kernel_of(kind, a, b, C, reg, g, cutoff=0.0):
    """A pass over the cost, and the kernel it leaves, held in one of four ways."""
    problem, _ = check_transport(a, b, C)
    with pytest.MonkeyPatch.context() as patch:
        if kind in ("single", "compressed"):
            patch.setattr(_gibbs, "SMALL", 0)
        if kind == "compressed":
            patch.setattr(_gibbs, "PROMISING", np.inf)
            patch.setattr(_gibbs, "ROOM", 2.0)
        passes = Passes(problem, kind != "recomputed")
        sums, kernel = passes.run(g, reg, cutoff=cutoff)
    names = {"compressed": "SparseKernel", "recomputed": "CostKernel"}
    assert type(kernel).__name__ == names.get(kind, "DenseKernel")
    return sums, kernel, passes


def random_kernel(rng, kind, spread=1.0):
    """A kernel of a random problem, scaled by random factors; and the plan it stands for."""
    n, m = rng.integers(1, 20, size=2)
    a, b, C = oracles.cloud_problem(rng, n, m)
    C /= C.max()
    reg, g = 10.0 ** rng.uniform(-2, 0), 0.1 * rng.normal(size=m)
    _, kernel, _ = kernel_of(kind, a, b, C, reg, g)
    v = b * np.exp(spread * rng.normal(size=m))
    rho, w = kernel.sweep(v)
    kernel.fix(v, rho)
    weights = v * np.exp((g - C) / reg)
    P = a[:, None] * weights / weights.sum(axis=1, keepdims=True)
    return kernel, P, a, v * w


def laplacian(P, a):
    """The Schur complement of the Hessian, by its formula."""
    return np.diag(P.sum(axis=0)) - P.T @ (P / a[:, None])


def matrix(kernel, m):
    return np.column_stack([kernel.laplacian(e) for e in np.eye(m)])


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds)
def test_products_diagonal_and_gram_matrix_are_those_of_the_dense_plan(kind, seed):
    rng = np.random.default_rng(seed)
    kernel, P, a, sums = random_kernel(rng, kind)
    m = P.shape[1]
    # Single precision rounds each of m entries.
    tol = 1e-6 if kind == "single" else 1e-12
    S = laplacian(P, a)
    scale = P.sum(axis=0).max()
    np.testing.assert_allclose(sums, P.sum(axis=0), rtol=10 * tol, atol=tol * 1e-3)
    np.testing.assert_allclose(matrix(kernel, m), S, rtol=0, atol=tol * scale)
    kernel.spread_out = False
    np.testing.assert_allclose(kernel.diagonal(None), np.diag(S), rtol=0, atol=tol * scale)
    W = np.tril(kernel.gram(), -1)
    np.testing.assert_allclose(W, np.tril(-S, -1), rtol=0, atol=tol * scale)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds)
def test_the_laplacian_is_semi_definite_with_constants_as_exact_null_space(kind, seed):
    rng = np.random.default_rng(seed)
    kernel, P, _, _ = random_kernel(rng, kind, spread=3.0)
    m = P.shape[1]
    for constant in (1.0, -3e7):
        np.testing.assert_array_equal(kernel.laplacian(np.full(m, constant)), np.zeros(m))
    S = matrix(kernel, m)
    eps = 1e-7 if kind == "single" else 1e-15
    floor = 10 * m * eps * np.abs(S).max()
    assert np.abs(S - S.T).max() <= floor
    assert np.linalg.eigvalsh((S + S.T) / 2).min() >= -floor
    # Any positive shift makes it definite on all of space.
    shifted = (S + S.T) / 2 + np.diag((2 * floor + 1e-12) * np.ones(m))
    assert np.linalg.eigvalsh(shifted).min() > 0


@pytest.fixture
def near_permutation(rng):
    """A plan with entries of e-30 beside ones: a, b, C and the Laplacian's exact diagonal."""
    n = 6
    C = 30.0 * (1 - np.eye(n)) + rng.random((n, n))
    exact = np.zeros(n)
    with mpmath.workdps(60):
        for i in range(n):
            row = [mpmath.exp(-mpmath.mpf(C[i, j])) for j in range(n)]
            shares = [x / mpmath.fsum(row) for x in row]
            exact += [float(x * (1 - x) / n) for x in shares]
    assert exact.max() < 1e-12
    return np.full(n, 1 / n), np.full(n, 1 / n), C, exact


@pytest.mark.parametrize("kind", KINDS)
def test_the_diagonal_keeps_its_digits_where_the_plan_is_nearly_a_permutation(
    near_permutation, kind
):
    a, b, C, exact = near_permutation
    _, kernel, _ = kernel_of(kind, a, b, C, 1.0, np.zeros(b.size))
    kernel.fix(b, kernel.sweep(b)[0])
    rtol = 1e-5 if kind == "single" else 1e-12
    np.testing.assert_allclose(kernel.diagonal(None), exact, rtol=rtol)


@pytest.mark.parametrize("kind", KINDS)
def test_products_keep_their_digits_where_the_plan_is_nearly_a_permutation(near_permutation, kind):
    a, b, C, exact = near_permutation
    _, kernel, _ = kernel_of(kind, a, b, C, 1.0, np.zeros(b.size))
    kernel.fix(b, kernel.sweep(b)[0])
    diagonal = np.diag(matrix(kernel, b.size))
    np.testing.assert_allclose(diagonal, exact, rtol=1e-5 if kind == "single" else 1e-12)


@given(seeds, st.floats(-6, -1))
def test_leaving_out_small_entries_moves_the_laplacian_by_no_more_than_their_mass(seed, log_theta):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 30, size=2)
    a, b, C = oracles.cloud_problem(rng, n, m)
    C /= C.max()
    g, theta = 0.1 * rng.normal(size=m), 10.0**log_theta
    _, kernel, _ = kernel_of("compressed", a, b, C, 0.1, g, cutoff=theta / m)
    rho, _ = kernel.sweep(b)
    kernel.fix(b, rho)
    weights = b * np.exp((g - C) / 0.1)
    P = a[:, None] * weights / weights.sum(axis=1, keepdims=True)
    kept = np.where(theta / m * a[:, None] < P, P, 0.0)
    assert kernel.density == pytest.approx((kept > 0).mean(), abs=2 / kept.size)
    # Gershgorin for what was dropped, and as much again because the kept rows are scaled up.
    bound = 4 * theta * (P.sum(axis=0) + 1 / m).max()
    assert np.linalg.norm(matrix(kernel, m) - laplacian(P, a), 2) <= bound
    # Had it simply been dropped, this is the bound of the paper's kind.
    loss = np.linalg.norm(laplacian(P, a) - laplacian(kept, kept.sum(axis=1)), 2)
    assert loss <= bound / 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_makes_rows_exact_and_tells_the_column_sums(rng, kind):
    a, b, C = oracles.cloud_problem(rng, 17, 11)
    g = rng.normal(size=11)
    sums, _, passes = kernel_of(kind, a, b, C, 0.7, g)
    P = oracles.gibbs_plan(passes.f, g, a, b, C, 0.7)
    np.testing.assert_allclose(P.sum(axis=1), a, rtol=1e-13)
    np.testing.assert_allclose(sums, P.sum(axis=0), rtol=1e-12)
    assert passes.dual(g) == pytest.approx(a @ passes.f + b @ g, rel=1e-14)


def test_a_column_that_a_kernel_has_lost_is_found_again(rng):
    a, b, C = oracles.cloud_problem(rng, 9, 8)
    g = rng.normal(size=8)
    g[3] = -1e5  # its entries underflow
    problem, _ = check_transport(a, b, C)
    sums, _ = Passes(problem, True).run(g, 0.5)
    assert 0 < sums[3] < np.inf
    assert g[3] > -100  # mended in place
    assert sums[3] == pytest.approx(b[3], rel=1.0)


def steps(problem, **options):
    run = Monitor("test", "error", tol=1e-12, maxiter=None)
    options = {"precond": "auto", "tol": None, "maxiter": None, "sweeps": 8, **options}
    return NewtonSteps(problem.be, problem.b, run, **options)


def test_nothing_to_refine_is_no_step(rng):
    a, b, C = oracles.cloud_problem(rng, 20, 15)
    _, kernel, passes = kernel_of("dense", a, b, C, 0.1, 0 * b)
    newton = steps(passes.problem)
    np.testing.assert_array_equal(newton.refine(kernel, 0 * b, 0 * b, 0.1), 0 * b)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precond", ["jacobi", "cholesky"])
def test_balancing_gives_columns_the_sums_wanted(rng, kind, precond):
    a, b, C = oracles.cloud_problem(rng, 40, 30, concentration=0.3)
    reg = 0.02 * C.max()
    g = C.min(axis=0)
    sums, kernel, passes = kernel_of(kind, a, b, C, reg, g)
    newton = steps(passes.problem, precond=precond)
    # Sums of entries in single precision can be balanced to about this much.
    tol = 1e-6 if kind == "single" else 1e-11
    log_v, error = newton.balance(kernel, b - sums, tol, 200)
    assert error <= tol
    weights = b * np.exp(log_v + (g - C) / reg)
    P = a[:, None] * weights / weights.sum(axis=1, keepdims=True)
    assert np.abs(P.sum(axis=0) - b).sum() <= 2 * tol
    assert newton.counts["nnewton"] > 0
    assert newton.counts["ncg"] > 0
    assert (newton.counts["nfactor"] > 0) == (precond == "cholesky")


def test_what_a_kernel_leaves_out_is_made_up_for(rng):
    a, b, C = oracles.cloud_problem(rng, 25, 20)
    C /= C.max()
    g, errors = C.min(axis=0), []
    for _ in range(8):
        sums, kernel, passes = kernel_of("compressed", a, b, C, 0.02, g, cutoff=1e-3 / 20)
        errors.append(np.abs(b - sums).sum())
        log_v, _ = steps(passes.problem).balance(kernel, b - sums, 1e-14, 40)
        g = g + 0.02 * log_v
    # Balanced for itself, such a kernel would be wrong by about 1e-3, however often it is made.
    assert kernel.density < 0.9
    assert errors[-1] <= 1e-11


def test_balancing_takes_a_step_of_newtons_method_near_the_solution(rng):
    a, b, C = oracles.cloud_problem(rng, 12, 9)
    res_g = C.min(axis=0)
    problem, _ = check_transport(a, b, C)
    passes = Passes(problem, True)
    for _ in range(300):  # Sinkhorn until Newton steps are trusted
        sums, kernel = passes.run(res_g, 2.0, cutoff=0.0)
        res_g = res_g + 2.0 * np.log(b / sums) * (np.abs(b - sums).sum() > 1e-3)
    gap = b - sums
    log_v, _ = steps(problem, tol=1e-13).balance(kernel, gap, 0.0, 1)
    P = oracles.gibbs_plan(passes.f, res_g, a, b, C, 2.0)
    exact = np.linalg.lstsq(laplacian(P, a), gap, rcond=1e-12)[0]
    difference = log_v - exact
    assert np.abs(difference - difference.mean()).max() <= 1e-3 * np.ptp(exact)


def test_a_run_out_of_time_ends_balancing_at_once(rng):
    a, b, C = oracles.cloud_problem(rng, 20, 20)
    sums, kernel, passes = kernel_of("dense", a, b, C, 0.05, C.min(axis=0))
    newton = steps(passes.problem)
    newton._run = types.SimpleNamespace(late=True)
    log_v, error = newton.balance(kernel, b - sums, 1e-12, 40)
    np.testing.assert_array_equal(log_v, 0.0)
    assert error == pytest.approx(np.abs(b - sums).sum(), rel=1e-6)
