"""The method of the theory: samples, accuracy and contraction, and what it is not for."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import solvers
from solvers import completion
from solvers._core.backend import get_backend
from solvers._core.result import Status
from solvers.completion import _large_rows
from solvers.completion._altmin_paper import deal
from solvers.completion._observations import read_entries
from solvers.completion._problem import pose
from tests.completion.sketch_kernel_tests import expected, rows_of, systems
from tests.completion.test_start import PLAIN


def planted(rng, n, k, part=1.0):
    """Triples of a matrix of rank k with equal singular values, and its column space."""
    U, V = (np.linalg.qr(rng.standard_normal((n, k)))[0] for _ in range(2))
    rows, cols = np.nonzero(rng.random((n, n)) < part)
    return (rows, cols, n * np.einsum("pk,pk->p", U[rows], V[cols])), U, n * U @ V.T


def solve(entries, k, n, **options):
    options = {"mode": "theory", "method": "altmin", "rng": 1} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solvers.ConvergenceWarning)
        return completion.alternating_minimization(entries, k, shape=(n, n), **options)


@pytest.mark.parametrize("inner", ["auto", "direct", "cg"])
def test_plentiful_data_are_recovered_and_each_sweep_halves_the_distance(rng, inner):
    entries, U, X = planted(rng, 500, 2, 0.9)
    distances = []

    def watch(seen):
        distances.append(np.linalg.norm(U - seen.U @ (seen.U.T @ U), 2))

    res = solve(entries, 2, 500, tol=1e-2, inner=inner, callback=watch)
    assert res.success
    assert np.linalg.norm((res.U * res.s) @ res.V.T - X) <= 1e-2 * np.linalg.norm(X)
    assert len(distances) == res.nit >= 2
    assert np.all(np.array(distances[1:]) <= 0.5 * np.array(distances[:-1]))


def test_a_row_solver_by_sketches_is_what_runs_by_default(rng):
    entries, _, _ = planted(rng, 700, 1)
    res = solve(entries, 1, 700, tol=1e-2)
    assert res.success
    assert res.n_inner > 0
    assert solve(entries, 1, 700, tol=1e-2, inner="direct").n_inner == 0


def test_the_run_ends_when_the_samples_are_used_up_and_says_so(rng):
    entries, _, _ = planted(rng, 60, 3, 0.5)
    with pytest.warns(solvers.ConvergenceWarning, match="samples are used up") as caught:
        res = completion.alternating_minimization(
            entries, 3, shape=(60, 60), mode="theory", tol=1e-3, rng=0
        )
    assert len(caught) == 1
    assert res.status is Status.STALLED
    assert not res.success
    # log2(1 / tol) = 9.97: ten sweeps and one more.
    assert res.nit == 11
    assert "All 23 samples" in res.message
    assert np.isfinite(res.U).all()


def test_limits_of_the_caller_come_first(rng):
    entries, _, _ = planted(rng, 60, 3, 0.5)
    assert solve(entries, 3, 60, tol=1e-6, maxiter=2).status is Status.MAXITER
    res = solve(entries, 3, 60, tol=1e-6, callback=lambda seen: True)
    assert res.status is Status.CALLBACK


def test_the_seed_decides(rng):
    entries, _, _ = planted(rng, 80, 2, 0.8)
    first, again, other = (solve(entries, 2, 80, tol=1e-1, rng=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.U, again.U)
    assert not np.array_equal(first.U, other.U)


@pytest.mark.parametrize("weighted", [False, True])
def test_samples_share_out_all_entries_and_keep_their_order(rng, weighted):
    M = np.where(rng.random((30, 20)) < 0.7, rng.standard_normal((30, 20)), np.nan)
    weights = rng.uniform(0.5, 2.0, M.shape) if weighted else None
    problem = pose(read_entries(M, weights=weights), **PLAIN)
    total, weight = np.zeros(M.shape), np.zeros(M.shape)
    counts = []
    for obs in deal(problem, 7, np.random.default_rng(0)):
        side = obs.by_row
        rows = np.repeat(np.arange(30), np.diff(side.ptr))
        np.testing.assert_array_equal(rows, obs.rows)
        total[rows, side.idx] += problem.scale * side.val
        weight[rows, side.idx] += side.weight if weighted else 1.0
        cols = np.repeat(np.arange(20), np.diff(obs.by_col.ptr))
        dense = np.zeros((2, 30, 20))
        dense[0][rows, side.idx] = side.val
        dense[1][obs.by_col.idx, cols] = obs.by_col.val
        np.testing.assert_array_equal(*dense)
        counts.append(obs.size)
    np.testing.assert_allclose(total, np.nan_to_num(M), rtol=1e-14)
    np.testing.assert_array_equal(weight, np.where(np.isnan(M), 0.0, weights if weighted else 1.0))
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": 0.1}, "`mode` came as 'theory'; expected 'reuse' with a penalty"),
        ({"bias": True}, "`mode` came as 'theory'; expected 'reuse' with a penalty"),
        ({"implicit": True}, "`mode` came as 'theory'; expected 'reuse' with a penalty"),
        ({"nonnegative": True}, "`mode` came as 'theory' with nonnegative=True; expected 'reuse'"),
        ({"loss": "huber"}, "`mode` came as 'theory' with loss='huber'; expected 'reuse'"),
        ({"method": "gn"}, "`mode` came as 'theory' with method='gn'; expected method='altmin'"),
        ({"mode": "practice"}, "`mode` came as 'practice'; expected"),
        ({"tol": 1e-12}, "`mode` came as 'theory' for 36 entries; expected 'reuse', or at least"),
    ],
    ids=str,
)
def test_what_the_theory_is_not_for_is_refused(rng, options, message):
    with pytest.raises(ValueError, match=message):
        solve(rng.random((6, 6)), 1, 6, **{"tol": 1e-1, **options})


def test_small_residuals_mean_small_errors_as_the_theory_says(rng):
    """``|A x - b| <= (1 + e) |A x* - b|`` gives ``|x - x*| <= (2 e + e^2)^1/2 |A x* - b| / s``."""
    parts, start = systems(rng, [150, 200, 250], 4, "weights", noise=0.5)
    parts[6][:] = 0.0
    solved, *_ = expected(parts, start)
    inner = SimpleNamespace(name="sketch", steps=0, rng=rng)
    worst = 0.0
    for eta in (1e-1, 1e-2, 1e-3):
        x = start.copy()
        inner.eta = eta
        other = np.empty_like(x), np.zeros_like(x)
        _large_rows.sketched(get_backend("numpy"), tuple(parts), x, *other, inner)
        for (A, b, _), near, best in zip(rows_of(parts), x, solved, strict=True):
            least = np.linalg.norm(A @ best - b)
            e = np.linalg.norm(A @ near - b) / least - 1.0
            s = np.linalg.svd(A, compute_uv=False)[-1]
            bound = math.sqrt(max(2.0 * e + e * e, 0.0)) * least / s
            error = np.linalg.norm(near - best)
            assert 0.0 < error <= bound * (1.0 + 1e-6) + 1e-13
            worst = max(worst, error / bound if bound > 0 else 0.0)
    # The bound is no exaggeration: along the last singular vector it is met.
    assert worst > 0.2
    A, b, _ = next(rows_of(parts))
    best = np.linalg.lstsq(A, b, rcond=None)[0]
    _, s, vt = np.linalg.svd(A, full_matrices=False)
    least = np.linalg.norm(A @ best - b)
    e = np.linalg.norm(A @ (best + 0.1 * vt[-1]) - b) / least - 1.0
    assert math.sqrt(2.0 * e + e * e) * least / s[-1] == pytest.approx(0.1)
