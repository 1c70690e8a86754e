"""Quasi-Newton models: textbook updates written out, and what minimize makes of them."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import BFGS, SR1, HessianUpdateStrategy, NonlinearConstraint

from solvers import constrained
from solvers._core.backend import get_backend
from solvers.constrained._matrices import LowRank, add_diagonal, to_dense
from solvers.constrained._models import open_model
from solvers.constrained.inner import Saddle, open_inner

BE = get_backend("numpy")


def pairs(count, n, seed=0, curvature=1.0):
    """Return steps and changes of gradients of a quadratic with a given smallest curvature."""
    rng = np.random.default_rng(seed)
    R = rng.standard_normal((n, n))
    H = R @ R.T + curvature * np.eye(n)
    S = rng.standard_normal((count, n))
    return H, S, S @ H


def written_out(S, Y):
    """Return damped BFGS as matrices, from the scaled identity of the last pair."""
    B = np.eye(S.shape[1]) * (Y[-1] @ Y[-1]) / (S[-1] @ Y[-1])
    for s, y in zip(S, Y, strict=True):
        B = B - np.outer(B @ s, B @ s) / (s @ B @ s) + np.outer(y, y) / (y @ s)
    return B


def test_bfgs_takes_the_last_step_to_its_change():
    _, S, Y = pairs(6, 4)
    model = open_model("bfgs", 4, be=BE)
    for s, y in zip(S, Y, strict=True):
        model.update(s, y)
    np.testing.assert_allclose(model.B @ S[-1], Y[-1], rtol=1e-10)
    np.testing.assert_allclose(model.B, model.B.T, atol=1e-10)


@pytest.mark.parametrize("name", ["bfgs", "lbfgs"])
@pytest.mark.parametrize("seed", range(5))
def test_damping_keeps_bfgs_positive_definite(name, seed):
    rng = np.random.default_rng(seed)
    model = open_model(name, 5, be=BE)
    for _ in range(20):
        s, y = rng.standard_normal((2, 5))
        Bs = model.B @ s
        model.update(s, y)
        assert np.linalg.eigvalsh(to_dense(model.B, be=BE)).min() > 0
        assert s @ (model.B @ s) >= 0.2 * s @ Bs * (1 - 1e-9)


def test_sr1_recovers_an_indefinite_quadratic():
    H, S, Y = pairs(4, 4, curvature=-4.0)
    assert np.linalg.eigvalsh(H)[0] < 0
    model = open_model("sr1", 4, be=BE)
    for s, y in zip(S, Y, strict=True):
        model.update(s, y)
    np.testing.assert_allclose(model.B, H, atol=1e-7)


def test_sr1_skips_what_would_divide_by_nothing():
    model = open_model("sr1", 2, be=BE)
    model.update(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    before = model.B.copy()
    s = np.array([0.0, 1.0])
    y = before @ s + np.array([1.0, 0.0])
    model.update(s, y)
    np.testing.assert_array_equal(model.B, before)


def test_limited_memory_is_bfgs_of_the_last_pairs():
    _, S, Y = pairs(14, 6)
    model = open_model("lbfgs", 6, be=BE)
    for s, y in zip(S, Y, strict=True):
        model.update(s, y)
    # Where the model overestimated the curvature it learnt a damped change.
    learnt = np.array([y for _, y in model._pairs])
    np.testing.assert_allclose(to_dense(model.B, be=BE), written_out(S[-10:], learnt), atol=1e-8)


@pytest.mark.parametrize("name", ["bfgs", "sr1", "lbfgs"])
def test_no_step_teaches_nothing(name):
    model = open_model(name, 3, be=BE)
    before = to_dense(model.B, be=BE).copy()
    model.update(np.zeros(3), np.zeros(3))
    np.testing.assert_array_equal(to_dense(model.B, be=BE), before)


def test_a_diagonal_of_low_rank_multiplies_like_its_entries():
    rng = np.random.default_rng(1)
    d, U, C = rng.random(5), rng.standard_normal((5, 2)), np.array([[2.0, 1.0], [1.0, -3.0]])
    A, dense, v = LowRank(d, U, C), np.diag(d) + U @ C @ U.T, rng.standard_normal(5)
    np.testing.assert_allclose(A @ v, dense @ v)
    np.testing.assert_allclose(A.T @ v, dense @ v)
    np.testing.assert_allclose(to_dense(add_diagonal(A, v, be=BE), be=BE), dense + np.diag(v))
    padded = np.zeros((7, 7))
    padded[:5, :5] = dense
    np.testing.assert_allclose(to_dense(A.padded(7, be=BE), be=BE), padded)


@pytest.mark.parametrize(("n", "sparse"), [(30, False), (300, False), (300, True), (1300, True)])
def test_direct_solvers_take_a_diagonal_of_low_rank(n, sparse):
    m = 1010 if n > 1000 else 7
    rng = np.random.default_rng(2)
    # One entry in each column next to a few: rows that are independent of each other.
    G = np.eye(m, n) + rng.standard_normal((m, n)) * (rng.random((m, n)) < 1 / m)
    U = rng.standard_normal((n, 4))
    A = LowRank(1 + rng.random(n), U, np.diag([1.0, -1e-3, 2.0, 0.0]))
    K = np.block([[to_dense(A, be=BE), G.T], [G, np.zeros((m, m))]])
    saddle = Saddle(A, sp.csr_matrix(G) if sparse else G, be=BE)
    for name in ("auto", "direct"):
        inner, r = open_inner(name, None), rng.standard_normal(n + m)
        assert inner.factor(saddle)
        solved = inner.solve(r, tol=1e-12)
        np.testing.assert_allclose(solved.d, np.linalg.solve(K, r), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(solved.residual, 0.0, atol=1e-9)


# ---------------------------------------------------------------- within minimize
def circle(**options):
    """Minimise the Rosenbrock function on a disc of radius 1.2, which holds it back."""
    con = NonlinearConstraint(lambda x: [x @ x], -np.inf, 1.44, jac=lambda x: 2 * x[None])
    return constrained.minimize(
        lambda x: (1 - x[0]) ** 2 + 10 * (x[1] - x[0] ** 2) ** 2,
        np.array([-0.5, 0.3]),
        jac=lambda x: np.array(
            [-2 * (1 - x[0]) - 40 * x[0] * (x[1] - x[0] ** 2), 20 * (x[1] - x[0] ** 2)]
        ),
        constraints=con,
        tol=1e-7,
        **options,
    )


class Plain(HessianUpdateStrategy):
    """Powell's symmetric update, by hand."""

    def initialize(self, n, approx_type):
        self.B = np.eye(n)

    def update(self, s, y):
        r = y - self.B @ s
        ss = s @ s
        self.B += (np.outer(r, s) + np.outer(s, r)) / ss - (r @ s) * np.outer(s, s) / ss**2

    def dot(self, p):
        return self.B @ p

    def get_matrix(self):
        return self.B.copy()


@pytest.mark.parametrize("hess", [BFGS(), SR1(), "lbfgs", "bfgs", Plain(), None], ids=str)
@pytest.mark.parametrize("globalization", ["eal", "filter"])
def test_every_model_leads_to_the_same_answer(hess, globalization):
    theirs = vars(hess).copy() if isinstance(hess, HessianUpdateStrategy) else None
    res = circle(hess=hess, globalization=globalization)
    assert res.success, res.message
    assert res.nhev == 0
    # The best of many points of the circle.
    angle = np.linspace(0.0, 2 * np.pi, 1_000_001)
    a, b = 1.2 * np.cos(angle), 1.2 * np.sin(angle)
    best = np.argmin((1 - a) ** 2 + 10 * (b - a**2) ** 2)
    np.testing.assert_allclose(res.x, [a[best], b[best]], atol=1e-4)
    assert res.lam[0] > 0
    if theirs is not None:
        assert vars(hess) == theirs, "the caller's object learns nothing"


def test_many_unknowns_without_second_derivatives_take_limited_memory():
    n = 230
    d = np.linspace(1.0, 3.0, n)
    con = NonlinearConstraint(
        lambda x: [x.sum() + 0.1 * x @ x], 1.0, 1.0, jac=lambda x: (1 + 0.2 * x)[None]
    )
    res = constrained.minimize(
        lambda x: 0.5 * x @ (d * x), np.zeros(n), jac=lambda x: d * x, constraints=con, tol=1e-6
    )
    assert res.success
    assert res.nhev == 0
    assert res.njev < n, "no Hessian by differences"
    assert res.inner == "direct"
    # Stationary: d x + lam (1 + 0.2 x) = 0.
    lam = res.lam[0]
    np.testing.assert_allclose(res.x, -lam / (d + 0.2 * lam), atol=1e-5)
