"""`solvers.linalg` against dense linear algebra."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, cg

import solvers
from solvers.linalg import EmpiricalFisher, conjugate_directions


def dense(G, damp, m=None):
    return damp * np.eye(G.shape[1]) + G.T @ G / (m or len(G))


@pytest.fixture
def gradients(rng):
    return rng.standard_normal((6, 15))


# ---------------------------------------------------------------- empirical Fisher matrices
@pytest.mark.parametrize("columns", [(), (3,)])
def test_products_and_solves_are_those_of_the_dense_matrix(gradients, rng, columns):
    G = gradients
    F, D = EmpiricalFisher(G, damp=0.01), dense(G, 0.01)
    v = rng.standard_normal((15, *columns))
    np.testing.assert_allclose(F @ v, D @ v, rtol=1e-12)
    np.testing.assert_allclose(F.matvec(v), F.T @ v)
    np.testing.assert_allclose(F.solve(v), np.linalg.solve(D, v), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(F.inv @ v, F.solve(v))
    other = np.linalg.solve(dense(G, 0.3), v)
    np.testing.assert_allclose(F.solve(v, damp=0.3), other, rtol=1e-9, atol=1e-10)


def test_elements_of_the_inverse_are_those_of_the_dense_inverse(gradients):
    G = gradients
    F, inverse = EmpiricalFisher(G, damp=0.01), np.linalg.inv(dense(G, 0.01))
    np.testing.assert_allclose(F.inv_diagonal(block_size=4), np.diag(inverse), rtol=1e-9)
    np.testing.assert_allclose(F.inv_diagonal(), np.diag(inverse), rtol=1e-9)
    for i, j in [(0, 0), (3, 11), (14, 2)]:
        assert F.inv_element(i, j) == pytest.approx(inverse[i, j], rel=1e-8)


@pytest.mark.parametrize("window", [4, 6, 9])
def test_a_sliding_window_equals_a_matrix_built_anew(gradients, rng, window):
    G = gradients
    F, rows, v = EmpiricalFisher(G, damp=0.1, window=window), list(G), rng.standard_normal(15)
    for _ in range(8):
        rows.append(rng.standard_normal(15))
        F.update(rows[-1])
        F.solve(v)  # factors, which the next update must forget
    last = np.array(rows[-window:])
    expected = dense(last, 0.1, m=min(window, len(rows)))
    np.testing.assert_allclose(F @ v, expected @ v, rtol=1e-11)
    np.testing.assert_allclose(F.solve(v), np.linalg.solve(expected, v), rtol=1e-8)


def test_a_window_that_is_partly_filled_counts_what_is_there(gradients, rng):
    G = gradients
    F, v = EmpiricalFisher(G, damp=0.1, window=50), rng.standard_normal(15)
    g = rng.standard_normal(15)
    F.update(g)
    np.testing.assert_allclose(F @ v, dense(np.vstack([G, g]), 0.1) @ v, rtol=1e-12)


def test_equal_gradients_are_no_trouble(rng):
    g, v = rng.standard_normal(15), rng.standard_normal(15)
    F = EmpiricalFisher(np.tile(g, (5, 1)), damp=1e-3)
    np.testing.assert_allclose(F.solve(v), np.linalg.solve(dense(g[None], 1e-3), v), rtol=1e-8)


def test_single_precision_is_kept_and_good_to_single_precision(gradients, rng):
    G = gradients
    F = EmpiricalFisher(G.astype(np.float32), damp=0.01)
    v = rng.standard_normal(15).astype(np.float32)
    assert F.solve(v).dtype == np.float32 == F.dtype
    np.testing.assert_allclose(F @ F.solve(v), v, atol=1e-3)


def test_scipy_takes_it_for_a_linear_operator(gradients, rng):
    G = gradients
    v = rng.standard_normal(15)
    F = EmpiricalFisher(G, damp=0.5)
    x, info = cg(F, v, rtol=1e-12, M=F.inv)
    assert info == 0
    np.testing.assert_allclose(x, np.linalg.solve(dense(G, 0.5), v), rtol=1e-9)
    assert F.shape == (15, 15)
    assert F.nbytes >= G.nbytes


def test_gradients_are_copied_and_left_alone(gradients):
    G = gradients
    before, kept = G.copy(), np.ones(15)
    F = EmpiricalFisher(G, damp=0.1)
    product = F @ kept
    F.update(kept)
    np.testing.assert_array_equal(G, before)
    np.testing.assert_array_equal(kept, 1.0)
    G[:] = 0
    assert not np.allclose(EmpiricalFisher(before, damp=0.1) @ kept, F @ kept)
    np.testing.assert_array_equal(EmpiricalFisher(before, damp=0.1) @ kept, product)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda G: EmpiricalFisher(G[0]), ValueError, "`G` came 1-D"),
        (lambda G: EmpiricalFisher(G + 1j), TypeError, "`G`"),
        (lambda G: EmpiricalFisher(G, damp=0.0), ValueError, "`damp` came as 0.0"),
        (lambda G: EmpiricalFisher(G, window=0), ValueError, "`window` came as 0"),
        (lambda G: EmpiricalFisher(G).solve(G[0, :3]), ValueError, "`v` came with shape"),
        (lambda G: EmpiricalFisher(G).solve(G[0], damp=-1.0), ValueError, "`damp`"),
        (lambda G: EmpiricalFisher(G).update(G.T), ValueError, "`g` came with shape"),
        (lambda G: EmpiricalFisher(G).inv_element(0, 15), ValueError, "`j` came as 15"),
        (lambda G: EmpiricalFisher(G).inv_diagonal(0), ValueError, "`block_size`"),
    ],
)
def test_fisher_refuses_what_it_cannot_use(gradients, call, error, message):
    G = gradients
    with pytest.raises(error, match=message):
        call(G)


# ---------------------------------------------------------------- conjugate directions
@pytest.fixture
def system(rng):
    Q = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    A = (Q * np.geomspace(1, 50, 40)) @ Q.T
    A = (A + A.T) / 2
    return A, A @ rng.standard_normal(40)


def iterates(A, b, **options):
    seen = []
    res = conjugate_directions(
        A, b, callback=lambda intermediate_result: seen.append(intermediate_result.x), **options
    )
    return res, seen


def test_residuals_as_directions_give_conjugate_gradients(system):
    A, b = system
    theirs = []
    cg(A, b, rtol=1e-10, callback=lambda x: theirs.append(x.copy()))
    _, ours = iterates(A, b, tol=1e-10)
    # Rounding errors grow with every step.
    for k, (x, y) in enumerate(zip(ours[:20], theirs[:20], strict=True)):
        atol = (1e-12 if k < 15 else 1e-10) * abs(y).max()
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


@pytest.mark.parametrize("memory", [0, 1, 2, 7])
def test_the_error_in_the_norm_of_the_matrix_never_grows_whatever_is_proposed(system, rng, memory):
    A, b = system
    solution = np.linalg.solve(A, b)
    # Directions that have little to do with the residual.
    propose = lambda r: r + 2 * np.linalg.norm(r) * rng.standard_normal(len(r)) / 6  # noqa: E731
    res, seen = iterates(A, b, direction=propose, memory=memory, tol=1e-8, maxiter=1000)
    errors = [(x - solution) @ A @ (x - solution) for x in seen]
    assert all(new <= old * (1 + 1e-9) + 1e-18 for old, new in itertools.pairwise(errors))
    assert np.linalg.norm(A @ res.x - b) <= 1e-8 * np.linalg.norm(b)


def test_the_inverse_as_direction_needs_one_step(system):
    A, b = system
    res = conjugate_directions(A, b, direction=lambda r: np.linalg.solve(A, r), tol=1e-10)
    assert res.success
    assert res.nit == 1
    assert res.fun == res.certificate.value


def test_a_proposal_without_curvature_gives_way_to_the_residual(system):
    A, b = system
    res = conjugate_directions(A, b, direction=lambda r: 0 * r, tol=1e-9)
    assert res.success
    np.testing.assert_allclose(res.x, np.linalg.solve(A, b), rtol=1e-6)


@pytest.mark.parametrize(
    "form", [sp.csr_array, lambda A: LinearOperator(A.shape, A.dot, dtype=float)]
)
def test_matrices_may_be_sparse_or_operators(system, form):
    A, b = system
    res = conjugate_directions(form(A), b, x0=np.ones(40))
    assert res.success
    assert np.linalg.norm(A @ res.x - b) <= 1.1e-8 * np.linalg.norm(b)


def test_an_indefinite_matrix_ends_honestly():
    A = np.diag([1.0, -1.0])
    with pytest.warns(solvers.ConvergenceWarning, match="no positive curvature"):
        res = conjugate_directions(A, np.array([1.0, 1.0]))
    assert res.status is solvers.Status.NUMERICAL
    assert not res.success
    assert np.isfinite(res.x).all()


def test_a_right_hand_side_of_zeros_is_solved_at_once(system):
    res = conjugate_directions(system[0], np.zeros(40))
    assert res.success
    assert res.nit == 0
    assert not res.x.any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"A": np.eye(3)}, ValueError, "`A` came with shape"),
        ({"A": 3.0}, ValueError, "`A` came with shape"),
        ({"A": "A"}, TypeError, "`A` came as str"),
        ({"b": np.eye(40)}, ValueError, "`b` came 2-D"),
        ({"b": np.full(40, np.nan)}, ValueError, "`b`"),
        ({"x0": np.ones(3)}, ValueError, "`x0` came with shape"),
        ({"direction": 3}, TypeError, "`direction`"),
        ({"direction": lambda r: r[:2]}, ValueError, "`direction` returned shape"),
        ({"memory": -1}, ValueError, "`memory`"),
        ({"tol": 0.0}, ValueError, "`tol`"),
        ({"maxiter": 1.5}, TypeError, "`maxiter`"),
    ],
)
def test_conjugate_directions_refuses_what_it_cannot_use(system, change, error, message):
    arguments = {"A": system[0], "b": system[1], **change}
    with pytest.raises(error, match=message):
        conjugate_directions(arguments.pop("A"), arguments.pop("b"), **arguments)
