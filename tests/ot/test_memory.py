"""Peak memory beyond the caller's data, as NumPy's allocations show it to tracemalloc."""

import tracemalloc

import numba
import numpy as np
import pytest

import solvers
from solvers import datasets, ot

N = 2000
SMALL = 2_000_000  # vectors, blocks of rows, and what libraries keep

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="takes hours as plain Python")


@pytest.fixture(scope="module")
def problem():
    p = datasets.gaussian_mixture_transport(N, rng=0)
    solve = ot.sinkhorn_newton
    # Whatever is compiled or imported on first use is not the solver's memory; some kernels exist
    # for large problems only.
    for C in (p.C, p.C.astype(np.float32)):
        for reg in (0.3, 1e-4):
            res = solve(None, None, C, reg=reg, tol=1e-2)
            assert res.cost_rounded >= res.lp_bracket()[0]
            assert res.plan_sparse(1e-3).nnz < C.size
    return p.a, p.b, p.C


def peak(function):
    """Bytes allocated at most at a time while a function runs, and its result."""
    tracemalloc.start()
    try:
        result = function()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("reg", [0.3, 1e-4], ids=["stored", "compressed"])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_a_solve_takes_half_the_memory_of_its_cost(problem, reg, layout):
    a, b, C = problem
    if layout == "F":
        a, b, C = b, a, C.T
    most, res = peak(lambda: ot.sinkhorn_newton(a, b, C, reg=reg, tol=1e-6))
    assert res.success
    assert (res.density < 0.15) == (reg == 1e-4)
    # One plan in single precision; never a copy of C, nor a temporary of its size.
    assert most <= 0.55 * C.nbytes + SMALL


def test_a_dense_kernel_makes_room_for_a_compressed_one(problem):
    a, b, C = problem
    options = {"annealing": False, "precond": "jacobi", "maxiter": 4}
    # Cut short, once the first temperature, stored densely, has been stored anew.
    with pytest.warns(solvers.ConvergenceWarning):
        most, res = peak(lambda: ot.sinkhorn_newton(a, b, C, reg=3e-4, **options))
    assert res.density < 0.15
    assert most <= 0.55 * C.nbytes + SMALL


def test_a_cost_in_single_precision_is_not_converted(problem):
    a, b, C = (x.astype(np.float32) for x in problem)
    most, res = peak(lambda: ot.sinkhorn_newton(a, b, C, reg=0.3))
    assert res.success
    assert most <= 1.05 * C.nbytes + SMALL


def test_sinkhorn_in_the_log_domain_stores_no_matrix(problem):
    a, b, C = problem
    most, res = peak(lambda: ot.sinkhorn(a, b, C, reg=0.5, method="log", tol=1e-4))
    assert res.success
    assert most <= 0.05 * C.nbytes + SMALL


def test_judging_and_evaluating_go_block_by_block(problem):
    a, b, C = problem
    res = ot.sinkhorn_newton(a, b, C, reg=1e-2, tol=1e-3)
    for function in (
        lambda: ot.certify(a, b, C, res.f, res.g, reg=1e-2),
        lambda: res.value_linear,
        lambda: res.cost_rounded,
        res.lp_bracket,
        lambda: res.apply(b),
        lambda: res.apply(a, axis=0),
    ):
        most, _ = peak(function)
        assert most <= 0.05 * C.nbytes + SMALL


def test_gradients_take_their_own_size_and_half_of_it(problem):
    a, b, C = problem
    res = ot.sinkhorn_newton(a, b, C, reg=0.3, tol=1e-6)
    most, (_, _, dC) = peak(lambda: res.vjp(a))
    assert dC.nbytes == C.nbytes
    assert most <= 1.55 * C.nbytes + SMALL


def test_gradients_in_points_need_no_matrix_but_the_kernel(problem):
    a, b, C = problem
    x = np.random.default_rng(0).normal(size=(2, N, 2))
    res = ot.sinkhorn_newton(a, b, ot.PointCloud(*x), reg=1.0, tol=1e-6)
    most, (_, _, (dx, _)) = peak(lambda: res.vjp(a))
    assert dx.shape == (N, 2)
    assert most <= 0.55 * C.nbytes + SMALL
    most, _ = peak(lambda: res.grad_x)
    assert most <= 0.05 * C.nbytes + SMALL


def test_a_result_holds_its_vectors_and_refers_to_the_cost(problem):
    a, b, C = problem
    tracemalloc.start()
    try:
        res = ot.sinkhorn_newton(a, b, C, reg=1e-2, tol=1e-3)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held <= 10 * 8 * N + 200_000
    assert res.x.size == 2 * N


def test_leaving_out_points_without_mass_copies_the_cost_once(problem):
    a, b, C = problem
    a, b = a.copy(), b.copy()
    a[:3] = b[5:9] = 0.0
    a, b = a / a.sum(), b / b.sum()
    most, res = peak(lambda: ot.sinkhorn_newton(a, b, C, reg=0.3, tol=1e-6))
    assert res.success
    assert most <= 1.55 * C.nbytes + SMALL
