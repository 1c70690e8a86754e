"""Variable projection: recovery, stationary fits, and what eliminating a factor means."""

import numpy as np
import pytest

from solvers.completion import alternating_minimization
from tests.completion.exact import dense, error, least_squares, planted, slope


def solve(entries, rank, **options):
    return alternating_minimization(entries, rank, method="varpro", rng=0, **options)


def test_planted_matrices_are_recovered_to_rounding():
    entries, X = planted(80, 70, 3, 3.0, 1)
    res = solve(entries, 3, shape=X.shape, tol=1e-13)
    assert res.success
    assert error(dense(res), X) <= 1e-11
    assert [name for name, _, _ in res.stages] == ["varpro"]


def test_one_factor_is_always_the_best_for_the_other():
    (rows, cols, vals), X = planted(45, 40, 2, 6.0, 3, noise=0.3)
    w = np.random.default_rng(1).uniform(0.2, 3.0, vals.size)
    seen = []

    def look(at):
        seen.append(at)

    options = {"shape": X.shape, "weights": w, "tol": 1e-11, "callback": look}
    res = solve((rows, cols, vals), 2, **options)
    assert res.success
    for at in seen:
        best = least_squares(rows, cols, vals, w, at.V)
        np.testing.assert_allclose(best, at.U * at.s, atol=1e-8)
    assert slope(res, rows, cols, vals, w) <= 1e-10


@pytest.mark.parametrize(
    "kind",
    [
        {"lam": 1.0},
        {"lam": 0.05, "weighted_lambda": True},
        {"lam": 0.3, "bias": True, "lam_bias": 0.8},
        {"lam": 0.5, "implicit": True},
    ],
    ids="-".join,
)
def test_penalised_fits_are_those_of_gauss_newton_steps_on_both_factors(kind):
    (rows, cols, vals), X = planted(30, 25, 2, 5.0, 7, noise=0.2)
    vals = np.abs(np.rint(vals)) if "implicit" in kind else vals + 1.0
    options = {"shape": X.shape, "tol": 1e-9, "maxiter": 3000, **kind}
    res = solve((rows, cols, vals), 2, **options)
    other = alternating_minimization((rows, cols, vals), 2, method="gn", x0=res, **options)
    assert res.success
    assert other.nit == 0
    assert res.fun == pytest.approx(other.fun, rel=1e-9)


def test_fewer_iterations_are_needed_than_by_steps_on_both_factors():
    (rows, cols, vals), X = planted(60, 50, 3, 4.0, 9, noise=0.3)
    options = {"shape": X.shape, "tol": 1e-10, "rng": 0}
    both = alternating_minimization((rows, cols, vals), 3, method="gn", **options)
    assert solve((rows, cols, vals), 3, shape=X.shape, tol=1e-10).nit < both.nit
