"""Sets and coupled lower levels on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import bilevel
from solvers._core.backend import get_backend
from tests.bilevel.oracles import CoupledQP, WeightedSvm

host = get_backend("cupy").host


def on_device(fun):
    """Return a level of NumPy's as one of CuPy's."""

    def moved(x, y):
        value, gx, gy = fun(np.asarray(host(x)), np.asarray(host(y)))
        return value, cupy.asarray(gx), cupy.asarray(gy)

    return moved


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


@pytest.mark.parametrize("options", [{"X": bilevel.ball(0.2)}, {"curved": True}])
def test_a_coupled_problem_has_the_solution_of_the_host(options):
    problem = CoupledQP(0)
    options = dict(options)
    rows = bilevel.Affine(problem.Ax, problem.Ay, problem.b)
    wanted = bilevel.lvhba(
        problem.upper, problem.lower, rows, problem.x0, problem.y0, X=options.get("X"), tol=1e-4
    )
    if options.pop("curved", False):
        Ax, Ay, b = map(cupy.asarray, (problem.Ax, problem.Ay, problem.b))

        def rows(x, y):
            return Ax @ x + Ay @ y - b, lambda w: (w @ Ax, w @ Ay)

    res = bilevel.lvhba(
        on_device(problem.upper),
        on_device(problem.lower),
        rows,
        cupy.asarray(problem.x0),
        cupy.asarray(problem.y0),
        tol=1e-4,
        **options,
    )
    assert isinstance(res.multipliers, cupy.ndarray)
    np.testing.assert_allclose(host(res.x), wanted.x, atol=1e-4)


def test_slacks_of_their_own_are_left_out_on_the_device_too():
    svm = WeightedSvm(0, n=10)
    A, b = svm.Ay, svm.b
    v = np.linspace(-1, 1, A.shape[1])
    p = bilevel.polyhedron(A, b).project(cupy.asarray(v))
    np.testing.assert_allclose(host(p), bilevel.polyhedron(A, b).project(v), atol=1e-12)
