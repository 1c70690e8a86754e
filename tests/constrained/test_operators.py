"""Problems without entries: products with Hessians and Jacobians from end to end."""

import warnings

import numpy as np
import pytest
from scipy.optimize import BFGS, Bounds, LinearConstraint, NonlinearConstraint
from scipy.sparse.linalg import LinearOperator

from solvers.constrained import minimize

N, ROWS = 40, 6


def operator(A, record=None):
    """Return a matrix as an operator that refuses to be anything else.

    `record` gets what every product was and the vector's number of non-zeros.
    """

    def product(kind, matrix, v):
        v = np.ravel(v)
        if record is not None:
            record.append((kind, v.size, np.count_nonzero(v)))
        return matrix @ v

    def matvec(v):
        return product("dot", A, v)

    def rmatvec(v):
        return product("rdot", A.T, v)

    return LinearOperator(A.shape, matvec=matvec, rmatvec=rmatvec, dtype=float)


class Sphere:
    """A strictly convex quadratic on a sphere and in a subspace, with planted answer."""

    def __init__(self, seed=0, scale=1.0):
        rng = np.random.default_rng(seed)
        self.x = rng.standard_normal(N)
        self.x /= np.linalg.norm(self.x)
        Q = np.linalg.qr(rng.standard_normal((N, N)))[0]
        self.H = (Q * np.geomspace(1, 30, N)) @ Q.T
        self.A = scale * rng.standard_normal((ROWS, N))
        self.b, self.scale = self.A @ self.x, scale
        self.lam = rng.standard_normal(ROWS + 1) / scale
        self.lam[-1] = 0.7
        # f = 1/2 x.Hx + q.x with gradient -G^T lam at the answer.
        self.q = -self.H @ self.x - self.A.T @ self.lam[:-1] - 2 * 0.7 * self.x
        self.x0 = self.x + 0.2 * rng.standard_normal(N)

    def fun(self, x):
        return 0.5 * x @ self.H @ x + self.q @ x

    def jac(self, x):
        return self.H @ x + self.q

    def stationarity(self, x, lam):
        return abs(self.jac(x) + self.A.T @ lam[:-1] + 2 * lam[-1] * x).max()

    def constraints(self, jacobian, record=None):
        twice = lambda x, v: operator(2 * v[0] * np.eye(N), record)  # noqa: E731
        ball = NonlinearConstraint(
            lambda x: np.array([x @ x]),
            1,
            1,
            jac=lambda x: jacobian(2 * x[None]),
            hess=twice,
        )
        rows = NonlinearConstraint(
            lambda x: self.A @ x,
            self.b,
            self.b,
            jac=lambda x: jacobian(self.A),
            hess=lambda x, v: operator(np.zeros((N, N)), record),
        )
        return [rows, ball]


HESSIANS = {
    "hessp": lambda p: {"hessp": lambda x, v: p.H @ v},
    "operator": lambda p: {"hess": lambda x: operator(p.H)},
}
JACOBIANS = {"dense": (lambda A: A, "pcg"), "operator": (operator, "minres")}


@pytest.mark.parametrize("jacobian", JACOBIANS)
@pytest.mark.parametrize("hessian", HESSIANS)
def test_products_alone_lead_to_the_planted_answer(hessian, jacobian):
    p, (form, inner) = Sphere(), JACOBIANS[jacobian]
    res = minimize(p.fun, p.x0, jac=p.jac, constraints=p.constraints(form), **HESSIANS[hessian](p))
    assert res.success, res.message
    assert res.inner == inner
    np.testing.assert_allclose(res.x, p.x, atol=1e-6)
    np.testing.assert_allclose(res.lam, p.lam, atol=1e-5)
    assert p.stationarity(res.x, res.lam) <= 2e-8
    assert res.nhvp > 0
    assert res.ninner > 0


@pytest.mark.parametrize("inner", ["minres", "gmres", "pcg"])
def test_every_krylov_solver_takes_operators_on_both_sides(inner):
    p = Sphere(1)
    res = minimize(
        p.fun,
        p.x0,
        jac=p.jac,
        hessp=lambda x, v: p.H @ v,
        constraints=p.constraints(operator),
        inner=inner,
    )
    assert res.success, res.message
    assert res.inner == inner
    np.testing.assert_allclose(res.x, p.x, atol=1e-6)


def test_operators_are_multiplied_by_few_vectors():
    p, record, hvps = Sphere(2), [], []
    jacobian = lambda A: operator(A, record)  # noqa: E731

    def hessp(x, v):
        hvps.append(np.count_nonzero(v))
        return p.H @ v

    res = minimize(
        p.fun, p.x0, jac=p.jac, hessp=hessp, constraints=p.constraints(jacobian), tol=1e-6
    )
    assert res.success
    # None of them was multiplied by the unit vectors to find its entries.
    assert 1 not in hvps
    assert not [size for _, size, filled in record if filled == 1 and size > 1]
    assert len(hvps) < 25 * res.nit + res.ninner
    # Most products are the certificate's: its Lanczos steps project on the null space by LSMR.
    for kind in ("dot", "rdot"):
        assert sum(kind == seen for seen, _, _ in record) < 3000 + 2 * res.ninner


def test_matrices_and_operators_give_the_same_answer():
    p = Sphere(3)
    dense = minimize(
        p.fun,
        p.x0,
        jac=p.jac,
        hess=lambda x: p.H,
        constraints=p.constraints(lambda A: A),
    )
    free = minimize(
        p.fun, p.x0, jac=p.jac, hessp=lambda x, v: p.H @ v, constraints=p.constraints(operator)
    )
    np.testing.assert_allclose(dense.x, free.x, atol=1e-7)
    np.testing.assert_allclose(dense.lam, free.lam, atol=1e-6)


def test_projected_cg_asks_for_one_product_a_step_and_one_more_each_iteration():
    # So many unknowns that nobody looks at the curvature of the answer.
    rng, hvps = np.random.default_rng(4), []
    d, A = np.geomspace(1, 30, 250), rng.standard_normal((5, 250))

    def hessp(x, v):
        hvps.append(1)
        return (d + 3 * x * x) * v

    res = minimize(
        lambda x: 0.5 * x @ (d * x) + 0.25 * np.sum(x**4),
        rng.standard_normal(250),
        jac=lambda x: d * x + x**3,
        hessp=hessp,
        constraints=LinearConstraint(A, np.ones(5), np.ones(5)),
    )
    assert res.inner == "pcg"
    assert res.nhvp == len(hvps)
    # The first iteration weighs the merit function by one product.
    assert len(hvps) <= res.ninner + res.nit + 1


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_rows_of_operators_are_scaled_without_their_entries(scale):
    p = Sphere(5, scale)
    res = minimize(
        p.fun,
        p.x0,
        jac=p.jac,
        hessp=lambda x, v: p.H @ v,
        constraints=p.constraints(operator),
        inner="minres",
        tol=1e-6,
    )
    assert res.success, res.message
    np.testing.assert_allclose(res.x, p.x, atol=1e-3)


def test_dependent_rows_of_an_operator_are_no_obstacle():
    p = Sphere(6)
    A = np.vstack([p.A, p.A[0], p.A[1] - p.A[2]])
    rows = NonlinearConstraint(
        lambda x: A @ x, A @ p.x, A @ p.x, jac=lambda x: operator(A), hess=lambda x, v: None
    )
    rows.hess = lambda x, v: operator(np.zeros((N, N)))
    ball = p.constraints(operator)[1]
    res = minimize(
        p.fun, p.x0, jac=p.jac, hessp=lambda x, v: p.H @ v, constraints=[rows, ball], tol=1e-7
    )
    assert res.success, res.message
    np.testing.assert_allclose(res.x, p.x, atol=1e-5)
    assert np.linalg.norm(res.lam) <= 10 * np.linalg.norm(p.lam)


def test_bounds_go_with_products_alone():
    p = Sphere(7)
    x = np.maximum(p.x, 0)
    # The projection of a point onto the non-negative part of a plane.
    A = np.ones((1, N))
    res = minimize(
        lambda v: 0.5 * (v - p.x) @ (v - p.x),
        np.full(N, 1 / N),
        jac=lambda v: v - p.x,
        hessp=lambda v, d: d,
        constraints=LinearConstraint(A, x.sum(), x.sum()),
        bounds=Bounds(np.zeros(N), np.full(N, np.inf)),
        tol=1e-7,
    )
    assert res.success, res.message
    assert res.inner == "pcg"
    np.testing.assert_allclose(res.x, x, atol=1e-3)


def test_single_precision_comes_back_from_products_in_double_precision():
    p = Sphere(8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        res = minimize(
            p.fun,
            p.x0.astype(np.float32),
            jac=p.jac,
            hessp=lambda x, v: p.H @ v,
            constraints=p.constraints(lambda A: A),
            tol=1e-4,
        )
    assert res.success
    assert res.x.dtype == np.float32
    np.testing.assert_allclose(res.x, p.x, atol=1e-3)


def test_models_of_the_hessian_go_with_operators():
    p = Sphere(9)
    res = minimize(
        p.fun, p.x0, jac=p.jac, hess=BFGS(), constraints=p.constraints(operator), tol=1e-6
    )
    assert res.success, res.message
    np.testing.assert_allclose(res.x, p.x, atol=1e-3)
