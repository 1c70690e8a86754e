"""Quadratics: every method against linear algebra and enumeration, and honest ends."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import ConvergenceWarning, Status, bcd
from tests.bcd import oracles


def drawn(seed=0, N=6, rank=None, shift=0.1):
    rng = np.random.default_rng(seed)
    R = rng.standard_normal((N, rank or N))
    return R @ R.T + shift * np.eye(N), rng.standard_normal(N)


@pytest.mark.parametrize("method", ["auto", "cholesky", "cg", "cd", "sor", "bcd", "active_set"])
@pytest.mark.parametrize("sparse", [False, True])
def test_every_method_solves_a_linear_system(method, sparse):
    A, b = drawn()
    if method == "cholesky" and sparse:
        with pytest.raises(ValueError, match="`method` came as 'cholesky'"):
            bcd.quadratic(sp.csr_array(A), b, method=method)
        return
    res = bcd.quadratic(sp.csr_array(A) if sparse else A, b, method=method, tol=1e-11)
    assert res.success
    np.testing.assert_allclose(res.x, np.linalg.solve(A, b), atol=1e-9)
    assert res.fun == pytest.approx(-0.5 * b @ res.x, rel=1e-10)


@pytest.mark.parametrize("method", ["auto", "bcd", "cd", "active_set"])
def test_bounds_against_enumeration(method):
    for seed in range(10):
        A, b = drawn(seed, N=5)
        rng = np.random.default_rng(seed)
        lo, hi = -0.3 * rng.random(5), 0.3 * rng.random(5)
        x, fun = oracles.enumerate_box(A, b, lo, hi)
        res = bcd.quadratic(A, b, bounds=(lo, hi), method=method, tol=1e-11)
        assert res.success
        assert res.fun == pytest.approx(fun, abs=1e-10)
        np.testing.assert_allclose(res.x, x, atol=1e-7)


@pytest.mark.parametrize("method", ["auto", "bcd", "cd", "active_set"])
def test_absolute_values_against_enumeration(method):
    for seed in range(5):
        A, b = drawn(seed, N=4)
        x, fun = oracles.enumerate_faces(A, b, 0.4)
        res = bcd.quadratic(A, b, l1=0.4, method=method, tol=1e-11)
        assert res.fun == pytest.approx(fun, abs=1e-10)
        np.testing.assert_allclose(res.x, x, atol=1e-7)


def test_over_relaxation_in_a_box_agrees_and_saves_sweeps():
    N = 60
    A = sp.diags_array([[-1.0] * (N - 1), [2.0] * N, [-1.0] * (N - 1)], offsets=[-1, 0, 1])
    A, b = sp.csr_array(A), np.ones(N)
    for bounds in ((-np.inf, np.inf), (0.0, 200.0)):
        options = {"bounds": bounds, "tol": 1e-8, "check_every": 1, "maxiter": 10**5}
        plain = bcd.quadratic(A, b, method="cd", **options)
        fast = bcd.quadratic(A, b, method="sor", relaxation=1.9, **options)
        np.testing.assert_allclose(fast.x, plain.x, atol=1e-3)
        assert fast.success
        assert fast.nit < 0.3 * plain.nit


def test_large_boxes_are_solved_in_few_working_sets():
    A, b = drawn(3, N=300)
    res = bcd.quadratic(A, b, bounds=(0.0, np.inf), tol=1e-11)
    g = A @ res.x - b
    assert np.abs(np.where(res.x > 0, g, np.minimum(g, 0.0))).max() <= 1e-9
    assert res.used == {"method": "active_set"}
    assert res.nit < 30
    assert (np.diff(res.history["fun"]) <= 1e-12 * abs(res.fun)).all()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("method", ["auto", "cg"])
def test_singular_systems_have_answers_or_no_lower_bound(sparse, method):
    A, b = drawn(1, rank=3, shift=0.0)
    data = sp.csr_array(A) if sparse else A
    res = bcd.quadratic(data, A @ b, method=method)
    assert res.success
    np.testing.assert_allclose(A @ res.x, A @ b, atol=1e-6)
    with pytest.warns(ConvergenceWarning, match="no lower bound"):
        res = bcd.quadratic(data, b, method=method)
    assert res.status is Status.UNBOUNDED
    assert np.isfinite(res.x).all()


@pytest.mark.parametrize("method", ["auto", "cg", "cd", "bcd", "active_set"])
def test_single_precision(method):
    # Rounding the unknowns alone leaves a violation of their precision times the condition.
    A, b = drawn(4, shift=5.0)
    res = bcd.quadratic(A.astype(np.float32), b.astype(np.float32), method=method)
    assert res.success
    assert res.x.dtype == np.float32


@pytest.mark.parametrize("method", ["auto", "cg", "cd", "bcd", "active_set"])
def test_solved_starts_are_left_alone_and_others_used(method):
    A, b = drawn(5)
    first = bcd.quadratic(A, b, method=method, tol=1e-10)
    assert bcd.quadratic(A, b, method=method, x0=first).nit == 0
    assert bcd.quadratic(A, b, method=method, x0=first.x).nit == 0


def test_default_method_follows_the_problem():
    A, b = drawn()
    assert bcd.quadratic(A, b).used == {"method": "cholesky"}
    assert bcd.quadratic(sp.csr_array(A), b).used == {"method": "cg"}
    assert bcd.quadratic(A, b, l1=0.1).used == {"method": "active_set"}
    assert bcd.quadratic(A, b, update="gradient").used["update"] == "gradient"


BAD = [
    ({"method": "nonsense"}, ValueError, "method"),
    ({"method": "cg", "l1": 0.1}, ValueError, "method"),
    ({"method": "cholesky", "bounds": (0, 1)}, ValueError, "method"),
    ({"method": "sor", "l1": 0.1}, ValueError, "method"),
    ({"relaxation": 2.0}, ValueError, "relaxation"),
    ({"relaxation": 0.0}, ValueError, "relaxation"),
    ({"relaxation": "1"}, TypeError, "relaxation"),
    ({"l1": -1.0}, ValueError, "l1"),
    ({"bounds": (1.0, 0.0)}, ValueError, "bounds"),
    ({"bounds": 3.0}, TypeError, "bounds"),
    ({"x0": np.zeros(5)}, ValueError, "x0"),
]


@pytest.mark.parametrize(("options", "kind", "name"), BAD)
def test_wrong_arguments_are_named(options, kind, name):
    A, b = drawn()
    with pytest.raises(kind, match=f"`{name}`"):
        bcd.quadratic(A, b, **options)


def test_wrong_matrices_are_named():
    A, b = drawn()
    with pytest.raises(ValueError, match="`A`"):
        bcd.quadratic(A[:, :5], b)
    with pytest.raises(ValueError, match="`A` is not symmetric"):
        bcd.quadratic(A + np.triu(np.ones((6, 6)), 1), b)
    with pytest.raises(ValueError, match="`b`"):
        bcd.quadratic(A, b[:5])


@pytest.mark.parametrize("method", ["auto", "bcd", "cd"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_unknowns_without_curvature_go_to_their_bound(method, form):
    A, b = np.diag([1.0, 0.0, 0.0, 0.0, 2.0]), np.array([1.0, 1.0, -2.0, 0.3, 1.0])
    res = bcd.quadratic(form(A), b, bounds=(-1.0, 3.0), l1=0.5, method=method)
    assert res.success
    np.testing.assert_allclose(res.x, [0.5, 3.0, -1.0, 0.0, 0.25], atol=1e-7)


def test_a_saddle_is_no_solution():
    with pytest.raises(ValueError, match="`A` has the eigenvalue -1"):
        bcd.quadratic(np.array([[1.0, 2.0], [2.0, 1.0]]), np.ones(2))
