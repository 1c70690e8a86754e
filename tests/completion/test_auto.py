"""Which engines `method="auto"` runs, and that they end where they should."""

import numpy as np
import pytest

from solvers import ConvergenceWarning, Status, completion
from solvers.completion import alternating_minimization
from tests.completion.exact import dense, error, planted, slope


def solve(entries, rank, **options):
    return alternating_minimization(entries, rank, **{"tol": 1e-10, "rng": 0, **options})


def engines(res):
    return [name for name, _, _ in res.stages]


def test_few_entries_call_for_reweighting_and_many_for_sweeps():
    for oversampling, expected in ((2.5, "irls"), (6.0, "altmin")):
        entries, X = planted(70, 60, 3, oversampling, 1)
        res = solve(entries, 3, shape=X.shape)
        assert res.success
        assert engines(res) == [expected, "gn"]
        assert res.nit == sum(nit for _, nit, _ in res.stages)
        assert error(dense(res), X) <= 1e-8


@pytest.mark.parametrize("oversampling", [2.5, 6.0])
def test_noise_without_a_ridge_ends_stationary(oversampling):
    (rows, cols, vals), X = planted(70, 60, 3, oversampling, 3, noise=0.1)
    res = solve((rows, cols, vals), 3, shape=X.shape)
    assert res.success
    assert res.certificate.kind == "relative gradient norm"
    assert not res.exact_fit
    assert slope(res, rows, cols, vals, np.ones(vals.size)) <= 2e-10


@pytest.mark.parametrize(
    "kind",
    [{"lam": 0.5}, {"lam": 0.2, "bias": True}, {"bias": True}, {"lam": 1.0, "implicit": True}],
    ids="-".join,
)
def test_penalised_problems_begin_by_alternating(kind):
    (rows, cols, vals), X = planted(40, 35, 2, 5.0, 5, noise=0.2)
    vals = np.abs(np.rint(vals)) if "implicit" in kind else vals
    res = solve((rows, cols, vals), 2, shape=X.shape, tol=1e-9, maxiter=2000, **kind)
    assert res.success
    assert engines(res)[0] == "altmin"


def test_a_start_goes_to_gauss_newton_steps_first():
    entries, X = planted(70, 60, 3, 2.5, 7)
    U, s, Vt = np.linalg.svd(X)
    rng = np.random.default_rng(0)
    U0 = U[:, :3] * s[:3] + 1e-2 * rng.standard_normal((70, 3))
    res = solve(entries, 3, shape=X.shape, x0=(U0, Vt[:3].T))
    assert res.success
    assert engines(res) == ["gn"]
    again = solve(entries, 3, shape=X.shape, tol=1e-9, x0=res)
    assert again.nit == 0
    assert again.success


def test_iterations_of_all_stages_count_against_the_limit():
    entries, X = planted(70, 60, 3, 2.0, 9, cond=100.0)
    free = solve(entries, 3, shape=X.shape)
    limit = free.stages[0][1] + 1
    with pytest.warns(ConvergenceWarning):
        res = solve(entries, 3, shape=X.shape, maxiter=limit)
    assert res.nit == limit
    assert res.status == Status.MAXITER
    assert [nit for _, nit, _ in res.stages] == [limit - 1, 1]


def test_rows_without_enough_entries_do_not_keep_the_others_from_being_found():
    X = planted(50, 44, 2, 1.0, 11)[1]
    seen = np.random.default_rng(2).random(X.shape) < 0.5
    seen[7], seen[:, 40] = False, False
    seen[7, 2] = True
    res = solve(np.where(seen, X, np.nan), 2, tol=1e-12)
    assert res.success
    assert np.isfinite(dense(res)).all()
    keep = np.ix_(np.arange(50) != 7, np.arange(44) != 40)
    assert error(dense(res)[keep], X[keep]) <= 1e-9
    assert 7 in res.unidentified_rows


@pytest.mark.parametrize("seed", range(2))
def test_many_entries_of_a_wide_spectrum_are_no_trap(seed):
    rows, cols, vals, L, R = completion.make_planted(150, 150, 4, 5.0, cond=1e4, rng=seed)
    res = completion.alternating_minimization(
        (rows, cols, vals), 4, shape=(150, 150), tol=1e-11, maxiter=120, rng=0
    )
    assert res.success
    np.testing.assert_allclose(res.todense(), L @ R.T, atol=1e-6)
