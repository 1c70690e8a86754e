"""Krylov solvers, Newton's method and Fisher matrices with CuPy's arrays; for the stand-in."""

from types import SimpleNamespace

import cupy
import numpy as np
import pytest
from scipy.optimize import NonlinearConstraint

from solvers import constrained
from solvers._core.backend import get_backend
from solvers.constrained.inner import Saddle, open_inner
from solvers.constrained.inner._projection import open_projection
from solvers.linalg import EmpiricalFisher, conjugate_directions
from solvers.newton import gns_newton

BE = get_backend("cupy")
RNG = np.random.default_rng(0)
W, G = RNG.standard_normal((9, 9)), RNG.standard_normal((3, 9))
B, R = W @ W.T + np.eye(9), RNG.standard_normal(12)
OPTIONS = SimpleNamespace(preconditioner=None, maxiter_inner=None, deadline=lambda: False)


@pytest.mark.parametrize("name", ["pcg", "minres", "gmres"])
def test_krylov_solvers_stay_on_the_device(device, name):
    saddle = Saddle(cupy.asarray(B), cupy.asarray(G), be=BE)
    inner = open_inner(name, OPTIONS)
    inner.factor(saddle)
    solved = inner.solve(cupy.asarray(R), tol=1e-9)
    assert type(solved.d) is cupy.ndarray
    K = np.block([[B, G.T], [G, np.zeros((3, 3))]])
    np.testing.assert_allclose(BE.host(solved.d), np.linalg.solve(K, R), atol=1e-6)


def test_projections_take_dependent_rows_on_the_device(device):
    A = np.vstack([G, G[0]])
    onto, v = open_projection(cupy.asarray(A), be=BE), RNG.standard_normal(9)
    P = np.eye(9) - np.linalg.pinv(A) @ A
    np.testing.assert_allclose(BE.host(onto.kernel(cupy.asarray(v))), P @ v, atol=1e-10)


def test_products_alone_lead_to_an_answer_on_the_device(device):
    H, c = cupy.asarray(B), cupy.asarray(R[:9])
    ball = NonlinearConstraint(
        lambda x: (x * x).sum(),
        1,
        1,
        jac=lambda x: 2 * x,
        hess=lambda x, v: 2 * v[0] * cupy.eye(9),
    )
    res = constrained.minimize(
        lambda x: 0.5 * (x @ (H @ x)) + c @ x,
        cupy.asarray(np.ones(9) / 3),
        jac=lambda x: H @ x + c,
        hessp=lambda x, v: H @ v,
        constraints=ball,
        inner="pcg",
    )
    assert res.success
    assert type(res.x) is cupy.ndarray
    x, lam = BE.host(res.x), BE.host(res.lam)
    assert abs(B @ x + R[:9] + 2 * lam[0] * x).max() <= 1e-8


@pytest.mark.parametrize("approx", ["exact", "fisher"])
def test_newton_runs_on_the_device(device, approx):
    H = cupy.asarray(B if approx == "exact" else W)
    P = B if approx == "exact" else W.T @ W / 9
    D = cupy.asarray(P)
    res = gns_newton(
        lambda x: 0.5 * (x @ (D @ x)),
        cupy.asarray(R[:9]),
        jac=lambda x: D @ x,
        hess=lambda x: H,
        approx=approx,
        tol=1e-7,
    )
    assert res.success
    assert type(res.x) is cupy.ndarray
    assert abs(P @ BE.host(res.x)).max() <= 1e-7


def test_fisher_matrices_and_conjugate_directions_run_on_the_device(device):
    F, v = EmpiricalFisher(cupy.asarray(G), damp=0.1), cupy.asarray(R[:9])
    D = 0.1 * np.eye(9) + G.T @ G / 3
    np.testing.assert_allclose(BE.host(F.solve(v)), np.linalg.solve(D, R[:9]), atol=1e-10)
    other = np.linalg.solve(D + 0.2 * np.eye(9), R[:9])
    np.testing.assert_allclose(BE.host(F.solve(v, damp=0.3)), other, atol=1e-10)
    np.testing.assert_allclose(BE.host(F.inv_diagonal()), np.diag(np.linalg.inv(D)), atol=1e-10)
    F.update(v)
    E = 0.1 * np.eye(9) + (G[1:].T @ G[1:] + np.outer(R[:9], R[:9])) / 3
    np.testing.assert_allclose(BE.host(F @ v), E @ R[:9], atol=1e-10)
    assert F.inv_element(1, 2) == pytest.approx(np.linalg.inv(E)[1, 2])
    res = conjugate_directions(cupy.asarray(B), v)
    assert type(res.x) is cupy.ndarray
    np.testing.assert_allclose(BE.host(res.x), np.linalg.solve(B, R[:9]), atol=1e-6)
