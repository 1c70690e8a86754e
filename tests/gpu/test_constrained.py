"""Constrained problems of CuPy arrays on a real device, against the host."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import LinearConstraint, NonlinearConstraint

from solvers import constrained
from solvers._core.backend import get_backend

pytestmark = pytest.mark.gpu


@pytest.fixture
def xp():
    return get_backend("cupy").xp


def posed(xp, n=6):
    """Return a start and keywords of a curved problem, the same for both kinds of arrays."""
    target = xp.linspace(0.5, 2.0, n)
    sphere = NonlinearConstraint(
        lambda x: (x * x).sum(), 1, 1, jac=lambda x: 2 * x, hess=lambda x, v: 2 * v[0] * xp.eye(n)
    )
    given = {
        "fun": lambda x: ((x - target) ** 4).sum(),
        "jac": lambda x: 4 * (x - target) ** 3,
        "hess": lambda x: xp.diag(12 * (x - target) ** 2),
        "constraints": [sphere],
    }
    return xp.full(n, 0.3), given


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"jac": None, "hess": None},
        {"jac": "cs"},
        {"hess": "lbfgs"},
        {"bounds": [(0, 0.5)] * 6},
        {"bounds": [(None, None)] * 5 + [(0.2, 0.2)]},
        {"inner": "minres"},
        {"inner": "pcg"},
    ],
    ids=str,
)
def test_problems_are_solved_as_on_the_host(xp, changes):
    (x0, ours), (y0, theirs) = posed(np), posed(xp)
    want = constrained.minimize(x0=x0, **{**ours, **changes})
    got = constrained.minimize(x0=y0, **{**theirs, **changes})
    assert got.success
    for name in ("x", "lam", "bound_lam", "jac"):
        assert isinstance(getattr(got, name), xp.ndarray)
    np.testing.assert_allclose(got.x.get(), want.x, atol=1e-6)


def test_sparse_problems_stay_sparse_on_the_device(xp):
    sparse, n = get_backend("cupy").sparse, 200
    A = sp.random_array((20, n), density=0.05, rng=np.random.default_rng(0)) + sp.eye_array(20, n)
    b = np.asarray(A @ np.ones(n))
    res = constrained.minimize(
        lambda x: 0.5 * (x @ x),
        xp.zeros(n),
        jac=lambda x: x,
        hess=lambda x: sparse.identity(n, format="csr"),
        constraints=LinearConstraint(A, b, b),
    )
    assert res.success
    want = A.T @ np.linalg.solve((A @ A.T).toarray(), b)
    np.testing.assert_allclose(res.x.get(), want, atol=1e-8)


def test_single_precision_comes_back(xp):
    x0, given = posed(xp)
    res = constrained.minimize(x0=x0.astype(np.float32), tol=1e-4, **given)
    assert res.success
    assert res.x.dtype == np.float32
