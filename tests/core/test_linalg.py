from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import scipy.special

from solvers._core.backend import get_backend
from solvers._core.linalg import logsumexp, pcg, power_norm, soft_threshold

be = get_backend("numpy")


def spd(rng, eigenvalues, dtype="float64"):
    """A symmetric matrix with these eigenvalues."""
    Q = np.linalg.qr(rng.standard_normal((len(eigenvalues), len(eigenvalues))))[0]
    A = (Q * eigenvalues) @ Q.T
    return ((A + A.T) / 2).astype(dtype)


def path_laplacian(n, dtype="float64"):
    A = np.diag(np.full(n, 2.0)) - np.eye(n, k=1) - np.eye(n, k=-1)
    A[0, 0] = A[-1, -1] = 1
    return A.astype(dtype)


def product(A):
    """The product with A in a work array that is used again and again."""
    results = {}

    def matvec(v):
        return np.matmul(A, v, out=results.setdefault(v.shape, np.empty_like(v)))

    return matvec


def relative_residual(A, x, b):
    A, x, b = (v.astype(np.longdouble) for v in (A, x, b))
    return np.linalg.norm((b - A @ x).astype(float)) / np.linalg.norm(b.astype(float))


@pytest.mark.parametrize("check_every", [None, 8, 1000])
def test_solution_is_that_of_a_dense_solve(rng, check_every):
    A, b = spd(rng, np.linspace(1, 50, 40)), rng.standard_normal(40)
    before = b.copy()
    got = pcg(product(A), b, be=be, tol=1e-12, check_every=check_every)
    np.testing.assert_allclose(got.x, np.linalg.solve(A, b), rtol=1e-10)
    assert got.flag == "converged"
    assert got.residual <= 1e-12 * np.linalg.norm(b)
    assert got.residual == pytest.approx(np.linalg.norm(b - A @ got.x), rel=0.1)
    assert isinstance(got.residual, float)
    np.testing.assert_array_equal(b, before)


def test_steps_are_at_most_the_number_of_distinct_eigenvalues(rng):
    A, b = spd(rng, np.repeat([1.0, 3.0, 10.0], 20)), rng.standard_normal(60)
    assert pcg(product(A), b, be=be, tol=1e-10).iterations == 3


def test_steps_keep_the_conjugate_gradient_bound(rng):
    kappa = 100.0
    A, b = spd(rng, np.linspace(1, kappa, 200)), rng.standard_normal(200)
    x = np.linalg.solve(A, b)
    rate = (np.sqrt(kappa) - 1) / (np.sqrt(kappa) + 1)
    for k in (5, 20, 50):
        error = pcg(product(A), b, be=be, tol=0, maxiter=k).x - x
        assert np.sqrt(error @ A @ error) <= 2 * rate**k * np.sqrt(x @ A @ x)


def test_a_perfect_preconditioner_needs_one_step(rng):
    A, b = spd(rng, np.geomspace(1, 1e6, 50)), rng.standard_normal(50)
    factor = scipy.linalg.cho_factor(A)
    got = pcg(product(A), b, be=be, precond=lambda r: scipy.linalg.cho_solve(factor, r), tol=1e-8)
    assert got.iterations == 1
    np.testing.assert_allclose(A @ got.x, b, rtol=1e-7)


def test_a_diagonal_preconditioner_undoes_bad_scaling(rng):
    d = np.geomspace(1, 1e5, 60)
    A, b = d[:, None] * spd(rng, np.linspace(1, 4, 60)) * d, rng.standard_normal(60)
    plain = pcg(product(A), b, be=be, tol=1e-6, maxiter=100)
    scaled = pcg(product(A), b, be=be, precond=lambda r: r / np.diag(A), tol=1e-6, maxiter=100)
    assert plain.flag == "maxiter"
    assert scaled.flag == "converged"
    assert relative_residual(A, scaled.x, b) <= 1e-6


def test_columns_are_solved_as_if_alone(rng, dtype):
    A, B = spd(rng, np.linspace(1, 9, 30), dtype), rng.standard_normal((30, 4)).astype(dtype)
    B[:, 1], B[:, 2] = 0, 1e-3 * B[:, 2]
    got = pcg(product(A), B, be=be, tol=1e-5)
    assert got.x.dtype == dtype
    assert got.flag == "converged"
    np.testing.assert_array_equal(got.x[:, 1], 0)
    assert got.residual.shape == (4,)
    np.testing.assert_allclose(got.x, np.linalg.solve(A, B), rtol=0, atol=1e-4)
    for j in (0, 2, 3):
        alone = pcg(product(A), B[:, j].copy(), be=be, tol=1e-5)
        assert alone.iterations <= got.iterations
        assert relative_residual(A, got.x[:, j], B[:, j]) <= 2e-5


def test_laplacian_is_solved_up_to_constants(rng, dtype):
    A = path_laplacian(40, dtype)
    b = rng.standard_normal(40).astype(dtype)
    b -= b.mean()
    tol = 1e-10 if dtype == "float64" else 1e-4
    start = rng.standard_normal(40).astype(dtype) + 100
    for x0 in (None, start):
        got = pcg(product(A), b, be=be, x0=x0, project=lambda z: z - z.mean(), tol=tol)
        assert got.flag == "converged"
        np.testing.assert_allclose(got.x.mean(), 0, atol=1e-4)
        exact = np.linalg.lstsq(A.astype(float), b.astype(float))[0]
        scale = np.abs(exact).max()
        np.testing.assert_allclose(got.x, exact, rtol=0, atol=1e3 * tol * scale)


def test_ill_conditioned_system_converges_to_its_true_residual(rng):
    A = spd(rng, np.geomspace(1e-9, 1, 60))
    b = A @ rng.standard_normal(60)
    got = pcg(product(A), b, be=be, tol=1e-7, maxiter=10_000)
    assert got.flag == "converged"
    assert relative_residual(A, got.x, b) <= 1e-7


@pytest.mark.parametrize("goal", [0, 1e-17])
def test_a_goal_below_rounding_level_ends_as_stalled_with_an_honest_residual(rng, dtype, goal):
    A = spd(rng, np.geomspace(1e-2, 1, 50), dtype)
    b = rng.standard_normal(50).astype(dtype)
    got = pcg(product(A), b, be=be, tol=goal, maxiter=5000)
    eps = np.finfo(dtype).eps
    assert got.flag == "stalled"
    assert 0 < got.residual <= 100 * eps * np.linalg.norm(b)
    assert got.residual == pytest.approx(np.linalg.norm(b - A @ got.x), rel=0.5)


def test_zero_right_hand_side_gives_zero_whatever_the_start(rng, dtype):
    A = spd(rng, np.linspace(1, 9, 10), dtype)
    for x0 in (None, np.ones(10, dtype)):
        got = pcg(product(A), np.zeros(10, dtype), be=be, x0=x0)
        assert got.flag == "converged"
        assert got.iterations == 0
        np.testing.assert_array_equal(got.x, np.zeros(10))


def test_solution_as_start_takes_no_step_and_stays_untouched(rng):
    A, b = spd(rng, np.linspace(1, 9, 20)), rng.standard_normal(20)
    x0 = np.linalg.solve(A, b)
    got = pcg(product(A), b, be=be, x0=x0, tol=1e-10)
    assert (got.flag, got.iterations) == ("converged", 0)
    warm = pcg(product(A), b, be=be, x0=x0 + 1e-4, tol=1e-6)
    assert 0 < warm.iterations < pcg(product(A), b, be=be, tol=1e-6).iterations
    np.testing.assert_array_equal(x0, np.linalg.solve(A, b))


@pytest.mark.parametrize("check_every", [1, 8])
def test_negative_curvature_stops_with_what_there_is(rng, check_every):
    A, b = np.diag([1.0, 2.0, 3.0, -4.0]), np.array([1.0, 1.0, 1.0, 1e-3])
    got = pcg(product(A), b, be=be, check_every=check_every)
    assert got.flag == "breakdown"
    assert 0 < got.iterations < 4
    assert 0 < got.residual < np.linalg.norm(b)
    assert got.residual == pytest.approx(np.linalg.norm(b - A @ got.x))
    first = pcg(product(-A), np.ones(4), be=be, check_every=check_every)
    assert (first.flag, first.iterations) == ("breakdown", 0)
    np.testing.assert_array_equal(first.x, 0)


@pytest.mark.parametrize("check_every", [1, 8])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_product_that_is_not_finite_leaves_a_finite_answer(rng, check_every, bad):
    A, b = spd(rng, np.linspace(1, 90, 30)), rng.standard_normal(30)
    calls = []

    def matvec(v):
        calls.append(0)
        return A @ v if len(calls) < 4 else np.full_like(v, bad)

    got = pcg(matvec, b, be=be, check_every=check_every)
    assert (got.flag, got.iterations) == ("breakdown", 3)
    np.testing.assert_array_equal(got.x, pcg(product(A), b, be=be, tol=0, maxiter=3).x)


def test_a_broken_column_does_not_spoil_its_neighbours(rng):
    A, B = np.diag([1.0, 2.0, 3.0, -4.0]), np.ones((4, 2))
    B[3, 1] = 0
    got = pcg(product(A), B, be=be)
    assert got.flag == "breakdown"
    np.testing.assert_allclose(got.x[:, 1], [1, 1 / 2, 1 / 3, 0], rtol=1e-12)


def test_too_few_steps_are_reported(rng):
    A, b = spd(rng, np.geomspace(1, 1e4, 50)), rng.standard_normal(50)
    got = pcg(product(A), b, be=be, maxiter=3)
    assert (got.flag, got.iterations) == ("maxiter", 3)
    assert got.residual == pytest.approx(np.linalg.norm(b - A @ got.x))
    assert pcg(product(A), b, be=be, maxiter=0).flag == "maxiter"


def test_residuals_are_judged_by_the_given_norm(rng):
    A, b = spd(rng, np.linspace(1, 50, 100)), rng.standard_normal(100)
    got = pcg(product(A), b, be=be, norm=lambda r: np.abs(r).sum(), tol=1e-2)
    assert got.residual == pytest.approx(np.abs(b - A @ got.x).sum(), rel=1e-6)
    assert got.residual <= 1e-2 * np.abs(b).sum()
    euclidean = pcg(product(A), b, be=be, tol=1e-2)
    assert np.abs(b - A @ euclidean.x).sum() != got.residual


def test_float32_is_kept(rng):
    A, b = spd(rng, np.linspace(1, 9, 20), "float32"), rng.standard_normal(20).astype(np.float32)
    got = pcg(product(A), b, be=be, precond=lambda r: r / np.diag(A), tol=1e-5)
    assert got.x.dtype == np.float32
    assert relative_residual(A, got.x, b) <= 1e-5


def test_a_device_is_waited_for_once_in_eight_steps(rng):
    transfers = []

    def host(*values):
        transfers.append(len(values))
        return be.host(*values)

    device = SimpleNamespace(name="cupy", xp=np, host=host)
    A, b = spd(rng, np.geomspace(1, 1e3, 100)), rng.standard_normal(100)
    got = pcg(product(A), b, be=device, tol=1e-4)
    assert got.iterations % 8 == 0
    assert len(transfers) <= got.iterations // 8 + 2


def test_power_norm_comes_close_to_the_largest_singular_value(rng, dtype):
    A = rng.standard_normal((30, 20)).astype(dtype)
    exact = np.linalg.norm(A.astype(float), 2)
    v = rng.standard_normal(20).astype(dtype)
    got = power_norm(lambda v: A @ v, lambda u: A.T @ u, v, be=be)
    assert 0.95 * exact <= got <= exact * (1 + 1e-5)
    assert power_norm(lambda v: 0 * v, lambda u: 0 * u, v, be=be) == 0


def test_logsumexp_agrees_with_scipy_and_survives_infinities(rng, dtype):
    z = (1000 * rng.standard_normal((4, 7))).astype(dtype)
    z[1], z[2, 3] = -np.inf, -np.inf
    for axis in (0, 1):
        got = logsumexp(z, be=be, axis=axis)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, scipy.special.logsumexp(z, axis=axis), rtol=1e-6)


def test_soft_threshold_minimises_what_it_says(rng):
    grid = np.linspace(-3, 3, 6001)
    for v, t in ((2.0, 0.5), (-1.0, 0.25), (0.3, 0.5), (0.0, 1.0)):
        best = grid[np.argmin(t * np.abs(grid) + (grid - v) ** 2 / 2)]
        assert soft_threshold(np.array(v), t, be=be) == pytest.approx(best, abs=1e-3)
