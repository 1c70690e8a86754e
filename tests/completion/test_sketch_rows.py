"""Row solvers for large ranks: the Numba kernels here, their CUDA twins on the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

from solvers import ConvergenceWarning, completion
from solvers._core import threads
from solvers._core.backend import get_backend
from solvers.completion.kernels.sketch import cpu
from tests.completion.sketch_kernel_tests import SketchKernelTests, systems


class TestNumbaSketchKernels(SketchKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("numpy")


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_the_cuda_twins_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "sketch_on_device.py")


@pytest.mark.parametrize("k", [3, 16])
@pytest.mark.parametrize("ratio", [4, 12])
@pytest.mark.parametrize("skewed", [False, True])
def test_sketches_nearly_keep_the_lengths_of_a_subspace(rng, k, ratio, skewed):
    """Singular values of S Q stay within (k / s)^1/2 or so of 1, also where some rows are long."""
    d, s = 60 * k, ratio * k
    B = rng.standard_normal((d, k))
    if skewed:
        B *= ((np.arange(d) + 5.0) ** -0.9)[:, None]
    Q = np.linalg.qr(B)[0]
    nothing = np.empty(0)
    entries = 0, d, np.arange(d, dtype=np.int32), np.zeros(d), nothing, Q, nothing
    width = -(-k // 8) * 8
    extremes = []
    for seed in range(20):
        V, target, S = np.zeros((256, width)), np.zeros(256), np.zeros((s, width))
        cpu._gather(entries, 0, V, target)
        cpu._sketch(entries, V, target, np.uint64(seed), S)
        values = np.linalg.svd(S[:, :k], compute_uv=False)
        extremes.append((values[-1], values[0]))
    low, high = np.mean(extremes, axis=0)
    reach = np.sqrt(k / s)
    assert 1.0 - 1.3 * reach < low < 1.0 < high < 1.0 + 1.3 * reach


def test_signs_and_places_of_a_sketch_are_even(rng):
    """On average S^T S is the identity: signs cancel, and all of S is used."""
    d, k, s = 400, 4, 16
    nothing = np.empty(0)
    B = np.ones((d, k))
    entries = 0, d, np.arange(d, dtype=np.int32), np.zeros(d), nothing, B, nothing
    totals = []
    for seed in range(200):
        V, target, S = np.zeros((512, 8)), np.zeros(512), np.zeros((s, 8))
        cpu._gather(entries, 0, V, target)
        cpu._sketch(entries, V, target, np.uint64(seed), S)
        totals.append(S[:, 0])
    totals = np.array(totals)
    # Each of the s places holds the sum of d / 8 signs of size 2^-1/2.
    np.testing.assert_allclose(totals.mean(axis=0), 0.0, atol=4 * np.sqrt(d / s / 200))
    np.testing.assert_allclose((totals**2).mean(axis=0), d / s, rtol=0.5)
    np.testing.assert_allclose((totals**2).sum(axis=1).mean(), d, rtol=0.1)


def test_several_strips_give_what_one_strip_gives(rng, monkeypatch):
    if numba.get_num_threads() == 1:
        pytest.skip("one thread makes one strip")
    parts, A = systems(rng, [0, 5, 80, 90, 100, 120, 77], 3, "weights")
    tests = SketchKernelTests()
    tests.be = get_backend("numpy")
    for method in ("sketch", "subspace"):
        alone = tests.solve(method, parts, A)
        with monkeypatch.context() as patch:
            patch.setattr(threads, "_SMALL_WORK", 0)
            together = tests.solve(method, parts, A)
        for x, y in zip(alone, together, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"lam": 0.5}, {"bias": True, "lam": 0.5},
                                     {"implicit": True, "lam": 0.5}], ids=str)  # fmt: skip
@pytest.mark.parametrize("inner", ["sketch", "subspace"])
def test_whole_runs_reach_the_objective_of_the_direct_solver(rng, inner, options):
    X = rng.standard_normal((90, 3)) @ rng.standard_normal((3, 80))
    M = np.where(rng.random(X.shape) < 0.8, X + 0.1 * rng.standard_normal(X.shape), np.nan)
    if "implicit" in options:
        M = np.where(np.isnan(M), 0.0, np.round(np.abs(X)))
    options = {"method": "altmin", "tol": 1e-7, "rng": 0, **options}
    res = completion.alternating_minimization(M, 3, inner=inner, **options)
    direct = completion.alternating_minimization(M, 3, inner="direct", **options)
    assert res.success
    assert res.n_inner > 0 == direct.n_inner
    assert res.fun == pytest.approx(direct.fun, rel=1e-9)


@pytest.mark.parametrize("inner", ["sketch", "subspace"])
def test_limits_and_tolerances_of_row_solvers_take_effect(rng, inner):
    X = rng.standard_normal((90, 40)) @ rng.standard_normal((40, 80))
    M = np.where(rng.random(X.shape) < 0.95, X, np.nan)
    if inner == "sketch":
        X = rng.standard_normal((90, 3)) @ rng.standard_normal((3, 80))
        M = np.where(rng.random(X.shape) < 0.9, X + 0.1 * rng.standard_normal(X.shape), np.nan)
    options = {"method": "altmin", "inner": inner, "tol": 1e-30, "maxiter": 3, "rng": 0}
    rank = 3 if inner == "sketch" else 40

    def steps(**given):
        with pytest.warns(ConvergenceWarning):
            return completion.alternating_minimization(M, rank, **options, **given).n_inner

    rows = 3 * sum(M.shape)
    assert 0 < steps(maxiter_inner=1) <= rows
    assert steps(tol_inner=1e-2) < steps(tol_inner=1e-6)
