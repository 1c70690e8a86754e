"""Methods on problems whose arrays are CuPy's; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest
from scipy.optimize import Bounds, NonlinearConstraint

from solvers import ConvergenceWarning, Status, constrained
from solvers._core.backend import get_backend

host = get_backend("cupy").host
RNG = np.random.default_rng(0)
W, A, XS = RNG.standard_normal((6, 6)), RNG.standard_normal((2, 6)), RNG.standard_normal(6)
Q = W @ W.T + np.eye(6)
LAM = np.array([0.5, -1.0])


def quadratic():
    """A quadratic programme on the device with the solution XS and the multipliers LAM."""
    q, a, xs = cupy.asarray(Q), cupy.asarray(A), cupy.asarray(XS)
    pull = a.T @ cupy.asarray(LAM)
    con = NonlinearConstraint(
        lambda x: a @ (x - xs),
        0.0,
        0.0,
        jac=lambda x: a,
        hess=lambda x, v: cupy.zeros((6, 6)),
    )
    return {
        "fun": lambda x: 0.5 * (x - xs) @ q @ (x - xs) - pull @ (x - xs),
        "x0": cupy.zeros(6),
        "jac": lambda x: q @ (x - xs) - pull,
        "hess": lambda x: q,
        "constraints": con,
    }


def system(c, jac, x0, n):
    con = NonlinearConstraint(c, 0.0, 0.0, jac=jac, hess=lambda x, v: cupy.zeros((n, n)))
    return {
        "fun": lambda x: 0.0,
        "x0": cupy.asarray(x0),
        "jac": cupy.zeros_like,
        "hess": lambda x: cupy.zeros((n, n)),
        "constraints": con,
    }


@pytest.mark.parametrize("method", ["sqp-direct", "gmres-l1", "gmres-l1-tests", "auglag"])
@pytest.mark.parametrize("bounds", [None, Bounds(-10.0, 10.0)])
def test_methods_stay_on_the_device(method, bounds, device):
    res = constrained.minimize(**quadratic(), bounds=bounds, method=method, tol=1e-6)
    assert res.success
    assert isinstance(res.x, cupy.ndarray)
    np.testing.assert_allclose(host(res.x), XS, atol=1e-5)
    np.testing.assert_allclose(host(res.lam), LAM, atol=1e-4)


def test_equations_stay_on_the_device(device):
    q = cupy.asarray(Q)
    res = constrained.minimize(
        **system(lambda x: q @ x + x**3 - 1, lambda x: q + cupy.diag(3 * x**2), XS, 6)
    )
    assert res.success
    x = host(res.x)
    np.testing.assert_allclose(Q @ x + x**3, 1.0, atol=1e-8)


def test_fits_stay_on_the_device(device):
    a, b = cupy.asarray(A.T), cupy.asarray(XS)
    res = constrained.minimize(
        **system(lambda x: a @ x - b, lambda x: a, np.zeros(2), 2), least_squares=True
    )
    assert res.success
    np.testing.assert_allclose(host(res.x), np.linalg.lstsq(A.T, XS, rcond=None)[0], atol=1e-8)


def test_infeasibility_is_seen_on_the_device(device):
    keywords = system(
        lambda x: cupy.stack([x @ x + 1.0]), lambda x: 2 * x[None], np.array([1.0, 0.7]), 2
    )
    con = keywords["constraints"]
    keywords["constraints"] = NonlinearConstraint(
        con.fun, 0.0, 0.0, jac=con.jac, hess=lambda x, v: 2 * v[0] * cupy.eye(2)
    )
    with pytest.warns(ConvergenceWarning):
        res = constrained.minimize(**keywords)
    assert res.status == Status.INFEASIBLE
