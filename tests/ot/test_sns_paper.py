import numpy as np
import pytest

import solvers
from solvers import datasets, ot
from tests import oracles
from tests.ot import reference


def plans(a, b, C, reg, **options):
    """The plan after every iteration, rebuilt from what callbacks see."""
    seen = []

    def watch(now):
        seen.append(oracles.gibbs_plan(now.f, now.g, a, b, C, reg))

    res = ot.sinkhorn_newton(a, b, C, reg=reg, method="sns-paper", callback=watch, **options)
    return res, seen


@pytest.mark.parametrize("sparsity", [1.0, 0.2])
@pytest.mark.parametrize("shape", [(6, 6), (5, 8)])
def test_every_step_is_that_of_the_published_algorithm(rng, shape, sparsity):
    a, b, C = oracles.cloud_problem(rng, *shape)
    C /= C.max()
    # The reference solves its systems exactly, so ours must nearly do so. The line search sees no
    # gain in the dual any more at the square root of its rounding errors.
    res, seen = plans(a, b, C, 0.05, n_sinkhorn=3, sparsity=sparsity, tol_inner=1e-12, tol=1e-7)
    assert res.success
    assert res.nsinkhorn == 3
    assert res.nnewton == res.nit - 3 > 0
    expected = reference.sinkhorn_newton_sparse(a, b, C, 20.0, 3, res.nnewton, sparsity)
    for P, Q in zip(seen, expected, strict=True):
        np.testing.assert_allclose(P, Q, rtol=0, atol=1e-8)


def test_steps_that_would_not_raise_the_dual_are_halved(rng):
    C = rng.random((6, 6))
    u = np.full(6, 1 / 6)
    _, seen = plans(u, u, C, 0.005, n_sinkhorn=1, sparsity=1.0, tol_inner=1e-13, tol=1e-6)
    expected = reference.sinkhorn_newton_sparse(u, u, C, 200.0, 1, len(seen) - 1, 1.0)
    for P, Q in zip(seen, expected, strict=True):
        np.testing.assert_allclose(P, Q, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [60, 110, 200])
def test_random_assignments_at_the_papers_regularisation_take_the_papers_number_of_steps(n):
    p = datasets.assignment(n, rng=n)
    res, _ = plans(p.a, p.b, p.C, 1 / 1200, tol=1e-5)
    assert res.success
    assert 20 < res.nit <= 60
    P = oracles.gibbs_plan(res.f, res.g, p.a, p.b, p.C, 1 / 1200)
    assert oracles.marginal_error(P, p.a, p.b) <= 1.001e-5
    exact = oracles.assignment_cost(p.C)
    assert exact - 1e-5 <= res.value_linear <= exact + np.log(n) / 1200 + 1e-5


def test_steps_with_the_whole_hessian_converge_quadratically(rng):
    a, b, C = oracles.cloud_problem(rng, 12, 15)
    res, _ = plans(a, b, C / C.max(), 0.2, n_sinkhorn=1, sparsity=1.0, tol_inner=1e-12, tol=1e-8)
    errors = res.history["marginal_error"]
    assert 4 <= errors.size <= 5
    # Where squares are below the tolerance, rounding errors of the dual hide what a step gains.
    assert np.all(errors[1:] <= np.maximum(3 * errors[:-1] ** 2, 1e-8))


def test_the_dual_rises_with_every_accepted_step(rng):
    a, b, C = oracles.cloud_problem(rng, 12, 15)
    C /= C.max()
    res, _ = plans(a, b, C, 0.02, n_sinkhorn=2, tol=1e-7)
    best = ot.sinkhorn_newton(a, b, C, reg=0.02, tol=1e-12).value
    assert np.diff(res.history["fun"]).min() >= -1e-13
    assert res.history["fun"].max() <= best + 1e-12


def test_its_options_have_effects(rng):
    a, b, C = oracles.cloud_problem(rng, 20, 20)
    C /= C.max()
    base, _ = plans(a, b, C, 0.02)
    assert base.nsinkhorn == 20
    assert base.density == pytest.approx(2 / 20 * 40**2 / 2 / 400)
    dense, _ = plans(a, b, C, 0.02, sparsity=1.0)
    assert dense.density == 1.0
    assert dense.nnewton < base.nnewton
    assert plans(a, b, C, 0.02, n_sinkhorn=5)[0].nsinkhorn == 5
    exact, _ = plans(a, b, C, 0.02, sparsity=1.0, tol_inner=1e-10)
    assert exact.ncg / exact.nnewton > dense.ncg / dense.nnewton
    with pytest.warns(solvers.ConvergenceWarning):
        hasty, _ = plans(a, b, C, 0.02, sparsity=1.0, maxiter_inner=1, maxiter=40)
    assert hasty.ncg == hasty.nnewton


def test_it_starts_from_given_potentials(rng):
    a, b, C = oracles.cloud_problem(rng, 10, 8)
    known = ot.sinkhorn_newton(a, b, C, reg=0.5)
    for start in ({"x0": known}, {"g0": known.g}, {"f0": known.f}):
        assert plans(a, b, C, 0.5, tol=1e-7, **start)[0].nit == 1


def test_points_without_mass_forbidden_edges_and_other_layouts_are_fine(rng):
    a, b, C = oracles.cloud_problem(rng, 9, 9)
    a[2] = b[4] = 0.0
    a, b = 2 * a / a.sum(), 2 * b / b.sum()
    C[0, 1] = C[2] = np.inf
    known = ot.sinkhorn_newton(a, b, C, reg=1.0, tol=1e-11)
    for D in (C, np.asfortranarray(C)):
        res, _ = plans(a, b, D, 1.0, tol=1e-10)
        assert res.success
        np.testing.assert_allclose(res.plan, known.plan, rtol=0, atol=1e-9)


def test_point_clouds_give_what_their_costs_give(rng):
    x, y = rng.normal(size=(12, 2)), rng.normal(size=(9, 2))
    C = ((x[:, None] - y) ** 2).sum(axis=2)
    options = {"reg": 0.5, "method": "sns-paper", "tol": 1e-7}
    res = ot.sinkhorn_newton(None, None, ot.PointCloud(x, y), **options)
    twin = ot.sinkhorn_newton(None, None, C, **options)
    assert res.nit == twin.nit
    np.testing.assert_allclose(res.plan, twin.plan, rtol=0, atol=1e-9)


def test_limits_and_callbacks_end_it(rng):
    a, b, C = oracles.cloud_problem(rng, 9, 9)
    for status, options in {
        solvers.Status.MAXITER: {"maxiter": 7},
        solvers.Status.TIME_LIMIT: {"time_limit": 1e-9},
    }.items():
        with pytest.warns(solvers.ConvergenceWarning) as seen:
            res, _ = plans(a, b, C, 0.05, tol=1e-12, **options)
        assert len(seen) == 1
        assert res.status is status
        assert np.isfinite(res.x).all()
    res = ot.sinkhorn_newton(
        a, b, C, reg=0.05, method="sns-paper", callback=lambda now: now.nit == 25
    )
    assert (res.status, res.nit) == (solvers.Status.CALLBACK, 25)
    assert [name for name, _, _ in res.stages] == ["sinkhorn", "newton"]


def test_where_it_fails_the_last_finite_iterate_is_returned(rng):
    C = rng.random((24, 24))
    with pytest.warns(solvers.ConvergenceWarning):
        res = ot.sinkhorn_newton(None, None, C, reg=1e-4, method="sns-paper", maxiter=300)
    assert not res.success
    assert res.certificate.value <= res.history["marginal_error"][0]


def test_where_it_fails_the_best_iterate_is_returned():
    p = datasets.random_transport(318, largest=60)
    with pytest.warns(solvers.ConvergenceWarning):
        res = ot.sinkhorn_newton(
            p.a, p.b, p.C, reg=p.reg, method="sns-paper", tol=1e-5, maxiter=80
        )
    best = res.history["marginal_error"].min()
    assert res.certificate.value == pytest.approx(best, rel=1e-6)
