import numpy as np
import pytest

import solvers
from solvers import datasets, ot
from solvers._core import validation
from tests import oracles


def solve(a, b, C, reg, tol=1e-9, **options):
    """Solve, and hold the answer to its promise before any test looks at it."""
    res = ot.sinkhorn_newton(a, b, C, reg=reg, tol=tol, method="splr", **options)
    assert res.success, res.message
    P = oracles.gibbs_plan(res.f, res.g, a, b, C, reg)
    assert oracles.marginal_error(P, a, b) <= 1.001 * tol * a.sum()
    return res


def potentials(f, g, a, b, reg):
    """Counting potentials in one vector, without the constant that nothing depends on."""
    z = np.r_[f + reg * np.log(a), g + reg * np.log(b)]
    sign = np.r_[np.ones(len(a)), -np.ones(len(b))]
    return z - sign * (z @ sign) / len(z)


@pytest.mark.parametrize("sparsity", [1.0, 0.3])
def test_steps_are_those_of_the_sparse_plus_low_rank_model(rng, sparsity):
    a, b, C = oracles.cloud_problem(rng, 7, 9)
    reg, seen = 0.15 * C.max(), []
    res = solve(
        a, b, C, reg, sparsity=sparsity, annealing=False, n_sinkhorn=1, tol_inner=1e-12,
        callback=lambda now: seen.append((now.f, now.g)),
    )  # fmt: skip
    assert res.nit == res.nsinkhorn + res.nnewton >= 6  # no step was cut
    zs = [potentials(f, g, a, b, reg) for f, g in seen]
    plans = [oracles.gibbs_plan(f, g, a, b, C, reg) for f, g in seen]
    gradients = [np.r_[P.sum(axis=1) - a, P.sum(axis=0) - b] for P in plans]
    density = sparsity
    for k in range(1, len(zs) - 2):
        # The model is the textbook's rank-two update of the thresholded Hessian, dense.
        errors = [np.abs(gradients[j]).sum() for j in (k - 1, k)]
        density = min(density * (1.1 if errors[1] > errors[0] else 0.99), sparsity)
        P, keep = plans[k], int(np.ceil(density * 63))
        kept = np.where(np.sort(P.ravel())[-keep] <= P, P, 0.0)
        diagonal = np.r_[P.sum(axis=1), P.sum(axis=0)] * (1 + min(errors[1], 1e-3))
        B = np.diag(diagonal) / reg
        B[:7, 7:] = kept / reg
        B[7:, :7] = kept.T / reg
        s, y = zs[k] - zs[k - 1], gradients[k] - gradients[k - 1]
        Bs = B @ s
        B += np.outer(y, y) / (y @ s) - np.outer(Bs, Bs) / (s @ Bs)
        expected = -np.linalg.solve(B, gradients[k])
        # On what moves the plan; the length is the line search's.
        step, expected = (v[:7, None] + v[7:] for v in (zs[k + 1] - zs[k], expected))
        cosine = (step * expected).sum() / np.linalg.norm(step) / np.linalg.norm(expected)
        assert cosine >= 1 - 1e-4


def test_it_agrees_with_the_newton_method(rng):
    a, b, C = oracles.cloud_problem(rng, 30, 40)
    for scale in (0.1, 1e-2, 1e-3):
        reg = scale * C.max()
        res, twin = solve(a, b, C, reg), ot.sinkhorn_newton(a, b, C, reg=reg, tol=1e-11)
        assert np.abs(res.plan - twin.plan).sum() <= 1e-6
        assert res.value == pytest.approx(twin.value, rel=1e-8)


@pytest.mark.parametrize("scale", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("name", ["digits", "mixture", "assignment"])
def test_moderately_hard_problems_are_solved(name, scale):
    p = {
        "digits": lambda: datasets.digits_transport(side=14),
        "mixture": lambda: datasets.gaussian_mixture_transport(200, rng=0),
        "assignment": lambda: datasets.assignment(80, rng=0),
    }[name]()
    res = solve(p.a, p.b, p.C, scale * p.C.max())
    assert res.nsinkhorn < res.nit
    assert res.levels[-1] == res.reg


def test_the_secant_term_spares_steps(monkeypatch):
    p = datasets.gaussian_mixture_transport(200, rng=0)
    with_it = solve(p.a, p.b, p.C, 0.01 * p.C.max(), sparsity=0.02)
    monkeypatch.setattr("solvers.ot._splr.CURVATURE", np.inf)
    without = solve(p.a, p.b, p.C, 0.01 * p.C.max(), sparsity=0.02, maxiter=5000)
    assert with_it.nnewton < 0.7 * without.nnewton


def test_its_options_have_effects(rng):
    a, b, C = oracles.cloud_problem(rng, 40, 50)
    reg = 5e-3 * C.max()
    base = solve(a, b, C, reg)
    assert base.nsinkhorn == 5 * len(base.levels)
    assert len(base.levels) > 1
    assert solve(a, b, C, reg, annealing=False).levels == [reg]
    assert solve(a, b, C, reg, n_sinkhorn=3).nsinkhorn == 3 * len(base.levels)
    sparse, dense = solve(a, b, C, reg, sparsity=0.05), solve(a, b, C, reg, sparsity=1.0)
    assert sparse.density <= 0.05 < dense.density
    assert dense.nnewton < sparse.nnewton
    exact = solve(a, b, C, reg, tol_inner=1e-10)
    assert exact.ncg / exact.nnewton > base.ncg / base.nnewton
    hasty = solve(a, b, C, reg, maxiter_inner=2)
    assert hasty.ncg <= 2 * hasty.nnewton


def test_it_starts_from_given_potentials(rng):
    a, b, C = oracles.cloud_problem(rng, 10, 8)
    known = ot.sinkhorn_newton(a, b, C, reg=0.5, tol=1e-11)
    for start in ({"x0": known}, {"g0": known.g}, {"f0": known.f}):
        res = solve(a, b, C, 0.5, tol=1e-8, **start)
        assert (res.nit, res.levels) == (1, [0.5])


def test_points_without_mass_forbidden_edges_and_other_layouts_are_fine(rng):
    a, b, C = oracles.cloud_problem(rng, 9, 9)
    a[2] = b[4] = 0.0
    a, b = 2 * a / a.sum(), 2 * b / b.sum()
    C[0, 1] = C[2] = np.inf
    known = ot.sinkhorn_newton(a, b, C, reg=1.0, tol=1e-11)
    for D in (C, np.asfortranarray(C)):
        res = solve(a, b, D, 1.0, tol=1e-10)
        np.testing.assert_allclose(res.plan, known.plan, rtol=0, atol=1e-9)


def test_single_precision_and_clouds_are_fine(rng):
    x, y = rng.normal(size=(20, 2)), rng.normal(size=(30, 2))
    a, b = np.full(20, 0.05), np.full(30, 1 / 30)
    res = ot.sinkhorn_newton(None, None, ot.PointCloud(x, y), reg=0.1, method="splr")
    assert res.success
    P = oracles.gibbs_plan(res.f, res.g, a, b, ((x[:, None] - y) ** 2).sum(axis=2), 0.1)
    assert oracles.marginal_error(P, a, b) <= 1.001e-8
    C = ((x[:, None] - y) ** 2).sum(axis=2).astype("float32")
    res = ot.sinkhorn_newton(None, None, C, reg=0.1, method="splr")
    assert res.success
    assert res.f.dtype == "float32"


def test_plans_that_would_not_fit_are_refused_with_a_remedy(rng, monkeypatch):
    monkeypatch.setattr(validation, "_SMALL_ALLOCATION", 0)
    monkeypatch.setattr(validation, "_free_memory", lambda: 100)
    with pytest.raises(MemoryError, match=r"splr.*auto"):
        ot.sinkhorn_newton(None, None, rng.random((5, 5)), reg=0.1, method="splr")


def test_every_end_has_its_status_one_warning_and_finite_potentials(rng):
    a, b, C = oracles.cloud_problem(rng, 30, 30)
    reg = 1e-3 * C.max()
    for status, options in {
        solvers.Status.MAXITER: {"maxiter": 9},
        solvers.Status.TIME_LIMIT: {"time_limit": 1e-9},
    }.items():
        with pytest.warns(solvers.ConvergenceWarning) as seen:
            res = ot.sinkhorn_newton(a, b, C, reg=reg, method="splr", **options)
        assert len(seen) == 1
        assert res.status is status
        assert np.isfinite(res.x).all()
    res = ot.sinkhorn_newton(a, b, C, reg=reg, method="splr", callback=lambda now: now.nit == 12)
    assert (res.status, res.nit) == (solvers.Status.CALLBACK, 12)
    with pytest.warns(solvers.ConvergenceWarning):
        res = ot.sinkhorn_newton(a, b, C, reg=reg, method="splr", tol=1e-18)
    assert res.status is solvers.Status.STALLED
    assert res.certificate.value < 1e-12
    C[3] = np.inf
    with pytest.warns(solvers.ConvergenceWarning):
        res = ot.sinkhorn_newton(a, b, C, reg=reg, method="splr")
    assert res.status is solvers.Status.INFEASIBLE
    assert np.isfinite(res.x).all()


def test_history_counts_every_evaluation_and_names_the_temperature(rng):
    a, b, C = oracles.cloud_problem(rng, 30, 30)
    res = solve(a, b, C, 1e-2 * C.max())
    np.testing.assert_array_equal(res.history["nit"], np.arange(1, res.nit + 1))
    assert set(res.history["reg"]) == set(res.levels)
    assert res.method == "sinkhorn_newton (splr)"
    assert "wang2025" in res.cite()
    assert [name for name, _, _ in res.stages] == ["annealing", "final temperature"]
