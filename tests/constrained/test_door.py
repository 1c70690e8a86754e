"""Every way to state a problem: what is called, how often, with what, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from _cupy_standin import run_with_standin
from scipy.optimize import (
    BFGS,
    SR1,
    Bounds,
    LinearConstraint,
    NonlinearConstraint,
    OptimizeResult,
)
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from solvers import constrained
from solvers.constrained._matrices import to_dense
from solvers.constrained._program import pose

A = np.array([[2.0, 0.5, 0.0], [0.5, 3.0, 0.2], [0.0, 0.2, 1.0]])
X0 = np.array([0.9, 0.4, -0.3])


def fun(x):
    return 0.5 * x @ A @ x - x.sum() + 0.1 * x[0] ** 4


def jac(x):
    return A @ x - 1 + np.array([0.4 * x[0] ** 3, 0, 0])


def hess(x):
    return A + np.diag([1.2 * x[0] ** 2, 0, 0])


def sphere(lb=1.0, ub=1.0, **changes):
    """Return the constraint ``lb <= x @ x <= ub``."""
    given = {
        "fun": lambda x: np.array([x @ x]),
        "jac": lambda x: 2 * x[None],
        "hess": lambda x, v: 2 * v[0] * np.eye(3),
        **changes,
    }
    return NonlinearConstraint(given["fun"], lb, ub, jac=given["jac"], hess=given["hess"])


def solve(x0=X0, **changes):
    return constrained.minimize(
        **{"fun": fun, "x0": x0, "jac": jac, "hess": hess, "constraints": sphere(), **changes}
    )


@pytest.fixture(scope="module")
def reference():
    res = solve()
    # First-order conditions with the multiplier that a closed form gives.
    lam = -(res.x @ jac(res.x)) / 2
    np.testing.assert_allclose(jac(res.x) + 2 * lam * res.x, 0, atol=1e-8)
    return res


class Recorder:
    """A function that remembers where it was called."""

    def __init__(self, function):
        self.function, self.points = function, []

    def __call__(self, x, *more):
        self.points.append(x.tobytes())
        return self.function(x, *more)


# ------------------------------------------------------------ calls and counts
def test_no_function_is_called_twice_in_a_row_at_a_point_and_counts_are_of_calls():
    con = sphere()
    f, g, H, c, G, C = map(Recorder, (fun, jac, hess, con.fun, con.jac, con.hess))
    constraint = NonlinearConstraint(c, 1, 1, jac=G, hess=C)
    res = solve(fun=f, jac=g, hess=H, constraints=constraint)
    for recorder in (f, g, c, G):
        assert len(set(recorder.points)) == len(recorder.points)
    assert res.nfev == len(f.points)
    assert res.njev == len(g.points)
    assert res.nhev == len(H.points)
    assert res.ncev == len(c.points)
    assert res.ncjev == len(G.points)
    assert 0 < res.callback_seconds < res.seconds


def test_a_pair_of_value_and_gradient_is_asked_for_once():
    both = Recorder(lambda x: (fun(x), jac(x)))
    res = solve(fun=both, jac=True)
    assert len(set(both.points)) == len(both.points) == res.nfev == res.njev


def test_differences_count_as_the_values_they_are_made_of():
    f, c = Recorder(fun), Recorder(sphere().fun)
    res = solve(fun=f, jac="3-point", constraints=sphere(fun=c, jac="2-point"))
    assert res.nfev == len(f.points)
    assert res.ncev == len(c.points)
    assert res.njev == res.ncjev == 0


def test_of_several_constraints_the_one_that_ran_most_counts():
    line = {"type": "eq", "fun": Recorder(lambda x: x[1] - x[2])}
    res = solve(constraints=[line, sphere()])
    assert res.ncev == len(line["fun"].points)


def test_products_are_counted():
    seen = []

    def hessp(x, p):
        seen.append(p)
        return hess(x) @ p

    res = solve(hess=None, hessp=hessp)
    assert res.success
    assert res.nhvp == len(seen) > 0


def test_products_have_no_effect_beside_a_hessian(reference):
    def hessp(x, p):
        raise AssertionError

    np.testing.assert_array_equal(solve(hessp=hessp).x, reference.x)


def test_linear_rows_call_nothing():
    res = solve(constraints=LinearConstraint(np.ones((1, 3)), 1, 1))
    assert res.success
    assert res.ncev == res.ncjev == 0


def test_functions_that_change_x_do_no_harm(reference):
    def spoiled(function):
        def call(x, *more):
            value = function(x.copy(), *more)
            x[:] = np.nan
            return value

        return call

    con = sphere()
    res = solve(
        fun=spoiled(fun),
        jac=spoiled(jac),
        hess=spoiled(hess),
        constraints=sphere(fun=spoiled(con.fun), jac=spoiled(con.jac), hess=spoiled(con.hess)),
    )
    np.testing.assert_array_equal(res.x, reference.x)


def test_functions_that_reuse_their_output_do_no_harm(reference):
    def buffered(function, shape):
        out = np.zeros(shape)

        def call(x, *more):
            out[...] = function(x, *more)
            return out

        return call

    con = sphere()
    res = solve(
        jac=buffered(jac, 3),
        hess=buffered(hess, (3, 3)),
        constraints=sphere(
            fun=buffered(con.fun, 1),
            jac=buffered(con.jac, (1, 3)),
            hess=buffered(con.hess, (3, 3)),
        ),
    )
    np.testing.assert_array_equal(res.x, reference.x)


def test_a_buffer_that_holds_sparse_entries_may_be_reused():
    G = sp.csr_array(np.ones((1, 3)))

    def reused(x):
        G.data[:] = 2 * x
        return G

    program, x = pose(fun, X0, jac=jac, hess=hess, constraints=sphere(jac=reused))
    first = program.jac(x)
    before = first.toarray()
    program.jac(x + 1)
    np.testing.assert_array_equal(first.toarray(), before)


# ------------------------------------------------------------ what functions return
@pytest.mark.parametrize(
    "to",
    [
        list,
        np.float32,
        lambda v: v.astype(">f8"),
        np.asfortranarray,
        lambda v: np.repeat(v, 2, axis=0)[::2],
        lambda v: v.tolist(),
    ],
    ids=["list", "float32", "big-endian", "Fortran", "strided", "nested list"],
)
def test_values_may_come_in_any_form(to, reference):
    con = sphere()
    res = solve(
        jac=lambda x: to(jac(x)),
        hess=lambda x: to(hess(x)),
        constraints=sphere(fun=lambda x: to(con.fun(x)), jac=lambda x: to(con.jac(x))),
        tol=1e-5,
    )
    np.testing.assert_allclose(res.x, reference.x, atol=1e-4)


@pytest.mark.parametrize(
    "value", [3, np.float32(3), np.array(3), np.array([3.0]), [3.0], True + 2]
)
def test_numbers_may_come_in_any_form(value):
    program, x = pose(lambda x: value, X0, jac=jac)
    assert program.fun(x) == 3.0
    assert type(program.fun(x)) is float


def test_one_row_may_be_a_number_with_a_gradient(reference):
    res = solve(constraints=sphere(fun=lambda x: x @ x, jac=lambda x: 2 * x))
    np.testing.assert_array_equal(res.x, reference.x)


MATRICES = {
    "csr": sp.csr_array,
    "csc": sp.csc_array,
    "coo": sp.coo_array,
    "dia matrix": sp.dia_matrix,
    "operator": aslinearoperator,
}


@pytest.mark.parametrize("form", MATRICES)
def test_matrices_may_come_in_any_form(form):
    to = MATRICES[form]
    con = sphere(jac=lambda x: to(2 * x[None]), hess=lambda x, v: to(2.0 * v[0] * np.eye(3)))
    program, x = pose(fun, X0, jac=jac, hess=lambda x: to(hess(x)), constraints=con)
    G, H = program.jac(x), program.hess(x, np.array([0.7]), 0.5)
    np.testing.assert_allclose(to_dense(G, be=program.be), 2 * x[None])
    np.testing.assert_allclose(to_dense(H, be=program.be), 0.5 * hess(x) + 1.4 * np.eye(3))
    np.testing.assert_allclose(G.T @ np.array([2.0]), 4 * x)


# ------------------------------------------------------------ constraints
def test_a_constraint_may_return_its_jacobian_as_well(reference):
    both = Recorder(lambda x: (x @ x - 1, 2 * x))
    res = solve(constraints={"type": "eq", "fun": both, "jac": True}, hess="bfgs")
    np.testing.assert_allclose(res.x, reference.x, atol=1e-7)
    assert res.ncev == res.ncjev == len(both.points)


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_the_same_however_they_are_cut_and_written(seed):
    rng = np.random.default_rng(seed)
    W, b, lam = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=4)

    def rows(k):
        return {
            "fun": lambda x: np.sin(W[k] @ x),
            "jac": lambda x: np.cos(W[k] @ x)[:, None] * W[k],
            "hess": lambda x, v: -(W[k].T * (v * np.sin(W[k] @ x))) @ W[k],
        }

    def objects(*cuts):
        return [NonlinearConstraint(lb=b[k], ub=b[k], **rows(k)) for k in cuts]

    whole, x = pose(fun, X0, jac=jac, hess=hess, constraints=objects(slice(0, 4)))
    cut, _ = pose(fun, X0, jac=jac, hess=hess, constraints=objects(slice(0, 1), slice(1, 4)))
    for a, b in (
        (whole.lb, cut.lb),
        (whole.cons(x), cut.cons(x)),
        (whole.jac(x), cut.jac(x)),
        (whole.hess(x, lam, 0.3), cut.hess(x, lam, 0.3)),
    ):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    assert [part.stop - part.start for part in cut.parts] == [1, 3]


def test_dictionaries_have_sides_by_type_and_their_own_arguments():
    def above(x, s):
        return s * x - 1.0

    constraints = [
        {"type": "EQ", "fun": lambda x: x[0] - x[1]},
        {"type": "ineq", "fun": above, "jac": lambda x, s: s * np.eye(3), "args": (2.0,)},
    ]
    program, x = pose(fun, X0, jac=jac, hess=hess, constraints=constraints)
    np.testing.assert_array_equal(program.lb, 0)
    np.testing.assert_array_equal(program.ub, [0, np.inf, np.inf, np.inf])
    np.testing.assert_allclose(program.cons(x), [X0[0] - X0[1], *(2 * X0 - 1)])
    np.testing.assert_allclose(program.jac(x)[1:], 2 * np.eye(3))


@pytest.mark.parametrize("to", [np.asarray, sp.csr_array, sp.coo_matrix, np.ndarray.tolist])
def test_linear_constraints_are_dense_or_sparse(to):
    M = np.array([[1.0, 1.0, 1.0], [0.0, 1.0, -1.0]])
    res = solve(constraints=LinearConstraint(to(M), [1.0, 0.0], [1.0, 0.0]))
    exact = solve(constraints={"type": "eq", "fun": lambda x: M @ x - [1, 0], "jac": lambda x: M})
    assert res.success
    np.testing.assert_allclose(res.x, exact.x, atol=1e-7)


def test_no_constraints_may_be_written_as_none_or_nothing():
    want = np.linalg.solve(A, np.ones(3))
    for none in ((), [], None):
        res = constrained.minimize(
            lambda x: 0.5 * x @ A @ x - x.sum(),
            X0,
            jac=lambda x: A @ x - 1,
            hess=lambda x: A,
            constraints=none,
        )
        np.testing.assert_allclose(res.x, want, atol=1e-8)
        assert len(res.lam) == 0


def test_fixed_unknowns_stay_and_leave_the_rest_a_smaller_problem():
    seen = []

    def f(x):
        seen.append(x[1])
        return fun(x)

    bounds = [(None, None), (0.25, 0.25), (-np.inf, np.inf)]
    line = LinearConstraint(np.ones((1, 3)), 1, 1)
    res = solve(fun=f, bounds=bounds, constraints=line)
    assert res.success
    assert set(seen) == {0.25}
    assert res.x[1] == 0.25
    free = [0, 2]
    g = jac(res.x)[free]
    assert abs(g[0] - g[1]) <= 1e-7
    # The bound's multiplier makes up for what is left of its component.
    np.testing.assert_allclose(jac(res.x) + res.lam + res.bound_lam, 0, atol=1e-7)


def test_bounds_mean_the_same_as_objects_and_pairs():
    want = solve(bounds=Bounds([0.5, -np.inf, 0.0], [np.inf, np.inf, 0.4]))
    got = solve(bounds=[(0.5, None), (None, None), (0.0, 0.4)])
    assert want.success
    np.testing.assert_array_equal(got.x, want.x)
    assert want.x[0] >= 0.5 - 1e-8


def test_certify_judges_a_point_as_it_is_also_where_a_bound_would_fix_it():
    x = np.array([0.5, 0.3, 0.2])
    problem = {"jac": jac, "bounds": [(None, None), (0.25, 0.25), (None, None)]}
    certificate = constrained.certify(x, fun, **problem)
    assert certificate.details["violation"] == pytest.approx(0.05)
    with pytest.raises(ValueError, match=r"^`x` contains NaN"):
        constrained.certify([np.nan, 0, 0], fun, **problem)
    with pytest.raises(ValueError, match=r"^`lam` came with shape \(2,\)"):
        constrained.certify(x, fun, jac=jac, constraints=sphere(), lam=[0, 0])


# ------------------------------------------------------------ second derivatives
def test_the_lagrangians_hessian_may_come_whole(reference):
    def whole(x, lam, weight):
        return weight * hess(x) + 2 * lam[0] * np.eye(3)

    res = solve(hess="lagrangian", lagrangian_hess=whole, constraints=sphere(hess=None))
    np.testing.assert_allclose(res.x, reference.x, atol=1e-8)
    assert res.nhev > 0


@pytest.mark.parametrize(
    ("given", "n", "model"),
    [
        ({"hess": lambda x: np.eye(len(x))}, 3, None),
        ({"hessp": lambda x, p: p}, 300, None),
        ({}, 3, "differences"),
        ({}, 201, "lbfgs"),
        ({"jac": None}, 50, "differences"),
        ({"jac": None}, 51, "lbfgs"),
        ({"hess": "2-point"}, 300, "differences"),
        ({"hess": BFGS()}, 3, "bfgs"),
        ({"hess": SR1()}, 3, "sr1"),
        ({"hess": "lbfgs"}, 3, "lbfgs"),
    ],
    ids=str,
)
def test_the_program_tells_how_second_derivatives_come(given, n, model):
    given = {"jac": lambda x: x, **given}
    program, _ = pose(lambda x: 0.5 * x @ x, np.ones(n), **given)
    assert program.model == model


def test_a_constraint_without_curvature_is_differenced_beside_exact_ones():
    program, x = pose(fun, X0, jac=jac, hess=hess, constraints=sphere(hess=None))
    H = program.hess(x, np.array([0.7]))
    assert program.model == "differences"
    np.testing.assert_allclose(H, hess(x) + 1.4 * np.eye(3), atol=1e-8)


# ------------------------------------------------------------ starts
def test_starts_are_taken_as_arrays_of_any_layout_and_left_alone(reference):
    frozen = X0.copy()
    frozen.flags.writeable = False
    for start in (frozen, X0.tolist(), X0.astype(">f8"), np.flip(np.flip(X0).copy())):
        before = np.array(start, dtype=float)
        res = solve(start)
        np.testing.assert_array_equal(res.x, reference.x)
        np.testing.assert_array_equal(np.array(start, dtype=float), before)
        assert res.x.dtype == np.float64


def test_integers_become_floats():
    assert solve([1, 0, 0]).x.dtype == np.float64


def test_single_precision_comes_back_and_is_judged_as_it_is_returned():
    seen = []

    def f(x):
        seen.append(x.dtype)
        return fun(x)

    res = solve(X0.astype(np.float32), fun=f)
    assert res.x.dtype == res.lam.dtype == res.jac.dtype == np.float32
    assert set(seen) == {np.dtype(np.float64)}
    x = res.x.astype(np.float64)
    certificate = constrained.certify(res.x, fun, jac=jac, constraints=sphere())
    assert certificate.details["violation"] == abs(x @ x - 1)
    assert res.constr_violation == abs(x @ x - 1)
    assert res.success


def test_a_result_is_a_start_with_its_multipliers(reference):
    program, x = pose(fun, reference, jac=jac, constraints=sphere())
    np.testing.assert_array_equal(x, reference.x)
    np.testing.assert_array_equal(program.lam0, reference.lam)
    assert solve(reference).nit <= 1
    assert solve(reference.x, lam0=reference.lam.tolist()).nit <= 1
    foreign = OptimizeResult(x=reference.x)
    assert pose(fun, foreign, jac=jac, constraints=sphere())[0].lam0 is None


def test_multipliers_given_win_over_those_of_a_result(reference):
    program, _ = pose(fun, reference, jac=jac, constraints=sphere(), lam0=[5.0])
    np.testing.assert_array_equal(program.lam0, [5.0])


def test_args_go_to_the_objective_and_its_derivatives(reference):
    res = solve(
        fun=lambda x, s, t: s * fun(x) + t,
        jac=lambda x, s, t: s * jac(x),
        hess=lambda x, s, t: s * hess(x),
        args=(2.0, 1.0),
    )
    np.testing.assert_allclose(res.x, reference.x, atol=1e-8)
    assert res.fun == pytest.approx(2 * reference.fun + 1)
    # One that is no tuple counts as one argument.
    assert pose(lambda x, s: s, X0, 4.0, jac=jac)[0].fun(X0) == 4.0


# ------------------------------------------------------------ what is refused
def operator(x):
    return LinearOperator((3, 3), matvec=lambda p: hess(x) @ p, dtype=float)


BAD = {
    "x0 None": ({"x0": None}, TypeError, r"^`x0` came as None"),
    "x0 2-D": ({"x0": np.zeros((2, 2))}, ValueError, r"^`x0` came 2-D"),
    "x0 empty": ({"x0": []}, ValueError, r"^`x0` came empty"),
    "x0 NaN": ({"x0": [np.nan, 0, 0]}, ValueError, r"^`x0` contains NaN"),
    "x0 complex": ({"x0": np.zeros(3, complex)}, TypeError, r"^`x0` came as .* complex128"),
    "x0 words": ({"x0": np.array(["a", "b"])}, TypeError, r"^`x0` came as"),
    "x0 sparse": ({"x0": sp.csr_array(np.ones((1, 3)))}, TypeError, r"^`x0` came as"),
    "fun": ({"fun": 3}, TypeError, r"^`fun` came as int; expected a callable"),
    "fun None": ({"fun": lambda x: None}, TypeError, r"^`fun` returned"),
    "fun vector": ({"fun": lambda x: x}, ValueError, r"^`fun` returned shape \(3,\)"),
    "fun complex": ({"fun": lambda x: 1j}, TypeError, r"^`fun` returned .*complex"),
    "fun NaN": ({"fun": lambda x: np.nan}, ValueError, r"^`fun\(x0\)` is nan"),
    "jac NaN": ({"jac": lambda x: x * np.inf}, ValueError, r"^`jac\(x0\)` contains"),
    "jac": ({"jac": 3}, TypeError, r"^`jac` came as int; expected a callable or one of '2-p"),
    "jac word": ({"jac": "4-point"}, ValueError, r"^`jac` came as '4-point'; expected .*'cs'"),
    "jac shape": ({"jac": lambda x: x[:2]}, ValueError, r"^`jac` returned shape \(2,\).*\(3,\)"),
    "jac pair": ({"jac": True}, TypeError, r"^`fun` returned .* with jac=True"),
    "hess": ({"hess": 3}, TypeError, r"^`hess` came as int"),
    "hess word": ({"hess": "exact"}, ValueError, r"^`hess` came as 'exact'; expected .*'lbfgs'"),
    "hess shape": (
        {"hess": lambda x: np.eye(2)},
        ValueError,
        r"^`hess` returned shape \(2, 2\); expected \(3, 3\)",
    ),
    "hess cs": ({"hess": "cs", "jac": None}, ValueError, r"^`hess` came as 'cs'"),
    "hessp": ({"hess": None, "hessp": 3}, TypeError, r"^`hessp` came as int"),
    "hessp shape": (
        {"hess": None, "hessp": lambda x, p: p[:2]},
        ValueError,
        r"^`hessp` returned shape \(2,\); expected \(3,\)",
    ),
    "lagrangian": ({"hess": "lagrangian"}, ValueError, r"^`lagrangian_hess` came as NoneType"),
    "lagrangian alone": (
        {"lagrangian_hess": lambda x, v, w: A},
        ValueError,
        r"^`lagrangian_hess` .* hess='lagrangian'",
    ),
    "constraint": ({"constraints": [3]}, TypeError, r"^`constraints\[0\]` came as int"),
    "Bounds": ({"constraints": Bounds(0, 1)}, TypeError, r"^`constraints\[0\]` came as .*Bounds"),
    "type": (
        {"constraints": {"type": "le", "fun": fun}},
        ValueError,
        r"^`constraints\[0\]\['type'\]` came as 'le'",
    ),
    "key": (
        {"constraints": {"type": "eq", "fun": fun, "grad": jac}},
        ValueError,
        r"^`constraints\[0\]` has the keys \['grad'\]",
    ),
    "no fun": ({"constraints": {"type": "eq"}}, TypeError, r"^`constraints\[0\]\.fun` came as"),
    "rows' jac": (
        {"constraints": sphere(jac=lambda x: np.zeros((2, 3)))},
        ValueError,
        r"^`constraints\[0\]\.jac` returned shape \(2, 3\); expected \(1, 3\)",
    ),
    "rows' hess": (
        {"constraints": [sphere(), sphere(hess=lambda x, v: np.zeros(3))]},
        ValueError,
        r"^`constraints\[1\]\.hess` returned shape \(3,\); expected \(3, 3\)",
    ),
    "rows 2-D": (
        {"constraints": sphere(fun=lambda x: np.eye(2))},
        ValueError,
        r"^`constraints\[0\]\.fun` returned shape \(2, 2\)",
    ),
    "rows inf": (
        {"constraints": sphere(fun=lambda x: np.array([np.inf]))},
        ValueError,
        r"^`constraints\[0\]\.fun\(x0\)` contains inf",
    ),
    "A": (
        {"constraints": LinearConstraint(np.ones((1, 2)), 1, 1)},
        ValueError,
        r"^`constraints\[0\]\.A` came with shape \(1, 2\); expected \(any, 3\)",
    ),
    "A NaN": (
        {"constraints": LinearConstraint([[1, np.nan, 0]], 1, 1)},
        ValueError,
        r"^`constraints\[0\]\.A` contains entries that are not finite",
    ),
    "A complex": (
        {"constraints": LinearConstraint(sp.csr_array([[1j, 0, 0]]), 1, 1)},
        TypeError,
        r"^`constraints\[0\]\.A` came with dtype complex128",
    ),
    "sides": (
        {"constraints": sphere(lb=[0.0, 1.0])},
        ValueError,
        r"^`constraints\[0\]\.lb` came with shape \(2,\)",
    ),
    "sides NaN": ({"constraints": sphere(ub=np.nan)}, ValueError, r"\.ub` contains NaN"),
    "sides words": ({"constraints": sphere(ub="one")}, ValueError, r"\.ub` came as str"),
    "crossed": (
        {"constraints": sphere(lb=2.0, ub=1.0)},
        ValueError,
        r"^`constraints\[0\]`: lb > ub at row 0",
    ),
    "more rows": (
        {"constraints": LinearConstraint(np.ones((4, 3)), 0, 0)},
        ValueError,
        r"^`constraints`: m=4 > n=3",
    ),
    "more rows than free": (
        {
            "constraints": LinearConstraint(np.ones((3, 3)), 0, 0),
            "bounds": [(0, 0), (None, None), (None, None)],
        },
        ValueError,
        r"^`constraints`: m=3 > n=2",
    ),
    "bounds": ({"bounds": 3}, TypeError, r"^`bounds` came as int"),
    "bounds length": ({"bounds": [(0, 1)]}, ValueError, r"^`bounds` came with 1 pairs"),
    "bounds triple": ({"bounds": [(0, 1, 2)] * 3}, ValueError, r"^`bounds` came as list"),
    "bounds crossed": ({"bounds": [(1, 0)] * 3}, ValueError, r"^`bounds`: lb > ub at x\[0\]"),
    "lam0": ({"lam0": [0.0, 0.0]}, ValueError, r"^`lam0` came with shape \(2,\); expected .*\(1,"),
    "inequality": (
        {"constraints": sphere(lb=0.0), "inequalities": "error"},
        ValueError,
        r"^`inequalities` came as 'error'",
    ),
    "bound": ({"bounds": [(0, 1)] * 3, "inequalities": "error"}, ValueError, r"^`inequalities`"),
    "inequalities": ({"inequalities": "luck"}, ValueError, r"^`inequalities` .*'squared-slack'"),
    "theta": ({"theta": 0.0}, ValueError, r"^`theta` came as 0.0"),
    "theta word": ({"theta": "fast"}, ValueError, r"^`theta` came as 'fast'"),
    "eta": ({"eta": 3.0}, ValueError, r"^`eta` came as 3.0; expected a pair"),
    "eta negative": ({"eta": (1.0, -1.0)}, ValueError, r"^`eta` came as -1.0"),
    "scaling": ({"scaling": "luck"}, ValueError, r"^`scaling` came as 'luck'"),
    "tol": ({"tol": 0.0}, ValueError, r"^`tol`"),
    "maxiter": ({"maxiter": -1}, ValueError, r"^`maxiter`"),
    "method": ({"method": "luck"}, ValueError, r"^`method` .*'eal-newton'"),
    "inner": ({"inner": "luck"}, ValueError, r"^`inner` .*'direct'"),
    "globalization": ({"globalization": "luck"}, ValueError, r"^`globalization` .*'filter'"),
    "accuracy": ({"accuracy": "luck"}, ValueError, r"^`accuracy` .*'paper'"),
    "preconditioner": ({"preconditioner": 3}, TypeError, r"^`preconditioner` came as int"),
    "least_squares": ({"least_squares": 1}, TypeError, r"^`least_squares` came as int"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name):
    changes, error, message = BAD[name]
    with pytest.raises(error, match=message):
        solve(**changes)


def test_inequalities_that_are_none_pass_the_strict_option(reference):
    free = sphere(lb=-np.inf, ub=np.inf)
    bounds = [(-np.inf, None)] * 3
    res = solve(constraints=[sphere(), free], bounds=bounds, inequalities="error")
    np.testing.assert_allclose(res.x, reference.x, atol=1e-8)


@pytest.mark.parametrize("which", ["fun", "jac", "hess"])
def test_exceptions_of_the_caller_come_through(which):
    class OwnError(Exception):
        pass

    def broken(x):
        raise OwnError

    with pytest.raises(OwnError):
        solve(**{which: broken})


def test_importing_the_family_is_cheap():
    import subprocess
    import sys

    code = (
        "import sys, solvers.constrained; "
        "print([m for m in ('numba', 'scipy.optimize', 'scipy.sparse') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_door_opens_for_device_arrays():
    run_with_standin(Path(__file__).parent / "door_on_device.py")
