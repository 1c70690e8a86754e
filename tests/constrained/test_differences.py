"""Derivatives by differences against exact ones, within bounds, and what they cost."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import LinearConstraint, NonlinearConstraint

from solvers import constrained
from solvers.constrained._matrices import to_dense
from solvers.constrained._program import pose

N = 4
X = np.array([0.7, -1.3, 2.1, 0.4])
W = np.random.default_rng(5).normal(size=(3, N))


def fun(x):
    return np.exp(0.3 * x[0]) * x[1] + np.sin(x[2]) * x[3] ** 2 + x @ x


def jac(x):
    return (
        np.array(
            [
                0.3 * np.exp(0.3 * x[0]) * x[1],
                np.exp(0.3 * x[0]),
                np.cos(x[2]) * x[3] ** 2,
                2 * np.sin(x[2]) * x[3],
            ]
        )
        + 2 * x
    )


def hess(x):
    H = 2 * np.eye(N)
    H[0, 0] += 0.09 * np.exp(0.3 * x[0]) * x[1]
    H[0, 1] = H[1, 0] = 0.3 * np.exp(0.3 * x[0])
    H[2, 2] -= np.sin(x[2]) * x[3] ** 2
    H[2, 3] = H[3, 2] = 2 * np.cos(x[2]) * x[3]
    H[3, 3] += 2 * np.sin(x[2])
    return H


def rows(x):
    return np.sin(W @ x)


def rows_jac(x):
    return np.cos(W @ x)[:, None] * W


def rows_hess(x, v):
    return -(W.T * (v * np.sin(W @ x))) @ W


def constraint(**given):
    return NonlinearConstraint(rows, 0, 0, **{"jac": rows_jac, "hess": rows_hess, **given})


# Largest error over the size of the derivative; theory has the square of the step.
SCHEMES = {"2-point": 3e-7, "3-point": 1e-9, "cs": 1e-14}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_first_derivatives_are_as_exact_as_the_scheme(scheme):
    program, x = pose(fun, X, jac=scheme, hess=hess, constraints=constraint(jac=scheme))
    for found, exact, told in (
        (program.grad(x), jac(x), program.errors.grad),
        (program.jac(x), rows_jac(x), program.errors.jac),
    ):
        error = abs(found - exact).max() / abs(exact).max()
        assert error <= SCHEMES[scheme]
        assert error <= told


@pytest.mark.parametrize("scheme", SCHEMES)
def test_second_derivatives_are_symmetric_and_near(scheme):
    lam = np.array([0.5, -2.0, 1.0])
    program, x = pose(fun, X, jac=jac, hess=scheme, constraints=constraint(hess=scheme))
    H = program.hess(x, lam, 0.7)
    np.testing.assert_array_equal(H, H.T)
    exact = 0.7 * hess(x) + rows_hess(x, lam)
    assert abs(H - exact).max() <= 10 * SCHEMES[scheme] * abs(exact).max()


def test_differences_of_differences_serve_newton_steps():
    program, x = pose(fun, X, constraints=constraint(jac="3-point", hess=None))
    lam = np.array([0.5, -2.0, 1.0])
    exact = hess(x) + rows_hess(x, lam)
    assert program.model == "differences"
    # The noise of a gradient by differences is 4e-11; the cube root of it, squared, 1e-7.
    assert abs(program.hess(x, lam) - exact).max() <= 1e-5


def test_one_difference_gives_a_product_with_the_lagrangians_hessian():
    lam, v = np.array([0.5, -2.0, 1.0]), np.array([1.0, 0.0, -3.0, 0.5])
    line = LinearConstraint(sp.csr_array(np.ones((1, N))), 0, 0)
    program, x = pose(fun, X, jac=jac, hess="lbfgs", constraints=[constraint(), line])
    H = program.hess(x, np.append(lam, 3.0), 0.7)
    before = program.counts.njev
    exact = (0.7 * hess(x) + rows_hess(x, lam)) @ v
    np.testing.assert_allclose(H @ v, exact, atol=1e-8)
    assert program.counts.njev == before + 2
    np.testing.assert_array_equal(H @ np.zeros(N), 0)


def test_curvature_of_rows_beside_products_is_differenced_for_many_unknowns():
    n = 300
    x0 = np.linspace(-1, 1, n)
    ball = {"type": "eq", "fun": lambda x: x @ x - 1, "jac": lambda x: 2 * x}
    program, x = pose(
        lambda x: x.sum(), x0, jac=np.ones_like, hessp=lambda x, p: 0 * p, constraints=ball
    )
    assert program.model is None
    np.testing.assert_allclose(program.hess(x, np.array([1.5])) @ x0, 3 * x0, atol=1e-7)


@pytest.mark.parametrize("scheme", ["2-point", "3-point"])
def test_differences_stay_within_the_bounds(scheme):
    seen = []

    def root(x):
        seen.append(x)
        return np.sqrt(x).sum() + np.sqrt(2 - x).sum()

    for x0 in ([1e-9, 2.0, 1.0], [2e-6, 2 - 1e-9, 0.5]):
        program, x = pose(root, x0, jac=scheme, bounds=[(0, 2)] * 3)
        program.grad(x)
    assert np.min(seen) >= 0
    assert np.max(seen) <= 2


def test_one_sided_differences_are_of_second_order():
    bounds = [(X[0], None), (None, X[1]), (None, None), (None, None)]
    program, x = pose(fun, X, jac="3-point", bounds=bounds)
    np.testing.assert_allclose(program.grad(x), jac(x), rtol=1e-8)


def test_a_narrow_interval_is_enough():
    bounds = [(v - 1e-9, v + 1e-9) for v in X]
    for scheme in ("2-point", "3-point"):
        program, x = pose(fun, X, jac=scheme, bounds=bounds)
        np.testing.assert_allclose(program.grad(x), jac(x), atol=1e-4)


@pytest.mark.parametrize(("scheme", "calls"), [("2-point", 1 + 3), ("3-point", 6), ("cs", 3)])
def test_fixed_unknowns_are_not_differenced(scheme, calls):
    bounds = [(None, None), (X[1], X[1]), (None, None), (None, None)]
    program, x = pose(fun, X, jac=scheme, bounds=bounds)
    g = program.grad(x)
    assert program.counts.nfev == calls
    assert g[1] == 0
    np.testing.assert_allclose(g[[0, 2, 3]], jac(x)[[0, 2, 3]], rtol=1e-6)
    program.grad(x)
    assert program.counts.nfev == calls


def test_constraints_bring_their_own_step():
    program, x = pose(
        fun,
        X,
        jac=jac,
        constraints=NonlinearConstraint(rows, 0, 0, jac="2-point", finite_diff_rel_step=1e-2),
    )
    error = abs(program.jac(x) - rows_jac(x)).max()
    assert 1e-4 < error < 1e-1


def chain(x):
    return x[1:] ** 2 - np.sin(x[:-1])


def chain_jac(x):
    k = np.arange(len(x) - 1)
    J = np.zeros((len(k), len(x)))
    J[k, k], J[k, k + 1] = -np.cos(x[:-1]), 2 * x[1:]
    return J


@pytest.mark.parametrize(("scheme", "calls"), [("2-point", 2), ("3-point", 4), ("cs", 2)])
def test_jacobians_with_a_pattern_move_unknowns_in_groups(scheme, calls):
    n = 200
    x0 = np.linspace(0.1, 1.5, n)
    bounds = [(0.1, None), (None, None), (x0[2], x0[2]), (None, x0[3])] + [(None, None)] * (n - 4)
    given = NonlinearConstraint(
        chain, 0, 0, jac=scheme, finite_diff_jac_sparsity=sp.csr_array(chain_jac(x0))
    )
    program, x = pose(np.sum, x0, jac=np.ones_like, constraints=given, bounds=bounds)
    G = program.jac(x)
    assert sp.issparse(G)
    # Two groups of every other unknown, however many there are; one value for the row count.
    assert program.counts.ncev == 1 + calls
    exact = chain_jac(x)
    exact[:, 2] = 0
    np.testing.assert_allclose(G.toarray(), exact, atol=1e-6 if scheme == "2-point" else 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_any_pattern_gives_the_same_jacobian(seed):
    rng = np.random.default_rng(seed)
    M = rng.normal(size=(7, 9)) * (rng.random((7, 9)) < 0.3)
    given = {"fun": lambda x: np.sin(M @ x), "lb": 0, "ub": 0, "jac": "3-point"}
    x0 = rng.normal(size=9)
    dense, sparse = (
        pose(np.sum, x0, jac=np.ones_like, constraints=NonlinearConstraint(**given, **more))[0]
        for more in ({}, {"finite_diff_jac_sparsity": M != 0})
    )
    np.testing.assert_allclose(sparse.jac(x0).toarray(), dense.jac(x0), atol=1e-10)
    assert sparse.counts.ncev <= dense.counts.ncev


def test_a_pattern_of_the_wrong_shape_is_refused_by_name():
    given = NonlinearConstraint(rows, 0, 0, jac="2-point", finite_diff_jac_sparsity=np.eye(2))
    with pytest.raises(ValueError, match=r"^`constraints\[0\]\.finite_diff_jac_sparsity` came"):
        pose(fun, X, jac=jac, constraints=given)


def test_single_precision_takes_longer_steps():
    seen = []

    def f(x):
        seen.append(x)
        return np.float32(fun(x))

    program, x = pose(f, X.astype(np.float32), jac="3-point")
    g = program.grad(x)
    exact = jac(x)
    assert abs(g - exact).max() <= program.errors.grad * abs(exact).max()
    assert np.min([abs(y - x).max() for y in seen]) > 1e-3


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_jacobians_of_any_form_are_differenced(form):
    given = constraint(jac=lambda x: form(rows_jac(x)), hess="3-point")
    program, x = pose(fun, X, jac=jac, hess=hess, constraints=given)
    lam = np.array([0.5, -2.0, 1.0])
    H = to_dense(program.hess(x, lam), be=program.be)
    np.testing.assert_allclose(H, hess(x) + rows_hess(x, lam), atol=1e-8)


def test_complex_steps_need_functions_that_carry_complex_numbers():
    program, x = pose(lambda x: float(np.real(fun(x))), X, jac="cs")
    with pytest.raises(TypeError, match=r"^`fun` returned dtype float64 for complex x"):
        program.grad(x)


PROBLEM = {"type": "eq", "fun": lambda x: x @ x - 2}
GIVEN = {
    "nothing": {},
    "forward": {"jac": "2-point"},
    "complex": {"jac": "cs"},
    "gradient": {"jac": jac},
    "gradient, forward": {"jac": jac, "hess": "2-point"},
    "gradient, complex": {"jac": jac, "hess": "cs"},
}


@pytest.mark.parametrize("name", GIVEN)
def test_problems_are_solved_with_what_is_given(name):
    res = constrained.minimize(fun, X, constraints=PROBLEM, **GIVEN[name])
    assert res.success, res.message
    assert abs(res.x @ res.x - 2) <= 1e-7
    g = jac(res.x)
    across = g - (g @ res.x) / (res.x @ res.x) * res.x
    assert abs(across).max() <= 1e-6


def test_what_differences_leave_shows_in_the_floor():
    exact = constrained.certify(X, fun, jac=jac).details["kkt_floor"]
    by_differences = constrained.certify(X, fun, jac="3-point").details["kkt_floor"]
    assert by_differences == pytest.approx(1e-7 * abs(jac(X)).max(), rel=1e-3)
    assert exact < 1e-12
