"""Row solvers for large ranks: the Numba kernels here, their CUDA twins on the stand-in."""

from pathlib import Path

import _cuda_on_cpu
import numba
import numpy as np
import pytest
from _cupy_standin import run_with_standin

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
    run_with_standin(
        Path(__file__).parent / "sketch_on_device.py",
        "-k",
        "not all_lengths and not equal_unknowns and not too_many",
    )


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
