"""`scipy.optimize.minimize(method=scipy_method)` does what `minimize` does."""

import numpy as np
import pytest
import scipy.optimize as so

from solvers import constrained

X0 = np.array([1.0, 2.0, -0.5])
CENTRE = np.array([0.5, -1.0, 2.0])
CIRCLE = so.NonlinearConstraint(
    lambda x: x @ x, 1, 1, jac=lambda x: 2 * x, hess=lambda x, v: 2 * v[0] * np.eye(3)
)


def fun(x):
    return (x - CENTRE) @ (x - CENTRE)


def jac(x):
    return 2 * (x - CENTRE)


def hess(x):
    return 2 * np.eye(3)


def solve(**changes):
    given = {"fun": fun, "x0": X0, "jac": jac, "hess": hess, "constraints": CIRCLE, **changes}
    return so.minimize(method=constrained.scipy_method, **given)


def test_the_result_is_that_of_minimize():
    want = constrained.minimize(fun, X0, jac=jac, hess=hess, constraints=CIRCLE)
    res = solve()
    assert isinstance(res, constrained.ConstrainedResult)
    np.testing.assert_array_equal(res.x, want.x)
    np.testing.assert_allclose(res.x, CENTRE / np.linalg.norm(CENTRE), atol=1e-8)
    assert (res.nit, res.nfev, res.njev, res.nhev) == (want.nit, want.nfev, want.njev, want.nhev)


@pytest.mark.parametrize(
    "changes",
    [
        {"jac": None, "hess": None},
        {"fun": lambda x: (fun(x), jac(x)), "jac": True},
        {"hess": None, "hessp": lambda x, p: 2 * p},
        {"hess": so.BFGS()},
        {"constraints": [CIRCLE, so.LinearConstraint(np.eye(3), -9, 9)]},
        {"constraints": {"type": "eq", "fun": lambda x: x @ x - 1}},
        {"bounds": [(-5, 5), (None, None), (-5, None)]},
        {"bounds": so.Bounds(-5, 5)},
        {"x0": [1, 2, 1]},
        {"fun": lambda x, s: s * fun(x), "jac": lambda x, s: s * jac(x),
         "hess": lambda x, s: s * hess(x), "args": 3.0},
    ],
    ids=["values", "pair", "products", "BFGS", "two", "dictionary", "pairs", "Bounds", "list",
         "args"],
)  # fmt: skip
def test_all_that_scipy_passes_on_is_taken(changes):
    res = solve(**changes)
    assert res.success
    np.testing.assert_allclose(res.x, CENTRE / np.linalg.norm(CENTRE), atol=1e-5)


def test_the_tolerance_comes_either_way():
    for res in (solve(tol=1e-3), solve(options={"tol": 1e-3})):
        assert res.certificate.details["tol"] == 1e-3
        assert res.nit < solve(tol=1e-10).nit


def test_options_are_those_of_minimize():
    assert solve(options={"inner": "direct", "history": False}).history == {}
    with pytest.raises(TypeError, match=r"^`options` holds 'disp'"):
        solve(options={"disp": True})


def test_callbacks_may_be_written_in_both_of_scipys_ways():
    states, points = [], []

    def new_style(intermediate_result):
        states.append(intermediate_result)

    solve(callback=new_style)
    solve(callback=points.append)
    assert len(states) == len(points) == solve().nit
    for state, x in zip(states, points, strict=True):
        np.testing.assert_array_equal(state.x, x)
        assert x.flags.writeable


def test_a_callback_ends_the_run():
    def stop(xk):
        raise StopIteration

    res = solve(callback=stop)
    assert res.nit == 1
    assert res.status == 4
    with pytest.raises(TypeError, match=r"^`callback` came as int"):
        solve(callback=3)
