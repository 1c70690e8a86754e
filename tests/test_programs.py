"""Constrained problems are what their docstrings say."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import constrained, datasets

PROBLEMS = {
    "planted": lambda rng=0: datasets.planted_program(12, 4, rng=rng),
    "quadratic": lambda rng=0: datasets.planted_program(12, 4, curvature=0.0, rng=rng),
    "logistic": lambda rng=0: datasets.constrained_logistic(50, 8, 3, rng=rng),
    "control": lambda rng=0: datasets.poisson_control(4),
    "charges": lambda rng=0: datasets.thomson(6, rng=rng),
    "chain": lambda rng=0: datasets.chained_rosenbrock(9),
    "frame": lambda rng=0: datasets.stiefel_procrustes(6, 3, rng=rng),
}


def dense(A):
    return A.toarray() if sp.issparse(A) else np.asarray(A)


def rows(problem):
    """Values, Jacobian and weighted Hessian of the equations."""
    con = problem.constraints
    if hasattr(con, "A"):
        return (lambda x: con.A @ x), (lambda x: con.A), (lambda x, v: 0.0 * np.outer(x, x))
    return con.fun, con.jac, con.hess


def slope(function, x, u, h=1e-6):
    return (function(x + h * u) - function(x - h * u)) / (2 * h)


@pytest.mark.parametrize("name", PROBLEMS)
def test_derivatives_agree_with_differences(name, rng):
    problem = PROBLEMS[name]()
    c, G, C = rows(problem)
    n = len(problem.x0)
    x, u = problem.x0 + 0.1 * rng.normal(size=n), rng.normal(size=n)
    v = rng.normal(size=len(c(x)))
    scale = 1 + abs(dense(problem.hess(x))).max()
    assert problem.jac(x) @ u == pytest.approx(slope(problem.fun, x, u), rel=1e-6, abs=1e-6)
    Hu = dense(problem.hess(x)) @ u
    np.testing.assert_allclose(Hu, slope(problem.jac, x, u), atol=1e-7 * scale)
    np.testing.assert_allclose(dense(G(x)) @ u, slope(c, x, u), atol=1e-6)
    pulled = slope(lambda x: dense(G(x)).T @ v, x, u)
    np.testing.assert_allclose(dense(C(x, v)) @ u, pulled, atol=1e-6)
    if problem.hessp is not None:
        np.testing.assert_allclose(problem.hessp(x, u), Hu, atol=1e-12 * scale)


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in ("control", "chain")])
def test_the_same_seed_gives_the_same_problem_and_another_seed_another(name):
    first, again, other = (PROBLEMS[name](seed) for seed in (5, 5, 6))
    x = first.x0
    assert np.array_equal(x, again.x0)
    assert first.fun(x) == again.fun(x) != other.fun(other.x0)


@pytest.mark.parametrize("name", ["planted", "quadratic", "frame"])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_planted_is_a_strict_local_minimum(name, seed):
    problem = PROBLEMS[name](seed)
    found = constrained.certify(problem.solution, problem.fun, **problem.keywords())
    assert found.holds
    assert found.details["smallest_curvature"] > 0


def test_the_control_problem_has_the_solution_of_one_linear_system():
    problem = datasets.poisson_control(5, weight=0.3)
    A, H = dense(problem.constraints.A), dense(problem.hess(problem.x0))
    assert A.shape == (25, 50)
    np.testing.assert_array_equal(np.unique(np.diag(H)), [0.3, 1.0])
    K = np.block([[H, A.T], [A, np.zeros((25, 25))]])
    g = problem.jac(np.zeros(50))
    x = np.linalg.solve(K, np.concatenate([-g, np.zeros(25)]))[:50]
    assert constrained.certify(x, problem.fun, **problem.keywords()).holds
    # Five points: a parabola has the Laplacian of its second derivatives.
    t = np.linspace(-1, 1, 7)[1:-1]
    bump = ((1 - t[:, None] ** 2) * (1 - t**2)).reshape(-1)
    laplace = -2 * ((1 - t[:, None] ** 2) + (1 - t**2)).reshape(-1)
    np.testing.assert_allclose(A[:, :25] @ bump, laplace, rtol=1e-12)


def test_charges_on_an_octahedron_have_the_energy_of_its_edges_and_axes():
    problem = datasets.thomson(6)
    corners = np.concatenate([np.eye(3), -np.eye(3)])
    x = corners.reshape(-1)
    assert problem.fun(x) == pytest.approx(12 / np.sqrt(2) + 3 / 2, rel=1e-14)
    assert constrained.certify(x, problem.fun, **problem.keywords()).holds
    np.testing.assert_allclose(problem.constraints.fun(problem.x0), 0.0, atol=1e-14)


def test_the_chain_is_solved_by_ones():
    problem = datasets.chained_rosenbrock(30)
    assert problem.fun(problem.solution) == 0.0
    np.testing.assert_allclose(problem.constraints.fun(problem.solution), 0.0, atol=1e-14)
    assert problem.x0[:3].tolist() == [-1.2, 1.0, -1.2]
    assert problem.hess(problem.x0).nnz <= 3 * 30


def test_weights_that_satisfy_the_equations_of_the_logistic_fit_exist():
    for seed in range(5):
        problem = datasets.constrained_logistic(30, 6, 4, rng=seed)
        x = np.full(6, 1 / np.sqrt(6))
        for _ in range(100):
            step = np.linalg.lstsq(problem.constraints.jac(x), problem.constraints.fun(x))[0]
            x = x - step
        assert abs(problem.constraints.fun(x)).max() <= 1e-12


def test_the_logistic_fit_takes_the_callers_samples(rng):
    X, y = rng.normal(size=(20, 5)), rng.choice([-1.0, 1.0], size=20)
    problem = datasets.constrained_logistic(m=2, data=(X, y), rng=0)
    x = rng.normal(size=5)
    expected = np.mean([np.log1p(np.exp(-yi * (xi @ x))) for xi, yi in zip(X, y, strict=True)])
    assert problem.fun(x) == pytest.approx(expected, rel=1e-12)


def test_a_frame_with_noise_has_no_solution_that_is_known():
    assert datasets.stiefel_procrustes(6, 2, noise=0.1, rng=0).solution is None


def test_extreme_weights_overflow_nowhere():
    problem = datasets.constrained_logistic(30, 6, 2, rng=0)
    x = 1e6 * np.ones(6)
    assert np.isfinite([problem.fun(x), *problem.jac(x), *problem.hess(x).reshape(-1)]).all()
