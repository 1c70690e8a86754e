"""What must not change an answer: units, rotations, the order of rows, threads; lowest minima."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import NonlinearConstraint
from scipy.stats import ortho_group

from solvers import constrained, datasets

SEEDS = st.integers(0, 10**6)


class Rows:
    """Equations ``T c(x) = 0`` of a problem, T any matrix."""

    def __init__(self, con, T):
        m = len(T)
        self.constraint = NonlinearConstraint(
            lambda x: T @ con.fun(x),
            np.zeros(m),
            np.zeros(m),
            jac=lambda x: T @ con.jac(x),
            hess=lambda x, v: con.hess(x, T.T @ v),
        )


def solved(problem, **changes):
    keywords = {"fun": problem.fun, "x0": problem.x0, **problem.keywords(), **changes}
    res = constrained.minimize(keywords.pop("fun"), keywords.pop("x0"), **keywords)
    assert res.success, res.message
    return res


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_permuted_and_rescaled_rows_have_the_same_solution(seed):
    rng = np.random.default_rng(seed)
    problem = datasets.planted_program(12, 4, rng=rng)
    scale = 10.0 ** rng.uniform(-4, 4, 4)
    T = np.eye(4)[rng.permutation(4)] * scale[:, None]
    res = solved(problem, constraints=Rows(problem.constraints, T).constraint)
    # A row this small lets x be off by so much before it is violated by the tolerance.
    atol = max(1e-6, 1e-7 / scale.min())
    np.testing.assert_allclose(res.x, problem.solution, atol=atol)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_repeated_and_combined_rows_have_the_same_solution(seed):
    rng = np.random.default_rng(seed)
    problem = datasets.planted_program(12, 4, rng=rng)
    T = np.eye(4)[rng.permutation(4)] * 10.0 ** rng.uniform(-1, 4, 4)[:, None]
    again = np.vstack([T, T[:2], T[0] / T[0].max() + T[1] / T[1].max()])
    res = solved(problem, constraints=Rows(problem.constraints, again).constraint)
    np.testing.assert_allclose(res.x, problem.solution, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_rotated_and_stretched_unknowns_have_the_same_solution(seed):
    rng = np.random.default_rng(seed)
    problem = datasets.planted_program(10, 3, rng=rng)
    con = problem.constraints
    for S in (ortho_group.rvs(10, random_state=rng), np.diag(10.0 ** rng.uniform(-1, 1, 10))):
        moved = NonlinearConstraint(
            lambda u, S=S: con.fun(S @ u),
            con.lb,
            con.ub,
            jac=lambda u, S=S: con.jac(S @ u) @ S,
            hess=lambda u, v, S=S: S.T @ con.hess(S @ u, v) @ S,
        )
        res = constrained.minimize(
            lambda u, S=S: problem.fun(S @ u),
            np.linalg.solve(S, problem.x0),
            jac=lambda u, S=S: S.T @ problem.jac(S @ u),
            hess=lambda u, S=S: S.T @ problem.hess(S @ u) @ S,
            constraints=moved,
        )
        assert res.success, res.message
        np.testing.assert_allclose(S @ res.x, problem.solution, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, constant=st.floats(-1e3, 1e3))
def test_a_constant_added_to_the_objective_changes_nothing_else(seed, constant):
    problem = datasets.planted_program(10, 3, rng=seed)
    res = solved(problem, fun=lambda x: problem.fun(x) + constant)
    np.testing.assert_allclose(res.x, problem.solution, atol=1e-6)
    assert res.fun == pytest.approx(problem.fun(problem.solution) + constant, abs=1e-7)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_planted_roots_of_wavy_equations_are_found(seed):
    rng = np.random.default_rng(seed)
    n = 9
    A, W, root = np.eye(n) * 3 + 0.3 * rng.normal(size=(n, n)), rng.normal(size=(n, n)), None
    root = rng.normal(size=n)
    b = A @ root + 0.1 * np.sin(W @ root)
    con = NonlinearConstraint(
        lambda x: A @ x - b + 0.1 * np.sin(W @ x),
        np.zeros(n),
        np.zeros(n),
        jac=lambda x: A + 0.1 * np.cos(W @ x)[:, None] * W,
        hess=lambda x, v: -(W.T * (0.1 * v * np.sin(W @ x))) @ W,
    )
    res = constrained.minimize(
        lambda x: 0.0,
        root + 0.1 * rng.normal(size=n),
        jac=np.zeros_like,
        hess=lambda x: np.zeros((n, n)),
        constraints=con,
    )
    assert res.success, res.message
    np.testing.assert_allclose(res.x, root, atol=1e-7)


def test_minima_on_the_sphere_are_smallest_eigenvalues():
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        A = rng.normal(size=(8, 8))
        A = A + A.T
        unit = NonlinearConstraint(
            lambda x: x @ x - 1,
            0,
            0,
            jac=lambda x: 2 * x,
            hess=lambda x, v: 2 * v[0] * np.eye(8),
        )
        res = constrained.minimize(
            lambda x, A=A: x @ A @ x,
            rng.normal(size=8),
            jac=lambda x, A=A: 2 * A @ x,
            hess=lambda x, A=A: 2 * A,
            constraints=unit,
        )
        least = np.linalg.eigvalsh(A)[0]
        lowest = abs(res.fun - least) <= 1e-7 * abs(least)
        # Elsewhere there is a direction in which the objective falls.
        assert res.second_order == lowest or not res.success
        hits += lowest
    assert hits >= 190


def test_threads_change_no_bit():
    problem = datasets.constrained_logistic(500, 30, rng=0)
    one, two = (solved(problem, n_threads=count) for count in (1, 2))
    assert np.array_equal(one.x, two.x)
    assert np.array_equal(one.lam, two.lam)
