"""Sets and coupled lower levels on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import ConvergenceWarning, bilevel
from solvers._core.backend import get_backend
from tests.bilevel.oracles import CoupledQP, WeightedSvm

host = get_backend("cupy").host
BALL = bilevel.ball(0.2)


def on_device(fun):
    """Return a level of NumPy's as one of CuPy's."""

    def moved(x, y):
        value, gx, gy = fun(np.asarray(host(x)), np.asarray(host(y)))
        return value, cupy.asarray(gx), cupy.asarray(gy)

    return moved


def as_callable(Ax, Ay, b):
    """Return affine rows as a function that could be anything."""
    return lambda x, y: (Ax @ x + Ay @ y - b, lambda w: (w @ Ax, w @ Ay))


@pytest.mark.parametrize(
    "a_set",
    [
        bilevel.box(-0.3, 0.4),
        bilevel.simplex(2.0),
        bilevel.ball(0.7, np.ones(6)),
        bilevel.l1_ball(1.3),
        bilevel.affine(np.ones((1, 6)), [1.0]),
        bilevel.polyhedron(np.r_[np.eye(6), np.ones((2, 6))], np.full(8, 0.2)),
    ],
)
def test_a_set_projects_as_on_the_host(a_set):
    v = np.linspace(-2, 3, 6)
    p = a_set.project(cupy.asarray(v))
    assert isinstance(p, cupy.ndarray)
    np.testing.assert_allclose(host(p), a_set.project(v), atol=1e-12)


@pytest.mark.parametrize("curved", [False, True])
def test_a_coupled_problem_goes_the_way_of_the_host(curved):
    problem, ends = CoupledQP(0), []
    for xp in (np, cupy):
        parts = [xp.asarray(part) for part in (problem.Ax, problem.Ay, problem.b)]
        rows, X = (as_callable(*parts), None) if curved else (bilevel.Affine(*parts), BALL)
        levels = problem.upper, problem.lower
        levels = levels if xp is np else map(on_device, levels)
        starts = map(xp.asarray, (problem.x0, problem.y0))
        with pytest.warns(ConvergenceWarning):
            res = bilevel.lvhba(*levels, rows, *starts, X=X, maxiter=12)
        assert isinstance(res.multipliers, xp.ndarray)
        ends.append(res)
    one, other = ends
    np.testing.assert_allclose(host(other.x), one.x, atol=1e-6)
    np.testing.assert_allclose(host(other.multipliers), one.multipliers, atol=1e-5)


def test_slacks_of_their_own_are_left_out_on_the_device_too():
    svm = WeightedSvm(0, n=10)
    A, b = svm.Ay, svm.b
    v = np.linspace(-1, 1, A.shape[1])
    p = bilevel.polyhedron(A, b).project(cupy.asarray(v))
    np.testing.assert_allclose(host(p), bilevel.polyhedron(A, b).project(v), atol=1e-12)
