"""The exact augmented Lagrangian: slopes and differences against differences and exact sums."""

from fractions import Fraction

import numpy as np
import pytest

from solvers.constrained._merit import Weights, difference, slope
from solvers.constrained._problem import Standard
from solvers.constrained._program import pose
from tests.constrained.nonlinear import CURVED


def standard(given, scaling=None):
    keywords = given.keywords()
    program, x = pose(keywords.pop("fun"), keywords.pop("x0"), **keywords)
    return Standard(program, x, scaling)


def merit(given, x, lam, weights):
    """The definition, in plain NumPy."""
    c = given.cons(x)
    r = given.jac(x) + given.cons_jac(x).T @ lam
    return given.fun(x) + lam @ c + 0.5 * weights.eta1 * c @ c + 0.5 * weights.eta2 * r @ r


def hessian(given, x, lam):
    return given.hess(x) + given.cons_hess(x, lam)


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("seed", range(3))
def test_the_slope_is_the_derivative_of_the_merit(name, seed):
    given, rng = CURVED[name], np.random.default_rng(seed)
    problem = standard(given)
    x = given.x0 + 0.3 * rng.standard_normal(problem.n)
    lam = rng.standard_normal(problem.m)
    dx, dl = rng.standard_normal(problem.n), rng.standard_normal(problem.m)
    weights, h = Weights(10.0, 0.1), 1e-6
    point = problem.point(x)
    product = problem.curvature(point, lam).product
    D = slope(point, lam, dx, dl, product, be=problem.be).at(weights)
    ahead = merit(given, x + h * dx, lam + h * dl, weights)
    behind = merit(given, x - h * dx, lam - h * dl, weights)
    assert (ahead - behind) / (2 * h) == pytest.approx(D, rel=1e-6)


@pytest.mark.parametrize("name", CURVED)
def test_inexact_steps_with_another_hessian_have_the_slope_of_the_papers_identity(name):
    given, rng = CURVED[name], np.random.default_rng(5)
    problem = standard(given)
    n, m = problem.n, problem.m
    x, lam = given.x0 + 0.1 * rng.standard_normal(n), rng.standard_normal(m)
    H, G, c = hessian(given, x, lam), given.cons_jac(x), given.cons(x)
    r = given.jac(x) + G.T @ lam
    B = H + np.diag(rng.uniform(1, 5, n))
    rho = 0.1 * rng.standard_normal(n + m)
    K = np.block([[B, G.T], [G, np.zeros((m, m))]])
    d = np.linalg.solve(K, -np.concatenate([r, c]) + rho)
    dx, dl, rho_L, rho_c = d[:n], d[n:], rho[:n], rho[n:]
    e1, e2 = weights = Weights(7.0, 0.02)
    exact = -dx @ B @ dx + 2 * c @ dl - e1 * c @ c - e2 * r @ r + e2 * r @ (H - B) @ dx
    inexact = rho_L @ dx - dl @ rho_c + e2 * r @ rho_L + e1 * c @ rho_c
    point = problem.point(x)
    product = problem.curvature(point, lam).product
    found = slope(point, lam, dx, dl, product, be=problem.be).at(weights)
    assert found == pytest.approx(exact + inexact, rel=1e-9)


def test_differences_keep_their_digits_where_the_squares_cancel():
    given, rng = CURVED["BT11"], np.random.default_rng(2)
    problem = standard(given)
    x, lam = given.x0.copy(), rng.standard_normal(3)
    step, lam_step = 1e-7 * rng.standard_normal(5), 1e-7 * rng.standard_normal(3)
    old, new = problem.point(x), problem.point(x + step)
    found = difference(old, lam, new, lam + lam_step, be=problem.be)

    def half_square(v):
        return sum(Fraction(float(part)) ** 2 for part in v) / 2

    # In exact arithmetic on the same vectors: the sums then lose nothing.
    rows = float(half_square(new.c) - half_square(old.c))
    slopes = half_square(new.gradient(lam + lam_step)) - half_square(old.gradient(lam))
    assert found.rows == pytest.approx(rows, rel=1e-13)
    assert found.gradient == pytest.approx(float(slopes), rel=1e-13)


def test_differences_are_those_of_the_merit():
    given, rng = CURVED["HS77"], np.random.default_rng(3)
    problem, weights = standard(given), Weights(3.0, 0.5)
    x, lam = given.x0, rng.standard_normal(2)
    y, mu = x + 0.5 * rng.standard_normal(5), rng.standard_normal(2)
    found = difference(problem.point(x), lam, problem.point(y), mu, be=problem.be).at(weights)
    expected = merit(given, y, mu, weights) - merit(given, x, lam, weights)
    assert found == pytest.approx(expected, rel=1e-12)


def test_without_constraints_only_the_gradients_square_is_left():
    program, x = pose(
        lambda x: x @ x, np.ones(3), jac=lambda x: 2 * x, hess=lambda x: 2 * np.eye(3)
    )
    problem = Standard(program, x, None)
    old, new, none = problem.point(x), problem.point(2 * x), np.zeros(0)
    found = difference(old, none, new, none, be=problem.be)
    assert found == (9.0, 0.0, 18.0)
    product = problem.curvature(old, none).product
    assert slope(old, none, -x, none, product, be=problem.be) == (-6.0, 0.0, -12.0)
