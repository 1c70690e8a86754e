"""Shifts of indefinite Hessians, and rows that depend on each other."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from scipy.optimize import LinearConstraint, NonlinearConstraint

from solvers._core.backend import get_backend
from solvers.constrained import minimize
from solvers.constrained._convexify import Shifts, factored
from solvers.constrained.inner import InnerSolve, open_inner

be = get_backend("numpy")


class Blind:
    """Solves densely and never says anything of the inertia."""

    name = "blind"

    def factor(self, saddle):
        self._saddle = saddle

    def solve(self, r, *, d0=None, tol=0.0):
        n, m = self._saddle.n, self._saddle.m
        K = np.column_stack([self._saddle @ e for e in np.eye(n + m)])
        d = np.linalg.solve(K, r)
        return InnerSolve(d, K @ d - r, 1, "converged")


def case(seed):
    rng = np.random.default_rng(seed)
    B, G = rng.standard_normal((8, 8)), rng.standard_normal((3, 8))
    return 10 * (B + B.T), G, rng.standard_normal(11)


def reduced(B, G):
    Z = np.linalg.svd(G)[2][len(G) :].T
    return np.linalg.eigvalsh(Z.T @ B @ Z)


@pytest.mark.parametrize("kind", [np.array, sp.csr_array])
@pytest.mark.parametrize("inner", ["direct", "condensed"])
def test_the_shift_makes_the_reduced_hessian_positive(inner, kind):
    for seed in range(20):
        B, G, _ = case(seed)
        saddle = factored(kind(B), kind(G), open_inner(inner, None), Shifts(), be=be)
        shifted = saddle.B.toarray() if kind is sp.csr_array else saddle.B
        assert reduced(shifted, G)[0] > 0
        # At most a stride too large.
        tau = shifted[0, 0] - B[0, 0]
        assert tau <= 100 * max(1e-4, -reduced(B, G)[0])


def test_a_convex_problem_is_left_alone():
    B, G, _ = case(0)
    B = B @ B + np.eye(8)
    shifts = Shifts()
    saddle = factored(B, G, open_inner("direct", None), shifts, be=be)
    assert saddle.B is B
    assert saddle.delta == 0
    assert shifts.last == 0


def test_the_ladder_remembers_the_last_shift():
    shifts = Shifts()
    assert [t for t, _ in zip(shifts.ladder(), range(3), strict=False)] == [0.0, 1e-4, 1e-2]
    shifts.last = 3.0
    assert [t for t, _ in zip(shifts.ladder(), range(3), strict=False)] == [0.0, 1.0, 8.0]


def test_a_convex_hessian_in_between_does_not_make_it_forget():
    B, G, _ = case(0)
    inner, shifts = open_inner("direct", None), Shifts()
    factored(B, G, inner, shifts, be=be)
    known = shifts.last
    factored(B @ B + np.eye(8), G, inner, shifts, be=be)
    assert shifts.last == known > 0


def test_without_inertia_the_step_itself_must_curve_upwards():
    for seed in range(20):
        B, G, r = case(seed)
        r[8:] = 0  # the step stays in the kernel of G
        shifts = Shifts()
        saddle = factored(B, G, Blind(), shifts, be=be, r=r)
        dx = shifts.d[:8]
        assert dx @ saddle.B @ dx > 0
        np.testing.assert_allclose(saddle @ shifts.d, r, atol=1e-8)


def test_a_solver_that_breaks_down_is_given_a_shift():
    class Fragile(Blind):
        def solve(self, r, *, d0=None, tol=0.0):
            solved = super().solve(r)
            return solved if self._saddle.B[0, 0] > 1 else solved._replace(flag="breakdown")

    B, G = np.eye(4) * 0.5, np.ones((1, 4))
    saddle = factored(B, G, Fragile(), Shifts(), be=be, r=np.arange(5.0))
    assert saddle.B[0, 0] > 1


@pytest.mark.parametrize("kind", [np.array, sp.csr_array])
def test_rows_that_depend_on_each_other_are_regularised(kind):
    B, G, _ = case(1)
    B, G = B @ B / 400 + np.eye(8), np.vstack([G, 3 * G[:1]])
    inner = open_inner("direct", None)
    saddle = factored(kind(B), kind(G), inner, Shifts(), be=be)
    assert 0 < saddle.delta < 1e-6
    d = np.linalg.lstsq(np.block([[B, G.T], [G, np.zeros((4, 4))]]), np.ones(12), rcond=None)[0]
    r = np.block([[B, G.T], [G, np.zeros((4, 4))]]) @ d
    # A right-hand side in the range: the step is that of independent rows.
    np.testing.assert_allclose(inner.solve(r).d[:8], d[:8], atol=1e-6)


def test_what_no_shift_can_mend_has_no_factors():
    B, G, _ = case(2)
    B[0, 0] = np.nan
    assert factored(B, G, open_inner("direct", None), Shifts(), be=be) is None


@pytest.mark.parametrize("kind", [np.array, sp.csr_array])
@pytest.mark.parametrize("copies", [(1.0,), (1.0, 1.0), (1.0, 100.0)])
def test_duplicated_rows_do_not_keep_a_run_from_its_end(copies, kind):
    g = np.array([1.0, 2.0])
    res = minimize(
        lambda x: g @ x,
        np.array([1.0, 0.5]),
        jac=lambda x: g,
        hess=lambda x: kind(np.zeros((2, 2))),
        constraints=[
            NonlinearConstraint(
                lambda x, s=s: s * (x @ x - 1),
                0,
                0,
                jac=lambda x, s=s: kind(2 * s * x[None, :]),
                hess=lambda x, v, s=s: kind(2 * s * v[0] * np.eye(2)),
            )
            for s in copies
        ],
    )
    assert res.success
    np.testing.assert_allclose(res.x, -np.array([1, 2]) / 5**0.5, atol=1e-7)


def test_rows_that_are_parallel_at_the_start_are_no_obstacle():
    """HS61, whose linearised equations contradict each other at the start."""
    q, p = np.array([4.0, 2.0, 2.0]), np.array([-33.0, 16.0, -24.0])
    res = minimize(
        lambda x: q @ x**2 + p @ x,
        np.zeros(3),
        jac=lambda x: 2 * q * x + p,
        hess=lambda x: np.diag(2 * q),
        constraints=NonlinearConstraint(
            lambda x: np.array([3 * x[0] - 2 * x[1] ** 2 - 7, 4 * x[0] - x[2] ** 2 - 11]),
            0,
            0,
            jac=lambda x: np.array([[3, -4 * x[1], 0.0], [4, 0.0, -2 * x[2]]]),
            hess=lambda x, v: np.diag([0.0, -4 * v[0], -2 * v[1]]),
        ),
    )
    assert res.success
    # The value that Hock and Schittkowski print.
    assert res.fun == pytest.approx(-143.646142, abs=1e-6)


def test_a_large_sparse_problem_with_dependent_rows_converges():
    n = 300
    rng = np.random.default_rng(0)
    G = sp.diags_array([rng.uniform(1, 2, n - 10)] * 3, offsets=[0, 1, 2], shape=(n - 10, n))
    G = sp.vstack([G, G.tocsr()[:4]]).tocsr()
    t = rng.standard_normal(n)
    res = minimize(
        lambda x: np.cosh(x - t).sum(),
        np.zeros(n),
        jac=lambda x: np.sinh(x - t),
        hess=lambda x: sp.diags_array(np.cosh(x - t)),
        constraints=LinearConstraint(G, 0, 0),
    )
    assert res.success
    assert res.inner == "direct"
    # Optimal: the gradient has no part in the kernel of G.
    Z = scipy.linalg.null_space(G.toarray())
    assert abs(G @ res.x).max() <= 1e-8
    assert abs(Z.T @ np.sinh(res.x - t)).max() <= 1e-7
