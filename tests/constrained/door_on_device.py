"""Problems whose arrays are CuPy's; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest
import scipy.sparse as sp
from cupyx.scipy.sparse import csr_matrix
from scipy.optimize import LinearConstraint, NonlinearConstraint

from solvers import constrained
from solvers._core.backend import get_backend
from solvers.constrained._program import check_start, pose

host = get_backend("cupy").host
X0 = np.array([0.9, 0.4, -0.3])
A = np.array([[1.0, 2.0, 3.0]])


def fun(x):
    return (x * x * x).sum()


def jac(x):
    return 3 * x * x


def hess(x):
    return 6 * x * cupy.eye(3)


SPHERE = NonlinearConstraint(
    lambda x: (x * x).sum(), 1, 1, jac=lambda x: 2 * x, hess=lambda x, v: 2 * v[0] * cupy.eye(3)
)


def posed(**given):
    x0 = cupy.asarray(X0)
    constraints = [SPHERE, LinearConstraint(A, 0, np.inf)]
    return pose(fun, x0, **{"jac": jac, "hess": hess, "constraints": constraints, **given})


def test_all_values_and_derivatives_are_on_the_device(device):
    program, x = posed(lam0=[0.5, 0.0], bounds=[(0, 1), (None, None), (-1, 1)])
    check_start(program, x)
    assert program.fun(x) == pytest.approx((X0**3).sum())
    for got, want in (
        (program.grad(x), 3 * X0**2),
        (program.cons(x), [X0 @ X0, *(A @ X0)]),
        (program.jac(x), [2 * X0, A[0]]),
        (program.hess(x, program.lam0, 2.0), np.diag(12 * X0) + np.eye(3)),
        (program.lb, [1, 0]),
        (program.lo, [0, -np.inf, -1]),
    ):
        assert type(got) is cupy.ndarray
        np.testing.assert_allclose(host(got), want)


@pytest.mark.parametrize("scheme", ["2-point", "3-point"])
def test_differences_are_taken_on_the_device(device, scheme):
    rows = NonlinearConstraint(lambda x: cupy.stack([x[0] * x[1], x[2]]), 0, 0, jac=scheme)
    program, x = posed(jac=scheme, hess=None, constraints=rows, bounds=[(0, None)] * 2 + [(-9, 9)])
    np.testing.assert_allclose(host(program.grad(x)), 3 * X0**2, atol=1e-6)
    np.testing.assert_allclose(host(program.jac(x)), [[X0[1], X0[0], 0], [0, 0, 1]], atol=1e-6)
    H = program.hess(x, cupy.asarray([0.5, 0.0]))
    want = np.diag(6 * X0)
    want[0, 1] = want[1, 0] = 0.5
    np.testing.assert_allclose(host(H), want, atol=1e-2)


def test_points_are_compared_where_they_are(device):
    calls = []

    def counted(x):
        calls.append(1)
        return fun(x)

    program, x = pose(counted, cupy.asarray(X0), jac=jac)
    for point in (x, x.copy(), x + 1, x + 1, x):
        program.fun(point)
    assert len(calls) == 3


def test_sparse_matrices_are_taken_on_the_device_and_copied(device):
    G = csr_matrix(cupy.asarray(A))
    rows = NonlinearConstraint(lambda x: cupy.stack([x[0]]), 0, 0, jac=lambda x: G)
    program, x = posed(constraints=[rows], hess=lambda x: csr_matrix(hess(x)))
    found = program.jac(x)
    assert type(found) is csr_matrix
    G.data[:] = 0
    np.testing.assert_array_equal(host(found.toarray()), A)
    H = program.hess(x, cupy.zeros(1))
    np.testing.assert_allclose(
        host(H.toarray()) if hasattr(H, "toarray") else host(H), np.diag(6 * X0)
    )


def test_linear_constraints_move_to_the_device(device):
    program, x = posed(constraints=LinearConstraint(sp.csr_array(A), 0, 0))
    assert type(program.jac(x)) is csr_matrix
    np.testing.assert_allclose(host(program.cons(x)), A @ X0)


def test_host_and_device_do_not_mix(device):
    program, x = posed(jac=lambda x: np.ones(3))
    with pytest.raises(TypeError, match=r"^`jac` returned a numpy array .*mixed array namespaces"):
        program.grad(x)
    program, x = posed(hess=lambda x: sp.csr_array(np.eye(3)))
    with pytest.raises(TypeError, match=r"^`hess` returned .*mixed array namespaces"):
        program.hess(x, cupy.zeros(2))
    program, _ = pose(lambda x: 1.0, X0, jac=lambda x: cupy.ones(3))
    with pytest.raises(TypeError, match=r"^`jac` .*cupy.*"):
        program.grad(X0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"jac": None, "hess": None},
        {"hess": None, "hessp": lambda x, p: 6 * x * p},
        {"bounds": [(-1, 1)] * 3},
        {"bounds": [(None, None), (0.4, 0.4), (None, None)]},
        {"constraints": [SPHERE, LinearConstraint(A, -5, np.inf)]},
    ],
    ids=["exact", "differences", "products", "bounds", "fixed", "inequality"],
)
def test_problems_are_solved_as_on_the_host(device, changes):
    given = {"jac": jac, "hess": hess, "constraints": [SPHERE], **changes}
    res = constrained.minimize(fun, cupy.asarray(X0), tol=1e-6, **given)
    assert res.success
    for name in ("x", "lam", "bound_lam", "jac"):
        assert type(getattr(res, name)) is cupy.ndarray
    x, lam, bound = host(res.x), host(res.lam), host(res.bound_lam)
    slope = 3 * x**2 + 2 * lam[0] * x + bound + (A[0] * lam[1] if len(lam) > 1 else 0)
    assert abs(slope).max() <= 1e-5
    assert abs(x @ x - 1) <= 1e-6
